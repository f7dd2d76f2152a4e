//! Which files of the tree are part of the site: the closed world begins here.
//!
//! Names that begin with a dot (other than `.well-known`), anything that is neither a regular file
//! nor a directory, and links that the policy forbids are left out. The rule files in the root are
//! yielded, but are not part of the site. These conditions apply to the path in the site, not to
//! the real path that a link resolves to.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

use crate::rules::RuleFile;
use crate::semantics::coding::Coding;
use crate::settings::Symlinks;

/// One thing that the walk yields.
#[derive(Debug)]
pub(crate) enum WalkStep {
    /// A file that is part of the site.
    File(FoundFile),
    /// A rule file, which is not part of the site.
    Rules(RuleFile, FoundFile),
    /// A link, whether or not it leads to a part of the site.
    Link(Link),
    /// A path that may be part of the site but can't be read, with the reason.
    Unreadable(Box<[u8]>, String),
}

impl WalkStep {
    fn of(found: FoundFile) -> Self {
        match RuleFile::named(&found.path) {
            Some(file) => Self::Rules(file, found),
            None => Self::File(found),
        }
    }
}

/// A file, and where it really is.
#[derive(Debug)]
pub(crate) struct FoundFile {
    /// Its path in the site: raw bytes, without a leading slash.
    pub(crate) path: Box<[u8]>,
    /// Where it is, free of links: relative to the root, or absolute where a link left the root.
    pub(crate) location: PathBuf,
    /// Whether a link leads to it, so that the same file may have more paths.
    pub(crate) linked: bool,
}

/// A symbolic link in the site.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// Its path in the site.
    pub path: Box<[u8]>,
    /// The real path at its end; `None` if there is nothing.
    pub target: Option<PathBuf>,
}

/// Walks the site from `start`: a file, or a directory and everything below it, or the whole site
/// if it is empty. `root` is a real path.
pub(crate) fn walk(
    root: &Path,
    start: &[u8],
    symlinks: Symlinks,
) -> impl Iterator<Item = WalkStep> {
    let walker = is_admitted(start).then(|| {
        WalkDir::new(join(root, start))
            // A start that is a link itself is yielded as one.
            .follow_root_links(false)
            .follow_links(symlinks != Symlinks::None)
            .into_iter()
    });
    let mut walk = SiteWalk {
        root: root.to_path_buf(),
        symlinks,
        walker,
        links: Vec::new(),
        next: None,
    };
    walk.enter(start);
    walk
}

/// Whether a path may be part of the site, judged by its names alone.
pub fn is_admitted(path: &[u8]) -> bool {
    !is_beside_rules(path) && !is_hidden(path)
}

/// Whether a path is a rule file's sidecar, or below what should be one.
pub fn is_beside_rules(path: &[u8]) -> bool {
    let rest = RuleFile::ALL
        .into_iter()
        .find_map(|file| path.strip_prefix(file.name().as_bytes()));
    match rest {
        Some([b'/', ..]) => true,
        // A build that compresses everything makes `_headers.gz`, which would publish the rules.
        Some([b'.', rest @ ..]) => Coding::ALL
            .iter()
            .filter_map(|coding| coding.extension())
            .any(|extension| rest == extension.as_bytes()),
        _ => false,
    }
}

/// Whether a path has a name that begins with a dot, and so can't be asked for.
pub fn is_hidden(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/')
        // RFC 8615: the one such name that is meant for clients.
        .any(|name| name.starts_with(b".") && name != b".well-known")
}

/// A path of the site as a path of the file system.
pub(super) fn join(root: &Path, path: &[u8]) -> PathBuf {
    if path.is_empty() {
        root.to_path_buf()
    } else {
        root.join(OsStr::from_bytes(path))
    }
}

/// Linked directories on one path. Directories that link to each other have a path for each order
/// of visiting them: ten would have millions.
const MAX_LINK_DEPTH: usize = 4;

struct SiteWalk {
    root: PathBuf,
    symlinks: Symlinks,
    walker: Option<walkdir::IntoIter>,
    /// The linked directories on the path of the current entry, outermost first.
    links: Vec<Entered>,
    /// The file that the link yielded last leads to.
    next: Option<WalkStep>,
}

/// A directory that was entered through a link.
struct Entered {
    depth: usize,
    as_found: PathBuf,
    real: PathBuf,
}

impl Iterator for SiteWalk {
    type Item = WalkStep;

    fn next(&mut self) -> Option<WalkStep> {
        if let Some(step) = self.next.take() {
            return Some(step);
        }
        loop {
            let entry = match self.walker.as_mut()?.next()? {
                Ok(entry) => entry,
                Err(error) => match self.explain(&error) {
                    Some(step) => return Some(step),
                    None => continue,
                },
            };
            if let Some(step) = self.step(&entry) {
                return Some(step);
            }
        }
    }
}

impl SiteWalk {
    /// Prepares for a start that itself lies behind links.
    fn enter(&mut self, start: &[u8]) {
        let Some(parent) = start
            .iter()
            .rposition(|byte| *byte == b'/')
            .map(|end| &start[..end])
        else {
            return;
        };
        let as_found = join(&self.root, parent);
        match as_found.canonicalize() {
            Ok(real) if real == as_found => {}
            Ok(real) if self.allows(&real) => {
                self.links.push(Entered {
                    depth: 0,
                    as_found,
                    real,
                });
            }
            // Gone, or behind a link that may not be followed: the walk yields nothing.
            _ => self.walker = None,
        }
    }

    fn allows(&self, real: &Path) -> bool {
        self.symlinks.allow(&self.root, real)
    }

    fn step(&mut self, entry: &DirEntry) -> Option<WalkStep> {
        // The links that lead to the start itself, at depth 0, apply to the whole walk.
        while self
            .links
            .last()
            .is_some_and(|link| link.depth > 0 && link.depth >= entry.depth())
        {
            self.links.pop();
        }
        let path = self.site_path(entry.path());
        if !is_admitted(&path) {
            self.skip(entry);
            return None;
        }
        // The root may be a link itself: the whole site is behind it.
        if entry.path_is_symlink() && !path.is_empty() {
            return Some(WalkStep::Link(self.follow(entry, path)));
        }
        if !entry.file_type().is_file() {
            return None;
        }
        let Some(Entered { as_found, real, .. }) = self.links.last() else {
            let location = PathBuf::from(OsStr::from_bytes(&path));
            return Some(WalkStep::of(FoundFile {
                path,
                location,
                linked: false,
            }));
        };
        let below = entry.path().strip_prefix(as_found).unwrap_or(entry.path());
        Some(WalkStep::of(self.found(path, real.join(below))))
    }

    fn follow(&mut self, entry: &DirEntry, path: Box<[u8]>) -> Link {
        let target = entry.path().canonicalize().ok();
        let link = Link { path, target };
        let Some(real) = link.target.clone().filter(|real| self.allows(real)) else {
            self.skip(entry);
            return link;
        };
        if entry.file_type().is_dir() && self.links.len() >= MAX_LINK_DEPTH {
            let path = entry.path().display();
            tracing::warn!(
                path = %path,
                "not following {path}: it already lies behind {MAX_LINK_DEPTH} linked directories"
            );
            self.skip(entry);
        } else if entry.file_type().is_dir() {
            let as_found = entry.path().to_path_buf();
            self.links.push(Entered {
                depth: entry.depth(),
                as_found,
                real,
            });
        } else if entry.file_type().is_file() {
            self.next = Some(WalkStep::of(self.found(link.path.clone(), real)));
        }
        link
    }

    fn found(&self, path: Box<[u8]>, real: PathBuf) -> FoundFile {
        let location = match real.strip_prefix(&self.root) {
            Ok(relative) => relative.to_path_buf(),
            Err(_) => real,
        };
        FoundFile {
            path,
            location,
            linked: true,
        }
    }

    fn skip(&mut self, entry: &DirEntry) {
        if entry.file_type().is_dir()
            && let Some(walker) = &mut self.walker
        {
            walker.skip_current_dir();
        }
    }

    /// The walk only meets paths that begin with the root's, so its bytes can be cut off.
    fn site_path(&self, path: &Path) -> Box<[u8]> {
        let path = path.as_os_str().as_bytes();
        let below = path
            .strip_prefix(self.root.as_os_str().as_bytes())
            .unwrap_or(path);
        below.strip_prefix(b"/").unwrap_or(below).into()
    }

    /// A walk error as a step; `None` if nothing is missing from the site because of it.
    fn explain(&self, error: &walkdir::Error) -> Option<WalkStep> {
        let as_found = error.path().unwrap_or(&self.root);
        let path = self.site_path(as_found);
        if !is_admitted(&path) {
            return None;
        }
        if as_found.is_symlink() {
            // It is broken or leads back to a directory above it. The watcher has to know of it:
            // it becomes part of the site once its target appears.
            let target = as_found.canonicalize().ok();
            return Some(WalkStep::Link(Link { path, target }));
        }
        let error = error.io_error()?;
        // Deleted after its directory was listed: no longer part of the site.
        use std::io::ErrorKind::{NotADirectory, NotFound};
        let is_gone = matches!(error.kind(), NotFound | NotADirectory);
        (!is_gone).then(|| WalkStep::Unreadable(path, error.to_string()))
    }
}

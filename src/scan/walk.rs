//! Which files of the tree are part of the site: the closed world begins here.
//!
//! Left out are names that begin with a dot (but `.well-known`), what is neither a regular file nor
//! a directory, and links that lead where the policy forbids; the rule files in the root are found,
//! but no part of the site. All that is about the names that are asked for, not about what a link
//! resolves through.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

use crate::config::Symlinks;
use crate::rules::RuleFile;
use crate::semantics::coding::Coding;

/// What the walk has come upon.
#[derive(Debug)]
pub(crate) enum WalkStep {
    /// A file that is part of the site.
    File(FoundFile),
    /// A file of rules, which is not.
    Rules(RuleFile, FoundFile),
    /// A link, whether or not it leads to a part of the site.
    Link(Link),
    /// A path that should be part of the site but can't be looked at.
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

/// A file that is found.
#[derive(Debug)]
pub(crate) struct FoundFile {
    /// Its path in the site: raw bytes, without a leading slash.
    pub(crate) path: Box<[u8]>,
    /// Where it is, free of links: relative to the root, or absolute where a link left the root.
    pub(crate) location: PathBuf,
    /// Whether a link leads to it, so that the same file may be found under other paths too.
    pub(crate) linked: bool,
}

/// A symbolic link in the site.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// Its path in the site.
    pub path: Box<[u8]>,
    /// The real path it leads to, at its end; `None` where there is nothing.
    pub target: Option<PathBuf>,
}

/// Walks what `start` names in the site: all of it where that is empty, else a file or a
/// directory with all that is in it. `root` is a real path.
pub(crate) fn walk(
    root: &Path,
    start: &[u8],
    symlinks: Symlinks,
) -> impl Iterator<Item = WalkStep> {
    let walker = is_admitted(start)
        .then(|| WalkDir::new(join(root, start)))
        .map(|walk| {
            walk.follow_root_links(false)
                .follow_links(symlinks != Symlinks::None)
        })
        .map(WalkDir::into_iter);
    let links = Vec::new();
    let mut walk = SiteWalk {
        root: root.to_path_buf(),
        symlinks,
        walker,
        links,
        next: None,
    };
    walk.enter(start);
    walk
}

/// Whether a path may be looked at, judged by its names.
pub fn is_admitted(path: &[u8]) -> bool {
    !is_beside_rules(path) && !is_hidden(path)
}

/// Whether a path is a rule file's sidecar, or below what should be one.
pub fn is_beside_rules(path: &[u8]) -> bool {
    let rest = |file: RuleFile| path.strip_prefix(file.name().as_bytes());
    let mut extensions = Coding::ALL.iter().filter_map(|coding| coding.extension());
    match RuleFile::ALL.into_iter().find_map(rest) {
        Some([b'/', ..]) => true,
        Some([b'.', rest @ ..]) => extensions.any(|extension| rest == extension.as_bytes()),
        _ => false,
    }
}

/// Whether a path has a name that begins with a dot, and so can't be asked for.
pub fn is_hidden(path: &[u8]) -> bool {
    let is_hidden = |name: &[u8]| name.starts_with(b".") && name != b".well-known";
    path.split(|byte| *byte == b'/').any(is_hidden)
}

/// A path of the site as a path of the file system.
pub(super) fn join(root: &Path, path: &[u8]) -> PathBuf {
    if path.is_empty() {
        root.to_path_buf()
    } else {
        root.join(OsStr::from_bytes(path))
    }
}

/// Linked directories on one path: directories that link to each other have as many paths as there
/// are orders to visit them in.
const MAX_LINK_DEPTH: usize = 4;

struct SiteWalk {
    root: PathBuf,
    symlinks: Symlinks,
    walker: Option<walkdir::IntoIter>,
    /// The linked directories that lead to the present entry.
    links: Vec<Entered>,
    /// What the last entry was beside a link.
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
            if let Some(step) = self.look_at(&entry) {
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
            // Gone, or behind a link that may not be followed: nothing is there.
            _ => self.walker = None,
        }
    }

    fn allows(&self, real: &Path) -> bool {
        self.symlinks.allow(&self.root, real)
    }

    fn look_at(&mut self, entry: &DirEntry) -> Option<WalkStep> {
        // The start's own links, at depth 0, stay.
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
        let is_link = entry.path_is_symlink() && !path.is_empty();
        if is_link {
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
            tracing::warn!(
                "{} lies behind {MAX_LINK_DEPTH} linked directories already: not followed",
                entry.path().display()
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

    /// A walk error as a step; `None` where nothing is missing from the site.
    fn explain(&self, error: &walkdir::Error) -> Option<WalkStep> {
        let as_found = error.path().unwrap_or(&self.root);
        let path = self.site_path(as_found);
        if !is_admitted(&path) {
            return None;
        }
        if as_found.is_symlink() {
            // It leads to nothing, or back to where it is: remembered, for it may be mended.
            let target = as_found.canonicalize().ok();
            return Some(WalkStep::Link(Link { path, target }));
        }
        let error = error.io_error()?;
        // Deleted between the listing and the look: not part of the site any more.
        use std::io::ErrorKind::{NotADirectory, NotFound};
        let is_gone = matches!(error.kind(), NotFound | NotADirectory);
        (!is_gone).then(|| WalkStep::Unreadable(path, error.to_string()))
    }
}

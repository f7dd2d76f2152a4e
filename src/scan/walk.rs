//! Which files of the tree are part of the site: the closed world begins here.
//!
//! Left out are names that begin with a dot (but `.well-known`), the rule files in the root, what
//! is neither a regular file nor a directory, and links that lead where the policy forbids.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

use crate::config::Symlinks;

/// A file that is part of the site.
#[derive(Debug)]
pub(super) struct Found {
    /// Its path in the site: raw bytes, without a leading slash.
    pub(super) path: Box<[u8]>,
    /// Where it is, free of links: relative to the root, or absolute where a link left the root.
    pub(super) location: PathBuf,
    /// Whether a link leads to it, so that the same file may be found under other paths too.
    pub(super) linked: bool,
}

/// A path that cannot be part of the site although it should, and why.
#[derive(Debug)]
pub(super) struct Unreadable {
    /// Its path in the site.
    pub(super) path: Box<[u8]>,
    /// What failed.
    pub(super) reason: String,
}

/// All files of the site under `root`, a real path.
pub(super) fn walk(
    root: &Path,
    symlinks: Symlinks,
) -> impl Iterator<Item = Result<Found, Unreadable>> {
    let walker = WalkDir::new(root)
        .follow_links(symlinks != Symlinks::None)
        .into_iter()
        .filter_entry(|entry| entry.depth() == 0 || is_public(entry));
    Walk {
        root: root.to_path_buf(),
        symlinks,
        walker,
        links: Vec::new(),
    }
}

struct Walk<I> {
    root: PathBuf,
    symlinks: Symlinks,
    walker: I,
    /// The linked directories that lead to the present entry: depth, path as found, real path.
    links: Vec<(usize, PathBuf, PathBuf)>,
}

impl<P> Iterator for Walk<walkdir::FilterEntry<walkdir::IntoIter, P>>
where
    P: FnMut(&DirEntry) -> bool,
{
    type Item = Result<Found, Unreadable>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let entry = match self.walker.next()? {
                Ok(entry) => entry,
                Err(error) => match self.explain(&error) {
                    Some(unreadable) => return Some(Err(unreadable)),
                    None => continue,
                },
            };
            while self
                .links
                .last()
                .is_some_and(|(depth, ..)| *depth >= entry.depth())
            {
                self.links.pop();
            }
            if entry.path_is_symlink() && entry.depth() > 0 {
                match self.follow(&entry) {
                    Ok(Some(real)) if entry.file_type().is_dir() => {
                        self.links
                            .push((entry.depth(), entry.path().to_path_buf(), real));
                        continue;
                    }
                    Ok(Some(real)) if entry.file_type().is_file() => {
                        return Some(Ok(self.found(&entry, real, true)));
                    }
                    Ok(_) => {}
                    Err(unreadable) => return Some(Err(unreadable)),
                }
                if entry.file_type().is_dir() {
                    self.walker.skip_current_dir();
                }
                continue;
            }
            if entry.file_type().is_file() {
                let Some((_, link, target)) = self.links.last() else {
                    let path = self.site_path(entry.path());
                    let location = PathBuf::from(OsStr::from_bytes(&path));
                    return Some(Ok(Found {
                        path,
                        location,
                        linked: false,
                    }));
                };
                let real = rebase(entry.path(), link, target);
                return Some(Ok(self.found(&entry, real, true)));
            }
        }
    }
}

impl<I> Walk<I> {
    /// The real path of a link's target, if the policy lets the site reach it.
    fn follow(&self, link: &DirEntry) -> Result<Option<PathBuf>, Unreadable> {
        if self.symlinks == Symlinks::None {
            return Ok(None);
        }
        let fail = |reason: String| Unreadable {
            path: self.site_path(link.path()),
            reason,
        };
        let real = link
            .path()
            .canonicalize()
            .map_err(|error| fail(error.to_string()))?;
        if self.symlinks == Symlinks::Inside && !real.starts_with(&self.root) {
            let (link, target) = (link.path().display(), real.display());
            tracing::warn!("{link} links to {target}, outside the site: left out (--symlinks all)");
            return Ok(None);
        }
        Ok(Some(real))
    }

    fn found(&self, entry: &DirEntry, real: PathBuf, linked: bool) -> Found {
        let location = match real.strip_prefix(&self.root) {
            Ok(relative) => relative.to_path_buf(),
            Err(_) => real,
        };
        Found {
            path: self.site_path(entry.path()),
            location,
            linked,
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

    /// A walk error as the operator should see it; `None` where nothing is missing from the site.
    fn explain(&self, error: &walkdir::Error) -> Option<Unreadable> {
        let path = error.path().unwrap_or(&self.root);
        if let Some(ancestor) = error.loop_ancestor() {
            let (path, ancestor) = (path.display(), ancestor.display());
            tracing::warn!("{path} links back to {ancestor}: not followed");
            return None;
        }
        let reason = error
            .io_error()
            .map_or_else(|| error.to_string(), ToString::to_string);
        let missing = error
            .io_error()
            .is_some_and(|e| e.kind() == std::io::ErrorKind::NotFound);
        if missing && !path.is_symlink() {
            // Deleted between the listing and the look: not part of the site any more.
            return None;
        }
        if missing {
            tracing::warn!("{} links to nothing: left out", path.display());
            return None;
        }
        Some(Unreadable {
            path: self.site_path(path),
            reason,
        })
    }
}

fn rebase(path: &Path, from: &Path, to: &Path) -> PathBuf {
    path.strip_prefix(from)
        .map_or_else(|_| path.to_path_buf(), |rest| to.join(rest))
}

/// Whether a name may be asked for. The rule is about names in the site, not about what a link
/// resolves through.
fn is_public(entry: &DirEntry) -> bool {
    let name = entry.file_name();
    let is_hidden = name.as_bytes().starts_with(b".") && name != OsStr::new(".well-known");
    let is_rules = entry.depth() == 1 && (name == "_headers" || name == "_redirects");
    !is_hidden && !is_rules
}

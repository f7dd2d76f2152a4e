//! Directories that writes make and empty.
//!
//! What is missing of a path is made before its file gets its place, and what a write leaves empty is
//! removed when it is over. Several writes may need one directory at the same time, so each counts as
//! a user of it, and of those above it, from before its upload begins until it is over: no write
//! removes what another is about to put a file into.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use super::Directory;
use crate::disk::Root;

/// Bytes of the longest path that the system takes: `PATH_MAX` of Linux, which counts the NUL.
const MAX_PATH_LENGTH: usize = 4096 - 1;
/// Bytes of the longest name of a temporary file.
const MAX_TEMP_NAME_LENGTH: usize = ".etagd-4294967295-4294967295".len();

/// The directories that writes use at this moment.
#[derive(Debug, Default)]
pub struct DirectoriesInUse(Mutex<HashMap<PathBuf, Usage>>);

#[derive(Debug, Default)]
struct Usage {
    users: usize,
    /// Whether a write has made it, and no file was put into it: its last user removes it.
    is_made: bool,
    /// Whether a deletion has emptied it: its last user removes it, and what that empties.
    is_emptied: bool,
    /// Whether it was made, and a crash might still undo that.
    is_unsynced: bool,
}

impl DirectoriesInUse {
    /// No memory is changed half-way under this lock.
    fn lock(&self) -> MutexGuard<'_, HashMap<PathBuf, Usage>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The use that one write makes of the directory of its file, and of those above it. When it is
/// dropped, those are removed that are left empty; that may block.
#[derive(Debug)]
pub struct DirectoryUse {
    all: Arc<DirectoriesInUse>,
    root: Root,
    /// From the directory of the file upwards, without the root. Relative to it.
    chain: Vec<PathBuf>,
}

impl DirectoryUse {
    /// The use of `parent`, relative to the root, for a file `name` in it. Nothing is made yet.
    ///
    /// # Errors
    /// [`Errno::NAMETOOLONG`] where the system can't name such a file, or a temporary one beside it,
    /// by its whole path: a directory that is open could take it, but no scan would find it.
    pub fn begin(
        all: &Arc<DirectoriesInUse>,
        root: Root,
        parent: &Path,
        name: &OsStr,
    ) -> io::Result<Self> {
        let directory = root.path().join(parent).as_os_str().len();
        if directory + 1 + name.len().max(MAX_TEMP_NAME_LENGTH) > MAX_PATH_LENGTH {
            return Err(Errno::NAMETOOLONG.into());
        }
        let chain: Vec<_> = parent
            .ancestors()
            .take_while(|path| !path.as_os_str().is_empty())
            .map(Path::to_path_buf)
            .collect();
        let mut usages = all.lock();
        for path in &chain {
            usages.entry(root.path().join(path)).or_default().users += 1;
        }
        drop(usages);
        Ok(Self {
            all: Arc::clone(all),
            root,
            chain,
        })
    }

    /// The root, as it was when the use began.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Creates what is missing of the directory, so that it survives a crash. A link on the way is an
    /// error, for the directory it leads to has another path in the site.
    ///
    /// # Errors
    /// As `mkdir(2)`, `open(2)` and `fsync(2)`.
    pub fn make(&self) -> io::Result<()> {
        let mut usages = self.all.lock();
        let mut directory = Directory::open(&self.root, Path::new(""))?;
        for path in self.chain.iter().rev() {
            let name = path.file_name().unwrap_or_default();
            directory = match directory.enter(name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let is_made = directory.make(name)?;
                    if let Some(usage) = usages.get_mut(&self.root.path().join(path)) {
                        // Another process may have created it since.
                        usage.is_made |= is_made;
                        usage.is_unsynced = true;
                    }
                    directory.enter(name)?
                }
                entered => entered?,
            };
        }
        drop(usages);
        self.sync()
    }

    /// Has the names of new directories survive a crash, whichever write has made them, or the sync of
    /// the file would not save its path (fsync(2)).
    fn sync(&self) -> io::Result<()> {
        let is_unsynced = |path: &PathBuf| {
            let usages = self.all.lock();
            usages.get(path).is_some_and(|usage| usage.is_unsynced)
        };
        let whole = |path: &PathBuf| self.root.path().join(path);
        if !self.chain.iter().map(whole).any(|path| is_unsynced(&path)) {
            return Ok(());
        }
        let mut directory = Directory::open(&self.root, Path::new(""))?;
        for path in self.chain.iter().rev() {
            let whole = whole(path);
            if is_unsynced(&whole) {
                directory.sync()?;
                if let Some(usage) = self.all.lock().get_mut(&whole) {
                    usage.is_unsynced = false;
                }
            }
            directory = directory.enter(path.file_name().unwrap_or_default())?;
        }
        Ok(())
    }

    /// The file is in its place, so none of the directories is left empty.
    pub fn set_filled(&self) {
        let mut usages = self.all.lock();
        for path in &self.chain {
            if let Some(usage) = usages.get_mut(&self.root.path().join(path)) {
                usage.is_made = false;
                usage.is_emptied = false;
            }
        }
    }

    /// The file was removed, and nothing else is in its directory.
    pub fn set_emptied(&self) {
        let mut usages = self.all.lock();
        if let Some(path) = self.chain.first()
            && let Some(usage) = usages.get_mut(&self.root.path().join(path))
        {
            usage.is_emptied = true;
        }
    }
}

impl Drop for DirectoryUse {
    /// Removes, from the bottom up, what nobody uses any more and what this leaves empty.
    fn drop(&mut self) {
        let mut usages = self.all.lock();
        let mut is_emptied = false;
        let mut may_go_on = true;
        for path in &self.chain {
            let whole = self.root.path().join(path);
            let Some(usage) = usages.get_mut(&whole) else {
                continue;
            };
            usage.users = usage.users.saturating_sub(1);
            usage.is_emptied |= is_emptied;
            if usage.users > 0 {
                may_go_on = false;
                is_emptied = false;
                continue;
            }
            let was_emptied = std::mem::take(&mut usage.is_emptied);
            let is_ours = was_emptied || usage.is_made;
            usages.remove(&whole);
            is_emptied = false;
            if may_go_on && is_ours {
                match remove_empty(&self.root, path) {
                    // What was made is gone again, and what it was made in is as it was before.
                    Ok(is_last) => is_emptied = was_emptied && is_last,
                    // Something is in it, or it can't be removed: then it stays.
                    Err(_) => may_go_on = false,
                }
            }
        }
    }
}

/// Removes an empty directory. Whether the one above it has become empty by that: one that others
/// have emptied is theirs.
fn remove_empty(root: &Root, path: &Path) -> io::Result<bool> {
    let above = Directory::open(root, path.parent().unwrap_or(Path::new("")))?;
    let name = path.file_name().unwrap_or_default();
    let is_last = above.has_only(name).unwrap_or(false);
    above.remove_directory(name)?;
    Ok(is_last)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;
    use crate::disk::seam::{self, Call};

    struct Fixture {
        directory: TempDir,
        all: Arc<DirectoriesInUse>,
    }

    impl Fixture {
        fn new() -> Self {
            Self {
                directory: tempfile::tempdir().expect("a directory"),
                all: Arc::default(),
            }
        }

        fn begin(&self, parent: &str) -> DirectoryUse {
            let root = Root::open(self.directory.path()).expect("a root");
            DirectoryUse::begin(&self.all, root, Path::new(parent), OsStr::new("f")).expect("short")
        }

        fn make(&self, parent: &str) -> DirectoryUse {
            let made = self.begin(parent);
            made.make().expect("made");
            made
        }

        fn write(&self, path: &str) {
            let path = self.directory.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, "x").expect("written");
        }

        fn remove(&self, path: &str) {
            fs::remove_file(self.directory.path().join(path)).expect("removed");
        }

        fn has(&self, path: &str) -> bool {
            self.directory.path().join(path).is_dir()
        }
    }

    #[test]
    fn what_a_failed_write_has_made_is_removed_and_nothing_else() {
        let fixture = Fixture::new();
        fs::create_dir(fixture.directory.path().join("old")).expect("made");
        let made = fixture.make("old/a/b");
        assert!(fixture.has("old/a/b"));
        drop(made);
        assert!(!fixture.has("old/a") && fixture.has("old"));
        let made = fixture.make("old/a/b");
        fixture.write("old/a/other");
        drop(made);
        assert!(!fixture.has("old/a/b") && fixture.has("old/a"));
        assert!(fixture.all.lock().is_empty());
    }

    #[test]
    fn what_was_made_before_it_failed_is_removed() {
        let fixture = Fixture::new();
        let made = fixture.begin("a/b/c");
        let mut calls = 0;
        let gate = move |call: Call| {
            calls += usize::from(call == Call::Make);
            match calls {
                2.. => Err(Errno::NOSPC.into()),
                _ => Ok(()),
            }
        };
        seam::run(gate, || made.make().expect_err("the disk is full"));
        assert!(fixture.has("a"));
        drop(made);
        assert!(!fixture.has("a"));
    }

    #[test]
    fn what_another_write_uses_stays_until_that_is_over() {
        let fixture = Fixture::new();
        let (first, second) = (fixture.make("a/b/c"), fixture.begin("a/b"));
        drop(first);
        assert!(!fixture.has("a/b/c") && fixture.has("a/b"));
        let third = fixture.make("a/b");
        drop(second);
        assert!(fixture.has("a/b"));
        fixture.write("a/b/f");
        third.set_filled();
        drop(third);
        assert!(fixture.has("a/b") && fixture.all.lock().is_empty());
    }

    #[test]
    fn what_a_deletion_empties_is_removed_up_to_what_has_anything_else() {
        let fixture = Fixture::new();
        for path in ["x", "a/keep", "a/b/c/f", "a/b/c/.etagd-1-1"] {
            fixture.write(path);
        }
        let root = Root::open(fixture.directory.path()).expect("a root");
        let parent = Directory::open(&root, Path::new("a/b/c")).expect("there");
        assert!(parent.has_only(OsStr::new("f")).expect("listed"));
        fixture.write("a/b/c/g");
        assert!(!parent.has_only(OsStr::new("f")).expect("listed"));
        fixture.remove("a/b/c/g");
        fixture.remove("a/b/c/f");
        // An upload is under way, and breaks off after the deletion.
        let upload = fixture.begin("a/b/c");
        let deletion = fixture.begin("a/b/c");
        deletion.set_emptied();
        drop(deletion);
        assert!(fixture.has("a/b/c"));
        fixture.remove("a/b/c/.etagd-1-1");
        drop(upload);
        assert!(!fixture.has("a/b") && fixture.has("a"));
        // The root stays, and so does what was empty before.
        fixture.remove("a/keep");
        drop(fixture.begin("a"));
        assert!(fixture.has("a"));
        let deletion = fixture.begin("a");
        deletion.set_emptied();
        fixture.remove("x");
        drop(deletion);
        assert!(!fixture.has("a") && fixture.directory.path().is_dir());
    }

    #[test]
    fn links_are_not_followed() {
        let fixture = Fixture::new();
        fixture.write("a/f");
        std::os::unix::fs::symlink("a", fixture.directory.path().join("link")).expect("linked");
        for parent in ["link/b", "link", "a/f/b"] {
            assert!(fixture.begin(parent).make().is_err(), "{parent}");
        }
        assert!(!fixture.has("a/b") && fixture.all.lock().is_empty());
    }

    #[test]
    fn what_no_path_can_name_is_refused() {
        let fixture = Fixture::new();
        let root = || Root::open(fixture.directory.path()).expect("a root");
        let room = MAX_PATH_LENGTH - root().path().as_os_str().len();
        // A slash comes before it, and one after it with the longest name of a temporary file.
        let longest = room - 1 - 1 - MAX_TEMP_NAME_LENGTH;
        for (length, is_refused) in [(longest, false), (longest + 1, true)] {
            let parent = "x/".repeat(2100)[..length - 1].to_owned() + "x";
            let begun =
                DirectoryUse::begin(&fixture.all, root(), Path::new(&parent), OsStr::new("f"));
            assert_eq!(begun.is_err(), is_refused, "{length}");
        }
        let begun = DirectoryUse::begin(&fixture.all, root(), Path::new(""), OsStr::new("f"));
        assert!(begun.is_ok());
    }
}

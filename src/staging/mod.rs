//! Writing into a directory of the site so that no reader sees a half-written file and no change
//! of another process is lost.
//!
//! The directory is held open: nothing is written elsewhere when a name on the way to it changes.
//! A file is written under a hidden name and renamed when it is complete. Its writer holds a lock
//! on it, so that the leftovers of a killed process can be recognised, whatever machine or
//! container it ran in. The file that is replaced is first exchanged for the new one and then
//! compared with what was expected: if another process has changed it meanwhile, it is put back.
//! A file that another process has locked with `flock(2)` or opened for writing is left alone.

mod in_use;
mod temp_file;

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{
    Access, AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, RenameFlags, accessat, flock,
    fsync, linkat, mkdirat, openat, renameat, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;

use crate::disk::seam::{self, Call};
use crate::disk::{self, Root, Stamp};
use crate::lease::{self, Writers};
use temp_file::copy_permissions;

pub use in_use::{DirectoriesInUse, DirectoryUse};
pub use temp_file::{HiddenName, TempFile, is_temp_file};

/// Files with younger times are hashed again: two writes within one tick of the clock leave the
/// same stamp.
const MAX_REHASHED_AGE: Duration = Duration::from_secs(2);

/// A directory below the root.
#[derive(Debug)]
pub struct Directory(OwnedFd);

impl Directory {
    /// Opens the directory at `path`: free of links, relative to the root.
    ///
    /// # Errors
    /// As `open(2)`.
    pub fn open(root: &Root, path: &Path) -> io::Result<Self> {
        root.open_directory(path).map(Self)
    }

    /// Opens the directory at `path`, or the nearest existing one above it.
    ///
    /// # Errors
    /// As `open(2)`.
    pub fn nearest(root: &Root, path: &Path) -> io::Result<Self> {
        let mut nearest = path;
        loop {
            match (Self::open(root, nearest), nearest.parent()) {
                (Err(error), Some(parent)) if error.kind() == io::ErrorKind::NotFound => {
                    nearest = parent;
                }
                (opened, _) => return opened,
            }
        }
    }

    /// The directory `name` in this one; a link of that name is not followed.
    fn enter(&self, name: &OsStr) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        seam::pass(Call::Open)?;
        Ok(openat(&self.0, name, flags, Mode::empty()).map(Self)?)
    }

    /// The same directory, open a second time.
    fn again(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    /// Creates the directory `name`. `false` if something has this name already.
    fn make(&self, name: &OsStr) -> io::Result<bool> {
        seam::pass(Call::Make)?;
        match mkdirat(&self.0, name, Mode::RWXU | Mode::RWXG | Mode::RWXO) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes the directory `name` if it is empty.
    fn remove_directory(&self, name: &OsStr) -> io::Result<()> {
        seam::pass(Call::Remove)?;
        Ok(unlinkat(&self.0, name, AtFlags::REMOVEDIR)?)
    }

    /// Whether nothing but `name`, and perhaps the temporary files of uploads, is in here.
    ///
    /// # Errors
    /// When the directory can't be listed.
    pub fn has_only(&self, name: &OsStr) -> io::Result<bool> {
        seam::pass(Call::List)?;
        for entry in Dir::read_from(&self.0)? {
            let entry = entry?;
            let other = OsStr::from_bytes(entry.file_name().to_bytes());
            if other != name && other != "." && other != ".." && !is_temp_file(other) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The type of `name`, links not followed; `None` if it does not exist.
    ///
    /// # Errors
    /// As `fstatat(2)`.
    pub fn kind(&self, name: &OsStr) -> io::Result<Option<FileType>> {
        seam::pass(Call::Stamp)?;
        match statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The stamp and the BLAKE3 of the file `name`; `None` while another process writes to it.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn hash(&self, name: &OsStr) -> io::Result<Option<(Stamp, [u8; 32])>> {
        let file = self.open_file(name)?;
        let stamp = disk::stamp(&file)?;
        if lease::writers(&file) == Writers::Some {
            return Ok(None);
        }
        let hash = *blake3::Hasher::new()
            .update_reader(&file)?
            .finalize()
            .as_bytes();
        let is_at_rest = disk::stamp(&file)? == stamp;
        Ok(is_at_rest.then_some((stamp, hash)))
    }

    /// Checks that this process may create files here.
    ///
    /// # Errors
    /// As `access(2)`.
    pub fn check_writable(&self) -> io::Result<()> {
        let access = Access::WRITE_OK | Access::EXEC_OK;
        Ok(accessat(&self.0, ".", access, AtFlags::EACCESS)?)
    }

    /// Writes `content` to the file `name`, which has its old content until all of the new one is
    /// on the disk. It gets `original`'s permissions, and its owner if that may be set. The
    /// directory itself is not synced.
    ///
    /// # Errors
    /// When the file can't be written; it is then unchanged.
    pub fn write(&self, name: &OsStr, content: &[u8], original: &File) -> io::Result<()> {
        match self.kind(name)? {
            None | Some(FileType::RegularFile) => {}
            Some(_) => {
                return Err(io::Error::other(
                    "its name is taken by something other than a regular file",
                ));
            }
        }
        let mut temp_file = TempFile::new(self.again()?, Mode::RUSR | Mode::WUSR)?;
        temp_file.write_all(content)?;
        copy_permissions(&temp_file.file, original)?;
        temp_file.sync()?;
        seam::pass(Call::Rename)?;
        renameat(&self.0, &temp_file.hidden.name, &self.0, name)?;
        temp_file.hidden.is_free = true;
        Ok(())
    }

    /// Removes a file.
    ///
    /// # Errors
    /// As `unlink(2)`.
    pub fn remove(&self, name: &OsStr) -> io::Result<()> {
        seam::pass(Call::Remove)?;
        Ok(unlinkat(&self.0, name, AtFlags::empty())?)
    }

    /// Removes the temporary files of processes that were killed before they could rename them.
    ///
    /// # Errors
    /// When the directory can't be read, or a file can't be removed.
    pub fn clear(&self) -> io::Result<()> {
        for entry in Dir::read_from(&self.0)? {
            let entry = entry?;
            self.clear_file(OsStr::from_bytes(entry.file_name().to_bytes()))?;
        }
        Ok(())
    }

    /// Removes the file `name` if it is the temporary file of a killed process.
    ///
    /// # Errors
    /// When the file can't be removed.
    pub fn clear_file(&self, name: &OsStr) -> io::Result<()> {
        if !is_temp_file(name) {
            return Ok(());
        }
        // It is gone already, or a link of that name, which etagd never makes.
        let Ok(file) = self.open_file(name) else {
            return Ok(());
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => self.remove(name),
            // Its writer is alive and holds the lock.
            Err(_) => Ok(()),
        }
    }

    /// Makes created, renamed and removed names survive a crash.
    ///
    /// # Errors
    /// As `fsync(2)`.
    pub fn sync(&self) -> io::Result<()> {
        seam::pass(Call::Sync)?;
        Ok(fsync(&self.0)?)
    }

    /// Gives the file `name` a hidden name if it is still as `expected`: it is removed when that is
    /// dropped. The directory itself is not synced.
    ///
    /// # Errors
    /// When it can't be removed; it is then unchanged.
    pub fn remove_expected(
        &self,
        name: &OsStr,
        expected: &ExpectedFile,
    ) -> io::Result<Result<HiddenName, StagingOutcome>> {
        let original = match self.open_expected(name, expected)? {
            Ok(original) => original,
            Err(overtaken) => return Ok(Err(overtaken)),
        };
        // The file is moved onto a temporary one, because a rename replaces whatever has the name.
        let mut temp_file = TempFile::new(self.again()?, Mode::RUSR | Mode::WUSR)?;
        seam::pass(Call::Rename)?;
        match renameat(&self.0, name, &self.0, &temp_file.hidden.name) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(Err(StagingOutcome::Overtaken)),
            Err(error) => return Err(error.into()),
        }
        let outcome = temp_file.check_displaced(&original, expected);
        if matches!(outcome, Ok(StagingOutcome::Done)) {
            return Ok(Ok(temp_file.close()));
        }
        // It goes back, unless another process has created the name again.
        let back = rename_new(temp_file.hidden.entry(), (self, name));
        temp_file.hidden.is_free = back.is_ok();
        match (outcome, back) {
            // It was as expected just before, and can't be had back: then it is removed.
            (Err(_), Err(_)) => Ok(Ok(temp_file.close())),
            (Err(error), Ok(())) => Err(error),
            (Ok(overtaken), _) => Ok(Err(overtaken)),
        }
    }

    /// Opens and locks the file `name` if it is as `expected` and nobody else has locked it.
    fn open_expected(
        &self,
        name: &OsStr,
        expected: &ExpectedFile,
    ) -> io::Result<Result<File, StagingOutcome>> {
        let original = match self.open_file(name) {
            Ok(original) => original,
            Err(Errno::NOENT | Errno::LOOP) => return Ok(Err(StagingOutcome::Overtaken)),
            Err(error) => return Err(error.into()),
        };
        let locked = flock(&original, FlockOperation::NonBlockingLockExclusive);
        if locked == Err(Errno::WOULDBLOCK) || lease::writers(&original) == Writers::Some {
            return Ok(Err(StagingOutcome::Busy));
        }
        if expected.has_stamp(&disk::stamp(&original)?) {
            Ok(Ok(original))
        } else {
            Ok(Err(StagingOutcome::Overtaken))
        }
    }

    fn open_file(&self, name: &OsStr) -> rustix::io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        seam::pass_rustix(Call::Open)?;
        openat(&self.0, name, flags, Mode::empty()).map(File::from)
    }
}

/// A name in an open directory.
type DirectoryEntry<'a> = (&'a Directory, &'a OsStr);

/// Renames a file unless the new name is taken.
fn rename_new(from: DirectoryEntry<'_>, to: DirectoryEntry<'_>) -> io::Result<()> {
    let (from_in, to_in) = (&from.0.0, &to.0.0);
    seam::pass(Call::Rename)?;
    match renameat_with(from_in, from.1, to_in, to.1, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            // NFS, FUSE and others lack RENAME_NOREPLACE (rename(2)); link(2) fails as well if
            // the name is taken.
            linkat(from_in, from.1, to_in, to.1, AtFlags::empty())?;
            // It has its place. What can't be removed is cleared at the next start.
            let _ = from.0.remove(from.1);
            Ok(())
        }
        renamed => Ok(renamed?),
    }
}

/// The state in which a file must be to be replaced or removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExpectedFile {
    /// Its stamp when it was hashed.
    pub stamp: Stamp,
    /// The BLAKE3 of its bytes.
    pub hash: [u8; 32],
}

impl ExpectedFile {
    /// Whether the stamp is as expected, apart from the change time: some file systems change it
    /// on a rename.
    fn has_stamp(&self, now: &Stamp) -> bool {
        *now == Stamp {
            ctime_ns: now.ctime_ns,
            ..self.stamp
        }
    }

    /// Checks that `file`, which no longer has a name that other processes know, is as expected
    /// and that nobody can still write to it.
    fn compare(&self, file: &File) -> io::Result<StagingOutcome> {
        if lease::writers(file) == Writers::Some {
            return Ok(StagingOutcome::Busy);
        }
        if !self.has_stamp(&disk::stamp(file)?) {
            return Ok(StagingOutcome::Overtaken);
        }
        // The clock of the file system may be too coarse to tell two writes apart.
        let is_proven = !self.stamp.is_younger(SystemTime::now(), MAX_REHASHED_AGE) || {
            let mut hasher = blake3::Hasher::new();
            hasher.update_reader(file)?.finalize() == self.hash
        };
        Ok(if is_proven {
            StagingOutcome::Done
        } else {
            StagingOutcome::Overtaken
        })
    }
}

/// The result of replacing or removing a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StagingOutcome {
    /// The file is replaced or removed.
    Done,
    /// Another process has changed the file; it stays as that left it.
    Overtaken,
    /// Another process has the file locked or open for writing; it is unchanged.
    Busy,
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use tempfile::TempDir;

    use super::*;

    /// A directory with one file, `name`, that holds `old`.
    struct Fixture {
        directory: TempDir,
        root: Root,
    }

    impl Fixture {
        fn new() -> Self {
            let directory = tempfile::tempdir().expect("a directory");
            fs::write(directory.path().join("name"), "old").expect("written");
            let root = Root::open(directory.path()).expect("opened");
            Self { directory, root }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        fn top(&self) -> Directory {
            Directory::open(&self.root, Path::new("")).expect("opened")
        }

        fn read(&self, name: &str) -> Option<String> {
            fs::read_to_string(self.path(name)).ok()
        }

        fn write(&self, name: &str, content: &str) {
            fs::write(self.path(name), content).expect("written");
        }

        fn rename_over(&self, content: &str) {
            self.write("beside", content);
            fs::rename(self.path("beside"), self.path("name")).expect("renamed");
        }

        fn expected(&self) -> ExpectedFile {
            let file = File::open(self.path("name")).expect("opened");
            ExpectedFile {
                stamp: disk::stamp(&file).expect("a stamp"),
                hash: *blake3::hash(&fs::read(self.path("name")).expect("read")).as_bytes(),
            }
        }

        fn temp_file(&self, content: &str) -> TempFile {
            let temp_file = TempFile::readable(self.top()).expect("a temp_file");
            temp_file.write_all(content.as_bytes()).expect("written");
            temp_file
        }

        /// The names in the directory, which no temp_file is among once it is gone.
        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(self.directory.path()).expect("read");
            let name = |entry: io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
            let mut names: Vec<_> = entries
                .map(|entry| name(entry).into_string().expect("UTF-8"))
                .collect();
            names.sort();
            names
        }
    }

    fn name() -> &'static OsStr {
        OsStr::new("name")
    }

    #[test]
    fn a_temp_file_replaces_what_was_expected_and_takes_over_its_permissions() {
        let fixture = Fixture::new();
        fs::set_permissions(fixture.path("name"), fs::Permissions::from_mode(0o640)).expect("set");
        let (mut temp_file, expected) = (fixture.temp_file("new"), fixture.expected());
        let outcome = temp_file.place(&fixture.top(), name(), Some(&expected));
        assert_eq!(outcome.expect("outcome"), StagingOutcome::Done);
        drop(temp_file);
        assert_eq!(fixture.read("name").as_deref(), Some("new"));
        let mode = fs::metadata(fixture.path("name"))
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o640);
        assert_eq!(fixture.names(), ["name"]);
    }

    #[test]
    fn a_temp_file_without_a_name_is_gone() {
        let fixture = Fixture::new();
        let temp_file = fixture.temp_file("new");
        assert_eq!(fixture.names().len(), 2);
        drop(temp_file);
        assert_eq!(fixture.names(), ["name"]);
    }

    #[test]
    fn a_name_that_is_taken_is_not_given() {
        let fixture = Fixture::new();
        let mut temp_file = fixture.temp_file("new");
        let outcome = temp_file
            .place(&fixture.top(), name(), None)
            .expect("tried");
        assert_eq!(outcome, StagingOutcome::Overtaken);
        let other = OsStr::new("other");
        let outcome = temp_file.place(&fixture.top(), other, None).expect("tried");
        assert_eq!(outcome, StagingOutcome::Done);
        drop(temp_file);
        assert_eq!(fixture.read("name").as_deref(), Some("old"));
        assert_eq!(fixture.read("other").as_deref(), Some("new"));
        assert_eq!(fixture.names(), ["name", "other"]);
    }

    #[test]
    fn what_has_changed_is_neither_replaced_nor_taken_away() {
        type Interference = fn(&Fixture);
        let changes: [(&str, Interference); 4] = [
            ("written", |fixture| fixture.write("name", "other")),
            ("renamed over", |fixture| fixture.rename_over("old")),
            ("removed", |fixture| {
                fs::remove_file(fixture.path("name")).expect("removed");
            }),
            ("a link", |fixture| {
                fs::remove_file(fixture.path("name")).expect("removed");
                std::os::unix::fs::symlink("beside", fixture.path("name")).expect("linked");
            }),
        ];
        for (case, change) in changes {
            let fixture = Fixture::new();
            let (mut temp_file, expected) = (fixture.temp_file("new"), fixture.expected());
            change(&fixture);
            let after = fixture.read("name");
            let outcome = temp_file.place(&fixture.top(), name(), Some(&expected));
            assert_eq!(outcome.expect("tried"), StagingOutcome::Overtaken, "{case}");
            let taken = fixture
                .top()
                .remove_expected(name(), &expected)
                .expect("tried");
            assert_eq!(taken.err(), Some(StagingOutcome::Overtaken), "{case}");
            drop(temp_file);
            assert_eq!(fixture.read("name"), after, "{case}");
        }
    }

    #[test]
    fn a_change_that_no_stamp_shows_is_found() {
        let fixture = Fixture::new();
        let (mut temp_file, mut expected) = (fixture.temp_file("new"), fixture.expected());
        fixture.write("name", "odd");
        // As if the clock had not moved.
        expected.stamp = fixture.expected().stamp;
        let outcome = temp_file.place(&fixture.top(), name(), Some(&expected));
        assert_eq!(outcome.expect("tried"), StagingOutcome::Overtaken);
        let taken = fixture
            .top()
            .remove_expected(name(), &expected)
            .expect("tried");
        assert_eq!(taken.err(), Some(StagingOutcome::Overtaken));
        drop(temp_file);
        assert_eq!(fixture.read("name").as_deref(), Some("odd"));
        assert_eq!(fixture.names(), ["name"]);
    }

    #[test]
    fn what_somebody_writes_to_or_locks_is_left_to_them() {
        let fixture = Fixture::new();
        let (mut temp_file, expected) = (fixture.temp_file("new"), fixture.expected());
        let writer = File::options()
            .append(true)
            .open(fixture.path("name"))
            .expect("opened");
        let reader = File::open(fixture.path("name")).expect("opened");
        if lease::writers(&reader) == Writers::Some {
            let outcome = temp_file.place(&fixture.top(), name(), Some(&expected));
            assert_eq!(outcome.expect("tried"), StagingOutcome::Busy);
            let taken = fixture
                .top()
                .remove_expected(name(), &expected)
                .expect("tried");
            assert_eq!(taken.err(), Some(StagingOutcome::Busy));
        }
        drop(writer);
        flock(&reader, FlockOperation::LockExclusive).expect("locked");
        let outcome = temp_file.place(&fixture.top(), name(), Some(&expected));
        assert_eq!(outcome.expect("tried"), StagingOutcome::Busy);
        let taken = fixture
            .top()
            .remove_expected(name(), &expected)
            .expect("tried");
        assert_eq!(taken.err(), Some(StagingOutcome::Busy));
        assert_eq!(fixture.read("name").as_deref(), Some("old"));
        drop(reader);
        let outcome = temp_file.place(&fixture.top(), name(), Some(&expected));
        assert_eq!(outcome.expect("tried"), StagingOutcome::Done);
        drop(temp_file);
        assert_eq!(fixture.read("name").as_deref(), Some("new"));
    }

    #[test]
    fn what_is_put_back_makes_room_for_what_came_after() {
        let fixture = Fixture::new();
        let (top, mut temp_file) = (fixture.top(), fixture.temp_file("new"));
        let expected = fixture.expected();
        fixture.rename_over("second");
        temp_file.exchange((&top, name())).expect("exchanged");
        assert_eq!(fixture.read("name").as_deref(), Some("new"));
        fixture.rename_over("third");
        temp_file.restore_displaced((&top, name())).expect("undone");
        assert_eq!(fixture.read("name").as_deref(), Some("third"));
        assert!(temp_file.place(&top, name(), Some(&expected)).is_err());
        drop(temp_file);
        assert_eq!(fixture.read("name").as_deref(), Some("third"));
        assert_eq!(fixture.names(), ["name"]);
    }

    #[test]
    fn what_was_expected_is_taken_away() {
        let fixture = Fixture::new();
        let taken = fixture.top().remove_expected(name(), &fixture.expected());
        let hidden = taken.expect("tried").expect("as expected");
        assert_eq!(fixture.read("name"), None);
        drop(hidden);
        assert!(fixture.names().is_empty());
    }

    #[test]
    fn the_nearest_directory_is_found() {
        let fixture = Fixture::new();
        fs::create_dir_all(fixture.path("a/b")).expect("made");
        let nearest = Directory::nearest(&fixture.root, Path::new("a/x/y")).expect("opened");
        assert_eq!(
            nearest.kind(OsStr::new("b")).expect("a look"),
            Some(FileType::Directory)
        );
    }

    #[test]
    fn what_nobody_works_on_any_more_is_cleared() {
        let fixture = Fixture::new();
        let temp_file = fixture.temp_file("at work");
        for name in [".etagd-1-0", ".etagd-1-x", ".etagd-hold", ".etagd-", ".env"] {
            fixture.write(name, "left behind");
        }
        fixture.top().clear().expect("cleared");
        let at_work = temp_file.hidden.name.to_string_lossy().into_owned();
        let mut left = [
            ".env",
            ".etagd-",
            ".etagd-1-x",
            ".etagd-hold",
            "name",
            &at_work,
        ];
        left.sort_unstable();
        assert_eq!(fixture.names(), left);
    }
}

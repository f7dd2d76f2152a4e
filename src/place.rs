//! A directory of the site as a place to write into, held open: whatever happens to the names on
//! the way to it, nothing is written elsewhere, and nothing is seen half-written.
//!
//! A file is made under a hidden name and gets its own when it is whole. While its author lives it
//! is locked, so that what a killed one has left can be told apart, whatever machine or container
//! it ran in. What a file replaces is displaced first and looked at then: what somebody else has
//! made of it meanwhile is put back, not lost. A program that works on a file under `flock(2)`, or
//! has it open for writing, is not overtaken.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{
    Access, AtFlags, Dir, FallocateFlags, FileType, FlockOperation, Gid, Mode, OFlags, RenameFlags,
    Uid, accessat, fallocate, fchmod, fchown, flock, fstat, fsync, linkat, mkdirat, openat,
    renameat, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;

use crate::disk::{self, Root, Stamp};
use crate::lease::{self, Writers};

/// What the name of a file begins with that has none of its own yet.
const HIDDEN: &str = ".etagd-";
/// A file whose times are younger may have been changed without a trace in them.
const YOUNG: Duration = Duration::from_secs(2);
/// How often to undo what others do at the same time.
const TRIES: usize = 8;

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

    /// The same, after making what is missing of it. A link on the way is an error: what it leads
    /// to is not the directory that was named.
    ///
    /// # Errors
    /// As `mkdir(2)` and `open(2)`.
    pub fn make(root: &Root, path: &Path) -> io::Result<Self> {
        match Self::open(root, path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return opened,
        }
        let mut directory = Self::open(root, Path::new(""))?;
        for name in path.iter() {
            let next = match directory.enter(name) {
                Err(Errno::NOENT) => {
                    match mkdirat(&directory.0, name, Mode::RWXU | Mode::RWXG | Mode::RWXO) {
                        // Or somebody else was quicker.
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(error.into()),
                    }
                    directory.sync()?;
                    directory.enter(name)
                }
                entered => entered,
            };
            directory = next?;
        }
        Ok(directory)
    }

    /// The directory at `path`, or the nearest above it that is there.
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

    fn enter(&self, name: &OsStr) -> rustix::io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        openat(&self.0, name, flags, Mode::empty()).map(Self)
    }

    /// What `name` is, links not followed; `None` where it is not there.
    ///
    /// # Errors
    /// As `fstatat(2)`.
    pub fn kind(&self, name: &OsStr) -> io::Result<Option<FileType>> {
        match statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The stamp and the BLAKE3 of the file of this name; `None` while somebody writes to it.
    ///
    /// # Errors
    /// When it can't be read.
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

    /// Fails where no file can be made.
    ///
    /// # Errors
    /// As `access(2)`.
    pub fn takes_files(&self) -> io::Result<()> {
        let access = Access::WRITE_OK | Access::EXEC_OK;
        Ok(accessat(&self.0, ".", access, AtFlags::EACCESS)?)
    }

    /// Gives `content` the name `name` when all of it is on disk, with `original`'s permissions,
    /// and its owner where that may be set. The directory itself is not synced.
    ///
    /// # Errors
    /// When it can't; then everything is as it was.
    pub fn write(&self, name: &OsStr, content: &[u8], original: &File) -> io::Result<()> {
        match self.kind(name)? {
            None | Some(FileType::RegularFile) => {}
            Some(_) => {
                return Err(io::Error::other(
                    "its name is taken by something that is no regular file",
                ));
            }
        }
        let mut draft = Draft::new(Self(self.0.try_clone()?), Mode::RUSR | Mode::WUSR)?;
        draft.file.write_all(content)?;
        dress(&draft.file, original)?;
        draft.file.sync_all()?;
        renameat(&self.0, &draft.name, &self.0, name)?;
        draft.is_named = true;
        Ok(())
    }

    /// Takes a file away.
    ///
    /// # Errors
    /// As `unlink(2)`.
    pub fn remove(&self, name: &OsStr) -> io::Result<()> {
        Ok(unlinkat(&self.0, name, AtFlags::empty())?)
    }

    /// Removes the new files of processes that were killed before they could name them.
    ///
    /// # Errors
    /// When the directory can't be read, or a file not be removed.
    pub fn clear(&self) -> io::Result<()> {
        for entry in Dir::read_from(&self.0)? {
            let entry = entry?;
            self.clear_file(OsStr::from_bytes(entry.file_name().to_bytes()))?;
        }
        Ok(())
    }

    /// The same for one name, which may be any.
    ///
    /// # Errors
    /// When the file can't be removed.
    pub fn clear_file(&self, name: &OsStr) -> io::Result<()> {
        if !is_draft(name) {
            return Ok(());
        }
        // Not gone already, nor a trap of somebody else's.
        let Ok(file) = self.open_file(name) else {
            return Ok(());
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => self.remove(name),
            Err(_) => Ok(()),
        }
    }

    /// Makes names that came and went outlast a crash.
    ///
    /// # Errors
    /// As `fsync(2)`.
    pub fn sync(&self) -> io::Result<()> {
        Ok(fsync(&self.0)?)
    }

    /// Takes away the file of this name, if it is still as `expected`. The directory itself is not
    /// synced.
    ///
    /// # Errors
    /// When it can't be removed; then everything is as it was.
    pub fn take(&self, name: &OsStr, expected: &Expected) -> io::Result<Placed> {
        let original = match self.displaceable(name, expected)? {
            Ok(original) => original,
            Err(overtaken) => return Ok(overtaken),
        };
        // Its hidden name is the one to move to: nobody else's is lost by that.
        let mut aside = Draft::new(Self(self.0.try_clone()?), Mode::RUSR | Mode::WUSR)?;
        match renameat(&self.0, name, &self.0, &aside.name) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(Placed::Overtaken),
            Err(error) => return Err(error.into()),
        }
        let placed = aside.judge(&original, expected);
        if !matches!(placed, Ok(Placed::Done)) {
            // Unless it is written anew already.
            aside.is_named = rename_new((self, &aside.name), (self, name)).is_ok();
        }
        placed
    }

    /// Opens the file of this name, locked, if it is as `expected` and nobody else locks it.
    fn displaceable(&self, name: &OsStr, expected: &Expected) -> io::Result<Result<File, Placed>> {
        let original = match self.open_file(name) {
            Ok(original) => original,
            Err(Errno::NOENT | Errno::LOOP) => return Ok(Err(Placed::Overtaken)),
            Err(error) => return Err(error.into()),
        };
        let locked = flock(&original, FlockOperation::NonBlockingLockExclusive);
        if locked == Err(Errno::WOULDBLOCK) || lease::writers(&original) == Writers::Some {
            return Ok(Err(Placed::Busy));
        }
        if expected.has_stamp(&disk::stamp(&original)?) {
            Ok(Ok(original))
        } else {
            Ok(Err(Placed::Overtaken))
        }
    }

    fn open_file(&self, name: &OsStr) -> rustix::io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        openat(&self.0, name, flags, Mode::empty()).map(File::from)
    }
}

/// A name in a directory.
type Place<'a> = (&'a Directory, &'a OsStr);

/// Renames where the new name is free.
fn rename_new(from: (&Directory, &OsString), to: Place<'_>) -> io::Result<()> {
    let (from_in, to_in) = (&from.0.0, &to.0.0);
    match renameat_with(from_in, from.1, to_in, to.1, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            // A link says as well that the name is taken.
            linkat(from_in, from.1, to_in, to.1, AtFlags::empty())?;
            from.0.remove(from.1)
        }
        renamed => Ok(renamed?),
    }
}

/// Whether a file has the name of one that has none of its own yet.
pub fn is_draft(name: &OsStr) -> bool {
    let numbers = name.to_str().and_then(|name| name.strip_prefix(HIDDEN));
    let numbers = numbers.and_then(|numbers| numbers.split_once('-'));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    numbers.is_some_and(|(process, number)| is_number(process) && is_number(number))
}

/// The state of a file that is to be displaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expected {
    /// Its stamp when it was hashed.
    pub stamp: Stamp,
    /// The BLAKE3 of its bytes.
    pub hash: [u8; 32],
}

impl Expected {
    /// A rename changes the ctime of a file, and nothing else.
    fn has_stamp(&self, now: &Stamp) -> bool {
        let essence = |stamp: &Stamp| (stamp.device, stamp.inode, stamp.size, stamp.mtime_ns);
        essence(now) == essence(&self.stamp)
    }

    /// Whether `file`, which has no name any more that others know, is as expected and stays so.
    fn is(&self, file: &File) -> io::Result<Placed> {
        if lease::writers(file) == Writers::Some {
            return Ok(Placed::Busy);
        }
        if !self.has_stamp(&disk::stamp(file)?) {
            return Ok(Placed::Overtaken);
        }
        // A clock can be too coarse to tell two writes apart.
        let is_proven = !self.stamp.is_younger(SystemTime::now(), YOUNG) || {
            let mut hasher = blake3::Hasher::new();
            hasher.update_reader(file)?.finalize() == self.hash
        };
        Ok(if is_proven {
            Placed::Done
        } else {
            Placed::Overtaken
        })
    }
}

/// What has become of a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Placed {
    /// It is made.
    Done,
    /// Somebody else has changed the file; it stays as they left it.
    Overtaken,
    /// Somebody has the file open for writing, or locked; it stays theirs.
    Busy,
}

/// A new file that has no name yet that anybody could ask for; gone unless it gets one.
#[derive(Debug)]
pub struct Draft {
    directory: Directory,
    name: OsString,
    file: File,
    is_named: bool,
}

impl Draft {
    /// An empty file in `directory`, with these permissions as far as the process grants them.
    ///
    /// # Errors
    /// When no file can be made there.
    pub fn new(directory: Directory, mode: Mode) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mut number = 0_u32;
        loop {
            let name = OsString::from(format!("{HIDDEN}{}-{number}", std::process::id()));
            number = number.wrapping_add(1);
            let file = match openat(&directory.0, &name, flags, mode) {
                Ok(file) => File::from(file),
                // Another's, or left behind by one that was killed.
                Err(Errno::EXIST) => continue,
                Err(error) => return Err(error.into()),
            };
            // Where there are no locks, nobody clears either.
            let _ = flock(&file, FlockOperation::NonBlockingLockExclusive);
            // Cleared before it was locked.
            if fstat(&file)?.st_nlink == 0 {
                continue;
            }
            return Ok(Self {
                directory,
                name,
                file,
                is_named: false,
            });
        }
    }

    /// For a file that is to be served, in `directory`.
    ///
    /// # Errors
    /// When no file can be made there.
    pub fn readable(directory: Directory) -> io::Result<Self> {
        let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP | Mode::ROTH | Mode::WOTH;
        Self::new(directory, mode)
    }

    /// Takes room for `length` bytes on the disk, where that can be had ahead of them.
    ///
    /// # Errors
    /// When the disk is too full, or the file would be too large.
    pub fn reserve(&self, length: u64) -> io::Result<()> {
        match fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, length) {
            Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG | Errno::IO | Errno::ROFS))
                if length > 0 =>
            {
                Err(error.into())
            }
            _ => Ok(()),
        }
    }

    /// The file, to write to.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Names it `name` in `directory`: in place of the file that is as `expected` there, whose
    /// permissions it gets; or where there is none. All of it must be on the disk already; the
    /// directory is not synced.
    ///
    /// # Errors
    /// When it can't; then everything is as it was.
    pub fn place(
        &mut self,
        directory: &Directory,
        name: &OsStr,
        expected: Option<&Expected>,
    ) -> io::Result<Placed> {
        if self.inode()? != fstat(&self.file)?.st_ino {
            return Err(io::Error::other("somebody has taken the new file away"));
        }
        let Some(expected) = expected else {
            return match rename_new((&self.directory, &self.name), (directory, name)) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Placed::Overtaken),
                Err(error) => Err(error),
                Ok(()) => {
                    self.is_named = true;
                    Ok(Placed::Done)
                }
            };
        };
        let original = match directory.displaceable(name, expected)? {
            Ok(original) => original,
            Err(overtaken) => return Ok(overtaken),
        };
        dress(&self.file, &original)?;
        match self.exchange((directory, name)) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(Placed::Overtaken),
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                // This file system can't: what happens between the look and this is lost.
                renameat(&self.directory.0, &self.name, &directory.0, name)?;
                self.is_named = true;
                return Ok(Placed::Done);
            }
            Err(error) => return Err(error.into()),
        }
        // What it displaced has the hidden name now, and goes with it.
        let placed = self.judge(&original, expected);
        if !matches!(placed, Ok(Placed::Done)) {
            self.undo((directory, name))?;
        }
        placed
    }

    /// Whether the file that has the hidden name now is the one that was to be displaced.
    fn judge(&self, original: &File, expected: &Expected) -> io::Result<Placed> {
        if self.inode()? == fstat(original)?.st_ino {
            expected.is(original)
        } else {
            Ok(Placed::Overtaken)
        }
    }

    /// Gives what was displaced its name back; where somebody has written anew meanwhile, that
    /// stays.
    fn undo(&self, place: Place<'_>) -> io::Result<()> {
        let mut in_place = fstat(&self.file)?.st_ino;
        for _ in 0..TRIES {
            let displaced = self.inode()?;
            match self.exchange(place) {
                Ok(()) => {}
                // It was taken away instead, and so is what it replaced.
                Err(Errno::NOENT) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            if self.inode()? == in_place {
                return Ok(());
            }
            in_place = displaced;
        }
        Err(io::Error::other("it is written to all the time"))
    }

    /// Exchanges the hidden name and another: neither is gone for a moment.
    fn exchange(&self, (directory, name): Place<'_>) -> rustix::io::Result<()> {
        let flags = RenameFlags::EXCHANGE;
        renameat_with(&self.directory.0, &self.name, &directory.0, name, flags)
    }

    /// Which file has the hidden name.
    fn inode(&self) -> io::Result<u64> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        Ok(statat(&self.directory.0, &self.name, flags)?.st_ino)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.is_named {
            let _ = self.directory.remove(&self.name);
        }
    }
}

/// Whoever may read the original may read `file`.
fn dress(file: &File, original: &File) -> io::Result<()> {
    let stat = fstat(original)?;
    let owner = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    // Only root may give a file away; for anybody else it is theirs already, or has to stay so.
    let _ = fchown(file, Some(owner.0), Some(owner.1));
    let permissions = Mode::RWXU | Mode::RWXG | Mode::RWXO;
    Ok(fchmod(
        file,
        Mode::from_raw_mode(stat.st_mode) & permissions,
    )?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use tempfile::TempDir;

    use super::*;

    /// A directory with one file, `name`, that holds `old`.
    struct Ground {
        directory: TempDir,
        root: Root,
    }

    impl Ground {
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

        fn expected(&self) -> Expected {
            let file = File::open(self.path("name")).expect("opened");
            Expected {
                stamp: disk::stamp(&file).expect("a stamp"),
                hash: *blake3::hash(&fs::read(self.path("name")).expect("read")).as_bytes(),
            }
        }

        fn draft(&self, content: &str) -> Draft {
            let draft = Draft::readable(self.top()).expect("a draft");
            (&draft.file)
                .write_all(content.as_bytes())
                .expect("written");
            draft
        }

        /// The names in the directory, which no draft is among once it is gone.
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
    fn a_draft_replaces_what_was_expected_and_takes_over_its_permissions() {
        let ground = Ground::new();
        fs::set_permissions(ground.path("name"), fs::Permissions::from_mode(0o640)).expect("set");
        let (mut draft, expected) = (ground.draft("new"), ground.expected());
        let placed = draft.place(&ground.top(), name(), Some(&expected));
        assert_eq!(placed.expect("placed"), Placed::Done);
        drop(draft);
        assert_eq!(ground.read("name").as_deref(), Some("new"));
        let mode = fs::metadata(ground.path("name"))
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o640);
        assert_eq!(ground.names(), ["name"]);
    }

    #[test]
    fn a_draft_without_a_name_is_gone() {
        let ground = Ground::new();
        let draft = ground.draft("new");
        assert_eq!(ground.names().len(), 2);
        drop(draft);
        assert_eq!(ground.names(), ["name"]);
    }

    #[test]
    fn a_name_that_is_taken_is_not_given() {
        let ground = Ground::new();
        let mut draft = ground.draft("new");
        let placed = draft.place(&ground.top(), name(), None).expect("tried");
        assert_eq!(placed, Placed::Overtaken);
        let other = OsStr::new("other");
        let placed = draft.place(&ground.top(), other, None).expect("tried");
        assert_eq!(placed, Placed::Done);
        drop(draft);
        assert_eq!(ground.read("name").as_deref(), Some("old"));
        assert_eq!(ground.read("other").as_deref(), Some("new"));
        assert_eq!(ground.names(), ["name", "other"]);
    }

    #[test]
    fn what_has_changed_is_neither_replaced_nor_taken_away() {
        type Change = fn(&Ground);
        let changes: [(&str, Change); 4] = [
            ("written", |ground| ground.write("name", "other")),
            ("renamed over", |ground| ground.rename_over("old")),
            ("removed", |ground| {
                fs::remove_file(ground.path("name")).expect("removed");
            }),
            ("a link", |ground| {
                fs::remove_file(ground.path("name")).expect("removed");
                std::os::unix::fs::symlink("beside", ground.path("name")).expect("linked");
            }),
        ];
        for (what, change) in changes {
            let ground = Ground::new();
            let (mut draft, expected) = (ground.draft("new"), ground.expected());
            change(&ground);
            let after = ground.read("name");
            let placed = draft.place(&ground.top(), name(), Some(&expected));
            assert_eq!(placed.expect("tried"), Placed::Overtaken, "{what}");
            let taken = ground.top().take(name(), &expected).expect("tried");
            assert_eq!(taken, Placed::Overtaken, "{what}");
            drop(draft);
            assert_eq!(ground.read("name"), after, "{what}");
        }
    }

    #[test]
    fn a_change_that_no_stamp_shows_is_found() {
        let ground = Ground::new();
        let (mut draft, mut expected) = (ground.draft("new"), ground.expected());
        ground.write("name", "odd");
        // As if the clock had not moved.
        expected.stamp = ground.expected().stamp;
        let placed = draft.place(&ground.top(), name(), Some(&expected));
        assert_eq!(placed.expect("tried"), Placed::Overtaken);
        let taken = ground.top().take(name(), &expected).expect("tried");
        assert_eq!(taken, Placed::Overtaken);
        drop(draft);
        assert_eq!(ground.read("name").as_deref(), Some("odd"));
        assert_eq!(ground.names(), ["name"]);
    }

    #[test]
    fn what_somebody_writes_to_or_locks_is_left_to_them() {
        let ground = Ground::new();
        let (mut draft, expected) = (ground.draft("new"), ground.expected());
        let writer = File::options()
            .append(true)
            .open(ground.path("name"))
            .expect("opened");
        let reader = File::open(ground.path("name")).expect("opened");
        if lease::writers(&reader) == Writers::Some {
            let placed = draft.place(&ground.top(), name(), Some(&expected));
            assert_eq!(placed.expect("tried"), Placed::Busy);
            let taken = ground.top().take(name(), &expected).expect("tried");
            assert_eq!(taken, Placed::Busy);
        }
        drop(writer);
        flock(&reader, FlockOperation::LockExclusive).expect("locked");
        let placed = draft.place(&ground.top(), name(), Some(&expected));
        assert_eq!(placed.expect("tried"), Placed::Busy);
        let taken = ground.top().take(name(), &expected).expect("tried");
        assert_eq!(taken, Placed::Busy);
        assert_eq!(ground.read("name").as_deref(), Some("old"));
        drop(reader);
        let placed = draft.place(&ground.top(), name(), Some(&expected));
        assert_eq!(placed.expect("tried"), Placed::Done);
        drop(draft);
        assert_eq!(ground.read("name").as_deref(), Some("new"));
    }

    #[test]
    fn what_is_put_back_makes_room_for_what_came_after() {
        let ground = Ground::new();
        let (top, mut draft) = (ground.top(), ground.draft("new"));
        let expected = ground.expected();
        ground.rename_over("second");
        draft.exchange((&top, name())).expect("exchanged");
        assert_eq!(ground.read("name").as_deref(), Some("new"));
        ground.rename_over("third");
        draft.undo((&top, name())).expect("undone");
        assert_eq!(ground.read("name").as_deref(), Some("third"));
        assert!(draft.place(&top, name(), Some(&expected)).is_err());
        drop(draft);
        assert_eq!(ground.read("name").as_deref(), Some("third"));
        assert_eq!(ground.names(), ["name"]);
    }

    #[test]
    fn what_was_expected_is_taken_away() {
        let ground = Ground::new();
        let taken = ground.top().take(name(), &ground.expected());
        assert_eq!(taken.expect("tried"), Placed::Done);
        assert!(ground.names().is_empty());
    }

    #[test]
    fn directories_are_made_and_links_not_followed() {
        let ground = Ground::new();
        let deep = Directory::make(&ground.root, Path::new("a/b/c")).expect("made");
        let mut draft = ground.draft("new");
        let placed = draft.place(&deep, name(), None).expect("tried");
        assert_eq!(placed, Placed::Done);
        assert_eq!(ground.read("a/b/c/name").as_deref(), Some("new"));
        std::os::unix::fs::symlink("a", ground.path("link")).expect("linked");
        for path in ["link/b", "link/new", "name/below"] {
            assert!(
                Directory::make(&ground.root, Path::new(path)).is_err(),
                "{path}"
            );
        }
        assert!(!ground.path("a/new").exists());
        let nearest = Directory::nearest(&ground.root, Path::new("a/x/y")).expect("opened");
        assert_eq!(
            nearest.kind(OsStr::new("b")).expect("a look"),
            Some(FileType::Directory)
        );
    }

    #[test]
    fn what_nobody_works_on_any_more_is_cleared() {
        let ground = Ground::new();
        let draft = ground.draft("at work");
        for name in [".etagd-1-0", ".etagd-1-x", ".etagd-hold", ".etagd-", ".env"] {
            ground.write(name, "left behind");
        }
        ground.top().clear().expect("cleared");
        let at_work = draft.name.to_string_lossy().into_owned();
        let mut left = [
            ".env",
            ".etagd-",
            ".etagd-1-x",
            ".etagd-hold",
            "name",
            &at_work,
        ];
        left.sort_unstable();
        assert_eq!(ground.names(), left);
    }
}

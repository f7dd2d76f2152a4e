//! A file that is being written, under a hidden name.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};

use rustix::fs::{
    AtFlags, FallocateFlags, FlockOperation, Gid, Mode, OFlags, RenameFlags, Uid, fallocate,
    fchmod, fchown, flock, fstat, openat, renameat, renameat_with, statat,
};
use rustix::io::Errno;

use super::{Directory, DirectoryEntry, ExpectedFile, StagingOutcome, rename_new};
use crate::disk;
use crate::disk::seam::{self, Call};

/// The beginning of the name of every temporary file.
const NAME_PREFIX: &str = ".etagd-";
/// How often to try to put a displaced file back while other processes keep replacing it.
const MAX_ATTEMPTS: usize = 8;

/// A new file under a hidden name, which no client can request. Removed on drop unless it was put in
/// its place.
#[derive(Debug)]
pub struct TempFile {
    /// Dropped before the file is closed, and so while it is locked.
    pub(super) hidden: HiddenName,
    pub(super) file: File,
}

/// A hidden name in a directory. What has it is removed on drop: a new file that did not get its
/// place, or the one that had its place before. To remove a large file takes long.
#[derive(Debug)]
pub struct HiddenName {
    pub(super) directory: Directory,
    pub(super) name: OsString,
    /// Whether nothing has this name any more.
    pub(super) is_free: bool,
}

impl TempFile {
    /// An empty file in `directory`, with these permissions as far as the process grants them.
    ///
    /// # Errors
    /// When no file can be made there.
    pub fn new(mut directory: Directory, mode: Mode) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mut number = 0_u32;
        loop {
            let name = OsString::from(format!("{NAME_PREFIX}{}-{number}", std::process::id()));
            number = number.wrapping_add(1);
            seam::pass(Call::Make)?;
            let file = match openat(&directory.0, &name, flags, mode) {
                Ok(file) => File::from(file),
                // Another upload's, or the leftover of a killed process.
                Err(Errno::EXIST) => continue,
                Err(error) => return Err(error.into()),
            };
            let mut hidden = HiddenName {
                directory,
                name,
                is_free: false,
            };
            // On a file system without locks it stays unlocked: `Directory::clear` then fails to
            // lock it as well, and leaves it alone.
            let _ = flock(&file, FlockOperation::NonBlockingLockExclusive);
            seam::pass(Call::StampOpen)?;
            // Another process took it for a leftover before it was locked.
            if fstat(&file)?.st_nlink == 0 {
                hidden.is_free = true;
                directory = hidden.directory.again()?;
                continue;
            }
            return Ok(Self { hidden, file });
        }
    }

    /// An empty file in `directory` that is to be served: readable by everybody the umask allows.
    ///
    /// # Errors
    /// When no file can be made there.
    pub fn readable(directory: Directory) -> io::Result<Self> {
        let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP | Mode::ROTH | Mode::WOTH;
        Self::new(directory, mode)
    }

    /// Reserves `length` bytes on the disk, if the file system can do that.
    ///
    /// # Errors
    /// When the disk is too full, or the file would be too large.
    pub fn reserve(&self, length: u64) -> io::Result<()> {
        seam::pass(Call::Write)?;
        match fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, length) {
            Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG | Errno::IO | Errno::ROFS))
                if length > 0 =>
            {
                Err(error.into())
            }
            // Not supported, or interrupted: the write itself will tell.
            _ => Ok(()),
        }
    }

    /// Appends to the file.
    ///
    /// # Errors
    /// As `write(2)`: the disk is full, or fails.
    pub fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        seam::pass(Call::Write)?;
        (&self.file).write_all(bytes)
    }

    /// The length of the file.
    ///
    /// # Errors
    /// As `fstat(2)`.
    pub fn length(&self) -> io::Result<u64> {
        Ok(disk::stamp(&self.file)?.size)
    }

    /// All of the file, which is short enough for memory.
    ///
    /// # Errors
    /// As `pread(2)`.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        let mut content = vec![0; self.length()? as usize];
        disk::read_exact_at(&self.file, &mut content, 0)?;
        Ok(content)
    }

    /// Makes the content survive a crash.
    ///
    /// # Errors
    /// As `fsync(2)`.
    pub fn sync(&self) -> io::Result<()> {
        seam::pass(Call::Sync)?;
        self.file.sync_all()
    }

    /// Closes the file, which nobody has open for writing then. What is left is to be dropped where
    /// that may take long.
    #[must_use]
    pub fn close(self) -> HiddenName {
        self.hidden
    }

    /// Renames the file to `name` in `directory`. It replaces the file that is as `expected`, and
    /// gets its permissions; without `expected`, the name must be free. The content must be on the
    /// disk already; the directory is not synced.
    ///
    /// # Errors
    /// When it can't be renamed; both files are then unchanged.
    pub fn place(
        &mut self,
        directory: &Directory,
        name: &OsStr,
        expected: Option<&ExpectedFile>,
    ) -> io::Result<StagingOutcome> {
        if self.inode()? != fstat(&self.file)?.st_ino {
            return Err(io::Error::other(
                "another process has removed the temporary file",
            ));
        }
        let Some(expected) = expected else {
            return match rename_new(self.hidden.entry(), (directory, name)) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    Ok(StagingOutcome::Overtaken)
                }
                Err(error) => Err(error),
                Ok(()) => {
                    self.hidden.is_free = true;
                    Ok(StagingOutcome::Done)
                }
            };
        };
        let original = match directory.open_expected(name, expected)? {
            Ok(original) => original,
            Err(overtaken) => return Ok(overtaken),
        };
        copy_permissions(&self.file, &original)?;
        match self.exchange((directory, name)) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(StagingOutcome::Overtaken),
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                // This file system can't exchange names (rename(2), RENAME_EXCHANGE): a change
                // between the comparison and this rename is lost.
                let (hidden_in, hidden) = (&self.hidden.directory.0, &self.hidden.name);
                renameat(hidden_in, hidden, &directory.0, name)?;
                self.hidden.is_free = true;
                return Ok(StagingOutcome::Done);
            }
            Err(error) => return Err(error.into()),
        }
        // The displaced file has the hidden name now, and is removed with it on drop.
        let outcome = self.check_displaced(&original, expected);
        if matches!(outcome, Ok(StagingOutcome::Done)) {
            return outcome;
        }
        match (self.restore_displaced((directory, name)), outcome) {
            (Ok(()), outcome) => outcome,
            // The displaced one was as expected just before, and can't be had back: so the new one
            // stays, for an error would say that nothing has changed.
            (Err(_), Err(_)) => Ok(StagingOutcome::Done),
            (Err(error), Ok(_)) => Err(error),
        }
    }

    /// Whether the file that has the hidden name now is the expected one.
    pub(super) fn check_displaced(
        &self,
        original: &File,
        expected: &ExpectedFile,
    ) -> io::Result<StagingOutcome> {
        if self.inode()? == fstat(original)?.st_ino {
            expected.compare(original)
        } else {
            Ok(StagingOutcome::Overtaken)
        }
    }

    /// Gives the displaced file its name back. If another process has replaced the new file
    /// meanwhile, its file stays: it is the latest.
    pub(super) fn restore_displaced(&self, place: DirectoryEntry<'_>) -> io::Result<()> {
        let mut in_place = fstat(&self.file)?.st_ino;
        for _ in 0..MAX_ATTEMPTS {
            let displaced = self.inode()?;
            match self.exchange(place) {
                Ok(()) => {}
                // Another process has removed the new file, and so what it replaced.
                Err(Errno::NOENT) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            if self.inode()? == in_place {
                return Ok(());
            }
            in_place = displaced;
        }
        Err(io::Error::other("other processes keep replacing it"))
    }

    /// Exchanges the hidden name and another: at no moment is either missing.
    pub(super) fn exchange(&self, (directory, name): DirectoryEntry<'_>) -> rustix::io::Result<()> {
        let flags = RenameFlags::EXCHANGE;
        let (hidden_in, hidden) = (&self.hidden.directory.0, &self.hidden.name);
        seam::pass_rustix(Call::Rename)?;
        renameat_with(hidden_in, hidden, &directory.0, name, flags)
    }

    /// The inode number of the file that has the hidden name.
    fn inode(&self) -> io::Result<u64> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let (directory, name) = (&self.hidden.directory.0, &self.hidden.name);
        seam::pass(Call::Stamp)?;
        Ok(statat(directory, name, flags)?.st_ino)
    }
}

impl HiddenName {
    pub(super) fn entry(&self) -> DirectoryEntry<'_> {
        (&self.directory, &self.name)
    }
}

impl Drop for HiddenName {
    fn drop(&mut self) {
        if !self.is_free {
            let _ = self.directory.remove(&self.name);
        }
    }
}

/// Gives `file` the owner and the permissions of `original`, as far as this process may.
pub(super) fn copy_permissions(file: &File, original: &File) -> io::Result<()> {
    let stat = fstat(original)?;
    let owner = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    // Only root may change the owner (chown(2)).
    let _ = fchown(file, Some(owner.0), Some(owner.1));
    let permissions = Mode::RWXU | Mode::RWXG | Mode::RWXO;
    Ok(fchmod(
        file,
        Mode::from_raw_mode(stat.st_mode) & permissions,
    )?)
}

/// Whether `name` is the name of a temporary file.
pub fn is_temp_file(name: &OsStr) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    name.to_str()
        .and_then(|name| name.strip_prefix(NAME_PREFIX))
        .and_then(|numbers| numbers.split_once('-'))
        .is_some_and(|(process, number)| is_number(process) && is_number(number))
}

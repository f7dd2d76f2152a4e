//! A file that is being written, under a hidden name.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;

use rustix::fs::{
    AtFlags, FallocateFlags, FlockOperation, Gid, Mode, OFlags, RenameFlags, Uid, fallocate,
    fchmod, fchown, flock, fstat, openat, renameat, renameat_with, statat,
};
use rustix::io::Errno;

use super::{Directory, DirectoryEntry, ExpectedFile, StagingOutcome, rename_new};

/// The beginning of the name of every temporary file.
const NAME_PREFIX: &str = ".etagd-";
/// How often to try to put a displaced file back while other processes keep replacing it.
const MAX_ATTEMPTS: usize = 8;

/// A new file under a hidden name, which no client can request. Removed on drop unless it was put in
/// its place.
#[derive(Debug)]
pub struct TempFile {
    pub(super) directory: Directory,
    pub(super) name: OsString,
    pub(super) file: File,
    pub(super) is_named: bool,
}

impl TempFile {
    /// An empty file in `directory`, with these permissions as far as the process grants them.
    ///
    /// # Errors
    /// When no file can be made there.
    pub fn new(directory: Directory, mode: Mode) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mut number = 0_u32;
        loop {
            let name = OsString::from(format!("{NAME_PREFIX}{}-{number}", std::process::id()));
            number = number.wrapping_add(1);
            let file = match openat(&directory.0, &name, flags, mode) {
                Ok(file) => File::from(file),
                // Another upload's, or the leftover of a killed process.
                Err(Errno::EXIST) => continue,
                Err(error) => return Err(error.into()),
            };
            // On a file system without locks it stays unlocked: `Directory::clear` then fails to
            // lock it as well, and leaves it alone.
            let _ = flock(&file, FlockOperation::NonBlockingLockExclusive);
            // Another process took it for a leftover before it was locked.
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

    /// The file, to write to.
    pub fn file(&self) -> &File {
        &self.file
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
            return match rename_new((&self.directory, &self.name), (directory, name)) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    Ok(StagingOutcome::Overtaken)
                }
                Err(error) => Err(error),
                Ok(()) => {
                    self.is_named = true;
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
                renameat(&self.directory.0, &self.name, &directory.0, name)?;
                self.is_named = true;
                return Ok(StagingOutcome::Done);
            }
            Err(error) => return Err(error.into()),
        }
        // The displaced file has the hidden name now, and is removed with it on drop.
        let outcome = self.check_displaced(&original, expected);
        if !matches!(outcome, Ok(StagingOutcome::Done)) {
            self.restore_displaced((directory, name))?;
        }
        outcome
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
        renameat_with(&self.directory.0, &self.name, &directory.0, name, flags)
    }

    /// The inode number of the file that has the hidden name.
    fn inode(&self) -> io::Result<u64> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        Ok(statat(&self.directory.0, &self.name, flags)?.st_ino)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.is_named {
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

//! A file that is being made, under a hidden name.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;

use rustix::fs::{
    AtFlags, FallocateFlags, FlockOperation, Gid, Mode, OFlags, RenameFlags, Uid, fallocate,
    fchmod, fchown, flock, fstat, openat, renameat, renameat_with, statat,
};
use rustix::io::Errno;

use super::{Directory, DirectoryEntry, ExpectedFile, StagingOutcome, rename_new};

/// What the name of a file begins with that has none of its own yet.
const NAME_PREFIX: &str = ".etagd-";
/// How often to undo what others do at the same time.
const MAX_ATTEMPTS: usize = 8;

/// A new file that has no name yet that anybody could ask for; gone unless it gets one.
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
        expected: Option<&ExpectedFile>,
    ) -> io::Result<StagingOutcome> {
        if self.inode()? != fstat(&self.file)?.st_ino {
            return Err(io::Error::other("somebody has taken the new file away"));
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
                // This file system can't: what happens between the look and this is lost.
                renameat(&self.directory.0, &self.name, &directory.0, name)?;
                self.is_named = true;
                return Ok(StagingOutcome::Done);
            }
            Err(error) => return Err(error.into()),
        }
        // What it displaced has the hidden name now, and goes with it.
        let outcome = self.check_displaced(&original, expected);
        if !matches!(outcome, Ok(StagingOutcome::Done)) {
            self.restore_displaced((directory, name))?;
        }
        outcome
    }

    /// Whether the file that has the hidden name now is the one that was to be displaced.
    pub(super) fn check_displaced(
        &self,
        original: &File,
        expected: &ExpectedFile,
    ) -> io::Result<StagingOutcome> {
        if self.inode()? == fstat(original)?.st_ino {
            expected.is(original)
        } else {
            Ok(StagingOutcome::Overtaken)
        }
    }

    /// Gives what was displaced its name back; where somebody has written anew meanwhile, that
    /// stays.
    pub(super) fn restore_displaced(&self, place: DirectoryEntry<'_>) -> io::Result<()> {
        let mut in_place = fstat(&self.file)?.st_ino;
        for _ in 0..MAX_ATTEMPTS {
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
    pub(super) fn exchange(&self, (directory, name): DirectoryEntry<'_>) -> rustix::io::Result<()> {
        let flags = RenameFlags::EXCHANGE;
        renameat_with(&self.directory.0, &self.name, &directory.0, name, flags)
    }

    /// Which file has the hidden name.
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

/// Whoever may read the original may read `file`.
pub(super) fn copy_permissions(file: &File, original: &File) -> io::Result<()> {
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

/// Whether a file has the name of one that has none of its own yet.
pub fn is_temp_file(name: &OsStr) -> bool {
    let numbers = name
        .to_str()
        .and_then(|name| name.strip_prefix(NAME_PREFIX));
    let numbers = numbers.and_then(|numbers| numbers.split_once('-'));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    numbers.is_some_and(|(process, number)| is_number(process) && is_number(number))
}

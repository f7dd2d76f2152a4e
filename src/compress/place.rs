//! A directory of the site as a place to write into, held open: whatever happens to the names on
//! the way to it, nothing is written elsewhere.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{
    Access, AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid, accessat, fchmod, fchown, fstat, fsync,
    openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use crate::disk::Root;

/// A directory below the root.
pub(super) struct Directory(OwnedFd);

impl Directory {
    /// Opens the directory at `path`: free of links, relative to the root.
    pub(super) fn open(root: &Root, path: &Path) -> io::Result<Self> {
        root.open_directory(path).map(Self)
    }

    /// Fails where no file can be made.
    pub(super) fn takes_files(&self) -> io::Result<()> {
        let access = Access::WRITE_OK | Access::EXEC_OK;
        Ok(accessat(&self.0, ".", access, AtFlags::EACCESS)?)
    }

    /// Gives `content` the name `name` when all of it is on disk, with `original`'s permissions,
    /// and its owner where that may be set. The directory itself is not synced.
    pub(super) fn write(&self, name: &OsStr, content: &[u8], original: &File) -> io::Result<()> {
        match statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile => {
                return Err(io::Error::other(
                    "its name is taken by something that is no regular file",
                ));
            }
            Ok(_) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let (temporary, mut file) = self.create()?;
        let written = file
            .write_all(content)
            .and_then(|()| dress(&file, original))
            .and_then(|()| file.sync_all())
            .and_then(|()| Ok(renameat(&self.0, &temporary, &self.0, name)?));
        if written.is_err() {
            // The first error is the one that tells.
            let _ = unlinkat(&self.0, &temporary, AtFlags::empty());
        }
        written
    }

    /// Takes a file away.
    pub(super) fn remove(&self, name: &OsStr) -> io::Result<()> {
        Ok(unlinkat(&self.0, name, AtFlags::empty())?)
    }

    /// Removes the new files of processes that were killed before they could name them.
    pub(super) fn clear(&self) -> io::Result<()> {
        for entry in Dir::read_from(&self.0)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if author(name).is_some_and(|author| test_kill_process(author) == Err(Errno::SRCH)) {
                unlinkat(&self.0, name, AtFlags::empty())?;
            }
        }
        Ok(())
    }

    /// Makes names that came and went outlast a crash.
    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(fsync(&self.0)?)
    }

    /// A new file under a name that no scan admits.
    fn create(&self) -> io::Result<(OsString, File)> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mut number = 0_u32;
        loop {
            let name = OsString::from(format!(".etagd-{}-{number}", std::process::id()));
            match openat(&self.0, &name, flags, Mode::RUSR | Mode::WUSR) {
                Ok(file) => return Ok((name, file.into())),
                // Another thread's, or left behind by a process that was killed.
                Err(Errno::EXIST) => number += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Which process made a file that has no name of its own yet.
fn author(name: &OsStr) -> Option<Pid> {
    let rest = name.to_str()?.strip_prefix(".etagd-")?;
    let (author, number) = rest.split_once('-')?;
    number.parse::<u32>().ok()?;
    Pid::from_raw(author.parse().ok()?)
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

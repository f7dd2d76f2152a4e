//! Sites that a test builds on disk and throws away.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, FileType, Mode, makedev, mkfifoat, mknodat};
use tempfile::TempDir;

/// The mtime of every file whose test does not ask for another: Tue, 14 Nov 2023 22:13:20 GMT.
pub(crate) const MTIME: i64 = 1_700_000_000;

/// A directory to serve, one level inside a temporary one, so that there is an outside to protect.
pub(crate) struct TestSite {
    outer: TempDir,
}

impl TestSite {
    /// An empty site.
    pub(crate) fn new() -> Self {
        Self::in_directory(tempfile::tempdir().unwrap())
    }

    /// An empty site in memory, where the system has such a place: thousands of files come and go
    /// there in no time.
    pub(crate) fn in_memory() -> Self {
        let outer = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Self::in_directory(outer.unwrap())
    }

    fn in_directory(outer: TempDir) -> Self {
        // Another user must be able to walk in: some tests run the server as nobody.
        fs::set_permissions(outer.path(), Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(outer.path().join("site")).unwrap();
        Self { outer }
    }

    /// A site of these files.
    pub(crate) fn with(files: &[(&str, &[u8])]) -> Self {
        files.iter().fold(Self::new(), |site, (path, content)| {
            site.file(path, content)
        })
    }

    /// The directory that is served.
    pub(crate) fn root(&self) -> PathBuf {
        self.outer.path().join("site")
    }

    /// Where something in the site lies on disk. The name may hold any bytes but NUL.
    pub(crate) fn path(&self, name: impl AsRef<[u8]>) -> PathBuf {
        self.root().join(OsStr::from_bytes(name.as_ref()))
    }

    /// A path next to the site, which must never be served.
    pub(crate) fn outside(&self, name: &str) -> PathBuf {
        self.outer.path().join(name)
    }

    /// Adds a file, and the directories above it, with [`MTIME`].
    pub(crate) fn file(self, name: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Self {
        self.file_dated(name, content, MTIME)
    }

    /// Adds a file with this mtime, in seconds since 1970, before it if negative.
    pub(crate) fn file_dated(
        self,
        name: impl AsRef<[u8]>,
        content: impl AsRef<[u8]>,
        mtime: i64,
    ) -> Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        set_mtime(&path, mtime);
        self
    }

    /// Adds a directory.
    pub(crate) fn dir(self, name: impl AsRef<[u8]>) -> Self {
        fs::create_dir_all(self.path(name)).unwrap();
        self
    }

    /// Adds a symlink that reads `target`.
    pub(crate) fn symlink(self, name: impl AsRef<[u8]>, target: impl AsRef<Path>) -> Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
        self
    }

    /// Adds a FIFO: a plain open(2) for reading blocks until somebody writes.
    pub(crate) fn fifo(self, name: &str) -> Self {
        mkfifoat(CWD, self.path(name), Mode::from_raw_mode(0o644)).unwrap();
        self
    }

    /// Adds a unix socket, whose listener is gone.
    pub(crate) fn socket(self, name: &str) -> Self {
        UnixListener::bind(self.path(name)).unwrap();
        self
    }

    /// Adds a character device like /dev/zero, if this user may.
    pub(crate) fn device(self, name: &str) -> Self {
        let mode = Mode::from_raw_mode(0o644);
        // Not allowed without CAP_MKNOD; the site is then one trap poorer.
        let _ = mknodat(
            CWD,
            self.path(name),
            FileType::CharacterDevice,
            mode,
            makedev(1, 5),
        );
        self
    }

    /// Adds a file next to the site.
    pub(crate) fn file_outside(self, name: &str, content: &[u8]) -> Self {
        let path = self.outside(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }
}

/// Sets the mtime, and the atime with it.
pub(crate) fn set_mtime(path: &Path, seconds: i64) {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let time = match seconds {
        0.. => SystemTime::UNIX_EPOCH + distance,
        _ => SystemTime::UNIX_EPOCH - distance,
    };
    let file = File::options().write(true).open(path).unwrap();
    file.set_times(fs::FileTimes::new().set_modified(time).set_accessed(time))
        .unwrap();
}

/// Writes over a file in place, from its start, keeping inode and mtime.
pub(crate) fn overwrite_in_place(path: &Path, content: &[u8]) {
    let before = fs::metadata(path).unwrap().modified().unwrap();
    let mut file = File::options().write(true).open(path).unwrap();
    file.write_all(content).unwrap();
    file.set_modified(before).unwrap();
}

/// Bytes without a pattern, the same ones for the same arguments.
pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// The entity tag that promise P1 gives these bytes, in its quotes.
pub(crate) fn tag(content: &[u8]) -> String {
    format!("\"{}\"", blake3::hash(content).to_hex())
}

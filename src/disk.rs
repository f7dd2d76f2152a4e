//! The file system: a root that lookups cannot leave, stamps, and reads that fail instead of
//! blocking.
//!
//! All calls that only Linux has are here, each with a fallback for other systems. Nothing maps a
//! file or passes a descriptor to a socket: bytes are served only from memory that nobody else can
//! change (P2).

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{self, Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, openat};

mod look;
pub mod seam;
mod spool;

pub use look::{Look, is_exhaustion, is_passing};
use seam::Call;
pub use spool::{Spool, SpoolError, SpooledBytes};

/// How often to repeat a look-up that raced with a rename.
#[cfg(target_os = "linux")]
const MAX_OPEN_ATTEMPTS: usize = 8;

#[cfg(target_os = "linux")]
fn confined(root: &OwnedFd, path: &Path, flags: OFlags) -> Result<OwnedFd, rustix::io::Errno> {
    use rustix::fs::ResolveFlags;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)
}

#[cfg(target_os = "linux")]
fn is_confinable(root: &OwnedFd) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    confined(root, Path::new("."), flags).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn is_confinable(_: &OwnedFd) -> bool {
    false
}

/// Identifies a state of a file without reading it.
///
/// Equal stamps do not prove equal bytes: a store to a mapped page may change no time. Different
/// stamps, older or newer, are a reason to read the file again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Stamp {
    /// Device number: with the inode it names the file on this machine.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Length in bytes.
    pub size: u64,
    /// Modification time in nanoseconds since the epoch, saturating.
    pub mtime_ns: i64,
    /// Change time in nanoseconds since the epoch, saturating; no program can set it at will.
    pub ctime_ns: i64,
}

impl Stamp {
    /// Whether the change time or the modification time is later than `age` before `now`, or in
    /// the future.
    pub fn is_younger(&self, now: SystemTime, age: Duration) -> bool {
        let Ok(now) = now.duration_since(SystemTime::UNIX_EPOCH) else {
            return true;
        };
        let oldest = now.saturating_sub(age).as_nanos();
        [self.mtime_ns, self.ctime_ns]
            .iter()
            .any(|time| u128::try_from(*time).is_ok_and(|time| time > oldest))
    }

    /// Whether the change time is in whole seconds: the file system's clock is that coarse, or the
    /// time comes from the file system image.
    pub fn is_coarse(&self) -> bool {
        self.ctime_ns % 1_000_000_000 == 0
    }

    /// Modification time in whole seconds since the epoch, rounded down.
    pub fn modified(&self) -> i64 {
        self.mtime_ns.div_euclid(1_000_000_000)
    }
}

impl From<&Stat> for Stamp {
    #[allow(
        clippy::useless_conversion,
        clippy::unnecessary_cast,
        reason = "the widths differ between systems"
    )]
    fn from(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime_ns: nanoseconds(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            ctime_ns: nanoseconds(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
        }
    }
}

fn nanoseconds(seconds: i64, fraction: i64) -> i64 {
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(fraction)
}

/// A regular file, open for reading, with the result of its `fstat`.
#[derive(Debug)]
pub struct Opened {
    /// The file.
    pub file: File,
    /// Its stamp when it was opened.
    pub stamp: Stamp,
    /// Whether the file has other names (hard links).
    pub shared: bool,
}

/// The site directory, held open, with its real path.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    directory: OwnedFd,
    /// Whether `openat2(2)` can confine look-ups to the root. Kernels before 5.6 lack it, and some
    /// container runtimes forbid it; then only the walk keeps to the root.
    is_confined: bool,
}

/// A path without links, as far as there is something at its end or above it.
#[must_use]
pub fn resolved_path(path: &Path) -> PathBuf {
    let absolute = path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let real = absolute.ancestors().find_map(|above| {
        let missing = absolute.strip_prefix(above).ok()?;
        let real = above.canonicalize().ok()?;
        // To join nothing would add a slash.
        Some(match missing.as_os_str().is_empty() {
            true => real,
            false => real.join(missing),
        })
    });
    real.unwrap_or(absolute)
}

impl Root {
    /// Opens `directory` and resolves the links that lead to it.
    ///
    /// # Errors
    /// When it does not exist, is not a directory, or may not be read.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let path = directory.canonicalize()?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(rustix::fs::CWD, &path, flags, Mode::empty())?;
        let is_confined = is_confinable(&directory);
        Ok(Self {
            path,
            directory,
            is_confined,
        })
    }

    /// Whether `directory` still leads to this root.
    ///
    /// # Errors
    /// When it does not exist or can't be read.
    pub fn is_still(&self, directory: &Path) -> io::Result<bool> {
        let (now, then) = (rustix::fs::stat(directory)?, fstat(&self.directory)?);
        Ok(now.st_dev == then.st_dev && now.st_ino == then.st_ino)
    }

    /// Whether the root is on a file system where inotify misses the changes of other machines.
    pub fn is_silent(&self) -> bool {
        is_silent(&self.directory)
    }

    /// Whether the root is on a file system with real change times, which no program can set. On
    /// images and FAT they are modification times; a FUSE server may report anything.
    #[cfg(target_os = "linux")]
    pub fn keeps_change_times(&self) -> bool {
        const CRAMFS: i64 = 0x28cd_3d45;
        const EROFS: i64 = 0xe0f5_e1e2;
        const EXFAT: i64 = 0x2011_bab0;
        const FAT: i64 = 0x4d44;
        const FUSE: i64 = 0x6573_5546;
        const ISO_9660: i64 = 0x9660;
        const ROMFS: i64 = 0x7275;
        const SQUASHFS: i64 = 0x7371_7368;
        const UDF: i64 = 0x1501_3346;
        // Numbers from linux/magic.h, and from the file systems' own sources.
        const UNRELIABLE: [i64; 9] = [
            CRAMFS, EROFS, EXFAT, FAT, FUSE, ISO_9660, ROMFS, SQUASHFS, UDF,
        ];
        rustix::fs::fstatfs(&self.directory).is_ok_and(|system| {
            #[allow(clippy::unnecessary_cast, reason = "the widths differ between systems")]
            let kind = system.f_type as i64;
            !UNRELIABLE.contains(&kind)
        })
    }

    /// Whether the root is on a file system with real change times; assumed on other systems.
    #[cfg(not(target_os = "linux"))]
    pub fn keeps_change_times(&self) -> bool {
        true
    }

    /// The identifier of the root's file system; 0 if it has none. Not all are unique.
    pub fn file_system(&self) -> u64 {
        rustix::fs::fstatvfs(&self.directory).map_or(0, |system| system.f_fsid)
    }

    /// The real path of the root.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a regular file for reading. `path` is free of links: relative to the root, or
    /// absolute where a link was allowed to leave the root.
    ///
    /// Never waits for the writer of a FIFO and never returns a device. A relative path never
    /// leaves the root, however the tree has changed since the path was resolved, if the kernel
    /// supports that.
    ///
    /// # Errors
    /// As `open(2)`; anything but a regular file is [`io::ErrorKind::InvalidInput`].
    pub fn open_file(&self, path: &Path) -> io::Result<Opened> {
        // NONBLOCK: opening a FIFO without a writer would wait for one (fifo(7)).
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
        let file = File::from(self.open_at(path, flags)?);
        seam::pass(Call::StampOpen)?;
        let stat = fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        #[allow(clippy::unnecessary_cast, reason = "the widths differ between systems")]
        Ok(Opened {
            stamp: Stamp::from(&stat),
            shared: stat.st_nlink as u64 > 1,
            file,
        })
    }

    /// The stamp of the file at `path`, without opening it. The look-up is not confined to the
    /// root, but nothing is read.
    ///
    /// # Errors
    /// As `fstatat(2)`.
    pub fn stamp(&self, path: &Path) -> io::Result<Stamp> {
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        seam::pass(Call::Stamp)?;
        Ok(Stamp::from(&rustix::fs::statat(
            &self.directory,
            path,
            flags,
        )?))
    }

    /// Opens a directory under the conditions of [`Root::open_file`]; the root itself if `path` is
    /// empty.
    ///
    /// # Errors
    /// As `open(2)`.
    pub fn open_directory(&self, path: &Path) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let is_root = path.as_os_str().is_empty();
        self.open_at(if is_root { Path::new(".") } else { path }, flags)
    }

    #[cfg(target_os = "linux")]
    fn open_at(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        use rustix::io::Errno;
        seam::pass(Call::Open)?;
        if path.is_absolute() || !self.is_confined {
            return Ok(openat(&self.directory, path, flags, Mode::empty())?);
        }
        let mut attempts = 0;
        loop {
            match confined(&self.directory, path, flags) {
                // A rename somewhere raced with the look-up, so that the kernel can't tell whether
                // the path has left the root (openat2(2), EAGAIN).
                Err(Errno::AGAIN) if attempts < MAX_OPEN_ATTEMPTS => attempts += 1,
                opened => return Ok(opened?),
            }
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn open_at(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let _ = self.is_confined;
        seam::pass(Call::Open)?;
        Ok(openat(&self.directory, path, flags, Mode::empty())?)
    }
}

/// Whether an open directory is on a file system where inotify misses changes that are made
/// elsewhere: one that another machine or process serves, or overlayfs (inotify(7)). Never on
/// systems other than Linux.
fn is_silent(directory: impl AsFd) -> bool {
    #[cfg(target_os = "linux")]
    {
        const NFS: i64 = 0x6969;
        const SMB: [i64; 3] = [0x517b, 0xff53_4d42, 0xfe53_4d42];
        const NINE_P: i64 = 0x0102_1997;
        const FUSE: i64 = 0x6573_5546;
        const OVERLAY: i64 = 0x794c_7630;
        rustix::fs::fstatfs(directory).is_ok_and(|system| {
            #[allow(clippy::unnecessary_cast, reason = "the widths differ between systems")]
            let kind = system.f_type as i64;
            [NFS, NINE_P, FUSE, OVERLAY].contains(&kind) || SMB.contains(&kind)
        })
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = directory;
        false
    }
}

/// Whether `path` is on a file system where inotify misses changes that are made elsewhere. Nothing
/// is opened: to open a FIFO would wait for its writer (fifo(7)).
pub fn is_silent_at(path: &Path) -> bool {
    #[cfg(target_os = "linux")]
    {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        openat(rustix::fs::CWD, path, flags, Mode::empty()).is_ok_and(is_silent)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = path;
        false
    }
}

/// The kernel's list of mounts. It can say whether it has changed.
#[derive(Debug)]
pub struct MountTable {
    /// `None` if the system does not list mounts.
    #[cfg(target_os = "linux")]
    file: Option<File>,
}

#[cfg(target_os = "linux")]
impl MountTable {
    /// Notes the mounts there are now: changes from now on count.
    pub fn open() -> Self {
        Self {
            file: File::open("/proc/self/mountinfo").ok(),
        }
    }

    /// Whether something was mounted or unmounted since this was last asked.
    pub fn has_changed(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        // The file is always readable; a change is an exceptional condition (proc_mounts(5)).
        self.file.as_ref().is_some_and(|file| {
            let mut polled = [PollFd::new(file, PollFlags::PRI)];
            let at_once = Timespec::default();
            poll(&mut polled, Some(&at_once)).is_ok_and(|changed| changed > 0)
        })
    }
}

#[cfg(not(target_os = "linux"))]
impl MountTable {
    /// Other systems have no such list.
    pub fn open() -> Self {
        Self {}
    }

    /// Never: sweeps find what is mounted.
    pub fn has_changed(&self) -> bool {
        false
    }
}

/// The mount points of this process; none if the system does not list them.
pub fn mount_points() -> Vec<PathBuf> {
    let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            // The fields are: id, parent, device, root, mount point, and more (proc(5)).
            let field = line.split(|byte| *byte == b' ').nth(4)?;
            Some(PathBuf::from(OsString::from_vec(unescape(field))))
        })
        .collect()
}

/// Decodes the octal escapes of `/proc/self/mountinfo`: the kernel writes a space as `\040`, and
/// likewise tabs, newlines and backslashes.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let escaped = after
            .get(..3)
            .filter(|_| first == b'\\')
            .and_then(|digits| str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    bytes
}

/// The inode number of a regular file with several names (hard links); `None` for anything else.
pub fn shared_inode(path: &Path) -> Option<u64> {
    let stat = rustix::fs::stat(path).ok()?;
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    (is_file && stat.st_nlink > 1).then_some(stat.st_ino)
}

/// Raises the soft limit of open descriptors to the hard limit, and returns the limit in effect.
pub fn raise_descriptor_limit() -> u64 {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let before = limit.current;
    limit.current = limit.maximum;
    let raised = setrlimit(Resource::Nofile, limit).is_ok();
    let limit = if raised { limit.maximum } else { before };
    limit.unwrap_or(1 << 20)
}

/// The current stamp of an open file.
///
/// # Errors
/// As `fstat(2)`.
pub fn stamp(file: &File) -> io::Result<Stamp> {
    seam::pass(Call::StampOpen)?;
    Ok(Stamp::from(&fstat(file)?))
}

/// Whether an open file has been as it is since it had the stamp `then`. That another file was renamed
/// over it meanwhile, or that it was deleted, changes its change time and none of its bytes.
///
/// # Errors
/// As `fstat(2)`.
pub fn is_at_rest(file: &File, then: &Stamp) -> io::Result<bool> {
    seam::pass(Call::StampOpen)?;
    let stat = fstat(file)?;
    let now = Stamp::from(&stat);
    let expected = match stat.st_nlink {
        0 => Stamp {
            ctime_ns: now.ctime_ns,
            ..*then
        },
        _ => *then,
    };
    Ok(now == expected)
}

/// Reads exactly `buffer.len()` bytes at `offset`, blocking.
///
/// # Errors
/// As `pread(2)`; [`io::ErrorKind::UnexpectedEof`] where the file is shorter.
pub fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    seam::pass(Call::Read)?;
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

/// Reads up to `buffer.len()` bytes from where the last read has ended, blocking.
///
/// # Errors
/// As `read(2)`.
pub fn read(file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    seam::pass(Call::Read)?;
    io::Read::read(&mut { file }, buffer)
}

/// The real path that `path` leads to.
///
/// # Errors
/// As `realpath(3)`.
pub fn real_path(path: &Path) -> io::Result<PathBuf> {
    seam::pass(Call::Resolve)?;
    path.canonicalize()
}

/// The stamp of what is at `path`, which may be a link itself: that is not followed.
///
/// # Errors
/// As `lstat(2)`.
pub fn stamp_at(path: &Path) -> io::Result<Stamp> {
    seam::pass(Call::Stamp)?;
    Ok(Stamp::from(&rustix::fs::lstat(path)?))
}

/// What is at `path`, which may be a link itself: that is not followed.
///
/// # Errors
/// As `lstat(2)`.
pub fn kind(path: &Path) -> io::Result<std::fs::FileType> {
    seam::pass(Call::Stamp)?;
    Ok(path.symlink_metadata()?.file_type())
}

/// Fills `buffer` from `offset` if the page cache has every byte. `false` if the read would block,
/// fails or is short, or the file system lacks `RWF_NOWAIT` (preadv2(2)): the caller then reads
/// again on a thread that may block, and gets the error there.
#[cfg(target_os = "linux")]
pub fn read_cached(file: &File, buffer: &mut [u8], offset: u64) -> bool {
    let wanted = buffer.len();
    let mut slices = [io::IoSliceMut::new(buffer)];
    let flags = rustix::io::ReadWriteFlags::NOWAIT;
    rustix::io::preadv2(file.as_fd(), &mut slices, offset, flags).is_ok_and(|read| read == wanted)
}

/// Other systems lack such a call, so every read may block.
#[cfg(not(target_os = "linux"))]
pub fn read_cached(_: &File, _: &mut [u8], _: u64) -> bool {
    false
}

/// The memory that this process may use, in bytes: the machine's, or the limit of its control
/// groups if that is smaller. 1 GiB if neither can be read.
pub fn memory_size() -> u64 {
    let machine = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("MemTotal:"))?;
            line.trim()
                .strip_suffix("kB")?
                .trim()
                .parse::<u64>()
                .ok()?
                .checked_mul(1024)
        });
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = memory_limits(&groups)
        .filter_map(|file| std::fs::read_to_string(file).ok()?.trim().parse().ok())
        .min();
    match (machine, group) {
        (Some(machine), Some(group)) => machine.min(group),
        (Some(only), None) | (None, Some(only)) => only,
        (None, None) => 1 << 30,
    }
}

/// The files that may limit the memory of a process in these control groups (the content of
/// `/proc/self/cgroup`): those of its own group and of each above it.
fn memory_limits(groups: &str) -> impl Iterator<Item = PathBuf> {
    groups.lines().flat_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (hierarchy, file) = match parts.next() {
            // Version 2 has one hierarchy without a name, version 1 one for each controller
            // (cgroups(7)).
            Some("") => ("/sys/fs/cgroup", "memory.max"),
            Some("memory") => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            Some(_) | None => return Vec::new(),
        };
        let own_group = Path::new(parts.next().unwrap_or_default().trim_start_matches('/'));
        own_group
            .ancestors()
            .map(|group| Path::new(hierarchy).join(group).join(file))
            .collect()
    })
}

/// Milliseconds of a monotonic clock with a resolution of some milliseconds. Reading it costs a
/// quarter of reading the exact one.
#[cfg(target_os = "linux")]
pub fn coarse_milliseconds() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    let (seconds, fraction) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
    seconds
        .saturating_mul(1000)
        .saturating_add(fraction / 1_000_000)
}

/// Milliseconds of a monotonic clock; other systems have no coarse one.
#[cfg(not(target_os = "linux"))]
pub fn coarse_milliseconds() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    (now.tv_sec as u64) * 1000 + (now.tv_nsec as u64) / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_limited_by_each_group_above() {
        let limits = |groups| -> Vec<_> {
            let files = memory_limits(groups).map(|file| file.to_string_lossy().into_owned());
            files.collect()
        };
        let unified = [
            "/sys/fs/cgroup/system.slice/etagd.service/memory.max",
            "/sys/fs/cgroup/system.slice/memory.max",
            "/sys/fs/cgroup/memory.max",
        ];
        assert_eq!(limits("0::/system.slice/etagd.service\n"), unified);
        assert_eq!(limits("0::/\n"), unified[2..]);
        let old = "4:memory:/a\n3:cpu,cpuacct:/a\n1:name=systemd:/a\n";
        let expected = [
            "/sys/fs/cgroup/memory/a/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        ];
        assert_eq!(limits(old), expected);
        assert!(limits("").is_empty() && limits("nonsense").is_empty());
    }
}

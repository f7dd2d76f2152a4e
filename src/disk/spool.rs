//! A temporary file without a name, in which a process puts contents aside that memory has no room
//! for. It goes with the process, however that ends.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::seam::{self, Call};

/// Contents begin at multiples of this, the block of most file systems: only whole blocks can be
/// given back.
const BLOCK: u64 = 4096;
/// No content is put behind this offset, but into another file: ext4 has files of up to 16 TiB.
const MAX_OFFSET: u64 = 1 << 40;
/// How long there is no room after nothing could be written.
const REST: Duration = Duration::from_secs(30);

/// Why something can't be put aside.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SpoolError {
    /// It would be more than the limit.
    #[error("the room that --cache-size gives is used up")]
    Full,
    /// Nothing can be written in any of the directories: which they are, and why not.
    #[error("{0}")]
    Unwritable(Arc<str>),
}

impl SpoolError {
    /// What the operator can do.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Full => "give more room with --cache-size",
            Self::Unwritable(_) => "free some space there, or name another directory with TMPDIR",
        }
    }
}

/// Room for contents in a temporary file, which is made when the first of them comes.
#[derive(Debug)]
pub struct Spool {
    directories: Vec<PathBuf>,
    limit: u64,
    /// Bytes that the files take up on the disk.
    occupied: Arc<AtomicU64>,
    /// Where contents go.
    current: Mutex<SpoolTarget>,
    /// When something could not be written, and why.
    failed: Mutex<Option<(Instant, SpoolError)>>,
}

/// Where contents go.
#[derive(Debug, Default)]
struct SpoolTarget {
    /// Which of the directories is tried next, or has the file.
    directory: usize,
    file: Option<Arc<SpoolFile>>,
}

impl Spool {
    /// Room for `limit` bytes in the first of these directories in which a file can be made, and
    /// written to. When its disk is full, contents go to the next one.
    pub fn new(directories: Vec<PathBuf>, limit: u64) -> Self {
        Self {
            directories,
            limit,
            occupied: Arc::default(),
            current: Mutex::default(),
            failed: Mutex::default(),
        }
    }

    /// Looks whether there is room for `length` bytes more. For half a minute after something could not
    /// be written there is none, so that nobody makes what can't be kept, time and again.
    ///
    /// # Errors
    /// Why there is none.
    pub fn find_room(&self, length: u64) -> Result<(), SpoolError> {
        if let Some((failed, error)) = &*lock(&self.failed)
            && failed.elapsed() <= REST
        {
            return Err(error.clone());
        }
        let length = whole_blocks(length);
        let occupied = self.occupied.load(Ordering::Relaxed);
        let may_grow = occupied.saturating_add(length) <= self.limit;
        match may_grow || self.has_hole(length) {
            true => Ok(()),
            false => Err(SpoolError::Full),
        }
    }

    fn has_hole(&self, length: u64) -> bool {
        let current = lock(&self.current);
        let file = current.file.as_ref();
        file.is_some_and(|file| lock(&file.room).hole(length).is_some())
    }

    /// Puts `bytes` aside until the extent is dropped.
    ///
    /// # Errors
    /// Beyond the limit; when no file can be made or written in any of the directories.
    pub fn store(&self, bytes: &[u8]) -> Result<SpooledBytes, SpoolError> {
        let mut stored = self.write(bytes);
        // File systems and `ulimit -f` have limits of their own: contents go on in another file.
        if matches!(&stored, Err(NotStored::Written(error, _)) if error.kind() == io::ErrorKind::FileTooLarge)
        {
            lock(&self.current).file = None;
            stored = self.write(bytes);
        }
        let mut failures = Vec::new();
        loop {
            match stored {
                Ok(stored) => {
                    *lock(&self.failed) = None;
                    return Ok(stored);
                }
                Err(NotStored::Full) => return Err(SpoolError::Full),
                Err(NotStored::Written(error, directory)) => {
                    failures.push(self.describe(&error, directory));
                    // Where nothing can be written, the next directory may be on another disk.
                    if failures.len() >= self.directories.len() {
                        let error = SpoolError::Unwritable(failures.join(", and ").into());
                        *lock(&self.failed) = Some((Instant::now(), error.clone()));
                        return Err(error);
                    }
                    self.leave_directory(directory);
                    stored = self.write(bytes);
                }
            }
        }
    }

    /// What could not be done in the directory of this number.
    fn describe(&self, error: &io::Error, directory: usize) -> String {
        let directory = self.directories.get(directory);
        let directory = directory.map_or(Path::new(""), PathBuf::as_path).display();
        format!("cannot write a temporary file in {directory}: {error}")
    }

    fn write(&self, bytes: &[u8]) -> Result<SpooledBytes, NotStored> {
        let (extent, directory) = self.place(whole_blocks(bytes.len() as u64))?;
        let write = || {
            seam::pass(Call::Write)?;
            extent.file.file.write_all_at(bytes, extent.offset)
        };
        match write() {
            Ok(()) => Ok(extent),
            Err(error) => Err(NotStored::Written(error, directory)),
        }
    }

    /// Has the next contents go to the directory after this one, after the last to the first. Others may
    /// have left it already.
    fn leave_directory(&self, directory: usize) {
        let mut current = lock(&self.current);
        if current.directory == directory {
            current.file = None;
            current.directory = (directory + 1) % self.directories.len();
        }
    }

    /// Where the next `length` bytes go, and in which directory that is.
    fn place(&self, length: u64) -> Result<(SpooledBytes, usize), NotStored> {
        let mut current = lock(&self.current);
        let directory = current.directory;
        let file = match &current.file {
            Some(file) if lock(&file.room).end <= MAX_OFFSET => Arc::clone(file),
            _ => {
                let made = self.make_file(directory);
                let made = made.map_err(|error| NotStored::Written(error, directory))?;
                Arc::clone(current.file.insert(Arc::new(made)))
            }
        };
        let mut room = lock(&file.room);
        let offset = match room.fill_hole(length) {
            Some(offset) => offset,
            None => {
                let before = self.occupied.load(Ordering::Relaxed);
                // Nobody else adds to it: the file that contents go to is locked.
                if before.saturating_add(length) > self.limit {
                    return Err(NotStored::Full);
                }
                self.occupied.fetch_add(length, Ordering::Relaxed);
                room.end += length;
                room.end - length
            }
        };
        room.used += length;
        drop(room);
        let extent = SpooledBytes {
            file,
            offset,
            length,
        };
        Ok((extent, directory))
    }

    fn make_file(&self, directory: usize) -> io::Result<SpoolFile> {
        seam::pass(Call::Make)?;
        let directory = self.directories.get(directory);
        let directory = directory.ok_or(io::ErrorKind::NotFound)?;
        Ok(SpoolFile {
            file: Arc::new(tempfile::tempfile_in(directory)?),
            room: Mutex::default(),
            occupied: Arc::clone(&self.occupied),
        })
    }
}

/// Why something was not put aside.
#[derive(Debug)]
enum NotStored {
    /// There is no room for it.
    Full,
    /// It could not be written, or no file could be made, in the directory of this number.
    Written(io::Error, usize),
}

fn whole_blocks(length: u64) -> u64 {
    length.div_ceil(BLOCK) * BLOCK
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A content that was put aside. Its room is given back on drop.
#[derive(Debug)]
pub struct SpooledBytes {
    file: Arc<SpoolFile>,
    offset: u64,
    length: u64,
}

impl SpooledBytes {
    /// The file that the content is in, with others.
    pub fn file(&self) -> &Arc<File> {
        &self.file.file
    }

    /// Where in the file it begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

impl Drop for SpooledBytes {
    fn drop(&mut self) {
        self.file.give_back(self.offset, self.length);
    }
}

/// A temporary file.
#[derive(Debug)]
struct SpoolFile {
    file: Arc<File>,
    room: Mutex<FileRoom>,
    /// As in [`Spool`].
    occupied: Arc<AtomicU64>,
}

impl SpoolFile {
    /// Has the file system forget a part of the file. Where it can't, the part is kept for contents
    /// to come, until there are none in the file: any file can be cut.
    fn give_back(&self, offset: u64, length: u64) {
        let mut room = lock(&self.room);
        room.used -= length;
        let is_cut = room.used == 0 && self.file.set_len(0).is_ok();
        let forgotten = if is_cut {
            let holes: u64 = room.holes.values().sum();
            *room = FileRoom::default();
            holes + length
        } else if punch_hole(&self.file, offset, length).is_ok() {
            length
        } else {
            room.add_hole(offset, length);
            0
        };
        self.occupied.fetch_sub(forgotten, Ordering::Relaxed);
    }
}

impl Drop for SpoolFile {
    fn drop(&mut self) {
        let holes: u64 = lock(&self.room).holes.values().sum();
        self.occupied.fetch_sub(holes, Ordering::Relaxed);
    }
}

/// Which parts of a file have no content, and still take up the disk.
#[derive(Debug, Default)]
struct FileRoom {
    /// Where the next content goes that no hole is long enough for.
    end: u64,
    /// Bytes of the contents.
    used: u64,
    /// The holes: where each begins, and its length. No two of them meet.
    holes: BTreeMap<u64, u64>,
}

impl FileRoom {
    /// The first hole for so many bytes.
    fn hole(&self, length: u64) -> Option<(u64, u64)> {
        let holes = self.holes.iter().map(|(offset, length)| (*offset, *length));
        holes.into_iter().find(|(_, hole)| *hole >= length)
    }

    /// Takes the beginning of a hole.
    fn fill_hole(&mut self, length: u64) -> Option<u64> {
        let (offset, hole) = self.hole(length)?;
        self.holes.remove(&offset);
        if hole > length {
            self.holes.insert(offset + length, hole - length);
        }
        Some(offset)
    }

    fn add_hole(&mut self, mut offset: u64, mut length: u64) {
        if let Some((before, its_length)) = self.holes.range(..offset).next_back()
            && before + its_length == offset
        {
            offset = *before;
            length += *its_length;
        }
        length += self.holes.remove(&(offset + length)).unwrap_or_default();
        self.holes.insert(offset, length);
    }
}

#[cfg(target_os = "linux")]
fn punch_hole(file: &File, offset: u64, length: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    seam::pass(Call::Remove)?;
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(fallocate(file, flags, offset, length)?)
}

/// Other systems have no such call that all of them share.
#[cfg(not(target_os = "linux"))]
fn punch_hole(_: &File, _: u64, _: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use rustix::io::Errno;

    use super::*;

    fn content(extent: &SpooledBytes, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let read = extent.file().read_exact_at(&mut bytes, extent.offset());
        read.expect("read");
        bytes
    }

    #[test]
    fn what_is_put_aside_is_there_until_it_is_dropped() {
        let directory = tempfile::tempdir().expect("a directory");
        let spool = Spool::new(vec![directory.path().to_path_buf()], 1 << 20);
        let mut extents: Vec<_> = (0..10_u8)
            .map(|byte| spool.store(&[byte; 5000]).expect("room"))
            .collect();
        for (byte, extent) in (0..).zip(&extents) {
            assert_eq!(content(extent, 5000), [byte; 5000]);
        }
        assert_eq!(
            std::fs::read_dir(directory.path()).expect("listed").count(),
            0
        );
        let file = Arc::clone(extents[0].file());
        let blocks = || file.metadata().expect("there").blocks();
        let before = blocks();
        // Of the others, the file system forgets the parts.
        let kept = extents.split_off(9);
        drop(extents);
        assert_eq!(spool.occupied.load(Ordering::Relaxed), 2 * BLOCK);
        assert_eq!(content(&kept[0], 5000), [9; 5000]);
        assert!(blocks() < before, "{} blocks of {before}", blocks());
    }

    #[test]
    fn the_limit_holds_and_what_is_dropped_makes_room() {
        let directory = tempfile::tempdir().expect("a directory");
        let spool = Spool::new(vec![directory.path().to_path_buf()], 3 * BLOCK);
        let first = spool.store(&[1; 1]).expect("room");
        let _second = spool.store(&[2; BLOCK as usize + 1]).expect("room");
        assert_eq!(spool.find_room(1), Err(SpoolError::Full));
        assert_eq!(spool.store(&[3; 1]).expect_err("full"), SpoolError::Full);
        drop(first);
        assert_eq!(spool.find_room(BLOCK), Ok(()));
        assert_eq!(spool.find_room(BLOCK + 1), Err(SpoolError::Full));
        let third = spool.store(&[3; 1]).expect("room");
        assert_eq!(content(&third, 1), [3]);
    }

    #[test]
    fn what_fails_takes_no_room_and_says_where_and_why() {
        let gone = PathBuf::from("/nonexistent/directory");
        let spool = Spool::new(vec![gone.clone()], 1 << 20);
        let nowhere = spool.store(&[1; 1]).expect_err("nowhere");
        let no_such = "/nonexistent/directory: No such file or directory";
        assert!(nowhere.to_string().contains(no_such), "{nowhere}");
        assert_eq!(spool.occupied.load(Ordering::Relaxed), 0);
        assert_eq!(spool.find_room(1), Err(nowhere), "for a while");
        let directory = tempfile::tempdir().expect("a directory");
        let spool = Spool::new(vec![gone, directory.path().to_path_buf()], 1 << 20);
        // A disk that is full, and a quota of the disk's, which more of --cache-size would not change.
        for (fault, reason) in [
            (Errno::NOSPC, "No space left"),
            (Errno::DQUOT, "quota exceeded"),
        ] {
            let full = move || Err(fault.into());
            let stored = seam::run(
                move |call| if call == Call::Write { full() } else { Ok(()) },
                || spool.store(&[1; 1]).map(|_| ()),
            );
            let full = stored.expect_err("full");
            let message = full.to_string();
            for part in [no_such, &directory.path().display().to_string(), reason] {
                assert!(message.contains(part), "{part}: {message}");
            }
            assert!(!full.advice().contains("--cache-size"), "{}", full.advice());
            assert_eq!(spool.find_room(1), Err(full));
            assert_eq!(spool.occupied.load(Ordering::Relaxed), 0);
        }
        spool.store(&[1; 1]).expect("there is room again");
        assert_eq!(spool.find_room(1), Ok(()));
    }

    #[test]
    fn a_full_disk_is_left_for_the_next_directory() {
        let directories = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
        let paths = directories.iter().map(|it| it.path().to_path_buf());
        let spool = Spool::new(paths.collect(), 1 << 20);
        let first = spool.store(&[1; 5000]).expect("room");
        // Each disk in turn is full for one call.
        for (full, is_kept) in [([1, 0], true), ([1, 1], false)] {
            let mut full = full.into_iter();
            let gate = move |call| match call {
                Call::Write if full.next() == Some(1) => Err(Errno::NOSPC.into()),
                _ => Ok(()),
            };
            let stored = seam::run(gate, || spool.store(&[2; 5000]));
            assert_eq!(stored.is_ok(), is_kept, "{stored:?}");
            match stored {
                Ok(second) => {
                    assert!(!Arc::ptr_eq(first.file(), second.file()));
                    assert_eq!(lock(&spool.current).directory, 1);
                    assert_eq!(content(&second, 5000), [2; 5000]);
                    // What comes then goes there at once.
                    let third = spool.store(&[3; 5000]).expect("room");
                    assert!(Arc::ptr_eq(second.file(), third.file()));
                    assert_eq!(spool.find_room(1), Ok(()));
                }
                Err(error) => {
                    assert!(matches!(error, SpoolError::Unwritable(_)), "{error}");
                    assert_eq!(spool.find_room(1), Err(error), "for a while");
                }
            }
        }
        assert_eq!(content(&first, 5000), [1; 5000]);
        drop(first);
        assert_eq!(spool.occupied.load(Ordering::Relaxed), 0);
    }

    /// A file system that can't forget parts of a file.
    fn without_punching<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        let refuse = |call| match call {
            Call::Remove => Err(Errno::OPNOTSUPP.into()),
            _ => Ok(()),
        };
        seam::run(refuse, work)
    }

    #[test]
    fn the_limit_holds_where_nothing_can_be_given_back() {
        let directory = tempfile::tempdir().expect("a directory");
        let limit = 64 * BLOCK;
        let spool = Spool::new(vec![directory.path().to_path_buf()], limit);
        without_punching(|| {
            let kept = spool.store(&[0; 1]).expect("room");
            // In all, a hundred times as much as there is room for.
            for round in 0..400_usize {
                let lengths = [5000, 1, 30_000 + round * 7 % 9000, 4096];
                let extents: Vec<_> = lengths
                    .iter()
                    .map(|length| spool.store(&vec![7; *length]).expect("room"))
                    .collect();
                for (length, extent) in lengths.into_iter().zip(&extents) {
                    assert_eq!(content(extent, length), vec![7; length]);
                }
                let on_disk = kept.file().metadata().expect("there").blocks() * 512;
                assert!(on_disk <= limit, "{on_disk}");
            }
            // What was given back is one hole again, and can be filled as far as it goes.
            let occupied = spool.occupied.load(Ordering::Relaxed);
            let whole = spool.store(&vec![1; (occupied - BLOCK) as usize]);
            assert_eq!(whole.expect("a hole").offset(), BLOCK);
            spool.store(&vec![1; limit as usize]).expect_err("full");
            drop(kept);
            assert_eq!(spool.occupied.load(Ordering::Relaxed), 0, "it was cut");
            spool.store(&vec![1; limit as usize]).expect("room");
        });
    }

    #[test]
    fn what_no_file_is_long_enough_for_goes_on_in_another_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let spool = Spool::new(vec![directory.path().to_path_buf()], 1 << 20);
        let first = spool.store(&[1; 5000]).expect("room");
        let mut is_first = true;
        let too_long = move |call| match call {
            Call::Write if std::mem::take(&mut is_first) => Err(Errno::FBIG.into()),
            _ => Ok(()),
        };
        let second = seam::run(too_long, || spool.store(&[2; 5000]).expect("room"));
        assert!(!Arc::ptr_eq(first.file(), second.file()));
        let third = spool.store(&[3; 5000]).expect("room");
        assert!(Arc::ptr_eq(second.file(), third.file()));
        for (byte, extent) in [(1, &first), (2, &second), (3, &third)] {
            assert_eq!(content(extent, 5000), [byte; 5000]);
        }
        assert_eq!(spool.find_room(1), Ok(()));
        drop((first, second, third));
        assert_eq!(spool.occupied.load(Ordering::Relaxed), 0);
    }
}

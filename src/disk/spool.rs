//! A temporary file without a name, in which a process puts contents aside that memory has no room
//! for. It goes with the process, however that ends.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::seam::{self, Call};

/// Contents begin at multiples of this, the block of most file systems: only whole blocks can be
/// given back.
const BLOCK: u64 = 4096;
/// No content is put behind this offset, but into another file: ext4 has files of up to 16 TiB.
const MAX_OFFSET: u64 = 1 << 40;
/// How long there is no room after nothing could be written.
const REST: Duration = Duration::from_secs(30);

/// Room for contents in a temporary file, which is made when the first of them comes.
#[derive(Debug)]
pub struct Spool {
    directories: Vec<PathBuf>,
    limit: u64,
    used: Arc<AtomicU64>,
    /// The file, and where the next content goes.
    file: Mutex<Option<(Arc<File>, u64)>>,
    /// When something could not be written.
    failed: Mutex<Option<Instant>>,
}

impl Spool {
    /// Room for `limit` bytes in the first of these directories in which a file can be made.
    pub fn new(directories: Vec<PathBuf>, limit: u64) -> Self {
        Self {
            directories,
            limit,
            used: Arc::default(),
            file: Mutex::default(),
            failed: Mutex::default(),
        }
    }

    /// Whether there is room for `length` bytes more. For half a minute after something could not
    /// be written there is none, so that nobody makes what can't be kept, time and again.
    pub fn has_room(&self, length: u64) -> bool {
        let used = self.used.load(Ordering::Relaxed);
        let failed = *self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        used.saturating_add(whole_blocks(length)) <= self.limit
            && failed.is_none_or(|failed| failed.elapsed() > REST)
    }

    /// Puts `bytes` aside until the extent is dropped.
    ///
    /// # Errors
    /// [`io::ErrorKind::QuotaExceeded`] beyond the limit; when no file can be made, or the disk is
    /// full.
    pub fn store(&self, bytes: &[u8]) -> io::Result<SpooledBytes> {
        let share = self.share(whole_blocks(bytes.len() as u64))?;
        let stored = self.write(bytes, share);
        let failed = stored.is_err().then(Instant::now);
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = failed;
        stored
    }

    fn write(&self, bytes: &[u8], share: SpoolShare) -> io::Result<SpooledBytes> {
        let (file, offset) = self.place(share.length)?;
        let extent = SpooledBytes {
            file,
            offset,
            share,
        };
        seam::pass(Call::Write)?;
        extent.file.write_all_at(bytes, offset)?;
        Ok(extent)
    }

    /// Takes `length` bytes of the room.
    fn share(&self, length: u64) -> io::Result<SpoolShare> {
        let before = self.used.fetch_add(length, Ordering::Relaxed);
        let share = SpoolShare {
            used: Arc::clone(&self.used),
            length,
        };
        if before.saturating_add(length) > self.limit {
            let message = "the room that --cache-size gives is used up";
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, message));
        }
        Ok(share)
    }

    /// Where the next `length` bytes go.
    fn place(&self, length: u64) -> io::Result<(Arc<File>, u64)> {
        let mut current = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, offset) = match current.take() {
            Some((file, end)) if end <= MAX_OFFSET => (file, end),
            _ => (Arc::new(self.make_file()?), 0),
        };
        *current = Some((Arc::clone(&file), offset + length));
        Ok((file, offset))
    }

    fn make_file(&self) -> io::Result<File> {
        seam::pass(Call::Make)?;
        let mut failed = io::Error::from(io::ErrorKind::NotFound);
        for directory in &self.directories {
            match tempfile::tempfile_in(directory) {
                Ok(file) => return Ok(file),
                Err(error) => {
                    let message =
                        format!("no file can be made in {}: {error}", directory.display());
                    failed = io::Error::new(error.kind(), message);
                }
            }
        }
        Err(failed)
    }
}

fn whole_blocks(length: u64) -> u64 {
    length.div_ceil(BLOCK) * BLOCK
}

/// A content that was put aside. Its room is given back on drop.
#[derive(Debug)]
pub struct SpooledBytes {
    file: Arc<File>,
    offset: u64,
    share: SpoolShare,
}

impl SpooledBytes {
    /// The file that the content is in, with others.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Where in the file it begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

impl Drop for SpooledBytes {
    fn drop(&mut self) {
        give_back(&self.file, self.offset, self.share.length);
    }
}

/// A part of the room, in whole blocks; given back on drop.
#[derive(Debug)]
struct SpoolShare {
    used: Arc<AtomicU64>,
    length: u64,
}

impl Drop for SpoolShare {
    fn drop(&mut self) {
        self.used.fetch_sub(self.length, Ordering::Relaxed);
    }
}

/// Has the file system forget a part of a file. Where it can't, the part takes up the disk until the
/// process ends.
#[cfg(target_os = "linux")]
fn give_back(file: &File, offset: u64, length: u64) {
    use rustix::fs::{FallocateFlags, fallocate};
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let _ = fallocate(file, flags, offset, length);
}

/// Other systems have no such call that all of them share.
#[cfg(not(target_os = "linux"))]
fn give_back(_: &File, _: u64, _: u64) {}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

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
        let extents: Vec<_> = (0..10_u8)
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
        drop(extents);
        assert_eq!(spool.used.load(Ordering::Relaxed), 0);
        assert!(blocks() < before, "{} blocks of {before}", blocks());
    }

    #[test]
    fn the_limit_holds_and_what_is_dropped_makes_room() {
        let directory = tempfile::tempdir().expect("a directory");
        let spool = Spool::new(vec![directory.path().to_path_buf()], 3 * BLOCK);
        let first = spool.store(&[1; 1]).expect("room");
        let _second = spool.store(&[2; BLOCK as usize + 1]).expect("room");
        assert!(!spool.has_room(1));
        let full = spool.store(&[3; 1]).expect_err("full");
        assert_eq!(full.kind(), io::ErrorKind::QuotaExceeded);
        drop(first);
        assert!(spool.has_room(BLOCK) && !spool.has_room(BLOCK + 1));
        let third = spool.store(&[3; 1]).expect("room");
        assert_eq!(content(&third, 1), [3]);
    }

    #[test]
    fn what_fails_takes_no_room() {
        let gone = PathBuf::from("/nonexistent/directory");
        let spool = Spool::new(vec![gone.clone()], 1 << 20);
        spool.store(&[1; 1]).expect_err("nowhere");
        assert_eq!(spool.used.load(Ordering::Relaxed), 0);
        assert!(!spool.has_room(1), "for a while");
        let directory = tempfile::tempdir().expect("a directory");
        let spool = Spool::new(vec![gone, directory.path().to_path_buf()], 1 << 20);
        let full = || Err(rustix::io::Errno::NOSPC.into());
        let stored = seam::run(
            move |call| if call == Call::Write { full() } else { Ok(()) },
            || spool.store(&[1; 1]).map(|_| ()),
        );
        assert_eq!(stored.expect_err("full").kind(), io::ErrorKind::StorageFull);
        assert_eq!(spool.used.load(Ordering::Relaxed), 0);
        spool.store(&[1; 1]).expect("there is room again");
        assert!(spool.has_room(1));
    }
}

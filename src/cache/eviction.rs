//! Which packs go when there are too many: those that were not used for longest.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::disk::seam::{self, Call};

/// What the name of a file begins with that is being written.
pub(super) const NEW_PREFIX: &str = "new-";
/// A file that is being written for longer was left by a process that was killed.
const MAX_WRITE_TIME: Duration = Duration::from_secs(3600);
/// A shorter pack is one of many small changes.
const MAX_SHORT_LENGTH: u64 = 64 << 10;

/// A file of the cache.
#[derive(Debug)]
pub(super) struct FoundPack {
    pub(super) path: PathBuf,
    pub(super) stamp: PackStamp,
}

/// What tells a pack from another one of its name: one that was damaged was replaced, or is about to
/// be found to be damaged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PackStamp {
    /// When it was last marked as used.
    pub(super) used: SystemTime,
    length: u64,
    inode: u64,
}

impl PackStamp {
    pub(super) fn of(metadata: &Metadata) -> io::Result<Self> {
        Ok(Self {
            used: metadata.modified()?,
            length: metadata.len(),
            inode: metadata.ino(),
        })
    }
}

impl FoundPack {
    /// Whether it is being written, or was.
    pub(super) fn is_new(&self) -> bool {
        let name = self.path.file_name().unwrap_or_default();
        name.to_string_lossy().starts_with(NEW_PREFIX)
    }

    fn has_name(&self) -> bool {
        let name = self.path.file_name().unwrap_or_default();
        blake3::Hash::from_hex(name.as_encoded_bytes()).is_ok()
    }

    fn is_left_over(&self, now: SystemTime) -> bool {
        let age = now.duration_since(self.stamp.used);
        self.is_new() && age.is_ok_and(|age| age > MAX_WRITE_TIME)
    }
}

/// Removes packs of `folder` until `room` bytes can come without there being more than `limit`.
/// Returns the short ones that are left, those that were not used for longest first.
///
/// # Errors
/// When the folder can't be listed.
pub(super) fn make_room(folder: &Path, limit: u64, room: u64) -> io::Result<Vec<PathBuf>> {
    let now = SystemTime::now();
    let (left_over, mut packs): (Vec<_>, Vec<_>) = list(folder)?
        .into_iter()
        .partition(|found| found.is_left_over(now));
    // Other processes remove files, too: what is gone is gone.
    for found in left_over {
        let _ = super::remove(&found.path);
    }
    let mut total: u64 = packs.iter().map(|found| found.stamp.length).sum();
    packs.sort_by_key(|found| found.stamp.used);
    packs.retain(|found| {
        let may_stay = total.saturating_add(room) <= limit;
        if !may_stay {
            let _ = super::remove(&found.path);
            total -= found.stamp.length;
        }
        may_stay
    });
    let short = packs
        .into_iter()
        .filter(|found| found.stamp.length <= MAX_SHORT_LENGTH && !found.is_new());
    Ok(short.map(|found| found.path).collect())
}

/// The files of a folder that are packs by their name, or are being written.
pub(super) fn list(folder: &Path) -> io::Result<Vec<FoundPack>> {
    seam::pass(Call::List)?;
    let mut found = Vec::new();
    for file in fs::read_dir(folder)? {
        let file = file?;
        // One that is gone has no metadata.
        if let Ok(metadata) = file.metadata()
            && metadata.is_file()
        {
            let pack = FoundPack {
                path: file.path(),
                stamp: PackStamp::of(&metadata)?,
            };
            if pack.is_new() || pack.has_name() {
                found.push(pack);
            }
        }
    }
    Ok(found)
}

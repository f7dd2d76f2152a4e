//! Which entries go when there are too many: those that were not used for longest.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::disk::seam::{self, Call};

/// What the name of a file begins with that is being written.
pub(super) const NEW_PREFIX: &str = "new-";
/// A file that is being written for longer was left by a process that was killed.
const MAX_WRITE_TIME: Duration = Duration::from_secs(3600);

/// A file of the cache.
struct Found {
    used: SystemTime,
    length: u64,
    path: PathBuf,
}

/// Removes entries of `folder` until `room` bytes can come without there being more than `limit`.
///
/// # Errors
/// When the folder can't be listed.
pub(super) fn make_room(folder: &Path, limit: u64, room: u64) -> io::Result<()> {
    let now = SystemTime::now();
    let (left_over, mut entries): (Vec<_>, Vec<_>) = list(folder)?
        .into_iter()
        .partition(|found| is_left_over(found, now));
    // Other processes remove files, too: what is gone is gone.
    for found in left_over {
        let _ = super::remove(&found.path);
    }
    let mut total: u64 = entries.iter().map(|found| found.length).sum();
    entries.sort_by_key(|found| found.used);
    for found in entries {
        if total.saturating_add(room) <= limit {
            break;
        }
        let _ = super::remove(&found.path);
        total -= found.length;
    }
    Ok(())
}

fn is_left_over(found: &Found, now: SystemTime) -> bool {
    let name = found.path.file_name().unwrap_or_default();
    name.to_string_lossy().starts_with(NEW_PREFIX)
        && now
            .duration_since(found.used)
            .is_ok_and(|age| age > MAX_WRITE_TIME)
}

fn list(folder: &Path) -> io::Result<Vec<Found>> {
    seam::pass(Call::List)?;
    let mut found = Vec::new();
    for inner in fs::read_dir(folder)? {
        // One that is gone or no folder has no entries.
        let Ok(files) = fs::read_dir(inner?.path()) else {
            continue;
        };
        for file in files.flatten() {
            if let Ok(metadata) = file.metadata()
                && metadata.is_file()
            {
                found.push(Found {
                    used: metadata.modified()?,
                    length: metadata.len(),
                    path: file.path(),
                });
            }
        }
    }
    Ok(found)
}

//! `--cache`: a directory in which processes keep what took long to make, for one another and for
//! their next start. It knows names and bytes, and nothing of what they mean.
//!
//! An entry is a file. Its name is a hash of all that its content depends on, so that an entry is
//! right for ever, and needs no date. It is written under another name and renamed, read by any
//! number of processes, and proven at each read. Nobody depends on it: what can't be read is made
//! again, and what can't be written is not kept. Each kind of trouble is one warning.
//!
//! `docs/STORE.md` describes the files for those who look into the directory.

mod entry;
mod eviction;

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::disk::seam::{self, Call};
pub use entry::{CacheEntry, EntryName, EntryPiece};
use eviction::make_room;

/// The folder of this format: versions that write another one use another folder.
const FOLDER: &str = "v1";
/// Marks the directory, so that backups leave it out (<https://bford.info/cachedir/>).
const TAG: (&str, &[u8]) = (
    "CACHEDIR.TAG",
    b"Signature: 8a477f597d28d172789f06886806bc55\n# This is a cache of etagd (--cache).\n",
);
/// An entry that is used is marked so again after this time. LRU needs no finer grain, and a write
/// for each read would make starts slow.
const MARK_INTERVAL: Duration = Duration::from_secs(24 * 3600);
/// The part of the limit that a process writes before it looks how much is there.
const LOOK_SHARE: u64 = 16;

/// Why a directory can't be used as a cache.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// It is in the site, so that anybody could download it, and the watcher would follow it.
    #[error("--cache {}: choose a directory outside of the site {}", .directory.display(), .root.display())]
    Served {
        /// As it was given.
        directory: PathBuf,
        /// The real path of the site.
        root: PathBuf,
    },
    /// Somebody else could put anything there, and have it served.
    #[error(
        "{} belongs to another user, or others may write there: choose a directory of this user alone",
        .0.display()
    )]
    Shared(PathBuf),
    /// It can't be made or looked at.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
}

/// A directory of entries.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    limit: u64,
    /// Bytes that this process may write before it looks how much is there.
    unchecked: AtomicU64,
    /// Whether somebody looks how much is there at the moment.
    is_looking: AtomicBool,
    /// Temporary files of this process so far.
    made: AtomicU64,
    warned: [AtomicBool; 3],
}

/// A kind of trouble, which is named once.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    Damaged,
    Unreadable,
    Unwritable,
}

impl Cache {
    /// The entries in `directory`, which is made if it is missing, as long as they take up no more
    /// than `limit` bytes. The site is in `root`, a real path.
    ///
    /// # Errors
    /// When the directory is in the site, can't be made, or is open to other users.
    pub fn open(directory: &Path, root: &Path, limit: u64) -> Result<Self, CacheError> {
        let failed = |source| CacheError::Io {
            path: directory.to_path_buf(),
            source,
        };
        // Its owner alone can read it: what is in it need not be public yet.
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        // Before anything is made: what is refused leaves nothing behind.
        refuse_inside(directory, root)?;
        builder.create(directory).map_err(failed)?;
        let real = directory.canonicalize().map_err(failed)?;
        refuse_inside(&real, root)?;
        let user = rustix::process::geteuid().as_raw();
        // Whoever can write to this directory can put another folder in the place of the entries'.
        let above = real.metadata().map_err(failed)?;
        if !is_private(&above, &[user, 0]) {
            return Err(CacheError::Shared(real));
        }
        let folder = real.join(FOLDER);
        builder.create(&folder).map_err(failed)?;
        let metadata = folder.symlink_metadata().map_err(failed)?;
        if !is_private(&metadata, &[user]) {
            return Err(CacheError::Shared(folder));
        }
        let (name, text) = TAG;
        // It follows no link. Without the file backups are larger, and that is all.
        if let Ok(mut tag) = File::create_new(real.join(name)) {
            let _ = tag.write_all(text.as_ref());
        }
        Ok(Self {
            folder,
            limit,
            unchecked: AtomicU64::new(0),
            is_looking: AtomicBool::new(false),
            made: AtomicU64::new(0),
            warned: Default::default(),
        })
    }

    /// The directory of the entries.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The entry of this name, proven.
    pub fn get(&self, name: &EntryName) -> Option<CacheEntry> {
        let path = self.path(name);
        let (bytes, used) = match read(&path, self.limit) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                self.warn(Trouble::Unreadable, &path, &error);
                return None;
            }
        };
        let Some(entry) = CacheEntry::read(name, bytes) else {
            let damaged = io::Error::from(io::ErrorKind::InvalidData);
            self.warn(Trouble::Damaged, &path, &damaged);
            // What replaces it is written by whoever makes it again.
            let _ = remove(&path);
            return None;
        };
        if used.elapsed().is_ok_and(|age| age > MARK_INTERVAL) {
            mark_used(&path);
        }
        Some(entry)
    }

    /// Keeps an entry under this name.
    pub fn put(&self, name: &EntryName, entry: &CacheEntry) {
        let length = entry.file_length();
        // One entry is not to push out a good part of the others.
        if length > self.limit / 4 {
            return;
        }
        self.look_now_and_then(length);
        let path = self.path(name);
        if let Err(error) = self.write(&path, name, entry) {
            self.warn(Trouble::Unwritable, &path, &error);
        }
    }

    /// `v1/ab/cdef...`: no folder gets too long to be searched.
    fn path(&self, name: &EntryName) -> PathBuf {
        let hex = blake3::Hash::from_bytes(*name).to_hex();
        let (first, rest) = hex.split_at(2);
        self.folder.join(first).join(rest)
    }

    fn write(&self, path: &Path, name: &EntryName, entry: &CacheEntry) -> io::Result<()> {
        let parent = path.parent().unwrap_or(&self.folder);
        let (new, file) = self.create(parent)?;
        let mut out = io::BufWriter::new(file);
        let written = seam::pass(Call::Write)
            .and_then(|()| entry.write(name, &mut out))
            .and_then(|()| out.flush())
            .and_then(|()| seam::pass(Call::Rename))
            .and_then(|()| fs::rename(&new, path));
        if written.is_err() {
            let _ = remove(&new);
        }
        written
    }

    /// A new file next to the entries of `parent`, with its path.
    fn create(&self, parent: &Path) -> io::Result<(PathBuf, File)> {
        loop {
            let number = self.made.fetch_add(1, Ordering::Relaxed);
            let name = format!("{}{}-{number}", eviction::NEW_PREFIX, std::process::id());
            let path = parent.join(name);
            seam::pass(Call::Make)?;
            match File::create_new(&path) {
                Ok(file) => return Ok((path, file)),
                // Of a process with the same number, in another container.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    // A folder that is missing is made once; where that fails, so does this.
                    DirBuilder::new()
                        .recursive(true)
                        .mode(0o700)
                        .create(parent)?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Makes room each time that this process has written a part of the limit, and at first: other
    /// processes write, too.
    fn look_now_and_then(&self, length: u64) {
        let before = self
            .unchecked
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(length)
            });
        if before.is_ok() || self.is_looking.swap(true, Ordering::Acquire) {
            return;
        }
        let share = (self.limit / LOOK_SHARE).max(length);
        if let Err(error) = make_room(&self.folder, self.limit, share) {
            self.warn(Trouble::Unreadable, &self.folder, &error);
        }
        self.unchecked.store(share - length, Ordering::Relaxed);
        self.is_looking.store(false, Ordering::Release);
    }

    fn warn(&self, trouble: Trouble, path: &Path, error: &io::Error) {
        if self.warned[trouble as usize].swap(true, Ordering::Relaxed) {
            return;
        }
        let path = path.display();
        match trouble {
            Trouble::Damaged => tracing::warn!(
                %path,
                "--cache: {path} is damaged and not used: what it should have is made again"
            ),
            Trouble::Unreadable => tracing::warn!(
                %path, %error,
                "--cache: cannot read {path}: {error}: what it should have is made again"
            ),
            Trouble::Unwritable => tracing::warn!(
                %path, %error,
                "--cache: cannot write {path}: {error}: what is not kept is made again at the next \
                 start"
            ),
        }
    }
}

/// Whether only one of these users can write to a directory.
fn is_private(metadata: &fs::Metadata, owners: &[u32]) -> bool {
    metadata.is_dir() && owners.contains(&metadata.uid()) && metadata.mode() & 0o022 == 0
}

/// Refuses a directory in the site, whether it is there already or not.
fn refuse_inside(directory: &Path, root: &Path) -> Result<(), CacheError> {
    let absolute = std::path::absolute(directory).unwrap_or_else(|_| directory.to_path_buf());
    // The part of it that is there, free of links.
    let mut above = absolute.ancestors();
    let real = above.find_map(|part| part.canonicalize().ok());
    match real.is_some_and(|real| real.starts_with(root)) {
        true => Err(CacheError::Served {
            directory: directory.to_path_buf(),
            root: root.to_path_buf(),
        }),
        false => Ok(()),
    }
}

/// The bytes of a file of up to `limit` bytes, and when it was last used.
fn read(path: &Path, limit: u64) -> io::Result<(Vec<u8>, SystemTime)> {
    seam::pass(Call::Open)?;
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let length = metadata.len().min(limit);
    let mut bytes = Vec::with_capacity(length as usize);
    seam::pass(Call::Read)?;
    file.take(length).read_to_end(&mut bytes)?;
    Ok((bytes, metadata.modified()?))
}

/// Makes an entry one that is used. Where that is not allowed, it only goes sooner.
fn mark_used(path: &Path) {
    let file = File::options().write(true).open(path);
    let _ = file.and_then(|file| file.set_modified(SystemTime::now()));
}

fn remove(path: &Path) -> io::Result<()> {
    seam::pass(Call::Remove)?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use rustix::io::Errno;
    use tempfile::TempDir;

    use super::*;

    const LIMIT: u64 = 1 << 20;
    const NAME: EntryName = [1; 32];

    /// A directory with a site and a place for a cache beside it.
    fn place() -> TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        fs::create_dir(directory.path().join("site")).expect("made");
        directory
    }

    fn open(place: &TempDir, path: &str, limit: u64) -> Result<Cache, CacheError> {
        let root = place.path().canonicalize().expect("real").join("site");
        Cache::open(&place.path().join(path), &root, limit)
    }

    fn entry(byte: u8, length: usize) -> CacheEntry {
        CacheEntry::new([&vec![byte; length][..]])
    }

    /// Everything in the directory, by its path below it.
    fn files(cache: &Cache) -> Vec<String> {
        let mut found = Vec::new();
        for folder in fs::read_dir(cache.folder()).expect("listed") {
            for file in fs::read_dir(folder.expect("a folder").path()).expect("listed") {
                let path = file.expect("a file").path();
                let below = path.strip_prefix(cache.folder()).expect("below");
                found.push(below.display().to_string());
            }
        }
        found
    }

    #[test]
    fn what_one_process_keeps_another_gets() {
        let place = place();
        let one = open(&place, "deep/cache", LIMIT).expect("opened");
        assert_eq!(one.get(&NAME), None);
        one.put(&NAME, &entry(7, 5000));
        let two = open(&place, "deep/cache", LIMIT).expect("opened");
        assert_eq!(two.get(&NAME), Some(entry(7, 5000)));
        assert_eq!(two.get(&[2; 32]), None);
        assert_eq!(files(&one), [format!("01/{}", "01".repeat(31))]);
        let tag = fs::read_to_string(place.path().join("deep/cache/CACHEDIR.TAG"));
        assert!(
            tag.expect("a tag")
                .starts_with("Signature: 8a477f597d28d172789f06886806bc55")
        );
        let mode = fs::metadata(one.folder()).expect("there").mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn a_damaged_entry_is_none_and_goes() {
        let place = place();
        let cache = open(&place, "cache", LIMIT).expect("opened");
        cache.put(&NAME, &entry(7, 5000));
        let path = cache.path(&NAME);
        for damage in [&b""[..], b"short", &[0; 5060]] {
            fs::write(&path, damage).expect("written");
            assert_eq!(cache.get(&NAME), None);
            assert!(!path.exists());
        }
        cache.put(&NAME, &entry(7, 5000));
        // An entry that is good, under a name that is not its own.
        let other = cache.path(&[2; 32]);
        fs::create_dir(other.parent().expect("a folder")).expect("made");
        fs::rename(&path, &other).expect("renamed");
        assert_eq!(cache.get(&[2; 32]), None);
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let place = place();
        let cache = open(&place, "cache", LIMIT).expect("opened");
        let length = LIMIT as usize / 32;
        let name = |number: u8| [number; 32];
        for number in 0..32 {
            cache.put(&name(number), &entry(number, length));
            let age = Duration::from_secs(1_000_000 - u64::from(number) * 1000);
            let file = File::options().write(true).open(cache.path(&name(number)));
            let at = SystemTime::now() - age;
            file.and_then(|file| file.set_modified(at)).expect("dated");
        }
        // Used again, after so long that it is noted.
        assert!(cache.get(&name(3)).is_some());
        for number in 32..40 {
            cache.put(&name(number), &entry(number, length));
        }
        let total: u64 = files(&cache)
            .iter()
            .map(|path| {
                fs::metadata(cache.folder().join(path))
                    .expect("there")
                    .len()
            })
            .sum();
        assert!(total <= LIMIT, "{total}");
        let is_there = |number| cache.path(&name(number)).exists();
        assert!(is_there(3) && is_there(39) && !is_there(0) && !is_there(1));
    }

    #[test]
    fn what_a_killed_process_was_writing_goes_after_a_while() {
        let place = place();
        let cache = open(&place, "cache", LIMIT).expect("opened");
        cache.put(&NAME, &entry(7, 10));
        let folder = cache.path(&NAME).parent().expect("a folder").to_path_buf();
        for (name, age) in [("new-1-1", 10), ("new-1-2", 4000)] {
            let file = File::create(folder.join(name)).expect("made");
            let at = SystemTime::now() - Duration::from_secs(age);
            file.set_modified(at).expect("dated");
        }
        make_room(cache.folder(), LIMIT, 0).expect("listed");
        assert!(folder.join("new-1-1").exists() && !folder.join("new-1-2").exists());
        assert!(cache.get(&NAME).is_some());
    }

    #[test]
    fn a_site_is_no_place_for_it() {
        let place = place();
        symlink("site", place.path().join("link")).expect("linked");
        for path in ["site", "site/cache", "site/.cache/deep", "link/cache"] {
            let refused = open(&place, path, LIMIT).expect_err("refused");
            assert!(matches!(refused, CacheError::Served { .. }), "{path}");
        }
        assert_eq!(
            fs::read_dir(place.path().join("site"))
                .expect("listed")
                .count(),
            0
        );
        assert!(open(&place, "site-cache", LIMIT).is_ok());
    }

    #[test]
    fn what_others_can_write_to_is_not_used() {
        let place = place();
        let cache = open(&place, "cache", LIMIT).expect("opened");
        let mode = fs::Permissions::from_mode(0o770);
        fs::set_permissions(cache.folder(), mode).expect("set");
        let refused = open(&place, "cache", LIMIT).expect_err("refused");
        assert!(matches!(refused, CacheError::Shared(_)), "{refused}");
        fs::write(place.path().join("file"), "").expect("written");
        let failed = open(&place, "file", LIMIT).expect_err("no directory");
        assert!(matches!(failed, CacheError::Io { .. }), "{failed}");
    }

    #[test]
    fn a_full_or_broken_disk_only_costs_time() {
        let place = place();
        let cache = open(&place, "cache", LIMIT).expect("opened");
        cache.put(&NAME, &entry(7, 10));
        for (at, number) in [
            (Call::Make, Errno::ROFS),
            (Call::Write, Errno::NOSPC),
            (Call::Rename, Errno::IO),
            (Call::List, Errno::IO),
        ] {
            seam::run(
                move |call| {
                    if call == at {
                        Err(number.into())
                    } else {
                        Ok(())
                    }
                },
                || {
                    let cache = open(&place, "cache", LIMIT).expect("opened");
                    cache.put(&[2; 32], &entry(8, 10));
                    assert_eq!(cache.get(&NAME), Some(entry(7, 10)), "{at:?}");
                },
            );
            let is_left = files(&cache).iter().any(|path| path.contains("new-"));
            assert!(!is_left, "{at:?}");
        }
        for at in [Call::Open, Call::Read] {
            seam::run(
                move |call| {
                    if call == at {
                        Err(Errno::IO.into())
                    } else {
                        Ok(())
                    }
                },
                || {
                    assert_eq!(
                        open(&place, "cache", LIMIT).expect("opened").get(&NAME),
                        None
                    )
                },
            );
        }
    }
}

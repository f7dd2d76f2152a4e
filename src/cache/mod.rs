//! `--cache`: a directory in which processes keep what took long to make, for one another and for
//! their next start. It knows names and bytes, and nothing of what they mean.
//!
//! The name of an entry is a hash of all that its content depends on, so that an entry is right for
//! ever, and needs no date. Many of them lie in one file, a pack, since a start reads them all. A
//! pack is written under another name and renamed, and read by any number of processes; its entries
//! are proven at each read. Nobody depends on it: what can't be read is made again, and what can't be
//! written is not kept. Each kind of trouble is one warning.
//!
//! `docs/STORE.md` describes the files for those who look into the directory.

mod entry;
mod eviction;
mod index;
mod pack;

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::mem;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, RwLock};
use std::time::{Duration, Instant};

use crate::disk::seam::{self, Call};
use crate::disk::{read_exact_at, resolved_path};
use crate::locks::{self, lock};
pub use entry::{CacheEntry, EntryName, EntryPiece};
use eviction::{PackStamp, make_room};
use index::PackIndex;
use pack::{PackBuilder, PackRecord, read_directory};

/// The folder of this format: versions that write another one use another folder.
const FOLDER: &str = "v2";
/// What the name of an entry with a file of its own begins with.
const KEPT_PREFIX: &str = "kept-";
/// Marks the directory, so that backups leave it out (<https://bford.info/cachedir/>).
const TAG: (&str, &[u8]) = (
    "CACHEDIR.TAG",
    b"Signature: 8a477f597d28d172789f06886806bc55\n# This is a cache of etagd (--cache).\n",
);
/// The length of a pack at which it is written: long enough for few files, and short enough that a
/// process which is killed loses little.
const MAX_PACK_LENGTH: u64 = 1 << 20;
/// The part of the limit that a pack has at most, but for its last entry: it goes as a whole.
const PACK_SHARE: u64 = 16;
/// How long an entry waits for others of its pack, where entries come one after another.
const MAX_DELAY: Duration = Duration::from_secs(2);
/// So many short packs are left as they are.
const MAX_SHORT_PACKS: usize = 64;

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
    /// What is in the packs of the directory, as far as it is known.
    index: RwLock<PackIndex>,
    /// What is to be written with the next pack.
    next: Mutex<NextPack>,
    /// Held while room is made for a pack and it is written: two at once would count the same room.
    writing: Mutex<()>,
    /// Temporary files of this process so far.
    made: AtomicU64,
    warned: [AtomicBool; 3],
}

/// Entries that are not written yet.
#[derive(Debug, Default)]
struct NextPack {
    pack: PackBuilder,
    /// When the first of them came.
    since: Option<Instant>,
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
    /// than `limit` bytes. The site is in `root`, a real path, if it is in a directory.
    ///
    /// # Errors
    /// When the directory is in the site, can't be made, or is open to other users.
    pub fn open(directory: &Path, root: Option<&Path>, limit: u64) -> Result<Self, CacheError> {
        let failed = |source| CacheError::Io {
            path: directory.to_path_buf(),
            source,
        };
        // Its owner alone can read it: what is in it need not be public yet.
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        // Before anything is made: what is refused leaves nothing behind.
        if let Some(root) = root {
            refuse_inside(directory, root)?;
        }
        builder.create(directory).map_err(failed)?;
        let real = directory.canonicalize().map_err(failed)?;
        if let Some(root) = root {
            refuse_inside(&real, root)?;
        }
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
            index: RwLock::default(),
            next: Mutex::default(),
            writing: Mutex::default(),
            made: AtomicU64::new(0),
            warned: Default::default(),
        })
    }

    /// How many bytes it holds at most.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// The directory of the packs.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The entry of this name, proven.
    pub fn get(&self, name: &EntryName) -> Option<CacheEntry> {
        let waiting = lock(&self.next).pack.get(name).map(<[u8]>::to_vec);
        if let Some(bytes) = waiting {
            return CacheEntry::read(name, bytes);
        }
        self.refresh_index();
        let (pack, read) = locks::read(&self.index).read(name)?;
        let bytes = match read {
            Ok(bytes) => bytes,
            // Another process has removed it to make room.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            // It was cut after its directory was read.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.discard(&pack);
                return None;
            }
            Err(error) => {
                self.warn(Trouble::Unreadable, &pack, &error);
                return None;
            }
        };
        let entry = CacheEntry::read(name, bytes);
        if entry.is_none() {
            self.discard(&pack);
        }
        entry
    }

    /// Whether there is an entry of this name. It may be damaged.
    pub fn has(&self, name: &EntryName) -> bool {
        if lock(&self.next).pack.get(name).is_some() {
            return true;
        }
        self.refresh_index();
        locks::read(&self.index).has(name)
    }

    /// Has the next read look for packs that have come or gone, if that was done longer ago than `age`.
    /// Returns whether it will: for a process that never rests.
    pub fn outdate(&self, age: Duration) -> bool {
        let is_old = |index: &PackIndex| index.listed.is_none_or(|at| at.elapsed() >= age);
        if !is_old(&locks::read(&self.index)) {
            return false;
        }
        let mut index = locks::write(&self.index);
        let is_old = is_old(&index);
        if is_old {
            index.is_current = false;
        }
        is_old
    }

    /// Keeps an entry in a file of its own, in the place of an earlier one of this name. Others do not
    /// push it out, and its room is not counted.
    pub fn keep(&self, name: &EntryName, entry: &CacheEntry) {
        let path = self.kept_path(name);
        let mut bytes = Vec::new();
        // A vector takes everything.
        let _ = entry.write(name, &mut bytes);
        if let Err(error) = self.write(&path, &bytes) {
            self.warn(Trouble::Unwritable, &path, &error);
        }
    }

    /// The entry of this name that [`Cache::keep`] has kept last, proven.
    pub fn kept(&self, name: &EntryName) -> Option<CacheEntry> {
        let path = self.kept_path(name);
        let read = seam::pass(Call::Read).and_then(|()| fs::read(&path));
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                self.warn(Trouble::Unreadable, &path, &error);
                return None;
            }
        };
        let entry = CacheEntry::read(name, bytes);
        if entry.is_none() {
            self.remove_damaged(&path);
        }
        entry
    }

    fn kept_path(&self, name: &EntryName) -> PathBuf {
        let name = blake3::Hash::from_bytes(*name).to_hex();
        self.folder.join(format!("{KEPT_PREFIX}{name}"))
    }

    /// Keeps an entry under this name: in the next pack, which is written when there is enough for
    /// it, and by [`Cache::rest`].
    pub fn put(&self, name: &EntryName, entry: &CacheEntry) {
        // One entry is not to push out a good part of the others.
        if entry.file_length() > self.limit / 4 {
            return;
        }
        let full = {
            let mut next = lock(&self.next);
            next.pack.push(name, entry);
            let since = *next.since.get_or_insert_with(Instant::now);
            let is_full = next.pack.length() >= self.pack_length();
            (is_full || since.elapsed() >= MAX_DELAY).then(|| mem::take(&mut *next))
        };
        if let Some(full) = full {
            self.write_pack(full.pack);
        }
    }

    /// Writes what is not written yet. The next read looks for packs that have come or gone: other
    /// processes write, too.
    pub fn rest(&self) {
        self.flush();
        locks::write(&self.index).rest();
    }

    /// Writes what is not written yet.
    pub fn flush(&self) {
        let next = mem::take(&mut *lock(&self.next));
        if !next.pack.is_empty() {
            self.write_pack(next.pack);
        }
    }

    /// Writes what has waited for long enough, for a process that may not keep anything more for hours.
    pub fn flush_late(&self) {
        let late = {
            let mut next = lock(&self.next);
            let is_late = |since: Instant| since.elapsed() >= MAX_DELAY;
            next.since
                .is_some_and(is_late)
                .then(|| mem::take(&mut *next))
        };
        if let Some(late) = late {
            self.write_pack(late.pack);
        }
    }

    /// The length of a pack at which it is written.
    fn pack_length(&self) -> u64 {
        (self.limit / PACK_SHARE).min(MAX_PACK_LENGTH)
    }

    /// Finds out which packs there are, if that was not done since the last rest, and what is in those
    /// that are new.
    fn refresh_index(&self) {
        if locks::read(&self.index).is_current {
            return;
        }
        let mut index = locks::write(&self.index);
        if index.is_current {
            return;
        }
        // Where the folder can't be listed, what is known is all there is, until the next look.
        index.is_current = true;
        index.listed = Some(Instant::now());
        let mut packs = match eviction::list(&self.folder) {
            Ok(packs) => packs,
            Err(error) => {
                self.warn(Trouble::Unreadable, &self.folder, &error);
                return;
            }
        };
        packs.retain(|found| !found.is_new());
        index.forget_others(&packs);
        let mut packs = index.unknown(packs);
        // What has taken the place of something damaged is newer.
        packs.sort_by_key(|found| found.stamp.used);
        for found in packs {
            let path = found.path.clone();
            match index.add_file(found) {
                Ok(true) => {}
                Ok(false) => self.remove_damaged(&path),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => self.warn(Trouble::Unreadable, &path, &error),
            }
        }
    }

    /// Removes a pack that is damaged, and forgets what is in it.
    fn discard(&self, pack: &Path) {
        locks::write(&self.index).forget(pack);
        self.remove_damaged(pack);
    }

    /// Removes a pack that is damaged. What is in it is made again.
    fn remove_damaged(&self, pack: &Path) {
        let damaged = io::Error::from(io::ErrorKind::InvalidData);
        self.warn(Trouble::Damaged, pack, &damaged);
        let _ = remove(pack);
    }

    /// Makes room for a pack, and writes it.
    fn write_pack(&self, pack: PackBuilder) {
        let (bytes, hash, records) = pack.finish();
        let length = bytes.len() as u64;
        let _writing = lock(&self.writing);
        match make_room(&self.folder, self.limit, length) {
            Ok(short) if short.len() > MAX_SHORT_PACKS => self.merge(&short),
            Ok(_) => {}
            Err(error) => self.warn(Trouble::Unreadable, &self.folder, &error),
        }
        self.add(hash, &bytes, records);
    }

    /// Writes a pack, and returns its path.
    fn add(&self, hash: [u8; 32], bytes: &[u8], records: Vec<PackRecord>) -> Option<PathBuf> {
        let path = self.folder.join(&*blake3::Hash::from_bytes(hash).to_hex());
        match self.write(&path, bytes) {
            Ok(stamp) => {
                locks::write(&self.index).add(path.clone(), stamp, records);
                Some(path)
            }
            Err(error) => {
                self.warn(Trouble::Unwritable, &path, &error);
                None
            }
        }
    }

    /// Has one pack take the place of short ones: each change leaves one, and a start reads them all.
    /// A process that looks for one that is gone makes again what was in it.
    fn merge(&self, short: &[PathBuf]) {
        let mut merged = PackBuilder::default();
        let mut replaced = Vec::new();
        for path in short {
            if merged.length() >= self.pack_length() {
                break;
            }
            match read_whole(path) {
                Ok(entries) => {
                    for (name, bytes) in &entries {
                        merged.push_bytes(name, bytes);
                    }
                    replaced.push(path);
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidData => self.discard(path),
                // What can't be read now is left as it is.
                Err(_) => {}
            }
        }
        if merged.is_empty() {
            return;
        }
        let (bytes, hash, records) = merged.finish();
        let Some(path) = self.add(hash, &bytes, records) else {
            return;
        };
        for old in replaced.into_iter().filter(|old| **old != path) {
            let _ = remove(old);
        }
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<PackStamp> {
        let (new, mut file) = self.create()?;
        let written = seam::pass(Call::Write)
            .and_then(|()| file.write_all(bytes))
            .and_then(|()| PackStamp::of(&file.metadata()?))
            .and_then(|stamp| {
                seam::pass(Call::Rename)?;
                fs::rename(&new, path)?;
                Ok(stamp)
            });
        if written.is_err() {
            let _ = remove(&new);
        }
        written
    }

    /// A new file in the folder, with its path.
    fn create(&self) -> io::Result<(PathBuf, File)> {
        loop {
            let number = self.made.fetch_add(1, Ordering::Relaxed);
            let name = format!("{}{}-{number}", eviction::NEW_PREFIX, std::process::id());
            let path = self.folder.join(name);
            seam::pass(Call::Make)?;
            match File::create_new(&path) {
                Ok(file) => return Ok((path, file)),
                // Of a process with the same number, in another container.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
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
    match resolved_path(directory).starts_with(root) {
        true => Err(CacheError::Served {
            directory: directory.to_path_buf(),
            root: root.to_path_buf(),
        }),
        false => Ok(()),
    }
}

/// The entries of a pack, as they are written.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] where one of them is not proven: in the place of an equal one that
/// is, it would outlast it.
fn read_whole(path: &Path) -> io::Result<Vec<(EntryName, Vec<u8>)>> {
    seam::pass(Call::Open)?;
    let file = File::open(path)?;
    let records = read_directory(&file, file.metadata()?.len())?;
    let records = records.ok_or(io::ErrorKind::InvalidData)?;
    let read = |record: PackRecord| {
        let mut bytes = vec![0; record.length as usize];
        read_exact_at(&file, &mut bytes, record.offset)?;
        match CacheEntry::read(&record.name, bytes.clone()) {
            Some(_) => Ok((record.name, bytes)),
            None => Err(io::ErrorKind::InvalidData.into()),
        }
    };
    records.into_iter().map(read).collect()
}

fn remove(path: &Path) -> io::Result<()> {
    seam::pass(Call::Remove)?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::sync::{Arc, Barrier};
    use std::thread;
    use std::time::SystemTime;

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
        Cache::open(&place.path().join(path), Some(&root), limit)
    }

    fn entry(byte: u8, length: usize) -> CacheEntry {
        CacheEntry::new([&vec![byte; length][..]])
    }

    /// The files of the directory, by their names.
    fn files(cache: &Cache) -> Vec<PathBuf> {
        let files = fs::read_dir(cache.folder()).expect("listed");
        files.map(|file| file.expect("a file").path()).collect()
    }

    fn name(number: usize) -> EntryName {
        *blake3::hash(&number.to_le_bytes()).as_bytes()
    }

    /// Has it be as old as this.
    fn age(path: &Path, seconds: u64) {
        let file = File::options().write(true).open(path);
        let at = SystemTime::now() - Duration::from_secs(seconds);
        file.and_then(|file| file.set_modified(at)).expect("dated");
    }

    #[test]
    fn what_one_process_keeps_another_gets() {
        let place = place();
        let one = open(&place, "deep/cache", LIMIT).expect("opened");
        assert_eq!(one.get(&NAME), None);
        one.put(&NAME, &entry(7, 5000));
        assert_eq!(one.get(&NAME), Some(entry(7, 5000)), "before it is written");
        one.rest();
        for cache in [&one, &open(&place, "deep/cache", LIMIT).expect("opened")] {
            assert_eq!(cache.get(&NAME), Some(entry(7, 5000)));
            assert_eq!(cache.get(&[2; 32]), None);
        }
        assert_eq!(files(&one).len(), 1);
        let tag = fs::read_to_string(place.path().join("deep/cache/CACHEDIR.TAG"));
        assert!(
            tag.expect("a tag")
                .starts_with("Signature: 8a477f597d28d172789f06886806bc55")
        );
        let mode = fs::metadata(one.folder()).expect("there").mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn what_another_process_has_written_since_is_found_after_a_while() {
        let place = place();
        let [one, other] = [0, 1].map(|_| open(&place, "cache", LIMIT).expect("opened"));
        assert!(other.outdate(Duration::from_secs(60)), "never listed");
        assert_eq!(other.get(&NAME), None);
        one.put(&NAME, &entry(7, 50));
        assert!(one.has(&NAME), "before it is written");
        one.flush();
        assert!(!other.outdate(Duration::from_secs(60)));
        assert!(!other.has(&NAME), "looked at a moment ago");
        assert!(other.outdate(Duration::ZERO));
        assert!(other.has(&NAME));
        assert_eq!(other.get(&NAME), Some(entry(7, 50)));
    }

    #[test]
    fn what_is_kept_is_not_pushed_out_and_is_proven() {
        let place = place();
        let cache = open(&place, "cache", LIMIT).expect("opened");
        assert_eq!(cache.kept(&NAME), None);
        cache.keep(&NAME, &entry(1, LIMIT as usize));
        cache.keep(&NAME, &entry(2, 10));
        for number in 0..100 {
            cache.put(&name(number), &entry(3, LIMIT as usize / 32));
        }
        cache.rest();
        let other = open(&place, "cache", LIMIT).expect("opened");
        assert_eq!(other.kept(&NAME), Some(entry(2, 10)));
        assert_eq!(other.get(&NAME), None);
        let path = cache.kept_path(&NAME);
        let mut bytes = fs::read(&path).expect("read");
        bytes[3] ^= 1;
        fs::write(&path, bytes).expect("written");
        assert_eq!(other.kept(&NAME), None);
        assert!(!path.exists());
    }

    #[test]
    fn its_limit_holds_while_many_threads_write() {
        const THREADS: usize = 8;
        let place = place();
        let cache = open(&place, "cache", LIMIT).expect("opened");
        let start = Barrier::new(THREADS);
        for round in 0..20 {
            thread::scope(|scope| {
                for thread in 0..THREADS {
                    let (cache, start) = (&cache, &start);
                    scope.spawn(move || {
                        start.wait();
                        let number = round * THREADS + thread;
                        cache.put(&name(number), &entry(number as u8, LIMIT as usize / 8));
                        cache.flush();
                    });
                }
            });
            let lengths = files(&cache)
                .into_iter()
                .map(|path| fs::metadata(path).expect("there").len());
            assert!(lengths.sum::<u64>() <= LIMIT);
        }
    }

    #[test]
    fn what_has_waited_is_written_without_more() {
        let place = place();
        let cache = open(&place, "cache", LIMIT).expect("opened");
        cache.put(&NAME, &entry(7, 50));
        cache.flush_late();
        assert_eq!(files(&cache).len(), 0, "it may get company");
        let long_ago = Instant::now().checked_sub(MAX_DELAY).expect("an uptime");
        lock(&cache.next).since = Some(long_ago);
        cache.flush_late();
        assert_eq!(files(&cache).len(), 1);
        cache.flush_late();
        assert_eq!(files(&cache).len(), 1, "nothing waits");
    }

    #[test]
    fn many_entries_lie_in_few_files() {
        let place = place();
        let cache = open(&place, "cache", 1 << 30).expect("opened");
        for number in 0..1000 {
            cache.put(&name(number), &entry(number as u8, 5000));
        }
        cache.rest();
        let few = files(&cache).len();
        // More than the five of 1 MiB where it takes seconds.
        assert!((1..100).contains(&few), "{few} files");
        for number in 0..1000 {
            assert_eq!(cache.get(&name(number)), Some(entry(number as u8, 5000)));
        }
    }

    #[test]
    fn what_is_damaged_is_none_and_goes() {
        let place = place();
        let cache = open(&place, "cache", LIMIT).expect("opened");
        let put = || {
            cache.put(&NAME, &entry(7, 5000));
            cache.rest();
            files(&cache).pop().expect("a pack")
        };
        let whole = fs::read(put()).expect("read");
        let flipped = |place: usize| {
            let mut bytes = whole.clone();
            bytes[place] ^= 1;
            bytes
        };
        let last = whole.len() - 1;
        for damaged in [
            Vec::new(),
            b"short".to_vec(),
            whole[..last].to_vec(),
            flipped(10),
            flipped(last),
            flipped(last - 60),
        ] {
            let path = put();
            fs::write(&path, damaged).expect("written");
            // The clock of a file system may not have gone on since.
            age(&path, 10);
            assert_eq!(cache.get(&NAME), None);
            assert!(!path.exists());
        }
        // What shows only when it is read, because nothing says that the pack is another one.
        let path = put();
        assert!(cache.get(&NAME).is_some());
        let dated = fs::metadata(&path).and_then(|it| it.modified());
        fs::write(&path, flipped(10)).expect("written");
        let file = File::options().write(true).open(&path).expect("opened");
        file.set_modified(dated.expect("a date")).expect("dated");
        assert_eq!(cache.get(&NAME), None);
        assert!(!path.exists());
        // What somebody else has put there is left alone.
        fs::write(cache.folder().join("note"), "mine").expect("written");
        put();
        assert_eq!(cache.get(&NAME), Some(entry(7, 5000)));
        assert!(cache.folder().join("note").exists());
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let place = place();
        let cache = open(&place, "cache", LIMIT).expect("opened");
        let length = LIMIT as usize / 32;
        let put = |number: usize| {
            let before = files(&cache);
            cache.put(&name(number), &entry(number as u8, length));
            cache.rest();
            let new = files(&cache).into_iter().find(|it| !before.contains(it));
            new.expect("a pack")
        };
        for number in 0..28 {
            age(&put(number), 1_000_000 - number as u64 * 1000);
        }
        // Used again, after so long that it is noted.
        assert!(cache.get(&name(3)).is_some());
        cache.rest();
        for number in 28..40 {
            put(number);
        }
        let files = files(&cache);
        let lengths = files
            .iter()
            .map(|path| fs::metadata(path).expect("there").len());
        let total: u64 = lengths.sum();
        assert!(total <= LIMIT, "{total}");
        let is_there = |number| cache.get(&name(number)).is_some();
        assert!(is_there(3) && is_there(39) && !is_there(0) && !is_there(1));
    }

    #[test]
    fn a_look_reads_only_the_packs_that_are_new() {
        let place = place();
        let [mut cache, other] = [(); 2].map(|()| open(&place, "cache", LIMIT).expect("opened"));
        for number in 0..40 {
            other.put(&name(number), &entry(number as u8, 100));
            other.rest();
        }
        let opened = |look: &(dyn Fn(&Cache) + Sync)| {
            let count = Arc::new(AtomicU64::new(0));
            let counted = Arc::clone(&count);
            let gate = move |call| {
                counted.fetch_add(u64::from(call == Call::Open), Ordering::Relaxed);
                Ok(())
            };
            seam::run(gate, || {
                look(&cache);
                cache.rest();
            });
            count.load(Ordering::Relaxed)
        };
        let unknown = |cache: &Cache| assert_eq!(cache.get(&NAME), None);
        assert_eq!(opened(&unknown), 40);
        assert_eq!(opened(&unknown), 0);
        other.put(&NAME, &entry(7, 100));
        other.rest();
        // Its directory, and then the entry.
        let new = |cache: &Cache| assert_eq!(cache.get(&NAME), Some(entry(7, 100)));
        assert_eq!(opened(&new), 2);
        assert_eq!(opened(&new), 1);
        // What the process writes itself it knows.
        let own = |cache: &Cache| cache.put(&[2; 32], &entry(2, 100));
        assert_eq!(opened(&own), 0);
        let own = |cache: &Cache| assert_eq!(cache.get(&[2; 32]), Some(entry(2, 100)));
        assert_eq!(opened(&own), 1);
        // What is gone is forgotten.
        for file in files(&other) {
            fs::remove_file(file).expect("removed");
        }
        assert_eq!(opened(&unknown), 0);
        let index = cache.index.get_mut().expect("unpoisoned");
        assert!(index.is_empty());
    }

    #[test]
    fn a_damaged_entry_is_not_merged_in_the_place_of_a_good_one() {
        let place = place();
        let cache = open(&place, "cache", LIMIT).expect("opened");
        cache.put(&NAME, &entry(7, 100));
        cache.rest();
        let damaged = files(&cache).pop().expect("a pack");
        let mut bytes = fs::read(&damaged).expect("read");
        bytes[10] ^= 1;
        fs::write(&damaged, bytes).expect("written");
        age(&damaged, 1000);
        for number in 0..=MAX_SHORT_PACKS {
            cache.put(&name(number), &entry(number as u8, 100));
            // As another process would that has not read the first one.
            if number == 0 {
                cache.put(&NAME, &entry(7, 100));
            }
            cache.rest();
        }
        assert!(files(&cache).len() < MAX_SHORT_PACKS, "nothing was merged");
        let other = open(&place, "cache", LIMIT).expect("opened");
        assert_eq!(other.get(&NAME), Some(entry(7, 100)));
        assert_eq!(other.get(&name(9)), Some(entry(9, 100)));
    }

    #[test]
    fn what_many_changes_leave_is_merged() {
        let place = place();
        let cache = open(&place, "cache", LIMIT).expect("opened");
        let other = open(&place, "cache", LIMIT).expect("opened");
        let changes = 3 * MAX_SHORT_PACKS;
        for number in 0..changes {
            cache.put(&name(number), &entry(number as u8, 100));
            cache.rest();
            assert_eq!(other.get(&name(0)), Some(entry(0, 100)), "{number}");
            other.rest();
        }
        let left = files(&cache).len();
        assert!(left <= MAX_SHORT_PACKS + 2, "{left} files");
        for number in 0..changes {
            assert_eq!(cache.get(&name(number)), Some(entry(number as u8, 100)));
        }
    }

    #[test]
    fn what_a_killed_process_was_writing_goes_after_a_while() {
        let place = place();
        let cache = open(&place, "cache", LIMIT).expect("opened");
        let [young, old] = ["new-1-1", "new-1-2"].map(|name| cache.folder().join(name));
        for (path, seconds) in [(&young, 10), (&old, 4000)] {
            File::create(path).expect("made");
            age(path, seconds);
        }
        cache.put(&NAME, &entry(7, 10));
        cache.rest();
        assert!(young.exists() && !old.exists());
        assert!(cache.get(&NAME).is_some());
    }

    #[test]
    fn what_other_versions_keep_is_theirs() {
        let place = place();
        let cache = open(&place, "cache", LIMIT).expect("opened");
        let pack = |version: &str| {
            let folder = place.path().join("cache").join(version);
            fs::create_dir_all(&folder).expect("made");
            folder.join(&*blake3::hash(version.as_bytes()).to_hex())
        };
        let others = ["v1", "v3", "v2.1"].map(pack);
        for other in &others {
            fs::write(other, vec![7; 4 * LIMIT as usize]).expect("written");
            age(other, 100_000);
        }
        // More than there is room for.
        for number in 0..100 {
            cache.put(&name(number), &entry(8, 50_000));
        }
        cache.rest();
        assert!(cache.get(&name(99)).is_some(), "their files take no room");
        assert!(cache.get(&name(0)).is_none());
        for other in &others {
            let length = fs::metadata(other).expect("there").len();
            assert_eq!(length, 4 * LIMIT, "{}", other.display());
        }
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
        cache.rest();
        for (at, number) in [
            (Call::Make, Errno::ROFS),
            (Call::Write, Errno::NOSPC),
            (Call::Rename, Errno::IO),
            (Call::List, Errno::IO),
        ] {
            let fail = move |call| match call == at {
                true => Err(number.into()),
                false => Ok(()),
            };
            let cache = open(&place, "cache", LIMIT).expect("opened");
            assert!(cache.get(&NAME).is_some());
            seam::run(fail, || {
                cache.put(&[2; 32], &entry(8, 10));
                assert_eq!(cache.get(&[2; 32]), Some(entry(8, 10)), "{at:?}");
                assert_eq!(cache.get(&NAME), Some(entry(7, 10)), "{at:?}");
                cache.rest();
            });
            assert_eq!(cache.get(&NAME), Some(entry(7, 10)), "{at:?}");
            let is_new = |path: &PathBuf| path.to_string_lossy().contains("new-");
            assert!(!files(&cache).iter().any(is_new), "{at:?}");
        }
        for at in [Call::Open, Call::Read] {
            let fail = move |call| match call == at {
                true => Err(Errno::IO.into()),
                false => Ok(()),
            };
            let cache = open(&place, "cache", LIMIT).expect("opened");
            seam::run(fail, || assert_eq!(cache.get(&NAME), None));
        }
    }
}

//! Where in which pack each entry is.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use super::entry::EntryName;
use super::eviction::{FoundPack, PackStamp};
use super::pack::{PackRecord, read_directory};
use crate::disk::read_exact_at;
use crate::disk::seam::{self, Call};
use crate::locks::lock;

/// Packs that are kept open. A start reads entries more or less in the order in which an earlier one
/// has written them.
const MAX_OPEN: usize = 16;
/// A pack that is used is marked so again after this time. LRU needs no finer grain.
const MARK_INTERVAL: Duration = Duration::from_secs(24 * 3600);
/// More entries are not remembered between looks. So many take up about 20 MiB.
const MAX_KEPT_ENTRIES: usize = 1 << 18;

/// Where in which pack each entry is.
#[derive(Debug, Default)]
pub(super) struct PackIndex {
    /// The packs that are known, by their numbers.
    packs: HashMap<u32, Pack>,
    /// The number of the next pack.
    next: u32,
    entries: HashMap<ShortName, EntrySlot>,
    /// Packs that are open, by their number.
    open: Mutex<VecDeque<(u32, Arc<File>)>>,
    /// Whether the folder was listed since the last look began.
    pub(super) is_current: bool,
    /// When it was listed.
    pub(super) listed: Option<Instant>,
}

/// The first half of a name. Names are hashes, so that no two of them share it, and if they did, the
/// proof of the entry, which covers the whole name, would fail.
type ShortName = [u8; 16];

#[derive(Debug)]
struct Pack {
    path: PathBuf,
    stamp: PackStamp,
    is_marked: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
struct EntrySlot {
    pack: u32,
    length: u32,
    offset: u64,
}

impl PackIndex {
    /// Forgets the packs that are not among these any more, with what is in them.
    pub(super) fn forget_others(&mut self, found: &[FoundPack]) {
        let found: HashMap<&Path, PackStamp> = found
            .iter()
            .map(|found| (&*found.path, found.stamp))
            .collect();
        self.retain(|pack| found.get(&*pack.path) == Some(&pack.stamp));
    }

    /// Forgets the pack at this path: it is damaged.
    pub(super) fn forget(&mut self, path: &Path) {
        self.retain(|pack| pack.path != path);
    }

    fn retain(&mut self, is_kept: impl Fn(&Pack) -> bool) {
        let before = self.packs.len();
        self.packs.retain(|_, pack| is_kept(pack));
        if self.packs.len() < before {
            let packs = &self.packs;
            self.entries
                .retain(|_, slot| packs.contains_key(&slot.pack));
            lock(&self.open).retain(|(number, _)| packs.contains_key(number));
        }
    }

    /// Which of these packs are not known yet.
    pub(super) fn unknown(&self, mut found: Vec<FoundPack>) -> Vec<FoundPack> {
        let known: HashMap<&Path, PackStamp> = (self.packs.values())
            .map(|pack| (&*pack.path, pack.stamp))
            .collect();
        found.retain(|found| known.get(&*found.path) != Some(&found.stamp));
        found
    }

    /// Adds a pack that was found. Returns whether it is one.
    ///
    /// # Errors
    /// When it can't be read.
    pub(super) fn add_file(&mut self, found: FoundPack) -> io::Result<bool> {
        seam::pass(Call::Open)?;
        let file = File::open(&found.path)?;
        let records = read_directory(&file, file.metadata()?.len())?;
        let is_pack = records.is_some();
        if let Some(records) = records {
            self.add(found.path, found.stamp, records);
        }
        Ok(is_pack)
    }

    /// Adds a pack with these entries.
    pub(super) fn add(&mut self, path: PathBuf, stamp: PackStamp, records: Vec<PackRecord>) {
        let number = self.next_number();
        self.packs.insert(
            number,
            Pack {
                path,
                stamp,
                is_marked: AtomicBool::new(false),
            },
        );
        let slots = records.into_iter().filter_map(|record| {
            let slot = EntrySlot {
                pack: number,
                // A longer one is none of etagd's.
                length: u32::try_from(record.length).ok()?,
                offset: record.offset,
            };
            Some((shorten(&record.name), slot))
        });
        self.entries.extend(slots);
    }

    /// A number that no pack has. After the last one they begin again: of a pack that is forgotten
    /// nothing has its number any more.
    fn next_number(&mut self) -> u32 {
        while self.packs.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        number
    }

    /// Whether there is an entry of this name.
    pub(super) fn has(&self, name: &EntryName) -> bool {
        self.entries.contains_key(&shorten(name))
    }

    /// The bytes of an entry, and the pack that they are in.
    pub(super) fn read(&self, name: &EntryName) -> Option<(PathBuf, io::Result<Vec<u8>>)> {
        let slot = *self.entries.get(&shorten(name))?;
        let pack = self.packs.get(&slot.pack)?;
        let read = || {
            let file = self.open(slot.pack, pack)?;
            let mut bytes = vec![0; slot.length as usize];
            read_exact_at(&file, &mut bytes, slot.offset)?;
            Ok(bytes)
        };
        Some((pack.path.clone(), read()))
    }

    fn open(&self, number: u32, pack: &Pack) -> io::Result<Arc<File>> {
        let known = lock(&self.open)
            .iter()
            .find(|(open, _)| *open == number)
            .cloned();
        if let Some((_, file)) = known {
            return Ok(file);
        }
        seam::pass(Call::Open)?;
        let file = Arc::new(File::open(&pack.path)?);
        pack.mark();
        let mut open = lock(&self.open);
        if open.len() >= MAX_OPEN {
            open.pop_front();
        }
        open.push_back((number, Arc::clone(&file)));
        Ok(file)
    }

    /// Closes all packs, and has the folder be listed before the next read. What is in the packs stays
    /// known, unless that is too much.
    pub(super) fn rest(&mut self) {
        lock(&self.open).clear();
        self.is_current = false;
        if self.entries.len() > MAX_KEPT_ENTRIES {
            self.packs = HashMap::new();
            self.entries = HashMap::new();
        }
    }
}

#[cfg(test)]
impl PackIndex {
    /// Whether nothing is known.
    pub(super) fn is_empty(&self) -> bool {
        self.packs.is_empty() && self.entries.is_empty()
    }
}

fn shorten(name: &EntryName) -> ShortName {
    let mut short = ShortName::default();
    short.copy_from_slice(&name[..size_of::<ShortName>()]);
    short
}

impl Pack {
    /// Makes it one that is used. Where that is not allowed, it only goes sooner. The next look reads its
    /// directory again, which it does not tell from a change.
    fn mark(&self) {
        let used = self.stamp.used;
        let is_old = used.elapsed().is_ok_and(|age| age > MARK_INTERVAL);
        if is_old && !self.is_marked.swap(true, Ordering::Relaxed) {
            let file = File::options().write(true).open(&self.path);
            let _ = file.and_then(|file| file.set_modified(SystemTime::now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp() -> PackStamp {
        let directory = tempfile::tempdir().expect("a directory");
        let metadata = directory.path().metadata();
        metadata.and_then(|it| PackStamp::of(&it)).expect("a stamp")
    }

    fn record(number: usize) -> PackRecord {
        PackRecord {
            name: *blake3::hash(&number.to_le_bytes()).as_bytes(),
            offset: 0,
            length: 1,
        }
    }

    #[test]
    fn the_numbers_of_packs_begin_again_and_each_entry_stays_in_its_pack() {
        let (mut index, stamp) = (PackIndex::default(), stamp());
        let packs = ["first", "second", "gone", "last", "after it", "next"];
        for (number, pack) in packs.into_iter().enumerate() {
            if pack == "last" {
                index.forget(Path::new("gone"));
                index.next = u32::MAX;
            }
            index.add(pack.into(), stamp, vec![record(number)]);
        }
        for (number, pack) in packs.into_iter().enumerate() {
            let found = index.read(&record(number).name).map(|(path, _)| path);
            let expected = (pack != "gone").then(|| PathBuf::from(pack));
            assert_eq!(found, expected, "{pack}");
        }
    }

    #[test]
    fn what_is_remembered_between_looks_is_bounded() {
        let stamp = stamp();
        let mut index = PackIndex::default();
        let records = (0..MAX_KEPT_ENTRIES).map(record).collect();
        index.add("one".into(), stamp, records);
        index.rest();
        assert_eq!(index.entries.len(), MAX_KEPT_ENTRIES);
        index.add("two".into(), stamp, vec![record(MAX_KEPT_ENTRIES)]);
        index.rest();
        assert!(index.is_empty() && index.entries.capacity() == 0);
    }
}

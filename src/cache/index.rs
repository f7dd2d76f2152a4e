//! Where in which pack each entry is.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::entry::EntryName;
use super::eviction::FoundPack;
use super::pack::{PackRecord, read_directory};
use crate::disk::read_exact_at;
use crate::disk::seam::{self, Call};

/// Packs that are kept open. A start reads entries more or less in the order in which an earlier one
/// has written them.
const MAX_OPEN: usize = 16;
/// A pack that is used is marked so again after this time. LRU needs no finer grain.
const MARK_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// Where in which pack each entry is.
#[derive(Debug, Default)]
pub(super) struct PackIndex {
    packs: Vec<Pack>,
    entries: HashMap<EntryName, EntrySlot>,
    /// Packs that are open, by their number.
    open: Mutex<VecDeque<(u32, Arc<File>)>>,
}

#[derive(Debug)]
struct Pack {
    path: PathBuf,
    /// When it was last marked as used.
    used: SystemTime,
    is_marked: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
struct EntrySlot {
    pack: u32,
    length: u32,
    offset: u64,
}

impl PackIndex {
    /// Adds a pack that was found. Returns whether it is one.
    ///
    /// # Errors
    /// When it can't be read.
    pub(super) fn add_file(&mut self, found: &FoundPack) -> io::Result<bool> {
        seam::pass(Call::Open)?;
        let file = File::open(&found.path)?;
        let records = read_directory(&file, file.metadata()?.len())?;
        let is_pack = records.is_some();
        if let Some(records) = records {
            self.add(found.path.clone(), found.used, records);
        }
        Ok(is_pack)
    }

    /// Adds a pack with these entries.
    pub(super) fn add(&mut self, path: PathBuf, used: SystemTime, records: Vec<PackRecord>) {
        let pack = self.packs.len() as u32;
        self.packs.push(Pack {
            path,
            used,
            is_marked: AtomicBool::new(false),
        });
        let places = records.into_iter().filter_map(|record| {
            let place = EntrySlot {
                pack,
                // A longer one is none of etagd's.
                length: u32::try_from(record.length).ok()?,
                offset: record.offset,
            };
            Some((record.name, place))
        });
        self.entries.extend(places);
    }

    /// The bytes of an entry, and the pack that they are in.
    pub(super) fn read(&self, name: &EntryName) -> Option<(&Path, io::Result<Vec<u8>>)> {
        let place = *self.entries.get(name)?;
        let pack = self.packs.get(place.pack as usize)?;
        let read = || {
            let file = self.open(place.pack, pack)?;
            let mut bytes = vec![0; place.length as usize];
            read_exact_at(&file, &mut bytes, place.offset)?;
            Ok(bytes)
        };
        Some((&pack.path, read()))
    }

    fn open(&self, number: u32, pack: &Pack) -> io::Result<Arc<File>> {
        let lock = || self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lock().iter().find(|(open, _)| *open == number).cloned();
        if let Some((_, file)) = known {
            return Ok(file);
        }
        seam::pass(Call::Open)?;
        let file = Arc::new(File::open(&pack.path)?);
        pack.mark();
        let mut open = lock();
        if open.len() >= MAX_OPEN {
            open.pop_front();
        }
        open.push_back((number, Arc::clone(&file)));
        Ok(file)
    }
}

impl Pack {
    /// Makes it one that is used. Where that is not allowed, it only goes sooner.
    fn mark(&self) {
        let is_old = self.used.elapsed().is_ok_and(|age| age > MARK_INTERVAL);
        if is_old && !self.is_marked.swap(true, Ordering::Relaxed) {
            let file = File::options().write(true).open(&self.path);
            let _ = file.and_then(|file| file.set_modified(SystemTime::now()));
        }
    }
}

//! The bytes of a pack, the file that entries lie in, and its directory, which says where. Pure, but
//! for the reading of the directory.
//!
//! The entries come first, one after another. All numbers are little-endian.
//!
//! | Bytes | What |
//! |---|---|
//! | n | the entries |
//! | 48 each | of each entry: its name (32), where it begins (8), its length (8) |
//! | 4 | how many they are |
//! | 32 | BLAKE3 of the directory: of those 48 bytes of each |
//! | 8 | [`MAGIC`], which has the version |

use std::collections::HashMap;
use std::fs::File;
use std::io;

use super::entry::{CacheEntry, EntryName};
use crate::disk::read_exact_at;

/// The end of each file. Another format gets another one.
const MAGIC: &[u8; 8] = b"etagdP2\n";
/// The length of what the directory has of one entry.
const RECORD_LENGTH: usize = 32 + 8 + 8;
/// The length of what follows the directory.
const END_LENGTH: usize = 4 + 32 + MAGIC.len();
/// What hashes of this kind are told from others by.
const CONTEXT: &str = "etagd 2026-11 cache pack";
/// How much of the end of a file is read at first: that has the directory of most packs.
const FIRST_READ: u64 = 16 << 10;

/// An entry of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PackRecord {
    pub(super) name: EntryName,
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// A pack that is not written yet.
#[derive(Debug, Default)]
pub(super) struct PackBuilder {
    bytes: Vec<u8>,
    records: Vec<PackRecord>,
    /// Where in the records each entry is.
    places: HashMap<EntryName, usize>,
}

impl PackBuilder {
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The length of the entries.
    pub(super) fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Adds an entry, as [`CacheEntry::write`] writes it.
    pub(super) fn push(&mut self, name: &EntryName, entry: &CacheEntry) {
        let offset = self.length();
        // A vector takes everything.
        let _ = entry.write(name, &mut self.bytes);
        self.add(name, offset);
    }

    /// Adds an entry that was read.
    pub(super) fn push_bytes(&mut self, name: &EntryName, bytes: &[u8]) {
        if !self.places.contains_key(name) {
            let offset = self.length();
            self.bytes.extend_from_slice(bytes);
            self.add(name, offset);
        }
    }

    fn add(&mut self, name: &EntryName, offset: u64) {
        self.places.insert(*name, self.records.len());
        self.records.push(PackRecord {
            name: *name,
            offset,
            length: self.length() - offset,
        });
    }

    /// The bytes of an entry.
    pub(super) fn get(&self, name: &EntryName) -> Option<&[u8]> {
        let PackRecord { offset, length, .. } = self.records[*self.places.get(name)?];
        self.bytes.get(offset as usize..(offset + length) as usize)
    }

    /// Adds the directory. What comes back is what a file has, its name, and what is in it.
    pub(super) fn finish(self) -> (Vec<u8>, [u8; 32], Vec<PackRecord>) {
        let (mut bytes, start) = (self.bytes, self.records.len());
        let directory = bytes.len();
        for record in &self.records {
            bytes.extend_from_slice(&record.name);
            bytes.extend_from_slice(&record.offset.to_le_bytes());
            bytes.extend_from_slice(&record.length.to_le_bytes());
        }
        let hash = blake3::derive_key(CONTEXT, &bytes[directory..]);
        // As many as fit into memory with their content.
        bytes.extend_from_slice(&(start as u32).to_le_bytes());
        bytes.extend_from_slice(&hash);
        bytes.extend_from_slice(MAGIC);
        (bytes, hash, self.records)
    }
}

/// What is in a pack of this length, if it is whole.
///
/// # Errors
/// Those of the file.
pub(super) fn read_directory(file: &File, length: u64) -> io::Result<Option<Vec<PackRecord>>> {
    let end = read_end(file, length, length.min(FIRST_READ))?;
    let Some(needed) = end_length(&end) else {
        return Ok(None);
    };
    let end = match needed {
        _ if needed <= end.len() as u64 => end,
        _ if needed <= length => read_end(file, length, needed)?,
        _ => return Ok(None),
    };
    Ok(parse(&end, length))
}

fn read_end(file: &File, length: u64, wanted: u64) -> io::Result<Vec<u8>> {
    let mut end = vec![0; wanted as usize];
    read_exact_at(file, &mut end, length - wanted)?;
    Ok(end)
}

/// The length of the directory and what follows it, by the last bytes of a file.
fn end_length(end: &[u8]) -> Option<u64> {
    let rest = end.strip_suffix(MAGIC)?;
    let (rest, _) = rest.split_last_chunk::<32>()?;
    let (_, count) = rest.split_last_chunk::<4>()?;
    Some(u64::from(u32::from_le_bytes(*count)) * RECORD_LENGTH as u64 + END_LENGTH as u64)
}

/// The directory that these last bytes of a file have, which has this length.
fn parse(end: &[u8], length: u64) -> Option<Vec<PackRecord>> {
    let needed = end_length(end)?;
    let end = &end[end.len().checked_sub(needed as usize)?..];
    let (directory, rest) = end.split_at_checked(end.len() - END_LENGTH)?;
    let hash: [u8; 32] = rest.get(4..36)?.try_into().ok()?;
    if blake3::derive_key(CONTEXT, directory) != hash {
        return None;
    }
    let content = length - needed;
    let mut records = Vec::with_capacity(directory.len() / RECORD_LENGTH);
    for record in directory.as_chunks::<RECORD_LENGTH>().0 {
        let (name, rest) = record.split_first_chunk::<32>()?;
        let (offset, rest) = rest.split_first_chunk::<8>()?;
        let record = PackRecord {
            name: *name,
            offset: u64::from_le_bytes(*offset),
            length: u64::from_le_bytes(rest.try_into().ok()?),
        };
        if record.offset.checked_add(record.length)? > content {
            return None;
        }
        records.push(record);
    }
    Some(records)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn name(number: usize) -> EntryName {
        *blake3::hash(&number.to_le_bytes()).as_bytes()
    }

    fn pack(entries: usize) -> (Vec<u8>, Vec<PackRecord>) {
        let mut pack = PackBuilder::default();
        for number in 0..entries {
            pack.push(&name(number), &CacheEntry::new([&vec![7; number % 50][..]]));
        }
        let (bytes, _, records) = pack.finish();
        (bytes, records)
    }

    fn read(bytes: &[u8]) -> Option<Vec<PackRecord>> {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(bytes).expect("written");
        read_directory(&file, bytes.len() as u64).expect("read")
    }

    #[test]
    fn what_is_in_a_pack_is_found() {
        // The last one's directory is longer than what is read at first.
        for entries in [0, 1, 2, 100, 2000] {
            let (bytes, records) = pack(entries);
            assert_eq!(records.len(), entries);
            let found = read(&bytes).expect("whole");
            assert_eq!(found, records);
            for (number, record) in found.iter().enumerate() {
                let range = record.offset as usize..(record.offset + record.length) as usize;
                let entry = CacheEntry::read(&record.name, bytes[range].to_vec());
                let piece = entry.expect("proven").bytes;
                assert_eq!((record.name, piece), (name(number), vec![7; number % 50]));
            }
        }
    }

    #[test]
    fn a_damaged_directory_is_none() {
        let (bytes, records) = pack(3);
        let directory = bytes.len() - 3 * RECORD_LENGTH - END_LENGTH;
        for place in directory..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 1;
            assert_eq!(read(&damaged), None, "{place}");
        }
        for length in 0..bytes.len() {
            assert_eq!(read(&bytes[..length]), None, "{length}");
        }
        // What is longer at its beginning has other entries where the directory says.
        let longer = [&[0; 5], &bytes[..]].concat();
        assert_eq!(read(&longer), Some(records));
    }
}

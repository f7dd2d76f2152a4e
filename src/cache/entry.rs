//! The bytes of an entry's file: pieces, and what proves them. Pure.
//!
//! The pieces come first, one after another, and then what is needed to tell them apart and to prove
//! them. All numbers are little-endian.
//!
//! | Bytes | What |
//! |---|---|
//! | n | the pieces |
//! | 8 each | their lengths |
//! | 4 | how many they are |
//! | 32 | BLAKE3 of the name, the lengths and the BLAKE3 of each piece |
//! | 8 | [`MAGIC`], which has the version |

use std::io::{self, Write};
use std::ops::Range;

/// The end of each file. Another format gets another one.
const MAGIC: &[u8; 8] = b"etagdC1\n";
/// The length of what follows the pieces' lengths.
const END_LENGTH: usize = 4 + 32 + MAGIC.len();
/// What hashes of this kind are told from others by.
const CONTEXT: &str = "etagd 2026-11 cache entry";
/// More pieces are not what etagd writes.
const MAX_PIECES: usize = 1 << 16;

/// What an entry is known by: a hash of everything that its pieces depend on.
pub type EntryName = [u8; 32];

/// An entry that was read, each of its pieces proven.
#[derive(Debug, PartialEq, Eq)]
pub struct CacheEntry {
    /// The pieces, one after another.
    pub bytes: Vec<u8>,
    /// Where each is.
    pub pieces: Vec<EntryPiece>,
}

/// A part of an entry, and its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryPiece {
    /// Where it is in [`CacheEntry::bytes`].
    pub range: Range<usize>,
    /// Its BLAKE3, computed from these bytes.
    pub hash: [u8; 32],
}

impl CacheEntry {
    /// An entry of these pieces.
    pub fn new<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut entry = Self {
            bytes: Vec::new(),
            pieces: Vec::new(),
        };
        for piece in pieces {
            let start = entry.bytes.len();
            entry.bytes.extend_from_slice(piece);
            entry.pieces.push(EntryPiece {
                range: start..entry.bytes.len(),
                hash: *blake3::hash(piece).as_bytes(),
            });
        }
        entry
    }

    /// Writes the entry with what proves it.
    ///
    /// # Errors
    /// Those of `out`.
    pub(super) fn write(&self, name: &EntryName, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&self.bytes)?;
        for piece in &self.pieces {
            out.write_all(&(piece.range.len() as u64).to_le_bytes())?;
        }
        // As many as an etagd makes of one file.
        out.write_all(&(self.pieces.len() as u32).to_le_bytes())?;
        out.write_all(&proof(name, &self.pieces))?;
        out.write_all(MAGIC)
    }

    /// The entry that [`CacheEntry::write`] has written under this name; `None` if it is another one, or
    /// damaged.
    pub(super) fn read(name: &EntryName, mut bytes: Vec<u8>) -> Option<Self> {
        let rest = bytes.strip_suffix(MAGIC)?;
        let (rest, written) = rest.split_last_chunk::<32>()?;
        let (rest, count) = rest.split_last_chunk::<4>()?;
        let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
        if count > MAX_PIECES {
            return None;
        }
        let length = rest.len().checked_sub(count * 8)?;
        let (content, lengths) = rest.split_at(length);
        let mut end = 0_usize;
        let mut pieces = Vec::with_capacity(count);
        for length in lengths.as_chunks::<8>().0 {
            let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
            let range = end..end.checked_add(length)?;
            let hash = *blake3::hash(content.get(range.clone())?).as_bytes();
            end = range.end;
            pieces.push(EntryPiece { range, hash });
        }
        if end != content.len() || proof(name, &pieces) != *written {
            return None;
        }
        bytes.truncate(length);
        Some(Self { bytes, pieces })
    }

    /// The length of the file that it is written to.
    pub(super) fn file_length(&self) -> u64 {
        (self.bytes.len() + self.pieces.len() * 8 + END_LENGTH) as u64
    }
}

fn proof(name: &EntryName, pieces: &[EntryPiece]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    hasher.update(name);
    for piece in pieces {
        hasher.update(&(piece.range.len() as u64).to_le_bytes());
        hasher.update(&piece.hash);
    }
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: EntryName = [7; 32];

    fn written(entry: &CacheEntry) -> Vec<u8> {
        let mut bytes = Vec::new();
        entry.write(&NAME, &mut bytes).expect("written");
        assert_eq!(entry.file_length(), bytes.len() as u64);
        bytes
    }

    #[test]
    fn what_is_written_is_read() {
        let cases: [&[&[u8]]; 5] = [
            &[],
            &[b""],
            &[b"one"],
            &[b"", b"two", b""],
            &[b"one", b"two", &[3; 5000]],
        ];
        for pieces in cases {
            let entry = CacheEntry::new(pieces.iter().copied());
            let read = CacheEntry::read(&NAME, written(&entry)).expect("proven");
            assert_eq!(read, entry);
            let content = |piece: &EntryPiece| read.bytes[piece.range.clone()].to_vec();
            let is: Vec<_> = read.pieces.iter().map(content).collect();
            assert_eq!(is, pieces);
        }
    }

    #[test]
    fn damage_anywhere_is_found() {
        let bytes = written(&CacheEntry::new([&b"a piece"[..], b"another one"]));
        for place in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[place] ^= 1 << bit;
                let read = CacheEntry::read(&NAME, damaged);
                assert_eq!(read, None, "bit {bit} of byte {place}");
            }
            assert_eq!(CacheEntry::read(&NAME, bytes[..place].to_vec()), None);
        }
        let longer = [&b"x"[..], &bytes].concat();
        assert_eq!(CacheEntry::read(&NAME, longer), None);
    }

    #[test]
    fn an_entry_under_another_name_is_none() {
        let bytes = written(&CacheEntry::new([&b"a piece"[..]]));
        assert_eq!(CacheEntry::read(&[8; 32], bytes), None);
    }
}

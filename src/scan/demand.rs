//! What is kept of a large file that is replaced while it is in demand.
//!
//! Its bytes are read from the disk when they are asked for. Where it is replaced all the time they
//! are gone by then, whichever version was published last, and every request would have to wait for
//! the next one. So the version that is about to be published keeps its descriptor, through which it
//! stays readable when another file is renamed over it. One that is rewritten in place is read into
//! the cache of proven pieces.

use std::fs::File;
use std::sync::Arc;

use super::hash::{HashedFile, Retained};
use crate::disk::{self, Stamp};
use crate::memory::Memory;
use crate::representation::{GROUP_SIZE, MAX_WHOLE, PieceKey, Resource, group_hash};

/// The part of the memory for content that one file may fill when it is kept.
const MAX_SHARE: u64 = 8;

/// Keeps what was hashed of `file` for the responses that asked for the `old` content of its path.
pub(super) fn keep(
    memory: &Arc<Memory>,
    old: Option<&Resource>,
    file: File,
    stamp: Stamp,
    content: &HashedFile,
) {
    let is_read_later = match &content.form {
        Retained::Whole | Retained::Groups(_) => true,
        Retained::Small(_) | Retained::Tailed { .. } => false,
    };
    let Some(old) = old.filter(|_| is_read_later) else {
        return;
    };
    let before = old.identity.etag.hash();
    if *before == content.hash || !memory.inherit_demand(before, &content.hash) {
        return;
    }
    let is_same_file = (old.stamp.device, old.stamp.inode) == (stamp.device, stamp.inode);
    if is_same_file && stamp.size <= memory.limit() / MAX_SHARE {
        cache(memory, &file, stamp.size, content);
    }
    memory.keep_open(content.hash, &Arc::new(file));
}

/// Reads the pieces of a file into the cache, each proven, until one is not what was hashed.
fn cache(memory: &Arc<Memory>, file: &File, length: u64, content: &HashedFile) {
    let piece_length = match length <= MAX_WHOLE {
        true => length.max(1),
        false => GROUP_SIZE,
    };
    let mut buffer = vec![0; piece_length.min(length) as usize];
    for index in 0..length.div_ceil(piece_length) {
        let offset = index * piece_length;
        let piece = &mut buffer[..piece_length.min(length - offset) as usize];
        if disk::read_exact_at(file, piece, offset).is_err() {
            return;
        }
        let is_proven = match &content.form {
            Retained::Groups(groups) => {
                groups.get(index as usize) == Some(&group_hash(piece, offset))
            }
            _ => blake3::hash(piece) == content.hash,
        };
        if !is_proven {
            return;
        }
        // A scan that found more than 2^32 groups (1 PiB) would have run out of memory.
        let key = PieceKey {
            hash: content.hash,
            whole: length,
            index: index as u32,
        };
        memory.keep_piece(key, piece);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderValue;

    use super::*;
    use crate::representation::{Data, Fields, REVALIDATE, Representation};
    use crate::scan::hash::{self, HashOptions};
    use crate::semantics::coding::Coding;
    use crate::semantics::etag::ETag;

    fn resource(content: &[u8], stamp: Stamp) -> Resource {
        let etag = ETag::new(*blake3::hash(content).as_bytes());
        let data = Data::Memory(Bytes::new());
        let identity = Representation::new(Coding::Identity, etag, content.len() as u64, data);
        let fields = Fields::new(HeaderValue::from_static("text/plain"), REVALIDATE);
        Resource {
            stamp,
            ..Resource::new(b"f".as_slice().into(), Arc::new(fields), identity)
        }
    }

    #[test]
    fn what_is_in_demand_stays_readable_however_it_is_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("f");
        for length in [MAX_WHOLE - 1, MAX_WHOLE + GROUP_SIZE + 7] {
            for (is_same, is_demanded) in [(true, true), (false, true), (true, false)] {
                let memory = Memory::new(64 << 20, 4);
                let content = vec![7; length as usize];
                std::fs::write(&path, &content).expect("written");
                let open = || File::open(&path).expect("opened");
                let stamp = disk::stamp(&open()).expect("a stamp");
                let before = Stamp {
                    inode: stamp.inode + u64::from(!is_same),
                    ..stamp
                };
                let old = resource(b"old", before);
                if is_demanded {
                    memory.note_demand(old.identity.etag.hash());
                }
                let wanted = HashOptions::default();
                let hashed = hash::content(&open(), length, wanted, &|| ()).expect("hashed");
                keep(&memory, Some(&old), open(), stamp, &hashed);
                assert_eq!(memory.file(&hashed.hash).is_some(), is_demanded);
                let pieces = (0..8).map_while(|index| memory.recall(&key(&hashed, length, index)));
                let cached: Vec<u8> = pieces.flat_map(Vec::from).collect();
                match is_same && is_demanded {
                    true => assert_eq!(cached, content),
                    false => assert!(cached.is_empty()),
                }
            }
        }
    }

    fn key(content: &HashedFile, whole: u64, index: u32) -> PieceKey {
        let hash = content.hash;
        PieceKey { hash, whole, index }
    }

    #[test]
    fn what_is_not_what_was_hashed_is_not_cached() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("f");
        let length = 3 * MAX_WHOLE;
        std::fs::write(&path, vec![7; length as usize]).expect("written");
        let open = || File::open(&path).expect("opened");
        let hashed =
            hash::content(&open(), length, HashOptions::default(), &|| ()).expect("hashed");
        let mut changed = vec![7; length as usize];
        changed[2 * GROUP_SIZE as usize] = 8;
        std::fs::write(&path, changed).expect("written");
        let memory = Memory::new(64 << 20, 4);
        cache(&memory, &open(), length, &hashed);
        assert!(memory.recall(&key(&hashed, length, 1)).is_some());
        assert!(memory.recall(&key(&hashed, length, 2)).is_none());
    }
}

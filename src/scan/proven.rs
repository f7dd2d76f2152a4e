//! Content that was hashed, read once more: only what is proven then is used.

use std::fs::File;
use std::io::{self, Read};

use super::sidecar::Unproven;
use crate::disk;
use crate::representation::{Data, Representation};

/// Has `look` read the very bytes that were hashed, all of them.
pub(super) fn read_proven<T>(
    content: &Representation,
    look: impl FnOnce(&mut dyn Read) -> Result<T, Unproven>,
) -> Result<T, Unproven> {
    match &content.data {
        Data::Memory(bytes) => look(&mut &bytes[..]),
        Data::File(source) => {
            let opened = source
                .root
                .open_file(&source.path)
                .map_err(Unproven::Unreadable)?;
            let mut reader = HashingReader {
                file: opened.file,
                hasher: blake3::Hasher::new(),
            };
            let seen = look(&mut reader)?;
            if reader.hasher.finalize() == *content.etag.hash() {
                Ok(seen)
            } else {
                Err(Unproven::Unreadable(io::Error::other("it is changing")))
            }
        }
        Data::Spooled(source) => {
            let bytes = source.read(content.length).map_err(Unproven::Unreadable)?;
            if blake3::hash(&bytes) != *content.etag.hash() {
                return Err(Unproven::Unreadable(io::Error::other("it is damaged")));
            }
            look(&mut &bytes[..])
        }
        // What is in a store was proven where it was published.
        Data::Remote(_) => Err(Unproven::Unreadable(io::ErrorKind::Unsupported.into())),
    }
}

/// A file, hashed as it is read.
struct HashingReader {
    file: File,
    hasher: blake3::Hasher,
}

impl Read for HashingReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = disk::read(&self.file, buffer)?;
        self.hasher.update(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}

//! The one mapping: a saved manifest, which no client is ever sent.
//!
//! # Why this is sound
//!
//! A mapping must not change while it is borrowed, and a file that shrinks under it ends the
//! process. Neither happens to what etagd saves: it writes to a file that has no name yet that
//! anybody maps, and gives it its name by renaming when all of it is written; from then on the file
//! is replaced, never changed. It has the permissions of a private file, and what another user owns
//! is not mapped. Whoever writes into it all the same, as its owner or as root, could as well write
//! into this process. The mapping lives as long as a restart needs to read it once.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::unix::fs::MetadataExt;

use memmap2::Mmap;

/// The content of a saved manifest.
pub(super) struct StateBytes(Option<Mmap>);

impl StateBytes {
    /// Maps all of `file`.
    ///
    /// # Errors
    /// As `mmap(2)`; and where another user owns the file, or it is no regular file.
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let state = file.metadata()?;
        if !state.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        if state.uid() != rustix::process::geteuid().as_raw() {
            return Err(io::Error::other("it belongs to another user"));
        }
        if state.len() == 0 {
            return Ok(Self(None));
        }
        // SAFETY: nobody writes to this file any more, as the module's documentation says.
        let content = unsafe { Mmap::map(file) }?;
        Ok(Self(Some(content)))
    }
}

impl Deref for StateBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}

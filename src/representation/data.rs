//! Where the bytes of a representation are.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::piece::GroupHash;
use super::remote::RemoteSource;
use crate::disk::{self, Root, SpooledBytes};

/// Where the bytes of a representation are.
#[derive(Clone, Debug)]
pub enum Data {
    /// In memory: the very buffer that was hashed, or its copy, which nobody can change either.
    Memory(Bytes),
    /// In a file, to be read and proven for each response.
    File(Arc<FileSource>),
    /// In the temporary file of this process, to be read and proven in the same way.
    Spooled(Arc<SpooledSource>),
    /// In a store elsewhere, to be fetched and proven when somebody asks for it.
    Remote(Arc<RemoteSource>),
}

impl Data {
    /// Whether equal bytes are also read from the same file.
    pub fn has_same_location(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Memory(_), Self::Memory(_)) => true,
            (Self::File(one), Self::File(two)) => {
                Arc::ptr_eq(&one.root, &two.root) && one.path == two.path
            }
            (Self::Spooled(one), Self::Spooled(two)) => Arc::ptr_eq(one, two),
            (Self::Remote(one), Self::Remote(two)) => one.hash == two.hash,
            (Self::Memory(_) | Self::File(_) | Self::Spooled(_) | Self::Remote(_), _) => false,
        }
    }
}

/// A file whose hashes are known and whose bytes are not in memory.
#[derive(Debug)]
pub struct FileSource {
    /// The root it was found under.
    pub root: Arc<Root>,
    /// Its path, free of links, relative to the root (absolute where a link left the root).
    pub path: Box<Path>,
    /// The chaining value of each group; empty up to [`MAX_WHOLE`](super::MAX_WHOLE), where the root
    /// hash proves all.
    pub groups: Arc<[GroupHash]>,
}

impl FileSource {
    /// The file's absolute path, for messages.
    pub fn location(&self) -> std::path::PathBuf {
        self.root.path().join(&self.path)
    }
}

/// Bytes that were put aside, with others, in the temporary file of this process.
#[derive(Debug)]
pub struct SpooledSource {
    /// Where they are, perhaps with other forms of the same content.
    pub extent: Arc<SpooledBytes>,
    /// Where in the extent they begin.
    pub offset: u64,
    /// As [`FileSource::groups`].
    pub groups: Arc<[GroupHash]>,
    /// The absolute path of the file that they were made of: for messages, and to be looked at again
    /// if they are damaged.
    pub of: Box<Path>,
}

impl SpooledSource {
    /// The same bytes, made of a file with the same content elsewhere.
    pub fn of_file(&self, path: &Path) -> Self {
        Self {
            extent: Arc::clone(&self.extent),
            offset: self.offset,
            groups: Arc::clone(&self.groups),
            of: path.into(),
        }
    }

    /// The file that they are in, with others.
    pub fn file(&self) -> &Arc<File> {
        self.extent.file()
    }

    /// Where in the file they begin.
    pub fn start(&self) -> u64 {
        self.extent.offset() + self.offset
    }

    /// The first `length` bytes, blocking.
    ///
    /// # Errors
    /// As `pread(2)`.
    pub fn read(&self, length: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length as usize];
        disk::read_exact_at(self.file(), &mut bytes, self.start())?;
        Ok(bytes)
    }
}

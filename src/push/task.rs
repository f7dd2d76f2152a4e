//! One path to push, and the file of the directory that belongs there.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::action::{BaseVersion, ContentHash, PushAction};
use crate::disk::{self, Root};
use crate::representation::{Data, Resource};
use crate::scan::dictionary_path;
use crate::semantics::dictionary::DictionaryHash;

/// Bytes that are hashed at once.
const BUFFER_SIZE: usize = 64 << 10;

/// The stages of a push, in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Stage {
    /// Before the deltas that need them.
    Dictionaries,
    Assets,
    /// After the assets that they link to.
    Pages,
    /// After the files that they redirect to.
    Rules,
    /// After the pages that linked to what is deleted.
    Deletions,
}

/// A path, and what to do about it.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) stage: Stage,
    pub(super) path: Box<[u8]>,
    /// The file to be there; `None` if there is to be none.
    pub(super) local: Option<LocalFile>,
    pub(super) base: BaseVersion,
    pub(super) action: PushAction,
    /// As [`DesiredFile::dictionary`].
    pub(super) dictionary: Option<DictionaryHash>,
}

/// A file of the directory.
#[derive(Clone, Debug)]
pub(super) struct LocalFile {
    pub(super) hash: ContentHash,
    pub(super) length: u64,
    /// Its path relative to the root.
    pub(super) location: Box<Path>,
}

/// What is to be at a path.
#[derive(Debug)]
pub(super) struct DesiredFile {
    pub(super) stage: Stage,
    /// `None` if the path is to be deleted.
    pub(super) local: Option<LocalFile>,
    /// Of a dictionary to be deleted: its hash. Of a delta to be deleted: that of its dictionary, if
    /// that goes too.
    pub(super) dictionary: Option<DictionaryHash>,
}

impl DesiredFile {
    pub(super) fn new(stage: Stage, local: LocalFile) -> Self {
        Self {
            stage,
            local: Some(local),
            dictionary: None,
        }
    }

    pub(super) fn deletion(dictionary: Option<DictionaryHash>) -> Self {
        Self {
            stage: Stage::Deletions,
            local: None,
            dictionary,
        }
    }
}

/// What is to be at each path.
pub(super) type DesiredFiles = BTreeMap<Box<[u8]>, DesiredFile>;

impl LocalFile {
    /// The file of a resource.
    pub(super) fn from_resource(resource: &Resource) -> Option<Self> {
        let Data::File(source) = &resource.identity.data else {
            // The scan for a push has no memory for content, so this does not occur.
            return None;
        };
        Some(Self {
            hash: *resource.identity.etag.hash(),
            length: resource.identity.length,
            location: source.path.clone(),
        })
    }

    /// A file of the directory that no manifest lists, if there is one. It is hashed here.
    ///
    /// # Errors
    /// When it exists and can't be read.
    pub(super) fn from_unlisted(root: &Root, path: &Path) -> io::Result<Option<Self>> {
        match Self::hashed(root, path, |_| ()) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The dictionary that the directory keeps at its place, if there is one.
    ///
    /// # Errors
    /// When it can't be read, or is not what its name says: no server would take it.
    pub(super) fn from_dictionary(root: &Root, hash: DictionaryHash) -> io::Result<Option<Self>> {
        let mut sha256 = Sha256::new();
        match Self::hashed(root, &dictionary_path(hash), |bytes| sha256.update(bytes)) {
            Ok(_) if <[u8; 32]>::from(sha256.finalize()) != *hash.as_bytes() => {
                let reason = "it does not have the SHA-256 that is its name: remove it, and run \
                              etagd compress --against again";
                Err(io::Error::new(io::ErrorKind::InvalidData, reason))
            }
            Ok(file) => Ok(Some(file)),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(None),
                // openat2(2): there is a link in the path.
                _ if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
                    let reason = "it is behind a symbolic link, and none is followed there: put the \
                                  file itself in its place";
                    Err(io::Error::other(reason))
                }
                _ => Err(error),
            },
        }
    }

    /// A file of the directory, whose content `look` sees piece by piece.
    fn hashed(root: &Root, path: &Path, mut look: impl FnMut(&[u8])) -> io::Result<Self> {
        let opened = root.open_file(path)?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; BUFFER_SIZE];
        loop {
            let read = disk::read(&opened.file, &mut buffer)?;
            let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
                break;
            };
            hasher.update(bytes);
            look(bytes);
        }
        Ok(Self {
            hash: *hasher.finalize().as_bytes(),
            length: opened.stamp.size,
            location: path.into(),
        })
    }
}

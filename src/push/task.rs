//! One path to push, and the file of the directory that belongs there.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::action::{BaseVersion, ContentHash, PushAction};
use crate::disk::Root;
use crate::representation::{Data, Resource};

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
    /// After the deltas that needed them.
    UnusedDictionaries,
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
}

/// A file of the directory.
#[derive(Clone, Debug)]
pub(super) struct LocalFile {
    pub(super) hash: ContentHash,
    pub(super) length: u64,
    /// Its path relative to the root.
    pub(super) location: Box<Path>,
}

/// The file to be at each path; `None` for a path to be deleted.
pub(super) type DesiredFiles = BTreeMap<Box<[u8]>, (Stage, Option<LocalFile>)>;

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
        let opened = match root.open_file(path) {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(&opened.file)?;
        Ok(Some(Self {
            hash: *hasher.finalize().as_bytes(),
            length: opened.stamp.size,
            location: path.into(),
        }))
    }
}

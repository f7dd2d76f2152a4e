//! What a release has: the contents of a directory as they were hashed, and how they are read again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;

use super::error::PublishError;
use crate::disk::{self, Root};
use crate::inventory::url;
use crate::manifest::Manifest;
use crate::representation::{Data, GROUP_SIZE, GroupHash, MAX_WHOLE, Representation, group_hash};
use crate::rules::RuleFile;
use crate::store::{BlobHash, ListedRules, SiteListing};

/// A site on its way into a store.
#[derive(Debug)]
pub struct SiteContent {
    /// What it has.
    pub listing: SiteListing,
    /// How many files it has.
    pub files: u64,
    /// How many bytes they have, without their codings.
    pub bytes: u64,
    blobs: HashMap<BlobHash, Arc<LocalBlob>>,
}

/// A content, and where its bytes are.
#[derive(Debug)]
pub(super) struct LocalBlob {
    pub(super) hash: BlobHash,
    pub(super) length: u64,
    data: Data,
    /// The path of a file that has it, for messages.
    path: String,
}

impl SiteContent {
    /// What a manifest of this directory has.
    ///
    /// # Errors
    /// When a rule file can't be read again, or has changed.
    pub fn new(root: &Root, manifest: &Manifest) -> Result<Self, PublishError> {
        let mut blobs = HashMap::new();
        let mut rules = BTreeMap::new();
        for file in RuleFile::ALL {
            if let Some(bytes) = rule_file(root, manifest, file)? {
                let (hash, size) = (BlobHash::of(&bytes), bytes.len() as u64);
                rules.insert(file, ListedRules { hash, size });
                let blob = LocalBlob {
                    hash,
                    length: size,
                    data: Data::Memory(bytes.into()),
                    path: url(file.name().as_bytes()),
                };
                blobs.insert(hash, Arc::new(blob));
            }
        }
        for resource in manifest.iter() {
            let (identity, encoded) = resource.of_files();
            for representation in std::iter::once(identity).chain(encoded) {
                blobs
                    .entry(BlobHash::new(*representation.etag.hash()))
                    .or_insert_with(|| LocalBlob::of(representation, &resource.path));
            }
        }
        Ok(Self {
            listing: SiteListing::of(manifest, rules),
            files: manifest.len() as u64,
            bytes: manifest.bytes(),
            blobs,
        })
    }

    /// The hashes and lengths of all contents.
    pub(super) fn sizes(&self) -> HashSet<(BlobHash, u64)> {
        let sizes = self.blobs.values().map(|blob| (blob.hash, blob.length));
        sizes.collect()
    }

    /// All contents, each once, those of the same folder in the store next to each other.
    pub(super) fn blobs(&self) -> Vec<Arc<LocalBlob>> {
        let mut blobs: Vec<_> = self.blobs.values().map(Arc::clone).collect();
        blobs.sort_unstable_by_key(|blob| blob.hash);
        blobs
    }
}

/// The rule file that the manifest was made with, if there is one.
fn rule_file(
    root: &Root,
    manifest: &Manifest,
    file: RuleFile,
) -> Result<Option<Vec<u8>>, PublishError> {
    let rules = manifest.rules();
    if !rules.has_file(file) {
        return Ok(None);
    }
    let path = url(file.name().as_bytes());
    match fs::read(root.path().join(file.name())) {
        Ok(bytes) if rules.are_of(file, &bytes) => Ok(Some(bytes)),
        Ok(_) => Err(PublishError::Changed(path)),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Err(PublishError::Changed(path)),
        Err(source) => Err(PublishError::Unreadable { path, source }),
    }
}

impl LocalBlob {
    fn of(representation: &Representation, path: &[u8]) -> Arc<Self> {
        Arc::new(Self {
            hash: BlobHash::new(*representation.etag.hash()),
            length: representation.length,
            data: representation.data.clone(),
            path: url(path),
        })
    }

    /// Reads all of it, blocking.
    ///
    /// # Errors
    /// When it can't be read, or is not what was hashed.
    pub(super) fn read(&self) -> Result<Bytes, PublishError> {
        let bytes = match &self.data {
            Data::Memory(bytes) => bytes.clone(),
            Data::Spooled(source) => source
                .read(self.length)
                .map_err(|it| self.unreadable(it))?
                .into(),
            Data::File(source) => {
                let opened = source.root.open_file(&source.path);
                let opened = opened.map_err(|error| self.unreadable(error))?;
                let mut bytes = Vec::with_capacity(self.length as usize + 1);
                // A byte too many, so that a file that has grown is one that has changed.
                let read = opened.file.take(self.length + 1).read_to_end(&mut bytes);
                read.map_err(|error| self.unreadable(error))?;
                bytes.into()
            }
            // A scan finds files.
            Data::Remote(_) => return Err(self.unreadable(io::ErrorKind::Unsupported.into())),
        };
        match BlobHash::of(&bytes) == self.hash {
            true => Ok(bytes),
            false => Err(self.changed()),
        }
    }

    /// The chaining values of its groups; none where it is short enough to be proven whole.
    pub(super) fn tree(&self) -> Option<Bytes> {
        if self.length <= MAX_WHOLE {
            return None;
        }
        match &self.data {
            Data::File(source) => Some(source.groups.concat().into()),
            Data::Spooled(source) => Some(source.groups.concat().into()),
            Data::Memory(bytes) => {
                let groups = bytes.chunks(GROUP_SIZE as usize).zip(0..);
                let hash = |(group, index): (&[u8], u64)| group_hash(group, index * GROUP_SIZE);
                Some(groups.map(hash).collect::<Vec<GroupHash>>().concat().into())
            }
            Data::Remote(_) => None,
        }
    }

    /// Reads `length` bytes from `start` on, which begins a group, and proves each group; blocking.
    ///
    /// # Errors
    /// When they can't be read, or are not what was hashed.
    pub(super) fn read_part(&self, start: u64, length: u64) -> Result<Bytes, PublishError> {
        let Some(tree) = self.tree() else {
            return self.read();
        };
        let mut part = vec![0; length as usize];
        let read = match &self.data {
            Data::Memory(bytes) => {
                part.copy_from_slice(&bytes[start as usize..(start + length) as usize]);
                Ok(())
            }
            Data::Spooled(source) => {
                disk::read_exact_at(source.file(), &mut part, source.start() + start)
            }
            Data::File(source) => source
                .root
                .open_file(&source.path)
                .and_then(|opened| disk::read_exact_at(&opened.file, &mut part, start)),
            Data::Remote(_) => Err(io::ErrorKind::Unsupported.into()),
        };
        read.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.changed(),
            _ => self.unreadable(error),
        })?;
        let first = (start / GROUP_SIZE) as usize;
        let groups = part.chunks(GROUP_SIZE as usize).zip(first..);
        for (group, index) in groups {
            let expected = tree.chunks(size_of::<GroupHash>()).nth(index);
            let is = group_hash(group, index as u64 * GROUP_SIZE);
            if expected != Some(is.as_slice()) {
                return Err(self.changed());
            }
        }
        Ok(part.into())
    }

    fn changed(&self) -> PublishError {
        PublishError::Changed(self.path.clone())
    }

    fn unreadable(&self, source: io::Error) -> PublishError {
        match source.kind() {
            io::ErrorKind::NotFound => self.changed(),
            _ => PublishError::Unreadable {
                path: self.path.clone(),
                source,
            },
        }
    }
}

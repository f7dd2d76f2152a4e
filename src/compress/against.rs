//! An earlier release, whose files are dictionaries for those that replace them.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::Root;
use crate::exclude::Exclusions;
use crate::inventory::{Inventory, InventoryError};
use crate::scan::walk::{WalkStep, walk};
use crate::scan::{MAX_DICTIONARY_LENGTH, MAX_FAMILY};
use crate::semantics::coding::Coding;
use crate::settings::{Family, Symlinks};

/// Why an earlier release can't be used.
#[derive(Debug, thiserror::Error)]
pub enum AgainstError {
    /// It is no directory, and no manifest.
    #[error("cannot open {}: {source}", .path.display())]
    Open {
        /// The directory or manifest, as it was given.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// It is a file, but no manifest.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
}

/// A file of an earlier release.
#[derive(Clone, Debug)]
pub(super) struct OldFile {
    root: Arc<Root>,
    location: PathBuf,
    /// What a manifest says that its BLAKE3 is.
    hash: Option<[u8; 32]>,
}

/// What a file of an earlier release is good for.
pub(super) enum OldContent {
    Dictionary(Vec<u8>),
    /// It is not what the manifest says.
    Changed,
    /// No delta may have a dictionary that long.
    TooLong,
}

impl OldFile {
    /// Reads the file.
    pub(super) fn read(&self) -> io::Result<OldContent> {
        let opened = self.root.open_file(&self.location)?;
        if opened.stamp.size > MAX_DICTIONARY_LENGTH {
            return Ok(OldContent::TooLong);
        }
        let mut bytes = Vec::new();
        let limit = MAX_DICTIONARY_LENGTH + 1;
        (&opened.file).take(limit).read_to_end(&mut bytes)?;
        let is_same = self.hash.is_none_or(|hash| blake3::hash(&bytes) == hash);
        Ok(match is_same {
            _ if bytes.len() as u64 > MAX_DICTIONARY_LENGTH => OldContent::TooLong,
            true => OldContent::Dictionary(bytes),
            false => OldContent::Changed,
        })
    }

    /// The file, to copy its permissions from.
    pub(super) fn open(&self) -> io::Result<File> {
        Ok(self.root.open_file(&self.location)?.file)
    }

    /// Where it is, for messages.
    pub(super) fn path(&self) -> PathBuf {
        self.root.path().join(&self.location)
    }
}

/// The files of earlier releases by the URL Pattern of their families, those of the newest first.
pub(super) type OldFamilies = HashMap<String, Vec<OldFile>>;

/// Earlier releases, as far as their files may be dictionaries.
#[derive(Debug, Default)]
pub struct EarlierReleases {
    pub(super) families: OldFamilies,
    /// Number of releases, those without families included.
    pub(super) count: usize,
}

impl EarlierReleases {
    /// Looks at these releases, directories or manifests next to their files, the newest first. A
    /// family with more than [`MAX_FAMILY`] files in one of them was no dictionary there.
    ///
    /// # Errors
    /// When one of them can't be read.
    pub fn open(releases: &[PathBuf]) -> Result<Self, AgainstError> {
        let mut families = OldFamilies::new();
        for path in releases {
            for (pattern, files) in families_of(path)? {
                if files.len() <= MAX_FAMILY {
                    families.entry(pattern).or_default().extend(files);
                }
            }
        }
        Ok(Self {
            families,
            count: releases.len(),
        })
    }
}

fn families_of(release: &Path) -> Result<OldFamilies, AgainstError> {
    let failed = |source| AgainstError::Open {
        path: release.to_path_buf(),
        source,
    };
    let manifest = match release.metadata().map_err(failed)?.is_file() {
        true => {
            let file = File::open(release).map_err(failed)?;
            Some(Inventory::read(release.display(), file)?)
        }
        false => None,
    };
    // A manifest lies next to the files that it lists.
    let directory = match &manifest {
        Some(_) => release.parent().unwrap_or(Path::new("")),
        None => release,
    };
    let directory = match directory.as_os_str().is_empty() {
        true => Path::new("."),
        false => directory,
    };
    let root = Arc::new(Root::open(directory).map_err(failed)?);
    let files = match manifest {
        Some(manifest) => listed(&manifest),
        None => found(&root)?,
    };
    let mut families = OldFamilies::new();
    for (path, location, hash) in files {
        let Some(family) = Family::of(&path) else {
            continue;
        };
        families
            .entry(family.url_pattern())
            .or_default()
            .push(OldFile {
                root: Arc::clone(&root),
                location,
                hash,
            });
    }
    // So that equal trees give equal deltas, in whatever order their entries are.
    for files in families.values_mut() {
        files.sort_by(|one, other| one.location.cmp(&other.location));
    }
    Ok(families)
}

/// A path of the site, where it is, and its BLAKE3 if that is known.
type OldEntry = (Box<[u8]>, PathBuf, Option<[u8; 32]>);

fn listed(manifest: &Inventory) -> Vec<OldEntry> {
    let files = manifest
        .entries
        .iter()
        .filter(|entry| entry.coding == Coding::Identity);
    files
        .map(|entry| {
            let location = OsStr::from_bytes(&entry.path).into();
            (entry.path.clone(), location, Some(*entry.etag.hash()))
        })
        .collect()
}

fn found(root: &Root) -> Result<Vec<OldEntry>, AgainstError> {
    walk(root.path(), b"", Symlinks::Inside, &Exclusions::default())
        .filter_map(|step| match step {
            WalkStep::File(file) => Some(Ok((file.path, file.location, None))),
            // It may be what a client has.
            WalkStep::Unreadable(path, source) => Some(Err(AgainstError::Open {
                path: root.path().join(OsStr::from_bytes(&path)),
                source,
            })),
            _ => None,
        })
        .collect()
}

//! An earlier release, whose files are dictionaries for those that replace them.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use super::SidecarError;
use crate::disk::{self, Root};
use crate::exclude::{ExcludePatterns, Exclusions};
use crate::inventory::{Inventory, InventoryError};
use crate::rules::RuleFile;
use crate::scan::walk::{WalkStep, walk};
use crate::scan::{MAX_DICTIONARY_LENGTH, MAX_FAMILY, delta_family, exclusions_on_disk};
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
    /// Its path in the site.
    path: Box<[u8]>,
    /// Where it is, free of links. What a manifest lists may be behind some.
    location: PathBuf,
    listed: Option<OldListing>,
}

/// What a manifest says of a file.
#[derive(Clone, Debug)]
struct OldListing {
    manifest: Arc<Path>,
    /// Its BLAKE3.
    hash: [u8; 32],
}

/// What a file of an earlier release is good for.
pub(super) enum OldContent {
    Dictionary(Vec<u8>),
    /// This manifest lists it, and it is gone or has other bytes.
    NotAsListed(Arc<Path>),
    /// No delta may have a dictionary that long.
    TooLong,
}

impl OldFile {
    /// Reads the file.
    ///
    /// # Errors
    /// When it can't be read, which does not say that it is not there.
    pub(super) fn read(&self) -> Result<OldContent, SidecarError> {
        let bytes = self.location().map_err(SidecarError::Io);
        let bytes = bytes.and_then(|location| {
            let limit = MAX_DICTIONARY_LENGTH;
            read_up_to(&self.root, &location, limit)
        });
        match (bytes, &self.listed) {
            (Ok(bytes), Some(listed)) if blake3::hash(&bytes) != listed.hash => {
                Ok(OldContent::NotAsListed(Arc::clone(&listed.manifest)))
            }
            (Ok(bytes), _) => Ok(OldContent::Dictionary(bytes)),
            (Err(SidecarError::TooLarge), _) => Ok(OldContent::TooLong),
            (Err(SidecarError::Io(error)), Some(listed)) if is_gone(&error) => {
                Ok(OldContent::NotAsListed(Arc::clone(&listed.manifest)))
            }
            (Err(error), _) => Err(error),
        }
    }

    /// The file, to copy its permissions from.
    pub(super) fn open(&self) -> io::Result<File> {
        Ok(self.root.open_file(&self.location()?)?.file)
    }

    fn location(&self) -> io::Result<PathBuf> {
        match self.listed {
            Some(_) => disk::real_path(&self.root.path().join(&self.location)),
            None => Ok(self.location.clone()),
        }
    }

    /// Its path in the site.
    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }

    /// Says why it can't be read.
    pub(super) fn unreadable(&self, reason: &SidecarError) -> Unreadable {
        Unreadable::new(&self.root, self.path.clone(), reason)
    }
}

/// Whether a file is gone, or something that is none has its name ([`Root::open_file`]): also links
/// that lead nowhere but to each other.
fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory | InvalidInput)
        || error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}

/// What can't be read of an earlier release: a file, or a directory with all that may be in it.
#[derive(Clone, Debug)]
pub(super) struct Unreadable {
    /// Its path in the site.
    path: Box<[u8]>,
    /// Where it is, for messages.
    pub(super) place: PathBuf,
    pub(super) reason: String,
}

impl Unreadable {
    fn new(root: &Root, path: Box<[u8]>, reason: &impl ToString) -> Self {
        Self {
            place: root.path().join(OsStr::from_bytes(&path)),
            reason: reason.to_string(),
            path,
        }
    }

    /// Whether it may be, or hold, an earlier version of the file at `path`.
    pub(super) fn may_precede(&self, path: &[u8]) -> bool {
        may_be_relative(&self.path, path)
    }
}

/// Whether what can't be read may be a file of the same family as the file at `path`, or a folder of
/// such files.
pub(super) fn may_be_relative(unreadable: &[u8], path: &[u8]) -> bool {
    let below = path.strip_prefix(unreadable);
    let is_within = below.is_some_and(|below| unreadable.is_empty() || below.starts_with(b"/"));
    let family = Family::of(path);
    is_within || family.is_some() && Family::of(unreadable) == family
}

/// The files of earlier releases by the URL Pattern of their families, those of the newest first.
pub(super) type OldFamilies = HashMap<String, Vec<OldFile>>;

/// Earlier releases, as far as their files may be dictionaries.
#[derive(Debug, Default)]
pub struct EarlierReleases {
    pub(super) families: OldFamilies,
    /// Number of releases, those without families included.
    pub(super) count: usize,
    pub(super) unreadable: Vec<Unreadable>,
}

impl EarlierReleases {
    /// Looks at these releases, directories or manifests next to their files, the newest first. What
    /// `exclude` leaves out, or in a directory its own `.etagdignore`, was not served.
    ///
    /// A family with more than [`MAX_FAMILY`] files in one of them was no dictionary there. One that
    /// may have more than can be read is left out: deltas that depend on what can be read at the
    /// moment would differ from build to build.
    ///
    /// # Errors
    /// When one of them can't be opened, or a manifest is none.
    pub fn open(
        releases: &[PathBuf],
        exclude: &Arc<ExcludePatterns>,
    ) -> Result<Self, AgainstError> {
        let mut all = Self::default();
        for path in releases {
            let release = open(path, exclude)?;
            for (pattern, files) in release.families {
                if files.len() <= MAX_FAMILY {
                    all.families.entry(pattern).or_default().extend(files);
                }
            }
            all.count += 1;
            all.unreadable.extend(release.unreadable);
        }
        Ok(all)
    }
}

/// Opens one release.
fn open(release: &Path, exclude: &Arc<ExcludePatterns>) -> Result<EarlierReleases, AgainstError> {
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
    let (files, unreadable) = match manifest {
        Some(manifest) => {
            let name = release.file_name().unwrap_or_default();
            let place = root.path().join(name).into();
            (listed(&root, &manifest, &place, exclude), Vec::new())
        }
        None => found(&root, exclude),
    };
    let mut families = OldFamilies::new();
    for file in files {
        let family = delta_family(&file.path);
        let is_known = !unreadable.iter().any(|it| it.may_precede(&file.path));
        if let Some(family) = family.filter(|_| is_known) {
            let pattern = family.url_pattern();
            families.entry(pattern).or_default().push(file);
        }
    }
    // So that equal trees give equal deltas, in whatever order their entries are.
    for files in families.values_mut() {
        files.sort_by(|one, other| one.location.cmp(&other.location));
    }
    Ok(EarlierReleases {
        families,
        count: 1,
        unreadable,
    })
}

fn listed(
    root: &Arc<Root>,
    manifest: &Inventory,
    place: &Arc<Path>,
    exclude: &Arc<ExcludePatterns>,
) -> Vec<OldFile> {
    // What the release itself leaves out is not in its manifest.
    let exclusions = Exclusions::new(exclude, &Arc::default());
    let files = manifest
        .entries
        .iter()
        .filter(|entry| entry.coding == Coding::Identity && !exclusions.cover(&entry.path, false));
    files
        .map(|entry| OldFile {
            root: Arc::clone(root),
            path: entry.path.clone(),
            location: OsStr::from_bytes(&entry.path).into(),
            listed: Some(OldListing {
                manifest: Arc::clone(place),
                hash: *entry.etag.hash(),
            }),
        })
        .collect()
}

fn found(root: &Arc<Root>, exclude: &Arc<ExcludePatterns>) -> (Vec<OldFile>, Vec<Unreadable>) {
    let (mut files, mut unreadable) = (Vec::new(), Vec::new());
    let exclusions = exclusions_on_disk(root, exclude);
    let exclusions = exclusions.unwrap_or_else(|error| {
        // What it leaves out is not known of any file.
        let mut whole = Unreadable::new(root, Box::default(), &error);
        whole.place.push(RuleFile::Ignore.name());
        unreadable.push(whole);
        Exclusions::default()
    });
    for step in walk(root.path(), b"", Symlinks::Inside, &exclusions) {
        match step {
            WalkStep::File(file) => files.push(OldFile {
                root: Arc::clone(root),
                path: file.path,
                location: file.location,
                listed: None,
            }),
            // It may be what a client has.
            WalkStep::Unreadable(path, error) => {
                unreadable.push(Unreadable::new(root, path, &error));
            }
            WalkStep::Rules(..) | WalkStep::Folder(_) | WalkStep::Link(_) | WalkStep::End(_) => {}
        }
    }
    (files, unreadable)
}

/// Reads a file of at most this length, which nobody changes meanwhile.
pub(super) fn read_up_to(
    root: &Root,
    location: &Path,
    max_length: u64,
) -> Result<Vec<u8>, SidecarError> {
    let opened = root.open_file(location)?;
    if opened.stamp.size > max_length {
        return Err(SidecarError::TooLarge);
    }
    let mut bytes = vec![0; opened.stamp.size as usize];
    disk::read_exact_at(&opened.file, &mut bytes, 0)?;
    match disk::stamp(&opened.file)? == opened.stamp {
        true => Ok(bytes),
        false => Err(SidecarError::Changed),
    }
}

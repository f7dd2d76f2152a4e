//! Which files can have sidecars, and the state of the sidecars that exist.
//!
//! The files are those that a scan would admit, links within the site included. A sidecar belongs
//! next to the name that a request has, not next to the file that a link leads to.

use std::array;
use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use super::{CODINGS, SidecarError, SidecarProblem};
use crate::disk::{self, Opened, Root};
use crate::exclude::Exclusions;
use crate::representation::TextKind;
use crate::scan::encode::{self, MIN_LENGTH};
use crate::scan::hash::{self, HashOptions};
use crate::scan::sidecar::{Unproven, prove};
use crate::scan::text::text_kind_of;
use crate::scan::walk::{self, FoundFile, WalkStep};
use crate::semantics::coding::Coding;
use crate::settings::Symlinks;

/// Bytes of a file that tell whether the rest need be read.
const BEGINNING: u64 = 4096;

/// What `etagd compress` does with sidecars.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SidecarWork {
    /// Write what is missing or stale.
    Write,
    /// Look only.
    Check,
    /// Remove what is proven.
    Remove,
}

/// A file that can have sidecars.
#[derive(Debug)]
pub(super) struct SourceFile {
    /// Its path in the site: raw bytes, without a leading slash.
    pub(super) site_path: Box<[u8]>,
    /// Its path relative to the root, without links.
    pub(super) location: PathBuf,
    /// The directory of its sidecars, relative to the root, without links.
    pub(super) directory: PathBuf,
    /// Its length in bytes when it was found.
    pub(super) length: u64,
    /// Whether etagd wrote its sidecars. Of the three codings only gzip can carry a mark.
    pub(super) is_ours: bool,
}

/// A sidecar that exists or could exist.
#[derive(Debug)]
pub(super) struct Sidecar {
    pub(super) source: Arc<SourceFile>,
    pub(super) coding: Coding,
    pub(super) state: SidecarState,
}

/// The state of a sidecar.
#[derive(Debug)]
pub(super) enum SidecarState {
    /// It does not exist.
    Missing,
    /// It decodes to its file, and has this length.
    Proven(u64),
    /// It does not decode to its file.
    Unproven(Unproven),
    /// It was written, with this length.
    Written(u64),
    /// It existed, and was removed.
    Removed,
}

impl SourceFile {
    /// Its path relative to the root, for messages.
    pub(super) fn path(&self) -> PathBuf {
        self.directory.join(self.name())
    }

    /// The name of a sidecar in [`Self::directory`].
    pub(super) fn sidecar_name(&self, coding: Coding) -> OsString {
        OsStr::from_bytes(&with_extension(self.name().as_bytes(), coding)).to_owned()
    }

    fn name(&self) -> &OsStr {
        let name = self.site_path.rsplit(|byte| *byte == b'/').next();
        OsStr::from_bytes(name.unwrap_or(&self.site_path))
    }
}

/// `name.br` for `name`.
fn with_extension(name: &[u8], coding: Coding) -> Vec<u8> {
    let extension = coding.extension().unwrap_or_default();
    [name, b".", extension.as_bytes()].concat()
}

/// All files of a site by their paths.
type FilesByPath = HashMap<Box<[u8]>, FoundFile>;

/// The sidecars that `work` is about: those of every compressible file, and with
/// [`SidecarWork::Check`] those that exist, of whatever file.
pub(super) fn survey(
    root: &Root,
    work: SidecarWork,
    exclusions: &Exclusions,
    problems: &mut Vec<SidecarProblem>,
) -> Vec<Sidecar> {
    let mut files = FilesByPath::new();
    for step in walk::walk(root.path(), b"", Symlinks::Inside, exclusions) {
        match step {
            WalkStep::File(file) => {
                files.insert(file.path.clone(), file);
            }
            WalkStep::Rules(..) | WalkStep::Folder(_) | WalkStep::Link(_) | WalkStep::End(_) => {}
            WalkStep::Unreadable(path, reason) => problems.push(SidecarProblem {
                path: OsStr::from_bytes(&path).into(),
                error: reason.into(),
            }),
        }
    }
    let results: Vec<_> = files
        .par_iter()
        .filter(|(path, _)| {
            work == SidecarWork::Check || encode::is_compressible(path, TextKind::Utf8)
        })
        .filter_map(|(_, file)| examine(root, work, file, &files).transpose())
        .collect();
    // Through linked directories one file has several paths, but its sidecars have one place.
    let mut places = HashSet::new();
    let mut sidecars = Vec::new();
    for result in results {
        match result {
            Ok(of_file) => sidecars.extend(of_file.into_iter().filter(|sidecar| {
                let source = &sidecar.source;
                places.insert((
                    source.directory.clone(),
                    source.sidecar_name(sidecar.coding),
                ))
            })),
            Err(problem) => problems.push(problem),
        }
    }
    sidecars
}

/// The sidecars of one file; `None` if it is gone, or `work` is not about it.
fn examine(
    root: &Root,
    work: SidecarWork,
    file: &FoundFile,
    files: &FilesByPath,
) -> Result<Option<[Sidecar; CODINGS.len()]>, SidecarProblem> {
    let existing = CODINGS.map(|coding| files.get(with_extension(&file.path, coding).as_slice()));
    if work == SidecarWork::Check && existing.iter().all(Option::is_none) {
        return Ok(None);
    }
    match prove_existing(root, work, file, existing) {
        Ok(sidecars) => Ok(sidecars),
        // It was removed after the walk.
        Err(SidecarError::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            let path = OsStr::from_bytes(&file.path).into();
            Err(SidecarProblem { path, error })
        }
    }
}

/// Opens a file, and compares the sidecars that exist with it.
fn prove_existing(
    root: &Root,
    work: SidecarWork,
    file: &FoundFile,
    existing: [Option<&FoundFile>; CODINGS.len()],
) -> Result<Option<[Sidecar; CODINGS.len()]>, SidecarError> {
    let has_some = existing.iter().any(Option::is_some);
    let opened = root.open_file(&file.location)?;
    if !has_some && opened.stamp.size < MIN_LENGTH {
        return Ok(None);
    }
    let source = Arc::new(SourceFile {
        site_path: file.path.clone(),
        location: file.location.clone(),
        directory: real_directory(root, file)?,
        length: opened.stamp.size,
        is_ours: CODINGS
            .iter()
            .zip(existing)
            .any(|(coding, sidecar)| *coding == Coding::Gzip && is_ours(root, sidecar)),
    });
    // A name without extension may stand for text or not, and one of a film too; only the content
    // tells. Hardly a film begins like text, so that films are not read to their end.
    let is_text_by_name = encode::is_compressible(&file.path, TextKind::Binary);
    if !has_some && !is_text_by_name && !begins_like_text(&opened)? {
        return Ok(None);
    }
    let mut hash = [0; 32];
    if has_some || !is_text_by_name {
        let content = hash::content(&opened.file, source.length, HashOptions::default(), &|| ())?;
        if disk::stamp(&opened.file)? != opened.stamp {
            return Err(SidecarError::Changed);
        }
        if work != SidecarWork::Check && !is_text_by_name && !content.text.is_text() {
            return Ok(None);
        }
        hash = content.hash;
    }
    Ok(Some(array::from_fn(|index| {
        let coding = CODINGS[index];
        let state = match existing[index] {
            None => SidecarState::Missing,
            Some(sidecar) => prove_sidecar(root, coding, sidecar, &hash, source.length),
        };
        Sidecar {
            source: Arc::clone(&source),
            coding,
            state,
        }
    })))
}

/// Whether the first bytes of a file could be those of text.
fn begins_like_text(opened: &Opened) -> io::Result<bool> {
    let mut beginning = vec![0; opened.stamp.size.min(BEGINNING) as usize];
    disk::read_exact_at(&opened.file, &mut beginning, 0)?;
    Ok(text_kind_of(&beginning).is_text())
}

fn prove_sidecar(
    root: &Root,
    coding: Coding,
    sidecar: &FoundFile,
    hash: &[u8; 32],
    length: u64,
) -> SidecarState {
    match root.open_file(&sidecar.location) {
        Ok(opened) => match prove(coding, opened.file, hash, length) {
            Ok(()) => SidecarState::Proven(opened.stamp.size),
            Err(reason) => SidecarState::Unproven(reason),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => SidecarState::Missing,
        Err(error) => SidecarState::Unproven(Unproven::Unreadable(error)),
    }
}

/// Whether a gzip file begins with the mark of etagd.
fn is_ours(root: &Root, sidecar: Option<&FoundFile>) -> bool {
    let mut header = [0; encode::GZIP_HEADER.len()];
    sidecar
        .and_then(|sidecar| root.open_file(&sidecar.location).ok())
        .is_some_and(|opened| {
            disk::read_exact_at(&opened.file, &mut header, 0).is_ok()
                && header == encode::GZIP_HEADER
        })
}

/// The directory, free of links, that holds the name of `file`.
pub(super) fn real_directory(root: &Root, file: &FoundFile) -> io::Result<PathBuf> {
    if !file.linked {
        return Ok(parent(&file.location));
    }
    let path = root.path().join(OsStr::from_bytes(&file.path));
    match parent(&path).canonicalize()?.strip_prefix(root.path()) {
        Ok(relative) => Ok(relative.to_path_buf()),
        // A link was changed after the walk.
        Err(_) => Err(io::Error::other("a link leads out of the site")),
    }
}

fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).to_path_buf()
}

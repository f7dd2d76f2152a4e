//! Which files can have sidecars, and what the sidecars that are there are worth.
//!
//! The files are those that a scan would admit, links within the site included. A sidecar belongs
//! beside the name that a file is asked for by, not beside what a link leads to.

use std::array;
use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use super::{CODINGS, Problem, SMALLEST, Trouble, encode};
use crate::config::{SidecarWork, Symlinks};
use crate::disk::{self, Root};
use crate::scan::hash::{self, HashOptions};
use crate::scan::sidecar::{Unproven, prove};
use crate::scan::walk::{self, FoundFile, WalkStep};
use crate::semantics::coding::Coding;

/// A file that can have sidecars.
#[derive(Debug)]
pub(super) struct Source {
    /// Its path in the site: raw bytes, without a leading slash.
    pub(super) site_path: Box<[u8]>,
    /// Where it is, free of links, relative to the root.
    pub(super) location: PathBuf,
    /// Where its sidecars belong, free of links, relative to the root.
    pub(super) directory: PathBuf,
    /// Its length when it was found.
    pub(super) length: u64,
    /// Whether the sidecars that are there are this program's work: of the three, gzip's can
    /// carry a mark.
    pub(super) is_ours: bool,
}

/// A sidecar that is there or could be.
#[derive(Debug)]
pub(super) struct Sidecar {
    /// The file beside it.
    pub(super) source: Arc<Source>,
    /// Its coding.
    pub(super) coding: Coding,
    /// What there is of it.
    pub(super) state: State,
}

/// What there is of a sidecar.
#[derive(Debug)]
pub(super) enum State {
    /// Nothing.
    Missing,
    /// It decodes to its source; it has this length.
    Proven(u64),
    /// It does not.
    Unproven(Unproven),
    /// It was written, with this length.
    Written(u64),
    /// It was there, and was removed.
    Removed,
}

impl Source {
    /// For messages.
    pub(super) fn path(&self) -> PathBuf {
        self.directory.join(self.name())
    }

    /// Name of a sidecar in [`Self::directory`].
    pub(super) fn sidecar(&self, coding: Coding) -> OsString {
        OsStr::from_bytes(&beside(self.name().as_bytes(), coding)).to_owned()
    }

    fn name(&self) -> &OsStr {
        let name = self.site_path.rsplit(|byte| *byte == b'/').next();
        OsStr::from_bytes(name.unwrap_or(&self.site_path))
    }
}

/// The name of the sidecar of `name`.
fn beside(name: &[u8], coding: Coding) -> Vec<u8> {
    let extension = coding.extension().unwrap_or_default();
    [name, b".", extension.as_bytes()].concat()
}

/// All sidecars that `work` is about: of every file for which one could be written, and, whatever
/// it is, with [`SidecarWork::Check`] of every file that has one.
pub(super) fn survey(root: &Root, work: SidecarWork, problems: &mut Vec<Problem>) -> Vec<Sidecar> {
    let mut site = HashMap::new();
    for found in walk::walk(root.path(), b"", Symlinks::Inside) {
        match found {
            WalkStep::File(found) => {
                site.insert(found.path.clone(), found);
            }
            WalkStep::Rules(..) | WalkStep::Link(_) => {}
            WalkStep::Unreadable(path, reason) => problems.push(Problem {
                path: OsStr::from_bytes(&path).into(),
                trouble: io::Error::other(reason).into(),
            }),
        }
    }
    let examined: Vec<_> = site
        .par_iter()
        .filter(|(path, _)| work == SidecarWork::Check || encode::is_compressible(path, true))
        .filter_map(|(_, found)| examine(root, work, found, &site).transpose())
        .collect();
    // Through linked directories one file has several paths, but one place for its sidecars.
    let mut places = HashSet::new();
    let mut sidecars = Vec::new();
    for result in examined {
        match result {
            Ok(of_file) => sidecars.extend(of_file.into_iter().filter(|sidecar| {
                let source = &sidecar.source;
                places.insert((source.directory.clone(), source.sidecar(sidecar.coding)))
            })),
            Err(problem) => problems.push(problem),
        }
    }
    sidecars
}

type Site = HashMap<Box<[u8]>, FoundFile>;

/// The sidecars of one file; `None` where it is gone, or `work` is not about it.
fn examine(
    root: &Root,
    work: SidecarWork,
    found: &FoundFile,
    site: &Site,
) -> Result<Option<[Sidecar; CODINGS.len()]>, Problem> {
    let present = CODINGS.map(|coding| site.get(beside(&found.path, coding).as_slice()));
    let has_some = present.iter().any(Option::is_some);
    if work == SidecarWork::Check && !has_some {
        return Ok(None);
    }
    let look = || -> Result<_, Trouble> {
        let opened = root.open_file(&found.location)?;
        if !has_some && opened.stamp.size < SMALLEST {
            return Ok(None);
        }
        let source = Arc::new(Source {
            site_path: found.path.clone(),
            location: found.location.clone(),
            directory: directory(root, found)?,
            length: opened.stamp.size,
            is_ours: CODINGS
                .iter()
                .zip(present)
                .any(|(coding, found)| *coding == Coding::Gzip && is_ours(root, found)),
        });
        // Whether a name without extension stands for text, its bytes tell.
        let is_text = encode::is_compressible(&found.path, false);
        let mut hash = [0; 32];
        if has_some || !is_text {
            let content = hash::content(&opened.file, source.length, HashOptions::default())?;
            if disk::stamp(&opened.file)? != opened.stamp {
                return Err(Trouble::Changed);
            }
            if work != SidecarWork::Check && !is_text && !content.utf8 {
                return Ok(None);
            }
            hash = content.hash;
        }
        let sidecar = |coding, present: Option<&FoundFile>| Sidecar {
            source: Arc::clone(&source),
            coding,
            state: present.map_or(State::Missing, |sidecar| {
                state(root, coding, sidecar, &hash, source.length)
            }),
        };
        Ok(Some(array::from_fn(|index| {
            sidecar(CODINGS[index], present[index])
        })))
    };
    match look() {
        Ok(sidecars) => Ok(sidecars),
        Err(Trouble::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(trouble) => {
            let path = OsStr::from_bytes(&found.path).into();
            Err(Problem { path, trouble })
        }
    }
}

fn state(root: &Root, coding: Coding, sidecar: &FoundFile, hash: &[u8; 32], length: u64) -> State {
    match root.open_file(&sidecar.location) {
        Ok(opened) => match prove(coding, opened.file, hash, length) {
            Ok(()) => State::Proven(opened.stamp.size),
            Err(reason) => State::Unproven(reason),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => State::Missing,
        Err(error) => State::Unproven(Unproven::Unreadable(error)),
    }
}

/// Whether a gzip file begins as this program's do.
fn is_ours(root: &Root, found: Option<&FoundFile>) -> bool {
    let mut header = [0; encode::GZIP_HEADER.len()];
    let opened = found.and_then(|found| root.open_file(&found.location).ok());
    opened.is_some_and(|opened| {
        disk::read_exact_at(&opened.file, &mut header, 0).is_ok() && header == encode::GZIP_HEADER
    })
}

/// The real directory in which `found` has its name.
fn directory(root: &Root, found: &FoundFile) -> io::Result<PathBuf> {
    let parent = |path: &Path| path.parent().unwrap_or(Path::new("")).to_path_buf();
    if !found.linked {
        return Ok(parent(&found.location));
    }
    let named = root.path().join(OsStr::from_bytes(&found.path));
    let real = parent(&named).canonicalize()?;
    match real.strip_prefix(root.path()) {
        Ok(relative) => Ok(relative.to_path_buf()),
        Err(_) => Err(io::Error::other("a link leads out of the site")),
    }
}

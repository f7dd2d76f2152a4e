//! Sidecars made ahead of time: `x.br`, `x.zst` and `x.gz` beside every `x` that is worth it, so
//! that replicas ship equal bytes.
//!
//! [`run`] looks at the files that a scan would admit, proves the sidecars that are there, and
//! then writes what is missing or does not match. A sidecar is encoded in memory, proven like any
//! other, and only then given its name; whoever reads the directory sees the old one or the new
//! one. For one version of etagd, equal files get equal sidecars on any machine.
//!
//! It overwrites and removes only its own work: `dump.sql.gz` beside `dump.sql` may be a backup.
//! A gzip sidecar of ours begins as no other program's does, and vouches for the other two beside
//! it. All else that is not proven is left alone, with a message.

mod encode;
mod survey;

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::iter::{ParallelBridge, ParallelIterator};

use crate::config::SidecarWork;
use crate::disk::{self, Opened, Root};
use crate::scan::sidecar::{Unproven, prove};
use crate::semantics::coding::Coding;
use crate::staging::Directory;
use survey::{Sidecar, Source, State};

/// The codings of sidecars, in the order of a [`Report`].
pub const CODINGS: [Coding; 3] = [Coding::Brotli, Coding::Zstd, Coding::Gzip];

/// Shorter files are not worth a sidecar.
const SMALLEST: u64 = 1 << 10;
/// Longer files are no pages; a file and its sidecar are held in memory, one for each thread.
const LARGEST: u64 = 256 << 20;
/// A sidecar is worth having up to this many hundredths of its file.
const WORTH: u64 = 95;

/// How far the work has come; readable from other threads.
#[derive(Debug, Default)]
pub struct Progress {
    total: AtomicU64,
    done: AtomicU64,
}

impl Progress {
    /// Bytes to encode; 0 as long as that is not known.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Bytes encoded.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }
}

/// What was found and done.
#[derive(Debug, Default)]
pub struct Report {
    /// Files that can have sidecars; with [`SidecarWork::Check`], those that do have some.
    pub files: u64,
    /// Their bytes.
    pub before: u64,
    /// What they are to a client that takes this one of [`CODINGS`] alone.
    pub after: [u64; CODINGS.len()],
    /// Sidecars that were proven as they were found.
    pub proven: u64,
    /// Sidecars written.
    pub written: u64,
    /// Sidecars removed.
    pub removed: u64,
    /// What was not done, or is not as it should be; ordered by path.
    pub problems: Vec<Problem>,
}

/// Something that is not as it should be.
#[derive(Debug)]
pub struct Problem {
    /// The file, sidecar or directory, relative to the root.
    pub path: PathBuf,
    /// What is wrong with it.
    pub trouble: Trouble,
}

/// What is wrong with a file, a sidecar or a directory.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// A sidecar is not what its name says.
    #[error(transparent)]
    Unproven(#[from] Unproven),
    /// The same, and it may be something else that is needed.
    #[error("{0}: left alone; remove it and run again")]
    Foreign(Unproven),
    /// A sidecar that something else has written.
    #[error("it does not look like the work of etagd compress: left alone")]
    NotOurs,
    /// A file changed under our hands.
    #[error("it changed meanwhile: left out; run again once it is complete")]
    Changed,
    /// A file is over the limit.
    #[error("it is larger than 256 MiB: left out")]
    Large,
    /// What was encoded does not decode to the file.
    #[error("its encoder failed ({0}): not written; please report this")]
    Encoder(Unproven),
    /// A directory takes no new files.
    #[error("sidecars cannot be written here: {0}")]
    Directory(io::Error),
    /// The system refuses.
    #[error("{0}")]
    Io(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // Shorter than it was when it was opened.
            io::ErrorKind::UnexpectedEof => Self::Changed,
            _ => Self::Io(error),
        }
    }
}

impl Trouble {
    /// Whether the work is not done, as against left out on purpose.
    pub fn is_failure(&self) -> bool {
        !matches!(self, Self::Changed | Self::Large | Self::NotOurs)
    }
}

/// Does `work` for the site under `root`.
pub fn run(root: &Root, work: SidecarWork, progress: &Progress) -> Report {
    let mut report = Report::default();
    let mut sidecars = survey::survey(root, work, &mut report.problems);
    let to_encode = |sidecar: &Sidecar| match (work, &sidecar.state) {
        (SidecarWork::Write, State::Missing | State::Unproven(_)) => sidecar.source.length,
        _ => 0,
    };
    let total = sidecars.iter().map(to_encode).sum();
    progress.total.store(total, Ordering::Relaxed);
    if work != SidecarWork::Check {
        let directories: BTreeSet<_> = sidecars.iter().map(|each| &each.source.directory).collect();
        for path in directories {
            // Where that fails, so will what is to be done there, with a message.
            let _ = Directory::open(root, path).and_then(|directory| directory.clear());
        }
    }
    // The largest first, so that no thread is left alone with one at the end.
    sidecars.sort_by_key(|sidecar| (Reverse(sidecar.source.length), sidecar.coding));
    let results: Vec<_> = sidecars
        .into_iter()
        .par_bridge()
        .map(|sidecar| {
            let (source, coding) = (Arc::clone(&sidecar.source), sidecar.coding);
            let length = to_encode(&sidecar);
            let result = act(root, work, sidecar);
            progress.done.fetch_add(length, Ordering::Relaxed);
            (source, coding, result)
        })
        .collect();
    let mut touched = BTreeSet::new();
    for (source, coding, result) in results {
        report.add(&source, coding, &result);
        match result {
            Ok(State::Written(_) | State::Removed) => {
                touched.insert(source.directory.clone());
            }
            Ok(State::Missing | State::Proven(_) | State::Unproven(_)) => {}
            Err(problem) => report.problems.push(problem),
        }
    }
    for path in touched {
        let synced = Directory::open(root, &path).and_then(|directory| directory.sync());
        if let Err(error) = synced {
            let trouble = Trouble::Directory(error);
            report.problems.push(Problem { path, trouble });
        }
    }
    report.problems.sort_by(|a, b| a.path.cmp(&b.path));
    // What a file or directory suffers from is told once for each of its sidecars.
    report
        .problems
        .dedup_by(|a, b| a.path == b.path && a.trouble.to_string() == b.trouble.to_string());
    report
}

impl Report {
    fn add(&mut self, source: &Source, coding: Coding, result: &Result<State, Problem>) {
        if coding == CODINGS[0] {
            self.files += 1;
            self.before += source.length;
        }
        let length = match result {
            Ok(State::Proven(length)) => {
                self.proven += 1;
                *length
            }
            Ok(State::Written(length)) => {
                self.written += 1;
                *length
            }
            Ok(State::Removed) => {
                self.removed += 1;
                source.length
            }
            Ok(State::Missing | State::Unproven(_)) | Err(_) => source.length,
        };
        for (after, of) in self.after.iter_mut().zip(CODINGS) {
            if of == coding {
                *after += length;
            }
        }
    }
}

/// Does `work` for one sidecar, and tells what has become of it.
fn act(root: &Root, work: SidecarWork, sidecar: Sidecar) -> Result<State, Problem> {
    let Sidecar {
        source,
        coding,
        state,
    } = sidecar;
    let done = match (work, state) {
        (SidecarWork::Write, State::Unproven(reason)) if !source.is_ours || !reason.decodes() => {
            Err(Trouble::Foreign(reason))
        }
        (SidecarWork::Remove, State::Proven(_)) if !source.is_ours => Err(Trouble::NotOurs),
        (SidecarWork::Write, State::Unproven(_)) => write(root, &source, coding, true),
        (SidecarWork::Write, State::Missing) => write(root, &source, coding, false),
        (SidecarWork::Remove, State::Proven(_)) => remove(root, &source, coding),
        (_, State::Unproven(reason)) => Err(reason.into()),
        (_, state) => Ok(state),
    };
    done.map_err(|trouble| {
        let path = match trouble {
            Trouble::Changed | Trouble::Large => source.path(),
            Trouble::Directory(_) => source.directory.clone(),
            Trouble::Unproven(_)
            | Trouble::Foreign(_)
            | Trouble::NotOurs
            | Trouble::Encoder(_)
            | Trouble::Io(_) => source.directory.join(source.sidecar(coding)),
        };
        Problem { path, trouble }
    })
}

/// Writes one sidecar where it is worth it; where it is not, a stale one is taken away.
fn write(root: &Root, source: &Source, coding: Coding, stale: bool) -> Result<State, Trouble> {
    if source.length > LARGEST {
        return Err(Trouble::Large);
    }
    // To know it before the work.
    let directory = Directory::open(root, &source.directory).map_err(Trouble::Directory)?;
    directory.check_writable().map_err(Trouble::Directory)?;
    let (opened, bytes) = read(root, source)?;
    let Some(encoded) = encode_if_worth_it(source, coding, &bytes)? else {
        return if stale {
            remove(root, source, coding)
        } else {
            Ok(State::Missing)
        };
    };
    let hash = *blake3::hash(&bytes).as_bytes();
    prove(coding, encoded.as_slice(), &hash, bytes.len() as u64).map_err(Trouble::Encoder)?;
    // Under its name there may be another file by now.
    if root.open_file(&source.location)?.stamp != opened.stamp {
        return Err(Trouble::Changed);
    }
    directory.write(&source.sidecar(coding), &encoded, &opened.file)?;
    Ok(State::Written(encoded.len() as u64))
}

/// The whole file, open still.
fn read(root: &Root, source: &Source) -> Result<(Opened, Vec<u8>), Trouble> {
    let opened = root.open_file(&source.location)?;
    let mut bytes = Vec::with_capacity(source.length as usize);
    (&opened.file).take(LARGEST + 1).read_to_end(&mut bytes)?;
    let is_whole = bytes.len() as u64 == opened.stamp.size;
    if is_whole && disk::stamp(&opened.file)? == opened.stamp {
        Ok((opened, bytes))
    } else {
        Err(Trouble::Changed)
    }
}

fn encode_if_worth_it(
    source: &Source,
    coding: Coding,
    bytes: &[u8],
) -> Result<Option<Vec<u8>>, Trouble> {
    let length = bytes.len() as u64;
    let utf8 = std::str::from_utf8(bytes).is_ok();
    if length < SMALLEST || !encode::is_compressible(&source.site_path, utf8) {
        return Ok(None);
    }
    let encoded = encode::encode(coding, bytes)?;
    let is_worth_it = encoded.len() as u64 * 100 <= length * WORTH;
    Ok(is_worth_it.then_some(encoded))
}

fn remove(root: &Root, source: &Source, coding: Coding) -> Result<State, Trouble> {
    let directory = Directory::open(root, &source.directory).map_err(Trouble::Directory)?;
    directory.remove(&source.sidecar(coding))?;
    Ok(State::Removed)
}

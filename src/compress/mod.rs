//! Writes sidecars ahead of time: `x.br`, `x.zst` and `x.gz` next to every `x` that gains from it,
//! so that all replicas ship the same bytes.
//!
//! [`run`] looks at the files that a scan would admit, proves the sidecars that exist, and then
//! writes those that are missing or stale. A sidecar is encoded in memory, proven like any other
//! and only then given its name, so a reader of the directory sees the old one or the new one. For
//! one version of etagd, equal files get equal sidecars on any machine.
//!
//! It overwrites and removes only its own work: `dump.sql.gz` next to `dump.sql` may be a backup.
//! etagd marks its gzip sidecars, and such a mark vouches for the other two codings of the same
//! file. Everything else that is not proven is left alone, and reported.

mod against;
mod delta;
mod deltas;
mod survey;

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashSet};
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use rayon::iter::{ParallelBridge, ParallelIterator};

use crate::disk::{self, Opened, Root};
use crate::exclude::Exclusions;
use crate::inventory::url;
use crate::progress::ByteProgress;
use crate::scan::encode::{self, Effort, MIN_LENGTH};
use crate::scan::sidecar::{Unproven, missing_dictionaries, prove};
use crate::scan::text::text_kind_of;
use crate::semantics::coding::Coding;
use crate::staging::Directory;
pub use against::{AgainstError, EarlierReleases};
pub use deltas::DeltaReport;
pub use survey::SidecarWork;
use survey::{Sidecar, SidecarState, SourceFile};

/// The codings of sidecars, in the order of [`CompressReport::after`].
pub const CODINGS: [Coding; 3] = [Coding::Brotli, Coding::Zstd, Coding::Gzip];

/// Longer files are not compressed: each thread holds a file and its sidecar in memory.
const MAX_LENGTH: u64 = 256 << 20;
/// Files that one message names.
const MAX_NAMED: usize = 3;

/// What was found and done.
#[derive(Debug, Default)]
pub struct CompressReport {
    /// Number of files that can have sidecars; with [`SidecarWork::Check`], that do have some.
    pub files: u64,
    /// Their length in bytes.
    pub before: u64,
    /// Their length for a client that accepts only this one of [`CODINGS`].
    pub after: [u64; CODINGS.len()],
    /// Number of sidecars that were proven as they were found.
    pub proven: u64,
    /// Number of sidecars written.
    pub written: u64,
    /// Number of sidecars removed.
    pub removed: u64,
    /// What was not done, or is not as it should be; ordered by path.
    pub problems: Vec<SidecarProblem>,
}

/// A file, a sidecar or a directory that is not as it should be.
#[derive(Debug)]
pub struct SidecarProblem {
    /// Its path, relative to the root; absolute if it is of an earlier release.
    pub path: PathBuf,
    /// What is wrong with it.
    pub error: SidecarError,
}

/// What is wrong with a file, a sidecar or a directory.
#[derive(Debug, thiserror::Error)]
pub enum SidecarError {
    /// A sidecar does not decode to its file.
    #[error(transparent)]
    Unproven(#[from] Unproven),
    /// A sidecar does not decode to its file, and may be something else that is needed.
    #[error("{0}: left alone; remove it and run again")]
    Foreign(Unproven),
    /// A proven sidecar that another program has written.
    #[error("it does not look like the work of etagd compress: left alone")]
    NotOurs,
    /// Deltas whose dictionaries are missing.
    #[error("{}", missing_dictionaries(*deltas, *dictionaries))]
    NoDictionaries {
        /// Number of deltas.
        deltas: usize,
        /// Number of dictionaries that they need.
        dictionaries: usize,
    },
    /// What is needed to know whether a delta or a dictionary is of use can't be read.
    #[error(
        "it is not known whether this is still needed, because {} cannot be read ({reason}): left \
         alone; run again once that can be read",
        .path.display()
    )]
    Unsure {
        /// The path of what can't be read, relative to the root.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A file or directory of an earlier release can't be read.
    #[error(
        "it cannot be read ({0}): deltas against it are neither written nor removed; run again once \
         that can be read, or leave it out with --exclude"
    )]
    UnreadableDictionary(String),
    /// Files of an earlier release, by their paths in the site, are not what its manifest lists.
    #[error("{}", not_as_listed(.0))]
    NotAsListed(Vec<Box<[u8]>>),
    /// A file changed while it was read.
    #[error("it changed meanwhile: left out; run again once it is complete")]
    Changed,
    /// A file is larger than 256 MiB.
    #[error("it is larger than 256 MiB: left out")]
    TooLarge,
    /// A new sidecar does not decode to its file.
    #[error("its encoder failed ({0}): not written; please report this")]
    Encoder(Unproven),
    /// A file and its dictionary have more than brotli's window holds.
    #[error(
        "with its dictionary it has more than 16 MiB, so that it has no delta in brotli: dcz alone"
    )]
    BrotliWindow,
    /// Brotli's encoder has a fault with this file and its dictionary.
    #[error(
        "brotli's encoder writes nothing that decodes with its dictionary, so that it has no delta in \
         brotli: dcz alone"
    )]
    BrotliEncoder,
    /// A dictionary is too long for any delta.
    #[error("its dictionary has more than 96 MiB: no delta")]
    ZstdWindow,
    /// A directory takes no new files.
    #[error("sidecars cannot be written here: {0}")]
    Directory(io::Error),
    /// A file or sidecar cannot be read or written.
    #[error("{0}")]
    Io(io::Error),
}

/// What is said once of all files of a release that are not what its manifest lists, and what can be
/// done about it.
fn not_as_listed(paths: &[Box<[u8]>]) -> String {
    let named = paths.iter().take(MAX_NAMED).map(|path| url(path));
    let mut named = named.collect::<Vec<_>>().join(", ");
    let more = paths.len().saturating_sub(MAX_NAMED);
    if more > 0 {
        named += &format!(" and {more} more");
    }
    let subject = match paths.len() {
        1 => "1 file that it lists is gone or has other bytes now".to_owned(),
        count => format!("{count} files that it lists are gone or have other bytes now"),
    };
    format!(
        "{subject} ({named}): no deltas against what was there; put that release back, or, if \
         browsers have what is there now, write the manifest again"
    )
}

impl From<io::Error> for SidecarError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // It became shorter after it was opened.
            io::ErrorKind::UnexpectedEof => Self::Changed,
            _ => Self::Io(error),
        }
    }
}

impl SidecarError {
    /// Whether it says why a file has no delta, and no more: there is nothing to be done about it.
    fn is_note(&self) -> bool {
        matches!(
            self,
            Self::BrotliWindow | Self::BrotliEncoder | Self::ZstdWindow
        )
    }
}

impl SidecarProblem {
    /// Whether this makes `work` fail. What is left out on purpose does not.
    #[must_use]
    pub fn is_failure(&self, work: SidecarWork) -> bool {
        match work {
            SidecarWork::Check => true,
            SidecarWork::Write => {
                let is_left_out = matches!(
                    self.error,
                    SidecarError::Changed
                        | SidecarError::TooLarge
                        | SidecarError::NotOurs
                        | SidecarError::NotAsListed(_)
                );
                !is_left_out && !self.error.is_note()
            }
            // Only proven sidecars were to be removed.
            SidecarWork::Remove => {
                self.is_failure(SidecarWork::Write)
                    && !matches!(self.error, SidecarError::Unproven(_))
            }
        }
    }
}

/// Does `work` for the site under `root`, but for what is left out of it.
pub fn run(
    root: &Root,
    work: SidecarWork,
    exclusions: &Exclusions,
    progress: &ByteProgress,
) -> CompressReport {
    let mut report = CompressReport::default();
    let mut sidecars = survey::survey(root, work, exclusions, &mut report.problems);
    progress.set_total(
        sidecars
            .iter()
            .map(|sidecar| length_to_encode(work, sidecar))
            .sum(),
    );
    if work != SidecarWork::Check {
        remove_temporary_files(root, &sidecars);
    }
    // The largest first, so that no thread is left alone with one at the end.
    sidecars.sort_by_key(|sidecar| (Reverse(sidecar.source.length), sidecar.coding));
    let results: Vec<_> = sidecars
        .into_iter()
        .par_bridge()
        .map(|sidecar| {
            let (source, coding) = (Arc::clone(&sidecar.source), sidecar.coding);
            let length = length_to_encode(work, &sidecar);
            let result = process(root, work, sidecar);
            progress.add(length);
            (source, coding, result)
        })
        .collect();
    let mut changed = BTreeSet::new();
    for (source, coding, result) in results {
        report.add(&source, coding, &result);
        match result {
            Ok(SidecarState::Written(_) | SidecarState::Removed) => {
                changed.insert(source.directory.clone());
            }
            Ok(SidecarState::Missing | SidecarState::Proven(_) | SidecarState::Unproven(_)) => {}
            Err(problem) => report.problems.push(problem),
        }
    }
    // Once for each directory: an fsync costs milliseconds, and three sidecars share it.
    for path in changed {
        let synced = Directory::open(root, &path).and_then(|directory| directory.sync());
        if let Err(error) = synced {
            let error = SidecarError::Directory(error);
            report.problems.push(SidecarProblem { path, error });
        }
    }
    report.problems.sort_by(|a, b| a.path.cmp(&b.path));
    // A problem of a file or a directory comes up once for each of its sidecars.
    report
        .problems
        .dedup_by(|a, b| a.path == b.path && a.error.to_string() == b.error.to_string());
    report
}

/// Does `work` for the deltas of the site under `root`; those that it writes are against the files of
/// `earlier` releases.
pub fn run_deltas(
    root: &Root,
    work: SidecarWork,
    earlier: &EarlierReleases,
    exclusions: &Exclusions,
    progress: &ByteProgress,
) -> DeltaReport {
    deltas::run(root, work, earlier, exclusions, progress)
}

impl DeltaReport {
    /// Leaves out the problems that are in `report` as well: both look at the same files.
    pub fn leave_out_problems_of(&mut self, report: &CompressReport) {
        let text = |it: &SidecarProblem| (it.path.clone(), it.error.to_string());
        let known: HashSet<_> = report.problems.iter().map(text).collect();
        self.problems.retain(|it| !known.contains(&text(it)));
    }
}

/// How many bytes have to be encoded for a sidecar.
fn length_to_encode(work: SidecarWork, sidecar: &Sidecar) -> u64 {
    match (work, &sidecar.state) {
        (SidecarWork::Write, SidecarState::Missing | SidecarState::Unproven(_)) => {
            sidecar.source.length
        }
        _ => 0,
    }
}

/// Removes what a run that was killed has left behind.
fn remove_temporary_files(root: &Root, sidecars: &[Sidecar]) {
    let directories: BTreeSet<_> = sidecars
        .iter()
        .map(|sidecar| &sidecar.source.directory)
        .collect();
    for path in directories {
        // If this fails, so will the work in that directory, and that is reported.
        let _ = Directory::open(root, path).and_then(|directory| directory.clear());
    }
}

impl CompressReport {
    fn add(
        &mut self,
        source: &SourceFile,
        coding: Coding,
        result: &Result<SidecarState, SidecarProblem>,
    ) {
        // A file comes once with each coding, and is counted with the first.
        if coding == CODINGS[0] {
            self.files += 1;
            self.before += source.length;
        }
        let length = match result {
            Ok(SidecarState::Proven(length)) => {
                self.proven += 1;
                *length
            }
            Ok(SidecarState::Written(length)) => {
                self.written += 1;
                *length
            }
            Ok(SidecarState::Removed) => {
                self.removed += 1;
                source.length
            }
            Ok(SidecarState::Missing | SidecarState::Unproven(_)) | Err(_) => source.length,
        };
        for (after, of) in self.after.iter_mut().zip(CODINGS) {
            if of == coding {
                *after += length;
            }
        }
    }
}

/// Does `work` for one sidecar and returns its new state.
fn process(
    root: &Root,
    work: SidecarWork,
    sidecar: Sidecar,
) -> Result<SidecarState, SidecarProblem> {
    let Sidecar {
        source,
        coding,
        state,
    } = sidecar;
    let result = match (work, state) {
        (SidecarWork::Write, SidecarState::Unproven(reason))
            if !source.is_ours || !reason.decodes() =>
        {
            Err(SidecarError::Foreign(reason))
        }
        (SidecarWork::Remove, SidecarState::Proven(_)) if !source.is_ours => {
            Err(SidecarError::NotOurs)
        }
        (SidecarWork::Write, SidecarState::Unproven(_)) => write(root, &source, coding, true),
        (SidecarWork::Write, SidecarState::Missing) => write(root, &source, coding, false),
        (SidecarWork::Remove, SidecarState::Proven(_)) => remove(root, &source, coding),
        (_, SidecarState::Unproven(reason)) => Err(reason.into()),
        (_, state) => Ok(state),
    };
    result.map_err(|error| {
        let path = match error {
            SidecarError::Changed | SidecarError::TooLarge => source.path(),
            SidecarError::Directory(_) => source.directory.clone(),
            SidecarError::Unproven(_)
            | SidecarError::Foreign(_)
            | SidecarError::NotOurs
            | SidecarError::Encoder(_)
            | SidecarError::BrotliWindow
            | SidecarError::BrotliEncoder
            | SidecarError::ZstdWindow
            | SidecarError::NoDictionaries { .. }
            | SidecarError::Unsure { .. }
            | SidecarError::UnreadableDictionary(_)
            | SidecarError::NotAsListed(_)
            | SidecarError::Io(_) => source.directory.join(source.sidecar_name(coding)),
        };
        SidecarProblem { path, error }
    })
}

/// Writes a sidecar if its file gains from it; if not, removes a stale one.
fn write(
    root: &Root,
    source: &SourceFile,
    coding: Coding,
    is_stale: bool,
) -> Result<SidecarState, SidecarError> {
    if source.length > MAX_LENGTH {
        return Err(SidecarError::TooLarge);
    }
    // Encoding may take a minute: a read-only directory is reported before it.
    let directory = Directory::open(root, &source.directory).map_err(SidecarError::Directory)?;
    directory
        .check_writable()
        .map_err(SidecarError::Directory)?;
    let (opened, bytes) = read(root, source)?;
    let Some(encoded) = encode_if_worth_it(source, coding, &bytes)? else {
        return if is_stale {
            remove(root, source, coding)
        } else {
            Ok(SidecarState::Missing)
        };
    };
    let hash = *blake3::hash(&bytes).as_bytes();
    prove(coding, encoded.as_slice(), &hash, bytes.len() as u64).map_err(SidecarError::Encoder)?;
    // The file may have been replaced while it was encoded; the sidecar would be stale at once.
    if root.open_file(&source.location)?.stamp != opened.stamp {
        return Err(SidecarError::Changed);
    }
    directory.write(&source.sidecar_name(coding), &encoded, &opened.file)?;
    Ok(SidecarState::Written(encoded.len() as u64))
}

/// Reads the whole file. It stays open, so that the sidecar can have its permissions.
fn read(root: &Root, source: &SourceFile) -> Result<(Opened, Vec<u8>), SidecarError> {
    let opened = root.open_file(&source.location)?;
    let mut bytes = Vec::with_capacity(source.length as usize);
    // One byte more than the maximum, so that a file that grew meanwhile is noticed.
    (&opened.file)
        .take(MAX_LENGTH + 1)
        .read_to_end(&mut bytes)?;
    let is_whole = bytes.len() as u64 == opened.stamp.size;
    if is_whole && disk::stamp(&opened.file)? == opened.stamp {
        Ok((opened, bytes))
    } else {
        Err(SidecarError::Changed)
    }
}

fn encode_if_worth_it(
    source: &SourceFile,
    coding: Coding,
    bytes: &[u8],
) -> Result<Option<Vec<u8>>, SidecarError> {
    let length = bytes.len() as u64;
    let text = text_kind_of(bytes);
    if length < MIN_LENGTH || !encode::is_compressible(&source.site_path, text) {
        return Ok(None);
    }
    let encoded = encode::encode(coding, Effort::Sidecar, bytes, &|| ())?;
    Ok(encode::is_worth_it(&encoded, length).then_some(encoded))
}

fn remove(root: &Root, source: &SourceFile, coding: Coding) -> Result<SidecarState, SidecarError> {
    let directory = Directory::open(root, &source.directory).map_err(SidecarError::Directory)?;
    directory.remove(&source.sidecar_name(coding))?;
    Ok(SidecarState::Removed)
}

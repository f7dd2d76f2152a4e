//! Deltas, written ahead of time: `x.0123456789abcdef.dcb` and `.dcz` next to an `x` that replaces a
//! file of an earlier release (RFC 9842), for each file that a client may have in its place.
//!
//! What proves a delta, the earlier file, is kept in `.etagd/dictionaries` unless it is still part of
//! the site. What no delta refers to any more is removed from there.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::against::{
    EarlierReleases, OldContent, OldFile, Unreadable, may_be_relative, read_up_to,
};
use super::survey::{SidecarWork, real_directory};
use super::{CODINGS, MAX_LENGTH, MIN_LENGTH, SidecarError, SidecarProblem, delta};
use crate::disk::{self, Root};
use crate::exclude::Exclusions;
use crate::progress::ByteProgress;
use crate::scan::sidecar::{Unproven, prove_delta};
use crate::scan::walk::{FoundFile, WalkStep, walk};
use crate::scan::{DICTIONARIES, delta_family, dictionary_path};
use crate::semantics::coding::{Coding, MAX_HEADER_LENGTH, delta_stem};
use crate::semantics::dictionary::DictionaryHash;
use crate::settings::{Family, Symlinks};
use crate::staging::Directory;

/// The maximum length of a delta, as a percentage of the best coding without a dictionary: below it,
/// it is worth its place on every replica's disk.
const MAX_PERCENT: u64 = 90;

/// What was found and done.
#[derive(Debug, Default)]
pub struct DeltaReport {
    /// Number of files that have deltas.
    pub files: u64,
    /// Their length in their best coding without a dictionary.
    pub before: u64,
    /// The length of their longest delta, if it is the shorter one of two codings.
    pub after: u64,
    /// Number of deltas that were proven as they were found.
    pub proven: u64,
    /// Number of deltas written.
    pub written: u64,
    /// Number of deltas removed.
    pub removed: u64,
    /// Why a file has no delta, or only one of both codings.
    pub notes: Vec<SidecarProblem>,
    /// What was not done, or is not as it should be; ordered by path.
    pub problems: Vec<SidecarProblem>,
}

impl DeltaReport {
    fn add(&mut self, outcome: FileOutcome, missed: &mut Missed) {
        if let Some(longest) = outcome.shortest.iter().max() {
            self.files += 1;
            self.before += outcome.plain;
            self.after += longest;
        }
        self.proven += outcome.proven;
        self.written += outcome.written;
        self.notes.extend(outcome.notes);
        self.problems.extend(outcome.problems);
        missed.unreadable.extend(outcome.missed.unreadable);
        missed.not_as_listed.extend(outcome.missed.not_as_listed);
    }
}

/// The files of the site by their paths.
type SiteFiles = BTreeMap<Box<[u8]>, FoundFile>;

/// Does `work` for the deltas of the site under `root`. What is written is against the files of
/// `earlier` releases.
pub(super) fn run(
    root: &Root,
    work: SidecarWork,
    earlier: &EarlierReleases,
    exclusions: &Exclusions,
    progress: &ByteProgress,
) -> DeltaReport {
    let (mut files, mut unreadable) = (SiteFiles::new(), BTreeMap::new());
    for step in walk(root.path(), b"", Symlinks::Inside, exclusions) {
        match step {
            WalkStep::File(file) => drop(files.insert(file.path.clone(), file)),
            WalkStep::Unreadable(path, error) => drop(unreadable.insert(path, error)),
            WalkStep::Rules(..) | WalkStep::Folder(_) | WalkStep::Link(_) | WalkStep::End(_) => {}
        }
    }
    let run = DeltaRun {
        root,
        files: &files,
        unreadable: &unreadable,
        families: OnceLock::new(),
        exclusions,
        sha256: Mutex::default(),
    };
    let mut report = match work {
        SidecarWork::Write => run.write(earlier, progress),
        SidecarWork::Check => run.check(),
        SidecarWork::Remove => run.remove(),
    };
    let unreadable = unreadable.into_iter();
    let unreadable = unreadable.map(|(path, error)| problem(&path, error.into()));
    report.problems.extend(unreadable);
    report.problems = with_missing_as_one(report.problems);
    report.problems.sort_by(|a, b| a.path.cmp(&b.path));
    report.notes.sort_by(|a, b| a.path.cmp(&b.path));
    report
}

/// The problems, of which those with missing dictionaries are one: a deploy that drops these drops all
/// of them.
fn with_missing_as_one(problems: Vec<SidecarProblem>) -> Vec<SidecarProblem> {
    let (mut others, mut missing) = (Vec::new(), Vec::new());
    for problem in problems {
        match problem.error {
            SidecarError::Unproven(Unproven::NoDictionary(hash)) => missing.push(hash),
            _ => others.push(problem),
        }
    }
    if !missing.is_empty() {
        let error = SidecarError::NoDictionaries {
            deltas: missing.len(),
            dictionaries: missing.iter().collect::<BTreeSet<_>>().len(),
        };
        others.push(problem(DICTIONARIES.as_bytes(), error));
    }
    others
}

/// An earlier file, as a dictionary.
struct Dictionary<'o> {
    hash: DictionaryHash,
    bytes: Vec<u8>,
    file: &'o OldFile,
}

/// What became of one delta.
enum DeltaState {
    Proven(u64),
    Written(u64),
    /// It would be no shorter.
    Useless,
}

/// What became of the deltas of one file.
#[derive(Default)]
struct FileOutcome {
    plain: u64,
    /// The shorter delta for each dictionary.
    shortest: Vec<u64>,
    proven: u64,
    written: u64,
    notes: Vec<SidecarProblem>,
    problems: Vec<SidecarProblem>,
    missed: Missed,
}

/// What of earlier releases is no dictionary, although it may be one.
#[derive(Default)]
struct Missed {
    unreadable: Vec<Unreadable>,
    /// Paths of files that are not what a manifest lists, each with that manifest.
    not_as_listed: Vec<(Arc<Path>, Box<[u8]>)>,
}

impl Missed {
    /// Reports each path that can't be read once, and for each manifest in one sentence which of its
    /// files are others now.
    fn report(mut self, report: &mut DeltaReport) {
        self.unreadable
            .sort_by(|one, other| one.place.cmp(&other.place));
        self.unreadable
            .dedup_by(|one, other| one.place == other.place);
        for Unreadable { place, reason, .. } in self.unreadable {
            let error = SidecarError::UnreadableDictionary(reason);
            report.problems.push(SidecarProblem { path: place, error });
        }
        let mut by_manifest = BTreeMap::<_, BTreeSet<_>>::new();
        for (manifest, path) in self.not_as_listed {
            by_manifest.entry(manifest).or_default().insert(path);
        }
        for (manifest, paths) in by_manifest {
            let paths = paths.into_iter().collect();
            report.problems.push(SidecarProblem {
                path: manifest.to_path_buf(),
                error: SidecarError::NotAsListed(paths),
            });
        }
    }
}

struct DeltaRun<'a> {
    root: &'a Root,
    files: &'a SiteFiles,
    /// What may be files of the site too.
    unreadable: &'a BTreeMap<Box<[u8]>, io::Error>,
    families: OnceLock<HashMap<Family<'a>, Vec<&'a FoundFile>>>,
    exclusions: &'a Exclusions,
    /// The SHA-256 of files of the site, where it was asked for.
    sha256: Mutex<HashMap<Box<[u8]>, DictionaryHash>>,
}

impl<'a> DeltaRun<'a> {
    fn write(&self, earlier: &EarlierReleases, progress: &ByteProgress) -> DeltaReport {
        let work: Vec<_> = self
            .files
            .values()
            .filter_map(|file| {
                let family = delta_family(&file.path)?;
                let dictionaries = earlier.families.get(&family.url_pattern())?;
                let length = self.root.stamp(&file.location).map_or(0, |it| it.size);
                Some((file, dictionaries, length))
            })
            .collect();
        progress.set_total(work.iter().map(|(.., length)| length).sum());
        let outcomes: Vec<_> = work
            .par_iter()
            .map(|(file, dictionaries, length)| {
                let mut outcome = FileOutcome::default();
                if let Err(error) = self.write_file(file, dictionaries, &mut outcome) {
                    outcome.problems.push(problem(&file.path, error));
                }
                progress.add(*length);
                (*file, outcome)
            })
            .collect();
        let mut report = DeltaReport::default();
        let mut missed = Missed {
            unreadable: earlier.unreadable.clone(),
            ..Missed::default()
        };
        // Which deltas these files should have is not known.
        let mut unsettled = BTreeSet::new();
        for (file, outcome) in outcomes {
            if !outcome.problems.is_empty() || !outcome.missed.unreadable.is_empty() {
                unsettled.insert(&*file.path);
            }
            report.add(outcome, &mut missed);
        }
        if earlier.count > 0 {
            let is_useless = |delta: &FoundFile, file: &FoundFile| {
                let mut unreadable = earlier.unreadable.iter();
                // The dictionary that it lacks may be what can't be read at the moment.
                let is_unsettled = unsettled.contains(&*file.path)
                    || unreadable.any(|it| it.may_precede(&file.path));
                match is_unsettled {
                    true => Ok(false),
                    false => self.is_useless(delta, file),
                }
            };
            self.remove_where(is_useless, &mut report);
        }
        self.prune(&mut report);
        missed.report(&mut report);
        report
    }

    /// Writes the deltas of one file against each of these.
    fn write_file(
        &self,
        file: &FoundFile,
        dictionaries: &[OldFile],
        outcome: &mut FileOutcome,
    ) -> Result<(), SidecarError> {
        let opened = match self.root.open_file(&file.location) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
        if !(MIN_LENGTH..=MAX_LENGTH).contains(&opened.stamp.size) {
            return Ok(());
        }
        let bytes = read_whole(self.root, &file.location)?;
        outcome.plain = self.best_plain(file, bytes.len() as u64);
        let mut seen = HashSet::from([sha256(&bytes)]);
        let directory = real_directory(self.root, file)?;
        let open = Directory::open(self.root, &directory).map_err(SidecarError::Directory)?;
        for old in dictionaries {
            let dictionary = match old.read() {
                Ok(OldContent::Dictionary(bytes)) => bytes,
                Ok(OldContent::NotAsListed(manifest)) => {
                    outcome
                        .missed
                        .not_as_listed
                        .push((manifest, old.path().into()));
                    continue;
                }
                Ok(OldContent::TooLong) => {
                    let note = problem(&file.path, SidecarError::ZstdWindow);
                    outcome.notes.push(note);
                    continue;
                }
                Err(error) => {
                    outcome.missed.unreadable.push(old.unreadable(&error));
                    continue;
                }
            };
            let hash = sha256(&dictionary);
            // The file itself, or one that two releases have in common.
            if !seen.insert(hash) {
                continue;
            }
            let dictionary = Dictionary {
                hash,
                bytes: dictionary,
                file: old,
            };
            let mut shortest = None;
            for coding in Coding::with_dictionary(hash) {
                match self.write_delta(file, &open, coding, &dictionary, &bytes, outcome.plain) {
                    Ok(DeltaState::Useless) => {}
                    Ok(DeltaState::Proven(length)) => {
                        outcome.proven += 1;
                        shortest = Some(shortest.map_or(length, |other: u64| other.min(length)));
                    }
                    Ok(DeltaState::Written(length)) => {
                        outcome.written += 1;
                        shortest = Some(shortest.map_or(length, |other: u64| other.min(length)));
                    }
                    Err(error) if error.is_note() => {
                        outcome.notes.push(problem(&file.path, error));
                    }
                    Err(error) => {
                        let path = delta_path(&file.path, coding);
                        outcome.problems.push(problem(&path, error));
                    }
                }
            }
            if shortest.is_some() {
                self.keep(file, &dictionary)?;
            }
            outcome.shortest.extend(shortest);
        }
        if outcome.written > 0 {
            // The file may have been replaced while it was encoded: then all of them are stale.
            if self.root.open_file(&file.location)?.stamp != opened.stamp {
                return Err(SidecarError::Changed);
            }
            open.sync().map_err(SidecarError::Directory)?;
        }
        Ok(())
    }

    fn write_delta(
        &self,
        file: &FoundFile,
        directory: &Directory,
        coding: Coding,
        dictionary: &Dictionary<'_>,
        bytes: &[u8],
        plain: u64,
    ) -> Result<DeltaState, SidecarError> {
        let path = delta_path(&file.path, coding);
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(&path);
        let (hash, length) = (*blake3::hash(bytes).as_bytes(), bytes.len() as u64);
        let prove = |encoded: &[u8]| prove_delta(coding, &dictionary.bytes, encoded, &hash, length);
        let there = self.files.get(path.as_slice());
        if let Some(there) = there {
            let encoded = read_whole(self.root, &there.location)?;
            if prove(&encoded).is_ok() {
                return Ok(DeltaState::Proven(encoded.len() as u64));
            }
        }
        if !delta::is_possible(coding, dictionary.bytes.len() as u64, length) {
            return Err(match coding {
                Coding::DictionaryZstd(_) => SidecarError::ZstdWindow,
                _ => SidecarError::BrotliWindow,
            });
        }
        directory
            .check_writable()
            .map_err(SidecarError::Directory)?;
        let encoded = delta::encode(coding, &dictionary.bytes, bytes)?;
        if encoded.len() as u64 * 100 > plain * MAX_PERCENT {
            if there.is_some() {
                directory.remove(OsStr::from_bytes(name))?;
            }
            return Ok(DeltaState::Useless);
        }
        let original = self.root.open_file(&file.location)?.file;
        directory.write(OsStr::from_bytes(name), &encoded, &original)?;
        Ok(DeltaState::Written(encoded.len() as u64))
    }

    /// The length of a file in its best coding without a dictionary.
    fn best_plain(&self, file: &FoundFile, length: u64) -> u64 {
        let sidecars = CODINGS.iter().filter_map(|coding| {
            let path = [&*file.path, b".", coding.extension()?.as_bytes()].concat();
            let sidecar = self.files.get(path.as_slice())?;
            Some(self.root.stamp(&sidecar.location).ok()?.size)
        });
        sidecars.min().unwrap_or(length).min(length)
    }

    /// Keeps a dictionary, unless it is known to be still part of the site.
    fn keep(&self, file: &FoundFile, dictionary: &Dictionary<'_>) -> Result<(), SidecarError> {
        if let Ok(Some(_)) = self.relative(&file.path, dictionary.hash) {
            return Ok(());
        }
        let path = dictionary_path(dictionary.hash);
        let known = read_whole(self.root, &path).ok();
        if known.is_some_and(|known| sha256(&known) == dictionary.hash) {
            return Ok(());
        }
        let kept = Path::new(DICTIONARIES);
        fs::create_dir_all(self.root.path().join(kept)).map_err(SidecarError::Directory)?;
        let directory = Directory::open(self.root, kept).map_err(SidecarError::Directory)?;
        let name = dictionary.hash.to_string();
        let original = dictionary.file.open()?;
        directory.write(OsStr::new(&name), &dictionary.bytes, &original)?;
        directory.sync().map_err(SidecarError::Directory)
    }

    /// Removes kept dictionaries that no delta of the site names.
    fn prune(&self, report: &mut DeltaReport) {
        if let Err(error) = self.remove_unused_dictionaries() {
            report
                .problems
                .push(problem(DICTIONARIES.as_bytes(), error));
        }
    }

    fn remove_unused_dictionaries(&self) -> Result<(), SidecarError> {
        let kept = Path::new(DICTIONARIES);
        let entries = match fs::read_dir(self.root.path().join(kept)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let directory = Directory::open(self.root, kept)?;
        directory.clear()?;
        let named = self.named_dictionaries()?;
        for entry in entries {
            let name = entry?.file_name();
            let hash = name.to_str().and_then(|name| name.parse().ok());
            if hash.is_some_and(|hash: DictionaryHash| !named.contains(&hash)) {
                directory.remove(&name)?;
            }
        }
        Ok(())
    }

    /// The dictionaries that the deltas name which are there now, those just written included.
    ///
    /// # Errors
    /// When something can't be read that may name others.
    fn named_dictionaries(&self) -> Result<BTreeSet<DictionaryHash>, SidecarError> {
        let mut named = BTreeSet::new();
        for step in walk(self.root.path(), b"", Symlinks::Inside, self.exclusions) {
            match step {
                WalkStep::File(file) if delta_stem(&file.path).is_some() => {
                    let coding = self.coding_of(&file.location);
                    let coding = coding.map_err(|error| unsure(&file.path, &error))?;
                    named.extend(coding.and_then(|it| it.dictionary()));
                }
                WalkStep::Unreadable(path, error) => return Err(unsure(&path, &error)),
                _ => {}
            }
        }
        Ok(named)
    }

    /// The coding that a file begins like, if it does and is still there.
    fn coding_of(&self, location: &Path) -> io::Result<Option<Coding>> {
        let opened = match self.root.open_file(location) {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut header = vec![0; opened.stamp.size.min(MAX_HEADER_LENGTH as u64) as usize];
        disk::read_exact_at(&opened.file, &mut header, 0)?;
        Ok(Coding::of_header(&header))
    }

    fn check(&self) -> DeltaReport {
        let deltas: Vec<_> = self.deltas().collect();
        let results: Vec<_> = deltas
            .par_iter()
            .map(|(delta, file)| (delta, self.prove(delta, file)))
            .collect();
        let mut report = DeltaReport::default();
        for (delta, result) in results {
            match result {
                Ok(()) => report.proven += 1,
                Err(error) => report.problems.push(problem(&delta.path, error)),
            }
        }
        report
    }

    /// The deltas of the site, each with its file.
    fn deltas(&self) -> impl Iterator<Item = (&FoundFile, &FoundFile)> {
        self.files.values().filter_map(|delta| {
            let file = self.files.get(delta_stem(&delta.path)?)?;
            Some((delta, file))
        })
    }

    fn prove(&self, delta: &FoundFile, file: &FoundFile) -> Result<(), SidecarError> {
        let (encoded, coding, hash) = self.read_delta(delta, file)?;
        let dictionary = self.dictionary(file, hash)?;
        let bytes = read_whole(self.root, &file.location)?;
        let hash = *blake3::hash(&bytes).as_bytes();
        let length = bytes.len() as u64;
        prove_delta(coding, &dictionary, encoded.as_slice(), &hash, length)?;
        Ok(())
    }

    /// The bytes of a delta, its coding, and its dictionary, if they are what its name says.
    fn read_delta(
        &self,
        delta: &FoundFile,
        file: &FoundFile,
    ) -> Result<(Vec<u8>, Coding, DictionaryHash), SidecarError> {
        let encoded = read_whole(self.root, &delta.location)?;
        let coding = Coding::of_header(&encoded)
            .filter(|coding| *delta_path(&file.path, *coding) == *delta.path);
        match coding.and_then(|it| Some((it, it.dictionary()?))) {
            Some((coding, hash)) => Ok((encoded, coding, hash)),
            None => Err(Unproven::Header.into()),
        }
    }

    /// The bytes of the dictionary of a delta of `file`.
    fn dictionary(&self, file: &FoundFile, hash: DictionaryHash) -> Result<Vec<u8>, SidecarError> {
        let relative = self.relative(&file.path, hash);
        if let Ok(Some(relative)) = relative {
            return read_whole(self.root, &relative.location);
        }
        match (self.read_kept(hash), relative) {
            (Err(SidecarError::Unproven(Unproven::NoDictionary(_))), Err(unsure)) => Err(unsure),
            (kept, _) => kept,
        }
    }

    /// The bytes of a dictionary that is kept.
    fn read_kept(&self, hash: DictionaryHash) -> Result<Vec<u8>, SidecarError> {
        match read_whole(self.root, &dictionary_path(hash)) {
            Ok(kept) if sha256(&kept) == hash => Ok(kept),
            Ok(_) => Err(Unproven::DamagedDictionary(hash).into()),
            Err(SidecarError::Io(error)) => Err(match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                    Unproven::NoDictionary(hash).into()
                }
                _ if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
                    Unproven::LinkedDictionary(hash).into()
                }
                _ => SidecarError::Io(error),
            }),
            Err(error) => Err(error),
        }
    }

    /// Whether nobody can decode a delta any more because its dictionary is nowhere. Its header and
    /// its name say that it is one, so it is no file of another kind.
    ///
    /// # Errors
    /// When something can't be read that may be its dictionary.
    fn is_useless(&self, delta: &FoundFile, file: &FoundFile) -> Result<bool, SidecarError> {
        let Ok((_, _, hash)) = self.read_delta(delta, file) else {
            return Ok(false);
        };
        match self.dictionary(file, hash) {
            Err(SidecarError::Unproven(Unproven::NoDictionary(_))) => Ok(true),
            Err(error @ SidecarError::Unsure { .. }) => Err(error),
            Ok(_) | Err(_) => Ok(false),
        }
    }

    /// Removes the proven deltas and those without dictionaries, and the dictionaries that no other
    /// needs.
    fn remove(&self) -> DeltaReport {
        let mut report = DeltaReport::default();
        let is_ours = |delta: &FoundFile, file: &FoundFile| match self.prove(delta, file) {
            Ok(()) | Err(SidecarError::Unproven(Unproven::NoDictionary(_))) => Ok(true),
            Err(error) => Err(error),
        };
        self.remove_where(is_ours, &mut report);
        self.prune(&mut report);
        report
    }

    /// Removes the deltas that `is_removed` says, and reports those of which it can't say.
    fn remove_where(
        &self,
        is_removed: impl Fn(&FoundFile, &FoundFile) -> Result<bool, SidecarError>,
        report: &mut DeltaReport,
    ) {
        let mut directories = BTreeSet::new();
        for (delta, file) in self.deltas() {
            let removed = is_removed(delta, file).and_then(|is_removed| {
                if !is_removed {
                    return Ok(false);
                }
                let path = real_directory(self.root, file)?;
                let directory =
                    Directory::open(self.root, &path).map_err(SidecarError::Directory)?;
                let name = delta.path.rsplit(|byte| *byte == b'/').next();
                directory.remove(OsStr::from_bytes(name.unwrap_or(&delta.path)))?;
                directories.insert(path);
                Ok(true)
            });
            match removed {
                Ok(is_removed) => report.removed += u64::from(is_removed),
                Err(error) => report.problems.push(problem(&delta.path, error)),
            }
        }
        let sync = |path: &PathBuf| Directory::open(self.root, path)?.sync();
        if let Err(error) = directories.iter().try_for_each(sync) {
            let error = SidecarError::Directory(error);
            report
                .problems
                .push(problem(DICTIONARIES.as_bytes(), error));
        }
    }

    /// The file of the same family that is this dictionary.
    ///
    /// # Errors
    /// When none of those that can be read is it, and not all of them can be.
    fn relative(
        &self,
        path: &[u8],
        hash: DictionaryHash,
    ) -> Result<Option<&'a FoundFile>, SidecarError> {
        let Some(family) = Family::of(path) else {
            return Ok(None);
        };
        let families = self.families.get_or_init(|| {
            let mut families: HashMap<_, Vec<_>> = HashMap::new();
            for file in self.files.values() {
                if let Some(family) = Family::of(&file.path) {
                    families.entry(family).or_default().push(file);
                }
            }
            families
        });
        let unreadable = self.unreadable.iter();
        let mut unreadable = unreadable.filter(|(unreadable, _)| may_be_relative(unreadable, path));
        let mut error = unreadable.next().map(|(path, error)| unsure(path, error));
        for relative in families.get(&family).into_iter().flatten().copied() {
            if *relative.path == *path {
                continue;
            }
            match self.sha256(relative) {
                Ok(found) if found == Some(hash) => return Ok(Some(relative)),
                Ok(_) => {}
                Err(reason) => drop(error.get_or_insert(unsure(&relative.path, &reason))),
            }
        }
        error.map_or(Ok(None), Err)
    }

    /// The SHA-256 of a file, if it is still there and may be a dictionary.
    fn sha256(&self, file: &FoundFile) -> Result<Option<DictionaryHash>, SidecarError> {
        let known = |cache: &Mutex<HashMap<Box<[u8]>, DictionaryHash>>| {
            let cache = cache.lock().ok()?;
            cache.get(&file.path).copied()
        };
        if let Some(known) = known(&self.sha256) {
            return Ok(Some(known));
        }
        let bytes = match read_whole(self.root, &file.location) {
            Ok(bytes) => bytes,
            // Longer than any dictionary.
            Err(SidecarError::TooLarge) => return Ok(None),
            Err(SidecarError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let hash = sha256(&bytes);
        if let Ok(mut cache) = self.sha256.lock() {
            cache.insert(file.path.clone(), hash);
        }
        Ok(Some(hash))
    }
}

fn unsure(path: &[u8], reason: &impl ToString) -> SidecarError {
    SidecarError::Unsure {
        path: OsStr::from_bytes(path).into(),
        reason: reason.to_string(),
    }
}

fn sha256(bytes: &[u8]) -> DictionaryHash {
    DictionaryHash::new(Sha256::digest(bytes).into())
}

fn delta_path(path: &[u8], coding: Coding) -> Vec<u8> {
    let extension = coding.delta_extension().unwrap_or_default();
    [path, b".", extension.as_bytes()].concat()
}

fn problem(path: &[u8], error: SidecarError) -> SidecarProblem {
    SidecarProblem {
        path: OsStr::from_bytes(path).into(),
        error,
    }
}

/// Reads a file of a length that files with deltas may have, which nobody changes meanwhile.
fn read_whole(root: &Root, location: &Path) -> Result<Vec<u8>, SidecarError> {
    read_up_to(root, location, MAX_LENGTH)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tempfile::TempDir;

    use super::super::AgainstError;
    use super::*;
    use crate::disk::seam;

    const OLD: &str = "app-0a0b0c0d.js";
    const NEW: &str = "app-1a1b1c1d.js";

    fn bundle(release: usize) -> Vec<u8> {
        let line = |line: usize| format!("let v{line} = {};\n", line * 7919 + release);
        (0..200)
            .flat_map(|number| line(number).into_bytes())
            .collect()
    }

    /// A site whose file has a delta against another one of the site, and one against a kept dictionary.
    fn site() -> (TempDir, Root) {
        let directory = tempfile::tempdir().expect("a directory");
        let root = Root::open(directory.path()).expect("a root");
        let write = |path: &str, bytes: &[u8]| {
            fs::write(root.path().join(path), bytes).expect("written");
        };
        fs::create_dir_all(root.path().join(DICTIONARIES)).expect("made");
        for (path, release) in [(OLD, 1), (NEW, 2)] {
            write(path, &bundle(release));
        }
        for release in [0, 1] {
            let hash = sha256(&bundle(release));
            let coding = Coding::DictionaryZstd(hash);
            let encoded = delta::encode(coding, &bundle(release), &bundle(2)).expect("encoded");
            let path = delta_path(NEW.as_bytes(), coding);
            write(str::from_utf8(&path).expect("a name"), &encoded);
        }
        write(
            &format!("{DICTIONARIES}/{}", sha256(&bundle(0))),
            &bundle(0),
        );
        (directory, root)
    }

    fn work(root: &Root, work: SidecarWork) -> DeltaReport {
        let earlier = EarlierReleases {
            count: 1,
            ..EarlierReleases::default()
        };
        work_against(root, &earlier, work)
    }

    fn work_against(root: &Root, earlier: &EarlierReleases, work: SidecarWork) -> DeltaReport {
        let progress = ByteProgress::default();
        run(root, work, earlier, &Exclusions::default(), &progress)
    }

    /// Does `work` with an error at the call number `at`, on one thread; `None` if it makes fewer calls.
    fn fail_at<T: Send>(at: usize, work: impl FnOnce() -> T + Send) -> Option<T> {
        let calls = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&calls);
        let gate = move |_| match count.fetch_add(1, Ordering::Relaxed) == at {
            true => Err(io::Error::from(Errno::IO)),
            false => Ok(()),
        };
        let result = seam::run(gate, work);
        (calls.load(Ordering::Relaxed) > at).then_some(result)
    }

    /// What can't be read is not gone: a delta that it proves stays, and a dictionary that it names.
    #[test]
    fn nothing_is_removed_because_something_cannot_be_read() {
        let (_directory, root) = site();
        assert_eq!(work(&root, SidecarWork::Check).proven, 2);
        let mut said = Vec::new();
        for at in 0.. {
            let Some(report) = fail_at(at, || work(&root, SidecarWork::Write)) else {
                break;
            };
            said.extend(report.problems.iter().map(|it| it.error.to_string()));
            let report = work(&root, SidecarWork::Check);
            assert_eq!(report.proven, 2, "at call {at}: {:?}", report.problems);
        }
        let delta = delta_path(NEW.as_bytes(), Coding::DictionaryZstd(sha256(&bundle(1))));
        for path in [OLD, str::from_utf8(&delta).expect("a name")] {
            let sentence = format!("because {path} cannot be read");
            assert!(said.iter().any(|it| it.contains(&sentence)), "{said:?}");
        }
    }

    /// The site has a delta whose dictionary is in an earlier release alone.
    #[test]
    fn nothing_is_removed_because_an_earlier_release_cannot_be_read() {
        let old = tempfile::tempdir().expect("a directory");
        fs::create_dir(old.path().join("assets")).expect("made");
        let (old_path, new_path) = (format!("assets/{OLD}"), format!("assets/{NEW}"));
        fs::write(old.path().join(&old_path), bundle(0)).expect("written");
        let open = || EarlierReleases::open(&[old.path().to_owned()], &Arc::default());
        let new = tempfile::tempdir().expect("a directory");
        fs::create_dir(new.path().join("assets")).expect("made");
        let coding = Coding::DictionaryZstd(sha256(&bundle(0)));
        let encoded = delta::encode(coding, &bundle(0), &bundle(1)).expect("encoded");
        let delta = delta_path(new_path.as_bytes(), coding);
        let delta = new.path().join(OsStr::from_bytes(&delta));
        fs::write(new.path().join(&new_path), bundle(1)).expect("written");
        let root = Root::open(new.path()).expect("a root");
        for at in 0.. {
            fs::write(&delta, &encoded).expect("written");
            let _ = fs::remove_dir_all(new.path().join(".etagd"));
            let result = fail_at(at, || {
                let earlier = open()?;
                Ok::<_, AgainstError>(work_against(&root, &earlier, SidecarWork::Write))
            });
            assert!(delta.exists(), "at call {at}: {result:?}");
            let Some(result) = result else {
                break;
            };
            // What is left undone is said, and the next run does it.
            let is_said = result.map_or(true, |report| !report.problems.is_empty());
            let is_done = work(&root, SidecarWork::Check).proven == 2;
            assert!(is_said || is_done, "at call {at}");
            let earlier = open().expect("opened");
            let report = work_against(&root, &earlier, SidecarWork::Write);
            assert!(report.problems.is_empty(), "{:?}", report.problems);
            assert_eq!(work(&root, SidecarWork::Check).proven, 2, "at call {at}");
        }
    }

    /// A delta of nine tenths of the best coding without a dictionary is written, and one that is longer
    /// by the least is not.
    #[test]
    fn a_delta_is_at_least_ten_percent_shorter() {
        let dictionary = bundle(0);
        for coding in Coding::with_dictionary(sha256(&dictionary)) {
            // Some content whose delta has a length of which nine tenths of another are whole.
            let (content, length) = (1..)
                .map(|release| {
                    let content = bundle(release);
                    let encoded = delta::encode(coding, &dictionary, &content).expect("encoded");
                    (content, encoded.len())
                })
                .find(|(_, length)| length % 9 == 0)
                .expect("one of nine");
            for (plain, is_written) in [(length / 9 * 10, true), (length / 9 * 10 - 1, false)] {
                let old = tempfile::tempdir().expect("a directory");
                fs::write(old.path().join(OLD), &dictionary).expect("written");
                let new = tempfile::tempdir().expect("a directory");
                fs::write(new.path().join(NEW), &content).expect("written");
                let sidecar = new.path().join(format!("{NEW}.gz"));
                fs::write(sidecar, vec![0; plain]).expect("written");
                let root = Root::open(new.path()).expect("a root");
                let earlier = EarlierReleases::open(&[old.path().to_owned()], &Arc::default());
                let earlier = earlier.expect("opened");
                let report = work_against(&root, &earlier, SidecarWork::Write);
                assert!(report.problems.is_empty(), "{:?}", report.problems);
                let delta = delta_path(NEW.as_bytes(), coding);
                let delta = new.path().join(OsStr::from_bytes(&delta));
                let found = fs::metadata(delta).ok().map(|found| found.len());
                let wanted = is_written.then_some(length as u64);
                assert_eq!(found, wanted, "{coding:?}: {length} of {plain}");
            }
        }
    }

    #[test]
    fn no_delta_loses_its_dictionary_because_something_cannot_be_read() {
        for at in 0.. {
            let (_directory, root) = site();
            let report = fail_at(at, || work(&root, SidecarWork::Remove));
            let left = work(&root, SidecarWork::Check).problems;
            assert!(left.is_empty(), "at call {at}: {left:?}");
            // The next run finishes it.
            work(&root, SidecarWork::Remove);
            let kept = fs::read_dir(root.path().join(DICTIONARIES));
            assert_eq!(kept.map_or(0, Iterator::count), 0, "at call {at}");
            if report.is_none() {
                break;
            }
        }
    }
}

//! Disk to representations: walk, read, hash, compare.
//!
//! [`Scanner::reconcile`] is the one way from the disk to a manifest: at start, after a change,
//! after lost events and for a sweep it brings a manifest in line with some paths, or with all.
//! Files are hashed on all cores while the walk goes on. Nothing is published here.

mod assemble;
mod codings;
mod compress_threads;
mod deltas;
mod demand;
mod dictionaries;
mod document;
#[cfg(test)]
mod dropped;
pub(crate) mod encode;
mod error_page;
mod first;
pub(crate) mod hash;
mod known_deltas;
mod made;
mod made_ahead;
mod maker;
pub(crate) mod media;
mod next_state;
mod outcome;
pub mod own_coding;
mod pass;
mod proven;
mod restore;
mod rules;
mod scope;
pub mod sidecar;
mod site_path;
pub(crate) mod text;
mod tree_size;
mod unmade;
mod unpublished;
pub(crate) mod walk;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::num::NonZero;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use std::{io, iter, mem};

use bytes::Bytes;
use rayon::iter::{ParallelBridge, ParallelIterator};

use crate::beat::Beat;
use crate::disk::{self, Look, Opened, Root, Stamp};
use crate::exclude::Exclusions;
use crate::lease::{self, Writers};
use crate::locks::lock;
use crate::manifest::{Changes, Manifest, ancestors};
use crate::memory::Memory;
use crate::progress::ByteProgress;
use crate::representation::{
    Confirmation, Data, Decoding, EncodedForms, Fields, FileSource, Plain, Representation,
    Resource, TextKind,
};
use crate::rules::{RuleFile, Rules};
use crate::semantics::coding::Coding;
use crate::semantics::date::HttpDate;
use crate::semantics::etag::ETag;
use crate::settings::{ReprDigest, Settings, Symlinks};
use dictionaries::StateBefore;
use hash::{HashOptions, HashedFile, Retained};
use known_deltas::KnownDeltas;
use maker::Maker;
use media::{Keeping, MediaTypes};
use outcome::FoundChanges;
use pass::{FileState, add_folders, is_at, relocated, removed, report};
use walk::{FoundFile, WalkStep};

pub use assemble::{PublishedContent, PublishedFile, PublishedSite};
pub use codings::stem;
pub use deltas::{
    DICTIONARIES, MAX_DICTIONARY_LENGTH, content_sha256, delta_coding, dictionary_at,
    dictionary_path, is_unlisted,
};
pub use dictionaries::{MAX_FAMILY, delta_family};
pub use error_page::report as report_error_page;
pub use first::{FirstLook, MAX_START_WAIT};
pub use made::uncompressed;
pub use maker::CodingStore;
pub use outcome::ScanOutcome;
pub use pass::Pass;
pub use restore::SavedFile;
pub use rules::{exclusions_on_disk, report as report_rules};
pub use scope::{Scope, Unsettled};
pub use site_path::{is_admitted, is_beside_rules, is_excluded, is_hidden};
pub use tree_size::{TreeSize, warn_limited};
pub use unmade::Unmade;
pub use walk::{Link, LinkVerdict, MAX_LINKS};

/// The modules whose messages name what is wrong with single files: unreadable ones, sidecars that
/// are not used, files without the coding that a rule gives them, lines of rule files.
pub const COMPLAINTS: &[&str] = &[
    "etagd::scan::codings",
    "etagd::scan::next_state",
    "etagd::scan::made",
    "etagd::scan::own_coding",
    "etagd::scan::pass",
    "etagd::scan::rules",
];
/// How long a file may keep changing before it is published as it was read.
pub const MAX_SETTLE_TIME: Duration = Duration::from_secs(5);
/// Younger files are probed for a writer: two writes within one tick of the clock leave the same
/// stamp.
const MAX_PROBED_AGE: Duration = Duration::from_secs(2);
/// The coarsest clock of a file system (FAT counts in steps of 2 s), and a margin for clocks that
/// disagree.
const MAX_CLOCK_STEP: Duration = Duration::from_millis(2_500);

/// Why a file is not in the manifest that is there.
const BEING_WRITTEN: &str = "another process is writing it";
/// The length of a file that a look hashes at once: a tenth of a second. What is longer is left for
/// a thread of its own under [`Unsettled::Defer`].
const MAX_INLINE_LENGTH: u64 = 128 << 20;
/// Files that are kept hashed for the next look.
const MAX_PREPARED: usize = 64;

/// Number of files handed from the walk to a hashing thread at once.
const BATCH_SIZE: usize = 32;
/// Limit for the length of a body that shares its memory with others: one that stays when the others
/// are replaced holds the memory of a whole batch.
const MAX_PACKED: usize = 512;

/// Counters of a running scan; readable from other threads.
#[derive(Debug, Default)]
pub struct Progress {
    files: AtomicU64,
    bytes: AtomicU64,
    beat: Option<Arc<Beat>>,
}

impl Progress {
    /// Notes each step of the scan as one of `beat`, too.
    pub fn of(beat: Arc<Beat>) -> Self {
        Self {
            beat: Some(beat),
            ..Self::default()
        }
    }

    /// Notes that the scan gets on.
    fn step(&self) {
        if let Some(beat) = &self.beat {
            beat.step();
        }
    }

    /// Files hashed so far.
    pub fn files(&self) -> u64 {
        self.files.load(Ordering::Relaxed)
    }

    /// Bytes hashed so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// Reads a site from the disk, with the settings that decide what becomes of each file.
#[derive(Debug)]
pub struct Scanner {
    symlinks: Symlinks,
    settings: Arc<Settings>,
    memory: Option<Arc<Memory>>,
    media: MediaTypes,
    /// What makes content codings, where the settings ask for some.
    maker: Option<Maker>,
    /// Large files that were hashed for the next look.
    prepared: Mutex<HashMap<Stamp, HashedFile>>,
    known_deltas: KnownDeltas,
}

/// The result of looking at one step of the walk.
enum Visit {
    Unchanged(Box<[u8]>),
    File(Arc<Resource>),
    Rules(RuleFile, Vec<u8>),
    Folder(Box<[u8]>),
    Busy(Box<[u8]>),
    Unreadable(Box<[u8]>, String),
    NotNow(Box<[u8]>, io::Error),
    Link(Link),
    Size(TreeSize),
    Gone,
}

impl Visit {
    /// Of a path that could not be looked at. What is gone was deleted after the walk had listed
    /// it, or it is no regular file any more.
    fn failed(path: Box<[u8]>, error: io::Error) -> Self {
        match Look::<()>::from(Err(error)) {
            Look::NotNow(error) => Self::NotNow(path, error),
            Look::Unreadable(error) => Self::Unreadable(path, error.to_string()),
            Look::Gone | Look::There(()) => Self::Gone,
        }
    }
}

impl Scanner {
    /// A scanner that keeps small bodies within `memory`, if there is one.
    pub fn new(
        symlinks: Symlinks,
        settings: impl Into<Arc<Settings>>,
        memory: Option<Arc<Memory>>,
    ) -> Self {
        let settings = settings.into();
        Self {
            symlinks,
            maker: settings.compress.clone().map(Maker::new),
            settings,
            memory,
            media: MediaTypes::default(),
            prepared: Mutex::default(),
            known_deltas: KnownDeltas::default(),
        }
    }

    /// This scanner with another place for the content codings that it makes.
    #[must_use]
    pub fn with_store(mut self, store: CodingStore) -> Self {
        if let Some(maker) = &mut self.maker {
            maker.store = store;
        }
        self
    }

    /// Makes codings that [`ScanOutcome::unmade`] lists, so that the next look finds them. Other looks
    /// go on meanwhile: they have other threads. Calls `step` now and then, and ends early when it
    /// returns false.
    pub fn make_codings(&self, root: &Root, unmade: &[Unmade], step: &(dyn Fn() -> bool + Sync)) {
        if let Some(maker) = &self.maker {
            made_ahead::make_ahead(self, maker, root, unmade, step);
        }
    }

    /// Whether it takes long to make codings of a file of this length.
    pub fn compresses_long(&self, length: u64) -> bool {
        self.maker.is_some() && made_ahead::takes_long(length)
    }

    /// Makes the codings of what is about to be put at a path of the site, as [`Self::make_codings`]
    /// does.
    pub fn make_codings_of_write(
        &self,
        root: &Root,
        (path, content): (&[u8], Vec<u8>),
        step: &(dyn Fn() -> bool + Sync),
    ) {
        if let Some(maker) = &self.maker {
            made_ahead::make_for_write(self, maker, root, (path, content), step);
        }
    }

    /// Notes that these resources are published: the next look finds their codings there.
    pub fn forget_published(&self, resources: &[Arc<Resource>]) {
        if let Some(maker) = &self.maker {
            let contents = resources.iter().map(|it| it.of_files().0.etag.hash());
            maker.unpublished.forget(contents);
        }
    }

    /// Forgets codings that were made for a batch which has become another one. They take up room.
    pub fn forget_old(&self, now: Instant) {
        if let Some(maker) = &self.maker {
            maker.unpublished.forget_old(now);
        }
    }

    /// How many bytes the first scan has to compress, where the settings ask for that.
    pub fn compression(&self) -> Option<Arc<ByteProgress>> {
        Some(Arc::clone(&self.maker.as_ref()?.progress))
    }

    /// Closes the files that were kept open for these resources.
    pub fn close(&self, resources: &[Arc<Resource>]) {
        if let Some(memory) = &self.memory {
            for representation in resources.iter().flat_map(|each| each.representations()) {
                memory.close_outdated(representation.etag.hash());
            }
        }
    }

    /// Closes the file that was kept open for the content of `found`, unless that is what is `known`
    /// now. The demand for it is that for what is known, as before.
    pub fn close_unpublished(&self, found: &Resource, known: Option<&Resource>) {
        let hash = found.identity.etag.hash();
        let known = known.map(|known| known.identity.etag.hash());
        if let Some(memory) = &self.memory
            && known != Some(hash)
        {
            memory.close_outdated(hash);
            if let Some(known) = known {
                memory.inherit_demand(hash, known);
            }
        }
    }

    /// A site without files, as a base for the first scan.
    pub fn empty(&self) -> Manifest {
        Manifest::empty(Arc::clone(&self.settings))
    }

    /// Compares `scope` on the disk with `base`. A file that can't be read is no error: what
    /// `base` has of it stays, and the changes say so.
    pub fn reconcile(
        &self,
        root: &Arc<Root>,
        base: &Manifest,
        scope: &Scope,
        unsettled: Unsettled,
        progress: &Progress,
    ) -> ScanOutcome {
        self.compare(&Pass::new(root, base, scope, unsettled, progress))
    }

    /// Drops the changes at these paths and below them, which `outcome` has of a pass like this one: they
    /// stay as its base has them. What follows from several paths is derived again, so that nothing
    /// depends on what is dropped.
    pub fn exclude(&self, pass: Pass<'_>, outcome: &mut ScanOutcome, paths: BTreeSet<Box<[u8]>>) {
        let dropped = Scope::Paths(paths);
        outcome.busy.retain(|path| !dropped.covers(path));
        let patterns = self.exclusions(pass.base.rules(), outcome.found.patterns());
        if outcome.found.exclude(&dropped, pass.base, &patterns) {
            let pass = Pass {
                dropped: Some(&dropped),
                ..pass
            };
            self.derive(&pass, outcome);
        }
    }

    /// Has the files be dictionaries that are such once these changes are made to `base`, where another
    /// site was looked at than the one that is published.
    pub fn choose_dictionaries(&self, base: &Manifest, changes: &mut Changes) {
        let is_start = false;
        dictionaries::attach(self, StateBefore { base, is_start }, changes);
    }

    /// Looks at `scope` in the way of [`Scanner::reconcile`], to compare what is there and not to publish
    /// it: of what is not published, no codings are made.
    pub fn peek(
        &self,
        root: &Arc<Root>,
        base: &Manifest,
        scope: &Scope,
        progress: &Progress,
    ) -> ScanOutcome {
        self.compare(&Pass {
            is_compared: true,
            ..Pass::new(root, base, scope, Unsettled::Report, progress)
        })
    }

    /// Hashes a file that takes long, so that the next look finds its hash. Other looks go on
    /// meanwhile: it has threads of its own, fewer than there are cores. Nothing is kept of a file
    /// that is being written. Calls `step` now and then, as long as it gets on.
    ///
    /// # Errors
    /// When the file can't be read, or the system has no more threads.
    pub fn prepare(
        &self,
        root: &Root,
        location: &Path,
        step: &(dyn Fn() + Sync),
    ) -> io::Result<()> {
        let Opened { file, stamp, .. } = root.open_file(location)?;
        if lease::writers(&file) == Writers::Some {
            return Ok(());
        }
        let wanted = HashOptions {
            body: false,
            sha256: self.wants_sha256(),
        };
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads((cores / 2).max(1))
            .build()
            .map_err(io::Error::other)?;
        let content = threads.install(|| hash::content(&file, stamp.size, wanted, step))?;
        if disk::is_at_rest(&file, &stamp)? {
            let mut prepared = lock(&self.prepared);
            if prepared.len() >= MAX_PREPARED {
                // Nobody has come for them: the files have changed since.
                prepared.clear();
            }
            prepared.insert(stamp, content);
        }
        Ok(())
    }

    /// Carries out a pass.
    pub fn compare(&self, pass: &Pass<'_>) -> ScanOutcome {
        let lists = self.settings.lists();
        let ignore_file = rules::visit_ignore_file(pass);
        let text = match &ignore_file {
            Some(Visit::Rules(_, text)) => Some(Some(text.as_slice())),
            Some(Visit::Gone) => Some(None),
            _ => None,
        };
        let exclusions = self.exclusions(pass.base.rules(), text);
        let mut steps = pass
            .scope
            .starts()
            .into_iter()
            .flat_map(|start| walk::walk(pass.root.path(), start, self.symlinks, &exclusions))
            // Nobody but a listing needs to know of a folder.
            .filter(|step| lists || !matches!(step, WalkStep::Folder(_)));
        // One thread walks at a time. Handing its steps out one by one would have the hashing
        // threads queue for its lock.
        let batches = iter::from_fn(move || {
            let step = |_: &WalkStep| pass.progress.step();
            let batch: Vec<WalkStep> = steps.by_ref().inspect(step).take(BATCH_SIZE).collect();
            (!batch.is_empty()).then_some(batch)
        });
        let visit = |step| match step {
            WalkStep::File(found) => self.visit(pass, found),
            WalkStep::Rules(file, found) => rules::visit(pass, file, found),
            WalkStep::Folder(path) => Visit::Folder(path),
            WalkStep::Link(link) => Visit::Link(link),
            WalkStep::End(size) => Visit::Size(size),
            WalkStep::Unreadable(path, error) => Visit::failed(path, error),
        };
        let mut visits: Vec<Visit> = batches
            .par_bridge()
            .flat_map_iter(|batch| {
                let mut visits: Vec<_> = batch.into_iter().map(visit).collect();
                self.pack(&mut visits);
                visits
            })
            .collect();
        visits.extend(ignore_file);
        self.conclude(pass, visits)
    }

    /// Puts the smallest bodies of a batch together. A site of a million small files has more in the
    /// bookkeeping of their bodies than in the bodies.
    fn pack(&self, visits: &mut [Visit]) {
        let Some(memory) = &self.memory else {
            return;
        };
        let mut bodies: Vec<&mut Bytes> = visits.iter_mut().filter_map(smallest_body).collect();
        memory.pack(&mut bodies);
    }

    /// What is left out by the operator's patterns and by `.etagdignore`: by the text that it has now, or
    /// else as `known` has it.
    fn exclusions(&self, known: &Rules, text: Option<Option<&[u8]>>) -> Exclusions {
        let dialect = rules::dialect(&self.settings);
        let now = text.and_then(|text| known.with(RuleFile::Ignore, text, dialect));
        let rules = now.as_ref().unwrap_or(known);
        Exclusions::new(&self.settings.exclude, &rules.exclude)
    }

    /// Visits one file, and reads it if it may have changed.
    fn visit(&self, pass: &Pass<'_>, found: FoundFile) -> Visit {
        let old = pass.base.locate(&found.path);
        let rereads = pass.scope.rereads(&found.path);
        if let Some(old) = old.filter(|old| !rereads && old.settled)
            && is_at(&old.identity.data, pass.root, &found)
            && let Ok(stamp) = pass.root.stamp(&found.location)
            && pass.is_still(&old.stamp, &stamp)
        {
            if stamp == old.stamp {
                return Visit::Unchanged(found.path);
            }
            // Only the device number differs, see `Pass::is_still`: later passes need this one.
            let old = Resource::clone(old);
            return Visit::File(Arc::new(Resource { stamp, ..old }));
        }
        let result = pass.root.open_file(&found.location).and_then(|opened| {
            let inode = (opened.stamp.device, opened.stamp.inode);
            // Whether a tail is added depends on the name, so what another name was sent with
            // may not be reused.
            let has_tail = self.tail(&found.path, opened.stamp.size).is_some();
            let is_shared = (found.linked || opened.shared) && !has_tail;
            if is_shared && let Some(file) = pass.recall(&opened, rereads) {
                let data = relocated(&file.data, pass.root, &found);
                return Ok(Some(FileState { data, ..file }));
            }
            let file = self.read(pass, &found, opened, rereads)?;
            if is_shared && let Some(file) = &file {
                lock(&pass.shared).insert(inode, file.clone());
            }
            Ok(file)
        });
        match result {
            Ok(Some(file)) => {
                let old = pass.base.locate(&found.path);
                Visit::File(Arc::new(self.resource(found.path, file, old, pass.now)))
            }
            Ok(None) => Visit::Busy(found.path),
            Err(error) => Visit::failed(found.path, error),
        }
    }

    /// Hashes an open file between two stamps. `None` if it is being written and may not be
    /// published yet.
    fn read(
        &self,
        pass: &Pass<'_>,
        found: &FoundFile,
        opened: Opened,
        rereads: bool,
    ) -> io::Result<Option<FileState>> {
        let Opened { file, stamp, .. } = opened;
        let publish = pass.publishes(&found.path);
        let may_have_writers = rereads || stamp.is_younger(pass.now, MAX_PROBED_AGE);
        let has_writers = may_have_writers && lease::writers(&file) == Writers::Some;
        if has_writers && !publish {
            return Ok(None);
        }
        let prepared = lock(&self.prepared).remove(&stamp);
        let is_long = stamp.size > MAX_INLINE_LENGTH && prepared.is_none();
        if is_long && pass.unsettled == Unsettled::Defer && !has_writers {
            lock(&pass.long).push(found.location.clone());
            return Ok(None);
        }
        let wanted = HashOptions {
            body: self.has_room_for(stamp.size),
            sha256: self.wants_sha256(),
        };
        let content = match (prepared, self.tail(&found.path, stamp.size)) {
            (Some(prepared), _) => Ok(prepared),
            (None, Some(tail)) => hash::content_with_tail(&file, stamp.size, tail, wanted),
            (None, None) => hash::content(&file, stamp.size, wanted, &|| pass.progress.step()),
        };
        pass.progress.files.fetch_add(1, Ordering::Relaxed);
        pass.progress.bytes.fetch_add(stamp.size, Ordering::Relaxed);
        let settled = !has_writers && disk::is_at_rest(&file, &stamp)?;
        let content = match content {
            Ok(content) if settled || publish => content,
            Err(error) if settled || disk::is_passing(&error) => return Err(error),
            // It was truncated while it was read, again and again until the wait was over.
            Err(_) if publish => return Err(io::Error::other("it keeps changing")),
            _ => return Ok(None),
        };
        let plain = match &content.form {
            Retained::Tailed { plain, .. } => Some(*plain),
            Retained::Small(_) | Retained::Whole | Retained::Groups(_) => None,
        };
        if let Some(memory) = &self.memory {
            let old = pass.base.locate(&found.path);
            demand::keep(memory, old.map(|old| &**old), file, stamp, &content);
        }
        let data = self.data(pass.root, found, content.form);
        let HashedFile {
            hash, sha256, text, ..
        } = content;
        let confirmed = Confirmation::default();
        if stamp.is_coarse() && stamp.is_younger(pass.now, MAX_CLOCK_STEP) {
            // Another change within this tick leaves the same stamp, so that a later process may
            // not trust it.
            confirmed.set(false);
        }
        Ok(Some(FileState {
            stamp,
            hash,
            sha256,
            text,
            settled,
            confirmed,
            data,
            plain,
        }))
    }

    /// The tail to add to the file at this path, if it turns out to be an HTML document.
    fn tail(&self, path: &[u8], length: u64) -> Option<&str> {
        let tail = self.settings.additions.tail.as_deref()?;
        document::may_be(path, length).then_some(tail)
    }

    fn has_room_for(&self, length: u64) -> bool {
        self.memory
            .as_ref()
            .is_some_and(|memory| memory.has_room(length))
    }

    fn wants_sha256(&self) -> bool {
        self.settings.repr_digest != ReprDigest::Off
    }

    fn data(&self, root: &Arc<Root>, found: &FoundFile, form: Retained) -> Data {
        let groups = match form {
            Retained::Small(body) => {
                let memory = self.memory.as_ref();
                match memory.and_then(|memory| memory.keep(body).ok()) {
                    Some(bytes) => return Data::Memory(bytes),
                    None => Arc::default(),
                }
            }
            // No file holds these bytes, so they have to stay in memory, over budget or not.
            Retained::Tailed { body, .. } => return Data::Memory(body.into()),
            Retained::Whole => Arc::default(),
            Retained::Groups(groups) => groups,
        };
        let path = found.location.clone().into_boxed_path();
        Data::File(Arc::new(FileSource {
            root: Arc::clone(root),
            path,
            groups,
        }))
    }

    /// Turns the visits of a pass into changes to its base.
    fn conclude(&self, pass: &Pass<'_>, visits: Vec<Visit>) -> ScanOutcome {
        let mut outcome = ScanOutcome::default();
        let (mut unreadable, mut unchanged) = (BTreeMap::new(), Vec::new());
        let (mut rules, mut folders) = (HashMap::new(), HashSet::new());
        for visit in visits {
            match visit {
                Visit::File(resource) => outcome.changes.changed.push(resource),
                Visit::Unchanged(path) => unchanged.push(path),
                Visit::Rules(file, text) => {
                    rules.insert(file, text);
                }
                Visit::Folder(path) => {
                    folders.insert(path);
                }
                Visit::Busy(path) => outcome.busy.push(path),
                Visit::Unreadable(path, reason) => {
                    unreadable.insert(path, reason);
                }
                // What was given up once holds up nothing when it fails again.
                Visit::NotNow(path, error) if pass.has_given_up(&path, &error) => {
                    unreadable.insert(path, error.to_string());
                }
                Visit::NotNow(path, error) => {
                    outcome.not_now.insert(path, error);
                }
                Visit::Link(link) => outcome.links.push(link),
                Visit::Size(size) => outcome.size.add(size),
                Visit::Gone => {}
            }
        }
        outcome.long = mem::take(&mut lock(&pass.long));
        report(pass, &unreadable);
        for (path, error) in &outcome.not_now {
            unreadable.insert(path.clone(), error.to_string());
        }
        // A busy file keeps its published state. If it has none, the digest must say that a file
        // is missing (P7).
        for path in &outcome.busy {
            if pass.base.locate(path).is_none() {
                unreadable.insert(path.clone(), BEING_WRITTEN.to_owned());
            }
        }
        outcome.changes.removed = removed(pass, &unchanged, &outcome, &unreadable);
        add_folders(pass, &folders, &unreadable, &mut outcome.changes);
        let rules = rules::looked_at(pass, rules, &outcome.busy, &unreadable);
        // What was not looked at this time is still unreadable.
        unreadable.extend(
            pass.base
                .unreadable()
                .iter()
                .filter(|(path, _)| !pass.scope.covers(path))
                .map(|(path, reason)| (path.clone(), reason.clone())),
        );
        outcome.changes.unreadable = unreadable;
        outcome.found = FoundChanges {
            changes: mem::take(&mut outcome.changes),
            rules,
        };
        self.derive(pass, &mut outcome);
        if unchanged.is_empty() {
            warn_excluded(pass, &outcome);
        }
        outcome
    }

    /// Makes changes of what was found, with all that follows from several paths.
    fn derive(&self, pass: &Pass<'_>, outcome: &mut ScanOutcome) {
        let found = match pass.is_start {
            // It may be a large site, and nobody drops a part of it.
            true => mem::take(&mut outcome.found),
            false => outcome.found.clone(),
        };
        let rules = found.rules(pass.base.rules(), rules::dialect(&self.settings));
        // What could not be read to derive something is read again.
        let unreadable = &found.changes.unreadable;
        outcome
            .not_now
            .retain(|path, _| unreadable.contains_key(path));
        outcome.changes = Changes {
            rules: rules.map(Arc::new),
            ..found.changes
        };
        own_coding::attach(self, pass, outcome);
        // Where large files are still to be hashed it is looked at again: nobody would get these.
        if outcome.long.is_empty() {
            codings::attach(self, pass, outcome);
        }
        let before = StateBefore {
            base: pass.base,
            is_start: pass.is_start,
        };
        dictionaries::attach(self, before, &mut outcome.changes);
    }

    fn resource(
        &self,
        path: Box<[u8]>,
        file: FileState,
        old: Option<&Arc<Resource>>,
        now: SystemTime,
    ) -> Resource {
        let FileState {
            stamp,
            hash,
            sha256,
            text,
            settled,
            confirmed,
            data,
            plain,
        } = file;
        let etag = ETag::new(hash);
        let plain = plain.and_then(|hash| plain_body(&data, stamp.size, hash));
        let length = match (&data, &plain) {
            (Data::Memory(body), Some(_)) => body.len() as u64,
            _ => stamp.size,
        };
        let newest = old.and_then(|old| old.newest_date());
        let last_modified = match old {
            // Touched, or moved away and back: the content has not been modified.
            Some(old) if old.identity.etag.hash() == etag.hash() => old.last_modified,
            // Other content must have a later date than any this path had, or If-Modified-Since
            // would take the new content for the old (RFC 9110 section 8.8.2.2). Without one it
            // gets no date.
            _ => self
                .last_modified(stamp, now)
                .filter(|date| newest.is_none_or(|newest| newest < *date)),
        };
        let fields = self.fields(&path, text, settled, None);
        let identity = Representation::new(Coding::Identity, etag, length, data);
        let resource = Resource {
            last_modified,
            stamp,
            settled,
            confirmed,
            text,
            ..Resource::new(path, fields, identity.with_sha256(sha256))
        };
        resource.with_newest_date(newest).with_plain(plain)
    }

    fn fields(
        &self,
        path: &[u8],
        text: TextKind,
        settled: bool,
        decoding: Option<Decoding>,
    ) -> Arc<Fields> {
        let keeping = match settled {
            false => Keeping::Never,
            true if self.settings.is_immutable(path) => Keeping::Ever,
            true => Keeping::UntilAsked,
        };
        self.media.fields(path, text, keeping, decoding)
    }

    /// The date for Last-Modified. `None` if the modification time says nothing: build tools set
    /// it to 0 or 1 for reproducible archives, and RFC 9110 section 8.8.2.1 forbids one in the
    /// future.
    fn last_modified(&self, stamp: Stamp, now: SystemTime) -> Option<HttpDate> {
        let now = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let modified = stamp.modified();
        let is_plausible = modified > 1 && modified.unsigned_abs() <= now;
        (self.settings.last_modified && is_plausible)
            .then(|| HttpDate::from_unix(modified))
            .flatten()
    }
}

/// The body of a new resource, where it is one of the smallest and nobody else has it.
fn smallest_body(visit: &mut Visit) -> Option<&mut Bytes> {
    let Visit::File(resource) = visit else {
        return None;
    };
    let resource = Arc::get_mut(resource)?;
    // Of a document with a tail, the file is a part of the same memory.
    let is_tailed = resource.plain().is_some();
    let Data::Memory(body) = &mut resource.identity.data else {
        return None;
    };
    (!is_tailed && body.len() <= MAX_PACKED).then_some(body)
}

/// Warns where patterns leave nothing of the site, once for each time that they do so anew.
fn warn_excluded(pass: &Pass<'_>, outcome: &ScanOutcome) {
    let is_new = pass.is_start || outcome.changes.rules.is_some();
    let is_empty = outcome.changes.changed.is_empty() && outcome.busy.is_empty();
    let entries = outcome.size.excluded;
    if is_new && is_empty && entries > 0 && pass.scope.covers(b"") {
        let root = pass.root.path().display();
        tracing::warn!(
            %root, entries,
            "nothing of {root} is served: --exclude and .etagdignore leave out all of it"
        );
    }
}

/// The content of a file that is served with a tail: the first `length` bytes of `data`, whose
/// BLAKE3 is `hash`.
fn plain_body(data: &Data, length: u64, hash: [u8; 32]) -> Option<Box<Plain>> {
    let Data::Memory(body) = data else {
        return None;
    };
    let body = Data::Memory(body.slice(..length as usize));
    Some(Box::new(Plain {
        identity: Representation::new(Coding::Identity, ETag::new(hash), length, body),
        encoded: EncodedForms::default(),
        tailed: None,
    }))
}

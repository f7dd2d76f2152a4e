//! One published, immutable state of the site: which path names which resource, and the digest
//! of it all.
//!
//! The entries are spread over 4,096 buckets by the BLAKE3 of their path. A bucket is both a shard
//! of the look-up table and a leaf of the Merkle tree whose root is the site digest, so that a
//! publication copies and hashes only the buckets it touches. [`Manifest::digest`] says what is
//! hashed.

mod bucket_table;
mod diff;
mod export;
mod header_rules;
mod inode_index;
mod page_cache;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use http::HeaderValue;
use rayon::iter::{
    IndexedParallelIterator, IntoParallelIterator, IntoParallelRefMutIterator, ParallelIterator,
};

use crate::exclude::Exclusions;
use crate::representation::{Fields, Resource, visible};
use crate::rules::Rules;
use crate::semantics::coding::{self, Coding};
use crate::settings::{
    DictionaryFiles, Digest, HtmlHandling, ImmutableFiles, NotFound, RedirectsDialect, ReprDigest,
    Settings,
};
use bucket_table::{BUCKETS, BucketSlot, BucketTable};
use header_rules::HeaderRules;
use inode_index::InodeIndex;
use page_cache::PageCache;

/// Version of what the site digest covers and how.
const DIGEST_VERSION: u32 = 1;
/// New resources whose places are found at once.
const CHUNK_LENGTH: usize = 1 << 15;

/// The page that the site may have for what the server can't do at the moment.
pub const UNAVAILABLE_PAGE: &[u8] = b"50x.html";

/// Identifies the state of a whole site: equal digests mean equal answers on every replica (P7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SiteDigest {
    hash: blake3::Hash,
    complete: bool,
}

impl SiteDigest {
    /// Whether it covers every file of the site: none was unreadable or still changing.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// The root of the Merkle tree, whether or not it is complete.
    pub fn hash(&self) -> &blake3::Hash {
        &self.hash
    }

    /// Whether the site is complete and in the expected state.
    pub fn matches(&self, expected: Digest) -> bool {
        self.complete && self.hash == *expected.hash()
    }
}

impl fmt::Display for SiteDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.complete { "" } else { "-incomplete" };
        write!(f, "{}{mark}", self.hash)
    }
}

/// The difference between two states of a site.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// New resources, and those that replace what their path named before.
    pub changed: Vec<Arc<Resource>>,
    /// Paths that no longer exist.
    pub removed: Vec<Box<[u8]>>,
    /// Folders that the site did not have, where folders are listed.
    pub new_folders: Vec<Box<[u8]>>,
    /// Folders that no longer exist. One of them may be new again.
    pub removed_folders: Vec<Box<[u8]>>,
    /// All paths that can't be read now, with the reason.
    pub unreadable: BTreeMap<Box<[u8]>, String>,
    /// All paths that are sent without the codings that they should have: there is no room for
    /// these.
    pub without_codings: BTreeSet<Box<[u8]>>,
    /// The rules of the site, where their files have changed.
    pub rules: Option<Arc<Rules>>,
    /// Until when to keep serving the removed paths, except HTML; `None` to stop at once.
    pub keep_until: Option<Instant>,
    /// Whether HTML is kept as well.
    pub keep_pages: bool,
    /// Resources that the site had before this state, and until when they are served where it has none
    /// at their paths.
    pub retired: Vec<(Arc<Resource>, Instant)>,
    /// The settings, where they have changed. What they say of single resources is in `changed`.
    pub settings: Option<Arc<Settings>>,
}

impl Changes {
    /// Whether they change nothing in `manifest`.
    pub fn changes_nothing_in(&self, manifest: &Manifest) -> bool {
        self.changed.is_empty()
            && self.removed.is_empty()
            && self.new_folders.is_empty()
            && self.removed_folders.is_empty()
            && self.retired.is_empty()
            && self.settings.is_none()
            && self.rules.is_none()
            && self.unreadable == manifest.unreadable
            && self.without_codings == manifest.without_codings
    }
}

/// A resource that the site no longer has, and until when it is still served.
#[derive(Clone, Debug)]
struct Retired {
    resource: Arc<Resource>,
    until: Instant,
}

/// One state of the site. Immutable once it is published.
#[derive(Clone, Debug)]
pub struct Manifest {
    settings: Arc<Settings>,
    /// The rules that have been applied to every resource here.
    header_rules: Arc<HeaderRules>,
    buckets: Box<[Arc<Bucket>]>,
    unreadable: BTreeMap<Box<[u8]>, String>,
    without_codings: BTreeSet<Box<[u8]>>,
    retired: HashMap<Box<[u8]>, Retired>,
    digest: SiteDigest,
    digest_value: HeaderValue,
    resources: usize,
    unsettled: usize,
    bytes: u64,
    has_delta_files: bool,
    /// All resources by path, collected when first needed.
    ordered: OnceLock<Arc<[Arc<Resource>]>>,
    /// All resources by inode, collected when first needed, and kept up to date from then on.
    inodes: OnceLock<InodeIndex>,
    /// The folders without files by path, collected when first needed.
    empty_folders: OnceLock<Arc<[Box<[u8]>]>>,
    /// Generated pages about this state.
    page_cache: Arc<PageCache>,
}

#[derive(Clone, Debug)]
struct Bucket {
    table: BucketTable,
    /// How many resources lie below each of the directories that hash to this bucket.
    below: BTreeMap<Box<[u8]>, usize>,
    /// Those folders that are on the disk, and hash to this bucket; none where they are not listed.
    folders: BTreeSet<Box<[u8]>>,
    /// Whether any of its files is named like a delta.
    has_deltas: bool,
    hash: [u8; 32],
}

/// The resource at `path` in these buckets.
fn find<'b>(buckets: &'b [Arc<Bucket>], path: &[u8]) -> Option<&'b Arc<Resource>> {
    let slot = BucketSlot::of(path);
    buckets[slot.bucket].table.find(slot.hash, path)
}

/// The directories above `path`, nearest first, the root last.
pub fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let slashes = (0..path.len()).rev().filter(|&at| path[at] == b'/');
    let root = (!path.is_empty()).then_some(b"".as_slice());
    slashes.map(|at| &path[..at]).chain(root)
}

impl Manifest {
    /// A site without resources.
    pub fn empty(settings: impl Into<Arc<Settings>>) -> Self {
        let settings = settings.into();
        let mut bucket = Bucket {
            table: BucketTable::default(),
            below: BTreeMap::new(),
            folders: BTreeSet::new(),
            has_deltas: false,
            hash: [0; 32],
        };
        bucket.seal(&settings);
        let bucket = Arc::new(bucket);
        let buckets: Box<[_]> = std::iter::repeat_n(bucket, BUCKETS).collect();
        let unreadable = BTreeMap::new();
        let header_rules = Arc::new(HeaderRules::default());
        let digest = digest(&settings, header_rules.rules(), &buckets, true);
        Self {
            settings,
            header_rules,
            buckets,
            unreadable,
            without_codings: BTreeSet::new(),
            retired: HashMap::new(),
            digest,
            digest_value: visible(&digest),
            resources: 0,
            unsettled: 0,
            bytes: 0,
            has_delta_files: false,
            ordered: OnceLock::new(),
            inodes: OnceLock::new(),
            empty_folders: OnceLock::new(),
            page_cache: Arc::default(),
        }
    }

    /// This state with `changes` applied. Costs what is changed, not what there is, unless the
    /// rules for fields have changed.
    #[must_use]
    pub fn with(&self, changes: Changes) -> Self {
        let (header_rules, must_reapply_rules) = match changes.rules {
            Some(rules) => {
                let have_changed = rules.headers.hash() != self.rules().headers.hash();
                (Arc::new(HeaderRules::new(rules)), have_changed)
            }
            None => (Arc::clone(&self.header_rules), false),
        };
        let settings = changes
            .settings
            .unwrap_or_else(|| Arc::clone(&self.settings));
        let mut edit = BucketEdit::new(self);
        if settings.listing != self.settings.listing {
            // Folders without files count, or no longer.
            edit.touched.fill(true);
        }
        edit.replace_folders(&changes.removed_folders, changes.new_folders);
        let mut retired = self.retired.clone();
        for path in changes.removed {
            let old = edit.remove(&path);
            if let (Some(resource), Some(until)) = (old, changes.keep_until)
                && (changes.keep_pages || !self.is_page(&resource))
            {
                retired.insert(path, Retired { resource, until });
            }
        }
        if !retired.is_empty() {
            for resource in &changes.changed {
                retired.remove(&resource.path);
            }
        }
        edit.put_all(changes.changed, &header_rules);
        if must_reapply_rules {
            for old in retired.values_mut() {
                old.resource = header_rules.apply_to(Arc::clone(&old.resource));
            }
            edit.reapply_rules(&header_rules);
        }
        let BucketEdit {
            buckets,
            inodes,
            resources,
            unsettled,
            bytes,
            ..
        } = edit.finish(&settings);
        let unreadable = changes.unreadable;
        let without_codings = changes.without_codings;
        let is_complete = unreadable.is_empty() && without_codings.is_empty() && unsettled == 0;
        let digest = digest(&settings, header_rules.rules(), &buckets, is_complete);
        for (resource, until) in changes.retired {
            let is_there = find(&buckets, &resource.path).is_some();
            if !is_there && !retired.contains_key(&resource.path) {
                let resource = header_rules.apply_to(resource);
                retired.insert(resource.path.clone(), Retired { resource, until });
            }
        }
        Self {
            settings,
            header_rules,
            has_delta_files: buckets.iter().any(|bucket| bucket.has_deltas),
            buckets,
            unreadable,
            without_codings,
            retired,
            digest,
            digest_value: visible(&digest),
            resources,
            unsettled,
            bytes,
            inodes: inodes.map_or_else(OnceLock::new, OnceLock::from),
            ordered: OnceLock::new(),
            empty_folders: OnceLock::new(),
            page_cache: Arc::default(),
        }
    }

    /// The resource at `path`: raw bytes below the root, without the leading slash. Requests reach
    /// the site only through this look-up, so that what no scan has admitted can't be reached by
    /// any spelling (P6).
    pub fn locate(&self, path: &[u8]) -> Option<&Arc<Resource>> {
        find(&self.buckets, path)
    }

    /// Whether anything lies below this directory.
    pub fn has_below(&self, directory: &[u8]) -> bool {
        let place = BucketSlot::of(directory);
        self.buckets[place.bucket].below.contains_key(directory)
    }

    /// The resources below these directories. Costs as much as [`Manifest::with_prefixes`].
    pub fn below(&self, directories: &[&[u8]]) -> Vec<&Arc<Resource>> {
        let prefix = |directory: &&[u8]| match directory.is_empty() {
            true => Vec::new(),
            false => [*directory, b"/"].concat(),
        };
        let directories = directories.iter().filter(|it| self.has_below(it));
        self.with_prefixes(directories.map(prefix).collect())
    }

    /// The resources whose paths begin with one of these. Costs what is found, and a short search in
    /// each bucket for each prefix; where that would be more, a look at all resources.
    pub fn with_prefixes(&self, mut prefixes: BTreeSet<Vec<u8>>) -> Vec<&Arc<Resource>> {
        // What begins with a longer one begins with the shorter one, which stands before it.
        let mut shorter: Option<Vec<u8>> = None;
        prefixes.retain(|prefix| {
            let is_new = shorter.as_ref().is_none_or(|it| !prefix.starts_with(it));
            if is_new {
                shorter = Some(prefix.clone());
            }
            is_new
        });
        if prefixes.len().saturating_mul(BUCKETS) > self.resources {
            let is_wanted = |each: &&Arc<Resource>| {
                note_look();
                let up_to_path = (Bound::Unbounded, Bound::Included(&*each.path));
                let mut not_after = prefixes.range::<[u8], _>(up_to_path);
                not_after
                    .next_back()
                    .is_some_and(|it| each.path.starts_with(it))
            };
            return self.iter().filter(is_wanted).collect();
        }
        prefixes
            .iter()
            .flat_map(|prefix| self.buckets.iter().flat_map(|it| it.with_prefix(prefix)))
            .collect()
    }

    /// The resources whose file has this inode number, on whichever device.
    pub fn with_inode(&self, inode: u64) -> impl Iterator<Item = &Arc<Resource>> {
        self.inodes
            .get_or_init(|| InodeIndex::new(self.iter()))
            .get(inode)
    }

    /// Whether this folder is on the disk, where folders are listed.
    pub fn has_folder(&self, folder: &[u8]) -> bool {
        let place = BucketSlot::of(folder);
        self.buckets[place.bucket].folders.contains(folder)
    }

    /// The folders on the disk, with and without files, in no particular order; none where folders
    /// are not listed.
    pub fn folders(&self) -> impl Iterator<Item = &[u8]> {
        let folders = self.buckets.iter().flat_map(|bucket| &bucket.folders);
        folders.map(AsRef::as_ref)
    }

    /// The folders that have no file in them or below, each with a slash at its end, ordered: what
    /// listings show besides files. Sorted once for each state.
    pub fn empty_folders(&self) -> &[Box<[u8]>] {
        self.empty_folders.get_or_init(|| {
            let empty = self.buckets.iter().flat_map(|bucket| bucket.empty());
            let mut empty: Vec<Box<[u8]>> =
                empty.map(|folder| [folder, b"/"].concat().into()).collect();
            empty.sort_unstable();
            empty.into()
        })
    }

    /// The rules of the site.
    pub fn rules(&self) -> &Arc<Rules> {
        self.header_rules.rules()
    }

    /// A resource of this state with the fields that the rules give it under `path`, which need
    /// not be its own, and under the host that a request names.
    pub fn resource_at_path<'r>(
        &self,
        resource: &'r Arc<Resource>,
        path: &[u8],
        host: Option<&str>,
    ) -> Cow<'r, Arc<Resource>> {
        self.header_rules.resource_at_path(resource, path, host)
    }

    /// A generated page about this state, from the cache or from `make`. `key` has to name
    /// everything else that the page depends on.
    pub fn cached_page(
        &self,
        key: &[u8],
        make: impl FnOnce() -> Option<Resource>,
    ) -> Option<Arc<Resource>> {
        self.page_cache.get(key, make)
    }

    /// A generated page with the fields that the rules give to any content at `path` and the
    /// requested host, and with this `Content-Security-Policy`.
    #[must_use]
    pub fn page_at_path(
        &self,
        page: &Resource,
        policy: Option<HeaderValue>,
        path: &[u8],
        host: Option<&str>,
    ) -> Resource {
        self.header_rules.page_at_path(page, policy, path, host)
    }

    /// Whether any removed resource is still served.
    pub fn has_retired(&self) -> bool {
        !self.retired.is_empty()
    }

    /// The removed resource that is still served at `path`.
    pub fn locate_retired(&self, path: &[u8]) -> Option<&Arc<Resource>> {
        self.retired.get(path).map(|retired| &retired.resource)
    }

    /// This state with each removed resource replaced by what `keep` returns for it, and the
    /// resources for which it returns none. `None` if nothing changes.
    pub fn with_retired(
        &self,
        keep: impl Fn(&Arc<Resource>, Instant) -> Option<Arc<Resource>>,
    ) -> Option<(Self, Vec<Arc<Resource>>)> {
        let (mut retired, mut expired) = (HashMap::new(), Vec::new());
        let mut is_same = true;
        for (path, old) in &self.retired {
            match keep(&old.resource, old.until) {
                Some(resource) => {
                    is_same &= Arc::ptr_eq(&resource, &old.resource);
                    let until = old.until;
                    retired.insert(path.clone(), Retired { resource, until });
                }
                None => {
                    is_same = false;
                    expired.push(Arc::clone(&old.resource));
                }
            }
        }
        (!is_same).then(|| {
            let rest = Self {
                retired,
                ..self.clone()
            };
            (rest, expired)
        })
    }

    /// Whether a resource is a page or the sidecar of one. Old pages, which are why removed files
    /// are kept, load neither.
    pub fn is_page(&self, resource: &Resource) -> bool {
        resource.is_html()
            || Coding::ALL
                .into_iter()
                .filter_map(Coding::extension)
                .any(|extension| {
                    resource
                        .path
                        .strip_suffix(extension.as_bytes())
                        .and_then(|path| path.strip_suffix(b"."))
                        .and_then(|path| self.locate(path))
                        .is_some_and(|decoded| decoded.is_html())
                })
    }

    /// The files that are named like deltas, in no particular order.
    pub fn delta_files(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.buckets
            .iter()
            .filter(|bucket| bucket.has_deltas)
            .flat_map(|bucket| bucket.table.resources())
            .filter(|resource| is_delta(resource))
    }

    /// Whether any file is named like a delta: without one, nobody needs to look at dictionaries.
    pub fn has_delta_files(&self) -> bool {
        self.has_delta_files
    }

    /// All resources, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.buckets
            .iter()
            .flat_map(|bucket| bucket.table.resources())
    }

    /// All resources, ordered by path.
    pub fn resources(&self) -> Vec<&Arc<Resource>> {
        let mut all: Vec<_> = self.iter().collect();
        all.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        all
    }

    /// All resources, ordered by path, sorted once for each state: 8 bytes a resource.
    pub fn ordered(&self) -> &[Arc<Resource>] {
        self.ordered
            .get_or_init(|| self.resources().into_iter().cloned().collect())
    }

    /// What is left out of the site.
    pub fn exclusions(&self) -> Exclusions {
        Exclusions::new(&self.settings.exclude, &self.rules().exclude)
    }

    /// The settings that change answers.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The same, to be kept.
    pub fn shared_settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// Number of resources.
    pub fn len(&self) -> usize {
        self.resources
    }

    /// Whether the site has no resources.
    pub fn is_empty(&self) -> bool {
        self.resources == 0
    }

    /// Total bytes of all resources, without their codings.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Paths that could not be read, with the reason.
    pub fn unreadable(&self) -> &BTreeMap<Box<[u8]>, String> {
        &self.unreadable
    }

    /// The paths that are sent without the codings that they should have.
    pub fn without_codings(&self) -> &BTreeSet<Box<[u8]>> {
        &self.without_codings
    }

    /// The site digest: BLAKE3 over the format version, the settings, the hash of what the rules
    /// mean, where there are some, and the 4,096 bucket hashes.
    /// A bucket's hash covers its entries ordered by path, each as the path with its length, the
    /// number of representations, and of each its coding and tag. Paths are raw bytes. With
    /// `--listing` its folders without files follow, if it has any: they have answers then. No
    /// mtime, inode, host or media type built into etagd enters.
    pub fn digest(&self) -> SiteDigest {
        self.digest
    }

    /// The site digest as a field's value, prepared once.
    pub fn digest_value(&self) -> &HeaderValue {
        &self.digest_value
    }
}

/// The buckets of a state on the way to the next one.
struct BucketEdit {
    buckets: Box<[Arc<Bucket>]>,
    /// The resources by inode, where somebody has needed that before.
    inodes: Option<InodeIndex>,
    /// By bucket: whether its entries have changed, so that it has to be hashed again.
    touched: Vec<bool>,
    /// By directory: how many more resources it holds itself than before.
    growth: HashMap<Box<[u8]>, isize>,
    resources: usize,
    unsettled: usize,
    bytes: u64,
}

impl BucketEdit {
    fn new(manifest: &Manifest) -> Self {
        Self {
            buckets: manifest.buckets.clone(),
            inodes: manifest.inodes.get().cloned(),
            touched: vec![false; BUCKETS],
            growth: HashMap::new(),
            resources: manifest.resources,
            unsettled: manifest.unsettled,
            bytes: manifest.bytes,
        }
    }

    /// Has the paths of new resources name them from now on, with the fields that the rules give them.
    fn put_all(&mut self, new: Vec<Arc<Resource>>, header_rules: &HeaderRules) {
        let place = |resource| {
            let resource = header_rules.apply_to(resource);
            (BucketSlot::of(&resource.path), resource)
        };
        if new.len() < BUCKETS {
            for (slot, resource) in new.into_iter().map(place) {
                self.put(slot, resource);
            }
            return;
        }
        // What a first scan brings is so much that all cores take part in it, a chunk at a time: room for
        // all at once would stay with the allocator.
        self.make_room(new.len());
        let mut new = new.into_iter();
        loop {
            let chunk: Vec<_> = new.by_ref().take(CHUNK_LENGTH).collect();
            if chunk.is_empty() {
                return;
            }
            let placed: Vec<_> = chunk.into_par_iter().map(place).collect();
            for (slot, resource) in placed {
                self.put(slot, resource);
            }
        }
    }

    /// Makes room for many new resources: growing again and again would have to find their places anew
    /// each time.
    fn make_room(&mut self, new: usize) {
        // They are spread evenly, and four standard deviations more are enough for all buckets but few.
        let mean = new / BUCKETS;
        let more = mean + 4 * mean.isqrt();
        self.buckets.par_iter_mut().for_each(|bucket| {
            let length = bucket.table.resources().len();
            // Those that are replaced leave their room.
            if more > length {
                Arc::make_mut(bucket).table.reserve(more - length);
            }
        });
    }

    /// Removes what `path` names, and returns it.
    fn remove(&mut self, path: &[u8]) -> Option<Arc<Resource>> {
        let slot = BucketSlot::of(path);
        let bucket = Arc::make_mut(&mut self.buckets[slot.bucket]);
        self.touched[slot.bucket] = true;
        let old = bucket.table.remove(slot.hash, path)?;
        self.count_removed(&old);
        self.grow_directory(path, -1);
        Some(old)
    }

    /// Has the path of `new` name it from now on.
    fn put(&mut self, slot: BucketSlot, new: Arc<Resource>) {
        let bucket = Arc::make_mut(&mut self.buckets[slot.bucket]);
        self.touched[slot.bucket] = true;
        let old = bucket.table.remove(slot.hash, &new.path);
        bucket.table.insert(slot.hash, Arc::clone(&new));
        match &old {
            Some(old) => self.count_removed(old),
            None => self.grow_directory(&new.path, 1),
        }
        self.resources += 1;
        self.unsettled += usize::from(!new.settled);
        self.bytes += new.of_files().0.length;
        if let Some(inodes) = &mut self.inodes {
            inodes.insert(new);
        }
    }

    fn count_removed(&mut self, old: &Arc<Resource>) {
        self.resources -= 1;
        self.unsettled -= usize::from(!old.settled);
        self.bytes -= old.of_files().0.length;
        if let Some(inodes) = &mut self.inodes {
            inodes.remove(old);
        }
    }

    /// Notes how many more files the directory of `path` holds itself.
    fn grow_directory(&mut self, path: &[u8], growth: isize) {
        let directory = ancestors(path).next().unwrap_or_default();
        // Most files of a change lie in few directories: only the first copies its name.
        match self.growth.get_mut(directory) {
            Some(all) => *all += growth,
            None => drop(self.growth.insert(directory.into(), growth)),
        }
    }

    /// Has these folders be gone, and those be there.
    fn replace_folders(&mut self, removed: &[Box<[u8]>], new: Vec<Box<[u8]>>) {
        for folder in removed {
            let at = BucketSlot::of(folder).bucket;
            self.touched[at] |= Arc::make_mut(&mut self.buckets[at]).folders.remove(folder);
        }
        for folder in new {
            let at = BucketSlot::of(&folder).bucket;
            self.touched[at] |= Arc::make_mut(&mut self.buckets[at]).folders.insert(folder);
        }
    }

    /// Gives every resource the fields that new rules produce for it.
    fn reapply_rules(&mut self, header_rules: &HeaderRules) {
        // It has the resources with the fields that they had.
        self.inodes = None;
        self.buckets
            .par_iter_mut()
            .zip(&mut self.touched)
            .for_each(|(bucket, touched)| *touched |= Bucket::reapply_rules(bucket, header_rules));
    }

    /// Counts the directories and hashes the buckets that have changed.
    fn finish(mut self, settings: &Settings) -> Self {
        for (directory, growth) in self.growth.drain() {
            for directory in std::iter::once(&*directory).chain(ancestors(&directory)) {
                let at = BucketSlot::of(directory).bucket;
                let bucket = Arc::make_mut(&mut self.buckets[at]);
                bucket.grow(directory, growth);
                // It may be empty now, or be so no longer.
                self.touched[at] |= bucket.folders.contains(directory);
            }
        }
        self.buckets
            .par_iter_mut()
            .zip(&self.touched)
            .filter(|(_, touched)| **touched)
            .for_each(|(bucket, _)| Arc::make_mut(bucket).seal(settings));
        self
    }
}

impl Bucket {
    /// Applies the rules to every entry again, and returns whether any has changed.
    fn reapply_rules(bucket: &mut Arc<Self>, header_rules: &HeaderRules) -> bool {
        fn clean(resource: &Resource) -> Option<&Arc<Fields>> {
            resource.clean().map(|clean| &clean.fields)
        }
        let mut is_changed = false;
        let bucket = Arc::make_mut(bucket);
        for entry in bucket.table.resources_mut() {
            let ruled = header_rules.apply_to(Arc::clone(entry));
            if entry.fields != ruled.fields || clean(entry) != clean(&ruled) {
                // The path is unchanged, and so is its slot in the table.
                *entry = ruled;
                is_changed = true;
            }
        }
        is_changed
    }

    /// Its entries whose paths begin with this.
    fn with_prefix(&self, prefix: &[u8]) -> &[Arc<Resource>] {
        let is_before = |entry: &Arc<Resource>| {
            note_look();
            *entry.path < *prefix
        };
        let ordered = self.table.resources();
        let rest = &ordered[ordered.partition_point(is_before)..];
        &rest[..rest.partition_point(|entry| entry.path.starts_with(prefix))]
    }

    /// Adds `growth` to the number of resources below a directory.
    fn grow(&mut self, directory: &[u8], growth: isize) {
        let before = self.below.remove(directory).unwrap_or(0);
        let now = before.saturating_add_signed(growth);
        if now > 0 {
            self.below.insert(directory.into(), now);
        }
    }

    /// Those of its folders that have no file in them or below, in order.
    fn empty(&self) -> impl Iterator<Item = &[u8]> {
        let folders = self.folders.iter().map(AsRef::as_ref);
        folders.filter(|folder| !self.below.contains_key(*folder))
    }

    /// Computes the hash of the entries, and of the empty folders where they are listed.
    fn seal(&mut self, settings: &Settings) {
        self.table.sort();
        self.has_deltas = self.table.resources().iter().any(|each| is_delta(each));
        let mut hasher = blake3::Hasher::new();
        for resource in self.table.resources() {
            frame(&mut hasher, &resource.path);
            let (identity, encoded) = resource.of_files();
            hasher.update(&(1 + encoded.len() as u64).to_le_bytes());
            for representation in std::iter::once(identity).chain(encoded) {
                frame(&mut hasher, representation.coding().token().as_bytes());
                if let Some(dictionary) = representation.coding().dictionary() {
                    frame(&mut hasher, dictionary.as_bytes());
                }
                frame(&mut hasher, representation.etag.opaque().as_bytes());
            }
        }
        // The digest of a developer's server is that of the files, whatever it lists.
        if settings.listing {
            let mut empty = self.empty().peekable();
            if empty.peek().is_some() {
                // No entry begins so: no file has an empty path.
                frame(&mut hasher, b"");
            }
            empty.for_each(|folder| frame(&mut hasher, folder));
        }
        self.hash = *hasher.finalize().as_bytes();
    }
}

fn digest(
    settings: &Settings,
    rules: &Rules,
    buckets: &[Arc<Bucket>],
    complete: bool,
) -> SiteDigest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"etagd site digest");
    hasher.update(&DIGEST_VERSION.to_le_bytes());
    cover(&mut hasher, settings);
    if !rules.is_empty() {
        hasher.update(&rules.hash());
    }
    for bucket in buckets {
        hasher.update(&bucket.hash);
    }
    SiteDigest {
        hash: hasher.finalize(),
        complete,
    }
}

/// Counts the entries that searches by prefix look at, for the test of what they cost.
fn note_look() {
    #[cfg(test)]
    tests::LOOKS.set(tests::LOOKS.get() + 1);
}

fn is_delta(resource: &Resource) -> bool {
    coding::delta_stem(&resource.path).is_some()
}

/// Hashes every setting. Each has a fixed length or is preceded by its length, so that no two sets
/// of settings hash the same bytes.
fn cover(hasher: &mut blake3::Hasher, settings: &Settings) {
    let Settings {
        last_modified,
        repr_digest,
        html_handling,
        not_found,
        immutable,
        immutable_query,
        redirects,
        listing,
        base_path,
        exclude,
        dictionaries,
        compress,
        additions: _,
    } = settings;
    let repr_digest = match repr_digest {
        ReprDigest::Off => 0,
        ReprDigest::Wanted => 1,
        ReprDigest::Always => 2,
    };
    let html_handling = match html_handling {
        HtmlHandling::Suffix => 0,
        HtmlHandling::AutoTrailingSlash => 1,
        HtmlHandling::ForceTrailingSlash => 2,
        HtmlHandling::DropTrailingSlash => 3,
        HtmlHandling::None => 4,
    };
    let not_found = match not_found {
        NotFound::None => 0,
        NotFound::Page => 1,
        NotFound::SinglePageApplication => 2,
    };
    let switches = [u8::from(*last_modified), u8::from(*immutable_query)];
    hasher.update(&switches);
    let redirects = match redirects {
        RedirectsDialect::Netlify => 0,
        RedirectsDialect::Cloudflare => 1,
    };
    hasher.update(&[repr_digest, html_handling, not_found, redirects]);
    // Neither their order nor repetition changes an answer.
    let immutable: BTreeSet<_> = immutable.iter().map(ImmutableFiles::as_str).collect();
    hasher.update(&(immutable.len() as u64).to_le_bytes());
    for pattern in immutable {
        frame(hasher, pattern.as_bytes());
    }
    // Only when it is on, so that sites without listings keep the digest they had before the
    // setting existed.
    if *listing {
        frame(hasher, b"listing");
    }
    if !base_path.is_whole_host() {
        frame(hasher, b"base-path");
        frame(hasher, base_path.home().as_bytes());
    }
    // In their order, on which it depends what they leave out.
    for pattern in exclude.as_strs() {
        frame(hasher, b"exclude");
        frame(hasher, pattern.as_bytes());
    }
    if *dictionaries != DictionaryFiles::Families {
        frame(hasher, b"dictionary");
        frame(hasher, dictionaries.to_string().as_bytes());
    }
    // As for listings. The name is part of it because two versions that encode differently must not
    // agree, even where a site has nothing to compress yet.
    if let Some(policy) = compress {
        frame(hasher, b"compress");
        frame(hasher, policy.to_string().as_bytes());
    }
}

/// Hashes a length and then the bytes, so that no two lists of names hash the same bytes.
fn frame(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use bytes::Bytes;

    use super::*;
    use crate::representation::{Data, REVALIDATE, Representation};
    use crate::semantics::etag::ETag;
    use crate::settings::CompressionPolicy;

    fn of(change: impl FnOnce(&mut Settings)) -> String {
        let mut settings = Settings::default();
        change(&mut settings);
        Manifest::empty(settings).digest().to_string()
    }

    fn globs(patterns: &[&str]) -> Vec<ImmutableFiles> {
        let globs = patterns.iter().map(|pattern| pattern.parse());
        globs.collect::<Result<_, _>>().expect("patterns")
    }

    thread_local! {
        /// Entries that searches by prefix have looked at.
        pub(super) static LOOKS: Cell<usize> = const { Cell::new(0) };
    }

    #[test]
    fn a_directory_is_there_as_long_as_anything_is_below_it() {
        let with = |base: &Manifest, added: &[&str], removed: &[&str]| {
            base.with(Changes {
                changed: added
                    .iter()
                    .map(|path| Arc::new(resource(path, [0; 32])))
                    .collect(),
                removed: removed.iter().map(|path| path.as_bytes().into()).collect(),
                ..Changes::default()
            })
        };
        let there = |manifest: &Manifest| {
            let all = ["", "a", "a/b", "a/b/c", "a/b/c/2", "d", "ab"];
            let all = all.into_iter();
            all.filter(|path| manifest.has_below(path.as_bytes()))
                .collect::<Vec<_>>()
        };
        let empty = Manifest::empty(Settings::default());
        assert_eq!(there(&empty), [""; 0]);
        let first = with(&empty, &["a/b/c/1", "a/b/c/2", "a/3", "ab"], &[]);
        assert_eq!(there(&first), ["", "a", "a/b", "a/b/c"]);
        // What is replaced is there once; what was not there can't go.
        let second = with(&first, &["a/b/c/1"], &["a/b/c/2", "d/4"]);
        assert_eq!(there(&second), ["", "a", "a/b", "a/b/c"]);
        let third = with(&second, &["d/4"], &["a/b/c/1"]);
        assert_eq!(there(&third), ["", "a", "d"]);
        let fourth = with(&third, &[], &["a/3", "ab", "d/4"]);
        assert_eq!(there(&fourth), [""; 0]);
        assert_eq!(there(&first), ["", "a", "a/b", "a/b/c"]);
        assert_eq!(fourth.digest(), empty.digest());
    }

    #[test]
    fn a_folder_without_files_counts_where_folders_are_listed() {
        let changes = |files: &[&str], gone: &[&str], folders: &[&str], gone_folders: &[&str]| {
            let boxed = |paths: &[&str]| -> Vec<Box<[u8]>> {
                paths.iter().map(|path| path.as_bytes().into()).collect()
            };
            let resource = |path: &&str| Arc::new(resource(path, [0; 32]));
            Changes {
                changed: files.iter().map(resource).collect(),
                removed: boxed(gone),
                new_folders: boxed(folders),
                removed_folders: boxed(gone_folders),
                ..Changes::default()
            }
        };
        let empty_in = |site: &Manifest| {
            let folders = site.empty_folders().iter();
            let folders = folders.map(|folder| String::from_utf8_lossy(folder).into_owned());
            folders.collect::<Vec<_>>().join(" ")
        };
        let listing = |listing, additional| {
            let mut settings = Settings {
                listing,
                ..Settings::default()
            };
            settings.additions.listing = additional;
            Manifest::empty(settings)
        };
        for (is_covered, none) in [(true, listing(true, false)), (false, listing(false, true))] {
            let is_other = |one: &Manifest, other: &Manifest| {
                assert_eq!(one.digest() != other.digest(), is_covered);
            };
            let files = none.with(changes(&["a/f", "b/c/f"], &[], &[], &[]));
            let known = files.with(changes(&[], &[], &["a", "b", "b/c"], &[]));
            assert_eq!(
                (empty_in(&known), known.digest()),
                (String::new(), files.digest())
            );
            let more = known.with(changes(&[], &[], &["a/e", "b.c", "b/c/d"], &[]));
            assert_eq!(empty_in(&more), "a/e/ b.c/ b/c/d/");
            is_other(&more, &known);
            // What becomes empty, and is so no longer.
            let less = more.with(changes(&[], &["b/c/f"], &[], &[]));
            assert_eq!(empty_in(&less), "a/e/ b.c/ b/ b/c/ b/c/d/");
            let again = less.with(changes(&["b/c/f"], &[], &[], &[]));
            assert_eq!(
                (empty_in(&again), again.digest()),
                (empty_in(&more), more.digest())
            );
            let filled = more.with(changes(&["a/e/f"], &[], &[], &[]));
            assert_eq!(empty_in(&filled), "b.c/ b/c/d/");
            // In any order, and in one step.
            let steps = [&["b/c/d"][..], &["a", "b.c"], &["b/c", "a/e", "b"]];
            let other = steps.iter().fold(files.clone(), |site, folders| {
                site.with(changes(&[], &[], folders, &[]))
            });
            assert_eq!(
                (empty_in(&other), other.digest()),
                (empty_in(&more), more.digest())
            );
            let gone = other.with(changes(&[], &[], &["b.c"], &["a/e", "b.c", "b/c/d"]));
            assert_eq!(empty_in(&gone), "b.c/");
            let gone = gone.with(changes(&[], &[], &[], &["b.c", "x"]));
            assert_eq!(
                (empty_in(&gone), gone.digest()),
                (String::new(), files.digest())
            );
            assert_eq!(gone.folders().count(), 3);
        }
    }

    fn paths<'r>(resources: impl IntoIterator<Item = &'r Arc<Resource>>) -> Vec<String> {
        let paths = resources.into_iter();
        let mut paths: Vec<_> = paths
            .map(|it| String::from_utf8_lossy(&it.path).into_owned())
            .collect();
        paths.sort_unstable();
        paths
    }

    #[test]
    fn what_lies_below_directories_is_found_in_small_sites_and_large_ones() {
        let small = ["a", "a.b", "a/1", "a/b/2", "a/b0", "a/bc/3", "b/4", "c/5"];
        for others in [0, 3 * BUCKETS] {
            let others = (0..others).map(|number| format!("z/{}/{number}", number % 100));
            let all = small.iter().map(ToString::to_string).chain(others);
            let site = Manifest::empty(Settings::default()).with(Changes {
                changed: all.map(|path| Arc::new(resource(&path, [1; 32]))).collect(),
                ..Changes::default()
            });
            let below = |directories: &[&str]| {
                let directories: Vec<_> = directories.iter().map(|it| it.as_bytes()).collect();
                paths(site.below(&directories)).join(" ")
            };
            assert_eq!(below(&["a"]), "a/1 a/b/2 a/b0 a/bc/3");
            assert_eq!(below(&["a/b", "c", "a/b0", "d", "b/4"]), "a/b/2 c/5");
            assert_eq!(below(&["a/1", "a.b", "x", ""][..3]), "");
            assert_eq!(site.below(&[b"".as_slice()]).len(), site.len());
            let with_prefixes = |prefixes: &[&str]| {
                let prefixes = prefixes.iter().map(|it| it.as_bytes().to_vec());
                paths(site.with_prefixes(prefixes.collect())).join(" ")
            };
            assert_eq!(with_prefixes(&["a/b"]), "a/b/2 a/b0 a/bc/3");
            let nested = with_prefixes(&["a/b0", "a/b", "a/bc", "c"]);
            assert_eq!(nested, "a/b/2 a/b0 a/bc/3 c/5");
            // More than there are buckets for.
            let many = ["a/b", "a/bc", "b", "c", "1", "2", "3", "z/7", "z/8", "z/9"];
            let found = below(&many);
            let (known, other) = found.split_at("a/b/2 a/bc/3 b/4 c/5".len());
            assert_eq!(known, "a/b/2 a/bc/3 b/4 c/5");
            let is_wanted = |it: &str| ["z/7/", "z/8/", "z/9/"].iter().any(|of| it.starts_with(of));
            assert!(other.split_whitespace().all(is_wanted), "{other}");
            let wanted = paths(site.iter()).iter().filter(|it| is_wanted(it)).count();
            assert_eq!(other.split_whitespace().count(), wanted);
        }
    }

    #[test]
    fn a_small_change_in_a_large_site_looks_at_few_of_its_files() {
        let all = (0..20 * BUCKETS).map(|number| format!("{}/{number}", number % 1000));
        let with_inode = |path: &str, inode| {
            let mut resource = resource(path, [1; 32]);
            resource.stamp.inode = inode;
            Arc::new(resource)
        };
        let site = Manifest::empty(Settings::default()).with(Changes {
            changed: all
                .zip(1..)
                .map(|(path, inode)| with_inode(&path, inode))
                .collect(),
            ..Changes::default()
        });
        // A directory.
        let before = LOOKS.get();
        assert_eq!(site.below(&[b"7".as_slice()]).len(), 82);
        let looks = LOOKS.get() - before;
        assert!(looks < site.len() / 2, "{looks} of {}", site.len());
        // The names of a file: a site that has been asked once goes on being asked.
        assert_eq!(paths(site.with_inode(7)), ["6/6"]);
        assert!(site.with_inode(0).next().is_none());
        let next = site.with(Changes {
            changed: vec![with_inode("6/6", 8), with_inode("new", 7)],
            removed: vec![b"1/1".as_slice().into()],
            ..Changes::default()
        });
        assert!(next.inodes.get().is_some(), "all files are looked at again");
        assert_eq!(paths(next.with_inode(7)), ["new"]);
        assert_eq!(paths(next.with_inode(8)), ["6/6", "7/7"]);
        assert!(next.with_inode(2).next().is_none());
        assert_eq!(paths(site.with_inode(7)), ["6/6"], "the state before");
    }

    /// A resource whose content has this hash.
    fn resource(path: &str, hash: [u8; 32]) -> Resource {
        let data = Data::Memory(Bytes::new());
        let identity = Representation::new(Coding::Identity, ETag::new(hash), 0, data);
        let text = HeaderValue::from_static("text/plain");
        let fields = Arc::new(Fields::new(text, REVALIDATE));
        Resource::new(path.as_bytes().into(), fields, identity)
    }

    #[test]
    fn p7_a_digest_is_incomplete_while_any_entry_is_unsettled_or_unreadable() {
        let unsettled = |path: &str| {
            let resource = resource(path, [1; 32]);
            Resource {
                settled: false,
                ..resource
            }
        };
        let empty = Manifest::empty(Settings::default());
        let with = |base: &Manifest, changed: Vec<Resource>, removed: &[&str]| {
            base.with(Changes {
                changed: changed.into_iter().map(Arc::new).collect(),
                removed: removed.iter().map(|path| path.as_bytes().into()).collect(),
                ..Changes::default()
            })
        };
        let settled = with(
            &empty,
            vec![resource("a", [1; 32]), resource("b", [1; 32])],
            &[],
        );
        assert!(settled.digest().is_complete());
        let one = with(&settled, vec![unsettled("a")], &[]);
        assert!(!one.digest().is_complete());
        // The hash says nothing of it: the bytes are the same.
        assert_eq!(one.digest().hash(), settled.digest().hash());
        assert_eq!(
            one.digest().to_string(),
            format!("{}-incomplete", settled.digest())
        );
        let expected: Digest = settled.digest().to_string().parse().expect("a digest");
        assert!(settled.digest().matches(expected) && !one.digest().matches(expected));
        // What changes elsewhere, and what is unsettled again, leaves it so.
        let two = with(
            &one,
            vec![unsettled("b"), unsettled("a"), resource("c", [1; 32])],
            &[],
        );
        assert!(!two.digest().is_complete());
        let one = with(&two, vec![resource("a", [1; 32])], &["c"]);
        assert!(!one.digest().is_complete());
        assert!(
            with(&one, vec![resource("b", [1; 32])], &[])
                .digest()
                .is_complete()
        );
        assert!(with(&one, vec![], &["b"]).digest().is_complete());
        let unreadable = empty.with(Changes {
            unreadable: [(b"x".as_slice().into(), "no".to_owned())].into(),
            ..Changes::default()
        });
        assert!(!unreadable.digest().is_complete());
    }

    /// Paths whose entries lie in one bucket.
    fn in_one_bucket(number: usize) -> Vec<String> {
        let paths = (0..).map(|n| format!("f{n}"));
        let is_there = |path: &String| BucketSlot::of(path.as_bytes()).bucket == 77;
        paths.filter(is_there).take(number).collect()
    }

    #[test]
    fn p11_the_order_in_which_entries_come_is_not_in_the_digest() {
        let mut paths = in_one_bucket(24);
        let empty = Manifest::empty(Settings::default());
        let add = |base: &Manifest, paths: &[String]| {
            let changed = paths.iter().map(|path| Arc::new(resource(path, [2; 32])));
            base.with(Changes {
                changed: changed.collect(),
                ..Changes::default()
            })
        };
        let at_once = add(&empty, &paths).digest();
        for step in [1, 5, 7] {
            // 24 has none of these as a factor: each goes through all of them.
            paths = (0..24).map(|n| paths[n * step % 24].clone()).collect();
            assert_eq!(add(&empty, &paths).digest(), at_once, "{paths:?}");
            let one_by_one = paths.iter().fold(empty.clone(), |base, path| {
                add(&base, std::slice::from_ref(path))
            });
            assert_eq!(one_by_one.digest(), at_once, "{paths:?}");
            paths.reverse();
        }
    }

    #[test]
    fn p7_each_setting_is_part_of_the_digest() {
        let digests = [
            of(|_| {}),
            of(|to| to.last_modified = false),
            of(|to| to.repr_digest = ReprDigest::Wanted),
            of(|to| to.repr_digest = ReprDigest::Always),
            of(|to| to.html_handling = HtmlHandling::AutoTrailingSlash),
            of(|to| to.html_handling = HtmlHandling::ForceTrailingSlash),
            of(|to| to.html_handling = HtmlHandling::DropTrailingSlash),
            of(|to| to.html_handling = HtmlHandling::None),
            of(|to| to.not_found = NotFound::None),
            of(|to| to.not_found = NotFound::SinglePageApplication),
            of(|to| to.immutable_query = true),
            of(|to| to.listing = true),
            of(|to| to.immutable = globs(&["/a"])),
            of(|to| to.immutable = globs(&["/b"])),
            of(|to| to.immutable = globs(&["/a", "/b"])),
            of(|to| to.immutable = globs(&["/a/b"])),
            of(|to| to.immutable = globs(&["auto"])),
            of(|to| to.immutable = globs(&["/auto"])),
            of(|to| to.compress = Some(CompressionPolicy::default())),
            of(|to| to.compress = "br".parse().ok()),
        ];
        let different: BTreeSet<_> = digests.iter().collect();
        assert_eq!(different.len(), digests.len(), "{digests:#?}");
        assert_eq!(
            of(|to| to.immutable = globs(&["/a", "/b"])),
            of(|to| to.immutable = globs(&["/b", "/a", "/b"])),
        );
    }
}

//! One published, immutable state of the site: which path names which resource, and the digest
//! of it all.
//!
//! The entries lie in 4,096 buckets by the BLAKE3 of their path. A bucket is both a shard of the
//! look-up table and a leaf of the Merkle tree whose root is the site digest, so a publication
//! copies and hashes only the buckets it touches. What is hashed is written at
//! [`Manifest::digest`].

mod diff;
mod export;
mod header_rules;
mod page_cache;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use hashbrown::HashTable;
use http::HeaderValue;
use rayon::iter::{IndexedParallelIterator, IntoParallelRefMutIterator, ParallelIterator};

use crate::config::{
    Digest, HtmlHandling, NotFound, PathGlob, RedirectsDialect, ReprDigest, Settings,
};
use crate::representation::{Fields, Resource, visible};
use crate::rules::Rules;
use crate::semantics::coding::Coding;
use header_rules::HeaderRules;
use page_cache::PageCache;

/// Version of what the site digest covers and how.
const FORMAT: u32 = 1;
const BUCKETS: usize = 4096;

/// What a whole site is: equal digests mean equal answers on every replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SiteDigest {
    hash: blake3::Hash,
    complete: bool,
}

impl SiteDigest {
    /// Whether every file of the site is in it: none unreadable, none still changing.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// The root of the Merkle tree, without a word on whether it is complete.
    pub fn hash(&self) -> &blake3::Hash {
        &self.hash
    }

    /// Whether this is the expected state of the site, with every file in it.
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
    /// Paths that name nothing any more.
    pub removed: Vec<Box<[u8]>>,
    /// All paths that can't be read now, with the reason.
    pub unreadable: BTreeMap<Box<[u8]>, String>,
    /// The rules of the site, where their files have changed.
    pub rules: Option<Arc<Rules>>,
    /// Until when the removed paths, HTML excepted, are still answered, if at all.
    pub keep_until: Option<Instant>,
    /// HTML is not excepted.
    pub keep_pages: bool,
}

impl Changes {
    /// Whether they change nothing in `manifest`.
    pub fn changes_nothing_in(&self, manifest: &Manifest) -> bool {
        self.changed.is_empty()
            && self.removed.is_empty()
            && self.rules.is_none()
            && self.unreadable == manifest.unreadable
    }
}

/// A resource that the site no longer has, and until when it is still answered.
#[derive(Clone, Debug)]
struct Retired {
    resource: Arc<Resource>,
    until: Instant,
}

/// One state of the site. Never changed once it is published.
#[derive(Clone, Debug)]
pub struct Manifest {
    settings: Arc<Settings>,
    /// The rules, which every resource here has been ruled with.
    header_rules: Arc<HeaderRules>,
    buckets: Box<[Arc<Bucket>]>,
    unreadable: BTreeMap<Box<[u8]>, String>,
    retired: HashMap<Box<[u8]>, Retired>,
    digest: SiteDigest,
    digest_value: HeaderValue,
    resources: usize,
    unsettled: usize,
    bytes: u64,
    /// All resources by path, once somebody asked.
    ordered: OnceLock<Arc<[Arc<Resource>]>>,
    /// Pages that somebody asked for.
    page_cache: Arc<PageCache>,
}

#[derive(Clone, Debug)]
struct Bucket {
    table: HashTable<Arc<Resource>>,
    /// How many resources lie below each of the directories whose place is here.
    below: BTreeMap<Box<[u8]>, usize>,
    hash: [u8; 32],
}

/// A path's place: which bucket, and the hash within its table.
struct BucketSlot {
    bucket: usize,
    hash: u64,
}

impl BucketSlot {
    fn of(path: &[u8]) -> Self {
        let hash = blake3::hash(path);
        let [a, b, rest @ ..] = hash.as_bytes();
        let [c, d, e, f, g, h, i, j, ..] = rest;
        Self {
            bucket: usize::from(u16::from_be_bytes([*a, *b]) >> 4),
            hash: u64::from_le_bytes([*c, *d, *e, *f, *g, *h, *i, *j]),
        }
    }
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
            table: HashTable::new(),
            below: BTreeMap::new(),
            hash: [0; 32],
        };
        bucket.seal();
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
            retired: HashMap::new(),
            digest,
            digest_value: visible(&digest),
            resources: 0,
            unsettled: 0,
            bytes: 0,
            ordered: OnceLock::new(),
            page_cache: Arc::default(),
        }
    }

    /// This state with `changes` made. Costs what is changed, not what there is, unless the rules
    /// for fields have changed.
    #[must_use]
    pub fn with(&self, changes: Changes) -> Self {
        let (header_rules, must_reapply_rules) = match changes.rules {
            Some(rules) => {
                let is_other = rules.headers.hash() != self.rules().headers.hash();
                (Arc::new(HeaderRules::new(rules)), is_other)
            }
            None => (Arc::clone(&self.header_rules), false),
        };
        let mut buckets = self.buckets.clone();
        let mut touched = vec![false; BUCKETS];
        let (mut resources, mut bytes) = (self.resources, self.bytes);
        let mut unsettled = self.unsettled;
        // By the directory that they are in: how many more there are than there were.
        let mut grown: HashMap<Box<[u8]>, isize> = HashMap::new();
        let mut replace = |path: &[u8], new: Option<Arc<Resource>>| {
            let place = BucketSlot::of(path);
            let bucket = Arc::make_mut(&mut buckets[place.bucket]);
            touched[place.bucket] = true;
            let is_old = |old: &Arc<Resource>| *old.path == *path;
            let old = bucket.table.find_entry(place.hash, is_old).ok();
            let old = old.map(|entry| entry.remove().0);
            let growth = isize::from(new.is_some()) - isize::from(old.is_some());
            if growth != 0 {
                let directory = ancestors(path).next().unwrap_or_default();
                match grown.get_mut(directory) {
                    Some(all) => *all += growth,
                    None => drop(grown.insert(directory.into(), growth)),
                }
            }
            if let Some(old) = &old {
                resources -= 1;
                unsettled -= usize::from(!old.settled);
                bytes -= old.of_files().0.length;
            }
            if let Some(new) = new {
                resources += 1;
                unsettled += usize::from(!new.settled);
                bytes += new.of_files().0.length;
                bucket
                    .table
                    .insert_unique(place.hash, new, |entry| BucketSlot::of(&entry.path).hash);
            }
            old
        };
        let mut retired = self.retired.clone();
        for path in changes.removed {
            let old = replace(&path, None);
            if let (Some(resource), Some(until)) = (old, changes.keep_until)
                && (changes.keep_pages || !self.is_page(&resource))
            {
                retired.insert(path, Retired { resource, until });
            }
        }
        for resource in changes.changed {
            retired.remove(&resource.path);
            let resource = header_rules.apply_to(resource);
            let path = Arc::clone(&resource);
            replace(&path.path, Some(resource));
        }
        for (directory, growth) in grown {
            let above = ancestors(&directory);
            for directory in std::iter::once(&*directory).chain(above) {
                let bucket = &mut buckets[BucketSlot::of(directory).bucket];
                Arc::make_mut(bucket).grow(directory, growth);
            }
        }
        if must_reapply_rules {
            for old in retired.values_mut() {
                old.resource = header_rules.apply_to(Arc::clone(&old.resource));
            }
            let all = buckets.par_iter_mut().zip(&mut touched);
            all.for_each(|(bucket, touched)| {
                *touched |= Bucket::reapply_rules(bucket, &header_rules)
            });
        }
        let touched = buckets
            .par_iter_mut()
            .zip(touched)
            .filter(|(_, touched)| *touched);
        touched.for_each(|(bucket, _)| Arc::make_mut(bucket).seal());
        let unreadable = changes.unreadable;
        let is_complete = unreadable.is_empty() && unsettled == 0;
        let digest = digest(&self.settings, header_rules.rules(), &buckets, is_complete);
        Self {
            settings: Arc::clone(&self.settings),
            header_rules,
            buckets,
            unreadable,
            retired,
            digest,
            digest_value: visible(&digest),
            resources,
            unsettled,
            bytes,
            ordered: OnceLock::new(),
            page_cache: Arc::default(),
        }
    }

    /// What `path` names: raw bytes below the root, without the leading slash. This is the only
    /// way in: what no scan admitted has no spelling.
    pub fn locate(&self, path: &[u8]) -> Option<&Arc<Resource>> {
        let place = BucketSlot::of(path);
        self.buckets[place.bucket]
            .table
            .find(place.hash, |resource| *resource.path == *path)
    }

    /// Whether anything lies below this directory.
    pub fn has_below(&self, directory: &[u8]) -> bool {
        let place = BucketSlot::of(directory);
        self.buckets[place.bucket].below.contains_key(directory)
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

    /// A page about this state, which `make` makes unless it is kept; `key` says what it is made of
    /// beside.
    pub fn cached_page(
        &self,
        key: &[u8],
        make: impl FnOnce() -> Option<Resource>,
    ) -> Option<Arc<Resource>> {
        self.page_cache.get(key, make)
    }

    /// A page of etagd's own under `path` and the host that a request names, with this
    /// `Content-Security-Policy` and what else the rules say there of any content.
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

    /// Whether anything of earlier states is kept.
    pub fn has_retired(&self) -> bool {
        !self.retired.is_empty()
    }

    /// What `path` named in an earlier state, as long as that is kept.
    pub fn locate_retired(&self, path: &[u8]) -> Option<&Arc<Resource>> {
        self.retired.get(path).map(|retired| &retired.resource)
    }

    /// This state with what `keep` makes of those of an earlier state, and those that are gone;
    /// `None` where all stay as they are.
    pub fn with_retired(
        &self,
        keep: impl Fn(&Arc<Resource>, Instant) -> Option<Arc<Resource>>,
    ) -> Option<(Self, Vec<Arc<Resource>>)> {
        let (mut retired, mut over) = (HashMap::new(), Vec::new());
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
                    over.push(Arc::clone(&old.resource));
                }
            }
        }
        (!is_same).then(|| {
            let rest = Self {
                retired,
                ..self.clone()
            };
            (rest, over)
        })
    }

    /// Whether a resource of this state is a page, or a page's sidecar: nothing that an old page
    /// asks for.
    pub fn is_page(&self, resource: &Resource) -> bool {
        let mut extensions = Coding::ALL.into_iter().filter_map(Coding::extension);
        resource.is_html()
            || extensions.any(|extension| {
                let path = resource.path.strip_suffix(extension.as_bytes());
                let path = path.and_then(|path| path.strip_suffix(b"."));
                path.and_then(|path| self.locate(path))
                    .is_some_and(|beside| beside.is_html())
            })
    }

    /// All resources, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.buckets.iter().flat_map(|bucket| &bucket.table)
    }

    /// All resources, ordered by path.
    pub fn resources(&self) -> Vec<&Arc<Resource>> {
        let mut all: Vec<_> = self
            .buckets
            .iter()
            .flat_map(|bucket| &bucket.table)
            .collect();
        all.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        all
    }

    /// The same, kept for the next who asks: 8 bytes a resource.
    pub fn ordered(&self) -> &[Arc<Resource>] {
        self.ordered
            .get_or_init(|| self.resources().into_iter().cloned().collect())
    }

    /// What the operator chose that changes answers.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Number of resources.
    pub fn len(&self) -> usize {
        self.resources
    }

    /// Whether there is nothing to serve.
    pub fn is_empty(&self) -> bool {
        self.resources == 0
    }

    /// Sum of the lengths of all resources, codings not counted.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Paths that could not be read, with the reason.
    pub fn unreadable(&self) -> &BTreeMap<Box<[u8]>, String> {
        &self.unreadable
    }

    /// The site digest: BLAKE3 over the format version, the settings, the hash of what the rules
    /// mean, where there are some, and the 4,096 bucket hashes.
    /// A bucket's hash covers its entries ordered by path, each as the path with its length, the
    /// number of representations, and of each its coding and tag. Paths are raw bytes. No mtime,
    /// inode, host or media type built into etagd enters.
    pub fn digest(&self) -> SiteDigest {
        self.digest
    }

    /// The site digest as a field's value, prepared once.
    pub fn digest_value(&self) -> &HeaderValue {
        &self.digest_value
    }
}

impl Bucket {
    /// Folds every entry anew; whether that has changed any.
    fn reapply_rules(bucket: &mut Arc<Self>, header_rules: &HeaderRules) -> bool {
        fn clean(resource: &Resource) -> Option<&Arc<Fields>> {
            resource.clean.as_ref().map(|clean| &clean.fields)
        }
        let mut is_changed = false;
        for entry in Arc::make_mut(bucket).table.iter_mut() {
            let ruled = header_rules.apply_to(Arc::clone(entry));
            if entry.fields != ruled.fields || clean(entry) != clean(&ruled) {
                // Its path, and so its place, is what it was.
                *entry = ruled;
                is_changed = true;
            }
        }
        is_changed
    }

    /// Counts so many more, or fewer, below a directory.
    fn grow(&mut self, directory: &[u8], growth: isize) {
        let before = self.below.remove(directory).unwrap_or(0);
        let now = before.saturating_add_signed(growth);
        if now > 0 {
            self.below.insert(directory.into(), now);
        }
    }

    /// Brings the hash in line with the entries.
    fn seal(&mut self) {
        let mut entries: Vec<&Arc<Resource>> = self.table.iter().collect();
        entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        let mut hasher = blake3::Hasher::new();
        for resource in entries {
            frame(&mut hasher, &resource.path);
            let (identity, encoded) = resource.of_files();
            hasher.update(&(1 + encoded.len() as u64).to_le_bytes());
            for representation in std::iter::once(identity).chain(encoded) {
                frame(&mut hasher, representation.coding.token().as_bytes());
                frame(&mut hasher, representation.etag.opaque().as_bytes());
            }
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
    hasher.update(&FORMAT.to_le_bytes());
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

/// Every setting, in this order; each has one length, or says how long it is.
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
    // Their order and how often each is there change no answer.
    let immutable: BTreeSet<_> = immutable.iter().map(PathGlob::pattern).collect();
    hasher.update(&(immutable.len() as u64).to_le_bytes());
    for pattern in immutable {
        frame(hasher, pattern.as_bytes());
    }
    // Without it, the digest is what it was before there were listings.
    if *listing {
        frame(hasher, b"listing");
    }
}

/// Length first, so that no two lists of names can read the same.
fn frame(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::representation::{Data, REVALIDATE, Representation};
    use crate::semantics::etag::ETag;

    fn of(change: impl FnOnce(&mut Settings)) -> String {
        let mut settings = Settings::default();
        change(&mut settings);
        Manifest::empty(settings).digest().to_string()
    }

    fn globs(patterns: &[&str]) -> Vec<PathGlob> {
        let globs = patterns.iter().map(|pattern| pattern.parse());
        globs.collect::<Result<_, _>>().expect("patterns")
    }

    #[test]
    fn a_directory_is_there_as_long_as_anything_is_below_it() {
        let with = |base: &Manifest, added: &[&str], removed: &[&str]| {
            let data = || Data::Memory(Bytes::new());
            let fields = Arc::new(Fields::new(
                HeaderValue::from_static("text/plain"),
                REVALIDATE,
            ));
            let resource = |path: &&str| {
                let identity = Representation::new(Coding::Identity, ETag::new([0; 32]), 0, data());
                let path = path.as_bytes().into();
                Arc::new(Resource::new(path, Arc::clone(&fields), identity))
            };
            base.with(Changes {
                changed: added.iter().map(resource).collect(),
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
        ];
        let different: BTreeSet<_> = digests.iter().collect();
        assert_eq!(different.len(), digests.len(), "{digests:#?}");
        assert_eq!(
            of(|to| to.immutable = globs(&["/a", "/b"])),
            of(|to| to.immutable = globs(&["/b", "/a", "/b"])),
        );
    }
}

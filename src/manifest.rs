//! One published, immutable state of the site: which path names which resource, and the digest
//! of it all.
//!
//! The entries lie in 4,096 buckets by the BLAKE3 of their path. A bucket is both a shard of the
//! look-up table and a leaf of the Merkle tree whose root is the site digest, so a publication
//! copies and hashes only the buckets it touches. What is hashed is written at
//! [`Manifest::digest`].

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use hashbrown::HashTable;
use http::header;
use rayon::iter::{IndexedParallelIterator, IntoParallelRefMutIterator, ParallelIterator};

use crate::config::{ReprDigest, Settings};
use crate::inventory::{
    self, Description, Descriptions, Difference, Entry, Head, Inventory, Reason,
};
use crate::representation::{REVALIDATE, Representation, Resource};
use crate::semantics::coding::Coding;

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
}

impl fmt::Display for SiteDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.complete { "" } else { "-incomplete" };
        write!(f, "{}{mark}", self.hash)
    }
}

/// The difference between two states of a site.
#[derive(Debug, Default)]
pub struct Changes {
    /// New resources, and those that replace what their path named before.
    pub changed: Vec<Arc<Resource>>,
    /// Paths that name nothing any more.
    pub removed: Vec<Box<[u8]>>,
    /// All paths that can't be read now, with the reason.
    pub unreadable: BTreeMap<Box<[u8]>, String>,
    /// Until when the removed paths, HTML excepted, are still answered, if at all.
    pub keep_until: Option<Instant>,
}

impl Changes {
    /// Whether they change nothing in `manifest`.
    pub fn changes_nothing_in(&self, manifest: &Manifest) -> bool {
        self.changed.is_empty() && self.removed.is_empty() && self.unreadable == manifest.unreadable
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
    settings: Settings,
    buckets: Box<[Arc<Bucket>]>,
    unreadable: BTreeMap<Box<[u8]>, String>,
    retired: HashMap<Box<[u8]>, Retired>,
    digest: SiteDigest,
    resources: usize,
    unsettled: usize,
    bytes: u64,
    /// All resources by path, once somebody asked.
    ordered: OnceLock<Arc<[Arc<Resource>]>>,
}

#[derive(Clone, Debug)]
struct Bucket {
    table: HashTable<Arc<Resource>>,
    hash: [u8; 32],
}

/// A path's place: which bucket, and the hash within its table.
struct Place {
    bucket: usize,
    hash: u64,
}

impl Place {
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

impl Manifest {
    /// A site without resources.
    pub fn empty(settings: Settings) -> Self {
        let mut bucket = Bucket {
            table: HashTable::new(),
            hash: [0; 32],
        };
        bucket.seal();
        let bucket = Arc::new(bucket);
        let buckets: Box<[_]> = std::iter::repeat_n(bucket, BUCKETS).collect();
        let unreadable = BTreeMap::new();
        let digest = digest(settings, &buckets, true);
        Self {
            settings,
            buckets,
            unreadable,
            retired: HashMap::new(),
            digest,
            resources: 0,
            unsettled: 0,
            bytes: 0,
            ordered: OnceLock::new(),
        }
    }

    /// This state with `changes` made. Costs what is changed, not what there is.
    #[must_use]
    pub fn with(&self, changes: Changes) -> Self {
        let mut buckets = self.buckets.clone();
        let mut touched = vec![false; BUCKETS];
        let (mut resources, mut bytes) = (self.resources, self.bytes);
        let mut unsettled = self.unsettled;
        let mut replace = |path: &[u8], new: Option<Arc<Resource>>| {
            let place = Place::of(path);
            let bucket = Arc::make_mut(&mut buckets[place.bucket]);
            touched[place.bucket] = true;
            let is_old = |old: &Arc<Resource>| *old.path == *path;
            let old = bucket.table.find_entry(place.hash, is_old).ok();
            let old = old.map(|entry| entry.remove().0);
            if let Some(old) = &old {
                resources -= 1;
                unsettled -= usize::from(!old.settled);
                bytes -= old.identity.length;
            }
            if let Some(new) = new {
                resources += 1;
                unsettled += usize::from(!new.settled);
                bytes += new.identity.length;
                bucket
                    .table
                    .insert_unique(place.hash, new, |entry| Place::of(&entry.path).hash);
            }
            old
        };
        let mut retired = self.retired.clone();
        for path in changes.removed {
            let old = replace(&path, None);
            if let (Some(resource), Some(until)) = (old, changes.keep_until)
                && !self.is_page(&resource)
            {
                retired.insert(path, Retired { resource, until });
            }
        }
        for resource in changes.changed {
            retired.remove(&resource.path);
            let path = Arc::clone(&resource);
            replace(&path.path, Some(resource));
        }
        let touched = buckets
            .par_iter_mut()
            .zip(touched)
            .filter(|(_, touched)| *touched);
        touched.for_each(|(bucket, _)| Arc::make_mut(bucket).seal());
        let unreadable = changes.unreadable;
        let digest = digest(
            self.settings,
            &buckets,
            unreadable.is_empty() && unsettled == 0,
        );
        Self {
            settings: self.settings,
            buckets,
            unreadable,
            retired,
            digest,
            resources,
            unsettled,
            bytes,
            ordered: OnceLock::new(),
        }
    }

    /// What `path` names: raw bytes below the root, without the leading slash. This is the only
    /// way in: what no scan admitted has no spelling.
    pub fn locate(&self, path: &[u8]) -> Option<&Arc<Resource>> {
        let place = Place::of(path);
        self.buckets[place.bucket]
            .table
            .find(place.hash, |resource| *resource.path == *path)
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
    pub fn settings(&self) -> Settings {
        self.settings
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

    /// The site digest: BLAKE3 over the format version, the settings and the 4,096 bucket hashes.
    /// A bucket's hash covers its entries ordered by path, each as the path with its length, the
    /// number of representations, and of each its coding and tag. Paths are raw bytes. No mtime,
    /// inode, host or media type built into etagd enters.
    pub fn digest(&self) -> SiteDigest {
        self.digest
    }

    /// Writes one line a representation, ordered by path: path, tag, size in bytes, media type
    /// and, where there is one, coding, separated by tabs. Paths are percent-encoded.
    ///
    /// # Errors
    /// As `out`.
    pub fn write_text(&self, out: &mut impl std::io::Write) -> std::io::Result<()> {
        for entry in self.entries() {
            let (path, etag, size) = (entry.url(), entry.etag, entry.size);
            let media_type = &entry.description.media_type;
            write!(out, "{path}\t{etag}\t{size}\t{media_type}")?;
            match entry.coding.extension() {
                Some(_) => writeln!(out, "\t{}", entry.coding.token())?,
                None => writeln!(out)?,
            }
        }
        Ok(())
    }

    /// Writes the manifest as JSON: `format`, `digest`, `complete`, `settings` and `entries`, one
    /// a line. [`Inventory::read`] reads it back.
    ///
    /// # Errors
    /// As `out`.
    pub fn write_json(&self, out: &mut impl std::io::Write) -> std::io::Result<()> {
        inventory::write(out, &self.head(), self.entries())
    }

    /// What [`Self::write_json`] writes.
    pub fn inventory(&self) -> Inventory {
        let mut entries: Vec<_> = self.entries().collect();
        entries.sort_by(|a, b| (&a.path, a.coding).cmp(&(&b.path, b.coding)));
        Inventory {
            head: self.head(),
            entries,
        }
    }

    /// What the manifest says of the site as one.
    pub fn head(&self) -> Head {
        let settings = self.settings.named().into_iter();
        Head {
            digest: self.digest.hash.to_string(),
            complete: self.digest.complete,
            settings: settings
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            rules: None,
        }
    }

    /// Every representation, ordered by path.
    fn entries(&self) -> impl Iterator<Item = Entry> {
        let mut descriptions = Descriptions::default();
        self.resources().into_iter().flat_map(move |resource| {
            let description = descriptions.one(describe(resource));
            let entry = move |representation: &Representation| Entry {
                path: resource.path.clone(),
                etag: representation.etag,
                size: representation.length,
                coding: representation.coding,
                description: Arc::clone(&description),
            };
            resource.representations().map(entry)
        })
    }

    /// What lies between this state and a `newer` one, ordered by path. Buckets with equal hashes
    /// are passed over: fields that no setting, rule or tag tells of are not compared.
    pub fn diff(&self, newer: &Self) -> Vec<Difference> {
        let is_comparable = self.settings == newer.settings;
        let mut differences = Vec::new();
        for (old, new) in self.buckets.iter().zip(&newer.buckets) {
            if Arc::ptr_eq(old, new) || (is_comparable && old.hash == new.hash) {
                continue;
            }
            let mut add = |path: &[u8], reason| {
                let path = path.into();
                differences.push(Difference { path, reason });
            };
            for resource in &new.table {
                match self.locate(&resource.path) {
                    None => add(&resource.path, Reason::Added),
                    Some(before) if !says_the_same(before, resource) => {
                        add(&resource.path, Reason::Changed);
                    }
                    Some(_) => {}
                }
            }
            let is_gone = |resource: &&Arc<Resource>| newer.locate(&resource.path).is_none();
            let gone = old.table.iter().filter(is_gone);
            gone.for_each(|resource| add(&resource.path, Reason::Removed));
        }
        differences.sort_unstable();
        differences
    }
}

/// Whether two resources are answered with the same tags and fields, dates aside.
fn says_the_same(one: &Resource, other: &Resource) -> bool {
    let tags = |resource: &'_ Resource| -> Vec<_> {
        let all = resource.representations();
        all.map(|each| (each.coding, each.etag)).collect()
    };
    one.fields == other.fields && tags(one) == tags(other)
}

/// What a response says of a resource beside the tag.
fn describe(resource: &Resource) -> Description {
    let fields = &resource.fields;
    let mut others = BTreeMap::new();
    if fields.cache_control != REVALIDATE {
        let value = inventory::text(fields.cache_control.as_bytes());
        others.insert(header::CACHE_CONTROL.to_string(), value);
    }
    Description {
        media_type: inventory::text(fields.content_type.as_bytes()),
        fields: others,
    }
}

impl Bucket {
    /// Brings the hash in line with the entries.
    fn seal(&mut self) {
        let mut entries: Vec<&Arc<Resource>> = self.table.iter().collect();
        entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        let mut hasher = blake3::Hasher::new();
        for resource in entries {
            frame(&mut hasher, &resource.path);
            hasher.update(&(1 + resource.encoded.len() as u64).to_le_bytes());
            for representation in resource.representations() {
                frame(&mut hasher, representation.coding.token().as_bytes());
                frame(&mut hasher, representation.etag.opaque().as_bytes());
            }
        }
        self.hash = *hasher.finalize().as_bytes();
    }
}

fn digest(settings: Settings, buckets: &[Arc<Bucket>], complete: bool) -> SiteDigest {
    let Settings {
        last_modified,
        repr_digest,
    } = settings;
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"etagd site digest");
    hasher.update(&FORMAT.to_le_bytes());
    let repr_digest = match repr_digest {
        ReprDigest::Off => 0,
        ReprDigest::Wanted => 1,
        ReprDigest::Always => 2,
    };
    hasher.update(&[u8::from(last_modified), repr_digest]);
    for bucket in buckets {
        hasher.update(&bucket.hash);
    }
    SiteDigest {
        hash: hasher.finalize(),
        complete,
    }
}

/// Length first, so that no two lists of names can read the same.
fn frame(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::between;
    use crate::representation::Data;
    use crate::representation::Fields;
    use crate::semantics::etag::ETag;

    /// What a test says of a resource: path, content, whether it has a coding, whether it rests.
    type Said = (&'static str, u8, bool, bool);

    /// Its name, what changes, what goes, and what should be found.
    type Case<'a> = (&'a str, &'a [Said], &'a [&'a str], &'a [(&'a str, Reason)]);

    fn resource((path, content, is_coded, settled): Said) -> Arc<Resource> {
        let tag = |salt: u8| ETag::new(*blake3::hash(&[content, salt]).as_bytes());
        let data = Data::Memory(bytes::Bytes::new());
        let representation =
            |coding, salt| Representation::new(coding, tag(salt), u64::from(content), data.clone());
        let fields = Arc::new(Fields {
            content_type: header::HeaderValue::from_static("text/plain"),
            cache_control: match settled {
                true => REVALIDATE,
                false => crate::representation::NO_STORE,
            },
        });
        let identity = representation(Coding::Identity, 0);
        let mut resource = Resource::new(path.as_bytes().into(), fields, identity);
        resource.settled = settled;
        if is_coded {
            resource.encoded = [representation(Coding::Gzip, 1)].into();
        }
        Arc::new(resource)
    }

    fn changes(changed: &[Said], removed: &[&str]) -> Changes {
        Changes {
            changed: changed.iter().copied().map(resource).collect(),
            removed: removed.iter().map(|path| path.as_bytes().into()).collect(),
            ..Changes::default()
        }
    }

    fn found(old: &Manifest, new: &Manifest) -> Vec<(String, Reason)> {
        let differences = old.diff(new);
        assert_eq!(differences, between(&old.inventory(), &new.inventory()));
        let path = |each: &Difference| String::from_utf8_lossy(&each.path).into_owned();
        differences
            .iter()
            .map(|each| (path(each), each.reason))
            .collect()
    }

    #[test]
    fn what_lies_between_two_states() {
        let base = [
            ("a", 1, false, true),
            ("b", 2, true, true),
            ("c", 3, false, true),
        ];
        let base = Manifest::empty(Settings::default()).with(changes(&base, &[]));
        #[rustfmt::skip]
        let cases: &[Case<'_>] = &[
            ("nothing", &[], &[], &[]),
            ("the same again", &[("a", 1, false, true), ("b", 2, true, true)], &[], &[]),
            ("other content", &[("a", 9, false, true)], &[], &[("a", Reason::Changed)]),
            ("a coding more", &[("a", 1, true, true)], &[], &[("a", Reason::Changed)]),
            ("a coding less", &[("b", 2, false, true)], &[], &[("b", Reason::Changed)]),
            ("a path more", &[("d", 1, false, true)], &[], &[("d", Reason::Added)]),
            ("a path less", &[], &["c"], &[("c", Reason::Removed)]),
            ("a path that was not there", &[], &["x"], &[]),
            ("all of it", &[("d", 1, false, true), ("b", 7, true, true)], &["a", "c"],
                &[("a", Reason::Removed), ("b", Reason::Changed), ("c", Reason::Removed), ("d", Reason::Added)]),
        ];
        for (name, changed, removed, want) in cases {
            let new = base.with(changes(changed, removed));
            let want: Vec<_> = want
                .iter()
                .map(|(path, reason)| ((*path).to_owned(), *reason))
                .collect();
            assert_eq!(found(&base, &new), want, "{name}");
            let back: Vec<_> = want
                .into_iter()
                .map(|(path, reason)| match reason {
                    Reason::Changed => (path, Reason::Changed),
                    Reason::Added => (path, Reason::Removed),
                    Reason::Removed => (path, Reason::Added),
                })
                .collect();
            assert_eq!(found(&new, &base), back, "{name}, backwards");
        }
    }

    #[test]
    fn a_change_is_found_among_many_thousand() {
        let names: Vec<String> = (0..20_000).map(|n| format!("d{}/f{n}", n % 70)).collect();
        let all = names.iter().map(|name| {
            let content = Representation::new(
                Coding::Identity,
                ETag::new(*blake3::hash(name.as_bytes()).as_bytes()),
                1,
                Data::Memory(bytes::Bytes::new()),
            );
            let fields = Arc::clone(&resource(("x", 0, false, true)).fields);
            Arc::new(Resource::new(name.as_bytes().into(), fields, content))
        });
        let base = Manifest::empty(Settings::default()).with(Changes {
            changed: all.collect(),
            ..Changes::default()
        });
        let new = base.with(changes(&[("d7/new", 1, false, true)], &["d3/f3", "d5/f5"]));
        let want = [
            ("d3/f3".to_owned(), Reason::Removed),
            ("d5/f5".to_owned(), Reason::Removed),
            ("d7/new".to_owned(), Reason::Added),
        ];
        assert_eq!(found(&base, &new), want);
    }

    #[test]
    fn other_settings_have_every_field_compared() {
        let base =
            Manifest::empty(Settings::default()).with(changes(&[("a", 1, false, true)], &[]));
        let settings = Settings {
            last_modified: false,
            ..Settings::default()
        };
        let other = Manifest::empty(settings).with(changes(&[("a", 1, false, false)], &[]));
        assert_eq!(base.diff(&other).len(), 1);
    }
}

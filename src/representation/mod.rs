//! Resources, their representations, and where their bytes are.
//!
//! A [`Resource`] is what a path names (RFC 9110 section 3.1); each content coding of it is a
//! [`Representation`] of its own (3.2), with its own tag. Everything here is immutable once a
//! manifest holds it, except that field values are rendered at the first request that needs them.
//!
//! | File | Subject |
//! |---|---|
//! | `fields` | field values that many resources share |
//! | `data` | where the bytes of a representation are |
//! | `remote` | those that a store elsewhere has |
//! | `piece` | what of them is read and proven at once |

mod data;
mod fields;
mod piece;
mod remote;

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::slice;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::HeaderValue;
use http::header::ACCEPT_ENCODING;
use once_cell::race::OnceBox;

use crate::disk::Stamp;
use crate::semantics::caching;
use crate::semantics::coding::{Coding, CodingKind};
use crate::semantics::date::HttpDate;
use crate::semantics::dictionary::{AVAILABLE_DICTIONARY, DictionaryHash};
use crate::semantics::etag::ETag;
use crate::semantics::precondition::Validators;
use crate::semantics::vary::Vary;

pub use data::{Data, FileSource, SpooledSource};
pub use fields::{Decoded, Decoding, Fields, IMMUTABLE, NO_STORE, REVALIDATE, Ruled, TextKind};
pub use piece::{GROUP_SIZE, GroupHash, MAX_WHOLE, PieceKey, PieceSpan, group_hash};
pub use remote::{PieceFuture, RemoteError, RemotePieces, RemoteSource};

/// Up to this length a body is kept in memory, as long as the budget has room.
pub const MAX_IN_MEMORY: u64 = 128 << 10;

/// What one path of the site names.
#[derive(Clone, Debug)]
pub struct Resource {
    /// Path below the root: raw bytes, without the leading slash.
    pub path: Box<[u8]>,
    /// Field values shared by all resources of the same type and rules.
    pub fields: Arc<Fields>,
    /// When the content was last modified, if that is known (RFC 9110 section 8.8.2).
    pub last_modified: Option<HttpDate>,
    /// State of the file when it was hashed.
    pub stamp: Stamp,
    /// Whether nobody was changing the file when it was hashed.
    pub settled: bool,
    /// Whether a later process may conclude from an equal stamp that the content is equal.
    pub confirmed: Confirmation,
    /// Whether the content is text.
    pub text: TextKind,
    /// The content without a coding.
    pub identity: Representation,
    /// The same content under content codings; those with a dictionary come last.
    pub encoded: EncodedForms,
    /// What few resources have. The methods of [`Resource`] read and change it.
    pub rare: RareParts,
}

/// What few resources have, in one word.
#[derive(Clone, Debug, Default)]
pub struct RareParts(Option<Box<RareFields>>);

#[derive(Clone, Debug, Default)]
struct RareFields {
    clean: Option<Arc<Resource>>,
    /// Where that is later than `last_modified`.
    newest_date: Option<HttpDate>,
    dictionary_use: Option<Box<DictionaryUse>>,
    plain: Option<Box<Plain>>,
}

impl RareFields {
    fn is_empty(&self) -> bool {
        let Self {
            clean,
            newest_date,
            dictionary_use,
            plain,
        } = self;
        clean.is_none() && newest_date.is_none() && dictionary_use.is_none() && plain.is_none()
    }
}

/// Whether something is so: open, until somebody finds it out for good.
#[derive(Debug, Default)]
pub struct Confirmation(AtomicU8);

impl Confirmation {
    const OPEN: u8 = 0;
    const YES: u8 = 1;
    const NO: u8 = 2;

    /// Whether it is so, once that is known.
    pub fn get(&self) -> Option<bool> {
        match self.0.load(Ordering::Relaxed) {
            Self::OPEN => None,
            value => Some(value == Self::YES),
        }
    }

    /// Says whether it is so, unless somebody has before.
    pub fn set(&self, is_so: bool) {
        let value = if is_so { Self::YES } else { Self::NO };
        // Whoever was first is right.
        let _ = self
            .0
            .compare_exchange(Self::OPEN, value, Ordering::Relaxed, Ordering::Relaxed);
    }
}

impl Clone for Confirmation {
    fn clone(&self) -> Self {
        Self(AtomicU8::new(self.0.load(Ordering::Relaxed)))
    }
}

/// The forms of some content under content codings. It has the size of one word, since many a site of
/// a million files has none.
#[derive(Clone, Debug, Default)]
pub struct EncodedForms(Option<Box<EncodedList>>);

#[derive(Clone, Debug)]
struct EncodedList {
    forms: Box<[Representation]>,
}

impl Deref for EncodedForms {
    type Target = [Representation];

    fn deref(&self) -> &[Representation] {
        self.0.as_deref().map_or(&[], |list| &list.forms)
    }
}

impl DerefMut for EncodedForms {
    fn deref_mut(&mut self) -> &mut [Representation] {
        self.0
            .as_deref_mut()
            .map_or(&mut [], |list| &mut list.forms)
    }
}

impl From<Vec<Representation>> for EncodedForms {
    fn from(forms: Vec<Representation>) -> Self {
        let forms = forms.into_boxed_slice();
        Self((!forms.is_empty()).then(|| Box::new(EncodedList { forms })))
    }
}

impl<const N: usize> From<[Representation; N]> for EncodedForms {
    fn from(forms: [Representation; N]) -> Self {
        Vec::from(forms).into()
    }
}

impl<'a> IntoIterator for &'a EncodedForms {
    type Item = &'a Representation;
    type IntoIter = slice::Iter<'a, Representation>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl FromIterator<Representation> for EncodedForms {
    fn from_iter<I: IntoIterator<Item = Representation>>(forms: I) -> Self {
        forms.into_iter().collect::<Vec<_>>().into()
    }
}

/// For what URLs a resource is a dictionary.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DictionaryUse {
    /// The value of Use-As-Dictionary.
    value: HeaderValue,
    /// Whether the operator says so. Otherwise it has to be immutable: browsers offer only what is
    /// fresh (RFC 9842 section 2.2.1).
    is_chosen: bool,
}

impl DictionaryUse {
    /// A dictionary that the operator has chosen, for what matches a URL Pattern.
    pub fn chosen(pattern: &str) -> Self {
        Self {
            value: use_as_dictionary(pattern),
            is_chosen: true,
        }
    }

    /// A dictionary as long as it is immutable, for what matches a URL Pattern.
    pub fn of_immutable(pattern: &str) -> Self {
        Self {
            value: use_as_dictionary(pattern),
            is_chosen: false,
        }
    }
}

/// The value of Use-As-Dictionary (RFC 9842 section 2.1). Without `match-dest`: with one, `fetch()` and
/// workers would go without.
fn use_as_dictionary(pattern: &str) -> HeaderValue {
    let escaped = pattern.replace('\\', r"\\").replace('"', r#"\""#);
    visible(&format!("match=\"{escaped}\""))
}

impl Resource {
    /// A settled resource without a date or codings.
    pub fn new(path: Box<[u8]>, fields: Arc<Fields>, identity: Representation) -> Self {
        Self {
            path,
            fields,
            last_modified: None,
            stamp: Stamp::default(),
            settled: true,
            confirmed: Confirmation::default(),
            text: TextKind::Binary,
            identity,
            encoded: EncodedForms::default(),
            rare: RareParts::default(),
        }
    }

    /// Changes what few resources have.
    fn change_rare(&mut self, change: impl FnOnce(&mut RareFields)) {
        let mut rare = self.rare.0.take().unwrap_or_default();
        change(&mut rare);
        self.rare = RareParts((!rare.is_empty()).then_some(rare));
    }

    fn rare(&self) -> Option<&RareFields> {
        self.rare.0.as_deref()
    }

    /// This resource with the fields of its other path (`/about` for `about.html`, `/` for
    /// `index.html`), if the rules of the site give that path different ones.
    pub fn clean(&self) -> Option<&Arc<Self>> {
        self.rare()?.clean.as_ref()
    }

    /// Sets or clears [`Self::clean`].
    pub fn set_clean(&mut self, clean: Option<Arc<Self>>) {
        if clean.is_some() || self.clean().is_some() {
            self.change_rare(|rare| rare.clean = clean);
        }
    }

    /// The latest date that this path ever had. Other content must have a later one to have any.
    pub fn newest_date(&self) -> Option<HttpDate> {
        let rare = self.rare().and_then(|rare| rare.newest_date);
        self.last_modified.max(rare)
    }

    /// This resource, of whose path this is the latest date.
    #[must_use]
    pub fn with_newest_date(mut self, date: Option<HttpDate>) -> Self {
        let date = date.filter(|_| date > self.last_modified);
        if date != self.rare().and_then(|rare| rare.newest_date) {
            self.change_rare(|rare| rare.newest_date = date);
        }
        self
    }

    /// For what URLs it is a dictionary (RFC 9842).
    pub fn dictionary_use(&self) -> Option<&DictionaryUse> {
        self.rare()?.dictionary_use.as_deref()
    }

    /// Sets or clears [`Self::dictionary_use`].
    pub fn set_dictionary_use(&mut self, dictionary_use: Option<DictionaryUse>) {
        self.change_rare(|rare| rare.dictionary_use = dictionary_use.map(Box::new));
    }

    /// The content of the file itself, if a tail was added to it.
    pub fn plain(&self) -> Option<&Plain> {
        self.rare()?.plain.as_deref()
    }

    /// This resource with the content of the file itself, if a tail was added to it.
    #[must_use]
    pub fn with_plain(mut self, plain: Option<Box<Plain>>) -> Self {
        if plain.is_some() || self.plain().is_some() {
            self.change_rare(|rare| rare.plain = plain);
        }
        self
    }

    fn plain_mut(&mut self) -> Option<&mut Plain> {
        self.rare.0.as_deref_mut()?.plain.as_deref_mut()
    }

    /// The representations as they are in the site's files, without a tail: identity, codings.
    pub fn of_files(&self) -> (&Representation, &[Representation]) {
        match self.plain() {
            Some(plain) => (&plain.identity, &plain.encoded),
            None => (&self.identity, &self.encoded),
        }
    }

    /// Names the request fields that the choice among its representations depends on, and those that
    /// the rules of the site name.
    pub fn add_vary(&self, vary: &mut Vary) {
        if self.is_negotiable() {
            vary.add(ACCEPT_ENCODING.as_str().as_bytes());
        }
        if self.has_deltas() {
            vary.add(AVAILABLE_DICTIONARY.as_str().as_bytes());
        }
        let ruled = self.fields.ruled.as_ref();
        if let Some(names) = ruled.and_then(|ruled| ruled.vary.as_ref()) {
            vary.add(names.as_bytes());
        }
    }

    /// Whether the response depends on Accept-Encoding, and so names it in Vary. What is compressed
    /// under its own name is sent as it is, whatever is accepted: it has no other representation,
    /// and RFC 9110 section 12.5.3 lets a server send what is not accepted rather than nothing.
    pub fn is_negotiable(&self) -> bool {
        self.fields.content_encoding.is_none() && !self.encoded.is_empty()
    }

    /// Whether some of its representations need a dictionary, so that the response depends on
    /// Available-Dictionary, and names it in Vary.
    pub fn has_deltas(&self) -> bool {
        self.fields.content_encoding.is_none()
            && self
                .encoded
                .last()
                .is_some_and(Representation::has_dictionary)
    }

    /// The value of Use-As-Dictionary, if clients are told that it is a dictionary.
    pub fn use_as_dictionary(&self) -> Option<&HeaderValue> {
        let dictionary_use = self.dictionary_use()?;
        (dictionary_use.is_chosen || self.is_immutable()).then_some(&dictionary_use.value)
    }

    /// The content coding that a response with this representation names.
    pub fn content_coding(&self, selected: &Representation) -> Coding {
        self.fields.content_encoding.unwrap_or(selected.coding())
    }

    /// Whether it is HTML, which a browser navigates to.
    pub fn is_html(&self) -> bool {
        self.fields
            .content_type
            .as_bytes()
            .starts_with(b"text/html")
    }

    /// Whether clients are told that it never changes (RFC 8246).
    pub fn is_immutable(&self) -> bool {
        caching::is_immutable(self.fields.cache_control.as_bytes())
    }

    /// The resource without the representations whose bytes are in `file`, because that has
    /// changed; `None` if the content itself is in it.
    pub fn without_file(self: &Arc<Self>, file: &Path) -> Option<Arc<Self>> {
        if self.identity.is_in(file) {
            return None;
        }
        if !self.encoded.iter().any(|each| each.is_in(file)) {
            return Some(Arc::clone(self));
        }
        let mut resource = Self {
            encoded: self
                .encoded
                .iter()
                .filter(|each| !each.is_in(file))
                .cloned()
                .collect(),
            ..Self::clone(self)
        };
        resource.set_clean(self.clean().and_then(|clean| clean.without_file(file)));
        Some(Arc::new(resource))
    }

    /// The resource with these fields, and with tags that have their suffix.
    #[must_use]
    pub fn with_fields(&self, fields: Arc<Fields>) -> Self {
        let mut resource = self.clone();
        let suffix = fields.suffix();
        for representation in std::iter::once(&mut resource.identity).chain(&mut *resource.encoded)
        {
            representation.set_suffix(suffix);
        }
        if let Some(plain) = resource.plain_mut() {
            let tailed = plain.tailed.iter_mut();
            let identity = std::iter::once(&mut plain.identity);
            for representation in identity.chain(&mut *plain.encoded).chain(tailed) {
                representation.set_suffix(suffix);
            }
        }
        resource.fields = fields;
        resource.choose_tail();
        // The other path has fields of its own, which these say nothing about.
        resource.set_clean(None);
        resource
    }

    /// Sends the content with its tail or without: a rule may have made of a document something that
    /// no browser shows as HTML, and that the tail would break.
    fn choose_tail(&mut self) {
        let is_html = self.is_html();
        let rare = self.rare.0.as_deref_mut();
        let Some(plain) = rare.and_then(|rare| rare.plain.as_deref_mut()) else {
            return;
        };
        match plain.tailed.take() {
            Some(tailed) if is_html => self.identity = tailed,
            None if !is_html => {
                let tailed = std::mem::replace(&mut self.identity, plain.identity.clone());
                plain.tailed = Some(tailed);
            }
            unchanged => plain.tailed = unchanged,
        }
    }

    /// All representations, identity first.
    pub fn representations(&self) -> impl Iterator<Item = &Representation> {
        std::iter::once(&self.identity).chain(&*self.encoded)
    }

    /// Representation number `index` of [`Self::representations`].
    pub fn representation(&self, index: usize) -> &Representation {
        index
            .checked_sub(1)
            .and_then(|index| self.encoded.get(index))
            .unwrap_or(&self.identity)
    }

    /// `Last-Modified` as a field value, rendered once.
    pub fn last_modified_value(&self) -> Option<&HeaderValue> {
        let date = self.last_modified?;
        let values = self.identity.rendered.values();
        Some(values.date.get_or_init(|| visible(&date)))
    }

    /// The validators that preconditions are compared with.
    pub fn validators<'a>(&self, selected: &'a Representation) -> Validators<'a> {
        Validators {
            etag: Some(&selected.etag),
            last_modified: self.last_modified,
        }
    }
}

/// The content of a file, and its sidecars, for a resource that is served with a tail. It counts
/// for the site digest, and is sent only where a rule says that it is no HTML.
#[derive(Clone, Debug)]
pub struct Plain {
    /// The content with its tail, while that is not what is sent.
    pub tailed: Option<Representation>,
    /// The content of the file.
    pub identity: Representation,
    /// The content of its sidecars.
    pub encoded: EncodedForms,
}

/// One coding of a resource.
///
/// A site has millions of them: what is rare or made at the first request is in boxes of one word.
#[derive(Clone, Debug)]
pub struct Representation {
    coding: CodingKind,
    /// The hash of exactly its bytes.
    pub etag: ETag,
    /// Its length in bytes.
    pub length: u64,
    /// Its bytes.
    pub data: Data,
    hashes: Option<Box<OtherHashes>>,
    /// Whether the scan made it, rather than finding it in a file of the site.
    pub is_made: bool,
    rendered: Rendered,
}

/// Hashes that only some representations have, or those of some sites.
#[derive(Clone, Copy, Debug)]
struct OtherHashes {
    dictionary: Option<DictionaryHash>,
    sha256: Option<[u8; 32]>,
}

impl OtherHashes {
    fn boxed(dictionary: Option<DictionaryHash>, sha256: Option<[u8; 32]>) -> Option<Box<Self>> {
        let has_any = dictionary.is_some() || sha256.is_some();
        has_any.then(|| Box::new(Self { dictionary, sha256 }))
    }
}

impl Representation {
    /// A representation with this hash, length and data.
    pub fn new(coding: Coding, etag: ETag, length: u64, data: Data) -> Self {
        Self {
            coding: coding.kind(),
            etag,
            length,
            data,
            hashes: OtherHashes::boxed(coding.dictionary(), None),
            is_made: false,
            rendered: Rendered::default(),
        }
    }

    /// This representation with its SHA-256.
    #[must_use]
    pub fn with_sha256(self, sha256: Option<[u8; 32]>) -> Self {
        Self {
            hashes: OtherHashes::boxed(self.dictionary().copied(), sha256),
            ..self
        }
    }

    /// The SHA-256 of its bytes, if the operator enabled `Repr-Digest`.
    pub fn sha256(&self) -> Option<&[u8; 32]> {
        self.hashes.as_deref()?.sha256.as_ref()
    }

    /// Whether its coding has a dictionary. That is asked for each request, and is known without a look
    /// at what the dictionary is.
    pub fn has_dictionary(&self) -> bool {
        self.coding.has_dictionary()
    }

    /// The dictionary that its coding has, if any.
    fn dictionary(&self) -> Option<&DictionaryHash> {
        self.hashes.as_deref()?.dictionary.as_ref()
    }

    /// This representation as one that the scan made.
    #[must_use]
    pub fn made(self) -> Self {
        Self {
            is_made: true,
            ..self
        }
    }

    /// The content of a sidecar as a coding of its file. The suffix that rules give the sidecar as
    /// a file of its own is dropped.
    #[must_use]
    pub fn as_coding(&self, coding: Coding) -> Self {
        let mut representation = self.clone();
        representation.coding = coding.kind();
        representation.hashes = OtherHashes::boxed(coding.dictionary(), self.sha256().copied());
        representation.set_suffix(None);
        representation
    }

    /// Its content coding.
    pub fn coding(&self) -> Coding {
        self.coding.with(self.dictionary())
    }

    /// Sets or clears the suffix of the tag.
    fn set_suffix(&mut self, suffix: Option<[u8; 4]>) {
        if self.etag.fields() != suffix {
            let etag = ETag::new(*self.etag.hash());
            self.etag = suffix.map_or(etag, |suffix| etag.with_fields(suffix));
            self.rendered = Rendered::default();
        }
    }

    /// Whether its bytes are read from `file`.
    fn is_in(&self, file: &Path) -> bool {
        match &self.data {
            Data::File(source) => source.location() == file,
            Data::Memory(_) | Data::Spooled(_) | Data::Remote(_) => false,
        }
    }

    /// The tag as a field value, rendered once.
    pub fn etag_value(&self) -> &HeaderValue {
        let values = self.rendered.values();
        values.tag.get_or_init(|| visible(&self.etag))
    }

    /// The head of such a response, if somebody has made it and there was room for it.
    pub fn prepared_head(&self, kind: PreparedHead) -> Option<&Bytes> {
        self.rendered.0.get()?.heads[kind as usize].get()
    }

    /// Keeps the head of such a response. Where one is kept already it has the same bytes, and stays.
    pub fn keep_head(&self, kind: PreparedHead, head: Bytes) {
        let _ = self.rendered.values().heads[kind as usize].set(head);
    }
}

/// A response whose head depends on the representation alone, and not on the request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PreparedHead {
    /// 200, to GET and to HEAD.
    Whole,
    /// 304.
    NotModified,
}

/// What is made of a representation when it is asked for, and most are asked for seldom. A copy is
/// empty: the copy of the representation may be given other fields.
#[derive(Debug, Default)]
struct Rendered(OnceBox<RenderedValues>);

#[derive(Debug, Default)]
struct RenderedValues {
    /// The tag as a field value.
    tag: OnceLock<HeaderValue>,
    /// Of the content without a coding: the date of its resource as a field value.
    date: OnceLock<HeaderValue>,
    /// The heads of responses, as bytes of HTTP/1.1.
    heads: [OnceLock<Bytes>; 2],
}

impl Rendered {
    fn values(&self) -> &RenderedValues {
        self.0.get_or_init(Box::default)
    }
}

impl Clone for Rendered {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// A field value from something whose text is visible ASCII; empty if it is not.
pub fn visible(value: &impl fmt::Display) -> HeaderValue {
    HeaderValue::from_maybe_shared(Bytes::from(value.to_string()))
        .unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Root;

    #[test]
    fn a_million_of_them_fit_into_memory() {
        // Each byte here is a megabyte of a site with a million files. With the counts of an `Arc`, 200
        // bytes are what glibc's malloc has in a chunk of 224.
        assert!(
            size_of::<Representation>() <= 104,
            "{}",
            size_of::<Representation>()
        );
        assert!(size_of::<Resource>() <= 200, "{}", size_of::<Resource>());
    }

    #[test]
    fn what_is_in_one_file_leaves_what_is_in_others() {
        let directory = std::env::temp_dir();
        let root = Arc::new(Root::open(&directory).expect("a directory"));
        let path = |name: &str| root.path().join(name);
        let stored = |coding, name: &str| {
            let source = FileSource {
                root: Arc::clone(&root),
                path: Path::new(name).into(),
                groups: Arc::default(),
            };
            let etag = ETag::new([0; 32]);
            Representation::new(coding, etag, 1, Data::File(Arc::new(source)))
        };
        let fields = Fields::new(HeaderValue::from_static("text/plain"), REVALIDATE);
        let identity = stored(Coding::Identity, "a");
        let mut resource = Resource::new(b"a".as_slice().into(), Arc::new(fields), identity);
        resource.encoded = [Coding::Brotli, Coding::Gzip]
            .into_iter()
            .zip(["a.br", "a.gz"])
            .map(|(coding, name)| stored(coding, name))
            .collect();
        let resource = Arc::new(resource);
        let all = resource
            .without_file(&path("b"))
            .expect("nothing of it is there");
        assert!(Arc::ptr_eq(&all, &resource));
        let rest = resource.without_file(&path("a.br")).expect("the rest");
        let codings: Vec<_> = rest.representations().map(Representation::coding).collect();
        assert_eq!(codings, [Coding::Identity, Coding::Gzip]);
        assert!(resource.without_file(&path("a")).is_none());
    }
}

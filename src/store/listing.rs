//! Listings: all that a site is, apart from the bytes of its files.
//!
//! What a scan learns by reading the files is written down, and nothing that follows from it: fields and
//! the suffixes of tags are derived again from the rules, so that whoever serves the site may be of a
//! later version.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::io::{self, BufReader, Read, Write};

use percent_encoding::percent_decode_str;
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize};

use super::bounded;
use super::layout::{BlobHash, FORMAT_VERSION};
use crate::manifest::Manifest;
use crate::representation::{Decoding, MAX_WHOLE, Representation, Resource, TextKind};
use crate::rules::RuleFile;
use crate::semantics::coding::Coding;
use crate::semantics::date::HttpDate;
use crate::semantics::dictionary::DictionaryHash;
use crate::semantics::target::encode_path;

/// Level of zstd: hashes are half of a listing, and no level makes them shorter.
const LEVEL: i32 = 6;
/// The longest listing that is read.
pub(super) const MAX_LENGTH: u64 = 256 << 20;
/// The longest one after it is decompressed: a million files that are compressed twice, or three million that
/// are not.
const MAX_TEXT: u64 = 512 << 20;
/// The most files, and the most folders without any. These numbers and those below bound what a listing takes
/// up in memory: about two gigabytes, whatever somebody has written.
const MAX_FILES: usize = 4 << 20;
const MAX_FOLDERS: usize = 1 << 20;
/// The most flags, values of each, and rule files.
const MAX_FLAGS: usize = 100;
const MAX_VALUES: usize = 10_000;
const MAX_RULES: usize = 10;
/// The longest content: 1 TiB, the tree of which has 128 MiB, and the most of all contents together, which
/// can be added up.
const MAX_SIZE: u64 = 1 << 40;
const MAX_SUM: u64 = 1 << 60;

/// All that a site is, apart from the bytes of its files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SiteListing {
    /// The site digest.
    pub digest: BlobHash,
    /// The flags that change answers, as [`Settings::flags`](crate::settings::Settings::flags) has them.
    pub settings: BTreeMap<String, Vec<String>>,
    /// The blobs of the rule files that the site has.
    pub rules: BTreeMap<RuleFile, ListedRules>,
    /// The folders without files, each with a slash at its end, where they are listed.
    pub empty_folders: Vec<Box<[u8]>>,
    /// The files, ordered by path.
    pub files: Vec<ListedFile>,
}

/// A rule file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ListedRules {
    /// The hash of its bytes.
    pub hash: BlobHash,
    /// Their number.
    pub size: u64,
}

/// A file of a site.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(try_from = "JsonFile")]
pub struct ListedFile {
    /// Its path: raw bytes below the root, without the leading slash.
    pub path: Box<[u8]>,
    /// The hash of its bytes.
    pub hash: BlobHash,
    /// Their number.
    pub size: u64,
    /// Whether they are text.
    pub text: TextKind,
    /// When they were last modified, if that could be told.
    pub modified: Option<HttpDate>,
    /// The newest date that its path ever had.
    pub newest: Option<HttpDate>,
    /// The SHA-256 of its bytes, where that is sent.
    pub sha256: Option<[u8; 32]>,
    /// How it was proven to decode, where its name or a rule wanted that.
    pub decoded: Option<Decoding>,
    /// Its content codings, each proven to decode to it, in their order.
    pub codings: Vec<ListedCoding>,
}

/// A content coding of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListedCoding {
    /// Which one.
    pub coding: Coding,
    /// The hash of its bytes.
    pub hash: BlobHash,
    /// Their number.
    pub size: u64,
    /// Whether it was made of the file, rather than found next to it.
    pub is_made: bool,
    /// The SHA-256 of its bytes, where that is sent.
    pub sha256: Option<[u8; 32]>,
}

/// A listing as it is stored, and the name that it has.
#[derive(Clone, Debug)]
pub struct EncodedListing {
    /// The hash of the bytes.
    pub name: BlobHash,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// Whether a blob has a tree: it is too long to be proven whole before its first byte is sent.
#[must_use]
pub fn has_tree(size: u64) -> bool {
    size > MAX_WHOLE
}

impl SiteListing {
    /// What a manifest has. `rules` are the rule files that were read for it.
    #[must_use]
    pub fn of(manifest: &Manifest, rules: BTreeMap<RuleFile, ListedRules>) -> Self {
        let settings = manifest.settings();
        let flags = settings.flags().into_iter();
        Self {
            digest: BlobHash::new(*manifest.digest().hash().as_bytes()),
            settings: flags
                .map(|flag| (flag.name.to_owned(), flag.values().to_vec()))
                .collect(),
            rules,
            // As in the digest.
            empty_folders: match settings.listing {
                true => manifest.empty_folders().to_vec(),
                false => Vec::new(),
            },
            files: manifest
                .resources()
                .into_iter()
                .map(|resource| ListedFile::of(resource))
                .collect(),
        }
    }

    /// All its blobs with their lengths: some of them more than once.
    pub fn blobs(&self) -> impl Iterator<Item = (BlobHash, u64)> {
        let rules = self.rules.values().map(|it| (it.hash, it.size));
        let files = self.files.iter().flat_map(|file| {
            let codings = file.codings.iter().map(|it| (it.hash, it.size));
            std::iter::once((file.hash, file.size)).chain(codings)
        });
        rules.chain(files)
    }

    /// As it is stored: JSON with one line for each file, compressed.
    ///
    /// # Errors
    /// When it would be more than what is read.
    pub fn encode(&self) -> io::Result<EncodedListing> {
        let most_values = self.settings.values().map(Vec::len).max();
        if self.files.len() > MAX_FILES
            || self.empty_folders.len() > MAX_FOLDERS
            || most_values > Some(MAX_VALUES)
        {
            let reason = format!(
                "a release has at most {MAX_FILES} files, {MAX_FOLDERS} folders without files, and \
                 {MAX_VALUES} values of a flag"
            );
            return Err(io::Error::other(reason));
        }
        let mut out = LimitedWriter {
            inner: zstd::Encoder::new(Vec::new(), LEVEL)?,
            left: MAX_TEXT,
        };
        self.write(&mut out)?;
        let bytes = out.inner.finish()?;
        if bytes.len() as u64 > MAX_LENGTH {
            return Err(too_long());
        }
        Ok(EncodedListing {
            name: BlobHash::of(&bytes),
            bytes,
        })
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let head = JsonHead {
            format: FORMAT_VERSION,
            digest: self.digest,
            settings: self.settings.clone(),
            rules: self
                .rules
                .iter()
                .map(|(file, rules)| (file.name().to_owned(), *rules))
                .collect(),
            empty_folders: self
                .empty_folders
                .iter()
                .map(|it| encode_path(it))
                .collect(),
        };
        let mut head = serde_json::to_string(&head)?;
        // The files go into the same object.
        head.pop();
        write!(out, "{head},\"files\":[")?;
        let mut separator = "\n";
        for file in &self.files {
            out.write_all(separator.as_bytes())?;
            serde_json::to_writer(&mut *out, &JsonFile::of(file))?;
            separator = ",\n";
        }
        writeln!(out, "\n]}}")
    }

    /// Reads what [`Self::encode`] has made, and proves that it is what `name` stands for.
    ///
    /// # Errors
    /// When it is damaged, or of another version.
    pub fn read(name: &BlobHash, bytes: &[u8]) -> Result<Self, ListingError> {
        if BlobHash::of(bytes) != *name {
            return Err(ListingError::Damaged);
        }
        Self::decompress(bytes, MAX_TEXT)
    }

    fn decompress(bytes: &[u8], limit: u64) -> Result<Self, ListingError> {
        let text = zstd::Decoder::new(bytes).map_err(ListingError::Compression)?;
        let mut text = text.take(limit);
        match Self::parse(BufReader::new(&mut text)) {
            Err(_) if text.limit() == 0 => Err(ListingError::TooLong(limit)),
            read => read,
        }
    }

    fn parse(text: impl Read) -> Result<Self, ListingError> {
        let mut parser = serde_json::Deserializer::from_reader(text);
        let listing = JsonListing::deserialize(&mut parser)?;
        parser.end()?;
        let JsonListing {
            digest,
            settings,
            rules,
            empty_folders,
            files,
            ..
        } = listing;
        let rules = rules
            .into_iter()
            .map(
                |(name, rules)| match RuleFile::ALL.into_iter().find(|it| it.name() == name) {
                    Some(file) => Ok((file, rules)),
                    None => Err(ListingError::Rules(name)),
                },
            )
            .collect::<Result<_, _>>()?;
        let mut empty_folders: Vec<_> = empty_folders.into_iter().map(|it| it.0).collect();
        let mut files = files;
        empty_folders.sort_unstable();
        empty_folders.dedup();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        // A path names one resource.
        if let Some(pair) = files.windows(2).find(|pair| pair[0].path == pair[1].path) {
            return Err(ListingError::Twice(encode_path(&pair[0].path)));
        }
        let listing = Self {
            digest,
            settings: settings
                .into_iter()
                .map(|(name, it)| (name, it.0))
                .collect(),
            rules,
            empty_folders,
            files,
        };
        listing.check_sizes()?;
        Ok(listing)
    }

    /// Checks what the digest of the site does not cover: lengths. Whoever serves the listing relies on
    /// them before the bytes are there.
    fn check_sizes(&self) -> Result<(), ListingError> {
        let empty = BlobHash::of(b"");
        let (mut sizes, mut sum) = (HashMap::new(), 0_u64);
        for (hash, size) in self.blobs() {
            sum = sum.saturating_add(size);
            let known = *sizes.entry(hash).or_insert(size);
            if known != size {
                return Err(ListingError::Sizes { hash, known, size });
            }
            // Nothing is read of what is said to be empty, so nothing would prove it.
            if size > MAX_SIZE || sum > MAX_SUM || (size == 0) != (hash == empty) {
                return Err(ListingError::Size { hash, size });
            }
        }
        Ok(())
    }
}

/// Takes no more than whoever reads it will.
struct LimitedWriter<W> {
    inner: W,
    left: u64,
}

impl<W: Write> Write for LimitedWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.left = self.left.checked_sub(written as u64).ok_or_else(too_long)?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn too_long() -> io::Error {
    io::Error::other("the site has too many files for a release: the list of them is too long")
}

/// Why an object is no listing.
#[derive(Debug, thiserror::Error)]
pub enum ListingError {
    /// Its bytes are not those that its name stands for.
    #[error("its bytes are not those that its name stands for: the store has damaged it")]
    Damaged,
    /// It can't be decompressed.
    #[error("it cannot be decompressed: {0}")]
    Compression(io::Error),
    /// It is longer than any that is written.
    #[error("it has more than {0} bytes once it is decompressed")]
    TooLong(u64),
    /// It is no listing, or that of a later version.
    #[error("it is not as etagd push writes it: {0}")]
    Content(#[from] serde_json::Error),
    /// It has a path that is not as etagd writes it.
    #[error("it has the path {0:?}, which is not as etagd writes paths")]
    Path(String),
    /// It has something of a file that is not known.
    #[error(
        "it says of /{path} that its {what} is {value:?}, which this version of etagd does not know \
         (install a later one)"
    )]
    Unknown {
        /// The file.
        path: String,
        /// What it says something of.
        what: &'static str,
        /// What it says.
        value: String,
    },
    /// It has rules that are not known.
    #[error("the site has a file {0} of rules: install a later version of etagd")]
    Rules(String),
    /// It has a file twice.
    #[error("it has /{0} twice")]
    Twice(String),
    /// It has two lengths for the same content.
    #[error(
        "it says of {hash} that it has {known} bytes, and that it has {size}: push the site again"
    )]
    Sizes {
        /// The content.
        hash: BlobHash,
        /// One length.
        known: u64,
        /// The other.
        size: u64,
    },
    /// It has something that can't be so long, or all of it is too much.
    #[error("it says of {hash} that it has {size} bytes, which cannot be: push the site again")]
    Size {
        /// The content.
        hash: BlobHash,
        /// Its length.
        size: u64,
    },
}

impl ListedFile {
    fn of(resource: &Resource) -> Self {
        let (identity, encoded) = resource.of_files();
        Self {
            path: resource.path.clone(),
            hash: BlobHash::new(*identity.etag.hash()),
            size: identity.length,
            text: resource.text,
            modified: resource.last_modified,
            newest: resource.newest_date(),
            sha256: identity.sha256().copied(),
            decoded: resource.fields.decoding(),
            codings: encoded.iter().map(ListedCoding::of).collect(),
        }
    }
}

impl ListedCoding {
    fn of(encoded: &Representation) -> Self {
        Self {
            coding: encoded.coding(),
            hash: BlobHash::new(*encoded.etag.hash()),
            size: encoded.length,
            is_made: encoded.is_made,
            sha256: encoded.sha256().copied(),
        }
    }
}

/// All but the files, for writing.
#[derive(Serialize)]
struct JsonHead {
    format: u32,
    digest: BlobHash,
    settings: BTreeMap<String, Vec<String>>,
    rules: BTreeMap<String, ListedRules>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    empty_folders: Vec<String>,
}

/// All of it, for reading.
#[derive(Deserialize)]
struct JsonListing {
    /// Written first, so that a later form is refused for its version, not for what follows.
    #[serde(rename = "format", deserialize_with = "known_format")]
    _format: (),
    digest: BlobHash,
    #[serde(deserialize_with = "bounded::map::<_, _, MAX_FLAGS>")]
    settings: BTreeMap<String, ListedValues>,
    #[serde(default, deserialize_with = "bounded::map::<_, _, MAX_RULES>")]
    rules: BTreeMap<String, ListedRules>,
    #[serde(default, deserialize_with = "bounded::list::<_, _, MAX_FOLDERS>")]
    empty_folders: Vec<FolderPath>,
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_FILES>")]
    files: Vec<ListedFile>,
}

#[derive(Deserialize)]
#[serde(transparent)]
struct ListedValues(#[serde(deserialize_with = "bounded::list::<_, _, MAX_VALUES>")] Vec<String>);

/// A folder without files.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct FolderPath(Box<[u8]>);

impl TryFrom<String> for FolderPath {
    type Error = ListingError;

    fn try_from(folder: String) -> Result<Self, ListingError> {
        raw_path(&folder)
            .map(Self)
            .ok_or(ListingError::Path(folder))
    }
}

fn known_format<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    match u32::deserialize(deserializer)? {
        FORMAT_VERSION => Ok(()),
        format => Err(de::Error::custom(format_args!(
            "format {format} is not known to this version of etagd, which reads {FORMAT_VERSION}"
        ))),
    }
}

/// A file, for reading and writing.
#[derive(Serialize, Deserialize)]
struct JsonFile {
    path: String,
    hash: BlobHash,
    size: u64,
    text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    modified: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    newest: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    decoded: Option<JsonDecoding>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    codings: Vec<JsonCoding>,
}

#[derive(Serialize, Deserialize)]
struct JsonDecoding {
    coding: String,
    text: String,
}

#[derive(Serialize, Deserialize)]
struct JsonCoding {
    coding: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dictionary: Option<String>,
    hash: BlobHash,
    size: u64,
    #[serde(default, skip_serializing_if = "is_false")]
    made: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
}

/// As serde asks for it.
#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_false(value: &bool) -> bool {
    !value
}

impl JsonFile {
    fn of(file: &ListedFile) -> Self {
        Self {
            path: encode_path(&file.path),
            hash: file.hash,
            size: file.size,
            text: text_name(file.text).to_owned(),
            modified: file.modified.map(HttpDate::unix),
            newest: file.newest.map(HttpDate::unix),
            sha256: file.sha256.map(hex),
            decoded: file.decoded.map(|decoding| JsonDecoding {
                coding: decoding.coding.token().to_owned(),
                text: text_name(decoding.text).to_owned(),
            }),
            codings: file.codings.iter().map(JsonCoding::of).collect(),
        }
    }
}

impl TryFrom<JsonFile> for ListedFile {
    type Error = ListingError;

    fn try_from(file: JsonFile) -> Result<Self, ListingError> {
        let Some(path) = raw_path(&file.path) else {
            return Err(ListingError::Path(file.path));
        };
        let reader = FileReader { path: &file.path };
        let decoded = match file.decoded {
            Some(JsonDecoding { coding, text }) => Some(Decoding {
                coding: reader.known("coding", &coding, Coding::from_token(coding.as_bytes()))?,
                text: reader.text(&text)?,
            }),
            None => None,
        };
        Ok(Self {
            hash: file.hash,
            size: file.size,
            text: reader.text(&file.text)?,
            modified: reader.date(file.modified)?,
            newest: reader.date(file.newest)?,
            sha256: reader.sha256(file.sha256.as_deref())?,
            decoded,
            codings: file
                .codings
                .into_iter()
                .map(|coding| reader.coding(coding))
                .collect::<Result<_, _>>()?,
            path,
        })
    }
}

impl JsonCoding {
    fn of(encoded: &ListedCoding) -> Self {
        Self {
            coding: encoded.coding.token().to_owned(),
            dictionary: encoded.coding.dictionary().map(|it| it.to_string()),
            hash: encoded.hash,
            size: encoded.size,
            made: encoded.is_made,
            sha256: encoded.sha256.map(hex),
        }
    }
}

/// Reads what is said of one file.
struct FileReader<'p> {
    /// Percent-encoded.
    path: &'p str,
}

impl FileReader<'_> {
    fn known<T>(
        &self,
        what: &'static str,
        value: impl Display,
        found: Option<T>,
    ) -> Result<T, ListingError> {
        found.ok_or_else(|| ListingError::Unknown {
            path: self.path.to_owned(),
            what,
            value: value.to_string(),
        })
    }

    fn text(&self, name: &str) -> Result<TextKind, ListingError> {
        let found = TextKind::ALL.into_iter().find(|it| text_name(*it) == name);
        self.known("text", name, found)
    }

    fn date(&self, unix: Option<u64>) -> Result<Option<HttpDate>, ListingError> {
        let Some(unix) = unix else { return Ok(None) };
        let date = i64::try_from(unix).ok().and_then(HttpDate::from_unix);
        self.known("date", unix, date).map(Some)
    }

    fn sha256(&self, hex: Option<&str>) -> Result<Option<[u8; 32]>, ListingError> {
        let Some(hex) = hex else { return Ok(None) };
        let hash = hex.parse::<DictionaryHash>().ok();
        self.known("sha256", hex, hash.map(|it| *it.as_bytes()))
            .map(Some)
    }

    fn coding(&self, json: JsonCoding) -> Result<ListedCoding, ListingError> {
        let token = &json.coding;
        let coding = match &json.dictionary {
            None => Coding::from_token(token.as_bytes()),
            Some(hash) => hash.parse().ok().and_then(|hash| {
                let mut both = Coding::with_dictionary(hash).into_iter();
                both.find(|coding| coding.token() == token)
            }),
        };
        Ok(ListedCoding {
            coding: self.known("coding", token, coding)?,
            hash: json.hash,
            size: json.size,
            is_made: json.made,
            sha256: self.sha256(json.sha256.as_deref())?,
        })
    }
}

fn hex(sha256: [u8; 32]) -> String {
    DictionaryHash::new(sha256).to_string()
}

const fn text_name(text: TextKind) -> &'static str {
    match text {
        TextKind::Empty => "empty",
        TextKind::Utf8 => "utf-8",
        TextKind::Labelled => "labelled",
        TextKind::OtherCharset => "other-charset",
        TextKind::BinaryUtf8 => "binary-utf-8",
        TextKind::Binary => "binary",
    }
}

/// Decodes a path. `None` for a spelling that is not etagd's: two spellings of one path would be two
/// files.
fn raw_path(encoded: &str) -> Option<Box<[u8]>> {
    let raw: Vec<u8> = percent_decode_str(encoded).collect();
    (encode_path(&raw) == encoded && !raw.is_empty()).then(|| raw.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> ListedFile {
        ListedFile {
            path: path.as_bytes().into(),
            hash: BlobHash::of(path.as_bytes()),
            size: 7,
            text: TextKind::Utf8,
            modified: HttpDate::from_unix(1_700_000_000),
            newest: None,
            sha256: None,
            decoded: None,
            codings: Vec::new(),
        }
    }

    fn listing() -> SiteListing {
        let dictionary = DictionaryHash::new([7; 32]);
        let codings = [Coding::Brotli, Coding::Gzip].into_iter();
        let codings = codings.chain(Coding::with_dictionary(dictionary));
        let coded = ListedFile {
            newest: HttpDate::from_unix(1_800_000_000),
            sha256: Some([1; 32]),
            codings: codings
                .map(|coding| ListedCoding {
                    coding,
                    hash: BlobHash::of(coding.token().as_bytes()),
                    size: 3,
                    is_made: coding == Coding::Gzip,
                    sha256: Some([2; 32]),
                })
                .collect(),
            ..file("a b/\u{e9}.js")
        };
        let decoded = ListedFile {
            modified: None,
            text: TextKind::Binary,
            decoded: Some(Decoding {
                coding: Coding::Gzip,
                text: TextKind::OtherCharset,
            }),
            ..file("x.svgz")
        };
        let rules = ListedRules {
            hash: BlobHash::of(b"rules"),
            size: 5,
        };
        SiteListing {
            digest: BlobHash::of(b"digest"),
            settings: BTreeMap::from([("exclude".to_owned(), vec!["*.map".to_owned()])]),
            rules: BTreeMap::from([(RuleFile::Headers, rules)]),
            empty_folders: vec![b"empty/".as_slice().into()],
            files: vec![coded, decoded],
        }
    }

    #[test]
    fn listings_are_read_back() {
        let empty = SiteListing {
            rules: BTreeMap::new(),
            empty_folders: Vec::new(),
            files: Vec::new(),
            ..listing()
        };
        for listing in [listing(), empty] {
            let encoded = listing.encode().expect("encoded");
            let read = SiteListing::read(&encoded.name, &encoded.bytes).expect("a listing");
            assert_eq!(read, listing);
        }
        for text in TextKind::ALL {
            let reader = FileReader { path: "x" };
            assert_eq!(reader.text(text_name(text)).expect("known"), text);
        }
        let blobs: Vec<_> = listing().blobs().map(|(_, size)| size).collect();
        assert_eq!(blobs, [5, 7, 3, 3, 3, 3, 7]);
    }

    #[test]
    fn one_line_for_each_file() {
        let mut text = Vec::new();
        listing().write(&mut text).expect("written");
        let text = String::from_utf8(text).expect("text");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert!(
            lines[0].starts_with("{\"format\":1,\"digest\":\""),
            "{text}"
        );
        assert!(
            lines[1].starts_with("{\"path\":\"a%20b/%C3%A9.js\",\"hash\":\""),
            "{text}"
        );
    }

    #[test]
    fn a_bit_is_enough_to_be_refused() {
        let encoded = listing().encode().expect("encoded");
        for at in [0, encoded.bytes.len() / 2, encoded.bytes.len() - 1] {
            let mut bytes = encoded.bytes.clone();
            bytes[at] ^= 1;
            let refused = SiteListing::read(&encoded.name, &bytes);
            assert!(matches!(refused, Err(ListingError::Damaged)), "{at}");
        }
        let cut = &encoded.bytes[..encoded.bytes.len() - 1];
        // One that is named by what it is, and is none.
        let named = |bytes: &[u8]| SiteListing::read(&BlobHash::of(bytes), bytes);
        assert!(named(cut).is_err());
        assert!(named(b"").is_err());
        assert!(named(b"{}").is_err());
    }

    #[test]
    fn what_takes_up_more_memory_than_a_site_is_refused() {
        let mut text = Vec::new();
        listing().write(&mut text).expect("written");
        let text = String::from_utf8(text).expect("text");
        let many = |element: &str, number: usize| vec![element; number].join(",");
        let folders = format!("\"empty_folders\":[{}]", many("\"a/\"", MAX_FOLDERS + 1));
        let values = format!("\"exclude\":[{}]", many("\"\"", MAX_VALUES + 1));
        let flags: Vec<_> = (0..=MAX_FLAGS)
            .map(|flag| format!("\"{flag}\":[]"))
            .collect();
        for (from, to, says) in [
            (
                "\"empty_folders\":[\"empty/\"]",
                folders,
                "at most 1048576 elements",
            ),
            ("\"exclude\":[\"*.map\"]", values, "at most 10000 elements"),
            (
                "\"exclude\":[\"*.map\"]",
                flags.join(","),
                "at most 100 members",
            ),
        ] {
            let changed = text.replace(from, &to);
            assert_ne!(changed, text, "{from}");
            let error = SiteListing::parse(changed.as_bytes()).expect_err(says);
            assert!(error.to_string().contains(says), "{error}");
        }
        let mut with_values = listing();
        let values = vec![String::new(); MAX_VALUES + 1];
        with_values.settings.insert("exclude".to_owned(), values);
        assert!(
            with_values.encode().is_err(),
            "what is not read is not written"
        );
    }

    #[test]
    fn a_listing_that_is_long_once_it_is_decompressed_is_refused() {
        let mut text = Vec::new();
        listing().write(&mut text).expect("written");
        let limit = text.len() as u64;
        let text = [vec![b' '; 1 << 20], text].concat();
        let bytes = zstd::encode_all(&text[..], 1).expect("compressed");
        assert!(bytes.len() < 2000, "{}", bytes.len());
        let refused = SiteListing::decompress(&bytes, limit);
        assert!(
            matches!(refused, Err(ListingError::TooLong(_))),
            "{refused:?}"
        );
        let read = SiteListing::decompress(&bytes, 2 << 20).expect("a listing");
        assert_eq!(read, listing());
    }

    #[test]
    fn refusals_say_why() {
        let mut text = Vec::new();
        listing().write(&mut text).expect("written");
        let text = String::from_utf8(text).expect("text");
        let files = text.lines().nth(1).expect("a file");
        for (from, to, says) in [
            ("\"format\":1", "\"format\":2", "format 2 is not known"),
            (
                "\"path\":\"a%20b",
                "\"path\":\"a%20%62",
                "not as etagd writes paths",
            ),
            ("x.svgz", "a%20b/%C3%A9.js", "/a%20b/%C3%A9.js twice"),
            ("_headers", "_footers", "a file _footers of rules"),
            (
                "\"text\":\"binary\"",
                "\"text\":\"poem\"",
                "its text is \"poem\"",
            ),
            (
                "\"coding\":\"br\"",
                "\"coding\":\"xz\"",
                "its coding is \"xz\"",
            ),
            ("1700000000", "999999999999999", "its date is"),
            (files, "{}", "missing field"),
            (
                "\"size\":7",
                "\"size\":1099511627777",
                "1099511627777 bytes, which cannot be",
            ),
            ("\"size\":7", "\"size\":0", "0 bytes, which cannot be"),
        ] {
            let changed = text.replace(from, to);
            assert_ne!(changed, text, "{from}");
            let error = SiteListing::parse(changed.as_bytes()).expect_err(says);
            assert!(error.to_string().contains(says), "{error}");
        }
        // What one hash is of has one length.
        let mut doubled = listing();
        doubled.files[1].hash = doubled.files[0].hash;
        doubled.files[1].size += 1;
        let mut text_of_doubled = Vec::new();
        doubled.write(&mut text_of_doubled).expect("written");
        let error = SiteListing::parse(&text_of_doubled[..]).expect_err("two lengths");
        assert!(
            error
                .to_string()
                .contains("it has 7 bytes, and that it has 8"),
            "{error}"
        );
        let more = text.replacen('{', "{\"format\":1,\"colour\":\"red\",", 1);
        let more = more.replacen("\"format\":1,\"digest\"", "\"digest\"", 1);
        let read = SiteListing::parse(more.as_bytes()).expect("what is added is ignored");
        assert_eq!(read, listing());
    }
}

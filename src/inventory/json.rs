//! The JSON form of an inventory.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufReader, Read, Write};

use percent_encoding::percent_decode_str;
use serde::de::{self, Deserializer, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::{Description, Descriptions, Entry, Head, Inventory, url};
use crate::semantics::coding::Coding;
use crate::semantics::target::encode_path;

/// Version of the JSON form.
const FORMAT_VERSION: u32 = 1;

/// Writes a manifest as one JSON object, with one line for each entry.
///
/// # Errors
/// When `out` can't be written.
pub fn write(
    out: &mut impl Write,
    head: &Head,
    entries: impl Iterator<Item = Entry>,
) -> io::Result<()> {
    let Head {
        digest,
        complete,
        settings,
        rules,
        empty_folders,
    } = head;
    let (digest, settings) = (text(digest)?, serde_json::to_string(settings)?);
    write!(
        out,
        "{{\"format\":{FORMAT_VERSION},\"digest\":{digest},\"complete\":{complete},\
         \"settings\":{settings},"
    )?;
    if let Some(rules) = rules {
        write!(out, "\"rules\":{},", text(rules)?)?;
    }
    if !empty_folders.is_empty() {
        let folders: Vec<_> = empty_folders.iter().map(|folder| url(folder)).collect();
        write!(
            out,
            "\"empty_folders\":{},",
            serde_json::to_string(&folders)?
        )?;
    }
    write!(out, "\"entries\":[")?;
    let mut separator = "\n";
    for entry in entries {
        out.write_all(separator.as_bytes())?;
        serde_json::to_writer(&mut *out, &entry)?;
        separator = ",\n";
    }
    writeln!(out, "\n]}}")
}

fn text(value: &String) -> io::Result<String> {
    Ok(serde_json::to_string(value)?)
}

impl Inventory {
    /// Reads what [`write()`] has written, without holding its text in memory. `name` is the file
    /// or URL, for messages.
    ///
    /// # Errors
    /// When `from` can't be read or is not a manifest.
    pub fn read(name: impl fmt::Display, from: impl Read) -> Result<Self, InventoryError> {
        let failed = |source| InventoryError {
            name: name.to_string(),
            source,
        };
        let mut parser = serde_json::Deserializer::from_reader(BufReader::new(from));
        let document = JsonInventory::deserialize(&mut parser)
            .and_then(|document| parser.end().map(|()| document))
            .map_err(|error| failed(InventoryProblem::of(error)))?;
        let JsonInventory {
            digest,
            complete,
            settings,
            rules,
            mut empty_folders,
            mut entries,
            ..
        } = document;
        empty_folders.sort_unstable();
        empty_folders.dedup();
        entries.sort_by(|a, b| (&a.path, a.coding).cmp(&(&b.path, b.coding)));
        // Comparing two inventories relies on each representation being there once.
        if let Some(pair) = entries
            .windows(2)
            .find(|pair| pair[0].path == pair[1].path && pair[0].coding == pair[1].coding)
        {
            return Err(failed(InventoryProblem::Twice(
                pair[0].url(),
                pair[0].coding,
            )));
        }
        let head = Head {
            digest,
            complete,
            settings,
            rules,
            empty_folders,
        };
        Ok(Self { head, entries })
    }
}

/// Why a manifest can't be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the manifest {name}: {source}")]
pub struct InventoryError {
    name: String,
    source: InventoryProblem,
}

impl InventoryError {
    /// Whether something was read that is not a manifest.
    pub fn is_foreign(&self) -> bool {
        !matches!(self.source, InventoryProblem::Read(_))
    }

    /// The error for a manifest that can't be read.
    pub fn unreadable(name: impl fmt::Display, source: io::Error) -> Self {
        Self {
            name: name.to_string(),
            source: InventoryProblem::Read(source),
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum InventoryProblem {
    #[error("{0}")]
    Read(io::Error),
    #[error("{0}; the output of `etagd manifest --format json` is expected")]
    Content(serde_json::Error),
    #[error("it has {0} ({name}) twice; make it again with `etagd manifest --format json`", name = .1.token())]
    Twice(String, Coding),
}

impl InventoryProblem {
    fn of(error: serde_json::Error) -> Self {
        if error.is_io() {
            Self::Read(error.into())
        } else {
            Self::Content(error)
        }
    }
}

/// The whole document, for reading.
#[derive(Deserialize)]
struct JsonInventory {
    /// Written first, so that a later form is refused for its version, not for what follows.
    #[serde(rename = "format", deserialize_with = "known_format")]
    _format: (),
    digest: String,
    complete: bool,
    #[serde(default)]
    settings: BTreeMap<String, String>,
    #[serde(default)]
    rules: Option<String>,
    #[serde(default, deserialize_with = "folders")]
    empty_folders: Vec<Box<[u8]>>,
    #[serde(deserialize_with = "entries")]
    entries: Vec<Entry>,
}

fn known_format<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    match u32::deserialize(deserializer)? {
        FORMAT_VERSION => Ok(()),
        format => Err(de::Error::custom(format_args!(
            "format {format} is not known to this version of etagd, which reads {FORMAT_VERSION}"
        ))),
    }
}

fn folders<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Box<[u8]>>, D::Error> {
    let folder = |path: String| {
        let folder = raw(&path).filter(|folder| folder.ends_with(b"/"));
        folder.ok_or_else(|| {
            let expected = "a folder as etagd writes it, percent-encoded, between slashes";
            de::Error::invalid_value(Unexpected::Str(&path), &expected)
        })
    };
    let paths = Vec::<String>::deserialize(deserializer)?;
    paths.into_iter().map(folder).collect()
}

fn entries<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Entry>, D::Error> {
    struct Entries;

    impl<'de> Visitor<'de> for Entries {
        type Value = Vec<Entry>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of entries")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<Entry>, A::Error> {
            let (mut entries, mut descriptions) = (Vec::new(), Descriptions::default());
            while let Some(row) = list.next_element::<JsonEntry>()? {
                entries.push(row.entry(&mut descriptions)?);
            }
            Ok(entries)
        }
    }

    deserializer.deserialize_seq(Entries)
}

/// One entry, for reading and writing.
#[derive(Serialize, Deserialize)]
struct JsonEntry {
    path: String,
    etag: String,
    size: u64,
    r#type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    coding: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dictionary: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    fields: BTreeMap<String, Option<String>>,
}

impl JsonEntry {
    fn entry<E: de::Error>(self, descriptions: &mut Descriptions) -> Result<Entry, E> {
        let path = raw(&self.path).ok_or_else(|| {
            let expected = "a path as etagd writes it, percent-encoded, that begins with a slash";
            E::invalid_value(Unexpected::Str(&self.path), &expected)
        })?;
        let etag = self
            .etag
            .parse()
            .map_err(|reason| E::custom(format_args!("the etag {:?} is {reason}", self.etag)))?;
        let coding = match (self.coding.as_deref(), self.dictionary.as_deref()) {
            (None, _) => Coding::Identity,
            (Some(token), dictionary) => coding(token, dictionary).ok_or_else(|| {
                let expected = "br, zstd or gzip, or dcb or dcz with its dictionary";
                E::invalid_value(Unexpected::Str(token), &expected)
            })?,
        };
        let description = Description {
            media_type: self.r#type,
            fields: self.fields,
        };
        Ok(Entry {
            path,
            etag,
            size: self.size,
            coding,
            description: descriptions.intern(description),
        })
    }
}

/// The coding with this token, and with the dictionary that has this hash in hex.
fn coding(token: &str, dictionary: Option<&str>) -> Option<Coding> {
    match dictionary {
        None => Coding::from_token(token.as_bytes()),
        Some(hash) => Coding::with_dictionary(hash.parse().ok()?)
            .into_iter()
            .find(|coding| coding.token() == token),
    }
}

/// Decodes a path that [`url`](super::url) has written. `None` for any other spelling: two spellings of one path
/// would be two entries.
fn raw(path: &str) -> Option<Box<[u8]>> {
    let encoded = path.strip_prefix('/')?;
    let raw: Vec<u8> = percent_decode_str(encoded).collect();
    (encode_path(&raw) == encoded).then(|| raw.into())
}

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Description { media_type, fields } = &*self.description;
        let coding = self.coding.extension().map(|_| self.coding.token());
        JsonEntry {
            path: self.url(),
            etag: self.etag.to_string(),
            size: self.size,
            r#type: media_type.clone(),
            coding: coding.map(str::to_owned),
            dictionary: self.coding.dictionary().map(|hash| hash.to_string()),
            fields: fields.clone(),
        }
        .serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::inventory::text;
    use crate::semantics::dictionary::DictionaryHash;
    use crate::semantics::etag::ETag;

    fn with_dictionary(byte: u8) -> [Coding; 2] {
        Coding::with_dictionary(DictionaryHash::new([byte; 32]))
    }

    fn entry(path: &[u8], content: &[u8], coding: Coding, fields: &[(&str, &str)]) -> Entry {
        // An empty one stands for none.
        let own = |(name, value): &(&str, &str)| {
            let value = (!value.is_empty()).then(|| (*value).to_owned());
            ((*name).to_owned(), value)
        };
        Entry {
            path: path.into(),
            etag: ETag::new(*blake3::hash(content).as_bytes()),
            size: content.len() as u64,
            coding,
            description: Arc::new(Description {
                media_type: "text/plain; charset=utf-8".to_owned(),
                fields: fields.iter().map(own).collect(),
            }),
        }
    }

    fn written(head: &Head, entries: &[Entry]) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out, head, entries.iter().cloned()).expect("written");
        out
    }

    #[test]
    fn what_is_written_is_read_back() {
        let suffixed = Entry {
            etag: ETag::new([7; 32]).with_fields([1, 2, 3, 4]),
            ..entry(b"suffixed", b"", Coding::Identity, &[])
        };
        let entries = [
            entry(b"", b"an empty name", Coding::Identity, &[]),
            entry("a b\t\"%41\n#?é".as_bytes(), b"x", Coding::Identity, &[]),
            entry(
                b"a!",
                b"x",
                Coding::Identity,
                &[("cache-control", "private, no-store"), ("x-y", "")],
            ),
            entry(
                b"caf\xe9",
                b"y",
                Coding::Identity,
                &[("link", &text(b"<\xe9>"))],
            ),
            entry(b"page", b"z", Coding::Identity, &[]),
            entry(b"page", b"zz", Coding::Brotli, &[]),
            entry(b"page", b"zzz", Coding::Gzip, &[]),
            entry(b"page", b"zd", with_dictionary(1)[0], &[]),
            entry(b"page", b"zdd", with_dictionary(2)[0], &[]),
            entry(b"page", b"zddd", with_dictionary(1)[1], &[]),
            suffixed,
        ];
        let rules = Some("ab".repeat(32));
        let settings = [("last-modified".to_owned(), "off".to_owned())].into();
        for (complete, rules) in [(true, None), (false, rules)] {
            let head = Head {
                digest: "cd".repeat(32),
                complete,
                settings: BTreeMap::clone(&settings),
                rules,
                empty_folders: match complete {
                    true => Vec::new(),
                    false => [&b"a b/"[..], b"a/\xe9/"].map(Box::from).into(),
                },
            };
            let inventory = Inventory::read("x", &*written(&head, &entries)).expect("a manifest");
            assert_eq!(inventory.head, head);
            let mut sorted = entries.to_vec();
            sorted.sort_by(|a, b| (&a.path, a.coding).cmp(&(&b.path, b.coding)));
            assert_eq!(inventory.entries, sorted);
        }
    }

    #[test]
    fn entries_are_read_in_any_order_and_share_what_they_can() {
        let mut entries: Vec<_> = (0..100_u32)
            .map(|n| entry(n.to_string().as_bytes(), b"", Coding::Identity, &[]))
            .collect();
        entries.reverse();
        let inventory = Inventory::read("x", &*written(&Head::default(), &entries)).expect("read");
        assert!(inventory.entries.is_sorted_by(|a, b| a.path < b.path));
        let [first, .., last] = &inventory.entries[..] else {
            panic!("a hundred")
        };
        assert!(Arc::ptr_eq(&first.description, &last.description));
    }

    #[test]
    fn what_an_older_version_wrote_is_read() {
        let text = r#"{"format":1,"digest":"00","complete":true,"entries":[
            {"path":"/a","etag":"\"HASH\"","size":1,"type":"text/plain","unknown":[1,{}]}]}"#;
        let text = text.replace("HASH", &"0".repeat(64));
        let inventory = Inventory::read("x", text.as_bytes()).expect("read");
        assert_eq!(&*inventory.entries[0].path, b"a");
        assert!(inventory.head.settings.is_empty());
    }

    #[test]
    fn what_is_no_manifest_is_refused_with_its_place_and_what_is_expected() {
        let row = |path: &str, etag: &str, rest: &str| {
            format!(
                "{{\"format\":1,\"digest\":\"\",\"complete\":true,\"entries\":[\n\
                 {{\"path\":{path:?},\"etag\":{etag:?},\"size\":1,\"type\":\"a/b\"{rest}}}]}}"
            )
        };
        let good = format!("\"{}\"", "0".repeat(64));
        let twice = row("/a", &good, "").replace(
            "[\n",
            &format!("[\n{{\"path\":\"/a\",\"etag\":{good:?},\"size\":1,\"type\":\"a/b\"}},"),
        );
        let whole = row("/a", &good, "");
        let cases: &[(&str, &str, &[&str])] = &[
            ("empty", "", &["line 1", "etagd manifest --format json"]),
            ("text", "/a\t\"0\"\t1\ttext/plain\n", &["line 1 column 1"]),
            ("a list", "[]", &["line 1", "etagd manifest"]),
            ("another object", "{\"name\":\"App\"}", &["format"]),
            (
                "a newer form",
                "{\"format\":2,\"entries\":7}",
                &["format 2", "reads 1", "line 1"],
            ),
            ("cut", &whole[..whole.len() - 3], &["line 2", "EOF"]),
            ("more behind", &format!("{whole}x"), &["trailing"]),
            (
                "no slash",
                &row("a", &good, ""),
                &["line 2", "\"a\"", "slash"],
            ),
            (
                "not encoded",
                &row("/a b", &good, ""),
                &["line 2", "percent-encoded"],
            ),
            (
                "a bad escape",
                &row("/a%zz", &good, ""),
                &["line 2", "percent-encoded"],
            ),
            (
                "encoded without need",
                &row("/%61", &good, ""),
                &["line 2", "percent-encoded"],
            ),
            (
                "a weak tag",
                &row("/a", "W/\"x\"", ""),
                &["line 2", "etag", "W/"],
            ),
            (
                "a coding",
                &row("/a", &good, ",\"coding\":\"lzma\""),
                &["line 2", "lzma", "zstd"],
            ),
            ("an entry twice", &twice, &["/a", "twice"]),
            (
                "a folder without its slash",
                &whole.replace("\"entries\"", "\"empty_folders\":[\"/a\"],\"entries\""),
                &["line 1", "\"/a\"", "between slashes"],
            ),
        ];
        for (name, text, naming) in cases {
            let error = Inventory::read("site.json", text.as_bytes()).expect_err(name);
            assert!(error.is_foreign(), "{name}");
            let message = error.to_string();
            for word in naming.iter().chain(&["site.json"]) {
                assert!(message.contains(word), "{name}: no {word:?} in: {message}");
            }
        }
    }

    #[test]
    fn what_cannot_be_read_is_told_from_what_is_no_manifest() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("the disk is gone"))
            }
        }
        let error = Inventory::read("site.json", Broken).expect_err("broken");
        assert!(!error.is_foreign());
        assert_eq!(
            error.to_string(),
            "cannot use the manifest site.json: the disk is gone"
        );
    }
}

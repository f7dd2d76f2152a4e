//! How one replica deviates from what it should serve; pure functions.

use std::cmp::Ordering;
use std::fmt;
use std::iter::from_fn;

use serde::Serialize;

use crate::inventory::{Description, Entry, Head, Inventory, url};

/// One difference between a replica and what it should serve.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Deviation {
    /// The path as in a URL; `None` for the site as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The content coding; `None` for the file itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coding: Option<&'static str>,
    /// What differs.
    #[serde(rename = "how")]
    pub kind: DeviationKind,
    /// What is there, and what should be.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// What differs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeviationKind {
    /// The replica does not have the entry.
    Missing,
    /// The replica has an entry that it should not have.
    Extra,
    /// The tag, and so the content or a field that enters the tag.
    OtherTag,
    /// The length under the same tag.
    OtherSize,
    /// A field of the response under the same tag.
    OtherFields,
    /// The body: it is not what its tag names.
    OtherBytes,
    /// The status: it is not 200.
    OtherStatus,
    /// A flag that changes answers.
    OtherSettings,
    /// The site's rules.
    OtherRules,
    /// The site digest, although everything listed agrees.
    OtherDigest,
    /// The replica could not read all of its files, or some are still being written.
    Incomplete,
}

impl fmt::Display for DeviationKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::OtherTag => "other tag",
            Self::OtherSize => "other size",
            Self::OtherFields => "other fields",
            Self::OtherBytes => "other bytes",
            Self::OtherStatus => "other status",
            Self::OtherSettings => "other settings",
            Self::OtherRules => "other rules",
            Self::OtherDigest => "other digest",
            Self::Incomplete => "incomplete",
        })
    }
}

impl Serialize for DeviationKind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Deviation {
    /// A deviation of the site as a whole.
    fn of_site(kind: DeviationKind, detail: String) -> Self {
        Self {
            path: None,
            coding: None,
            kind,
            detail,
        }
    }

    /// A deviation of one entry.
    pub(super) fn of_entry(entry: &Entry, kind: DeviationKind, detail: String) -> Self {
        Self {
            path: Some(entry.url()),
            coding: entry.coding.extension().map(|_| entry.coding.token()),
            kind,
            detail,
        }
    }
}

/// Path and kind, separated by a tab.
impl fmt::Display for Deviation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.path.as_deref().unwrap_or("-"))?;
        write!(f, "\t{}", self.kind)?;
        match self.coding {
            Some(coding) => write!(f, " ({coding})"),
            None => Ok(()),
        }
    }
}

/// The number of deviations, and the first of them.
#[derive(Debug)]
pub struct Deviations {
    /// How many there are.
    pub count: usize,
    /// The first of them, up to a limit.
    pub shown: Vec<Deviation>,
    max_shown: usize,
}

impl Deviations {
    /// No deviations yet; the first `max_shown` are kept.
    pub(super) fn new(max_shown: usize) -> Self {
        Self {
            count: 0,
            shown: Vec::new(),
            max_shown,
        }
    }

    /// These deviations and one more.
    pub(super) fn with(mut self, deviation: Deviation) -> Self {
        self.count += 1;
        if self.shown.len() < self.max_shown {
            self.shown.push(deviation);
        }
        self
    }
}

/// Yields how `replica` deviates from `reference`.
pub(super) fn compare<'a>(
    reference: &'a Inventory,
    replica: &'a Inventory,
) -> impl Iterator<Item = Deviation> {
    let mut deviations = compare_heads(&reference.head, &replica.head)
        .into_iter()
        .chain(compare_folders(reference, replica))
        // A coding that one side makes and the other does not is missing from thousands of files: those
        // whose content differs come first.
        .chain(compare_entries(reference, replica).filter(|found| found.coding.is_none()))
        .chain(compare_entries(reference, replica).filter(|found| found.coding.is_some()));
    let mut is_first = true;
    from_fn(move || {
        let next = deviations.next();
        let is_alike = std::mem::take(&mut is_first) && next.is_none();
        let (here, there) = (&replica.head.digest, &reference.head.digest);
        if is_alike && here != there {
            // What the digest covers is listed, so only the format of the digest can differ.
            let detail = format!(
                "{here} instead of {there}, although everything listed agrees: a different \
                 version of etagd?"
            );
            return Some(Deviation::of_site(DeviationKind::OtherDigest, detail));
        }
        next
    })
}

fn compare_heads(reference: &Head, replica: &Head) -> Vec<Deviation> {
    let mut deviations: Vec<_> = replica
        .other_settings(reference)
        .map(|(name, here, there)| {
            let detail = format!("--{name} {here} instead of {there}");
            Deviation::of_site(DeviationKind::OtherSettings, detail)
        })
        .collect();
    if replica.rules != reference.rules {
        let [here, there] =
            [replica, reference].map(|head| head.rules.as_deref().unwrap_or("none"));
        let detail = format!("_headers and _redirects: {here} instead of {there}");
        deviations.push(Deviation::of_site(DeviationKind::OtherRules, detail));
    }
    if !replica.complete {
        let detail = "a file cannot be read, or is still being written: see its log";
        deviations.push(Deviation::of_site(
            DeviationKind::Incomplete,
            detail.to_owned(),
        ));
    }
    deviations
}

/// Folders without files that only one has, if both list such.
fn compare_folders(reference: &Inventory, replica: &Inventory) -> Vec<Deviation> {
    let lists = |head: &Head| head.settings.contains_key("listing");
    if !lists(&reference.head) || !lists(&replica.head) {
        return Vec::new();
    }
    // Where the other one has files there, they are what is named.
    let missing = |has: &Inventory, other: &Inventory, kind| -> Vec<_> {
        let folders = has.head.empty_folders.iter();
        folders
            .filter(|folder| !other.has_below(folder))
            .map(|folder| Deviation {
                path: Some(url(folder)),
                coding: None,
                kind,
                detail: "an empty folder".to_owned(),
            })
            .collect()
    };
    let mut deviations = missing(reference, replica, DeviationKind::Missing);
    deviations.extend(missing(replica, reference, DeviationKind::Extra));
    deviations
}

/// Merges the two sorted lists of entries.
fn compare_entries<'a>(
    reference: &'a Inventory,
    replica: &'a Inventory,
) -> impl Iterator<Item = Deviation> + 'a {
    let mut expected = reference.entries.iter().peekable();
    let mut found = replica.entries.iter().peekable();
    from_fn(move || {
        loop {
            let order = match (expected.peek(), found.peek()) {
                (None, None) => return None,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(expected), Some(found)) => {
                    (&expected.path, expected.coding).cmp(&(&found.path, found.coding))
                }
            };
            let expected = match order {
                Ordering::Less | Ordering::Equal => expected.next(),
                Ordering::Greater => None,
            };
            let found = match order {
                Ordering::Greater | Ordering::Equal => found.next(),
                Ordering::Less => None,
            };
            let deviation = match (expected, found) {
                (Some(expected), Some(found)) => compare_entry(expected, found),
                (Some(expected), None) => Some(Deviation::of_entry(
                    expected,
                    DeviationKind::Missing,
                    String::new(),
                )),
                (None, Some(found)) => Some(Deviation::of_entry(
                    found,
                    DeviationKind::Extra,
                    found.etag.to_string(),
                )),
                (None, None) => return None,
            };
            if deviation.is_some() {
                return deviation;
            }
        }
    })
}

fn compare_entry(expected: &Entry, found: &Entry) -> Option<Deviation> {
    let fields = other_fields(&expected.description, &found.description);
    let (kind, detail) = if found.etag != expected.etag {
        let mut detail = format!("{} instead of {}", found.etag, expected.etag);
        // A field may be the cause: some of them enter the tag.
        for field in fields {
            detail.push_str("; ");
            detail.push_str(&field);
        }
        (DeviationKind::OtherTag, detail)
    } else if found.size != expected.size {
        let detail = format!("{} bytes instead of {}", found.size, expected.size);
        (DeviationKind::OtherSize, detail)
    } else if fields.is_empty() {
        return None;
    } else {
        (DeviationKind::OtherFields, fields.join("; "))
    };
    Some(Deviation::of_entry(expected, kind, detail))
}

/// The fields that differ, each with what is there and what should be.
fn other_fields(expected: &Description, found: &Description) -> Vec<String> {
    // Entries of one type share their description, and most of them are equal.
    if expected == found {
        return Vec::new();
    }
    let mut differing = Vec::new();
    if found.media_type != expected.media_type {
        differing.push(format!(
            "content-type: {:?} instead of {:?}",
            found.media_type, expected.media_type
        ));
    }
    for (name, value) in &expected.fields {
        let found = found.fields.get(name);
        if found != Some(value) {
            let (found, expected) = (shown(found), shown(Some(value)));
            differing.push(format!("{name}: {found} instead of {expected}"));
        }
    }
    for (name, value) in &found.fields {
        if !expected.fields.contains_key(name) {
            let (found, expected) = (shown(Some(value)), shown(None));
            differing.push(format!("{name}: {found} instead of {expected}"));
        }
    }
    differing
}

/// The value of a field; a rule may remove it, or leave it as it is without rules.
fn shown(value: Option<&Option<String>>) -> String {
    match value {
        Some(Some(value)) => format!("{value:?}"),
        Some(None) => "none".to_owned(),
        None => "the usual".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::semantics::coding::Coding;
    use crate::semantics::etag::ETag;

    /// A name, what should be, what is, and path, way and detail of each deviation.
    type OfEntries<'a> = (
        &'a str,
        &'a [&'a str],
        &'a [&'a str],
        &'a [(&'a str, &'a str, &'a str)],
    );
    type OfSites<'a> = (&'a str, Head, Head, &'a [(&'a str, &'a str)]);

    /// Entries from lines such as `path content coding size type field=value`.
    fn inventory(lines: &[&str], head: &Head) -> Inventory {
        let entry = |line: &&str| {
            let words: Vec<_> = line.split(' ').collect();
            let word = |index: usize| words.get(index).copied().unwrap_or_default();
            let content = word(1);
            let fields = words.iter().filter_map(|word| word.split_once('='));
            Entry {
                path: word(0).as_bytes().into(),
                etag: ETag::new(*blake3::hash(content.as_bytes()).as_bytes()),
                size: word(3).parse().unwrap_or(content.len() as u64),
                coding: Coding::from_token(word(2).as_bytes()).unwrap_or(Coding::Identity),
                description: Arc::new(Description {
                    media_type: word(4).to_owned(),
                    fields: fields
                        .map(|(name, value)| (name.into(), Some(value.into())))
                        .collect(),
                }),
            }
        };
        Inventory {
            head: head.clone(),
            entries: lines.iter().map(entry).collect(),
        }
    }

    fn head(digest: &str, settings: &[(&str, &str)], rules: Option<&str>, complete: bool) -> Head {
        Head {
            digest: digest.to_owned(),
            complete,
            settings: settings
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            rules: rules.map(str::to_owned),
            empty_folders: Vec::new(),
        }
    }

    fn with_folders(head: Head, folders: &[&str]) -> Head {
        let empty_folders = folders.iter().map(|folder| folder.as_bytes().into());
        Head {
            empty_folders: empty_folders.collect(),
            ..head
        }
    }

    #[test]
    fn how_entries_deviate() {
        let tag = |content: &str| format!("\"{}\"", blake3::hash(content.as_bytes()));
        let other = format!("{} instead of {}", tag("z"), tag("y"));
        #[rustfmt::skip]
        let cases: &[OfEntries<'_>] = &[
            ("the same", &["a x", "b y"], &["a x", "b y"], &[]),
            ("one missing", &["a x", "b y"], &["b y"], &[("/a", "missing", "")]),
            ("one extra", &["b y"], &["a x", "b y"], &[("/a", "extra", &tag("x"))]),
            ("another tag", &["a x", "b y"], &["a x", "b z"], &[("/b", "other tag", &other)]),
            ("another name", &["a x"], &["b x"], &[("/a", "missing", ""), ("/b", "extra", &tag("x"))]),
            ("all missing", &["a x", "b y"], &[], &[("/a", "missing", ""), ("/b", "missing", "")]),
            ("a coding missing", &["a x", "a y br"], &["a x"], &[("/a", "missing (br)", "")]),
            ("another coding", &["a x", "a y br"], &["a x", "a y gzip"],
                &[("/a", "missing (br)", ""), ("/a", "extra (gzip)", &tag("y"))]),
            ("what differs comes before codings", &["a x", "b y"], &["a x", "a z br", "b z"],
                &[("/b", "other tag", &other), ("/a", "extra (br)", &tag("z"))]),
            ("another size", &["a x identity 1"], &["a x identity 2"],
                &[("/a", "other size", "2 bytes instead of 1")]),
            ("another type", &["a x identity 1 a/a"], &["a x identity 1 a/b"],
                &[("/a", "other fields", "content-type: \"a/b\" instead of \"a/a\"")]),
            ("fields", &["a x identity 1 t one=1 two=2"], &["a x identity 1 t two=3 three=4"],
                &[("/a", "other fields",
                    "one: the usual instead of \"1\"; two: \"3\" instead of \"2\"; three: \"4\" instead of the usual")]),
            ("hard to write", &[], &["é x"], &[("/%C3%A9", "extra", &tag("x"))]),
        ];
        let head = Head {
            complete: true,
            ..Head::default()
        };
        for (name, should, is, want) in cases {
            let (should, is) = (inventory(should, &head), inventory(is, &head));
            let found: Vec<_> = compare(&should, &is)
                .map(|each| (each.to_string(), each.detail))
                .collect();
            let want: Vec<_> = want
                .iter()
                .map(|(path, how, detail)| (format!("{path}\t{how}"), (*detail).to_owned()))
                .collect();
            assert_eq!(found, want, "{name}");
        }
    }

    #[test]
    fn how_sites_deviate() {
        let off = &[("last-modified", "off")][..];
        let lists = &[("listing", "true")][..];
        let (based, top) = (&[("base-path", "/app")][..], &[("base-path", "")][..]);
        let mtime = &[("last-modified", "mtime"), ("new-in-this-version", "yes")][..];
        #[rustfmt::skip]
        let cases: &[OfSites<'_>] = &[
            ("the same", head("1", off, None, true), head("1", off, None, true), &[]),
            ("settings", head("1", mtime, None, true), head("2", off, None, true),
                &[("-\tother settings", "--last-modified off instead of mtime")]),
            ("an empty setting", head("1", based, None, true), head("2", top, None, true),
                &[("-\tother settings", "--base-path not set instead of /app")]),
            ("settings that only one knows", head("1", mtime, None, true), head("1", &[], None, true), &[]),
            ("rules", head("1", off, Some("r"), true), head("2", off, None, true),
                &[("-\tother rules", "none instead of r")]),
            ("incomplete", head("1", off, None, true), head("1", off, None, false),
                &[("-\tincomplete", "see its log")]),
            ("the digest alone", head("1", off, None, true), head("2", off, None, true),
                &[("-\tother digest", "2 instead of 1")]),
            ("empty folders", with_folders(head("1", lists, None, true), &["d/", "e/"]),
                with_folders(head("2", lists, None, true), &["d/", "f/", "f/g/"]),
                &[("/e/\tmissing", "an empty folder"), ("/f/\textra", ""), ("/f/g/\textra", "")]),
            ("an empty folder that has files", with_folders(head("1", lists, None, true), &["a/"]),
                head("2", lists, None, true), &[("/a/\tmissing", "an empty folder")]),
            ("empty folders that only one lists", with_folders(head("1", lists, None, true), &["e/"]),
                head("1", off, None, true), &[]),
        ];
        for (name, should, is, want) in cases {
            let (reference, replica) = (inventory(&["a x"], should), inventory(&["a x"], is));
            let found: Vec<_> = compare(&reference, &replica).collect();
            assert_eq!(found.len(), want.len(), "{name}: {found:?}");
            for (found, (text, detail)) in found.iter().zip(*want) {
                assert_eq!(found.to_string(), *text, "{name}");
                assert!(found.detail.contains(detail), "{name}: {}", found.detail);
            }
        }
    }

    #[test]
    fn all_are_counted_and_some_are_kept() {
        let head = Head {
            complete: true,
            ..Head::default()
        };
        let names: Vec<_> = (100..200).map(|n| format!("{n} x")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let (full, empty) = (inventory(&names, &head), inventory(&[], &head));
        let found = compare(&full, &empty).fold(Deviations::new(7), Deviations::with);
        assert_eq!((found.count, found.shown.len()), (100, 7));
    }
}

//! How one replica deviates from what it should serve: pure.

use std::cmp::Ordering;
use std::fmt;
use std::iter::from_fn;

use serde::Serialize;

use crate::inventory::{Description, Entry, Head, Inventory};
use crate::semantics::coding::Coding;

/// One thing that a replica says or does otherwise.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Deviation {
    /// Of which path, as a URL has it; `None` where it is about the site as one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Of which coding, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coding: Option<&'static str>,
    /// In which way.
    pub how: How,
    /// What is there, and what should be.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// In which way a replica deviates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// It does not have it.
    Missing,
    /// It should not have it.
    Extra,
    /// The tag is another, and so the content, or a field that enters the tag.
    OtherTag,
    /// The length is another under the same tag.
    OtherSize,
    /// A field of the response is another under the same tag.
    OtherFields,
    /// The body is not what its tag names.
    OtherBytes,
    /// It answers something else than 200.
    OtherStatus,
    /// A flag that changes answers has another value.
    OtherSettings,
    /// The site's rules are others.
    OtherRules,
    /// The site digest is another, and nothing listed tells why.
    OtherDigest,
    /// It could not read all of its files, or some are still being written.
    Incomplete,
}

impl fmt::Display for How {
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

impl Serialize for How {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Deviation {
    /// About the site as one.
    fn of_site(how: How, detail: String) -> Self {
        Self {
            path: None,
            coding: None,
            how,
            detail,
        }
    }

    /// About one entry.
    pub(super) fn of_entry(entry: &Entry, how: How, detail: String) -> Self {
        Self {
            path: Some(entry.url()),
            coding: entry.coding.extension().map(|_| entry.coding.token()),
            how,
            detail,
        }
    }
}

/// Path, way, and what is there: tab-separated, without the replica.
impl fmt::Display for Deviation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.path.as_deref().unwrap_or("-"))?;
        write!(f, "\t{}", self.how)?;
        match self.coding {
            Some(coding) => write!(f, " ({coding})"),
            None => Ok(()),
        }
    }
}

/// How many deviations there are, and the first of them.
#[derive(Debug)]
pub struct Found {
    /// All of them.
    pub count: usize,
    /// Those that are kept.
    pub shown: Vec<Deviation>,
    most: usize,
}

impl Found {
    /// None yet; `most` are kept.
    pub(super) fn new(most: usize) -> Self {
        Self {
            count: 0,
            shown: Vec::new(),
            most,
        }
    }

    /// And this one.
    pub(super) fn with(mut self, deviation: Deviation) -> Self {
        self.count += 1;
        if self.shown.len() < self.most {
            self.shown.push(deviation);
        }
        self
    }
}

/// How `replica` deviates from `reference`.
pub(super) fn compare<'a>(
    reference: &'a Inventory,
    replica: &'a Inventory,
) -> impl Iterator<Item = Deviation> {
    let of_site = heads(&reference.head, &replica.head);
    let mut both = of_site.into_iter().chain(entries(reference, replica));
    let mut is_first = true;
    from_fn(move || {
        let next = both.next();
        let is_alike = std::mem::take(&mut is_first) && next.is_none();
        let (here, there) = (&replica.head.digest, &reference.head.digest);
        if is_alike && here != there {
            let detail = format!(
                "{here} instead of {there}, although all that is listed agrees: another version \
                 of etagd?"
            );
            return Some(Deviation::of_site(How::OtherDigest, detail));
        }
        next
    })
}

fn heads(reference: &Head, replica: &Head) -> Vec<Deviation> {
    let settings = replica.other_settings(reference);
    let mut deviations: Vec<_> = settings
        .map(|(name, here, there)| {
            let detail = format!("--{name} {here} instead of {there}");
            Deviation::of_site(How::OtherSettings, detail)
        })
        .collect();
    if replica.rules != reference.rules {
        let shown = |rules: &Option<String>| rules.clone().unwrap_or_else(|| "none".to_owned());
        let (here, there) = (shown(&replica.rules), shown(&reference.rules));
        let detail = format!("_headers and _redirects: {here} instead of {there}");
        deviations.push(Deviation::of_site(How::OtherRules, detail));
    }
    if !replica.complete {
        let detail = "some file cannot be read, or is still being written: see its log";
        deviations.push(Deviation::of_site(How::Incomplete, detail.to_owned()));
    }
    deviations
}

fn entries<'a>(
    reference: &'a Inventory,
    replica: &'a Inventory,
) -> impl Iterator<Item = Deviation> + 'a {
    let key = |entry: &'a Entry| -> (&'a [u8], Coding) { (&entry.path, entry.coding) };
    let mut expected = reference.entries.iter().peekable();
    let mut found = replica.entries.iter().peekable();
    from_fn(move || {
        loop {
            let order = match (expected.peek(), found.peek()) {
                (None, None) => return None,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(expected), Some(found)) => key(expected).cmp(&key(found)),
            };
            let should = (order != Ordering::Greater)
                .then(|| expected.next())
                .flatten();
            let is = (order != Ordering::Less).then(|| found.next()).flatten();
            let deviation = match (should, is) {
                (Some(should), Some(is)) => deviation(should, is),
                (Some(should), None) => {
                    Some(Deviation::of_entry(should, How::Missing, String::new()))
                }
                (None, Some(is)) => Some(Deviation::of_entry(is, How::Extra, is.etag.to_string())),
                (None, None) => return None,
            };
            if deviation.is_some() {
                return deviation;
            }
        }
    })
}

fn deviation(should: &Entry, is: &Entry) -> Option<Deviation> {
    let (how, detail) = if is.etag != should.etag {
        let detail = format!("{} instead of {}", is.etag, should.etag);
        let fields = other_fields(&should.description, &is.description);
        let fields = fields.into_iter().map(|field| format!("; {field}"));
        (How::OtherTag, detail + &fields.collect::<String>())
    } else if is.size != should.size {
        let detail = format!("{} bytes instead of {}", is.size, should.size);
        (How::OtherSize, detail)
    } else {
        let fields = other_fields(&should.description, &is.description);
        if fields.is_empty() {
            return None;
        }
        (How::OtherFields, fields.join("; "))
    };
    Some(Deviation::of_entry(should, how, detail))
}

/// The fields that differ, each with what is and what should be.
fn other_fields(should: &Description, is: &Description) -> Vec<String> {
    if should == is {
        return Vec::new();
    }
    let mut differ = Vec::new();
    let mut compare = |name: &str, is: Option<&Option<String>>, should: Option<&Option<String>>| {
        if is != should {
            let [is, should] = [is, should].map(|value| match value {
                Some(Some(value)) => format!("{value:?}"),
                Some(None) => "none".to_owned(),
                None => "the usual".to_owned(),
            });
            differ.push(format!("{name}: {is} instead of {should}"));
        }
    };
    let [type_is, type_should] = [is, should].map(|each| Some(each.media_type.clone()));
    compare("content-type", Some(&type_is), Some(&type_should));
    for (name, value) in &should.fields {
        compare(name, is.fields.get(name), Some(value));
    }
    let more = is.fields.iter();
    for (name, value) in more.filter(|(name, _)| !should.fields.contains_key(*name)) {
        compare(name, Some(value), None);
    }
    differ
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
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
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Head {
            digest: digest.to_owned(),
            complete,
            settings: settings.iter().map(own).collect(),
            rules: rules.map(str::to_owned),
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
        let mtime = &[("last-modified", "mtime"), ("new-in-this-version", "yes")][..];
        #[rustfmt::skip]
        let cases: &[OfSites<'_>] = &[
            ("the same", head("1", off, None, true), head("1", off, None, true), &[]),
            ("settings", head("1", mtime, None, true), head("2", off, None, true),
                &[("-\tother settings", "--last-modified off instead of mtime")]),
            ("settings that only one knows", head("1", mtime, None, true), head("1", &[], None, true), &[]),
            ("rules", head("1", off, Some("r"), true), head("2", off, None, true),
                &[("-\tother rules", "none instead of r")]),
            ("incomplete", head("1", off, None, true), head("1", off, None, false),
                &[("-\tincomplete", "see its log")]),
            ("the digest alone", head("1", off, None, true), head("2", off, None, true),
                &[("-\tother digest", "2 instead of 1")]),
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
        let found = compare(&full, &empty).fold(Found::new(7), Found::with);
        assert_eq!((found.count, found.shown.len()), (100, 7));
    }
}

//! What lies between two states of a site, by path, and the URLs that a cache should forget.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::{Entry, Inventory, url};

/// A path whose answers are not what they were.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Difference {
    /// The path below the root: raw bytes, without the leading slash.
    pub path: Box<[u8]>,
    /// What has become of it.
    pub reason: Reason,
}

/// What has become of a path.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reason {
    /// It names other content, in one coding at least, or its fields are others.
    Changed,
    /// It named nothing.
    Added,
    /// It names nothing any more.
    Removed,
}

/// What lies between `old` and `new`, ordered by path.
pub fn between(old: &Inventory, new: &Inventory) -> Vec<Difference> {
    let of_path = |entries: &[Entry]| entries.first().map(|entry| entry.path.clone());
    let by_path = |a: &Entry, b: &Entry| a.path == b.path;
    let mut old = old.entries.chunk_by(by_path).peekable();
    let mut new = new.entries.chunk_by(by_path).peekable();
    let mut differences = Vec::new();
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return differences,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => of_path(old).cmp(&of_path(new)),
        };
        let before = (order != Ordering::Greater).then(|| old.next()).flatten();
        let after = (order != Ordering::Less).then(|| new.next()).flatten();
        if before == after {
            continue;
        }
        let reason = match (before, after) {
            (Some(_), Some(_)) => Reason::Changed,
            (None, _) => Reason::Added,
            (_, None) => Reason::Removed,
        };
        let path = before.or(after).and_then(of_path).unwrap_or_default();
        differences.push(Difference { path, reason });
    }
}

/// The URLs whose answers `differences` change, path-absolute and percent-encoded, each once.
///
/// A page has several: `/dir/index.html` is `/dir/` too, `/about.html` is `/about`. Where an index
/// comes or goes, `/dir` begins or ends to redirect.
pub fn urls<'a>(differences: impl IntoIterator<Item = &'a Difference>) -> BTreeMap<String, Reason> {
    let mut urls = BTreeMap::new();
    let mut add = |path: &[u8], reason| {
        let known = urls.entry(url(path)).or_insert(reason);
        // By one name it comes, by another it goes.
        if *known != reason {
            *known = Reason::Changed;
        }
    };
    for Difference { path, reason } in differences {
        add(path, *reason);
        match path.strip_suffix(b"index.html") {
            Some(directory) if matches!(directory, [] | [.., b'/']) => {
                add(directory, *reason);
                if let Some(name) = directory.strip_suffix(b"/")
                    && *reason != Reason::Changed
                {
                    add(name, *reason);
                }
            }
            _ => match path.strip_suffix(b".html") {
                Some(name) if !matches!(name, [] | [.., b'/']) => add(name, *reason),
                _ => {}
            },
        }
    }
    urls
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::Reason::{Added, Changed, Removed};
    use super::*;
    use crate::inventory::{Description, Head};
    use crate::semantics::coding::Coding;
    use crate::semantics::etag::ETag;

    type Reasons<'a> = &'a [(&'a str, Reason)];
    type OfInventories<'a> = (&'a str, &'a [&'a str], &'a [&'a str], Reasons<'a>);
    type OfUrls<'a> = (&'a str, Reasons<'a>, Reasons<'a>);

    /// Entries from lines such as `path content coding cache-control`.
    fn inventory(lines: &[&str]) -> Inventory {
        let entry = |line: &&str| {
            let mut words = line.split(' ');
            let mut word = || words.next().unwrap_or_default();
            let (path, content, coding, field) = (word(), word(), word(), word());
            let fields = [("cache-control".to_owned(), field.to_owned())];
            Entry {
                path: path.as_bytes().into(),
                etag: ETag::new(*blake3::hash(content.as_bytes()).as_bytes()),
                size: content.len() as u64,
                coding: Coding::from_token(coding.as_bytes()).unwrap_or(Coding::Identity),
                description: Arc::new(Description {
                    media_type: "text/html".to_owned(),
                    fields: fields
                        .into_iter()
                        .filter(|(_, value)| !value.is_empty())
                        .collect(),
                }),
            }
        };
        Inventory {
            head: Head::default(),
            entries: lines.iter().map(entry).collect(),
        }
    }

    #[test]
    fn what_lies_between_two_inventorys() {
        #[rustfmt::skip]
        let cases: &[OfInventories<'_>] = &[
            ("nothing and nothing", &[], &[], &[]),
            ("the same", &["a x", "b y"], &["a x", "b y"], &[]),
            ("all is new", &[], &["a x", "b y"], &[("a", Added), ("b", Added)]),
            ("all is gone", &["a x", "b y"], &[], &[("a", Removed), ("b", Removed)]),
            ("other content", &["a x", "b y"], &["a x", "b z"], &[("b", Changed)]),
            ("first and last", &["b x"], &["a x", "b x", "c x"], &[("a", Added), ("c", Added)]),
            ("between", &["a x", "b x", "c x"], &["a x", "c x"], &[("b", Removed)]),
            ("another name", &["a x"], &["b x"], &[("a", Removed), ("b", Added)]),
            ("another name before", &["b x"], &["a x"], &[("a", Added), ("b", Removed)]),
            ("a coding more", &["a x"], &["a x", "a y br"], &[("a", Changed)]),
            ("a coding less", &["a x", "a y br"], &["a x"], &[("a", Changed)]),
            ("another coding", &["a x", "a y br"], &["a x", "a y gzip"], &[("a", Changed)]),
            ("a coding's content", &["a x", "a y br"], &["a x", "a z br"], &[("a", Changed)]),
            ("a field", &["a x"], &["a x identity no-store"], &[("a", Changed)]),
        ];
        for (name, old, new, want) in cases {
            let found = between(&inventory(old), &inventory(new));
            let found: Vec<_> = found
                .iter()
                .map(|each| (&*each.path, each.reason))
                .collect();
            let want: Vec<_> = want
                .iter()
                .map(|(path, reason)| (path.as_bytes(), *reason))
                .collect();
            assert_eq!(found, want, "{name}");
        }
    }

    #[test]
    fn urls_that_a_cache_should_forget() {
        #[rustfmt::skip]
        let cases: &[OfUrls<'_>] = &[
            ("a file", &[("a.css", Changed)], &[("/a.css", Changed)]),
            ("the first page", &[("index.html", Changed)], &[("/", Changed), ("/index.html", Changed)]),
            ("the first page is new", &[("index.html", Added)], &[("/", Added), ("/index.html", Added)]),
            ("an index", &[("d/index.html", Changed)], &[("/d/", Changed), ("/d/index.html", Changed)]),
            ("an index more", &[("d/index.html", Added)],
                &[("/d", Added), ("/d/", Added), ("/d/index.html", Added)]),
            ("an index less", &[("d/index.html", Removed)],
                &[("/d", Removed), ("/d/", Removed), ("/d/index.html", Removed)]),
            ("a page", &[("about.html", Removed)], &[("/about", Removed), ("/about.html", Removed)]),
            ("no index", &[("d/xindex.html", Changed)], &[("/d/xindex", Changed), ("/d/xindex.html", Changed)]),
            ("no name before the dot", &[("d/.html", Changed)], &[("/d/.html", Changed)]),
            ("another type", &[("about.htm", Changed)], &[("/about.htm", Changed)]),
            ("hard to write", &[("a b/100%.html", Added)],
                &[("/a%20b/100%25", Added), ("/a%20b/100%25.html", Added)]),
            ("from a page to an index", &[("a.html", Removed), ("a/index.html", Added)],
                &[("/a", Changed), ("/a.html", Removed), ("/a/", Added), ("/a/index.html", Added)]),
        ];
        for (name, differences, want) in cases {
            let differences: Vec<_> = differences
                .iter()
                .map(|(path, reason)| Difference {
                    path: path.as_bytes().into(),
                    reason: *reason,
                })
                .collect();
            let found: Vec<_> = urls(&differences).into_iter().collect();
            let want: Vec<_> = want
                .iter()
                .map(|(url, reason)| ((*url).to_owned(), *reason))
                .collect();
            assert_eq!(found, want, "{name}");
        }
    }
}

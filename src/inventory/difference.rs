//! What lies between two states of a site, by path.

use std::cmp::Ordering;

use super::{Entry, Inventory};

/// A path whose answers are not what they were.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Difference {
    /// The path below the root: raw bytes, without the leading slash.
    pub path: Box<[u8]>,
    /// What has become of it.
    pub reason: ChangeKind,
}

/// What has become of a path.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
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
            (Some(_), Some(_)) => ChangeKind::Changed,
            (None, _) => ChangeKind::Added,
            (_, None) => ChangeKind::Removed,
        };
        let path = before.or(after).and_then(of_path).unwrap_or_default();
        differences.push(Difference { path, reason });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::ChangeKind::{Added, Changed, Removed};
    use super::*;
    use crate::inventory::{Description, Head};
    use crate::semantics::coding::Coding;
    use crate::semantics::etag::ETag;

    type Expectations<'a> = &'a [(&'a str, ChangeKind)];
    type DifferenceCase<'a> = (&'a str, &'a [&'a str], &'a [&'a str], Expectations<'a>);

    /// Entries from lines such as `path content coding cache-control`.
    fn inventory(lines: &[&str]) -> Inventory {
        let entry = |line: &&str| {
            let mut words = line.split(' ');
            let mut word = || words.next().unwrap_or_default();
            let (path, content, coding, field) = (word(), word(), word(), word());
            let field = (!field.is_empty()).then(|| field.to_owned());
            let fields = [("cache-control".to_owned(), field)];
            Entry {
                path: path.as_bytes().into(),
                etag: ETag::new(*blake3::hash(content.as_bytes()).as_bytes()),
                size: content.len() as u64,
                coding: Coding::from_token(coding.as_bytes()).unwrap_or(Coding::Identity),
                description: Arc::new(Description {
                    media_type: "text/html".to_owned(),
                    fields: fields
                        .into_iter()
                        .filter(|(_, value)| value.is_some())
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
        let cases: &[DifferenceCase<'_>] = &[
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
}

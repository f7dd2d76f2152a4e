//! The difference between two inventories, by path.

use std::cmp::Ordering;

use super::{Entry, Inventory};

/// A path whose answers have changed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Difference {
    /// The path below the root: raw bytes, without the leading slash.
    pub path: Box<[u8]>,
    /// How they have changed.
    pub reason: ChangeKind,
}

/// How a path has changed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// Its content, the content of one of its codings, or its fields are different.
    Changed,
    /// It did not exist before.
    Added,
    /// It no longer exists.
    Removed,
}

/// The paths that differ between `old` and `new`, in order. Both must be sorted, as
/// [`Inventory::read`] returns them.
pub fn between(old: &Inventory, new: &Inventory) -> Vec<Difference> {
    let path_of = |entries: &[Entry]| entries.first().map(|entry| entry.path.clone());
    let has_same_path = |a: &Entry, b: &Entry| a.path == b.path;
    let mut old = old.entries.chunk_by(has_same_path).peekable();
    let mut new = new.entries.chunk_by(has_same_path).peekable();
    let mut differences = Vec::new();
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return differences,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => path_of(old).cmp(&path_of(new)),
        };
        // The side whose path comes later waits: the other one has a path that it lacks.
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
        let path = before.or(after).and_then(path_of).unwrap_or_default();
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
    fn differences_between_two_inventories() {
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

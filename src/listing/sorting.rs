//! The order in which a listing shows a directory's entries.

use std::cmp::Ordering;

use super::Subdirectory;
use crate::representation::Resource;

/// A column to sort by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SortKey {
    Name,
    Size,
    Time,
}

impl SortKey {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Size => "size",
            Self::Time => "time",
        }
    }
}

/// The order of a page's entries.
#[derive(Clone, Copy, Debug)]
pub struct Sorting {
    pub(super) key: SortKey,
    pub(super) descending: bool,
}

impl Sorting {
    /// The order that a query asks for: `sort=name|size|time`, `order=asc|desc`. Anything else in
    /// it is ignored.
    pub fn parse(query: Option<&str>) -> Self {
        let mut sorting = Self {
            key: SortKey::Name,
            descending: false,
        };
        for pair in query.unwrap_or_default().split('&') {
            match pair {
                "sort=size" => sorting.key = SortKey::Size,
                "sort=time" => sorting.key = SortKey::Time,
                "order=desc" => sorting.descending = true,
                _ => {}
            }
        }
        sorting
    }

    /// The heading of a column, which links to the same page in the order of that column.
    pub(super) fn heading(self, key: SortKey, label: &str) -> String {
        let is_current = self.key == key;
        let order = if is_current && !self.descending {
            "desc"
        } else {
            "asc"
        };
        let state = match (is_current, self.descending) {
            (false, _) => "",
            (true, false) => " aria-sort=\"ascending\"",
            (true, true) => " aria-sort=\"descending\"",
        };
        let word = key.word();
        format!(
            "<th scope=\"col\"{state}><a href=\"?sort={word}&amp;order={order}\">{label}</a></th>"
        )
    }

    pub(super) fn directories<'d, 'm>(
        self,
        all: &'d [Subdirectory<'m>],
    ) -> Vec<&'d Subdirectory<'m>> {
        let mut sorted: Vec<_> = all.iter().collect();
        sorted.sort_by(|a, b| {
            let names = || by_name(a.name, b.name);
            self.directed(match self.key {
                SortKey::Size => a.files.cmp(&b.files).then_with(names),
                SortKey::Name | SortKey::Time => names(),
            })
        });
        sorted
    }

    pub(super) fn files<'m>(self, all: &[&'m Resource]) -> Vec<&'m Resource> {
        let mut sorted = all.to_vec();
        sorted.sort_by(|a, b| {
            let names = || by_name(&a.path, &b.path);
            self.directed(match self.key {
                SortKey::Name => names(),
                SortKey::Size => a.identity.length.cmp(&b.identity.length).then_with(names),
                SortKey::Time => a.last_modified.cmp(&b.last_modified).then_with(names),
            })
        });
        sorted
    }

    fn directed(self, order: Ordering) -> Ordering {
        if self.descending {
            order.reverse()
        } else {
            order
        }
    }
}

/// Compares names as people do: without regard to ASCII case, numbers by their value, so that
/// `file-2` comes before `file-10`; and by their bytes if that makes them equal.
fn by_name(a: &[u8], b: &[u8]) -> Ordering {
    let (mut left, mut right) = (a, b);
    loop {
        let (digits, others) = (leading_digits(left), leading_digits(right));
        let order = if digits > 0 && others > 0 {
            let numbers = by_value(&left[..digits], &right[..others]);
            (left, right) = (&left[digits..], &right[others..]);
            numbers
        } else {
            let (Some((first, rest)), Some((other, others))) =
                (left.split_first(), right.split_first())
            else {
                return left.len().cmp(&right.len()).then_with(|| a.cmp(b));
            };
            (left, right) = (rest, others);
            first.to_ascii_lowercase().cmp(&other.to_ascii_lowercase())
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

fn leading_digits(name: &[u8]) -> usize {
    name.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

/// Compares two numbers of any length.
fn by_value(a: &[u8], b: &[u8]) -> Ordering {
    let [a, b] = [a, b].map(|digits| {
        let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
        &digits[zeros..]
    });
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_are_compared_by_value() {
        let sorted = [
            "",
            "01",
            "1",
            "1a",
            "2",
            "10",
            "a",
            "A1",
            "a01b",
            "a1b",
            "a2",
            "a10",
            "a10b",
            "a10c",
            "b",
            "file-2",
            "file-10",
            "v1.9.0",
            "v1.10.0",
            "v1.10.0-1",
            "x99999999999999999999",
            "x100000000000000000000",
        ];
        for (at, one) in sorted.iter().enumerate() {
            for (other_at, other) in sorted.iter().enumerate() {
                let order = by_name(one.as_bytes(), other.as_bytes());
                assert_eq!(order, at.cmp(&other_at), "{one:?} {other:?}");
            }
        }
    }
}

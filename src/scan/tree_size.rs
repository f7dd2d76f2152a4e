//! How many entries a site has, and how many of them links may bring.

use std::cmp::max;
use std::path::Path;

use super::site_path::join;

/// Number of entries that links may bring to a small site.
const MIN_LINKED_LIMIT: usize = 100_000;
/// How many times as many entries as a site has without links they may bring to it.
const MAX_LINKED_FACTOR: usize = 10;

/// Number of files, directories and links that a walk has met.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TreeSize {
    /// Those that are in the site without links.
    pub own: usize,
    /// Those that linked directories bring.
    pub linked: usize,
    /// Those that patterns leave out, a folder as one. No part of the other numbers.
    pub excluded: usize,
    /// Whether links were left out because they would bring too much.
    pub is_limited: bool,
}

impl TreeSize {
    /// How many entries links may bring at most. Folders that link to each other have a path for
    /// each order of visiting them: ten would have millions.
    pub fn limit(&self) -> usize {
        max(MIN_LINKED_LIMIT, self.own.saturating_mul(MAX_LINKED_FACTOR))
    }

    /// Whether a site of this size, of which a part has changed, may have more behind links than it
    /// should: a look at the `part` can't tell, and what has gone is counted as well. Rather too
    /// often than not: a walk from the root then decides.
    pub fn may_be_exceeded(&self, part: &Self) -> bool {
        let limit = max(
            MIN_LINKED_LIMIT,
            self.own.saturating_mul(MAX_LINKED_FACTOR / 2),
        );
        part.is_limited || self.linked.saturating_add(part.linked) > limit
    }

    /// Adds what another walk has met.
    pub fn add(&mut self, other: Self) {
        self.own += other.own;
        self.linked += other.linked;
        self.excluded += other.excluded;
        self.is_limited |= other.is_limited;
    }
}

/// Warns of links that would bring too much to the site, each by its path in the site.
pub fn warn_limited<'p>(root: &Path, links: impl Iterator<Item = &'p [u8]>) {
    let links: Vec<_> = links.collect();
    let Some(first) = links.first() else {
        return;
    };
    let (first, count) = (join(root, first), links.len());
    let (first, others) = match count {
        1 => (first.display(), String::new()),
        _ => (first.display(), format!(" and {} more links", count - 1)),
    };
    tracing::warn!(
        path = %first,
        count,
        "not following {first}{others}: links may bring {MAX_LINKED_FACTOR} times as many entries as \
         the site has without them, or {MIN_LINKED_LIMIT}"
    );
}

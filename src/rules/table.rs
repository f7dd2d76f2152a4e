//! An index of patterns: finds those that a path may match without trying each one.

use std::collections::HashMap;

use super::pattern::{MatchOptions, Pattern, trim_slash};

/// Numbered patterns, and which of them a path may match: those for exactly it, those whose first
/// segment it has, and those that begin with a placeholder or a `*`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Table {
    options: MatchOptions,
    exact: HashMap<Box<[u8]>, Vec<u32>>,
    first: HashMap<Box<[u8]>, Vec<u32>>,
    anywhere: Vec<u32>,
}

impl Table {
    pub(super) fn new(options: MatchOptions) -> Self {
        Self {
            options,
            exact: HashMap::new(),
            first: HashMap::new(),
            anywhere: Vec::new(),
        }
    }

    /// Adds a pattern. Its number is greater than those before it.
    pub(super) fn insert(&mut self, number: u32, pattern: &Pattern) {
        let numbers = match (pattern.path(), pattern.first_segment()) {
            (Some(path), _) => self.exact.entry(path.into()).or_default(),
            (None, Some(segment)) => self.first.entry(segment.into()).or_default(),
            (None, None) => &mut self.anywhere,
        };
        numbers.push(number);
    }

    /// What all spellings of a path have in common.
    pub(super) fn key<'p>(&self, path: &'p [u8]) -> &'p [u8] {
        trim_slash(path, self.options)
    }

    /// The numbers of the patterns that may match `path`, lowest first, merged with `others`.
    pub(super) fn candidates<'a>(&'a self, path: &[u8], others: &'a [u32]) -> Candidates<'a> {
        let exact = self.exact.get(self.key(path));
        let rest = path.strip_prefix(b"/").unwrap_or(path);
        let first = rest
            .split(|byte| *byte == b'/')
            .next()
            .and_then(|segment| self.first.get(segment));
        Candidates([
            exact.map_or(&[], Vec::as_slice),
            first.map_or(&[], Vec::as_slice),
            &self.anywhere,
            others,
        ])
    }
}

/// Ordered lists as one.
pub(super) struct Candidates<'a>([&'a [u32]; 4]);

impl Iterator for Candidates<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let list = self
            .0
            .iter_mut()
            .filter(|list| !list.is_empty())
            .min_by_key(|list| list.first().copied())?;
        let (first, rest) = list.split_first()?;
        *list = rest;
        Some(*first)
    }
}

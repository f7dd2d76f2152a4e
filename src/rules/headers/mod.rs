//! `_headers`: fields for the responses of some paths.
//!
//! ```text
//! /assets/*
//!   Cache-Control: max-age=31536000, immutable
//!   ! X-Frame-Options
//! ```
//!
//! A path, and below it the fields that its responses get, or lose after `!`. Every block that
//! matches applies, in their order: the first value replaces a built-in one, later ones are
//! appended, but for fields that have one value (RFC 9110 5.3), where the last one stands. The
//! grammar is what Netlify and Cloudflare have in common, plus the extensions of each; where they
//! read the same text differently, the reading that matches more applies: letters in either case,
//! with or without a slash at the end.

mod read;

use std::borrow::Cow;

use http::header::{self, HeaderName, HeaderValue};

use super::complaint::Complaint;
use super::host::Host;
use super::pattern::{Captures, MatchOptions, Pattern};
use super::table::Table;
use super::template::{Template, in_path};
use crate::semantics::coding::Coding;

const MATCHING_OPTIONS: MatchOptions = MatchOptions {
    lenient: true,
    inner_placeholders: false,
    any_case: true,
    many_splats: true,
};

/// The rules of a `_headers` file.
#[derive(Clone, Debug)]
pub struct Headers {
    blocks: Vec<Block>,
    table: Table,
    has_hosts: bool,
    has_codings: bool,
    hash: [u8; 32],
}

#[derive(Clone, Debug)]
struct Block {
    line: usize,
    host: Option<Host>,
    pattern: Pattern,
    removed: Vec<HeaderName>,
    set: Vec<(HeaderName, FieldValue)>,
}

#[derive(Clone, Debug)]
enum FieldValue {
    Fixed(HeaderValue),
    /// With pieces of the path in it.
    Template(Template),
}

/// The blocks that match a path, in their order.
#[derive(Clone, PartialEq, Eq, Debug, Hash, Default)]
pub struct Matching(Box<[u32]>);

impl Matching {
    /// Whether none does.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What rules make of a response's fields: 64 KiB of lines at most, the first that are given.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Overlay {
    /// Fields in the place of built-in ones, and new ones, in the order they were first given.
    /// Only `Set-Cookie` has several lines.
    pub lines: Vec<(HeaderName, HeaderValue)>,
    /// Built-in fields that are not sent.
    pub removed: Vec<HeaderName>,
    /// What `Vary` names in addition to the fields that etagd itself chooses by.
    pub vary: Option<HeaderValue>,
    /// Bytes of all lines so far.
    size: usize,
}

/// Limit for the fields that rules add to a response, in bytes: each may contain a piece of the
/// path, which the client chooses.
const MAX_OVERLAY_SIZE: usize = 64 << 10;
/// What a field line counts in addition to its name and value, in bytes (RFC 7541 4.1).
const LINE_OVERHEAD: usize = 32;

impl Default for Headers {
    fn default() -> Self {
        Self::parse(b"").0
    }
}

impl Headers {
    /// Reads a file. What is wrong with it takes nothing else away.
    #[must_use]
    pub fn parse(text: &[u8]) -> (Self, Vec<Complaint>) {
        read::parse(text)
    }

    /// Whether there are no rules.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Whether some of them are for certain hosts only.
    #[must_use]
    pub fn has_hosts(&self) -> bool {
        self.has_hosts
    }

    /// Whether some of them say that content is compressed.
    #[must_use]
    pub fn has_codings(&self) -> bool {
        self.has_codings
    }

    /// The content codings that these rules give to a path, under whatever host, each with the
    /// number of its line; the one that applies comes first.
    #[must_use]
    pub fn content_codings(&self, path: &[u8]) -> Vec<(Coding, usize)> {
        if !self.has_codings {
            return Vec::new();
        }
        let path = in_lower_case(without_slash(path));
        let mut codings = Vec::new();
        for number in self.table.candidates(&path, &[]) {
            let Some(block) = self.block(number).filter(|it| it.pattern.matches(&path)) else {
                continue;
            };
            if block.host.is_none() && block.removed.contains(&header::CONTENT_ENCODING) {
                codings.clear();
            }
            let set = block.set.iter();
            codings.extend(set.filter_map(|(name, value)| match value {
                FieldValue::Fixed(value) if name == header::CONTENT_ENCODING => {
                    Some((Coding::from_token(value.as_bytes())?, block.line))
                }
                FieldValue::Fixed(_) | FieldValue::Template(_) => None,
            }));
        }
        codings.reverse();
        codings
    }

    /// A hash of all that they mean: equal for files that differ in comments and spaces.
    #[must_use]
    pub fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// Which blocks apply to a path (decoded, with its leading slash, without empty segments)
    /// under a host (without its port). Without one, those for certain hosts do not.
    #[must_use]
    pub fn matching(&self, path: &[u8], host: Option<&str>) -> Matching {
        if self.is_empty() {
            return Matching::default();
        }
        let path = in_lower_case(without_slash(path));
        let matching = self.table.candidates(&path, &[]).filter(|number| {
            self.block(*number).is_some_and(|block| {
                let wanted = block.host.as_ref();
                wanted.is_none_or(|wanted| host.is_some_and(|host| wanted.matches(host)))
                    && block.pattern.matches(&path)
            })
        });
        Matching(matching.collect())
    }

    /// The blocks for every host that none of these paths matches: the number of their line, and a
    /// path that would.
    pub fn unmatched(&self, paths: impl Iterator<Item = Vec<u8>>) -> Vec<(usize, Vec<u8>)> {
        let mut is_matched = vec![false; self.blocks.len()];
        for path in paths {
            for number in &self.matching(&path, None).0 {
                let number = usize::try_from(*number).unwrap_or(usize::MAX);
                if let Some(slot) = is_matched.get_mut(number) {
                    *slot = true;
                }
            }
        }
        self.blocks
            .iter()
            .zip(is_matched)
            .filter(|(block, is_matched)| !is_matched && block.host.is_none())
            .map(|(block, _)| (block.line, block.pattern.example(b"x", b"x")))
            .collect()
    }

    /// The lines of those blocks that set this field, in their order.
    #[must_use]
    pub fn lines_with(&self, matching: &Matching, name: &HeaderName) -> Vec<usize> {
        self.matched(matching)
            .filter(|block| block.set.iter().any(|(set, _)| set == name))
            .map(|block| block.line)
            .collect()
    }

    /// Whether what these blocks set is the same for every path that they match.
    #[must_use]
    pub fn is_fixed_for(&self, matching: &Matching) -> bool {
        self.matched(matching)
            .flat_map(|block| &block.set)
            .all(|(_, value)| matches!(value, FieldValue::Fixed(_)))
    }

    /// What these blocks make of the fields of a path that they match.
    #[must_use]
    pub fn overlay(&self, matching: &Matching, path: &[u8]) -> Overlay {
        let path = without_slash(path);
        let mut overlay = Overlay::default();
        for block in self.matched(matching) {
            if overlay.size > MAX_OVERLAY_SIZE {
                break;
            }
            for name in &block.removed {
                overlay.remove(name);
            }
            // Made when the first value needs it.
            let mut captures = None;
            for (name, value) in &block.set {
                match value {
                    FieldValue::Fixed(value) => overlay.set_field(name, value),
                    FieldValue::Template(_) if overlay.size > MAX_OVERLAY_SIZE => break,
                    FieldValue::Template(template) => {
                        let captures = captures.get_or_insert_with(|| block.captures(path));
                        let mut text = Vec::new();
                        template.fill(&mut text, |number| captures.captured(number, path), in_path);
                        if let Ok(value) = HeaderValue::from_bytes(text.trim_ascii()) {
                            overlay.set_field(name, &value);
                        }
                    }
                }
            }
        }
        overlay
    }

    fn block(&self, number: u32) -> Option<&Block> {
        self.blocks.get(usize::try_from(number).ok()?)
    }

    fn matched(&self, matching: &Matching) -> impl Iterator<Item = &Block> {
        matching.0.iter().filter_map(|number| self.block(*number))
    }
}

impl Block {
    /// Bytes of its lines, without what comes into them of a path.
    fn size(&self) -> usize {
        let removed = self
            .removed
            .iter()
            .map(|name| LINE_OVERHEAD + name.as_str().len());
        let set = self.set.iter().map(|(name, value)| {
            let value = match value {
                FieldValue::Fixed(value) => value.len(),
                FieldValue::Template(_) => 0,
            };
            LINE_OVERHEAD + name.as_str().len() + value
        });
        removed.chain(set).sum()
    }

    fn captures(&self, path: &[u8]) -> Captures {
        let captures = self.pattern.captures(&in_lower_case(path));
        captures.unwrap_or_default()
    }
}

impl Overlay {
    /// Whether there is room for one more line; once there is none, there is none for any other.
    fn takes(&mut self, name: &HeaderName, value: usize) -> bool {
        self.size += LINE_OVERHEAD + name.as_str().len() + value;
        self.size <= MAX_OVERLAY_SIZE
    }

    fn remove(&mut self, name: &HeaderName) {
        if !self.takes(name, 0) {
            return;
        }
        self.lines.retain(|(given, _)| given != name);
        if !self.removed.contains(name) {
            self.removed.push(name.clone());
        }
    }

    fn set_field(&mut self, name: &HeaderName, value: &HeaderValue) {
        if !self.takes(name, value.len()) {
            return;
        }
        if name == header::VARY {
            let before = self.vary.take();
            self.vary = Some(before.map_or_else(|| value.clone(), |before| join(&before, value)));
            return;
        }
        self.removed.retain(|removed| removed != name);
        let given = self.lines.iter_mut().find(|(given, _)| given == name);
        match given {
            Some((_, before)) if has_one_value(name) => *before = value.clone(),
            // RFC 6265 section 3: cookies do not join.
            Some((_, before)) if name != header::SET_COOKIE => *before = join(before, value),
            _ => self.lines.push((name.clone(), value.clone())),
        }
    }
}

/// RFC 9110 5.3: values of one field, as one list.
fn join(before: &HeaderValue, value: &HeaderValue) -> HeaderValue {
    let both = [before.as_bytes(), b", ", value.as_bytes()].concat();
    HeaderValue::from_bytes(&both).unwrap_or_else(|_| value.clone())
}

/// Whether a field is not a list, so that a second value cannot be appended.
fn has_one_value(name: &HeaderName) -> bool {
    const SINGLE_VALUED: [HeaderName; 15] = [
        header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
        header::ACCESS_CONTROL_MAX_AGE,
        header::CONTENT_DISPOSITION,
        // A list, but of codings that were applied one after the other, and rules have one.
        header::CONTENT_ENCODING,
        header::CONTENT_LOCATION,
        header::CONTENT_TYPE,
        header::EXPIRES,
        HeaderName::from_static("cross-origin-embedder-policy"),
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderName::from_static("cross-origin-resource-policy"),
        header::STRICT_TRANSPORT_SECURITY,
        header::X_CONTENT_TYPE_OPTIONS,
        header::X_FRAME_OPTIONS,
        header::X_XSS_PROTECTION,
    ];
    SINGLE_VALUED.contains(name)
}

fn without_slash(path: &[u8]) -> &[u8] {
    match path {
        [rest @ .., b'/'] if !rest.is_empty() => rest,
        _ => path,
    }
}

fn in_lower_case(path: &[u8]) -> Cow<'_, [u8]> {
    if path.iter().any(u8::is_ascii_uppercase) {
        Cow::Owned(path.to_ascii_lowercase())
    } else {
        Cow::Borrowed(path)
    }
}

//! A manifest in a form to store, send and compare.
//!
//! An [`Inventory`] lists every representation of a site as one replica, or a build, has it, with
//! the fields that a response would have. [`Inventory::read`] reads what [`write()`] writes, and
//! [`between`] compares two inventories. Nothing here reads the site itself.

mod difference;
mod json;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::semantics::base_path::BasePath;
use crate::semantics::caching;
use crate::semantics::coding::Coding;
use crate::semantics::etag::ETag;
use crate::semantics::target::encode_path;

pub use difference::{ChangeKind, Difference, between};
pub use json::{InventoryError, write};

/// Everything a manifest says about a site.
#[derive(Debug)]
pub struct Inventory {
    /// What it says about the site as a whole.
    pub head: Head,
    /// Every representation once, ordered by path and coding.
    pub entries: Vec<Entry>,
}

/// What a manifest says about the site as a whole.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Head {
    /// The site digest, in hex.
    pub digest: String,
    /// Whether the digest covers every file: none was unreadable or still changing.
    pub complete: bool,
    /// The flags that change answers, by name.
    pub settings: BTreeMap<String, String>,
    /// The hash of the site's rules, if it has any.
    pub rules: Option<String>,
    /// The folders without files that are listed (`--listing`), each with a slash at its end, in
    /// order.
    pub empty_folders: Vec<Box<[u8]>>,
}

/// One representation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The resource's path below the root: raw bytes, without the leading slash.
    pub path: Box<[u8]>,
    /// Its tag.
    pub etag: ETag,
    /// Its length in bytes.
    pub size: u64,
    /// Its content coding.
    pub coding: Coding,
    /// The other fields of its response; many entries share one.
    pub description: Arc<Description>,
}

/// The fields of a response with a representation, apart from its tag.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Description {
    /// `Content-Type`.
    pub media_type: String,
    /// The fields of a 200 that differ from the built-in ones, by lower-case name; `None` for a
    /// built-in field that is not sent.
    pub fields: BTreeMap<String, Option<String>>,
}

impl Head {
    /// Below which path of its host the site answers.
    pub fn base_path(&self) -> BasePath {
        let named = self.settings.get("base-path").map(|path| path.parse());
        // A manifest of another make may say what is none.
        named.and_then(Result::ok).unwrap_or_default()
    }

    /// The settings whose values differ from those of `other`: name, value here, value there, with
    /// words for one that is empty.
    /// Settings that only one version of etagd knows are left out.
    pub fn other_settings<'a>(
        &'a self,
        other: &'a Self,
    ) -> impl Iterator<Item = (&'a str, &'a str, &'a str)> {
        self.settings.iter().filter_map(|(name, here)| {
            let there = other.settings.get(name)?;
            (here != there).then_some((name.as_str(), shown(here), shown(there)))
        })
    }
}

impl Entry {
    /// Whether clients were told that its content never changes (RFC 8246).
    pub fn is_immutable(&self) -> bool {
        let value = self.description.fields.get("cache-control");
        value
            .and_then(Option::as_deref)
            .is_some_and(|value| caching::is_immutable(value.as_bytes()))
    }

    /// The path as a URL has it: percent-encoded, with the leading slash.
    pub fn url(&self) -> String {
        url(&self.path)
    }
}

/// A setting for people to read.
fn shown(value: &str) -> &str {
    if value.is_empty() { "not set" } else { value }
}

/// A path of a site as a URL has it: percent-encoded, with the leading slash.
pub fn url(path: &[u8]) -> String {
    format!("/{}", encode_path(path))
}

/// A field value as text. Each byte becomes the character with its number (ISO 8859-1), so that two
/// values are equal if their texts are.
pub fn text(value: &[u8]) -> String {
    value.iter().copied().map(char::from).collect()
}

impl Inventory {
    /// Whether it has a representation of this path.
    pub fn has(&self, path: &[u8]) -> bool {
        self.entries
            .binary_search_by(|entry| (*entry.path).cmp(path))
            .is_ok()
    }

    /// Whether it lists this folder, which has no files: its path without a slash at the end.
    pub fn has_empty_folder(&self, folder: &[u8]) -> bool {
        let folder = [folder, b"/"].concat();
        let folders = &self.head.empty_folders;
        folders
            .binary_search_by(|each| (**each).cmp(&folder))
            .is_ok()
    }

    /// Whether it has anything at `folder`, a path with a slash at its end, or below.
    pub fn has_below(&self, folder: &[u8]) -> bool {
        let entry = self.entries.partition_point(|each| *each.path < *folder);
        let empty = &self.head.empty_folders;
        let at = empty.partition_point(|each| **each < *folder);
        let is_below = |path: &[u8]| path.starts_with(folder);
        self.entries
            .get(entry)
            .is_some_and(|each| is_below(&each.path))
            || empty.get(at).is_some_and(|each| is_below(each))
    }
}

/// Deduplicates descriptions: a site has thousands of entries and a handful of descriptions.
#[derive(Debug, Default)]
pub struct Descriptions(HashSet<Arc<Description>>);

impl Descriptions {
    /// The shared copy of this description.
    pub fn intern(&mut self, description: Description) -> Arc<Description> {
        match self.0.get(&description) {
            Some(known) => Arc::clone(known),
            None => {
                let new = Arc::new(description);
                self.0.insert(Arc::clone(&new));
                new
            }
        }
    }
}

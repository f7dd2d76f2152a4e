//! A manifest as something to keep, to send and to compare.
//!
//! An [`Inventory`] is what one replica, or a build, says of a site: every representation with what
//! a response would say of it. [`write()`] and [`Inventory::read`] are each other's inverse;
//! [`Difference`] is what lies between two inventories. Nothing here looks at a site.

mod difference;
mod json;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::semantics::coding::Coding;
use crate::semantics::etag::ETag;
use crate::semantics::target::encode_path;

pub use difference::{ChangeKind, Difference, between};
pub use json::{InventoryError, write};

/// What a manifest says of a whole site.
#[derive(Debug)]
pub struct Inventory {
    /// What it says of the site as one.
    pub head: Head,
    /// Every representation once, ordered by path and coding.
    pub entries: Vec<Entry>,
}

/// What a manifest says of the site as one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Head {
    /// The site digest, in hex.
    pub digest: String,
    /// Whether every file of the site could be read and had come to rest.
    pub complete: bool,
    /// The flags that change answers, by name.
    pub settings: BTreeMap<String, String>,
    /// The hash of the site's rules, if it has any.
    pub rules: Option<String>,
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
    /// What the response says beside; many entries share one.
    pub description: Arc<Description>,
}

/// What a response says of a representation beside its tag.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Description {
    /// `Content-Type`.
    pub media_type: String,
    /// The fields of a 200 that are not what every response has, by lower-case name; `None` for
    /// one that every response has but this.
    pub fields: BTreeMap<String, Option<String>>,
}

impl Head {
    /// The settings that are not as in `other`, where both name them: name, value here, value
    /// there.
    pub fn other_settings<'a>(
        &'a self,
        other: &'a Self,
    ) -> impl Iterator<Item = (&'a str, &'a str, &'a str)> {
        self.settings.iter().filter_map(|(name, here)| {
            let there = other.settings.get(name)?;
            (here != there).then_some((name.as_str(), here.as_str(), there.as_str()))
        })
    }
}

impl Entry {
    /// The path as a URL has it: percent-encoded, with the leading slash.
    pub fn url(&self) -> String {
        url(&self.path)
    }
}

/// A path of a site as a URL has it: percent-encoded, with the leading slash.
pub fn url(path: &[u8]) -> String {
    format!("/{}", encode_path(path))
}

/// A field value as text. Bytes that are no ASCII stand for the characters of the same number, so
/// that two values are equal where their texts are.
pub fn text(value: &[u8]) -> String {
    value.iter().copied().map(char::from).collect()
}

impl Inventory {
    /// Whether it has any representation of this path.
    pub fn has(&self, path: &[u8]) -> bool {
        let order = |entry: &Entry| (*entry.path).cmp(path);
        self.entries.binary_search_by(order).is_ok()
    }
}

/// Each description once, for all who share it.
#[derive(Debug, Default)]
pub struct Descriptions(HashSet<Arc<Description>>);

impl Descriptions {
    /// The one that says this.
    pub fn one(&mut self, description: Description) -> Arc<Description> {
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

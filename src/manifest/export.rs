//! A manifest as an operator is told of it: as text, as JSON, as an [`Inventory`].

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use blake3::Hash;
use http::HeaderValue;
use http::header::{self, HeaderName};

use super::Manifest;
use crate::inventory::{self, Description, Descriptions, Entry, Head, Inventory};
use crate::representation::{REVALIDATE, Representation, Resource};

impl Manifest {
    /// Writes one line a representation, ordered by path: path, tag, size in bytes, media type
    /// and, where there is one, coding, separated by tabs. Paths are percent-encoded.
    ///
    /// # Errors
    /// As `out`.
    pub fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        for entry in self.entries() {
            let (path, etag, size) = (entry.url(), entry.etag, entry.size);
            let media_type = &entry.description.media_type;
            write!(out, "{path}\t{etag}\t{size}\t{media_type}")?;
            match entry.coding.extension() {
                Some(_) => writeln!(out, "\t{}", entry.coding.token())?,
                None => writeln!(out)?,
            }
        }
        Ok(())
    }

    /// Writes the manifest as JSON: `format`, `digest`, `complete`, `settings` and `entries`, one
    /// a line. [`Inventory::read`] reads it back.
    ///
    /// # Errors
    /// As `out`.
    pub fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        inventory::write(out, &self.head(), self.entries())
    }

    /// What [`Self::write_json`] writes.
    pub fn inventory(&self) -> Inventory {
        let mut entries: Vec<_> = self.entries().collect();
        entries.sort_by(|a, b| (&a.path, a.coding).cmp(&(&b.path, b.coding)));
        Inventory {
            head: self.head(),
            entries,
        }
    }

    /// What the manifest says of the site as one.
    pub fn head(&self) -> Head {
        let rules = self.rules();
        let own = |(name, value): (&'static str, String)| (name.to_owned(), value);
        Head {
            digest: self.digest.hash.to_string(),
            complete: self.digest.complete,
            settings: self.settings.named().into_iter().map(own).collect(),
            rules: (!rules.is_empty()).then(|| Hash::from_bytes(rules.hash()).to_string()),
        }
    }

    /// Every representation, ordered by path.
    fn entries(&self) -> impl Iterator<Item = Entry> {
        let mut descriptions = Descriptions::default();
        self.resources().into_iter().flat_map(move |resource| {
            let description = descriptions.one(describe(resource));
            let entry = move |representation: &Representation| Entry {
                path: resource.path.clone(),
                etag: representation.etag,
                size: representation.length,
                coding: representation.coding,
                description: Arc::clone(&description),
            };
            resource.representations().map(entry)
        })
    }
}

/// What a response says of a resource beside the tag.
fn describe(resource: &Resource) -> Description {
    let fields = &resource.fields;
    let text = |value: &HeaderValue| inventory::text(value.as_bytes());
    let mut others: BTreeMap<String, Option<String>> = BTreeMap::new();
    let mut add = |name: &HeaderName, value: &HeaderValue| {
        let known = others.entry(name.to_string()).or_default();
        match known {
            Some(known) => *known = format!("{known}, {}", text(value)),
            None => *known = Some(text(value)),
        }
    };
    if fields.cache_control != REVALIDATE {
        add(&header::CACHE_CONTROL, &fields.cache_control);
    }
    if let Some(ruled) = &fields.ruled {
        ruled
            .lines
            .iter()
            .for_each(|(name, value)| add(name, value));
        if let Some((vary, with_coding)) = &ruled.vary {
            let vary = if resource.is_negotiable() {
                with_coding
            } else {
                vary
            };
            add(&header::VARY, vary);
        }
        let removed = ruled.removed.iter().map(HeaderName::to_string);
        others.extend(removed.map(|name| (name, None)));
    }
    Description {
        media_type: text(&fields.content_type),
        fields: others,
    }
}

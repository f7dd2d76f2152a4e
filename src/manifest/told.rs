//! A manifest as an operator is told of it: as text, as JSON, as an [`Inventory`].

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use http::header;

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
        let own = |(name, value): (&'static str, String)| (name.to_owned(), value);
        Head {
            digest: self.digest.hash.to_string(),
            complete: self.digest.complete,
            settings: self.settings.named().into_iter().map(own).collect(),
            rules: None,
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
    let mut others = BTreeMap::new();
    if fields.cache_control != REVALIDATE {
        let value = inventory::text(fields.cache_control.as_bytes());
        others.insert(header::CACHE_CONTROL.to_string(), value);
    }
    Description {
        media_type: inventory::text(fields.content_type.as_bytes()),
        fields: others,
    }
}

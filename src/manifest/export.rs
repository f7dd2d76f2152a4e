//! A manifest in the forms that operators and other replicas read: text, JSON, an [`Inventory`].

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use blake3::Hash;
use http::HeaderValue;
use http::header::{self, HeaderName};

use super::Manifest;
use crate::inventory::{self, Description, Descriptions, Entry, Head, Inventory};
use crate::representation::{REVALIDATE, Resource};
use crate::semantics::coding::Coding;
use crate::semantics::dictionary::USE_AS_DICTIONARY;
use crate::semantics::vary::Vary;

impl Manifest {
    /// Writes one line a representation, ordered by path: path, tag, size in bytes, media type
    /// and, where there is one, coding and the SHA-256 of its dictionary, separated by tabs. Paths are
    /// percent-encoded.
    ///
    /// # Errors
    /// When `out` can't be written.
    pub fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        for entry in self.entries() {
            let (path, etag, size) = (entry.url(), entry.etag, entry.size);
            let media_type = &entry.description.media_type;
            write!(out, "{path}\t{etag}\t{size}\t{media_type}")?;
            if entry.coding != Coding::Identity {
                write!(out, "\t{}", entry.coding.token())?;
            }
            match entry.coding.dictionary() {
                Some(dictionary) => writeln!(out, "\t{dictionary}")?,
                None => writeln!(out)?,
            }
        }
        Ok(())
    }

    /// Writes the manifest as JSON: `format`, `digest`, `complete`, `settings`, `rules` and, with
    /// `--listing`, `empty_folders`, where there are such, and `entries`, one a line.
    /// [`Inventory::read`] reads it back.
    ///
    /// # Errors
    /// When `out` can't be written.
    pub fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        inventory::write(out, &self.head(), self.entries())
    }

    /// The content of what [`Self::write_json`] writes, with its entries sorted.
    pub fn inventory(&self) -> Inventory {
        let mut entries: Vec<_> = self.entries().collect();
        entries.sort_by(|a, b| (&a.path, a.coding).cmp(&(&b.path, b.coding)));
        Inventory {
            head: self.head(),
            entries,
        }
    }

    /// What the manifest says of the site as a whole.
    pub fn head(&self) -> Head {
        let rules = self.rules();
        Head {
            digest: self.digest.hash.to_string(),
            complete: self.digest.complete,
            settings: self
                .settings
                .named()
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
            rules: (!rules.is_empty()).then(|| Hash::from_bytes(rules.hash()).to_string()),
            // As in the digest.
            empty_folders: match self.settings.listing {
                true => self.empty_folders().to_vec(),
                false => Vec::new(),
            },
        }
    }

    /// Every representation, ordered by path.
    fn entries(&self) -> impl Iterator<Item = Entry> {
        let mut descriptions = Descriptions::default();
        self.resources().into_iter().flat_map(move |resource| {
            let description = descriptions.intern(describe(resource));
            resource.representations().map(move |representation| Entry {
                path: resource.path.clone(),
                etag: representation.etag,
                size: representation.length,
                coding: representation.coding(),
                description: Arc::clone(&description),
            })
        })
    }
}

/// The fields of a response with this resource, apart from its tag.
fn describe(resource: &Resource) -> Description {
    let fields = &resource.fields;
    let text = |value: &HeaderValue| inventory::text(value.as_bytes());
    let mut described: BTreeMap<String, Option<String>> = BTreeMap::new();
    let mut add = |name: &HeaderName, value: &HeaderValue| {
        // Several lines of one field are one list (RFC 9110 section 5.3).
        let values = described.entry(name.to_string()).or_default();
        match values {
            Some(values) => *values = format!("{values}, {}", text(value)),
            None => *values = Some(text(value)),
        }
    };
    if fields.cache_control != REVALIDATE {
        add(&header::CACHE_CONTROL, &fields.cache_control);
    }
    if let Some(coding) = fields.content_encoding {
        let token = HeaderValue::from_static(coding.token());
        add(&header::CONTENT_ENCODING, &token);
    }
    let is_ruled = |name: &HeaderName| {
        let ruled = fields.ruled.as_ref();
        ruled.is_some_and(|ruled| ruled.lines.iter().any(|(line, _)| line == name))
    };
    if let Some(value) = resource.use_as_dictionary()
        && !is_ruled(&USE_AS_DICTIONARY)
    {
        add(&USE_AS_DICTIONARY, value);
    }
    if let Some(ruled) = &fields.ruled {
        for (name, value) in &ruled.lines {
            add(name, value);
        }
        if ruled.vary.is_some() {
            let mut vary = Vary::default();
            resource.add_vary(&mut vary);
            if let Some(vary) = vary.value() {
                add(&header::VARY, &vary);
            }
        }
        described.extend(ruled.removed.iter().map(|name| (name.to_string(), None)));
    }
    Description {
        media_type: text(&fields.content_type),
        fields: described,
    }
}

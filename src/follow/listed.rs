//! From the listing of a release to the site that it is here.

use std::collections::HashMap;
use std::sync::Arc;

use super::depot::Depot;
use super::error::RefusalReason;
use crate::manifest::Manifest;
use crate::representation::{Data, MAX_WHOLE, RemoteSource};
use crate::rules::RuleFile;
use crate::scan::{PublishedContent, PublishedFile, PublishedSite, Scanner};
use crate::semantics::coding::Coding;
use crate::settings::{SettingFlag, Settings, Symlinks};
use crate::store::{ListedCoding, ListedFile, ReleaseRecord, SiteListing};

/// The settings of a release, if no flag that was typed here says otherwise.
///
/// # Errors
/// When one does, or the release has flags that are not known here.
pub(super) fn settings(
    listing: &SiteListing,
    typed: &[SettingFlag],
) -> Result<Settings, RefusalReason> {
    let settings = Settings::from_flags(&listing.settings)?;
    let flags = settings.flags();
    for here in typed {
        let there = flags.iter().find(|flag| flag.name == here.name);
        // A flag that is on or off is not named where it is off.
        let there = there.map_or_else(|| "false".to_owned(), |flag| flag.values.to_string());
        let value = here.values.to_string();
        if value != there {
            return Err(RefusalReason::Flag {
                name: here.name,
                here: shown(value),
                there: shown(there),
            });
        }
    }
    Ok(settings)
}

/// A value in a sentence.
fn shown(value: String) -> String {
    match value.is_empty() {
        true => "not set".to_owned(),
        false => value,
    }
}

/// The site of a release, with all content where it is now: what `current` has of the same content at the
/// same path, or else in the store.
///
/// # Errors
/// When it is not the site that the record says.
pub(super) fn assemble(
    record: &ReleaseRecord,
    listing: SiteListing,
    settings: Settings,
    rules: Vec<(RuleFile, Vec<u8>)>,
    current: Option<&Manifest>,
    depot: &Arc<Depot>,
) -> Result<Manifest, RefusalReason> {
    // Nothing is read from disk: no link is met.
    let scanner = Scanner::new(Symlinks::None, settings, None);
    let long = long_contents(&listing, depot);
    let folders = listing.empty_folders.iter();
    let site = PublishedSite {
        empty_folders: folders
            .map(|folder| folder.strip_suffix(b"/").unwrap_or(folder).into())
            .collect(),
        rules,
        files: listing.files.into_iter().map(known_file).collect(),
    };
    let manifest = scanner.assemble(site, |path, content| {
        place(path, content, current, &long, depot)
    });
    match manifest.digest().hash().as_bytes() == record.digest.as_bytes() {
        true => Ok(manifest),
        false => Err(RefusalReason::Digest {
            listed: record.digest,
            found: manifest.digest().to_string(),
        }),
    }
}

/// Long contents by their hash: they share what proves their groups.
fn long_contents(
    listing: &SiteListing,
    depot: &Arc<Depot>,
) -> HashMap<[u8; 32], Arc<RemoteSource>> {
    let long = listing.blobs().filter(|(_, length)| *length > MAX_WHOLE);
    long.map(|(hash, length)| (*hash.as_bytes(), depot.source(*hash.as_bytes(), length)))
        .collect()
}

/// Where the content of the file at a path is.
fn place(
    path: &[u8],
    content: &PublishedContent,
    current: Option<&Manifest>,
    long: &HashMap<[u8; 32], Arc<RemoteSource>>,
    depot: &Arc<Depot>,
) -> Data {
    let known = current.and_then(|current| current.locate(path));
    let mut known = known.into_iter().flat_map(|known| known.representations());
    if let Some(known) =
        known.find(|known| *known.etag.hash() == content.hash && known.length == content.length)
    {
        return known.data.clone();
    }
    match long.get(&content.hash) {
        Some(source) if source.length == content.length => Data::Remote(Arc::clone(source)),
        _ => Data::Remote(depot.source(content.hash, content.length)),
    }
}

fn known_file(file: ListedFile) -> PublishedFile {
    PublishedFile {
        path: file.path,
        text: file.text,
        last_modified: file.modified,
        newest_date: file.newest,
        decoding: file.decoded,
        identity: PublishedContent {
            coding: Coding::Identity,
            hash: *file.hash.as_bytes(),
            length: file.size,
            sha256: file.sha256,
            is_made: false,
        },
        codings: file.codings.iter().map(known_coding).collect(),
    }
}

fn known_coding(coding: &ListedCoding) -> PublishedContent {
    PublishedContent {
        coding: coding.coding,
        hash: *coding.hash.as_bytes(),
        length: coding.size,
        sha256: coding.sha256,
        is_made: coding.is_made,
    }
}

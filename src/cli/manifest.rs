//! `etagd manifest`.

use super::codings::scanner;
use super::scan::{BusyFiles, scan};
use super::{Error, inventory, open, print};
use crate::config::{self, ManifestFormat};
use crate::inventory::{ChangeKind, Head, Inventory, between};
use crate::manifest::Manifest;
use crate::purge::urls;
use crate::scan::Progress;

/// Prints the manifest of a directory, or the URLs that changed since an earlier one.
pub(super) fn manifest(flags: &config::ManifestFlags) -> Result<(), Error> {
    // It may be a pipe, whose writer should not have to wait for the scan.
    let old = flags.diff.as_deref().map(inventory).transpose()?;
    let root = open(&flags.site.directory)?;
    let scanner = scanner(&flags.site.handling, &flags.compression, &root)?;
    let manifest = scan(
        &scanner,
        &root,
        &Progress::default(),
        None,
        || (),
        BusyFiles::Await,
    )?
    .manifest;
    if let Some(old) = old {
        return print_difference(&old, &manifest, flags.format);
    }
    print(|mut out| match (flags.digest, flags.format) {
        (true, _) => writeln!(out, "{}", manifest.digest()),
        (false, ManifestFormat::Text) => manifest.write_text(&mut out),
        (false, ManifestFormat::Json) => manifest.write_json(&mut out),
    })
}

/// The JSON form of `--diff`.
#[derive(serde::Serialize)]
struct ManifestDiff<'a> {
    old: &'a str,
    new: &'a str,
    urls: Vec<ChangedUrl<'a>>,
}

#[derive(serde::Serialize)]
struct ChangedUrl<'a> {
    url: &'a str,
    reason: ChangeKind,
}

/// Prints the URLs to purge from a cache.
fn print_difference(old: &Inventory, new: &Manifest, format: ManifestFormat) -> Result<(), Error> {
    let settings = new.settings();
    let (handling, base_path) = (settings.html_handling, &settings.base_path);
    let new = new.inventory();
    warn_about_site_changes(&old.head, &new.head);
    let urls = urls(&between(old, &new), handling, base_path);
    print(|out| match format {
        ManifestFormat::Text => urls.keys().try_for_each(|url| writeln!(out, "{url}")),
        ManifestFormat::Json => {
            let diff = ManifestDiff {
                old: &old.head.digest,
                new: &new.head.digest,
                urls: (urls.iter())
                    .map(|(url, &reason)| ChangedUrl { url, reason })
                    .collect(),
            };
            serde_json::to_writer(&mut *out, &diff)?;
            writeln!(out)
        }
    })
}

/// Warns about changes that may affect any URL, so that the list of URLs is not enough.
fn warn_about_site_changes(old: &Head, new: &Head) {
    for (name, now, before) in new.other_settings(old) {
        tracing::warn!(
            flag = %name,
            before = %before,
            now = %now,
            "--{name} was {before} and is {now}: any response may differ"
        );
    }
    if new.rules != old.rules {
        tracing::warn!("rules changed: affected redirects are not listed");
    }
    for (name, head) in [("earlier", old), ("new", new)] {
        if !head.complete {
            tracing::warn!(
                manifest = name,
                "the {name} manifest is incomplete: a file could not be read"
            );
        }
    }
}

//! `etagd manifest`.

use super::scan::scan;
use super::{Error, inventory, open, print};
use crate::config::{self, ManifestFormat};
use crate::inventory::{ChangeKind, Head, Inventory, between};
use crate::manifest::Manifest;
use crate::purge::urls;
use crate::scan::{Progress, Scanner};

/// Prints the manifest of a directory, or what is other than in an earlier one.
pub(super) fn manifest(flags: &config::Manifest) -> Result<(), Error> {
    // A pipe that is to be read must not wait for the scan.
    let old = flags.diff.as_deref().map(inventory).transpose()?;
    let root = open(&flags.site.directory)?;
    // Nothing is served, so nothing has to be kept.
    let handling = &flags.site.handling;
    let scanner = Scanner::new(handling.symlinks, handling.settings(), None);
    let manifest = scan(&scanner, &root, &Progress::default(), None, || ())?.manifest;
    if let Some(old) = old {
        return print_difference(&old, &manifest, flags.format);
    }
    print(|mut out| match (flags.digest, flags.format) {
        (true, _) => writeln!(out, "{}", manifest.digest()),
        (false, ManifestFormat::Text) => manifest.write_text(&mut out),
        (false, ManifestFormat::Json) => manifest.write_json(&mut out),
    })
}

/// The URLs that changed, with the reason.
#[derive(serde::Serialize)]
struct Changed<'a> {
    old: &'a str,
    new: &'a str,
    urls: Vec<ChangedUrl<'a>>,
}

#[derive(serde::Serialize)]
struct ChangedUrl<'a> {
    url: &'a str,
    reason: ChangeKind,
}

/// Prints the URLs that a cache should forget.
fn print_difference(old: &Inventory, new: &Manifest, format: ManifestFormat) -> Result<(), Error> {
    let handling = new.settings().html_handling;
    let new = new.inventory();
    warn_of_what_no_path_shows(&old.head, &new.head);
    let urls = urls(&between(old, &new), handling);
    print(|out| match format {
        ManifestFormat::Text => urls.keys().try_for_each(|url| writeln!(out, "{url}")),
        ManifestFormat::Json => {
            let changed = Changed {
                old: &old.head.digest,
                new: &new.head.digest,
                urls: (urls.iter())
                    .map(|(url, &reason)| ChangedUrl { url, reason })
                    .collect(),
            };
            serde_json::to_writer(&mut *out, &changed)?;
            writeln!(out)
        }
    })
}

fn warn_of_what_no_path_shows(old: &Head, new: &Head) {
    for (name, now, before) in new.other_settings(old) {
        tracing::warn!("--{name} was {before} and is {now}: any answer may be another");
    }
    if new.rules != old.rules {
        tracing::warn!("the rules are others: what they redirect is not listed");
    }
    for (name, head) in [("earlier", old), ("new", new)] {
        if !head.complete {
            tracing::warn!("the {name} manifest is incomplete: some file could not be read");
        }
    }
}

//! Finds problems of a site before it is served: bad rules, broken links, stale sidecars,
//! look-alike names.
//!
//! It works on a manifest and on the walk that made it. What etagd would answer to a request comes
//! from [`answer`](crate::answer::answer) itself.

mod destination;
mod finding;
mod links;
mod names;
mod site_rules;

use std::collections::{BTreeSet, HashMap};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use rayon::iter::{IntoParallelIterator, ParallelExtend, ParallelIterator};

use crate::disk::Root;
use crate::inventory::Inventory;
use crate::manifest::Manifest;
use crate::representation::{Data, Resource};
use crate::scan::sidecar::{Unproven, missing_dictionaries, prove};
use crate::scan::{
    DICTIONARIES, Link, LinkVerdict, MAX_LINKS, content_sha256, delta_coding, dictionary_path, stem,
};
use crate::semantics::coding::{Coding, delta_stem};
use crate::settings::Family;
use destination::follow_link;

pub use finding::{Allowance, Code, Finding, InvalidAllowance};

/// A host name for a site that has none yet; `.invalid` never resolves (RFC 2606 section 2).
const HOST: &str = "site.invalid";

/// A site as a scan has found it.
#[derive(Clone, Copy, Debug)]
pub struct ScannedSite<'a> {
    /// Its directory.
    pub root: &'a Root,
    /// What would be served.
    pub manifest: &'a Manifest,
    /// The symbolic links in it.
    pub links: &'a [Link],
    /// What clients may have of it: the manifest of a release that was served.
    pub base: Option<&'a Inventory>,
}

/// All findings, ordered by file and line.
pub fn lint(site: ScannedSite<'_>) -> Vec<Finding> {
    let mut findings: Vec<_> = site_rules::complaints(site.manifest)
        .chain(site_rules::misleading_redirects(site.manifest))
        .chain(site_rules::unused_headers(site.manifest))
        .chain(site_rules::contradictory_caching(site.manifest))
        .chain(site_rules::refused_codings(site.manifest))
        .chain(unreadable(site.manifest))
        .chain(lost_links(site))
        .chain(stale_sidecars(site))
        .chain(unused_deltas(site))
        .chain(changed_immutables(site))
        .chain(names::look_alike(site.manifest))
        .chain(names::foreign_indexes(site.manifest))
        .chain(names::leftovers(site.manifest))
        .chain(names::not_served(site.root, site.manifest.exclusions()))
        .collect();
    let pages: Vec<_> = site
        .manifest
        .iter()
        .filter(|resource| links::has_links(resource))
        .collect();
    findings.par_extend(
        pages
            .into_par_iter()
            .flat_map_iter(|page| broken_links(site, page)),
    );
    findings.sort();
    findings.dedup();
    findings
}

fn unreadable(manifest: &Manifest) -> impl Iterator<Item = Finding> {
    manifest.unreadable().iter().map(|(path, reason)| {
        let reason = match manifest.locate(path) {
            Some(_) => format!("is served without all of its forms: {reason}"),
            None => format!("cannot be read, and is not served: {reason}"),
        };
        Finding::new(path, 0, Code::Unreadable, reason)
    })
}

/// Symbolic links that are not followed.
fn lost_links(site: ScannedSite<'_>) -> impl Iterator<Item = Finding> {
    site.links.iter().filter_map(|link| {
        let target = link.target.as_deref().unwrap_or(Path::new("")).display();
        let (code, reason) = match (link.verdict, &link.target) {
            (LinkVerdict::Followed, _) => return None,
            (LinkVerdict::Excluded, None) => (Code::Symlink, "leads nowhere".to_owned()),
            (LinkVerdict::Excluded, Some(_)) => (
                Code::Symlink,
                format!("leads to {target}, and is not followed (see --symlinks)"),
            ),
            (LinkVerdict::Repeats, _) => (
                Code::SymlinkRepeated,
                format!(
                    "leads to {target} once more, and is not followed here: a link to a folder \
                     above is followed once"
                ),
            ),
            (LinkVerdict::TooDeep, _) => (
                Code::Symlink,
                format!(
                    "leads to {target}, and is not followed: its path leads through {MAX_LINKS} \
                     links already"
                ),
            ),
            (LinkVerdict::TooMuch, _) => (
                Code::Symlink,
                format!(
                    "leads to {target}, and is not followed: links would bring too many files to \
                     the site"
                ),
            ),
        };
        Some(Finding::new(&link.path, 0, code, reason))
    })
}

/// Files that are named like sidecars, and are not used as content codings.
fn stale_sidecars(site: ScannedSite<'_>) -> impl Iterator<Item = Finding> {
    site.manifest.iter().filter_map(move |resource| {
        let original = site.manifest.locate(stem(&resource.path)?)?;
        if delta_stem(&resource.path).is_some() {
            return None;
        }
        let has_extension = |coding: Coding| {
            let extension = coding.extension();
            extension.is_some_and(|it| resource.path.ends_with(it.as_bytes()))
        };
        let from_files = original.encoded.iter().filter(|encoded| !encoded.is_made);
        let mut used = from_files.map(|encoded| encoded.coding());
        if used.any(has_extension) {
            return None;
        }
        let coding = [Coding::Brotli, Coding::Zstd, Coding::Gzip]
            .into_iter()
            .find(|coding| has_extension(*coding))?;
        let reason = match sidecar_problem(site.root, coding, resource, original) {
            Some(problem) => format!("is not used: {problem} (see etagd compress)"),
            None => "is not used (see etagd compress)".to_owned(),
        };
        Some(Finding::new(&resource.path, 0, Code::Sidecar, reason))
    })
}

/// Files that are named like deltas, and are not used. Those whose dictionaries are missing are one
/// finding: a deploy drops the directory of all of them.
fn unused_deltas(site: ScannedSite<'_>) -> Vec<Finding> {
    let is_unused = |delta: &&Arc<Resource>| {
        // That is said already, and nothing else is known.
        if site.manifest.unreadable().contains_key(&delta.path) {
            return false;
        }
        let original = delta_stem(&delta.path).and_then(|stem| site.manifest.locate(stem));
        original.is_some_and(|original| {
            let mut used = original.encoded.iter();
            !used.any(|each| each.etag.hash() == delta.identity.etag.hash())
        })
    };
    let unused: Vec<_> = site.manifest.delta_files().filter(is_unused).collect();
    if unused.is_empty() {
        return Vec::new();
    }
    let mut families: HashMap<Family<'_>, Vec<&Arc<Resource>>> = HashMap::new();
    for file in site.manifest.iter() {
        if let Some(family) = Family::of(&file.path) {
            families.entry(family).or_default().push(file);
        }
    }
    let missing = |delta: &Resource| {
        let hash = delta_coding(delta).ok()?.dictionary()?;
        let family = Family::of(delta_stem(&delta.path)?)?;
        let mut relatives = families.get(&family)?.iter();
        let is_at_hand = site.root.stamp(&dictionary_path(hash)).is_ok()
            || relatives.any(|relative| content_sha256(&relative.identity).ok() == Some(hash));
        (!is_at_hand).then_some(hash)
    };
    let (mut findings, mut dictionaries) = (Vec::new(), BTreeSet::new());
    for delta in &unused {
        match missing(delta) {
            Some(hash) => {
                dictionaries.insert(hash);
            }
            None => {
                let reason = "is not used: it is no delta of its file (see etagd compress --check)";
                findings.push(Finding::new(
                    &delta.path,
                    0,
                    Code::Sidecar,
                    reason.to_owned(),
                ));
            }
        }
    }
    let lacking = unused.len() - findings.len();
    if lacking > 0 {
        let reason = missing_dictionaries(lacking, dictionaries.len());
        findings.push(Finding::new(
            DICTIONARIES.as_bytes(),
            0,
            Code::Sidecar,
            reason,
        ));
    }
    findings
}

/// Files that were served as immutable and have other content now: who has the old one keeps it.
fn changed_immutables(site: ScannedSite<'_>) -> impl Iterator<Item = Finding> {
    let base = site.base.into_iter().flat_map(|base| &base.entries);
    let immutables = base.filter(|entry| entry.coding == Coding::Identity && entry.is_immutable());
    immutables.filter_map(move |entry| {
        let resource = site.manifest.locate(&entry.path)?;
        if resource.identity.etag.hash() == entry.etag.hash() {
            return None;
        }
        let reason = "was immutable and has changed: clients keep the old content for up to a \
                      year; give it a new name";
        let code = Code::ImmutableChanged;
        Some(Finding::new(&entry.path, 0, code, reason))
    })
}

/// Why a sidecar does not stand for its file.
fn sidecar_problem(
    root: &Root,
    coding: Coding,
    sidecar: &Resource,
    original: &Resource,
) -> Option<Unproven> {
    let (identity, _) = original.of_files();
    let proof = |encoded: &mut dyn Read| {
        prove(coding, encoded, identity.etag.hash(), identity.length).err()
    };
    match &sidecar.identity.data {
        Data::Memory(bytes) => proof(&mut &bytes[..]),
        Data::File(source) => match root.open_file(&source.path) {
            Ok(mut opened) => proof(&mut opened.file),
            Err(error) => Some(Unproven::Unreadable(error)),
        },
        Data::Spooled(source) => match source.read(sidecar.identity.length) {
            Ok(bytes) => proof(&mut &bytes[..]),
            Err(error) => Some(Unproven::Unreadable(error)),
        },
        // A directory is looked at, and nothing of it is elsewhere.
        Data::Remote(_) => None,
    }
}

/// The links of a file that lead nowhere.
fn broken_links(site: ScannedSite<'_>, page: &Resource) -> Vec<Finding> {
    let base_path = &site.manifest.settings().base_path;
    match links::page_links(site.root, page, base_path) {
        Ok(links) => links
            .into_iter()
            .filter_map(|link| {
                let problem = follow_link(site.manifest, &link.target).problem()?;
                let reason = format!("links to {}, {problem}", link.target);
                Some(Finding::new(&page.path, link.line, Code::DeadLink, reason))
            })
            .collect(),
        Err(error) => vec![Finding::new(
            &page.path,
            0,
            Code::Unchecked,
            format!("its links were not checked: {error}"),
        )],
    }
}

//! A scan that somebody at a terminal waits for.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use indicatif::{HumanBytes, HumanCount, ProgressBar};

use super::Error;
use super::progress::with_bar;
use crate::disk::Root;
use crate::manifest::Manifest;
use crate::representation::Resource;
use crate::scan::{Link, Progress, Scanner};
use crate::semantics::target::encode_path;
use crate::state::StateFile;
use crate::watch::immutable;

/// Pages link to each next version of everything else; of themselves nobody would see one.
fn warn_of_pinned_pages(manifest: &Manifest) {
    if manifest.settings().immutable.is_empty() {
        return;
    }
    let pages = manifest.iter();
    let pages = pages.filter(|each| each.is_html() && each.is_immutable());
    let (number, first) = pages.fold((0, None), |(number, first), page| {
        let is_before = first.is_none_or(|first: &Arc<Resource>| page.path < first.path);
        (number + 1, if is_before { Some(page) } else { first })
    });
    if let Some(first) = first {
        let path = encode_path(&first.path);
        tracing::warn!(
            "{number} pages are immutable, /{path} for one: who has seen them will not see them \
             change for a year (see --immutable)"
        );
    }
}

/// What a scan has found.
pub(super) struct Scanned {
    pub(super) manifest: Manifest,
    pub(super) links: Vec<Link>,
    /// Whether that is what was saved.
    pub(super) is_saved: bool,
    /// Immutable paths that have other content than what was saved.
    pub(super) broken: Vec<String>,
}

/// Scans with a progress bar, on terminals, and sums up in one line. What was `saved` is not
/// hashed again. The tree itself is looked at when `ready` returns.
///
/// # Errors
/// When the directory itself can't be read: that is no empty site.
pub(super) fn scan(
    scanner: &Scanner,
    root: &Arc<Root>,
    progress: &Progress,
    saved: Option<&StateFile>,
    ready: impl FnOnce(),
) -> Result<Scanned, Error> {
    let started = Instant::now();
    let base = saved.and_then(|saved| load(saved, scanner, root));
    ready();
    let were_saved = base.as_ref().map(Manifest::len);
    let before = base.clone();
    let update = |bar: &ProgressBar| {
        let (files, bytes) = (HumanCount(progress.files()), HumanBytes(progress.bytes()));
        bar.set_message(format!("{files} files, {bytes}"));
    };
    let scan = || match base {
        Some(base) => scanner.scan_from(base, root, progress),
        None => scanner.scan(root, progress),
    };
    let (manifest, links) = with_bar("{spinner} hashing: {msg} in {elapsed}", update, scan);
    let (files, bytes) = (files(&manifest), HumanBytes(manifest.bytes()));
    let (seconds, digest) = (started.elapsed().as_secs_f64(), manifest.digest());
    if let Some(reason) = manifest.unreadable().get(&b""[..]) {
        let path = root.path().to_path_buf();
        return Err(Error::Directory {
            path,
            source: io::Error::other(reason.clone()),
        });
    }
    let unreadable = match manifest.unreadable().len() {
        0 => String::new(),
        number => format!(" ({number} unreadable)"),
    };
    let is_nowhere = |link: &&Link| scanner.excludes(root, link);
    match links.iter().filter(is_nowhere).count() {
        0 => {}
        number => tracing::info!(
            "{number} links are left out: they lead out of the site (see --symlinks), or nowhere"
        ),
    }
    warn_of_pinned_pages(&manifest);
    let hashed = match were_saved {
        None => String::new(),
        Some(_) => format!(", {} hashed anew", HumanCount(progress.files())),
    };
    tracing::info!("{files}{unreadable}, {bytes}, site digest {digest}, {seconds:.2} s{hashed}");
    let before = before.filter(|_| progress.files() > 0);
    let broken = before.map(|before| immutable::broken(&before, manifest.iter()));
    Ok(Scanned {
        broken: broken.unwrap_or_default(),
        is_saved: were_saved == Some(manifest.len()) && progress.files() == 0,
        manifest,
        links,
    })
}

/// What an earlier process has saved, if it is of any use.
fn load(saved: &StateFile, scanner: &Scanner, root: &Arc<Root>) -> Option<Manifest> {
    let why = match saved.load(scanner, root) {
        Ok(manifest) => return manifest,
        Err(why) => why,
    };
    let file = saved.path().display();
    if why.is_expected() {
        tracing::info!("{file} is not used, all files are hashed: {why}");
    } else {
        tracing::warn!("{file} is not used, all files are hashed: {why}");
    }
    None
}

/// How many files a site has, in words.
pub(super) fn files(manifest: &Manifest) -> String {
    match manifest.len() {
        1 => "1 file".to_owned(),
        number => format!("{} files", HumanCount(number as u64)),
    }
}

//! A scan that somebody may wait for at a terminal: a progress bar, and one line at the end.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, ProgressBar};

use super::progress::with_bar;
use super::{Error, counted};
use crate::disk::Root;
use crate::manifest::{Manifest, ancestors};
use crate::rules::RuleFile;
use crate::scan::{FirstLook, Link, LinkVerdict, MAX_LINKS, Progress, Scanner, warn_limited};
use crate::semantics::target::encode_path;
use crate::state::StateFile;
use crate::watch::immutable;

/// What a scan has found.
pub(super) struct Scanned {
    pub(super) manifest: Manifest,
    pub(super) links: Vec<Link>,
    /// Files that were left out because another process is writing them.
    pub(super) busy: Vec<Box<[u8]>>,
    /// Whether the saved manifest lists just this.
    pub(super) is_saved: bool,
    /// Immutable paths with other content than in the saved manifest.
    pub(super) broken: Vec<String>,
}

/// What to do about files that another process is writing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BusyFiles {
    /// Wait for a while, and take them as they are then.
    Await,
    /// Leave them to the watcher: a log that is always open must not delay a server.
    Leave,
}

/// Scans with a progress bar, on terminals, and sums up in one line. Files that are as in the
/// `saved` manifest are not hashed again. The tree is looked at once `wait_until_armed` returns.
///
/// # Errors
/// When the directory itself can't be read: that is no empty site.
pub(super) fn scan(
    scanner: &Scanner,
    root: &Arc<Root>,
    progress: &Progress,
    saved: Option<&StateFile>,
    wait_until_armed: impl FnOnce(),
    writers: BusyFiles,
) -> Result<Scanned, Error> {
    let started = Instant::now();
    let base = saved.and_then(|saved| load(saved, scanner, root));
    wait_until_armed();
    let before = base.clone();
    let update = |bar: &ProgressBar| {
        let (files, bytes) = (progress.files(), HumanBytes(progress.bytes()));
        let compression = scanner.compression();
        match compression.and_then(|it| it.percent()) {
            Some(percent) => bar.set_message(format!("compressing: {percent} %")),
            None => bar.set_message(format!("hashing: {}, {bytes}", counted(files, "file"))),
        }
    };
    let work = || {
        let base = base.unwrap_or_else(|| scanner.empty());
        match writers {
            BusyFiles::Await => {
                let (manifest, links) = scanner.scan_from(base, root, progress);
                FirstLook {
                    manifest,
                    links,
                    busy: Vec::new(),
                }
            }
            BusyFiles::Leave => scanner.scan_at_once(base, root, progress),
        }
    };
    let FirstLook {
        manifest,
        links,
        busy,
    } = with_bar("{spinner} {msg} in {elapsed}", update, work);
    // The empty path is the root itself.
    if let Some(reason) = manifest.unreadable().get(&b""[..]) {
        return Err(Error::Directory {
            path: root.path().to_path_buf(),
            source: io::Error::other(reason.clone()),
        });
    }
    // Rules of other kinds are missed by their readers; without this one what was to be left out would
    // be public. While the site is served, the patterns that it had stay.
    if let Some(reason) = manifest
        .unreadable()
        .get(RuleFile::Ignore.name().as_bytes())
    {
        return Err(Error::ignore_file(root, io::Error::other(reason.clone())));
    }
    report_skipped(root.path(), &links);
    warn_about_immutable_pages(&manifest);
    warn_about_packages(&manifest);
    let hashed = before.is_some().then(|| progress.files());
    let unreadable = manifest.unreadable().len() - busy.len();
    summarize(&manifest, unreadable, hashed, started.elapsed());

    let is_complete = before.as_ref().map(Manifest::len) == Some(manifest.len());
    let broken = before
        .filter(|_| progress.files() > 0)
        .map(|before| immutable::broken(&before, manifest.iter()));
    Ok(Scanned {
        broken: broken.unwrap_or_default(),
        is_saved: is_complete && progress.files() == 0,
        manifest,
        links,
        busy,
    })
}

/// Says which links are not followed, and why.
fn report_skipped(root: &Path, links: &[Link]) {
    let count = |verdict| links.iter().filter(|link| link.verdict == verdict).count();
    match count(LinkVerdict::Excluded) {
        0 => {}
        1 => tracing::info!(
            links = 1,
            "skipped 1 symlink that is broken or leaves the site (see --symlinks)"
        ),
        links => tracing::info!(
            links,
            "skipped {links} symlinks that are broken or leave the site (see --symlinks)"
        ),
    }
    let repeating = count(LinkVerdict::Repeats);
    let first = links
        .iter()
        .filter(|link| link.verdict == LinkVerdict::Repeats)
        .map(|link| &link.path)
        .min();
    if let Some(first) = first {
        let path = format!("/{}", encode_path(first));
        let subject = match repeating {
            1 => format!("skipped {path}, which leads"),
            _ => format!("skipped {repeating} symlinks, such as {path}, which lead"),
        };
        tracing::info!(
            links = repeating,
            path,
            "{subject} to a folder above once more: such a link is followed once"
        );
    }
    let deep = count(LinkVerdict::TooDeep);
    if deep > 0 {
        tracing::info!(
            links = deep,
            "skipped {} behind {MAX_LINKS} others: a path may lead through so many",
            counted(deep as u64, "symlink")
        );
    }
    let limited = links
        .iter()
        .filter(|link| link.verdict == LinkVerdict::TooMuch);
    warn_limited(root, limited.map(|link| &*link.path));
}

/// Pages link to new versions of everything else, but nothing links to a new version of a page: a
/// browser that has an immutable page shows that one until its cache lets go of it.
fn warn_about_immutable_pages(manifest: &Manifest) {
    if manifest.settings().immutable.is_empty() {
        return;
    }
    let mut paths: Vec<_> = manifest
        .iter()
        .filter(|resource| resource.is_html() && resource.is_immutable())
        .map(|resource| &resource.path)
        .collect();
    paths.sort_unstable();
    let Some(first) = paths.first() else {
        return;
    };
    let (pages, path) = (paths.len(), encode_path(first));
    let subject = match pages {
        1 => format!("1 page is immutable, /{path}"),
        _ => format!("{pages} pages are immutable, such as /{path}"),
    };
    tracing::warn!(
        pages,
        path = format!("/{path}"),
        "{subject}: browsers do not see a change for up to a year (see --immutable)"
    );
}

/// npm's packages are hardly meant to be served: they are thousands of files that nobody has read.
fn warn_about_packages(manifest: &Manifest) {
    let is_package = |path: &[u8]| {
        let mut folders = ancestors(path);
        folders.any(|above| above.rsplit(|byte| *byte == b'/').next() == Some(b"node_modules"))
    };
    let files = manifest
        .iter()
        .filter(|file| is_package(&file.path))
        .count();
    if files > 0 {
        tracing::warn!(
            files,
            "{} below node_modules {} served: leave it out with --exclude node_modules, or with that \
             line in .etagdignore",
            counted(files as u64, "file"),
            if files == 1 { "is" } else { "are" },
        );
    }
}

/// One line about the site. `hashed` is the number of files that were not as in the saved manifest.
fn summarize(manifest: &Manifest, unreadable: usize, hashed: Option<u64>, elapsed: Duration) {
    let (files, bytes) = (manifest.len(), manifest.bytes());
    let digest = manifest.digest();
    let seconds = elapsed.as_secs_f64();
    let unreadable_part = match unreadable {
        0 => String::new(),
        number => format!(" ({number} unreadable)"),
    };
    let hashed_part = match hashed {
        None => String::new(),
        Some(number) => format!(", {} rehashed", HumanCount(number)),
    };
    tracing::info!(
        files,
        unreadable,
        bytes,
        %digest,
        seconds,
        hashed,
        "{}{unreadable_part}, {}, site digest {digest}, {seconds:.2} s{hashed_part}",
        counted(files, "file"),
        HumanBytes(bytes)
    );
}

/// The manifest that an earlier process has saved, if it can be used.
fn load(saved: &StateFile, scanner: &Scanner, root: &Arc<Root>) -> Option<Manifest> {
    let reason = match saved.load(scanner, root) {
        Ok(manifest) => return manifest,
        Err(reason) => reason,
    };
    let path = saved.path().display();
    if reason.is_expected() {
        tracing::info!(%path, error = %reason, "{path} is not used, all files are hashed: {reason}");
    } else {
        tracing::warn!(%path, error = %reason, "{path} is not used, all files are hashed: {reason}");
    }
    None
}

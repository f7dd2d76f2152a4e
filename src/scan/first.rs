//! The first scan of a site, at a start: it waits for what is being written and for what can't be looked
//! at now, but not for ever.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::error_page;
use super::outcome::{FoundChanges, ScanOutcome};
use super::pass::Pass;
use super::scope::{Scope, Unsettled};
use super::site_path::join;
use super::walk::Link;
use super::{BEING_WRITTEN, MAX_SETTLE_TIME, Progress, Scanner, report_rules};
use crate::disk::Root;
use crate::manifest::{Changes, Manifest};
use crate::rules::RuleFile;

/// How long a start waits for what can't be looked at, before it serves the site without that.
pub const MAX_START_WAIT: Duration = Duration::from_secs(30);

/// The result of a first scan.
#[derive(Debug)]
pub struct FirstLook {
    /// The first state of the site.
    pub manifest: Manifest,
    /// All symbolic links of the site.
    pub links: Vec<Link>,
    /// Files that were left out because another process is writing them.
    pub busy: Vec<Box<[u8]>>,
}

impl Scanner {
    /// Scans the whole site for the first time. Waits up to [`MAX_SETTLE_TIME`] for files that are
    /// being written, and [`MAX_START_WAIT`] for what can't be looked at now. Returns the manifest
    /// and all symbolic links of the site.
    pub fn scan(&self, root: &Arc<Root>, progress: &Progress) -> (Manifest, Vec<Link>) {
        self.scan_from(self.empty(), root, progress)
    }

    /// Scans as [`Scanner::scan`] does, without reading files that are as an earlier process left
    /// them in `base`, which [`Scanner::restore`] has made.
    pub fn scan_from(
        &self,
        base: Manifest,
        root: &Arc<Root>,
        progress: &Progress,
    ) -> (Manifest, Vec<Link>) {
        let rules_before = Arc::clone(base.rules());
        let first = self.first_look(base, root, progress);
        let manifest = self.wait_for_writers(first.manifest, root, first.busy, progress);
        report_rules(manifest.rules(), &rules_before);
        (manifest, first.links)
    }

    /// Scans as [`Scanner::scan_from`] does, but waits only for rules that are being written: they
    /// are about every file. Other files that are being written are left out, and the digest says
    /// that the site is incomplete until a later pass finds them at rest.
    pub fn scan_at_once(&self, base: Manifest, root: &Arc<Root>, progress: &Progress) -> FirstLook {
        let rules_before = Arc::clone(base.rules());
        let first = self.first_look(base, root, progress);
        let (rules, busy): (Vec<_>, Vec<_>) = first
            .busy
            .into_iter()
            .partition(|path| RuleFile::named(path).is_some());
        let manifest = self.wait_for_writers(first.manifest, root, rules, progress);
        report_rules(manifest.rules(), &rules_before);
        error_page::report(&manifest, None);
        report_busy(root, &busy, "publishing the rest without");
        FirstLook {
            manifest: self.without(manifest, root, &busy, progress),
            links: first.links,
            busy,
        }
    }

    fn first_look(&self, base: Manifest, root: &Arc<Root>, progress: &Progress) -> FirstLook {
        let scope = error_page::first_scope(&base);
        let outcome = self.compare(&Pass {
            is_start: true,
            ..Pass::new(root, &base, &scope, Unsettled::Report, progress)
        });
        let first = FirstLook {
            manifest: base.with(outcome.changes),
            links: outcome.links,
            busy: outcome.busy,
        };
        self.retry(first, outcome.not_now, root, progress)
    }

    /// Adds to a first scan what could not be looked at, as soon as that works, or not at all after
    /// [`MAX_START_WAIT`].
    fn retry(
        &self,
        mut first: FirstLook,
        mut not_now: BTreeMap<Box<[u8]>, io::Error>,
        root: &Arc<Root>,
        progress: &Progress,
    ) -> FirstLook {
        let (started, mut pause) = (Instant::now(), Duration::from_millis(20));
        report_not_now(root, &not_now, "trying again for half a minute");
        while !not_now.is_empty() && started.elapsed() < MAX_START_WAIT {
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_secs(1));
            let scope = Scope::of(not_now.into_keys().collect());
            let outcome = self.compare(&Pass {
                is_start: true,
                ..Pass::new(root, &first.manifest, &scope, Unsettled::Report, progress)
            });
            first.manifest = first.manifest.with(outcome.changes);
            first.links.extend(outcome.links);
            first.busy.extend(outcome.busy);
            not_now = outcome.not_now;
        }
        report_not_now(root, &not_now, "left out until a sweep can read it");
        first
    }

    /// Adds the `busy` files to a first manifest as soon as nobody writes to them any more, or as
    /// they are after [`MAX_SETTLE_TIME`].
    fn wait_for_writers(
        &self,
        mut manifest: Manifest,
        root: &Arc<Root>,
        mut busy: Vec<Box<[u8]>>,
        progress: &Progress,
    ) -> Manifest {
        let (started, mut pause) = (Instant::now(), Duration::from_millis(20));
        report_busy(root, &busy, "waiting for");
        while !busy.is_empty() {
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_secs(1));
            let unsettled = if started.elapsed() >= MAX_SETTLE_TIME {
                Unsettled::Publish
            } else {
                Unsettled::Report
            };
            let scope = Scope::of(busy.into_iter().collect());
            let outcome = self.compare(&Pass {
                is_start: true,
                ..Pass::new(root, &manifest, &scope, unsettled, progress)
            });
            manifest = manifest.with(outcome.changes);
            busy = outcome.busy;
        }
        manifest
    }

    /// A first manifest without these files, which are being written: what an earlier process has saved
    /// of them can't be sent by this one. Nothing that follows from them stays behind, for they may be
    /// gone before the next look, which would find nothing to remove.
    fn without(
        &self,
        manifest: Manifest,
        root: &Arc<Root>,
        busy: &[Box<[u8]>],
        progress: &Progress,
    ) -> Manifest {
        if busy.is_empty() {
            return manifest;
        }
        let removed = busy.iter().filter(|path| manifest.locate(path).is_some());
        let marks = busy
            .iter()
            .cloned()
            .map(|path| (path, BEING_WRITTEN.to_owned()));
        let unreadable = manifest
            .unreadable()
            .clone()
            .into_iter()
            .chain(marks)
            .collect();
        let changes = Changes {
            removed: removed.cloned().collect(),
            unreadable,
            ..Changes::default()
        };
        let mut outcome = ScanOutcome {
            found: FoundChanges {
                changes,
                rules: Vec::new(),
            },
            ..ScanOutcome::default()
        };
        let scope = Scope::Paths(busy.iter().cloned().collect());
        let pass = Pass {
            is_start: true,
            dropped: Some(&scope),
            ..Pass::new(root, &manifest, &scope, Unsettled::Report, progress)
        };
        self.derive(&pass, &mut outcome);
        manifest.with(outcome.changes)
    }
}

/// Says what can't be looked at at a start, and what is done about it.
fn report_not_now(root: &Root, not_now: &BTreeMap<Box<[u8]>, io::Error>, consequence: &str) {
    if let Some((first, reason)) = not_now.first_key_value() {
        let first = join(root.path(), first);
        let (first, count) = (first.display(), not_now.len());
        tracing::warn!(
            path = %first, error = %reason, count,
            "cannot look at {first} now: {reason}: {consequence}"
        );
    }
}

/// Says which files another process is writing at a start, and what is done about it.
fn report_busy(root: &Root, busy: &[Box<[u8]>], consequence: &str) {
    let Some(first) = busy.first() else {
        return;
    };
    let first = join(root.path(), first);
    let first = first.display();
    let others = match busy.len() - 1 {
        0 => String::new(),
        others => format!(" and {others} more"),
    };
    tracing::info!(
        path = %first,
        count = busy.len(),
        "{consequence} {first}{others}, which another process is writing"
    );
}

//! From what a look has found to what is published: a release decides what may be, and what nobody
//! can be answered any more is closed.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::immutable;
use crate::manifest::{Changes, Manifest};
use crate::metrics::Metrics;
use crate::release::Release;
use crate::representation::Resource;
use crate::scan::{self, Progress, Scanner};
use crate::site::Site;

/// Publishes what may be published.
pub(super) struct Publisher {
    pub(super) site: Arc<Site>,
    pub(super) scanner: Arc<Scanner>,
    pub(super) metrics: Arc<Metrics>,
    /// Where there is one, only what is in it is published, and only when the tree proves it.
    pub(super) release: Option<Release>,
    /// How long a path that is gone is still answered, if at all.
    pub(super) keep_old: Option<Duration>,
    /// Whether pages are, too.
    pub(super) keep_pages: bool,
    /// The progress of the looks at the disk.
    pub(super) progress: Progress,
}

impl Publisher {
    /// What is published.
    pub(super) fn current(&self) -> Arc<Manifest> {
        Arc::clone(&self.site.current())
    }

    /// What was on disk at the last look: with a release, more than what is published. Given is
    /// what is published.
    pub(super) fn on_disk<'a>(&'a self, current: &'a Manifest) -> &'a Manifest {
        self.release.as_ref().map_or(current, Release::tree)
    }

    /// Reads the list of the release again if its file has changed, or `always`. Returns whether it
    /// lists another release, so that the whole site has to be compared with it.
    pub(super) fn reload_release(&mut self, always: bool) -> bool {
        let Some(release) = &mut self.release else {
            return false;
        };
        release.report_delayed();
        release.reload(always)
    }

    /// Publishes changes, or as much of them as the release admits.
    pub(super) fn publish(&mut self, changes: Changes, now: Instant) {
        let current = self.current();
        self.scanner.forget_published(&changes.changed);
        let admitted = match &mut self.release {
            Some(release) => release.admit(changes, &current, &self.scanner),
            None => Some(changes),
        };
        if let Some(changes) = admitted {
            let changes = Changes {
                keep_until: self.keep_old.map(|keep| now + keep),
                keep_pages: self.keep_pages,
                ..changes
            };
            self.publish_admitted(changes, &current);
        }
    }

    fn publish_admitted(&self, changes: Changes, before: &Manifest) {
        let outdated = outdated(&changes, before);
        let broken = immutable::broken(before, &changes.changed);
        let started = Instant::now();
        let publication = self.site.update(|_| Some(changes));
        let spent = started.elapsed();
        self.scanner.close(&outdated);
        scan::report_rules(self.site.current().rules(), before.rules());
        scan::report_error_page(&self.site.current(), Some(before));
        if let Some(publication) = publication {
            self.metrics.publishing.observe(spent);
            self.metrics.publications.increment();
            tracing::info!(
                changed = publication.changed,
                removed = publication.removed,
                folders = publication.folders,
                new_rules = publication.has_new_rules,
                digest = %publication.digest,
                "{publication}"
            );
            immutable::warn(&broken, &self.metrics);
        }
    }

    /// Closes the files that were kept open for these resources, which a look has found, as far as they
    /// are not what is known to be on disk now. The next look keeps what it finds itself: a version
    /// that nobody will be sent would take up the disk when another has replaced it.
    pub(super) fn close_unpublished(&self, found: &[Arc<Resource>]) {
        let current = self.current();
        let on_disk = self.on_disk(&current);
        for new in found {
            let known = on_disk.locate(&new.path).map(|known| &**known);
            self.scanner.close_unpublished(new, known);
        }
    }

    /// Wakes the requests that wait for a look at the disk: they see what there is now.
    pub(super) fn announce_look(&self) {
        self.site.announce_look();
    }

    /// Forgets removed resources whose time is over.
    pub(super) fn forget_expired(&self, now: Instant) {
        self.forget(|old, until| (until > now).then(|| Arc::clone(old)));
    }

    /// Forgets those removed resources that are read from a file that has changed: they can't be proven.
    pub(super) fn forget_unproven(&self, file: &Path) {
        self.forget(|old, _| old.without_file(file));
    }

    /// Forgets what a deploy has left of a path.
    pub(super) fn forget_path(&self, path: &[u8]) {
        self.forget(|old, _| (*old.path != *path).then(|| Arc::clone(old)));
    }

    fn forget(&self, keep: impl Fn(&Arc<Resource>, Instant) -> Option<Arc<Resource>>) {
        let forgotten = self.site.forget(keep);
        self.scanner.close(&forgotten);
    }
}

/// The resources of `before` that no request can be answered with once these changes are published.
fn outdated(changes: &Changes, before: &Manifest) -> Vec<Arc<Resource>> {
    let replaced = changes.changed.iter().filter_map(|new| {
        let old = before
            .locate(&new.path)
            .or_else(|| before.locate_retired(&new.path))?;
        (old.identity.etag.hash() != new.identity.etag.hash()).then_some(old)
    });
    let is_kept = |old: &Resource| {
        changes.keep_until.is_some() && (changes.keep_pages || !before.is_page(old))
    };
    let removed = changes
        .removed
        .iter()
        .filter_map(|path| before.locate(path))
        .filter(|old| !is_kept(old));
    replaced.chain(removed).cloned().collect()
}

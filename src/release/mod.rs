//! A release (`--manifest`): the manifest that a build has made, and a tree of files that must match it
//! before it is published.
//!
//! Replicas get a deploy at different times and one file after another. With the list of what the
//! deploy should be, a replica publishes all of it at once, or nothing: while the tree differs from the
//! list (a copy that is half done, a file that was changed on this replica alone), what was published
//! before stays. Files that are not listed are never published. The watcher keeps [`Release::tree`]
//! equal to the disk, and publishes what [`Release::admit`] returns.

mod proof;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::disk::Stamp;
use crate::inventory::{Inventory, InventoryError};
use crate::manifest::{Changes, Manifest};
use crate::metrics::Metrics;
use crate::readiness::Readiness;
use crate::representation::{Representation, Resource};
use crate::scan::Scanner;
use crate::settings::Settings;
use proof::{Faults, Proven, prove};

/// Limit for the faults that are reported at once.
const MAX_SHOWN: usize = 20;
/// Minimum time between two reports of how far a copy has come.
const MIN_REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// Why the file of `--manifest` can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// It can't be read.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    /// There would be nothing to serve.
    #[error("the manifest {} lists no file: make it from the site that was built", .0.display())]
    Empty(PathBuf),
    /// It does not list every file.
    #[error(
        "the manifest {} is incomplete: some file could not be read when it was made; make it again",
        .0.display()
    )]
    Incomplete(PathBuf),
}

/// What a replica has to serve, and what it has on disk.
#[derive(Debug)]
pub struct Release {
    file: PathBuf,
    /// The metadata of `file` when it was last read, whether that succeeded or not.
    stamp: Option<Stamp>,
    inventory: Inventory,
    tree: Manifest,
    /// Whether the tree or the inventory has changed since they were last compared.
    is_unchecked: bool,
    reported: Reported,
    /// Whether there are faults that were found too soon after the last report to be in one.
    is_report_delayed: bool,
    is_published: bool,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
}

/// What was last reported to the operator about the present inventory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reported {
    Nothing,
    /// The tree matches it.
    Proven,
    /// The tree does not match it; reported at this time.
    Unproven(Instant),
}

impl Release {
    /// Reads what is to be served, before anything is known of the tree.
    ///
    /// # Errors
    /// When `file` is not a complete manifest of something.
    pub fn open(
        file: PathBuf,
        settings: Arc<Settings>,
        metrics: Arc<Metrics>,
        readiness: Arc<Readiness>,
    ) -> Result<Self, ReleaseError> {
        Ok(Self {
            stamp: stamp(&file),
            inventory: read(&file)?,
            file,
            tree: Manifest::empty(settings),
            is_unchecked: true,
            reported: Reported::Nothing,
            is_report_delayed: false,
            is_published: false,
            metrics,
            readiness,
        })
    }

    /// Takes over the tree that the first scan has found. Returns the state to begin with, if the tree
    /// matches the list.
    pub fn begin(&mut self, tree: Manifest, scanner: &Scanner) -> Option<Manifest> {
        self.tree = tree;
        let changes = self.judge(None, scanner)?;
        Some(self.tree.with(changes))
    }

    /// What is on disk, listed or not.
    pub fn tree(&self) -> &Manifest {
        &self.tree
    }

    /// Reads the file again if its metadata have changed, or `always`. Returns whether it lists another
    /// release now. If the file can't be used, the release stays as it is.
    pub fn reload(&mut self, always: bool) -> bool {
        let now = stamp(&self.file);
        if now == self.stamp && !always {
            return false;
        }
        self.stamp = now;
        let inventory = match read(&self.file) {
            Ok(inventory) => inventory,
            Err(error) => {
                tracing::warn!(
                    manifest = %self.file.display(), %error,
                    "{error}; what it listed before stays in force"
                );
                return false;
            }
        };
        let is_new = inventory.head != self.inventory.head;
        if is_new {
            let (file, digest) = (self.file.display(), &inventory.head.digest);
            tracing::info!(manifest = %file, %digest, "{file} now lists another release: {digest}");
            self.inventory = inventory;
            self.is_unchecked = true;
            self.reported = Reported::Nothing;
        }
        is_new
    }

    /// Reports faults that were found too soon after the last report, once it is time.
    pub fn report_delayed(&mut self) {
        if self.is_report_delayed
            && self.may_report()
            && let Err(faults) = prove(&self.inventory, &self.tree, MAX_SHOWN)
        {
            self.reject(&faults);
        }
    }

    /// Applies `changes` to the tree. Returns what turns `published` into the listed state, if the tree
    /// matches the list and something that matters has changed.
    pub fn admit(
        &mut self,
        changes: Changes,
        published: &Manifest,
        scanner: &Scanner,
    ) -> Option<Changes> {
        if !changes.changes_nothing_in(&self.tree) {
            self.is_unchecked |= self.concerns(&changes);
            self.tree = self.tree.with(changes);
        }
        self.judge(Some(published), scanner)
    }

    /// Whether changes touch anything that is listed.
    fn concerns(&self, changes: &Changes) -> bool {
        let changed = changes.changed.iter().map(|new| &new.path);
        let mut paths = changed.chain(&changes.removed);
        let mut folders = changes.new_folders.iter().chain(&changes.removed_folders);
        changes.rules.is_some()
            || changes.unreadable != *self.tree.unreadable()
            || changes.without_codings != *self.tree.without_codings()
            || paths.any(|path| self.inventory.has(path))
            || folders.any(|folder| self.inventory.has_empty_folder(folder))
    }

    /// Compares the tree with the inventory, unless nothing has changed since. If they match, returns
    /// what turns `published`, or else the tree, into the listed state.
    fn judge(&mut self, published: Option<&Manifest>, scanner: &Scanner) -> Option<Changes> {
        if !std::mem::take(&mut self.is_unchecked) {
            return None;
        }
        match prove(&self.inventory, &self.tree, MAX_SHOWN) {
            Ok(proven) => {
                self.accept(&proven);
                let base = published.unwrap_or(&self.tree);
                let rules = Arc::clone(self.tree.rules());
                let have_rules_changed = rules.hash() != base.rules().hash();
                let mut changes = Changes {
                    rules: have_rules_changed.then_some(rules),
                    ..changes(base, proven, &self.inventory)
                };
                // What is not listed is a file of the tree, and none of a family.
                scanner.choose_dictionaries(base, &mut changes);
                Some(changes)
            }
            Err(faults) => {
                self.reject(&faults);
                None
            }
        }
    }

    fn accept(&mut self, proven: &Proven) {
        let (file, files) = (self.file.display(), proven.resources.len());
        if self.reported != Reported::Proven {
            tracing::info!(manifest = %file, files, "all files match {file}");
            let unlisted = proven.unlisted;
            match unlisted {
                0 => {}
                1 => tracing::info!(
                    manifest = %file, unlisted,
                    "1 file is not in {file}: it is not served"
                ),
                _ => tracing::info!(
                    manifest = %file, unlisted,
                    "{unlisted} files are not in {file}: they are not served"
                ),
            }
            for (name, here, there) in self.tree.head().other_settings(&self.inventory.head) {
                tracing::warn!(
                    manifest = %file, flag = %name, here, there,
                    "--{name} is {here} here and {there} in {file}: the site digests differ"
                );
            }
        }
        self.reported = Reported::Proven;
        self.is_report_delayed = false;
        self.metrics.release_faults.store(0, Ordering::Relaxed);
        self.is_published = true;
        self.readiness.explain(None);
    }

    fn reject(&mut self, faults: &Faults) {
        let (file, count) = (self.file.display(), faults.count);
        let summary = match count {
            1 => format!("1 entry of {file} is not what is on disk"),
            _ => format!("{count} entries of {file} are not what is on disk"),
        };
        if !self.is_published {
            let first = faults
                .shown
                .first()
                .map(ToString::to_string)
                .unwrap_or_default();
            self.readiness.explain(Some(format!("{summary}: {first}")));
        }
        self.metrics
            .release_faults
            .store(count as u64, Ordering::Relaxed);
        self.is_report_delayed = !self.may_report();
        if self.is_report_delayed {
            return;
        }
        let is_known = matches!(self.reported, Reported::Unproven(_));
        if !is_known {
            // Where a coding is not made, it is missing from each of a thousand files.
            for (name, here, there) in self.tree.head().other_settings(&self.inventory.head) {
                tracing::warn!(
                    manifest = %file, flag = %name, here, there,
                    "--{name} is {here} here and {there} in {file}: start with the flags that it was \
                     made with"
                );
            }
        }
        // While a site is copied there are many faults for a long time: their number is enough.
        if !is_known || count <= MAX_SHOWN {
            for fault in &faults.shown {
                tracing::warn!(manifest = %file, path = fault.path(), "not as listed: {fault}");
            }
        }
        if is_known {
            tracing::warn!(manifest = %file, faults = count, "still {summary}");
        } else {
            self.metrics.release_mismatches.increment();
            let stays = match self.is_published {
                true => "the last good state stays",
                false => "not ready until they match",
            };
            tracing::warn!(manifest = %file, faults = count, "{summary}: {stays}");
        }
        self.reported = Reported::Unproven(Instant::now());
    }

    /// Whether the last report of faults is long enough ago for another one.
    fn may_report(&self) -> bool {
        !matches!(self.reported, Reported::Unproven(at) if at.elapsed() < MIN_REPORT_INTERVAL)
    }
}

/// The changes that turn `base` into the proven state.
fn changes(base: &Manifest, proven: Proven, inventory: &Inventory) -> Changes {
    let (mut known, mut changed) = (0, Vec::new());
    for resource in proven.resources {
        let old = base.locate(&resource.path);
        known += usize::from(old.is_some());
        if !old.is_some_and(|old| is_known(old, &resource)) {
            changed.push(resource);
        }
    }
    let others = base.iter().filter(|old| !inventory.has(&old.path));
    let removed = match base.len() - known {
        0 => Vec::new(),
        _ => others.map(|old| old.path.clone()).collect(),
    };
    let listed = proven.empty_folders.iter();
    let new_folders = listed.filter(|folder| !base.has_folder(folder)).cloned();
    let others = base
        .folders()
        .filter(|folder| !inventory.has_empty_folder(folder));
    Changes {
        changed,
        removed,
        removed_folders: others.map(Box::from).collect(),
        new_folders: new_folders.collect(),
        without_codings: proven.without_codings,
        ..Changes::default()
    }
}

/// Whether a resource is published already: the same content, read from the same file. Its fields and
/// tags follow from these and from the rules.
fn is_known(old: &Arc<Resource>, new: &Arc<Resource>) -> bool {
    let is_same = |(old, new): (&Representation, &Representation)| {
        old.coding() == new.coding()
            && old.etag == new.etag
            && old.data.has_same_location(&new.data)
    };
    Arc::ptr_eq(old, new)
        || old.stamp == new.stamp
            && old.last_modified == new.last_modified
            && old.fields == new.fields
            && old.encoded.len() == new.encoded.len()
            && old
                .representations()
                .zip(new.representations())
                .all(is_same)
}

fn stamp(file: &Path) -> Option<Stamp> {
    rustix::fs::stat(file).ok().map(|stat| Stamp::from(&stat))
}

fn read(file: &Path) -> Result<Inventory, ReleaseError> {
    let name = file.display();
    let opened = File::open(file).map_err(|source| InventoryError::unreadable(&name, source))?;
    let inventory = Inventory::read(name, opened)?;
    if inventory.entries.is_empty() {
        return Err(ReleaseError::Empty(file.to_owned()));
    }
    if !inventory.head.complete {
        return Err(ReleaseError::Incomplete(file.to_owned()));
    }
    Ok(inventory)
}

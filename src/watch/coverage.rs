//! What is watched: the root but for what is excluded, where links lead, what is mounted within; and
//! which of it is blind, so that only sweeps find what changes there.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{io, mem};

use walkdir::WalkDir;

use super::source::{ChangeSource, WatchError};
use crate::disk::{self, MountTable, Root};
use crate::exclude::{ExcludePatterns, Exclusions};
use crate::metrics::Metrics;
use crate::rules::RuleFile;
use crate::scan::{self, Link, LinkVerdict, Scope, TreeSize};
use crate::staging;

/// While a file with this name is in the root, nothing is published.
pub const HOLD_FILE: &str = ".etagd-hold";
/// Limit for the links on the way to the root that are followed, as in the kernel
/// (`path_resolution(7)`).
const MAX_ROOT_LINKS: usize = 40;
/// Limit for the sweeps that pass before it is tried again to watch what could not be watched.
const MAX_SKIPPED_SWEEPS: u32 = 15;

/// Whether the root is still the directory it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RootState {
    /// It is.
    Same,
    /// It is another one, which is watched from here on.
    Replaced,
    /// It is not there, or being replaced at this moment.
    Missing,
}

/// When to try again to watch what could not be watched. Each try watches the whole site
/// again, so it is not made before every sweep while the limit stays reached.
#[derive(Clone, Copy, Debug)]
struct WatchRetry {
    /// Sweeps that are let pass before the next try.
    wait: u32,
    /// Sweeps that were let pass before this one.
    pause: u32,
}

/// What is watched, and which parts of it report nothing.
pub(super) struct Coverage {
    /// The site's directory as it was given: it may be a link, and lead elsewhere later.
    directory: PathBuf,
    root: Arc<Root>,
    /// The operator's patterns.
    exclude: Arc<ExcludePatterns>,
    /// What is not watched: that which the scan leaves out.
    exclusions: Exclusions,
    source: Box<dyn ChangeSource>,
    metrics: Arc<Metrics>,
    links: Vec<Link>,
    /// What the site had at the last look at all of it, and what looks at parts have met since.
    size: TreeSize,
    mount_table: MountTable,
    /// What is mounted within the site.
    mounts: BTreeSet<PathBuf>,
    /// The mounts and the targets of links that report nothing.
    blind_places: BTreeSet<PathBuf>,
    /// Whether something below the root itself reports nothing.
    is_blind: bool,
    has_new_failure: bool,
    /// Whether it is not known any more what is watched: events were lost, or something was
    /// mounted or unmounted.
    is_uncertain: bool,
    /// What could not be watched is tried again, if there is any.
    retry: Option<WatchRetry>,
    is_root_missing: bool,
    is_held: bool,
}

impl Coverage {
    /// Watches `root`, to which `directory` leads.
    pub(super) fn new(
        source: Box<dyn ChangeSource>,
        directory: PathBuf,
        root: Arc<Root>,
        exclude: Arc<ExcludePatterns>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let mut coverage = Self {
            directory,
            exclusions: exclusions_to_watch_by(&root, &exclude),
            root,
            exclude,
            source,
            metrics,
            links: Vec::new(),
            size: TreeSize::default(),
            mount_table: MountTable::open(),
            mounts: BTreeSet::new(),
            blind_places: BTreeSet::new(),
            is_blind: false,
            has_new_failure: false,
            is_uncertain: false,
            retry: None,
            is_root_missing: false,
            is_held: false,
        };
        coverage.watch_root();
        coverage
    }

    pub(super) fn root(&self) -> &Arc<Root> {
        &self.root
    }

    /// The site's directory as it was given.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether something below the root reports nothing.
    pub(super) fn is_blind(&self) -> bool {
        self.is_blind || self.is_uncertain
    }

    /// Whether changes are not reported that should be: watches have run out, or a directory can't be
    /// listed. That a file system reports nothing is no fault.
    pub(super) fn is_failing(&self) -> bool {
        self.retry.is_some()
    }

    /// Whether everything has to be watched again, and swept after that.
    pub(super) fn is_uncertain(&self) -> bool {
        self.is_uncertain
    }

    /// Notes that events were lost: a directory that came or was renamed meanwhile is not watched.
    pub(super) fn mark_uncertain(&mut self) {
        self.is_uncertain = true;
    }

    /// The mounts and targets of links that report nothing.
    pub(super) fn blind_places(&self) -> &BTreeSet<PathBuf> {
        &self.blind_places
    }

    /// Whether something could not be watched since this was last asked.
    pub(super) fn take_new_failure(&mut self) -> bool {
        mem::take(&mut self.has_new_failure)
    }

    /// Whether the root was missing when it was last looked at.
    pub(super) fn is_root_missing(&self) -> bool {
        self.is_root_missing
    }

    /// Whether the operator holds publication back.
    pub(super) fn is_held(&mut self) -> bool {
        let is_held = self.root.path().join(HOLD_FILE).symlink_metadata().is_ok();
        if is_held != mem::replace(&mut self.is_held, is_held) {
            let state = if is_held { "held" } else { "released" };
            tracing::info!(
                file = HOLD_FILE,
                is_held,
                "publication is {state} by {HOLD_FILE}"
            );
        }
        is_held
    }

    /// Returns once all that was reported so far has been sent, and every new directory is watched:
    /// what is listed after it misses nothing.
    pub(super) fn barrier(&mut self) {
        self.source.barrier();
    }

    /// Notes that nothing is reported any more below `path`.
    pub(super) fn mark_blind(&mut self, path: &Path, reason: &WatchError) {
        self.metrics.watch_failures.increment();
        self.has_new_failure = true;
        if !matches!(reason, WatchError::Unsupported) {
            self.retry.get_or_insert(WatchRetry { wait: 0, pause: 0 });
        }
        // Watching a tree ends at the first directory that can't be watched, and only that one is
        // named; the warning holds for the others.
        if !mem::replace(&mut self.is_blind, true) {
            warn_blind(path, reason);
        }
    }

    /// Watches a directory, with all below it or alone.
    fn watch(&mut self, path: &Path, is_recursive: bool) {
        if let Err(reason) = self.source.watch(path, is_recursive) {
            self.mark_blind(path, &reason);
        }
    }

    /// Watches a directory of the site and all below it that is not excluded: each directory alone
    /// where some are, because the kernel's watch of a tree leaves out none.
    fn watch_site(&mut self, directory: &Path) {
        if !self.exclusions.have_patterns() {
            self.watch(directory, true);
            return;
        }
        let mut walk = WalkDir::new(directory).into_iter();
        // Each is watched before it is listed: what comes meanwhile is reported.
        while let Some(entry) = walk.next() {
            let (path, watched) = match entry {
                Ok(entry) if !entry.file_type().is_dir() => continue,
                Ok(entry) if self.is_excluded(entry.path(), true) => {
                    walk.skip_current_dir();
                    continue;
                }
                Ok(entry) => {
                    let watched = self.source.watch(entry.path(), false);
                    (entry.into_path(), watched)
                }
                Err(error) => {
                    let path = error.path().unwrap_or(directory).to_path_buf();
                    (path, Err(WatchError::Unlisted(Arc::new(error))))
                }
            };
            // What is gone needs no watch.
            if let Err(reason) = watched
                && path.symlink_metadata().is_ok()
            {
                self.mark_blind(&path, &reason);
                if matches!(reason, WatchError::TooMany) {
                    return;
                }
            }
        }
    }

    /// Watches what may be a new directory, where each is watched alone.
    pub(super) fn watch_new(&mut self, path: &Path) {
        let is_folder = || path.symlink_metadata().is_ok_and(|now| now.is_dir());
        if self.exclusions.have_patterns()
            && !self.is_outside(path)
            && !self.is_excluded(path, true)
            && is_folder()
        {
            self.watch_site(path);
        }
    }

    /// Takes over what the scan leaves out. What is watched is found out anew if that has changed.
    pub(super) fn adopt_exclusions(&mut self, exclusions: Exclusions) {
        if self.exclusions != exclusions {
            self.exclusions = exclusions;
            self.is_uncertain = true;
        }
    }

    /// Whether a real path is one of the site, and a pattern leaves it out, or a folder above it.
    fn is_excluded(&self, real: &Path, is_folder: bool) -> bool {
        real.strip_prefix(self.root.path()).is_ok_and(|inside| {
            scan::is_excluded(&self.exclusions, inside.as_os_str().as_bytes(), is_folder)
        })
    }

    fn watch_root(&mut self) {
        let root = Arc::clone(&self.root);
        self.watch_site(root.path());
        self.is_blind |= root.is_silent();
        // The directories that hold the links to the root, so that a swap is seen at once. Where
        // one can't be watched, the look at the root every quarter of a second finds it.
        for directory in link_parents(&self.directory) {
            let _ = self.source.watch(&directory, false);
        }
    }

    /// Finds out whether the root is still the directory it was. Another one is taken over, and
    /// watched.
    pub(super) fn check_root(&mut self) -> RootState {
        match self.root.is_still(&self.directory) {
            Ok(true) if !self.is_root_missing => RootState::Same,
            // The watches of a root that was away are lost, even if it is the same directory.
            Ok(_) => self.replace_root(),
            Err(error) => {
                self.warn_root_missing(&error);
                RootState::Missing
            }
        }
    }

    fn warn_root_missing(&mut self, error: &io::Error) {
        if !mem::replace(&mut self.is_root_missing, true) {
            let root = self.directory.display();
            tracing::warn!(
                %root, %error,
                "cannot find {root}: {error}; its last state stays"
            );
        }
    }

    fn replace_root(&mut self) -> RootState {
        let root = match Root::open(&self.directory) {
            Ok(root) => root,
            // It is being replaced at this moment, or there are no descriptors. What is still found
            // where the old root was must not be published; the next look finds out.
            Err(error) => {
                self.warn_root_missing(&error);
                return RootState::Missing;
            }
        };
        self.metrics.root_changes.increment();
        let path = root.path().display();
        tracing::info!(root = %path, "the site is now in {path}");
        self.is_root_missing = false;
        self.root = Arc::new(root);
        self.exclusions = exclusions_to_watch_by(&self.root, &self.exclude);
        self.blind_places.clear();
        self.mounts.clear();
        self.links.clear();
        self.source.unwatch_all();
        self.is_blind = false;
        self.is_uncertain = false;
        self.retry = None;
        self.watch_root();
        RootState::Replaced
    }

    /// Watches everything again, if that is needed. To be called before the sweep that finds what was
    /// missed: what happens after this call is reported again.
    pub(super) fn watch_again(&mut self) {
        let is_retry = match &mut self.retry {
            Some(retry) if retry.wait > 0 => {
                retry.wait -= 1;
                false
            }
            retry => retry.is_some(),
        };
        if !self.is_uncertain && !is_retry {
            return;
        }
        let failed = self.retry.take();
        let was_blind = mem::replace(&mut self.is_blind, failed.is_some());
        self.is_uncertain = false;
        self.source.unwatch_all();
        self.watch_root();
        self.watch_targets(&self.outside_targets());
        self.mounts.clear();
        self.find_mounts();
        match (&mut self.retry, failed) {
            (Some(retry), Some(failed)) => {
                let pause = (failed.pause * 2 + 1).min(MAX_SKIPPED_SWEEPS);
                *retry = WatchRetry { wait: pause, pause };
            }
            (None, Some(_)) => {
                self.is_blind = self.root.is_silent();
                let root = self.root.path().display();
                tracing::info!(%root, "changes below {root} are reported again");
            }
            _ => {}
        }
        tracing::debug!(
            was_blind,
            is_blind = self.is_blind,
            "everything is watched again"
        );
    }

    /// Whether something was mounted or unmounted where that matters, since this was last asked.
    pub(super) fn have_mounts_changed(&self) -> bool {
        self.mount_table.has_changed()
            && self.current_mounts(&self.outside_targets()) != self.mounts
    }

    /// Whether a real path is outside the root.
    pub(super) fn is_outside(&self, path: &Path) -> bool {
        !path.starts_with(self.root.path())
    }

    /// Whether what happens at a real path can change the site: it is below the root or where a
    /// link leads, and it is admitted, or links may lead through it.
    pub(super) fn concerns_site(&self, path: &Path) -> bool {
        if path.file_name().is_some_and(staging::is_temp_file) {
            return false;
        }
        match path.strip_prefix(self.root.path()) {
            Ok(inside) if self.is_of_site(inside.as_os_str().as_bytes()) => true,
            // A hidden link may be a step on the way of one that a request can name, as `..data` of
            // a Kubernetes ConfigMap is. So may one that is gone.
            Ok(_) if !self.links.is_empty() => {
                let is_file_or_directory = path
                    .symlink_metadata()
                    .is_ok_and(|now| !now.file_type().is_symlink());
                !is_file_or_directory || self.leads_any_link_through(path)
            }
            Ok(_) => false,
            Err(_) => self.leads_any_link_through(path),
        }
    }

    /// Whether a path below the root is one of the site by its name. What is gone may have been a file
    /// or a folder.
    fn is_of_site(&self, path: &[u8]) -> bool {
        let is_excluded = |is_folder| scan::is_excluded(&self.exclusions, path, is_folder);
        let is_left_out = scan::is_hidden(path) || (is_excluded(false) && is_excluded(true));
        RuleFile::named(path).is_some() || !is_left_out
    }

    fn leads_any_link_through(&self, path: &Path) -> bool {
        let mut targets = self.links.iter().filter_map(|link| link.target.as_ref());
        targets.any(|target| path.starts_with(target) || target.starts_with(path))
    }

    /// What a real path is called in the site: its own name, and those that all links give it which
    /// lead to it or above it. Links that lead below it are among them: they may lead to something
    /// else now, although their target has the same name.
    pub(super) fn site_paths(&self, real: &Path) -> Vec<Box<[u8]>> {
        let inside = real.strip_prefix(self.root.path()).ok();
        let linked = self.links.iter().filter_map(|link| {
            let target = link.target.as_ref()?;
            if target.starts_with(real) {
                return Some(link.path.clone());
            }
            let below = real.strip_prefix(target).ok()?;
            let path = Path::new(OsStr::from_bytes(&link.path)).join(below);
            let path = path.as_os_str().as_bytes();
            Some(path.strip_suffix(b"/").unwrap_or(path).into())
        });
        inside
            .map(|path| path.as_os_str().as_bytes().into())
            .into_iter()
            .chain(linked)
            .collect()
    }

    /// The names in the site of several real paths.
    pub(super) fn all_site_paths<'p>(
        &self,
        real: impl IntoIterator<Item = &'p PathBuf>,
    ) -> BTreeSet<Box<[u8]>> {
        let real = real.into_iter();
        real.flat_map(|path| self.site_paths(path)).collect()
    }

    /// The paths of the site to look at when something has happened at these real paths.
    pub(super) fn concerned_paths(&self, dirty: &BTreeSet<PathBuf>) -> BTreeSet<Box<[u8]>> {
        let mut paths = self.all_site_paths(dirty);
        paths.extend(self.moved_links());
        paths
    }

    /// The real path of a path in the site.
    pub(super) fn real_path(&self, path: &[u8]) -> PathBuf {
        self.root.path().join(OsStr::from_bytes(path))
    }

    /// Files that are busy, with the length that each has now.
    pub(super) fn with_lengths(&self, busy: Vec<Box<[u8]>>) -> Vec<(Box<[u8]>, u64)> {
        busy.into_iter()
            .map(|path| {
                let length = self.length(&path);
                (path, length)
            })
            .collect()
    }

    /// The length of a file of the site; 0 where it can't be looked at.
    pub(super) fn length(&self, path: &[u8]) -> u64 {
        let file = self.real_path(path).metadata();
        file.map_or(0, |file| file.len())
    }

    /// The links that lead elsewhere than they did.
    pub(super) fn moved_links(&self) -> impl Iterator<Item = Box<[u8]>> {
        self.moved_among(&self.links)
    }

    /// Those of `links` that lead elsewhere than when they were looked at.
    pub(super) fn moved_among(&self, links: &[Link]) -> impl Iterator<Item = Box<[u8]>> {
        links
            .iter()
            .filter(|link| self.real_path(&link.path).canonicalize().ok() != link.target)
            .map(|link| link.path.clone())
    }

    /// The inodes of those of these files that have several names.
    pub(super) fn shared_inodes(&self, paths: &BTreeSet<Box<[u8]>>) -> BTreeSet<u64> {
        paths
            .iter()
            .filter_map(|path| disk::shared_inode(&self.real_path(path)))
            .collect()
    }

    /// Takes over how much a look has met within its scope.
    pub(super) fn adopt_size(&mut self, size: TreeSize, scope: &Scope) {
        match scope {
            Scope::Everything | Scope::EverythingWith(_) => self.size = size,
            Scope::Paths(_) => self.size.add(size),
        }
    }

    /// Whether links are left out because they would bring too much. Then no look at a part can
    /// tell which of them are followed now.
    pub(super) fn is_limited(&self) -> bool {
        self.size.is_limited
    }

    /// Whether it takes a look at the whole site to tell which links are followed, now that a part
    /// of it has been found to be of this size.
    pub(super) fn needs_whole_look(&self, part: &TreeSize) -> bool {
        self.size.may_be_exceeded(part)
    }

    /// Takes over the links that a look has found within its scope, and watches where they lead.
    /// Returns the directories that are watched only now: what has changed there since the look is
    /// found by another one.
    pub(super) fn adopt_links(&mut self, links: Vec<Link>, scope: &Scope) -> Vec<PathBuf> {
        self.warn_limited(&links);
        self.watch_links(links, scope)
    }

    /// Takes over the links that the first scan has found, in the way of [`Coverage::adopt_links`].
    pub(super) fn watch_links(&mut self, links: Vec<Link>, scope: &Scope) -> Vec<PathBuf> {
        let before = self.outside_targets();
        self.links.retain(|link| !scope.covers(&link.path));
        self.links.extend(links);
        let targets = self.outside_targets();
        self.watch_targets(&targets);
        let new = targets.difference(&before).filter(|path| path.is_dir());
        new.cloned().collect()
    }

    fn watch_targets(&mut self, targets: &BTreeSet<PathBuf>) {
        for target in targets {
            if target.is_dir() {
                self.watch(target, true);
            } else if let Some(parent) = target.parent() {
                self.watch(parent, false);
            }
        }
    }

    /// What is mounted within the site, or where its links lead.
    fn current_mounts(&self, outside: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
        let is_within = |mount: &Path, above: &Path| mount != above && mount.starts_with(above);
        disk::mount_points()
            .into_iter()
            .filter(|mount| {
                (is_within(mount, self.root.path()) && !self.is_excluded(mount, true))
                    || outside.iter().any(|above| is_within(mount, above))
            })
            .collect()
    }

    /// Where links that are followed lead outside the root, or to what is left out of it.
    fn outside_targets(&self) -> BTreeSet<PathBuf> {
        self.links
            .iter()
            .filter(|link| link.verdict == LinkVerdict::Followed)
            .filter_map(|link| link.target.clone())
            .filter(|target| self.is_outside(target) || self.is_excluded(target, true))
            .collect()
    }

    /// Warns when links are left out that would bring too much, and were not before. The start has
    /// warned of the first ones.
    fn warn_limited(&self, links: &[Link]) {
        let limited = |links: &[Link]| -> BTreeSet<Box<[u8]>> {
            links
                .iter()
                .filter(|link| link.verdict == LinkVerdict::TooMuch)
                .map(|link| link.path.clone())
                .collect()
        };
        let before = limited(&self.links);
        scan::warn_limited(
            self.root.path(),
            limited(links).difference(&before).map(AsRef::as_ref),
        );
    }

    /// Finds out what is mounted within the site, or where its links lead: what reports nothing is
    /// to be swept, and what has come since the last time is watched. Returns whether something has.
    pub(super) fn find_mounts(&mut self) -> bool {
        let outside = self.outside_targets();
        let mounts = self.current_mounts(&outside);
        let blind_places: BTreeSet<_> = mounts
            .iter()
            .chain(&outside)
            .filter(|path| disk::is_silent_at(path))
            .cloned()
            .collect();
        for path in blind_places.difference(&self.blind_places) {
            self.metrics.watch_failures.increment();
            warn_blind(path, &WatchError::Silent);
        }
        let new: Vec<_> = mounts.difference(&self.mounts).cloned().collect();
        for mount in new.iter().filter(|mount| !blind_places.contains(*mount)) {
            // The watch of a tree ends where another file system is mounted later (inotify(7)).
            match self.is_outside(mount) {
                true => self.watch(mount, true),
                false => self.watch_site(mount),
            }
        }
        self.mounts = mounts;
        self.blind_places = blind_places;
        !new.is_empty()
    }
}

fn warn_blind(path: &Path, reason: &WatchError) {
    let path = path.display();
    tracing::warn!(
        %path, error = %reason,
        "changes below {path} are found by sweeps only: {reason}"
    );
}

/// The directories that hold the links on the way to `path`.
fn link_parents(path: &Path) -> BTreeSet<PathBuf> {
    let mut parents = BTreeSet::new();
    let mut todo = vec![path.to_path_buf()];
    while let Some(path) = todo.pop().filter(|_| parents.len() < MAX_ROOT_LINKS) {
        for link in path.ancestors() {
            let (Ok(target), Some(parent)) = (link.read_link(), link.parent()) else {
                continue;
            };
            let Ok(real_parent) = parent.canonicalize() else {
                continue;
            };
            todo.push(real_parent.join(target));
            parents.insert(real_parent);
        }
    }
    parents
}

/// What is left out of the watch of a new root. With patterns that can't be read all is watched.
fn exclusions_to_watch_by(root: &Root, exclude: &Arc<ExcludePatterns>) -> Exclusions {
    scan::exclusions_on_disk(root, exclude)
        .unwrap_or_else(|_| Exclusions::new(exclude, &Arc::default()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    /// A source that reports nothing, and refuses to watch what it is told to refuse.
    struct Deaf {
        refused: Option<PathBuf>,
    }

    impl ChangeSource for Deaf {
        fn watch(&mut self, path: &Path, _: bool) -> Result<(), WatchError> {
            match &self.refused {
                Some(refused) if refused == path => Err(WatchError::TooMany),
                _ => Ok(()),
            }
        }

        fn unwatch_all(&mut self) {}

        fn barrier(&mut self) {}
    }

    struct Ground {
        directory: TempDir,
    }

    impl Ground {
        fn new() -> Self {
            let directory = tempfile::tempdir().expect("a directory");
            fs::create_dir_all(directory.path().join("site/dir")).expect("made");
            fs::create_dir_all(directory.path().join("elsewhere")).expect("made");
            Self { directory }
        }

        fn path(&self, path: &str) -> PathBuf {
            let directory = self.directory.path().canonicalize().expect("there");
            directory.join(path)
        }

        fn coverage(&self, refused: Option<&str>) -> Coverage {
            let refused = refused.map(|path| self.path(path));
            let root = Arc::new(Root::open(&self.path("site")).expect("a root"));
            Coverage::new(
                Box::new(Deaf { refused }),
                self.path("site"),
                root,
                Arc::default(),
                Arc::default(),
            )
        }

        fn link(&self, path: &str, target: &str) -> Link {
            let _ = fs::remove_file(self.path("site").join(path));
            symlink(self.path(target), self.path("site").join(path)).expect("linked");
            Link {
                path: path.as_bytes().into(),
                target: self.path(target).canonicalize().ok(),
                verdict: LinkVerdict::Followed,
            }
        }
    }

    fn shown(paths: impl IntoIterator<Item = Box<[u8]>>) -> Vec<String> {
        let paths = paths.into_iter();
        paths.map(|path| path.escape_ascii().to_string()).collect()
    }

    #[test]
    fn a_path_has_the_names_that_links_give_it() {
        let ground = Ground::new();
        let mut coverage = ground.coverage(None);
        let links = vec![
            ground.link("link", "elsewhere"),
            ground.link("in", "site/dir"),
            ground.link("nowhere", "missing"),
        ];
        coverage.adopt_links(links, &Scope::Everything);
        let names = |path: &str| shown(coverage.site_paths(&ground.path(path)));
        assert_eq!(names("site/dir/x"), ["dir/x", "in/x"]);
        assert_eq!(names("elsewhere/x"), ["link/x"]);
        assert_eq!(names("elsewhere"), ["link"]);
        assert_eq!(names("site"), ["", "in"]);
        assert_eq!(names("other"), [""; 0]);
    }

    #[test]
    fn hidden_paths_matter_only_where_a_link_may_lead_through_them() {
        let ground = Ground::new();
        let mut coverage = ground.coverage(None);
        let concerns = |coverage: &Coverage, path: &str| coverage.concerns_site(&ground.path(path));
        fs::create_dir_all(ground.path("site/.git")).expect("made");
        assert!(concerns(&coverage, "site/page"));
        assert!(!concerns(&coverage, "site/.git"));
        assert!(!concerns(&coverage, "elsewhere/x"));
        fs::create_dir_all(ground.path("site/..2026")).expect("made");
        let links = vec![
            ground.link("link", "elsewhere"),
            ground.link("page", "site/..2026"),
        ];
        coverage.adopt_links(links, &Scope::Everything);
        assert!(concerns(&coverage, "elsewhere/x"));
        assert!(concerns(&coverage, "site/..2026/x"));
        assert!(
            concerns(&coverage, "site/..gone"),
            "it may have been a link"
        );
        assert!(!concerns(&coverage, "site/.git"), "a directory, no link's");
    }

    #[test]
    fn links_that_lead_elsewhere_are_found() {
        let ground = Ground::new();
        let mut coverage = ground.coverage(None);
        let links = vec![
            ground.link("moves", "elsewhere"),
            ground.link("stays", "elsewhere"),
        ];
        coverage.adopt_links(links, &Scope::Everything);
        assert_eq!(coverage.moved_links().count(), 0);
        ground.link("moves", "site/dir");
        assert_eq!(shown(coverage.moved_links()), ["moves"]);
        // A look at that path alone replaces what is known of it, and nothing else.
        let scope = Scope::Paths(BTreeSet::from([b"moves".as_slice().into()]));
        let found = ground.link("moves", "site/dir");
        coverage.adopt_links(vec![found], &scope);
        assert_eq!(coverage.moved_links().count(), 0);
        assert_eq!(coverage.links.len(), 2);
    }

    #[test]
    fn what_cannot_be_watched_is_told_apart() {
        let ground = Ground::new();
        let mut coverage = ground.coverage(None);
        assert!(!coverage.is_blind() && !coverage.take_new_failure());
        coverage = ground.coverage(Some("elsewhere"));
        let link = ground.link("link", "elsewhere");
        coverage.adopt_links(vec![link], &Scope::Everything);
        assert!(coverage.is_blind() && coverage.take_new_failure());
        assert!(!coverage.take_new_failure(), "once");
        coverage = ground.coverage(Some("site"));
        assert!(coverage.is_blind() && coverage.take_new_failure());
        assert_eq!(coverage.metrics.watch_failures.get(), 1);
    }

    #[test]
    fn a_root_that_was_away_is_another_one() {
        let ground = Ground::new();
        let mut coverage = ground.coverage(None);
        assert_eq!(coverage.check_root(), RootState::Same);
        fs::rename(ground.path("site"), ground.path("away")).expect("moved");
        assert_eq!(coverage.check_root(), RootState::Missing);
        assert!(coverage.is_root_missing());
        fs::rename(ground.path("away"), ground.path("site")).expect("moved");
        assert_eq!(coverage.check_root(), RootState::Replaced);
        assert_eq!(coverage.check_root(), RootState::Same);
        fs::remove_dir_all(ground.path("site")).expect("removed");
        fs::create_dir(ground.path("site")).expect("made");
        assert_eq!(coverage.check_root(), RootState::Replaced);
        assert_eq!(coverage.metrics.root_changes.get(), 2);
    }

    #[test]
    fn a_file_holds_publication() {
        let ground = Ground::new();
        let mut coverage = ground.coverage(None);
        assert!(!coverage.is_held());
        fs::write(ground.path("site/.etagd-hold"), "").expect("written");
        assert!(coverage.is_held());
        fs::remove_file(ground.path("site/.etagd-hold")).expect("removed");
        assert!(!coverage.is_held());
    }
}

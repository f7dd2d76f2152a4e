//! Which manifest is published now: the one thing in a server that is shared and changes.

use std::fmt;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use crate::manifest::{Changes, Manifest, SiteDigest};
use crate::memory::Memory;
use crate::metrics::Figures;
use crate::representation::Resource;

/// The site as requests see it: the manifest that is published now. Only [`Site::update`] and
/// [`Site::forget`] replace it.
pub struct Site {
    current: ArcSwap<Manifest>,
    publishing: Mutex<()>,
    first_published: Instant,
    /// When the current state was published, in milliseconds after `first_published`.
    last_published: AtomicU64,
    publications: watch::Sender<u64>,
    looks: watch::Sender<u64>,
    on_suspect: Mutex<Option<SuspectCallback>>,
    on_publication: Mutex<Option<PublicationCallback>>,
    on_missing: OnceLock<MissingCallback>,
}

/// Called before it is said that there is nothing at a path.
type MissingCallback = Box<dyn Fn() -> NewerState + Send + Sync>;

/// Ends when it is known whether the site has a newer state elsewhere.
pub type NewerState = Pin<Box<dyn Future<Output = Newest> + Send>>;

/// Whether what is published is the newest state of the site.
pub enum Newest {
    /// It is, as far as is known.
    Published,
    /// There is a newer one, which is not published yet.
    Pending(PendingState),
}

/// A state of the site that is not published yet.
pub struct PendingState {
    /// What it has, once that is known.
    pub manifest: Option<Arc<Manifest>>,
    /// Ends when it is published, or after a short time. Returns whether it is.
    pub publication: Pin<Box<dyn Future<Output = bool> + Send>>,
}

/// Called with each file that is not what the manifest says.
type SuspectCallback = Box<dyn Fn(&Path) + Send>;

/// Called after each publication, with the state before and the state now.
type PublicationCallback = Box<dyn Fn(&Manifest, &Manifest) + Send>;

impl Site {
    /// A site whose first published state is `manifest`.
    pub fn new(manifest: Manifest) -> Self {
        Self {
            current: ArcSwap::from_pointee(manifest),
            publishing: Mutex::new(()),
            first_published: Instant::now(),
            last_published: AtomicU64::new(0),
            publications: watch::Sender::new(0),
            looks: watch::Sender::new(0),
            on_suspect: Mutex::new(None),
            on_publication: Mutex::new(None),
            on_missing: OnceLock::new(),
        }
    }

    /// The published manifest. A request asks once and uses what it got to its end (promise P4).
    pub fn current(&self) -> Guard<Arc<Manifest>> {
        self.current.load()
    }

    /// Publishes the current manifest with the changes that `change` returns for it. One call runs at a
    /// time, so that no change is lost between two of them. Returns `None` if there are no changes, or
    /// if none of them changes an answer: then nobody is woken.
    pub fn update(&self, change: impl FnOnce(&Manifest) -> Option<Changes>) -> Option<Publication> {
        let _one_at_a_time = self
            .publishing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let current = self.current.load_full();
        let changes = change(&current)?;
        if changes.changes_nothing_in(&current) {
            return None;
        }
        let (changed, removed) = (changes.changed.len(), changes.removed.len());
        // The patterns of .etagdignore come with the rules, and are none.
        let has_new_rules =
            (changes.rules.as_ref()).is_some_and(|rules| rules.hash() != current.rules().hash());
        let folders = match current.settings().listing {
            true => changes.new_folders.len() + changes.removed_folders.len(),
            false => 0,
        };
        let new = current.with(changes);
        let digest = new.digest();
        let changes_answers = digest != current.digest();
        let new = Arc::new(new);
        self.current.store(Arc::clone(&new));
        if !changes_answers {
            // Where a file lies on the disk, say: requests need that, nobody else does.
            return None;
        }
        let now = self.first_published.elapsed().as_millis() as u64;
        self.last_published.store(now, Ordering::Relaxed);
        self.publications.send_modify(|count| *count += 1);
        let callback = self.on_publication.lock();
        if let Some(callback) = &*callback.unwrap_or_else(PoisonError::into_inner) {
            callback(&current, &new);
        }
        Some(Publication {
            changed,
            removed,
            folders,
            has_new_rules,
            digest,
        })
    }

    /// Replaces each removed resource that is still answered (`--keep-old`) with what `keep` returns for
    /// it. Returns the resources that are not answered any more.
    pub fn forget(
        &self,
        keep: impl Fn(&Arc<Resource>, Instant) -> Option<Arc<Resource>>,
    ) -> Vec<Arc<Resource>> {
        let _one_at_a_time = self
            .publishing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let Some((new, forgotten)) = self.current.load().with_retired(keep) else {
            return Vec::new();
        };
        self.current.store(Arc::new(new));
        forgotten
    }

    /// Wakes the requests that wait for a look at the disk: it is over, and what it has found is
    /// published if it may be.
    pub fn announce_look(&self) {
        self.looks.send_modify(|count| *count += 1);
    }

    /// A receiver that is woken after each look at the disk.
    pub fn subscribe_looks(&self) -> watch::Receiver<u64> {
        self.looks.subscribe()
    }

    /// Calls `callback` with each file that a response finds to be different from the manifest.
    pub fn on_suspect(&self, callback: impl Fn(&Path) + Send + 'static) {
        *self
            .on_suspect
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(Box::new(callback));
    }

    /// Reports a file that a response found to be different from the manifest.
    pub fn report_suspect(&self, file: &Path) {
        let callback = self.on_suspect.lock();
        if let Some(callback) = &*callback.unwrap_or_else(PoisonError::into_inner) {
            callback(file);
        }
    }

    /// Calls `callback` after each publication, in their order, with the state before and the state
    /// now. The next publication waits for it; no request does.
    pub fn on_publication(&self, callback: impl Fn(&Manifest, &Manifest) + Send + 'static) {
        let slot = self.on_publication.lock();
        *slot.unwrap_or_else(PoisonError::into_inner) = Some(Box::new(callback));
    }

    /// Calls `callback` before a request is told that there is nothing at a path: the site may have a
    /// newer state elsewhere, which has it. The request waits for what it returns. Only the first one
    /// counts.
    pub fn on_missing(&self, callback: impl Fn() -> NewerState + Send + Sync + 'static) {
        let _ = self.on_missing.set(Box::new(callback));
    }

    /// Whether the site may have a newer state elsewhere.
    pub fn may_be_outdated(&self) -> bool {
        self.on_missing.get().is_some()
    }

    /// Looks for a newer state elsewhere, if there may be one.
    pub fn newer_state(&self) -> Option<NewerState> {
        self.on_missing.get().map(|callback| callback())
    }

    /// How long the current state has been published.
    pub fn age(&self) -> Duration {
        let published = Duration::from_millis(self.last_published.load(Ordering::Relaxed));
        self.first_published.elapsed().saturating_sub(published)
    }

    /// The figures of this moment for `/metrics`.
    pub fn figures(&self, memory: &Memory) -> Figures {
        let current = self.current();
        Figures {
            digest: current.digest().hash().to_string(),
            is_complete: current.digest().is_complete(),
            age: self.age(),
            entries: current.len() as u64,
            bytes: current.bytes(),
            without_codings: current.without_codings().len() as u64,
            memory_used: memory.used(),
            memory_pinned: memory.pinned(),
            memory_limit: memory.limit(),
        }
    }

    /// A receiver that is woken after each publication. Its value is the number of publications.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.publications.subscribe()
    }
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Site")
            .field("digest", &self.current().digest())
            .finish_non_exhaustive()
    }
}

/// What a publication has changed.
#[derive(Clone, Copy, Debug)]
pub struct Publication {
    /// Resources that are new, or have replaced others.
    pub changed: usize,
    /// Paths that name nothing any more.
    pub removed: usize,
    /// Folders that are new or gone, with `--listing`.
    pub folders: usize,
    /// Whether the site's rules have changed.
    pub has_new_rules: bool,
    /// The digest of the new state.
    pub digest: SiteDigest,
}

impl fmt::Display for Publication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            changed,
            removed,
            folders,
            has_new_rules,
            digest,
        } = self;
        let folders = match folders {
            0 => String::new(),
            1 => ", 1 folder new or gone".to_owned(),
            _ => format!(", {folders} folders new or gone"),
        };
        let rules = if *has_new_rules { ", new rules" } else { "" };
        write!(
            f,
            "published: {changed} changed, {removed} removed{folders}{rules}, site digest {digest}"
        )
    }
}

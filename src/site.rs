//! The one shared, changing thing: which manifest is published now.

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use crate::manifest::{Changes, Manifest, SiteDigest};
use crate::memory::Memory;
use crate::metrics::Figures;
use crate::representation::Resource;

/// Publishes manifests. Nobody but [`Site::update`] replaces the current one.
pub struct Site {
    current: ArcSwap<Manifest>,
    publishing: Mutex<()>,
    first_published: Instant,
    /// When the present state was, in milliseconds after the first.
    last_published: AtomicU64,
    publications: watch::Sender<u64>,
    looks: watch::Sender<u64>,
    suspects: Mutex<Option<Suspects>>,
    listener: Mutex<Option<PublicationCallback>>,
}

/// Who is told of files that are not what the manifest says.
type Suspects = Box<dyn Fn(&Path) + Send>;

/// Who is told of each publication: the state before, and the state now.
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
            suspects: Mutex::new(None),
            listener: Mutex::new(None),
        }
    }

    /// The published manifest. A request asks once and uses what it got to its end (promise P4).
    pub fn current(&self) -> Guard<Arc<Manifest>> {
        self.current.load()
    }

    /// Publishes what `change` makes of the current manifest; one at a time, so that no change is
    /// lost between two writers. Where the answers stay the same, nobody is told, and the result
    /// is `None`.
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
        let has_new_rules = changes.rules.is_some();
        let new = current.with(changes);
        let digest = new.digest();
        let is_news = digest != current.digest();
        let new = Arc::new(new);
        self.current.store(Arc::clone(&new));
        if !is_news {
            return None;
        }
        let now = self.first_published.elapsed().as_millis() as u64;
        self.last_published.store(now, Ordering::Relaxed);
        self.publications.send_modify(|count| *count += 1);
        let listener = self.listener.lock();
        if let Some(tell) = &*listener.unwrap_or_else(PoisonError::into_inner) {
            tell(&current, &new);
        }
        Some(Publication {
            changed,
            removed,
            has_new_rules,
            digest,
        })
    }

    /// Keeps of earlier states what `keep` makes of it, and returns what is gone altogether.
    pub fn forget(
        &self,
        keep: impl Fn(&Arc<Resource>, Instant) -> Option<Arc<Resource>>,
    ) -> Vec<Arc<Resource>> {
        let _one_at_a_time = self
            .publishing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let Some((new, over)) = self.current.load().with_retired(keep) else {
            return Vec::new();
        };
        self.current.store(Arc::new(new));
        over
    }

    /// Tells whoever waits for it that the disk has been looked at, and that what could be
    /// published is.
    pub fn announce_look(&self) {
        self.looks.send_modify(|count| *count += 1);
    }

    /// Wakes its holder after each look at the disk.
    pub fn subscribe_looks(&self) -> watch::Receiver<u64> {
        self.looks.subscribe()
    }

    /// Has `look` called with each file that a response finds to be other than the manifest says.
    pub fn on_suspect(&self, look: impl Fn(&Path) + Send + 'static) {
        *self.suspects.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(look));
    }

    /// Reports a file that is not what the manifest says.
    pub fn suspect(&self, file: &Path) {
        if let Some(look) = &*self.suspects.lock().unwrap_or_else(PoisonError::into_inner) {
            look(file);
        }
    }

    /// Has `tell` called after each publication, in their order, with the state before and the
    /// state now. The next publication waits for it, no request does.
    pub fn on_publication(&self, tell: impl Fn(&Manifest, &Manifest) + Send + 'static) {
        *self.listener.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(tell));
    }

    /// For how long the present state has been published.
    pub fn age(&self) -> Duration {
        let published = Duration::from_millis(self.last_published.load(Ordering::Relaxed));
        self.first_published.elapsed().saturating_sub(published)
    }

    /// What metrics tell of this moment.
    pub fn figures(&self, memory: &Memory) -> Figures {
        let current = self.current();
        Figures {
            digest: current.digest().hash().to_string(),
            is_complete: current.digest().is_complete(),
            age: self.age(),
            entries: current.len() as u64,
            bytes: current.bytes(),
            memory_used: memory.used(),
            memory_pinned: memory.pinned(),
            memory_limit: memory.limit(),
        }
    }

    /// Wakes its holder after each publication; the value is their number.
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
            has_new_rules,
            digest,
        } = self;
        let rules = if *has_new_rules { ", new rules" } else { "" };
        write!(
            f,
            "published: {changed} changed, {removed} removed{rules}, site digest {digest}"
        )
    }
}

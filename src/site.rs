//! The one shared, changing thing: which manifest is published now.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use crate::manifest::{Changes, Manifest};

/// Publishes manifests. Nobody but [`Site::update`] replaces the current one.
#[derive(Debug)]
pub struct Site {
    current: ArcSwap<Manifest>,
    publishing: Mutex<()>,
    publications: watch::Sender<u64>,
}

impl Site {
    /// A site whose first published state is `manifest`.
    pub fn new(manifest: Manifest) -> Self {
        Self {
            current: ArcSwap::from_pointee(manifest),
            publishing: Mutex::new(()),
            publications: watch::Sender::new(0),
        }
    }

    /// The published manifest. A request asks once and uses what it got to its end (promise P4).
    pub fn current(&self) -> Guard<Arc<Manifest>> {
        self.current.load()
    }

    /// Publishes what `change` makes of the current manifest; one at a time, so that no change is
    /// lost between two writers. `None` publishes nothing.
    pub fn update(&self, change: impl FnOnce(&Manifest) -> Option<Changes>) {
        let _one_at_a_time = self
            .publishing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let current = self.current.load();
        if let Some(changes) = change(&current) {
            self.current.store(Arc::new(current.with(changes)));
            self.publications.send_modify(|count| *count += 1);
        }
    }

    /// Wakes its holder after each publication; the value is their number.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.publications.subscribe()
    }
}

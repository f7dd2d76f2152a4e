//! The threads that a store is asked on. Those that answer requests come and go with them; what one
//! request has asked for may be what others wait for, and goes on when its client has gone.

use std::future::pending;
use std::io;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::task::{JoinHandle, spawn_blocking};

/// Threads at most: a store is waited for more than anything is computed.
const MAX_THREADS: usize = 4;

/// Threads for what waits for a store.
#[derive(Debug)]
pub(super) struct Fetchers {
    handles: Box<[Handle]>,
    next: AtomicUsize,
}

impl Fetchers {
    /// Starts a thread for each of `cores`, up to a few. They end with the process.
    ///
    /// # Errors
    /// When the system has no more threads.
    pub(super) fn start(cores: usize) -> io::Result<Self> {
        let start = |number: usize| {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let handle = runtime.handle().clone();
            thread::Builder::new()
                .name(format!("fetcher-{number}"))
                .spawn(move || runtime.block_on(pending::<()>()))?;
            Ok(handle)
        };
        Ok(Self {
            handles: (0..cores.clamp(1, MAX_THREADS))
                .map(start)
                .collect::<io::Result<_>>()?,
            next: AtomicUsize::new(0),
        })
    }

    /// Has one of the threads do some work.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        // There is one at least.
        self.handles[next % self.handles.len()].spawn(work)
    }
}

/// Does what takes long without waiting for a store where it holds up no other task of this thread. A panic
/// of it is one of the caller.
pub(super) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(stopped) => match stopped.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // It was not begun, because the process ends.
            Err(_) => pending().await,
        },
    }
}

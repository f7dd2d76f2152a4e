//! Listeners, workers, limits, drain.
//!
//! The calling thread accepts; each connection is dealt to the worker that has the fewest. A
//! worker is one thread with its own runtime, so a request never changes threads.

mod connection;
pub mod listener;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::config::Limits;
use crate::service::Service;
use listener::{Accepted, Listener, Stream};

/// Threads of each worker that may block on the disk.
const BLOCKING_THREADS: usize = 32;
/// Pause after an error that more attempts would only repeat.
const BACK_OFF: Duration = Duration::from_millis(100);
const TURNED_AWAY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n\
    Cache-Control: private, no-store, max-age=0\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// The running server.
#[derive(Debug)]
pub struct Server {
    workers: Vec<Worker>,
    connections: Arc<AtomicUsize>,
    limits: Limits,
    draining: watch::Sender<bool>,
}

#[derive(Debug)]
struct Worker {
    connections: Arc<AtomicUsize>,
    deal: mpsc::UnboundedSender<(Accepted, Counted)>,
    thread: JoinHandle<()>,
}

impl Server {
    /// Starts `workers` threads.
    ///
    /// # Errors
    /// When the system has no more threads or descriptors.
    pub fn start(service: Service, workers: usize, limits: Limits) -> io::Result<Self> {
        let service = Arc::new(service);
        let draining = watch::Sender::new(false);
        let workers = (0..workers)
            .map(|index| Worker::start(index, &service, &limits, &draining))
            .collect::<io::Result<_>>()?;
        Ok(Self {
            workers,
            connections: Arc::default(),
            limits,
            draining,
        })
    }

    /// Accepts from `listener` until the future is dropped.
    pub async fn accept(&self, listener: &Listener) {
        loop {
            match listener.accept().await {
                Ok(accepted) => self.deal(accepted),
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => {
                    tracing::error!("cannot accept on {listener}: {error}; trying again");
                    tokio::time::sleep(BACK_OFF).await;
                }
            }
        }
    }

    /// Accepts the connections that were made before this, and no other.
    pub async fn accept_waiting(&self, listener: &Listener) {
        // A turn of the event loop tells which there are.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let no_longer = Duration::ZERO;
        while let Ok(Ok(accepted)) = tokio::time::timeout(no_longer, listener.accept()).await {
            self.deal(accepted);
        }
    }

    fn deal(&self, accepted: Accepted) {
        if self.connections.load(Ordering::Relaxed) >= self.limits.max_connections {
            // The head start of an empty send buffer: this cannot block.
            let _ = rustix::net::send(&accepted, TURNED_AWAY, rustix::net::SendFlags::NOSIGNAL);
            return;
        }
        let load = |worker: &&Worker| worker.connections.load(Ordering::Relaxed);
        if let Some(worker) = self.workers.iter().min_by_key(load) {
            let counted = Counted::new([&self.connections, &worker.connections]);
            // A worker ends only after its sender here is gone.
            let _ = worker.deal.send((accepted, counted));
        }
    }

    /// Lets every connection finish the request it is in, for `--grace` at most. Returns whether
    /// all did.
    pub async fn drain(self) -> bool {
        self.draining.send_replace(true);
        let threads: Vec<_> = self
            .workers
            .into_iter()
            .map(|worker| worker.thread)
            .collect();
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                let _ = thread.join();
            }
        });
        tokio::time::timeout(self.limits.grace, joined)
            .await
            .is_ok()
    }
}

/// Errors of `accept` that say nothing about the next connection.
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

/// One connection in the counts that it belongs to.
#[derive(Debug)]
struct Counted([Arc<AtomicUsize>; 2]);

impl Counted {
    fn new(counts: [&Arc<AtomicUsize>; 2]) -> Self {
        Self(counts.map(|count| {
            count.fetch_add(1, Ordering::Relaxed);
            Arc::clone(count)
        }))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        for count in &self.0 {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Worker {
    fn start(
        index: usize,
        service: &Arc<Service>,
        limits: &Limits,
        draining: &watch::Sender<bool>,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS)
            .build()?;
        let (deal, dealt) = mpsc::unbounded_channel();
        let work = work(
            dealt,
            Arc::clone(service),
            limits.clone(),
            draining.subscribe(),
        );
        let thread = thread::Builder::new()
            .name(format!("worker {index}"))
            .spawn(move || runtime.block_on(work))?;
        Ok(Self {
            connections: Arc::default(),
            deal,
            thread,
        })
    }
}

/// Serves what it is dealt; ends when there can be no more and all is finished.
async fn work(
    mut dealt: mpsc::UnboundedReceiver<(Accepted, Counted)>,
    service: Arc<Service>,
    limits: Limits,
    draining: watch::Receiver<bool>,
) {
    let builder = Arc::new(connection::builder(&limits));
    let limits = Arc::new(limits);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            next = dealt.recv() => {
                let Some((accepted, counted)) = next else { break };
                let stream = match accepted.register() {
                    Ok(stream) => stream,
                    Err(error) => {
                        tracing::error!("cannot serve a connection: {error}");
                        continue;
                    }
                };
                let (service, builder) = (Arc::clone(&service), Arc::clone(&builder));
                let (limits, draining) = (Arc::clone(&limits), draining.clone());
                connections.spawn(async move {
                    let _counted = counted;
                    match stream {
                        Stream::Tcp(stream) => {
                            connection::serve(stream, service, &builder, &limits, draining).await;
                        }
                        Stream::Unix(stream) => {
                            connection::serve(stream, service, &builder, &limits, draining).await;
                        }
                    }
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
    while connections.join_next().await.is_some() {}
}

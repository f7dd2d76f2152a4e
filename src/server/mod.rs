//! Listeners, workers, limits, drain.
//!
//! The calling thread accepts; each connection is handed to the worker that has the fewest. A
//! worker is one thread with its own runtime, so a request never changes threads.
//!
//! Measured on 2 cores with wrk on the same, thousands of 304 a second at 4, 64 and 1024
//! connections: handed out 50-56, 73-74, 37-50; one runtime and SO_REUSEPORT listener a core 55,
//! 68-76, 32-47; tokio's multi-threaded runtime 52-55, 59-61, 27. The first two are equal within
//! the noise, but the kernel's hash leaves cores idle where connections are few, and Unix and
//! inherited sockets have no SO_REUSEPORT.

mod activity;
pub mod admin;
mod connection;
mod front;
pub mod inherited;
pub mod listener;
mod metered_io;
mod overload;
mod plaintext;
mod proxy_protocol;
mod rewound;
pub mod tls;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use hyper_util::rt::TokioExecutor;
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::client::{Peer, TrustedProxies};
use crate::metrics::Metrics;
use crate::service::LogLayer;
use crate::settings::Limits;
use activity::Activity;
use listener::{Accepted, Listener, Stream};
use metered_io::MeteredSocket;
use overload::Overload;
use proxy_protocol::HeaderError;
use tls::Tls;

/// Limit for the threads of each worker that block on the disk.
const MAX_BLOCKING_THREADS: usize = 32;

/// The running server.
#[derive(Debug)]
pub struct Server {
    workers: Vec<Worker>,
    connections: Arc<AtomicUsize>,
    overload: Overload,
    metrics: Arc<Metrics>,
    /// Whether TCP connections speak TLS: one that is turned away would not understand a 503.
    is_secure: bool,
    limits: Limits,
    draining: watch::Sender<bool>,
}

#[derive(Debug)]
struct Worker {
    connections: Arc<AtomicUsize>,
    queue: mpsc::UnboundedSender<(Accepted, CountGuard)>,
    thread: JoinHandle<()>,
}

impl Server {
    /// Starts `workers` threads. With `tls`, TCP connections speak it; those over Unix sockets
    /// never do. With `proxy_header_from`, connections from these proxies begin with a PROXY header.
    ///
    /// # Errors
    /// When the system has no more threads or descriptors.
    pub fn start(
        handler: LogLayer,
        workers: usize,
        limits: Limits,
        tls: Option<Arc<Tls>>,
        proxy_header_from: Option<TrustedProxies>,
    ) -> io::Result<Self> {
        let draining = watch::Sender::new(false);
        let is_secure = tls.is_some();
        let metrics = Arc::clone(handler.metrics());
        let context = Arc::new(ConnectionContext {
            handler: Arc::new(handler),
            tls,
            builder: connection::builder(&limits),
            limits: limits.clone(),
            proxy_header_from,
            draining: draining.subscribe(),
        });
        let workers = (0..workers)
            .map(|index| Worker::start(index, &context))
            .collect::<io::Result<_>>()?;
        Ok(Self {
            workers,
            connections: Arc::clone(&metrics.connections),
            overload: Overload::new(limits.max_connections),
            metrics,
            is_secure,
            limits,
            draining,
        })
    }

    /// Accepts from all of them, until the future is dropped.
    pub async fn accept(&self, listeners: &[Listener]) -> Infallible {
        let errors = &self.metrics.accept_errors;
        let dispatch = |accepted| self.dispatch(accepted);
        listener::accept_all(listeners, errors, dispatch, |accepted| {
            if !self.expects_tls(&accepted) {
                overload::reject_now(accepted);
            }
        })
        .await
    }

    /// Whether the client waits for a TLS handshake, so that it would not understand a response.
    fn expects_tls(&self, accepted: &Accepted) -> bool {
        self.is_secure && matches!(accepted, Accepted::Tcp(..))
    }

    /// Hands a connection to the worker that has the fewest, or rejects it where there are too many.
    fn dispatch(&self, accepted: Accepted) {
        if self.connections.load(Ordering::Relaxed) >= self.limits.max_connections {
            self.metrics.surplus_connections.increment();
            if !self.expects_tls(&accepted) {
                self.overload.reject(accepted);
            }
            return;
        }
        let least_loaded = self
            .workers
            .iter()
            .min_by_key(|worker| worker.connections.load(Ordering::Relaxed));
        if let Some(worker) = least_loaded {
            let counted = CountGuard::new([&self.connections, &worker.connections]);
            // A worker ends only after its sender here is gone.
            let _ = worker.queue.send((accepted, counted));
        }
    }

    /// How many connections are open.
    pub fn open_connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Closes the listeners and lets every connection finish the request it is in, for `--grace`
    /// at most. Returns whether all did.
    pub async fn finish(self, listeners: Vec<Listener>) -> bool {
        for listener in listeners {
            listener.close(&|accepted| self.dispatch(accepted)).await;
        }
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
        timeout(self.limits.grace, joined).await.is_ok()
    }
}

/// One connection in the counts that it belongs to.
#[derive(Debug)]
struct CountGuard([Arc<AtomicUsize>; 2]);

impl CountGuard {
    fn new(counts: [&Arc<AtomicUsize>; 2]) -> Self {
        Self(counts.map(|count| {
            count.fetch_add(1, Ordering::Relaxed);
            Arc::clone(count)
        }))
    }
}

impl Drop for CountGuard {
    fn drop(&mut self) {
        for count in &self.0 {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// What every connection needs.
struct ConnectionContext {
    handler: Arc<LogLayer>,
    tls: Option<Arc<Tls>>,
    builder: Builder<TokioExecutor>,
    limits: Limits,
    proxy_header_from: Option<TrustedProxies>,
    draining: watch::Receiver<bool>,
}

impl Worker {
    fn start(index: usize, context: &Arc<ConnectionContext>) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(MAX_BLOCKING_THREADS)
            .build()?;
        let (queue, accepted) = mpsc::unbounded_channel();
        let work = work(accepted, Arc::clone(context));
        let thread = thread::Builder::new()
            .name(format!("worker {index}"))
            .spawn(move || runtime.block_on(work))?;
        Ok(Self {
            connections: Arc::default(),
            queue,
            thread,
        })
    }
}

/// Serves the connections that it is handed. Ends when there can be no more, and all have ended.
async fn work(
    mut queue: mpsc::UnboundedReceiver<(Accepted, CountGuard)>,
    context: Arc<ConnectionContext>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            next = queue.recv() => {
                let Some((accepted, counted)) = next else { break };
                let peer = accepted.peer();
                let stream = match accepted.register() {
                    Ok(stream) => stream,
                    Err(error) => {
                        tracing::error!(%error, "cannot serve a connection: {error}");
                        continue;
                    }
                };
                let context = Arc::clone(&context);
                connections.spawn(async move {
                    let _counted = counted;
                    match (stream, &context.tls) {
                        (Stream::Tcp(stream), None) => context.serve(stream, peer).await,
                        (Stream::Unix(stream), _) => context.serve(stream, peer).await,
                        // Boxed: connections without TLS need not keep room for it.
                        (Stream::Tcp(stream), Some(tls)) => {
                            Box::pin(context.serve_secure(tls, stream, peer)).await;
                        }
                    }
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
    while connections.join_next().await.is_some() {}
}

impl ConnectionContext {
    /// The client of a connection. With `--proxy-protocol` a trusted proxy must begin with a PROXY
    /// header that names it, or is closed (`None`); every other peer is its own client.
    async fn read_client<S>(&self, stream: &mut S, peer: Peer) -> Option<Peer>
    where
        S: AsyncRead + Unpin,
    {
        match &self.proxy_header_from {
            Some(proxies) if proxies.trust(peer) => {}
            _ => return Some(peer),
        }
        // Boxed: connections without it need not keep room for it.
        let header = Box::pin(timeout(
            self.limits.header_timeout,
            proxy_protocol::read(stream),
        ));
        let error = match header.await {
            Ok(Ok(client)) => return Some(client.map_or(peer, Peer::from)),
            Ok(Err(error)) => error,
            Err(_) => HeaderError::TimedOut,
        };
        if let HeaderError::Ended(_) = error {
            // Balancers connect and close to check that the port is open: not worth a message.
            return None;
        }
        if self.metrics().proxy_header_failures.get() == 0 {
            tracing::warn!(
                %peer,
                %error,
                "closed a connection of the trusted proxy {peer}: {error}; \
                 further ones are only counted (proxy_header_failures)"
            );
        }
        self.metrics().proxy_header_failures.increment();
        None
    }

    fn metrics(&self) -> &Metrics {
        self.handler.metrics()
    }

    async fn serve<S>(&self, mut stream: S, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Some(peer) = self.read_client(&mut stream, peer).await else {
            return;
        };
        let activity = Arc::new(Activity::new(peer));
        let socket = MeteredSocket::new(stream, &activity);
        self.serve_stream(socket, activity).await;
    }

    /// The handshake has as long as a header section.
    async fn serve_secure(&self, tls: &Tls, mut stream: TcpStream, peer: Peer) {
        let Some(peer) = self.read_client(&mut stream, peer).await else {
            return;
        };
        let begins = timeout(
            self.limits.header_timeout,
            plaintext::is_plain_http(&stream),
        );
        match begins.await {
            Ok(Ok(false)) => {}
            Ok(Ok(true)) => {
                self.metrics().plain_http.increment();
                return plaintext::reject(stream).await;
            }
            Ok(Err(_)) | Err(_) => return,
        }
        let activity = Arc::new(Activity::new(peer).over_tls());
        let socket = MeteredSocket::new(stream, &activity);
        let handshake = tls.acceptor().accept(socket);
        match timeout(self.limits.header_timeout, handshake).await {
            Ok(Ok(stream)) => self.serve_stream(stream, activity).await,
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed: {error}"),
            Err(_) => {
                let seconds = self.limits.header_timeout.as_secs_f64();
                tracing::debug!(seconds, "TLS handshake timed out");
            }
        }
    }

    async fn serve_stream<S>(&self, stream: S, activity: Arc<Activity>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let handler = Arc::clone(&self.handler);
        let draining = self.draining.clone();
        connection::serve(
            stream,
            activity,
            handler,
            &self.builder,
            &self.limits,
            draining,
        )
        .await;
    }
}

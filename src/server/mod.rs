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
mod socket;
mod time_slice;
pub mod tls;
mod transport;

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::client::{Peer, TrustedProxies};
use crate::metrics::Metrics;
use crate::service::LogLayer;
use crate::settings::Limits;
use activity::Activity;
use connection::HyperBuilder;
use listener::{Accepted, Listener};
use metered_io::MeteredSocket;
use overload::Overload;
use proxy_protocol::HeaderError;
use socket::Socket;
use tls::Tls;
use transport::Transport;

/// Limit for the threads of each worker that block on the disk.
const MAX_BLOCKING_THREADS: usize = 32;

/// The public listeners of a server.
#[derive(Debug)]
pub struct Listeners {
    /// Those of the site.
    pub site: Vec<Listener>,
    /// Those that redirect to HTTPS.
    pub redirect: Vec<Listener>,
}

/// What answers the connections of a server.
pub struct Handlers {
    /// Those of the site's listeners.
    pub site: LogLayer,
    /// Those that are redirected to HTTPS; `None` where there is no listener for them.
    pub redirect: Option<LogLayer>,
}

/// The running server.
pub struct Server {
    workers: Vec<Worker>,
    connections: Arc<AtomicUsize>,
    overload: Overload,
    metrics: Arc<Metrics>,
    site: Arc<ConnectionContext>,
    redirect: Option<Arc<ConnectionContext>>,
    draining: watch::Sender<bool>,
}

#[derive(Debug)]
struct Worker {
    connections: Arc<AtomicUsize>,
    queue: mpsc::UnboundedSender<Admitted>,
    thread: JoinHandle<()>,
}

/// A connection on its way to a worker.
struct Admitted {
    accepted: Accepted,
    context: Arc<ConnectionContext>,
    counted: CountGuard,
}

impl Server {
    /// Starts `workers` threads. With `tls`, TCP connections to the site speak it; those over Unix
    /// sockets never do, nor do those that are redirected to HTTPS. With `proxy_header_from`, connections from
    /// these proxies begin with a PROXY header.
    ///
    /// # Errors
    /// When the system has no more threads or descriptors.
    pub fn start(
        handlers: Handlers,
        workers: usize,
        limits: Limits,
        tls: Option<Arc<Tls>>,
        proxy_header_from: Option<TrustedProxies>,
    ) -> io::Result<Self> {
        let draining = watch::Sender::new(false);
        let metrics = Arc::clone(handlers.site.metrics());
        let overload = Overload::new(limits.max_connections);
        let context = |handler, tls| {
            Arc::new(ConnectionContext {
                handler: Arc::new(handler),
                tls,
                builder: HyperBuilder::new(&limits),
                limits: limits.clone(),
                proxy_header_from: proxy_header_from.clone(),
                draining: draining.subscribe(),
            })
        };
        let site = context(handlers.site, tls);
        let redirect = handlers.redirect.map(|handler| context(handler, None));
        let workers = (0..workers).map(Worker::start).collect::<io::Result<_>>()?;
        Ok(Self {
            workers,
            connections: Arc::clone(&metrics.connections),
            overload,
            metrics,
            site,
            redirect,
            draining,
        })
    }

    /// Accepts from all of them, until the future is dropped.
    pub async fn accept(&self, listeners: &Listeners) -> Infallible {
        tokio::select! {
            never = self.accept_for(Some(&self.site), &listeners.site) => match never {},
            never = self.accept_for(self.redirect.as_ref(), &listeners.redirect) => match never {},
        }
    }

    /// Accepts for one context; without one there are no listeners, and it never ends either.
    async fn accept_for(
        &self,
        context: Option<&Arc<ConnectionContext>>,
        listeners: &[Listener],
    ) -> Infallible {
        let Some(context) = context else {
            return pending().await;
        };
        let errors = &self.metrics.accept_errors;
        let dispatch = |accepted| self.dispatch(accepted, context);
        listener::accept_all(listeners, errors, dispatch, |accepted| {
            // Who waits for a handshake would not understand a response.
            if context.tls_for(accepted.peer).is_none() {
                overload::reject_now(accepted);
            }
        })
        .await
    }

    /// Hands a connection to the worker that has the fewest, or rejects it where there are too many.
    fn dispatch(&self, accepted: Accepted, context: &Arc<ConnectionContext>) {
        if self.connections.load(Ordering::Relaxed) >= context.limits.max_connections {
            self.metrics.surplus_connections.increment();
            if context.tls_for(accepted.peer).is_none() {
                self.overload.reject(accepted);
            }
            return;
        }
        let least_loaded = self
            .workers
            .iter()
            .min_by_key(|worker| worker.connections.load(Ordering::Relaxed));
        if let Some(worker) = least_loaded {
            // A worker ends only after its sender here is gone.
            let _ = worker.queue.send(Admitted {
                accepted,
                context: Arc::clone(context),
                counted: CountGuard::new([&self.connections, &worker.connections]),
            });
        }
    }

    /// How many connections are open.
    pub fn open_connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Closes the listeners and lets every connection finish the request it is in, for `--grace`
    /// at most. Returns whether all did.
    pub async fn finish(self, listeners: Listeners) -> bool {
        for listener in listeners.site {
            let dispatch = |accepted| self.dispatch(accepted, &self.site);
            listener.close(&dispatch).await;
        }
        if let Some(context) = &self.redirect {
            for listener in listeners.redirect {
                let dispatch = |accepted| self.dispatch(accepted, context);
                listener.close(&dispatch).await;
            }
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
        timeout(self.site.limits.grace, joined).await.is_ok()
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
    builder: HyperBuilder,
    limits: Limits,
    proxy_header_from: Option<TrustedProxies>,
    draining: watch::Receiver<bool>,
}

impl Worker {
    fn start(index: usize) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(MAX_BLOCKING_THREADS)
            .build()?;
        let (queue, admitted) = mpsc::unbounded_channel();
        let thread = thread::Builder::new()
            .name(format!("worker {index}"))
            .spawn(move || {
                time_slice::shorten();
                runtime.block_on(work(admitted));
            })?;
        Ok(Self {
            connections: Arc::default(),
            queue,
            thread,
        })
    }
}

/// Serves the connections that it is handed. Ends when there can be no more, and all have ended.
async fn work(mut queue: mpsc::UnboundedReceiver<Admitted>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            next = queue.recv() => {
                let Some(Admitted { accepted, context, counted }) = next else { break };
                let peer = accepted.peer;
                let socket = match Socket::new(accepted.socket) {
                    Ok(socket) => socket,
                    Err(error) => {
                        tracing::error!(%error, "cannot serve a connection: {error}");
                        continue;
                    }
                };
                connections.spawn(async move {
                    let _counted = counted;
                    match context.tls_for(peer) {
                        // Boxed: connections without TLS need not keep room for it.
                        Some(tls) => Box::pin(context.serve_secure(tls, socket, peer)).await,
                        None => context.serve(socket, peer).await,
                    }
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
    while connections.join_next().await.is_some() {}
}

impl ConnectionContext {
    /// The TLS that a client has to speak. Over a Unix socket none does.
    fn tls_for(&self, peer: Peer) -> Option<&Tls> {
        self.tls.as_deref().filter(|_| peer != Peer::Unix)
    }

    /// The client of a connection. With `--proxy-protocol` a trusted proxy must begin with a PROXY
    /// header that names it, or is closed (`None`); every other peer is its own client.
    async fn read_client(&self, socket: &mut Socket, peer: Peer) -> Option<Peer> {
        match &self.proxy_header_from {
            Some(proxies) if proxies.trust(peer) => {}
            _ => return Some(peer),
        }
        // Boxed: connections without it need not keep room for it.
        let header = Box::pin(timeout(
            self.limits.header_timeout,
            proxy_protocol::read(socket),
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

    async fn serve(&self, mut socket: Socket, peer: Peer) {
        let Some(peer) = self.read_client(&mut socket, peer).await else {
            return;
        };
        let activity = Arc::new(Activity::new(peer));
        let socket = MeteredSocket::new(socket, &activity, self.limits.write_timeout);
        self.serve_stream(socket, activity).await;
    }

    /// The handshake has as long as a header section.
    async fn serve_secure(&self, tls: &Tls, mut socket: Socket, peer: Peer) {
        let Some(peer) = self.read_client(&mut socket, peer).await else {
            return;
        };
        let begins = timeout(
            self.limits.header_timeout,
            plaintext::is_plain_http(&socket),
        );
        match begins.await {
            Ok(Ok(false)) => {}
            Ok(Ok(true)) => {
                self.metrics().plain_http.increment();
                return plaintext::reject(socket).await;
            }
            Ok(Err(_)) | Err(_) => return,
        }
        let activity = Arc::new(Activity::new(peer).over_tls());
        let socket = MeteredSocket::new(socket, &activity, self.limits.write_timeout);
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

    async fn serve_stream(&self, stream: impl Transport, activity: Arc<Activity>) {
        let handler = Arc::clone(&self.handler);
        connection::serve(
            stream,
            activity,
            handler,
            &self.builder,
            &self.limits,
            &self.draining,
        )
        .await;
    }
}

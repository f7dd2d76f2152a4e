//! The admin listener: [`Admin`]'s responses on the wire, in plain HTTP.
//!
//! It has a thread of its own: it answers while the start is busy, and no load on it takes more
//! than that thread, and a few for manifests, from the public side.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io::{self, Write};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use bytesize::ByteSize;
use http::request::Parts;
use http::{HeaderValue, Method, Response, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::activity::Activity;
use super::connection::{self, HyperBuilder};
use super::listener::{self, Accepted, BoundSocket, ListenError, Listener};
use super::metered_io::MeteredSocket;
use super::overload::Overload;
use super::socket::Socket;
use crate::admin::{Admin, AdminContent};
use crate::answer::host;
use crate::manifest::Manifest;
use crate::service::{Framing, Handler, InFlight};
use crate::settings::{AllowedHost, Limits, is_host_allowed};

/// Limit for manifests that are written at once; each takes a thread that waits for its client.
const MAX_WRITERS: usize = 2;
/// A manifest is written in chunks of this many bytes: one is being filled, two are queued.
const CHUNK_SIZE: usize = 64 << 10;

/// Few clients, all of them known.
const LIMITS: Limits = Limits {
    grace: Duration::from_secs(1),
    max_connections: 256,
    header_timeout: Duration::from_secs(5),
    idle_timeout: Duration::from_secs(75),
    write_timeout: Duration::from_secs(10),
    max_header_size: ByteSize::kib(16),
};

/// Why the admin listener cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address can't be had.
    #[error("--admin: {0}")]
    Listen(#[from] ListenError),
    /// The system refuses what it takes.
    #[error("cannot start the admin listener: {0}")]
    Start(#[from] io::Error),
}

/// The running admin listener. Dropping it ends it.
#[derive(Debug)]
pub struct AdminServer {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl AdminServer {
    /// Listens and answers from now on; without sockets, there is none. Requests to a loopback address
    /// may name an address, `localhost` or one of `allowed`.
    ///
    /// # Errors
    /// When an address is taken, or the system has no more threads or descriptors.
    pub fn start(
        bound: Vec<BoundSocket>,
        admin: Arc<Admin>,
        allowed: Vec<AllowedHost>,
    ) -> Result<Option<Self>, AdminError> {
        if bound.is_empty() {
            return Ok(None);
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let entered = runtime.enter();
        let listeners: Vec<_> = bound
            .into_iter()
            .map(BoundSocket::listen)
            .collect::<Result<_, _>>()?;
        for listener in &listeners {
            let url = listener.url(false);
            tracing::info!(%url, "admin on {url}");
        }
        drop(entered);
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("admin".to_owned())
            .spawn(move || {
                runtime.block_on(serve(listeners, admin, allowed, stopped));
                // A client that reads slowly is not waited for.
                runtime.shutdown_background();
            })?;
        Ok(Some(Self {
            stop: Some(stop),
            thread: Some(thread),
        }))
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Answers until `stopped`. Responses under way are cut then.
async fn serve(
    listeners: Vec<Listener>,
    admin: Arc<Admin>,
    allowed: Vec<AllowedHost>,
    stopped: oneshot::Receiver<()>,
) {
    let writers = Arc::new(Semaphore::new(MAX_WRITERS));
    let handler = |allowed| {
        Arc::new(AdminHandler {
            admin: Arc::clone(&admin),
            builder: HyperBuilder::new(&LIMITS),
            draining: watch::Sender::new(false),
            writers: Arc::clone(&writers),
            allowed,
        })
    };
    let room = Arc::new(Semaphore::new(LIMITS.max_connections));
    let overload = Overload::new(LIMITS.max_connections);
    let dispatcher_to = |handler: Arc<AdminHandler>| {
        let (room, overload) = (&room, &overload);
        move |accepted: Accepted| {
            let Ok(place) = Arc::clone(room).try_acquire_owned() else {
                overload.reject(accepted);
                return;
            };
            let handler = Arc::clone(&handler);
            let activity = Arc::new(Activity::new(accepted.peer));
            tokio::spawn(async move {
                match Socket::new(accepted.socket) {
                    Ok(socket) => handler.serve(socket, activity).await,
                    Err(error) => tracing::error!(%error, "cannot serve a connection: {error}"),
                }
                drop(place);
            });
        }
    };
    // Other listeners are asked by name: by Prometheus, in a compose network.
    let (loopback, other): (Vec<_>, Vec<_>) =
        listeners.into_iter().partition(Listener::is_loopback);
    let to_loopback = dispatcher_to(handler(Some(allowed)));
    let to_other = dispatcher_to(handler(None));
    let errors = &admin.metrics().accept_errors;
    tokio::select! {
        never = listener::accept_all(&loopback, errors, &to_loopback, &to_loopback) => match never {},
        never = listener::accept_all(&other, errors, &to_other, &to_other) => match never {},
        _ = stopped => {}
    }
}

/// Answers operators.
struct AdminHandler {
    admin: Arc<Admin>,
    builder: HyperBuilder,
    /// Never set: the operator is answered to the end.
    draining: watch::Sender<bool>,
    writers: Arc<Semaphore>,
    /// The names that a request may have as its host; `None` for any.
    allowed: Option<Vec<AllowedHost>>,
}

impl AdminHandler {
    /// Whether the host that a request names may be this machine. A page that is open in a browser
    /// can have its own name resolve to a loopback address (DNS rebinding) and read what is here.
    fn is_host_allowed(&self, request: &Parts) -> bool {
        match (&self.allowed, host(request)) {
            (None, _) => true,
            (Some(allowed), Some(host)) => is_host_allowed(host, allowed),
            // HTTP/1.0 needs none. One that can't be read was refused before.
            (Some(_), None) => true,
        }
    }

    async fn serve(self: Arc<Self>, socket: Socket, activity: Arc<Activity>) {
        let socket = MeteredSocket::new(socket, &activity, LIMITS.write_timeout);
        let (handler, draining) = (Arc::clone(&self), self.draining.subscribe());
        connection::serve(socket, activity, handler, &self.builder, &LIMITS, &draining).await;
    }
}

impl Handler for AdminHandler {
    type Body = AdminBody;
    type Future = Ready<Result<Response<AdminBody>, Infallible>>;

    fn respond(self: &Arc<Self>, request: Parts, _: Incoming, in_flight: InFlight) -> Self::Future {
        let framing = Framing::of(&request);
        let response = match framing.refusal() {
            Some((status, reason)) => Admin::refuse(status, reason),
            None if self.is_host_allowed(&request) => self.admin.respond(&request),
            None => Admin::refuse_host(),
        };
        let (mut head, content) = response.into_parts();
        // Each response has content, or its length where only HEAD is asked for and it is known.
        framing.finish_head(&mut head, false, || false);
        let content = match content {
            AdminContent::Text(text) if request.method == Method::HEAD => {
                let length = HeaderValue::from(text.len());
                head.headers.insert(header::CONTENT_LENGTH, length);
                AdminBodyContent::Text(None)
            }
            AdminContent::Manifest(_) if request.method == Method::HEAD => {
                AdminBodyContent::Text(None)
            }
            AdminContent::Text(text) => AdminBodyContent::Text(Some(text)),
            AdminContent::Manifest(manifest) => {
                AdminBodyContent::Chunks(write_json(manifest, Arc::clone(&self.writers)))
            }
        };
        let body = AdminBody {
            content,
            _responding: in_flight,
        };
        ready(Ok(Response::from_parts(head, body)))
    }

    fn note_malformed(&self) {}

    fn note_flood(&self) {}
}

/// Content on its way.
struct AdminBody {
    content: AdminBodyContent,
    _responding: InFlight,
}

enum AdminBodyContent {
    Text(Option<Bytes>),
    Chunks(mpsc::Receiver<Chunk>),
}

/// A piece of what is being written.
enum Chunk {
    Bytes(Bytes),
    End,
}

impl Body for AdminBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut self.content {
            AdminBodyContent::Text(text) => {
                Poll::Ready(text.take().map(|text| Ok(Frame::data(text))))
            }
            AdminBodyContent::Chunks(chunks) => chunks.poll_recv(cx).map(|chunk| match chunk {
                Some(Chunk::Bytes(bytes)) => Some(Ok(Frame::data(bytes))),
                Some(Chunk::End) => None,
                // The writer stopped early: end with an error, so that it does not look complete.
                None => Some(Err(io::ErrorKind::UnexpectedEof.into())),
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.content, AdminBodyContent::Text(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            AdminBodyContent::Text(text) => {
                SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64))
            }
            AdminBodyContent::Chunks(_) => SizeHint::default(),
        }
    }
}

/// Writes a manifest on a thread that may wait for the client, piece by piece.
fn write_json(manifest: Arc<Manifest>, writers: Arc<Semaphore>) -> mpsc::Receiver<Chunk> {
    let (sender, chunks) = mpsc::channel(1);
    tokio::spawn(async move {
        let _writing = tokio::select! {
            writing = writers.acquire_owned() => writing,
            () = sender.closed() => return,
        };
        let written = tokio::task::spawn_blocking(move || {
            let mut out = Chunks {
                buffer: Vec::with_capacity(CHUNK_SIZE),
                sender,
            };
            manifest.write_json(&mut out)?;
            out.flush()?;
            out.send(Chunk::End)
        });
        // It fails where the client is gone.
        let _ = written.await;
    });
    chunks
}

/// Collects what is written, and sends it in pieces.
struct Chunks {
    buffer: Vec<u8>,
    sender: mpsc::Sender<Chunk>,
}

impl Chunks {
    fn send(&self, chunk: Chunk) -> io::Result<()> {
        self.sender
            .blocking_send(chunk)
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + bytes.len() > CHUNK_SIZE {
            self.flush()?;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let full = mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK_SIZE));
        self.send(Chunk::Bytes(full.into()))
    }
}

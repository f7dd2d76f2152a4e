//! A response on its way through the layers.

use std::error::Error;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;

use super::content::FileContent;
use crate::body::Segments;
use crate::exchange::AnswerSummary;
use crate::memory::SealedUse;
use crate::semantics::etag::ETag;

/// Why a body that a layer sends has ended early.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// A response whose content is still to be proven.
pub(super) type Draft = Response<DraftContent>;

/// Content that is not fit to be sent yet.
pub(super) enum DraftContent {
    /// Nothing to prove: it is the memory that was hashed, or not of a file.
    Memory(Bytes),
    /// Part of it may be in files.
    Segments(Segments),
}

/// A response without content, with room for so many fields.
pub(super) fn empty(status: StatusCode, fields: usize) -> Draft {
    let mut draft = Response::new(DraftContent::Memory(Bytes::new()));
    *draft.status_mut() = status;
    *draft.headers_mut() = HeaderMap::with_capacity(fields);
    draft
}

/// The content of a response.
pub enum Content {
    /// All of it, in memory.
    Memory(Bytes),
    /// Read from files, and proven, while it is sent.
    File(Box<FileContent>),
    /// Not of the site: what a layer in front of it sends, as it comes.
    Boxed(UnsyncBoxBody<Bytes, BoxError>),
}

impl Content {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Memory(bytes) if bytes.is_empty())
    }

    /// Its length in bytes, where it is known.
    pub fn length(&self) -> Option<u64> {
        match self {
            Self::Memory(bytes) => Some(bytes.len() as u64),
            Self::File(file) => Some(file.length()),
            Self::Boxed(_) => None,
        }
    }
}

/// What a layer replies: a response, and what the access log and the counters want to know of it.
pub struct Reply {
    /// The response. What every response says is still to be added.
    pub response: Response<Content>,
    /// What was decided.
    pub summary: AnswerSummary,
}

/// Whether content of files can be sent at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FilesAtOnce {
    /// No: the connection takes bytes alone.
    Never,
    /// What is in sealed memory.
    Sealed,
    /// The same, and what is worth it is to be sealed first.
    AfterSealing,
}

/// The outcome of a plain request where memory alone is asked.
pub enum AtOnce<R, S = ()> {
    /// There is a response, whose head is written.
    Reply(R),
    /// Nothing is written. The content is worth being sealed: once that has ended, ask again.
    Sealing(SealingFuture<S>),
    /// Nothing is written: hyper has to read the request, and the layers to respond to it.
    NeedsHyper,
}

impl<R, S> AtOnce<R, S> {
    /// The same with what becomes of the response.
    pub fn map<T>(self, become_of: impl FnOnce(R) -> T) -> AtOnce<T, S> {
        match self {
            Self::Reply(reply) => AtOnce::Reply(become_of(reply)),
            Self::Sealing(sealing) => AtOnce::Sealing(sealing),
            Self::NeedsHyper => AtOnce::NeedsHyper,
        }
    }
}

/// Ends when some content is sealed, or can't be, with what is to be known when it is asked for again.
pub type SealingFuture<S = ()> = Pin<Box<dyn Future<Output = S> + Send>>;

/// The content of a response that needs nothing but memory.
pub enum MemoryContent {
    /// Bytes of this process.
    Bytes(Bytes),
    /// Bytes that lie in sealed memory.
    Sealed(SealedPart),
}

impl MemoryContent {
    /// Its length in bytes.
    pub fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Sealed(part) => part.length,
        }
    }
}

/// A part of sealed content.
pub struct SealedPart {
    /// The whole of it.
    pub content: SealedUse,
    /// Where the part begins.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
}

/// What a layer replies to a plain request where it needs nothing but memory. Status line and
/// fields are written already, apart from what every response says.
pub struct MemoryReply {
    /// The status.
    pub status: StatusCode,
    /// The tag that was sent.
    pub tag: Option<ETag>,
    /// The content that follows the head.
    pub content: MemoryContent,
    /// What was decided.
    pub summary: AnswerSummary,
}

impl From<Response<Content>> for Reply {
    fn from(response: Response<Content>) -> Self {
        Self {
            response,
            summary: AnswerSummary::default(),
        }
    }
}

impl From<Response<Bytes>> for Reply {
    fn from(response: Response<Bytes>) -> Self {
        response.map(Content::Memory).into()
    }
}

/// A reply that is there, or one that waits for the disk, a client or another server.
#[allow(
    clippy::large_enum_variant,
    reason = "a reply that is there must not cost an allocation"
)]
pub enum ResponseFuture {
    /// There.
    Now(Ready<Reply>),
    /// Waiting.
    Later(Pin<Box<dyn Future<Output = Reply> + Send>>),
}

impl ResponseFuture {
    /// A reply that is there.
    pub fn now(reply: impl Into<Reply>) -> Self {
        Self::Now(ready(reply.into()))
    }

    /// A reply that has to be waited for.
    pub fn later(reply: impl Future<Output = Reply> + Send + 'static) -> Self {
        Self::Later(Box::pin(reply))
    }

    /// Calls `change` with the reply as soon as it is there.
    #[must_use]
    pub fn change(self, change: impl FnOnce(&mut Reply) + Send + 'static) -> Self {
        match self {
            Self::Now(ready) => {
                let mut reply = ready.into_inner();
                change(&mut reply);
                Self::now(reply)
            }
            Self::Later(later) => Self::later(async move {
                let mut reply = later.await;
                change(&mut reply);
                reply
            }),
        }
    }
}

impl Future for ResponseFuture {
    type Output = Reply;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Reply> {
        match self.get_mut() {
            Self::Now(ready) => Pin::new(ready).poll(cx),
            Self::Later(later) => later.as_mut().poll(cx),
        }
    }
}

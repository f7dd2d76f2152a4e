//! What stands in front of hyper: it answers plain requests that need nothing but memory, and costs
//! a connection next to nothing meanwhile.
//!
//! hyper keeps a buffer of 8 KiB, a map of fields and several futures for each connection. With
//! thousands of connections these are in no cache when the next request comes, and make a third of
//! what a 304 costs. Here all connections of a worker read into the same memory, its stack, and
//! write heads that were made before.
//!
//! Content of files that is asked for again and again lies in sealed memory, which the kernel sends
//! without a copy where nothing has to be encrypted; a request that is worth it waits until it does.
//!
//! It never refuses anything. Whatever is not a [`PlainHead`], or has an answer that memory does not
//! hold, is handed over: hyper reads the same bytes again, and the connection is its own until it has
//! answered all that it has read. So what is malformed, what has content and what says more of the
//! connection than that it stays has one reader. What the front takes, hyper would have taken for the
//! same request: the parser is the same (RFC 9112 section 11.2 says what becomes of two that differ).

use std::io::{self, IoSlice};
use std::mem::{self, MaybeUninit};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Buf;
use tokio::io::ReadBuf;

use super::activity::Activity;
use super::rewound::Rewound;
use super::transport::Transport;
use crate::semantics::plain::{Begun, FieldSpace, MAX_HEAD, PlainHead};
use crate::service::{
    AtOnce, Connection, CountedExchange, FilesAtOnce, FrontContent, Handler, SealingFuture,
};

/// Bytes that are read at once: two of the longest heads.
const READ_SIZE: usize = 2 * MAX_HEAD;
/// Limit for the requests of one connection that are answered before others have their turn.
const MAX_REQUESTS_PER_TURN: u32 = 16;
/// Room for the head of a common response.
const USUAL_HEAD: usize = 512;

/// A connection for as long as its requests are plain.
pub(super) struct Front<S> {
    stream: S,
    /// What has come of requests that are not answered yet.
    received: Vec<u8>,
    outgoing: Outgoing,
    next: NextStep,
    /// What the request that is answered next waits for. Given up, it is counted and logged as such.
    sealing: Option<SealingFuture<CountedExchange>>,
    /// Since when somebody answers that request, if it has waited.
    began: Option<Instant>,
    is_closing: bool,
}

/// What to do once everything is sent. Nothing is read before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum NextStep {
    /// Read more: what was received is not a whole request.
    Read,
    /// Answer what was received.
    Answer,
    /// The same, once some content is sealed, or can't be.
    AnswerLater,
    HandOver,
    Close,
}

/// Why a front has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Leave {
    /// The connection is closed.
    Closed,
    /// What comes next is for hyper.
    ForHyper,
}

impl<S> Front<S> {
    /// Goes on with a stream of which this was received already.
    pub(super) fn new(stream: S, received: Vec<u8>) -> Self {
        let next = match received.is_empty() {
            true => NextStep::Read,
            false => NextStep::Answer,
        };
        Self {
            stream,
            received,
            outgoing: Outgoing::default(),
            next,
            sealing: None,
            began: None,
            is_closing: false,
        }
    }

    /// What was received and not answered.
    pub(super) fn received(&self) -> &[u8] {
        &self.received
    }

    /// The stream, with what was received and not answered; and since when somebody answers the
    /// first request in it.
    pub(super) fn into_stream(self) -> (Rewound<S>, Instant) {
        let began = self.began.unwrap_or_else(Instant::now);
        (Rewound::new(self.received, self.stream), began)
    }

    /// Has the connection end as soon as nothing of a request is there.
    pub(super) fn close_when_idle(&mut self) {
        self.is_closing = true;
    }
}

impl<S: Transport> Front<S> {
    /// Reads and answers requests for as long as they are plain.
    ///
    /// # Errors
    /// As the stream's.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        handler: &Arc<impl Handler>,
        activity: &Activity,
    ) -> Poll<io::Result<Leave>> {
        let mut left = MAX_REQUESTS_PER_TURN;
        loop {
            ready!(self.outgoing.poll_send(&mut self.stream, cx))?;
            match self.next {
                // The requests of whoever sends many at once must not keep others waiting.
                NextStep::Answer if left == 0 => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                NextStep::Answer => {
                    let received = mem::take(&mut self.received);
                    let files = FileTreatment::new::<S>();
                    self.answer(&received, handler, activity, files, &mut left);
                }
                NextStep::AnswerLater => {
                    let mut waited = None;
                    if let Some(sealing) = &mut self.sealing {
                        waited = Some(ready!(sealing.as_mut().poll(cx)));
                        self.sealing = None;
                        activity.end_response();
                    }
                    // Once: if it could not be sealed, that is told where it is read.
                    let at_once = FilesAtOnce::Sealed;
                    let received = mem::take(&mut self.received);
                    let files = FileTreatment { at_once, waited };
                    self.answer(&received, handler, activity, files, &mut left);
                }
                NextStep::Read if self.is_closing => {
                    self.next = match self.received.is_empty() {
                        true => NextStep::Close,
                        false => NextStep::HandOver,
                    };
                }
                NextStep::Read => {
                    // Not before: while a client takes what it has asked for, nothing of it is late.
                    if !self.received.is_empty() {
                        activity.note_received();
                    }
                    ready!(self.poll_receive(cx, handler, activity, &mut left))?;
                }
                NextStep::HandOver => return Poll::Ready(Ok(Leave::ForHyper)),
                NextStep::Close => {
                    ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
                    return Poll::Ready(Ok(Leave::Closed));
                }
            }
        }
    }

    /// Reads what has come, and answers what it completes.
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        handler: &Arc<impl Handler>,
        activity: &Activity,
        left: &mut u32,
    ) -> Poll<io::Result<()>> {
        // On the stack, which is the same memory for all connections of a worker.
        let mut space = [const { MaybeUninit::<u8>::uninit() }; READ_SIZE];
        let mut buffer = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        let new = buffer.filled();
        if new.is_empty() {
            // A client may close its side and still read (RFC 9112 section 9.6): all is answered.
            self.next = match self.received.is_empty() {
                true => NextStep::Close,
                false => NextStep::HandOver,
            };
        } else if self.received.is_empty() {
            self.answer(new, handler, activity, FileTreatment::new::<S>(), left);
        } else {
            let mut received = mem::take(&mut self.received);
            received.extend_from_slice(new);
            self.answer(
                &received,
                handler,
                activity,
                FileTreatment::new::<S>(),
                left,
            );
        }
        Poll::Ready(Ok(()))
    }

    /// Answers the requests that `bytes` begin with, up to one that has content or is not for the
    /// front, and keeps the rest.
    fn answer(
        &mut self,
        bytes: &[u8],
        handler: &Arc<impl Handler>,
        activity: &Activity,
        mut files: FileTreatment,
        left: &mut u32,
    ) {
        let mut rest = bytes;
        self.next = loop {
            if *left == 0 || !self.outgoing.content.is_empty() {
                break NextStep::Answer;
            }
            let mut space = FieldSpace::new();
            let (request, length) = match PlainHead::read(rest, &mut space) {
                Begun::Plain(request, length) => (request, length),
                Begun::Incomplete => break NextStep::Read,
                Begun::Other => break NextStep::HandOver,
            };
            let FileTreatment { at_once, waited } = files;
            let head = self.outgoing.head_for_more();
            let outcome = handler.respond_at_once(&request, activity, at_once, waited, head);
            self.outgoing.content = match outcome {
                AtOnce::Reply(content) => content,
                AtOnce::Sealing(sealing) => {
                    // A response is under way: no limit on idleness is.
                    activity.begin_response(false);
                    self.sealing = Some(sealing);
                    self.began = Some(Instant::now());
                    break NextStep::AnswerLater;
                }
                AtOnce::Elsewhere => break NextStep::HandOver,
            };
            self.began = None;
            files = FileTreatment::new::<S>();
            rest = rest.get(length..).unwrap_or_default();
            *left -= 1;
        };
        if rest.len() < bytes.len() {
            activity.note_answered();
        }
        if !rest.is_empty() {
            self.received = rest.to_vec();
        } else if self.next == NextStep::Answer {
            self.next = NextStep::Read;
        }
    }
}

/// How the next request is answered if its content is in a file.
struct FileTreatment {
    at_once: FilesAtOnce,
    /// What is known of it, if it has waited for that.
    waited: Option<CountedExchange>,
}

impl FileTreatment {
    /// As every request over such a stream, at first.
    fn new<S: Transport>() -> Self {
        Self {
            at_once: S::FILES_AT_ONCE,
            waited: None,
        }
    }
}

/// What is to be sent: heads of responses, and the content of the last of them.
#[derive(Default)]
struct Outgoing {
    heads: Vec<u8>,
    /// Bytes of `heads` that were sent.
    sent: usize,
    content: FrontContent,
    is_flushed: bool,
}

impl Outgoing {
    /// Where the next head goes.
    fn head_for_more(&mut self) -> &mut Vec<u8> {
        self.is_flushed = false;
        if self.heads.capacity() == 0 {
            self.heads.reserve(USUAL_HEAD);
        }
        &mut self.heads
    }

    /// Sends all of it.
    fn poll_send<S: Transport>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let heads = self.heads.get(self.sent..).unwrap_or_default();
            let has_content = !self.content.is_empty();
            let written = match &mut self.content {
                _ if heads.is_empty() && !has_content => break,
                FrontContent::Bytes(bytes) => poll_write(stream, cx, heads, bytes),
                FrontContent::Sealed(_) if !heads.is_empty() => {
                    stream.poll_send_more(cx, heads, has_content)
                }
                FrontContent::Sealed(content) => stream.poll_send_sealed(cx, content),
            };
            let written = ready!(written)?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_heads = written.min(heads.len());
            self.sent += of_heads;
            if let FrontContent::Bytes(bytes) = &mut self.content {
                bytes.advance(written - of_heads);
            }
        }
        // An idle connection keeps nothing.
        (self.heads, self.content, self.sent) = (Vec::new(), FrontContent::default(), 0);
        if !self.is_flushed {
            // TLS may hold records that the socket did not take.
            ready!(Pin::new(stream).poll_flush(cx))?;
            self.is_flushed = true;
        }
        Poll::Ready(Ok(()))
    }
}

/// Writes from the first of the two that is not empty, and from the other with it.
fn poll_write<S: Transport>(
    stream: &mut S,
    cx: &mut Context<'_>,
    heads: &[u8],
    content: &[u8],
) -> Poll<io::Result<usize>> {
    let stream = Pin::new(stream);
    match (heads.is_empty(), content.is_empty()) {
        (false, true) => stream.poll_write(cx, heads),
        (true, _) => stream.poll_write(cx, content),
        (false, false) => {
            stream.poll_write_vectored(cx, &[IoSlice::new(heads), IoSlice::new(content)])
        }
    }
}

//! What stands in front of hyper: it answers plain requests that need nothing but memory, and costs
//! a connection next to nothing meanwhile.
//!
//! hyper keeps a buffer of 8 KiB, a map of fields and several futures for each connection. With
//! thousands of connections these are in no cache when the next request comes, and make a third of
//! what a 304 costs. Here all connections of a worker read into the same memory, and write heads
//! that were made before.
//!
//! Content of files that is asked for again and again lies in sealed memory, which the kernel sends
//! without a copy where nothing has to be encrypted; a request that is worth it waits until it does.
//!
//! It never refuses anything. Whatever is not a [`PlainHead`], or has an answer that memory does not
//! hold, is handed over: hyper reads the same bytes again, and the connection is its own until it has
//! answered all that it has read. So what is malformed, what has content and what says more of the
//! connection than that it stays has one reader. What the front takes, hyper would have taken for the
//! same request: the parser is the same (RFC 9112 section 11.2 says what becomes of two that differ).

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Buf;
use tokio::io::ReadBuf;

use super::activity::Activity;
use super::rewound::Rewound;
use super::transport::Transport;
use crate::semantics::plain::{FieldSpace, HeadParse, MAX_HEAD, PlainHead};
use crate::service::{
    AtOnce, Connection as _, CountedExchange, FilesAtOnce, FrontContent, FrontRequest, Handler,
    SealingFuture,
};

/// Bytes that are read at once: two of the longest heads.
const READ_SIZE: usize = 2 * MAX_HEAD;
/// Limit for the requests of one connection that are answered before others have their turn.
const MAX_REQUESTS_PER_TURN: u32 = 16;
/// The same for the bytes of their responses, which a client may take as fast as they are sent.
const MAX_BYTES_PER_TURN: usize = 4 << 20;
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
    /// Since when that request has waited, if it has.
    waiting_since: Option<Instant>,
    has_answered: bool,
    is_closing: bool,
}

/// What a connection may still do before others have their turn.
pub(super) struct Turn {
    requests: u32,
    bytes: usize,
}

impl Turn {
    /// The beginning of one.
    pub(super) fn new() -> Self {
        Self {
            requests: MAX_REQUESTS_PER_TURN,
            bytes: MAX_BYTES_PER_TURN,
        }
    }

    /// Counts a request that somebody else has answered.
    pub(super) fn count_request(&mut self) {
        self.requests = self.requests.saturating_sub(1);
    }
}

/// Has others go on, and this connection after them.
fn end_turn<T>(cx: &Context<'_>) -> Poll<T> {
    cx.waker().wake_by_ref();
    Poll::Pending
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
pub(super) enum FrontExit {
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
            waiting_since: None,
            has_answered: false,
            is_closing: false,
        }
    }

    /// What was received and not answered.
    pub(super) fn received(&self) -> &[u8] {
        &self.received
    }

    /// Whether it has answered a request.
    pub(super) fn has_answered(&self) -> bool {
        self.has_answered
    }

    /// The stream, with what was received and not answered; and since when the first
    /// request in it has waited, if it has.
    pub(super) fn into_stream(self) -> (Rewound<S>, Option<Instant>) {
        (Rewound::new(self.received, self.stream), self.waiting_since)
    }

    /// Has the connection end as soon as nothing of a request is there.
    pub(super) fn close_when_idle(&mut self) {
        self.is_closing = true;
    }
}

impl<S: Transport> Front<S> {
    /// Reads and answers requests for as long as they are plain, and `turn` lasts.
    ///
    /// # Errors
    /// As the stream's.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        handler: &Arc<impl Handler>,
        activity: &Activity,
        turn: &mut Turn,
    ) -> Poll<io::Result<FrontExit>> {
        loop {
            ready!(self.outgoing.poll_send(&mut self.stream, cx, turn))?;
            let is_held = self.outgoing.is_held(&mut self.stream)?;
            match self.next {
                // Nothing reports that it has left: the limit for stalls has it looked at again.
                NextStep::HandOver if is_held => return Poll::Pending,
                // The requests of whoever sends many at once must not keep others waiting.
                NextStep::Answer if turn.requests == 0 => return end_turn(cx),
                NextStep::Answer => {
                    let received = mem::take(&mut self.received);
                    let files = FileTreatment::new::<S>();
                    self.answer(&received, handler, activity, files, turn);
                }
                NextStep::AnswerLater => {
                    let mut waited_exchange = None;
                    if let Some(sealing) = &mut self.sealing {
                        waited_exchange = Some(ready!(sealing.as_mut().poll(cx)));
                        self.sealing = None;
                        activity.end_response();
                    }
                    // Content that could not be sealed is not sealed again: what is wrong with it is
                    // told where it is read.
                    let at_once = FilesAtOnce::Sealed;
                    let received = mem::take(&mut self.received);
                    let files = FileTreatment {
                        at_once,
                        waited_exchange,
                    };
                    self.answer(&received, handler, activity, files, turn);
                }
                NextStep::Read if self.is_closing => {
                    self.next = match self.received.is_empty() {
                        true => NextStep::Close,
                        false => NextStep::HandOver,
                    };
                }
                NextStep::Read => {
                    // Not before: while a client takes what it has asked for, nothing of it is late.
                    if !self.received.is_empty() && !is_held {
                        activity.note_received();
                    }
                    ready!(self.poll_receive(cx, handler, activity, turn))?;
                }
                NextStep::HandOver => return Poll::Ready(Ok(FrontExit::ForHyper)),
                NextStep::Close => {
                    ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
                    match is_held {
                        true => return Poll::Pending,
                        false => return Poll::Ready(Ok(FrontExit::Closed)),
                    }
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
        turn: &mut Turn,
    ) -> Poll<io::Result<()>> {
        thread_local! {
            /// The same memory for all connections of a worker. On the stack it would have to be cleared
            /// for each read.
            static SPACE: RefCell<[u8; READ_SIZE]> = const { RefCell::new([0; READ_SIZE]) };
        }
        SPACE.with_borrow_mut(|space| {
            let mut buffer = ReadBuf::new(space);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
            let new = buffer.filled();
            let files = FileTreatment::new::<S>();
            if new.is_empty() {
                // A client may close its side and still read (RFC 9112 section 9.6): all is answered.
                self.next = match self.received.is_empty() {
                    true => NextStep::Close,
                    false => NextStep::HandOver,
                };
            } else if self.received.is_empty() {
                self.answer(new, handler, activity, files, turn);
            } else {
                let mut received = mem::take(&mut self.received);
                received.extend_from_slice(new);
                self.answer(&received, handler, activity, files, turn);
            }
            Poll::Ready(Ok(()))
        })
    }

    /// Answers the requests that `bytes` begin with, up to one that has content or is not for the
    /// front, and keeps the rest.
    fn answer(
        &mut self,
        bytes: &[u8],
        handler: &Arc<impl Handler>,
        activity: &Activity,
        mut files: FileTreatment,
        turn: &mut Turn,
    ) {
        let mut rest = bytes;
        self.next = loop {
            if turn.requests == 0 || !self.outgoing.content.is_empty() {
                break NextStep::Answer;
            }
            let mut space = FieldSpace::new();
            let (request, length) = match PlainHead::read(rest, &mut space) {
                HeadParse::Plain(request, length) => (request, length),
                HeadParse::Incomplete => break NextStep::Read,
                HeadParse::Other => break NextStep::HandOver,
            };
            let FileTreatment {
                at_once,
                waited_exchange,
            } = files;
            let head = self.outgoing.head_for_more();
            let front_request = FrontRequest {
                request: &request,
                connection: activity,
                files: at_once,
                waited_exchange,
            };
            let outcome = handler.respond_at_once(front_request, head);
            self.outgoing.content = match outcome {
                AtOnce::Reply(content) => content,
                AtOnce::Sealing(sealing) => {
                    self.sealing = Some(sealing);
                    self.waiting_since = Some(Instant::now());
                    break NextStep::AnswerLater;
                }
                AtOnce::NeedsHyper => break NextStep::HandOver,
            };
            self.waiting_since = None;
            files = FileTreatment::new::<S>();
            rest = rest.get(length..).unwrap_or_default();
            turn.requests -= 1;
        };
        if rest.len() < bytes.len() {
            activity.note_answered();
            self.has_answered = true;
        }
        if self.next == NextStep::AnswerLater {
            // After what was answered before it: from here on a response is under way, so no limit on
            // idleness is.
            activity.begin_response(false);
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
    waited_exchange: Option<CountedExchange>,
}

impl FileTreatment {
    /// As every request over such a stream, at first.
    fn new<S: Transport>() -> Self {
        Self {
            at_once: S::FILES_AT_ONCE,
            waited_exchange: None,
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
    /// Whether sealed memory was sent, of which the kernel may still hold much.
    may_be_held: bool,
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

    /// Whether the kernel holds much of what was sent: that is still under way.
    ///
    /// # Errors
    /// When the client has gone.
    fn is_held(&mut self, stream: &mut impl Transport) -> io::Result<bool> {
        if self.may_be_held && !stream.holds_much()? {
            // What comes next is held as little as ever, unless it is sealed memory again.
            stream.leave_sealed();
            self.may_be_held = false;
        }
        Ok(self.may_be_held)
    }

    /// Sends all of it, or as much as there may be in `turn`.
    fn poll_send<S: Transport>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
        turn: &mut Turn,
    ) -> Poll<io::Result<()>> {
        loop {
            let heads = self.heads.get(self.sent..).unwrap_or_default();
            let has_content = !self.content.is_empty();
            let written = match &mut self.content {
                _ if heads.is_empty() && !has_content => break,
                // A client that takes all at once would have this thread send it gigabytes.
                _ if turn.bytes == 0 => return end_turn(cx),
                FrontContent::Bytes(bytes) => poll_write(stream, cx, heads, bytes),
                FrontContent::Sealed(_) if !heads.is_empty() => stream.poll_send_before(cx, heads),
                FrontContent::Sealed(content) => stream.poll_send_sealed(cx, content),
            };
            let written = ready!(written)?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            turn.bytes = turn.bytes.saturating_sub(written);
            let of_heads = written.min(heads.len());
            self.sent += of_heads;
            if let FrontContent::Bytes(bytes) = &mut self.content {
                bytes.advance(written - of_heads);
            }
        }
        self.may_be_held |= matches!(self.content, FrontContent::Sealed(_));
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

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};
    use std::thread;
    use std::time::Duration;

    use bytesize::ByteSize;
    use http::Method;

    use super::*;
    use crate::client::Peer;
    use crate::semantics::head::RequestHead;
    use crate::service::stand_ins::TestHandler;
    use crate::settings::Limits;

    impl Transport for tokio::io::Empty {}

    /// Has GET wait for content that is never sealed, and HEAD get a lot of bytes, or none.
    fn sealer() -> Arc<TestHandler> {
        Arc::new(TestHandler(|request, _| match *request.method() {
            Method::GET => AtOnce::Sealing(Box::pin(pending())),
            _ if request.path() == "/none" => AtOnce::Reply(FrontContent::default()),
            _ => AtOnce::Reply(FrontContent::Bytes(vec![0; MAX_BYTES_PER_TURN].into())),
        }))
    }

    /// Whether a front over a stream that takes everything ends in one turn.
    async fn ends_in_one_turn(front: &mut Front<tokio::io::Empty>, activity: &Activity) -> bool {
        poll_fn(|cx| {
            let polled = front.poll(cx, &sealer(), activity, &mut Turn::new());
            Poll::Ready(polled.is_ready())
        })
        .await
    }

    #[tokio::test]
    async fn who_waits_for_content_to_be_sealed_is_not_idle() {
        let requests = b"HEAD /none HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n";
        let mut front = Front::new(tokio::io::empty(), requests.to_vec());
        let activity = Activity::new(Peer::Unix);
        assert!(!ends_in_one_turn(&mut front, &activity).await);
        assert!(front.sealing.is_some());
        let minute = Duration::from_secs(60);
        let limits = Limits {
            grace: minute,
            max_connections: 1,
            header_timeout: minute,
            idle_timeout: Duration::from_millis(1),
            write_timeout: minute,
            max_header_size: ByteSize::kib(16),
        };
        // The clock has steps of some milliseconds.
        let since = Instant::now();
        while since.elapsed() < Duration::from_millis(50) {
            thread::yield_now();
        }
        assert!(activity.check(&limits).is_ok());
        assert!(front.into_stream().1.is_some(), "it has begun");
    }

    #[tokio::test]
    async fn a_client_that_takes_everything_at_once_leaves_others_their_turns() {
        let requests = b"HEAD / HTTP/1.1\r\n\r\n".repeat(3);
        let mut front = Front::new(tokio::io::empty(), requests);
        let (activity, mut turns) = (Activity::new(Peer::Unix), 1);
        while !ends_in_one_turn(&mut front, &activity).await {
            turns += 1;
        }
        assert_eq!(turns, 3);
    }

    #[tokio::test]
    async fn what_is_not_a_whole_head_has_not_begun_to_be_answered() {
        let (front, _there) = tokio::io::duplex(64);
        let mut front = Front::new(front, b"GET / HT".to_vec());
        front.close_when_idle();
        let activity = Activity::new(Peer::Unix);
        let left = poll_fn(|cx| front.poll(cx, &sealer(), &activity, &mut Turn::new()));
        assert_eq!(left.await.expect("open"), FrontExit::ForHyper);
        assert!(front.into_stream().1.is_none());
    }
}

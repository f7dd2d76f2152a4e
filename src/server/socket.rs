//! The socket of a connection, over TCP or a Unix path, in the runtime that serves it.
//!
//! tokio's own streams are one type for each kind of socket, and call libc, which makes each call a
//! cancellation point (pthreads(7)): a tenth of what a short response costs outside of the kernel. On
//! Linux rustix calls the kernel itself.
//!
//! A client that has left is an error of the call, and no signal: Rust has a process ignore SIGPIPE.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
#[cfg(target_os = "linux")]
use rustix::ioctl::{Getter, Opcode, ioctl};
use rustix::net::{
    RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, recv, send, sendmsg, shutdown,
};
use socket2::SockRef;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

/// Limit for the bytes of pieces that are copied into one. Up to here that costs less than a call with
/// several: for a head and 4 KiB of content, 5 to 10 % of the whole request.
const MAX_JOINED: usize = 16 << 10;

/// Bytes of a response that the kernel holds and has not sent yet. They are memory of its own for each
/// connection, and an HTTP/2 client waits for them before a response that it wants first.
pub(super) const MAX_UNSENT: u32 = 64 << 10;
/// The same of a response from sealed memory. The kernel takes a megabyte whole then, which costs a third
/// less than in parts: it refers to the pages, unless the client is slow.
pub(super) const MAX_UNSENT_SEALED: u32 = 2 << 20;

/// Has the kernel take no more of a response than this (tcp(7), TCP_NOTSENT_LOWAT).
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn limit_unsent_bytes(socket: impl AsFd, bytes: u32) {
    // A Unix socket has no such limit.
    let _ = SockRef::from(&socket).set_tcp_notsent_lowat(bytes);
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn limit_unsent_bytes(_: impl AsFd, _: u32) {}

/// A connected socket that does not block.
#[derive(Debug)]
pub(super) struct Socket(AsyncFd<OwnedFd>);

impl Socket {
    /// Registers a socket with the present runtime.
    ///
    /// # Errors
    /// When the runtime can take no more descriptors.
    #[allow(unsafe_code)]
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        // SAFETY: an `OwnedFd` is open, and the same descriptor, for as long as it lives.
        let registered = unsafe { AsyncFd::register(socket) };
        Ok(Self(registered?))
    }

    /// Reads into `bytes` what comes next, and leaves it in its place. Returns how many bytes that are.
    ///
    /// # Errors
    /// When the connection has failed.
    pub(super) async fn peek(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let peek = |socket: &OwnedFd| Ok(recv(socket, &mut *bytes, RecvFlags::PEEK)?.1);
        self.0.async_io(Interest::READABLE, peek).await
    }

    /// Bytes that it has taken and the other end has not acknowledged, or of a Unix socket the memory for
    /// what was not read; `None` where the system does not say.
    #[cfg(target_os = "linux")]
    #[allow(unsafe_code)]
    pub(super) fn unacknowledged(&self) -> Option<u32> {
        // SAFETY: tcp(7) has the call store an `int`.
        let asked = unsafe {
            let outq = Getter::<{ libc::TIOCOUTQ as Opcode }, i32>::new();
            ioctl(&self.0, outq)
        };
        u32::try_from(asked.ok()?).ok()
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn unacknowledged(&self) -> Option<u32> {
        None
    }

    /// Whether it can still send what it has taken.
    ///
    /// # Errors
    /// When it can't: the other end has gone.
    pub(super) fn check(&self) -> io::Result<()> {
        let mut asked = [PollFd::new(&self.0, PollFlags::empty())];
        poll(&mut asked, Some(&Timespec::default()))?;
        let [asked] = asked;
        match asked.revents().contains(PollFlags::ERR) {
            true => Err(io::ErrorKind::ConnectionReset.into()),
            false => Ok(()),
        }
    }

    /// Has what the kernel holds dropped when this is closed, and the client told so (RFC 9293 section 3.10.4,
    /// ABORT).
    pub(super) fn discard_at_close(&self) {
        let _ = SockRef::from(&self.0).set_linger(Some(Duration::ZERO));
    }

    /// Has the kernel give the connection up once the other end has taken nothing for this long (tcp(7),
    /// TCP_USER_TIMEOUT), where it knows such a limit.
    pub(super) fn limit_rest(&self, time: Duration) {
        #[cfg(target_os = "linux")]
        let _ = SockRef::from(&self.0).set_tcp_user_timeout(Some(time));
        #[cfg(not(target_os = "linux"))]
        let _ = time;
    }

    /// Has `send` try until the socket takes something, or says that it will later.
    pub(super) fn poll_send(
        &self,
        cx: &mut Context<'_>,
        send: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        self.poll_send_offered(cx, None, send)
    }

    /// [`Self::poll_send`] where it is known how many bytes `send` offers: a socket that takes less is
    /// full, and is not asked again before it says that it is not.
    fn poll_send_offered(
        &self,
        cx: &mut Context<'_>,
        offered: Option<usize>,
        mut send: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(cx))?;
            match send(self.0.as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Ok(sent) => {
                    if offered.is_some_and(|offered| sent < offered) {
                        ready.clear_ready();
                    }
                    return Poll::Ready(Ok(sent));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            let space = buffer.initialize_unfilled();
            match recv(&self.0, &mut *space, RecvFlags::empty()) {
                Ok((_, length)) => {
                    // A read that leaves room has mostly emptied the socket, and an event says when more
                    // comes (epoll(7)): not to ask again saves a call for each request.
                    if length > 0 && length < space.len() {
                        ready.clear_ready();
                    }
                    buffer.advance(length);
                    return Poll::Ready(Ok(()));
                }
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send_offered(cx, Some(bytes.len()), |socket| {
            Ok(send(socket, bytes, SendFlags::empty())?)
        })
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut full = slices.iter().filter(|slice| !slice.is_empty());
        let (first, second) = (full.next(), full.next());
        if let Some(first) = first.filter(|_| second.is_none()) {
            return self.poll_write(cx, first);
        }
        let length = slices.iter().map(|slice| slice.len()).sum();
        if length > MAX_JOINED {
            return self.poll_send_offered(cx, Some(length), |socket| {
                let mut no_ancillary_data = SendAncillaryBuffer::default();
                let flags = SendFlags::empty();
                Ok(sendmsg(socket, slices, &mut no_ancillary_data, flags)?)
            });
        }
        thread_local! {
            /// The same memory for all connections of a worker.
            static JOINED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        JOINED.with_borrow_mut(|joined| {
            joined.clear();
            for slice in slices {
                joined.extend_from_slice(slice);
            }
            self.poll_write(cx, joined)
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(match shutdown(&self.0, Shutdown::Write) {
            // The other end has gone already.
            Ok(()) | Err(Errno::NOTCONN) => Ok(()),
            Err(error) => Err(error.into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    use super::*;

    /// A socket and its other end.
    fn pair() -> (Socket, UnixStream) {
        let (here, there) = UnixStream::pair().expect("sockets");
        here.set_nonblocking(true).expect("set");
        (Socket::new(here.into()).expect("registered"), there)
    }

    static PIECE: [u8; 1 << 16] = [1; 1 << 16];

    /// Sends until the socket takes no more. Returns how many bytes that were.
    async fn fill(socket: &mut Socket) -> usize {
        // The runtime does not know at first that it takes any.
        socket.write_u8(1).await.expect("open");
        let mut sent = 1;
        while let Poll::Ready(length) =
            poll_fn(|cx| Poll::Ready(Pin::new(&mut *socket).poll_write(cx, &PIECE))).await
        {
            sent += length.expect("open");
        }
        assert!(sent > PIECE.len(), "{sent}");
        sent
    }

    #[tokio::test]
    async fn what_comes_after_a_read_is_read_too() {
        let (mut here, mut there) = pair();
        let mut space = [0; 8];
        for text in [&b"a"[..], b"bc", b"exactly8", b"d"] {
            there.write_all(text).expect("open");
            let length = here.read(&mut space).await.expect("open");
            assert_eq!(&space[..length], text);
            let mut buffer = ReadBuf::new(&mut space);
            let more = poll_fn(|cx| {
                let polled = Pin::new(&mut here).poll_read(cx, &mut buffer);
                Poll::Ready(polled.is_ready())
            });
            assert!(!more.await, "there is no more");
        }
        // What does not fit is there without an event.
        there.write_all(b"more than eight").expect("open");
        let mut rest = [0; 15];
        let both = async {
            here.read_exact(&mut rest[..8]).await?;
            here.read_exact(&mut rest[8..]).await
        };
        let limit = Duration::from_secs(60);
        let read = timeout(limit, both).await.expect("it is there");
        read.expect("open");
        assert_eq!(&rest, b"more than eight");
        there.write_all(b"the end").expect("open");
        drop(there);
        let mut rest = Vec::new();
        here.read_to_end(&mut rest).await.expect("open");
        assert_eq!(rest, b"the end");
        here.shutdown().await.expect("the other end has gone");
    }

    #[tokio::test]
    #[cfg(target_os = "linux")]
    async fn what_the_other_end_has_not_taken_is_unacknowledged() {
        use std::net::{TcpListener, TcpStream};

        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bound");
        let address = listener.local_addr().expect("bound");
        let mut there = TcpStream::connect(address).expect("connected");
        let here = listener.accept().expect("accepted").0;
        here.set_nonblocking(true).expect("set");
        let mut here = Socket::new(here.into()).expect("registered");
        assert_eq!(here.unacknowledged(), Some(0));
        let sent = fill(&mut here).await;
        let held = here.unacknowledged().expect("known");
        assert!(held > 0 && held as usize <= sent, "{held} of {sent}");
        let mut taken = vec![0; sent];
        there.read_exact(&mut taken).expect("sent");
        // An acknowledgement may come later than what it is about.
        let since = Instant::now();
        while here.unacknowledged() != Some(0) {
            assert!(
                since.elapsed() < Duration::from_secs(60),
                "it is not heard of"
            );
            std::thread::yield_now();
        }
    }

    #[tokio::test]
    async fn what_is_peeked_is_read_again() {
        let (mut here, mut there) = pair();
        there.write_all(b"ab").expect("open");
        let mut first = [0];
        assert_eq!(here.peek(&mut first).await.expect("open"), 1);
        assert_eq!(here.read_u8().await.expect("open"), first[0]);
        assert_eq!(here.read_u8().await.expect("open"), b'b');
    }

    #[tokio::test]
    async fn pieces_arrive_in_their_order_whatever_their_lengths() {
        for lengths in [
            &[0, 0][..],
            &[0, 3],
            &[300, 4096],
            &[300, MAX_JOINED - 300],
            &[300, MAX_JOINED],
            &[1, 2, 0, MAX_JOINED],
            // More than a socket takes at once.
            &[300, 3 << 20],
        ] {
            let (mut here, mut there) = pair();
            let mut next = 0_u8;
            let mut piece = |length: &usize| {
                let bytes = (0..*length).map(|_| {
                    next = next.wrapping_mul(5).wrapping_add(3);
                    next
                });
                bytes.collect::<Vec<u8>>()
            };
            let pieces: Vec<_> = lengths.iter().map(&mut piece).collect();
            let expected = pieces.concat();
            let reader = std::thread::spawn(move || {
                let mut all = Vec::new();
                there.read_to_end(&mut all).expect("open");
                all
            });
            let mut slices: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
            let mut slices = &mut slices[..];
            // Empty pieces at the beginning are none to wait for.
            IoSlice::advance_slices(&mut slices, 0);
            while !slices.is_empty() {
                let sent = here.write_vectored(slices).await.expect("open");
                assert!(sent > 0, "{lengths:?}");
                IoSlice::advance_slices(&mut slices, sent);
            }
            here.shutdown().await.expect("open");
            let all = reader.join().expect("no panic");
            assert!(all == expected, "{lengths:?}: {} bytes", all.len());
        }
    }

    #[tokio::test]
    async fn a_socket_that_is_full_says_when_it_is_not() {
        let (mut here, mut there) = pair();
        let sent = fill(&mut here).await;
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            there.read_to_end(&mut all).expect("open");
            all.len()
        });
        here.write_all(&PIECE).await.expect("it has room again");
        here.shutdown().await.expect("open");
        assert_eq!(reader.join().expect("no panic"), sent + PIECE.len());
    }
}

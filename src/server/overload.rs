//! Connections beyond `--max-connections`.
//!
//! Each is answered 503 at once, without a look at what it asks: a balancer then asks another
//! replica, a browser says what is wrong. Left in the kernel's queue instead, a client would wait
//! for one of the connections before it to end, which may be its whole idle time.
//!
//! Measured with wrk at twice a limit of 64: turned away, half of the requests are answered 503,
//! at the cost of half the throughput of the rest, since wrk comes back at once. Left in the
//! queue, the first 64 keep all the throughput and the other 64 get no answer at all. With 64
//! connections that only idle, a newcomer has its 503 in half a millisecond, or waits in vain.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::listener::Accepted;
use super::socket::Socket;
use crate::settings::max_rejected;

/// How long a rejected client may take to read the response and close.
const MAX_LINGER: Duration = Duration::from_millis(500);
const RESPONSE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n\
    Cache-Control: private, no-store, max-age=0\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// Rejects surplus connections.
#[derive(Debug)]
pub(super) struct Overload {
    /// Rejected connections that are still open: their clients have to read the response.
    leaving: Arc<AtomicUsize>,
    /// Limit for these. Those beyond it are closed at once.
    max_leaving: usize,
}

impl Overload {
    /// For a server that serves `max_connections` at the same time.
    pub(super) fn new(max_connections: usize) -> Self {
        Self {
            leaving: Arc::default(),
            max_leaving: max_rejected(max_connections),
        }
    }

    /// Answers and closes. Must be called within a tokio runtime.
    pub(super) fn reject(&self, accepted: Accepted) {
        if self.leaving.fetch_add(1, Ordering::Relaxed) >= self.max_leaving {
            self.leaving.fetch_sub(1, Ordering::Relaxed);
            reject_now(accepted);
            return;
        }
        let leaving = Arc::clone(&self.leaving);
        tokio::spawn(async move {
            if let Ok(socket) = Socket::new(accepted.socket) {
                let _ = timeout(MAX_LINGER, answer(socket)).await;
            }
            leaving.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// Answers and closes without waiting for anything, because its descriptor is needed. The response
/// is lost where a reset overtakes it: the client sees a close then.
pub(super) fn reject_now(accepted: Accepted) {
    let answered = answer_now(&accepted.socket);
    if let Err(error) = answered {
        tracing::debug!(%error, "could not say 503 to a rejected connection: {error}");
    }
}

fn answer_now(socket: impl AsFd) -> io::Result<()> {
    let mut unread = [0; 4096];
    // What has arrived; an unread byte would turn the close into a reset.
    while recv(&socket, &mut unread, RecvFlags::empty())
        .is_ok_and(|(_, length)| length == unread.len())
    {}
    let sent = send(&socket, RESPONSE, SendFlags::empty())?;
    match sent == RESPONSE.len() {
        true => Ok(shutdown(&socket, Shutdown::Write)?),
        false => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// Waits for the client to close: to close before it, with bytes unread, would reset the
/// connection, and the reset can overtake the answer.
async fn answer(mut socket: Socket) -> io::Result<()> {
    socket.write_all(RESPONSE).await?;
    socket.shutdown().await?;
    let mut unread = [0; 4096];
    while socket.read(&mut unread).await? > 0 {}
    Ok(())
}

//! What responses are written to: a socket, to which the kernel can send sealed memory without a
//! copy, or TLS above one, which has to encrypt every byte.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::server::TlsStream;

use super::metered_io::MeteredSocket;
use crate::sealed::send_before;
use crate::service::{FilesAtOnce, SealedContent};

/// A stream that requests come from and responses go to.
pub(super) trait Transport: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Whether it can send sealed memory.
    const FILES_AT_ONCE: FilesAtOnce = FilesAtOnce::Never;

    /// Sends bytes, and has them wait for those that follow at once.
    fn poll_send_before(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(self).poll_write(cx, bytes)
    }

    /// Sends sealed memory.
    fn poll_send_sealed(
        &mut self,
        _cx: &mut Context<'_>,
        _content: &mut SealedContent,
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }

    /// Whether the kernel holds much of the sealed memory that was sent.
    ///
    /// # Errors
    /// When the client has gone.
    fn holds_much(&self) -> io::Result<bool> {
        Ok(false)
    }

    /// Sends no sealed memory for a while.
    fn leave_sealed(&mut self) {}
}

impl<S: Transport> Transport for TlsStream<S> {}

#[cfg(test)]
impl Transport for tokio::io::DuplexStream {}

impl Transport for MeteredSocket {
    const FILES_AT_ONCE: FilesAtOnce = FilesAtOnce::AfterSealing;

    fn poll_send_before(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_send(cx, |socket| send_before(socket, bytes))
    }

    fn poll_send_sealed(
        &mut self,
        cx: &mut Context<'_>,
        content: &mut SealedContent,
    ) -> Poll<io::Result<usize>> {
        self.raise_limit();
        self.poll_send(cx, |socket| content.send(socket))
    }

    fn holds_much(&self) -> io::Result<bool> {
        Self::holds_much(self)
    }

    fn leave_sealed(&mut self) {
        self.lower_limit();
    }
}

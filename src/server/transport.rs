//! What responses are written to: a socket, to which the kernel can send sealed memory without a
//! copy, or TLS above one, which has to encrypt every byte.

use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::{TcpStream, UnixStream};
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
}

impl<S: Transport> Transport for TlsStream<S> {}

#[cfg(test)]
impl Transport for tokio::io::DuplexStream {}

impl<S: Socket> Transport for MeteredSocket<S> {
    const FILES_AT_ONCE: FilesAtOnce = FilesAtOnce::AfterSealing;

    fn poll_send_before(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_metered(cx, |socket| send_before(socket, bytes))
    }

    fn poll_send_sealed(
        &mut self,
        cx: &mut Context<'_>,
        content: &mut SealedContent,
    ) -> Poll<io::Result<usize>> {
        self.poll_metered(cx, |socket| content.send(socket))
    }
}

impl<S: Socket> MeteredSocket<S> {
    fn poll_metered(
        &mut self,
        cx: &mut Context<'_>,
        send: impl FnMut(&S) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let result = self.stream().poll_send(cx, send);
        self.activity().note_written(result.is_ready());
        result
    }
}

/// A socket of the kernel's.
pub(super) trait Socket: AsyncRead + AsyncWrite + AsFd + Unpin + Send + 'static {
    /// Has `send` try until the socket takes something, or says that it will later.
    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        send: impl FnMut(&Self) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>>;
}

macro_rules! socket {
    ($socket:ty) => {
        impl Socket for $socket {
            fn poll_send(
                &self,
                cx: &mut Context<'_>,
                mut send: impl FnMut(&Self) -> io::Result<usize>,
            ) -> Poll<io::Result<usize>> {
                loop {
                    ready!(self.poll_write_ready(cx))?;
                    match self.try_io(Interest::WRITABLE, || send(self)) {
                        // It was ready once: now it is asked to wake this task.
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        result => return Poll::Ready(result),
                    }
                }
            }
        }
    };
}

socket!(TcpStream);
socket!(UnixStream);

//! A stream whose first bytes were read already, and are read again.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Reads `bytes` first, and then the stream that they came from.
pub(super) struct Rewound<S> {
    bytes: Vec<u8>,
    position: usize,
    stream: S,
}

impl<S> Rewound<S> {
    pub(super) fn new(bytes: Vec<u8>, stream: S) -> Self {
        Self {
            bytes,
            position: 0,
            stream,
        }
    }

    /// The bytes that are still to be read first, and the stream.
    pub(super) fn into_parts(mut self) -> (Vec<u8>, S) {
        self.bytes.drain(..self.position);
        (self.bytes, self.stream)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let rest = this.bytes.get(this.position..).unwrap_or_default();
        if rest.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, buffer);
        }
        let length = rest.len().min(buffer.remaining());
        buffer.put_slice(rest.get(..length).unwrap_or_default());
        this.position += length;
        if this.position == this.bytes.len() {
            // Given back: the connection may live for long.
            (this.bytes, this.position) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn what_is_left_can_be_had_back() {
        let mut stream = Rewound::new(b"first".to_vec(), &b"second"[..]);
        stream.read_exact(&mut [0; 2]).await.expect("a slice");
        assert_eq!(stream.into_parts(), (b"rst".to_vec(), &b"second"[..]));
    }

    #[tokio::test]
    async fn what_was_read_comes_first_in_pieces_of_any_size() {
        for size in 1..9 {
            let mut stream = Rewound::new(b"first".to_vec(), &b"second"[..]);
            let mut all = Vec::new();
            let mut piece = vec![0; size];
            loop {
                match stream.read(&mut piece).await.expect("a slice") {
                    0 => break,
                    length => all.extend_from_slice(&piece[..length]),
                }
            }
            assert_eq!(all, b"firstsecond", "in pieces of {size}");
            assert_eq!(stream.bytes.capacity(), 0);
            assert_eq!(stream.into_parts().0, b"");
        }
    }
}

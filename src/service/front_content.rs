//! The content of responses that are given in front of hyper.

use std::io;
use std::mem;
use std::os::fd::AsFd;
use std::sync::Arc;

use bytes::Bytes;

use crate::access::AccessLog;
use crate::exchange::Exchange;
use crate::memory::SealedUse;
use crate::metrics::Metrics;
use crate::sealed;

/// The content of a response in front of hyper.
pub enum FrontContent {
    /// Bytes of this process, which are counted and logged already.
    Bytes(Bytes),
    /// Bytes in sealed memory. It takes a while to send them, and the client may leave meanwhile.
    Sealed(Box<SealedContent>),
}

impl Default for FrontContent {
    fn default() -> Self {
        Self::Bytes(Bytes::new())
    }
}

impl FrontContent {
    /// Whether nothing of it is left to send.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Bytes(bytes) => bytes.is_empty(),
            Self::Sealed(sealed) => sealed.exchange.remaining() == 0,
        }
    }
}

/// Content in sealed memory on its way to a socket, which counts and logs its response in the end.
pub struct SealedContent {
    content: SealedUse,
    offset: u64,
    /// Whether the socket has taken less than it was offered.
    was_full: bool,
    /// Whether the socket has taken much at once so far, or has not been asked yet.
    is_fast: bool,
    exchange: CountedExchange,
}

impl SealedContent {
    pub(super) fn new(content: SealedUse, offset: u64, exchange: CountedExchange) -> Self {
        Self {
            content,
            offset,
            was_full: false,
            is_fast: true,
            exchange,
        }
    }

    /// Hands some of it to a socket, and returns how many bytes that has taken.
    ///
    /// # Errors
    /// `WouldBlock` when the socket takes none now; others when it takes no more.
    pub fn send(&mut self, socket: impl AsFd) -> io::Result<usize> {
        if mem::take(&mut self.was_full) && !sealed::takes_much(&socket) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let remaining = self.exchange.remaining();
        let sent = self
            .content
            .send(socket, self.offset, remaining, self.is_fast)?;
        self.was_full = (sent as u64) < remaining;
        self.is_fast = sent as u64 >= remaining.min(sealed::MUCH as u64);
        self.offset += sent as u64;
        self.exchange.sent(sent as u64);
        Ok(sent)
    }
}

/// An exchange that is counted and logged when this is dropped, however it has ended.
pub struct CountedExchange {
    /// Until somebody else counts it.
    exchange: Option<Exchange>,
    metrics: Arc<Metrics>,
    log: Option<Arc<AccessLog>>,
}

impl CountedExchange {
    pub(super) fn new(
        exchange: Exchange,
        metrics: &Arc<Metrics>,
        log: Option<&Arc<AccessLog>>,
    ) -> Self {
        Self {
            exchange: Some(exchange),
            metrics: Arc::clone(metrics),
            log: log.map(Arc::clone),
        }
    }

    /// The exchange, for somebody else to count.
    pub(super) fn into_exchange(mut self) -> Option<Exchange> {
        self.exchange.take()
    }

    fn remaining(&self) -> u64 {
        self.exchange.as_ref().map_or(0, Exchange::remaining)
    }

    fn sent(&mut self, bytes: u64) {
        if let Some(exchange) = &mut self.exchange {
            exchange.sent(bytes);
        }
    }
}

impl Drop for CountedExchange {
    fn drop(&mut self) {
        if let Some(exchange) = &mut self.exchange {
            exchange.finish(&self.metrics, self.log.as_deref());
        }
    }
}

//! Content that is not on this machine.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::piece::{GroupHash, PieceKey};

/// Bytes that a store elsewhere keeps under their hash.
#[derive(Debug)]
pub struct RemoteSource {
    /// Their BLAKE3.
    pub hash: [u8; 32],
    /// How many they are.
    pub length: u64,
    /// The chaining value of each group, from when the first piece was asked for on; empty up to
    /// [`MAX_WHOLE`](super::MAX_WHOLE). They make up the hash.
    pub groups: OnceLock<Arc<[GroupHash]>>,
    /// Who fetches them.
    pub pieces: Arc<dyn RemotePieces>,
}

impl RemoteSource {
    /// What one of its pieces is known by.
    pub fn key(&self, index: u32) -> PieceKey {
        PieceKey {
            hash: self.hash,
            whole: self.length,
            index,
        }
    }
}

/// Fetches content that is not on this machine.
pub trait RemotePieces: fmt::Debug + Send + Sync {
    /// A piece of `source`, proven: the group with this index, or all of it up to
    /// [`MAX_WHOLE`](super::MAX_WHOLE).
    fn piece(self: Arc<Self>, source: &Arc<RemoteSource>, index: u32) -> PieceFuture;

    /// A client takes one piece after another, and is about to take this one: has those that come next
    /// fetched.
    fn read_ahead(self: Arc<Self>, source: &Arc<RemoteSource>, index: u32);

    /// Where `source` is, for messages.
    fn location(&self, source: &RemoteSource) -> String;
}

/// A piece on its way: proven bytes that nobody can change, or why there are none.
pub type PieceFuture = Pin<Box<dyn Future<Output = Result<Bytes, RemoteError>> + Send>>;

/// Why a piece of a store can't be had.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RemoteError {
    /// The store does not give it.
    #[error("{message}")]
    Unavailable {
        /// Which object of which store.
        location: String,
        /// What could not be done, and why.
        message: String,
    },
    /// What it gives is something else.
    #[error("{location} is damaged: its bytes are not those that its name says")]
    Damaged {
        /// Which object of which store.
        location: String,
    },
    /// Slow clients hold all the memory there is for content.
    #[error("no memory for {location}: --memory is used up by slow clients")]
    NoMemory {
        /// Which object of which store.
        location: String,
    },
}

impl RemoteError {
    /// Which object of which store.
    pub fn location(&self) -> &str {
        match self {
            Self::Unavailable { location, .. }
            | Self::Damaged { location }
            | Self::NoMemory { location } => location,
        }
    }
}

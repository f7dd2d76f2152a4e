//! The log line of each write.

use std::fmt;

use tracing::field::display;

use crate::client::Peer;
use crate::semantics::etag::ETag;
use crate::semantics::target::encode_path;

/// The client that makes a write.
pub(super) struct Author {
    /// The name of its token.
    pub(super) name: String,
    pub(super) client: Peer,
}

/// One write, as it is logged: who changed what, from which tag to which.
pub(super) struct Audit<'a> {
    pub(super) verb: &'static str,
    pub(super) path: &'a [u8],
    pub(super) author: &'a Author,
    pub(super) before: Option<ETag>,
    pub(super) now: Option<ETag>,
    /// Length of the new content; `None` for a deletion.
    pub(super) bytes: Option<u64>,
}

impl Audit<'_> {
    /// Logs it, for people as a sentence and for machines as fields.
    pub(super) fn log(&self) {
        let before = self.before.as_ref().map(display);
        let now = self.now.as_ref().map(display);
        tracing::info!(
            method = self.verb,
            path = format!("/{}", encode_path(self.path)),
            author = self.author.name,
            client = %self.author.client,
            before,
            now,
            bytes = self.bytes,
            "{self}"
        );
    }
}

impl fmt::Display for Audit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verb, path) = (self.verb, encode_path(self.path));
        let Author { name, client } = self.author;
        write!(f, "{verb} /{path} by {name} ({client}): ")?;
        match &self.before {
            Some(etag) => write!(f, "{etag} -> ")?,
            None => f.write_str("nothing -> ")?,
        }
        match (&self.now, self.bytes) {
            (Some(etag), _) => write!(f, "{etag}")?,
            (None, Some(_)) => f.write_str("changed again already")?,
            (None, None) => f.write_str("nothing")?,
        }
        match self.bytes {
            Some(bytes) => write!(f, " ({bytes} B)"),
            None => Ok(()),
        }
    }
}

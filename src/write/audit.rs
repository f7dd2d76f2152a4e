//! What is written down of each change.

use std::fmt;

use crate::client::Peer;
use crate::semantics::etag::ETag;
use crate::semantics::target::encode_path;

/// Who asks.
pub(super) struct Author {
    /// Of the token.
    pub(super) name: String,
    pub(super) client: Peer,
}

/// One line for each change, for whoever wants to know later.
pub(super) struct Audit<'a> {
    pub(super) verb: &'static str,
    pub(super) path: &'a [u8],
    pub(super) author: &'a Author,
    pub(super) before: Option<ETag>,
    pub(super) now: Option<ETag>,
    /// Length of what was put there.
    pub(super) bytes: Option<u64>,
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

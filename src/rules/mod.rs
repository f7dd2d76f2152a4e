//! The site's own rules: `_headers` and `_redirects`, read once and matched many times.
//!
//! Pure: bytes in, [`Rules`] and [`Complaint`]s out; a path in, what to do out. No input panics,
//! and time is linear in the file and in the path: there are no regular expressions. A bad line is
//! complained of and left out; the good ones apply.
//!
//! Paths are given decoded, with their leading slash and without empty segments.

mod complaint;
mod headers;
mod host;
mod pattern;
mod redirects;
mod table;
mod template;

pub use complaint::{Complaint, RuleFile, Severity};
pub use headers::{Headers, Matching, Overlay};
pub use host::without_port;
pub use redirects::{Asked, Dialect, Outcome, Redirects};

/// The rules of a site.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// From `_headers`.
    pub headers: Headers,
    /// From `_redirects`.
    pub redirects: Redirects,
    /// What is wrong with either, in the order of files and lines.
    pub complaints: Vec<Complaint>,
}

impl Rules {
    /// Reads the two files; one that is missing is empty.
    #[must_use]
    pub fn parse(headers: &[u8], redirects: &[u8], dialect: Dialect) -> Self {
        let (headers, mut complaints) = Headers::parse(headers);
        let (redirects, more) = Redirects::parse(redirects, dialect);
        complaints.extend(more);
        Self {
            headers,
            redirects,
            complaints,
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.headers.is_empty() && self.redirects.is_empty()
    }

    /// A hash of all that they mean: equal for files that differ in comments and spaces.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.headers.hash());
        hasher.update(self.redirects.hash());
        *hasher.finalize().as_bytes()
    }
}

/// Length first, so that no two lists of texts can read the same.
fn frame(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}

//! The site's own rules: `_headers`, `_redirects` and `.etagdignore`, read once and matched many times.
//!
//! Pure: bytes in, [`Rules`] and [`Complaint`]s out; a path in, what to do out. No input panics,
//! and time is linear in the file and in the path: `_headers` and `_redirects` have no regular
//! expressions, and those that the patterns of `.etagdignore` become are finite automata. A bad line
//! is complained of and left out; the good ones apply.
//!
//! Paths are given decoded, with their leading slash and without empty segments.

mod complaint;
mod headers;
mod host;
mod pattern;
mod redirects;
mod table;
mod template;

use std::sync::Arc;

use crate::exclude::ExcludePatterns;
use complaint::Complaints;

pub use complaint::{Complaint, RuleFile, Severity};
pub use headers::{Headers, Matching, Overlay};
pub use host::without_port;
pub use redirects::{Dialect, FixedRule, Query, Redirects, RuleMatch, RuleOutcome};

/// The rules of a site.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// From `_headers`.
    pub headers: Arc<Headers>,
    /// From `_redirects`.
    pub redirects: Arc<Redirects>,
    /// From `.etagdignore`. What it leaves out is not there: it changes no answer in any other way.
    pub exclude: Arc<ExcludePatterns>,
    sources: [RuleSource; 3],
}

/// A file as it was read.
#[derive(Clone, Debug, Default)]
struct RuleSource {
    /// Of all its bytes; `None` where there is no file.
    hash: Option<blake3::Hash>,
    complaints: Arc<[Complaint]>,
}

impl Rules {
    /// These rules, with what is in `file` now; `None` where that is what was read before.
    #[must_use]
    pub fn with(&self, file: RuleFile, text: Option<&[u8]>, dialect: Dialect) -> Option<Self> {
        let hash = text.map(blake3::hash);
        if self.source(file).hash == hash {
            return None;
        }
        let mut rules = self.clone();
        let text = text.unwrap_or_default();
        let complaints = match file {
            RuleFile::Headers => {
                let (headers, complaints) = Headers::parse(text);
                rules.headers = Arc::new(headers);
                complaints
            }
            RuleFile::Redirects => {
                let (redirects, complaints) = Redirects::parse(text, dialect);
                rules.redirects = Arc::new(redirects);
                complaints
            }
            RuleFile::Ignore => {
                let mut complaints = Complaints::new(file);
                match ExcludePatterns::parse(text) {
                    Ok((exclude, problems)) => {
                        rules.exclude = Arc::new(exclude);
                        for (line, problem) in problems {
                            complaints.error(line, problem.to_string());
                        }
                    }
                    // What was left out stays so.
                    Err(problem) => complaints.error(0, problem.to_string()),
                }
                complaints.finish()
            }
        };
        *rules.source_mut(file) = RuleSource {
            hash,
            complaints: complaints.into(),
        };
        Some(rules)
    }

    /// What is wrong with a file, in the order of its lines.
    #[must_use]
    pub fn complaints(&self, file: RuleFile) -> &[Complaint] {
        &self.source(file).complaints
    }

    /// Whether these are the bytes that `file` was read from.
    #[must_use]
    pub fn are_of(&self, file: RuleFile, text: &[u8]) -> bool {
        self.source(file).hash == Some(blake3::hash(text))
    }

    /// Whether the site has this file.
    #[must_use]
    pub fn has_file(&self, file: RuleFile) -> bool {
        self.source(file).hash.is_some()
    }

    /// Whether a file is there, and has other bytes than in `before`.
    #[must_use]
    pub fn has_reread(&self, file: RuleFile, before: &Self) -> bool {
        let hash = self.source(file).hash;
        hash.is_some() && hash != before.source(file).hash
    }

    /// Whether there are none that an answer depends on.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.headers.is_empty() && self.redirects.is_empty()
    }

    /// A hash of all that they mean for an answer: equal for files that differ in comments and spaces.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.headers.hash());
        hasher.update(self.redirects.hash());
        *hasher.finalize().as_bytes()
    }

    fn source(&self, file: RuleFile) -> &RuleSource {
        let [headers, redirects, ignore] = &self.sources;
        match file {
            RuleFile::Headers => headers,
            RuleFile::Redirects => redirects,
            RuleFile::Ignore => ignore,
        }
    }

    fn source_mut(&mut self, file: RuleFile) -> &mut RuleSource {
        let [headers, redirects, ignore] = &mut self.sources;
        match file {
            RuleFile::Headers => headers,
            RuleFile::Redirects => redirects,
            RuleFile::Ignore => ignore,
        }
    }
}

/// Length first, so that no two lists of texts can read the same.
fn frame(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}

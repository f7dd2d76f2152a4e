//! What is wrong with a line of a rule file, for its author.

use std::borrow::Cow;
use std::fmt;

/// A file of rules in the root of a site.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum RuleFile {
    /// `_headers`
    Headers,
    /// `_redirects`
    Redirects,
    /// `.etagdignore`
    Ignore,
}

impl RuleFile {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Headers, Self::Redirects, Self::Ignore];

    /// Its name, which is its path in the site.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Headers => "_headers",
            Self::Redirects => "_redirects",
            Self::Ignore => ".etagdignore",
        }
    }

    /// Which of them a path of the site names, if any.
    #[must_use]
    pub fn named(path: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|file| file.name().as_bytes() == path)
    }
}

/// How much is wrong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Severity {
    /// All is well here; another platform would refuse the line, or read it differently.
    Note,
    /// The line applies, but hardly as its author hopes.
    Warning,
    /// The line does not apply.
    Error,
}

/// One complaint about one line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Complaint {
    /// The file.
    pub file: RuleFile,
    /// Number of the line, from 1; 0 for the file as a whole.
    pub line: usize,
    /// How much is wrong.
    pub severity: Severity,
    /// What is wrong, and what to do about it.
    pub reason: Cow<'static, str>,
}

/// `_redirects:3: the reason`.
impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, reason) = (self.file.name(), &self.reason);
        match self.line {
            0 => write!(f, "{file}: {reason}"),
            line => write!(f, "{file}:{line}: {reason}"),
        }
    }
}

/// Complaints about one file, at most [`Self::MAX_COMPLAINTS`] and a line that counts the rest.
#[derive(Debug)]
pub(super) struct Complaints {
    file: RuleFile,
    list: Vec<Complaint>,
    more: usize,
}

impl Complaints {
    const MAX_COMPLAINTS: usize = 1000;

    pub(super) fn new(file: RuleFile) -> Self {
        Self {
            file,
            list: Vec::new(),
            more: 0,
        }
    }

    pub(super) fn error(&mut self, line: usize, reason: impl Into<Cow<'static, str>>) {
        self.push(line, Severity::Error, reason.into());
    }

    pub(super) fn warning(&mut self, line: usize, reason: impl Into<Cow<'static, str>>) {
        self.push(line, Severity::Warning, reason.into());
    }

    pub(super) fn note(&mut self, line: usize, reason: impl Into<Cow<'static, str>>) {
        self.push(line, Severity::Note, reason.into());
    }

    fn push(&mut self, line: usize, severity: Severity, reason: Cow<'static, str>) {
        if self.list.len() >= Self::MAX_COMPLAINTS {
            self.more += usize::from(severity > Severity::Note);
            return;
        }
        self.list.push(Complaint {
            file: self.file,
            line,
            severity,
            reason,
        });
    }

    /// In the order of their lines.
    pub(super) fn finish(self) -> Vec<Complaint> {
        let Self {
            file,
            mut list,
            more,
        } = self;
        list.sort_by_key(|complaint| complaint.line);
        list.dedup();
        if more > 0 {
            list.push(Complaint {
                file,
                line: 0,
                severity: Severity::Error,
                reason: match more {
                    1 => "1 more problem is not shown".into(),
                    more => format!("{more} more problems are not shown").into(),
                },
            });
        }
        list
    }
}

/// Quotes a piece of a line for a message: cut to 60 characters, control characters escaped, so
/// that a rule file cannot command the operator's terminal.
pub(super) fn shown(text: &[u8]) -> String {
    const MAX_QUOTED_CHARS: usize = 60;
    let text = String::from_utf8_lossy(text);
    let shown: String = text.chars().take(MAX_QUOTED_CHARS).collect();
    let more = if text.len() > shown.len() { "…" } else { "" };
    format!("{shown:?}{more}")
}

/// The lines of a file with their numbers from 1, trimmed, without those that are empty or comments.
pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    (1..)
        .zip(text.split(|byte| *byte == b'\n'))
        .map(|(number, line)| (number, line.trim_ascii()))
        .filter(|(_, line)| !matches!(line, [] | [b'#', ..]))
}

/// Limit for a line, in bytes.
pub(super) const MAX_LINE_LENGTH: usize = 16 << 10;
/// Cloudflare's limit for a line, in bytes.
pub(super) const MAX_CLOUDFLARE_LINE_LENGTH: usize = 2000;

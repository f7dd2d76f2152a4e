//! A problem of a site, its stable code, and what accepts it.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::rules::Severity;
use crate::semantics::target::encode_path;
use crate::settings::{InvalidGlob, PathGlob};

/// One problem of a site.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Finding {
    /// The path of the file in the site, as its bytes are.
    pub path: Box<[u8]>,
    /// The number of the line, from 1; 0 for the file as a whole.
    pub line: usize,
    /// What kind of problem it is.
    pub code: Code,
    /// What is wrong, and what to do about it.
    pub reason: String,
}

impl Finding {
    pub(super) fn new(path: &[u8], line: usize, code: Code, reason: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            line,
            code,
            reason: reason.into(),
        }
    }

    /// How bad it is.
    pub fn severity(&self) -> Severity {
        self.code.severity()
    }
}

/// `file:line: severity: reason [code]`; the file percent-encoded.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encode_path(&self.path))?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        let severity = severity_name(self.severity());
        write!(f, ": {severity}: {} [{}]", self.reason, self.code)
    }
}

/// With the fields `file`, `line`, `severity`, `code` and `reason`.
impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct FindingRecord<'a> {
            file: String,
            line: usize,
            severity: &'a str,
            code: &'a str,
            reason: &'a str,
        }
        FindingRecord {
            file: encode_path(&self.path),
            line: self.line,
            severity: severity_name(self.severity()),
            code: self.code.name(),
            reason: &self.reason,
        }
        .serialize(serializer)
    }
}

const fn severity_name(severity: Severity) -> &'static str {
    match severity {
        Severity::Note => "note",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

/// Declares [`Code`] and its table.
macro_rules! codes {
    ($($(#[$doc:meta])* $code:ident $name:literal $severity:ident),* $(,)?) => {
        /// The kind of a finding. Its name never changes, so that `--allow` may rely on it.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Code {
            $($(#[$doc])* $code,)*
        }

        impl Code {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$code),*];

            /// Its name, as it is printed and typed.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$code => $name,)*
                }
            }

            /// How bad it is.
            pub const fn severity(self) -> Severity {
                match self {
                    $(Self::$code => Severity::$severity,)*
                }
            }
        }
    };
}

codes! {
    /// A line of a rule file that does not apply.
    RuleInvalid "rule-invalid" Error,
    /// A line of a rule file that applies, but hardly as its author hopes.
    RuleDoubtful "rule-doubtful" Warning,
    /// A line of a rule file that another platform refuses, or reads differently.
    RulePortability "rule-portability" Note,
    /// A redirect or rewrite that never applies, since a file answers there.
    RuleUnused "rule-unused" Warning,
    /// A redirect or rewrite to where nothing is, or in a circle.
    RuleTarget "rule-target" Error,
    /// The page of an error status is missing.
    RulePage "rule-page" Warning,
    /// A path of `_headers` that matches nothing.
    HeadersUnused "headers-unused" Warning,
    /// `Content-Encoding` for a file that is not so encoded.
    ContentEncoding "content-encoding" Error,
    /// `Cache-Control` that contradicts itself, put together from several blocks.
    CacheControl "cache-control" Warning,
    /// A directory in the place of a rule file.
    RulesDirectory "rules-directory" Error,
    /// A file whose name is reserved for rules.
    ReservedName "reserved-name" Warning,
    /// A file or directory that can't be read.
    Unreadable "unreadable" Error,
    /// A symbolic link that is not followed, or leads nowhere.
    Symlink "symlink" Error,
    /// A symbolic link to a folder above, which is followed once and not here.
    SymlinkRepeated "symlink-repeated" Note,
    /// A file that is named like a sidecar and isn't one.
    Sidecar "sidecar" Error,
    /// A reference within the site that leads nowhere, or in a circle.
    DeadLink "dead-link" Warning,
    /// A file whose references could not be checked.
    Unchecked "unchecked" Warning,
    /// An immutable file that has other content than clients may have.
    ImmutableChanged "immutable-changed" Error,
    /// Names that differ in case or accents alone.
    LookAlike "look-alike" Warning,
    /// A folder whose index has a name that etagd does not look for.
    IndexName "index-name" Warning,
    /// What an editor or a tool has left, and everybody can fetch.
    Leftover "leftover" Warning,
    /// A name that begins with a dot.
    Hidden "hidden" Note,
    /// Neither a file, a directory nor a link.
    SpecialFile "special-file" Warning,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a text is no [`Allowance`].
#[derive(Debug, thiserror::Error)]
pub enum InvalidAllowance {
    /// There is no such code.
    #[error("unknown code {0:?}; expected one of {all}", all = all_names())]
    Code(String),
    /// What follows the colon is no pattern.
    #[error(transparent)]
    Glob(#[from] InvalidGlob),
}

fn all_names() -> String {
    let names: Vec<_> = Code::ALL.iter().map(|code| code.name()).collect();
    names.join(", ")
}

/// Findings that are accepted, `CODE` or `CODE:GLOB`.
#[derive(Clone, Debug)]
pub struct Allowance {
    code: Code,
    /// The files; all, without one.
    files: Option<PathGlob>,
}

impl Allowance {
    /// Whether it accepts a finding.
    pub fn accepts(&self, finding: &Finding) -> bool {
        self.code == finding.code
            && self
                .files
                .as_ref()
                .is_none_or(|glob| glob.matches(&finding.path))
    }
}

/// As it was typed.
impl fmt::Display for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.code.fmt(f)?;
        match &self.files {
            Some(glob) => write!(f, ":{}", glob.pattern()),
            None => Ok(()),
        }
    }
}

impl FromStr for Allowance {
    type Err = InvalidAllowance;

    fn from_str(text: &str) -> Result<Self, InvalidAllowance> {
        let (name, glob) = match text.split_once(':') {
            Some((name, glob)) => (name, Some(glob)),
            None => (text, None),
        };
        let code = Code::ALL.iter().find(|code| code.name() == name);
        Ok(Self {
            code: *code.ok_or_else(|| InvalidAllowance::Code(name.to_owned()))?,
            files: glob.map(str::parse).transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_accepts_a_code_everywhere_or_in_some_files() {
        let finding = Finding::new(b"docs/a b.html", 3, Code::DeadLink, "x");
        for (text, expected) in [
            ("dead-link", true),
            ("dead-link:/docs/**", true),
            ("dead-link:/docs/a b.html", true),
            ("dead-link:/*", false),
            ("leftover", false),
            ("leftover:/docs/**", false),
        ] {
            let allowance: Allowance = text.parse().expect(text);
            assert_eq!(allowance.accepts(&finding), expected, "{text}");
            assert_eq!(allowance.to_string(), text);
        }
        for text in [
            "",
            "dead",
            "dead-link:docs",
            "dead-link:",
            "DEAD-LINK",
            ":/x",
        ] {
            assert!(text.parse::<Allowance>().is_err(), "{text}");
        }
        let error = "dead"
            .parse::<Allowance>()
            .expect_err("no code")
            .to_string();
        assert!(error.contains("dead-link, "), "{error}");
        assert_eq!(
            finding.to_string(),
            "docs/a%20b.html:3: warning: x [dead-link]"
        );
    }

    #[test]
    fn names_are_unique() {
        let names: std::collections::BTreeSet<_> = Code::ALL.iter().map(|it| it.name()).collect();
        assert_eq!(names.len(), Code::ALL.len());
    }
}

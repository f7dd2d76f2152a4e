//! Which paths of a tree are left out: patterns in the grammar of gitignore(5), as the operator and the
//! site give them, and what editors leave behind. Pure: names alone decide.
//!
//! A pattern without a slash, or with one at its end alone, is for names in any folder; any other
//! begins at the root. A slash at the end is for folders alone. Of several patterns the last one that
//! matches counts, and one that begins with `!` takes a path in again, unless a folder above it is left
//! out.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// Number of patterns that a file may have.
const MAX_PATTERNS: usize = 10_000;

/// One pattern, which is known to be one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExcludePattern(Box<str>);

impl ExcludePattern {
    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is no [`ExcludePattern`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvalidPattern {
    /// A blank line or a comment: it would leave out nothing.
    #[error(
        "expected a pattern such as node_modules or *.map (\\# stands for a # at its beginning)"
    )]
    Empty,
    /// It has a `[` without the `]` that ends the set.
    #[error("the [ has no ]: \\[ stands for the character")]
    UnclosedSet,
    /// It has `.` or `..` for a folder, and paths in a site have neither.
    #[error(
        "paths begin at the root of the site, without . and ..: /drafts for what is there alone"
    )]
    DotSegment,
    /// It is no pattern, or one that is too large.
    #[error("invalid pattern: {0}")]
    Syntax(String),
    /// Each of several is a pattern, and all of them are too large.
    #[error("the patterns are too large together: have fewer of them, or simpler ones")]
    TooLarge,
}

impl FromStr for ExcludePattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        // Both would match nothing, without a word.
        let pattern = text.strip_prefix('!').unwrap_or(text);
        if text.starts_with('#') {
            return Err(InvalidPattern::Empty);
        }
        if has_unclosed_set(pattern) {
            return Err(InvalidPattern::UnclosedSet);
        }
        if pattern
            .trim_end()
            .split('/')
            .any(|name| matches!(name, "." | ".."))
        {
            return Err(InvalidPattern::DotSegment);
        }
        // A set of its own: what is too large is found when it is compiled.
        match compile([text])?.is_empty() {
            true => Err(InvalidPattern::Empty),
            false => Ok(Self(text.into())),
        }
    }
}

/// Whether a `[` begins a set of characters that nothing ends. A `]` that comes first is one of them.
fn has_unclosed_set(pattern: &str) -> bool {
    let mut rest = pattern.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '\\' => {
                rest.next();
            }
            '[' => {
                rest.next_if(|next| matches!(next, '!' | '^'));
                rest.next_if_eq(&']');
                if !rest.any(|next| next == ']') {
                    return true;
                }
            }
            _ => {}
        }
    }
    false
}

/// Compiles patterns; blank lines and comments among them are skipped.
fn compile<'l>(lines: impl IntoIterator<Item = &'l str>) -> Result<Gitignore, InvalidPattern> {
    let invalid = |error: ignore::Error| InvalidPattern::Syntax(reason(&error));
    let mut builder = GitignoreBuilder::new("");
    for line in lines {
        builder.add_line(None, line).map_err(invalid)?;
    }
    builder.build().map_err(invalid)
}

/// What is wrong with a pattern, without the pattern.
fn reason(error: &ignore::Error) -> String {
    match error {
        ignore::Error::Glob { err, .. } => err.clone(),
        other => other.to_string(),
    }
}

/// A list of patterns.
#[derive(Clone, Default)]
pub struct ExcludePatterns {
    patterns: Box<[ExcludePattern]>,
    /// All of them in one; each of the operator's for itself where that would be too large.
    matchers: Box<[Gitignore]>,
}

impl fmt::Debug for ExcludePatterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.as_strs()).finish()
    }
}

impl From<Vec<ExcludePattern>> for ExcludePatterns {
    fn from(patterns: Vec<ExcludePattern>) -> Self {
        let texts = || patterns.iter().map(ExcludePattern::as_str);
        let matchers = match compile(texts()) {
            Ok(all) => vec![all],
            // Each has been compiled alone when it was read.
            Err(_) => texts().filter_map(|text| compile([text]).ok()).collect(),
        };
        Self {
            patterns: patterns.into(),
            matchers: matchers.into(),
        }
    }
}

/// What is wrong with lines of a file: each with its number, from 1.
type Problems = Vec<(usize, InvalidPattern)>;

impl ExcludePatterns {
    /// The patterns in the text of a file, and what is wrong with its other lines.
    ///
    /// # Errors
    /// When the patterns are too large together. One matcher for each would hold megabytes for each of
    /// thousands.
    pub fn parse(text: &[u8]) -> Result<(Self, Problems), InvalidPattern> {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let (mut patterns, mut problems) = (Vec::new(), Vec::new());
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            if patterns.len() + problems.len() == MAX_PATTERNS {
                let reason =
                    format!("there may be {MAX_PATTERNS} patterns: the rest does not apply");
                problems.push((index + 1, InvalidPattern::Syntax(reason)));
                break;
            }
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let Ok(line) = str::from_utf8(line) else {
                let reason = "it is not UTF-8: write ? for each byte that is not".to_owned();
                problems.push((index + 1, InvalidPattern::Syntax(reason)));
                continue;
            };
            match line.parse() {
                Ok(pattern) => patterns.push(pattern),
                Err(InvalidPattern::Empty) => {}
                Err(problem) => problems.push((index + 1, problem)),
            }
        }
        let all = compile(patterns.iter().map(ExcludePattern::as_str));
        let all = all.map_err(|_| InvalidPattern::TooLarge)?;
        let patterns = Self {
            patterns: patterns.into(),
            matchers: [all].into(),
        };
        Ok((patterns, problems))
    }

    /// Each pattern as it was written.
    pub fn as_strs(&self) -> impl Iterator<Item = &str> {
        self.patterns.iter().map(ExcludePattern::as_str)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether the last pattern that matches a path leaves it out; `None` where none matches.
    fn decide(&self, path: &[u8], is_folder: bool) -> Option<bool> {
        let path = Path::new(OsStr::from_bytes(path));
        let mut last_first = self.matchers.iter().rev();
        last_first.find_map(|matcher| match matcher.matched(path, is_folder) {
            Match::None => None,
            Match::Ignore(_) => Some(true),
            Match::Whitelist(_) => Some(false),
        })
    }
}

/// What of a tree is left out, by the operator's patterns, the site's own and the names that editors
/// give to what they leave. The operator's count more than the site's, and both more than those.
///
/// Paths are raw bytes below the root, without a leading slash.
#[derive(Clone, Debug, Default)]
pub struct Exclusions {
    operators: Arc<ExcludePatterns>,
    sites: Arc<ExcludePatterns>,
}

impl Exclusions {
    /// By the patterns of the operator, and those of the site.
    #[must_use]
    pub fn new(operators: &Arc<ExcludePatterns>, sites: &Arc<ExcludePatterns>) -> Self {
        Self {
            operators: Arc::clone(operators),
            sites: Arc::clone(sites),
        }
    }

    /// Whether this path is left out by itself; of a folder, with all that is below it.
    #[must_use]
    pub fn exclude(&self, path: &[u8], is_folder: bool) -> bool {
        // The root itself is what it is all about.
        !path.is_empty()
            && self
                .operators
                .decide(path, is_folder)
                .or_else(|| self.sites.decide(path, is_folder))
                .unwrap_or_else(|| is_leftover(path))
    }

    /// Whether this path is left out, by itself or with a folder above it.
    #[must_use]
    pub fn cover(&self, path: &[u8], is_folder: bool) -> bool {
        let mut slashes = memchr::memchr_iter(b'/', path);
        slashes.any(|slash| self.exclude(&path[..slash], true)) || self.exclude(path, is_folder)
    }

    /// The built-in pattern that leaves this file out, by its name or that of a folder above it; `None`
    /// if it is one of the operator or the site, or nothing does.
    #[must_use]
    pub fn leftover_pattern(&self, path: &[u8]) -> Option<&'static str> {
        let folders = memchr::memchr_iter(b'/', path).map(|slash| (&path[..slash], true));
        let (excluded, is_folder) = folders
            .chain([(path, false)])
            .find(|(path, is_folder)| self.exclude(path, *is_folder))?;
        let is_chosen = self.operators.decide(excluded, is_folder).is_some()
            || self.sites.decide(excluded, is_folder).is_some();
        let leftover = match excluded {
            [.., b'~'] => "*~",
            [.., b'#'] => "#*#",
            _ => "*.swp",
        };
        (!is_chosen).then_some(leftover)
    }

    /// Whether whole folders may be left out.
    #[must_use]
    pub fn have_patterns(&self) -> bool {
        !self.operators.is_empty() || !self.sites.is_empty()
    }
}

impl PartialEq for Exclusions {
    fn eq(&self, other: &Self) -> bool {
        self.operators.patterns == other.operators.patterns
            && self.sites.patterns == other.sites.patterns
    }
}

/// Whether a path has the name of what an editor leaves next to a file: `*~`, `*.swp`, `#*#`.
fn is_leftover(path: &[u8]) -> bool {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
    name.ends_with(b"~") || name.ends_with(b".swp") || matches!(name, [b'#', .., b'#'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(text: &str) -> Arc<ExcludePatterns> {
        let parsed = ExcludePatterns::parse(text.as_bytes());
        let (patterns, problems) = parsed.expect("not too large");
        assert_eq!(problems, [], "{text}");
        Arc::new(patterns)
    }

    fn excluded(operators: &str, sites: &str, path: &str) -> bool {
        Exclusions::new(&patterns(operators), &patterns(sites)).cover(path.as_bytes(), false)
    }

    #[test]
    fn patterns_are_those_of_gitignore() {
        #[rustfmt::skip]
        let cases: &[(&str, &[&str], &[&str])] = &[
            // patterns, files that are left out, files that are not
            ("node_modules", &["node_modules", "node_modules/a/b", "x/node_modules/a"], &["node_modules2/a"]),
            ("node_modules/", &["node_modules/a", "x/node_modules/a"], &["node_modules"]),
            ("/drafts", &["drafts", "drafts/a"], &["x/drafts"]),
            ("a/b", &["a/b", "a/b/c"], &["x/a/b"]),
            ("*.map", &["a.map", "x/y/a.map"], &["a.map.js"]),
            ("*.map\n!keep.map", &["a.map"], &["keep.map", "x/keep.map"]),
            ("!keep.map\n*.map", &["keep.map"], &[]),
            ("x/\n!x/keep", &["x/keep"], &[]),
            ("x/*\n!x/keep", &["x/a"], &["x/keep"]),
            ("a/**/b", &["a/b", "a/x/y/b"], &["b"]),
            ("docs/**", &["docs/a", "docs/a/b"], &["docs"]),
            ("[ab].txt", &["a.txt"], &["c.txt"]),
            ("# a comment\n\n  \n\\#x", &["#x"], &["# a comment"]),
            ("caf\u{e9}", &["caf\u{e9}/a"], &["cafe/a"]),
            ("*", &["a", "a/b"], &[]),
        ];
        for (text, out, kept) in cases {
            for path in *out {
                assert!(excluded(text, "", path), "{text:?} {path}");
                assert!(excluded("", text, path), "{text:?} {path}");
            }
            for path in *kept {
                assert!(!excluded(text, "", path), "{text:?} {path}");
            }
        }
        let all = Exclusions::new(&patterns("*"), &Arc::default());
        assert!(!all.exclude(b"", true), "the root is no path in it");
        let latin = Exclusions::new(&patterns("caf*"), &Arc::default());
        assert!(latin.cover(b"x/caf\xe9", false), "a name need not be UTF-8");
    }

    #[test]
    fn what_editors_leave_is_left_out_unless_a_pattern_takes_it_in() {
        for path in [
            "a~",
            "x/a.html~",
            ".a.swp",
            "x/a.swp",
            "#a#",
            "x/#a#",
            "x~/a",
        ] {
            assert!(excluded("", "", path), "{path}");
            let pattern = |exclusions: &Exclusions| exclusions.leftover_pattern(path.as_bytes());
            let built_in = pattern(&Exclusions::default()).expect(path);
            assert!(excluded(built_in, "", path), "{path}: {built_in}");
            assert_eq!(
                pattern(&Exclusions::new(&patterns("*"), &Arc::default())),
                None
            );
            assert!(!excluded("!*", "", path), "{path}");
            assert!(!excluded("", "!*", path), "{path}");
        }
        for path in ["a", "~a", "a.swp.html", "#", "#a", "a#", "x/a#b"] {
            assert!(!excluded("", "", path), "{path}");
        }
    }

    #[test]
    fn the_operator_decides_before_the_site() {
        assert!(excluded("*.map", "!*.map", "a.map"));
        assert!(!excluded("!a.map", "*.map", "a.map"));
        assert!(excluded("!a.map", "*.map", "b.map"));
    }

    #[test]
    fn no_bytes_are_too_odd() {
        // Every pair of what has a meaning in patterns, and what ends lines or is no UTF-8.
        let special = b"*?[]{}!#\\/,-^ \t\r\n\0\xffa.";
        for first in special {
            for second in special {
                for third in special {
                    let text = [*first, *second, *third];
                    let (patterns, _) = ExcludePatterns::parse(&text).expect("not too large");
                    assert!(patterns.as_strs().count() <= 3);
                    let exclusions = Exclusions::new(&Arc::new(patterns), &Arc::default());
                    for path in [&b"a"[..], b"a/b", b"[", b"\xff", b"a\n", &text] {
                        let _ = exclusions.cover(path, false) || exclusions.cover(path, true);
                    }
                }
            }
        }
    }

    #[test]
    fn what_could_match_nothing_is_refused() {
        for text in ["[", "a[b", "![", "[]", "[!]", "x/[a", "[^]b", "\\[["] {
            let refused = text.parse::<ExcludePattern>();
            assert_eq!(refused, Err(InvalidPattern::UnclosedSet), "{text}");
        }
        for text in ["./d", "../d", "a/./b", "!./d", ".", "..", "d/..", "./ "] {
            let refused = text.parse::<ExcludePattern>();
            assert_eq!(refused, Err(InvalidPattern::DotSegment), "{text}");
        }
        for text in [
            "\\[", "[ab]", "[]a]", "[!]a]", "]", ".d", "..d", "a..", "x/.y/z",
        ] {
            assert!(text.parse::<ExcludePattern>().is_ok(), "{text}");
        }
        let (none, problems) = ExcludePatterns::parse(b"# [ ./d\n[\n./d\n").expect("small");
        assert!(none.is_empty());
        let lines: Vec<_> = problems.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [2, 3]);
    }

    #[test]
    fn what_is_no_pattern_is_named_by_its_line() {
        let parse = |text: &[u8]| ExcludePatterns::parse(text).expect("not too large");
        let (good, problems) = parse(b"\xef\xbb\xbf*.map\n{a\n\n# c\n*.tmp\n");
        assert_eq!(good.as_strs().collect::<Vec<_>>(), ["*.map", "*.tmp"]);
        assert!(
            matches!(&problems[..], [(2, InvalidPattern::Syntax(reason))] if !reason.is_empty())
        );
        for text in ["", " ", "# comment", "{a", "a}", "[z-a]", "a["] {
            let refused = text.parse::<ExcludePattern>();
            assert!(refused.is_err(), "{text:?}");
        }
        let (none, problems) = parse(b"caf\xe9/\r\n");
        assert!(none.is_empty() && problems.len() == 1, "{problems:?}");
        let (_, problems) = parse("{a\n".repeat(MAX_PATTERNS * 2).as_bytes());
        assert_eq!(
            problems.len(),
            MAX_PATTERNS + 1,
            "not one for each of millions"
        );
        let many = "a\n".repeat(MAX_PATTERNS + 2);
        let (patterns, problems) = parse(many.as_bytes());
        assert_eq!(patterns.as_strs().count(), MAX_PATTERNS);
        assert_eq!(problems.len(), 1);
        let large = "{a,b}[a-z]?".repeat(60_000);
        assert!(large.parse::<ExcludePattern>().is_err());
    }

    #[test]
    fn what_is_too_large_together_can_not_be_used() {
        let line = "{a,b}[a-z]?".repeat(300) + "\n";
        assert!(ExcludePatterns::parse(line.as_bytes()).is_ok());
        let refused = ExcludePatterns::parse(line.repeat(200).as_bytes());
        assert_eq!(refused.err(), Some(InvalidPattern::TooLarge));
    }
}

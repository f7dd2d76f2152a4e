//! Which files are immutable: their content never changes, so that a client that has one need never
//! ask again (RFC 8246).

use std::ops::Range;
use std::str::FromStr;

use super::globs::{InvalidGlob, PathGlob};

/// The value that stands for [`ImmutableFiles::Fingerprinted`].
const AUTO: &str = "auto";
/// Lengths that a hash in a name may have: bundlers write 8 characters or more, and 64 are all of a
/// SHA-256.
const MIN_FINGERPRINT: usize = 8;
const MAX_FINGERPRINT: usize = 64;
/// Letters side by side that are taken for a word where numbers are all that is beside them.
const MIN_HEX_WORD: usize = 3;
/// Small letters that a word has at least after its first one.
const MIN_WORD_TAIL: usize = 2;

/// Files that the operator says are immutable.
#[derive(Clone, Debug)]
pub enum ImmutableFiles {
    /// Those whose names have a hash in them: see [`is_fingerprinted`].
    Fingerprinted,
    /// Those whose paths match.
    Matching(PathGlob),
}

impl ImmutableFiles {
    /// Whether the file at `path` is one of them: raw bytes below the root, without the leading
    /// slash.
    pub fn contain(&self, path: &[u8]) -> bool {
        match self {
            Self::Fingerprinted => is_fingerprinted(path),
            Self::Matching(glob) => glob.matches(path),
        }
    }

    /// As it is typed after `--immutable`.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Fingerprinted => AUTO,
            Self::Matching(glob) => glob.pattern(),
        }
    }
}

impl FromStr for ImmutableFiles {
    type Err = InvalidGlob;

    fn from_str(value: &str) -> Result<Self, InvalidGlob> {
        match value {
            // A pattern begins with a slash.
            AUTO => Ok(Self::Fingerprinted),
            pattern => pattern.parse().map(Self::Matching),
        }
    }
}

/// Whether the name of the file at `path` has a hash of its content in it, as bundlers write it: by
/// the name alone, so that all replicas agree.
///
/// The last part before the extension, after a `-` or a `.`, has 8 to 64 characters and is either
/// hex in one case with a digit and a letter, or base64url with a small letter, a capital and a
/// digit. A date, a UUID, and words with numbers between them are not hashes; pages are never
/// immutable, for nothing links to the next version of a page.
///
/// It errs on the side of asking: what is missed costs a 304, and what is taken for a hash and is
/// none would be kept for a year.
pub fn is_fingerprinted(path: &[u8]) -> bool {
    fingerprint(path).is_some()
}

/// Where in a path the hash is that makes its file [fingerprinted](is_fingerprinted).
pub(super) fn fingerprint(path: &[u8]) -> Option<Range<usize>> {
    let (start, dot) = stem_of_asset(path)?;
    let stem = &path[start..dot];
    let part = stem.rsplit(is_separator).next().unwrap_or(stem);
    let is_hash = (MIN_FINGERPRINT..=MAX_FINGERPRINT).contains(&part.len())
        && !begins_with_date(part)
        && (is_hex_hash(part) || is_base64_hash(part));
    is_hash.then(|| dot - part.len()..dot)
}

/// Where the name of a file without its extension begins and ends, if it has an extension and is no
/// page.
pub(super) fn stem_of_asset(path: &[u8]) -> Option<(usize, usize)> {
    let start = path.iter().rposition(|byte| *byte == b'/');
    let start = start.map_or(0, |slash| slash + 1);
    let dot = start + path[start..].iter().rposition(|byte| *byte == b'.')?;
    let extension = &path[dot + 1..];
    let is_page = [&b"html"[..], b"htm", b"xhtml"]
        .iter()
        .any(|page| extension.eq_ignore_ascii_case(page));
    let is_asset = !extension.is_empty() && !is_page && !ends_in_uuid(&path[start..dot]);
    is_asset.then_some((start, dot))
}

/// What is between the hash and the rest of a name.
pub(super) fn is_separator(byte: &u8) -> bool {
    matches!(byte, b'-' | b'.')
}

fn is_hex_hash(part: &[u8]) -> bool {
    let is_hex = |letters: fn(&u8) -> bool| {
        part.iter()
            .all(|byte| byte.is_ascii_digit() || letters(byte))
            && part.iter().any(u8::is_ascii_digit)
            && part.iter().any(letters)
    };
    let is_one_case =
        is_hex(|byte| matches!(byte, b'a'..=b'f')) || is_hex(|byte| matches!(byte, b'A'..=b'F'));
    is_one_case && !is_hex_word_and_number(part)
}

/// Such as `cafe2026`: letters and then digits, or the other way round.
fn is_hex_word_and_number(part: &[u8]) -> bool {
    let changes = part
        .windows(2)
        .filter(|pair| pair[0].is_ascii_digit() != pair[1].is_ascii_digit());
    let letters = part.iter().filter(|byte| byte.is_ascii_alphabetic());
    changes.count() == 1 && letters.count() >= MIN_HEX_WORD
}

fn is_base64_hash(part: &[u8]) -> bool {
    let is_base64url = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    part.iter().all(is_base64url)
        && part.iter().any(u8::is_ascii_lowercase)
        && part.iter().any(u8::is_ascii_uppercase)
        && part.iter().any(u8::is_ascii_digit)
        && !is_words_and_numbers(part)
}

/// Such as `Release2026` or `Windows11_Setup`: each letter belongs to a word, which has small
/// letters after its first one. Of the hashes that look so, by chance, there are three in a hundred.
fn is_words_and_numbers(part: &[u8]) -> bool {
    let mut rest = part;
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if !first.is_ascii_alphabetic() {
            continue;
        }
        let small = tail
            .iter()
            .take_while(|byte| byte.is_ascii_lowercase())
            .count();
        if small < MIN_WORD_TAIL {
            return false;
        }
        rest = &tail[small..];
    }
    true
}

/// Such as `20261128`, whatever follows.
fn begins_with_date(part: &[u8]) -> bool {
    let number = |digits: &[u8]| {
        std::str::from_utf8(digits)
            .ok()
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?
            .parse::<u32>()
            .ok()
    };
    let Some(date) = part.get(..8) else {
        return false;
    };
    let (year, month, day) = (number(&date[..4]), number(&date[4..6]), number(&date[6..]));
    year.is_some_and(|year| (1900..2100).contains(&year))
        && month.is_some_and(|month| (1..=12).contains(&month))
        && day.is_some_and(|day| (1..=31).contains(&day))
}

/// A UUID names a thing, not its content (RFC 9562 section 4): 8, 4, 4, 4 and 12 digits.
fn ends_in_uuid(stem: &[u8]) -> bool {
    const LENGTHS: [usize; 5] = [12, 4, 4, 4, 8];
    let mut parts = stem.rsplit(|byte| *byte == b'-');
    LENGTHS.into_iter().enumerate().all(|(place, length)| {
        parts.next().is_some_and(|part| {
            // Its first part may follow another name: `photo.550e8400`.
            let start = match place + 1 == LENGTHS.len() {
                true => part.len().saturating_sub(length),
                false => 0,
            };
            let digits = &part[start..];
            digits.len() == length && digits.iter().all(u8::is_ascii_hexdigit)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_in_names_are_told_from_dates_versions_and_words() {
        for (path, want) in [
            // As bundlers write them.
            ("assets/index-BfX3a91Z.js", true),
            ("assets/index-C7dBx_9a.css", true),
            ("main.8d3f2a1c.css", true),
            ("static/js/2.6f3a9d0e.chunk.js", false),
            ("8d3f2a1c9b7e6f50.woff2", true),
            ("app-0123456789abcdef0123456789abcdef.js", true),
            ("app.01A3456789ABCDEF.js", true),
            ("a/b.c/logo.5eadbee5.svg", true),
            ("runtime-deadbeef1.js", false),
            ("runtime-dead1beef.js", true),
            // Words.
            ("bootstrap-responsive.css", false),
            ("runtime-deadbeef.js", false),
            ("jquery-deadbeef", false),
            ("menu-cafe2026.pdf", false),
            ("menu-2026cafe.pdf", false),
            ("notes-Release2026.pdf", false),
            ("setup-Windows11_Setup.exe", false),
            ("IMG_20261128.jpg", false),
            ("README-CONTRIBUTORS.md", false),
            ("font-SourceCodePro.woff2", false),
            // Dates and versions.
            ("report-2026-11-28.pdf", false),
            ("report-20261128.pdf", false),
            ("report-20261128a.pdf", false),
            ("report-20261128T1015Zab.pdf", false),
            ("jquery-3.7.1.min.js", false),
            ("app-12345678.js", false),
            ("tool-1.0.0-x86_64.tar.gz", false),
            // Things, not contents.
            ("photo-550e8400-e29b-41d4-a716-446655440000.jpg", false),
            ("550e8400-e29b-41d4-a716-44665544000a.jpg", false),
            // Too short, too long, mixed, no extension, no name, a page.
            ("app-8d3f2a1.js", false),
            ("app-8d3F2a1c.js", true),
            ("app-8d3fza1c.js", false),
            ("app-8d3f2a1c", false),
            ("app-8d3f2a1c.", false),
            (".8d3f2a1c", false),
            ("8d3f2a1c/app.js", false),
            ("about-8d3f2a1c.html", false),
            ("about-8d3f2a1c.HTM", false),
            ("", false),
            (".", false),
            ("-.-", false),
        ] {
            assert_eq!(is_fingerprinted(path.as_bytes()), want, "{path}");
        }
        let hash = "0a".repeat(32);
        assert!(is_fingerprinted(format!("app-{hash}.js").as_bytes()));
        assert!(!is_fingerprinted(format!("app-{hash}b.js").as_bytes()));
        assert!(!is_fingerprinted(b"app-8d3f2a1\xff.js"));
    }

    #[test]
    fn auto_is_a_value_and_all_else_is_a_pattern() {
        let auto: ImmutableFiles = "auto".parse().expect("auto");
        assert!(auto.contain(b"a/app-8d3f2a1c.js") && !auto.contain(b"auto"));
        let glob: ImmutableFiles = "/auto".parse().expect("a pattern");
        assert!(glob.contain(b"auto") && !glob.contain(b"app-8d3f2a1c.js"));
        assert_eq!([auto.as_str(), glob.as_str()], ["auto", "/auto"]);
        assert!("automatic".parse::<ImmutableFiles>().is_err());
    }
}

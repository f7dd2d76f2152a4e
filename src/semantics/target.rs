//! Request targets (RFC 9112 3.2): from a URI to the bytes of a name, decoded once (RFC 3986 2.4).
//!
//! [`Target::parse`] refuses what two readers could take for two names: dot segments in any
//! spelling, an encoded slash, NUL, a raw backslash, escapes that are none. Every other byte is a
//! byte of a name, whether or not it is UTF-8; overlong forms of `.` or `/` are therefore names
//! that no file has, and harmless. The query is neither decoded nor judged.
//!
//! [`normalize`] says which path a target with dot segments or encoded slashes means, for a
//! redirect. [`encode_path`] and [`relative_reference`] write paths.

use std::borrow::Cow;
use std::fmt;

use http::{StatusCode, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};

/// What a request asks for (RFC 9112 3.2.1 origin-form, 3.2.2 absolute-form).
#[derive(Clone, Debug)]
pub struct Target<'a> {
    /// Decoded, without the leading slash: the key of the manifest.
    path: Cow<'a, [u8]>,
    /// As sent, for the log and for redirects that must not re-encode.
    raw_path: &'a str,
    /// As sent; redirects keep it.
    query: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// Reads path and query of a URI, as [`Target::of`] does.
    ///
    /// # Errors
    ///
    /// [`BadTarget`] says which rule the target broke.
    pub fn parse(uri: &'a Uri) -> Result<Self, BadTarget> {
        Self::of(uri.path(), uri.query())
    }

    /// Reads the target of a request, its path and query as sent; nothing is copied where nothing is
    /// encoded.
    ///
    /// ```abnf
    /// origin-form   = absolute-path [ "?" query ]
    /// absolute-path = 1*( "/" segment )
    /// segment       = *pchar
    /// pchar         = unreserved / pct-encoded / sub-delims / ":" / "@"
    /// ```
    ///
    /// Bytes that `pchar` excludes but browsers send as they are (`|`, `^`, raw UTF-8) pass.
    ///
    /// # Errors
    ///
    /// [`BadTarget`] says which rule the target broke.
    pub fn of(raw_path: &'a str, query: Option<&'a str>) -> Result<Self, BadTarget> {
        // 3.2.3 authority-form has no path, 3.2.4 asterisk-form has `*`.
        let Some(encoded) = raw_path.strip_prefix('/') else {
            return Err(BadTarget::NotAPath);
        };
        // RFC 9112 3: at least 8000 are recommended.
        if is_too_long(raw_path, query) {
            return Err(BadTarget::TooLong);
        }
        let encoded = encoded.as_bytes();
        check_escapes(encoded)?;
        if encoded.contains(&b'\\') {
            return Err(BadTarget::Backslash);
        }
        let path: Cow<'a, [u8]> = percent_decode(encoded).into();
        if path.contains(&0) {
            return Err(BadTarget::Nul);
        }
        // RFC 3986 5.2.4: most clients remove dot segments before they send. Nothing is looked up
        // under a name that has them; see `normalize`.
        if path
            .split(|byte| *byte == b'/')
            .any(|segment| matches!(segment, b"." | b".."))
        {
            return Err(BadTarget::DotSegment);
        }
        Ok(Self {
            path,
            raw_path,
            query,
        })
    }

    /// The name asked for: decoded bytes without the leading slash.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// The same target with another path: decoded bytes without the leading slash.
    pub(super) fn map_path(self, change: impl FnOnce(Cow<'a, [u8]>) -> Cow<'a, [u8]>) -> Self {
        Self {
            path: change(self.path),
            ..self
        }
    }

    /// The path as sent, with its leading slash (RFC 3986 3.3).
    #[must_use]
    pub const fn raw_path(&self) -> &'a str {
        self.raw_path
    }

    /// The query as sent, without `?` (RFC 3986 3.4).
    #[must_use]
    pub const fn query(&self) -> Option<&'a str> {
        self.query
    }

    /// Whether the path names a directory: it is the root or ends with a slash.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        matches!(*self.path, [] | [.., b'/'])
    }

    /// The path without empty segments (RFC 3986 3.3), if it has any. Never begins with a slash,
    /// so `/` before it cannot make a network-path reference of another host (4.2).
    #[must_use]
    pub fn collapsed(&self) -> Option<Vec<u8>> {
        let path = self.path();
        if !path.starts_with(b"/") && !path.windows(2).any(|pair| pair == b"//") {
            return None;
        }
        let mut collapsed = Vec::with_capacity(path.len());
        for byte in path {
            if *byte != b'/' || !matches!(collapsed.last(), None | Some(b'/')) {
                collapsed.push(*byte);
            }
        }
        Some(collapsed)
    }
}

/// Why a target was refused. Each is a client's error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadTarget {
    /// Asterisk-form or authority-form, where a path is wanted (RFC 9112 3.2).
    NotAPath,
    /// More than 8192 bytes of path and query (RFC 9110 15.5.15).
    TooLong,
    /// `%` without two hex digits after it (RFC 3986 2.1).
    BadEscape,
    /// `%2F`: a slash that is data here and a delimiter for other software (RFC 3986 2.2).
    EncodedSlash,
    /// `%00`: the end of a name to whoever passes it to C.
    Nul,
    /// A raw `\`, which browsers and some servers read as `/`.
    Backslash,
    /// `.` or `..` as a segment, in any spelling (RFC 3986 3.3).
    DotSegment,
}

impl BadTarget {
    /// Whether only the spelling is refused: [`normalize`] may know another one.
    #[must_use]
    pub const fn is_spelling(self) -> bool {
        matches!(self, Self::EncodedSlash | Self::DotSegment)
    }

    /// The status to answer with (RFC 9110 15.5.1, 15.5.15).
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::TooLong => StatusCode::URI_TOO_LONG,
            Self::NotAPath
            | Self::BadEscape
            | Self::EncodedSlash
            | Self::Nul
            | Self::Backslash
            | Self::DotSegment => StatusCode::BAD_REQUEST,
        }
    }
}

impl fmt::Display for BadTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAPath => "the request target is not a path",
            Self::TooLong => "the URL is longer than 8192 bytes",
            Self::BadEscape => "invalid percent-encoding in the URL",
            Self::EncodedSlash => "the URL contains an encoded slash (%2F)",
            Self::Nul => "the URL contains a NUL byte (%00)",
            Self::Backslash => "the URL contains a backslash that is not percent-encoded",
            Self::DotSegment => "the URL contains a . or .. segment",
        })
    }
}

impl std::error::Error for BadTarget {}

/// The path that a target with dot segments or encoded slashes means: `%2F` is read as a slash, dot
/// segments are removed (RFC 3986 5.2.4), and empty segments after that. Decoded, without the leading
/// slash. `None` where it leads above the root, and where the target would be refused for another
/// reason as well.
///
/// apt asks for `/repository/./Packages`, npm for `/@scope%2Fname`.
#[must_use]
pub fn normalize(raw_path: &str, query: Option<&str>) -> Option<Vec<u8>> {
    let encoded = raw_path.strip_prefix('/')?.as_bytes();
    if is_too_long(raw_path, query) || encoded.contains(&b'\\') || !are_escapes(encoded) {
        return None;
    }
    let path: Cow<'_, [u8]> = percent_decode(encoded).into();
    if path.contains(&0) {
        return None;
    }
    let mut segments: Vec<&[u8]> = Vec::new();
    let mut is_directory = true;
    for segment in path.split(|byte| *byte == b'/') {
        is_directory = matches!(segment, b"" | b"." | b"..");
        match segment {
            b"." => {}
            // RFC 3986 would stay at the root; whoever asks for more is a probe.
            b".." => drop(segments.pop()?),
            name => segments.push(name),
        }
    }
    segments.retain(|segment| !segment.is_empty());
    let mut normalized = segments.join(&b'/');
    if is_directory && !normalized.is_empty() {
        normalized.push(b'/');
    }
    Some(normalized)
}

/// A relative reference (RFC 3986 4.2) to the path `to`, for whoever has asked for the path `from`;
/// both decoded, without the leading slash and without empty segments. It leads to the same place
/// behind a proxy that has taken a prefix off the path. Never empty, and never read as a scheme.
#[must_use]
pub fn relative_reference(from: &[u8], to: &[u8]) -> String {
    // What follows the last slash is no part of the base (RFC 3986 5.2.3).
    let mut base = directory_of(from);
    let mut depth = 0_usize;
    while !to.starts_with(base) {
        depth = depth.saturating_add(1);
        base = directory_of(base.strip_suffix(b"/").unwrap_or(base));
    }
    let rest = encode_path(to.get(base.len()..).unwrap_or_default());
    let reference = "../".repeat(depth) + &rest;
    let first = reference.split('/').next().unwrap_or_default();
    // RFC 3986 4.2: `a:b` would be a scheme and its path, and nothing would be this very document.
    match reference.is_empty() || first.contains(':') {
        true => format!("./{reference}"),
        false => reference,
    }
}

fn is_too_long(raw_path: &str, query: Option<&str>) -> bool {
    let query = query.map_or(0, |query| query.len().saturating_add(1));
    raw_path.len().saturating_add(query) > MAX_TARGET_LENGTH
}

/// A path up to its last slash.
fn directory_of(path: &[u8]) -> &[u8] {
    let slash = path.iter().rposition(|byte| *byte == b'/');
    slash
        .and_then(|slash| path.get(..=slash))
        .unwrap_or_default()
}

/// A name as the path of a URI, without a leading slash: `/` and this parse back to the same
/// bytes, for every name that a target can have. Unreserved characters, sub-delims, `:`, `@` and
/// `/` stand for themselves (RFC 3986 3.3), all else as upper-case `%XX` (2.1).
#[must_use]
pub fn encode_path(path: &[u8]) -> String {
    percent_encode(path, ESCAPED).to_string()
}

/// Whether each `%` begins an escape, whatever is escaped (RFC 3986 2.1).
fn are_escapes(encoded: &[u8]) -> bool {
    let mut rest = encoded;
    while let Some(place) = rest.iter().position(|byte| *byte == b'%') {
        match rest.get(place..) {
            Some([_, high, low, after @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                rest = after;
            }
            _ => return false,
        }
    }
    true
}

/// RFC 3986 2.1, and which bytes may not be escaped: `pct-encoded = "%" HEXDIG HEXDIG`.
fn check_escapes(mut encoded: &[u8]) -> Result<(), BadTarget> {
    while let Some(place) = encoded.iter().position(|byte| *byte == b'%') {
        let Some([_, high, low, rest @ ..]) = encoded.get(place..) else {
            return Err(BadTarget::BadEscape);
        };
        match (high, low) {
            (b'2', b'f' | b'F') => return Err(BadTarget::EncodedSlash),
            (high, low) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => encoded = rest,
            _ => return Err(BadTarget::BadEscape),
        }
    }
    Ok(())
}

/// Limit for path and query as sent, in bytes; RFC 9112 section 3 recommends at least 8000.
const MAX_TARGET_LENGTH: usize = 8192;

/// RFC 3986: what is not `unreserved` (2.3), `sub-delims` (2.2), `:`, `@` or `/`.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=')
    .remove(b':')
    .remove(b'@')
    .remove(b'/');

#[cfg(test)]
mod tests {
    use super::BadTarget::{
        Backslash, BadEscape, DotSegment, EncodedSlash, NotAPath, Nul, TooLong,
    };
    use super::*;

    #[test]
    fn names() {
        #[rustfmt::skip]
        let cases: &[(&str, &str, &[u8])] = &[
            ("9112 3.2.1 root", "/", b""),
            ("9112 3.2.1 file", "/a.html", b"a.html"),
            ("9112 3.2.1 directory", "/a/", b"a/"),
            ("9112 3.2.1 nested", "/a/b/c", b"a/b/c"),
            ("9112 3.2.1 query is no part of it", "/a?b/../%2f%zz", b"a"),
            ("9112 3.2.1 empty query", "/a?", b"a"),
            ("9112 3.2.2 absolute-form", "http://h/a%20b", b"a b"),
            ("9112 3.2.2 absolute-form without path", "http://h", b""),
            ("9112 3.2.2 absolute-form, two slashes", "http://h//a", b"/a"),
            ("3986 3.3 empty segment first", "//a", b"/a"),
            ("3986 3.3 looks like a host", "//evil.example/x", b"/evil.example/x"),
            ("3986 3.3 looks like a URL", "/http://h/a", b"http://h/a"),
            ("3986 3.3 empty segments", "/a//b///", b"a//b///"),
            ("3986 3.3 sub-delims", "/!$&'()*+,;=:@", b"!$&'()*+,;=:@"),
            ("3986 3.3 plus is no space", "/a+b", b"a+b"),
            ("3986 3.3 dots in names", "/.a/a./a..b/...", b".a/a./a..b/..."),
            ("3986 3.3 a dot and a space", "/.%20", b". "),
            ("3986 3.3 parameters are part of a name", "/..;x/a", b"..;x/a"),
            ("3986 3.3 case counts", "/A", b"A"),
            ("3986 2.1 space", "/a%20b", b"a b"),
            ("3986 2.1 lower-case hex", "/%e2%82%ac", "€".as_bytes()),
            ("3986 2.1 upper-case hex", "/%E2%82%AC", "€".as_bytes()),
            ("3986 2.1 mixed-case hex", "/%e2%82%Ac", "€".as_bytes()),
            ("3986 2.3 unreserved, encoded", "/%61%2D%7e", b"a-~"),
            ("3986 2.4 decoded once", "/%2561", b"%61"),
            ("3986 2.4 decoded once, slash", "/a%252fb", b"a%2fb"),
            ("3986 2.4 decoded once, dots", "/%252e%252e/a", b"%2e%2e/a"),
            ("3986 2.4 decoded once, NUL", "/%2500", b"%00"),
            ("3986 2.4 percent", "/100%25", b"100%"),
            ("3986 2.4 query mark and hash", "/a%3Fb%23c", b"a?b#c"),
            ("3986 2.1 encoded backslash", "/a%5Cb", b"a\\b"),
            ("3986 2.1 encoded backslash, lower case", "/a%5cb", b"a\\b"),
            ("3986 2.1 dots and encoded backslash", "/..%5C..%5Ca", b"..\\..\\a"),
            ("3986 2.1 CR and LF", "/a%0D%0Ab", b"a\r\nb"),
            ("3986 2.1 DEL and tab", "/%7F%09", b"\x7f\t"),
            ("3986 2.1 not UTF-8", "/%ff%fe", b"\xff\xfe"),
            ("3986 2.1 overlong dot", "/%c0%ae%c0%ae/a", b"\xc0\xae\xc0\xae/a"),
            ("3986 2.1 overlong slash", "/..%c0%afa", b"..\xc0\xafa"),
            ("3986 2.1 three-byte overlong dots", "/%e0%80%ae%e0%80%ae/a", b"\xe0\x80\xae\xe0\x80\xae/a"),
            ("3986 2.1 fullwidth dots", "/%ef%bc%8e%ef%bc%8e/a", "．．/a".as_bytes()),
            ("3986 2.1 fraction slash", "/..%e2%81%84a", "..⁄a".as_bytes()),
            ("3986 2.1 lone surrogate", "/%ed%a0%80", b"\xed\xa0\x80"),
            ("3986 2.5 raw UTF-8", "/é", "é".as_bytes()),
            ("3986 3.3 what browsers leave raw", "/a|b^c", b"a|b^c"),
        ];
        for (name, uri, want) in cases {
            let uri: Uri = uri
                .parse()
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            let target = Target::parse(&uri).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(target.path(), *want, "{name}");
            let borrowed = matches!(target.path, Cow::Borrowed(_));
            assert_eq!(
                borrowed,
                !uri.path().contains('%'),
                "{name}: copied without need"
            );
        }
    }

    #[test]
    fn refusals() {
        #[rustfmt::skip]
        let cases = [
            ("9112 3.2.4 asterisk-form", "*", NotAPath),
            ("9112 3.2.3 authority-form", "h:443", NotAPath),
            ("9112 3.2.3 authority-form, name alone", "localhost", NotAPath),
            ("3986 3.3 dot", "/.", DotSegment),
            ("3986 3.3 dots", "/..", DotSegment),
            ("3986 3.3 dot and slash", "/./", DotSegment),
            ("3986 3.3 dots first", "/../a", DotSegment),
            ("3986 3.3 dots between", "/a/../b", DotSegment),
            ("3986 3.3 dots last", "/a/..", DotSegment),
            ("3986 3.3 dot between", "/a/./b", DotSegment),
            ("3986 3.3 dots after an empty segment", "//../a", DotSegment),
            ("3986 3.3 dots, encoded", "/%2e%2e/a", DotSegment),
            ("3986 3.3 dots, encoded in capitals", "/%2E%2E/a", DotSegment),
            ("3986 3.3 dots, encoded in both", "/%2e%2E/a", DotSegment),
            ("3986 3.3 dots, first encoded", "/%2e./a", DotSegment),
            ("3986 3.3 dots, second encoded", "/.%2e/a", DotSegment),
            ("3986 3.3 dot, encoded", "/a/%2e", DotSegment),
            ("3986 3.3 dots before a query", "/..?a", DotSegment),
            ("3986 3.3 dots in absolute-form", "http://h/../a", DotSegment),
            ("3986 2.2 encoded slash", "/a%2Fb", EncodedSlash),
            ("3986 2.2 encoded slash, lower case", "/a%2fb", EncodedSlash),
            ("3986 2.2 encoded slash first", "/%2Fevil.example", EncodedSlash),
            ("3986 2.2 encoded slash after dots", "/..%2Fa", EncodedSlash),
            ("3986 2.2 encoded slash last", "/a%2f", EncodedSlash),
            ("3986 2.1 NUL", "/%00", Nul),
            ("3986 2.1 NUL after a name", "/a.html%00.png", Nul),
            ("3986 2.1 percent alone", "/%", BadEscape),
            ("3986 2.1 percent last", "/a%", BadEscape),
            ("3986 2.1 one digit", "/%4", BadEscape),
            ("3986 2.1 one digit, then a slash", "/%4/a", BadEscape),
            ("3986 2.1 one digit before a query", "/%4?1", BadEscape),
            ("3986 2.1 no digits", "/%zz", BadEscape),
            ("3986 2.1 second no digit", "/%4z", BadEscape),
            ("3986 2.1 first no digit", "/%z4", BadEscape),
            ("3986 2.1 percent twice", "/%%41", BadEscape),
            ("3986 2.1 %u", "/%u002e", BadEscape),
            ("3986 2.1 good, then bad", "/%41%4", BadEscape),
            ("3986 2.1 sign for a digit", "/%+4", BadEscape),
            ("3986 2.1 not ASCII after percent", "/%é", BadEscape),
        ];
        for (name, uri, want) in cases {
            let uri: Uri = uri
                .parse()
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            let refusal = Target::parse(&uri).map(|target| target.path().to_vec());
            assert_eq!(refusal, Err(want), "{name}");
            assert_eq!(want.status(), StatusCode::BAD_REQUEST, "{name}");
            assert!(!want.to_string().is_empty(), "{name}");
        }
    }

    /// Whether the URI parser lets a raw backslash through is its business; if so it ends here.
    #[test]
    fn raw_backslashes() {
        for uri in ["/a\\b", "/\\", "/..\\a", "/\\evil.example", "/%5C\\"] {
            if let Ok(uri) = uri.parse::<Uri>() {
                assert_eq!(Target::parse(&uri).err(), Some(Backslash), "3986 3.3 {uri}");
            }
        }
    }

    #[test]
    fn length() {
        let parse = |text: String| Target::parse(&text.parse().unwrap()).map(drop);
        assert_eq!(
            parse(format!("/{}", "a".repeat(8191))),
            Ok(()),
            "9110 15.5.15 longest"
        );
        assert_eq!(
            parse(format!("/{}", "a".repeat(8192))),
            Err(TooLong),
            "9110 15.5.15"
        );
        assert_eq!(
            parse(format!("/?{}", "a".repeat(8190))),
            Ok(()),
            "9110 15.5.15 with query"
        );
        assert_eq!(
            parse(format!("/?{}", "a".repeat(8191))),
            Err(TooLong),
            "9110 15.5.15 query"
        );
        assert_eq!(
            parse(format!("/{}", "%".repeat(9000))),
            Err(TooLong),
            "9110 15.5.15 first"
        );
        assert_eq!(TooLong.status(), StatusCode::URI_TOO_LONG, "9110 15.5.15");
        let deep = format!("/{}", "a/".repeat(4000));
        assert_eq!(parse(deep), Ok(()), "9110 15.5.15 deep");
    }

    #[test]
    fn parts() {
        #[rustfmt::skip]
        let cases = [
            // name, target, raw path, query, names a directory, collapsed
            ("3986 3.4 no query", "/a", "/a", None, false, None),
            ("3986 3.4 query", "/a?b=c", "/a", Some("b=c"), false, None),
            ("3986 3.4 empty query", "/a?", "/a", Some(""), false, None),
            ("3986 3.4 query of a question mark", "/a??", "/a", Some("?"), false, None),
            ("3986 3.4 query stays raw", "/%61?%61", "/%61", Some("%61"), false, None),
            ("3986 3.3 root", "/", "/", None, true, None),
            ("3986 3.3 directory", "/a/", "/a/", None, true, None),
            ("3986 3.3 query with a slash", "/a?/", "/a", Some("/"), false, None),
            ("3986 3.3 two slashes", "//", "//", None, true, Some("")),
            ("3986 3.3 three slashes", "///", "///", None, true, Some("")),
            ("4.2 host-like", "//evil.example/", "//evil.example/", None, true, Some("evil.example/")),
            ("4.2 host-like, more", "////evil.example", "////evil.example", None, false, Some("evil.example")),
            ("3986 3.3 between", "/a//b", "/a//b", None, false, Some("a/b")),
            ("3986 3.3 last", "/a//", "/a//", None, true, Some("a/")),
            ("3986 3.3 everywhere", "//a///b//", "//a///b//", None, true, Some("a/b/")),
            ("3986 3.3 encoded, too", "//%61", "//%61", None, false, Some("a")),
            ("3986 3.3 no empty segment", "/a/b/", "/a/b/", None, true, None),
        ];
        for (name, uri, raw_path, query, is_directory, collapsed) in cases {
            let uri: Uri = uri.parse().unwrap();
            let target = Target::parse(&uri).unwrap();
            assert_eq!(target.raw_path(), raw_path, "{name}");
            assert_eq!(target.query(), query, "{name}");
            assert_eq!(target.is_directory(), is_directory, "{name}");
            assert_eq!(
                target.collapsed().as_deref(),
                collapsed.map(str::as_bytes),
                "{name}"
            );
        }
    }

    #[test]
    fn normalization() {
        #[rustfmt::skip]
        let cases: &[(&str, &str, Option<&[u8]>)] = &[
            ("3986 5.2.4 dot", "/a/./b", Some(b"a/b")),
            ("3986 5.2.4 dot first", "/./b", Some(b"b")),
            ("3986 5.2.4 dot last", "/a/.", Some(b"a/")),
            ("3986 5.2.4 dots", "/a/../b", Some(b"b")),
            ("3986 5.2.4 dots last", "/a/b/..", Some(b"a/")),
            ("3986 5.2.4 back to the root", "/a/..", Some(b"")),
            ("3986 5.2.4 dots, encoded", "/a/%2e%2E/b", Some(b"b")),
            ("3986 5.2.4 an empty segment is a segment", "/a//../b", Some(b"a/b")),
            ("3986 5.2.4 empty segments go afterwards", "//a///./b//", Some(b"a/b/")),
            ("3986 5.2.4 above the root", "/..", None),
            ("3986 5.2.4 above the root, then down", "/../a", None),
            ("3986 5.2.4 above the root later", "/a/../../b", None),
            ("3986 5.2.4 above the root, encoded", "/%2e%2e%2fa", None),
            ("3986 2.2 encoded slash", "/@scope%2fname", Some(b"@scope/name")),
            ("3986 2.2 encoded slash and dots", "/a%2F..%2fb", Some(b"b")),
            ("3986 2.2 encoded slash first", "/%2Fevil.example/x", Some(b"evil.example/x")),
            ("3986 2.2 encoded slash last", "/a%2f", Some(b"a/")),
            ("3986 2.4 decoded once", "/a%252fb/.", Some(b"a%2fb/")),
            ("3986 2.1 encoded backslash", "/./a%5Cb", Some(b"a\\b")),
            ("3986 2.1 bad escape", "/./%zz", None),
            ("3986 2.1 bad escape after a slash", "/%2f%4", None),
            ("3986 2.1 NUL", "/./a%00", None),
            ("9112 3.2.4 asterisk-form", "*", None),
        ];
        for (name, uri, want) in cases {
            let uri: Uri = uri.parse().unwrap();
            assert_eq!(
                normalize(uri.path(), uri.query()).as_deref(),
                *want,
                "{name}"
            );
        }
    }

    #[test]
    fn relative_references() {
        #[rustfmt::skip]
        let cases: &[(&str, &[u8], &[u8], &str)] = &[
            ("4.2 a slash more", b"docs", b"docs/", "docs/"),
            ("4.2 a slash more, below", b"a/b/docs", b"a/b/docs/", "docs/"),
            ("4.2 a slash less", b"a/docs/", b"a/docs", "../docs"),
            ("4.2 an ending less", b"a/page.html", b"a/page", "page"),
            ("4.2 the index of the root", b"index.html", b"", "./"),
            ("4.2 an index", b"a/index.html", b"a/", "./"),
            ("4.2 an index without its slash", b"a/index.html", b"a", "../a"),
            ("4.2 two levels up", b"a/b/c", b"x", "../../x"),
            ("4.2 a name that begins alike", b"ab/c", b"a/c", "../a/c"),
            ("4.2 a colon", b"a:b", b"a:b/", "./a:b/"),
            ("4.2 a colon, below", b"x/a:b", b"x/a:b/", "./a:b/"),
            ("4.2 a colon behind a slash", b"x", b"x/a:b", "x/a:b"),
            ("4.2 like a scheme", b"javascript:x", b"javascript:x/", "./javascript:x/"),
            ("2.1 encoded", b"a b?", b"a b?/", "a%20b%3F/"),
        ];
        for (name, from, to, want) in cases {
            let reference = relative_reference(from, to);
            assert_eq!(reference, *want, "{name}");
            // A resolver that is not ours leads to the same place, under any prefix.
            for prefix in ["", "blog/", "a/b/"] {
                let base = format!("http://h/{prefix}{}", encode_path(from));
                let led = url::Url::parse(&base).unwrap().join(&reference).unwrap();
                let wanted = format!("http://h/{prefix}{}", encode_path(to));
                assert_eq!(led.as_str(), wanted, "{name}");
            }
        }
    }

    #[test]
    fn encoding() {
        #[rustfmt::skip]
        let cases: &[(&str, &[u8], &str)] = &[
            ("3986 3.3 empty", b"", ""),
            ("3986 2.3 unreserved", b"aZ09-._~", "aZ09-._~"),
            ("3986 2.2 sub-delims", b"!$&'()*+,;=", "!$&'()*+,;="),
            ("3986 3.3 pchar and slash", b"a/:@/", "a/:@/"),
            ("3986 2.1 space", b"a b", "a%20b"),
            ("3986 2.1 percent", b"100%", "100%25"),
            ("3986 2.1 an escape stays text", b"%2e%2e", "%252e%252e"),
            ("3986 2.2 question mark and hash", b"a?b#c", "a%3Fb%23c"),
            ("3986 2.2 brackets", b"[id]", "%5Bid%5D"),
            ("3986 2.1 what no URI has", b"\"<>\\^`{|}", "%22%3C%3E%5C%5E%60%7B%7C%7D"),
            ("3986 2.1 header injection", b"a\r\nb: c", "a%0D%0Ab:%20c"),
            ("3986 2.1 NUL and DEL", b"\0\x7f", "%00%7F"),
            ("3986 2.1 UTF-8 in capitals", "é".as_bytes(), "%C3%A9"),
            ("3986 2.1 not UTF-8", b"\xff", "%FF"),
        ];
        for (name, path, want) in cases {
            assert_eq!(encode_path(path), *want, "{name}");
        }
    }

    /// Encoded names come back, for every byte that a name can have, alone and in any pair.
    #[test]
    fn encoding_and_back() {
        let bytes = || (1..=255_u8).filter(|byte| *byte != b'/');
        let mut names: Vec<_> = bytes().map(|byte| vec![byte]).collect();
        names.extend(bytes().flat_map(|first| bytes().map(move |second| vec![first, second])));
        names.push(bytes().collect());
        names.push(b"a/b c/%/\xff/\\.\\".to_vec());
        names.push(Vec::new());
        for name in names {
            if matches!(&*name, b"." | b"..") {
                continue;
            }
            let encoded = format!("/{}", encode_path(&name));
            let uri: Uri = encoded.parse().unwrap();
            assert_eq!(
                Target::parse(&uri).unwrap().path(),
                name,
                "3986 2.4 {encoded}"
            );
        }
    }
}

//! Plain requests: the strict subset of HTTP/1.1 that needs nothing special of a connection.
//!
//! [`PlainHead::read`] takes a request only where nobody could read it in another way: GET or HEAD
//! with a path, in HTTP/1.1, without content and without a word about the connection. It judges
//! nothing: what it does not take may be as valid, and is for a complete parser to read. The parser
//! is httparse, as in hyper, so that both read the same bytes as the same request.

use std::borrow::Cow;
use std::mem::MaybeUninit;

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderName, Method, Version};
use httparse::Header;

use super::byte_table;
use super::dictionary::AVAILABLE_DICTIONARY;
use super::head::{FieldLines, RequestHead};

/// Limit for the bytes of a plain head. Below every `--max-header-size`.
pub const MAX_HEAD: usize = 4 << 10;
/// Limit for the bytes of its target.
const MAX_TARGET: usize = 1 << 10;
/// Limit for its field lines. Browsers send about 15, and each proxy adds some.
const MAX_FIELDS: usize = 64;

/// Room for the fields of one head, which [`PlainHead::read`] fills.
pub struct FieldSpace<'b>([MaybeUninit<Header<'b>>; MAX_FIELDS]);

impl FieldSpace<'_> {
    /// Room that costs nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self([const { MaybeUninit::uninit() }; MAX_FIELDS])
    }
}

impl Default for FieldSpace<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// What some bytes begin with.
#[derive(Debug)]
pub enum HeadParse<'s, 'b> {
    /// A plain request, of so many bytes.
    Plain(PlainHead<'s, 'b>, usize),
    /// Perhaps a plain request, of which more has to come.
    Incomplete,
    /// Something else.
    Other,
}

/// The head of a plain request, in the bytes that came.
#[derive(Clone, Debug)]
pub struct PlainHead<'s, 'b> {
    method: Method,
    path: &'b str,
    query: Option<&'b str>,
    target: &'b str,
    fields: PlainFields<'s, 'b>,
}

/// The field lines of a plain request.
#[derive(Clone, Copy, Debug)]
pub struct PlainFields<'s, 'b>(&'s [Header<'b>]);

impl<'s, 'b> PlainHead<'s, 'b> {
    /// Reads what `bytes` begin with.
    pub fn read(bytes: &'b [u8], space: &'s mut FieldSpace<'b>) -> HeadParse<'s, 'b> {
        let mut request = httparse::Request::new(&mut []);
        let length = match request.parse_with_uninit_headers(bytes, &mut space.0) {
            Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD => length,
            Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => {
                return HeadParse::Incomplete;
            }
            Ok(_) | Err(_) => return HeadParse::Other,
        };
        let method = match request.method {
            Some("GET") => Method::GET,
            Some("HEAD") => Method::HEAD,
            _ => return HeadParse::Other,
        };
        let target = request.path.unwrap_or_default();
        let is_http11 = request.version == Some(1);
        let fields = PlainFields(request.headers);
        if !is_http11 || !is_plain_target(target) || !fields.are_plain() {
            return HeadParse::Other;
        }
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let head = Self {
            method,
            path,
            query,
            target,
            fields,
        };
        HeadParse::Plain(head, length)
    }
}

/// Whether a target is in origin-form (RFC 9112 3.2.1) and has only bytes that a URI may have.
///
/// ```abnf
/// pchar = unreserved / pct-encoded / sub-delims / ":" / "@"
/// ```
fn is_plain_target(target: &str) -> bool {
    const PLAIN: [bool; 256] = byte_table(b"-._~!$&'()*+,;=:@/?%");
    let is_plain = |byte: u8| PLAIN[usize::from(byte)];
    target.starts_with('/') && target.len() <= MAX_TARGET && target.bytes().all(is_plain)
}

impl PlainFields<'_, '_> {
    /// Whether none of them says that content follows (RFC 9112 6) or what is to become of the
    /// connection (RFC 9110 7.6.1, 7.8, 10.1.1), other than that it stays; and that none names a
    /// dictionary.
    fn are_plain(&self) -> bool {
        self.0.iter().all(|line| match line.name.len() {
            6 => !is_named(line, &EXPECT),
            7 => !is_named(line, &UPGRADE),
            10 => !is_named(line, &CONNECTION) || line.value.eq_ignore_ascii_case(b"keep-alive"),
            14 => !is_named(line, &CONTENT_LENGTH),
            17 => !is_named(line, &TRANSFER_ENCODING),
            // Whether it counts depends on the connection (RFC 9842 8).
            20 => !is_named(line, &AVAILABLE_DICTIONARY),
            _ => true,
        })
    }

    /// Name and value of each line, in the order sent.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|line| (line.name, line.value))
    }
}

fn is_named(line: &Header<'_>, name: &HeaderName) -> bool {
    line.name.eq_ignore_ascii_case(name.as_str())
}

impl FieldLines for PlainFields<'_, '_> {
    fn lines(&self, name: &HeaderName) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0
            .iter()
            .filter(move |line| is_named(line, name))
            .map(|line| line.value)
    }
}

impl<'s, 'b> RequestHead for PlainHead<'s, 'b> {
    type Fields = PlainFields<'s, 'b>;

    fn method(&self) -> &Method {
        &self.method
    }

    fn version(&self) -> Version {
        Version::HTTP_11
    }

    fn target(&self) -> Cow<'_, str> {
        self.target.into()
    }

    fn authority(&self) -> Option<&str> {
        None
    }

    fn path(&self) -> &str {
        self.path
    }

    fn query(&self) -> Option<&str> {
        self.query
    }

    fn fields(&self) -> &Self::Fields {
        &self.fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The target of a plain request and what follows it; `-` for another, `…` for an incomplete one.
    fn read(bytes: &str) -> String {
        let mut space = FieldSpace::new();
        match PlainHead::read(bytes.as_bytes(), &mut space) {
            HeadParse::Plain(head, length) => {
                format!("{} {}{}", head.method(), head.target(), &bytes[length..])
            }
            HeadParse::Incomplete => "…".to_owned(),
            HeadParse::Other => "-".to_owned(),
        }
    }

    #[test]
    fn what_is_plain() {
        for (about, head, found) in [
            ("9112 3 GET", "GET / HTTP/1.1\r\n\r\n", "GET /"),
            (
                "9112 3 HEAD",
                "HEAD /a?b HTTP/1.1\r\nA: b\r\n\r\n",
                "HEAD /a?b",
            ),
            (
                "9112 2.2 empty lines first",
                "\r\n\nGET / HTTP/1.1\r\n\r\n",
                "GET /",
            ),
            (
                "9112 2.2 LF alone",
                "GET / HTTP/1.1\nA: b\n\nGET",
                "GET /GET",
            ),
            (
                "9112 9.3.2 pipelined",
                "GET / HTTP/1.1\r\n\r\nGET /b",
                "GET /GET /b",
            ),
            ("9112 2.2 nothing yet", "", "…"),
            ("9112 2.2 begun", "GET / HTTP/1.1\r\nA: b\r\n", "…"),
            ("9112 2.3 older", "GET / HTTP/1.0\r\n\r\n", "-"),
            ("9112 2.3 none", "GET /\r\n\r\n", "-"),
            ("9113 3.4 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "-"),
            ("9110 9.1 another method", "OPTIONS / HTTP/1.1\r\n\r\n", "-"),
            ("9110 9.1 in small letters", "get / HTTP/1.1\r\n\r\n", "-"),
            (
                "9112 3.2.2 absolute-form",
                "GET http://a/ HTTP/1.1\r\n\r\n",
                "-",
            ),
            ("9112 3.2.4 asterisk-form", "GET * HTTP/1.1\r\n\r\n", "-"),
            ("3986 3.5 a fragment", "GET /#a HTTP/1.1\r\n\r\n", "-"),
            ("3986 2 a backslash", "GET /\\ HTTP/1.1\r\n\r\n", "-"),
            ("3986 2 not ASCII", "GET /é HTTP/1.1\r\n\r\n", "-"),
            (
                "9112 9.3 it stays",
                "GET / HTTP/1.1\r\nConnection: Keep-Alive\r\n\r\n",
                "GET /",
            ),
            (
                "9112 9.6 it closes",
                "GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
                "-",
            ),
            (
                "9110 7.6.1 a list",
                "GET / HTTP/1.1\r\nconnection: keep-alive, a\r\n\r\n",
                "-",
            ),
            (
                "9110 7.8 another protocol",
                "GET / HTTP/1.1\r\nUpgrade: h2c\r\n\r\n",
                "-",
            ),
            (
                "9110 10.1.1 Expect",
                "GET / HTTP/1.1\r\nExpect: 100-continue\r\n\r\n",
                "-",
            ),
            (
                "9112 6.2 length",
                "GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
                "-",
            ),
            (
                "9112 6.1 chunks",
                "GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n",
                "-",
            ),
            (
                "9112 5.2 folded",
                "GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
                "-",
            ),
            (
                "9112 5.1 a space before the colon",
                "GET / HTTP/1.1\r\nA : b\r\n\r\n",
                "-",
            ),
        ] {
            assert_eq!(read(head), found, "{about}");
        }
    }

    #[test]
    fn what_is_large_is_not_plain() {
        let target = |length: usize| format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(length));
        assert_ne!(read(&target(MAX_TARGET - 1)), "-");
        assert_eq!(read(&target(MAX_TARGET)), "-");
        let fields = |number: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(number));
        assert_eq!(read(&fields(MAX_FIELDS)), "GET /");
        assert_eq!(read(&fields(MAX_FIELDS + 1)), "-");
        let field = "GET / HTTP/1.1\r\nA: ".to_owned() + &"b".repeat(MAX_HEAD);
        assert_eq!(read(&field[..MAX_HEAD - 1]), "…");
        assert_eq!(read(&field[..MAX_HEAD]), "-");
        assert_eq!(read(&(field + "\r\n\r\n")), "-");
    }

    #[test]
    fn fields_are_found_by_name() {
        let bytes = b"GET / HTTP/1.1\r\nA: 1\r\nHOST:  h \r\na: 2\r\n\r\n";
        let mut space = FieldSpace::new();
        let HeadParse::Plain(head, _) = PlainHead::read(bytes, &mut space) else {
            panic!("it is plain");
        };
        let a = HeaderName::from_static("a");
        let lines: Vec<_> = head.fields().lines(&a).collect();
        assert_eq!(lines, [b"1", b"2"]);
        assert_eq!(
            head.fields().only_line(&http::header::HOST),
            Some(&b"h"[..])
        );
        assert_eq!(head.fields().only_line(&a), None);
        assert!(!head.fields().has(&http::header::RANGE));
    }
}

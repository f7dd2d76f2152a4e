//! Dictionaries of content codings (RFC 9842): which one a client has, and whether a response to it
//! may be compressed with one.
//!
//! A dictionary is an earlier response, whose bytes `dcb` and `dcz` refer to. The client names it by
//! its SHA-256, so that a wrong one can't be meant by accident.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, ORIGIN};
use http::{HeaderName, HeaderValue};
use sfv::{BareItem, Item, Parser};

use super::head::FieldLines;
use super::navigation::SEC_FETCH_MODE;
use super::trim_ows;

/// The field in which a client names the dictionary that it has (RFC 9842 2.2).
pub const AVAILABLE_DICTIONARY: HeaderName = HeaderName::from_static("available-dictionary");
/// The field that says for which URLs a response is a dictionary (RFC 9842 2.1).
pub const USE_AS_DICTIONARY: HeaderName = HeaderName::from_static("use-as-dictionary");
/// Where the page that makes a request is from, as seen from the target (Fetch Metadata 2.2).
pub const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Limit for Available-Dictionary: 46 bytes say all, and parameters may follow.
const MAX_FIELD_LENGTH: usize = 256;

/// The SHA-256 of a dictionary, which is its name (RFC 9842 2.2). Displays in lower-case hex.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DictionaryHash([u8; 32]);

impl DictionaryHash {
    /// The dictionary with this SHA-256.
    #[must_use]
    pub const fn new(sha256: [u8; 32]) -> Self {
        Self(sha256)
    }

    /// The SHA-256.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The value of Available-Dictionary that names it.
    #[must_use]
    pub fn field_value(&self) -> String {
        format!(":{}:", STANDARD.encode(self.0))
    }
}

impl fmt::Display for DictionaryHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for DictionaryHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text is no SHA-256 in lower-case hex.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InvalidHash;

impl FromStr for DictionaryHash {
    type Err = InvalidHash;

    fn from_str(text: &str) -> Result<Self, InvalidHash> {
        let hash = blake3::Hash::from_hex(text).map_err(|_| InvalidHash)?;
        let hash = Self(*hash.as_bytes());
        // One spelling for one hash: it is a file's name, too.
        (hash.to_string() == text)
            .then_some(hash)
            .ok_or(InvalidHash)
    }
}

/// The dictionary that a client has. `None` where the field is absent, or is not one byte sequence of
/// 32 bytes.
///
/// ```abnf
/// Available-Dictionary = sf-binary
/// ```
#[must_use]
pub fn available(fields: &impl FieldLines) -> Option<DictionaryHash> {
    let line = fields.only_line(&AVAILABLE_DICTIONARY)?;
    if line.len() > MAX_FIELD_LENGTH {
        return None;
    }
    let item: Item = Parser::new(line).parse().ok()?;
    match item.bare_item {
        BareItem::ByteSequence(bytes) => bytes.try_into().ok().map(DictionaryHash),
        _ => None,
    }
}

/// Whether the page that makes a request may read its response, so that a dictionary gives nothing
/// away of it (RFC 9842 9.3.3). `allowed_origin` is the Access-Control-Allow-Origin of the response.
#[must_use]
pub fn is_readable(fields: &impl FieldLines, allowed_origin: Option<&HeaderValue>) -> bool {
    let site = fields.lines(&SEC_FETCH_SITE).next();
    if site.is_none_or(|site| matches!(trim_ows(site), b"same-origin" | b"none")) {
        return true;
    }
    match fields.only_line(&SEC_FETCH_MODE).map(trim_ows) {
        Some(b"navigate" | b"same-origin") => true,
        Some(b"cors") => allowed_origin.is_some_and(|allowed| {
            allowed == "*" || fields.lines(&ORIGIN).next() == Some(allowed.as_bytes())
        }),
        _ => false,
    }
}

/// The field that [`is_readable`] wants to know of the response.
pub const ALLOWED_ORIGIN: HeaderName = ACCESS_CONTROL_ALLOW_ORIGIN;

#[cfg(test)]
mod tests {
    use super::super::fields;
    use super::*;

    #[test]
    fn which_dictionary_a_client_has() {
        let zeros = "A".repeat(43) + "=";
        let zeros = zeros.as_str();
        let huge = "A".repeat(100_000);
        #[rustfmt::skip]
        let cases = [
            ("2.2 absent", String::new(), false),
            ("2.2 one", format!("available-dictionary: :{zeros}:"), true),
            ("2.2 spaces around", format!("available-dictionary:  :{zeros}: "), true),
            ("2.2 a parameter", format!("available-dictionary: :{zeros}:;a=1"), true),
            ("2.2 unquoted", format!("available-dictionary: {zeros}"), false),
            ("2.2 a string", format!("available-dictionary: \"{zeros}\""), false),
            ("2.2 hex", format!("available-dictionary: :{}:", "00".repeat(32)), false),
            ("2.2 31 bytes", format!("available-dictionary: :{}:", "A".repeat(42)), false),
            ("2.2 33 bytes", format!("available-dictionary: :{}:", "A".repeat(44)), false),
            ("2.2 empty sequence", "available-dictionary: ::".to_owned(), false),
            ("2.2 empty", "available-dictionary: ".to_owned(), false),
            ("2.2 cut short", format!("available-dictionary: :{zeros}"), false),
            ("2.2 not base64", format!("available-dictionary: :{}!!:", "A".repeat(42)), false),
            ("2.2 a list", format!("available-dictionary: :{zeros}:, :{zeros}:"), false),
            ("2.2 an inner list", format!("available-dictionary: (:{zeros}:)"), false),
            ("2.2 two lines", format!("available-dictionary: :{zeros}: | available-dictionary: :{zeros}:"), false),
            ("2.2 more behind it", format!("available-dictionary: :{zeros}: x"), false),
            ("2.2 huge", format!("available-dictionary: :{huge}:"), false),
            ("2.2 huge parameter", format!("available-dictionary: :{zeros}:;a={huge}"), false),
        ];
        for (name, lines, want) in cases {
            let want = want.then_some(DictionaryHash([0; 32]));
            assert_eq!(available(&fields(&lines)), want, "{name}");
        }
        let hash = DictionaryHash(std::array::from_fn(|at| at as u8));
        let line = format!("available-dictionary: {}", hash.field_value());
        assert_eq!(
            available(&fields(&line)),
            Some(hash),
            "2.2 as it is written"
        );
    }

    #[test]
    fn hashes_have_one_spelling() {
        let hash = DictionaryHash([0xab; 32]);
        assert_eq!(hash.to_string().parse(), Ok(hash));
        for text in [
            "",
            "ab",
            &"AB".repeat(32),
            &"ab".repeat(33),
            &"xy".repeat(32),
        ] {
            assert_eq!(text.parse::<DictionaryHash>(), Err(InvalidHash), "{text}");
        }
    }

    #[test]
    fn who_may_read_a_response() {
        let any = Some("*");
        let a = Some("https://a.example");
        #[rustfmt::skip]
        let cases = [
            ("9.3.3 no browser", "", None, true),
            ("9.3.3 same origin", "sec-fetch-site: same-origin | sec-fetch-mode: no-cors", None, true),
            ("9.3.3 typed", "sec-fetch-site: none | sec-fetch-mode: navigate", None, true),
            ("9.3.3 a link elsewhere", "sec-fetch-site: cross-site | sec-fetch-mode: navigate", None, true),
            ("9.3.3 no-cors, another site", "sec-fetch-site: cross-site | sec-fetch-mode: no-cors", any, false),
            ("9.3.3 no-cors, same site", "sec-fetch-site: same-site | sec-fetch-mode: no-cors", any, false),
            ("9.3.3 cors, not allowed", "sec-fetch-site: cross-site | sec-fetch-mode: cors | origin: https://a.example", None, false),
            ("9.3.3 cors, all allowed", "sec-fetch-site: cross-site | sec-fetch-mode: cors | origin: https://a.example", any, true),
            ("9.3.3 cors, it is allowed", "sec-fetch-site: cross-site | sec-fetch-mode: cors | origin: https://a.example", a, true),
            ("9.3.3 cors, another is allowed", "sec-fetch-site: cross-site | sec-fetch-mode: cors | origin: https://b.example", a, false),
            ("9.3.3 cors, no origin", "sec-fetch-site: cross-site | sec-fetch-mode: cors", a, false),
            ("9.3.3 no mode", "sec-fetch-site: cross-site", any, false),
            ("9.3.3 two modes", "sec-fetch-site: cross-site | sec-fetch-mode: cors | sec-fetch-mode: no-cors", any, false),
            ("9.3.3 an unknown site", "sec-fetch-site: x | sec-fetch-mode: no-cors", any, false),
        ];
        for (name, lines, allowed, want) in cases {
            let allowed = allowed.map(HeaderValue::from_static);
            let is = is_readable(&fields(lines), allowed.as_ref());
            assert_eq!(is, want, "{name}");
        }
    }
}

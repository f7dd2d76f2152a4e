//! RFC 9110's rules as pure functions: no I/O, no clock, no async, no other part of the house.
//!
//! Read in this order:
//!
//! 1. [`host`]: whether the host that a request names can be read in one way only (RFC 9112 3.2).
//!    [`target`]: which name it asks for. Decoded once; what could be read in two ways is
//!    refused (RFC 9112 3.2, RFC 3986 2.1).
//!    [`base_path`]: whether that is a name of the site, which may have a part of its host alone.
//! 2. [`coding`]: which of a resource's representations suits Accept-Encoding (RFC 9110 12.5.3).
//! 3. [`dictionary`]: which dictionary the client has for it (RFC 9842).
//! 4. [`etag`]: the tag we issue, the tags a client sends, and the only two ways to compare them
//!    (RFC 9110 8.8.3).
//! 5. [`date`]: HTTP-date, read in three formats and written in one (RFC 9110 5.6.7).
//! 6. [`precondition`]: whether to perform the request, in the order of RFC 9110 13.2.2.
//! 7. [`range`]: which bytes to send, If-Range included (RFC 9110 13.1.5, 14).
//! 8. [`digest`]: whether the client wants a digest of the representation too (RFC 9530).
//! 9. [`navigation`]: where nothing is found, whether a page was asked for (Fetch Metadata).
//! 10. [`caching`]: what Cache-Control says of the content (RFC 8246).
//!
//! That is also the order in which a request meets them. All of them ask a [`head::RequestHead`], which
//! says nothing of who has parsed it. The rules that all share:
//!
//! * **A field that does not parse is a field that is absent.** Not an error, not half a field:
//!   one bad member voids the whole value, all of its lines included, because a recipient that
//!   guesses at half a condition can answer 304 for content the client does not have. An If-Match
//!   that does not parse is a condition that does not hold.
//! * **Field lines of a list join into one list** (5.3), and empty members do not count (5.6.1).
//!   A field that is no list (a date, Range, If-Range) and comes in two lines does not parse.
//! * **Names and tags are octets.** Nothing here normalises, folds case (except where the RFC says
//!   so: range units and content codings) or assumes UTF-8.
//! * **Tags are compared with [`etag::strong_eq`] and [`etag::weak_eq`] only**: strongly for
//!   If-Match and If-Range, weakly for If-None-Match. A date never stands in for a strong tag.
//! * **No input panics or overflows.** Numbers of any length saturate; arithmetic is checked.
//! * **The common request costs nothing**: without conditional fields, and with one If-None-Match,
//!   no function here allocates.
//!
//! What is refused here: methods, redirects, status lines and fields of the answer. The caller
//! turns a [`precondition::Verdict`] or a [`range::Selection`] into those.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

pub mod base_path;
pub mod caching;
pub mod coding;
pub mod date;
pub mod dictionary;
pub mod digest;
pub mod etag;
pub mod head;
pub mod host;
pub mod navigation;
pub mod plain;
pub mod precondition;
pub mod range;
pub mod target;
pub mod vary;

/// The members of a comma-separated list without quoted strings (RFC 9110 5.6.1): OWS removed,
/// empty members left out.
fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|byte| *byte == b',')
        .map(trim_ows)
        .filter(|member| !member.is_empty())
}

/// Without surrounding whitespace. RFC 9110 5.6.3: `OWS = *( SP / HTAB )`.
fn trim_ows(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Which bytes are letters or digits of ASCII, or among these.
const fn byte_table(others: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte = byte.saturating_add(1);
    }
    let mut rest = others;
    while let [other, others @ ..] = rest {
        table[*other as usize] = true;
        rest = others;
    }
    table
}

/// A weight in thousandths (RFC 9110 12.4.2).
///
/// ```abnf
/// qvalue = ( "0" [ "." 0*3DIGIT ] ) / ( "1" [ "." 0*3("0") ] )
/// ```
fn read_qvalue(qvalue: &[u8]) -> Option<u16> {
    let (whole, digits): (u16, &[u8]) = match qvalue {
        [b'0'] => (0, &[]),
        [b'1'] => (1000, &[]),
        [b'0', b'.', digits @ ..] => (0, digits),
        [b'1', b'.', digits @ ..] => (1000, digits),
        _ => return None,
    };
    if digits.len() > 3 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let weight = digits
        .iter()
        .zip([100_u16, 10, 1])
        .fold(whole, |sum, (digit, place)| {
            let digit = u16::from(digit.saturating_sub(b'0'));
            sum.saturating_add(digit.saturating_mul(place))
        });
    (weight <= 1000).then_some(weight)
}

/// Field lines for the tables of cases: `name: value`, separated by ` | `.
#[cfg(test)]
fn fields(lines: &str) -> http::HeaderMap {
    let mut fields = http::HeaderMap::new();
    for line in lines.split(" | ").filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').unwrap();
        let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
        let value = value.strip_prefix(' ').unwrap_or(value).as_bytes();
        fields.append(name, http::HeaderValue::from_bytes(value).unwrap());
    }
    fields
}

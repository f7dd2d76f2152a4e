//! What is wrong with a response: against what a case asks, and against the rules that hold for
//! every response whatever was asked.

use std::time::{Duration, SystemTime};

use super::case::{Body, Case, Expected, Wanted};
use super::{Response, tag};

pub(crate) const REVALIDATE: &str = "max-age=0, must-revalidate";
pub(crate) const DO_NOT_STORE: &str = "private, no-store, max-age=0";

/// Where the response is not what its case asks for.
pub(crate) fn differences(expected: &Expected, response: &Response) -> Vec<String> {
    let mut found = Vec::new();
    if !expected.statuses.contains(&response.status) {
        found.push(format!(
            "status {}, not {:?}",
            response.status, expected.statuses
        ));
    }
    for (name, wanted) in &expected.fields {
        let value = response.field(name);
        let fits = match wanted {
            Wanted::Exactly(text) => value == Some(text),
            Wanted::Beginning(text) => value.is_some_and(|value| value.starts_with(text.as_str())),
            Wanted::Present => value.is_some(),
            Wanted::Absent => value.is_none(),
        };
        if !fits {
            let wanted = match wanted {
                Wanted::Exactly(text) => format!("{text:?}"),
                Wanted::Beginning(text) => format!("{text:?}…"),
                Wanted::Present => "present".to_owned(),
                Wanted::Absent => "absent".to_owned(),
            };
            found.push(format!("{name} is {value:?}, not {wanted}"));
        }
    }
    found.extend(
        expected
            .body
            .as_ref()
            .and_then(|body| body_difference(body, response)),
    );
    found
}

fn body_difference(expected: &Body, response: &Response) -> Option<String> {
    let body = &response.body;
    match expected {
        Body::Nothing if body.is_empty() => None,
        Body::Has(text) if String::from_utf8_lossy(body).contains(text.as_str()) => None,
        Body::Whole(content) if body == content => None,
        Body::Ranges(content, ranges) => match ranges[..] {
            [(first, last)] if *body == content[first..=last] => None,
            [_] => Some(format!(
                "a body of {} bytes that is not the range",
                body.len()
            )),
            _ => parts_difference(content, ranges, response).err(),
        },
        Body::Nothing | Body::Has(_) | Body::Whole(_) => {
            let beginning = body[..body.len().min(80)].escape_ascii();
            Some(format!(
                "another body, of {} bytes: {beginning}",
                body.len()
            ))
        }
    }
}

/// The rules that hold whatever was asked. Only a case that says how long a response may be kept
/// may have it kept without asking.
pub(crate) fn broken_rules(case: &Case, method: &str, response: &Response) -> Vec<String> {
    let mut rules = Rules {
        response,
        says_how_long: case.mentions("Cache-Control: "),
        broken: Vec::new(),
    };
    rules.must(
        "9110 6.6.1: a Date in IMF-fixdate",
        rules.date("Date").is_some(),
    );
    rules.must("the body came whole", !response.cut);
    match response.status {
        200 | 206 if matches!(method, "GET" | "HEAD") => rules.of_a_representation(method),
        304 => rules.of_not_modified(),
        301 | 308 => rules.of_a_redirect(),
        400.. => rules.of_an_error(),
        _ => {}
    }
    rules.broken
}

struct Rules<'a> {
    response: &'a Response,
    says_how_long: bool,
    broken: Vec<String>,
}

impl Rules<'_> {
    fn must(&mut self, rule: &str, holds: bool) {
        if !holds {
            self.broken.push(format!("breaks the rule: {rule}"));
        }
    }

    fn is(&mut self, name: &str, value: Option<&str>) {
        let found = self.response.field(name);
        if found != value {
            self.broken
                .push(format!("{name} is {found:?}, not {value:?}"));
        }
    }

    fn is_revalidated(&mut self) {
        if !self.says_how_long {
            self.is("Cache-Control", Some(REVALIDATE));
        }
    }

    fn date(&self, name: &str) -> Option<SystemTime> {
        let value = self.response.field(name)?;
        let time = httpdate::parse_http_date(value).ok()?;
        (httpdate::fmt_http_date(time) == value).then_some(time)
    }

    fn of_a_representation(&mut self, method: &str) {
        let response = self.response;
        self.is_revalidated();
        self.is("Accept-Ranges", Some("bytes"));
        self.is("X-Content-Type-Options", Some("nosniff"));
        self.must(
            "8.6: Content-Length",
            response.field("Content-Length").is_some(),
        );
        let content_type = response.field("Content-Type").unwrap_or_default();
        self.must("8.3: Content-Type", content_type.contains('/'));
        let etag = response.field("ETag").unwrap_or_default();
        let hex = etag
            .strip_prefix('"')
            .and_then(|etag| etag.strip_suffix('"'));
        self.must(
            "P1: 64 hex",
            hex.is_some_and(|hex| {
                hex.len() == 64 && hex.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
            }),
        );
        if response.status == 200 && method == "GET" {
            self.must(
                "P1: the tag is the body's BLAKE3",
                etag == tag(&response.body),
            );
            self.is("Content-Range", None);
        }
        if content_type.starts_with("multipart/byteranges") {
            self.is("Content-Range", None);
        }
        if response.field("Last-Modified").is_some() {
            let (modified, date) = (self.date("Last-Modified"), self.date("Date"));
            self.must("8.8.2.1: Last-Modified not after Date", modified <= date);
            let one = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
            self.must("Last-Modified means something", modified > Some(one));
        }
    }

    fn of_not_modified(&mut self) {
        self.must("15.4.5: ETag", self.response.field("ETag").is_some());
        self.is_revalidated();
        for name in [
            "Content-Type",
            "Content-Length",
            "Content-Range",
            "Last-Modified",
        ] {
            self.is(name, None);
        }
    }

    fn of_a_redirect(&mut self) {
        let location = self
            .response
            .field("Location")
            .unwrap_or_default()
            .as_bytes();
        let first = location.split(|byte| matches!(byte, b'/' | b'?')).next();
        let on_this_host = !location.is_empty()
            && !first.unwrap_or_default().contains(&b':')
            && !matches!(location, [b'/' | b'\\', b'/' | b'\\', ..])
            && location.iter().all(|byte| byte.is_ascii_graphic());
        self.must("Location stays on this host and is clean", on_this_host);
    }

    fn of_an_error(&mut self) {
        // What the parser can't read is answered below us, with a length, a date and the end.
        let unread = matches!(self.response.status, 400 | 414 | 431) && self.response.says_close();
        if !unread || self.response.field("Cache-Control").is_some() {
            self.is("Cache-Control", Some(DO_NOT_STORE));
        }
        for name in ["ETag", "Last-Modified"] {
            self.is(name, None);
        }
        if self.response.status == 405 {
            self.is("Allow", Some("GET, HEAD, OPTIONS"));
        }
    }
}

/// Where the answer to HEAD is not the answer to GET without its body.
pub(crate) fn unlike(get: &Response, head: &Response) -> Vec<String> {
    let (get, head) = (essence(get), essence(head));
    if get == head {
        Vec::new()
    } else {
        vec![format!("HEAD says {head:?}, GET {get:?}")]
    }
}

/// Status and fields, but for the moment they were made at, and their order.
fn essence(response: &Response) -> (u16, Vec<String>) {
    let mut fields: Vec<_> = response
        .fields
        .iter()
        .filter(|(name, _)| !name.eq_ignore_ascii_case("date"))
        .map(|(name, value)| format!("{}: {value}", name.to_ascii_lowercase()))
        .collect();
    fields.sort();
    (response.status, fields)
}

/// How two responses to the same request differ.
pub(crate) fn different(front: &Response, hyper: &Response) -> Option<String> {
    let heads = (essence(front), essence(hyper));
    if heads.0 != heads.1 {
        return Some(format!("the front says {:?}, hyper {:?}", heads.0, heads.1));
    }
    (front.body != hyper.body).then(|| "two bodies".to_owned())
}

/// One part of a multipart/byteranges body.
struct Part {
    content_range: String,
    content_type: String,
    bytes: Vec<u8>,
}

fn parts_difference(
    content: &[u8],
    ranges: &[(usize, usize)],
    response: &Response,
) -> Result<(), String> {
    let content_type = response.field("Content-Type").unwrap_or_default();
    let boundary = content_type
        .strip_prefix("multipart/byteranges; boundary=")
        .ok_or_else(|| format!("Content-Type {content_type:?}, not multipart/byteranges"))?
        .trim_matches('"');
    let parts = parts(&response.body, boundary)?;
    if parts.len() != ranges.len() {
        return Err(format!("{} parts, not {}", parts.len(), ranges.len()));
    }
    for &(first, last) in ranges {
        let name = format!("bytes {first}-{last}/{}", content.len());
        let part = parts
            .iter()
            .find(|part| part.content_range == name)
            .ok_or_else(|| format!("no part {name}"))?;
        if part.bytes != content[first..=last] || !part.content_type.contains('/') {
            return Err(format!("the part {name} has other bytes or no type"));
        }
    }
    Ok(())
}

/// RFC 2046 5.1.1, with a CRLF before the first boundary and nothing after the last.
fn parts(body: &[u8], boundary: &str) -> Result<Vec<Part>, String> {
    let delimiter = format!("\r\n--{boundary}");
    let mut rest = body;
    let mut parts = Vec::new();
    loop {
        rest = rest
            .strip_prefix(delimiter.as_bytes())
            .ok_or("no boundary where one must be")?;
        if let b"--" | b"--\r\n" = rest {
            return Ok(parts);
        }
        rest = rest
            .strip_prefix(b"\r\n")
            .ok_or("no CRLF behind a boundary")?;
        let end = rest
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .ok_or("an endless head")?;
        let head = String::from_utf8_lossy(&rest[..end]).into_owned();
        rest = &rest[end + 4..];
        let field = |name: &str| {
            let line = head.split("\r\n").find_map(|line| {
                line.split_once(": ")
                    .filter(|(each, _)| each.eq_ignore_ascii_case(name))
            });
            line.map(|(_, value)| value.to_owned()).unwrap_or_default()
        };
        let content_range = field("Content-Range");
        let length = length(&content_range).ok_or(format!("Content-Range {content_range:?}"))?;
        let bytes = rest
            .get(..length)
            .ok_or("a part shorter than its range")?
            .to_owned();
        rest = &rest[length..];
        parts.push(Part {
            content_range,
            content_type: field("Content-Type"),
            bytes,
        });
    }
}

/// How many bytes `bytes FIRST-LAST/SIZE` names.
fn length(content_range: &str) -> Option<usize> {
    let (range, _size) = content_range.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
    Some(last.checked_sub(first)? + 1)
}

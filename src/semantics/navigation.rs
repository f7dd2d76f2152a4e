//! Whether a request navigates to a page or fetches a part of one: from Sec-Fetch-Mode
//! (Fetch Metadata, section 2.3), or, where that is absent, from Accept (RFC 9110 12.5.1) and the
//! look of the path.

use http::HeaderName;
use http::header::ACCEPT;

use super::head::FieldLines;
use super::{members, read_qvalue, trim_ows};

/// The field in which a browser says what a request is for.
pub const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// Whether the request for `path` (decoded, without the leading slash) is for a page.
///
/// 1. Browsers say so over secure connections, and are believed: an address typed in is a
///    navigation even where it ends with `.js`, and a script's request never is.
/// 2. Otherwise a client that names `text/html` in Accept wants a page. Browsers do so for nothing
///    else.
/// 3. Otherwise a client that accepts anything, or sends no Accept, wants a page where the path
///    looks like one.
#[must_use]
pub fn is_navigation(fields: &impl FieldLines, path: &[u8]) -> bool {
    if let Some(mode) = fields.only_line(&SEC_FETCH_MODE) {
        return trim_ows(mode) == b"navigate";
    }
    match wanted(fields) {
        Html::Named => true,
        Html::Refused => false,
        Html::LikeAnything => looks_like_page(path),
    }
}

/// Whether a path is one that pages have: its last segment has no extension, and no segment
/// begins with a dot. What machines ask for below `.well-known` is no page.
#[must_use]
pub fn looks_like_page(path: &[u8]) -> bool {
    let last = path.rsplit(|byte| *byte == b'/').next();
    !last.is_some_and(|last| last.contains(&b'.'))
        && !path
            .split(|byte| *byte == b'/')
            .any(|segment| segment.starts_with(b"."))
}

/// What Accept says of HTML.
enum Html {
    Named,
    LikeAnything,
    Refused,
}

/// A field that is absent, empty or does not parse refuses nothing.
///
/// ```abnf
/// Accept      = #( media-range [ weight ] )
/// media-range = ( "*/*" / ( type "/" "*" ) / ( type "/" subtype ) ) parameters
/// ```
fn wanted(fields: &impl FieldLines) -> Html {
    let name = ACCEPT;
    let mut members = fields.lines(&name).flat_map(members).peekable();
    // 12.5.1: the most specific range counts.
    let (mut named, mut with_others) = (None, members.peek().is_none());
    for member in members {
        let Some((range, weight)) = read_member(member) else {
            return Html::LikeAnything;
        };
        if range.eq_ignore_ascii_case(b"text/html") {
            named = named.max(Some(weight));
        } else if range == b"*/*" || range.eq_ignore_ascii_case(b"text/*") {
            with_others |= weight > 0;
        }
    }
    match named {
        Some(0) => Html::Refused,
        Some(_) => Html::Named,
        None if with_others => Html::LikeAnything,
        None => Html::Refused,
    }
}

/// A media range without its parameters, and its weight, 1000 where there is none (12.4.2).
fn read_member(member: &[u8]) -> Option<(&[u8], u16)> {
    let mut parts = member.split(|byte| *byte == b';').map(trim_ows);
    let range = parts.next().filter(|range| range.contains(&b'/'))?;
    let weight = parts.find_map(|part| match part {
        [b'q' | b'Q', b'=', qvalue @ ..] => Some(read_qvalue(qvalue)),
        _ => None,
    });
    Some((range, weight.unwrap_or(Some(1000))?))
}

#[cfg(test)]
mod tests {
    use super::super::fields;
    use super::*;

    const CHROME: &str = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

    #[test]
    fn navigations() {
        #[rustfmt::skip]
        let cases = [
            // name, fields, and whether /app/settings and /app.123.js are asked for as pages
            ("fetch 2.3 navigate", "Sec-Fetch-Mode: navigate", true, true),
            ("fetch 2.3 navigate, whatever is accepted", "Sec-Fetch-Mode: navigate | Accept: image/png", true, true),
            ("fetch 2.3 no-cors: a script or image", "Sec-Fetch-Mode: no-cors", false, false),
            ("fetch 2.3 cors: a module, a font, fetch()", "Sec-Fetch-Mode: cors", false, false),
            ("fetch 2.3 same-origin", "Sec-Fetch-Mode: same-origin", false, false),
            ("fetch 2.3 cors, though HTML is wanted", "Sec-Fetch-Mode: cors | Accept: text/html", false, false),
            ("fetch 2.3 a mode that is to come", "Sec-Fetch-Mode: webidentity", false, false),
            ("fetch 2.3 a token has case", "Sec-Fetch-Mode: NAVIGATE", false, false),
            ("fetch 2.3 two modes are none", "Sec-Fetch-Mode: cors | Sec-Fetch-Mode: navigate", true, false),
            ("12.5.1 a browser without Fetch Metadata", CHROME, true, true),
            ("12.5.1 its scripts", "Accept: */*", true, false),
            ("12.5.1 its images", "Accept: image/avif,image/webp,*/*;q=0.8", true, false),
            ("12.5.1 its style sheets", "Accept: text/css,*/*;q=0.1", true, false),
            ("12.5.1 nothing said", "", true, false),
            ("12.5.1 an empty Accept", "Accept:", true, false),
            ("12.5.1 JSON alone", "Accept: application/json", false, false),
            ("12.5.1 JSON, then anything", "Accept: application/json, */*", true, false),
            ("12.5.1 any text", "Accept: text/*", true, false),
            ("12.5.1 HTML refused", "Accept: text/html;q=0, */*", false, false),
            ("12.5.1 HTML refused at length", "Accept: text/html;q=0.000", false, false),
            ("12.5.1 anything refused", "Accept: */*;q=0", false, false),
            ("12.5.1 HTML last and least", "Accept: image/png, text/html ; q=0.001", true, true),
            ("12.5.1 HTML with a parameter", "Accept: text/html;level=1;q=0.4", true, true),
            ("12.5.1 types have no case", "Accept: Text/HTML", true, true),
            ("12.5.1 several lines are one list", "Accept: image/png | Accept: text/html", true, true),
            ("12.5.1 a weight that is none", "Accept: text/html;q=2", true, false),
            ("12.5.1 no media range", "Accept: text/html, html", true, false),
        ];
        for (name, lines, page, asset) in cases {
            let fields = fields(lines);
            assert_eq!(
                is_navigation(&fields, b"app/settings"),
                page,
                "{name}: a page"
            );
            assert_eq!(
                is_navigation(&fields, b"app.123.js"),
                asset,
                "{name}: an asset"
            );
        }
    }

    #[test]
    fn the_look_of_a_path() {
        for page in [
            "",
            "a",
            "a/",
            "a/b",
            "v1.2/a",
            "a.b/",
            "@user/post",
            "caf\u{e9}",
        ] {
            assert!(looks_like_page(page.as_bytes()), "{page}");
        }
        let others = [
            "a.js",
            "a/b.css",
            "a.",
            ".env",
            "a/.git",
            ".git/config",
            ".well-known/change-password",
        ];
        for other in others {
            assert!(!looks_like_page(other.as_bytes()), "{other}");
        }
    }
}

//! Preconditions (RFC 9110 13): whether to perform the request, answer 304 or answer 412.
//!
//! [`evaluate`] is the order of 13.2.2 and nothing else; each field is one private function that
//! answers `Some(whether the condition holds)`, or `None` where the field is absent. A field that
//! does not parse is absent, in both of its roles: it neither decides nor hides another. So an
//! unreadable If-None-Match leaves If-Modified-Since to decide. If-Match is the exception: what can't
//! be shown to hold does not hold, because its sender wants nothing done to any other version.
//! If-Range, step 5, belongs to [`super::range`].
//!
//! The caller sees to 13.2.1: it calls this only where the answer without conditions would be
//! successful.

use http::Method;
use http::header::{HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE};

use super::date::HttpDate;
use super::etag::{ETag, EntityTag, EntityTags, strong_eq, weak_eq};
use super::head::FieldLines;

/// What is known of the selected representation (RFC 9110 8.8).
#[derive(Clone, Copy, Debug)]
pub struct Validators<'a> {
    /// Its tag, always strong; `None` where it has none (an unpublished state).
    pub etag: Option<&'a ETag>,
    /// Its modification date; `None` where it has none that can be trusted.
    pub last_modified: Option<HttpDate>,
}

/// What to do with the request (RFC 9110 13.2.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Perform the method; look at Range next.
    Perform,
    /// 304 Not Modified.
    NotModified,
    /// 412 Precondition Failed.
    Failed,
}

/// Evaluates the preconditions in the order of RFC 9110 13.2.2. `current` is `None` where the
/// target has no current representation.
#[must_use]
pub fn evaluate(
    method: &Method,
    fields: &impl FieldLines,
    current: Option<Validators<'_>>,
) -> Verdict {
    // 13.2.1: methods that select no representation have nothing to compare.
    if matches!(*method, Method::CONNECT | Method::OPTIONS | Method::TRACE) {
        return Verdict::Perform;
    }
    let retrieves = matches!(*method, Method::GET | Method::HEAD);

    // 1. If-Match; 2. without it, If-Unmodified-Since.
    let unchanged = if_match(fields, current).or_else(|| if_unmodified_since(fields, current));
    if unchanged == Some(false) {
        return Verdict::Failed;
    }

    // 3. If-None-Match.
    match if_none_match(fields, current) {
        Some(true) => {}
        Some(false) if retrieves => return Verdict::NotModified,
        Some(false) => return Verdict::Failed,
        // 4. Without it, for GET and HEAD, If-Modified-Since.
        None if retrieves && if_modified_since(fields, current) == Some(false) => {
            return Verdict::NotModified;
        }
        None => {}
    }

    // 5. Range with If-Range: `range::select`. 6. Otherwise:
    Verdict::Perform
}

/// 13.1.1, with strong comparison: a client that wants to write must know the exact bytes.
fn if_match(fields: &impl FieldLines, current: Option<Validators<'_>>) -> Option<bool> {
    matches(fields, &IF_MATCH, current, strong_eq)
        .or_else(|| fields.has(&IF_MATCH).then_some(false))
}

/// 13.1.2, with weak comparison.
fn if_none_match(fields: &impl FieldLines, current: Option<Validators<'_>>) -> Option<bool> {
    matches(fields, &IF_NONE_MATCH, current, weak_eq).map(|matched| !matched)
}

/// 13.1.3: ignored where there is no modification date.
fn if_modified_since(fields: &impl FieldLines, current: Option<Validators<'_>>) -> Option<bool> {
    let since = date(fields, &IF_MODIFIED_SINCE)?;
    Some(current?.last_modified? > since)
}

/// 13.1.4: ignored where there is no modification date.
fn if_unmodified_since(fields: &impl FieldLines, current: Option<Validators<'_>>) -> Option<bool> {
    let since = date(fields, &IF_UNMODIFIED_SINCE)?;
    Some(current?.last_modified? <= since)
}

/// Whether the field names the current representation; `None` where it is absent.
fn matches(
    fields: &impl FieldLines,
    name: &HeaderName,
    current: Option<Validators<'_>>,
    equal: fn(&ETag, EntityTag<'_>) -> bool,
) -> Option<bool> {
    Some(match (EntityTags::parse(fields, name)?, current) {
        (_, None) => false,
        (EntityTags::Any, Some(_)) => true,
        (EntityTags::One(theirs), Some(Validators { etag, .. })) => {
            etag.is_some_and(|ours| equal(ours, theirs))
        }
        (EntityTags::Listed(tags), Some(Validators { etag, .. })) => {
            etag.is_some_and(|ours| tags.iter().any(|theirs| equal(ours, theirs)))
        }
    })
}

/// A date field; two lines are more than one member, which 13.1.3 says to ignore.
fn date(fields: &impl FieldLines, name: &HeaderName) -> Option<HttpDate> {
    HttpDate::parse(fields.only_line(name)?)
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::super::fields;
    use super::Verdict::{Failed, NotModified, Perform};
    use super::*;

    const MODIFIED: i64 = 784_111_777;

    /// `@` stands for our opaque-tag; `<`, `=` and `>` for dates before, at and after ours.
    fn request(lines: &str) -> HeaderMap {
        let date = |seconds| HttpDate::from_unix(seconds).unwrap().to_string();
        fields(
            &lines
                .replace('@', &ETag::new([0xab; 32]).opaque())
                .replace('<', &date(MODIFIED - 1))
                .replace('=', &date(MODIFIED))
                .replace('>', &date(MODIFIED + 1)),
        )
    }

    #[test]
    fn with_a_current_representation() {
        #[rustfmt::skip]
        let cases = [
            // name, fields, verdict for GET and HEAD, for PUT
            ("13.2.2 no condition", "", Perform, Perform),
            ("13.2.2 unrelated fields", "accept: */* | user-agent: x", Perform, Perform),
            ("13.2.2 If-Range is not evaluated here", r#"if-range: "x""#, Perform, Perform),

            ("13.1.1 If-Match, same", r#"if-match: "@""#, Perform, Perform),
            ("13.1.1 If-Match, other", r#"if-match: "x""#, Failed, Failed),
            ("13.1.1 If-Match, weak", r#"if-match: W/"@""#, Failed, Failed),
            ("13.1.1 If-Match, any", "if-match: *", Perform, Perform),
            ("13.1.1 If-Match, quoted star", r#"if-match: "*""#, Failed, Failed),
            ("13.1.1 If-Match, in a list", r#"if-match: "x", "@""#, Perform, Perform),
            ("13.1.1 If-Match, in a second line", r#"if-match: "x" | if-match: "@""#, Perform, Perform),
            ("13.1.1 If-Match, weak and strong", r#"if-match: W/"@", "@""#, Perform, Perform),
            ("13.1.1 If-Match, list without it", r#"if-match: "x", "y""#, Failed, Failed),
            ("13.1.1 If-Match, empty list", "if-match: ", Failed, Failed),
            ("13.1.1 If-Match, unquoted", "if-match: @", Failed, Failed),
            ("13.1.1 If-Match, star in a list", r#"if-match: *, "x""#, Failed, Failed),
            ("13.1.1 If-Match, garbage member", r#"if-match: "x", y"#, Failed, Failed),
            ("13.1.1 If-Match, garbage line", r#"if-match: "x" | if-match: y"#, Failed, Failed),
            ("13.1.1 If-Match, prefix of ours", r#"if-match: "abab""#, Failed, Failed),
            ("13.1.1 If-Match, ours and more", r#"if-match: "@-gzip""#, Failed, Failed),

            ("13.1.2 If-None-Match, same", r#"if-none-match: "@""#, NotModified, Failed),
            ("13.1.2 If-None-Match, weak", r#"if-none-match: W/"@""#, NotModified, Failed),
            ("13.1.2 If-None-Match, other", r#"if-none-match: "x""#, Perform, Perform),
            ("13.1.2 If-None-Match, any", "if-none-match: *", NotModified, Failed),
            ("13.1.2 If-None-Match, any, OWS", "if-none-match: \t* ", NotModified, Failed),
            ("13.1.2 If-None-Match, quoted star", r#"if-none-match: "*""#, Perform, Perform),
            ("13.1.2 If-None-Match, list", r#"if-none-match: "x", W/"@", "y""#, NotModified, Failed),
            ("13.1.2 If-None-Match, tight list", r#"if-none-match: "x","@""#, NotModified, Failed),
            ("13.1.2 If-None-Match, empty members", r#"if-none-match: ,, "@" ,"#, NotModified, Failed),
            ("13.1.2 If-None-Match, last line", r#"if-none-match: "x" | if-none-match: "@""#, NotModified, Failed),
            ("13.1.2 If-None-Match, inside a tag", r#"if-none-match: "x,@""#, Perform, Perform),
            ("13.1.2 If-None-Match, empty list", "if-none-match: ", Perform, Perform),
            ("13.1.2 If-None-Match, unquoted", "if-none-match: @", Perform, Perform),
            ("13.1.2 If-None-Match, lower-case w", r#"if-none-match: w/"@""#, Perform, Perform),
            ("13.1.2 If-None-Match, garbage after", r#"if-none-match: "@", x"#, Perform, Perform),
            ("13.1.2 If-None-Match, unclosed", r#"if-none-match: "@"#, Perform, Perform),
            ("13.1.2 If-None-Match, star twice", "if-none-match: * | if-none-match: *", Perform, Perform),
            ("13.1.2 If-None-Match, upper-case hex", &format!(r#"if-none-match: "{}""#, "AB".repeat(32)), Perform, Perform),

            ("13.1.3 If-Modified-Since, same", "if-modified-since: =", NotModified, Perform),
            ("13.1.3 If-Modified-Since, later", "if-modified-since: >", NotModified, Perform),
            ("13.1.3 If-Modified-Since, earlier", "if-modified-since: <", Perform, Perform),
            ("13.1.3 If-Modified-Since, unreadable", "if-modified-since: soon", Perform, Perform),
            ("13.1.3 If-Modified-Since, zero", "if-modified-since: 0", Perform, Perform),
            ("13.1.3 If-Modified-Since, empty", "if-modified-since: ", Perform, Perform),
            ("13.1.3 If-Modified-Since, length", "if-modified-since: >; length 5", Perform, Perform),
            ("13.1.3 If-Modified-Since, two lines", "if-modified-since: > | if-modified-since: >", Perform, Perform),
            ("13.1.3 If-Modified-Since, two members", "if-modified-since: >, >", Perform, Perform),

            ("13.1.4 If-Unmodified-Since, same", "if-unmodified-since: =", Perform, Perform),
            ("13.1.4 If-Unmodified-Since, later", "if-unmodified-since: >", Perform, Perform),
            ("13.1.4 If-Unmodified-Since, earlier", "if-unmodified-since: <", Failed, Failed),
            ("13.1.4 If-Unmodified-Since, unreadable", "if-unmodified-since: soon", Perform, Perform),
            ("13.1.4 If-Unmodified-Since, two lines", "if-unmodified-since: < | if-unmodified-since: <", Perform, Perform),

            ("13.2.2 step 1 hides step 2", r#"if-match: "@" | if-unmodified-since: <"#, Perform, Perform),
            ("13.2.2 step 1 fails, step 2 holds", r#"if-match: "x" | if-unmodified-since: >"#, Failed, Failed),
            ("13.2.2 star in step 1 hides step 2", "if-match: * | if-unmodified-since: <", Perform, Perform),
            ("13.2.2 unreadable step 1 leaves step 2", "if-match: x | if-unmodified-since: <", Failed, Failed),
            ("13.2.2 step 3 hides step 4", r#"if-none-match: "x" | if-modified-since: >"#, Perform, Perform),
            ("13.2.2 step 3 fails, step 4 holds", r#"if-none-match: "@" | if-modified-since: <"#, NotModified, Failed),
            ("13.2.2 unreadable step 3 leaves step 4", "if-none-match: x | if-modified-since: >", NotModified, Perform),
            ("13.2.2 empty step 3 hides step 4", "if-none-match: | if-modified-since: >", Perform, Perform),
            ("13.2.2 step 1 fails before step 3", r#"if-match: "x" | if-none-match: "@""#, Failed, Failed),
            ("13.2.2 step 1 holds, step 3 fails", r#"if-match: "@" | if-none-match: "@""#, NotModified, Failed),
            ("13.2.2 step 2 fails before step 3", r#"if-unmodified-since: < | if-none-match: "@""#, Failed, Failed),
            ("13.2.2 step 2 holds, step 3 fails", r#"if-unmodified-since: > | if-none-match: "@""#, NotModified, Failed),
            ("13.2.2 step 2 fails before step 4", "if-unmodified-since: < | if-modified-since: >", Failed, Failed),
            ("13.2.2 step 2 holds, step 4 fails", "if-unmodified-since: = | if-modified-since: =", NotModified, Perform),
            ("13.2.2 all hold", r#"if-match: "@" | if-unmodified-since: > | if-none-match: "x" | if-modified-since: <"#, Perform, Perform),
            ("14.2 bad Range does not matter", r#"range: x | if-none-match: "@""#, NotModified, Failed),
        ];
        let etag = ETag::new([0xab; 32]);
        let last_modified = HttpDate::from_unix(MODIFIED);
        let current = Some(Validators {
            etag: Some(&etag),
            last_modified,
        });
        for (name, lines, retrieved, put) in cases {
            let fields = request(lines);
            for method in [Method::GET, Method::HEAD] {
                assert_eq!(
                    evaluate(&method, &fields, current),
                    retrieved,
                    "{name}, {method}"
                );
            }
            for method in [Method::PUT, Method::DELETE, Method::POST] {
                assert_eq!(evaluate(&method, &fields, current), put, "{name}, {method}");
            }
            for method in [Method::OPTIONS, Method::TRACE, Method::CONNECT] {
                assert_eq!(
                    evaluate(&method, &fields, current),
                    Perform,
                    "13.2.1 {name}, {method}"
                );
            }
        }
    }

    #[test]
    fn with_less() {
        #[rustfmt::skip]
        let cases = [
            // name, fields, verdict for GET without a date, without a tag, without both,
            // and for PUT without a current representation
            ("13.2.2 no condition", "", Perform, Perform, Perform, Perform),
            ("13.1.1 If-Match, same", r#"if-match: "@""#, Perform, Failed, Failed, Failed),
            ("13.1.1 If-Match, any", "if-match: *", Perform, Perform, Perform, Failed),
            ("13.1.1 If-Match, garbage", "if-match: x", Failed, Failed, Failed, Failed),
            ("13.1.2 If-None-Match, same", r#"if-none-match: "@""#, NotModified, Perform, Perform, Perform),
            ("13.1.2 If-None-Match, any", "if-none-match: *", NotModified, NotModified, NotModified, Perform),
            ("13.1.3 If-Modified-Since", "if-modified-since: >", Perform, NotModified, Perform, Perform),
            ("13.1.4 If-Unmodified-Since", "if-unmodified-since: <", Perform, Failed, Perform, Perform),
            ("13.2.2 step 1 hides step 2", r#"if-match: "@" | if-unmodified-since: <"#, Perform, Failed, Failed, Failed),
        ];
        let etag = ETag::new([0xab; 32]);
        let last_modified = HttpDate::from_unix(MODIFIED);
        let get = |fields: &HeaderMap, etag, last_modified| {
            evaluate(
                &Method::GET,
                fields,
                Some(Validators {
                    etag,
                    last_modified,
                }),
            )
        };
        for (name, lines, undated, untagged, bare, absent) in cases {
            let fields = request(lines);
            assert_eq!(get(&fields, Some(&etag), None), undated, "{name}, undated");
            assert_eq!(
                get(&fields, None, last_modified),
                untagged,
                "{name}, untagged"
            );
            assert_eq!(get(&fields, None, None), bare, "{name}, bare");
            assert_eq!(
                evaluate(&Method::PUT, &fields, None),
                absent,
                "{name}, absent"
            );
        }
    }

    #[test]
    fn two_codings_have_two_tags() {
        let (identity, gzip) = (ETag::new([1; 32]), ETag::new([2; 32]));
        let fields = fields(&format!("if-none-match: {identity}"));
        let current = |etag| {
            Some(Validators {
                etag: Some(etag),
                last_modified: None,
            })
        };
        assert_eq!(
            evaluate(&Method::GET, &fields, current(&identity)),
            NotModified,
            "8.8.3.3"
        );
        assert_eq!(
            evaluate(&Method::GET, &fields, current(&gzip)),
            Perform,
            "8.8.3.3"
        );
    }
}

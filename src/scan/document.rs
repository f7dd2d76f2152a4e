//! Which files are documents, so that a tail can be added to them.

use super::media;

/// Bytes of the longest document that gets a tail: with one it has to be kept in memory.
const MAX_DOCUMENT: u64 = 8 << 20;

/// Whether a file at this path and of this length may be a document.
pub(super) fn may_be(path: &[u8], length: u64) -> bool {
    length <= MAX_DOCUMENT && media::of(path, true).starts_with("text/html")
}

/// Whether HTML is a whole document and not a fragment: its first thing that is no white space and
/// no comment is a doctype or `<html`.
pub(super) fn is_document(html: &[u8]) -> bool {
    // Editors on Windows write a byte order mark; parsers skip it.
    let mut rest = html.strip_prefix(b"\xef\xbb\xbf").unwrap_or(html);
    loop {
        rest = rest.trim_ascii_start();
        let Some(comment) = rest.strip_prefix(b"<!--") else {
            break;
        };
        let Some(end) = memchr::memmem::find(comment, b"-->") else {
            // The comment never ends, so the parser finds no element either.
            return false;
        };
        rest = comment.get(end + 3..).unwrap_or_default();
    }
    // `<html-tabs>` is a custom element: a name may go on with a hyphen (HTML section 4.13.2).
    let after = rest.get(5).copied().unwrap_or(b'>');
    let is_longer_name = after.is_ascii_alphanumeric() || after == b'-';
    has_prefix(rest, b"<!doctype") || (has_prefix(rest, b"<html") && !is_longer_name)
}

fn has_prefix(html: &[u8], prefix: &[u8]) -> bool {
    html.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_told_from_fragments() {
        for document in [
            "<!doctype html><p>x",
            "\u{feff}\n <!-- a -- b --> <!-- > --><!DOCTYPE html>",
            "<html>",
            "<HTML lang=en>",
            "<html\n>",
            "<html",
        ] {
            assert!(is_document(document.as_bytes()), "{document:?}");
        }
        for fragment in [
            "",
            "<p>x",
            "x <!doctype html>",
            "<!-- <!doctype html>",
            "<htmlx>",
            "<html-tabs>",
            "<!doc",
        ] {
            assert!(!is_document(fragment.as_bytes()), "{fragment:?}");
        }
    }

    #[test]
    fn only_html_of_some_length_is_looked_at() {
        assert!(may_be(b"a/index.html", MAX_DOCUMENT) && may_be(b"x.HTM", 0));
        assert!(!may_be(b"index.html", MAX_DOCUMENT + 1));
        assert!(!may_be(b"index.xhtml", 1) && !may_be(b"a.html.gz", 1) && !may_be(b"html", 1));
    }
}

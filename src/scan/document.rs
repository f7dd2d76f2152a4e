//! Which files are documents, so that a tail can be added to them.

use super::media;
use crate::representation::TextKind;

/// Bytes of the longest document that gets a tail: with one it has to be kept in memory.
const MAX_DOCUMENT: u64 = 8 << 20;

/// Whether a file at this path and of this length may be a document.
pub(super) fn may_be(path: &[u8], length: u64) -> bool {
    length <= MAX_DOCUMENT && media::type_of(path, TextKind::Utf8).starts_with("text/html")
}

/// Elements that only a whole document begins with, where it has no doctype and no `<html>`: their
/// tags may be left out (HTML section 13.1.2.4). What begins with any other may be a fragment.
const FIRST_ELEMENTS: [&[u8]; 5] = [b"<html", b"<head", b"<title", b"<meta", b"<body"];

/// Whether HTML is a whole document and not a fragment: its first thing that is no white space, no
/// comment and no `<?..>` is a doctype, or one of [`FIRST_ELEMENTS`].
pub(super) fn is_document(html: &[u8]) -> bool {
    // Editors on Windows write a byte order mark; parsers skip it.
    let mut rest = html.strip_prefix(b"\xef\xbb\xbf").unwrap_or(html);
    loop {
        rest = rest.trim_ascii_start();
        // XHTML begins with `<?xml ..?>`, which a parser of HTML takes for a comment that ends at the
        // first `>` (HTML section 13.2.5.6).
        let (skipped, end): (&[u8], &[u8]) = match rest {
            [b'<', b'!', b'-', b'-', comment @ ..] => (comment, b"-->"),
            [b'<', b'?', instruction @ ..] => (instruction, b">"),
            _ => break,
        };
        let Some(at) = memchr::memmem::find(skipped, end) else {
            // It never ends, so the parser finds no element either.
            return false;
        };
        rest = skipped.get(at + end.len()..).unwrap_or_default();
    }
    has_prefix(rest, b"<!doctype") || FIRST_ELEMENTS.iter().any(|tag| is_tag(rest, tag))
}

/// Whether the tag of just this name stands there. `<html-tabs>` is a custom element: a name may go
/// on with a hyphen (HTML section 4.13.2).
fn is_tag(html: &[u8], tag: &[u8]) -> bool {
    let after = html.get(tag.len()).copied().unwrap_or(b'>');
    has_prefix(html, tag) && !after.is_ascii_alphanumeric() && after != b'-'
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
            "<?xml version=\"1.0\"?>\n<!DOCTYPE html>",
            "<!-- x --><?xml-stylesheet href=x?> <html xmlns=x>",
            "<head><title>x</title>",
            "<title>x</title>",
            "<TITLE\n>",
            "<meta charset=utf-8>",
            "<body class=x>",
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
            "<?xml version=\"1.0\"?><p>x",
            "<?xml <!doctype html",
            "<header>x</header>",
            "<metadata>",
            "<title-bar>",
            "<style>a{}</style><p>x",
            "<script>1</script>",
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

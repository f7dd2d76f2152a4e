//! What a page refers to within its site.

use std::fs::File;
use std::io::{self, Read};

use html5gum::{DefaultEmitter, StartTag, Token, Tokenizer};
use url::Url;

use super::HOST;
use crate::disk::Root;
use crate::representation::{Data, Resource};
use crate::semantics::target::encode_path;

/// Longer pages are not looked at.
const LONGEST: u64 = 32 << 20;

/// A reference to something of the same site.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// Number of its line, from 1.
    pub(super) line: usize,
    /// Path and query.
    pub(super) reference: String,
}

/// Elements, and their attributes that name what they need or lead to.
const REFERENCES: &[(&[u8], &[&[u8]])] = &[
    (b"a", &[b"href"]),
    (b"area", &[b"href"]),
    (b"audio", &[b"src"]),
    (b"embed", &[b"src"]),
    (b"iframe", &[b"src"]),
    (b"img", &[b"src", b"srcset"]),
    (b"input", &[b"src"]),
    (b"link", &[b"href"]),
    (b"object", &[b"data"]),
    (b"script", &[b"src"]),
    (b"source", &[b"src", b"srcset"]),
    (b"track", &[b"src"]),
    (b"video", &[b"poster", b"src"]),
];

/// Everything on a page that refers to its own site.
///
/// # Errors
/// When it can't be read, or is too long to be a page.
pub(super) fn targets(root: &Root, page: &Resource) -> io::Result<Vec<Target>> {
    let text = match &page.identity.data {
        Data::Memory(bytes) => bytes.to_vec(),
        Data::File(source) if page.identity.length <= LONGEST => {
            let mut text = Vec::new();
            let file: File = root.open_file(&source.path)?.file;
            file.take(LONGEST).read_to_end(&mut text)?;
            text
        }
        Data::File(_) => return Err(io::Error::other("it is longer than 32 MiB")),
    };
    Ok(in_page(&page.path, &text))
}

fn in_page(path: &[u8], text: &[u8]) -> Vec<Target> {
    let own = format!("http://{HOST}/{}", encode_path(path));
    let Ok(mut base) = Url::parse(&own) else {
        return Vec::new();
    };
    let mut emitter = DefaultEmitter::<usize>::new_with_span();
    emitter.naively_switch_states(true);
    let mut targets = Vec::new();
    let (mut line, mut counted, mut has_base) = (1, 0, false);
    for token in Tokenizer::new_with_emitter(text, emitter) {
        let Ok(Token::StartTag(tag)) = token else {
            continue;
        };
        let start = tag.span.start.min(text.len());
        if let Some(between) = text.get(counted..start) {
            line += between.iter().filter(|byte| **byte == b'\n').count();
            counted = start;
        }
        if **tag.name == *b"base"
            && !has_base
            && let Some(to) = attribute(&tag, b"href").and_then(|href| base.join(href.trim()).ok())
        {
            (base, has_base) = (to, true);
        }
        for reference in references(&tag) {
            if let Some(reference) = within(&base, reference) {
                targets.push(Target { line, reference });
            }
        }
    }
    targets
}

fn attribute<'t>(tag: &'t StartTag<usize>, name: &[u8]) -> Option<&'t str> {
    let value = tag.attributes.get(name)?;
    str::from_utf8(value).ok()
}

fn references(tag: &StartTag<usize>) -> Vec<&str> {
    let known = REFERENCES.iter().find(|(name, _)| **tag.name == **name);
    let Some((_, attributes)) = known else {
        return Vec::new();
    };
    // These only warm up a connection.
    let rel = attribute(tag, b"rel").unwrap_or_default();
    if **tag.name == *b"link" && (rel.contains("preconnect") || rel.contains("dns-prefetch")) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for name in *attributes {
        let Some(value) = attribute(tag, name) else {
            continue;
        };
        if **name == *b"srcset" {
            let candidates = value.split(", ");
            found.extend(candidates.filter_map(|each| each.split_whitespace().next()));
        } else {
            found.push(value.trim());
        }
    }
    found
}

/// The path and query of a reference, where it stays within the site.
fn within(base: &Url, reference: &str) -> Option<String> {
    if reference.is_empty() || reference.starts_with('#') {
        return None;
    }
    let url = base.join(reference).ok()?;
    if url.host_str() != Some(HOST) || url.scheme() != "http" {
        return None;
    }
    Some(match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<(usize, String)> {
        let targets = in_page(path.as_bytes(), text.as_bytes());
        let pair = |target: Target| (target.line, target.reference);
        targets.into_iter().map(pair).collect()
    }

    #[test]
    fn references_are_resolved_as_browsers_do() {
        for (html, expected) in [
            ("<a href=x>", Some("/d/x")),
            ("<a href='../x?y#z'>", Some("/x?y")),
            ("<a href=\"/a b\">", Some("/a%20b")),
            ("<img src=\"//site.invalid/x\">", Some("/x")),
            ("<A HREF=&quot;>", Some("/d/%22")),
            ("<a href=\"?q\">", Some("/d/page.html?q")),
            ("<a href=#top>", None),
            ("<a href=''>", None),
            ("<a href=https://example.com/>", None),
            ("<a href=mailto:a@example.com>", None),
            ("<a href=javascript:x>", None),
            ("<img src=data:image/png;base64,AA>", None),
            ("<p href=x>", None),
            ("<!-- <a href=x> -->", None),
            ("<script>'<a href=x>'</script>", None),
            ("<link rel=preconnect href=/x>", None),
            ("<link rel=stylesheet href=/x.css>", Some("/x.css")),
            ("<base href=/other/><a href=x>", Some("/other/x")),
            ("<base href=https://example.com/><a href=x>", None),
        ] {
            let found = found("d/page.html", html);
            let only = found.first().map(|(_, reference)| reference.as_str());
            assert_eq!(only, expected, "{html}");
        }
    }

    #[test]
    fn every_candidate_has_its_line() {
        let html = "<p>\n<img srcset=\"a.png 1x, b.png 2x\"\n src=c.png>\n\n<a\nhref=d>";
        let expected = [(2, "/c.png"), (2, "/a.png"), (2, "/b.png"), (5, "/d")];
        assert_eq!(
            found("page.html", html),
            expected.map(|(line, reference)| (line, reference.to_owned()))
        );
    }
}

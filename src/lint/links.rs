//! The links of a page to its own site: `href`, `src` and the like.

use std::fs::File;
use std::io::{self, Read};

use html5gum::{DefaultEmitter, StartTag, Token, Tokenizer};
use url::Url;

use super::HOST;
use crate::disk::Root;
use crate::representation::{Data, Resource};
use crate::semantics::target::encode_path;

/// Longer pages are not parsed: each thread holds one in memory.
const MAX_PAGE_LENGTH: u64 = 32 << 20;

/// A link to something of the same site.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PageLink {
    /// The number of its line, from 1.
    pub(super) line: usize,
    /// Path and query, resolved against the page.
    pub(super) target: String,
}

/// Elements, and those of their attributes that hold a URL.
const URL_ATTRIBUTES: &[(&[u8], &[&[u8]])] = &[
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

/// All links of a page to its own site.
///
/// # Errors
/// When the page can't be read, or is longer than 32 MiB.
pub(super) fn page_links(root: &Root, page: &Resource) -> io::Result<Vec<PageLink>> {
    let text = match &page.identity.data {
        Data::Memory(bytes) => bytes.to_vec(),
        Data::File(source) if page.identity.length <= MAX_PAGE_LENGTH => {
            let mut text = Vec::new();
            let file: File = root.open_file(&source.path)?.file;
            // It may have grown since the scan.
            file.take(MAX_PAGE_LENGTH).read_to_end(&mut text)?;
            text
        }
        Data::File(_) => return Err(io::Error::other("it is longer than 32 MiB")),
    };
    Ok(parse(&page.path, &text))
}

fn parse(path: &[u8], text: &[u8]) -> Vec<PageLink> {
    let page = format!("http://{HOST}/{}", encode_path(path));
    let Ok(mut base) = Url::parse(&page) else {
        return Vec::new();
    };
    let mut emitter = DefaultEmitter::<usize>::new_with_span();
    // Without a tree builder the tokenizer does not know that the content of <script> is no
    // markup.
    emitter.naively_switch_states(true);
    let mut links = Vec::new();
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
        // Only the first <base> with an href counts (HTML, 4.2.3).
        if **tag.name == *b"base"
            && !has_base
            && let Some(url) = attribute(&tag, b"href").and_then(|href| base.join(href.trim()).ok())
        {
            (base, has_base) = (url, true);
        }
        for reference in references(&tag) {
            if let Some(target) = resolve(&base, reference) {
                links.push(PageLink { line, target });
            }
        }
    }
    links
}

fn attribute<'t>(tag: &'t StartTag<usize>, name: &[u8]) -> Option<&'t str> {
    let value = tag.attributes.get(name)?;
    str::from_utf8(value).ok()
}

/// The values of a tag's URL attributes, not resolved.
fn references(tag: &StartTag<usize>) -> Vec<&str> {
    let Some((_, attributes)) = URL_ATTRIBUTES.iter().find(|(name, _)| **tag.name == **name) else {
        return Vec::new();
    };
    // These open a connection and request nothing.
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
            // A URL in it may contain a comma, but not end in one (HTML, 4.8.4.2.1).
            found.extend(
                value
                    .split(", ")
                    .filter_map(|candidate| candidate.split_whitespace().next()),
            );
        } else {
            found.push(value.trim());
        }
    }
    found
}

/// The path and query that a reference leads to, if that is on the same site.
fn resolve(base: &Url, reference: &str) -> Option<String> {
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
        parse(path.as_bytes(), text.as_bytes())
            .into_iter()
            .map(|link| (link.line, link.target))
            .collect()
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
            let first = found.first().map(|(_, target)| target.as_str());
            assert_eq!(first, expected, "{html}");
        }
    }

    #[test]
    fn every_candidate_has_its_line() {
        let html = "<p>\n<img srcset=\"a.png 1x, b.png 2x\"\n src=c.png>\n\n<a\nhref=d>";
        let expected = [(2, "/c.png"), (2, "/a.png"), (2, "/b.png"), (5, "/d")];
        assert_eq!(
            found("page.html", html),
            expected.map(|(line, target)| (line, target.to_owned()))
        );
    }
}

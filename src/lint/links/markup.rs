//! The references of HTML and SVG.

use std::ops::Range;

use html5gum::{DefaultEmitter, StartTag, Token, Tokenizer};
use url::{ParseError, Url};

use super::srcset::{candidates, refresh_target};
use super::{PageLink, resolve, style};

/// Markup in attributes of markup is read so deeply.
const MAX_DEPTH: usize = 4;

/// Elements, and those of their attributes that hold one URL.
const URL_ATTRIBUTES: &[(&[u8], &[&[u8]])] = &[
    (b"a", &[b"href", b"xlink:href"]),
    (b"area", &[b"href"]),
    (b"audio", &[b"src"]),
    (b"body", &[b"background"]),
    (b"embed", &[b"src"]),
    (b"feimage", &[b"href", b"xlink:href"]),
    (b"frame", &[b"src"]),
    (b"iframe", &[b"src"]),
    // `src` where it is no SVG: a parser takes it for `img` (HTML, section 13.2.6.4.7).
    (b"image", &[b"href", b"src", b"xlink:href"]),
    (b"img", &[b"src"]),
    (b"input", &[b"src"]),
    (b"lineargradient", &[b"href", b"xlink:href"]),
    (b"link", &[b"href"]),
    (b"mpath", &[b"href", b"xlink:href"]),
    (b"object", &[b"data"]),
    (b"pattern", &[b"href", b"xlink:href"]),
    (b"radialgradient", &[b"href", b"xlink:href"]),
    (b"script", &[b"href", b"src", b"xlink:href"]),
    (b"source", &[b"src"]),
    (b"table", &[b"background"]),
    (b"td", &[b"background"]),
    (b"textpath", &[b"href", b"xlink:href"]),
    (b"th", &[b"background"]),
    (b"track", &[b"src"]),
    (b"use", &[b"href", b"xlink:href"]),
    (b"video", &[b"poster", b"src"]),
];

/// How markup is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Syntax {
    Html,
    /// SVG and XHTML. They are read by the tokenizer of HTML, whose tags are the same.
    Xml,
}

/// The links of markup to its own site. `address` is its own.
pub(super) fn links(address: &Url, text: &[u8], syntax: Syntax) -> Vec<PageLink> {
    let mut reader = MarkupReader {
        syntax,
        address,
        base: None,
        links: Vec::new(),
    };
    reader.read(text, 1, 0);
    reader.links
}

struct MarkupReader<'a> {
    syntax: Syntax,
    address: &'a Url,
    /// What the first `<base>` with an `href` says.
    base: Option<Url>,
    links: Vec<PageLink>,
}

/// An element whose content is no markup, or not in this syntax.
struct RawElement {
    name: Vec<u8>,
    /// Where its content begins, and its line.
    start: usize,
    line: usize,
}

impl MarkupReader<'_> {
    fn read(&mut self, text: &[u8], first_line: usize, depth: usize) {
        let mut emitter = DefaultEmitter::<usize>::new_with_span();
        // Without a tree builder the tokenizer does not know that the content of <script> is no
        // markup. In XML it is told by its end tag alone, and `<script/>` has none.
        emitter.naively_switch_states(self.syntax == Syntax::Html);
        let (mut line, mut counted) = (first_line, 0);
        let mut raw: Option<RawElement> = None;
        for token in Tokenizer::new_with_emitter(text, emitter) {
            match token {
                Ok(Token::StartTag(tag)) if raw.is_none() => {
                    line += newlines(text, counted..tag.span.start);
                    counted = tag.span.start;
                    self.tag(&tag, line, depth);
                    let is_empty = tag.self_closing && self.syntax == Syntax::Xml;
                    let is_raw = matches!(&**tag.name, b"noscript" | b"script" | b"style");
                    raw = (is_raw && !is_empty).then(|| RawElement {
                        line: line + newlines(text, counted..tag.span.end),
                        start: tag.span.end,
                        name: tag.name.to_vec(),
                    });
                }
                Ok(Token::EndTag(tag)) => {
                    if let Some(ended) = raw.take_if(|raw| *raw.name == **tag.name) {
                        let content = ended.start..tag.span.start;
                        self.raw(&ended, text.get(content).unwrap_or_default(), depth);
                    }
                }
                _ => {}
            }
        }
        if let Some(ended) = raw {
            self.raw(&ended, text.get(ended.start..).unwrap_or_default(), depth);
        }
    }

    /// The content of an element that the tokenizer has not read.
    fn raw(&mut self, element: &RawElement, content: &[u8], depth: usize) {
        match &*element.name {
            b"style" => self.css(&String::from_utf8_lossy(content), element.line),
            // Without scripts it is markup, and crawlers have none.
            b"noscript" if depth < MAX_DEPTH => self.read(content, element.line, depth + 1),
            _ => {}
        }
    }

    fn css(&mut self, css: &str, first_line: usize) {
        // In XML it may be wrapped, so that it can have a `<`. The wrapper is invalid CSS, which
        // would take the first rule with it.
        let css = css.replace("<![CDATA[", "         ").replace("]]>", "   ");
        for (line, reference) in style::references(&css) {
            self.reference(&reference, first_line + line);
        }
    }

    fn tag(&mut self, tag: &StartTag<usize>, line: usize, depth: usize) {
        if **tag.name == *b"base"
            && self.base.is_none()
            && let Some(href) = attribute(tag, b"href")
        {
            self.base = Some(base_of(self.address, href));
        }
        for reference in references(tag) {
            self.reference(reference, line);
        }
        if let Some(style) = attribute(tag, b"style") {
            self.css(style, line);
        }
        if **tag.name == *b"iframe"
            && depth < MAX_DEPTH
            && let Some(document) = attribute(tag, b"srcdoc")
        {
            self.read(document.as_bytes(), line, depth + 1);
        }
    }

    fn reference(&mut self, reference: &str, line: usize) {
        let base = self.base.as_ref().unwrap_or(self.address);
        let target = resolve(base, reference);
        self.links
            .extend(target.map(|target| PageLink { line, target }));
    }
}

/// The base URL that `<base href>` makes (HTML, section 4.2.3). Only the first one counts, and one
/// that can't be used leaves the address of the page.
fn base_of(address: &Url, href: &str) -> Url {
    match address.join(href) {
        Ok(base) if !matches!(base.scheme(), "data" | "javascript") => base,
        // A host that is not ASCII is another one than this site's (see Cargo.toml, idna_adapter):
        // nothing that is relative to it is a link of this site. `.invalid` resolves nowhere.
        Err(ParseError::IdnaError) => {
            let foreign = Url::parse("http://foreign.invalid/");
            foreign.unwrap_or_else(|_| address.clone())
        }
        _ => address.clone(),
    }
}

fn newlines(text: &[u8], range: Range<usize>) -> usize {
    let text = text.get(range).unwrap_or_default();
    text.iter().filter(|byte| **byte == b'\n').count()
}

fn attribute<'t>(tag: &'t StartTag<usize>, name: &[u8]) -> Option<&'t str> {
    let value = tag.attributes.get(name)?;
    str::from_utf8(value).ok()
}

/// The values of a tag's URL attributes, not resolved.
fn references(tag: &StartTag<usize>) -> Vec<&str> {
    // These open a connection and request nothing.
    let rel = attribute(tag, b"rel").unwrap_or_default();
    if **tag.name == *b"link" && (rel.contains("preconnect") || rel.contains("dns-prefetch")) {
        return Vec::new();
    }
    let named = URL_ATTRIBUTES.iter().find(|(name, _)| **tag.name == **name);
    let attributes = named.map_or(&[][..], |(_, attributes)| attributes);
    let mut found: Vec<_> = attributes
        .iter()
        .filter_map(|name| attribute(tag, name))
        .collect();
    let set_of_candidates: Option<&[u8]> = match &**tag.name {
        b"img" | b"source" => Some(b"srcset"),
        b"link" => Some(b"imagesrcset"),
        _ => None,
    };
    let set = set_of_candidates.and_then(|name| attribute(tag, name));
    found.extend(set.map(candidates).into_iter().flatten());
    let is_refresh = **tag.name == *b"meta"
        && attribute(tag, b"http-equiv").is_some_and(|it| it.eq_ignore_ascii_case("refresh"));
    let content = attribute(tag, b"content").filter(|_| is_refresh);
    found.extend(content.and_then(refresh_target));
    found
}

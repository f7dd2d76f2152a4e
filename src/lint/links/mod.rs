//! What pages, style sheets and images refer to within their own site.

mod markup;
mod srcset;
mod style;

use std::fs::File;
use std::io::{self, Read};

use url::Url;

use super::HOST;
use crate::disk::Root;
use crate::representation::{Data, Resource};
use crate::semantics::base_path::BasePath;
use markup::Syntax;

/// Longer files are not parsed: each thread holds one in memory.
const MAX_PAGE_LENGTH: u64 = 32 << 20;

/// A link to something of the same site.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PageLink {
    /// The number of its line, from 1.
    pub(super) line: usize,
    /// Path and query, resolved against the page.
    pub(super) target: String,
}

/// What a file is read as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Language {
    Markup(Syntax),
    Css,
}

impl Language {
    /// How a file is read, by the type it is served with; `None` where it has no references.
    fn of(resource: &Resource) -> Option<Self> {
        let content_type = resource.fields.content_type.to_str().ok()?;
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        match essence {
            "text/html" => Some(Self::Markup(Syntax::Html)),
            "application/xhtml+xml" | "image/svg+xml" => Some(Self::Markup(Syntax::Xml)),
            "text/css" => Some(Self::Css),
            _ => None,
        }
    }
}

/// Whether a file can refer to others in a way that is understood here.
pub(super) fn has_links(resource: &Resource) -> bool {
    Language::of(resource).is_some()
}

/// All links of a file to its own site.
///
/// # Errors
/// When it can't be read, or is longer than 32 MiB.
pub(super) fn page_links(
    root: &Root,
    page: &Resource,
    base_path: &BasePath,
) -> io::Result<Vec<PageLink>> {
    let Some(language) = Language::of(page) else {
        return Ok(Vec::new());
    };
    let text = match &page.identity.data {
        Data::Memory(bytes) => bytes.to_vec(),
        Data::File(source) if page.identity.length <= MAX_PAGE_LENGTH => {
            let mut text = Vec::new();
            let file: File = root.open_file(&source.path)?.file;
            // It may have grown since the scan.
            file.take(MAX_PAGE_LENGTH).read_to_end(&mut text)?;
            text
        }
        Data::Spooled(source) if page.identity.length <= MAX_PAGE_LENGTH => {
            source.read(page.identity.length)?
        }
        Data::File(_) | Data::Spooled(_) | Data::Remote(_) => {
            return Err(io::Error::other("it is longer than 32 MiB"));
        }
    };
    Ok(parse(&base_path.url(&page.path), &text, language))
}

/// The links in a text that is at this path of the host.
fn parse(path: &str, text: &[u8], language: Language) -> Vec<PageLink> {
    let Ok(address) = Url::parse(&format!("http://{HOST}{path}")) else {
        return Vec::new();
    };
    match language {
        Language::Markup(syntax) => markup::links(&address, text, syntax),
        Language::Css => style::references(&String::from_utf8_lossy(text))
            .into_iter()
            .filter_map(|(line, reference)| {
                let target = resolve(&address, &reference)?;
                Some(PageLink {
                    line: line + 1,
                    target,
                })
            })
            .collect(),
    }
}

/// The path and query that a reference leads to, if that is on the same site.
fn resolve(base: &Url, reference: &str) -> Option<String> {
    // White space around it means nothing (URL Standard, section 4.4).
    let reference = reference.trim_matches(|c: char| c <= ' ');
    if reference.is_empty() || reference.starts_with('#') {
        return None;
    }
    let url = base.join(reference).ok()?;
    if url.host_str() != Some(HOST) || url.scheme() != "http" || url.port().is_some() {
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

    fn found(path: &str, text: &str, language: Language) -> Vec<(usize, String)> {
        parse(&format!("/{path}"), text.as_bytes(), language)
            .into_iter()
            .map(|link| (link.line, link.target))
            .collect()
    }

    fn targets(path: &str, text: &str, language: Language) -> Vec<String> {
        let found = found(path, text, language).into_iter();
        found.map(|(_, target)| target).collect()
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
            ("<base href=//ex\u{e4}mple.com/><a href=x>", None),
            (
                "<base href=//ex\u{e4}mple.com/><a href=//site.invalid/x>",
                Some("/x"),
            ),
            ("<a href=//ex\u{e4}mple.com/x>", None),
            // Only the first counts, and one that can't be used leaves the page's address.
            ("<base href=/o/><base href=/p/><a href=x>", Some("/o/x")),
            (
                "<base href=http://[/><base href=/p/><a href=x>",
                Some("/d/x"),
            ),
            ("<base href=data:,x><a href=x>", Some("/d/x")),
            ("<base target=_top><base href=/p/><a href=x>", Some("/p/x")),
        ] {
            let found = targets("d/page.html", html, Language::Markup(Syntax::Html));
            assert_eq!(found.first().map(|target| &**target), expected, "{html}");
        }
    }

    #[test]
    fn every_place_of_a_reference_is_known() {
        for (html, expected) in [
            ("<img srcset='a 480w,\n b 800w'>", &["/a", "/b"][..]),
            (
                "<link rel=preload as=image imagesrcset='a 1x, b 2x'>",
                &["/a", "/b"],
            ),
            ("<noscript><img src=a></noscript><img src=b>", &["/a", "/b"]),
            ("<noscript><style>p{background:url(a)}</style>", &["/a"]),
            ("<meta http-equiv=Refresh content='0; url=a'>", &["/a"]),
            ("<meta http-equiv=x content='0; url=a'>", &[]),
            ("<frameset><frame src=a></frameset>", &["/a"]),
            (
                "<style>@import 'a';p{background:url(b)}</style>",
                &["/a", "/b"],
            ),
            ("<p style='background:url(a)'>", &["/a"]),
            ("<body background=a>", &["/a"]),
            (
                "<svg><use href='a#b'/><image xlink:href=c /></svg>",
                &["/a", "/c"],
            ),
            ("<iframe srcdoc='&lt;img src=a>'></iframe>", &["/a"]),
            ("<script src=a></script><script>'<img src=b>'", &["/a"]),
        ] {
            let found = targets("page.html", html, Language::Markup(Syntax::Html));
            assert_eq!(found, expected, "{html}");
        }
        for (svg, expected) in [
            ("<svg><use href='#x'/><image href='a'/></svg>", &["/a"][..]),
            (
                "<svg><script href='a'/><image href='b'/></svg>",
                &["/a", "/b"],
            ),
            (
                "<svg><style><![CDATA[ a{fill:url(b)} ]]></style></svg>",
                &["/b"],
            ),
            ("<svg><linearGradient xlink:href='a#b'/></svg>", &["/a"]),
            (
                "<svg><script><![CDATA[ '<image href=\"a\"/>' > ]]></script></svg>",
                &[],
            ),
        ] {
            let found = targets("x.svg", svg, Language::Markup(Syntax::Xml));
            assert_eq!(found, expected, "{svg}");
        }
        let css = "@import 'b.css';\na{b:url(../c.png),url(#d),url(data:x)}";
        let expected = [(1, "/css/b.css"), (2, "/c.png")];
        assert_eq!(
            found("css/a.css", css, Language::Css),
            expected.map(|(line, target)| (line, target.to_owned()))
        );
    }

    #[test]
    fn every_link_has_its_line() {
        let html = "<p>\n<img srcset=\"a.png 1x, b.png 2x\"\n src=c.png>\n\n<a\nhref=d>\
                    <style>\na{b:url(e)}\n</style>\n<noscript>\n<img src=f>\n</noscript><a href=g>";
        let expected = [
            (2, "/c.png"),
            (2, "/a.png"),
            (2, "/b.png"),
            (5, "/d"),
            (7, "/e"),
            (10, "/f"),
            (11, "/g"),
        ];
        assert_eq!(
            found("page.html", html, Language::Markup(Syntax::Html)),
            expected.map(|(line, target)| (line, target.to_owned()))
        );
    }
}

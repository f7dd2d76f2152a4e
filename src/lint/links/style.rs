//! The references of CSS: `url()` and `src()`, `@import`, and strings in `image-set()` (CSS Values
//! and Units 4, section 4.5; CSS Images 4, section 2.4).

use cssparser::{ParseError, Parser, Token};

/// The references of a style sheet, or of the declarations of a `style` attribute: each with the
/// number of its line, from 0.
pub(super) fn references(css: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    collect(&mut Parser::new(css), false, &mut found);
    found
}

/// Where a string or an address stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Statement {
    Other,
    /// Behind `@import`: a string is an address.
    Import,
    /// Behind `@namespace`: an address is a name, and is never requested.
    Namespace,
}

/// `is_image_set`: a string is the address of an image.
fn collect(parser: &mut Parser<'_>, is_image_set: bool, found: &mut Vec<(usize, String)>) {
    let mut statement = Statement::Other;
    loop {
        parser.skip_whitespace();
        let line = parser.current_source_location().line as usize;
        let Ok(token) = parser.next().cloned() else {
            return;
        };
        let is_address = statement != Statement::Namespace;
        match token {
            Token::AtKeyword(name) if name.eq_ignore_ascii_case("import") => {
                statement = Statement::Import;
            }
            Token::AtKeyword(name) if name.eq_ignore_ascii_case("namespace") => {
                statement = Statement::Namespace;
            }
            Token::AtKeyword(_) | Token::Semicolon => statement = Statement::Other,
            Token::UnquotedUrl(url) if is_address => found.push((line, url.to_string())),
            Token::QuotedString(url) if is_image_set || statement == Statement::Import => {
                found.push((line, url.to_string()));
                // `@import "a.css" supports(..)`: no second string is an address.
                statement = Statement::Other;
            }
            Token::Function(name) if is_one_of(&name, &["url", "src"]) => {
                let url = parser.parse_nested_block(|parser| {
                    let url = parser.expect_string()?.to_string();
                    // Modifiers may follow.
                    while parser.next().is_ok() {}
                    Ok::<_, ParseError<()>>(url)
                });
                found.extend(url.ok().filter(|_| is_address).map(|url| (line, url)));
            }
            Token::Function(name) => {
                let is_image_set = is_one_of(&name, &["image-set", "-webkit-image-set"]);
                nested(parser, is_image_set, found);
            }
            Token::CurlyBracketBlock => {
                statement = Statement::Other;
                nested(parser, false, found);
            }
            Token::ParenthesisBlock | Token::SquareBracketBlock => nested(parser, false, found),
            _ => {}
        }
    }
}

fn nested(parser: &mut Parser<'_>, is_image_set: bool, found: &mut Vec<(usize, String)>) {
    // An error says that it is nested too deeply, by 75 blocks; the parser then goes on inside it.
    let _ = parser.parse_nested_block(|parser| {
        collect(parser, is_image_set, found);
        Ok::<_, ParseError<()>>(())
    });
}

fn is_one_of(name: &str, names: &[&str]) -> bool {
    names.iter().any(|each| name.eq_ignore_ascii_case(each))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(css: &str) -> Vec<String> {
        references(css).into_iter().map(|(_, url)| url).collect()
    }

    #[test]
    fn what_a_style_sheet_requests_is_found() {
        for (css, expected) in [
            ("a{background:url(x.png)}", &["x.png"][..]),
            ("a{background:URL( 'x y.png' )}", &["x y.png"]),
            (
                "a{background:url(\"a\\\nb.png\") , url(c)}",
                &["ab.png", "c"],
            ),
            (
                "@import 'a.css';@import url(b.css) screen;",
                &["a.css", "b.css"],
            ),
            ("@IMPORT \"a.css\" supports(content: \"x\");", &["a.css"]),
            (
                "@font-face{src:local('x'),url(a.woff2) format('woff2'),url(a.eot?#iefix)}",
                &["a.woff2", "a.eot?#iefix"],
            ),
            (
                "a{background:image-set('a.png' 1x, url(b.png) 2x, 'c.avif' type('image/avif'))}",
                &["a.png", "b.png", "c.avif"],
            ),
            ("@media (x) { @supports (y) { a{b:c(url(d))} } }", &["d"]),
            ("background:url(x)", &["x"]),
            ("a{background:url(\\2e x.png)}", &[".x.png"]),
            ("a{b:src('x')}", &["x"]),
            ("a{b:url('x' m(1))}c{d:url(e)}", &["x", "e"]),
            (
                "@namespace url(http://www.w3.org/1999/xhtml);a{b:url(c)}",
                &["c"],
            ),
            ("@namespace svg 'http://x';", &[]),
            ("/* url(x) */a{content:'url(y)'}", &[]),
            ("a{b:url(x y)}", &[]),
            ("a{b:'x'}@charset 'utf-8';", &[]),
            ("", &[]),
        ] {
            assert_eq!(found(css), expected, "{css}");
        }
    }

    #[test]
    fn each_has_its_line() {
        let css = "a{\n b:url(x);\n\n c:url(\n'y')}\n@import\n'z';";
        let lines: Vec<_> = references(css).into_iter().map(|(line, _)| line).collect();
        assert_eq!(lines, [1, 3, 6]);
    }

    #[test]
    fn deep_nesting_ends() {
        for open in ["{", "(", "[", "f("] {
            let css = format!("{}url(x)", open.repeat(200_000));
            assert_eq!(found(&css), ["x"], "{open}");
        }
        let css = format!("{}{}a{{b:url(x)}}", "{".repeat(1000), "}".repeat(1000));
        assert_eq!(found(&css), ["x"]);
    }
}

//! The page that an error has where the site has none.
//!
//! One document without outside resources: it is styled by one `<style>` that
//! [`CONTENT_SECURITY_POLICY`] allows by its hash and by nothing else.

use std::fmt::{self, Display, Formatter, Write as _};

use http::StatusCode;
use percent_encoding::percent_decode_str;

macro_rules! policy {
    ($more:literal) => {
        concat!(
            "default-src 'none'; img-src 'self'; \
             style-src 'sha256-iB/cPB8gYZMEPM5Xad9MQdtr8lMKl5inS1K+7qTiC4Y='",
            $more
        )
    };
}

/// The `Content-Security-Policy` of every [`Page`]: its own style, the site's icon, and no more.
pub const CONTENT_SECURITY_POLICY: &str = policy!("");
/// The `Content-Security-Policy` of a [`Page`] that ends with a script of the site's own, which may
/// start a worker and connect to the site.
pub const CONTENT_SECURITY_POLICY_WITH_TAIL: &str =
    policy!("; script-src 'self'; worker-src 'self'; connect-src 'self'");

const STYLE: &str = include_str!("style.css");
/// Characters of the requested path that are shown: a target may have thousands.
const MAX_PATH_LENGTH: usize = 200;

/// A page about an error: its status, one sentence, the path that was asked for, and a way home.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// The status it goes out with.
    pub status: StatusCode,
    /// What is wrong, without a capital and a full stop. Any text: it is escaped.
    pub sentence: &'a str,
    /// The path that was asked for, as it was sent. It is shown decoded, escaped and cut to
    /// `MAX_PATH_LENGTH` characters; what is no path, as the `*` of OPTIONS, is not shown.
    pub path: &'a str,
    /// The path of the site's first page, where there is one to go to.
    pub home: Option<&'a str>,
}

impl Display for Page<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let code = self.status.as_u16();
        let title = self.status.canonical_reason().unwrap_or("Error");
        let title = Text(title.as_bytes());
        let mut rest = self.sentence.chars();
        let first = rest
            .next()
            .map(|first| first.to_ascii_uppercase().to_string())
            .unwrap_or_default();
        let (first, rest) = (Text(first.as_bytes()), Text(rest.as_str().as_bytes()));
        write!(
            f,
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <title>{code} {title}</title>\n<style>{STYLE}</style>\n\
             <main>\n<b>{code}</b>\n<div>\n<h1>{title}</h1>\n<p>{first}{rest}.</p>\n"
        )?;
        if self.path.starts_with('/') {
            writeln!(f, "<p><code>{}</code></p>", Text(&shown(self.path)))?;
        }
        // Whoever is there already has nowhere else to go.
        if let Some(home) = self.home.filter(|home| *home != self.path) {
            let home = Text(home.as_bytes());
            writeln!(f, "<p><a href=\"{home}\">Home page</a></p>")?;
        }
        f.write_str("</div>\n</main>\n")
    }
}

/// A path as people read it: decoded, and not longer than `MAX_PATH_LENGTH` characters.
fn shown(path: &str) -> Vec<u8> {
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    match decoded.char_indices().nth(MAX_PATH_LENGTH) {
        Some((end, _)) => [&decoded.as_bytes()[..end], "\u{2026}".as_bytes()].concat(),
        None => decoded.into_owned().into_bytes(),
    }
}

/// Text as HTML has it, in an element or between quotes: whatever the bytes are, they end neither,
/// and what can't be seen is shown as U+FFFD.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a>(pub &'a [u8]);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for char in String::from_utf8_lossy(self.0).chars() {
            match char {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                char if is_unseen(char) => f.write_char(char::REPLACEMENT_CHARACTER)?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// Whether a character is a command: to a terminal, or to turn the direction of the text around it.
#[must_use]
pub fn is_unseen(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use sha2::{Digest, Sha256};

    use super::*;

    fn page(sentence: &str) -> String {
        page_at("/nowhere", sentence)
    }

    fn page_at(path: &str, sentence: &str) -> String {
        Page {
            status: StatusCode::NOT_FOUND,
            sentence,
            path,
            home: Some("/"),
        }
        .to_string()
    }

    #[test]
    fn it_says_its_status_and_one_sentence() {
        let page = page("there is nothing here");
        assert!(page.contains("<title>404 Not Found</title>"));
        assert!(page.contains("<h1>Not Found</h1>"));
        assert!(page.contains("<p>There is nothing here.</p>"));
        assert!(page.len() < 2048, "{} bytes", page.len());
        let status = StatusCode::from_u16(599).expect("a status");
        let unnamed = Page {
            status,
            sentence: "",
            path: "*",
            home: None,
        }
        .to_string();
        assert!(!unnamed.contains("<code>") && !unnamed.contains("<a "));
        assert!(unnamed.contains("<title>599 Error</title>"));
    }

    #[test]
    fn it_escapes_its_sentence() {
        let page = page("<script>\"&'</script>");
        assert!(page.contains("<p>&lt;script&gt;&quot;&amp;&#39;&lt;/script&gt;.</p>"));
        assert_eq!(page.matches("<script").count(), 0);
        let unseen = Text("a\n\u{202e}é".as_bytes()).to_string() + &Text(b"\xff").to_string();
        assert_eq!(unseen, "a\u{fffd}\u{fffd}é\u{fffd}");
    }

    #[test]
    fn it_names_the_path_and_has_a_way_home() {
        let page = page_at("/caf%C3%A9/a%20b", "there is nothing here");
        assert!(
            page.contains("<p><code>/caf\u{e9}/a b</code></p>"),
            "{page}"
        );
        assert!(
            page.contains("<p><a href=\"/\">Home page</a></p>"),
            "{page}"
        );
        let home = page_at("/", "there is nothing here");
        assert!(!home.contains("<a "), "{home}");
        let markup = page_at("/%3Cscript%3E%22%0A%E2%80%AE%ff%zz", "");
        let escaped = "<code>/&lt;script&gt;&quot;\u{fffd}\u{fffd}\u{fffd}%zz</code>";
        assert!(markup.contains(escaped), "{markup}");
        let long = page_at(&format!("/{}", "%C3%A9".repeat(1000)), "");
        let shown = format!("<code>/{}\u{2026}</code>", "\u{e9}".repeat(199));
        assert!(long.contains(&shown), "{long}");
    }

    #[test]
    fn its_policy_allows_its_style_and_nothing_else() {
        let page = page("there is nothing here");
        let (_, style) = page.split_once("<style>").expect("a style");
        let (style, rest) = style.split_once("</style>").expect("its end");
        let hash = STANDARD.encode(Sha256::digest(style));
        let allowed = format!("style-src 'sha256-{hash}'");
        assert!(CONTENT_SECURITY_POLICY.ends_with(&allowed), "{allowed}");
        assert!(!rest.contains("<style"), "one style");
        for outside in ["src=", "url(", "style=", "@import", "<script", "<link"] {
            assert!(!page.contains(outside), "{outside}");
        }
    }
}

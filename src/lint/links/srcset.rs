//! References that stand in an attribute together with something else: `srcset`, and the target of
//! a refresh.

/// ASCII white space as HTML defines it (Infra, section 4.6).
const fn is_space(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\x0c' | '\r' | ' ')
}

/// The URLs of a `srcset` (HTML, section 4.8.4.3.10): a URL runs to white space and may contain
/// commas, but not end in one; the descriptors after it run to a comma outside parentheses.
pub(super) fn candidates(srcset: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = srcset;
    loop {
        rest = rest.trim_start_matches(|c| c == ',' || is_space(c));
        if rest.is_empty() {
            return found;
        }
        let (word, after) = rest.split_at(rest.find(is_space).unwrap_or(rest.len()));
        let url = word.trim_end_matches(',');
        found.push(url);
        // A comma right after the URL says that it has no descriptors.
        rest = match url.len() < word.len() {
            true => after,
            false => after_descriptors(after),
        };
    }
}

fn after_descriptors(text: &str) -> &str {
    let mut is_in_parentheses = false;
    let end = text.find(|c| {
        match c {
            '(' => is_in_parentheses = true,
            ')' => is_in_parentheses = false,
            _ => {}
        }
        c == ',' && !is_in_parentheses
    });
    end.and_then(|end| text.get(end..)).unwrap_or_default()
}

/// Where `<meta http-equiv=refresh content=..>` leads (HTML, section 4.2.5.3, shared declarative
/// refresh steps): `5; url=next.html`, with or without `url=`. `None` where it leads nowhere else.
pub(super) fn refresh_target(content: &str) -> Option<&str> {
    let content = content.trim_start_matches(is_space);
    let after_time = content.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let rest = after_time.trim_start_matches(is_space);
    let is_separated = rest.len() < after_time.len() || rest.starts_with([';', ',']);
    if after_time.len() == content.len() || !is_separated {
        return None;
    }
    let rest = rest.strip_prefix([';', ',']).unwrap_or(rest);
    let rest = rest.trim_start_matches(is_space);
    let (name, after_name) = rest.split_at_checked(3).unwrap_or_default();
    let named = name
        .eq_ignore_ascii_case("url")
        .then(|| after_name.trim_start_matches(is_space).strip_prefix('='))
        .flatten();
    let url = named.map_or(rest, |url| url.trim_start_matches(is_space));
    let url = match url.chars().next() {
        Some(quote @ ('"' | '\'')) => url.split(quote).nth(1)?,
        _ => url,
    };
    (!url.is_empty()).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_srcset_is_split_as_html_says() {
        for (srcset, expected) in [
            ("", &[][..]),
            ("a.png", &["a.png"]),
            ("a.png 1x, b.png 2x", &["a.png", "b.png"]),
            ("a.png 480w,\n missing.png 800w", &["a.png", "missing.png"]),
            ("a.png,\tb.png", &["a.png", "b.png"]),
            ("a.png 480w,b.png 800w", &["a.png", "b.png"]),
            // No white space: one URL.
            ("a.png,b.png", &["a.png,b.png"]),
            ("/w_1,h_2/a.png 1x", &["/w_1,h_2/a.png"]),
            (", ,a.png,, , b.png", &["a.png", "b.png"]),
            ("a.png f(1, 2) 1x, b.png", &["a.png", "b.png"]),
            ("a.png (never closed, b.png", &["a.png"]),
            ("a.png\u{a0}1x", &["a.png\u{a0}1x"]),
        ] {
            assert_eq!(candidates(srcset), expected, "{srcset:?}");
        }
    }

    #[test]
    fn a_refresh_leads_where_its_content_says() {
        for (content, expected) in [
            ("5; url=next.html", Some("next.html")),
            ("0;URL='a b.html' x", Some("a b.html")),
            ("0, url = \"x\"", Some("x")),
            ("0 next.html", Some("next.html")),
            ("0;urls.html", Some("urls.html")),
            (".5;u", Some("u")),
            ("é", None),
            ("0;é", Some("é")),
            ("5", None),
            ("5;", None),
            ("5;url=", None),
            ("5x; url=y", None),
            ("url=x", None),
            ("", None),
            ("0;url='", None),
        ] {
            assert_eq!(refresh_target(content), expected, "{content:?}");
        }
    }
}

//! What the placeholders of a case stand for, given a site and one file of it.

use std::collections::HashMap;

use super::case::Body;

/// What the placeholders of a case stand for.
pub(crate) struct Ground<'a> {
    /// Every file of the site by its path in a URL.
    pub(crate) files: &'a HashMap<String, Vec<u8>>,
    /// The path that `{file}` and `{large}` stand for.
    pub(crate) subject: &'a str,
}

impl Ground<'_> {
    fn content(&self, path: &str) -> &[u8] {
        self.files
            .get(path)
            .unwrap_or_else(|| panic!("the site has no {path}"))
    }

    /// `none`, `has TEXT`, `PATH` or `PATH 0-9, 20-29`.
    pub(crate) fn body(&self, text: &str) -> Body {
        if text == "none" {
            return Body::Nothing;
        }
        if let Some(part) = text.strip_prefix("has ") {
            return Body::Has(part.to_owned());
        }
        let Some((path, ranges)) = text.split_once(' ') else {
            return Body::Whole(self.content(text).to_owned());
        };
        let range = |range: &str| {
            let (first, last) = range.split_once('-').expect("FIRST-LAST");
            (first.parse().unwrap(), last.parse().unwrap())
        };
        Body::Ranges(
            self.content(path).to_owned(),
            ranges.split(", ").map(range).collect(),
        )
    }

    fn hex(&self, path: &str) -> String {
        super::tag(self.content(path)).trim_matches('"').to_owned()
    }

    /// A line with its placeholders filled in.
    pub(crate) fn expanded(&self, line: &str) -> String {
        let mut text = String::new();
        let mut rest = line;
        while let Some((before, after)) = rest.split_once('{') {
            let (placeholder, after) = after.split_once('}').expect("a closing brace");
            text += before;
            text += &self.value(placeholder);
            rest = after;
        }
        text + rest
    }

    fn value(&self, placeholder: &str) -> String {
        if let Some(path) = placeholder.strip_prefix("etag:") {
            return super::tag(self.content(path));
        }
        if let Some(path) = placeholder.strip_prefix("hex:") {
            return self.hex(path);
        }
        if let Some(offset) = placeholder.strip_prefix("size") {
            let offset = if offset.is_empty() {
                0
            } else {
                offset.parse::<i64>().unwrap()
            };
            let size = i64::try_from(self.content(self.subject).len()).unwrap();
            return (size + offset).to_string();
        }
        if let Some((times, text)) = placeholder.split_once('*') {
            return text.repeat(times.parse().unwrap());
        }
        match placeholder {
            "file" | "large" => self.subject.to_owned(),
            "etag" => super::tag(self.content(self.subject)),
            "hex" => self.hex(self.subject),
            "hex8" => self.hex(self.subject)[..8].to_owned(),
            other => panic!("{{{other}}} stands for nothing"),
        }
    }
}

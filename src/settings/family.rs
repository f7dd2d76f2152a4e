//! Families: the files that have the same name in every release, apart from the hash in it.

use std::ops::Range;

use super::immutable::{fingerprint, is_separator, stem_of_asset};
use crate::semantics::target::encode_path;

/// The length of a hash that may have any characters of base64url: that of Vite and esbuild.
const SHORT_HASH: usize = 8;
/// What has a meaning in a URL Pattern, of the characters that a path may have as they are.
const SPECIAL: &[char] = &['\\', '*', '+', '?', '{', '}', '(', ')'];

/// The files whose paths differ only in the hash before the extension: `assets/app-*.js`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Family<'a> {
    before: &'a [u8],
    after: &'a [u8],
}

impl<'a> Family<'a> {
    /// The family of the file at `path`: raw bytes below the root, without the leading slash. `None`
    /// where no part of the name looks like a hash.
    pub fn of(path: &'a [u8]) -> Option<Self> {
        let Range { start, end } = fingerprint(path).or_else(|| short_hash(path))?;
        Some(Self {
            before: &path[..start],
            after: &path[end..],
        })
    }

    /// What the paths of its files begin with.
    pub fn prefix(&self) -> &'a [u8] {
        self.before
    }

    /// The URL Pattern that its files match, and files of other names do not: the `match` of
    /// Use-As-Dictionary (RFC 9842 section 2.1.1).
    pub fn url_pattern(&self) -> String {
        format!("{}*{}", url_pattern(self.before), escape(self.after))
    }
}

/// The URL Pattern that the file at `path` matches, and no other.
pub fn url_pattern(path: &[u8]) -> String {
    format!("/{}", escape(path))
}

fn escape(path: &[u8]) -> String {
    let mut escaped = String::new();
    for character in encode_path(path).chars() {
        match character {
            // Outside of a group even an escaped one ends a protocol (URL Pattern section 2.2, "is a
            // non-special pattern char"), so that a browser refuses the pattern.
            ':' => escaped.push_str(r"{\:}"),
            _ if SPECIAL.contains(&character) => escaped.extend(['\\', character]),
            _ => escaped.push(character),
        }
    }
    escaped
}

/// Eight characters after a separator, which may be separators themselves: `index-B-cD3fGh.js`. That
/// is too weak to call a file immutable, and enough to look for the one that it replaces: what is
/// found in vain is larger than the file without a dictionary, and not used.
fn short_hash(path: &[u8]) -> Option<Range<usize>> {
    let (start, dot) = stem_of_asset(path)?;
    let (name, hash) = path[start..dot].split_last_chunk::<SHORT_HASH>()?;
    let is_base64url = hash
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    let is_word = hash.iter().all(u8::is_ascii_lowercase) || hash.iter().all(u8::is_ascii_digit);
    let is_hash = name.last().is_some_and(is_separator) && is_base64url && !is_word;
    is_hash.then(|| dot - SHORT_HASH..dot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_families() {
        #[rustfmt::skip]
        let cases = [
            ("assets/index-BfX3a91Z.js", Some("/assets/index-*.js")),
            ("main.8d3f2a1c.css", Some("/main.*.css")),
            ("a/b/8d3f2a1c.js", Some("/a/b/*.js")),
            ("index-B-cD3fGh.js", Some("/index-*.js")),
            ("index-B_cD3fGh.js", Some("/index-*.js")),
            ("a(1)+b-BfX3a91Z.js", Some(r"/a\(1\)\+b-*.js")),
            ("a*:{b}-BfX3a91Z.js", Some(r"/a\*{\:}%7Bb%7D-*.js")),
            ("a\\b-BfX3a91Z.js", Some("/a%5Cb-*.js")),
            ("\u{e9}\"-BfX3a91Z.js", Some("/%C3%A9%22-*.js")),
            ("index.js", None),
            ("three-controls.js", None),
            ("report-20261128.csv", None),
            ("page-BfX3a91Z.html", None),
            ("BfX3a91Z", None),
            ("app-BfX3a91Z.js.map", None),
            ("app-BfX3a91Z.js.br", None),
            ("app-BfX3a91Z.js.0a1b2c3d4e5f6071.dcb", Some("/app-BfX3a91Z.js.*.dcb")),
            ("", None),
            (".", None),
            ("-.js", None),
        ];
        for (path, want) in cases {
            let is = Family::of(path.as_bytes()).map(|family| family.url_pattern());
            assert_eq!(is.as_deref(), want, "{path}");
        }
        assert_eq!(url_pattern(b"a b/c*.js"), r"/a%20b/c\*.js");
    }
}

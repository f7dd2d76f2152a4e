//! Paths of the site, chosen by pattern.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::str::FromStr;

use globset::{GlobBuilder, GlobSet};

/// A pattern for the paths of files, from the root of the site: `/assets/**`.
///
/// | | matches |
/// |---|---|
/// | `?`, `*` | one character, any number of them, but no slash |
/// | `/**/` | any number of directories, none included |
/// | `/**` at the end | everything below |
/// | `[ab]`, `[!ab]` | one of these, one that is none of these |
/// | `{a,b}` | either pattern |
/// | `\` | nothing: what follows stands for itself |
///
/// A path is the name of a file as its bytes are, not a URL: nothing is percent-decoded, and a
/// page is matched as `/about.html`, whatever URL it is asked for under.
#[derive(Clone, Debug)]
pub struct PathGlob {
    pattern: String,
    set: GlobSet,
}

impl PathGlob {
    /// Whether it matches `path`: raw bytes below the root, without the leading slash.
    pub fn matches(&self, path: &[u8]) -> bool {
        self.set.is_match(OsStr::from_bytes(path))
    }

    /// As it was written.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }
}

/// Why a text is no [`PathGlob`].
#[derive(Debug, thiserror::Error)]
pub enum InvalidGlob {
    /// It does not begin with a slash.
    #[error("expected a path from the root, such as /assets/**")]
    Relative,
    /// It is no pattern, or one that is too large.
    #[error("{}", .0.kind())]
    Pattern(#[from] globset::Error),
}

impl FromStr for PathGlob {
    type Err = InvalidGlob;

    fn from_str(pattern: &str) -> Result<Self, InvalidGlob> {
        let Some(relative) = pattern.strip_prefix('/') else {
            return Err(InvalidGlob::Relative);
        };
        // If `*` matched slashes, `/*` would be all of the site.
        let glob = GlobBuilder::new(relative).literal_separator(true).build()?;
        // A set, since `Glob::compile_matcher` panics where a pattern is too large to compile.
        let set = GlobSet::builder().add(glob).build()?;
        Ok(Self {
            pattern: pattern.to_owned(),
            set,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        #[rustfmt::skip]
        let cases: &[(&str, &[&str], &[&str])] = &[
            // pattern, paths that match, paths that do not
            ("/assets/**", &["assets/a.js", "assets/b/c.css", "assets/.x"], &["assets", "b/assets/a.js", "assets2/a"]),
            ("/assets/*", &["assets/a.js"], &["assets/b/c.css", "assets"]),
            ("/*", &["a.js"], &["a/b.js"]),
            ("/**", &["a.js", "a/b/c.js"], &[]),
            ("/**/*.woff2", &["a.woff2", "a/b/c.woff2"], &["a.woff", "a.woff2/b"]),
            ("/a/**/b", &["a/b", "a/x/b", "a/x/y/b"], &["b", "a/bb"]),
            ("/app.*.js", &["app.3f2a.js", "app..js"], &["app.js", "app.1/2.js", "xapp.1.js"]),
            ("/app.????.js", &["app.3f2a.js"], &["app.3f2.js", "app.3f2aa.js", "app.3/2a.js"]),
            ("/{assets,_app}/**", &["assets/a", "_app/a"], &["other/a"]),
            ("/**/*.[0-9a-f]*.{js,css}", &["x/a.3f.js", "a.0.css"], &["a.js", "a.g.js", "a.3f.html"]),
            ("/[!a]*", &["b"], &["a"]),
            (r"/\*", &["*"], &["a"]),
            ("/exact.js", &["exact.js"], &["exact.jsx", "EXACT.js", "a/exact.js"]),
            ("/a b+(c).js", &["a b+(c).js"], &["a b(c).js", "a%20b+(c).js"]),
            ("/é.js", &["é.js"], &["e\u{301}.js"]),
        ];
        for (pattern, matching, others) in cases {
            let glob: PathGlob = pattern.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(glob.pattern(), *pattern);
            for path in *matching {
                assert!(glob.matches(path.as_bytes()), "{pattern} {path}");
            }
            for path in *others {
                assert!(!glob.matches(path.as_bytes()), "{pattern} {path}");
            }
        }
        let glob: PathGlob = "/assets/*.js".parse().expect("a pattern");
        assert!(
            glob.matches(b"assets/caf\xe9.js"),
            "a name need not be UTF-8"
        );
    }

    #[test]
    fn refusals() {
        for pattern in [
            "",
            "assets/**",
            "*.js",
            "**",
            "/[a",
            "/{a",
            "/a}",
            "/[z-a]",
            "/\\",
        ] {
            let refused = pattern.parse::<PathGlob>().err();
            assert!(
                refused.is_some_and(|reason| !reason.to_string().is_empty()),
                "{pattern}"
            );
        }
    }

    #[test]
    fn a_pattern_that_grows_too_large_is_refused() {
        let pattern = format!("/{}", "{a,b}[a-z]?".repeat(60_000));
        assert!(pattern.parse::<PathGlob>().is_err());
    }
}

//! The path below which a site answers on its host.
//!
//! Paths of the site do not have it: [`BasePath::enter`] takes it off the target of a request, once, and
//! [`BasePath::lead`] puts it in front of a Location.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use http::Uri;

use super::target::{BadTarget, Target, encode_path};

/// What certificate authorities ask for (RFC 8555 section 8.3): always at the top of a host, so that it
/// belongs to a site that has a base path, too.
const ACME_CHALLENGE: &[u8] = b".well-known/acme-challenge/";

/// The path below which a site answers: `/app`, or nothing where the whole host is the site's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BasePath {
    /// Decoded, without a slash at either end.
    path: Box<[u8]>,
    /// As a URL has it, with a slash at both ends.
    home: Box<str>,
}

impl Default for BasePath {
    fn default() -> Self {
        Self {
            path: Box::default(),
            home: "/".into(),
        }
    }
}

/// `/app`; nothing for the whole host.
impl fmt::Display for BasePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.home.trim_end_matches('/'))
    }
}

/// Why a text is no [`BasePath`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvalidBasePath {
    /// It does not begin with a slash.
    #[error("expected a path that begins with a slash, such as /app")]
    Relative,
    /// It has a query or a fragment.
    #[error("expected a path without ? and #")]
    Query,
    /// It has a character that a URL must escape.
    #[error("expected a path as URLs have it, with %20 for a space")]
    Unescaped,
    /// It has `.` or `..` for a name, which clients take out of a URL before they ask.
    #[error("expected a path without . and ..")]
    DotSegment,
    /// It has two slashes next to each other.
    #[error("expected one slash between two names")]
    EmptySegment,
    /// No request could have it.
    #[error(transparent)]
    Target(#[from] BadTarget),
}

impl FromStr for BasePath {
    type Err = InvalidBasePath;

    fn from_str(text: &str) -> Result<Self, InvalidBasePath> {
        if !text.starts_with('/') {
            return Err(InvalidBasePath::Relative);
        }
        if text.contains(['?', '#']) {
            return Err(InvalidBasePath::Query);
        }
        let uri: Uri = text.parse().map_err(|_| InvalidBasePath::Unescaped)?;
        let target = Target::parse(&uri).map_err(|bad| match bad {
            BadTarget::DotSegment => InvalidBasePath::DotSegment,
            bad => bad.into(),
        })?;
        if target.collapsed().is_some() {
            return Err(InvalidBasePath::EmptySegment);
        }
        let path = target.path();
        let path = path.strip_suffix(b"/").unwrap_or(path);
        Ok(match path {
            [] => Self::default(),
            path => Self {
                path: path.into(),
                home: format!("/{}/", encode_path(path)).into(),
            },
        })
    }
}

/// Where a target leads, seen from a site.
#[derive(Debug)]
pub enum Entrance<'a> {
    /// Into the site: its path is one of the site now.
    Site(Target<'a>),
    /// To the base path itself, without the slash that its first page has.
    Bare(Target<'a>),
    /// Past the site.
    Elsewhere,
}

impl BasePath {
    /// Whether the whole host is the site's.
    #[must_use]
    pub fn is_whole_host(&self) -> bool {
        self.path.is_empty()
    }

    /// Decoded, without a slash at either end.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// The path of the site's first page on its host, as a URL has it: `/app/`.
    #[must_use]
    pub fn home(&self) -> &str {
        &self.home
    }

    /// The path on the host of a path of the site, which is decoded, without a leading slash.
    #[must_use]
    pub fn url(&self, path: &[u8]) -> String {
        format!("{}{}", self.home, encode_path(path))
    }

    /// Takes the base path off a target. One with empty segments keeps an empty one, so that it is told
    /// from the path that it means ([`Target::collapsed`]).
    #[must_use]
    pub fn enter<'a>(&self, target: Target<'a>) -> Entrance<'a> {
        if self.is_whole_host() || target.path().starts_with(ACME_CHALLENGE) {
            return Entrance::Site(target);
        }
        if let Some(below) = self.below(target.path()) {
            let inside = |path| self.path_below(path).unwrap_or_default();
            return match below {
                [] => Entrance::Bare(target),
                _ => Entrance::Site(target.map_path(|path| match path {
                    Cow::Borrowed(path) => Cow::Borrowed(inside(path)),
                    Cow::Owned(path) => {
                        Cow::Owned(self.path_below(&path).unwrap_or_default().into())
                    }
                })),
            };
        }
        let collapsed = target.collapsed();
        match collapsed.as_deref().and_then(|path| self.below(path)) {
            None => Entrance::Elsewhere,
            Some([]) => Entrance::Bare(target),
            Some(below) => {
                let below = below.to_vec();
                Entrance::Site(target.map_path(|_| Cow::Owned(below)))
            }
        }
    }

    /// The path of the site that a path on the host means, both decoded and without a leading slash;
    /// `None` where it leads elsewhere.
    #[must_use]
    pub fn path_below<'p>(&self, path: &'p [u8]) -> Option<&'p [u8]> {
        if self.is_whole_host() {
            return Some(path);
        }
        let below = self.below(path)?;
        Some(below.strip_prefix(b"/").unwrap_or(below))
    }

    /// What of a path comes after the base path: nothing, or a slash and more.
    fn below<'p>(&self, path: &'p [u8]) -> Option<&'p [u8]> {
        let below = path.strip_prefix(&*self.path)?;
        matches!(below, [] | [b'/', ..]).then_some(below)
    }

    /// A Location, with the base path in front of it where it is a path of the site. Relative ones are
    /// right as they are, and those of other hosts are none of the site's.
    #[must_use]
    pub fn lead(&self, location: String) -> String {
        match location.strip_prefix('/') {
            Some(path) if !self.is_whole_host() && !path.starts_with('/') => {
                format!("{}{path}", self.home)
            }
            _ => location,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(text: &str) -> BasePath {
        text.parse()
            .unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn base_paths() {
        for (text, shown, home) in [
            ("/", "", "/"),
            ("/app", "/app", "/app/"),
            ("/app/", "/app", "/app/"),
            ("/a/b", "/a/b", "/a/b/"),
            ("/caf\u{e9}", "/caf%C3%A9", "/caf%C3%A9/"),
            ("/caf%c3%a9", "/caf%C3%A9", "/caf%C3%A9/"),
            ("/~user", "/~user", "/~user/"),
        ] {
            let base = base(text);
            assert_eq!((base.to_string().as_str(), base.home()), (shown, home));
            assert_eq!(base.url(b"a b/c"), format!("{home}a%20b/c"));
        }
        for text in [
            "",
            "app",
            "app/",
            "http://h/app",
            "//app",
            "/a//b",
            "/app//",
            "/..",
            "/a/./b",
            "/a%2Fb",
            "/a?b",
            "/a#b",
            "/%zz",
            "/a b",
            "*",
        ] {
            assert!(text.parse::<BasePath>().is_err(), "{text:?}");
        }
    }

    /// `= path` in the site, with `collapsed` where it has empty segments; `bare` or `elsewhere`.
    fn entered(base: &BasePath, target: &str) -> String {
        let uri = target.parse().expect("a URI");
        match base.enter(Target::parse(&uri).expect("a target")) {
            Entrance::Site(target) => {
                let shown = |path: &[u8]| path.escape_ascii().to_string();
                let collapsed = target.collapsed().map(|path| shown(&path));
                let collapsed = collapsed.map(|path| format!(" collapsed {path}"));
                format!(
                    "= {}{}",
                    shown(target.path()),
                    collapsed.unwrap_or_default()
                )
            }
            Entrance::Bare(_) => "bare".to_owned(),
            Entrance::Elsewhere => "elsewhere".to_owned(),
        }
    }

    #[test]
    fn targets_enter_the_site() {
        for (target, expected) in [
            ("/app/", "= "),
            ("/app/x/y", "= x/y"),
            ("/%61pp/%78?q", "= x"),
            ("/app/app", "= app"),
            ("/app", "bare"),
            ("/app?q", "bare"),
            ("//app", "bare"),
            ("/app//", "= / collapsed "),
            ("/app//x", "= /x collapsed x"),
            ("//app/x", "= /x collapsed x"),
            ("//app//x//", "= /x/ collapsed x/"),
            ("/", "elsewhere"),
            ("/x", "elsewhere"),
            ("/application", "elsewhere"),
            ("/APP/", "elsewhere"),
            ("/x/app/", "elsewhere"),
            ("//x//app", "elsewhere"),
            (
                "/.well-known/acme-challenge/token",
                "= .well-known/acme-challenge/token",
            ),
            ("/.well-known/security.txt", "elsewhere"),
        ] {
            assert_eq!(entered(&base("/app"), target), expected, "{target}");
        }
        assert_eq!(entered(&base("/a/b"), "/a//b/x"), "= /x collapsed x");
        assert_eq!(entered(&base("/a/b"), "/a"), "elsewhere");
        for target in ["/", "/x", "//app", "/app//x"] {
            let uri = target.parse().expect("a URI");
            let plain = Target::parse(&uri).expect("a target");
            let path = plain.path().escape_ascii().to_string();
            let entered = entered(&base("/"), target);
            assert!(entered.starts_with(&format!("= {path}")), "{target}");
        }
    }

    #[test]
    fn locations_lead_into_the_site() {
        let (app, root) = (base("/app"), base("/"));
        for (location, expected) in [
            ("/x?y", "/app/x?y"),
            ("/", "/app/"),
            ("x/", "x/"),
            ("../x", "../x"),
            ("./", "./"),
            ("https://h/x", "https://h/x"),
            ("//h/x", "//h/x"),
        ] {
            assert_eq!(app.lead(location.to_owned()), expected);
            assert_eq!(root.lead(location.to_owned()), location);
        }
    }
}

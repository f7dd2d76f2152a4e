//! What a developer's server does in addition to serving.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use http::Uri;
use http::uri::{Authority, PathAndQuery, Scheme};

/// What `etagd dev` does in addition to serving.
#[derive(Clone, Debug)]
pub struct DevOptions {
    /// The port, or the first that is tried.
    pub port: u16,
    /// Whether that port is the only one to try.
    pub is_strict: bool,
    /// Whether to listen on all addresses.
    pub all_addresses: bool,
    /// Names that requests may use, in addition to those of this machine.
    pub allowed: Vec<AllowedHost>,
    /// Whether to open a browser.
    pub opens: bool,
    /// Whether pages reload by themselves.
    pub reloads: bool,
    /// Whether to show warnings and errors only.
    pub quiet: bool,
    /// Whether pages of all origins may read everything.
    pub cors: bool,
    /// Whether pages are isolated from other origins.
    pub is_isolated: bool,
    /// Other servers, and what they are asked for.
    pub upstreams: Vec<Upstream>,
    /// How long to wait for the head of their responses.
    pub upstream_timeout: Duration,
    /// Whose certificate is shown, if TLS is spoken.
    pub tls: Option<Certificate>,
}

/// Whose certificate a developer's server shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Certificate {
    /// One that etagd has made for this machine, signed by no authority.
    OwnMade,
}

impl Certificate {
    /// The value as it is typed after `--tls`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OwnMade => "self",
        }
    }
}

/// Another server, and what it is asked for in place of the site.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Upstream {
    /// The path, without a slash at its end, that it and all below it are asked for.
    pub prefix: String,
    /// Host and port of the server, which speaks HTTP without TLS.
    pub authority: Authority,
}

impl Upstream {
    /// Whether it is asked for `path`, which begins with a slash.
    pub fn answers(&self, path: &str) -> bool {
        let below = path.strip_prefix(&self.prefix);
        below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// Why a text is no [`Upstream`].
#[derive(PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvalidUpstream {
    /// No `=`, or no URL after it.
    #[error("expected PREFIX=URL, such as /api=http://localhost:3000")]
    Syntax,
    /// The part before the `=` is no path.
    #[error("the prefix must be a path, such as /api")]
    Prefix,
    /// The URL is not one of plain HTTP.
    #[error("the URL must begin with http://: etagd speaks no TLS to other servers")]
    Scheme,
    /// The URL has a path: requests keep their own.
    #[error("the URL must have no path: paths are passed on unchanged")]
    Path,
    /// `user:password@` before the host.
    #[error("the URL must not have a user")]
    Credentials,
}

impl FromStr for Upstream {
    type Err = InvalidUpstream;

    fn from_str(text: &str) -> Result<Self, InvalidUpstream> {
        let (prefix, url) = text.split_once('=').ok_or(InvalidUpstream::Syntax)?;
        if !prefix.starts_with('/') || prefix.contains(['?', '#']) {
            return Err(InvalidUpstream::Prefix);
        }
        let url: Uri = url.parse().map_err(|_| InvalidUpstream::Syntax)?;
        if url.scheme() != Some(&Scheme::HTTP) {
            return Err(InvalidUpstream::Scheme);
        }
        let path = url.path_and_query().map(PathAndQuery::as_str);
        if !matches!(path, None | Some("/")) {
            return Err(InvalidUpstream::Path);
        }
        let authority = url.authority().ok_or(InvalidUpstream::Syntax)?;
        if authority.as_str().contains('@') {
            return Err(InvalidUpstream::Credentials);
        }
        Ok(Self {
            prefix: prefix.trim_end_matches('/').to_owned(),
            authority: authority.clone(),
        })
    }
}

/// A name that requests may use, or `*.` and a name for all below it. Letters stand for either case.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AllowedHost {
    name: String,
    is_above: bool,
}

impl AllowedHost {
    /// Whether it is this name, in lower case.
    pub fn matches(&self, host: &str) -> bool {
        match host.strip_suffix(&self.name) {
            Some(rest) if self.is_above => rest.len() > 1 && rest.ends_with('.'),
            Some(rest) => rest.is_empty(),
            None => false,
        }
    }
}

/// As it was typed, in lower case.
impl fmt::Display for AllowedHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let above = if self.is_above { "*." } else { "" };
        write!(f, "{above}{}", self.name)
    }
}

/// A text is no [`AllowedHost`].
#[derive(PartialEq, Eq, Debug, thiserror::Error)]
#[error("expected a name without a port, such as dev.example or *.test")]
pub struct InvalidHost;

impl FromStr for AllowedHost {
    type Err = InvalidHost;

    fn from_str(text: &str) -> Result<Self, InvalidHost> {
        let (name, is_above) = match text.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (text, false),
        };
        let has_only_name_bytes = name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if name.is_empty() || name.starts_with('.') || !has_only_name_bytes {
            return Err(InvalidHost);
        }
        Ok(Self {
            name: name.to_ascii_lowercase(),
            is_above,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams() {
        let upstream: Upstream = "/api/=http://localhost:3000/".parse().unwrap();
        assert_eq!(upstream.authority.as_str(), "localhost:3000");
        for (path, is_answered) in [
            ("/api", true),
            ("/api/", true),
            ("/api/users", true),
            ("/apis", false),
            ("/", false),
        ] {
            assert_eq!(upstream.answers(path), is_answered, "{path}");
        }
        let all: Upstream = "/=http://[::1]:1".parse().unwrap();
        assert!(all.answers("/") && all.answers("/anything"));
        for text in [
            "",
            "/api",
            "api=http://localhost",
            "/api=https://localhost",
            "/api=localhost:3000",
            "/api=http://",
            "/api=http://localhost/v1",
            "/api=http://localhost/?q",
            "/api=http://user:pass@localhost",
        ] {
            assert!(text.parse::<Upstream>().is_err(), "{text}");
        }
    }
}

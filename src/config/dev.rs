//! `etagd dev`: its flags, and what they mean.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};
use http::Uri;
use http::uri::{Authority, PathAndQuery, Scheme};

use super::clients::{AccessLogForm, ProxyOptions};
use super::operator::{Operator, StatusOptions};
use super::serve::{Config, Limits, WatchOptions, budget, cores};
use super::site::{Additions, Settings, SiteFlags};

/// The first port that is tried.
const PORT: u16 = 8080;

/// `etagd dev`.
#[derive(Debug, Args)]
pub struct Dev {
    /// Which site, and how its files are looked at.
    #[command(flatten)]
    pub site: SiteFlags,
    /// The port, or the next one that is free [default: PORT in the environment, or 8080]
    #[arg(long, value_name = "N", env = "ETAGD_PORT", hide_env = true)]
    pub port: Option<u16>,
    /// What other tools use to say the same.
    #[arg(
        long = "port-of-environment",
        value_name = "N",
        env = "PORT",
        hide = true
    )]
    pub usual_port: Option<u16>,
    /// That port or none
    #[arg(long, env = "ETAGD_STRICT_PORT", hide_env = true, value_parser = BoolishValueParser::new())]
    pub strict_port: bool,
    /// Listen on all addresses, for a phone on the same network
    #[arg(long, env = "ETAGD_HOST", hide_env = true, value_parser = BoolishValueParser::new())]
    pub host: bool,
    /// A name that requests may use, such as dev.example or '*.test'; repeatable
    #[arg(
        long,
        value_name = "NAME",
        env = "ETAGD_ALLOW_HOST",
        hide_env = true,
        value_delimiter = ','
    )]
    pub allow_host: Vec<AllowedHost>,
    /// Open the site in the browser
    #[arg(long, env = "ETAGD_OPEN", hide_env = true, value_parser = BoolishValueParser::new())]
    pub open: bool,
    /// Serve the plain files: pages don't reload by themselves
    #[arg(long, env = "ETAGD_NO_RELOAD", hide_env = true, value_parser = BoolishValueParser::new())]
    pub no_reload: bool,
    /// Let pages of all origins read everything
    #[arg(long, env = "ETAGD_CORS", hide_env = true, value_parser = BoolishValueParser::new())]
    pub cors: bool,
    /// Isolate pages from other origins, for threads in wasm (COOP and COEP)
    #[arg(long, env = "ETAGD_CROSS_ORIGIN_ISOLATION", hide_env = true, value_parser = BoolishValueParser::new())]
    pub cross_origin_isolation: bool,
    /// Ask another server for what is below a path: PREFIX=URL, such as
    /// /api=http://localhost:3000; repeatable
    #[arg(
        long,
        value_name = "PREFIX=URL",
        env = "ETAGD_PROXY",
        hide_env = true,
        value_delimiter = ','
    )]
    pub proxy: Vec<Upstream>,
    /// Speak TLS, with a certificate that etagd has made: self
    #[arg(long, value_name = "WHOSE", env = "ETAGD_TLS", hide_env = true)]
    pub tls: Option<Certificate>,
    /// Budget for content [default: a quarter of RAM]
    #[arg(
        long,
        value_name = "SIZE",
        hide_short_help = true,
        env = "ETAGD_MEMORY",
        hide_env = true
    )]
    pub memory: Option<ByteSize>,
    /// Show only what goes wrong
    #[arg(short, long, env = "ETAGD_QUIET", hide_env = true, value_parser = BoolishValueParser::new())]
    pub quiet: bool,
}

/// What `etagd dev` does beside serving.
#[derive(Clone, Debug)]
pub struct DevOptions {
    /// The port, or the first that is tried.
    pub port: u16,
    /// Whether others may be tried.
    pub is_strict: bool,
    /// Whether to listen on all addresses.
    pub all_addresses: bool,
    /// Names that requests may use, beside those of this machine.
    pub allowed: Vec<AllowedHost>,
    /// Whether to open a browser.
    pub opens: bool,
    /// Whether pages reload by themselves.
    pub reloads: bool,
    /// Whether to show only what goes wrong.
    pub quiet: bool,
    /// Whether pages of all origins may read everything.
    pub cors: bool,
    /// Whether pages are isolated from other origins.
    pub is_isolated: bool,
    /// Other servers, and what they are asked for.
    pub upstreams: Vec<Upstream>,
    /// Whose certificate is shown, if TLS is spoken.
    pub tls: Option<Certificate>,
}

impl Dev {
    /// What they mean. `tail` is added to documents, if they are to reload.
    pub fn config(self, tail: &'static str) -> Config {
        let settings = Settings {
            additions: Additions {
                listing: true,
                tail: (!self.no_reload).then_some(tail),
            },
            ..self.site.handling.settings()
        };
        Config {
            directory: self.site.directory,
            symlinks: self.site.handling.symlinks,
            settings: Arc::new(settings),
            listen: Vec::new(),
            open_files: None,
            memory: budget(self.memory),
            workers: cores().min(4),
            watching: WatchOptions {
                settle: Duration::from_millis(20),
                sweep: Duration::from_secs(60),
                scrub: None,
                // A build may be about to write it again.
                keep_old: Some(Duration::from_secs(1)),
            },
            manifest: None,
            on_publish: None,
            state: None,
            tls: None,
            writing: None,
            operator: Operator {
                admin: Vec::new(),
                expect: None,
                expect_always: false,
                disclosure: StatusOptions::default(),
                drain: None,
                reuse_port: false,
            },
            clients: ProxyOptions {
                access_log: AccessLogForm::Off,
                trusted_proxy: Vec::new(),
                proxy_protocol: false,
            },
            limits: Limits {
                grace: Duration::from_secs(1),
                max_connections: 10_000,
                header_timeout: Duration::from_secs(10),
                idle_timeout: Duration::from_secs(75),
                write_timeout: Duration::from_secs(60),
                // Cookies of all that ever ran on localhost.
                max_header_size: ByteSize::kib(64),
            },
            dev: Some(DevOptions {
                port: self.port.or(self.usual_port).unwrap_or(PORT),
                is_strict: self.strict_port,
                all_addresses: self.host,
                allowed: self.allow_host,
                opens: self.open,
                reloads: !self.no_reload,
                quiet: self.quiet,
                cors: self.cors,
                is_isolated: self.cross_origin_isolation,
                upstreams: self.proxy,
                tls: self.tls,
            }),
        }
    }
}

/// Whose certificate a developer's server shows.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
pub enum Certificate {
    /// One that etagd has made for this machine, and that nobody vouches for.
    #[value(name = "self")]
    OwnMade,
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

impl FromStr for Upstream {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "PREFIX=URL is expected, such as /api=http://localhost:3000";
        let (prefix, url) = text.split_once('=').ok_or(EXPECTED)?;
        if !prefix.starts_with('/') || prefix.contains(['?', '#']) {
            return Err("the prefix is a path, such as /api");
        }
        let url: Uri = url.parse().map_err(|_| EXPECTED)?;
        if url.scheme() != Some(&Scheme::HTTP) {
            return Err("the URL begins with http://: other servers are asked without TLS");
        }
        if !matches!(
            url.path_and_query().map(PathAndQuery::as_str),
            None | Some("/")
        ) {
            return Err("the URL has no path of its own: paths are passed on as they are");
        }
        let authority = url.authority().ok_or(EXPECTED)?;
        if authority.as_str().contains('@') {
            return Err("the URL names no user");
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

impl FromStr for AllowedHost {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, is_above) = match text.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (text, false),
        };
        let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.starts_with('.') || !name.bytes().all(is_name_byte) {
            return Err("a name without a port is expected, such as dev.example or *.test");
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

//! The operator's side of a process: what is seen of it, and how it comes and goes.

use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;

use super::values::{Listen, duration};

/// The operator's side of a process.
#[derive(Clone, Debug, Args)]
pub struct Operator {
    /// Where the operator is answered: /readyz, /metrics, ...; repeatable
    #[arg(
        long,
        value_name = "ADDR",
        env = "ETAGD_ADMIN",
        hide_env = true,
        value_delimiter = ','
    )]
    pub admin: Vec<Listen>,
    /// Not ready until the site digest has once been this one
    #[arg(long, value_name = "DIGEST", env = "ETAGD_EXPECT", hide_env = true)]
    pub expect: Option<Digest>,
    /// Not ready whenever the site digest is another
    #[arg(long, requires_if("true", "expect"), hide_short_help = true, env = "ETAGD_EXPECT_ALWAYS", hide_env = true, value_parser = BoolishValueParser::new())]
    pub expect_always: bool,
    /// What the public port says beside the site.
    #[command(flatten)]
    pub disclosure: StatusOptions,
    /// Time to go on serving after SIGTERM [default: 5s if visible]
    #[arg(long, value_name = "TIME", env = "ETAGD_DRAIN", hide_env = true, value_parser = duration)]
    pub drain: Option<Duration>,
    /// Let another process listen on the same addresses
    #[arg(long, hide_short_help = true, env = "ETAGD_REUSE_PORT", hide_env = true, value_parser = BoolishValueParser::new())]
    pub reuse_port: bool,
}

impl Operator {
    /// The site that is expected, if any.
    pub fn expectation(&self) -> Option<Expectation> {
        let always = self.expect_always;
        self.expect.map(|digest| Expectation { digest, always })
    }

    /// How long SIGTERM goes on serving. `has_admin` says that an admin listener was inherited:
    /// where nobody can see that this process is not ready, waiting helps nobody.
    pub fn drain(&self, has_admin: bool) -> Duration {
        const DEFAULT: Duration = Duration::from_secs(5);
        let is_seen = has_admin || !self.admin.is_empty() || self.disclosure.health.is_some();
        self.drain
            .unwrap_or(if is_seen { DEFAULT } else { Duration::ZERO })
    }
}

/// The site that the operator expects.
#[derive(Clone, Copy, Debug)]
pub struct Expectation {
    /// Its digest.
    pub digest: Digest,
    /// Whether it must hold all the time. Else once is enough: a deploy in place must not take a
    /// whole fleet out of service.
    pub always: bool,
}

/// What the public port says beside the site.
#[derive(Clone, Debug, Default, Args)]
pub struct StatusOptions {
    /// Send the site digest in a field Etagd-Digest
    #[arg(long, hide_short_help = true, env = "ETAGD_DIGEST_HEADER", hide_env = true, value_parser = BoolishValueParser::new())]
    pub digest_header: bool,
    /// Answer 200 to this path, and 503 while draining
    #[arg(long, value_name = "PATH", env = "ETAGD_HEALTH", hide_env = true)]
    pub health: Option<HealthPath>,
}

/// The hash of a site, as `etagd manifest --digest` prints it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Digest(blake3::Hash);

impl Digest {
    /// The hash itself.
    pub fn hash(&self) -> &blake3::Hash {
        &self.0
    }
}

impl FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.ends_with("-incomplete") {
            return Err("an incomplete digest names no state of a site".to_owned());
        }
        let expected =
            |_| "64 hexadecimal digits are expected, as etagd manifest --digest prints them";
        let hash = blake3::Hash::from_hex(text).map_err(expected)?;
        Ok(Self(hash))
    }
}

/// A path as it stands in a request, compared byte by byte.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HealthPath(String);

impl HealthPath {
    /// The path, with its slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HealthPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_path = |byte: u8| byte.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&byte);
        if text.starts_with('/') && text.len() > 1 && text.bytes().all(is_path) {
            Ok(Self(text.to_owned()))
        } else {
            Err("a path such as /healthz is expected, without a query".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests() {
        let hex = blake3::hash(b"site").to_hex().to_string();
        assert_eq!(hex.parse::<Digest>(), Ok(Digest(blake3::hash(b"site"))));
        assert_eq!(hex.to_uppercase().parse::<Digest>(), hex.parse());
        for bad in [
            "",
            "abc",
            &hex[1..],
            &format!("{hex}0"),
            &hex.replace(&hex[..1], "g"),
        ] {
            let error = bad.parse::<Digest>().expect_err(bad);
            assert!(error.contains("64 hexadecimal digits"), "{error}");
        }
        let error = format!("{hex}-incomplete").parse::<Digest>();
        assert!(error.is_err_and(|error| error.contains("incomplete")));
    }

    #[test]
    fn health_paths() {
        for good in ["/healthz", "/-/alive", "/a%20b"] {
            assert_eq!(good.parse(), Ok(HealthPath(good.to_owned())));
        }
        for bad in [
            "",
            "/",
            "healthz",
            "/a b",
            "/a?b",
            "/a#b",
            "/\u{e9}",
            "http://a/b",
        ] {
            assert!(bad.parse::<HealthPath>().is_err(), "{bad:?}");
        }
    }
}

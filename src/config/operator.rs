//! The operator's side of a process: what is seen of it, and how it comes and goes.

use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;

use super::values::duration;
use crate::settings::{AllowedHost, Digest, Expectation, HealthPath, Listen, StatusOptions};

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
    /// Name by which the admin listener may be requested on a loopback address; repeatable
    #[arg(
        long,
        value_name = "NAME",
        hide_short_help = true,
        env = "ETAGD_ALLOW_HOST",
        hide_env = true,
        value_delimiter = ','
    )]
    pub allow_host: Vec<AllowedHost>,
    /// Not ready until the site digest has once been this one
    #[arg(long, value_name = "DIGEST", env = "ETAGD_EXPECT", hide_env = true)]
    pub expect: Option<Digest>,
    /// Not ready whenever the site digest is another
    #[arg(long, requires_if("true", "expect"), hide_short_help = true, env = "ETAGD_EXPECT_ALWAYS", hide_env = true, value_parser = BoolishValueParser::new())]
    pub expect_always: bool,
    /// What the public port says in addition to the site.
    #[command(flatten)]
    pub disclosure: StatusFlags,
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

    /// How long to go on serving after SIGTERM. `has_admin` says whether an admin listener was
    /// inherited: without one, and without `--health`, no balancer can see that this process is not
    /// ready, so waiting would be in vain.
    pub fn drain(&self, has_admin: bool) -> Duration {
        const DEFAULT_DRAIN: Duration = Duration::from_secs(5);
        let is_seen = has_admin || !self.admin.is_empty() || self.disclosure.health.is_some();
        self.drain.unwrap_or(if is_seen {
            DEFAULT_DRAIN
        } else {
            Duration::ZERO
        })
    }
}

/// What the public port says in addition to the site.
#[derive(Clone, Debug, Default, Args)]
pub struct StatusFlags {
    /// Send the site digest in a field Etagd-Digest
    #[arg(long, hide_short_help = true, env = "ETAGD_DIGEST_HEADER", hide_env = true, value_parser = BoolishValueParser::new())]
    pub digest_header: bool,
    /// Answer 200 to this path, and 503 while draining
    #[arg(long, value_name = "PATH", env = "ETAGD_HEALTH", hide_env = true)]
    pub health: Option<HealthPath>,
}

impl From<StatusFlags> for StatusOptions {
    fn from(flags: StatusFlags) -> Self {
        Self {
            digest_header: flags.digest_header,
            health: flags.health,
        }
    }
}

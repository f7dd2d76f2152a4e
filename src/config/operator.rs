//! The operator's side of a process: what is seen of it, and how it comes and goes.

use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;

use super::values::{TRUE_WORDS, duration};
use crate::settings::{AllowedHost, Digest, Expectation, HealthPath, Listen, StatusOptions};

/// The operator's side of a process.
#[derive(Clone, Debug, Args)]
pub struct Operator {
    /// Address of the admin listener (/readyz, /metrics, ...); repeatable.
    ///
    /// Serves /livez, /readyz, /healthz, /digest, /manifest and /metrics to supervisors, balancers
    /// and Prometheus. Keep it off public networks.
    #[arg(long, value_name = "ADDR", value_delimiter = ',')]
    pub admin: Vec<Listen>,
    /// Name by which the admin listener may be requested on a loopback address; repeatable.
    ///
    /// A page whose name was pointed at this machine could read it otherwise. Addresses, `localhost`
    /// and its subdomains always work, and a listener on another address takes any name.
    #[arg(
        long,
        value_name = "NAME",
        value_delimiter = ',',
        hide_short_help = true
    )]
    pub allow_host: Vec<AllowedHost>,
    /// Report ready only once the site digest matches.
    ///
    /// A replica then gets no traffic before it has the release that you want. `etagd manifest
    /// --digest` prints a directory's digest.
    #[arg(long, value_name = "DIGEST", hide_short_help = true)]
    pub expect: Option<Digest>,
    /// Report not ready whenever the site digest does not match --expect.
    ///
    /// Without it, matching once is enough.
    #[arg(long,
        requires_ifs = TRUE_WORDS.map(|word| (word, "expect")),
        value_parser = BoolishValueParser::new(), hide_short_help = true)]
    pub expect_always: bool,
    /// What the public port says in addition to the site.
    #[command(flatten)]
    pub disclosure: StatusFlags,
    /// Keep serving this long after SIGTERM [default: 5s with --admin or --health].
    ///
    /// Balancers need this time to notice that /readyz fails: the interval of their checks, times
    /// the failures that they wait for.
    #[arg(long, value_name = "TIME", value_parser = duration, hide_short_help = true)]
    pub drain: Option<Duration>,
    /// Let another process listen on the same addresses.
    ///
    /// For a hand-over without a pause: start the new process, then stop the old one.
    #[arg(long, value_parser = BoolishValueParser::new(), hide_short_help = true, help_heading = "Listening")]
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
    /// Send the site digest in the field Etagd-Digest.
    ///
    /// Shows which release answered, also through caches and balancers.
    #[arg(long, value_parser = BoolishValueParser::new(), hide_short_help = true)]
    pub digest_header: bool,
    /// Answer health checks on this path of the public listener.
    ///
    /// 200, and 503 while draining: for balancers that cannot reach the admin listener.
    #[arg(long, value_name = "PATH", hide_short_help = true)]
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

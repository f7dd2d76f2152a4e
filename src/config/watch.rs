//! How changes of the site are noticed and published.

use std::time::Duration;

use clap::Args;

use super::values::{duration, positive_duration};

/// How changes of the site are noticed and published.
#[derive(Clone, Debug, Args)]
pub struct WatchOptions {
    /// Quiet time before a change is published
    #[arg(long, value_name = "TIME", default_value = "100ms", env = "ETAGD_SETTLE", hide_env = true, value_parser = duration)]
    pub settle: Duration,
    /// How often everything is compared with the disk
    #[arg(long, value_name = "TIME", default_value = "60s", env = "ETAGD_SWEEP", hide_env = true, value_parser = positive_duration)]
    pub sweep: Duration,
    /// How often every file is read again [default: never]
    #[arg(long, value_name = "TIME", hide_short_help = true, env = "ETAGD_SCRUB", hide_env = true, value_parser = positive_duration)]
    pub scrub: Option<Duration>,
    /// How long removed files, not HTML, are still answered [default: not]
    #[arg(long, value_name = "TIME", env = "ETAGD_KEEP_OLD", hide_env = true, value_parser = duration)]
    pub keep_old: Option<Duration>,
}

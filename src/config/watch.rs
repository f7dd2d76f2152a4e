//! How changes of the site are noticed and published.

use std::time::Duration;

use clap::Args;

use super::values::{duration, positive_duration};

/// How changes of the site are noticed and published.
#[derive(Clone, Debug, Args)]
pub struct WatchOptions {
    /// Publish a change once the site has been unchanged for this long.
    ///
    /// A deployment of many files is then published as one change. It waits for 2s at most, so
    /// larger values are of no use; a file .etagd-hold in the site, or --manifest, holds a slower
    /// deployment back.
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = duration, hide_short_help = true)]
    pub settle: Duration,
    /// How often to compare the whole site with the disk.
    ///
    /// Finds changes that the system did not report. Files whose size and times are the same are not
    /// read. Network file systems, FUSE and overlays report little, and are compared every 3s. A
    /// sweep that takes long is repeated more rarely.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = positive_duration, hide_short_help = true)]
    pub sweep: Duration,
    /// How often to read every file again [default: never].
    ///
    /// Finds content that changed while size and times did not, as on a failing disk.
    #[arg(long, value_name = "TIME", value_parser = positive_duration, hide_short_help = true)]
    pub scrub: Option<Duration>,
    /// Keep serving removed files (except HTML) for this long [default: off].
    ///
    /// A page that was loaded just before a deployment still finds its scripts and images.
    #[arg(long, value_name = "TIME", value_parser = duration, hide_short_help = true)]
    pub keep_old: Option<Duration>,
}

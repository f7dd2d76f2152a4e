//! `etagd check`: its flags.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::Args;
use clap::builder::BoolishValueParser;

use super::offline::ManifestFormat;
use super::site::SiteOptions;
use super::values::{at_least_one, positive_duration, size, threads};
use crate::settings::ReplicaUrl;

/// `etagd check`.
#[derive(Debug, Args)]
#[command(
    after_help = "A URL that answers /manifest as an --admin listener does is compared by its \
                        manifest, any other one by asking for each path that the manifest or the \
                        directory has. Exit code 0 tells that all agree, 1 that they differ or \
                        cannot be reached."
)]
pub struct CheckFlags {
    /// The replicas: http or https, HOST, port and perhaps a prefix
    #[arg(value_name = "URL", required = true)]
    pub replicas: Vec<ReplicaUrl>,
    /// Compare with what this directory holds
    #[arg(long, value_name = "DIR", env = "ETAGD_DIR", hide_env = true)]
    pub dir: Option<PathBuf>,
    /// Compare with what this manifest in JSON lists (- for standard input)
    #[arg(
        long,
        value_name = "FILE",
        env = "ETAGD_MANIFEST",
        hide_env = true,
        conflicts_with = "dir"
    )]
    pub manifest: Option<PathBuf>,
    /// Ask for no manifest, even if there is a file of that name
    #[arg(long, env = "ETAGD_PUBLIC", hide_env = true, value_parser = BoolishValueParser::new())]
    pub public: bool,
    /// Ask for N paths only, evenly spread, where paths are asked for
    #[arg(long, value_name = "N", env = "ETAGD_SAMPLE", hide_env = true, value_parser = at_least_one)]
    pub sample: Option<usize>,
    /// Fetch and hash the bodies too, where paths are asked for
    #[arg(long, env = "ETAGD_BODY", hide_env = true, value_parser = BoolishValueParser::new())]
    pub body: bool,
    /// Wait until all agree, for this long at most
    #[arg(long, value_name = "TIME", env = "ETAGD_WAIT", hide_env = true, value_parser = positive_duration)]
    pub wait: Option<Duration>,
    /// Time for an answer to begin, and for more of it to come
    #[arg(long, value_name = "TIME", default_value = "10s", env = "ETAGD_TIMEOUT", hide_env = true, value_parser = positive_duration)]
    pub timeout: Duration,
    /// Connections at once to each replica
    #[arg(long, value_name = "N", default_value_t = 8, env = "ETAGD_CONNECTIONS", hide_env = true, value_parser = threads)]
    pub connections: usize,
    /// Most bytes of a manifest
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "1GiB",
        env = "ETAGD_MAX_SIZE",
        hide_env = true,
        value_parser = size
    )]
    pub max_size: ByteSize,
    /// Trust the certificate authorities in this PEM file [default: those of the system]
    #[arg(long, value_name = "FILE", env = "ETAGD_CA", hide_env = true)]
    pub ca: Option<PathBuf>,
    /// Show every difference, not the first 20 of each replica
    #[arg(long, env = "ETAGD_ALL", hide_env = true, value_parser = BoolishValueParser::new())]
    pub all: bool,
    /// Form of the output
    #[arg(
        long,
        value_enum,
        default_value_t,
        value_name = "FORM",
        env = "ETAGD_FORMAT",
        hide_env = true
    )]
    pub format: ManifestFormat,
    /// How --dir is served.
    #[command(flatten, next_help_heading = "How --dir is served")]
    pub handling: SiteOptions,
}

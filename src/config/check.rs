//! `etagd check`: its flags.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::Args;
use clap::builder::BoolishValueParser;

use super::compression::CompressionFlags;
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
    /// Replicas: http or https URLs, perhaps with a port and a prefix
    #[arg(value_name = "URL", required = true)]
    pub replicas: Vec<ReplicaUrl>,
    /// Compare with this directory
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Compare with this JSON manifest (- for standard input)
    #[arg(long, value_name = "FILE", conflicts_with = "dir")]
    pub manifest: Option<PathBuf>,
    /// Ask for no manifest, even if there is a file with that name
    #[arg(long, value_parser = BoolishValueParser::new(), hide_short_help = true)]
    pub public: bool,
    /// Ask for N evenly spread paths only, where paths are asked for
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub sample: Option<usize>,
    /// Also fetch and hash bodies, where paths are asked for
    #[arg(long, value_parser = BoolishValueParser::new())]
    pub body: bool,
    /// Wait until all agree, for at most this long
    #[arg(long, value_name = "TIME", value_parser = positive_duration)]
    pub wait: Option<Duration>,
    /// Time for a response to begin, and for each further part of it
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = positive_duration, hide_short_help = true)]
    pub timeout: Duration,
    /// Connections at a time to each replica
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = threads, hide_short_help = true)]
    pub connections: usize,
    /// Largest manifest to accept
    #[arg(long,
        value_name = "SIZE",
        default_value = "1GiB",
        value_parser = size, hide_short_help = true)]
    pub max_size: ByteSize,
    /// Trust the certificate authorities in this PEM file [default: the system's]
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub ca: Option<PathBuf>,
    /// Show every difference instead of the first 20 of each replica
    #[arg(long, value_parser = BoolishValueParser::new())]
    pub all: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: ManifestFormat,
    /// How --dir is served.
    #[command(flatten, next_help_heading = "How --dir is served")]
    pub handling: SiteOptions,
    /// What is made of its files.
    #[command(flatten, next_help_heading = "How --dir is served")]
    pub compression: CompressionFlags,
}

//! `etagd push`: its flags.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;

use super::values::{positive_duration, threads};
use crate::exclude::ExcludePattern;
use crate::semantics::base_path::BasePath;
use crate::settings::{ReplicaUrl, Symlinks};

/// `etagd push`.
#[derive(Debug, Args)]
#[command(
    after_help = "The token is read from ETAGD_WRITE_TOKEN, or with --token-file. Conflicts and \
                        failures are printed on standard output. Exit code 0 tells that the server \
                        has all of DIR, 1 that it has not: run again, what is there is not sent \
                        twice."
)]
pub struct PushFlags {
    /// Directory to upload
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Server: an http or https URL, perhaps with a port and a prefix
    #[arg(value_name = "URL")]
    pub url: ReplicaUrl,
    /// File with the token, alone or as a line NAME TOKEN
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Only overwrite files that still match this manifest
    #[arg(long, value_name = "FILE")]
    pub base: Option<PathBuf>,
    /// Address of the server's admin listener, which knows all files
    #[arg(long, value_name = "URL")]
    pub admin_url: Option<ReplicaUrl>,
    /// Path below which the server has the site [default: what its manifest says]
    #[arg(long, value_name = "PATH")]
    pub base_path: Option<BasePath>,
    /// Leave out files and directories, as a line of .gitignore would; repeatable
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<ExcludePattern>,
    /// Delete remote files that are not in DIR (needs --admin-url or --base)
    #[arg(long, value_parser = BoolishValueParser::new())]
    pub delete: bool,
    /// Upload _headers and _redirects too
    #[arg(long, value_parser = BoolishValueParser::new())]
    pub rules: bool,
    /// Overwrite what others have changed
    #[arg(long, value_parser = BoolishValueParser::new())]
    pub force: bool,
    /// Print what would be done, and do nothing
    #[arg(long, value_parser = BoolishValueParser::new())]
    pub dry_run: bool,
    /// Connections at a time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = threads, hide_short_help = true)]
    pub connections: usize,
    /// Time for a response to begin, and for each further part of anything to move
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = positive_duration, hide_short_help = true)]
    pub timeout: Duration,
    /// Trust the certificate authorities in this PEM file [default: the system's]
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub ca: Option<PathBuf>,
    /// Which symbolic links to follow: inside, all or none
    #[arg(
        long,
        value_enum,
        default_value_t,
        hide_possible_values = true,
        value_name = "MODE",
        hide_short_help = true
    )]
    pub symlinks: Symlinks,
}

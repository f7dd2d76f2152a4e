//! `etagd push`: its flags.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;

use super::values::{positive_duration, threads};
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
    /// The directory to bring there
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// The server: http or https, HOST, port and perhaps a prefix
    #[arg(value_name = "URL")]
    pub url: ReplicaUrl,
    /// A file that holds the token, alone or as a line NAME TOKEN
    #[arg(long, value_name = "FILE", env = "ETAGD_TOKEN_FILE", hide_env = true)]
    pub token_file: Option<PathBuf>,
    /// Replace only what is as in this manifest in JSON, else say so
    #[arg(long, value_name = "FILE", env = "ETAGD_BASE", hide_env = true)]
    pub base: Option<PathBuf>,
    /// Where the server's --admin listener is: it knows all files
    #[arg(long, value_name = "URL", env = "ETAGD_ADMIN_URL", hide_env = true)]
    pub admin_url: Option<ReplicaUrl>,
    /// Delete what DIR has not; known by --admin-url or --base
    #[arg(long, env = "ETAGD_DELETE", hide_env = true, value_parser = BoolishValueParser::new())]
    pub delete: bool,
    /// Bring _headers and _redirects too
    #[arg(long, env = "ETAGD_RULES", hide_env = true, value_parser = BoolishValueParser::new())]
    pub rules: bool,
    /// Overwrite what others have changed
    #[arg(long, env = "ETAGD_FORCE", hide_env = true, value_parser = BoolishValueParser::new())]
    pub force: bool,
    /// Print what would be done, and do nothing
    #[arg(long, env = "ETAGD_DRY_RUN", hide_env = true, value_parser = BoolishValueParser::new())]
    pub dry_run: bool,
    /// Connections at once
    #[arg(long, value_name = "N", default_value_t = 8, env = "ETAGD_CONNECTIONS", hide_env = true, value_parser = threads)]
    pub connections: usize,
    /// Time for an answer to begin, and for more of anything to move
    #[arg(long, value_name = "TIME", default_value = "30s", env = "ETAGD_TIMEOUT", hide_env = true, value_parser = positive_duration)]
    pub timeout: Duration,
    /// Trust the certificate authorities in this PEM file [default: those of the system]
    #[arg(long, value_name = "FILE", env = "ETAGD_CA", hide_env = true)]
    pub ca: Option<PathBuf>,
    /// Symbolic links to follow: inside, all or none
    #[arg(
        long,
        value_enum,
        default_value_t,
        hide_possible_values = true,
        value_name = "WHICH",
        env = "ETAGD_SYMLINKS",
        hide_env = true
    )]
    pub symlinks: Symlinks,
}

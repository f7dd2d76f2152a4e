//! `etagd health`: its flags.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::values::positive_duration;
use crate::settings::{Listen, ReplicaUrl};

/// `etagd health`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code 0 if it is ready, 1 if not. Made for HEALTHCHECK in images, which \
                        need no shell for it: with ETAGD_ADMIN set for the server, no argument is \
                        needed."
)]
pub struct HealthFlags {
    /// URL to ask; /readyz of a server without a path [default: the admin listener]
    #[arg(value_name = "URL")]
    pub url: Option<ReplicaUrl>,
    /// Admin listener to ask, as etagd serve --admin names it
    // No conflict with a URL: the variable is the server's, and is set for all that runs beside it.
    #[arg(long, value_name = "ADDR", value_delimiter = ',')]
    pub admin: Vec<Listen>,
    /// Time for the answer
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = positive_duration)]
    pub timeout: Duration,
    /// Trust the certificate authorities in this PEM file [default: the system's]
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

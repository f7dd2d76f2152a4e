//! Flags as typed, and the configuration they mean.
//!
//! [`Cli`] is what stands on the command line or in the environment; each value is parsed once,
//! into a type that cannot be wrong. Flag before environment before default.

mod check;
mod clients;
mod dev;
mod globs;
mod offline;
mod operator;
mod push;
mod serve;
mod site;
mod values;
mod write;

use clap::{Parser, Subcommand, ValueEnum};

pub use check::{Check, ReplicaUrl};
pub use clients::{AccessLogForm, ProxyOptions};
pub use dev::{AllowedHost, Certificate, Dev, DevOptions, Upstream};
pub use globs::PathGlob;
pub use offline::{Compress, Lint, LintFormat, Manifest, ManifestFormat, SidecarWork};
pub use operator::{Digest, Expectation, HealthPath, Operator, StatusOptions};
pub use push::Push;
pub use serve::{Config, Limits, Serve, TlsFiles, WatchOptions, cores};
pub use site::{
    Additions, HtmlHandling, LastModified, NotFound, RedirectsDialect, ReprDigest, Settings,
    SiteFlags, SiteOptions, Symlinks,
};
pub use values::Listen;
pub use write::WriteOptions;

/// A static file server with precomputed, content-based strong ETags
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Form of messages: text or json
    #[arg(
        long,
        value_enum,
        default_value_t,
        hide_possible_values = true,
        value_name = "FORM",
        env = "ETAGD_LOG_FORMAT",
        global = true,
        hide_env = true
    )]
    pub log_format: LogFormat,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve a directory
    Serve(Box<Serve>),
    /// Serve a directory to its developer: pages reload when something changes
    Dev(Box<Dev>),
    /// Print the manifest: path, tag, size and type of everything that would be served
    Manifest(Manifest),
    /// Compare replicas: do they serve the same site?
    Check(Box<Check>),
    /// Bring a directory to a server that was started with --writable
    Push(Box<Push>),
    /// Write .br, .zst and .gz files beside the files of a site
    Compress(Compress),
    /// Tell what of a site will not be served as its author hopes
    Lint(Lint),
}

/// Form of messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum LogFormat {
    /// Lines of text
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}

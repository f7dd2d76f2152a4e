//! The command line: flags as typed, and the settings and options they mean.
//!
//! [`Cli`] is what stands on the command line or in the environment; each value is parsed once,
//! into a type that cannot be wrong. Flag before environment before default.

mod check;
mod choices;
mod clients;
mod dev;
mod offline;
mod operator;
mod process;
mod push;
mod serve;
mod site;
mod values;
mod watch;
mod write;

use clap::{Parser, Subcommand};

use crate::log::LogFormat;
pub use check::CheckFlags;
pub use clients::{AccessLogForm, ProxyOptions};
pub use dev::DevFlags;
pub use offline::{CompressFlags, LintFlags, LintFormat, ManifestFlags, ManifestFormat};
pub use operator::{Operator, StatusFlags};
pub use process::Config;
pub use push::PushFlags;
pub use serve::{LimitFlags, ServeFlags};
pub use site::{LastModified, SiteFlags, SiteOptions};
pub use watch::WatchOptions;
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
    Serve(Box<ServeFlags>),
    /// Serve a directory to its developer: pages reload when something changes
    Dev(Box<DevFlags>),
    /// Print the manifest: path, tag, size and type of everything that would be served
    Manifest(ManifestFlags),
    /// Compare replicas: do they serve the same site?
    Check(Box<CheckFlags>),
    /// Bring a directory to a server that was started with --writable
    Push(Box<PushFlags>),
    /// Write .br, .zst and .gz files beside the files of a site
    Compress(CompressFlags),
    /// Tell what of a site will not be served as its author hopes
    Lint(LintFlags),
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

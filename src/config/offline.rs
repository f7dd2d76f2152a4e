//! The subcommands that serve nothing.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};

use super::compression::CompressionFlags;
use super::site::SiteFlags;
use crate::compress::SidecarWork;
use crate::exclude::ExcludePattern;
use crate::lint::Allowance;

/// `etagd manifest`.
#[derive(Debug, Args)]
pub struct ManifestFlags {
    /// Which site, and how its files are looked at.
    #[command(flatten)]
    pub site: SiteFlags,
    /// What is made of its files.
    #[command(flatten, next_help_heading = "Compression")]
    pub compression: CompressionFlags,
    /// Output format
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: ManifestFormat,
    /// Print the URLs that changed since OLD, an earlier JSON manifest (- for standard input)
    #[arg(long, value_name = "OLD", conflicts_with = "digest")]
    pub diff: Option<PathBuf>,
    /// Print only the site digest
    #[arg(long, value_parser = BoolishValueParser::new())]
    pub digest: bool,
}

/// Form of `etagd manifest`'s output.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum ManifestFormat {
    /// Tab-separated lines
    #[default]
    Text,
    /// One JSON object
    Json,
}

/// `etagd compress`.
#[derive(Debug, Args)]
#[command(
    after_help = "A file gets a sidecar where its type is not compressed by itself, it has from \
                        1 KiB to 256 MiB, and 5 % or more are saved. What something else has written is left \
                        alone. Exit code 1 tells that a sidecar is not as it should be."
)]
pub struct CompressFlags {
    /// Directory of the site
    #[arg(value_name = "DIR", default_value = ".")]
    pub directory: PathBuf,
    /// Leave out files and directories, as a line of .gitignore would; repeatable
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<ExcludePattern>,
    /// Write nothing, and print the sidecars that do not decode to their file
    #[arg(long, conflicts_with = "remove")]
    pub check: bool,
    /// Remove the sidecars that etagd compress wrote and that decode to their file
    #[arg(long)]
    pub remove: bool,
    /// Also write deltas against OLD, an earlier release or a manifest in it; repeatable, newest first.
    ///
    /// A file with a hash in its name is compressed with the file of OLD that it replaces as its
    /// dictionary (RFC 9842): browsers that still have that one load a fraction. OLD is a directory,
    /// or the JSON manifest of one, next to its files; what --exclude and .etagdignore leave out of it
    /// is no dictionary. What proves the deltas is kept in .etagd/dictionaries: deploy it with the
    /// site. Deltas whose dictionary is gone are removed. What can't be read of OLD is a warning and
    /// exit code 1, and what may depend on it stays as it is.
    #[arg(long, value_name = "OLD", conflicts_with_all = ["check", "remove"])]
    pub against: Vec<PathBuf>,
}

impl CompressFlags {
    /// What is to be done.
    pub fn work(&self) -> SidecarWork {
        match (self.check, self.remove) {
            (true, _) => SidecarWork::Check,
            (false, true) => SidecarWork::Remove,
            (false, false) => SidecarWork::Write,
        }
    }
}

/// `etagd lint`.
#[derive(Debug, Args)]
#[command(
    after_help = "Each line ends with its code in brackets. Exit code 1 means that there are errors; \
                        with --strict, errors or warnings."
)]
pub struct LintFlags {
    /// Which site, and how it would be served.
    #[command(flatten)]
    pub site: SiteFlags,
    /// What would be made of its files.
    #[command(flatten, next_help_heading = "Compression")]
    pub compression: CompressionFlags,
    /// Output format
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: LintFormat,
    /// Accept findings of this code: CODE or CODE:GLOB, such as 'dead-link:/drafts/**'; repeatable
    #[arg(long, value_name = "CODE[:GLOB]")]
    pub allow: Vec<Allowance>,
    /// Report immutable files that differ from this manifest of what was served before
    #[arg(long, value_name = "FILE")]
    pub base: Option<PathBuf>,
    /// Fail on warnings, too
    #[arg(long)]
    pub strict: bool,
}

/// Form of `etagd lint`'s output.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum LintFormat {
    /// One line a finding
    #[default]
    Text,
    /// A JSON array
    Json,
}

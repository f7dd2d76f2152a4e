//! What decides which files a site has and what its answers say.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};

use crate::settings::{
    Additions, HtmlHandling, NotFound, PathGlob, RedirectsDialect, ReprDigest, Settings, Symlinks,
};

/// What decides which files a site has and what its answers say.
#[derive(Debug, Args)]
pub struct SiteFlags {
    /// The site's directory
    #[arg(value_name = "DIR", default_value = ".")]
    pub directory: PathBuf,
    /// The flags.
    #[command(flatten)]
    pub handling: SiteOptions,
}

/// How a site's files are looked at, and what its answers say.
#[derive(Debug, Args)]
pub struct SiteOptions {
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
    /// Where Last-Modified comes from: mtime or off
    #[arg(
        long,
        value_enum,
        default_value_t,
        hide_possible_values = true,
        value_name = "FROM",
        hide_short_help = true,
        env = "ETAGD_LAST_MODIFIED",
        hide_env = true
    )]
    pub last_modified: LastModified,
    /// SHA-256 in Repr-Digest: off, wanted or always
    #[arg(
        long,
        value_enum,
        default_value_t,
        hide_possible_values = true,
        value_name = "WHEN",
        hide_short_help = true,
        env = "ETAGD_REPR_DIGEST",
        hide_env = true
    )]
    pub repr_digest: ReprDigest,
    /// URLs of pages: {auto,force,drop}-trailing-slash, suffix or none
    #[arg(
        long,
        value_enum,
        default_value_t,
        hide_possible_values = true,
        value_name = "HOW",
        env = "ETAGD_HTML_HANDLING",
        hide_env = true
    )]
    pub html_handling: HtmlHandling,
    /// Missing: none, 404-page, single-page-application
    #[arg(
        long,
        value_enum,
        default_value_t,
        hide_possible_values = true,
        value_name = "WHAT",
        env = "ETAGD_NOT_FOUND",
        hide_env = true
    )]
    pub not_found: NotFound,
    /// Files whose content never changes, such as '/assets/**'; repeatable
    #[arg(long, value_name = "GLOB", env = "ETAGD_IMMUTABLE", hide_env = true)]
    pub immutable: Vec<PathGlob>,
    /// Have ?v=HASH kept for good, where HASH begins the file's BLAKE3
    #[arg(long, hide_short_help = true, env = "ETAGD_IMMUTABLE_QUERY", hide_env = true, value_parser = BoolishValueParser::new())]
    pub immutable_query: bool,
    /// Grammar of _redirects: netlify or cloudflare
    #[arg(
        long,
        value_enum,
        default_value_t,
        hide_possible_values = true,
        value_name = "WHOSE",
        hide_short_help = true,
        env = "ETAGD_REDIRECTS",
        hide_env = true
    )]
    pub redirects: RedirectsDialect,
    /// List directories that have no index
    #[arg(long, env = "ETAGD_LISTING", hide_env = true, value_parser = BoolishValueParser::new())]
    pub listing: bool,
}

impl SiteOptions {
    /// What of this changes answers.
    pub fn settings(&self) -> Settings {
        Settings {
            last_modified: self.last_modified == LastModified::Mtime,
            repr_digest: self.repr_digest,
            html_handling: self.html_handling,
            not_found: self.not_found,
            immutable: self.immutable.clone(),
            immutable_query: self.immutable_query,
            redirects: self.redirects,
            listing: self.listing,
            additions: Additions::default(),
        }
    }
}

/// Where `Last-Modified` comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum LastModified {
    /// The file's modification time
    #[default]
    Mtime,
    /// Nowhere: the field is not sent, dates match nothing
    Off,
}

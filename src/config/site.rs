//! What decides which files a site has and what its answers say.

use std::path::PathBuf;
use std::sync::Arc;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};

use crate::exclude::ExcludePattern;
use crate::semantics::base_path::BasePath;
use crate::settings::{
    Additions, DictionaryChoice, HtmlHandling, ImmutableFiles, NotFound, RedirectsDialect,
    ReprDigest, Settings, Symlinks,
};

/// What decides which files a site has and what its answers say.
#[derive(Debug, Args)]
pub struct SiteFlags {
    /// Directory of the site
    #[arg(value_name = "DIR", default_value = ".")]
    pub directory: PathBuf,
    /// The flags.
    #[command(flatten, next_help_heading = "Site")]
    pub handling: SiteOptions,
}

/// How a site's files are looked at, and what its answers say.
#[derive(Debug, Args)]
pub struct SiteOptions {
    /// Which symbolic links to follow: inside, all or none.
    ///
    /// `inside` follows those that stay in the site. `all` also follows links out of it: use it
    /// only where nobody else can create links. `none` follows no link.
    #[arg(
        long,
        value_enum,
        default_value_t,
        hide_possible_values = true,
        value_name = "MODE",
        hide_short_help = true
    )]
    pub symlinks: Symlinks,
    /// Where Last-Modified comes from: mtime or off.
    ///
    /// Replicas whose files have different times send different dates. `off` sends no date, so that
    /// entity tags alone decide.
    #[arg(
        long,
        value_enum,
        default_value_t,
        hide_possible_values = true,
        value_name = "SOURCE",
        hide_short_help = true
    )]
    pub last_modified: LastModified,
    /// When to send a SHA-256 in Repr-Digest: off, wanted or always.
    ///
    /// With it, clients check that what arrived is complete and right (RFC 9530). `wanted` sends it
    /// to clients that ask with Want-Repr-Digest.
    #[arg(
        long,
        value_enum,
        default_value_t,
        hide_possible_values = true,
        value_name = "MODE",
        hide_short_help = true
    )]
    pub repr_digest: ReprDigest,
    /// URLs of pages: suffix, {auto,force,drop}-trailing-slash or none.
    ///
    /// Whether a page has .html or a slash at the end of its URL. The three trailing-slash modes
    /// redirect other forms, as Cloudflare does; with `none` every file is served under its own
    /// name only.
    #[arg(
        long,
        value_enum,
        default_value_t,
        hide_possible_values = true,
        value_name = "MODE"
    )]
    pub html_handling: HtmlHandling,
    /// Response for missing paths: 404-page, single-page-application or none.
    ///
    /// `404-page` sends the nearest 404.html. `single-page-application` sends /index.html with
    /// status 200, for routes that exist in the browser only. `none` sends a built-in page.
    #[arg(
        long,
        value_enum,
        default_value_t,
        hide_possible_values = true,
        value_name = "MODE"
    )]
    pub not_found: NotFound,
    /// Serve the site below this path of the host, such as /app.
    ///
    /// For a host that has other sites, behind a proxy that takes no prefix off. Redirects lead
    /// there; the paths in _headers and _redirects are the site's own, without it. What is outside
    /// is 404.
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/",
        hide_default_value = true,
        hide_short_help = true
    )]
    pub base_path: BasePath,
    /// Files whose content never changes: '/assets/**', or `auto`; repeatable.
    ///
    /// Browsers keep them without asking again. Use it for files that have a hash of their content
    /// in their name, and never for pages. `auto` takes each file whose name has such a hash, as
    /// in index-BfX3a91Z.js or main.8d3f2a1c.css.
    #[arg(long, value_name = "GLOB")]
    pub immutable: Vec<ImmutableFiles>,
    /// Treat /path?v=HASH as immutable if HASH begins the file's BLAKE3.
    ///
    /// Pages can pin a file's content without renaming it: browsers keep a URL with eight or more
    /// digits of the right hash for good. HTML never takes part.
    #[arg(long, value_parser = BoolishValueParser::new(), hide_short_help = true)]
    pub immutable_query: bool,
    /// Grammar of _redirects: netlify or cloudflare.
    ///
    /// The two hosts read the same file differently. Choose the one that the site was written for.
    #[arg(
        long,
        value_enum,
        default_value_t,
        hide_possible_values = true,
        value_name = "DIALECT",
        hide_short_help = true
    )]
    pub redirects: RedirectsDialect,
    /// Leave out files and directories, as a line of .gitignore would; repeatable.
    ///
    /// `node_modules` and `*.map` are left out in every directory, `/drafts` in the root alone, and
    /// `!keep.map` is taken in again. Lines of a file .etagdignore in the root do the same. What
    /// editors leave (`*~`, `*.swp`, `#*#`) is left out by itself. What is left out is neither read
    /// nor watched.
    #[arg(long, value_name = "GLOB", hide_short_help = true)]
    pub exclude: Vec<ExcludePattern>,
    /// List directories that have no index page.
    ///
    /// Without it, such a directory is not found.
    #[arg(long, value_parser = BoolishValueParser::new())]
    pub listing: bool,
    /// Files that browsers keep to receive the next release as deltas: '/app-*.js', or `off`;
    /// repeatable.
    ///
    /// By default all immutable files of types that etagd compress makes deltas of, whose name without
    /// its hash stands for at most four files. A browser with the old file then gets the delta that
    /// etagd compress --against made. `off` neither names such files nor sends deltas.
    #[arg(long, value_name = "GLOB", hide_short_help = true)]
    pub dictionary: Vec<DictionaryChoice>,
}

impl SiteOptions {
    /// What of this changes answers, where nothing is compressed.
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
            base_path: self.base_path.clone(),
            exclude: Arc::new(self.exclude.clone().into()),
            dictionaries: self.dictionary.iter().cloned().collect(),
            compress: None,
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

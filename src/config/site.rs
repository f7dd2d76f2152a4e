//! What decides which files a site has and what its answers say.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};

use super::globs::PathGlob;

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

/// What the operator chose that changes answers. Part of the site digest.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether resources have a modification date.
    pub last_modified: bool,
    /// When responses carry a SHA-256.
    pub repr_digest: ReprDigest,
    /// Which URLs HTML files have.
    pub html_handling: HtmlHandling,
    /// What is answered where there is nothing.
    pub not_found: NotFound,
    /// Files that are immutable.
    pub immutable: Vec<PathGlob>,
    /// Whether a query that names the content makes the answer immutable.
    pub immutable_query: bool,
    /// Whose reading of `_redirects` counts.
    pub redirects: RedirectsDialect,
    /// Whether a directory without an index lists what it has.
    pub listing: bool,
    /// What is no part of the digest.
    pub additions: Additions,
}

/// What a developer is shown beside the site: no part of it, nor of its digest.
#[derive(Clone, Debug, Default)]
pub struct Additions {
    /// Whether directories are listed although the site's settings do not say so.
    pub listing: bool,
    /// What is added at the end of every document.
    pub tail: Option<&'static str>,
}

impl Settings {
    /// Whether directories are listed.
    pub fn lists(&self) -> bool {
        self.listing || self.additions.listing
    }

    /// Whether the operator says that the file at `path` never has other content: raw bytes below
    /// the root, without the leading slash.
    pub fn is_immutable(&self, path: &[u8]) -> bool {
        self.immutable.iter().any(|glob| glob.matches(path))
    }
}

impl Settings {
    /// Each flag without its dashes, and its value as it would be typed.
    pub fn named(&self) -> Vec<(&'static str, String)> {
        let Self {
            last_modified,
            repr_digest,
            html_handling,
            not_found,
            immutable,
            immutable_query,
            redirects,
            listing,
            additions: _,
        } = self;
        let last_modified = match last_modified {
            true => LastModified::Mtime,
            false => LastModified::Off,
        };
        // As in the digest, their order and how often each is there does not count.
        let immutable: BTreeSet<_> = immutable.iter().map(PathGlob::pattern).collect();
        let immutable: Vec<_> = immutable.into_iter().collect();
        let mut named = vec![
            ("last-modified", word(&last_modified)),
            ("repr-digest", word(repr_digest)),
            ("html-handling", word(html_handling)),
            ("not-found", word(not_found)),
            ("immutable", immutable.join(" ")),
            ("immutable-query", immutable_query.to_string()),
            ("redirects", word(redirects)),
        ];
        // As in the digest: without it, all is as it was before there were listings.
        if *listing {
            named.push(("listing", listing.to_string()));
        }
        named
    }
}

fn word(value: &impl ValueEnum) -> String {
    let value = value.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            last_modified: true,
            repr_digest: ReprDigest::Off,
            html_handling: HtmlHandling::Suffix,
            not_found: NotFound::Page,
            immutable: Vec::new(),
            immutable_query: false,
            redirects: RedirectsDialect::Netlify,
            listing: false,
            additions: Additions::default(),
        }
    }
}

/// Which symbolic links are followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Symlinks {
    /// Those whose target is inside the site
    #[default]
    Inside,
    /// All
    All,
    /// None: links are left out
    None,
}

impl Symlinks {
    /// Whether a link may lead to the real path `target`, seen from the real path `root`.
    pub fn allow(self, root: &Path, target: &Path) -> bool {
        match self {
            Self::All => true,
            Self::Inside => target.starts_with(root),
            Self::None => false,
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

/// When `Repr-Digest` is sent (RFC 9530).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum ReprDigest {
    /// Never
    #[default]
    Off,
    /// To requests with Want-Repr-Digest
    Wanted,
    /// Always
    Always,
}

/// Which URLs HTML files have: `about.html` and `docs/index.html` stand for all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum HtmlHandling {
    /// /about and /about.html, /docs/ and /docs/index.html
    #[default]
    Suffix,
    /// /about and /docs/; redirects lead there
    AutoTrailingSlash,
    /// /about/ and /docs/; redirects lead there
    ForceTrailingSlash,
    /// /about and /docs; redirects lead there
    DropTrailingSlash,
    /// /about.html and /docs/index.html
    None,
}

/// What is answered where there is nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum NotFound {
    /// 404 with a page of etagd's own
    None,
    /// 404 with the nearest 404.html upward
    #[default]
    #[value(name = "404-page")]
    Page,
    /// /index.html to browsers that go to a page, 404 to all others
    SinglePageApplication,
}

/// Whose reading of `_redirects` counts where the platforms differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum RedirectsDialect {
    /// A file wins over a rule without !, and 301 is the default
    #[default]
    Netlify,
    /// A rule wins over a file, and 302 is the default
    Cloudflare,
}

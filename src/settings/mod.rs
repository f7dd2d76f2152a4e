//! What the site, the scan and the server need to know of the operator's choices. No type here
//! knows of a command line.

mod address;
mod compression;
mod descriptors;
mod dev;
mod dictionaries;
mod expectation;
mod family;
mod flags;
mod following;
mod globs;
mod hosts;
mod immutable;
mod server;
mod store;

use std::path::Path;
use std::sync::Arc;

use crate::exclude::ExcludePatterns;
use crate::semantics::base_path::BasePath;

pub use address::{InvalidListen, InvalidReplicaUrl, Listen, ReplicaUrl};
pub use compression::{CompressionPolicy, InvalidPolicy};
pub use descriptors::{DescriptorBudget, DescriptorDemand, max_rejected};
pub use dev::{AllowedHost, Certificate, DevOptions, InvalidHost, InvalidUpstream, Upstream};
pub use dictionaries::{DictionaryChoice, DictionaryFiles};
pub use expectation::{Digest, Expectation, InvalidDigest};
pub use family::{Family, url_pattern};
pub use flags::{
    FlagValues, InvalidChoice, InvalidFlags, SettingChange, SettingFlag, setting_changes,
};
pub use following::{FollowOptions, InvalidPrefetch, Prefetch, SiteSource};
pub use globs::{InvalidGlob, PathGlob};
pub use hosts::is_host_allowed;
pub use immutable::{ImmutableFiles, is_fingerprinted};
pub use server::{HealthPath, InvalidHealthPath, Limits, RedirectOptions, StatusOptions, TlsFiles};
pub use store::{Channel, InvalidChannel, InvalidStoreUrl, StoreUrl};

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
    pub immutable: Vec<ImmutableFiles>,
    /// Whether a query that names the content makes the answer immutable.
    pub immutable_query: bool,
    /// Whose reading of `_redirects` counts.
    pub redirects: RedirectsDialect,
    /// Whether a directory without an index lists what it has.
    pub listing: bool,
    /// Below which path of its host the site answers.
    pub base_path: BasePath,
    /// What is left out of the site.
    pub exclude: Arc<ExcludePatterns>,
    /// Which files are dictionaries for the next release, and whether there are deltas.
    pub dictionaries: DictionaryFiles,
    /// Which content codings are made of files, if any.
    pub compress: Option<CompressionPolicy>,
    /// What a developer sees in addition; no part of the site digest.
    pub additions: Additions,
}

/// What a developer sees in addition to the site. No part of the site digest.
#[derive(Clone, Debug, Default)]
pub struct Additions {
    /// Whether directories are listed although the site's settings do not say so.
    pub listing: bool,
    /// What is added at the end of every document.
    pub tail: Option<Arc<str>>,
    /// Whether there are no deltas: what is edited has no earlier release.
    pub without_deltas: bool,
}

impl Settings {
    /// Whether directories are listed.
    pub fn lists(&self) -> bool {
        self.listing || self.additions.listing
    }

    /// Which files are dictionaries.
    pub fn dictionaries(&self) -> &DictionaryFiles {
        match self.additions.without_deltas {
            true => &DictionaryFiles::None,
            false => &self.dictionaries,
        }
    }

    /// Whether the operator says that the file at `path` never has other content: raw bytes below
    /// the root, without the leading slash.
    pub fn is_immutable(&self, path: &[u8]) -> bool {
        self.immutable.iter().any(|files| files.contain(path))
    }
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
            base_path: BasePath::default(),
            exclude: Arc::default(),
            dictionaries: DictionaryFiles::Families,
            compress: None,
            additions: Additions::default(),
        }
    }
}

/// Which symbolic links are followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Symlinks {
    /// Those whose target is inside the site.
    #[default]
    Inside,
    /// All.
    All,
    /// None: links are left out.
    None,
}

impl Symlinks {
    /// The value as it is typed after `--symlinks`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inside => "inside",
            Self::All => "all",
            Self::None => "none",
        }
    }

    /// Whether a link may lead to the real path `target`, seen from the real path `root`.
    pub fn allow(self, root: &Path, target: &Path) -> bool {
        match self {
            Self::All => true,
            Self::Inside => target.starts_with(root),
            Self::None => false,
        }
    }
}

/// When `Repr-Digest` is sent (RFC 9530).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ReprDigest {
    /// Never.
    #[default]
    Off,
    /// To requests with Want-Repr-Digest.
    Wanted,
    /// Always.
    Always,
}

impl ReprDigest {
    /// The value as it is typed after `--repr-digest`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Wanted => "wanted",
            Self::Always => "always",
        }
    }
}

/// Which URLs HTML files have: `about.html` and `docs/index.html` stand for all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HtmlHandling {
    /// /about and /about.html, /docs/ and /docs/index.html.
    #[default]
    Suffix,
    /// /about and /docs/; redirects lead there.
    AutoTrailingSlash,
    /// /about/ and /docs/; redirects lead there.
    ForceTrailingSlash,
    /// /about and /docs; redirects lead there.
    DropTrailingSlash,
    /// /about.html and /docs/index.html.
    None,
}

impl HtmlHandling {
    /// The value as it is typed after `--html-handling`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Suffix => "suffix",
            Self::AutoTrailingSlash => "auto-trailing-slash",
            Self::ForceTrailingSlash => "force-trailing-slash",
            Self::DropTrailingSlash => "drop-trailing-slash",
            Self::None => "none",
        }
    }
}

/// What is answered where there is nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum NotFound {
    /// 404 with a page of etagd's own.
    None,
    /// 404 with the nearest 404.html upward.
    #[default]
    Page,
    /// /index.html to browsers that go to a page, 404 to all others.
    SinglePageApplication,
}

impl NotFound {
    /// The value as it is typed after `--not-found`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Page => "404-page",
            Self::SinglePageApplication => "single-page-application",
        }
    }
}

/// Whose reading of `_redirects` counts where the platforms differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RedirectsDialect {
    /// A file wins over a rule without !, and 301 is the default.
    #[default]
    Netlify,
    /// A rule wins over a file, and 302 is the default.
    Cloudflare,
}

impl RedirectsDialect {
    /// The value as it is typed after `--redirects`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Netlify => "netlify",
            Self::Cloudflare => "cloudflare",
        }
    }
}

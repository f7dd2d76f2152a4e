//! What decides which files a site has and what its answers say.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

/// What decides which files a site has and what its answers say.
#[derive(Debug, Args)]
pub struct SiteFlags {
    /// The site's directory
    #[arg(value_name = "DIR", default_value = ".")]
    pub directory: PathBuf,
    /// Which symbolic links to follow
    #[arg(
        long,
        value_enum,
        default_value_t,
        value_name = "WHICH",
        env = "ETAGD_SYMLINKS",
        hide_env = true
    )]
    pub symlinks: Symlinks,
    /// Where Last-Modified comes from
    #[arg(
        long,
        value_enum,
        default_value_t,
        value_name = "FROM",
        env = "ETAGD_LAST_MODIFIED",
        hide_env = true
    )]
    pub last_modified: LastModified,
    /// When to send Repr-Digest with a SHA-256 (it slows the scan)
    #[arg(
        long,
        value_enum,
        default_value_t,
        value_name = "WHEN",
        env = "ETAGD_REPR_DIGEST",
        hide_env = true
    )]
    pub repr_digest: ReprDigest,
}

impl SiteFlags {
    /// What of this changes answers.
    pub fn settings(&self) -> Settings {
        Settings {
            last_modified: self.last_modified == LastModified::Mtime,
            repr_digest: self.repr_digest,
        }
    }
}

/// What the operator chose that changes answers. Part of the site digest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Whether resources have a modification date.
    pub last_modified: bool,
    /// When responses carry a SHA-256.
    pub repr_digest: ReprDigest,
}

impl Settings {
    /// Each flag without its dashes, and its value as it would be typed.
    pub fn named(self) -> [(&'static str, &'static str); 2] {
        let Self {
            last_modified,
            repr_digest,
        } = self;
        let repr_digest = match repr_digest {
            ReprDigest::Off => "off",
            ReprDigest::Wanted => "wanted",
            ReprDigest::Always => "always",
        };
        [
            ("last-modified", if last_modified { "mtime" } else { "off" }),
            ("repr-digest", repr_digest),
        ]
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            last_modified: true,
            repr_digest: ReprDigest::Off,
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

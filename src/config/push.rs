//! `etagd push`: its flags.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{ArgMatches, Args, parser::ValueSource};

use super::compression::CompressionFlags;
use super::site::SiteOptions;
use super::store::note;
use super::values::{positive_duration, release_or_none, threads};
use crate::semantics::base_path::BasePath;
use crate::settings::{Channel, InvalidReplicaUrl, InvalidStoreUrl, ReplicaUrl, StoreUrl};

/// Flags that say something to a server alone.
const SERVER_FLAGS: [&str; 8] = [
    "token-file",
    "base",
    "admin-url",
    "delete",
    "rules",
    "force",
    "connections",
    "timeout",
];
/// Flags that both take: which files there are, who is trusted, and whether anything is to be done.
const SHARED_FLAGS: [&str; 9] = [
    "ca",
    "symlinks",
    "exclude",
    "base-path",
    "dry-run",
    "quiet",
    "verbose",
    "log-level",
    "log-format",
];

/// `etagd push`.
#[derive(Debug, Args)]
#[command(
    after_help = "A server runs with --writable; the token for it is read from \
                        ETAGD_WRITE_TOKEN, or with --token-file. Conflicts and failures are printed \
                        on standard output.\n\n\
                        A store keeps releases: all files first, then one object that publishes them. \
                        Servers that follow it (etagd serve s3://...) take the release whole, and \
                        etagd rollback brings an earlier one back. The flags under Site are part of the \
                        release. A bucket's credentials, region and endpoint are those of the \
                        environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, \
                        AWS_ENDPOINT_URL, AWS_ALLOW_HTTP, or a role of the machine.\n\n\
                        Exit code 0 tells that the server or the store has all of DIR, 1 that it has \
                        not: run again, what is there is not sent twice. If somebody else has \
                        published meanwhile, nothing is released, and the code is 1, too."
)]
pub struct PushFlags {
    /// Directory to upload
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Server (http or https, perhaps with a port and a prefix), or store (s3://BUCKET/PREFIX or
    /// file:///FOLDER)
    #[arg(value_name = "URL")]
    pub target: PushTarget,
    /// Print what would be done, and do nothing
    #[arg(long, value_parser = BoolishValueParser::new())]
    pub dry_run: bool,
    /// Trust the certificate authorities in this PEM file [default: the system's]
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub ca: Option<PathBuf>,
    /// To a store.
    #[command(flatten, next_help_heading = "To a store")]
    pub release: ReleaseFlags,
    /// To a server.
    #[command(flatten, next_help_heading = "To a server")]
    pub server: ServerFlags,
    /// What answers depend on.
    #[command(flatten, next_help_heading = "Site")]
    pub handling: SiteOptions,
    /// What is made of its files.
    #[command(flatten, next_help_heading = "Compression")]
    pub compression: CompressionFlags,
    /// The flags on the command line, without their dashes.
    #[arg(skip)]
    pub typed: Vec<String>,
}

/// What a release in a store is to be.
#[derive(Debug, Args)]
pub struct ReleaseFlags {
    /// List of releases that this one is added to, such as pr-17 for a preview
    #[arg(long, value_name = "NAME", default_value_t)]
    pub channel: Channel,
    /// What to say about the release, for etagd releases: one line of up to 1000 bytes
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true, value_parser = note)]
    pub note: String,
    /// Fail unless N is the newest release; 0 is for none yet
    #[arg(long, value_name = "N", value_parser = release_or_none, allow_negative_numbers = true)]
    pub after: Option<u64>,
    /// Use a store that cannot tell two publishers apart: you see to it that there is one.
    ///
    /// Each push finds out whether the store refuses to create an object that exists
    /// (If-None-Match: *), and is refused where it does not. With this flag it trusts you instead.
    #[arg(long, value_parser = BoolishValueParser::new(), hide_short_help = true)]
    pub single_writer: bool,
}

/// How a server is pushed to.
#[derive(Debug, Args)]
pub struct ServerFlags {
    /// File with the token, alone or as a line NAME TOKEN
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Only overwrite files that still match this manifest
    #[arg(long, value_name = "FILE")]
    pub base: Option<PathBuf>,
    /// Address of the server's admin listener, which knows all files
    #[arg(long, value_name = "URL")]
    pub admin_url: Option<ReplicaUrl>,
    /// Delete remote files that are not in DIR (needs --admin-url or --base)
    #[arg(long, value_parser = BoolishValueParser::new())]
    pub delete: bool,
    /// Upload _headers and _redirects too
    #[arg(long, value_parser = BoolishValueParser::new())]
    pub rules: bool,
    /// Overwrite what others have changed
    #[arg(long, value_parser = BoolishValueParser::new())]
    pub force: bool,
    /// Connections at a time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = threads, hide_short_help = true)]
    pub connections: usize,
    /// Time for a response to begin, and for each further part of anything to move
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = positive_duration, hide_short_help = true)]
    pub timeout: Duration,
}

impl PushFlags {
    /// The path below which a server has the site, if it was given.
    #[must_use]
    pub fn base_path(&self) -> Option<BasePath> {
        self.is_typed("base-path")
            .then(|| self.handling.base_path.clone())
    }

    /// A flag on the command line that says nothing to what is pushed to.
    #[must_use]
    pub fn misplaced(&self) -> Option<&str> {
        let is_misplaced = |name: &&String| {
            let name = name.as_str();
            match self.target {
                PushTarget::Store(_) => SERVER_FLAGS.contains(&name),
                PushTarget::Server(_) => {
                    !SERVER_FLAGS.contains(&name) && !SHARED_FLAGS.contains(&name)
                }
            }
        };
        self.typed.iter().find(is_misplaced).map(String::as_str)
    }

    fn is_typed(&self, name: &str) -> bool {
        self.typed.iter().any(|typed| typed == name)
    }

    /// Notes which flags are on the command line.
    pub(super) fn note_typed(&mut self, push: &ArgMatches) {
        let is_typed = |id: &str| push.value_source(id) == Some(ValueSource::CommandLine);
        self.typed = push
            .ids()
            .map(clap::Id::as_str)
            .filter(|id| is_typed(id) && !["directory", "target"].contains(id))
            .map(|id| id.replace('_', "-"))
            // Groups have the names of their types.
            .filter(|name| !name.contains(char::is_uppercase))
            .collect();
    }
}

/// Where a directory is pushed to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PushTarget {
    /// A server that runs with `--writable`.
    Server(ReplicaUrl),
    /// A store of releases.
    Store(StoreUrl),
}

/// Why a text is no [`PushTarget`].
#[derive(Debug, thiserror::Error)]
pub enum InvalidPushTarget {
    /// It is meant for a server, and is no URL of one.
    #[error("{0}; or a store, s3://BUCKET/PREFIX or file:///FOLDER")]
    Server(#[from] InvalidReplicaUrl),
    /// It is meant for a store, and is no URL of one.
    #[error(transparent)]
    Store(#[from] InvalidStoreUrl),
}

impl FromStr for PushTarget {
    type Err = InvalidPushTarget;

    fn from_str(text: &str) -> Result<Self, InvalidPushTarget> {
        // The path of a folder is meant for a store, too.
        match StoreUrl::is_meant(text) || text.starts_with('/') {
            true => Ok(Self::Store(text.parse()?)),
            false => Ok(Self::Server(text.parse()?)),
        }
    }
}

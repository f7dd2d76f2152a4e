//! Which releases are served where the site is in a store, and which flags that leaves without a
//! meaning.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args};

use super::values::positive_duration;
use crate::settings::{Channel, Prefetch, SettingFlag, Settings, SiteSource, StoreUrl};

/// How often to look for a newer release, if nothing is said.
const DEFAULT_POLL: Duration = Duration::from_secs(2);
/// Flags that are about a directory.
const OF_DIRECTORY: [&str; 12] = [
    "manifest",
    "max-upload",
    "max-uploads",
    "open-files",
    "scrub",
    "settle",
    "state",
    "symlinks",
    "writable",
    "write-insecure",
    "write-rules",
    "write-token-file",
];
/// Flags that are about a store.
const OF_STORE: [&str; 5] = ["ca", "channel", "poll", "prefetch", "require-store"];

/// Which releases are served where the site is in a store.
#[derive(Clone, Debug, Args)]
pub struct FollowFlags {
    /// Serve this list of releases [default: live].
    ///
    /// Each channel has releases of its own: a preview has one, such as pr-17. Needs a store.
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub channel: Option<Channel>,
    /// How often to look for a newer release [default: 2s].
    ///
    /// Costs one small request each time. --sweep says how often the channel is listed, in case what
    /// names the newest release is wrong. Needs a store.
    #[arg(long, value_name = "TIME", value_parser = positive_duration, hide_short_help = true)]
    pub poll: Option<Duration>,
    /// What to fetch before a release is served: small, all or none [default: small].
    ///
    /// `small` are files of up to 128 KiB, as far as --memory or --cache has room. `all` has the whole
    /// release in --cache first. What is not fetched then is when somebody asks for it. Needs a store.
    #[arg(long, value_name = "WHICH", hide_short_help = true)]
    pub prefetch: Option<Prefetch>,
    /// Do not start if the store cannot be reached.
    ///
    /// Otherwise the last release in --cache is served until it can. A channel without a release is waited
    /// for, whatever is in --cache. Needs a store.
    #[arg(long, value_parser = BoolishValueParser::new(), hide_short_help = true)]
    pub require_store: bool,
    /// Trust the certificate authorities in this PEM file [default: the system's].
    ///
    /// For a store whose certificate is from an authority of your own. Needs a bucket.
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub ca: Option<PathBuf>,
}

impl FollowFlags {
    pub(super) fn poll(&self) -> Duration {
        self.poll.unwrap_or(DEFAULT_POLL)
    }
}

/// The flags that were typed, or are in the environment.
pub(super) struct GivenFlags<'m>(pub(super) &'m ArgMatches);

impl GivenFlags<'_> {
    /// Whether a flag is among them: its name without its dashes.
    pub(super) fn has(&self, name: &str) -> bool {
        let id = name.replace('-', "_");
        // A command without the flag has no such argument.
        let is_known = self.0.try_contains_id(&id).unwrap_or(false);
        is_known
            && matches!(
                self.0.value_source(&id),
                Some(ValueSource::CommandLine | ValueSource::EnvVariable)
            )
    }

    /// What is wrong with them, of a server of this site.
    pub(super) fn check(&self, source: &SiteSource, prefetch: Option<Prefetch>) -> Option<String> {
        match source {
            SiteSource::Directory(_) => {
                let flag = OF_STORE.into_iter().find(|flag| self.has(flag))?;
                Some(format!(
                    "--{flag} needs a store of releases: s3://BUCKET/PREFIX or file:///FOLDER in the \
                     place of a directory"
                ))
            }
            SiteSource::Store(store) => {
                if let Some(flag) = OF_DIRECTORY.into_iter().find(|flag| self.has(flag)) {
                    return Some(format!(
                        "--{flag} is about the files of a directory, and {store} has releases: leave \
                         it out"
                    ));
                }
                if matches!(store, StoreUrl::Folder(_)) && self.has("ca") {
                    return Some(format!(
                        "--ca is about TLS, and {store} is a folder: leave it out"
                    ));
                }
                let is_lost = prefetch == Some(Prefetch::All) && !self.has("cache");
                is_lost.then(|| "--prefetch all needs --cache".to_owned())
            }
        }
    }

    /// Those that change answers.
    pub(super) fn of_settings(&self, settings: &Settings) -> Vec<SettingFlag> {
        let mut typed = settings.flags();
        if !settings.listing {
            typed.push(SettingFlag::off("listing"));
        }
        typed.retain(|flag| self.has(flag.name));
        typed
    }
}

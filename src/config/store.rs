//! The subcommands about stores: `releases`, `rollback` and `gc`.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};

use super::values::{at_least_one, duration, release_number};
use crate::settings::{Channel, StoreUrl};

/// The longest note, in bytes: it is one line in a list.
const MAX_NOTE_LENGTH: usize = 1000;

/// A note that a list can show.
pub(super) fn note(text: &str) -> Result<String, InvalidNote> {
    if text.len() > MAX_NOTE_LENGTH {
        return Err(InvalidNote::TooLong);
    }
    // A terminal obeys control characters.
    if text.contains(char::is_control) {
        return Err(InvalidNote::Control);
    }
    Ok(text.to_owned())
}

/// Why a text is no note.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum InvalidNote {
    #[error("expected at most {MAX_NOTE_LENGTH} bytes")]
    TooLong,
    #[error(
        "expected one line, without control characters: the first line of a commit's message will do"
    )]
    Control,
}

/// A store, and how it is reached.
#[derive(Debug, Args)]
pub struct StoreFlags {
    /// Store: s3://BUCKET/PREFIX or file:///FOLDER
    #[arg(value_name = "STORE")]
    pub store: StoreUrl,
    /// Trust the certificate authorities in this PEM file [default: the system's]
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub ca: Option<PathBuf>,
}

/// A channel of a store.
#[derive(Debug, Args)]
pub struct ChannelFlags {
    /// Which store.
    #[command(flatten)]
    pub of: StoreFlags,
    /// List of releases
    #[arg(long, value_name = "NAME", default_value_t)]
    pub channel: Channel,
}

/// `etagd releases`.
#[derive(Debug, Args)]
#[command(
    after_help = "The newest release comes first, marked with a star: it is what servers that \
                        follow the channel have. The columns are number, time, site digest (its first \
                        digits), files, size, who made it, and a note."
)]
pub struct ReleasesFlags {
    /// Which releases.
    #[command(flatten)]
    pub among: ChannelFlags,
    /// Output format
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: ReleasesFormat,
}

/// Form of `etagd releases`' output.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum ReleasesFormat {
    /// One line a release
    #[default]
    Text,
    /// A JSON array
    Json,
}

/// `etagd rollback`.
#[derive(Debug, Args)]
#[command(
    after_help = "A new release is made that has the files and settings of the earlier one: \
                        nothing is uploaded, and servers take it as any release. Exit code 1 tells \
                        that there is no such release, that its files are gone (see etagd gc), or that \
                        somebody else has published meanwhile."
)]
pub struct RollbackFlags {
    /// Which releases.
    #[command(flatten)]
    pub among: ChannelFlags,
    /// Number of the release to bring back (see etagd releases)
    #[arg(long, value_name = "N", value_parser = release_number, allow_negative_numbers = true)]
    pub to: u64,
    /// What to say about it, for etagd releases: one line of up to 1000 bytes
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true, value_parser = note)]
    pub note: String,
    /// Use a store that cannot tell two publishers apart: you see to it that there is one
    #[arg(long, value_parser = BoolishValueParser::new(), hide_short_help = true)]
    pub single_writer: bool,
}

/// `etagd gc`.
#[derive(Debug, Args)]
#[command(
    after_help = "Of each channel the newest releases are kept, as many as --keep says, and those \
                        that were the newest at any moment within --grace. What none of them needs is \
                        deleted if it is older than --grace. It may run while others push: it waits for \
                        their last step, and they wait for it. Ages are by the clock of the store."
)]
pub struct GcFlags {
    /// Which store.
    #[command(flatten)]
    pub of: StoreFlags,
    /// Releases to keep of each channel
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = at_least_one)]
    pub keep: usize,
    /// Keep what was needed within this time: at least --keep-old of the servers
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration)]
    pub grace: Duration,
    /// Print what would be deleted, and delete nothing
    #[arg(long, value_parser = BoolishValueParser::new())]
    pub dry_run: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes() {
        assert_eq!(note("a b"), Ok("a b".to_owned()));
        assert_eq!(note("a\nb"), Err(InvalidNote::Control));
        assert_eq!(note("\u{1b}[2J"), Err(InvalidNote::Control));
        assert_eq!(note(&"x".repeat(1001)), Err(InvalidNote::TooLong));
    }
}

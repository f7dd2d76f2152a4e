//! Why nothing is published.

use std::io;
use std::time::Duration;

use crate::settings::{Channel, StoreUrl};
use crate::store::layout::ObjectKey;
use crate::store::{ReleaseRecord, StoreError};

/// Why nothing is published, collected or brought back.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The store does not do what it was asked for.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The newest release is no release.
    #[error("{0}; etagd rollback brings an earlier release back, and the next push follows that")]
    Newest(StoreError),
    /// A file of the directory can't be read.
    #[error("cannot read {path}: {source}; nothing was released")]
    Unreadable {
        /// Its path in the site.
        path: String,
        /// What failed.
        source: io::Error,
    },
    /// A file of the directory is not what it was when it was hashed.
    #[error(
        "{0} has changed since it was hashed: nothing was released; run again once nobody writes to \
         the directory"
    )]
    Changed(String),
    /// The listing can't be made.
    #[error("cannot write the list of the site's files: {0}")]
    Listing(io::Error),
    /// The store does not have the one property that releases rely on.
    #[error(
        "{0} replaces an object that was to be created only if it is missing (If-None-Match: *): of \
         two who publish at once, one would be lost without a word. Use another store, or see to it \
         that nobody else publishes and add --single-writer"
    )]
    NoCreate(String),
    /// Somebody else has published meanwhile.
    #[error(
        "{} is newer than the release that this one was to follow, and nothing was released: see what it \
         has (etagd releases), and run again to follow it",
        shown(.theirs)
    )]
    Lost {
        /// Their release.
        theirs: Box<ReleaseRecord>,
    },
    /// The newest release is not the one that `--after` names.
    #[error(
        "--after {expected}: the newest release of {channel} is {}; nothing was released",
        newest_shown(.newest)
    )]
    NotAfter {
        /// The number that was given.
        expected: u64,
        /// The channel.
        channel: Channel,
        /// The newest release.
        newest: Option<Box<ReleaseRecord>>,
    },
    /// Somebody holds a lock for longer than anyone should wait.
    #[error(
        "waited for {} for {holder}, which {}: run again later. A lock that a killed process has left \
         is ignored after two minutes",
        humantime::format_duration(Duration::from_secs(.waited.as_secs())), if *.is_push { "is publishing" } else { "is collecting" }
    )]
    Locked {
        /// How long it was waited for.
        waited: Duration,
        /// Who holds it.
        holder: String,
        /// Whether that is a publisher.
        is_push: bool,
    },
    /// The work under a lock took so long that others may take the lock for one that was left.
    #[error(
        "the store is so slow, or this machine has slept so long, that the lock of this process has expired \
         before the work was done: run again"
    )]
    Expired,
    /// There is no release with this number.
    #[error("{channel} has no release {number}: etagd releases lists those that it has")]
    NoRelease {
        /// The channel.
        channel: Channel,
        /// The number.
        number: u64,
    },
    /// There is no release at all.
    #[error("{0} has no release yet")]
    NoReleases(Channel),
    /// What a release needs is not in the store any more.
    #[error("release {number} cannot come back: the store lacks {missing} of its {all} contents")]
    Incomplete {
        /// The release.
        number: u64,
        /// How many contents are missing.
        missing: usize,
        /// How many it has.
        all: usize,
    },
    /// No channel has a release.
    #[error(
        "no channel of {0} has a release, so it is not known what is needed, and nothing was deleted: is \
         this the store?"
    )]
    NoStore(StoreUrl),
    /// Something below the channels is no release.
    #[error(
        "{0} is neither a release nor a hint, so it is not known what it needs, and nothing was deleted: \
         move it elsewhere, or use a later version of etagd"
    )]
    Foreign(ObjectKey),
    /// The store does not always list a release that is there.
    #[error(
        "the store lists {0} at one time and not at another, so it is not known what is needed, and nothing \
         was deleted: run again later"
    )]
    Unsteady(ObjectKey),
    /// It is not known whether the release was made.
    #[error(
        "it is not known whether release {0} was made: see etagd releases, or run again, which does no harm"
    )]
    Uncertain(u64),
    /// A collector may have run between the last look at what a release needs and its creation.
    #[error(
        "release {number} was made, but something that it needs may have been deleted meanwhile, and could \
         not be sent again: {source}. Run again"
    )]
    InDoubt {
        /// The release.
        number: u64,
        /// What failed.
        source: Box<Self>,
    },
    /// What the kept releases need is not known.
    #[error(
        "cannot tell what release {number} of {channel} needs, so nothing was deleted: {source}. If it is \
         to be given up, keep fewer releases, or delete its object below channels/{channel}/ by hand"
    )]
    Unknown {
        /// The channel.
        channel: Channel,
        /// The release.
        number: u64,
        /// What failed.
        source: Box<StoreError>,
    },
    /// SIGINT or SIGTERM.
    #[error("stopped by a signal: run again to go on")]
    Stopped,
    /// The system gives no thread or runtime.
    #[error("cannot start: {0}")]
    Start(io::Error),
}

/// Whose release it is, in a few words.
fn shown(release: &ReleaseRecord) -> String {
    let ReleaseRecord {
        number, who, at, ..
    } = release;
    let note = match release.note.as_str() {
        "" => String::new(),
        note => format!(" ({note})"),
    };
    format!("release {number} of {who} at {at}{note}")
}

fn newest_shown(newest: &Option<Box<ReleaseRecord>>) -> String {
    match newest {
        Some(release) => shown(release),
        None => "none: it has no release yet".to_owned(),
    }
}

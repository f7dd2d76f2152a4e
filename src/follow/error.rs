//! Why a channel can't be followed, or a release not be served.

use std::fmt;
use std::io;

use crate::cache::CacheError;
use crate::settings::{Channel, InvalidFlags, StoreUrl};
use crate::store::{BlobHash, StoreError};

/// Why a server that follows a channel can't start.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The store can't be asked.
    #[error("{0}")]
    Store(StoreError),
    /// The store can't be asked, and has to be.
    #[error("{0}: --require-store says not to serve an earlier release without it")]
    Required(String),
    /// The store has nothing that is as new as what was served here before.
    #[error("{0}: nothing older is served")]
    Behind(String),
    /// The release can't be served.
    #[error(transparent)]
    Refused(#[from] Box<RefusedRelease>),
    /// The directory of the cache can't be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The system has no more threads.
    #[error("cannot start the threads that fetch from the store: {0}")]
    Threads(io::Error),
}

impl FollowError {
    /// Whether the command line is to blame.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Refused(refused) if refused.is_usage())
    }
}

impl RefusedRelease {
    /// Whether the command line is to blame.
    pub fn is_usage(&self) -> bool {
        matches!(self.reason, RefusalReason::Flag { .. })
    }
}

/// Which channel of which store. Displays as `s3://bucket/site (channel live)`.
#[derive(Clone, Debug)]
pub struct Followed {
    /// The store.
    pub store: StoreUrl,
    /// The channel.
    pub channel: Channel,
}

impl fmt::Display for Followed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (channel {})", self.store, self.channel)
    }
}

/// A release that can't be served here.
#[derive(Debug, thiserror::Error)]
#[error("release {number} of {followed} cannot be served: {reason}")]
pub struct RefusedRelease {
    /// Its number.
    pub number: u64,
    /// Where it is.
    pub followed: Followed,
    /// What is wrong.
    pub reason: RefusalReason,
}

/// What is wrong with a release.
#[derive(Debug, thiserror::Error)]
pub enum RefusalReason {
    /// The listing is of another site than the record says.
    #[error("its record says site digest {record}, and its listing {listing}")]
    OtherListing {
        /// According to the record.
        record: BlobHash,
        /// According to the listing.
        listing: BlobHash,
    },
    /// It carries flags that are not known here.
    #[error("{0}")]
    Settings(#[from] InvalidFlags),
    /// A flag of this server says otherwise than the release.
    #[error(
        "--{name} is {here} here and {there} in the release, which brings its own flags: leave it out"
    )]
    Flag {
        /// The flag without its dashes.
        name: &'static str,
        /// Its value here.
        here: String,
        /// Its value in the release.
        there: String,
    },
    /// What it lists makes up another site here.
    #[error(
        "what it lists has site digest {found} here, and {listed} where it was made: \
         serve it with the version of etagd that made it"
    )]
    Digest {
        /// Where it was made.
        listed: BlobHash,
        /// Here.
        found: String,
    },
    /// The store does not have all of it, or not as it should be, or as it is known here.
    #[error("{0}")]
    Content(String),
}

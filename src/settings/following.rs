//! How a channel of a store is followed.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::{Channel, InvalidStoreUrl, SettingFlag, StoreUrl};
use crate::trust::Trust;

/// Where a site is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SiteSource {
    /// In a directory.
    Directory(PathBuf),
    /// In a store of releases.
    Store(StoreUrl),
}

impl SiteSource {
    /// Reads what was typed: a directory, unless it begins as a URL does.
    ///
    /// # Errors
    /// When it is the URL of no store.
    pub fn read(typed: OsString) -> Result<Self, InvalidStoreUrl> {
        match typed.to_str() {
            Some(text) if text.contains("://") || StoreUrl::is_meant(text) => {
                text.parse().map(Self::Store)
            }
            _ => Ok(Self::Directory(typed.into())),
        }
    }
}

/// How a channel of a store is followed.
#[derive(Clone, Debug)]
pub struct FollowOptions {
    /// Where the releases are.
    pub store: StoreUrl,
    /// The certificate authorities that its certificate may be from.
    pub trust: Trust,
    /// Which of them.
    pub channel: Channel,
    /// How often to look for a newer one.
    pub poll: Duration,
    /// How often to list the channel.
    pub sweep: Duration,
    /// What is fetched before a release is served.
    pub prefetch: Prefetch,
    /// Whether to serve nothing if the store can't be asked at the start.
    pub is_store_required: bool,
    /// Where what was fetched is kept, if anywhere.
    pub cache: Option<PathBuf>,
    /// Bytes that it may take up there.
    pub cache_size: u64,
    /// How long a path that is gone is still answered, if at all.
    pub keep_old: Option<Duration>,
    /// The flags that change answers and were typed: a release must not say otherwise.
    pub typed: Vec<SettingFlag>,
}

/// What is fetched before a release is served.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Prefetch {
    /// What is short enough to be kept in memory.
    #[default]
    Small,
    /// Everything, into the cache.
    All,
    /// Nothing.
    None,
}

impl Prefetch {
    /// The value as it is typed after `--prefetch`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::All => "all",
            Self::None => "none",
        }
    }
}

/// A text is no [`Prefetch`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("expected small, all or none")]
pub struct InvalidPrefetch;

impl FromStr for Prefetch {
    type Err = InvalidPrefetch;

    fn from_str(text: &str) -> Result<Self, InvalidPrefetch> {
        let mut all = [Self::Small, Self::All, Self::None].into_iter();
        all.find(|it| it.as_str() == text).ok_or(InvalidPrefetch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_told_from_a_store() {
        for directory in [".", "site", "/srv/s3", "a:b", "s3", "s3/x"] {
            let source = SiteSource::read(directory.into());
            assert_eq!(
                source,
                Ok(SiteSource::Directory(directory.into())),
                "{directory}"
            );
        }
        for store in ["s3://bucket/site", "file:///srv/releases"] {
            let source = SiteSource::read(store.into()).expect(store);
            assert!(matches!(source, SiteSource::Store(url) if url.to_string() == store));
        }
        for neither in [
            "http://host/",
            "gs://bucket",
            "s3:bucket",
            "file://host/x",
            "s3://",
        ] {
            assert!(SiteSource::read(neither.into()).is_err(), "{neither}");
        }
    }
}

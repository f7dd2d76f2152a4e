//! The releases of a channel.

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::error::PublishError;
use crate::settings::Channel;
use crate::store::{ReleaseRecord, Store, StoreError, StoreErrorKind};

/// Records that are read at a time.
const MAX_READS: usize = 64;

/// The releases of a channel, the newest first; of one that can't be read its number, and why.
pub type ReleaseHistory = Vec<Result<ReleaseRecord, (u64, StoreError)>>;

/// The releases of a channel, the newest first.
///
/// # Errors
/// When the store can't be asked.
pub async fn history(store: &Store, channel: &Channel) -> Result<ReleaseHistory, PublishError> {
    let releases = store.releases_after(channel, None).await?;
    let reads = releases.into_iter().rev().map(|release| async move {
        match store.record(channel, release.number).await {
            Ok(record) => Ok(Some(Ok(record))),
            // A collector has deleted it since it was listed.
            Err(error) if error.kind == StoreErrorKind::Missing => Ok(None),
            Err(error)
                if matches!(
                    error.kind,
                    StoreErrorKind::Unusable | StoreErrorKind::TooLarge
                ) =>
            {
                Ok(Some(Err((release.number, error))))
            }
            Err(error) => Err(PublishError::from(error)),
        }
    });
    let records: Vec<_> = stream::iter(reads)
        .buffered(MAX_READS)
        .try_collect()
        .await?;
    Ok(records.into_iter().flatten().collect())
}

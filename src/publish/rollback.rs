//! Brings an earlier release back, as a new one.

use std::collections::{HashMap, HashSet};

use super::error::PublishError;
use super::presence::Lack;
use super::release::{ReleaseDraft, ReleasePublisher};
use crate::store::{BlobHash, ReleaseRecord, StoreErrorKind};

/// What a rollback has led to.
#[derive(Debug)]
pub enum Rollback {
    /// A new release.
    Released(ReleaseRecord),
    /// The newest release is the same site already.
    Unchanged(ReleaseRecord),
}

impl ReleasePublisher<'_> {
    /// Makes a release of the site that release `number` had.
    ///
    /// # Errors
    /// When there is no such release, the store lacks some of it, or somebody else has published meanwhile.
    pub async fn roll_back(&self, number: u64) -> Result<Rollback, PublishError> {
        let Some(base) = self.store.newest(&self.channel).await? else {
            return Err(PublishError::NoReleases(self.channel.clone()));
        };
        // A release that nobody can read is the best reason to go back.
        let newest = match self.store.record(&self.channel, base).await {
            Ok(newest) => Some(newest),
            // To itself there is no way back.
            Err(error) if number == base => return Err(error.into()),
            Err(error) => {
                tracing::warn!(%error, "{error}; it is replaced");
                None
            }
        };
        let wanted = match self.store.record(&self.channel, number).await {
            Ok(record) => record,
            Err(error) if error.kind == StoreErrorKind::Missing => {
                let channel = self.channel.clone();
                return Err(PublishError::NoRelease { channel, number });
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(newest) = newest.filter(|newest| wanted.digest == newest.digest) {
            return Ok(Rollback::Unchanged(newest));
        }
        if !self.is_single_writer {
            super::probe::probe(self.store, &self.id).await?;
        }
        let draft = ReleaseDraft {
            digest: wanted.digest,
            manifest: wanted.manifest,
            files: wanted.files,
            bytes: wanted.bytes,
            rollback_to: Some(number),
        };
        let complete = async || self.check(&wanted, &HashSet::new()).await;
        let record = self.release(draft, Some(base), complete).await?;
        Ok(Rollback::Released(record))
    }

    /// Whether the store still has all of a release, of which these contents are known to be there with these
    /// lengths.
    pub(super) async fn check(
        &self,
        wanted: &ReleaseRecord,
        known: &HashSet<(BlobHash, u64)>,
    ) -> Result<(), PublishError> {
        let listing = self.store.listing(&wanted.manifest).await?;
        let blobs: HashMap<_, _> = listing.blobs().collect();
        let blobs_listed = blobs.iter().map(|(hash, size)| (*hash, *size));
        let others = blobs_listed.filter(|blob| !known.contains(blob));
        let lack = Lack::of(self.store, others).await?;
        match lack.len() {
            0 => Ok(()),
            missing => Err(PublishError::Incomplete {
                number: wanted.number,
                missing,
                all: blobs.len(),
            }),
        }
    }
}

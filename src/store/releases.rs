//! The releases of a channel: which is the newest, and what one has.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::error::{ErrorContext, StoreAction, StoreError, StoreErrorKind};
use super::layout::{self, BlobHash, ObjectKey};
use super::listing::{MAX_LENGTH, SiteListing};
use super::record::ReleaseRecord;
use super::{Store, StoredObject};
use crate::settings::Channel;

/// The longest hint that is read: the digits of a number, and an end of line.
pub const MAX_HINT_LENGTH: u64 = 32;

/// The number in a hint. `None` where it is not one: a hint may be lost or damaged, and nothing is.
#[must_use]
pub fn number_in_hint(hint: &[u8]) -> Option<u64> {
    str::from_utf8(hint).ok()?.trim().parse().ok()
}

/// The number of a release, and when it was made, by the clock of the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NumberedRelease {
    /// Its number.
    pub number: u64,
    /// When its record was written.
    pub modified: std::time::SystemTime,
}

impl Store {
    /// The newest release of a channel, whatever the hint says; `None` where it has none.
    ///
    /// # Errors
    /// When the store can't be asked.
    pub async fn newest(&self, channel: &Channel) -> Result<Option<u64>, StoreError> {
        let hint = match self.get(&layout::hint(channel), MAX_HINT_LENGTH).await {
            Ok(hint) => number_in_hint(&hint),
            Err(error)
                if matches!(
                    error.kind,
                    StoreErrorKind::Missing | StoreErrorKind::TooLarge
                ) =>
            {
                None
            }
            Err(error) => return Err(error),
        };
        // The release that the hint names is among those that come after the one before.
        let from = hint.and_then(|number| number.checked_sub(1));
        let newest = self.releases_after(channel, from).await?.pop();
        if newest.is_some() || from.is_none() {
            return Ok(newest.map(|it| it.number));
        }
        // A hint that names none is worth nothing.
        let all = self.releases_after(channel, None).await?.pop();
        Ok(all.map(|it| it.number))
    }

    /// The releases of a channel after the one with this number, or all, in order.
    ///
    /// # Errors
    /// When they can't be listed.
    pub async fn releases_after(
        &self,
        channel: &Channel,
        number: Option<u64>,
    ) -> Result<Vec<NumberedRelease>, StoreError> {
        let after = number.map(|number| layout::release(channel, number));
        let listed = self.list(&layout::channel(channel), after.as_ref()).await?;
        let numbered = |object: StoredObject| {
            let (_, number) = layout::release_of(&object.key)?;
            Some(NumberedRelease {
                number,
                modified: object.modified,
            })
        };
        Ok(listed.into_iter().filter_map(numbered).collect())
    }

    /// The channels that have a release.
    ///
    /// # Errors
    /// When they can't be listed.
    pub async fn channels(&self) -> Result<BTreeSet<Channel>, StoreError> {
        let objects = self.list(layout::CHANNELS, None).await?;
        let channel_of = |object: &StoredObject| Some(layout::release_of(&object.key)?.0);
        Ok(objects.iter().filter_map(channel_of).collect())
    }

    /// Reads the record of a release.
    ///
    /// # Errors
    /// When it is missing, can't be read, or is of another version.
    pub async fn record(
        &self,
        channel: &Channel,
        number: u64,
    ) -> Result<ReleaseRecord, StoreError> {
        match self.record_once(channel, number).await {
            // A bit may have flipped on the way.
            Err(error) if error.kind == StoreErrorKind::Unusable => {
                self.record_once(channel, number).await
            }
            read => read,
        }
    }

    async fn record_once(
        &self,
        channel: &Channel,
        number: u64,
    ) -> Result<ReleaseRecord, StoreError> {
        let key = layout::release(channel, number);
        let bytes = self.get(&key, ReleaseRecord::MAX_LENGTH).await?;
        ReleaseRecord::read(&bytes, number).map_err(|error| self.unusable(&key, &error))
    }

    /// Reads what a release has, and proves it.
    ///
    /// # Errors
    /// When it is missing, damaged, or of another version.
    pub async fn listing(&self, name: &BlobHash) -> Result<SiteListing, StoreError> {
        let bytes = self.listing_bytes(name).await?;
        match self.listing_of(name, &bytes) {
            Err(_) => {
                let bytes = self.listing_bytes(name).await?;
                self.listing_of(name, &bytes)
            }
            read => read,
        }
    }

    /// Reads the object that says what a release has, unproven.
    ///
    /// # Errors
    /// When it is missing, or can't be read.
    pub async fn listing_bytes(&self, name: &BlobHash) -> Result<Bytes, StoreError> {
        self.get(&layout::listing(name), MAX_LENGTH).await
    }

    /// What the object that says what a release has says, once it is proven.
    ///
    /// # Errors
    /// When it is damaged, or of another version.
    pub fn listing_of(&self, name: &BlobHash, bytes: &[u8]) -> Result<SiteListing, StoreError> {
        SiteListing::read(name, bytes)
            .map_err(|error| self.unusable(&layout::listing(name), &error))
    }

    /// What was read can't be used.
    fn unusable(&self, key: &ObjectKey, error: &dyn std::fmt::Display) -> StoreError {
        let context = ErrorContext::of(StoreAction::Read, key, self.url());
        context.error(StoreErrorKind::Unusable, error.to_string())
    }
}

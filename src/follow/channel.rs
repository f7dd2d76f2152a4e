//! Which releases a channel has.

use std::collections::BTreeSet;

use super::error::{Followed, RefusalReason, RefusedRelease};
use crate::settings::Channel;
use crate::store::{
    MAX_HINT_LENGTH, Polled, ReleaseRecord, Store, StoreError, StoreErrorKind, layout,
    number_in_hint,
};

/// A channel of a store, as it was seen last.
#[derive(Clone, Debug)]
pub(super) struct ChannelReader {
    store: Store,
    followed: Followed,
    /// The store's own tag of the hint.
    tag: Option<String>,
    /// What the hint said; `None` where there is none that can be used.
    hint: Option<u64>,
    /// Whether it was said that the hint can't be used.
    is_hint_named: bool,
}

/// Why the record of a release can't be read.
pub(super) enum RecordFailure {
    /// The store can't be asked.
    Store(StoreError),
    /// It is none that can be served here.
    Refused(Box<RefusedRelease>),
}

impl ChannelReader {
    pub(super) fn new(store: Store, followed: Followed) -> Self {
        Self {
            store,
            followed,
            tag: None,
            hint: None,
            is_hint_named: false,
        }
    }

    pub(super) fn followed(&self) -> &Followed {
        &self.followed
    }

    /// The channels of the store that have a release.
    ///
    /// # Errors
    /// When they can't be listed.
    pub(super) async fn others(&self) -> Result<BTreeSet<Channel>, StoreError> {
        self.store.channels().await
    }

    /// The numbers of the releases after `known`, ascending. Where nothing has changed, that costs one
    /// request; the channel is listed where the hint has changed or can't be used, and where `must_list`.
    ///
    /// # Errors
    /// When the store can't be asked.
    pub(super) async fn after(
        &mut self,
        known: u64,
        must_list: bool,
    ) -> Result<Vec<u64>, StoreError> {
        let before = self.hint;
        self.poll_hint().await?;
        let is_news = self.hint != before || self.hint.is_some_and(|hint| hint > known);
        if self.hint.is_some() && !is_news && !must_list {
            return Ok(Vec::new());
        }
        // At a start, what is older than the hint was replaced.
        let start = match (known, self.hint) {
            (0, Some(hint)) => hint.saturating_sub(1),
            _ => known,
        };
        let mut numbers = match self.list(start).await {
            Ok(numbers) => numbers,
            // A store may let its readers read and not list.
            Err(error) if self.hint.is_some() && error.kind == StoreErrorKind::Forbidden => {
                Vec::new()
            }
            Err(error) => return Err(error),
        };
        if let Some(hint) = self
            .hint
            .filter(|hint| *hint > known && !numbers.contains(hint))
        {
            // A store may list late what it gives already.
            if self.has(hint).await? {
                numbers.push(hint);
                numbers.sort_unstable();
            } else {
                self.give_up_hint(hint);
                numbers = self.list(known).await?;
            }
        }
        Ok(numbers)
    }

    /// Reads the hint, if it has changed.
    async fn poll_hint(&mut self) -> Result<(), StoreError> {
        let key = layout::hint(&self.followed.channel);
        match self
            .store
            .poll(&key, self.tag.as_deref(), MAX_HINT_LENGTH)
            .await
        {
            Ok(Polled::Unchanged) => {}
            Ok(Polled::Changed { bytes, tag }) => {
                self.tag = tag;
                self.hint = number_in_hint(&bytes);
                if self.hint.is_none() {
                    self.give_up_hint("no number");
                }
            }
            // Nobody has written one, or who may not list is not told that there is none.
            Err(error)
                if matches!(
                    error.kind,
                    StoreErrorKind::Missing | StoreErrorKind::Forbidden | StoreErrorKind::TooLarge
                ) =>
            {
                (self.tag, self.hint) = (None, None);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Does without the hint until it changes: it says what can't be.
    fn give_up_hint(&mut self, said: impl std::fmt::Display) {
        self.hint = None;
        if !std::mem::replace(&mut self.is_hint_named, true) {
            let key = layout::hint(&self.followed.channel);
            let store = &self.followed.store;
            tracing::warn!(
                %store, object = %key, %said,
                "{key} of {store} does not name the newest release ({said}): the channel is listed \
                 instead"
            );
        }
    }

    /// The numbers of the releases after `start` that the store lists, ascending.
    ///
    /// # Errors
    /// When the store can't be asked.
    pub(super) async fn list(&self, start: u64) -> Result<Vec<u64>, StoreError> {
        let channel = &self.followed.channel;
        let listed = self.store.releases_after(channel, Some(start)).await?;
        Ok(listed.into_iter().map(|release| release.number).collect())
    }

    /// Whether the channel has a hint that can be used.
    pub(super) fn has_hint(&self) -> bool {
        self.hint.is_some()
    }

    /// Asks for the record of a release.
    ///
    /// # Errors
    /// When it is not there, or the store can't be asked.
    pub(super) async fn check(&self, number: u64) -> Result<(), StoreError> {
        let key = layout::release(&self.followed.channel, number);
        self.store.head(&key).await.map(drop)
    }

    /// Whether the record of a release is there.
    ///
    /// # Errors
    /// When the store can't be asked.
    async fn has(&self, number: u64) -> Result<bool, StoreError> {
        match self.check(number).await {
            Ok(()) => Ok(true),
            Err(error) if error.kind == StoreErrorKind::Missing => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The record of a release.
    ///
    /// # Errors
    /// When it can't be read, or is none that can be served here.
    pub(super) async fn record(&self, number: u64) -> Result<ReleaseRecord, RecordFailure> {
        let read = self.store.record(&self.followed.channel, number).await;
        read.map_err(|error| match error.is_passing() {
            true => RecordFailure::Store(error),
            false => {
                let reason = RefusalReason::Content(error.to_string());
                RecordFailure::Refused(self.refused(number, reason))
            }
        })
    }

    /// A release that can't be served, and why.
    pub(super) fn refused(&self, number: u64, reason: RefusalReason) -> Box<RefusedRelease> {
        Box::new(RefusedRelease {
            number,
            followed: self.followed.clone(),
            reason,
        })
    }
}

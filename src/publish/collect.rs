//! Deletes what no release needs.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use std::time::{Duration, SystemTime};

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::error::PublishError;
use super::identity::PublisherId;
use super::lock::{LockRequest, StoreLock, is_older};
use crate::settings::Channel;
use crate::store::layout::{self, LockKind, ObjectKey};
use crate::store::{BlobHash, NumberedRelease, Store, StoreError, StoredObject};

/// How long a publisher is waited for. The lock of one that was killed counts for two minutes.
const MAX_WAIT: Duration = Duration::from_secs(180);
/// Older locks and probes are removed.
const MAX_LEFT_AGE: Duration = Duration::from_secs(3600);
/// Objects that are deleted in one step.
const MAX_DELETED: usize = 200;
/// Listings that are read at a time.
const MAX_READS: usize = 16;

/// What deletes, and what it leaves.
#[derive(Debug)]
pub struct Collector<'s> {
    /// The store.
    pub store: &'s Store,
    /// What tells this process from all others.
    pub id: PublisherId,
    /// Who that is, for people.
    pub who: String,
    /// So many releases of each channel are kept, at least one.
    pub keep: usize,
    /// What was needed at any moment within this time is kept, too.
    pub grace: Duration,
}

/// What is deleted, or would be.
#[derive(Debug, Default)]
pub struct Collection {
    /// Releases that are kept.
    pub kept: usize,
    /// Releases that are not.
    pub releases: Vec<StoredObject>,
    /// Listings, contents and trees that no kept release needs.
    pub garbage: Vec<StoredObject>,
    /// What killed processes have left: locks and probes.
    pub left: Vec<StoredObject>,
}

impl Collection {
    /// All of it, in the order in which it is deleted: a release that is listed has all that it needs.
    pub fn objects(&self) -> impl Iterator<Item = &StoredObject> {
        self.releases.iter().chain(&self.garbage).chain(&self.left)
    }

    /// How many bytes it has.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.objects().map(|object| object.size).sum()
    }
}

impl Collector<'_> {
    /// Deletes, while nobody publishes; with `is_dry_run` it finds out what would be deleted.
    ///
    /// # Errors
    /// When somebody publishes for too long, it can't be told what is needed, or the store can't be asked.
    pub async fn collect(&self, is_dry_run: bool) -> Result<Collection, PublishError> {
        // In what is no store, not even a lock is written. What is deleted is listed under the lock.
        if self.store.channels().await?.is_empty() {
            return Err(PublishError::NoStore(self.store.url().clone()));
        }
        let request = LockRequest {
            store: self.store,
            kind: LockKind::Collect,
            id: &self.id,
            who: &self.who,
            max_wait: MAX_WAIT,
        };
        let lock = request.acquire().await?;
        let collected = self.collect_under(&lock, is_dry_run).await;
        lock.release().await;
        collected
    }

    async fn collect_under(
        &self,
        lock: &StoreLock<'_>,
        is_dry_run: bool,
    ) -> Result<Collection, PublishError> {
        let collection = self.find(lock).await?;
        if !is_dry_run {
            // One after the other: a record must not outlive what it needs.
            for objects in [&collection.releases, &collection.garbage, &collection.left] {
                for objects in objects.chunks(MAX_DELETED) {
                    let keys: Vec<ObjectKey> = objects.iter().map(|it| it.key.clone()).collect();
                    lock.delete_all(&keys).await?;
                }
            }
            let now = lock.written;
            let before = now.checked_sub(self.grace.max(MAX_LEFT_AGE)).unwrap_or(now);
            self.store.remove_unfinished(before).await?;
        }
        Ok(collection)
    }

    async fn find(&self, lock: &StoreLock<'_>) -> Result<Collection, PublishError> {
        let now = lock.written;
        let grace_began = now
            .checked_sub(self.grace)
            .unwrap_or(SystemTime::UNIX_EPOCH);
        let records = self.store.list(layout::CHANNELS, None).await?;
        // What it needs can't be known, so it would be deleted.
        let is_known = |key| layout::release_of(key).is_some() || layout::is_hint(key);
        if let Some(foreign) = records.iter().find(|record| !is_known(&record.key)) {
            return Err(PublishError::Foreign(foreign.key.clone()));
        }
        let (mut kept, mut releases) = (Vec::new(), Vec::new());
        for (channel, numbered) in by_channel(&records) {
            let first = first_kept(&numbered, self.keep, grace_began);
            for release in numbered {
                match release.number >= first {
                    true => kept.push((channel.clone(), release.number)),
                    false => releases.push(layout::release(&channel, release.number)),
                }
            }
        }
        // A mount below it may be missing, or a copy may not be finished: then nothing seems to be needed.
        if kept.is_empty() {
            return Err(PublishError::NoStore(self.store.url().clone()));
        }
        let needed = self.needed(&kept).await?;
        let mut garbage = Vec::new();
        for (folder, needed) in [
            (layout::LISTINGS, &needed.listings),
            (layout::BLOBS, &needed.blobs),
            (layout::TREES, &needed.blobs),
        ] {
            let is_garbage = |object: &StoredObject| {
                // What has another name is somebody else's.
                let hash = layout::hash_of(&object.key);
                let is_unneeded = hash.is_some_and(|hash| !needed.contains(&hash));
                is_unneeded && object.modified < grace_began
            };
            // There may be millions, most of them needed.
            let mut objects = Vec::new();
            let collect = |object: StoredObject| {
                objects.extend(is_garbage(&object).then_some(object));
                ControlFlow::Continue(())
            };
            self.store.visit(folder, collect).await?;
            objects.sort_by(|a, b| a.key.cmp(&b.key));
            garbage.append(&mut objects);
        }
        let unkept: HashSet<_> = releases.into_iter().collect();
        let mut releases = records;
        releases.retain(|object| unkept.contains(&object.key));
        Ok(Collection {
            kept: kept.len(),
            releases,
            garbage,
            left: self.left_behind(now).await?,
        })
    }

    /// What the kept releases need.
    async fn needed(&self, kept: &[(Channel, u64)]) -> Result<Needed, PublishError> {
        let unknown = |channel: &Channel, number, source: StoreError| PublishError::Unknown {
            channel: channel.clone(),
            number,
            source: Box::new(source),
        };
        let mut listings = BTreeMap::new();
        let records = kept.iter().map(|(channel, number)| async move {
            let record = self.store.record(channel, *number).await;
            let record = record.map_err(|error| unknown(channel, *number, error))?;
            Ok::<_, PublishError>((record.manifest, (channel, *number)))
        });
        let mut records = stream::iter(records).buffer_unordered(MAX_READS);
        while let Some((listing, release)) = records.try_next().await? {
            listings.insert(listing, release);
        }
        let mut blobs = HashSet::new();
        // One by one: each may be as large as memory allows.
        for (name, (channel, number)) in &listings {
            let listing = self.store.listing(name).await;
            let listing = listing.map_err(|error| unknown(channel, *number, error))?;
            blobs.extend(listing.blobs().map(|(hash, _)| hash));
        }
        Ok(Needed {
            listings: listings.into_keys().collect(),
            blobs,
        })
    }

    async fn left_behind(&self, now: SystemTime) -> Result<Vec<StoredObject>, PublishError> {
        let mut left = self.store.list(layout::LOCKS, None).await?;
        left.append(&mut self.store.list(layout::PROBES, None).await?);
        left.retain(|object| is_older(object, now, MAX_LEFT_AGE));
        Ok(left)
    }
}

/// What the kept releases need.
struct Needed {
    listings: HashSet<BlobHash>,
    blobs: HashSet<BlobHash>,
}

/// The releases of each channel, in order.
fn by_channel(records: &[StoredObject]) -> BTreeMap<Channel, Vec<NumberedRelease>> {
    let mut channels: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for object in records {
        if let Some((channel, number)) = layout::release_of(&object.key) {
            channels.entry(channel).or_default().push(NumberedRelease {
                number,
                modified: object.modified,
            });
        }
    }
    channels
}

/// The oldest release that is kept: of the newest `keep`, at least one, and of those that were the newest at
/// any moment from `since` on.
fn first_kept(releases: &[NumberedRelease], keep: usize, since: SystemTime) -> u64 {
    let of_number = releases.len().saturating_sub(keep.max(1));
    // A release was the newest until the next one was made.
    let replaced_before = |pair: &&[NumberedRelease]| pair[1].modified < since;
    let of_time = releases.windows(2).take_while(replaced_before).count();
    releases
        .get(of_number.min(of_time))
        .map_or(0, |release| release.number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_kept_by_number_and_by_time() {
        let day = Duration::from_secs(86_400);
        let at = |days: u32| SystemTime::UNIX_EPOCH + day * days;
        let releases: Vec<_> = [(1, 10), (2, 11), (4, 15), (5, 20), (6, 21)]
            .into_iter()
            .map(|(number, days)| NumberedRelease {
                number,
                modified: at(days),
            })
            .collect();
        for (keep, since, first) in [
            (10, 30, 1),
            (2, 30, 5),
            (1, 30, 6),
            (0, 30, 6),
            // 5 was the newest until day 21.
            (1, 21, 5),
            (1, 16, 4),
            // 2 was the newest until day 15.
            (1, 15, 2),
            (1, 0, 1),
            (4, 30, 2),
        ] {
            let is = first_kept(&releases, keep, at(since));
            assert_eq!(is, first, "keep {keep} since day {since}");
        }
        assert_eq!(first_kept(&[], 1, at(0)), 0);
    }
}

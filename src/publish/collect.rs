//! Deletes what no release needs.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::ControlFlow;
use std::time::{Duration, SystemTime};

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::error::PublishError;
use super::identity::PublisherId;
use super::lock::{LockRequest, StoreLock, is_older};
use crate::settings::Channel;
use crate::store::layout::{self, LockKind, ObjectKey};
use crate::store::{
    BlobHash, MAX_HINT_LENGTH, NumberedRelease, Store, StoreError, StoreErrorKind, StoredObject,
    number_in_hint,
};

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
        let channels = by_channel(&records);
        self.compare_hints(&records, &channels).await?;
        let (mut kept, mut releases) = (Vec::new(), Vec::new());
        for (channel, numbered) in channels {
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
        // What is listed late is needed as well.
        let again = self.store.list(layout::CHANNELS, None).await?;
        if let Some(key) = first_difference(&records, &again) {
            return Err(PublishError::Unsteady(key));
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

    /// Makes sure that no hint names a release that is there and was not listed.
    async fn compare_hints(
        &self,
        records: &[StoredObject],
        channels: &BTreeMap<Channel, Vec<NumberedRelease>>,
    ) -> Result<(), PublishError> {
        let hints = records.iter().filter(|it| layout::is_hint(&it.key));
        let compared = hints.map(|hint| async {
            let text = match self.store.get(&hint.key, MAX_HINT_LENGTH).await {
                Ok(text) => text,
                // It is never taken for a fact.
                Err(error)
                    if matches!(
                        error.kind,
                        StoreErrorKind::Missing | StoreErrorKind::TooLarge
                    ) =>
                {
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            };
            let (Some(channel), Some(number)) =
                (layout::channel_of_hint(&hint.key), number_in_hint(&text))
            else {
                return Ok(());
            };
            let newest = channels.get(&channel).and_then(|it| it.last());
            if newest.is_some_and(|newest| newest.number >= number) {
                return Ok(());
            }
            let key = layout::release(&channel, number);
            match self.store.head(&key).await {
                Ok(_) => Err(PublishError::Unsteady(key)),
                Err(error) if error.kind == StoreErrorKind::Missing => Ok(()),
                Err(error) => Err(error.into()),
            }
        });
        stream::iter(compared)
            .buffer_unordered(MAX_READS)
            .try_collect()
            .await
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

/// A release that only one of two lists has.
fn first_difference(first: &[StoredObject], second: &[StoredObject]) -> Option<ObjectKey> {
    let releases = |objects: &[StoredObject]| -> BTreeSet<ObjectKey> {
        let keys = objects.iter().map(|object| &object.key);
        keys.filter(|key| layout::release_of(key).is_some())
            .cloned()
            .collect()
    };
    releases(first)
        .symmetric_difference(&releases(second))
        .next()
        .cloned()
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
    use bytes::Bytes;

    use super::*;
    use crate::publish::publisher_id;
    use crate::settings::StoreUrl;
    use crate::store::StorePatience;
    use crate::trust::Trust;

    #[test]
    fn a_list_that_lacks_a_release_is_not_believed() {
        let folder = tempfile::tempdir().expect("a folder");
        let url = StoreUrl::Folder(folder.path().to_path_buf());
        let store = Store::open(&url, StorePatience::default(), &Trust::Nobody).expect("a store");
        let collector = Collector {
            store: &store,
            id: publisher_id(),
            who: "somebody".to_owned(),
            keep: 1,
            grace: Duration::ZERO,
        };
        let live = Channel::default();
        let compare = async || {
            let put = async |key: &ObjectKey, text: &'static str| {
                let bytes = Bytes::from_static(text.as_bytes());
                store.put(key, bytes).await.expect("written");
            };
            for number in [1, 2] {
                put(&layout::release(&live, number), "").await;
            }
            let whole = store.list(layout::CHANNELS, None).await.expect("listed");
            put(&layout::hint(&live), "2\n").await;
            let listed = store.list(layout::CHANNELS, None).await.expect("listed");
            assert_eq!(first_difference(&whole, &listed), None);
            let second = layout::release(&live, 2);
            let mut short = listed.clone();
            short.retain(|object| object.key != second);
            assert_eq!(first_difference(&listed, &short), Some(second.clone()));
            assert_eq!(first_difference(&short, &listed), Some(second));
            for (hint, listed, is_believed) in [
                ("2\n", &listed, true),
                ("2\n", &short, false),
                ("1\n", &short, true),
                // There is none with this number.
                ("3\n", &short, true),
                ("x", &short, true),
            ] {
                put(&layout::hint(&live), hint).await;
                let compared = collector.compare_hints(listed, &by_channel(listed)).await;
                let what = format!("{hint} {}: {compared:?}", listed.len());
                assert_eq!(compared.is_ok(), is_believed, "{what}");
            }
        };
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
            .block_on(compare());
    }

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

//! `--keep-old` across replicas: what earlier releases had, and the one that is served has not.
//!
//! A replica that has just started, or has not seen every release, answers for them as one that has
//! served them all: when a path was removed is what the records say.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::time::{sleep, timeout};

use super::channel::{ChannelReader, RecordFailure};
use super::fetchers::aside;
use super::taking::{TakeError, Taker};
use crate::manifest::{Changes, Manifest};
use crate::representation::Resource;
use crate::site::Site;
use crate::store::{BlobHash, ReleaseRecord};

/// Earlier releases that are looked at. Who makes more of them in the time of `--keep-old` has the oldest
/// forgotten.
const MAX_EARLIER: usize = 500;

/// Earlier releases that are read at the same time.
const MAX_PARALLEL: usize = 4;
/// How long after the store could not be asked it is asked for the rest.
const RETRY_PAUSE: Duration = Duration::from_secs(30);

/// What was removed lately, and until when it is served.
pub(super) type RetiredResources = Vec<(Arc<Resource>, Instant)>;

/// How long ago something was, by a clock that need not be this machine's.
pub(super) fn age(of: SystemTime) -> Duration {
    SystemTime::now().duration_since(of).unwrap_or_default()
}

/// What the releases before another one had that it has not, as far as it was removed lately. It is read
/// from the newest to the oldest, and may be broken off at any time and gone on with later.
pub(super) struct RecentReleases {
    record: ReleaseRecord,
    since: u64,
    keep: Duration,
    /// What is still to be read, the newest first; `None` until the channel was listed.
    numbers: Option<VecDeque<u64>>,
    /// When what is read next was removed.
    removed_at: SystemTime,
    /// The listings that were read.
    listings: HashSet<BlobHash>,
    /// The paths that are known.
    seen: HashSet<Box<[u8]>>,
    /// Whether it was said that the store can't be asked.
    is_said: bool,
}

/// Why an earlier release is not known.
enum EarlierFailure {
    /// The store can't be asked now.
    Passing(String),
    /// It can't be used.
    Refused(String),
}

impl RecentReleases {
    /// Of the releases before `record` and after `since`, what was removed within the time `keep`.
    pub(super) fn new(record: &ReleaseRecord, since: u64, keep: Duration) -> Self {
        Self {
            record: record.clone(),
            since,
            keep,
            numbers: None,
            removed_at: record.at.into(),
            listings: HashSet::from([record.manifest]),
            seen: HashSet::new(),
            is_said: false,
        }
    }

    /// Whether nothing more is to be known.
    pub(super) fn is_done(&self) -> bool {
        let is_over = self.keep <= age(self.removed_at);
        is_over || self.numbers.as_ref().is_some_and(VecDeque::is_empty)
    }

    /// Reads what is not known yet, within a time if there is one, and as long as the store answers. What
    /// can't be used is left out, and named.
    pub(super) async fn load(
        &mut self,
        taker: &Taker,
        channel: &ChannelReader,
        manifest: &Arc<Manifest>,
        within: Option<Duration>,
    ) -> RetiredResources {
        let mut retired = RetiredResources::new();
        let loading = self.load_into(&mut retired, taker, channel, manifest);
        match within {
            // What was read by then is kept.
            Some(within) => drop(timeout(within, loading).await),
            None => loading.await,
        }
        retired
    }

    /// Reads what the cache has, release by release: without the store.
    pub(super) async fn load_cached(
        &mut self,
        taker: &Taker,
        channel: &ChannelReader,
        manifest: &Arc<Manifest>,
    ) -> RetiredResources {
        let mut retired = RetiredResources::new();
        let mut previous = self.record.previous;
        for _ in 0..MAX_EARLIER {
            let Some(number) = previous.filter(|_| !self.is_done()) else {
                break;
            };
            let Some(record) = taker.cached_record(channel, number).await else {
                break;
            };
            previous = record.previous;
            let mut gone = Vec::new();
            if !self.listings.contains(&record.manifest)
                && let Some(site) = taker.cached_earlier(&record, Arc::clone(manifest)).await
            {
                gone = gone_since(site, Arc::clone(manifest)).await;
            }
            self.add(&mut retired, &record, gone);
        }
        retired
    }

    /// Reads the rest, however long that takes, and has it be served.
    pub(super) async fn finish(mut self, taker: Taker, channel: ChannelReader, site: Arc<Site>) {
        while !self.is_done() {
            let manifest = Arc::clone(&site.current());
            let retired = self.load(&taker, &channel, &manifest, None).await;
            if !retired.is_empty() {
                site.update(|_| {
                    Some(Changes {
                        retired,
                        ..Changes::default()
                    })
                });
            }
            if !self.is_done() {
                sleep(RETRY_PAUSE).await;
            }
        }
    }

    async fn load_into(
        &mut self,
        retired: &mut RetiredResources,
        taker: &Taker,
        channel: &ChannelReader,
        manifest: &Arc<Manifest>,
    ) {
        if self.is_done() {
            return;
        }
        if self.numbers.is_none() {
            match channel.list(self.since).await {
                Ok(numbers) => {
                    let earlier = numbers.into_iter().filter(|it| *it < self.record.number);
                    self.numbers = Some(earlier.rev().take(MAX_EARLIER).collect());
                }
                Err(error) => {
                    if !error.is_passing() {
                        // Who may read and not list will not be told later either.
                        self.numbers = Some(VecDeque::new());
                    }
                    return self.note_passing(&error.to_string());
                }
            }
        }
        let mut upcoming: VecDeque<u64> = self.numbers.clone().unwrap_or_default();
        let mut under_way = VecDeque::new();
        while !self.is_done() {
            while under_way.len() < MAX_PARALLEL
                && let Some(number) = upcoming.pop_front()
            {
                let known = self.listings.clone();
                let (taker, channel) = (taker.clone(), channel.clone());
                let manifest = Arc::clone(manifest);
                let fetchers = Arc::clone(&taker.depot);
                let reading = site_of(taker, channel, number, manifest, known);
                under_way.push_back((number, fetchers.fetchers.spawn(reading)));
            }
            let Some((number, reading)) = under_way.pop_front() else {
                return;
            };
            let found = reading.await;
            // A panic has been reported by its hook.
            let found =
                found.unwrap_or_else(|stopped| Err(EarlierFailure::Refused(stopped.to_string())));
            match found {
                Ok((earlier, gone)) => self.add(retired, &earlier, gone),
                Err(EarlierFailure::Passing(reason)) => return self.note_passing(&reason),
                Err(EarlierFailure::Refused(reason)) => tracing::warn!(
                    release = number, %reason,
                    "files of release {number} are not served (--keep-old): {reason}"
                ),
            }
            if let Some(numbers) = &mut self.numbers {
                numbers.pop_front();
            }
        }
    }

    fn note_passing(&mut self, reason: &str) {
        if !std::mem::replace(&mut self.is_said, true) {
            tracing::warn!(
                reason,
                "some earlier files are not served yet (--keep-old): {reason}"
            );
        }
    }

    /// Adds what an earlier release had, and notes when what is before it was removed.
    fn add(
        &mut self,
        retired: &mut RetiredResources,
        earlier: &ReleaseRecord,
        gone: Vec<Arc<Resource>>,
    ) {
        let until = Instant::now() + self.keep.saturating_sub(age(self.removed_at));
        self.removed_at = earlier.at.into();
        self.listings.insert(earlier.manifest);
        for resource in gone {
            if self.seen.insert(resource.path.clone()) {
                retired.push((resource, until));
            }
        }
    }
}

/// What an earlier site had that `manifest` has not, pages excepted.
async fn gone_since(site: Manifest, manifest: Arc<Manifest>) -> Vec<Arc<Resource>> {
    let gone = move || {
        let is_gone = |resource: &&Arc<Resource>| {
            manifest.locate(&resource.path).is_none() && !site.is_page(resource)
        };
        site.iter().filter(is_gone).cloned().collect()
    };
    aside(gone).await
}

/// An earlier release, and what it had that `manifest` has not; nothing where one with the same files was
/// looked at already.
async fn site_of(
    taker: Taker,
    channel: ChannelReader,
    number: u64,
    manifest: Arc<Manifest>,
    known: HashSet<BlobHash>,
) -> Result<(ReleaseRecord, Vec<Arc<Resource>>), EarlierFailure> {
    let record = channel
        .record(number)
        .await
        .map_err(|failure| match failure {
            RecordFailure::Store(error) => EarlierFailure::Passing(error.to_string()),
            RecordFailure::Refused(refused) => EarlierFailure::Refused(refused.to_string()),
        })?;
    taker.keep_record(&channel, &record).await;
    if known.contains(&record.manifest) {
        return Ok((record, Vec::new()));
    }
    let earlier = taker.earlier(&channel, &record, Some(Arc::clone(&manifest)));
    match earlier.await {
        Ok(site) => Ok((record, gone_since(site, manifest).await)),
        Err(TakeError::Passing(error)) => Err(EarlierFailure::Passing(error.to_string())),
        Err(TakeError::Refused(refused)) => Err(EarlierFailure::Refused(refused.to_string())),
    }
}

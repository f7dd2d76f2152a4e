//! The first release that a process serves: the newest one, or else the last that was proven here.

use std::fmt;
use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::channel::{ChannelReader, RecordFailure};
use super::depot::Depot;
use super::earlier::{RecentReleases, RetiredResources};
use super::error::{FollowError, Followed, RefusedRelease};
use super::fetchers::Fetchers;
use super::names;
use super::schedule::chance;
use super::taking::{ReleaseSource, TakeError, TakenRelease, Taker};
use crate::cache::Cache;
use crate::manifest::{Changes, Manifest};
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::progress::ByteProgress;
use crate::readiness::Readiness;
use crate::settings::FollowOptions;
use crate::store::{ReleaseRecord, Store, StoreError, StorePatience};

/// How long the store is waited for before it is taken to be away: clients wait, too.
const PATIENCE: StorePatience = StorePatience {
    stall: Duration::from_secs(5),
    retries: 3,
    retry_time: Duration::from_secs(10),
};
/// How long a start waits for a store before it serves what was proven before.
const MAX_START_WAIT: Duration = Duration::from_secs(10);
/// The longest pause between two attempts to start, unless `--poll` is longer.
const MAX_START_PAUSE: Duration = Duration::from_secs(15);
/// How long a release waits for what earlier ones had (`--keep-old`). The rest follows.
const MAX_EARLIER_WAIT: Duration = Duration::from_secs(3);
/// How many releases are gone back if the newest ones can't be served.
pub(super) const MAX_STEPS_BACK: usize = 10;

/// What follows a channel, before it has a site to publish to.
pub struct StoreFollower {
    pub(super) options: FollowOptions,
    pub(super) channel: ChannelReader,
    pub(super) taker: Taker,
    pub(super) metrics: Arc<Metrics>,
    pub(super) readiness: Arc<Readiness>,
    /// The release that is served.
    pub(super) served: Option<ReleaseRecord>,
    /// The newest release, if it can't be served.
    pub(super) refused: Option<u64>,
    /// Why it can't.
    pub(super) refusal: Option<String>,
    /// Why the store could not be asked, if it could not the last time.
    pub(super) absence: Option<String>,
    /// Why a newer release is not served yet.
    pub(super) delay: Option<String>,
    /// What is wrong if the record of the release that is served is not there any more.
    pub(super) gone: Option<String>,
    /// What is still to be known of earlier releases.
    pub(super) rest: Option<RecentReleases>,
    /// Whether the store could not be asked the last time.
    pub(super) is_away: bool,
    /// Whether its folder was missing.
    is_unopened: bool,
    /// Whether it was said that what the cache has of the last release can't be used.
    is_cache_named: bool,
}

/// Why there is no release to begin with.
enum NoRelease {
    /// The channel has none.
    Empty(Followed),
    /// The store can't be asked.
    Store(StoreError),
    /// It takes too long.
    Slow(Followed),
    /// None can be served.
    Refused(Box<RefusedRelease>),
}

impl fmt::Display for NoRelease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty(followed) => write!(f, "{followed} has no release yet: push one"),
            Self::Store(error) => error.fmt(f),
            Self::Slow(followed) => {
                let seconds = MAX_START_WAIT.as_secs();
                write!(f, "{} has not answered within {seconds} s", followed.store)
            }
            Self::Refused(refused) => refused.fmt(f),
        }
    }
}

impl StoreFollower {
    /// Opens the store and the cache. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When they can't be used, or the system has no more threads.
    pub fn open(
        options: FollowOptions,
        memory: Arc<Memory>,
        metrics: Arc<Metrics>,
        readiness: Arc<Readiness>,
        cores: usize,
    ) -> Result<Self, FollowError> {
        let (store, is_unopened) = match Store::open(&options.store, PATIENCE) {
            Ok(store) => (store, false),
            Err(_) => {
                let store = Store::open_later(&options.store, PATIENCE);
                (store.map_err(FollowError::Store)?, true)
            }
        };
        let cache = match &options.cache {
            Some(directory) => Some(Arc::new(Cache::open(directory, None, options.cache_size)?)),
            None => None,
        };
        let fetchers = Fetchers::start(cores).map_err(FollowError::Threads)?;
        let followed = Followed {
            store: options.store.clone(),
            channel: options.channel.clone(),
        };
        let channel = ChannelReader::new(store.clone(), followed);
        let depot = Depot::new(store, cache, fetchers, memory, Arc::clone(&metrics));
        depot.metrics().is_reachable.store(true, Ordering::Relaxed);
        let taker = Taker {
            depot: Arc::new(depot),
            prefetch: options.prefetch,
            typed: options.typed.clone(),
            progress: Arc::default(),
        };
        Ok(Self {
            options,
            channel,
            taker,
            metrics,
            readiness,
            served: None,
            refused: None,
            refusal: None,
            absence: None,
            delay: None,
            gone: None,
            rest: None,
            is_away: false,
            is_unopened,
            is_cache_named: false,
        })
    }

    /// How much of what is fetched before a release is served is there.
    pub fn progress(&self) -> Arc<ByteProgress> {
        Arc::clone(&self.taker.progress)
    }

    /// Where the releases are.
    pub fn followed(&self) -> &Followed {
        self.channel.followed()
    }

    /// Takes the first release, and returns the state of the site that it is. Waits while the channel has
    /// none, and while the store is away and nothing was proven before.
    ///
    /// # Errors
    /// When there is nothing to wait for.
    pub async fn begin(self) -> Result<(Self, Manifest), FollowError> {
        // On a thread of its own, where the store's connections live.
        let depot = Arc::clone(&self.taker.depot);
        let begun = depot.fetchers.spawn(self.begin_here()).await;
        begun.unwrap_or_else(|stopped| Err(FollowError::Threads(io::Error::other(stopped))))
    }

    async fn begin_here(mut self) -> Result<(Self, Manifest), FollowError> {
        let mut is_said = false;
        let mut pause = self.options.poll;
        loop {
            let obstacle = match self.newest().await {
                Ok(taken) => {
                    let manifest = self.begin_with(taken).await;
                    return Ok((self, manifest));
                }
                Err(obstacle) => obstacle,
            };
            let reason = obstacle.to_string();
            match obstacle {
                NoRelease::Refused(refused) if refused.is_usage() => return Err(refused.into()),
                NoRelease::Store(_) | NoRelease::Slow(_) if self.options.is_store_required => {
                    return Err(FollowError::Required(reason));
                }
                NoRelease::Empty(_) if self.options.is_store_required => {}
                // No channel loses its newest release: where there is none and one was proven here, a
                // file system is not mounted.
                _ => {
                    let is_away = !matches!(obstacle, NoRelease::Refused(_));
                    if let Some(manifest) = self.begin_offline(&reason, is_away).await {
                        return Ok((self, manifest));
                    }
                }
            }
            match obstacle {
                NoRelease::Refused(refused) => return Err(refused.into()),
                NoRelease::Store(error) if !error.is_passing() => {
                    return Err(FollowError::Store(error));
                }
                _ => {}
            }
            // A first release is awaited by somebody; a store that is in trouble is asked seldom.
            pause = match obstacle {
                NoRelease::Empty(_) => self.options.poll,
                _ => (pause * 2).min(MAX_START_PAUSE.max(self.options.poll)),
            };
            self.readiness.explain(Some(reason.clone()));
            if !mem::replace(&mut is_said, true) {
                let store = &self.options.store;
                tracing::warn!(%store, "{reason}; not ready until there is something to serve");
            }
            sleep(pause.mul_f64(0.9 + 0.2 * chance())).await;
        }
    }

    /// Finds out whether the folder of the store is there, if it was not.
    ///
    /// # Errors
    /// When it is not.
    pub(super) fn open_store(&mut self) -> Result<(), StoreError> {
        if self.is_unopened {
            Store::open(&self.options.store, PATIENCE)?;
            self.is_unopened = false;
        }
        Ok(())
    }

    /// The newest release that can be served.
    async fn newest(&mut self) -> Result<TakenRelease, NoRelease> {
        let followed = self.channel.followed().clone();
        self.open_store().map_err(NoRelease::Store)?;
        let listed = timeout(MAX_START_WAIT, self.channel.after(0, true)).await;
        let listed = listed.map_err(|_| NoRelease::Slow(followed.clone()))?;
        let Some(newest) = listed.map_err(NoRelease::Store)?.pop() else {
            return Err(NoRelease::Empty(followed));
        };
        let first = match self.take(newest, None, &|_| {}).await {
            Ok(taken) => return Ok(taken),
            Err(TakeError::Passing(error)) => return Err(NoRelease::Store(error)),
            Err(TakeError::Refused(refused)) => refused,
        };
        self.refused = Some(newest);
        self.taker.depot.metrics().releases_refused.increment();
        if first.is_usage() {
            return Err(NoRelease::Refused(first));
        }
        // What replicas serve that have run for longer: the last good one.
        let earlier = self.channel.list(0).await.map_err(NoRelease::Store)?;
        let earlier = earlier.into_iter().rev().filter(|number| *number < newest);
        for number in earlier.take(MAX_STEPS_BACK) {
            match self.take(number, None, &|_| {}).await {
                Ok(taken) => {
                    tracing::warn!(
                        release = newest, served = number, store = %followed.store,
                        "{first}; release {number} is served"
                    );
                    self.refusal = Some(first.to_string());
                    return Ok(taken);
                }
                // What passes is no reason to go further back.
                Err(TakeError::Passing(error)) => return Err(NoRelease::Store(error)),
                Err(TakeError::Refused(_)) => {}
            }
        }
        Err(NoRelease::Refused(first))
    }

    /// Makes a release ready to be served.
    pub(super) async fn take(
        &self,
        number: u64,
        current: Option<Arc<Manifest>>,
        on_known: &(dyn Fn(&Arc<Manifest>) + Send + Sync),
    ) -> Result<TakenRelease, TakeError> {
        let record = match self.channel.record(number).await {
            Ok(record) => record,
            Err(RecordFailure::Store(error)) => return Err(TakeError::Passing(error)),
            Err(RecordFailure::Refused(refused)) => return Err(TakeError::Refused(refused)),
        };
        self.taker
            .take(&self.channel, record, current, on_known)
            .await
    }

    /// Begins with a release of the store.
    async fn begin_with(&mut self, taken: TakenRelease) -> Manifest {
        let TakenRelease {
            record,
            manifest,
            source,
        } = taken;
        let (retired, rest) = self.retired(&record, &manifest, 0).await;
        self.rest = rest;
        self.note_remark();
        self.note_served(&record, &source);
        let followed = self.channel.followed();
        tracing::info!(
            release = record.number,
            store = %followed.store,
            channel = %followed.channel,
            digest = %record.digest,
            files = record.files,
            bytes = record.bytes,
            who = record.who,
            note = record.note,
            "release {} of {followed}: site digest {}",
            record.number,
            record.digest
        );
        self.served = Some(record);
        manifest.with(Changes {
            retired,
            ..Changes::default()
        })
    }

    /// What the releases before `record` and after `since` had, as far as that is known soon, and what
    /// knows the rest.
    pub(super) async fn retired(
        &self,
        record: &ReleaseRecord,
        manifest: &Arc<Manifest>,
        since: u64,
    ) -> (RetiredResources, Option<RecentReleases>) {
        let Some(keep) = self.options.keep_old else {
            return (Vec::new(), None);
        };
        let mut earlier = RecentReleases::new(record, since, keep);
        let loading = earlier.load(&self.taker, &self.channel, manifest, Some(MAX_EARLIER_WAIT));
        let retired = loading.await;
        (retired, Some(earlier).filter(|earlier| !earlier.is_done()))
    }

    /// Tells the operator what is not as it should be.
    pub(super) fn note_remark(&self) {
        let all = [&self.absence, &self.delay, &self.gone, &self.refusal];
        self.readiness
            .remark(all.into_iter().flatten().next().cloned());
    }

    /// Notes that a release was proven: it is what a start without the store begins with.
    pub(super) fn note_served(&self, record: &ReleaseRecord, source: &ReleaseSource) {
        let metrics = self.taker.depot.metrics();
        metrics.release.store(record.number, Ordering::Relaxed);
        metrics.releases_taken.increment();
        if let Some(cache) = &self.taker.depot.cache {
            let (cache, entry) = (Arc::clone(cache), source.to_entry(record));
            let followed = self.channel.followed();
            let name = names::last_release(&followed.store, &followed.channel);
            tokio::task::spawn_blocking(move || {
                cache.keep(&name, &entry);
                cache.flush();
            });
        }
    }

    /// Begins with the release that was proven last, because of this reason, which may be that the store
    /// is away.
    async fn begin_offline(&mut self, reason: &str, is_away: bool) -> Option<Manifest> {
        let cache = Arc::clone(self.taker.depot.cache.as_ref()?);
        let followed = self.channel.followed().clone();
        let name = names::last_release(&followed.store, &followed.channel);
        let kept = tokio::task::spawn_blocking(move || cache.kept(&name)).await;
        let (record, source) = ReleaseSource::of_entry(&kept.ok()??)?;
        let typed = &self.taker.typed;
        let manifest = match self.taker.assemble(&record, &source, typed, None).await {
            Ok(manifest) => manifest,
            Err(refusal) => {
                let refused = self.channel.refused(record.number, refusal);
                if !mem::replace(&mut self.is_cache_named, true) {
                    tracing::warn!(release = record.number, %refused, "in --cache: {refused}");
                }
                return None;
            }
        };
        let number = record.number;
        let metrics = self.taker.depot.metrics();
        metrics.release.store(number, Ordering::Relaxed);
        self.is_away = is_away;
        metrics.is_reachable.store(!self.is_away, Ordering::Relaxed);
        metrics.polls_failed.add(self.is_away.into());
        let remark =
            format!("{reason}: release {number}, the last that was proven here, is served");
        match is_away {
            true => self.absence = Some(remark),
            false => self.refusal = Some(remark),
        }
        self.note_remark();
        let keep_old = self.options.keep_old;
        self.rest = keep_old.map(|keep| RecentReleases::new(&record, 0, keep));
        tracing::warn!(
            release = number, store = %followed.store, channel = %followed.channel, reason,
            digest = %record.digest,
            "{reason}: release {number} is served, the last that was proven here; what --cache lacks \
             of it is answered 503"
        );
        self.served = Some(record);
        Some(manifest)
    }
}

//! The first release that a process serves: the newest one, or else the last that was served here, or
//! else, where none was, the newest that can be served.

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
use super::fetchers::{Fetchers, aside};
use super::names;
use super::schedule::chance;
use super::taking::{ReleaseSource, TakeError, TakenRelease, Taker};
use crate::cache::{Cache, EntryName};
use crate::manifest::{Changes, Manifest};
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::progress::ByteProgress;
use crate::readiness::Readiness;
use crate::settings::{Channel, FollowOptions};
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
/// How many releases a first start goes back if the newest ones can't be served.
const MAX_STEPS_BACK: usize = 10;

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
    /// What is wrong with the task that looks for releases.
    pub(super) fault: Option<String>,
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

/// Why the newest release can't be begun with.
enum Obstacle {
    /// The channel has none.
    Empty(Followed),
    /// The store can't be asked.
    Store(StoreError),
    /// It takes too long.
    Slow(Followed),
    /// It can't be served.
    Refused(Box<RefusedRelease>),
    /// It comes before one that was served here.
    Behind {
        followed: Followed,
        newest: u64,
        last: u64,
    },
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty(followed) => write!(f, "{followed} has no release yet: push one"),
            Self::Store(error) => error.fmt(f),
            Self::Slow(followed) => {
                let seconds = MAX_START_WAIT.as_secs();
                write!(f, "{} has not answered within {seconds} s", followed.store)
            }
            Self::Refused(refused) => refused.fmt(f),
            Self::Behind {
                followed,
                newest,
                last,
            } => write!(
                f,
                "the newest release of {followed} is {newest}, and release {last} was served here before \
                 (if the channel was begun anew, empty --cache)"
            ),
        }
    }
}

impl Obstacle {
    /// Whether the store did not answer.
    fn is_absence(&self) -> bool {
        matches!(self, Self::Store(_) | Self::Slow(_))
    }

    /// Why the process ends, unless it can be waited for.
    fn into_end(self) -> Option<FollowError> {
        match self {
            Self::Refused(refused) => Some(refused.into()),
            Self::Store(error) if !error.is_passing() => Some(FollowError::Store(error)),
            Self::Behind { .. } => Some(FollowError::Behind(self.to_string())),
            Self::Empty(_) | Self::Store(_) | Self::Slow(_) => None,
        }
    }
}

/// The release that was proven and served here last, as `--cache` has it.
struct LastServed {
    record: ReleaseRecord,
    source: ReleaseSource,
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
        let (store, is_unopened) = match Store::open(&options.store, PATIENCE, &options.trust) {
            Ok(store) => (store, false),
            Err(_) => {
                let store = Store::open_later(&options.store, PATIENCE, &options.trust);
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
        let taker = Taker {
            depot: Arc::new(depot),
            prefetch: options.prefetch,
            typed: options.typed.clone(),
            progress: Arc::default(),
            loaded: Arc::default(),
            checked: Arc::default(),
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
            fault: None,
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
            let last = self.last_served().await;
            let floor = last.as_ref().map_or(0, |last| last.record.number);
            let mut obstacle = match self.newest(floor).await {
                Ok(taken) => {
                    let manifest = self.begin_with(taken).await;
                    return Ok((self, manifest));
                }
                Err(obstacle) => obstacle,
            };
            match self.begin_otherwise(&obstacle, last).await {
                Ok(Some(manifest)) => return Ok((self, manifest)),
                Ok(None) => {}
                Err(error) => obstacle = Obstacle::Store(error),
            }
            let reason = obstacle.to_string();
            if obstacle.is_absence() && self.options.is_store_required {
                return Err(FollowError::Required(reason));
            }
            let is_empty = matches!(obstacle, Obstacle::Empty(_));
            if let Some(end) = obstacle.into_end() {
                return Err(end);
            }
            // A first release is awaited by somebody; a store that is in trouble is asked seldom.
            pause = match is_empty {
                true => self.options.poll,
                false => (pause * 2).min(MAX_START_PAUSE.max(self.options.poll)),
            };
            self.readiness.explain(Some(reason.clone()));
            if !mem::replace(&mut is_said, true) {
                let store = &self.options.store;
                let hint = match is_empty {
                    true => self.other_channels().await,
                    false => String::new(),
                };
                tracing::warn!(%store, "{reason}{hint}; not ready until there is something to serve");
            }
            sleep(pause.mul_f64(0.9 + 0.2 * chance())).await;
        }
    }

    /// Names the channels that have a release: this one may be mistyped.
    async fn other_channels(&self) -> String {
        let listed = timeout(MAX_START_WAIT, self.channel.others()).await;
        let others = listed.ok().and_then(Result::ok).unwrap_or_default();
        let others: Vec<_> = others.iter().map(Channel::as_str).collect();
        match others.is_empty() {
            true => String::new(),
            false => format!(" (channels that have some: {})", others.join(", ")),
        }
    }

    /// What the cache has of the release that was served here last.
    async fn last_served(&self) -> Option<LastServed> {
        let cache = Arc::clone(self.taker.depot.cache.as_ref()?);
        let name = self.last_release();
        let kept = aside(move || cache.kept(&name)).await;
        let (record, source) = ReleaseSource::of_entry(&kept?)?;
        Some(LastServed { record, source })
    }

    /// Under which name the cache has it.
    fn last_release(&self) -> EntryName {
        names::last_release(self.channel.followed())
    }

    /// Begins with another release than the newest, which can't be begun with: with the one that was
    /// served here last, or else with the newest one before that can be served. Never with one that comes
    /// before what was served here.
    ///
    /// # Errors
    /// When the store can't be asked.
    async fn begin_otherwise(
        &mut self,
        obstacle: &Obstacle,
        last: Option<LastServed>,
    ) -> Result<Option<Manifest>, StoreError> {
        let is_forbidden = match obstacle {
            Obstacle::Refused(refused) => refused.is_usage(),
            // No channel loses its newest release: where there is none and one was proven here, a file
            // system is not mounted. But who requires the store waits for that.
            Obstacle::Empty(_) | Obstacle::Store(_) | Obstacle::Slow(_) => {
                self.options.is_store_required
            }
            Obstacle::Behind { .. } => false,
        };
        if is_forbidden {
            return Ok(None);
        }
        let floor = last.as_ref().map_or(0, |last| last.record.number);
        if let Some(last) = last
            && let Some(manifest) = self.begin_with_last(last, obstacle).await
        {
            return Ok(Some(manifest));
        }
        let Obstacle::Refused(refused) = obstacle else {
            return Ok(None);
        };
        let Some(taken) = self.newest_before(refused.number, floor).await? else {
            return Ok(None);
        };
        let number = taken.record.number;
        let remark =
            format!("{refused}; release {number} is served, the newest before it that can be");
        let store = &self.options.store;
        tracing::warn!(release = refused.number, served = number, %store, "{remark}");
        self.refusal = Some(remark);
        Ok(Some(self.begin_with(taken).await))
    }

    /// Finds out whether the folder of the store is there, if it was not.
    ///
    /// # Errors
    /// When it is not.
    pub(super) fn open_store(&mut self) -> Result<(), StoreError> {
        if self.is_unopened {
            Store::open(&self.options.store, PATIENCE, &self.options.trust)?;
            self.is_unopened = false;
        }
        Ok(())
    }

    /// The newest release, unless it comes before the one with the number `floor`.
    async fn newest(&mut self, floor: u64) -> Result<TakenRelease, Obstacle> {
        let newest = self.newest_number().await;
        let metrics = self.taker.depot.metrics();
        match &newest {
            Ok(number) => {
                metrics.reachability.note(true);
                metrics.newest_release.store(*number, Ordering::Relaxed);
            }
            Err(obstacle) if obstacle.is_absence() => {
                metrics.reachability.note(false);
                metrics.polls_failed.increment();
            }
            Err(_) => metrics.reachability.note(true),
        }
        let newest = newest?;
        if newest < floor {
            return Err(Obstacle::Behind {
                followed: self.channel.followed().clone(),
                newest,
                last: floor,
            });
        }
        match self.take(newest, None, &|_| {}).await {
            Ok(taken) => Ok(taken),
            Err(TakeError::Passing(error)) => {
                self.taker.depot.metrics().releases_delayed.increment();
                Err(Obstacle::Store(error))
            }
            Err(TakeError::Refused(refused)) => {
                self.refused = Some(newest);
                self.taker.depot.metrics().releases_refused.increment();
                Err(Obstacle::Refused(refused))
            }
        }
    }

    async fn newest_number(&mut self) -> Result<u64, Obstacle> {
        self.open_store().map_err(Obstacle::Store)?;
        let listed = timeout(MAX_START_WAIT, self.channel.after(0, true)).await;
        let followed = self.channel.followed();
        let listed = listed.map_err(|_| Obstacle::Slow(followed.clone()))?;
        let newest = listed.map_err(Obstacle::Store)?.pop();
        newest.ok_or_else(|| Obstacle::Empty(followed.clone()))
    }

    /// The newest release before the one with the number `newest` that can be served, if there is one from
    /// `floor` on. Not all are tried.
    ///
    /// # Errors
    /// When the store can't be asked: what passes is no reason to go further back.
    async fn newest_before(
        &self,
        newest: u64,
        floor: u64,
    ) -> Result<Option<TakenRelease>, StoreError> {
        let earlier = self.channel.list(floor.saturating_sub(1)).await?;
        let earlier = earlier.into_iter().rev().filter(|number| *number < newest);
        for number in earlier.take(MAX_STEPS_BACK) {
            match self.take(number, None, &|_| {}).await {
                Ok(taken) => return Ok(Some(taken)),
                Err(TakeError::Passing(error)) => return Err(error),
                Err(TakeError::Refused(_)) => {}
            }
        }
        Ok(None)
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

    /// What the releases before `record` had, as far as the cache knows, and what asks the store for all
    /// of it.
    async fn retired_of_cache(
        &self,
        record: &ReleaseRecord,
        manifest: &Arc<Manifest>,
    ) -> (RetiredResources, Option<RecentReleases>) {
        let Some(keep) = self.options.keep_old else {
            return (Vec::new(), None);
        };
        let mut known = RecentReleases::new(record, 0, keep);
        let retired = known.load_cached(&self.taker, &self.channel, manifest);
        let all = RecentReleases::new(record, 0, keep);
        (retired.await, Some(all))
    }

    /// Tells the operator what is not as it should be.
    pub(super) fn note_remark(&self) {
        let all = [
            &self.fault,
            &self.absence,
            &self.delay,
            &self.gone,
            &self.refusal,
        ];
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
            let name = self.last_release();
            let number = record.number;
            tokio::task::spawn_blocking(move || {
                // Another process may have served a newer one.
                let kept = cache.kept(&name).as_ref().and_then(ReleaseSource::of_entry);
                if kept.is_none_or(|(kept, _)| kept.number <= number) {
                    cache.keep(&name, &entry);
                }
                cache.flush();
            });
        }
    }

    /// Begins with the release that was served here last, because of this obstacle; `None` where it can't
    /// be served any more.
    async fn begin_with_last(&mut self, last: LastServed, obstacle: &Obstacle) -> Option<Manifest> {
        let LastServed { record, source } = last;
        let typed = &self.taker.typed;
        let manifest = match self.taker.assemble(&record, &source, typed, None).await {
            Ok(manifest) => Arc::new(manifest),
            Err(refusal) => {
                let refused = self.channel.refused(record.number, refusal);
                if !mem::replace(&mut self.is_cache_named, true) {
                    tracing::warn!(release = record.number, %refused, "in --cache: {refused}");
                }
                return None;
            }
        };
        let number = record.number;
        self.is_away = obstacle.is_absence() || matches!(obstacle, Obstacle::Empty(_));
        let metrics = self.taker.depot.metrics();
        metrics.release.store(number, Ordering::Relaxed);
        metrics.reachability.note(!self.is_away);
        let rest = match self.is_away {
            true => "; what --cache lacks of it is answered 503",
            false => "",
        };
        let remark =
            format!("{obstacle}; release {number} is served, the last that was proven here");
        let followed = self.channel.followed();
        tracing::warn!(
            release = number, store = %followed.store, channel = %followed.channel,
            reason = %obstacle, digest = %record.digest,
            "{remark}{rest}"
        );
        match obstacle {
            Obstacle::Refused(_) => self.refusal = Some(remark),
            Obstacle::Behind { .. } => self.gone = Some(remark),
            Obstacle::Empty(_) | Obstacle::Store(_) | Obstacle::Slow(_) => {
                self.absence = Some(remark);
            }
        }
        self.note_remark();
        let (retired, rest) = self.retired_of_cache(&record, &manifest).await;
        self.rest = rest;
        self.served = Some(record);
        Some(manifest.with(Changes {
            retired,
            ..Changes::default()
        }))
    }
}

//! The task that looks for newer releases and publishes them.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::time::{sleep_until, timeout};

use super::changes;
use super::earlier;
use super::error::RefusedRelease;
use super::schedule::PollSchedule;
use super::start::{MAX_STEPS_BACK, StoreFollower};
use super::taking::{TakeError, TakenRelease, in_memory, small_and_remote, small_contents};
use crate::cache::Cache;
use crate::manifest::{Changes, Manifest};
use crate::representation::Resource;
use crate::scan::report_rules;
use crate::site::{NewerState, Newest, Site};
use crate::store::{ReleaseRecord, StoreError};
use crate::watch::immutable;

/// How long a request waits for the look that may find a release with what it asks for.
const MAX_LOOK_WAIT: Duration = Duration::from_secs(5);
/// Resources whose content is put into memory at once, after a start from the cache: a publication
/// costs more than a few of them.
const MAX_PROMOTED: usize = 2048;

/// Asks the task for what it would do later.
pub struct FollowHandle {
    shared: Arc<SharedState>,
    cache: Option<Arc<Cache>>,
}

/// Publishes what comes next in a channel to `site`, for the life of the process.
pub fn follow(follower: StoreFollower, site: Arc<Site>) -> FollowHandle {
    let depot = Arc::clone(&follower.taker.depot);
    let (poll, sweep) = (follower.options.poll, follower.options.sweep);
    let schedule = PollSchedule::new(poll, sweep, Instant::now());
    let (task, handle) = FollowTask::new(follower, schedule, site);
    let running = depot.fetchers.spawn(task.run());
    depot.fetchers.spawn(async move {
        if running.await.is_err() {
            tracing::error!(
                "internal error: what follows the store has panicked (see above), and no later \
                 release is served; please report this, and restart the server"
            );
        }
    });
    handle
}

/// What requests and the operator share with the task.
struct SharedState {
    /// A request waits for a look.
    asked: Notify,
    /// The operator wants one.
    reload: Notify,
    looks: watch::Sender<LookState>,
}

/// Looks for a newer release, counted.
#[derive(Clone, Copy, Default)]
struct LookState {
    begun: u64,
    ended: u64,
    /// Whether a newer release was found that is not served yet.
    is_pending: bool,
    /// Whether the store can't be asked.
    is_away: bool,
}

impl FollowHandle {
    /// Has the task look for a newer release now.
    pub fn look(&self) {
        self.shared.reload.notify_one();
    }

    /// Writes what was fetched and is not in the cache yet.
    pub fn finish(&self) {
        if let Some(cache) = &self.cache {
            cache.flush();
        }
    }
}

impl SharedState {
    /// Looks for a newer release than those that are known now.
    fn newer(self: &Arc<Self>) -> NewerState {
        let mut looks = self.looks.subscribe();
        let now = *looks.borrow();
        if now.is_away {
            // The next look may be half a minute away.
            return Box::pin(std::future::ready(Newest::Published));
        }
        // One that is under way may have asked the store before the release was there.
        let wanted = now.begun + 1;
        self.asked.notify_one();
        Box::pin(async move {
            let has_ended = |state: &LookState| state.ended >= wanted || state.is_away;
            let waited = timeout(MAX_LOOK_WAIT, looks.wait_for(has_ended)).await;
            drop(waited);
            match looks.borrow().is_pending {
                true => Newest::Pending,
                false => Newest::Published,
            }
        })
    }
}

/// The task that looks for newer releases and publishes them.
struct FollowTask {
    follower: StoreFollower,
    schedule: PollSchedule,
    site: Arc<Site>,
    shared: Arc<SharedState>,
    /// Resources whose content could be in memory.
    promotable: Vec<Arc<Resource>>,
}

impl FollowTask {
    fn new(
        follower: StoreFollower,
        schedule: PollSchedule,
        site: Arc<Site>,
    ) -> (Self, FollowHandle) {
        let shared = Arc::new(SharedState {
            asked: Notify::new(),
            reload: Notify::new(),
            looks: watch::Sender::new(LookState {
                is_away: follower.is_away,
                ..LookState::default()
            }),
        });
        let asking = Arc::clone(&shared);
        site.on_missing(move || asking.newer());
        let handle = FollowHandle {
            shared: Arc::clone(&shared),
            cache: follower.taker.depot.cache.clone(),
        };
        let promotable = small_and_remote(&site.current());
        let task = Self {
            follower,
            schedule,
            site,
            shared,
            promotable,
        };
        (task, handle)
    }

    async fn run(mut self) {
        let mut is_asked = false;
        loop {
            let due = match is_asked {
                true => self.schedule.next().min(self.schedule.earliest()),
                false => self.schedule.next(),
            };
            let shared = Arc::clone(&self.shared);
            tokio::select! {
                biased;
                () = sleep_until(due.into()) => {
                    is_asked = false;
                    self.look().await;
                }
                () = shared.reload.notified() => self.schedule.hurry(Instant::now()),
                () = shared.asked.notified(), if !is_asked => is_asked = true,
                () = std::future::ready(()), if !self.promotable.is_empty() => {
                    self.promote().await;
                }
            }
        }
    }

    /// Looks for a newer release, and publishes it.
    async fn look(&mut self) {
        let is_sweep = self.schedule.begin(Instant::now());
        self.shared.looks.send_modify(|state| state.begun += 1);
        let is_success = match self.find(is_sweep).await {
            Ok(()) => {
                self.note_answer();
                true
            }
            Err(error) => {
                self.note_failure(&error);
                false
            }
        };
        let is_away = self.follower.is_away;
        self.shared.looks.send_modify(|state| {
            state.ended = state.begun;
            state.is_away = is_away;
        });
        self.schedule.end(Instant::now(), is_success, chance());
        let now = Instant::now();
        if self.site.current().has_retired() {
            (self.site).forget(|old, until| (until > now).then(|| Arc::clone(old)));
        }
    }

    async fn find(&mut self, is_sweep: bool) -> Result<(), StoreError> {
        let served = self.follower.served.as_ref().map_or(0, |it| it.number);
        self.follower.open_store()?;
        let found = self.follower.channel.after(served, is_sweep).await?;
        let Some(newest) = found.last().copied() else {
            // One that has gone is not the store that was followed: a file system that is not
            // mounted is an empty folder.
            let channel = &self.follower.channel;
            if served > 0 && (is_sweep || !channel.has_hint()) {
                channel.check(served).await?;
            }
            self.set_pending(false);
            return Ok(());
        };
        if self.follower.refused == Some(newest) && !is_sweep {
            return Ok(());
        }
        self.set_pending(true);
        let mut refused = None;
        // Where the newest can't be served, the last one that can.
        for number in found.into_iter().rev().take(MAX_STEPS_BACK) {
            let current = Arc::clone(&self.site.current());
            match self.follower.take(number, Some(current)).await {
                Ok(taken) => {
                    self.publish(taken, served).await;
                    break;
                }
                Err(TakeError::Passing(error)) => return Err(error),
                Err(TakeError::Refused(refusal)) => {
                    refused.get_or_insert(refusal);
                }
            }
        }
        self.set_pending(false);
        if let Some(refused) = refused {
            self.note_refused(&refused);
        }
        Ok(())
    }

    /// Says that the newest release can't be served, once for each.
    fn note_refused(&mut self, refused: &RefusedRelease) {
        if self.follower.refused.replace(refused.number) == Some(refused.number) {
            return;
        }
        let metrics = self.follower.taker.depot.metrics();
        metrics.releases_refused.increment();
        let served = self.follower.served.as_ref().map_or(0, |it| it.number);
        tracing::warn!(
            release = refused.number, served, reason = %refused.reason,
            "{refused}; release {served} stays"
        );
    }

    fn set_pending(&self, is_pending: bool) {
        self.shared.looks.send_if_modified(|state| {
            let is_new = state.is_pending != is_pending;
            state.is_pending = is_pending;
            is_new
        });
    }

    /// Publishes a release in the place of the one with the number `before`.
    async fn publish(&mut self, taken: TakenRelease, before: u64) {
        let TakenRelease {
            record,
            manifest,
            source,
        } = taken;
        let target = Arc::new(manifest);
        let follower = &self.follower;
        let keep_old = follower.options.keep_old;
        let retired = match keep_old {
            Some(keep) => {
                let (taker, channel) = (&follower.taker, &follower.channel);
                earlier::retired(taker, channel, &record, &target, before, keep).await
            }
            None => Vec::new(),
        };
        let left = keep_old.map(|keep| keep.saturating_sub(earlier::age(record.at.into())));
        let old = Arc::clone(&self.site.current());
        let started = Instant::now();
        let changes = Changes {
            keep_until: left
                .filter(|left| !left.is_zero())
                .map(|left| started + left),
            retired,
            ..changes::between(&old, &target)
        };
        let broken = immutable::broken(&old, &changes.changed);
        let publication = self.site.update(|_| Some(changes));
        let metrics = &follower.metrics;
        report_rules(self.site.current().rules(), old.rules());
        if let Some(publication) = &publication {
            metrics.publishing.observe(started.elapsed());
            metrics.publications.increment();
            let number = record.number;
            tracing::info!(
                release = number,
                changed = publication.changed,
                removed = publication.removed,
                folders = publication.folders,
                new_rules = publication.has_new_rules,
                digest = %publication.digest,
                "release {number}: {publication}"
            );
            immutable::warn(&broken, metrics);
        } else {
            log_equal(&record);
        }
        self.close(&old, &target);
        follower.note_served(&record, &source);
        follower.taker.depot.forget_faults();
        self.follower.served = Some(record);
        self.promotable = small_and_remote(&self.site.current());
    }

    /// Wakes those who wait for something to be published.
    fn close(&self, old: &Manifest, new: &Manifest) {
        if old.digest() != new.digest() {
            self.site.announce_look();
        }
    }

    /// Puts some content that the cache has into memory, where requests are answered from at once. What
    /// is published stays the same.
    async fn promote(&mut self) {
        let depot = &self.follower.taker.depot;
        let rest = self.promotable.len().saturating_sub(MAX_PROMOTED);
        let some = self.promotable.split_off(rest);
        let mut loaded = std::collections::HashMap::new();
        for (hash, length) in small_contents(&some) {
            if !depot.memory().has_room(length) {
                self.promotable = Vec::new();
                break;
            }
            if depot.is_cached(&hash, length)
                && let Ok(content) = depot.content(hash, length).await
                && let Ok(bytes) = depot.memory().keep(content)
            {
                loaded.insert(hash, bytes);
            }
        }
        self.site.update(|current| {
            let is_still = |old: &&Arc<Resource>| {
                current
                    .locate(&old.path)
                    .is_some_and(|now| Arc::ptr_eq(now, old))
            };
            let changed = some.iter().filter(is_still);
            let changed: Vec<_> = changed.filter_map(|old| in_memory(old, &loaded)).collect();
            (!changed.is_empty()).then(|| Changes {
                changed,
                ..Changes::default()
            })
        });
    }

    fn note_answer(&mut self) {
        let metrics = self.follower.taker.depot.metrics();
        metrics.is_reachable.store(true, Ordering::Relaxed);
        self.follower.readiness.remark(None);
        if std::mem::take(&mut self.follower.is_away) {
            let store = &self.follower.options.store;
            let release = self.follower.served.as_ref().map_or(0, |it| it.number);
            tracing::info!(%store, release, "{store} answers again: release {release} is served");
        }
    }

    fn note_failure(&mut self, error: &StoreError) {
        let follower = &mut self.follower;
        let metrics = follower.taker.depot.metrics();
        metrics.polls_failed.increment();
        metrics.is_reachable.store(false, Ordering::Relaxed);
        let release = follower.served.as_ref().map_or(0, |it| it.number);
        if !std::mem::replace(&mut follower.is_away, true) {
            let store = &follower.options.store;
            let remark = format!("{error}: release {release} stays");
            tracing::warn!(
                %store, release, %error,
                "{remark}; what is neither in memory nor in --cache is answered 503"
            );
            follower.readiness.remark(Some(remark));
        }
    }
}

/// Says that a release is no other site than the one before.
fn log_equal(record: &ReleaseRecord) {
    let number = record.number;
    tracing::info!(
        release = number, digest = %record.digest,
        "release {number}: the same site as before, site digest {}", record.digest
    );
}

/// From 0 to 1. It only has to differ between replicas.
fn chance() -> f64 {
    f64::from(RandomState::new().build_hasher().finish() as u32) / f64::from(u32::MAX)
}

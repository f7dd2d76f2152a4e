//! The task that looks for newer releases and publishes them.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, sleep_until, timeout};

use super::changes;
use super::depot::Depot;
use super::earlier::{RecentReleases, RetiredResources, age};
use super::error::RefusedRelease;
use super::fetchers::aside;
use super::schedule::{PollSchedule, chance};
use super::start::StoreFollower;
use super::taking::{
    LoadedContents, TakeError, TakenRelease, in_memory, small_and_remote, small_contents,
};
use crate::beat::{Beat, Beats, WatchThread};
use crate::cache::Cache;
use crate::manifest::{Changes, Manifest};
use crate::metrics::{Counter, Metrics};
use crate::representation::Resource;
use crate::scan::report_rules;
use crate::site::{NewerState, Newest, PendingState, Publication, Site};
use crate::store::{ReleaseRecord, StoreError, StoreErrorKind};
use crate::watch::immutable;

/// How long a request waits for the look that may find a release with what it asks for, and then for the
/// release that has it to be served.
const MAX_LOOK_WAIT: Duration = Duration::from_secs(5);
/// How long a release may be on its way before nobody waits for it any more, and, while it is not known
/// what it has, before nobody is told to come again for it.
const MAX_PENDING_WAIT: Duration = Duration::from_secs(10);
/// Resources whose content is put into memory at once, after a start from the cache: a publication
/// costs more than a few of them.
const MAX_PROMOTED: usize = 2048;

/// How long a look may get nothing done before this process is not ready: the store has answered or is
/// away by then, and a listing of a million files has come over a slow line.
const MAX_STEP: Duration = Duration::from_secs(300);
/// How often to see whether something was fetched.
const STEP_INTERVAL: Duration = Duration::from_secs(1);
/// The pause after a panic. It is doubled with each one until a look has ended well.
const MIN_PANIC_PAUSE: Duration = Duration::from_secs(1);
/// The longest such pause.
const MAX_PANIC_PAUSE: Duration = Duration::from_secs(60);

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
    let beats = Arc::new(Beats::new(MAX_STEP));
    follower.readiness.look_after(Arc::clone(&beats));
    let (task, handle) = FollowTask::new(follower, schedule, site, beats);
    depot.fetchers.spawn(task.run());
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
#[derive(Clone, Default)]
struct LookState {
    begun: u64,
    ended: u64,
    /// A newer release that was found and is not served yet.
    pending: Option<PendingRelease>,
    /// Whether the store can't be asked.
    is_away: bool,
    /// Whether something of the pending release could not be fetched the last time: requests do not have
    /// that tried again any sooner.
    is_delayed: bool,
}

/// A newer release that is being fetched.
#[derive(Clone)]
struct PendingRelease {
    /// When it was found.
    since: Instant,
    /// What it has, once that is known.
    manifest: Option<Arc<Manifest>>,
}

impl PendingRelease {
    /// Whether it takes too long to be waited for.
    fn is_late(&self) -> bool {
        self.since.elapsed() > MAX_PENDING_WAIT
    }
}

/// Why a look does not end with the newest release.
enum LookFailure {
    /// The store can't be asked which releases there are.
    Store(StoreError),
    /// It says that there is a newer one, and something of that can't be fetched now.
    Release(u64, StoreError),
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
        let now = looks.borrow().clone();
        if now.is_away {
            // The next look may be half a minute away.
            return Box::pin(std::future::ready(Newest::Published));
        }
        let wanted = match now.is_delayed {
            true => now.ended,
            false => {
                self.asked.notify_one();
                // One that is under way may have asked the store before the release was there.
                now.begun + 1
            }
        };
        Box::pin(async move {
            let is_known = |state: &LookState| {
                let has_ended = state.ended >= wanted || state.is_away;
                let pending = state.pending.as_ref();
                let is_answer =
                    |release: &PendingRelease| release.manifest.is_some() || release.is_late();
                has_ended || pending.is_some_and(is_answer)
            };
            let waited = timeout(MAX_LOOK_WAIT, looks.wait_for(is_known)).await;
            drop(waited);
            let Some(release) = looks.borrow().pending.clone() else {
                return Newest::Published;
            };
            let (is_late, manifest) = (release.is_late(), release.manifest);
            if is_late && manifest.is_none() {
                return Newest::Published;
            }
            let may_wait = !is_late && manifest.is_some();
            Newest::Pending(PendingState {
                manifest,
                publication: Box::pin(async move {
                    let is_served = |state: &LookState| state.pending.is_none();
                    may_wait
                        && timeout(MAX_LOOK_WAIT, looks.wait_for(is_served))
                            .await
                            .is_ok()
                }),
            })
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
    /// Whether a request waits for a look.
    is_asked: bool,
    beats: Arc<Beats>,
    /// What looks get done.
    beat: Arc<Beat>,
}

impl FollowTask {
    fn new(
        follower: StoreFollower,
        schedule: PollSchedule,
        site: Arc<Site>,
        beats: Arc<Beats>,
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
            is_asked: false,
            beat: beats.begin(WatchThread::Follower),
            beats,
        };
        (task, handle)
    }

    /// Works until the process ends. A panic is a bug, and no reason to serve an old release for ever: the
    /// next look lists the channel. Where each look panics, this process is not ready after a while.
    async fn run(mut self) {
        let (mut pause, mut broken) = (MIN_PANIC_PAUSE, None);
        loop {
            match AssertUnwindSafe(self.run_once()).catch_unwind().await {
                Ok(Done::Look) => (pause, broken) = (MIN_PANIC_PAUSE, None),
                Ok(Done::Other) => {}
                Err(_) => {
                    let pause_now = pause;
                    pause = (2 * pause).min(MAX_PANIC_PAUSE);
                    broken.get_or_insert_with(|| {
                        // A step that ends with a look that ends well.
                        let broken = self.beats.begin(WatchThread::Follower);
                        broken.step();
                        broken
                    });
                    self.recover(pause_now).await;
                }
            }
        }
    }

    /// Waits for what comes next, and does it.
    async fn run_once(&mut self) -> Done {
        let due = match self.is_asked {
            true => self.schedule.next().min(self.schedule.earliest()),
            false => self.schedule.next(),
        };
        let shared = Arc::clone(&self.shared);
        tokio::select! {
            biased;
            () = sleep_until(due.into()) => {
                self.is_asked = false;
                let beat = Arc::clone(&self.beat);
                let depot = Arc::clone(&self.follower.taker.depot);
                beat.step();
                tokio::select! {
                    () = self.look() => {}
                    never = step_with(&beat, &depot.begun) => match never {},
                }
                beat.rest();
                return Done::Look;
            }
            () = shared.reload.notified() => self.schedule.hurry(Instant::now()),
            () = shared.asked.notified(), if !self.is_asked => self.is_asked = true,
            () = std::future::ready(()), if !self.promotable.is_empty() => {
                self.promote().await;
            }
        }
        Done::Other
    }

    /// Begins again after a panic, in a while.
    async fn recover(&mut self, pause: Duration) {
        self.beat.rest();
        self.promotable = Vec::new();
        // Nobody waits for a look that does not come.
        self.shared.looks.send_modify(|state| {
            state.ended = state.begun;
            state.is_away = true;
            state.pending = None;
        });
        let release = self.follower.served.as_ref().map_or(0, |it| it.number);
        let remark = format!("what follows the store has panicked: release {release} stays");
        tracing::error!(
            release,
            "internal error: {remark} until it has begun again, in {} s (see above); please report this",
            pause.as_secs()
        );
        self.follower.fault = Some(remark);
        self.follower.note_remark();
        sleep(pause).await;
        self.schedule.hurry(Instant::now());
    }

    /// Looks for a newer release, and publishes it.
    async fn look(&mut self) {
        #[cfg(test)]
        tests::panic_if_asked();
        let is_sweep = self.schedule.begin(Instant::now());
        self.shared.looks.send_modify(|state| state.begun += 1);
        let (is_success, is_delayed) = match self.find(is_sweep).await {
            Ok(()) => {
                self.note_answer();
                (true, false)
            }
            Err(LookFailure::Store(error)) => {
                self.note_failure(&error);
                (false, false)
            }
            Err(LookFailure::Release(number, error)) => {
                self.note_delay(number, &error);
                (false, true)
            }
        };
        if self.follower.fault.take().is_some() {
            self.follower.note_remark();
        }
        let is_away = self.follower.is_away;
        self.shared.looks.send_modify(|state| {
            state.ended = state.begun;
            state.is_away = is_away;
            state.is_delayed = is_delayed;
        });
        self.schedule.end(Instant::now(), is_success, chance());
        if let Some(cache) = self.follower.taker.depot.cache.clone() {
            // What was fetched last would wait for more until then, and be lost with a kill.
            aside(move || cache.flush_late()).await;
        }
        let now = Instant::now();
        if self.site.current().has_retired() {
            (self.site).forget(|old, until| (until > now).then(|| Arc::clone(old)));
        }
    }

    async fn find(&mut self, is_sweep: bool) -> Result<(), LookFailure> {
        let served = self.follower.served.as_ref().map_or(0, |it| it.number);
        self.follower.open_store().map_err(LookFailure::Store)?;
        let found = self.follower.channel.after(served, is_sweep).await;
        let found = found.map_err(LookFailure::Store)?;
        let metrics = self.follower.taker.depot.metrics();
        match found.last() {
            Some(newest) => metrics.newest_release.store(*newest, Ordering::Relaxed),
            // A start without the store did not find out.
            None => {
                let known = &metrics.newest_release;
                let _ = known.compare_exchange(0, served, Ordering::Relaxed, Ordering::Relaxed);
            }
        }
        let Some(newest) = found.last().copied() else {
            // One that has gone is not the store that was followed: a file system that is not
            // mounted is an empty folder.
            let channel = &self.follower.channel;
            if served > 0 && (is_sweep || !channel.has_hint()) {
                match channel.check(served).await {
                    // The store answers, and has other objects: this one was deleted.
                    Err(error) if error.kind == StoreErrorKind::Missing && channel.has_hint() => {
                        self.note_gone(Some(error.to_string()));
                    }
                    checked => {
                        checked.map_err(LookFailure::Store)?;
                        self.note_gone(None);
                    }
                }
            }
            self.set_pending(false);
            return Ok(());
        };
        if self.follower.refused == Some(newest) && !is_sweep {
            return Ok(());
        }
        // What was refused is tried again, and nobody waits for it.
        self.set_pending(self.follower.refused != Some(newest));
        let shared = Arc::clone(&self.shared);
        // What a release in between had is served, too, with --keep-old.
        let has_between = self.follower.options.keep_old.is_some() && found.len() > 1;
        let on_known = move |manifest: &Arc<Manifest>| {
            if has_between {
                return;
            }
            shared.looks.send_modify(|state| {
                if let Some(pending) = &mut state.pending {
                    pending.manifest = Some(Arc::clone(manifest));
                }
            });
        };
        let current = Arc::clone(&self.site.current());
        match self.follower.take(newest, Some(current), &on_known).await {
            Ok(taken) => self.publish(taken, served).await,
            Err(TakeError::Passing(error)) => return Err(LookFailure::Release(newest, error)),
            // What is served stays: each release is taken as the newest, or not at all.
            Err(TakeError::Refused(refused)) => self.note_refused(&refused),
        }
        self.set_pending(false);
        Ok(())
    }

    /// Says that the newest release can't be served, once for each.
    fn note_refused(&mut self, refused: &RefusedRelease) {
        self.follower.taker.forget_loaded();
        self.follower.refusal = Some(refused.to_string());
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
            let is_new = state.pending.is_some() != is_pending;
            if is_new {
                state.pending = is_pending.then(|| PendingRelease {
                    since: Instant::now(),
                    manifest: None,
                });
            }
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
        let target = manifest;
        let follower = &self.follower;
        let keep_old = follower.options.keep_old;
        let (retired, rest) = follower.retired(&record, &target, before).await;
        let left = keep_old.map(|keep| keep.saturating_sub(age(record.at.into())));
        let keep_until = left
            .filter(|left| !left.is_zero())
            .map(|left| Instant::now() + left);
        let (site, metrics) = (Arc::clone(&self.site), Arc::clone(&follower.metrics));
        let replace = move || replace(&site, &target, keep_until, retired, &metrics);
        let (publication, broken) = aside(replace).await;
        let metrics = &follower.metrics;
        if let Some(publication) = &publication {
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
        follower.note_served(&record, &source);
        follower.taker.depot.forget_faults();
        self.load_rest(rest);
        if (self.follower.refused).is_some_and(|refused| refused <= record.number) {
            self.follower.refusal = None;
        }
        (self.follower.delay, self.follower.gone) = (None, None);
        self.follower.served = Some(record);
        self.promotable = small_and_remote(&self.site.current());
    }

    /// Has what earlier releases had be served as it comes.
    fn load_rest(&self, rest: Option<RecentReleases>) {
        if let Some(rest) = rest {
            let (taker, channel) = (self.follower.taker.clone(), self.follower.channel.clone());
            let site = Arc::clone(&self.site);
            let loading = rest.finish(taker, channel, site);
            self.follower.taker.depot.fetchers.spawn(loading);
        }
    }

    /// Puts some content that the cache has into memory, where requests are answered from at once. What
    /// is published stays the same.
    async fn promote(&mut self) {
        let rest = self.promotable.len().saturating_sub(MAX_PROMOTED);
        let some = self.promotable.split_off(rest);
        let depot = Arc::clone(&self.follower.taker.depot);
        let site = Arc::clone(&self.site);
        let is_full = aside(move || promote(&depot, &site, &some)).await;
        if is_full {
            self.promotable = Vec::new();
        }
    }

    fn note_answer(&mut self) {
        let metrics = self.follower.taker.depot.metrics();
        metrics.reachability.note(true);
        if self.shared.looks.borrow().pending.is_none() {
            self.follower.delay = None;
        }
        self.follower.absence = None;
        self.follower.note_remark();
        let rest = self.follower.rest.take();
        self.load_rest(rest);
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
        // Who may read and not list gets content all the same.
        if error.kind != StoreErrorKind::Forbidden {
            metrics.reachability.note(false);
        }
        let release = follower.served.as_ref().map_or(0, |it| it.number);
        if !std::mem::replace(&mut follower.is_away, true) {
            let store = &follower.options.store;
            let remark = format!("{error}: release {release} stays");
            tracing::warn!(
                %store, release, %error,
                "{remark}; what is neither in memory nor in --cache is answered 503"
            );
            follower.absence = Some(remark);
            follower.note_remark();
        }
    }

    /// Notes that the store answers, but for something of a newer release.
    fn note_delay(&mut self, number: u64, error: &StoreError) {
        let served = self.follower.served.as_ref().map_or(0, |it| it.number);
        self.follower
            .taker
            .depot
            .metrics()
            .releases_delayed
            .increment();
        let remark = format!("release {number} waits: {error}; release {served} stays meanwhile");
        if self.follower.delay.is_none() {
            tracing::warn!(release = number, served, %error, "{remark}");
        }
        self.follower.delay = Some(remark);
        self.note_answer();
    }

    /// Notes that the record of the release that is served was deleted, or is there.
    fn note_gone(&mut self, gone: Option<String>) {
        let release = self.follower.served.as_ref().map_or(0, |it| it.number);
        let gone = gone.map(|error| format!("{error}: release {release} stays"));
        if let Some(remark) = gone.as_ref().filter(|_| self.follower.gone.is_none()) {
            tracing::warn!(release, "{remark}");
        }
        self.follower.gone = gone;
    }
}

/// What a task has done.
enum Done {
    /// A look for a newer release, to its end.
    Look,
    Other,
}

/// Notes a step for each while in which something was fetched. Never ends.
async fn step_with(beat: &Beat, begun: &Counter) -> Infallible {
    let mut before = begun.get();
    loop {
        sleep(STEP_INTERVAL).await;
        let now = begun.get();
        if std::mem::replace(&mut before, now) != now {
            beat.step();
        }
    }
}

/// Publishes `target` in the place of what `site` has. Returns what has changed, and what should not have.
/// Takes long where there is much of it.
fn replace(
    site: &Site,
    target: &Manifest,
    keep_until: Option<Instant>,
    retired: RetiredResources,
    metrics: &Metrics,
) -> (Option<Publication>, Vec<String>) {
    let (old, started) = (Arc::clone(&site.current()), Instant::now());
    let changes = Changes {
        keep_until,
        retired,
        ..changes::between(&old, target)
    };
    let broken = immutable::broken(&old, &changes.changed);
    let publication = site.update(|_| Some(changes));
    report_rules(site.current().rules(), old.rules());
    if publication.is_some() {
        metrics.publishing.observe(started.elapsed());
        metrics.publications.increment();
    }
    (publication, broken)
}

/// Puts what the cache has of the content of these resources into memory, where they are published.
/// Returns whether there is no room for more. Takes long.
fn promote(depot: &Depot, site: &Site, some: &[Arc<Resource>]) -> bool {
    let (mut loaded, mut is_full) = (LoadedContents::new(), false);
    for (hash, length) in small_contents(some) {
        if !depot.memory().has_room(length) {
            is_full = true;
            break;
        }
        if let Some(content) = depot.read_cached(&hash, length)
            && let Ok(bytes) = depot.memory().keep(content)
        {
            loaded.insert(hash, bytes);
        }
    }
    site.update(|current| {
        let is_still = |old: &&Arc<Resource>| {
            let now = current.locate(&old.path);
            now.is_some_and(|now| Arc::ptr_eq(now, old))
        };
        let changed = some.iter().filter(is_still);
        let changed: Vec<_> = changed.filter_map(|old| in_memory(old, &loaded)).collect();
        (!changed.is_empty()).then(|| Changes {
            changed,
            ..Changes::default()
        })
    });
    is_full
}

/// Says that a release is no other site than the one before.
fn log_equal(record: &ReleaseRecord) {
    let number = record.number;
    tracing::info!(
        release = number, digest = %record.digest,
        "release {number}: the same site as before, site digest {}", record.digest
    );
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::memory::Memory;
    use crate::readiness::{Phase, Readiness};
    use crate::settings::{FollowOptions, Prefetch, Settings};
    use crate::trust::Trust;

    thread_local! {
        /// So many looks panic.
        static PANICS: Cell<u32> = const { Cell::new(0) };
    }

    pub(super) fn panic_if_asked() {
        let left = PANICS.get();
        if left > 0 {
            PANICS.set(left - 1);
            panic!("a look panics, because a test wants that");
        }
    }

    #[tokio::test]
    async fn looks_that_panic_are_made_again_and_nobody_takes_this_process_for_ready_meanwhile() {
        let place = tempfile::tempdir().expect("a folder");
        let url = format!("file://{}", place.path().display());
        let options = FollowOptions {
            store: url.parse().expect("a folder"),
            trust: Trust::Nobody,
            channel: "live".parse().expect("a name"),
            cache: None,
            cache_size: 1 << 20,
            prefetch: Prefetch::None,
            poll: Duration::from_millis(1),
            sweep: Duration::from_secs(3600),
            keep_old: None,
            is_store_required: false,
            typed: Vec::new(),
        };
        let readiness = Arc::new(Readiness::default());
        readiness.enter(Phase::Serving);
        let memory = Memory::new(16 << 20, 8);
        let metrics = Arc::default();
        let follower = StoreFollower::open(options, memory, metrics, Arc::clone(&readiness), 1);
        let follower = follower.expect("a store");
        let site = Arc::new(Site::new(Manifest::empty(Settings::default())));
        let poll = Duration::from_millis(1);
        let schedule = PollSchedule::new(poll, Duration::from_secs(3600), Instant::now());
        // A step may take no time at all, and none is under way between looks.
        let beats = Arc::new(Beats::new(Duration::ZERO));
        readiness.look_after(Arc::clone(&beats));
        let (task, _handle) = FollowTask::new(follower, schedule, site, beats);
        let mut looks = task.shared.looks.subscribe();
        PANICS.set(2);
        let watched = async {
            let is_broken = |readiness: &Readiness| readiness.check_watcher().is_err();
            let remark = loop {
                match readiness.last_remark() {
                    Some(remark) => break remark,
                    None => sleep(Duration::from_millis(1)).await,
                }
            };
            assert!(remark.contains("has panicked"), "{remark}");
            // In the pause before the next look.
            sleep(Duration::from_millis(5)).await;
            assert!(is_broken(&readiness));
            let has_looked = |state: &LookState| state.ended > 0 && !state.is_away;
            looks.wait_for(has_looked).await.expect("a task");
            while is_broken(&readiness) {
                sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(readiness.last_remark(), None);
        };
        tokio::select! {
            () = task.run() => unreachable!("it never ends"),
            () = watched => {}
        }
        assert_eq!(PANICS.get(), 0);
    }

    /// What a request is told while a release is pending, and whether it has asked for a look.
    async fn asked_while(pending: PendingRelease, is_delayed: bool) -> (Option<Newest>, bool) {
        let shared = Arc::new(SharedState {
            asked: Notify::new(),
            reload: Notify::new(),
            looks: watch::Sender::new(LookState {
                begun: 3,
                ended: 3,
                pending: Some(pending),
                is_away: false,
                is_delayed,
            }),
        });
        let told = timeout(Duration::from_millis(50), shared.newer()).await;
        let asked = timeout(Duration::ZERO, shared.asked.notified()).await;
        (told.ok(), asked.is_ok())
    }

    #[tokio::test]
    async fn requests_neither_hurry_what_waits_for_the_store_nor_wait_for_what_is_late() {
        let long_ago = Instant::now().checked_sub(2 * MAX_PENDING_WAIT);
        let late = || PendingRelease {
            since: long_ago.expect("an uptime"),
            manifest: None,
        };
        let known = || PendingRelease {
            since: Instant::now(),
            manifest: Some(Arc::new(Manifest::empty(Settings::default()))),
        };
        let unknown = || PendingRelease {
            manifest: None,
            ..known()
        };
        let (told, has_asked) = asked_while(known(), true).await;
        assert!(matches!(told, Some(Newest::Pending(_))));
        assert!(!has_asked, "it is tried again in its time");
        let (told, has_asked) = asked_while(known(), false).await;
        assert!(matches!(told, Some(Newest::Pending(_))) && has_asked);
        let (told, has_asked) = asked_while(unknown(), false).await;
        assert!(told.is_none() && has_asked, "it waits for what that has");
        let (told, _) = asked_while(late(), false).await;
        assert!(
            matches!(told, Some(Newest::Published)),
            "nobody waits any more"
        );
    }
}

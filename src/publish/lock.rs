//! The locks by which publishers and collectors keep out of each other's way.
//!
//! Each writes its own lock and then looks for those of the other kind: stores show what was written to
//! whoever lists afterwards, so of two at the same time at least one sees the other, and gives way. Who
//! holds a lock writes it again every 20 s, and one that is older than two minutes was left by a process that
//! was killed: a deploy must not wait an hour for a timer that was stopped. Ages of locks are differences of
//! the store's own dates; the clock of this machine has no say. Where a folder's clock was set back, a lock
//! may be dated in the future. It has no age, so it was left if nobody writes it again for two minutes.
//!
//! A step that was given up, or has failed, may still be under way: in a folder that hangs, or at the store.
//! Its lock is not deleted, and runs out like that of a process that was killed.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::error::PublishError;
use super::hold::{LockHold, uptime_ms};
use super::identity::{PublisherId, random_below};
use crate::store::layout::{self, LockKind, ObjectKey};
use crate::store::{ReleaseTime, Store, StoreError, StoredObject};

/// An older lock was left by a process that was killed.
const MAX_AGE: Duration = Duration::from_secs(120);
/// How long a step may take that relies on the lock, so that it ends before others go on.
const MAX_STEP: Duration = Duration::from_secs(45);
/// How often a lock is written again.
const RENEWAL: Duration = Duration::from_secs(20);
/// The shortest pause before another attempt, and how much is added to it at random.
const MIN_PAUSE: Duration = Duration::from_millis(200);
const MAX_JITTER_MS: u64 = 1800;
/// The longest lock that is read, for a message.
const MAX_LENGTH: u64 = 4096;

/// What is in a lock, for people.
#[derive(Serialize, Deserialize)]
struct LockText {
    who: String,
    at: ReleaseTime,
}

/// A lock of this process.
#[derive(Debug)]
pub(super) struct StoreLock<'s> {
    store: &'s Store,
    key: ObjectKey,
    /// The store's own time when it was first written.
    pub(super) written: SystemTime,
    hold: LockHold,
    renewal: JoinHandle<()>,
}

/// Who wants a lock.
#[derive(Clone, Copy, Debug)]
pub(super) struct LockRequest<'s, 'w> {
    pub(super) store: &'s Store,
    pub(super) kind: LockKind,
    pub(super) id: &'w PublisherId,
    pub(super) who: &'w str,
    /// How long to wait for others.
    pub(super) max_wait: Duration,
}

impl<'s> LockRequest<'s, '_> {
    /// Waits until nobody who would be in the way has a lock, and has one then.
    ///
    /// # Errors
    /// When somebody else holds theirs for too long, or the store can't be asked.
    pub(super) async fn acquire(self) -> Result<StoreLock<'s>, PublishError> {
        let began = Instant::now();
        let mut is_announced = false;
        let mut ahead = LocksAhead::default();
        loop {
            let lock = self.write().await?;
            let rival = match self.rival(&lock, &mut ahead).await {
                Ok(None) => return Ok(lock),
                Ok(Some(rival)) => rival,
                Err(error) => {
                    lock.release().await;
                    return Err(error.into());
                }
            };
            lock.release().await;
            let is_push = LockKind::Push.has(&rival.key);
            let holder = self.holder(&rival.key).await;
            let waited = began.elapsed();
            if waited >= self.max_wait {
                return Err(PublishError::Locked {
                    waited,
                    holder,
                    is_push,
                });
            }
            if !is_announced {
                is_announced = true;
                let what = if is_push { "publishes" } else { "collects" };
                let patience = humantime::format_duration(self.max_wait);
                tracing::info!(%holder, "waiting, for at most {patience}, for {holder}, who {what}");
            }
            let jitter = Duration::from_millis(random_below(MAX_JITTER_MS));
            sleep(MIN_PAUSE + jitter).await;
        }
    }

    async fn write(&self) -> Result<StoreLock<'s>, StoreError> {
        let key = layout::lock(self.kind, self.id.as_str());
        let text = LockText {
            who: self.who.to_owned(),
            at: SystemTime::now().into(),
        };
        let text = Bytes::from(serde_json::to_vec(&text).unwrap_or_default());
        let hold = self.id.hold.clone();
        let began = uptime_ms();
        self.store.put(&key, text.clone()).await?;
        hold.renew(began);
        let written = self.store.head(&key).await?.modified;
        let renewal = renew(self.store.clone(), key.clone(), text, hold.clone());
        Ok(StoreLock {
            store: self.store,
            key,
            written,
            hold,
            renewal: tokio::spawn(renewal),
        })
    }

    /// A lock of somebody who would be in the way.
    async fn rival(
        &self,
        own: &StoreLock<'_>,
        ahead: &mut LocksAhead,
    ) -> Result<Option<StoredObject>, StoreError> {
        let locks = self.store.list(layout::LOCKS, None).await?;
        let is_in_the_way = |lock: &StoredObject| match self.kind {
            // Publishers are told apart by the release that they create.
            LockKind::Push => LockKind::Collect.has(&lock.key),
            LockKind::Collect => lock.key != own.key,
        };
        for lock in locks.into_iter().filter(is_in_the_way) {
            if is_left(&lock, own.written) {
                continue;
            }
            if !ahead.is_left(&lock, own.written) {
                return Ok(Some(lock));
            }
            let (key, date) = (&lock.key, ReleaseTime::from(lock.modified));
            tracing::warn!(
                %key,
                "{key} is dated {date}, which is in the future, and nobody has written it again for two \
                 minutes: it is removed"
            );
            self.store.delete(key).await?;
        }
        Ok(None)
    }

    async fn holder(&self, key: &ObjectKey) -> String {
        let text = self.store.get(key, MAX_LENGTH).await;
        let text = text
            .ok()
            .and_then(|text| serde_json::from_slice::<LockText>(&text).ok());
        text.map_or_else(
            || key.to_string(),
            |text| format!("{} since {}", text.who, text.at),
        )
    }
}

/// Removes the locks of a publisher or collector that is stopped, unless what it has begun may still be under
/// way.
///
/// # Errors
/// When the store can't be asked; others ignore the locks after two minutes then.
pub async fn abandon(store: &Store, id: &PublisherId) -> Result<(), StoreError> {
    if id.hold.has_open_step() {
        return Ok(());
    }
    let kinds = [LockKind::Push, LockKind::Collect];
    store
        .delete_all(&kinds.map(|kind| layout::lock(kind, id.as_str())))
        .await
}

/// Writes a lock again and again, so that others see that somebody holds it.
async fn renew(store: Store, key: ObjectKey, text: Bytes, hold: LockHold) {
    loop {
        sleep(RENEWAL).await;
        let began = uptime_ms();
        // Where the store can't be asked for long, the lock is not relied on any more.
        if store.put(&key, text.clone()).await.is_ok() {
            hold.renew(began);
        }
    }
}

/// The locks that are dated in the future: the date of each, and since when it has been that one.
#[derive(Default)]
struct LocksAhead(HashMap<ObjectKey, (SystemTime, Instant)>);

impl LocksAhead {
    /// Whether a lock is dated in the future, and has been seen with this same date for two minutes.
    fn is_left(&mut self, lock: &StoredObject, now: SystemTime) -> bool {
        if lock.modified <= now {
            self.0.remove(&lock.key);
            return false;
        }
        let seen = (lock.modified, Instant::now());
        let known = self.0.entry(lock.key.clone()).or_insert(seen);
        if known.0 != lock.modified {
            *known = seen;
        }
        known.1.elapsed() > MAX_AGE
    }
}

/// Whether a lock was left by a process that was killed.
fn is_left(lock: &StoredObject, now: SystemTime) -> bool {
    is_older(lock, now, MAX_AGE)
}

/// Whether an object was written longer ago than this.
pub(super) fn is_older(object: &StoredObject, now: SystemTime, age: Duration) -> bool {
    // One that is younger than now is not.
    now.duration_since(object.modified).is_ok_and(|it| it > age)
}

impl StoreLock<'_> {
    /// Whether everybody else still takes it for a lock that somebody holds.
    pub(super) fn is_held(&self) -> bool {
        self.hold.is_current()
    }

    /// Does something that must not happen once somebody else goes on: only while the lock is held, and not
    /// for longer than others wait.
    ///
    /// # Errors
    /// When the lock has expired, or the step takes too long or fails.
    pub(super) async fn step<T, E>(
        &self,
        step: impl Future<Output = Result<T, E>>,
    ) -> Result<T, PublishError>
    where
        PublishError: From<E>,
    {
        if !self.is_held() {
            return Err(PublishError::Expired);
        }
        self.hold.begin_step();
        let done = timeout(MAX_STEP, step)
            .await
            .map_err(|_| PublishError::Expired)?
            .map_err(PublishError::from);
        // A request that has failed may still be obeyed, and others were made at the same time.
        if !matches!(done, Err(PublishError::Store(_))) {
            self.hold.end_step();
        }
        done
    }

    /// Deletes objects one after the other, as long as the lock is held: a machine may sleep in between, and
    /// others go on meanwhile.
    ///
    /// # Errors
    /// When the lock has expired, or an object can't be deleted.
    pub(super) async fn delete_all(&self, keys: &[ObjectKey]) -> Result<(), PublishError> {
        let hold = self.hold.clone();
        let deletion = self.store.delete_while(keys, move || hold.is_current());
        self.step(deletion).await?;
        match self.is_held() {
            true => Ok(()),
            false => Err(PublishError::Expired),
        }
    }

    /// Gives it back, unless a step may still be under way. What is not deleted is ignored by others after
    /// two minutes.
    pub(super) async fn release(mut self) {
        self.renewal.abort();
        if self.hold.has_open_step() {
            return;
        }
        // Its last request must not come after the one that deletes.
        let _ = (&mut self.renewal).await;
        if let Err(error) = self.store.delete(&self.key).await {
            tracing::warn!(%error, "{error}; others wait for this lock for two minutes");
        }
    }
}

/// Who is no longer there does not hold it.
impl Drop for StoreLock<'_> {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::publish::publisher_id;
    use crate::settings::StoreUrl;
    use crate::store::StorePatience;
    use crate::trust::Trust;

    fn with_store(work: impl AsyncFnOnce(&Store)) {
        let folder = tempfile::tempdir().expect("a folder");
        let url = StoreUrl::Folder(folder.path().to_path_buf());
        let store = Store::open(&url, StorePatience::default(), &Trust::Nobody).expect("a store");
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
            .block_on(work(&store));
    }

    async fn acquire(store: &Store, kind: LockKind) -> Result<StoreLock<'_>, PublishError> {
        acquire_within(store, kind, Duration::ZERO).await
    }

    async fn acquire_within(
        store: &Store,
        kind: LockKind,
        max_wait: Duration,
    ) -> Result<StoreLock<'_>, PublishError> {
        acquire_as(store, &publisher_id(), kind, max_wait).await
    }

    async fn acquire_as<'s>(
        store: &'s Store,
        id: &PublisherId,
        kind: LockKind,
        max_wait: Duration,
    ) -> Result<StoreLock<'s>, PublishError> {
        let request = LockRequest {
            store,
            kind,
            id,
            who: "somebody",
            max_wait,
        };
        request.acquire().await
    }

    /// Has a lock be dated so far in the future.
    fn set_ahead(store: &Store, key: &ObjectKey, ahead: Duration) {
        let StoreUrl::Folder(folder) = store.url() else {
            unreachable!("a folder");
        };
        let file = File::open(folder.join(key.as_str())).expect("a file");
        file.set_modified(SystemTime::now() + ahead).expect("dated");
    }

    const YEAR: Duration = Duration::from_secs(365 * 86_400);

    #[test]
    fn a_lock_from_the_future_holds_nobody_up_for_ever() {
        use LockKind::{Collect, Push};

        with_store(async |store| {
            for (left, wanted) in [(Collect, Push), (Push, Collect), (Collect, Collect)] {
                let key = layout::lock(left, "0");
                store
                    .put(&key, Bytes::from_static(b"{}"))
                    .await
                    .expect("written");
                set_ahead(store, &key, YEAR);
                tokio::time::pause();
                let began = Instant::now();
                let lock = acquire_within(store, wanted, Duration::from_secs(180)).await;
                let lock = lock.expect("it was left");
                assert!(
                    began.elapsed() > MAX_AGE,
                    "{left:?} may be held for so long"
                );
                tokio::time::resume();
                // Nobody else waits for it again.
                let head = store.head(&key).await;
                assert!(head.is_err(), "{left:?} is gone");
                lock.release().await;
            }
        });
    }

    #[test]
    fn a_lock_from_the_future_that_is_written_again_is_held() {
        with_store(async |store| {
            let key = layout::lock(LockKind::Push, "0");
            let write = async |renewal| {
                store
                    .put(&key, Bytes::from_static(b"{}"))
                    .await
                    .expect("written");
                set_ahead(store, &key, YEAR + RENEWAL * renewal);
            };
            // It is there before somebody else looks.
            write(0).await;
            let hold = async {
                for renewal in 1.. {
                    sleep(RENEWAL).await;
                    write(renewal).await;
                }
            };
            tokio::time::pause();
            let acquired = acquire_within(store, LockKind::Collect, Duration::from_secs(600));
            tokio::select! {
                lock = acquired => {
                    let error = lock.expect_err("somebody holds it");
                    assert!(matches!(error, PublishError::Locked { is_push: true, .. }));
                }
                () = hold => {}
            }
            store.head(&key).await.expect("it is still there");
        });
    }

    #[test]
    fn publishers_and_collectors_exclude_one_another() {
        use LockKind::{Collect, Push};

        with_store(async |store| {
            for (held, wanted, is_excluded) in [
                (Push, Collect, true),
                (Collect, Push, true),
                (Collect, Collect, true),
                (Push, Push, false),
            ] {
                let lock = acquire(store, held).await.expect("a lock");
                assert!(lock.is_held());
                let second = acquire(store, wanted).await;
                assert_eq!(second.is_err(), is_excluded, "{held:?} {wanted:?}");
                if let Err(error) = &second {
                    let error = error.to_string();
                    assert!(error.contains("somebody since 2"), "{error}");
                }
                if let Ok(second) = second {
                    second.release().await;
                }
                lock.release().await;
                let left = store.list(layout::LOCKS, None).await.expect("listed");
                assert_eq!(left, [], "{held:?} {wanted:?}");
            }
        });
    }

    #[test]
    fn a_lock_that_a_killed_process_has_left_stands_in_nobodys_way() {
        with_store(async |store| {
            let StoreUrl::Folder(folder) = store.url().clone() else {
                unreachable!("a folder");
            };
            let lock = acquire(store, LockKind::Collect).await.expect("a lock");
            let file = File::open(folder.join(lock.key.as_str())).expect("a file");
            for (age, is_left) in [(100, false), (140, true)] {
                let written = SystemTime::now() - Duration::from_secs(age);
                file.set_modified(written).expect("an older one");
                let acquired = acquire(store, LockKind::Push).await.is_ok();
                assert_eq!(acquired, is_left, "{age} s");
            }
        });
    }

    #[test]
    fn a_lock_that_is_not_renewed_is_not_relied_on() {
        with_store(async |store| {
            let lock = acquire(store, LockKind::Push).await.expect("a lock");
            let step = async || Ok::<_, PublishError>(7);
            assert_eq!(lock.step(step()).await.expect("held"), 7);
            lock.hold.expire();
            assert!(matches!(
                lock.step(step()).await,
                Err(PublishError::Expired)
            ));
        });
    }

    #[test]
    fn nothing_more_is_deleted_once_a_lock_has_expired_in_the_middle() {
        with_store(async |store| {
            let keys: Vec<_> = (0..30)
                .map(|number| layout::probe(&number.to_string()))
                .collect();
            for key in &keys {
                store.put(key, Bytes::from_static(b"1")).await.expect("put");
            }
            let lock = acquire(store, LockKind::Collect).await.expect("a lock");
            let (hold, mut left) = (lock.hold.clone(), 3);
            let sleeping = store.delete_while(&keys, move || {
                if left == 0 {
                    hold.expire();
                }
                left -= 1;
                hold.is_current()
            });
            lock.step(sleeping).await.expect("some are deleted");
            let deletion = lock.delete_all(&keys).await;
            assert!(matches!(deletion, Err(PublishError::Expired)));
            let stored = store.list(layout::PROBES, None).await.expect("listed");
            assert_eq!(stored.len(), 27);
        });
    }

    #[test]
    fn a_lock_outlasts_a_step_whose_end_is_not_known() {
        let lost = |store: &Store| {
            let StoreUrl::Folder(folder) = store.url() else {
                unreachable!("a folder");
            };
            Store::open(
                &StoreUrl::Folder(folder.join("missing")),
                StorePatience::default(),
                &Trust::Nobody,
            )
            .expect_err("it is not there")
        };
        with_store(async |store| {
            for (what, is_left) in [
                ("ended", false),
                ("lost", false),
                ("failed", true),
                ("given up", true),
                ("stopped", true),
            ] {
                let id = publisher_id();
                let lock = acquire_as(store, &id, LockKind::Collect, Duration::ZERO);
                let lock = lock.await.expect("a lock");
                match what {
                    "ended" => lock.step(async { Ok::<_, PublishError>(()) }).await.ok(),
                    "lost" => {
                        let step = async { Err::<(), _>(PublishError::Uncertain(1)) };
                        lock.step(step).await.ok()
                    }
                    "failed" => lock.step(async { Err::<(), _>(lost(store)) }).await.ok(),
                    "given up" => {
                        tokio::time::pause();
                        let step = std::future::pending::<Result<(), PublishError>>();
                        let given_up = lock.step(step).await;
                        tokio::time::resume();
                        assert!(matches!(given_up, Err(PublishError::Expired)));
                        None
                    }
                    _ => {
                        let step = lock.step(std::future::pending::<Result<(), PublishError>>());
                        let stopped = timeout(Duration::ZERO, step).await;
                        assert!(stopped.is_err(), "it goes on");
                        None
                    }
                };
                if what == "stopped" {
                    drop(lock);
                    abandon(store, &id).await.expect("asked");
                } else {
                    lock.release().await;
                }
                let key = layout::lock(LockKind::Collect, id.as_str());
                assert_eq!(store.head(&key).await.is_ok(), is_left, "{what}");
                store.delete(&key).await.expect("deleted");
            }
        });
    }
}

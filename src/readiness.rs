//! Whether a balancer may send requests here (promise P9).

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use humantime::format_duration;

use crate::beat::{Beats, Stall, WatchThread};
use crate::manifest::{Manifest, SiteDigest};
use crate::progress::ByteProgress;
use crate::settings::{Digest, Expectation};

/// Where the process stands between its start and its end. It only goes forward.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Phase {
    /// The manifest is not complete.
    Scanning = 0,
    /// Requests are answered.
    Serving = 1,
    /// Requests are answered for a little while; new ones should go elsewhere.
    Draining = 2,
}

/// The phase and what is expected, shared by all who ask for them.
#[derive(Debug, Default)]
pub struct Readiness {
    phase: AtomicU8,
    expectation: Option<Expectation>,
    has_held: AtomicBool,
    /// What a scan has found to be wrong.
    reason: Mutex<Option<String>>,
    /// What the operator is to know although requests are answered.
    remark: Mutex<Option<String>>,
    /// Whether those get on who keep the site true to the disk; there are none before the first
    /// scan.
    threads: OnceLock<Arc<Beats>>,
    /// What the first scan has to compress, if anything.
    compression: OnceLock<Arc<ByteProgress>>,
}

/// Why no requests should be sent here.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    /// The manifest is not complete.
    #[error("scanning: the manifest is not complete yet")]
    Scanning,
    /// The manifest lacks content codings that are being made.
    #[error("compressing {percent} %: the manifest is not complete yet")]
    Compressing {
        /// How much of it is done.
        percent: u64,
    },
    /// The files on disk do not match the release that is to be served.
    #[error("{0}")]
    Unproven(String),
    /// The site is not the expected one, or its digest is incomplete.
    #[error("site digest {current} does not match the expected {}", .expected.hash())]
    Unexpected {
        /// What `--expect` says.
        expected: Digest,
        /// The published site.
        current: SiteDigest,
    },
    /// Somebody does not get on, so that changes are not published.
    #[error("{}", stall_message(.0))]
    Stalled(Stall),
    /// The process is about to end.
    #[error("draining: this process is about to end")]
    Draining,
}

/// What it means that work does not get on, and where to look.
pub fn stall_message(stall: &Stall) -> String {
    let waited = format_duration(Duration::from_secs(stall.waited.as_secs()));
    let (who, consequence) = match stall.thread {
        WatchThread::Follower => {
            return format!(
                "what follows the store has not got on for {waited}: no later release is served; \
                 please report this, and restart the server"
            );
        }
        WatchThread::Watcher => ("the watcher", "no change is published"),
        WatchThread::Hasher => (
            "the hashing of a large file",
            "its change is not published, and no sweep is made",
        ),
        WatchThread::Scrubber => ("the scrub", "no file is read again"),
    };
    format!(
        "{who} has waited for the file system for {waited}: {consequence}; is a mount in the site \
         dead?"
    )
}

/// A published site is not the expected one.
#[derive(Debug, thiserror::Error)]
#[error("site digest {current} does not match --expect {}: {consequence}", .expected.hash())]
pub struct Mismatch {
    /// What `--expect` says.
    pub expected: Digest,
    current: SiteDigest,
    consequence: &'static str,
}

impl Readiness {
    /// In the first phase. With an expectation, it takes more than the last scan to be ready.
    pub fn new(expectation: Option<Expectation>) -> Self {
        Self {
            expectation,
            ..Self::default()
        }
    }

    /// Goes on to `phase`. An earlier phase is never entered again.
    pub fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::SeqCst);
    }

    /// The phase now.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::SeqCst) {
            0 => Phase::Scanning,
            1 => Phase::Serving,
            _ => Phase::Draining,
        }
    }

    /// Has these beats looked at from now on. Only the first ones count.
    pub fn look_after(&self, threads: Arc<Beats>) {
        let _ = self.threads.set(threads);
    }

    /// Has this shown as what the first scan has to compress. Only the first one counts.
    pub fn show_compression(&self, progress: Arc<ByteProgress>) {
        let _ = self.compression.set(progress);
    }

    /// Who of those that keep the site true to the disk does not get on.
    pub fn stalled(&self) -> Vec<Stall> {
        self.threads
            .get()
            .map_or_else(Vec::new, |all| all.stalled())
    }

    /// Whether changes are published.
    ///
    /// # Errors
    /// When the watcher does not get on, or who hashes for it.
    pub fn check_watcher(&self) -> Result<(), NotReady> {
        // Without a scrub, changes are published all the same.
        let is_publishing = |stall: &Stall| stall.thread != WatchThread::Scrubber;
        let stalled = self.stalled().into_iter().find(is_publishing);
        stalled.map_or(Ok(()), |stall| Err(NotReady::Stalled(stall)))
    }

    /// Says what stands in the way of the first publication, or that nothing does.
    pub fn explain(&self, reason: Option<String>) {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// Says what the operator is to know although requests are answered, or that there is nothing.
    pub fn remark(&self, remark: Option<String>) {
        *self.remark.lock().unwrap_or_else(PoisonError::into_inner) = remark;
    }

    /// What the operator is to know although requests are answered.
    pub fn last_remark(&self) -> Option<String> {
        let remark = self.remark.lock();
        remark.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What stands in the way of the first publication.
    pub fn obstacle(&self) -> NotReady {
        let reason = self
            .reason
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        match (reason, self.compression.get().and_then(|it| it.percent())) {
            (Some(reason), _) => NotReady::Unproven(reason),
            (None, Some(percent)) => NotReady::Compressing { percent },
            (None, None) => NotReady::Scanning,
        }
    }

    /// Compares a newly published site with `--expect`.
    ///
    /// # Errors
    /// When it is another; whether that matters, [`Readiness::check`] tells.
    pub fn observe(&self, current: SiteDigest) -> Result<(), Mismatch> {
        let Some(Expectation { digest, always }) = self.expectation else {
            return Ok(());
        };
        if current.matches(digest) {
            self.has_held.store(true, Ordering::SeqCst);
            return Ok(());
        }
        let is_ready = !always && self.has_held.load(Ordering::SeqCst);
        Err(Mismatch {
            expected: digest,
            current,
            consequence: match is_ready {
                true => "still ready, since it was the expected one before",
                false => "not ready",
            },
        })
    }

    /// The published site, if requests may be sent here.
    ///
    /// # Errors
    /// The reason why not.
    pub fn check<'m>(&self, published: Option<&'m Manifest>) -> Result<&'m Manifest, NotReady> {
        if self.phase() == Phase::Serving {
            self.check_watcher()?;
        }
        let manifest = match (self.phase(), published) {
            (Phase::Draining, _) => return Err(NotReady::Draining),
            (Phase::Scanning, _) | (_, None) => return Err(self.obstacle()),
            (Phase::Serving, Some(manifest)) => manifest,
        };
        let current = manifest.digest();
        match self.expectation {
            Some(Expectation { digest, always })
                if !current.matches(digest)
                    && (always || !self.has_held.load(Ordering::SeqCst)) =>
            {
                Err(NotReady::Unexpected {
                    expected: digest,
                    current,
                })
            }
            _ => Ok(manifest),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::manifest::Changes;
    use crate::settings::Settings;

    /// Two sites, and the first one again with a file that can't be read.
    fn sites() -> [Manifest; 3] {
        let empty = Manifest::empty(Settings::default());
        let other = Manifest::empty(Settings {
            last_modified: false,
            ..Settings::default()
        });
        let incomplete = empty.with(Changes {
            unreadable: BTreeMap::from([(b"a".to_vec().into(), "denied".to_owned())]),
            ..Changes::default()
        });
        [empty, other, incomplete]
    }

    fn expecting(site: &Manifest, always: bool) -> Readiness {
        let digest = site.digest().to_string().parse().expect("a digest");
        let readiness = Readiness::new(Some(Expectation { digest, always }));
        readiness.enter(Phase::Serving);
        readiness
    }

    #[test]
    fn phases_go_forward_only() {
        let (readiness, [site, ..]) = (Readiness::default(), sites());
        let scanning = readiness.check(Some(&site));
        assert!(matches!(scanning, Err(NotReady::Scanning)));
        readiness.explain(Some("a file is missing".to_owned()));
        let unproven = readiness.check(Some(&site));
        assert!(matches!(unproven, Err(NotReady::Unproven(_))));
        readiness.explain(None);
        readiness.enter(Phase::Serving);
        assert!(readiness.check(Some(&site)).is_ok());
        assert!(matches!(readiness.check(None), Err(NotReady::Scanning)));
        readiness.enter(Phase::Draining);
        readiness.enter(Phase::Serving);
        let draining = readiness.check(Some(&site));
        assert!(matches!(draining, Err(NotReady::Draining)));
    }

    #[test]
    fn what_is_being_compressed_says_how_far_it_is() {
        let (readiness, [site, ..]) = (Readiness::default(), sites());
        let progress = Arc::new(ByteProgress::default());
        readiness.show_compression(Arc::clone(&progress));
        let said = || match readiness.check(Some(&site)) {
            Ok(_) => "ready".to_owned(),
            Err(reason) => reason.to_string(),
        };
        assert!(said().starts_with("scanning: "), "nothing to do yet");
        progress.set_total(1000);
        assert!(said().starts_with("compressing 0 %: "), "{}", said());
        progress.add(619);
        assert!(said().starts_with("compressing 61 %: "), "{}", said());
        progress.add(381);
        assert!(said().starts_with("scanning: "), "{}", said());
        readiness.enter(Phase::Serving);
        assert_eq!(said(), "ready");
    }

    #[test]
    fn a_watcher_that_does_not_get_on_is_not_ready() {
        let (readiness, [site, ..]) = (Readiness::default(), sites());
        readiness.enter(Phase::Serving);
        assert!(readiness.check(Some(&site)).is_ok(), "none yet");
        let beats = Arc::new(Beats::new(Duration::ZERO));
        readiness.look_after(Arc::clone(&beats));
        let beat = beats.begin(WatchThread::Watcher);
        assert!(readiness.check(Some(&site)).is_ok(), "nothing to do");
        beat.step();
        std::thread::sleep(Duration::from_millis(5));
        let stalled = readiness.check(Some(&site));
        assert!(matches!(stalled, Err(NotReady::Stalled(_))), "{stalled:?}");
        beat.rest();
        assert!(readiness.check(Some(&site)).is_ok());
        // Who hashes for it keeps changes back as well; a scrub keeps back nothing.
        for (thread, is_ready) in [(WatchThread::Hasher, false), (WatchThread::Scrubber, true)] {
            let other = beats.begin(thread);
            other.step();
            std::thread::sleep(Duration::from_millis(5));
            let stalled = readiness.check(Some(&site));
            assert_eq!(stalled.is_ok(), is_ready, "{thread:?}: {stalled:?}");
            assert_eq!(readiness.stalled().len(), 1);
        }
        assert!(readiness.check(Some(&site)).is_ok());
        beat.step();
        readiness.enter(Phase::Draining);
        let draining = readiness.check(Some(&site));
        assert!(matches!(draining, Err(NotReady::Draining)), "{draining:?}");
    }

    #[test]
    fn what_has_held_once_is_enough() {
        let [expected, other, _] = sites();
        let readiness = expecting(&expected, false);
        let mismatch = readiness.observe(other.digest()).expect_err("another site");
        assert!(mismatch.to_string().ends_with(": not ready"), "{mismatch}");
        let check = readiness.check(Some(&other));
        assert!(matches!(check, Err(NotReady::Unexpected { .. })));
        assert!(readiness.observe(expected.digest()).is_ok());
        assert!(readiness.check(Some(&expected)).is_ok());
        let mismatch = readiness.observe(other.digest()).expect_err("another site");
        assert!(mismatch.to_string().contains("still ready"), "{mismatch}");
        assert!(readiness.check(Some(&other)).is_ok());
    }

    #[test]
    fn what_must_hold_always_is_looked_at_each_time() {
        let [expected, other, _] = sites();
        let readiness = expecting(&expected, true);
        for (site, is_ready) in [(&expected, true), (&other, false), (&expected, true)] {
            assert_eq!(readiness.observe(site.digest()).is_ok(), is_ready);
            assert_eq!(readiness.check(Some(site)).is_ok(), is_ready);
        }
    }

    #[test]
    fn an_incomplete_digest_equals_none() {
        let [expected, _, incomplete] = sites();
        let readiness = expecting(&expected, false);
        assert!(readiness.observe(incomplete.digest()).is_err());
        let check = readiness.check(Some(&incomplete));
        assert!(check.is_err_and(|error| error.to_string().contains("-incomplete")));
    }
}

//! The watcher with a source of hints that tells nothing, or lies, or fails: what is promised does
//! not hang on the kernel's reports.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use etagd::beat::Beats;
use etagd::disk::Root;
use etagd::metrics::Metrics;
use etagd::scan::{Progress, Scanner};
use etagd::settings::{Settings, Symlinks};
use etagd::site::Site;
use etagd::watch::{ChangeSource, EventKind, Hint, Watch, WatchError, WatcherOptions};

use support::TestSite;
use support::tree::{digest_of, stays, within, write_tree};

/// Why nothing can be watched, if that is so at the moment.
type Refusal = Arc<Mutex<Option<WatchError>>>;

/// A source that reports nothing by itself.
struct Silent {
    refusal: Refusal,
    /// How often the root was watched.
    watched: Arc<AtomicUsize>,
    root: PathBuf,
    /// Whoever holds it keeps the watcher waiting, as a dead mount does.
    gate: Arc<Mutex<()>>,
}

impl ChangeSource for Silent {
    fn watch(&mut self, path: &Path, _: bool) -> Result<(), WatchError> {
        if path == self.root {
            self.watched.fetch_add(1, Ordering::SeqCst);
        }
        let refusal = self.refusal.lock().unwrap().clone();
        refusal.map_or(Ok(()), Err)
    }

    fn unwatch_all(&mut self) {}

    fn barrier(&mut self) {
        drop(self.gate.lock().unwrap());
    }
}

/// A site in this process, watched with such a source.
struct Watched {
    site: Arc<Site>,
    metrics: Arc<Metrics>,
    hints: Sender<Hint>,
    root: PathBuf,
    refusal: Refusal,
    watched: Arc<AtomicUsize>,
    gate: Arc<Mutex<()>>,
    beats: Arc<Beats>,
}

impl Watched {
    fn start(site: &TestSite, refusal: Option<WatchError>) -> Self {
        let root = Arc::new(Root::open(&site.root()).unwrap());
        let options = WatcherOptions {
            directory: site.root(),
            exclude: Default::default(),
            settle: Duration::from_millis(50),
            settle_alone: Duration::from_millis(50),
            max_batch_age: Duration::from_secs(2),
            sweep: Duration::from_secs(3600),
            scrub: None,
            keep_old: None,
            keep_pages: false,
            hold_empty: None,
            max_step: Duration::from_millis(200),
        };
        let metrics = Arc::new(Metrics::default());
        let (hints, received) = channel();
        let refusal = Arc::new(Mutex::new(refusal));
        let watched = Arc::new(AtomicUsize::new(0));
        let gate = Arc::new(Mutex::new(()));
        let source = Silent {
            refusal: Arc::clone(&refusal),
            watched: Arc::clone(&watched),
            root: site.root().canonicalize().unwrap(),
            gate: Arc::clone(&gate),
        };
        let watch = Watch::arm_with(
            Box::new(source),
            options,
            Arc::clone(&root),
            Arc::clone(&metrics),
            (hints.clone(), received),
        );
        let beats = watch.beats();
        let scanner = Scanner::new(Symlinks::Inside, Settings::default(), None);
        let (manifest, links) = scanner.scan(&root, &Progress::default());
        let published = Arc::new(Site::new(manifest));
        watch.spawn(Arc::clone(&published), scanner, links).unwrap();
        Self {
            site: published,
            metrics,
            hints,
            root: site.root(),
            refusal,
            watched,
            gate,
            beats,
        }
    }

    fn sweeps(&self) -> u64 {
        self.metrics.sweeps.get()
    }

    fn digest(&self) -> String {
        self.site.current().digest().to_string()
    }

    fn is_true(&self, digest: &str) -> bool {
        self.digest() == digest
    }
}

#[test]
fn lost_hints_are_made_good_by_a_sweep() {
    let site = TestSite::in_memory().file("file", "1");
    let watched = Watched::start(&site, None);
    for round in 1..4 {
        let before = watched.digest();
        write_tree(&site.path("tree"), 300, &format!("round {round}"));
        fs::write(site.path("file"), format!("round {round}")).unwrap();
        stays(
            Duration::from_millis(150),
            "nobody has said anything",
            || watched.is_true(&before),
        );
        watched.hints.send(Hint::Lost).unwrap();
        let after = digest_of(&watched.root);
        within(Duration::from_secs(5), "all of it is found", || {
            watched.is_true(&after)
        });
        assert_eq!(watched.metrics.overflows.get(), round);
        // What came meanwhile is watched, too.
        assert!(watched.watched.load(Ordering::SeqCst) > round as usize);
    }
}

#[test]
fn where_nothing_can_be_watched_sweeps_come_often() {
    let site = TestSite::in_memory().file("file", "1");
    let watched = Watched::start(&site, Some(WatchError::Unsupported));
    assert_eq!(watched.metrics.watch_failures.get(), 1);
    let unwatched = || watched.metrics.unwatched_places.load(Ordering::SeqCst);
    within(Duration::from_secs(6), "it is counted", || unwatched() == 1);
    // Nothing has failed: it is a fact of the system.
    assert!(!watched.metrics.watch_incomplete.load(Ordering::SeqCst));
    for round in 1..3 {
        write_tree(&site.path("tree"), 300, &format!("round {round}"));
        let after = digest_of(&watched.root);
        within(Duration::from_secs(6), "all of it is found", || {
            watched.is_true(&after)
        });
    }
}

#[test]
fn what_goes_blind_later_is_swept_from_then_on() {
    let site = TestSite::in_memory().file("dir/file", "1");
    let watched = Watched::start(&site, None);
    let before = watched.digest();
    fs::write(site.path("dir/file"), "2").unwrap();
    stays(
        Duration::from_millis(150),
        "nobody has said anything",
        || watched.is_true(&before),
    );
    *watched.refusal.lock().unwrap() = Some(WatchError::TooMany);
    let hint = Hint::Blind(site.path("dir"), WatchError::TooMany);
    watched.hints.send(hint).unwrap();
    for round in 3..5 {
        fs::write(site.path("dir/file"), format!("{round}")).unwrap();
        let after = digest_of(&watched.root);
        within(Duration::from_secs(6), "it is found", || {
            watched.is_true(&after)
        });
    }
}

#[test]
fn what_could_not_be_watched_is_tried_again_before_a_sweep() {
    let site = TestSite::in_memory().file("dir/file", "1");
    let watched = Watched::start(&site, Some(WatchError::TooMany));
    assert_eq!(watched.watched.load(Ordering::SeqCst), 1);
    let is_incomplete = || watched.metrics.watch_incomplete.load(Ordering::SeqCst);
    within(Duration::from_secs(6), "it is said", is_incomplete);
    *watched.refusal.lock().unwrap() = None;
    within(Duration::from_secs(10), "a sweep is made", || {
        watched.sweeps() == 1
    });
    within(Duration::from_secs(6), "it is over", || !is_incomplete());
    assert_eq!(watched.watched.load(Ordering::SeqCst), 2);
    // Sweeps are rare again: what is watched is reported.
    fs::write(site.path("dir/file"), "2").unwrap();
    stays(Duration::from_secs(4), "no sweep is made", || {
        watched.sweeps() == 1
    });
    watched
        .hints
        .send(Hint::Path {
            path: site.path("dir/file"),
            kind: EventKind::Closed,
        })
        .unwrap();
    let after = digest_of(&watched.root);
    within(Duration::from_secs(2), "it is found", || {
        watched.is_true(&after)
    });
}

#[test]
fn a_watcher_that_does_not_come_back_is_noticed() {
    let site = TestSite::in_memory().file("file", "1");
    let watched = Watched::start(&site, None);
    assert_eq!(watched.beats.stalled(), []);
    let gate = watched.gate.lock().unwrap();
    fs::write(site.path("file"), "2").unwrap();
    watched.hints.send(Hint::Lost).unwrap();
    within(Duration::from_secs(5), "it is stalled", || {
        !watched.beats.stalled().is_empty()
    });
    drop(gate);
    let after = digest_of(&watched.root);
    within(Duration::from_secs(5), "it goes on", || {
        watched.is_true(&after) && watched.beats.stalled().is_empty()
    });
}

#[test]
fn hints_of_what_is_not_there_change_nothing() {
    let site = TestSite::in_memory().file("dir/file", "1");
    let watched = Watched::start(&site, None);
    let before = watched.digest();
    let kind = EventKind::Unknown;
    for path in ["/", "/proc/self/mem", "/no/such/path", "", "relative"] {
        let path = PathBuf::from(path);
        watched
            .hints
            .send(Hint::Path {
                path: path.clone(),
                kind,
            })
            .unwrap();
        watched.hints.send(Hint::Suspect(path)).unwrap();
    }
    for name in [
        "dir",
        "dir/file/below",
        "dir/..",
        "../..",
        ".hidden",
        "dir//file",
        "",
    ] {
        let path = site.path(name);
        watched.hints.send(Hint::Path { path, kind }).unwrap();
    }
    stays(Duration::from_millis(300), "nothing has changed", || {
        watched.is_true(&before)
    });
    fs::write(site.path("dir/file"), "2").unwrap();
    watched
        .hints
        .send(Hint::Path {
            path: site.path("dir/file"),
            kind,
        })
        .unwrap();
    let after = digest_of(&watched.root);
    within(Duration::from_secs(3), "the one change is found", || {
        watched.is_true(&after)
    });
}

#[test]
fn scrubs_find_what_no_event_tells() {
    // Written through a name outside, which no event tells; the sweep is an hour away.
    let site = TestSite::in_memory().file("file", "1");
    let server = support::Server::with(&site, &["--sweep", "1h", "--scrub", "500ms"]);
    fs::hard_link(site.path("file"), site.outside("name")).unwrap();
    fs::write(site.outside("name"), "2").unwrap();
    server.wait_for_body("/file", "2");
}

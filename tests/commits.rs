//! Commits without a server: what a condition is good for, shown by leaving it out.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use etagd::commit::{CommitError, Committed, Condition, Operation, WriteJob};
use etagd::disk::Root;
use etagd::metrics::Metrics;
use etagd::representation::Resource;
use etagd::scan::{Progress, Scanner};
use etagd::settings::{Settings, Symlinks};
use etagd::site::Site;
use etagd::staging::{Directory, TempFile};
use etagd::watch::{Hint, Watch, WatcherOptions};
use tokio::sync::oneshot;

use support::TestSite;

/// A site in this process whose files can be changed.
struct Desk {
    site: Arc<Site>,
    root: Arc<Root>,
    hints: Sender<Hint>,
}

impl Desk {
    fn new(site: &TestSite) -> Self {
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
            max_step: Duration::from_secs(60),
        };
        let watch = Watch::arm(options, Arc::clone(&root), Arc::new(Metrics::default()));
        let scanner = Scanner::new(Symlinks::Inside, Arc::new(Settings::default()), None);
        let (manifest, links) = scanner.scan(&root, &Progress::default());
        let (site, hints) = (Arc::new(Site::new(manifest)), watch.hints());
        watch.spawn(Arc::clone(&site), scanner, links).unwrap();
        Self { site, root, hints }
    }

    fn put(
        &self,
        path: &str,
        content: &[u8],
        condition: Condition,
    ) -> Result<Committed, CommitError> {
        let directory = Directory::open(&self.root, Path::new("")).unwrap();
        let temp_file = TempFile::readable(directory).unwrap();
        temp_file.write_all(content).unwrap();
        let hash = *blake3::hash(content).as_bytes();
        let (reply, replied) = oneshot::channel();
        let commit = WriteJob {
            path: path.as_bytes().into(),
            operation: Operation::Put { temp_file, hash },
            condition,
            reply,
        };
        self.hints.send(Hint::WriteJob(commit)).unwrap();
        let replied = replied.blocking_recv().unwrap();
        replied.map_err(|rejected| rejected.error)
    }
}

const CLIENTS: usize = 16;
const WRITES: usize = 400;

/// Lets all clients read, increment and write one counter, under the condition that `demand` makes
/// of the hash that they have read; returns where it ends.
fn count(demand: impl Fn([u8; 32]) -> Condition + Sync) -> usize {
    let site = TestSite::with(&[("counter", b"0")]);
    let desk = Desk::new(&site);
    let path = site.path("counter");
    let (made, together) = (AtomicUsize::new(0), Barrier::new(CLIENTS));
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                for _ in 0..WRITES / CLIENTS {
                    // All have read when the first one writes.
                    together.wait();
                    loop {
                        let known = fs::read_to_string(&path).unwrap();
                        let next = known.parse::<usize>().unwrap() + 1;
                        let condition = demand(*blake3::hash(known.as_bytes()).as_bytes());
                        match desk.put("counter", next.to_string().as_bytes(), condition) {
                            Ok(_) => break,
                            Err(CommitError::Failed(_) | CommitError::Busy(_)) => {}
                            Err(other) => panic!("{other:?}"),
                        }
                    }
                    made.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!(made.into_inner(), WRITES);
    let end = fs::read_to_string(&path).unwrap();
    let published = desk
        .site
        .current()
        .locate(b"counter")
        .unwrap()
        .identity
        .etag;
    assert_eq!(published.hash(), blake3::hash(end.as_bytes()).as_bytes());
    end.parse().unwrap()
}

fn is(now: Option<&Resource>, hash: [u8; 32]) -> bool {
    now.is_some_and(|now| *now.identity.etag.hash() == hash)
}

#[test]
fn with_its_condition_a_counter_counts_all() {
    assert_eq!(count(|hash| Box::new(move |now| is(now, hash))), WRITES);
}

/// The same without: where this holds too, the test above shows nothing.
#[test]
fn without_a_condition_a_counter_falls_short() {
    let end = count(|_| Box::new(|_| true));
    assert!(
        end < WRITES,
        "{end} of {WRITES}: nobody was in anybody's way"
    );
}

#[test]
fn whoever_does_not_wait_has_nothing_changed() {
    let site = TestSite::with(&[("a", b"one"), (".etagd-hold", b"")]);
    let desk = Desk::new(&site);
    let refused = desk.put("a", b"two", Box::new(|_| true));
    assert!(matches!(refused, Err(CommitError::Busy(_))), "{refused:?}");
    fs::remove_file(site.path(".etagd-hold")).unwrap();
    let directory = Directory::open(&desk.root, Path::new("")).unwrap();
    let (reply, replied) = oneshot::channel();
    drop(replied);
    let operation = Operation::Put {
        temp_file: TempFile::readable(directory).unwrap(),
        hash: *blake3::hash(b"").as_bytes(),
    };
    let commit = WriteJob {
        path: b"a".as_slice().into(),
        operation,
        condition: Box::new(|_| true),
        reply,
    };
    desk.hints.send(Hint::WriteJob(commit)).unwrap();
    let made = desk.put("b", b"new", Box::new(|_| true)).unwrap();
    assert_eq!(
        made.now.map(|now| *now.hash()),
        Some(*blake3::hash(b"new").as_bytes())
    );
    assert_eq!(fs::read(site.path("a")).unwrap(), b"one");
}

//! Tests of the watcher's thread, turn by turn on the thread of the test, so that it is known what
//! happens between two calls to the file system, and each of them can fail.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use tempfile::TempDir;
use tokio::sync::oneshot;
use walkdir::WalkDir;

use super::coverage::Coverage;
use super::driver::Driver;
use super::faults::listed;
use super::publisher::Publisher;
use super::schedule::{Periods, Schedule};
use super::source::{ChangeSource, EventKind, Hint, NoReports, WatchError};
use crate::beat::{Beats, WatchThread};
use crate::commit::{Operation, RejectedWrite, WriteJob};
use crate::disk::Root;
use crate::disk::seam::{self, Call, FAULTS};
use crate::manifest::Manifest;
use crate::memory::{MIN_MEMORY, Memory};
use crate::metrics::Metrics;
use crate::representation::{Data, MAX_IN_MEMORY, Resource};
use crate::scan::{Progress, Scanner, Scope, Unsettled};
use crate::settings::{CompressionPolicy, Settings, Symlinks};
use crate::site::Site;
use crate::staging::{DirectoriesInUse, Directory, DirectoryUse, TempFile};

const SETTLE: Duration = Duration::from_millis(100);
const ALONE: Duration = Duration::from_millis(5);

/// A site whose watcher works when the test says so, and hears of changes from the test alone.
struct Desk {
    directory: TempDir,
    site: Arc<Site>,
    hints: Sender<Hint>,
    metrics: Arc<Metrics>,
    driver: Driver,
    in_use: Arc<DirectoriesInUse>,
    settings: Arc<Settings>,
    scanner: Arc<Scanner>,
}

impl Desk {
    fn new(files: &[(&str, &str)], quiet: (Duration, Duration)) -> Self {
        Self::with_memory(files, quiet, None)
    }

    fn with_memory(
        files: &[(&str, &str)],
        quiet: (Duration, Duration),
        memory: Option<Arc<Memory>>,
    ) -> Self {
        Self::with_settings(files, quiet, memory, Settings::default())
    }

    fn with_settings(
        files: &[(&str, &str)],
        (settle, settle_alone): (Duration, Duration),
        memory: Option<Arc<Memory>>,
        settings: Settings,
    ) -> Self {
        let periods = Periods {
            settle,
            settle_alone,
            max_age: Duration::from_secs(2),
            sweep: Duration::from_secs(3600),
            hold_empty: None,
            keeps_removed: false,
        };
        let channel = channel();
        Self::watched_by(
            Box::new(NoReports),
            channel,
            files,
            periods,
            memory,
            settings,
        )
    }

    fn watched_by(
        source: Box<dyn ChangeSource>,
        (hints, received): (Sender<Hint>, Receiver<Hint>),
        files: &[(&str, &str)],
        periods: Periods,
        memory: Option<Arc<Memory>>,
        settings: Settings,
    ) -> Self {
        let settings = Arc::new(settings);
        // Syncing takes no time there.
        let directory = match Path::new("/dev/shm").is_dir() {
            true => tempfile::tempdir_in("/dev/shm"),
            false => tempfile::tempdir(),
        };
        let directory = directory.expect("a directory");
        for (path, content) in files {
            let path = directory.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, content).expect("written");
        }
        let root = Arc::new(Root::open(directory.path()).expect("a root"));
        let metrics = Arc::new(Metrics::default());
        let beats = Arc::new(Beats::new(Duration::from_secs(60)));
        let beat = beats.begin(WatchThread::Watcher);
        let scanner = Scanner::new(Symlinks::Inside, Arc::clone(&settings), memory);
        let scanner = Arc::new(scanner);
        let (manifest, links) = scanner.scan(&root, &Progress::default());
        let site = Arc::new(Site::new(manifest));
        let coverage = Coverage::new(
            source,
            directory.path().to_path_buf(),
            root,
            Arc::default(),
            Arc::clone(&metrics),
        );
        let publisher = Publisher {
            site: Arc::clone(&site),
            scanner: Arc::clone(&scanner),
            metrics: Arc::clone(&metrics),
            release: None,
            keep_old: None,
            keep_pages: false,
            progress: Progress::default(),
        };
        let schedule = Schedule::new(periods, Instant::now());
        let channel = (hints.clone(), received);
        let driver = Driver::new(channel, (beats, beat), coverage, schedule, publisher, links);
        Self {
            directory,
            site,
            hints,
            metrics,
            driver,
            in_use: Arc::default(),
            settings,
            scanner,
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn hint(&self, path: &str, kind: EventKind) {
        let path = self.path(path);
        self.hints.send(Hint::Path { path, kind }).expect("heard");
    }

    fn fresh(&self) -> Manifest {
        let root = Arc::new(Root::open(self.directory.path()).expect("a root"));
        let scanner = Scanner::new(Symlinks::Inside, Arc::clone(&self.settings), None);
        scanner.scan(&root, &Progress::default()).0
    }

    /// Works until what is published is what is on the disk.
    fn catch_up(&mut self, at: &str) {
        let fresh = listed(&self.fresh());
        let end = Instant::now() + Duration::from_secs(120);
        while listed(&self.site.current()) != fresh {
            assert!(Instant::now() < end, "{at}: not published");
            self.driver.run_once();
        }
    }

    /// Works until nothing is due, with `gate` before each call to the file system.
    fn work_through(mut self, gate: impl FnMut(Call) -> io::Result<()> + Send + 'static) -> Self {
        seam::run(gate, move || {
            self.driver.read_pending();
            while self.driver.due().is_some() {
                self.driver.run_once();
            }
            self
        })
    }

    /// Everything below the root: directories, and files with their content.
    fn tree(&self) -> BTreeMap<String, Option<String>> {
        let entries = WalkDir::new(self.directory.path()).min_depth(1);
        let entry = |entry: walkdir::DirEntry| {
            let path = entry.path();
            let name = path.strip_prefix(self.directory.path()).expect("below");
            (name.display().to_string(), fs::read_to_string(path).ok())
        };
        entries
            .into_iter()
            .map(|found| entry(found.expect("listed")))
            .collect()
    }

    /// Removes what a killed process would have left.
    fn clear(&self) {
        let root = Root::open(self.directory.path()).expect("a root");
        for entry in WalkDir::new(self.directory.path()).into_iter().flatten() {
            if entry.file_type().is_dir() {
                let below = entry
                    .path()
                    .strip_prefix(root.path())
                    .unwrap_or(Path::new(""));
                let directory = Directory::open(&root, below).expect("opened");
                directory.clear().expect("cleared");
            }
        }
    }
}

#[test]
fn only_a_file_that_is_saved_alone_has_the_short_quiet_period() {
    type Event = (&'static str, EventKind);
    use EventKind::{Changed, Closed, Unknown};
    let cases: [(&str, &[Event], bool); 6] = [
        ("saved", &[("a", Changed), ("a", Closed)], true),
        ("saved twice", &[("a", Closed), ("a", Closed)], true),
        ("a new file", &[("new", Changed), ("new", Closed)], false),
        ("renamed over", &[("a", Unknown)], false),
        ("with another", &[("b", Closed), ("a", Closed)], false),
        ("after a new one", &[("new", Closed), ("a", Closed)], false),
    ];
    for (name, events, is_short) in cases {
        let mut desk = Desk::new(&[("a", "a"), ("b", "b")], (10 * SETTLE, ALONE));
        // What the first turn has to do of itself is done before.
        desk.driver.run_due(Instant::now());
        fs::write(desk.path("new"), "new").expect("written");
        for (path, kind) in events {
            desk.hint(path, *kind);
        }
        desk.driver.read_pending();
        let due = desk.driver.due().expect("something is due");
        let wait = due.saturating_duration_since(Instant::now());
        assert_eq!(wait <= ALONE, is_short, "{name}: {wait:?}");
    }
}

/// Watches everything, and reports a loss when it is asked to catch up for the first time.
struct LosesOnce {
    loss: Option<Sender<Hint>>,
}

impl ChangeSource for LosesOnce {
    fn watch(&mut self, _: &Path, _: bool) -> Result<(), WatchError> {
        Ok(())
    }

    fn unwatch_all(&mut self) {}

    fn barrier(&mut self) {
        if let Some(hints) = self.loss.take() {
            hints.send(Hint::Lost).expect("heard");
        }
    }
}

#[test]
fn a_loss_that_is_reported_before_a_look_is_made_good_by_it() {
    let (hints, received) = channel();
    let source = Box::new(LosesOnce {
        loss: Some(hints.clone()),
    });
    let periods = Periods {
        settle: ALONE,
        settle_alone: ALONE,
        // Every batch is overdue: it is looked at whatever is reported meanwhile.
        max_age: Duration::ZERO,
        sweep: Duration::from_secs(3600),
        hold_empty: None,
        keeps_removed: false,
    };
    let mut desk = Desk::watched_by(
        source,
        (hints, received),
        &[("a", "a")],
        periods,
        None,
        Settings::default(),
    );
    fs::write(desk.path("a"), "changed").expect("written");
    desk.hint("a", EventKind::Closed);
    desk.catch_up("after a loss");
    assert_eq!(desk.metrics.sweeps.get(), 1);
    assert_eq!(desk.driver.due(), None, "no second sweep");
}

#[test]
fn what_is_suspect_during_the_look_at_it_is_published_by_that_look() {
    let mut desk = Desk::new(&[("a", "0")], (SETTLE, ALONE));
    desk.driver.run_due(Instant::now());
    // Nobody reports the change but responses, again and again.
    fs::write(desk.path("a"), "new").expect("written");
    let (file, hints) = (desk.path("a"), desk.hints.clone());
    let suspect = file.clone();
    hints.send(Hint::Suspect(suspect)).expect("heard");
    let gate = move |call: Call| {
        if call == Call::Read {
            hints.send(Hint::Suspect(file.clone())).expect("heard");
        }
        Ok(())
    };
    let (desk, turns) = seam::run(gate, move || {
        desk.driver.read_pending();
        let mut turns = 0;
        while desk.driver.due().is_some() {
            desk.driver.run_once();
            turns += 1;
        }
        (desk, turns)
    });
    assert_eq!(listed(&desk.site.current()), listed(&desk.fresh()));
    // One that waits, one that looks, and what a timer that is early adds.
    assert!(turns < 8, "{turns} turns");
}

/// Both files are written and looked at; between two calls of the look these `again` are written once
/// more. `None` where the look has not so many calls.
fn write_during_a_look(again: &'static [&'static str], place: usize) -> Option<()> {
    let desk = Desk::new(&[("one", "0"), ("two", "0")], (ALONE, ALONE));
    let states = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&states);
    desk.site.on_publication(move |_, new| {
        let hash = |path: &[u8]| new.locate(path).map(|file| *file.identity.etag.hash());
        let state = (hash(b"one"), hash(b"two"));
        seen.lock().expect("unpoisoned").push(state);
    });
    for path in ["one", "two"] {
        fs::write(desk.path(path), "first").expect("written");
        desk.hint(path, EventKind::Closed);
    }
    let (directory, hints) = (desk.directory.path().to_path_buf(), desk.hints.clone());
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let gate = move |_: Call| {
        if counted.fetch_add(1, Ordering::Relaxed) == place {
            for path in again {
                let (path, kind) = (directory.join(path), EventKind::Closed);
                fs::write(&path, "the second").expect("written");
                hints.send(Hint::Path { path, kind }).expect("heard");
            }
        }
        Ok(())
    };
    let mut desk = desk.work_through(gate);
    desk.catch_up(&format!("call {place}"));
    let hash = |content: &str| Some(*blake3::hash(content.as_bytes()).as_bytes());
    let (before, first, second) = (hash("0"), hash("first"), hash("the second"));
    let last = |path| if again.contains(&path) { second } else { first };
    let last = (last("one"), last("two"));
    for state in states.lock().expect("unpoisoned").iter() {
        let is_whole = [(before, before), (first, first), last].contains(state);
        assert!(is_whole, "{again:?} at call {place}: published half");
    }
    (calls.load(Ordering::Relaxed) > place).then_some(())
}

#[test]
fn what_changes_during_a_look_is_published_whole() {
    for again in [&["one", "two"][..], &["one"], &["two"]] {
        let places = (0..).map_while(|place| write_during_a_look(again, place));
        assert!(places.count() > 5);
    }
}

/// What is done when the watcher asks for what has been reported until then, before a look and after it;
/// the last comes first.
type AtBarriers = Arc<Mutex<Vec<Box<dyn FnOnce() + Send>>>>;

/// Lets something happen at each barrier.
struct ActsAtBarriers(AtBarriers);

impl ChangeSource for ActsAtBarriers {
    fn watch(&mut self, _: &Path, _: bool) -> Result<(), WatchError> {
        Ok(())
    }

    fn unwatch_all(&mut self) {}

    fn barrier(&mut self) {
        let act = self.0.lock().expect("unpoisoned").pop();
        act.into_iter().for_each(|act| act());
    }
}

/// Files of a site, those that are written then, which of them is gone again when the look at them ends,
/// and settings.
struct LongLook {
    before: Vec<(&'static str, Vec<u8>)>,
    written: Vec<(&'static str, Vec<u8>)>,
    gone: &'static str,
    settings: Settings,
}

impl LongLook {
    /// That file goes at a barrier of its batch. The look takes so long that the batch is published without
    /// what has begun meanwhile. Returns what is published in the end, and what a fresh scan finds; `None` where
    /// there are not so many barriers.
    fn remove_at(&self, place: usize) -> Option<(Arc<Manifest>, Manifest)> {
        let periods = Periods {
            settle: ALONE,
            settle_alone: ALONE,
            max_age: SETTLE,
            sweep: Duration::from_secs(3600),
            hold_empty: None,
            keeps_removed: false,
        };
        let at_barriers = AtBarriers::default();
        let source = Box::new(ActsAtBarriers(Arc::clone(&at_barriers)));
        let settings = self.settings.clone();
        let mut desk = Desk::watched_by(source, channel(), &[], periods, None, settings);
        for files in [&self.before, &self.written] {
            desk.catch_up("before");
            for (path, content) in files {
                fs::write(desk.path(path), content).expect("written");
                desk.hint(path, EventKind::Closed);
            }
        }
        let (path, hints) = (desk.path(self.gone), desk.hints.clone());
        let remove = move || {
            fs::remove_file(&path).expect("removed");
            let kind = EventKind::Unknown;
            hints.send(Hint::Path { path, kind }).expect("heard");
        };
        let mut acts: Vec<Box<dyn FnOnce() + Send>> = vec![Box::new(remove)];
        acts.resize_with(place + 1, || Box::new(|| ()));
        *at_barriers.lock().expect("unpoisoned") = acts;
        // Until the first file is read, the batch has waited as long as it may.
        let mut is_read = false;
        let gate = move |call: Call| {
            if call == Call::Read && !mem::replace(&mut is_read, true) {
                thread::sleep(SETTLE);
            }
            Ok(())
        };
        let mut desk = desk.work_through(gate);
        desk.catch_up(&format!("barrier {place}"));
        let is_over = !at_barriers.lock().expect("unpoisoned").is_empty();
        (!is_over).then(|| (Arc::clone(&desk.site.current()), desk.fresh()))
    }
}

#[test]
fn what_goes_during_a_long_look_leaves_nothing_behind() {
    let script = |path| (path, b"a script".to_vec());
    let family = [
        "a-0a0b0c0d.js",
        "a-1a1b1c1d.js",
        "a-2a2b2c2d.js",
        "a-3a3b3c3d.js",
    ];
    let look = LongLook {
        before: family.map(script).into(),
        written: vec![script("a-4a4b4c4d.js"), script("other.txt")],
        gone: "a-4a4b4c4d.js",
        settings: Settings::default(),
    };
    let dictionaries = |site: &Manifest| {
        let resources = site.iter();
        resources.filter(|it| it.dictionary_use().is_some()).count()
    };
    let places = (0..).map_while(|place| {
        let (published, fresh) = look.remove_at(place)?;
        let found = (dictionaries(&published), dictionaries(&fresh));
        assert_eq!(found, (4, 4), "barrier {place}");
        Some(())
    });
    let places = places.count();
    assert!(places > 1, "{places}");
}

/// What it leaves needs a coding that takes long to make, since that would have lain next to it.
#[test]
fn a_sidecar_that_goes_during_a_long_look_is_made_up_for() {
    let text = b"a text that takes long, ".repeat(60_000);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&text).expect("encoded");
    let gzip = gzip.finish().expect("encoded");
    let look = LongLook {
        before: Vec::new(),
        written: vec![("a.txt", text), ("a.txt.gz", gzip)],
        gone: "a.txt.gz",
        settings: Settings {
            compress: "gz".parse().ok(),
            ..Settings::default()
        },
    };
    let places = (0..).map_while(|place| {
        let (published, _) = look.remove_at(place)?;
        let file = published.locate(b"a.txt").expect("there");
        let made: Vec<_> = file.encoded.iter().map(|each| each.is_made).collect();
        assert_eq!(made, [true], "barrier {place}");
        Some(())
    });
    let places = places.count();
    assert!(places > 1, "{places}");
}

/// A file that is in demand is replaced, and publication is held from a call of the look on: neither
/// version is kept open that is not published, and the next look keeps what it publishes. `None`
/// where the look has not so many calls.
fn hold_during_a_look(place: usize) -> Option<()> {
    let content = |letter: &str| letter.repeat(2 * MAX_IN_MEMORY as usize);
    let hash = |content: &str| *blake3::hash(content.as_bytes()).as_bytes();
    let (old, new) = (content("0"), content("1"));
    let memory = Memory::new(MIN_MEMORY, 4);
    let files = [("f", old.as_str())];
    let mut desk = Desk::with_memory(&files, (ALONE, ALONE), Some(Arc::clone(&memory)));
    memory.note_demand(&hash(&old));
    fs::write(desk.path(".new"), &new).expect("written");
    fs::rename(desk.path(".new"), desk.path("f")).expect("renamed");
    desk.hint("f", EventKind::Unknown);
    let hold = desk.path(".etagd-hold");
    let calls = Arc::new(AtomicUsize::new(0));
    let (counted, held) = (Arc::clone(&calls), hold.clone());
    let gate = move |_: Call| {
        if counted.fetch_add(1, Ordering::Relaxed) == place {
            fs::write(&held, "").expect("written");
        }
        Ok(())
    };
    let is_held = hold.clone();
    let mut desk = seam::run(gate, move || {
        desk.driver.read_pending();
        while desk.driver.due().is_some() && !is_held.exists() {
            desk.driver.run_once();
        }
        desk
    });
    let at = format!("call {place}");
    let now = *desk.site.current().locate(b"f")?.identity.etag.hash();
    let is_published = now == hash(&new);
    assert_eq!(memory.file(&hash(&new)).is_some(), is_published, "{at}");
    if calls.load(Ordering::Relaxed) <= place {
        return None;
    }
    fs::remove_file(hold).expect("removed");
    desk.catch_up(&at);
    assert!(memory.file(&hash(&new)).is_some(), "{at}");
    Some(())
}

#[test]
fn what_is_not_published_is_not_kept_open() {
    let places = (0..).map_while(hold_during_a_look).count();
    assert!(places > 2, "{places}");
}

/// A write: the path, what it holds now, and what it is to hold.
struct WriteCase {
    name: &'static str,
    path: &'static str,
    before: Option<&'static str>,
    after: Option<&'static str>,
}

const FILES: [(&str, &str); 4] = [
    ("index.html", "here"),
    ("a.txt", "old"),
    ("keep/k", "k"),
    ("deep/er/f", "gone soon"),
];

const WRITES: [WriteCase; 4] = [
    WriteCase {
        name: "replaces a file",
        path: "a.txt",
        before: Some("old"),
        after: Some("new, and longer"),
    },
    WriteCase {
        name: "makes a file and its directories",
        path: "keep/n/e/w.txt",
        before: None,
        after: Some("new"),
    },
    WriteCase {
        name: "deletes a file",
        path: "a.txt",
        before: Some("old"),
        after: None,
    },
    WriteCase {
        name: "deletes the only file of a directory",
        path: "deep/er/f",
        before: Some("gone soon"),
        after: None,
    },
];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ended {
    Made,
    /// It is made, and the disk does not say that it will last.
    Unsynced,
    Refused,
}

fn stage(directories: &DirectoryUse, path: &Path, content: &str) -> io::Result<TempFile> {
    let parent = path.parent().unwrap_or(Path::new(""));
    let nearest = Directory::nearest(directories.root(), parent)?;
    let temp_file = TempFile::readable(nearest)?;
    temp_file.reserve(content.len() as u64)?;
    temp_file.write_all(content.as_bytes())?;
    temp_file.sync()?;
    directories.make()?;
    Ok(temp_file)
}

/// Carries out a write in the steps of `crate::write`, which stands above this module.
fn carry_out(desk: &mut Desk, case: &WriteCase) -> Ended {
    let path = Path::new(case.path);
    let (parent, name) = (path.parent().unwrap_or(Path::new("")), path.file_name());
    let root = Root::open(desk.directory.path()).expect("a root");
    let name = name.unwrap_or(OsStr::new(""));
    let begun = DirectoryUse::begin(&desk.in_use, root, parent, name);
    let directories = begun.expect("short");
    let operation = match case.after {
        None => Operation::Delete,
        Some(content) => match stage(&directories, path, content) {
            Ok(temp_file) => Operation::Put {
                temp_file,
                hash: *blake3::hash(content.as_bytes()).as_bytes(),
            },
            Err(_) => return Ended::Refused,
        },
    };
    let expected = case
        .before
        .map(|before| *blake3::hash(before.as_bytes()).as_bytes());
    let (reply, mut replied) = oneshot::channel();
    let job = WriteJob {
        path: case.path.as_bytes().into(),
        operation,
        condition: Box::new(move |now: Option<&Resource>| {
            now.map(|now| *now.identity.etag.hash()) == expected
        }),
        reply,
    };
    desk.hints.send(Hint::WriteJob(job)).expect("heard");
    let end = Instant::now() + Duration::from_secs(10);
    let outcome = loop {
        desk.driver.run_once();
        match replied.try_recv() {
            Ok(outcome) => break outcome,
            Err(_) => assert!(Instant::now() < end, "no reply"),
        }
    };
    match outcome {
        Err(RejectedWrite { operation, .. }) => {
            drop(operation);
            Ended::Refused
        }
        Ok(committed) => {
            let synced = committed.directory.sync();
            match case.after {
                Some(_) => directories.set_filled(),
                None if committed.is_emptied => directories.set_emptied(),
                None => {}
            }
            drop(committed.displaced);
            match synced {
                Ok(()) => Ended::Made,
                Err(_) => Ended::Unsynced,
            }
        }
    }
}

#[test]
fn a_write_syncs_its_content_before_its_name_and_its_directories_after() {
    let expected = [
        (0, "Sync Rename Sync"),
        // Each of the two new directories with the one that it is made in.
        (1, "Sync Make Make Sync Sync Rename Sync"),
        (2, "Rename Sync"),
        (3, "Rename Sync"),
    ];
    for (index, want) in expected {
        let mut desk = Desk::new(&FILES, (Duration::ZERO, Duration::ZERO));
        let calls = Arc::new(Mutex::new(Vec::new()));
        let made = Arc::clone(&calls);
        let gate = move |call: Call| {
            made.lock().expect("unpoisoned").push(call);
            Ok(())
        };
        let ended = seam::run(gate, || carry_out(&mut desk, &WRITES[index]));
        assert_eq!(ended, Ended::Made);
        let mut calls = mem::take(&mut *calls.lock().expect("unpoisoned"));
        calls.retain(|call| matches!(call, Call::Sync | Call::Make | Call::Rename));
        // The temporary file itself is made first; a deletion needs one as well.
        let temp_file = calls.iter().position(|call| *call == Call::Make);
        calls.remove(temp_file.expect("one"));
        let calls: Vec<_> = calls.iter().map(|call| format!("{call:?}")).collect();
        assert_eq!(calls.join(" "), want, "{}", WRITES[index].name);
    }
}

#[test]
fn the_events_of_a_write_make_nothing_due() {
    let mut desk = Desk::new(&FILES, (SETTLE, ALONE));
    for (index, path) in [(0, "a.txt"), (3, "deep/er/f")] {
        assert_eq!(carry_out(&mut desk, &WRITES[index]), Ended::Made);
        for kind in [EventKind::Unknown, EventKind::Unknown, EventKind::Closed] {
            desk.hint(path, kind);
        }
        desk.driver.read_pending();
        assert_eq!(desk.driver.due(), None, "{path}");
    }
    // Whoever writes to the file is heard, even if it looks the same afterwards.
    desk.hint("a.txt", EventKind::Changed);
    desk.driver.read_pending();
    assert!(desk.driver.due().is_some());
    let mut desk = Desk::new(&FILES, (SETTLE, ALONE));
    assert_eq!(carry_out(&mut desk, &WRITES[0]), Ended::Made);
    fs::write(desk.path(".other"), "other").expect("written");
    fs::rename(desk.path(".other"), desk.path("a.txt")).expect("renamed");
    desk.hint("a.txt", EventKind::Unknown);
    desk.driver.read_pending();
    assert!(desk.driver.due().is_some());
}

#[test]
fn what_comes_while_hints_are_read_is_for_the_next_time() {
    let mut desk = Desk::new(&FILES, (SETTLE, ALONE));
    assert_eq!(carry_out(&mut desk, &WRITES[0]), Ended::Made);
    desk.hint("a.txt", EventKind::Unknown);
    let (path, hints) = (desk.path("a.txt"), desk.hints.clone());
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    // The file is looked at for each hint: it may be the echo of the write.
    let gate = move |_: Call| {
        if counted.fetch_add(1, Ordering::Relaxed) < 100 {
            let (path, kind) = (path.clone(), EventKind::Unknown);
            hints.send(Hint::Path { path, kind }).expect("heard");
        }
        Ok(())
    };
    let mut desk = seam::run(gate, move || {
        desk.driver.read_pending();
        desk
    });
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    desk.driver.read_pending();
    assert_eq!(desk.driver.due(), None);
}

#[test]
fn other_changes_take_turns_with_many_writes() {
    let files = ["b", "w0", "w1", "w2", "w3"].map(|path| (path, "old"));
    let mut desk = Desk::new(&files, (Duration::ZERO, Duration::ZERO));
    desk.driver.run_due(Instant::now());
    let order = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&order);
    desk.site.on_publication(move |old, new| {
        let what = match old.len() == new.len() {
            true => "change",
            false => "write",
        };
        seen.lock().expect("unpoisoned").push(what);
    });
    let mut replies = Vec::new();
    for index in 0..4 {
        let (reply, replied) = oneshot::channel();
        let (path, hints) = (desk.path("b"), desk.hints.clone());
        let job = WriteJob {
            path: format!("w{index}").into_bytes().into(),
            operation: Operation::Delete,
            // Somebody saves another file while the first write has its turn.
            condition: Box::new(move |_| {
                if index == 0 {
                    fs::write(&path, "new").expect("written");
                    let (path, kind) = (path.clone(), EventKind::Closed);
                    hints.send(Hint::Path { path, kind }).expect("heard");
                }
                true
            }),
            reply,
        };
        desk.hints.send(Hint::WriteJob(job)).expect("heard");
        replies.push(replied);
    }
    desk.driver.read_pending();
    let end = Instant::now() + Duration::from_secs(10);
    while order.lock().expect("unpoisoned").len() < 5 {
        assert!(Instant::now() < end, "{order:?}");
        desk.driver.run_once();
    }
    let order = order.lock().expect("unpoisoned");
    assert_eq!(*order, ["write", "change", "write", "write", "write"]);
}

#[test]
fn what_takes_long_to_compress_holds_up_no_write() {
    let settings = Settings {
        compress: Some(CompressionPolicy::default()),
        ..Settings::default()
    };
    let quiet = (Duration::ZERO, Duration::ZERO);
    let mut desk = Desk::with_settings(&[("a", "a"), ("gone", "")], quiet, None, settings);
    desk.driver.run_due(Instant::now());
    for file in ["1.txt", "2.txt", "3.txt"] {
        fs::write(desk.path(file), file.repeat(100_000)).expect("written");
        desk.hint(file, EventKind::Closed);
    }
    let (reply, mut replied) = oneshot::channel();
    let job = WriteJob {
        path: b"gone".as_slice().into(),
        operation: Operation::Delete,
        condition: Box::new(|_| true),
        reply,
    };
    desk.hints.send(Hint::WriteJob(job)).expect("heard");
    desk.driver.read_pending();
    // One turn: the batch is looked at before the write.
    desk.driver.run_due(Instant::now());
    assert!(replied.try_recv().is_ok_and(|reply| reply.is_ok()));
    let published = desk.site.current().len();
    assert_eq!(published, 1, "the write, and nothing of the batch");
    desk.catch_up("made meanwhile");
    for file in [b"1.txt", b"2.txt", b"3.txt"] {
        let site = desk.site.current();
        assert_eq!(site.locate(file).expect("there").encoded.len(), 2);
    }
}

/// What a client puts is compressed on other threads too, and published with its codings.
#[test]
fn a_write_that_takes_long_to_compress_holds_up_no_other() {
    let settings = Settings {
        compress: Some(CompressionPolicy::default()),
        ..Settings::default()
    };
    let quiet = (Duration::ZERO, Duration::ZERO);
    let mut desk = Desk::with_settings(&[("gone", "")], quiet, None, settings);
    desk.driver.run_due(Instant::now());
    let content = "a text ".repeat(300_000);
    let root = Root::open(desk.directory.path()).expect("a root");
    let name = OsStr::new("a.txt");
    let directories = DirectoryUse::begin(&desk.in_use, root, Path::new(""), name).expect("short");
    let temp_file = stage(&directories, Path::new("a.txt"), &content).expect("written");
    let hash = *blake3::hash(content.as_bytes()).as_bytes();
    let put = Operation::Put { temp_file, hash };
    let jobs = [("a.txt", put), ("gone", Operation::Delete)];
    let [mut put, mut deleted] = jobs.map(|(path, operation)| {
        let (reply, replied) = oneshot::channel();
        let job = WriteJob {
            path: path.as_bytes().into(),
            operation,
            condition: Box::new(|_| true),
            reply,
        };
        desk.hints.send(Hint::WriteJob(job)).expect("heard");
        replied
    });
    desk.driver.read_pending();
    assert_eq!(desk.driver.waiting_writes(), 1, "the first has no turn yet");
    desk.driver.run_due(Instant::now());
    assert!(deleted.try_recv().is_ok_and(|reply| reply.is_ok()));
    let end = Instant::now() + Duration::from_secs(120);
    let committed = loop {
        match put.try_recv() {
            Ok(outcome) => break outcome.expect("made"),
            Err(_) => assert!(Instant::now() < end, "no reply"),
        }
        desk.driver.run_once();
    };
    assert_eq!(committed.now.map(|tag| *tag.hash()), Some(hash));
    let site = desk.site.current();
    assert_eq!(site.locate(b"a.txt").expect("there").encoded.len(), 2);
}

#[test]
fn what_was_made_in_vain_is_given_back_without_another_look() {
    let settings = Settings {
        compress: Some(CompressionPolicy::default()),
        ..Settings::default()
    };
    let quiet = (Duration::ZERO, Duration::ZERO);
    let mut desk = Desk::with_settings(&[("a", "a")], quiet, None, settings);
    fs::write(desk.path("a.txt"), "a text ".repeat(1000)).expect("written");
    let root = Arc::new(Root::open(desk.directory.path()).expect("a root"));
    let (scanner, base) = (Arc::clone(&desk.scanner), Arc::clone(&desk.site.current()));
    let look = || {
        let (everything, progress) = (Scope::Everything, Progress::default());
        let outcome = scanner.reconcile(&root, &base, &everything, Unsettled::Report, &progress);
        let made = outcome.changes.changed[0].encoded.first().cloned();
        match made.expect("a coding").data {
            Data::Spooled(source) => Arc::downgrade(&source.extent),
            other => panic!("{other:?}"),
        }
    };
    let made = look();
    desk.driver.run_due(Instant::now());
    assert!(made.strong_count() > 0, "the next look may ask for it");
    desk.driver
        .run_due(Instant::now() + Duration::from_secs(3000));
    assert_eq!(made.strong_count(), 0);
}

/// Carries out a write while the call number `place` fails, and the `later` ones too. `None` if there
/// are fewer calls.
fn fail_at(case: &WriteCase, (fault, place, later): (Errno, usize, bool)) -> Option<Ended> {
    let at = format!("{}: {fault} at call {place}, later {later}", case.name);
    let mut desk = Desk::new(&FILES, (Duration::ZERO, Duration::ZERO));
    let (tree, published) = (desk.tree(), listed(&desk.site.current()));
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let gate = move |_: Call| match counted.fetch_add(1, Ordering::Relaxed) {
        call if call == place || later && call > place => Err(io::Error::from(fault)),
        _ => Ok(()),
    };
    let ended = seam::run(gate, || carry_out(&mut desk, case));
    if calls.load(Ordering::Relaxed) <= place {
        assert_eq!(ended, Ended::Made, "{at}");
        return None;
    }
    desk.clear();
    let mut now = desk.tree();
    match ended {
        Ended::Refused => {
            assert_eq!(listed(&desk.site.current()), published, "{at}");
            // Where nothing can be removed, an empty directory stays.
            if later {
                now.retain(|path, content| content.is_some() || tree.contains_key(path));
            }
            assert_eq!(now, tree, "{at}");
        }
        Ended::Made | Ended::Unsynced => {
            let content = now.get(case.path).cloned().flatten();
            assert_eq!(content.as_deref(), case.after, "{at}");
            let others = |tree: &BTreeMap<String, Option<String>>| -> Vec<_> {
                let files = tree.iter().filter(|(_, content)| content.is_some());
                let others = files.filter(|(path, _)| *path != case.path);
                others.map(|(path, _)| path.clone()).collect()
            };
            assert_eq!(others(&now), others(&tree), "{at}");
        }
    }
    // The fault has gone: what was made is published, if it is not yet.
    desk.catch_up(&at);
    Some(ended)
}

#[test]
fn a_fault_at_any_call_of_a_write_changes_nothing_or_makes_it() {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for case in &WRITES {
        for fault in FAULTS {
            // All later calls as well: one fault of each kind will do for that.
            let is_lasting = [Errno::MFILE, Errno::IO, Errno::NOSPC].contains(&fault);
            for later in [false, true].into_iter().take(1 + usize::from(is_lasting)) {
                for ended in (0..).map_while(|place| fail_at(case, (fault, place, later))) {
                    *counts.entry(format!("{ended:?}")).or_default() += 1;
                }
            }
        }
    }
    let points: usize = counts.values().sum();
    #[expect(
        clippy::print_stdout,
        reason = "how many, for whoever runs it with --nocapture"
    )]
    {
        println!("{points} injected faults: {counts:?}");
    }
    assert!(points >= 500, "{points} faults: {counts:?}");
}

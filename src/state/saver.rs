//! When to save: some seconds after a publication, and when the process ends.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{io, mem};

use super::StateFile;
use crate::disk::Root;
use crate::manifest::Manifest;
use crate::metrics::Metrics;
use crate::representation::Resource;
use crate::site::Site;

/// How long this process must run on after it has hashed a file, for the next process to trust the
/// file's metadata. Afterwards a change can't leave the same metadata, even on the coarsest clock of a
/// file system (FAT: 2 s), and events of changes before that have arrived.
const MIN_TRUST_TIME: Duration = Duration::from_millis(2_500);
/// How often to check for something new. What is new is saved at the second check.
const LOOK_INTERVAL: Duration = Duration::from_secs(3);
/// Minimum time between two saves.
const MIN_SAVE_INTERVAL: Duration = Duration::from_secs(10);
/// The least time between two saves, as a multiple of what the first of them took: saving may take a
/// twentieth of one core.
const MIN_SAVE_REST: u32 = 20;
/// The first pause before another try where nothing could be saved; each further one is twice as long.
const MIN_RETRY_PAUSE: Duration = Duration::from_secs(3);
/// The longest pause: when there is room again, nobody should have to wait for longer.
const MAX_RETRY_PAUSE: Duration = Duration::from_secs(60);

/// The thread that saves what a site publishes.
#[derive(Debug)]
pub struct Saver {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Saver {
    /// Saves each state of `site` in `file`, except the one that was `saved` already. The site is in
    /// `directory`, as the operator has named it. Failures are counted in `metrics`.
    ///
    /// # Errors
    /// When the system has no more threads.
    pub fn start(
        file: StateFile,
        directory: PathBuf,
        site: Arc<Site>,
        saved: Weak<Manifest>,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let (stop, stopped) = channel();
        let mut round = Round::new(file, directory, site, saved, Instant::now());
        round.metrics = metrics;
        let thread = thread::Builder::new()
            .name("saver".to_owned())
            .spawn(move || round.run(&stopped))?;
        Ok(Self { stop, thread })
    }

    /// Saves what is not saved yet, and ends. What is published after this is hashed again after the
    /// restart.
    pub fn finish(self) {
        drop(self.stop);
        // A panic has been reported by its hook.
        let _ = self.thread.join();
    }
}

/// What the thread knows from one check to the next.
struct Round {
    file: StateFile,
    directory: PathBuf,
    site: Arc<Site>,
    /// The state that is saved. Weak: a strong reference would keep the bodies of an old state in memory.
    saved: Weak<Manifest>,
    /// The state that was published at the last check, if it is not saved, with the time of that check.
    seen: Option<(Instant, Arc<Manifest>)>,
    not_before: Instant,
    /// How many tries in a row have failed.
    failures: u32,
    /// The reason that was named last.
    warned: String,
    metrics: Arc<Metrics>,
}

impl Round {
    fn new(
        file: StateFile,
        directory: PathBuf,
        site: Arc<Site>,
        saved: Weak<Manifest>,
        now: Instant,
    ) -> Self {
        let current = Arc::clone(&site.current());
        let mut round = Self {
            file,
            directory,
            site,
            saved,
            seen: None,
            not_before: now,
            failures: 0,
            warned: String::new(),
            metrics: Arc::default(),
        };
        round.seen = (!round.is_saved(&current)).then_some((now, current));
        round
    }

    fn run(&mut self, stopped: &Receiver<()>) {
        while stopped.recv_timeout(LOOK_INTERVAL) == Err(RecvTimeoutError::Timeout) {
            self.look(Instant::now());
        }
        self.finish(Instant::now());
    }

    /// Saves the current state, if that of the last check has been there for long enough.
    fn look(&mut self, now: Instant) {
        let current = Arc::clone(&self.site.current());
        if self.is_saved(&current) || now < self.not_before {
            self.seen = None;
            return;
        }
        let earlier = self.seen.replace((now, Arc::clone(&current)));
        if let Some((since, earlier)) = earlier
            && now.duration_since(since) >= MIN_TRUST_TIME
        {
            self.save(&current, Some(&earlier));
            let spent = now.elapsed();
            let pause = match self.failures {
                0 => MIN_SAVE_INTERVAL,
                failures => retry_pause(failures),
            };
            self.not_before = now + spent + pause.max(spent * MIN_SAVE_REST);
        }
    }

    fn finish(&mut self, now: Instant) {
        let current = Arc::clone(&self.site.current());
        if self.is_saved(&current) {
            return;
        }
        let is_old = |(since, _): &(Instant, _)| now.duration_since(*since) >= MIN_TRUST_TIME;
        let earlier = self.seen.take().filter(is_old);
        self.save(&current, earlier.as_ref().map(|(_, earlier)| earlier));
    }

    fn is_saved(&self, manifest: &Arc<Manifest>) -> bool {
        // The address can't be another manifest's, as long as the weak pointer is there.
        self.saved.as_ptr() == Arc::as_ptr(manifest)
    }

    /// Saves `current`. What `earlier` has of it was hashed long enough ago to be confirmed now.
    fn save(&mut self, current: &Arc<Manifest>, earlier: Option<&Arc<Manifest>>) {
        let root = match Root::open(&self.directory) {
            Ok(root) => root,
            // It is missing or being replaced: the watcher says so.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return self.note_failure(&error),
        };
        if let Some(earlier) = earlier {
            confirm(current, earlier);
        }
        match self.file.save(current, &root) {
            Ok(()) => {
                self.note_success();
                // What was published since is to be confirmed, and saved once more.
                if earlier.is_some_and(|earlier| Arc::ptr_eq(current, earlier)) {
                    self.saved = Arc::downgrade(current);
                    self.seen = None;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => self.note_failure(&error),
        }
    }

    /// Counts a try that has failed. Each reason is named once: the next try comes soon.
    fn note_failure(&mut self, error: &io::Error) {
        self.failures = self.failures.saturating_add(1);
        self.metrics.state_failures.increment();
        let reason = error.to_string();
        if mem::replace(&mut self.warned, reason.clone()) != reason {
            let file = self.file.path().display();
            tracing::warn!(
                path = %file, error = %reason,
                "cannot save the manifest in {file}: {reason}: trying again; until that works, a \
                 restart hashes what has changed since the last one was saved"
            );
        }
    }

    fn note_success(&mut self) {
        let failures = mem::take(&mut self.failures);
        if !mem::take(&mut self.warned).is_empty() {
            let file = self.file.path().display();
            tracing::info!(path = %file, failures, "the manifest is saved in {file} again");
        }
    }
}

fn retry_pause(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(8);
    (MIN_RETRY_PAUSE * (1 << doublings)).min(MAX_RETRY_PAUSE)
}

/// Marks the files of `current` that were hashed by the time of `earlier`, and are the same since. The
/// files themselves need not be checked now: if a later process finds the same metadata, they have had
/// them all the time.
fn confirm(current: &Manifest, earlier: &Manifest) {
    for resource in current.iter() {
        let is_open = resource.settled && resource.confirmed.get().is_none();
        let hash = resource.identity.etag.hash();
        let was_there = |then: &Arc<Resource>| {
            then.stamp == resource.stamp && then.identity.etag.hash() == hash
        };
        if is_open && earlier.locate(&resource.path).is_some_and(was_there) {
            // Only this thread sets it.
            resource.confirmed.set(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::sync::atomic::{AtomicU64, Ordering};

    use rustix::io::Errno;
    use tempfile::TempDir;

    use crate::disk::seam::{self, Call, FAULTS};
    use crate::memory::Memory;
    use crate::representation::{GROUP_SIZE, MAX_WHOLE};
    use crate::scan::{Progress, Scanner, Scope, Unsettled};
    use crate::settings::{Settings, Symlinks};

    const SECOND: Duration = Duration::from_secs(1);

    /// A directory with a site, and a place for its state beside it.
    struct Place(TempDir);

    impl Place {
        fn new(files: &[(&str, &[u8])]) -> Self {
            let place = Self(tempfile::tempdir().expect("a directory"));
            for (path, content) in files {
                place.write(path, content);
            }
            place
        }

        fn site(&self) -> PathBuf {
            self.0.path().join("site")
        }

        fn file(&self, path: &str) -> PathBuf {
            self.site().join(path)
        }

        fn write(&self, path: &str, content: &[u8]) {
            let file = self.file(path);
            fs::create_dir_all(file.parent().expect("a parent")).expect("made");
            fs::write(file, content).expect("written");
        }

        fn state(&self) -> StateFile {
            let root = Root::open(&self.site()).expect("a root");
            let file = self.0.path().join("state");
            StateFile::new(&file, &root, Settings::default()).expect("a place for it")
        }

        /// Starts a process that takes over what another has left, if that is of any use.
        fn start(&self) -> Process {
            let state = self.state();
            let root = Arc::new(Root::open(&self.site()).expect("a root"));
            let memory = Memory::new(1 << 26, 16);
            let scanner = Scanner::new(Symlinks::All, Settings::default(), Some(memory));
            let progress = Progress::default();
            let base = state.load(&scanner, &root).ok().flatten();
            let (manifest, _) = match base {
                Some(base) => scanner.scan_from(base, &root, &progress),
                None => scanner.scan(&root, &progress),
            };
            let site = Arc::new(Site::new(manifest));
            let began = Instant::now();
            Process {
                round: Round::new(state, self.site(), Arc::clone(&site), Weak::new(), began),
                site,
                began,
                hashed: progress.files(),
                root,
                scanner,
            }
        }

        /// What a process finds that takes over nothing.
        fn digest(&self) -> String {
            let root = Arc::new(Root::open(&self.site()).expect("a root"));
            let scanner = Scanner::new(Symlinks::All, Settings::default(), None);
            let (manifest, _) = scanner.scan(&root, &Progress::default());
            manifest.digest().to_string()
        }
    }

    struct Process {
        site: Arc<Site>,
        round: Round,
        began: Instant,
        hashed: u64,
        root: Arc<Root>,
        scanner: Scanner,
    }

    impl Process {
        fn digest(&self) -> String {
            self.site.current().digest().to_string()
        }

        /// Reads these paths again and publishes what has become of them.
        fn publish(&self, paths: &[&str]) {
            let paths = paths.iter().map(|path| path.as_bytes().into());
            let scope = Scope::Paths(paths.collect());
            let current = Arc::clone(&self.site.current());
            let (settled, progress) = (Unsettled::Publish, Progress::default());
            let outcome = self
                .scanner
                .reconcile(&self.root, &current, &scope, settled, &progress);
            self.site.update(|_| Some(outcome.changes));
        }

        fn stop_after(mut self, time: Duration) {
            self.round.finish(self.began + time);
        }
    }

    #[test]
    fn what_has_not_changed_is_not_hashed_again() {
        let large = vec![b'x'; (MAX_WHOLE + GROUP_SIZE) as usize + 1];
        let place = Place::new(&[
            ("index.html", b"<h1>here</h1>"),
            ("empty", b""),
            ("whole", &large[..300_000]),
            ("large", &large),
            ("deep/er/page.html", b"page"),
        ]);
        let gzip = |content: &[u8]| {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), Default::default());
            io::Write::write_all(&mut gzip, content).expect("encoded");
            gzip.finish().expect("encoded")
        };
        place.write("index.html.gz", &gzip(b"<h1>here</h1>"));
        place.write("large.gz", &gzip(&large));
        place.write("whole.gz", b"stale");
        fs::hard_link(place.file("large"), place.file("deep/again")).expect("linked");
        fs::create_dir(place.0.path().join("outside")).expect("made");
        fs::write(place.0.path().join("outside/file"), "outside").expect("written");
        symlink("../outside", place.file("out")).expect("linked");
        symlink("deep", place.file("shallow")).expect("linked");

        let first = place.start();
        assert!(first.hashed >= 9, "each inode");
        let (site, digest) = (Arc::clone(&first.site), first.digest());
        first.stop_after(3 * SECOND);
        let second = place.start();
        assert_eq!((second.hashed, second.digest()), (0, digest.clone()));
        let (was, is) = (site.current(), second.site.current());
        assert_eq!(was.len(), 12);
        for then in was.iter() {
            let now = is.locate(&then.path).expect("there");
            let path = then.path.escape_ascii();
            assert_eq!(now.stamp, then.stamp, "{path}");
            assert_eq!(now.last_modified, then.last_modified, "{path}");
            assert_eq!(now.newest_date(), then.newest_date(), "{path}");
            assert_eq!((now.text, now.settled), (then.text, true), "{path}");
            assert_eq!(now.fields, then.fields, "{path}");
            let tags = |of: &Resource| -> Vec<_> {
                let each = of.representations();
                each.map(|each| (each.coding(), each.etag.to_string(), each.length))
                    .collect()
            };
            assert_eq!(tags(now), tags(then), "{path}");
        }
        assert_eq!(is.locate(b"index.html").expect("there").encoded.len(), 1);
        assert_eq!(is.locate(b"whole").expect("there").encoded.len(), 0);
        // And once more, from what the second one leaves.
        second.stop_after(Duration::ZERO);
        let third = place.start();
        assert_eq!((third.hashed, third.digest()), (0, digest));
    }

    #[test]
    fn what_was_hashed_just_before_the_end_is_hashed_again() {
        let place = Place::new(&[("a", b"a"), ("b", b"b")]);
        place.start().stop_after(2 * SECOND);
        let second = place.start();
        assert_eq!(second.hashed, 2);
        second.publish(&["b"]);
        // By the end, one of them was looked at before.
        second.stop_after(3 * SECOND);
        assert_eq!(place.start().hashed, 0, "read again, with the same result");
    }

    #[test]
    fn a_publication_is_saved_when_it_has_aged() {
        let place = Place::new(&[("a", b"a"), ("b", b"b")]);
        let mut first = place.start();
        let at = |seconds| first.began + seconds * SECOND;
        let times = [3, 4, 6, 16, 19].map(at);
        first.round.look(times[0]);
        place.write("b", b"changed");
        place.write("c", b"new");
        first.publish(&["b", "c"]);
        first.round.look(times[1]);
        first.round.look(times[2]);
        assert_eq!(
            place.start().hashed,
            2,
            "saved ten seconds later at the soonest"
        );
        first.round.look(times[3]);
        assert_eq!(place.start().hashed, 2, "seen, not confirmed");
        first.round.look(times[4]);
        assert_eq!(place.start().hashed, 0);
        assert_eq!(place.start().digest(), place.digest());
    }

    #[test]
    fn what_is_new_at_the_end_is_not_confirmed() {
        let place = Place::new(&[("a", b"a"), ("b", b"b"), ("c", b"c")]);
        let first = place.start();
        place.write("b", b"B");
        place.write("c", b"C");
        place.write("d", b"D");
        first.publish(&["c", "d"]);
        // Of `b` nothing was reported; of the others it was, but just now.
        first.stop_after(3 * SECOND);
        let second = place.start();
        assert_eq!((second.hashed, second.digest()), (3, place.digest()));
    }

    #[test]
    fn what_is_saved_is_not_saved_again() {
        let place = Place::new(&[("a", b"a")]);
        let mut first = place.start();
        let saved = || place.state().path().metadata().ok().map(|file| file.ino());
        let at = |seconds| first.began + seconds * SECOND;
        let times = [3, 100, 103, 200].map(at);
        first.round.look(times[0]);
        let inode = saved();
        assert!(inode.is_some());
        assert!(first.round.seen.is_none(), "nothing is pinned");
        first.round.look(times[1]);
        first.round.look(times[2]);
        first.round.finish(times[3]);
        assert_eq!(saved(), inode);
        first.publish(&["a"]);
        first.round.finish(times[3]);
        assert_ne!(saved(), inode);
    }

    #[test]
    fn what_can_not_be_saved_now_is_tried_again_counted_and_named_once() {
        let place = Place::new(&[("a", b"a")]);
        let mut process = place.start();
        let failures = |process: &Process| process.round.metrics.state_failures.get();
        let tries = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&tries);
        let began = process.began;
        // The disk is full for five minutes.
        let full = move |call: Call| match call {
            Call::Write => {
                counted.fetch_add(1, Ordering::Relaxed);
                Err(Errno::NOSPC.into())
            }
            _ => Ok(()),
        };
        let site = Arc::clone(&process.site);
        let mut process = seam::run(full, move || {
            for second in (3..=300).step_by(3) {
                process.round.look(began + second * SECOND);
            }
            process
        });
        let tried = tries.load(Ordering::Relaxed);
        assert_eq!(failures(&process), tried);
        assert!((5..20).contains(&tried), "{tried} tries in five minutes");
        assert!(!process.round.warned.is_empty());
        assert!(!place.state().path().exists());
        let leftovers = fs::read_dir(place.0.path()).expect("listed").count();
        assert_eq!(leftovers, 1, "the site alone");
        // There is room again.
        for second in (303..=366).step_by(3) {
            process.round.look(began + second * SECOND);
        }
        assert!(process.round.is_saved(&site.current()));
        assert!(process.round.warned.is_empty() && process.round.failures == 0);
        assert_eq!(failures(&process), tried);
        assert_eq!(place.start().hashed, 0);
    }

    #[test]
    fn a_fault_at_any_call_leaves_what_was_saved_or_saves_all() {
        let mut points = 0;
        for fault in FAULTS {
            for is_lasting in [false, true] {
                let place = Place::new(&[("a", b"a"), ("b", b"b")]);
                place.start().stop_after(3 * SECOND);
                let before = fs::read(place.state().path()).expect("saved");
                place.write("b", b"changed");
                let second = place.start();
                let manifest = Arc::clone(&second.site.current());
                let after = {
                    let other = Place::new(&[]);
                    let file = other.0.path().join("state");
                    let state = StateFile::new(&file, &second.root, Settings::default());
                    let state = state.expect("a place");
                    state.save(&manifest, &second.root).expect("saved");
                    fs::read(file).expect("saved")
                };
                assert_ne!(before, after);
                for place_of_fault in 0.. {
                    fs::write(place.state().path(), &before).expect("written");
                    let mut calls = 0;
                    let counter = Arc::new(AtomicU64::new(0));
                    let seen = Arc::clone(&counter);
                    let gate = move |_: Call| {
                        let call = calls;
                        calls += 1;
                        seen.store(calls, Ordering::Relaxed);
                        match call == place_of_fault || is_lasting && call > place_of_fault {
                            true => Err(fault.into()),
                            false => Ok(()),
                        }
                    };
                    let state = place.state();
                    let result = seam::run(gate, || state.save(&manifest, &second.root));
                    if counter.load(Ordering::Relaxed) <= place_of_fault {
                        result.expect("no fault");
                        break;
                    }
                    points += 1;
                    let now = fs::read(state.path()).expect("there");
                    let at = format!("{fault} at {place_of_fault}, lasting {is_lasting}");
                    match result {
                        Ok(()) => assert_eq!(now, after, "{at}"),
                        // The last call makes sure of the rename: without, it is as good as whole.
                        Err(_) => assert!(now == before || now == after, "{at}"),
                    }
                    // What can't be removed now is written over by the next.
                    state
                        .save(&manifest, &second.root)
                        .expect("the fault is gone");
                    assert_eq!(fs::read(state.path()).expect("there"), after, "{at}");
                    let left = fs::read_dir(place.0.path()).expect("listed").count();
                    assert_eq!(left, 2, "{at}: the site and its state");
                }
            }
        }
        assert!(points > 50, "{points} faults");
    }

    #[test]
    fn what_has_changed_since_is_hashed_again() {
        type Change = fn(&Place);
        let changes: [(&str, u64, Change); 8] = [
            ("touched", 1, |place| place.write("b", b"b")),
            ("of the same size and mtime", 1, |place| {
                let file = place.file("b");
                let before = fs::metadata(&file).and_then(|file| file.modified());
                place.write("b", b"x");
                let file = fs::File::options().write(true).open(file);
                let file = file.expect("opened");
                file.set_modified(before.expect("a time")).expect("set");
            }),
            ("renamed over", 1, |place| {
                place.write(".new", b"new");
                fs::rename(place.file(".new"), place.file("b")).expect("renamed");
            }),
            ("renamed", 1, |place| {
                fs::rename(place.file("b"), place.file("c")).expect("renamed");
            }),
            ("deleted", 0, |place| {
                fs::remove_file(place.file("b")).expect("removed");
            }),
            ("added", 1, |place| place.write("c", b"c")),
            ("a directory now", 1, |place| {
                fs::remove_file(place.file("b")).expect("removed");
                place.write("b/c", b"c");
            }),
            ("the content it is a sidecar of", 2, |place| {
                place.write("a", b"other");
                place.write("b", b"other");
            }),
        ];
        for (name, hashed, change) in changes {
            let place = Place::new(&[("a", b"a"), ("b", b"b"), ("d/e", b"e")]);
            place.write(
                "a.gz",
                b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x4b\x04\0\x43\xbe\xb7\xe8\x01\0\0\0",
            );
            let first = place.start();
            let a = Arc::clone(first.site.current().locate(b"a").expect("there"));
            assert_eq!(a.encoded.len(), 1);
            first.stop_after(3 * SECOND);
            change(&place);
            let second = place.start();
            assert_eq!(second.digest(), place.digest(), "{name}");
            assert_eq!(second.hashed, hashed, "{name}");
        }
    }

    #[test]
    fn what_is_damaged_is_left_aside_and_written_anew() {
        let place = Place::new(&[("a", b"a"), ("b", b"b")]);
        place.start().stop_after(3 * SECOND);
        let file = place.state().path().to_path_buf();
        let whole = fs::read(&file).expect("saved");
        for length in 0..whole.len() {
            fs::write(&file, &whole[..length]).expect("written");
            assert_eq!(place.start().hashed, 2, "{length} bytes");
        }
        for byte in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[byte] ^= 0x10;
            fs::write(&file, &damaged).expect("written");
            let second = place.start();
            assert_eq!(
                (second.hashed, second.digest()),
                (2, place.digest()),
                "{byte}"
            );
        }
        fs::write(&file, &whole[..40]).expect("written");
        place.start().stop_after(3 * SECOND);
        assert_eq!(place.start().hashed, 0);
    }
}

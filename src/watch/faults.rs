//! A test that a fault never publishes half of a change: every call to the file system that a look
//! makes fails in turn, once or from then on, in each way in which calls fail for a while.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::schedule::{Decision, Findings, Periods, Schedule};
use crate::disk::seam::{self, Call, FAULTS};
use crate::disk::{self, Root};
use crate::manifest::Manifest;
use crate::memory::Memory;
use crate::scan::{Progress, ScanOutcome, Scanner, Scope, Unsettled};
use crate::semantics::coding::Coding;
use crate::semantics::dictionary::DictionaryHash;
use crate::settings::{Settings, Symlinks};

/// What happens to a site at once, and the paths that are looked at then: none for a sweep.
struct Edit {
    name: &'static str,
    make: fn(&Path),
    touched: &'static [&'static str],
}

fn write(root: &Path, path: &str, content: impl AsRef<[u8]>) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    fs::write(path, content).expect("written");
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), Default::default());
    gzip.write_all(content).expect("encoded");
    gzip.finish().expect("encoded")
}

/// More than one group, so that it is read in pieces.
fn large(seed: u8) -> Vec<u8> {
    vec![seed; (1 << 20) + (300 << 10)]
}

fn first_state(root: &Path) {
    write(root, "index.html", "<script src=app.1.js>");
    write(root, "app.1.js", "one");
    write(root, "style.css", "a { color: red }");
    write(root, "style.css.gz", gzip(b"a { color: red }"));
    write(root, "large", large(1));
    write(root, "_headers", "/*\n  X-State: 1\n");
    write(root, "v1/page.html", "first");
    write(root, "v1/deep/er/page.html", "first");
    write(root, "v2/page.html", "second");
    write(root, "v2/deep/er/page.html", "second");
    write(root, "old/a", "a");
    write(root, "old/b/c", "c");
    symlink("v1", root.join("now")).expect("linked");
    symlink("style.css", root.join("link.css")).expect("linked");
    fs::hard_link(root.join("app.1.js"), root.join("same.js")).expect("linked");
}

const EDITS: [Edit; 7] = [
    Edit {
        name: "a page with its script",
        make: |root| {
            write(root, "app.2.js", "two");
            write(root, ".i", "<script src=app.2.js>");
            fs::rename(root.join(".i"), root.join("index.html")).expect("renamed");
            fs::remove_file(root.join("app.1.js")).expect("removed");
        },
        touched: &["app.2.js", "index.html", "app.1.js", "same.js"],
    },
    Edit {
        name: "a file with its sidecar",
        make: |root| {
            write(root, "style.css", "a { color: blue }");
            write(root, "style.css.gz", gzip(b"a { color: blue }"));
        },
        touched: &["style.css", "style.css.gz", "link.css"],
    },
    Edit {
        name: "rules with a large file",
        make: |root| {
            write(root, "_headers", "/*\n  X-State: 2\n");
            write(root, "large", large(2));
        },
        touched: &["_headers", "large"],
    },
    Edit {
        name: "a link to another folder",
        make: |root| {
            symlink("v2", root.join(".now")).expect("linked");
            fs::rename(root.join(".now"), root.join("now")).expect("renamed");
        },
        touched: &["now"],
    },
    Edit {
        name: "a folder in the place of another",
        make: |root| {
            write(root, ".new/x/y", "y");
            write(root, ".new/b/c", "other");
            fs::rename(root.join("old"), root.join(".old")).expect("renamed");
            fs::rename(root.join(".new"), root.join("old")).expect("renamed");
            fs::remove_dir_all(root.join(".old")).expect("removed");
        },
        touched: &["old"],
    },
    Edit {
        name: "a folder that goes and one that comes, below a link",
        make: |root| {
            fs::rename(root.join("v2/deep"), root.join("v2/deeper")).expect("renamed");
            write(root, "v2/page.html", "third");
        },
        touched: &["v2/deep", "v2/deeper", "v2/page.html", "now"],
    },
    Edit {
        name: "anything, and a sweep",
        make: |root| {
            write(root, "index.html", "the last of all");
            write(root, "last/of/all.html", "here");
            write(root, "_headers", "/*\n  X-State: 3\n");
            fs::remove_dir_all(root.join("old")).expect("removed");
            fs::remove_file(root.join("style.css.gz")).expect("removed");
        },
        touched: &[],
    },
];

struct Looker {
    root: Arc<Root>,
    scanner: Scanner,
    schedule: Schedule,
}

impl Looker {
    fn new(directory: &Path, memory: Option<Arc<Memory>>) -> Self {
        let periods = Periods {
            settle: Duration::ZERO,
            settle_alone: Duration::ZERO,
            max_age: Duration::from_secs(2),
            sweep: Duration::from_secs(3600),
            hold_empty: None,
            keeps_removed: false,
        };
        Self {
            root: Arc::new(Root::open(directory).expect("a root")),
            scanner: Scanner::new(Symlinks::Inside, Settings::default(), memory),
            schedule: Schedule::new(periods, Instant::now()),
        }
    }

    fn fresh(&self) -> Manifest {
        self.scanner.scan(&self.root, &Progress::default()).0
    }

    fn look(&self, base: &Manifest, scope: &Scope) -> ScanOutcome {
        let progress = Progress::default();
        (self.scanner).reconcile(&self.root, base, scope, Unsettled::Report, &progress)
    }

    /// Looks while the call number `place` fails, and the `later` ones too. `None` if there are
    /// fewer calls.
    fn look_with(
        &self,
        base: &Manifest,
        scope: &Scope,
        (fault, place, later): (Errno, usize, bool),
    ) -> Option<ScanOutcome> {
        // Another test's process may have inherited the descriptor that wrote a file.
        for _ in 0..200 {
            let calls = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&calls);
            let gate = move |_: Call| match counted.fetch_add(1, Ordering::Relaxed) {
                call if call == place || later && call > place => Err(io::Error::from(fault)),
                _ => Ok(()),
            };
            let outcome = seam::run(gate, || self.look(base, scope));
            if calls.load(Ordering::Relaxed) <= place {
                return None;
            }
            if outcome.busy.is_empty() {
                return Some(outcome);
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("something is open for writing all the time");
    }

    fn judge(&mut self, outcome: &ScanOutcome) -> Decision {
        let now = Instant::now();
        let batch = self.schedule.start_batch(now);
        let findings = Findings {
            is_exhausted: outcome.not_now.values().any(disk::is_exhaustion),
            is_failing: !outcome.not_now.is_empty(),
            ..Findings::default()
        };
        self.schedule.judge(&batch, &findings, now)
    }
}

pub(super) fn listed(manifest: &Manifest) -> String {
    let mut text = Vec::new();
    manifest.write_text(&mut text).expect("written");
    let rules = manifest.rules().headers.hash();
    format!(
        "{}\n{}\n{rules:?}",
        manifest.digest(),
        String::from_utf8_lossy(&text)
    )
}

/// Makes each call of the look at one edit fail in turn, and counts what became of it.
fn fail_in_turn(
    looker: &mut Looker,
    base: &Manifest,
    edit: &Edit,
    counts: &mut BTreeMap<&'static str, usize>,
) -> Manifest {
    let fresh = looker.fresh();
    assert!(fresh.digest().is_complete());
    assert_ne!(
        listed(base),
        listed(&fresh),
        "{} changes something",
        edit.name
    );
    let paths = edit.touched.iter().map(|path| path.as_bytes().into());
    let scope = match edit.touched.is_empty() {
        true => Scope::Everything,
        false => Scope::Paths(paths.collect()),
    };
    for fault in FAULTS {
        for later in [false, true] {
            let outcomes = (0..).map_while(|place| {
                let outcome = looker.look_with(base, &scope, (fault, place, later))?;
                Some((place, outcome))
            });
            let outcomes: Vec<_> = outcomes.collect();
            assert!(!outcomes.is_empty(), "{}: {fault}", edit.name);
            for (place, outcome) in outcomes {
                let at = format!("{}: {fault} at call {place}, later {later}", edit.name);
                let outcome_is = match looker.judge(&outcome) {
                    Decision::Publish => {
                        let published = base.with(outcome.changes);
                        assert_eq!(listed(&published), listed(&fresh), "{at}");
                        "published whole"
                    }
                    Decision::TryAgain => "put off",
                    other => panic!("{at}: {other:?}"),
                };
                *counts.entry(outcome_is).or_default() += 1;
            }
        }
    }
    // The fault has gone: the next look at the same batch finds what a fresh scan finds.
    let outcome = looker.look(base, &scope);
    assert!(outcome.not_now.is_empty());
    let after = base.with(outcome.changes);
    assert_eq!(listed(&after), listed(&fresh), "{}", edit.name);
    after
}

#[test]
fn a_fault_at_any_call_publishes_nothing_or_all() {
    let mut counts = BTreeMap::new();
    for memory in [None, Some(Memory::new(64 << 20, 16))] {
        let directory = tempfile::tempdir().expect("a directory");
        first_state(directory.path());
        let mut looker = Looker::new(directory.path(), memory);
        let mut published = looker.fresh();
        for edit in EDITS {
            (edit.make)(directory.path());
            published = fail_in_turn(&mut looker, &published, &edit, &mut counts);
        }
    }
    let points: usize = counts.values().sum();
    #[expect(
        clippy::print_stdout,
        reason = "the number of faults, shown with --nocapture"
    )]
    {
        println!("{points} injected faults: {counts:?}");
    }
    assert!(points >= 2_000, "{points} faults: {counts:?}");
    assert!(counts["put off"] > points / 2, "{counts:?}");
}

#[test]
fn a_start_waits_for_what_can_not_be_looked_at_now() {
    let directory = tempfile::tempdir().expect("a directory");
    first_state(directory.path());
    let looker = Looker::new(directory.path(), None);
    let fresh = listed(&looker.fresh());
    for fault in FAULTS {
        for place in [0, 1, 2, 5, 10, 20] {
            let mut calls = 0;
            // Several calls in a row, so that the second attempt fails as well.
            let gate = move |_: Call| {
                calls += 1;
                match (place..place + 4).contains(&(calls - 1)) {
                    true => Err(io::Error::from(fault)),
                    false => Ok(()),
                }
            };
            let started = seam::run(gate, || looker.fresh());
            assert_eq!(listed(&started), fresh, "{fault} from call {place}");
        }
    }
}

#[test]
fn a_file_that_changes_while_it_is_hashed_is_busy() {
    let directory = tempfile::tempdir().expect("a directory");
    write(directory.path(), "file", "before");
    let looker = Looker::new(directory.path(), None);
    let base = looker.fresh();
    write(directory.path(), "file", "during");
    let path = directory.path().join("file");
    let mut was_changed = false;
    let gate = move |call: Call| {
        if call == Call::Read && !was_changed {
            was_changed = true;
            // A rewrite within one tick of the clock leaves the same times; the size does not.
            fs::write(&path, "during that")?;
        }
        Ok(())
    };
    let scope = Scope::Paths([b"file".as_slice().into()].into());
    let outcome = seam::run(gate, || looker.look(&base, &scope));
    assert_eq!(outcome.busy, [b"file".as_slice().into()]);
    assert!(outcome.changes.changed.is_empty());
}

#[test]
fn a_sidecar_that_is_replaced_between_its_hash_and_its_proof_is_not_used() {
    let directory = tempfile::tempdir().expect("a directory");
    let identity = b"the same text, and the same text again".repeat(100);
    write(directory.path(), "x", &identity);
    write(directory.path(), "x.gz", gzip(&identity));
    let looker = Looker::new(directory.path(), None);
    assert_eq!(looker.fresh().locate(b"x").expect("there").encoded.len(), 1);
    let mut other = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    other.write_all(&identity).expect("encoded");
    let other = other.finish().expect("encoded");
    let path = directory.path().join("x.gz");
    let mut opened = 0;
    let gate = move |call: Call| {
        opened += usize::from(call == Call::Open);
        // The file, its sidecar, and then the sidecar for its proof.
        if call == Call::Open && opened == 3 {
            fs::write(&path, &other)?;
        }
        Ok(())
    };
    let raced = seam::run(gate, || looker.fresh());
    assert!(raced.locate(b"x").expect("there").encoded.is_empty());
    assert!(!raced.digest().is_complete());
    assert_eq!(looker.fresh().locate(b"x").expect("there").encoded.len(), 1);
}

/// A delta in zstd (RFC 9842 section 5).
fn zstd_delta(dictionary: &[u8], content: &[u8]) -> Vec<u8> {
    let header = [b"\x5e\x2a\x4d\x18\x20\0\0\0", &*Sha256::digest(dictionary)].concat();
    let mut encoder = zstd::Encoder::with_ref_prefix(header, 3, dictionary).expect("an encoder");
    encoder.write_all(content).expect("encoded");
    encoder.finish().expect("encoded")
}

/// Its dictionary may be the very file that can't be read.
#[test]
fn a_delta_is_proven_or_put_off_whatever_cannot_be_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path();
    let content = |release: u8| [&large(1)[..100_000], &[release]].concat();
    let (old, new) = ("app-0a0b0c0d.js", "app-1a1b1c1d.js");
    write(root, old, content(0));
    write(root, new, content(1));
    let hash = DictionaryHash::new(Sha256::digest(content(0)).into());
    let extension = Coding::DictionaryZstd(hash).delta_extension();
    let delta = format!("{new}.{}", extension.expect("one of a delta"));
    let encoded = zstd_delta(&content(0), &content(1));
    let third = "app-2a2b2c2d.js";
    // The delta comes, and then another file of the family, by which the delta is looked at again.
    for (path, bytes) in [(&*delta, encoded), (third, content(2))] {
        let base = Looker::new(root, None).fresh();
        write(root, path, bytes);
        let fresh = Looker::new(root, None).fresh();
        let codings = &fresh.locate(new.as_bytes()).expect("there").encoded;
        assert_eq!(codings.len(), 1, "{codings:?}");
        let scope = Scope::Paths([path.as_bytes().into()].into());
        for fault in FAULTS {
            // What a signal interrupts is tried again, and not interrupted for ever.
            let is_lasting = fault != Errno::INTR;
            for later in [false, true].into_iter().take(1 + usize::from(is_lasting)) {
                for place in 0.. {
                    // Nothing is remembered of an earlier look.
                    let mut looker = Looker::new(root, None);
                    let outcome = looker.look_with(&base, &scope, (fault, place, later));
                    let Some(outcome) = outcome else {
                        break;
                    };
                    match looker.judge(&outcome) {
                        Decision::Publish => {
                            let published = base.with(outcome.changes);
                            let at = format!("{path}: {fault} at call {place}, later {later}");
                            assert_eq!(listed(&published), listed(&fresh), "{at}");
                        }
                        Decision::TryAgain => {}
                        other => panic!("{path}: {fault} at call {place}: {other:?}"),
                    }
                }
            }
        }
    }
}

//! Tests of what is published where changes that a look has found are dropped: what follows from a
//! path that came and went during the look goes with it, and a fresh scan finds the same site.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::{Pass, Progress, SavedFile, ScanOutcome, Scanner, Scope, Unsettled};
use crate::disk::Root;
use crate::manifest::{Changes, Manifest};
use crate::semantics::coding::Coding;
use crate::semantics::dictionary::DictionaryHash;
use crate::settings::{CompressionPolicy, Settings, Symlinks};

/// A path of the site, and its content; `None` where there is no file.
type CaseFile = (&'static str, Option<Vec<u8>>);

/// What there is, what then changes for good, and what is other only while it is looked at.
struct DroppedCase {
    name: &'static str,
    before: Vec<CaseFile>,
    lasting: Vec<CaseFile>,
    passing: Vec<CaseFile>,
}

const TEXT: &str = "the same text, and the same text again\n";
const FAMILY: [&str; 5] = [
    "app-0a0b0c0d.js",
    "app-1a1b1c1d.js",
    "app-2a2b2c2d.js",
    "app-3a3b3c3d.js",
    "app-4a4b4c4d.js",
];
const GZIP_BY_RULE: &str = "/data.bin\n  Content-Encoding: gzip\n";

fn there(path: &'static str, content: impl AsRef<[u8]>) -> CaseFile {
    (path, Some(content.as_ref().to_vec()))
}

fn gone(path: &'static str) -> CaseFile {
    (path, None)
}

fn text() -> Vec<u8> {
    TEXT.repeat(100).into_bytes()
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(content).expect("encoded");
    encoder.finish().expect("encoded")
}

fn zstd(content: &[u8]) -> Vec<u8> {
    zstd::encode_all(content, 3).expect("encoded")
}

/// A delta in zstd (RFC 9842 section 5), and the end of its name.
fn delta(dictionary: &[u8], content: &[u8]) -> (String, Vec<u8>) {
    let hash: [u8; 32] = Sha256::digest(dictionary).into();
    let header = [b"\x5e\x2a\x4d\x18\x20\0\0\0", &hash[..]].concat();
    let mut encoder = zstd::Encoder::with_ref_prefix(header, 3, dictionary).expect("an encoder");
    encoder.write_all(content).expect("encoded");
    let coding = Coding::DictionaryZstd(DictionaryHash::new(hash));
    let extension = coding.delta_extension().expect("one of a delta");
    (extension, encoder.finish().expect("encoded"))
}

fn family(members: usize) -> Vec<CaseFile> {
    let names = FAMILY.iter().take(members);
    names.map(|name| there(name, text())).collect()
}

fn case(
    name: &'static str,
    before: Vec<CaseFile>,
    lasting: Vec<CaseFile>,
    passing: Vec<CaseFile>,
) -> DroppedCase {
    DroppedCase {
        name,
        before,
        lasting,
        passing,
    }
}

fn other() -> Vec<CaseFile> {
    vec![there("other.txt", "changed")]
}

fn cases_of_families() -> Vec<DroppedCase> {
    let (old, new) = (
        [&text()[..], b"old"].concat(),
        [&text()[..], b"new"].concat(),
    );
    let (extension, encoded) = delta(&old, &new);
    let delta_name: &'static str = format!("{}.{extension}", FAMILY[1]).leak();
    let both = vec![there(FAMILY[0], &old), there(FAMILY[1], &new)];
    let with_delta = [both.clone(), vec![there(delta_name, &encoded)]].concat();
    vec![
        case(
            "the fifth of a family comes and goes",
            family(4),
            other(),
            vec![there(FAMILY[4], text())],
        ),
        case(
            "one of five goes and comes",
            family(5),
            other(),
            vec![gone(FAMILY[2])],
        ),
        case(
            "a dictionary goes and comes",
            with_delta,
            other(),
            vec![gone(FAMILY[0])],
        ),
        case(
            "a delta comes and goes",
            both,
            other(),
            vec![there(delta_name, &encoded)],
        ),
    ]
}

fn cases_of_rules() -> Vec<DroppedCase> {
    let by_rule = vec![
        there("data.bin", gzip(&text())),
        there("data.bin.zst", zstd(&gzip(&text()))),
    ];
    let rule = there("_headers", GZIP_BY_RULE);
    vec![
        case(
            "a rule for Content-Encoding comes and goes",
            by_rule.clone(),
            other(),
            vec![rule.clone()],
        ),
        case(
            "a rule for Content-Encoding goes and comes",
            [by_rule.clone(), vec![rule.clone()]].concat(),
            other(),
            vec![gone("_headers")],
        ),
        case(
            "a file comes with a rule that goes",
            Vec::new(),
            by_rule,
            vec![rule.clone()],
        ),
        case(
            "redirects stay where other rules come and go",
            vec![there("a.txt", "a")],
            vec![there("_redirects", "/b /a.txt 301\n")],
            vec![rule],
        ),
    ]
}

fn cases_of_sidecars() -> Vec<DroppedCase> {
    let file = there("a.txt", text());
    let sidecar = there("a.txt.gz", gzip(&text()));
    let both = vec![file.clone(), sidecar.clone()];
    vec![
        case(
            "a sidecar comes and goes",
            vec![file.clone()],
            other(),
            vec![sidecar.clone()],
        ),
        case(
            "a sidecar goes and comes",
            both.clone(),
            other(),
            vec![gone("a.txt.gz")],
        ),
        case(
            "the file of a sidecar changes and is itself again",
            both,
            other(),
            vec![there("a.txt", "something else")],
        ),
        case(
            "a file comes with a sidecar that goes",
            Vec::new(),
            vec![file],
            vec![sidecar],
        ),
    ]
}

fn cases_of_patterns() -> Vec<DroppedCase> {
    let files = vec![there("a.txt", "a"), there("folder/b.txt", "b")];
    let patterns = there(".etagdignore", "a.txt\nfolder/\n");
    vec![
        case(
            "patterns come and go",
            files.clone(),
            other(),
            vec![patterns.clone()],
        ),
        case(
            "patterns go and come",
            [files, vec![patterns]].concat(),
            other(),
            vec![gone(".etagdignore")],
        ),
    ]
}

/// A site on disk, and who looks at it.
struct DroppedSite {
    directory: tempfile::TempDir,
    root: Arc<Root>,
    scanner: Scanner,
}

impl DroppedSite {
    fn new(files: &[CaseFile], settings: Settings) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let root = Arc::new(Root::open(directory.path()).expect("a root"));
        let site = Self {
            directory,
            root,
            scanner: Scanner::new(Symlinks::Inside, settings, None),
        };
        site.write(files);
        site
    }

    fn write(&self, files: &[CaseFile]) {
        for (path, content) in files {
            let path = self.directory.path().join(path);
            match content {
                Some(content) => {
                    let parent = path.parent().unwrap_or(Path::new("/"));
                    fs::create_dir_all(parent).expect("made");
                    fs::write(path, content).expect("written");
                }
                None => fs::remove_file(path).expect("removed"),
            }
        }
    }

    fn fresh(&self) -> Manifest {
        self.scanner.scan(&self.root, &Progress::default()).0
    }

    fn exclude(
        &self,
        outcome: &mut ScanOutcome,
        base: &Manifest,
        scope: &Scope,
        paths: BTreeSet<Box<[u8]>>,
    ) {
        let progress = Progress::default();
        let pass = Pass::new(&self.root, base, scope, Unsettled::Report, &progress);
        self.scanner.exclude(pass, outcome, paths);
    }

    fn look(&self, base: &Manifest, scope: &Scope) -> ScanOutcome {
        // Another test's process may have inherited the descriptor that wrote a file.
        for _ in 0..200 {
            let progress = Progress::default();
            let outcome =
                (self.scanner).reconcile(&self.root, base, scope, Unsettled::Report, &progress);
            if outcome.busy.is_empty() {
                return outcome;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("something is open for writing all the time");
    }
}

fn paths<'f>(files: impl IntoIterator<Item = &'f CaseFile>) -> BTreeSet<Box<[u8]>> {
    let paths = files.into_iter().map(|(path, _)| path.as_bytes().into());
    paths.collect()
}

/// All that answers follow from.
fn described(manifest: &Manifest) -> BTreeSet<String> {
    let rules = manifest.rules();
    let resources = manifest.resources().into_iter().map(|resource| {
        let encoded = resource.encoded.iter();
        let encoded: Vec<_> = encoded.map(|it| (it.coding(), it.etag)).collect();
        let (path, tag) = (
            String::from_utf8_lossy(&resource.path),
            resource.identity.etag,
        );
        let (coding, decoding) = (resource.fields.content_encoding, resource.fields.decoding());
        let dictionary = resource.dictionary_use();
        format!("{path}: {tag:?} {encoded:?} {coding:?} {decoding:?} {dictionary:?}")
    });
    [manifest.digest().to_string(), format!("{:?}", rules.hash())]
        .into_iter()
        .chain(resources)
        .chain(manifest.folders().map(|folder| format!("{folder:?}")))
        .collect()
}

impl DroppedCase {
    /// Looks while all of it is other, drops what has passed by then, and returns how the site differs
    /// from what a fresh scan finds: lines of one alone.
    fn difference(&self, settings: Settings) -> BTreeSet<String> {
        let name = self.name;
        let site = DroppedSite::new(&self.before, settings);
        let base = site.fresh();
        site.write(&self.lasting);
        site.write(&self.passing);
        let scope = Scope::of(paths(self.lasting.iter().chain(&self.passing)));
        let mut outcome = site.look(&base, &scope);
        let seen = described(&base.with(outcome.changes.clone()));
        let before = |path: &'static str| {
            let mut known = self.before.iter();
            let known = known.find(|(known, _)| *known == path);
            known.cloned().unwrap_or(gone(path))
        };
        let again: Vec<_> = self.passing.iter().map(|(path, _)| before(path)).collect();
        site.write(&again);
        site.exclude(&mut outcome, &base, &scope, paths(&self.passing));
        let published = described(&base.with(outcome.changes));
        let fresh = described(&site.fresh());
        assert_ne!(seen, fresh, "{name}: it makes no difference");
        published.symmetric_difference(&fresh).cloned().collect()
    }
}

#[test]
fn what_follows_from_a_path_that_came_and_went_goes_with_it() {
    let mut wrong = Vec::new();
    for compress in [None, Some(CompressionPolicy::default())] {
        let cases = [
            cases_of_families(),
            cases_of_rules(),
            cases_of_sidecars(),
            cases_of_patterns(),
        ];
        for case in cases.into_iter().flatten() {
            let settings = Settings {
                compress: compress.clone(),
                listing: true,
                ..Settings::default()
            };
            let difference = case.difference(settings);
            if !difference.is_empty() {
                wrong.push((case.name, compress.is_some(), difference));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_patterns_had_hidden_that_are_dropped_is_as_unreadable_as_before() {
    for pattern in ["b.txt\n", "folder/\n"] {
        let site = DroppedSite::new(&[there("a.txt", "a")], Settings::default());
        let path: Box<[u8]> = pattern.trim_end_matches(['\n', '/']).as_bytes().into();
        let base = site.fresh().with(Changes {
            unreadable: BTreeMap::from([(path.clone(), "it is not".to_owned())]),
            ..Changes::default()
        });
        let patterns = [there(".etagdignore", pattern)];
        site.write(&patterns);
        let scope = Scope::Everything;
        let mut outcome = site.look(&base, &scope);
        assert!(outcome.changes.unreadable.is_empty(), "{pattern:?}");
        site.exclude(&mut outcome, &base, &scope, paths(&patterns));
        assert!(
            outcome.changes.unreadable.contains_key(&path),
            "{pattern:?}"
        );
    }
}

#[test]
fn what_a_path_lacked_it_still_lacks_if_its_change_is_dropped() {
    let files = ["a/x.txt", "b.txt"].map(|path| there(path, text()));
    let settings = Settings {
        compress: Some(CompressionPolicy::default()),
        ..Settings::default()
    };
    let site = DroppedSite::new(&files, settings);
    let reasons = |paths: BTreeSet<Box<[u8]>>| -> BTreeMap<Box<[u8]>, String> {
        let reason = |path| (path, "it is not".to_owned());
        paths.into_iter().map(reason).collect()
    };
    let sidecars = [gone("a/x.txt.gz"), gone("b.txt.gz")];
    let base = site.fresh().with(Changes {
        unreadable: reasons(paths(&sidecars)),
        without_codings: paths(&files),
        ..Changes::default()
    });
    // All of it can be read now, and has its codings.
    let scope = Scope::Everything;
    let mut outcome = site.look(&base, &scope);
    assert_eq!(outcome.changes.unreadable, BTreeMap::new());
    assert_eq!(outcome.changes.without_codings, BTreeSet::new());
    let dropped = BTreeSet::from([b"a".as_slice().into()]);
    site.exclude(&mut outcome, &base, &scope, dropped);
    assert_eq!(outcome.changes.unreadable, reasons(paths(&sidecars[..1])));
    assert_eq!(outcome.changes.without_codings, paths(&files[..1]));
}

#[test]
fn what_is_written_at_a_start_and_gone_after_it_leaves_nothing_behind() {
    let sidecar = there("a.txt.gz", gzip(&text()));
    let files = [family(5), vec![there("a.txt", text()), sidecar]].concat();
    let site = DroppedSite::new(&files, Settings::default());
    let saved = site.fresh();
    let saved: Vec<_> = (saved.iter())
        .map(|resource| SavedFile {
            is_trusted: true,
            ..SavedFile::of(resource, &saved)
        })
        .collect();
    let restored = site.scanner.restore(&site.root, saved.into_iter());
    let written = [FAMILY[4], "a.txt.gz"];
    let writers = written.map(|path| {
        let mut file = fs::File::create(site.directory.path().join(path)).expect("opened");
        file.write_all(b"something else").expect("written");
        file
    });
    let first = (site.scanner).scan_at_once(restored, &site.root, &Progress::default());
    assert_eq!(first.busy.len(), 2);
    assert!(!first.manifest.digest().is_complete());
    drop(writers);
    site.write(&written.map(gone));
    let outcome = site.look(
        &first.manifest,
        &Scope::of(first.busy.into_iter().collect()),
    );
    let published = first.manifest.with(outcome.changes);
    assert_eq!(described(&published), described(&site.fresh()));
}

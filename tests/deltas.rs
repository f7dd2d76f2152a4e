//! Releases as deltas (RFC 9842): what `etagd compress --against` writes, and who is sent it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;
#[path = "support/transports.rs"]
mod transports;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Permissions};
use std::io::{self, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustix::process::Signal;
use sha2::{Digest, Sha256};

use support::browser::{Browser, Page};
use support::deltas::decode;
use support::developer::Developer;
use support::message::Message;
use support::server::{command, unprivileged};
use support::site::overwrite_in_place;
use support::tree::{self, eventually, relink, within};
use transports::{Authority, Transport, Transports, secure_address};

use support::{Client, Response, Server, TestSite, etagd, noise, tag};

/// How long a server without optimisations may take to prove what was written.
const PATIENCE: Duration = Duration::from_secs(120);
const ACCEPTED: &str = "gzip, deflate, br, zstd, dcb";

/// A bundle of a release: most of it is as it was in the one before.
fn bundle(release: usize) -> Vec<u8> {
    let line = |line: usize| {
        let number = line + if line % 100 == 7 { release } else { 0 };
        format!(
            "export const v{line}=f({number},{:x});\n",
            number * 40_503 % 65_521
        )
    };
    (0..2000)
        .flat_map(|number| line(number).into_bytes())
        .collect()
}

/// A script of a release: brotli takes seconds for a bundle without optimisations.
fn script(release: usize) -> Vec<u8> {
    let mut script = bundle(release);
    script.truncate(2400);
    script
}

const OLD: &str = "assets/app-0a0b0c0d.js";
const NEW: &str = "assets/app-1a1b1c1d.js";

fn old() -> TestSite {
    TestSite::with(&[
        (
            "index.html",
            b"<script src=/assets/app-0a0b0c0d.js></script>",
        ),
        (OLD, &bundle(0)),
        ("assets/same-2a2b2c2d.js", &bundle(50)),
        ("assets/picture-3a3b3c3d.png", &noise(5000, 1)),
        ("assets/noise-4a4b4c4d.js", &noise(5000, 2)),
        ("assets/many-00000a0b.js", &bundle(1)),
        ("assets/many-00000a1b.js", &bundle(2)),
        ("assets/many-00000a2b.js", &bundle(3)),
        ("assets/many-00000a3b.js", &bundle(4)),
        ("assets/many-00000a4b.js", &bundle(5)),
    ])
}

fn new() -> TestSite {
    TestSite::with(&[
        (
            "index.html",
            b"<script src=/assets/app-1a1b1c1d.js></script>",
        ),
        (NEW, &bundle(1)),
        ("assets/same-2a2b2c2d.js", &bundle(50)),
        ("assets/picture-3a3b3c4d.png", &noise(5000, 1)),
        ("assets/noise-4a4b4c5d.js", &noise(5000, 3)),
        ("assets/many-00000a5b.js", &bundle(6)),
    ])
}

fn compress(directory: &Path, flags: &[&str]) -> (i32, String) {
    let arguments = [&["compress", directory.to_str().unwrap()], flags].concat();
    let Output {
        status,
        stdout,
        stderr,
    } = etagd(arguments);
    let said = String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap();
    (status.code().unwrap(), said)
}

/// The new site with deltas against the old one.
fn compressed() -> TestSite {
    let (old, new) = (old(), new());
    let (code, said) = compress(&new.root(), &["--against", old.root().to_str().unwrap()]);
    assert_eq!(code, 0, "{said}");
    new
}

fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn field(dictionary: &[u8]) -> String {
    format!(":{}:", BASE64_STANDARD.encode(Sha256::digest(dictionary)))
}

/// The delta of [`NEW`] against [`OLD`].
fn delta(extension: &str) -> String {
    format!("{NEW}.{}.{extension}", &sha256(&bundle(0))[..16])
}

/// Everything in the site, with its content.
fn content(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = walkdir::WalkDir::new(root).into_iter().map(Result::unwrap);
    let files = entries.filter(|entry| entry.file_type().is_file());
    files
        .map(|entry| {
            let path = entry.path().strip_prefix(root).unwrap();
            (
                path.to_str().unwrap().to_owned(),
                fs::read(entry.path()).unwrap(),
            )
        })
        .collect()
}

/// A server of the site, with these flags and an admin listener.
fn serve(site: &TestSite, flags: &[&str]) -> Server {
    let admin = ["--admin", "127.0.0.1:0", "--settle", "10ms"];
    Server::with(site, &[&admin, flags].concat())
}

fn ask_admin(server: &Server, path: &str) -> String {
    let response = Client::connect(server.admin()).get(path);
    String::from_utf8(response.body).unwrap()
}

/// The value of a metric that is a whole number.
fn sample(server: &Server, name: &str) -> u64 {
    let metrics = ask_admin(server, "/metrics");
    let mut samples = metrics.lines().filter_map(|line| line.rsplit_once(' '));
    let (_, value) = samples.find(|(sample, _)| *sample == name).unwrap();
    value.parse().unwrap()
}

fn digest_of_site(site: &TestSite) -> String {
    tree::digest_of(&site.root())
}

fn digest_of(server: &Server) -> String {
    ask_admin(server, "/digest")
}

fn get(client: &mut Client, accepted: &str, dictionary: &[u8]) -> Response {
    let dictionary = field(dictionary);
    let fields = [
        ("Accept-Encoding", accepted),
        ("Available-Dictionary", dictionary.as_str()),
    ];
    client.request("GET", &format!("/{NEW}"), &fields)
}

fn coding(response: &Response) -> &str {
    response.field("content-encoding").unwrap_or("identity")
}

#[test]
fn deltas_are_written_for_what_replaces_an_older_file() {
    let site = compressed();
    let files = content(&site.root());
    let deltas: Vec<_> = files
        .keys()
        .filter(|path| path.ends_with(".dcb") || path.ends_with(".dcz"))
        .collect();
    assert_eq!(deltas, [&delta("dcb"), &delta("dcz")]);
    let brotli = files[&format!("{NEW}.br")].len();
    for extension in ["dcb", "dcz"] {
        let delta = &files[&delta(extension)];
        assert!(
            delta.len() * 4 < brotli,
            "{extension}: {} of {brotli}",
            delta.len()
        );
        assert_eq!(
            decode(delta, extension, &bundle(0)),
            bundle(1),
            "{extension}"
        );
    }
    let kept: Vec<_> = files
        .keys()
        .filter(|path| path.starts_with(".etagd"))
        .collect();
    assert_eq!(
        kept,
        [&format!(".etagd/dictionaries/{}", sha256(&bundle(0)))]
    );
}

/// The new site, made file by file from the other end, with deltas against an old one made so, too.
fn compressed_in_reverse() -> TestSite {
    let reversed = |site: TestSite| {
        let files = content(&site.root()).into_iter().rev();
        files.fold(TestSite::new(), |site, (name, content)| {
            site.file(name, content)
        })
    };
    let (old, new) = (reversed(old()), reversed(new()));
    let (code, said) = compress(&new.root(), &["--against", old.root().to_str().unwrap()]);
    assert_eq!(code, 0, "{said}");
    new
}

#[test]
fn equal_trees_get_equal_deltas_once() {
    let (one, other) = (compressed(), compressed_in_reverse());
    let files = content(&one.root());
    assert!(files == content(&other.root()), "two builds differ");
    assert_eq!(digest_of_site(&one), digest_of_site(&other));
    let old = old();
    let (code, said) = compress(&one.root(), &["--against", old.root().to_str().unwrap()]);
    assert!(code == 0 && said.contains("0 written, 2 proven"), "{said}");
    assert!(
        files == content(&one.root()),
        "a second run changes something"
    );
    // Without an earlier release, what is there stays.
    assert_eq!(compress(&one.root(), &[]).0, 0);
    assert!(
        files == content(&one.root()),
        "a run without --against changes something"
    );
}

#[test]
fn a_manifest_next_to_its_release_stands_for_it() {
    let (old, new) = (old(), new());
    let manifest = write_manifest(&old);
    let (code, said) = compress(&new.root(), &["--against", manifest.to_str().unwrap()]);
    assert_eq!(code, 0, "{said}");
    assert!(content(&new.root()) == content(&compressed().root()));
}

/// The families of scripts that a release has, one file each.
const FAMILIES: [&str; 5] = ["a", "b", "c", "lib/d", "lib/e"];

/// A release of scripts; each has the number of the release in its name.
fn scripts(release: usize) -> TestSite {
    let files = FAMILIES.iter().enumerate();
    files.fold(TestSite::new(), |site, (number, family)| {
        let name = format!("{family}-{release}a0b0c0d.js");
        site.file(name, script(10 * number + release))
    })
}

/// Writes the manifest of a release next to its files.
fn write_manifest(release: &TestSite) -> PathBuf {
    let json = etagd([
        "manifest",
        "--format",
        "json",
        release.root().to_str().unwrap(),
    ]);
    let manifest = release.path("manifest.json");
    fs::write(&manifest, json.stdout).unwrap();
    manifest
}

/// The families that have deltas in a release of scripts.
fn families_with_deltas(site: &TestSite) -> Vec<&'static str> {
    let files = content(&site.root());
    let has_delta = |family: &&str| {
        let mut deltas = files.keys().filter(|path| path.ends_with(".dcz"));
        deltas.any(|path| path.starts_with(&format!("{family}-")))
    };
    FAMILIES.into_iter().filter(has_delta).collect()
}

/// Nobody has what is there now, and what was there is gone: deltas against either would be in vain.
#[test]
fn files_that_are_not_what_their_manifest_lists_are_one_warning() {
    type Edit = fn(&TestSite);
    let change: Edit = |old| fs::write(old.path("a-0a0b0c0d.js"), script(99)).unwrap();
    let remove: Edit = |old| fs::remove_dir_all(old.path("lib")).unwrap();
    let shadow: Edit = |old| {
        fs::remove_file(old.path("b-0a0b0c0d.js")).unwrap();
        fs::create_dir(old.path("b-0a0b0c0d.js")).unwrap();
    };
    let loop_links: Edit = |old| {
        fs::remove_file(old.path("c-0a0b0c0d.js")).unwrap();
        symlink("c-0a0b0c0d.js", old.path("c-0a0b0c0d.js")).unwrap();
    };
    let cases: [(&[Edit], &str, &[&str]); 4] = [
        (
            &[loop_links],
            "1 file that it lists is gone or has other bytes now (/c-0a0b0c0d.js)",
            &["a", "b", "lib/d", "lib/e"],
        ),
        (
            &[change],
            "1 file that it lists is gone or has other bytes now (/a-0a0b0c0d.js)",
            &["b", "c", "lib/d", "lib/e"],
        ),
        (
            &[change, remove],
            "3 files that it lists are gone or have other bytes now (/a-0a0b0c0d.js, \
             /lib/d-0a0b0c0d.js, /lib/e-0a0b0c0d.js)",
            &["b", "c"],
        ),
        (
            &[change, remove, shadow],
            "4 files that it lists are gone or have other bytes now (/a-0a0b0c0d.js, \
             /b-0a0b0c0d.js, /lib/d-0a0b0c0d.js and 1 more)",
            &["c"],
        ),
    ];
    for (edits, sentence, families) in cases {
        let (old, new) = (scripts(0), scripts(1));
        let manifest = write_manifest(&old);
        edits.iter().for_each(|edit| edit(&old));
        let (code, said) = compress(&new.root(), &["--against", manifest.to_str().unwrap()]);
        assert_eq!(code, 0, "{said}");
        let line = format!(
            "{}: {sentence}: no deltas against what was there; put that release back, or, if \
             browsers have what is there now, write the manifest again",
            manifest.display()
        );
        assert_eq!(said.matches(&line).count(), 1, "{said}");
        assert_eq!(said.matches("that it lists").count(), 1, "{said}");
        assert_eq!(families_with_deltas(&new), families);
        assert_eq!(compress(&new.root(), &["--check"]).0, 0);
    }
}

/// The manifest lists what is served, and where a link leads is not in it.
#[test]
fn what_a_manifest_lists_may_be_behind_links() {
    let (old, new) = (scripts(0), scripts(1));
    fs::rename(old.path("lib"), old.path("lib-7")).unwrap();
    symlink("lib-7", old.path("lib")).unwrap();
    fs::rename(old.path("a-0a0b0c0d.js"), old.path("a.js")).unwrap();
    symlink("a.js", old.path("a-0a0b0c0d.js")).unwrap();
    let manifest = write_manifest(&old);
    let (code, said) = compress(&new.root(), &["--against", manifest.to_str().unwrap()]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(families_with_deltas(&new), FAMILIES);
}

/// Of what is left out, one file is still there and one is gone: neither is a dictionary, and nothing
/// is said.
#[test]
fn what_is_excluded_is_left_out_of_a_manifest_too() {
    let (old, new) = (scripts(0), scripts(1));
    let manifest = write_manifest(&old);
    fs::remove_file(old.path("lib/d-0a0b0c0d.js")).unwrap();
    let against = ["--against", manifest.to_str().unwrap()];
    let flags = [against, ["--exclude", "a-0*"], ["--exclude", "/lib/d-0*"]].concat();
    let (code, said) = compress(&new.root(), &flags);
    assert_eq!(code, 0, "{said}");
    assert!(!said.contains("that it lists"), "{said}");
    assert_eq!(families_with_deltas(&new), ["b", "c", "lib/e"]);
}

/// Runs `etagd compress` against `old` as somebody who may not read what is `hidden`; `None` where no
/// such user can be had.
fn compress_without(hidden: &[&Path], site: &TestSite, old: &Path) -> Option<(i32, String)> {
    let mut program = unprivileged()?;
    for entry in walkdir::WalkDir::new(site.root()).into_iter().flatten() {
        if entry.file_type().is_dir() {
            fs::set_permissions(entry.path(), Permissions::from_mode(0o777)).unwrap();
        }
    }
    let hide = |path: &&Path| {
        let mode = fs::metadata(path).unwrap().permissions();
        fs::set_permissions(path, Permissions::from_mode(0o000)).unwrap();
        mode
    };
    let modes: Vec<_> = hidden.iter().map(hide).collect();
    let program = program.arg("compress").arg(site.root());
    let output = program.arg("--against").arg(old).output().unwrap();
    for (path, mode) in hidden.iter().zip(modes) {
        fs::set_permissions(path, mode).unwrap();
    }
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    Some((output.status.code().unwrap(), said))
}

/// What can't be read is named once, and the rest is done. Which deltas a family should have is not
/// known while a directory that may hold some of it can't be read.
#[test]
fn what_cannot_be_read_of_an_earlier_release_is_one_warning() {
    // Two files may have replaced the one that can't be read.
    let new = || scripts(1).file("a-2a0b0c0d.js", script(2));
    let whole = new();
    let (code, said) = compress(
        &whole.root(),
        &["--against", scripts(0).root().to_str().unwrap()],
    );
    assert_eq!(code, 0, "{said}");
    let cases: [(&str, &[&str]); 4] = [
        ("a-0a0b0c0d.js", &["b", "c", "lib/d", "lib/e"]),
        ("lib", &["a", "b", "c"]),
        ("lost+found", &FAMILIES),
        (".etagdignore", &[]),
    ];
    for (hidden, families) in cases {
        let (old, new) = (scripts(0).dir("lost+found"), new());
        let old = old.file(".etagdignore", "# nothing\n");
        let hidden = old.path(hidden);
        let Some((code, said)) = compress_without(&[&hidden], &new, &old.root()) else {
            return;
        };
        let sentence = format!("{}: it cannot be read (Permission denied", hidden.display());
        assert!(code == 1 && said.contains(&sentence), "{code} {said}");
        assert_eq!(said.matches("cannot be read").count(), 1, "{said}");
        assert_eq!(families_with_deltas(&new), families);
        assert_eq!(compress(&new.root(), &["--check"]).0, 0);
        // Once it can be read, all is as if it always could.
        let (code, said) = compress(&new.root(), &["--against", old.root().to_str().unwrap()]);
        assert_eq!(code, 0, "{said}");
        assert!(content(&new.root()) == content(&whole.root()), "{hidden:?}");
    }
}

/// Sidecars and deltas are made of the same files.
#[test]
fn what_cannot_be_read_of_the_site_is_one_warning() {
    let (old, new) = (scripts(0), scripts(1));
    let (code, said) = compress(&new.root(), &["--against", old.root().to_str().unwrap()]);
    assert_eq!(code, 0, "{said}");
    let whole = content(&new.root());
    let [file, folder] = [new.path("a-1a0b0c0d.js"), new.path("lib")];
    let Some((code, said)) = compress_without(&[&file, &folder], &new, &old.root()) else {
        return;
    };
    for path in [&file, &folder] {
        let line = format!("{}: Permission denied", path.display());
        assert_eq!(said.matches(&line).count(), 1, "{said}");
    }
    assert_eq!(code, 1, "{said}");
    assert!(content(&new.root()) == whole, "{said}");
}

#[test]
fn a_listed_file_that_cannot_be_read_is_not_called_another() {
    let (old, new) = (scripts(0), scripts(1));
    let manifest = write_manifest(&old);
    let hidden = old.path("a-0a0b0c0d.js");
    let Some((code, said)) = compress_without(&[&hidden], &new, &manifest) else {
        return;
    };
    let sentence = format!("{}: it cannot be read (Permission denied", hidden.display());
    assert!(code == 1 && said.contains(&sentence), "{code} {said}");
    assert!(!said.contains("that it lists"), "{said}");
    assert_eq!(families_with_deltas(&new), FAMILIES[1..]);
}

/// The dictionary that a delta lacks may be what can't be read at the moment.
#[test]
fn a_delta_stays_while_its_dictionary_cannot_be_read() {
    let old = scripts(0);
    let against = ["--against", old.root().to_str().unwrap()].map(str::to_owned);
    let against = against.each_ref().map(String::as_str);
    for hidden in ["lib/d-0a0b0c0d.js", "lib"] {
        let new = scripts(1);
        assert_eq!(compress(&new.root(), &against).0, 0);
        let whole = content(&new.root());
        fs::remove_dir_all(new.path(".etagd")).unwrap();
        let hidden = old.path(hidden);
        let Some((code, said)) = compress_without(&[&hidden], &new, &old.root()) else {
            return;
        };
        assert!(
            code == 1 && !said.contains("without dictionaries"),
            "{code} {said}"
        );
        assert_eq!(families_with_deltas(&new), FAMILIES);
        // Nobody can decode it as it is: that is said until the dictionary is there again.
        let (code, said) = compress(&new.root(), &["--check"]);
        assert!(
            code == 1 && said.contains("neither in the site nor in"),
            "{said}"
        );
        let (code, said) = compress(&new.root(), &against);
        assert_eq!(code, 0, "{said}");
        assert!(content(&new.root()) == whole, "{said}");
    }
}

/// What clients never got is no dictionary, and counts for no family.
#[test]
fn what_an_earlier_release_left_out_is_no_dictionary() {
    let old = TestSite::with(&[
        (".etagdignore", b"/many-00000a4b.js\n"),
        ("many-00000a0b.js", &script(1)),
        ("many-00000a1b.js", &script(2)),
        ("many-00000a2b.js", &script(3)),
        ("many-00000a3b.js", &script(4)),
        ("many-00000a4b.js", &script(5)),
        ("one-0a0b0c0d.js", &script(6)),
    ]);
    let new = TestSite::with(&[
        ("many-00000a5b.js", &script(7)),
        ("one-1a1b1c1d.js", &script(8)),
    ]);
    let (code, said) = compress(
        &new.root(),
        &[
            "--against",
            old.root().to_str().unwrap(),
            "--exclude",
            "/one-0a*",
        ],
    );
    assert_eq!(code, 0, "{said}");
    let files = content(&new.root());
    let deltas: BTreeSet<_> = files.keys().filter(|path| path.ends_with(".dcz")).collect();
    let expected = [1, 2, 3, 4].map(|number| delta_name("many-00000a5b.js", &script(number)));
    assert_eq!(deltas, expected.iter().collect());
}

/// One rule for both: a delta against what no browser was told to keep would be of use to nobody.
#[test]
fn what_gets_deltas_is_what_is_advertised() {
    const WITH_DELTAS: [&str; 9] = [
        "bmp", "css", "ico", "js", "json", "otf", "svg", "ttf", "wasm",
    ];
    const WITHOUT: [&str; 6] = ["jpg", "mp4", "pdf", "png", "unheard-of", "woff2"];
    let extensions = || WITH_DELTAS.iter().chain(&WITHOUT);
    // The name decides, whatever the content is.
    let text = script;
    let data = |release: usize| [script(release), vec![0; 9]].concat();
    let site = |hash: &str, release: usize| {
        extensions().fold(TestSite::new(), |site, extension| {
            site.file(format!("text-{hash}.{extension}"), text(release))
                .file(format!("data-{hash}.{extension}"), data(release))
        })
    };
    let (old, new) = (site("0a0b0c0d", 0), site("1a1b1c1d", 1));
    let (code, said) = compress(&new.root(), &["--against", old.root().to_str().unwrap()]);
    assert_eq!(code, 0, "{said}");
    let files = content(&new.root());
    let server = serve(&old, &["--immutable", "auto"]);
    let mut client = server.client();
    for extension in extensions() {
        let is_expected = WITH_DELTAS.contains(extension);
        for kind in ["text", "data"] {
            let deltas = files.keys().filter(|path| {
                path.starts_with(&format!("{kind}-1a1b1c1d.{extension}."))
                    && (path.ends_with(".dcb") || path.ends_with(".dcz"))
            });
            let expected = if is_expected { 2 } else { 0 };
            assert_eq!(deltas.count(), expected, "{kind}: {extension}");
            let response = client.get(&format!("/{kind}-0a0b0c0d.{extension}"));
            let pattern = format!(r#"match="/{kind}-*.{extension}""#);
            assert_eq!(
                response.field("use-as-dictionary"),
                is_expected.then_some(pattern.as_str()),
                "{kind}: {extension}"
            );
        }
    }
}

/// Clients may have any of the releases. What is still part of the site is not kept once more.
#[test]
fn several_releases_have_deltas_each() {
    let release = |number| TestSite::with(&[("a-0a0b0c0d.js", &bundle(number))]);
    let (first, second) = (release(1), release(2));
    let site = TestSite::with(&[("a-1a1b1c1d.js", &bundle(3)), ("a-0a0b0c0d.js", &bundle(2))]);
    let roots = [second.root(), first.root()];
    let [newer, older] = roots.each_ref().map(|root| root.to_str().unwrap());
    let (code, said) = compress(&site.root(), &["--against", newer, "--against", older]);
    assert_eq!(code, 0, "{said}");
    let files = content(&site.root());
    let deltas: BTreeSet<_> = files.keys().filter(|path| path.ends_with(".dcz")).collect();
    let named = |file: &str, dictionary: usize| delta_name(file, &bundle(dictionary));
    let expected = [
        named("a-1a1b1c1d.js", 1),
        named("a-1a1b1c1d.js", 2),
        named("a-0a0b0c0d.js", 1),
    ];
    assert_eq!(deltas, expected.iter().collect());
    let kept: Vec<_> = files
        .keys()
        .filter(|path| path.starts_with(".etagd"))
        .collect();
    let place = format!(".etagd/dictionaries/{}", sha256(&bundle(1)));
    assert_eq!(kept, [&place]);
    assert_eq!(compress(&site.root(), &["--check"]).0, 0);
}

/// With a dictionary that does not fit into brotli's window there is a delta in zstd alone, with one
/// that is longer still none; each is said.
#[test]
fn dictionaries_that_are_too_long_are_named() {
    let old = TestSite::with(&[("a-0a0b0c0d.js", b""), ("b-0a0b0c0d.js", b"")]);
    let set_length = |name: &str, length: u64| {
        let file = File::options().write(true).open(old.path(name)).unwrap();
        file.set_len(length).unwrap();
    };
    set_length("a-0a0b0c0d.js", 16 << 20);
    set_length("b-0a0b0c0d.js", (96 << 20) + 1);
    // Long runs of what the dictionary is made of, so that there is something to gain.
    let new = [vec![0; 4000], noise(200, 1), vec![0; 4000]].concat();
    let site = TestSite::with(&[("a-1a1b1c1d.js", &new), ("b-1a1b1c1d.js", &new)]);
    let (code, said) = compress(&site.root(), &["--against", old.root().to_str().unwrap()]);
    assert_eq!(code, 0, "{said}");
    for (file, reason) in [
        ("a-1a1b1c1d.js", "no delta in brotli: dcz alone"),
        ("b-1a1b1c1d.js", "its dictionary has more than 96 MiB"),
    ] {
        let line = said.lines().find(|line| line.contains(file));
        assert!(line.is_some_and(|line| line.contains(reason)), "{said}");
    }
    let files = content(&site.root());
    assert!(!files.keys().any(|path| path.ends_with(".dcb")), "{said}");
    assert!(
        !files
            .keys()
            .any(|path| path.starts_with("b-1a1b1c1d.js.") && path.ends_with(".dcz"))
    );
    // Nobody need keep what nothing is compressed with.
    let server = serve(&old, &["--immutable", "auto"]);
    for (file, pattern) in [("a", Some(r#"match="/a-*.js""#)), ("b", None)] {
        let response = server
            .client()
            .request("HEAD", &format!("/{file}-0a0b0c0d.js"), &[]);
        assert_eq!(response.field("use-as-dictionary"), pattern, "{file}");
    }
}

#[test]
fn what_cannot_be_read_as_a_release_is_named() {
    let site = new();
    for (against, problem) in [("gone", "cannot open"), (NEW, "cannot use the manifest")] {
        let against = site.path(against);
        let (code, said) = compress(&site.root(), &["--against", against.to_str().unwrap()]);
        assert!(code == 1 && said.contains(problem), "{code} {said}");
        assert!(content(&site.root()) == content(&new().root()), "{said}");
    }
}

#[test]
fn check_and_remove_know_deltas() {
    let site = compressed();
    assert_eq!(compress(&site.root(), &["--check"]).0, 0);
    let mut damaged = fs::read(site.path(delta("dcb"))).unwrap();
    *damaged.last_mut().unwrap() ^= 0x10;
    fs::write(site.path(delta("dcb")), &damaged).unwrap();
    let (code, said) = compress(&site.root(), &["--check"]);
    assert!(code == 1 && said.contains(&delta("dcb")), "{said}");
    let root = site.root().display().to_string();
    let advice =
        format!("1 delta is not proven: etagd compress {root} --against OLD writes new ones");
    assert!(said.contains(&advice), "{said}");
    fs::write(site.path("stray.txt"), "a text ".repeat(1000)).unwrap();
    fs::write(site.path("stray.txt.gz"), "no gzip").unwrap();
    let (_, said) = compress(&site.root(), &["--check"]);
    let both = format!(
        "1 sidecar and 1 delta are not proven: etagd compress {root} writes new sidecars, and with \
         --against OLD new deltas"
    );
    assert!(said.contains(&both), "{said}");
    for stray in ["stray.txt", "stray.txt.gz"] {
        fs::remove_file(site.path(stray)).unwrap();
    }
    // What is proven goes; what is not may be somebody else's.
    let (code, said) = compress(&site.root(), &["--remove"]);
    assert!(
        code == 0 && said.contains("1 delta removed"),
        "{code} {said}"
    );
    assert!(site.path(delta("dcb")).exists() && !site.path(delta("dcz")).exists());
    let old = old();
    let (code, said) = compress(&site.root(), &["--against", old.root().to_str().unwrap()]);
    assert!(code == 0 && said.contains("2 written"), "{said}");
    let (code, said) = compress(&site.root(), &["--remove"]);
    assert!(code == 0 && said.contains("2 deltas removed"), "{said}");
    let files = content(&site.root());
    assert!(files == content(&new().root()), "{:?}", files.keys());
}

/// What nobody can decode any more is of no use, whoever looks at it.
#[test]
fn deltas_whose_dictionary_is_gone_are_removed() {
    let old = old();
    let old = old.root();
    let against = ["--against", old.to_str().unwrap()];
    // A dictionary that this release has in common with none.
    let lost = "assets/app-1a1b1c1d.js.0123456789abcdef.dcz";
    let stray = [
        b"\x5e\x2a\x4d\x18\x20\0\0\0\x01\x23\x45\x67\x89\xab\xcd\xef".as_slice(),
        &[7; 24],
        &zstd_delta(b"", &bundle(1))[40..],
    ]
    .concat();
    let foreign = "assets/app-1a1b1c1d.js.fedcba9876543210.dcz";
    let site = compressed().file(lost, &stray).file(foreign, "a note");
    let kept = content(&site.root());
    // Without an earlier release, what is there stays.
    assert_eq!(compress(&site.root(), &[]).0, 0);
    assert!(kept == content(&site.root()));
    let (code, said) = compress(&site.root(), &against);
    assert!(
        code == 0 && said.contains("0 written, 2 proven, 1 removed"),
        "{code} {said}"
    );
    assert!(!site.path(lost).exists() && site.path(foreign).exists());

    let site = site.file(lost, &stray);
    let (code, said) = compress(&site.root(), &["--remove"]);
    assert!(
        code == 0 && said.contains("3 deltas removed"),
        "{code} {said}"
    );
    fs::remove_file(site.path(foreign)).unwrap();
    assert!(content(&site.root()) == content(&new().root()));

    // One that can't be read now is not gone.
    let site = compressed();
    fs::rename(site.path(".etagd"), site.path(".kept")).unwrap();
    symlink(".kept", site.path(".etagd")).unwrap();
    let (_, said) = compress(&site.root(), &["--remove"]);
    assert!(said.contains("is behind a symbolic link"), "{said}");
    assert!(site.path(delta("dcb")).exists(), "{said}");
}

#[test]
fn a_client_with_the_older_file_is_sent_the_delta() {
    let site = compressed();
    let server = serve(&site, &["--immutable", "auto"]);
    let mut client = server.client();
    for (accepted, expected) in [(ACCEPTED, "dcb"), ("br, dcz", "dcz")] {
        let response = get(&mut client, accepted, &bundle(0));
        assert_eq!(response.status, 200);
        assert_eq!(coding(&response), expected);
        let file = fs::read(site.path(delta(expected))).unwrap();
        assert_eq!(response.field("etag"), Some(tag(&file).as_str()));
        assert_eq!(decode(&response.body, expected, &bundle(0)), bundle(1));
    }
    let other = get(&mut client, ACCEPTED, &bundle(2));
    assert_eq!(coding(&other), "br");
    assert_eq!(
        other.field("use-as-dictionary"),
        Some(r#"match="/assets/app-*.js""#)
    );
    let kept = format!("/.etagd/dictionaries/{}", sha256(&bundle(0)));
    assert!(site.path(&kept[1..]).exists());
    assert_eq!(client.get(&kept).status, 404, "it is not served");
    let metrics = ask_admin(&server, "/metrics");
    assert!(
        metrics.contains("etagd_delta_responses_total 2"),
        "{metrics}"
    );
    assert!(
        metrics.contains("etagd_unknown_dictionaries_total 1"),
        "{metrics}"
    );
}

/// As much as the response that the client would have got without a dictionary would have had more.
#[test]
fn what_deltas_save_is_counted_to_the_byte() {
    let site = compressed();
    let server = serve(&site, &["--immutable", "auto"]);
    let length = |name: &str| fs::metadata(site.path(name)).unwrap().len();
    let (dcb, dcz) = (length(&delta("dcb")), length(&delta("dcz")));
    let mut saved = 0;
    let mut client = server.client();
    for (accepted, coding, instead, sent) in [
        (ACCEPTED, "dcb", format!("{NEW}.br"), dcb),
        ("gzip, dcz", "dcz", format!("{NEW}.gz"), dcz),
        (
            "br;q=0.1, zstd;q=0.2, dcb",
            "dcb",
            format!("{NEW}.zst"),
            dcb,
        ),
        ("dcz", "dcz", NEW.to_owned(), dcz),
    ] {
        let response = get(&mut client, accepted, &bundle(0));
        assert_eq!(self::coding(&response), coding, "{accepted}");
        assert_eq!(response.body.len() as u64, sent, "{accepted}");
        saved += length(&instead) - sent;
    }
    // None of these has saved more.
    let dictionary = field(&bundle(0));
    let delta_tag = tag(&fs::read(site.path(delta("dcb"))).unwrap());
    for (method, condition, status) in [
        ("HEAD", ("Accept", "*/*"), 200),
        ("GET", ("If-None-Match", delta_tag.as_str()), 304),
        ("GET", ("Range", "bytes=0-35"), 206),
        ("GET", ("Range", "bytes=9999999-"), 416),
        ("GET", ("If-Match", "\"other\""), 412),
    ] {
        let fields = [
            ("Accept-Encoding", ACCEPTED),
            ("Available-Dictionary", dictionary.as_str()),
            condition,
        ];
        let response = client.request(method, &format!("/{NEW}"), &fields);
        assert_eq!(response.status, status);
    }
    assert_eq!(coding(&get(&mut client, ACCEPTED, &bundle(2))), "br");
    // Five have sent one, or a part of one; the last request is counted after all others.
    let wanted = [
        ("etagd_unknown_dictionaries_total", 1),
        ("etagd_delta_responses_total", 5),
        ("etagd_delta_saved_body_bytes_total", saved),
    ];
    eventually("the last request is counted", || {
        sample(&server, wanted[0].0) == wanted[0].1
    });
    for (name, count) in wanted {
        assert_eq!(sample(&server, name), count, "{name}");
    }
}

/// RFC 9530 section 3: the digest is that of the representation, here of the delta.
#[test]
fn a_delta_has_a_digest_of_its_own() {
    let site = compressed();
    let server = serve(&site, &["--immutable", "auto", "--repr-digest", "always"]);
    for coding in ["dcb", "dcz"] {
        let response = get(&mut server.client(), coding, &bundle(0));
        assert_eq!(self::coding(&response), coding);
        let digest = Sha256::digest(fs::read(site.path(delta(coding))).unwrap());
        let digest = format!("sha-256=:{}:", BASE64_STANDARD.encode(digest));
        assert_eq!(response.field("repr-digest"), Some(digest.as_str()));
    }
}

#[test]
fn replicas_agree_and_a_restart_changes_nothing() {
    let (one, other) = (compressed(), compressed_in_reverse());
    let state = one.outside("state");
    let flags = ["--immutable", "auto", "--state", state.to_str().unwrap()];
    let first = serve(&one, &flags);
    let second = serve(&other, &["--immutable", "auto"]);
    assert_eq!(digest_of(&first), digest_of(&second));
    let digest = digest_of(&first);
    eventually("the manifest is saved", || state.exists());
    drop(first);
    let restarted = serve(&one, &flags);
    assert_eq!(digest_of(&restarted), digest);
    let response = get(&mut restarted.client(), ACCEPTED, &bundle(0));
    assert_eq!(coding(&response), "dcb");
}

#[test]
fn what_is_not_proven_is_named_and_not_sent() {
    let kept = format!(".etagd/dictionaries/{}", sha256(&bundle(0)));
    type Change<'c> = (&'c dyn Fn(&TestSite), &'c str);
    let rewrite = |site: &TestSite, change: &dyn Fn(Vec<u8>) -> Vec<u8>| {
        for extension in ["dcb", "dcz"] {
            let path = site.path(delta(extension));
            let changed = change(fs::read(&path).unwrap());
            fs::write(path, changed).unwrap();
        }
    };
    let cases: [Change<'_>; 5] = [
        (
            &|site| rewrite(site, &|delta| delta[..delta.len() - 5].to_vec()),
            "it is cut short",
        ),
        // They are good ones, of which neither is against the dictionary in its name.
        (
            &|site| rewrite(site, &|_| zstd_delta(&bundle(2), &bundle(1))),
            "it is no delta against the dictionary in its name",
        ),
        (
            &|site| {
                let mut bytes = bundle(0);
                bytes[100] ^= 1;
                fs::write(site.path(&kept), bytes).unwrap();
            },
            "does not have the SHA-256 that is its name",
        ),
        (
            &|site| fs::write(site.path(NEW), bundle(3)).unwrap(),
            "it decodes to other bytes than the file has now",
        ),
        (
            &|site| rewrite(site, &|_| b"no delta".to_vec()),
            "it is no delta against the dictionary in its name",
        ),
    ];
    for (change, reason) in cases {
        let site = compressed();
        change(&site);
        let server = serve(&site, &["--immutable", "auto"]);
        let response = get(&mut server.client(), "dcb, dcz", &bundle(0));
        assert_eq!(coding(&response), "identity", "{reason}");
        assert_eq!(response.body, fs::read(site.path(NEW)).unwrap(), "{reason}");
        // No answer depends on a dictionary any more.
        let vary = response.field("vary").unwrap_or_default();
        assert!(!vary.contains("dictionary"), "{reason}: {vary}");
        let log = server.log();
        for extension in ["dcb", "dcz"] {
            let line = format!("{} is not used: ", delta(extension));
            assert_eq!(log.matches(&line).count(), 1, "{reason}: {log}");
        }
        assert!(log.contains(reason), "{reason}: {log}");
    }
}

/// A deploy that drops the dictionaries is told in one sentence, whoever looks.
#[test]
fn a_deploy_without_its_dictionaries_is_one_warning() {
    let site = compressed();
    let other = TestSite::with(&[("assets/b-0a0b0c0d.js", &bundle(7))]);
    let site = site.file("assets/b-1a1b1c1d.js", bundle(8));
    let against = ["--against", other.root().to_str().unwrap()].map(str::to_owned);
    let (code, said) = compress(&site.root(), &against.each_ref().map(String::as_str));
    assert_eq!(code, 0, "{said}");
    fs::remove_dir_all(site.path(".etagd")).unwrap();
    let sentence = "4 deltas are not used: their 2 dictionaries are neither in the site nor in \
                    .etagd/dictionaries: deploy that directory with the site, or run etagd compress \
                    --against again";
    let is_said_once = |who: &str, said: &str| {
        assert_eq!(said.matches(sentence).count(), 1, "{who}: {said}");
        let others = said.matches("not used").count();
        assert_eq!(others, 1, "{who}: {said}");
    };
    let server = serve(&site, &["--immutable", "auto"]);
    is_said_once("serve", &server.log());
    let response = get(&mut server.client(), ACCEPTED, &bundle(0));
    assert_eq!(coding(&response), "br");
    let root = site.root();
    let root = root.to_str().unwrap();
    let url = format!("http://{}", server.address());
    let commands: [&[&str]; 4] = [
        &["manifest", root],
        &["check", "--dir", root, "--immutable", "auto", &url],
        &["lint", root],
        &["compress", root, "--check"],
    ];
    for arguments in commands {
        let output = etagd(arguments);
        let said = [output.stdout, output.stderr].concat();
        is_said_once(arguments[0], &String::from_utf8(said).unwrap());
    }
    // A sweep has nothing new to say of them.
    let before = sweeps(&server);
    server.signal(Signal::HUP);
    eventually("it is swept", || sweeps(&server) > before);
    is_said_once("a sweep", &server.log());
}

#[test]
fn one_delta_without_its_dictionary_is_one_warning() {
    let site = compressed();
    fs::remove_file(site.path(delta("dcb"))).unwrap();
    fs::remove_dir_all(site.path(".etagd")).unwrap();
    let server = serve(&site, &["--immutable", "auto"]);
    let sentence = "1 delta is not used: its dictionary is neither in the site nor in";
    assert_eq!(
        server.log().matches(sentence).count(),
        1,
        "{}",
        server.log()
    );
}

/// Nothing below a link is looked at, and a link is no file that will be readable later.
#[test]
fn a_linked_directory_of_dictionaries_is_named_once() {
    let site = compressed();
    let served = digest_of(&serve(&site, &["--immutable", "auto"]));
    let server = serve(&site, &["--immutable", "auto"]);
    fs::rename(site.path(".etagd"), site.path(".kept")).unwrap();
    symlink(".kept", site.path(".etagd")).unwrap();
    let sentence = "is behind a symbolic link";
    let is_named_once = |server: &Server| {
        server.signal(Signal::HUP);
        within(PATIENCE, "the delta is not used", || {
            coding(&get(&mut server.client(), ACCEPTED, &bundle(0))) == "br"
        });
        let before = sweeps(server);
        server.signal(Signal::HUP);
        within(PATIENCE, "it is swept again", || sweeps(server) > before);
        let log = server.log();
        let count = log.matches(sentence).count();
        assert_eq!(count, 2, "one for each delta: {log}");
        digest_of(server)
    };
    // Who has served the deltas before, and who starts now.
    let old = is_named_once(&server);
    let fresh = serve(&site, &["--immutable", "auto"]);
    assert_eq!(is_named_once(&fresh), old);
    assert_ne!(old, served);
    assert!(!old.contains("incomplete"), "{old}");
}

/// A failure of the disk is tried again at each sweep, and told while it is news.
#[test]
fn a_dictionary_that_cannot_be_read_is_named_once() {
    let Some(program) = unprivileged() else {
        return;
    };
    let site = compressed();
    let kept = site.path(format!(".etagd/dictionaries/{}", sha256(&bundle(0))));
    fs::set_permissions(&kept, Permissions::from_mode(0o000)).unwrap();
    let flags = ["--immutable", "auto", "--admin", "127.0.0.1:0"];
    let server = Server::run(program, &site.root(), &flags);
    for _ in 0..2 {
        let before = sweeps(&server);
        server.signal(Signal::HUP);
        within(PATIENCE, "it is swept", || sweeps(&server) > before);
    }
    let log = server.log();
    assert_eq!(
        log.matches("is not used: it cannot be read").count(),
        2,
        "one for each delta: {log}"
    );
}

/// A delta in zstd, by hand: tests of the scan need no brotli, which takes seconds without
/// optimisations.
fn zstd_delta(dictionary: &[u8], content: &[u8]) -> Vec<u8> {
    zstd_delta_at(3, dictionary, content)
}

fn zstd_delta_at(level: i32, dictionary: &[u8], content: &[u8]) -> Vec<u8> {
    let header = [b"\x5e\x2a\x4d\x18\x20\0\0\0", &*Sha256::digest(dictionary)].concat();
    let mut encoder = zstd::Encoder::with_ref_prefix(header, level, dictionary).unwrap();
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// A script that no memory is kept for.
fn long_bundle(release: usize) -> Vec<u8> {
    bundle(release).repeat(6)
}

fn delta_name(file: &str, dictionary: &[u8]) -> String {
    format!("{file}.{}.dcz", &sha256(dictionary)[..16])
}

/// How many bytes a server has read so far, of files and else (proc_pid_io(5)).
fn read_so_far(server: &Server) -> u64 {
    let io = fs::read_to_string(format!("/proc/{}/io", server.pid())).unwrap();
    let read = io.lines().find_map(|line| line.strip_prefix("rchar: "));
    read.unwrap().parse().unwrap()
}

fn sweeps(server: &Server) -> u64 {
    sample(server, "etagd_scan_duration_seconds_count{of=\"site\"}")
}

#[test]
fn a_sweep_of_an_unchanged_site_reads_no_delta_and_no_dictionary_again() {
    let (old, new) = (long_bundle(0), long_bundle(1));
    let kept = long_bundle(2);
    let site = TestSite::with(&[
        (OLD, &old),
        (NEW, &new),
        // One is proven by a file of the site, one by what is kept, one by nothing.
        (&delta_name(NEW, &old), &zstd_delta(&old, &new)),
        (&delta_name(NEW, &kept), &zstd_delta(&kept, &new)),
        (&delta_name(OLD, &new), &zstd_delta(&new, &kept)),
        (&format!(".etagd/dictionaries/{}", sha256(&kept)), &kept),
    ]);
    let server = serve(&site, &["--sweep", "100ms"]);
    for dictionary in [&old, &kept] {
        let response = get(&mut server.client(), "dcz", dictionary);
        assert_eq!(coding(&response), "dcz");
    }
    assert_eq!(server.log().matches("is not used").count(), 1);
    let first = sweeps(&server);
    within(PATIENCE, "it is swept", || sweeps(&server) > first);
    // To ask for metrics has the server read of itself: the faster it answers, the more.
    let asking = (0..5).map(|_| {
        let before = read_so_far(&server);
        sweeps(&server);
        read_so_far(&server) - before
    });
    let one_question = asking.min().unwrap();
    let (begun, before) = (sweeps(&server), read_so_far(&server));
    let mut questions = 0;
    within(PATIENCE, "it is swept again", || {
        questions += 1;
        sweeps(&server) > begun + 5
    });
    let read = read_so_far(&server) - before - questions * one_question;
    // What is read otherwise: directories, and the table of mounts.
    assert!(read < old.len() as u64 / 2, "{read} bytes in five sweeps");
}

#[test]
fn a_kept_dictionary_that_changes_is_looked_at_again() {
    let site = compressed();
    let server = serve(&site, &["--immutable", "auto"]);
    let kept = site.path(format!(".etagd/dictionaries/{}", sha256(&bundle(0))));
    fs::write(&kept, bundle(5)).unwrap();
    server.signal(Signal::HUP);
    within(PATIENCE, "the delta is not used", || {
        coding(&get(&mut server.client(), ACCEPTED, &bundle(0))) == "br"
    });
    let log = server.log();
    assert!(
        log.contains("does not have the SHA-256 that is its name"),
        "{log}"
    );
    // A replica that starts now says the same.
    assert_eq!(
        digest_of(&serve(&site, &["--immutable", "auto"])),
        digest_of(&server)
    );
    fs::write(&kept, bundle(0)).unwrap();
    server.signal(Signal::HUP);
    within(PATIENCE, "the delta is used again", || {
        coding(&get(&mut server.client(), ACCEPTED, &bundle(0))) == "dcb"
    });
}

/// What an earlier process has proven with a dictionary says nothing of the file that is in its place
/// now: replicas that start at different times would disagree.
#[test]
fn a_restart_reads_a_kept_dictionary_again() {
    let site = compressed();
    let state = site.outside("state");
    let flags = ["--immutable", "auto", "--state", state.to_str().unwrap()];
    let first = serve(&site, &flags);
    let proven = digest_of(&first);
    eventually("the manifest is saved", || state.exists());
    drop(first);
    let kept = site.path(format!(".etagd/dictionaries/{}", sha256(&bundle(0))));
    fs::write(&kept, bundle(5)).unwrap();
    let restarted = serve(&site, &flags);
    let fresh = serve(&site, &["--immutable", "auto"]);
    assert_eq!(digest_of(&restarted), digest_of(&fresh));
    assert_ne!(digest_of(&restarted), proven);
    let response = get(&mut restarted.client(), ACCEPTED, &bundle(0));
    assert_eq!(coding(&response), "br");
    let log = restarted.log();
    assert!(
        log.contains("does not have the SHA-256 that is its name"),
        "{log}"
    );
}

/// The most memory that a server has had after its start, in bytes, for a site with so many deltas, each
/// with a dictionary of this length.
fn peak_with_dictionaries(count: usize, length: usize) -> usize {
    let mut site = TestSite::new();
    for number in 0..count {
        let dictionary = vec![0; length + number];
        let content = format!("export const v = {number};\n").repeat(20);
        let file = format!("app{number}-1a1b1c1d.js");
        let kept = format!(".etagd/dictionaries/{}", sha256(&dictionary));
        let delta = zstd_delta(&dictionary, content.as_bytes());
        site = site
            .file(format!("{file}.{}.dcz", &kept[20..36]), delta)
            .file(kept, &dictionary)
            .file(file, content);
    }
    let mut program = command(env!("CARGO_BIN_EXE_etagd"));
    program.env("RAYON_NUM_THREADS", count.to_string());
    let server = Server::run(program, &site.root(), &["--immutable", "auto"]);
    assert!(!server.log().contains("not used"), "{}", server.log());
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.unwrap().trim().strip_suffix(" kB").unwrap();
    peak.parse::<usize>().unwrap() << 10
}

/// Dictionaries are in memory while they prove something: long ones one after the other.
#[test]
fn long_dictionaries_are_in_memory_one_at_a_time() {
    const LENGTH: usize = 5 << 20;
    let (one, many) = (
        peak_with_dictionaries(1, LENGTH),
        peak_with_dictionaries(6, LENGTH),
    );
    assert!(
        many < one + 2 * LENGTH,
        "{one} bytes with one, {many} with six"
    );
}

#[test]
fn the_older_file_itself_proves_a_delta_while_it_is_there() {
    let site = compressed();
    fs::remove_dir_all(site.path(".etagd")).unwrap();
    fs::write(site.path(OLD), bundle(0)).unwrap();
    let server = serve(&site, &["--immutable", "auto"]);
    let with_both = digest_of(&server);
    let mut client = server.client();
    assert_eq!(coding(&get(&mut client, ACCEPTED, &bundle(0))), "dcb");
    // A replica that starts now could not prove it: so this one may not use it any longer.
    fs::remove_file(site.path(OLD)).unwrap();
    eventually("the delta is gone", || {
        coding(&get(&mut client, ACCEPTED, &bundle(0))) == "br"
    });
    assert_ne!(digest_of(&server), with_both);
    let fresh = serve(&site, &["--immutable", "auto"]);
    assert_eq!(digest_of(&fresh), digest_of(&server));
}

#[test]
fn a_delta_that_arrives_later_is_used() {
    let site = compressed();
    let bytes = fs::read(site.path(delta("dcb"))).unwrap();
    for extension in ["dcb", "dcz"] {
        fs::remove_file(site.path(delta(extension))).unwrap();
    }
    let server = serve(&site, &["--immutable", "auto"]);
    let mut client = server.client();
    assert_eq!(coding(&get(&mut client, ACCEPTED, &bundle(0))), "br");
    fs::write(site.path(delta("dcb")), bytes).unwrap();
    eventually("the delta is sent", || {
        coding(&get(&mut client, ACCEPTED, &bundle(0))) == "dcb"
    });
}

#[test]
fn a_family_is_advertised_as_long_as_it_has_four_members() {
    let site = TestSite::new();
    for number in 0..4 {
        fs::write(site.path(format!("a-0{number}0a0b0c.js")), bundle(number)).unwrap();
    }
    let server = serve(&site, &["--immutable", "auto"]);
    let mut client = server.client();
    let mut is_dictionary = |path: &str| {
        let response = client.get(path);
        response.field("use-as-dictionary").map(str::to_owned)
    };
    let pattern = Some(r#"match="/a-*.js""#.to_owned());
    assert_eq!(is_dictionary("/a-000a0b0c.js"), pattern);
    fs::write(site.path("a-040a0b0c.js"), bundle(4)).unwrap();
    eventually("it is too large", || {
        is_dictionary("/a-000a0b0c.js").is_none()
    });
    fs::remove_file(site.path("a-010a0b0c.js")).unwrap();
    eventually("it is small enough again", || {
        is_dictionary("/a-040a0b0c.js") == pattern
    });
}

/// RFC 9842 section 2.1.1: the value is a URL Pattern, in which some characters have a meaning, and it
/// is a string, in which a backslash has one.
#[test]
fn a_pattern_matches_its_family_and_nothing_else() {
    // A family, as a URL has it, its pattern in the field, and what would match without the escapes.
    let families = [
        ("a(1)", "a(1)", r"a\\(1\\)", "a1"),
        ("b+c", "b+c", r"b\\+c", "bbc"),
        ("d*e", "d*e", r"d\\*e", "dxe"),
        ("f:g", "f:g", r"f{\\:}g", "f7"),
        ("h{i}", "h%7Bi%7D", r"h%7Bi%7D", "hi"),
        ("j?", "j%3F", r"j%3F", ""),
        ("k l", "k%20l", r"k%20l", "kl"),
        ("\u{e9}", "%C3%A9", r"%C3%A9", "e"),
    ];
    let page = "<!doctype html><title>patterns</title>";
    let site = TestSite::new().file("index.html", page);
    let numbered = families.iter().enumerate();
    let site = numbered.fold(site, |site, (number, (family, ..))| {
        let (old, new) = (script(2 * number), script(2 * number + 1));
        let file = format!("{family}-1a1b1c1d.js");
        site.file(format!("{family}-0a0b0c0d.js"), &old)
            .file(delta_name(&file, &old), zstd_delta(&old, &new))
            .file(file, new)
    });
    // A browser keeps the last one that it got: that is to be the old one, however often it asks.
    let flags = ["--immutable", "auto", "--dictionary", "/*-0a0b0c0d.js"];
    let server = serve(&site, &flags);
    let mut tests = Vec::new();
    for (_, url, pattern, decoy) in families {
        let response = server.client().get(&format!("/{url}-0a0b0c0d.js"));
        let value = response.field("use-as-dictionary").unwrap();
        assert_eq!(value, format!(r#"match="/{pattern}-*.js""#), "{url}");
        let pattern = format!("/{pattern}-*.js").replace(r"\\", r"\");
        for (_, other, ..) in families {
            let target = format!("/{other}-1a1b1c1d.js");
            tests.push((pattern.clone(), target, other == url));
        }
        tests.push((pattern.clone(), format!("/{decoy}-1a1b1c1d.js"), false));
        tests.push((pattern, format!("/{url}-1a1b1c1d.css"), false));
    }
    let Some(browser) = Browser::start() else {
        return;
    };
    let page = browser.open(&format!("http://localhost:{}/", server.port()));
    let script = format!(
        "{}.map(([pattern, url]) =>
            new URLPattern(pattern, location.href).test(location.origin + url))",
        serde_json::to_string(&tests).unwrap()
    );
    let found = page.value(&script);
    let found = found
        .as_array()
        .unwrap_or_else(|| panic!("{found} {:?}", page.errors()));
    assert_eq!(found.len(), tests.len());
    for (test, found) in tests.iter().zip(found) {
        assert_eq!(*found, test.2, "{test:?}");
    }
    // And what browsers keep for deltas is matched as URLs are by scripts.
    let urls = families.map(|(_, url, ..)| url);
    let codings = |hash: &str| {
        let script = format!(
            "Promise.all({}.map(async family => {{
                const answer = await fetch(`/${{family}}-{hash}.js?${{Math.random()}}`);
                await answer.arrayBuffer();
                return answer.headers.get('content-encoding');
            }}))",
            serde_json::to_string(&urls).unwrap()
        );
        page.value(&script)
    };
    codings("0a0b0c0d");
    within(PATIENCE, "all dictionaries are kept", || {
        codings("1a1b1c1d") == serde_json::json!(urls.map(|_| "dcz"))
    });
}

#[test]
fn dictionaries_are_chosen_by_hand_or_by_a_rule_or_not_at_all() {
    let site = compressed();
    let value = |flags: &[&str], path: &str| {
        let server = serve(&site, flags);
        let response = get(&mut server.client(), ACCEPTED, &bundle(0));
        let coding = coding(&response).to_owned();
        let response = server.client().get(path);
        (
            coding,
            response.field("use-as-dictionary").map(str::to_owned),
        )
    };
    let path = format!("/{NEW}");
    let pattern = Some(r#"match="/assets/app-*.js""#.to_owned());
    // Without --immutable nothing is fresh, so that no browser would offer it.
    assert_eq!(value(&[], &path), ("dcb".to_owned(), None));
    let chosen = ["--dictionary", "/assets/app-*.js"];
    assert_eq!(value(&chosen, &path), ("dcb".to_owned(), pattern));
    assert_eq!(value(&chosen, "/index.html").1, None);
    let off = ["--immutable", "auto", "--dictionary", "off"];
    assert_eq!(value(&off, &path), ("br".to_owned(), None));
    fs::write(
        site.path("_headers"),
        "/assets/*\n  Use-As-Dictionary: match=\"/x/*\"\n/assets/same-*\n  ! Use-As-Dictionary\n",
    )
    .unwrap();
    let auto = ["--immutable", "auto"];
    assert_eq!(value(&auto, &path).1.as_deref(), Some(r#"match="/x/*""#));
    assert_eq!(value(&auto, "/assets/gone.js").1, None, "an error");
    let digest = |flags: &[&str]| digest_of(&serve(&site, flags));
    assert_ne!(digest(&off), digest(&auto), "it is part of the digest");
}

#[test]
fn deltas_need_a_secure_context() {
    let site = compressed();
    let server = serve(
        &site,
        &["--immutable", "auto", "--trusted-proxy", "127.0.0.1"],
    );
    let dictionary = field(&bundle(0));
    let ask = |host: &str, proto: &str| {
        let request = format!(
            "GET /{NEW} HTTP/1.1\r\nHost: {host}\r\nAccept-Encoding: br, dcb\r\n\
             Available-Dictionary: {dictionary}\r\nX-Forwarded-Proto: {proto}\r\n\r\n"
        );
        let mut client = server.client();
        client.send(request).unwrap();
        let response = client.receive("GET").unwrap().unwrap();
        coding(&response).to_owned()
    };
    assert_eq!(ask("www.example", "https"), "dcb");
    assert_eq!(ask("www.example", "http"), "br");
    assert_eq!(ask("localhost", "http"), "dcb");
}

/// Anybody can write `Host: localhost`; who asks from elsewhere is not on the own machine.
#[test]
fn a_client_elsewhere_that_asks_for_localhost_gets_no_delta() {
    let site = compressed();
    let proxied = serve(
        &site,
        &["--immutable", "auto", "--trusted-proxy", "127.0.0.1"],
    );
    let behind_header = [
        "--immutable",
        "auto",
        "--trusted-proxy",
        "127.0.0.1",
        "--proxy-protocol",
    ];
    let behind_header = serve(&site, &behind_header);
    let dictionary = field(&bundle(0));
    let ask = |server: &Server, before: &str, fields: &str| {
        let request = format!(
            "{before}GET /{NEW} HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: br, dcb\r\n\
             Available-Dictionary: {dictionary}\r\n{fields}\r\n"
        );
        let mut client = server.client();
        client.send(request).unwrap();
        let response = client.receive("GET").unwrap().unwrap();
        coding(&response).to_owned()
    };
    let from = |address: &str| format!("PROXY TCP4 {address} 192.0.2.1 4711 80\r\n");
    assert_eq!(ask(&proxied, "", "X-Forwarded-For: 192.0.2.9\r\n"), "br");
    assert_eq!(ask(&proxied, "", "X-Forwarded-For: 127.0.0.1\r\n"), "dcb");
    let both = "X-Forwarded-For: 192.0.2.9\r\nX-Forwarded-Proto: https\r\n";
    assert_eq!(ask(&proxied, "", both), "dcb");
    assert_eq!(ask(&behind_header, &from("192.0.2.9"), ""), "br");
    assert_eq!(ask(&behind_header, &from("127.0.0.9"), ""), "dcb");
}

/// To a host that is not the own machine: TLS alone, and no page of another site that can't read it.
#[test]
fn deltas_need_a_secure_context_over_every_transport() {
    let site = compressed();
    let transports = Transports::serve(&site, &["--immutable", "auto"]).named("www.example");
    let target = format!("/{NEW}");
    let field = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
    let own = vec![
        field("accept-encoding", "br, dcb"),
        field("available-dictionary", &self::field(&bundle(0))),
    ];
    let mut foreign = own.clone();
    foreign.extend([
        field("sec-fetch-mode", "no-cors"),
        field("sec-fetch-site", "cross-site"),
    ]);
    for transport in Transport::ALL {
        let expected = if transport.is_secure() { "dcb" } else { "br" };
        for (fields, expected) in [(&own, expected), (&foreign, "br")] {
            let asked = ("GET", target.as_bytes(), &fields[..]);
            let responses = transports.exchange(transport, &[asked]).unwrap();
            let response = responses[0].as_ref().unwrap();
            assert_eq!(coding(response), expected, "{transport:?}");
            let vary = response.field("vary");
            assert_eq!(vary, Some("accept-encoding, available-dictionary"));
        }
    }
}

/// RFC 9842 section 9.3.3: a page of another origin gets a delta of what it may read all of.
#[test]
fn a_page_of_another_origin_gets_the_deltas_that_a_rule_lets_it_read() {
    let (old, new) = (script(0), script(1));
    let rules = "/any-*\n  Access-Control-Allow-Origin: *\n\
                 /one-*\n  Access-Control-Allow-Origin: https://a.example\n";
    let site = TestSite::with(&[("_headers", rules.as_bytes())]);
    let site = ["any", "one", "none"].iter().fold(site, |site, family| {
        let file = format!("{family}-1a1b1c1d.js");
        site.file(delta_name(&file, &old), zstd_delta(&old, &new))
            .file(file, &new)
            .file(format!("{family}-0a0b0c0d.js"), &old)
    });
    let server = serve(&site, &["--immutable", "auto"]);
    let dictionary = field(&old);
    for (family, origin, mode, expected) in [
        ("any", "https://a.example", "cors", "dcz"),
        ("any", "https://a.example", "no-cors", "identity"),
        ("one", "https://a.example", "cors", "dcz"),
        ("one", "https://b.example", "cors", "identity"),
        ("none", "https://a.example", "cors", "identity"),
    ] {
        let fields = [
            ("Accept-Encoding", "dcz"),
            ("Available-Dictionary", dictionary.as_str()),
            ("Sec-Fetch-Site", "cross-site"),
            ("Sec-Fetch-Mode", mode),
            ("Origin", origin),
        ];
        let target = format!("/{family}-1a1b1c1d.js");
        let response = server.client().request("GET", &target, &fields);
        assert_eq!(coding(&response), expected, "{family}, {origin}, {mode}");
    }
}

/// What a request may be sent is decided when it comes, also where it is answered from a later state of
/// the site, and deltas are new in that.
#[test]
fn a_request_that_waits_gets_no_delta_without_a_secure_context() {
    let (old, new) = (long_bundle(0), long_bundle(1));
    // It may be that nothing had to wait, on a machine that was away for a second.
    for _ in 0..5 {
        let site = TestSite::with(&[(NEW, &old)]);
        let server = Server::with(&site, &["--settle", "700ms"]);
        fs::create_dir_all(site.path(".etagd/dictionaries")).unwrap();
        let kept = format!(".etagd/dictionaries/{}", sha256(&old));
        fs::write(site.path(kept), &old).unwrap();
        fs::write(site.path(delta_name(NEW, &old)), zstd_delta(&old, &new)).unwrap();
        overwrite_in_place(&site.path(NEW), &new);
        let dictionary = field(&old);
        let mut client = server.client();
        let request = format!(
            "GET /{NEW} HTTP/1.1\r\nHost: www.example\r\nAccept-Encoding: dcz\r\n\
             Available-Dictionary: {dictionary}\r\n\r\n"
        );
        client.send(request).unwrap();
        let response = client.receive("GET").unwrap().unwrap();
        if response.status == 503 {
            continue;
        }
        assert_eq!((response.status, coding(&response)), (200, "identity"));
        assert!(response.body == new);
        let response = get(&mut server.client(), "dcz", &old);
        assert_eq!(coding(&response), "dcz", "to the own machine");
        return;
    }
    panic!("503 each time");
}

/// RFC 9842 section 6.2, also where a rule names fields, and where a page stands in for what is missing.
#[test]
fn every_answer_that_may_be_a_delta_varies_on_the_dictionary() {
    let (old, new) = (script(0), script(1));
    let kept = format!(".etagd/dictionaries/{}", sha256(&old));
    let rules = "/named.js\n  Vary: Origin\n/any.js\n  Vary: *\n/gone\n  Vary: *\n";
    let names = ["index.html", "plain.js", "named.js", "any.js"];
    let site = TestSite::with(&[(&kept, &old), ("_headers", rules.as_bytes())]);
    let site = names.iter().fold(site, |site, name| {
        site.file(name, &new)
            .file(delta_name(name, &old), zstd_delta(&old, &new))
    });
    let server = serve(&site, &["--not-found", "single-page-application"]);
    let dictionary = field(&old);
    for (target, expected) in [
        ("/plain.js", "accept-encoding, available-dictionary"),
        ("/named.js", "accept-encoding, available-dictionary, Origin"),
        ("/any.js", "*"),
        ("/", "accept-encoding, available-dictionary"),
        (
            "/nowhere",
            "sec-fetch-mode, accept, accept-encoding, available-dictionary",
        ),
        ("/gone", "*"),
    ] {
        for (accepted, coding) in [("dcz", "dcz"), ("br", "identity")] {
            let fields = [
                ("Accept", "text/html"),
                ("Accept-Encoding", accepted),
                ("Available-Dictionary", dictionary.as_str()),
            ];
            let response = server.client().request("GET", target, &fields);
            assert_eq!(self::coding(&response), coding, "{target}");
            assert_eq!(response.field("vary"), Some(expected), "{target}");
        }
    }
    // A manifest says the same of what rules have named.
    let directory = site.root();
    let listed = etagd(["manifest", "--format", "json", directory.to_str().unwrap()]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    for vary in ["accept-encoding, available-dictionary, Origin", "*"] {
        assert!(listed.contains(&format!("\"vary\":\"{vary}\"")), "{listed}");
    }
    assert!(!listed.contains("*, "), "{listed}");
}

#[test]
fn a_developers_server_sends_no_deltas() {
    let site = compressed();
    let server = Developer::start(&site.root(), &["--immutable", "auto"]);
    let response = get(&mut server.client(), ACCEPTED, &bundle(0));
    assert_ne!(coding(&response), "dcb");
    assert_eq!(response.field("use-as-dictionary"), None);
}

#[test]
fn check_asks_a_replica_for_its_deltas() {
    let site = compressed();
    let server = serve(&site, &["--immutable", "auto"]);
    let url = format!("http://{}", server.address());
    let directory = site.root();
    let run = || {
        let directory = directory.to_str().unwrap();
        etagd([
            "check",
            "--dir",
            directory,
            "--immutable",
            "auto",
            "--public",
            "--body",
            &url,
        ])
    };
    let output = run();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let json = etagd([
        "manifest",
        "--immutable",
        "auto",
        "--format",
        "json",
        directory.to_str().unwrap(),
    ]);
    let json = String::from_utf8(json.stdout).unwrap();
    let hash = sha256(&bundle(0));
    assert!(
        json.contains(&format!(r#""coding":"dcb","dictionary":"{hash}""#)),
        "{json}"
    );
}

/// The writes in the log of a server, in their order.
fn writes(server: &Server) -> Vec<String> {
    let log = server.log();
    let lines = log
        .lines()
        .filter_map(|line| line.split_once(" by anybody "));
    lines.map(|(write, _)| write.to_owned()).collect()
}

#[test]
fn push_carries_dictionaries_and_takes_them_away() {
    let (local, remote) = (compressed(), TestSite::new());
    let server = serve(&remote, &["--writable", "--immutable", "auto"]);
    let push = |flags: &[&str]| {
        let (root, url) = (local.root(), format!("http://{}", server.address()));
        let output = etagd([&["push", root.to_str().unwrap(), &url], flags].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        (String::from_utf8(output.stdout).unwrap(), said)
    };
    let place = format!("/.etagd/dictionaries/{}", sha256(&bundle(0)));
    let (plan, _) = push(&["--dry-run"]);
    assert!(plan.starts_with(&format!("create\t{place}\n")), "{plan}");
    push(&[]);
    let log = writes(&server);
    assert!(log[0].ends_with(&format!("PUT {place}")), "{log:?}");
    assert!(!server.log().contains("not used"), "{}", server.log());
    assert!(content(&remote.root()) == content(&local.root()));
    assert_eq!(
        coding(&get(&mut server.client(), ACCEPTED, &bundle(0))),
        "dcb"
    );
    let (_, said) = push(&[]);
    assert!(said.contains("0 created, 0 replaced, 0 deleted"), "{said}");

    assert_eq!(compress(&local.root(), &["--remove"]).0, 0);
    let admin = format!("http://{}", server.admin());
    let delete = ["--delete", "--admin-url", &admin];
    let (plan, _) = push(&[&delete[..], &["--dry-run"]].concat());
    assert!(plan.contains(&format!("delete\t{place}\n")), "{plan}");
    push(&delete);
    eventually("what is empty is gone", || {
        content(&remote.root()) == content(&local.root()) && !remote.path(".etagd").exists()
    });
}

/// A push of this directory to that server, and what it prints and says.
fn push_to(server: &Server, local: &TestSite, flags: &[&str]) -> (i32, String) {
    let (root, url) = (local.root(), format!("http://{}", server.address()));
    let output = etagd([&["push", root.to_str().unwrap(), &url], flags].concat());
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.code().unwrap(), said)
}

/// What the server has may be the last copy.
#[test]
fn push_deletes_no_dictionary_that_the_directory_needs_and_has_lost() {
    let (local, remote) = (compressed(), TestSite::new());
    let server = serve(&remote, &["--writable", "--immutable", "auto"]);
    let (code, said) = push_to(&server, &local, &[]);
    assert_eq!(code, 0, "{said}");
    let digest = digest_of(&server);
    fs::remove_dir_all(local.path(".etagd")).unwrap();
    let admin = format!("http://{}", server.admin());
    let (code, said) = push_to(&server, &local, &["--delete", "--admin-url", &admin]);
    assert!(code == 0 && said.contains("0 deleted"), "{said}");
    assert_eq!(digest_of(&server), digest);
    let response = get(&mut server.client(), ACCEPTED, &bundle(0));
    assert_eq!(coding(&response), "dcb");

    // The older file itself stands for it.
    fs::write(local.path(OLD), bundle(0)).unwrap();
    let (code, said) = push_to(&server, &local, &["--delete", "--admin-url", &admin]);
    assert!(code == 0 && said.contains("1 deleted"), "{said}");
    assert!(!remote.path(".etagd").exists());
    assert_eq!(
        coding(&get(&mut server.client(), ACCEPTED, &bundle(0))),
        "dcb"
    );
}

/// Dictionaries are known by the deltas that name them.
#[test]
fn push_deletes_an_unused_dictionary_before_the_last_of_its_deltas() {
    let (local, remote) = (compressed(), TestSite::new());
    let server = serve(&remote, &["--writable", "--immutable", "auto"]);
    assert_eq!(push_to(&server, &local, &[]).0, 0);
    assert_eq!(compress(&local.root(), &["--remove"]).0, 0);
    let admin = format!("http://{}", server.admin());
    let (code, said) = push_to(&server, &local, &["--delete", "--admin-url", &admin]);
    assert_eq!(code, 0, "{said}");
    let log = writes(&server);
    let of = |path: &str| {
        let line = format!("DELETE /{path}");
        let found = log.iter().position(|write| write.ends_with(&line));
        found.unwrap_or_else(|| panic!("no {line} in {log:?}"))
    };
    let place = of(&format!(".etagd/dictionaries/{}", sha256(&bundle(0))));
    assert!(of(&delta("dcb")) < place, "{log:?}");
    assert!(place < of(&delta("dcz")), "{log:?}");
    let log = server.log();
    assert!(!log.contains("neither in the site"), "{log}");
    assert!(
        log.contains("1 delta is not used any more: its dictionary was deleted"),
        "{log}"
    );
}

/// What a server answers through this address is what `gate` lets through: it is asked about each write
/// whose precondition can hold, and where it refuses, the client is told that its request is bad.
fn behind(server: &Server, gate: impl Fn(&str) -> bool + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (address, gate) = (server.address(), Arc::new(gate));
    let pass_on = move |mut client: TcpStream, gate: &dyn Fn(&str) -> bool| -> io::Result<()> {
        let mut requests = BufReader::new(client.try_clone()?);
        let mut answers = BufReader::new(TcpStream::connect(address)?);
        while let Some(request) = Message::read(&mut requests, |_| true)? {
            let is_write = ["PUT ", "DELETE "]
                .iter()
                .any(|it| request.start.starts_with(it));
            // No content has the tag that is asked for to learn the real one.
            let is_question = request
                .field("If-Match")
                .is_some_and(|tag| tag.contains("00000000"));
            if is_write && !is_question && !gate(&request.start) {
                return client.write_all(b"HTTP/1.1 400 .\r\nContent-Length: 0\r\n\r\n");
            }
            request.write(answers.get_mut(), &request.body)?;
            let has_body = |head: &Message| {
                !request.start.starts_with("HEAD") && !matches!(head.status(), 204 | 304)
            };
            let Some(answer) = Message::read(&mut answers, has_body)? else {
                return Ok(());
            };
            answer.write(&mut client, &answer.body)?;
        }
        Ok(())
    };
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let gate = Arc::clone(&gate);
            thread::spawn(move || pass_on(client, &*gate));
        }
    });
    url
}

const LIBRARY: &str = "assets/lib-1a1b1c1d.js";

/// A site with deltas of these files against one dictionary, which it keeps.
fn with_deltas_of(files: &[&str]) -> TestSite {
    let kept = format!(".etagd/dictionaries/{}", sha256(&bundle(0)));
    let site = TestSite::with(&[(&kept, &bundle(0))]);
    files.iter().fold(site, |site, file| {
        let delta = delta_name(file, &bundle(0));
        let encoded = zstd_delta(&bundle(0), &bundle(1));
        site.file(file, bundle(1)).file(&delta, encoded)
    })
}

/// Whether it is killed or refused: no delta that stays has lost its dictionary, and no dictionary is
/// left that nothing names.
#[test]
fn wherever_a_push_ends_the_next_one_leaves_the_server_whole() {
    type Edit = fn(&TestSite);
    let remove_deltas: Edit = |local| {
        fs::remove_dir_all(local.path(".etagd")).unwrap();
        for file in [NEW, LIBRARY] {
            let _ = fs::remove_file(local.path(delta_name(file, &bundle(0))));
        }
    };
    // Then the delta is proven no longer before it goes.
    let replace_the_file: Edit = |local| {
        fs::remove_dir_all(local.path(".etagd")).unwrap();
        fs::remove_file(local.path(delta_name(NEW, &bundle(0)))).unwrap();
        fs::write(local.path(NEW), bundle(9)).unwrap();
    };
    let keep_one: Edit = |local| {
        fs::remove_file(local.path(delta_name(NEW, &bundle(0)))).unwrap();
    };
    let cases: [(&[&str], Edit, usize); 3] = [
        (&[NEW, LIBRARY], remove_deltas, 3),
        (&[NEW], replace_the_file, 3),
        (&[NEW, LIBRARY], keep_one, 1),
    ];
    for (files, edit, writes) in cases {
        for limit in 0..=writes {
            let (local, remote) = (with_deltas_of(files), TestSite::new());
            let server = serve(&remote, &["--writable", "--immutable", "auto"]);
            let (code, said) = push_to(&server, &local, &[]);
            assert_eq!(code, 0, "{said}");
            edit(&local);
            let done = AtomicUsize::new(0);
            let gate = move |_: &str| done.fetch_add(1, Ordering::SeqCst) < limit;
            let (admin, root) = (format!("http://{}", server.admin()), local.root());
            let root = root.to_str().unwrap();
            let flags = ["--delete", "--admin-url", &admin];
            let ended = etagd([&["push", root, &behind(&server, gate)], &flags[..]].concat());
            let is_done = ended.status.success();
            assert_eq!(is_done, limit == writes, "after {limit} writes: {ended:?}");
            if local.path(".etagd").exists() {
                let response = get_library(&server);
                assert_eq!(coding(&response), "dcz", "after {limit} writes");
            }
            let (code, said) = push_to(&server, &local, &flags);
            assert_eq!(code, 0, "after {limit} writes: {said}");
            eventually("what is empty is gone", || {
                content(&remote.root()) == content(&local.root())
            });
        }
    }
}

fn get_library(server: &Server) -> Response {
    let dictionary = field(&bundle(0));
    let fields = [
        ("Accept-Encoding", "dcz"),
        ("Available-Dictionary", &*dictionary),
    ];
    let path = format!("/{LIBRARY}");
    server.client().request("GET", &path, &fields)
}

/// Somebody else changes a delta between the look at it and its deletion.
#[test]
fn a_delta_that_changes_before_it_is_deleted_keeps_its_dictionary() {
    for changed in [NEW, LIBRARY] {
        let (local, remote) = (with_deltas_of(&[NEW, LIBRARY]), TestSite::new());
        let server = serve(&remote, &["--writable", "--immutable", "auto"]);
        assert_eq!(push_to(&server, &local, &[]).0, 0);
        fs::remove_dir_all(local.path(".etagd")).unwrap();
        for file in [NEW, LIBRARY] {
            fs::remove_file(local.path(delta_name(file, &bundle(0)))).unwrap();
        }
        // Other bytes, by which the file is decoded too.
        let other = zstd_delta_at(9, &bundle(0), &bundle(1));
        let (place, address) = (
            remote.path(delta_name(changed, &bundle(0))),
            server.address(),
        );
        let path = format!("/{}", delta_name(changed, &bundle(0)));
        let is_changed = AtomicBool::new(false);
        let gate = move |start: &str| {
            if start.starts_with("DELETE") && !is_changed.swap(true, Ordering::SeqCst) {
                let draft = place.with_file_name(".draft");
                fs::write(&draft, &other).unwrap();
                fs::rename(draft, &place).unwrap();
                within(PATIENCE, "the other delta is served", || {
                    let response = Client::connect(address).request("HEAD", &path, &[]);
                    response.field("ETag") == Some(&tag(&other))
                });
            }
            true
        };
        let (admin, root) = (format!("http://{}", server.admin()), local.root());
        let root = root.to_str().unwrap();
        let flags = ["--delete", "--admin-url", &admin];
        let ended = etagd([&["push", root, &behind(&server, gate)], &flags[..]].concat());
        let said = String::from_utf8(ended.stdout).unwrap();
        assert_eq!(ended.status.code(), Some(1), "{said}");
        assert!(
            said.contains(&format!("conflict\t/{}", delta_name(changed, &bundle(0)))),
            "{said}"
        );
        let kept = remote.path(format!(".etagd/dictionaries/{}", sha256(&bundle(0))));
        assert!(kept.exists(), "{said}");
        assert_eq!(coding(&get_library(&server)), "dcz");
        // Who pushes again means what is there now.
        let (code, said) = push_to(&server, &local, &flags);
        assert_eq!(code, 0, "{said}");
        eventually("what is empty is gone", || {
            content(&remote.root()) == content(&local.root())
        });
    }
}

/// A delta that somebody else has changed is not deleted, nor is what it needs.
#[test]
fn push_keeps_the_dictionary_of_a_delta_that_it_may_not_delete() {
    let (local, remote) = (compressed(), TestSite::new());
    let server = serve(&remote, &["--writable", "--immutable", "auto"]);
    let bare = new();
    assert_eq!(push_to(&server, &bare, &[]).0, 0);
    let base = local.outside("base.json");
    let json = etagd([
        "manifest",
        "--format",
        "json",
        bare.root().to_str().unwrap(),
    ]);
    fs::write(&base, json.stdout).unwrap();
    assert_eq!(push_to(&server, &local, &[]).0, 0);
    let admin = format!("http://{}", server.admin());
    let base = base.to_str().unwrap();
    let flags = ["--delete", "--admin-url", &admin, "--base", base];
    let (code, said) = push_to(&server, &bare, &flags);
    assert!(code == 1 && said.contains("conflict"), "{code} {said}");
    let response = get(&mut server.client(), ACCEPTED, &bundle(0));
    assert_eq!(coding(&response), "dcb");
    // Once that is settled, nothing of them is left.
    let (code, said) = push_to(&server, &bare, &["--delete", "--admin-url", &admin]);
    assert_eq!(code, 0, "{said}");
    eventually("what is empty is gone", || {
        content(&remote.root()) == content(&bare.root())
    });
}

/// A dictionary that is none is named, and holds up nothing but itself.
#[test]
fn push_sends_all_but_a_bad_dictionary() {
    type Damage<'d> = (&'d dyn Fn(&Path), &'d str);
    let damages: [Damage<'_>; 3] = [
        (
            &|kept| fs::write(kept, bundle(5)).unwrap(),
            "it does not have the SHA-256 that is its name",
        ),
        (
            &|kept| {
                fs::remove_file(kept).unwrap();
                fs::create_dir(kept).unwrap();
            },
            "not a regular file",
        ),
        (
            &|kept| {
                let real = kept.with_extension("real");
                fs::rename(kept, &real).unwrap();
                symlink(&real, kept).unwrap();
            },
            "it is behind a symbolic link",
        ),
    ];
    for (damage, reason) in damages {
        let (local, remote) = (compressed(), TestSite::new());
        let name = format!(".etagd/dictionaries/{}", sha256(&bundle(0)));
        damage(&local.path(&name));
        let server = serve(&remote, &["--writable", "--immutable", "auto"]);
        let line = format!("failed\t/{name}\tnot sent: {reason}");
        let (code, said) = push_to(&server, &local, &["--dry-run"]);
        assert!(code == 1 && said.contains(&line), "{code} {said}");
        let (code, said) = push_to(&server, &local, &[]);
        assert!(code == 1 && said.contains(&line), "{code} {said}");
        assert!(!said.contains("left for the next run"), "{said}");
        fs::remove_dir_all(local.path(".etagd")).unwrap();
        assert!(content(&remote.root()) == content(&local.root()), "{said}");
    }
}

/// The older file itself proves the deltas, here and there.
#[test]
fn push_says_nothing_of_a_bad_dictionary_that_nothing_needs() {
    let (local, remote) = (with_deltas_of(&[NEW]), TestSite::new());
    let local = local.file(OLD, bundle(0));
    let kept = local.path(format!(".etagd/dictionaries/{}", sha256(&bundle(0))));
    fs::write(&kept, bundle(5)).unwrap();
    let server = serve(&remote, &["--writable", "--immutable", "auto"]);
    for _ in 0..2 {
        let (code, said) = push_to(&server, &local, &[]);
        assert!(code == 0 && !said.contains("failed"), "{said}");
    }
    fs::remove_dir_all(local.path(".etagd")).unwrap();
    assert!(content(&remote.root()) == content(&local.root()));
    let response = get(&mut server.client(), "dcz", &bundle(0));
    assert_eq!(coding(&response), "dcz");
}

#[test]
fn push_goes_on_without_a_dictionary_that_it_may_not_read() {
    let Some(mut program) = unprivileged() else {
        return;
    };
    let (local, remote) = (compressed(), TestSite::new());
    let kept = local.path(format!(".etagd/dictionaries/{}", sha256(&bundle(0))));
    fs::set_permissions(&kept, Permissions::from_mode(0o000)).unwrap();
    let server = serve(&remote, &["--writable", "--immutable", "auto"]);
    let url = format!("http://{}", server.address());
    let push = program.args(["push", local.root().to_str().unwrap(), &url]);
    let output = push.output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("not sent: Permission denied"), "{said}");
    fs::remove_dir_all(local.path(".etagd")).unwrap();
    assert!(content(&remote.root()) == content(&local.root()), "{said}");
}

/// A dictionary that a client writes or deletes is noticed at once, though nothing reports it.
#[test]
fn a_written_dictionary_has_its_deltas_used() {
    let site = compressed();
    fs::remove_dir_all(site.path(".etagd")).unwrap();
    let server = serve(
        &site,
        &["--writable", "--immutable", "auto", "--sweep", "1h"],
    );
    let write = |method: &str, condition: &str, content: &[u8]| {
        let head = format!(
            "{method} /.etagd/dictionaries/{} HTTP/1.1\r\nHost: localhost\r\n{condition}\r\n\
             Content-Length: {}\r\n\r\n",
            sha256(&bundle(0)),
            content.len()
        );
        let mut client = server.client();
        client.send([head.as_bytes(), content].concat()).unwrap();
        client.receive(method).unwrap().unwrap().status
    };
    let mut client = server.client();
    assert_eq!(coding(&get(&mut client, ACCEPTED, &bundle(0))), "br");
    let without = digest_of(&server);
    assert_eq!(write("PUT", "If-None-Match: *", &bundle(0)), 201);
    assert_eq!(coding(&get(&mut client, ACCEPTED, &bundle(0))), "dcb");
    assert_eq!(
        write("DELETE", &format!("If-Match: {}", tag(&bundle(0))), b""),
        204
    );
    assert_eq!(coding(&get(&mut client, ACCEPTED, &bundle(0))), "br");
    assert_eq!(digest_of(&server), without);
}

/// What is proven below one directory is proven below the one that replaces it.
#[test]
fn deltas_outlast_a_switch_of_the_root() {
    let releases = [compressed(), compressed()];
    let current = releases[0].outside("current");
    symlink(releases[0].root(), &current).unwrap();
    let server = Server::at(&current, &["--immutable", "auto", "--settle", "10ms"]);
    relink(&current, releases[1].root());
    server.wait_for_line("the site is now in");
    let mut client = server.client();
    for dictionary in [bundle(0), bundle(0)] {
        eventually("the delta is sent", || {
            coding(&get(&mut client, ACCEPTED, &dictionary)) == "dcb"
        });
        fs::remove_dir_all(releases[0].root()).unwrap_or_default();
    }
    server.wait_until_it_serves_with(&releases[1].root(), &["--immutable", "auto"]);
}

/// What the manual's figures can be repeated with.
#[test]
fn the_script_prints_what_deltas_save() {
    let (old, new) = (scripts(0), scripts(1));
    let before = [&old, &new].map(|site| content(&site.root()));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/dictionary.sh");
    let output = Command::new(script)
        .args([old.root(), new.root()])
        .arg(env!("CARGO_BIN_EXE_etagd"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(before == [&old, &new].map(|site| content(&site.root())));

    let (code, said) = compress(&new.root(), &["--against", old.root().to_str().unwrap()]);
    assert_eq!(code, 0, "{said}");
    let files = content(&new.root());
    let length_of = |prefix: &str, extension: &str| {
        let mut found = files.iter().filter(|(path, _)| {
            path.starts_with(prefix) && path.ends_with(&format!(".{extension}"))
        });
        found.next().unwrap().1.len()
    };
    let mut expected = Vec::new();
    let mut sums = [0; 4];
    for family in FAMILIES {
        let name = format!("{family}-1a0b0c0d.js");
        let columns = ["js", "br", "dcz", "dcb"].map(|extension| length_of(&name, extension));
        for (sum, column) in sums.iter_mut().zip(columns) {
            *sum += column;
        }
        expected.push((name, columns));
    }
    expected.push(("sum".to_owned(), sums));
    let table = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Vec<&str>> = table
        .lines()
        .map(|it| it.split_whitespace().collect())
        .collect();
    assert_eq!(lines[0], ["file", "raw", "br", "dcz", "dcb"]);
    for (line, (name, columns)) in lines[1..].iter().zip(&expected) {
        let columns = columns.map(|column| column.to_string());
        assert_eq!(line[0], name, "{table}");
        assert_eq!(line[1..], columns, "{table}");
    }
    assert_eq!(lines.len(), expected.len() + 2, "{table}");
    let seconds = &lines[lines.len() - 1];
    assert_eq!(seconds[..2], ["CPU", "seconds:"], "{table}");
    for at in [2, seconds.len() - 5] {
        assert!(seconds[at].parse::<f64>().is_ok(), "{table}");
    }
}

/// Files of three packages in two releases, as a bundler that copies them would name them.
const PACKAGES: [(&str, [&str; 2], &str); 3] = [
    ("preact", ["10.24.2", "10.24.3"], "dist/preact.module.js"),
    ("alpinejs", ["3.14.1", "3.14.3"], "dist/cdn.min.js"),
    ("htmx.org", ["2.0.3", "2.0.4"], "dist/htmx.min.js"),
];

/// The files of a release by their names below `/assets/`.
type Release = Vec<(String, Vec<u8>)>;

/// Both releases. None where npm or its registry can't be had.
fn packages() -> Option<[Release; 2]> {
    let dir = tempfile::tempdir().unwrap();
    let mut releases = [Vec::new(), Vec::new()];
    for (name, versions, file) in PACKAGES {
        for (release, version) in releases.iter_mut().zip(versions) {
            let package = format!("{name}@{version}");
            let packed = Command::new("npm")
                .args(["pack", "--silent", &package])
                .current_dir(dir.path())
                .output();
            let problem = match &packed {
                Ok(packed) if packed.status.success() => None,
                Ok(packed) => Some(String::from_utf8_lossy(&packed.stderr).into_owned()),
                Err(error) => Some(error.to_string()),
            };
            if let Some(problem) = problem {
                assert!(
                    std::env::var_os("ETAGD_NO_SKIP").is_none(),
                    "npm: {problem}"
                );
                #[allow(clippy::print_stderr)]
                {
                    eprintln!("skipped: no {package}: {problem}");
                }
                return None;
            }
            let archive = dir.path().join(format!("{name}-{version}.tgz"));
            let content = Command::new("tar")
                .args([
                    "-xzOf",
                    archive.to_str().unwrap(),
                    &format!("package/{file}"),
                ])
                .output()
                .unwrap();
            assert!(content.status.success(), "{package} has no {file}");
            // Hex with a digit and a letter, whatever the hash is.
            let hash = &blake3::hash(&content.stdout).to_hex()[..6];
            release.push((format!("{name}-0a{hash}b1.js"), content.stdout));
        }
    }
    Some(releases)
}

/// What a page says of one load.
#[derive(Debug)]
struct Load {
    /// Bytes on the wire.
    transferred: u64,
    /// Bytes of the body, as it was sent.
    encoded: u64,
    coding: String,
    sha256: String,
}

fn load(page: &Page<'_>, names: &[String]) -> Vec<Load> {
    let script = format!(
        "(async () => {{
            const all = [];
            for (const name of {}) {{
                performance.clearResourceTimings();
                const answer = await fetch('/assets/' + name);
                const body = await answer.arrayBuffer();
                const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', body));
                const [timing] = performance.getEntriesByType('resource');
                const hex = [...hash].map(byte => byte.toString(16).padStart(2, '0')).join('');
                const coding = answer.headers.get('content-encoding');
                all.push([timing.transferSize, timing.encodedBodySize, coding, hex]);
            }}
            return all;
        }})()",
        serde_json::to_string(names).unwrap()
    );
    let value = page.value(&script);
    let rows = value
        .as_array()
        .unwrap_or_else(|| panic!("{value} {:?}", page.errors()));
    rows.iter()
        .map(|row| {
            let number = |at: usize| row[at].as_u64().unwrap();
            let text = |at: usize| row[at].as_str().unwrap_or_default().to_owned();
            Load {
                transferred: number(0),
                encoded: number(1),
                coding: text(2),
                sha256: text(3),
            }
        })
        .collect()
}

/// A browser that has loaded the first release loads the second.
fn browse(browser: &Browser, site: &TestSite, url: &str, releases: &[Release; 2]) {
    let names = releases.each_ref().map(|release| {
        release
            .iter()
            .map(|(name, _)| name.clone())
            .collect::<Vec<_>>()
    });
    let load_all = |page: &Page<'_>, release: usize| {
        let loads = load(page, &names[release]);
        for (load, (name, content)) in loads.iter().zip(&releases[release]) {
            assert_eq!(load.sha256, sha256(content), "{name}: {loads:?}");
        }
        loads
    };
    load_all(&browser.open(url), 0);

    let old = TestSite::new().dir("assets");
    for (name, content) in &releases[0] {
        fs::write(old.path(format!("assets/{name}")), content).unwrap();
    }
    for (name, content) in &releases[1] {
        fs::write(site.path(format!("assets/{name}")), content).unwrap();
    }
    for (name, _) in &releases[0] {
        fs::remove_file(site.path(format!("assets/{name}"))).unwrap();
    }
    let (code, said) = compress(&site.root(), &["--against", old.root().to_str().unwrap()]);
    assert_eq!(code, 0, "{said}");
    // The shortest is sent; that one file has no other shows that both can be decoded.
    let dictionary = &sha256(&releases[0][0].1)[..16];
    fs::remove_file(site.path(format!("assets/{}.{dictionary}.dcb", names[1][0]))).unwrap();
    let plain: u64 = names[1]
        .iter()
        .map(|name| {
            fs::metadata(site.path(format!("assets/{name}.br")))
                .unwrap()
                .len()
        })
        .sum();
    let page = browser.open(url);
    within(PATIENCE, "all deltas are published", || {
        let script = "fetch('/assets/NAME', {method: 'HEAD', cache: 'no-store'})
            .then(answer => answer.headers.get('vary'))";
        names[1].iter().all(|name| {
            let vary = page.value(&script.replace("NAME", name));
            vary.as_str()
                .is_some_and(|vary| vary.contains("available-dictionary"))
        })
    });
    let second = load_all(&page, 1);
    let codings: Vec<_> = second.iter().map(|load| load.coding.as_str()).collect();
    assert_eq!(codings, ["dcz", "dcb", "dcb"]);
    let encoded: u64 = second.iter().map(|load| load.encoded).sum();
    assert!(
        encoded * 4 <= plain,
        "{encoded} of {plain} bytes: {second:?}"
    );
    let third = load_all(&browser.open(url), 1);
    assert!(third.iter().all(|load| load.transferred == 0), "{third:?}");
}

fn release(files: &[(String, Vec<u8>)]) -> TestSite {
    let site =
        TestSite::with(&[("index.html", b"<!doctype html><title>a site</title>")]).dir("assets");
    for (name, content) in files {
        fs::write(site.path(format!("assets/{name}")), content).unwrap();
    }
    site
}

#[test]
fn chromium_loads_a_release_as_deltas_from_localhost() {
    let Some(releases) = packages() else { return };
    let Some(browser) = Browser::start() else {
        return;
    };
    let site = release(&releases[0]);
    let server = serve(&site, &["--immutable", "auto"]);
    let url = format!("http://localhost:{}/", server.port());
    browse(&browser, &site, &url, &releases);
}

#[test]
fn chromium_loads_a_release_as_deltas_over_tls() {
    let Some(releases) = packages() else { return };
    let authority = Authority::new();
    let (_, key) = authority.issue_for("app.test");
    let key = BASE64_STANDARD.encode(Sha256::digest(&key));
    // `--ignore-certificate-errors` would switch the cache off altogether.
    let Some(browser) = Browser::with(&[
        &format!("--ignore-certificate-errors-spki-list={key}"),
        "--disable-features=CompressionDictionaryTransportRequireKnownRootCert",
        "--host-resolver-rules=MAP app.test 127.0.0.1",
    ]) else {
        return;
    };
    let site = release(&releases[0]);
    let server = authority.serve(&site, &["--immutable", "auto", "--settle", "10ms"]);
    let url = format!("https://app.test:{}/", secure_address(&server).port());
    browse(&browser, &site, &url, &releases);
}

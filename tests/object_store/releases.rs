//! What the tests of a store publish, and what they find in the store without asking etagd.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::TestSite;
use crate::support::store::{Bucket, Ran, run};
use crate::support::tree::digest_of;
use crate::support::version;

/// Longer than what is proven whole: it has a tree.
pub(crate) const LARGE: usize = 1536 << 10;

/// A version of a site: a page that names its assets, whose names change with their content, and what
/// is the same in all versions. One of the assets is large.
pub(crate) fn site(version: u64) -> TestSite {
    with_assets(version, &[&SCRIPTS[..], &[LARGE_ASSET]].concat())
}

/// The same without the large one.
pub(crate) fn small_site(version: u64) -> TestSite {
    with_assets(version, &SCRIPTS)
}

const SCRIPTS: [&str; 4] = ["a.js", "b.js", "c.js", "d.css"];
const LARGE_ASSET: &str = "large.bin";

fn with_assets(version: u64, names: &[&str]) -> TestSite {
    let mut page = format!("<!doctype html><title>{version}</title>\n");
    let mut site = TestSite::with(&[("robots.txt", b"User-agent: *\n"), ("empty.txt", b"")]);
    for name in names {
        let path = format!("assets/{version}-{name}");
        page += &format!("<link href=\"/{path}\">\n");
        site = site.file(&path, asset(&path));
    }
    site.file("index.html", page)
}

/// The content of an asset, whose path is `assets/VERSION-NAME`.
pub(crate) fn asset(path: &str) -> Vec<u8> {
    let (_, name) = path.rsplit_once('/').unwrap();
    let (version, name) = name.split_once('-').unwrap();
    match name {
        LARGE_ASSET => version::content(version.parse().unwrap(), LARGE),
        name => format!("this is {name} of version {version}\n").into_bytes(),
    }
}

/// The paths that a page names, and the version that it is of.
pub(crate) fn named_in(page: &[u8]) -> (u64, Vec<String>) {
    let page = std::str::from_utf8(page).unwrap();
    let between = |text: &str, start: &str, end: &str| {
        let (_, after) = text.split_once(start).unwrap();
        after.split_once(end).unwrap().0.to_owned()
    };
    let version = between(page, "<title>", "</title>").parse().unwrap();
    let lines = page.lines().skip(1);
    (
        version,
        lines.map(|line| between(line, "\"", "\"")).collect(),
    )
}

/// `etagd push DIR STORE` with these flags, run to its end.
pub(crate) fn push(command: Command, site: &TestSite, bucket: &Bucket, flags: &[&str]) -> Ran {
    run(command, push_arguments(&site.root(), bucket, flags))
}

/// The same, started.
pub(crate) fn start_push(
    mut command: Command,
    site: &TestSite,
    bucket: &Bucket,
    flags: &[&str],
) -> Child {
    command
        .args(push_arguments(&site.root(), bucket, flags))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// How something that was started ended.
pub(crate) fn end(child: Child) -> Ran {
    child.wait_with_output().unwrap().into()
}

fn push_arguments(dir: &Path, bucket: &Bucket, flags: &[&str]) -> Vec<String> {
    let dir = dir.to_str().unwrap().to_owned();
    let flags = flags.iter().map(ToString::to_string);
    ["push".to_owned(), dir, bucket.url()]
        .into_iter()
        .chain(flags)
        .collect()
}

/// `etagd gc STORE` with these flags, run to its end.
pub(crate) fn gc(command: Command, bucket: &Bucket, flags: &[&str]) -> Ran {
    let url = bucket.url();
    run(command, [&["gc", &url], flags].concat())
}

/// The digest that a directory has.
pub(crate) fn digest(site: &TestSite) -> String {
    digest_of(&site.root())
}

/// The releases of a channel, in the order of their numbers, as the store has them.
pub(crate) fn records(bucket: &Bucket, channel: &str) -> Vec<Value> {
    let folder = format!("channels/{channel}/");
    let keys = bucket.list(&folder).into_iter();
    keys.filter(|key| !key.ends_with("/latest"))
        .filter_map(|key| {
            // A collector may have deleted it since.
            let record = bucket.get(&key)?;
            let record: Value = serde_json::from_slice(&record).unwrap();
            let number = key.strip_prefix(&folder).unwrap();
            assert_eq!(number.len(), 20, "{key}");
            assert_eq!(
                record["number"].as_u64(),
                number.parse().ok(),
                "{key}: {record}"
            );
            Some(record)
        })
        .collect()
}

/// The newest release of a channel.
pub(crate) fn newest(bucket: &Bucket, channel: &str) -> Value {
    records(bucket, channel).pop().expect("a release")
}

/// The names of all objects that a release needs.
pub(crate) fn needed(bucket: &Bucket, record: &Value) -> BTreeSet<String> {
    let name = format!(
        "manifests/{}.json.zst",
        record["manifest"].as_str().unwrap()
    );
    let Some(listing) = bucket.get(&name) else {
        return [name].into();
    };
    let listing = zstd::decode_all(&*listing).unwrap();
    let listing: Value = serde_json::from_slice(&listing).unwrap();
    let mut names = BTreeSet::from([name]);
    let rules = listing["rules"].as_object().unwrap().values();
    let files = listing["files"].as_array().unwrap().iter();
    let codings = files.clone().filter_map(|file| file["codings"].as_array());
    for blob in rules.chain(files).chain(codings.flatten()) {
        let hash = blob["hash"].as_str().unwrap();
        names.insert(format!("blobs/{}/{hash}", &hash[..2]));
        if blob["size"].as_u64().unwrap() > 1 << 20 {
            names.insert(format!("trees/{}/{hash}", &hash[..2]));
        }
    }
    names
}

/// Asserts that the newest release of a channel has everything that it needs.
#[track_caller]
pub(crate) fn assert_complete(bucket: &Bucket, channel: &str) -> Value {
    let record = newest(bucket, channel);
    assert_whole(bucket, &record);
    record
}

/// Asserts that a release has everything that it needs.
#[track_caller]
pub(crate) fn assert_whole(bucket: &Bucket, record: &Value) {
    let there: BTreeSet<_> = ["manifests/", "blobs/", "trees/"]
        .iter()
        .flat_map(|prefix| bucket.list(prefix))
        .collect();
    let missing: Vec<_> = needed(bucket, record).difference(&there).cloned().collect();
    assert!(missing.is_empty(), "{record} lacks {missing:#?}");
}

/// A number that looks like chance, the same one for the same seed.
pub(crate) fn chance(seed: u64, below: u64) -> u64 {
    let hash = blake3::hash(&seed.to_le_bytes());
    u64::from_le_bytes(*hash.as_bytes().first_chunk().unwrap()) % below
}

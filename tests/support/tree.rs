//! Trees that change, and the wait until a server has seen it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::server::command;
use super::{Client, Server, etagd};

/// How long the slowest change on a machine with other work may take to be seen.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until something is so, which the tests of changes ask the server for.
#[track_caller]
pub(crate) fn eventually(what: &str, is_so: impl FnMut() -> bool) {
    within(PATIENCE, what, is_so);
}

/// Waits until something is so, and says how long that took.
#[track_caller]
pub(crate) fn within(limit: Duration, what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(3));
    }
    start.elapsed()
}

/// Says that the work of other threads is over when it is dropped, also by an assertion that fails: a
/// scope waits for its threads, so that such a test would not end.
pub(crate) struct EndOfWork<'w>(pub(crate) &'w AtomicBool);

impl Drop for EndOfWork<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Asserts for a while that something is so.
#[track_caller]
pub(crate) fn stays(time: Duration, what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while start.elapsed() < time {
        assert!(is_so(), "no longer so after {:?}: {what}", start.elapsed());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What `etagd manifest` says of a directory that nobody changes.
pub(crate) fn digest_of(dir: &Path) -> String {
    digest_with(dir, &[])
}

/// The same with these flags.
fn digest_with(dir: &Path, flags: &[&str]) -> String {
    let dir = dir.to_str().unwrap();
    let output = etagd([&["manifest", "--digest", dir], flags].concat());
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// What `etagd manifest` prints of a directory as JSON.
pub(crate) fn manifest_of(dir: &Path, flags: &[&str]) -> Vec<u8> {
    let dir = dir.to_str().unwrap();
    let output = etagd([&["manifest", "--format", "json", dir], flags].concat());
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

impl Server {
    /// The digest of the state it has announced last.
    pub(crate) fn digest(&self) -> String {
        last_digest(self.log().lines())
            .unwrap_or_default()
            .to_owned()
    }

    /// Number of states that it has published since it started.
    pub(crate) fn publications(&self) -> usize {
        let log = self.log();
        log.lines()
            .filter(|line| line.contains("published: "))
            .count()
    }

    /// How many times it has looked at what has changed. It must have an admin listener.
    pub(crate) fn looks(&self) -> u64 {
        let page = Client::connect(self.admin()).get("/metrics").body;
        let page = String::from_utf8(page).unwrap();
        page.lines()
            .find_map(|line| {
                line.strip_prefix("etagd_scan_duration_seconds_count{of=\"changes\"} ")
            })
            .unwrap()
            .parse()
            .unwrap()
    }

    /// Waits until it has announced the very state that `dir` is in: all of it, and no more.
    #[track_caller]
    pub(crate) fn wait_until_it_serves(&self, dir: &Path) {
        self.wait_until_it_serves_with(dir, &[]);
    }

    /// The same for a server with these flags, on which the digest depends.
    #[track_caller]
    pub(crate) fn wait_until_it_serves_with(&self, dir: &Path, flags: &[&str]) {
        let digest = digest_with(dir, flags);
        self.wait_for(|lines| last_digest(lines.iter().map(String::as_str)) == Some(&digest));
    }

    /// The body of a path, where it is answered 200 and completes, and then as its tag says.
    #[track_caller]
    pub(crate) fn body(&self, target: &str) -> Option<Vec<u8>> {
        let response = self.client().get(target);
        (response.status == 200 && !response.cut).then(|| {
            assert!(response.is_what_its_tag_says(), "{target}: torn");
            response.body
        })
    }

    /// Waits until a path is answered with this body.
    #[track_caller]
    pub(crate) fn wait_for_body(&self, target: &str, body: impl AsRef<[u8]>) {
        let body = body.as_ref();
        let what = format!("{target} is {}", body[..body.len().min(40)].escape_ascii());
        eventually(&what, || self.body(target).as_deref() == Some(body));
    }

    /// Waits until a path is answered 404.
    #[track_caller]
    pub(crate) fn wait_for_absence(&self, target: &str) {
        eventually(&format!("{target} is gone"), || {
            self.client().get(target).status == 404
        });
    }

    /// Resident memory in KiB.
    pub(crate) fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.unwrap().trim().trim_end_matches(" kB");
        number.parse().unwrap()
    }

    /// Time on a processor so far, in hundredths of a second.
    pub(crate) fn processor_time(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let (_, after) = stat.rsplit_once(')').unwrap();
        let fields: Vec<_> = after.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    /// What its descriptors are of.
    fn open_files(&self) -> Vec<PathBuf> {
        let open = fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
        open.flatten()
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .collect()
    }

    /// Waits until it has a file of this name open: it is being hashed, or sent.
    #[track_caller]
    pub(crate) fn wait_until_it_reads(&self, name: &str) {
        eventually(&format!("{name} is read"), || {
            self.open_files().iter().any(|file| file.ends_with(name))
        });
    }

    /// Descriptors of files that have no name any more.
    pub(crate) fn deleted_files(&self) -> usize {
        let is_deleted = |file: &&PathBuf| file.to_string_lossy().ends_with(" (deleted)");
        self.open_files().iter().filter(is_deleted).count()
    }

    /// Watches that the kernel keeps for it.
    pub(crate) fn watches(&self) -> usize {
        let open = fs::read_dir(format!("/proc/{}/fdinfo", self.pid())).unwrap();
        let lines = |info: String| {
            info.lines()
                .filter(|line| line.starts_with("inotify"))
                .count()
        };
        open.flatten()
            .filter_map(|entry| fs::read_to_string(entry.path()).ok())
            .map(lines)
            .sum()
    }
}

fn last_digest<'a>(lines: impl DoubleEndedIterator<Item = &'a str>) -> Option<&'a str> {
    let mut lines = lines.rev();
    let digest = lines.find_map(|line| line.split_once("site digest "))?.1;
    digest.split([',', ' ']).next()
}

/// Whether a command is there. In CI one that is not is a failure, not a reason to skip.
pub(crate) fn has(program: &str) -> bool {
    let found = command(program).arg("--version").output().is_ok();
    let must = std::env::var_os("ETAGD_NO_SKIP").is_some();
    assert!(found || !must, "{program} is not installed");
    if !found {
        #[allow(clippy::print_stderr)]
        {
            eprintln!("skipped: {program} is not installed");
        }
    }
    found
}

/// Runs a command that must succeed.
#[track_caller]
pub(crate) fn run(program: &str, arguments: &[&str], dir: &Path) {
    let output = command(program)
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
}

/// Writes `files` files below `dir`, ten to a directory, four directories deep, as fast as it
/// goes.
pub(crate) fn write_tree(dir: &Path, files: usize, seed: &str) {
    for index in 0..files.div_ceil(10) {
        let place = dir.join(format!("{}/{}/{index}", index % 7, index % 31));
        fs::create_dir_all(&place).unwrap();
        for file in 0..10.min(files - index * 10) {
            fs::write(
                place.join(format!("{file}.txt")),
                format!("{seed} {index} {file}"),
            )
            .unwrap();
        }
    }
}

/// Replaces a file as careful programs do: a temporary file is renamed over it.
pub(crate) fn rename_over(path: &Path, content: impl AsRef<[u8]>) {
    let name = path.file_name().unwrap().to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.new"));
    fs::write(&beside, content).unwrap();
    fs::rename(beside, path).unwrap();
}

/// Turns a link to another target in one step.
pub(crate) fn relink(link: &Path, target: impl AsRef<Path>) {
    let name = link.file_name().unwrap().to_string_lossy();
    let beside = link.with_file_name(format!("{name}_tmp"));
    std::os::unix::fs::symlink(target, &beside).unwrap();
    fs::rename(beside, link).unwrap();
}

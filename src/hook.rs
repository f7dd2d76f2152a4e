//! `--on-publish`: a command that runs after each publication, so that a cache can forget the URLs that
//! have changed.
//!
//! It runs on a thread of its own, one run at a time, and never holds up a publication. What is
//! published during a run is passed to the next one, all together. What was passed to a run that failed
//! is passed again with the next publication, because a cache that misses a URL would keep it for as
//! long as it likes.
//!
//! A command that writes into the site is the cause of its next run, and so runs for ever. That can't
//! be told from a change that somebody else makes while it runs, but it is said when it is likely.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::inventory::Difference;
use crate::manifest::{Manifest, SiteDigest};
use crate::metrics::Metrics;
use crate::purge::urls;
use crate::site::Site;

/// A run that takes longer than this is worth a warning when the next one waits for it.
const MIN_LONG_RUN: Duration = Duration::from_secs(60);

/// How many runs in a row that nothing but changes made during the run before has caused are worth a
/// warning.
const MAX_OWN_RUNS: u32 = 3;
/// The clock of a file system is behind that of the system, by a tick of the kernel (10 ms at most).
const CLOCK_TICK: Duration = Duration::from_millis(10);
/// What the variables of etagd begin with.
const VARIABLE_PREFIX: &str = "ETAGD_";

/// The command, and the thread that runs it.
#[derive(Debug)]
pub struct Hook {
    shared: Arc<Shared>,
    /// Ends with the thread.
    ended: Receiver<()>,
}

#[derive(Debug)]
struct Shared {
    command: String,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// What is passed to the next run.
    news: Option<News>,
    /// Whether to run it now. What a failed run leaves in `news` waits for the next publication.
    is_due: bool,
    running: Option<Running>,
    is_ending: bool,
    /// Whether the next publication is the first of all. No cache has anything of an earlier one.
    is_first: bool,
}

/// What one or more publications have changed.
#[derive(Debug)]
struct News {
    old: SiteDigest,
    new: SiteDigest,
    urls: BTreeSet<String>,
    /// When the first and the last of these changes were made.
    made: Option<(SystemTime, SystemTime)>,
}

/// Finds out whether runs cause each other.
#[derive(Debug, Default)]
struct OwnRuns {
    /// When the last run began and ended.
    last: Option<(SystemTime, SystemTime)>,
    /// How many runs in a row were caused by the one before each.
    number: u32,
    is_warned: bool,
}

impl OwnRuns {
    /// Notes what has caused a run that begins now. Whether to warn, which is once.
    fn begin(&mut self, made: Option<(SystemTime, SystemTime)>) -> bool {
        let is_caused_by_last = match (self.last, made) {
            (Some((began, ended)), Some((first, last))) => {
                first + CLOCK_TICK >= began && last <= ended
            }
            _ => false,
        };
        self.number = match is_caused_by_last {
            true => self.number.saturating_add(1),
            false => 0,
        };
        self.number >= MAX_OWN_RUNS && !std::mem::replace(&mut self.is_warned, true)
    }

    fn end(&mut self, began: SystemTime, ended: SystemTime) {
        self.last = Some((began, ended));
    }
}

#[derive(Clone, Copy, Debug)]
struct Running {
    since: Instant,
    process: u32,
}

impl Hook {
    /// Runs `command` through `sh -c` after each publication of `site` from now on, except after the
    /// first of all, if nothing `is_published` yet.
    ///
    /// # Errors
    /// When the system has no more threads.
    pub fn start(
        command: String,
        site: &Site,
        is_published: bool,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            command,
            metrics,
            state: Mutex::new(State {
                is_first: !is_published,
                ..State::default()
            }),
            changed: Condvar::new(),
        });
        let (alive, ended) = channel();
        let runner = Arc::clone(&shared);
        thread::Builder::new()
            .name("on-publish".to_owned())
            .spawn(move || {
                let _alive = alive;
                runner.run();
            })?;
        let listener = Arc::clone(&shared);
        site.on_publication(move |old, new| listener.note_publication(old, new));
        Ok(Self { shared, ended })
    }

    /// Lets the present run finish, and one more for what is still to be passed, for `patience` at most.
    /// A run that takes longer is not ended: its process goes on by itself.
    pub fn finish(self, patience: Duration) {
        self.shared.state().is_ending = true;
        self.shared.changed.notify_all();
        let is_over = self.ended.recv_timeout(patience) != Err(RecvTimeoutError::Timeout);
        let state = self.shared.state();
        if let Some(Running { process, .. }) = state.running.filter(|_| !is_over) {
            tracing::warn!(
                process,
                "--on-publish: not waiting for the command any longer: process {process} is left \
                 to itself"
            );
        }
        if let Some(News { old, urls, .. }) = &state.news {
            tracing::warn!(
                before = %old, urls = urls.len(),
                "--on-publish: the command was not run for {}; purge what has changed since {old} \
                 by other means",
                count(urls)
            );
        }
    }
}

impl News {
    fn add(&mut self, later: Self) {
        self.new = later.new;
        self.urls.extend(later.urls);
        self.made = match (self.made, later.made) {
            (Some((first, last)), Some((other_first, other_last))) => {
                Some((first.min(other_first), last.max(other_last)))
            }
            (one, other) => one.or(other),
        };
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what a publication has changed.
    fn note_publication(&self, old: &Manifest, new: &Manifest) {
        if std::mem::take(&mut self.state().is_first) {
            return;
        }
        let (handling, base_path) = (new.settings().html_handling, &new.settings().base_path);
        if old.rules().redirects.hash() != new.rules().redirects.hash() {
            tracing::warn!(
                digest = %new.digest(),
                "--on-publish: rules changed: affected redirects are not listed"
            );
        }
        let differences = old.diff(new);
        let later = News {
            old: old.digest(),
            new: new.digest(),
            made: change_times(&differences, new),
            urls: urls(&differences, handling, base_path)
                .into_keys()
                .collect(),
        };
        let mut state = self.state();
        match &mut state.news {
            Some(news) => news.add(later),
            None => state.news = Some(later),
        }
        state.is_due = true;
        if let Some(Running { since, process }) = state.running
            && since.elapsed() >= MIN_LONG_RUN
        {
            let seconds = since.elapsed().as_secs();
            tracing::warn!(
                process,
                seconds,
                "--on-publish: the command (process {process}) has been running for {seconds} s; \
                 later publications wait for it"
            );
        }
        drop(state);
        self.changed.notify_all();
    }

    /// The thread's work, to its end.
    fn run(&self) {
        let mut own_runs = OwnRuns::default();
        while let Some(news) = self.next() {
            if own_runs.begin(news.made) {
                warn_of_own_runs(&news);
            }
            let began = SystemTime::now();
            let outcome = self.run_once(&news);
            own_runs.end(began, SystemTime::now());
            let mut state = self.state();
            state.running = None;
            self.metrics.hook_runs.increment();
            let News { old, new, urls, .. } = &news;
            match outcome {
                Ok(status) if status.success() => {
                    tracing::info!(
                        before = %old, digest = %new, urls = urls.len(),
                        "--on-publish: done for {new}, {}", count(urls)
                    );
                    continue;
                }
                // `exit status: 3`, or the signal.
                Ok(status) => tracing::error!(
                    %status, before = %old, digest = %new, urls = urls.len(),
                    "--on-publish failed ({status}) for {old} to {new}: {} will be passed again \
                     with the next publication",
                    count(urls)
                ),
                Err(error) => tracing::error!(
                    %error, before = %old, digest = %new, urls = urls.len(),
                    "--on-publish: cannot run the command: {error}"
                ),
            }
            self.metrics.hook_failures.increment();
            state.news = Some(match state.news.take() {
                None => news,
                Some(later) => {
                    let mut all = news;
                    all.add(later);
                    all
                }
            });
        }
    }

    /// Waits for something to pass to the next run; `None` at the end.
    fn next(&self) -> Option<News> {
        let mut state = self.state();
        loop {
            if std::mem::take(&mut state.is_due) {
                return state.news.take();
            }
            if state.is_ending {
                return None;
            }
            let woken = self.changed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn run_once(&self, news: &News) -> io::Result<ExitStatus> {
        let mut command = Command::new("sh");
        // The server's settings are not the command's: an `etagd` that it runs would take them for its
        // own, and nobody needs to know a secret that is set that way.
        for (name, _) in std::env::vars_os() {
            if name
                .as_encoded_bytes()
                .starts_with(VARIABLE_PREFIX.as_bytes())
            {
                command.env_remove(name);
            }
        }
        let mut child = command
            .arg("-c")
            .arg(&self.command)
            .env("ETAGD_OLD_DIGEST", news.old.to_string())
            .env("ETAGD_NEW_DIGEST", news.new.to_string())
            .stdin(Stdio::piped())
            // Standard output is for data, and a server has none.
            .stdout(io::stderr())
            // Ctrl-C at a terminal goes to its whole process group (termios(3), ISIG): it is for the
            // server, which lets the command finish.
            .process_group(0)
            .spawn()?;
        self.state().running = Some(Running {
            since: Instant::now(),
            process: child.id(),
        });
        let fed = child.stdin.take().map(|stdin| feed(stdin, &news.urls));
        let status = child.wait()?;
        fed.unwrap_or(Ok(()))?;
        Ok(status)
    }
}

/// When the first and the last of these differences were made, as far as the files say that are
/// there: a file that is gone does not say when.
fn change_times(differences: &[Difference], new: &Manifest) -> Option<(SystemTime, SystemTime)> {
    let time = |path: &[u8]| {
        let changed = new.locate(path)?.stamp.ctime_ns;
        let since_epoch = Duration::from_nanos(u64::try_from(changed).ok()?);
        SystemTime::UNIX_EPOCH.checked_add(since_epoch)
    };
    let times = differences.iter().filter_map(|each| time(&each.path));
    let (first, last) = times.fold((None, None), |(first, last), time| {
        let earliest = first.map_or(time, |first: SystemTime| first.min(time));
        let latest = last.map_or(time, |last: SystemTime| last.max(time));
        (Some(earliest), Some(latest))
    });
    first.zip(last)
}

fn warn_of_own_runs(news: &News) {
    let (urls, first) = (news.urls.len(), news.urls.first());
    let first = first.map_or("", String::as_str);
    tracing::warn!(
        runs = MAX_OWN_RUNS,
        urls,
        path = first,
        "--on-publish: {MAX_OWN_RUNS} runs in a row had no other cause than what changed while the \
         run before was under way ({first}): if the command writes into the site, it runs for ever; \
         let it write elsewhere, under a hidden name, or only what differs"
    );
}

fn count(urls: &BTreeSet<String>) -> String {
    match urls.len() {
        1 => "1 URL".to_owned(),
        number => format!("{number} URLs"),
    }
}

/// Writes the URLs to the command's standard input, on a thread of its own. A command need not read
/// them; then the pipe stays full (pipe(7)) for as long as any process that the command has left in the
/// background holds its other end.
fn feed(mut stdin: ChildStdin, urls: &BTreeSet<String>) -> io::Result<()> {
    let lines: String = urls.iter().flat_map(|url| [url, "\n"]).collect();
    let write = move || {
        // A command that does not read them has no use for them: no reason for a message.
        let _ = stdin.write_all(lines.as_bytes());
    };
    thread::Builder::new()
        .name("on-publish input".to_owned())
        .spawn(write)
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_cause_each_other_are_told_from_others() {
        let start = SystemTime::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        // Each run begins and ends, and the changes that have caused it are made from and to then.
        type Run = (u64, u64, u64, u64);
        let cases: [(&str, &[Run], &[bool]); 6] = [
            (
                "each writes",
                &[
                    (100, 200, 0, 0),
                    (300, 400, 150, 150),
                    (500, 600, 350, 390),
                    (700, 800, 500, 600),
                    (900, 950, 700, 701),
                ],
                &[false, false, false, true, false],
            ),
            (
                "by the clock of the file system it was a little before the run",
                &[
                    (100, 200, 0, 0),
                    (300, 400, 95, 95),
                    (500, 600, 295, 295),
                    (700, 800, 495, 495),
                ],
                &[false, false, false, true],
            ),
            (
                "somebody else changes something after the run",
                &[
                    (100, 200, 0, 0),
                    (300, 400, 150, 150),
                    (500, 600, 350, 410),
                    (700, 800, 500, 500),
                    (900, 950, 750, 750),
                ],
                &[false; 5],
            ),
            (
                "and before it",
                &[
                    (100, 200, 0, 0),
                    (300, 400, 50, 150),
                    (500, 600, 250, 350),
                    (700, 800, 450, 550),
                ],
                &[false; 4],
            ),
            (
                "edits between runs",
                &[
                    (100, 200, 0, 0),
                    (300, 400, 250, 250),
                    (500, 600, 450, 450),
                    (700, 800, 650, 650),
                ],
                &[false; 4],
            ),
            ("the first", &[(100, 200, 0, 0)], &[false]),
        ];
        for (name, runs, warns) in cases {
            let mut own_runs = OwnRuns::default();
            for ((began, ended, first, last), warn) in runs.iter().zip(warns) {
                let made = Some((at(*first), at(*last)));
                assert_eq!(own_runs.begin(made), *warn, "{name}: {began}");
                own_runs.end(at(*began), at(*ended));
            }
        }
        let mut own_runs = OwnRuns::default();
        own_runs.end(at(0), at(1000));
        for _ in 0..5 {
            assert!(!own_runs.begin(None), "what is gone does not say when");
        }
    }
}

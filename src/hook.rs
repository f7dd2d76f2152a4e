//! `--on-publish`: a command that runs after each publication, so that a cache can forget the URLs that
//! have changed.
//!
//! It runs on a thread of its own, one run at a time, and never holds up a publication. What is
//! published during a run is passed to the next one, all together. What was passed to a run that failed
//! is passed again with the next publication, because a cache that misses a URL would keep it for as
//! long as it likes.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::manifest::{Manifest, SiteDigest};
use crate::metrics::Metrics;
use crate::purge::urls;
use crate::site::Site;

/// A run that takes longer than this is worth a warning when the next one waits for it.
const MIN_LONG_RUN: Duration = Duration::from_secs(60);

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
                digest = %old, urls = urls.len(),
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
        let handling = new.settings().html_handling;
        if old.rules().redirects.hash() != new.rules().redirects.hash() {
            tracing::warn!(
                digest = %new.digest(),
                "--on-publish: rules changed: affected redirects are not listed"
            );
        }
        let later = News {
            old: old.digest(),
            new: new.digest(),
            urls: urls(&old.diff(new), handling).into_keys().collect(),
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
        while let Some(news) = self.next() {
            let outcome = self.run_once(&news);
            let mut state = self.state();
            state.running = None;
            self.metrics.hook_runs.increment();
            let News { old, new, urls } = &news;
            match outcome {
                Ok(status) if status.success() => {
                    tracing::info!(
                        digest = %new, urls = urls.len(),
                        "--on-publish: done for {new}, {}", count(urls)
                    );
                    continue;
                }
                // `exit status: 3`, or the signal.
                Ok(status) => tracing::error!(
                    status = %status, digest = %new, urls = urls.len(),
                    "--on-publish failed ({status}) for {old} to {new}: {} will be passed again \
                     with the next publication",
                    count(urls)
                ),
                Err(error) => tracing::error!(
                    %error, digest = %new, urls = urls.len(),
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
        let mut child = Command::new("sh")
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

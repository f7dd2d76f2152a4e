//! What each subcommand does, from parsed flags to the end of the process.

use std::future::poll_fn;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::config::{self, Command, Config, ManifestFormat};
use crate::disk::Root;
use crate::manifest::{Manifest, Settings};
use crate::memory::Memory;
use crate::scan::{Progress, Scanner};
use crate::server::Server;
use crate::server::listener::{self, Bound, ListenError};
use crate::service::Service;
use crate::site::Site;

/// Why a subcommand failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The site's directory can't be used.
    #[error("cannot serve {}: {source}", .path.display())]
    Directory {
        /// As it was given.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// A listener can't be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The system refuses what a server needs.
    #[error("cannot start the server: {0}")]
    Start(io::Error),
    /// Standard output is gone.
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
}

/// Runs one subcommand to its end.
///
/// # Errors
/// Whatever made it impossible, as one sentence.
pub fn run(command: Command) -> Result<(), Error> {
    match command {
        Command::Serve(flags) => serve(flags.into()),
        Command::Manifest(flags) => manifest(&flags),
    }
}

fn serve(config: Config) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(Error::Start)?;
    let _entered = runtime.enter();
    // From here on a signal is an answer, not the end.
    let mut signals = Signals::new().map_err(Error::Start)?;
    let root = open(&config.directory)?;
    let bound = listener::bind(&config.listen)?;
    let memory = Memory::new(config.memory);
    let scanner = Scanner::new(config.symlinks, config.settings, Some(Arc::clone(&memory)));
    let (done, scanned) = oneshot::channel();
    thread::spawn(move || done.send(scan(&scanner, &root, config.settings)));
    let manifest = runtime.block_on(async {
        tokio::select! {
            manifest = scanned => manifest.ok(),
            () = signals.next() => None,
        }
    });
    let Some(manifest) = manifest else {
        return Ok(());
    };
    let site = Arc::new(Site::new(manifest));
    let service = Service::new(site, Arc::clone(&memory));
    let server = Server::start(service, config.workers, config.limits).map_err(Error::Start)?;
    runtime.block_on(run_server(server, bound, &mut signals))
}

/// Accepts until a signal, then lets what is in flight finish.
async fn run_server(server: Server, bound: Vec<Bound>, signals: &mut Signals) -> Result<(), Error> {
    let listeners = bound
        .into_iter()
        .map(Bound::listen)
        .collect::<Result<Vec<_>, _>>()?;
    for listener in &listeners {
        tracing::info!("listening on {listener}");
    }
    {
        let accept = |listener| Box::pin(server.accept(listener));
        let mut accepting: Vec<_> = listeners.iter().map(accept).collect();
        let accept_all = poll_fn(|cx| {
            for accept in &mut accepting {
                // It never ends by itself.
                let _ = accept.as_mut().poll(cx);
            }
            Poll::<()>::Pending
        });
        tokio::select! {
            () = accept_all => {}
            () = signals.next() => {}
        }
    }
    drop(listeners);
    tracing::info!("finishing requests in flight");
    tokio::select! {
        finished = server.drain() => {
            if !finished {
                tracing::warn!("some requests were cut: they took longer than --grace");
            }
        }
        () = signals.next() => tracing::warn!("stopped at once: some requests were cut"),
    }
    Ok(())
}

fn manifest(flags: &config::Manifest) -> Result<(), Error> {
    let settings = flags.site.settings();
    let root = open(&flags.site.directory)?;
    // Nothing is served, so nothing has to be kept.
    let scanner = Scanner::new(flags.site.symlinks, settings, None);
    let manifest = scan(&scanner, &root, settings);
    let mut out = BufWriter::new(io::stdout().lock());
    let written = match (flags.digest, flags.format) {
        (true, _) => writeln!(out, "{}", manifest.digest()),
        (false, ManifestFormat::Text) => manifest.write_text(&mut out),
        (false, ManifestFormat::Json) => manifest.write_json(&mut out),
    };
    match written.and_then(|()| out.flush()) {
        // The reader has seen enough: `etagd manifest | head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(Error::Output),
    }
}

fn open(directory: &Path) -> Result<Arc<Root>, Error> {
    let failed = |source| Error::Directory {
        path: directory.to_path_buf(),
        source,
    };
    Root::open(directory).map(Arc::new).map_err(failed)
}

/// Scans with a progress bar, on terminals, and sums up in one line.
fn scan(scanner: &Scanner, root: &Arc<Root>, settings: Settings) -> Manifest {
    let started = Instant::now();
    let progress = Progress::default();
    let manifest = thread::scope(|scope| {
        // Dropping the sender at the end of the scan ends the bar.
        let (_scanning, scanned) = channel::<()>();
        let progress = &progress;
        scope.spawn(move || show(progress, &scanned));
        Manifest::empty(settings).with(scanner.scan(root, progress))
    });
    let (files, bytes) = (
        HumanCount(manifest.len() as u64),
        HumanBytes(manifest.bytes()),
    );
    let (seconds, digest) = (started.elapsed().as_secs_f64(), manifest.digest());
    tracing::info!("{files} files, {bytes}, site digest {digest}, {seconds:.2} s");
    manifest
}

fn show(progress: &Progress, scanned: &Receiver<()>) {
    const FIRST: Duration = Duration::from_millis(500);
    const EACH: Duration = Duration::from_millis(100);
    if scanned.recv_timeout(FIRST) != Err(RecvTimeoutError::Timeout) {
        return;
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} hashing: {msg} in {elapsed}") {
        bar.set_style(style);
    }
    while scanned.recv_timeout(EACH) == Err(RecvTimeoutError::Timeout) {
        let (files, bytes) = (HumanCount(progress.files()), HumanBytes(progress.bytes()));
        bar.set_message(format!("{files} files, {bytes}"));
        bar.tick();
    }
    bar.finish_and_clear();
}

/// The signals that end the process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

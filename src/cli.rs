//! What each subcommand does, from parsed flags to the end of the process.

mod compress;

use std::future::{pending, poll_fn};
use std::io::{self, BufWriter, Write};
use std::path::{self, Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, oneshot};

use crate::config::{self, Command, Config, ManifestFormat, Watching};
use crate::disk::{self, Root};
use crate::lease;
use crate::manifest::Manifest;
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::scan::{Link, Progress, Scanner};
use crate::server::Server;
use crate::server::listener::{self, Bound, ListenError};
use crate::server::tls::{Tls, TlsError};
use crate::service::Service;
use crate::site::Site;
use crate::watch::{self, Hint, Watch};

/// Why a subcommand failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The site's directory can't be used.
    #[error("cannot open {}: {source}", .path.display())]
    Directory {
        /// As it was given.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// A listener can't be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The certificate or its key can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The system refuses what a server needs.
    #[error("cannot start the server: {0}")]
    Start(io::Error),
    /// A bug: the thread that scans ended without a result.
    #[error("the scan broke off; the message above says where: please report it")]
    Scan,
    /// `etagd compress` is not done, or has found something.
    #[error("{0}")]
    Sidecars(String),
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
        Command::Serve(flags) => serve((*flags).into()),
        Command::Manifest(flags) => manifest(&flags),
        Command::Compress(flags) => compress::compress(&flags),
    }
}

fn serve(config: Config) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(Error::Start)?;
    let result = serve_in(&runtime, config);
    // A worker that does not come to an end, or a scan that was interrupted, is not waited for.
    runtime.shutdown_background();
    result
}

fn serve_in(runtime: &Runtime, config: Config) -> Result<(), Error> {
    let _entered = runtime.enter();
    // From here on a signal is an answer, not the end.
    let mut signals = Signals::new().map_err(Error::Start)?;
    lease::absorb_signals().map_err(Error::Start)?;
    let directory = path::absolute(&config.directory).unwrap_or(config.directory);
    let root = open(&directory)?;
    let tls = config.tls.map(Tls::load).transpose()?.map(Arc::new);
    let bound = listener::bind(&config.listen)?;
    let descriptors = usize::try_from(disk::raise_descriptor_limit()).unwrap_or(usize::MAX);
    let memory = Memory::new(config.memory, config.open_files.unwrap_or(descriptors / 2));
    let metrics = Arc::new(Metrics::default());
    let Watching {
        settle,
        sweep,
        scrub,
        keep_old,
    } = config.watching;
    let options = watch::Options {
        directory,
        settle,
        sweep,
        scrub,
        keep_old,
    };
    // Before the scan, so that nothing falls between the two.
    let watch = Watch::arm(options, Arc::clone(&root), Arc::clone(&metrics));
    let scanner = Scanner::new(config.symlinks, config.settings, Some(Arc::clone(&memory)));
    let (done, scanned) = oneshot::channel();
    thread::spawn(move || {
        let scanned = scan(&scanner, &root);
        // Nobody waits where a signal has come first.
        let _ = done.send((scanner, scanned));
    });
    let scanned = runtime.block_on(async {
        tokio::select! {
            scanned = scanned => Some(scanned),
            () = signals.stop() => None,
        }
    });
    let (scanner, (manifest, links)) = match scanned {
        Some(Ok((scanner, scanned))) => (scanner, scanned?),
        Some(Err(_)) => return Err(Error::Scan),
        None => return Ok(()),
    };
    let site = Arc::new(Site::new(manifest));
    let hints = watch.hints();
    let suspects = hints.clone();
    site.on_suspect(move |file| {
        // Heard for as long as the process lives.
        let _ = suspects.send(Hint::Suspect(file.to_path_buf()));
    });
    watch
        .drive(Arc::clone(&site), scanner, links)
        .map_err(Error::Start)?;
    let service = Service::new(site, memory, metrics);
    let server = Server::start(service, config.workers, config.limits, tls.clone());
    let server = server.map_err(Error::Start)?;
    runtime.block_on(run_server(server, bound, tls, &mut signals, &hints))
}

/// Accepts until a signal, then lets what is in flight finish.
async fn run_server(
    server: Server,
    bound: Vec<Bound>,
    tls: Option<Arc<Tls>>,
    signals: &mut Signals,
    hints: &Sender<Hint>,
) -> Result<(), Error> {
    let listeners = bound
        .into_iter()
        .map(Bound::listen)
        .collect::<Result<Vec<_>, _>>()?;
    for listener in &listeners {
        tracing::info!("listening on {}", listener.url(tls.is_some()));
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
        let look = Notify::new();
        let stop = async {
            while signals.next().await == Asked::Look {
                let _ = hints.send(Hint::Sweep);
                look.notify_one();
            }
        };
        tokio::select! {
            () = accept_all => {}
            () = reload_on(&look, tls) => {}
            () = stop => {}
        }
    }
    for listener in &listeners {
        server.accept_waiting(listener).await;
    }
    drop(listeners);
    tracing::info!("finishing requests in flight");
    tokio::select! {
        finished = server.drain() => {
            if !finished {
                tracing::warn!("some requests were cut: they took longer than --grace");
            }
        }
        () = signals.force() => tracing::warn!("stopped at once"),
    }
    Ok(())
}

/// Reads the certificate again whenever there is reason to look. It never ends.
async fn reload_on(look: &Notify, tls: Option<Arc<Tls>>) {
    let Some(tls) = tls else {
        return pending().await;
    };
    loop {
        look.notified().await;
        let tls = Arc::clone(&tls);
        // Reading files may block.
        match tokio::task::spawn_blocking(move || tls.reload()).await {
            Ok(Ok(())) => tracing::info!("the certificate was read again"),
            Ok(Err(error)) => tracing::error!("the certificate in use stays: {error}"),
            Err(stopped) => tracing::error!("the certificate in use stays: {stopped}"),
        }
    }
}

fn manifest(flags: &config::Manifest) -> Result<(), Error> {
    let settings = flags.site.settings();
    let root = open(&flags.site.directory)?;
    // Nothing is served, so nothing has to be kept.
    let scanner = Scanner::new(flags.site.symlinks, settings, None);
    let (manifest, _) = scan(&scanner, &root)?;
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
///
/// # Errors
/// When the directory itself can't be read: that is no empty site.
fn scan(scanner: &Scanner, root: &Arc<Root>) -> Result<(Manifest, Vec<Link>), Error> {
    let started = Instant::now();
    let progress = Progress::default();
    let (manifest, links) = thread::scope(|scope| {
        // Dropping the sender at the end of the scan ends the bar.
        let (_scanning, scanned) = channel::<()>();
        let progress = &progress;
        scope.spawn(move || show(progress, &scanned));
        scanner.scan(root, progress)
    });
    let (files, bytes) = (
        HumanCount(manifest.len() as u64),
        HumanBytes(manifest.bytes()),
    );
    let (seconds, digest) = (started.elapsed().as_secs_f64(), manifest.digest());
    let files = if manifest.len() == 1 {
        "1 file".into()
    } else {
        format!("{files} files")
    };
    if let Some(reason) = manifest.unreadable().get(&b""[..]) {
        let path = root.path().to_path_buf();
        return Err(Error::Directory {
            path,
            source: io::Error::other(reason.clone()),
        });
    }
    let unreadable = match manifest.unreadable().len() {
        0 => String::new(),
        number => format!(" ({number} unreadable)"),
    };
    let is_nowhere = |link: &&Link| scanner.leaves_out(root, link);
    match links.iter().filter(is_nowhere).count() {
        0 => {}
        number => tracing::info!(
            "{number} links are left out: they lead out of the site (see --symlinks), or nowhere"
        ),
    }
    tracing::info!("{files}{unreadable}, {bytes}, site digest {digest}, {seconds:.2} s");
    Ok((manifest, links))
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

/// What a signal asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Stop,
    /// Compare everything with the disk.
    Look,
}

/// The signals that are answers.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.hangup.recv() => Asked::Look,
        }
    }

    async fn stop(&mut self) {
        while self.next().await != Asked::Stop {}
    }

    /// An interrupt: somebody at a terminal is tired of waiting. Supervisors repeat themselves
    /// with SIGTERM, which asks for nothing more.
    async fn force(&mut self) {
        self.interrupt.recv().await;
    }
}

//! `etagd serve`: from a configuration to a server that stops when it is told to.

use std::convert::Infallible;
use std::fs::File;
use std::future::pending;
use std::io;
use std::os::fd::AsFd;
use std::path::{self, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use humantime::format_duration;
use tokio::sync::{Notify, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::dev::{self, Developer};
use super::scan::{Scanned, files, scan};
use super::signals::{SignalAction, Signals};
use super::supervisor::Supervisor;
use super::{Error, open, writable};
use crate::access::{self, AccessLog, LineFormat};
use crate::admin::Admin;
use crate::client::TrustedProxies;
use crate::config::{AccessLogForm, Config, ProxyOptions, WatchOptions};
use crate::dev::DevLayer;
use crate::disk::{self, Root};
use crate::hook::Hook;
use crate::lease;
use crate::manifest::Manifest;
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::readiness::{Phase, Readiness};
use crate::release::Release;
use crate::scan::{Progress, Scanner};
use crate::server::Server;
use crate::server::admin::{AdminError, AdminServer};
use crate::server::inherited::Inherited;
use crate::server::listener::{self, Bound};
use crate::server::tls::Tls;
use crate::service::{HealthLayer, Layer, LogLayer, SiteLayer, WriteLayer};
use crate::settings::{Expectation, Listen, StatusOptions};
use crate::site::Site;
use crate::state::{Saver, StateFile};
use crate::watch::{Hint, Watch, WatcherOptions, immutable};
use crate::write::Writer;

/// How long a change may wait for quiet: replicas are to publish a deploy as a whole.
const MAX_BATCH_AGE: Duration = Duration::from_secs(2);
/// The same where somebody waits to see it.
const MAX_BATCH_AGE_DEV: Duration = Duration::from_millis(200);
/// Quiet after one file was saved where it stands, and nothing else: a developer waits to see it.
const SETTLE_ALONE: Duration = Duration::from_millis(5);
/// How long the command of `--on-publish` is waited for at the end.
const HOOK_PATIENCE: Duration = Duration::from_secs(5);
/// How long the last lines of the access log may take.
const LAST_LINES: Duration = Duration::from_secs(1);

pub(super) fn serve(config: Config) -> Result<(), Error> {
    // Before anything else opens a file.
    let inherited = Inherited::take()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(Error::Start)?;
    let result = runtime.block_on(run(config, inherited));
    // A worker that does not come to an end, or a scan that was interrupted, is not waited for.
    runtime.shutdown_background();
    result
}

async fn run(config: Config, inherited: Inherited) -> Result<(), Error> {
    let started = Instant::now();
    // From here on a signal is an answer, not the end.
    let mut signals = Signals::new().map_err(Error::Start)?;
    lease::absorb_signals().map_err(Error::Start)?;
    let directory = path::absolute(&config.directory).unwrap_or(config.directory);
    let root = open(&directory)?;
    let state = config
        .state
        .map(|file| StateFile::new(&file, &root, Arc::clone(&config.settings)))
        .transpose()?;
    let tls = match &config.dev {
        Some(developing) => dev::certificate(developing)?,
        None => config.tls,
    };
    let tls = tls.map(Tls::load).transpose()?.map(Arc::new);
    let operator = config.operator;
    let process = Process::new(operator.expectation()).map_err(Error::Start)?;
    let drain = operator.drain(!inherited.admin.is_empty());

    let release = config.manifest.map(|file| {
        let (metrics, readiness) = (Arc::clone(&process.metrics), Arc::clone(&process.readiness));
        Release::open(file, Arc::clone(&config.settings), metrics, readiness)
    });
    let mut release = release.transpose()?;

    // It listens before the others are bound, so that none of them can have its address.
    let admin = Arc::new(Admin::new(
        Arc::clone(&process.readiness),
        Arc::clone(&process.metrics),
    ));
    let listen = listener::bind(&operator.admin, false).map_err(AdminError::Listen)?;
    let _answering = AdminServer::start(with(inherited.admin, listen), Arc::clone(&admin))?;
    let listen = match &config.dev {
        Some(developing) => dev::bind(developing)?,
        None if config.listen.is_empty() && inherited.public.is_empty() => {
            listener::bind(&[Listen::default()], operator.reuse_port)?
        }
        None => listener::bind(&config.listen, operator.reuse_port)?,
    };
    let bound = with(inherited.public, listen);
    if let Some(writing) = &config.writing {
        let has_proxies = !config.clients.trusted_proxy.is_empty();
        writable::check(writing, &root, &bound, has_proxies, tls.is_some())?;
    }

    let descriptors = usize::try_from(disk::raise_descriptor_limit()).unwrap_or(usize::MAX);
    let memory = Memory::new(config.memory, config.open_files.unwrap_or(descriptors / 2));
    let scanner = Scanner::new(
        config.symlinks,
        Arc::clone(&config.settings),
        Some(Arc::clone(&memory)),
    );
    let (arming, armed) = channel();
    let scanned = process.scan(scanner, Arc::clone(&root), state.clone(), armed);
    // What was saved is read meanwhile; the tree is looked at when the watch is armed, so that
    // nothing falls between the two.
    let options = watch_options(directory.clone(), config.watching, config.dev.is_some());
    let watch = Watch::arm(options, root, Arc::clone(&process.metrics));
    drop(arming);
    let hints = watch.hints();
    let writer = config.writing.map(|writing| {
        let proxies = config.clients.trusted_proxy.clone().into();
        let patience = config.limits.write_timeout;
        let options = writable::options(writing, directory.clone(), proxies, patience);
        writable::writer(options, &process.metrics, &hints)
    });
    let writer = writer.transpose()?;
    let (scanner, scanned) = tokio::select! {
        scanned = scanned => scanned?,
        () = signals.stop() => return Ok(()),
    };

    immutable::warn(&scanned.broken, &process.metrics);
    let proven = match &mut release {
        Some(release) => release.begin(scanned.manifest),
        None => Some(scanned.manifest),
    };
    let is_proven = proven.is_some();
    let site = proven.unwrap_or_else(|| Manifest::empty(Arc::clone(&config.settings)));
    let site = Arc::new(Site::new(site));
    let saved = match scanned.is_saved && is_proven {
        true => Arc::downgrade(&site.current()),
        false => Weak::new(),
    };
    let start = |command| Hook::start(command, &site, is_proven, Arc::clone(&process.metrics));
    let hook = config.on_publish.map(start).transpose();
    let hook = hook.map_err(Error::Start)?;
    let suspects = hints.clone();
    site.on_suspect(move |file| {
        // Heard for as long as the process lives.
        let _ = suspects.send(Hint::Suspect(file.to_path_buf()));
    });
    let watch = watch.proving(release);
    let watching = watch.spawn(Arc::clone(&site), scanner, scanned.links);
    watching.map_err(Error::Start)?;
    if !is_proven && !process.is_proven(&site, &mut signals, &hints).await {
        return Ok(());
    }
    admin.show(Arc::clone(&site), Arc::clone(&memory));
    let saver = state
        .map(|file| Saver::start(file, directory, Arc::clone(&site), saved))
        .transpose()
        .map_err(Error::Start)?;
    let developer = config.dev.map(|flags| Developer::new(flags, &site));
    let log = match &developer {
        Some(developer) => developer.screen.log(&process.metrics).map(Some),
        None => access_log(&config.clients, &process.metrics),
    };
    let log = log.map_err(Error::Start)?;
    let dev = developer
        .as_ref()
        .map(|developer| Arc::clone(&developer.dev));
    let site_layer = SiteLayer::new(Arc::clone(&site), memory, Arc::clone(&process.metrics));
    let layers = match dev {
        Some(dev) => Box::new(DevLayer::new(dev, Box::new(site_layer))),
        None => public_layers(
            site_layer,
            operator.disclosure.into(),
            &site,
            writer.clone(),
            &process.readiness,
        ),
    };
    let handler = LogLayer::new(
        Arc::clone(&process.metrics),
        Arc::clone(&process.readiness),
        log.clone(),
        layers,
    );
    let server = Server::start(
        handler,
        config.workers,
        config.limits,
        tls.clone(),
        introducers(&config.clients),
    );
    let server = server.map_err(Error::Start)?;

    let port = bound.iter().find_map(Bound::port);
    let listeners = bound
        .into_iter()
        .map(Bound::listen)
        .collect::<Result<Vec<_>, _>>()?;
    process.readiness.enter(Phase::Serving);
    process.supervisor.ready();
    for listener in &listeners {
        tracing::info!("listening on {}", listener.url(tls.is_some()));
    }
    if let (Some(developer), Some(port)) = (&developer, port) {
        developer.greet(port, &site.current(), started.elapsed());
    }
    let look = Notify::new();
    tokio::select! {
        never = Developer::follow(developer.as_ref()) => match never {},
        never = server.accept(&listeners) => match never {},
        never = process.follow(&site) => match never {},
        never = process.look_again(&look, tls, writer, &hints) => match never {},
        () = process.until_told(&mut signals, &look, drain) => {}
    }
    if let Some(developer) = &developer {
        developer.dev.end();
    }
    tracing::info!("finishing requests in flight");
    tokio::select! {
        finished = server.finish(listeners) => {
            if !finished {
                tracing::warn!("some requests were cut: they took longer than --grace");
            }
        }
        () = signals.force() => tracing::warn!("stopped at once"),
    }
    if let Some(hook) = hook {
        tokio::select! {
            _ = spawn_blocking(|| hook.finish(HOOK_PATIENCE)) => {}
            () = signals.force() => {}
        }
    }
    if let Some(log) = log {
        log.finish(LAST_LINES);
    }
    if let Some(saver) = saver {
        tokio::select! {
            _ = spawn_blocking(|| saver.finish()) => {}
            () = signals.force() => {}
        }
    }
    Ok(())
}

/// The layers of a public server: health and writes, if they are wanted, in front of the site.
fn public_layers(
    site_layer: SiteLayer,
    options: StatusOptions,
    site: &Arc<Site>,
    writer: Option<Arc<Writer>>,
    readiness: &Arc<Readiness>,
) -> Box<dyn Layer> {
    let mut layers: Box<dyn Layer> = Box::new(
        site_layer
            .with_digest_header(options.digest_header)
            .with_writes(writer.is_some()),
    );
    if let Some(writer) = writer {
        layers = Box::new(WriteLayer::new(writer, Arc::clone(site), layers));
    }
    if let Some(path) = options.health {
        layers = Box::new(HealthLayer::new(path, Arc::clone(readiness), layers));
    }
    layers
}

/// The access log on standard output, where there is to be one.
fn access_log(
    clients: &ProxyOptions,
    metrics: &Arc<Metrics>,
) -> io::Result<Option<Arc<AccessLog>>> {
    let form: LineFormat = match clients.access_log {
        AccessLogForm::Off => return Ok(None),
        AccessLogForm::Combined => access::combined,
        AccessLogForm::Json => access::json,
    };
    // Straight to the descriptor: `Stdout` would write line by line.
    let out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let trusted = clients.trusted_proxy.clone().into();
    AccessLog::start(form, trusted, out, Arc::clone(metrics)).map(|log| Some(Arc::new(log)))
}

/// The proxies that begin with a PROXY header.
fn introducers(clients: &ProxyOptions) -> Option<TrustedProxies> {
    let proxies = clients.proxy_protocol.then_some(&clients.trusted_proxy)?;
    Some(proxies.clone().into())
}

/// What lives as long as the process.
struct Process {
    supervisor: Arc<Supervisor>,
    readiness: Arc<Readiness>,
    metrics: Arc<Metrics>,
}

impl Process {
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the system has no more threads.
    fn new(expectation: Option<Expectation>) -> io::Result<Self> {
        let supervisor = Arc::new(Supervisor::from_env()?);
        let alive = Arc::clone(&supervisor);
        tokio::spawn(async move { alive.show_life().await });
        Ok(Self {
            supervisor,
            readiness: Arc::new(Readiness::new(expectation)),
            metrics: Arc::default(),
        })
    }

    /// Scans on a thread of its own, which begins at once with what was `saved`, and looks at the
    /// tree when the other end of `armed` is gone.
    fn scan(
        &self,
        scanner: Scanner,
        root: Arc<Root>,
        saved: Option<StateFile>,
        armed: Receiver<Infallible>,
    ) -> impl Future<Output = Result<(Scanner, Scanned), Error>> {
        let progress = Arc::new(Progress::default());
        let seen = Arc::clone(&progress);
        let (done, scanned) = oneshot::channel();
        let metrics = Arc::clone(&self.metrics);
        thread::spawn(move || {
            let ready = || {
                // Nothing is ever sent.
                let _ = armed.recv();
            };
            let started = Instant::now();
            let scanned = scan(&scanner, &root, &seen, saved.as_ref(), ready);
            metrics.site_scans.observe(started.elapsed());
            // Nobody waits where a signal has come first.
            let _ = done.send((scanner, scanned));
        });
        async move {
            let (scanner, scanned) = tokio::select! {
                scanned = scanned => scanned.map_err(|_| Error::Scan)?,
                never = self.supervisor.report(&progress) => match never {},
            };
            Ok((scanner, scanned?))
        }
    }

    /// Waits for the first publication where what is on disk is not what `--manifest` lists.
    /// Whether it came before a signal to stop.
    async fn is_proven(&self, site: &Site, signals: &mut Signals, hints: &Sender<Hint>) -> bool {
        self.supervisor
            .status("waiting: what is on disk is not what --manifest lists");
        let mut publications = site.subscribe();
        let proven = async {
            // No manifest lists nothing.
            while site.current().is_empty() && publications.changed().await.is_ok() {}
        };
        let stop = async {
            while signals.next().await == SignalAction::Reload {
                let _ = hints.send(Hint::Sweep);
            }
        };
        tokio::select! {
            () = proven => true,
            () = stop => false,
        }
    }

    /// Holds each published state against what is expected.
    async fn follow(&self, site: &Site) -> Infallible {
        let mut publications = site.subscribe();
        loop {
            let (digest, files) = {
                let manifest = site.current();
                (manifest.digest(), files(&manifest))
            };
            if let Err(mismatch) = self.readiness.observe(digest) {
                self.metrics.unexpected.increment();
                tracing::warn!("{mismatch}");
            }
            let status = format_args!("serving {files}, site digest {digest}");
            self.supervisor.status(status);
            if publications.changed().await.is_err() {
                return pending().await;
            }
        }
    }

    /// Sweeps and reads certificate and tokens again, whenever there is reason to.
    async fn look_again(
        &self,
        look: &Notify,
        tls: Option<Arc<Tls>>,
        writer: Option<Arc<Writer>>,
        hints: &Sender<Hint>,
    ) -> Infallible {
        loop {
            look.notified().await;
            self.supervisor.reloading();
            let _ = hints.send(Hint::Sweep);
            if let Some(tls) = &tls {
                tls.reload_aside().await;
            }
            if let Some(writer) = &writer {
                writer.reload_aside().await;
            }
            self.supervisor.ready();
        }
    }

    /// Heeds signals until it is time to close the listeners.
    async fn until_told(&self, signals: &mut Signals, look: &Notify, drain: Duration) {
        let wait = loop {
            match signals.next().await {
                SignalAction::Reload => look.notify_one(),
                SignalAction::Drain => break drain,
                SignalAction::Stop => break Duration::ZERO,
            }
        };
        self.readiness.enter(Phase::Draining);
        self.supervisor.stopping();
        if !wait.is_zero() {
            tracing::info!(
                "draining for {}: not ready, but serving",
                format_duration(wait)
            );
            tokio::select! {
                () = sleep(wait) => {}
                () = signals.force() => {}
            }
        }
    }
}

fn watch_options(directory: PathBuf, watching: WatchOptions, is_dev: bool) -> WatcherOptions {
    let WatchOptions {
        settle,
        sweep,
        scrub,
        keep_old,
    } = watching;
    WatcherOptions {
        directory,
        settle,
        settle_alone: if is_dev { SETTLE_ALONE } else { settle },
        max_batch_age: if is_dev {
            MAX_BATCH_AGE_DEV
        } else {
            MAX_BATCH_AGE
        },
        sweep,
        scrub,
        keep_old,
        keep_pages: is_dev,
        hold_empty: keep_old.filter(|_| is_dev),
    }
}

fn with(mut inherited: Vec<Bound>, bound: Vec<Bound>) -> Vec<Bound> {
    inherited.extend(bound);
    inherited
}

//! The steps from a configuration to a server that answers requests.
//!
//! What can fail at once does so before the slow work of the scan, and nothing listens on a public
//! address before there is something to serve: a balancer would take an open port for a server.

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{self, Path, PathBuf};
use std::slice;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::HumanBytes;
use tokio::sync::oneshot;

use super::background::{BackgroundTasks, ShutdownStage};
use super::dev::{self, Developer};
use super::process::{Process, Reloadable};
use super::redirect::Redirect;
use super::scan::{BusyFiles, Scanned, scan as scan_with_bar};
use super::signals::{SignalAction, Signals};
use super::{Error, codings, counted, open as open_root, refuse_url, writable};
use crate::access::{self, AccessLog, LineFormat};
use crate::admin::Admin;
use crate::client::TrustedProxies;
use crate::config::{AccessLogForm, Config, ProxyOptions, SiteOrigin};
use crate::dev::DevLayer;
use crate::disk::{self, Root};
use crate::heap;
use crate::hook::Hook;
use crate::manifest::Manifest;
use crate::memory::{MIN_MEMORY, Memory};
use crate::metrics::Metrics;
use crate::readiness::{Phase, Readiness};
use crate::release::Release;
use crate::scan::{CodingStore, Progress, Scanner, uncompressed};
use crate::semantics::base_path::BasePath;
use crate::server::admin::{AdminError, AdminServer};
use crate::server::inherited::Inherited;
use crate::server::listener::{self, BoundSocket, ListenError};
use crate::server::tls::Tls;
use crate::server::{Handlers, Listeners, Server};
use crate::service::{
    HealthLayer, HstsFilter, Layer, LogLayer, RedirectLayer, SiteLayer, WriteLayer,
};
use crate::settings::{DescriptorBudget, DescriptorDemand, FollowOptions, Limits, StatusOptions};
use crate::site::Site;
use crate::state::{Saver, StateFile};
use crate::watch::{Hint, Watch, WatcherOptions, immutable};
use crate::write::Writer;

/// How long a change may wait for quiet: replicas should publish a deploy as a whole.
const MAX_BATCH_AGE: Duration = Duration::from_secs(2);
/// The same for `etagd dev`, where somebody waits to see the change.
const MAX_BATCH_AGE_DEV: Duration = Duration::from_millis(200);
/// Quiet time after a single file was saved in place, for `etagd dev`.
const SETTLE_ALONE_DEV: Duration = Duration::from_millis(5);
/// How long the watcher may wait for one call of the file system before this process is not ready:
/// to watch a site of a million directories takes some seconds.
const MAX_STEP: Duration = Duration::from_secs(30);
/// How long shutdown waits for the command of `--on-publish`.
const MAX_HOOK_WAIT: Duration = Duration::from_secs(5);
/// How long shutdown waits for the last lines of the access log to be written.
const MAX_ACCESS_LOG_WAIT: Duration = Duration::from_secs(1);

/// What a server is started with, opened and read.
pub(super) struct Inputs {
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) source: SourceInputs,
}

/// Where the site comes from.
pub(super) enum SourceInputs {
    /// From a directory.
    Directory(Box<DirectoryInputs>),
    /// From a store.
    Store(Box<FollowOptions>),
}

/// The site's directory, and the files that flags name for it.
pub(super) struct DirectoryInputs {
    /// The site's directory, absolute; its last parts may be links that are switched later.
    directory: PathBuf,
    root: Arc<Root>,
    state: Option<StateFile>,
    pub(super) release: Option<Release>,
    pub(super) store: CodingStore,
}

/// Opens and reads the files that flags name.
pub(super) fn open(config: &Config, process: &Process) -> Result<Inputs, Error> {
    let source = match &config.origin {
        SiteOrigin::Directory(directory) => {
            SourceInputs::Directory(Box::new(open_directory(config, directory, process)?))
        }
        SiteOrigin::Store(options) => SourceInputs::Store(options.clone()),
    };
    let tls_files = match &config.dev {
        Some(options) => dev::certificate(options)?,
        None => config.tls.clone(),
    };
    let tls = tls_files.map(Tls::load).transpose()?.map(Arc::new);
    Ok(Inputs { tls, source })
}

fn open_directory(
    config: &Config,
    directory: &Path,
    process: &Process,
) -> Result<DirectoryInputs, Error> {
    // Before it is made absolute, and no longer looks like one.
    refuse_url(directory)?;
    let directory = path::absolute(directory).unwrap_or_else(|_| directory.to_path_buf());
    let root = open_root(&directory)?;
    let state = match &config.state {
        Some(file) => Some(StateFile::new(file, &root, Arc::clone(&config.settings))?),
        None => None,
    };
    let release = match &config.manifest {
        Some(file) => Some(Release::open(
            file.clone(),
            Arc::clone(&config.settings),
            Arc::clone(&process.metrics),
            Arc::clone(&process.readiness),
        )?),
        None => None,
    };
    let store = codings::open(config.cache.as_deref(), config.cache_size, &root)?;
    Ok(DirectoryInputs {
        directory,
        root,
        state,
        release,
        store,
    })
}

/// The operator's listeners, which answer already, and the public ones, which do not listen yet.
pub(super) struct Bound {
    public: Vec<BoundSocket>,
    redirect: Option<Redirect>,
    admin: Arc<Admin>,
    /// `None` without an admin listener.
    admin_server: Option<AdminServer>,
}

/// Takes all addresses, and starts to answer the operator.
pub(super) fn bind(
    config: &Config,
    inherited: Inherited,
    inputs: &Inputs,
    process: &Process,
) -> Result<Bound, Error> {
    let admin = Arc::new(Admin::new(
        Arc::clone(&process.readiness),
        Arc::clone(&process.metrics),
    ));
    // It listens before the public addresses are bound, so that none of them can be its own.
    let mut admin_bound = inherited.admin;
    admin_bound.extend(listener::bind(&config.operator.admin, false).map_err(AdminError::Listen)?);
    let admin_server = AdminServer::start(
        admin_bound,
        Arc::clone(&admin),
        config.operator.allow_host.clone(),
    )?;

    let mut public = inherited.public;
    public.extend(bind_public(config, public.is_empty())?);
    let redirect = Redirect::bind(
        &config.redirect,
        inherited.redirect,
        &public,
        config.operator.reuse_port,
        inputs.tls.is_some(),
    )?;
    if let (Some(options), SourceInputs::Directory(site)) = (&config.writing, &inputs.source) {
        let has_proxies = !config.clients.trusted_proxy.is_empty();
        writable::check(
            options,
            &site.root,
            &public,
            has_proxies,
            inputs.tls.is_some(),
        )?;
    }
    Ok(Bound {
        public,
        redirect,
        admin,
        admin_server,
    })
}

fn bind_public(config: &Config, needs_default: bool) -> Result<Vec<BoundSocket>, ListenError> {
    let can_share = config.operator.reuse_port;
    match &config.dev {
        Some(options) => dev::bind(options),
        None if config.listen.is_empty() && needs_default => {
            listener::bind(slice::from_ref(&config.default_listen), can_share)
        }
        None => listener::bind(&config.listen, can_share),
    }
}

/// The result of the first scan, and the watch that was armed before it.
pub(super) struct FirstScan {
    scanner: Scanner,
    scanned: Scanned,
    watch: Watch,
    memory: Arc<Memory>,
    writer: Option<Arc<Writer>>,
}

/// Raises the limit of open descriptors as far as it goes, and shares it out. What was asked for and
/// does not fit is named.
pub(super) fn share_descriptors(config: &Config, bound: &Bound) -> DescriptorBudget {
    let limit = usize::try_from(disk::raise_descriptor_limit()).unwrap_or(usize::MAX);
    let demand = DescriptorDemand {
        workers: config.workers,
        listeners: bound.public.len()
            + bound.redirect.as_ref().map_or(0, Redirect::len)
            + config.operator.admin.len(),
        uploads: config
            .writing
            .as_ref()
            .map_or(0, |writing| writing.max_uploads),
        connections: config.limits.max_connections,
        open_files: config.open_files,
    };
    let budget = DescriptorBudget::new(limit, &demand);
    let warn = |flag, wanted, given| {
        tracing::warn!(
            flag,
            limit,
            wanted,
            given,
            "{flag} is {given} instead of {wanted}: the process may have {limit} open descriptors; \
             raise that with `ulimit -n` or LimitNOFILE="
        );
    };
    if budget.connections < demand.connections {
        warn("--max-connections", demand.connections, budget.connections);
    }
    if let Some(wanted) = demand.open_files
        && budget.open_files < wanted
    {
        warn("--open-files", wanted, budget.open_files);
    }
    budget
}

/// The memory for content. A `--memory` that is too little is named; on a machine so small that a quarter
/// of it is less, there is no flag to change.
pub(super) fn open_memory(config: &Config, budget: DescriptorBudget) -> Arc<Memory> {
    if let Some(given) = config.memory.filter(|given| *given < MIN_MEMORY) {
        let (given, least) = (HumanBytes(given), HumanBytes(MIN_MEMORY));
        tracing::warn!(
            memory = MIN_MEMORY,
            "--memory {given} is too little: {least} are used, the least that responses can do with"
        );
    }
    Memory::new(config.memory_budget(), budget.open_files)
}

/// Arms the watch and scans the site. `None` when a signal ends that.
pub(super) async fn scan(
    config: &Config,
    inputs: &DirectoryInputs,
    store: CodingStore,
    budget: DescriptorBudget,
    process: &Process,
    signals: &mut Signals,
) -> Result<Option<FirstScan>, Error> {
    let memory = open_memory(config, budget);
    let scanner = Scanner::new(
        config.symlinks,
        Arc::clone(&config.settings),
        Some(Arc::clone(&memory)),
    )
    .with_store(store);
    if let Some(compression) = scanner.compression() {
        process.readiness.show_compression(compression);
    }
    // The saved manifest is read while the watch is armed, and the tree is looked at afterwards:
    // no change can fall between the two.
    let (arming, armed) = channel();
    let scanning = scan_on_thread(scanner, inputs, process, armed);
    let watch = Watch::arm(
        watcher_options(config, inputs),
        Arc::clone(&inputs.root),
        Arc::clone(&process.metrics),
    );
    process.readiness.look_after(watch.beats());
    drop(arming);
    let writer = match &config.writing {
        Some(options) => {
            let options = writable::options(
                options.clone(),
                inputs.directory.clone(),
                config.clients.trusted_proxy.clone().into(),
                config.limits.write_timeout,
            );
            Some(writable::writer(options, &process.metrics, &watch.hints())?)
        }
        None => None,
    };
    tokio::select! {
        scanned = scanning => {
            let (scanner, scanned) = scanned?;
            Ok(Some(FirstScan { scanner, scanned, watch, memory, writer }))
        }
        () = signals.stop() => Ok(None),
    }
}

/// Scans on a thread of its own. It begins at once with the saved manifest, and looks at the tree
/// when the other end of `armed` is gone.
fn scan_on_thread(
    scanner: Scanner,
    inputs: &DirectoryInputs,
    process: &Process,
    armed: Receiver<Infallible>,
) -> impl Future<Output = Result<(Scanner, Scanned), Error>> {
    let (progress, compression) = (Arc::new(Progress::default()), scanner.compression());
    let (done, result) = oneshot::channel();
    let (root, state) = (Arc::clone(&inputs.root), inputs.state.clone());
    let (shown, metrics) = (Arc::clone(&progress), Arc::clone(&process.metrics));
    thread::spawn(move || {
        let wait_until_armed = || {
            // Nothing is ever sent: the channel is closed.
            let _ = armed.recv();
        };
        let started = Instant::now();
        let scanned = scan_with_bar(
            &scanner,
            &root,
            &shown,
            state.as_ref(),
            wait_until_armed,
            BusyFiles::Leave,
        );
        metrics.site_scans.observe(started.elapsed());
        heap::give_back();
        // After a signal nobody waits for it.
        let _ = done.send((scanner, scanned));
    });
    let supervisor = Arc::clone(&process.supervisor);
    async move {
        let (scanner, scanned) = tokio::select! {
            result = result => result.map_err(|_| Error::Scan)?,
            never = supervisor.report(&progress, compression.as_deref()) => match never {},
        };
        Ok((scanner, scanned?))
    }
}

fn watcher_options(config: &Config, inputs: &DirectoryInputs) -> WatcherOptions {
    let is_dev = config.dev.is_some();
    let options = &config.watching;
    WatcherOptions {
        directory: inputs.directory.clone(),
        exclude: Arc::clone(&config.settings.exclude),
        settle: options.settle,
        settle_alone: if is_dev {
            SETTLE_ALONE_DEV
        } else {
            options.settle
        },
        max_batch_age: if is_dev {
            MAX_BATCH_AGE_DEV
        } else {
            MAX_BATCH_AGE
        },
        sweep: options.sweep,
        scrub: options.scrub,
        keep_old: options.keep_old,
        keep_pages: is_dev,
        hold_empty: options.keep_old.filter(|_| is_dev),
        max_step: MAX_STEP,
    }
}

/// A site that is published and watched, with what acts on it.
pub(super) struct Published {
    pub(super) site: Arc<Site>,
    pub(super) memory: Arc<Memory>,
    /// What keeps the file of `--state`, if there is one.
    pub(super) saved: Option<SavedState>,
    /// Has somebody look now whether the site has changed.
    pub(super) look: Box<dyn Fn()>,
    pub(super) writer: Option<Arc<Writer>>,
    pub(super) background: BackgroundTasks,
}

/// The file of `--state`, and what is in it.
pub(super) struct SavedState {
    file: StateFile,
    directory: PathBuf,
    /// The state that it has already, if it is the published one.
    manifest: Weak<Manifest>,
}

/// Publishes what was scanned, once it is what `--manifest` lists, and starts to watch the site.
/// `None` when a signal ends the wait for that.
pub(super) async fn publish(
    config: &Config,
    mut inputs: DirectoryInputs,
    first: FirstScan,
    process: &Process,
    signals: &mut Signals,
) -> Result<Option<Published>, Error> {
    let FirstScan {
        scanner,
        scanned,
        watch,
        memory,
        writer,
    } = first;
    immutable::warn(&scanned.broken, &process.metrics);
    if config.dev.is_none() && config.settings.compress.is_none() {
        suggest_compression(&scanned.manifest);
    }
    let mut release = inputs.release.take();
    let proven = match &mut release {
        Some(release) => release.begin(scanned.manifest, &scanner),
        None => Some(scanned.manifest),
    };
    let is_proven = proven.is_some();
    let manifest = proven.unwrap_or_else(|| Manifest::empty(Arc::clone(&config.settings)));
    let site = Arc::new(Site::new(manifest));
    let manifest = match scanned.is_saved && is_proven {
        true => Arc::downgrade(&site.current()),
        false => Weak::new(),
    };
    let directory = inputs.directory;
    let saved = inputs.state.map(|file| SavedState {
        file,
        directory,
        manifest,
    });
    let mut background = BackgroundTasks::default();
    start_hook(config, &site, is_proven, process, &mut background)?;
    let hints = watch.hints();
    let suspects = hints.clone();
    site.on_suspect(move |file| {
        // The watcher's thread ends with the process.
        let _ = suspects.send(Hint::Suspect(file.to_path_buf()));
    });
    watch
        .proving(release)
        .awaiting(scanned.busy)
        .spawn(Arc::clone(&site), scanner, scanned.links)
        .map_err(Error::Start)?;
    if !is_proven && !is_proven_later(&site, process, signals, &hints).await {
        return Ok(None);
    }
    let look = Box::new(move || {
        // Without a watcher there is nobody to compare the site with the disk.
        let _ = hints.send(Hint::Sweep);
    });
    Ok(Some(Published {
        site,
        memory,
        saved,
        look,
        writer,
        background,
    }))
}

/// Starts what runs the command of `--on-publish`, if there is one.
pub(super) fn start_hook(
    config: &Config,
    site: &Site,
    is_published: bool,
    process: &Process,
    background: &mut BackgroundTasks,
) -> Result<(), Error> {
    let Some(command) = &config.on_publish else {
        return Ok(());
    };
    let metrics = Arc::clone(&process.metrics);
    let hook = Hook::start(command.clone(), site, is_published, metrics).map_err(Error::Start)?;
    background.add(
        "--on-publish command",
        ShutdownStage::AfterRequests,
        move || {
            hook.finish(MAX_HOOK_WAIT);
        },
    );
    Ok(())
}

/// Says what could be sent compressed and is not.
fn suggest_compression(manifest: &Manifest) {
    let (files, bytes) = uncompressed(manifest);
    if files > 0 {
        tracing::info!(
            files,
            bytes,
            "{} ({}) could be sent compressed: --compress, or etagd compress",
            counted(files, "file"),
            HumanBytes(bytes)
        );
    }
}

/// Waits for the first publication while what is on disk is not what `--manifest` lists: `false`
/// when a signal to stop comes first.
async fn is_proven_later(
    site: &Site,
    process: &Process,
    signals: &mut Signals,
    hints: &Sender<Hint>,
) -> bool {
    process
        .supervisor
        .status("waiting: the files on disk do not match --manifest");
    let mut publications = site.subscribe();
    let proven = async {
        // A manifest that lists nothing is refused, so an empty site is not published yet.
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

/// A server that answers requests.
pub(super) struct RunningServer {
    pub(super) server: Server,
    pub(super) listeners: Listeners,
    pub(super) site: Arc<Site>,
    pub(super) developer: Option<Developer>,
    pub(super) reloadable: Reloadable,
    pub(super) background: BackgroundTasks,
    /// The first public port.
    port: Option<u16>,
    /// Answers the operator until it is dropped.
    _admin_server: Option<AdminServer>,
}

/// Starts the workers and listens: from here on requests are answered.
pub(super) fn serve(
    config: &Config,
    tls: Option<Arc<Tls>>,
    bound: Bound,
    published: Published,
    budget: DescriptorBudget,
    process: &Process,
) -> Result<RunningServer, Error> {
    let Published {
        site,
        memory,
        saved,
        look,
        writer,
        mut background,
    } = published;
    bound.admin.show(Arc::clone(&site), Arc::clone(&memory));
    let developer = config
        .dev
        .clone()
        .map(|options| Developer::new(options, &site));
    let log = access_log(config, developer.as_ref(), &process.metrics).map_err(Error::Start)?;
    let saver = saved.map(|saved| start_saver(saved, &site, process));
    let saver = saver.transpose()?;
    add_to_background(&mut background, developer.as_ref(), log.clone(), saver);

    let site_layer = SiteLayer::new(Arc::clone(&site), memory, Arc::clone(&process.metrics))
        .with_trusted_proxies(config.clients.trusted_proxy.clone().into());
    let challenges = site_layer.clone().for_files_alone();
    let layers = match &developer {
        Some(developer) => {
            let dev = Arc::clone(&developer.dev);
            Box::new(DevLayer::new(dev, Box::new(site_layer)))
        }
        None => public_layers(
            site_layer,
            config.operator.disclosure.clone().into(),
            &site,
            writer.clone(),
            &process.readiness,
        ),
    };
    let log_layer = |layers| {
        // A developer's server, and one that speaks TLS, are plain on purpose where they are plain.
        let warns = tls.is_none() && developer.is_none();
        LogLayer::new(
            Arc::clone(&process.metrics),
            Arc::clone(&process.readiness),
            log.clone(),
            HstsFilter::new(config.clients.trusted_proxy.clone().into(), warns),
            layers,
        )
    };
    let handlers = Handlers {
        site: log_layer(layers),
        redirect: bound.redirect.as_ref().map(|redirect| {
            let layer = RedirectLayer::new(redirect.https_port, Box::new(challenges));
            log_layer(Box::new(layer))
        }),
    };
    let server = Server::start(
        handlers,
        config.workers,
        limits_within(budget, config),
        tls.clone(),
        proxy_header_from(&config.clients),
    )
    .map_err(Error::Start)?;
    let port = bound.public.iter().find_map(BoundSocket::port);
    let base_path = site.current().settings().base_path.clone();
    let is_secure = tls.is_some();
    let listeners = listen(bound.public, bound.redirect, process, is_secure, &base_path)?;
    Ok(RunningServer {
        server,
        listeners,
        site,
        developer,
        reloadable: Reloadable { look, tls, writer },
        background,
        port,
        _admin_server: bound.admin_server,
    })
}

/// Saves each published manifest in the file of `--state` from now on.
fn start_saver(saved: SavedState, site: &Arc<Site>, process: &Process) -> Result<Saver, Error> {
    let SavedState {
        file,
        directory,
        manifest,
    } = saved;
    let metrics = Arc::clone(&process.metrics);
    Saver::start(file, directory, Arc::clone(site), manifest, metrics).map_err(Error::Start)
}

/// Has what runs alongside the server finished at shutdown.
fn add_to_background(
    background: &mut BackgroundTasks,
    developer: Option<&Developer>,
    log: Option<Arc<AccessLog>>,
    saver: Option<Saver>,
) {
    if let Some(developer) = developer {
        let dev = Arc::clone(&developer.dev);
        background.add("event streams", ShutdownStage::BeforeRequests, move || {
            dev.end()
        });
    }
    if let Some(log) = log {
        background.add("access log", ShutdownStage::AfterRequests, move || {
            log.finish(MAX_ACCESS_LOG_WAIT);
        });
    }
    if let Some(saver) = saver {
        background.add("saved manifest", ShutdownStage::AfterRequests, move || {
            saver.finish();
        });
    }
}

/// The limits on clients, with no more connections than there are descriptors for.
fn limits_within(budget: DescriptorBudget, config: &Config) -> Limits {
    Limits {
        max_connections: budget.connections,
        ..config.limits.clone()
    }
}

/// Listens on the public addresses, and says so: to the operator, the supervisor and the log.
fn listen(
    site: Vec<BoundSocket>,
    redirect: Option<Redirect>,
    process: &Process,
    is_secure: bool,
    base_path: &BasePath,
) -> Result<Listeners, Error> {
    let site = site
        .into_iter()
        .map(BoundSocket::listen)
        .collect::<Result<Vec<_>, _>>()?;
    let https_port = redirect.as_ref().map(|redirect| redirect.https_port);
    let redirect = redirect
        .map(Redirect::listen)
        .transpose()?
        .unwrap_or_default();
    process.readiness.enter(Phase::Serving);
    process.supervisor.ready();
    // Before the others: "listening" is what people and programs wait for.
    for listener in &redirect {
        let url = listener.url(false);
        tracing::info!(%url, https_port, "redirecting {url} to HTTPS");
    }
    let with_base_path = |url| match base_path.is_whole_host() {
        true => url,
        false => format!("{url}{}", base_path.home()),
    };
    for listener in &site {
        let url = with_base_path(listener.url(is_secure));
        let network = listener.network_urls(is_secure).into_iter();
        match network.map(with_base_path).collect::<Vec<_>>().join(", ") {
            none if none.is_empty() => tracing::info!(%url, "listening on {url}"),
            network => {
                tracing::info!(%url, network, "listening on {url} (in the network: {network})");
            }
        }
    }
    Ok(Listeners { site, redirect })
}

impl RunningServer {
    /// Shows a developer where the site is, `started` ago.
    pub(super) fn greet(&self, started: Duration) {
        if let (Some(developer), Some(port)) = (&self.developer, self.port) {
            developer.greet(port, &self.site.current(), started);
        }
    }
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

/// The access log on standard output, if there is to be one.
fn access_log(
    config: &Config,
    developer: Option<&Developer>,
    metrics: &Arc<Metrics>,
) -> io::Result<Option<Arc<AccessLog>>> {
    if let Some(developer) = developer {
        return developer.screen.log(metrics).map(Some);
    }
    let format: LineFormat = match config.clients.access_log {
        AccessLogForm::Off => return Ok(None),
        AccessLogForm::Combined => access::combined,
        AccessLogForm::Json => access::json,
    };
    // Not `Stdout`, which would write line by line: the log writes whole batches.
    let out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let trusted = config.clients.trusted_proxy.clone().into();
    let log = AccessLog::start(format, trusted, out, Arc::clone(metrics))?;
    Ok(Some(Arc::new(log)))
}

/// The proxies whose connections begin with a PROXY header.
fn proxy_header_from(clients: &ProxyOptions) -> Option<TrustedProxies> {
    clients
        .proxy_protocol
        .then(|| clients.trusted_proxy.clone().into())
}

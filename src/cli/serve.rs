//! `etagd serve`: from a configuration to a server that stops when it is told to.

use std::fs::File;
use std::future::{pending, poll_fn};
use std::io;
use std::os::fd::AsFd;
use std::path;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::sync::{Notify, oneshot};

use super::scan::scan;
use super::signals::{Asked, Signals};
use super::{Error, open};
use crate::access::{self, AccessLog, Form};
use crate::client::TrustedProxies;
use crate::config::{AccessLogForm, Clients, Config, Watching};
use crate::disk;
use crate::lease;
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::scan::Scanner;
use crate::server::Server;
use crate::server::listener::{self, Bound};
use crate::server::tls::Tls;
use crate::service::Service;
use crate::site::Site;
use crate::watch::{self, Hint, Watch};

/// How long the last lines of the access log may take.
const LAST_LINES: Duration = Duration::from_secs(1);

pub(super) fn serve(config: Config) -> Result<(), Error> {
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
    let scanner = Scanner::new(
        config.symlinks,
        Arc::clone(&config.settings),
        Some(Arc::clone(&memory)),
    );
    let (done, scanned) = oneshot::channel();
    let scan_metrics = Arc::clone(&metrics);
    thread::spawn(move || {
        let started = Instant::now();
        let scanned = scan(&scanner, &root);
        scan_metrics.site_scans.observe(started.elapsed());
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
    let log = access_log(&config.clients, &metrics).map_err(Error::Start)?;
    let introducers = introducers(&config.clients);
    let service = Service::new(site, memory, metrics).logging_to(log.clone());
    let server = Server::start(
        service,
        config.workers,
        config.limits,
        tls.clone(),
        introducers,
    );
    let server = server.map_err(Error::Start)?;
    let result = runtime.block_on(run_server(server, bound, tls, &mut signals, &hints));
    if let Some(log) = log {
        log.finish(LAST_LINES);
    }
    result
}

/// The access log on standard output, where there is to be one.
fn access_log(clients: &Clients, metrics: &Arc<Metrics>) -> io::Result<Option<Arc<AccessLog>>> {
    let form: Form = match clients.access_log {
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
fn introducers(clients: &Clients) -> Option<TrustedProxies> {
    let proxies = clients.proxy_protocol.then_some(&clients.trusted_proxy)?;
    Some(proxies.clone().into())
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

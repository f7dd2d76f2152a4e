//! `etagd serve`: from a configuration to a server that stops when it is told to.

use std::future::{pending, poll_fn};
use std::path;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::watch::Receiver;
use tokio::sync::{Notify, oneshot};

use super::scan::scan;
use super::signals::{Asked, Signals};
use super::{Error, open};
use crate::config::{Config, Watching};
use crate::disk;
use crate::hook::Hook;
use crate::lease;
use crate::manifest::Manifest;
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::readiness::Readiness;
use crate::release::Release;
use crate::scan::Scanner;
use crate::server::Server;
use crate::server::listener::{self, Bound};
use crate::server::tls::Tls;
use crate::service::Service;
use crate::site::Site;
use crate::watch::{self, Hint, Watch};

/// How long the command of `--on-publish` is waited for at the end.
const HOOK_PATIENCE: Duration = Duration::from_secs(5);

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
    let metrics = Arc::new(Metrics::default());
    let readiness = Arc::new(Readiness::default());
    let open_release = |file| {
        let (metrics, readiness) = (Arc::clone(&metrics), Arc::clone(&readiness));
        Release::open(file, config.settings, metrics, readiness)
    };
    let mut release = config.manifest.map(open_release).transpose()?;
    let bound = listener::bind(&config.listen)?;
    let descriptors = usize::try_from(disk::raise_descriptor_limit()).unwrap_or(usize::MAX);
    let memory = Memory::new(config.memory, config.open_files.unwrap_or(descriptors / 2));
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
    let proven = match &mut release {
        Some(release) => release.begin(manifest),
        None => Some(manifest),
    };
    let is_proven = proven.is_some();
    let site = Arc::new(Site::new(
        proven.unwrap_or_else(|| Manifest::empty(config.settings)),
    ));
    let mut publications = site.subscribe();
    let hints = watch.hints();
    let suspects = hints.clone();
    site.on_suspect(move |file| {
        // Heard for as long as the process lives.
        let _ = suspects.send(Hint::Suspect(file.to_path_buf()));
    });
    let start_hook = |command| Hook::start(command, &site, is_proven, Arc::clone(&metrics));
    let hook = config.on_publish.map(start_hook).transpose();
    let hook = hook.map_err(Error::Start)?;
    watch
        .proving(release)
        .drive(Arc::clone(&site), scanner, links)
        .map_err(Error::Start)?;
    if !is_proven && !runtime.block_on(is_published(&mut publications, &mut signals, &hints)) {
        return Ok(());
    }
    let service = Service::new(site, memory, metrics);
    let server = Server::start(service, config.workers, config.limits, tls.clone());
    let server = server.map_err(Error::Start)?;
    runtime.block_on(run_server(server, bound, tls, &mut signals, &hints))?;
    if let Some(hook) = hook {
        let finish = tokio::task::spawn_blocking(|| hook.finish(HOOK_PATIENCE));
        runtime.block_on(async {
            tokio::select! {
                _ = finish => {}
                () = signals.force() => {}
            }
        });
    }
    Ok(())
}

/// Waits for the first publication: what is on disk is not what `--manifest` lists. Whether it
/// came before a signal to stop.
async fn is_published(
    publications: &mut Receiver<u64>,
    signals: &mut Signals,
    hints: &Sender<Hint>,
) -> bool {
    let stop = async {
        while signals.next().await == Asked::Look {
            let _ = hints.send(Hint::Sweep);
        }
    };
    tokio::select! {
        published = publications.changed() => published.is_ok(),
        () = stop => false,
    }
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

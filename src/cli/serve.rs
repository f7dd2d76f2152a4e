//! `etagd serve`: from a configuration to a server that stops when it is told to.

use std::future::poll_fn;
use std::path;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::task::Poll;
use std::thread;

use tokio::runtime::Runtime;
use tokio::sync::{Notify, oneshot};

use super::scan::scan;
use super::signals::{Asked, Signals};
use super::{Error, open, write};
use crate::config::{Config, Watching};
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
use crate::write::Writer;

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
    if let Some(writing) = &config.writing {
        write::check(writing, &bound, tls.is_some())?;
    }
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
        directory: directory.clone(),
        settle,
        sweep,
        scrub,
        keep_old,
    };
    // Before the scan, so that nothing falls between the two.
    let watch = Watch::arm(options, Arc::clone(&root), Arc::clone(&metrics));
    let hints = watch.hints();
    let writer = config.writing.map(|writing| {
        let options = write::options(writing, directory, config.limits.write_timeout);
        let commits = hints.clone();
        let commit = move |commit| {
            // Without a watcher nobody answers, which is an answer as well.
            let _ = commits.send(Hint::Commit(commit));
        };
        Writer::new(options, Arc::clone(&metrics), commit).map(Arc::new)
    });
    let writer = writer.transpose()?;
    if let Some(writer) = writer.clone() {
        thread::spawn(move || writer.clear());
    }
    let scanner = Scanner::new(
        config.symlinks,
        Arc::clone(&config.settings),
        Some(Arc::clone(&memory)),
    );
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
    let suspects = hints.clone();
    site.on_suspect(move |file| {
        // Heard for as long as the process lives.
        let _ = suspects.send(Hint::Suspect(file.to_path_buf()));
    });
    watch
        .drive(Arc::clone(&site), scanner, links)
        .map_err(Error::Start)?;
    let service = Service::new(site, memory, metrics).writing(writer.clone());
    let server = Server::start(service, config.workers, config.limits, tls.clone());
    let server = server.map_err(Error::Start)?;
    let secrets = Secrets { tls, writer };
    runtime.block_on(run_server(server, bound, secrets, &mut signals, &hints))
}

/// Accepts until a signal, then lets what is in flight finish.
async fn run_server(
    server: Server,
    bound: Vec<Bound>,
    secrets: Secrets,
    signals: &mut Signals,
    hints: &Sender<Hint>,
) -> Result<(), Error> {
    let listeners = bound
        .into_iter()
        .map(Bound::listen)
        .collect::<Result<Vec<_>, _>>()?;
    for listener in &listeners {
        tracing::info!("listening on {}", listener.url(secrets.tls.is_some()));
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
            () = reload_on(&look, secrets) => {}
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

/// What is read again when the operator asks for it.
struct Secrets {
    tls: Option<Arc<Tls>>,
    writer: Option<Arc<Writer>>,
}

/// Reads certificate and tokens again whenever there is reason to look. It never ends.
async fn reload_on(look: &Notify, secrets: Secrets) {
    loop {
        look.notified().await;
        let Secrets { tls, writer } = &secrets;
        if let Some(tls) = tls.clone() {
            reload("the certificate", move || tls.reload()).await;
        }
        if let Some(writer) = writer.clone().filter(|writer| writer.takes_tokens()) {
            reload("the tokens for writing", move || writer.reload()).await;
        }
    }
}

/// Reads files, which may block; where they can't be used, what is in use stays.
async fn reload<E>(what: &str, read: impl FnOnce() -> Result<(), E> + Send + 'static)
where
    E: std::fmt::Display + Send + 'static,
{
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(())) => tracing::info!("read again: {what}"),
        Ok(Err(error)) => tracing::error!("{what} in use: kept, for {error}"),
        Err(stopped) => tracing::error!("{what} in use: kept, for {stopped}"),
    }
}

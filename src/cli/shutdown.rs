//! From the signal that ends a server to the end of its process (promise P9).

use std::time::Duration;

use humantime::format_duration;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::background::ShutdownStage;
use super::dev::Developer;
use super::process::Process;
use super::signals::{SignalAction, Signals};
use super::startup::RunningServer;
use crate::readiness::Phase;

/// Answers requests until a signal ends that, and for `drain` longer if it was SIGTERM.
pub(super) async fn run_until_drained(
    running: &RunningServer,
    process: &Process,
    signals: &mut Signals,
    drain: Duration,
) {
    let reload = Notify::new();
    tokio::select! {
        never = Developer::follow(running.developer.as_ref()) => match never {},
        never = running.server.accept(&running.listeners) => match never {},
        never = process.follow(&running.site) => match never {},
        never = process.reload(&reload, &running.reloadable) => match never {},
        () = wait_for_end(process, signals, &reload, drain) => {}
    }
}

/// Acts on signals until it is time to close the listeners.
async fn wait_for_end(process: &Process, signals: &mut Signals, reload: &Notify, drain: Duration) {
    let wait = loop {
        match signals.next().await {
            SignalAction::Reload => reload.notify_one(),
            SignalAction::Drain => break drain,
            SignalAction::Stop => break Duration::ZERO,
        }
    };
    process.readiness.enter(Phase::Draining);
    process.supervisor.stopping();
    if !wait.is_zero() {
        tracing::info!(
            seconds = wait.as_secs_f64(),
            "draining for {}: not ready, but serving",
            format_duration(wait)
        );
        tokio::select! {
            () = sleep(wait) => {}
            () = signals.force() => {}
        }
    }
}

/// Closes the listeners, waits up to `grace` for requests in flight, then finishes what runs
/// alongside the server. Each wait ends early on an interrupt.
pub(super) async fn finish(running: RunningServer, signals: &mut Signals, grace: Duration) {
    let RunningServer {
        server,
        listeners,
        mut background,
        ..
    } = running;
    background
        .finish(ShutdownStage::BeforeRequests, signals)
        .await;
    let connections = server.open_connections();
    tracing::info!(connections, "shutting down: waiting for in-flight requests");
    tokio::select! {
        is_finished = server.finish(listeners) => {
            if !is_finished {
                tracing::warn!(
                    seconds = grace.as_secs_f64(),
                    "some requests were cut off: they took longer than {} (see --grace)",
                    format_duration(grace)
                );
            }
        }
        () = signals.force() => tracing::warn!(connections, "stopped immediately"),
    }
    background
        .finish(ShutdownStage::AfterRequests, signals)
        .await;
}

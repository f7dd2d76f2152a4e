//! A site whose releases are in a store: from the options to a site that is published and followed.

use std::sync::Arc;

use super::Error;
use super::background::{BackgroundTasks, ShutdownStage};
use super::process::Process;
use super::signals::Signals;
use super::startup::{self, Published};
use crate::config::Config;
use crate::follow::{StoreFollower, follow};
use crate::settings::{DescriptorBudget, FollowOptions};
use crate::site::Site;

/// Publishes the newest release of a channel, and follows it. `None` when a signal ends that.
pub(super) async fn publish(
    config: &Config,
    options: FollowOptions,
    budget: DescriptorBudget,
    process: &Process,
    signals: &mut Signals,
) -> Result<Option<Published>, Error> {
    let memory = startup::open_memory(config, budget);
    let (metrics, readiness) = (&process.metrics, &process.readiness);
    let follower = StoreFollower::open(
        options,
        Arc::clone(&memory),
        Arc::clone(metrics),
        Arc::clone(readiness),
        config.workers,
    )?;
    let (progress, followed) = (follower.progress(), follower.followed().to_string());
    readiness.explain(Some(format!("fetching {followed}")));
    process
        .supervisor
        .status(format_args!("fetching {followed}"));
    let supervisor = &process.supervisor;
    let (follower, manifest) = tokio::select! {
        begun = follower.begin() => begun?,
        never = supervisor.report_fetching(&followed, &progress, readiness) => match never {},
        () = signals.stop() => return Ok(None),
    };
    readiness.explain(None);
    let site = Arc::new(Site::new(manifest));
    let mut background = BackgroundTasks::default();
    startup::start_hook(config, &site, true, process, &mut background)?;
    let handle = Arc::new(follow(follower, Arc::clone(&site)));
    let finished = Arc::clone(&handle);
    background.add("cache", ShutdownStage::AfterRequests, move || {
        finished.finish()
    });
    Ok(Some(Published {
        site,
        memory,
        saved: None,
        look: Box::new(move || handle.look()),
        writer: None,
        background,
    }))
}

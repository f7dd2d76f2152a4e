//! `etagd serve` and `etagd dev`: from a configuration to a server that stops on a signal.
//!
//! The steps are in [`startup`](super::startup) and [`shutdown`](super::shutdown), and [`run`] is
//! their order.

use std::mem;
use std::time::Instant;

use super::Error;
use super::process::Process;
use super::signals::Signals;
use super::startup::{DirectoryInputs, Published, SourceInputs};
use super::usage::UsageError;
use super::{follow, shutdown, startup};
use crate::config::{Config, SiteOrigin};
use crate::lease;
use crate::server::inherited::Inherited;
use crate::settings::DescriptorBudget;

/// Serves until a signal ends it.
pub(super) fn serve(config: &Config) -> Result<(), Error> {
    // Before anything else opens a file: inherited sockets are known by their descriptor's number.
    let inherited = Inherited::take()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Start)?;
    let result = runtime.block_on(run(config, inherited));
    // A scan that was interrupted, or a worker that hangs, is not waited for.
    runtime.shutdown_background();
    result
}

/// Refuses an address that two flags name. Both would bind it, and one would fail to listen when the
/// whole site is hashed, or take some of the connections of the other. With `--reuse-port` a wildcard and
/// an address that it has can both be listened on.
fn each_address_once(config: &Config, needs_default: bool) -> Result<(), UsageError> {
    // The developer's server chooses a port that is free.
    if config.dev.is_some() {
        return Ok(());
    }
    let default = config.listen.is_empty() && needs_default;
    let default = default.then_some(&config.default_listen);
    let listen_flag = if config.has_port {
        "--port"
    } else {
        "--listen"
    };
    let reuses_port = config.operator.reuse_port;
    let named: Vec<_> = config
        .listen
        .iter()
        .chain(default)
        .map(|listen| (listen_flag, listen, reuses_port))
        // The operator's sockets never have SO_REUSEPORT.
        .chain((config.operator.admin.iter()).map(|listen| ("--admin", listen, false)))
        .chain(
            (config.redirect.listen.iter()).map(|listen| ("--redirect-http", listen, reuses_port)),
        )
        .collect();
    for (index, (second, address, reuses_port)) in named.iter().enumerate() {
        let taken = named[..index].iter().find(|(_, earlier, reuses_its)| {
            match *reuses_port && *reuses_its {
                true => earlier.shares_address(address),
                false => earlier.overlaps(address),
            }
        });
        if let Some((first, ..)) = taken {
            return Err(UsageError::SameAddress {
                first,
                second,
                address: (*address).clone(),
            });
        }
    }
    Ok(())
}

/// Says that `--expect` changes nothing where nobody can ask whether this server is ready. Of a store it
/// chooses what is served.
fn report_unseen_expectation(config: &Config, has_admin: bool) {
    let operator = &config.operator;
    let is_asked = has_admin || !operator.admin.is_empty() || operator.disclosure.health.is_some();
    let is_directory = matches!(config.origin, SiteOrigin::Directory(_));
    if operator.expect.is_some() && is_directory && !is_asked {
        tracing::warn!(
            "--expect without --admin or --health: nobody can ask whether this server is ready, and it \
             answers requests whatever it serves"
        );
    }
}

/// Publishes what is in a directory. `None` when a signal ends that.
async fn publish_directory(
    config: &Config,
    mut site: DirectoryInputs,
    budget: DescriptorBudget,
    process: &Process,
    signals: &mut Signals,
) -> Result<Option<Published>, Error> {
    let store = mem::take(&mut site.store);
    match startup::scan(config, &site, store, budget, process, signals).await? {
        Some(scanned) => startup::publish(config, site, scanned, process, signals).await,
        None => Ok(None),
    }
}

async fn run(config: &Config, inherited: Inherited) -> Result<(), Error> {
    let started = Instant::now();
    // From here on a signal is an event, and no longer kills the process.
    let mut signals = Signals::new().map_err(Error::Start)?;
    lease::absorb_signals().map_err(Error::Start)?;
    let process = Process::new(config.operator.expectation()).map_err(Error::Start)?;
    let drain = config.operator.drain(!inherited.admin.is_empty());

    report_unseen_expectation(config, !inherited.admin.is_empty());
    each_address_once(config, inherited.public.is_empty())?;
    let inputs = startup::open(config, &process)?;
    let listeners = startup::bind(config, inherited, &inputs, &process)?;
    let budget = startup::share_descriptors(config, &listeners);
    let published = match inputs.source {
        SourceInputs::Directory(site) => {
            publish_directory(config, *site, budget, &process, &mut signals).await?
        }
        SourceInputs::Store(options) => {
            follow::publish(config, *options, budget, &process, &mut signals).await?
        }
    };
    let Some(published) = published else {
        return Ok(());
    };
    let running = startup::serve(config, inputs.tls, listeners, published, budget, &process)?;
    running.greet(started.elapsed());

    shutdown::run_until_drained(&running, &process, &mut signals, drain).await;
    shutdown::finish(running, &mut signals, config.limits.grace).await;
    Ok(())
}

//! `etagd push`: progress, summary, exit code.

use std::fs;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount};

use super::progress::{with_bar, with_bytes};
use super::scan::{BusyFiles, scan};
use super::usage::UsageError;
use super::{Error, inventory, open, print, publish, refuse_held, trust};
use crate::config::{self, PushTarget};
use crate::disk::Root;
use crate::manifest::Manifest;
use crate::progress::ByteProgress;
use crate::push::{Plan, Push, PushReport};
use crate::remote::Client;
use crate::scan::{Progress, Scanner};
use crate::semantics::coding::delta_stem;
use crate::settings::{ReplicaUrl, Settings};

/// The environment variable of the token, so that none is in the list of processes.
const TOKEN_VARIABLE: &str = "ETAGD_WRITE_TOKEN";
/// Maximum size of a server's manifest in bytes.
const MAX_MANIFEST_SIZE: u64 = 1 << 30;

/// Pushes a directory to a server or a store.
pub(super) fn push(flags: &config::PushFlags) -> Result<ExitCode, Error> {
    if let Some(flag) = flags.misplaced() {
        let flag = flag.to_owned();
        return Err(match flags.target {
            PushTarget::Server(_) => UsageError::StoreFlag(flag),
            PushTarget::Store(_) => UsageError::ServerFlag(flag),
        }
        .into());
    }
    match &flags.target {
        PushTarget::Server(url) => push_to_server(flags, url),
        PushTarget::Store(url) => publish::publish(flags, url),
    }
}

/// Pushes a directory to a server, and prints what was not done: exit code 1 if there is any.
fn push_to_server(push_flags: &config::PushFlags, url: &ReplicaUrl) -> Result<ExitCode, Error> {
    let started = Instant::now();
    let flags = &push_flags.server;
    if flags.delete && flags.admin_url.is_none() && flags.base.is_none() {
        return Err(UsageError::UnknownFiles.into());
    }
    let token = token(flags)?;
    let is_secure = [Some(url), flags.admin_url.as_ref()]
        .into_iter()
        .flatten()
        .any(|url| url.is_secure());
    let client = Client::new(
        &trust(push_flags.ca.clone(), is_secure),
        flags.timeout,
        MAX_MANIFEST_SIZE,
        flags.connections,
    )?;
    let (root, manifest) = scan_directory(push_flags)?;
    let known = match &flags.admin_url {
        Some(url) => Some(client.manifest(url).map_err(Error::AdminUrl)?),
        None => None,
    };
    let push = Push {
        base: flags.base.as_deref().map(inventory).transpose()?,
        url: url.clone(),
        base_path: push_flags.base_path(),
        token,
        known,
        delete: flags.delete,
        rules: flags.rules,
        force: flags.force,
        connections: flags.connections,
    };
    let plan = with_bar(
        "{spinner} comparing in {elapsed}",
        |_| {},
        || push.plan(&client, &root, &manifest),
    )?;
    if push_flags.dry_run {
        print(|out| plan.write(out))?;
        return Ok(conclude_dry_run(&plan));
    }
    let progress = ByteProgress::default();
    let report = with_bytes("sent", &progress, || {
        push.run(&client, &root, plan, &progress)
    })?;
    print(|out| {
        report
            .problems
            .iter()
            .try_for_each(|problem| problem.write(out))
    })?;
    summarize(&report, started.elapsed());
    Ok(conclude(&report))
}

/// Scans the directory, which has to be complete.
fn scan_directory(flags: &config::PushFlags) -> Result<(Arc<Root>, Manifest), Error> {
    let root = open(&flags.directory)?;
    refuse_held(&flags.directory, &root)?;
    let settings = Settings {
        exclude: Arc::new(flags.handling.exclude.clone().into()),
        ..Settings::default()
    };
    let scanner = Scanner::new(flags.handling.symlinks, settings, None);
    let manifest = scan(
        &scanner,
        &root,
        &Progress::default(),
        None,
        || (),
        BusyFiles::Await,
    )?
    .manifest;
    // With --delete, a file that is missing from the manifest would be deleted on the server.
    if !manifest.digest().is_complete() && !lacks_dictionaries_alone(&manifest) {
        return Err(Error::IncompleteDirectory(flags.directory.clone()));
    }
    // A typo, or a build that failed, would delete the whole site.
    if flags.server.delete && manifest.is_empty() && !flags.server.force {
        return Err(UsageError::EmptyDirectory(flags.directory.clone()).into());
    }
    Ok((root, manifest))
}

/// Whether all files of the directory are in its manifest, and only dictionaries of deltas could not be
/// read: these are no part of the manifest, and the push names them.
fn lacks_dictionaries_alone(manifest: &Manifest) -> bool {
    manifest.iter().all(|resource| resource.settled)
        && manifest
            .unreadable()
            .keys()
            .all(|path| delta_stem(path).is_some() && manifest.locate(path).is_some())
}

/// The token to authenticate with, if there is one.
fn token(flags: &config::ServerFlags) -> Result<Option<String>, UsageError> {
    let Some(path) = &flags.token_file else {
        return Ok(std::env::var(TOKEN_VARIABLE)
            .ok()
            .filter(|token| !token.is_empty()));
    };
    let text = fs::read_to_string(path).map_err(|source| UsageError::TokenFile {
        path: path.clone(),
        source,
    })?;
    let mut lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    match (lines.next(), lines.next()) {
        // A line of the server's own file is `NAME TOKEN`.
        (Some(line), None) => Ok(line.split_whitespace().last().map(str::to_owned)),
        _ => Err(UsageError::Token(path.clone())),
    }
}

fn summarize(report: &PushReport, elapsed: Duration) {
    let PushReport {
        created,
        replaced,
        deleted,
        unchanged,
        bytes,
        ..
    } = *report;
    let seconds = elapsed.as_secs_f64();
    tracing::info!(
        created,
        replaced,
        deleted,
        unchanged,
        bytes,
        seconds,
        "{} created, {} replaced, {} deleted, {} unchanged; {} sent, {seconds:.2} s",
        HumanCount(created),
        HumanCount(replaced),
        HumanCount(deleted),
        HumanCount(unchanged),
        HumanBytes(bytes),
    );
}

fn conclude_dry_run(plan: &Plan) -> ExitCode {
    let (conflicts, unfit) = (plan.conflicts(), plan.unfit());
    if conflicts > 0 {
        tracing::warn!(
            conflicts,
            "{conflicts} changed by others: would not be overwritten (see --force)"
        );
    }
    if unfit > 0 {
        tracing::warn!(failures = unfit, "{unfit} can't be pushed (see above)");
    }
    match conflicts + unfit {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn conclude(report: &PushReport) -> ExitCode {
    if report.problems.is_empty() {
        return ExitCode::SUCCESS;
    }
    let (conflicts, failures, left) = (report.conflicts(), report.failures(), report.left);
    let mut parts = Vec::new();
    if conflicts > 0 {
        parts.push(format!(
            "{conflicts} changed by others and not overwritten (see --force)"
        ));
    }
    if failures > 0 {
        parts.push(format!("{failures} failed (see above)"));
    }
    if left > 0 {
        parts.push(format!(
            "{left} left for the next run, because they come after these"
        ));
    }
    tracing::warn!(conflicts, failures, left, "{}", parts.join("; "));
    ExitCode::FAILURE
}

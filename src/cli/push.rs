//! `etagd push`: progress, summary, exit code.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount};

use super::progress::{with_bar, with_bytes};
use super::scan::scan;
use super::{Error, inventory, open, print, trust};
use crate::config::{self, Settings};
use crate::inventory::Inventory;
use crate::push::{Progress, Push, Report};
use crate::remote::{Answer, Client};
use crate::scan::{self, Scanner};

/// The token itself, where no file holds it.
const TOKEN: &str = "ETAGD_WRITE_TOKEN";
/// Most bytes of a server's manifest.
const MOST: u64 = 1 << 30;

/// Brings a directory to a server.
pub(super) fn push(flags: config::Push) -> Result<(), Error> {
    let started = Instant::now();
    if flags.delete && flags.admin_url.is_none() && flags.base.is_none() {
        return Err(Error::Usage(
            "--delete needs to know what the server has: give --admin-url URL or --base FILE"
                .to_owned(),
        ));
    }
    let token = token(&flags)?;
    let urls = [Some(&flags.url), flags.admin_url.as_ref()];
    let is_secure = urls.into_iter().flatten().any(|url| url.is_secure());
    let client = Client::new(
        &trust(flags.ca.clone(), is_secure),
        flags.timeout,
        MOST,
        flags.connections,
    )?;
    let root = open(&flags.directory)?;
    let scanner = Scanner::new(flags.symlinks, Arc::new(Settings::default()), None);
    let manifest = scan(&scanner, &root, &scan::Progress::default(), None, || ())?.manifest;
    if !manifest.digest().is_complete() {
        let directory = flags.directory.display();
        return Err(Error::Incomplete(format!(
            "{directory} cannot be pushed: some file of it cannot be read, or is being written"
        )));
    }
    if flags.delete && manifest.is_empty() && !flags.force {
        let directory = flags.directory.display();
        return Err(Error::Usage(format!(
            "{directory} is empty: to delete all that the server has, say --force"
        )));
    }
    let known = known(&flags, &client)?;
    let push = Push {
        base: flags.base.as_deref().map(inventory).transpose()?,
        url: flags.url,
        token,
        known,
        delete: flags.delete,
        rules: flags.rules,
        force: flags.force,
        connections: flags.connections,
    };
    let look = || push.look(&client, &root, &manifest);
    let plan = with_bar("{spinner} comparing in {elapsed}", |_| {}, look).map_err(Error::Push)?;
    if flags.dry_run {
        print(|out| plan.write(out))?;
        return match plan.has_conflicts() {
            true => Err(Error::Push("others have changed what differs".to_owned())),
            false => Ok(()),
        };
    }
    let progress = Progress::default();
    let done = || (progress.done(), progress.total());
    let run = || push.run(&client, &root, plan, &progress);
    let report = with_bytes("sent", done, run).map_err(Error::Push)?;
    print(|out| report.problems.iter().try_for_each(|each| each.write(out)))?;
    tracing::info!("{}", summary(&report, started.elapsed()));
    conclude(&report)
}

/// The token to write with, if there is one.
fn token(flags: &config::Push) -> Result<Option<String>, Error> {
    let Some(file) = &flags.token_file else {
        return Ok(std::env::var(TOKEN).ok().filter(|token| !token.is_empty()));
    };
    let shown = file.display();
    let text = fs::read_to_string(file)
        .map_err(|error| Error::Usage(format!("cannot read --token-file {shown}: {error}")))?;
    let lines = text.lines().map(str::trim);
    let mut lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    match (lines.next(), lines.next()) {
        (Some(line), None) => Ok(line.split_whitespace().last().map(str::to_owned)),
        _ => Err(Error::Usage(format!(
            "--token-file {shown} holds no token, or several: one line is expected"
        ))),
    }
}

/// All that the server has, if its operator is told.
fn known(flags: &config::Push, client: &Client) -> Result<Option<Inventory>, Error> {
    match flags.admin_url.as_ref().map(|url| client.manifest(url)) {
        None => Ok(None),
        Some(Answer::Inventory(inventory)) => Ok(Some(inventory)),
        Some(Answer::Foreign(reason) | Answer::Failed(reason)) => Err(Error::Push(format!(
            "{reason}: give the address of its --admin listener with --admin-url"
        ))),
    }
}

fn summary(report: &Report, elapsed: Duration) -> String {
    let Report {
        created,
        replaced,
        deleted,
        unchanged,
        bytes,
        ..
    } = report;
    let count = |number: &u64| HumanCount(*number);
    let (bytes, seconds) = (HumanBytes(*bytes), elapsed.as_secs_f64());
    format!(
        "{} created, {} replaced, {} deleted, {} unchanged; {bytes} sent, {seconds:.2} s",
        count(created),
        count(replaced),
        count(deleted),
        count(unchanged),
    )
}

fn conclude(report: &Report) -> Result<(), Error> {
    let conflicts = report.problems.iter().filter(|each| each.is_conflict());
    let conflicts = conflicts.count();
    let failures = report.problems.len() - conflicts;
    if report.problems.is_empty() {
        return Ok(());
    }
    let mut said = Vec::new();
    if conflicts > 0 {
        said.push(format!(
            "{conflicts} changed by others and not overwritten (see --force)"
        ));
    }
    if failures > 0 {
        said.push(format!("{failures} not brought there"));
    }
    if report.left > 0 {
        let left = report.left;
        said.push(format!(
            "{left} left for the next run, because they come after that"
        ));
    }
    Err(Error::Push(said.join("; ")))
}

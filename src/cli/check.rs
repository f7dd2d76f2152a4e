//! `etagd check`.

use std::process::ExitCode;
use std::time::Instant;

use super::codings::scanner;
use super::scan::{BusyFiles, scan};
use super::usage::UsageError;
use super::{Error, inventory, open, print, trust};
use crate::config::{self, ManifestFormat};
use crate::remote::Client;
use crate::replica::{Check, CheckReport, ExpectedSite, Remark, WalkOptions};
use crate::scan::Progress;

/// Deviations listed for each replica without `--all`.
const DEFAULT_MAX_SHOWN: usize = 20;

/// Compares replicas, and prints how they deviate: exit code 0 when all agree, or 1.
pub(super) fn check(flags: config::CheckFlags) -> Result<ExitCode, Error> {
    let expected = expected_site(&flags)?;
    if expected.is_none() && flags.replicas.len() < 2 {
        return Err(UsageError::SingleReplica.into());
    }
    let is_secure = flags.replicas.iter().any(|replica| replica.is_secure());
    let client = Client::new(
        &trust(flags.ca, is_secure),
        flags.timeout,
        flags.max_size.as_u64(),
        flags.connections,
    )?;
    let check = Check {
        replicas: flags.replicas,
        expected,
        walk: WalkOptions {
            is_public: flags.public,
            sample: flags.sample,
            bodies: flags.body,
            connections: flags.connections,
        },
        max_shown: if flags.all {
            usize::MAX
        } else {
            DEFAULT_MAX_SHOWN
        },
    };
    let report = match flags.wait {
        None => check.compare(&client),
        Some(wait) => check.wait(&client, Instant::now() + wait),
    };
    let report = report.map_err(UsageError::NothingToCompare)?;
    print(|out| match flags.format {
        ManifestFormat::Text => report.write_text(out),
        ManifestFormat::Json => report.write_json(out),
    })?;
    Ok(summarize(&report))
}

/// Logs what no line of the result shows, and the result as a whole.
fn summarize(report: &CheckReport) -> ExitCode {
    for remark in report.remarks() {
        match &remark {
            Remark::Unreachable { reason } | Remark::NoManifest { reason } => {
                tracing::warn!(reason, "{remark}");
            }
            Remark::NothingThere { url } => tracing::warn!(url, "{remark}"),
            Remark::NotShown { url, count } => tracing::warn!(url, count, "{remark}"),
        }
    }
    let (replicas, deviating) = (report.replicas.len(), report.deviating());
    let (unreachable, summary) = (report.unreachable(), report.summary());
    if report.agrees() {
        tracing::info!(replicas, deviating, unreachable, "{summary}");
        ExitCode::SUCCESS
    } else {
        tracing::warn!(replicas, deviating, unreachable, "{summary}");
        ExitCode::FAILURE
    }
}

/// What the replicas should serve, as `--manifest` or `--dir` says.
fn expected_site(flags: &config::CheckFlags) -> Result<Option<ExpectedSite>, Error> {
    if let Some(file) = &flags.manifest {
        return Ok(Some(ExpectedSite {
            name: file.display().to_string(),
            inventory: inventory(file)?,
        }));
    }
    let Some(directory) = &flags.dir else {
        return Ok(None);
    };
    let root = open(directory)?;
    let scanner = scanner(&flags.handling, &flags.compression, &root)?;
    let manifest = scan(
        &scanner,
        &root,
        &Progress::default(),
        None,
        || (),
        BusyFiles::Await,
    )?
    .manifest;
    // A replica that serves the file would seem to have one too many.
    if !manifest.digest().is_complete() {
        return Err(Error::IncompleteDirectory(directory.clone()));
    }
    Ok(Some(ExpectedSite {
        name: directory.display().to_string(),
        inventory: manifest.inventory(),
    }))
}

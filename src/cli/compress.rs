//! `etagd compress`: progress, summary, exit code.

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount};

use super::progress::with_bytes;
use super::{Error, counted, open, print};
use crate::compress::{
    CODINGS, CompressReport, DeltaReport, EarlierReleases, SidecarProblem, SidecarWork, run,
    run_deltas,
};
use crate::config::CompressFlags;
use crate::progress::ByteProgress;
use crate::scan::exclusions_on_disk;
use crate::semantics::target::encode_path;

/// Problems logged one by one; the rest is counted.
const MAX_LOGGED_PROBLEMS: usize = 20;

/// Writes, checks or removes sidecars: exit code 1 if any is not as it should be.
pub(super) fn compress(flags: &CompressFlags) -> Result<ExitCode, Error> {
    let started = Instant::now();
    let (root, work) = (open(&flags.directory)?, flags.work());
    let exclude = Arc::new(flags.exclude.clone().into());
    let exclusions =
        exclusions_on_disk(&root, &exclude).map_err(|source| Error::ignore_file(&root, source))?;
    // Before anything is written.
    let earlier = EarlierReleases::open(&flags.against, &exclude)?;
    let progress = ByteProgress::default();
    let report = with_bytes("sidecars", &progress, || {
        run(&root, work, &exclusions, &progress)
    });
    let progress = ByteProgress::default();
    // After the sidecars: a delta has to be shorter than they are.
    let mut deltas = with_bytes("deltas", &progress, || {
        run_deltas(&root, work, &earlier, &exclusions, &progress)
    });
    deltas.leave_out_problems_of(&report);
    // The problems are the result of --check; otherwise they are messages about the work.
    if work == SidecarWork::Check {
        print(|out| {
            write(out, &report.problems)?;
            write(out, &deltas.problems)
        })?;
    } else {
        warn(root.path(), &report.problems);
        warn(root.path(), &deltas.problems);
        note(root.path(), &deltas.notes);
    }
    summarize(work, &report, started.elapsed());
    summarize_deltas(work, &deltas, !flags.against.is_empty());
    let failures = |problems: &[SidecarProblem]| {
        let failures = problems.iter().filter(|problem| problem.is_failure(work));
        failures.count()
    };
    let failures = (failures(&report.problems), failures(&deltas.problems));
    Ok(conclude(work, failures, &flags.directory))
}

/// Writes a line for each problem: the path as in a manifest, a tab, and the reason.
fn write(out: &mut dyn Write, problems: &[SidecarProblem]) -> io::Result<()> {
    problems
        .iter()
        .try_for_each(|SidecarProblem { path, error }| {
            let path = encode_path(path.as_os_str().as_bytes());
            writeln!(out, "/{path}\t{error}")
        })
}

fn warn(root: &Path, problems: &[SidecarProblem]) {
    for SidecarProblem { path, error } in problems.iter().take(MAX_LOGGED_PROBLEMS) {
        let path = root.join(path);
        tracing::warn!(path = %path.display(), %error, "{}: {error}", path.display());
    }
    let more = problems.len().saturating_sub(MAX_LOGGED_PROBLEMS);
    if more > 0 {
        tracing::warn!(problems = more, "{more} more like these");
    }
}

fn summarize(work: SidecarWork, report: &CompressReport, elapsed: Duration) {
    let CompressReport {
        files,
        before,
        proven,
        written,
        removed,
        ..
    } = *report;
    let seconds = elapsed.as_secs_f64();
    match work {
        SidecarWork::Check => tracing::info!(
            files,
            proven,
            seconds,
            "{} of {} {} proven, {seconds:.2} s",
            counted(proven, "sidecar"),
            counted(files, "file"),
            if proven == 1 { "is" } else { "are" },
        ),
        SidecarWork::Remove => tracing::info!(
            removed,
            seconds,
            "{} removed, {seconds:.2} s",
            counted(removed, "sidecar")
        ),
        SidecarWork::Write => {
            let after: Vec<_> = CODINGS
                .iter()
                .zip(report.after)
                .map(|(coding, bytes)| format!("{} as {}", HumanBytes(bytes), coding.token()))
                .collect();
            // A form that nobody has has no size.
            let after = match written + proven {
                0 => "no sidecars".to_owned(),
                _ => after.join(", "),
            };
            tracing::info!(
                files,
                bytes = before,
                written,
                proven,
                seconds,
                "{}, {}: {}; {} written, {} proven, {seconds:.2} s",
                counted(files, "file"),
                HumanBytes(before),
                after,
                counted(written, "sidecar"),
                HumanCount(proven),
            );
        }
    }
}

/// A line about deltas, where there are such or some were asked for.
fn summarize_deltas(work: SidecarWork, report: &DeltaReport, were_asked_for: bool) {
    let DeltaReport {
        files,
        before,
        after,
        proven,
        written,
        removed,
        ..
    } = *report;
    match work {
        SidecarWork::Check if proven > 0 => {
            let are = if proven == 1 { "is" } else { "are" };
            tracing::info!(proven, "{} {are} proven", counted(proven, "delta"));
        }
        SidecarWork::Remove if removed > 0 => {
            tracing::info!(removed, "{} removed", counted(removed, "delta"));
        }
        SidecarWork::Write if were_asked_for => tracing::info!(
            files,
            bytes = after,
            plain = before,
            written,
            proven,
            removed,
            "{} {} deltas: {} instead of {}; {written} written, {proven} proven{}",
            counted(files, "file"),
            if files == 1 { "has" } else { "have" },
            HumanBytes(after),
            HumanBytes(before),
            match removed {
                0 => String::new(),
                _ => format!(", {removed} removed, without dictionaries"),
            },
        ),
        SidecarWork::Write | SidecarWork::Check | SidecarWork::Remove => {}
    }
}

fn note(root: &Path, notes: &[SidecarProblem]) {
    for SidecarProblem { path, error } in notes.iter().take(MAX_LOGGED_PROBLEMS) {
        let path = root.join(path);
        tracing::info!(path = %path.display(), reason = %error, "{}: {error}", path.display());
    }
    let more = notes.len().saturating_sub(MAX_LOGGED_PROBLEMS);
    if more > 0 {
        tracing::info!(notes = more, "{more} more like these");
    }
}

/// Says how many sidecars and deltas are not as they should be, and how they become so.
fn conclude(work: SidecarWork, (sidecars, deltas): (usize, usize), directory: &Path) -> ExitCode {
    let (path, problems) = (directory.display(), sidecars + deltas);
    if problems == 0 {
        return ExitCode::SUCCESS;
    }
    if work == SidecarWork::Check {
        let are = if problems == 1 { "is" } else { "are" };
        let (counted_sidecars, counted_deltas) =
            (counted(sidecars, "sidecar"), counted(deltas, "delta"));
        let sentence = match (sidecars, deltas) {
            (_, 0) => format!(
                "{counted_sidecars} {are} not proven: etagd compress {path} writes new ones"
            ),
            (0, _) => format!(
                "{counted_deltas} {are} not proven: etagd compress {path} --against OLD writes new \
                 ones"
            ),
            _ => format!(
                "{counted_sidecars} and {counted_deltas} are not proven: etagd compress {path} \
                 writes new sidecars, and with --against OLD new deltas"
            ),
        };
        tracing::warn!(path = %path, problems, sidecars, deltas, "{sentence}");
    } else {
        tracing::error!(
            path = %path,
            problems,
            "{} in {path}, see above: run again once {} solved",
            counted(problems, "problem"),
            if problems == 1 { "it is" } else { "they are" },
        );
    }
    ExitCode::FAILURE
}

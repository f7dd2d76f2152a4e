//! `etagd compress`: progress, summary, exit code.

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount};

use super::progress::with_bytes;
use super::{Error, open, print};
use crate::compress::{CODINGS, Problem, Progress, Report, Trouble, run};
use crate::config::{Compress, SidecarWork};
use crate::semantics::target::encode_path;

pub(super) fn compress(flags: &Compress) -> Result<(), Error> {
    let started = Instant::now();
    let (root, work) = (open(&flags.directory)?, flags.work());
    let progress = Progress::default();
    let done = || (progress.done(), progress.total());
    let report = with_bytes("sidecars", done, || run(&root, work, &progress));
    if work == SidecarWork::Check {
        print(|out| write(out, &report.problems))?;
    } else {
        warn(root.path(), &report.problems);
    }
    tracing::info!("{}", summary(work, &report, started.elapsed()));
    conclude(work, &report, &flags.directory)
}

/// The data of `--check`: path as in a manifest, tab, reason.
fn write(out: &mut dyn Write, problems: &[Problem]) -> io::Result<()> {
    problems.iter().try_for_each(|Problem { path, trouble }| {
        let path = encode_path(path.as_os_str().as_bytes());
        writeln!(out, "/{path}\t{trouble}")
    })
}

/// Each problem, up to a number that a person reads.
fn warn(root: &Path, problems: &[Problem]) {
    const SHOWN: usize = 20;
    for Problem { path, trouble } in problems.iter().take(SHOWN) {
        tracing::warn!("{}: {trouble}", root.join(path).display());
    }
    if let Some(more) = problems.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        tracing::warn!("{more} more like these");
    }
}

fn summary(work: SidecarWork, report: &Report, elapsed: Duration) -> String {
    let (files, proven) = (HumanCount(report.files), HumanCount(report.proven));
    let seconds = elapsed.as_secs_f64();
    match work {
        SidecarWork::Check => {
            format!("{proven} sidecars of {files} files are proven, {seconds:.2} s")
        }
        SidecarWork::Remove => {
            let removed = HumanCount(report.removed);
            format!("{removed} sidecars removed, {seconds:.2} s")
        }
        SidecarWork::Write => {
            let after: Vec<_> = CODINGS
                .iter()
                .zip(report.after)
                .map(|(coding, bytes)| format!("{} as {}", HumanBytes(bytes), coding.token()))
                .collect();
            let (before, after) = (HumanBytes(report.before), after.join(", "));
            let written = HumanCount(report.written);
            format!(
                "{files} files, {before}: {after}; {written} sidecars written, {proven} proven, \
                 {seconds:.2} s"
            )
        }
    }
}

fn conclude(work: SidecarWork, report: &Report, directory: &Path) -> Result<(), Error> {
    let is_failure = |problem: &&Problem| match work {
        SidecarWork::Check => true,
        SidecarWork::Write => problem.trouble.is_failure(),
        // Only what is proven was to go.
        SidecarWork::Remove => {
            problem.trouble.is_failure() && !matches!(problem.trouble, Trouble::Unproven(_))
        }
    };
    let count = report.problems.iter().filter(is_failure).count();
    let directory = directory.display();
    match (work, count) {
        (_, 0) => Ok(()),
        (SidecarWork::Check, _) => Err(Error::Sidecars(format!(
            "{count} sidecars are not proven: etagd compress {directory} writes them anew"
        ))),
        (SidecarWork::Write | SidecarWork::Remove, _) => Err(Error::Sidecars(format!(
            "{count} problems in {directory}, see above: run again once they are solved"
        ))),
    }
}

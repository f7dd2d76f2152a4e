//! `etagd lint`.

use std::process::ExitCode;

use super::scan::{Scanned, Writers, scan};
use super::{Error, counted, open, print};
use crate::config::{LintFlags, LintFormat};
use crate::lint::{Finding, ScannedSite};
use crate::rules::Severity;
use crate::scan::{Progress, Scanner};

/// Prints the problems of a site: exit code 1 if one of them is an error.
pub(super) fn lint(flags: &LintFlags) -> Result<ExitCode, Error> {
    let root = open(&flags.site.directory)?;
    let handling = &flags.site.handling;
    let scanner = Scanner::new(handling.symlinks, handling.settings(), None);
    let Scanned {
        manifest, links, ..
    } = scan(
        &scanner,
        &root,
        &Progress::default(),
        None,
        || (),
        Writers::Await,
    )?;
    let findings = crate::lint::lint(ScannedSite {
        root: &root,
        manifest: &manifest,
        links: &links,
    });
    print(|out| match flags.format {
        LintFormat::Text => findings
            .iter()
            .try_for_each(|finding| writeln!(out, "{finding}")),
        LintFormat::Json => {
            serde_json::to_writer_pretty(&mut *out, &findings)?;
            writeln!(out)
        }
    })?;
    Ok(summarize(&findings))
}

fn summarize(findings: &[Finding]) -> ExitCode {
    let [errors, warnings, notes] =
        [Severity::Error, Severity::Warning, Severity::Note].map(|severity| {
            findings
                .iter()
                .filter(|finding| finding.severity == severity)
                .count()
        });
    let summary = format!(
        "{}, {}, {}",
        counted(errors, "error"),
        counted(warnings, "warning"),
        counted(notes, "note")
    );
    if errors > 0 {
        tracing::warn!(errors, warnings, notes, "{summary}");
        ExitCode::FAILURE
    } else {
        tracing::info!(errors, warnings, notes, "{summary}");
        ExitCode::SUCCESS
    }
}

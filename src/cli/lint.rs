//! `etagd lint`.

use std::process::ExitCode;

use super::codings::scanner;
use super::scan::{BusyFiles, Scanned, scan};
use super::{Error, counted, inventory, open, print};
use crate::config::{LintFlags, LintFormat};
use crate::lint::{Allowance, Finding, ScannedSite};
use crate::rules::Severity;
use crate::scan::Progress;

/// Prints the problems of a site that are not accepted: exit code 1 if one of them is an error, or a
/// warning where that is strict.
pub(super) fn lint(flags: &LintFlags) -> Result<ExitCode, Error> {
    let base = flags.base.as_deref().map(inventory).transpose()?;
    let root = open(&flags.site.directory)?;
    let scanner = scanner(&flags.site.handling, &flags.compression, &root)?;
    let Scanned {
        manifest, links, ..
    } = scan(
        &scanner,
        &root,
        &Progress::default(),
        None,
        || (),
        BusyFiles::Await,
    )?;
    let mut findings = crate::lint::lint(ScannedSite {
        root: &root,
        manifest: &manifest,
        links: &links,
        base: base.as_ref(),
    });
    let accepted = accept(&mut findings, &flags.allow);
    print(|out| match flags.format {
        LintFormat::Text => findings
            .iter()
            .try_for_each(|finding| writeln!(out, "{finding}")),
        LintFormat::Json => {
            serde_json::to_writer_pretty(&mut *out, &findings)?;
            writeln!(out)
        }
    })?;
    Ok(summarize(&findings, accepted, flags.strict))
}

/// Takes away what is accepted, and returns how many findings that are. Names each allowance that
/// accepts nothing: what it was for has gone, or it was mistyped.
fn accept(findings: &mut Vec<Finding>, allowed: &[Allowance]) -> usize {
    for allowance in allowed {
        if !findings.iter().any(|finding| allowance.accepts(finding)) {
            tracing::warn!(allow = %allowance, "--allow {allowance} accepts nothing");
        }
    }
    let before = findings.len();
    findings.retain(|finding| !allowed.iter().any(|allowance| allowance.accepts(finding)));
    before - findings.len()
}

fn summarize(findings: &[Finding], accepted: usize, is_strict: bool) -> ExitCode {
    let [errors, warnings, notes] =
        [Severity::Error, Severity::Warning, Severity::Note].map(|severity| {
            findings
                .iter()
                .filter(|finding| finding.severity() == severity)
                .count()
        });
    let accepted_part = match accepted {
        0 => String::new(),
        number => format!(" ({number} accepted)"),
    };
    let summary = format!(
        "{}, {}, {}{accepted_part}",
        counted(errors, "error"),
        counted(warnings, "warning"),
        counted(notes, "note")
    );
    if errors > 0 || (is_strict && warnings > 0) {
        tracing::warn!(errors, warnings, notes, accepted, "{summary}");
        ExitCode::FAILURE
    } else {
        tracing::info!(errors, warnings, notes, accepted, "{summary}");
        ExitCode::SUCCESS
    }
}

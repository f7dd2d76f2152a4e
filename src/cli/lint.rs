//! `etagd lint`.

use std::io::{self, BufWriter, Write};

use super::scan::{Scanned, scan};
use super::{Error, open};
use crate::config::{Lint, LintFormat};
use crate::lint::{Finding, Site, lint as look};
use crate::rules::Severity;
use crate::scan::{Progress, Scanner};

/// Prints what of a site will not be served as its author hopes.
pub(super) fn lint(flags: &Lint) -> Result<(), Error> {
    let root = open(&flags.site.directory)?;
    let scanner = Scanner::new(
        flags.site.handling.symlinks,
        flags.site.handling.settings(),
        None,
    );
    let Scanned {
        manifest, links, ..
    } = scan(&scanner, &root, &Progress::default(), None, || ())?;
    let findings = look(Site {
        root: &root,
        manifest: &manifest,
        links: &links,
        scanner: &scanner,
    });
    print(&findings, flags.format).map_err(Error::Output)?;
    let number = |severity| {
        let of_kind = findings.iter().filter(|each| each.severity == severity);
        of_kind.count()
    };
    let errors = number(Severity::Error);
    let count = |number, of| match number {
        1 => format!("1 {of}"),
        number => format!("{number} {of}s"),
    };
    let summary = format!(
        "{}, {}, {}",
        count(errors, "error"),
        count(number(Severity::Warning), "warning"),
        count(number(Severity::Note), "note")
    );
    if errors > 0 {
        return Err(Error::Lint(summary));
    }
    tracing::info!("{summary}");
    Ok(())
}

fn print(findings: &[Finding], format: LintFormat) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    let mut print = || {
        match format {
            LintFormat::Text => {
                for finding in findings {
                    writeln!(out, "{finding}")?;
                }
            }
            LintFormat::Json => {
                serde_json::to_writer_pretty(&mut out, findings)?;
                writeln!(out)?;
            }
        }
        out.flush()
    };
    match print() {
        // The reader has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}

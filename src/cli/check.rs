//! `etagd check`.

use std::time::Instant;

use super::scan::scan;
use super::{Error, inventory, open, print, trust};
use crate::config::{self, ManifestFormat};
use crate::remote::Client;
use crate::replica::{Check, Expected, Walk};
use crate::scan::{Progress, Scanner};

/// Compares replicas.
pub(super) fn check(flags: config::Check) -> Result<(), Error> {
    let expected = expected(&flags)?;
    if expected.is_none() && flags.replicas.len() < 2 {
        return Err(Error::Usage(
            "one replica agrees with itself: give a second URL, or say with --dir DIR or \
             --manifest FILE what it should serve"
                .to_owned(),
        ));
    }
    let is_secure = flags.replicas.iter().any(|replica| replica.is_secure());
    let trust = trust(flags.ca, is_secure);
    let limit = flags.max_size.as_u64();
    let client = Client::new(&trust, flags.timeout, limit, flags.connections)?;
    let check = Check {
        replicas: flags.replicas,
        expected,
        walk: Walk {
            is_public: flags.public,
            sample: flags.sample,
            bodies: flags.body,
            connections: flags.connections,
        },
        most: if flags.all { usize::MAX } else { 20 },
    };
    let report = match flags.wait {
        None => check.look(&client),
        Some(wait) => check.wait(&client, Instant::now() + wait),
    };
    let report = report.map_err(|error| Error::Usage(error.to_string()))?;
    print(|out| match flags.format {
        ManifestFormat::Text => report.write_text(out),
        ManifestFormat::Json => report.write_json(out),
    })?;
    for remark in report.remarks() {
        tracing::warn!("{remark}");
    }
    let summary = report.summary();
    if !report.agrees() {
        return Err(Error::Disagreement(summary));
    }
    tracing::info!("{summary}");
    Ok(())
}

/// What the replicas should serve, if somebody says so.
fn expected(flags: &config::Check) -> Result<Option<Expected>, Error> {
    if let Some(file) = &flags.manifest {
        return Ok(Some(Expected {
            name: file.display().to_string(),
            inventory: inventory(file)?,
        }));
    }
    let Some(directory) = &flags.dir else {
        return Ok(None);
    };
    let root = open(directory)?;
    let handling = &flags.handling;
    let scanner = Scanner::new(handling.symlinks, handling.settings(), None);
    let manifest = scan(&scanner, &root, &Progress::default(), None, || ())?.manifest;
    if !manifest.digest().is_complete() {
        let directory = directory.display();
        return Err(Error::Incomplete(format!(
            "{directory} cannot be compared with: some file of it cannot be read, or is being written"
        )));
    }
    Ok(Some(Expected {
        name: directory.display().to_string(),
        inventory: manifest.inventory(),
    }))
}

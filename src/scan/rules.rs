//! The rule files in the root: read like any other file, and parsed where their bytes are new.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::walk::FoundFile;
use super::{Pass, RECENT, Unsettled, Visit, ancestors};
use crate::config::{RedirectsDialect, Settings};
use crate::disk;
use crate::lease::{self, Writers};
use crate::rules::{Complaint, Dialect, RuleFile, Rules, Severity};

/// The longest file of rules.
const MAX_RULES: u64 = 16 << 20;

/// Reads a file of rules, between two stamps and without a writer, as the others are read.
pub(super) fn look(pass: &Pass<'_>, file: RuleFile, found: FoundFile) -> Visit {
    match read(pass, &found) {
        Ok(Some(text)) => Visit::Rules(file, text),
        Ok(None) => Visit::Busy(found.path),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Visit::Gone,
            _ => Visit::Unreadable(found.path, error.to_string()),
        },
    }
}

fn read(pass: &Pass<'_>, found: &FoundFile) -> io::Result<Option<Vec<u8>>> {
    let opened = pass.root.open_file(&found.location)?;
    let publish = pass.unsettled == Unsettled::Publish;
    let may_have_writers =
        pass.scope.rereads(&found.path) || opened.stamp.is_younger(pass.now, RECENT);
    if may_have_writers && !publish && lease::writers(&opened.file) == Writers::Some {
        return Ok(None);
    }
    let size = opened.stamp.size;
    if size > MAX_RULES {
        return Err(io::Error::other("16 MiB are the most for rules"));
    }
    let mut text = vec![0; usize::try_from(size).unwrap_or_default()];
    let read = disk::read_exact_at(&opened.file, &mut text, 0);
    let is_at_rest = disk::stamp(&opened.file)? == opened.stamp;
    match read {
        Ok(()) if is_at_rest || publish => Ok(Some(text)),
        Err(error) if is_at_rest || publish => Err(error),
        _ => Ok(None),
    }
}

/// The rules with what has been read within the scope, where that is new. A file that is not there
/// any more gives none; of one that can't be read the last state stays.
pub(super) fn changed(
    pass: &Pass<'_>,
    read: &[(RuleFile, Vec<u8>)],
    busy: &[Box<[u8]>],
    unreadable: &BTreeMap<Box<[u8]>, String>,
    dialect: Dialect,
) -> Option<Arc<Rules>> {
    let mut rules = Rules::clone(pass.base.rules());
    let mut is_changed = false;
    for file in RuleFile::ALL {
        let path = file.name().as_bytes();
        let is_kept = !pass.scope.covers(path)
            || busy.iter().any(|busy| **busy == *path)
            || unreadable.contains_key(path)
            || ancestors(path).any(|above| unreadable.contains_key(above));
        let text = read.iter().find(|(read, _)| *read == file);
        if text.is_none() && is_kept {
            continue;
        }
        let text = text.map(|(_, text)| text.as_slice());
        if let Some(new) = rules.with(file, text, dialect) {
            rules = new;
            is_changed = true;
        }
    }
    is_changed.then(|| Arc::new(rules))
}

/// What the operator's word means to rules.
pub(super) fn dialect(settings: &Settings) -> Dialect {
    match settings.redirects {
        RedirectsDialect::Netlify => Dialect::Netlify,
        RedirectsDialect::Cloudflare => Dialect::Cloudflare,
    }
}

/// Says what is wrong with the files that have other bytes than in `before`, up to a number that a
/// person reads.
pub fn report(rules: &Rules, before: &Rules) {
    const MAX_SHOWN: usize = 20;
    for file in RuleFile::ALL {
        if !rules.have_read(file, before) {
            continue;
        }
        let is_serious = |complaint: &&Complaint| complaint.severity > Severity::Note;
        let complaints = rules.complaints(file);
        let serious: Vec<_> = complaints.iter().filter(is_serious).collect();
        for complaint in serious.iter().take(MAX_SHOWN) {
            tracing::warn!("{complaint}");
        }
        if let Some(more) = serious
            .len()
            .checked_sub(MAX_SHOWN)
            .filter(|more| *more > 0)
        {
            tracing::warn!(
                "{}: {more} more lines are not as they should be",
                file.name()
            );
        }
    }
}

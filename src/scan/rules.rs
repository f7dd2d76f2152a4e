//! The rule files in the root: read like any other file, and parsed where their bytes are new.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::walk::FoundFile;
use super::{MAX_PROBED_AGE, Pass, Visit, ancestors};
use crate::disk::{self, Root};
use crate::exclude::{ExcludePatterns, Exclusions};
use crate::lease::{self, Writers};
use crate::rules::{Complaint, Dialect, RuleFile, Rules, Severity};
use crate::settings::{RedirectsDialect, Settings};

/// Faulty lines of one rule file that are shown; beyond this number they are only counted.
const MAX_SHOWN: usize = 20;

/// Bytes of the largest rule file that is read.
const MAX_RULES: u64 = 16 << 20;
/// The same of `.etagdignore`, whose patterns are compiled together.
const MAX_IGNORE: u64 = 1 << 20;
/// Why an `.etagdignore` that has its name and no content is not taken for one that is not there.
const NO_IGNORE_FILE: &str = "it is no regular file, or a link that leads nowhere";

/// Reads a rule file under the same conditions as any other file: between two equal stamps, and
/// while nobody writes to it.
pub(super) fn visit(pass: &Pass<'_>, file: RuleFile, found: FoundFile) -> Visit {
    let text = read(pass, file, &found).and_then(|text| {
        let new = text.as_ref().filter(|text| {
            // It is compiled once more where its rules are made.
            file == RuleFile::Ignore && !pass.base.rules().are_of(file, text)
        });
        new.map_or(Ok(()), |text| patterns(text).map(drop))?;
        Ok(text)
    });
    match text {
        Ok(Some(text)) => Visit::Rules(file, text),
        Ok(None) => Visit::Busy(found.path),
        Err(error) => Visit::failed(found.path, error),
    }
}

/// Reads `.etagdignore`, where the scope has it: what it says decides what the walk finds. It may be a
/// link, as all files of a Kubernetes ConfigMap are.
pub(super) fn visit_ignore_file(pass: &Pass<'_>) -> Option<Visit> {
    let file = RuleFile::Ignore;
    let path = file.name().as_bytes();
    if !pass.scope.covers(path) {
        return None;
    }
    let found = match locate_ignore_file(pass.root) {
        Ok(location) => visit(
            pass,
            file,
            FoundFile {
                path: path.into(),
                linked: location != Path::new(file.name()),
                location,
            },
        ),
        Err(error) => Visit::failed(path.into(), error),
    };
    Some(match found {
        Visit::Gone if has_ignore_name(pass.root) => {
            Visit::Unreadable(path.into(), NO_IGNORE_FILE.to_owned())
        }
        found => found,
    })
}

/// Whether something is called `.etagdignore`, be it a link that leads nowhere or a folder: somebody
/// has meant to leave something out.
fn has_ignore_name(root: &Root) -> bool {
    let path = root.path().join(RuleFile::Ignore.name());
    path.symlink_metadata().is_ok()
}

/// Where `.etagdignore` is, free of links.
fn locate_ignore_file(root: &Root) -> io::Result<PathBuf> {
    let name = Path::new(RuleFile::Ignore.name());
    let real = disk::real_path(&root.path().join(name))?;
    // One outside the root is not opened through its link.
    Ok(real.strip_prefix(root.path()).unwrap_or(name).to_path_buf())
}

/// The patterns of `.etagdignore`. A file whose patterns can't be used is no better than one that can't
/// be read: what it leaves out is not known.
fn patterns(text: &[u8]) -> io::Result<ExcludePatterns> {
    let (patterns, _) = ExcludePatterns::parse(text).map_err(io::Error::other)?;
    Ok(patterns)
}

fn read(pass: &Pass<'_>, file: RuleFile, found: &FoundFile) -> io::Result<Option<Vec<u8>>> {
    let opened = pass.root.open_file(&found.location)?;
    let publish = pass.publishes(&found.path);
    let may_have_writers =
        pass.scope.rereads(&found.path) || opened.stamp.is_younger(pass.now, MAX_PROBED_AGE);
    if may_have_writers && !publish && lease::writers(&opened.file) == Writers::Some {
        return Ok(None);
    }
    let size = opened.stamp.size;
    check_size(file, size)?;
    let mut text = vec![0; usize::try_from(size).unwrap_or_default()];
    let read = disk::read_exact_at(&opened.file, &mut text, 0);
    let is_at_rest = disk::stamp(&opened.file)? == opened.stamp;
    match read {
        Ok(()) if is_at_rest || publish => Ok(Some(text)),
        Err(error) if is_at_rest || publish || disk::is_passing(&error) => Err(error),
        // Changed while it was read: a half-written file must not become the rules of the site.
        _ => Ok(None),
    }
}

fn check_size(file: RuleFile, size: u64) -> io::Result<()> {
    match file {
        RuleFile::Ignore if size > MAX_IGNORE => {
            Err(io::Error::other(".etagdignore must be at most 1 MiB"))
        }
        _ if size > MAX_RULES => Err(io::Error::other("rule files must be at most 16 MiB")),
        _ => Ok(()),
    }
}

/// What the rule files have that this pass has looked at: `None` of one that is gone. One that can't be
/// read, or is being written, keeps what it had.
pub(super) fn looked_at(
    pass: &Pass<'_>,
    mut read: HashMap<RuleFile, Vec<u8>>,
    busy: &[Box<[u8]>],
    unreadable: &BTreeMap<Box<[u8]>, String>,
) -> Vec<(RuleFile, Option<Vec<u8>>)> {
    let is_known = |file: RuleFile| {
        let path = file.name().as_bytes();
        pass.scope.covers(path)
            && busy.iter().all(|busy| **busy != *path)
            && !unreadable.contains_key(path)
            && !ancestors(path).any(|above| unreadable.contains_key(above))
    };
    let looked_at = RuleFile::ALL
        .into_iter()
        .filter_map(|file| match read.remove(&file) {
            Some(text) => Some((file, Some(text))),
            None => is_known(file).then_some((file, None)),
        });
    looked_at.collect()
}

/// What is left out by these patterns of the operator, and those of the site as they are on the disk at
/// this moment: good enough to watch by, until a scan has read them when nobody writes to them.
///
/// # Errors
/// When `.etagdignore` is there and can't be read or used.
pub fn exclusions_on_disk(root: &Root, exclude: &Arc<ExcludePatterns>) -> io::Result<Exclusions> {
    let mut text = Vec::new();
    let opened = locate_ignore_file(root).and_then(|location| root.open_file(&location));
    match opened {
        Ok(opened) => {
            check_size(RuleFile::Ignore, opened.stamp.size)?;
            opened.file.take(MAX_IGNORE).read_to_end(&mut text)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && !has_ignore_name(root) => {}
        Err(error) => return Err(error),
    }
    Ok(Exclusions::new(exclude, &Arc::new(patterns(&text)?)))
}

/// The dialect of `_redirects` that the settings choose.
pub(super) fn dialect(settings: &Settings) -> Dialect {
    match settings.redirects {
        RedirectsDialect::Netlify => Dialect::Netlify,
        RedirectsDialect::Cloudflare => Dialect::Cloudflare,
    }
}

/// Warns of the faulty lines in each rule file that changed since `before`, up to `MAX_SHOWN`
/// lines a file.
pub fn report(rules: &Rules, before: &Rules) {
    for file in RuleFile::ALL {
        if !rules.has_reread(file, before) {
            continue;
        }
        let serious: Vec<&Complaint> = rules
            .complaints(file)
            .iter()
            .filter(|complaint| complaint.severity > Severity::Note)
            .collect();
        for complaint in serious.iter().take(MAX_SHOWN) {
            tracing::warn!(file = file.name(), line = complaint.line, "{complaint}");
        }
        let name = file.name();
        match serious.len().saturating_sub(MAX_SHOWN) {
            0 => {}
            1 => tracing::warn!(file = name, count = 1, "{name}: 1 more line has problems"),
            count => {
                tracing::warn!(
                    file = name,
                    count,
                    "{name}: {count} more lines have problems"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn patterns_that_are_too_large_together_are_not_taken_for_none() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = Root::open(directory.path()).expect("a root");
        let write = |text: &str| fs::write(directory.path().join(".etagdignore"), text);
        let exclusions = || exclusions_on_disk(&root, &Arc::default());
        write("secret\n").expect("written");
        assert!(exclusions().expect("patterns").exclude(b"secret", false));
        let line = "{a,b}[a-z]?".repeat(300) + "\n";
        write(&("secret\n".to_owned() + &line.repeat(200))).expect("written");
        let refused = exclusions().expect_err("too large");
        assert!(refused.to_string().contains("too large together"));
    }
}

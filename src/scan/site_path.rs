//! Paths of the site: which of them may be part of it, judged by their names alone, and where they are
//! in the file system.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::exclude::Exclusions;
use crate::rules::RuleFile;
use crate::semantics::coding::Coding;

/// Whether a path may be part of the site, judged by its names alone.
pub fn is_admitted(path: &[u8]) -> bool {
    !is_beside_rules(path) && !is_hidden(path)
}

/// Whether a path is a rule file's sidecar, or below what should be one.
pub fn is_beside_rules(path: &[u8]) -> bool {
    let rest = RuleFile::ALL
        .into_iter()
        .find_map(|file| path.strip_prefix(file.name().as_bytes()));
    match rest {
        Some([b'/', ..]) => true,
        // A build that compresses everything makes `_headers.gz`, which would publish the rules.
        Some([b'.', rest @ ..]) => Coding::ALL
            .iter()
            .filter_map(|coding| coding.extension())
            .any(|extension| rest == extension.as_bytes()),
        _ => false,
    }
}

/// Whether a path has a name that begins with a dot, and so can't be asked for.
pub fn is_hidden(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/')
        // RFC 8615: the one such name that is meant for clients.
        .any(|name| name.starts_with(b".") && name != b".well-known")
}

/// Whether a path is left out by a pattern. Rules are read whatever patterns say: a site without them
/// would be another one.
pub fn is_excluded(exclusions: &Exclusions, path: &[u8], is_folder: bool) -> bool {
    RuleFile::named(path).is_none() && exclusions.cover(path, is_folder)
}

/// A path of the site as a path of the file system.
pub(super) fn join(root: &Path, path: &[u8]) -> PathBuf {
    if path.is_empty() {
        root.to_path_buf()
    } else {
        root.join(OsStr::from_bytes(path))
    }
}

//! Names that are easily confused, and names that are not served.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;

use unicode_normalization::UnicodeNormalization;
use walkdir::WalkDir;

use super::Finding;
use crate::disk::Root;
use crate::manifest::Manifest;
use crate::rules::{RuleFile, Severity};
use crate::scan::{is_beside_rules, is_hidden};
use crate::semantics::target::encode_path;

/// Paths that differ only in case or in Unicode normalisation. File systems of Windows and macOS
/// keep one of them, and people do not see the difference.
pub(super) fn look_alike(manifest: &Manifest) -> impl Iterator<Item = Finding> {
    let mut alike: BTreeMap<String, Vec<&[u8]>> = BTreeMap::new();
    for resource in manifest.resources() {
        let Ok(path) = str::from_utf8(&resource.path) else {
            continue;
        };
        let folded = path.nfc().flat_map(char::to_lowercase).collect();
        alike.entry(folded).or_default().push(&resource.path);
    }
    alike.into_values().flat_map(|group| {
        let first = group.first().map(|path| encode_path(path));
        group.into_iter().skip(1).filter_map(move |path| {
            let reason = format!(
                "its name differs from {} only in case or accents",
                first.as_deref()?
            );
            Some(Finding::new(path, 0, Severity::Warning, reason))
        })
    })
}

/// Files that no request can reach: hidden ones, those that are neither file, directory nor link,
/// and those in the place of rule files.
pub(super) fn not_served(root: &Root) -> impl Iterator<Item = Finding> {
    let mut walk = WalkDir::new(root.path()).min_depth(1).into_iter();
    let root = root.path().to_path_buf();
    std::iter::from_fn(move || {
        loop {
            // The scan has reported directories that can't be listed.
            let Ok(entry) = walk.next()? else { continue };
            let path = entry.path().strip_prefix(&root).unwrap_or(entry.path());
            let path = path.as_os_str().as_bytes();
            let kind = entry.file_type();
            if is_hidden(path) {
                if kind.is_dir() {
                    walk.skip_current_dir();
                }
                let reason = "is not served: its name begins with a dot";
                return Some(Finding::new(path, 0, Severity::Note, reason));
            }
            if RuleFile::named(path).is_some() && kind.is_dir() {
                walk.skip_current_dir();
                let reason = "is a directory: no rules are read, and nothing in it is served";
                return Some(Finding::new(path, 0, Severity::Error, reason));
            }
            if kind.is_file() && is_beside_rules(path) {
                let reason = "is not served: its name is reserved for rules";
                return Some(Finding::new(path, 0, Severity::Warning, reason));
            }
            if !(kind.is_file() || kind.is_dir() || kind.is_symlink()) {
                let reason = "is not served: it is not a regular file";
                return Some(Finding::new(path, 0, Severity::Warning, reason));
            }
        }
    })
}

//! Names that are easily confused, and names that are not served.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;

use unicode_normalization::UnicodeNormalization;
use walkdir::WalkDir;

use super::destination::{Destination, follow};
use super::finding::{Code, Finding};
use crate::disk::Root;
use crate::exclude::Exclusions;
use crate::manifest::Manifest;
use crate::rules::RuleFile;
use crate::scan::{is_beside_rules, is_excluded, is_hidden};
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
            Some(Finding::new(path, 0, Code::LookAlike, reason))
        })
    })
}

/// What etagd keeps in a site: the dictionaries of deltas, which are not to be served.
const OWN_DIRECTORY: &[u8] = b".etagd";

/// Files that no request can reach: hidden ones, those that are neither file, directory nor link,
/// and those in the place of rule files. What patterns leave out is meant to be.
pub(super) fn not_served(root: &Root, exclusions: Exclusions) -> impl Iterator<Item = Finding> {
    let mut walk = WalkDir::new(root.path()).min_depth(1).into_iter();
    let root = root.path().to_path_buf();
    std::iter::from_fn(move || {
        loop {
            // The scan has reported directories that can't be listed.
            let Ok(entry) = walk.next()? else { continue };
            let path = entry.path().strip_prefix(&root).unwrap_or(entry.path());
            let path = path.as_os_str().as_bytes();
            let kind = entry.file_type();
            if is_excluded(&exclusions, path, kind.is_dir()) {
                if kind.is_dir() {
                    walk.skip_current_dir();
                }
                continue;
            }
            if RuleFile::named(path).is_some() && kind.is_file() {
                continue;
            }
            if RuleFile::named(path).is_some() && kind.is_dir() {
                walk.skip_current_dir();
                let reason = "is a directory: no rules are read, and nothing in it is served";
                return Some(Finding::new(path, 0, Code::RulesDirectory, reason));
            }
            if path == OWN_DIRECTORY && kind.is_dir() {
                walk.skip_current_dir();
                continue;
            }
            if is_hidden(path) {
                if kind.is_dir() {
                    walk.skip_current_dir();
                }
                let reason = "is not served: its name begins with a dot";
                return Some(Finding::new(path, 0, Code::Hidden, reason));
            }
            if kind.is_file() && is_beside_rules(path) {
                let reason = "is not served: its name is reserved for rules";
                return Some(Finding::new(path, 0, Code::ReservedName, reason));
            }
            if !(kind.is_file() || kind.is_dir() || kind.is_symlink()) {
                let reason = "is not served: it is not a regular file";
                return Some(Finding::new(path, 0, Code::SpecialFile, reason));
            }
        }
    })
}

/// Names of an index that other servers look for, and etagd does not.
const FOREIGN_INDEXES: [&[u8]; 7] = [
    b"default.htm",
    b"default.html",
    b"home.html",
    b"index.htm",
    b"index.php",
    b"index.shtml",
    b"index.xhtml",
];

/// Folders that have an index of another name, and nothing else that answers there.
pub(super) fn foreign_indexes(manifest: &Manifest) -> impl Iterator<Item = Finding> {
    manifest.iter().filter_map(|resource| {
        let (folder, name) = split(&resource.path);
        let is_index = |known: &[u8]| known.eq_ignore_ascii_case(name);
        let is_other_case = name != b"index.html" && is_index(b"index.html");
        if !is_other_case && !FOREIGN_INDEXES.iter().any(|known| is_index(known)) {
            return None;
        }
        let folder = format!("/{}", encode_path(folder));
        let index = [folder.as_bytes(), b"index.html"].concat();
        let has_index = manifest
            .locate(index.get(1..).unwrap_or_default())
            .is_some();
        // A listing answers there, but hardly as the author hopes; a redirect or rewrite does.
        let lists = manifest.settings().lists();
        if has_index || (!lists && follow(manifest, &folder) != Destination::Missing) {
            return None;
        }
        let reason = format!("does not answer {folder}: only index.html does");
        Some(Finding::new(&resource.path, 0, Code::IndexName, reason))
    })
}

/// What an editor, a file manager or a version control tool leaves next to a file: everybody can
/// fetch it, and it may tell what the file itself does not.
pub(super) fn leftovers(manifest: &Manifest) -> impl Iterator<Item = Finding> {
    manifest.iter().filter_map(|resource| {
        let (_, name) = split(&resource.path);
        let maker = leftover_of(name)?;
        let reason = format!("looks like what {maker}, and everybody can fetch it");
        Some(Finding::new(&resource.path, 0, Code::Leftover, reason))
    })
}

/// What leaves files of this name, if anything is known for it.
fn leftover_of(name: &[u8]) -> Option<&'static str> {
    let lower = name.to_ascii_lowercase();
    let ends_with = |suffixes: &[&str]| suffixes.iter().any(|it| lower.ends_with(it.as_bytes()));
    if name.len() > 1 && name.ends_with(b"~") {
        return Some("an editor keeps of an earlier version");
    }
    if name.len() > 2 && name.starts_with(b"#") && name.ends_with(b"#") {
        return Some("Emacs keeps of unsaved changes");
    }
    if ends_with(&[".swp", ".swo"]) {
        return Some("Vim keeps of unsaved changes");
    }
    if ends_with(&[".bak", ".old"]) {
        return Some("somebody keeps of an earlier version");
    }
    if ends_with(&[".orig", ".rej"]) {
        return Some("a merge or a patch leaves");
    }
    if name.starts_with(b"~$") {
        return Some("an office program leaves while a file is open");
    }
    let is_desktop = [&b"thumbs.db"[..], b"desktop.ini"].contains(&&*lower);
    is_desktop.then_some("Windows keeps about a folder")
}

/// The folder, with its slash at the end unless it is the root, and the name in it.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let slash = memchr::memrchr(b'/', path);
    path.split_at(slash.map_or(0, |slash| slash + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_are_known_by_their_names() {
        for name in [
            "x~",
            "index.html~",
            "#x#",
            "x.swp",
            "x.BAK",
            "a.orig",
            "a.rej",
            "~$a.docx",
            "Thumbs.db",
            "desktop.ini",
            "config.old",
        ] {
            assert!(leftover_of(name.as_bytes()).is_some(), "{name}");
        }
        for name in [
            "~",
            "#",
            "##",
            "#x",
            "x",
            "~x",
            "bak",
            "x.swp.html",
            "thumbs.db.png",
            "",
        ] {
            assert!(leftover_of(name.as_bytes()).is_none(), "{name}");
        }
    }
}

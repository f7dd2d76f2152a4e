//! What tells a folder with releases from any other.

use std::fs;
use std::path::Path;

use super::layout::{self, BLOBS, CHANNELS, LISTINGS, LOCKS, ObjectKey, PROBES, TREES};

/// Whether a folder is a store with at least one release.
#[must_use]
pub fn is_store(folder: &Path) -> bool {
    let has = |name| folder.join(name).is_dir();
    has(BLOBS) && has(LISTINGS) && has_release(folder)
}

/// Whether a folder has something, and nothing that a store has.
#[must_use]
pub fn is_foreign(folder: &Path) -> bool {
    let has_entries = names(folder).next().is_some();
    let of_stores = [BLOBS, TREES, LISTINGS, CHANNELS, LOCKS, PROBES];
    has_entries && !of_stores.iter().any(|name| folder.join(name).is_dir())
}

/// The names of what is in a folder, as far as they are text.
fn names(folder: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

fn has_release(folder: &Path) -> bool {
    let channels = folder.join(CHANNELS);
    names(&channels).any(|channel| {
        names(&channels.join(&channel)).any(|number| {
            let key = ObjectKey::listed(&format!("{CHANNELS}/{channel}/{number}"));
            layout::release_of(&key).is_some()
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_has_all_three_folders_and_a_release() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        let make = |name: &str| fs::create_dir_all(root.join(name)).expect("made");
        let write = |name: &str| fs::write(root.join(name), "x").expect("written");
        assert!(!is_store(root) && !is_foreign(root));
        write("README");
        assert!(is_foreign(root));
        for name in ["blobs", "manifests", "channels/live", "channels/A"] {
            make(name);
        }
        write("channels/index.html");
        write("channels/live/1");
        write("channels/live/latest");
        write("channels/A/00000000000000000001");
        assert!(!is_store(root));
        write("channels/live/00000000000000000001");
        assert!(is_store(root) && !is_foreign(root));
        fs::remove_dir(root.join("blobs")).expect("removed");
        assert!(!is_store(root));
        assert!(!is_store(&root.join("missing")));
    }
}

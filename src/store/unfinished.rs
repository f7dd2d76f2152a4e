//! What killed publishers have left of objects that they were writing.
//!
//! A folder has such files next to the objects, under names that no list shows. A bucket has parts of uploads,
//! which its own rules remove (`AbortIncompleteMultipartUpload`).

use std::fs;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use tokio::task::spawn_blocking;
use walkdir::WalkDir;

use super::error::{ErrorContext, StoreAction, StoreError, StoreErrorKind};
use super::{Store, layout};
use crate::settings::StoreUrl;

impl Store {
    /// Removes what was last written before this moment, by the clock of the store, and never finished.
    ///
    /// # Errors
    /// When a file can't be removed.
    pub async fn remove_unfinished(&self, before: SystemTime) -> Result<(), StoreError> {
        let StoreUrl::Folder(folder) = self.url.clone() else {
            return Ok(());
        };
        let removed = spawn_blocking(move || {
            let folders = [
                layout::BLOBS,
                layout::TREES,
                layout::LISTINGS,
                layout::CHANNELS,
                layout::LOCKS,
                layout::PROBES,
            ];
            folders
                .iter()
                .try_for_each(|name| remove_below(&folder.join(name), before))
        });
        let removed = removed.await.map_err(io::Error::other);
        removed.and_then(|removed| removed).map_err(|error| {
            let context = ErrorContext {
                action: StoreAction::Delete,
                key: None,
                store: &self.url,
            };
            let reason = format!("what killed processes have left stays: {error}");
            context.error(StoreErrorKind::Unreachable, reason)
        })
    }
}

fn remove_below(folder: &Path, before: SystemTime) -> io::Result<()> {
    // Others may remove what was found, and the folder may not be there yet.
    let entries = WalkDir::new(folder).into_iter().filter_map(Result::ok);
    for entry in entries {
        let name = entry.file_name().to_string_lossy();
        if !is_unfinished(&name) {
            continue;
        }
        // One of a push that goes on may be finished by now.
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        if metadata.modified()? < before {
            match fs::remove_file(entry.path()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

/// Whether object_store writes to a file with this name, to rename it: `NAME#1`.
fn is_unfinished(name: &str) -> bool {
    name.rsplit_once('#').is_some_and(|(_, digits)| {
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    })
}

//! Content codings that are made of files: where they are kept, and scanners that make them.

use std::path::Path;

use super::Error;
use crate::cache::{Cache, CacheError};
use crate::config::{CompressionFlags, SiteOptions};
use crate::disk::{Root, Spool};
use crate::scan::{CodingStore, Scanner};
use crate::settings::Settings;

/// Where those of a site are kept: `--cache`, if it is given and can be used, and a temporary file.
///
/// # Errors
/// When the cache would be in the site.
pub(super) fn open(cache: Option<&Path>, size: u64, root: &Root) -> Result<CodingStore, Error> {
    let cache = match cache.map(|directory| Cache::open(directory, Some(root.path()), size)) {
        None => None,
        Some(Ok(cache)) => Some(cache),
        Some(Err(error @ CacheError::Served { .. })) => return Err(error.into()),
        Some(Err(error)) => {
            tracing::warn!(
                %error,
                "--cache is not used: {error}; compressed files are not kept for the next start"
            );
            None
        }
    };
    let folder = cache.as_ref().map(|cache| cache.folder().to_path_buf());
    let directories = folder.into_iter().chain([std::env::temp_dir()]).collect();
    Ok(CodingStore {
        spool: Some(Spool::new(directories, size)),
        cache,
    })
}

/// What reads a site that nobody is served.
///
/// # Errors
/// As [`open`].
pub(super) fn scanner(
    handling: &SiteOptions,
    compression: &CompressionFlags,
    root: &Root,
) -> Result<Scanner, Error> {
    let (scanner, store) = scanner_and_store(handling, compression, root)?;
    Ok(scanner.with_store(CodingStore {
        spool: None,
        ..store
    }))
}

/// What reads a site whose codings are published, so that they are kept until then.
///
/// # Errors
/// As [`open`].
pub(super) fn publishing_scanner(
    handling: &SiteOptions,
    compression: &CompressionFlags,
    root: &Root,
) -> Result<Scanner, Error> {
    let (scanner, store) = scanner_and_store(handling, compression, root)?;
    Ok(scanner.with_store(store))
}

fn scanner_and_store(
    handling: &SiteOptions,
    compression: &CompressionFlags,
    root: &Root,
) -> Result<(Scanner, CodingStore), Error> {
    let settings = Settings {
        compress: compression.policy(),
        ..handling.settings()
    };
    let (cache, size) = (
        compression.cache.as_deref(),
        compression.cache_size.as_u64(),
    );
    // No room for content: it is only hashed.
    let scanner = Scanner::new(handling.symlinks, settings, None);
    Ok((scanner, open(cache, size, root)?))
}

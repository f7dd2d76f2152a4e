//! Which content codings are made of a site's files, and where they are kept.

use std::path::PathBuf;

use bytesize::ByteSize;
use clap::Args;

use super::values::{Compress, compress, size};
use crate::settings::CompressionPolicy;

/// Which content codings are made of a site's files, and where they are kept.
#[derive(Clone, Debug, Args)]
pub struct CompressionFlags {
    /// Compress files before they are published [default codings: br,gz].
    ///
    /// Text and other files that gain from it get a brotli and a gzip form, each with an entity tag
    /// of its own, equal on all replicas. --compress=br,zst,gz chooses. A sidecar next to a file
    /// (see etagd compress) takes precedence. A change is visible once it is compressed, which
    /// takes about 0.1 s of one core for each MB.
    #[arg(
        long,
        value_name = "CODINGS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "on",
        value_parser = compress
    )]
    pub compress: Option<Compress>,
    /// Keep compressed files in this directory, for the next start and other processes.
    ///
    /// It must not be in the site. Without it, a restart compresses everything again. Of a store, what
    /// was fetched is kept there, and a restart without the store serves it. Needs --compress or a
    /// store.
    #[arg(long, value_name = "DIR", hide_short_help = true)]
    pub cache: Option<PathBuf>,
    /// Room for compressed files: in --cache, and again in a temporary file.
    ///
    /// The temporary file has what --memory has no room for. It has no name, and is in the
    /// directory of --cache or else in TMPDIR. Of a store, room for what was fetched. Needs
    /// --compress or a store.
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size, hide_short_help = true)]
    pub cache_size: ByteSize,
}

impl CompressionFlags {
    /// What is to be made.
    pub fn policy(&self) -> Option<CompressionPolicy> {
        match &self.compress {
            Some(Compress::On(policy)) => Some(policy.clone()),
            Some(Compress::Off) | None => None,
        }
    }
}

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
    /// Limit for compressed files on disk: in --cache, and again in a temporary file.
    ///
    /// Together they may take up twice as much. In --cache, what was not used for longest makes room for
    /// what is new. The temporary file has what is longer than 128 KiB, and what --memory has no room
    /// for; when it is full, files are sent as they are, and the site digest is incomplete. It has no
    /// name, is in the directory of --cache or else in TMPDIR, and goes with the process. Of a store,
    /// the limit for what was fetched. Needs --compress, or a store and --cache.
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

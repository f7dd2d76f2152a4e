//! `--writable`: who must not be let in, and what to write with.

use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use crate::client::TrustedProxies;
use crate::config::WriteOptions;
use crate::disk::Root;
use crate::metrics::Metrics;
use crate::scan::is_hidden;
use crate::server::listener::Bound;
use crate::watch::Hint;
use crate::write::{TokenError, Writer, WriterConfig};

/// Strangers could write, or learn how to.
#[derive(Debug, thiserror::Error)]
pub enum InsecureWrites {
    /// There are no tokens.
    #[error(
        "--writable lets anybody write who can reach {0}: give --write-token-file FILE, or listen \
         on 127.0.0.1, [::1] or unix:PATH only"
    )]
    NoTokens(SocketAddr),
    /// There is no TLS.
    #[error(
        "--writable on {0} without TLS shows tokens to the network: give --tls-cert and --tls-key, \
         or --write-insecure where something else encrypts"
    )]
    NoTls(SocketAddr),
    /// Somebody else connects in their place.
    #[error(
        "--writable lets anybody write whom a --trusted-proxy lets through: give \
         --write-token-file FILE"
    )]
    Proxied,
    /// Anybody could read the tokens.
    #[error(
        "--write-token-file {}: it would be served: choose a file outside of {}",
        .file.display(), .root.display()
    )]
    Served {
        /// As it was given.
        file: PathBuf,
        /// The real path of the site.
        root: PathBuf,
    },
}

/// Whether it is safe to let clients write who can reach these listeners.
pub(super) fn check(
    writing: &WriteOptions,
    root: &Root,
    bound: &[Bound],
    has_proxies: bool,
    is_secure: bool,
) -> Result<(), InsecureWrites> {
    let real = writing.write_token_file.as_ref();
    let real = real.map(|file| (file, file.canonicalize().unwrap_or_else(|_| file.clone())));
    if let Some((file, real)) = &real
        && let Ok(path) = real.strip_prefix(root.path())
        && !is_hidden(path.as_os_str().as_bytes())
    {
        let (file, root) = (file.to_path_buf(), root.path().to_path_buf());
        return Err(InsecureWrites::Served { file, root });
    }
    if real.is_none() && has_proxies {
        return Err(InsecureWrites::Proxied);
    }
    let Some(public) = bound.iter().find_map(Bound::public) else {
        return Ok(());
    };
    if real.is_none() {
        return Err(InsecureWrites::NoTokens(public));
    }
    if !is_secure && !writing.write_insecure {
        return Err(InsecureWrites::NoTls(public));
    }
    Ok(())
}

/// What a [`Writer`] needs to know.
pub(super) fn options(
    writing: WriteOptions,
    directory: PathBuf,
    proxies: TrustedProxies,
    patience: Duration,
) -> WriterConfig {
    WriterConfig {
        directory,
        proxies,
        tokens: writing.write_token_file,
        rules: writing.write_rules,
        max_upload: writing.max_upload.as_u64(),
        max_uploads: writing.max_uploads,
        patience,
    }
}

/// A writer whose changes the watcher makes. What killed processes have left is removed meanwhile.
pub(super) fn writer(
    options: WriterConfig,
    metrics: &Arc<Metrics>,
    hints: &Sender<Hint>,
) -> Result<Arc<Writer>, TokenError> {
    let hints = hints.clone();
    let commit = move |commit| {
        // Without a watcher nobody answers, which is an answer as well.
        let _ = hints.send(Hint::WriteJob(commit));
    };
    let writer = Arc::new(Writer::new(options, Arc::clone(metrics), commit)?);
    let clearing = Arc::clone(&writer);
    thread::spawn(move || clearing.clear());
    Ok(writer)
}

//! `--writable`: which combinations of flags are refused, and what to write with.

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
use crate::server::listener::BoundSocket;
use crate::watch::Hint;
use crate::write::{TokenError, Writer, WriterConfig};

/// Clients that should not could write, or learn a token.
#[derive(Debug, thiserror::Error)]
pub enum InsecureWrites {
    /// There are no tokens.
    #[error(
        "--writable lets anyone write who can reach {0}: give --write-token-file FILE, or listen \
         on 127.0.0.1, [::1] or unix:PATH only"
    )]
    NoTokens(SocketAddr),
    /// There is no TLS.
    #[error(
        "--writable on {0} without TLS sends tokens in the clear: give --tls-cert and --tls-key, \
         or --write-insecure behind a proxy that speaks TLS"
    )]
    NoTls(SocketAddr),
    /// Without tokens, a local address is the only protection, and a proxy connects from one.
    #[error(
        "--writable lets anyone write whom a --trusted-proxy lets through: give \
         --write-token-file FILE"
    )]
    Proxied,
    /// Any client could read the tokens.
    #[error(
        "--write-token-file {}: it would be served: choose a file outside of {}",
        .file.display(), .root.display()
    )]
    Served {
        /// The file of tokens, as it was given.
        file: PathBuf,
        /// The real path of the site.
        root: PathBuf,
    },
}

/// Checks that only clients with a token, or on this machine, can write over these listeners.
///
/// # Errors
/// When others could, or could read a token.
pub(super) fn check(
    options: &WriteOptions,
    root: &Root,
    bound: &[BoundSocket],
    has_proxies: bool,
    is_secure: bool,
) -> Result<(), InsecureWrites> {
    if let Some(file) = &options.write_token_file
        // Its real path: a link into the site is as bad. One that is missing is reported later.
        && let real = file.canonicalize().unwrap_or_else(|_| file.clone())
        && let Ok(path) = real.strip_prefix(root.path())
        && !is_hidden(path.as_os_str().as_bytes())
    {
        return Err(InsecureWrites::Served {
            file: file.clone(),
            root: root.path().to_path_buf(),
        });
    }
    let has_tokens = options.write_token_file.is_some();
    if !has_tokens && has_proxies {
        return Err(InsecureWrites::Proxied);
    }
    let Some(public) = bound.iter().find_map(BoundSocket::public_address) else {
        return Ok(());
    };
    if !has_tokens {
        return Err(InsecureWrites::NoTokens(public));
    }
    if !is_secure && !options.write_insecure {
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

/// A writer whose changes the watcher makes, so that no write races with a scan. Temporary files
/// of killed processes are removed on a thread of their own.
pub(super) fn writer(
    options: WriterConfig,
    metrics: &Arc<Metrics>,
    hints: &Sender<Hint>,
) -> Result<Arc<Writer>, TokenError> {
    let hints = hints.clone();
    let commit = move |commit| {
        // If the watcher is gone, dropping the job reports that to the writer.
        let _ = hints.send(Hint::WriteJob(commit));
    };
    let writer = Arc::new(Writer::new(options, Arc::clone(metrics), commit)?);
    let clearing = Arc::clone(&writer);
    thread::spawn(move || clearing.clear());
    Ok(writer)
}

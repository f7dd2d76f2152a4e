//! What each subcommand does, from parsed flags to the end of the process.

mod compress;
mod lint;
mod manifest;
mod scan;
mod serve;
mod signals;
mod supervisor;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::Command;
use crate::disk::Root;
use crate::saved::Refused;
use crate::server::admin::AdminError;
use crate::server::listener::ListenError;
use crate::server::tls::TlsError;

/// Why a subcommand failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The site's directory can't be used.
    #[error("cannot open {}: {source}", .path.display())]
    Directory {
        /// As it was given.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// A listener can't be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The operator can't be answered.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The certificate or its key can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The manifest can't be saved there.
    #[error(transparent)]
    State(#[from] Refused),
    /// The system refuses what a server needs.
    #[error("cannot start the server: {0}")]
    Start(io::Error),
    /// A bug: the thread that scans ended without a result.
    #[error("the scan broke off; the message above says where: please report it")]
    Scan,
    /// `etagd compress` is not done, or has found something.
    #[error("{0}")]
    Sidecars(String),
    /// `etagd lint` has found something.
    #[error("{0}")]
    Lint(String),
    /// Standard output is gone.
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
}

/// Runs one subcommand to its end.
///
/// # Errors
/// Whatever made it impossible, as one sentence.
pub fn run(command: Command) -> Result<(), Error> {
    match command {
        Command::Serve(flags) => serve::serve((*flags).into()),
        Command::Manifest(flags) => manifest::manifest(&flags),
        Command::Compress(flags) => compress::compress(&flags),
        Command::Lint(flags) => lint::lint(&flags),
    }
}

fn open(directory: &Path) -> Result<Arc<Root>, Error> {
    let failed = |source| Error::Directory {
        path: directory.to_path_buf(),
        source,
    };
    Root::open(directory).map(Arc::new).map_err(failed)
}

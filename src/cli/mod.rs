//! What each subcommand does, from parsed flags to the end of the process.

mod certificate;
mod check;
mod compress;
mod dev;
mod lint;
mod manifest;
mod progress;
mod push;
mod scan;
mod serve;
mod signals;
mod supervisor;
mod writable;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::Command;
use crate::dev::TAIL;
use crate::disk::Root;
use crate::inventory::{Inventory, InventoryError};
use crate::release::ReleaseError;
use crate::remote::{ClientError, Trust};
use crate::server::admin::AdminError;
use crate::server::listener::ListenError;
use crate::server::tls::TlsError;
use crate::state::Refused;
use crate::write::TokenError;
use certificate::CertificateError;

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
    /// No certificate can be made or kept.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The file of tokens can't be used.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Strangers could write.
    #[error(transparent)]
    InsecureWrites(#[from] writable::InsecureWrites),
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
    /// A manifest can't be used.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    /// A manifest can't be served by.
    #[error(transparent)]
    Release(#[from] ReleaseError),
    /// What was typed asks for nothing that can be done.
    #[error("{0}")]
    Usage(String),
    /// Replicas do not serve the same, or can't be asked.
    #[error("{0}")]
    Disagreement(String),
    /// Not everything is on the server that should be.
    #[error("{0}")]
    Push(String),
    /// The directory to compare with can't be read whole.
    #[error("{0}")]
    Incomplete(String),
    /// No server can be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Standard output is gone.
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
}

impl Error {
    /// The exit code that tells of it: 2 for bad usage, 1 for the rest.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::InsecureWrites(_) => 2,
            _ => 1,
        }
    }
}

/// Runs one subcommand to its end.
///
/// # Errors
/// Whatever made it impossible, as one sentence.
pub fn run(command: Command) -> Result<(), Error> {
    match command {
        Command::Serve(flags) => serve::serve((*flags).into()),
        Command::Dev(flags) => serve::serve(flags.config(TAIL)),
        Command::Manifest(flags) => manifest::manifest(&flags),
        Command::Check(flags) => check::check(*flags),
        Command::Push(flags) => push::push(*flags),
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

/// Reads a manifest in JSON; `-` is standard input.
fn inventory(file: &Path) -> Result<Inventory, Error> {
    if file == Path::new("-") {
        return Ok(Inventory::read("of standard input", io::stdin().lock())?);
    }
    let name = file.display();
    let opened = File::open(file).map_err(|source| InventoryError::unreadable(&name, source))?;
    Ok(Inventory::read(name, opened)?)
}

/// Whose certificates are believed.
fn trust(file: Option<PathBuf>, is_secure: bool) -> Trust {
    match file {
        Some(file) => Trust::File(file),
        None if is_secure => Trust::System,
        None => Trust::Nobody,
    }
}

/// Writes to standard output. A reader who has seen enough (`| head`) is no error.
fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Error> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(Error::Output),
    }
}

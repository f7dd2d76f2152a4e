//! What each subcommand does, from parsed flags to the end of the process.

mod background;
mod certificate;
mod check;
mod codings;
mod compress;
mod dev;
mod follow;
mod gc;
mod health;
mod lint;
mod manifest;
mod process;
mod progress;
mod publish;
mod push;
mod redirect;
mod releases;
mod rollback;
mod scan;
mod serve;
mod shutdown;
mod signals;
mod startup;
mod store;
mod supervisor;
mod usage;
mod writable;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use indicatif::HumanCount;

use crate::cache::CacheError;
use crate::compress::AgainstError;
use crate::config::{Cli, Command};
use crate::dev::tail;
use crate::disk::Root;
use crate::follow::FollowError;
use crate::inventory::{Inventory, InventoryError};
use crate::publish::PublishError;
use crate::push::PushError;
use crate::release::ReleaseError;
use crate::remote::{ManifestError, RequestError};
use crate::rules::RuleFile;
use crate::server::admin::AdminError;
use crate::server::listener::ListenError;
use crate::server::tls::TlsError;
use crate::settings::StoreUrl;
use crate::state::Refused;
use crate::store::is_store;
use crate::trust::{Trust, TrustError};
use crate::watch::HOLD_FILE;
use crate::write::TokenError;
use certificate::CertificateError;
use redirect::RedirectError;
use usage::UsageError;

/// Why a subcommand failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The site's directory can't be opened or read.
    #[error("cannot open {}: {source}", .path.display())]
    Directory {
        /// The directory, as it was given.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// The site's patterns are not known, and what they leave out must not be served.
    #[error(
        "cannot read {}: {source}: what it leaves out would be served; make it readable, or remove it",
        .path.display()
    )]
    IgnoreFile {
        /// Where it is.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// A public address can't be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Plain HTTP can't be redirected to HTTPS.
    #[error(transparent)]
    Redirect(#[from] RedirectError),
    /// The admin listener can't be started.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The certificate or its key can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A certificate for `etagd dev --tls self` can't be made or kept.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The file of tokens can't be used.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// `--writable` would let strangers write.
    #[error(transparent)]
    InsecureWrites(#[from] writable::InsecureWrites),
    /// The file of `--state` can't be used.
    #[error(transparent)]
    State(#[from] Refused),
    /// The directory of `--cache` can't be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The releases of a store can't be served.
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// The system refuses a thread, a signal or a descriptor that a server needs.
    #[error("cannot start the server: {0}")]
    Start(io::Error),
    /// The thread that scans panicked, which is a bug.
    #[error("internal error: the scan panicked (see above); please report this")]
    Scan,
    /// A manifest in JSON can't be read.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    /// The manifest of `--manifest` can't be served.
    #[error(transparent)]
    Release(#[from] ReleaseError),
    /// The command line asks for something that cannot be done.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// The server cannot be pushed to.
    #[error(transparent)]
    Push(#[from] PushError),
    /// Nothing can be published, listed or collected.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The admin listener to ask for the server's files does not publish them.
    #[error("{0}: give the address of its --admin listener with --admin-url")]
    AdminUrl(ManifestError),
    /// A directory can't be read completely, so nothing can be compared with it.
    #[error(
        "{} cannot be used: a file in it cannot be read, or is still being written; run again \
         once it is complete", .0.display()
    )]
    IncompleteDirectory(PathBuf),
    /// An empty directory is pushed to a store.
    #[error(
        "{} is empty: a release of it would answer every request with 404; has the build failed?",
        .0.display()
    )]
    NothingToRelease(PathBuf),
    /// A directory is pushed that somebody is changing.
    #[error("{} is held by .etagd-hold, so somebody is changing it: remove that once it is complete", .0.display())]
    Held(PathBuf),
    /// A folder that is no store.
    #[error("{0} is no store: nothing in it is of etagd; correct the name")]
    NoStore(StoreUrl),
    /// The earlier release of `--against` can't be read.
    #[error(transparent)]
    Against(#[from] AgainstError),
    /// The certificate authorities can't be had.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// `etagd health` gets no answer.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// `etagd health` gets no answer over a Unix socket.
    #[error("cannot ask unix:{}: {source}", .path.display())]
    AdminSocket {
        /// The socket.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// The man pages can't be written.
    #[error("cannot write man pages to {}: {source}", .path.display())]
    ManPages {
        /// The directory.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// Standard output is gone.
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
}

impl Error {
    /// The exit code for it: 2 for bad usage, 1 for everything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::InsecureWrites(_) => 2,
            Self::Follow(error) if error.is_usage() => 2,
            Self::Redirect(error) if error.is_usage() => 2,
            // Directories that the command line names, and that exclude each other.
            Self::Cache(CacheError::Served { .. }) | Self::State(Refused::Served { .. }) => 2,
            _ => 1,
        }
    }
}

/// Runs one subcommand to its end. What it finds is printed, and decides on the exit code.
///
/// # Errors
/// When the subcommand can't do its work.
pub fn run(command: Command) -> Result<ExitCode, Error> {
    match command {
        Command::Serve(flags) => serve::serve(&(*flags).into()).map(|()| ExitCode::SUCCESS),
        Command::Dev(flags) => serve::serve(&flags.config(tail)).map(|()| ExitCode::SUCCESS),
        Command::Manifest(flags) => manifest::manifest(&flags).map(|()| ExitCode::SUCCESS),
        Command::Check(flags) => check::check(*flags),
        Command::Push(flags) => push::push(&flags),
        Command::Releases(flags) => releases::releases(&flags),
        Command::Rollback(flags) => rollback::rollback(flags),
        Command::Gc(flags) => gc::collect(&flags),
        Command::Compress(flags) => compress::compress(&flags),
        Command::Lint(flags) => lint::lint(&flags),
        Command::Health(flags) => health::health(&flags),
        Command::Completions { shell } => {
            print(|out| out.write_all(&Cli::completions(shell))).map(|()| ExitCode::SUCCESS)
        }
        Command::Man { directory } => match Cli::write_man_pages(&directory) {
            Ok(()) => Ok(ExitCode::SUCCESS),
            Err(source) => Err(Error::ManPages {
                path: directory,
                source,
            }),
        },
    }
}

impl Error {
    /// `.etagdignore` of this root can't be read.
    fn ignore_file(root: &Root, source: io::Error) -> Self {
        Self::IgnoreFile {
            path: root.path().join(RuleFile::Ignore.name()),
            source,
        }
    }
}

/// Refuses the URL of a store where only a directory will do.
fn refuse_url(directory: &Path) -> Result<(), UsageError> {
    let is_meant = directory.to_str().is_some_and(StoreUrl::is_meant);
    match is_meant && !directory.exists() {
        true => Err(UsageError::NoDirectory(directory.to_path_buf())),
        false => Ok(()),
    }
}

/// Opens the directory of a site.
fn open(directory: &Path) -> Result<Arc<Root>, Error> {
    refuse_url(directory)?;
    match Root::open(directory) {
        Ok(root) => {
            if is_store(root.path()) {
                let path = directory.display();
                let store = StoreUrl::Folder(root.path().to_path_buf());
                tracing::warn!(
                    %path,
                    "{path} is a store of releases, and is taken for a site that has everything in it: to \
                     serve its newest release, run etagd serve {store}"
                );
            }
            Ok(Arc::new(root))
        }
        Err(source) => Err(Error::Directory {
            path: directory.to_path_buf(),
            source,
        }),
    }
}

/// Refuses a directory that says that it is not complete.
fn refuse_held(directory: &Path, root: &Root) -> Result<(), Error> {
    match root.path().join(HOLD_FILE).symlink_metadata() {
        Ok(_) => Err(Error::Held(directory.to_path_buf())),
        Err(_) => Ok(()),
    }
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

/// The certificate authorities to trust: those of `--ca`, or those of the system where TLS is used.
fn trust(file: Option<PathBuf>, is_secure: bool) -> Trust {
    match file {
        None if !is_secure => Trust::Nobody,
        file => file.into(),
    }
}

/// Prints the result of a subcommand. A reader that closes the pipe early (`| head`) is no error.
fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Error> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(Error::Output),
    }
}

/// A number and what it counts: `1 file`, `2 files`.
fn counted(number: impl TryInto<u64>, noun: &str) -> String {
    match number.try_into().unwrap_or(u64::MAX) {
        1 => format!("1 {noun}"),
        number => format!("{} {noun}s", HumanCount(number)),
    }
}

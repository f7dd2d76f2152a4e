//! PUT and DELETE: authorisation, preconditions, and the upload to the disk.
//!
//! Every write has a precondition (RFC 9110 section 13, RFC 6585 section 3): two clients that have
//! read the same version can't both replace it. The precondition is evaluated against the published
//! state before any content is read, and against the disk when the change is committed. Whatever
//! the header section shows to be wrong is refused before the content.
//!
//! No response is built here: [`Writer::call`] returns what was written, or the reason for refusing.

mod audit;
mod rate_limit;
mod refusal;
mod request;
mod token;
mod upload;

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::StatusCode;
use http::request::Parts;
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::spawn_blocking;
use walkdir::WalkDir;

use crate::client::{Peer, TrustedProxies};
use crate::commit::{Committed, Operation, RejectedWrite, WriteJob};
use crate::disk::Root;
use crate::locate::resolve;
use crate::manifest::Manifest;
use crate::metrics::Metrics;
use crate::scan::{DICTIONARIES, is_hidden, is_unlisted};
use crate::semantics::etag::ETag;
use crate::site::Site;
use crate::staging::{DirectoriesInUse, Directory, DirectoryUse, is_temp_file};
use audit::{Audit, Author};
use rate_limit::FailedLogins;
use request::{WriteAction, WriteRequest};
use upload::{StagedFile, Upload, UploadError, use_directories};

pub use refusal::Refusal;
pub use request::is_write;
pub use token::{TokenError, Tokens};
pub use upload::{discard, linger};

/// How a [`Writer`] works: who may write where, and how much.
#[derive(Clone, Debug)]
pub struct WriterConfig {
    /// The site's directory as it was given: it may be a link, and lead elsewhere later.
    pub directory: PathBuf,
    /// The token file; without one, everybody who can connect may write.
    pub tokens: Option<PathBuf>,
    /// The proxies that are trusted to name the client.
    pub proxies: TrustedProxies,
    /// Whether `_headers` and `_redirects` may be written.
    pub rules: bool,
    /// Bytes of the largest upload.
    pub max_upload: u64,
    /// Number of uploads at the same time.
    pub max_uploads: usize,
    /// How long an upload may pause.
    pub patience: Duration,
}

/// Carries out the writes of clients.
pub struct Writer {
    options: WriterConfig,
    metrics: Arc<Metrics>,
    tokens: Option<ArcSwap<Tokens>>,
    failed_logins: FailedLogins,
    uploads: Semaphore,
    directories: Arc<DirectoriesInUse>,
    commit: Box<dyn Fn(WriteJob) + Send + Sync>,
}

/// What a write has changed.
#[derive(Debug)]
pub enum Written {
    /// The path did not exist before. Its tag, unless another process has changed it already.
    Created(Option<ETag>),
    /// The content was replaced. Its tag, unless another process has changed it already.
    Replaced(Option<ETag>),
    /// The path no longer exists.
    Deleted,
}

impl Writer {
    /// A writer that passes its changes to `commit`.
    ///
    /// # Errors
    /// When the tokens can't be used.
    pub fn new(
        options: WriterConfig,
        metrics: Arc<Metrics>,
        commit: impl Fn(WriteJob) + Send + Sync + 'static,
    ) -> Result<Self, TokenError> {
        let tokens = options.tokens.as_deref().map(Tokens::load).transpose()?;
        Ok(Self {
            tokens: tokens.map(ArcSwap::from_pointee),
            failed_logins: FailedLogins::default(),
            uploads: Semaphore::new(options.max_uploads),
            directories: Arc::default(),
            commit: Box::new(commit),
            options,
            metrics,
        })
    }

    /// Reads the token file again, on a thread that may block. Keeps the current tokens if it can't
    /// be used.
    pub async fn reload_aside(&self) {
        let (Some(tokens), Some(path)) = (&self.tokens, &self.options.tokens) else {
            return;
        };
        let file = path.clone();
        match spawn_blocking(move || Tokens::load(&file)).await {
            Ok(Ok(new)) => {
                tokens.store(Arc::new(new));
                tracing::info!(path = %path.display(), "tokens reloaded");
            }
            Ok(Err(error)) => tracing::error!(%error, "keeping the current tokens: {error}"),
            Err(error) => tracing::error!(%error, "keeping the current tokens: {error}"),
        }
    }

    /// Removes the temporary files that killed processes have left in the site's directory.
    pub fn clear(&self) {
        let root = match Root::open(&self.options.directory) {
            Ok(root) => root,
            Err(error) => {
                let directory = self.options.directory.display();
                tracing::warn!(path = %directory, %error, "cannot look for old uploads in {directory}: {error}");
                return;
            }
        };
        let entries = WalkDir::new(root.path())
            .into_iter()
            .filter_entry(|entry| {
                let below = entry.path().strip_prefix(root.path());
                !entry.file_type().is_dir() || below.is_ok_and(may_have_uploads)
            })
            .flatten();
        for entry in entries {
            if !is_temp_file(entry.file_name()) {
                continue;
            }
            let path = entry.path();
            let below = path.strip_prefix(root.path()).ok();
            let directory = below.and_then(Path::parent).unwrap_or(Path::new(""));
            let cleared = Directory::open(&root, directory)
                .and_then(|directory| directory.clear_file(entry.file_name()));
            if let Err(error) = cleared {
                let path = path.display();
                tracing::warn!(%path, %error, "cannot remove the old upload {path}: {error}");
            }
        }
    }

    /// Carries out one PUT or DELETE.
    ///
    /// # Errors
    /// The reason why it was refused.
    pub async fn call(
        self: &Arc<Self>,
        site: &Site,
        request: &Parts,
        content: &mut Incoming,
        peer: Peer,
        progress: impl Fn(),
    ) -> Result<Written, Refusal> {
        let author = self.authorise(request, peer)?;
        let is_empty = content.is_end_stream();
        let ask = request::parse(request, &self.options, &site.current(), is_empty)?;
        check(&ask, &site.current())?;
        let place = (
            self.options.directory.clone(),
            Arc::clone(&self.directories),
        );
        let (operation, directories, bytes) = match &ask.change {
            WriteAction::Delete => {
                let path = PathBuf::from(OsStr::from_bytes(&ask.path));
                let begin = move || use_directories(&place.0, &place.1, &path);
                let begun = spawn_blocking(begin).await.map_err(|_| interrupted())?;
                let directories = begun.map_err(|error| Refusal::of(&ask.path, error))?;
                (Operation::Delete, directories, 0)
            }
            WriteAction::Put {
                length,
                max_length,
                digests,
            } => {
                let _permit = self.uploads.try_acquire().map_err(|_| {
                    Refusal::not_now("too many uploads at the same time: try again in a moment")
                })?;
                let limits = (*max_length, self.options.patience);
                let uploaded = async {
                    let upload = Upload::begin(place, &ask.path, *length, digests).await?;
                    let received = upload.receive(content, limits, progress).await?;
                    // Another client may have written meanwhile: syncing would be in vain.
                    check(&ask, &site.current()).map_err(UploadError::Content)?;
                    received.finish().await
                };
                let (staged, hash, bytes) = uploaded.await.map_err(|error| match error {
                    UploadError::There(error) => Refusal::of(&ask.path, error),
                    UploadError::Content(refusal) => refusal,
                })?;
                let StagedFile {
                    temp_file,
                    directories,
                } = staged;
                (Operation::Put { temp_file, hash }, directories, bytes)
            }
        };
        // In a task of its own: if the client disconnects, the commit goes on, and it has to be
        // logged.
        let writer = Arc::clone(self);
        let commit = async move {
            writer
                .commit(&ask, operation, directories, (bytes, &author))
                .await
        };
        tokio::spawn(commit)
            .await
            .unwrap_or_else(|_| Err(interrupted()))
    }

    /// Identifies the client, if it may write.
    fn authorise(&self, request: &Parts, peer: Peer) -> Result<Author, Refusal> {
        let client = self.options.proxies.client(peer, &request.headers);
        let Some(tokens) = &self.tokens else {
            request::check_origin(request, peer)?;
            let name = "anybody".to_owned();
            return Ok(Author { name, client });
        };
        let unauthorised = |reason| Refusal::new(StatusCode::UNAUTHORIZED, reason);
        let token = request::bearer(&request.headers)
            .ok_or_else(|| unauthorised("a token is required: send Authorization: Bearer TOKEN"))?;
        // A right token is never made to wait for the wrong ones that came from the same address: a
        // stranger behind the same balancer could keep everybody out. Tokens are too long to guess.
        if let Some(name) = tokens.load().name_of(token) {
            return Ok(Author { name, client });
        }
        let now = Instant::now();
        if !self.failed_logins.is_allowed(client, now) {
            return Err(Refusal::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too many wrong tokens from this address: try again in a moment",
            ));
        }
        self.failed_logins.record(client, now);
        Err(unauthorised(
            "this token is not one of those that may write here",
        ))
    }

    /// Commits one change, logs it and syncs its directory.
    async fn commit(
        &self,
        ask: &WriteRequest,
        operation: Operation,
        directories: DirectoryUse,
        (bytes, author): (u64, &Author),
    ) -> Result<Written, Refusal> {
        let is_put = matches!(operation, Operation::Put { .. });
        let (reply, replied) = oneshot::channel();
        let condition = ask.condition.clone();
        (self.commit)(WriteJob {
            path: ask.path.clone(),
            operation,
            condition: Box::new(move |now| condition.holds(now)),
            reply,
        });
        let committed = match replied.await {
            Ok(Ok(committed)) => committed,
            Ok(Err(RejectedWrite { error, operation })) => {
                undo(Some(operation), directories).await;
                return Err(Refusal::of(&ask.path, error));
            }
            Err(_) => {
                undo(None, directories).await;
                return Err(interrupted());
            }
        };
        let (before, now) = (committed.before, committed.now);
        let audit = Audit {
            verb: if is_put { "PUT" } else { "DELETE" },
            path: &ask.path,
            author,
            before,
            now,
            bytes: is_put.then_some(bytes),
        };
        audit.log();
        self.metrics.upload_bytes.add(bytes);
        let finished = spawn_blocking(move || finish(committed, directories, is_put)).await;
        finished
            .unwrap_or_else(|stopped| Err(io::Error::other(stopped)))
            .map_err(|error| Refusal::unsynced(&ask.path, &error, now))?;
        Ok(match (is_put, before) {
            (true, None) => Written::Created(now),
            (true, Some(_)) => Written::Replaced(now),
            (false, _) => Written::Deleted,
        })
    }
}

/// Whether uploads may be in a directory of the site. `.git` may be large.
fn may_have_uploads(directory: &Path) -> bool {
    !is_hidden(directory.as_os_str().as_bytes()) || Path::new(DICTIONARIES).starts_with(directory)
}

/// Removes what a write that was not made has left.
async fn undo(operation: Option<Operation>, directories: DirectoryUse) {
    let undo = move || {
        // A directory is empty when its temporary file is gone.
        drop(operation);
        drop(directories);
    };
    // It fails with the runtime alone, and so with the process.
    let _ = spawn_blocking(undo).await;
}

/// Has a change outlast a crash, and removes what it has displaced and emptied.
fn finish(committed: Committed, directories: DirectoryUse, is_put: bool) -> io::Result<()> {
    let synced = committed.directory.sync();
    if is_put {
        directories.set_filled();
    } else if committed.is_emptied {
        directories.set_emptied();
    }
    // It has a name in the directory.
    drop(committed.displaced);
    drop(directories);
    synced
}

fn interrupted() -> Refusal {
    Refusal::not_now("the write was interrupted: check whether it was made")
}

/// Evaluates the precondition against the published state, before the content is read.
fn check(ask: &WriteRequest, current: &Manifest) -> Result<(), Refusal> {
    if is_unlisted(&ask.path) {
        // The commit compares it with the disk.
        return Ok(());
    }
    let now = current.locate(&ask.path);
    let refusal = match now {
        None if matches!(ask.change, WriteAction::Delete) => Refusal::nothing(),
        _ if ask.condition.holds(now.map(|now| &**now)) => return Ok(()),
        _ => Refusal::failed(now.map(|now| now.identity.etag)),
    };
    // The client may have read `/about`, which answers with `about.html`: name that file.
    match resolve(
        current.settings().html_handling,
        &ask.path,
        |path: &[u8]| current.locate(path),
    ) {
        Some(other) if now.is_none() => {
            let url = current.settings().base_path.url(&other.path);
            let reason = format!("another file answers this URL: write to {url}").into();
            Err(Refusal { reason, ..refusal })
        }
        _ => Err(refusal),
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::disk::seam::{self, Call};

    #[test]
    fn a_change_is_over_when_its_directory_is_on_the_disk() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = Root::open(directory.path()).expect("a root");
        for is_failing in [false, true] {
            let committed = Committed {
                before: None,
                now: None,
                directory: Directory::open(&root, Path::new("")).expect("opened"),
                is_emptied: false,
                displaced: None,
            };
            let again = Root::open(directory.path()).expect("a root");
            let in_use = Arc::default();
            let directories =
                DirectoryUse::begin(&in_use, again, Path::new(""), OsStr::new("f")).expect("short");
            let calls = Arc::new(Mutex::new(Vec::new()));
            let made = Arc::clone(&calls);
            let gate = move |call: Call| {
                made.lock().expect("unpoisoned").push(call);
                match is_failing {
                    true => Err(io::ErrorKind::Other.into()),
                    false => Ok(()),
                }
            };
            let finished = seam::run(gate, move || finish(committed, directories, true));
            assert_eq!(finished.is_err(), is_failing);
            assert_eq!(*calls.lock().expect("unpoisoned"), [Call::Sync]);
        }
    }
}

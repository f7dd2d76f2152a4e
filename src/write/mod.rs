//! PUT and DELETE: who may write what, and its way to the disk.
//!
//! Every write has a precondition (RFC 9110 section 13, RFC 6585 section 3): two clients that have
//! read the same version can't both win. It is decided before a byte of content is taken, from
//! what is published, and again where the change is made, from what is on the disk. What can be
//! refused at the head of a request is refused there.
//!
//! No response is built here: [`Writer::call`] says what has become of a request.

mod audit;
mod rate_limit;
mod refusal;
mod request;
mod token;
mod upload;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::StatusCode;
use http::request::Parts;
use http_body::Body;
use tokio::sync::{Semaphore, oneshot};
use walkdir::WalkDir;

use crate::client::{Peer, TrustedProxies};
use crate::commit::{Committed, Operation, WriteJob};
use crate::disk::Root;
use crate::locate::resolve;
use crate::manifest::Manifest;
use crate::metrics::Metrics;
use crate::rules::RuleFile;
use crate::scan::is_hidden;
use crate::semantics::etag::ETag;
use crate::semantics::target::encode_path;
use crate::site::Site;
use crate::staging::{Directory, is_temp_file};
use audit::{Audit, Author};
use rate_limit::FailedLogins;
use request::{WriteAction, WriteRequest};
use upload::{Upload, UploadError};

pub use refusal::Refusal;
pub use request::is_write;
pub use token::{TokenError, Tokens};
pub use upload::{discard, linger};

/// What may be written, and how much.
#[derive(Clone, Debug)]
pub struct WriterConfig {
    /// The site's directory as it was given: it may be a link, and lead elsewhere later.
    pub directory: PathBuf,
    /// The file of tokens; without one, whoever can connect may write.
    pub tokens: Option<PathBuf>,
    /// Who is believed about the client.
    pub proxies: TrustedProxies,
    /// Whether `_headers` and `_redirects` may be written.
    pub rules: bool,
    /// Most bytes of one upload.
    pub max_upload: u64,
    /// Most uploads at once.
    pub max_uploads: usize,
    /// How long an upload may bring nothing.
    pub patience: Duration,
}

/// Makes the changes that clients ask for.
pub struct Writer {
    options: WriterConfig,
    metrics: Arc<Metrics>,
    tokens: Option<ArcSwap<Tokens>>,
    failed_logins: FailedLogins,
    uploads: Semaphore,
    commit: Box<dyn Fn(WriteJob) + Send + Sync>,
}

/// What a request has changed.
#[derive(Debug)]
pub enum Written {
    /// The path names something now, and did not before.
    Created(Option<ETag>),
    /// It names something else. Without a tag where somebody has changed it again already.
    Replaced(Option<ETag>),
    /// It names nothing any more.
    Deleted,
}

impl Writer {
    /// A writer that hands its changes to `commit`.
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
            commit: Box::new(commit),
            options,
            metrics,
        })
    }

    /// Reads the tokens again, without keeping others waiting; where they can't be used, those in
    /// use stay.
    pub async fn reload_aside(&self) {
        let (Some(tokens), Some(file)) = (&self.tokens, self.options.tokens.clone()) else {
            return;
        };
        match tokio::task::spawn_blocking(move || Tokens::load(&file)).await {
            Ok(Ok(new)) => {
                tokens.store(Arc::new(new));
                tracing::info!("the tokens were read again");
            }
            Ok(Err(error)) => tracing::error!("the tokens in use stay: {error}"),
            Err(stopped) => tracing::error!("the tokens in use stay: {stopped}"),
        }
    }

    /// Removes what uploads of killed processes have left in the site's directory.
    pub fn clear(&self) {
        let root = match Root::open(&self.options.directory) {
            Ok(root) => root,
            Err(error) => {
                let directory = self.options.directory.display();
                tracing::warn!("cannot look for old uploads in {directory}: {error}");
                return;
            }
        };
        let walk = WalkDir::new(root.path()).into_iter();
        let is_ours = |entry: &walkdir::DirEntry| {
            entry.depth() == 0
                || !entry.file_type().is_dir()
                || !is_hidden(entry.file_name().as_encoded_bytes())
        };
        for entry in walk.filter_entry(is_ours).flatten() {
            if !is_temp_file(entry.file_name()) {
                continue;
            }
            let path = entry.path();
            let below = path.strip_prefix(root.path()).ok();
            let directory = below.and_then(Path::parent).unwrap_or(Path::new(""));
            let cleared = Directory::open(&root, directory)
                .and_then(|directory| directory.clear_file(entry.file_name()));
            if let Err(error) = cleared {
                tracing::warn!("cannot remove the old upload {}: {error}", path.display());
            }
        }
    }

    /// Does what a request asks for, if that may be.
    ///
    /// # Errors
    /// The reason why nothing has changed.
    pub async fn call<B>(
        self: &Arc<Self>,
        site: &Site,
        request: &Parts,
        content: &mut B,
        peer: Peer,
        progress: impl Fn(),
    ) -> Result<Written, Refusal>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let author = self.authorise(request, peer)?;
        let ask = request::parse(request, &self.options, content.is_end_stream())?;
        check(&ask, &site.current())?;
        let (act, bytes) = match &ask.change {
            WriteAction::Delete => (Operation::Delete, 0),
            WriteAction::Put { length, digests } => {
                let _one = self
                    .uploads
                    .try_acquire()
                    .map_err(|_| Refusal::not_now("too many uploads at once"))?;
                let directory = self.options.directory.clone();
                let limits = (self.options.max_upload, self.options.patience);
                let uploaded = async {
                    let upload = Upload::begin(directory, &ask.path, *length, digests).await?;
                    let received = upload.receive(content, limits, progress).await?;
                    // Somebody may have been quicker: to wait for the disk would be for nothing.
                    check(&ask, &site.current()).map_err(UploadError::Content)?;
                    received.finish().await
                };
                let (temp_file, hash, bytes) = uploaded.await.map_err(|error| match error {
                    UploadError::There(error) => Refusal::of(&ask.path, error),
                    UploadError::Content(refusal) => refusal,
                })?;
                (Operation::Put { temp_file, hash }, bytes)
            }
        };
        // From here on it is made, whether or not somebody waits for it; and written down.
        let writer = Arc::clone(self);
        let made = tokio::spawn(async move { writer.make(&ask, act, bytes, &author).await });
        made.await.unwrap_or_else(|_| Err(broken_off()))
    }

    /// Who asks, if they may.
    fn authorise(&self, request: &Parts, peer: Peer) -> Result<Author, Refusal> {
        let client = self.options.proxies.client(peer, &request.headers);
        let Some(tokens) = &self.tokens else {
            request::check_origin(request, peer)?;
            let name = "anybody".to_owned();
            return Ok(Author { name, client });
        };
        let now = Instant::now();
        if !self.failed_logins.is_allowed(client, now) {
            return Err(Refusal::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too many wrong tokens came from this address",
            ));
        }
        let unauthorised = |reason| Refusal::new(StatusCode::UNAUTHORIZED, reason);
        let token = request::bearer(&request.headers)
            .ok_or_else(|| unauthorised("writing takes a token: Authorization: Bearer TOKEN"))?;
        let Some(name) = tokens.load().name_of(token) else {
            self.failed_logins.record(client, now);
            return Err(unauthorised("this token may not write here"));
        };
        Ok(Author { name, client })
    }

    /// Has one change made, on the disk and in what is published.
    async fn make(
        &self,
        ask: &WriteRequest,
        act: Operation,
        bytes: u64,
        author: &Author,
    ) -> Result<Written, Refusal> {
        let is_put = matches!(act, Operation::Put { .. });
        let (reply, replied) = oneshot::channel();
        let condition = ask.condition.clone();
        (self.commit)(WriteJob {
            path: ask.path.clone(),
            act,
            condition: Box::new(move |now| condition.holds(now)),
            reply,
        });
        let committed = replied.await.map_err(|_| broken_off())?;
        let Committed {
            before,
            now,
            directory,
        } = committed.map_err(|error| Refusal::of(&ask.path, error))?;
        let message = Audit {
            verb: if is_put { "PUT" } else { "DELETE" },
            path: &ask.path,
            author,
            before,
            now,
            bytes: is_put.then_some(bytes),
        };
        tracing::info!("{message}");
        self.metrics.upload_bytes.add(bytes);
        let synced = tokio::task::spawn_blocking(move || directory.sync()).await;
        synced
            .unwrap_or_else(|stopped| Err(io::Error::other(stopped)))
            .map_err(|error| Refusal::of(&ask.path, error.into()))?;
        Ok(match (is_put, before) {
            (true, None) => Written::Created(now),
            (true, Some(_)) => Written::Replaced(now),
            (false, _) => Written::Deleted,
        })
    }
}

fn broken_off() -> Refusal {
    Refusal::not_now("the write broke off: look whether it was made")
}

/// Evaluates the precondition ahead of the content: what does not hold for what is published will
/// not hold later.
fn check(ask: &WriteRequest, current: &Manifest) -> Result<(), Refusal> {
    if RuleFile::named(&ask.path).is_some() {
        // No manifest has them.
        return Ok(());
    }
    let now = current.locate(&ask.path);
    let refusal = match now {
        None if matches!(ask.change, WriteAction::Delete) => Refusal::nothing(),
        _ if ask.condition.holds(now.map(|now| &**now)) => return Ok(()),
        _ => Refusal::failed(now.map(|now| now.identity.etag)),
    };
    // Whoever has read `/about` may have read `about.html`.
    let find = |path: &[u8]| current.locate(path);
    match resolve(current.settings().html_handling, &ask.path, find) {
        Some(other) if now.is_none() => {
            let name = encode_path(&other.path);
            let reason = format!("what answers here is a file of another name: /{name}").into();
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

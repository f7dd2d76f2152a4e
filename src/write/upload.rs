//! Content on its way from a client to the disk.

use std::ffi::OsStr;
use std::future::poll_fn;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{StatusCode, header};
use http_body::{Body, Frame};
use sha2::{Digest, Sha256, Sha512};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::Refusal;
use crate::commit::CommitError;
use crate::disk::Root;
use crate::semantics::digest::Digests;
use crate::staging::{Directory, TempFile};

/// So much is gathered before it is written.
const BUFFER_LENGTH: usize = 256 << 10;

/// How long content may take that nobody wants.
const MAX_DRAIN_TIME: Duration = Duration::from_secs(1);

/// Why an upload came to nothing.
#[derive(Debug)]
pub(super) enum UploadError {
    /// It can't be written there.
    There(CommitError),
    /// The content is not what it should be.
    Content(Refusal),
}

impl From<CommitError> for UploadError {
    fn from(error: CommitError) -> Self {
        Self::There(error)
    }
}

impl From<io::Error> for UploadError {
    fn from(error: io::Error) -> Self {
        Self::There(error.into())
    }
}

/// A file that is being written. What does not come to its end is gone.
pub(super) struct Upload {
    file: BackgroundDrop,
    /// What has been received, and not yet been written. Copied: whoever sends it in crumbs must
    /// not pin a buffer with each.
    buffer: Vec<u8>,
    length: u64,
    hasher: blake3::Hasher,
    sha256: Option<([u8; 32], Sha256)>,
    sha512: Option<([u8; 64], Sha512)>,
}

impl Upload {
    /// Makes room beside the target; fails where it can't be written there.
    pub(super) async fn begin(
        directory: PathBuf,
        path: &[u8],
        length: Option<u64>,
        digests: &Digests,
    ) -> Result<Self, UploadError> {
        let path = PathBuf::from(OsStr::from_bytes(path));
        let begin = move || {
            let root = open(&directory)?;
            let file = TempFile::readable(beside(&root, &path)?)?;
            if let Some(length) = length {
                file.reserve(length)?;
            }
            Ok::<_, CommitError>(BackgroundDrop(Some(file)))
        };
        let file = spawn_blocking(begin).await.map_err(io::Error::other)??;
        Ok(Self {
            file,
            buffer: Vec::new(),
            length: 0,
            hasher: blake3::Hasher::new(),
            sha256: digests.sha256.map(|digest| (digest, Sha256::new())),
            sha512: digests.sha512.map(|digest| (digest, Sha512::new())),
        })
    }

    /// Takes all of `content`, up to `most` bytes; each part of it within `patience`.
    pub(super) async fn receive<B>(
        mut self,
        content: &mut B,
        (most, patience): (u64, Duration),
        progress: impl Fn(),
    ) -> Result<Self, UploadError>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let refused = |status, reason| Err(UploadError::Content(Refusal::new(status, reason)));
        loop {
            let frame = match timeout(patience, next(content)).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(None) => return Ok(self),
                Ok(Some(Err(_))) => {
                    let reason = "the content broke off before its end";
                    return refused(StatusCode::BAD_REQUEST, reason);
                }
                Err(_) => return refused(StatusCode::REQUEST_TIMEOUT, "no more content came"),
            };
            progress();
            let Ok(data) = frame.into_data() else {
                continue;
            };
            self.length += data.len() as u64;
            if self.length > most {
                return Err(UploadError::Content(Refusal::too_large()));
            }
            self.buffer.extend_from_slice(&data);
            if self.buffer.len() >= BUFFER_LENGTH {
                self = self.blocking(Self::write).await?;
            }
        }
    }

    /// Puts it on the disk. Returns the file, its BLAKE3 and its length.
    pub(super) async fn finish(self) -> Result<(TempFile, [u8; 32], u64), UploadError> {
        let mut all = self.blocking(Self::write_all).await?;
        let hash = *all.hasher.finalize().as_bytes();
        Ok((all.file.keep()?, hash, all.length))
    }

    async fn blocking(
        mut self,
        work: impl FnOnce(&mut Self) -> Result<(), UploadError> + Send + 'static,
    ) -> Result<Self, UploadError> {
        let work = move || work(&mut self).map(|()| self);
        spawn_blocking(work).await.map_err(io::Error::other)?
    }

    fn write(&mut self) -> Result<(), UploadError> {
        let buffer = &self.buffer;
        self.file.file()?.write_all(buffer)?;
        self.hasher.update(buffer);
        if let Some((_, hasher)) = &mut self.sha256 {
            hasher.update(buffer);
        }
        if let Some((_, hasher)) = &mut self.sha512 {
            hasher.update(buffer);
        }
        self.buffer.clear();
        Ok(())
    }

    fn write_all(&mut self) -> Result<(), UploadError> {
        self.write()?;
        let (sha256, sha512) = (self.sha256.take(), self.sha512.take());
        if sha256.is_some_and(|(said, hasher)| hasher.finalize()[..] != said)
            || sha512.is_some_and(|(said, hasher)| hasher.finalize()[..] != said)
        {
            let reason = "the content is not what its digest says";
            return Err(UploadError::Content(Refusal::new(
                StatusCode::BAD_REQUEST,
                reason,
            )));
        }
        Ok(self.file.file()?.sync_all()?)
    }
}

async fn next<B: Body + Unpin>(content: &mut B) -> Option<Result<Frame<B::Data>, B::Error>> {
    poll_fn(|cx| Pin::new(&mut *content).poll_frame(cx)).await
}

/// Takes in what is left of a request's content, if that is not much and on its way already, so
/// that the connection can be kept. Returns whether it is over.
pub async fn discard<B: Body + Unpin>(request: &Parts, content: &mut B) -> bool {
    if content.is_end_stream() {
        return true;
    }
    let most = content.size_hint().upper();
    let is_short = most.is_some_and(|most| most <= BUFFER_LENGTH as u64);
    if !is_short || request.headers.contains_key(header::EXPECT) {
        return false;
    }
    drain(content).await && content.is_end_stream()
}

/// Takes in what is left for a little while, beside the answer: over HTTP/2 what is left alone is
/// reset, and some clients take a reset for the answer.
pub async fn linger<B: Body + Unpin>(mut content: B) {
    drain(&mut content).await;
}

async fn drain<B: Body + Unpin>(content: &mut B) -> bool {
    let rest = async { while let Some(Ok(_)) = next(content).await {} };
    timeout(MAX_DRAIN_TIME, rest).await.is_ok()
}

/// The root as it is now. One that is not there may be back in a moment.
fn open(directory: &Path) -> Result<Root, CommitError> {
    Root::open(directory).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => CommitError::Busy("the site's directory is not there"),
        _ => error.into(),
    })
}

/// The directory of `path`, or the nearest above it: those between are made when there is
/// something to put into them.
fn beside(root: &Root, path: &Path) -> Result<Directory, CommitError> {
    let parent = path.parent().unwrap_or(Path::new(""));
    let directory = match Directory::open(root, parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Directory::nearest(root, parent)?);
        }
        opened => opened?,
    };
    let name = path.file_name().unwrap_or_default();
    CommitError::look(&directory, name)?;
    Ok(directory)
}

/// A file whose removal, which may take its time, keeps no request waiting.
struct BackgroundDrop(Option<TempFile>);

impl BackgroundDrop {
    fn file(&self) -> io::Result<&std::fs::File> {
        let file = self.0.as_ref().map(TempFile::file);
        file.ok_or_else(|| io::Error::other("the upload is over"))
    }

    fn keep(&mut self) -> io::Result<TempFile> {
        let file = self.0.take();
        file.ok_or_else(|| io::Error::other("the upload is over"))
    }
}

impl Drop for BackgroundDrop {
    fn drop(&mut self) {
        if let (Some(file), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn_blocking(move || drop(file));
        }
    }
}

//! Receives the content of a PUT and writes it to a temporary file.

use std::ffi::OsStr;
use std::future::poll_fn;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{StatusCode, header};
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use sha2::{Digest, Sha256, Sha512};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::Refusal;
use crate::commit::CommitError;
use crate::disk::Root;
use crate::scan::dictionary_at;
use crate::semantics::digest::Digests;
use crate::staging::{DirectoriesInUse, Directory, DirectoryUse, TempFile};

/// Bytes to collect before they are written to the disk.
const BUFFER_LENGTH: usize = 256 << 10;

/// How long to wait for the rest of a content that was refused.
const MAX_DRAIN_TIME: Duration = Duration::from_secs(1);

/// Why an upload failed.
#[derive(Debug)]
pub(super) enum UploadError {
    /// The path can't be written.
    There(CommitError),
    /// The content is refused: too long, incomplete, too slow, or not as its digest says.
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

/// The content of a PUT, on the disk under a hidden name, and the directory of its place.
pub(super) struct StagedFile {
    /// Removed before the directory that it may be in.
    pub(super) temp_file: TempFile,
    pub(super) directories: DirectoryUse,
}

/// An upload in progress. Its temporary file is removed if it is dropped before it is finished.
pub(super) struct Upload {
    file: BackgroundDrop,
    /// Received bytes that are not written yet. They are copied here because each tiny chunk of a
    /// slow client would pin a whole receive buffer.
    buffer: Vec<u8>,
    length: u64,
    hasher: blake3::Hasher,
    sha256: Option<([u8; 32], Sha256)>,
    sha512: Option<([u8; 64], Sha512)>,
    /// Whether the SHA-256 is that of its name.
    is_dictionary: bool,
}

impl Upload {
    /// Creates the temporary file near the target and reserves its length. Fails early if the
    /// target can't be written.
    pub(super) async fn begin(
        (site, in_use): (PathBuf, Arc<DirectoriesInUse>),
        path: &[u8],
        length: Option<u64>,
        digests: &Digests,
    ) -> Result<Self, UploadError> {
        let is_dictionary = dictionary_at(path).is_some();
        let path = PathBuf::from(OsStr::from_bytes(path));
        let begin = move || {
            let directories = use_directories(&site, &in_use, &path)?;
            let temp_file = TempFile::readable(beside(directories.root(), &path)?)?;
            if let Some(length) = length {
                temp_file.reserve(length)?;
            }
            Ok::<_, CommitError>(BackgroundDrop(Some(StagedFile {
                temp_file,
                directories,
            })))
        };
        let file = spawn_blocking(begin).await.map_err(io::Error::other)??;
        Ok(Self {
            file,
            buffer: Vec::new(),
            length: 0,
            hasher: blake3::Hasher::new(),
            sha256: digests.sha256.map(|digest| (digest, Sha256::new())),
            sha512: digests.sha512.map(|digest| (digest, Sha512::new())),
            is_dictionary,
        })
    }

    /// Receives all of `content`: at most `max_length` bytes, each part within `patience`.
    pub(super) async fn receive(
        mut self,
        content: &mut Incoming,
        (max_length, patience): (u64, Duration),
        progress: impl Fn(),
    ) -> Result<Self, UploadError> {
        let refused = |status, reason| Err(UploadError::Content(Refusal::new(status, reason)));
        loop {
            let frame = match timeout(patience, next(content)).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(None) => return Ok(self),
                Ok(Some(Err(_))) => {
                    let reason = "the content ended before it was complete: send it again";
                    return refused(StatusCode::BAD_REQUEST, reason);
                }
                Err(_) => {
                    return refused(
                        StatusCode::REQUEST_TIMEOUT,
                        "no more content arrived in time",
                    );
                }
            };
            progress();
            // Trailers have no meaning for a file (RFC 9110 section 6.5.1).
            let Ok(data) = frame.into_data() else {
                continue;
            };
            self.length += data.len() as u64;
            if self.length > max_length {
                return Err(UploadError::Content(Refusal::too_large()));
            }
            self.buffer.extend_from_slice(&data);
            if self.buffer.len() >= BUFFER_LENGTH {
                self = self.blocking(Self::write).await?;
            }
        }
    }

    /// Writes the rest, checks the digests, syncs the file and makes the directories that it needs.
    /// Returns it with its BLAKE3 and its length.
    pub(super) async fn finish(self) -> Result<(StagedFile, [u8; 32], u64), UploadError> {
        let mut upload = self.blocking(Self::write_all).await?;
        let hash = *upload.hasher.finalize().as_bytes();
        Ok((upload.file.keep()?, hash, upload.length))
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
        self.file.staged()?.temp_file.write_all(buffer)?;
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
        let is_other = sha256.is_some_and(|(said, hasher)| hasher.finalize()[..] != said);
        if is_other && self.is_dictionary {
            return Err(UploadError::Content(Refusal::other_dictionary()));
        }
        if is_other || sha512.is_some_and(|(said, hasher)| hasher.finalize()[..] != said) {
            let reason =
                "the content does not have the digest that was sent with it: send it again";
            return Err(UploadError::Content(Refusal::new(
                StatusCode::BAD_REQUEST,
                reason,
            )));
        }
        let staged = self.file.staged()?;
        staged.temp_file.sync()?;
        // The watcher's thread must not wait for that: each new directory is synced.
        Ok(staged.directories.make().map_err(CommitError::from)?)
    }
}

async fn next(content: &mut Incoming) -> Option<Result<Frame<Bytes>, hyper::Error>> {
    poll_fn(|cx| Pin::new(&mut *content).poll_frame(cx)).await
}

/// Reads and drops the rest of a refused content if it is short and already on its way, so that
/// the connection can be kept open. Returns whether the content has ended.
pub async fn discard(request: &Parts, content: &mut Incoming) -> bool {
    if content.is_end_stream() {
        return true;
    }
    let is_short = content
        .size_hint()
        .upper()
        .is_some_and(|max_length| max_length <= BUFFER_LENGTH as u64);
    // With Expect the client waits for a 100 before it sends any of it (RFC 9110 section 10.1.1).
    if !is_short || request.headers.contains_key(header::EXPECT) {
        return false;
    }
    drain(content).await && content.is_end_stream()
}

/// Reads and drops the rest of a refused content for a moment while the response is sent. Over
/// HTTP/2 the stream would be reset otherwise (RFC 9113 section 8.1), and some clients take the
/// reset for the response.
pub async fn linger(mut content: Incoming) {
    drain(&mut content).await;
}

async fn drain(content: &mut Incoming) -> bool {
    let rest = async { while let Some(Ok(_)) = next(content).await {} };
    timeout(MAX_DRAIN_TIME, rest).await.is_ok()
}

/// Opens the site's directory. While a deploy replaces it, it may be missing for a moment.
fn open(directory: &Path) -> Result<Root, CommitError> {
    Root::open(directory).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            CommitError::Busy("the directory of the site is missing: try again later")
        }
        _ => error.into(),
    })
}

/// Announces that a write needs the directory of `path`. May block.
///
/// # Errors
/// When the site's directory can't be opened, or no file system call could name `path`.
pub(super) fn use_directories(
    site: &Path,
    in_use: &Arc<DirectoriesInUse>,
    path: &Path,
) -> Result<DirectoryUse, CommitError> {
    let parent = path.parent().unwrap_or(Path::new(""));
    let name = path.file_name().unwrap_or_default();
    Ok(DirectoryUse::begin(in_use, open(site)?, parent, name)?)
}

/// Opens the directory of `path`, or the nearest existing one above it: missing ones are created
/// when the content is complete.
fn beside(root: &Root, path: &Path) -> Result<Directory, CommitError> {
    let parent = path.parent().unwrap_or(Path::new(""));
    let directory = match Directory::open(root, parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Directory::nearest(root, parent)?);
        }
        opened => opened?,
    };
    let name = path.file_name().unwrap_or_default();
    CommitError::has_file(&directory, name)?;
    Ok(directory)
}

/// Removes a temporary file on a thread that may block: removing a large file can take seconds.
struct BackgroundDrop(Option<StagedFile>);

impl BackgroundDrop {
    fn staged(&self) -> io::Result<&StagedFile> {
        self.0
            .as_ref()
            .ok_or_else(|| io::Error::other("the upload is over"))
    }

    fn keep(&mut self) -> io::Result<StagedFile> {
        self.0
            .take()
            .ok_or_else(|| io::Error::other("the upload is over"))
    }
}

impl Drop for BackgroundDrop {
    fn drop(&mut self) {
        if let (Some(staged), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn_blocking(move || drop(staged));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::disk::seam::{self, Call};

    #[tokio::test]
    async fn all_that_a_file_needs_is_on_the_disk_before_it_gets_its_name() {
        let directory = tempfile::tempdir().expect("a directory");
        let place = (directory.path().to_path_buf(), Arc::default());
        let begun = Upload::begin(place, b"new/f", Some(3), &Digests::default()).await;
        let mut upload = begun.expect("begun");
        upload.buffer = b"new".to_vec();
        let calls = Arc::new(Mutex::new(Vec::new()));
        let made = Arc::clone(&calls);
        let gate = move |call: Call| {
            made.lock().expect("unpoisoned").push(call);
            Ok(())
        };
        let written = seam::run(gate, move || upload.write_all().map(|()| upload));
        assert!(written.is_ok());
        let calls = calls.lock().expect("unpoisoned");
        let calls = calls.iter().copied();
        let calls: Vec<_> = calls.filter(|call| *call != Call::Open).collect();
        // The content, then the directory, whose name is in the root.
        assert_eq!(calls, [Call::Write, Call::Sync, Call::Make, Call::Sync]);
    }
}

//! Content on its way from a client to the disk.

use std::ffi::OsStr;
use std::future::poll_fn;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body::Body;
use sha2::{Digest, Sha256, Sha512};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::Refusal;
use super::request::too_large;
use crate::commit::NotCommitted;
use crate::disk::Root;
use crate::place::{Directory, Draft};
use crate::semantics::digest::Digests;

/// So much is gathered before it is written.
const PIECE: u64 = 256 << 10;

/// Why an upload came to nothing.
#[derive(Debug)]
pub(super) enum Error {
    /// It can't be written there.
    There(NotCommitted),
    /// The content is not what it should be.
    Content(Refusal),
}

impl From<NotCommitted> for Error {
    fn from(error: NotCommitted) -> Self {
        Self::There(error)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::There(error.into())
    }
}

/// A file that is being written. What does not come to its end is gone.
pub(super) struct Upload {
    draft: Discarded,
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
    ) -> Result<Self, Error> {
        let path = PathBuf::from(OsStr::from_bytes(path));
        let begin = move || {
            let root = Root::open(&directory)?;
            let draft = Draft::readable(beside(&root, &path)?)?;
            if let Some(length) = length {
                draft.reserve(length)?;
            }
            Ok::<_, NotCommitted>(Discarded(Some(draft)))
        };
        let draft = spawn_blocking(begin).await.map_err(io::Error::other)??;
        Ok(Self {
            draft,
            hasher: blake3::Hasher::new(),
            sha256: digests.sha256.map(|digest| (digest, Sha256::new())),
            sha512: digests.sha512.map(|digest| (digest, Sha512::new())),
        })
    }

    /// Takes all of `content`, up to `most` bytes; each part of it within `patience`. Returns the
    /// file, which is on the disk then, its BLAKE3 and its length.
    pub(super) async fn receive<B>(
        mut self,
        mut content: B,
        (most, patience): (u64, Duration),
        progress: impl Fn(),
    ) -> Result<(Draft, [u8; 32], u64), Error>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let refused = |status, reason| Error::Content(Refusal::new(status, reason));
        let (mut pieces, mut gathered, mut length) = (Vec::new(), 0, 0_u64);
        loop {
            let next = poll_fn(|cx| Pin::new(&mut content).poll_frame(cx));
            let frame = match timeout(patience, next).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(None) => break,
                Ok(Some(Err(_))) => {
                    let reason = "the content broke off before its end";
                    return Err(refused(StatusCode::BAD_REQUEST, reason));
                }
                Err(_) => {
                    let reason = "no more content came";
                    return Err(refused(StatusCode::REQUEST_TIMEOUT, reason));
                }
            };
            progress();
            let Ok(data) = frame.into_data() else {
                continue;
            };
            let size = data.len() as u64;
            length += size;
            if length > most {
                return Err(Error::Content(too_large()));
            }
            gathered += size;
            pieces.push(data);
            if gathered >= PIECE {
                self = self.store(std::mem::take(&mut pieces)).await?;
                gathered = 0;
            }
        }
        self.finish(pieces)
            .await
            .map(|(draft, hash)| (draft, hash, length))
    }

    async fn store(mut self, pieces: Vec<Bytes>) -> io::Result<Self> {
        let store = move || {
            self.write(&pieces)?;
            Ok(self)
        };
        spawn_blocking(store).await.map_err(io::Error::other)?
    }

    async fn finish(mut self, pieces: Vec<Bytes>) -> Result<(Draft, [u8; 32]), Error> {
        let finish = move || {
            self.write(&pieces)?;
            let sha256 = self.sha256.take();
            let sha512 = self.sha512.take();
            if sha256.is_some_and(|(said, hasher)| hasher.finalize()[..] != said)
                || sha512.is_some_and(|(said, hasher)| hasher.finalize()[..] != said)
            {
                let reason = "the content is not what its digest says";
                let refusal = Refusal::new(StatusCode::BAD_REQUEST, reason);
                return Err(Error::Content(refusal));
            }
            let draft = self.draft.keep()?;
            draft.file().sync_all()?;
            Ok((draft, *self.hasher.finalize().as_bytes()))
        };
        spawn_blocking(finish).await.map_err(io::Error::other)?
    }

    fn write(&mut self, pieces: &[Bytes]) -> io::Result<()> {
        for piece in pieces {
            self.draft.file()?.write_all(piece)?;
            self.hasher.update(piece);
            if let Some((_, hasher)) = &mut self.sha256 {
                hasher.update(piece);
            }
            if let Some((_, hasher)) = &mut self.sha512 {
                hasher.update(piece);
            }
        }
        Ok(())
    }
}

/// The directory of `path`, or the nearest above it: those between are made when there is
/// something to put into them.
fn beside(root: &Root, path: &Path) -> Result<Directory, NotCommitted> {
    let parent = path.parent().unwrap_or(Path::new(""));
    let directory = match Directory::open(root, parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Directory::nearest(root, parent)?);
        }
        opened => opened?,
    };
    let name = path.file_name().unwrap_or_default();
    NotCommitted::look(&directory, name)?;
    Ok(directory)
}

/// A draft whose removal, which may take its time, keeps no request waiting.
struct Discarded(Option<Draft>);

impl Discarded {
    fn file(&self) -> io::Result<&std::fs::File> {
        let draft = self.0.as_ref().map(Draft::file);
        draft.ok_or_else(|| io::Error::other("the upload is over"))
    }

    fn keep(&mut self) -> io::Result<Draft> {
        let draft = self.0.take();
        draft.ok_or_else(|| io::Error::other("the upload is over"))
    }
}

impl Drop for Discarded {
    fn drop(&mut self) {
        if let (Some(draft), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn_blocking(move || drop(draft));
        }
    }
}

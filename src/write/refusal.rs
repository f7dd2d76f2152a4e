//! The reasons for refusing a write, and their statuses.

use std::borrow::Cow;
use std::io;

use http::StatusCode;
use rustix::io::Errno;

use crate::commit::CommitError;
use crate::semantics::etag::ETag;
use crate::semantics::target::encode_path;

/// Why a write was refused; nothing has changed, unless the reason says so.
#[derive(Debug)]
pub struct Refusal {
    /// The status to answer with.
    pub status: StatusCode,
    /// The reason, for the body of the response.
    pub reason: Cow<'static, str>,
    /// The current tag, if a precondition named another one.
    pub etag: Option<ETag>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            reason: reason.into(),
            etag: None,
        }
    }

    /// The precondition is false: the file has this tag, or does not exist.
    pub(super) fn failed(etag: Option<ETag>) -> Self {
        let reason = match etag {
            Some(_) => {
                "the file is not the version that was named: read it again, its ETag is in this response"
            }
            None => "there is no such file: to create it, send If-None-Match: *",
        };
        Self {
            etag,
            ..Self::new(StatusCode::PRECONDITION_FAILED, reason)
        }
    }

    pub(super) fn nothing() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "there is no such file, so nothing to delete",
        )
    }

    pub(super) fn not_now(why: &'static str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, why)
    }

    pub(super) fn directory() -> Self {
        let reason = "this is the URL of a directory: name a file, without a slash at the end";
        Self::new(StatusCode::CONFLICT, reason)
    }

    pub(super) fn too_long() -> Self {
        let reason = "this path, or a name in it, is too long: a name has at most 255 bytes";
        Self::new(StatusCode::BAD_REQUEST, reason)
    }

    pub(super) fn too_deep(max_depth: usize) -> Self {
        let reason = format!("this path has more than {max_depth} names: use fewer directories");
        Self::new(StatusCode::BAD_REQUEST, reason)
    }

    /// The change is made and published, and a crash of the machine might undo it: the disk refuses
    /// to say that it has it. `now` is the tag of what is there.
    pub(super) fn unsynced(path: &[u8], error: &io::Error, now: Option<ETag>) -> Self {
        let path = encode_path(path);
        tracing::error!(
            path = format!("/{path}"), %error,
            "/{path} is written and published, but a crash might undo that: cannot sync its \
             directory: {error}"
        );
        // Not a success, which says that the change outlasts a crash. Both methods are idempotent, so
        // the client may send them again (RFC 9110 section 9.2.2).
        let reason = match now {
            Some(_) => {
                "it is written, but a crash might undo that (the server's messages say why): to make \
                 sure, send it again with If-Match and the ETag of this response"
            }
            None => "it is done, but a crash might undo that: the server's messages say why",
        };
        Self {
            etag: now,
            ..Self::new(StatusCode::INTERNAL_SERVER_ERROR, reason)
        }
    }

    /// The content of a dictionary is that of another one, or damaged.
    pub(super) fn other_dictionary() -> Self {
        let reason = "a dictionary's name is its SHA-256, and this content has another";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, reason)
    }

    pub(super) fn too_large() -> Self {
        let reason = "the content is larger than this server accepts (see --max-upload)";
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, reason)
    }

    /// The refusal for an error of the commit. The operator's message has all of it; the client is
    /// told nothing about the server's paths and permissions.
    pub(super) fn of(path: &[u8], error: CommitError) -> Self {
        let error = match error {
            CommitError::Failed(etag) => return Self::failed(etag),
            CommitError::Nothing => return Self::nothing(),
            CommitError::Blocked(what) => return Self::new(StatusCode::CONFLICT, what),
            CommitError::Busy(why) => return Self::not_now(why),
            CommitError::Io(error) => error,
        };
        let (status, reason) = match Errno::from_io_error(&error) {
            Some(Errno::NAMETOOLONG) => return Self::too_long(),
            Some(Errno::NOSPC | Errno::DQUOT) => (
                StatusCode::INSUFFICIENT_STORAGE,
                "the disk of the server is full",
            ),
            Some(Errno::FBIG) => (
                StatusCode::INSUFFICIENT_STORAGE,
                "the content is too large for the file system of the server",
            ),
            Some(Errno::ROFS | Errno::ACCESS | Errno::PERM) => (
                StatusCode::FORBIDDEN,
                "the server has no permission to write there",
            ),
            Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "the server is overloaded: try again in a moment",
            ),
            Some(Errno::NOENT | Errno::XDEV | Errno::STALE) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "the directory was replaced meanwhile: try again",
            ),
            _ => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "the file could not be written: the messages of the server say why",
            ),
        };
        let path = encode_path(path);
        tracing::warn!(path = format!("/{path}"), %error, "cannot write /{path}: {error}");
        Self::new(status, reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_refuses_has_a_status() {
        let cases = [
            (Errno::NOSPC, 507),
            (Errno::DQUOT, 507),
            (Errno::FBIG, 507),
            (Errno::ROFS, 403),
            (Errno::ACCESS, 403),
            (Errno::NAMETOOLONG, 400),
            (Errno::NOTDIR, 409),
            (Errno::LOOP, 409),
            (Errno::ISDIR, 409),
            (Errno::MFILE, 503),
            (Errno::NOENT, 503),
            (Errno::IO, 500),
        ];
        for (errno, status) in cases {
            let error = io::Error::from(errno);
            let refusal = Refusal::of(b"a", error.into());
            assert_eq!(refusal.status.as_u16(), status, "{errno}");
            assert_eq!(refusal.etag, None);
        }
    }
}

//! A write that waits for its turn: what is to become of one path, under which condition, and what
//! has become of it.
//!
//! It is carried out on the watcher's thread, between two looks, so that nothing reads the site's
//! directory at the same time.

use std::ffi::OsStr;
use std::fmt;
use std::io;

use rustix::fs::FileType;
use rustix::io::Errno;
use tokio::sync::oneshot;

use crate::representation::Resource;
use crate::semantics::etag::ETag;
use crate::staging::{Directory, HiddenName, TempFile};

/// Whether a precondition holds for what a path names, or for nothing.
pub type Condition = Box<dyn Fn(Option<&Resource>) -> bool + Send>;

/// A change of one path that a client asks for.
pub struct WriteJob {
    /// The path in the site: raw bytes, without a leading slash; one that a request can name.
    pub path: Box<[u8]>,
    /// What to do.
    pub operation: Operation,
    /// What must hold for what is on the disk at that moment.
    pub condition: Condition,
    /// Who waits for it. Nobody: it is left undone.
    pub reply: oneshot::Sender<Result<Committed, RejectedWrite>>,
}

/// What is to become of a path.
#[derive(Debug)]
pub enum Operation {
    /// It names this content from now on.
    Put {
        /// All of it, on the disk.
        temp_file: TempFile,
        /// Its BLAKE3.
        hash: [u8; 32],
    },
    /// It names nothing any more.
    Delete,
}

/// A change that is made and published, and outlasts a crash once its directory is synced.
#[derive(Debug)]
pub struct Committed {
    /// The tag that the path had, if it named something.
    pub before: Option<ETag>,
    /// The tag of what was put there; `None` after a deletion, or where it is something else again
    /// already.
    pub now: Option<ETag>,
    /// The directory that has another entry now.
    pub directory: Directory,
    /// Whether nothing is left in it.
    pub is_emptied: bool,
    /// What the path named before. To remove a large file takes long: it is for whoever has asked.
    pub displaced: Option<HiddenName>,
}

/// A change that was not made, with what was to be put in place: to remove that takes long, so it is
/// for whoever has asked.
#[derive(Debug)]
pub struct RejectedWrite {
    /// Why nothing was changed.
    pub error: CommitError,
    /// What was to become of the path.
    pub operation: Operation,
}

/// Why nothing was changed.
#[derive(Debug)]
pub enum CommitError {
    /// The condition does not hold. The tag of what is there, if anything is.
    Failed(Option<ETag>),
    /// There is nothing to delete.
    Nothing,
    /// Something that is not a file has the name, or a name on the way to it.
    Blocked(&'static str),
    /// It may succeed a little later.
    Busy(&'static str),
    /// The system refuses.
    Io(io::Error),
}

impl CommitError {
    /// Whether a file has this name in `directory`.
    ///
    /// # Errors
    /// When something else has it, or the system refuses to tell.
    pub fn has_file(directory: &Directory, name: &OsStr) -> Result<bool, Self> {
        match directory.kind(name)? {
            None => Ok(false),
            Some(FileType::RegularFile) => Ok(true),
            Some(FileType::Directory) => Err(Self::Blocked("a directory has this name")),
            Some(FileType::Symlink) => Err(Self::Blocked("a symbolic link has this name")),
            Some(_) => Err(Self::Blocked("something that is not a file has this name")),
        }
    }
}

impl From<io::Error> for CommitError {
    fn from(error: io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(Errno::NOTDIR) => Self::Blocked("a name in this path is a file, not a directory"),
            Some(Errno::LOOP) => {
                Self::Blocked("a symbolic link is in this path, and writes don't follow any")
            }
            Some(Errno::ISDIR) => Self::Blocked("a directory has this name"),
            _ => Self::Io(error),
        }
    }
}

impl fmt::Debug for WriteJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteJob")
            .field("path", &self.path.escape_ascii().to_string())
            .field("operation", &self.operation)
            .finish_non_exhaustive()
    }
}

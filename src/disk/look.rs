//! What a look at a path can say. "Can't look now" must never be taken for "is not there": whoever
//! takes it for that publishes half of a site when descriptors run out.

use std::io;

use rustix::io::Errno;

/// The answer to a look at a path.
#[derive(Debug)]
pub enum Look<T> {
    /// It is there.
    There(T),
    /// Nothing is there, or nothing that can be part of a site: a FIFO, a socket, a device.
    Gone,
    /// It is there and can't be read, now or later, unless somebody changes it.
    Unreadable(io::Error),
    /// It can't be told now. A later look may succeed although nothing has changed there.
    NotNow(io::Error),
}

impl<T> From<io::Result<T>> for Look<T> {
    fn from(result: io::Result<T>) -> Self {
        use io::ErrorKind::{InvalidInput, NotADirectory, NotFound};
        match result {
            Ok(found) => Self::There(found),
            Err(error) if is_passing(&error) => Self::NotNow(error),
            Err(error) => match error.kind() {
                NotFound | NotADirectory | InvalidInput => Self::Gone,
                _ => Self::Unreadable(error),
            },
        }
    }
}

/// Whether an error says nothing about the path: it may be gone at the next try, although nobody
/// has touched the file.
pub fn is_passing(error: &io::Error) -> bool {
    /// A disk that fails, or a server that does not answer: of a network mount, or of FUSE.
    const FAILING: [Errno; 22] = [
        Errno::ALREADY,
        Errno::BUSY,
        Errno::CONNABORTED,
        Errno::CONNREFUSED,
        Errno::CONNRESET,
        Errno::DEADLK,
        Errno::DQUOT,
        Errno::HOSTDOWN,
        Errno::HOSTUNREACH,
        Errno::INPROGRESS,
        Errno::IO,
        Errno::NETDOWN,
        Errno::NETRESET,
        Errno::NETUNREACH,
        Errno::NODEV,
        Errno::NOLCK,
        Errno::NOSPC,
        Errno::NOTCONN,
        Errno::PIPE,
        Errno::SHUTDOWN,
        Errno::STALE,
        Errno::TIMEDOUT,
    ];
    is_exhaustion(error) || has_number(error, &FAILING)
}

/// Whether an error comes from this process or machine having no more descriptors or memory, or
/// from an interruption: not from the disk.
pub fn is_exhaustion(error: &io::Error) -> bool {
    const EXHAUSTED: [Errno; 6] = [
        Errno::AGAIN,
        Errno::INTR,
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOBUFS,
        Errno::NOMEM,
    ];
    error.kind() == io::ErrorKind::OutOfMemory || has_number(error, &EXHAUSTED)
}

fn has_number(error: &io::Error, numbers: &[Errno]) -> bool {
    Errno::from_io_error(error).is_some_and(|number| numbers.contains(&number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_that_nothing_is_there_or_nothing_at_all() {
        let cases = [
            (Errno::NOENT, "gone"),
            (Errno::NOTDIR, "gone"),
            (Errno::INVAL, "gone"),
            (Errno::ACCESS, "unreadable"),
            (Errno::PERM, "unreadable"),
            (Errno::LOOP, "unreadable"),
            (Errno::NAMETOOLONG, "unreadable"),
            (Errno::OVERFLOW, "unreadable"),
            (Errno::MFILE, "exhausted"),
            (Errno::NFILE, "exhausted"),
            (Errno::NOMEM, "exhausted"),
            (Errno::NOBUFS, "exhausted"),
            (Errno::AGAIN, "exhausted"),
            (Errno::INTR, "exhausted"),
            (Errno::IO, "not now"),
            (Errno::STALE, "not now"),
            (Errno::TIMEDOUT, "not now"),
            (Errno::HOSTDOWN, "not now"),
            (Errno::NOTCONN, "not now"),
            (Errno::NOSPC, "not now"),
        ];
        for (number, want) in cases {
            let error = io::Error::from(number);
            let is_exhausted = is_exhaustion(&error);
            let is = match Look::<()>::from(Err(error)) {
                Look::There(()) => "there",
                Look::Gone => "gone",
                Look::Unreadable(_) => "unreadable",
                Look::NotNow(_) if is_exhausted => "exhausted",
                Look::NotNow(_) => "not now",
            };
            assert_eq!(is, want, "{number}");
        }
        let other = Look::<()>::from(Err(io::Error::other("too large")));
        assert!(matches!(other, Look::Unreadable(_)));
        assert!(matches!(Look::from(Ok(1)), Look::There(1)));
    }
}

//! Whether anybody has a file open for writing: the one question that only a lease answers, and
//! the one module where `unsafe` is allowed.
//!
//! A read lease is granted only while no descriptor and no mapping can write to the file (on
//! overlayfs a mapping is not seen). It is taken and given back at once. A writer that opens the
//! file in between makes the kernel send SIGIO, which ends a process that has no handler for it:
//! [`absorb_signals`] installs one.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;

/// What a probe has told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Writers {
    /// At the moment of the probe nobody could write.
    None,
    /// Somebody has it open for writing.
    Some,
    /// The file system or a missing privilege keeps the answer back.
    Unknown,
}

/// Makes the kernel's notice that a lease is wanted harmless. Must be called within a tokio
/// runtime, before the first probe.
///
/// # Errors
/// When the handler can't be installed.
pub fn absorb_signals() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    // The handler stays for the life of the process; nobody needs to hear of the signal.
    signal(SignalKind::io()).map(drop)
}

/// Asks whether anybody has `file` open for writing.
#[cfg(target_os = "linux")]
pub fn writers(file: &File) -> Writers {
    use std::os::fd::AsRawFd;
    let descriptor = file.as_raw_fd();
    let set = |kind: libc::c_int| {
        // SAFETY: `descriptor` is open for as long as `file` is borrowed; F_SETLEASE takes an
        // integer and touches no memory of this process.
        unsafe { libc::fcntl(descriptor, libc::F_SETLEASE, kind) }
    };
    if set(libc::F_RDLCK) == 0 {
        set(libc::F_UNLCK);
        return Writers::None;
    }
    match io::Error::last_os_error().kind() {
        io::ErrorKind::WouldBlock => Writers::Some,
        _ => Writers::Unknown,
    }
}

/// Other systems have no leases.
#[cfg(not(target_os = "linux"))]
pub fn writers(_: &File) -> Writers {
    Writers::Unknown
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::fs::OpenOptions;

    #[test]
    fn an_open_writer_is_seen_and_a_closed_one_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        std::fs::write(&path, b"x").expect("written");
        let reader = File::open(&path).expect("opened");
        if writers(&reader) == Writers::Unknown {
            return; // Not a file system with leases; the settle rule alone decides there.
        }
        assert_eq!(writers(&reader), Writers::None);
        let writer = OpenOptions::new().write(true).open(&path).expect("opened");
        assert_eq!(writers(&reader), Writers::Some);
        drop(writer);
        assert_eq!(writers(&reader), Writers::None);
    }
}

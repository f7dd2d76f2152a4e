//! Detects whether a file is open for writing. Only a lease answers that (`F_SETLEASE` in
//! fcntl(2)), and no safe crate offers it, hence the `unsafe` below.
//!
//! A read lease is granted only while no descriptor and no mapping can write to the file (on
//! overlayfs a mapping goes unnoticed). It is taken and released at once. A writer that opens the
//! file in between makes the kernel send SIGIO, which ends a process that has no handler for it:
//! [`absorb_signals`] installs one.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;

/// The result of a probe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Writers {
    /// Nobody could write at the moment of the probe.
    None,
    /// A process has it open for writing.
    Some,
    /// The file system has no leases, or this process lacks the privilege to take one.
    Unknown,
}

/// Makes the signal that breaks a lease harmless. Must be called within a tokio runtime, before
/// the first probe.
///
/// # Errors
/// When the handler can't be installed.
pub fn absorb_signals() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    // tokio keeps the handler for the life of the process; the signal itself is of no interest.
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
    // EAGAIN: the file is open for writing (fcntl(2)).
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
            return; // No leases on this file system: only the quiet period protects there.
        }
        assert_eq!(writers(&reader), Writers::None);
        let writer = OpenOptions::new().write(true).open(&path).expect("opened");
        assert_eq!(writers(&reader), Writers::Some);
        drop(writer);
        assert_eq!(writers(&reader), Writers::None);
    }
}

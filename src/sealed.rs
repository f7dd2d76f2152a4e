//! Memory that nobody can change any more, which the kernel sends without copying it.
//!
//! What is sent must be what was hashed (P2). A file could be written to between the two, so no file
//! of the site is ever passed to `sendfile(2)`. A memfd can be sealed: with `F_SEAL_WRITE`,
//! `F_SEAL_SHRINK` and `F_SEAL_GROW` on it nobody can change a byte, this process included, and
//! `F_SEAL_SEAL` keeps it so (`fcntl(2)`, "File Sealing"). It is hashed after that, so its bytes are
//! those of the hash for as long as they exist. Pages that wait in a socket for their
//! acknowledgement stay what they are when the memfd is closed: the kernel gives them to nobody else
//! before they are released, and here they are not reused at all.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendFlags, send};

use crate::disk;

/// Bytes that are sent at once where they have to be copied.
const MAX_COPY: usize = 64 << 10;

/// Bytes that nobody can change.
pub struct SealedMemory {
    file: File,
    length: usize,
}

impl SealedMemory {
    /// Seals `length` bytes, which come through `buffer`: `fill` writes those at each offset into it.
    /// They are copied twice, because a copy that the kernel makes might share pages with a file.
    ///
    /// # Errors
    /// Those of `fill`. When the system has no sealed memory (some sandboxes refuse memfd), or no
    /// more memory or descriptors.
    pub fn new(
        length: usize,
        buffer: &mut [u8],
        mut fill: impl FnMut(&mut [u8], u64) -> io::Result<()>,
    ) -> io::Result<Self> {
        let mut file = system::create()?;
        let mut done = 0;
        while done < length {
            let part = buffer.len().min(length - done);
            let part = buffer.get_mut(..part).filter(|part| !part.is_empty());
            let part = part.ok_or(io::ErrorKind::InvalidInput)?;
            fill(part, done as u64)?;
            file.write_all(part)?;
            done += part.len();
        }
        system::seal(&file)?;
        Ok(Self { file, length })
    }

    /// Number of bytes.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Reads the bytes at `offset` into a buffer, to be hashed.
    ///
    /// # Errors
    /// When there are fewer.
    pub fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        disk::read_exact_at(&self.file, buffer, offset)
    }

    /// Hands up to `length` bytes from `offset` on to a socket, and returns how many it has taken.
    ///
    /// # Errors
    /// `WouldBlock` when the socket takes none now; others when it takes no more.
    pub fn send(&self, socket: impl AsFd, offset: usize, length: usize) -> io::Result<usize> {
        let length = length.min(self.length.saturating_sub(offset));
        if let Some(sent) = system::send_file(&socket, &self.file, offset as u64, length) {
            return sent;
        }
        // A sandbox that refuses it: from the same memory, with a copy.
        let mut part = vec![0; length.min(MAX_COPY)];
        self.read(&mut part, offset as u64)?;
        Ok(send(&socket, &part, SendFlags::NOSIGNAL)?)
    }
}

impl fmt::Debug for SealedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedMemory({} bytes)", self.length)
    }
}

/// Hands bytes to a socket that more follow at once, so that they need no packet of their own.
///
/// # Errors
/// As those of [`SealedMemory::send`].
pub fn send_before(socket: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    Ok(send(socket, bytes, system::MORE | SendFlags::NOSIGNAL)?)
}

/// Whether a socket takes a good part of its buffer now, not just what was acknowledged a moment ago;
/// otherwise it reports later that it does. A call that hands over a few pages costs nearly as much as
/// one that fills a third of the buffer, which is what Linux waits for before it reports.
pub fn takes_much(socket: impl AsFd) -> bool {
    let mut asked = [PollFd::new(&socket, PollFlags::OUT)];
    // An error is for the next call to find.
    poll(&mut asked, Some(&Timespec::default())) != Ok(0)
}

/// What Linux has for it.
#[cfg(target_os = "linux")]
mod system {
    use std::fs::File;
    use std::io;
    use std::os::fd::AsFd;

    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create, sendfile};
    use rustix::io::Errno;
    use rustix::net::SendFlags;

    pub(super) const MORE: SendFlags = SendFlags::MORE;

    pub(super) fn create() -> io::Result<File> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let created = match memfd_create("etagd", flags | MemfdFlags::NOEXEC_SEAL) {
            // Before Linux 6.3 there is no NOEXEC_SEAL.
            Err(Errno::INVAL) => memfd_create("etagd", flags),
            created => created,
        };
        Ok(created?.into())
    }

    pub(super) fn seal(file: &File) -> io::Result<()> {
        let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        Ok(fcntl_add_seals(file, seals)?)
    }

    /// `None` where the system refuses the call itself.
    pub(super) fn send_file(
        socket: impl AsFd,
        file: &File,
        mut offset: u64,
        length: usize,
    ) -> Option<io::Result<usize>> {
        match sendfile(socket, file, Some(&mut offset), length) {
            Err(Errno::NOSYS | Errno::INVAL | Errno::PERM | Errno::ACCESS) => None,
            sent => Some(sent.map_err(Into::into)),
        }
    }
}

/// Other systems have no sealed memory.
#[cfg(not(target_os = "linux"))]
mod system {
    use std::fs::File;
    use std::io;
    use std::os::fd::AsFd;

    use rustix::net::SendFlags;

    pub(super) const MORE: SendFlags = SendFlags::empty();

    pub(super) fn create() -> io::Result<File> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn seal(_: &File) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn send_file(_: impl AsFd, _: &File, _: u64, _: usize) -> Option<io::Result<usize>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::FileExt;
    use std::os::unix::net::UnixStream;
    use std::thread;

    use rustix::fs::{SealFlags, fcntl_add_seals, ftruncate};

    use super::*;

    fn sealed(content: &[u8]) -> SealedMemory {
        let fill = |part: &mut [u8], offset: u64| {
            let from = offset as usize;
            part.copy_from_slice(&content[from..from + part.len()]);
            Ok(())
        };
        SealedMemory::new(content.len(), &mut [0; 1000], fill).expect("sealed")
    }

    #[test]
    fn nobody_can_change_it() {
        let sealed = sealed(b"it was");
        assert!(sealed.file.write_at(b"x", 0).is_err(), "written to");
        assert!(ftruncate(&sealed.file, 0).is_err(), "cut");
        assert!(ftruncate(&sealed.file, 1 << 20).is_err(), "extended");
        assert!(
            fcntl_add_seals(&sealed.file, SealFlags::FUTURE_WRITE).is_err(),
            "sealed anew"
        );
        let path = format!("/proc/self/fd/{}", sealed.file.as_raw_fd());
        let writable = File::options().write(true).open(path);
        assert!(
            writable.is_err() || writable.expect("opened").write_at(b"x", 0).is_err(),
            "written to through another descriptor"
        );
        let mut bytes = [0; 6];
        sealed.read(&mut bytes, 0).expect("read");
        assert_eq!(&bytes, b"it was");
    }

    #[test]
    fn what_can_not_be_had_is_not_sealed() {
        let fails = |_: &mut [u8], _| Err(io::ErrorKind::UnexpectedEof.into());
        let error = SealedMemory::new(1, &mut [0], fails).expect_err("nothing to seal");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let error = SealedMemory::new(1, &mut [], |_, _| Ok(())).expect_err("no way to get there");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_socket_that_was_full_takes_much_or_nothing() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bound");
        let here = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        let (mut there, _) = listener.accept().expect("accepted");
        here.set_nonblocking(true).expect("set");
        let sealed = sealed(&vec![7; 64 << 20]);
        assert!(takes_much(&here));
        let mut sent = 0;
        while takes_much(&here) {
            sent += sealed.send(&here, sent, usize::MAX).unwrap_or(0);
        }
        assert!(sent > MAX_COPY && sent < sealed.length(), "{sent}");
        let mut taken = vec![0; sent];
        there.read_exact(&mut taken).expect("read");
        // It is asked to say so, and does.
        let mut asked = [PollFd::new(&here, PollFlags::OUT)];
        assert_eq!(poll(&mut asked, None), Ok(1));
        assert!(takes_much(&here));
    }

    #[test]
    fn its_bytes_arrive_behind_others() {
        let content: Vec<u8> = (0..3 << 20).map(|n: u32| (n / 7) as u8).collect();
        let sealed = sealed(&content);
        let (here, mut there) = UnixStream::pair().expect("sockets");
        let reader = thread::spawn(move || {
            let mut all = Vec::new();
            there.read_to_end(&mut all).expect("read");
            all
        });
        assert_eq!(send_before(&here, b"head").expect("sent"), 4);
        let mut sent = 1;
        while sent < sealed.length() {
            sent += sealed.send(&here, sent, usize::MAX).expect("sent");
        }
        drop(here);
        let all = reader.join().expect("read");
        assert_eq!(all[..4], *b"head");
        assert!(all[4..] == content[1..]);
    }
}

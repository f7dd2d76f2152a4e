//! Memory that nobody can change any more, which the kernel sends without copying it.
//!
//! What is sent must be what was hashed (P2). A file could be written to between the two, so no file
//! of the site is ever mapped, or sent by the kernel. This is private memory without a file, made
//! read-only as soon as it is filled: no other process has it, this one can't write to it, and it is
//! hashed after that. `vmsplice(2)` has a pipe refer to its pages, and `splice(2)` has a socket refer to
//! them. Pages that wait there for their acknowledgement stay what they are when the memory is unmapped:
//! the kernel gives them to nobody else before they are released, and here they are not reused at all.
//!
//! Sealed memfds would do as well, but the kernel looks each of their pages up anew, which costs half as
//! much again per megabyte, and each memfd takes a descriptor. Huge pages cost less still; but a single byte
//! that waits in a socket would hold two megabytes that nobody counts, long after the memory is unmapped.
#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::ops::Deref;
use std::os::fd::AsFd;

use memmap2::{Mmap, MmapMut};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendFlags, send};

/// What is handed over at a time: what a pipe holds unless the system's limit is raised (pipe(7),
/// pipe-max-size).
const MAX_PART: usize = 1 << 20;
/// What a socket takes at once where handing over pages costs less than a copy. One that a network limits
/// takes what was acknowledged, a small part of that, and the other pages would be queued and dropped in vain.
pub const MUCH: usize = MAX_PART / 2;
/// What is shorter is copied: that costs less than six system calls.
const MIN_PAGES: usize = 128 << 10;

/// Bytes that nobody can change.
pub struct SealedMemory(Mmap);

impl SealedMemory {
    /// Seals the `length` bytes that `fill` writes.
    ///
    /// # Errors
    /// Those of `fill`. When the system has no more memory.
    pub fn new(length: usize, fill: impl FnOnce(&mut [u8]) -> io::Result<()>) -> io::Result<Self> {
        let mut bytes = MmapMut::map_anon(length)?;
        system::refuse_huge_pages(&bytes);
        fill(&mut bytes)?;
        bytes.make_read_only().map(Self)
    }

    /// Hands up to `length` bytes from `offset` on to a socket, and returns how many it has taken: as pages
    /// if it is fast, which is to say that it takes [`MUCH`] at once, or else as a copy.
    ///
    /// # Errors
    /// `WouldBlock` when the socket takes none now; others when it takes no more.
    pub fn send(
        &self,
        socket: impl AsFd,
        offset: usize,
        length: usize,
        is_fast: bool,
    ) -> io::Result<usize> {
        let rest = self.get(offset..).unwrap_or_default();
        let part = rest.get(..length.min(MAX_PART)).unwrap_or(rest);
        let sent = match is_fast && part.len() >= MIN_PAGES {
            true => system::send_pages(&socket, part),
            false => None,
        };
        match sent {
            Some(sent) => sent,
            // It is short, a sandbox refuses it, or pipes or descriptors are used up.
            None => Ok(send(&socket, part, SendFlags::empty())?),
        }
    }
}

impl Deref for SealedMemory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SealedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedMemory({} bytes)", self.len())
    }
}

/// Hands bytes to a socket that more follow at once, so that they need no packet of their own.
///
/// # Errors
/// As those of [`SealedMemory::send`].
pub fn send_before(socket: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    Ok(send(socket, bytes, system::MORE)?)
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
    use std::io;
    use std::os::fd::AsFd;

    use memmap2::{Advice, MmapMut};
    use rustix::io::Errno;
    use rustix::net::SendFlags;
    use rustix::pipe::{
        IoSliceRaw, PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice, vmsplice,
    };

    use super::MAX_PART;

    pub(super) const MORE: SendFlags = SendFlags::MORE;

    pub(super) fn refuse_huge_pages(bytes: &MmapMut) {
        // A system that does not know them has none.
        let _ = bytes.advise(Advice::NoHugePage);
    }

    /// `None` where the system refuses the calls themselves, or has no descriptors left.
    ///
    /// What the socket does not take is dropped with the pipe: one that is kept for it would be two
    /// more descriptors for each client that is slow, and to make one costs less than to hand over ten pages.
    pub(super) fn send_pages(socket: impl AsFd, bytes: &[u8]) -> Option<io::Result<usize>> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        // Refused where this user's pipes have too many pages already. A smaller one is none of use: it may
        // have room for two.
        fcntl_setpipe_size(&writer, MAX_PART).ok()?;
        let slices = [IoSliceRaw::from_slice(bytes)];
        // What is not at the beginning of a page is one page more than there is room for: this must not wait
        // until somebody reads.
        let flags = SpliceFlags::NONBLOCK;
        // SAFETY: `writer` is the end that is written to, so the memory is only read.
        let queued = unsafe { vmsplice(&writer, &slices, flags) }.ok()?;
        match splice(&reader, None, socket, None, queued, SpliceFlags::empty()) {
            Err(Errno::NOSYS | Errno::INVAL | Errno::PERM | Errno::ACCESS) => None,
            sent => Some(sent.map_err(Into::into)),
        }
    }
}

/// Other systems copy.
#[cfg(not(target_os = "linux"))]
mod system {
    use std::io;
    use std::os::fd::AsFd;

    use memmap2::MmapMut;
    use rustix::net::SendFlags;

    pub(super) const MORE: SendFlags = SendFlags::empty();

    pub(super) fn refuse_huge_pages(_: &MmapMut) {}

    pub(super) fn send_pages(_: impl AsFd, _: &[u8]) -> Option<io::Result<usize>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;
    use std::thread;

    use super::*;

    fn sealed(content: &[u8]) -> SealedMemory {
        let fill = |bytes: &mut [u8]| {
            bytes.copy_from_slice(content);
            Ok(())
        };
        SealedMemory::new(content.len(), fill).expect("sealed")
    }

    /// Two ends of a connection over TCP; the first does not block.
    fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bound");
        let here = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        let (there, _) = listener.accept().expect("accepted");
        here.set_nonblocking(true).expect("set");
        (here, there)
    }

    /// What proc_pid_smaps(5) says of the mapping that it lies in: the first line and those about it.
    fn mapping(sealed: &SealedMemory) -> Vec<String> {
        let address = sealed.as_ptr().addr();
        let holds = |line: &str| {
            let (first, end) = line.split_whitespace().next()?.split_once('-')?;
            let parse = |address| usize::from_str_radix(address, 16).ok();
            Some((parse(first)?..parse(end)?).contains(&address))
        };
        let mappings = fs::read_to_string("/proc/self/smaps").expect("mappings");
        let mut lines = mappings
            .lines()
            .skip_while(|line| holds(line) != Some(true));
        let first = lines.next().expect("it is mapped");
        let about = lines.take_while(|line| holds(line).is_none());
        [first].into_iter().chain(about).map(Into::into).collect()
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn nobody_can_change_it() {
        let sealed = sealed(b"it was");
        // Neither written to, nor shared with anybody.
        let mapping = mapping(&sealed);
        assert!(mapping[0].contains(" r--p "), "{mapping:#?}");
        assert_eq!(&*sealed, b"it was");
    }

    /// A page is not given back while a byte of it waits in a socket.
    #[test]
    #[cfg(target_os = "linux")]
    fn it_lies_in_small_pages() {
        let mapping = mapping(&sealed(&vec![7; 8 << 20]));
        let huge = mapping
            .iter()
            .find(|line| line.starts_with("AnonHugePages:"));
        assert!(
            huge.is_some_and(|huge| huge.contains(" 0 kB")),
            "{mapping:#?}"
        );
        let flags = mapping.iter().find(|line| line.starts_with("VmFlags:"));
        assert!(
            flags.is_some_and(|flags| flags.contains(" nh")),
            "{mapping:#?}"
        );
    }

    #[test]
    fn what_can_not_be_had_is_not_sealed() {
        let fails = |_: &mut [u8]| Err(io::ErrorKind::UnexpectedEof.into());
        let error = SealedMemory::new(1, fails).expect_err("nothing to seal");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_socket_that_was_full_takes_much_or_nothing() {
        let (here, mut there) = connected();
        let sealed = sealed(&vec![7; 64 << 20]);
        assert!(takes_much(&here));
        let mut sent = 0;
        while takes_much(&here) {
            sent += sealed.send(&here, sent, usize::MAX, true).unwrap_or(0);
        }
        assert!(sent > 64 << 10 && sent < sealed.len(), "{sent}");
        let mut taken = vec![0; sent];
        there.read_exact(&mut taken).expect("read");
        // It is asked to say so, and does.
        let mut asked = [PollFd::new(&here, PollFlags::OUT)];
        assert_eq!(poll(&mut asked, None), Ok(1));
        assert!(takes_much(&here));
    }

    #[test]
    fn what_waits_in_a_socket_outlives_the_memory_unchanged() {
        let (here, mut there) = connected();
        let content: Vec<u8> = (0..8 << 20).map(|n: u32| (n / 7) as u8).collect();
        let sealed_memory = sealed(&content);
        let sent = sealed_memory
            .send(&here, 0, usize::MAX, true)
            .expect("sent");
        drop(sealed_memory);
        // Whoever gets memory now would get those pages first, were they free.
        let others = [1, 2, 3].map(|byte| sealed(&vec![byte; 8 << 20]));
        let mut taken = vec![0; sent];
        there.read_exact(&mut taken).expect("read");
        assert!(taken == content[..sent]);
        assert_eq!(others.map(|other| other[9]), [1, 2, 3]);
    }

    #[test]
    fn a_client_that_is_gone_is_an_error() {
        let (here, there) = connected();
        drop(there);
        let sealed = sealed(&vec![7; 64 << 20]);
        let mut sent = 0;
        let error = loop {
            match sealed.send(&here, sent, usize::MAX, true) {
                Ok(more) => sent += more,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => break error.kind(),
            }
        };
        let gone = [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset];
        assert!(gone.contains(&error), "{error}");
    }

    #[test]
    fn its_bytes_arrive_behind_others() {
        let content: Vec<u8> = (0..3 << 20).map(|n: u32| (n / 7) as u8).collect();
        let sealed = sealed(&content);
        let (mut here, mut there) = UnixStream::pair().expect("sockets");
        let reader = thread::spawn(move || {
            let mut all = Vec::new();
            there.read_to_end(&mut all).expect("read");
            all
        });
        assert_eq!(send_before(&here, b"head").expect("sent"), 4);
        let (mut sent, mut is_fast) = (1, true);
        while sent < sealed.len() {
            let part = sealed.send(&here, sent, usize::MAX, is_fast);
            sent += part.expect("sent");
            is_fast = !is_fast;
        }
        here.write_all(b"end").expect("sent");
        drop(here);
        let all = reader.join().expect("read");
        assert_eq!(all[..4], *b"head");
        assert!(all[4..] == [&content[1..], b"end"].concat());
    }
}

//! Sockets that another process has opened for us: systemd's socket activation (sd_listen_fds(3)),
//! or a parent that hands one socket from process to process.

use std::env;
use std::io;

use listenfd::ListenFd;
use socket2::Socket;

use super::listener::{BoundSocket, ListenError};

/// The name, among `LISTEN_FDNAMES`, of an admin listener.
const ADMIN: &str = "admin";
/// The name of one that redirect to HTTPS.
const REDIRECT: &str = "redirect-http";
/// Limit for the inherited sockets. No supervisor passes more; a larger number is a mistake.
const MAX_INHERITED: u64 = 1024;

/// Inherited sockets. They listen already: clients that connect wait until we accept.
#[derive(Debug, Default)]
pub struct Inherited {
    /// For the site.
    pub public: Vec<BoundSocket>,
    /// For the operator.
    pub admin: Vec<BoundSocket>,
    /// Those that redirect to HTTPS.
    pub redirect: Vec<BoundSocket>,
}

impl Inherited {
    /// Takes what the environment names, if it names this process. To be called before anything
    /// else opens a file: the numbers are fixed, and one that was not passed must be free.
    ///
    /// # Errors
    /// When one of them is no listening stream socket.
    pub fn take() -> Result<Self, ListenError> {
        let mut inherited = Self::default();
        let number = env::var("LISTEN_FDS").unwrap_or_default();
        if number
            .parse::<u64>()
            .is_ok_and(|number| number > MAX_INHERITED)
        {
            let source = io::Error::other(format!(
                "LISTEN_FDS={number}: must be at most {MAX_INHERITED}"
            ));
            return Err(ListenError::new("inherited sockets", source));
        }
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut passed = ListenFd::from_env();
        for index in 0..passed.len() {
            let socket = take(&mut passed, index)
                .and_then(BoundSocket::inherited)
                .map_err(|source| {
                    ListenError::new(
                        format_args!("inherited socket {index} of LISTEN_FDS"),
                        source,
                    )
                })?;
            match names.next() {
                Some(ADMIN) => inherited.admin.push(socket),
                Some(REDIRECT) => inherited.redirect.push(socket),
                _ => inherited.public.push(socket),
            }
        }
        Ok(inherited)
    }
}

/// TCP, or else a Unix socket.
fn take(passed: &mut ListenFd, index: usize) -> io::Result<Socket> {
    let tcp = passed
        .take_tcp_listener(index)
        .map(|tcp| tcp.map(Socket::from));
    let socket = match tcp {
        Ok(tcp) => tcp,
        Err(_) => passed.take_unix_listener(index)?.map(Socket::from),
    };
    socket.ok_or_else(|| io::Error::other("no socket was passed with this number"))
}

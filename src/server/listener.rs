//! Sockets to listen on: bound early, so that a taken port is known before slow work; listening
//! late, so that no client connects to a server that can't answer yet. Inherited ones listen
//! already: clients that connect to them wait.

use std::convert::Infallible;
use std::fmt;
use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpListener, UnixListener};
use tokio::time::timeout;

use super::socket::{MAX_UNSENT, limit_unsent_bytes};
use crate::client::Peer;
use crate::metrics::Counter;
use crate::settings::Listen;

/// Limit for the connections that the kernel completes ahead of `accept`, which has one of its own
/// (listen(2), `net.core.somaxconn`).
const MAX_BACKLOG: u16 = 4096;
/// Pause after an error of `accept` that an immediate retry would only repeat, such as ENOMEM.
const ACCEPT_RETRY_PAUSE: Duration = Duration::from_millis(100);
/// How often to try for a spare descriptor while there is none.
const REFILL_INTERVAL: Duration = Duration::from_millis(10);
/// Minimum time between two messages about an error that persists.
const MIN_MESSAGE_INTERVAL: Duration = Duration::from_secs(60);

/// Why an address can't be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}{}", hint(.address, .source))]
pub struct ListenError {
    address: String,
    source: io::Error,
}

fn hint(address: &str, error: &io::Error) -> &'static str {
    let is_unix = address.starts_with("unix:");
    match error.kind() {
        io::ErrorKind::AddrInUse if is_unix => {
            " (another process is listening there, or it is not a socket)"
        }
        io::ErrorKind::PermissionDenied if is_unix => "",
        io::ErrorKind::AddrInUse => " (stop the process that uses it, or choose another address)",
        io::ErrorKind::PermissionDenied => " (ports below 1024 need a privilege)",
        io::ErrorKind::AddrNotAvailable => " (this machine does not have that address)",
        _ => "",
    }
}

impl ListenError {
    /// Whether another process has the address.
    pub fn is_address_in_use(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrInUse
    }

    pub(super) fn new(address: impl fmt::Display, source: io::Error) -> Self {
        let address = address.to_string();
        Self { address, source }
    }
}

/// A socket that has its address, but perhaps does not listen yet.
#[derive(Debug)]
pub struct BoundSocket {
    socket: Socket,
    address: Address,
    /// Another process opened it: it listens already, and may go on without us.
    is_inherited: bool,
}

fn scheme(is_secure: bool) -> &'static str {
    if is_secure { "https" } else { "http" }
}

/// This machine's IPv4 addresses in its networks: short enough to type on a phone.
pub fn ipv4_addresses() -> Vec<Ipv4Addr> {
    if_addrs::get_if_addrs()
        .unwrap_or_default()
        .iter()
        .filter(|interface| !interface.is_loopback())
        .filter_map(|interface| match interface.ip() {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        })
        .collect()
}

/// A socket's address, as it stands behind `--listen`.
#[derive(Clone, Debug)]
enum Address {
    Tcp(SocketAddr),
    Unix(Arc<SocketPath>),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.path.display()),
        }
    }
}

/// Binds all addresses. With `reuse_port`, other processes of the same user may listen on the same
/// TCP addresses, if they ask for it too.
///
/// # Errors
/// For the first address that can't be had.
pub fn bind(listen: &[Listen], reuse_port: bool) -> Result<Vec<BoundSocket>, ListenError> {
    let mut bound = Vec::new();
    for listen in listen {
        match listen {
            Listen::Tcp(addresses) => {
                for address in addresses {
                    let socket = bind_tcp(*address, reuse_port);
                    bound.push(socket.map_err(|source| ListenError::new(address, source))?);
                }
            }
            Listen::Unix(path) => {
                let address = format_args!("unix:{}", path.display());
                let socket = bind_unix(path);
                bound.push(socket.map_err(|source| ListenError::new(address, source))?);
            }
        }
    }
    Ok(bound)
}

fn bind_tcp(address: SocketAddr, reuse_port: bool) -> io::Result<BoundSocket> {
    let socket = match Socket::new(Domain::for_address(address), Type::STREAM, None) {
        // A machine without IPv6 still has all its IPv4 addresses.
        Err(_)
            if address == SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, address.port())) =>
        {
            let address = (Ipv4Addr::UNSPECIFIED, address.port()).into();
            return bind_tcp(address, reuse_port);
        }
        socket => socket?,
    };
    if address.is_ipv6() {
        // `[::]` means every address, IPv4 included; any other is itself.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    let actual = socket.local_addr()?.as_socket().unwrap_or(address);
    Ok(BoundSocket {
        socket,
        address: Address::Tcp(actual),
        is_inherited: false,
    })
}

fn bind_unix(path: &Path) -> io::Result<BoundSocket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    let address = SockAddr::unix(path)?;
    if let Err(error) = socket.bind(&address) {
        if error.kind() != io::ErrorKind::AddrInUse || !is_stale(path, &address)? {
            return Err(error);
        }
        std::fs::remove_file(path)?;
        socket.bind(&address)?;
    }
    socket.set_nonblocking(true)?;
    let path = SocketPath::created(path)?;
    Ok(BoundSocket {
        socket,
        address: Address::Unix(Arc::new(path)),
        is_inherited: false,
    })
}

/// Whether a socket was left behind by a process that is gone: connecting to it is refused
/// (unix(7), ECONNREFUSED).
fn is_stale(path: &Path, address: &SockAddr) -> io::Result<bool> {
    use std::os::unix::fs::FileTypeExt;
    if !path.symlink_metadata()?.file_type().is_socket() {
        return Ok(false);
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Non-blocking: a full queue (EAGAIN) means that a process listens there.
    probe.set_nonblocking(true)?;
    Ok(probe
        .connect(address)
        .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused))
}

impl BoundSocket {
    /// Whether both have the same address, so that the kernel would give each some of the connections,
    /// or refuse one of them late.
    pub fn is_at(&self, other: &Self) -> bool {
        match (&self.address, &other.address) {
            (Address::Tcp(one), Address::Tcp(other)) => one == other,
            (Address::Unix(one), Address::Unix(other)) => one.path == other.path,
            (Address::Tcp(_), Address::Unix(_)) | (Address::Unix(_), Address::Tcp(_)) => false,
        }
    }

    /// Its port, if it has one.
    pub fn port(&self) -> Option<u16> {
        match &self.address {
            Address::Tcp(address) => Some(address.port()),
            Address::Unix(_) => None,
        }
    }

    /// The address, if other machines may reach it.
    pub fn public_address(&self) -> Option<SocketAddr> {
        match self.address {
            Address::Tcp(address) if !address.ip().to_canonical().is_loopback() => Some(address),
            Address::Tcp(_) | Address::Unix(_) => None,
        }
    }

    /// Takes over a socket that another process has opened and listens on.
    ///
    /// # Errors
    /// When it does not listen.
    pub(super) fn inherited(socket: Socket) -> io::Result<Self> {
        if !socket.is_listener()? {
            return Err(io::Error::other("the socket is not listening"));
        }
        socket.set_nonblocking(true)?;
        let local = socket.local_addr()?;
        let address = match local.as_socket() {
            Some(address) => Address::Tcp(address),
            None => Address::Unix(Arc::new(SocketPath::found(&local))),
        };
        Ok(Self {
            socket,
            address,
            is_inherited: true,
        })
    }

    /// Begins to listen. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When another socket listens on the address by now.
    pub fn listen(self) -> Result<Listener, ListenError> {
        let address = self.address.clone();
        self.try_listen()
            .map_err(|source| ListenError::new(address, source))
    }

    fn try_listen(self) -> io::Result<Listener> {
        if !self.is_inherited {
            self.socket.listen(MAX_BACKLOG.into())?;
        }
        let socket = match self.address {
            Address::Tcp(_) => Listening::Tcp(TcpListener::from_std(self.socket.into())?),
            Address::Unix(_) => Listening::Unix(UnixListener::from_std(self.socket.into())?),
        };
        Ok(Listener {
            socket,
            address: self.address,
            is_inherited: self.is_inherited,
        })
    }
}

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: Listening,
    address: Address,
    is_inherited: bool,
}

#[derive(Debug)]
enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// The path of a Unix socket. One that we made is removed with it, unless another has taken its
/// place.
#[derive(Debug)]
struct SocketPath {
    path: PathBuf,
    /// Device and inode; `None` for a socket that we did not create.
    identity: Option<(u64, u64)>,
}

impl SocketPath {
    fn created(path: &Path) -> io::Result<Self> {
        let metadata = path.symlink_metadata()?;
        Ok(Self {
            path: path.to_path_buf(),
            identity: Some((metadata.dev(), metadata.ino())),
        })
    }

    /// Of a socket that is not ours. Abstract names begin with `@`, as `ss` shows them.
    fn found(address: &SockAddr) -> Self {
        let name = address.as_abstract_namespace().unwrap_or_default();
        Self {
            path: address.as_pathname().map_or_else(
                || format!("@{}", String::from_utf8_lossy(name)).into(),
                Path::to_path_buf,
            ),
            identity: None,
        }
    }
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        // A process started meanwhile may have put its own socket there.
        let now = self.path.symlink_metadata();
        if now.is_ok_and(|now| Some((now.dev(), now.ino())) == self.identity) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl fmt::Display for BoundSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl Listener {
    /// Whether only programs of this machine can connect, over TCP: those include its browsers.
    pub(super) fn is_loopback(&self) -> bool {
        matches!(self.address, Address::Tcp(address) if address.ip().to_canonical().is_loopback())
    }

    /// Where clients find it: a URL, or the path of a Unix socket.
    pub fn url(&self, is_secure: bool) -> String {
        match (&self.address, is_secure) {
            // A browser takes no unspecified address.
            (Address::Tcp(address), _) if address.ip().is_unspecified() => {
                format!("{}://localhost:{}", scheme(is_secure), address.port())
            }
            (Address::Tcp(address), _) => format!("{}://{address}", scheme(is_secure)),
            (Address::Unix(_), _) => self.to_string(),
        }
    }

    /// Its URLs in the networks of this machine, if it listens on all addresses.
    pub fn network_urls(&self, is_secure: bool) -> Vec<String> {
        let Address::Tcp(address) = &self.address else {
            return Vec::new();
        };
        if !address.ip().is_unspecified() {
            return Vec::new();
        }
        let (scheme, port) = (scheme(is_secure), address.port());
        ipv4_addresses()
            .into_iter()
            .map(|address| format!("{scheme}://{address}:{port}"))
            .collect()
    }

    /// The next connection.
    ///
    /// # Errors
    /// As `accept(2)`: some concern the connection alone, others the process.
    async fn accept(&self) -> io::Result<Accepted> {
        match &self.socket {
            Listening::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // A response leaves at once, even where its last packet is small.
                let _ = stream.set_nodelay(true);
                limit_unsent_bytes(&stream, MAX_UNSENT);
                Ok(Accepted {
                    socket: stream.into_std()?.into(),
                    peer: peer.ip().into(),
                })
            }
            Listening::Unix(listener) => Ok(Accepted {
                socket: listener.accept().await?.0.into_std()?.into(),
                peer: Peer::Unix,
            }),
        }
    }

    /// Hands each connection to `dispatch`, until the future is dropped. Where no descriptor is left,
    /// `when_exhausted` gets the next connection, on the descriptor that is kept for this.
    async fn accept_each(
        &self,
        errors: &Counter,
        dispatch: &impl Fn(Accepted),
        when_exhausted: &impl Fn(Accepted),
    ) -> Infallible {
        let mut spare = SpareDescriptor::default();
        let mut last_message: Option<Instant> = None;
        loop {
            let accepting = match spare.refill() {
                true => self.accept().await,
                // As soon as a file is closed, its descriptor can be the spare one again.
                false => match timeout(REFILL_INTERVAL, self.accept()).await {
                    Ok(result) => result,
                    Err(_) => continue,
                },
            };
            let error = match accepting {
                Ok(accepted) => {
                    dispatch(accepted);
                    continue;
                }
                Err(error) if concerns_one_connection(&error) => continue,
                Err(error) => error,
            };
            errors.increment();
            let is_new =
                last_message.is_none_or(|message| message.elapsed() >= MIN_MESSAGE_INTERVAL);
            if is_new {
                last_message = Some(Instant::now());
                tracing::error!(
                    listener = %self,
                    %error,
                    "cannot accept connections on {self}: {error}; retrying, and counting \
                     further failures in accept_errors"
                );
            }
            if is_exhausted(&error) && spare.release() {
                if let Ok(Ok(accepted)) = timeout(Duration::ZERO, self.accept()).await {
                    when_exhausted(accepted);
                }
            } else {
                tokio::time::sleep(ACCEPT_RETRY_PAUSE).await;
            }
        }
    }

    /// Closes it. Connections that were made before this are handed to `dispatch` first, or left to
    /// whoever else accepts from an inherited socket.
    pub(super) async fn close(self, dispatch: &impl Fn(Accepted)) {
        if self.is_inherited {
            return;
        }
        // The event loop has to run once to find out which there are.
        tokio::time::sleep(Duration::from_millis(1)).await;
        for _ in 0..MAX_BACKLOG {
            match timeout(Duration::ZERO, self.accept()).await {
                Ok(Ok(accepted)) => dispatch(accepted),
                _ => break,
            }
        }
    }
}

/// Hands the connections of all `listeners` to `dispatch`, until the future is dropped. Failures are
/// counted in `errors`. Where the process or the system has no descriptor left, connections go to
/// `when_exhausted`, one at a time: left in the kernel's queue, their clients would wait in silence.
pub(super) async fn accept_all(
    listeners: &[Listener],
    errors: &Counter,
    dispatch: impl Fn(Accepted),
    when_exhausted: impl Fn(Accepted),
) -> Infallible {
    let accepting = listeners
        .iter()
        .map(|each| each.accept_each(errors, &dispatch, &when_exhausted));
    let mut accepting: Vec<_> = accepting.map(Box::pin).collect();
    poll_fn(|cx| {
        for accept in &mut accepting {
            // It never ends by itself.
            let _ = accept.as_mut().poll(cx);
        }
        Poll::Pending
    })
    .await
}

/// A descriptor that is kept open, so that one connection can be accepted when there are no others.
#[derive(Default)]
struct SpareDescriptor(Option<File>);

impl SpareDescriptor {
    /// Opens it, if it is not open and there is one to be had. Returns whether it is open.
    fn refill(&mut self) -> bool {
        if self.0.is_none() {
            self.0 = File::open("/dev/null").ok();
        }
        self.0.is_some()
    }

    /// Closes it. Returns whether it was open.
    fn release(&mut self) -> bool {
        self.0.take().is_some()
    }
}

/// Whether the process (EMFILE) or the system (ENFILE) has no descriptor left.
fn is_exhausted(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE)
    )
}

/// Errors of `accept` that say nothing about the next connection.
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

/// A connection, not yet registered with any runtime.
#[derive(Debug)]
pub struct Accepted {
    /// It does not block.
    pub socket: OwnedFd,
    /// The other end of the connection.
    pub peer: Peer,
}

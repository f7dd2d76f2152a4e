//! Sockets to listen on: bound early, so that a taken port is known before slow work; listening
//! late, so that nobody connects to a server that can't answer yet.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::config::Listen;

/// Connections that the kernel completes ahead of `accept`; it caps this at its own limit.
const BACKLOG: i32 = 4096;

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
        io::ErrorKind::AddrInUse if is_unix => " (somebody listens there, or it is no socket)",
        io::ErrorKind::PermissionDenied if is_unix => "",
        io::ErrorKind::AddrInUse => " (stop what uses it, or choose another with --listen)",
        io::ErrorKind::PermissionDenied => " (ports below 1024 need a privilege)",
        io::ErrorKind::AddrNotAvailable => " (this machine does not have that address)",
        _ => "",
    }
}

/// A socket that has its address, but does not listen yet.
#[derive(Debug)]
pub struct Bound {
    socket: Socket,
    address: Address,
}

/// A socket's address, as it stands behind `--listen`.
#[derive(Clone, Debug)]
enum Address {
    Tcp(SocketAddr),
    Unix(Arc<OwnedPath>),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.path.display()),
        }
    }
}

/// Binds all addresses.
///
/// # Errors
/// For the first address that can't be had.
pub fn bind(listen: &[Listen]) -> Result<Vec<Bound>, ListenError> {
    let mut bound = Vec::new();
    for listen in listen {
        match listen {
            Listen::Tcp(addresses) => {
                for address in addresses {
                    bound.push(bind_tcp(*address).map_err(|source| ListenError {
                        address: address.to_string(),
                        source,
                    })?);
                }
            }
            Listen::Unix(path) => bound.push(bind_unix(path).map_err(|source| ListenError {
                address: format!("unix:{}", path.display()),
                source,
            })?),
        }
    }
    Ok(bound)
}

fn bind_tcp(address: SocketAddr) -> io::Result<Bound> {
    let socket = match Socket::new(Domain::for_address(address), Type::STREAM, None) {
        // A machine without IPv6 still has all its IPv4 addresses.
        Err(_)
            if address == SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, address.port())) =>
        {
            return bind_tcp((std::net::Ipv4Addr::UNSPECIFIED, address.port()).into());
        }
        socket => socket?,
    };
    if address.is_ipv6() {
        // `[::]` means every address, IPv4 included; any other is itself.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    let actual = socket.local_addr()?.as_socket().unwrap_or(address);
    Ok(Bound {
        socket,
        address: Address::Tcp(actual),
    })
}

fn bind_unix(path: &Path) -> io::Result<Bound> {
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
    let path = OwnedPath::new(path)?;
    Ok(Bound {
        socket,
        address: Address::Unix(Arc::new(path)),
    })
}

/// Whether a socket was left behind by a process that is gone: nobody answers there.
fn is_stale(path: &Path, address: &SockAddr) -> io::Result<bool> {
    use std::os::unix::fs::FileTypeExt;
    if !path.symlink_metadata()?.file_type().is_socket() {
        return Ok(false);
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A queue that is full says that somebody is there.
    probe.set_nonblocking(true)?;
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    Ok(probe.connect(address).is_err_and(refused))
}

impl Bound {
    /// The address, if other machines may reach it.
    pub fn public(&self) -> Option<SocketAddr> {
        match self.address {
            Address::Tcp(address) if !address.ip().to_canonical().is_loopback() => Some(address),
            Address::Tcp(_) | Address::Unix(_) => None,
        }
    }

    /// Begins to listen. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When another socket listens on the address by now.
    pub fn listen(self) -> Result<Listener, ListenError> {
        let address = self.address.clone();
        self.try_listen().map_err(|source| ListenError {
            address: address.to_string(),
            source,
        })
    }

    fn try_listen(self) -> io::Result<Listener> {
        self.socket.listen(BACKLOG)?;
        Ok(match self.address {
            Address::Tcp(address) => {
                Listener::Tcp(TcpListener::from_std(self.socket.into())?, address)
            }
            Address::Unix(path) => {
                let listener = UnixListener::from_std(self.socket.into())?;
                Listener::Unix(listener, path)
            }
        })
    }
}

/// A listening socket.
#[derive(Debug)]
pub enum Listener {
    /// TCP, with the address it really has.
    Tcp(TcpListener, SocketAddr),
    /// A Unix socket, with its path.
    Unix(UnixListener, Arc<OwnedPath>),
}

/// The path of a Unix socket of ours: removed with it, unless another has taken its place.
#[derive(Debug)]
pub struct OwnedPath {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl OwnedPath {
    fn new(path: &Path) -> io::Result<Self> {
        let metadata = path.symlink_metadata()?;
        let (device, inode) = (metadata.dev(), metadata.ino());
        Ok(Self {
            path: path.to_path_buf(),
            device,
            inode,
        })
    }
}

impl Drop for OwnedPath {
    fn drop(&mut self) {
        let is_ours = |now: std::fs::Metadata| (now.dev(), now.ino()) == (self.device, self.inode);
        if self.path.symlink_metadata().is_ok_and(is_ours) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(_, address) => write!(f, "{address}"),
            Self::Unix(_, path) => write!(f, "unix:{}", path.path.display()),
        }
    }
}

impl Listener {
    /// Where clients find it: a URL, or the path of a Unix socket.
    pub fn url(&self, is_secure: bool) -> String {
        match (self, is_secure) {
            (Self::Tcp(..), true) => format!("https://{self}"),
            (Self::Tcp(..), false) => format!("http://{self}"),
            (Self::Unix(..), _) => self.to_string(),
        }
    }
}

/// A connection, not yet registered with any runtime.
#[derive(Debug)]
pub enum Accepted {
    /// Over TCP.
    Tcp(std::net::TcpStream),
    /// Over a Unix socket.
    Unix(std::os::unix::net::UnixStream),
}

impl Listener {
    /// The next connection.
    ///
    /// # Errors
    /// As `accept(2)`: some concern the connection alone, others the process.
    pub async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener, _) => {
                let (stream, _) = listener.accept().await?;
                // A response leaves at once, even where its last packet is small.
                let _ = stream.set_nodelay(true);
                Ok(Accepted::Tcp(stream.into_std()?))
            }
            Self::Unix(listener, _) => Ok(Accepted::Unix(listener.accept().await?.0.into_std()?)),
        }
    }
}

/// A connection in the runtime that serves it.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

impl Accepted {
    /// Registers the connection with the present runtime.
    ///
    /// # Errors
    /// When the runtime can take no more descriptors.
    pub fn register(self) -> io::Result<Stream> {
        Ok(match self {
            Self::Tcp(stream) => Stream::Tcp(TcpStream::from_std(stream)?),
            Self::Unix(stream) => Stream::Unix(UnixStream::from_std(stream)?),
        })
    }
}

impl AsFd for Accepted {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

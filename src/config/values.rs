//! Values of flags: parsed once, into types that cannot be wrong.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;

/// `10s`, `1m 30s`, `100ms`; so long that no clock overflows, and longer than anybody waits.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration > LONGEST {
        return Err("ten years are the most".to_owned());
    }
    Ok(duration)
}

pub(super) fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("more than 0 is needed".to_owned()),
        duration => Ok(duration),
    }
}

pub(super) fn workers(text: &str) -> Result<usize, String> {
    match at_least_one(text)? {
        number if number > 1024 => Err("1024 are the most".to_owned()),
        number => Ok(number),
    }
}

pub(super) fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1 is needed".to_owned()),
        Ok(number) => Ok(number),
        Err(_) => Err("a whole number is expected".to_owned()),
    }
}

pub(super) fn header_size(text: &str) -> Result<ByteSize, String> {
    let size: ByteSize = text.parse()?;
    if (8 << 10..=1 << 20).contains(&size.as_u64()) {
        Ok(size)
    } else {
        Err("from 8KiB to 1MiB is accepted".to_owned())
    }
}

/// Where to listen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Listen {
    /// The addresses that a host name stands for.
    Tcp(Vec<SocketAddr>),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Default for Listen {
    /// This machine alone.
    fn default() -> Self {
        Self::Tcp(vec![(Ipv4Addr::LOCALHOST, 8080).into()])
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            if path.is_empty() {
                return Err("a path is expected after unix:".to_owned());
            }
            return Ok(Self::Unix(path.into()));
        }
        if let Some(port) = text.strip_prefix(':') {
            let port = port
                .parse()
                .map_err(|_| format!("{port:?} is no port (0 to 65535)"))?;
            return Ok(Self::Tcp(vec![(Ipv6Addr::UNSPECIFIED, port).into()]));
        }
        let expected = "expected HOST:PORT, :PORT or unix:PATH";
        match text.to_socket_addrs() {
            Ok(addresses) => {
                let addresses: Vec<_> = addresses.collect();
                if addresses.is_empty() {
                    Err(expected.to_owned())
                } else {
                    Ok(Self::Tcp(addresses))
                }
            }
            Err(error) => Err(format!("{expected} ({error})")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_addresses() {
        let tcp = |text: &str| Ok(Listen::Tcp(vec![text.parse().expect("an address")]));
        assert_eq!("127.0.0.1:0".parse(), tcp("127.0.0.1:0"));
        assert_eq!("[::1]:8080".parse(), tcp("[::1]:8080"));
        assert_eq!(":80".parse(), tcp("[::]:80"));
        assert_eq!("unix:/run/x".parse(), Ok(Listen::Unix("/run/x".into())));
        for bad in [
            "",
            "unix:",
            ":",
            ":99999",
            "127.0.0.1",
            "127.0.0.1:x",
            "8080",
        ] {
            assert!(bad.parse::<Listen>().is_err(), "{bad:?}");
        }
    }
}

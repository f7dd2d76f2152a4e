//! The PROXY protocol, versions 1 and 2: a proxy first sends a header that names its client
//! (haproxy.org, proxy-protocol.txt).

use std::io;
use std::net::IpAddr;

use proxy_header::{ParseConfig, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes of the shortest header: `PROXY UNKNOWN` and its line end; version 2 has one more.
const MIN_HEADER_LENGTH: usize = 15;
/// Limit for a header of version 1, its line end included (section 2.1).
const MAX_V1_LENGTH: usize = 107;
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The fixed part of version 2 (section 2.2): signature, command, family, and length of the rest.
const V2_PREFIX_LENGTH: usize = V2_SIGNATURE.len() + 4;
/// Limit for the rest of version 2, in bytes. Real ones have some hundred.
const MAX_V2_REST: usize = 4096;
/// Version 2, command LOCAL: the proxy's own connection, such as a health check.
const V2_LOCAL: u8 = 0x20;

/// Why there is no header.
#[derive(Debug, thiserror::Error)]
pub(super) enum HeaderError {
    #[error("the connection ended before the PROXY header was complete: {0}")]
    Ended(#[from] io::Error),
    #[error("unexpected data instead of a PROXY header")]
    Absent,
    #[error("the PROXY header is too long")]
    TooLong,
    #[error("malformed PROXY header")]
    Damaged,
    #[error("no PROXY header within --header-timeout")]
    TimedOut,
}

/// Reads the header, to its last byte and no further. Returns the address of the proxy's
/// client; `None` for a connection of the proxy's own, or where it does not know.
///
/// # Errors
/// When what comes is no header.
pub(super) async fn read<S>(stream: &mut S) -> Result<Option<IpAddr>, HeaderError>
where
    S: AsyncRead + Unpin,
{
    let mut header = vec![0; MIN_HEADER_LENGTH];
    stream.read_exact(&mut header).await?;
    if header.starts_with(V2_SIGNATURE) {
        header.push(stream.read_u8().await?);
        let [.., high, low] = header[..] else {
            return Err(HeaderError::Damaged);
        };
        let rest = usize::from(u16::from_be_bytes([high, low]));
        if rest > MAX_V2_REST {
            return Err(HeaderError::TooLong);
        }
        header.resize(V2_PREFIX_LENGTH + rest, 0);
        stream.read_exact(&mut header[V2_PREFIX_LENGTH..]).await?;
        if header[V2_SIGNATURE.len()] == V2_LOCAL {
            // Section 2.2: what follows must be skipped, addresses included.
            return Ok(None);
        }
    } else if header.starts_with(b"PROXY ") {
        // Version 1 has no length, and what follows the line end belongs to TLS or HTTP. Reading
        // single bytes costs little: there is one header for each connection.
        while !header.ends_with(b"\n") {
            if header.len() == MAX_V1_LENGTH {
                return Err(HeaderError::TooLong);
            }
            header.push(stream.read_u8().await?);
        }
    } else {
        return Err(HeaderError::Absent);
    }
    let options = ParseConfig {
        include_tlvs: false,
        ..ParseConfig::default()
    };
    match ProxyHeader::parse(&header, options) {
        Ok((parsed, length)) if length == header.len() => {
            Ok(parsed.proxied_address().map(|proxied| proxied.source.ip()))
        }
        _ => Err(HeaderError::Damaged),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    const AFTER: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

    /// Version 2 with this first byte, this family, and this rest.
    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
        [V2_SIGNATURE, &[command, family], &length, rest].concat()
    }

    /// What is read of a header that comes `step` bytes at a time, and what follows it.
    async fn read_in(step: usize, header: &[u8]) -> (Result<Option<IpAddr>, HeaderError>, Vec<u8>) {
        let (mut there, mut here) = duplex(step);
        let bytes = [header, AFTER].concat();
        let send = async move {
            let _ = there.write_all(&bytes).await;
            drop(there);
        };
        let receive = async move {
            let result = read(&mut here).await;
            let mut rest = Vec::new();
            here.read_to_end(&mut rest).await.expect("a pipe");
            (result, rest)
        };
        tokio::join!(send, receive).1
    }

    #[tokio::test]
    async fn headers_however_they_are_cut() {
        let v4 = [&[203, 0, 113, 9, 10, 0, 0, 1][..], &[0x12, 0x34, 0, 80]].concat();
        let client = "2001:db8::9"
            .parse::<std::net::Ipv6Addr>()
            .expect("an address");
        let v6 = [&client.octets()[..], &[0; 16], &[0x12, 0x34, 0, 80]].concat();
        let tlvs = [&[4, 0, 3, 0, 0, 0][..], &[0x20, 0, 5, 1, 0, 0, 0, 0]].concat();
        let most = vec![0; MAX_V2_REST - v4.len()];
        let unix = [b'/'; 216];
        let line = |text: &str| format!("PROXY {text}\r\n").into_bytes();
        let longest =
            "TCP6 ".to_owned() + &["ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"; 2].join(" ");
        for (header, wanted) in [
            (
                line("TCP4 203.0.113.9 10.0.0.1 4711 80"),
                Some("203.0.113.9"),
            ),
            (line("TCP4 0.0.0.1 0.0.0.1 0 0"), Some("0.0.0.1")),
            (line("TCP6 2001:db8::9 ::1 4711 80"), Some("2001:db8::9")),
            (
                line(&(longest + " 65535 65535")),
                Some("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ),
            (line("UNKNOWN"), None),
            (line("UNKNOWN ffff::ffff ffff::ffff 65535 65535"), None),
            (v2(0x21, 0x11, &v4), Some("203.0.113.9")),
            (v2(0x21, 0x21, &v6), Some("2001:db8::9")),
            (
                v2(0x21, 0x11, &[&v4[..], &tlvs].concat()),
                Some("203.0.113.9"),
            ),
            (
                v2(0x21, 0x21, &[&v6[..], &tlvs].concat()),
                Some("2001:db8::9"),
            ),
            (
                v2(0x21, 0x11, &[&v4[..], &most].concat()),
                Some("203.0.113.9"),
            ),
            // Of the proxy's own, whatever else it says.
            (v2(0x20, 0, &[]), None),
            (v2(0x20, 0x11, &v4), None),
            (v2(0x20, 0x11, &[]), None),
            (v2(0x20, 0xff, &tlvs), None),
            // Not told.
            (v2(0x21, 0, &[]), None),
            (v2(0x21, 0x31, &unix), None),
        ] {
            for step in [1, 7, 1 << 16] {
                let (result, rest) = read_in(step, &header).await;
                let name = String::from_utf8_lossy(&header);
                let found = result.unwrap_or_else(|error| panic!("{name:?}: {error}"));
                assert_eq!(
                    found,
                    wanted.map(|text| text.parse().expect("an address")),
                    "{name:?}"
                );
                assert_eq!(rest, AFTER, "{name:?}: what follows is not touched");
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_header() {
        let line = |text: &str| format!("PROXY {text}\r\n").into_bytes();
        let long = "9".repeat(MAX_V1_LENGTH);
        for (header, wanted) in [
            (Vec::new(), "Absent"),
            (b"proxy tcp4 1.2.3.4 1.2.3.4 1 1\r\n".to_vec(), "Absent"),
            (b"PROXY\tTCP4 1.2.3.4 1.2.3.4 1 1\r\n".to_vec(), "Absent"),
            (line(&format!("UNKNOWN {long}")), "TooLong"),
            (line(&format!("TCP4 {long}")), "TooLong"),
            (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\n".to_vec(), "Damaged"),
            (line("TCP4 1.2.3.4 1.2.3.4 1"), "Damaged"),
            (line("TCP4 1.2.3.4 1.2.3.4 1 1 1"), "Damaged"),
            (line("TCP4 1.2.3.400 1.2.3.4 1 1"), "Damaged"),
            (line("TCP4 ::1 ::1 1 1"), "Damaged"),
            (line("TCP4  1.2.3.4 1.2.3.4 1 1"), "Damaged"),
            (line("TCP4 1.2.3.4 1.2.3.4 1 65536"), "Damaged"),
            (line("UDP4 1.2.3.4 1.2.3.4 1 1"), "Damaged"),
            (v2(0x11, 0x11, &[0; 12]), "Damaged"),
            (v2(0x22, 0x11, &[0; 12]), "Damaged"),
            (v2(0x21, 0x41, &[0; 12]), "Damaged"),
            (v2(0x21, 0x11, &[0; 11]), "Damaged"),
            (v2(0x21, 0x21, &[0; 12]), "Damaged"),
            (v2(0x21, 0x11, &[0; MAX_V2_REST + 1]), "TooLong"),
        ] {
            for step in [1, 1 << 16] {
                let (result, _) = read_in(step, &header).await;
                let name = String::from_utf8_lossy(&header);
                let error = result.expect_err(&name);
                assert_eq!(format!("{error:?}"), wanted, "{name:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_connection_that_ends_within_its_header() {
        for mut bytes in [
            &b""[..],
            b"PROXY TCP4",
            b"PROXY TCP4 1.2.3.4",
            &v2(0x21, 0x11, &[0; 12])[..20],
        ] {
            assert!(matches!(read(&mut bytes).await, Err(HeaderError::Ended(_))));
        }
    }
}

//! Plain HTTP that comes to a listener for HTTPS, mostly by an address that lacks its `s`: it gets a
//! sentence that can be read, where a TLS alert would be noise.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::socket::Socket;

/// How long to wait for the client to read the response and close.
const MAX_LINGER: Duration = Duration::from_secs(1);
/// Limit for the bytes of the request that are read and dropped meanwhile.
const MAX_LINGER_BYTES: u64 = 64 << 10;

const SENTENCE: &str = "This port speaks HTTPS: use https:// in the URL.\n";

/// Waits for the first byte, leaves it in its place, and says whether HTTP begins with it: a method
/// (RFC 9110 section 9.1), or empty lines before one. A TLS record begins with its type, 22 for a
/// handshake (RFC 8446 section 5.1).
///
/// # Errors
/// When the connection has failed.
pub(super) async fn is_plain_http(socket: &Socket) -> io::Result<bool> {
    let mut first = [0];
    let read = socket.peek(&mut first).await?;
    Ok(read == 1 && matches!(first[0], b'A'..=b'Z' | b'a'..=b'z' | b'\r' | b'\n'))
}

/// Answers 400, whatever was asked, and closes.
pub(super) async fn reject(mut socket: Socket) {
    let response = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {}\r\nCache-Control: private, no-store, max-age=0\r\n\
         X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n{SENTENCE}",
        SENTENCE.len()
    );
    let answered = async {
        socket.write_all(response.as_bytes()).await?;
        socket.shutdown().await?;
        // Closing a socket that has unread bytes resets the connection, and a reset can overtake the
        // response (RFC 9112 section 9.6).
        let mut rest = (&mut socket).take(MAX_LINGER_BYTES);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    // The client may have left already, or send for ever.
    let _ = timeout(MAX_LINGER, answered).await;
}

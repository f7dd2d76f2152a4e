//! HTTP/1.1 by hand: bytes out, strictly parsed responses in.
//!
//! The parser forgives nothing that RFC 9112 asks of a server: a bare LF, a space before a colon,
//! two lengths or no length at all are errors, so each test checks the framing too.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};

/// How long a client waits for the next bytes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// One final response.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub(crate) version: String,
    pub(crate) status: u16,
    /// Names and values as received, in order.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The connection ended before Content-Length bytes had come.
    pub(crate) cut: bool,
    /// The statuses of 1xx responses before this one.
    pub(crate) interim: Vec<u16>,
}

impl Response {
    /// The value of a field that occurs at most once.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let values: Vec<&str> = self
            .fields
            .iter()
            .filter(|(each, _)| each.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect();
        assert!(
            values.len() < 2,
            "{name} occurs {} times: {values:?}",
            values.len()
        );
        values.first().copied()
    }

    /// Whether a response that completed carries the bytes that its tag names.
    pub(crate) fn is_what_its_tag_says(&self) -> bool {
        self.field("ETag") == Some(super::tag(&self.body).as_str())
    }

    /// Whether the server says that it will close the connection.
    pub(crate) fn says_close(&self) -> bool {
        self.field("Connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// A connection that stays open between requests.
pub(crate) struct Client<S: Read + Write = TcpStream> {
    stream: BufReader<S>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap()
    }

    pub(crate) fn try_connect(address: SocketAddr) -> io::Result<Self> {
        TcpStream::connect(address).map(Self::over_tcp)
    }

    /// A client whose kernel takes in few bytes that it has not asked for.
    pub(crate) fn connect_narrow(address: SocketAddr) -> Self {
        Self::over_tcp(narrow(address))
    }

    fn over_tcp(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream: BufReader::new(stream),
        }
    }

    /// The socket, to change its time-outs.
    pub(crate) fn socket(&self) -> &TcpStream {
        self.stream.get_ref()
    }
}

impl Client<UnixStream> {
    pub(crate) fn connect_unix(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream: BufReader::new(stream),
        }
    }
}

impl<S: Read + Write> Client<S> {
    /// A client over any stream, such as one of TLS.
    pub(crate) fn over(stream: S) -> Self {
        Self {
            stream: BufReader::new(stream),
        }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes.as_ref())
    }

    /// Sends a request without body and waits for its response, which must come.
    pub(crate) fn request(
        &mut self,
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
    ) -> Response {
        self.send(head(method, target, fields)).unwrap();
        self.receive(method)
            .unwrap()
            .expect("a response, not the end of the connection")
    }

    pub(crate) fn get(&mut self, target: &str) -> Response {
        self.request("GET", target, &[])
    }

    /// The next response to a request with this method; none where the connection has ended.
    pub(crate) fn receive(&mut self, method: &str) -> io::Result<Option<Response>> {
        let Some(mut response) = self.receive_head()? else {
            return Ok(None);
        };
        let length = content_length(&response)?;
        if method == "HEAD" || matches!(response.status, 204 | 304) {
            return Ok(Some(response));
        }
        let length = length.ok_or_else(|| broken("no Content-Length"))?;
        let mut body = (&mut self.stream).take(length);
        if let Err(error) = body.read_to_end(&mut response.body)
            && !is_end(&error)
        {
            return Err(error);
        }
        response.cut = (response.body.len() as u64) < length;
        Ok(Some(response))
    }

    /// The head of the next final response; its body is still to be read.
    pub(crate) fn receive_head(&mut self) -> io::Result<Option<Response>> {
        let mut interim = Vec::new();
        loop {
            let Some(status_line) = self.line()? else {
                return Ok(None);
            };
            let mut response = status(&status_line)?;
            while let Some(line) = self.line()?
                && !line.is_empty()
            {
                response.fields.push(field(&line)?);
            }
            if response.status >= 200 {
                response.interim = interim;
                return Ok(Some(response));
            }
            interim.push(response.status);
        }
    }

    /// Reads at most this many bytes of a body.
    pub(crate) fn read_some(&mut self, most: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match (&mut self.stream).take(most as u64).read_to_end(&mut bytes) {
            Err(error) if !is_end(&error) => Err(error),
            _ => Ok(bytes),
        }
    }

    /// Waits for the end of the connection, and says whether it came with nothing before it.
    pub(crate) fn ends(&mut self) -> io::Result<bool> {
        match self.stream.fill_buf() {
            Ok(bytes) => Ok(bytes.is_empty()),
            Err(error) if is_end(&error) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// The next line without its CRLF; none where the connection ends before it.
    fn line(&mut self) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        match self.stream.read_until(b'\n', &mut line) {
            Ok(0) => return Ok(None),
            Err(error) if is_end(&error) && line.is_empty() => return Ok(None),
            result => result?,
        };
        let line = line
            .strip_suffix(b"\r\n")
            .ok_or_else(|| broken(&format!("a line without CRLF: {}", line.escape_ascii())))?;
        if line
            .iter()
            .any(|byte| matches!(byte, 0..=8 | 10..=31 | 127..))
        {
            return Err(broken(&format!(
                "a byte out of place: {}",
                line.escape_ascii()
            )));
        }
        Ok(Some(String::from_utf8_lossy(line).into_owned()))
    }
}

/// Sends these bytes on a connection of their own, and reads a response for each request head in
/// them, or as many as come before the connection ends.
pub(crate) fn exchange(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Vec<Response> {
    let mut client = Client::connect(address);
    // The server may close before it has taken everything in; what it answered can still be read.
    let _ = client.send(&bytes);
    let mut responses = Vec::new();
    for method in methods(bytes.as_ref()) {
        match client.receive(&method).unwrap() {
            Some(response) => responses.push(response),
            None => break,
        }
    }
    responses
}

/// A socket whose kernel takes in few bytes that nobody has read.
pub(crate) fn narrow(address: SocketAddr) -> TcpStream {
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    sockopt::set_socket_recv_buffer_size(&socket, 4096).unwrap();
    connect(&socket, &address).unwrap();
    TcpStream::from(socket)
}

/// The bytes of a request without a body, to `localhost`.
pub(crate) fn head(method: &str, target: &str, fields: &[(&str, &str)]) -> String {
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n");
    for (name, value) in fields {
        text += &format!("{name}: {value}\r\n");
    }
    text + "\r\n"
}

/// The methods of the requests in these bytes: what stands before the first space of each head.
fn methods(bytes: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(bytes)
        .split("\r\n\r\n")
        .filter_map(|head| head.trim_start().split_once(' '))
        .map(|(method, _)| method.to_owned())
        .collect()
}

fn status(line: &str) -> io::Result<Response> {
    let wrong = || broken(&format!("status line {line:?}"));
    let (version, rest) = line.split_once(' ').ok_or_else(wrong)?;
    let (code, _reason) = rest.split_once(' ').ok_or_else(wrong)?;
    if !matches!(version, "HTTP/1.1" | "HTTP/1.0") || code.len() != 3 {
        return Err(wrong());
    }
    Ok(Response {
        version: version.to_owned(),
        status: code.parse().map_err(|_| wrong())?,
        fields: Vec::new(),
        body: Vec::new(),
        cut: false,
        interim: Vec::new(),
    })
}

fn field(line: &str) -> io::Result<(String, String)> {
    let (name, value) = line
        .split_once(':')
        .ok_or_else(|| broken(&format!("field line {line:?}")))?;
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if name.is_empty() || !name.chars().all(is_token) {
        return Err(broken(&format!("field name {name:?}")));
    }
    Ok((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()))
}

/// The one Content-Length, which must be digits; anything else that frames a body is an error.
fn content_length(response: &Response) -> io::Result<Option<u64>> {
    if response.field("Transfer-Encoding").is_some() {
        return Err(broken("Transfer-Encoding, where each length is known"));
    }
    let Some(value) = response.field("Content-Length") else {
        return Ok(None);
    };
    if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(broken(&format!("Content-Length {value:?}")));
    }
    value
        .parse()
        .map(Some)
        .map_err(|_| broken("Content-Length"))
}

/// Whether a read failed because the other side is gone.
fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    )
}

fn broken(message: &str) -> io::Error {
    io::Error::new(
        ErrorKind::InvalidData,
        format!("the server broke the protocol: {message}"),
    )
}

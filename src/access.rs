//! The access log: one line for each request, on its way to standard output.
//!
//! A line is made where its response ends, and put into a queue; one thread of its own writes
//! what is queued. The queue holds so many bytes and no more: where the reader is slower than the
//! clients, lines are lost and counted, and no request waits.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Method, StatusCode, Version};
use httpdate::HttpDate;
use humantime::format_rfc3339_millis;
use serde::Serialize;
use serde_json::ser::Formatter;

use crate::client::{Peer, TrustedProxies};
use crate::manifest::SiteDigest;
use crate::metrics::{Door, Metrics, Outcome};
use crate::semantics::coding::Coding;
use crate::semantics::head::FieldLines;

/// Limit for the lines that wait to be written, in bytes.
const MAX_QUEUED_BYTES: usize = 4 << 20;
/// What a line in the queue costs in addition to its bytes.
const LINE_OVERHEAD: usize = 64;
/// About how many bytes are written at once.
const BATCH_SIZE: usize = 64 << 10;
/// Pause after the queue was empty: lines gather meanwhile, and senders need not wake the writer.
const WRITE_PAUSE: Duration = Duration::from_millis(5);
/// Hexadecimal digits of the site digest that a line has.
const SHOWN_DIGEST_DIGITS: usize = 16;

/// A request and its response, as the access log reports them.
#[derive(Debug)]
pub struct AccessEntry<'a> {
    /// When the request's head had been received.
    pub time: SystemTime,
    /// The client, as far as trusted proxies name it.
    pub client: Peer,
    /// The request method.
    pub method: &'a Method,
    /// The request target.
    pub target: &'a str,
    /// The host that the request names, without its port.
    pub host: Option<&'a str>,
    /// The id that a trusted proxy gave the request.
    pub request_id: Option<&'a str>,
    /// The HTTP version.
    pub version: Version,
    /// What read the request.
    pub door: Door,
    /// The answer; `None` where the client was gone before there was one.
    pub status: Option<StatusCode>,
    /// Bytes of the body that were handed to the connection.
    pub bytes: u64,
    /// Whether that is less than was announced.
    pub is_cut: bool,
    /// From the request's head to the end of the body.
    pub elapsed: Duration,
    /// The `ETag` that was sent.
    pub tag: Option<&'a HeaderValue>,
    /// What became of the request's validators.
    pub outcome: Outcome,
    /// The coding of the selected representation.
    pub coding: Option<Coding>,
    /// The site that was asked; `None` where the answer does not depend on it.
    pub digest: Option<SiteDigest>,
    /// The request's `Referer`.
    pub referer: Option<&'a HeaderValue>,
    /// The request's `User-Agent`.
    pub user_agent: Option<&'a HeaderValue>,
}

/// Writes an entry as a line, its end included: [`combined`] or [`json`].
pub type LineFormat = fn(&AccessEntry<'_>, &mut Vec<u8>) -> io::Result<()>;

/// Apache's combined format, in UTC. What is not printable ASCII, a quote or a backslash is
/// escaped as Apache does, so that no client can end a field or a line.
///
/// # Errors
/// None: a vector takes everything.
pub fn combined(entry: &AccessEntry<'_>, line: &mut Vec<u8>) -> io::Result<()> {
    write!(line, "{} - - [{}] \"", entry.client, LogTime(entry.time))?;
    write!(line, "{} ", entry.method)?;
    escape(entry.target.as_bytes(), line)?;
    write!(line, " {:?}\" ", entry.version)?;
    match entry.status {
        Some(status) => write!(line, "{} ", status.as_u16())?,
        None => line.extend_from_slice(b"- "),
    }
    match entry.bytes {
        0 => line.push(b'-'),
        bytes => write!(line, "{bytes}")?,
    }
    for field in [entry.referer, entry.user_agent] {
        line.extend_from_slice(b" \"");
        escape(field.map_or(b"-", HeaderValue::as_bytes), line)?;
        line.push(b'"');
    }
    line.push(b'\n');
    Ok(())
}

/// `10/Oct/2000:13:55:36 +0000`.
struct LogTime(SystemTime);

impl fmt::Display for LogTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Tue, 10 Oct 2000 13:55:36 GMT
        let date = HttpDate::from(self.0).to_string();
        let mut parts = date.split(' ').skip(1);
        let mut next = || parts.next().unwrap_or_default();
        write!(f, "{}/{}/{}:{} +0000", next(), next(), next(), next())
    }
}

/// Writes bytes as printable ASCII, so that they can end no line and command no terminal.
///
/// # Errors
/// None: a vector takes everything.
pub fn escape(bytes: &[u8], line: &mut Vec<u8>) -> io::Result<()> {
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => line.extend_from_slice(&[b'\\', byte]),
            b' '..=b'~' => line.push(byte),
            0x08 => line.extend_from_slice(b"\\b"),
            b'\t' => line.extend_from_slice(b"\\t"),
            b'\n' => line.extend_from_slice(b"\\n"),
            0x0b => line.extend_from_slice(b"\\v"),
            b'\r' => line.extend_from_slice(b"\\r"),
            _ => write!(line, "\\x{byte:02x}")?,
        }
    }
    Ok(())
}

/// One JSON object, in ASCII.
///
/// # Errors
/// None: a vector takes everything.
pub fn json(entry: &AccessEntry<'_>, line: &mut Vec<u8>) -> io::Result<()> {
    #[derive(Serialize)]
    struct Line<'a> {
        time: String,
        /// As in messages with `--log-format json`: one query reads both.
        level: &'static str,
        client: Option<IpAddr>,
        method: &'a str,
        target: &'a str,
        status: Option<u16>,
        bytes: u64,
        cut: bool,
        microseconds: u64,
        tag: Option<&'a str>,
        validator: &'a str,
        coding: Option<&'a str>,
        digest: Option<&'a str>,
        referer: Option<Cow<'a, str>>,
        user_agent: Option<Cow<'a, str>>,
        protocol: String,
        host: Option<&'a str>,
        request_id: Option<&'a str>,
        door: &'a str,
    }
    let tag = entry.tag.and_then(|tag| tag.to_str().ok());
    let digest = entry.digest.map(|digest| digest.hash().to_hex());
    let line_of = Line {
        time: format_rfc3339_millis(entry.time).to_string(),
        level: "INFO",
        client: match entry.client {
            Peer::Address(address) => Some(address),
            Peer::Unix => None,
        },
        method: entry.method.as_str(),
        target: entry.target,
        status: entry.status.map(|status| status.as_u16()),
        bytes: entry.bytes,
        cut: entry.is_cut,
        microseconds: u64::try_from(entry.elapsed.as_micros()).unwrap_or(u64::MAX),
        tag: tag.map(|tag| tag.trim_matches('"')),
        validator: entry.outcome.name(),
        coding: entry.coding.map(Coding::token),
        digest: digest
            .as_ref()
            .and_then(|digest| digest.get(..SHOWN_DIGEST_DIGITS)),
        referer: entry.referer.map(lossy),
        user_agent: entry.user_agent.map(lossy),
        protocol: format!("{:?}", entry.version),
        host: entry.host,
        request_id: entry.request_id,
        door: entry.door.name(),
    };
    line_of.serialize(&mut serde_json::Serializer::with_formatter(
        &mut *line, Ascii,
    ))?;
    line.push(b'\n');
    Ok(())
}

fn lossy(field: &HeaderValue) -> Cow<'_, str> {
    String::from_utf8_lossy(field.as_bytes())
}

/// JSON whose strings have no character that anything could take for the end of a line or for a
/// terminal's command: serde_json itself escapes those below U+0020 alone.
struct Ascii;

impl Formatter for Ascii {
    fn write_string_fragment<W>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + Write,
    {
        if fragment.bytes().all(is_printable) {
            return writer.write_all(fragment.as_bytes());
        }
        for unit in fragment.encode_utf16() {
            match u8::try_from(unit) {
                Ok(byte) if is_printable(byte) => writer.write_all(&[byte])?,
                _ => write!(writer, "\\u{unit:04x}")?,
            }
        }
        Ok(())
    }
}

fn is_printable(byte: u8) -> bool {
    matches!(byte, b' '..=b'~')
}

/// The running access log.
#[derive(Debug)]
pub struct AccessLog {
    format: LineFormat,
    trusted: TrustedProxies,
    queue: Sender<LogMessage>,
    queued: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
enum LogMessage {
    Line(Vec<u8>),
    /// Say when all before this is written.
    Finish(SyncSender<()>),
}

impl AccessLog {
    /// Starts to write lines of this format to `out`. `trusted` proxies are believed about the
    /// client.
    ///
    /// # Errors
    /// When the system has no more threads.
    pub fn start(
        format: LineFormat,
        trusted: TrustedProxies,
        out: impl Write + Send + 'static,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let (queue, messages) = channel();
        let queued = Arc::<AtomicUsize>::default();
        let mut writer = LogWriter {
            out,
            queued: Arc::clone(&queued),
            metrics: Arc::clone(&metrics),
            is_torn: false,
            is_failing: false,
        };
        thread::Builder::new()
            .name("access log".to_owned())
            .spawn(move || writer.run(&messages))?;
        Ok(Self {
            format,
            trusted,
            queue,
            queued,
            metrics,
        })
    }

    /// The client of a request that came from `peer` with these fields.
    pub fn client(&self, peer: Peer, fields: &impl FieldLines) -> Peer {
        self.trusted.client(peer, fields)
    }

    /// The id that a trusted proxy has given a request that came from `peer` with these fields.
    pub fn request_id<'f>(&self, peer: Peer, fields: &'f impl FieldLines) -> Option<&'f str> {
        self.trusted.request_id(peer, fields)
    }

    /// Queues a line, or loses and counts it. Never waits.
    pub fn write(&self, entry: &AccessEntry<'_>) {
        let mut line = Vec::with_capacity(512);
        let made = (self.format)(entry, &mut line);
        let size = line.capacity() + LINE_OVERHEAD;
        let queued = self.queued.fetch_add(size, Ordering::Relaxed) + size;
        let is_lost = made.is_err()
            || queued > MAX_QUEUED_BYTES
            || self.queue.send(LogMessage::Line(line)).is_err();
        if is_lost {
            self.queued.fetch_sub(size, Ordering::Relaxed);
            self.metrics.lost_lines.increment();
        }
    }

    /// Waits until all that is queued is written, for `patience` at most, and reports what is missing.
    pub fn finish(&self, patience: Duration) {
        let (done, finished) = sync_channel(1);
        let is_sent = self.queue.send(LogMessage::Finish(done)).is_ok();
        if !is_sent || finished.recv_timeout(patience).is_err() {
            let bytes = self.queued.load(Ordering::Relaxed);
            tracing::warn!(
                bytes,
                "the end of the access log is missing: standard output is blocked"
            );
        }
        match self.metrics.lost_lines.get() {
            0 => {}
            1 => tracing::warn!(lost = 1, "1 line of the access log was lost"),
            lost => tracing::warn!(lost, "{lost} lines of the access log were lost"),
        }
    }
}

/// The thread that writes.
struct LogWriter<W> {
    out: W,
    queued: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
    /// The last thing written was a part of a line.
    is_torn: bool,
    /// Nothing could be written, and the operator knows it.
    is_failing: bool,
}

impl<W: Write> LogWriter<W> {
    /// Writes until every sender is gone.
    fn run(&mut self, messages: &Receiver<LogMessage>) {
        let mut batch = Vec::new();
        while let Ok(first) = messages.recv() {
            let mut finished = None;
            for message in std::iter::once(first).chain(messages.try_iter()) {
                match message {
                    LogMessage::Line(line) => {
                        let size = line.capacity() + LINE_OVERHEAD;
                        self.queued.fetch_sub(size, Ordering::Relaxed);
                        batch.extend_from_slice(&line);
                    }
                    LogMessage::Finish(done) => finished = Some(done),
                }
                if batch.len() >= BATCH_SIZE || finished.is_some() {
                    break;
                }
            }
            let is_drained = batch.len() < BATCH_SIZE;
            self.write(&batch);
            batch.clear();
            match finished {
                // It may have stopped waiting: then nothing receives this.
                Some(done) => drop(done.try_send(())),
                None if is_drained => thread::sleep(WRITE_PAUSE),
                None => {}
            }
        }
    }

    /// Writes these lines; those that can't be are lost and counted.
    fn write(&mut self, lines: &[u8]) {
        let mut rest = lines;
        match self.try_write(&mut rest) {
            Ok(()) => self.is_failing = false,
            Err(error) => {
                let lost = rest.iter().filter(|byte| **byte == b'\n').count();
                self.metrics.lost_lines.add(lost as u64);
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::warn!(
                        %error,
                        "cannot write the access log to standard output: {error}; lines are lost"
                    );
                }
            }
        }
    }

    fn try_write(&mut self, rest: &mut &[u8]) -> io::Result<()> {
        if self.is_torn && !rest.is_empty() {
            // What is left of a line must not become the beginning of the next.
            self.write_some(b"\n")?;
        }
        while !rest.is_empty() {
            let written = self.write_some(rest)?;
            *rest = rest.get(written..).unwrap_or_default();
        }
        self.out.flush()
    }

    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.out.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    let last = written.checked_sub(1).and_then(|last| bytes.get(last));
                    self.is_torn = last != Some(&b'\n');
                    return Ok(written);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Another process made this pipe non-blocking (O_NONBLOCK is shared, fcntl(2)).
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    thread::sleep(WRITE_PAUSE)
                }
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::sync_channel;

    use super::*;
    use crate::manifest::Manifest;
    use crate::settings::Settings;

    const HOSTILE: &[u8] = b"\"-\" x\\\" \t\x80\xe2\x80\xa8\xc2\x85\xc2\x9b[31m<\xf0\x9f\x98\x80>";

    fn entry<'a>(method: &'a Method, field: Option<&'a HeaderValue>) -> AccessEntry<'a> {
        AccessEntry {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(971_186_136_042),
            client: "203.0.113.9".parse::<IpAddr>().expect("an address").into(),
            method,
            target: "/a\"b\\c?d",
            host: None,
            request_id: None,
            version: Version::HTTP_11,
            door: Door::Http1,
            status: Some(StatusCode::OK),
            bytes: 2326,
            is_cut: false,
            elapsed: Duration::from_nanos(1_234_567),
            tag: None,
            outcome: Outcome::Miss,
            coding: Some(Coding::Gzip),
            digest: Some(Manifest::empty(Settings::default()).digest()),
            referer: None,
            user_agent: field,
        }
    }

    fn line(format: LineFormat, entry: &AccessEntry<'_>) -> String {
        let mut line = Vec::new();
        format(entry, &mut line).expect("a vector");
        String::from_utf8(line).expect("ASCII")
    }

    #[test]
    fn combined_lines() {
        let agent = HeaderValue::from_static("Mozilla/4.08 [en] (Win98; I ;Nav)");
        let mut entry = entry(&Method::GET, Some(&agent));
        assert_eq!(
            line(combined, &entry),
            "203.0.113.9 - - [10/Oct/2000:13:55:36 +0000] \"GET /a\\\"b\\\\c?d HTTP/1.1\" 200 2326 \
             \"-\" \"Mozilla/4.08 [en] (Win98; I ;Nav)\"\n"
        );
        entry.client = Peer::Unix;
        (entry.status, entry.bytes, entry.version) = (None, 0, Version::HTTP_2);
        let empty = HeaderValue::from_static("");
        (entry.referer, entry.user_agent) = (Some(&empty), None);
        assert_eq!(
            line(combined, &entry),
            "- - - [10/Oct/2000:13:55:36 +0000] \"GET /a\\\"b\\\\c?d HTTP/2.0\" - - \"\" \"-\"\n"
        );
    }

    #[test]
    fn json_lines() {
        let tag = HeaderValue::from_static("\"0123\"");
        let mut entry = entry(&Method::HEAD, None);
        entry.tag = Some(&tag);
        (entry.host, entry.request_id) = (Some("example.org"), Some("5b8a\"-1"));
        let digest = entry.digest.expect("a site").to_string();
        let expected = format!(
            "{{\"time\":\"2000-10-10T13:55:36.042Z\",\"level\":\"INFO\",\"client\":\"203.0.113.9\",\"method\":\"HEAD\",\
             \"target\":\"/a\\\"b\\\\c?d\",\"status\":200,\"bytes\":2326,\"cut\":false,\
             \"microseconds\":1234,\"tag\":\"0123\",\"validator\":\"miss\",\"coding\":\"gzip\",\
             \"digest\":\"{}\",\"referer\":null,\"user_agent\":null,\"protocol\":\"HTTP/1.1\",\
             \"host\":\"example.org\",\"request_id\":\"5b8a\\\"-1\",\"door\":\"http1\"}}\n",
            &digest[..16]
        );
        assert_eq!(line(json, &entry), expected);
    }

    #[test]
    fn what_a_client_sends_ends_no_field_and_no_line() {
        // The bytes that no field value can hold are tried too: lines are safe by themselves.
        let mut bytes = Vec::new();
        escape(&[b"\r\n\x08\x0b\0\x1b\x7f", HOSTILE].concat(), &mut bytes).expect("a vector");
        assert_eq!(
            String::from_utf8(bytes).expect("ASCII"),
            "\\r\\n\\b\\v\\x00\\x1b\\x7f\\\"-\\\" x\\\\\\\" \\t\\x80\\xe2\\x80\\xa8\\xc2\\x85\\xc2\\x9b\
             [31m<\\xf0\\x9f\\x98\\x80>"
        );
        let value = HeaderValue::from_bytes(HOSTILE).expect("a field value");
        let mut entry = entry(&Method::GET, Some(&value));
        entry.target = "/\u{2028}\u{7f}\n\u{1f600}";
        for format in [combined as LineFormat, json] {
            let line = line(format, &entry);
            let inside = line.strip_suffix('\n').expect("a line");
            assert!(
                inside.bytes().all(|byte| matches!(byte, b' '..=b'~')),
                "{inside}"
            );
        }
        let read: serde_json::Value = serde_json::from_str(&line(json, &entry)).expect("JSON");
        assert_eq!(
            read["user_agent"],
            String::from_utf8_lossy(HOSTILE).as_ref()
        );
        assert_eq!(read["target"], entry.target);
    }

    #[derive(Clone, Default)]
    struct Out(Arc<Mutex<Paper>>);

    #[derive(Default)]
    struct Paper {
        written: Vec<u8>,
        /// What the next writes come to, from the last to the first; after these all is well.
        ends: Vec<io::Result<usize>>,
    }

    impl Write for Out {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut paper = self.0.lock().expect("no panic");
            let most = paper.ends.pop().unwrap_or(Ok(bytes.len()))?;
            let length = bytes.len().min(most);
            paper.written.extend_from_slice(&bytes[..length]);
            Ok(length)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn start(out: impl Write + Send + 'static) -> (AccessLog, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::default());
        let trusted = TrustedProxies::default();
        let log = AccessLog::start(combined, trusted, out, Arc::clone(&metrics));
        (log.expect("a thread"), metrics)
    }

    #[test]
    fn a_line_that_is_torn_spoils_no_other() {
        let out = Out::default();
        let errors = [
            io::ErrorKind::Interrupted,
            io::ErrorKind::WouldBlock,
            io::ErrorKind::BrokenPipe,
        ];
        let [interrupted, would_block, broken] = errors.map(|kind| Err(kind.into()));
        out.0.lock().expect("no panic").ends = vec![broken, Ok(10), would_block, interrupted];
        let (log, metrics) = start(out.clone());
        let entry = entry(&Method::GET, None);
        let whole = line(combined, &entry);
        for lost in [1, 1] {
            log.write(&entry);
            log.finish(Duration::from_secs(10));
            assert_eq!(metrics.lost_lines.get(), lost);
        }
        let written = out.0.lock().expect("no panic").written.clone();
        let written = String::from_utf8(written).expect("ASCII");
        assert_eq!(written, format!("{}\n{whole}", &whole[..10]));
    }

    #[test]
    fn a_full_queue_loses_lines_and_counts_them() {
        /// Takes nothing until it is told to, or nobody can tell it any more.
        struct Blocked(Receiver<()>, Out);

        impl Write for Blocked {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let _ = self.0.recv();
                self.1.write(bytes)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }

        let (release, blocked) = sync_channel(0);
        let out = Out::default();
        let (log, metrics) = start(Blocked(blocked, out.clone()));
        let entry = entry(&Method::GET, None);
        let written = 20_000;
        for _ in 0..written {
            log.write(&entry);
        }
        let lost = metrics.lost_lines.get();
        assert!(lost > 0 && lost < written, "{lost}");
        let started = std::time::Instant::now();
        log.finish(Duration::from_millis(1));
        assert!(
            started.elapsed() < Duration::from_secs(5),
            "the end does not wait for ever"
        );
        drop(release);
        log.finish(Duration::from_secs(10));
        let lines = out.0.lock().expect("no panic").written.clone();
        let lines = lines.iter().filter(|byte| **byte == b'\n').count() as u64;
        assert_eq!(lines + metrics.lost_lines.get(), written);
        assert_eq!(log.queued.load(Ordering::Relaxed), 0);
    }
}

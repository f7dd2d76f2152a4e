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

use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use httpdate::HttpDate;
use humantime::format_rfc3339_millis;
use serde::Serialize;
use serde_json::ser::Formatter;

use crate::client::{Peer, TrustedProxies};
use crate::manifest::SiteDigest;
use crate::metrics::{Metrics, Outcome};
use crate::semantics::coding::Coding;

/// What may wait to be written, in bytes.
const MOST_QUEUED: usize = 4 << 20;
/// What a line in the queue costs beside itself.
const OVERHEAD: usize = 64;
/// What is written at once, about.
const BATCH: usize = 64 << 10;
/// After the queue was empty: lines gather meanwhile, and their senders need wake nobody.
const PAUSE: Duration = Duration::from_millis(5);
/// Hexadecimal digits of the site digest that a line has.
const DIGEST: usize = 16;

/// What there is to tell about a request and its response.
#[derive(Debug)]
pub struct Entry<'a> {
    /// When the request's head had been received.
    pub time: SystemTime,
    /// Who asked.
    pub client: Peer,
    /// How.
    pub method: &'a Method,
    /// For what: the request target.
    pub target: &'a str,
    /// In which version of HTTP.
    pub version: Version,
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

/// What makes a line of an entry, its end included: [`combined`] or [`json`].
pub type Form = fn(&Entry<'_>, &mut Vec<u8>) -> io::Result<()>;

/// Apache's combined format, in UTC. What is not printable ASCII, a quote or a backslash is
/// escaped as Apache does, so that no client can end a field or a line.
///
/// # Errors
/// None: a vector takes everything.
pub fn combined(entry: &Entry<'_>, line: &mut Vec<u8>) -> io::Result<()> {
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
pub fn json(entry: &Entry<'_>, line: &mut Vec<u8>) -> io::Result<()> {
    #[derive(Serialize)]
    struct Line<'a> {
        time: String,
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
    }
    let tag = entry.tag.and_then(|tag| tag.to_str().ok());
    let digest = entry.digest.map(|digest| digest.hash().to_hex());
    let line_of = Line {
        time: format_rfc3339_millis(entry.time).to_string(),
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
        digest: digest.as_ref().and_then(|digest| digest.get(..DIGEST)),
        referer: entry.referer.map(lossy),
        user_agent: entry.user_agent.map(lossy),
        protocol: format!("{:?}", entry.version),
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
        let is_plain = |byte: u8| matches!(byte, b' '..=b'~');
        if fragment.bytes().all(is_plain) {
            return writer.write_all(fragment.as_bytes());
        }
        for unit in fragment.encode_utf16() {
            match u8::try_from(unit) {
                Ok(byte) if is_plain(byte) => writer.write_all(&[byte])?,
                _ => write!(writer, "\\u{unit:04x}")?,
            }
        }
        Ok(())
    }
}

/// The running access log.
#[derive(Debug)]
pub struct AccessLog {
    form: Form,
    trusted: TrustedProxies,
    queue: Sender<Message>,
    queued: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    /// Say when all before this is written.
    Finish(SyncSender<()>),
}

impl AccessLog {
    /// Starts to write lines of this form to `out`. `trusted` proxies are believed about the
    /// client.
    ///
    /// # Errors
    /// When the system has no more threads.
    pub fn start(
        form: Form,
        trusted: TrustedProxies,
        out: impl Write + Send + 'static,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let (queue, messages) = channel();
        let queued = Arc::<AtomicUsize>::default();
        let mut writer = Writer {
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
            form,
            trusted,
            queue,
            queued,
            metrics,
        })
    }

    /// The client of a request that came from `peer` with these fields.
    pub fn client(&self, peer: Peer, fields: &HeaderMap) -> Peer {
        self.trusted.client(peer, fields)
    }

    /// Queues a line, or loses and counts it. Never waits.
    pub fn write(&self, entry: &Entry<'_>) {
        let mut line = Vec::with_capacity(512);
        let made = (self.form)(entry, &mut line);
        let size = line.capacity() + OVERHEAD;
        let queued = self.queued.fetch_add(size, Ordering::Relaxed) + size;
        let is_lost =
            made.is_err() || queued > MOST_QUEUED || self.queue.send(Message::Line(line)).is_err();
        if is_lost {
            self.queued.fetch_sub(size, Ordering::Relaxed);
            self.metrics.lost_lines.increment();
        }
    }

    /// Waits until all that is queued is written, `patience` at most, and tells the operator
    /// what is missing.
    pub fn finish(&self, patience: Duration) {
        let (done, finished) = sync_channel(1);
        let is_sent = self.queue.send(Message::Finish(done)).is_ok();
        if !is_sent || finished.recv_timeout(patience).is_err() {
            tracing::warn!("the end of the access log is missing: standard output takes nothing");
        }
        match self.metrics.lost_lines.get() {
            0 => {}
            lost => tracing::warn!("{lost} lines of the access log were lost"),
        }
    }
}

/// The thread that writes.
struct Writer<W> {
    out: W,
    queued: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
    /// The last thing written was a part of a line.
    is_torn: bool,
    /// Nothing could be written, and the operator knows it.
    is_failing: bool,
}

impl<W: Write> Writer<W> {
    /// Works until nobody can send any more.
    fn run(&mut self, messages: &Receiver<Message>) {
        let mut batch = Vec::new();
        while let Ok(first) = messages.recv() {
            let mut finished = None;
            for message in std::iter::once(first).chain(messages.try_iter()) {
                match message {
                    Message::Line(line) => {
                        let size = line.capacity() + OVERHEAD;
                        self.queued.fetch_sub(size, Ordering::Relaxed);
                        batch.extend_from_slice(&line);
                    }
                    Message::Finish(done) => finished = Some(done),
                }
                if batch.len() >= BATCH || finished.is_some() {
                    break;
                }
            }
            let is_all = batch.len() < BATCH;
            self.write(&batch);
            batch.clear();
            match finished {
                // Who does not wait any more need not be told.
                Some(done) => drop(done.try_send(())),
                None if is_all => thread::sleep(PAUSE),
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
                // Whoever gave us this pipe shares it, and does not want to wait.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(PAUSE),
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
    use crate::config::Settings;
    use crate::manifest::Manifest;

    const HOSTILE: &[u8] = b"\"-\" x\\\" \t\x80\xe2\x80\xa8\xc2\x85\xc2\x9b[31m<\xf0\x9f\x98\x80>";

    fn entry<'a>(method: &'a Method, field: Option<&'a HeaderValue>) -> Entry<'a> {
        Entry {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(971_186_136_042),
            client: "203.0.113.9".parse::<IpAddr>().expect("an address").into(),
            method,
            target: "/a\"b\\c?d",
            version: Version::HTTP_11,
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

    fn line(form: Form, entry: &Entry<'_>) -> String {
        let mut line = Vec::new();
        form(entry, &mut line).expect("a vector");
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
        let digest = entry.digest.expect("a site").to_string();
        let expected = format!(
            "{{\"time\":\"2000-10-10T13:55:36.042Z\",\"client\":\"203.0.113.9\",\"method\":\"HEAD\",\
             \"target\":\"/a\\\"b\\\\c?d\",\"status\":200,\"bytes\":2326,\"cut\":false,\
             \"microseconds\":1234,\"tag\":\"0123\",\"validator\":\"miss\",\"coding\":\"gzip\",\
             \"digest\":\"{}\",\"referer\":null,\"user_agent\":null,\"protocol\":\"HTTP/1.1\"}}\n",
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
        for form in [combined as Form, json] {
            let line = line(form, &entry);
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

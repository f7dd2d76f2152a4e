//! A proxy between etagd and its store that does, where it is told to, what stores and networks do
//! to people: it lies, breaks off, is slow, or is not there. Signatures cover the Host field, so that
//! is passed on as it is.

use std::io::{self, BufReader, Read};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use super::message::Message;

/// What is asked of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Get,
    Head,
    List,
    /// A PUT that asks for the object not to exist (`If-None-Match: *`).
    Create,
    Put,
    Delete,
    Other,
}

/// What reads an object.
pub(crate) const GETS: &[Kind] = &[Kind::Get];
/// What asks for the length of one.
pub(crate) const HEADS: &[Kind] = &[Kind::Head];
/// What lists some.
pub(crate) const LISTS: &[Kind] = &[Kind::List];
/// What writes one, in either way.
pub(crate) const WRITES: &[Kind] = &[Kind::Create, Kind::Put];
/// What creates one.
pub(crate) const CREATES: &[Kind] = &[Kind::Create];
/// What deletes some.
pub(crate) const DELETES: &[Kind] = &[Kind::Delete];

/// One request, as it was asked and answered.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) kind: Kind,
    /// Of an object: what follows the bucket in the path. Of a listing: its prefix.
    pub(crate) key: String,
    /// What went to the client; 0 where nothing did.
    pub(crate) status: u16,
}

/// What happens to a request.
#[derive(Clone)]
pub(crate) enum Fault {
    /// One bit in the middle of the body is another.
    FlipBit,
    /// The connection ends in the middle of the body.
    CutBody,
    /// Half of the body, as if it were all.
    Shorten,
    /// Half of the body, and then nothing more comes.
    StallBody,
    /// Nothing comes at all.
    Stall,
    /// The connection ends without an answer, and the store has not heard of it.
    Close,
    /// The store does it, and the connection ends without an answer.
    LoseAnswer,
    /// This status with this code of S3's, and the store has not heard of it.
    Refuse(u16, &'static str),
    /// The store does it, and this is answered.
    Deny(u16, &'static str),
    /// 200 where the store says that the object exists.
    PretendCreated,
    /// A listing without what was written since then.
    ListWithout(SystemTime),
    /// It says that it has come and waits until it may go on, to the store.
    Hold(Gate),
    /// The store does it; then it says so, and waits until its answer may go on.
    HoldAnswer(Gate),
}

/// A place where requests wait for a test.
#[derive(Clone)]
pub(crate) struct Gate(Arc<GateState>);

struct GateState {
    arrived: Mutex<Sender<()>>,
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    /// A closed gate, and where it says that a request has come to it.
    pub(crate) fn new() -> (Self, Receiver<()>) {
        let (sender, arrivals) = channel();
        let state = GateState {
            arrived: Mutex::new(sender),
            is_open: Mutex::new(false),
            opened: Condvar::new(),
        };
        (Self(Arc::new(state)), arrivals)
    }

    pub(crate) fn open(&self) {
        *locked(&self.0.is_open) = true;
        self.0.opened.notify_all();
    }

    fn pass(&self) {
        // Nobody may listen any more.
        let _ = locked(&self.0.arrived).send(());
        let mut is_open = locked(&self.0.is_open);
        while !*is_open {
            is_open = self.0.opened.wait(is_open).unwrap();
        }
    }
}

/// When a fault strikes.
pub(crate) struct Rule {
    /// Of these kinds; of all, where there are none.
    kinds: &'static [Kind],
    part: &'static str,
    skip: AtomicU32,
    times: AtomicU32,
    fault: Fault,
}

impl Rule {
    /// Each time when something of these kinds is asked about a key that has this part.
    pub(crate) fn on(kinds: &'static [Kind], part: &'static str, fault: Fault) -> Self {
        Self {
            kinds,
            part,
            skip: AtomicU32::new(0),
            times: AtomicU32::new(u32::MAX),
            fault,
        }
    }

    /// Whatever is asked.
    pub(crate) fn always(fault: Fault) -> Self {
        Self::on(&[], "", fault)
    }

    /// Only after so many that it would strike.
    pub(crate) fn after(self, skip: u32) -> Self {
        Self {
            skip: AtomicU32::new(skip),
            ..self
        }
    }

    /// So often and no more.
    pub(crate) fn times(self, times: u32) -> Self {
        Self {
            times: AtomicU32::new(times),
            ..self
        }
    }

    /// Whether it strikes now. Called under the lock of all rules.
    fn strikes(&self, asked: &Asked) -> bool {
        let is_meant = (self.kinds.is_empty() || self.kinds.contains(&asked.kind))
            && asked.key.contains(self.part);
        let take = |count: &AtomicU32| {
            let left = count.load(Ordering::Relaxed);
            if left > 0 && left < u32::MAX {
                count.store(left - 1, Ordering::Relaxed);
            }
            left > 0
        };
        is_meant && !take(&self.skip) && take(&self.times)
    }
}

/// A running proxy. Dropping it ends its connections.
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    store: SocketAddr,
    rules: Mutex<Vec<Rule>>,
    asked: Mutex<Vec<Asked>>,
    /// Faults that have struck.
    struck: AtomicU32,
    /// Connections of clients.
    open: AtomicU32,
    /// Both ends of what is under way.
    streams: Mutex<Vec<TcpStream>>,
    is_away: AtomicBool,
}

impl Proxy {
    pub(crate) fn to(store: SocketAddr) -> Self {
        // An address of its own, so that nobody takes its port while it is away.
        static PROXIES: AtomicU32 = AtomicU32::new(0);
        let number = PROXIES.fetch_add(1, Ordering::Relaxed);
        let [_, high, middle, low] = (std::process::id() * 64 + number).to_be_bytes();
        let any = SocketAddr::from(([127, high | 64, middle, low], 0));
        let listener = TcpListener::bind(any).unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            shared: Arc::new(Shared {
                store,
                rules: Mutex::default(),
                asked: Mutex::default(),
                struck: AtomicU32::new(0),
                open: AtomicU32::new(0),
                streams: Mutex::default(),
                is_away: AtomicBool::new(false),
            }),
        };
        proxy.listen(listener);
        proxy
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Has a rule hold from now on, before those that were there.
    pub(crate) fn add(&self, rule: Rule) {
        locked(&self.shared.rules).insert(0, rule);
    }

    /// Passes everything on again. What waits at a gate goes on waiting.
    pub(crate) fn clear(&self) {
        locked(&self.shared.rules).clear();
    }

    /// Number of requests that a fault has struck.
    pub(crate) fn struck(&self) -> u32 {
        self.shared.struck.load(Ordering::SeqCst)
    }

    /// Waits until all clients have gone, and the store has answered everything that they have asked, also
    /// what nobody waits for any more: a process that was killed may have sent more than was read of it.
    pub(crate) fn wait_until_left(&self) {
        // Connections are taken in order, so those that come before this one have been.
        let mut last = TcpStream::connect(self.address).unwrap();
        last.shutdown(Shutdown::Write).unwrap();
        assert_eq!(last.read(&mut [0]).unwrap(), 0);
        super::tree::eventually("no client is left", || {
            self.shared.open.load(Ordering::SeqCst) == 0
        });
    }

    /// All requests so far, in the order in which they came.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        locked(&self.shared.asked).clone()
    }

    /// Number of requests of these kinds whose key has this part.
    pub(crate) fn count(&self, kinds: &[Kind], part: &str) -> usize {
        let asked = locked(&self.shared.asked);
        asked
            .iter()
            .filter(|asked| kinds.contains(&asked.kind) && asked.key.contains(part))
            .count()
    }

    /// Refuses connections from now on, and ends those that there are.
    pub(crate) fn go_away(&self) {
        self.shared.is_away.store(true, Ordering::SeqCst);
        // Wakes who waits for connections, and that one closes the socket.
        while TcpStream::connect(self.address).is_ok() {
            thread::sleep(Duration::from_millis(1));
        }
        self.shared.end_connections();
    }

    /// Takes connections again.
    pub(crate) fn come_back(&self) {
        self.shared.is_away.store(false, Ordering::SeqCst);
        self.listen(TcpListener::bind(self.address).unwrap());
    }

    fn listen(&self, listener: TcpListener) {
        let shared = Arc::clone(&self.shared);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if shared.is_away.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&shared);
                shared.open.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || {
                    // A client that goes away, or a store, is no failure of the test.
                    shared.serve(stream).ok();
                    shared.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.go_away();
    }
}

impl Shared {
    fn end_connections(&self) {
        for stream in locked(&self.streams).drain(..) {
            // It may have ended already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn keep(&self, stream: &TcpStream) -> io::Result<()> {
        let mut streams = locked(&self.streams);
        // Those that have ended have no other side.
        streams.retain(|stream| stream.peer_addr().is_ok());
        streams.push(stream.try_clone()?);
        Ok(())
    }

    /// Serves one connection to its end.
    fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        self.keep(&client)?;
        let mut reader = BufReader::new(client.try_clone()?);
        while let Some(request) = Message::read(&mut reader, |_| true)? {
            let asked = asked(&request);
            let fault = self.fault(&asked);
            let number = {
                let mut all = locked(&self.asked);
                all.push(asked.clone());
                all.len() - 1
            };
            let answered = |status| locked(&self.asked)[number].status = status;
            if !self.answer(&mut client, &request, asked.kind, fault, answered)? {
                break;
            }
        }
        client.shutdown(Shutdown::Both)
    }

    fn fault(&self, asked: &Asked) -> Option<Fault> {
        let rules = locked(&self.rules);
        let rule = rules.iter().find(|rule| rule.strikes(asked))?;
        self.struck.fetch_add(1, Ordering::SeqCst);
        Some(rule.fault.clone())
    }

    /// Answers a request, and says whether the connection goes on. `answered` is told the status
    /// before the client is.
    fn answer(
        &self,
        client: &mut TcpStream,
        request: &Message,
        kind: Kind,
        fault: Option<Fault>,
        answered: impl Fn(u16),
    ) -> io::Result<bool> {
        match &fault {
            Some(Fault::Close) => return Ok(false),
            Some(Fault::Stall) => return stall(client),
            Some(Fault::Hold(gate)) => gate.pass(),
            Some(Fault::Refuse(status, code)) => {
                answered(*status);
                let answer = refusal(*status, code);
                answer.write(client, body_for(kind, &answer))?;
                return Ok(true);
            }
            _ => {}
        }
        let mut answer = self.ask_store(request, kind)?;
        let half = answer.body.len() / 2;
        match fault {
            Some(Fault::LoseAnswer) => return Ok(false),
            Some(Fault::HoldAnswer(gate)) => gate.pass(),
            Some(Fault::Deny(status, code)) => {
                answer = refusal(status, code);
            }
            Some(Fault::PretendCreated) if matches!(answer.status(), 409 | 412) => {
                answer.start = "HTTP/1.1 200 OK".to_owned();
                answer.body.clear();
                answer.set("Content-Length", 0);
                answer.set("ETag", "\"00000000000000000000000000000000\"");
            }
            Some(Fault::FlipBit) => {
                if let Some(byte) = answer.body.get_mut(half) {
                    *byte ^= 1;
                }
            }
            Some(Fault::Shorten) => {
                answer.body.truncate(half);
                answer.set("Content-Length", half);
            }
            Some(Fault::CutBody) => {
                answered(answer.status());
                answer.write(client, &answer.body[..half])?;
                return Ok(false);
            }
            Some(Fault::StallBody) => {
                answered(answer.status());
                answer.write(client, &answer.body[..half])?;
                return stall(client);
            }
            Some(Fault::ListWithout(since)) => {
                let listing = without(&answer.text(), since);
                answer.body = listing.into_bytes();
                answer.set("Content-Length", answer.body.len());
            }
            _ => {}
        }
        answered(answer.status());
        answer.write(client, body_for(kind, &answer))?;
        Ok(true)
    }

    /// The store's answer, over a connection of its own.
    fn ask_store(&self, request: &Message, kind: Kind) -> io::Result<Message> {
        let mut store = TcpStream::connect(self.store)?;
        store.set_nodelay(true)?;
        self.keep(&store)?;
        request.write(&mut store, &request.body)?;
        let mut reader = BufReader::new(store);
        loop {
            let answer = Message::read(&mut reader, |head| {
                kind != Kind::Head && !matches!(head.status(), 100 | 204 | 304)
            })?;
            let answer = answer.ok_or(io::ErrorKind::UnexpectedEof)?;
            if answer.status() != 100 {
                return Ok(answer);
            }
        }
    }
}

/// Waits for the client to give up.
fn stall(client: &mut TcpStream) -> io::Result<bool> {
    let mut nothing = [0; 1024];
    while client.read(&mut nothing)? > 0 {}
    Ok(false)
}

fn asked(request: &Message) -> Asked {
    let mut words = request.start.split(' ');
    let method = words.next().unwrap_or_default();
    let target = words.next().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let object = path.trim_start_matches('/').split_once('/');
    let object = object.map_or("", |(_, key)| key);
    let prefix = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("prefix="));
    let is_listing = method == "GET" && object.is_empty() && !path.is_empty();
    let kind = match method {
        "GET" if is_listing => Kind::List,
        "GET" => Kind::Get,
        "HEAD" => Kind::Head,
        "PUT" if request.field("If-None-Match") == Some("*") => Kind::Create,
        "PUT" => Kind::Put,
        "DELETE" => Kind::Delete,
        "POST" if query.starts_with("delete") => Kind::Delete,
        _ => Kind::Other,
    };
    let key = if is_listing {
        prefix.unwrap_or_default()
    } else {
        object
    };
    Asked {
        kind,
        key: percent_encoding::percent_decode_str(key)
            .decode_utf8_lossy()
            .into_owned(),
        status: 0,
    }
}

/// An error as S3 says it.
fn refusal(status: u16, code: &str) -> Message {
    let region = match code {
        "AuthorizationHeaderMalformed" | "PermanentRedirect" => "<Region>eu-west-1</Region>",
        _ => "",
    };
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
         <Error><Code>{code}</Code><Message>said by a test</Message>{region}</Error>"
    );
    let mut message = Message {
        start: format!("HTTP/1.1 {status} Said"),
        fields: Vec::new(),
        body: body.into_bytes(),
    };
    message.set("Content-Type", "application/xml");
    message.set("Content-Length", message.body.len());
    if !region.is_empty() {
        message.set("x-amz-bucket-region", "eu-west-1");
    }
    message
}

/// HEAD has an answer without a body, whatever its length.
fn body_for(kind: Kind, answer: &Message) -> &[u8] {
    match kind {
        Kind::Head => &[],
        _ => &answer.body,
    }
}

/// A listing without the objects that were written since then.
fn without(xml: &str, since: SystemTime) -> String {
    let since = since.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    // RFC 3339 in UTC is in the order of time.
    let since = rfc_3339(since.as_secs());
    let mut parts = xml.split("<Contents>");
    let mut kept = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (object, rest) = part.split_once("</Contents>").unwrap_or((part, ""));
        let written = super::store::elements(object, "LastModified").next();
        if written.is_some_and(|written| written < since.as_str()) {
            kept += &format!("<Contents>{object}</Contents>");
        }
        kept += rest;
    }
    kept
}

/// `2026-01-31T23:59:59`, out of seconds since 1970.
fn rfc_3339(seconds: u64) -> String {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let compact = super::store::timestamp(time);
    format!(
        "{}-{}-{}T{}:{}:{}",
        &compact[..4],
        &compact[4..6],
        &compact[6..8],
        &compact[9..11],
        &compact[11..13],
        &compact[13..15]
    )
}

/// A test that failed must not hide behind a poisoned lock.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

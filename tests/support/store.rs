//! A real S3 store: Ceph, started by `tests/stores/ceph`, with buckets, users and policies.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use super::Server;
use super::message::Message;
use super::server::etagd_command;
use super::store_proxy::Proxy;

/// Who asks. The store knows these four by keys that are made of their names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct User(&'static str);

/// May do everything.
pub(crate) const ADMIN: User = User("admin");
/// May do what `deploy/policies/reader.json` says, once a bucket has let it; and so on.
pub(crate) const READER: User = User("reader");
pub(crate) const PUBLISHER: User = User("publisher");
pub(crate) const COLLECTOR: User = User("collector");

impl User {
    fn access_key(self) -> String {
        format!("AKIA{}", self.0.to_uppercase())
    }

    fn secret_key(self) -> String {
        format!("secret-{}", self.0)
    }
}

/// A store of this test program, which ends with it.
pub(crate) struct Ceph {
    address: SocketAddr,
    /// Ends the store when its standard input does, and that ends with this process, however that
    /// comes about.
    _script: Child,
}

impl Ceph {
    /// The one of this program; none, and a line that says why, where it can't be had.
    pub(crate) fn shared() -> Option<&'static Self> {
        static CEPH: OnceLock<Result<Ceph, String>> = OnceLock::new();
        match CEPH.get_or_init(Self::start) {
            Ok(ceph) => Some(ceph),
            Err(reason) => {
                let must = std::env::var_os("ETAGD_NO_SKIP").is_some();
                assert!(!must, "{reason}");
                #[allow(clippy::print_stderr)]
                {
                    eprintln!("skipped: {reason}");
                }
                None
            }
        }
    }

    fn start() -> Result<Self, String> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stores/ceph");
        // The script removes it.
        let dir = tempfile::tempdir().unwrap().keep();
        let mut script = Command::new(script)
            .arg("run")
            .arg(&dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(script.stdout.take().unwrap()).lines();
        if let Some(Ok(line)) = lines.next() {
            let address = line.strip_prefix("http://").unwrap();
            return Ok(Self {
                address: address.parse().unwrap(),
                _script: script,
            });
        }
        let output = script.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(77), "{said}");
        Err(said.trim().to_owned())
    }

    /// A new bucket, for one test.
    pub(crate) fn bucket(&'static self) -> Bucket {
        static BUCKETS: AtomicU32 = AtomicU32::new(0);
        let number = BUCKETS.fetch_add(1, Ordering::Relaxed);
        let bucket = Bucket {
            ceph: self,
            name: format!("bucket-{number}"),
        };
        let made = self.ask("PUT", &format!("/{}", bucket.name), &[], b"");
        assert_eq!(made.status(), 200, "{}", made.text());
        bucket
    }

    fn ask(&self, method: &str, path: &str, query: &[(&str, &str)], body: &[u8]) -> Message {
        Request {
            query,
            body,
            ..Request::new(ADMIN, method, path)
        }
        .send(self.address)
        .unwrap()
    }
}

/// A request to the store, to be signed by a user.
pub(crate) struct Request<'a> {
    pub(crate) user: User,
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    /// Names and values as they are; they are sorted and encoded when they are sent.
    pub(crate) query: &'a [(&'a str, &'a str)],
    /// Fields that the signature leaves out.
    pub(crate) fields: &'a [(&'a str, &'a str)],
    pub(crate) body: &'a [u8],
}

impl<'a> Request<'a> {
    pub(crate) fn new(user: User, method: &'a str, path: &'a str) -> Self {
        Self {
            user,
            method,
            path,
            query: &[],
            fields: &[],
            body: &[],
        }
    }

    /// Sends it to the store or a proxy, over a connection of its own.
    pub(crate) fn send(&self, address: SocketAddr) -> io::Result<Message> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        self.signed(address).write(&mut stream, self.body)?;
        let answer = Message::read(&mut BufReader::new(stream), |head| {
            self.method != "HEAD" && head.status() != 204
        })?;
        answer.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// With AWS Signature Version 4.
    fn signed(&self, address: SocketAddr) -> Message {
        let mut query: Vec<_> = self
            .query
            .iter()
            .map(|(name, value)| format!("{}={}", encoded(name), encoded(value)))
            .collect();
        query.sort();
        let query = query.join("&");
        let (host, hash) = (address.to_string(), hex(&Sha256::digest(self.body)));
        let time = timestamp(SystemTime::now());
        let scope = format!("{}/us-east-1/s3/aws4_request", &time[..8]);
        let names = "host;x-amz-content-sha256;x-amz-date";
        let canonical = format!(
            "{}\n{}\n{query}\nhost:{host}\nx-amz-content-sha256:{hash}\nx-amz-date:{time}\n\n\
             {names}\n{hash}",
            self.method, self.path
        );
        let text = format!(
            "AWS4-HMAC-SHA256\n{time}\n{scope}\n{}",
            hex(&Sha256::digest(canonical))
        );
        let secret = format!("AWS4{}", self.user.secret_key()).into_bytes();
        let key = scope.split('/').fold(secret, |key, part| hmac(&key, part));
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={}",
            self.user.access_key(),
            hex(&hmac(&key, &text))
        );
        let mut message = Message {
            start: format!("{} {}?{query} HTTP/1.1", self.method, self.path),
            fields: Vec::new(),
            body: Vec::new(),
        };
        message.set("Host", host);
        message.set("Connection", "close");
        message.set("Content-Length", self.body.len());
        message.set("x-amz-content-sha256", hash);
        message.set("x-amz-date", time);
        message.set("Authorization", authorization);
        for (name, value) in self.fields {
            message.set(name, value);
        }
        message
    }
}

/// A bucket of the store, and the site in it below the prefix `site`.
pub(crate) struct Bucket {
    ceph: &'static Ceph,
    pub(crate) name: String,
}

impl Bucket {
    /// What etagd is told.
    pub(crate) fn url(&self) -> String {
        format!("s3://{}/site", self.name)
    }

    /// Where the store is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.ceph.address
    }

    /// A proxy in front of the store.
    pub(crate) fn proxy(&self) -> Proxy {
        Proxy::to(self.ceph.address)
    }

    /// etagd, with this user's keys and the store's address.
    pub(crate) fn command(&self, user: User) -> Command {
        self.equipped(etagd_command(), self.ceph.address, user)
    }

    /// The same, by way of a proxy.
    pub(crate) fn command_through(&self, proxy: &Proxy, user: User) -> Command {
        self.equipped(etagd_command(), proxy.address(), user)
    }

    /// Another command with this user's keys, and the store or a proxy at this address.
    pub(crate) fn equipped(
        &self,
        mut command: Command,
        address: SocketAddr,
        user: User,
    ) -> Command {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("AWS_") {
                command.env_remove(name);
            }
        }
        command
            .env("AWS_ACCESS_KEY_ID", user.access_key())
            .env("AWS_SECRET_ACCESS_KEY", user.secret_key())
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ENDPOINT_URL", format!("http://{address}"))
            .env("AWS_ALLOW_HTTP", "true");
        command
    }

    /// Lets a user do what the policy of `deploy/policies` says, in this bucket.
    pub(crate) fn allow(&self, user: User) {
        let file = format!("deploy/policies/{}.json", user.0);
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let policy = fs::read_to_string(file).unwrap();
        let policy = policy
            .replace("BUCKET", &self.name)
            .replace("PREFIX", "site");
        self.put_policy(user, &policy);
        // What others write is theirs alone, whoever has the bucket.
        let all = format!(
            r#"{{"Version": "2012-10-17", "Statement": [{{"Effect": "Allow", "Action": ["s3:*"],
                "Resource": ["arn:aws:s3:::{0}", "arn:aws:s3:::{0}/*"]}}]}}"#,
            self.name
        );
        self.put_policy(ADMIN, &all);
    }

    fn put_policy(&self, user: User, policy: &str) {
        let query = [
            ("Action", "PutUserPolicy"),
            ("UserName", user.0),
            ("PolicyName", &self.name),
            ("PolicyDocument", policy),
        ];
        let answer = self.ceph.ask("POST", "/", &query, b"");
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }

    /// The path of an object, whose key is below `site/`.
    pub(crate) fn path(&self, key: &str) -> String {
        format!("/{}/site/{key}", self.name)
    }

    fn object(&self, method: &str, key: &str, body: &[u8]) -> Message {
        self.ceph.ask(method, &self.path(key), &[], body)
    }

    /// The bytes of an object, whose key is below `site/`.
    pub(crate) fn get(&self, key: &str) -> Option<Vec<u8>> {
        let answer = self.object("GET", key, b"");
        match answer.status() {
            200 => Some(answer.body),
            404 => None,
            status => panic!("GET {key}: {status} {}", answer.text()),
        }
    }

    pub(crate) fn put(&self, key: &str, body: &[u8]) {
        let answer = self.object("PUT", key, body);
        assert_eq!(answer.status(), 200, "PUT {key}: {}", answer.text());
    }

    pub(crate) fn delete(&self, key: &str) {
        let answer = self.object("DELETE", key, b"");
        assert_eq!(answer.status(), 204, "DELETE {key}: {}", answer.text());
    }

    /// The keys that begin so, below `site/`, in order.
    pub(crate) fn list(&self, prefix: &str) -> Vec<String> {
        let prefix = format!("site/{prefix}");
        let (mut keys, mut token) = (Vec::new(), None::<String>);
        loop {
            let mut query = vec![("list-type", "2"), ("prefix", prefix.as_str())];
            if let Some(token) = &token {
                query.push(("continuation-token", token));
            }
            let path = format!("/{}", self.name);
            let answer = self.ceph.ask("GET", &path, &query, b"");
            assert_eq!(answer.status(), 200, "{}", answer.text());
            let text = answer.text();
            let below = |key: &str| key.strip_prefix("site/").unwrap().to_owned();
            keys.extend(elements(&text, "Key").map(below));
            token = elements(&text, "NextContinuationToken")
                .next()
                .map(str::to_owned);
            if token.is_none() {
                return keys;
            }
        }
    }
}

/// What stands in each element of this name.
pub(crate) fn elements<'a>(xml: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let mut rest = xml;
    std::iter::from_fn(move || {
        let (_, after) = rest.split_once(&open)?;
        let (content, after) = after.split_once(&close)?;
        rest = after;
        Some(content)
    })
}

/// A command that was run to its end.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) said: String,
}

impl Ran {
    /// Asserts that it succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{}{}", self.out, self.said);
        self
    }

    /// Asserts that it ended with this code and one line that names these things.
    #[track_caller]
    pub(crate) fn fails(self, code: i32, naming: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{}{}", self.out, self.said);
        for part in naming {
            assert!(
                self.said.contains(part),
                "does not say {part:?}:\n{}",
                self.said
            );
        }
        self
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            said: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Runs a command with these arguments to its end.
pub(crate) fn run<A: AsRef<std::ffi::OsStr>>(
    mut command: Command,
    arguments: impl IntoIterator<Item = A>,
) -> Ran {
    let output = command.args(arguments).stdin(Stdio::null()).output();
    output.unwrap().into()
}

/// Hex digits, two a byte.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// RFC 2104, with SHA-256 and a key of at most a block.
fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    assert!(key.len() <= 64);
    let pad = |byte: u8| {
        let mut block = [byte; 64];
        for (each, key) in block.iter_mut().zip(key) {
            *each ^= key;
        }
        block
    };
    let inner = Sha256::new()
        .chain_update(pad(0x36))
        .chain_update(text)
        .finalize();
    let outer = Sha256::new()
        .chain_update(pad(0x5c))
        .chain_update(inner)
        .finalize();
    outer.to_vec()
}

/// `20260131T235959Z`, out of an HTTP date: `Sat, 31 Jan 2026 23:59:59 GMT`.
pub(super) fn timestamp(time: SystemTime) -> String {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let date = httpdate::fmt_http_date(time);
    let words: Vec<_> = date.split(' ').collect();
    let month = MONTHS.find(words[2]).unwrap() / 3 + 1;
    format!(
        "{}{month:02}{}T{}Z",
        words[3],
        words[1],
        words[4].replace(':', "")
    )
}

/// Everything but what RFC 3986 calls unreserved, as signatures want it.
fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

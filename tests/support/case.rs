//! Request cases as text: what is asked, and what must come back.
//!
//! ```text
//! == 13.1.2 the tag itself: not modified
//! > GET {file}
//! > If-None-Match: {etag}
//! < 304
//! < ETag: {etag}
//! < Last-Modified: -
//! < body none
//! ```
//!
//! A name begins with its section of RFC 9110, unless it names another document. `>` lines are a
//! request as any version of HTTP can carry it: `HTTP/1.1` and `Host` are added. `>>` lines are
//! bytes for HTTP/1.1 alone: a CRLF after each, none after `>>|`. Both know `\r \n \t \0 \xHH \\`.
//!
//! `<` lines say what must be: a status (or several, with `or`), fields and the body.
//!
//! - `Name: value` exactly this; `Name: value…` begins so; `Name: *` is there; `Name: -` is not
//! - `body none`, `body has TEXT`, `body PATH` (that file), `body PATH 0-9` (bytes 0 to 9 of it),
//!   `body PATH 0-9, 20-29` (those parts, as multipart/byteranges)
//! - `connection closes`; `connection either`; without such a line it must stay usable
//!
//! Before the first case, `! FLAGS` says how the server of all cases in a file is started.
//!
//! Placeholders: `{file}`, over which a case runs three times, once for each way of keeping data;
//! `{large}`, over the two in groups; of that file `{etag}`, `{hex}`, `{size}`, `{size-1}`,
//! `{size+1}`, `{hex8}`, its first eight digits; `{etag:/path}` and `{hex:/path}` of another;
//! `{9000*a}`, nine thousand times `a`.

use super::ground::Ground;

/// A case as written, its placeholders still open.
pub(crate) struct Case {
    pub(crate) name: String,
    request: Vec<String>,
    raw: bool,
    expected: Vec<String>,
}

#[derive(Debug, Clone)]
pub(crate) enum Request {
    /// Any version of HTTP can carry it.
    Plain {
        method: String,
        target: Vec<u8>,
        fields: Vec<(String, Vec<u8>)>,
    },
    /// Bytes for an HTTP/1.1 connection.
    Raw(Vec<u8>),
}

pub(crate) struct Expected {
    pub(crate) statuses: Vec<u16>,
    pub(crate) fields: Vec<(String, Wanted)>,
    pub(crate) body: Option<Body>,
    pub(crate) connection: Connection,
}

pub(crate) enum Wanted {
    Exactly(String),
    Beginning(String),
    Present,
    Absent,
}

pub(crate) enum Body {
    Nothing,
    Has(String),
    Whole(Vec<u8>),
    /// These bytes, first and last included, of this content. Several are parts of a multipart.
    Ranges(Vec<u8>, Vec<(usize, usize)>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Connection {
    StaysOpen,
    Closes,
    Either,
}

/// The flags of the server that the cases of one file are asked of.
pub(crate) fn flags(text: &str) -> Vec<&str> {
    let flags = text.lines().filter_map(|line| line.strip_prefix("! "));
    flags.flat_map(str::split_whitespace).collect()
}

/// The cases of one file. What can't be read is a mistake in the file, and panics with its line.
pub(crate) fn parse(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.starts_with("! ") {
            assert!(cases.is_empty(), "line {}: too late", number + 1);
            continue;
        }
        if let Some(name) = line.strip_prefix("== ") {
            let (request, expected) = Default::default();
            cases.push(Case {
                name: name.to_owned(),
                request,
                raw: false,
                expected,
            });
            continue;
        }
        let case = cases
            .last_mut()
            .unwrap_or_else(|| panic!("line {}: no name yet", number + 1));
        if let Some(raw) = line.strip_prefix(">>") {
            case.raw = true;
            case.request.push(match raw.strip_prefix('|') {
                Some(unended) => unended.to_owned(),
                None => raw.strip_prefix(' ').unwrap_or(raw).to_owned() + "\\r\\n",
            });
        } else if let Some(request) = line.strip_prefix("> ") {
            case.request.push(request.to_owned());
        } else if let Some(expected) = line.strip_prefix("< ") {
            case.expected.push(expected.to_owned());
        } else {
            panic!("line {}: {line:?} is nothing a case may hold", number + 1);
        }
    }
    cases
}

impl Case {
    /// Whether the case stands for several, one for each of the files it mentions so.
    pub(crate) fn mentions(&self, placeholder: &str) -> bool {
        self.request
            .iter()
            .chain(&self.expected)
            .any(|line| line.contains(placeholder))
    }

    pub(crate) fn request(&self, ground: &Ground<'_>) -> Request {
        let mut lines = self
            .request
            .iter()
            .map(|line| unescaped(&ground.expanded(line)));
        if self.raw {
            return Request::Raw(lines.collect::<Vec<_>>().concat());
        }
        let first = lines
            .next()
            .unwrap_or_else(|| panic!("{}: no request", self.name));
        let (method, target) = split_once(&first, b" ");
        let fields = lines.map(|line| {
            let (name, value) = split_once(&line, b":");
            (
                String::from_utf8(name).unwrap(),
                value.trim_ascii_start().to_owned(),
            )
        });
        let method = String::from_utf8(method).unwrap();
        Request::Plain {
            method,
            target,
            fields: fields.collect(),
        }
    }

    pub(crate) fn expected(&self, ground: &Ground<'_>) -> Expected {
        let mut expected = Expected {
            statuses: Vec::new(),
            fields: Vec::new(),
            body: None,
            connection: Connection::StaysOpen,
        };
        for line in self.expected.iter().map(|line| ground.expanded(line)) {
            if line.starts_with(|c: char| c.is_ascii_digit()) {
                expected.statuses = line
                    .split(" or ")
                    .map(|code| code.parse().unwrap())
                    .collect();
            } else if let Some(body) = line.strip_prefix("body ") {
                expected.body = Some(ground.body(body));
            } else if let Some(connection) = line.strip_prefix("connection ") {
                expected.connection = match connection {
                    "closes" => Connection::Closes,
                    "either" => Connection::Either,
                    other => panic!("{}: connection {other:?}", self.name),
                };
            } else {
                let (name, value) = line.split_once(": ").expect("NAME: VALUE");
                expected.fields.push((name.to_owned(), wanted(value)));
            }
        }
        assert!(!expected.statuses.is_empty(), "{}: no status", self.name);
        expected
    }
}

fn wanted(value: &str) -> Wanted {
    match value {
        "*" => Wanted::Present,
        "-" => Wanted::Absent,
        _ => match value.strip_suffix('…') {
            Some(beginning) => Wanted::Beginning(beginning.to_owned()),
            None => Wanted::Exactly(value.to_owned()),
        },
    }
}

impl Request {
    pub(crate) fn method(&self) -> String {
        match self {
            Self::Plain { method, .. } => method.clone(),
            Self::Raw(bytes) => {
                let (method, _) = split_once(bytes.trim_ascii_start(), b" ");
                String::from_utf8_lossy(&method).into_owned()
            }
        }
    }

    /// The same request with HEAD, where that must be answered with the same fields: not a range.
    pub(crate) fn as_head(&self) -> Option<Self> {
        let Self::Plain {
            method,
            target,
            fields,
        } = self
        else {
            return None;
        };
        let has_range = fields
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("range"));
        (method == "GET" && !has_range).then(|| Self::Plain {
            method: "HEAD".to_owned(),
            target: target.clone(),
            fields: fields.clone(),
        })
    }

    /// The same request to a site below `base`, such as `/base`; `None` where the longer target would
    /// be another case.
    pub(crate) fn below(&self, base: &str) -> Option<Self> {
        Some(match self {
            Self::Plain {
                method,
                target,
                fields,
            } => Self::Plain {
                method: method.clone(),
                target: target_below(target, base)?,
                fields: fields.clone(),
            },
            // What comes after the first request line may be content, whose length counts.
            Self::Raw(bytes) => {
                let start = bytes.len() - bytes.trim_ascii_start().len();
                let end = bytes[start..].iter().position(|byte| *byte == b'\n');
                let (before, rest) = bytes.split_at(start);
                let (line, rest) = rest.split_at(end.unwrap_or(rest.len()));
                let line = request_line_below(line, base)?;
                Self::Raw([before, &line, rest].concat())
            }
        })
    }

    /// The request as HTTP/1.1.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let (method, target, fields) = match self {
            Self::Raw(bytes) => return bytes.clone(),
            Self::Plain {
                method,
                target,
                fields,
            } => (method, target, fields),
        };
        let mut bytes = [method.as_bytes(), b" ", target, b" HTTP/1.1\r\n"].concat();
        bytes.extend_from_slice(b"Host: localhost\r\n");
        for (name, value) in fields {
            bytes.extend_from_slice(&[name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes
    }
}

impl Expected {
    /// What a site below `base` answers in place of this.
    pub(crate) fn below(mut self, base: &str) -> Self {
        for (name, wanted) in &mut self.fields {
            if let Wanted::Exactly(location) | Wanted::Beginning(location) = wanted
                && name.eq_ignore_ascii_case("Location")
                && location.starts_with('/')
            {
                location.insert_str(0, base);
            }
            if let Wanted::Exactly(value) = wanted
                && name.eq_ignore_ascii_case("Use-As-Dictionary")
            {
                *value = value.replace("match=\"/", &format!("match=\"{base}/"));
            }
        }
        if let Some(Body::Has(text)) = &mut self.body {
            // What etagd's own page says of the path and of the way home.
            *text = text.replace("<code>/", &format!("<code>{base}/"));
            *text = text.replace("href=\"/\"", &format!("href=\"{base}/\""));
        }
        self
    }
}

/// Length of the longest target that is answered.
const MAX_TARGET_LENGTH: usize = 8192;

/// A target with `base` in front of its path; `None` where that makes it too long.
fn target_below(target: &[u8], base: &str) -> Option<Vec<u8>> {
    let scheme = target.windows(3).position(|window| window == b"://");
    let start = match scheme {
        // Absolute-form: the path begins behind the authority.
        Some(at) if !target.starts_with(b"/") => {
            let authority = at + 3;
            let slash = target[authority..].iter().position(|byte| *byte == b'/');
            authority + slash?
        }
        _ if target.starts_with(b"/") => 0,
        _ => return Some(target.to_vec()),
    };
    let (host, path) = target.split_at(start);
    let below = [host, base.as_bytes(), path].concat();
    let is_longer = path.len() <= MAX_TARGET_LENGTH && below.len() - start > MAX_TARGET_LENGTH;
    (!is_longer).then_some(below)
}

/// The first line of a raw request; if it has a target, with `base` in front of its path.
fn request_line_below(line: &[u8], base: &str) -> Option<Vec<u8>> {
    let mut words = line.splitn(3, |byte| *byte == b' ');
    match (words.next(), words.next(), words.next()) {
        (Some(method), Some(target), Some(rest)) => {
            let target = target_below(target, base)?;
            Some([method, b" ", &target, b" ", rest].concat())
        }
        _ => Some(line.to_vec()),
    }
}

/// `\r \n \t \0 \xHH \\` as bytes.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let (&code, after) = rest.split_first().expect("something behind the backslash");
        rest = after;
        bytes.push(match code {
            b'r' => b'\r',
            b'n' => b'\n',
            b't' => b'\t',
            b'0' => 0,
            b'\\' => b'\\',
            b'x' => {
                let (hex, after) = rest.split_at(2);
                rest = after;
                u8::from_str_radix(str::from_utf8(hex).unwrap(), 16).unwrap()
            }
            other => panic!("\\{} is no escape", char::from(other)),
        });
    }
    bytes
}

fn split_once(bytes: &[u8], separator: &[u8]) -> (Vec<u8>, Vec<u8>) {
    match bytes
        .windows(separator.len())
        .position(|window| window == separator)
    {
        Some(at) => (
            bytes[..at].to_owned(),
            bytes[at + separator.len()..].to_owned(),
        ),
        None => (bytes.to_owned(), Vec::new()),
    }
}

//! The server as a place to put files: one request each, again where that may help.

use std::fs::File;
use std::io::{self, Read};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use http::{Method, Response, StatusCode, header};
use ureq::Body;

use super::step::Hash;
use super::{Local, Progress, Task};
use crate::config::ReplicaUrl;
use crate::disk::Root;
use crate::inventory::url;
use crate::remote::{Client, within_the_site};
use crate::rules::RuleFile;
use crate::semantics::etag::ETag;

/// How often something is tried that fails for the moment.
const TRIES: u32 = 6;
/// First and longest pause between two tries.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// A page may have moved within the site: `/about.html` to `/about`.
const REDIRECTS: usize = 3;
/// Most bytes of what a server says about a refusal.
const LONGEST: u64 = 200;

/// What has become of one file.
#[derive(Debug)]
pub(super) enum Outcome {
    Created,
    Replaced,
    Deleted,
    /// It was as it should be.
    Unchanged,
    /// It is another version by now, or gone.
    Overtaken(Option<ETag>),
    Failed(String),
    /// Nothing that is asked for will succeed.
    Refused(String),
}

/// Where files go.
#[derive(Debug)]
pub(super) struct Server<'a> {
    client: &'a Client,
    url: &'a ReplicaUrl,
    authorization: Option<String>,
}

impl<'a> Server<'a> {
    pub(super) fn new(client: &'a Client, url: &'a ReplicaUrl, token: Option<&str>) -> Self {
        let authorization = token.map(|token| format!("Bearer {token}"));
        Self {
            client,
            url,
            authorization,
        }
    }

    /// The tag of what a path names, if it names anything; known for sure unless it is as `wanted`.
    pub(super) fn look(&self, path: &[u8], wanted: Option<Hash>) -> Result<Option<ETag>, String> {
        let read = self.read(path)?;
        match read {
            Some(tag) if Some(*tag.hash()) == wanted => return Ok(read),
            None if RuleFile::named(path).is_none() => return Ok(None),
            // `about.html` may have answered for `/about`, or a rewrite for what is not there; and
            // nobody can read rules. Whoever asks to delete under a tag that nothing has is told.
            _ => {}
        }
        match self.delete(path, ETag::new([0; 32])) {
            Outcome::Overtaken(now) => Ok(now),
            Outcome::Unchanged => Ok(None),
            Outcome::Refused(reason) => Err(reason),
            // The write will tell why.
            _ => Ok(read),
        }
    }

    /// The tag of what a path is answered with.
    fn read(&self, path: &[u8]) -> Result<Option<ETag>, String> {
        let fields = self.fields((header::ACCEPT_ENCODING, "identity"));
        let mut place = url(path);
        let mut redirects = 0;
        loop {
            let address = format!("{}{place}", self.url);
            let ask = || self.client.ask(&Method::HEAD, &address, &fields);
            let response = persist(ask)?;
            match within_the_site(&response) {
                Some(next) if redirects < REDIRECTS => {
                    redirects += 1;
                    place = next;
                    continue;
                }
                _ => {}
            }
            return match response.status() {
                StatusCode::OK => match tag(&response) {
                    Some(tag) => Ok(Some(tag)),
                    None => Err(format!("{address} has no tag of etagd's: what serves it?")),
                },
                StatusCode::NOT_FOUND | StatusCode::GONE => Ok(None),
                status if status.is_redirection() => Ok(None),
                status => Err(format!("{address} answers {status}")),
            };
        }
    }

    /// Puts a file in place of what has this tag, or where there is nothing.
    pub(super) fn put(
        &self,
        root: &Root,
        task: &Task,
        local: &Local,
        known: Option<ETag>,
        progress: &Progress,
    ) -> Outcome {
        let address = format!("{}{}", self.url, url(&task.path));
        let known = known.map(|tag| tag.to_string());
        let fields = self.fields(match &known {
            Some(tag) => (header::IF_MATCH, tag.as_str()),
            None => (header::IF_NONE_MATCH, "*"),
        });
        let mut trouble = None;
        let send = || {
            let opened = match root.open_file(&local.location) {
                Ok(opened) if opened.stamp.size == local.length => opened,
                Ok(_) => {
                    trouble = Some("it is being changed: run again".to_owned());
                    return Err(String::new());
                }
                Err(error) => {
                    trouble = Some(format!("it cannot be read: {error}"));
                    return Err(String::new());
                }
            };
            let mut content = Counted::new(opened.file, progress);
            let content = (&mut content as &mut dyn Read, local.length);
            self.client.send(&Method::PUT, &address, &fields, content)
        };
        let response = persist(send);
        if let Some(trouble) = trouble {
            return Outcome::Failed(trouble);
        }
        let mut response = match response {
            Ok(response) => response,
            Err(reason) => return Outcome::Failed(reason),
        };
        let now = tag(&response);
        let is_ours = now.is_some_and(|tag| *tag.hash() == local.hash);
        match response.status() {
            StatusCode::CREATED | StatusCode::NO_CONTENT | StatusCode::OK if !is_ours => {
                Outcome::Failed(match now {
                    Some(_) => "it was changed while it was sent: run again".to_owned(),
                    None => "somebody else changed it at the same moment: run again".to_owned(),
                })
            }
            StatusCode::CREATED => Outcome::Created,
            StatusCode::NO_CONTENT | StatusCode::OK => Outcome::Replaced,
            // By an attempt whose answer was lost, or by somebody else.
            StatusCode::PRECONDITION_FAILED if is_ours => Outcome::Unchanged,
            _ => refusal(&mut response, &address),
        }
    }

    /// Deletes what has this tag.
    pub(super) fn delete(&self, path: &[u8], known: ETag) -> Outcome {
        let address = format!("{}{}", self.url, url(path));
        let known = known.to_string();
        let fields = self.fields((header::IF_MATCH, known.as_str()));
        let ask = || self.client.ask(&Method::DELETE, &address, &fields);
        let mut response = match persist(ask) {
            Ok(response) => response,
            Err(reason) => return Outcome::Failed(reason),
        };
        match response.status() {
            StatusCode::NO_CONTENT | StatusCode::OK => Outcome::Deleted,
            StatusCode::NOT_FOUND => Outcome::Unchanged,
            _ => refusal(&mut response, &address),
        }
    }

    fn fields<'b>(
        &'b self,
        field: (header::HeaderName, &'b str),
    ) -> Vec<(header::HeaderName, &'b str)> {
        let authorization = self.authorization.as_deref();
        let authorization = authorization.map(|value| (header::AUTHORIZATION, value));
        authorization.into_iter().chain([field]).collect()
    }
}

/// Asks again, with growing pauses, while the server is busy or out of reach.
fn persist(
    mut ask: impl FnMut() -> Result<Response<Body>, String>,
) -> Result<Response<Body>, String> {
    let (mut pause, longest) = PAUSE;
    let mut tries = 1;
    loop {
        let answer = ask();
        let wait = match &answer {
            Ok(response) if is_passing(response.status()) => retry_after(response),
            Err(reason) if !reason.is_empty() => None,
            _ => return answer,
        };
        if tries == TRIES {
            return answer;
        }
        tries += 1;
        thread::sleep(wait.unwrap_or(pause).min(longest));
        pause = (pause * 2).min(longest);
    }
}

fn is_passing(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::REQUEST_TIMEOUT
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}

fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let value = response.headers().get(header::RETRY_AFTER)?;
    let seconds = value.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn tag(response: &Response<Body>) -> Option<ETag> {
    ETag::parse(response.headers().get(header::ETAG)?.as_bytes())
}

/// What a status means that is no success.
fn refusal(response: &mut Response<Body>, address: &str) -> Outcome {
    let status = response.status();
    if status == StatusCode::PRECONDITION_FAILED {
        return Outcome::Overtaken(tag(response));
    }
    let reason = said(response);
    match status {
        StatusCode::UNAUTHORIZED => Outcome::Refused(format!(
            "{address} answers {status}: give a token of the server's with --token-file or \
             ETAGD_WRITE_TOKEN"
        )),
        StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => Outcome::Refused(format!(
            "{address} answers {status}: was it started with --writable?"
        )),
        _ => Outcome::Failed(format!("{status}{reason}")),
    }
}

/// The first line of an answer in plain text.
fn said(response: &mut Response<Body>) -> String {
    let is_plain = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"text/plain"));
    let mut text = Vec::new();
    let body = response.body_mut().as_reader();
    if !is_plain || body.take(LONGEST).read_to_end(&mut text).is_err() {
        return String::new();
    }
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().next().unwrap_or_default();
    let line: String = line.chars().filter(|char| !char.is_control()).collect();
    match line.is_empty() {
        true => line,
        false => format!(": {line}"),
    }
}

/// A file that is counted while it is read.
struct Counted<'a> {
    file: File,
    progress: &'a Progress,
}

impl<'a> Counted<'a> {
    fn new(file: File, progress: &'a Progress) -> Self {
        Self { file, progress }
    }
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.progress.done.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

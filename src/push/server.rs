//! The server to push to: one request for each file, repeated where that may help.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use http::{Method, Response, StatusCode, header};
use rayon::ThreadPoolBuildError;
use ureq::Body;

use super::action::ContentHash;
use super::task::{LocalFile, Task};
use crate::disk::Root;
use crate::inventory::url;
use crate::progress::ByteProgress;
use crate::remote::{Client, RequestError, local_redirect};
use crate::scan::is_unlisted;
use crate::semantics::base_path::BasePath;
use crate::semantics::coding::{Coding, MAX_HEADER_LENGTH};
use crate::semantics::etag::ETag;
use crate::settings::ReplicaUrl;

/// Number of attempts while the server is busy or unreachable.
const MAX_ATTEMPTS: u32 = 6;
/// First pause between two attempts; each one doubles it.
const MIN_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause between two attempts, whatever Retry-After says.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// A page may have another URL on the server: `/about.html` redirects to `/about`.
const MAX_REDIRECTS: usize = 3;
/// Bytes read of a server's explanation; one line of it is shown.
const MAX_EXPLANATION_LENGTH: u64 = 200;

/// Why files are not pushed, or one of them.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// There is no response.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// Another program serves this URL, or something on the way replaces its tags.
    #[error("{url} has no ETag of etagd: is it served by something else?")]
    ForeignTag {
        /// The URL of the request.
        url: String,
    },
    /// The server answers a read with something that is neither a file nor its absence.
    #[error("{url} answers {status}")]
    Unexpected {
        /// The URL of the request.
        url: String,
        /// The status of the response.
        status: StatusCode,
    },
    /// The server does not accept the token, or there is none.
    #[error(
        "{url} answers {status}: give one of the server's tokens with --token-file or \
         ETAGD_WRITE_TOKEN"
    )]
    Unauthorized {
        /// The URL of the request.
        url: String,
        /// The status of the response.
        status: StatusCode,
    },
    /// The server takes no files.
    #[error("{url} answers {status}: was it started with --writable?")]
    NotWritable {
        /// The URL of the request.
        url: String,
        /// The status of the response.
        status: StatusCode,
    },
    /// The server has no site at this URL.
    #[error(
        "{url} answers {status}{}: name the path with --base-path, or give --admin-url, which knows it",
        .explanation.as_ref().map(|text| format!(" ({text})")).unwrap_or_default()
    )]
    Elsewhere {
        /// The URL of the request.
        url: String,
        /// The status of the response.
        status: StatusCode,
        /// The first line of the response, if it is text.
        explanation: Option<String>,
    },
    /// The server refuses one file.
    #[error("{status}{}", .explanation.as_ref().map(|text| format!(": {text}")).unwrap_or_default())]
    Refused {
        /// The status of the response.
        status: StatusCode,
        /// The first line of the response, if it is text.
        explanation: Option<String>,
    },
    /// A file has another length than it had when it was hashed.
    #[error("it is being changed: run again")]
    Changing,
    /// A file cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(io::Error),
    /// A dictionary of the directory can prove nothing; its deltas are pushed all the same.
    #[error("not sent: {0}")]
    Dictionary(io::Error),
    /// The server has received other bytes than were hashed.
    #[error("it was changed while it was sent: run again")]
    ChangedWhileSent,
    /// The server has another version than the one it has just received.
    #[error("somebody else changed it at the same moment: run again")]
    Overwritten,
    /// The server has another version at each attempt.
    #[error("somebody else keeps changing it: run again later")]
    KeepsChanging,
    /// A rule file cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Unlisted {
        /// Its path in the directory.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// The threads for the connections cannot be started.
    #[error("cannot start threads: {0}")]
    Threads(#[from] ThreadPoolBuildError),
}

impl PushError {
    /// Whether each further request would fail in the same way.
    pub(super) fn is_for_all(&self) -> bool {
        matches!(
            self,
            Self::Unauthorized { .. } | Self::NotWritable { .. } | Self::Elsewhere { .. }
        )
    }
}

/// What became of one file.
#[derive(Debug)]
pub(super) enum PushOutcome {
    Created,
    Replaced,
    Deleted,
    /// It was as it should be.
    Unchanged,
    /// The precondition failed: the server has this version by now, or none.
    Conflict(Option<ETag>),
    Failed(PushError),
}

impl From<PushError> for PushOutcome {
    fn from(error: PushError) -> Self {
        Self::Failed(error)
    }
}

/// The server to push to.
#[derive(Debug)]
pub(super) struct RemoteServer<'a> {
    client: &'a Client,
    /// With the base path of the site.
    url: ReplicaUrl,
    /// Without it.
    host: ReplicaUrl,
    authorization: Option<String>,
}

impl<'a> RemoteServer<'a> {
    pub(super) fn new(
        client: &'a Client,
        url: &ReplicaUrl,
        base_path: &BasePath,
        token: Option<&str>,
    ) -> Self {
        Self {
            client,
            url: url.with_base_path(base_path),
            host: url.without_base_path(base_path),
            authorization: token.map(|token| format!("Bearer {token}")),
        }
    }

    /// The tag of the file at exactly this path, `None` if there is none. It is certain unless its
    /// hash is `wanted`.
    pub(super) fn current_tag(
        &self,
        path: &[u8],
        wanted: Option<ContentHash>,
    ) -> Result<Option<ETag>, PushError> {
        let is_served = !is_unlisted(path);
        let read = match is_served {
            true => self.read_tag(path)?,
            false => None,
        };
        match read {
            Some(tag) if Some(*tag.hash()) == wanted => return Ok(read),
            None if is_served => return Ok(None),
            // A GET does not tell: `about.html` may have answered for `/about`, or a rewrite for
            // a missing file, and rules and dictionaries are not served. A DELETE is never rewritten,
            // and one with a tag that nothing has fails with the tag of the file itself.
            _ => {}
        }
        match self.delete(path, ETag::new([0; 32])) {
            PushOutcome::Conflict(current) => Ok(current),
            PushOutcome::Unchanged => Ok(None),
            PushOutcome::Failed(error) if error.is_for_all() => Err(error),
            // Writing the file will fail as well, and report why.
            _ => Ok(read),
        }
    }

    /// The tag of the response to a GET of a path, `None` if there is nothing.
    fn read_tag(&self, path: &[u8]) -> Result<Option<ETag>, PushError> {
        let fields = self.with_authorization((header::ACCEPT_ENCODING, "identity"));
        let mut url = format!("{}{}", self.url, url(path));
        let mut redirects = 0;
        loop {
            let response = retry(|| Ok(self.client.request(&Method::HEAD, &url, &fields)?))?;
            if let Some(location) = local_redirect(&response, &self.host.to_string(), &url)
                && redirects < MAX_REDIRECTS
            {
                redirects += 1;
                url = location;
                continue;
            }
            return match response.status() {
                StatusCode::OK => match tag(&response) {
                    Some(tag) => Ok(Some(tag)),
                    None => Err(PushError::ForeignTag { url }),
                },
                StatusCode::NOT_FOUND | StatusCode::GONE => Ok(None),
                status if status.is_redirection() => Ok(None),
                status => Err(PushError::Unexpected { url, status }),
            };
        }
    }

    /// The coding of a delta that the server has, by its first bytes; `None` if there is no delta.
    pub(super) fn delta_coding(&self, path: &[u8]) -> Result<Option<Coding>, PushError> {
        let range = format!("bytes=0-{}", MAX_HEADER_LENGTH - 1);
        let mut fields = self.with_authorization((header::ACCEPT_ENCODING, "identity"));
        fields.push((header::RANGE, &range));
        let address = format!("{}{}", self.url, url(path));
        let mut response = retry(|| Ok(self.client.request(&Method::GET, &address, &fields)?))?;
        if !response.status().is_success() {
            return Ok(None);
        }
        let mut first = Vec::new();
        let body = response.body_mut().as_reader();
        let read = body.take(MAX_HEADER_LENGTH as u64).read_to_end(&mut first);
        read.map_err(|source| RequestError::Body {
            url: address,
            source,
        })?;
        Ok(Coding::of_header(&first))
    }

    /// Sends a file, if the server has the version `known`, or nothing where that is `None`.
    pub(super) fn put(
        &self,
        root: &Root,
        task: &Task,
        local: &LocalFile,
        known: Option<ETag>,
        progress: &ByteProgress,
    ) -> PushOutcome {
        let address = format!("{}{}", self.url, url(&task.path));
        let known = known.map(|tag| tag.to_string());
        let fields = self.with_authorization(match &known {
            Some(tag) => (header::IF_MATCH, tag.as_str()),
            None => (header::IF_NONE_MATCH, "*"),
        });
        let result = retry(|| {
            let opened = root
                .open_file(&local.location)
                .map_err(PushError::Unreadable)?;
            // Content-Length is the length that was hashed, so other content can't follow it.
            if opened.stamp.size != local.length {
                return Err(PushError::Changing);
            }
            let mut content = UploadReader {
                file: opened.file,
                progress,
            };
            let content = (&mut content as &mut dyn Read, local.length);
            Ok(self.client.send(&Method::PUT, &address, &fields, content)?)
        });
        let mut response = match result {
            Ok(response) => response,
            Err(error) => return error.into(),
        };
        let tag = tag(&response);
        let is_ours = tag.is_some_and(|tag| *tag.hash() == local.hash);
        match response.status() {
            StatusCode::CREATED | StatusCode::NO_CONTENT | StatusCode::OK if !is_ours => {
                PushOutcome::Failed(match tag {
                    Some(_) => PushError::ChangedWhileSent,
                    None => PushError::Overwritten,
                })
            }
            StatusCode::CREATED => PushOutcome::Created,
            StatusCode::NO_CONTENT | StatusCode::OK => PushOutcome::Replaced,
            // An earlier attempt succeeded and its response was lost, or somebody else has sent
            // the same file.
            StatusCode::PRECONDITION_FAILED if is_ours => PushOutcome::Unchanged,
            _ => refusal(&mut response, address),
        }
    }

    /// Deletes a file, if the server has the version `known`.
    pub(super) fn delete(&self, path: &[u8], known: ETag) -> PushOutcome {
        let address = format!("{}{}", self.url, url(path));
        let known = known.to_string();
        let fields = self.with_authorization((header::IF_MATCH, known.as_str()));
        let result = retry(|| Ok(self.client.request(&Method::DELETE, &address, &fields)?));
        let mut response = match result {
            Ok(response) => response,
            Err(error) => return error.into(),
        };
        match response.status() {
            StatusCode::NO_CONTENT | StatusCode::OK => PushOutcome::Deleted,
            // An earlier attempt succeeded and its response was lost, or somebody else was first.
            StatusCode::NOT_FOUND => PushOutcome::Unchanged,
            _ => refusal(&mut response, address),
        }
    }

    fn with_authorization<'b>(
        &'b self,
        field: (header::HeaderName, &'b str),
    ) -> Vec<(header::HeaderName, &'b str)> {
        self.authorization
            .as_deref()
            .map(|value| (header::AUTHORIZATION, value))
            .into_iter()
            .chain([field])
            .collect()
    }
}

/// Repeats a request, with growing pauses, while the server is busy or unreachable.
fn retry(
    mut send: impl FnMut() -> Result<Response<Body>, PushError>,
) -> Result<Response<Body>, PushError> {
    let mut pause = MIN_PAUSE;
    let mut attempts = 1;
    loop {
        let result = send();
        let wait = match &result {
            Ok(response) if is_transient(response.status()) => retry_after(response),
            Err(PushError::Request(_)) => None,
            Ok(_) | Err(_) => return result,
        };
        if attempts == MAX_ATTEMPTS {
            return result;
        }
        attempts += 1;
        thread::sleep(wait.unwrap_or(pause).min(MAX_PAUSE));
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

fn is_transient(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::REQUEST_TIMEOUT
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}

/// The seconds of a Retry-After field. Its other form, a date (RFC 9110 section 10.2.3), is not
/// what etagd sends.
fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let value = response.headers().get(header::RETRY_AFTER)?;
    let seconds = value.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn tag(response: &Response<Body>) -> Option<ETag> {
    ETag::parse(response.headers().get(header::ETAG)?.as_bytes())
}

/// The outcome for a status that is no success.
fn refusal(response: &mut Response<Body>, url: String) -> PushOutcome {
    let status = response.status();
    PushOutcome::Failed(match status {
        StatusCode::PRECONDITION_FAILED => return PushOutcome::Conflict(tag(response)),
        StatusCode::UNAUTHORIZED => PushError::Unauthorized { url, status },
        StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {
            PushError::NotWritable { url, status }
        }
        // A PUT needs nothing to be there (RFC 9110 section 9.3.4).
        StatusCode::NOT_FOUND => PushError::Elsewhere {
            url,
            status,
            explanation: explanation(response),
        },
        _ => PushError::Refused {
            status,
            explanation: explanation(response),
        },
    })
}

/// The first line of a response in plain text.
fn explanation(response: &mut Response<Body>) -> Option<String> {
    let media_type = response.headers().get(header::CONTENT_TYPE)?;
    if !media_type.as_bytes().starts_with(b"text/plain") {
        return None;
    }
    let mut text = Vec::new();
    response
        .body_mut()
        .as_reader()
        .take(MAX_EXPLANATION_LENGTH)
        .read_to_end(&mut text)
        .ok()?;
    // The line goes to a terminal, which would obey control characters.
    let line: String = String::from_utf8_lossy(&text)
        .lines()
        .next()?
        .chars()
        .filter(|character| !character.is_control())
        .collect();
    (!line.is_empty()).then_some(line)
}

/// A file whose bytes are counted as they are read.
struct UploadReader<'a> {
    file: File,
    progress: &'a ByteProgress,
}

impl Read for UploadReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.progress.add(read as u64);
        Ok(read)
    }
}

//! What happens, counted, and its text for Prometheus.
//!
//! On the path of a request all is relaxed atomics in tables of a fixed size: no lock, no
//! allocation, and no label from a client's bytes. The text is rendered when it is requested.

mod exposition;
mod latency;
mod process;
mod store;
mod text_format;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{Method, StatusCode, Version};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use latency::Latencies;
use process::StartTime;

pub use store::{Reachability, StoreMetrics};
pub use text_format::MetricsFormat;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `number`.
    pub fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long something took, each time; behind a lock, so not for requests.
#[derive(Debug)]
pub struct Durations(Histogram);

impl Default for Durations {
    /// From 100 microseconds to 7 minutes.
    fn default() -> Self {
        Self(Histogram::new(exponential_buckets(1e-4, 4.0, 12)))
    }
}

impl Durations {
    /// Adds one.
    pub fn observe(&self, duration: Duration) {
        self.0.observe(duration.as_secs_f64());
    }
}

/// A request's method; unknown ones share a label, so that no client can add labels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verb(u8);

impl Verb {
    /// The last stands for every other method.
    const NAMES: [&'static str; 10] = [
        "GET", "HEAD", "OPTIONS", "PUT", "DELETE", "POST", "PATCH", "TRACE", "CONNECT", "other",
    ];
}

impl From<&Method> for Verb {
    fn from(method: &Method) -> Self {
        let others = Self::NAMES.len() - 1;
        let known = Self::NAMES.iter().position(|name| method == name);
        Self(known.unwrap_or(others) as u8)
    }
}

/// What became of the validators in a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Outcome {
    /// 304: the client has what it would be sent.
    Hit,
    /// The client asked with If-None-Match or If-Modified-Since, and is sent content.
    Miss,
    /// 412: a precondition did not hold.
    Failed,
    /// The client named none that mattered.
    #[default]
    None,
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Hit, Self::Miss, Self::Failed, Self::None];

    /// Its name in metrics and in the access log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Failed => "failed",
            Self::None => "none",
        }
    }
}

/// The part of the server that read a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Door {
    /// The front: a plain request, answered before hyper was asked.
    Front,
    /// hyper's parser of HTTP/1.
    Http1,
    /// HTTP/2.
    Http2,
}

impl Door {
    /// Its name in the access log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Front => "front",
            Self::Http1 => "http1",
            Self::Http2 => "h2",
        }
    }
}

impl From<Version> for Door {
    /// The door that hyper has for this version.
    fn from(version: Version) -> Self {
        match version {
            Version::HTTP_2 => Self::Http2,
            _ => Self::Http1,
        }
    }
}

/// The status codes from 100 to 599.
const STATUSES: usize = 500;

/// Requests by method, outcome and status: one addition for each, whatever is asked later.
#[derive(Debug)]
struct Requests(Box<[Counter]>);

impl Default for Requests {
    fn default() -> Self {
        let cells = Verb::NAMES.len() * Outcome::ALL.len() * STATUSES;
        Self((0..cells).map(|_| Counter::default()).collect())
    }
}

/// All counters of a process.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: Requests,
    /// How long they took.
    latencies: Latencies,
    /// When the process began.
    started: StartTime,
    /// Bytes of bodies that were handed to connections.
    pub body_bytes: Counter,
    /// Bytes of the selected representations that a 304 did not have to send.
    pub saved_bytes: Counter,
    /// Responses that are deltas against a dictionary of the client.
    pub deltas: Counter,
    /// Bytes by which whole deltas are shorter than what their clients would have been sent otherwise.
    pub delta_saved_bytes: Counter,
    /// Requests for content that has deltas, by clients with a dictionary that none is against.
    pub unknown_dictionaries: Counter,
    /// Bodies that ended early because what comes next could not be proven.
    pub cut: Counter,
    /// Responses that ended early because their connection did.
    pub abandoned: Counter,
    /// Lines of the access log that were not written.
    pub lost_lines: Counter,
    /// Connections at this moment.
    pub connections: Arc<AtomicUsize>,
    /// Times that no connection could be accepted, mostly for want of descriptors.
    pub accept_errors: Counter,
    /// Requests refused because others that wait on their connection keep too many bytes.
    pub refused_requests: Counter,
    /// HTTP/2 connections closed because they sent too many control frames.
    pub frame_floods: Counter,
    /// Connections beyond `--max-connections`.
    pub surplus_connections: Counter,
    /// Requests that were answered in front of hyper.
    pub front_requests: Counter,
    /// Connections that ended with something that is no HTTP/1 request.
    pub malformed: Counter,
    /// Connections of trusted proxies that were closed for want of a PROXY header.
    pub proxy_header_failures: Counter,
    /// Connections that sent plain HTTP where TLS is expected.
    pub plain_http: Counter,
    /// Hints of changes from the file system.
    pub hints: Counter,
    /// Times that hints were lost and a sweep made it good.
    pub overflows: Counter,
    /// Paths that could not be watched.
    pub watch_failures: Counter,
    /// Places of the site that report no changes, so that only sweeps find them.
    pub unwatched_places: AtomicU64,
    /// Whether changes are not reported that should be.
    pub watch_incomplete: AtomicBool,
    /// Whether the watcher waits for the file system and does not get on, as of a second ago.
    pub watch_stalled: AtomicBool,
    /// Whether the scrub (`--scrub`) waits for the file system and does not get on.
    pub scrub_stalled: AtomicBool,
    /// Bytes that are kept of requests which wait for the disk.
    pub waiting_requests: AtomicU64,
    /// Looks at the disk that could not be completed, so that nothing of them was published.
    pub incomplete_looks: Counter,
    /// Attempts to save the manifest in `--state` that failed.
    pub state_failures: Counter,
    /// Sweeps of the whole site.
    pub sweeps: Counter,
    /// Published states.
    pub publications: Counter,
    /// Files served as immutable that were given other content.
    pub broken_immutables: Counter,
    /// Times that the root was found to be another directory.
    pub root_changes: Counter,
    /// Bodies whose bytes were not what the manifest says, or could not be read.
    pub unproven: Counter,
    /// Answers 503 for such a body.
    pub unavailable: Counter,
    /// Bytes of the files that clients have created or replaced.
    pub upload_bytes: Counter,
    /// Times that the disk was found to be other than `--manifest` lists.
    pub release_mismatches: Counter,
    /// Entries of `--manifest` that are not what is on disk, as of the last look.
    pub release_faults: AtomicU64,
    /// Runs of the command of `--on-publish`.
    pub hook_runs: Counter,
    /// Those of them that failed.
    pub hook_failures: Counter,
    /// Published states whose digest is not the one that `--expect` names.
    pub unexpected: Counter,
    /// Looks at the whole site, the first scan among them.
    pub site_scans: Durations,
    /// Looks at what has changed.
    pub change_scans: Durations,
    /// From the outcome of a look to the published manifest.
    pub publishing: Durations,
    /// What a server that follows a store counts; none of any other.
    pub store: OnceLock<StoreMetrics>,
}

impl Metrics {
    /// Counts a request that was answered, `elapsed` after its head had come.
    pub fn answered(&self, verb: Verb, status: StatusCode, outcome: Outcome, elapsed: Duration) {
        self.latencies.observe(status, elapsed);
        let status = usize::from(status.as_u16()).wrapping_sub(100);
        let cell =
            (usize::from(verb.0) * Outcome::ALL.len() + outcome as usize) * STATUSES + status;
        if status < STATUSES
            && let Some(counter) = self.requests.0.get(cell)
        {
            counter.increment();
        }
    }
}

/// Gauges that higher floors fill in when the text is rendered.
#[derive(Clone, Debug)]
pub struct Figures {
    /// The site digest, in hex.
    pub digest: String,
    /// Whether every file of the site is in it.
    pub is_complete: bool,
    /// For how long the current state has been published.
    pub age: Duration,
    /// Resources of the site.
    pub entries: u64,
    /// Bytes of their content, without codings.
    pub bytes: u64,
    /// Files that there is no room for the compressed forms of.
    pub without_codings: u64,
    /// Bytes that content holds in memory.
    pub memory_used: u64,
    /// Bytes of it that responses pin.
    pub memory_pinned: u64,
    /// The memory limit for content, in bytes.
    pub memory_limit: u64,
}

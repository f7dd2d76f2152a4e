//! One request and its response, followed from the head of the request to the end of the body; then
//! counted, and written into the access log, if there is one.

use std::time::{Instant, SystemTime};

use http::{HeaderName, HeaderValue, Method, StatusCode, Version, header};

use crate::access::{AccessEntry, AccessLog};
use crate::answer::{Answer, Selected, host, select_without_dictionary};
use crate::client::Peer;
use crate::manifest::{Manifest, SiteDigest};
use crate::metrics::{Door, Metrics, Outcome, Verb};
use crate::representation::Representation;
use crate::semantics::coding::Coding;
use crate::semantics::dictionary;
use crate::semantics::head::{FieldLines, RequestHead};

/// What was decided about a request, as far as counters and the access log want to know.
#[derive(Clone, Copy, Debug, Default)]
pub struct AnswerSummary {
    outcome: Outcome,
    /// Bytes of content that a 304 does not have to send.
    saved: u64,
    /// Of the selected representation.
    coding: Option<Coding>,
    /// What a dictionary of the client did.
    delta: DeltaOutcome,
    /// The state of the site that decided it.
    digest: Option<SiteDigest>,
}

/// What a dictionary that a client has did for its response.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum DeltaOutcome {
    /// Nothing: the client has none that can be used, or the resource has no deltas.
    #[default]
    None,
    /// A delta is sent, or a part of one, instead of so many bytes more.
    Sent(u64),
    /// The resource has deltas, but none against the client's dictionary.
    Unknown,
}

impl DeltaOutcome {
    fn of(selected: &Selected<'_>, request: &impl RequestHead) -> Self {
        if !selected.resource.has_deltas() {
            return Self::None;
        }
        let Some(dictionary) = dictionary::available(request.fields()) else {
            return Self::None;
        };
        let representation = selected.representation();
        let of = |each: &Representation| each.coding().dictionary();
        let mut all = selected.resource.representations();
        if of(representation).is_some() {
            let other = select_without_dictionary(&selected.resource, request);
            Self::Sent(other.length.saturating_sub(representation.length))
        } else if all.any(|each| of(each) == Some(dictionary)) {
            Self::None
        } else {
            Self::Unknown
        }
    }
}

impl AnswerSummary {
    /// What `answer` says, which `manifest` gave to `request`.
    pub fn new(answer: &Answer<'_>, manifest: &Manifest, request: &impl RequestHead) -> Self {
        let (outcome, selected) = match answer {
            Answer::NotModified(selected) => (Outcome::Hit, Some(selected)),
            Answer::PreconditionFailed(selected) => (Outcome::Failed, Some(selected)),
            Answer::Whole(selected) | Answer::Part(selected, _)
                if asks_whether_modified(request) =>
            {
                (Outcome::Miss, Some(selected))
            }
            Answer::Whole(selected)
            | Answer::Part(selected, _)
            | Answer::Unsatisfiable(selected) => (Outcome::None, Some(selected)),
            _ => (Outcome::None, None),
        };
        let coding =
            selected.map(|selected| selected.resource.content_coding(selected.representation()));
        let delta = match (answer, selected) {
            (Answer::Whole(_) | Answer::Part(..), Some(selected))
                if *request.method() == Method::GET =>
            {
                match (DeltaOutcome::of(selected, request), answer) {
                    // It mostly goes on with a response that has saved all of it already.
                    (DeltaOutcome::Sent(_), Answer::Part(..)) => DeltaOutcome::Sent(0),
                    (outcome, _) => outcome,
                }
            }
            _ => DeltaOutcome::None,
        };
        let selected = selected.map(|selected| selected.representation());
        Self {
            outcome,
            delta,
            saved: match selected {
                // To HEAD no content would have been sent anyway.
                Some(selected) if outcome == Outcome::Hit && *request.method() == Method::GET => {
                    selected.length
                }
                _ => 0,
            },
            coding,
            digest: Some(manifest.digest()),
        }
    }

    /// The precondition of a write does not hold.
    pub fn failed() -> Self {
        Self {
            outcome: Outcome::Failed,
            ..Self::default()
        }
    }

    /// The same state of the site, but what was decided can't be had.
    #[must_use]
    pub fn given_up(self) -> Self {
        Self {
            digest: self.digest,
            ..Self::default()
        }
    }
}

fn asks_whether_modified(request: &impl RequestHead) -> bool {
    let fields = request.fields();
    fields.has(&header::IF_NONE_MATCH) || fields.has(&header::IF_MODIFIED_SINCE)
}

/// What is known of a request and its response so far.
#[derive(Debug)]
pub struct Exchange {
    verb: Verb,
    started: Instant,
    summary: AnswerSummary,
    status: Option<StatusCode>,
    /// Bytes of the body that were handed to the connection, and those still to come.
    sent: u64,
    remaining: u64,
    is_unproven: bool,
    record: Option<Box<Record>>,
}

/// What only the access log wants to know.
#[derive(Debug)]
struct Record {
    time: SystemTime,
    client: Peer,
    method: Method,
    target: Box<str>,
    host: Option<Box<str>>,
    request_id: Option<Box<str>>,
    version: Version,
    door: Door,
    referer: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    tag: Option<HeaderValue>,
}

impl Exchange {
    /// A request from `peer` whose head was read by `door`, and that somebody has begun to answer at
    /// `started`. Without a log nothing is allocated, and `peer` is not asked for.
    pub fn new(
        request: &impl RequestHead,
        peer: impl FnOnce() -> Peer,
        door: Door,
        started: Instant,
        log: Option<&AccessLog>,
    ) -> Self {
        let record = log.map(|log| {
            let peer = peer();
            Record {
                time: SystemTime::now().max(SystemTime::UNIX_EPOCH),
                client: log.client(peer, request.fields()),
                method: request.method().clone(),
                target: request.target().into(),
                host: host(request).map(Box::from),
                request_id: log.request_id(peer, request.fields()).map(Box::from),
                version: request.version(),
                door,
                referer: copy_of(request, &header::REFERER),
                user_agent: copy_of(request, &header::USER_AGENT),
                tag: None,
            }
        });
        Self {
            verb: Verb::from(request.method()),
            started,
            summary: AnswerSummary::default(),
            status: None,
            sent: 0,
            remaining: 0,
            is_unproven: false,
            record: record.map(Box::new),
        }
    }

    /// Notes what was decided, the response's head, and the length of the body that is to follow.
    ///
    /// `tag` is asked for the response's `ETag` only if somebody wants to know.
    pub fn respond(
        &mut self,
        status: StatusCode,
        tag: impl FnOnce() -> Option<HeaderValue>,
        length: u64,
        summary: &AnswerSummary,
    ) {
        self.summary = *summary;
        self.status = Some(status);
        self.remaining = length;
        if let Some(record) = &mut self.record {
            record.tag = tag();
        }
    }

    /// Notes that so many bytes of the body were handed to the connection.
    pub fn sent(&mut self, bytes: u64) {
        self.sent += bytes;
        self.remaining = self.remaining.saturating_sub(bytes);
    }

    /// Bytes of the body that are still to come.
    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    /// Notes that the body ends here, because its next bytes can't be proven.
    pub fn cut(&mut self) {
        self.is_unproven = true;
    }

    /// The end: counts it, and writes it down.
    pub fn finish(&mut self, metrics: &Metrics, log: Option<&AccessLog>) {
        let elapsed = self.started.elapsed();
        if let Some(status) = self.status {
            metrics.answered(self.verb, status, self.summary.outcome, elapsed);
        }
        if self.sent > 0 {
            metrics.body_bytes.add(self.sent);
        }
        if self.summary.saved > 0 {
            metrics.saved_bytes.add(self.summary.saved);
        }
        match self.summary.delta {
            DeltaOutcome::None => {}
            DeltaOutcome::Sent(saved) => {
                metrics.deltas.increment();
                metrics.delta_saved_bytes.add(saved);
            }
            DeltaOutcome::Unknown => metrics.unknown_dictionaries.increment(),
        }
        let is_cut = self.remaining > 0 || self.status.is_none();
        match (is_cut, self.is_unproven) {
            (false, _) => {}
            (true, true) => metrics.cut.increment(),
            (true, false) => metrics.abandoned.increment(),
        }
        if let (Some(record), Some(log)) = (self.record.take(), log) {
            log.write(&AccessEntry {
                time: record.time,
                client: record.client,
                method: &record.method,
                target: &record.target,
                host: record.host.as_deref(),
                request_id: record.request_id.as_deref(),
                version: record.version,
                door: record.door,
                status: self.status,
                bytes: self.sent,
                is_cut,
                elapsed,
                tag: record.tag.as_ref(),
                outcome: self.summary.outcome,
                coding: self.summary.coding,
                digest: self.summary.digest,
                referer: record.referer.as_ref(),
                user_agent: record.user_agent.as_ref(),
            });
        }
    }
}

/// A copy of a field: a clone of it would pin the whole header section for as long as the response
/// takes.
fn copy_of(request: &impl RequestHead, name: &HeaderName) -> Option<HeaderValue> {
    let value = request.fields().lines(name).next()?;
    HeaderValue::from_bytes(value).ok()
}

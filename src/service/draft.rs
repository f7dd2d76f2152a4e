//! From an [`Answer`] to a response whose content is still to be proven.

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use tokio::sync::mpsc::Receiver;

use super::Service;
use super::fields::{
    BYTES, NOSNIFF, describes_content, description, digest, follow_rules, follow_rules_for_errors,
    validators,
};
use super::pages::{PLAIN, error, error_with_tail, negotiated_error, nothing_here};
use crate::answer::{Answer, Selected, answer};
use crate::body::Segments;
use crate::dev::DevResponse;
use crate::exchange::Exchange;
use crate::manifest::Manifest;
use crate::readiness::Phase;
use crate::representation::{Data, NO_STORE, REVALIDATE, Representation, Resource, visible};
use crate::semantics::range::{ByteRange, Selection, unsatisfied_range};

const ALLOW: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");
const ALLOW_HEALTH: HeaderValue = HeaderValue::from_static("GET, HEAD");
const ALLOW_WRITING: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS, PUT, DELETE");
const ANY: HeaderValue = HeaderValue::from_static("*");
pub(super) const ETAGD_DIGEST: HeaderName = HeaderName::from_static("etagd-digest");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");
const SCRIPT: HeaderValue = HeaderValue::from_static("text/javascript; charset=utf-8");

/// A response whose content is still to be attached.
pub(super) type Draft = Response<Content>;

pub(super) enum Content {
    Memory(Bytes),
    /// To be proven first.
    Segments(Segments),
    /// What comes as it happens.
    Stream(Receiver<Bytes>),
}

impl Content {
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Memory(bytes) if bytes.is_empty())
    }
}

impl Service {
    pub(super) fn draft(
        &self,
        manifest: &Manifest,
        request: &Parts,
        exchange: &mut Exchange,
    ) -> Draft {
        let answer = answer(manifest, request);
        exchange.decide(&answer, manifest, request);
        let mut draft = self.draft_of(answer, manifest, request);
        if self.disclosure.digest_header {
            let digest = manifest.digest_value().clone();
            draft.headers_mut().insert(ETAGD_DIGEST, digest);
        }
        draft
    }

    fn draft_of(&self, answer: Answer<'_>, manifest: &Manifest, request: &Parts) -> Draft {
        let settings = manifest.settings();
        let is_head = request.method == Method::HEAD;
        match answer {
            Answer::NotModified(selected) => {
                let mut draft = empty(StatusCode::NOT_MODIFIED, 4);
                let fields = draft.headers_mut();
                validators(fields, &selected);
                // RFC 9110 section 15.4.5: nothing about content that is not sent.
                follow_rules(fields, &selected, |name| {
                    *name == header::CONTENT_LOCATION || !describes_content(name)
                });
                draft
            }
            Answer::Whole(selected) => {
                let mut draft = self.whole(&selected, is_head);
                digest(draft.headers_mut(), &selected, settings, request);
                draft
            }
            Answer::Part(selected, part) => {
                let mut draft = self.part(&selected, &part);
                digest(draft.headers_mut(), &selected, settings, request);
                draft
            }
            Answer::PreconditionFailed(selected) => {
                let mut draft = negotiated_error(StatusCode::PRECONDITION_FAILED, &selected);
                follow_rules_for_errors(draft.headers_mut(), manifest, request);
                draft
            }
            Answer::Unsatisfiable(selected) => {
                let mut draft = negotiated_error(StatusCode::RANGE_NOT_SATISFIABLE, &selected);
                follow_rules_for_errors(draft.headers_mut(), manifest, request);
                let length = selected.representation().length;
                let fields = draft.headers_mut();
                fields.insert(header::CONTENT_RANGE, visible(&unsatisfied_range(length)));
                fields.insert(header::ACCEPT_RANGES, BYTES);
                draft
            }
            Answer::Redirect(status, location) => {
                let mut draft = empty(status, 4);
                let fields = draft.headers_mut();
                fields.insert(header::LOCATION, visible(&location));
                fields.insert(header::CACHE_CONTROL, REVALIDATE);
                fields.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
                draft
            }
            Answer::NotFound(status, page) => {
                let mut draft = match page {
                    Some(page) => self.not_found(status, page, is_head),
                    None => {
                        let tail = settings.additions.tail;
                        let sentence = nothing_here(status);
                        error_with_tail(status, sentence, is_head, tail).map(Content::Memory)
                    }
                };
                follow_rules_for_errors(draft.headers_mut(), manifest, request);
                draft
            }
            Answer::Options => {
                let mut draft = empty(StatusCode::NO_CONTENT, 2);
                draft.headers_mut().insert(header::ALLOW, self.allow());
                // What lets other origins read an answer has to be said when they ask before.
                follow_rules_for_errors(draft.headers_mut(), manifest, request);
                draft
            }
            Answer::Refused(status, reason) => {
                let mut page = error(status, &reason, is_head);
                if status == StatusCode::METHOD_NOT_ALLOWED {
                    page.headers_mut().insert(header::ALLOW, self.allow());
                }
                page.map(Content::Memory)
            }
        }
    }

    /// The methods that have an answer.
    fn allow(&self) -> HeaderValue {
        match self.writer {
            Some(_) => ALLOW_WRITING,
            None => ALLOW,
        }
    }

    /// Liveness, for balancers that can reach no other port. While draining it is 503: they take
    /// it for readiness.
    pub(super) fn health(&self, method: &Method) -> Draft {
        let (status, text) = match (method, self.readiness.phase()) {
            (&Method::GET | &Method::HEAD, Phase::Draining) => {
                (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
            }
            (&Method::GET | &Method::HEAD, _) => (StatusCode::OK, "alive\n"),
            _ => (StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only\n"),
        };
        let mut draft = empty(status, 5);
        let fields = draft.headers_mut();
        fields.insert(header::CACHE_CONTROL, NO_STORE);
        fields.insert(header::CONTENT_TYPE, PLAIN);
        fields.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
        if status == StatusCode::METHOD_NOT_ALLOWED {
            fields.insert(header::ALLOW, ALLOW_HEALTH);
        }
        if method == Method::HEAD {
            fields.insert(header::CONTENT_LENGTH, HeaderValue::from(text.len()));
            return draft;
        }
        draft.map(|_| Content::Memory(Bytes::from_static(text.as_bytes())))
    }

    /// 200, or its fields alone.
    fn whole(&self, selected: &Selected<'_>, is_head: bool) -> Draft {
        let mut draft = empty(StatusCode::OK, 8);
        let fields = draft.headers_mut();
        validators(fields, selected);
        description(fields, selected);
        fields.insert(
            header::CONTENT_TYPE,
            selected.resource.fields.content_type.clone(),
        );
        follow_rules(fields, selected, |_| true);
        self.attach(draft, selected.representation(), is_head)
    }

    /// 206: one part, or several as multipart/byteranges (RFC 9110 section 14.6).
    fn part(&self, selected: &Selected<'_>, part: &Selection) -> Draft {
        let representation = selected.representation();
        let length = representation.length;
        let content_type = &selected.resource.fields.content_type;
        let mut draft = empty(StatusCode::PARTIAL_CONTENT, 9);
        let fields = draft.headers_mut();
        validators(fields, selected);
        description(fields, selected);
        follow_rules(fields, selected, |_| true);
        let mut segments = Segments::default();
        let push = |segments: &mut Segments, range: &ByteRange| {
            segments.push_data(representation, range.first(), range.length(), &self.memory);
        };
        match part {
            Selection::One(range) => {
                fields.insert(header::CONTENT_TYPE, content_type.clone());
                fields.insert(header::CONTENT_RANGE, visible(&range.content_range(length)));
                push(&mut segments, range);
            }
            Selection::Many(ranges) => {
                let boundary = boundary(selected, ranges);
                let multipart = format!("multipart/byteranges; boundary={boundary}");
                fields.insert(header::CONTENT_TYPE, visible(&multipart));
                let mut line_end = "";
                for range in ranges {
                    let content_range = range.content_range(length);
                    let mut head =
                        format!("{line_end}--{boundary}\r\nContent-Range: {content_range}\r\n");
                    if let Ok(content_type) = content_type.to_str() {
                        head += &format!("Content-Type: {content_type}\r\n");
                    }
                    segments.push_bytes((head + "\r\n").into());
                    push(&mut segments, range);
                    line_end = "\r\n";
                }
                segments.push_bytes(format!("\r\n--{boundary}--\r\n").into());
            }
            Selection::Whole | Selection::Unsatisfiable => {}
        }
        draft.map(|_| Content::Segments(segments))
    }

    /// 404, or its like, with the site's own page: no tag, no conditions, no range.
    fn not_found(&self, status: StatusCode, page: &Resource, is_head: bool) -> Draft {
        let mut draft = empty(status, 4);
        let fields = draft.headers_mut();
        fields.insert(header::CACHE_CONTROL, NO_STORE);
        fields.insert(header::CONTENT_TYPE, page.fields.content_type.clone());
        fields.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
        self.attach(draft, &page.identity, is_head)
    }

    fn attach(&self, mut draft: Draft, representation: &Representation, is_head: bool) -> Draft {
        if is_head {
            let length = HeaderValue::from(representation.length);
            draft.headers_mut().insert(header::CONTENT_LENGTH, length);
            return draft;
        }
        draft.map(|_| match &representation.data {
            Data::Memory(bytes) => Content::Memory(bytes.clone()),
            Data::File(_) => {
                let mut segments = Segments::default();
                segments.push_data(representation, 0, representation.length, &self.memory);
                Content::Segments(segments)
            }
        })
    }
}

/// Derived from the tag and the ranges, so that replicas agree. No content can hold the boundary
/// of its own parts: it would have to hold a hash of itself.
fn boundary(selected: &Selected<'_>, ranges: &[ByteRange]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(selected.representation().etag.hash());
    for range in ranges {
        hasher.update(&range.first().to_le_bytes());
        hasher.update(&range.last().to_le_bytes());
    }
    hasher.finalize().to_hex().chars().take(32).collect()
}

pub(super) fn empty(status: StatusCode, fields: usize) -> Draft {
    let mut draft = Response::new(Content::Memory(Bytes::new()));
    *draft.status_mut() = status;
    *draft.headers_mut() = HeaderMap::with_capacity(fields);
    draft
}

/// What is answered in place of the site.
pub(super) fn dev_response(aside: DevResponse, request: &Parts) -> Draft {
    let (content_type, content) = match aside {
        DevResponse::Refused(status, sentence) => {
            let is_head = request.method == Method::HEAD;
            return error(status, &sentence, is_head).map(Content::Memory);
        }
        DevResponse::Preflight => {
            let mut draft = empty(StatusCode::NO_CONTENT, 4);
            let fields = draft.headers_mut();
            fields.insert(header::ACCESS_CONTROL_ALLOW_METHODS, ANY);
            fields.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, ANY);
            return draft;
        }
        DevResponse::Script(text) => (SCRIPT, Content::Memory(Bytes::from_static(text.as_bytes()))),
        DevResponse::Events(stream) => (EVENTS, Content::Stream(stream)),
    };
    let mut draft = empty(StatusCode::OK, 3);
    let fields = draft.headers_mut();
    fields.insert(header::CACHE_CONTROL, NO_STORE);
    fields.insert(header::CONTENT_TYPE, content_type);
    fields.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    draft.map(|_| content)
}

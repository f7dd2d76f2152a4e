//! One request in, one response out.
//!
//! The only place where an [`Answer`] becomes a response: it picks the fields that the manifest
//! has prepared and attaches the body. `Date` is hyper's, and so is the `Content-Length` of a
//! response that has its body.

use std::convert::Infallible;
use std::error::Error;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version};
use tokio::sync::mpsc::Receiver;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep, timeout_at};

use crate::access::AccessLog;
use crate::answer::{self, Answer, Selected, Terms, answer};
use crate::body::{Attend, Body, BodyError, Segments};
use crate::client::Peer;
use crate::config::{Disclosure, ReprDigest, Settings, Upstream};
use crate::dev::{self, Aside, Dev};
use crate::exchange::Exchange;
use crate::manifest::Manifest;
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::page::{self, Page};
use crate::readiness::{Phase, Readiness};
use crate::representation::{
    Data, IMMUTABLE, NO_STORE, REVALIDATE, Representation, Resource, visible,
};
use crate::semantics::digest::{repr_digest, wants_sha256};
use crate::semantics::range::{ByteRange, Selection, unsatisfied_range};
use crate::semantics::target::Target;
use crate::site::Site;
use crate::write::{self, Refusal, Writer, Written, is_write};

const ALLOW: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");
const ALLOW_HEALTH: HeaderValue = HeaderValue::from_static("GET, HEAD");
const ALLOW_WRITING: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS, PUT, DELETE");
const ANY: HeaderValue = HeaderValue::from_static("*");
const BEARER: HeaderValue = HeaderValue::from_static("Bearer realm=\"etagd\"");
const BYTES: HeaderValue = HeaderValue::from_static("bytes");
const CLOSE: HeaderValue = HeaderValue::from_static("close");
const ETAGD_DIGEST: HeaderName = HeaderName::from_static("etagd-digest");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const POLICY: HeaderValue = HeaderValue::from_static(page::CONTENT_SECURITY_POLICY);
const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");
const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");
const SCRIPT: HeaderValue = HeaderValue::from_static("text/javascript; charset=utf-8");
const SOON: HeaderValue = HeaderValue::from_static("1");
const ZERO: HeaderValue = HeaderValue::from_static("0");
/// How long a request waits for the truth about a file that is not what the manifest says: the
/// longest quiet period, and time to hash it.
const RECOVERY: Duration = Duration::from_secs(3);
/// How often a request is answered anew before it is answered 503. One look can miss the change,
/// if it was under way already.
const LOOKS: u32 = 3;
/// `Vary` of what has several codings.
const BY_CODING: HeaderValue = HeaderValue::from_static("accept-encoding");
/// `Vary` of what only a request for a page is answered with.
const BY_PURPOSE: HeaderValue = HeaderValue::from_static("sec-fetch-mode, accept");
/// `Vary` of what is a page for people and JSON for programs.
const BY_FORM: HeaderValue = HeaderValue::from_static("accept");
/// `Vary` of both.
const BY_PURPOSE_AND_CODING: HeaderValue =
    HeaderValue::from_static("sec-fetch-mode, accept, accept-encoding");

/// Answers requests from one site.
#[derive(Debug)]
pub struct Service {
    site: Arc<Site>,
    memory: Arc<Memory>,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
    disclosure: Disclosure,
    writer: Option<Arc<Writer>>,
    access: Option<Arc<AccessLog>>,
    dev: Option<Arc<Dev>>,
}

/// The connection that a request came over. It is held until the response is over.
pub trait Connection: Send + Sync + Unpin + 'static {
    /// Admits the responses that read files: each pins memory until its client takes it.
    fn admission(&self) -> Arc<Semaphore>;

    /// Who is at its other end.
    fn peer(&self) -> Peer;

    /// Notes that content of the request has come: no response can be expected yet.
    fn received(&self);
}

/// A response whose content is still to be attached.
type Draft = Response<Content>;

enum Content {
    Memory(Bytes),
    /// To be proven first.
    Segments(Segments),
    /// What comes as it happens.
    Stream(Receiver<Bytes>),
}

impl Content {
    fn is_empty(&self) -> bool {
        matches!(self, Self::Memory(bytes) if bytes.is_empty())
    }
}

impl Service {
    /// A service whose bodies are held within `memory`.
    pub fn new(
        site: Arc<Site>,
        memory: Arc<Memory>,
        metrics: Arc<Metrics>,
        readiness: Arc<Readiness>,
        disclosure: Disclosure,
    ) -> Self {
        Self {
            site,
            memory,
            metrics,
            readiness,
            disclosure,
            access: None,
            dev: None,
            writer: None,
        }
    }

    /// The same with a line in `log` for each request.
    #[must_use]
    pub fn logging_to(self, log: Option<Arc<AccessLog>>) -> Self {
        Self {
            access: log,
            ..self
        }
    }

    /// The same with what a developer's server adds.
    #[must_use]
    pub fn developing(self, dev: Option<Arc<Dev>>) -> Self {
        Self { dev, ..self }
    }

    /// The same for a site that clients may change.
    #[must_use]
    pub fn writing(self, writer: Option<Arc<Writer>>) -> Self {
        Self { writer, ..self }
    }

    /// The counters that this service moves.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Answers one request, whose content only a write wants. `connection` is held until the
    /// response is over.
    pub fn call<G, B>(self: &Arc<Self>, request: Parts, content: B, connection: G) -> Pending<G>
    where
        G: Connection,
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let reply = self.reply(request, content, connection);
        match self.dev.as_ref().map_or(Duration::ZERO, |dev| dev.delay()) {
            Duration::ZERO => reply,
            delay => Pending::Later(Box::pin(async move {
                sleep(delay).await;
                reply.get().await
            })),
        }
    }

    fn reply<G, B>(self: &Arc<Self>, request: Parts, content: B, connection: G) -> Pending<G>
    where
        G: Connection,
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let log = self.access.as_deref();
        let mut attendant = Attendant {
            service: Arc::clone(self),
            exchange: Exchange::new(&request, connection.peer(), log),
            connection,
            admitted: None,
        };
        let aside = self.dev.as_ref().and_then(|dev| dev.reply(&request));
        let draft = match (aside, &self.disclosure.health, &self.writer) {
            (Some(aside), ..) => beside_the_site(aside, &request),
            (_, Some(path), _) if path.as_str() == request.uri.path() => {
                self.health(&request.method)
            }
            (_, _, Some(writer)) if is_write(&request.method) => {
                let write = attendant.write(Arc::clone(writer), request, content);
                return Pending::Later(Box::pin(write));
            }
            _ => match self.upstream(request.uri.path()) {
                None => self.draft(&self.site.current(), &request, &mut attendant.exchange),
                Some((dev, upstream)) => {
                    let forward = attendant.forward(dev, upstream, request, content);
                    return Pending::Later(Box::pin(forward));
                }
            },
        };
        let (mut head, content) = draft.into_parts();
        self.finish(&mut head, content.is_empty(), &request);
        if let (Some(dev), Content::Memory(page)) = (&self.dev, &content) {
            dev.look_at(&request, &head, page);
        }
        match content {
            Content::Memory(bytes) => Pending::Now(ready(attendant.reply(head, bytes))),
            Content::Stream(stream) => {
                attendant.exchange.respond(&head, 0);
                let body = Body::stream(stream, attendant);
                Pending::Now(ready(Response::from_parts(head, body)))
            }
            Content::Segments(segments) => {
                let draft = Response::from_parts(head, segments);
                Pending::Later(Box::pin(Self::prove(draft, request, attendant)))
            }
        }
    }

    /// Sends a response once its content is proven. Where the file is not what the manifest says,
    /// it is looked at again, and the request is answered from what it is now.
    async fn prove<G>(
        mut draft: Response<Segments>,
        mut request: Parts,
        mut attendant: Attendant<G>,
    ) -> Reply<G>
    where
        G: Connection,
    {
        let service = Arc::clone(&attendant.service);
        // One client over one connection must not take all the memory there is.
        attendant.admitted = attendant.connection.admission().acquire_owned().await.ok();
        let deadline = Instant::now() + RECOVERY;
        let mut looks_left = LOOKS;
        loop {
            let looks = service.site.subscribe_looks();
            let Err(error) = draft.body_mut().prove().await else {
                let (head, segments) = draft.into_parts();
                attendant.exchange.respond(&head, segments.length());
                return Response::from_parts(head, Body::segments(segments, attendant));
            };
            service.suspect(&error);
            let is_encoded = draft.headers().contains_key(header::CONTENT_ENCODING);
            if is_encoded && error.is_suspicious() {
                // A sidecar that fails takes nobody's content away: the content itself is sent.
                request.headers.remove(header::ACCEPT_ENCODING);
            } else {
                looks_left -= 1;
            }
            let may_look = is_encoded || looked(looks, deadline).await;
            if looks_left == 0 || !error.is_suspicious() || !may_look {
                service.metrics.unavailable.increment();
                tracing::warn!("{error}: answered 503");
                let mut page = unavailable();
                for name in [header::VARY, ETAGD_DIGEST, header::CONNECTION] {
                    if let Some(value) = draft.headers_mut().remove(&name) {
                        page.headers_mut().insert(name, value);
                    }
                }
                attendant.exchange.give_up();
                let (head, page) = page.into_parts();
                return attendant.reply(head, page);
            }
            let exchange = &mut attendant.exchange;
            let again = service.draft(&service.site.current(), &request, exchange);
            let (mut head, content) = again.into_parts();
            service.finish(&mut head, content.is_empty(), &request);
            draft = match content {
                Content::Segments(segments) => Response::from_parts(head, segments),
                Content::Memory(bytes) => return attendant.reply(head, bytes),
                // A site has none.
                Content::Stream(_) => return attendant.reply(head, Bytes::new()),
            };
        }
    }

    /// The server that a path belongs to in place of the site, if any.
    fn upstream(&self, path: &str) -> Option<(Arc<Dev>, Upstream)> {
        let dev = self.dev.as_ref()?;
        Some((Arc::clone(dev), dev.upstream(path)?.clone()))
    }

    /// Has a file looked at that is not what the manifest says.
    fn suspect(&self, error: &BodyError) {
        if error.is_suspicious() {
            self.metrics.unproven.increment();
            self.site.suspect(error.path());
        }
    }

    fn draft(&self, manifest: &Manifest, request: &Parts, exchange: &mut Exchange) -> Draft {
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
    fn health(&self, method: &Method) -> Draft {
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

    /// What every response to this request says, whatever the answer.
    fn finish(&self, head: &mut http::response::Parts, is_empty: bool, request: &Parts) {
        let is_http1 = request.version <= Version::HTTP_11;
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return;
        }
        if is_http1 && self.readiness.phase() == Phase::Draining
            || request.headers.contains_key(header::TRANSFER_ENCODING)
        {
            // A client that is told with a response need not find out by losing a request. And
            // RFC 9112 section 6.1: whoever disagrees about where the request ends learns nothing
            // from what comes after it.
            head.headers.insert(header::CONNECTION, CLOSE);
        }
        let is_bodiless = matches!(
            head.status,
            StatusCode::NOT_MODIFIED | StatusCode::NO_CONTENT
        );
        if is_empty && !is_bodiless {
            // Of what is empty hyper tells a length over HTTP/1.1 alone, and not to HEAD, which says
            // what GET would.
            head.headers.entry(header::CONTENT_LENGTH).or_insert(ZERO);
        }
        if let Some(dev) = &self.dev {
            dev.dress(&mut head.headers);
        }
    }
}

/// The fields that 200, 206 and 304 share (RFC 9110 section 15.4.5).
fn validators(fields: &mut HeaderMap, selected: &Selected<'_>) {
    fields.insert(header::ETAG, selected.representation().etag_value().clone());
    if let Some(cache_control) = cache_control(selected) {
        fields.insert(header::CACHE_CONTROL, cache_control);
    }
    vary(fields, selected);
}

fn cache_control(selected: &Selected<'_>) -> Option<HeaderValue> {
    let resource = &selected.resource;
    let own = &resource.fields;
    let is_removed = || {
        let ruled = own.ruled.as_ref();
        ruled.is_some_and(|ruled| ruled.removed.contains(&header::CACHE_CONTROL))
    };
    match selected.terms {
        Terms::Pinned => Some(IMMUTABLE),
        Terms::Fallback { of_page: false } => Some(NO_STORE),
        _ if is_removed() => None,
        Terms::Named | Terms::Listed => Some(own.cache_control.clone()),
        // A file may come to be there: what stands in for it must be asked about.
        Terms::Rewritten | Terms::Fallback { of_page: true } => {
            Some(if !resource.settled || own.have_own_cache_control() {
                own.cache_control.clone()
            } else {
                REVALIDATE
            })
        }
    }
}

/// What in a request, beside its target, the choice of the answer depends on (RFC 9110 section
/// 12.5.5), and what the rules of the site name.
fn vary(fields: &mut HeaderMap, selected: &Selected<'_>) {
    let is_fallback = matches!(selected.terms, Terms::Fallback { .. } | Terms::Listed);
    let is_negotiable = selected.resource.is_negotiable();
    let ruled = selected.resource.fields.ruled.as_ref();
    let vary = match (is_fallback, is_negotiable) {
        (false, false) => None,
        (false, true) => Some(BY_CODING),
        (true, false) if selected.terms == Terms::Listed => Some(BY_FORM),
        (true, false) => Some(BY_PURPOSE),
        (true, true) => Some(BY_PURPOSE_AND_CODING),
    };
    let vary = match (vary, ruled.and_then(|ruled| ruled.vary.as_ref())) {
        (None, None) => return,
        (Some(vary), None) => vary,
        (_, Some((_, with_coding))) if is_negotiable && !is_fallback => with_coding.clone(),
        (None, Some((named, _))) => named.clone(),
        (Some(vary), Some((named, _))) => {
            let both = [vary.as_bytes(), b", ", named.as_bytes()].concat();
            HeaderValue::from_bytes(&both).unwrap_or(vary)
        }
    };
    fields.insert(header::VARY, vary);
}

/// What the rules of the site make of the fields of a response with content, or of a 304.
fn follow_rules(
    fields: &mut HeaderMap,
    selected: &Selected<'_>,
    is_wanted: impl Fn(&HeaderName) -> bool,
) {
    let Some(ruled) = &selected.resource.fields.ruled else {
        return;
    };
    if ruled.removed.contains(&header::X_CONTENT_TYPE_OPTIONS) {
        fields.remove(header::X_CONTENT_TYPE_OPTIONS);
    }
    for (name, value) in ruled.lines.iter().filter(|(name, _)| is_wanted(name)) {
        give(fields, name, value);
    }
}

/// What the rules of the site say of a path where no content is answered: not what would describe
/// that, and not for how long to keep it.
fn follow_rules_for_errors(fields: &mut HeaderMap, manifest: &Manifest, request: &Parts) {
    let headers = &manifest.rules().headers;
    if headers.is_empty() {
        return;
    }
    let Ok(target) = Target::parse(&request.uri) else {
        return;
    };
    let path = match target.collapsed() {
        Some(path) => [b"/", &path[..]].concat(),
        None => [b"/", target.path()].concat(),
    };
    let overlay = headers.overlay(&headers.matching(&path, answer::host(request)), &path);
    if overlay.removed.contains(&header::X_CONTENT_TYPE_OPTIONS) {
        fields.remove(header::X_CONTENT_TYPE_OPTIONS);
    }
    // A page of etagd's own has the policy that it needs.
    let has_policy = fields.contains_key(header::CONTENT_SECURITY_POLICY);
    for (name, value) in &overlay.lines {
        let is_other_policy = has_policy && *name == header::CONTENT_SECURITY_POLICY;
        if !describes_content(name) && !says_how_long(name) && !is_other_policy {
            give(fields, name, value);
        }
    }
    if let Some(vary) = overlay.vary {
        fields.append(header::VARY, vary);
    }
}

/// Only cookies come in several lines (RFC 6265 section 3).
fn give(fields: &mut HeaderMap, name: &HeaderName, value: &HeaderValue) {
    if name == header::SET_COOKIE {
        fields.append(name, value.clone());
    } else {
        fields.insert(name, value.clone());
    }
}

/// Whether a field is about the content of a response (RFC 9110 section 8).
fn describes_content(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("content-") && !name.starts_with("content-security-policy")
}

/// Whether a field lets caches keep a response: Cache-Control and those that some of them prefer
/// (RFC 9213).
fn says_how_long(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.ends_with("cache-control") || matches!(name, "expires" | "surrogate-control" | "pragma")
}

/// What a page says where there is nothing.
fn nothing_here(status: StatusCode) -> &'static str {
    match status {
        StatusCode::GONE => "what was here is gone for good",
        StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS => "what is here may not be shown",
        _ => "there is nothing here",
    }
}

/// The fields that 200 and 206 have beside, whatever the range.
fn description(fields: &mut HeaderMap, selected: &Selected<'_>) {
    let (resource, representation) = (&selected.resource, selected.representation());
    if let Some(date) = resource.last_modified_value() {
        fields.insert(header::LAST_MODIFIED, date.clone());
    }
    if representation.coding.extension().is_some() {
        let coding = HeaderValue::from_static(representation.coding.token());
        fields.insert(header::CONTENT_ENCODING, coding);
    }
    fields.insert(header::ACCEPT_RANGES, BYTES);
    fields.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
}

/// Repr-Digest of the selected representation, all of it, whatever the range (RFC 9530 section 3).
fn digest(fields: &mut HeaderMap, selected: &Selected<'_>, settings: &Settings, request: &Parts) {
    let is_wanted = match settings.repr_digest {
        ReprDigest::Off => false,
        ReprDigest::Wanted => wants_sha256(&request.headers),
        ReprDigest::Always => true,
    };
    if let Some(sha256) = selected
        .representation()
        .sha256
        .as_ref()
        .filter(|_| is_wanted)
    {
        fields.insert(REPR_DIGEST, visible(&repr_digest(sha256)));
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

fn empty(status: StatusCode, fields: usize) -> Draft {
    let mut draft = Response::new(Content::Memory(Bytes::new()));
    *draft.status_mut() = status;
    *draft.headers_mut() = HeaderMap::with_capacity(fields);
    draft
}

/// A 4xx about a selected representation: without a page, which a client's code would not show.
fn negotiated_error(status: StatusCode, selected: &Selected<'_>) -> Draft {
    let mut draft = empty(status, 5);
    let fields = draft.headers_mut();
    fields.insert(header::CACHE_CONTROL, NO_STORE);
    fields.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    vary(fields, selected);
    draft
}

/// 201 or 204, with the tag that the client can go on with.
fn made(written: &Written) -> Response<Bytes> {
    let (status, etag) = match written {
        Written::Created(etag) => (StatusCode::CREATED, etag.as_ref()),
        Written::Replaced(etag) => (StatusCode::NO_CONTENT, etag.as_ref()),
        Written::Deleted => (StatusCode::NO_CONTENT, None),
    };
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    if let Some(etag) = etag {
        response.headers_mut().insert(header::ETAG, visible(etag));
    }
    response
}

/// A write that was not made: one line, for it is mostly programs that write.
fn refused(refusal: Refusal) -> Response<Bytes> {
    let Refusal {
        status,
        reason,
        etag,
    } = refusal;
    let mut response = Response::new(Bytes::from(format!("{reason}\n")));
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(header::CACHE_CONTROL, NO_STORE);
    fields.insert(header::CONTENT_TYPE, PLAIN);
    fields.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    if let Some(etag) = etag {
        fields.insert(header::ETAG, visible(&etag));
    }
    match status {
        StatusCode::UNAUTHORIZED => {
            fields.insert(header::WWW_AUTHENTICATE, BEARER);
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            fields.insert(header::RETRY_AFTER, SOON);
        }
        _ => {}
    }
    response
}

/// 503: the file is not what was scanned, and what it is now is not known yet.
fn unavailable() -> Response<Bytes> {
    let text = "the content is changing, try again";
    let mut page = error(StatusCode::SERVICE_UNAVAILABLE, text, false);
    page.headers_mut().insert(header::RETRY_AFTER, SOON);
    page
}

/// Waits for the next look at the disk, until `deadline` at most.
async fn looked(mut looks: watch::Receiver<u64>, deadline: Instant) -> bool {
    timeout_at(deadline, looks.changed())
        .await
        .is_ok_and(|changed| changed.is_ok())
}

/// Keeps what must live as long as a response, and hears how it ends.
pub struct Attendant<G> {
    service: Arc<Service>,
    exchange: Exchange,
    connection: G,
    admitted: Option<OwnedSemaphorePermit>,
}

impl<G: Connection> Attendant<G> {
    /// Has a change made, and says what has become of it.
    async fn write<B>(mut self, writer: Arc<Writer>, request: Parts, mut content: B) -> Reply<G>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    {
        let (site, connection) = (&self.service.site, &self.connection);
        let received = || connection.received();
        let called = writer.call(site, &request, &mut content, connection.peer(), received);
        let response = match called.await {
            Ok(written) => made(&written),
            Err(refusal) => refused(refusal),
        };
        if response.status() == StatusCode::PRECONDITION_FAILED {
            self.exchange.fail();
        }
        let mut is_over = true;
        if request.version < Version::HTTP_2 {
            is_over = write::discard(&request, &mut content).await;
        } else {
            tokio::spawn(write::linger(content));
        }
        let (mut head, content) = response.map(Content::Memory).into_parts();
        if !is_over {
            head.headers.insert(header::CONNECTION, CLOSE);
        }
        self.service.finish(&mut head, content.is_empty(), &request);
        let bytes = match content {
            Content::Memory(bytes) => bytes,
            Content::Segments(_) | Content::Stream(_) => Bytes::new(),
        };
        self.reply(head, bytes)
    }

    /// Passes a request on to another server, and its answer back.
    async fn forward<B>(
        mut self,
        dev: Arc<Dev>,
        upstream: Upstream,
        request: Parts,
        content: B,
    ) -> Reply<G>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let (path, peer) = (request.uri.path().into(), self.connection.peer());
        let forwarded = dev.forward(&upstream, request.clone(), content, peer).await;
        let (mut head, content) = match forwarded {
            Ok(response) => response.into_parts(),
            Err(sentence) => {
                let is_head = request.method == Method::HEAD;
                let page = error(StatusCode::BAD_GATEWAY, &sentence, is_head);
                let (mut head, page) = page.into_parts();
                self.service.finish(&mut head, page.is_empty(), &request);
                return self.reply(head, page);
            }
        };
        self.service.finish(&mut head, false, &request);
        self.exchange.respond(&head, 0);
        Response::from_parts(head, Body::upstream(content, path, self))
    }

    fn reply(mut self, head: http::response::Parts, bytes: Bytes) -> Reply<G> {
        self.exchange.respond(&head, bytes.len() as u64);
        Response::from_parts(head, Body::memory(bytes, self))
    }
}

impl<G: Connection> Attend for Attendant<G> {
    fn sent(&mut self, bytes: u64) {
        self.exchange.sent(bytes);
    }

    fn cut(&mut self, error: &BodyError) {
        tracing::warn!("{error}: the response is cut");
        self.exchange.cut();
        self.service.suspect(error);
    }
}

impl<G> Drop for Attendant<G> {
    fn drop(&mut self) {
        let log = self.service.access.as_deref();
        self.exchange.finish(&self.service.metrics, log);
    }
}

/// What is answered in place of the site.
fn beside_the_site(aside: Aside, request: &Parts) -> Draft {
    let (content_type, content) = match aside {
        Aside::Refused(status, sentence) => {
            let is_head = request.method == Method::HEAD;
            return error(status, &sentence, is_head).map(Content::Memory);
        }
        Aside::Preflight => {
            let mut draft = empty(StatusCode::NO_CONTENT, 4);
            let fields = draft.headers_mut();
            fields.insert(header::ACCESS_CONTROL_ALLOW_METHODS, ANY);
            fields.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, ANY);
            return draft;
        }
        Aside::Script(text) => (SCRIPT, Content::Memory(Bytes::from_static(text.as_bytes()))),
        Aside::Events(stream) => (EVENTS, Content::Stream(stream)),
    };
    let mut draft = empty(StatusCode::OK, 3);
    let fields = draft.headers_mut();
    fields.insert(header::CACHE_CONTROL, NO_STORE);
    fields.insert(header::CONTENT_TYPE, content_type);
    fields.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    draft.map(|_| content)
}

/// A 4xx or 5xx that no cache may keep. `sentence` is escaped.
fn error(status: StatusCode, sentence: &str, is_head: bool) -> Response<Bytes> {
    error_with_tail(status, sentence, is_head, None)
}

/// The same with what a developer has at the end of every document.
fn error_with_tail(
    status: StatusCode,
    sentence: &str,
    is_head: bool,
    tail: Option<&str>,
) -> Response<Bytes> {
    let page = Page { status, sentence }.to_string() + tail.unwrap_or_default();
    let page = Bytes::from(page);
    let policy = match tail {
        None => POLICY,
        Some(_) => visible(&format_args!(
            "{}{}",
            page::CONTENT_SECURITY_POLICY,
            dev::POLICY
        )),
    };
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(header::CACHE_CONTROL, NO_STORE);
    fields.insert(header::CONTENT_SECURITY_POLICY, policy);
    fields.insert(header::CONTENT_TYPE, HTML);
    fields.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    if is_head {
        fields.insert(header::CONTENT_LENGTH, HeaderValue::from(page.len()));
    } else {
        *response.body_mut() = page;
    }
    response
}

/// A response that is there, or one that waits for the disk.
#[expect(
    clippy::large_enum_variant,
    reason = "a box for each response that is there costs more than room in those that wait"
)]
pub enum Pending<G> {
    /// There.
    Now(Ready<Reply<G>>),
    /// Waiting.
    Later(Pin<Box<dyn Future<Output = Reply<G>> + Send>>),
}

impl<G> Pending<G> {
    async fn get(self) -> Reply<G> {
        match self {
            Self::Now(ready) => ready.await,
            Self::Later(later) => later.await,
        }
    }
}

/// A response with its body.
pub type Reply<G> = Response<Body<Attendant<G>>>;

impl<G: Unpin> Future for Pending<G> {
    type Output = Result<Reply<G>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Now(ready) => Pin::new(ready).poll(cx).map(Ok),
            Self::Later(later) => later.as_mut().poll(cx).map(Ok),
        }
    }
}

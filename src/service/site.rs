//! The innermost layer: answers from the manifest, with content that is proven.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, Response, StatusCode, header};
use hyper::body::Incoming;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::at_once;
use super::content::{FileContent, SuspectReporter};
use super::dictionary::remove_unless_secure;
use super::draft::{Drafter, ETAGD_DIGEST};
use super::fields::apply_header_rules_to_error;
use super::handler::{Connection, Layer};
use super::pages::{
    BEHIND, CHANGING, TOO_MANY_WAITING, UNREACHABLE, error_page, not_found_sentence, unavailable,
};
use super::response::{
    AtOnce, Content, Draft, DraftContent, FilesAtOnce, MemoryReply, Reply, ResponseFuture,
};
use super::waiting::WaitingRequest;
use crate::answer::target_in_site;
use crate::body::{BodyError, Segments};
use crate::client::TrustedProxies;
use crate::exchange::AnswerSummary;
use crate::manifest::Manifest;
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::page::Page;
use crate::semantics::plain::PlainHead;
use crate::site::{NewerState, Newest, Site};

/// How long a request waits for the look at a file that has changed: the longest quiet period, and
/// time to hash it.
const MAX_RECOVERY: Duration = Duration::from_secs(3);
/// How many drafts of one response may fail before it is a 503. One scan is not enough: it may
/// have read the file before the change, if it was under way already.
const MAX_DRAFTS: u32 = 3;
/// Fields of a draft that the 503 in its place has as well.
const KEPT_BY_UNAVAILABLE: [HeaderName; 2] = [header::VARY, ETAGD_DIGEST];

/// Answers requests from the published manifest of one site.
#[derive(Clone, Debug)]
pub struct SiteLayer {
    site: Arc<Site>,
    metrics: Arc<Metrics>,
    drafter: Drafter,
    /// Proxies that are believed about how their clients came.
    trusted: TrustedProxies,
    /// Whether nothing but files is answered, each under its own name.
    is_for_files_alone: bool,
}

impl SiteLayer {
    /// Answers from `site`. Content that is on its way is held within `memory`.
    pub fn new(site: Arc<Site>, memory: Arc<Memory>, metrics: Arc<Metrics>) -> Self {
        let mut drafter = Drafter::new(memory);
        drafter.may_be_outdated = site.may_be_outdated();
        Self {
            site,
            metrics,
            drafter,
            trusted: TrustedProxies::default(),
            is_for_files_alone: false,
        }
    }

    /// Believes these proxies about how their clients came.
    #[must_use]
    pub fn with_trusted_proxies(mut self, trusted: TrustedProxies) -> Self {
        self.trusted = trusted;
        self
    }

    /// Answers nothing but files, each under its own name: no fallback, rule, page or listing answers
    /// for what is not there.
    #[must_use]
    pub fn for_files_alone(mut self) -> Self {
        self.is_for_files_alone = true;
        // A forced rule applies where a file is, too.
        self.drafter.ignores_redirects = true;
        self
    }

    /// Whether a request is for what this layer does not answer.
    fn is_beyond(&self, manifest: &Manifest, request: &Parts) -> bool {
        let is_file = || {
            let target = target_in_site(manifest, request);
            target.is_some_and(|target| manifest.locate(target.path()).is_some())
        };
        let shows_content = matches!(request.method, Method::GET | Method::HEAD);
        self.is_for_files_alone && shows_content && !is_file()
    }

    /// Whether each response names the state of the site that it comes from, in Etagd-Digest.
    #[must_use]
    pub fn with_digest_header(mut self, is_wanted: bool) -> Self {
        self.drafter.has_digest_header = is_wanted;
        self
    }

    /// Whether a layer in front takes PUT and DELETE: then Allow names them.
    #[must_use]
    pub fn with_writes(mut self, are_allowed: bool) -> Self {
        self.drafter.are_writes_allowed = are_allowed;
        self
    }

    /// Sends a response once its content is proven. Where a file is not what the manifest says, the
    /// file is scanned again, and the request is answered from the new state.
    async fn prove(
        self,
        mut manifest: Arc<Manifest>,
        (mut draft, mut summary): (Response<Segments>, AnswerSummary),
        mut request: WaitingRequest,
        connection: Arc<dyn Connection>,
    ) -> Reply {
        let reporter = SuspectReporter {
            site: Arc::clone(&self.site),
            metrics: Arc::clone(&self.metrics),
        };
        // The semaphore of a connection is never closed.
        let read_permit = connection.read_permits().acquire_owned().await.ok();
        let deadline = Instant::now() + MAX_RECOVERY;
        let mut drafts_left = MAX_DRAFTS;
        loop {
            // Before the proof: a look at the disk that ends while it is under way must not be missed.
            let looks = self.site.subscribe_looks();
            let Err(error) = draft.body_mut().prove().await else {
                let response = draft.map(|segments| {
                    Content::File(Box::new(FileContent::new(segments, reporter, read_permit)))
                });
                return Reply { response, summary };
            };
            reporter.report(&error);
            // What is compressed under its own name has no other form: it is encoded whatever is
            // accepted, and is waited for like any file.
            let is_encoded = draft.headers().contains_key(header::CONTENT_ENCODING)
                && request.parts.headers.contains_key(header::ACCEPT_ENCODING);
            if is_encoded && error.is_of_content() {
                // A sidecar that fails takes nobody's content away: the content itself is sent.
                request.parts.headers.remove(header::ACCEPT_ENCODING);
            } else {
                drafts_left -= 1;
            }
            // Where another version was published since, nothing has to be waited for. No look at the
            // disk finds what a store does not give.
            let is_outdated = !Arc::ptr_eq(&manifest, &self.site.current());
            let may_go_on = (is_encoded || is_outdated) && error.is_of_content()
                || error.is_suspicious() && wait_for_look(looks, deadline).await;
            if drafts_left == 0 || !may_go_on {
                let sentence = match error {
                    BodyError::Remote(_) => UNREACHABLE,
                    _ => CHANGING,
                };
                let page = in_place_of(draft.headers(), sentence, &manifest, &request.parts);
                return self.give_up(page, &error, summary);
            }
            manifest = Arc::clone(&self.site.current());
            let (new_draft, new_summary) = self.drafter.draft(&manifest, &request.parts);
            summary = new_summary;
            let (head, content) = new_draft.into_parts();
            draft = match content {
                DraftContent::Segments(segments) => Response::from_parts(head, segments),
                DraftContent::Memory(bytes) => {
                    let response = Response::from_parts(head, Content::Memory(bytes));
                    return Reply { response, summary };
                }
            };
        }
    }

    /// The reply with a draft: now, or when its content is proven.
    fn reply_with(
        &self,
        (draft, summary): (Draft, AnswerSummary),
        manifest: &Arc<Manifest>,
        parts: &Parts,
        connection: &Arc<dyn Connection>,
    ) -> ResponseFuture {
        let (head, content) = draft.into_parts();
        match content {
            DraftContent::Memory(bytes) => ResponseFuture::now(Reply {
                response: Response::from_parts(head, Content::Memory(bytes)),
                summary,
            }),
            DraftContent::Segments(segments) => {
                let Some(request) = WaitingRequest::new(parts, connection, &self.metrics) else {
                    return self.refuse(&head.headers, summary, manifest, parts);
                };
                let draft = Response::from_parts(head, segments);
                let (layer, connection) = (self.clone(), Arc::clone(connection));
                let manifest = Arc::clone(manifest);
                let draft = (draft, summary);
                ResponseFuture::later(layer.prove(manifest, draft, request, connection))
            }
        }
    }

    /// Answers from what is published when it is known whether that is the newest state of the site.
    async fn reply_from_newest(
        self,
        newer: NewerState,
        request: WaitingRequest,
        connection: Arc<dyn Connection>,
    ) -> Reply {
        let has_it = |manifest: &Arc<Manifest>| {
            let (draft, _) = self.drafter.draft(manifest, &request.parts);
            !(self.drafter).may_be_elsewhere(draft.status(), manifest, &request.parts)
        };
        let is_behind = match newer.await {
            Newest::Published => false,
            // Who asks for names by chance does not wait for what has none of them.
            Newest::Pending(next) => {
                next.manifest.as_ref().is_none_or(has_it) && !next.publication.await
            }
        };
        let manifest = Arc::clone(&self.site.current());
        let (draft, summary) = self.drafter.draft(&manifest, &request.parts);
        let is_missing = (self.drafter).may_be_elsewhere(draft.status(), &manifest, &request.parts);
        if is_missing && is_behind {
            self.metrics.unavailable.increment();
            let page = in_place_of(draft.headers(), BEHIND, &manifest, &request.parts);
            return Reply {
                summary: summary.given_up(),
                ..Reply::from(page)
            };
        }
        self.reply_with((draft, summary), &manifest, &request.parts, &connection)
            .await
    }

    /// Answers that too much waits on a connection.
    fn refuse(
        &self,
        draft: &HeaderMap,
        summary: AnswerSummary,
        manifest: &Manifest,
        parts: &Parts,
    ) -> ResponseFuture {
        self.metrics.refused_requests.increment();
        let page = in_place_of(draft, TOO_MANY_WAITING, manifest, parts);
        ResponseFuture::now(Reply {
            summary: summary.given_up(),
            ..Reply::from(page)
        })
    }

    /// Answers `page`, because the content of a draft can't be had.
    fn give_up(&self, page: Response<Bytes>, error: &BodyError, summary: AnswerSummary) -> Reply {
        self.metrics.unavailable.increment();
        let path = error.path().display();
        match error {
            // A store that is away is named once, and not by each request.
            BodyError::Remote(_) => {
                tracing::debug!(%path, status = 503, %error, "{error}: answered 503");
            }
            _ => tracing::warn!(%path, status = 503, %error, "{error}: answered 503"),
        }
        Reply {
            summary: summary.given_up(),
            ..Reply::from(page)
        }
    }
}

impl Layer for SiteLayer {
    fn respond(
        &self,
        mut parts: Parts,
        _content: Incoming,
        connection: &Arc<dyn Connection>,
    ) -> ResponseFuture {
        // Loaded once: a response comes from one state of the site, whatever is published
        // meanwhile (promise P4).
        let manifest = self.site.current();
        if self.is_beyond(&manifest, &parts) {
            return ResponseFuture::now(nothing_here(&parts));
        }
        remove_unless_secure(&mut parts, &**connection, &self.trusted);
        let (draft, summary) = self.drafter.draft(&manifest, &parts);
        if self
            .drafter
            .may_be_elsewhere(draft.status(), &manifest, &parts)
            && let Some(newer) = self.site.newer_state()
        {
            let Some(request) = WaitingRequest::new(&parts, connection, &self.metrics) else {
                return self.refuse(draft.headers(), summary, &manifest, &parts);
            };
            let (layer, connection) = (self.clone(), Arc::clone(connection));
            return ResponseFuture::later(layer.reply_from_newest(newer, request, connection));
        }
        self.reply_with((draft, summary), &manifest, &parts, connection)
    }

    fn respond_at_once(
        &self,
        request: &PlainHead<'_, '_>,
        files: FilesAtOnce,
        head: &mut Vec<u8>,
    ) -> AtOnce<MemoryReply> {
        if self.is_for_files_alone {
            return AtOnce::NeedsHyper;
        }
        // Loaded once, as above.
        let manifest = self.site.current();
        at_once::reply(&self.drafter, &manifest, request, files, head)
    }
}

/// A 404 that needs nothing of the site.
fn nothing_here(request: &Parts) -> Response<Bytes> {
    let status = StatusCode::NOT_FOUND;
    let page = Page {
        status,
        sentence: not_found_sentence(status),
        path: request.uri.path(),
        home: None,
    };
    error_page(page, request.method == Method::HEAD)
}

/// A 503 in place of a draft: like any error it has the fields that rules give it, so that a page of
/// another origin can read it.
fn in_place_of(
    draft: &HeaderMap,
    sentence: &str,
    manifest: &Manifest,
    request: &Parts,
) -> Response<Bytes> {
    let mut page = unavailable(manifest, request, sentence);
    let fields = page.headers_mut();
    apply_header_rules_to_error(fields, manifest, request);
    for name in KEPT_BY_UNAVAILABLE {
        if let Some(value) = draft.get(&name) {
            fields.insert(name, value.clone());
        }
    }
    page
}

/// Waits for the end of the next look at the disk. Returns whether there was one before `deadline`.
async fn wait_for_look(mut looks: watch::Receiver<u64>, deadline: Instant) -> bool {
    timeout_at(deadline, looks.changed())
        .await
        .is_ok_and(|changed| changed.is_ok())
}

//! From an [`Answer`] to a response whose content is still to be proven: pure.

use std::sync::Arc;

use http::header::{self, HeaderName};
use http::{HeaderValue, Method, StatusCode};

use super::fields::{
    BYTES, NOSNIFF, add_description, add_dictionary_use, add_repr_digest, add_validators,
    apply_header_rules, apply_header_rules_to_error, describes_content,
};
use super::pages::{
    describe_own_page, error_page, error_page_with_tail, error_without_page, not_found_sentence,
    page_about,
};
use super::response::{Draft, DraftContent, empty};
use crate::answer::{Answer, Selected, answer, answer_without_redirects, target_in_site};
use crate::body::Segments;
use crate::exchange::AnswerSummary;
use crate::manifest::Manifest;
use crate::memory::Memory;
use crate::representation::{Data, REVALIDATE, Representation, Resource, visible};
use crate::semantics::head::RequestHead;
use crate::semantics::navigation::looks_like_page;
use crate::semantics::range::{ByteRange, Selection, unsatisfied_range};

const ALLOW: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");
const ALLOW_WRITING: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS, PUT, DELETE");
pub(super) const ETAGD_DIGEST: HeaderName = HeaderName::from_static("etagd-digest");

/// Turns answers into drafts.
#[derive(Clone, Debug)]
pub(super) struct Drafter {
    pub(super) memory: Arc<Memory>,
    pub(super) has_digest_header: bool,
    pub(super) are_writes_allowed: bool,
    /// Whether no rule of `_redirects` applies.
    pub(super) ignores_redirects: bool,
    /// Whether what the site has not may be in a newer state of it, elsewhere.
    pub(super) may_be_outdated: bool,
}

impl Drafter {
    pub(super) fn new(memory: Arc<Memory>) -> Self {
        Self {
            memory,
            has_digest_header: false,
            are_writes_allowed: false,
            ignores_redirects: false,
            may_be_outdated: false,
        }
    }

    /// Whether a request has found nothing, for something that a newer state of the site may have: what
    /// a page of that state needs, say, which another server has sent. Pages themselves can wait.
    pub(super) fn may_be_elsewhere(
        &self,
        status: StatusCode,
        manifest: &Manifest,
        request: &impl RequestHead,
    ) -> bool {
        self.may_be_outdated
            && status == StatusCode::NOT_FOUND
            && target_in_site(manifest, request)
                .is_some_and(|target| !is_path_of_page(target.path()))
    }

    /// Drafts the response to a request from one state of the site, and says what was decided.
    pub(super) fn draft(
        &self,
        manifest: &Manifest,
        request: &impl RequestHead,
    ) -> (Draft, AnswerSummary) {
        let answer = match self.ignores_redirects {
            true => answer_without_redirects(manifest, request),
            false => answer(manifest, request),
        };
        let summary = AnswerSummary::new(&answer, manifest, request);
        (self.draft_answer(answer, manifest, request), summary)
    }

    /// Drafts the response to a request that has this answer.
    pub(super) fn draft_answer(
        &self,
        answer: Answer<'_>,
        manifest: &Manifest,
        request: &impl RequestHead,
    ) -> Draft {
        let mut draft = self.draft_fields(answer, manifest, request);
        if self.has_digest_header {
            let digest = manifest.digest_value().clone();
            draft.headers_mut().insert(ETAGD_DIGEST, digest);
        }
        draft
    }

    fn draft_fields(
        &self,
        answer: Answer<'_>,
        manifest: &Manifest,
        request: &impl RequestHead,
    ) -> Draft {
        let settings = manifest.settings();
        let is_head = *request.method() == Method::HEAD;
        match answer {
            Answer::NotModified(selected) => not_modified(&selected),
            Answer::Whole(selected) => {
                let mut draft = self.whole(&selected, is_head);
                add_repr_digest(draft.headers_mut(), &selected, settings, request);
                draft
            }
            Answer::Part(selected, part) => {
                let mut draft = self.part(&selected, &part);
                add_repr_digest(draft.headers_mut(), &selected, settings, request);
                draft
            }
            Answer::PreconditionFailed(selected) => {
                let mut draft = error_without_page(StatusCode::PRECONDITION_FAILED, &selected);
                apply_header_rules_to_error(draft.headers_mut(), manifest, request);
                draft
            }
            Answer::Unsatisfiable(selected) => {
                let mut draft = error_without_page(StatusCode::RANGE_NOT_SATISFIABLE, &selected);
                let fields = draft.headers_mut();
                apply_header_rules_to_error(fields, manifest, request);
                // RFC 9110 section 14.4: with the length a client can ask for what there is.
                let length = selected.representation().length;
                fields.insert(header::CONTENT_RANGE, visible(&unsatisfied_range(length)));
                fields.insert(header::ACCEPT_RANGES, BYTES);
                draft
            }
            Answer::Redirect(status, location) => redirect(status, &location),
            Answer::NotFound(status, page) => {
                let mut draft = match page {
                    Some(page) => self.not_found(status, page, is_head),
                    None => {
                        let page =
                            page_about(request, settings, status, not_found_sentence(status));
                        let tail = settings.additions.tail.as_deref();
                        error_page_with_tail(page, is_head, tail).map(DraftContent::Memory)
                    }
                };
                apply_header_rules_to_error(draft.headers_mut(), manifest, request);
                draft
            }
            Answer::Options => {
                let mut draft = empty(StatusCode::NO_CONTENT, 2);
                draft.headers_mut().insert(header::ALLOW, self.allow());
                // A preflight request is answered by this: the site's CORS fields belong here, too.
                apply_header_rules_to_error(draft.headers_mut(), manifest, request);
                draft
            }
            Answer::Refused(status, reason) => {
                let page = page_about(request, settings, status, &reason);
                let mut page = error_page(page, is_head);
                if status == StatusCode::METHOD_NOT_ALLOWED {
                    page.headers_mut().insert(header::ALLOW, self.allow());
                }
                apply_header_rules_to_error(page.headers_mut(), manifest, request);
                page.map(DraftContent::Memory)
            }
        }
    }

    /// The methods that have an answer (RFC 9110 section 10.2.1).
    fn allow(&self) -> HeaderValue {
        match self.are_writes_allowed {
            true => ALLOW_WRITING,
            false => ALLOW,
        }
    }

    /// 200, with all of the selected representation; to HEAD, without it.
    fn whole(&self, selected: &Selected<'_>, is_head: bool) -> Draft {
        let mut draft = empty(StatusCode::OK, 8);
        let fields = draft.headers_mut();
        add_validators(fields, selected);
        add_description(fields, selected);
        add_dictionary_use(fields, selected);
        fields.insert(
            header::CONTENT_TYPE,
            selected.resource.fields.content_type.clone(),
        );
        apply_header_rules(fields, selected, |_| true);
        self.attach(draft, selected.representation(), is_head)
    }

    /// 206: one part, or several as multipart/byteranges (RFC 9110 section 14.6).
    fn part(&self, selected: &Selected<'_>, part: &Selection) -> Draft {
        let representation = selected.representation();
        let length = representation.length;
        let content_type = &selected.resource.fields.content_type;
        let mut draft = empty(StatusCode::PARTIAL_CONTENT, 9);
        let fields = draft.headers_mut();
        add_validators(fields, selected);
        add_description(fields, selected);
        apply_header_rules(fields, selected, |_| true);
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
                // RFC 2046 section 5.1.1: the CRLF before a boundary belongs to it, not to the part.
                // zsync takes it for granted before the first one, too (RFC 9110 section 15.3.7.2
                // has it in its example).
                for range in ranges {
                    let content_range = range.content_range(length);
                    let mut head =
                        format!("\r\n--{boundary}\r\nContent-Range: {content_range}\r\n");
                    if let Ok(content_type) = content_type.to_str() {
                        head += &format!("Content-Type: {content_type}\r\n");
                    }
                    segments.push_bytes((head + "\r\n").into());
                    push(&mut segments, range);
                }
                segments.push_bytes(format!("\r\n--{boundary}--\r\n").into());
            }
            // `answer` has other answers for these.
            Selection::Whole | Selection::Unsatisfiable => {}
        }
        draft.map(|_| DraftContent::Segments(segments))
    }

    /// 404, 410 or 451 with the site's own page, to which neither conditions nor ranges apply.
    fn not_found(&self, status: StatusCode, page: &Resource, is_head: bool) -> Draft {
        let mut draft = empty(status, 4);
        describe_own_page(draft.headers_mut(), page);
        self.attach(draft, &page.identity, is_head)
    }

    fn attach(&self, mut draft: Draft, representation: &Representation, is_head: bool) -> Draft {
        if is_head {
            let length = HeaderValue::from(representation.length);
            draft.headers_mut().insert(header::CONTENT_LENGTH, length);
            return draft;
        }
        draft.map(|_| match &representation.data {
            Data::Memory(bytes) => DraftContent::Memory(bytes.clone()),
            Data::File(_) | Data::Spooled(_) | Data::Remote(_) => {
                let mut segments = Segments::default();
                segments.push_data(representation, 0, representation.length, &self.memory);
                DraftContent::Segments(segments)
            }
        })
    }
}

/// Whether a path looks like that of a page, with or without the extension of its file.
fn is_path_of_page(path: &[u8]) -> bool {
    looks_like_page(path) || path.ends_with(b".html") || path.ends_with(b".htm")
}

/// 304, with those fields of a 200 that may have changed since it was cached.
fn not_modified(selected: &Selected<'_>) -> Draft {
    let mut draft = empty(StatusCode::NOT_MODIFIED, 4);
    let fields = draft.headers_mut();
    add_validators(fields, selected);
    // RFC 9110 section 15.4.5: no metadata of content that is not sent, but Content-Location.
    apply_header_rules(fields, selected, |name| {
        *name == header::CONTENT_LOCATION || !describes_content(name)
    });
    draft
}

fn redirect(status: StatusCode, location: &str) -> Draft {
    let mut draft = empty(status, 4);
    let fields = draft.headers_mut();
    fields.insert(header::LOCATION, visible(&location));
    fields.insert(header::CACHE_CONTROL, REVALIDATE);
    fields.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    draft
}

/// The boundary of a multipart response. It is derived from the tag and the ranges, so that replicas
/// agree. No content can hold the boundary of its own parts: it would have to hold a hash of itself.
fn boundary(selected: &Selected<'_>, ranges: &[ByteRange]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(selected.representation().etag.hash());
    for range in ranges {
        hasher.update(&range.first().to_le_bytes());
        hasher.update(&range.last().to_le_bytes());
    }
    hasher.finalize().to_hex().chars().take(32).collect()
}

//! Replies to plain requests that need nothing but memory, with their head as bytes of HTTP/1.1.
//!
//! What is said is decided and drafted where all is, in [`super::draft`]; here it is only written
//! down. The heads of 200 and 304, which depend on the representation alone, are kept with it once
//! they were written.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header, response};

use super::draft::Drafter;
use super::framing::Framing;
use super::response::{AtOnce, DraftContent, FilesAtOnce, MemoryContent, MemoryReply, SealedPart};
use crate::answer::{Answer, Selected, SelectedBy, answer};
use crate::body::{FilePart, OnlySegment};
use crate::exchange::AnswerSummary;
use crate::manifest::Manifest;
use crate::memory::Memory;
use crate::representation::{Data, PreparedHead, Representation};
use crate::semantics::digest::WANT_REPR_DIGEST;
use crate::semantics::etag::ETag;
use crate::semantics::head::{FieldLines, RequestHead};
use crate::semantics::plain::PlainHead;

/// Writes status line and fields of the response behind `head`. A request that is refused is for
/// others to answer, and so is one whose content is not in memory.
pub(super) fn reply(
    drafter: &Drafter,
    manifest: &Manifest,
    request: &PlainHead<'_, '_>,
    files: FilesAtOnce,
    head: &mut Vec<u8>,
) -> AtOnce<MemoryReply> {
    let answer = answer(manifest, request);
    if matches!(answer, Answer::Refused(..)) {
        return AtOnce::NeedsHyper;
    }
    if let Answer::NotFound(status, _) = &answer
        && drafter.may_be_elsewhere(*status, manifest, request)
    {
        return AtOnce::NeedsHyper;
    }
    let summary = AnswerSummary::new(&answer, manifest, request);
    let tag = tag(&answer);
    let has_own_head = drafter.has_digest_header || request.fields().has(&WANT_REPR_DIGEST);
    let shared = SharedHead::of(&answer).filter(|_| !has_own_head);
    let prepared = shared.and_then(|shared| Some((shared, shared.prepared()?)));
    if let Some((shared, bytes)) = prepared {
        let Some(content) = shared.content(request.method()) else {
            return AtOnce::NeedsHyper;
        };
        return at_once(content, &drafter.memory, files).map(|content| {
            head.extend_from_slice(bytes);
            MemoryReply {
                status: shared.status(),
                tag,
                content,
                summary,
            }
        });
    }
    let (drafted, content) = drafter.draft_answer(answer, manifest, request).into_parts();
    let content = match content {
        DraftContent::Memory(bytes) => OnlySegment::Memory(bytes),
        DraftContent::Segments(segments) => match segments.into_only() {
            Some(only) => only,
            None => return AtOnce::NeedsHyper,
        },
    };
    at_once(content, &drafter.memory, files).map(|content| {
        let start = head.len();
        let status = drafted.status;
        write_fields(drafted, content.length(), head);
        if let Some(shared) = shared
            && let Some(kept) = drafter.memory.keep_head(&head[start..])
        {
            shared.representation.keep_head(shared.kind, kept);
        }
        MemoryReply {
            status,
            tag,
            content,
            summary,
        }
    })
}

/// Content as it can be sent now.
fn at_once(
    content: OnlySegment,
    memory: &Arc<Memory>,
    files: FilesAtOnce,
) -> AtOnce<MemoryContent> {
    let part = match content {
        OnlySegment::Memory(bytes) => return AtOnce::Reply(MemoryContent::Bytes(bytes)),
        OnlySegment::File(_) if files == FilesAtOnce::Never => return AtOnce::NeedsHyper,
        OnlySegment::File(part) => part,
    };
    if let Some(content) = memory.recall_sealed(&part.hash) {
        return AtOnce::Reply(MemoryContent::Sealed(SealedPart {
            content,
            offset: part.offset,
            length: part.length,
        }));
    }
    // All of it is read for that: not for a few bytes.
    let is_worth_it =
        part.length >= part.whole / 2 && memory.is_worth_sealing(&part.hash, part.whole);
    if files != FilesAtOnce::AfterSealing || !is_worth_it {
        return AtOnce::NeedsHyper;
    }
    let memory = Arc::clone(memory);
    AtOnce::Sealing(Box::pin(async move {
        // What is there now is found when the request is answered.
        let _ = memory.sealed(&part.hash, part.whole, &part.source).await;
    }))
}

/// The tag that the response carries.
fn tag(answer: &Answer<'_>) -> Option<ETag> {
    match answer {
        Answer::Whole(selected) | Answer::Part(selected, _) | Answer::NotModified(selected) => {
            Some(selected.representation().etag)
        }
        _ => None,
    }
}

/// A head that all responses of its kind with a representation share.
#[derive(Clone, Copy)]
struct SharedHead<'m> {
    representation: &'m Representation,
    kind: PreparedHead,
}

impl<'m> SharedHead<'m> {
    /// The shared head of an answer, if it has one. What a rule or a fallback has selected has other
    /// fields than under its own URL, and a resource that was made for the request is gone with it.
    fn of(answer: &Answer<'m>) -> Option<Self> {
        let (selected, kind) = match answer {
            Answer::Whole(selected) => (selected, PreparedHead::Whole),
            Answer::NotModified(selected) => (selected, PreparedHead::NotModified),
            _ => return None,
        };
        match selected {
            Selected {
                resource: Cow::Borrowed(resource),
                index,
                selected_by: SelectedBy::Url,
            } => Some(Self {
                representation: resource.representation(*index),
                kind,
            }),
            _ => None,
        }
    }

    fn prepared(self) -> Option<&'m Bytes> {
        self.representation.prepared_head(self.kind)
    }

    fn status(self) -> StatusCode {
        match self.kind {
            PreparedHead::Whole => StatusCode::OK,
            PreparedHead::NotModified => StatusCode::NOT_MODIFIED,
        }
    }

    /// The content that follows the head; `None` if it is neither in memory nor in a file of the site.
    fn content(self, method: &Method) -> Option<OnlySegment> {
        let representation = self.representation;
        let is_empty = self.kind == PreparedHead::NotModified || *method == Method::HEAD;
        match &representation.data {
            _ if is_empty => Some(OnlySegment::Memory(Bytes::new())),
            Data::Memory(bytes) => Some(OnlySegment::Memory(bytes.clone())),
            Data::File(source) => Some(OnlySegment::File(FilePart {
                source: Arc::clone(source),
                hash: *representation.etag.hash(),
                whole: representation.length,
                offset: 0,
                length: representation.length,
            })),
            Data::Spooled(_) | Data::Remote(_) => None,
        }
    }
}

/// Writes a status line and fields (RFC 9112 sections 4 and 5), with the length of the content.
fn write_fields(mut drafted: response::Parts, length: u64, head: &mut Vec<u8>) {
    Framing::PLAIN.finish_head(&mut drafted, length == 0, || false);
    if length > 0 {
        let length = HeaderValue::from(length);
        drafted.headers.insert(header::CONTENT_LENGTH, length);
    }
    let status = drafted.status;
    let reason = status.canonical_reason().unwrap_or_default();
    for part in ["HTTP/1.1 ", status.as_str(), " ", reason, "\r\n"] {
        head.extend_from_slice(part.as_bytes());
    }
    for (name, value) in &drafted.headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
}

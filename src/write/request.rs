//! What a request asks for, from its head alone: pure.

use http::header::{self, HeaderMap};
use http::request::Parts;
use http::{Method, StatusCode};

use super::{Refusal, WriterConfig};
use crate::answer::check_host;
use crate::client::Peer;
use crate::representation::Resource;
use crate::rules::RuleFile;
use crate::scan::is_admitted;
use crate::semantics::digest::Digests;
use crate::semantics::etag::{ETag, EntityTag, EntityTags};
use crate::semantics::target::Target;

/// Bytes of a name that any file system here takes. What is longer is refused before directories
/// are made for it.
const MAX_NAME_LENGTH: usize = 255;
/// What proxies say of those whom they speak for.
const PROXY_FIELDS: [&str; 4] = ["forwarded", "via", "x-forwarded-for", "x-real-ip"];

/// A change that a client asks for.
#[derive(Debug)]
pub(super) struct WriteRequest {
    /// The path in the site.
    pub(super) path: Box<[u8]>,
    pub(super) change: WriteAction,
    pub(super) condition: WriteCondition,
}

#[derive(Debug)]
pub(super) enum WriteAction {
    Put {
        /// Of the content, where it is known.
        length: Option<u64>,
        /// What the content must hash to.
        digests: Digests,
    },
    Delete,
}

/// Whether a request is for a [`super::Writer`].
pub fn is_write(method: &Method) -> bool {
    matches!(*method, Method::PUT | Method::DELETE | Method::PATCH)
}

/// Reads the head of a request; `is_empty` tells that no content follows it.
pub(super) fn parse(
    request: &Parts,
    options: &WriterConfig,
    is_empty: bool,
) -> Result<WriteRequest, Refusal> {
    let bad = |reason: &'static str| Refusal::new(StatusCode::BAD_REQUEST, reason);
    check_host(request).map_err(bad)?;
    if request.method == Method::PATCH {
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "no form of patch is known here: PUT the whole content",
        ));
    }
    let path = path(request, options)?;
    let condition = WriteCondition::parse(request)?;
    let change = if request.method == Method::DELETE {
        WriteAction::Delete
    } else {
        put(&request.headers, options, is_empty)?
    };
    Ok(WriteRequest {
        path,
        change,
        condition,
    })
}

/// The rules of reading, and some more.
fn path(request: &Parts, options: &WriterConfig) -> Result<Box<[u8]>, Refusal> {
    let target = Target::parse(&request.uri)
        .map_err(|refusal| Refusal::new(refusal.status(), refusal.to_string()))?;
    let path = target.path();
    let forbidden = |reason: &'static str| Err(Refusal::new(StatusCode::FORBIDDEN, reason));
    let mut names = path.split(|byte| *byte == b'/');
    if names.any(|name| name.len() > MAX_NAME_LENGTH) {
        return Err(Refusal::too_long());
    }
    if target.query().is_some() {
        let reason = "a file has no query";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, reason));
    }
    if target.is_directory() {
        let reason = "this is a directory, and no name of a file";
        return Err(Refusal::new(StatusCode::CONFLICT, reason));
    }
    if target.collapsed().is_some() {
        let reason = "a name in this path is empty";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, reason));
    }
    if !is_admitted(path) {
        return forbidden("what has such a name is not served, nor written");
    }
    if is_of_rules(path) && !options.rules {
        return forbidden("the rules of this site can't be changed by its clients");
    }
    Ok(path.into())
}

/// Whether a path names rules, on a file system that may not tell `_HEADERS` from `_headers`.
fn is_of_rules(path: &[u8]) -> bool {
    let mut files = RuleFile::ALL.into_iter();
    files.any(|file| path.eq_ignore_ascii_case(file.name().as_bytes()))
}

fn put(fields: &HeaderMap, options: &WriterConfig, is_empty: bool) -> Result<WriteAction, Refusal> {
    if fields.contains_key(header::CONTENT_RANGE) {
        // RFC 9110 section 14.5.
        let reason = "a part of a file can't be written: leave Content-Range out";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, reason));
    }
    let mut codings = fields.get_all(header::CONTENT_ENCODING).iter();
    if codings.any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "content is taken as it is: leave Content-Encoding out",
        ));
    }
    let length = fields.get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_none() && is_empty {
        // Nobody empties a file by forgetting its content.
        let reason = "no content came: for an empty file say Content-Length: 0";
        return Err(Refusal::new(StatusCode::LENGTH_REQUIRED, reason));
    }
    if length.is_some_and(|length| length > options.max_upload) {
        return Err(Refusal::too_large());
    }
    let digests = Digests::parse(fields).map_err(|reason| {
        let status = StatusCode::BAD_REQUEST;
        Refusal::new(status, reason.to_string())
    })?;
    Ok(WriteAction::Put { length, digests })
}

/// A precondition that protects what others have written.
///
/// A tag's hash is what counts: its suffix tells of fields, which no write concerns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct WriteCondition {
    /// What is there must be one of these (If-Match); `None` where that is not said.
    one_of: Option<Vec<[u8; 32]>>,
    /// There must be nothing (If-None-Match: *).
    is_new: bool,
    /// What is there must be none of these (If-None-Match).
    none_of: Vec<[u8; 32]>,
}

impl WriteCondition {
    fn parse(request: &Parts) -> Result<Self, Refusal> {
        let fields = &request.headers;
        let mut known = tags(EntityTags::parse(fields, &header::IF_MATCH));
        // RFC 9110 section 8.8.3.2: a weak tag names no bytes.
        known.retain(|tag| !tag.weak);
        let one_of = (!known.is_empty()).then(|| known.into_iter().filter_map(hash).collect());
        let other = EntityTags::parse(fields, &header::IF_NONE_MATCH);
        let is_new = matches!(other, Some(EntityTags::Any));
        let none_of = tags(other).into_iter().filter_map(hash).collect();
        let is_delete = request.method == Method::DELETE;
        let is_creation = is_new && !is_delete && !fields.contains_key(header::IF_MATCH);
        if one_of.is_none() && !is_creation {
            let reason = match is_delete {
                true => "say which version you know: If-Match: \"tag\"",
                false => {
                    "say which version you know, If-Match: \"tag\", or that there is none, \
                     If-None-Match: *"
                }
            };
            return Err(Refusal::new(StatusCode::PRECONDITION_REQUIRED, reason));
        }
        Ok(Self {
            one_of,
            is_new,
            none_of,
        })
    }

    /// Whether it holds. Who knows one coding of the current content knows all.
    pub(super) fn holds(&self, now: Option<&Resource>) -> bool {
        let Some(now) = now else {
            return self.one_of.is_none() && self.is_new;
        };
        let is_in = |hashes: &[[u8; 32]]| {
            let mut representations = now.representations();
            representations.any(|each| hashes.contains(each.etag.hash()))
        };
        let is_known = self.one_of.as_ref().is_some_and(|hashes| is_in(hashes));
        !self.is_new && is_known && !is_in(&self.none_of)
    }
}

fn tags(field: Option<EntityTags<'_>>) -> Vec<EntityTag<'_>> {
    match field {
        Some(EntityTags::One(tag)) => vec![tag],
        Some(EntityTags::Listed(tags)) => tags.iter().collect(),
        Some(EntityTags::Any) | None => Vec::new(),
    }
}

/// What a tag of ours says of the bytes; other tags name none that we know.
fn hash(tag: EntityTag<'_>) -> Option<[u8; 32]> {
    let quoted = [b"\"", tag.opaque, b"\""].concat();
    ETag::parse(&quoted).map(|tag| *tag.hash())
}

/// The token of `Authorization: Bearer TOKEN` (RFC 6750 section 2.1).
pub(super) fn bearer(fields: &HeaderMap) -> Option<&[u8]> {
    let mut lines = fields.get_all(header::AUTHORIZATION).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return None;
    };
    let (scheme, token) = line.as_bytes().split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| token.trim_ascii())
}

/// Where whoever can connect may write, no page of another site may use somebody's browser for
/// it: not from its own origin, nor under a name of its own that leads here.
pub(super) fn check_origin(request: &Parts, peer: Peer) -> Result<(), Refusal> {
    let forbidden = |reason| Err(Refusal::new(StatusCode::FORBIDDEN, reason));
    let host = match request.uri.authority() {
        Some(authority) => authority.as_str().as_bytes(),
        None => match request.headers.get(header::HOST) {
            Some(host) => host.as_bytes(),
            None => b"",
        },
    };
    if peer != Peer::Unix && !is_loopback(host) {
        return forbidden("without tokens, writing goes to localhost by that name only");
    }
    if PROXY_FIELDS
        .iter()
        .any(|name| request.headers.contains_key(*name))
    {
        return forbidden("without tokens, nobody may pass writes on for others");
    }
    let is_foreign = |origin: &[u8]| {
        let authority = origin.splitn(2, |byte| *byte == b'/').nth(1);
        authority.and_then(|rest| rest.strip_prefix(b"/")) != Some(host)
    };
    let mut origins = request.headers.get_all(header::ORIGIN).iter();
    if origins.any(|origin| is_foreign(origin.as_bytes())) {
        return forbidden("a page of another origin may not write here");
    }
    Ok(())
}

/// Whether a Host names this machine to itself.
fn is_loopback(host: &[u8]) -> bool {
    let Ok(host) = str::from_utf8(host) else {
        return false;
    };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost")
        || name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

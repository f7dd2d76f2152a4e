//! Parses the header section of a write. Pure: neither the site nor the disk is read.

use http::header::{self, HeaderMap};
use http::request::Parts;
use http::{Method, StatusCode};

use super::{Refusal, WriterConfig};
use crate::client::Peer;
use crate::manifest::Manifest;
use crate::representation::Resource;
use crate::rules::RuleFile;
use crate::scan::{DICTIONARIES, MAX_DICTIONARY_LENGTH, dictionary_at, is_admitted, is_excluded};
use crate::semantics::base_path::{BasePath, Entrance};
use crate::semantics::digest::Digests;
use crate::semantics::etag::{ETag, EntityTag, EntityTags};
use crate::semantics::host::check_host;
use crate::semantics::target::Target;

/// Bytes of the longest name that file systems allow (`NAME_MAX`). Longer ones are refused before
/// directories are created for them.
const MAX_NAME_LENGTH: usize = 255;
/// Names in the longest path that may be written, its file's among them. Each directory is made and
/// synced, and looked at by every scan from then on.
const MAX_DEPTH: usize = 64;
/// Fields that proxies add to the requests they forward.
const PROXY_FIELDS: [&str; 4] = ["forwarded", "via", "x-forwarded-for", "x-real-ip"];

/// A write as its header section describes it.
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
        /// Length of the content, if the client says it.
        length: Option<u64>,
        /// The length that it may have at most.
        max_length: u64,
        /// The digests that the content must have. A dictionary has that of its name.
        digests: Digests,
    },
    Delete,
}

/// Whether a request with this method is for a [`super::Writer`].
pub fn is_write(method: &Method) -> bool {
    matches!(*method, Method::PUT | Method::DELETE)
}

/// Parses the header section of a request. `is_empty`: no content follows it.
pub(super) fn parse(
    request: &Parts,
    options: &WriterConfig,
    current: &Manifest,
    is_empty: bool,
) -> Result<WriteRequest, Refusal> {
    let bad = |reason: &'static str| Refusal::new(StatusCode::BAD_REQUEST, reason);
    check_host(request).map_err(bad)?;
    let path = path(request, options, current)?;
    let condition = WriteCondition::parse(request)?;
    let change = if request.method == Method::DELETE {
        WriteAction::Delete
    } else {
        put(&path, &request.headers, options, is_empty)?
    };
    Ok(WriteRequest {
        path,
        change,
        condition,
    })
}

/// The path to write: one that could also be read, and more strictly spelled.
fn path(request: &Parts, options: &WriterConfig, current: &Manifest) -> Result<Box<[u8]>, Refusal> {
    let target = target(request, &current.settings().base_path)?;
    let path = target.path();
    let forbidden = |reason: &'static str| Err(Refusal::new(StatusCode::FORBIDDEN, reason));
    if path
        .split(|byte| *byte == b'/')
        .any(|name| name.len() > MAX_NAME_LENGTH)
    {
        return Err(Refusal::too_long());
    }
    if path.split(|byte| *byte == b'/').count() > MAX_DEPTH {
        return Err(Refusal::too_deep(MAX_DEPTH));
    }
    if target.query().is_some() {
        let reason = "the URL of a file has no query: leave out the ? and what follows it";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, reason));
    }
    if target.is_directory() {
        return Err(Refusal::directory());
    }
    if target.collapsed().is_some() {
        let reason = "a name in this path is empty: write one slash between two names";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, reason));
    }
    if dictionary_at(path).is_some() {
        // Patterns are about what is served.
        return Ok(path.into());
    }
    if path.starts_with(DICTIONARIES.as_bytes()) {
        let reason = "dictionaries alone can be written there: each under its SHA-256 in 64 \
                      lower-case hex digits";
        return forbidden(reason);
    }
    if !is_admitted(path) {
        let reason = "files with such a name are not served, so they can't be written: choose another, \
                      without a dot at its beginning";
        return forbidden(reason);
    }
    let exclusions = current.exclusions();
    if let Some(pattern) = exclusions.leftover_pattern(path) {
        let reason = format!(
            "files with such a name are not served, so they can't be written: editors leave {pattern}, \
             unless --exclude or the site's .etagdignore has !{pattern}"
        );
        return Err(Refusal::new(StatusCode::FORBIDDEN, reason));
    }
    if is_excluded(&exclusions, path, false) {
        let reason = "files with such a name are not served, so they can't be written: --exclude or the \
                      site's .etagdignore leaves them out";
        return forbidden(reason);
    }
    if is_of_rules(path) && !options.rules {
        let reason =
            "the rules of this site can't be written: that takes a server with --write-rules";
        return forbidden(reason);
    }
    Ok(path.into())
}

/// The target as one of the site.
fn target<'r>(request: &'r Parts, base_path: &BasePath) -> Result<Target<'r>, Refusal> {
    let target = Target::parse(&request.uri)
        .map_err(|refusal| Refusal::new(refusal.status(), refusal.to_string()))?;
    match base_path.enter(target) {
        Entrance::Site(target) => Ok(target),
        Entrance::Bare(_) => Err(Refusal::directory()),
        Entrance::Elsewhere => {
            let reason = format!(
                "the site is below {}: nothing else can be written",
                base_path.home()
            );
            Err(Refusal::new(StatusCode::NOT_FOUND, reason))
        }
    }
}

/// Whether a path is that of a rule file. Case is ignored because some file systems ignore it, and
/// `_HEADERS` would then replace `_headers`.
fn is_of_rules(path: &[u8]) -> bool {
    RuleFile::ALL
        .into_iter()
        .any(|file| path.eq_ignore_ascii_case(file.name().as_bytes()))
}

fn put(
    path: &[u8],
    fields: &HeaderMap,
    options: &WriterConfig,
    is_empty: bool,
) -> Result<WriteAction, Refusal> {
    if fields.contains_key(header::CONTENT_RANGE) {
        // Ignoring it would replace the file by the part (RFC 9110 section 14.5).
        let reason = "a part of a file can't be written: send all of it, without Content-Range";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, reason));
    }
    if fields
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "content is stored as it is sent: leave out Content-Encoding",
        ));
    }
    let length = fields
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_none() && is_empty {
        // A client that forgot the content must not empty the file.
        let reason = "the request has no content: to write an empty file, send Content-Length: 0";
        return Err(Refusal::new(StatusCode::LENGTH_REQUIRED, reason));
    }
    let dictionary = dictionary_at(path);
    let max_length = match dictionary {
        Some(_) => options.max_upload.min(MAX_DICTIONARY_LENGTH),
        None => options.max_upload,
    };
    if length.is_some_and(|length| length > max_length) {
        return Err(Refusal::too_large());
    }
    let mut digests = Digests::parse(fields).map_err(|reason| {
        let status = StatusCode::BAD_REQUEST;
        Refusal::new(status, reason.to_string())
    })?;
    if let Some(hash) = dictionary {
        let named = *hash.as_bytes();
        if digests.sha256.is_some_and(|said| said != named) {
            return Err(Refusal::other_dictionary());
        }
        digests.sha256 = Some(named);
    }
    Ok(WriteAction::Put {
        length,
        max_length,
        digests,
    })
}

/// The precondition of a write, which protects the writes of other clients.
///
/// Only the hash of a tag is compared: its suffix is about fields, which a write does not change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct WriteCondition {
    /// The current content must be one of these (If-Match); `None` without that field.
    one_of: Option<Vec<[u8; 32]>>,
    /// The path must not exist (If-None-Match: *).
    is_new: bool,
    /// The current content must be none of these (If-None-Match).
    none_of: Vec<[u8; 32]>,
}

impl WriteCondition {
    fn parse(request: &Parts) -> Result<Self, Refusal> {
        let fields = &request.headers;
        let one_of = match EntityTags::parse(fields, &header::IF_MATCH) {
            // It names no version, and a write has to.
            Some(EntityTags::Any) => None,
            // Strong comparison, which a weak tag never passes (RFC 9110 section 13.1.1).
            Some(known) => {
                let known = tags(Some(known)).into_iter().filter(|tag| !tag.weak);
                Some(known.filter_map(hash).collect())
            }
            // What can't be read can't be shown to hold.
            None => fields.contains_key(header::IF_MATCH).then(Vec::new),
        };
        let other = EntityTags::parse(fields, &header::IF_NONE_MATCH);
        let is_new = matches!(other, Some(EntityTags::Any));
        let none_of = tags(other).into_iter().filter_map(hash).collect();
        let is_delete = request.method == Method::DELETE;
        let is_creation = is_new && !is_delete && !fields.contains_key(header::IF_MATCH);
        if one_of.is_none() && !is_creation {
            let reason = match is_delete {
                true => "precondition required: send If-Match: \"tag\" to delete",
                false => {
                    "precondition required: send If-Match: \"tag\" to replace, or \
                     If-None-Match: * to create"
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

    /// Whether the precondition holds for the resource `now`. The tag of any of its codings will
    /// do: the client has read the same content.
    pub(super) fn holds(&self, now: Option<&Resource>) -> bool {
        let Some(now) = now else {
            return self.one_of.is_none() && self.is_new;
        };
        let is_in = |hashes: &[[u8; 32]]| {
            now.representations()
                .any(|each| hashes.contains(each.etag.hash()))
        };
        let is_known = self.one_of.as_ref().is_some_and(|hashes| is_in(hashes));
        !self.is_new && is_known && !is_in(&self.none_of)
    }
}

fn tags(field: Option<EntityTags<'_>>) -> Vec<EntityTag<'_>> {
    match field {
        Some(EntityTags::One(tag)) => vec![tag],
        Some(EntityTags::Listed(listed)) => listed.iter().collect(),
        Some(EntityTags::Any) | None => Vec::new(),
    }
}

/// The hash in a tag; `None` for a tag that etagd can't have sent.
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

/// Refuses writes that a page of another site makes through the user's browser, which matters when
/// no token is needed: requests from another origin (CSRF), and requests under another host name
/// that was made to resolve to this machine (DNS rebinding).
pub(super) fn check_origin(request: &Parts, peer: Peer) -> Result<(), Refusal> {
    let forbidden = |reason: &'static str| Err(Refusal::new(StatusCode::FORBIDDEN, reason));
    let host = match request.uri.authority() {
        Some(authority) => authority.as_str().as_bytes(),
        None => match request.headers.get(header::HOST) {
            Some(host) => host.as_bytes(),
            None => b"",
        },
    };
    if peer != Peer::Unix && !is_loopback(host) {
        let reason = "this server takes writes without a token, and only from this machine: use localhost \
                      in the URL";
        return forbidden(reason);
    }
    if PROXY_FIELDS
        .iter()
        .any(|name| request.headers.contains_key(*name))
    {
        let reason = "this server takes writes without a token, and none that a proxy has forwarded: that \
                      takes a server with --write-token-file";
        return forbidden(reason);
    }
    // An origin is `scheme://authority`, or `null`, which is foreign too (RFC 6454 section 7).
    let is_foreign = |origin: &[u8]| {
        let authority = origin.splitn(2, |byte| *byte == b'/').nth(1);
        authority.and_then(|rest| rest.strip_prefix(b"/")) != Some(host)
    };
    if request
        .headers
        .get_all(header::ORIGIN)
        .iter()
        .any(|origin| is_foreign(origin.as_bytes()))
    {
        return forbidden("a page of another origin may not write here: open it from this server");
    }
    Ok(())
}

/// Whether a Host is `localhost` or a loopback address, with or without a port.
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

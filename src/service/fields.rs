//! Which fields a response has: those that the manifest has prepared, and what the rules of the
//! site make of them.

use http::header::{self, HeaderName};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};

use crate::answer::{self, Selected, Terms};
use crate::config::{ReprDigest, Settings};
use crate::manifest::Manifest;
use crate::representation::{IMMUTABLE, NO_STORE, REVALIDATE, visible};
use crate::semantics::digest::{repr_digest, wants_sha256};
use crate::semantics::target::Target;

pub(super) const BYTES: HeaderValue = HeaderValue::from_static("bytes");
pub(super) const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");
/// `Vary` of what has several codings.
const BY_CODING: HeaderValue = HeaderValue::from_static("accept-encoding");
/// `Vary` of what only a request for a page is answered with.
const BY_PURPOSE: HeaderValue = HeaderValue::from_static("sec-fetch-mode, accept");
/// `Vary` of what is a page for people and JSON for programs.
const BY_FORM: HeaderValue = HeaderValue::from_static("accept");
/// `Vary` of both.
const BY_PURPOSE_AND_CODING: HeaderValue =
    HeaderValue::from_static("sec-fetch-mode, accept, accept-encoding");

/// The fields that 200, 206 and 304 share (RFC 9110 section 15.4.5).
pub(super) fn validators(fields: &mut HeaderMap, selected: &Selected<'_>) {
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
        Terms::Fallback { of_page: false } => Some(NO_STORE),
        _ if is_removed() => None,
        // What a rule says of a path is meant for it under any query.
        Terms::Pinned if !own.has_ruled_cache_control() => Some(IMMUTABLE),
        Terms::Pinned | Terms::Named | Terms::Listed => Some(own.cache_control.clone()),
        // A file may come to be there: what stands in for it must be asked about.
        Terms::Rewritten | Terms::Fallback { of_page: true } => {
            Some(if !resource.settled || own.has_ruled_cache_control() {
                own.cache_control.clone()
            } else {
                REVALIDATE
            })
        }
    }
}

/// What in a request, beside its target, the choice of the answer depends on (RFC 9110 section
/// 12.5.5), and what the rules of the site name.
pub(super) fn vary(fields: &mut HeaderMap, selected: &Selected<'_>) {
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
pub(super) fn follow_rules(
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
pub(super) fn follow_rules_for_errors(
    fields: &mut HeaderMap,
    manifest: &Manifest,
    request: &Parts,
) {
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
pub(super) fn describes_content(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("content-") && !name.starts_with("content-security-policy")
}

/// Whether a field lets caches keep a response: Cache-Control and those that some of them prefer
/// (RFC 9213).
fn says_how_long(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.ends_with("cache-control") || matches!(name, "expires" | "surrogate-control" | "pragma")
}

/// The fields that 200 and 206 have beside, whatever the range.
pub(super) fn description(fields: &mut HeaderMap, selected: &Selected<'_>) {
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
pub(super) fn digest(
    fields: &mut HeaderMap,
    selected: &Selected<'_>,
    settings: &Settings,
    request: &Parts,
) {
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

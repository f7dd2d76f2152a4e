//! The fields of a response: those that the manifest has prepared, and those that the rules of the
//! site add, replace or remove.

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue};

use crate::answer::{self, Selected, SelectedBy};
use crate::manifest::Manifest;
use crate::representation::{IMMUTABLE, NO_STORE, REVALIDATE, visible};
use crate::semantics::coding::Coding;
use crate::semantics::dictionary::USE_AS_DICTIONARY;
use crate::semantics::digest::{repr_digest, wants_sha256};
use crate::semantics::head::RequestHead;
use crate::semantics::vary::Vary;
use crate::settings::{ReprDigest, Settings};

pub(super) const BYTES: HeaderValue = HeaderValue::from_static("bytes");
pub(super) const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");
/// What decides whether a page stands in for a missing one: only navigations get it.
const CHOSEN_BY_PURPOSE: &[u8] = b"sec-fetch-mode, accept";
/// What decides about the form of a listing: a page for browsers, JSON for programs.
const CHOSEN_BY_FORMAT: &[u8] = b"accept";

/// The fields that 200, 206 and 304 share (RFC 9110 section 15.4.5).
pub(super) fn add_validators(fields: &mut HeaderMap, selected: &Selected<'_>) {
    fields.insert(header::ETAG, selected.representation().etag_value().clone());
    if let Some(cache_control) = cache_control(selected) {
        fields.insert(header::CACHE_CONTROL, cache_control);
    }
    add_vary(fields, selected);
}

fn cache_control(selected: &Selected<'_>) -> Option<HeaderValue> {
    let resource = &selected.resource;
    let prepared = &resource.fields;
    let is_removed = || {
        let ruled = prepared.ruled.as_ref();
        ruled.is_some_and(|ruled| ruled.removed.contains(&header::CACHE_CONTROL))
    };
    match selected.selected_by {
        SelectedBy::Fallback { of_page: false } => Some(NO_STORE),
        _ if is_removed() => None,
        // A rule for a path holds under any query, so it takes precedence over --immutable-query.
        SelectedBy::HashedUrl if !prepared.has_ruled_cache_control() => Some(IMMUTABLE),
        SelectedBy::HashedUrl | SelectedBy::Url | SelectedBy::Listing => {
            Some(prepared.cache_control.clone())
        }
        // A file may be created at this URL: caches must revalidate the page in its place.
        SelectedBy::Rewrite | SelectedBy::Fallback { of_page: true } => {
            Some(if !resource.settled || prepared.has_ruled_cache_control() {
                prepared.cache_control.clone()
            } else {
                REVALIDATE
            })
        }
    }
}

/// Names the request fields that the choice of the response depends on (RFC 9110 section 12.5.5),
/// together with those that the rules of the site name.
pub(super) fn add_vary(fields: &mut HeaderMap, selected: &Selected<'_>) {
    let chosen_by = match selected.selected_by {
        SelectedBy::Fallback { .. } => CHOSEN_BY_PURPOSE,
        SelectedBy::Listing => CHOSEN_BY_FORMAT,
        SelectedBy::Url | SelectedBy::HashedUrl | SelectedBy::Rewrite => b"",
    };
    let mut vary = Vary::default();
    vary.add(chosen_by);
    selected.resource.add_vary(&mut vary);
    if let Some(vary) = vary.value() {
        fields.insert(header::VARY, vary);
    }
}

/// For what URLs the content is a dictionary (RFC 9842 section 2.1).
pub(super) fn add_dictionary_use(fields: &mut HeaderMap, selected: &Selected<'_>) {
    if let Some(value) = selected.resource.use_as_dictionary() {
        let ruled = selected.resource.fields.ruled.as_ref();
        if !ruled.is_some_and(|ruled| ruled.removed.contains(&USE_AS_DICTIONARY)) {
            fields.insert(USE_AS_DICTIONARY, value.clone());
        }
    }
}

/// Applies the rules of the site to the fields of a response with content, or of a 304.
pub(super) fn apply_header_rules(
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
        set_or_append(fields, name, value);
    }
}

/// Applies the rules of the site to an error or a response to OPTIONS. Fields that describe content
/// or let caches keep the response are left out.
pub(super) fn apply_header_rules_to_error(
    fields: &mut HeaderMap,
    manifest: &Manifest,
    request: &impl RequestHead,
) {
    let headers = &manifest.rules().headers;
    if headers.is_empty() {
        return;
    }
    let Some(target) = answer::target_in_site(manifest, request) else {
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
    // A built-in page has the policy that its own style needs.
    let has_policy = fields.contains_key(header::CONTENT_SECURITY_POLICY);
    for (name, value) in &overlay.lines {
        let replaces_policy = has_policy && *name == header::CONTENT_SECURITY_POLICY;
        if !describes_content(name) && !is_about_caching(name) && !replaces_policy {
            set_or_append(fields, name, value);
        }
    }
    if let Some(names) = overlay.vary {
        let mut vary = Vary::default();
        for names in fields.get(header::VARY).into_iter().chain([&names]) {
            vary.add(names.as_bytes());
        }
        if let Some(vary) = vary.value() {
            fields.insert(header::VARY, vary);
        }
    }
}

/// Sets a field. Only Set-Cookie may come in several lines (RFC 6265 section 3).
fn set_or_append(fields: &mut HeaderMap, name: &HeaderName, value: &HeaderValue) {
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
/// (RFC 9213), and Use-As-Dictionary.
fn is_about_caching(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.ends_with("cache-control")
        || matches!(
            name,
            "expires" | "surrogate-control" | "pragma" | "use-as-dictionary"
        )
}

/// The fields that 200 and 206 have and a 304 does not, whatever the range.
pub(super) fn add_description(fields: &mut HeaderMap, selected: &Selected<'_>) {
    let (resource, representation) = (&selected.resource, selected.representation());
    if let Some(date) = resource.last_modified_value() {
        fields.insert(header::LAST_MODIFIED, date.clone());
    }
    add_content_encoding(fields, resource.content_coding(representation));
    fields.insert(header::ACCEPT_RANGES, BYTES);
    fields.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
}

/// Names a content coding, if it is one.
pub(super) fn add_content_encoding(fields: &mut HeaderMap, coding: Coding) {
    if coding.extension().is_some() {
        let coding = HeaderValue::from_static(coding.token());
        fields.insert(header::CONTENT_ENCODING, coding);
    }
}

/// Repr-Digest of the selected representation, all of it, whatever the range (RFC 9530 section 3).
pub(super) fn add_repr_digest(
    fields: &mut HeaderMap,
    selected: &Selected<'_>,
    settings: &Settings,
    request: &impl RequestHead,
) {
    let is_wanted = match settings.repr_digest {
        ReprDigest::Off => false,
        ReprDigest::Wanted => wants_sha256(request.fields()),
        ReprDigest::Always => true,
    };
    if let Some(sha256) = selected.representation().sha256().filter(|_| is_wanted) {
        fields.insert(REPR_DIGEST, visible(&repr_digest(sha256)));
    }
}

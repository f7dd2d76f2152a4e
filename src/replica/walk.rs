//! Compares a replica that publishes no manifest: asks, path by path, for what it should serve.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::OnceLock;

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use rayon::ThreadPoolBuilder;
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use ureq::Body;

use super::WalkOptions;
use super::compare::{Deviation, DeviationKind, Deviations};
use super::report::{Basis, ReplicaState};
use crate::inventory::{Description, Entry, Inventory, text};
use crate::remote::{Client, RequestError, local_redirect};
use crate::representation::REVALIDATE;
use crate::semantics::dictionary::AVAILABLE_DICTIONARY;
use crate::settings::ReplicaUrl;

const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
/// Entries to ask for before their results are put together, in the order of their paths.
const BATCH_SIZE: usize = 1000;
/// A page may have another URL on the replica: `/about.html` redirects to `/about`.
const MAX_REDIRECTS: usize = 3;

/// Compares the replica, which publishes no manifest for this reason, with an inventory.
pub(super) fn walk(
    options: &WalkOptions,
    client: &Client,
    (replica, reason): (&ReplicaUrl, &str),
    inventory: &Inventory,
    mut deviations: Deviations,
) -> ReplicaState {
    let entries = sample(&inventory.entries, options.sample);
    let base_path = inventory.head.base_path();
    let host = &replica.without_base_path(&base_path);
    let pool = match ThreadPoolBuilder::new()
        .num_threads(options.connections)
        .build()
    {
        Ok(pool) => pool,
        Err(error) => return ReplicaState::Unreachable(format!("cannot ask {replica}: {error}")),
    };
    // Without this, a replica that is down would be asked once for each of a million entries.
    let failed = OnceLock::new();
    for batch in entries.chunks(BATCH_SIZE) {
        let found: Vec<_> = pool.install(|| {
            batch
                .par_iter()
                .filter_map(|entry| {
                    if failed.get().is_some() {
                        return None;
                    }
                    let url = format!("{host}{}", base_path.url(&entry.path));
                    compare_entry(options, client, (host, url), entry).unwrap_or_else(|error| {
                        // Only the first error is reported.
                        let _ = failed.set(error.to_string());
                        None
                    })
                })
                .collect()
        });
        deviations = found.into_iter().fold(deviations, Deviations::with);
        if let Some(reason) = failed.get() {
            return ReplicaState::Unreachable(reason.clone());
        }
    }
    ReplicaState::Compared {
        basis: Basis::Public,
        digest: None,
        no_manifest: (!options.is_public).then(|| reason.to_owned()),
        entries: entries.len(),
        deviations,
    }
}

/// Picks `number` of the entries, evenly spread; all where it is `None`.
fn sample(entries: &[Entry], number: Option<usize>) -> Vec<&Entry> {
    match number {
        Some(number) if number < entries.len() => (0..number)
            .filter_map(|index| entries.get(index * entries.len() / number))
            .collect(),
        _ => entries.iter().collect(),
    }
}

/// How the response to a request for the URL of one entry deviates, if it does.
///
/// # Errors
/// When there is no complete response.
fn compare_entry(
    options: &WalkOptions,
    client: &Client,
    (host, url): (&ReplicaUrl, String),
    entry: &Entry,
) -> Result<Option<Deviation>, RequestError> {
    if entry.coding.dictionary().is_some() && !is_secure(host) {
        return Ok(None);
    }
    let (mut response, url) = fetch(options, client, (host, url), entry)?;
    let mut difference = compare_head(entry, &response);
    if difference.is_none() && options.bodies {
        let hash = hash(response.body_mut(), entry.size)
            .map_err(|source| RequestError::Body { url, source })?;
        if hash != *entry.etag.hash() {
            let detail = format!("their BLAKE3 is {hash}");
            difference = Some((DeviationKind::OtherBytes, detail));
        }
    }
    Ok(difference.map(|(kind, detail)| Deviation::of_entry(entry, kind, detail)))
}

/// Requests one entry in its content coding, and follows redirects within the replica. Returns
/// the last response and its URL.
fn fetch(
    options: &WalkOptions,
    client: &Client,
    (host, mut url): (&ReplicaUrl, String),
    entry: &Entry,
) -> Result<(Response<Body>, String), RequestError> {
    let method = if options.bodies {
        Method::GET
    } else {
        Method::HEAD
    };
    // `identity;q=0`: a server may prefer the shorter identity to the coding that is asked for.
    let accepted = match entry.coding.extension() {
        None => "identity".to_owned(),
        Some(_) => format!("{}, identity;q=0", entry.coding.token()),
    };
    let dictionary = entry.coding.dictionary();
    let dictionary = dictionary.map(|dictionary| dictionary.field_value());
    let mut fields = vec![(header::ACCEPT_ENCODING, accepted.as_str())];
    fields.extend(
        dictionary
            .as_deref()
            .map(|value| (AVAILABLE_DICTIONARY, value)),
    );
    let mut response = client.request(&method, &url, &fields)?;
    for _ in 0..MAX_REDIRECTS {
        let Some(location) = local_redirect(&response, &host.to_string(), &url) else {
            break;
        };
        url = location;
        response = client.request(&method, &url, &fields)?;
    }
    Ok((response, url))
}

/// Whether a replica sends deltas to this client: over TLS, or on its own machine (RFC 9842 section 8).
fn is_secure(replica: &ReplicaUrl) -> bool {
    let url = replica.to_string();
    match url.strip_prefix("http://") {
        None => true,
        Some(rest) => {
            let host = rest.split('/').next().unwrap_or(rest);
            ["localhost", "127.0.0.1", "[::1]"]
                .iter()
                .any(|own| host.strip_prefix(own).is_some_and(is_port))
        }
    }
}

fn is_port(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with(':')
}

/// How status and fields of a response deviate from what the entry says.
fn compare_head(entry: &Entry, response: &Response<Body>) -> Option<(DeviationKind, String)> {
    let (status, fields) = (response.status(), response.headers());
    if matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE) {
        return Some((DeviationKind::Missing, String::new()));
    }
    if status != StatusCode::OK {
        let detail = match fields.get(header::LOCATION) {
            Some(location) => format!("{status} to {}", text(location.as_bytes())),
            None => status.to_string(),
        };
        return Some((DeviationKind::OtherStatus, detail));
    }
    let expected = entry.etag.to_string();
    let etag = field_value(fields, header::ETAG.as_str());
    if etag.as_ref() != Some(&expected) {
        let etag = etag.unwrap_or_else(|| "none".to_owned());
        // nginx and several CDNs weaken the tag of what they compress themselves.
        let hint = match etag.strip_prefix("W/") {
            Some(strong) if strong == expected => ": a proxy in between has weakened it",
            _ => "",
        };
        let detail = format!("{etag} instead of {expected}{hint}");
        return Some((DeviationKind::OtherTag, detail));
    }
    // A response to HEAD need not have a Content-Length (RFC 9110 section 8.6).
    let length = field_value(fields, header::CONTENT_LENGTH.as_str());
    if let Some(length) = length.filter(|length| *length != entry.size.to_string()) {
        let detail = format!("{length} bytes instead of {}", entry.size);
        return Some((DeviationKind::OtherSize, detail));
    }
    let differing = other_fields(entry, fields);
    (!differing.is_empty()).then(|| (DeviationKind::OtherFields, differing.join("; ")))
}

/// The value of a field; several lines are joined to one (RFC 9110 section 5.3).
fn field_value(fields: &HeaderMap, name: &str) -> Option<String> {
    let values: Vec<_> = fields
        .get_all(name)
        .iter()
        .map(|value| text(value.as_bytes()))
        .collect();
    (!values.is_empty()).then(|| values.join(", "))
}

fn other_fields(entry: &Entry, found: &HeaderMap) -> Vec<String> {
    let Description { media_type, fields } = &*entry.description;
    // A manifest lists only what rules change; these every response has.
    let mut expected: BTreeMap<&str, Option<String>> = BTreeMap::from([
        (header::CONTENT_TYPE.as_str(), Some(media_type.clone())),
        (
            header::CACHE_CONTROL.as_str(),
            Some(text(REVALIDATE.as_bytes())),
        ),
        (
            header::X_CONTENT_TYPE_OPTIONS.as_str(),
            Some(text(NOSNIFF.as_bytes())),
        ),
    ]);
    expected.extend(
        fields
            .iter()
            .map(|(name, value)| (name.as_str(), value.clone())),
    );
    expected
        .into_iter()
        .filter_map(|(name, expected)| {
            let found = field_value(found, name);
            (found != expected)
                .then(|| format!("{name}: {} instead of {}", shown(found), shown(expected)))
        })
        .collect()
}

fn shown(value: Option<String>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| format!("{value:?}"))
}

/// The hash of a body. No more is read than one byte after its expected end: that changes the
/// hash already, and a body need not have an end.
fn hash(body: &mut Body, size: u64) -> io::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    io::copy(
        &mut body.as_reader().take(size.saturating_add(1)),
        &mut hasher,
    )?;
    Ok(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::semantics::coding::Coding;
    use crate::semantics::etag::ETag;

    #[test]
    fn a_sample_is_spread_evenly() {
        let description = Arc::new(Description {
            media_type: String::new(),
            fields: Default::default(),
        });
        let entry = |n: usize| Entry {
            path: n.to_string().into_bytes().into(),
            etag: ETag::new([0; 32]),
            size: 0,
            coding: Coding::Identity,
            description: Arc::clone(&description),
        };
        let entries: Vec<_> = (0..10).map(entry).collect();
        let names = |number| -> Vec<String> {
            let sample = sample(&entries, number);
            sample.iter().map(|entry| entry.url()).collect()
        };
        assert_eq!(names(Some(1)), ["/0"]);
        assert_eq!(names(Some(3)), ["/0", "/3", "/6"]);
        assert_eq!(names(Some(10)).len(), 10);
        assert_eq!(names(Some(11)).len(), 10);
        assert_eq!(names(None).len(), 10);
    }
}

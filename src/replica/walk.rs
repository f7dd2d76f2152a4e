//! A replica that shows no manifest: asked, path by path, for what it should serve.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::OnceLock;

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use rayon::ThreadPoolBuilder;
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use ureq::Body;

use super::Walk;
use super::compare::{Deviation, Found, How};
use super::report::{Kind, State};
use crate::config::ReplicaUrl;
use crate::inventory::{Description, Entry, Inventory, text};
use crate::remote::{Client, within_the_site};
use crate::representation::REVALIDATE;

const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
/// So many entries are asked for before their results are put together.
const BATCH: usize = 1000;
/// A page may have moved within the site: `/about.html` to `/about`.
const REDIRECTS: usize = 3;

/// Asks `replica`, which shows no manifest for this reason, for what is listed.
pub(super) fn walk(
    walk: &Walk,
    client: &Client,
    (replica, reason): (&ReplicaUrl, &str),
    inventory: &Inventory,
    mut found: Found,
) -> State {
    let entries = sample(&inventory.entries, walk.sample);
    let pool = ThreadPoolBuilder::new()
        .num_threads(walk.connections)
        .build();
    let pool = match pool {
        Ok(pool) => pool,
        Err(error) => return State::Unreachable(format!("cannot ask {replica}: {error}")),
    };
    // Who can't be reached once need not be asked a million times.
    let failed = OnceLock::new();
    let ask = |entry: &&Entry| {
        if failed.get().is_some() {
            return None;
        }
        match examine(walk, client, replica, entry) {
            Ok(deviation) => deviation,
            Err(reason) => {
                let _ = failed.set(reason);
                None
            }
        }
    };
    for batch in entries.chunks(BATCH) {
        let deviations: Vec<_> = pool.install(|| batch.par_iter().filter_map(ask).collect());
        found = deviations.into_iter().fold(found, Found::with);
        if let Some(reason) = failed.get() {
            return State::Unreachable(reason.clone());
        }
    }
    State::Compared {
        kind: Kind::Public,
        digest: None,
        instead: (!walk.is_public).then(|| reason.to_owned()),
        entries: entries.len(),
        found,
    }
}

/// So many of `entries`, evenly spread.
fn sample(entries: &[Entry], number: Option<usize>) -> Vec<&Entry> {
    match number {
        Some(number) if number < entries.len() => {
            let place = |index: usize| index * entries.len() / number;
            (0..number)
                .filter_map(|index| entries.get(place(index)))
                .collect()
        }
        _ => entries.iter().collect(),
    }
}

/// How the answer about one entry deviates, if it does.
fn examine(
    walk: &Walk,
    client: &Client,
    replica: &ReplicaUrl,
    entry: &Entry,
) -> Result<Option<Deviation>, String> {
    let method = if walk.bodies {
        Method::GET
    } else {
        Method::HEAD
    };
    let accepted = match entry.coding.extension() {
        None => "identity".to_owned(),
        Some(_) => format!("{}, identity;q=0", entry.coding.token()),
    };
    let fields = [(header::ACCEPT_ENCODING, accepted.as_str())];
    let mut path = entry.url();
    let mut response = client.ask(&method, &format!("{replica}{path}"), &fields)?;
    for _ in 0..REDIRECTS {
        let Some(place) = within_the_site(&response) else {
            break;
        };
        path = place;
        response = client.ask(&method, &format!("{replica}{path}"), &fields)?;
    }
    let deviation = |how, detail| Ok(Some(Deviation::of_entry(entry, how, detail)));
    let status = response.status();
    if matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE) {
        return deviation(How::Missing, String::new());
    }
    if status != StatusCode::OK {
        let place = response.headers().get(header::LOCATION);
        let place = place.map(|place| format!(" to {}", text(place.as_bytes())));
        return deviation(
            How::OtherStatus,
            format!("{status}{}", place.unwrap_or_default()),
        );
    }
    let expected = entry.etag.to_string();
    let etag = value(response.headers(), header::ETAG.as_str());
    if etag.as_ref() != Some(&expected) {
        let etag = etag.unwrap_or_else(|| "none".to_owned());
        let hint = match etag.strip_prefix("W/") {
            Some(strong) if strong == expected => ": something on the way has weakened it",
            _ => "",
        };
        return deviation(How::OtherTag, format!("{etag} instead of {expected}{hint}"));
    }
    let length = value(response.headers(), header::CONTENT_LENGTH.as_str());
    if let Some(length) = length.filter(|length| *length != entry.size.to_string()) {
        let size = entry.size;
        return deviation(How::OtherSize, format!("{length} bytes instead of {size}"));
    }
    let fields = other_fields(entry, response.headers());
    if !fields.is_empty() {
        return deviation(How::OtherFields, fields.join("; "));
    }
    if walk.bodies {
        let hash = hash(response.body_mut(), entry.size)
            .map_err(|error| format!("cannot read {replica}{path}: {error}"))?;
        if hash != *entry.etag.hash() {
            return deviation(How::OtherBytes, format!("their BLAKE3 is {hash}"));
        }
    }
    Ok(None)
}

/// A field's value, several lines of it as one.
fn value(fields: &HeaderMap, name: &str) -> Option<String> {
    let values: Vec<_> = fields
        .get_all(name)
        .iter()
        .map(|each| text(each.as_bytes()))
        .collect();
    (!values.is_empty()).then(|| values.join(", "))
}

fn other_fields(entry: &Entry, found: &HeaderMap) -> Vec<String> {
    let Description { media_type, fields } = &*entry.description;
    let mut expected: BTreeMap<&str, Option<String>> = BTreeMap::new();
    expected.insert(header::CONTENT_TYPE.as_str(), Some(media_type.clone()));
    // What every response has.
    for (name, value) in [
        (header::CACHE_CONTROL.as_str(), REVALIDATE),
        (header::X_CONTENT_TYPE_OPTIONS.as_str(), NOSNIFF),
    ] {
        expected.insert(name, Some(text(value.as_bytes())));
    }
    expected.extend(
        fields
            .iter()
            .map(|(name, value)| (name.as_str(), value.clone())),
    );
    let shown = |value: &Option<String>| match value {
        Some(value) => format!("{value:?}"),
        None => "none".to_owned(),
    };
    let differs = |(name, should): (&str, Option<String>)| {
        let is = value(found, name);
        (is != should).then(|| format!("{name}: {} instead of {}", shown(&is), shown(&should)))
    };
    expected.into_iter().filter_map(differs).collect()
}

/// The hash of a body. One that is longer than it should be is not read to its end.
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

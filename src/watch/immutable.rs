//! Files that were served as immutable, so that clients never ask about them again, and that have other
//! content now.

use std::sync::Arc;

use crate::manifest::Manifest;
use crate::metrics::Metrics;
use crate::representation::Resource;
use crate::semantics::target::encode_path;

/// Paths that are named at most; a wrong pattern breaks its promise in all of them at once.
const MAX_SHOWN: usize = 5;

/// Paths of files that are immutable in `before`, or were and are still answered, and that have
/// other content among `changed`. Each is a fingerprint that lies.
pub fn broken<'r>(
    before: &Manifest,
    changed: impl IntoIterator<Item = &'r Arc<Resource>>,
) -> Vec<String> {
    let mut broken: Vec<_> = changed
        .into_iter()
        .filter(|new| {
            before
                .locate(&new.path)
                .or_else(|| before.locate_retired(&new.path))
                .is_some_and(|old| {
                    old.is_immutable() && old.identity.etag.hash() != new.identity.etag.hash()
                })
        })
        .map(|new| format!("/{}", encode_path(&new.path)))
        .collect();
    broken.sort_unstable();
    broken
}

/// Counts them, and warns the operator.
pub fn warn(broken: &[String], metrics: &Metrics) {
    metrics.broken_immutables.add(broken.len() as u64);
    for path in broken.iter().take(MAX_SHOWN) {
        tracing::warn!(
            %path,
            "{path} was served as immutable and has changed: clients that have it keep the old \
             content for up to a year; give changed content a new name"
        );
    }
    match broken.len().saturating_sub(MAX_SHOWN) {
        0 => {}
        1 => tracing::warn!(files = 1, "1 more immutable file has changed"),
        more => tracing::warn!(files = more, "{more} more immutable files have changed"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use bytes::Bytes;

    use super::*;
    use crate::manifest::Changes;
    use crate::representation::{Data, Fields, IMMUTABLE, REVALIDATE, Representation};
    use crate::semantics::coding::Coding;
    use crate::semantics::etag::ETag;
    use crate::settings::Settings;

    fn resource(path: &str, body: &'static str, cache_control: http::HeaderValue) -> Arc<Resource> {
        let etag = ETag::new(*blake3::hash(body.as_bytes()).as_bytes());
        let data = Data::Memory(Bytes::from(body));
        let content_type = http::HeaderValue::from_static("text/plain");
        let fields = Fields::new(content_type, cache_control);
        let identity = Representation::new(Coding::Identity, etag, body.len() as u64, data);
        Arc::new(Resource::new(
            path.as_bytes().into(),
            Arc::new(fields),
            identity,
        ))
    }

    fn changes(changed: Vec<Arc<Resource>>) -> Changes {
        Changes {
            changed,
            ..Changes::default()
        }
    }

    #[test]
    fn a_promise_is_broken_by_other_content_alone() {
        let before = Manifest::empty(Settings::default()).with(changes(vec![
            resource("a b.js", "1", IMMUTABLE),
            resource("same.js", "1", IMMUTABLE),
            resource("free.js", "1", REVALIDATE),
            resource("gone.js", "1", IMMUTABLE),
        ]));
        let removal = Changes {
            removed: vec![b"gone.js".as_slice().into()],
            keep_until: Some(Instant::now() + Duration::from_secs(60)),
            ..Changes::default()
        };
        assert_eq!(broken(&before, &removal.changed), [""; 0]);
        let before = before.with(removal);
        let changes = changes(vec![
            resource("a b.js", "2", IMMUTABLE),
            resource("same.js", "1", IMMUTABLE),
            resource("free.js", "2", IMMUTABLE),
            resource("new.js", "2", IMMUTABLE),
            resource("gone.js", "2", REVALIDATE),
        ]);
        let broken = broken(&before, &changes.changed);
        assert_eq!(broken, ["/a%20b.js", "/gone.js"]);
        let metrics = Metrics::default();
        warn(&broken, &metrics);
        assert_eq!(metrics.broken_immutables.get(), 2);
    }
}

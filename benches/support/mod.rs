//! Sites in memory, for the benches that need no files.

use std::sync::Arc;

use bytes::Bytes;
use etagd::manifest::{Changes, Manifest};
use etagd::representation::{Data, Fields, Representation, Resource};
use etagd::semantics::coding::Coding;
use etagd::semantics::date::HttpDate;
use etagd::semantics::etag::ETag;
use etagd::settings::Settings;
use http::HeaderValue;

/// The modification time of every file: Sunday, 6 November 1994, 08:49:37.
const MODIFIED: i64 = 784_111_777;

/// The path of entry `index`, as long and as nested as those of real sites.
pub(crate) fn path(index: usize) -> String {
    format!("section-{:03}/chapter-{index:07}.html", index % 997)
}

/// The resource that a scan makes of a file at `path` with this body.
pub(crate) fn resource(fields: &Arc<Fields>, path: &str, body: Bytes) -> Arc<Resource> {
    let tag = ETag::new(*blake3::hash(&body).as_bytes());
    let length = body.len() as u64;
    let identity = Representation::new(Coding::Identity, tag, length, Data::Memory(body));
    Arc::new(Resource {
        last_modified: HttpDate::from_unix(MODIFIED),
        ..Resource::new(path.as_bytes().into(), Arc::clone(fields), identity)
    })
}

/// Field values, shared by all entries, as a scan shares them.
pub(crate) fn fields() -> Arc<Fields> {
    Arc::new(Fields::new(
        HeaderValue::from_static("text/html; charset=utf-8"),
        HeaderValue::from_static("max-age=0, must-revalidate"),
    ))
}

/// The entries of a site of this size, each with its path as its body.
pub(crate) fn resources(entries: usize) -> Vec<Arc<Resource>> {
    let fields = fields();
    let entry = |index| resource(&fields, &path(index), Bytes::from(path(index)));
    (0..entries).map(entry).collect()
}

/// A manifest of these resources.
pub(crate) fn manifest(resources: Vec<Arc<Resource>>) -> Manifest {
    Manifest::empty(Settings::default()).with(Changes {
        changed: resources,
        ..Changes::default()
    })
}

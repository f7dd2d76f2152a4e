//! The site's own page for what can't be sent: said once, if it is of no use.

use crate::manifest::{Manifest, UNAVAILABLE_PAGE};
use crate::representation::{Data, MAX_IN_MEMORY};

/// Warns where `50x.html` is no page that a 503 can have, and was none or another one `before`. A file
/// that has to be read and proven first may fail as what was asked for did.
pub fn report(manifest: &Manifest, before: Option<&Manifest>) {
    let page = |manifest: &Manifest| {
        let page = manifest.locate(UNAVAILABLE_PAGE)?;
        Some((page.identity.length, page.identity.etag))
    };
    let (Some((length, etag)), Some(found)) = (page(manifest), manifest.locate(UNAVAILABLE_PAGE))
    else {
        return;
    };
    let is_known = before
        .and_then(page)
        .is_some_and(|(_, known)| known == etag);
    if is_known || matches!(found.identity.data, Data::Memory(_)) {
        return;
    }
    if length > MAX_IN_MEMORY {
        let most = MAX_IN_MEMORY >> 10;
        tracing::warn!(
            length,
            "50x.html is not used: it has more than {most} KiB, and only what is in memory can take \
             the place of what cannot be read"
        );
    } else {
        tracing::warn!(length, "50x.html is not used: --memory has no room for it");
    }
}

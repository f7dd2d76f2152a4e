//! Pages that were made of one state, for whoever asks next: a long list takes some milliseconds.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::representation::Resource;

/// Bytes that are kept, beside those of the site.
const MAX_CACHED_BYTES: u64 = 8 << 20;

/// Some pages, and what each was made of; the one that was asked for last comes last.
#[derive(Debug, Default)]
pub(super) struct PageCache(Mutex<VecDeque<CachedPage>>);

/// What a page was made of, and the page.
type CachedPage = (Box<[u8]>, Arc<Resource>);

impl PageCache {
    /// The page that `key` stands for, which `make` makes where it is not kept.
    pub(super) fn get(
        &self,
        key: &[u8],
        make: impl FnOnce() -> Option<Resource>,
    ) -> Option<Arc<Resource>> {
        let take = || {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let at = kept.iter().position(|(other, _)| **other == *key)?;
            kept.remove(at)
        };
        let (key, page) = match take() {
            Some(kept) => kept,
            // Others need not wait for it.
            None => (key.into(), Arc::new(make()?)),
        };
        if page.identity.length > MAX_CACHED_BYTES {
            return Some(page);
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(other, _)| *other != key);
        kept.push_back((key, Arc::clone(&page)));
        let length = |kept: &VecDeque<CachedPage>| -> u64 {
            kept.iter().map(|(_, page)| page.identity.length).sum()
        };
        while length(&kept) > MAX_CACHED_BYTES {
            kept.pop_front();
        }
        Some(page)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::representation::{Data, Fields, REVALIDATE, Representation};
    use crate::semantics::coding::Coding;
    use crate::semantics::etag::ETag;

    fn page(length: u64) -> Resource {
        let fields = Fields::new(HeaderValue::from_static("text/html"), REVALIDATE);
        let data = Data::Memory(bytes::Bytes::new());
        let identity = Representation::new(Coding::Identity, ETag::new([0; 32]), length, data);
        Resource::new(Box::default(), Arc::new(fields), identity)
    }

    #[test]
    fn a_page_is_made_once_while_there_is_room() {
        let made = PageCache::default();
        let is_kept = |key: &[u8]| made.get(key, || None).is_some();
        assert!(!is_kept(b"a"));
        for key in [b"a", b"b", b"c"] {
            assert!(made.get(key, || Some(page(MAX_CACHED_BYTES / 3))).is_some());
        }
        assert!(is_kept(b"a") && is_kept(b"b") && is_kept(b"c"));
        // What was asked for least lately goes.
        assert!(is_kept(b"a"));
        assert!(
            made.get(b"d", || Some(page(MAX_CACHED_BYTES / 3)))
                .is_some()
        );
        assert!(is_kept(b"a") && !is_kept(b"b"));
        // What there is no room for is made each time.
        assert!(
            made.get(b"e", || Some(page(MAX_CACHED_BYTES + 1)))
                .is_some()
        );
        assert!(!is_kept(b"e") && is_kept(b"a"));
    }
}

//! Generated pages of one state: a listing of a large directory takes milliseconds to make.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::representation::Resource;

/// Bytes of pages to keep, in addition to the memory limit for content.
const MAX_CACHED_BYTES: u64 = 8 << 20;

/// Pages by key, the most recently used last.
#[derive(Debug, Default)]
pub(super) struct PageCache(Mutex<VecDeque<CachedPage>>);

/// A key and its page.
type CachedPage = (Box<[u8]>, Arc<Resource>);

impl PageCache {
    /// The page for `key`, from the cache or from `make`.
    pub(super) fn get(
        &self,
        key: &[u8],
        make: impl FnOnce() -> Option<Resource>,
    ) -> Option<Arc<Resource>> {
        let (key, page) = match self.take(key) {
            Some(cached) => cached,
            // Without the lock, so that other requests do not wait while it is made.
            None => (key.into(), Arc::new(make()?)),
        };
        if page.identity.length > MAX_CACHED_BYTES {
            return Some(page);
        }
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Another request may have made it meanwhile.
        pages.retain(|(other, _)| *other != key);
        pages.push_back((key, Arc::clone(&page)));
        let mut bytes: u64 = pages.iter().map(|(_, page)| page.identity.length).sum();
        while bytes > MAX_CACHED_BYTES
            && let Some((_, oldest)) = pages.pop_front()
        {
            bytes -= oldest.identity.length;
        }
        Some(page)
    }

    fn take(&self, key: &[u8]) -> Option<CachedPage> {
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let index = pages.iter().position(|(other, _)| **other == *key)?;
        pages.remove(index)
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
        let cache = PageCache::default();
        let is_kept = |key: &[u8]| cache.get(key, || None).is_some();
        assert!(!is_kept(b"a"));
        for key in [b"a", b"b", b"c"] {
            assert!(
                cache
                    .get(key, || Some(page(MAX_CACHED_BYTES / 3)))
                    .is_some()
            );
        }
        assert!(is_kept(b"a") && is_kept(b"b") && is_kept(b"c"));
        // What was asked for least lately goes.
        assert!(is_kept(b"a"));
        assert!(
            cache
                .get(b"d", || Some(page(MAX_CACHED_BYTES / 3)))
                .is_some()
        );
        assert!(is_kept(b"a") && !is_kept(b"b"));
        // What there is no room for is made each time.
        assert!(
            cache
                .get(b"e", || Some(page(MAX_CACHED_BYTES + 1)))
                .is_some()
        );
        assert!(!is_kept(b"e") && is_kept(b"a"));
    }
}

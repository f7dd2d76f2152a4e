//! The site's own page for what can't be sent: `50x.html`, which is of use in memory alone.

use super::Scope;
use crate::manifest::{Manifest, UNAVAILABLE_PAGE};
use crate::representation::{Data, MAX_IN_MEMORY, Representation};

/// Warns where `50x.html` is no page that a 503 can have, and `before` there was none, another one, or
/// one that it could have. A file that has to be read and proven first may fail as what was asked for
/// did.
pub fn report(manifest: &Manifest, before: Option<&Manifest>) {
    let Some(page) = newly_unused(manifest, before) else {
        return;
    };
    let length = page.length;
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

/// The page, if it is of no use, and that is news.
fn newly_unused<'a>(
    manifest: &'a Manifest,
    before: Option<&Manifest>,
) -> Option<&'a Representation> {
    let unused = unused(manifest)?;
    // With equal bytes it may have been read again when memory was full.
    let is_known = before
        .and_then(self::unused)
        .is_some_and(|known| known.etag.hash() == unused.etag.hash());
    (!is_known).then_some(unused)
}

/// The page, if it is not in memory.
fn unused(manifest: &Manifest) -> Option<&Representation> {
    let page = &manifest.locate(UNAVAILABLE_PAGE)?.identity;
    (!matches!(page.data, Data::Memory(_))).then_some(page)
}

/// What a first look compares with `base`: everything, and the page is read, though an earlier process
/// has saved what it is. That has no body: the page would not be used, and equal digests mean equal
/// answers (P7).
pub(super) fn first_scope(base: &Manifest) -> Scope {
    let fits = |page: &Representation| page.length <= MAX_IN_MEMORY;
    match unused(base).is_some_and(fits) {
        true => Scope::EverythingWith([UNAVAILABLE_PAGE.into()].into()),
        false => Scope::Everything,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use super::*;
    use crate::disk::Root;
    use crate::memory::{MIN_MEMORY, Memory};
    use crate::scan::{Progress, SavedFile, Scanner, Unsettled};
    use crate::settings::{Settings, Symlinks};

    #[test]
    fn the_page_is_of_use_after_a_restart_as_before() {
        let directory = tempfile::tempdir().expect("a directory");
        for name in ["50x.html", "other.html"] {
            fs::write(directory.path().join(name), "back soon").expect("written");
        }
        let root = Arc::new(Root::open(directory.path()).expect("a root"));
        let memory = Some(Memory::new(MIN_MEMORY, 4));
        let scanner = Scanner::new(Symlinks::Inside, Settings::default(), memory);
        let (first, _) = scanner.scan(&root, &Progress::default());
        assert!(newly_unused(&first, None).is_none());
        let saved: Vec<_> = (first.iter())
            .map(|resource| SavedFile {
                is_trusted: true,
                ..SavedFile::of(resource, &first)
            })
            .collect();
        let restored = scanner.restore(&root, saved.into_iter());
        assert!(newly_unused(&restored, None).is_some(), "no body is saved");
        let progress = Progress::default();
        let second = scanner.scan_at_once(restored, &root, &progress).manifest;
        assert!(newly_unused(&second, None).is_none());
        assert_eq!(progress.files(), 1, "the other one is as it was");
        assert_eq!(second.digest(), first.digest());
    }

    #[test]
    fn a_page_that_stops_being_of_use_is_news_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let page = directory.path().join("50x.html");
        fs::write(&page, "back soon").expect("written");
        let root = Arc::new(Root::open(directory.path()).expect("a root"));
        let memory = Memory::new(MIN_MEMORY, 4);
        let scanner = Scanner::new(
            Symlinks::Inside,
            Settings::default(),
            Some(Arc::clone(&memory)),
        );
        let (first, _) = scanner.scan(&root, &Progress::default());
        assert!(newly_unused(&first, None).is_none());
        let mut held = Vec::new();
        for length in [64 << 10, 256, 1] {
            while let Ok(body) = memory.keep(vec![0; length]) {
                held.push(body);
            }
        }
        // The same bytes, read again.
        let again = |base: &Manifest| {
            let scope = Scope::Paths([UNAVAILABLE_PAGE.into()].into());
            let progress = Progress::default();
            let outcome = scanner.reconcile(&root, base, &scope, Unsettled::Publish, &progress);
            assert_eq!(outcome.changes.changed.len(), 1);
            base.with(outcome.changes)
        };
        let second = again(&first);
        assert!(newly_unused(&second, Some(&first)).is_some());
        let third = again(&second);
        assert!(newly_unused(&third, Some(&second)).is_none());
        drop(held);
        let fourth = again(&third);
        assert!(newly_unused(&fourth, Some(&third)).is_none());
    }
}

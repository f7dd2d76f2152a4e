//! Content codings that were made or proven for a batch which is not published yet, so that the next look
//! at it does neither again, and what is known of those that can't be made.
//!
//! They take up the room that they have once they are published: memory or the temporary file, which
//! both have a limit.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::locks::lock;
use crate::representation::Representation;
use crate::semantics::coding::Coding;

/// What no look has asked for in this time belongs to a batch that has become another one.
const MAX_AGE: Duration = Duration::from_secs(600);

/// Made codings by the BLAKE3 of the content. Files with equal content share them, whichever each of
/// these files needs.
#[derive(Debug, Default)]
pub(super) struct UnpublishedCodings(Mutex<HashMap<[u8; 32], KnownContent>>);

/// What is known of the codings of a content.
#[derive(Debug)]
struct KnownContent {
    attempts: Vec<(Coding, Attempt)>,
    /// The lengths of codings that were made, and for which there was no room. They follow from the
    /// content, so they hold for as long as somebody asks.
    lengths: Vec<(Coding, u64)>,
    /// Sidecars that decode to the content: each with its BLAKE3.
    proven: Vec<(Coding, [u8; 32])>,
    /// When somebody last asked for it.
    used: Instant,
}

/// What an encoder has made of a content.
#[derive(Clone, Debug)]
pub(super) enum Attempt {
    /// A coding that can be sent.
    Made(Representation),
    /// One that would save too little to be sent.
    NotWorthIt,
    /// Nothing: the encoder fails, and would fail again. This is why.
    Failed(Arc<str>),
}

impl Attempt {
    fn is_failed(&self) -> bool {
        matches!(self, Self::Failed(_))
    }
}

impl KnownContent {
    fn new() -> Self {
        Self {
            attempts: Vec::new(),
            lengths: Vec::new(),
            proven: Vec::new(),
            used: Instant::now(),
        }
    }
}

impl UnpublishedCodings {
    /// Keeps what was made of a content.
    pub(super) fn put(&self, content: [u8; 32], attempts: &[(Coding, Attempt)]) {
        let mut all = lock(&self.0);
        let known = all.entry(content).or_insert_with(KnownContent::new);
        known.used = Instant::now();
        let is_new = |coding: &Coding| attempts.iter().all(|(new, _)| new != coding);
        known.attempts.retain(|(coding, _)| is_new(coding));
        known.attempts.extend_from_slice(attempts);
    }

    /// What was made of a content, as a coding of some file that has it.
    pub(super) fn get(&self, content: &[u8; 32], coding: Coding) -> Option<Attempt> {
        let mut all = lock(&self.0);
        let known = all.get_mut(content)?;
        known.used = Instant::now();
        let found = known.attempts.iter().find(|(each, _)| *each == coding);
        found.map(|(_, attempt)| attempt.clone())
    }

    /// Notes how long codings of a content are that were made, and for which there was no room.
    pub(super) fn note_lengths(&self, content: [u8; 32], lengths: &[(Coding, u64)]) {
        let mut all = lock(&self.0);
        let known = all.entry(content).or_insert_with(KnownContent::new);
        known.used = Instant::now();
        let is_new = |coding: &Coding| lengths.iter().all(|(new, _)| new != coding);
        known.lengths.retain(|(coding, _)| is_new(coding));
        known.lengths.extend_from_slice(lengths);
    }

    /// How much room these codings of a content need, if each was made and could not be kept.
    pub(super) fn needed(&self, content: &[u8; 32], codings: &[Coding]) -> Option<u64> {
        let mut all = lock(&self.0);
        let known = all.get_mut(content)?;
        known.used = Instant::now();
        let length = |coding: &Coding| {
            let found = known.lengths.iter().find(|(each, _)| each == coding);
            found.map(|(_, length)| *length)
        };
        codings.iter().map(length).sum()
    }

    /// Notes that a sidecar with this BLAKE3 decodes to a content.
    pub(super) fn note_proven(&self, content: [u8; 32], coding: Coding, sidecar: [u8; 32]) {
        let mut all = lock(&self.0);
        let known = all.entry(content).or_insert_with(KnownContent::new);
        known.used = Instant::now();
        if !known.proven.contains(&(coding, sidecar)) {
            known.proven.push((coding, sidecar));
        }
    }

    /// Whether a sidecar with this BLAKE3 is known to decode to a content.
    pub(super) fn is_proven(&self, content: &[u8; 32], coding: Coding, sidecar: [u8; 32]) -> bool {
        let all = lock(&self.0);
        let known = all.get(content);
        known.is_some_and(|known| known.proven.contains(&(coding, sidecar)))
    }

    /// Forgets the codings of a content: they are published, or damaged. What can't be made is not
    /// published, and stays known.
    pub(super) fn forget<'a>(&self, contents: impl IntoIterator<Item = &'a [u8; 32]>) {
        let mut all = lock(&self.0);
        for content in contents {
            if let Some(known) = all.get_mut(content) {
                known.attempts.retain(|(_, attempt)| attempt.is_failed());
                known.proven.clear();
                if known.attempts.is_empty() && known.lengths.is_empty() {
                    all.remove(content);
                }
            }
        }
    }

    /// Forgets what nobody has asked for in a long time.
    pub(super) fn forget_old(&self, now: Instant) {
        let is_young = |used: Instant| now.saturating_duration_since(used) < MAX_AGE;
        lock(&self.0).retain(|_, known| is_young(known.used));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::disk::Root;
    use crate::representation::{Data, Resource, SpooledSource};
    use crate::scan::{Progress, Scanner, Scope, Unsettled};
    use crate::settings::{CompressionPolicy, Settings, Symlinks};

    fn source(resource: &Resource) -> &Arc<SpooledSource> {
        match &resource.encoded[0].data {
            Data::Spooled(source) => source,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_next_look_makes_nothing_again_until_it_is_published() {
        let directory = tempfile::tempdir().expect("a directory");
        for name in ["a.txt", "b.txt"] {
            fs::write(directory.path().join(name), "the same text ".repeat(500)).expect("written");
        }
        let root = Arc::new(Root::open(directory.path()).expect("a root"));
        let settings = Settings {
            compress: Some(CompressionPolicy::default()),
            ..Settings::default()
        };
        let scanner = Scanner::new(Symlinks::Inside, settings, None);
        let (empty, progress) = (scanner.empty(), Progress::default());
        let look = || {
            let everything = Scope::Everything;
            let outcome =
                scanner.reconcile(&root, &empty, &everything, Unsettled::Report, &progress);
            let mut found = outcome.changes.changed;
            found.sort_by(|one, other| one.path.cmp(&other.path));
            found
        };
        let first = look();
        for found in [first.clone(), look(), look()] {
            for resource in &found {
                let is_kept = |first: &Arc<Resource>| {
                    Arc::ptr_eq(&source(resource).extent, &source(first).extent)
                };
                assert!(first.iter().any(is_kept), "made again");
                let path = String::from_utf8_lossy(&resource.path);
                assert!(source(resource).of.ends_with(&*path));
            }
        }
        let is_made_again = |first: &Vec<Arc<Resource>>, again: &Vec<Arc<Resource>>| {
            // Both files may have been made at once: the later one is kept.
            let again = &source(&again[0]).extent;
            let is_kept = |first: &Arc<Resource>| Arc::ptr_eq(&source(first).extent, again);
            !first.iter().any(is_kept)
        };
        scanner.forget_published(&first);
        let second = look();
        assert!(is_made_again(&first, &second));
        // Nobody asks for it any more.
        scanner.forget_old(Instant::now() + MAX_AGE / 2);
        assert!(!is_made_again(&second, &look()));
        scanner.forget_old(Instant::now() + MAX_AGE);
        assert!(is_made_again(&second, &look()));
    }

    #[test]
    fn files_with_equal_content_share_what_each_of_them_needs() {
        let known = UnpublishedCodings::default();
        let content = [1; 32];
        let attempts = |codings: &[Coding]| -> Vec<_> {
            let attempt = |coding: &Coding| (*coding, Attempt::NotWorthIt);
            codings.iter().map(attempt).collect()
        };
        let has = |coding| known.get(&content, coding).is_some();
        let [brotli, gzip] = [Coding::Brotli, Coding::Gzip];
        known.put(content, &attempts(&[gzip]));
        assert!(has(gzip) && !has(brotli));
        known.put(content, &attempts(&[brotli, gzip]));
        // The one with a sidecar needs less, and takes nothing from the other.
        known.put(content, &attempts(&[gzip]));
        assert!(has(gzip) && has(brotli) && !has(Coding::Zstd));
        known.forget([&content]);
        assert!(!has(gzip) && !has(brotli));
    }

    #[test]
    fn what_cannot_be_made_stays_known_when_the_file_is_published() {
        let known = UnpublishedCodings::default();
        let content = [1; 32];
        let failed = (Coding::Brotli, Attempt::Failed("a reason".into()));
        known.put(content, &[failed, (Coding::Gzip, Attempt::NotWorthIt)]);
        let lengths = [(Coding::Brotli, 2000), (Coding::Gzip, 3000)];
        known.note_lengths(content, &lengths);
        known.forget([&content]);
        let has = |coding| known.get(&content, coding).is_some();
        assert!(has(Coding::Brotli) && !has(Coding::Gzip));
        // Each file with this content has its own wishes.
        let [brotli, gzip, zstd] = [Coding::Brotli, Coding::Gzip, Coding::Zstd];
        assert_eq!(known.needed(&content, &[brotli, gzip]), Some(5000));
        assert_eq!(known.needed(&content, &[gzip]), Some(3000));
        assert_eq!(known.needed(&content, &[gzip, zstd]), None);
        known.forget_old(Instant::now() + MAX_AGE);
        assert_eq!(known.needed(&content, &[gzip]), None);
        assert!(!has(Coding::Brotli));
    }
}

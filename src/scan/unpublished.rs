//! Content codings that were made for a batch which is not published yet, so that the next look at it
//! does not make them again.
//!
//! They take up the room that they have once they are published: memory or the temporary file, which
//! both have a limit.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::pass::lock;
use crate::representation::{Data, Representation};
use crate::semantics::coding::Coding;

/// What no look has asked for in this time belongs to a batch that has become another one.
const MAX_AGE: Duration = Duration::from_secs(600);

/// Made codings by the BLAKE3 of the content.
#[derive(Debug, Default)]
pub(super) struct UnpublishedCodings(Mutex<HashMap<[u8; 32], MadeCodings>>);

#[derive(Debug)]
struct MadeCodings {
    /// What was asked for. Those that are not worth it were not made.
    wanted: Vec<Coding>,
    made: Vec<Representation>,
    /// When they were last asked for.
    used: Instant,
}

impl UnpublishedCodings {
    /// Keeps what was `made` when these codings of a content were `wanted`.
    pub(super) fn put(&self, content: [u8; 32], wanted: &[Coding], made: &[Representation]) {
        let made = MadeCodings {
            wanted: wanted.to_vec(),
            made: made.to_vec(),
            used: Instant::now(),
        };
        lock(&self.0).insert(content, made);
    }

    /// The codings of a content, as those of `file`.
    pub(super) fn get(
        &self,
        content: &[u8; 32],
        wanted: &[Coding],
        file: impl FnOnce() -> PathBuf,
    ) -> Option<Vec<Representation>> {
        let mut codings = {
            let mut all = lock(&self.0);
            let found = all.get_mut(content).filter(|it| it.wanted == wanted)?;
            found.used = Instant::now();
            found.made.clone()
        };
        let is_spooled = |each: &Representation| matches!(each.data, Data::Spooled(_));
        if codings.iter().any(is_spooled) {
            let file = file();
            codings.iter_mut().for_each(|each| name_file(each, &file));
        }
        Some(codings)
    }

    /// Whether the codings of a content are here.
    pub(super) fn has(&self, content: &[u8; 32], wanted: &[Coding]) -> bool {
        let all = lock(&self.0);
        all.get(content).is_some_and(|it| it.wanted == wanted)
    }

    /// Forgets the codings of a content: they are published, or damaged.
    pub(super) fn forget<'a>(&self, contents: impl IntoIterator<Item = &'a [u8; 32]>) {
        let mut all = lock(&self.0);
        for content in contents {
            all.remove(content);
        }
    }

    /// Forgets what nobody has asked for in a long time.
    pub(super) fn forget_old(&self) {
        lock(&self.0).retain(|_, it| it.used.elapsed() < MAX_AGE);
    }
}

/// Has bytes in the temporary file belong to this file, which has the content of the one that they
/// were made of.
fn name_file(coding: &mut Representation, file: &Path) {
    if let Data::Spooled(source) = &coding.data
        && *source.of != *file
    {
        coding.data = Data::Spooled(Arc::new(source.of_file(file)));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::disk::Root;
    use crate::representation::{Resource, SpooledSource};
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
        scanner.forget_published(&first);
        let again = look();
        assert!(!Arc::ptr_eq(
            &source(&again[0]).extent,
            &source(&first[0]).extent
        ));
    }
}

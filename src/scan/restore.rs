//! Saved state: the files as an earlier process knew them, and the manifest they make up.
//!
//! Only what was learned by reading the files is saved. Field values and tags are derived again, so
//! that a new version of etagd, or changed rules, take effect.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::iter;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use rayon::iter::{ParallelBridge, ParallelIterator};

use super::codings::{CODINGS, sidecar_path, stem};
use super::hash::root_hash;
use super::{BATCH_SIZE, Scanner};
use crate::disk::{Root, Stamp};
use crate::manifest::{Changes, Manifest};
use crate::representation::{
    Confirmation, Data, Decoding, FileSource, GROUP_SIZE, GroupHash, MAX_WHOLE, Representation,
    Resource, TextKind,
};
use crate::semantics::coding::Coding;
use crate::semantics::date::HttpDate;
use crate::semantics::etag::ETag;

/// A file as an earlier process knew it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SavedFile<'a> {
    /// Its path in the site.
    pub path: &'a [u8],
    /// Where it was, as [`FileSource::path`] has it, if that is known and another place than `path`.
    pub location: Option<&'a Path>,
    /// Its state when it was hashed; `size` is the length of what was hashed. Its device is not
    /// known: numbers of devices are good for one process.
    pub stamp: Stamp,
    /// Whether an equal stamp means equal content. Otherwise it has to be read again.
    pub is_trusted: bool,
    /// Whether its content was text.
    pub text: TextKind,
    /// BLAKE3 of its content.
    pub hash: [u8; 32],
    /// SHA-256 of its content, where that was wanted.
    pub sha256: Option<[u8; 32]>,
    /// The chaining values of its groups; none up to [`MAX_WHOLE`].
    pub groups: &'a [GroupHash],
    /// When its content was last modified, if that could be told.
    pub last_modified: Option<HttpDate>,
    /// The newest date that its path ever had.
    pub newest_date: Option<HttpDate>,
    /// How it was proven to decode, where its name or a rule wanted that.
    pub decoding: Option<Decoding>,
    /// The codings whose sidecars were proven to decode to it.
    pub codings: Vec<Coding>,
}

impl<'a> SavedFile<'a> {
    /// What `manifest` knows of one of its resources.
    pub fn of(resource: &'a Resource, manifest: &Manifest) -> Self {
        let (location, groups) = match &resource.identity.data {
            Data::Memory(_) | Data::Spooled(_) | Data::Remote(_) => (None, [].as_slice()),
            Data::File(source) => (Some(&*source.path), &*source.groups),
        };
        // A proof is about the bytes of the sidecar that is published, and of no other.
        let has_proof = |coding: &Coding| {
            let mut encoded = resource.encoded.iter();
            // Most files have no codings, and need no look-ups.
            encoded
                .find(|each| each.coding() == *coding)
                .is_some_and(|proven| {
                    let path = sidecar_path(&resource.path, *coding);
                    path.and_then(|path| manifest.locate(&path))
                        .is_some_and(|it| it.identity.etag.hash() == proven.etag.hash())
                })
        };
        Self {
            path: &resource.path,
            location: location
                .filter(|location| location.as_os_str().as_bytes() != &*resource.path),
            stamp: Stamp {
                // Device numbers change with each mount.
                device: 0,
                ..resource.stamp
            },
            is_trusted: resource.settled && resource.confirmed.get() == Some(true),
            text: resource.text,
            hash: *resource.identity.etag.hash(),
            sha256: resource.identity.sha256().copied(),
            groups,
            last_modified: resource.last_modified,
            newest_date: resource.newest_date(),
            decoding: resource.fields.decoding(),
            codings: CODINGS.into_iter().filter(has_proof).collect(),
        }
    }

    /// Whether the hashes of the groups make up the hash of the whole, so that proving one against
    /// its group proves it against the tag.
    fn is_sound(&self) -> bool {
        let size = self.stamp.size;
        if size <= MAX_WHOLE {
            return self.groups.is_empty();
        }
        self.groups.len() as u64 == size.div_ceil(GROUP_SIZE)
            && root_hash(self.groups, size) == self.hash
    }

    fn location(&self) -> &Path {
        self.location
            .unwrap_or_else(|| Path::new(OsStr::from_bytes(self.path)))
    }

    fn identity(&self, root: &Arc<Root>) -> Representation {
        let data = Data::File(Arc::new(FileSource {
            root: Arc::clone(root),
            path: self.location().into(),
            groups: if self.groups.is_empty() {
                Arc::default()
            } else {
                self.groups.into()
            },
        }));
        let etag = ETag::new(self.hash);
        Representation::new(Coding::Identity, etag, self.stamp.size, data).with_sha256(self.sha256)
    }
}

/// The content of the saved files that may be sidecars, by path.
type Sidecars<'a> = HashMap<&'a [u8], Representation>;

impl Scanner {
    /// The manifest of the files that an earlier process saved, with every body in its file. It is
    /// a guess at what the disk holds: [`Scanner::scan_from`] has to compare it before anything
    /// is served from it.
    pub fn restore<'a>(
        &self,
        root: &Arc<Root>,
        files: impl Iterator<Item = SavedFile<'a>> + Clone + Send,
    ) -> Manifest {
        let files = files.filter(SavedFile::is_sound);
        let sidecars: Sidecars<'_> = files
            .clone()
            .filter(|saved| stem(saved.path).is_some())
            .map(|saved| (saved.path, saved.identity(root)))
            .collect();
        // Usually all files are on one device. Where one is not, its stamp will differ and it is
        // read again.
        let device = files
            .clone()
            .find_map(|saved| root.stamp(saved.location()).ok())
            .map_or(0, |stamp| stamp.device);
        let mut files = files;
        let batches = iter::from_fn(move || {
            let batch: Vec<_> = files.by_ref().take(BATCH_SIZE).collect();
            (!batch.is_empty()).then_some(batch)
        });
        let changed = batches
            .par_bridge()
            .flat_map_iter(|batch| {
                batch.into_iter().map(|saved| {
                    let mut resource = self.restore_file(root, &saved, &sidecars);
                    resource.stamp.device = device;
                    Arc::new(resource)
                })
            })
            .collect();
        Manifest::empty(Arc::clone(&self.settings)).with(Changes {
            changed,
            ..Changes::default()
        })
    }

    fn restore_file(
        &self,
        root: &Arc<Root>,
        saved: &SavedFile<'_>,
        sidecars: &Sidecars<'_>,
    ) -> Resource {
        let identity = sidecars
            .get(saved.path)
            .cloned()
            .unwrap_or_else(|| saved.identity(root));
        let mut encoded: Vec<_> = saved
            .codings
            .iter()
            .filter_map(|&coding| {
                let path = sidecar_path(saved.path, coding)?;
                Some(sidecars.get(&*path)?.as_coding(coding))
            })
            .collect();
        encoded.sort_by_key(|representation| representation.length);
        let confirmed = Confirmation::default();
        if saved.is_trusted {
            confirmed.set(true);
        }
        let resource = Resource {
            last_modified: saved.last_modified,
            stamp: saved.stamp,
            // The scan reads again what is not settled.
            settled: saved.is_trusted,
            confirmed,
            text: saved.text,
            encoded: encoded.into(),
            ..Resource::new(
                saved.path.into(),
                self.fields(saved.path, saved.text, true, saved.decoding),
                identity,
            )
        };
        resource.with_newest_date(saved.newest_date)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    use crate::representation::group_hash;
    use crate::scan::{Progress, Scope, Unsettled};
    use crate::settings::{Settings, Symlinks};

    fn scanner() -> Scanner {
        Scanner::new(Symlinks::Inside, Settings::default(), None)
    }

    #[test]
    fn groups_that_do_not_make_up_the_hash_prove_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = Arc::new(Root::open(directory.path()).expect("a root"));
        let body = vec![b'x'; (MAX_WHOLE + GROUP_SIZE) as usize];
        let groups = body.chunks(GROUP_SIZE as usize).enumerate();
        let groups: Vec<_> = groups
            .map(|(index, group)| group_hash(group, index as u64 * GROUP_SIZE))
            .collect();
        let size = body.len() as u64;
        let known = SavedFile {
            path: b"large",
            location: None,
            stamp: Stamp {
                size,
                ..Stamp::default()
            },
            is_trusted: true,
            text: TextKind::Utf8,
            hash: *blake3::hash(&body).as_bytes(),
            sha256: None,
            groups: &groups,
            last_modified: None,
            newest_date: None,
            decoding: None,
            codings: vec![],
        };
        let restored =
            |known: &SavedFile<'_>| scanner().restore(&root, [known.clone()].into_iter()).len();
        assert_eq!(restored(&known), 1);
        let mut others = groups.clone();
        others[3][7] ^= 1;
        assert_eq!(
            restored(&SavedFile {
                groups: &others,
                ..known.clone()
            }),
            0
        );
        assert_eq!(
            restored(&SavedFile {
                groups: &groups[1..],
                ..known.clone()
            }),
            0
        );
        assert_eq!(
            restored(&SavedFile {
                groups: &[],
                ..known.clone()
            }),
            0
        );
        let hash = [0; 32];
        assert_eq!(restored(&SavedFile { hash, ..known }), 0);
    }

    #[test]
    fn a_device_may_have_another_number_after_a_restart_and_only_then() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("file"), "content").expect("written");
        let root = Arc::new(Root::open(directory.path()).expect("a root"));
        let (scanner, progress) = (scanner(), Progress::default());
        let (first, _) = scanner.scan(&root, &progress);
        let renumbered = |manifest: &Manifest| {
            let file = manifest.locate(b"file").expect("there");
            let mut file = Resource::clone(file);
            file.stamp.device += 1;
            let changed = vec![Arc::new(file)];
            manifest.with(Changes {
                changed,
                ..Changes::default()
            })
        };
        let (second, _) = scanner.scan_from(renumbered(&first), &root, &progress);
        let stamp = |manifest: &Manifest| manifest.locate(b"file").expect("there").stamp;
        assert_eq!(progress.files(), 1, "hashed once");
        assert_eq!(stamp(&second), stamp(&first));
        let (scope, settled) = (Scope::Everything, Unsettled::Publish);
        scanner.reconcile(&root, &renumbered(&second), &scope, settled, &progress);
        assert_eq!(progress.files(), 2, "another file by the same name");
    }
}

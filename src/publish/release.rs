//! Makes releases.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::time::sleep;

use super::content::SiteContent;
use super::error::PublishError;
use super::identity::PublisherId;
use super::lock::{LockRequest, StoreLock};
use super::missing::MissingBlobs;
use super::probe::probe;
use crate::progress::ByteProgress;
use crate::settings::{Channel, setting_changes};
use crate::store::layout::{self, FORMAT_VERSION, LockKind};
use crate::store::{
    BlobHash, Creation, EncodedListing, ReleaseRecord, SiteListing, Store, StoreErrorKind,
};

/// How long a collector is waited for: it may have millions of objects to delete.
const MAX_WAIT: Duration = Duration::from_secs(3600);
/// How often somebody looks whether a release was made after all, and the pause in between.
const MAX_LOOKS: usize = 6;
const LOOK_PAUSE: Duration = Duration::from_secs(5);
/// How often a release is made whose lock expires meanwhile.
const MAX_ROUNDS: usize = 3;

/// Who makes releases of a channel.
#[derive(Debug)]
pub struct ReleasePublisher<'s> {
    /// Where they are kept.
    pub store: &'s Store,
    /// The list that they are added to.
    pub channel: Channel,
    /// What tells this process from all others.
    pub id: PublisherId,
    /// Who that is, for people.
    pub who: String,
    /// What they have to say about it.
    pub note: String,
    /// Whether the operator sees to it that nobody else publishes, since the store can't.
    pub is_single_writer: bool,
}

/// What a release is to say.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReleaseDraft {
    pub(super) digest: BlobHash,
    pub(super) manifest: BlobHash,
    pub(super) files: u64,
    pub(super) bytes: u64,
    pub(super) rollback_to: Option<u64>,
}

impl ReleasePublisher<'_> {
    /// The newest release, which the next one follows.
    ///
    /// # Errors
    /// When the store can't be asked, or it is not the one that it is expected to be: 0 for none.
    pub async fn newest(&self, after: Option<u64>) -> Result<Option<ReleaseRecord>, PublishError> {
        let newest = match self.store.newest(&self.channel).await? {
            Some(number) => match self.store.record(&self.channel, number).await {
                Ok(record) => Some(record),
                Err(error)
                    if matches!(
                        error.kind,
                        StoreErrorKind::Unusable | StoreErrorKind::TooLarge
                    ) =>
                {
                    return Err(PublishError::Newest(error));
                }
                Err(error) => return Err(error.into()),
            },
            None => None,
        };
        let number = newest.as_ref().map_or(0, |newest| newest.number);
        match after {
            Some(expected) if expected != number => Err(PublishError::NotAfter {
                expected,
                channel: self.channel.clone(),
                newest: newest.map(Box::new),
            }),
            _ => Ok(newest),
        }
    }

    /// Publishes a site as the release after `base`.
    ///
    /// # Errors
    /// When a file has changed, the store does not do what it is asked for, or somebody else has published
    /// meanwhile.
    pub async fn publish(
        &self,
        content: &SiteContent,
        base: Option<&ReleaseRecord>,
        progress: &ByteProgress,
    ) -> Result<ReleaseRecord, PublishError> {
        if !self.is_single_writer {
            probe(self.store, &self.id).await?;
        }
        let listing = content.listing.encode().map_err(PublishError::Listing)?;
        let draft = ReleaseDraft {
            digest: content.listing.digest,
            manifest: listing.name,
            files: content.files,
            bytes: content.bytes,
            rollback_to: None,
        };
        let of_base = self.needed_by(base, content).await;
        // Nearly all of the work is done before anybody has to wait for it.
        let missing = MissingBlobs::find(self.store, content).await?;
        missing.upload(self.store, progress).await?;
        self.write_listing(&listing).await?;
        let complete = async || {
            // What a release needs that no collector has deleted, none has deleted either.
            let known = match base {
                Some(base) if self.is_there(base).await? => of_base.clone(),
                _ => HashSet::new(),
            };
            let missing = MissingBlobs::find_others(self.store, content, &known).await?;
            missing.upload(self.store, progress).await?;
            self.keep_listing(&listing).await
        };
        self.release(draft, base.map(|base| base.number), complete)
            .await
    }

    /// The contents of a site that a release has, too, as far as that can be told.
    async fn needed_by(
        &self,
        release: Option<&ReleaseRecord>,
        content: &SiteContent,
    ) -> HashSet<(BlobHash, u64)> {
        let listing = match release {
            Some(release) => self.store.listing(&release.manifest).await.ok(),
            None => None,
        };
        if let (Some(release), Some(listing)) = (release, &listing) {
            report_settings(release, listing, content);
        }
        let of_site = content.sizes();
        let of_release = listing.iter().flat_map(SiteListing::blobs);
        of_release.filter(|blob| of_site.contains(blob)).collect()
    }

    /// Says how the settings of a site differ from those of the release that it is to follow, as far as that
    /// can be told.
    pub async fn compare_settings(&self, base: &ReleaseRecord, content: &SiteContent) {
        if let Ok(listing) = self.store.listing(&base.manifest).await {
            report_settings(base, &listing, content);
        }
    }

    /// Whether this very release is still in the store.
    async fn is_there(&self, release: &ReleaseRecord) -> Result<bool, PublishError> {
        match self.store.record(&self.channel, release.number).await {
            Ok(found) => Ok(found == *release),
            Err(error)
                if matches!(
                    error.kind,
                    StoreErrorKind::Missing | StoreErrorKind::Unusable
                ) =>
            {
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Has the store have a listing.
    async fn write_listing(&self, listing: &EncodedListing) -> Result<(), PublishError> {
        let bytes = Bytes::from(listing.bytes.clone());
        let key = layout::listing(&listing.name);
        if self.is_single_writer {
            return Ok(self.store.put(&key, bytes).await?);
        }
        if self.store.create(&key, bytes.clone()).await? == Creation::Exists
            && let Err(error) = self.store.listing(&listing.name).await
        {
            tracing::warn!(%error, "{error}; it is written again");
            self.store.put(&key, bytes).await?;
        }
        Ok(())
    }

    /// Has the store still have a listing that it had a moment ago.
    async fn keep_listing(&self, listing: &EncodedListing) -> Result<(), PublishError> {
        match self.store.head(&layout::listing(&listing.name)).await {
            Ok(object) if object.size == listing.bytes.len() as u64 => Ok(()),
            Err(error) if error.kind != StoreErrorKind::Missing => Err(error.into()),
            _ => self.write_listing(listing).await,
        }
    }

    /// Has the newest release, which is this very site, be whole again: objects may have been lost. `false`
    /// where another release has to be made, since its listing can't be read.
    ///
    /// # Errors
    /// When a file has changed, or the store does not do what it is asked for.
    pub async fn repair(
        &self,
        content: &SiteContent,
        newest: &ReleaseRecord,
        progress: &ByteProgress,
    ) -> Result<bool, PublishError> {
        // No collector deletes what the newest release needs, so no lock is needed.
        let missing = MissingBlobs::find(self.store, content).await?;
        if !missing.is_empty() {
            let contents = missing.len();
            let release = newest.number;
            tracing::warn!(
                release,
                contents,
                "the store has lost contents of release {release}: {contents}, which are sent again"
            );
            missing.upload(self.store, progress).await?;
        }
        match self.check(newest, &content.sizes()).await {
            Ok(()) => Ok(true),
            Err(error @ (PublishError::Incomplete { .. } | PublishError::Store(_))) => {
                tracing::warn!(%error, "the newest release cannot be read: {error}");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Makes a release, while no collector is at work. `complete` has the store have what it needs, or
    /// fails: what was there may have been deleted until a moment ago.
    pub(super) async fn release(
        &self,
        draft: ReleaseDraft,
        base: Option<u64>,
        complete: impl AsyncFn() -> Result<(), PublishError>,
    ) -> Result<ReleaseRecord, PublishError> {
        let mut made = None;
        let in_doubt = |made, error| match made {
            None => error,
            Some(number) => PublishError::InDoubt {
                number,
                source: Box::new(error),
            },
        };
        for round in 1..=MAX_ROUNDS {
            match self.attempt(draft, base, &complete).await {
                Ok((record, true)) => {
                    self.hint(record.number).await;
                    return Ok(record);
                }
                Ok((record, false)) => made = Some(record.number),
                Err(PublishError::Expired) => {}
                Err(error) => return Err(in_doubt(made, error)),
            }
            // A collector may have begun meanwhile, which takes this lock for one that was left.
            tracing::warn!(
                round,
                "the store is so slow, or this machine has slept so long, that the lock of this process has \
                 expired: round {round} of {MAX_ROUNDS}"
            );
        }
        Err(in_doubt(made, PublishError::Expired))
    }

    /// Makes a release under a lock, and says whether that was held to the end.
    async fn attempt(
        &self,
        draft: ReleaseDraft,
        base: Option<u64>,
        complete: &impl AsyncFn() -> Result<(), PublishError>,
    ) -> Result<(ReleaseRecord, bool), PublishError> {
        let request = LockRequest {
            store: self.store,
            kind: LockKind::Push,
            id: &self.id,
            who: &self.who,
            max_wait: MAX_WAIT,
        };
        let lock = request.acquire().await?;
        // Servers keep what it removes from its date on, which so comes after the wait for others.
        let record = self.record(draft, base);
        let made = self.make(&lock, &record, complete).await;
        let is_held = lock.is_held();
        lock.release().await;
        made.map(|()| (record, is_held))
    }

    async fn make(
        &self,
        lock: &StoreLock<'_>,
        record: &ReleaseRecord,
        complete: &impl AsyncFn() -> Result<(), PublishError>,
    ) -> Result<(), PublishError> {
        complete().await?;
        // That the next number is free does not say that nobody has had it: a collector deletes records.
        let newer = self.store.releases_after(&self.channel, record.previous);
        let newer = newer.await?;
        // An earlier attempt may have made it, and somebody else one after it.
        let own = newer.iter().find(|it| it.number == record.number);
        if let Some(release) = own.or(newer.last()) {
            let found = self.store.record(&self.channel, release.number).await?;
            return self.is_own(found);
        }
        match lock.step(self.create(record)).await {
            Err(PublishError::Store(error)) if error.is_passing() => {
                self.find_out(record, error.into()).await
            }
            Err(PublishError::Expired) => self.find_out(record, PublishError::Expired).await,
            created => created,
        }
    }

    /// Whether a record was created by a request that had no answer.
    async fn find_out(
        &self,
        record: &ReleaseRecord,
        error: PublishError,
    ) -> Result<(), PublishError> {
        for _ in 0..MAX_LOOKS {
            match self.store.record(&self.channel, record.number).await {
                Ok(found) => return self.is_own(found),
                Err(missing) if missing.kind == StoreErrorKind::Missing => return Err(error),
                Err(_) => sleep(LOOK_PAUSE).await,
            }
        }
        Err(PublishError::Uncertain(record.number))
    }

    fn record(&self, draft: ReleaseDraft, previous: Option<u64>) -> ReleaseRecord {
        ReleaseRecord {
            format: FORMAT_VERSION,
            // No number that is read is the largest one.
            number: previous.unwrap_or_default() + 1,
            id: self.id.to_string(),
            digest: draft.digest,
            manifest: draft.manifest,
            files: draft.files,
            bytes: draft.bytes,
            previous,
            at: SystemTime::now().into(),
            who: self.who.clone(),
            note: self.note.clone(),
            rollback_to: draft.rollback_to,
        }
    }

    /// Creates the record, which is what publishes.
    async fn create(&self, record: &ReleaseRecord) -> Result<(), PublishError> {
        let key = layout::release(&self.channel, record.number);
        let bytes = Bytes::from(record.to_json());
        let created = if self.is_single_writer {
            match self.store.head(&key).await {
                Ok(_) => Ok(Creation::Exists),
                Err(error) if error.kind == StoreErrorKind::Missing => {
                    let put = self.store.put(&key, bytes).await;
                    put.map(|()| Creation::Created)
                }
                Err(error) => Err(error),
            }
        } else {
            self.store.create(&key, bytes).await
        };
        match created {
            Ok(Creation::Created) => Ok(()),
            Ok(Creation::Exists) => {
                let theirs = self.store.record(&self.channel, record.number).await?;
                self.is_own(theirs)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// An answer may get lost, and object_store asks again: that the record exists is no news then.
    fn is_own(&self, found: ReleaseRecord) -> Result<(), PublishError> {
        match found.id == self.id.as_str() {
            true => Ok(()),
            false => Err(PublishError::Lost {
                theirs: Box::new(found),
            }),
        }
    }

    /// Says which release is the newest. Who misses it lists the channel.
    async fn hint(&self, number: u64) {
        let bytes = Bytes::from(format!("{number}\n"));
        if let Err(error) = self.store.put(&layout::hint(&self.channel), bytes).await {
            tracing::warn!(
                %error,
                "{error}; the release is made, and servers find it with their next sweep"
            );
        }
    }
}

/// A flag that was forgotten makes another site, and nobody sees that in its files.
fn report_settings(base: &ReleaseRecord, listing: &SiteListing, content: &SiteContent) {
    let changes = setting_changes(&listing.settings, &content.listing.settings);
    if !changes.is_empty() {
        let changes: Vec<_> = changes.iter().map(ToString::to_string).collect();
        let (release, changes) = (base.number, changes.join(", "));
        tracing::info!(
            release,
            changes,
            "settings differ from release {release}: {changes}"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use super::*;
    use crate::disk::Root;
    use crate::publish::{publisher_id, publisher_name};
    use crate::scan::{Progress, Scanner};
    use crate::settings::{Settings, StoreUrl, Symlinks};
    use crate::store::StorePatience;
    use crate::trust::Trust;

    /// What becomes of a push whose directory is changed between the scan and the upload.
    fn publish_changed(
        change: impl FnOnce(&std::path::Path),
    ) -> (Result<u64, String>, Vec<String>) {
        let (site, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = |name: &str| site.path().join(name);
        fs::write(path("a.txt"), "small").unwrap();
        fs::write(path("_headers"), "/*\n  X-A: b\n").unwrap();
        fs::write(path("long.bin"), vec![7; (20 << 20) + 1]).unwrap();
        let root = Arc::new(Root::open(site.path()).unwrap());
        let scanner = Scanner::new(Symlinks::Inside, Settings::default(), None);
        let (manifest, _) = scanner.scan(&root, &Progress::default());
        change(site.path());
        let url = StoreUrl::Folder(folder.path().to_path_buf());
        let store = Store::open(&url, StorePatience::default(), &Trust::Nobody).unwrap();
        let publisher = ReleasePublisher {
            store: &store,
            channel: Channel::default(),
            id: publisher_id(),
            who: publisher_name(),
            note: String::new(),
            is_single_writer: false,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let published = runtime.block_on(async {
            let content = SiteContent::new(&root, &manifest)?;
            publisher
                .publish(&content, None, &ByteProgress::default())
                .await
        });
        let visible = runtime.block_on(store.list("channels", None)).unwrap();
        let visible = visible.iter().map(|it| it.key.to_string()).collect();
        let published = published.map(|record| record.number);
        (published.map_err(|error| error.to_string()), visible)
    }

    /// A publisher that has no site, for what comes after the contents.
    fn release_with(work: impl AsyncFnOnce(&ReleasePublisher<'_>, ReleaseDraft)) {
        let folder = tempfile::tempdir().unwrap();
        let url = StoreUrl::Folder(folder.path().to_path_buf());
        let store = Store::open(&url, StorePatience::default(), &Trust::Nobody).unwrap();
        let publisher = ReleasePublisher {
            store: &store,
            channel: Channel::default(),
            id: publisher_id(),
            who: publisher_name(),
            note: String::new(),
            is_single_writer: false,
        };
        let draft = ReleaseDraft {
            digest: BlobHash::of(b"site"),
            manifest: BlobHash::of(b"listing"),
            files: 1,
            bytes: 1,
            rollback_to: None,
        };
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(work(&publisher, draft));
    }

    #[test]
    fn a_publisher_that_slept_while_its_release_was_made_completes_it_again() {
        release_with(async |publisher, draft| {
            // The record is there, and its answer was lost.
            let record = publisher.record(draft, None);
            publisher.create(&record).await.unwrap();
            let rounds = std::cell::Cell::new(0);
            let complete = async || {
                rounds.set(rounds.get() + 1);
                if rounds.get() == 1 {
                    publisher.id.hold.expire();
                }
                Ok(())
            };
            let released = publisher.release(draft, None, complete).await.unwrap();
            assert_eq!((released.number, rounds.get()), (1, 2));
            let locks = publisher.store.list(layout::LOCKS, None).await.unwrap();
            assert_eq!(locks, []);
        });
    }

    #[test]
    fn a_release_whose_lock_expires_again_and_again_ends() {
        release_with(async |publisher, draft| {
            let rounds = std::cell::Cell::new(0);
            let complete = async || {
                rounds.set(rounds.get() + 1);
                publisher.id.hold.expire();
                Ok(())
            };
            let released = publisher.release(draft, None, complete).await;
            let error = released.unwrap_err();
            assert!(matches!(error, PublishError::Expired), "{error}");
            assert_eq!(rounds.get(), MAX_ROUNDS);
        });
    }

    #[test]
    fn a_release_that_was_made_is_not_said_to_be_none() {
        release_with(async |publisher, draft| {
            let record = publisher.record(draft, None);
            publisher.create(&record).await.unwrap();
            let rounds = std::cell::Cell::new(0);
            let complete = async || {
                publisher.id.hold.expire();
                rounds.set(rounds.get() + 1);
                match rounds.get() {
                    1 => Ok(()),
                    _ => Err(PublishError::Changed("/a.txt".to_owned())),
                }
            };
            let error = publisher.release(draft, None, complete).await.unwrap_err();
            let error = error.to_string();
            assert!(error.starts_with("release 1 was made, but "), "{error}");
        });
    }

    #[test]
    fn a_file_that_changes_while_it_is_pushed_is_named_and_nothing_is_released() {
        let (published, visible) = publish_changed(|_| ());
        assert_eq!(published, Ok(1));
        assert_eq!(visible.len(), 2);
        let long = |change: fn(&mut Vec<u8>)| {
            let mut bytes = vec![7; (20 << 20) + 1];
            change(&mut bytes);
            bytes
        };
        let changes: [(&str, Option<Vec<u8>>); 8] = [
            ("a.txt", Some(b"SMALL".to_vec())),
            ("a.txt", Some(b"small and more".to_vec())),
            ("a.txt", Some(Vec::new())),
            ("a.txt", None),
            ("_headers", Some(b"/*\n  X-A: c\n".to_vec())),
            ("_headers", None),
            // Only its last group is another one.
            ("long.bin", Some(long(|it| it[20 << 20] = 8))),
            ("long.bin", Some(long(|it| it.truncate(17 << 20)))),
        ];
        for (name, content) in changes {
            let (published, visible) = publish_changed(|site| match &content {
                Some(bytes) => fs::write(site.join(name), bytes).unwrap(),
                None => fs::remove_file(site.join(name)).unwrap(),
            });
            let error = published.expect_err(name);
            let says = format!("/{name} has changed since it was hashed: nothing was released");
            assert!(error.starts_with(&says), "{error}");
            assert!(visible.is_empty(), "{name}: {visible:?}");
        }
    }
}

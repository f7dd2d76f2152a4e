//! Stores of releases: a bucket, or a folder. Which objects there are, what is in them, and how they are
//! read and written; `docs/STORE.md` describes the format.
//!
//! One thing is asked of a store: that of two who create an object, one is told that it exists
//! (`If-None-Match: *`). `If-Match` and conditional deletes are not used, since stores differ in them.
//! Nothing that is read is believed: names are hashes, and who reads compares.

mod bounded;
#[cfg(feature = "s3")]
mod connector;
mod error;
mod folder;
pub mod layout;
mod listing;
mod record;
mod releases;
mod unfinished;
mod upload;

use std::fmt;
use std::ops::{ControlFlow, Range};
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore, PutMode, PutOptions, PutPayload,
};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::settings::StoreUrl;
use crate::trust::Trust;
use error::ErrorContext;
use layout::ObjectKey;

pub use error::{StoreAction, StoreError, StoreErrorKind};
pub use folder::{is_foreign, is_store};
pub use layout::BlobHash;
pub use listing::{
    EncodedListing, ListedCoding, ListedFile, ListedRules, ListingError, SiteListing, has_tree,
};
pub use record::{RecordError, ReleaseRecord, ReleaseTime};
pub use releases::{MAX_HINT_LENGTH, NumberedRelease, number_in_hint};
pub use upload::PartWriter;

/// How often an object is created that somebody else seems to be creating, and the pause in between.
const MAX_CONFLICTS: usize = 10;
const CONFLICT_PAUSE: Duration = Duration::from_millis(300);

/// How long a store is waited for.
#[derive(Clone, Copy, Debug)]
pub struct StorePatience {
    /// For a connection, and for anything to move on it.
    pub stall: Duration,
    /// How often a request is made again after the store could not answer it.
    pub retries: usize,
    /// After this time no request is made again.
    pub retry_time: Duration,
}

impl Default for StorePatience {
    fn default() -> Self {
        Self {
            stall: Duration::from_secs(30),
            retries: 5,
            retry_time: Duration::from_secs(60),
        }
    }
}

/// The most objects that are listed to be remembered: releases, and locks.
const MAX_LISTED: usize = 1 << 20;

/// Memory that is asked for at once for what a store announces.
const MAX_ALLOCATION: u64 = 8 << 20;

/// Requests that a store has failed to answer, nearly all of which are made again.
#[derive(Clone, Debug, Default)]
pub struct FailedRequests {
    /// How many there are so far.
    pub number: u64,
    /// Why the last one failed.
    pub reason: String,
}

/// A store of releases.
#[derive(Clone)]
pub struct Store {
    url: StoreUrl,
    objects: Arc<dyn ObjectStore>,
    /// What all names begin with; empty, or without a slash at its end.
    prefix: Path,
    patience: StorePatience,
    failed: watch::Receiver<FailedRequests>,
}

// What is inside has credentials.
impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// An object of a store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredObject {
    /// Its name.
    pub key: ObjectKey,
    /// Its length in bytes.
    pub size: u64,
    /// When it was written, by the clock of the store.
    pub modified: SystemTime,
}

/// What became of an object that was to be created.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Creation {
    /// It is there now.
    Created,
    /// Somebody had created it before, perhaps an earlier attempt of the same request whose answer was
    /// lost.
    Exists,
}

/// An object that is asked for again and again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Polled {
    /// It is what it was.
    Unchanged,
    /// What it is now, and the store's own tag of it, for the next time.
    Changed {
        /// Its bytes.
        bytes: Bytes,
        /// The tag.
        tag: Option<String>,
    },
}

impl Store {
    /// Opens a store. Nothing is asked of a bucket yet; a folder has to be there.
    ///
    /// # Errors
    /// When the folder is missing, the environment describes no bucket that can be asked, or the certificate
    /// authorities can't be had.
    pub fn open(
        url: &StoreUrl,
        patience: StorePatience,
        trust: &Trust,
    ) -> Result<Self, StoreError> {
        let context = ErrorContext::opening(url);
        let (sender, failed) = watch::channel(FailedRequests::default());
        let (objects, prefix) = match url {
            StoreUrl::Folder(folder) => (open_folder(folder, context)?, ""),
            StoreUrl::S3 { bucket, prefix } => {
                let objects = open_bucket(bucket, patience, trust, sender, context)?;
                (objects, prefix.as_str())
            }
        };
        let prefix = Path::parse(prefix)
            .map_err(|error| context.error(StoreErrorKind::Refused, error.to_string()))?;
        Ok(Self {
            url: url.clone(),
            objects,
            prefix,
            patience,
            failed,
        })
    }

    /// Opens a store whose folder may be missing for now, as that of a file system that is not mounted
    /// yet.
    ///
    /// # Errors
    /// When the environment describes no bucket that can be asked.
    pub fn open_later(
        url: &StoreUrl,
        patience: StorePatience,
        trust: &Trust,
    ) -> Result<Self, StoreError> {
        let StoreUrl::Folder(folder) = url else {
            return Self::open(url, patience, trust);
        };
        let prefix = Path::from_absolute_path(folder).map_err(|error| {
            ErrorContext::opening(url).error(StoreErrorKind::Refused, error.to_string())
        })?;
        Ok(Self {
            url: url.clone(),
            objects: Arc::new(LocalFileSystem::new().with_fsync(true)),
            prefix,
            patience,
            failed: watch::channel(FailedRequests::default()).1,
        })
    }

    /// Opens a store that is about to be written. A folder that is missing is made by the first write, if
    /// the one that it belongs in is there.
    ///
    /// # Errors
    /// When both are missing, or the environment describes no bucket that can be asked.
    pub fn open_to_write(
        url: &StoreUrl,
        patience: StorePatience,
        trust: &Trust,
    ) -> Result<Self, StoreError> {
        let StoreUrl::Folder(folder) = url else {
            return Self::open(url, patience, trust);
        };
        if folder.exists() {
            return Self::open(url, patience, trust);
        }
        match folder.parent() {
            Some(parent) if !parent.is_dir() => {
                let parent = parent.display();
                let reason = format!(
                    "there is no folder {parent} to make it in: make that, or correct the name"
                );
                Err(ErrorContext::opening(url).error(StoreErrorKind::NoBucket, reason))
            }
            _ => Self::open_later(url, patience, trust),
        }
    }

    /// The requests that it has failed to answer so far, and word of each further one.
    #[must_use]
    pub fn failed_requests(&self) -> watch::Receiver<FailedRequests> {
        self.failed.clone()
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> &StoreUrl {
        &self.url
    }

    /// Reads an object of at most `limit` bytes.
    ///
    /// # Errors
    /// When it is missing, longer, or can't be read.
    pub async fn get(&self, key: &ObjectKey, limit: u64) -> Result<Bytes, StoreError> {
        let context = ErrorContext::of(StoreAction::Read, key, &self.url);
        let found = self.get_with(key, GetOptions::default(), context).await?;
        self.collect(found, limit, context).await
    }

    /// Reads an object of at most `limit` bytes, if it is not what it was when it had this tag.
    ///
    /// # Errors
    /// When it is missing, longer, or can't be read.
    pub async fn poll(
        &self,
        key: &ObjectKey,
        tag: Option<&str>,
        limit: u64,
    ) -> Result<Polled, StoreError> {
        let context = ErrorContext::of(StoreAction::Read, key, &self.url);
        let options = GetOptions::new().with_if_none_match(tag);
        let location = self.location(key);
        let asked = self.objects.get_opts(&location, options);
        match self.bounded(asked, context).await? {
            Err(object_store::Error::NotModified { .. }) => Ok(Polled::Unchanged),
            Err(error) => Err(context.translate(&error)),
            Ok(found) => {
                let tag = found.meta.e_tag.clone();
                let bytes = self.collect(found, limit, context).await?;
                Ok(Polled::Changed { bytes, tag })
            }
        }
    }

    /// Reads these bytes of an object.
    ///
    /// # Errors
    /// When it is missing, shorter, or can't be read.
    pub async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Bytes, StoreError> {
        let context = ErrorContext::of(StoreAction::Read, key, &self.url);
        let length = range.end.saturating_sub(range.start);
        let options = GetOptions::new().with_range(Some(GetRange::Bounded(range)));
        let found = self.get_with(key, options, context).await?;
        let bytes = self.collect(found, length, context).await?;
        match bytes.len() as u64 == length {
            true => Ok(bytes),
            false => {
                let reason = format!("it has {} of the {length} bytes asked for", bytes.len());
                Err(context.error(StoreErrorKind::Unusable, reason))
            }
        }
    }

    /// Creates an object, unless it exists.
    ///
    /// # Errors
    /// When the store can't be asked, or refuses.
    pub async fn create(&self, key: &ObjectKey, bytes: Bytes) -> Result<Creation, StoreError> {
        let context = ErrorContext::of(StoreAction::Write, key, &self.url);
        let location = self.location(key);
        for _ in 0..MAX_CONFLICTS {
            let put = self.objects.put_opts(
                &location,
                PutPayload::from_bytes(bytes.clone()),
                PutMode::Create.into(),
            );
            match self.bounded(put, context).await? {
                Ok(_) => return Ok(Creation::Created),
                Err(object_store::Error::AlreadyExists { .. }) => {}
                Err(error) => return Err(context.translate(&error)),
            }
            // S3 answers 409 (ConditionalRequestConflict) where somebody else is at it, who may fail in the
            // end. object_store takes that for an object that exists.
            match self.head(key).await {
                Ok(_) => return Ok(Creation::Exists),
                Err(error) if error.kind == StoreErrorKind::Missing => {}
                Err(error) => return Err(error),
            }
            sleep(CONFLICT_PAUSE).await;
        }
        let reason = "the store answers again and again that somebody else is writing it (409)";
        Err(context.error(StoreErrorKind::Busy, reason))
    }

    /// Writes an object, whether it exists or not.
    ///
    /// # Errors
    /// When the store can't be asked, or refuses.
    pub async fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<(), StoreError> {
        let context = ErrorContext::of(StoreAction::Write, key, &self.url);
        let location = self.location(key);
        let payload = PutPayload::from_bytes(bytes);
        let put = self
            .objects
            .put_opts(&location, payload, PutOptions::default());
        match self.bounded(put, context).await? {
            Ok(_) => Ok(()),
            Err(error) => Err(context.translate(&error)),
        }
    }

    /// Begins to write a long object part by part. It is there once all of it is.
    ///
    /// # Errors
    /// When the store can't be asked, or refuses.
    pub async fn put_in_parts(&self, key: &ObjectKey) -> Result<PartWriter<'_>, StoreError> {
        PartWriter::begin(self, key).await
    }

    /// The objects in a folder and below it, in the order of their names; those after `start_after` alone,
    /// if that is given.
    ///
    /// # Errors
    /// When they can't be listed, or there are more than a million.
    pub async fn list(
        &self,
        folder: &str,
        start_after: Option<&ObjectKey>,
    ) -> Result<Vec<StoredObject>, StoreError> {
        let mut objects = Vec::new();
        let collect = |object| match objects.len() {
            // A store may list for ever.
            MAX_LISTED => ControlFlow::Break(()),
            _ => {
                objects.push(object);
                ControlFlow::Continue(())
            }
        };
        if self
            .visit_after(folder, start_after, collect)
            .await?
            .is_break()
        {
            let reason = format!("there are more than {MAX_LISTED} objects");
            return Err(self
                .listing_context(folder)
                .error(StoreErrorKind::TooLarge, reason));
        }
        // A folder is listed as its file system has it, and a store may be wrong.
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        if let Some(after) = start_after {
            objects.retain(|object| object.key > *after);
        }
        Ok(objects)
    }

    /// Shows `visit` the objects in a folder and below it, one after the other as the store lists them, until
    /// it breaks off.
    ///
    /// # Errors
    /// When they can't be listed.
    pub async fn visit(
        &self,
        folder: &str,
        visit: impl FnMut(StoredObject) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.visit_after(folder, None, visit).await.map(drop)
    }

    fn listing_context<'a>(&'a self, folder: &'a str) -> ErrorContext<'a> {
        ErrorContext {
            action: StoreAction::List,
            key: Some(folder),
            store: &self.url,
        }
    }

    async fn visit_after(
        &self,
        folder: &str,
        start_after: Option<&ObjectKey>,
        mut visit: impl FnMut(StoredObject) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, StoreError> {
        let context = self.listing_context(folder);
        let is_in_order = matches!(self.url, StoreUrl::S3 { .. });
        let within = self.path(folder);
        let mut listed: BoxStream<'_, object_store::Result<ObjectMeta>> = match start_after {
            Some(key) => self
                .objects
                .list_with_offset(Some(&within), &self.location(key)),
            None => self.objects.list(Some(&within)),
        };
        let mut last = None;
        while let Some(object) = self.bounded(listed.next(), context).await? {
            let object = object.map_err(|error| context.translate(&error))?;
            let Some(object) = self.stored(&object) else {
                continue;
            };
            // A store that begins again and again would never end. Names of others may have an order of
            // their own.
            if is_in_order && object.key.as_str().is_ascii() {
                if last.is_some_and(|last| object.key <= last) {
                    let reason = format!("the store lists {} twice, or not in order", object.key);
                    return Err(context.error(StoreErrorKind::Refused, reason));
                }
                last = Some(object.key.clone());
            }
            if visit(object).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Asks for an object's length and date.
    ///
    /// # Errors
    /// When it is missing, or the store can't be asked.
    pub async fn head(&self, key: &ObjectKey) -> Result<StoredObject, StoreError> {
        let context = ErrorContext::of(StoreAction::Read, key, &self.url);
        let options = GetOptions::new().with_head(true);
        let found = self.get_with(key, options, context).await?;
        Ok(StoredObject {
            key: key.clone(),
            size: found.meta.size,
            modified: found.meta.last_modified.into(),
        })
    }

    /// Deletes an object. One that is not there is deleted.
    ///
    /// # Errors
    /// When the store can't be asked, or refuses.
    pub async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.delete_all(std::slice::from_ref(key)).await
    }

    /// Deletes objects. Those that are not there are deleted.
    ///
    /// # Errors
    /// When the store can't be asked, or refuses one of them.
    pub async fn delete_all(&self, keys: &[ObjectKey]) -> Result<(), StoreError> {
        self.delete_while(keys, || true).await
    }

    /// Deletes objects, each only if `may_go_on` says so when its turn comes; the first `false` is the end.
    /// Those that are not there are deleted.
    ///
    /// # Errors
    /// When the store can't be asked, or refuses one of them.
    pub async fn delete_while(
        &self,
        keys: &[ObjectKey],
        mut may_go_on: impl FnMut() -> bool + Send + 'static,
    ) -> Result<(), StoreError> {
        let Some(first) = keys.first() else {
            return Ok(());
        };
        let context = ErrorContext::of(StoreAction::Delete, first, &self.url);
        let locations: Vec<_> = keys.iter().map(|key| Ok(self.location(key))).collect();
        let locations = locations.into_iter().take_while(move |_| may_go_on());
        let locations = futures_util::stream::iter(locations).boxed();
        let mut deleted = self.objects.delete_stream(locations);
        while let Some(outcome) = self.bounded(deleted.next(), context).await? {
            match outcome {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(context.translate(&error)),
            }
        }
        Ok(())
    }

    async fn get_with(
        &self,
        key: &ObjectKey,
        options: GetOptions,
        context: ErrorContext<'_>,
    ) -> Result<GetResult, StoreError> {
        let location = self.location(key);
        let asked = self.objects.get_opts(&location, options);
        self.bounded(asked, context)
            .await?
            .map_err(|error| context.translate(&error))
    }

    /// What was found, if it has no more than `limit` bytes: a store that sends more than it says, or
    /// never ends, must not take all memory.
    async fn collect(
        &self,
        found: GetResult,
        limit: u64,
        context: ErrorContext<'_>,
    ) -> Result<Bytes, StoreError> {
        let too_large = || {
            let reason = format!("it is longer than the {limit} bytes that it may have");
            context.error(StoreErrorKind::TooLarge, reason)
        };
        let length = found.range.end.saturating_sub(found.range.start);
        if length > limit {
            return Err(too_large());
        }
        // What a store announces need not come.
        let mut bytes = BytesMut::with_capacity(length.min(MAX_ALLOCATION) as usize);
        let mut stream = found.into_stream();
        while let Some(piece) = self.bounded(stream.next(), context).await? {
            let piece = piece.map_err(|error| context.translate(&error))?;
            if (bytes.len() + piece.len()) as u64 > limit {
                return Err(too_large());
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes.freeze())
    }

    /// Waits for a store, but not for ever: a file system over a network that is gone never answers.
    async fn bounded<T>(
        &self,
        work: impl Future<Output = T>,
        context: ErrorContext<'_>,
    ) -> Result<T, StoreError> {
        let StorePatience {
            stall, retry_time, ..
        } = self.patience;
        // The last attempt may begin at the end of that time, and upload something long.
        let patience = retry_time + stall * 4;
        timeout(patience, work).await.map_err(|_| {
            let waited = humantime::format_duration(patience);
            let reason = format!("there was no answer for {waited}");
            context.error(StoreErrorKind::Unreachable, reason)
        })
    }

    fn location(&self, key: &ObjectKey) -> Path {
        self.path(key.as_str())
    }

    fn path(&self, name: &str) -> Path {
        let parts = name.split('/').map(object_store::path::PathPart::from);
        self.prefix.parts().chain(parts).collect()
    }

    fn stored(&self, object: &ObjectMeta) -> Option<StoredObject> {
        let name = object.location.as_ref();
        let name = match self.prefix.as_ref() {
            "" => name,
            prefix => name.strip_prefix(prefix)?.strip_prefix('/')?,
        };
        Some(StoredObject {
            key: ObjectKey::listed(name),
            size: object.size,
            modified: object.last_modified.into(),
        })
    }
}

fn open_folder(
    folder: &FilePath,
    context: ErrorContext<'_>,
) -> Result<Arc<dyn ObjectStore>, StoreError> {
    let metadata = std::fs::metadata(folder).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => context.error(
            StoreErrorKind::NoBucket,
            "there is no such folder: make it, or correct the name",
        ),
        std::io::ErrorKind::PermissionDenied => {
            context.error(StoreErrorKind::Forbidden, error.to_string())
        }
        _ => context.error(StoreErrorKind::Unreachable, error.to_string()),
    })?;
    if !metadata.is_dir() {
        return Err(context.error(StoreErrorKind::NoBucket, "it is no folder"));
    }
    let store = LocalFileSystem::new_with_prefix(folder).map_err(|it| context.translate(&it))?;
    // What a release names has to outlast a power cut as the release does.
    Ok(Arc::new(store.with_fsync(true)))
}

#[cfg(feature = "s3")]
fn open_bucket(
    bucket: &str,
    patience: StorePatience,
    trust: &Trust,
    failed: watch::Sender<FailedRequests>,
    context: ErrorContext<'_>,
) -> Result<Arc<dyn ObjectStore>, StoreError> {
    connector::open(bucket, patience, trust, failed)
        .map(|store| Arc::new(store) as Arc<dyn ObjectStore>)
        .map_err(|error| match error {
            connector::OpenError::Trust(error) => {
                context.error(StoreErrorKind::Refused, error.to_string())
            }
            connector::OpenError::Tls(error) => {
                context.error(StoreErrorKind::Refused, error.to_string())
            }
            connector::OpenError::Endpoint => context.error(
                StoreErrorKind::Refused,
                "what is in AWS_ENDPOINT_URL (or AWS_ENDPOINT_URL_S3) is no address: expected \
                 http://HOST:PORT or https://HOST",
            ),
            connector::OpenError::Variable(variable) => context.error(
                StoreErrorKind::Refused,
                format!("{variable} has a space or a line end in it: set it without"),
            ),
            connector::OpenError::Settings(error) => {
                let text = error.to_string();
                let reason = match text.contains("AccessKey") {
                    true => "one of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY is set, and not the other"
                        .to_owned(),
                    false => text,
                };
                context.error(StoreErrorKind::Refused, reason)
            }
        })
}

#[cfg(not(feature = "s3"))]
fn open_bucket(
    _: &str,
    _: StorePatience,
    _: &Trust,
    _: watch::Sender<FailedRequests>,
    context: ErrorContext<'_>,
) -> Result<Arc<dyn ObjectStore>, StoreError> {
    Err(context.error(
        StoreErrorKind::Unsupported,
        "this etagd was built without the feature s3: build it with --features s3, or use file://",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Channel;
    use layout::{LockKind, hint, lock, release};

    /// What is asked of a store in a folder of its own.
    fn with_store<T>(work: impl AsyncFnOnce(&Store, &FilePath) -> T) -> T {
        let folder = tempfile::tempdir().expect("a folder");
        let url = StoreUrl::Folder(folder.path().to_path_buf());
        let store = Store::open(&url, StorePatience::default(), &Trust::Nobody).expect("a store");
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
            .block_on(work(&store, folder.path()))
    }

    fn numbers(objects: &[StoredObject]) -> Vec<u64> {
        let releases = objects.iter().filter_map(|it| layout::release_of(&it.key));
        releases.map(|(_, number)| number).collect()
    }

    #[test]
    fn of_two_who_create_an_object_one_is_told_that_it_exists() {
        with_store(async |store, _| {
            let key = release(&Channel::default(), 1);
            let create = async |text: &'static str| {
                let created = store.create(&key, Bytes::from_static(text.as_bytes()));
                created.await.expect("asked")
            };
            let outcomes = [create("one").await, create("two").await];
            assert_eq!(outcomes, [Creation::Created, Creation::Exists]);
            assert_eq!(&store.get(&key, 10).await.expect("read")[..], b"one");
            let bytes = Bytes::from_static(b"three");
            store.put(&key, bytes).await.expect("written");
            assert_eq!(&store.get(&key, 10).await.expect("read")[..], b"three");
        });
    }

    #[test]
    fn objects_are_read_in_part_and_never_beyond_a_limit() {
        with_store(async |store, _| {
            let key = layout::blob(&BlobHash::of(b"x"));
            let bytes = Bytes::from_static(b"0123456789");
            store.put(&key, bytes).await.expect("written");
            let part = store.get_range(&key, 2..5).await.expect("read");
            assert_eq!(&part[..], b"234");
            let kind = async |range| store.get_range(&key, range).await.expect_err("none").kind;
            assert_eq!(kind(8..12).await, StoreErrorKind::Unusable);
            let error = store.get(&key, 9).await.expect_err("too long");
            assert_eq!(error.kind, StoreErrorKind::TooLarge, "{error}");
            assert_eq!(store.head(&key).await.expect("there").size, 10);
        });
    }

    #[test]
    fn what_is_missing_is_said_to_be() {
        with_store(async |store, _| {
            let key = hint(&Channel::default());
            for error in [
                store.get(&key, 10).await.expect_err("missing"),
                store.get_range(&key, 0..1).await.expect_err("missing"),
                store.head(&key).await.expect_err("missing"),
                store.poll(&key, None, 10).await.expect_err("missing"),
            ] {
                assert_eq!(error.kind, StoreErrorKind::Missing, "{error}");
                assert!(
                    error
                        .to_string()
                        .contains("channels/live/latest of file://")
                );
            }
            store.delete(&key).await.expect("deleted already");
            let nothing = store.list("channels/live", None).await;
            assert_eq!(nothing.expect("listed"), []);
        });
    }

    #[test]
    fn an_object_that_is_polled_comes_once() {
        with_store(async |store, _| {
            let key = hint(&Channel::default());
            let write = async |text: &'static str| {
                let bytes = Bytes::from_static(text.as_bytes());
                store.put(&key, bytes).await.expect("written");
            };
            let poll = async |tag: Option<String>| {
                let polled = store.poll(&key, tag.as_deref(), 20);
                match polled.await.expect("asked") {
                    Polled::Changed { bytes, tag } => Some((bytes, tag)),
                    Polled::Unchanged => None,
                }
            };
            write("41").await;
            let (bytes, tag) = poll(None).await.expect("new");
            assert_eq!(&bytes[..], b"41");
            assert_eq!(poll(tag.clone()).await, None);
            write("142").await;
            assert_eq!(&poll(tag).await.expect("new").0[..], b"142");
        });
    }

    #[test]
    fn folders_are_listed_in_order_and_from_a_name_on() {
        with_store(async |store, folder| {
            let live = Channel::default();
            for number in [10, 9, 1, 2] {
                let key = release(&live, number);
                store.put(&key, Bytes::new()).await.expect("written");
            }
            store
                .put(&hint(&live), Bytes::new())
                .await
                .expect("written");
            // What a process that was killed has left, and another channel.
            std::fs::write(folder.join("channels/live/00000000000000000011#1"), "")
                .expect("written");
            let other = "live-2".parse().expect("a channel");
            let key = release(&other, 3);
            store.put(&key, Bytes::new()).await.expect("written");
            let listed = async |after: Option<u64>| {
                let after = after.map(|number| release(&live, number));
                let list = store.list("channels/live", after.as_ref());
                numbers(&list.await.expect("listed"))
            };
            assert_eq!(listed(None).await, [1, 2, 9, 10]);
            assert_eq!(listed(Some(2)).await, [9, 10]);
            assert!(listed(Some(11)).await.is_empty());
            let all = store.list(layout::CHANNELS, None).await.expect("listed");
            assert_eq!(all.len(), 6);
            let keys = [release(&live, 1), release(&live, 7), hint(&live)];
            store.delete_all(&keys).await.expect("deleted");
            assert_eq!(listed(None).await, [2, 9, 10]);
        });
    }

    #[test]
    fn long_objects_are_there_once_they_are_whole() {
        with_store(async |store, _| {
            let key = layout::blob(&BlobHash::of(b"long"));
            let mut parts = store.put_in_parts(&key).await.expect("begun");
            parts
                .write(Bytes::from_static(b"one "))
                .await
                .expect("written");
            let error = store.head(&key).await.expect_err("not there yet");
            assert_eq!(error.kind, StoreErrorKind::Missing);
            parts
                .write(Bytes::from_static(b"two"))
                .await
                .expect("written");
            parts.finish().await.expect("finished");
            assert_eq!(&store.get(&key, 10).await.expect("read")[..], b"one two");
            let key = lock(LockKind::Push, "x");
            let mut parts = store.put_in_parts(&key).await.expect("begun");
            parts
                .write(Bytes::from_static(b"x"))
                .await
                .expect("written");
            parts.abort().await;
            assert!(store.head(&key).await.is_err());
        });
    }

    #[test]
    fn the_newest_release_is_found_whatever_the_hint_says() {
        with_store(async |store, _| {
            let live = Channel::default();
            let newest = async || store.newest(&live).await.expect("asked");
            assert_eq!(newest().await, None);
            for number in [1, 2, 11] {
                let key = release(&live, number);
                store.put(&key, Bytes::new()).await.expect("written");
            }
            assert_eq!(newest().await, Some(11), "without a hint");
            let long = "1".repeat(100);
            for text in ["11", "11\n", "2", "0", "12", "99", "x", "", "-1", &long] {
                let bytes = Bytes::from(text.to_owned());
                store.put(&hint(&live), bytes).await.expect("written");
                assert_eq!(newest().await, Some(11), "{text:?}");
            }
        });
    }

    #[test]
    fn a_folder_has_to_be_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        std::fs::write(&file, "").expect("written");
        for (path, says) in [
            (folder.path().join("missing"), "there is no such folder"),
            (file, "it is no folder"),
        ] {
            let url = StoreUrl::Folder(path);
            let error =
                Store::open(&url, StorePatience::default(), &Trust::Nobody).expect_err("an error");
            assert_eq!(error.kind, StoreErrorKind::NoBucket);
            assert!(error.to_string().contains(says), "{error}");
        }
    }
}

//! Long objects, written part by part.

use bytes::Bytes;
use object_store::{MultipartUpload, PutMultipartOptions, PutPayload};

use super::Store;
use super::error::{ErrorContext, StoreAction, StoreError};
use super::layout::ObjectKey;

/// A long object that is being written.
pub struct PartWriter<'s> {
    store: &'s Store,
    key: ObjectKey,
    upload: Box<dyn MultipartUpload>,
}

impl std::fmt::Debug for PartWriter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PartWriter")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

impl<'s> PartWriter<'s> {
    pub(super) async fn begin(store: &'s Store, key: &ObjectKey) -> Result<Self, StoreError> {
        let context = ErrorContext::of(StoreAction::Write, key, &store.url);
        let location = store.location(key);
        let begun = store
            .objects
            .put_multipart_opts(&location, PutMultipartOptions::default());
        let upload = store.bounded(begun, context).await?;
        Ok(Self {
            store,
            key: key.clone(),
            upload: upload.map_err(|error| context.translate(&error))?,
        })
    }

    /// Writes the next part. All but the last have the same length, of 5 MiB or more, which S3 asks for.
    ///
    /// # Errors
    /// When the store can't be asked, or refuses.
    pub async fn write(&mut self, part: Bytes) -> Result<(), StoreError> {
        let context = ErrorContext::of(StoreAction::Write, &self.key, &self.store.url);
        let put = self.upload.put_part(PutPayload::from_bytes(part));
        let written = self.store.bounded(put, context).await?;
        written.map_err(|error| context.translate(&error))
    }

    /// Has the object be there.
    ///
    /// # Errors
    /// When the store can't be asked, or refuses.
    pub async fn finish(mut self) -> Result<(), StoreError> {
        let context = ErrorContext::of(StoreAction::Write, &self.key, &self.store.url);
        let completed = self.store.bounded(self.upload.complete(), context).await?;
        completed
            .map(drop)
            .map_err(|error| context.translate(&error))
    }

    /// Forgets what was written.
    pub async fn abort(mut self) {
        let context = ErrorContext::of(StoreAction::Write, &self.key, &self.store.url);
        // What can't be removed is left to the store's own rules, as after a crash.
        let _ = self.store.bounded(self.upload.abort(), context).await;
    }
}

//! Which contents of a site a store lacks, and how they get there.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::content::{LocalBlob, SiteContent};
use super::error::PublishError;
use super::presence::{Lack, tree_length};
use crate::progress::ByteProgress;
use crate::representation::GROUP_SIZE;
use crate::store::{BlobHash, Store, layout};

/// Uploads at a time.
const MAX_UPLOADS: usize = 64;
/// Memory for what is being uploaded, in KiB.
const MAX_MEMORY: u32 = 256 << 10;
/// Longer contents go in parts of this length: a multiple of that of groups, and more than the 5 MiB that S3
/// asks for.
const PART: u64 = 16 << 20;
/// S3 takes at most so many parts.
const MAX_PARTS: u64 = 10_000;

/// The contents that a store lacks.
#[derive(Debug)]
pub struct MissingBlobs {
    blobs: Vec<MissingBlob>,
}

#[derive(Debug)]
struct MissingBlob {
    blob: Arc<LocalBlob>,
    lacks_content: bool,
    lacks_tree: bool,
}

impl MissingBlobs {
    /// Compares what a site has with what is in a store.
    ///
    /// # Errors
    /// When the store can't be asked.
    pub async fn find(store: &Store, content: &SiteContent) -> Result<Self, PublishError> {
        Self::find_others(store, content, &HashSet::new()).await
    }

    /// Compares what a site has, apart from contents that are known to be there, with what is in a store.
    ///
    /// # Errors
    /// When the store can't be asked.
    pub(super) async fn find_others(
        store: &Store,
        content: &SiteContent,
        known: &HashSet<(BlobHash, u64)>,
    ) -> Result<Self, PublishError> {
        let mut blobs = content.blobs();
        blobs.retain(|blob| !known.contains(&(blob.hash, blob.length)));
        let lack = Lack::of(store, blobs.iter().map(|blob| (blob.hash, blob.length))).await?;
        let missing = |blob: Arc<LocalBlob>| {
            let missing = MissingBlob {
                lacks_content: lack.contents.contains(&blob.hash),
                lacks_tree: lack.trees.contains(&blob.hash),
                blob,
            };
            (missing.lacks_content || missing.lacks_tree).then_some(missing)
        };
        let blobs = blobs.into_iter().filter_map(missing).collect();
        Ok(Self { blobs })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.blobs.len()
    }

    /// Whether the store has all of the site.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.blobs.is_empty()
    }

    /// How many bytes are to be sent.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.blobs.iter().map(MissingBlob::bytes).sum()
    }

    /// Uploads them. What is sent is proven before; the first that fails ends it.
    ///
    /// # Errors
    /// When a file has changed or can't be read, or the store does not take it.
    pub async fn upload(self, store: &Store, progress: &ByteProgress) -> Result<(), PublishError> {
        progress.set_total(progress.done() + self.bytes());
        let memory = Semaphore::new(MAX_MEMORY as usize);
        let uploads = self.blobs.into_iter().map(|missing| {
            let memory = &memory;
            async move { missing.upload(store, memory, progress).await }
        });
        stream::iter(uploads)
            .buffer_unordered(MAX_UPLOADS)
            .try_for_each(|()| async { Ok(()) })
            .await
    }
}

impl MissingBlob {
    fn bytes(&self) -> u64 {
        let content = if self.lacks_content {
            self.blob.length
        } else {
            0
        };
        let tree = if self.lacks_tree {
            tree_length(self.blob.length)
        } else {
            0
        };
        content + tree
    }

    async fn upload(
        self,
        store: &Store,
        memory: &Semaphore,
        progress: &ByteProgress,
    ) -> Result<(), PublishError> {
        let blob = &self.blob;
        // The tree first: who finds a long content takes its tree to be there.
        if self.lacks_tree
            && let Some(tree) = blob.tree()
        {
            let length = tree.len() as u64;
            store.put(&layout::tree(&blob.hash), tree).await?;
            progress.add(length);
        }
        if !self.lacks_content {
            return Ok(());
        }
        if blob.length > PART {
            return upload_in_parts(store, blob, memory, progress).await;
        }
        let _room = room(memory, blob.length).await;
        let bytes = off_thread(blob, |blob| blob.read()).await?;
        // Whatever is there has the same name, and may have another length: it is replaced.
        store.put(&layout::blob(&blob.hash), bytes).await?;
        progress.add(blob.length);
        Ok(())
    }
}

async fn upload_in_parts(
    store: &Store,
    blob: &Arc<LocalBlob>,
    memory: &Semaphore,
    progress: &ByteProgress,
) -> Result<(), PublishError> {
    let step = part_length(blob.length);
    let mut parts = store.put_in_parts(&layout::blob(&blob.hash)).await?;
    let mut start = 0;
    while start < blob.length {
        let length = step.min(blob.length - start);
        let _room = room(memory, length).await;
        let sent = match off_thread(blob, move |blob| blob.read_part(start, length)).await {
            Ok(part) => parts.write(part).await.map_err(PublishError::from),
            Err(error) => Err(error),
        };
        if let Err(error) = sent {
            parts.abort().await;
            return Err(error);
        }
        progress.add(length);
        start += length;
    }
    let Err(error) = parts.finish().await else {
        return Ok(());
    };
    // Where the answer was lost, the store has forgotten the upload when it is asked again.
    match store.head(&layout::blob(&blob.hash)).await {
        Ok(stored) if stored.size == blob.length => Ok(()),
        _ => Err(error.into()),
    }
}

/// Reads what is to be sent where reading holds up nothing else.
async fn off_thread(
    blob: &Arc<LocalBlob>,
    read: impl FnOnce(&LocalBlob) -> Result<Bytes, PublishError> + Send + 'static,
) -> Result<Bytes, PublishError> {
    let blob = Arc::clone(blob);
    let read = spawn_blocking(move || read(&blob)).await;
    read.map_err(|error| PublishError::Start(error.into()))?
}

/// Waits until there is memory for so many bytes; what is larger than all of it has all of it.
async fn room(memory: &Semaphore, bytes: u64) -> Option<tokio::sync::SemaphorePermit<'_>> {
    let kibibytes = u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX);
    // It is never closed.
    memory.acquire_many(kibibytes.min(MAX_MEMORY)).await.ok()
}

fn part_length(length: u64) -> u64 {
    PART.max(length.div_ceil(MAX_PARTS).next_multiple_of(GROUP_SIZE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_groups_and_few_enough() {
        assert_eq!(part_length(20 << 20), PART);
        for length in [PART * MAX_PARTS, PART * MAX_PARTS + 1, 5 << 40] {
            let part = part_length(length);
            assert_eq!(part % GROUP_SIZE, 0);
            assert!(length.div_ceil(part) <= MAX_PARTS, "{length}");
        }
    }
}

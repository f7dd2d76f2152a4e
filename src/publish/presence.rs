//! Which contents a store has, found out with few requests.
//!
//! A request that lists tells of a thousand objects, costs as much as ten that ask for one, and comes after
//! the one before it, while those that ask for one go together. So a store that holds little else than the
//! site is listed, and one that holds a thousand times as much is asked for each content.

use std::collections::{BTreeMap, HashSet};
use std::ops::{Bound, ControlFlow};

use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::representation::{GROUP_SIZE, GroupHash};
use crate::settings::StoreUrl;
use crate::store::layout::{self, ObjectKey};
use crate::store::{BlobHash, Store, StoreError, StoreErrorKind, StoredObject, has_tree};

/// Objects that one request lists.
const PAGE_LENGTH: usize = 1000;
/// A request that lists costs as much as so many that ask for one object.
const LIST_COST: usize = 10;
/// Objects that are asked for at a time.
const MAX_ASKED: usize = 64;

/// What a store lacks of some contents, or has with another length: somebody else has damaged that.
#[derive(Debug, Default)]
pub(super) struct Lack {
    pub(super) contents: HashSet<BlobHash>,
    pub(super) trees: HashSet<BlobHash>,
}

impl Lack {
    /// What a store lacks of contents with these lengths, and of the trees of the long ones.
    ///
    /// # Errors
    /// When the store can't be asked.
    pub(super) async fn of(
        store: &Store,
        contents: impl IntoIterator<Item = (BlobHash, u64)>,
    ) -> Result<Self, StoreError> {
        let contents: BTreeMap<_, _> = contents.into_iter().collect();
        let long = contents.iter().filter(|(_, length)| has_tree(**length));
        let trees = long
            .map(|(hash, length)| (*hash, tree_length(*length)))
            .collect();
        Ok(Self {
            contents: lacking(store, &BLOBS, &contents).await?,
            trees: lacking(store, &TREES, &trees).await?,
        })
    }

    /// How many contents can't be read.
    pub(super) fn len(&self) -> usize {
        self.contents.union(&self.trees).count()
    }
}

/// The length of the tree of a long content.
pub(super) fn tree_length(length: u64) -> u64 {
    length.div_ceil(GROUP_SIZE) * size_of::<GroupHash>() as u64
}

/// Objects that are named by hashes.
struct HashedObjects {
    folder: &'static str,
    key: fn(&BlobHash) -> ObjectKey,
}

const BLOBS: HashedObjects = HashedObjects {
    folder: layout::BLOBS,
    key: layout::blob,
};
const TREES: HashedObjects = HashedObjects {
    folder: layout::TREES,
    key: layout::tree,
};

impl HashedObjects {
    /// The hash of an object, if it has the name that readers ask for.
    fn hash(&self, object: &StoredObject) -> Option<BlobHash> {
        layout::hash_of(&object.key).filter(|hash| (self.key)(hash) == object.key)
    }
}

/// Those that a store lacks, or has with another length than is wanted.
async fn lacking(
    store: &Store,
    objects: &HashedObjects,
    wanted: &BTreeMap<BlobHash, u64>,
) -> Result<HashSet<BlobHash>, StoreError> {
    let mut lacking: HashSet<_> = wanted.keys().copied().collect();
    let mut asked = Bound::Unbounded;
    // A folder is listed in no order, and to list an object takes as long as to ask for it.
    let is_listed = matches!(store.url(), StoreUrl::S3 { .. });
    if is_listed && wanted.len() > LIST_COST {
        let (mut listed, mut is_whole) = (0, true);
        let visit = |object: StoredObject| {
            listed += 1;
            let Some(hash) = objects.hash(&object) else {
                return ControlFlow::Continue(());
            };
            if wanted.get(&hash) == Some(&object.size) {
                lacking.remove(&hash);
            }
            asked = Bound::Excluded(hash);
            let is_page_over = listed % PAGE_LENGTH == 0;
            if is_page_over
                && is_cheaper_to_ask(
                    wanted.range((asked, Bound::Unbounded)).count(),
                    listed,
                    &hash,
                )
            {
                is_whole = false;
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        };
        store.visit(objects.folder, visit).await?;
        if is_whole {
            return Ok(lacking);
        }
    }
    let asked = wanted.range((asked, Bound::Unbounded));
    let present = stream::iter(asked)
        .map(
            async |(hash, length)| match store.head(&(objects.key)(hash)).await {
                Ok(object) => Ok((object.size == *length).then_some(*hash)),
                Err(error) if error.kind == StoreErrorKind::Missing => Ok(None),
                Err(error) => Err(error),
            },
        )
        .buffer_unordered(MAX_ASKED)
        .try_collect::<Vec<_>>()
        .await?;
    for hash in present.into_iter().flatten() {
        lacking.remove(&hash);
    }
    Ok(lacking)
}

/// Whether to ask for each of so many objects costs less than to list on, where so many have been listed
/// up to this name. Hashes are spread evenly, so it says which share of the folder that is.
fn is_cheaper_to_ask(left: usize, listed: usize, last: &BlobHash) -> bool {
    let [first, second, third, fourth, ..] = *last.as_bytes();
    let position = f64::from(u32::from_be_bytes([first, second, third, fourth])) + 1.0;
    let share = position / 2f64.powi(32);
    let unlisted = listed as f64 * (1.0 - share) / share;
    let pages = (unlisted / PAGE_LENGTH as f64).ceil() as usize;
    left <= pages.saturating_mul(LIST_COST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_have_a_hash_for_each_group() {
        assert_eq!(tree_length((1 << 20) + 1), 5 * 32);
    }

    #[test]
    fn what_costs_less_is_done() {
        let at = |percent: u64| {
            let mut hash = [0; 32];
            hash[..4].copy_from_slice(&((percent << 32) / 100).to_be_bytes()[4..]);
            BlobHash::new(hash)
        };
        for (left, listed, percent, is_cheaper) in [
            // 1,000 of 100,000: 99 pages are left.
            (500, 1000, 1, true),
            (990, 1000, 1, true),
            (1100, 1000, 1, false),
            // 1,000 of 2,000: one more.
            (10, 1000, 50, true),
            (11, 1000, 50, false),
            // Next to nothing is left to list.
            (1, 1000, 99, true),
            (30, 2000, 99, false),
            (0, 1000, 50, true),
        ] {
            let is = is_cheaper_to_ask(left, listed, &at(percent));
            assert_eq!(
                is, is_cheaper,
                "{left} left, {listed} listed, at {percent} %"
            );
        }
    }
}

//! The resources of a state by the inode of their file, for files that have several names.

use std::sync::Arc;

use hashbrown::HashTable;

use crate::representation::Resource;

/// A power of two. A publication copies those that it changes, and a reference to each.
const SHARDS: usize = 1024;

/// The resources of a state by inode number.
///
/// Few sites have files with several names, so it is made when it is first needed. From then on each
/// state has the one of the state before with what has changed: a write through one name in a site
/// of a million files looks at no others than those of its inode.
#[derive(Clone, Debug)]
pub(super) struct InodeIndex(Box<[Arc<HashTable<Arc<Resource>>>]>);

impl InodeIndex {
    /// Of all these.
    pub(super) fn new<'r>(resources: impl Iterator<Item = &'r Arc<Resource>>) -> Self {
        let empty = Arc::new(HashTable::new());
        let mut index = Self(std::iter::repeat_n(empty, SHARDS).collect());
        for resource in resources {
            index.insert(Arc::clone(resource));
        }
        index
    }

    /// Those whose file has this inode number, on whichever device.
    pub(super) fn get(&self, inode: u64) -> impl Iterator<Item = &Arc<Resource>> {
        let hash = hash(inode);
        self.0[shard(hash)]
            .iter_hash(hash)
            .filter(move |resource| resource.stamp.inode == inode)
    }

    pub(super) fn insert(&mut self, resource: Arc<Resource>) {
        let hash_of = |resource: &Arc<Resource>| hash(resource.stamp.inode);
        let hash = hash_of(&resource);
        Arc::make_mut(&mut self.0[shard(hash)]).insert_unique(hash, resource, hash_of);
    }

    pub(super) fn remove(&mut self, resource: &Arc<Resource>) {
        let hash = hash(resource.stamp.inode);
        let shard = Arc::make_mut(&mut self.0[shard(hash)]);
        if let Ok(entry) = shard.find_entry(hash, |other| Arc::ptr_eq(other, resource)) {
            entry.remove();
        }
    }
}

/// Inode numbers are given one after another: multiplied by the golden ratio, they are spread.
fn hash(inode: u64) -> u64 {
    inode.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// By other bits than those that the table looks at, which are the lowest and the highest.
fn shard(hash: u64) -> usize {
    (hash >> 32) as usize % SHARDS
}

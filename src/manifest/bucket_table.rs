//! The resources of one bucket, to be found by their paths and in the order of their paths.
//!
//! A site has as many entries as files, so they are kept small: one pointer to each resource, and a
//! table that has the places of these pointers in four bytes each.

use std::sync::Arc;

use hashbrown::HashTable;

use crate::representation::Resource;

/// The number of buckets of a site. It is part of what the site digest means.
pub(super) const BUCKETS: usize = 4096;

/// Where a path is found: its bucket, one of [`BUCKETS`], and its hash within the bucket's table.
#[derive(Clone, Copy)]
pub(super) struct BucketSlot {
    pub(super) bucket: usize,
    pub(super) hash: u64,
}

impl BucketSlot {
    pub(super) fn of(path: &[u8]) -> Self {
        let hash = blake3::hash(path);
        let [a, b, rest @ ..] = hash.as_bytes();
        // Other bits than those of the bucket, which all paths in its table have in common.
        let [c, d, e, f, g, h, i, j, ..] = rest;
        Self {
            bucket: usize::from(u16::from_be_bytes([*a, *b]) >> 4),
            hash: u64::from_le_bytes([*c, *d, *e, *f, *g, *h, *i, *j]),
        }
    }
}

/// The resources of one bucket. Between a change and [`Self::sort`] they are in no particular order.
#[derive(Clone, Debug, Default)]
pub(super) struct BucketTable {
    resources: Vec<Arc<Resource>>,
    /// Where in `resources` each is.
    places: HashTable<u32>,
}

impl BucketTable {
    /// The resource at a path that has this hash in its bucket.
    pub(super) fn find(&self, hash: u64, path: &[u8]) -> Option<&Arc<Resource>> {
        let is_there = |place: &u32| self.at(*place).is_some_and(|it| *it.path == *path);
        self.at(*self.places.find(hash, is_there)?)
    }

    fn at(&self, place: u32) -> Option<&Arc<Resource>> {
        self.resources.get(place as usize)
    }

    /// All resources.
    pub(super) fn resources(&self) -> &[Arc<Resource>] {
        &self.resources
    }

    /// All resources, each of which may be replaced by one with the same path.
    pub(super) fn resources_mut(&mut self) -> &mut [Arc<Resource>] {
        &mut self.resources
    }

    /// Makes room for more resources.
    pub(super) fn reserve(&mut self, more: usize) {
        self.resources.reserve_exact(more);
        let resources = &self.resources;
        self.places
            .reserve(more, |place| hash_at(resources, *place));
    }

    /// Adds a resource, at whose path there is none.
    pub(super) fn insert(&mut self, hash: u64, resource: Arc<Resource>) {
        // More than that do not fit into the memory of any machine.
        let place = u32::try_from(self.resources.len()).unwrap_or(u32::MAX);
        self.resources.push(resource);
        let resources = &self.resources;
        self.places
            .insert_unique(hash, place, |place| hash_at(resources, *place));
    }

    /// Removes the resource at a path that has this hash in its bucket.
    pub(super) fn remove(&mut self, hash: u64, path: &[u8]) -> Option<Arc<Resource>> {
        let resources = &self.resources;
        let is_there = |place: &u32| {
            let resource = resources.get(*place as usize);
            resource.is_some_and(|it| *it.path == *path)
        };
        let entry = self.places.find_entry(hash, is_there).ok()?;
        let (place, _) = entry.remove();
        let removed = self.resources.swap_remove(place as usize);
        // The last one has taken its place.
        let last = self.resources.len() as u32;
        if let Some(moved) = self.resources.get(place as usize) {
            let hash = BucketSlot::of(&moved.path).hash;
            if let Some(of_moved) = self.places.find_mut(hash, |of_moved| *of_moved == last) {
                *of_moved = place;
            }
        }
        Some(removed)
    }

    /// Puts the resources into the order of their paths, and gives up the room that none of them needs.
    pub(super) fn sort(&mut self) {
        let resources = &mut self.resources;
        if resources.is_sorted_by(|one, other| one.path <= other.path) {
            resources.shrink_to_fit();
            return;
        }
        let mut order: Vec<u32> = (0..resources.len() as u32).collect();
        order.sort_unstable_by_key(|place| self.at(*place).map(|it| &it.path));
        let mut new_places = vec![0; order.len()];
        for (new, old) in (0..).zip(&order) {
            if let Some(place) = new_places.get_mut(*old as usize) {
                *place = new;
            }
        }
        // Its length is not known to `collect`, which would leave room for more.
        let mut sorted = Vec::with_capacity(order.len());
        sorted.extend(order.iter().filter_map(|old| self.at(*old).cloned()));
        self.resources = sorted;
        for place in self.places.iter_mut() {
            *place = new_places.get(*place as usize).copied().unwrap_or_default();
        }
    }
}

fn hash_at(resources: &[Arc<Resource>], place: u32) -> u64 {
    let resource = resources.get(place as usize);
    resource.map_or(0, |resource| BucketSlot::of(&resource.path).hash)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use http::HeaderValue;

    use super::*;
    use crate::representation::{Data, Fields, REVALIDATE, Representation};
    use crate::semantics::coding::Coding;
    use crate::semantics::etag::ETag;

    fn resource(path: &str, length: u64) -> Arc<Resource> {
        let fields = Fields::new(HeaderValue::from_static("text/plain"), REVALIDATE);
        let data = Data::Memory(bytes::Bytes::new());
        let identity = Representation::new(Coding::Identity, ETag::new([0; 32]), length, data);
        Arc::new(Resource::new(
            path.as_bytes().into(),
            Arc::new(fields),
            identity,
        ))
    }

    /// What a map says after the same changes.
    #[test]
    fn it_finds_what_a_map_finds() {
        let (mut table, mut map) = (BucketTable::default(), BTreeMap::new());
        let mut random = 1_u32;
        for step in 0..4_000 {
            // A generator of Lehmer's: any sequence that leaves out nothing will do.
            random = (u64::from(random) * 48_271 % 0x7fff_ffff) as u32;
            let path = format!("p{}", random % 300);
            let hash = BucketSlot::of(path.as_bytes()).hash;
            let removed = table.remove(hash, path.as_bytes());
            assert_eq!(removed.map(|it| it.identity.length), map.remove(&path));
            if !random.is_multiple_of(3) {
                table.insert(hash, resource(&path, step));
                map.insert(path, step);
            }
            if step.is_multiple_of(7) {
                table.reserve(3);
            }
            if step.is_multiple_of(5) {
                table.sort();
                let paths = table.resources().iter().map(|it| &*it.path);
                assert!(paths.eq(map.keys().map(String::as_bytes)), "step {step}");
            }
            for number in 0..300 {
                let path = format!("p{number}");
                let hash = BucketSlot::of(path.as_bytes()).hash;
                let found = table.find(hash, path.as_bytes());
                let length = found.map(|it| it.identity.length);
                assert_eq!(length, map.get(&path).copied(), "step {step}: {path}");
            }
        }
    }
}

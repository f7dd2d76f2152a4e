//! Content codings that are made before the look that publishes them, because that takes long.

use std::sync::Arc;

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use super::made::{self, MAX_LENGTH, is_compressible};
use super::maker::Maker;
use super::text::text_kind_of;
use super::unmade::Unmade;
use super::{Pass, Scanner};
use crate::disk::Root;
use crate::representation::{Data, Representation, Resource};
use crate::semantics::coding::Coding;
use crate::semantics::etag::ETag;

/// How many bytes a look compresses at once: a tenth of a second. What is more is left for other
/// threads under [`Unsettled::Defer`](super::Unsettled::Defer).
const MAX_INLINE_LENGTH: u64 = 1 << 20;

/// The resources whose codings are to be made before these can be published, if that takes long.
/// What is in the cache may be among them. With each comes what lies next to it.
pub(super) fn unmade<'a>(
    scanner: &Scanner,
    maker: &Maker,
    pass: &Pass<'_>,
    resources: impl Iterator<Item = (&'a Arc<Resource>, &'a [Representation])>,
) -> Vec<Unmade> {
    let mut unmade = Vec::new();
    let mut length = 0;
    for (resource, shipped) in resources.filter(|(resource, _)| is_compressible(resource)) {
        let wanted = maker.wanted(shipped);
        let (identity, _) = resource.of_files();
        // Whether what is known is damaged need not be looked at here.
        let wanted = made::without(&wanted, &made::known(maker, pass, resource, &wanted));
        if !wanted.is_empty() && maker.find_room(scanner, identity, &wanted).is_ok() {
            length += identity.length;
            unmade.push(Unmade {
                resource: Arc::clone(resource),
                wanted,
            });
        }
    }
    if length <= MAX_INLINE_LENGTH {
        unmade.clear();
    }
    unmade
}

/// Makes codings for the next look, until `step` returns false. What can't be made is for that look
/// to find.
pub(super) fn make_ahead(
    scanner: &Scanner,
    maker: &Maker,
    root: &Root,
    unmade: &[Unmade],
    step: &(dyn Fn() -> bool + Sync),
) {
    let make_one = |unmade: &Unmade| {
        let Unmade { resource, wanted } = unmade;
        let content = resource.of_files().0.etag.hash();
        let is_known = |coding: &Coding| maker.unpublished.get(content, *coding).is_some();
        if !step() || wanted.iter().all(is_known) {
            return;
        }
        let step = || {
            step();
        };
        if let Ok(attempts) = made::make_now(scanner, maker, root, resource, wanted, &step) {
            maker.unpublished.put(*content, &attempts);
        }
    };
    let work = || unmade.par_iter().for_each(make_one);
    maker.threads.run_ahead(work);
    maker.rest();
}

/// Whether the codings of a file of this length take long to make, if it has some.
pub(super) fn takes_long(length: u64) -> bool {
    (MAX_INLINE_LENGTH + 1..=MAX_LENGTH).contains(&length)
}

/// Makes the codings of what a client puts at a path, for the look that publishes it, until `step`
/// returns false.
pub(super) fn make_for_write(
    scanner: &Scanner,
    maker: &Maker,
    root: &Root,
    (path, content): (&[u8], Vec<u8>),
    step: &(dyn Fn() -> bool + Sync),
) {
    let text = text_kind_of(&content);
    let etag = ETag::new(*blake3::hash(&content).as_bytes());
    let length = content.len() as u64;
    let identity =
        Representation::new(Coding::Identity, etag, length, Data::Memory(content.into()));
    let fields = scanner.fields(path, text, true, None);
    let resource = Resource {
        settled: true,
        text,
        ..Resource::new(path.into(), fields, identity)
    };
    if is_compressible(&resource) {
        let unmade = Unmade {
            resource: Arc::new(resource),
            // Sidecars that are there are those of what it replaces.
            wanted: maker.wanted(&[]),
        };
        make_ahead(scanner, maker, root, &[unmade], step);
    }
}

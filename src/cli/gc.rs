//! `etagd gc`.

use std::process::ExitCode;

use indicatif::HumanBytes;

use super::publish::releases;
use super::store::StoreSession;
use super::{Error, counted, print};
use crate::config::GcFlags;
use crate::publish::{Collection, Collector, publisher_id, publisher_name};

/// Deletes what no release needs, or prints what would be deleted.
pub(super) fn collect(flags: &GcFlags) -> Result<ExitCode, Error> {
    let session = StoreSession::open(&flags.of.store, flags.of.ca.clone())?;
    let collector = Collector {
        store: session.store(),
        id: publisher_id(),
        who: publisher_name(),
        keep: flags.keep,
        grace: flags.grace,
    };
    let collection = session.with_bar(
        "{spinner} collecting in {elapsed}",
        |_| {},
        || {
            let work = collector.collect(flags.dry_run);
            session.run_until_stopped(&collector.id, work)
        },
    )?;
    if flags.dry_run {
        print(|out| {
            collection
                .objects()
                .try_for_each(|object| writeln!(out, "{}\t{}", object.key, object.size))
        })?;
    }
    summarize(&collection, flags.dry_run);
    Ok(ExitCode::SUCCESS)
}

fn summarize(collection: &Collection, is_dry_run: bool) {
    let objects = collection.objects().count() as u64;
    let bytes = collection.bytes();
    let (kept, gone) = (collection.kept, collection.releases.len());
    let verb = if is_dry_run {
        "would be deleted"
    } else {
        "deleted"
    };
    tracing::info!(
        objects,
        bytes,
        kept,
        gone,
        "{} kept; {verb}: {}, with {}, {}",
        releases(kept),
        releases(gone),
        counted(objects, "object"),
        HumanBytes(bytes),
    );
}

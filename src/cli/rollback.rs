//! `etagd rollback`.

use std::process::ExitCode;

use super::store::StoreSession;
use super::{Error, print};
use crate::config::RollbackFlags;
use crate::publish::{ReleasePublisher, Rollback, publisher_id, publisher_name};

/// Makes a release of what an earlier one had, and prints its number.
pub(super) fn rollback(flags: RollbackFlags) -> Result<ExitCode, Error> {
    let among = flags.among;
    let session = StoreSession::open(&among.of.store, among.of.ca)?;
    let publisher = ReleasePublisher {
        store: session.store(),
        channel: among.channel,
        id: publisher_id(),
        who: publisher_name(),
        note: flags.note,
        is_single_writer: flags.single_writer,
    };
    let to = flags.to;
    let work = publisher.roll_back(to);
    match session.run_until_stopped(&publisher.id, work)? {
        Rollback::Released(record) => {
            let (release, digest) = (record.number, record.digest);
            tracing::info!(
                release,
                to,
                %digest,
                "release {release} brings back release {to}"
            );
            print(|out| writeln!(out, "{release}"))?;
        }
        Rollback::Unchanged(newest) => {
            let (release, digest) = (newest.number, newest.digest);
            tracing::info!(
                release,
                to,
                %digest,
                "release {release}, the newest, has the site of release {to} already: nothing to do"
            );
            print(|out| writeln!(out, "{release}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

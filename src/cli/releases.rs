//! `etagd releases`.

use std::io::{self, Write};
use std::process::ExitCode;

use indicatif::HumanBytes;

use super::store::StoreSession;
use super::{Error, counted, print};
use crate::config::{ReleasesFlags, ReleasesFormat};
use crate::page::is_unseen;
use crate::publish::{PublishError, history};
use crate::settings::{Channel, StoreUrl};
use crate::store::{ReleaseRecord, Store, is_foreign};

/// Digits of a site digest that tell releases apart at a glance.
const DIGEST_DIGITS: usize = 12;

/// A release, and whether it is the newest.
#[derive(serde::Serialize)]
struct ListedRelease<'r> {
    #[serde(flatten)]
    record: &'r ReleaseRecord,
    newest: bool,
}

/// Lists the releases of a channel.
pub(super) fn releases(flags: &ReleasesFlags) -> Result<ExitCode, Error> {
    let among = &flags.among;
    let session = StoreSession::open(&among.of.store, among.of.ca.clone())?;
    let (store, channel) = (session.store(), &among.channel);
    let releases = session.run(history(store, channel))?;
    if releases.is_empty() {
        refuse_foreign(store.url())?;
        session.run(report_none(store, channel))?;
    }
    print(|out| match flags.format {
        ReleasesFormat::Text => {
            let mut lines = releases.iter().enumerate();
            lines.try_for_each(|(index, release)| match release {
                Ok(release) => write_line(out, release, index == 0),
                Err((number, _)) => writeln!(out, "? {number:>4}  cannot be read"),
            })
        }
        ReleasesFormat::Json => {
            let listed: Vec<_> = releases
                .iter()
                .enumerate()
                .filter_map(|(index, record)| {
                    let record = record.as_ref().ok()?;
                    let newest = index == 0;
                    Some(ListedRelease { record, newest })
                })
                .collect();
            serde_json::to_writer_pretty(&mut *out, &listed)?;
            writeln!(out)
        }
    })?;
    let mut code = ExitCode::SUCCESS;
    for (_, error) in releases.iter().filter_map(|it| it.as_ref().err()) {
        tracing::warn!(%error, "{error}");
        code = ExitCode::FAILURE;
    }
    Ok(code)
}

/// Refuses a folder that has something, and nothing of a store: it may be mistyped. A store without a release
/// is empty, or has what a first push has sent so far.
fn refuse_foreign(store: &StoreUrl) -> Result<(), Error> {
    match store {
        StoreUrl::Folder(folder) if is_foreign(folder) => Err(Error::NoStore(store.clone())),
        _ => Ok(()),
    }
}

/// Says that a channel has no release, and which ones have some: its name may be mistyped.
async fn report_none(store: &Store, channel: &Channel) -> Result<(), PublishError> {
    let others = store.channels().await?;
    let others: Vec<_> = others.iter().map(Channel::as_str).collect();
    let hint = match others.is_empty() {
        true => String::new(),
        false => format!("; channels that have some: {}", others.join(", ")),
    };
    tracing::info!(%channel, "{channel} has no release{hint}");
    Ok(())
}

fn write_line(out: &mut dyn Write, release: &ReleaseRecord, is_newest: bool) -> io::Result<()> {
    let ReleaseRecord {
        number,
        at,
        digest,
        files,
        bytes,
        who,
        ..
    } = release;
    let mark = if is_newest { '*' } else { ' ' };
    let digest = &digest.to_string()[..DIGEST_DIGITS];
    let (files, bytes) = (counted(*files, "file"), HumanBytes(*bytes).to_string());
    let about = [
        release
            .rollback_to
            .map(|number| format!("rollback to {number}"))
            .unwrap_or_default(),
        printable(&release.note),
    ];
    let about: Vec<_> = about.into_iter().filter(|it| !it.is_empty()).collect();
    let line = format!(
        "{mark} {number:>4}  {at}  {digest}  {files:>13}  {bytes:>10}  {}  {}",
        printable(who),
        about.join(": ")
    );
    writeln!(out, "{}", line.trim_end())
}

/// Without what a terminal obeys: anybody who may write to the store has written it.
fn printable(text: &str) -> String {
    text.chars()
        .map(|character| match is_unseen(character) {
            true => '\u{fffd}',
            false => character,
        })
        .collect()
}

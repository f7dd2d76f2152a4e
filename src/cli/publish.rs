//! `etagd push` to a store: scan, progress, summary, exit code.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use indicatif::{HumanBytes, HumanCount};

use super::scan::{BusyFiles, scan};
use super::store::StoreSession;
use super::usage::UsageError;
use super::{Error, codings, counted, open, print, refuse_held};
use crate::config::PushFlags;
use crate::disk::{Root, resolved_path};
use crate::manifest::Manifest;
use crate::progress::ByteProgress;
use crate::publish::{MissingBlobs, ReleasePublisher, SiteContent, publisher_id, publisher_name};
use crate::scan::Progress;
use crate::settings::StoreUrl;
use crate::store::{BlobHash, ReleaseRecord};

/// Makes a release of a directory.
pub(super) fn publish(flags: &PushFlags, url: &StoreUrl) -> Result<ExitCode, Error> {
    let started = Instant::now();
    let root = open(&flags.directory)?;
    keep_apart(&flags.directory, &root, url)?;
    let session = StoreSession::open_to_write(url, flags.ca.clone())?;
    let publisher = ReleasePublisher {
        store: session.store(),
        channel: flags.release.channel.clone(),
        id: publisher_id(),
        who: publisher_name(),
        note: flags.release.note.clone(),
        is_single_writer: flags.release.single_writer,
    };
    // What is newest now is what the directory is taken to follow, however long it takes to read it.
    let newest = session.run(publisher.newest(flags.release.after))?;
    let manifest = scan_directory(flags, &root)?;
    let digest = BlobHash::new(*manifest.digest().hash().as_bytes());
    let content = SiteContent::new(&root, &manifest)?;
    let progress = ByteProgress::default();
    let find_missing = || {
        session.with_bar(
            "{spinner} comparing in {elapsed}",
            |_| {},
            || session.run(MissingBlobs::find(session.store(), &content)),
        )
    };
    if let Some(newest) = newest.as_ref().filter(|newest| newest.digest == digest) {
        if flags.dry_run {
            let missing = find_missing()?;
            if !missing.is_empty() {
                report_repair(newest, &missing)?;
                return Ok(ExitCode::SUCCESS);
            }
        }
        let is_whole = flags.dry_run
            || session.with_bytes("uploaded", &progress, || {
                session.run(publisher.repair(&content, newest, &progress))
            })?;
        if is_whole {
            report_unchanged(newest, &publisher.note);
            // As after a release: whose script asks for the number has one.
            if !flags.dry_run {
                print(|out| writeln!(out, "{}", newest.number))?;
            }
            return Ok(ExitCode::SUCCESS);
        }
    }
    if flags.dry_run {
        if let Some(newest) = &newest {
            session.run(async {
                publisher.compare_settings(newest, &content).await;
                Ok(())
            })?;
        }
        let missing = find_missing()?;
        report_plan(&publisher, newest.as_ref(), &missing)?;
        return Ok(ExitCode::SUCCESS);
    }
    let released = session.with_bytes("uploaded", &progress, || {
        let work = publisher.publish(&content, newest.as_ref(), &progress);
        session.run_until_stopped(&publisher.id, work)
    })?;
    let seconds = started.elapsed().as_secs_f64();
    report_release(&released, progress.done(), seconds);
    print(|out| writeln!(out, "{}", released.number))?;
    Ok(ExitCode::SUCCESS)
}

/// Refuses a store in the directory that is pushed, and a directory in the store: what is in the store, also
/// what was withdrawn, would be served.
fn keep_apart(directory: &Path, root: &Root, store: &StoreUrl) -> Result<(), UsageError> {
    let StoreUrl::Folder(folder) = store else {
        return Ok(());
    };
    let folder = resolved_path(folder);
    let (store, directory) = (store.clone(), directory.to_path_buf());
    if folder.starts_with(root.path()) {
        return Err(UsageError::StoreInSite { store, directory });
    }
    if root.path().starts_with(&folder) {
        return Err(UsageError::SiteInStore { store, directory });
    }
    Ok(())
}

/// Scans the directory, which has to be complete.
fn scan_directory(flags: &PushFlags, root: &Arc<Root>) -> Result<Manifest, Error> {
    refuse_held(&flags.directory, root)?;
    let scanner = codings::publishing_scanner(&flags.handling, &flags.compression, root)?;
    let progress = Progress::default();
    let scanned = scan(&scanner, root, &progress, None, || (), BusyFiles::Await)?;
    if !scanned.manifest.digest().is_complete() {
        return Err(Error::IncompleteDirectory(flags.directory.clone()));
    }
    if scanned.manifest.is_empty() {
        return Err(Error::NothingToRelease(flags.directory.clone()));
    }
    Ok(scanned.manifest)
}

fn report_unchanged(newest: &ReleaseRecord, note: &str) {
    let (release, digest) = (newest.number, newest.digest);
    let note = match note {
        "" => "",
        _ => "; a release keeps its note, so --note says nothing",
    };
    tracing::info!(
        release,
        %digest,
        "release {release} has this site already: nothing to do{note}"
    );
}

/// Says what a push would do, on standard output.
fn report_plan(
    publisher: &ReleasePublisher<'_>,
    newest: Option<&ReleaseRecord>,
    missing: &MissingBlobs,
) -> Result<(), Error> {
    let number = newest.map_or(1, |newest| newest.number + 1);
    let (contents, bytes) = (missing.len(), HumanBytes(missing.bytes()));
    let uploads = counted(contents as u64, "content");
    let channel = &publisher.channel;
    print(|out| {
        writeln!(
            out,
            "release {number} of {channel}: {uploads} to upload, {bytes}"
        )
    })
}

/// Says what a push would send of a release that is there, on standard output.
fn report_repair(newest: &ReleaseRecord, missing: &MissingBlobs) -> Result<(), Error> {
    let (release, bytes) = (newest.number, HumanBytes(missing.bytes()));
    let lost = counted(missing.len() as u64, "content");
    print(|out| {
        writeln!(
            out,
            "release {release} has this site already, and the store has lost some of it: {lost} to upload, \
             {bytes}"
        )
    })
}

fn report_release(released: &ReleaseRecord, sent: u64, seconds: f64) {
    let ReleaseRecord {
        number,
        digest,
        files,
        bytes,
        ..
    } = released;
    tracing::info!(
        release = number,
        %digest,
        files,
        bytes,
        sent,
        seconds,
        "release {number}: {}, {}; {} sent, {seconds:.2} s",
        counted(*files, "file"),
        HumanBytes(*bytes),
        HumanBytes(sent),
    );
}

/// A number of releases, for a summary.
pub(super) fn releases(number: usize) -> String {
    match number {
        1 => "1 release".to_owned(),
        number => format!("{} releases", HumanCount(number as u64)),
    }
}

//! `etagd push` to a store: scan, progress, summary, exit code.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use indicatif::{HumanBytes, HumanCount};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

use super::progress::{with_bar, with_bytes};
use super::scan::{BusyFiles, scan};
use super::usage::UsageError;
use super::{Error, codings, counted, open, print};
use crate::config::PushFlags;
use crate::disk::Root;
use crate::manifest::Manifest;
use crate::progress::ByteProgress;
use crate::publish::{
    MissingBlobs, PublishError, ReleasePublisher, SiteContent, abandon, publisher_id,
    publisher_name,
};
use crate::scan::Progress;
use crate::settings::StoreUrl;
use crate::store::{BlobHash, ReleaseRecord, Store, StorePatience};

/// What runs the requests to a store.
pub(super) struct StoreRuntime(Option<Runtime>);

impl StoreRuntime {
    /// Does some work to its end.
    pub(super) fn block_on<T>(
        &self,
        work: impl Future<Output = Result<T, PublishError>>,
    ) -> Result<T, PublishError> {
        match &self.0 {
            Some(runtime) => runtime.block_on(work),
            None => Err(PublishError::Stopped),
        }
    }
}

/// A thread that waits for a file system over a network that is gone must not keep the process.
impl Drop for StoreRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Starts what runs the requests to a store.
pub(super) fn runtime() -> Result<StoreRuntime, PublishError> {
    let runtime = Builder::new_current_thread().enable_all().build();
    Ok(StoreRuntime(Some(runtime.map_err(PublishError::Start)?)))
}

/// Does some work under the locks of `id`, until it is done or a signal stops it: others need not wait then
/// until a lock of a process that is gone has expired.
pub(super) fn run_until_stopped<T>(
    runtime: &StoreRuntime,
    store: &Store,
    id: &str,
    work: impl Future<Output = Result<T, PublishError>>,
) -> Result<T, PublishError> {
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(PublishError::Start)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(PublishError::Start)?;
        tokio::select! {
            done = work => return done,
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if let Err(error) = abandon(store, id).await {
            tracing::warn!(%error, "{error}");
        }
        Err(PublishError::Stopped)
    })
}

/// Opens a store for a command that somebody waits for.
pub(super) fn open_store(url: &StoreUrl) -> Result<Store, PublishError> {
    Ok(Store::open(url, StorePatience::default())?)
}

/// Makes a release of a directory.
pub(super) fn publish(flags: &PushFlags, url: &StoreUrl) -> Result<ExitCode, Error> {
    let started = Instant::now();
    let runtime = runtime()?;
    let store = open_store(url)?;
    let publisher = ReleasePublisher {
        store: &store,
        channel: flags.release.channel.clone(),
        id: publisher_id(),
        who: publisher_name(),
        note: flags.release.note.clone(),
        is_single_writer: flags.release.single_writer,
    };
    // What is newest now is what the directory is taken to follow, however long it takes to read it.
    let newest = runtime.block_on(publisher.newest(flags.release.after))?;
    let (root, manifest) = scan_directory(flags)?;
    let digest = BlobHash::new(*manifest.digest().hash().as_bytes());
    let content = SiteContent::new(&root, &manifest)?;
    let progress = ByteProgress::default();
    if let Some(newest) = newest.as_ref().filter(|newest| newest.digest == digest) {
        let is_whole = flags.dry_run
            || with_bytes("uploaded", &progress, || {
                runtime.block_on(publisher.repair(&content, newest, &progress))
            })?;
        if is_whole {
            report_unchanged(newest);
            return Ok(ExitCode::SUCCESS);
        }
    }
    if flags.dry_run {
        let missing = with_bar(
            "{spinner} comparing in {elapsed}",
            |_| {},
            || runtime.block_on(MissingBlobs::find(&store, &content)),
        )?;
        report_plan(&publisher, newest.as_ref(), &missing)?;
        return Ok(ExitCode::SUCCESS);
    }
    let base = newest.as_ref().map(|newest| newest.number);
    let released = with_bytes("uploaded", &progress, || {
        let work = publisher.publish(&content, base, &progress);
        run_until_stopped(&runtime, &store, &publisher.id, work)
    })?;
    let seconds = started.elapsed().as_secs_f64();
    report_release(&released, progress.done(), seconds);
    print(|out| writeln!(out, "{}", released.number))?;
    Ok(ExitCode::SUCCESS)
}

/// Scans the directory, which has to be complete.
fn scan_directory(flags: &PushFlags) -> Result<(Arc<Root>, Manifest), Error> {
    let root = open(&flags.directory)?;
    let scanner = codings::publishing_scanner(&flags.handling, &flags.compression, &root)?;
    let progress = Progress::default();
    let scanned = scan(&scanner, &root, &progress, None, || (), BusyFiles::Await)?;
    if !scanned.manifest.digest().is_complete() {
        return Err(Error::IncompleteDirectory(flags.directory.clone()));
    }
    if scanned.manifest.is_empty() {
        return Err(UsageError::NothingToRelease(flags.directory.clone()).into());
    }
    Ok((root, scanned.manifest))
}

fn report_unchanged(newest: &ReleaseRecord) {
    let (release, digest) = (newest.number, newest.digest);
    tracing::info!(
        release,
        %digest,
        "release {release} has this site already: nothing to do"
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

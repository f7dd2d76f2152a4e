//! `--keep-old` across replicas: what earlier releases had, and the one that is served has not.
//!
//! A replica that has just started, or has not seen every release, answers for them as one that has
//! served them all: when a path was removed is what the records say.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::channel::{ChannelReader, RecordFailure};
use super::taking::{TakeError, Taker};
use crate::manifest::Manifest;
use crate::representation::Resource;
use crate::store::ReleaseRecord;

/// Earlier releases that are looked at. Who makes more of them in the time of `--keep-old` has the oldest
/// forgotten.
const MAX_EARLIER: usize = 500;

/// What was removed lately, and until when it is served.
pub(super) type RetiredResources = Vec<(Arc<Resource>, Instant)>;

/// How long ago something was, by a clock that need not be this machine's.
pub(super) fn age(of: SystemTime) -> Duration {
    SystemTime::now().duration_since(of).unwrap_or_default()
}

/// What the releases before `record` and after `since` had that `manifest` has not, as far as it was
/// removed within the time `keep`. What can't be read is left out, and named.
pub(super) async fn retired(
    taker: &Taker,
    channel: &ChannelReader,
    record: &ReleaseRecord,
    manifest: &Arc<Manifest>,
    since: u64,
    keep: Duration,
) -> RetiredResources {
    let mut retired = RetiredResources::new();
    if age(record.at.into()) >= keep {
        return retired;
    }
    let numbers = match channel.list(since).await {
        Ok(numbers) => numbers,
        Err(error) => {
            tracing::warn!(%error, "earlier files are not served (--keep-old): {error}");
            return retired;
        }
    };
    let earlier = numbers.into_iter().filter(|number| *number < record.number);
    let mut seen = HashSet::new();
    let mut listings = HashSet::from([record.manifest]);
    let mut removed_at = SystemTime::from(record.at);
    for number in earlier.rev().take(MAX_EARLIER) {
        let left = keep.saturating_sub(age(removed_at));
        if left.is_zero() {
            break;
        }
        let (earlier, site) = match site_of(taker, channel, number, manifest, &mut listings).await {
            Ok(found) => found,
            Err(reason) => {
                tracing::warn!(
                    release = number, %reason,
                    "files of release {number} are not served (--keep-old): {reason}"
                );
                continue;
            }
        };
        removed_at = earlier.at.into();
        let until = Instant::now() + left;
        for resource in site
            .iter()
            .flat_map(|site| site.iter().map(move |it| (site, it)))
        {
            let (site, resource) = resource;
            let is_gone = manifest.locate(&resource.path).is_none();
            if is_gone && !site.is_page(resource) && seen.insert(resource.path.clone()) {
                retired.push((Arc::clone(resource), until));
            }
        }
    }
    retired
}

/// An earlier release and its site; no site where one with the same files was looked at already.
async fn site_of(
    taker: &Taker,
    channel: &ChannelReader,
    number: u64,
    manifest: &Arc<Manifest>,
    listings: &mut HashSet<crate::store::BlobHash>,
) -> Result<(ReleaseRecord, Option<Manifest>), String> {
    let record = channel
        .record(number)
        .await
        .map_err(|failure| match failure {
            RecordFailure::Store(error) => error.to_string(),
            RecordFailure::Refused(refused) => refused.to_string(),
        })?;
    if !listings.insert(record.manifest) {
        return Ok((record, None));
    }
    let current = Some(Arc::clone(manifest));
    match taker.earlier(channel, &record, current).await {
        Ok(site) => Ok((record, Some(site))),
        Err(TakeError::Passing(error)) => Err(error.to_string()),
        Err(TakeError::Refused(refused)) => Err(refused.to_string()),
    }
}

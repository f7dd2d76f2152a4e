//! Do these replicas serve the same site?
//!
//! A replica is asked for its manifest, which the admin listener publishes. One that publishes
//! none is asked for each path in turn; which paths there are comes from a directory, a manifest or
//! another replica. [`Check::compare`] compares once, [`Check::wait`] until all agree.

mod compare;
mod report;
mod walk;

use std::thread;
use std::time::{Duration, Instant};

use crate::inventory::Inventory;
use crate::remote::{Client, ManifestError};
use crate::settings::ReplicaUrl;
use compare::compare;

pub use compare::{Deviation, DeviationKind, Deviations};
pub use report::{Basis, CheckReport, Remark, ReplicaResult, ReplicaState};

/// Pause between two requests for the digests while they differ.
const DIGEST_INTERVAL: Duration = Duration::from_millis(500);
/// First pause between two full comparisons; each one doubles it.
const MIN_PAUSE: Duration = Duration::from_millis(250);
/// Longest pause between two full comparisons.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// The reason where a thread has panicked; the panic's message is on standard error.
const PANICKED: &str = "internal error: the comparison panicked (see above); please report this";

/// What to compare, and how.
#[derive(Debug)]
pub struct Check {
    /// The replicas to compare.
    pub replicas: Vec<ReplicaUrl>,
    /// What they should serve; `None` compares them with what most of them serve.
    pub expected: Option<ExpectedSite>,
    /// How to ask path by path.
    pub walk: WalkOptions,
    /// Maximum number of deviations to list for each replica.
    pub max_shown: usize,
}

/// What replicas should serve.
#[derive(Debug)]
pub struct ExpectedSite {
    /// The directory or the file it comes from, for messages.
    pub name: String,
    /// Its entries.
    pub inventory: Inventory,
}

/// How to compare a replica that publishes no manifest.
#[derive(Clone, Debug)]
pub struct WalkOptions {
    /// Whether to assume that no replica publishes a manifest.
    pub is_public: bool,
    /// Number of entries to ask for, evenly spread; `None` for all.
    pub sample: Option<usize>,
    /// Whether to fetch and hash the bodies.
    pub bodies: bool,
    /// Maximum number of connections to each replica.
    pub connections: usize,
}

/// No replica publishes a manifest, and there is nothing else to compare with.
#[derive(Debug, thiserror::Error)]
#[error(
    "{url} publishes no manifest ({reason}): give the address of its --admin listener, or say with \
     --dir or --manifest what it should serve"
)]
pub struct NothingToCompare {
    url: String,
    reason: String,
}

/// The reply of a replica to the request for its manifest.
#[derive(Debug)]
enum ReplicaReply {
    Manifest(Inventory),
    /// It publishes none, for this reason.
    NoManifest(String),
    /// It can't be asked, for this reason.
    Failed(String),
}

impl From<Result<Inventory, ManifestError>> for ReplicaReply {
    fn from(result: Result<Inventory, ManifestError>) -> Self {
        match result {
            Ok(inventory) => Self::Manifest(inventory),
            Err(error) if error.is_without_manifest() => Self::NoManifest(error.to_string()),
            Err(error) => Self::Failed(error.to_string()),
        }
    }
}

/// What replicas are compared with.
struct Reference<'a> {
    name: String,
    inventory: &'a Inventory,
}

impl Check {
    /// Compares all replicas once.
    ///
    /// # Errors
    /// When there is nothing to compare with.
    pub fn compare(&self, client: &Client) -> Result<CheckReport, NothingToCompare> {
        let replies = self.fetch_manifests(client);
        let reference = self.reference(&replies)?;
        let replicas = thread::scope(|scope| {
            // All threads start before the first is joined.
            let threads: Vec<_> = self
                .replicas
                .iter()
                .zip(&replies)
                .map(|(url, reply)| {
                    let reference = reference.as_ref();
                    scope.spawn(move || self.state(client, url, reply, reference))
                })
                .collect();
            threads
                .into_iter()
                .zip(&self.replicas)
                .map(|(thread, url)| ReplicaResult {
                    url: url.to_string(),
                    state: thread
                        .join()
                        .unwrap_or_else(|_| ReplicaState::Unreachable(PANICKED.to_owned())),
                })
                .collect()
        });
        Ok(CheckReport {
            reference: reference.map(|reference| reference.name),
            replicas,
        })
    }

    /// Compares until all replicas agree, or until the deadline, and returns the last result.
    ///
    /// # Errors
    /// As [`Self::compare`].
    pub fn wait(
        &self,
        client: &Client,
        deadline: Instant,
    ) -> Result<CheckReport, NothingToCompare> {
        let client = client.with_deadline(deadline);
        let mut pause = MIN_PAUSE;
        loop {
            let report = self.compare(&client)?;
            let left = deadline.saturating_duration_since(Instant::now());
            if report.agrees() || left.is_zero() {
                return Ok(report);
            }
            thread::sleep(pause.min(left));
            pause = (pause * 2).min(MAX_PAUSE);
            // A digest is 100 bytes, a manifest may be 100 MB: as long as the digests differ,
            // comparing the manifests can't succeed.
            while self.digests_differ(&client) && Instant::now() < deadline {
                let left = deadline.saturating_duration_since(Instant::now());
                thread::sleep(DIGEST_INTERVAL.min(left));
            }
        }
    }

    /// Whether the digests alone show that the replicas do not agree yet.
    fn digests_differ(&self, client: &Client) -> bool {
        if self.walk.is_public {
            return false;
        }
        let digests: Option<Vec<String>> = thread::scope(|scope| {
            let threads: Vec<_> = self
                .replicas
                .iter()
                .map(|url| scope.spawn(move || client.digest(url)))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().ok().flatten())
                .collect()
        });
        // A replica without a digest has to be compared in full.
        let Some(digests) = digests else {
            return false;
        };
        let expected = self
            .expected
            .as_ref()
            .map(|site| &site.inventory.head.digest)
            .or(digests.first());
        digests.iter().any(|digest| Some(digest) != expected)
    }

    fn fetch_manifests(&self, client: &Client) -> Vec<ReplicaReply> {
        if self.walk.is_public {
            return self
                .replicas
                .iter()
                .map(|_| ReplicaReply::NoManifest("--public".to_owned()))
                .collect();
        }
        thread::scope(|scope| {
            let threads: Vec<_> = self
                .replicas
                .iter()
                .map(|url| scope.spawn(move || ReplicaReply::from(client.manifest(url))))
                .collect();
            threads
                .into_iter()
                .map(|thread| {
                    thread
                        .join()
                        .unwrap_or_else(|_| ReplicaReply::Failed(PANICKED.to_owned()))
                })
                .collect()
        })
    }

    /// The state of one replica, compared with the reference if there is one.
    fn state(
        &self,
        client: &Client,
        url: &ReplicaUrl,
        reply: &ReplicaReply,
        reference: Option<&Reference<'_>>,
    ) -> ReplicaState {
        let none = Deviations::new(self.max_shown);
        match (reply, reference) {
            (ReplicaReply::Failed(reason), _) | (ReplicaReply::NoManifest(reason), None) => {
                ReplicaState::Unreachable(reason.clone())
            }
            (ReplicaReply::Manifest(inventory), None) => {
                ReplicaState::from_manifest(inventory, none)
            }
            (ReplicaReply::Manifest(inventory), Some(reference)) => {
                let deviations =
                    compare(reference.inventory, inventory).fold(none, Deviations::with);
                ReplicaState::from_manifest(inventory, deviations)
            }
            (ReplicaReply::NoManifest(reason), Some(reference)) => walk::walk(
                &self.walk,
                client,
                (url, reason.as_str()),
                reference.inventory,
                none,
            ),
        }
    }

    /// The expected site, or else the manifest that most replicas have; of equally common ones
    /// the first. `None` where no replica has told anything yet.
    fn reference<'a>(
        &'a self,
        replies: &'a [ReplicaReply],
    ) -> Result<Option<Reference<'a>>, NothingToCompare> {
        if let Some(ExpectedSite { name, inventory }) = &self.expected {
            let name = name.clone();
            return Ok(Some(Reference { name, inventory }));
        }
        if let Some(reference) = self.most_common(replies) {
            return Ok(Some(reference));
        }
        let mut without_manifest = None;
        for (url, reply) in self.replicas.iter().zip(replies) {
            match reply {
                // It may have a manifest once it can be reached: --wait has to go on.
                ReplicaReply::Failed(_) => return Ok(None),
                ReplicaReply::NoManifest(reason) => {
                    without_manifest.get_or_insert((url, reason));
                }
                ReplicaReply::Manifest(_) => {}
            }
        }
        match without_manifest {
            Some((url, reason)) => Err(NothingToCompare {
                url: url.to_string(),
                reason: reason.clone(),
            }),
            None => Ok(None),
        }
    }

    fn most_common<'a>(&self, replies: &'a [ReplicaReply]) -> Option<Reference<'a>> {
        let inventories: Vec<_> = self
            .replicas
            .iter()
            .zip(replies)
            .filter_map(|(url, reply)| match reply {
                ReplicaReply::Manifest(inventory) => Some((url, inventory)),
                ReplicaReply::NoManifest(_) | ReplicaReply::Failed(_) => None,
            })
            .collect();
        inventories
            .iter()
            // `max_by_key` returns the last of equal elements, and the first is wanted.
            .rev()
            .max_by_key(|(_, candidate)| {
                inventories
                    .iter()
                    .filter(|(_, inventory)| inventory.head == candidate.head)
                    .count()
            })
            .map(|(url, inventory)| Reference {
                name: url.to_string(),
                inventory,
            })
    }
}

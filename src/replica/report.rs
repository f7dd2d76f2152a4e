//! The result of a check, for people and for machines.

use std::fmt;
use std::io::{self, Write};

use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};

use super::compare::{DeviationKind, Deviations};
use crate::inventory::Inventory;
use crate::log::Printable;

/// The result of a check.
#[derive(Debug)]
pub struct CheckReport {
    /// What the replicas were compared with; `None` where there was nothing.
    pub reference: Option<String>,
    /// One result for each replica, in the order in which they were given.
    pub replicas: Vec<ReplicaResult>,
}

/// The result for one replica.
#[derive(Debug)]
pub struct ReplicaResult {
    /// Its URL as it was given.
    pub url: String,
    /// What was found there.
    pub state: ReplicaState,
}

/// What was found at a replica.
#[derive(Debug)]
pub enum ReplicaState {
    /// It can't be compared: the reason, with the URL.
    Unreachable(String),
    /// It was compared.
    Compared {
        /// What it was judged by.
        basis: Basis,
        /// Its site digest, if it publishes one.
        digest: Option<String>,
        /// Why it was asked path by path although it might have had a manifest.
        no_manifest: Option<String>,
        /// Number of representations that it lists, or was asked for.
        entries: usize,
        /// How it deviates.
        deviations: Deviations,
    },
}

/// What a replica is judged by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// The manifest that its admin listener publishes.
    Admin,
    /// Its responses to requests for each path.
    Public,
}

impl ReplicaState {
    /// The state of a replica that publishes its manifest.
    pub(super) fn from_manifest(inventory: &Inventory, deviations: Deviations) -> Self {
        Self::Compared {
            basis: Basis::Admin,
            digest: Some(inventory.head.digest.clone()),
            no_manifest: None,
            entries: inventory.entries.len(),
            deviations,
        }
    }

    fn agrees(&self) -> bool {
        matches!(self, Self::Compared { deviations, .. } if deviations.count == 0)
    }
}

/// Something about a replica that no path shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Remark<'a> {
    /// It can't be compared.
    Unreachable {
        /// Why, with the URL.
        reason: &'a str,
    },
    /// It has more deviations than are listed.
    NotShown {
        /// The URL of the replica.
        url: &'a str,
        /// How many more.
        count: usize,
    },
    /// It has nothing of what was asked for.
    NothingThere {
        /// The URL of the replica.
        url: &'a str,
    },
    /// It deviates, and was asked path by path because it publishes no manifest.
    NoManifest {
        /// Why, with the URL.
        reason: &'a str,
    },
}

impl fmt::Display for Remark<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { reason } => f.write_str(reason),
            Self::NotShown { url, count } => write!(f, "{count} more at {url} (--all shows them)"),
            Self::NothingThere { url } => write!(
                f,
                "{url} has nothing of it: if the site is below a path of the host, name that with \
                 --base-path"
            ),
            Self::NoManifest { reason } => {
                write!(f, "{reason}: each path was asked for instead")
            }
        }
    }
}

impl CheckReport {
    /// Whether all replicas were compared, and none deviates.
    pub fn agrees(&self) -> bool {
        self.replicas.iter().all(|replica| replica.state.agrees())
    }

    /// Number of replicas that deviate.
    pub fn deviating(&self) -> usize {
        self.replicas
            .iter()
            .filter(|replica| {
                matches!(&replica.state, ReplicaState::Compared { deviations, .. } if deviations.count > 0)
            })
            .count()
    }

    /// Number of replicas that can't be compared.
    pub fn unreachable(&self) -> usize {
        self.replicas
            .iter()
            .filter(|replica| matches!(replica.state, ReplicaState::Unreachable(_)))
            .count()
    }

    /// Writes one line for each deviation: path, kind, replica and detail, separated by tabs.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        for ReplicaResult { url, state } in &self.replicas {
            let ReplicaState::Compared { deviations, .. } = state else {
                continue;
            };
            for deviation in &deviations.shown {
                // The detail may quote header fields of a server that is not ours.
                let detail = Printable(&deviation.detail);
                writeln!(out, "{deviation}\t{url}\t{detail}")?;
            }
        }
        Ok(())
    }

    /// Writes one JSON object.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        serde_json::to_writer(&mut *out, self)?;
        writeln!(out)
    }

    /// What no deviation shows: unreachable replicas, and what was left out.
    pub fn remarks(&self) -> Vec<Remark<'_>> {
        let mut remarks = Vec::new();
        for ReplicaResult { url, state } in &self.replicas {
            match state {
                ReplicaState::Unreachable(reason) => remarks.push(Remark::Unreachable { reason }),
                ReplicaState::Compared {
                    basis,
                    entries,
                    deviations,
                    no_manifest,
                    ..
                } => {
                    let mut shown = deviations.shown.iter();
                    if *basis == Basis::Public
                        && *entries > 0
                        && deviations.count == *entries
                        && shown.all(|each| each.kind == DeviationKind::Missing)
                    {
                        remarks.push(Remark::NothingThere { url });
                    }
                    let count = deviations.count - deviations.shown.len();
                    if count > 0 {
                        remarks.push(Remark::NotShown { url, count });
                    }
                    if let Some(reason) = no_manifest.as_ref().filter(|_| deviations.count > 0) {
                        remarks.push(Remark::NoManifest { reason });
                    }
                }
            }
        }
        remarks
    }

    /// The result in one line.
    pub fn summary(&self) -> String {
        let all = self.replicas.len();
        let reference = self.reference.as_deref().unwrap_or("anything");
        let (deviating, unreachable) = (self.deviating(), self.unreachable());
        if deviating + unreachable == 0 {
            let agree = if all == 1 {
                "replica agrees"
            } else {
                "replicas agree"
            };
            return format!("{all} {agree} with {reference}: {}", self.common_state());
        }
        let mut parts = Vec::new();
        if deviating > 0 {
            let deviate = if deviating == 1 {
                "deviates"
            } else {
                "deviate"
            };
            parts.push(format!(
                "{deviating} of {all} replicas {deviate} from {reference}"
            ));
        }
        if unreachable > 0 {
            parts.push(format!("{unreachable} of {all} cannot be compared"));
        }
        parts.join(", ")
    }

    /// How much replicas that agree serve, and the digest if one of them publishes it.
    fn common_state(&self) -> String {
        let (entries, digest) = self
            .replicas
            .iter()
            .find_map(|replica| match &replica.state {
                ReplicaState::Compared {
                    entries, digest, ..
                } => Some((*entries, digest.as_ref())),
                ReplicaState::Unreachable(_) => None,
            })
            .unwrap_or_default();
        let noun = if entries == 1 { "entry" } else { "entries" };
        match digest {
            Some(digest) => format!("{entries} {noun}, site digest {digest}"),
            None => format!("{entries} {noun}"),
        }
    }
}

impl Serialize for CheckReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("CheckReport", 3)?;
        object.serialize_field("agree", &self.agrees())?;
        object.serialize_field("reference", &self.reference)?;
        object.serialize_field("replicas", &self.replicas)?;
        object.end()
    }
}

impl Serialize for ReplicaResult {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("ReplicaResult", 6)?;
        object.serialize_field("url", &self.url)?;
        match &self.state {
            ReplicaState::Unreachable(reason) => object.serialize_field("error", reason)?,
            ReplicaState::Compared {
                basis,
                digest,
                entries,
                deviations,
                ..
            } => {
                object.serialize_field("kind", basis)?;
                object.serialize_field("digest", digest)?;
                object.serialize_field("entries", entries)?;
                object.serialize_field("differing", &deviations.count)?;
                object.serialize_field("differences", &deviations.shown)?;
            }
        }
        object.end()
    }
}

//! What a check has found, for people and for machines.

use std::io::{self, Write};

use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};

use super::compare::Found;
use crate::inventory::Inventory;
use crate::log::Printable;

/// What a check has found.
#[derive(Debug)]
pub struct Report {
    /// What the replicas were compared with; `None` where there was nothing.
    pub reference: Option<String>,
    /// One for each replica, in the order in which they were given.
    pub replicas: Vec<Seen>,
}

/// One replica.
#[derive(Debug)]
pub struct Seen {
    /// As it was given.
    pub url: String,
    /// What it says and does.
    pub state: State,
}

/// What a replica says and does.
#[derive(Debug)]
pub enum State {
    /// It can't be asked: why, with the URL.
    Unreachable(String),
    /// It was asked.
    Compared {
        /// By what.
        kind: Kind,
        /// Its site digest, if it tells.
        digest: Option<String>,
        /// Why it was asked path by path although it might have a manifest.
        instead: Option<String>,
        /// How many representations it lists, or was asked for.
        entries: usize,
        /// How it deviates.
        found: Found,
    },
}

/// By what a replica is judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Its manifest.
    Admin,
    /// Its answers.
    Public,
}

impl State {
    pub(super) fn of(inventory: &Inventory, found: Found) -> Self {
        Self::Compared {
            kind: Kind::Admin,
            digest: Some(inventory.head.digest.clone()),
            instead: None,
            entries: inventory.entries.len(),
            found,
        }
    }

    fn agrees(&self) -> bool {
        matches!(self, Self::Compared { found, .. } if found.count == 0)
    }
}

impl Report {
    /// Whether all replicas were asked, and none deviates.
    pub fn agrees(&self) -> bool {
        self.replicas.iter().all(|seen| seen.state.agrees())
    }

    /// One line a deviation: path, way, replica and detail, separated by tabs.
    ///
    /// # Errors
    /// As `out`.
    pub fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        for Seen { url, state } in &self.replicas {
            let State::Compared { found, .. } = state else {
                continue;
            };
            for deviation in &found.shown {
                let detail = Printable(&deviation.detail);
                writeln!(out, "{deviation}\t{url}\t{detail}")?;
            }
        }
        Ok(())
    }

    /// One JSON object.
    ///
    /// # Errors
    /// As `out`.
    pub fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        serde_json::to_writer(&mut *out, self)?;
        writeln!(out)
    }

    /// What can't be told path by path, and what was left out: each a line.
    pub fn remarks(&self) -> impl Iterator<Item = String> {
        let remarks = |Seen { url, state }: &Seen| match state {
            State::Unreachable(reason) => [Some(reason.clone()), None],
            State::Compared { found, instead, .. } => {
                let more = found.count - found.shown.len();
                let more = (more > 0).then(|| format!("{more} more at {url} (--all shows them)"));
                let instead = instead.as_ref().filter(|_| found.count > 0);
                let instead = instead.map(|why| format!("{why}: each path was asked for instead"));
                [more, instead]
            }
        };
        self.replicas.iter().flat_map(remarks).flatten()
    }

    /// The whole in one line.
    pub fn summary(&self) -> String {
        let all = self.replicas.len();
        let count = |is: &dyn Fn(&State) -> bool| {
            self.replicas.iter().filter(|seen| is(&seen.state)).count()
        };
        let unreachable = count(&|state| matches!(state, State::Unreachable(_)));
        let agreeing = count(&State::agrees);
        let reference = self.reference.as_deref().unwrap_or("anything");
        if agreeing == all {
            let first = self.replicas.iter().find_map(|seen| match &seen.state {
                State::Compared {
                    entries, digest, ..
                } => Some((entries, digest)),
                State::Unreachable(_) => None,
            });
            let (entries, digest) = match first {
                Some((entries, Some(digest))) => (*entries, format!(", site digest {digest}")),
                Some((entries, None)) => (*entries, String::new()),
                None => (0, String::new()),
            };
            let replicas = if all == 1 {
                "replica agrees"
            } else {
                "replicas agree"
            };
            return format!("{all} {replicas} with {reference}: {entries} entries{digest}");
        }
        let deviating = all - agreeing - unreachable;
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
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Report", 3)?;
        object.serialize_field("agree", &self.agrees())?;
        object.serialize_field("reference", &self.reference)?;
        object.serialize_field("replicas", &self.replicas)?;
        object.end()
    }
}

impl Serialize for Seen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Seen", 6)?;
        object.serialize_field("url", &self.url)?;
        match &self.state {
            State::Unreachable(reason) => object.serialize_field("error", reason)?,
            State::Compared {
                kind,
                digest,
                entries,
                found,
                ..
            } => {
                object.serialize_field("kind", kind)?;
                object.serialize_field("digest", digest)?;
                object.serialize_field("entries", entries)?;
                object.serialize_field("differing", &found.count)?;
                object.serialize_field("differences", &found.shown)?;
            }
        }
        object.end()
    }
}

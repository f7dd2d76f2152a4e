//! Do these replicas serve the same site?
//!
//! A replica is asked for its manifest, which the admin listener has; where there is none, for
//! what it serves, path by path. What is asked for then is what a directory, a manifest or another
//! replica says. [`Check::look`] asks once, [`Check::wait`] until all agree.

mod compare;
mod report;
mod walk;

use std::thread;
use std::time::{Duration, Instant};

use crate::config::ReplicaUrl;
use crate::inventory::{Head, Inventory};
use crate::remote::{Answer, Client};
use compare::compare;

pub use compare::{Deviation, Found, How};
pub use report::{Kind, Report, Seen, State};

/// How often the digests are asked for while they differ.
const POLL: Duration = Duration::from_millis(500);
/// First and longest pause between two looks at everything.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// A thread has ended without a result; what it says of itself stands above.
const BUG: &str = "comparing broke off; the message above says where: please report it";

/// What to compare, and how.
#[derive(Debug)]
pub struct Check {
    /// Whom to ask.
    pub replicas: Vec<ReplicaUrl>,
    /// What they should serve; `None` for what most of them do.
    pub expected: Option<Expected>,
    /// How paths are asked for.
    pub walk: Walk,
    /// So many deviations of each replica are kept.
    pub most: usize,
}

/// What replicas should serve.
#[derive(Debug)]
pub struct Expected {
    /// The directory or the file, for messages.
    pub name: String,
    /// What is in it.
    pub inventory: Inventory,
}

/// How a replica is asked that shows no manifest.
#[derive(Clone, Debug)]
pub struct Walk {
    /// Whether replicas are not even asked for a manifest.
    pub is_public: bool,
    /// So many entries are asked for, evenly spread; all where `None`.
    pub sample: Option<usize>,
    /// Whether bodies are fetched and hashed.
    pub bodies: bool,
    /// Connections at once to each replica.
    pub connections: usize,
}

/// No replica has a manifest, and nothing says what they should serve.
#[derive(Debug, thiserror::Error)]
#[error(
    "{url} shows no manifest ({reason}): give the address of its --admin listener, or say with \
     --dir or --manifest what it should serve"
)]
pub struct NothingToCompare {
    url: String,
    reason: String,
}

impl Check {
    /// Asks all replicas once.
    ///
    /// # Errors
    /// When nothing says what to compare with.
    pub fn look(&self, client: &Client) -> Result<Report, NothingToCompare> {
        let answers = self.ask(client);
        let reference = self.reference(&answers)?;
        let ask = |(url, answer): (&ReplicaUrl, &Answer)| {
            let found = Found::new(self.most);
            let state = match (answer, &reference) {
                (Answer::Failed(reason), _) => State::Unreachable(reason.clone()),
                (Answer::Foreign(reason), None) => State::Unreachable(reason.clone()),
                (Answer::Inventory(inventory), None) => State::of(inventory, found),
                (Answer::Inventory(inventory), Some(reference)) => {
                    let found = compare(reference.inventory, inventory).fold(found, Found::with);
                    State::of(inventory, found)
                }
                (Answer::Foreign(reason), Some(reference)) => {
                    let replica = (url, reason.as_str());
                    walk::walk(&self.walk, client, replica, reference.inventory, found)
                }
            };
            Seen {
                url: url.to_string(),
                state,
            }
        };
        let replicas = thread::scope(|scope| {
            let asked = self.replicas.iter().zip(&answers);
            let asked: Vec<_> = asked.map(|each| scope.spawn(move || ask(each))).collect();
            let seen = asked.into_iter().zip(&self.replicas).map(|(each, url)| {
                each.join().unwrap_or_else(|_| Seen {
                    url: url.to_string(),
                    state: State::Unreachable(BUG.to_owned()),
                })
            });
            seen.collect()
        });
        Ok(Report {
            reference: reference.map(|reference| reference.name),
            replicas,
        })
    }

    /// Asks until all agree, or until `until` has come. What was found last.
    ///
    /// # Errors
    /// As [`Self::look`].
    pub fn wait(&self, client: &Client, until: Instant) -> Result<Report, NothingToCompare> {
        let client = client.until(until);
        let (mut pause, longest) = PAUSE;
        loop {
            let report = self.look(&client)?;
            let left = until.saturating_duration_since(Instant::now());
            if report.agrees() || left.is_zero() {
                return Ok(report);
            }
            thread::sleep(pause.min(left));
            pause = (pause * 2).min(longest);
            while self.digests_differ(&client) && Instant::now() < until {
                thread::sleep(POLL.min(until.saturating_duration_since(Instant::now())));
            }
        }
    }

    /// Whether the digests alone tell that there is no agreement yet.
    fn digests_differ(&self, client: &Client) -> bool {
        if self.walk.is_public {
            return false;
        }
        let ask = |url| move || client.digest(url);
        let digests: Option<Vec<String>> = thread::scope(|scope| {
            let asked: Vec<_> = self
                .replicas
                .iter()
                .map(|url| scope.spawn(ask(url)))
                .collect();
            let digests = asked.into_iter().map(|each| each.join().ok().flatten());
            digests.collect()
        });
        // Who has no digest has to be asked for more.
        let Some(digests) = digests else {
            return false;
        };
        let expected = self
            .expected
            .as_ref()
            .map(|each| &each.inventory.head.digest);
        let first = expected.or(digests.first());
        digests.iter().any(|digest| Some(digest) != first)
    }

    fn ask(&self, client: &Client) -> Vec<Answer> {
        if self.walk.is_public {
            let foreign = |_| Answer::Foreign("--public".to_owned());
            return self.replicas.iter().map(foreign).collect();
        }
        thread::scope(|scope| {
            let ask = |url| scope.spawn(move || client.manifest(url));
            let asked: Vec<_> = self.replicas.iter().map(ask).collect();
            let failed = |_| Answer::Failed(BUG.to_owned());
            let answers = asked.into_iter();
            answers
                .map(|each| each.join().unwrap_or_else(failed))
                .collect()
        })
    }

    /// What to compare with: what is expected, or else what most replicas say, the first of them
    /// where that is undecided. `None` where no replica says anything.
    fn reference<'a>(
        &'a self,
        answers: &'a [Answer],
    ) -> Result<Option<Reference<'a>>, NothingToCompare> {
        if let Some(Expected { name, inventory }) = &self.expected {
            let name = name.clone();
            return Ok(Some(Reference { name, inventory }));
        }
        let most = self.most_common(answers);
        // Another replica may say something once it can be reached.
        let is_open = |answer: &Answer| matches!(answer, Answer::Failed(_));
        if most.is_some() || answers.iter().any(is_open) {
            return Ok(most);
        }
        let foreign = answers.iter().zip(&self.replicas);
        let mut foreign = foreign.filter_map(|(answer, url)| match answer {
            Answer::Foreign(reason) => Some((url.to_string(), reason.clone())),
            Answer::Inventory(_) | Answer::Failed(_) => None,
        });
        match foreign.next() {
            Some((url, reason)) => Err(NothingToCompare { url, reason }),
            None => Ok(None),
        }
    }

    fn most_common<'a>(&self, answers: &'a [Answer]) -> Option<Reference<'a>> {
        let inventories: Vec<_> = answers
            .iter()
            .zip(&self.replicas)
            .filter_map(|(answer, url)| match answer {
                Answer::Inventory(inventory) => Some((url, inventory)),
                Answer::Foreign(_) | Answer::Failed(_) => None,
            })
            .collect();
        let like = |head: &Head| {
            inventories
                .iter()
                .filter(|(_, each)| each.head == *head)
                .count()
        };
        // The last of equals wins.
        let most = inventories
            .iter()
            .rev()
            .max_by_key(|(_, each)| like(&each.head));
        most.map(|(url, inventory)| Reference {
            name: url.to_string(),
            inventory,
        })
    }
}

/// What replicas are compared with.
struct Reference<'a> {
    name: String,
    inventory: &'a Inventory,
}

//! A directory brought to a server, file by file, each under its precondition: what somebody else
//! has changed meanwhile is told of and not overwritten.
//!
//! [`Push::look`] finds out what differs, [`Push::run`] brings it there: pages after what they
//! need, deletions last, and neither if something before them has failed. Run again, it goes on
//! where it stopped, for what is there already is not sent.

mod report;
mod server;
mod step;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use rayon::iter::{IntoParallelIterator, IntoParallelRefIterator, ParallelIterator};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::config::ReplicaUrl;
use crate::disk::Root;
use crate::inventory::{Inventory, url};
use crate::manifest::Manifest;
use crate::remote::Client;
use crate::representation::{Data, Resource};
use crate::rules::RuleFile;
use crate::semantics::coding::Coding;
use crate::semantics::etag::ETag;
use server::{Outcome, Server};
use step::{Base, Hash, Step};

pub use report::{Problem, Progress, Report};

/// What to bring where.
#[derive(Debug)]
pub struct Push {
    /// The server.
    pub url: ReplicaUrl,
    /// Who asks; `None` where the server takes anybody.
    pub token: Option<String>,
    /// What the server had when nobody else had changed anything.
    pub base: Option<Inventory>,
    /// All that the server has, as its operator is told.
    pub known: Option<Inventory>,
    /// Whether to delete what the directory has not.
    pub delete: bool,
    /// Whether to bring the rules of the site too.
    pub rules: bool,
    /// Whether to overwrite what others have changed.
    pub force: bool,
    /// Connections at once.
    pub connections: usize,
}

/// In this order, one after the other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Stage {
    Assets,
    Pages,
    Rules,
    Deletions,
}

/// A path, and what to do about it.
#[derive(Debug)]
struct Task {
    stage: Stage,
    path: Box<[u8]>,
    /// What it should be.
    local: Option<Local>,
    base: Base,
    step: Step,
}

/// A file of the directory.
#[derive(Clone, Debug)]
struct Local {
    hash: Hash,
    length: u64,
    /// Where it is, relative to the root.
    location: Box<std::path::Path>,
}

/// What each path is to be; `None` where there is to be nothing.
type Wanted = BTreeMap<Box<[u8]>, (Stage, Option<Local>)>;

/// What differs.
#[derive(Debug)]
pub struct Plan {
    tasks: Vec<Task>,
    unchanged: u64,
}

impl Plan {
    /// Writes a line for each path that differs: what would be done, and its path.
    ///
    /// # Errors
    /// As `out`.
    pub fn write(&self, out: &mut (impl Write + ?Sized)) -> io::Result<()> {
        for task in &self.tasks {
            let what = match task.step {
                Step::Create => "create",
                Step::Replace(_) => "replace",
                Step::Delete(_) => "delete",
                Step::Conflict(_) => "conflict",
                Step::Nothing => continue,
            };
            writeln!(out, "{what}\t{}", url(&task.path))?;
        }
        Ok(())
    }

    /// Whether somebody else has changed something that differs.
    pub fn has_conflicts(&self) -> bool {
        let is_conflict = |task: &Task| matches!(task.step, Step::Conflict(_));
        self.tasks.iter().any(is_conflict)
    }
}

impl Push {
    /// Compares the server with what a scan has found in the directory, and `rules` beside.
    ///
    /// # Errors
    /// When the server can't be asked.
    pub fn look(&self, client: &Client, root: &Root, manifest: &Manifest) -> Result<Plan, String> {
        let server = self.server(client);
        let wanted = self.wanted(root, manifest)?;
        let (known, base) = (tags(self.known.as_ref()), tags(self.base.as_ref()));
        let task = |(path, (stage, local)): (Box<[u8]>, (Stage, Option<Local>))| {
            let remote = match &known {
                Some(known) if stage != Stage::Rules => known.get(&path).copied(),
                // No manifest has rules.
                _ => server.look(&path, local.as_ref().map(|local| local.hash))?,
            };
            let base = match &base {
                Some(base) if stage != Stage::Rules => {
                    Base::Was(base.get(&path).map(|tag| *tag.hash()))
                }
                _ => Base::Seen,
            };
            Ok(Task {
                stage,
                step: self.step(local.as_ref(), remote, base),
                path,
                local,
                base,
            })
        };
        let look = || wanted.into_par_iter().map(task).collect();
        let looked: Result<Vec<_>, String> = self.pool()?.install(look);
        let mut tasks = looked?;
        let all = tasks.len();
        tasks.retain(|task| task.step != Step::Nothing);
        let unchanged = (all - tasks.len()) as u64;
        tasks.sort_by(|a, b| (a.stage, &a.path).cmp(&(b.stage, &b.path)));
        Ok(Plan { tasks, unchanged })
    }

    /// What each path is to be, and when its turn comes.
    fn wanted(&self, root: &Root, manifest: &Manifest) -> Result<Wanted, String> {
        let mut wanted = Wanted::new();
        for resource in manifest.iter() {
            let stage = match manifest.is_page(resource) {
                true => Stage::Pages,
                false => Stage::Assets,
            };
            if let Some(local) = local(resource) {
                wanted.insert(resource.path.clone(), (stage, Some(local)));
            }
        }
        if self.rules {
            for file in RuleFile::ALL {
                if let Some(local) = local_rules(root, file)? {
                    let path = file.name().as_bytes().into();
                    wanted.insert(path, (Stage::Rules, Some(local)));
                }
            }
        }
        if self.delete {
            let known = [&self.known, &self.base].into_iter().flatten();
            for entry in known.flat_map(|inventory| &inventory.entries) {
                let path = wanted.entry(entry.path.clone());
                path.or_insert((Stage::Deletions, None));
            }
        }
        Ok(wanted)
    }

    /// Brings there what differs.
    ///
    /// # Errors
    /// When the server refuses all of it.
    pub fn run(
        &self,
        client: &Client,
        root: &Root,
        plan: Plan,
        progress: &Progress,
    ) -> Result<Report, String> {
        let server = self.server(client);
        let pool = self.pool()?;
        let length = |task: &Task| task.local.as_ref().map_or(0, |local| local.length);
        let total = plan.tasks.iter().map(length).sum();
        progress.total.store(total, Ordering::Relaxed);
        let mut report = Report {
            unchanged: plan.unchanged,
            ..Report::default()
        };
        for stage in plan.tasks.chunk_by(|a, b| a.stage == b.stage) {
            if !report.problems.is_empty() {
                report.left += stage.len() as u64;
                continue;
            }
            let refused = OnceLock::new();
            let act = |task: &Task| {
                if refused.get().is_some() {
                    return None;
                }
                let outcome = self.act(&server, root, task, progress);
                if let Outcome::Refused(reason) = outcome {
                    let _ = refused.set(reason);
                    return None;
                }
                Some(outcome)
            };
            let outcomes: Vec<_> = pool.install(|| stage.par_iter().map(act).collect());
            for (task, outcome) in stage.iter().zip(outcomes) {
                match outcome {
                    Some(outcome) => report.add(task, outcome),
                    None => report.left += 1,
                }
            }
            if let Some(reason) = refused.into_inner() {
                return Err(reason);
            }
        }
        Ok(report)
    }

    /// Does one task. With `force`, what turns out to be other than it was seen is tried again.
    fn act(&self, server: &Server<'_>, root: &Root, task: &Task, progress: &Progress) -> Outcome {
        /// Somebody may be at work there all the time.
        const TRIES: usize = 5;
        let mut step = task.step;
        for _ in 0..TRIES {
            let outcome = match (step, &task.local) {
                (Step::Create, Some(local)) => server.put(root, task, local, None, progress),
                (Step::Replace(tag), Some(local)) => {
                    server.put(root, task, local, Some(tag), progress)
                }
                (Step::Delete(tag), _) => server.delete(&task.path, tag),
                (Step::Conflict(tag), _) => return Outcome::Overtaken(tag),
                _ => return Outcome::Unchanged,
            };
            let Outcome::Overtaken(now) = outcome else {
                return outcome;
            };
            step = self.step(task.local.as_ref(), now, task.base);
            if step != Step::Nothing && !self.force {
                return outcome;
            }
        }
        Outcome::Failed("somebody changes it all the time".to_owned())
    }

    fn step(&self, local: Option<&Local>, remote: Option<ETag>, base: Base) -> Step {
        let local = local.map(|local| local.hash);
        match Step::of(local, remote, base) {
            Step::Conflict(_) if self.force => Step::of(local, remote, Base::Seen),
            step => step,
        }
    }

    fn server<'a>(&'a self, client: &'a Client) -> Server<'a> {
        Server::new(client, &self.url, self.token.as_deref())
    }

    fn pool(&self) -> Result<ThreadPool, String> {
        let pool = ThreadPoolBuilder::new().num_threads(self.connections);
        pool.build()
            .map_err(|error| format!("cannot start threads: {error}"))
    }
}

fn local(resource: &Resource) -> Option<Local> {
    let Data::File(source) = &resource.identity.data else {
        // A scan without memory keeps no content.
        return None;
    };
    Some(Local {
        hash: *resource.identity.etag.hash(),
        length: resource.identity.length,
        location: source.path.clone(),
    })
}

fn local_rules(root: &Root, file: RuleFile) -> Result<Option<Local>, String> {
    let path = std::path::Path::new(file.name());
    let hash = || -> io::Result<Local> {
        let opened = root.open_file(path)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(&opened.file)?;
        Ok(Local {
            hash: *hasher.finalize().as_bytes(),
            length: opened.stamp.size,
            location: path.into(),
        })
    };
    match hash() {
        Ok(local) => Ok(Some(local)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("cannot read {}: {error}", file.name())),
    }
}

/// The tags of files as they are, by path.
fn tags(inventory: Option<&Inventory>) -> Option<BTreeMap<Box<[u8]>, ETag>> {
    let entries = &inventory?.entries;
    let identity = entries
        .iter()
        .filter(|entry| entry.coding == Coding::Identity);
    Some(
        identity
            .map(|entry| (entry.path.clone(), entry.etag))
            .collect(),
    )
}

//! A directory brought to a server, file by file, each under its precondition: what somebody else
//! has changed meanwhile is told of and not overwritten.
//!
//! [`Push::look`] finds out what differs, [`Push::run`] brings it there: pages after what they
//! need, deletions last, and neither if something before them has failed. Run again, it goes on
//! where it stopped, for what is there already is not sent.

mod server;
mod step;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
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
    /// Whether what the server has under this very path is known.
    is_sure: bool,
}

/// A file of the directory.
#[derive(Clone, Debug)]
struct Local {
    hash: Hash,
    length: u64,
    /// Where it is, relative to the root.
    location: Box<std::path::Path>,
}

/// What differs.
#[derive(Debug)]
pub struct Plan {
    tasks: Vec<Task>,
    unchanged: u64,
}

/// How far the work has come; readable from other threads.
#[derive(Debug, Default)]
pub struct Progress {
    total: AtomicU64,
    done: AtomicU64,
}

impl Progress {
    /// Bytes to send; 0 as long as that is not known.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Bytes sent.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }
}

/// What was done, and what not.
#[derive(Debug, Default)]
pub struct Report {
    /// Files that the server did not have.
    pub created: u64,
    /// Files that it had in another version.
    pub replaced: u64,
    /// Files that it has no more.
    pub deleted: u64,
    /// Files that it had already.
    pub unchanged: u64,
    /// Bytes of what was created and replaced.
    pub bytes: u64,
    /// What was left for later, because something before it has failed.
    pub left: u64,
    /// What was not done, ordered by path.
    pub problems: Vec<Problem>,
}

/// A path that is not as it should be.
#[derive(Debug)]
pub struct Problem {
    path: Box<[u8]>,
    trouble: Trouble,
}

#[derive(Debug)]
enum Trouble {
    /// Somebody else has made this of it.
    Conflict(Option<ETag>),
    Failed(String),
}

impl Problem {
    /// Whether somebody else has changed it.
    pub fn is_conflict(&self) -> bool {
        matches!(self.trouble, Trouble::Conflict(_))
    }

    /// Writes it as a line: kind, path, and the server's tag or a reason, separated by tabs.
    ///
    /// # Errors
    /// As `out`.
    pub fn write(&self, out: &mut (impl Write + ?Sized)) -> io::Result<()> {
        let path = url(&self.path);
        match &self.trouble {
            Trouble::Conflict(Some(tag)) => writeln!(out, "conflict\t{path}\t{tag}"),
            Trouble::Conflict(None) => writeln!(out, "conflict\t{path}\tnone"),
            Trouble::Failed(reason) => writeln!(out, "failed\t{path}\t{reason}"),
        }
    }
}

impl Plan {
    /// Writes a line for each path that differs: what would be done, and its path.
    ///
    /// # Errors
    /// As `out`.
    pub fn write(&self, out: &mut (impl Write + ?Sized)) -> io::Result<()> {
        for task in &self.tasks {
            let what = match (task.stage, task.step) {
                // Nobody can look at rules.
                (Stage::Rules, _) => "bring",
                (_, Step::Create) => "create",
                (_, Step::Replace(_)) => "replace",
                (_, Step::Delete(_)) => "delete",
                (_, Step::Conflict(_)) => "conflict",
                (_, Step::Nothing) => continue,
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
        let mut locals: BTreeMap<Box<[u8]>, (Stage, Local)> = manifest
            .iter()
            .filter_map(|resource| {
                let stage = match manifest.is_page(resource) {
                    true => Stage::Pages,
                    false => Stage::Assets,
                };
                Some((resource.path.clone(), (stage, local(resource)?)))
            })
            .collect();
        if self.rules {
            for file in RuleFile::ALL {
                if let Some(local) = local_rules(root, file)? {
                    let path = file.name().as_bytes().into();
                    locals.insert(path, (Stage::Rules, local));
                }
            }
        }
        let mut paths: BTreeSet<Box<[u8]>> = locals.keys().cloned().collect();
        if self.delete {
            let known = [&self.known, &self.base].into_iter().flatten();
            let entries = known.flat_map(|inventory| &inventory.entries);
            paths.extend(entries.map(|entry| entry.path.clone()));
        }
        let paths: Vec<_> = paths.into_iter().collect();
        let (known, base) = (tags(self.known.as_ref()), tags(self.base.as_ref()));
        let failed = OnceLock::new();
        let look = |path: &[u8]| {
            if failed.get().is_some() {
                return None;
            }
            let (stage, local) = match locals.get(path) {
                Some((stage, local)) => (*stage, Some(local.clone())),
                None => (Stage::Deletions, None),
            };
            let looked = match (&known, stage) {
                // Told when it is tried.
                (_, Stage::Rules) => Ok((None, false)),
                (Some(known), _) => Ok((known.get(path).copied(), true)),
                (None, _) => server.look(path),
            };
            let (remote, is_sure) = match looked {
                Ok(looked) => looked,
                Err(reason) => {
                    let _ = failed.set(reason);
                    return None;
                }
            };
            let base = match (&base, stage) {
                (Some(base), Stage::Assets | Stage::Pages | Stage::Deletions) => {
                    Base::Was(base.get(path).map(|tag| *tag.hash()))
                }
                _ => Base::Seen,
            };
            let step = self.step(local.as_ref(), remote, base);
            Some(Task {
                stage,
                path: path.into(),
                local,
                base,
                step,
                is_sure,
            })
        };
        let looked = self
            .pool()?
            .install(|| paths.par_iter().filter_map(|path| look(path)).collect());
        if let Some(reason) = failed.into_inner() {
            return Err(reason);
        }
        let mut tasks: Vec<Task> = looked;
        let all = tasks.len();
        tasks.retain(|task| task.step != Step::Nothing);
        let unchanged = (all - tasks.len()) as u64;
        tasks.sort_by(|a, b| (a.stage, &a.path).cmp(&(b.stage, &b.path)));
        Ok(Plan { tasks, unchanged })
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
        report.problems.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(report)
    }

    /// Does one task; what turns out to be other than it was seen is decided upon once more.
    fn act(&self, server: &Server<'_>, root: &Root, task: &Task, progress: &Progress) -> Outcome {
        /// Somebody may be at work there all the time.
        const TRIES: usize = 5;
        let mut step = match (task.step, &task.local) {
            (Step::Conflict(_), Some(_)) if !task.is_sure => Step::Create,
            (step, _) => step,
        };
        for attempt in 0..TRIES {
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
            // Now it is told of this very path.
            let is_first_look = attempt == 0 && !task.is_sure;
            let next = self.step(task.local.as_ref(), now, task.base);
            if next != Step::Nothing && !is_first_look && !self.force {
                return Outcome::Overtaken(now);
            }
            step = next;
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

impl Report {
    fn add(&mut self, task: &Task, outcome: Outcome) {
        let length = task.local.as_ref().map_or(0, |local| local.length);
        let trouble = match outcome {
            Outcome::Created => {
                self.created += 1;
                self.bytes += length;
                return;
            }
            Outcome::Replaced => {
                self.replaced += 1;
                self.bytes += length;
                return;
            }
            Outcome::Deleted => {
                self.deleted += 1;
                return;
            }
            Outcome::Unchanged => {
                self.unchanged += 1;
                return;
            }
            Outcome::Overtaken(tag) => Trouble::Conflict(tag),
            Outcome::Failed(reason) | Outcome::Refused(reason) => Trouble::Failed(reason),
        };
        let path = task.path.clone();
        self.problems.push(Problem { path, trouble });
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

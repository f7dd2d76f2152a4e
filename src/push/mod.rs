//! Pushes a directory to a server, file by file, each under a precondition: a file that somebody
//! else has changed meanwhile is reported and not overwritten.
//!
//! [`Push::plan`] finds out what differs, [`Push::run`] sends it in stages: dictionaries before the
//! deltas that need them, pages after the files they need, deletions last. A stage is not begun if
//! something before it has failed. The next run continues where this one stopped, because files that
//! the server has are not sent again.
//!
//! No manifest lists dictionaries; they are known by the deltas that name them. So one is deleted after
//! all of its deltas but the last, and only then that one: wherever a run ends, no delta has lost what
//! proves it but one that was to go, and no dictionary is left that nothing names.

mod action;
mod report;
mod server;
mod task;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;

use rayon::iter::{IntoParallelIterator, IntoParallelRefIterator, ParallelIterator};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::disk::Root;
use crate::inventory::{Inventory, url};
use crate::manifest::Manifest;
use crate::progress::ByteProgress;
use crate::remote::Client;
use crate::rules::RuleFile;
use crate::scan::sidecar::Unproven;
use crate::scan::{delta_coding, dictionary_path, is_unlisted};
use crate::semantics::base_path::BasePath;
use crate::semantics::coding::{Coding, delta_stem};
use crate::semantics::dictionary::DictionaryHash;
use crate::semantics::etag::ETag;
use crate::settings::ReplicaUrl;
use action::{BaseVersion, PushAction};
use server::{PushOutcome, RemoteServer};
use task::{DesiredFile, DesiredFiles, LocalFile, Stage, Task};

pub use report::{PushProblem, PushReport};
pub use server::PushError;

/// What a server may be given of the site's rules. `.etagdignore` is about the directory alone: a
/// server takes no file with such a name.
const PUSHED_RULES: [RuleFile; 2] = [RuleFile::Headers, RuleFile::Redirects];
/// Attempts with --force while somebody else keeps changing a file.
const MAX_FORCED_ATTEMPTS: usize = 5;

/// What to push where.
#[derive(Debug)]
pub struct Push {
    /// The URL of the server.
    pub url: ReplicaUrl,
    /// The path below which it has the site; `None` for what a manifest of it says.
    pub base_path: Option<BasePath>,
    /// The token to authenticate with; `None` for a server that needs none.
    pub token: Option<String>,
    /// What the server had before anybody else changed anything.
    pub base: Option<Inventory>,
    /// What the server has, from its admin listener.
    pub known: Option<Inventory>,
    /// Whether to delete files that the directory does not have.
    pub delete: bool,
    /// Whether to push the site's rules too.
    pub rules: bool,
    /// Whether to overwrite files that somebody else has changed.
    pub force: bool,
    /// Maximum number of connections.
    pub connections: usize,
}

/// What differs between a directory and a server.
#[derive(Debug)]
pub struct Plan {
    tasks: Vec<Task>,
    unchanged: u64,
    /// Files of the directory that can't be pushed, though nothing else depends on them.
    unfit: Vec<PushProblem>,
}

impl Plan {
    /// Writes a line for each path that differs: what would be done, and the path; for a file that
    /// can't be pushed, why.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut (impl Write + ?Sized)) -> io::Result<()> {
        for task in &self.tasks {
            let action = match task.action {
                PushAction::Create => "create",
                PushAction::Replace(_) => "replace",
                PushAction::Delete(_) => "delete",
                PushAction::Conflict(_) => "conflict",
                PushAction::Nothing => continue,
            };
            writeln!(out, "{action}\t{}", url(&task.path))?;
        }
        self.unfit.iter().try_for_each(|problem| problem.write(out))
    }

    /// Number of files of the directory that can't be pushed.
    #[must_use]
    pub fn unfit(&self) -> usize {
        self.unfit.len()
    }

    /// Number of files that differ because somebody else has changed them.
    #[must_use]
    pub fn conflicts(&self) -> usize {
        self.tasks
            .iter()
            .filter(|task| matches!(task.action, PushAction::Conflict(_)))
            .count()
    }
}

impl Push {
    /// Compares the server with the result of a scan of the directory.
    ///
    /// # Errors
    /// When the server can't be asked, or a rule file can't be read.
    pub fn plan(
        &self,
        client: &Client,
        root: &Root,
        manifest: &Manifest,
    ) -> Result<Plan, PushError> {
        let server = self.server(client);
        let (desired, unfit) = self.desired_files(&server, root, manifest)?;
        let known = self.known.as_ref().map(identity_tags);
        let base = self.base.as_ref().map(identity_tags);
        let mut tasks: Vec<Task> = self.thread_pool()?.install(|| {
            desired
                .into_par_iter()
                .map(|(path, file)| {
                    let local = file.local;
                    // Manifests do not list them: the server has to be asked.
                    let has_manifest = !is_unlisted(&path);
                    let remote = match &known {
                        Some(known) if has_manifest => known.get(&path).copied(),
                        _ => server.current_tag(&path, local.as_ref().map(|local| local.hash))?,
                    };
                    let base = match &base {
                        Some(base) if has_manifest => {
                            BaseVersion::Known(base.get(&path).map(|tag| *tag.hash()))
                        }
                        _ => BaseVersion::Current,
                    };
                    Ok(Task {
                        stage: file.stage,
                        dictionary: file.dictionary,
                        action: self.action(local.as_ref(), remote, base),
                        path,
                        local,
                        base,
                    })
                })
                .collect::<Result<_, PushError>>()
        })?;
        let total = tasks.len();
        tasks.retain(|task| task.action != PushAction::Nothing);
        let unchanged = (total - tasks.len()) as u64;
        // A dictionary is next to its deltas.
        tasks.sort_by(|a, b| {
            (a.stage, a.dictionary, &a.path).cmp(&(b.stage, b.dictionary, &b.path))
        });
        Ok(Plan {
            tasks,
            unchanged,
            unfit,
        })
    }

    /// What is to be on the server, and what of the directory can't be.
    fn desired_files(
        &self,
        server: &RemoteServer<'_>,
        root: &Root,
        manifest: &Manifest,
    ) -> Result<(DesiredFiles, Vec<PushProblem>), PushError> {
        let mut desired = DesiredFiles::new();
        for resource in manifest.iter() {
            let stage = match manifest.is_page(resource) {
                true => Stage::Pages,
                false => Stage::Assets,
            };
            if let Some(local) = LocalFile::from_resource(resource) {
                desired.insert(resource.path.clone(), DesiredFile::new(stage, local));
            }
        }
        if self.rules {
            for file in PUSHED_RULES {
                add_unlisted(root, Path::new(file.name()), Stage::Rules, &mut desired)?;
            }
        }
        let needed = NeededDictionaries::of(manifest)?;
        let mut unfit = Vec::new();
        for hash in &needed.all {
            let path: Box<[u8]> = dictionary_path(*hash).as_os_str().as_bytes().into();
            match LocalFile::from_dictionary(root, *hash) {
                Ok(Some(local)) => {
                    desired.insert(path, DesiredFile::new(Stage::Dictionaries, local));
                }
                Ok(None) => {}
                // The older file itself proves what needs it.
                Err(_) if !needed.unproven.contains(hash) => {}
                Err(error) => unfit.push(PushProblem::failed(path, PushError::Dictionary(error))),
            }
        }
        if self.delete {
            self.add_deletions(server, &needed, &mut desired)?;
        }
        Ok((desired, unfit))
    }

    /// Adds what the server has and the directory has not, and the dictionaries that go with it.
    fn add_deletions(
        &self,
        server: &RemoteServer<'_>,
        needed: &NeededDictionaries,
        desired: &mut DesiredFiles,
    ) -> Result<(), PushError> {
        let mut deltas: BTreeMap<Box<[u8]>, DictionaryHash> = BTreeMap::new();
        for inventory in [&self.known, &self.base].into_iter().flatten() {
            for entry in &inventory.entries {
                let path = || entry.path.clone();
                desired
                    .entry(path())
                    .or_insert_with(|| DesiredFile::deletion(None));
                if let Some((extension, hash)) = delta_name(entry.coding) {
                    deltas.insert([&*path(), b".", extension.as_bytes()].concat().into(), hash);
                }
            }
        }
        // A delta that is proven no longer, because its file was replaced first, is a file like any
        // other in a manifest. Only its first bytes say what it needed.
        let is_unknown = |path: &[u8], file: &DesiredFile| {
            file.local.is_none() && delta_stem(path).is_some() && !deltas.contains_key(path)
        };
        let unknown: Vec<_> = (desired.iter())
            .filter(|(path, file)| is_unknown(path, file))
            .map(|(path, _)| path.clone())
            .collect();
        for path in unknown {
            let named = server.delta_coding(&path)?.and_then(delta_name);
            if let Some((extension, hash)) = named
                && path.ends_with(extension.as_bytes())
            {
                deltas.insert(path, hash);
            }
        }
        for (delta, hash) in deltas {
            // What the server has may be the last copy of one that a delta of the directory needs.
            if needed.unproven.contains(&hash) {
                continue;
            }
            let dictionary = desired
                .entry(dictionary_path(hash).as_os_str().as_bytes().into())
                .or_insert_with(|| DesiredFile::deletion(Some(hash)));
            if dictionary.local.is_none()
                && let Some(delta) = desired.get_mut(&delta)
                && delta.local.is_none()
            {
                delta.dictionary = Some(hash);
            }
        }
        Ok(())
    }

    /// Carries out a plan.
    ///
    /// # Errors
    /// When the server refuses every file in the same way, or no threads can be started.
    pub fn run(
        &self,
        client: &Client,
        root: &Root,
        plan: Plan,
        progress: &ByteProgress,
    ) -> Result<PushReport, PushError> {
        let server = self.server(client);
        let pool = self.thread_pool()?;
        progress.set_total(
            plan.tasks
                .iter()
                .filter_map(|task| task.local.as_ref())
                .map(|local| local.length)
                .sum(),
        );
        let mut report = PushReport {
            unchanged: plan.unchanged,
            ..PushReport::default()
        };
        for stage in plan.tasks.chunk_by(|a, b| a.stage == b.stage) {
            if !report.problems.is_empty() {
                report.left += stage.len() as u64;
                continue;
            }
            // Without this, a wrong token would be sent once for each of a million files.
            let refused = OnceLock::new();
            let attempt = |task: &Task| {
                if refused.get().is_some() {
                    return None;
                }
                match self.process(&server, root, task, progress) {
                    PushOutcome::Failed(error) if error.is_for_all() => {
                        // Only the first of equal errors is reported.
                        let _ = refused.set(error);
                        None
                    }
                    outcome => Some(outcome),
                }
            };
            let groups =
                stage.chunk_by(|a, b| a.dictionary.is_some() && a.dictionary == b.dictionary);
            let groups: Vec<_> = groups.collect();
            let outcomes: Vec<_> = pool.install(|| {
                groups
                    .par_iter()
                    .flat_map_iter(|group| match group {
                        [task] => vec![attempt(task)],
                        group => self.delete_with_dictionary(&server, group, attempt),
                    })
                    .collect()
            });
            if let Some(error) = refused.into_inner() {
                return Err(error);
            }
            for (task, outcome) in stage.iter().zip(outcomes) {
                match outcome {
                    Some(outcome) => report.add(task, outcome),
                    None => report.left += 1,
                }
            }
        }
        report.problems.extend(plan.unfit);
        Ok(report)
    }

    /// Carries out one task. With `force`, a file that somebody else has changed since the plan
    /// was made is overwritten all the same.
    fn process(
        &self,
        server: &RemoteServer<'_>,
        root: &Root,
        task: &Task,
        progress: &ByteProgress,
    ) -> PushOutcome {
        let mut action = task.action;
        for _ in 0..MAX_FORCED_ATTEMPTS {
            let outcome = match (action, &task.local) {
                (PushAction::Create, Some(local)) => server.put(root, task, local, None, progress),
                (PushAction::Replace(tag), Some(local)) => {
                    server.put(root, task, local, Some(tag), progress)
                }
                (PushAction::Delete(tag), _) => server.delete(&task.path, tag),
                (PushAction::Conflict(tag), _) => return PushOutcome::Conflict(tag),
                (PushAction::Create | PushAction::Replace(_), None) | (PushAction::Nothing, _) => {
                    return PushOutcome::Unchanged;
                }
            };
            let PushOutcome::Conflict(current) = outcome else {
                return outcome;
            };
            action = self.action(task.local.as_ref(), current, task.base);
            if action != PushAction::Nothing && !self.force {
                return outcome;
            }
        }
        PushOutcome::Failed(PushError::KeepsChanging)
    }

    /// Deletes deltas, and their dictionary before the last of them: by that one the next run knows it,
    /// if this one ends between the two. What is `None` is left to the next run.
    fn delete_with_dictionary(
        &self,
        server: &RemoteServer<'_>,
        group: &[Task],
        attempt: impl Fn(&Task) -> Option<PushOutcome>,
    ) -> Vec<Option<PushOutcome>> {
        let is_gone = |outcome: &Option<PushOutcome>| {
            matches!(outcome, Some(PushOutcome::Deleted | PushOutcome::Unchanged))
        };
        let mut outcomes: Vec<_> = group.iter().map(|_| None).collect();
        let (dictionary, mut deltas): (Vec<_>, Vec<_>) =
            (0..group.len()).partition(|place| is_unlisted(&group[*place].path));
        let last = deltas.pop();
        for place in &deltas {
            outcomes[*place] = attempt(&group[*place]);
        }
        if !deltas.iter().all(|place| is_gone(&outcomes[*place])) {
            return outcomes;
        }
        // One that somebody else has changed since the plan was made stays, and needs its dictionary.
        if let (Some(last), [_]) = (last, &*dictionary)
            && let Err(outcome) = self.check_deletable(server, &group[last])
        {
            outcomes[last] = Some(outcome);
            return outcomes;
        }
        for place in dictionary.into_iter().chain(last) {
            outcomes[place] = attempt(&group[place]);
            if !is_gone(&outcomes[place]) {
                break;
            }
        }
        outcomes
    }

    /// Whether a deletion would succeed, as far as that can be known before.
    fn check_deletable(&self, server: &RemoteServer<'_>, task: &Task) -> Result<(), PushOutcome> {
        let planned = match task.action {
            PushAction::Delete(tag) => tag,
            PushAction::Conflict(tag) => return Err(PushOutcome::Conflict(tag)),
            PushAction::Create | PushAction::Replace(_) | PushAction::Nothing => return Ok(()),
        };
        match server.current_tag(&task.path, None)? {
            Some(current) if current.hash() != planned.hash() && !self.force => {
                Err(PushOutcome::Conflict(Some(current)))
            }
            _ => Ok(()),
        }
    }

    fn action(
        &self,
        local: Option<&LocalFile>,
        remote: Option<ETag>,
        base: BaseVersion,
    ) -> PushAction {
        let local = local.map(|local| local.hash);
        match PushAction::choose(local, remote, base) {
            PushAction::Conflict(_) if self.force => {
                PushAction::choose(local, remote, BaseVersion::Current)
            }
            action => action,
        }
    }

    fn server<'a>(&'a self, client: &'a Client) -> RemoteServer<'a> {
        // A manifest of the server says what its URL may have left out.
        let manifest = self.known.as_ref().or(self.base.as_ref());
        let listed = || manifest.map(|manifest| manifest.head.base_path());
        let base_path = self.base_path.clone().or_else(listed).unwrap_or_default();
        RemoteServer::new(client, &self.url, &base_path, self.token.as_deref())
    }

    fn thread_pool(&self) -> Result<ThreadPool, PushError> {
        Ok(ThreadPoolBuilder::new()
            .num_threads(self.connections)
            .build()?)
    }
}

/// Dictionaries that deltas of the directory name.
struct NeededDictionaries {
    all: BTreeSet<DictionaryHash>,
    /// Those without which some of these deltas are not proven in the directory.
    unproven: BTreeSet<DictionaryHash>,
}

impl NeededDictionaries {
    fn of(manifest: &Manifest) -> Result<Self, PushError> {
        let (mut all, mut unproven) = (BTreeSet::new(), BTreeSet::new());
        for delta in manifest.delta_files() {
            let coding = match delta_coding(delta) {
                Ok(coding) => coding,
                Err(Unproven::Unreadable(source)) => {
                    let path = OsStr::from_bytes(&delta.path).into();
                    return Err(PushError::Unlisted { path, source });
                }
                // It names none.
                Err(_) => continue,
            };
            let Some(hash) = coding.dictionary() else {
                continue;
            };
            let file = delta_stem(&delta.path).and_then(|stem| manifest.locate(stem));
            let is_proven =
                file.is_some_and(|file| file.encoded.iter().any(|it| it.coding() == coding));
            all.insert(hash);
            if !is_proven {
                unproven.insert(hash);
            }
        }
        Ok(Self { all, unproven })
    }
}

/// What the name of a delta in this coding ends with, and its dictionary.
fn delta_name(coding: Coding) -> Option<(String, DictionaryHash)> {
    Some((coding.delta_extension()?, coding.dictionary()?))
}

/// Adds a file that no manifest lists, if the directory has it.
fn add_unlisted(
    root: &Root,
    path: &Path,
    stage: Stage,
    desired: &mut DesiredFiles,
) -> Result<(), PushError> {
    let key: Box<[u8]> = path.as_os_str().as_bytes().into();
    if desired.contains_key(&key) {
        return Ok(());
    }
    let local = LocalFile::from_unlisted(root, path).map_err(|source| PushError::Unlisted {
        path: path.to_path_buf(),
        source,
    })?;
    if let Some(local) = local {
        desired.insert(key, DesiredFile::new(stage, local));
    }
    Ok(())
}

/// The tags of the files themselves, without content codings, by path.
fn identity_tags(inventory: &Inventory) -> BTreeMap<Box<[u8]>, ETag> {
    inventory
        .entries
        .iter()
        .filter(|entry| entry.coding == Coding::Identity)
        .map(|entry| (entry.path.clone(), entry.etag))
        .collect()
}

//! Changes that clients ask for, made between two looks at the disk.
//!
//! The disk decides: what has changed there is known to a write, published or not. Its own change
//! is published alone, and before its client is answered.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderValue;

use super::publisher::Publisher;
use crate::commit::{CommitError, Condition, Operation, RejectedWrite, WriteJob};
use crate::disk::{Root, Stamp};
use crate::representation::{Data, Fields, NO_STORE, Representation, Resource};
use crate::scan::{ScanOutcome, Scope, is_unlisted};
use crate::semantics::coding::Coding;
use crate::semantics::etag::ETag;
use crate::staging::{Directory, ExpectedFile, HiddenName, StagingOutcome};

/// How long a write waits while the tree around its path is being replaced.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// How many times a write is attempted, if somebody else changes the file each time between the look
/// at it and its replacement.
const MAX_ATTEMPTS: usize = 5;

const BUSY: CommitError =
    CommitError::Busy("another process is writing to this file: try again in a moment");

/// How long the events of a write are told from others: they come at once, but a queue may be long.
const MAX_ECHO_AGE: Duration = Duration::from_secs(10);

/// What the writes of clients have left at their paths, for the events that they cause. These tell of
/// nothing that is not published, and must not keep other changes waiting for quiet.
#[derive(Debug, Default)]
pub(super) struct Echoes(HashMap<PathBuf, Echo>);

#[derive(Debug)]
struct Echo {
    /// The stamp of the file; `None` after a deletion.
    left: Option<Stamp>,
    at: Instant,
}

impl Echoes {
    /// Notes what a write has left at `path`, and published.
    pub(super) fn note(&mut self, path: PathBuf, left: Option<Stamp>, now: Instant) {
        self.0
            .retain(|_, echo| now.saturating_duration_since(echo.at) < MAX_ECHO_AGE);
        self.0.insert(path, Echo { left, at: now });
    }

    /// Whether the event that a file was renamed to `path` or away from it, or closed, is that of a
    /// write. `now` is asked for what is there: anything else than the write has left is somebody else's,
    /// and so may be what can't be looked at now.
    ///
    /// Somebody who writes to the file causes an event of another kind before it is closed, however
    /// equal the stamps are.
    pub(super) fn is_echo(&self, path: &Path, now: impl FnOnce() -> io::Result<Stamp>) -> bool {
        self.0.get(path).is_some_and(|echo| match now() {
            Ok(now) => echo.left == Some(now),
            Err(error) => echo.left.is_none() && error.kind() == io::ErrorKind::NotFound,
        })
    }
}

/// A write that has not had its turn.
struct WaitingJob {
    job: WriteJob,
    until: Instant,
}

/// The writes that wait for their turn, in the order in which they came.
#[derive(Default)]
pub(super) struct WriteQueue(VecDeque<WaitingJob>);

/// What becomes of the write whose turn it is.
pub(super) enum QueueTurn {
    /// It is made now.
    Now(WriteJob),
    /// It was refused, or its client waits no longer.
    Over,
    /// It goes on waiting.
    Later,
}

impl WriteQueue {
    pub(super) fn push(&mut self, job: WriteJob, now: Instant) {
        let until = now + MAX_WAIT;
        self.0.push_back(WaitingJob { job, until });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes the first write, if its turn has come. One whose path `is_being_replaced` goes to the end of
    /// the queue, and is refused when it has waited long enough.
    pub(super) fn next_turn(
        &mut self,
        refusal: Option<&'static str>,
        is_being_replaced: impl FnOnce(&[u8]) -> bool,
        now: Instant,
    ) -> QueueTurn {
        let Some(WaitingJob { job, until }) = self.0.pop_front() else {
            return QueueTurn::Over;
        };
        if job.reply.is_closed() {
            return QueueTurn::Over;
        }
        let refusal = match refusal {
            None if is_being_replaced(&job.path) => {
                if now < until {
                    self.0.push_back(WaitingJob { job, until });
                    return QueueTurn::Later;
                }
                Some("the site is being replaced: try again in a moment")
            }
            other => other,
        };
        match refusal {
            Some(reason) => {
                let error = CommitError::Busy(reason);
                let operation = job.operation;
                // A client that waits no longer finds out by asking.
                let _ = job.reply.send(Err(RejectedWrite { error, operation }));
                QueueTurn::Over
            }
            None => QueueTurn::Now(job),
        }
    }
}

/// A change that is made on the disk, and not yet published.
pub(super) struct Applied {
    /// The tag that the path had, if it named something.
    pub(super) before: Option<ETag>,
    /// The directory that has another entry now, to be synced.
    pub(super) directory: Directory,
    /// Whether nothing is left in it.
    pub(super) is_emptied: bool,
    /// What was deleted.
    pub(super) displaced: Option<HiddenName>,
}

/// Makes one change on the disk, if its condition holds for what is there.
///
/// # Errors
/// When nothing was changed, and why.
pub(super) fn apply(
    root: &Arc<Root>,
    publisher: &Publisher,
    path: &[u8],
    operation: &mut Operation,
    condition: &Condition,
) -> Result<Applied, CommitError> {
    let real = Path::new(OsStr::from_bytes(path));
    let (Some(parent), Some(name)) = (real.parent(), real.file_name()) else {
        return Err(CommitError::Blocked("a directory has this name"));
    };
    for _ in 0..MAX_ATTEMPTS {
        let now = on_disk(root, publisher, parent, name, path)?;
        let now = now.as_deref();
        if now.is_none() && matches!(operation, Operation::Delete) {
            return Err(CommitError::Nothing);
        }
        if !condition(now) {
            return Err(CommitError::Failed(now.map(|now| now.identity.etag)));
        }
        let expected = now.map(|now| ExpectedFile {
            stamp: now.stamp,
            hash: *now.identity.etag.hash(),
        });
        // What was missing of it is made before the write has its turn.
        let directory = Directory::open(root, parent)?;
        let mut applied = Applied {
            before: now.map(|now| now.identity.etag),
            directory,
            is_emptied: false,
            displaced: None,
        };
        let directory = &applied.directory;
        let placement = match (&mut *operation, &expected) {
            (Operation::Put { temp_file, .. }, expected) => {
                temp_file.place(directory, name, expected.as_ref())?
            }
            (Operation::Delete, Some(expected)) => {
                // A directory that can't be listed is taken for one that has other files.
                applied.is_emptied = directory.has_only(name).unwrap_or(false);
                match directory.remove_expected(name, expected)? {
                    Ok(hidden) => {
                        applied.displaced = Some(hidden);
                        StagingOutcome::Done
                    }
                    Err(placement) => placement,
                }
            }
            (Operation::Delete, None) => return Err(CommitError::Nothing),
        };
        match placement {
            StagingOutcome::Done => return Ok(applied),
            // Somebody changed it after the look: the condition may not hold any more.
            StagingOutcome::Overtaken => {}
            StagingOutcome::Busy => return Err(BUSY),
        }
    }
    Err(BUSY)
}

/// What a path names on the disk at this moment.
fn on_disk(
    root: &Arc<Root>,
    publisher: &Publisher,
    parent: &Path,
    name: &OsStr,
    path: &[u8],
) -> Result<Option<Arc<Resource>>, CommitError> {
    let directory = match Directory::open(root, parent) {
        Ok(directory) => directory,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if !CommitError::has_file(&directory, name)? {
        return Ok(None);
    }
    if is_unlisted(path) {
        return unlisted_on_disk(&directory, name);
    }
    let scope = Scope::Paths([path.into()].into());
    let current = publisher.current();
    let scanner = &publisher.scanner;
    let ScanOutcome {
        mut changes,
        busy,
        not_now,
        ..
    } = scanner.peek(root, &current, &scope, &publisher.progress);
    if !busy.is_empty() {
        return Err(BUSY);
    }
    if !not_now.is_empty() {
        return Err(CommitError::Busy(
            "the file that is there cannot be read now: try again later",
        ));
    }
    let now = changes.changed.iter().find(|now| *now.path == *path);
    // What is read and lacks a compressed form alone can be compared.
    if let Some(reason) = changes.unreadable.remove(path)
        && now.is_none()
    {
        let error = io::Error::other(format!("it cannot be read: {reason}"));
        return Err(CommitError::Io(error));
    }
    // It is compared, not published.
    publisher.close_unpublished(&changes.changed);
    // With its tag as a GET of it has it: rules may add a suffix.
    Ok(now.map(|now| current.resource_at_path(now, path, None).into_owned()))
}

/// A file that no manifest has, as if it were served.
fn unlisted_on_disk(
    directory: &Directory,
    name: &OsStr,
) -> Result<Option<Arc<Resource>>, CommitError> {
    let Some((stamp, hash)) = directory.hash(name)? else {
        return Err(BUSY);
    };
    let fields = Fields::new(HeaderValue::from_static("text/plain"), NO_STORE);
    let data = Data::Memory(Bytes::new());
    let identity = Representation::new(Coding::Identity, ETag::new(hash), stamp.size, data);
    let path = name.as_bytes().into();
    Ok(Some(Arc::new(Resource {
        stamp,
        ..Resource::new(path, Arc::new(fields), identity)
    })))
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot::{Receiver, channel};

    use super::*;
    use crate::cache::Cache;
    use crate::commit::Committed;
    use crate::metrics::Metrics;
    use crate::scan::{CodingStore, Progress, Scanner};
    use crate::settings::{CompressionPolicy, Settings, Symlinks};
    use crate::site::Site;

    type Replied = Receiver<Result<Committed, RejectedWrite>>;

    fn push(queue: &mut WriteQueue, path: &str, now: Instant) -> Replied {
        let (reply, replied) = channel();
        let job = WriteJob {
            path: path.as_bytes().into(),
            operation: Operation::Delete,
            condition: Box::new(|_| true),
            reply,
        };
        queue.push(job, now);
        replied
    }

    #[test]
    fn only_what_a_write_has_left_is_an_echo() {
        let start = Instant::now();
        let stamp = |inode| Stamp {
            inode,
            ..Stamp::default()
        };
        let mut echoes = Echoes::default();
        let is_echo = |echoes: &Echoes, path: &str, now: Option<Stamp>| {
            let now = now.ok_or_else(|| io::ErrorKind::NotFound.into());
            echoes.is_echo(Path::new(path), || now)
        };
        assert!(!is_echo(&echoes, "a", Some(stamp(1))));
        echoes.note("a".into(), Some(stamp(1)), start);
        echoes.note("gone".into(), None, start);
        // An exchange of two names is several events.
        for _ in 0..3 {
            assert!(is_echo(&echoes, "a", Some(stamp(1))));
            assert!(is_echo(&echoes, "gone", None));
        }
        assert!(!is_echo(&echoes, "a", Some(stamp(2))), "somebody else's");
        assert!(!is_echo(&echoes, "a", None), "deleted since");
        assert!(!is_echo(&echoes, "gone", Some(stamp(1))), "there again");
        assert!(!is_echo(&echoes, "other", None));
        for path in ["a", "gone"] {
            let denied = || Err(io::ErrorKind::PermissionDenied.into());
            assert!(
                !echoes.is_echo(Path::new(path), denied),
                "{path}: not known"
            );
        }
        echoes.note("b".into(), None, start + MAX_ECHO_AGE);
        assert!(!is_echo(&echoes, "a", Some(stamp(1))), "it is long ago");
    }

    #[test]
    fn a_write_waits_for_what_is_in_motion_and_not_for_ever() {
        let (mut queue, start) = (WriteQueue::default(), Instant::now());
        let mut waiting = push(&mut queue, "moving/a", start);
        let _other = push(&mut queue, "b", start);
        let is_being_replaced = |path: &[u8]| path.starts_with(b"moving");
        let turn = queue.next_turn(None, is_being_replaced, start);
        assert!(matches!(turn, QueueTurn::Later));
        let turn = queue.next_turn(None, is_being_replaced, start);
        assert!(matches!(turn, QueueTurn::Now(job) if *job.path == *b"b"));
        assert_eq!(queue.len(), 1);
        let turn = queue.next_turn(None, is_being_replaced, start + MAX_WAIT);
        assert!(matches!(turn, QueueTurn::Over) && queue.is_empty());
        let refused = waiting.try_recv().expect("a reply");
        let error = refused.map_err(|rejected| rejected.error);
        assert!(matches!(error, Err(CommitError::Busy(_))), "{error:?}");
    }

    #[test]
    fn a_write_is_refused_where_none_can_be_made_and_dropped_where_nobody_waits() {
        let (mut queue, start) = (WriteQueue::default(), Instant::now());
        let mut refused = push(&mut queue, "a", start);
        drop(push(&mut queue, "b", start));
        let turn = queue.next_turn(Some("held"), |_| false, start);
        assert!(matches!(turn, QueueTurn::Over));
        let reply = refused.try_recv().expect("a reply");
        let error = reply.map_err(|rejected| rejected.error);
        assert!(matches!(error, Err(CommitError::Busy("held"))));
        let turn = queue.next_turn(None, |_| false, start);
        assert!(matches!(turn, QueueTurn::Over) && queue.is_empty());
    }

    #[test]
    fn what_is_about_to_be_replaced_is_not_compressed() {
        let place = tempfile::tempdir().expect("a directory");
        let [files, kept] = ["site", "cache"].map(|name| place.path().join(name));
        std::fs::create_dir(&files).expect("made");
        let root = Arc::new(Root::open(&files).expect("a root"));
        let cache = Cache::open(&kept, Some(root.path()), 1 << 20).expect("opened");
        let packs = cache.folder().to_path_buf();
        let settings = Settings {
            compress: Some(CompressionPolicy::default()),
            ..Settings::default()
        };
        let store = CodingStore {
            cache: Some(cache),
            ..CodingStore::default()
        };
        let scanner = Scanner::new(Symlinks::Inside, settings, None).with_store(store);
        let publisher = Publisher {
            site: Arc::new(Site::new(scanner.empty())),
            scanner: Arc::new(scanner),
            metrics: Arc::new(Metrics::default()),
            release: None,
            keep_old: None,
            keep_pages: false,
            progress: Progress::default(),
        };
        let content = "a text that is not published ".repeat(1000);
        std::fs::write(files.join("a.txt"), &content).expect("written");
        let (parent, name) = (Path::new(""), OsStr::new("a.txt"));
        let now = on_disk(&root, &publisher, parent, name, b"a.txt");
        let now = now.expect("looked at").expect("there");
        let hash = *blake3::hash(content.as_bytes()).as_bytes();
        assert_eq!(*now.identity.etag.hash(), hash);
        let count = |folder: &Path| std::fs::read_dir(folder).expect("listed").count();
        assert_eq!(count(&packs), 0);
    }
}

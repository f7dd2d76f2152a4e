//! Where hints of changes come from.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Sender;

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind};
use notify::{Config, ErrorKind, Event, EventKindMask, RecommendedWatcher, RecursiveMode, Watcher};

use crate::commit::WriteJob;

/// Something that the watcher should do. That a path has changed is never a fact: the watcher looks
/// at the disk.
#[derive(Debug)]
pub enum Hint {
    /// Look at this real path.
    Path {
        /// The path.
        path: PathBuf,
        /// What happened to it, as far as the event says.
        kind: EventKind,
    },
    /// Hints were lost: look at everything.
    Lost,
    /// Nothing below this path is reported any more.
    Blind(PathBuf, WatchError),
    /// A response found that this file is not what the manifest says.
    Suspect(PathBuf),
    /// The operator asks for a sweep.
    Sweep,
    /// The large files of the batch with this number are hashed.
    Prepared(u64),
    /// A client asks for a change.
    WriteJob(WriteJob),
    /// What takes long for a change that a client asks for is done.
    PreparedWrite(WriteJob),
    /// The watcher's mark of this number: what was sent after it came later.
    Mark(u64),
}

/// What an event says has happened to a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventKind {
    /// It was created, changed or removed, and does not lead elsewhere now.
    Changed,
    /// It is a file that was open for writing and has been closed.
    Closed,
    /// It was renamed, or created without the event saying as what: it may be a directory or a link
    /// that leads elsewhere now.
    Unknown,
}

/// Why changes below a path are not reported.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WatchError {
    /// The process, or its user, has as many watches as the kernel allows.
    #[error(
        "the limit of watches is reached; raise it with \
         sysctl fs.inotify.max_user_watches=1048576"
    )]
    TooMany,
    /// Another machine, process or layer can change files there unnoticed.
    #[error("its file system does not report changes made elsewhere")]
    Silent,
    /// There is nothing in this system that reports changes.
    #[error("this system does not report changes")]
    Unsupported,
    /// A directory can't be listed, so that those in it are not watched.
    #[error("it cannot be listed: {0}")]
    Unlisted(Arc<walkdir::Error>),
    /// Anything else.
    #[error(transparent)]
    Notify(Arc<notify::Error>),
}

impl From<notify::Error> for WatchError {
    fn from(error: notify::Error) -> Self {
        match error.kind {
            ErrorKind::MaxFilesWatch => Self::TooMany,
            _ => Self::Notify(Arc::new(error)),
        }
    }
}

/// Reports changes below the directories it watches.
pub trait ChangeSource: Send {
    /// Watches a directory and all below it, or a directory alone.
    ///
    /// # Errors
    /// When changes below `path` will not all be reported. That is for the operator to know, and no
    /// reason to stop: sweeps find them.
    fn watch(&mut self, path: &Path, is_recursive: bool) -> Result<(), WatchError>;

    /// Ends all watches. After lost events it is not known any more which directory a watch is
    /// of, and to watch a path that is watched already changes nothing.
    fn unwatch_all(&mut self);

    /// Returns once every directory that was reported is watched itself: what is listed after it
    /// misses nothing.
    fn barrier(&mut self);
}

/// A source for systems that report nothing.
pub(super) struct NoReports;

impl ChangeSource for NoReports {
    fn watch(&mut self, _: &Path, _: bool) -> Result<(), WatchError> {
        Err(WatchError::Unsupported)
    }

    fn unwatch_all(&mut self) {}

    fn barrier(&mut self) {}
}

/// The kernel's reports, through the crate `notify`.
pub(super) struct Notify {
    watcher: RecommendedWatcher,
    /// What is watched, and whether with all below it.
    watched: HashMap<PathBuf, bool>,
}

impl Notify {
    /// Sends hints to `hints` and does nothing else on the thread that reads the kernel's queue.
    pub(super) fn new(hints: Sender<Hint>) -> notify::Result<Self> {
        let kinds = EventKindMask::CORE | EventKindMask::ACCESS_CLOSE;
        let config = Config::default()
            .with_follow_symlinks(false)
            .with_event_kinds(kinds);
        let handler = move |event: notify::Result<Event>| {
            for hint in hints_of(event) {
                // The watcher is gone only when the process ends.
                let _ = hints.send(hint);
            }
        };
        Ok(Self {
            watcher: RecommendedWatcher::new(handler, config)?,
            watched: HashMap::new(),
        })
    }
}

fn hints_of(event: notify::Result<Event>) -> Vec<Hint> {
    match event {
        Ok(event) if event.need_rescan() => vec![Hint::Lost],
        Ok(event) => {
            let kind = kind_of(&event.kind);
            event
                .paths
                .into_iter()
                .map(|path| Hint::Path { path, kind })
                .collect()
        }
        Err(mut error) => {
            // Each path is named by the warning that it gets, not by its reason too.
            let paths = std::mem::take(&mut error.paths);
            let reason = WatchError::from(error);
            if paths.is_empty() {
                // It does not say what goes unseen, so it may be anything.
                return vec![Hint::Lost, Hint::Blind(PathBuf::from("/"), reason)];
            }
            paths
                .into_iter()
                .map(|path| Hint::Blind(path, reason.clone()))
                .collect()
        }
    }
}

fn kind_of(kind: &notify::EventKind) -> EventKind {
    use notify::EventKind as Kind;
    match kind {
        Kind::Access(AccessKind::Close(AccessMode::Write)) => EventKind::Closed,
        Kind::Create(CreateKind::File | CreateKind::Folder) => EventKind::Changed,
        Kind::Create(_) | Kind::Modify(ModifyKind::Name(_)) => EventKind::Unknown,
        _ => EventKind::Changed,
    }
}

impl ChangeSource for Notify {
    fn watch(&mut self, path: &Path, is_recursive: bool) -> Result<(), WatchError> {
        // To watch it alone would end the watch of what is below it.
        if !is_recursive && self.watched.get(path) == Some(&true) {
            return Ok(());
        }
        self.watched.insert(path.to_path_buf(), is_recursive);
        let mode = if is_recursive {
            RecursiveMode::Recursive
        } else {
            RecursiveMode::NonRecursive
        };
        Ok(self.watcher.watch(path, mode)?)
    }

    fn unwatch_all(&mut self) {
        for path in self.watched.drain().map(|(path, _)| path) {
            // It may be gone, and its watch with it.
            let _ = self.watcher.unwatch(&path);
        }
    }

    fn barrier(&mut self) {
        // notify answers that there is no such watch only after the present turn of its loop, which
        // reads events and adds watches. It has no call that only waits.
        let _ = self.watcher.unwatch(Path::new("/.etagd-no-such-path"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_error_is_swallowed() {
        let limit = notify::Error::new(ErrorKind::MaxFilesWatch).add_path("/site/new".into());
        match &hints_of(Err(limit))[..] {
            [Hint::Blind(path, reason)] => {
                assert_eq!(path, Path::new("/site/new"));
                let reason = reason.to_string();
                assert!(reason.contains("fs.inotify.max_user_watches"), "{reason}");
            }
            other => panic!("{other:?}"),
        }
        let broken = notify::Error::io(std::io::Error::other("the queue can't be read"));
        let hints = hints_of(Err(broken));
        assert!(
            matches!(&hints[..], [Hint::Lost, Hint::Blind(..)]),
            "{hints:?}"
        );
    }

    #[test]
    fn an_overflow_is_a_loss() {
        let event = Event::new(notify::EventKind::Other).set_flag(notify::event::Flag::Rescan);
        assert!(matches!(hints_of(Ok(event))[..], [Hint::Lost]));
    }
}

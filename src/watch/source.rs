//! Where hints of changes come from.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;

use notify::event::{AccessKind, AccessMode, CreateKind, EventKind, ModifyKind, RemoveKind};
use notify::{Config, ErrorKind, Event, EventKindMask, RecommendedWatcher, RecursiveMode, Watcher};

use crate::commit::WriteJob;

/// That something may have changed. Never a fact: whoever gets it looks at the disk.
#[derive(Debug)]
pub enum Hint {
    /// Look at this real path.
    Path {
        /// The path.
        path: PathBuf,
        /// What it names, if the report says so.
        of: Of,
    },
    /// Hints were lost: look at everything.
    Lost,
    /// Nothing below this path is reported any more.
    Blind(PathBuf, String),
    /// A response found that this file is not what the manifest says.
    Suspect(PathBuf),
    /// The operator asks for a sweep.
    Sweep,
    /// A client asks for a change.
    WriteJob(WriteJob),
}

/// What a reported path names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Of {
    /// A file, or nothing that other paths lead through.
    File,
    /// A file that whoever wrote to it has closed.
    Closed,
    /// A directory.
    Directory,
    /// A rename does not say.
    Unknown,
}

/// Reports changes below the directories it watches.
pub trait ChangeSource: Send {
    /// Watches a directory and all below it, or a directory alone. An error names what stays
    /// unseen; it is for the operator, and no reason to stop.
    ///
    /// # Errors
    /// When changes below `path` will not all be reported.
    fn watch(&mut self, path: &Path, is_recursive: bool) -> Result<(), String>;

    /// Stops watching.
    fn unwatch(&mut self, path: &Path);

    /// Returns once every directory that was reported is watched itself: what is listed after it
    /// misses nothing.
    fn barrier(&mut self);
}

/// The kernel's reports, through the crate `notify`.
pub(super) struct Notify {
    watcher: RecommendedWatcher,
    /// What is watched with all below it: to watch it alone would take that back.
    recursive: HashSet<PathBuf>,
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
            recursive: HashSet::new(),
        })
    }
}

fn hints_of(event: notify::Result<Event>) -> Vec<Hint> {
    match event {
        Ok(event) if event.need_rescan() => vec![Hint::Lost],
        Ok(event) => {
            let of = match event.kind {
                EventKind::Create(CreateKind::Folder) | EventKind::Remove(RemoveKind::Folder) => {
                    Of::Directory
                }
                EventKind::Create(CreateKind::File) | EventKind::Remove(RemoveKind::File) => {
                    Of::File
                }
                EventKind::Modify(ModifyKind::Name(_)) | EventKind::Create(_) => Of::Unknown,
                EventKind::Access(AccessKind::Close(AccessMode::Write)) => Of::Closed,
                _ => Of::File,
            };
            let hint = |path| Hint::Path { path, of };
            event.paths.into_iter().map(hint).collect()
        }
        Err(error) => {
            let reason = explain(&error);
            if error.paths.is_empty() {
                // It does not say what is unseen, so it may be anything.
                return vec![Hint::Lost, Hint::Blind(PathBuf::from("/"), reason)];
            }
            let blind = |path| Hint::Blind(path, reason.clone());
            error.paths.into_iter().map(blind).collect()
        }
    }
}

/// What went wrong, and what to do about it.
fn explain(error: &notify::Error) -> String {
    match error.kind {
        ErrorKind::MaxFilesWatch => "the limit of watches is reached; raise it with \
                                     sysctl fs.inotify.max_user_watches=1048576"
            .to_owned(),
        _ => error.to_string(),
    }
}

impl ChangeSource for Notify {
    fn watch(&mut self, path: &Path, is_recursive: bool) -> Result<(), String> {
        if !is_recursive && self.recursive.contains(path) {
            return Ok(());
        }
        if is_recursive {
            self.recursive.insert(path.to_path_buf());
        }
        let mode = if is_recursive {
            RecursiveMode::Recursive
        } else {
            RecursiveMode::NonRecursive
        };
        self.watcher
            .watch(path, mode)
            .map_err(|error| explain(&error))
    }

    fn unwatch(&mut self, path: &Path) {
        self.recursive.remove(path);
        // It may be gone, and its watch with it.
        let _ = self.watcher.unwatch(path);
    }

    fn barrier(&mut self) {
        // The answer, that there is no such watch, comes only after the present turn of the loop
        // that reads events and adds watches.
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
        let event = Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan);
        assert!(matches!(hints_of(Ok(event))[..], [Hint::Lost]));
    }
}

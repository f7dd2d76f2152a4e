//! `--state`: the manifest, saved in a file, so that a restart compares the site's files with it instead
//! of hashing them.
//!
//! A saved hash is used without reading its file only if two things hold: the file's inode, size, mtime
//! and ctime are what they were, and the process that hashed the file ran for another 2.5 seconds
//! without hearing of a change. After that time any later change leaves another ctime, on the coarsest
//! clock that a file system has (FAT: 2 s). If that should fail somewhere, a 304 could be stale, but no
//! body could be wrong: its bytes are proven before they are sent, as always.
//!
//! The file is replaced as a whole or not at all. One that can't be used is ignored, and replaced by
//! the next save. If saving fails (the disk is full or read-only), etagd warns and serves on.

mod format;
mod map;
mod saver;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};

use crate::disk::seam::{self, Call};
use crate::disk::{Root, resolved_path};
use crate::manifest::Manifest;
use crate::scan::{SavedFile, Scanner, is_hidden};
use crate::settings::Settings;

use format::MAGIC;
pub use format::{Files, Origin, Unusable, read, write};
pub use saver::Saver;

/// Why a manifest can't be saved in a file of this name.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It is in the site, so that anybody could download it.
    #[error(
        "--state {}: it would be served: choose a file outside of {}, or a name that begins with a dot",
        .file.display(), .root.display()
    )]
    Served {
        /// As it was given.
        file: PathBuf,
        /// The real path of the site.
        root: PathBuf,
    },
    /// Something else than a file is there, which must not be replaced.
    #[error("--state {}: it is not a regular file", .0.display())]
    Taken(PathBuf),
}

/// The file that manifests are saved in, and what they must be about to be used.
#[derive(Clone, Debug)]
pub struct StateFile {
    file: PathBuf,
    choices: blake3::Hash,
}

impl StateFile {
    /// `file`, for the site in `root` with these settings. Neither it nor its directory needs to exist.
    ///
    /// # Errors
    /// When something else has its name, or when the site would serve it.
    pub fn new(
        file: &Path,
        root: &Root,
        settings: impl Into<Arc<Settings>>,
    ) -> Result<Self, Refused> {
        let real = resolved_path(file);
        if real.symlink_metadata().is_ok_and(|now| !now.is_file()) {
            return Err(Refused::Taken(file.to_path_buf()));
        }
        let is_served = |path: &Path| !is_hidden(path.as_os_str().as_bytes());
        if real.strip_prefix(root.path()).is_ok_and(is_served) {
            let (file, root) = (file.to_path_buf(), root.path().to_path_buf());
            return Err(Refused::Served { file, root });
        }
        // The digest of a site covers every setting that changes answers, even that of an empty site.
        let choices = Manifest::empty(settings).digest().to_string();
        Ok(Self {
            file: real,
            choices: blake3::hash(choices.as_bytes()),
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.file
    }

    /// The saved manifest of the site in `root`; `None` if there is none.
    ///
    /// # Errors
    /// When it can't be read, or can't be used for this site.
    pub fn load(&self, scanner: &Scanner, root: &Arc<Root>) -> Result<Option<Manifest>, LoadError> {
        let file = match File::open(&self.file) {
            Ok(file) if root.keeps_change_times() => file,
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            // Nothing was saved; or the file system has no change times (ctime), without which equal
            // metadata say nothing.
            _ => return Ok(None),
        };
        let content = map::StateBytes::of(&file)?;
        let known = read(&content, self.origin(root))?;
        Ok(Some(scanner.restore(root, known)))
    }

    /// Saves `manifest`, which is that of the site in `root`, in place of what was saved before.
    ///
    /// # Errors
    /// When it can't be written, or another file than a saved manifest is there;
    /// [`io::ErrorKind::WouldBlock`] where another process is saving at this moment. What was there
    /// before stays.
    pub fn save(&self, manifest: &Manifest, root: &Root) -> io::Result<()> {
        if !root.keeps_change_times() {
            let reason = "the site's file system has no change times to trust";
            return Err(io::Error::other(reason));
        }
        if self.is_foreign()? {
            let reason = "another file is there: remove it, or choose another name";
            return Err(io::Error::other(reason));
        }
        let new = self.create()?;
        let known = manifest
            .iter()
            .map(|resource| SavedFile::of(resource, manifest));
        let written = seam::pass(Call::Write)
            .and_then(|()| write(&new, self.origin(root), known))
            .and_then(|()| sync(&new))
            .and_then(|()| seam::pass(Call::Rename))
            .and_then(|()| fs::rename(self.new_file(), &self.file));
        if written.is_err() {
            // It is still locked, so no other process is using it. The error to return is the first one.
            let _ = seam::pass(Call::Remove).and_then(|()| fs::remove_file(self.new_file()));
            return written;
        }
        // A rename is on disk after a crash only if the directory was synced (fsync(2)).
        let directory = self.file.parent().unwrap_or(Path::new("/"));
        sync(&open_file(directory)?)
    }

    /// Whether another program has written the file: the name may be mistyped.
    fn is_foreign(&self) -> io::Result<bool> {
        let mut beginning = Vec::new();
        match open_file(&self.file) {
            Ok(file) => file.take(MAGIC.len() as u64).read_to_end(&mut beginning)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        Ok(!format::is_own(&beginning))
    }

    fn origin<'a>(&self, root: &'a Root) -> Origin<'a> {
        Origin {
            choices: self.choices,
            file_system: root.file_system(),
            root: root.path(),
        }
    }

    /// The name under which a manifest is written before it replaces the file. It is always the same, so
    /// that processes that are killed leave one file behind, not many.
    fn new_file(&self) -> PathBuf {
        let mut name = self
            .file
            .file_name()
            .map(OsString::from)
            .unwrap_or_default();
        name.push(".new");
        self.file.with_file_name(name)
    }

    /// Creates and locks an empty file to write to: two processes must not write to the same one.
    fn create(&self) -> io::Result<File> {
        loop {
            // O_NONBLOCK: if a FIFO has the name, open(2) would wait for a reader.
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NONBLOCK;
            let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            seam::pass(Call::Make)?;
            let file = File::from(open(self.new_file(), flags, Mode::RUSR | Mode::WUSR)?);
            flock(&file, FlockOperation::NonBlockingLockExclusive)?;
            seam::pass(Call::StampOpen)?;
            let (locked, named) = (file.metadata()?, self.new_file().symlink_metadata());
            let is_same =
                |named: fs::Metadata| (named.dev(), named.ino()) == (locked.dev(), locked.ino());
            // Otherwise another process has renamed it between `open` and `flock`.
            if named.is_ok_and(is_same) {
                file.set_len(0)?;
                return Ok(file);
            }
        }
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    seam::pass(Call::Open)?;
    File::open(path)
}

fn sync(file: &File) -> io::Result<()> {
    seam::pass(Call::Sync)?;
    file.sync_all()
}

/// Why a saved manifest is not used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It can't be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It can't be used for this site.
    #[error("{0}")]
    Unusable(#[from] Unusable),
}

impl LoadError {
    /// Whether it is what an operator brings about: another version, other flags, another site.
    pub fn is_expected(&self) -> bool {
        match self {
            Self::Unusable(Unusable::Version(_) | Unusable::Choices | Unusable::Root(_)) => true,
            Self::Unusable(Unusable::Foreign | Unusable::Damaged) | Self::Io(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, mkfifoat};
    use tempfile::TempDir;

    /// A root `site` in a directory of its own.
    fn place() -> (TempDir, Root) {
        let directory = tempfile::tempdir().expect("a directory");
        let site = directory.path().join("site");
        fs::create_dir(&site).expect("made");
        let root = Root::open(&site).expect("a root");
        (directory, root)
    }

    fn state(file: &Path, root: &Root) -> Result<StateFile, Refused> {
        StateFile::new(file, root, Settings::default())
    }

    fn save(state: &StateFile, root: &Root) -> io::Result<()> {
        state.save(&Manifest::empty(Settings::default()), root)
    }

    #[test]
    fn what_clients_could_ask_for_is_refused() {
        let (directory, root) = place();
        let at = |path: &str| state(&directory.path().join(path), &root);
        fs::create_dir(directory.path().join("site/.cache")).expect("made");
        fs::create_dir(directory.path().join("site/.well-known")).expect("made");
        symlink("site", directory.path().join("link")).expect("linked");
        for path in [
            "site/state",
            "site/missing/state",
            "site/.well-known/state",
            "link/state",
        ] {
            assert!(matches!(at(path), Err(Refused::Served { .. })), "{path}");
        }
        for path in ["state", "site/.state", "site/.cache/state", "missing/state"] {
            assert!(at(path).is_ok(), "{path}");
        }
    }

    #[test]
    fn nothing_but_a_saved_manifest_is_replaced() {
        let (directory, root) = place();
        let own = directory.path().join("notes.txt");
        fs::write(&own, "mine").expect("written");
        let notes = state(&own, &root).expect("a place");
        save(&notes, &root).expect_err("another file is there");
        assert_eq!(fs::read(&own).expect("there"), b"mine");
        for taken in [directory.path(), Path::new("/dev/null")] {
            assert!(matches!(state(taken, &root), Err(Refused::Taken(_))));
        }
        fs::write(&own, "").expect("written");
        save(&notes, &root).expect("an empty file is nobody's");
        // What is damaged at its beginning is etagd's all the same.
        let mut saved = fs::read(&own).expect("there");
        saved[..4].fill(0);
        fs::write(&own, saved).expect("written");
        save(&notes, &root).expect("replaced");
    }

    #[test]
    fn what_cannot_be_saved_leaves_what_was() {
        let (directory, root) = place();
        let file = directory.path().join("state");
        let state = state(&file, &root).expect("a place");
        save(&state, &root).expect("saved");
        let saved = fs::read(&file).expect("there");
        // What a killed process has left, longer than what is written now.
        fs::write(state.new_file(), vec![b'x'; saved.len() + 1]).expect("written");
        save(&state, &root).expect("saved");
        assert_eq!(fs::read(&file).expect("there"), saved);
        assert!(!state.new_file().exists());

        let other = state.create().expect("another process");
        let busy = save(&state, &root).expect_err("locked");
        assert_eq!(busy.kind(), io::ErrorKind::WouldBlock);
        drop(other);
        save(&state, &root).expect("saved");
        fs::remove_dir_all(directory.path()).expect("removed");
        let gone = save(&state, &root).expect_err("nowhere");
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_pipe_in_the_way_is_not_waited_for() {
        let (directory, root) = place();
        let state = state(&directory.path().join("state"), &root).expect("a place");
        let mode = Mode::RUSR | Mode::WUSR;
        mkfifoat(CWD, state.new_file(), mode).expect("made");
        save(&state, &root).expect_err("nobody reads it");
    }

    #[test]
    fn it_is_nobody_elses_to_read() {
        use std::os::unix::fs::PermissionsExt;
        let (directory, root) = place();
        let file = directory.path().join("state");
        save(&state(&file, &root).expect("a place"), &root).expect("saved");
        let mode = fs::metadata(&file).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_link_to_it_stays() {
        let (directory, root) = place();
        let (file, link) = (
            directory.path().join("data"),
            directory.path().join("state"),
        );
        fs::write(&file, "").expect("written");
        symlink("data", &link).expect("linked");
        save(&state(&link, &root).expect("a place"), &root).expect("saved");
        assert!(link.is_symlink());
        assert!(fs::read(&file).expect("there").starts_with(MAGIC));
    }
}

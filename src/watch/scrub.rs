//! `--scrub`: reads every file again, whatever its metadata say, on a thread of its own.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use super::source::{EventKind, Hint};
use crate::beat::Beat;
use crate::disk::Root;
use crate::representation::Resource;
use crate::site::Site;

/// Compares every file with the manifest once in `every`, until nobody listens any more. What
/// differs is only a hint: the watcher looks at it itself.
pub(super) fn scrub(
    site: &Site,
    directory: &Path,
    every: Duration,
    hints: &Sender<Hint>,
    beat: &Beat,
) {
    loop {
        beat.rest();
        thread::sleep(every);
        beat.step();
        let resources: Vec<_> = site.current().iter().cloned().collect();
        let Ok(root) = Root::open(directory) else {
            continue;
        };
        for known in resources {
            let path = root.path().join(OsStr::from_bytes(&known.path));
            beat.step();
            if is_as_known(&root, &path, &known, beat) {
                continue;
            }
            let kind = EventKind::Changed;
            let hint = Hint::Path { path, kind };
            if hints.send(hint).is_err() {
                return;
            }
        }
    }
}

/// Whether a file holds what the manifest says. One that can't be read is for others to tell. Read
/// by this thread alone: the pool is for what is to be published.
fn is_as_known(root: &Root, path: &Path, known: &Resource, beat: &Beat) -> bool {
    // A FIFO may have the name now. To open that would wait for its writer (fifo(7)).
    let opened = path.canonicalize().and_then(|real| {
        let inside = real.strip_prefix(root.path()).unwrap_or(&real);
        root.open_file(inside)
    });
    let Ok(opened) = opened else {
        return true;
    };
    let mut hasher = blake3::Hasher::new();
    let (known, _) = known.of_files();
    // One byte more than expected is enough to see that it is different.
    let content = opened.file.take(known.length.saturating_add(1));
    let content = SteppingReader { content, beat };
    match hasher.update_reader(content) {
        Ok(hasher) => hasher.finalize() == *known.etag.hash(),
        Err(_) => true,
    }
}

/// Notes each read as a step.
struct SteppingReader<'a, R> {
    content: R,
    beat: &'a Beat,
}

impl<R: Read> Read for SteppingReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.beat.step();
        self.content.read(buffer)
    }
}

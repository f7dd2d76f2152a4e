//! Progress bars, on terminals.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::progress::ByteProgress;

/// Shorter work has no bar.
const MIN_WORK_TIME: Duration = Duration::from_millis(500);
const REFRESH_INTERVAL: Duration = Duration::from_millis(100);
/// The template of a bar with a known total.
const BYTES: &str = ": {bar:30} {bytes} of {total_bytes} in {elapsed}";

/// Does some work with a bar that shows how many of its bytes are done.
pub(super) fn with_bytes<T>(what: &str, progress: &ByteProgress, work: impl FnOnce() -> T) -> T {
    let update = |bar: &ProgressBar| show_bytes(bar, progress);
    with_bar(&bytes_template(what), update, work)
}

/// The template of a bar that shows how many bytes are done.
pub(super) fn bytes_template(what: &str) -> String {
    format!("{{spinner}} {what}{BYTES}")
}

/// Has such a bar show how many are done.
pub(super) fn show_bytes(bar: &ProgressBar, progress: &ByteProgress) {
    let total = progress.total();
    bar.set_length(total);
    // Bytes that are sent once more count twice.
    bar.set_position(progress.done().min(total));
}

/// Does some work with a bar of this template that `update` refreshes.
pub(super) fn with_bar<T>(
    template: &str,
    update: impl Fn(&ProgressBar) + Send,
    work: impl FnOnce() -> T,
) -> T {
    thread::scope(|scope| {
        // Dropping the sender at the end of the work ends the bar.
        let (_working, worked) = channel();
        scope.spawn(move || show(template, update, &worked));
        work()
    })
}

fn show(template: &str, update: impl Fn(&ProgressBar), worked: &Receiver<()>) {
    if worked.recv_timeout(MIN_WORK_TIME) != Err(RecvTimeoutError::Timeout) {
        return;
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    while worked.recv_timeout(REFRESH_INTERVAL) == Err(RecvTimeoutError::Timeout) {
        update(&bar);
        bar.tick();
    }
    bar.finish_and_clear();
}

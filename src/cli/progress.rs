//! How far some work has come, for whoever waits at a terminal.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// What is over sooner needs no bar.
const FIRST: Duration = Duration::from_millis(500);
const EACH: Duration = Duration::from_millis(100);
/// The form of a bar that knows its end.
const BYTES: &str = ": {bar:30} {bytes} of {total_bytes} in {elapsed}";

/// Does some work that tells how many bytes are done, and of how many.
pub(super) fn with_bytes<T>(
    what: &str,
    done: impl Fn() -> (u64, u64) + Send,
    work: impl FnOnce() -> T,
) -> T {
    let update = move |bar: &ProgressBar| {
        let (done, total) = done();
        bar.set_length(total);
        bar.set_position(done.min(total));
    };
    with_bar(&format!("{{spinner}} {what}{BYTES}"), update, work)
}

/// Does some work, with a bar of this form that `update` keeps true.
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
    if worked.recv_timeout(FIRST) != Err(RecvTimeoutError::Timeout) {
        return;
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    while worked.recv_timeout(EACH) == Err(RecvTimeoutError::Timeout) {
        update(&bar);
        bar.tick();
    }
    bar.finish_and_clear();
}

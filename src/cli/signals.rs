//! The signals that a server acts on: SIGTERM, SIGQUIT, SIGINT, SIGHUP.

use std::fs::File;
use std::io;
use std::time::Duration;

use rustix::process::Signal as Number;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until};

/// How long after a SIGHUP the terminal may close and still be its cause: a shell that ends
/// (`huponexit`) sends the signal first.
const MAX_HANGUP_DELAY: Duration = Duration::from_secs(2);
/// Pause between two looks at the terminal during that time.
const HANGUP_INTERVAL: Duration = Duration::from_millis(100);

/// What a signal asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum SignalAction {
    /// SIGINT, or the terminal has hung up: finish the requests in flight, and end.
    Stop,
    /// SIGTERM or SIGQUIT: the same, after serving for a while longer as not ready (see `--drain`).
    Drain,
    /// SIGHUP: compare everything with the disk, and read certificate and tokens again.
    Reload,
}

/// The signals that a server acts on.
pub(super) struct Signals {
    terminate: Signal,
    /// nginx's graceful stop, and so the STOPSIGNAL of many images.
    quit: Signal,
    interrupt: Signal,
    hangup: Option<Hangup>,
}

impl Signals {
    /// Replaces the default actions of these signals.
    ///
    /// # Errors
    /// When the system refuses a handler.
    pub(super) fn new() -> io::Result<Self> {
        // Without a handler, writing past `ulimit -f` kills the process (setrlimit(2)); with one,
        // the write fails with EFBIG. The other two end a process as well, and other servers take
        // them for less: reopening logs, replacing the binary.
        for number in [Number::XFSZ, Number::USR1, Number::USR2] {
            let _ = signal(SignalKind::from_raw(number.as_raw()))?;
        }
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            quit: signal(SignalKind::quit())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: Hangup::new()?,
        })
    }

    /// Waits for the next signal.
    pub(super) async fn next(&mut self) -> SignalAction {
        tokio::select! {
            _ = self.terminate.recv() => SignalAction::Drain,
            _ = self.quit.recv() => SignalAction::Drain,
            _ = self.interrupt.recv() => SignalAction::Stop,
            action = Hangup::next(self.hangup.as_mut()) => action,
        }
    }

    /// Waits for a signal that ends the process.
    pub(super) async fn stop(&mut self) {
        while self.next().await == SignalAction::Reload {}
    }

    /// Waits for SIGINT: someone at a terminal does not want to wait any longer. A second SIGTERM is
    /// no hurry, since some supervisors send several.
    pub(super) async fn force(&mut self) {
        self.interrupt.recv().await;
    }
}

/// SIGHUP, which means two things: somebody sent it, or the terminal is gone. Nobody can stop a
/// server whose terminal is gone, and it would keep its port.
struct Hangup {
    signal: Signal,
    /// Whether there was a terminal when the process started.
    had_terminal: bool,
    /// Until when the terminal is looked at, and when to look next.
    watch: Option<(Instant, Instant)>,
}

impl Hangup {
    /// `None` where SIGHUP is ignored: whoever started the process with `nohup` wants it to stay.
    fn new() -> io::Result<Option<Self>> {
        if is_hangup_ignored() {
            return Ok(None);
        }
        Ok(Some(Self {
            signal: signal(SignalKind::hangup())?,
            had_terminal: has_terminal(),
            watch: None,
        }))
    }

    /// Waits for SIGHUP, or for the terminal to close soon after one.
    async fn next(this: Option<&mut Self>) -> SignalAction {
        let Some(this) = this else {
            return std::future::pending().await;
        };
        loop {
            let look = this.watch.map(|(_, next)| next);
            tokio::select! {
                _ = this.signal.recv() => {
                    if this.has_hung_up() {
                        return SignalAction::Stop;
                    }
                    let now = Instant::now();
                    this.watch = this
                        .had_terminal
                        .then_some((now + MAX_HANGUP_DELAY, now + HANGUP_INTERVAL));
                    return SignalAction::Reload;
                }
                () = sleep_until(look.unwrap_or_else(Instant::now)), if look.is_some() => {
                    if this.has_hung_up() {
                        return SignalAction::Stop;
                    }
                    let now = Instant::now();
                    this.watch = this
                        .watch
                        .filter(|(end, _)| now < *end)
                        .map(|(end, _)| (end, now + HANGUP_INTERVAL));
                }
            }
        }
    }

    fn has_hung_up(&self) -> bool {
        self.had_terminal && !has_terminal()
    }
}

/// Whether the process has a controlling terminal. It has none any more once that has hung up
/// (tty(4): opening /dev/tty fails with ENXIO).
fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}

/// Whether SIGHUP was ignored when the process started, which execve(2) keeps. Only Linux says so
/// without a system call that safe code lacks; elsewhere `nohup` is not noticed.
fn is_hangup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    is_ignored(&status, Number::HUP.as_raw())
}

/// Whether a signal is in the `SigIgn` mask of /proc/PID/status (proc_pid_status(5)).
fn is_ignored(status: &str, number: i32) -> bool {
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask >> (number - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_their_mask() {
        for (status, is_hup, is_pipe) in [
            (
                "Name:\tx\nSigIgn:\t0000000000001001\nSigCgt:\t0\n",
                true,
                true,
            ),
            ("SigIgn:\t0000000000001000\n", false, true),
            ("SigIgn:\t0000000000000001\n", true, false),
            ("SigIgn:\tnone\n", false, false),
            ("", false, false),
        ] {
            assert_eq!(is_ignored(status, 1), is_hup, "{status:?}");
            assert_eq!(is_ignored(status, 13), is_pipe, "{status:?}");
        }
    }
}

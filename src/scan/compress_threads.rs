//! The threads that compress while requests are answered.

use std::num::NonZero;
use std::sync::OnceLock;
use std::thread;

use rayon::{ThreadPool, ThreadPoolBuilder};

/// How far the threads that compress a change stand back behind those that answer requests: beside one of
/// these that never rests they get a tenth of a core. With 19 a busy server would hardly ever publish, and
/// under `SCHED_IDLE`, which no thread may leave again, it would take minutes for a megabyte.
///
/// It says how much of a core they get, and not how soon they let go of it: the p99 of requests during a
/// batch was 2.7 times that without at 10, and 4.2 times at 19; a short slice for the threads here does not
/// help either (2.4). What helps is a short slice for the threads that are woken (`server::time_slice`).
const NICENESS: i32 = 10;

/// Threads that are started when they are first needed; `None` where the system has none.
#[derive(Debug, Default)]
pub(super) struct CompressThreads {
    /// For changes that are looked at.
    inline: OnceLock<Option<ThreadPool>>,
    /// For changes that take long: no other change waits for one of them.
    ahead: OnceLock<Option<ThreadPool>>,
}

impl CompressThreads {
    /// Does `work` for a change that others wait for.
    pub(super) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        run_on(self.inline.get_or_init(|| start(cores())), work)
    }

    /// Does `work` that nothing waits for but the change itself: one core is left to everything else.
    pub(super) fn run_ahead<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let threads = || start((cores() - 1).max(1));
        run_on(self.ahead.get_or_init(threads), work)
    }
}

fn run_on<T: Send>(threads: &Option<ThreadPool>, work: impl FnOnce() -> T + Send) -> T {
    match threads {
        Some(threads) => threads.install(work),
        None => work(),
    }
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// Threads that stand back.
fn start(number: usize) -> Option<ThreadPool> {
    ThreadPoolBuilder::new()
        .num_threads(number)
        .thread_name(|number| format!("compress-{number}"))
        .start_handler(|_| {
            // Of the calling thread alone, on Linux (nice(2)). At worst nothing stands back.
            let _ = rustix::process::nice(NICENESS);
        })
        .build()
        .ok()
}

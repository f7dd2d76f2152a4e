//! How the file descriptors of the process are shared out (promise P10).
//!
//! What may be open at once never exceeds RLIMIT_NOFILE. If the limit were reached, the next `open`
//! would fail, and that may be one of the scan of a deploy, not that of the client too many.

/// Descriptors that every process has: standard streams, the inotify instance, signals, the root,
/// the access log, and the event loops of the main and the admin thread.
const FIXED_DESCRIPTORS: usize = 22;
/// Descriptors of a worker's event loop (epoll, eventfd, and the ends that signals wake it by).
const DESCRIPTORS_PER_WORKER: usize = 4;
/// A listening socket, and the spare descriptor with which it rejects when there are no others.
const DESCRIPTORS_PER_LISTENER: usize = 2;
/// Descriptors for whatever opens files or connections now and then: the scan, the watcher, the
/// saved manifest, and the clients of the admin listener.
/// Of the free ones a quarter, within these bounds.
const MIN_RESERVE: usize = 8;
const MAX_RESERVE: usize = 256;
/// Bounds for the rejected connections that may still be open.
const MIN_REJECTED: usize = 4;
const MAX_REJECTED: usize = 256;

/// What a process would like to have open at once.
#[derive(Clone, Copy, Debug)]
pub struct DescriptorDemand {
    /// Threads that answer requests.
    pub workers: usize,
    /// Listening sockets.
    pub listeners: usize,
    /// Uploads at once.
    pub uploads: usize,
    /// Connections at once.
    pub connections: usize,
    /// Large files kept open; `None` for as many as there is room for.
    pub open_files: Option<usize>,
}

/// What it may have open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DescriptorBudget {
    /// Connections at once.
    pub connections: usize,
    /// Large files kept open.
    pub open_files: usize,
}

impl DescriptorBudget {
    /// Shares out `limit` descriptors. Connections come before kept files, which only save an
    /// `open`, but leave a quarter to them; each has one at least.
    pub fn new(limit: usize, demand: &DescriptorDemand) -> Self {
        let fixed = FIXED_DESCRIPTORS
            + DESCRIPTORS_PER_WORKER * demand.workers
            + DESCRIPTORS_PER_LISTENER * demand.listeners;
        let free = limit.saturating_sub(fixed);
        let reserve = (free / 4).clamp(MIN_RESERVE, MAX_RESERVE);
        let uploads = demand.uploads.min(free / 8);
        let shared = free.saturating_sub(reserve + uploads);
        let wanted = demand.open_files.unwrap_or(usize::MAX);
        let for_connections = shared - wanted.min(shared / 4);
        // Nine descriptors let eight be served while one is rejected.
        let rejected = for_connections
            .div_ceil(9)
            .clamp(MIN_REJECTED, MAX_REJECTED);
        let served = for_connections.saturating_sub(rejected);
        let connections = demand.connections.min(served).max(1);
        let open_files = shared.saturating_sub(connections + max_rejected(connections));
        Self {
            connections,
            open_files: wanted.min(open_files).max(1),
        }
    }
}

/// How many rejected connections may be open in addition to this many that are served.
pub fn max_rejected(connections: usize) -> usize {
    connections.div_ceil(8).clamp(MIN_REJECTED, MAX_REJECTED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(limit: usize, connections: usize, open_files: Option<usize>) -> DescriptorBudget {
        let demand = DescriptorDemand {
            workers: 2,
            listeners: 2,
            uploads: 0,
            connections,
            open_files,
        };
        DescriptorBudget::new(limit, &demand)
    }

    #[test]
    fn a_large_limit_clamps_nothing() {
        for limit in [20_000, 524_288, 1 << 20, usize::MAX] {
            assert_eq!(share(limit, 10_000, Some(64)).connections, 10_000);
            assert_eq!(share(limit, 10_000, Some(64)).open_files, 64);
        }
        assert!(share(20_000, 10_000, None).open_files > 5_000);
    }

    #[test]
    fn a_small_limit_is_shared() {
        for (limit, connections, open_files) in [(64, 13, 5), (256, 112, 41), (4096, 2599, 951)] {
            let wanted = DescriptorBudget {
                connections,
                open_files,
            };
            assert_eq!(share(limit, 10_000, None), wanted, "of {limit}");
        }
    }

    #[test]
    fn all_shares_together_are_within_the_limit() {
        for limit in 64..5_000 {
            for (connections, files) in [(1, None), (100, Some(1)), (10_000, Some(10_000))] {
                let budget = share(limit, connections, files);
                let rejected = max_rejected(budget.connections);
                let used = FIXED_DESCRIPTORS
                    + 2 * DESCRIPTORS_PER_WORKER
                    + 2 * DESCRIPTORS_PER_LISTENER
                    + budget.connections
                    + rejected;
                let used = used + budget.open_files + MIN_RESERVE;
                assert!(used <= limit, "{used} of {limit}: {budget:?}");
            }
        }
    }

    #[test]
    fn nothing_is_without_a_share() {
        for limit in 0..48 {
            let budget = share(limit, 10_000, Some(100));
            assert!(budget.connections >= 1 && budget.open_files >= 1, "{limit}");
        }
    }
}

//! Where tests make calls to the file system fail, or let something happen between two of them.
//!
//! It exists in unit tests alone: in other builds [`pass`] is empty. What stands before a call is
//! called on the thread that makes it, so a test runs its work on one thread of its own and disturbs
//! no other test.

/// A kind of call to the file system.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Call {
    /// Open a file or a directory.
    Open,
    /// Ask for the metadata of an open file.
    StampOpen,
    /// Ask for the metadata of a path.
    Stamp,
    /// Read from a file.
    Read,
    /// List a directory, or look at one of its entries.
    List,
    /// Resolve the links of a path.
    Resolve,
    /// Make a file or a directory.
    Make,
    /// Write to a file, or reserve room for it.
    Write,
    /// Rename a file, or exchange two names.
    Rename,
    /// Remove a name.
    Remove,
    /// Make sure that a file or a directory is on the disk.
    Sync,
}

/// Stands before each call.
#[cfg(not(test))]
#[inline(always)]
pub fn pass(_: Call) -> std::io::Result<()> {
    Ok(())
}

/// Stands before each call that fails with a number alone.
///
/// # Errors
/// As the test decides.
#[inline(always)]
pub fn pass_rustix(call: Call) -> rustix::io::Result<()> {
    use rustix::io::Errno;
    pass(call).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

#[cfg(test)]
pub use with_tests::{pass, run};

/// The ways in which a call fails for a while.
#[cfg(test)]
pub const FAULTS: [rustix::io::Errno; 7] = [
    rustix::io::Errno::MFILE,
    rustix::io::Errno::NFILE,
    rustix::io::Errno::NOMEM,
    rustix::io::Errno::IO,
    rustix::io::Errno::INTR,
    rustix::io::Errno::NOSPC,
    rustix::io::Errno::STALE,
];

#[cfg(test)]
mod with_tests {
    use std::cell::RefCell;
    use std::io;

    use super::Call;

    type Gate = Box<dyn FnMut(Call) -> io::Result<()>>;

    thread_local! {
        static GATE: RefCell<Option<Gate>> = const { RefCell::new(None) };
    }

    /// Stands before each call.
    ///
    /// # Errors
    /// As the test decides.
    pub fn pass(call: Call) -> io::Result<()> {
        // It is taken out meanwhile, so that what it does itself passes.
        let Some(mut gate) = GATE.take() else {
            return Ok(());
        };
        let result = gate(call);
        GATE.set(Some(gate));
        result
    }

    /// Does `work` on one thread, on which each call to the file system asks `gate` first.
    pub fn run<T: Send>(
        gate: impl FnMut(Call) -> io::Result<()> + Send + 'static,
        work: impl FnOnce() -> T + Send,
    ) -> T {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1);
        let pool = pool.build().expect("a thread");
        pool.install(|| {
            GATE.set(Some(Box::new(gate)));
            let result = work();
            GATE.set(None);
            result
        })
    }
}

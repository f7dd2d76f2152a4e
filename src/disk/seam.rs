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
    /// Make sure that a file or a directory is on the disk.
    Sync,
}

/// Stands before each call.
#[cfg(not(test))]
#[inline(always)]
pub fn pass(_: Call) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub use with_tests::{pass, run};

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

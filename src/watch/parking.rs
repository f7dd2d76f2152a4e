//! Batches with files that take long to hash or to compress: they are put aside until other threads
//! have done that. Pure: the clock comes in as an argument.

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::batch::Batch;
use crate::scan::Scope;

/// How long a batch keeps all later ones waiting, so that publications keep the order of the changes.
/// Afterwards those that touch none of its paths go ahead.
const MAX_ORDER_WAIT: Duration = Duration::from_secs(2);
/// How often to look whether a batch still has to wait for another one.
const RECHECK_INTERVAL: Duration = Duration::from_millis(250);

/// Says that a batch is still parked, to those who work for it.
#[derive(Debug)]
pub(super) struct ParkingToken(#[expect(dead_code, reason = "it is there or not")] Arc<()>);

impl ParkingToken {
    /// A token, and whether it is still there.
    pub(super) fn new() -> (Self, impl Fn() -> bool + Send + Sync + 'static) {
        let token = Arc::new(());
        let weak: Weak<()> = Arc::downgrade(&token);
        (Self(token), move || weak.strong_count() > 0)
    }
}

/// A batch whose large files are being hashed, or compressed.
#[derive(Debug)]
pub(super) struct ParkedBatch {
    pub(super) batch: Batch,
    /// For those who do it.
    pub(super) _token: ParkingToken,
    /// Since when it has waited for that, or for the first of several times.
    pub(super) since: Instant,
    /// One of them, for the message.
    pub(super) file: PathBuf,
    /// The paths of the site that the batch is about.
    pub(super) touched: Scope,
    /// Those of them that lead elsewhere now: no write can be made there.
    pub(super) moved: Scope,
    /// Whether all is done.
    pub(super) is_ready: bool,
    /// Whether a later batch was let pass.
    pub(super) is_overtaken: bool,
}

impl ParkedBatch {
    fn touches(&self, other: &Scope) -> bool {
        match (&self.touched, other) {
            (Scope::Paths(own), Scope::Paths(others)) => {
                others.iter().any(|path| self.touched.covers(path))
                    || own.iter().any(|path| other.covers(path))
            }
            _ => true,
        }
    }
}

/// The batches that are parked, in their order.
#[derive(Debug, Default)]
pub(super) struct Parking(Vec<ParkedBatch>);

impl Parking {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn push(&mut self, parked: ParkedBatch) {
        self.0.push(parked);
    }

    /// Forgets all of them: everything is looked at.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether a batch that touches this may be looked at before the parked ones are published.
    ///
    /// # Errors
    /// When to ask again.
    pub(super) fn may_overtake(&mut self, touched: &Scope, now: Instant) -> Result<(), Instant> {
        for parked in &self.0 {
            let end = parked.since + MAX_ORDER_WAIT;
            if now < end {
                return Err(end);
            }
            if parked.touches(touched) {
                return Err(now + RECHECK_INTERVAL);
            }
        }
        for parked in &mut self.0 {
            if !std::mem::replace(&mut parked.is_overtaken, true) {
                let file = parked.file.display();
                tracing::info!(
                    path = %file,
                    "publishing later changes while {file} is hashed or compressed; to have all of \
                     them published together, keep .etagd-hold in the root meanwhile"
                );
            }
        }
        Ok(())
    }

    /// Whether a file of the site is in a batch that is parked.
    pub(super) fn covers(&self, path: &[u8]) -> bool {
        self.0.iter().any(|parked| parked.touched.covers(path))
    }

    /// Whether a path of the site may be about to name something else.
    pub(super) fn is_moved(&self, path: &[u8]) -> bool {
        self.0.iter().any(|parked| parked.moved.covers(path))
    }

    /// Notes that all is done for a batch.
    pub(super) fn set_ready(&mut self, id: u64) {
        for parked in self.0.iter_mut().filter(|parked| parked.batch.id == id) {
            parked.is_ready = true;
        }
    }

    /// Takes out the first batch that can be looked at again.
    pub(super) fn take_ready(&mut self) -> Option<Batch> {
        let first = self.0.iter().position(|parked| parked.is_ready)?;
        Some(self.0.remove(first).batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(paths: &[&str]) -> Scope {
        Scope::Paths(paths.iter().map(|path| path.as_bytes().into()).collect())
    }

    fn parked(id: u64, touched: Scope, since: Instant) -> ParkedBatch {
        ParkedBatch {
            batch: Batch::new(id, MAX_ORDER_WAIT),
            _token: ParkingToken::new().0,
            since,
            file: "/site/large".into(),
            touched,
            moved: paths(&[]),
            is_ready: false,
            is_overtaken: false,
        }
    }

    #[test]
    fn only_what_touches_none_of_its_paths_overtakes_a_batch_and_not_at_once() {
        let start = Instant::now();
        let late = start + MAX_ORDER_WAIT;
        let all = Scope::Everything;
        for (of_parked, of_other, may) in [
            (paths(&["large"]), paths(&["a"]), true),
            (paths(&["large"]), paths(&["a", "large"]), false),
            (paths(&["dir"]), paths(&["dir/a"]), false),
            (paths(&["dir/large"]), paths(&["dir"]), false),
            (paths(&["dir/large"]), paths(&["dir/a"]), true),
            (paths(&["large"]), all.clone(), false),
            (all, paths(&["a"]), false),
        ] {
            let mut parking = Parking::default();
            assert_eq!(parking.may_overtake(&of_other, start), Ok(()));
            parking.push(parked(1, of_parked.clone(), start));
            assert_eq!(parking.may_overtake(&of_other, start), Err(late));
            let result = parking.may_overtake(&of_other, late);
            assert_eq!(result.is_ok(), may, "{of_parked:?} {of_other:?}");
            assert_eq!(parking.0[0].is_overtaken, may);
        }
    }

    #[test]
    fn a_batch_that_is_hashed_is_taken_out_once() {
        let mut parking = Parking::default();
        for id in [1, 2] {
            parking.push(parked(id, paths(&["large"]), Instant::now()));
        }
        assert!(parking.take_ready().is_none());
        parking.set_ready(2);
        parking.set_ready(3);
        assert_eq!(parking.take_ready().map(|batch| batch.id), Some(2));
        assert!(parking.take_ready().is_none() && !parking.is_empty());
    }
}

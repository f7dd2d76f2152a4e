//! Content of files on its way to a client, with what must live as long as it does.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use crate::body::{BodyError, Segments};
use crate::metrics::Metrics;
use crate::site::Site;

/// Content of files whose first piece is proven; the others are when they are sent.
pub struct FileContent {
    segments: Segments,
    reporter: SuspectReporter,
    /// One client over one connection must not take all the memory there is: held until the last
    /// piece has gone.
    _admitted: Option<OwnedSemaphorePermit>,
}

impl FileContent {
    pub(super) fn new(
        segments: Segments,
        reporter: SuspectReporter,
        admitted: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self {
            segments,
            reporter,
            _admitted: admitted,
        }
    }

    /// Bytes still to come.
    pub(super) fn length(&self) -> u64 {
        self.segments.length()
    }

    /// The next piece. After an error nothing more may be sent: the body is cut short of its length.
    pub(super) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, BodyError>>> {
        let reporter = &self.reporter;
        let next = self.segments.poll_next(cx);
        next.map_err(|error| {
            reporter.report(&error);
            error
        })
    }
}

/// Has files looked at again that are not what the manifest says.
#[derive(Clone, Debug)]
pub(super) struct SuspectReporter {
    pub(super) site: Arc<Site>,
    pub(super) metrics: Arc<Metrics>,
}

impl SuspectReporter {
    /// Reports the file that could not be sent, if it is the file's fault.
    pub(super) fn report(&self, error: &BodyError) {
        if error.is_suspicious() {
            self.metrics.unproven.increment();
            self.site.suspect(error.path());
        }
    }
}

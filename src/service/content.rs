//! Content of files on its way to a client, with what must live as long as it does.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use crate::body::{BodyError, Segments};
use crate::metrics::Metrics;
use crate::site::Site;

/// Content of files. Its first piece is proven; each of the others is proven before it is sent.
pub struct FileContent {
    segments: Segments,
    reporter: SuspectReporter,
    /// Held until the last piece is sent: one client over one connection must not pin all the memory
    /// there is for content.
    _read_permit: Option<OwnedSemaphorePermit>,
}

impl FileContent {
    pub(super) fn new(
        segments: Segments,
        reporter: SuspectReporter,
        read_permit: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self {
            segments,
            reporter,
            _read_permit: read_permit,
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

/// Reports content that is not what the manifest says: files, so that the watcher looks at them.
#[derive(Clone, Debug)]
pub(super) struct SuspectReporter {
    pub(super) site: Arc<Site>,
    pub(super) metrics: Arc<Metrics>,
}

impl SuspectReporter {
    /// Reports the file that could not be sent, unless that has another cause, such as too little memory.
    pub(super) fn report(&self, error: &BodyError) {
        if error.is_suspicious() {
            self.metrics.unproven.increment();
            self.site.report_suspect(error.path());
        } else if error.is_damage() {
            self.metrics.unproven.increment();
        }
    }
}

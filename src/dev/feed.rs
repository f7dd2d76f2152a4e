//! The news of a site, as server-sent events (HTML section 9.2): `state` with the digest when a
//! stream begins, `change` for each publication that pages can see.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt::Write;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, sleep_until};

use super::changes::{Changed, Gone};
use crate::manifest::{Manifest, SiteDigest};
use crate::site::Site;

/// For so long a page that was loading meanwhile can still hear of a change.
const MEMORY: Duration = Duration::from_secs(10);
/// A stream that says nothing else says that it is there: a limit on silent connections, or a
/// client that is gone, would go unnoticed.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// After this a browser tries to connect again, in milliseconds.
const RETRY: u32 = 300;

/// The news of a site.
#[derive(Debug)]
pub struct Feed {
    site: Arc<Site>,
    first: Arc<Manifest>,
    told: Mutex<Told>,
    /// The number of the newest event.
    news: watch::Sender<u64>,
    is_over: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Told {
    last: u64,
    recent: VecDeque<Event>,
}

#[derive(Debug)]
struct Event {
    number: u64,
    at: Instant,
    digest: SiteDigest,
    changed: Vec<String>,
}

/// What pages are told of a change.
#[derive(Serialize)]
struct Change<'a> {
    digest: String,
    /// Paths of URLs, or `*` for all.
    changed: &'a [String],
    /// Since the publication, in milliseconds.
    age: u128,
}

impl Feed {
    /// The news from the present state on.
    pub fn new(site: Arc<Site>) -> Self {
        Self {
            first: Arc::clone(&site.current()),
            site,
            told: Mutex::default(),
            news: watch::Sender::new(0),
            is_over: watch::Sender::new(false),
        }
    }

    /// Follows the publications; `tell` hears of those that pages hear of. Never ends.
    pub async fn follow(&self, tell: impl Fn(&Changed)) -> Infallible {
        let mut publications = self.site.subscribe();
        // What was published before this has to be told as well.
        publications.mark_changed();
        let mut last = Arc::clone(&self.first);
        let mut gone = Gone::default();
        loop {
            let due = async {
                match gone.due() {
                    Some(due) => sleep_until(due.into()).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                changed = publications.changed() => if changed.is_err() {
                    return pending().await;
                },
                () = due => {}
            }
            let now = Instant::now();
            let current = Arc::clone(&self.site.current());
            let changed = gone.changes(&last, &current, now);
            if changed != Changed::default() {
                tell(&changed);
                self.tell(current.digest(), changed.names, now);
            }
            last = current;
        }
    }

    fn tell(&self, digest: SiteDigest, changed: Vec<String>, now: Instant) {
        let mut told = self.told();
        told.last += 1;
        let number = told.last;
        let is_old = |event: &Event| now.duration_since(event.at) > MEMORY;
        while told.recent.front().is_some_and(is_old) {
            told.recent.pop_front();
        }
        told.recent.push_back(Event {
            number,
            at: now,
            digest,
            changed,
        });
        drop(told);
        self.news.send_replace(number);
    }

    /// A stream, which a task of the present runtime fills. `last` is the number of the last event
    /// that its reader has had.
    pub(super) fn stream(self: &Arc<Self>, last: Option<u64>) -> mpsc::Receiver<Bytes> {
        let (sender, receiver) = mpsc::channel(4);
        let feed = Arc::clone(self);
        tokio::spawn(async move { feed.pour(last.unwrap_or(0), &sender).await });
        receiver
    }

    async fn pour(&self, mut last: u64, into: &mpsc::Sender<Bytes>) {
        let (mut news, mut is_over) = (self.news.subscribe(), self.is_over.subscribe());
        // A number of another process means nothing.
        if last > *news.borrow_and_update() {
            last = 0;
        }
        let digest = self.site.current().digest();
        let mut text =
            format!("retry: {RETRY}\nevent: state\ndata: {{\"digest\":\"{digest}\"}}\n\n");
        loop {
            self.write_since(&mut last, &mut text);
            let text = std::mem::take(&mut text);
            if !text.is_empty() && into.send(text.into()).await.is_err() {
                return;
            }
            tokio::select! {
                _ = news.changed() => {}
                () = over(&mut is_over) => return,
                () = into.closed() => return,
                () = sleep(HEARTBEAT) => if into.send(Bytes::from_static(b":\n\n")).await.is_err() {
                    return;
                },
            }
        }
    }

    fn write_since(&self, last: &mut u64, text: &mut String) {
        let told = self.told();
        for event in told.recent.iter().filter(|event| event.number > *last) {
            let change = Change {
                digest: event.digest.to_string(),
                changed: &event.changed,
                age: event.at.elapsed().as_millis(),
            };
            // Strings and numbers always have a form in JSON, on one line.
            let change = serde_json::to_string(&change).unwrap_or_default();
            let number = event.number;
            let _ = write!(text, "id: {number}\nevent: change\ndata: {change}\n\n");
        }
        *last = told.last;
    }

    /// Ends all streams.
    pub(super) fn end(&self) {
        self.is_over.send_replace(true);
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for the end.
async fn over(is_over: &mut watch::Receiver<bool>) {
    // Nobody can end what nobody holds any more: that is an end too.
    let _ = is_over.wait_for(|is_over| *is_over).await;
}

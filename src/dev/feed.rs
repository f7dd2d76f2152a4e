//! The changes of a site, as server-sent events (HTML section 9.2): `change` for each publication
//! that pages can see, and `state` at the beginning of a stream whose reader has not said which
//! state it knows. Their ids are digests of the site, which mean the same after a restart.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt::Write;
use std::future::pending;
use std::process;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, sleep_until};

use super::changes::{Changed, Gone};
use crate::manifest::{Manifest, SiteDigest};
use crate::site::Site;

/// How long an event is kept for pages that were still loading, or reconnecting, when it came.
const MAX_EVENT_AGE: Duration = Duration::from_secs(10);
/// How often a comment is sent where nothing else is: it keeps middleboxes from closing a silent
/// connection, and is how a client that has gone is noticed.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);
/// How long a browser waits before it connects again, in milliseconds.
const RECONNECT_DELAY: u32 = 300;

/// The changes of a site, sent to every page that listens.
#[derive(Debug)]
pub struct Feed {
    site: Arc<Site>,
    first: Arc<Manifest>,
    /// Tells this process from one before it.
    run: String,
    history: Mutex<History>,
    /// The number of the newest event.
    newest: watch::Sender<u64>,
    is_ended: watch::Sender<bool>,
}

#[derive(Debug)]
struct History {
    /// The number of the newest event.
    last: u64,
    /// The state that the oldest of `recent` changed.
    before: SiteDigest,
    recent: VecDeque<PublishedEvent>,
}

#[derive(Debug)]
struct PublishedEvent {
    number: u64,
    at: Instant,
    digest: SiteDigest,
    changed: Vec<String>,
}

/// A `change` event as JSON.
#[derive(Serialize)]
struct ChangeData<'a> {
    digest: &'a str,
    /// This process and the number of its event: by these a page knows which events it has been
    /// reloaded for.
    run: &'a str,
    number: u64,
    /// Paths of URLs, or `*` for all.
    changed: &'a [String],
    /// Since the publication, in milliseconds.
    age: u128,
}

impl Feed {
    /// A feed that begins with the present state of `site`.
    pub fn new(site: Arc<Site>) -> Self {
        let first = Arc::clone(&site.current());
        let history = History {
            last: 0,
            before: first.digest(),
            recent: VecDeque::new(),
        };
        Self {
            first,
            site,
            run: run_id(),
            history: Mutex::new(history),
            newest: watch::Sender::new(0),
            is_ended: watch::Sender::new(false),
        }
    }

    /// Follows the publications and calls `on_change` with each that pages are sent. Never ends.
    pub async fn follow(&self, on_change: impl Fn(&Changed)) -> Infallible {
        let mut publications = self.site.subscribe();
        // What was published since the feed was made counts as well.
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
                on_change(&changed);
                self.publish(current.digest(), changed.names, now);
            }
            last = current;
        }
    }

    fn publish(&self, digest: SiteDigest, changed: Vec<String>, now: Instant) {
        let mut history = self.history();
        history.last += 1;
        let number = history.last;
        while let Some(oldest) = history.recent.front()
            && now.duration_since(oldest.at) > MAX_EVENT_AGE
        {
            history.before = oldest.digest;
            history.recent.pop_front();
        }
        history.recent.push_back(PublishedEvent {
            number,
            at: now,
            digest,
            changed,
        });
        drop(history);
        self.newest.send_replace(number);
    }

    /// A stream of events, which a task of the present runtime fills. `last` is the id of the last
    /// event that its reader has had, if any.
    pub(super) fn stream(self: &Arc<Self>, last: Option<&str>) -> mpsc::Receiver<Bytes> {
        let (sender, receiver) = mpsc::channel(4);
        let feed = Arc::clone(self);
        let last = last.map(str::to_owned);
        tokio::spawn(async move { feed.write_events(last.as_deref(), &sender).await });
        receiver
    }

    async fn write_events(&self, id: Option<&str>, into: &mpsc::Sender<Bytes>) {
        let (mut newest, mut is_ended) = (self.newest.subscribe(), self.is_ended.subscribe());
        let mut text = format!("retry: {RECONNECT_DELAY}\n\n");
        let mut last = match id.map(|id| self.history().number(id)) {
            Some(Some(number)) => number,
            unknown => {
                let digest = self.site.current().digest();
                let data = format!("{{\"digest\":\"{digest}\"}}");
                let _ = write!(text, "id: {digest}\nevent: state\ndata: {data}\n\n");
                // A page that names an unknown state starts over with this one. A new page may have
                // been loading while the recent events came, so it gets those.
                unknown.map_or(0, |_| self.history().last)
            }
        };
        loop {
            self.write_since(&mut last, &mut text);
            let text = std::mem::take(&mut text);
            if !text.is_empty() && into.send(text.into()).await.is_err() {
                return;
            }
            tokio::select! {
                _ = newest.changed() => {}
                () = wait_for_end(&mut is_ended) => return,
                () = into.closed() => return,
                () = sleep(HEARTBEAT_INTERVAL) => if into.send(Bytes::from_static(b":\n\n")).await.is_err() {
                    return;
                },
            }
        }
    }

    fn write_since(&self, last: &mut u64, text: &mut String) {
        let history = self.history();
        for event in history.recent.iter().filter(|event| event.number > *last) {
            let digest = event.digest.to_string();
            let change = ChangeData {
                digest: &digest,
                run: &self.run,
                number: event.number,
                changed: &event.changed,
                age: event.at.elapsed().as_millis(),
            };
            // Strings and numbers can always be written as JSON, on one line.
            let change = serde_json::to_string(&change).unwrap_or_default();
            let _ = write!(text, "id: {digest}\nevent: change\ndata: {change}\n\n");
        }
        *last = history.last;
    }

    /// Ends all streams.
    pub(super) fn end(&self) {
        self.is_ended.send_replace(true);
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl History {
    /// The number of the event that led to the state with this digest, if later ones are all known.
    fn number(&self, digest: &str) -> Option<u64> {
        // The latest of them: a site may come back to a state that it had before.
        let event = self
            .recent
            .iter()
            .rev()
            .find(|event| event.digest.to_string() == digest);
        match event {
            Some(event) => Some(event.number),
            None if self.before.to_string() == digest => Some(self.last - self.recent.len() as u64),
            None => None,
        }
    }
}

/// An id that no other process has had: when it began, and its process id.
fn run_id() -> String {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    format!(
        "{}-{}",
        since_epoch.unwrap_or_default().as_millis(),
        process::id()
    )
}

/// Waits for the end of the feed.
async fn wait_for_end(is_ended: &mut watch::Receiver<bool>) {
    // An error says that the feed has been dropped: that is an end, too.
    let _ = is_ended.wait_for(|is_ended| *is_ended).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn site(not_found: crate::settings::NotFound) -> Manifest {
        Manifest::empty(Settings {
            not_found,
            ..Settings::default()
        })
    }

    async fn first_text(feed: &Arc<Feed>, id: Option<&str>) -> String {
        let text = feed.stream(id).recv().await.expect("a beginning");
        String::from_utf8_lossy(&text).into_owned()
    }

    #[tokio::test]
    async fn a_page_that_reconnects_gets_what_it_has_missed_and_no_more() {
        use crate::settings::NotFound::{None as Plain, Page, SinglePageApplication};
        let [first, second, third] = [Page, Plain, SinglePageApplication].map(site);
        let [one, two, three] = [&first, &second, &third].map(Manifest::digest);
        let feed = Arc::new(Feed::new(Arc::new(Site::new(first))));
        let start = Instant::now();
        feed.publish(two, vec!["/two".to_owned()], start);
        feed.publish(three, vec!["/three".to_owned()], start);
        let [one, two, three] = [one, two, three].map(|digest| digest.to_string());
        for (id, has_state, missed) in [
            (None, true, ["/two", "/three"].as_slice()),
            (Some(&*one), false, &["/two", "/three"]),
            (Some(&two), false, &["/three"]),
            (Some(&three), false, &[]),
            (Some("of another site"), true, &[]),
        ] {
            let text = first_text(&feed, id).await;
            assert_eq!(text.contains("event: state"), has_state, "{text}");
            let changes = text.matches("event: change").count();
            assert_eq!(changes, missed.len(), "{text}");
            assert!(missed.iter().all(|path| text.contains(path)), "{text}");
        }
        // Events that are too old are not sent.
        feed.publish(site(Page).digest(), Vec::new(), start + 2 * MAX_EVENT_AGE);
        let text = first_text(&feed, Some(&two)).await;
        assert!(text.contains("event: state"), "{text}");
        assert!(
            !first_text(&feed, Some(&three))
                .await
                .contains("event: state")
        );
    }
}

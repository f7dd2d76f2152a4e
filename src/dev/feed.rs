//! The news of a site, as server-sent events (HTML section 9.2): `change` for each publication that
//! pages can see, and `state` when a stream begins whose reader is not known to be at one of them.
//! Their ids are digests of the site, which mean the same after a restart.

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
    /// Tells this feed from one before it.
    run: String,
    told: Mutex<Told>,
    /// The number of the newest event.
    news: watch::Sender<u64>,
    is_over: watch::Sender<bool>,
}

#[derive(Debug)]
struct Told {
    last: u64,
    /// The state that the oldest of `recent` changed.
    before: SiteDigest,
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
    digest: &'a str,
    /// This server, and its events one by one: by this a page knows what it was reloaded for.
    run: &'a str,
    number: u64,
    /// Paths of URLs, or `*` for all.
    changed: &'a [String],
    /// Since the publication, in milliseconds.
    age: u128,
}

impl Feed {
    /// The news from the present state on.
    pub fn new(site: Arc<Site>) -> Self {
        let first = Arc::clone(&site.current());
        let told = Told {
            last: 0,
            before: first.digest(),
            recent: VecDeque::new(),
        };
        Self {
            first,
            site,
            run: run(),
            told: Mutex::new(told),
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
            if let Some(old) = told.recent.pop_front() {
                told.before = old.digest;
            }
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

    /// A stream, which a task of the present runtime fills. `last` is the id of the last event that
    /// its reader has had, if any.
    pub(super) fn stream(self: &Arc<Self>, last: Option<&str>) -> mpsc::Receiver<Bytes> {
        let (sender, receiver) = mpsc::channel(4);
        let feed = Arc::clone(self);
        let last = last.map(str::to_owned);
        tokio::spawn(async move { feed.pour(last.as_deref(), &sender).await });
        receiver
    }

    async fn pour(&self, id: Option<&str>, into: &mpsc::Sender<Bytes>) {
        let (mut news, mut is_over) = (self.news.subscribe(), self.is_over.subscribe());
        let mut text = format!("retry: {RETRY}\n\n");
        let mut last = match id.map(|id| self.told().number(id)) {
            Some(Some(number)) => number,
            unknown => {
                let digest = self.site.current().digest();
                let data = format!("{{\"digest\":\"{digest}\"}}");
                let _ = write!(text, "id: {digest}\nevent: state\ndata: {data}\n\n");
                // Who was somewhere else has to begin anew; who begins may have been loading.
                unknown.map_or(0, |_| self.told().last)
            }
        };
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
            let digest = event.digest.to_string();
            let change = Change {
                digest: &digest,
                run: &self.run,
                number: event.number,
                changed: &event.changed,
                age: event.at.elapsed().as_millis(),
            };
            // Strings and numbers always have a form in JSON, on one line.
            let change = serde_json::to_string(&change).unwrap_or_default();
            let _ = write!(text, "id: {digest}\nevent: change\ndata: {change}\n\n");
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

impl Told {
    /// The number of the event that led to the state with this digest, if later ones are all known.
    fn number(&self, digest: &str) -> Option<u64> {
        let mut latest = self.recent.iter().rev();
        let event = latest.find(|event| event.digest.to_string() == digest);
        let is_before = || self.before.to_string() == digest;
        event
            .map(|event| event.number)
            .or_else(|| is_before().then(|| self.last - self.recent.len() as u64))
    }
}

/// What no other server has been called: when it began, and its number among processes.
fn run() -> String {
    let began = SystemTime::now().duration_since(UNIX_EPOCH);
    format!(
        "{}-{}",
        began.unwrap_or_default().as_millis(),
        process::id()
    )
}

/// Waits for the end.
async fn over(is_over: &mut watch::Receiver<bool>) {
    // Nobody can end what nobody holds any more: that is an end too.
    let _ = is_over.wait_for(|is_over| *is_over).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    fn site(not_found: crate::config::NotFound) -> Manifest {
        Manifest::empty(Settings {
            not_found,
            ..Settings::default()
        })
    }

    async fn told(feed: &Arc<Feed>, id: Option<&str>) -> String {
        let said = feed.stream(id).recv().await.expect("a beginning");
        String::from_utf8_lossy(&said).into_owned()
    }

    #[tokio::test]
    async fn who_comes_back_hears_what_was_missed_and_no_more() {
        use crate::config::NotFound::{None as Plain, Page, SinglePageApplication};
        let [first, second, third] = [Page, Plain, SinglePageApplication].map(site);
        let [one, two, three] = [&first, &second, &third].map(Manifest::digest);
        let feed = Arc::new(Feed::new(Arc::new(Site::new(first))));
        let start = Instant::now();
        feed.tell(two, vec!["/two".to_owned()], start);
        feed.tell(three, vec!["/three".to_owned()], start);
        let [one, two, three] = [one, two, three].map(|digest| digest.to_string());
        for (id, has_state, missed) in [
            (None, true, ["/two", "/three"].as_slice()),
            (Some(&*one), false, &["/two", "/three"]),
            (Some(&two), false, &["/three"]),
            (Some(&three), false, &[]),
            (Some("of another site"), true, &[]),
        ] {
            let text = told(&feed, id).await;
            assert_eq!(text.contains("event: state"), has_state, "{text}");
            let told = text.matches("event: change").count();
            assert_eq!(told, missed.len(), "{text}");
            assert!(missed.iter().all(|path| text.contains(path)), "{text}");
        }
        // What is forgotten can't be told.
        feed.tell(site(Page).digest(), Vec::new(), start + 2 * MEMORY);
        let text = told(&feed, Some(&two)).await;
        assert!(text.contains("event: state"), "{text}");
        assert!(!told(&feed, Some(&three)).await.contains("event: state"));
    }
}

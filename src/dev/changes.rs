//! Which URLs are answered differently by two states of a site: pure, the clock comes in as an
//! argument.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::inventory::Difference;
use crate::manifest::Manifest;
use crate::representation::Resource;
use crate::settings::NotFound;

/// How long a file must be gone before pages are told: a build may be about to write it again.
const MIN_GONE_TIME: Duration = Duration::from_secs(1);
/// How often to check whether a file that is gone is still answered, as `--keep-old` does.
const RECHECK_INTERVAL: Duration = Duration::from_millis(50);
/// How many changed files are named one by one; beyond that, every page is told to reload.
const MAX_NAMED_FILES: usize = 10_000;
/// The name that stands for every page, whatever it has asked for.
const EVERY_PAGE: &str = "*";

/// Files and URLs that have changed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changed {
    /// Files of the site.
    pub files: Vec<Box<[u8]>>,
    /// Paths of URLs that are answered differently, or `*` for all.
    pub names: Vec<String>,
}

/// Files that are gone and that no page has been told of, and what waits for them.
#[derive(Debug, Default)]
pub(super) struct Gone {
    files: HashMap<Box<[u8]>, GoneFile>,
    /// Files that have changed while a page was gone. A build that writes style sheets before pages
    /// would otherwise have a page reload twice, and the first time without its content.
    held: BTreeSet<Box<[u8]>>,
    /// The hash of the rules that pages know.
    rules: Option<[u8; 32]>,
}

#[derive(Debug)]
struct GoneFile {
    tag: IdentityTag,
    /// When it was first missing.
    since: Instant,
    /// When to look at it again.
    due: Instant,
}

/// The tag of a file itself, without any coding.
type IdentityTag = ([u8; 32], Option<[u8; 4]>);

fn identity_tag(resource: &Resource) -> IdentityTag {
    let tag = &resource.identity.etag;
    (*tag.hash(), tag.fields())
}

impl Gone {
    /// When to look again, if anything is gone.
    pub(super) fn due(&self) -> Option<Instant> {
        self.files.values().map(|gone| gone.due).min()
    }

    /// What is answered differently in the new state than in the old one, and is not held back.
    pub(super) fn changes(&mut self, old: &Manifest, new: &Manifest, now: Instant) -> Changed {
        self.collect(old, new, now);
        let is_page_awaited = self.files.iter().any(|(path, gone)| {
            let is_page = path.ends_with(b".html") || path.ends_with(b".htm");
            is_page && now < gone.since + MIN_GONE_TIME
        });
        if is_page_awaited {
            return Changed::default();
        }
        let changed = std::mem::take(&mut self.held);
        let rules_before = self.rules.take();
        let mut names = BTreeSet::new();
        if rules_before != Some(new.rules().hash()) || changed.len() > MAX_NAMED_FILES {
            names.insert(EVERY_PAGE.to_owned());
        } else {
            for path in &changed {
                add_names(new, path, &mut names);
            }
        }
        Changed {
            files: changed.into_iter().collect(),
            names: names.into_iter().collect(),
        }
    }

    /// Adds what has changed to what is held.
    fn collect(&mut self, old: &Manifest, new: &Manifest, now: Instant) {
        self.rules.get_or_insert_with(|| old.rules().hash());
        for Difference { path, .. } in old.diff(new) {
            match (old.locate(&path), new.locate(&path)) {
                (Some(was), None) => {
                    let gone = GoneFile {
                        tag: identity_tag(was),
                        since: now,
                        due: now + MIN_GONE_TIME,
                    };
                    self.files.insert(path, gone);
                }
                // Different codings or Cache-Control only: a page shows the same.
                (Some(was), Some(is)) if identity_tag(was) == identity_tag(is) => {}
                (_, Some(is)) => match self.files.remove(&*path) {
                    Some(gone) if gone.tag == identity_tag(is) => {}
                    _ => {
                        self.held.insert(path);
                    }
                },
                (None, None) => {}
            }
        }
        let gone_for_good = self.files.extract_if(|path, gone| {
            if gone.due > now {
                return false;
            }
            gone.due = now + RECHECK_INTERVAL;
            new.locate_retired(path).is_none()
        });
        self.held.extend(gone_for_good.map(|(path, _)| path));
    }
}

/// Adds all URLs under which a file is answered, and those of listings that name it.
fn add_names(site: &Manifest, path: &[u8], names: &mut BTreeSet<String>) {
    let base_path = &site.settings().base_path;
    let mut add = |path: &[u8], slash| names.insert(base_path.url(path) + slash);
    add(path, "");
    let directory = path.strip_suffix(b"index.html");
    if let Some(directory) = directory.filter(|it| it.is_empty() || it.ends_with(b"/")) {
        add(directory, "");
        add(directory.strip_suffix(b"/").unwrap_or(directory), "");
    } else if let Some(stem) = path.strip_suffix(b".html") {
        add(stem, "");
        add(stem, "/");
    }
    if site.settings().lists() {
        let slashes = (0..path.len()).filter(|&at| path[at] == b'/');
        for directory in slashes.map(|slash| &path[..=slash]).chain([&path[..0]]) {
            if site.locate(&[directory, b"index.html"].concat()).is_none() {
                add(directory, "");
            }
        }
    }
    // It may be answered at URLs that are not derived from its path.
    let settings = site.settings();
    let is_application = settings.not_found == NotFound::SinglePageApplication;
    let is_rewritten = path.ends_with(b".html") && !site.rules().redirects.is_empty();
    if is_rewritten || (is_application && path == b"index.html") {
        names.insert(EVERY_PAGE.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::HeaderValue;

    use super::*;
    use crate::manifest::Changes;
    use crate::representation::{Data, Fields, REVALIDATE, Representation};
    use crate::semantics::coding::Coding;
    use crate::semantics::etag::ETag;
    use crate::settings::Settings;

    fn site(files: &[(&str, &str)]) -> Manifest {
        let fields = Fields::new(HeaderValue::from_static("text/html"), REVALIDATE);
        let fields = Arc::new(fields);
        let resource = |(path, body): &(&str, &str)| {
            let etag = ETag::new(*blake3::hash(body.as_bytes()).as_bytes());
            let data = Data::Memory((*body).to_owned().into());
            let length = body.len() as u64;
            let identity = Representation::new(Coding::Identity, etag, length, data);
            let path = path.as_bytes().into();
            Arc::new(Resource::new(path, Arc::clone(&fields), identity))
        };
        Manifest::empty(Settings::default()).with(Changes {
            changed: files.iter().map(resource).collect(),
            ..Changes::default()
        })
    }

    #[test]
    fn a_change_is_reported_under_all_its_names() {
        let old = site(&[("a", "1"), ("b", "1"), ("x/index.html", "1")]);
        let new = site(&[
            ("a", "1"),
            ("b", "2"),
            ("x/index.html", "2"),
            ("c d.html", ""),
        ]);
        let changed = Gone::default().changes(&old, &new, Instant::now()).names;
        let expected = [
            "/b",
            "/c%20d",
            "/c%20d.html",
            "/c%20d/",
            "/x",
            "/x/",
            "/x/index.html",
        ];
        assert_eq!(changed, expected);
        let first = site(&[("index.html", "")]);
        let changed = Gone::default().changes(&site(&[]), &first, Instant::now());
        assert_eq!(changed.names, ["/", "/index.html"]);
    }

    #[test]
    fn a_file_that_is_gone_is_reported_when_it_stays_away() {
        let (full, empty) = (site(&[("a", "1"), ("b", "1")]), site(&[]));
        let start = Instant::now();
        let mut gone = Gone::default();
        let changes = |gone: &mut Gone, old: &Manifest, new: &Manifest, now| {
            gone.changes(old, new, now).names
        };
        assert_eq!(changes(&mut gone, &full, &empty, start), [""; 0]);
        assert_eq!(gone.due(), Some(start + MIN_GONE_TIME));
        // One is back as it was, the other is not.
        let again = site(&[("a", "1")]);
        let soon = start + MIN_GONE_TIME / 2;
        assert_eq!(changes(&mut gone, &empty, &again, soon), [""; 0]);
        assert_eq!(changes(&mut gone, &again, &again, soon), [""; 0]);
        assert_eq!(
            changes(&mut gone, &again, &again, start + MIN_GONE_TIME),
            ["/b"]
        );
        assert_eq!(gone.due(), None);
        assert_eq!(
            changes(&mut gone, &again, &full, start + 2 * MIN_GONE_TIME),
            ["/b"]
        );
    }

    #[test]
    fn what_changes_while_a_page_is_gone_is_reported_with_it() {
        let start = Instant::now();
        let mut gone = Gone::default();
        let full = site(&[("index.html", "1"), ("style.css", "1")]);
        let without = site(&[("style.css", "1")]);
        let styled = site(&[("style.css", "2")]);
        let built = site(&[("index.html", "2"), ("style.css", "2")]);
        let mut changes = |old: &Manifest, new: &Manifest, milliseconds| {
            let now = start + Duration::from_millis(milliseconds);
            gone.changes(old, new, now).names
        };
        assert_eq!(changes(&full, &without, 0), [""; 0]);
        assert_eq!(changes(&without, &styled, 100), [""; 0]);
        let expected = ["/", "/index.html", "/style.css"];
        assert_eq!(changes(&styled, &built, 200), expected);
        // A page that does not come back holds nothing for longer than its own delay.
        assert_eq!(changes(&built, &styled, 300), [""; 0]);
        assert_eq!(changes(&styled, &without, 400), [""; 0]);
        assert_eq!(changes(&without, &without, 1299), [""; 0]);
        assert_eq!(changes(&without, &without, 1300), expected);
        assert_eq!(changes(&without, &styled, 1400), ["/style.css"]);
    }
}

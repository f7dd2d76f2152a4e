//! All pages have the same navigation, and it has all pages.

use std::collections::BTreeSet;

use crate::documents::{pages, read, url};

/// The navigation of a page without the mark at the page itself, and the links that have the mark.
fn navigation(page: &str) -> (String, Vec<String>) {
    let text = read(page);
    let (_, rest) = text.split_once("<nav aria-label=\"Manual\">").expect(page);
    let (navigation, _) = rest.split_once("</nav>").expect(page);
    let mark = " aria-current=\"page\"";
    let marked = navigation
        .lines()
        .filter(|line| line.contains(mark))
        .map(|line| target(line).expect("a link").to_owned())
        .collect();
    (navigation.replace(mark, ""), marked)
}

fn target(line: &str) -> Option<&str> {
    line.split_once("href=\"")?.1.split('"').next()
}

#[test]
fn every_page_has_the_same_navigation_and_marks_itself() {
    let (first, _) = navigation("sample-site/index.html");
    for page in pages() {
        let (navigation, marked) = navigation(&page);
        assert_eq!(navigation, first, "{page}");
        assert_eq!(marked, [url(&page)], "{page}");
    }
    let (navigation, marked) = navigation("sample-site/404.html");
    assert_eq!(navigation, first, "404.html");
    assert!(marked.is_empty(), "404.html is no page of the manual");
}

#[test]
fn the_navigation_has_every_page_once() {
    let (navigation, _) = navigation("sample-site/index.html");
    let linked: Vec<_> = navigation.lines().filter_map(target).collect();
    let pages: BTreeSet<_> = pages().iter().map(|page| url(page)).collect();
    let named: BTreeSet<_> = linked.iter().map(|link| (*link).to_owned()).collect();
    assert_eq!(named, pages);
    assert_eq!(linked.len(), pages.len(), "{linked:?}");
}

/// "Previous" and "next" lead through the pages in the order of the navigation.
#[test]
fn neighbours_are_those_of_the_navigation() {
    let (navigation, _) = navigation("sample-site/index.html");
    let order: Vec<_> = navigation.lines().filter_map(target).collect();
    for page in pages() {
        let text = read(&page);
        let at = order.iter().position(|link| *link == url(&page)).unwrap();
        let neighbour = |rel: &str| {
            let line = text.lines().find(|line| line.contains(rel))?;
            target(line)
        };
        let previous = at.checked_sub(1).map(|before| order[before]);
        assert_eq!(neighbour("rel=\"prev\""), previous, "{page}");
        let next = order.get(at + 1).copied();
        assert_eq!(neighbour("rel=\"next\""), next, "{page}");
    }
}

/// What every page needs to be found, searched and read in the dark.
#[test]
fn every_page_has_the_same_frame() {
    for page in pages() {
        let text = read(&page);
        for part in [
            "<html lang=\"en\">",
            "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">",
            "<meta name=\"color-scheme\" content=\"light dark\">",
            "<meta name=\"description\" content=\"",
            "<form class=\"search\" role=\"search\" hidden>",
            "src=\"/search.js\"",
            "<main id=\"main\"",
        ] {
            assert_eq!(text.matches(part).count(), 1, "{page}: {part}");
        }
        assert_eq!(text.matches("<h1>").count(), 1, "{page}");
    }
}

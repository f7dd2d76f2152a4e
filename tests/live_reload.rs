//! Pages that reload by themselves, in a real browser.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use support::TestSite;
use support::browser::{Browser, Page};
use support::developer::Developer;

/// Whether the page is still the one that `mark` has seen.
const IS_SAME: &str = "window.mark === 'seen'";

fn mark(page: &Page<'_>) {
    // The page hears of changes from here on: its worker has a stream.
    page.value("window.mark = 'seen'");
    page.wait_for(IS_SAME);
}

fn page(text: &str) -> String {
    format!(
        "<!doctype html><html lang=en><title>{text}</title><link rel=icon href=data:,>\
         <link rel=stylesheet href=/style.css><h1>{text}</h1>\
         <form><input name=a></form><div style=height:5000px></div></html>"
    )
}

fn site() -> TestSite {
    TestSite::new()
        .file("index.html", page("one"))
        .file("style.css", "h1 { color: rgb(1, 1, 1) }")
}

/// Pages that the browser has asked for, in this tab.
const VISITS: &str = "sessionStorage.visits";

fn counting(text: &str) -> String {
    page(text) + "<script>sessionStorage.visits = 1 + Number(sessionStorage.visits ?? 0)</script>"
}

fn shows(text: &str) -> String {
    format!("document.querySelector('h1')?.textContent === '{text}'")
}

fn has_colour(red: u8) -> String {
    format!("getComputedStyle(document.querySelector('h1')).color === 'rgb({red}, 1, 1)'")
}

#[test]
fn an_edited_page_reloads() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let site = site();
    let developer = Developer::start(&site.root(), &[]);
    let open = browser.open(&developer.url("/"));
    for text in ["two", "three", "four"] {
        fs::write(site.path("index.html"), page(text)).unwrap();
        open.wait_for(&shows(text));
    }
    assert_eq!(open.errors(), [""; 0]);
}

#[test]
fn an_edited_style_changes_what_is_seen_and_nothing_else() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let site = site();
    let developer = Developer::start(&site.root(), &[]);
    let open = browser.open(&developer.url("/"));
    mark(&open);
    open.value("document.querySelector('input').value = 'typed'; scrollTo(0, 700)");
    for red in [2, 3, 4] {
        let style = format!("h1 {{ color: rgb({red}, 1, 1) }}");
        fs::write(site.path("style.css"), style).unwrap();
        open.wait_for(&has_colour(red));
    }
    assert_eq!(open.value("document.querySelector('input').value"), "typed");
    assert_eq!(open.value("scrollY"), 700);
    assert_eq!(open.value(IS_SAME), true);
    // The old sheets are gone.
    open.wait_for("document.querySelectorAll('link[rel=stylesheet]').length === 1");
    assert_eq!(open.errors(), [""; 0]);
}

#[test]
fn a_touched_file_changes_nothing() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let site = site();
    let developer = Developer::start(&site.root(), &[]);
    let open = browser.open(&developer.url("/"));
    mark(&open);
    for file in ["index.html", "style.css"] {
        let content = fs::read(site.path(file)).unwrap();
        fs::write(site.path(file), content).unwrap();
    }
    // Nothing can be waited for but that nothing happens.
    sleep(Duration::from_secs(1));
    assert_eq!(open.value(IS_SAME), true);
    let said = developer.said();
    assert!(
        !said.iter().any(|line| line.contains("changed")),
        "{said:#?}"
    );
    // It would have been seen.
    fs::write(site.path("index.html"), page("two")).unwrap();
    open.wait_for(&shows("two"));
}

#[test]
fn eight_tabs_share_a_stream() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let site = site();
    let developer = Developer::start(&site.root(), &[]);
    let tabs: Vec<_> = (0..8).map(|_| browser.open(&developer.url("/"))).collect();
    for text in ["two", "three"] {
        fs::write(site.path("index.html"), page(text)).unwrap();
        for tab in &tabs {
            tab.wait_for(&shows(text));
        }
    }
}

#[test]
fn pages_come_back_with_the_server() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let site = site();
    let developer = Developer::start(&site.root(), &[]);
    let port = developer.port;
    let open = browser.open(&developer.url("/"));
    mark(&open);
    // Equal content: nothing to reload, but the stream is there again.
    assert!(developer.stop().success());
    let developer = Developer::on_port(&site.root(), port, &["--strict-port"]);
    fs::write(site.path("style.css"), "h1 { color: rgb(9, 1, 1) }").unwrap();
    open.wait_for(&has_colour(9));
    assert_eq!(open.value(IS_SAME), true);
    // Other content.
    assert!(developer.stop().success());
    fs::write(site.path("index.html"), page("two")).unwrap();
    let _developer = Developer::on_port(&site.root(), port, &["--strict-port"]);
    open.wait_for(&shows("two"));
}

#[test]
fn a_policy_that_allows_self_allows_it() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let plain = |text: &str| {
        format!("<!doctype html><title>x</title><link rel=icon href=/i.svg><h1>{text}</h1>")
    };
    let site = TestSite::new()
        .file(
            "_headers",
            "/*\n  Content-Security-Policy: default-src 'self'\n",
        )
        .file("i.svg", "<svg xmlns='http://www.w3.org/2000/svg'/>")
        .file("index.html", plain("one"));
    let developer = Developer::start(&site.root(), &[]);
    let open = browser.open(&developer.url("/"));
    fs::write(site.path("index.html"), plain("two")).unwrap();
    open.wait_for(&shows("two"));
    assert_eq!(open.errors(), [""; 0]);
}

#[test]
fn a_build_that_empties_its_folder_shows_no_error() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let site = site();
    let developer = Developer::start(&site.root(), &[]);
    let open = browser.open(&developer.url("/"));
    let mut client = developer.client();
    let mut look = |during: Duration| {
        let until = Instant::now() + during;
        while Instant::now() < until {
            for target in ["/", "/index.html", "/style.css"] {
                assert_eq!(client.get(target).status, 200, "{target}");
            }
        }
    };
    for (number, text) in [(2, "two"), (3, "three")] {
        if number == 2 {
            for file in ["index.html", "style.css"] {
                fs::remove_file(site.path(file)).unwrap();
            }
        } else {
            fs::remove_dir_all(site.root()).unwrap();
        }
        look(Duration::from_millis(400));
        let _ = fs::create_dir(site.root());
        fs::write(site.path("index.html"), page(text)).unwrap();
        look(Duration::from_millis(150));
        let style = format!("h1 {{ color: rgb({number}, 1, 1) }}");
        fs::write(site.path("style.css"), style).unwrap();
        look(Duration::from_millis(300));
        open.wait_for(&shows(text));
        open.wait_for(&has_colour(number));
    }
    assert_eq!(open.errors(), [""; 0]);
    let said = developer.said();
    assert!(
        !said.iter().any(|line| line.starts_with("404")),
        "{said:#?}"
    );
}

#[test]
fn an_error_page_and_a_listing_follow_as_well() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let site = site().file("docs/a.txt", "a");
    let developer = Developer::start(&site.root(), &[]);
    let error = browser.open(&developer.url("/later"));
    error.wait_for(&shows("Not Found"));
    let listing = browser.open(&developer.url("/docs/"));
    fs::write(site.path("later.html"), page("now")).unwrap();
    error.wait_for(&shows("now"));
    fs::write(site.path("docs/b c.txt"), "b").unwrap();
    listing.wait_for("document.body.textContent.includes('b c.txt')");
    fs::write(site.path("docs/index.html"), page("docs")).unwrap();
    listing.wait_for(&shows("docs"));
    fs::remove_file(site.path("later.html")).unwrap();
    error.wait_for(&shows("Not Found"));
}

#[test]
fn an_edit_is_one_reload() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let site = site().file("index.html", counting("one"));
    let developer = Developer::start(&site.root(), &[]);
    let open = browser.open(&developer.url("/"));
    let texts = ["two", "three", "four", "five", "six", "seven"];
    for text in texts {
        fs::write(site.path("index.html"), counting(text)).unwrap();
        open.wait_for(&shows(text));
        open.wait_for("document.readyState === 'complete'");
        // Nothing can be waited for but that nothing happens.
        sleep(Duration::from_millis(400));
    }
    assert_eq!(open.value(VISITS), (texts.len() + 1).to_string());
}

#[test]
fn an_edited_image_is_shown_in_its_place() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let image = |width: u32| {
        format!("<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='9'/>")
    };
    let site = TestSite::new()
        .file("small.svg", image(1))
        .file("large.svg", image(2))
        .file(
            "index.html",
            "<!doctype html><link rel=icon href=data:,><picture><source srcset=/large.svg>\
             <img src=/small.svg></picture>",
        );
    let developer = Developer::start(&site.root(), &[]);
    let open = browser.open(&developer.url("/"));
    mark(&open);
    fs::write(site.path("large.svg"), image(33)).unwrap();
    open.wait_for("document.images[0].naturalWidth === 33");
    assert_eq!(open.value(IS_SAME), true);
    assert_eq!(open.errors(), [""; 0]);
}

#[test]
fn a_listing_holds_whatever_the_policy_of_the_site() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let site = TestSite::new()
        .file("a.txt", "a")
        .file("b.txt", "b")
        .file("favicon.ico", "")
        .file(
            "_headers",
            "/*\n  Content-Security-Policy: default-src 'self'\n",
        );
    let developer = Developer::start(&site.root(), &[]);
    let open = browser.open(&developer.url("/"));
    open.wait_for("document.querySelector('input') !== null");
    assert_ne!(
        open.value("getComputedStyle(document.querySelector('main')).maxWidth"),
        "none"
    );
    // Its keys.
    let focused = |key: &str| {
        open.value(&format!(
            "document.dispatchEvent(new KeyboardEvent('keydown', {{ key: '{key}' }})); \
             document.activeElement.placeholder ?? document.activeElement.textContent"
        ))
    };
    for (key, expected) in [
        ("ArrowDown", "a.txt"),
        ("ArrowDown", "b.txt"),
        ("ArrowUp", "a.txt"),
        ("/", "Filter by name ( / )"),
    ] {
        assert_eq!(focused(key), expected, "{key}");
    }
    open.value("const f = document.querySelector('input'); f.value = 'B.'; f.dispatchEvent(new Event('input'))");
    assert_eq!(focused("ArrowDown"), "b.txt");
    fs::write(site.path("c.txt"), "c").unwrap();
    open.wait_for("document.body.textContent.includes('c.txt')");
    assert_eq!(open.errors(), [""; 0]);
}

#[test]
fn where_no_worker_may_run_a_page_listens_itself() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let plain = |text: &str| format!("<!doctype html><link rel=icon href=data:,><h1>{text}</h1>");
    let site = TestSite::new()
        .file("index.html", plain("one"))
        .file("deaf.html", plain("one"))
        .file(
            "_headers",
            "/\n  Content-Security-Policy: worker-src 'none'\n\
             /deaf\n  Content-Security-Policy: worker-src 'none'; connect-src 'none'\n",
        );
    let developer = Developer::start(&site.root(), &[]);
    let open = browser.open(&developer.url("/"));
    for text in ["two", "three"] {
        fs::write(site.path("index.html"), plain(text)).unwrap();
        open.wait_for(&shows(text));
    }
    // Who may not even listen says so, and tries no more.
    let deaf = browser.open(&developer.url("/deaf"));
    developer.wait_for_line("/deaf does not reload by itself");
    sleep(Duration::from_secs(2));
    let errors = deaf.errors();
    assert!(errors.len() <= 3, "{errors:#?}");
}

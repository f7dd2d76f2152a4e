//! The manual in a browser: no page is wider than its screen, nothing is said on the console, light
//! and dark are two, and its search finds.

use std::path::PathBuf;

use serde_json::json;

use crate::documents::{pages, top, url};
use crate::support::Server;
use crate::support::browser::Browser;

/// The widths of a desktop's window and of a phone.
const WIDTHS: [u32; 2] = [1280, 390];

/// With `ETAGD_SCREENSHOTS=DIR`, each page is also kept as a picture, for somebody to look at.
#[test]
fn pages_fit_their_screens() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = Server::at(&top().join("sample-site"), &[]);
    let pictures = std::env::var_os("ETAGD_SCREENSHOTS").map(PathBuf::from);
    for page in pages() {
        let path = url(&page);
        let tab = browser.open(&format!("http://{}{path}", server.address()));
        tab.wait_for("document.getElementById('tag').hidden === false");
        let mut papers = Vec::new();
        for scheme in ["light", "dark"] {
            for width in WIDTHS {
                tab.emulate(width, scheme);
                let wide = tab.value(
                    "[...document.querySelectorAll('body *')].filter((each) => \
                     each.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5 && \
                     !each.closest('pre, .scroll') && getComputedStyle(each).opacity !== '0')\
                     .map((each) => each.outerHTML.slice(0, 80))",
                );
                assert_eq!(wide, json!([]), "{path} at {width}");
                let scrolls = tab.value(
                    "document.documentElement.scrollWidth > document.documentElement.clientWidth",
                );
                assert_eq!(scrolls, false, "{path} at {width}");
                let cut = tab.value(
                    "[...document.querySelectorAll('.scroll')]\
                     .filter((each) => each.scrollWidth > each.clientWidth)\
                     .map((each) => each.getAttribute('aria-label'))",
                );
                assert_eq!(
                    cut,
                    json!([]),
                    "{path} at {width}: tables with hidden columns"
                );
                let broken = tab.value(
                    "[...document.querySelectorAll(':is(p, li, dd) > code:not(.long)')]\
                     .filter((each) => each.textContent.startsWith('-') && each.getClientRects().length > 1)\
                     .map((each) => each.textContent)",
                );
                assert_eq!(broken, json!([]), "{path} at {width}: flags on two lines");
                papers.push(tab.value("getComputedStyle(document.body).backgroundColor"));
                if let Some(folder) = &pictures {
                    let name = match path.trim_matches('/').rsplit('/').next() {
                        Some("") | None => "overview",
                        Some(name) => name,
                    };
                    let name = format!("{name}-{width}-{scheme}.png");
                    std::fs::write(folder.join(name), tab.screenshot()).unwrap();
                }
            }
        }
        assert_eq!(papers[0], papers[1], "{path}");
        assert_ne!(papers[0], papers[2], "{path}: light and dark look the same");
        // The overview shows what a failed precondition is, and browsers report a 412.
        let mut said = tab.console();
        if path == "/" {
            said.retain(|message| !message.contains("412"));
        }
        assert!(said.is_empty(), "{path}: {said:#?}");
    }
}

#[test]
fn search_finds_sections() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = Server::at(&top().join("sample-site"), &[]);
    let tab = browser.open(&format!("http://{}/", server.address()));
    tab.wait_for("document.querySelector('.search').hidden === false");
    let search = |words: &str| {
        let words = json!(words);
        tab.value(&format!(
            "(() => {{ const input = document.querySelector('.search input'); \
             input.value = {words}; input.dispatchEvent(new Event('input')); }})()"
        ));
    };
    for (words, target) in [
        ("certbot", "/guide/https#certbot"),
        ("exit CODES", "/guide/signals#codes"),
        ("sysctl.d", "/guide/troubleshooting#watches"),
        ("If-Range", "/guide/conditional-requests#if-range"),
    ] {
        search(words);
        let found = json!(target);
        tab.wait_for(&format!(
            "document.querySelector('.search ol a')?.getAttribute('href') === {found}"
        ));
    }
    search("no such words anywhere");
    tab.wait_for(
        "document.querySelector('.search [role=status]').textContent === 'Nothing found.'",
    );
    tab.wait_for("document.querySelector('.search ol').hidden");
    // A hit leads to its section.
    search("certbot");
    tab.wait_for("document.querySelector('.search ol a') !== null");
    tab.value("document.querySelector('.search').requestSubmit()");
    tab.wait_for("location.pathname + location.hash === '/guide/https#certbot'");
}

/// On a phone the navigation is closed until it is asked for.
#[test]
fn the_navigation_opens_on_a_phone() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = Server::at(&top().join("sample-site"), &[]);
    let tab = browser.open(&format!("http://{}/guide/", server.address()));
    let is_open = "document.querySelector('.masthead nav').getClientRects().length > 0";
    tab.emulate(390, "light");
    assert_eq!(tab.value(is_open), false);
    tab.value("document.querySelector('.menu-label').click()");
    assert_eq!(tab.value(is_open), true);
    tab.value("document.querySelector('.menu-label').click()");
    tab.emulate(1280, "light");
    assert_eq!(tab.value(is_open), true);
}

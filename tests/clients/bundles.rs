//! What a bundler has built, in a browser.

use std::fs;
use std::path::Path;

use crate::support::browser::Browser;
use crate::support::wire::Client;
use crate::support::{TestSite, noise};
use crate::{Observed, client, count, folder, succeeded};

/// The version of Vite whose names are known to be hashes.
const VITE: &str = "vite@7";
/// How many files the page loads besides its own script: about a quarter of all hashes have no digit or
/// no capital, and are not told from words.
const PARTS: usize = 8;

/// A site that Vite has built; nothing, with the reason, where there is no npm or no registry.
fn vite_site() -> Option<TestSite> {
    let site = TestSite::new();
    let source = folder(&site, "source");
    let skip = |reason: &str| {
        assert!(std::env::var_os("ETAGD_NO_SKIP").is_none(), "{reason}");
        #[allow(clippy::print_stderr)]
        {
            eprintln!("skipped: {reason}");
        }
        None
    };
    let is_there = std::process::Command::new("npm").arg("--version").output();
    if is_there.is_err() {
        return skip("no npm");
    }
    let install = [
        "install",
        "--no-audit",
        "--no-fund",
        "--fetch-retries=0",
        VITE,
    ];
    let installed = client("npm", &install, &source);
    if !installed.status.success() {
        let said = String::from_utf8_lossy(&installed.stderr);
        return skip(&format!("npm cannot install {VITE}: {said}"));
    }
    write_source(&source);
    let root = site.root();
    let build = ["vite", "build", "--emptyOutDir", "--outDir"];
    let build = [
        &["exec", "--offline", "--"],
        &build[..],
        &[root.to_str().unwrap()],
    ]
    .concat();
    succeeded(client("npm", &build, &source));
    Some(site)
}

/// A page with a style, and a script that loads the other parts.
fn write_source(source: &Path) {
    let page = "<!doctype html><html lang=en><title>one</title><link rel=icon href=data:,>\
                <script type=module src=/main.js></script></html>";
    fs::write(source.join("index.html"), page).unwrap();
    fs::write(source.join("style.css"), "body { color: rgb(1, 2, 3) }").unwrap();
    let mut main = "import './style.css';\nconst parts = [\n".to_owned();
    for part in 0..PARTS {
        let text = u64::from_le_bytes(noise(8, part as u64).try_into().unwrap());
        let module = format!("export default 'part {text}';\n");
        fs::write(source.join(format!("part{part}.js")), module).unwrap();
        main += &format!("  import('./part{part}.js'),\n");
    }
    main +=
        "];\nPromise.all(parts).then((all) => { document.body.dataset.parts = all.length; });\n";
    fs::write(source.join("main.js"), main).unwrap();
}

/// The URLs of the built files, and whether each may be kept without asking.
fn assets(site: &TestSite, client: &mut Client) -> Vec<(String, bool)> {
    let entries = fs::read_dir(site.path("assets")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .map(|name| {
            let url = format!("/assets/{name}");
            let response = client.get(&url);
            let policy = response.field("Cache-Control").unwrap();
            (url, policy.contains("immutable"))
        })
        .collect()
}

#[test]
fn chromium_asks_once_for_what_vite_has_named_by_its_hash() {
    let Some(site) = vite_site() else { return };
    let Some(browser) = Browser::start() else {
        return;
    };
    let served = Observed::with(site, &["--immutable", "auto"]);
    let assets = assets(&served.site, &mut served.server.client());
    let hashed: Vec<_> = assets.iter().filter(|(_, is_kept)| *is_kept).collect();
    assert!(assets.len() > PARTS, "{assets:?}");
    assert!(hashed.len() > PARTS / 4, "{assets:?}");
    let is_complete = format!("document.body?.dataset.parts === '{PARTS}'");
    let visits = 3;
    for _ in 0..visits {
        let page = browser.open(&served.url("/"));
        page.wait_for(&is_complete);
        page.wait_for("getComputedStyle(document.body).color === 'rgb(1, 2, 3)'");
        assert_eq!(page.errors(), [""; 0]);
    }
    let urls: Vec<_> = hashed.into_iter().map(|(url, _)| url.clone()).collect();
    let requests = served.requests();
    assert_eq!(count(&requests, "GET / 200"), 1, "{requests:#?}");
    assert_eq!(count(&requests, "GET / 304"), visits - 1, "{requests:#?}");
    for url in urls {
        let start = format!("GET {url} ");
        let asked = requests.iter().filter(|each| each.starts_with(&start));
        // Once by this test, and once by the browser.
        assert_eq!(asked.count(), 2, "{url}: {requests:#?}");
    }
}

//! The page Metrics names every family that a server has, and no other.

use std::collections::BTreeSet;

use crate::documents::read;
use crate::support::{Client, Releases, Server, TestSite};

#[test]
fn every_family_of_metrics_is_explained() {
    let site = TestSite::with(&[("index.html", b"hello")]);
    let server = Server::with(&site, &["--admin", "127.0.0.1:0"]);
    let metrics = Client::connect(server.admin()).get("/metrics");
    let metrics = String::from_utf8(metrics.body).unwrap();
    let releases = Releases::of(&site, &[]);
    let follower = releases.serve(&["--admin", "127.0.0.1:0"]);
    let of_store = Client::connect(follower.admin()).get("/metrics");
    let metrics = metrics + &String::from_utf8(of_store.body).unwrap();
    let has: BTreeSet<_> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    assert!(has.len() > 20, "{metrics}");
    let page = read("sample-site/guide/metrics.html");
    let explained: BTreeSet<_> = page
        .lines()
        .filter_map(|line| line.trim().strip_prefix("<div><dt>")?.split("</dt>").next())
        .flat_map(|terms| terms.split(['<', '>']))
        .filter(|word| {
            ["etagd_", "process_"]
                .iter()
                .any(|prefix| word.starts_with(prefix))
        })
        .collect();
    let unexplained: Vec<_> = has.difference(&explained).collect();
    let unknown: Vec<_> = explained.difference(&has).collect();
    assert!(
        unexplained.is_empty() && unknown.is_empty(),
        "sample-site/guide/metrics.html does not explain {unexplained:?}, and names {unknown:?}, \
         which no server has"
    );
}

/// What the alerts and the other pages ask for exists.
#[test]
fn every_metric_that_a_page_names_is_explained() {
    let page = read("sample-site/guide/metrics.html");
    for document in crate::documents::pages()
        .iter()
        .map(String::as_str)
        .chain(["README.md"])
    {
        let text = read(document);
        let named = text
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .filter(|word| word.starts_with("etagd_") && word.len() > "etagd_".len());
        for name in named {
            // A counter's line has a suffix that its family has not; the package's name has one, too.
            let family = name.trim_end_matches("_total").trim_end_matches("_info");
            let is_file = ["etagd_VERSION", "etagd_amd64"].contains(&family);
            let row = format!("<code>{family}</code>");
            assert!(is_file || page.contains(&row), "{document}: {name}");
        }
    }
}

//! The alerts and the dashboard in `deploy/` ask for metrics that exist, in expressions that
//! Prometheus understands, and each alert fires when it should.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use support::{Client, Releases, Server, TestSite};

const ALERTS: [&str; 8] = [
    "EtagdServerErrors",
    "EtagdSlow",
    "EtagdVerificationFailures",
    "EtagdChangesNotPublished",
    "EtagdReplicasDiffer",
    "EtagdFull",
    "EtagdStoreAway",
    "EtagdReleaseNotServed",
];

/// What Prometheus adds to every series, and to those of a histogram.
const LABELS_OF_PROMETHEUS: [&str; 3] = ["job", "instance", "le"];

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

fn read(name: &str) -> String {
    fs::read_to_string(deploy().join(name)).unwrap()
}

/// The expressions of all alerts: what stands behind `expr:`, or in the block below it.
fn alert_expressions() -> Vec<String> {
    let text = read("alerts.yaml");
    let mut expressions = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(inline) = line.strip_prefix("        expr: ") else {
            continue;
        };
        let mut expression = inline.trim_start_matches('|').to_owned();
        while let Some(more) = lines.next_if(|line| line.starts_with("          ")) {
            expression = expression + "\n" + more;
        }
        expressions.push(expression);
    }
    expressions
}

/// The expressions of all panels and variables, wherever they stand.
fn dashboard_expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(text) if name == "expr" => found.push(text.clone()),
                    Value::String(text) if text.starts_with("label_values(") => {
                        found.push(text.clone());
                    }
                    member => dashboard_expressions(member, found),
                }
            }
        }
        Value::Array(members) => {
            for member in members {
                dashboard_expressions(member, found);
            }
        }
        _ => {}
    }
}

fn dashboard() -> Vec<String> {
    let mut found = Vec::new();
    let dashboard = serde_json::from_str(&read("grafana.json")).unwrap();
    dashboard_expressions(&dashboard, &mut found);
    found
}

/// The names of all samples, and those of all labels, in Prometheus's older format: of a server of a
/// directory, and of one that follows a store.
fn exported() -> (BTreeSet<String>, BTreeSet<String>) {
    let site = TestSite::with(&[("index.html", b"hello")]);
    let releases = Releases::of(&site, &[]);
    let flags = ["--admin", "127.0.0.1:0"];
    let mut text = String::new();
    for server in [Server::with(&site, &flags), releases.serve(&flags)] {
        assert_eq!(server.client().get("/").status, 200);
        let mut admin = Client::connect(server.admin());
        let page = admin.request("GET", "/metrics", &[("Accept", "text/*")]);
        text += std::str::from_utf8(&page.body).unwrap();
    }
    let (mut names, mut labels) = (BTreeSet::new(), BTreeSet::new());
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let (name, inside) = series.split_once('{').unwrap_or((series, ""));
        names.insert(name.to_owned());
        for label in inside.split(',').filter_map(|label| label.split_once('=')) {
            labels.insert(label.0.to_owned());
        }
    }
    (names, labels)
}

fn words(expression: &str) -> impl Iterator<Item = &str> {
    expression
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
}

/// The labels that an expression names in braces and behind `by` and `on`.
fn labels(expression: &str) -> Vec<&str> {
    let matchers = expression
        .split('{')
        .skip(1)
        .filter_map(|part| part.split('}').next())
        .flat_map(|inside| inside.split(", "))
        .filter_map(|matcher| matcher.split(['=', '!']).next());
    let grouped = [" by (", " on ("]
        .into_iter()
        .flat_map(|keyword| expression.split(keyword).skip(1))
        .filter_map(|part| part.split(')').next())
        .flat_map(|list| list.split(", "));
    matchers.chain(grouped).collect()
}

#[test]
fn every_metric_and_label_that_they_ask_for_exists() {
    let (names, exported_labels) = exported();
    assert!(names.contains("etagd_request_duration_seconds_bucket"));
    let (alerts, dashboard) = (alert_expressions(), dashboard());
    assert_eq!(alerts.len(), ALERTS.len());
    assert!(dashboard.len() > 20, "{}", dashboard.len());
    let mut asked = 0;
    for expression in alerts.iter().chain(&dashboard) {
        let metrics: Vec<_> = words(expression)
            .filter(|word| word.starts_with("etagd_") || word.starts_with("process_"))
            .collect();
        assert!(!metrics.is_empty(), "{expression}");
        for name in metrics {
            assert!(names.contains(name), "{name} of {expression}");
            asked += 1;
        }
        for label in labels(expression) {
            let exists = LABELS_OF_PROMETHEUS.contains(&label) || exported_labels.contains(label);
            assert!(exists, "label {label:?} of {expression}");
        }
    }
    assert!(asked > 30, "{asked}");
}

/// `promtool`, if Debian's package `prometheus` is there.
fn promtool(arguments: &[&str]) -> Option<String> {
    let output = match Command::new("promtool").args(arguments).output() {
        Ok(output) => output,
        Err(error) => {
            assert!(std::env::var_os("ETAGD_NO_SKIP").is_none(), "{error}");
            return None;
        }
    };
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
    Some(said)
}

#[test]
fn prometheus_understands_the_alerts() {
    let file = deploy().join("alerts.yaml");
    if let Some(said) = promtool(&["check", "rules", file.to_str().unwrap()]) {
        assert!(said.contains("SUCCESS: 8 rules found"), "{said}");
    }
}

#[test]
fn prometheus_understands_the_dashboard() {
    let mut rules = "groups:\n  - name: dashboard\n    rules:\n".to_owned();
    let queries: Vec<_> = dashboard()
        .into_iter()
        .filter(|expression| !expression.starts_with("label_values("))
        .map(|expression| expression.replace("$__rate_interval", "5m"))
        .collect();
    for (index, query) in queries.iter().enumerate() {
        let quoted = query.replace('\'', "''");
        writeln!(
            rules,
            "      - record: query{index}\n        expr: '{quoted}'"
        )
        .unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dashboard.yaml");
    fs::write(&file, rules).unwrap();
    if let Some(said) = promtool(&["check", "rules", file.to_str().unwrap()]) {
        let expected = format!("SUCCESS: {} rules found", queries.len());
        assert!(said.contains(&expected), "{said}");
    }
}

/// Series of two replicas that are well, minute by minute.
const WELL: &[(&str, &str)] = &[
    ("etagd_build_info", "1x60"),
    (r#"etagd_site_info{digest="ab",complete="true"}"#, "1x60"),
    (
        r#"etagd_requests_total{method="GET",status="200"}"#,
        "0+600x60",
    ),
    (
        r#"etagd_requests_total{method="GET",status="503"}"#,
        "0+1x60",
    ),
    (
        r#"etagd_requests_total{method="other",status="501"}"#,
        "0+1x60",
    ),
    (
        r#"etagd_request_duration_seconds_bucket{class="3xx",le="0.0001"}"#,
        "0+600x60",
    ),
    (
        r#"etagd_request_duration_seconds_bucket{class="3xx",le="0.2048"}"#,
        "0+600x60",
    ),
    (
        r#"etagd_request_duration_seconds_bucket{class="3xx",le="+Inf"}"#,
        "0+600x60",
    ),
    ("etagd_verification_failures_total", "0x60"),
    ("etagd_publications_total", "0x60"),
    ("etagd_surplus_connections_total", "0x60"),
    ("etagd_accept_errors_total", "0x60"),
    ("etagd_watch_stalled", "0x60"),
    ("etagd_watch_failures_total", "3x60"),
    // As on a network mount, whose changes sweeps find.
    ("etagd_unwatched_places", "1x60"),
    ("etagd_watch_incomplete", "0x60"),
    ("etagd_store_reachable", "1x60"),
    ("etagd_store_release", "7x60"),
    ("etagd_store_newest_release", "7x60"),
    ("process_open_fds", "100x60"),
    ("process_max_fds", "1000x60"),
];

/// One case for `promtool test rules`: the second replica has `trouble` in place of what is well,
/// and after 50 minutes exactly `firing` fires.
fn case(trouble: &[(&str, &str)], firing: Option<&str>) -> String {
    let mut case = "  - interval: 1m\n    input_series:\n".to_owned();
    let mut add = |name: &str, instance: &str, values: &str| {
        let own = format!(r#"job="etagd",instance="{instance}""#);
        let series = match name.strip_suffix('}') {
            Some(labelled) => format!("{labelled},{own}}}"),
            None => format!("{name}{{{own}}}"),
        };
        writeln!(
            case,
            "      - series: '{series}'\n        values: '{values}'"
        )
        .unwrap();
    };
    for (name, values) in WELL {
        add(name, "one", values);
        if !trouble.iter().any(|(other, _)| {
            other == name
                || name.starts_with("etagd_site_info") && other.starts_with("etagd_site_info")
        }) {
            add(name, "two", values);
        }
    }
    for (name, values) in trouble {
        add(name, "two", values);
    }
    case += "    promql_expr_test:\n      - eval_time: 50m\n        expr: 'count by (alertname) \
             (ALERTS{alertstate=\"firing\"})'\n        exp_samples:";
    match firing {
        Some(alert) => {
            write!(
                case,
                "\n          - labels: '{{alertname=\"{alert}\"}}'\n            value: 1\n"
            )
            .unwrap();
        }
        None => case += " []\n",
    }
    case
}

#[test]
fn each_alert_fires_when_it_should_and_alone() {
    let nothing_lost = ("etagd_publications_total", "0+1x60");
    let failures = ("etagd_verification_failures_total", "0+1x60");
    let slow = r#"etagd_request_duration_seconds_bucket{class="3xx",le="0.0001"}"#;
    let errors = r#"etagd_requests_total{method="GET",status="503"}"#;
    let scanned = r#"etagd_requests_total{method="other",status="501"}"#;
    let cases = [
        (&[][..], None),
        (&[(errors, "0+30x60")], Some("EtagdServerErrors")),
        (&[(scanned, "0+300x60")], None),
        (&[(slow, "0+500x60")], Some("EtagdSlow")),
        (&[failures], Some("EtagdVerificationFailures")),
        // A file that is replaced while it is sent is nothing unusual.
        (&[failures, nothing_lost], None),
        (
            &[("etagd_watch_stalled", "1x60")],
            Some("EtagdChangesNotPublished"),
        ),
        (
            &[("etagd_watch_incomplete", "1x60")],
            Some("EtagdChangesNotPublished"),
        ),
        (
            &[(r#"etagd_site_info{digest="ab",complete="false"}"#, "1x60")],
            Some("EtagdChangesNotPublished"),
        ),
        (
            &[(r#"etagd_site_info{digest="cd",complete="true"}"#, "1x60")],
            Some("EtagdReplicasDiffer"),
        ),
        (
            &[("etagd_surplus_connections_total", "0+1x60")],
            Some("EtagdFull"),
        ),
        (
            &[("etagd_accept_errors_total", "0+1x60")],
            Some("EtagdFull"),
        ),
        (&[("process_open_fds", "950x60")], Some("EtagdFull")),
        (&[("etagd_store_reachable", "0x60")], Some("EtagdStoreAway")),
        // A store may be away for some minutes, and a large release takes some.
        (&[("etagd_store_reachable", "1x35 0x9 1x20")], None),
        (&[("etagd_store_newest_release", "7x40 8x20")], None),
        (
            &[("etagd_store_newest_release", "8x60")],
            Some("EtagdReleaseNotServed"),
        ),
        // The store has lost the one that is served.
        (
            &[("etagd_store_newest_release", "6x60")],
            Some("EtagdReleaseNotServed"),
        ),
    ];
    let tried: BTreeSet<_> = cases.iter().filter_map(|(_, firing)| *firing).collect();
    assert_eq!(tried, BTreeSet::from(ALERTS));
    let rules = deploy().join("alerts.yaml");
    let mut tests = format!(
        "rule_files: ['{}']\nevaluation_interval: 1m\ntests:\n",
        rules.display()
    );
    for (trouble, firing) in cases {
        tests += &case(trouble, firing);
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("alerts.test.yaml");
    fs::write(&file, tests).unwrap();
    if let Some(said) = promtool(&["test", "rules", file.to_str().unwrap()]) {
        assert!(said.contains("SUCCESS"), "{said}");
    }
}

#[test]
fn the_manual_explains_every_alert() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("sample-site/guide/metrics.html");
    let page = fs::read_to_string(page).unwrap();
    let text = read("alerts.yaml");
    let found: Vec<_> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert_eq!(found, ALERTS);
    for alert in found {
        assert!(page.contains(&format!("<code>{alert}</code>")), "{alert}");
    }
}

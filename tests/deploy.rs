//! What `deploy/` tells people to run is understood by this etagd.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs;
use std::path::Path;

use support::{Server, etagd};

fn file(name: &str) -> String {
    fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("deploy")
            .join(name),
    )
    .unwrap()
}

/// Asserts that `serve` understands these arguments, of which the first is the directory: with one
/// that does not exist, that is all that is wrong.
fn understands(said_by: &str, arguments: &[&str]) {
    let nowhere = tempfile::tempdir().unwrap().path().join("nowhere");
    let [directory, flags @ ..] = arguments else {
        panic!("{said_by} says nothing");
    };
    assert!(directory.starts_with('/'), "{said_by}: {arguments:?}");
    Server::assert_fails(&nowhere, flags, 1, &["nowhere"]);
}

#[test]
fn the_flags_for_replicas_are_valid() {
    for name in [
        "haproxy.cfg",
        "nginx.conf",
        "varnish.vcl",
        "envoy.yaml",
        "etagd.service",
    ] {
        let text = file(name);
        let commands: Vec<_> = text
            .lines()
            .filter_map(|line| line.split_once("etagd serve "))
            .collect();
        assert_eq!(commands.len(), 1, "{name}");
        let arguments: Vec<_> = commands[0].1.split_whitespace().collect();
        understands(name, &arguments);
    }
}

#[test]
fn what_the_image_runs() {
    let text = file("Containerfile");
    let command = text
        .lines()
        .find_map(|line| line.strip_prefix("CMD "))
        .unwrap();
    let words: Vec<String> = serde_json::from_str(command).unwrap();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    assert_eq!(words[0], "serve");
    understands("Containerfile", &words[1..]);
}

#[test]
fn what_kubernetes_runs() {
    let text = file("kubernetes.yaml");
    let (_, after) = text.split_once("          args:\n").unwrap();
    let words: Vec<_> = after
        .lines()
        .map_while(|line| line.trim().strip_prefix("- "))
        .collect();
    assert_eq!(words[0], "serve");
    understands("kubernetes.yaml", &words[1..]);
    // Its variables are flags too.
    let variables = text.lines().filter_map(|line| {
        line.trim_start_matches([' ', '#'])
            .strip_prefix("- name: ETAGD_")
    });
    let help = String::from_utf8(etagd(["serve", "--help"]).stdout).unwrap();
    let flags: Vec<_> = variables
        .map(|name| format!("--{} ", name.to_ascii_lowercase().replace('_', "-")))
        .collect();
    assert!(
        !flags.is_empty() && flags.iter().all(|flag| help.contains(flag)),
        "{flags:?}"
    );
}

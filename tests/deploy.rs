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

/// What an image says of itself, after the files that it has.
fn said_of_the_image(name: &str) -> String {
    let text = file(name);
    let (_, said) = text.rsplit_once("COPY ").unwrap();
    let (_, said) = said.split_once('\n').unwrap();
    said.to_owned()
}

#[test]
fn what_the_image_runs() {
    let said = said_of_the_image("Containerfile");
    let instruction = |name: &str| said.lines().find_map(|line| line.strip_prefix(name));
    let words = |list: &str| -> Vec<String> { serde_json::from_str(list).unwrap() };
    let words_of = |name: &str| words(instruction(name).unwrap());
    let command = words_of("CMD ");
    let command: Vec<_> = command.iter().map(String::as_str).collect();
    assert_eq!(command[0], "serve");
    understands("Containerfile", &command[1..]);
    // Its variables say what flags would, and the health check asks where they say.
    assert_eq!(instruction("ENV "), Some("PORT=8080 ETAGD_ADMIN=:9090"));
    assert_eq!(instruction("EXPOSE "), Some("8080 9090"));
    let (_, check) = instruction("HEALTHCHECK ")
        .unwrap()
        .split_once("CMD ")
        .unwrap();
    let entry = words_of("ENTRYPOINT ");
    assert_eq!(words(check), [entry[0].as_str(), "health"]);
}

#[test]
fn an_image_of_a_finished_binary_is_the_same_image() {
    let built = said_of_the_image("Containerfile");
    assert_eq!(said_of_the_image("Containerfile.binary"), built);
    let about = concat!("description=\"", env!("CARGO_PKG_DESCRIPTION"), "\"");
    assert!(built.contains(about), "{built}");
    let licenses = concat!("licenses=\"", env!("CARGO_PKG_LICENSE"), "\"");
    assert!(built.contains(licenses), "{built}");
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

//! What `deploy/` tells people to run is understood by this etagd.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
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

/// Asserts that `serve` understands these arguments, of which the first is a bucket: with a folder that
/// does not exist, that is all that is wrong.
fn understands_of_store(said_by: &str, arguments: &[&str]) {
    let outer = tempfile::tempdir().unwrap();
    let nowhere = format!("file://{}/nowhere", outer.path().display());
    let [store, flags @ ..] = arguments else {
        panic!("{said_by} says nothing");
    };
    assert!(store.starts_with("s3://"), "{said_by}: {arguments:?}");
    // As kubelet makes the folder of a volume where there is an fsGroup.
    let volume = outer.path().join("volume");
    fs::create_dir(&volume).unwrap();
    fs::set_permissions(&volume, fs::Permissions::from_mode(0o2777)).unwrap();
    let volume = volume.display().to_string();
    let cache = outer.path().join("cache").display().to_string();
    let flags: Vec<_> = flags
        .iter()
        .map(|flag| match *flag {
            "/var/cache/etagd-releases" => cache.clone(),
            flag => flag.replace("--cache=/cache", &format!("--cache={volume}")),
        })
        .collect();
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    Server::assert_fails(Path::new(&nowhere), &flags, 1, &["no such folder"]);
}

#[test]
fn what_serves_releases_is_understood() {
    let text = file("etagd-releases.service");
    let command = text
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart=/usr/bin/etagd serve "));
    let words: Vec<_> = command.unwrap().split_whitespace().collect();
    understands_of_store("etagd-releases.service", &words);
    let text = file("kubernetes-releases.yaml");
    let (_, after) = text.split_once("          args:\n").unwrap();
    let words: Vec<_> = after
        .lines()
        .map(str::trim)
        .take_while(|line| line.starts_with(['-', '#']))
        .filter_map(|line| line.strip_prefix("- "))
        .collect();
    assert_eq!(words[0], "serve");
    understands_of_store("kubernetes-releases.yaml", &words[1..]);
}

#[test]
fn the_collector_of_a_timer_is_understood() {
    let text = file("etagd-gc.service");
    let command = text
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart=/usr/bin/etagd "))
        .unwrap();
    let nowhere = tempfile::tempdir().unwrap().path().join("nowhere");
    let store = format!("file://{}", nowhere.display());
    let command = command.replace("s3://BUCKET/PREFIX", &store);
    let output = etagd(command.split_whitespace());
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("there is no such folder"), "{said}");
}

#[test]
fn the_sandbox_lets_threads_say_how_they_are_scheduled() {
    // Those that compress stand back, but no follower of a store compresses.
    for (name, calls) in [
        ("etagd.service", "setpriority sched_setattr"),
        ("etagd@.service", "setpriority sched_setattr"),
        ("etagd-releases.service", "sched_setattr"),
    ] {
        let text = file(name);
        let filters: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("SystemCallFilter="))
            .collect();
        // Each line changes what the ones before it say (systemd.exec(5)).
        let expected = ["@system-service", "~@privileged @resources", calls];
        assert_eq!(filters, expected, "{name}");
    }
}

/// The stages of the Containerfile: what stands behind FROM, and the lines below it.
fn stages() -> Vec<(String, Vec<String>)> {
    let text = file("Containerfile");
    let stages = text.split("\nFROM ").skip(1).map(|stage| {
        let mut lines = stage.lines().map(str::to_owned);
        let from = lines.next().unwrap();
        (from, lines.collect())
    });
    stages.collect()
}

/// What every image says of itself.
fn said_of_the_image() -> Vec<String> {
    let base = stages()
        .into_iter()
        .find(|(from, _)| from == "scratch AS base");
    base.unwrap().1
}

#[test]
fn what_the_image_runs() {
    let said = said_of_the_image();
    let instruction = |name: &str| said.iter().find_map(|line| line.strip_prefix(name));
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
    let stages = stages();
    let instructions = |name: &str| -> Vec<&str> {
        let (_, lines) = stages.iter().find(|(from, _)| from == name).unwrap();
        let lines = lines.iter().filter(|line| !line.starts_with('#'));
        lines
            .filter_map(|line| line.split(' ').next())
            .filter(|word| !word.is_empty())
            .collect()
    };
    // Two files each, in the same places, on the same base.
    assert_eq!(instructions("base AS finished"), ["COPY", "COPY"]);
    assert_eq!(instructions("base"), ["COPY", "COPY"]);
    // Builders go through the stages in order, and this one needs no network.
    let names: Vec<_> = stages.iter().map(|(from, _)| from.as_str()).collect();
    let expected = [
        "scratch AS base",
        "base AS finished",
        "${RUST} AS build",
        "base",
    ];
    assert_eq!(names, expected);
    let built = said_of_the_image().join("\n");
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

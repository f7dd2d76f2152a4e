//! Repositories of packages: apt.

use std::fs;
use std::path::Path;

use crate::support::TestSite;
use crate::support::tree::has;
use crate::{Observed, client, configured, count, folder, succeeded};

/// Builds the package `etagd-test` in `pool`, a folder below `root`.
fn debian_package(site: &TestSite, pool: &str) {
    let source = folder(site, "package");
    fs::create_dir_all(source.join("DEBIAN")).unwrap();
    let control = "Package: etagd-test\nVersion: 1.0\nArchitecture: all\n\
                   Maintainer: Test <test@site.invalid>\nDescription: a test\n";
    fs::write(source.join("DEBIAN/control"), control).unwrap();
    let target = site.path(pool);
    fs::create_dir_all(&target).unwrap();
    let target = target.join("etagd-test_1.0_all.deb");
    let arguments = ["--root-owner-group", "--build", source.to_str().unwrap()];
    let arguments = [&arguments[..], &[target.to_str().unwrap()]].concat();
    succeeded(client("dpkg-deb", &arguments, &site.root()));
}

/// Runs apt with settings and a state of its own, below `dir`, as nobody in particular.
fn apt(dir: &Path, source: &str, arguments: &[&str]) -> String {
    for folder in [
        "etc/preferences.d",
        "etc/trusted.gpg.d",
        "etc/apt.conf.d",
        "state/lists/partial",
        "cache/archives/partial",
    ] {
        fs::create_dir_all(dir.join(folder)).unwrap();
    }
    fs::write(dir.join("status"), "").unwrap();
    fs::write(dir.join("etc/sources.list"), format!("{source}\n")).unwrap();
    let settings = format!(
        "Dir \"{0}\";\nDir::Etc \"etc\";\nDir::State \"state\";\nDir::State::status \"{0}/status\";\n\
         Dir::Cache \"cache\";\nAPT::Architecture \"amd64\";\nAPT::Architectures {{ \"amd64\"; }};\n\
         APT::Sandbox::User \"\";\nAcquire::Languages \"none\";\nDebug::NoLocking \"1\";\n",
        dir.display()
    );
    let configuration = dir.join("apt.conf");
    fs::write(&configuration, settings).unwrap();
    let variables = [("APT_CONFIG", configuration.as_path())];
    succeeded(configured("apt-get", arguments, dir, &variables))
}

/// Updates twice from a repository, and downloads its package.
fn update_and_download(served: &Observed, source: &str, package: &str) {
    let dir = folder(&served.site, "apt");
    for _ in 0..2 {
        let said = apt(&dir, source, &["update"]);
        assert!(!said.contains("Err:"), "{said}");
    }
    apt(&dir, source, &["download", "etagd-test"]);
    let fetched = fs::read(dir.join("etagd-test_1.0_all.deb")).unwrap();
    assert_eq!(fetched, fs::read(served.site.path(package)).unwrap());
}

#[test]
fn apt_updates_from_a_repository_with_distributions() {
    if !has("apt-get") || !has("apt-ftparchive") || !has("dpkg-deb") {
        return;
    }
    let site = TestSite::new().dir("dists/stable/main/binary-amd64");
    debian_package(&site, "pool");
    let root = site.root();
    let packages = succeeded(client("apt-ftparchive", &["packages", "pool"], &root));
    fs::write(
        site.path("dists/stable/main/binary-amd64/Packages"),
        packages,
    )
    .unwrap();
    let option = |name: &str, value: &str| format!("APT::FTPArchive::Release::{name}={value}");
    let options = [
        option("Codename", "stable"),
        option("Suite", "stable"),
        option("Components", "main"),
        option("Architectures", "amd64"),
    ];
    let mut arguments: Vec<_> = options.iter().flat_map(|option| ["-o", option]).collect();
    arguments.extend(["release", "dists/stable"]);
    let release = succeeded(client("apt-ftparchive", &arguments, &root));
    fs::write(site.path("dists/stable/Release"), release).unwrap();
    let served = Observed::with(site, &[]);
    let source = format!("deb [trusted=yes] {} stable main", served.url("/"));
    update_and_download(&served, &source, "pool/etagd-test_1.0_all.deb");
    let requests = served.requests();
    let unchanged = count(&requests, "GET /dists/stable/Release 304");
    assert_eq!(unchanged, 1, "{requests:?}");
}

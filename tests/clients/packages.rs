//! Repositories of packages: apt, cargo and npm.

use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::support::TestSite;
use crate::support::tree::{eventually, has};
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

#[test]
fn apt_updates_from_a_flat_repository() {
    if !has("apt-get") || !has("apt-ftparchive") || !has("dpkg-deb") {
        return;
    }
    let site = TestSite::new();
    debian_package(&site, "flat");
    let flat = site.path("flat");
    for (index, command) in [("Packages", "packages"), ("Release", "release")] {
        let text = succeeded(client("apt-ftparchive", &[command, "."], &flat));
        fs::write(flat.join(index), text).unwrap();
    }
    let served = Observed::with(site, &[]);
    let source = format!("deb [trusted=yes] {} ./", served.url("/flat/"));
    update_and_download(&served, &source, "flat/etagd-test_1.0_all.deb");
    let requests = served.requests();
    // It asks with `/./`, and has to follow.
    let unchanged = count(&requests, "GET /flat/Release 304");
    assert_eq!(unchanged, 1, "{requests:?}");
    assert!(
        count(&requests, "GET /flat/./Release 308") > 0,
        "{requests:?}"
    );
}

#[test]
fn cargo_reads_a_sparse_index() {
    if !has("cargo") || !has("tar") {
        return;
    }
    let site = || TestSite::new().dir("index/et/ag").dir("crates");
    Observed::each_way(site, &[], cargo_fetch);
}

fn cargo_fetch(served: Observed) {
    let dir = folder(&served.site, "cargo");
    let library = dir.join("etagd-demo-1.0.0");
    fs::create_dir_all(library.join("src")).unwrap();
    let manifest = "[package]\nname = \"etagd-demo\"\nversion = \"1.0.0\"\nedition = \"2021\"\n";
    fs::write(library.join("Cargo.toml"), manifest).unwrap();
    fs::write(library.join("src/lib.rs"), "").unwrap();
    let package = served.site.path("crates/etagd-demo-1.0.0.crate");
    let arguments = ["czf", package.to_str().unwrap(), "etagd-demo-1.0.0"];
    succeeded(client("tar", &arguments, &dir));
    let digest = Sha256::digest(fs::read(&package).unwrap());
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let entry = format!(
        "{{\"name\":\"etagd-demo\",\"vers\":\"1.0.0\",\"deps\":[],\"cksum\":\"{digest}\",\
         \"features\":{{}},\"yanked\":false}}\n"
    );
    fs::write(served.site.path("index/et/ag/etagd-demo"), entry).unwrap();
    let download = served.url("/crates/{crate}-{version}.crate");
    fs::write(
        served.site.path("index/config.json"),
        format!("{{\"dl\":\"{download}\"}}"),
    )
    .unwrap();
    eventually("the index is served", || {
        let mut client = served.server.client();
        let mut is_there = |target: &str| client.get(target).status == 200;
        is_there("/index/config.json")
            && is_there("/index/et/ag/etagd-demo")
            && is_there("/crates/etagd-demo-1.0.0.crate")
    });
    let project = dir.join("project");
    fs::create_dir_all(project.join(".cargo")).unwrap();
    fs::create_dir_all(project.join("src")).unwrap();
    fs::write(project.join("src/lib.rs"), "").unwrap();
    let manifest = "[package]\nname = \"project\"\nversion = \"1.0.0\"\nedition = \"2021\"\n\
                    [workspace]\n[dependencies]\netagd-demo = { version = \"1\", registry = \"here\" }\n";
    fs::write(project.join("Cargo.toml"), manifest).unwrap();
    let index = served.url("/index/");
    let settings = format!("[registries.here]\nindex = \"sparse+{index}\"\n");
    fs::write(project.join(".cargo/config.toml"), settings).unwrap();
    let home = dir.join("home");
    let cargo = env!("CARGO");
    for command in ["fetch", "update"] {
        // rustup's stand-ins for both would look for a toolchain in the home of this test.
        let compiler = Path::new(cargo).with_file_name("rustc");
        let variables = [("CARGO_HOME", home.as_path()), ("RUSTC", &compiler)];
        succeeded(configured(cargo, &[command], &project, &variables));
    }
    let requests = served.requests();
    let fetched = count(&requests, "GET /crates/etagd-demo-1.0.0.crate 200");
    let unchanged = count(&requests, "GET /index/et/ag/etagd-demo 304");
    // This test has asked for it, too.
    assert_eq!((fetched, unchanged), (2, 1), "{requests:?}");
}

#[test]
fn npm_installs_a_package_with_a_scope() {
    if !has("npm") {
        return;
    }
    let served = Observed::with(TestSite::new().dir("@demo").dir("tarballs"), &[]);
    let dir = folder(&served.site, "npm");
    let (source, project) = (dir.join("source"), dir.join("project"));
    for folder in [&source, &project] {
        fs::create_dir_all(folder).unwrap();
    }
    let npm = |arguments: &[&str], place: &Path| {
        let quiet = [
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
            "--no-update-notifier",
        ];
        let arguments = [arguments, &quiet, &["--cache", "cache"]].concat();
        succeeded(client("npm", &arguments, place))
    };
    let manifest = "{\"name\":\"@demo/thing\",\"version\":\"1.0.0\"}";
    fs::write(source.join("package.json"), manifest).unwrap();
    fs::write(source.join("index.js"), "module.exports = 1;\n").unwrap();
    let tarballs = served.site.path("tarballs");
    let arguments = [
        "pack",
        "--json",
        "--pack-destination",
        tarballs.to_str().unwrap(),
    ];
    let packed: serde_json::Value = serde_json::from_str(&npm(&arguments, &source)).unwrap();
    let url = served.url("/tarballs/demo-thing-1.0.0.tgz");
    let document = serde_json::json!({
        "name": "@demo/thing",
        "dist-tags": { "latest": "1.0.0" },
        "versions": { "1.0.0": {
            "name": "@demo/thing",
            "version": "1.0.0",
            "dist": { "tarball": url, "integrity": packed[0]["integrity"] },
        } },
    });
    fs::write(served.site.path("@demo/thing"), document.to_string()).unwrap();
    eventually("the package is served", || {
        let mut client = served.server.client();
        let mut is_there = |target: &str| client.get(target).status == 200;
        is_there("/@demo/thing") && is_there("/tarballs/demo-thing-1.0.0.tgz")
    });
    let manifest = "{\"name\":\"project\",\"dependencies\":{\"@demo/thing\":\"^1.0.0\"}}";
    for _ in 0..2 {
        fs::write(project.join("package.json"), manifest).unwrap();
        let registry = served.url("/");
        npm(
            &["install", "--no-package-lock", "--registry", &registry],
            &project,
        );
        let installed = fs::read(project.join("node_modules/@demo/thing/index.js")).unwrap();
        assert_eq!(installed, fs::read(source.join("index.js")).unwrap());
        fs::remove_dir_all(project.join("node_modules")).unwrap();
    }
    let requests = served.requests();
    for (wanted, times) in [
        ("GET /@demo%2fthing 308", 2),
        ("GET /@demo/thing 304", 1),
        ("GET /tarballs/demo-thing-1.0.0.tgz 200", 1),
    ] {
        // This test has asked for the tarball, too.
        let by_test = usize::from(wanted.ends_with("tgz 200"));
        assert!(
            count(&requests, wanted) >= times + by_test,
            "{wanted}: {requests:?}"
        );
    }
}

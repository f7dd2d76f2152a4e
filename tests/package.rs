//! What is installed: the Debian package, and the crate.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Whether this test may run; in CI nothing may be missing.
fn has(program: &str) -> bool {
    let is_there = Command::new(program).arg("--version").output().is_ok();
    assert!(
        is_there || std::env::var_os("ETAGD_NO_SKIP").is_none(),
        "{program} is missing"
    );
    is_there
}

fn output(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    output
}

/// Packs this test's binary; a static one would take minutes to build.
fn package(folder: &Path) -> PathBuf {
    let mut package = Command::new(top().join("deploy/package"));
    package.arg(env!("CARGO_BIN_EXE_etagd"));
    output(
        package
            .current_dir(folder)
            .env("SOURCE_DATE_EPOCH", "1700000000")
            .env("FAST", "1"),
    );
    let name = format!("dist/etagd_{}_amd64.deb", env!("CARGO_PKG_VERSION"));
    folder.join(name)
}

/// An empty root, `dpkg --install`, the unit's command line, a request, removal and purge.
#[test]
fn the_package_installs_serves_and_goes() {
    if !["dpkg", "dpkg-deb", "unshare", "ip", "curl"]
        .into_iter()
        .all(has)
    {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("ETAGD_NO_SKIP").is_none(), "needs root");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let deb = package(folder.path());
    let tried = output(Command::new(top().join(".ci/try-package")).arg(&deb));
    let said = String::from_utf8(tried.stdout).unwrap();
    assert!(
        said.contains(" s from dpkg --install to the first 200"),
        "{said}"
    );
    #[allow(clippy::print_stderr)]
    {
        eprint!("{said}");
    }
}

/// An empty root with the binary, a list of hosts and a bundle of authorities. `.ci/run` tries the
/// static binary too, and an image of it.
#[test]
fn the_binary_needs_nothing_around_it() {
    if !["unshare", "ip", "curl", "openssl"].into_iter().all(has) {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("ETAGD_NO_SKIP").is_none(), "needs root");
        return;
    }
    let mut tried = Command::new(top().join(".ci/try-image"));
    let said = output(tried.arg(env!("CARGO_BIN_EXE_etagd"))).stdout;
    let said = String::from_utf8(said).unwrap();
    assert!(said.starts_with("an empty root with "), "{said}");
    #[allow(clippy::print_stderr)]
    {
        eprint!("{said}");
    }
}

#[test]
fn the_package_has_what_its_page_names() {
    if !has("dpkg-deb") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let deb = package(folder.path());
    let listed = output(Command::new("dpkg-deb").arg("--contents").arg(&deb));
    let listed = String::from_utf8(listed.stdout).unwrap();
    let files: BTreeSet<_> = listed
        .lines()
        .map(|line| line.split_whitespace().last().unwrap())
        .collect();
    for file in [
        "./usr/bin/etagd",
        "./usr/lib/systemd/system/etagd.service",
        "./usr/lib/systemd/system/etagd.socket",
        "./usr/lib/systemd/system/etagd-redirect.socket",
        "./usr/lib/systemd/system/etagd@.service",
        "./usr/lib/systemd/system/etagd@.socket",
        "./usr/lib/systemd/system/etagd-admin@.socket",
        "./etc/default/etagd",
        "./usr/share/doc/etagd/alerts.yaml",
        "./usr/share/doc/etagd/copyright",
        "./usr/share/doc/etagd/grafana.json",
        "./usr/share/doc/etagd/manual/guide/install.html",
    ] {
        assert!(files.contains(file), "{file} is not in\n{listed}");
    }
    assert!(
        listed.lines().all(|line| line.contains(" root/root ")),
        "{listed}"
    );
    // Another run packs the same bytes.
    let first = fs::read(&deb).unwrap();
    fs::remove_file(&deb).unwrap();
    assert!(fs::read(package(folder.path())).unwrap() == first);
}

/// The units are valid, apart from a binary that is not installed here.
#[test]
fn systemd_takes_the_units() {
    if Command::new("systemd-analyze")
        .arg("--version")
        .output()
        .is_err()
    {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let units = [
        ("etagd.service", "etagd.service"),
        ("etagd.socket", "etagd.socket"),
        ("etagd-redirect.socket", "etagd-redirect.socket"),
        ("etagd@.service", "etagd@blog.service"),
        ("etagd@.socket", "etagd@blog.socket"),
        ("etagd-admin@.socket", "etagd-admin@blog.socket"),
    ];
    for (name, instance) in units {
        let text = fs::read_to_string(top().join("deploy").join(name)).unwrap();
        let text = text.replace("/usr/bin/etagd", env!("CARGO_BIN_EXE_etagd"));
        fs::write(folder.path().join(name), &text).unwrap();
        if instance != name {
            std::os::unix::fs::symlink(name, folder.path().join(instance)).unwrap();
        }
    }
    for (_, instance) in units {
        let mut verify = Command::new("systemd-analyze");
        verify.arg("verify").arg(folder.path().join(instance));
        let verified = output(&mut verify);
        let said = String::from_utf8(verified.stderr).unwrap();
        assert_eq!(said, "", "{instance}");
    }
}

/// `cargo install` needs the sources and the licences, and nobody else's files.
#[test]
fn the_crate_has_what_it_needs_and_no_more() {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["package", "--list", "--allow-dirty", "--offline", "--quiet"]);
    let listed = output(cargo.current_dir(top()));
    let listed = String::from_utf8(listed.stdout).unwrap();
    let others: Vec<_> = listed
        .lines()
        .filter(|file| !file.starts_with("src/"))
        .collect();
    let expected = [
        ".cargo_vcs_info.json",
        "CHANGELOG.md",
        "Cargo.lock",
        "Cargo.toml",
        "Cargo.toml.orig",
        "LICENSE-APACHE",
        "LICENSE-MIT",
        "README.md",
    ];
    assert_eq!(others, expected);
}

/// The address of the project is a placeholder in one place.
#[test]
fn the_address_of_the_project_stands_in_one_place() {
    let manifest = fs::read_to_string(top().join("Cargo.toml")).unwrap();
    let placeholder = "git.example";
    assert_eq!(
        manifest.matches(placeholder).count(),
        2,
        "repository, homepage"
    );
    for other in [
        "README.md",
        "CHANGELOG.md",
        "deploy/package",
        "deploy/Containerfile",
        "deploy/image",
    ] {
        let text = fs::read_to_string(top().join(other)).unwrap();
        assert!(!text.contains(placeholder), "{other}");
    }
}

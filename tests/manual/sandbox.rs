//! A shell in which commands can be run as they stand on a page.
//!
//! It has a network of its own, so that port 80 and 10.0.0.11 can be had, host names of its own,
//! and an empty `/srv`. Programs that would reach out or change the machine are replaced by small
//! scripts that check what can be checked: that a unit, a file or a server is there. All processes
//! in it end with it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::documents::top;
use crate::support::server::command;

/// A program that is replaced: its name and a script that has `$TOP`, the repository.
const REPLACED: &[(&str, &str)] = &[
    // This test is part of `cargo test` already, and installing would build everything again.
    (
        "cargo",
        "case \"$*\" in\n\
        'run --release -- '*) shift 3; exec etagd \"$@\" ;;\n\
        'test' | 'install --locked --path .') ;;\n\
        *) exit 1 ;;\nesac",
    ),
    (
        "apt",
        "case \"$1\" in\n\
        install) exec dpkg-deb --info \"$2\" >/dev/null ;;\n\
        remove) ;;\n\
        *) exit 1 ;;\nesac",
    ),
    // Units that are enabled have a file, those that are reloaded say how.
    (
        "systemctl",
        "case \"$1\" in\n\
        enable) shift 2; for unit; do test -f \"$TOP/deploy/$(echo \"$unit\" | sed 's/@.*\\./@./')\" || exit 1; done ;;\n\
        reload) grep -q ^ExecReload= \"$TOP/deploy/$2.service\" ;;\n\
        *) exit 1 ;;\nesac",
    ),
    (
        "podman",
        "case \"$1\" in\n\
        build) test \"$4 $5\" = '-f deploy/Containerfile' && test -f \"$TOP/$5\" ;;\n\
        run) ;;\n\
        *) exit 1 ;;\nesac",
    ),
    (
        "kubectl",
        "test \"$1 $2\" = 'apply -f' && test -f \"$TOP/$3\"",
    ),
    // Both put a challenge where they are told to, ask for it as the authority does, and leave a
    // certificate of their own making.
    (
        "certbot",
        "webroot() { while test \"$1\" != -w; do shift; done; echo \"$2\"; }\n\
        issue \"$(webroot \"$@\")\"",
    ),
    (
        "lego",
        "webroot() { while test \"$1\" != --http.webroot; do shift; done; echo \"$2\"; }\n\
        issue \"$(webroot \"$@\")\"",
    ),
    (
        "issue",
        "set -e\n\
        challenges=$1/.well-known/acme-challenge\n\
        mkdir -p \"$challenges\"\n\
        echo token >\"$challenges/next\" && mv \"$challenges/next\" \"$challenges/token\"\n\
        test \"$(curl -s --retry 40 --retry-delay 1 --retry-all-errors --fail \
            http://www.example.org/.well-known/acme-challenge/token)\" = token\n\
        rm -r \"$1/.well-known\"\n\
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 \
            -subj /CN=www.example.org -addext subjectAltName=DNS:www.example.org \
            -keyout /srv/tls/privkey.pem -out /srv/tls/fullchain.pem 2>/dev/null",
    ),
    // What a CDN has for purges; every line is a path.
    (
        "purge",
        "for path; do case \"$path\" in /*) ;; *) exit 1 ;; esac; done",
    ),
    (
        "purge-my-cdn",
        "for path; do case \"$path\" in /*) ;; *) exit 1 ;; esac; done",
    ),
    // The other machine is this one.
    ("ssh", "shift; exec \"$@\""),
    (
        "rsync",
        "exec /usr/bin/rsync \"$1\" \"$2\" \"$3\" \"${4#*:}\"",
    ),
];

/// What one command did.
#[derive(Debug)]
pub(crate) struct Run {
    /// Both of its outputs.
    pub(crate) output: String,
    /// Its exit code; none for a server.
    pub(crate) status: Option<i32>,
    /// It served until something else was started, or until the end.
    pub(crate) is_server: bool,
}

/// See the module.
pub(crate) struct Sandbox;

impl Sandbox {
    /// Runs commands one after the other, after some servers have started; none where this machine
    /// can't have a sandbox, and tests may be skipped.
    pub(crate) fn run(before: &[&str], commands: &[&str]) -> Option<Vec<Run>> {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path();
        prepare(home);
        let script = script(home, before, commands);
        fs::write(home.join("script"), script).unwrap();
        let path = std::env::var("PATH").unwrap();
        let mut unshare = command("unshare");
        unshare
            .args(["--net", "--mount", "--pid", "--fork", "--kill-child"])
            .args(["timeout", "--kill-after=1", "120", "bash"])
            .arg(home.join("script"))
            .env("PATH", format!("{}:{path}", home.join("bin").display()))
            .env("TOP", top())
            .env("HOME", home)
            .current_dir(home.join("work"))
            .stdin(Stdio::null());
        let ended = match unshare.output() {
            Ok(ended) => ended,
            Err(error) => return skip(&error.to_string()),
        };
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        if said.contains("unshare failed") {
            return skip(&said);
        }
        let runs: Vec<_> = (0..commands.len())
            .map(|number| read_run(home, number))
            .collect();
        let status = ended.status;
        assert!(status.success(), "{status}: {said}{commands:#?}\n{runs:#?}");
        Some(runs)
    }
}

fn skip<T>(reason: &str) -> Option<T> {
    assert!(std::env::var_os("ETAGD_NO_SKIP").is_none(), "{reason}");
    #[allow(clippy::print_stderr)]
    {
        eprintln!("skipped: no sandbox: {reason}");
    }
    None
}

fn read_run(home: &Path, number: usize) -> Run {
    let file = |name: &str| fs::read_to_string(home.join(format!("{name}.{number}"))).ok();
    let status = file("status").and_then(|text| text.trim().parse().ok());
    Run {
        output: file("output").unwrap_or_default(),
        is_server: status.is_none(),
        status,
    }
}

/// Makes the programs, and the directories that pages speak of.
fn prepare(home: &Path) {
    let bin = home.join("bin");
    fs::create_dir(&bin).unwrap();
    let write = |path: &Path, script: &str| {
        fs::write(path, format!("#!/bin/bash\n{script}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    for (name, script) in REPLACED {
        write(&bin.join(name), script);
    }
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_etagd"), bin.join("etagd")).unwrap();
    let work = home.join("work");
    for folder in ["deploy", "app/assets", "blog", "shop"] {
        fs::create_dir_all(work.join(folder)).unwrap();
    }
    for site in ["sample-site", "public", "dist", "changed", "last"] {
        let mut copy = Command::new("cp");
        copy.args(["-r", "--preserve=timestamps"])
            .arg(top().join("sample-site"))
            .arg(work.join(site));
        assert!(copy.status().unwrap().success());
    }
    // A page's link to nowhere shows the error page; what `lint` says of it is shown, too.
    fs::write(work.join("changed/hello.txt"), "changed").unwrap();
    fs::write(work.join("app/index.html"), "<!doctype html><p>app").unwrap();
    fs::write(work.join("blog/name.txt"), "blog\n").unwrap();
    fs::write(work.join("shop/name.txt"), "shop\n").unwrap();
    // A package of this very binary; a static one would be built first, for minutes.
    let package = format!(
        "FAST=1 exec \"$TOP/deploy/package\" {}",
        env!("CARGO_BIN_EXE_etagd")
    );
    write(&work.join("deploy/package"), &package);
    // Images are tried by .ci/try-image; what one is made of is here.
    let image = "test -x \"$TOP/deploy/image\" && tar -tzf \"$1\" | grep -q /etagd$";
    write(&work.join("deploy/image"), image);
    let names = [
        "127.0.0.1 localhost example.org www.example.org",
        "10.0.0.11 replica-a.example",
        "10.0.0.12 replica-b.example",
    ];
    fs::write(home.join("hosts"), names.join("\n") + "\n").unwrap();
}

/// The functions of the shell.
const FUNCTIONS: &str = r#"
set -u
servers=()

stop() {
    # Without a name, `wait` would wait for those that pages take for granted, too.
    ((${#servers[@]})) || return 0
    for each in "${servers[@]}"; do kill -INT "$each"; done
    wait "${servers[@]}"
    servers=()
}

# A server, until another one is started in its place, or until the end; with `&`, beside others.
# Goes on when it has said that it serves.
serve() { # NUMBER COMMAND
    local line said="$HOME/output.$1" command=$2
    case $command in *'&') command=${command%&} ;; *) stop ;; esac
    mkfifo "$HOME/fifo.$1"
    eval "exec env $command" >"$HOME/fifo.$1" 2>&1 &
    case $1 in before-*) ;; *) servers+=($!) ;; esac
    exec 9<"$HOME/fifo.$1"
    while IFS= read -r -t 30 -u 9 line; do
        printf '%s\n' "$line" >>"$said"
        case $line in *'listening on '* | *'  Digest '* | *'not ready until'*) break ;; esac
    done
    cat <&9 >>"$said" &
    exec 9<&-
}

run() { # NUMBER COMMAND
    eval "$2" >"$HOME/output.$1" 2>&1
    echo $? >"$HOME/status.$1"
}
"#;

fn script(home: &Path, before: &[&str], commands: &[&str]) -> String {
    let mut script = FUNCTIONS.to_owned();
    script += "set -e\nip link set lo up\nmount --make-rprivate /\n";
    for address in ["10.0.0.1", "10.0.0.2", "10.0.0.11", "10.0.0.12"] {
        script += &format!("ip address add {address}/32 dev lo\n");
    }
    let hosts = home.join("hosts");
    script += &format!("mount --bind '{}' /etc/hosts\n", hosts.display());
    script += "mount -t tmpfs tmpfs /srv\ncp -r dist /srv/site\nset +e\n";
    for (number, server) in before.iter().enumerate() {
        script += &format!("serve before-{number} {}\n", quoted(&format!("{server} &")));
    }
    for (number, command) in commands.iter().enumerate() {
        let function = if is_server(command) { "serve" } else { "run" };
        script += &format!("{function} {number} {}\n", quoted(command));
    }
    script + "stop\nexit 0\n"
}

/// Whether a command runs until it is stopped.
fn is_server(command: &str) -> bool {
    let mut words = command
        .split(' ')
        .skip_while(|word| word.contains('=') && word.starts_with("ETAGD_"));
    let is_etagd = match words.next() {
        Some("etagd") => true,
        Some("cargo") => words.by_ref().any(|word| word == "--"),
        _ => false,
    };
    is_etagd && matches!(words.next(), Some("serve" | "dev")) && !command.contains(';')
}

fn quoted(command: &str) -> String {
    format!("'{}'", command.replace('\'', "'\\''"))
}

#[test]
fn servers_are_known() {
    for (command, expected) in [
        ("etagd serve public", true),
        ("etagd dev public --open", true),
        ("ETAGD_LISTEN=:80 etagd serve public", true),
        ("cargo run --release -- serve sample-site", true),
        ("etagd manifest public", false),
        ("etagd serve nowhere; echo $?", false),
        ("cargo test", false),
        ("curl -s etagd serve", false),
    ] {
        assert_eq!(is_server(command), expected, "{command}");
    }
}

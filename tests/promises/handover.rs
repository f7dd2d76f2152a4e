//! P9: from one process to the next on the same socket, no connection is refused and none is cut.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use rustix::process::Signal;

use crate::support::server::command;
use crate::support::wire::head;
use crate::support::{Client, Server, TestSite, noise};

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn copy(listener: &TcpListener) -> Option<OwnedFd> {
    Some(listener.try_clone().unwrap().into())
}

/// A site whose two files say which one it is; the second is read in groups.
fn site(name: &str) -> TestSite {
    let seed = u64::from(name.as_bytes()[0]);
    TestSite::with(&[("name", name.as_bytes()), ("big", &noise(300_000, seed))])
}

/// Clients that ask without a pause, and what went wrong for them.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    /// Some with a connection for each request, some that keep theirs for as long as they may.
    fn on(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicUsize::new(0));
        let clients = (0..6).map(|number| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            let target = if number < 4 { "/name" } else { "/big" };
            thread::spawn(move || ask(address, target, number % 2 == 0, &stop, &answered))
        });
        let clients = clients.collect();
        Self {
            stop,
            answered,
            clients,
        }
    }

    /// Waits for so many more answers.
    fn go_on(&self, answers: usize) {
        let until = self.answered.load(Ordering::Relaxed) + answers;
        while self.answered.load(Ordering::Relaxed) < until {
            assert!(
                self.clients.iter().any(|client| !client.is_finished()),
                "every client has given up"
            );
            thread::yield_now();
        }
    }

    /// Everything that has gone wrong.
    fn failures(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        let clients = self.clients.into_iter();
        clients.flat_map(|client| client.join().unwrap()).collect()
    }
}

fn ask(
    address: SocketAddr,
    target: &str,
    keeps: bool,
    stop: &AtomicBool,
    answered: &AtomicUsize,
) -> Vec<String> {
    let mut failures = Vec::new();
    let mut kept = None;
    let fields: &[_] = if keeps {
        &[]
    } else {
        &[("Connection", "close")]
    };
    // Who is refused once is so a thousand times.
    while !stop.load(Ordering::Relaxed) && failures.len() < 10 {
        let exchange = || -> io::Result<_> {
            let mut client = match kept.take() {
                Some(client) => client,
                None => Client::try_connect(address)?,
            };
            client.send(head("GET", target, fields))?;
            let response = client.receive("GET")?.ok_or(io::ErrorKind::UnexpectedEof)?;
            Ok((client, response))
        };
        match { exchange }() {
            Ok((client, response)) => {
                if response.status != 200 || response.cut || !response.is_what_its_tag_says() {
                    failures.push(format!(
                        "{target}: {}, cut: {}",
                        response.status, response.cut
                    ));
                }
                answered.fetch_add(1, Ordering::Relaxed);
                kept = (keeps && !response.says_close()).then_some(client);
            }
            Err(error) => failures.push(format!("{target}, keeps {keeps}: {error}")),
        }
    }
    failures
}

#[test]
fn p9_clients_of_an_inherited_socket_wait_for_the_scan() {
    let (tcp, address) = listener();
    let site = site("a");
    let path = site.outside("inherited.sock");
    let unix = UnixListener::bind(&path).unwrap();
    let mut clients = (Client::connect(address), Client::connect_unix(&path));
    clients.0.send(head("GET", "/name", &[])).unwrap();
    clients.1.send(head("GET", "/name", &[])).unwrap();
    let sockets = [copy(&tcp), Some(unix.try_clone().unwrap().into())];
    let mut server = Server::inherit(sockets, "", &site.root(), &[]);
    let answers = [clients.0.receive("GET"), clients.1.receive("GET")];
    for answer in answers {
        assert_eq!(answer.unwrap().unwrap().body, b"a");
    }
    // The default address is not used in addition to them.
    server.wait_for(|lines| {
        lines
            .iter()
            .filter(|line| line.starts_with("listening on "))
            .count()
            == 2
    });
    let log = server.log();
    assert!(
        log.contains(&format!("listening on http://{address}")),
        "{log}"
    );
    assert!(
        log.contains(&format!("listening on unix:{}", path.display())),
        "{log}"
    );

    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    // They are not ours to close: the next process gets who comes now.
    let mut client = Client::connect(address);
    client.send(head("GET", "/name", &[])).unwrap();
    assert!(path.exists(), "the path of an inherited socket is removed");
    let _next = Server::inherit([copy(&tcp), None], "", &site.root(), &[]);
    assert_eq!(client.receive("GET").unwrap().unwrap().body, b"a");
}

#[test]
fn p9_an_inherited_socket_may_be_the_operators() {
    let ((public, address), (admin, admin_address)) = (listener(), listener());
    let site = site("a");
    let sockets = [copy(&admin), copy(&public)];
    let server = Server::inherit(sockets, "admin:web", &site.root(), &[]);
    server.wait_until_listening();
    assert_eq!(server.admin(), admin_address);
    assert_eq!(server.address(), address);
    assert_eq!(Client::connect(admin_address).get("/readyz").status, 200);
    assert_eq!(Client::connect(admin_address).get("/name").status, 404);
    assert_eq!(Client::connect(address).get("/readyz").status, 404);
    assert_eq!(Client::connect(address).get("/name").status, 200);
}

#[test]
fn p9_a_given_address_is_used_in_addition_to_inherited_sockets() {
    let (public, address) = listener();
    let site = site("a");
    let flags = ["--listen", "127.0.0.1:0"];
    let server = Server::inherit([copy(&public), None], "", &site.root(), &flags);
    server.wait_for(|lines| {
        let addresses = lines
            .iter()
            .filter_map(|line| line.strip_prefix("listening on http://"));
        let addresses: Vec<SocketAddr> = addresses.map(|text| text.parse().unwrap()).collect();
        addresses.len() == 2 && addresses[0] == address && addresses[1] != address
    });
}

#[test]
fn p9_an_inherited_socket_that_does_not_listen_is_reported() {
    let site = site("a");
    let file = std::fs::File::open(site.path("name")).unwrap();
    let (public, address) = listener();
    let connected = std::net::TcpStream::connect(address).unwrap();
    drop(public);
    for (socket, told) in [
        (file.into(), "not a socket"),
        (connected.into(), "is not listening"),
    ] {
        let mut server = Server::inherit([Some(socket), None], "", &site.root(), &[]);
        assert_eq!(server.wait().code(), Some(1));
        let log = server.log();
        assert!(log.contains(told) && log.contains("LISTEN_FDS"), "{log}");
    }
}

#[test]
fn p9_sockets_that_are_meant_for_another_process_are_left_alone() {
    let site = site("a");
    let mut program = command(env!("CARGO_BIN_EXE_etagd"));
    program.env("LISTEN_FDS", "1").env("LISTEN_PID", "1");
    let server = Server::run(program, &site.root(), &[]);
    assert_eq!(server.client().get("/name").status, 200);
}

#[test]
fn p9_from_process_to_process_on_one_socket_nothing_fails() {
    let (socket, address) = listener();
    let sites = ["a", "b", "c"].map(site);
    let start = |site: &TestSite| {
        let flags = ["--drain", "500ms"];
        let server = Server::inherit([copy(&socket), None], "", &site.root(), &flags);
        server.wait_until_listening();
        server
    };
    let mut serving = start(&sites[0]);
    let load = Load::on(address);
    load.go_on(200);
    for site in &sites[1..] {
        let next = start(site);
        load.go_on(200);
        serving.signal(Signal::TERM);
        assert_eq!(serving.wait().code(), Some(0), "{}", serving.log());
        serving = next;
        load.go_on(200);
    }
    let failures = load.failures();
    assert!(failures.is_empty(), "{failures:#?}");
    assert_eq!(Client::connect(address).get("/name").body, b"c");
}

/// Set in the process that has a network of its own.
const OWN_NETWORK: &str = "ETAGD_TEST_OWN_NETWORK";

#[test]
fn p9_from_process_to_process_on_one_port_nothing_fails() {
    let name = "handover::p9_from_process_to_process_on_one_port_nothing_fails";
    if std::env::var_os(OWN_NETWORK).is_none() {
        return in_own_network(name);
    }
    let (free, address) = listener();
    drop(free);
    let listen = address.to_string();
    let sites = ["a", "b", "c"].map(site);
    let start = |site: &TestSite| {
        let flags = ["--listen", &listen, "--reuse-port", "--drain", "500ms"];
        Server::with(site, &flags)
    };
    let mut serving = start(&sites[0]);
    // Who does not ask to share does not.
    Server::assert_fails(&sites[1].root(), &["--listen", &listen], 1, &[&listen]);
    let load = Load::on(address);
    load.go_on(200);
    for site in &sites[1..] {
        let next = start(site);
        load.go_on(200);
        serving.signal(Signal::TERM);
        assert_eq!(serving.wait().code(), Some(0), "{}", serving.log());
        serving = next;
        load.go_on(200);
    }
    let failures = load.failures();
    assert!(failures.is_empty(), "{failures:#?}");
    assert_eq!(Client::connect(address).get("/name").body, b"c");

    // What waits for a process that is gone without a word, the kernel hands on.
    let _next = start(&sites[0]);
    serving.signal(Signal::STOP);
    let status = format!("/proc/{}/status", serving.pid());
    while !std::fs::read_to_string(&status)
        .unwrap()
        .contains("State:\tT")
    {
        thread::yield_now();
    }
    let mut clients: Vec<_> = (0..20).map(|_| Client::connect(address)).collect();
    for client in &mut clients {
        client.send(head("GET", "/name", &[])).unwrap();
    }
    serving.signal(Signal::KILL);
    for client in &mut clients {
        let answer = client.receive("GET").unwrap();
        assert_eq!(answer.expect("an answer").body, b"a");
    }
}

/// Runs a test of this file again, in a network where closed listeners hand on what they have.
fn in_own_network(test: &str) {
    let setup =
        "ip link set lo up && echo 1 >/proc/sys/net/ipv4/tcp_migrate_req && exec \"$0\" \"$@\"";
    let mut unshare = Command::new("unshare");
    unshare.args(["--net", "sh", "-c", setup]);
    unshare.arg(std::env::current_exe().unwrap());
    unshare.args(["--exact", test, "--nocapture"]);
    let reason = match unshare.env(OWN_NETWORK, "1").output() {
        Ok(output) if output.status.success() => return,
        Ok(output) => {
            let said = [output.stderr, output.stdout].concat();
            let said = String::from_utf8_lossy(&said);
            assert!(said.contains("unshare failed"), "{said}");
            said.into_owned()
        }
        // In CI a missing tool is a failure, not a reason to skip.
        Err(error) => {
            assert!(
                std::env::var_os("ETAGD_NO_SKIP").is_none(),
                "unshare: {error}"
            );
            error.to_string()
        }
    };
    #[allow(clippy::print_stderr)]
    {
        eprintln!("skipped: no network of one's own: {reason}");
    }
}

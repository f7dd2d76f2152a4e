//! Replicas: several etagds, each with a copy of the site of its own.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::Signal;

use super::site::MTIME;
use super::tree::eventually;
use super::{Client, Server, TestSite};

/// Three replicas of one site, as `deploy/` has them.
pub(crate) struct Fleet {
    pub(crate) replicas: [Replica; 3],
}

/// One process, and what it serves.
pub(crate) struct Replica {
    pub(crate) site: TestSite,
    pub(crate) server: Server,
    pub(crate) public: SocketAddr,
    pub(crate) admin: SocketAddr,
    flags: Vec<String>,
}

impl Fleet {
    /// Three processes, and a copy of the site for each: the same bytes, in other inodes and with
    /// other mtimes.
    pub(crate) fn of(files: &[(String, Vec<u8>)], flags: &[&str]) -> Self {
        let net = own_network();
        let replica = |number: u8| {
            let site = copy(files, MTIME + 86_400 * i64::from(number));
            let any: SocketAddr = ([127, net[0], net[1], number], 0).into();
            Replica::start(
                site,
                any,
                any,
                flags.iter().map(ToString::to_string).collect(),
            )
        };
        Self {
            replicas: [1, 2, 3].map(replica),
        }
    }

    /// The public and the admin address of each.
    pub(crate) fn addresses(&self) -> [(SocketAddr, SocketAddr); 3] {
        self.replicas
            .each_ref()
            .map(|replica| (replica.public, replica.admin))
    }

    /// Bytes of bodies that the replicas have sent to whoever stands before them.
    pub(crate) fn body_bytes(&self) -> usize {
        let sent = |replica: &Replica| {
            let page = Client::connect(replica.admin).get("/metrics").body;
            let page = String::from_utf8(page).unwrap();
            let line = page
                .lines()
                .find_map(|line| line.strip_prefix("etagd_body_bytes_total "));
            line.unwrap().parse::<usize>().unwrap()
        };
        self.replicas.iter().map(sent).sum()
    }
}

impl Replica {
    fn start(site: TestSite, public: SocketAddr, admin: SocketAddr, flags: Vec<String>) -> Self {
        let (listen, operator) = (public.to_string(), admin.to_string());
        let mut arguments = vec!["--listen", &listen, "--admin", &operator];
        arguments.extend(flags.iter().map(String::as_str));
        let server = Server::with(&site, &arguments);
        let (public, admin) = (server.address(), server.admin());
        let replica = Self {
            site,
            server,
            public,
            admin,
            flags,
        };
        eventually("a replica is ready", || {
            Client::connect(admin).get("/readyz").status == 200
        });
        replica
    }

    /// Ends the process as a supervisor does, and starts another with another site on the same
    /// addresses.
    pub(crate) fn replace(&mut self, site: TestSite) {
        self.server.signal(Signal::TERM);
        let status = self.server.wait();
        assert!(status.success(), "{status}:\n{}", self.server.log());
        *self = Self::start(site, self.public, self.admin, self.flags.clone());
    }
}

/// A site of these files, all of them of this age.
pub(crate) fn copy(files: &[(String, Vec<u8>)], mtime: i64) -> TestSite {
    files.iter().fold(TestSite::new(), |site, (path, content)| {
        site.file_dated(path.trim_start_matches('/'), content, mtime)
    })
}

/// The middle of 127.x.y.z, for this fleet alone: nobody else can take a port of it between two
/// processes that follow one another.
pub(crate) fn own_network() -> [u8; 2] {
    static FLEETS: AtomicU32 = AtomicU32::new(0);
    let fleet = FLEETS.fetch_add(1, Ordering::Relaxed);
    let [_, _, high, low] = (std::process::id() * 16 + fleet).to_be_bytes();
    // Not 127.0.0.0/16, where everybody is.
    [high | 1, low]
}

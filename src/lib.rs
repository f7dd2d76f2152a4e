//! etagd serves a site directory over HTTP. At start it hashes every file into a *manifest* of
//! strong, content-based entity tags; every conditional request is answered from it.
//!
//! # The house, in reading order
//!
//! A module imports only from floors below its own; a test keeps it so.
//!
//! | Floor | Module | Subject |
//! |---|---|---|
//! | 4 | [`answer`] | the heart: manifest + request head -> what to say; pure |
//! | 2 | [`locate`] | clean URLs: the path asked for -> the file that answers; pure |
//! | 6 | [`service`] | one request in, one response out |
//! | 5 | [`exchange`] | one request and its response: counted, written down |
//! | 7 | [`server`] | listeners, workers, limits, drain |
//! | 2 | [`manifest`] | one immutable state of the site: path -> resource, digest |
//! | 1 | [`representation`] | what can be sent: tag, coding, length, data |
//! | 1 | [`rules`] | the site's `_headers` and `_redirects`: parse and match |
//! | 3 | [`body`] | content on the wire, proven piece by piece |
//! | 3 | [`listing`] | what a directory without an index shows |
//! | 3 | [`scan`] | disk -> representations |
//! | 4 | [`site`] | the one shared, changing thing: the published manifest |
//! | 5 | [`watch`] | what keeps the manifest true while files change |
//! | 3 | [`purge`] | the URLs that a cache should forget |
//! | 4 | [`release`] | the manifest that a build made, and a tree that has to prove it |
//! | 5 | [`hook`] | a command that runs after each publication |
//! | 5 | [`write`] | PUT and DELETE: who may write what, and its way to the disk |
//! | 3 | [`commit`] | a write that waits for its turn, and what becomes of it |
//! | 5 | [`state`] | the manifest on disk: what a restart need not hash again |
//! | 5 | [`lint`] | what will not be served as its author hopes |
//! | 5 | [`compress`] | sidecars, written ahead of time |
//! | 5 | [`dev`] | what a developer's server adds: pages that reload by themselves |
//! | 5 | [`admin`] | what the operator asks: alive, ready, which site |
//! | 0 | [`semantics`] | RFC 9110 as pure functions |
//! | 0 | [`progress`] | how many bytes of some work are done |
//! | 0 | [`page`] | the page that an error has where the site has none |
//! | 2 | [`memory`] | the one budget for content |
//! | 0 | [`disk`] | a root that can't be left, stamps, reads |
//! | 0 | [`lease`] | whether anybody has a file open for writing |
//! | 1 | [`config`] | flags as typed -> configuration as meant |
//! | 1 | [`inventory`] | a manifest as JSON, written and read back; what lies between two |
//! | 1 | [`metrics`] | counters of what happens, and their text |
//! | 1 | [`staging`] | a directory to write into, nothing of it half-written |
//! | 3 | [`readiness`] | whether a balancer may send requests |
//! | 3 | [`access`] | the access log |
//! | 0 | [`client`] | which client a request comes from, where proxies stand between |
//! | 2 | [`log`] | messages for the operator |
//! | 7 | [`replica`] | whether several replicas serve the same site |
//! | 7 | [`push`] | a directory brought to a server, no update of others lost |
//! | 2 | [`remote`] | the client's side of HTTP |
//! | 8 | [`cli`] | what each subcommand does |
//!
//! # Four paths
//!
//! **Start.** Flags -> [`config::Config`] -> answer the operator ([`admin`]: alive, not ready) ->
//! bind the listeners (fail before slow work) -> scan the root against nothing, or against what was
//! [`state`] -> publish the manifest in a [`site::Site`] -> listen and accept -> ready. The watch is
//! armed before the scan, so that nothing falls between the two.
//!
//! **Request.** Bytes -> hyper -> [`site::Site::current`], the only load -> [`answer::answer`]:
//! method (405) -> target (400) -> locate (404, redirect) -> Accept-Encoding selects the
//! representation -> preconditions (412, 304) -> range (206, 416) -> [`service`] picks the
//! prepared fields and attaches the body. A body's byte leaves only from private memory whose
//! BLAKE3 was computed from that same memory; one that can't is cut short, never completed.
//!
//! **Write.** [`write::Writer`]: who (401) -> what, under which condition (428, 412) -> a hidden file
//! beside the target, hashed while it is received -> fsync -> a [`commit::WriteJob`] on the
//! watcher's thread, which races with no look: condition against the disk -> rename -> published
//! -> fsync of the directory -> 201 or 204.
//!
//! **Change.** Event ("look there") -> dirty paths -> quiet period -> barrier ->
//! [`scan::Scanner::reconcile`] -> [`site::Site::update`], the only publication. Events are
//! hints, never facts; a sweep finds what none reports.
//!
//! [`write`]: mod@write

pub mod answer;
pub mod exchange;
pub mod locate;
pub mod service;

pub mod server;

pub mod body;
pub mod listing;
pub mod manifest;
pub mod representation;
pub mod rules;
pub mod scan;
pub mod site;
pub mod state;
pub mod watch;

pub mod commit;
pub mod write;

pub mod admin;
pub mod compress;
pub mod dev;
pub mod hook;
pub mod lint;
pub mod purge;
pub mod push;
pub mod release;
pub mod remote;
pub mod replica;

pub mod access;
pub mod client;
pub mod config;
pub mod disk;
pub mod inventory;
pub mod lease;
pub mod log;
pub mod memory;
pub mod metrics;
pub mod page;
pub mod progress;
pub mod readiness;
pub mod semantics;
pub mod staging;

pub mod cli;

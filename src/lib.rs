//! etagd serves a site directory over HTTP. At start it hashes every file into a *manifest* of
//! strong, content-based entity tags; every conditional request is answered from it.
//!
//! This library exists for the `etagd` binary, its tests and its benches. **It has no stable API**:
//! any item may change or go in any release. What is stable is the command line, the HTTP
//! interface, the metrics' names and the JSON forms.
//!
//! # Modules
//!
//! A module imports only from floors below its own, and its files do not use each other in a
//! circle; `tests/house` reads the tables and keeps it so. To get to know the code, read
//! [`answer`], [`service`], [`server`], [`manifest`], [`scan`] and [`watch`], in this order.
//! `docs/ARCHITECTURE.md` has the promises that are cited as P1 to P11, and says how to add a flag,
//! a field, a rule or a subcommand.
//!
//! ## Protocol: what HTTP asks for, without I/O
//!
//! | Floor | Module | Subject |
//! |---|---|---|
//! | 0 | [`semantics`] | RFC 9110 as pure functions |
//! | 2 | [`locate`] | clean URLs: the requested path -> the file that answers; pure |
//! | 4 | [`answer`] | the heart: a manifest and a request head -> what to say; pure |
//! | 1 | [`client`] | the client's address, when there are proxies in between |
//!
//! ## Site: what there is to send, and how it is read from disk
//!
//! | Floor | Module | Subject |
//! |---|---|---|
//! | 2 | [`manifest`] | one immutable state of the site: path -> resource, digest |
//! | 1 | [`representation`] | what can be sent: tag, coding, length, data |
//! | 1 | [`rules`] | the site's `_headers`, `_redirects` and `.etagdignore`: parse and match |
//! | 3 | [`scan`] | disk -> representations |
//! | 4 | [`site`] | the published manifest, the one thing that is shared and changes |
//! | 3 | [`listing`] | a directory's files, where it has no index |
//! | 1 | [`inventory`] | a manifest as JSON: written, read back, compared |
//! | 4 | [`release`] | `--manifest`: a build's list of files, which the tree must prove |
//! | 1 | [`cache`] | `--cache`: names and bytes, kept for other processes and the next start |
//! | 0 | [`disk`] | a root that no path leaves, file metadata, reads |
//! | 0 | [`exclude`] | which paths are left out, by pattern; pure |
//! | 0 | [`heap`] | memory that was needed for a short time goes back to the system |
//! | 0 | [`lease`] | whether a process has a file open for writing |
//! | 2 | [`memory`] | the memory budget for content |
//! | 3 | [`store`] | releases in a bucket or a folder: what the objects are, and how they are read and written |
//! | 1 | [`sealed`] | memory that nobody can change, sent without a copy |
//!
//! ## Serving: from a connection to a response
//!
//! | Floor | Module | Subject |
//! |---|---|---|
//! | 7 | [`server`] | listeners, workers, limits, drain |
//! | 6 | [`service`] | a request through the layers, and its response back |
//! | 5 | [`exchange`] | one request and its response, as they are counted and logged |
//! | 3 | [`body`] | content on the wire, checked piece by piece |
//! | 0 | [`page`] | built-in error pages |
//! | 7 | [`dev`] | what a developer's server adds: pages that reload by themselves |
//!
//! ## Changing: what keeps the manifest true, and what may change the site
//!
//! | Floor | Module | Subject |
//! |---|---|---|
//! | 5 | [`watch`] | events, quiet period, sweeps: from a change on disk to the next manifest |
//! | 5 | [`write`] | PUT and DELETE: tokens, conditions, uploads |
//! | 6 | [`follow`] | a site whose releases are in a store: from a release there to the next manifest |
//! | 3 | [`commit`] | a write that waits for its turn, and its outcome |
//! | 1 | [`staging`] | temporary files, so that nothing is ever half-written |
//! | 5 | [`state`] | `--state`: the saved manifest, so that a restart need not hash again |
//! | 5 | [`hook`] | `--on-publish`: a command that runs after each publication |
//! | 3 | [`purge`] | the URLs that a cache should forget |
//!
//! ## Tools: the other subcommands
//!
//! | Floor | Module | Subject |
//! |---|---|---|
//! | 5 | [`lint`] | what will not be served as its author expects |
//! | 5 | [`compress`] | sidecars, written ahead of time |
//! | 7 | [`publish`] | makes releases in a store, brings earlier ones back, and deletes what none needs |
//! | 7 | [`push`] | uploads a directory, and overwrites no change of anybody else |
//! | 7 | [`replica`] | compares what several servers serve |
//! | 2 | [`remote`] | an HTTP client |
//! | 0 | [`trust`] | the certificate authorities that a client trusts |
//! | 0 | [`progress`] | how many bytes of some work are done |
//!
//! ## Operating: what the operator sets and sees
//!
//! | Floor | Module | Subject |
//! |---|---|---|
//! | 8 | [`cli`] | the subcommands, from parsed flags to the exit code |
//! | 7 | [`config`] | the command line: flags as typed -> settings and options |
//! | 1 | [`settings`] | what the operator chose, free of the command line |
//! | 5 | [`admin`] | the operator's endpoints: alive, ready, which site |
//! | 3 | [`readiness`] | whether a balancer may send requests |
//! | 1 | [`metrics`] | counters, and their text form |
//! | 0 | [`beat`] | whether work that must never stop gets on |
//! | 3 | [`access`] | the access log |
//! | 2 | [`log`] | messages for the operator |
//! | 0 | [`locks`] | locks that are taken even if their holder has panicked |
//! | 0 | [`resolver`] | where a static binary looks host names up |
//!
//! # Five paths
//!
//! **Start.** Flags -> [`config::Config`] -> the operator's endpoints ([`admin`]: alive, not ready)
//! -> bind the listeners (this can fail, so it comes before the slow work) -> arm the watch, so that
//! no change is missed -> scan the root, against nothing or against the saved [`state`] -> publish
//! the manifest in a [`site::Site`] -> listen and accept -> ready.
//!
//! **Request.** Bytes -> the front, which reads plain requests, or hyper, which reads all others ->
//! the layers of [`service`], from the outside in: count and log ->
//! the developer's server ([`dev`]), or health and writes, where there are such -> the site, which
//! loads [`site::Site::current`] once and asks [`answer::answer`]: method (405) -> target (400) ->
//! locate (404, redirect) -> Accept-Encoding selects the representation -> preconditions (412, 304)
//! -> range (206, 416). It picks the prepared fields and attaches the body; on the way back the
//! outermost layer finishes the head. A body's byte leaves only from private memory whose BLAKE3
//! was computed from that same memory; one that can't is cut short, never completed.
//!
//! **Write.** [`write::Writer`]: who asks (401, 403) -> under which condition (428, 412) -> the body
//! goes to a hidden file on the same file system and is hashed as it arrives -> fsync -> a
//! [`commit::WriteJob`] on the watcher's thread, so that no scan runs at the same time: the condition
//! against the disk -> rename -> publish -> fsync of the directory -> 201 or 204.
//!
//! **Change.** An event is a hint ("look there") -> dirty paths -> quiet period ->
//! [`scan::Scanner::reconcile`] reads what is on disk now -> [`site::Site::update`], the only way to
//! publish. Sweeps find what no event reports.
//!
//! **Release.** A poll, a sweep or a request finds a newer number -> record -> listing ->
//! [`scan::Scanner::assemble`] makes a manifest, whose digest proves it -> what memory has room for is
//! fetched -> [`site::Site::update`]. A body asks for each other piece when it needs it.
//!
//! [`write`]: mod@write

// Protocol.
pub mod answer;
pub mod client;
pub mod locate;
pub mod semantics;

// Site.
pub mod cache;
pub mod disk;
pub mod exclude;
pub mod heap;
pub mod inventory;
pub mod lease;
pub mod listing;
pub mod manifest;
pub mod memory;
pub mod release;
pub mod representation;
pub mod rules;
pub mod scan;
pub mod sealed;
pub mod site;
pub mod store;

// Serving.
pub mod body;
pub mod dev;
pub mod exchange;
pub mod page;
pub mod server;
pub mod service;

// Changing.
pub mod commit;
pub mod follow;
pub mod hook;
pub mod purge;
pub mod staging;
pub mod state;
pub mod watch;
pub mod write;

// Tools.
pub mod compress;
pub mod lint;
pub mod progress;
pub mod publish;
pub mod push;
pub mod remote;
pub mod replica;
pub mod trust;

// Operating.
pub mod access;
pub mod admin;
pub mod beat;
pub mod cli;
pub mod config;
pub mod locks;
pub mod log;
pub mod metrics;
pub mod readiness;
pub mod resolver;
pub mod settings;

//! What the black-box tests share. Nothing here knows etagd's own code: a rule that a test checks is
//! written down twice, once in the server and once here.
//!
//! A site and a server:
//!
//! - `site`: [`TestSite`], a directory that is built for a test and removed after it; [`tag`], the
//!   ETag that some bytes must have; [`noise`], bytes that no compressor shortens
//! - `server`: [`Server`], the real binary, started with flags, asked, signalled and stopped
//! - `developer`: the same for `etagd dev`
//! - `fleet`: several servers, each with its own copy of a site
//! - `front`: HAProxy, nginx and Varnish with the configuration from `deploy/`
//! - `releases`: a store of releases in a folder, pushed to, served and spoilt
//! - `stand`: a fake server, for tests of `etagd check`, `etagd push` and proxies
//! - `store`: Ceph, a real S3 store, with users and the policies from `deploy/policies`
//! - `store_proxy`: what lies between etagd and its store, and lies where it is told to
//!
//! Clients:
//!
//! - `wire`: HTTP/1.1 over raw sockets, with a parser that forgives nothing; [`Client`] keeps a
//!   connection, [`exchange`] asks once
//! - `h2`: HTTP/2 without TLS, one request after another
//! - `http2`: HTTP/2 frames by hand, for what no well-behaved client sends
//! - `transports`: one request over HTTP/1.1 or HTTP/2, with or without TLS
//! - `browser`: Chromium without a window, driven over the DevTools protocol
//! - `lines`: an access log, line by line, as it is written
//! - `message`: HTTP/1.1 between etagd and a store, read without being strict
//! - `deltas`: what a browser makes of a delta
//!
//! Files that change:
//!
//! - `tree`: directories that are replaced, renamed and linked, and waiting until a server serves
//!   what they have ([`tree::eventually`]) or a while in which nothing may change ([`tree::stays`])
//! - `writer`: the ways in which programs write a file, careful and careless ones
//! - `version`: content that shows which version each KiB is from, so that a mixture is detected
//!
//! The cases in `tests/cases/`:
//!
//! - `case`: the language of the cases, and its parser
//! - `fixture`: the site that they are asked of
//! - `ground`: what their placeholders stand for
//! - `check`: a response against its case, and against the rules that every response keeps
//!
//! `http2` and `transports` are not declared below: the few tests that need them include the file.

// Each test crate uses its own part of this module.
#![allow(dead_code, unused_imports)]

pub(crate) mod browser;
pub(crate) mod case;
pub(crate) mod check;
pub(crate) mod deltas;
pub(crate) mod developer;
pub(crate) mod fixture;
pub(crate) mod fleet;
pub(crate) mod front;
pub(crate) mod ground;
pub(crate) mod h2;
pub(crate) mod lines;
pub(crate) mod message;
pub(crate) mod releases;
pub(crate) mod server;
pub(crate) mod site;
pub(crate) mod stand;
pub(crate) mod store;
pub(crate) mod store_proxy;
pub(crate) mod tree;
pub(crate) mod version;
pub(crate) mod wire;
pub(crate) mod writer;

pub(crate) use releases::Releases;
pub(crate) use server::{Server, etagd};
pub(crate) use site::{TestSite, noise, tag};
pub(crate) use wire::{Client, Response, exchange};

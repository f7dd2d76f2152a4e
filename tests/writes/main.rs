//! PUT and DELETE over the wire: no update is lost, and nothing is half-written.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;
#[path = "../support/transports.rs"]
mod transports;

mod cycle;
mod directories;
mod disk;
mod http2;
mod kills;
mod pen;
mod races;
mod requests;
mod start;
mod tokens;

//! A site that changes while it is served, in all the ways in which people and their tools change
//! one. Sweeps are an hour apart here, unless a test is about them: what is found is found because
//! the kernel said so.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod clock;
mod config_map;
mod early;
mod excluded;
mod large;
mod links;
mod lost;
mod permissions;
mod publication;
mod removed;
mod replacements;
mod restless;
mod root;
mod trees;

use support::{Server, TestSite};

/// No help from sweeps.
const EVENTS: &[&str] = &["--sweep", "1h"];

fn served(site: &TestSite) -> Server {
    Server::with(site, EVENTS)
}

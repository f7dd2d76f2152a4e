//! What the black-box tests share: sites to serve, servers to ask, and a client that reads
//! answers byte by byte.
//!
//! Nothing here knows anything of etagd's own code. A rule that a test states is stated twice:
//! once in the server, once here.

// Each test crate uses its own part of this module.
#![allow(dead_code, unused_imports)]

pub(crate) mod browser;
pub(crate) mod case;
pub(crate) mod check;
pub(crate) mod developer;
pub(crate) mod fixture;
pub(crate) mod fleet;
pub(crate) mod front;
pub(crate) mod ground;
pub(crate) mod h2;
pub(crate) mod lines;
pub(crate) mod server;
pub(crate) mod site;
pub(crate) mod stand;
pub(crate) mod tree;
pub(crate) mod version;
pub(crate) mod wire;
pub(crate) mod writer;

pub(crate) use server::{Server, etagd};
pub(crate) use site::{TestSite, noise, tag};
pub(crate) use wire::{Client, Response, exchange};

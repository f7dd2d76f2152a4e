//! Sites in object storage, with real processes and a real store, and a proxy between them that does
//! what networks and stores do to people.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;
#[path = "../support/transports.rs"]
mod transports;

mod away;
mod certificates;
mod garbage;
mod ground;
mod kills;
mod lies;
mod mistakes;
mod races;
mod releases;
mod replicas;
mod requests;
mod retries;
mod roll_out;
mod users;

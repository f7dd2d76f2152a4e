//! The promises of `docs/ARCHITECTURE.md`, each tested by a module named after it.
//!
//! - P1 identity, P2 integrity and torture, P4 snapshot, P5 freshness, P6 closed world, P7
//!   agreement with P11 deterministic, P8 alive, P9 readiness, handover and
//!   supervised, P10 bounded: here.
//! - P3 precedence: `tests/cases/precedence.txt` and its neighbours, run by `tests/requests.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod agreement;
mod alive;
mod bounded;
mod closed_world;
mod freshness;
mod handover;
mod identity;
mod integrity;
mod readiness;
mod snapshot;
mod supervised;
#[path = "../support/mod.rs"]
mod support;
mod torture;

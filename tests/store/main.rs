//! Releases in a store that is a folder: `etagd push`, `releases`, `rollback` and `gc`. What a bucket may
//! do in addition is tested with one.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod collecting;
mod folder;
mod hostile;
mod kills;
mod mistakes;
mod publishing;
mod races;

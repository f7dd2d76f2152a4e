//! README and manual: one navigation, every flag and metric, every command run, and pages that fit
//! a phone.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod commands;
mod configuration;
mod documents;
mod metrics;
mod navigation;
mod readme;
mod sandbox;
mod screens;

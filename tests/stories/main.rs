//! What happens to a task, told as stories: the real binary on a directory of its own, a provider that
//! says what the story needs, and the HTTP API.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod asking;
mod avro;
mod bounds;
mod by_hand;
mod commands;
mod copies;
mod demo;
mod demo_ends;
mod flood;
mod marks;
mod outage;
mod poison;
mod quick_start;
mod redrive;
mod review;
#[path = "../rig/mod.rs"]
#[allow(dead_code, reason = "each test binary uses its part of the rig")]
mod rig;
mod shapes;
mod stage;
mod stopping;

//! What goes wrong around a task, with the real binary: kills, full disks, mistakes.
//!
//! `TIDEGATE_SEED=N` repeats a run; `TIDEGATE_KILLS=N` and `TIDEGATE_TASKS=N` size the kill tests.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod books;
mod books_checked;
mod calls;
mod calls_checked;
mod campaign;
mod clients;
mod disk;
mod kill;
mod mistakes;
mod promised;
mod promised_checked;
mod registry;
#[path = "../rig/mod.rs"]
#[allow(dead_code, reason = "each test binary uses its part of the rig")]
mod rig;
mod world;

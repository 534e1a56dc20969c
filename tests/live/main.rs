//! What needs a real server beside us: the scripts of the ledger against the rules they must follow.
//!
//! `TIDEGATE_REDIS=HOST:PORT` names a server to use, which keeps what the tests leave there; without it each
//! test starts its own and stops it. `TIDEGATE_SEED=N` repeats a run, `TIDEGATE_SEQUENCES=N` sizes it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod claims;
mod crash;
mod figures;
mod line;
#[path = "../rig/mod.rs"]
#[allow(dead_code, reason = "each test binary uses its part of the rig")]
mod rig;
mod sequence;
mod server;
mod stored;

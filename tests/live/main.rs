//! What needs real servers beside us: the scripts of the ledger against the rules they must follow, and the
//! client of a broker with the real worker above it. Each test starts its own servers, and stops them.
//!
//! `TIDEGATE_REDIS=HOST:PORT` names a Redis to use instead, which keeps what the tests leave there.
//! `TIDEGATE_SEED=N` repeats a run, `TIDEGATE_SEQUENCES=N` sizes it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod claims;
mod crash;
mod figures;
mod kafka_cluster;
mod kafka_log;
mod kafka_outcomes;
mod line;
#[path = "../rig/mod.rs"]
#[allow(dead_code, reason = "each test binary uses its part of the rig")]
mod rig;
mod sequence;
mod stored;

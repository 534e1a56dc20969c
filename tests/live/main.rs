//! What needs real servers beside us: the scripts of the ledger against the rules they must follow, the client
//! of a broker with the real worker above it, and the real binary. Tests start their own servers, or share two
//! that end with them.
//!
//! `TIDEGATE_REDIS=HOST:PORT` names a Redis to use instead, which keeps what the tests leave there.
//! `TIDEGATE_SEED=N` repeats a run, `TIDEGATE_SEQUENCES=N` sizes it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bad_input;
mod claims;
mod crash;
mod deaths;
mod duplicates;
mod figures;
mod fleet;
mod forgetful;
mod guarded;
mod hung;
mod kafka_cluster;
mod kafka_log;
mod kafka_outcomes;
mod line;
mod outages;
mod reply_lost;
#[path = "../rig/mod.rs"]
#[allow(dead_code, reason = "each test binary uses its part of the rig")]
mod rig;
mod rolling;
mod sequence;
mod stored;
mod too_large;
mod upkeep;
mod vanished;
mod versions;

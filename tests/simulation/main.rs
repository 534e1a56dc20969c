//! Searches and random walks over worlds that the product's own rules live in.
//!
//! `TIDEGATE_SEARCH=all` searches the largest worlds too (five minutes, 3 GB); `TIDEGATE_SEARCH=NAME`
//! one of them, or any other, instead. `TIDEGATE_SEED=N` begins the walks at another seed,
//! `TIDEGATE_WALKS=N` makes so many of them in each world.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod distributed;
mod three_processes;
mod two_processes;

//! Searches and random walks over worlds that the product's own rules live in.
//!
//! `TIDEGATE_SEARCH=all` searches the larger worlds too (minutes, 3 GB, build with `--release`);
//! `TIDEGATE_SEARCH=NAME` searches one world only. `TIDEGATE_SEED=N` begins the walks at another seed,
//! `TIDEGATE_WALKS=N` makes so many of them in each world.

mod three_processes;
mod two_processes;

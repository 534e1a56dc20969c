//! Every reachable state of small worlds in which the ledger's rules are at work.
//!
//! A world is a log, a ledger, some processes and their zombies, and a budget of faults. Its ledger
//! runs the product's own functions (`ledger/`); the rest is the world around them. A breadth-first
//! search visits every state and checks every step, then goes backward from the good ends: from every
//! state a path without faults must lead to an end where each record has its due.
//!
//! `ledger/` and `convert.rs` call the product; `state.rs` says what there is, `steps/` what can
//! happen next, `checks.rs` what must hold and which stated limit excuses what, `flaws.rs` the known
//! ways to get it wrong. Not here: several slots, plan changes, the clock itself (time is "until
//! passes" and "one lease of contact"), requests that overtake each other, two ledgers at once.
//!
//! This folder is built once for each number of processes: sizes of arrays are its parent's constants.

pub(crate) mod checks;
pub(crate) mod configurations;
mod convert;
pub(crate) mod flaws;
mod ledger;
pub(crate) mod search;
pub(crate) mod state;
pub(crate) mod steps;
pub(crate) mod told;

//! Tidegate: a stream processor for language-model work that must not go wrong.
//!
//! This file is the map; it holds no code.

pub mod cel;
pub mod cli;
pub mod consume;
pub mod dedupe;
pub mod engine;
pub mod finding;
pub mod fingerprint;
pub mod infer;
pub mod outcome;
pub mod pipeline;
pub mod review;
pub mod serve;
pub mod settings;
pub mod simulate;
pub mod task;
pub mod telemetry;
pub mod token;
pub mod trail;
pub mod validate;
pub mod weigh;
pub mod worker;
pub mod write;

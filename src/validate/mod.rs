//! Turns what a model said into a value that satisfies its schema and its rules, or into findings.
//!
//! Nothing here calls a model, repairs broken JSON, or decides where a task goes: findings say what
//! is wrong, [`ask_again`] and [`sanitizer_request`] put it into words for a model, and `weigh`
//! decides.
//!
//! A value that was valid JSON comes out as it went in: no property is dropped, no type changed.
//! Numbers are held as 64-bit integers or doubles; one that would not come back as it was written
//! is a finding, not a silent change.

mod advice;
mod ask;
mod json;
mod reading;
mod rules;
mod schema;
mod shorthand;

pub use crate::finding::{Finding, Found, Severity};
pub use ask::{Edits, FINDINGS_TOLD, ask_again, edits, sanitizer_request};
pub use json::{DEPTH_MAX, parse};
pub use reading::{ANSWER_MAX, Reading, read_answer};
pub use rules::{Rule, check_rules};
pub use schema::{Schema, SchemaError};

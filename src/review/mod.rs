//! The way out of review: the queue of open items, and the arbiter that decides which decision counts.
//!
//! Consumer offsets are not the queue: reviewers take minutes and finish out of order, so every
//! process rebuilds the open items from the log, and only the arbiter's commit closes one.

mod arbiter;
mod aside;
mod judge;
mod queue;
mod submit;

pub use arbiter::Arbiter;
pub use judge::{Wrong, broken_rules, judge};
pub use queue::{Brief, Item, Queue, whole_item};
pub use submit::{SubmitError, submit};

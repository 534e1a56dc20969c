//! Ends the engine for all when one of its threads panics: with a reason, and so that nobody waits
//! for an answer that will never come.
//!
//! Does nothing when the thread ends as it should. What was acknowledged is durable either way.

use super::shared::Shared;
use crate::engine::Health;
use std::sync::Arc;

/// Held by the thread for as long as it runs.
pub(super) struct Guard {
    shared: Arc<Shared>,
    thread: String,
}

impl Guard {
    pub(super) fn new(shared: &Arc<Shared>, thread: &str) -> Guard {
        Guard { shared: shared.clone(), thread: thread.to_owned() }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let why = format!(
            "the engine's thread `{}` has ended by a mistake in the program: start again, nothing that was acknowledged is lost; and report what it said",
            self.thread
        );
        self.shared.set_health(Health::Gone { why });
        self.shared.queue.abandon();
        self.shared.wake_readers();
    }
}

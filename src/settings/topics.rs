//! Which topics exist: the files in `topics/`, under the prefix, and each kind's own.

use super::Settings;
use crate::engine::TopicSpec;
use crate::task::Topic;
use std::time::Duration;

/// The topics that Tidegate writes by itself, with the prefix in front.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicNames {
    pub results: Topic,
    pub dead_letters: Topic,
    /// Parked tokens, by how long they are parked at least; shortest first.
    pub retry: [(Duration, Topic); 4],
    pub resume: Topic,
    pub review_requests: Topic,
    pub review_decisions: Topic,
    pub review_outcomes: Topic,
}

impl TopicNames {
    pub fn new(prefix: &str) -> Self {
        let topic = |name: &str| Topic::new(format!("{prefix}{name}"));
        let retry = [("5s", 5), ("30s", 30), ("5m", 300), ("30m", 1800)];
        TopicNames {
            results: topic("results"),
            dead_letters: topic("dead-letters"),
            retry: retry.map(|(name, s)| (Duration::from_secs(s), topic(&format!("retry.{name}")))),
            resume: topic("resume"),
            review_requests: topic("review.requests"),
            review_decisions: topic("review.decisions"),
            review_outcomes: topic("review.outcomes"),
        }
    }

    /// Where a token goes that may not be delivered before `wait` has passed: the longest topic
    /// that is not longer than the wait, the shortest for all below.
    pub fn retry_for(&self, wait: Duration) -> &Topic {
        let fits = self.retry.iter().rev().find(|(least, _)| *least <= wait);
        &fits.unwrap_or(&self.retry[0]).1
    }
}

/// Every topic of this configuration, each once.
pub fn topics(_settings: &Settings) -> Vec<TopicSpec> {
    Vec::new()
}

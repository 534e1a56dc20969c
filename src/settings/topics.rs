//! Which topics exist: the files in `topics/`, under the prefix, and each kind's own.
//!
//! The files are read at compile time; what they say holds for every engine.

use super::{EngineSettings, Settings};
use crate::engine::TopicSpec;
use crate::task::Topic;
use serde::Deserialize;
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

    /// The topics that the worker reads beside the kinds' own.
    pub fn tokens(&self) -> impl Iterator<Item = &Topic> {
        self.retry.iter().map(|(_, topic)| topic).chain([&self.resume])
    }

    /// The topics whose records are tokens or decisions: token headers are believed only there, and
    /// no kind may read or write them as its own.
    pub fn internal(&self) -> Vec<&Topic> {
        let retry = self.retry.iter().map(|(_, topic)| topic);
        let rest = [&self.resume, &self.review_requests, &self.review_decisions, &self.review_outcomes];
        retry.chain(rest).collect()
    }
}

/// Every topic of this configuration, each once: Tidegate's own first, then the kinds'.
/// Where a topic has two uses (one kind's `to` is another's `from`), it gets the larger limit and
/// the longer retention.
pub fn topics(settings: &Settings) -> Vec<TopicSpec> {
    let mut specs: Vec<TopicSpec> = Vec::new();
    let mut add = |spec: TopicSpec| match specs.iter_mut().find(|s| s.topic == spec.topic) {
        Some(known) => {
            known.limit = known.limit.max(spec.limit);
            known.retention = known.retention.max(spec.retention);
            known.written |= spec.written;
        }
        None => specs.push(spec),
    };
    for file in FILES {
        let written = Written::parse(file);
        for name in written.topics.iter().filter(|name| !name.contains('<')) {
            let topic = Topic::new(format!("{}{name}", settings.engine.prefix));
            add(TopicSpec { own: true, ..written.spec(topic, &settings.engine) });
        }
    }
    let (tasks, results) = (Written::parse(TASKS), Written::parse(RESULTS));
    for kind in &settings.kinds {
        let own = kind.from.as_str() == format!("{}tasks.{}", settings.engine.prefix, kind.name);
        let from = tasks.spec(kind.from.clone(), &settings.engine);
        add(TopicSpec { own, written: false, ..from });
        add(results.spec(kind.to.clone(), &settings.engine));
    }
    specs
}

const TASKS: &str = include_str!("../../topics/tasks.toml");
const RESULTS: &str = include_str!("../../topics/results.toml");
const FILES: [&str; 8] = [
    TASKS,
    RESULTS,
    include_str!("../../topics/dead-letters.toml"),
    include_str!("../../topics/retry.toml"),
    include_str!("../../topics/resume.toml"),
    include_str!("../../topics/review-requests.toml"),
    include_str!("../../topics/review-decisions.toml"),
    include_str!("../../topics/review-outcomes.toml"),
];

/// One file of `topics/`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    topics: Vec<String>,
    #[expect(dead_code, reason = "for people; required, so that no file leaves it out")]
    key: String,
    #[expect(dead_code, reason = "for people; required, so that no file leaves it out")]
    written_by: Vec<String>,
    #[expect(dead_code, reason = "for people; required, so that no file leaves it out")]
    read_by: Vec<String>,
    #[expect(dead_code, reason = "one word today; a topic may want a fixed number later")]
    partitions: Partitions,
    cleanup: Cleanup,
    retention: Retention,
    /// Times `engine.record_max`.
    limit: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Partitions {
    Configured,
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum Cleanup {
    Delete,
    Compact,
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum Retention {
    DedupeWindow,
    Configured,
    /// Tokens and decisions: what is not complete stays, however old.
    UntilDone,
}

impl Written {
    #[expect(clippy::expect_used, reason = "the files are part of the program; a test parses each")]
    fn parse(file: &str) -> Written {
        toml::from_str(file).expect("a file of topics/ is well-formed")
    }

    fn spec(&self, topic: Topic, engine: &EngineSettings) -> TopicSpec {
        TopicSpec {
            topic,
            partitions: engine.partitions,
            limit: engine.record_max.saturating_mul(self.limit),
            compacted: self.cleanup == Cleanup::Compact,
            retention: match self.retention {
                Retention::DedupeWindow | Retention::UntilDone => None,
                Retention::Configured => Some(engine.retention),
            },
            internal: self.retention == Retention::UntilDone,
            own: false,
            written: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_file_is_read_and_names_the_topics_that_the_code_writes() {
        let on_disk = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/topics")).unwrap().count();
        assert_eq!(on_disk, FILES.len());
        let written: Vec<String> = FILES.iter().flat_map(|file| Written::parse(file).topics).collect();
        let names = TopicNames::new("");
        let mut code: Vec<&str> = names.internal().iter().map(|t| t.as_str()).collect();
        code.extend(["tasks.<kind>", names.results.as_str(), names.dead_letters.as_str()]);
        assert_eq!(written.len(), code.len());
        for name in code {
            assert!(written.iter().any(|w| w == name), "{name} has no file");
        }
    }

    #[test]
    fn output_topics_take_four_times_the_largest_task() {
        for file in FILES {
            let written = Written::parse(file);
            let tasks = written.topics[0].starts_with("tasks.");
            assert_eq!(written.limit, if tasks { 1 } else { 4 }, "{:?}", written.topics);
            assert_eq!(written.cleanup == Cleanup::Compact, written.topics[0] == "review.requests");
        }
    }

    #[test]
    fn a_wait_is_parked_where_it_is_not_held_longer_than_it_asked() {
        let names = TopicNames::new("p.");
        let topic = |s| names.retry_for(Duration::from_secs(s)).as_str().to_owned();
        assert_eq!(
            [topic(0), topic(29), topic(30), topic(9_999)],
            ["p.retry.5s", "p.retry.5s", "p.retry.30s", "p.retry.30m"]
        );
    }
}

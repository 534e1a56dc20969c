//! What the Kafka client says from within a poll: rebalances, its member id, that no broker is reached.
//!
//! The callbacks copy and return: whoever works in one stops the client (and its own rebalance). What
//! was copied is taken out by the thread that polls.
//!
//! ## Why the member id is read from a log line
//!
//! A session may be lost without an event (see `assignment`), and the other id is the only sign of it.
//! The client's interface hands the id out to unsafe code only. It does write every change of it into
//! its log, in the queue that is polled here, so the id is known at least as early as the event that it
//! belongs to. A client that did not say it would be noticed at the first assignment, and refused.

use crate::task::{Partition, Topic};
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};
use std::collections::VecDeque;
use std::sync::Mutex;

use super::super::lock;

/// A rebalance that waits to be carried out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Rebalance {
    Assign(Vec<Partition>),
    Revoke {
        parts: Vec<Partition>,
        /// The session is over: they are somebody else's by now.
        lost: bool,
    },
}

impl Rebalance {
    /// Answers it where nobody reads any more: the client leaves only once it is answered.
    pub(super) fn let_go(&self, client: &BaseConsumer<Context>) {
        let answered = match self {
            Rebalance::Assign(parts) => client.incremental_assign(&list(parts, Some(Offset::End))),
            Rebalance::Revoke { parts, .. } => client.incremental_unassign(&list(parts, None)),
        };
        tracing::debug!(?answered, "let go");
    }
}

#[derive(Default)]
struct Told {
    rebalances: VecDeque<Rebalance>,
    member: Option<String>,
    /// Rises with everything that is told.
    count: u64,
    down: Option<String>,
    /// Nobody decides any more: every rebalance is answered at once.
    closing: bool,
}

#[derive(Default)]
pub(super) struct Context(Mutex<Told>);

impl Context {
    pub(super) fn next(&self) -> Option<Rebalance> {
        lock(&self.0).rebalances.pop_front()
    }

    /// `None`: the client has not said it. Empty: it is a member of nothing.
    pub(super) fn member(&self) -> Option<String> {
        lock(&self.0).member.clone()
    }

    pub(super) fn count(&self) -> u64 {
        lock(&self.0).count
    }

    /// That no broker is reached, if it was said since this was asked last.
    pub(super) fn down(&self) -> Option<String> {
        lock(&self.0).down.take()
    }

    pub(super) fn close(&self) {
        lock(&self.0).closing = true;
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        let mut told = lock(&self.0);
        told.count += 1;
        if facility == "MEMBERID" {
            told.member = member_in(line).or(told.member.take());
        }
        drop(told);
        say(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let mut told = lock(&self.0);
        told.count += 1;
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            told.down = Some(reason.to_owned());
        }
        drop(told);
        tracing::debug!(%error, reason, "the Kafka client reports an error");
    }

    fn stats_raw(&self, _: &[u8]) {
        lock(&self.0).count += 1;
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, client: &BaseConsumer<Self>, what: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let mut told = lock(&self.0);
        told.count += 1;
        let parts = partitions(list);
        let rebalance = match what {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => Rebalance::Assign(parts),
            _ => Rebalance::Revoke { parts, lost: client.assignment_lost() },
        };
        if told.closing {
            drop(told);
            rebalance.let_go(client);
            return;
        }
        told.rebalances.push_back(rebalance);
    }
}

pub(super) fn list(parts: &[Partition], offset: Option<Offset>) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(parts.len());
    for at in parts {
        let index = i32::try_from(at.index).unwrap_or(i32::MAX);
        let mut part = list.add_partition(at.topic.as_str(), index);
        if let Some(offset) = offset {
            // Only negative numbers are refused, and these are logical or were checked.
            let _ = part.set_offset(offset);
        }
    }
    list
}

fn partitions(list: &TopicPartitionList) -> Vec<Partition> {
    let parts = list.elements().into_iter().filter_map(|e| {
        let index = u32::try_from(e.partition()).ok()?;
        Some(Partition { topic: Topic::new(e.topic()), index })
    });
    parts.collect()
}

/// Of a client that is a member of nothing: what it says goes to our log, and nothing else comes of it.
#[derive(Clone, Copy)]
pub(super) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        say(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "the Kafka client reports an error");
    }

    fn stats_raw(&self, _: &[u8]) {}
}

impl ConsumerContext for Quiet {}

/// `Group "g": updating member id "old" -> "new"`
fn member_in(line: &str) -> Option<String> {
    let (_, after) = line.rsplit_once("-> \"")?;
    let id = after.strip_suffix('"')?;
    Some(if id == "(not-set)" { String::new() } else { id.to_owned() })
}

/// The client's log goes where ours goes. What it says in detail was asked for by us, and is only traced.
pub(super) fn say(level: RDKafkaLogLevel, facility: &str, line: &str) {
    match level {
        RDKafkaLogLevel::Debug => tracing::trace!(target: "librdkafka", "{facility} {line}"),
        // It says of each broker that is away what is said once for all of them elsewhere.
        _ => tracing::debug!(target: "librdkafka", "{facility} {line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_member_id_is_found_in_the_line_that_tells_its_change() {
        let context = Context::default();
        let say = |facility: &str, line: &str| context.log(RDKafkaLogLevel::Debug, facility, line);
        assert_eq!(context.member(), None);
        say("MEMBERID", "[thrd:main]: Group \"g\": updating member id \"(not-set)\" -> \"\"");
        assert_eq!(context.member().as_deref(), Some(""));
        say("MEMBERID", "[thrd:main]: Group \"a -> \"b\": updating member id \"\" -> \"tidegate-1\"");
        say("JOINGROUP", "[thrd:main]: Group \"g\": something -> \"else\"");
        assert_eq!(context.member().as_deref(), Some("tidegate-1"));
        say("MEMBERID", "[thrd:main]: Group \"g\": updating member id \"tidegate-1\" -> \"(not-set)\"");
        assert_eq!(context.member().as_deref(), Some(""));
        say("MEMBERID", "words of a later version");
        assert_eq!(context.count(), 5);
        assert_eq!(context.member().as_deref(), Some(""), "what is not understood changes nothing");
    }
}

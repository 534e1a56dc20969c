//! The thread that asks: what is committed, where partitions begin and end, whether the group still
//! counts this member, whether a broker is reached.
//!
//! It has a client of its own, which is a member of nothing: a stable read may take as long as an open
//! transaction, and nobody else should wait for that. What fails is asked again, behind the rest.

use super::super::assignment::Loaded;
use super::super::client::Heard;
use super::context::{Quiet, list};
use super::line::Line;
use super::{described, guarded, record};
use crate::engine::Lease;
use crate::task::{Partition, Timestamp, Topic};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::Offset;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// For one answer of a broker. One that waits for a transaction to end is asked for again, and meanwhile
/// others have their turn.
const ANSWER: Duration = Duration::from_secs(2);
/// Before a question that failed is asked again.
const AGAIN: Duration = Duration::from_millis(50);
/// How often it is looked whether a broker is there: while one is, and while none is.
const LOOK: Duration = Duration::from_secs(3);
const LOOK_AWAY: Duration = Duration::from_millis(500);

pub(super) enum Ask {
    Load(Lease),
    Confirm,
    ReadBack(Vec<Partition>),
}

pub(super) struct AskingThread {
    pub(super) line: Arc<Line>,
    pub(super) client: BaseConsumer<Quiet>,
    pub(super) group: String,
    pub(super) topics: Vec<Topic>,
}

impl AskingThread {
    /// Until its member is dropped.
    pub(super) fn run(self, asks: &Receiver<Ask>) {
        let mut waiting = VecDeque::new();
        let mut look = Instant::now();
        loop {
            // What the client has to say by itself: its log.
            while self.client.poll(Duration::ZERO).is_some() {}
            // Whoever hears that no broker is reached is told soon when one is again.
            let away = (!self.line.is_reachable()).then(|| Instant::now() + LOOK_AWAY);
            look = away.map_or(look, |soon| look.min(soon));
            if Instant::now() >= look {
                self.look();
                look = Instant::now() + if self.line.is_reachable() { LOOK } else { LOOK_AWAY };
            }
            let wait = if waiting.is_empty() { LOOK_AWAY } else { Duration::ZERO };
            match asks.recv_timeout(wait) {
                Ok(ask) => {
                    waiting.push_back(ask);
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let Some(ask) = waiting.pop_front() else { continue };
            match self.ask(&ask) {
                Ok(heard) => {
                    if !self.line.say(heard) {
                        return;
                    }
                }
                // Asked again by whoever wants to know.
                Err(error) if matches!(ask, Ask::Confirm) => {
                    tracing::debug!(group = %self.group, %error, "the group does not answer");
                }
                Err(error) => {
                    tracing::debug!(group = %self.group, %error, "asked again");
                    waiting.push_back(ask);
                    std::thread::sleep(AGAIN);
                }
            }
        }
    }

    fn look(&self) {
        let topic = self.topics.first().map(Topic::as_str);
        let found = self.client.fetch_metadata(topic, ANSWER);
        self.line.reached(match found {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("no Kafka broker can be reached: {error}")),
        });
    }

    fn ask(&self, ask: &Ask) -> KafkaResult<Heard> {
        match ask {
            Ask::Load(lease) => Ok(Heard::Loaded(lease.clone(), self.load(&lease.at)?)),
            Ask::Confirm => self.confirm(),
            Ask::ReadBack(parts) => Ok(Heard::ReadBack(committed(&self.client, parts)?)),
        }
    }

    fn load(&self, at: &Partition) -> KafkaResult<Loaded> {
        let committed = committed(&self.client, std::slice::from_ref(at))?.remove(at).flatten();
        let (first, end) = ends(&self.client, at)?;
        let from_the_beginning = committed.as_ref().is_none_or(|(offset, _)| *offset > end);
        let oldest = if from_the_beginning && first < end { self.oldest(at, first)? } else { None };
        Ok(Loaded { committed, first, end, oldest })
    }

    /// The time of the first record, which is asked for only where nothing was committed.
    fn oldest(&self, at: &Partition, first: u64) -> KafkaResult<Option<Timestamp>> {
        let from = Offset::Offset(i64::try_from(first).unwrap_or(i64::MAX));
        self.client.assign(&list(std::slice::from_ref(at), Some(from)))?;
        let until = Instant::now() + ANSWER;
        let found = loop {
            match self.client.poll(POLL) {
                Some(Ok(message)) => {
                    let found = record::read(&message).filter(|record| record.position.at == *at);
                    if let Some(record) = found {
                        break Ok(Some(record.stamp));
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => break Ok(None),
                Some(Err(error)) => break Err(error),
                None if Instant::now() >= until => break Err(KafkaError::NoMessageReceived),
                None => {}
            }
        };
        self.client.unassign()?;
        found
    }

    fn confirm(&self) -> KafkaResult<Heard> {
        let asked = Instant::now();
        let Some(member) = self.line.member() else { return Err(KafkaError::NoMessageReceived) };
        let found = self.client.fetch_group_list(Some(&self.group), ANSWER)?;
        // A member of somebody else's may have a name that is no text.
        let parts = guarded(|| {
            let members = found.groups().iter().flat_map(|g| g.members());
            let ours = members.filter(|m| m.id() == &*member.0).filter_map(|m| m.assignment());
            ours.filter_map(described::read).flatten().collect::<Vec<Partition>>()
        });
        Ok(Heard::Confirmed { asked, member, parts: parts.unwrap_or_default() })
    }
}

/// One poll of a client that waits for a record.
const POLL: Duration = Duration::from_millis(20);

/// The first record that is there, and where a reader of committed records must stop.
pub(super) fn ends(client: &BaseConsumer<Quiet>, at: &Partition) -> KafkaResult<(u64, u64)> {
    let index = i32::try_from(at.index).unwrap_or(i32::MAX);
    let (first, end) = client.fetch_watermarks(at.topic.as_str(), index, ANSWER)?;
    Ok((u64::try_from(first).unwrap_or(0), u64::try_from(end).unwrap_or(0)))
}

/// Offset and metadata, by a stable read. Metadata that is no text cannot be ours: it is handed on as
/// something that nobody can have written here.
pub(super) fn committed(
    client: &BaseConsumer<Quiet>,
    parts: &[Partition],
) -> KafkaResult<BTreeMap<Partition, Option<(u64, String)>>> {
    let found = client.committed_offsets(list(parts, None), ANSWER)?;
    let mut committed = BTreeMap::new();
    for at in parts {
        let index = i32::try_from(at.index).unwrap_or(i32::MAX);
        let Some(part) = found.find_partition(at.topic.as_str(), index) else { continue };
        part.error()?;
        let offset = match part.offset() {
            Offset::Offset(offset) => u64::try_from(offset).ok(),
            _ => None,
        };
        // It panics on bytes that are not UTF-8, and hands them out in no other way.
        let text = guarded(|| part.metadata().to_owned());
        let text = text.unwrap_or_else(|| char::REPLACEMENT_CHARACTER.to_string());
        committed.insert(at.clone(), offset.map(|offset| (offset, text)));
    }
    Ok(committed)
}

//! The thread that reads the log for whoever asks: committed records by their place, ends, times.
//!
//! One question at a time, each bounded. Between two of them the client holds nothing.

use super::asking::ends;
use super::consumer::list;
use super::context::Quiet;
use super::record;
use crate::engine::{Ends, Unavailable};
use crate::task::{Partition, Position, Record, Timestamp, Topic};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::Offset;
use rdkafka::types::RDKafkaErrorCode;
use std::collections::BTreeMap;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// For one question. Whoever serves a request would not wait longer.
pub(super) const ANSWER: Duration = Duration::from_secs(5);
/// One poll.
const POLL: Duration = Duration::from_millis(20);
/// Bytes of one answer, as the port says.
const BYTES: usize = 8 << 20;
/// How long the number of partitions of a topic is believed; it only ever grows.
const BELIEVED: Duration = Duration::from_secs(10);

pub(super) type Answer<T> = oneshot::Sender<Result<T, Unavailable>>;

pub(super) enum Question {
    Read(Position, usize, Answer<Vec<Record>>),
    Ends(Topic, Answer<Vec<Ends>>),
    Since(Partition, Timestamp, Answer<u64>),
}

pub(super) struct ReaderThread {
    pub(super) client: BaseConsumer<Quiet>,
}

impl ReaderThread {
    /// Until nobody can ask any more.
    pub(super) fn run(self, questions: &Receiver<Question>) {
        let mut partitions = BTreeMap::new();
        while let Ok(question) = questions.recv() {
            // Whoever asked may have gone.
            match question {
                Question::Read(from, max, reply) => {
                    let _ = reply.send(told(self.read(&from, max)));
                }
                Question::Ends(topic, reply) => {
                    let _ = reply.send(told(self.ends(&topic, &mut partitions)));
                }
                Question::Since(at, since, reply) => {
                    let _ = reply.send(told(self.since(&at, since)));
                }
            }
            // What the client has to say by itself: its log, and what came too late.
            while self.client.poll(Duration::ZERO).is_some() {}
        }
    }

    fn read(&self, from: &Position, max: usize) -> KafkaResult<Vec<Record>> {
        // At the end the client would wait for what is not there yet.
        let (first, end) = ends(&self.client, &from.at)?;
        if from.offset >= end || max == 0 {
            return Ok(Vec::new());
        }
        let offset = Offset::Offset(i64::try_from(from.offset.max(first)).unwrap_or(i64::MAX));
        self.client.assign(&list(std::slice::from_ref(&from.at), Some(offset)))?;
        let found = self.fetch(from, max, end);
        self.client.unassign()?;
        found
    }

    fn fetch(&self, from: &Position, max: usize, end: u64) -> KafkaResult<Vec<Record>> {
        let until = Instant::now() + ANSWER;
        let (mut found, mut bytes) = (Vec::new(), 0);
        loop {
            match self.client.poll(POLL) {
                Some(Ok(message)) => {
                    let record = record::read(&message);
                    let Some(record) = record.filter(|r| r.position.at == from.at) else { continue };
                    let next = record.position.offset + 1;
                    bytes += weight(&record);
                    if !found.is_empty() && bytes > BYTES {
                        return Ok(found);
                    }
                    found.push(record);
                    if found.len() >= max || next >= end {
                        return Ok(found);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(found),
                Some(Err(error)) if is_passing(&error) => {}
                Some(Err(error)) => return Err(error),
                None => {}
            }
            if Instant::now() >= until {
                return if found.is_empty() { Err(KafkaError::NoMessageReceived) } else { Ok(found) };
            }
        }
    }

    fn ends(
        &self,
        topic: &Topic,
        partitions: &mut BTreeMap<Topic, (usize, Instant)>,
    ) -> KafkaResult<Vec<Ends>> {
        let known = partitions.get(topic).filter(|(_, at)| at.elapsed() < BELIEVED).map(|(n, _)| *n);
        let count = match known {
            Some(count) => count,
            None => {
                let found = self.client.fetch_metadata(Some(topic.as_str()), ANSWER)?;
                let count = found.topics().first().map_or(0, |t| t.partitions().len());
                partitions.insert(topic.clone(), (count, Instant::now()));
                count
            }
        };
        let of = |index| {
            let at = Partition { topic: topic.clone(), index: u32::try_from(index).unwrap_or(u32::MAX) };
            let (first, next) = ends(&self.client, &at)?;
            Ok(Ends { at, first, next, open: None })
        };
        (0..count).map(of).collect()
    }

    fn since(&self, at: &Partition, since: Timestamp) -> KafkaResult<u64> {
        // Negative numbers mean other things there.
        let asked = list(std::slice::from_ref(at), Some(Offset::Offset(since.0.max(0))));
        let found = self.client.offsets_for_times(asked, ANSWER)?;
        let index = i32::try_from(at.index).unwrap_or(i32::MAX);
        if let Some(part) = found.find_partition(at.topic.as_str(), index) {
            part.error()?;
            if let Offset::Offset(offset) = part.offset() {
                return Ok(u64::try_from(offset).unwrap_or(0));
            }
        }
        // Nothing is as young as that.
        Ok(ends(&self.client, at)?.1)
    }
}

/// A broker that comes and goes; the question has a deadline of its own.
fn is_passing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::Resolve
        )
    )
}

fn told<T>(found: KafkaResult<T>) -> Result<T, Unavailable> {
    found.map_err(|error| Unavailable(format!("Kafka does not answer: {error}")))
}

fn weight(record: &Record) -> usize {
    let headers: usize = record.headers.0.iter().map(|(n, v)| n.len() + v.len()).sum();
    let lengths = [&record.key, &record.value].map(|part| part.as_ref().map_or(0, bytes::Bytes::len));
    headers + lengths.iter().sum::<usize>()
}

//! The thread that reads the log for whoever asks: committed records by their place, ends, times.
//!
//! One question at a time, each bounded. Between two of them the client holds nothing.

use super::super::{lock, metadata};
use super::asking::{committed, ends};
use super::context::{Quiet, list};
use super::properties::Properties;
use super::{Readers, record};
use crate::engine::{Ends, Unavailable};
use crate::task::{Partition, Position, Record, Timestamp, Topic};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// For one question. Whoever serves a request would not wait longer.
pub(super) const ANSWER: Duration = Duration::from_secs(5);
/// One poll.
const POLL: Duration = Duration::from_millis(20);
/// Bytes of one answer, as the port says.
const BYTES: usize = 8 << 20;
/// Offsets behind the last complete record that may be nothing but ends of transactions: few enough to look.
const FEW: u64 = 8;
/// How long the number of partitions of a topic is believed; it only ever grows.
const BELIEVED: Duration = Duration::from_secs(10);

pub(super) type Answer<T> = oneshot::Sender<Result<T, Unavailable>>;

pub(super) enum Question {
    Read(Position, usize, Answer<Vec<Record>>),
    Ends(Topic, Answer<Vec<Ends>>),
    Since(Partition, Timestamp, Answer<u64>),
    /// What the topic's group has done: partitions with more than so many records before the first that is open,
    /// and where that one lies.
    Done(Topic, u64, Answer<Vec<Position>>),
}

pub(super) struct ReaderThread {
    client: BaseConsumer<Quiet>,
    /// What clients for the groups are made with: a question for offsets is asked in the name of one group.
    properties: Properties,
    name: String,
    readers: Readers,
    /// One for each group of the process.
    groups: BTreeMap<String, BaseConsumer<Quiet>>,
    partitions: BTreeMap<Topic, (usize, Instant)>,
    /// Base and end between which there lies nothing but ends of transactions. One for each partition.
    empty: BTreeMap<Partition, (u64, u64)>,
}

impl ReaderThread {
    pub(super) fn new(
        client: BaseConsumer<Quiet>,
        properties: Properties,
        name: String,
        readers: Readers,
    ) -> Self {
        let (groups, partitions, empty) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        ReaderThread { client, properties, name, readers, groups, partitions, empty }
    }

    /// Until nobody can ask any more.
    pub(super) fn run(mut self, questions: &Receiver<Question>) {
        while let Ok(question) = questions.recv() {
            // Whoever asked may have gone, and others wait behind.
            match question {
                Question::Read(_, _, reply) if reply.is_closed() => {}
                Question::Ends(_, reply) if reply.is_closed() => {}
                Question::Done(_, _, reply) if reply.is_closed() => {}
                Question::Since(_, _, reply) if reply.is_closed() => {}
                Question::Read(from, max, reply) => {
                    let _ = reply.send(told(&from.at.topic, self.read(&from, max)));
                }
                Question::Ends(topic, reply) => {
                    let _ = reply.send(told(&topic, self.ends(&topic)));
                }
                Question::Done(topic, more_than, reply) => {
                    let _ = reply.send(told(&topic, self.done(&topic, more_than)));
                }
                Question::Since(at, since, reply) => {
                    let _ = reply.send(told(&at.topic, self.since(&at, since)));
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

    fn ends(&mut self, topic: &Topic) -> KafkaResult<Vec<Ends>> {
        let parts = self.parts(topic)?;
        if parts.is_empty() {
            return Ok(Vec::new());
        }
        let first = self.client.offsets_for_times(list(&parts, Some(Offset::Beginning)), ANSWER)?;
        let next = self.client.offsets_for_times(list(&parts, Some(Offset::End)), ANSWER)?;
        let group = lock(&self.readers).get(topic).cloned();
        let mut committed = match &group {
            Some(group) => committed(self.group(group)?, &parts)?,
            None => BTreeMap::new(),
        };
        let mut all = Vec::with_capacity(parts.len());
        for at in parts {
            let (first, next) = (offset_of(&first, &at)?, offset_of(&next, &at)?);
            let open = match &group {
                Some(_) => Some(self.open(&at, first, next, committed.remove(&at).flatten())?),
                None => None,
            };
            all.push(Ends { at, first, next, open });
        }
        Ok(all)
    }

    fn done(&mut self, topic: &Topic, more_than: u64) -> KafkaResult<Vec<Position>> {
        let Some(group) = lock(&self.readers).get(topic).cloned() else { return Ok(Vec::new()) };
        let parts = self.parts(topic)?;
        if parts.is_empty() {
            return Ok(Vec::new());
        }
        let first = self.client.offsets_for_times(list(&parts, Some(Offset::Beginning)), ANSWER)?;
        let mut committed = committed(self.group(&group)?, &parts)?;
        let mut done = Vec::new();
        for at in parts {
            let first = offset_of(&first, &at)?;
            if let Some((base, _)) = committed.remove(&at).flatten()
                && base > first.saturating_add(more_than)
            {
                done.push(Position { at, offset: base });
            }
        }
        Ok(done)
    }

    fn parts(&mut self, topic: &Topic) -> KafkaResult<Vec<Partition>> {
        let of = |index| Partition { topic: topic.clone(), index: u32::try_from(index).unwrap_or(u32::MAX) };
        Ok((0..self.count(topic)?).map(of).collect())
    }

    /// Partitions of the topic.
    fn count(&mut self, topic: &Topic) -> KafkaResult<usize> {
        if let Some((count, _)) = self.partitions.get(topic).filter(|(_, at)| at.elapsed() < BELIEVED) {
            return Ok(*count);
        }
        let found = self.client.fetch_metadata(Some(topic.as_str()), ANSWER)?;
        let count = found.topics().first().map_or(0, |t| t.partitions().len());
        self.partitions.insert(topic.clone(), (count, Instant::now()));
        Ok(count)
    }

    fn group(&mut self, group: &str) -> KafkaResult<&BaseConsumer<Quiet>> {
        match self.groups.entry(group.to_owned()) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(new) => {
                let config = self.properties.reader(&format!("{}-{group}", self.name), group);
                Ok(new.insert(config.create_with_context(Quiet)?))
            }
        }
    }

    /// How many records are not complete, at most: the ends of transactions count where there are others.
    fn open(
        &mut self,
        at: &Partition,
        first: u64,
        next: u64,
        committed: Option<(u64, String)>,
    ) -> KafkaResult<u64> {
        let (base, metadata) = committed.unwrap_or((first, String::new()));
        let known = metadata::read(base, &metadata).map(|(progress, _)| progress);
        let (from, holes) = known.map_or((base, 0), |p| (p.end.max(base), p.holes.len() as u64));
        let behind = next.saturating_sub(from.max(first));
        if holes > 0 || behind == 0 || behind > FEW {
            return Ok(holes + behind);
        }
        if self.empty.get(at) == Some(&(from, next)) {
            return Ok(0);
        }
        let found = self.read(&Position { at: at.clone(), offset: from }, 1)?;
        if found.is_empty() {
            self.empty.insert(at.clone(), (from, next));
            return Ok(0);
        }
        Ok(behind)
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

fn offset_of(found: &TopicPartitionList, at: &Partition) -> KafkaResult<u64> {
    let index = i32::try_from(at.index).unwrap_or(i32::MAX);
    let Some(part) = found.find_partition(at.topic.as_str(), index) else {
        return Err(KafkaError::NoMessageReceived);
    };
    part.error()?;
    Ok(match part.offset() {
        Offset::Offset(offset) => u64::try_from(offset).unwrap_or(0),
        _ => 0,
    })
}

/// A topic that is not there is answered by silence.
fn told<T>(topic: &Topic, found: KafkaResult<T>) -> Result<T, Unavailable> {
    found.map_err(|error| Unavailable(format!("Kafka does not answer about `{topic}`: {error}")))
}

fn weight(record: &Record) -> usize {
    let headers: usize = record.headers.0.iter().map(|(n, v)| n.len() + v.len()).sum();
    let lengths = [&record.key, &record.value].map(|part| part.as_ref().map_or(0, bytes::Bytes::len));
    headers + lengths.iter().sum::<usize>()
}

//! What one frame changes, and how that lies on disk.
//!
//! The writer gathers it, the frame carries it, and the state takes it in by the same function
//! whether it was just written or is replayed: what a reader sees never depends on a restart.

use super::topics::{StoredTopic, Topics};
use crate::dedupe::{Entry, SlotEntry, SlotName};
use crate::engine::codec::{Reader, Short, put_bytes, put_i64, put_option, put_u64};
use crate::task::{Headers, Partition, Position, Record, Timestamp, Topic};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A partition by its numbers.
pub(super) type PartId = (u32, u32);

/// What a sweep row names: the key of a claim, or of a refused mark.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Swept {
    Claim,
    Refused,
}

/// A row of the expiry index: when its subject last changed, what it is, its key.
pub(super) type ExpiryRow = (i64, Swept, Bytes);

/// Everything one frame changes, in memory.
#[derive(Default, Debug)]
pub(super) struct Changes {
    pub(super) topics: Vec<StoredTopic>,
    pub(super) records: Vec<(u32, Arc<Record>)>,
    pub(super) completed: Vec<(PartId, u64)>,
    pub(super) claims: BTreeMap<Bytes, ClaimChange>,
    /// Refused marks by [`refused_key`]; `None`: expired.
    pub(super) refused: BTreeMap<Bytes, Option<Timestamp>>,
    /// Rows of the expiry index that are done with.
    pub(super) swept: Vec<ExpiryRow>,
    /// Segments that are gone, by first sequence.
    pub(super) dropped: Vec<u64>,
    /// How often the ledger has forgotten so far (tests only).
    pub(super) forgot: Option<u64>,
}

#[derive(Debug, Clone)]
pub(super) struct ClaimChange {
    pub(super) before: Option<Arc<Entry>>,
    pub(super) after: Option<Arc<Entry>>,
}

/// A claim's change as the frame holds it: the head, and only the slots that changed.
#[derive(Debug)]
pub(super) struct ClaimDiff {
    head: Option<Bytes>,
    /// Slots not named here are gone.
    whole: bool,
    slots: Vec<(SlotName, Option<SlotEntry>)>,
}

/// What a frame read from disk changes; claims still need what was there before.
#[derive(Default, Debug)]
pub(super) struct ReadChanges {
    pub(super) changes: Changes,
    pub(super) diffs: Vec<(Bytes, ClaimDiff)>,
}

/// Scope and origin of a refused mark, one key.
pub(super) fn refused_key(scope: &[u8], position: &Position, stamp: Timestamp) -> Bytes {
    let mut out = Vec::with_capacity(scope.len() + 40);
    put_bytes(&mut out, scope);
    put_bytes(&mut out, position.at.topic.as_str().as_bytes());
    put_u64(&mut out, u64::from(position.at.index));
    put_u64(&mut out, position.offset);
    put_i64(&mut out, stamp.0);
    out.into()
}

const TOPIC: u8 = 1;
const RECORD: u8 = 2;
const COMPLETED: u8 = 3;
const CLAIM: u8 = 4;
const REFUSED: u8 = 5;
const SWEPT: u8 = 6;
const DROPPED: u8 = 7;
const FORGOT: u8 = 8;

impl Changes {
    pub(super) fn is_empty(&self) -> bool {
        self.topics.is_empty()
            && self.records.is_empty()
            && self.completed.is_empty()
            && self.claims.is_empty()
            && self.refused.is_empty()
            && self.swept.is_empty()
            && self.dropped.is_empty()
            && self.forgot.is_none()
    }

    /// The body of a frame. All its records were appended at the frame's own stamp.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        for t in &self.topics {
            out.push(TOPIC);
            put_u64(out, u64::from(t.id));
            put_bytes(out, t.name.as_str().as_bytes());
            put_u64(out, u64::from(t.partitions));
            out.push(u8::from(t.compacted) | u8::from(t.consumed) << 1);
        }
        for (topic, record) in &self.records {
            put_record(out, *topic, record);
        }
        for ((topic, index), offset) in &self.completed {
            out.push(COMPLETED);
            put_u64(out, u64::from(*topic));
            put_u64(out, u64::from(*index));
            put_u64(out, *offset);
        }
        for (key, change) in &self.claims {
            put_claim(out, key, change);
        }
        for (key, changed) in &self.refused {
            out.push(REFUSED);
            put_bytes(out, key);
            out.push(u8::from(changed.is_some()));
            put_i64(out, changed.unwrap_or_default().0);
        }
        for (changed, what, key) in &self.swept {
            out.push(SWEPT);
            put_i64(out, *changed);
            out.push(swept_tag(*what));
            put_bytes(out, key);
        }
        for segment in &self.dropped {
            out.push(DROPPED);
            put_u64(out, *segment);
        }
        if let Some(count) = self.forgot {
            out.push(FORGOT);
            put_u64(out, count);
        }
    }

    /// Reads a body. `stamp` is the frame's own. Topics are found among `topics` and those in the body.
    pub(super) fn decode(body: &[u8], stamp: Timestamp, topics: &Names) -> Result<ReadChanges, Short> {
        let mut r = Reader::new(body);
        let mut read = ReadChanges::default();
        let mut names = topics.clone();
        while !r.is_empty() {
            let changes = &mut read.changes;
            match r.u8()? {
                TOPIC => {
                    let topic = read_topic(&mut r)?;
                    names.set(topic.id, topic.name.clone());
                    changes.topics.push(topic);
                }
                RECORD => changes.records.push(read_record(&mut r, stamp, &names)?),
                COMPLETED => changes.completed.push(((r.u32()?, r.u32()?), r.u64()?)),
                CLAIM => read.diffs.push(read_claim(&mut r)?),
                REFUSED => {
                    let (key, is) = (r.bytes()?, r.u8()? == 1);
                    let changed = Timestamp(r.i64()?);
                    changes.refused.insert(key, is.then_some(changed));
                }
                SWEPT => changes.swept.push((r.i64()?, swept_of(r.u8()?)?, r.bytes()?)),
                DROPPED => changes.dropped.push(r.u64()?),
                FORGOT => changes.forgot = Some(r.u64()?),
                _ => return Err(Short),
            }
        }
        Ok(read)
    }
}

/// Names of topics by number.
#[derive(Clone, Default, Debug)]
pub(super) struct Names(Vec<Topic>);

impl Names {
    pub(super) fn of(topics: &Topics) -> Names {
        Names(topics.all().iter().map(|t| t.stored.name.clone()).collect())
    }

    pub(super) fn from_stored(topics: &[StoredTopic]) -> Names {
        let mut names = Names::default();
        topics.iter().for_each(|t| names.set(t.id, t.name.clone()));
        names
    }

    fn set(&mut self, id: u32, name: Topic) {
        let id = id as usize;
        if self.0.len() <= id {
            self.0.resize(id + 1, Topic::new(""));
        }
        self.0[id] = name;
    }

    pub(super) fn get(&self, id: u32) -> Option<&Topic> {
        self.0.get(id as usize)
    }
}

fn read_topic(r: &mut Reader<'_>) -> Result<StoredTopic, Short> {
    let id = r.u32()?;
    // Numbers are given in order, so a large one is damage, and must not ask for memory.
    if id > 100_000 {
        return Err(Short);
    }
    let (name, partitions, flags) = (Topic::new(r.text()?), r.u32()?, r.u8()?);
    Ok(StoredTopic { id, name, partitions, compacted: flags & 1 != 0, consumed: flags & 2 != 0 })
}

fn put_record(out: &mut Vec<u8>, topic: u32, record: &Record) {
    out.push(RECORD);
    put_u64(out, u64::from(topic));
    put_u64(out, u64::from(record.position.at.index));
    put_u64(out, record.position.offset);
    put_option(out, record.key.as_deref());
    put_option(out, record.value.as_deref());
    put_u64(out, record.headers.0.len() as u64);
    for (name, value) in &record.headers.0 {
        put_bytes(out, name.as_bytes());
        put_bytes(out, value);
    }
    out.push(u8::from(record.not_before.is_some()));
    if let Some(t) = record.not_before {
        put_i64(out, t.0);
    }
}

fn read_record(r: &mut Reader<'_>, stamp: Timestamp, names: &Names) -> Result<(u32, Arc<Record>), Short> {
    let (topic, index, offset) = (r.u32()?, r.u32()?, r.u64()?);
    let (key, value) = (r.option()?, r.option()?);
    let mut headers = Headers::default();
    for _ in 0..r.u64()? {
        headers.0.push((r.text()?.to_owned(), r.bytes()?));
    }
    let not_before = if r.u8()? == 1 { Some(Timestamp(r.i64()?)) } else { None };
    let at = Partition { topic: names.get(topic).ok_or(Short)?.clone(), index };
    let position = Position { at, offset };
    Ok((topic, Arc::new(Record { position, stamp, key, value, headers, not_before })))
}

fn put_claim(out: &mut Vec<u8>, key: &[u8], change: &ClaimChange) {
    out.push(CLAIM);
    put_bytes(out, key);
    let Some(after) = &change.after else {
        put_option(out, None);
        return;
    };
    put_option(out, Some(&after.encode_head()));
    let before = change.before.as_ref().map(|b| &b.slots);
    let whole = after.slots.is_empty() || before.is_none_or(std::collections::BTreeMap::is_empty);
    out.push(u8::from(whole));
    let mut slots: Vec<(&SlotName, Option<&SlotEntry>)> = Vec::new();
    for (name, slot) in &after.slots {
        if whole || before.and_then(|b| b.get(name)) != Some(slot) {
            slots.push((name, Some(slot)));
        }
    }
    if !whole {
        let gone = before.into_iter().flatten().filter(|(name, _)| !after.slots.contains_key(*name));
        slots.extend(gone.map(|(name, _)| (name, None)));
    }
    put_u64(out, slots.len() as u64);
    for (name, slot) in slots {
        put_bytes(out, name.0.as_bytes());
        put_option(out, slot.map(SlotEntry::encode_slot).as_deref());
    }
}

fn read_claim(r: &mut Reader<'_>) -> Result<(Bytes, ClaimDiff), Short> {
    let (key, head) = (r.bytes()?, r.option()?);
    let mut diff = ClaimDiff { head, whole: true, slots: Vec::new() };
    if diff.head.is_some() {
        diff.whole = r.u8()? == 1;
        for _ in 0..r.u64()? {
            let name = SlotName(r.text()?.into());
            let slot = r.option()?.map(|b| SlotEntry::decode_slot(&b)).transpose().map_err(|_| Short)?;
            diff.slots.push((name, slot));
        }
    }
    Ok((key, diff))
}

impl ClaimDiff {
    /// What the claim is after the frame, given what it was before.
    pub(super) fn resolve(self, before: Option<&Entry>) -> Result<Option<Entry>, crate::dedupe::StoredError> {
        let Some(head) = self.head else { return Ok(None) };
        let mut entry = Entry::decode_head(&head)?;
        if let (false, Some(before)) = (self.whole, before) {
            entry.slots = before.slots.clone();
        }
        for (name, slot) in self.slots {
            match slot {
                Some(slot) => entry.slots.insert(name, slot),
                None => entry.slots.remove(&name),
            };
        }
        Ok(Some(entry))
    }
}

pub(super) fn swept_tag(what: Swept) -> u8 {
    match what {
        Swept::Claim => 1,
        Swept::Refused => 2,
    }
}

pub(super) fn swept_of(tag: u8) -> Result<Swept, Short> {
    match tag {
        1 => Ok(Swept::Claim),
        2 => Ok(Swept::Refused),
        _ => Err(Short),
    }
}

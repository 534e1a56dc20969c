//! What is durable: the base of the last checkpoint, and over it what came since, in memory.
//!
//! Only the writer changes it, and only with what has been synced. A frozen layer is being folded
//! into the next base meanwhile; reads look at the newest layer first.

use super::base::{Base, BaseError, FrameRef};
use super::changes::{Changes, ExpiryRow, PartId};
use super::done::Done;
use super::topics::StoredTopic;
use crate::dedupe::Entry;
use crate::task::Timestamp;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Where the next frame goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LogEnd {
    /// First sequence of the segment.
    pub(super) segment: u64,
    pub(super) at: u64,
    pub(super) sequence: u64,
}

/// One partition.
#[derive(Clone, Debug, Default)]
pub(super) struct Part {
    pub(super) next: u64,
    pub(super) done: Done,
    /// Compacted topics: the offset that is live for each key.
    pub(super) live: HashMap<Bytes, u64>,
    pub(super) live_offsets: BTreeSet<u64>,
}

/// What a segment holds, so that retention need not read it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SegmentInfo {
    pub(super) bytes: u64,
    /// When its newest frame was written.
    pub(super) newest: Timestamp,
    /// First and last offset of each partition in it.
    pub(super) parts: BTreeMap<PartId, (u64, u64)>,
}

/// What changed since some checkpoint.
#[derive(Default, Debug)]
pub(super) struct Layer {
    pub(super) claims: BTreeMap<Bytes, Option<Arc<Entry>>>,
    pub(super) refused: BTreeMap<Bytes, Option<Timestamp>>,
    pub(super) swept: Vec<ExpiryRow>,
    pub(super) index: BTreeMap<(u32, u32, u64), FrameRef>,
    pub(super) live: BTreeMap<(PartId, Bytes), Option<u64>>,
    pub(super) parts: BTreeSet<PartId>,
    pub(super) segments: BTreeSet<u64>,
    pub(super) dropped: BTreeMap<u64, SegmentInfo>,
    /// Bytes of log that made it.
    pub(super) bytes: u64,
}

pub(super) struct State {
    pub(super) topics: Vec<StoredTopic>,
    pub(super) parts: BTreeMap<PartId, Part>,
    pub(super) segments: BTreeMap<u64, SegmentInfo>,
    pub(super) layer: Layer,
    pub(super) frozen: Option<Arc<Layer>>,
    pub(super) base: Arc<Base>,
    /// The segment in which a replay begins: that of the last checkpoint.
    pub(super) folded: u64,
    pub(super) end: LogEnd,
    /// Stamp of the newest frame; stamps never go back.
    pub(super) stamp: Timestamp,
    pub(super) forgot: u64,
}

impl State {
    fn layers(&self) -> impl Iterator<Item = &Layer> {
        std::iter::once(&self.layer).chain(self.frozen.as_deref())
    }

    pub(super) fn claim(&self, key: &[u8]) -> Result<Option<Arc<Entry>>, BaseError> {
        match self.layers().find_map(|l| l.claims.get(key)) {
            Some(found) => Ok(found.clone()),
            None => self.base.claim(key),
        }
    }

    pub(super) fn refused(&self, key: &[u8]) -> Result<Option<Timestamp>, BaseError> {
        match self.layers().find_map(|l| l.refused.get(key)) {
            Some(found) => Ok(*found),
            None => self.base.refused(key),
        }
    }

    pub(super) fn part(&self, id: PartId) -> Option<&Part> {
        self.parts.get(&id)
    }

    /// The frame that holds `offset` of the partition, or the next one behind it.
    pub(super) fn find(&self, id: PartId, mut offset: u64) -> Result<Option<(u64, FrameRef)>, BaseError> {
        loop {
            let found = match self.floor(id, offset)? {
                Some((first, frame)) if first + u64::from(frame.count) > offset => Some((first, frame)),
                _ => self.ceiling(id, offset)?,
            };
            let Some((first, frame)) = found else { return Ok(None) };
            if self.segments.contains_key(&frame.segment) {
                return Ok(Some((first, frame)));
            }
            // Its segment has gone; the index forgets it at the next checkpoint.
            let info = self.layers().find_map(|l| l.dropped.get(&frame.segment));
            let last =
                info.and_then(|i| i.parts.get(&id)).map_or(first + u64::from(frame.count) - 1, |p| p.1);
            offset = last.max(offset) + 1;
        }
    }

    fn floor(&self, (t, p): PartId, offset: u64) -> Result<Option<(u64, FrameRef)>, BaseError> {
        for layer in self.layers() {
            if let Some((key, frame)) = layer.index.range((t, p, 0)..=(t, p, offset)).next_back() {
                return Ok(Some((key.2, *frame)));
            }
        }
        self.base.floor((t, p), offset)
    }

    fn ceiling(&self, (t, p): PartId, offset: u64) -> Result<Option<(u64, FrameRef)>, BaseError> {
        if let Some(found) = self.base.ceiling((t, p), offset)? {
            return Ok(Some(found));
        }
        for layer in self.frozen.as_deref().into_iter().chain(std::iter::once(&self.layer)) {
            if let Some((key, frame)) = layer.index.range((t, p, offset)..=(t, p, u64::MAX)).next() {
                return Ok(Some((key.2, *frame)));
            }
        }
        Ok(None)
    }

    /// Offset of the first record of the partition that is still there.
    pub(super) fn first(&self, id: PartId) -> u64 {
        let next = self.part(id).map_or(0, |p| p.next);
        self.segments.values().find_map(|s| s.parts.get(&id)).map_or(next, |(first, _)| *first)
    }

    /// Whether who reads a compacted topic may see the record. One that is no longer the last of its
    /// key is hidden as soon as records behind it have gone: what superseded it, a tombstone perhaps,
    /// may be among them, while a neighbour that is still live keeps its own segment.
    pub(super) fn shows(&self, id: PartId, record: &crate::task::Record) -> bool {
        let offset = record.position.offset;
        record.value.is_none()
            || self.part(id).is_some_and(|p| p.live_offsets.contains(&offset))
            || !self.is_gap_behind(id, offset)
    }

    /// Offsets of a partition have no gaps but those that retention makes.
    fn is_gap_behind(&self, id: PartId, offset: u64) -> bool {
        let mut expected = None;
        let ranges = self.segments.values().filter_map(|s| s.parts.get(&id));
        for (first, last) in ranges.filter(|(_, last)| *last >= offset) {
            if expected.is_some_and(|e| *first > e) {
                return true;
            }
            expected = Some(last + 1);
        }
        expected != self.part(id).map(|p| p.next)
    }

    /// Takes in a frame that is durable. `frame.count` is not looked at.
    pub(super) fn merge(&mut self, changes: Changes, frame: FrameRef, sequence: u64) {
        for topic in changes.topics {
            self.set_topic(topic);
        }
        self.merge_records(&changes.records, frame);
        for (id, offset) in changes.completed {
            self.parts.entry(id).or_default().done.insert(offset);
            self.layer.parts.insert(id);
        }
        for (key, change) in changes.claims {
            self.layer.claims.insert(key, change.after);
        }
        self.layer.refused.extend(changes.refused);
        self.layer.swept.extend(changes.swept);
        for segment in changes.dropped {
            if let Some(info) = self.segments.remove(&segment) {
                self.layer.dropped.insert(segment, info);
            }
        }
        self.forgot = changes.forgot.unwrap_or(self.forgot);
        let info = self.segments.entry(frame.segment).or_default();
        info.newest = info.newest.max(frame.stamp);
        info.bytes = frame.at + u64::from(frame.len);
        self.layer.segments.insert(frame.segment);
        self.layer.bytes += u64::from(frame.len);
        self.stamp = self.stamp.max(frame.stamp);
        self.end = LogEnd { segment: frame.segment, at: info.bytes, sequence: sequence + 1 };
    }

    fn merge_records(&mut self, records: &[(u32, Arc<crate::task::Record>)], frame: FrameRef) {
        let mut firsts: BTreeMap<PartId, (u64, u32)> = BTreeMap::new();
        for (topic, record) in records {
            let (id, offset) = ((*topic, record.position.at.index), record.position.offset);
            firsts.entry(id).or_insert((offset, 0)).1 += 1;
            let compacted = self.topics.get(*topic as usize).is_some_and(|t| t.compacted);
            if let (true, Some(key)) = (compacted, &record.key) {
                self.set_live(id, key.clone(), record.value.is_some().then_some(offset));
            }
        }
        let info = self.segments.entry(frame.segment).or_default();
        for (id, (first, count)) in firsts {
            let last = first + u64::from(count) - 1;
            info.parts.entry(id).or_insert((first, last)).1 = last;
            self.layer.index.insert((id.0, id.1, first), FrameRef { count, ..frame });
            self.parts.entry(id).or_default().next = last + 1;
            self.layer.parts.insert(id);
        }
    }

    fn set_live(&mut self, id: PartId, key: Bytes, offset: Option<u64>) {
        let part = self.parts.entry(id).or_default();
        let old = match offset {
            Some(offset) => {
                part.live_offsets.insert(offset);
                part.live.insert(key.clone(), offset)
            }
            None => part.live.remove(&key),
        };
        if let Some(old) = old {
            part.live_offsets.remove(&old);
        }
        self.layer.live.insert((id, key), offset);
    }

    fn set_topic(&mut self, topic: StoredTopic) {
        for index in 0..topic.partitions {
            self.parts.entry((topic.id, index)).or_default();
            self.layer.parts.insert((topic.id, index));
        }
        match self.topics.iter_mut().find(|t| t.id == topic.id) {
            Some(found) => *found = topic,
            None => self.topics.push(topic),
        }
    }

    /// Keys of claims without outcome behind `after`, at most `max`, in order, with their entries.
    pub(super) fn open_claims(
        &self,
        after: &[u8],
        max: usize,
    ) -> Result<Vec<(Bytes, Arc<Entry>)>, BaseError> {
        // What is in a layer may hide what the base calls open, so a few more are asked for.
        let mut from = Bytes::copy_from_slice(after);
        let mut found: Vec<(Bytes, Arc<Entry>)> = Vec::new();
        while found.len() < max {
            let base = self.base.open_keys(&from, max)?;
            // Beyond the last of a full page the base may hold more: layers may not run ahead of it.
            let end = if base.len() < max { None } else { base.last().cloned() };
            let mut keys: BTreeSet<Bytes> = base.into_iter().collect();
            for layer in self.layers() {
                let from = (std::ops::Bound::Excluded(from.clone()), std::ops::Bound::Unbounded);
                let within = layer.claims.range::<Bytes, _>(from);
                keys.extend(
                    within.map(|(k, _)| k.clone()).take_while(|k| end.as_ref().is_none_or(|e| k <= e)),
                );
            }
            for key in keys {
                if let Some(entry) = self.claim(&key)?.filter(|e| !e.is_closed()) {
                    found.push((key, entry));
                }
            }
            match end {
                Some(end) => from = end,
                None => break,
            }
        }
        found.truncate(max);
        Ok(found)
    }
}

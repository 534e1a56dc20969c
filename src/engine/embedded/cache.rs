//! Frames that were just written or read, decoded, so that delivery and tailing need no disk.
//!
//! Bounded by the memory it takes; what was not asked for longest goes first: a backlog that is read
//! stays before outcomes that nobody follows. The newest frame stays whatever its size, or whoever
//! reads it in steps would read it from disk at each.

use super::changes::PartId;
use crate::task::Record;
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The records of one frame, by partition.
pub(super) type FrameRecords = BTreeMap<PartId, Vec<Arc<Record>>>;

/// Where a frame lies: segment and position.
pub(super) type FrameId = (u64, u64);

#[derive(Debug)]
pub(super) struct Cache {
    frames: HashMap<FrameId, Cached>,
    /// By last use.
    order: BTreeMap<u64, FrameId>,
    uses: u64,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Cached {
    records: Arc<FrameRecords>,
    bytes: usize,
    used: u64,
}

impl Cache {
    pub(super) fn new(bytes_max: usize) -> Self {
        Cache { frames: HashMap::new(), order: BTreeMap::new(), uses: 0, bytes: 0, bytes_max }
    }

    pub(super) fn get(&mut self, id: FrameId) -> Option<Arc<FrameRecords>> {
        let cached = self.frames.get_mut(&id)?;
        self.order.remove(&cached.used);
        self.uses += 1;
        cached.used = self.uses;
        self.order.insert(cached.used, id);
        Some(cached.records.clone())
    }

    pub(super) fn put(&mut self, id: FrameId, records: Arc<FrameRecords>) {
        if self.frames.contains_key(&id) {
            // Two have read it at the same time.
            return;
        }
        let bytes = memory(&records);
        self.uses += 1;
        self.bytes += bytes;
        self.frames.insert(id, Cached { records, bytes, used: self.uses });
        self.order.insert(self.uses, id);
        while self.bytes > self.bytes_max && self.order.len() > 1 {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            self.bytes -= self.frames.remove(&oldest).map_or(0, |c| c.bytes);
        }
    }
}

/// What the records take in memory, decoded: on disk they are a half or a third of it.
fn memory(records: &FrameRecords) -> usize {
    records.values().flatten().map(|r| record_memory(r)).sum()
}

fn record_memory(record: &Record) -> usize {
    /// What an allocator adds to each block and rounds it up by.
    const BLOCK: usize = 16;
    let headers = record.headers.0.iter();
    let headers: usize =
        headers.map(|(n, v)| size_of::<(String, Bytes)>() + n.len() + v.len() + 2 * BLOCK).sum();
    let bytes = |b: &Option<Bytes>| b.as_ref().map_or(0, |b| b.len() + BLOCK);
    size_of::<Record>() + 2 * BLOCK + headers + bytes(&record.key) + bytes(&record.value)
}

/// Sorts a frame's records by partition; within one they are in order already.
pub(super) fn by_partition<'a>(records: impl IntoIterator<Item = &'a (u32, Arc<Record>)>) -> FrameRecords {
    let mut sorted = FrameRecords::new();
    for (topic, record) in records {
        sorted.entry((*topic, record.position.at.index)).or_default().push(record.clone());
    }
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{Headers, Partition, Position, Timestamp, Topic};

    fn frame(value: usize) -> Arc<FrameRecords> {
        let at = Partition { topic: Topic::new("t"), index: 0 };
        let record = Record {
            position: Position { at, offset: 0 },
            stamp: Timestamp(0),
            key: None,
            value: Some(Bytes::from(vec![0; value])),
            headers: Headers::default(),
            not_before: None,
        };
        Arc::new(by_partition(&[(1, Arc::new(record))]))
    }

    #[test]
    fn what_was_not_asked_for_longest_goes_and_the_newest_stays_whatever_its_size() {
        let mut cache = Cache::new(25_000);
        cache.put((1, 0), frame(10_000));
        cache.put((1, 1), frame(10_000));
        assert!(cache.get((1, 0)).is_some());
        cache.put((1, 2), frame(10_000));
        assert_eq!([0, 1, 2].map(|at| cache.get((1, at)).is_some()), [true, false, true]);
        cache.put((1, 9), frame(100_000));
        assert_eq!([0, 2, 9].map(|at| cache.get((1, at)).is_some()), [false, false, true]);
        assert_eq!((cache.frames.len(), cache.order.len()), (1, 1));
        cache.put((1, 10), frame(10));
        assert_eq!([9, 10].map(|at| cache.get((1, at)).is_some()), [false, true]);
        assert_eq!(cache.bytes, memory(&frame(10)));
    }
}

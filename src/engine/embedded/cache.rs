//! Frames that were just written or read, decoded, so that delivery and tailing need no disk.
//!
//! Bounded by bytes; the oldest goes first, for a log is read in order.

use super::changes::PartId;
use crate::task::Record;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

/// The records of one frame, by partition.
pub(super) type FrameRecords = BTreeMap<PartId, Vec<Arc<Record>>>;

/// Where a frame lies: segment and position.
pub(super) type FrameId = (u64, u64);

#[derive(Debug)]
pub(super) struct Cache {
    frames: HashMap<FrameId, (Arc<FrameRecords>, usize)>,
    order: VecDeque<FrameId>,
    bytes: usize,
    bytes_max: usize,
}

impl Cache {
    pub(super) fn new(bytes_max: usize) -> Self {
        Cache { frames: HashMap::new(), order: VecDeque::new(), bytes: 0, bytes_max }
    }

    pub(super) fn get(&self, id: FrameId) -> Option<Arc<FrameRecords>> {
        self.frames.get(&id).map(|(records, _)| records.clone())
    }

    /// `bytes`: what the frame takes on disk.
    pub(super) fn put(&mut self, id: FrameId, records: Arc<FrameRecords>, bytes: usize) {
        if self.frames.insert(id, (records, bytes)).is_none() {
            self.order.push_back(id);
            self.bytes += bytes;
        }
        while self.bytes > self.bytes_max {
            let Some(oldest) = self.order.pop_front() else { break };
            self.bytes -= self.frames.remove(&oldest).map_or(0, |(_, bytes)| bytes);
        }
    }
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

    #[test]
    fn the_oldest_frames_go_when_the_bytes_are_used_up() {
        let mut cache = Cache::new(25);
        for at in 0..3 {
            cache.put((1, at), Arc::default(), 10);
        }
        assert_eq!([0, 1, 2].map(|at| cache.get((1, at)).is_some()), [false, true, true]);
        cache.put((1, 9), Arc::default(), 1000);
        assert_eq!((cache.bytes, cache.frames.len(), cache.order.len()), (0, 0, 0));
    }
}

//! Records that were fetched and wait to be handed out, one lane for each partition served.
//!
//! Lanes take turns. A held topic, a record whose time has not come and a partition that is crowded
//! each stop their own lane only. Memory is bounded by two watermarks on each lane: the client is told
//! to pause at the upper one and to go on at the lower. It decides nothing about completion.

use crate::engine::Lease;
use crate::task::{Partition, Record, Timestamp, Topic};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

/// Records of one lane at which the client is told to pause, and the bytes of them.
const HIGH: usize = 256;
const HIGH_BYTES: usize = 4 << 20;

#[derive(Debug)]
struct Lane {
    lease: Lease,
    ready: VecDeque<Arc<Record>>,
    bytes: usize,
    paused: bool,
}

#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: BTreeMap<Partition, Lane>,
    held: HashSet<Topic>,
    /// The partition that was served last.
    turn: Option<Partition>,
}

/// What the client should be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Flow {
    Pause,
    Resume,
}

impl Lanes {
    pub(super) fn open(&mut self, lease: Lease) {
        let lane = Lane { lease: lease.clone(), ready: VecDeque::new(), bytes: 0, paused: false };
        self.lanes.insert(lease.at, lane);
    }

    pub(super) fn close(&mut self, at: &Partition) {
        self.lanes.remove(at);
    }

    pub(super) fn hold(&mut self, topic: &Topic, held: bool) {
        if held {
            self.held.insert(topic.clone());
        } else {
            self.held.remove(topic);
        }
    }

    /// `Some(Pause)` when the lane has filled up.
    pub(super) fn put(&mut self, lease: &Lease, record: Arc<Record>) -> Option<Flow> {
        let lane = self.lanes.get_mut(&lease.at).filter(|l| l.lease == *lease)?;
        lane.bytes += weight(&record);
        lane.ready.push_back(record);
        let full = lane.ready.len() >= HIGH || lane.bytes >= HIGH_BYTES;
        (full && !std::mem::replace(&mut lane.paused, full)).then_some(Flow::Pause)
    }

    /// The next record in turn that may be handed out at `now`. `Some(Resume)` when its lane has room again.
    pub(super) fn take(
        &mut self,
        now: Timestamp,
        open: impl Fn(&Lease) -> bool,
    ) -> Option<(Lease, Arc<Record>, Option<Flow>)> {
        let behind =
            self.turn.as_ref().map(|turn| self.lanes.range((after(turn), std::ops::Bound::Unbounded)));
        let order: Vec<Partition> =
            behind.into_iter().flatten().chain(self.lanes.iter()).map(|(at, _)| at.clone()).collect();
        for at in order {
            let Some(lane) = self.lanes.get_mut(&at) else { continue };
            let due = lane.ready.front().is_some_and(|r| r.not_before.is_none_or(|t| t <= now));
            if !due || self.held.contains(&at.topic) || !open(&lane.lease) {
                continue;
            }
            let Some(record) = lane.ready.pop_front() else { continue };
            lane.bytes -= weight(&record);
            let low = lane.ready.len() <= HIGH * 4 / 5 && lane.bytes <= HIGH_BYTES * 4 / 5;
            let resumes = lane.paused && low;
            lane.paused &= !low;
            self.turn = Some(at);
            return Some((lane.lease.clone(), record, resumes.then_some(Flow::Resume)));
        }
        None
    }

    /// When the first record is due that waits for its time.
    pub(super) fn due(&self) -> Option<Timestamp> {
        let open = self.lanes.values().filter(|l| !self.held.contains(&l.lease.at.topic));
        open.filter_map(|l| l.ready.front()?.not_before).min()
    }
}

fn after(at: &Partition) -> std::ops::Bound<Partition> {
    std::ops::Bound::Excluded(at.clone())
}

fn weight(record: &Record) -> usize {
    let headers: usize = record.headers.0.iter().map(|(n, v)| n.len() + v.len()).sum();
    record.value.as_ref().map_or(0, bytes::Bytes::len) + headers + 256
}

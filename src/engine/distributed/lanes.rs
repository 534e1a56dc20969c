//! Records that were fetched and wait to be handed out, one lane for each partition served.
//!
//! Lanes take turns. A held topic, a record whose time has not come and a partition that is crowded
//! each stop their own lane only. Memory is bounded by two watermarks on each lane: the client is told
//! to pause at the upper one and to go on at the lower. It decides nothing about completion.

use crate::engine::Lease;
use crate::task::{Partition, Record, Timestamp, Topic};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

/// Records of one lane at which the client is told to pause, and the bytes of them. A pause throws away what the
/// client has fetched, and going on fetches it again: so a lane has room for two fetches of a client (1 MiB, a
/// thousand records of 1 KiB), and goes on when one of them is handed out.
const HIGH: usize = 2_048;
const HIGH_BYTES: usize = 4 << 20;
/// Records of one lane that wait for their time, at most: they stand in nobody's way up to here, and beyond it
/// the lane waits until a fifth of them has come due.
const LATER: usize = 1_024;

#[derive(Debug)]
struct Lane {
    lease: Lease,
    ready: VecDeque<Arc<Record>>,
    /// Records whose time has not come, by time and offset.
    later: BTreeMap<(Timestamp, u64), Arc<Record>>,
    /// Of all that the lane keeps.
    bytes: usize,
    paused: bool,
}

impl Lane {
    fn is_full(&self) -> bool {
        self.ready.len() >= HIGH || self.bytes >= HIGH_BYTES || self.later.len() >= LATER
    }

    /// What waits for its time comes due bit by bit, and behind it may lie what is due before.
    fn has_room_again(&self) -> bool {
        self.ready.len() < HIGH / 2 && self.bytes < HIGH_BYTES / 2 && self.later.len() < LATER / 5 * 4
    }

    /// Which record comes next at `now`, of those below an offset.
    fn next(&self, now: Timestamp, below: u64) -> Option<Next> {
        let due = self.later.first_key_value().filter(|((at, offset), _)| *at <= now && *offset < below);
        if let Some((key, _)) = due {
            return Some(Next::Later(*key));
        }
        let index = self.ready.iter().position(|record| record.position.offset < below)?;
        Some(Next::Ready(index))
    }
}

enum Next {
    Later((Timestamp, u64)),
    Ready(usize),
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
        let (ready, later) = (VecDeque::new(), BTreeMap::new());
        let lane = Lane { lease: lease.clone(), ready, later, bytes: 0, paused: false };
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
    pub(super) fn put(&mut self, lease: &Lease, record: Arc<Record>, now: Timestamp) -> Option<Flow> {
        let lane = self.lanes.get_mut(&lease.at).filter(|l| l.lease == *lease)?;
        lane.bytes += weight(&record);
        match record.not_before.filter(|at| *at > now) {
            Some(at) => drop(lane.later.insert((at, record.position.offset), record)),
            None => lane.ready.push_back(record),
        }
        (lane.is_full() && !std::mem::replace(&mut lane.paused, true)).then_some(Flow::Pause)
    }

    /// The next record in turn that may be handed out at `now`; `room` is below what offset. `Some(Resume)` when its lane has room again.
    pub(super) fn take(
        &mut self,
        now: Timestamp,
        room: impl Fn(&Lease) -> u64,
    ) -> Option<(Lease, Arc<Record>, Option<Flow>)> {
        let behind =
            self.turn.as_ref().map(|turn| self.lanes.range((after(turn), std::ops::Bound::Unbounded)));
        let mut order = behind.into_iter().flatten().chain(self.lanes.iter());
        let (at, next) = order.find_map(|(at, lane)| {
            let open = !self.held.contains(&at.topic);
            let next = open.then(|| lane.next(now, room(&lane.lease))).flatten()?;
            Some((at.clone(), next))
        })?;
        let lane = self.lanes.get_mut(&at)?;
        let record = match next {
            Next::Later(key) => lane.later.remove(&key),
            Next::Ready(index) => lane.ready.remove(index),
        }?;
        lane.bytes -= weight(&record);
        let resumes = lane.paused && lane.has_room_again();
        lane.paused &= !resumes;
        self.turn = Some(at);
        Some((lane.lease.clone(), record, resumes.then_some(Flow::Resume)))
    }

    /// When the next record is due that waits for its time.
    pub(super) fn due(&self, now: Timestamp, open: impl Fn(&Lease) -> bool) -> Option<Timestamp> {
        let open = self.lanes.values().filter(|l| !self.held.contains(&l.lease.at.topic) && open(&l.lease));
        let waits = open.filter_map(|l| l.later.keys().map(|(at, _)| *at).find(|at| *at > now));
        waits.min()
    }
}

fn after(at: &Partition) -> std::ops::Bound<Partition> {
    std::ops::Bound::Excluded(at.clone())
}

fn weight(record: &Record) -> usize {
    let headers: usize = record.headers.0.iter().map(|(n, v)| n.len() + v.len()).sum();
    let bytes = |b: &Option<bytes::Bytes>| b.as_ref().map_or(0, bytes::Bytes::len);
    bytes(&record.key) + bytes(&record.value) + headers + 256
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{Headers, Position};

    const NOW: Timestamp = Timestamp(1_000);

    fn lease(index: u32) -> Lease {
        Lease { at: Partition { topic: Topic::new("retry.30m"), index }, epoch: 1 }
    }

    fn record(index: u32, offset: u64, not_before: Option<i64>) -> Arc<Record> {
        let position = Position { at: lease(index).at, offset };
        let headers = Headers::default();
        let not_before = not_before.map(Timestamp);
        Arc::new(Record { position, stamp: NOW, key: None, value: None, headers, not_before })
    }

    fn taken(lanes: &mut Lanes, now: i64) -> Vec<(u32, u64)> {
        let take = |lanes: &mut Lanes| lanes.take(Timestamp(now), |_| u64::MAX);
        std::iter::from_fn(|| take(lanes)).map(|(_, r, _)| (r.position.at.index, r.position.offset)).collect()
    }

    #[test]
    fn p7_a_record_that_waits_for_its_time_stands_in_nobodys_way() {
        let mut lanes = Lanes::default();
        lanes.open(lease(0));
        for (offset, not_before) in [(0, Some(9_000)), (1, None), (2, Some(2_000)), (3, Some(500))] {
            assert_eq!(lanes.put(&lease(0), record(0, offset, not_before), NOW), None);
        }
        assert_eq!(taken(&mut lanes, 1_000), [(0, 1), (0, 3)]);
        assert_eq!(lanes.due(NOW, |_| true), Some(Timestamp(2_000)));
        assert_eq!(taken(&mut lanes, 2_000), [(0, 2)]);
        assert_eq!(taken(&mut lanes, 9_000), [(0, 0)]);
    }

    #[test]
    fn lanes_take_turns_and_a_held_topic_waits() {
        let mut lanes = Lanes::default();
        for index in 0..2 {
            lanes.open(lease(index));
            for offset in 0..2 {
                let _ = lanes.put(&lease(index), record(index, offset, None), NOW);
            }
        }
        lanes.hold(&lease(0).at.topic, true);
        assert_eq!(taken(&mut lanes, 1_000), []);
        lanes.hold(&lease(0).at.topic, false);
        assert_eq!(taken(&mut lanes, 1_000), [(0, 0), (1, 0), (0, 1), (1, 1)]);
    }

    #[test]
    fn a_full_lane_pauses_once_and_goes_on_with_room() {
        const ALL: u64 = HIGH as u64 + 50;
        let mut lanes = Lanes::default();
        lanes.open(lease(0));
        let flows: Vec<Option<Flow>> =
            (0..ALL).map(|o| lanes.put(&lease(0), record(0, o, None), NOW)).collect();
        assert_eq!(flows.iter().position(Option::is_some), Some(HIGH - 1));
        assert_eq!(flows.iter().flatten().count(), 1);
        let flows: Vec<Option<Flow>> =
            std::iter::from_fn(|| lanes.take(NOW, |_| u64::MAX)).map(|(_, _, flow)| flow).collect();
        assert_eq!(flows.len() as u64, ALL);
        assert_eq!(flows.iter().flatten().collect::<Vec<_>>(), [&Flow::Resume]);
    }

    #[test]
    fn what_would_make_a_hole_too_many_lets_the_others_by() {
        let mut lanes = Lanes::default();
        lanes.open(lease(0));
        for offset in [7, 8, 3] {
            let _ = lanes.put(&lease(0), record(0, offset, None), NOW);
        }
        let next = lanes.take(NOW, |_| 5).map(|(_, r, _)| r.position.offset);
        assert_eq!(next, Some(3));
        assert!(lanes.take(NOW, |_| 5).is_none());
    }
}

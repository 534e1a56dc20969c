//! Hands records out to the one member of a group: in order per partition, each once, complete
//! ones never, parked ones when their time has come.
//!
//! A thread of each group reads ahead into lanes, one per partition; `next` takes from the lanes in
//! turn. It keeps no record of what was handed out but how far each lane has read.

use super::changes::PartId;
use super::guard::Guard;
use super::handle::Handle;
use super::log::read;
use super::queue::Command;
use super::shared::{Shared, lock};
use crate::dedupe::Nonce;
use crate::engine::{Delivery, Event, Gone, Group, Groups, Health, Lease};
use crate::task::{Partition, Record, Timestamp, Topic};
use futures::future::BoxFuture;
use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, oneshot, watch};

/// Records read ahead per partition: some frames' worth, so that reading never waits for `next`.
const AHEAD: usize = 256;
/// Bytes read ahead per group: large records wait on disk instead. Lanes that are held do not count,
/// or one of them would keep the others from reading; each topic keeps what it had when it was held,
/// so a group has at most this much for each of its topics.
const AHEAD_BYTES: usize = 32 << 20;
/// A reader with nothing to do looks again after this long, whatever it was told.
const PATIENCE: Duration = Duration::from_millis(500);

pub(super) struct EmbeddedGroups(pub(super) Arc<Handle>);

/// One partition as its group sees it.
struct Lane {
    id: PartId,
    lease: Lease,
    held: bool,
    ready: VecDeque<Arc<Record>>,
    /// Of what is ready.
    bytes: usize,
    /// Everything below has been looked at.
    read: u64,
    /// Parked: when, and at which offset.
    later: BTreeSet<(Timestamp, u64)>,
}

struct Member {
    shared: Arc<Shared>,
    lanes: Mutex<Lanes>,
    /// `next` may find something.
    ready: Notify,
    left: AtomicBool,
}

#[derive(Default)]
struct Lanes {
    all: Vec<Lane>,
    events: VecDeque<Event>,
    turn: usize,
    /// Ready in all lanes that are not held.
    bytes: usize,
}

impl Groups for EmbeddedGroups {
    fn join(&self, name: &str, topics: &[Topic]) -> Box<dyn Group> {
        let shared = self.0.shared.clone();
        let ids: Vec<u32> = topics.iter().filter_map(|t| shared.topics.id(t)).collect();
        let (reply, joined) = oneshot::channel();
        // Closed: then no lane ever becomes ready, and health says so.
        let _ = shared.queue.push_own(Command::Join { topics: ids.clone(), reply });
        let mut lanes = Lanes::default();
        for id in ids {
            let parts = shared.topics.get(id).map_or(0, |t| t.stored.partitions);
            lanes.all.extend((0..parts).filter_map(|index| lane(&shared, (id, index))));
        }
        shared.set_leases(lanes.all.iter().map(|l| (l.id, l.lease.epoch)));
        lanes.events.extend(lanes.all.iter().map(|l| Event::Assigned { lease: l.lease.clone() }));
        let health = shared.health.subscribe();
        let (lanes, ready) = (Mutex::new(lanes), Notify::new());
        let member = Arc::new(Member { shared, lanes, ready, left: AtomicBool::new(false) });
        let reader = member.clone();
        let called = format!("tidegate-{name}");
        let thread = std::thread::Builder::new().name(called.clone());
        // What was committed under the leases of a member before this one must be known first.
        let started = thread.spawn(move || {
            let _guard = Guard::new(&reader.shared, &called);
            let _ = joined.blocking_recv();
            reader.read_ahead();
        });
        if let Err(e) = started {
            let why = format!("no thread for the group `{name}` ({e}): raise the limit of processes");
            lock(&member.lanes).events.push_back(Event::Health(Health::Gone { why }));
        }
        Box::new(EmbeddedGroup { member, health, said: Health::Well })
    }
}

fn lane(shared: &Shared, id: PartId) -> Option<Lane> {
    let topic = shared.topics.get(id.0)?.stored.name.clone();
    let lease = Lease { at: Partition { topic, index: id.1 }, epoch: shared.new_epoch() };
    Some(Lane { id, lease, held: false, ready: VecDeque::new(), bytes: 0, read: 0, later: BTreeSet::new() })
}

struct EmbeddedGroup {
    member: Arc<Member>,
    health: watch::Receiver<Health>,
    said: Health,
}

impl Group for EmbeddedGroup {
    fn next(&mut self, room: bool) -> BoxFuture<'_, Event> {
        Box::pin(async move {
            loop {
                // Asked for before looking, so that nothing that comes in between is missed.
                let member = self.member.clone();
                let ready = member.ready.notified();
                if let Some(event) = self.look(room) {
                    return event;
                }
                tokio::select! {
                    () = ready => {}
                    changed = self.health.changed() => if changed.is_err() {
                        // The engine is gone with all its threads.
                        std::future::pending::<()>().await;
                    },
                }
            }
        })
    }

    fn hold(&self, topic: &Topic, held: bool) {
        lock(&self.member.lanes).hold(topic, held);
        self.member.ready.notify_one();
        self.member.shared.wake_readers();
    }

    /// Nothing to give up: a revoked partition has been given up already.
    fn drained(&self, _lease: Lease) {}

    /// Nothing vanishes here: retention keeps what is not complete.
    fn orphaned(&self, _: Lease, _: &Gone, _: &BTreeSet<u64>) {}
}

impl EmbeddedGroup {
    /// Takes the next event, if there is one. No await between taking it and answering it.
    fn look(&mut self, room: bool) -> Option<Event> {
        let health = self.health.borrow_and_update().clone();
        if health != self.said {
            self.said = health.clone();
            return Some(Event::Health(health));
        }
        let mut lanes = lock(&self.member.lanes);
        if let Some(event) = lanes.events.pop_front() {
            return Some(event);
        }
        // Paused: work in flight is finished, nothing new is begun.
        if health != Health::Well || !room {
            return None;
        }
        let (delivery, low) = lanes.take()?;
        drop(lanes);
        if low {
            self.member.shared.wake_readers();
        }
        Some(Event::Record(delivery))
    }
}

impl Drop for EmbeddedGroup {
    fn drop(&mut self) {
        self.member.left.store(true, Ordering::Release);
        self.member.shared.wake_readers();
    }
}

impl Lanes {
    fn hold(&mut self, topic: &Topic, held: bool) {
        for lane in self.all.iter_mut().filter(|l| l.lease.at.topic == *topic) {
            lane.held = held;
        }
        self.bytes = self.all.iter().filter(|l| !l.held).map(|l| l.bytes).sum();
    }

    fn ready(&mut self, i: usize, record: Arc<Record>) {
        let (lane, bytes) = (&mut self.all[i], weight(&record));
        lane.ready.push_back(record);
        lane.bytes += bytes;
        // Held since it was read: it counts again once it is let go.
        self.bytes += if lane.held { 0 } else { bytes };
    }

    /// One record of the next lane in turn that has one and is not held; and whether there is room
    /// to read ahead again.
    fn take(&mut self) -> Option<(Delivery, bool)> {
        let count = self.all.len();
        for step in 0..count {
            let i = (self.turn + step) % count;
            let lane = &mut self.all[i];
            if lane.held {
                continue;
            }
            if let Some(record) = lane.ready.pop_front() {
                self.turn = (i + 1) % count;
                let before = self.bytes;
                lane.bytes -= weight(&record);
                self.bytes -= weight(&record);
                // Once per crossing, not once per record.
                let low = lane.ready.is_empty()
                    || lane.ready.len() == AHEAD / 2
                    || (before >= AHEAD_BYTES / 2 && self.bytes < AHEAD_BYTES / 2);
                let nonce = Nonce(rand::random::<u128>().max(1));
                return Some((Delivery { lease: lane.lease.clone(), record, nonce }, low));
            }
        }
        None
    }
}

fn weight(record: &Record) -> usize {
    record.value.as_ref().map_or(0, bytes::Bytes::len)
        + record.key.as_ref().map_or(0, bytes::Bytes::len)
        + 256
}

impl Member {
    /// The group's thread: keeps the lanes filled.
    fn read_ahead(&self) {
        let (mut seen, mut said) = (0, String::new());
        while !self.left.load(Ordering::Acquire) && !self.shared.queue.is_shut() {
            self.reassign();
            let mut moved = false;
            let count = lock(&self.lanes).all.len();
            for i in 0..count {
                match self.fill(i) {
                    Ok(found) => moved |= found,
                    // Said once, and again whenever it is another error.
                    Err(e) if said != e.0 => {
                        tracing::error!(error = %e, "records could not be read; they are tried again");
                        said = e.0;
                    }
                    Err(_) => {}
                }
            }
            if moved {
                self.ready.notify_one();
            } else {
                seen = self.shared.wait(seen, self.patience());
            }
        }
    }

    /// Until the next parked record is due.
    fn patience(&self) -> Duration {
        let lanes = lock(&self.lanes);
        let due = lanes.all.iter().filter_map(|l| l.later.first()).map(|(at, _)| *at).min();
        patience(due, Timestamp::now())
    }

    /// A lease that is no longer its lane's: revoked, and assigned anew.
    fn reassign(&self) {
        let leases = self.shared.leases();
        let mut lanes = lock(&self.lanes);
        let lanes = &mut *lanes;
        for lane in &mut lanes.all {
            let Some(epoch) = leases.get(&lane.id).copied().filter(|e| *e != lane.lease.epoch) else {
                continue;
            };
            lanes.events.push_back(Event::Revoked { lease: lane.lease.clone() });
            lane.lease.epoch = epoch;
            lanes.events.push_back(Event::Assigned { lease: lane.lease.clone() });
            lane.ready.clear();
            let ahead = std::mem::take(&mut lane.bytes);
            lanes.bytes -= if lane.held { 0 } else { ahead };
            lane.later.clear();
            lane.read = 0;
            self.ready.notify_one();
        }
    }

    /// Reads ahead in one lane. `true`: something is ready that was not.
    fn fill(&self, i: usize) -> Result<bool, crate::engine::Unavailable> {
        let (id, epoch, from, room) = {
            let lanes = lock(&self.lanes);
            let lane = &lanes.all[i];
            let room = if lanes.bytes >= AHEAD_BYTES { 0 } else { AHEAD.saturating_sub(lane.ready.len()) };
            // A held topic is not read further than what it has already.
            (lane.id, lane.lease.epoch, lane.read, if lane.held { 0 } else { room })
        };
        if room == 0 {
            return Ok(false);
        }
        let due = self.due(i, id, room);
        let from = from.max(self.first_open(id, from));
        // What is due has been taken from its list: it goes out, whatever can be read behind it.
        let (fresh, trouble) = match read(&self.shared, id, from, room, true) {
            Ok(found) => (found.unwrap_or_default(), None),
            Err(e) => (Vec::new(), Some(e)),
        };
        let done: Vec<bool> = {
            let state = self.shared.state();
            let part = state.part(id);
            fresh.iter().map(|r| part.is_some_and(|p| p.done.contains(r.position.offset))).collect()
        };
        let mut lanes = lock(&self.lanes);
        if lanes.all[i].lease.epoch != epoch {
            return Ok(false);
        }
        let now = Timestamp::now();
        let before = lanes.all[i].ready.len();
        for record in due {
            lanes.ready(i, record);
        }
        for (record, done) in fresh.into_iter().zip(done) {
            lanes.all[i].read = record.position.offset + 1;
            match record.not_before {
                _ if done => {}
                Some(at) if at > now => {
                    lanes.all[i].later.insert((at, record.position.offset));
                }
                _ => lanes.ready(i, record),
            }
        }
        let lane = &lanes.all[i];
        let moved = lane.ready.len() > before || lane.read > from;
        trouble.map_or(Ok(moved), Err)
    }

    /// Whatever is complete at the start of the lane need not be read at all.
    fn first_open(&self, id: PartId, from: u64) -> u64 {
        let state = self.shared.state();
        let Some(part) = state.part(id) else { return from };
        part.done.first_open(from, u64::MAX - 1).unwrap_or(from)
    }

    /// Parked records of the lane whose time has come, taken from its list.
    fn due(&self, i: usize, id: PartId, room: usize) -> Vec<Arc<Record>> {
        let now = Timestamp::now();
        let offsets: Vec<(Timestamp, u64)> = {
            let lanes = lock(&self.lanes);
            lanes.all[i].later.iter().take_while(|(at, _)| *at <= now).take(room).copied().collect()
        };
        let mut records = Vec::new();
        for (at, offset) in offsets {
            match read(&self.shared, id, offset, 1, true) {
                Ok(found) => {
                    records.extend(found.into_iter().flatten().filter(|r| r.position.offset == offset))
                }
                Err(e) => {
                    // It stays on the list, and so do those behind it.
                    tracing::error!(error = %e, "a parked record could not be read; it is tried again");
                    break;
                }
            }
            lock(&self.lanes).all[i].later.remove(&(at, offset));
        }
        records
    }
}

/// However far away the next one is by a clock that may have been set: who waits looks again.
fn patience(due: Option<Timestamp>, now: Timestamp) -> Duration {
    due.map_or(PATIENCE, |due| now.until(due).clamp(Duration::from_millis(1), PATIENCE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parked_record_is_looked_for_again_soon_wherever_the_clock_jumps_meanwhile() {
        const HOUR: i64 = 3_600_000;
        let due = Timestamp(1_795_500_000_000);
        let wait = |now: i64| patience(Some(due), Timestamp(now));
        assert_eq!(wait(due.0 - 200), Duration::from_millis(200));
        for back in [due.0 - HOUR, due.0 - 5_000 * HOUR, i64::MIN] {
            assert_eq!(wait(back), PATIENCE, "{back}");
        }
        for ahead in [due.0, due.0 + HOUR, i64::MAX] {
            assert_eq!(
                wait(ahead),
                Duration::from_millis(1),
                "{ahead}: due at the next look, and no busy loop"
            );
        }
        assert_eq!(patience(None, due), PATIENCE);
    }
}

//! What the threads of one member share: the way to its group's task, the membership of now, the watch
//! over calls that may never return.

use super::super::assignment::{MemberId, Membership};
use super::super::client::Heard;
use super::super::lock;
use super::properties::TRANSACTION;
use rdkafka::consumer::ConsumerGroupMetadata;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::Sender;

/// A runtime that has not asked for this long is wedged: its partitions go to others.
const WEDGED: Duration = Duration::from_secs(60);
/// A call that is not back so long after its transaction has timed out never comes back.
const HUNG: Duration = TRANSACTION.saturating_add(Duration::from_secs(10));

/// As the client knew itself at the last rebalance.
#[derive(Clone)]
struct Captured {
    by: Membership,
    /// `None`: it was a member of nothing. What would be sent then is checked by nobody.
    metadata: Option<Arc<ConsumerGroupMetadata>>,
}

pub(super) struct Line {
    heard: Sender<Heard>,
    captured: Mutex<Option<Captured>>,
    asked: Mutex<Instant>,
    reachable: AtomicBool,
    pub(super) watch: Watch,
}

impl Line {
    pub(super) fn new(heard: Sender<Heard>) -> Self {
        Line {
            heard,
            captured: Mutex::default(),
            asked: Mutex::new(Instant::now()),
            reachable: AtomicBool::new(true),
            watch: Watch::default(),
        }
    }

    /// Waits while the group's task has much to take in. `false`: it has ended.
    pub(super) fn say(&self, heard: Heard) -> bool {
        self.heard.blocking_send(heard).is_ok()
    }

    /// The member was dropped.
    pub(super) fn is_over(&self) -> bool {
        self.heard.is_closed()
    }

    /// The runtime is there.
    pub(super) fn asked(&self) {
        *lock(&self.asked) = Instant::now();
    }

    pub(super) fn is_wedged(&self) -> bool {
        lock(&self.asked).elapsed() >= WEDGED
    }

    pub(super) fn capture(&self, by: Membership, metadata: Option<ConsumerGroupMetadata>) {
        *lock(&self.captured) = Some(Captured { by, metadata: metadata.map(Arc::new) });
    }

    pub(super) fn member(&self) -> Option<MemberId> {
        lock(&self.captured).as_ref().map(|c| c.by.member.clone())
    }

    /// What was captured together with that membership; `None` once there is a later one, which the
    /// broker would refuse as well.
    pub(super) fn metadata(&self, by: &Membership) -> Option<Arc<ConsumerGroupMetadata>> {
        lock(&self.captured).as_ref().filter(|c| c.by == *by)?.metadata.clone()
    }

    pub(super) fn is_reachable(&self) -> bool {
        self.reachable.load(Ordering::Relaxed)
    }

    /// Tells it only when it changes.
    pub(super) fn reached(&self, how: Result<(), String>) {
        if self.reachable.swap(how.is_ok(), Ordering::Relaxed) != how.is_ok() {
            self.say(Heard::Reachable(how));
        }
    }
}

/// What one look counts at most: a process that stood still for longer has not seen its call hang.
const LOOKED: Duration = Duration::from_secs(1);

#[derive(Clone, Copy)]
struct Running {
    /// How long it has run while a broker was reached.
    reached: Duration,
    looked: Instant,
}

/// Over calls into the client that now and then ignore their own timeout.
#[derive(Default)]
pub(super) struct Watch(Mutex<Option<Running>>);

impl Watch {
    pub(super) fn begin(&self, now: Instant) {
        *lock(&self.0) = Some(Running { reached: Duration::ZERO, looked: now });
    }

    pub(super) fn end(&self) {
        *lock(&self.0) = None;
    }

    /// Whether the call that runs has hung. Time without a broker does not count.
    pub(super) fn hangs(&self, reachable: bool, now: Instant) -> bool {
        let mut running = lock(&self.0);
        let Some(running) = running.as_mut() else { return false };
        if reachable {
            running.reached += now.saturating_duration_since(running.looked).min(LOOKED);
        }
        running.looked = now;
        running.reached >= HUNG
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_hangs_only_by_the_time_in_which_a_broker_was_reached() {
        let watch = Watch::default();
        let began = Instant::now();
        let at = |s| began + Duration::from_secs(s);
        // Looked at once a second: the last answer.
        let looked = |reachable, seconds: std::ops::RangeInclusive<u64>| {
            seconds.map(|s| watch.hangs(reachable, at(s))).last().unwrap()
        };
        assert!(!looked(true, 1..=100), "nothing runs");
        watch.begin(at(100));
        assert!(!looked(true, 101..=115));
        assert!(!looked(false, 116..=700), "the broker was away");
        assert!(!looked(true, 701..=704));
        assert!(!watch.hangs(true, at(704)) && looked(true, 705..=705));
        watch.begin(at(705));
        assert!(!looked(true, 706..=706), "the next call begins anew");
        assert!(!watch.hangs(true, at(10_000)), "the process stood still, and the call with it");
        watch.end();
        assert!(!looked(true, 10_001..=10_100));
    }
}

//! Decides what goes into the next transaction of a group, and what became of the last one.
//!
//! ```text
//!          next                 visible
//!   Idle ───────► Committing ───────────────► Idle, answered
//!     ▲               │  aborted ─► Resting ─► Idle, the batch first in line
//!     │               └─ unknown ─► Renewing ─► ReadingBack ─► visible | again | void
//!     └────────────────────────────────────────────┘
//! ```
//!
//! One transaction at a time. Outputs, offsets and metadata are taken of one moment: whoever takes them
//! apart publishes twice, or skips. It never produces, waits, or reads a clock.
//!
//! ## Why read back only behind a new producer
//!
//! After a timeout the coordinator may still be ending the transaction; a late end can even meet the
//! next one. `init_transactions` of the same id settles the old one and fences what is still under way,
//! so only then does the offset that is read say whether the commit happened.

use super::assignment::{Assignment, Membership};
use super::metadata::{self, Author, CROWDED, TAKEN_MAX};
use super::planted::{self, Bug};
use crate::dedupe::Instance;
use crate::engine::{Commit, Completion, Lease, Mark, Output};
use crate::task::{Partition, Position};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// Commits follow each other at this distance at least, but for what is urgent or much: back to back each costs the broker some 7 ms
/// of markers, and batches form in between.
pub const APART: Duration = Duration::from_millis(10);
/// Where more than `FEW` wait when a commit ends, the next waits as long as it took, and at most this long: a
/// broker that takes long has much to do, and larger batches ask less of it.
pub const BREATH: Duration = Duration::from_millis(50);
/// Little is under way: gathering would gain nothing, and each has somebody who waits for it.
const FEW: usize = 32;
/// So many that wait are worth a transaction at once: beside them its own cost is small.
pub const WORTH: usize = 1_000;
/// Outputs of one transaction, bytes: what a reader must wait for, and an abort throws away.
pub const BATCH_BYTES: usize = 4 << 20;
/// After an abort: the group or the broker needs a moment, and a tight loop would take it away. Nothing is
/// so urgent that it would not wait for this.
const REST: Duration = Duration::from_millis(100);

/// A rebalance aborts once or twice; beyond that something in the batch itself may be the reason.
const ABORTS: u32 = 3;

/// Names a completion until it is answered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(pub u64);

/// One transaction: all of it becomes visible, or nothing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Transaction {
    pub outputs: Vec<Output>,
    /// Partition, offset, metadata.
    pub offsets: Vec<(Partition, u64, String)>,
    /// As it was when the offsets were taken: another generation refuses them.
    pub by: Membership,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Act {
    Commit(Transaction),
    /// Destroy the producer, make a new one of the same id, and have it settle what the old one left.
    Renew,
    /// What is committed for these, by a stable read.
    ReadBack(Vec<Partition>),
}

/// How a transaction ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Ended {
    /// Where each output lies.
    Visible(Vec<Position>),
    /// For certain nothing is visible. The producer can go on.
    Aborted { why: String },
    /// The broker refuses this output for its size; aborted.
    TooLarge { output: usize },
    /// The producer cannot go on, and the commit was never sent.
    Broken { why: String },
    /// The commit was sent, and no answer came. Where the outputs lie, if it happened.
    Unknown { positions: Vec<Position>, why: String },
}

/// A mark that is due, and where the outcome lies.
#[derive(Clone, Debug)]
pub struct Owed {
    pub mark: Mark,
    pub at: Option<Position>,
}

/// What can be told now.
#[derive(Debug, Default)]
pub struct Settled {
    pub answers: Vec<(Ticket, Commit)>,
    pub marks: Vec<Owed>,
    /// Others have written the offsets of these: read them again.
    pub overwritten: Vec<Lease>,
}

#[derive(Debug)]
struct HandedIn {
    ticket: Ticket,
    done: Completion,
}

impl HandedIn {
    fn bytes(&self) -> usize {
        self.done.outputs.iter().map(Output::size).sum()
    }
}

#[derive(Debug)]
struct Batch {
    handed_in: Vec<HandedIn>,
    touched: Vec<Touched>,
    author: Author,
}

/// A partition whose offset the batch writes.
#[derive(Debug)]
struct Touched {
    lease: Lease,
    /// Who had written it before, as far as this process knew.
    before: Option<Author>,
    /// Hardly any more holes fit beside the offset; what is written ends here.
    crowded: Option<u64>,
}

#[derive(Debug)]
enum State {
    Idle,
    Committing(Batch),
    Renewing { batch: Batch, sent: Option<Vec<Position>> },
    ReadingBack { batch: Batch, positions: Vec<Position> },
}

#[derive(Debug)]
pub struct Committer {
    instance: Instance,
    sequence: u64,
    waiting: VecDeque<HandedIn>,
    state: State,
    /// When the last transaction was begun.
    began: Option<Instant>,
    /// No transaction before this, unless something is urgent or much waits.
    not_before: Option<Instant>,
    /// No transaction before this.
    rest: Option<Instant>,
    flush: bool,
    /// Nothing of what waited could be written down the last time.
    blocked: bool,
    /// Completions of the next transaction at most: halved when a batch is aborted again and again, so that
    /// one that never goes through is found, and holds up no other.
    most: usize,
    /// In a row.
    aborts: u32,
}

impl Committer {
    /// `sequence`: no commit of this process has a higher one yet.
    pub fn new(instance: Instance, sequence: u64) -> Self {
        Committer {
            instance,
            sequence,
            waiting: VecDeque::new(),
            state: State::Idle,
            began: None,
            not_before: None,
            rest: None,
            flush: false,
            blocked: false,
            most: usize::MAX,
            aborts: 0,
        }
    }

    /// At once `Void`, where its lease is.
    pub fn hand_in(&mut self, ticket: Ticket, done: Completion, held: &Assignment) -> Settled {
        if !held.is_valid(&done.lease) {
            return Settled { answers: vec![(ticket, Commit::Void)], ..Settled::default() };
        }
        self.flush |= done.urgent;
        self.waiting.push_back(HandedIn { ticket, done });
        Settled::default()
    }

    /// All that waits goes into the next transaction, without the distance to the last.
    pub fn flush(&mut self) {
        self.flush |= !self.waiting.is_empty();
    }

    /// Something of this partition waits, or is under way.
    pub fn is_pending(&self, at: &Partition) -> bool {
        let batch = match &self.state {
            State::Idle => None,
            State::Committing(batch) | State::Renewing { batch, .. } | State::ReadingBack { batch, .. } => {
                Some(batch)
            }
        };
        let under_way = batch.into_iter().flat_map(|b| &b.handed_in);
        self.waiting.iter().chain(under_way).any(|h| h.done.lease.at == *at)
    }

    fn hurries(&self) -> bool {
        self.flush || (self.waiting.len() >= WORTH && !self.blocked)
    }

    /// When `next` should be asked again, if nothing happens before.
    pub fn due(&self) -> Option<Instant> {
        let idle = matches!(self.state, State::Idle) && !self.waiting.is_empty();
        idle.then(|| self.not_before.filter(|_| !self.hurries()).max(self.rest)).flatten()
    }

    /// The next transaction, if there is one to make now.
    pub fn next(&mut self, held: &mut Assignment, now: Instant) -> (Option<Act>, Settled) {
        let mut settled = Settled::default();
        let early = self.not_before.is_some_and(|at| now < at) && !self.hurries();
        let rests = self.rest.is_some_and(|at| now < at);
        if early || rests || !matches!(self.state, State::Idle) {
            return (None, settled);
        }
        let Some(by) = held.membership().cloned() else { return (None, settled) };
        let taken = self.take(held, &mut settled);
        self.flush = false;
        if taken.is_empty() {
            return (None, settled);
        }
        self.sequence += 1;
        let author = Author { instance: self.instance, sequence: self.sequence };
        let (batch, offsets) = self.write_down(taken, author, held);
        (self.began, self.not_before) = (Some(now), Some(now + APART));
        self.blocked = batch.handed_in.is_empty();
        if self.blocked {
            // All of it waits for what lies below.
            return (None, settled);
        }
        if planted::is(Bug::CloseBeforeCommit) {
            let at = |h: &HandedIn| Position { at: h.done.lease.at.clone(), offset: h.done.offset };
            let early = batch
                .handed_in
                .iter()
                .filter_map(|h| Some(Owed { mark: h.done.mark.clone()?, at: Some(at(h)) }));
            settled.marks.extend(early);
        }
        let outputs = batch.handed_in.iter().flat_map(|h| h.done.outputs.iter().cloned()).collect();
        self.state = State::Committing(batch);
        (Some(Act::Commit(Transaction { outputs, offsets, by })), settled)
    }

    /// What fits, in the order in which it was handed in.
    fn take(&mut self, held: &mut Assignment, settled: &mut Settled) -> Vec<HandedIn> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while let Some(next) = self.waiting.front() {
            let full = taken.len() >= self.most || bytes + next.bytes() > BATCH_BYTES;
            if !taken.is_empty() && full {
                break;
            }
            let Some(next) = self.waiting.pop_front() else { break };
            let open = held.tracker(&next.done.lease).is_some_and(|t| t.take(next.done.offset));
            if open {
                bytes += next.bytes();
                taken.push(next);
            } else {
                settled.answers.push((next.ticket, Commit::Void));
            }
        }
        taken
    }

    /// Offset and metadata of each partition, all of this moment. What would leave more holes than can
    /// be written down waits until those below it are complete.
    fn write_down(
        &mut self,
        mut taken: Vec<HandedIn>,
        author: Author,
        held: &mut Assignment,
    ) -> (Batch, Vec<(Partition, u64, String)>) {
        let mut leases: Vec<Lease> = Vec::new();
        for h in &taken {
            if !leases.contains(&h.done.lease) {
                leases.push(h.done.lease.clone());
            }
        }
        let (mut offsets, mut touched) = (Vec::new(), Vec::new());
        for lease in leases {
            let before = held.author(&lease);
            let Some(tracker) = held.tracker(&lease) else { continue };
            if planted::is(Bug::LaterSnapshot) {
                for h in self.waiting.iter().filter(|h| h.done.lease == lease) {
                    let _ = tracker.take(h.done.offset);
                }
            }
            let mut written = (tracker.progress(), String::new());
            if planted::is(Bug::HolesDropped) {
                written.0 = super::metadata::Progress::at(written.0.end);
            }
            written.1 = metadata::write(&written.0, author);
            let crowded = (written.1.len() >= CROWDED).then_some(written.0.end);
            while written.1.len() > TAKEN_MAX {
                let highest = taken.iter().enumerate().filter(|(_, h)| h.done.lease == lease);
                let Some((i, _)) = highest.max_by_key(|(_, h)| h.done.offset) else { break };
                let waits = taken.remove(i);
                tracker.put_back(waits.done.offset);
                self.waiting.push_front(waits);
                written = (tracker.progress(), String::new());
                written.1 = metadata::write(&written.0, author);
            }
            let (progress, text) = written;
            touched.push(Touched { before, crowded, lease: lease.clone() });
            offsets.push((lease.at, progress.base, text));
        }
        (Batch { handed_in: taken, touched, author }, offsets)
    }

    /// The transaction has ended, one way or another.
    pub fn ended(&mut self, ended: Ended, held: &mut Assignment, now: Instant) -> (Option<Act>, Settled) {
        let State::Committing(batch) = std::mem::replace(&mut self.state, State::Idle) else {
            // An answer to a question that nobody asked says nothing.
            return (None, Settled::default());
        };
        match ended {
            Ended::Visible(positions) => {
                let took = self.began.map_or(Duration::ZERO, |began| now.saturating_duration_since(began));
                if self.waiting.len() > FEW {
                    self.not_before = self.not_before.max(Some(now + took.min(BREATH)));
                }
                (None, self.visible(batch, &positions, held))
            }
            Ended::Aborted { why } => {
                tracing::debug!(%why, "a transaction was aborted; it is made again");
                self.aborts += 1;
                let stubborn = self.aborts.is_multiple_of(ABORTS);
                if stubborn {
                    self.most = (batch.handed_in.len() / 2).max(1);
                }
                let alone = stubborn && batch.handed_in.len() == 1;
                self.again(batch, held);
                if alone {
                    // It may be this one that never goes through: behind all others.
                    self.waiting.rotate_left(1);
                }
                self.rest = Some(now + REST);
                (None, Settled::default())
            }
            Ended::TooLarge { output } => (None, self.without(batch, output, held)),
            Ended::Broken { why } => {
                tracing::warn!(%why, "the transactional producer is made anew");
                self.state = State::Renewing { batch, sent: None };
                (Some(Act::Renew), Settled::default())
            }
            Ended::Unknown { positions, .. } if planted::is(Bug::UnknownIsVisible) => {
                (None, self.visible(batch, &positions, held))
            }
            Ended::Unknown { positions, .. } if planted::is(Bug::ReadBackUnsettled) => {
                let parts = batch.touched.iter().map(|t| t.lease.at.clone()).collect();
                self.state = State::ReadingBack { batch, positions };
                (Some(Act::ReadBack(parts)), Settled::default())
            }
            Ended::Unknown { positions, why } => {
                tracing::warn!(%why, "whether a transaction was committed is not known; it is looked up");
                self.state = State::Renewing { batch, sent: Some(positions) };
                (Some(Act::Renew), Settled::default())
            }
        }
    }

    /// The new producer has settled what the old one left.
    pub fn renewed(&mut self, held: &mut Assignment, now: Instant) -> Option<Act> {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Renewing { batch, sent: Some(positions) } => {
                let parts = batch.touched.iter().map(|t| t.lease.at.clone()).collect();
                self.state = State::ReadingBack { batch, positions };
                Some(Act::ReadBack(parts))
            }
            State::Renewing { batch, sent: None } => {
                self.again(batch, held);
                self.rest = Some(now + REST);
                None
            }
            other => {
                self.state = other;
                None
            }
        }
    }

    /// What is committed for the partitions of the batch. One that says exactly what became of it says
    /// so for all: a transaction is visible as a whole.
    pub fn read_back(
        &mut self,
        found: &BTreeMap<Partition, Option<(u64, String)>>,
        held: &mut Assignment,
        now: Instant,
    ) -> Settled {
        let (batch, positions) = match std::mem::replace(&mut self.state, State::Idle) {
            State::ReadingBack { batch, positions } => (batch, positions),
            other => {
                self.state = other;
                return Settled::default();
            }
        };
        let says: Vec<Says> = batch
            .touched
            .iter()
            .map(|t| {
                let text = found.get(&t.lease.at).and_then(Option::as_ref);
                let author = text.and_then(|(base, text)| metadata::read(*base, text).ok()).map(|(_, a)| a);
                judge(batch.author, author, t.before)
            })
            .collect();
        if says.contains(&Says::Committed) {
            return self.visible(batch, &positions, held);
        }
        if says.contains(&Says::NotCommitted) {
            self.again(batch, held);
            self.rest = Some(now + REST);
            return Settled::default();
        }
        self.forget(&batch, held);
        let answers = batch.handed_in.iter().map(|h| (h.ticket, Commit::Void)).collect();
        let overwritten = batch.touched.into_iter().map(|t| t.lease).collect();
        Settled { answers, overwritten, ..Settled::default() }
    }

    fn visible(&mut self, batch: Batch, positions: &[Position], held: &mut Assignment) -> Settled {
        for t in &batch.touched {
            if let Some(tracker) = held.tracker(&t.lease) {
                tracker.settle(true);
            }
            held.wrote(&t.lease, batch.author, t.crowded);
        }
        self.most = self.most.saturating_mul(2);
        self.aborts = 0;
        let mut settled = Settled::default();
        let mut rest = positions;
        for h in batch.handed_in {
            let (own, behind) = rest.split_at(h.done.outputs.len().min(rest.len()));
            rest = behind;
            if let Some(mark) = h.done.mark {
                let at = mark.outcome_at(own);
                settled.marks.push(Owed { mark, at });
            }
            settled.answers.push((h.ticket, Commit::Visible(own.to_vec())));
        }
        settled
    }

    /// Not visible for certain: first in line again, in the same order. What is void by then hears so
    /// when it is taken.
    fn again(&mut self, batch: Batch, held: &mut Assignment) {
        self.forget(&batch, held);
        self.flush |= batch.handed_in.iter().any(|h| h.done.urgent);
        for h in batch.handed_in.into_iter().rev() {
            self.waiting.push_front(h);
        }
    }

    fn forget(&mut self, batch: &Batch, held: &mut Assignment) {
        for t in &batch.touched {
            if let Some(tracker) = held.tracker(&t.lease) {
                tracker.settle(false);
            }
        }
    }

    /// The batch goes on without the completion that this output belongs to.
    fn without(&mut self, mut batch: Batch, output: usize, held: &mut Assignment) -> Settled {
        let mut first = 0;
        let mut settled = Settled::default();
        let owner = batch.handed_in.iter().position(|h| {
            let own = first..first + h.done.outputs.len();
            let found = own.contains(&output);
            if !found {
                first = own.end;
            }
            found
        });
        if let Some(i) = owner {
            let h = batch.handed_in.remove(i);
            let output = output - first;
            settled.answers.push((h.ticket, Commit::TooLarge { output }));
            // Removed from the batch, it must not stay marked as taken.
            if let Some(tracker) = held.tracker(&h.done.lease) {
                tracker.put_back(h.done.offset);
            }
        }
        self.again(batch, held);
        self.flush = true;
        settled
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Says {
    Committed,
    NotCommitted,
    /// Another owner has written since.
    Overwritten,
}

/// `found`: who wrote what lies there now. `before`: who had written last when the batch was made.
fn judge(own: Author, found: Option<Author>, before: Option<Author>) -> Says {
    match found {
        Some(found) if found.instance == own.instance && found.sequence >= own.sequence => Says::Committed,
        Some(found) if found.instance == own.instance => Says::NotCommitted,
        _ if found == before => Says::NotCommitted,
        _ => Says::Overwritten,
    }
}

#[cfg(test)]
mod tests;

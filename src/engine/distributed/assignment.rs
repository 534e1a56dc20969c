//! Decides which partitions this process may work on, from when, and until when.
//!
//! It takes what the group says and answers what to do. It never fetches, waits, or reads a clock.
//!
//! ```text
//!  assigned ─► Loading ──loaded──► Serving ──revoked──► Draining ──nothing left, or time up──► given up
//!                 ▲  │                ▲ │
//!                 │  └──► Searching ──┘ │   records have vanished: the tasks they began are buried
//!                 └─────────────────────┘   the member id is another one: whatever was held may have
//!                                           been somebody else's
//! ```
//!
//! ## Why an epoch for each lease, beside the group's own generation
//!
//! The coordinator checks an offset commit by member and generation, not by who owns the partition: a
//! member that has rejoined could overwrite the offsets of a partition that it has lost. So each lease
//! has an epoch of its own, and what comes in under an older one is void.
//!
//! ## Why the member id is looked at in every event
//!
//! A session can be lost while a revocation waits to be carried out. The client then rejoins without
//! an event that says so, and keeps partitions that others have owned in between. Their offsets must be
//! read again. A generation that was missed says the same without another id.
//!
//! ## What may be concluded from records that vanished
//!
//! That a record of offset o began no task that is still open, or an orphaned one, is said only where no
//! commit of ours calls o complete; a complete origin may be parked, in review, or done. Offsets that were lost
//! call nothing complete: a task whose mark was lost with its process would be buried then, as it would run
//! again if its record were there. Orphans are
//! completed under their own offsets, each in the commit that publishes its dead letter, so a crash in
//! between buries none twice and forgets none. Until it is known which they are nothing of the partition
//! is read, and no commit passes over them.
//!
//! ## An end below the committed offset
//!
//! The topic was made anew, or the log was cut short because a replica that lagged behind came to lead it:
//! what lies there was not complete under our offset, so either way it is read from its beginning, and what
//! was not complete of the old log is looked for as vanished. Or nothing has happened to the log, and the
//! answer came from a broker that does not know yet that another one leads: then the records are there, and
//! an orphan that is buried would get a second outcome as soon as its record is delivered. So whoever
//! searches reads the log at each claim's origin. If one record lies there with its own timestamp, nothing
//! is concluded, about no claim: neither is one buried, nor does one count as complete, nor is the partition
//! read from its beginning, which would run again what the ledger has not heard of. The partition is refused,
//! and read in again later, when its true end is known; then the record is a hole like any other, and
//! delivered.
//!
//! It is believed at once where no such record is found: a log that was cut short goes on growing, and once it
//! has passed the old offset nothing tells what was cut off. So a stale end is believed too where no open claim
//! lies above it: what is read again then is silent, but for what the ledger has not heard of (`dedupe = false`).
//!
//! Not seen: records at or above `end` that vanish while the partition is served (they look like a gap
//! that a transaction marker leaves), and a log cut short or made anew that has grown past the old offset.

use super::metadata::{self, Author, Foreign, Progress};
use super::planted::{self, Bug};
use super::tracker::Tracker;
use crate::engine::{Event, Gone, Lease};
use crate::task::{Partition, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a partition is kept after it was revoked, for what is finished to be committed. The client
/// pauses all partitions of the member meanwhile, so it is short.
pub const DRAIN: Duration = Duration::from_millis(500);

/// When a partition that was refused is read in again. What makes it right is a person's work of minutes, or
/// a broker that learns that it does not lead any more, within its own session of some ten seconds.
pub const REFUSED: Duration = Duration::from_secs(30);

/// What the group coordinator calls this member.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct MemberId(pub Arc<str>);

/// As the group knew this process when it last said something: what a transaction is checked against.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Membership {
    pub member: MemberId,
    /// Rises with every rebalance.
    pub generation: u32,
}

/// What the group says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Said {
    /// These come to what is held.
    Assigned(Vec<Partition>),
    /// These must be given up, in order.
    Revoked(Vec<Partition>),
    /// The session is over: all that was held is somebody else's by now.
    Lost,
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (what, parts) = match self {
            Said::Assigned(parts) => ("assigned", parts),
            Said::Revoked(parts) => ("revoked", parts),
            Said::Lost => return f.write_str("lost"),
        };
        f.write_str(what)?;
        parts.iter().try_for_each(|at| write!(f, " {}/{}", at.topic, at.index))
    }
}

/// What was found when a partition was read in.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Loaded {
    /// Offset and metadata as they were committed last; a stable read, never past an open transaction.
    pub committed: Option<(u64, String)>,
    /// The first record that the log still has, and the one that it will get next.
    pub first: u64,
    pub end: u64,
    /// Timestamp of the first record, where there is one.
    pub oldest: Option<Timestamp>,
}

/// What to do, in this order.
#[derive(Debug)]
pub enum Do {
    /// Take these over, paused.
    Assign(Vec<Partition>),
    /// Read what was committed.
    Load(Lease),
    /// Deliver from this offset on. What was fetched before under this partition's name is dropped.
    Serve {
        lease: Lease,
        from: u64,
    },
    /// Commit all that is finished, at once.
    Flush,
    Tell(Event),
    Unassign(Vec<Partition>),
    /// The partition stays assigned and is not read, until it is read in again and what is found is right.
    Refuse {
        at: Partition,
        why: String,
    },
    /// Something that an operator should know; work goes on.
    Note {
        at: Partition,
        what: Notice,
    },
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// The offset is believed; records above it that were complete come back, and the ledger knows them.
    Foreign(Foreign),
    /// No offset: read from the beginning, which loses nothing; the ledger knows what is done.
    NothingCommitted,
    /// Records that were not complete are no longer in the log.
    Vanished(Gone),
    /// The offset lies beyond the end of the log: the topic is another one of the same name, or was cut short.
    Recreated { committed: u64, end: u64 },
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Phase {
    Loading,
    /// Nobody knows yet which tasks the vanished records had begun. `anew`: the topic is another one of
    /// its name, and begins there.
    Searching {
        anew: Option<u64>,
    },
    /// Offsets are those of the old topic, until its orphans are buried.
    Burying {
        anew: u64,
    },
    Serving,
    Draining {
        until: Instant,
        drained: bool,
    },
    Refused,
}

#[derive(Debug)]
struct Part {
    epoch: u64,
    phase: Phase,
    tracker: Tracker,
    /// Who committed last, as far as this process has seen.
    author: Option<Author>,
    /// What the group was asked before says nothing of this lease.
    begun: Instant,
    /// When it was asked what is committed.
    loading: Instant,
    /// The group has said so itself, asked at this moment.
    confirmed: Option<Instant>,
    /// Hardly any more holes can be written down beside the offset: what lies at or above this offset waits.
    crowded: Option<u64>,
}

#[derive(Debug)]
pub struct Assignment {
    window: Duration,
    membership: Option<Membership>,
    epoch: u64,
    parts: BTreeMap<Partition, Part>,
}

impl Assignment {
    /// `window`: the ledger knows what was done within it. `epoch`: no epoch of this process is higher yet.
    pub fn new(window: Duration, epoch: u64) -> Self {
        Assignment { window, membership: None, epoch, parts: BTreeMap::new() }
    }

    /// `by`: as the client knows it when it hands the event over.
    pub fn said(&mut self, said: Said, by: &Membership, now: Instant) -> Vec<Do> {
        let mut todo = Vec::new();
        let other = self.membership.as_ref().is_some_and(|known| {
            known.member != by.member || by.generation > known.generation.saturating_add(1)
        }) && !planted::is(Bug::MemberIdIgnored);
        self.membership = Some(by.clone());
        match said {
            Said::Lost => self.lose(&mut todo),
            Said::Assigned(parts) => {
                if other {
                    self.load_anew(now, &mut todo);
                }
                // One that is held already was let go in between without a word.
                self.give_up(&parts, &mut todo);
                todo.push(Do::Assign(parts.clone()));
                for at in parts {
                    let lease = self.begin(at, now);
                    todo.push(Do::Load(lease));
                }
            }
            Said::Revoked(parts) if other => {
                self.give_up(&parts, &mut todo);
                todo.push(Do::Unassign(parts));
                self.load_anew(now, &mut todo);
            }
            Said::Revoked(parts) => self.drain(&parts, now, &mut todo),
        }
        todo
    }

    fn begin(&mut self, at: Partition, now: Instant) -> Lease {
        self.epoch += 1;
        let part = Part {
            epoch: self.epoch,
            phase: Phase::Loading,
            tracker: Tracker::new(Progress::at(0)),
            author: None,
            begun: now,
            loading: now,
            confirmed: None,
            crowded: None,
        };
        self.parts.insert(at.clone(), part);
        Lease { at, epoch: self.epoch }
    }

    /// Everything that is held was perhaps somebody else's in between.
    fn load_anew(&mut self, now: Instant, todo: &mut Vec<Do>) {
        let is_leaving = |part: &Part| matches!(part.phase, Phase::Draining { .. });
        let (leaving, staying): (Vec<_>, Vec<_>) = self.parts.iter().partition(|(_, part)| is_leaving(part));
        let names = |parts: Vec<(&Partition, &Part)>| parts.into_iter().map(|(at, _)| at.clone()).collect();
        let (leaving, staying): (Vec<Partition>, Vec<Partition>) = (names(leaving), names(staying));
        self.give_up(&leaving, todo);
        if !leaving.is_empty() {
            // The client still waits for that.
            todo.push(Do::Unassign(leaving));
        }
        self.read_again(&staying, now, todo);
    }

    fn read_again(&mut self, parts: &[Partition], now: Instant, todo: &mut Vec<Do>) {
        self.give_up(parts, todo);
        for at in parts {
            let lease = self.begin(at.clone(), now);
            todo.push(Do::Load(lease));
        }
    }

    /// Others have written the offsets of these leases: what is known of them is of no use.
    pub fn overwritten(&mut self, leases: &[Lease], now: Instant) -> Vec<Do> {
        let mut todo = Vec::new();
        let held: Vec<Partition> = leases.iter().filter(|l| self.is_valid(l)).map(|l| l.at.clone()).collect();
        self.read_again(&held, now, &mut todo);
        todo
    }

    fn lose(&mut self, todo: &mut Vec<Do>) {
        let held: Vec<Partition> = self.parts.keys().cloned().collect();
        self.give_up(&held, todo);
        todo.push(Do::Unassign(held));
    }

    /// Void from now on.
    fn give_up(&mut self, parts: &[Partition], todo: &mut Vec<Do>) {
        for at in parts {
            if let Some(part) = self.parts.remove(at) {
                todo.push(Do::Tell(Event::Revoked { lease: Lease { at: at.clone(), epoch: part.epoch } }));
            }
        }
    }

    fn drain(&mut self, parts: &[Partition], now: Instant, todo: &mut Vec<Do>) {
        let until = now + DRAIN;
        for at in parts {
            // Told twice: its time does not begin anew.
            let fresh = |part: &&mut Part| !matches!(part.phase, Phase::Draining { .. });
            let Some(part) = self.parts.get_mut(at).filter(fresh) else { continue };
            // What was never served has nothing to hand in.
            let drained = part.phase != Phase::Serving;
            part.phase = Phase::Draining { until, drained };
            todo.push(Do::Tell(Event::Draining {
                lease: Lease { at: at.clone(), epoch: part.epoch },
                until,
            }));
        }
        // The client waits for an answer also to what it believes alone.
        if !parts.iter().any(|at| self.parts.contains_key(at)) {
            todo.push(Do::Unassign(parts.to_vec()));
        }
        todo.push(Do::Flush);
    }

    /// The worker has handed in all that is finished of this lease.
    pub fn drained(&mut self, lease: &Lease) {
        if let Some(Part { phase: Phase::Draining { drained, .. }, .. }) = self.part_mut(lease) {
            *drained = true;
        }
    }

    /// Which of the records that have vanished had begun tasks that are open.
    pub fn orphaned(&mut self, lease: &Lease, gone: &Gone, orphans: &BTreeSet<u64>) -> Vec<Do> {
        let mut todo = Vec::new();
        let Some(part) = self.part_mut(lease) else { return todo };
        let anew = match part.phase {
            Phase::Searching { anew } => anew,
            Phase::Serving => {
                part.tracker.orphaned(gone, orphans);
                return todo;
            }
            Phase::Loading | Phase::Burying { .. } | Phase::Draining { .. } | Phase::Refused => return todo,
        };
        match anew {
            // They wait like records that were delivered, beside those that are.
            None => {
                part.tracker.orphaned(gone, orphans);
                serve(lease, part, &mut todo);
            }
            Some(anew) => {
                part.tracker.ended(orphans);
                part.tracker.orphaned(gone, orphans);
                part.phase = Phase::Burying { anew };
                self.begin_anew(&mut todo);
            }
        }
        todo
    }

    /// A record that was said to have vanished lies in the log. One that was missed among others stays as it
    /// is: a hole, which the next owner is given.
    pub fn not_gone(&mut self, lease: &Lease) -> Vec<Do> {
        let Some(part) = self.part_mut(lease).filter(|p| matches!(p.phase, Phase::Searching { .. })) else {
            return Vec::new();
        };
        part.phase = Phase::Refused;
        vec![Do::Refuse { at: lease.at.clone(), why: not_gone() }]
    }

    /// What was refused is read in again; nothing was ever delivered under its lease. One at a time: whatever
    /// else is asked of the group, by those that are served, waits behind them.
    fn load_refused(&mut self, now: Instant, todo: &mut Vec<Do>) {
        if self.parts.values().any(|part| part.phase == Phase::Loading) {
            return;
        }
        let due = |part: &Part| part.phase == Phase::Refused && now >= part.loading + REFUSED;
        if let Some((at, part)) = self.parts.iter_mut().find(|(_, part)| due(part)) {
            (part.phase, part.loading) = (Phase::Loading, now);
            todo.push(Do::Load(Lease { at: at.clone(), epoch: part.epoch }));
        }
    }

    /// No orphan of the old topic is left: from now on offsets are those of the new one.
    fn begin_anew(&mut self, todo: &mut Vec<Do>) {
        for (at, part) in &mut self.parts {
            if let Phase::Burying { anew } = part.phase
                && part.tracker.in_flight() == 0
            {
                part.tracker = Tracker::new(Progress::at(anew));
                serve(&Lease { at: at.clone(), epoch: part.epoch }, part, todo);
            }
        }
    }

    /// Gives up what was revoked, all of it together, once `pending` says that nothing of it waits to be
    /// committed, or when its time is up. What was refused has its turn.
    pub fn tick(&mut self, now: Instant, pending: impl Fn(&Partition) -> bool) -> Vec<Do> {
        let mut todo = Vec::new();
        self.load_refused(now, &mut todo);
        self.begin_anew(&mut todo);
        let mut leaving = Vec::new();
        for (at, part) in &self.parts {
            if let Phase::Draining { until, drained } = part.phase {
                if now < until && (!drained || pending(at)) {
                    return todo;
                }
                leaving.push(at.clone());
            }
        }
        if !leaving.is_empty() {
            self.give_up(&leaving, &mut todo);
            todo.push(Do::Unassign(leaving));
        }
        todo
    }

    /// When `tick` would give up in any case.
    pub fn due(&self) -> Option<Instant> {
        let until = self.parts.values().filter_map(|p| match p.phase {
            Phase::Draining { until, .. } => Some(until),
            _ => None,
        });
        until.min()
    }

    /// `Load` has been answered. `start_anyway`: the operator wants records read that are older than the
    /// ledger remembers.
    pub fn loaded(&mut self, lease: &Lease, found: Loaded, start_anyway: bool, now: Timestamp) -> Vec<Do> {
        let window = self.window;
        let Some(part) = self.part_mut(lease).filter(|p| p.phase == Phase::Loading) else {
            return Vec::new();
        };
        let at = &lease.at;
        let mut todo = Vec::new();
        let note = |what| Do::Note { at: at.clone(), what };
        let beyond = found.committed.as_ref().filter(|(offset, _)| *offset > found.end);
        let from_the_beginning = found.committed.is_none() || beyond.is_some();
        let old = found.oldest.is_some_and(|oldest| oldest.plus(window) <= now);
        if from_the_beginning && old && !start_anyway {
            part.phase = Phase::Refused;
            todo.push(Do::Refuse { at: at.clone(), why: too_old() });
            return todo;
        }
        let read = found.committed.as_ref().map(|(offset, text)| (*offset, metadata::read(*offset, text)));
        part.author = read.as_ref().and_then(|(_, read)| read.as_ref().ok()).map(|(_, author)| *author);
        let anew = beyond.map(|_| found.first);
        // What no commit of ours covers is not complete: there it is read again, and a task
        // whose record is no longer there is nobody's. Copies of it are silent meanwhile, for ever.
        let gone = match read {
            None => {
                todo.push(note(Notice::NothingCommitted));
                part.tracker = Tracker::new(Progress::at(0));
                part.tracker.begins(found.first)
            }
            Some((offset, read)) => {
                if anew.is_some() {
                    todo.push(note(Notice::Recreated { committed: offset, end: found.end }));
                }
                let progress = read.map_or_else(
                    |why| {
                        todo.push(note(Notice::Foreign(why)));
                        Progress::at(offset)
                    },
                    |(progress, _)| progress,
                );
                part.tracker = Tracker::new(progress);
                let gone =
                    if anew.is_some() { part.tracker.ends() } else { part.tracker.begins(found.first) };
                if anew.is_none() && !gone.is_empty() {
                    todo.push(note(Notice::Vanished(gone.clone())));
                }
                gone
            }
        };
        part.phase = Phase::Searching { anew };
        todo.push(Do::Tell(Event::Assigned { lease: lease.clone() }));
        if gone.is_empty() {
            todo.extend(self.orphaned(lease, &gone, &BTreeSet::new()));
        } else {
            todo.push(Do::Tell(Event::Vanished { lease: lease.clone(), gone }));
        }
        todo
    }

    /// A record was fetched under this lease: whether it is to be delivered, and what there is to do about
    /// records before it that have vanished.
    pub fn fetched(&mut self, lease: &Lease, offset: u64) -> (bool, Vec<Do>) {
        let Some(part) = self.part_mut(lease).filter(|p| p.phase == Phase::Serving) else {
            return (false, Vec::new());
        };
        let fetched = part.tracker.fetched(offset);
        let mut todo = Vec::new();
        if !fetched.vanished.is_empty() {
            let gone = Gone { each: fetched.vanished, ..Gone::default() };
            todo.push(Do::Note { at: lease.at.clone(), what: Notice::Vanished(gone.clone()) });
            todo.push(Do::Tell(Event::Vanished { lease: lease.clone(), gone }));
        }
        (fetched.deliver, todo)
    }

    /// The group was asked at `asked` and has answered that `member` holds these.
    pub fn confirmed(&mut self, asked: Instant, member: &MemberId, parts: &[Partition]) {
        if self.membership.as_ref().is_none_or(|m| m.member != *member) {
            return;
        }
        for at in parts {
            if let Some(part) = self.parts.get_mut(at).filter(|part| part.begun <= asked) {
                part.confirmed = part.confirmed.max(Some(asked));
            }
        }
    }

    /// Whether the group has confirmed the lease, asked at `since` or later.
    pub fn is_confirmed(&self, lease: &Lease, since: Instant) -> bool {
        self.part(lease).is_some_and(|p| p.confirmed.is_some_and(|asked| asked >= since))
    }

    /// Some lease is served that the group has not confirmed, asked at `since` or later.
    pub fn has_unconfirmed(&self, since: Instant) -> bool {
        self.parts.values().any(|p| p.confirmed.is_none_or(|asked| asked < since))
    }

    /// Completions under it count. True while it drains.
    pub fn is_valid(&self, lease: &Lease) -> bool {
        self.part(lease).is_some()
    }

    /// Records may be handed out.
    pub fn is_open(&self, lease: &Lease) -> bool {
        self.part(lease).is_some_and(|p| p.phase == Phase::Serving)
    }

    /// Records below this may be handed out: they make no hole that could not be written down.
    pub fn room(&self, lease: &Lease) -> u64 {
        let open = self.part(lease).filter(|p| p.phase == Phase::Serving);
        open.map_or(0, |p| p.crowded.unwrap_or(u64::MAX))
    }

    /// `None`: the partition is not ours to say.
    pub fn is_complete(&self, at: &Partition, offset: u64) -> Option<bool> {
        let part =
            self.parts.get(at).filter(|p| matches!(p.phase, Phase::Serving | Phase::Draining { .. }))?;
        Some(part.tracker.is_complete(offset))
    }

    /// As the last event of the group said.
    pub fn membership(&self) -> Option<&Membership> {
        self.membership.as_ref()
    }

    pub(super) fn tracker(&mut self, lease: &Lease) -> Option<&mut Tracker> {
        Some(&mut self.part_mut(lease)?.tracker)
    }

    pub(super) fn author(&self, lease: &Lease) -> Option<Author> {
        self.part(lease)?.author
    }

    /// A commit of ours has become visible.
    pub(super) fn wrote(&mut self, lease: &Lease, author: Author, crowded: Option<u64>) {
        if let Some(part) = self.part_mut(lease) {
            part.author = Some(author);
            part.crowded = crowded;
        }
    }

    fn part(&self, lease: &Lease) -> Option<&Part> {
        self.parts.get(&lease.at).filter(|p| p.epoch == lease.epoch)
    }

    fn part_mut(&mut self, lease: &Lease) -> Option<&mut Part> {
        self.parts.get_mut(&lease.at).filter(|p| p.epoch == lease.epoch)
    }
}

fn serve(lease: &Lease, part: &mut Part, todo: &mut Vec<Do>) {
    part.phase = Phase::Serving;
    todo.push(Do::Serve { lease: lease.clone(), from: part.tracker.next() });
}

fn too_old() -> String {
    "no offset is committed for it, or one beyond its end, and its oldest record is older than the dedupe window: what was done \
     long ago would be done again. Delete what is old from it, which is noticed within half a minute; or stop all processes of \
     the group and commit an offset with your Kafka tools, or set `start = \"earliest\"` under [engine] to have all of it read"
        .to_owned()
}

fn not_gone() -> String {
    "what a broker says of its beginning and end would mean that records of open tasks have vanished, and they are there: perhaps \
     that broker does not lead it any more. It is asked again every half minute; if this does not end by itself, look at the brokers"
        .to_owned()
}

#[cfg(test)]
mod tests;

//! One member of a group: carries what it hears to the decisions, and what they decide to the client.
//!
//! The decisions and the lanes lie behind one lock, which is never held across a wait. One task per
//! group owns the client; callers hand in and take out beside it. It decides nothing itself.

use super::assignment::{Assignment, Do, Notice};
use super::client::{Broker, Heard, Member, Order};
use super::committer::{Act, Committer, Owed, Settled, Ticket};
use super::health::{Condition, Part};
use super::lanes::{Flow, Lanes};
use super::ledger::Contact;
use super::lock;
use crate::dedupe::{Instance, Nonce};
use crate::engine::crash::crash_point;
use crate::engine::{Commit, Commits, Completion, Delivery, Event, Gone, Group, Groups, Health, Lease};
use crate::task::{Partition, Position, Timestamp, Topic};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;

/// How often a lease that is not confirmed is asked about. Well below what a person notices, far above
/// what a coordinator answers in.
const CONFIRM_EVERY: Duration = Duration::from_millis(100);
/// A question that has not been answered for so long is asked again.
const CONFIRM_LATE: Duration = Duration::from_secs(5);
/// Epochs and sequences of one group, far more than a process lives to use up: each group of a process
/// has its own, so that none is ever used twice.
const OF_ONE_GROUP: u64 = 1 << 48;
/// Records taken in at once: well below a millisecond's work, for which callers wait.
const TOGETHER: usize = 64;
/// A member with nothing to do looks again after this long, whatever it was told.
const PATIENCE: Duration = Duration::from_secs(1);

/// What all groups of one engine share.
pub(super) struct Shared {
    pub(super) instance: Instance,
    pub(super) window: Duration,
    /// Records are read although they are older than the ledger remembers.
    pub(super) start_anyway: bool,
    pub(super) broker: Arc<dyn Broker>,
    pub(super) contact: Arc<Contact>,
    pub(super) condition: Arc<Condition>,
    /// Those that were joined, in order; they are as many as a process has kinds of work.
    pub(super) groups: Mutex<Vec<Weak<Seat>>>,
    pub(super) tasks: Mutex<JoinSet<()>>,
}

/// A group's place in this process.
pub(super) struct Seat {
    core: Mutex<Core>,
    /// The task has something to carry out.
    work: Notify,
    /// `next` may find something.
    ready: Notify,
}

struct Core {
    held: Assignment,
    committer: Committer,
    lanes: Lanes,
    events: VecDeque<Event>,
    orders: VecDeque<Order>,
    marks: Vec<Owed>,
    answers: BTreeMap<Ticket, oneshot::Sender<Commit>>,
    /// Told once the marks of their commits are owed, so that who has heard of all commits knows that
    /// nothing more will be.
    replies: Vec<(oneshot::Sender<Commit>, Commit)>,
    tickets: u64,
    /// When the group was last asked for its view, and has answered.
    asked: Option<Instant>,
    answered: bool,
    start_anyway: bool,
    condition: Arc<Condition>,
    /// Its place among the groups of the process.
    number: usize,
    /// Nothing more is committed.
    gone: bool,
}

impl Core {
    fn todo(&mut self, todo: Vec<Do>) {
        for step in todo {
            match step {
                Do::Assign(parts) => self.orders.push_back(Order::Assign(parts)),
                Do::Load(lease) => self.orders.push_back(Order::Load(lease)),
                Do::Serve { lease, from } => {
                    self.lanes.open(lease.clone());
                    if self.condition.is(Part::Partition(lease.at.clone()), None) {
                        tracing::info!(topic = %lease.at.topic, partition = lease.at.index, "a partition that was refused is read");
                    }
                    self.orders.push_back(Order::Serve { lease, from });
                }
                Do::Flush => self.committer.flush(),
                Do::Tell(event) => {
                    if let Event::Revoked { lease } = &event {
                        self.lanes.close(&lease.at);
                        self.condition.is(Part::Partition(lease.at.clone()), None);
                    }
                    self.events.push_back(event);
                }
                Do::Unassign(parts) => self.orders.push_back(Order::Unassign(parts)),
                Do::Refuse { at, why } => {
                    let why = format!("partition {} of `{}` is not read: {why}", at.index, at.topic);
                    self.told(Part::Partition(at), Err(why));
                }
                Do::Note { at, what } => note(&at, &what),
            }
        }
    }

    fn settled(&mut self, settled: Settled) {
        for (ticket, commit) in settled.answers {
            self.replies.extend(self.answers.remove(&ticket).map(|reply| (reply, commit)));
        }
        self.marks.extend(settled.marks);
        let todo = self.held.overwritten(&settled.overwritten, now());
        self.todo(todo);
    }

    fn told(&mut self, part: Part, how: Result<(), String>) {
        let partly = matches!(part, Part::Partition(_));
        let (health, why) = match how {
            Ok(()) => (Health::Well, None),
            Err(why) if partly => (Health::Partly { why: why.clone() }, Some(why)),
            Err(why) => (Health::Paused { why: why.clone() }, Some(why)),
        };
        // One that is refused again is no news.
        if self.condition.is(part, why.clone()) || !partly {
            if let Some(why) = why.filter(|_| partly) {
                tracing::error!(%why, "a partition stays unread");
            }
            self.events.push_back(Event::Health(health));
        }
    }

    /// Whoever waits for a commit hears that it is not ours to report any more.
    fn end(&mut self) {
        self.gone = true;
        let waiting = std::mem::take(&mut self.answers);
        self.replies.extend(waiting.into_values().map(|reply| (reply, Commit::Void)));
    }

    fn act(&mut self, act: Option<Act>) {
        let order = match act {
            Some(Act::Commit(transaction)) => Order::Commit(transaction),
            Some(Act::Renew) => Order::Renew,
            Some(Act::ReadBack(parts)) => Order::ReadBack(parts),
            None => return,
        };
        self.orders.push_back(order);
    }

    fn heard(&mut self, heard: Heard, now: Instant) {
        match heard {
            Heard::Said(said, member) => {
                let todo = self.held.said(said, &member, now);
                self.todo(todo);
            }
            Heard::Loaded(lease, found) => {
                let todo = self.held.loaded(&lease, found, self.start_anyway, Timestamp::now());
                self.todo(todo);
            }
            Heard::Fetched(lease, record) => {
                let (deliver, todo) = self.held.fetched(&lease, record.position.offset);
                self.todo(todo);
                if deliver && self.lanes.put(&lease, record, Timestamp::now()) == Some(Flow::Pause) {
                    self.orders.push_back(Order::Pause(lease.at));
                }
            }
            Heard::Confirmed { asked, member, parts } => {
                self.answered = true;
                self.held.confirmed(asked, &member, &parts);
            }
            Heard::Ended(ended) => {
                let (act, settled) = self.committer.ended(ended, &mut self.held, now);
                self.settled(settled);
                self.act(act);
            }
            Heard::Renewed => {
                let act = self.committer.renewed(&mut self.held, now);
                self.act(act);
            }
            Heard::ReadBack(found) => {
                let settled = self.committer.read_back(&found, &mut self.held, now);
                self.settled(settled);
            }
            Heard::Reachable(how) => self.told(Part::Broker(self.number), how),
            Heard::Gone(why) => {
                self.condition.gone(why.clone());
                self.events.push_back(Event::Health(Health::Gone { why }));
                self.end();
            }
        }
    }

    /// What time alone brings about. When to look again.
    fn pump(&mut self, since: Option<Instant>, now: Instant) -> Instant {
        let todo = self.held.tick(now, |at| self.committer.is_pending(at));
        self.todo(todo);
        let (act, settled) = self.committer.next(&mut self.held, now);
        self.settled(settled);
        self.act(act);
        let mut next = now + PATIENCE;
        if let Some(since) = since.filter(|since| self.held.has_unconfirmed(*since)) {
            // One question at a time.
            let apart = if self.answered { CONFIRM_EVERY } else { CONFIRM_LATE };
            let due = self.asked.filter(|asked| *asked >= since).map_or(now, |asked| asked + apart);
            if due <= now {
                self.orders.push_back(Order::Confirm);
                (self.asked, self.answered) = (Some(now), false);
            }
            next = next.min(due.max(now + CONFIRM_EVERY));
        }
        let later = [self.held.due(), self.committer.due()];
        later.into_iter().flatten().fold(next, Instant::min).max(now + Duration::from_millis(1))
    }
}

fn note(at: &Partition, what: &Notice) {
    let (topic, partition) = (&at.topic, at.index);
    match what {
        // As with every partition of a new topic.
        Notice::NothingCommitted => {
            tracing::debug!(%topic, partition, "no offset is committed: it is read from its beginning");
        }
        Notice::Foreign(why) => {
            tracing::warn!(%topic, partition, %why, "what lies beside the offset cannot be used: records above it come back, and the ledger knows those that are done");
        }
        Notice::Vanished(Gone { each, span }) => {
            let (first, some) = (each.first().copied().unwrap_or(span.start), each.len());
            tracing::error!(%topic, partition, first, some, ?span, "records that were not done are no longer in the log; tasks that they began are buried as `TG-orphaned`");
        }
        Notice::Recreated { committed, end } => {
            tracing::error!(%topic, partition, committed, end, "the offset lies beyond the end of the log: the topic was deleted and made anew, or its log was cut short; it is read from its beginning");
        }
    }
}

pub(super) struct DistributedGroups(pub(super) Arc<Shared>);

impl Groups for DistributedGroups {
    fn join(&self, name: &str, topics: &[Topic]) -> Box<dyn Group> {
        let shared = &self.0;
        let mut groups = lock(&shared.groups);
        let number = groups.len();
        let own = number as u64 * OF_ONE_GROUP;
        let core = Core {
            held: Assignment::new(shared.window, own),
            committer: Committer::new(shared.instance, own),
            lanes: Lanes::default(),
            events: VecDeque::new(),
            orders: VecDeque::new(),
            marks: Vec::new(),
            answers: BTreeMap::new(),
            replies: Vec::new(),
            tickets: 0,
            asked: None,
            answered: false,
            start_anyway: shared.start_anyway,
            condition: shared.condition.clone(),
            number,
            gone: false,
        };
        let seat = Arc::new(Seat { core: Mutex::new(core), work: Notify::new(), ready: Notify::new() });
        groups.push(Arc::downgrade(&seat));
        drop(groups);
        let member = shared.broker.join(name, topics);
        lock(&shared.tasks).spawn(run(seat.clone(), member, shared.contact.clone()));
        Box::new(DistributedGroup { seat })
    }
}

impl Seat {
    /// Takes in what was heard, and the records that have come with it: looking around after each of them would
    /// cost more than the record.
    fn heard(&self, first: Heard, member: &mut dyn Member) {
        let mut core = lock(&self.core);
        let (mut next, mut taken) = (Some(first), 0);
        while let Some(heard) = next {
            taken += 1;
            let goes_on = matches!(heard, Heard::Fetched(..)) && taken < TOGETHER;
            core.heard(heard, now());
            next = if goes_on { member.heard().now_or_never() } else { None };
        }
    }
}

/// The group's task: until the engine ends it.
async fn run(seat: Arc<Seat>, mut member: Box<dyn Member>, contact: Arc<Contact>) {
    let up = contact.up();
    loop {
        let since = up.since();
        let (orders, marks, replies, until) = {
            let mut core = lock(&seat.core);
            let until = core.pump(since, now());
            let core = &mut *core;
            let replies = std::mem::take(&mut core.replies);
            (std::mem::take(&mut core.orders), std::mem::take(&mut core.marks), replies, until)
        };
        orders.into_iter().for_each(|order| member.order(order));
        if !marks.is_empty() {
            crash_point("commit.unmarked");
        }
        contact.owe(marks);
        for (reply, commit) in replies {
            // Whoever asked may have gone; what was committed stays so.
            let _ = reply.send(commit);
        }
        seat.ready.notify_one();
        tokio::select! {
            biased;
            heard = member.heard() => seat.heard(heard, &mut *member),
            () = seat.work.notified() => {}
            () = up.changed() => {}
            () = tokio::time::sleep_until(until.into()) => {}
        }
    }
}

/// The runtime's clock, which a simulation moves.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl Shared {
    /// Every group is left.
    pub(super) fn leave(&self) {
        for seat in lock(&self.groups).iter().filter_map(Weak::upgrade) {
            lock(&seat.core).orders.push_back(Order::Leave);
            seat.work.notify_one();
        }
    }

    /// Nobody waits for a commit any more.
    pub(super) fn end(&self) {
        for seat in lock(&self.groups).iter().filter_map(Weak::upgrade) {
            let replies = {
                let mut core = lock(&seat.core);
                core.end();
                std::mem::take(&mut core.replies)
            };
            for (reply, commit) in replies {
                // Whoever asked may have gone.
                let _ = reply.send(commit);
            }
        }
    }

    fn seat_of(&self, at: &Partition, epoch: Option<u64>) -> Option<Arc<Seat>> {
        let seats: Vec<Arc<Seat>> = lock(&self.groups).iter().filter_map(Weak::upgrade).collect();
        seats.into_iter().find(|seat| {
            let core = lock(&seat.core);
            match epoch {
                Some(epoch) => core.held.is_valid(&Lease { at: at.clone(), epoch }),
                None => core.held.is_complete(at, 0).is_some(),
            }
        })
    }

    /// The group has said since the ledger came back that the lease is held.
    pub(super) fn is_confirmed(&self, lease: &Lease, since: Instant) -> bool {
        let seat = self.seat_of(&lease.at, Some(lease.epoch));
        seat.is_some_and(|seat| lock(&seat.core).held.is_confirmed(lease, since))
    }
}

pub(super) struct DistributedCommits(pub(super) Arc<Shared>);

impl Commits for DistributedCommits {
    fn commit(&self, done: Completion) -> BoxFuture<'static, Commit> {
        let shared = self.0.clone();
        Box::pin(async move {
            let Some(seat) = shared.seat_of(&done.lease.at, Some(done.lease.epoch)) else {
                return Commit::Void;
            };
            let answer = {
                let mut core = lock(&seat.core);
                let core = &mut *core;
                if core.gone {
                    return Commit::Void;
                }
                let (reply, answer) = oneshot::channel();
                core.tickets += 1;
                let ticket = Ticket(core.tickets);
                core.answers.insert(ticket, reply);
                let settled = core.committer.hand_in(ticket, done, &core.held);
                core.settled(settled);
                answer
            };
            seat.work.notify_one();
            // The engine ended before it answered: perhaps visible, as `Void` says.
            answer.await.unwrap_or(Commit::Void)
        })
    }

    fn is_complete(&self, position: &Position) -> bool {
        let seat = self.0.seat_of(&position.at, None);
        seat.and_then(|seat| lock(&seat.core).held.is_complete(&position.at, position.offset))
            .unwrap_or(false)
    }
}

struct DistributedGroup {
    seat: Arc<Seat>,
}

impl Group for DistributedGroup {
    fn next(&mut self, room: bool) -> BoxFuture<'_, Event> {
        Box::pin(async move {
            loop {
                let ready = self.seat.ready.notified();
                let due = match self.look(room) {
                    Ok(event) => return event,
                    Err(due) => due,
                };
                tokio::select! {
                    biased;
                    () = ready => {}
                    () = tokio::time::sleep(due) => {}
                }
            }
        })
    }

    fn hold(&self, topic: &Topic, held: bool) {
        lock(&self.seat.core).lanes.hold(topic, held);
        self.seat.ready.notify_one();
    }

    fn drained(&self, lease: Lease) {
        lock(&self.seat.core).held.drained(&lease);
        self.seat.work.notify_one();
    }

    fn orphaned(&self, lease: Lease, gone: &Gone, offsets: &BTreeSet<u64>) {
        self.carry_out(|held| held.orphaned(&lease, gone, offsets));
    }

    fn not_gone(&self, lease: Lease) {
        self.carry_out(|held| held.not_gone(&lease));
    }
}

impl DistributedGroup {
    fn carry_out(&self, decide: impl FnOnce(&mut Assignment) -> Vec<Do>) {
        let mut core = lock(&self.seat.core);
        let todo = decide(&mut core.held);
        core.todo(todo);
        drop(core);
        self.seat.work.notify_one();
    }

    /// The next event, or when a record is due that waits for its time.
    fn look(&self, room: bool) -> Result<Event, Duration> {
        let mut core = lock(&self.seat.core);
        let core = &mut *core;
        if let Some(event) = core.events.pop_front() {
            return Ok(event);
        }
        if !room {
            return Err(PATIENCE);
        }
        let held = &core.held;
        let now = Timestamp::now();
        let Some((lease, record, flow)) = core.lanes.take(now, |lease| held.room(lease)) else {
            let due = core.lanes.due(now, |lease| held.is_open(lease));
            let wait = due.map_or(PATIENCE, |due| now.until(due));
            return Err(wait.clamp(Duration::from_millis(1), PATIENCE));
        };
        if flow == Some(Flow::Resume) {
            core.orders.push_back(Order::Resume(lease.at.clone()));
            self.seat.work.notify_one();
        }
        let nonce = Nonce(rand::random::<u128>().max(1));
        Ok(Event::Record(Delivery { lease, record, nonce }))
    }
}

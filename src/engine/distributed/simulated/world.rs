//! Everything that is shared: topics, groups, producers, processes, the dice.
//!
//! What a coordinator does by time (sessions and transactions that time out) happens in `run`.

use super::super::assignment::MemberId;
use super::super::client::Heard;
use super::super::lock;
use super::super::metadata::{self, Progress};
use super::super::topology::Found;
use super::group::{GroupState, Told};
use super::log::{PartitionLog, Tx};
use crate::engine::{AppendError, Output, TopicSpec};
use crate::task::{Partition, Position, Record, Timestamp, Topic};
use futures::FutureExt as _;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How long a broker keeps the session of a member that it does not hear from, where nothing else is said.
const SESSION: Duration = Duration::from_secs(10);
/// How long it keeps a transaction open.
const TRANSACTION: Duration = Duration::from_secs(10);
/// What each marker of a transaction takes.
const MARKER: Duration = Duration::from_millis(20);
/// How often it looks for both.
const CLEANUP: Duration = Duration::from_millis(500);

/// One process of the simulation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Process(pub u32);

/// A place between two steps, where a test may have a process die.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Point {
    /// A record was handed out; the ledger has not been asked.
    Delivered,
    Admitted,
    /// The call is under way.
    Called,
    /// Its answer is here, and nowhere else.
    Answered,
    Stored,
    /// Outputs lie in an open transaction.
    Produced,
    OffsetsSent,
    /// The coordinator has decided to commit; nobody has heard of it.
    Decided,
    /// The commit is visible; the ledger has not been told.
    Visible,
}

/// How likely each fault is, each time it could happen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// The commit takes effect, and its answer is lost.
    pub commit_reply_lost: f64,
    /// The commit is late: its sender has given up before it takes effect, is refused, or gets lost.
    pub commit_late: f64,
    /// A transaction is aborted for no reason of ours.
    pub abort: f64,
    /// The producer breaks before the commit is sent.
    pub broken: f64,
    /// A session expires although its process lives; looked at twice a second, for each member.
    pub session_lost: f64,
    /// Of those, how many are never told to the client.
    pub hidden: f64,
    /// Of those that are, how many only the client takes for over: it comes back while the group still counts it.
    pub membership_kept: f64,
    /// A call to the ledger takes effect, and its reply is lost with the connection.
    pub reply_lost: f64,
    /// The ledger goes away; looked at twice a second.
    pub ledger_away: f64,
    /// For up to so many seconds; three, where nothing is said. Now and then ten times as long.
    pub ledger_away_s: f64,
    /// Of those, how often it returns to an earlier state.
    pub ledger_forgets: f64,
    /// One process alone does not reach the ledger, the broker, or either; looked at twice a second, for each.
    pub cut_off: f64,
}

/// What a process is cut off from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CutOff {
    /// Its connection breaks, and none can be made.
    Ledger,
    /// Nothing is heard and nothing arrives.
    Broker,
    /// As a process that is stopped and goes on later: nothing of it arrives anywhere, and what it was about
    /// to say it says then. What is not simulated: its own timers run meanwhile.
    Everything,
}

struct Cut {
    process: Process,
    from: CutOff,
    since: Instant,
    until: Instant,
}

pub(super) struct Producer {
    pub(super) epoch: u32,
    pub(super) tx: Option<Tx>,
}

pub(super) struct Transacting {
    pub(super) producer: String,
    pub(super) group: String,
    pub(super) since: Instant,
    /// Decided; markers may still be on their way.
    pub(super) ending: Option<bool>,
    pub(super) touched: Vec<Partition>,
}

pub(super) struct Inner {
    pub(super) dice: StdRng,
    pub(super) faults: Faults,
    session: Duration,
    prompt: bool,
    pub(super) limits: BTreeMap<Topic, usize>,
    settings: BTreeMap<Topic, BTreeMap<String, String>>,
    pub(super) logs: BTreeMap<Partition, PartitionLog>,
    pub(super) groups: BTreeMap<String, GroupState>,
    pub(super) seats: BTreeMap<MemberId, UnboundedSender<Heard>>,
    pub(super) producers: BTreeMap<String, Producer>,
    pub(super) transactions: BTreeMap<Tx, Transacting>,
    /// When each dead process died.
    pub(super) dead: BTreeMap<Process, Instant>,
    /// Where a broker says that a partition ends that does not lead it any more.
    pub(super) stale_ends: BTreeMap<Partition, u64>,
    /// Where the next process that comes by dies.
    pub(super) trap: Option<Point>,
    /// Who is caught there does not die: the call to the client never returns.
    hangs: bool,
    cuts: Vec<Cut>,
    /// Every fault that happened, in order; those of these numbers do not.
    happened: Vec<&'static str>,
    spared: BTreeSet<usize>,
    pub(super) names: u64,
    pub(super) trace: Vec<String>,
    turn: u64,
}

/// A cluster.
pub struct World {
    pub(super) inner: Mutex<Inner>,
    pub(super) began: Instant,
    /// What coordinators are about to do, whoever asked for it and whether or not they still live.
    under_way: Mutex<JoinSet<()>>,
    news: tokio::sync::watch::Sender<u64>,
}

impl World {
    pub fn new(seed: u64, topics: &[TopicSpec]) -> Arc<World> {
        let mut logs = BTreeMap::new();
        for spec in topics {
            for index in 0..spec.partitions {
                logs.insert(Partition { topic: spec.topic.clone(), index }, PartitionLog::default());
            }
        }
        let inner = Inner {
            dice: StdRng::seed_from_u64(seed),
            faults: Faults::default(),
            session: SESSION,
            prompt: false,
            settings: BTreeMap::new(),
            limits: topics.iter().map(|t| (t.topic.clone(), t.limit)).collect(),
            logs,
            groups: BTreeMap::new(),
            seats: BTreeMap::new(),
            producers: BTreeMap::new(),
            transactions: BTreeMap::new(),
            dead: BTreeMap::new(),
            stale_ends: BTreeMap::new(),
            trap: None,
            hangs: false,
            cuts: Vec::new(),
            happened: Vec::new(),
            spared: BTreeSet::new(),
            names: 0,
            trace: Vec::new(),
            turn: 0,
        };
        Arc::new(World {
            inner: Mutex::new(inner),
            began: Instant::now(),
            under_way: Mutex::default(),
            news: tokio::sync::watch::Sender::new(0),
        })
    }

    pub(super) fn faults(&self) -> Faults {
        lock(&self.inner).faults
    }

    pub fn set_faults(&self, faults: Faults) {
        lock(&self.inner).faults = faults;
    }

    /// From now on sessions are this long, and the markers of a transaction are written together as soon as it
    /// is decided: on brokers with little to do nobody sees it otherwise.
    pub fn at_ease(&self, session: Duration) {
        let mut inner = lock(&self.inner);
        (inner.session, inner.prompt) = (session, true);
    }

    /// Makes a topic; one that is there may get more partitions, and other settings.
    pub fn make(&self, topic: &Topic, partitions: u32, settings: BTreeMap<String, String>) {
        let mut inner = lock(&self.inner);
        for index in 0..partitions {
            inner.logs.entry(Partition { topic: topic.clone(), index }).or_default();
        }
        let all = inner.settings.entry(topic.clone()).or_default();
        all.extend(settings);
        let limit = all.get("max.message.bytes").and_then(|bytes| bytes.parse().ok());
        inner.limits.insert(topic.clone(), limit.unwrap_or(usize::MAX));
    }

    /// Those of `topics` that exist.
    pub fn describe(&self, topics: &[Topic]) -> BTreeMap<Topic, Found> {
        let inner = lock(&self.inner);
        let of = |topic: &Topic| {
            let partitions = inner.logs.keys().filter(|at| at.topic == *topic).count();
            let settings = inner.settings.get(topic).cloned().unwrap_or_default();
            Found { partitions: u32::try_from(partitions).unwrap_or(u32::MAX), copies: 1, settings }
        };
        let found = topics.iter().filter(|topic| inner.limits.contains_key(*topic));
        found.map(|topic| (topic.clone(), of(topic))).collect()
    }

    /// Whether a group still counts a member of this process.
    pub fn is_member(&self, process: Process) -> bool {
        lock(&self.inner).groups.values().flat_map(|g| g.members.values()).any(|m| m.process == process)
    }

    /// The process is gone: what it was doing stops between two steps.
    pub fn kill(&self, process: Process) {
        self.say(format_args!("process {} dies", process.0));
        lock(&self.inner).dead.insert(process, Instant::now());
    }

    /// The next process that reaches this point dies there.
    pub fn set_trap(&self, point: Point) {
        let mut inner = lock(&self.inner);
        (inner.trap, inner.hangs) = (Some(point), false);
    }

    /// The next process whose client reaches this point gets no answer from it any more, and lives on.
    pub fn set_hang(&self, point: Point) {
        let mut inner = lock(&self.inner);
        (inner.trap, inner.hangs) = (Some(point), true);
    }

    /// From now on this topic takes no more than so many bytes a record.
    pub fn set_limit(&self, topic: &Topic, bytes: usize) {
        lock(&self.inner).limits.insert(topic.clone(), bytes);
    }

    pub fn cut_off(&self, process: Process, from: CutOff, pause: Duration) {
        self.say(format_args!("process {} is cut off: {from:?}, {:.1} s", process.0, pause.as_secs_f64()));
        let since = Instant::now();
        lock(&self.inner).cuts.push(Cut { process, from, since, until: since + pause });
    }

    /// Whether it did not reach the ledger for some of this time.
    pub fn was_cut_off(&self, process: Process, begin: Instant, end: Instant) -> bool {
        let inner = lock(&self.inner);
        let own = inner.cuts.iter().filter(|cut| cut.process == process && cut.from != CutOff::Broker);
        own.into_iter().any(|cut| cut.since <= end && begin <= cut.until)
    }

    /// Whether it is now, by any of these.
    pub(super) fn is_cut_off(&self, process: Process, from: &[CutOff]) -> bool {
        let (now, inner) = (Instant::now(), lock(&self.inner));
        inner.cuts.iter().any(|cut| cut.process == process && from.contains(&cut.from) && now < cut.until)
    }

    /// These faults do not happen, of those that do, counted from the first: so that what fails can be tried
    /// with fewer.
    pub fn spare(&self, these: &BTreeSet<usize>) {
        lock(&self.inner).spared = these.clone();
    }

    /// Every fault that came up so far, and whether it was spared.
    pub fn faults_so_far(&self) -> Vec<(&'static str, bool)> {
        let inner = lock(&self.inner);
        inner.happened.iter().enumerate().map(|(n, name)| (*name, inner.spared.contains(&n))).collect()
    }

    /// `true`: the process is dead, and must not take another step.
    pub fn reaches(&self, process: Process, point: Point) -> bool {
        let (caught, hangs) = {
            let mut inner = lock(&self.inner);
            (inner.trap.take_if(|trap| *trap == point).is_some(), inner.hangs)
        };
        if caught && hangs {
            self.say(format_args!("process {} hangs at {point:?}", process.0));
            return true;
        }
        if caught {
            self.say(format_args!("process {} is caught at {point:?}", process.0));
            self.kill(process);
        }
        self.is_dead(process)
    }

    pub fn is_dead(&self, process: Process) -> bool {
        lock(&self.inner).dead.contains_key(&process)
    }

    /// Forgets every committed offset of a group.
    pub fn forget_offsets(&self, group: &str) {
        self.say(format_args!("the offsets of {group} are lost"));
        if let Some(group) = lock(&self.inner).groups.get_mut(group) {
            group.forget();
        }
    }

    /// Retention removes what lies below `first`, whether or not it is complete.
    pub fn trim(&self, at: &Partition, first: u64) {
        self.say(format_args!("{}/{} is trimmed to {first}", at.topic, at.index));
        if let Some(log) = lock(&self.inner).logs.get_mut(at) {
            log.trim(first);
        }
    }

    /// The topic is deleted and made anew: its offsets begin at 0 again, and the group keeps its own. What
    /// is said by clients that read it meanwhile is not simulated: let nobody be there.
    pub fn make_anew(&self, topic: &Topic) {
        self.say(format_args!("{topic} is deleted and made anew"));
        let mut inner = lock(&self.inner);
        inner
            .logs
            .iter_mut()
            .filter(|(at, _)| at.topic == *topic)
            .for_each(|(_, log)| *log = PartitionLog::default());
    }

    /// A replica that lagged behind comes to lead: what lies at `end` and above is gone, and other records will
    /// take its place. Let nobody be there, as with `make_anew`.
    pub fn cut_short(&self, at: &Partition, end: u64) {
        self.say(format_args!("{}/{} is cut short at {end}", at.topic, at.index));
        if let Some(log) = lock(&self.inner).logs.get_mut(at) {
            log.cut_short(end);
        }
    }

    /// From now on whoever asks where the partition ends is told this, if it is less; `None`: the truth again.
    pub fn say_end(&self, at: &Partition, end: Option<u64>) {
        let mut inner = lock(&self.inner);
        match end {
            Some(end) => inner.stale_ends.insert(at.clone(), end),
            None => inner.stale_ends.remove(at),
        };
    }

    /// Somebody sets the offset of a partition with a tool: beside it lies what we have not written.
    pub fn set_offset(&self, group: &str, at: &Partition, offset: u64, metadata: &str) {
        self.say(format_args!("the offset of {}/{} is set to {offset}", at.topic, at.index));
        if let Some(group) = lock(&self.inner).groups.get_mut(group) {
            group.set(at, offset, metadata);
        }
    }

    pub fn partitions(&self, topic: &Topic) -> Vec<Partition> {
        lock(&self.inner).logs.keys().filter(|at| at.topic == *topic).cloned().collect()
    }

    /// What a group has committed for a partition.
    pub fn offset(&self, group: &str, at: &Partition) -> Option<u64> {
        Some(lock(&self.inner).groups.get(group)?.peek(at)?.0)
    }

    /// Records of a topic that a group has not completed, as its committed offsets say.
    pub fn incomplete(&self, group: &str, topic: &Topic) -> Vec<Position> {
        let inner = lock(&self.inner);
        let mut open = Vec::new();
        for (at, log) in inner.logs.iter().filter(|(at, _)| at.topic == *topic) {
            let done = progress(inner.groups.get(group).and_then(|g| g.stable(at)).flatten());
            let records = log.read(0, usize::MAX).0;
            open.extend(records.iter().map(|r| r.position.clone()).filter(|p| !done.is_done(p.offset)));
        }
        open
    }

    /// A number from the dice.
    pub fn dice(&self) -> u64 {
        lock(&self.inner).dice.random()
    }

    /// What happened, one line each, for who looks for a fault.
    pub fn trace(&self) -> Vec<String> {
        lock(&self.inner).trace.clone()
    }

    pub(super) fn say(&self, what: std::fmt::Arguments<'_>) {
        let line = format!("{:>9.3} {what}", self.began.elapsed().as_secs_f64());
        lock(&self.inner).trace.push(line);
    }

    /// A fault of this likelihood happens now.
    pub(super) fn fails(&self, name: &'static str, of: impl Fn(&Faults) -> f64) -> bool {
        let likely = of(&lock(&self.inner).faults);
        self.happens(name, likely)
    }

    /// Something of this likelihood happens now, that nobody needs.
    pub fn happens(&self, name: &'static str, likely: f64) -> bool {
        let number = {
            let mut inner = lock(&self.inner);
            if likely <= 0.0 || !inner.dice.random_bool(likely) {
                return false;
            }
            inner.happened.push(name);
            inner.happened.len() - 1
        };
        let spared = lock(&self.inner).spared.contains(&number);
        if !spared {
            self.say(format_args!("fault {number}: {name}"));
        }
        !spared
    }

    pub(super) fn chance(&self, likely: f64) -> bool {
        lock(&self.inner).dice.random_bool(likely)
    }

    /// Up to `most`, and now and then ten times as long.
    pub(super) async fn delay(&self, most: Duration) {
        let most = if self.chance(0.03) { most * 10 } else { most };
        self.passes(most).await;
    }

    /// Up to `most`.
    pub(super) async fn passes(&self, most: Duration) {
        let wait = {
            let mut inner = lock(&self.inner);
            let wait = most.mul_f64(inner.dice.random_range(0.0..1.0));
            // Whole milliseconds, as timers count them: a part of one would be rounded by when the runtime was
            // started, and the same seed would not always be the same story.
            Duration::from_millis(u64::try_from(wait.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX))
        };
        tokio::time::sleep(wait).await;
    }

    /// What a reader of committed records finds.
    pub fn committed(&self, topic: &Topic) -> Vec<Record> {
        let inner = lock(&self.inner);
        let parts = inner.logs.iter().filter(|(at, _)| at.topic == *topic);
        parts.flat_map(|(_, log)| log.read(0, usize::MAX).0).map(|r| (*r).clone()).collect()
    }

    /// As any producer would.
    pub fn append(&self, batch: Vec<Output>) -> Result<Vec<Position>, AppendError> {
        let mut inner = lock(&self.inner);
        if let Some(error) = AppendError::of(&batch, &inner.limits) {
            return Err(error);
        }
        let places: Vec<Partition> = batch.iter().map(|output| inner.place(output)).collect();
        let positions = batch.iter().zip(places).map(|(o, at)| inner.put(&at, o, None)).collect();
        drop(inner);
        self.publish();
        Ok(positions)
    }

    pub(super) fn publish(&self) {
        self.news.send_modify(|n| *n += 1);
    }

    pub fn news(&self) -> tokio::sync::watch::Receiver<u64> {
        self.news.subscribe()
    }

    pub(super) fn tell(&self, told: Vec<Told>) {
        for (id, said, by) in &told {
            self.say(format_args!("{} hears in generation {}: {said}", id.0, by.generation));
        }
        let inner = lock(&self.inner);
        for (id, said, by) in told {
            if let Some(seat) = inner.seats.get(&id) {
                // A member that is gone hears nothing.
                let _ = seat.send(Heard::Said(said, by));
            }
        }
    }

    /// Decides how a transaction ends; its markers come one by one, in any order, each in its time.
    fn decide(&self, tx: Tx, commit: bool) -> Vec<Option<Partition>> {
        let mut inner = lock(&self.inner);
        let Some(t) = inner.transactions.get_mut(&tx).filter(|t| t.ending.is_none()) else {
            return Vec::new();
        };
        t.ending = Some(commit);
        let mut steps: Vec<Option<Partition>> = t.touched.iter().cloned().map(Some).collect();
        steps.push(None);
        for i in (1..steps.len()).rev() {
            let j = inner.dice.random_range(0..=i);
            steps.swap(i, j);
        }
        steps
    }

    /// Does it in the coordinators' own time.
    pub(super) fn later(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut under_way = lock(&self.under_way);
        while under_way.try_join_next().is_some() {}
        under_way.spawn(work);
    }

    /// Decides how a transaction ends, and has its markers written.
    pub(super) fn end(self: &Arc<Self>, tx: Tx, commit: bool) -> bool {
        let steps = self.decide(tx, commit);
        let decided = !steps.is_empty();
        let prompt = lock(&self.inner).prompt;
        if decided && prompt {
            self.finish(tx, steps, Duration::ZERO).now_or_never();
        } else if decided {
            let world = self.clone();
            self.later(async move { world.finish(tx, steps, MARKER).await });
        }
        decided
    }

    /// Writes the markers of a transaction that was decided.
    async fn finish(&self, tx: Tx, steps: Vec<Option<Partition>>, each: Duration) {
        for step in steps {
            if !each.is_zero() {
                self.delay(each).await;
            }
            let mut inner = lock(&self.inner);
            let Some((commit, group)) =
                inner.transactions.get(&tx).map(|t| (t.ending == Some(true), t.group.clone()))
            else {
                return;
            };
            match step {
                Some(at) => {
                    if let Some(log) = inner.logs.get_mut(&at) {
                        log.end(tx, commit);
                    }
                }
                None => {
                    if let Some(group) = inner.groups.get_mut(&group) {
                        group.end(tx, commit);
                    }
                }
            }
            drop(inner);
            self.publish();
        }
        let mut inner = lock(&self.inner);
        if let Some(t) = inner.transactions.remove(&tx)
            && let Some(producer) = inner.producers.get_mut(&t.producer)
            && producer.tx == Some(tx)
        {
            producer.tx = None;
        }
    }

    /// What coordinators do by time. Until it is dropped.
    pub async fn run(self: Arc<Self>) {
        loop {
            tokio::time::sleep(CLEANUP).await;
            let living: BTreeSet<Process> = {
                let inner = lock(&self.inner);
                inner.groups.values().flat_map(|g| g.members.values()).map(|m| m.process).collect()
            };
            for process in living {
                if self.fails("a process is cut off", |f| f.cut_off) {
                    let from = [CutOff::Ledger, CutOff::Broker, CutOff::Everything][self.dice() as usize % 3];
                    self.cut_off(process, from, Duration::from_millis(self.dice() % 25_000));
                }
            }
            let (late, gone) = {
                let inner = lock(&self.inner);
                let late: Vec<Tx> = inner
                    .transactions
                    .iter()
                    .filter(|(_, t)| t.ending.is_none() && t.since.elapsed() >= TRANSACTION)
                    .map(|(tx, _)| *tx)
                    .collect();
                // Its heartbeats have not come for as long.
                let unheard = |cut: &Cut, process: &Process| {
                    let now = Instant::now();
                    cut.process == *process
                        && cut.from != CutOff::Ledger
                        && now < cut.until
                        && cut.since + inner.session <= now
                };
                let dead = |process: &Process| {
                    inner.dead.get(process).is_some_and(|at| at.elapsed() >= inner.session)
                        || inner.cuts.iter().any(|cut| unheard(cut, process))
                };
                let gone: Vec<(String, MemberId)> = inner
                    .groups
                    .iter()
                    .flat_map(|(name, g)| {
                        let gone = g.members.iter().filter(|(_, m)| dead(&m.process));
                        gone.map(|(id, _)| (name.clone(), id.clone())).collect::<Vec<_>>()
                    })
                    .collect();
                (late, gone)
            };
            for tx in late {
                self.say(format_args!("transaction {} times out", tx.0));
                self.end(tx, false);
            }
            for (group, id) in gone {
                self.say(format_args!("the session of {} in {group} is over", id.0));
                self.expire(&group, &id);
            }
        }
    }

    pub(super) fn expire(&self, group: &str, id: &MemberId) {
        let told = lock(&self.inner).groups.get_mut(group).map(|g| g.expire(id)).unwrap_or_default();
        self.tell(told);
    }
}

/// What is complete, as a group has committed it.
fn progress(committed: Option<(u64, String)>) -> Progress {
    let Some((base, text)) = committed else { return Progress::at(0) };
    metadata::read(base, &text).map_or_else(|_| Progress::at(base), |(done, _)| done)
}

impl Inner {
    /// Records of a partition that the group which reads it has not completed; `None`: no group does.
    pub(super) fn open(&self, at: &Partition, log: &PartitionLog) -> Option<u64> {
        let group = self.groups.values().find(|group| group.reads(at))?;
        let done = progress(group.peek(at));
        let records = log.read(done.base, usize::MAX).0;
        Some(records.iter().filter(|r| !done.is_done(r.position.offset)).count() as u64)
    }

    /// By key, as any producer would; without one, in turn.
    pub(super) fn place(&mut self, output: &Output) -> Partition {
        let count = self.logs.keys().filter(|at| at.topic == output.topic).count().max(1) as u64;
        let hash = match &output.key {
            Some(key) => u64::from(crc32c::crc32c(key)),
            None => {
                self.turn += 1;
                self.turn
            }
        };
        let index = u32::try_from(hash % count).unwrap_or(0);
        Partition { topic: output.topic.clone(), index }
    }

    pub(super) fn put(&mut self, at: &Partition, output: &Output, tx: Option<Tx>) -> Position {
        let stamp = Timestamp::now();
        self.logs.entry(at.clone()).or_default().append(at, output, tx, stamp)
    }

    pub(super) fn name(&mut self) -> u64 {
        self.names += 1;
        self.names
    }
}

//! One client: a consumer and a transactional producer, each carrying out its orders one by one, with
//! delays and faults between the steps.
//!
//! A process that has died stops between two steps and is heard of no more.

use super::super::assignment::{Loaded, MemberId, Membership, Said};
use super::super::client::{Broker, Heard, Member, Order};
use super::super::committer::{Ended, Transaction};
use super::super::lock;
use super::super::planted::{self, Bug};
use super::group::GroupMember;
use super::log::Tx;
use super::world::{CutOff, Point, Process, Producer, Transacting, World};
use crate::engine::Lease;
use crate::task::{Partition, Topic};
use futures::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Records of one fetch.
const FETCH: usize = 20;
/// How long a client waits for the answer to a commit.
const PATIENCE: Duration = Duration::from_millis(500);
/// A call that has not come back for so long has hung, says the client's watchdog: longer than a
/// transaction lasts.
const HUNG: Duration = Duration::from_secs(20);

/// Joins groups for one process.
pub struct SimulatedBroker {
    pub world: Arc<World>,
    pub process: Process,
}

impl Broker for SimulatedBroker {
    fn join(&self, group: &str, topics: &[Topic]) -> Box<dyn Member> {
        let (heard, hears) = unbounded_channel();
        let (consume, consumes) = unbounded_channel();
        let (produce, produces) = unbounded_channel();
        let parts: Vec<Partition> = {
            let inner = lock(&self.world.inner);
            inner.logs.keys().filter(|at| topics.contains(&at.topic)).cloned().collect()
        };
        let client = Arc::new(Client {
            world: self.world.clone(),
            process: self.process,
            group: group.to_owned(),
            parts,
            heard,
            mine: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(client.clone().consume(consumes));
        tasks.spawn(client.clone().produce(produces));
        tasks.spawn(client.clone().fetch());
        tasks.spawn(client.sessions());
        Box::new(SimulatedMember { consume, produce, hears, _tasks: tasks })
    }
}

struct SimulatedMember {
    consume: UnboundedSender<Order>,
    produce: UnboundedSender<Order>,
    hears: UnboundedReceiver<Heard>,
    /// Ended with the member.
    _tasks: JoinSet<()>,
}

impl Member for SimulatedMember {
    fn order(&mut self, order: Order) {
        let to = match order {
            Order::Commit(_) | Order::Renew | Order::ReadBack(_) => &self.produce,
            _ => &self.consume,
        };
        // Its task ends with the member.
        let _ = to.send(order);
    }

    fn heard(&mut self) -> BoxFuture<'_, Heard> {
        Box::pin(async move {
            match self.hears.recv().await {
                Some(heard) => heard,
                None => std::future::pending().await,
            }
        })
    }
}

#[derive(Default)]
struct Mine {
    id: Option<MemberId>,
    /// Told that all is lost; it rejoins only once everything is unassigned.
    lost: bool,
    /// What was to be read next is no longer in the log: it rejoins, so that all is read in again.
    rejoins: bool,
    serving: BTreeMap<Partition, Serving>,
    /// Let go of since the session was lost unheard: the group could not be told.
    untold: BTreeSet<Partition>,
}

struct Serving {
    lease: Lease,
    next: u64,
    paused: bool,
}

struct Client {
    world: Arc<World>,
    process: Process,
    group: String,
    parts: Vec<Partition>,
    heard: UnboundedSender<Heard>,
    mine: Mutex<Mine>,
}

impl Client {
    fn say(&self, heard: Heard) {
        if !self.world.is_dead(self.process) {
            // The member is gone.
            let _ = self.heard.send(heard);
        }
    }

    /// One step of the way to the broker. `false`: the process died on it.
    async fn step(&self, most_ms: u64) -> bool {
        self.world.delay(Duration::from_millis(most_ms)).await;
        while self.world.is_cut_off(self.process, &[CutOff::Broker, CutOff::Everything]) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        !self.world.is_dead(self.process)
    }

    /// Another id, under which the group reaches this client from now on.
    fn named(&self) -> MemberId {
        let id = {
            let mut inner = lock(&self.world.inner);
            let id = MemberId(format!("p{}-{}", self.process.0, inner.name()).into());
            inner.seats.insert(id.clone(), self.heard.clone());
            id
        };
        lock(&self.mine).id = Some(id.clone());
        id
    }

    /// Joins, with what it believes to hold.
    fn join(&self, believes: BTreeSet<Partition>) {
        let id = self.named();
        let told = {
            let mut inner = lock(&self.world.inner);
            let subscribed = self.parts.iter().cloned().collect();
            let member = GroupMember { process: self.process, subscribed, believes, owes: false };
            inner.groups.entry(self.group.clone()).or_default().join(id, member)
        };
        self.world.tell(told);
    }

    /// Takes the membership again that the group has kept for it, or joins as somebody new.
    fn come_back(&self, old: &MemberId) {
        let id = self.named();
        let told = {
            let mut inner = lock(&self.world.inner);
            inner.groups.get_mut(&self.group).and_then(|g| g.come_back(old, id.clone()))
        };
        match told {
            Some(told) => self.world.tell(told),
            None => {
                lock(&self.world.inner).seats.remove(&id);
                self.world.expire(&self.group, old);
                self.join(BTreeSet::new());
            }
        }
    }

    // sessions

    /// Joins, and now and then loses its session: heard of late, or never.
    async fn sessions(self: Arc<Self>) {
        if !self.step(50).await {
            return;
        }
        self.join(BTreeSet::new());
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            if self.world.is_dead(self.process) {
                return;
            }
            let rejoins = std::mem::take(&mut lock(&self.mine).rejoins);
            let Some(id) = lock(&self.mine).id.clone() else { continue };
            let expelled = {
                let inner = lock(&self.world.inner);
                inner.groups.get(&self.group).is_none_or(|g| !g.members.contains_key(&id))
            };
            if !rejoins && !expelled && !self.world.fails("the session is lost", |f| f.session_lost) {
                continue;
            }
            let hidden = !rejoins && !expelled && self.world.fails("nobody is told", |f| f.hidden);
            let kept = !rejoins
                && !expelled
                && !hidden
                && self.world.fails("its membership is kept", |f| f.membership_kept);
            let believes = {
                let inner = lock(&self.world.inner);
                let member = inner.groups.get(&self.group).and_then(|g| g.members.get(&id));
                member.map(|m| m.believes.clone()).unwrap_or_default()
            };
            let how = match (hidden, kept) {
                (true, _) => ", unheard",
                (_, true) => ", and the group has not noticed",
                _ => "",
            };
            self.world.say(format_args!("{} loses its session{how}", id.0));
            lock(&self.mine).untold.clear();
            if !kept {
                self.world.expire(&self.group, &id);
            }
            // Nobody tells it: it finds out when it next asks.
            if !self.step(3_000).await {
                return;
            }
            lock(&self.world.inner).seats.remove(&id);
            if hidden {
                let believes = &believes - &lock(&self.mine).untold;
                self.join(believes);
            } else {
                {
                    let mut mine = lock(&self.mine);
                    mine.serving.clear();
                    mine.lost = true;
                }
                let by = Membership { member: id.clone(), generation: 0 };
                self.say(Heard::Said(Said::Lost, by));
                while lock(&self.mine).lost {
                    if !self.step(10).await {
                        return;
                    }
                }
                if kept { self.come_back(&id) } else { self.join(BTreeSet::new()) }
            }
        }
    }

    // consuming

    async fn consume(self: Arc<Self>, mut orders: UnboundedReceiver<Order>) {
        while let Some(order) = orders.recv().await {
            if !self.step(5).await {
                return;
            }
            match order {
                Order::Unassign(parts) => self.unassign(&parts),
                Order::Load(lease) => {
                    if !self.load(lease).await {
                        return;
                    }
                }
                Order::Serve { lease, from } => {
                    let (at, epoch) = (&lease.at, lease.epoch);
                    let named = format!("p{} serves {}/{}", self.process.0, at.topic, at.index);
                    self.world.say(format_args!("{named} from {from}, epoch {epoch}"));
                    let serving = Serving { lease: lease.clone(), next: from, paused: false };
                    lock(&self.mine).serving.insert(lease.at, serving);
                }
                Order::Pause(at) => self.pause(&at, true),
                Order::Resume(at) => self.pause(&at, false),
                Order::Confirm => self.confirm().await,
                Order::Leave => {
                    let id = lock(&self.mine).id.take();
                    id.iter().for_each(|id| self.world.expire(&self.group, id));
                }
                Order::Assign(_) | Order::Commit(_) | Order::Renew | Order::ReadBack(_) => {}
            }
        }
    }

    fn unassign(&self, parts: &[Partition]) {
        let id = {
            let mut mine = lock(&self.mine);
            parts.iter().for_each(|at| drop(mine.serving.remove(at)));
            mine.untold.extend(parts.iter().cloned());
            // Whoever knows that its session is over tells nobody.
            if std::mem::take(&mut mine.lost) { None } else { mine.id.clone() }
        };
        let Some(id) = id else { return };
        let told = {
            let mut inner = lock(&self.world.inner);
            inner.groups.get_mut(&self.group).map(|g| g.let_go(&id, parts)).unwrap_or_default()
        };
        self.world.tell(told);
    }

    fn pause(&self, at: &Partition, paused: bool) {
        if let Some(serving) = lock(&self.mine).serving.get_mut(at) {
            serving.paused = paused;
        }
    }

    /// A stable read: it waits while a transaction that writes this offset is open.
    async fn load(&self, lease: Lease) -> bool {
        loop {
            let found = {
                let inner = lock(&self.world.inner);
                let group = inner.groups.get(&self.group);
                let stable = group.and_then(|g| g.stable(&lease.at));
                let log = inner.logs.get(&lease.at);
                let (first, end) = log.map_or((0, 0), |log| (log.first(), log.end_offset()));
                let end = inner.stale_ends.get(&lease.at).map_or(end, |stale| end.min(*stale));
                stable.map(|committed| {
                    let from_the_beginning = committed.as_ref().is_none_or(|(offset, _)| *offset > end);
                    let found = log.filter(|_| from_the_beginning).map(|log| log.read(first, 1).0);
                    let oldest = found.and_then(|found| Some(found.first()?.stamp));
                    Loaded { committed, first, end, oldest }
                })
            };
            if let Some(found) = found {
                self.say(Heard::Loaded(lease, found));
                return true;
            }
            if !self.step(50).await {
                return false;
            }
        }
    }

    async fn confirm(&self) {
        let asked = Instant::now().into_std();
        if !self.step(10).await {
            return;
        }
        let Some(member) = lock(&self.mine).id.clone() else { return };
        let parts =
            lock(&self.world.inner).groups.get(&self.group).map(|g| g.owns(&member)).unwrap_or_default();
        if self.step(10).await {
            self.say(Heard::Confirmed { asked, member, parts });
        }
    }

    async fn fetch(self: Arc<Self>) {
        loop {
            if !self.step(20).await {
                return;
            }
            let mut found = Vec::new();
            {
                let mut mine = lock(&self.mine);
                let Mine { serving, rejoins, .. } = &mut *mine;
                let inner = lock(&self.world.inner);
                for (at, serving) in serving.iter_mut().filter(|(_, s)| !s.paused) {
                    let Some(log) = inner.logs.get(at) else { continue };
                    if serving.next < log.first() {
                        *rejoins = true;
                        continue;
                    }
                    let (records, next) = log.read(serving.next, FETCH);
                    serving.next = next;
                    found.extend(records.into_iter().map(|r| Heard::Fetched(serving.lease.clone(), r)));
                }
            }
            found.into_iter().for_each(|heard| self.say(heard));
        }
    }

    // producing

    async fn produce(self: Arc<Self>, mut orders: UnboundedReceiver<Order>) {
        // A random id for each process, so that no two fence each other.
        let name = format!("p{}-{}", self.process.0, lock(&self.world.inner).name());
        let mut epoch = self.renew(&name).await;
        while let Some(order) = orders.recv().await {
            match order {
                Order::Commit(transaction) => {
                    let Some(current) = epoch else { return };
                    match self.transact(&name, current, transaction).await {
                        Some(ended) => self.say(Heard::Ended(ended)),
                        None => return self.hung().await,
                    }
                }
                Order::Renew => {
                    epoch = self.renew(&name).await;
                    if epoch.is_none() {
                        return;
                    }
                    self.say(Heard::Renewed);
                }
                Order::ReadBack(parts) => {
                    let Some(found) = self.read_back(parts).await else { return };
                    self.say(Heard::ReadBack(found));
                }
                _ => {}
            }
        }
    }

    /// The call does not come back: nothing more is done, and the watchdog says so, unless the process is dead.
    async fn hung(&self) {
        tokio::time::sleep(HUNG).await;
        self.say(Heard::Gone("a call of the client has not come back".to_owned()));
    }

    /// As `init_transactions`: settles what was open, fences what is late. `None`: the process died.
    async fn renew(&self, name: &str) -> Option<u32> {
        let (epoch, open) = {
            let mut inner = lock(&self.world.inner);
            let producer = inner.producers.entry(name.to_owned()).or_insert(Producer { epoch: 0, tx: None });
            producer.epoch += 1;
            (producer.epoch, producer.tx)
        };
        if let Some(tx) = open {
            self.world.end(tx, false);
        }
        loop {
            if !self.step(10).await {
                return None;
            }
            if lock(&self.world.inner).producers.get(name).is_some_and(|p| p.tx.is_none()) {
                return Some(epoch);
            }
        }
    }

    async fn read_back(&self, parts: Vec<Partition>) -> Option<BTreeMap<Partition, Option<(u64, String)>>> {
        let mut found = BTreeMap::new();
        for at in parts {
            loop {
                if !self.step(10).await {
                    return None;
                }
                let stable = {
                    let inner = lock(&self.world.inner);
                    let group = inner.groups.get(&self.group);
                    if planted::is(Bug::ReadBackUnsettled) {
                        group.map(|g| g.peek(&at))
                    } else {
                        group.and_then(|g| g.stable(&at))
                    }
                };
                if let Some(committed) = stable {
                    found.insert(at, committed);
                    break;
                }
            }
        }
        Some(found)
    }

    /// Begin, produce, send offsets, commit. `None`: the process died between two of them.
    async fn transact(&self, name: &str, epoch: u32, t: Transaction) -> Option<Ended> {
        // The one before is still being marked: CONCURRENT_TRANSACTIONS, again after a moment.
        while lock(&self.world.inner).producers.get(name).is_some_and(|p| p.tx.is_some()) {
            if !self.step(5).await {
                return None;
            }
        }
        let tx = {
            let mut inner = lock(&self.world.inner);
            let tx = Tx(inner.name());
            match inner.producers.get_mut(name) {
                Some(producer) if producer.epoch == epoch => producer.tx = Some(tx),
                _ => return Some(Ended::Broken { why: "fenced".to_owned() }),
            }
            let begun = Transacting {
                producer: name.to_owned(),
                group: self.group.clone(),
                since: Instant::now(),
                ending: None,
                touched: Vec::new(),
            };
            inner.transactions.insert(tx, begun);
            tx
        };
        let mut positions = Vec::new();
        for (i, output) in t.outputs.iter().enumerate() {
            if i % 8 == 0 && !self.step(4).await {
                return None;
            }
            let mut inner = lock(&self.world.inner);
            if inner.limits.get(&output.topic).is_none_or(|limit| output.size() > *limit) {
                drop(inner);
                self.world.end(tx, false);
                return Some(Ended::TooLarge { output: i });
            }
            let at = inner.place(output);
            match inner.transactions.get_mut(&tx).filter(|t| t.ending.is_none()) {
                Some(open) if open.touched.contains(&at) => {}
                Some(open) => open.touched.push(at.clone()),
                None => return Some(Ended::Broken { why: "the transaction has timed out".to_owned() }),
            }
            positions.push(inner.put(&at, output, Some(tx)));
        }
        if self.world.reaches(self.process, Point::Produced) {
            return None;
        }
        if self.world.fails("the producer breaks", |f| f.broken) {
            self.world.say(format_args!("{name} breaks in transaction {}", tx.0));
            return Some(Ended::Broken { why: "the connection broke".to_owned() });
        }
        if !self.step(4).await {
            return None;
        }
        let offered = {
            let id = lock(&self.mine).id.clone();
            let mut inner = lock(&self.world.inner);
            let group = inner.groups.get_mut(&self.group);
            let by = match (&group, id) {
                (Some(group), Some(member)) if planted::is(Bug::MembershipOfNow) => {
                    Membership { member, generation: group.generation }
                }
                _ => t.by.clone(),
            };
            group.map_or(Err("no group".to_owned()), |g| g.offer(tx, &by, &t.offsets))
        };
        if let Err(why) = offered {
            self.world.say(format_args!("{name}: the offsets of transaction {} are refused: {why}", tx.0));
            self.world.end(tx, false);
            return Some(Ended::Aborted { why });
        }
        if self.world.reaches(self.process, Point::OffsetsSent) {
            return None;
        }
        if self.world.fails("the broker asks for an abort", |f| f.abort) {
            self.world.end(tx, false);
            return Some(Ended::Aborted { why: "the broker asks for an abort".to_owned() });
        }
        if !self.step(4).await {
            return None;
        }
        self.commit(name, epoch, tx, positions).await
    }

    /// Sends the commit. It ends whatever transaction the producer has when it arrives.
    async fn commit(
        &self,
        name: &str,
        epoch: u32,
        tx: Tx,
        positions: Vec<crate::task::Position>,
    ) -> Option<Ended> {
        let unknown = |why: &str| Ended::Unknown { positions: positions.clone(), why: why.to_owned() };
        if self.world.fails("the commit is late", |f| f.commit_late) {
            self.world.say(format_args!("{name}: the commit of transaction {} is late", tx.0));
            let (world, name) = (self.world.clone(), name.to_owned());
            self.world.later(async move {
                world.delay(2 * PATIENCE).await;
                // Or never.
                if world.dice() % 2 == 0 {
                    arrive(&world, &name, epoch);
                }
            });
            if !self.step(1_000).await {
                return None;
            }
            return Some(unknown("no answer to the commit"));
        }
        if !arrive(&self.world, name, epoch) {
            return Some(unknown("fenced"));
        }
        if self.world.reaches(self.process, Point::Decided) {
            return None;
        }
        if self.world.fails("the reply to the commit is lost", |f| f.commit_reply_lost) {
            self.world.say(format_args!("{name}: the reply to the commit of transaction {} is lost", tx.0));
            if !self.step(1_000).await {
                return None;
            }
            return Some(unknown("the reply was lost"));
        }
        self.step(4).await.then(|| Ended::Visible(positions.clone()))
    }
}

/// The request to commit reaches the coordinator: whatever is open under that epoch is committed.
fn arrive(world: &Arc<World>, name: &str, epoch: u32) -> bool {
    let open = lock(&world.inner).producers.get(name).filter(|p| p.epoch == epoch).and_then(|p| p.tx);
    open.is_some_and(|tx| world.end(tx, true))
}

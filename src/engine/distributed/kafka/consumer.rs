//! The thread that polls: it alone owns the consumer of a group, carries out what is ordered, and says
//! what it hears.
//!
//! A rebalance is said as soon as it comes and carried out when it is ordered; the client pauses
//! everything meanwhile. Every record goes under the lease that was served last for its partition, and
//! none before the client has been sent to the place where that lease begins.
//!
//! ## Why a partition is never assigned at "the end" or "the beginning"
//!
//! Such a place is looked up by the client, and a seek in between makes the answer outdated. The client
//! then asks again half a second later and goes there, whatever it has read meanwhile: records are
//! skipped, and the next commit counts them as done. So every place that it is given is a number.
//!
//! ## Why each client is a static member, under a name that no other has had
//!
//! After an outage that was longer than its session the client joins again under a new id. The broker would wait a
//! whole session for the old one, which nobody is any more; under the same name it gives the membership back at once, and
//! where the group has been quiet in the same generation. A partition that was to be given up at that moment would be
//! nobody's afterwards: whoever finds itself without an id then comes as somebody new, and so does a client made anew.

use super::super::assignment::{MemberId, Membership, Said};
use super::super::client::{Heard, Order};
use super::context::{Context, Rebalance, list};
use super::line::Line;
use super::properties::{Properties, SESSION};
use super::record;
use crate::engine::Lease;
use crate::task::{Partition, Topic};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

/// How long one poll waits. Orders wait as long, so it is short.
const POLL: Duration = Duration::from_millis(20);
/// A seek that the client refuses (the partition is not started yet) is tried again after this.
const SEEK_AGAIN: Duration = Duration::from_millis(50);
/// For the client's own answer to a seek, which does not wait for a broker.
const SEEK: Duration = Duration::from_secs(1);
/// For the broker's answer where a partition begins.
const BEGINS: Duration = Duration::from_secs(1);
/// For the client to let go of everything and to tell the group: a few polls and one request. In the middle of a
/// rebalance it waits for that first, and so perhaps for the session of a member that has died.
const LEAVE: Duration = SESSION.saturating_add(Duration::from_secs(2));
/// Polls until the client has nothing more to say; it never says more at once.
const QUIET: usize = 1_000;

struct Serving {
    lease: Lease,
    /// The record behind the last one that was heard.
    next: u64,
    paused: bool,
    /// The client is there. Until then nothing of the partition is heard.
    sought: bool,
}

pub(super) struct ConsumerThread {
    pub(super) line: Arc<Line>,
    pub(super) properties: Properties,
    pub(super) name: String,
    pub(super) group: String,
    pub(super) topics: Vec<Topic>,
    /// Only Tidegate writes there: a record may say when it is to be delivered.
    pub(super) of_tokens: bool,
    /// Clients that it has made: each is a member of its own.
    pub(super) clients: u32,
}

struct Running {
    of: ConsumerThread,
    client: BaseConsumer<Context>,
    /// Said, and not yet ordered.
    pending: Option<Rebalance>,
    /// What was assigned is to be taken over.
    ordered: bool,
    assigned: BTreeSet<Partition>,
    serving: BTreeMap<Partition, Serving>,
    generation: u32,
    seek_at: Instant,
    hung: bool,
}

impl ConsumerThread {
    /// Until it is told to leave, or its member is dropped.
    pub(super) fn run(mut self, orders: &Receiver<Order>) {
        let line = self.line.clone();
        let client = match self.join() {
            Ok(client) => client,
            Err(error) => {
                line.say(Heard::Gone(format!("the Kafka client cannot be made: {error}")));
                return;
            }
        };
        let mut running = Running {
            of: self,
            client,
            pending: None,
            ordered: false,
            assigned: BTreeSet::new(),
            serving: BTreeMap::new(),
            generation: 0,
            seek_at: Instant::now(),
            hung: false,
        };
        while running.turn(orders) {}
        leave(running.client, running.pending);
    }

    fn join(&mut self) -> KafkaResult<BaseConsumer<Context>> {
        self.clients += 1;
        let member_name = format!("{}-{}", self.name, self.clients);
        let config = self.properties.consumer(&self.name, &self.group, &member_name);
        let client: BaseConsumer<Context> = config.create_with_context(Context::default())?;
        let topics: Vec<&str> = self.topics.iter().map(Topic::as_str).collect();
        client.subscribe(&topics)?;
        Ok(client)
    }
}

impl Running {
    /// `false`: it is over.
    fn turn(&mut self, orders: &Receiver<Order>) -> bool {
        loop {
            match orders.try_recv() {
                Ok(Order::Leave) | Err(TryRecvError::Disconnected) => return false,
                Ok(order) => self.carry_out(order),
                Err(TryRecvError::Empty) => break,
            }
        }
        if self.of.line.is_over() {
            return false;
        }
        self.watch();
        if self.of.line.is_wedged() {
            // Whoever does not poll loses its partitions to others, as it should.
            std::thread::sleep(POLL);
            return true;
        }
        self.poll(POLL);
        if self.pending.is_none()
            && let Some(rebalance) = self.client.context().next()
        {
            self.hear(rebalance);
        }
        self.assign();
        self.seek();
        true
    }

    fn watch(&mut self) {
        let line = &self.of.line;
        if let Some(why) = self.client.context().down() {
            line.reached(Err(format!("no Kafka broker can be reached: {why}")));
        }
        if !self.hung && line.watch.hangs(line.is_reachable(), Instant::now()) {
            self.hung = true;
            let why = "a call of the Kafka client has not come back although a broker is reached";
            line.say(Heard::Gone(why.to_owned()));
        }
    }

    /// One record at most. Whatever else the client says is kept in its context.
    fn poll(&mut self, wait: Duration) -> bool {
        let polled = match self.client.poll(wait) {
            Some(Ok(message)) => Ok(record::read(&message)),
            Some(Err(error)) => Err(error),
            None => return false,
        };
        match polled {
            Ok(None) => {}
            Ok(Some(mut record)) => {
                record.not_before = record.not_before.filter(|_| self.of.of_tokens);
                let serving = self.serving.get_mut(&record.position.at);
                let serving = serving.filter(|s| s.sought && s.next <= record.position.offset);
                if let Some(serving) = serving {
                    serving.next = record.position.offset + 1;
                    self.of.line.say(Heard::Fetched(serving.lease.clone(), Arc::new(record)));
                }
            }
            // Somebody who has come under its name has put it out of the group, or a late request of its own has;
            // under another name it comes in again.
            Err(KafkaError::MessageConsumptionFatal(code)) => {
                self.rejoin(&format!("the Kafka client has failed for good: {code}"));
            }
            // What was to be read next is not there: everything is read in again, which says what is lost.
            Err(KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset)) => {
                self.rejoin("the next record of a partition is no longer in the log");
            }
            Err(error) => tracing::debug!(group = %self.of.group, %error, "the Kafka consumer goes on"),
        }
        true
    }

    /// Until the client has nothing to say: then all that it has done before has been heard.
    fn quiet(&mut self) {
        for _ in 0..QUIET {
            let before = self.client.context().count();
            if !self.poll(Duration::from_millis(1)) && self.client.context().count() == before {
                return;
            }
        }
    }

    /// Who we are to the group, and what transactions are checked by, of one moment. `None`: the client was made
    /// anew meanwhile.
    fn capture(&mut self) -> Option<Membership> {
        let client = self.of.clients;
        let mut known = self.client.context().member();
        let mut metadata = None;
        // Two rounds settle it: the client does not rejoin before the rebalance is carried out.
        for _ in 0..5 {
            self.quiet();
            known = self.client.context().member();
            metadata = self.client.group_metadata();
            self.quiet();
            if self.of.clients != client {
                return None;
            }
            if self.client.context().member() == known {
                break;
            }
            metadata = None;
        }
        if known.is_none() {
            let why = "the Kafka client does not say its member id: it is another version than the one \
                       this program was made for";
            self.of.line.say(Heard::Gone(why.to_owned()));
        }
        let id = known.unwrap_or_default();
        // Without an id the broker would check nothing.
        let metadata = metadata.filter(|_| !id.is_empty());
        Some(self.remember(&id, metadata))
    }

    fn remember(
        &mut self,
        id: &str,
        metadata: Option<rdkafka::consumer::ConsumerGroupMetadata>,
    ) -> Membership {
        self.generation += 1;
        let by = Membership { member: MemberId(id.into()), generation: self.generation };
        self.of.line.capture(by.clone(), metadata);
        by
    }

    fn hear(&mut self, rebalance: Rebalance) {
        // Also for whoever makes the client anew meanwhile: the old one ends only once it is answered.
        self.pending = Some(rebalance.clone());
        let Some(by) = self.capture() else { return };
        let said = match rebalance {
            Rebalance::Assign(parts) => Said::Assigned(parts),
            Rebalance::Revoke { lost: true, .. } => {
                self.serving.clear();
                Said::Lost
            }
            Rebalance::Revoke { parts, .. } if parts.iter().any(|at| self.assigned.contains(at)) => {
                Said::Revoked(parts)
            }
            // Of nothing that anybody knows of.
            Rebalance::Revoke { parts, .. } => return self.unassign(&parts),
        };
        tracing::debug!(group = %self.of.group, member = %by.member.0, generation = by.generation, %said, "rebalance");
        self.of.line.say(Heard::Said(said, by));
    }

    fn carry_out(&mut self, order: Order) {
        match order {
            Order::Assign(_) => self.ordered = true,
            Order::Unassign(given) => {
                given.iter().for_each(|at| drop(self.serving.remove(at)));
                if let Some(Rebalance::Revoke { parts, lost }) = &self.pending {
                    let gave_up = !lost && self.client.context().member().is_some_and(|id| id.is_empty());
                    let parts = parts.clone();
                    if gave_up {
                        self.rejoin("its session ended while partitions were given up");
                    } else {
                        self.unassign(&parts);
                    }
                }
            }
            Order::Serve { lease, from } => {
                let at = lease.at.clone();
                self.serving.insert(at, Serving { lease, next: from, paused: false, sought: false });
                self.seek_at = Instant::now();
            }
            Order::Pause(at) => {
                if let Some(serving) = self.serving.get_mut(&at) {
                    serving.paused = true;
                    let paused = self.client.pause(&list(&[at], None));
                    self.must("pause", paused);
                }
            }
            Order::Resume(at) => {
                if let Some(serving) = self.serving.get_mut(&at) {
                    (serving.paused, serving.sought) = (false, false);
                    self.seek_at = Instant::now();
                }
            }
            // Other threads carry these out.
            Order::Load(_)
            | Order::Confirm
            | Order::Commit(_)
            | Order::Renew
            | Order::ReadBack(_)
            | Order::Leave => {}
        }
    }

    /// Takes over what was assigned, once it is ordered and known where each partition begins.
    fn assign(&mut self) {
        let Some(Rebalance::Assign(parts)) = self.pending.as_ref().filter(|_| self.ordered) else { return };
        let mut begins = TopicPartitionList::with_capacity(parts.len());
        for at in parts {
            let index = i32::try_from(at.index).unwrap_or(i32::MAX);
            let first = match self.client.fetch_watermarks(at.topic.as_str(), index, BEGINS) {
                Ok((first, _)) => first,
                // Nothing is lost by waiting: the group waits for us as long as for any rebalance.
                Err(error) => {
                    return tracing::debug!(topic = %at.topic, partition = at.index, %error, "where does it begin?");
                }
            };
            // Only negative numbers are refused.
            let _ = begins.add_partition(at.topic.as_str(), index).set_offset(Offset::Offset(first.max(0)));
        }
        let parts = parts.clone();
        let assigned = self.client.incremental_assign(&begins);
        if self.must("assign", assigned) {
            (self.pending, self.ordered) = (None, false);
            let paused = self.client.pause(&list(&parts, None));
            self.assigned.extend(parts);
            self.must("pause", paused);
            self.seek_all();
        }
    }

    fn unassign(&mut self, parts: &[Partition]) {
        for at in parts {
            self.serving.remove(at);
            self.assigned.remove(at);
        }
        let let_go = self.client.incremental_unassign(&list(parts, None));
        if self.must("unassign", let_go) {
            self.pending = None;
            self.seek_all();
        }
    }

    /// The client paused everything during the rebalance; where it goes on from is ours to say.
    fn seek_all(&mut self) {
        self.serving.values_mut().filter(|s| !s.paused).for_each(|s| s.sought = false);
        self.seek_at = Instant::now();
    }

    /// Sends the client to where each lease goes on. What it had fetched before is dropped by it: a seek
    /// raises a barrier at once.
    fn seek(&mut self) {
        let now = Instant::now();
        if now < self.seek_at || self.pending.is_some() {
            return;
        }
        for (at, serving) in self.serving.iter_mut().filter(|(_, s)| !s.sought && !s.paused) {
            let parts = list(std::slice::from_ref(at), None);
            let index = i32::try_from(at.index).unwrap_or(i32::MAX);
            let to = Offset::Offset(i64::try_from(serving.next).unwrap_or(i64::MAX));
            let resumed = self.client.resume(&parts);
            match resumed.and_then(|()| self.client.seek(at.topic.as_str(), index, to, SEEK)) {
                Ok(()) => {
                    serving.sought = true;
                    tracing::debug!(topic = %at.topic, partition = at.index, from = serving.next, "reads on");
                }
                Err(error) => {
                    tracing::debug!(topic = %at.topic, partition = at.index, %error, "cannot seek yet");
                    self.seek_at = now + SEEK_AGAIN;
                }
            }
        }
    }

    /// A client that refuses what keeps its own state is made anew.
    fn must(&mut self, what: &str, done: KafkaResult<()>) -> bool {
        match done {
            Ok(()) => true,
            Err(error) => {
                self.rejoin(&format!("the Kafka client refuses to {what}: {error}"));
                false
            }
        }
    }

    /// As if the session had been lost: with another client, from what was committed.
    fn rejoin(&mut self, why: &str) {
        tracing::warn!(group = %self.of.group, why, "the Kafka consumer is made anew");
        match self.of.join() {
            Ok(client) => {
                let old = std::mem::replace(&mut self.client, client);
                close(old, self.pending.take(), &self.of.name);
            }
            Err(error) => {
                self.of.line.say(Heard::Gone(format!("the Kafka client cannot be made: {error}")));
            }
        }
        (self.pending, self.ordered) = (None, false);
        self.assigned.clear();
        self.serving.clear();
        let by = self.remember("", None);
        self.of.line.say(Heard::Said(Said::Lost, by));
    }
}

/// Answers every rebalance that still waits for an answer; those to come answer themselves.
fn let_go(client: &BaseConsumer<Context>, pending: Option<Rebalance>) {
    client.context().close();
    for rebalance in pending.into_iter().chain(std::iter::from_fn(|| client.context().next())) {
        rebalance.let_go(client);
    }
}

/// Leaves the group, so that others take over at once: of a client that is only destroyed the group keeps the
/// membership for a session.
fn leave(client: BaseConsumer<Context>, pending: Option<Rebalance>) {
    let_go(&client, pending);
    client.unsubscribe();
    let until = Instant::now() + LEAVE;
    while client.context().member().is_some_and(|id| !id.is_empty()) && Instant::now() < until {
        // Nothing is read any more: what comes is for nobody.
        drop(client.poll(POLL));
    }
}

/// On a thread of its own: the client polls until it is closed, however long that takes.
fn close(client: BaseConsumer<Context>, pending: Option<Rebalance>, name: &str) {
    // Here already: where there is no thread, it ends on this one.
    let_go(&client, pending);
    let closing = std::thread::Builder::new().name(format!("{name}-close"));
    if let Err(error) = closing.spawn(move || leave(client, None)) {
        tracing::warn!(%error, "no thread to close a Kafka client on");
    }
}

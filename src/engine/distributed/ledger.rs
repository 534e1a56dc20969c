//! The ledger and the journal of the port, over one connection to a store.
//!
//! [`Link`] decides what may be asked; this file asks it, keeps what the ledger has not acknowledged,
//! and sends it again in order after a break. A call that may not be made is `Unavailable`: nothing was
//! decided, and whoever asked tries again.

use super::client::{Broken, Connection, Sent, Store};
use super::committer::Owed;
use super::group::{Shared, now};
use super::health::{Condition, Part};
use super::link::{Ask, Link, Step};
use super::lock;
use super::planted::{self, Bug};
use crate::dedupe::{
    Admission, Bar, Claim, ClaimView, Instance, Kept, Nonce, Slot, SlotName, Standing, Started,
};
use crate::engine::script::{LedgerCall, LedgerReply};
use crate::engine::{Delivery, Journal, Ledger, Unavailable};
use crate::outcome::OutcomeKind;
use crate::task::{Origin, Position, ScopedKey, Token};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Between two attempts to reach a store that is away.
const TRY_EVERY: Duration = Duration::from_millis(200);
/// A store that has not answered for so long is taken for gone: well before the heartbeat runs out.
const PATIENCE: Duration = Duration::from_secs(3);
/// Calls on their way at once, of what is held or owed: a fraction of a second's worth, so that the
/// heartbeat is never late for them.
const AT_ONCE: usize = 512;
/// Bytes of the answers among them: what a slow disk syncs well before the ledger is taken for gone.
const ANSWERS: usize = 4 << 20;

/// Which slot an answer is for.
type HeldKey = (ScopedKey, u32, Origin, SlotName);

/// This process's contact with the ledger.
pub(super) struct Contact {
    instance: Instance,
    /// What is owed is given up after half the dedupe window.
    keep: Duration,
    inner: Mutex<Inner>,
    /// There is something to send, or the connection is gone.
    work: Notify,
    up: Arc<Mutex<Option<Instant>>>,
    /// One for each group.
    told: Mutex<Vec<Arc<Notify>>>,
    condition: Arc<Condition>,
}

struct Inner {
    link: Link,
    connection: Option<Arc<dyn Connection>>,
    /// Answers whose storing was not acknowledged: each from before it is first sent, so that whoever
    /// breaks off in between loses nothing. One for each slot; as many as there are calls in flight.
    held: BTreeMap<HeldKey, Held>,
    /// Marks that were not acknowledged, each with the time when its commit was seen; and what is given back.
    owed: VecDeque<(Instant, LedgerCall)>,
}

struct Held {
    call: LedgerCall,
    /// Its task is sending it itself.
    by_task: bool,
}

impl Held {
    /// At least one.
    fn bytes(&self) -> usize {
        match &self.call {
            LedgerCall::Store { value, .. } => value.len().max(1),
            _ => 1,
        }
    }
}

/// Since when all has been told to a ledger that is reached without a break. Groups are told in their order:
/// a watch channel would choose it by chance, and a simulation could not be repeated.
pub(super) struct Up {
    since: Arc<Mutex<Option<Instant>>>,
    changed: Arc<Notify>,
}

impl Up {
    pub(super) fn since(&self) -> Option<Instant> {
        *lock(&self.since)
    }

    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl Contact {
    pub(super) fn new(instance: Instance, window: Duration, condition: Arc<Condition>) -> Self {
        let (held, owed) = (BTreeMap::new(), VecDeque::new());
        let inner = Inner { link: Link::default(), connection: None, held, owed };
        let (work, up, told) = (Notify::new(), Arc::default(), Mutex::default());
        Contact { instance, keep: window / 2, inner: Mutex::new(inner), work, up, told, condition }
    }

    /// For one group.
    pub(super) fn up(&self) -> Up {
        let changed = Arc::new(Notify::new());
        lock(&self.told).push(changed.clone());
        Up { since: self.up.clone(), changed }
    }

    fn set_up(&self, since: Option<Instant>) {
        *lock(&self.up) = since;
        lock(&self.told).iter().for_each(|group| group.notify_one());
    }

    pub(super) fn owe(&self, marks: Vec<Owed>) {
        self.owe_calls(marks.into_iter().map(|m| LedgerCall::Mark { mark: m.mark, at: m.at }));
    }

    /// To be told as soon as the ledger is reached, behind every answer that is held.
    fn owe_calls(&self, calls: impl IntoIterator<Item = LedgerCall>) {
        let seen = now();
        let more = {
            let mut inner = lock(&self.inner);
            let before = inner.owed.len();
            inner.owed.extend(calls.into_iter().map(|call| (seen, call)));
            inner.owed.len() > before
        };
        if more {
            self.work.notify_one();
        }
    }

    /// Waits until the ledger has acknowledged everything that it was owed.
    pub(super) async fn told_all(&self) {
        loop {
            {
                let inner = lock(&self.inner);
                if inner.held.is_empty() && inner.owed.is_empty() {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Runs until it is dropped: connects, comes back in order, keeps the heartbeat, sends what is owed.
    pub(super) async fn run(&self, store: Arc<dyn Store>) {
        loop {
            match limited(store.connect()).await {
                Ok(connection) => {
                    let first = lock(&self.inner).link.connected(now());
                    lock(&self.inner).connection = Some(connection.clone());
                    let Broken(why) = self.keep_up(&connection, first).await;
                    self.lost(&connection);
                    self.away(why);
                }
                Err(Broken(why)) => self.away(why),
            }
            tokio::time::sleep(TRY_EVERY).await;
        }
    }

    /// Told once for each reason: it is tried again several times a second.
    fn away(&self, why: String) {
        if self.condition.is(Part::Ledger, Some(why.clone())) {
            tracing::warn!(%why, "the ledger in Redis cannot be used; nothing new is begun until it can");
        }
    }

    /// Whoever hears first that the connection is broken says so for all.
    fn lost(&self, connection: &Arc<dyn Connection>) {
        let mut inner = lock(&self.inner);
        if inner.connection.as_ref().is_some_and(|current| Arc::ptr_eq(current, connection)) {
            inner.connection = None;
            inner.link.broken();
            drop(inner);
            self.set_up(None);
            self.work.notify_one();
        }
    }

    /// Ends when the connection does.
    async fn keep_up(&self, connection: &Arc<dyn Connection>, first: Step) -> Broken {
        let mut next = Some(first);
        while let Some(step) = next {
            let done = match step {
                Step::Beat => self.beat(connection).await.map(|()| true),
                Step::Answers => self.send(connection, false).await,
                Step::Marks => self.send(connection, true).await,
            };
            match done {
                Ok(true) => next = lock(&self.inner).link.done(step, now()),
                Ok(false) => {}
                Err(broken) => return broken,
            }
            if let Err(broken) = self.beat_if_due(connection).await {
                return broken;
            }
        }
        let ready = lock(&self.inner).link.ready();
        self.set_up(ready);
        if self.condition.is(Part::Ledger, None) {
            tracing::info!("the ledger is reached");
        }
        loop {
            if let Err(broken) = self.beat_if_due(connection).await {
                return broken;
            }
            match self.send(connection, true).await {
                Ok(false) => continue,
                Ok(true) => {}
                Err(broken) => return broken,
            }
            if lock(&self.inner).connection.is_none() {
                return Broken("a task found the connection broken".to_owned());
            }
            let due = lock(&self.inner).link.beat_due().unwrap_or_else(now);
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(due.into()) => {}
                () = self.work.notified() => {}
            }
        }
    }

    async fn beat_if_due(&self, connection: &Arc<dyn Connection>) -> Result<(), Broken> {
        if lock(&self.inner).link.beat_due().is_some_and(|due| due <= now()) {
            self.beat(connection).await?;
        }
        Ok(())
    }

    async fn beat(&self, connection: &Arc<dyn Connection>) -> Result<(), Broken> {
        let sent = now();
        limited(connection.beat(self.instance)).await?;
        lock(&self.inner).link.beaten(sent);
        Ok(())
    }

    /// One batch: held answers first, then, if `marks`, marks that are owed. `true`: nothing is left.
    async fn send(&self, connection: &Arc<dyn Connection>, marks: bool) -> Result<bool, Broken> {
        let answers: Vec<(HeldKey, LedgerCall)> = {
            let inner = lock(&self.inner);
            let waiting = inner.held.iter().filter(|(_, held)| !held.by_task).take(AT_ONCE);
            let mut bytes = 0;
            let fits = waiting.take_while(|(_, held)| {
                let first = bytes == 0;
                bytes += held.bytes();
                first || bytes <= ANSWERS
            });
            fits.map(|(key, held)| (key.clone(), held.call.clone())).collect()
        };
        if !answers.is_empty() {
            let told = answers.into_iter().map(|(key, call)| async move {
                self.tell(connection, call).await?;
                // It leaves the list once it is acknowledged, not before, and whatever becomes of the others.
                lock(&self.inner).held.remove(&key);
                Ok(())
            });
            futures::future::try_join_all(told).await?;
            return Ok(false);
        }
        if !marks {
            return Ok(true);
        }
        let owed: Vec<LedgerCall> = {
            let mut inner = lock(&self.inner);
            let (keep, now) = (self.keep, now());
            while inner.owed.front().is_some_and(|(seen, _)| now.saturating_duration_since(*seen) >= keep) {
                inner.owed.pop_front();
            }
            inner.owed.iter().take(AT_ONCE).map(|(_, call)| call.clone()).collect()
        };
        futures::future::try_join_all(owed.iter().map(|call| self.tell(connection, call.clone()))).await?;
        let mut inner = lock(&self.inner);
        // Only this task takes from the front.
        inner.owed.drain(..owed.len());
        Ok(owed.is_empty())
    }

    async fn tell(&self, connection: &Arc<dyn Connection>, call: LedgerCall) -> Result<LedgerReply, Broken> {
        limited(connection.call(self.instance, Sent { call, settled: false })).await
    }

    /// The connection, if the question may be asked over it now, and whether it may judge others.
    fn may(
        &self,
        ask: Ask,
        confirmed: impl FnOnce(Instant) -> bool,
    ) -> Result<(Arc<dyn Connection>, bool), Unavailable> {
        let (connection, ready, settled) = {
            let inner = lock(&self.inner);
            (inner.connection.clone(), inner.link.ready(), inner.link.is_settled(now()))
        };
        let Some(connection) = connection else {
            return Err(Unavailable("the ledger cannot be reached".to_owned()));
        };
        // Asked without the lock: the groups have theirs.
        let confirmed = ask != Ask::UnderLease || ready.is_some_and(confirmed);
        if lock(&self.inner).link.may(ask, confirmed) {
            return Ok((connection, settled));
        }
        Err(Unavailable(match ready {
            Some(_) => "the group has not confirmed the partition yet".to_owned(),
            None => "this process is just coming back to the ledger".to_owned(),
        }))
    }

    /// A call of a task, over the connection that it may use.
    async fn call(
        &self,
        ask: Ask,
        confirmed: impl FnOnce(Instant) -> bool,
        call: LedgerCall,
    ) -> Result<LedgerReply, Unavailable> {
        let (connection, settled) = self.may(ask, confirmed)?;
        let answered = limited(connection.call(self.instance, Sent { call, settled })).await;
        answered.map_err(|Broken(why)| {
            self.lost(&connection);
            Unavailable(why)
        })
    }

    /// Whether an answer of this scope is not stored yet: what would free its slot must not overtake it.
    fn holds(&self, key: &ScopedKey) -> bool {
        lock(&self.inner).held.keys().any(|(scope, ..)| scope == key)
    }
}

/// No call waits for ever.
async fn limited<T>(call: impl Future<Output = Result<T, Broken>>) -> Result<T, Broken> {
    let late = || Broken("the ledger does not answer".to_owned());
    tokio::time::timeout(PATIENCE, call).await.unwrap_or_else(|_| Err(late()))
}

/// An answer that is being stored by its own task; whatever becomes of the task, it stays held until the
/// ledger has it.
struct Storing<'a> {
    contact: &'a Contact,
    key: HeldKey,
}

impl<'a> Storing<'a> {
    /// One that is held already for the slot stays: it may have been sent, and will win.
    fn begin(contact: &'a Contact, key: HeldKey, call: LedgerCall) -> Self {
        let mut inner = lock(&contact.inner);
        inner.held.entry(key.clone()).or_insert(Held { call, by_task: true });
        Storing { contact, key }
    }

    fn stored(self) {
        lock(&self.contact.inner).held.remove(&self.key);
    }
}

impl Drop for Storing<'_> {
    fn drop(&mut self) {
        if let Some(held) = lock(&self.contact.inner).held.get_mut(&self.key) {
            held.by_task = planted::is(Bug::AnswerForgotten);
            self.contact.work.notify_one();
        }
    }
}

pub(super) struct DistributedLedger(pub(super) Arc<Shared>);

type Answer<T> = BoxFuture<'static, Result<T, Unavailable>>;

impl DistributedLedger {
    /// `lease`: the call is about a task under it.
    fn call<T: Send + 'static>(
        &self,
        ask: Ask,
        lease: Option<crate::engine::Lease>,
        call: LedgerCall,
        pick: impl FnOnce(LedgerReply) -> Option<T> + Send + 'static,
    ) -> Answer<T> {
        let shared = self.0.clone();
        Box::pin(async move {
            let confirmed = |since| lease.as_ref().is_none_or(|lease| shared.is_confirmed(lease, since));
            let reply = shared.contact.call(ask, confirmed, call).await?;
            // Every call has one kind of reply.
            pick(reply).ok_or_else(unreadable)
        })
    }
}

fn unreadable() -> Unavailable {
    Unavailable("the ledger's answer cannot be read".to_owned())
}

impl Ledger for DistributedLedger {
    fn admit(&self, d: &Delivery, t: &Token, decider: Option<Position>) -> Answer<Admission> {
        let call = LedgerCall::Admit { delivery: d.clone(), token: t.clone(), decider };
        self.call(Ask::UnderLease, Some(d.lease.clone()), call, admission)
    }

    fn refuse(&self, d: &Delivery, t: &Token) -> Answer<Admission> {
        let call = LedgerCall::Refuse { delivery: d.clone(), token: t.clone() };
        self.call(Ask::UnderLease, Some(d.lease.clone()), call, admission)
    }

    fn look_all(&self, keys: Vec<ScopedKey>) -> Answer<Vec<Option<ClaimView>>> {
        let shared = self.0.clone();
        Box::pin(async move {
            let (connection, _) = shared.contact.may(Ask::Free, |_| true)?;
            connection.look(keys).await.map_err(|Broken(why)| Unavailable(why))
        })
    }

    fn list(&self, after: Option<ScopedKey>, max: usize) -> Answer<Vec<ClaimView>> {
        let shared = self.0.clone();
        Box::pin(async move {
            let (connection, _) = shared.contact.may(Ask::Free, |_| true)?;
            connection.list(after, max).await.map_err(|Broken(why)| Unavailable(why))
        })
    }

    fn repair(&self, token: &Token, outcome: OutcomeKind, at: Position) -> Answer<()> {
        let call = LedgerCall::Repair { token: token.clone(), outcome, at };
        self.call(Ask::Mark, None, call, |_| Some(()))
    }
}

impl Journal for DistributedLedger {
    fn start(&self, c: &Claim, slot: &Slot, deadline: Duration) -> Answer<Started> {
        let call = LedgerCall::Start { claim: c.clone(), slot: slot.clone(), deadline };
        self.call(Ask::UnderLease, Some(c.lease.clone()), call, |r| match r {
            LedgerReply::Started(started) => Some(started),
            _ => None,
        })
    }

    fn bar(&self, c: &Claim, slot: &Slot) -> Answer<Bar> {
        let call = LedgerCall::Bar { claim: c.clone(), slot: slot.clone() };
        self.call(Ask::UnderLease, Some(c.lease.clone()), call, |r| match r {
            LedgerReply::Bar(bar) => Some(bar),
            _ => None,
        })
    }

    fn store(&self, c: &Claim, slot: &Slot, value: Bytes) -> Answer<(Kept, Standing)> {
        let shared = self.0.clone();
        let token = c.token.clone();
        let key = (token.key.clone(), token.generation, token.origin.clone(), slot.name.clone());
        let call = LedgerCall::Store { token, slot: slot.clone(), value };
        Box::pin(async move {
            let contact = &shared.contact;
            let storing = Storing::begin(contact, key, call.clone());
            match contact.call(Ask::Answer, |_| true, call).await? {
                LedgerReply::Stored(winner, standing) => {
                    storing.stored();
                    Ok((winner, standing))
                }
                _ => Err(unreadable()),
            }
        })
    }

    fn leave(&self, nonce: Nonce, key: &ScopedKey, unheard: u32) -> BoxFuture<'static, ()> {
        // A process that lives and does not tell would make others wait for the end of the call's time.
        self.0.contact.owe_calls([LedgerCall::Release { nonce, key: key.clone(), unheard }]);
        Box::pin(async {})
    }

    fn release(&self, nonce: Nonce, key: &ScopedKey, unheard: u32) -> Answer<()> {
        if self.0.contact.holds(key) {
            let why = Unavailable("an answer of this task is not stored yet".to_owned());
            return Box::pin(async move { Err(why) });
        }
        self.call(Ask::Release, None, LedgerCall::Release { nonce, key: key.clone(), unheard }, |_| Some(()))
    }
}

fn admission(reply: LedgerReply) -> Option<Admission> {
    match reply {
        LedgerReply::Admission(admission) => Some(*admission),
        _ => None,
    }
}

//! The ledger and the journal of the port, over one connection to a store.
//!
//! [`Link`] decides what may be asked; this file asks it, keeps what the ledger has not acknowledged,
//! and sends it again in order after a break. A call that may not be made is `Unavailable`: nothing was
//! decided, and whoever asked tries again.

use super::client::{Broken, Connection, Sent, Store};
use super::committer::Owed;
use super::group::{Shared, now};
use super::link::{Ask, Link, Step};
use super::lock;
use crate::dedupe::{Admission, Bar, Claim, ClaimView, Instance, Nonce, Slot, Standing, Started};
use crate::engine::script::{LedgerCall, LedgerReply};
use crate::engine::{Delivery, Journal, Ledger, Unavailable};
use crate::outcome::OutcomeKind;
use crate::task::{Position, ScopedKey, Token};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

/// Between two attempts to reach a store that is away.
const TRY_EVERY: Duration = Duration::from_millis(200);

/// This process's contact with the ledger.
pub(super) struct Contact {
    instance: Instance,
    /// What is owed is given up after half the dedupe window.
    keep: Duration,
    inner: Mutex<Inner>,
    /// There is something to send.
    work: Notify,
    up: watch::Sender<Option<Instant>>,
}

struct Inner {
    link: Link,
    connection: Option<Arc<dyn Connection>>,
    /// Answers whose storing was not acknowledged, in their order.
    held: VecDeque<LedgerCall>,
    /// Marks that were not acknowledged, each with the time when its commit was seen.
    owed: VecDeque<(Instant, LedgerCall)>,
}

impl Contact {
    pub(super) fn new(instance: Instance, window: Duration) -> Self {
        let inner =
            Inner { link: Link::default(), connection: None, held: VecDeque::new(), owed: VecDeque::new() };
        Contact {
            instance,
            keep: window / 2,
            inner: Mutex::new(inner),
            work: Notify::new(),
            up: watch::Sender::new(None),
        }
    }

    /// Since when the ledger is reached without a break.
    pub(super) fn since(&self) -> Option<Instant> {
        lock(&self.inner).link.since()
    }

    /// Waits until contact is made or lost.
    pub(super) async fn changed(&self) {
        // The sender lives as long as `self`.
        let _ = self.up.subscribe().changed().await;
    }

    pub(super) fn owe(&self, marks: Vec<Owed>) {
        if marks.is_empty() {
            return;
        }
        let seen = now();
        let calls = marks.into_iter().map(|m| (seen, LedgerCall::Mark { mark: m.mark, at: m.at }));
        lock(&self.inner).owed.extend(calls);
        self.work.notify_one();
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
            match store.connect().await {
                Ok(connection) => {
                    let first = lock(&self.inner).link.connected(now());
                    lock(&self.inner).connection = Some(connection.clone());
                    let Broken(why) = self.keep_up(&*connection, first).await;
                    tracing::warn!(%why, "the ledger cannot be reached; nothing new is begun until it can");
                }
                Err(Broken(why)) => tracing::debug!(%why, "no connection to the ledger"),
            }
            self.lost();
            tokio::time::sleep(TRY_EVERY).await;
        }
    }

    fn lost(&self) {
        let mut inner = lock(&self.inner);
        inner.connection = None;
        inner.link.broken();
        drop(inner);
        self.up.send_replace(None);
    }

    /// Ends when the connection does.
    async fn keep_up(&self, connection: &dyn Connection, first: Step) -> Broken {
        let mut next = Some(first);
        while let Some(step) = next {
            let done = match step {
                Step::Beat => self.beat(connection).await,
                Step::Answers => self.send_held(connection).await,
                Step::Marks => self.send_owed(connection).await,
            };
            if let Err(broken) = done {
                return broken;
            }
            next = lock(&self.inner).link.done(step);
        }
        self.up.send_replace(self.since());
        loop {
            let due = lock(&self.inner).link.beat_due().unwrap_or_else(now);
            let sent = tokio::select! {
                biased;
                () = tokio::time::sleep_until(due.into()) => self.beat(connection).await,
                () = self.work.notified() => self.send_owed(connection).await,
            };
            if let Err(broken) = sent {
                return broken;
            }
        }
    }

    async fn beat(&self, connection: &dyn Connection) -> Result<(), Broken> {
        let sent = now();
        connection.beat(self.instance).await?;
        lock(&self.inner).link.beaten(sent);
        Ok(())
    }

    /// An answer leaves the list once it is acknowledged, not before.
    async fn send_held(&self, connection: &dyn Connection) -> Result<(), Broken> {
        loop {
            let Some(call) = lock(&self.inner).held.front().cloned() else { return Ok(()) };
            connection.call(self.instance, Sent { call, settled: false }).await?;
            lock(&self.inner).held.pop_front();
        }
    }

    async fn send_owed(&self, connection: &dyn Connection) -> Result<(), Broken> {
        loop {
            let Some((seen, call)) = lock(&self.inner).owed.front().cloned() else { return Ok(()) };
            if now().saturating_duration_since(seen) < self.keep {
                connection.call(self.instance, Sent { call, settled: false }).await?;
            }
            lock(&self.inner).owed.pop_front();
        }
    }

    /// The connection, if the question may be asked over it now.
    fn may(
        &self,
        ask: Ask,
        confirmed: impl FnOnce(Instant) -> bool,
    ) -> Result<(Arc<dyn Connection>, bool), Unavailable> {
        let (connection, since, settled) = {
            let inner = lock(&self.inner);
            (inner.connection.clone(), inner.link.since(), inner.link.is_settled(now()))
        };
        let away = || Unavailable("the ledger cannot be reached".to_owned());
        let (Some(connection), Some(since)) = (connection, since) else { return Err(away()) };
        let confirmed = ask != Ask::UnderLease || confirmed(since);
        if lock(&self.inner).link.may(ask, confirmed) {
            Ok((connection, settled))
        } else if confirmed {
            Err(Unavailable("this process is just coming back to the ledger".to_owned()))
        } else {
            Err(Unavailable("the group has not confirmed the partition yet".to_owned()))
        }
    }

    fn hold(&self, call: LedgerCall) {
        lock(&self.inner).held.push_back(call);
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
            let contact = &shared.contact;
            let confirmed = |since| lease.as_ref().is_none_or(|lease| shared.is_confirmed(lease, since));
            let answered = match contact.may(ask, confirmed) {
                Ok((connection, settled)) => {
                    let sent = Sent { call: call.clone(), settled };
                    connection.call(contact.instance, sent).await.map_err(|Broken(why)| Unavailable(why))
                }
                Err(away) => Err(away),
            };
            if answered.is_err() && ask == Ask::Answer {
                contact.hold(call);
            }
            // Every call has one kind of reply.
            pick(answered?).ok_or_else(|| Unavailable("the ledger's answer cannot be read".to_owned()))
        })
    }
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

    fn store(&self, c: &Claim, slot: &Slot, value: Bytes) -> Answer<(Bytes, Standing)> {
        let call = LedgerCall::Store { token: c.token.clone(), slot: slot.clone(), value };
        self.call(Ask::Answer, None, call, |r| match r {
            LedgerReply::Stored(winner, standing) => Some((winner, standing)),
            _ => None,
        })
    }

    fn release(&self, nonce: Nonce, key: &ScopedKey) -> Answer<()> {
        self.call(Ask::Free, None, LedgerCall::Release { nonce, key: key.clone() }, |_| Some(()))
    }
}

fn admission(reply: LedgerReply) -> Option<Admission> {
    match reply {
        LedgerReply::Admission(admission) => Some(*admission),
        _ => None,
    }
}

//! The ledger and the journal of the port: every call becomes a command of the writer.
//!
//! Look-ups read what is durable, beside the writer.

use super::handle::Handle;
use super::log::gone;
use super::queue::{Command, Sent};
use super::shared::Shared;
use crate::dedupe::{self, Admission, Bar, Claim, ClaimView, Kept, Nonce, Slot, Standing, Started};
use crate::engine::script::{LedgerCall, LedgerReply};
use crate::engine::{Delivery, Journal, Ledger, Unavailable};
use crate::outcome::OutcomeKind;
use crate::task::{Position, ScopedKey, Timestamp, Token};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::oneshot;

/// Claims of one page.
const LIST_MAX: usize = 1000;

pub(super) struct EmbeddedLedger(pub(super) Arc<Handle>);

type Answer<T> = BoxFuture<'static, Result<T, Unavailable>>;

impl EmbeddedLedger {
    /// Makes one call; `pick` takes the kind of reply that such a call has.
    fn call<T: Send + 'static>(
        &self,
        call: LedgerCall,
        pick: impl FnOnce(LedgerReply) -> Option<T> + Send + 'static,
    ) -> Answer<T> {
        let handle = self.0.clone();
        Box::pin(async move {
            let reply = match &handle.weak {
                Some(weak) => weak.call(call).await?,
                None => send(&handle.shared, call, true).await?,
            };
            // Every call has one kind of reply.
            pick(reply).ok_or_else(gone)
        })
    }

    fn read<T: Send + 'static>(
        &self,
        reads: impl FnOnce(&Shared) -> Result<T, Unavailable> + Send + 'static,
    ) -> Answer<T> {
        let handle = self.0.clone();
        Box::pin(async move {
            if let Some(weak) = &handle.weak {
                weak.reachable()?;
            }
            let shared = handle.shared.clone();
            // The base may have to read its file.
            tokio::task::spawn_blocking(move || reads(&shared)).await.map_err(|_| gone())?
        })
    }
}

/// Sends a call over the connection of now.
pub(super) async fn send(
    shared: &Shared,
    call: LedgerCall,
    settled: bool,
) -> Result<LedgerReply, Unavailable> {
    let (reply, answer) = oneshot::channel();
    let call = Sent { call, connection: shared.connection.load(Ordering::Acquire), settled };
    shared.queue.push(Command::Ledger { call, reply }).await.map_err(|_| gone())?;
    answer.await.map_err(|_| gone())?
}

impl Ledger for EmbeddedLedger {
    fn admit(&self, d: &Delivery, t: &Token, decider: Option<Position>) -> Answer<Admission> {
        self.call(LedgerCall::Admit { delivery: d.clone(), token: t.clone(), decider }, admission)
    }

    fn refuse(&self, d: &Delivery, t: &Token) -> Answer<Admission> {
        self.call(LedgerCall::Refuse { delivery: d.clone(), token: t.clone() }, admission)
    }

    fn look_all(&self, keys: Vec<ScopedKey>) -> Answer<Vec<Option<ClaimView>>> {
        self.read(move |shared| {
            let now = Timestamp::now();
            let look = |key: ScopedKey| {
                let mut entry = shared.state().claim(&key.to_bytes())?.as_deref().cloned();
                dedupe::expire(&mut entry, shared.settings.window, now);
                Ok(entry.map(|e| e.view(key)))
            };
            keys.into_iter().map(look).collect()
        })
    }

    /// Only claims without an outcome: what is closed is looked up by its key.
    fn list(&self, after: Option<ScopedKey>, max: usize) -> Answer<Vec<ClaimView>> {
        let after = after.map(|k| k.to_bytes()).unwrap_or_default();
        self.read(move |shared| {
            let found = shared.state().open_claims(&after, max.min(LIST_MAX))?;
            Ok(found.iter().filter_map(|(key, e)| Some(e.view(ScopedKey::from_bytes(key)?))).collect())
        })
    }

    fn repair(&self, token: &Token, outcome: OutcomeKind, at: Position) -> Answer<()> {
        self.call(LedgerCall::Repair { token: token.clone(), outcome, at }, |_| Some(()))
    }
}

impl Journal for EmbeddedLedger {
    fn start(&self, c: &Claim, slot: &Slot, deadline: Duration) -> Answer<Started> {
        self.call(LedgerCall::Start { claim: c.clone(), slot: slot.clone(), deadline }, |r| match r {
            LedgerReply::Started(started) => Some(started),
            _ => None,
        })
    }

    fn bar(&self, c: &Claim, slot: &Slot) -> Answer<Bar> {
        self.call(LedgerCall::Bar { claim: c.clone(), slot: slot.clone() }, |r| match r {
            LedgerReply::Bar(bar) => Some(bar),
            _ => None,
        })
    }

    fn store(&self, c: &Claim, slot: &Slot, value: Bytes) -> Answer<(Kept, Standing)> {
        let call = LedgerCall::Store { token: c.token.clone(), slot: slot.clone(), value };
        self.call(call, |r| match r {
            LedgerReply::Stored(winner, standing) => Some((winner, standing)),
            _ => None,
        })
    }

    fn release(&self, nonce: Nonce, key: &ScopedKey, unheard: u32) -> Answer<()> {
        self.call(LedgerCall::Release { nonce, key: key.clone(), unheard }, |_| Some(()))
    }
}

fn admission(reply: LedgerReply) -> Option<Admission> {
    match reply {
        LedgerReply::Admission(admission) => Some(*admission),
        _ => None,
    }
}

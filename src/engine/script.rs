//! One call to the ledger, run over its tables: which rule of `dedupe` answers it, and with what.
//!
//! The embedded engine's writer and the simulated store run it; the scripts of a remote store are
//! held to it. It keeps nothing, and reads no clock.

use crate::dedupe::{
    self, Admission, Ask, Bar, Claim, Entry, Fence, Holder, Instance, Kept, Nonce, Observer, Slot, Standing,
    Started,
};
use crate::engine::{Delivery, Mark};
use crate::outcome::OutcomeKind;
use crate::task::{Origin, Position, ScopedKey, Timestamp, Token};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long a heartbeat lasts. Longer than any pause of a healthy process, short enough that the work of a
/// dead one is taken over soon. `until` is the deadline of a call and one such lease, in which its answer
/// may still be stored.
pub const LEASE: Duration = Duration::from_secs(10);

/// What can be asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum LedgerCall {
    Admit { delivery: Delivery, token: Token, decider: Option<Position> },
    Refuse { delivery: Delivery, token: Token },
    Repair { token: Token, outcome: OutcomeKind, at: Position },
    Start { claim: Claim, slot: Slot, deadline: Duration },
    Bar { claim: Claim, slot: Slot },
    Store { token: Token, slot: Slot, value: Bytes },
    Release { nonce: Nonce, key: ScopedKey, unheard: u32 },
    Mark { mark: Mark, at: Option<Position> },
}

/// Each kind of call has one kind of reply.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum LedgerReply {
    Admission(Box<Admission>),
    Started(Started),
    Bar(Bar),
    Stored(Kept, Standing),
    Done,
}

/// What the ledger keeps.
pub trait Tables {
    type Error;

    /// Runs `script` over the entry of a scope, and keeps what it leaves.
    fn entry<T>(
        &mut self,
        key: Vec<u8>,
        script: impl FnOnce(&mut Option<Entry>) -> T,
    ) -> Result<T, Self::Error>;
    /// When the origin was refused under this scope.
    fn refused(&self, key: &[u8], origin: &Origin) -> Result<Option<Timestamp>, Self::Error>;
    fn set_refused(&mut self, key: &[u8], origin: &Origin, at: Timestamp);
    /// New, and held by nobody.
    fn fence(&mut self) -> Fence;
}

/// Who asks, and when.
pub struct Asked<'a> {
    pub instance: Instance,
    pub observer: &'a dyn Observer,
    /// The ledger's clock.
    pub now: Timestamp,
    /// How long what is closed or refused is remembered.
    pub window: Duration,
}

/// Answers one call. An error is the tables' own: nothing was decided.
pub fn run<T: Tables>(tables: &mut T, call: &LedgerCall, asked: &Asked<'_>) -> Result<LedgerReply, T::Error> {
    let (now, instance) = (asked.now, asked.instance);
    let fence = tables.fence();
    // Expiry comes first, as before every script.
    let fresh = |e: &mut Option<Entry>| dedupe::expire(e, asked.window, now);
    let is_refused = |at: Option<Timestamp>| at.is_some_and(|at| !dedupe::window_over(at, asked.window, now));
    Ok(match call {
        LedgerCall::Admit { delivery, token, decider } => {
            let key = token.key.to_bytes();
            let refused = token.hop == 0 && is_refused(tables.refused(&key, &token.origin)?);
            let ask = ask(delivery, token, decider.as_ref(), fence, now);
            let admission = tables.entry(key, |e| {
                fresh(e);
                dedupe::admit(e, refused, &ask)
            })?;
            LedgerReply::Admission(Box::new(admission))
        }
        LedgerCall::Refuse { delivery, token } => {
            let key = token.key.to_bytes();
            let refused = is_refused(tables.refused(&key, &token.origin)?);
            let ask = ask(delivery, token, None, fence, now);
            let (admission, mark) = tables.entry(key.clone(), |e| {
                fresh(e);
                dedupe::refuse(e, refused, &ask)
            })?;
            if mark && !refused {
                tables.set_refused(&key, &token.origin, now);
            }
            LedgerReply::Admission(Box::new(admission))
        }
        LedgerCall::Start { claim, slot, deadline } => {
            let until = now.plus(*deadline + LEASE);
            let by = Holder { fence: claim.fence, nonce: claim.nonce, instance };
            LedgerReply::Started(tables.entry(claim.token.key.to_bytes(), |e| {
                fresh(e);
                dedupe::start(e, &by, slot, until, now, asked.observer)
            })?)
        }
        LedgerCall::Bar { claim, slot } => {
            let by = Holder { fence: claim.fence, nonce: claim.nonce, instance };
            LedgerReply::Bar(tables.entry(claim.token.key.to_bytes(), |e| {
                fresh(e);
                dedupe::bar(e, &by, slot)
            })?)
        }
        LedgerCall::Store { token, slot, value } => {
            let (winner, standing) = tables.entry(token.key.to_bytes(), |e| {
                fresh(e);
                dedupe::store(e, token, slot, value.clone())
            })?;
            LedgerReply::Stored(winner, standing)
        }
        LedgerCall::Release { nonce, key, unheard } => {
            tables.entry(key.to_bytes(), |e| {
                fresh(e);
                dedupe::release(e, *nonce, *unheard);
            })?;
            LedgerReply::Done
        }
        LedgerCall::Repair { token, outcome, at }
        | LedgerCall::Mark { mark: Mark::Close { token, outcome, .. }, at: Some(at) } => {
            tables.entry(token.key.to_bytes(), |e| {
                fresh(e);
                dedupe::close(e, token, *outcome, at, fence, now);
            })?;
            LedgerReply::Done
        }
        LedgerCall::Mark { mark: Mark::Moved { token, hop, phase }, .. } => {
            tables.entry(token.key.to_bytes(), |e| {
                fresh(e);
                dedupe::moved(e, token, *hop, *phase, fence, now);
            })?;
            LedgerReply::Done
        }
        // A completion without outputs has no outcome to tell of.
        LedgerCall::Mark { mark: Mark::Close { .. }, at: None } => LedgerReply::Done,
    })
}

fn ask<'q>(
    d: &'q Delivery,
    token: &'q Token,
    decider: Option<&'q Position>,
    fence: Fence,
    now: Timestamp,
) -> Ask<'q> {
    Ask { token, lease: &d.lease, nonce: d.nonce, fence, decider, now }
}

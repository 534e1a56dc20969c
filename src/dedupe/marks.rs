//! What the ledger learns after a commit; may be late, may never come.
//!
//! A mark never opens what is closed, never goes back a hop, and says nothing to a chain that is
//! not its own. It carries the fingerprint: a ledger that forgot must still know whose key it is.

use super::entry::{Entry, Fence, OpenPhase, Phase};
use crate::outcome::OutcomeKind;
use crate::task::{Position, Timestamp, Token};
use std::collections::BTreeMap;

/// The outcome of the token's chain is visible at `at`. `fence`: new, held by nobody.
pub fn close(
    entry: &mut Option<Entry>,
    token: &Token,
    outcome: OutcomeKind,
    at: &Position,
    fence: Fence,
    now: Timestamp,
) {
    let phase = Phase::Closed { outcome, at: at.clone() };
    match entry {
        Some(e) if e.same_chain(token) && !e.is_closed() => {
            e.phase = phase;
            e.hop = e.hop.max(token.hop);
            e.decider = None;
            e.fence = fence;
            e.slots.clear();
            e.changed = now;
        }
        _ if replaceable(entry.as_ref(), token) => *entry = Some(create(token, token.hop, phase, fence, now)),
        _ => {}
    }
}

/// The token's chain has moved on to `hop`. `fence`: new, held by nobody, so that a delivery of
/// the hop before cannot go on in slots that belong to the next one.
pub fn moved(
    entry: &mut Option<Entry>,
    token: &Token,
    hop: u32,
    phase: OpenPhase,
    fence: Fence,
    now: Timestamp,
) {
    let phase = match phase {
        OpenPhase::Open => Phase::Open,
        OpenPhase::Waiting => Phase::Waiting,
    };
    match entry {
        Some(e) if e.same_chain(token) && !e.is_closed() && hop > e.hop => {
            e.rise(hop);
            e.phase = phase;
            e.fence = fence;
            e.changed = now;
        }
        _ if replaceable(entry.as_ref(), token) => *entry = Some(create(token, hop, phase, fence, now)),
        _ => {}
    }
}

fn replaceable(entry: Option<&Entry>, token: &Token) -> bool {
    entry.is_none_or(|e| e.generation < token.generation)
}

fn create(token: &Token, hop: u32, phase: Phase, fence: Fence, now: Timestamp) -> Entry {
    Entry {
        generation: token.generation,
        origin: token.origin.clone(),
        hop,
        print: token.print.clone(),
        fence,
        decider: None,
        phase,
        slots: BTreeMap::new(),
        since: now,
        changed: now,
    }
}

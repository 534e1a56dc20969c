//! Decides who may work for a key.
//!
//! `admit` and `refuse` are one script each: the first row that fits decides, as the table in
//! `rows` reads. They never read a clock and never look at the log: that a chain is past a hop,
//! or closed, they know only from the marks that reached the ledger.

use super::entry::{Entry, Fence, Nonce, Phase, SlotState};
use super::slots::{self, Kept, SlotName};
use crate::engine::Lease;
use crate::fingerprint;
use crate::outcome::OutcomeKind;
use crate::task::{Position, Timestamp, Token};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A delivery asks to be admitted, for the token it carries.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// For a decision: the token of its review item.
    pub token: &'a Token,
    pub lease: &'a Lease,
    pub nonce: Nonce,
    /// New and random; the entry's fence from now on if the verdict is `Fresh` or `Resumed`.
    pub fence: Fence,
    /// Position of the decision that asks on behalf of the item.
    pub decider: Option<&'a Position>,
    /// By the ledger's clock.
    pub now: Timestamp,
}

/// What an admitted delivery holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Claim {
    pub lease: Lease,
    pub nonce: Nonce,
    pub token: Token,
    pub fence: Fence,
}

/// The stored answers a resumed task finds.
pub type Slots = BTreeMap<SlotName, Kept>;

/// Why a record completes without a trace but a count.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Silence {
    /// Its own chain has its outcome.
    Done { outcome: OutcomeKind, at: Position },
    /// Its own chain is past this hop.
    Moved,
    /// Another record of the same payload owns the key.
    Duplicate,
    /// A later generation is under way.
    Older,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Admission {
    Fresh(Claim),
    Resumed(Claim, Slots),
    Silent(Silence),
    /// The key belongs to another payload: dead letter under its own coordinates.
    Conflict,
    /// Refused before: dead letter under its own coordinates.
    Refused,
    /// Another decision decides the item.
    Told(Position),
    /// A generation above 0 without proof: malformed, dead letter `token-invalid`.
    Invalid,
}

/// Admission of a token. `refused`: whether (scope, the token's origin) carries that mark.
/// Any verdict but `Fresh` and `Resumed` gives back what the nonce had started.
#[must_use]
pub fn admit(entry: &mut Option<Entry>, refused: bool, ask: &Ask) -> Admission {
    let verdict = match (rows(entry.as_ref(), refused, ask), &mut *entry) {
        (Row::Fresh, _) => {
            *entry = Some(fresh(ask));
            return Admission::Fresh(claim(ask));
        }
        (Row::Resumed, Some(e)) => return Admission::Resumed(claim(ask), resume(e, ask)),
        // Only what is there is resumed; without an entry this cannot be.
        (Row::Resumed, None) | (Row::Invalid, _) => Admission::Invalid,
        (Row::Silent(why), _) => Admission::Silent(why),
        (Row::Conflict, _) => Admission::Conflict,
        (Row::Refused, _) => Admission::Refused,
        (Row::Told(decider), _) => Admission::Told(decider),
    };
    slots::release(entry, ask.nonce, 0);
    verdict
}

/// A record that cannot be a task under the rules of today asks what becomes of its dead letter.
/// `Fresh` and `Resumed`: it is the outcome of its chain, once the effects still ahead are barred.
/// The second answer: mark (scope, the token's origin) as refused, in the same script.
#[must_use]
pub fn refuse(entry: &mut Option<Entry>, refused: bool, ask: &Ask) -> (Admission, bool) {
    let token = ask.token;
    let (admission, mark) = match entry.as_ref() {
        _ if token.hop > 0 => return (admit(entry, refused, ask), false),
        Some(e) if e.same_chain(token) => return (admit(entry, refused, ask), false),
        // A copy of what is there already is no news.
        Some(e) if e.generation >= token.generation && !differs(e, token) => {
            (Admission::Silent(silence_of_copy(e, token)), false)
        }
        // Leaves word, so that a late admission of the same record by another process finds out.
        _ => (Admission::Refused, true),
    };
    slots::release(entry, ask.nonce, 0);
    (admission, mark)
}

enum Row {
    Fresh,
    Resumed,
    Silent(Silence),
    Conflict,
    Refused,
    Told(Position),
    Invalid,
}

/// The rows of the admission table, in their order.
fn rows(entry: Option<&Entry>, refused: bool, ask: &Ask) -> Row {
    let token = ask.token;
    if token.hop == 0 && refused {
        return Row::Refused;
    }
    let proved = token.generation == 0 || token.proof.is_some();
    let Some(e) = entry else {
        return if proved { Row::Fresh } else { Row::Invalid };
    };
    if e.same_chain(token) {
        return own_chain(e, ask);
    }
    // Before generations are compared: an old redrive that meets the new life of a key is the
    // conflict, not the chain that runs; and a stranger of an older generation is no duplicate.
    if differs(e, token) {
        return Row::Conflict;
    }
    if e.generation < token.generation {
        let may = e.is_closed() || token.proof.is_some();
        return if may { Row::Fresh } else { Row::Invalid };
    }
    Row::Silent(silence_of_copy(e, token))
}

fn own_chain(e: &Entry, ask: &Ask) -> Row {
    if let Phase::Closed { outcome, at } = &e.phase {
        return Row::Silent(Silence::Done { outcome: *outcome, at: at.clone() });
    }
    if ask.token.hop < e.hop {
        return Row::Silent(Silence::Moved);
    }
    match (&e.decider, ask.decider) {
        // A hop that rises has no decider yet.
        (Some(other), Some(d)) if other != d && ask.token.hop == e.hop => Row::Told(other.clone()),
        _ => Row::Resumed,
    }
}

fn silence_of_copy(e: &Entry, token: &Token) -> Silence {
    if e.generation > token.generation { Silence::Older } else { Silence::Duplicate }
}

/// Compares under the entry's own rule, also where a deploy has changed the rule since.
fn differs(e: &Entry, token: &Token) -> bool {
    if e.print.rule == token.print.rule {
        return e.print.digest != token.print.digest;
    }
    // A payload to which the entry's rule does not apply was not admitted under it.
    fingerprint::digest(&e.print.rule, &token.payload) != Some(e.print.digest)
}

fn fresh(ask: &Ask) -> Entry {
    let token = ask.token;
    Entry {
        generation: token.generation,
        origin: token.origin.clone(),
        hop: token.hop,
        print: token.print.clone(),
        fence: ask.fence,
        decider: ask.decider.cloned(),
        phase: phase(ask),
        slots: BTreeMap::new(),
        since: ask.now,
        changed: ask.now,
    }
}

fn resume(e: &mut Entry, ask: &Ask) -> Slots {
    if ask.token.hop > e.hop {
        e.rise(ask.token.hop);
    }
    if let Some(d) = ask.decider {
        e.decider = Some(d.clone());
    }
    e.phase = phase(ask);
    e.fence = ask.fence;
    e.changed = ask.now;
    let stored = e.slots.iter().filter_map(|(name, slot)| match &slot.state {
        SlotState::Stored { value } => Some((name.clone(), Kept { value: value.clone(), times: slot.times })),
        _ => None,
    });
    stored.collect()
}

/// While a decision is worked on, the task still waits for a person.
fn phase(ask: &Ask) -> Phase {
    if ask.decider.is_some() { Phase::Waiting } else { Phase::Open }
}

fn claim(ask: &Ask) -> Claim {
    Claim { lease: ask.lease.clone(), nonce: ask.nonce, token: ask.token.clone(), fence: ask.fence }
}

#[cfg(test)]
mod tests;

//! Marks, and the end of the dedupe window.

use super::super::convert;
use super::super::flaws::{Flaw, Rules};
use super::super::state::*;
use std::time::Duration;
use tidegate::dedupe::{self, Fence};
use tidegate::outcome::OutcomeKind;

use super::admission::same_chain;

/// The outcome of this chain is visible.
pub(crate) fn close(l: &mut Ledger, t: &Record, number: u8, rules: Rules) {
    let before = l.entry;
    let mut entry = convert::there(&before);
    let token = convert::token(t, before.version);
    let at = convert::position(t.origin);
    dedupe::close(&mut entry, &token, OutcomeKind::Result, at, Fence(number.into()), convert::NOW);
    let mut after = convert::back(entry.as_ref(), &before);
    let created = !same_chain(&before, t);
    let forgetful = rules.has(Flaw::ClosedWithoutPrint) || created && rules.has(Flaw::MarksCarryNoPrint);
    if after != before && forgetful {
        after.print = UNKNOWN;
    }
    l.entry = after;
}

/// The chain has moved on to `hop`. `number` is a new fence that nobody holds.
pub(crate) fn moved(l: &mut Ledger, t: &Record, hop: u8, phase: Phase, number: u8, rules: Rules) {
    let before = l.entry;
    let mut entry = convert::there(&before);
    let token = convert::token(t, before.version);
    let same = same_chain(&before, t);
    if let Some(e) = entry.as_mut().filter(|_| same && rules.has(Flaw::MarksReopen)) {
        (e.hop, e.phase) = (u32::from(hop) - 1, dedupe::Phase::Open);
    }
    let fence = Fence(number.into());
    dedupe::moved(&mut entry, &token, hop.into(), convert::open_phase(phase), fence, convert::NOW);
    let mut after = convert::back(entry.as_ref(), &before);
    if after == before {
        return;
    }
    if rules.has(Flaw::FenceCounts) || same && rules.has(Flaw::MovedKeepsFence) {
        after.fence = if same { before.fence } else { 0 };
    }
    if !same && rules.has(Flaw::MarksCarryNoPrint) {
        after.print = UNKNOWN;
    }
    if same {
        bars_for_ever(&before, &mut after, rules);
    }
    l.entry = after;
}

pub(super) fn bars_for_ever(before: &Entry, after: &mut Entry, rules: Rules) {
    if rules.has(Flaw::BarsForEver) && before.effect.state == SlotState::Barred {
        after.effect = before.effect;
    }
}

/// The dedupe window of a closed entry ends.
pub(crate) fn expire(l: &mut Ledger) {
    let mut entry = convert::there(&l.entry);
    dedupe::expire(&mut entry, Duration::ZERO, convert::NOW);
    l.entry = convert::back(entry.as_ref(), &l.entry);
}

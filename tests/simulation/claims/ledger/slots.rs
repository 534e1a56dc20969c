//! Slots: start, bar, store, release.

use super::super::convert;
use super::super::flaws::{Flaw, Rules};
use super::super::state::*;
use tidegate::dedupe::{self, Fence, Holder, Instance, Nonce, Observer, Standing, Started};

use super::admission::{is_open, same_chain};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Start {
    Go {
        repeat: bool,
    },
    Done,
    Busy,
    /// An effect that may or may not have happened.
    Unknown,
    Barred,
    Stale,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Which {
    Call,
    Effect,
}

fn slot(e: &mut Entry, which: Which) -> &mut Slot {
    match which {
        Which::Call => &mut e.call,
        Which::Effect => &mut e.effect,
    }
}

/// What a process may judge of the others in this state.
struct Sees {
    settled: bool,
    lapsed: [bool; PROCESSES],
}

impl Observer for Sees {
    fn settled(&self) -> bool {
        self.settled
    }

    fn lapsed(&self, instance: Instance) -> bool {
        instance == convert::DEAD || self.lapsed[convert::process(instance) as usize]
    }
}

/// The second answer: whether the journal counts a death for it.
pub(crate) fn start(s: &mut State, a: &Act, which: Which, rules: Rules) -> (Start, bool) {
    let mut before = s.ledger.entry;
    let current = is_open(&before) && before.fence == a.fence;
    let found = slot(&mut before, which);
    if current && rules.has(Flaw::OwnInstanceIsMe) && owned_by(found, a.process) && found.nonce != a.id {
        (found.nonce, found.doubt) = (a.id, false);
    }
    let found = *found;
    let sees = sees(s, &found, a, rules);
    let named = convert::slot(which == Which::Effect);
    let repeats = rules.has(Flaw::RepeatsUnknownEffect);
    let kind = if repeats { dedupe::SlotKind::Call } else { named.kind };
    let real = dedupe::Slot { kind, name: named.name.clone() };
    let mut entry = convert::there(&before);
    let answer = dedupe::start(&mut entry, &holder(a), &real, convert::UNTIL, convert::NOW, &sees);
    let mut after = convert::back(entry.as_ref(), &before);
    if answer == Started::Unknown && rules.has(Flaw::UnknownKeepsOwner) {
        *slot(&mut after, which) = found;
    }
    s.ledger.entry = after;
    let said = match answer {
        Started::Go { repeat, .. } => Start::Go { repeat },
        Started::Done(_) => Start::Done,
        Started::Barred => Start::Barred,
        Started::Busy(_) => Start::Busy,
        Started::Unknown => Start::Unknown,
        Started::Stale => Start::Stale,
    };
    (said, convert::death_counted(entry.as_ref()))
}

fn owned_by(slot: &Slot, process: u8) -> bool {
    slot.state == SlotState::Started && slot.process == process && !slot.dead
}

fn sees(s: &State, found: &Slot, a: &Act, rules: Rules) -> Sees {
    let lapsed: [bool; PROCESSES] = std::array::from_fn(|p| s.processes[p].lapsed);
    let gone = !owned_by(found, a.process) && (found.dead || lapsed[found.process as usize]);
    let settled = s.processes[a.process as usize].settled
        || rules.has(Flaw::OutageLooksLikeDeath) && gone
        || rules.has(Flaw::UntilWithoutContact) && found.until_passed;
    Sees { settled, lapsed }
}

fn holder(a: &Act) -> Holder {
    Holder { fence: Fence(a.fence.into()), nonce: Nonce(a.id.into()), instance: convert::instance(a.process) }
}

/// Asks to end, or to go to a person, without the effect. `Done`: from now on nobody can start it.
pub(crate) fn bar(l: &mut Ledger, a: &Act, fence: u8) -> Start {
    let mut entry = convert::there(&l.entry);
    let answer = dedupe::bar(&mut entry, &holder(&Act { fence, ..*a }), convert::slot(true));
    let before = l.entry.effect;
    l.entry = convert::back(entry.as_ref(), &l.entry);
    if before.state != SlotState::Barred && answer == dedupe::Bar::Barred {
        l.entry.effect.barred_at = l.entry.hop;
    }
    match answer {
        dedupe::Bar::Barred => Start::Done,
        dedupe::Bar::Busy => Start::Busy,
        dedupe::Bar::Stale => Start::Stale,
    }
}

/// First writer wins. Answers whether it is kept, and whether the writer's token still stands.
pub(crate) fn store(l: &mut Ledger, t: &Record, which: Which, rules: Rules) -> (bool, bool) {
    let before = l.entry;
    let mut entry = convert::there(&before);
    let mut token = convert::token(t, before.version);
    if let Some(e) = entry.as_ref().filter(|_| rules.has(Flaw::StoresIntoAnyChain)) {
        (token.generation, token.origin) = (e.generation, e.origin.clone());
    }
    let named = convert::slot(which == Which::Effect);
    let (winner, standing) = dedupe::store(&mut entry, &token, named, convert::answer());
    assert_eq!(winner.value, convert::answer());
    l.entry = convert::back(entry.as_ref(), &before);
    let kept = same_chain(&before, t) && slot(&mut l.entry, which).state == SlotState::Stored;
    let silent = rules.has(Flaw::StaleMeansSilent) && before.phase == Phase::Absent;
    (kept, standing == Standing::Stands || silent)
}

pub(crate) fn release(l: &mut Ledger, a: &Act, rules: Rules) {
    if rules.has(Flaw::ReleaseByFence) && l.entry.fence != a.fence {
        return;
    }
    let mut entry = convert::there(&l.entry);
    dedupe::release(&mut entry, Nonce(a.id.into()), 0);
    l.entry = convert::back(entry.as_ref(), &l.entry);
}

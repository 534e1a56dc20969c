//! The ledger's scripts: the product's own functions, and the switches around them.
//!
//! Each script is one atomic step: it takes the compact entry there, calls `tidegate::dedupe`, and
//! brings the entry back. A switch is put in front of the product's function or after it, so the
//! product's code stays as it is.

use super::convert;
use super::flaws::{Flaw, Rules};
use super::state::*;
use std::time::Duration;
use tidegate::dedupe::{self, Admission, Fence, Holder, Instance, Nonce, Observer, Standing, Started};
use tidegate::outcome::OutcomeKind;
use tidegate::task::Token;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    Fresh,
    Resumed,
    Silent,
    Conflict,
    /// Buried under its own coordinates.
    Refused,
    /// Another decision has the item.
    Told,
    /// Malformed.
    Invalid,
    /// Must wait for something; nothing has changed. Only where a switch is set.
    Wait,
}

impl From<&Admission> for Verdict {
    fn from(admission: &Admission) -> Verdict {
        match admission {
            Admission::Fresh(_) => Verdict::Fresh,
            Admission::Resumed(..) => Verdict::Resumed,
            Admission::Silent(_) => Verdict::Silent,
            Admission::Conflict => Verdict::Conflict,
            Admission::Refused => Verdict::Refused,
            Admission::Told(_) => Verdict::Told,
            Admission::Invalid => Verdict::Invalid,
        }
    }
}

/// A token that asks to be admitted.
#[derive(Clone, Copy)]
pub(crate) struct Ask {
    pub(crate) token: Record,
    pub(crate) version: u8,
    pub(crate) process: u8,
    pub(crate) id: u8,
    /// The fence it held before, if any.
    pub(crate) held: u8,
    pub(crate) number: u8,
    pub(crate) decision: Option<u8>,
}

impl Ask {
    fn real<'a>(&self, token: &'a Token, number: u8) -> dedupe::Ask<'a> {
        dedupe::Ask {
            token,
            lease: convert::lease(),
            nonce: Nonce(self.id.into()),
            fence: Fence(number.into()),
            decider: self.decision.map(convert::position),
            now: convert::NOW,
        }
    }

    fn bit(&self) -> u16 {
        1 << self.token.origin
    }
}

fn is_open(e: &Entry) -> bool {
    matches!(e.phase, Phase::Open | Phase::Waiting)
}

fn same_chain(e: &Entry, t: &Record) -> bool {
    e.phase != Phase::Absent && e.generation == t.generation && e.origin == t.origin
}

pub(crate) fn admit(l: &mut Ledger, ask: Ask, rules: Rules, alive: impl Fn(u8) -> bool) -> Verdict {
    let refused = l.refused & ask.bit() != 0;
    asked(l, ask, rules, alive, |entry, real| dedupe::admit(entry, refused, real))
}

/// A record that cannot be a task under the rules of today asks what to do with its dead letter.
/// `Fresh` and `Resumed`: the dead letter is the outcome of its chain.
pub(crate) fn refuse(l: &mut Ledger, ask: Ask, rules: Rules, record: u8) -> Verdict {
    let e = l.entry;
    let mut mark = false;
    let refused = l.refused & ask.bit() != 0;
    let verdict = if rules.has(Flaw::RefusalForgetsClaim) {
        return Verdict::Refused;
    } else if rules.has(Flaw::RefusalKnowsOnlyOrigins) {
        if same_chain(&e, &ask.token) && is_open(&e) && e.origin == record {
            return Verdict::Resumed;
        }
        mark = true;
        Verdict::Refused
    } else {
        asked(
            l,
            ask,
            rules,
            |_| false,
            |entry, real| {
                let (admission, marks) = dedupe::refuse(entry, refused, real);
                mark = marks;
                admission
            },
        )
    };
    if mark && !rules.has(Flaw::RefusalLeavesNoTrace) {
        if rules.has(Flaw::OneRefusalPerKey) {
            l.refused = 0;
        }
        l.refused |= ask.bit();
    }
    verdict
}

/// Runs one of the two ways to ask, with the switches of both.
fn asked(
    l: &mut Ledger,
    ask: Ask,
    rules: Rules,
    alive: impl Fn(u8) -> bool,
    script: impl FnOnce(&mut Option<dedupe::Entry>, &dedupe::Ask) -> Admission,
) -> Verdict {
    let (before, t) = (l.entry, &ask.token);
    let token = convert::token(t, ask.version);
    let mut entry = convert::there(&before);
    let blind = blind(&before, &ask, rules);
    let back_in = rules.has(Flaw::TakesOverAtAnyHop) && same_chain(&before, t) && t.hop < before.hop;
    if let Some(e) = &mut entry {
        if blind {
            e.print = token.print.clone();
        }
        if back_in {
            e.hop = token.hop;
        }
    }
    let number = if rules.has(Flaw::FenceCounts) { counted(&before, t) } else { ask.number };
    let real = ask.real(&token, number);
    let admission = script(&mut entry, &real);
    as_granted(&admission, &real, &before);
    let verdict = Verdict::from(&admission);
    if waits(&before, &ask, verdict, rules, alive) {
        return Verdict::Wait;
    }
    let mut after = convert::back(entry.as_ref(), &before);
    if blind && verdict != Verdict::Fresh {
        (after.print, after.version) = (before.print, before.version);
    }
    if back_in {
        after.hop = before.hop;
    }
    if verdict == Verdict::Resumed {
        bars_for_ever(&before, &mut after, rules);
    }
    match verdict {
        Verdict::Fresh | Verdict::Resumed => (after.holder, after.holder_process) = (ask.id, ask.process),
        _ if rules.has(Flaw::ReleaseByFence) && before.fence != ask.held => {
            (after.call, after.effect) = (before.call, before.effect);
        }
        _ => {}
    }
    l.entry = after;
    verdict
}

/// A claim names what was granted, and its slots are what the journal holds.
fn as_granted(admission: &Admission, real: &dedupe::Ask, before: &Entry) {
    if let Admission::Fresh(claim) | Admission::Resumed(claim, _) = admission {
        assert_eq!((claim.fence, claim.nonce), (real.fence, real.nonce));
        assert_eq!(claim.token.origin, real.token.origin);
    }
    if let Admission::Resumed(_, slots) = admission {
        let stored = [before.call, before.effect].iter().filter(|s| s.state == SlotState::Stored).count();
        assert_eq!(slots.len(), stored);
    }
}

/// Whether a switch makes the payloads look equal.
fn blind(e: &Entry, ask: &Ask, rules: Rules) -> bool {
    let g = ask.token.generation;
    e.print == UNKNOWN
        || rules.has(Flaw::OtherRuleSwallowsConflict) && e.version != ask.version
        || rules.has(Flaw::OldGenerationSwallowsConflict) && e.generation > g
        || rules.has(Flaw::RedriveReplacesStrangers) && e.generation < g
}

/// The fence as a counter that begins again with its entry.
fn counted(e: &Entry, t: &Record) -> u8 {
    if same_chain(e, t) { e.fence + 1 } else { 1 }
}

fn waits(e: &Entry, ask: &Ask, verdict: Verdict, rules: Rules, alive: impl Fn(u8) -> bool) -> bool {
    let holder_runs = e.holder != 0 && e.holder_process != ask.process && alive(e.holder_process);
    match verdict {
        Verdict::Fresh => rules.has(Flaw::RedriveNeedsClosed) && is_open(e),
        Verdict::Resumed | Verdict::Told => rules.has(Flaw::RunningAtOnClaim) && holder_runs,
        _ => false,
    }
}

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
    assert_eq!(winner, convert::answer());
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
    dedupe::release(&mut entry, Nonce(a.id.into()));
    l.entry = convert::back(entry.as_ref(), &l.entry);
}

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

fn bars_for_ever(before: &Entry, after: &mut Entry, rules: Rules) {
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

/// The claim of a decision, where a review item has an entry of its own.
pub(crate) fn admit_decision(l: &mut Ledger, decision: u8) -> Verdict {
    let r = &mut l.review;
    match r.phase {
        Phase::Absent => {
            *r = ReviewEntry { phase: Phase::Open, origin: decision };
            Verdict::Fresh
        }
        _ if r.origin != decision => Verdict::Told,
        Phase::Closed => Verdict::Silent,
        _ => Verdict::Resumed,
    }
}

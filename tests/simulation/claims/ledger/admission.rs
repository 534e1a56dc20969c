//! Admission, refusal and decision.

use super::super::convert;
use super::super::flaws::{Flaw, Rules};
use super::super::state::*;
use tidegate::dedupe::{self, Admission, Fence, Nonce};
use tidegate::task::Token;

use super::marks::bars_for_ever;

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

pub(super) fn is_open(e: &Entry) -> bool {
    matches!(e.phase, Phase::Open | Phase::Waiting)
}

pub(super) fn same_chain(e: &Entry, t: &Record) -> bool {
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

//! What a worker does with a slot: start it, make the call or run the effect, look, store, give it back.

use super::super::checks;
use super::super::flaws::Flaw;
use super::super::ledger::{self, Start, Which};
use super::super::state::*;
use super::Steps;

impl Steps<'_> {
    pub(super) fn start(&mut self, i: usize, which: Which) {
        let mut t = *self.from;
        let a = t.acts[i];
        if !self.confirm(i) || !t.reaches(a.process) {
            return;
        }
        let (answer, death) = ledger::start(&mut t, &a, which, self.config.rules);
        let go = matches!(answer, Start::Go { .. });
        let mut broken = None;
        if go && which == Which::Effect {
            broken = checks::after_effect_granted(&t, &a);
        }
        if answer == (Start::Go { repeat: true }) && which == Which::Call {
            broken = checks::after_repeat_granted(&t);
            let n = &mut t.counted[t.records[a.record as usize].generation as usize];
            *n = (*n + 1).min(3);
            broken = broken.or_else(|| checks::after_count(&t));
        }
        if answer == Start::Barred {
            broken = checks::after_barred(&t);
        }
        if death {
            broken = broken.or_else(|| checks::after_death(&t));
        }
        if go && t.budget.lost_replies > 0 && t.ledger != self.from.ledger {
            let mut lost = t;
            lost.budget.lost_replies -= 1;
            self.fault("starts a slot and the reply is lost", a.process, a.record, lost, broken);
        }
        let act = &mut t.acts[i];
        let what = match (answer, which) {
            (Start::Busy, _) => return,
            (Start::Stale, _) if self.config.rules.has(Flaw::StaleMeansSilent) => {
                (act.at, act.ending) = (At::HandIn, Ending::Silent);
                "starts a slot, hears Superseded and will complete silently"
            }
            (Start::Stale, _) => {
                act.at = At::Admit;
                "starts a slot, hears Stale and will ask for admission again"
            }
            (Start::Done, Which::Call) => {
                act.call = Have::Kept;
                "finds the answer of its call in the ledger"
            }
            (Start::Done, Which::Effect) => {
                act.effect = Have::Kept;
                "finds the effect done in the ledger"
            }
            (Start::Go { repeat }, Which::Call) => {
                act.at = At::GoCall;
                if repeat { "starts its call again: Go, counted as repeated" } else { "starts its call: Go" }
            }
            (Start::Go { .. }, Which::Effect) => {
                act.at = At::GoEffect;
                "starts its effect: Go"
            }
            (Start::Barred, _) => {
                (act.at, act.ending) =
                    (At::HandIn, if self.config.poison { Ending::Outcome } else { Ending::Review });
                "finds that the task goes on without its effect"
            }
            (Start::Unknown, _) => {
                act.at = At::Look;
                "starts its effect: Unknown"
            }
        };
        self.push(what, a.process, a.record, t, broken);
    }

    pub(super) fn go_call(&mut self, i: usize) {
        let mut t = *self.from;
        let a = t.acts[i];
        if self.too_late(i) {
            return;
        }
        let g = t.records[a.record as usize].generation as usize;
        t.bought[g] = (t.bought[g] + 1).min(3);
        let act = &mut t.acts[i];
        (act.at, act.call, act.late) = (At::Run, Have::Held, false);
        let broken = checks::after_buying(&t, g);
        self.push("buys the call and holds the answer", a.process, a.record, t, broken);
        self.park(i);
    }

    fn too_late(&mut self, i: usize) -> bool {
        let mut t = *self.from;
        let a = t.acts[i];
        if !a.late || self.has(Flaw::SendsAfterUntil) {
            return false;
        }
        (t.acts[i].at, t.acts[i].late) = (At::Run, false);
        self.push(
            "has not sent its request before 'until' and must start again",
            a.process,
            a.record,
            t,
            None,
        );
        true
    }

    pub(super) fn go_effect(&mut self, i: usize) {
        if self.too_late(i) {
            return;
        }
        let mut t = *self.from;
        let a = t.acts[i];
        let g = t.records[a.record as usize].generation as usize;
        let done = self.config.table && t.effects[g] > 0;
        if !done {
            t.effects[g] = (t.effects[g] + 1).min(3);
        }
        let act = &mut t.acts[i];
        (act.at, act.effect, act.late) = (At::Run, Have::Held, false);
        let broken = checks::after_effect(&t, g as u8);
        self.push("runs the effect", a.process, a.record, t, broken);
    }

    pub(super) fn look(&mut self, i: usize) {
        if !self.confirm(i) {
            return;
        }
        let mut t = *self.from;
        let a = t.acts[i];
        let happened = t.effects[t.records[a.record as usize].generation as usize] > 0;
        let act = &mut t.acts[i];
        let what = if happened {
            (act.at, act.effect) = (At::Run, Have::Held);
            "looks and sees that the effect has happened"
        } else if self.config.table {
            act.at = At::GoEffect;
            "looks, sees nothing, and lets the effects table decide"
        } else {
            // A person takes over; for the model that is an outcome.
            let unguarded =
                self.config.rules.has(Flaw::EndsPastEffect) || self.config.rules.has(Flaw::UnknownKeepsOwner);
            if !unguarded && (a.unsure || !self.from.reaches(a.process)) {
                return;
            }
            match if unguarded { Start::Done } else { ledger::bar(&mut t.ledger, &a, a.fence) } {
                Start::Done => {
                    (act.at, act.ending) = (At::HandIn, Ending::Outcome);
                    "looks, sees nothing, and gives the task to a person"
                }
                _ => {
                    act.at = At::Admit;
                    "looks, sees nothing, hears Stale and will ask for admission again"
                }
            }
        };
        self.push(what, a.process, a.record, t, None);
    }

    pub(super) fn store(&mut self, i: usize, which: Which) {
        let mut t = *self.from;
        let a = t.acts[i];
        let token = t.records[a.record as usize];
        let (kept, stands) = ledger::store(&mut t.ledger, &token, which, self.config.rules);
        let broken = checks::after_store(&t);
        if t.budget.lost_replies > 0 && t.ledger != self.from.ledger {
            let mut lost = t;
            lost.budget.lost_replies -= 1;
            self.fault("stores an answer and the reply is lost", a.process, a.record, lost, None);
        }
        let silent = self.has(Flaw::StaleMeansSilent);
        let act = &mut t.acts[i];
        let have = if which == Which::Call { &mut act.call } else { &mut act.effect };
        let mut what = "stores an answer";
        if kept || a.void || silent || stands {
            *have = Have::Kept;
        }
        if a.void {
            if act.call != Have::Held && act.effect != Have::Held {
                *act = Act::default();
            }
            what = "stores an answer, its lease being void";
        } else if !stands && a.at == At::Run {
            if silent {
                (act.at, act.ending) = (At::HandIn, Ending::Silent);
                what = "stores an answer, hears Superseded and will complete silently";
            } else {
                act.at = At::Admit;
                what = "stores an answer, hears Stale and will ask for admission again";
            }
        }
        self.push(what, a.process, a.record, t, broken);
    }

    pub(super) fn release(&mut self, i: usize) {
        let mut t = *self.from;
        let a = t.acts[i];
        if t.reaches(a.process) {
            ledger::release(&mut t.ledger, &a, self.config.rules);
            t.acts[i] = Act::default();
            self.push("gives its slot back and leaves", a.process, a.record, t, None);
        }
    }
}

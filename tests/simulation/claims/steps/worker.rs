//! What a worker does with a delivered token, from admission to handing in.

use super::super::checks;
use super::super::flaws::Flaw;
use super::super::ledger::{self, Ask, Start, Verdict, Which};
use super::super::state::*;
use super::Steps;

impl Steps<'_> {
    /// The owner of a partition gets each incomplete record once per lease.
    pub(super) fn deliveries(&mut self) {
        let s = *self.from;
        let Some(free) = s.free_act() else { return };
        for (i, r) in s.records.iter().enumerate() {
            if r.life != Life::Incomplete || r.kind == Kind::Item {
                continue;
            }
            let owner = s.owner[s.partition(i as u8)];
            let in_hand = s.acts.iter().any(|a| a.at != At::Gone && a.lease && a.record == i as u8);
            if owner == NOBODY || in_hand || !s.processes[owner as usize].up {
                continue;
            }
            let mut t = s;
            t.acts[free] = Act {
                at: At::Admit,
                process: owner,
                record: i as u8,
                id: s.fresh_number(),
                lease: true,
                ..Act::default()
            };
            self.push("is handed", owner, i as u8, t, None);
        }
    }

    /// A ledger that forgets breaks every connection. Whoever comes back to it first asks
    /// the log whether its lease still holds: a zombie must not claim what its heir has given up.
    pub(super) fn confirm(&mut self, i: usize) -> bool {
        let mut t = *self.from;
        let a = t.acts[i];
        if !a.unsure {
            return true;
        }
        if a.lease {
            t.acts[i].unsure = false;
            self.push("has its lease confirmed by the log", a.process, a.record, t, None);
        }
        false
    }

    pub(super) fn worker(&mut self, i: usize) {
        match self.from.acts[i].at {
            At::Admit => self.admit(i),
            At::Run => self.run(i),
            At::GoCall => self.go_call(i),
            At::GoEffect => self.go_effect(i),
            At::Look => self.look(i),
            At::Release => self.release(i),
            _ => {}
        }
    }

    fn admit(&mut self, i: usize) {
        let s = *self.from;
        let a = s.acts[i];
        if !self.confirm(i) || !s.reaches(a.process) {
            return;
        }
        let rules = self.config.rules;
        let token = s.records[a.record as usize];
        let version = s.processes[a.process as usize].version;
        let number = s.fresh_number();
        let ask = Ask { token, version, process: a.process, id: a.id, held: a.fence, number, decision: None };
        let refused = self.config.poison && version == 1 && token.print == 0;
        let mut t = s;
        let verdict = if refused {
            ledger::refuse(&mut t.ledger, ask, rules, a.record)
        } else {
            ledger::admit(&mut t.ledger, ask, rules, |p| s.processes[p as usize].up)
        };
        if s.budget.lost_replies > 0 && t.ledger != s.ledger {
            let mut lost = t;
            lost.budget.lost_replies -= 1;
            self.fault(
                "asks for admission, is granted it, and the reply is lost",
                a.process,
                a.record,
                lost,
                None,
            );
        }
        let fence = if rules.has(Flaw::FenceCounts) { t.ledger.entry.fence } else { ask.number };
        // A chain whose effect may have run cannot be refused any more.
        let granted = matches!(verdict, Verdict::Fresh | Verdict::Resumed);
        let refused = refused
            && !(granted
                && self.config.effect
                && !rules.has(Flaw::EndsPastEffect)
                && ledger::bar(&mut t.ledger, &a, fence) != Start::Done);
        let act = &mut t.acts[i];
        let (what, broken) = match verdict {
            Verdict::Wait => return,
            Verdict::Invalid => {
                (act.at, act.ending) = (At::HandIn, Ending::Bury);
                ("is told that its token is malformed", Some(checks::Broken::TokenInvalid))
            }
            Verdict::Fresh | Verdict::Resumed if refused => {
                (act.at, act.ending) = (At::HandIn, Ending::Outcome);
                (
                    "refuses the payload of its own chain: the dead letter will be the outcome",
                    checks::after_grant(&mut t, a.record),
                )
            }
            Verdict::Fresh | Verdict::Resumed => {
                (act.at, act.fence) = (At::Run, fence);
                let what =
                    if verdict == Verdict::Fresh { "is admitted: Fresh" } else { "is admitted: Resumed" };
                (what, checks::after_grant(&mut t, a.record))
            }
            Verdict::Silent | Verdict::Told => {
                (act.at, act.ending) = (At::HandIn, Ending::Silent);
                ("is told to be silent", None)
            }
            Verdict::Conflict => {
                (act.at, act.ending) = (At::HandIn, Ending::Bury);
                ("is told that its payload conflicts", checks::after_conflict(&s, &a))
            }
            Verdict::Refused => {
                (act.at, act.ending) = (At::HandIn, Ending::Bury);
                ("will bury the record under its own coordinates", None)
            }
        };
        // Whoever is not granted the key has given its slots back in the same script.
        if granted && t.acts[i].at == At::HandIn {
            ledger::release(&mut t.ledger, &a, rules);
        }
        self.push(what, a.process, a.record, t, broken);
    }

    fn run(&mut self, i: usize) {
        let s = *self.from;
        let a = s.acts[i];
        let reach = s.reaches(a.process);
        let (call, effect) = (a.call, a.effect);
        let needs_effect = self.config.effect && effect == Have::Nothing;
        if call == Have::Held || effect == Have::Held {
            let which = if call == Have::Held { Which::Call } else { Which::Effect };
            if reach {
                self.store(i, which);
            } else if !a.void && !needs_effect {
                self.ends(i, Ending::Outcome, "cannot reach the ledger and hands in an outcome all the same");
            }
            if self.has(Flaw::LeavesWithAnswer) && !a.void && !reach {
                self.park(i);
            }
            if self.has(Flaw::EffectInOutage) && !a.void && !reach && needs_effect {
                let mut t = s;
                t.acts[i].at = At::GoEffect;
                self.push(
                    "starts its effect without the ledger",
                    a.process,
                    a.record,
                    t,
                    Some(checks::Broken::EffectWithoutLedger),
                );
            }
            return;
        }
        if a.void {
            return;
        }
        if call == Have::Nothing {
            self.start(i, Which::Call);
            self.park(i);
        } else if needs_effect {
            self.start(i, Which::Effect);
            self.park(i);
            self.review(i);
        } else {
            self.ends(i, Ending::Outcome, "hands in an outcome");
            self.review(i);
            if self.config.effect {
                self.park(i);
            }
        }
    }

    fn ends(&mut self, i: usize, ending: Ending, what: &'static str) {
        let mut t = *self.from;
        let a = t.acts[i];
        (t.acts[i].at, t.acts[i].ending) = (At::HandIn, ending);
        self.push(what, a.process, a.record, t, None);
    }

    /// No model can serve, or a person must wait for something: the task leaves for the retry topic.
    pub(super) fn park(&mut self, i: usize) {
        let mut t = *self.from;
        let a = t.acts[i];
        if t.budget.parks == 0 || t.free_record().is_none() {
            return;
        }
        let unsent = a.call != Have::Held && holds_slot(&t, &a);
        if unsent && !self.has(Flaw::ParkKeepsSlot) {
            if !t.reaches(a.process) {
                return;
            }
            ledger::release(&mut t.ledger, &a, self.config.rules);
        }
        t.budget.parks -= 1;
        t.acts[i].late = false;
        (t.acts[i].at, t.acts[i].ending) = (At::HandIn, Ending::Park);
        self.fault("decides to park", a.process, a.record, t, None);
    }

    fn review(&mut self, i: usize) {
        let mut t = *self.from;
        let a = t.acts[i];
        if t.budget.reviews == 0 || t.free_record().is_none() {
            return;
        }
        t.budget.reviews -= 1;
        if self.config.effect && a.effect == Have::Nothing && !self.has(Flaw::EndsPastEffect) {
            // Whoever holds the fence may settle it; others learn that they are stale when they try.
            if !t.reaches(a.process) || a.unsure || ledger::bar(&mut t.ledger, &a, a.fence) != Start::Done {
                return;
            }
        }
        (t.acts[i].at, t.acts[i].ending) = (At::HandIn, Ending::Review);
        self.fault("decides to ask a person", a.process, a.record, t, None);
    }

    /// An act learns, sooner or later, that its lease is void, and leaves in order.
    pub(super) fn notices_void(&mut self, i: usize) {
        let mut t = *self.from;
        let a = t.acts[i];
        if a.lease || a.void || matches!(a.at, At::Gone | At::Mark | At::MarkReview | At::Release) {
            return;
        }
        let act = &mut t.acts[i];
        act.void = true;
        act.late = false;
        act.unsure = false;
        act.ending = Ending::None;
        act.at = At::Run;
        if act.call != Have::Held && act.effect != Have::Held {
            if holds_slot(self.from, &a) {
                act.at = At::Release;
            } else {
                *act = Act::default();
            }
        }
        self.push("notices that its lease is void", a.process, a.record, t, None);
    }
}

/// The process cannot know this after a lost reply; it releases in any case, and releasing nothing is harmless.
fn holds_slot(s: &State, a: &Act) -> bool {
    let e = &s.ledger.entry;
    [e.call, e.effect].iter().any(|slot| slot.state == SlotState::Started && !slot.dead && slot.nonce == a.id)
}

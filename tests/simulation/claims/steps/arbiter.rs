//! The arbiter: which decision decides a review item.

use super::super::checks;
use super::super::flaws::Flaw;
use super::super::ledger::{self, Ask, Verdict};
use super::super::state::*;
use super::Steps;

impl Steps<'_> {
    pub(super) fn arbiter(&mut self, i: usize) {
        let s = *self.from;
        let a = s.acts[i];
        if a.at != At::Admit || !self.confirm(i) || !s.reaches(a.process) {
            return;
        }
        let decision = s.records[a.record as usize];
        let mut t = s;
        let own_claim = self.has(Flaw::ReviewHasOwnClaim);
        let claimed = if own_claim {
            s.ledger.review.phase != Phase::Absent && s.ledger.review.origin == a.record
        } else {
            s.ledger.entry.decider == a.record + 1
        };
        let first = s.records.iter().position(|r| r.kind == Kind::Decision) == Some(a.record as usize);
        let invalid = first && s.history.revoked && (!claimed || self.has(Flaw::DecisionJudgedTwice));
        if invalid {
            let annul = claimed && own_claim && s.ledger.review.phase == Phase::Open;
            t.acts[i].at = At::HandIn;
            t.acts[i].ending = if annul { Ending::Annul } else { Ending::Bury };
            self.push("finds the decision invalid", a.process, a.record, t, None);
            return;
        }
        let verdict = if own_claim {
            ledger::admit_decision(&mut t.ledger, a.record)
        } else {
            let token = s.records[decision.about as usize];
            let version = s.processes[a.process as usize].version;
            let (number, decision) = (s.fresh_number(), Some(a.record));
            let ask = Ask { token, version, process: a.process, id: a.id, held: a.fence, number, decision };
            ledger::admit(&mut t.ledger, ask, self.config.rules, |_| false)
        };
        if s.budget.lost_replies > 0 && t.ledger != s.ledger {
            let mut lost = t;
            lost.budget.lost_replies -= 1;
            self.fault("claims the item, and the reply is lost", a.process, a.record, lost, None);
        }
        let decided_by = (t.ledger.entry.decider as usize).checked_sub(1);
        let act = &mut t.acts[i];
        act.at = At::HandIn;
        let mut broken = None;
        let what = match verdict {
            Verdict::Wait => return,
            Verdict::Invalid => {
                act.ending = Ending::BuryItem;
                broken = Some(checks::Broken::TokenInvalid);
                "is told that the token of its item is malformed"
            }
            Verdict::Fresh | Verdict::Resumed => {
                act.ending = Ending::Decide;
                broken = checks::after_grant(&mut t, a.record);
                "decides the item"
            }
            Verdict::Silent => {
                act.ending = Ending::Silent;
                "is told that the task is past this item"
            }
            // The same partition holds both, so its owner knows whether the decider has published.
            Verdict::Told if decided_by.is_some_and(|d| s.records[d].life == Life::Complete) => {
                act.ending = Ending::Silent;
                "is told that another decision has decided this item"
            }
            Verdict::Conflict => {
                act.ending = Ending::BuryItem;
                "is told that the key belongs to another payload"
            }
            _ => {
                act.ending = Ending::Bury;
                "is told that another decision counts"
            }
        };
        self.push(what, a.process, a.record, t, broken);
    }
}

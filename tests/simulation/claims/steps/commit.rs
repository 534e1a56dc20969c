//! Handing in, the atomic commit, and the marks that follow it.

use super::super::checks::{self, Broken};
use super::super::flaws::{Flaw, Rules};
use super::super::ledger::{self, Which};
use super::super::state::*;
use super::Steps;

impl Steps<'_> {
    pub(super) fn hand_in(&mut self, i: usize) {
        let s = *self.from;
        let a = s.acts[i];
        if a.lease {
            let mut t = s;
            let broken = land(&mut t, i, self.config.rules);
            self.push("commit becomes visible", a.process, a.record, t, broken);
        }
        // A held answer is stored whether or not its task has been handed in.
        if a.call == Have::Held && s.reaches(a.process) {
            self.store(i, Which::Call);
        }
        if self.has(Flaw::ClosesBeforeVisible) && a.ending == Ending::Outcome && s.reaches(a.process) {
            let mut t = s;
            let token = s.records[a.record as usize];
            ledger::close(&mut t.ledger, &token, s.fresh_number(), self.config.rules);
            self.push("closes the claim before the commit is visible", a.process, a.record, t, None);
        }
    }

    pub(super) fn marks(&mut self, i: usize) {
        let s = *self.from;
        let a = s.acts[i];
        let arrives = if a.process == NOBODY { s.ledger_up } else { s.reaches(a.process) };
        if !arrives {
            return;
        }
        let mut t = s;
        if a.at == At::MarkReview {
            t.ledger.review.phase = Phase::Closed;
            t.acts[i] = Act::default();
            self.push("closes the claim of the review item", a.process, a.record, t, None);
            return;
        }
        let what = mark(&mut t, &a, self.config.rules);
        if s.budget.lost_replies > 0 {
            let mut lost = t;
            lost.budget.lost_replies -= 1;
            self.fault("tells the ledger and the acknowledgement is lost", a.process, a.record, lost, None);
        }
        t.records[a.record as usize].mark = Mark::Acknowledged;
        let two = self.has(Flaw::ReviewHasOwnClaim) && a.ending == Ending::Decide;
        t.acts[i] = if two { Act { at: At::MarkReview, ..a } } else { Act::default() };
        self.push(what, a.process, a.record, t, None);
    }
}

fn mark(t: &mut State, a: &Act, rules: Rules) -> &'static str {
    let number = t.fresh_number();
    let record = t.records[a.record as usize];
    let l = &mut t.ledger;
    match a.ending {
        Ending::Outcome => {
            ledger::close(l, &record, number, rules);
            "closes the claim"
        }
        Ending::Park => {
            ledger::moved(l, &record, record.hop + 1, Phase::Open, number, rules);
            "marks the chain as moved"
        }
        Ending::Review => {
            ledger::moved(l, &record, record.hop + 1, Phase::Waiting, number, rules);
            "marks the chain as waiting"
        }
        _ => {
            let item = t.records[record.about as usize];
            if record.print == 0 {
                ledger::close(l, &item, number, rules);
                "closes the claim after a decision"
            } else {
                ledger::moved(l, &item, item.hop + 1, Phase::Open, number, rules);
                "marks the chain as resumed"
            }
        }
    }
}

/// The commit of act `i` becomes visible: completion and outputs in one step.
pub(super) fn land(t: &mut State, i: usize, rules: Rules) -> Option<Broken> {
    let a = t.acts[i];
    let r = a.record as usize;
    let record = t.records[r];
    t.records[r].life = Life::Complete;
    let mut owes = true;
    match a.ending {
        Ending::Outcome => publish(t, &record),
        Ending::Park => append(t, Kind::Token, &record, rules),
        Ending::Review => append(t, Kind::Item, &record, rules),
        Ending::Decide => {
            let item = t.records[record.about as usize];
            complete_item(t, &item);
            if record.print == 0 { publish(t, &item) } else { append(t, Kind::Token, &item, rules) }
        }
        Ending::Bury => {
            if record.kind != Kind::Decision {
                t.records[record.origin as usize].buried = true;
            }
            owes = false;
        }
        Ending::Annul => owes = false,
        Ending::BuryItem => {
            let item = t.records[record.about as usize];
            complete_item(t, &item);
            t.records[item.origin as usize].buried = true;
            owes = false;
        }
        Ending::Silent if record.kind == Kind::Decision && !rules.has(Flaw::OvertakenItemsStay) => {
            // Nobody can decide it any more, so nobody should be asked.
            let item = t.records[record.about as usize];
            complete_item(t, &item);
            owes = false;
        }
        Ending::Silent | Ending::None => owes = false,
    }
    t.records[r].mark = if owes { Mark::Owed } else { Mark::NotNeeded };
    t.acts[i] = match a.ending {
        Ending::Annul => Act { at: At::MarkReview, ..a },
        _ if owes => Act { at: At::Mark, ..a },
        _ => Act::default(),
    };
    checks::after_commit(t)
}

fn publish(t: &mut State, token: &Record) {
    let n = &mut t.outcomes[token.generation as usize][token.print as usize];
    *n = (*n + 1).min(2);
}

/// Items of one id (generation, origin, hop) are one item to everybody who reads them.
fn complete_item(t: &mut State, item: &Record) {
    let id = |r: &Record| (r.kind, r.generation, r.origin, r.hop);
    t.records.iter_mut().filter(|r| id(r) == id(item)).for_each(|r| r.life = Life::Complete);
}

fn append(t: &mut State, kind: Kind, from: &Record, rules: Rules) {
    let Some(free) = t.free_record() else { panic!("a configuration needs more room for records") };
    t.records[free] = Record {
        kind,
        generation: from.generation,
        origin: from.origin,
        hop: from.hop + 1,
        print: from.print,
        proof: from.proof && !rules.has(Flaw::TokensDropProof),
        life: Life::Incomplete,
        ..Record::default()
    };
}

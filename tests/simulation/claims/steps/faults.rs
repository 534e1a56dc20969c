//! What the environment may do, each within its budget.

use super::super::flaws::Flaw;
use super::super::ledger;
use super::super::state::*;
use super::Steps;
use super::commit::land;
use super::time::instance_ends;

impl Steps<'_> {
    pub(super) fn faults(&mut self) {
        let b = self.from.budget;
        if b.crashes > 0 {
            (0..PROCESSES as u8).for_each(|p| self.crash(p));
        }
        if b.moves > 0 {
            self.moves();
        }
        if b.cuts > 0 {
            self.cuts();
        }
        if b.outages > 0 && self.from.ledger_up {
            let mut t = *self.from;
            t.budget.outages -= 1;
            t.ledger_up = false;
            t.history.outage = true;
            t.processes.iter_mut().for_each(|p| p.settled = false);
            self.fault("the ledger cannot be reached by anyone", NOBODY, NOBODY, t, None);
        }
        if b.forgets > 0 {
            self.forgets();
        }
        if b.amnesias > 0 {
            self.amnesia();
        }
        if b.redrives > 0 {
            self.redrives();
        }
        if b.expiries > 0 {
            self.expiries();
        }
        if b.deploys > 0 {
            let mut t = *self.from;
            t.budget.deploys -= 1;
            t.history.deployed = true;
            self.fault(
                "a new version is rolled out; processes take it when they restart",
                NOBODY,
                NOBODY,
                t,
                None,
            );
        }
        if b.revocations > 0 && self.from.records.iter().any(|r| r.kind == Kind::Decision) {
            let mut t = *self.from;
            t.budget.revocations -= 1;
            t.history.revoked = true;
            self.fault("the first decider loses the right to decide", NOBODY, NOBODY, t, None);
        }
    }

    /// What was sent just before may still happen: a commit, or the marks of an earlier one.
    fn crash(&mut self, p: u8) {
        let s = *self.from;
        if !s.processes[p as usize].up {
            return;
        }
        let mut t = s;
        t.budget.crashes -= 1;
        t.history.crashed = true;
        let is_mark = |a: &Act| matches!(a.at, At::Mark | At::MarkReview) && a.process == p;
        let is_commit = |a: &Act| a.at == At::HandIn && a.process == p && a.lease;
        let mut variants = vec![("crashes", t)];
        if s.acts.iter().any(is_mark) {
            let mut v = t;
            v.acts.iter_mut().filter(|a| is_mark(a)).for_each(|a| a.process = NOBODY);
            variants.push(("crashes; what it told the ledger is still under way", v));
        }
        let mut broken = None;
        if s.acts.iter().any(is_commit) {
            let mut v = t;
            for i in 0..ACTS {
                if is_commit(&s.acts[i]) {
                    broken = broken.or(land(&mut v, i, self.config.rules));
                }
            }
            variants.push(("crashes; its commit becomes visible all the same", v));
        }
        for (n, (what, mut v)) in variants.into_iter().enumerate() {
            let found = if n > 0 { broken } else { None };
            for a in v.acts.iter_mut().filter(|a| a.process == p) {
                *a = Act::default();
            }
            instance_ends(&mut v, p);
            v.processes[p as usize] = Process::default();
            let heir = (0..PROCESSES as u8).find(|&q| v.processes[q as usize].up).unwrap_or(NOBODY);
            v.owner.iter_mut().filter(|o| **o == p).for_each(|o| *o = heir);
            self.fault(what, p, NOBODY, v, found);
        }
    }

    /// Also to the same process again: a session lost and found.
    fn moves(&mut self) {
        let s = *self.from;
        for part in 0..PARTITIONS {
            let here = |i: usize| s.records[i].life == Life::Incomplete && s.partition(i as u8) == part;
            if !(0..RECORDS).any(here) {
                continue;
            }
            let others_first = (0..PROCESSES as u8)
                .map(|n| (s.owner[part].wrapping_add(1).wrapping_add(n)) % PROCESSES as u8);
            for p in others_first.filter(|&p| s.processes[p as usize].up) {
                let mut t = s;
                t.budget.moves -= 1;
                t.owner[part] = p;
                for a in t.acts.iter_mut().filter(|a| a.at != At::Gone && s.partition(a.record) == part) {
                    a.lease = false;
                }
                let record = (0..RECORDS).find(|&i| here(i)).map_or(NOBODY, |i| i as u8);
                self.fault("gets the partition of", p, record, t, None);
            }
        }
    }

    fn cuts(&mut self) {
        for p in 0..PROCESSES {
            let mut t = *self.from;
            if t.processes[p].up && t.processes[p].linked {
                t.budget.cuts -= 1;
                t.processes[p].linked = false;
                t.processes[p].settled = false;
                self.fault("is cut off from the ledger", p as u8, NOBODY, t, None);
            }
        }
    }

    /// The ledger returns to how it was at some earlier moment, heartbeats included.
    fn forgets(&mut self) {
        let s = *self.from;
        let mut t = s;
        if !s.has_snapshot {
            t.has_snapshot = true;
            t.snapshot = s.ledger;
            self.fault("(later, the ledger will have forgotten all that follows)", NOBODY, NOBODY, t, None);
        } else if s.snapshot != s.ledger {
            t.snapshot = Ledger::default();
            t.has_snapshot = false;
            self.returns_to(t, s.snapshot, "the ledger forgets");
        }
        if self.config.flapping && s.ledger != Ledger::default() {
            self.returns_to(s, Ledger::default(), "the ledger comes back empty");
        }
    }

    fn returns_to(&mut self, mut t: State, ledger: Ledger, what: &'static str) {
        t.ledger = ledger;
        t.budget.forgets -= 1;
        t.history.forgot = true;
        for p in &mut t.processes {
            p.settled = false;
            p.lapsed = p.up;
        }
        if !self.has(Flaw::AsksBeforeLeaseConfirmed) {
            let asks = |a: &Act| {
                !a.void && matches!(a.at, At::Admit | At::Run | At::GoCall | At::GoEffect | At::Look)
            };
            t.acts.iter_mut().filter(|a| asks(a)).for_each(|a| a.unsure = true);
        }
        self.fault(what, NOBODY, NOBODY, t, None);
    }

    fn amnesia(&mut self) {
        let s = *self.from;
        for part in 0..PARTITIONS {
            let mut t = s;
            let mut hit = NOBODY;
            for i in 0..RECORDS {
                let r = &mut t.records[i];
                if r.life == Life::Complete && r.kind != Kind::Item && s.partition(i as u8) == part {
                    (r.life, r.again) = (Life::Incomplete, true);
                    hit = i as u8;
                }
            }
            if hit != NOBODY {
                t.budget.amnesias -= 1;
                self.fault("amnesia: complete records of this partition come back:", NOBODY, hit, t, None);
            }
        }
    }

    /// An outcome is redriven as the next generation, a record that never owned its key as it was.
    fn redrives(&mut self) {
        let s = *self.from;
        let Some(free) = s.free_record() else { return };
        let mut redrive = |generation: u8, print: u8, proof: bool, what| {
            let mut t = s;
            t.budget.redrives -= 1;
            t.records[free] = Record {
                generation,
                origin: free as u8,
                print,
                proof,
                life: Life::Incomplete,
                ..Record::default()
            };
            self.fault(what, NOBODY, free as u8, t, None);
        };
        for print in [0, 1] {
            if s.outcomes[0][print] > 0 {
                redrive(1, print as u8, true, "an outcome is redriven as generation 1:");
            }
        }
        if s.records.iter().any(|r| r.buried && r.generation == 0 && r.print == 0) && s.outcomes[0] == [0, 0]
        {
            redrive(0, 0, false, "a buried record is redriven at generation 0:");
        }
    }

    fn expiries(&mut self) {
        let s = *self.from;
        // The window is much longer than a mark is retried.
        let told = !s.acts.iter().any(|a| a.at == At::Mark);
        if s.ledger.entry.phase == Phase::Closed && (told || self.has(Flaw::MarksNeverGiveUp)) {
            let mut t = s;
            t.budget.expiries -= 1;
            ledger::expire(&mut t.ledger);
            t.history.expired = true;
            self.fault("the dedupe window of the entry ends", NOBODY, NOBODY, t, None);
        }
        if self.has(Flaw::ReviewHasOwnClaim) && s.ledger.review.phase == Phase::Closed {
            let mut t = s;
            t.budget.expiries -= 1;
            t.ledger.review = ReviewEntry::default();
            self.fault("the dedupe window of the item's own claim ends", NOBODY, NOBODY, t, None);
        }
    }
}

//! What happens by itself: time passes, things heal, people decide.

use super::super::flaws::Flaw;
use super::super::state::*;
use super::Steps;

impl Steps<'_> {
    pub(super) fn time(&mut self) {
        self.healing();
        self.heartbeats();
        self.until_passes();
        self.decisions();
        if self.has(Flaw::SweepsMovedOrigins) {
            self.sweep();
        }
    }

    fn healing(&mut self) {
        let s = *self.from;
        if !s.ledger_up {
            let mut t = s;
            t.ledger_up = true;
            self.push("the ledger can be reached again", NOBODY, NOBODY, t, None);
        }
        for p in 0..PROCESSES as u8 {
            let process = s.processes[p as usize];
            let mut t = s;
            if !process.up {
                let version = u8::from(s.history.deployed);
                t.processes[p as usize] = Process { up: true, linked: true, version, ..Process::default() };
                for owner in t.owner.iter_mut().filter(|o| **o == NOBODY) {
                    *owner = p;
                }
                self.push("starts as a new instance", p, NOBODY, t, None);
            } else if !process.linked {
                t.processes[p as usize].linked = true;
                self.push("reaches the ledger again", p, NOBODY, t, None);
            } else if s.history.deployed
                && process.version == 0
                && s.acts.iter().all(|a| a.at == At::Gone || a.process != p)
            {
                t.processes[p as usize] =
                    Process { up: true, linked: true, version: 1, ..Process::default() };
                instance_ends(&mut t, p);
                self.push("is upgraded while it has nothing in hand", p, NOBODY, t, None);
            }
        }
    }

    fn heartbeats(&mut self) {
        let s = *self.from;
        for p in 0..PROCESSES as u8 {
            let process = s.processes[p as usize];
            if !process.up {
                continue;
            }
            let mut t = s;
            if !process.lapsed && !s.reaches(p) {
                t.processes[p as usize].lapsed = true;
                t.history.cut |= s.ledger_up;
                self.push("its heartbeat lapses", p, NOBODY, t, None);
            } else if process.lapsed && s.reaches(p) {
                t.processes[p as usize].lapsed = false;
                self.push("renews its heartbeat", p, NOBODY, t, None);
            } else if !process.settled && s.reaches(p) && self.others_are_back() {
                t.processes[p as usize].settled = true;
                t.history.cut |= s.processes.iter().any(|q| q.up && !q.linked && q.lapsed);
                self.push("has been in contact with the ledger for one lease", p, NOBODY, t, None);
            }
        }
    }

    /// One lease of contact is long enough for every process that can reach the ledger
    /// to renew its heartbeat, to store what it holds and to tell what it has committed.
    fn others_are_back(&self) -> bool {
        let s = self.from;
        // Who could not be reached for that long has lapsed.
        let back = |q: u8| {
            let process = s.processes[q as usize];
            !process.up || process.linked != process.lapsed
        };
        let holds = |a: &Act| {
            let holds = a.call == Have::Held || a.effect == Have::Held;
            a.process != NOBODY
                && s.reaches(a.process)
                && (a.at == At::Mark || holds && matches!(a.at, At::Run | At::HandIn))
        };
        (0..PROCESSES as u8).all(back) && !s.acts.iter().any(holds)
    }

    /// A call ends by itself before `until`: its owner has then stored, released, or cannot reach the ledger.
    fn until_passes(&mut self) {
        let s = *self.from;
        for effect in [false, true] {
            let e = &s.ledger.entry;
            let slot = if effect { e.effect } else { e.call };
            if slot.state != SlotState::Started || slot.until_passed || slot.dead {
                continue;
            }
            let marking = |a: &Act| a.at == At::Mark && a.process == slot.process;
            let working = s.acts.iter().any(|a| a.at != At::Gone && (a.id == slot.nonce || marking(a)));
            let owner = s.processes[slot.process as usize];
            let late = if self.has(Flaw::UntilWithoutContact) {
                !s.reaches(slot.process)
            } else {
                // With a lease of slack, a process that is late has been out of contact for a lease.
                !s.ledger_up || owner.lapsed
            };
            if working && !late {
                continue;
            }
            let mut t = s;
            let e = &mut t.ledger.entry;
            if effect {
                e.effect.until_passed = true
            } else {
                e.call.until_passed = true
            }
            let at = if effect { At::GoEffect } else { At::GoCall };
            t.acts.iter_mut().filter(|a| a.at == at && a.id == slot.nonce).for_each(|a| a.late = true);
            self.push("'until' passes", NOBODY, NOBODY, t, None);
        }
    }

    fn decisions(&mut self) {
        let s = *self.from;
        let Some(free) = s.free_record() else { return };
        // Commits under way may still need room.
        match (s.room(), s.budget.decisions) {
            (1 | 2, _) | (_, 0) => return self.last_decision(free),
            _ => {}
        }
        let items = (0..RECORDS).filter(|&i| s.records[i].kind == Kind::Item);
        for (item, print) in items.flat_map(|i| [(i, 0), (i, 1)]) {
            let mut t = s;
            t.budget.decisions -= 1;
            t.records[free] = Record {
                kind: Kind::Decision,
                about: item as u8,
                print,
                life: Life::Incomplete,
                ..Record::default()
            };
            let what =
                if print == 0 { "a person decides: this is the outcome" } else { "a person decides: go on" };
            let late = s.records[item].life == Life::Complete;
            if late {
                self.fault(what, NOBODY, item as u8, t, None)
            } else {
                self.push(what, NOBODY, item as u8, t, None)
            }
        }
    }

    /// When all is quiet somebody decides what is still open, whatever the budget says.
    fn last_decision(&mut self, free: usize) {
        let s = *self.from;
        let waiting = |r: &Record| r.kind != Kind::Item && r.life == Life::Incomplete;
        if s.records.iter().any(waiting) || s.acts.iter().any(|a| a.at != At::Gone) {
            return;
        }
        let open = |i: &usize| s.records[*i].kind == Kind::Item && s.records[*i].life == Life::Incomplete;
        let Some(item) = (0..RECORDS).find(open) else { return };
        let mut t = s;
        t.records[free] =
            Record { kind: Kind::Decision, about: item as u8, life: Life::Incomplete, ..Record::default() };
        self.push("a person decides: this is the outcome", NOBODY, item as u8, t, None);
    }

    fn sweep(&mut self) {
        let mut t = *self.from;
        let e = t.ledger.entry;
        let origin = t.records[e.origin as usize];
        let published = t.outcomes[e.generation as usize] != [0, 0];
        if published
            || !matches!(e.phase, Phase::Open | Phase::Waiting)
            || origin.life != Life::Complete
            || origin.mark == Mark::NotNeeded
        {
            return;
        }
        let n = &mut t.outcomes[e.generation as usize][origin.print as usize];
        *n = (*n + 1).min(2);
        t.ledger.entry = Entry {
            phase: Phase::Closed,
            fence: 0,
            holder: 0,
            call: Slot::default(),
            effect: Slot::default(),
            ..e
        };
        let broken = super::super::checks::after_commit(&t);
        self.push("the sweep dead-letters the claim as orphaned", NOBODY, e.origin, t, broken);
    }
}

/// Its started slots now belong to a dead instance; nobody will answer for them.
pub(super) fn instance_ends(t: &mut State, p: u8) {
    for l in [&mut t.ledger, &mut t.snapshot] {
        for slot in [&mut l.entry.call, &mut l.entry.effect] {
            if slot.state == SlotState::Started && slot.process == p {
                *slot = slot.orphaned();
            }
        }
    }
}

//! What there is: the log, the ledger, the processes, the outside world.
//! Plain data that can be copied, compared and hashed; nothing here decides anything.

use std::hash::Hash;

pub(crate) use super::super::{ACTS, PROCESSES, RECORDS};

pub(crate) const NOBODY: u8 = 255;
/// A fingerprint that the ledger does not know.
pub(crate) const UNKNOWN: u8 = 255;

/// The source records have fixed places; everything appended later follows them.
pub(crate) const A: u8 = 0;
pub(crate) const B: u8 = 1;
pub(crate) const C: u8 = 2;

/// Partitions: 0 holds A; 1 holds B, C and redrives; 2 is internal; 3 holds decisions.
pub(crate) const PARTITIONS: usize = 4;

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub(crate) enum Kind {
    #[default]
    Source,
    Token,
    Item,
    Decision,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub(crate) enum Life {
    #[default]
    Absent,
    Incomplete,
    Complete,
}

/// What the ledger knows of a visible commit. `Owed` covers late and lost alike.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub(crate) enum Mark {
    #[default]
    NotNeeded,
    Owed,
    Acknowledged,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub(crate) struct Record {
    pub(crate) kind: Kind,
    pub(crate) generation: u8,
    pub(crate) origin: u8,
    pub(crate) hop: u8,
    pub(crate) print: u8,
    pub(crate) proof: bool,
    /// For a decision: the review item. The first decision of a run may lose its right.
    pub(crate) about: u8,
    pub(crate) life: Life,
    pub(crate) mark: Mark,
    /// Dead-lettered under its own coordinates.
    pub(crate) buried: bool,
    /// It was complete once and came back (amnesia).
    pub(crate) again: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub(crate) enum SlotState {
    #[default]
    Free,
    Started,
    Stored,
    /// The task ends or asks a person without it; nobody may start it at this hop.
    Barred,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub(crate) struct Slot {
    pub(crate) state: SlotState,
    pub(crate) process: u8,
    pub(crate) nonce: u8,
    /// Nobody that lives will answer for it: its owner has died, or (process NOBODY) given it up.
    pub(crate) dead: bool,
    pub(crate) until_passed: bool,
    /// Its owner was told `Unknown`, not `Go`: it looks, it does not run.
    pub(crate) doubt: bool,
    /// How often the journal says that it was granted again.
    pub(crate) times: u8,
    /// The hop at which it was barred. Only the checks read it.
    pub(crate) barred_at: u8,
}

impl Slot {
    /// Its owner has died.
    pub(crate) fn orphaned(self) -> Slot {
        Slot { state: SlotState::Started, dead: true, times: self.times, ..Slot::default() }
    }

    /// Its owner lives, but has left it in doubt.
    pub(crate) fn given_up(self) -> Slot {
        Slot { process: NOBODY, ..self.orphaned() }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub(crate) enum Phase {
    #[default]
    Absent,
    Open,
    Waiting,
    Closed,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub(crate) struct Entry {
    pub(crate) phase: Phase,
    pub(crate) generation: u8,
    pub(crate) origin: u8,
    pub(crate) hop: u8,
    pub(crate) print: u8,
    /// Whose rule the fingerprint was made by.
    pub(crate) version: u8,
    pub(crate) fence: u8,
    /// Who was admitted last. Only the checks (and one planted bug) read it.
    pub(crate) holder: u8,
    pub(crate) holder_process: u8,
    /// The decision that decides the item at this hop, plus one; 0 is nobody.
    pub(crate) decider: u8,
    pub(crate) call: Slot,
    pub(crate) effect: Slot,
}

/// The separate claim of a review item, as the protocol was first written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub(crate) struct ReviewEntry {
    pub(crate) phase: Phase,
    pub(crate) origin: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub(crate) struct Ledger {
    pub(crate) entry: Entry,
    /// Origins that were refused before they owned the key, one bit each.
    pub(crate) refused: u16,
    pub(crate) review: ReviewEntry,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub(crate) struct Process {
    pub(crate) up: bool,
    pub(crate) linked: bool,
    /// In contact with the ledger, without a break, for one lease.
    pub(crate) settled: bool,
    /// Its heartbeat in the ledger has run out although it lives.
    pub(crate) lapsed: bool,
    pub(crate) version: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub(crate) enum At {
    #[default]
    Gone,
    Admit,
    Run,
    GoCall,
    GoEffect,
    Look,
    Release,
    HandIn,
    Mark,
    MarkReview,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub(crate) enum Have {
    #[default]
    Nothing,
    /// In memory only.
    Held,
    /// In memory, and the ledger has it.
    Kept,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub(crate) enum Ending {
    #[default]
    None,
    Outcome,
    Silent,
    Bury,
    Park,
    Review,
    Decide,
    /// A decision for an item whose key belongs to another payload by now (the ledger forgot).
    BuryItem,
    /// A claimed decision that is refused later (only as first written).
    Annul,
}

/// One process at work on one delivery of one record.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub(crate) struct Act {
    pub(crate) at: At,
    /// NOBODY: a mark that is still in the network after its process died.
    pub(crate) process: u8,
    pub(crate) record: u8,
    /// Also the nonce of its slots.
    pub(crate) id: u8,
    pub(crate) fence: u8,
    pub(crate) call: Have,
    pub(crate) effect: Have,
    pub(crate) lease: bool,
    /// It knows that its lease is void.
    pub(crate) void: bool,
    /// Its slot's 'until' has passed before the request was sent.
    pub(crate) late: bool,
    /// The ledger was lost and found; the log has not confirmed the lease since.
    pub(crate) unsure: bool,
    pub(crate) ending: Ending,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub(crate) struct Budget {
    pub(crate) crashes: u8,
    pub(crate) moves: u8,
    pub(crate) lost_replies: u8,
    pub(crate) cuts: u8,
    pub(crate) outages: u8,
    pub(crate) forgets: u8,
    pub(crate) amnesias: u8,
    pub(crate) parks: u8,
    pub(crate) reviews: u8,
    pub(crate) decisions: u8,
    pub(crate) redrives: u8,
    pub(crate) expiries: u8,
    pub(crate) deploys: u8,
    pub(crate) revocations: u8,
}

/// What has happened; the checks need it to know which limits apply.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub(crate) struct History {
    /// Not history: no limit excuses anything, so that each limit can be shown.
    pub(crate) strict: bool,
    pub(crate) crashed: bool,
    /// A live process was cut off from the ledger past its lease.
    pub(crate) cut: bool,
    pub(crate) outage: bool,
    pub(crate) forgot: bool,
    pub(crate) expired: bool,
    /// A token came back by amnesia and its mark had not reached the ledger.
    pub(crate) amnesia_before_mark: bool,
    pub(crate) deployed: bool,
    pub(crate) revoked: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub(crate) struct State {
    pub(crate) records: [Record; RECORDS],
    pub(crate) owner: [u8; PARTITIONS],
    pub(crate) ledger: Ledger,
    pub(crate) ledger_up: bool,
    pub(crate) snapshot: Ledger,
    pub(crate) has_snapshot: bool,
    pub(crate) processes: [Process; PROCESSES],
    pub(crate) acts: [Act; ACTS],
    /// Visible outcomes by generation and fingerprint.
    pub(crate) outcomes: [[u8; 2]; 2],
    pub(crate) bought: [u8; 2],
    /// Starts that the ledger has counted as repeated.
    pub(crate) counted: [u8; 2],
    pub(crate) effects: [u8; 2],
    pub(crate) budget: Budget,
    pub(crate) history: History,
}

impl State {
    pub(crate) fn reaches(&self, process: u8) -> bool {
        let p = self.processes[process as usize];
        self.ledger_up && p.up && p.linked
    }

    pub(crate) fn partition(&self, record: u8) -> usize {
        match self.records[record as usize].kind {
            Kind::Source => usize::from(record != A),
            Kind::Token | Kind::Item => 2,
            Kind::Decision => 3,
        }
    }

    pub(crate) fn free_record(&self) -> Option<usize> {
        (3..RECORDS).find(|&i| self.records[i].life == Life::Absent)
    }

    pub(crate) fn room(&self) -> usize {
        (3..RECORDS).filter(|&i| self.records[i].life == Life::Absent).count()
    }

    pub(crate) fn free_act(&self) -> Option<usize> {
        self.acts.iter().position(|a| a.at == At::Gone)
    }

    /// A number that nothing in this state uses yet: random bits, for a model.
    pub(crate) fn fresh_number(&self) -> u8 {
        let mut top = 0;
        for l in [&self.ledger, &self.snapshot] {
            let e = &l.entry;
            top = top.max(e.fence).max(e.holder).max(e.call.nonce).max(e.effect.nonce);
        }
        for a in &self.acts {
            top = top.max(a.id).max(a.fence);
        }
        top + 1
    }

    /// Gives equal situations equal bytes: order of acts and names of random numbers carry no meaning.
    pub(crate) fn canonical(mut self, keep_fences: bool) -> State {
        for a in &mut self.acts {
            if a.at == At::Gone {
                *a = Act::default();
            }
            if a.at == At::HandIn {
                a.unsure = false;
            }
            if matches!(a.at, At::Mark | At::MarkReview) {
                *a = Act {
                    at: a.at,
                    process: a.process,
                    record: a.record,
                    ending: a.ending,
                    ..Act::default()
                };
            }
        }
        self.acts.sort_unstable_by_key(|a| {
            (
                a.at == At::Gone,
                a.process,
                a.record,
                a.at,
                (a.lease, a.void, a.late, a.unsure),
                a.call,
                a.effect,
                a.ending,
                a.fence,
                a.id,
            )
        });
        let mut names = [0u8; 256];
        let mut next = 1;
        let mut rename = |n: &mut u8| {
            if *n == 0 {
                return;
            }
            let slot = &mut names[*n as usize];
            if *slot == 0 {
                *slot = next;
                next += 1;
            }
            *n = *slot;
        };
        let mut all = [self.ledger, self.snapshot];
        for l in &mut all {
            let e = &mut l.entry;
            if !keep_fences {
                rename(&mut e.fence);
            }
            rename(&mut e.holder);
            rename(&mut e.call.nonce);
            rename(&mut e.effect.nonce);
        }
        [self.ledger, self.snapshot] = all;
        for a in &mut self.acts {
            rename(&mut a.id);
            if !keep_fences {
                rename(&mut a.fence);
            }
        }
        self
    }
}

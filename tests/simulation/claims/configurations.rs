//! The bounded worlds that are searched. These are small, each around one danger.

use super::checks::Broken;
use super::flaws::{Flaw, Rules};
use super::state::*;

#[derive(Clone, Copy)]
pub(crate) struct Config {
    pub(crate) name: &'static str,
    pub(crate) rules: Rules,
    pub(crate) records: &'static [u8],
    /// The task has an effect after its call.
    pub(crate) effect: bool,
    /// Effects run against a table that admits each key once (SQL); otherwise they are looked at only.
    pub(crate) table: bool,
    /// Payload 0 is refused by version 1 of the program.
    pub(crate) poison: bool,
    /// No stated limit excuses a broken check.
    pub(crate) strict: bool,
    /// The ledger may come back empty and later as it was before that.
    pub(crate) flapping: bool,
    /// Look for this one only.
    pub(crate) only: Option<Broken>,
    pub(crate) budget: Budget,
}

impl Config {
    pub(crate) fn first(&self) -> State {
        let mut s = State {
            owner: [0, 1, PROCESSES as u8 - 1, 0],
            ledger_up: true,
            processes: [Process { up: true, linked: true, settled: true, ..Process::default() }; PROCESSES],
            budget: self.budget,
            ..State::default()
        };
        s.history.strict = self.strict;
        for &i in self.records {
            let print = u8::from(i == C);
            s.records[i as usize] = Record { origin: i, print, life: Life::Incomplete, ..Record::default() };
        }
        s.canonical(self.rules.has(Flaw::FenceCounts))
    }
}

pub(crate) const NONE: Budget = Budget {
    crashes: 0,
    moves: 0,
    lost_replies: 0,
    cuts: 0,
    outages: 0,
    forgets: 0,
    amnesias: 0,
    parks: 0,
    reviews: 0,
    decisions: 0,
    redrives: 0,
    expiries: 0,
    deploys: 0,
    revocations: 0,
};

pub(crate) const BASE: Config = Config {
    name: "",
    rules: Rules::REPAIRED,
    records: &[A, B],
    effect: false,
    table: false,
    poison: false,
    strict: false,
    flapping: false,
    only: None,
    budget: NONE,
};

/// Fast enough for every run of the tests.
pub(crate) fn small() -> Vec<Config> {
    vec![
        Config { name: "one-move", records: &[A], budget: Budget { moves: 1, ..NONE }, ..BASE },
        Config { name: "one-crash", records: &[A], budget: Budget { crashes: 1, ..NONE }, ..BASE },
        Config { name: "one-park", records: &[A], budget: Budget { moves: 1, parks: 1, ..NONE }, ..BASE },
        Config {
            name: "amnesia-park",
            records: &[A],
            budget: Budget { amnesias: 1, parks: 1, ..NONE },
            ..BASE
        },
        Config { name: "conflict-small", records: &[A, C], budget: Budget { redrives: 1, ..NONE }, ..BASE },
        Config {
            name: "redrive-small",
            records: &[A],
            budget: Budget { crashes: 1, redrives: 1, ..NONE },
            ..BASE
        },
        Config {
            name: "outage-small",
            records: &[A],
            budget: Budget { moves: 1, outages: 1, parks: 1, ..NONE },
            ..BASE
        },
        Config {
            name: "poison-small",
            poison: true,
            budget: Budget { moves: 1, deploys: 1, parks: 1, ..NONE },
            ..BASE
        },
        Config { name: "deploy-small", records: &[A, C], budget: Budget { deploys: 1, ..NONE }, ..BASE },
        Config {
            name: "effect-small",
            records: &[A],
            effect: true,
            budget: Budget { crashes: 1, ..NONE },
            ..BASE
        },
        Config {
            name: "effect-review-small",
            records: &[A],
            effect: true,
            budget: Budget { moves: 1, reviews: 1, decisions: 1, ..NONE },
            ..BASE
        },
        Config { name: "forget-small", records: &[A, B], budget: Budget { forgets: 1, ..NONE }, ..BASE },
        Config {
            name: "forget-conflict-small",
            records: &[A, C],
            budget: Budget { forgets: 1, ..NONE },
            ..BASE
        },
        Config {
            name: "forget-effect-small",
            records: &[A],
            effect: true,
            table: true,
            budget: Budget { moves: 1, forgets: 1, ..NONE },
            ..BASE
        },
        Config {
            name: "review-expiry",
            records: &[A],
            budget: Budget { reviews: 1, decisions: 2, expiries: 1, ..NONE },
            ..BASE
        },
        Config {
            name: "review-overtaken",
            records: &[A],
            budget: Budget { amnesias: 1, reviews: 2, decisions: 1, ..NONE },
            ..BASE
        },
        Config {
            name: "forget-redrive-small",
            records: &[A],
            budget: Budget { parks: 1, forgets: 1, redrives: 1, ..NONE },
            ..BASE
        },
        Config {
            name: "revoked-small",
            records: &[A],
            budget: Budget { crashes: 1, reviews: 1, decisions: 2, revocations: 1, ..NONE },
            ..BASE
        },
        Config { name: "forget-copies", budget: Budget { moves: 1, forgets: 1, ..NONE }, ..BASE },
    ]
}

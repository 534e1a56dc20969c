//! Random walks: many faults at once, where a full search cannot go.
//! After a random time the faults stop; then a fair walk must come to a good end.

use super::claims::checks::{self, Broken};
use super::claims::configurations::{BASE, Config};
use super::claims::search::Found;
use super::claims::state::{A, B, Budget, C, State};
use super::claims::steps::{self, Label, Next};

/// Longer than any walk without faults that was ever needed; a walk that is still going is reported.
const CALM_STEPS_MAX: usize = 20_000;

pub(crate) fn walk(config: &Config, seed: u64) -> Result<State, Found> {
    let mut dice = Dice(seed | 1);
    let mut state = config.first();
    let mut path: Vec<(Label, bool)> = vec![];
    let mut out: Vec<Next> = vec![];
    let fault_steps = 20 + dice.below(160);
    // Some walks are full of faults, some have few: rare combinations need both.
    let fault_odds = 2 + dice.below(12);
    for n in 0.. {
        steps::successors(&state, config, &mut out);
        let calm = n >= fault_steps;
        let quiet: Vec<usize> = (0..out.len()).filter(|&i| !out[i].fault && out[i].state != state).collect();
        let loud: Vec<usize> = (0..out.len()).filter(|&i| out[i].fault).collect();
        let want_fault = !calm && !loud.is_empty() && dice.below(fault_odds) == 0;
        let from = if want_fault || (!calm && quiet.is_empty()) { &loud } else { &quiet };
        let over = from.is_empty() || n > fault_steps + CALM_STEPS_MAX;
        if over && checks::is_good_end(&state) {
            return Ok(state);
        }
        if over {
            return Err(Found { broken: Broken::DeadEnd, path, tail: vec![] });
        }
        let next = out[from[dice.below(from.len())]];
        path.push((next.label, next.fault));
        if let Some(broken) = next.broken {
            return Err(Found { broken, path, tail: vec![] });
        }
        state = next.state;
        if calm && checks::is_good_end(&state) {
            return Ok(state);
        }
    }
    unreachable!("the loop ends by returning")
}

/// For random walks: everything at once, far beyond what can be searched.
pub(crate) fn walks() -> Vec<Config> {
    let faults = Budget {
        crashes: 2,
        moves: 3,
        lost_replies: 2,
        cuts: 1,
        outages: 1,
        forgets: 1,
        amnesias: 1,
        parks: 2,
        reviews: 2,
        decisions: 3,
        redrives: 2,
        expiries: 1,
        deploys: 1,
        revocations: 1,
    };
    let calm = Budget { forgets: 0, amnesias: 0, expiries: 0, ..faults };
    let alive = Budget { crashes: 0, cuts: 0, moves: 5, parks: 3, ..calm };
    let all = Config { records: &[A, B, C], budget: faults, ..BASE };
    vec![
        Config { name: "walk: calls", ..all },
        Config { name: "walk: effects", effect: true, ..all },
        Config { name: "walk: effects with a table", effect: true, table: true, ..all },
        Config { name: "walk: poison", poison: true, ..all },
        Config { name: "walk: poison and effects", poison: true, effect: true, ..all },
        Config { name: "walk: no limit reached", budget: calm, ..all },
        Config { name: "walk: no limit reached, effects", effect: true, budget: calm, ..all },
        Config { name: "walk: nobody dies", budget: alive, ..all },
        Config { name: "walk: nobody dies, effects", effect: true, budget: alive, ..all },
    ]
}

/// xorshift: the same seed gives the same walk everywhere.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }
}

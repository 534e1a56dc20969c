//! Three processes and every fault at once: far beyond a search, so random walks.

pub(crate) const PROCESSES: usize = 3;
pub(crate) const RECORDS: usize = 16;
pub(crate) const ACTS: usize = 8;

#[expect(clippy::duplicate_mod, reason = "the sizes of its arrays are the parent's constants")]
#[path = "claims/mod.rs"]
mod claims;
mod walk;

use super::two_processes::left_out;
use claims::configurations::{Config, small};
use claims::flaws::{Flaw, Rules};
use claims::search::search;
use claims::told::story;
use std::time::Instant;

/// In each world; some seconds in all.
const WALKS: u64 = 1500;

fn number(name: &str, default: u64) -> u64 {
    let Ok(value) = std::env::var(name) else { return default };
    value.parse().unwrap_or_else(|_| panic!("{name} is a number, not `{value}`"))
}

/// Neighbouring seeds give walks that have nothing in common.
fn dice(seed: u64) -> u64 {
    seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[test]
fn p1_p2_p3_p4_hold_on_random_walks_with_every_fault_at_once() {
    let (first, walks) = (number("TIDEGATE_SEED", 1), number("TIDEGATE_WALKS", WALKS));
    for config in walk::walks() {
        let began = Instant::now();
        println!("{}: {walks} walks from TIDEGATE_SEED={first}", config.name);
        for seed in first..first + walks {
            if let Err(found) = walk::walk(&config, dice(seed)) {
                panic!("{}: broken with TIDEGATE_SEED={seed}:\n{}", config.name, story(&found));
            }
        }
        println!("    {:.1} s", began.elapsed().as_secs_f64());
    }
}

/// Faults that a walk in some hundred shows. The rarer ones are for the searches.
const OFTEN: [Flaw; 12] = [
    Flaw::SweepsMovedOrigins,
    Flaw::RunningAtOnClaim,
    Flaw::ClosedWithoutPrint,
    Flaw::RedriveNeedsClosed,
    Flaw::OutageLooksLikeDeath,
    Flaw::RefusalForgetsClaim,
    Flaw::ClosesBeforeVisible,
    Flaw::EffectInOutage,
    Flaw::RepeatsUnknownEffect,
    Flaw::ReleaseByFence,
    Flaw::OtherRuleSwallowsConflict,
    Flaw::ReviewHasOwnClaim,
];

#[test]
fn walks_alone_catch_the_faults_that_show_often() {
    let (first, walks) = (number("TIDEGATE_SEED", 1), number("TIDEGATE_WALKS", WALKS));
    for (flaw, name, _, text) in Flaw::ALL.iter().filter(|(flaw, ..)| OFTEN.contains(flaw)) {
        let caught = walk::walks().into_iter().find_map(|config| {
            let config = Config { rules: Rules::REPAIRED.with(*flaw), ..config };
            let mut seeds = first..first + walks;
            seeds.find_map(|seed| Some((seed, walk::walk(&config, dice(seed)).err()?.broken)))
        });
        println!("{name} ({text}): {caught:?}");
        assert!(caught.is_some(), "{name}: not caught by {walks} walks from TIDEGATE_SEED={first}");
    }
}

/// With three, the others have up to half a million states each.
const QUICK: [&str; 6] =
    ["one-move", "one-crash", "one-park", "amnesia-park", "conflict-small", "effect-small"];

#[test]
fn p1_p2_p3_p4_hold_with_three_processes_in_every_state_of_the_worlds_that_are_searched() {
    let all = std::env::var("TIDEGATE_SEARCH").is_ok_and(|v| v == "all");
    let (searched, left): (Vec<Config>, Vec<Config>) =
        small().into_iter().partition(|c| all || QUICK.contains(&c.name));
    if !left.is_empty() {
        let names: Vec<&str> = left.iter().map(|c| c.name).collect();
        left_out(&names, "with three processes, TIDEGATE_SEARCH=all searches them");
    }
    assert!(searched.len() >= QUICK.len(), "a world of the list is gone");
    for config in &searched {
        let report = search(config, 4_000_000);
        println!("{:22} {:>9} states", config.name, report.states);
        if let Some(found) = &report.found {
            panic!("broken in `{}`:\n{}", config.name, story(found));
        }
        assert!(report.finished && report.good_ends > 0, "`{}`", config.name);
    }
}

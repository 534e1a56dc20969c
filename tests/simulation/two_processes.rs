//! Two processes: searched to the end.

pub(crate) const PROCESSES: usize = 2;
pub(crate) const RECORDS: usize = 10;
pub(crate) const ACTS: usize = 5;

#[path = "claims/mod.rs"]
mod claims;
mod largest;
mod limits;
mod middle;

use claims::configurations::{Config, small};
use claims::flaws::{Flaw, Rules};
use claims::search::{Report, search};
use claims::told::story;
use largest::largest;
use middle::middle;
use std::io::Write;
use std::time::Instant;

/// Twice the largest world of its kind; a search that is not finished by then is a failure.
const STATES_MAX: usize = 14_000_000;

fn wanted() -> Option<String> {
    std::env::var("TIDEGATE_SEARCH").ok().filter(|v| !v.is_empty())
}

/// Says which worlds were left out; `tests/run` prints it.
pub(crate) fn left_out(worlds: &[&str], why: &str) {
    let text =
        format!("LEFT OUT IN PART: {} worlds of the search, {why}: {}", worlds.len(), worlds.join(", "));
    note(&text);
}

/// A line that `tests/run` prints at its end.
pub(crate) fn note(text: &str) {
    println!("{text}");
    let Ok(path) = std::env::var("TIDEGATE_TEST_NOTES") else { return };
    let mut file = std::fs::File::options().append(true).create(true).open(path).expect("the file for notes");
    writeln!(file, "{text}").expect("the file for notes");
}

fn worlds() -> Vec<Config> {
    [small(), middle(), largest()].concat()
}

fn run(config: &Config) -> Report {
    let began = Instant::now();
    let report = search(config, STATES_MAX);
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{:22} {:>9} states {:>7} good ends {seconds:>7.2} s {:>9.0} states/s",
        config.name,
        report.states,
        report.good_ends,
        report.states as f64 / seconds
    );
    report
}

/// Searches each to the end; the first broken check is told step by step.
fn hold(worlds: &[Config]) {
    let (began, mut states) = (Instant::now(), 0);
    for config in worlds {
        let report = run(config);
        states += report.states;
        if let Some(found) = &report.found {
            panic!("broken in `{}`:\n{}", config.name, story(found));
        }
        assert!(report.finished, "`{}` has more than {STATES_MAX} states", config.name);
        assert!(report.good_ends > 0, "`{}` never ends", config.name);
    }
    println!("{} worlds, {states} states, {:.1} s", worlds.len(), began.elapsed().as_secs_f64());
}

#[test]
fn p1_p2_p3_p4_hold_in_every_state_of_every_small_world() {
    hold(&small());
}

#[test]
fn p1_p2_p3_p4_hold_in_every_state_of_every_middle_world() {
    hold(&middle());
}

/// The largest worlds that are always searched: those with the fewest states.
const ALWAYS: [&str; 2] = ["moves", "parks"];

#[test]
fn p1_p2_p3_p4_hold_in_every_state_of_the_largest_worlds_that_are_searched() {
    let (searched, left): (Vec<Config>, Vec<Config>) = match wanted().as_deref() {
        None => largest().into_iter().partition(|c| ALWAYS.contains(&c.name)),
        Some("all") => (largest(), vec![]),
        Some(name) => {
            let one: Vec<_> = worlds().into_iter().filter(|c| c.name == name).collect();
            assert_eq!(one.len(), 1, "TIDEGATE_SEARCH is `all` or the name of a world, not `{name}`");
            let others = largest().into_iter().filter(|c| c.name != name).collect();
            (one, others)
        }
    };
    if !left.is_empty() {
        let names: Vec<&str> = left.iter().map(|c| c.name).collect();
        left_out(&names, "minutes and 3 GB, TIDEGATE_SEARCH=all searches them");
    }
    assert!(!searched.is_empty());
    hold(&searched);
}

#[test]
fn each_known_fault_is_caught_when_it_is_put_around_the_rules() {
    let worlds = worlds();
    let mut missed = vec![];
    for (flaw, name, shown_in, text) in Flaw::ALL {
        let world = worlds.iter().find(|c| c.name == *shown_in);
        let Some(world) = world else { panic!("{name} is shown in `{shown_in}`, which is no world") };
        println!("{name}: {text}");
        let report = run(&Config { rules: Rules::REPAIRED.with(*flaw), ..*world });
        match report.found {
            Some(found) => println!("{}", story(&found)),
            None => missed.push(*name),
        }
    }
    assert_eq!(missed, Vec::<&str>::new(), "not caught");
}

#[test]
fn each_limit_that_claims_state_can_be_shown() {
    for config in limits::limits() {
        let report = run(&config);
        let Some(found) = report.found else { panic!("`{}` cannot be reached any more", config.name) };
        println!("{}", story(&found));
    }
}

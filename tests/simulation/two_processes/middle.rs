//! Worlds of some ten to some hundred thousand states: seconds each, so every run searches them.

use super::claims::configurations::{BASE, Config, NONE};
use super::claims::state::{A, B, Budget, C};

pub(crate) fn middle() -> Vec<Config> {
    vec![
        Config { name: "outage", budget: Budget { moves: 1, outages: 1, parks: 1, ..NONE }, ..BASE },
        Config {
            name: "effect-table",
            records: &[A],
            effect: true,
            table: true,
            budget: Budget { crashes: 2, moves: 1, cuts: 1, ..NONE },
            ..BASE
        },
        Config {
            name: "effect-outage",
            records: &[A],
            effect: true,
            budget: Budget { crashes: 1, moves: 1, outages: 1, parks: 1, ..NONE },
            ..BASE
        },
        Config {
            name: "effect-review",
            records: &[A],
            effect: true,
            budget: Budget { crashes: 1, moves: 1, reviews: 1, decisions: 1, parks: 1, ..NONE },
            ..BASE
        },
        Config {
            name: "forget-redrive",
            records: &[A],
            budget: Budget { moves: 1, parks: 1, forgets: 1, redrives: 1, ..NONE },
            ..BASE
        },
        Config {
            name: "forget-effect",
            records: &[A],
            effect: true,
            table: true,
            budget: Budget { crashes: 1, moves: 1, forgets: 1, ..NONE },
            ..BASE
        },
        Config { name: "amnesia", budget: Budget { moves: 1, amnesias: 1, parks: 1, ..NONE }, ..BASE },
        Config {
            name: "amnesia-redrive",
            records: &[A, C],
            budget: Budget { amnesias: 1, parks: 1, redrives: 1, expiries: 1, ..NONE },
            ..BASE
        },
        Config {
            name: "deploy",
            records: &[A, B, C],
            budget: Budget { moves: 1, deploys: 1, ..NONE },
            ..BASE
        },
        Config {
            name: "forget-review",
            records: &[A],
            budget: Budget { forgets: 1, reviews: 1, decisions: 2, ..NONE },
            ..BASE
        },
        Config {
            name: "forget-park-conflict",
            records: &[A, C],
            budget: Budget { forgets: 1, parks: 1, ..NONE },
            ..BASE
        },
        Config {
            name: "poison-review",
            poison: true,
            records: &[A],
            budget: Budget { crashes: 1, deploys: 1, reviews: 1, decisions: 1, ..NONE },
            ..BASE
        },
        Config {
            name: "poison-redrive",
            poison: true,
            budget: Budget { moves: 1, deploys: 1, redrives: 1, ..NONE },
            ..BASE
        },
        Config {
            name: "effect-poison",
            effect: true,
            poison: true,
            records: &[A],
            budget: Budget { crashes: 1, moves: 1, deploys: 1, ..NONE },
            ..BASE
        },
        Config {
            name: "two-redrives",
            records: &[A],
            budget: Budget { crashes: 1, redrives: 2, parks: 1, ..NONE },
            ..BASE
        },
        Config { name: "forget-twice", budget: Budget { forgets: 2, ..NONE }, ..BASE },
        Config { name: "forget-three", records: &[A, B, C], budget: Budget { forgets: 1, ..NONE }, ..BASE },
        Config { name: "forget-parks", budget: Budget { forgets: 1, parks: 1, ..NONE }, ..BASE },
        Config {
            name: "two-reviews",
            records: &[A],
            budget: Budget { crashes: 1, reviews: 2, decisions: 2, ..NONE },
            ..BASE
        },
        Config {
            name: "expiry",
            records: &[A, B, C],
            budget: Budget { crashes: 1, expiries: 1, parks: 1, ..NONE },
            ..BASE
        },
        Config {
            name: "late-answer",
            records: &[A],
            budget: Budget { moves: 1, cuts: 1, redrives: 1, ..NONE },
            ..BASE
        },
    ]
}

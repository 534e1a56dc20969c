//! The largest worlds: minutes and 3 GB in all, so they are searched only when asked for.

use super::claims::configurations::{BASE, Config, NONE};
use super::claims::state::{A, B, Budget, C};

pub(crate) fn largest() -> Vec<Config> {
    vec![
        Config { name: "calls", budget: Budget { crashes: 2, moves: 2, lost_replies: 1, ..NONE }, ..BASE },
        Config {
            name: "moves",
            records: &[A],
            budget: Budget { moves: 3, lost_replies: 2, parks: 1, ..NONE },
            ..BASE
        },
        Config {
            name: "conflict",
            records: &[A, B, C],
            budget: Budget { crashes: 1, moves: 1, redrives: 1, ..NONE },
            ..BASE
        },
        Config {
            name: "parks",
            records: &[A],
            budget: Budget { crashes: 1, moves: 2, parks: 2, ..NONE },
            ..BASE
        },
        Config {
            name: "outage-crash",
            budget: Budget { crashes: 1, moves: 1, outages: 1, cuts: 1, ..NONE },
            ..BASE
        },
        Config {
            name: "cut",
            records: &[A],
            effect: true,
            budget: Budget { moves: 2, cuts: 2, lost_replies: 1, ..NONE },
            ..BASE
        },
        Config {
            name: "effect",
            records: &[A],
            effect: true,
            budget: Budget { crashes: 2, moves: 2, lost_replies: 1, ..NONE },
            ..BASE
        },
        Config {
            name: "review",
            records: &[A],
            budget: Budget { crashes: 1, moves: 1, reviews: 1, decisions: 2, lost_replies: 1, ..NONE },
            ..BASE
        },
        Config {
            name: "review-revoked",
            records: &[A],
            budget: Budget {
                crashes: 1,
                moves: 1,
                reviews: 1,
                decisions: 2,
                revocations: 1,
                expiries: 1,
                ..NONE
            },
            ..BASE
        },
        Config {
            name: "review-amnesia",
            records: &[A],
            budget: Budget { amnesias: 1, moves: 1, reviews: 1, decisions: 2, ..NONE },
            ..BASE
        },
        Config {
            name: "redrive",
            records: &[A],
            budget: Budget { crashes: 2, moves: 1, parks: 1, redrives: 1, ..NONE },
            ..BASE
        },
        Config { name: "forget", budget: Budget { crashes: 1, moves: 1, forgets: 1, ..NONE }, ..BASE },
        Config {
            name: "forget-conflict",
            records: &[A, C],
            budget: Budget { crashes: 1, moves: 1, forgets: 1, ..NONE },
            ..BASE
        },
        Config {
            name: "amnesia-forget",
            records: &[A],
            budget: Budget { amnesias: 1, parks: 1, forgets: 1, redrives: 1, ..NONE },
            ..BASE
        },
        Config {
            name: "poison",
            poison: true,
            records: &[A],
            budget: Budget { crashes: 1, moves: 1, deploys: 1, parks: 1, redrives: 1, ..NONE },
            ..BASE
        },
        Config {
            name: "poison-amnesia",
            records: &[A],
            poison: true,
            budget: Budget { moves: 1, deploys: 1, amnesias: 1, parks: 1, redrives: 1, ..NONE },
            ..BASE
        },
        Config {
            name: "poison-forget",
            poison: true,
            budget: Budget { moves: 1, deploys: 1, forgets: 1, ..NONE },
            ..BASE
        },
        Config {
            name: "forget-cut",
            records: &[A],
            effect: true,
            table: true,
            budget: Budget { forgets: 1, cuts: 1, moves: 1, ..NONE },
            ..BASE
        },
        Config {
            name: "a-bit-of-all",
            records: &[A],
            effect: true,
            budget: Budget { amnesias: 1, reviews: 1, decisions: 1, forgets: 1, ..NONE },
            ..BASE
        },
    ]
}

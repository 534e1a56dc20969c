//! The limits that remain: with no excuse allowed, each can be shown.

use super::claims::checks::Broken;
use super::claims::configurations::{BASE, Config, NONE};
use super::claims::state::{A, Budget};

/// Each shows one limit that remains: with no excuse allowed, the check breaks.
pub(crate) fn limits() -> Vec<Config> {
    let strict = Config { strict: true, ..BASE };
    vec![
        Config {
            name: "limit: forgets, a copy runs again",
            only: Some(Broken::SecondOutcome),
            budget: Budget { forgets: 1, ..NONE },
            ..strict
        },
        Config {
            name: "limit: forgets, a second decision counts",
            records: &[A],
            budget: Budget { forgets: 1, reviews: 1, decisions: 2, ..NONE },
            ..strict
        },
        Config {
            name: "limit: forgets, a call is bought again uncounted",
            records: &[A],
            budget: Budget { forgets: 1, moves: 1, ..NONE },
            ..strict
        },
        Config {
            name: "limit: forgets, an effect without a table runs twice",
            records: &[A],
            effect: true,
            only: Some(Broken::EffectTwice),
            budget: Budget { crashes: 1, forgets: 1, ..NONE },
            ..strict
        },
        Config {
            name: "limit: amnesia before the mark",
            records: &[A],
            budget: Budget { amnesias: 1, ..NONE },
            ..strict
        },
        Config {
            name: "limit: the window has ended",
            only: Some(Broken::SecondOutcome),
            budget: Budget { expiries: 1, ..NONE },
            ..strict
        },
        Config {
            name: "limit: flaps between two pasts",
            flapping: true,
            only: Some(Broken::DeadEnd),
            budget: Budget { forgets: 2, ..NONE },
            ..BASE
        },
        Config {
            name: "limit: cut off between grant and effect",
            records: &[A],
            effect: true,
            budget: Budget { moves: 1, cuts: 1, ..NONE },
            ..strict
        },
    ]
}

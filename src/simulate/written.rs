//! How single values of a scenario file are read: durations, patterns, shares. The reader of the file
//! adds the line to what is wrong.

use crate::settings::quantity;
use regex::Regex;
use serde::de::{Deserialize, Deserializer, Error};
use std::time::Duration;

/// A wait nobody means to sit through: longer ones are mistakes.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// `"1.5s"`, `"200ms"`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Span(pub(super) Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        match quantity::duration(&text) {
            Some(time) if time <= LONGEST => Ok(Span(time)),
            Some(_) => Err(D::Error::custom(format!("`{text}` is more than a day"))),
            None => Err(D::Error::custom(format!("`{text}` is no duration; write `200ms`, `1.5s` or `2m`"))),
        }
    }
}

/// From 0 to 1.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Share(pub(super) f64);

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let share = f64::deserialize(d)?;
        match (0.0..=1.0).contains(&share) {
            true => Ok(Share(share)),
            false => Err(D::Error::custom(format!("{share} is no share; it goes from 0.0 to 1.0"))),
        }
    }
}

/// A regular expression; linear in time, like all of the `regex` crate.
#[derive(Clone, Debug)]
pub(super) struct Pattern(pub(super) Regex);

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Regex::new(&text).map(Pattern).map_err(|e| {
            let why = e.to_string();
            // The last line says what is wrong; the lines above repeat the pattern.
            let last = why.lines().last().unwrap_or_default();
            D::Error::custom(format!(
                "the pattern cannot be read: {}",
                last.strip_prefix("error: ").unwrap_or(last)
            ))
        })
    }
}

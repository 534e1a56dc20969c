//! How long an answer takes: to its first token, and as a whole. Pure: a draw in, a duration out.

use super::draw::Draws;
use super::written::Span;
use serde::Deserialize;
use std::time::Duration;

/// No draw waits longer; a heavy tail has to end somewhere.
const LONGEST: Duration = Duration::from_secs(600);
/// Spread of a lognormal: with 3, one in six takes twenty times the median.
const SIGMA_MAX: f64 = 3.0;

/// `{ fixed = "2s" }`, `{ uniform = ["1s", "3s"] }` or `{ lognormal = { median = "2s", sigma = 0.4 } }`.
#[derive(Clone, Copy, PartialEq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Latency {
    Fixed(Span),
    #[serde(deserialize_with = "between")]
    Uniform(Span, Span),
    #[serde(deserialize_with = "bell")]
    Lognormal(Bell),
}

#[derive(Clone, Copy, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bell {
    pub(super) median: Span,
    pub(super) sigma: f64,
}

fn between<'de, D: serde::Deserializer<'de>>(d: D) -> Result<(Span, Span), D::Error> {
    let (low, high) = <(Span, Span)>::deserialize(d)?;
    match low.0 <= high.0 {
        true => Ok((low, high)),
        false => Err(serde::de::Error::custom("`uniform` goes from the shorter to the longer time")),
    }
}

fn bell<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Bell, D::Error> {
    let bell = Bell::deserialize(d)?;
    match (0.0..=SIGMA_MAX).contains(&bell.sigma) {
        true => Ok(bell),
        false => Err(serde::de::Error::custom(format!("`sigma` goes from 0.0 to {SIGMA_MAX}"))),
    }
}

impl Latency {
    /// `what`: which of a request's times this is.
    pub(super) fn sample(self, draws: &Draws, what: &str) -> Duration {
        let time = match self {
            Latency::Fixed(time) => time.0,
            Latency::Uniform(low, high) => low.0 + (high.0 - low.0).mul_f64(draws.share(what)),
            Latency::Lognormal(bell) => {
                let factor = (bell.sigma * normal(draws, what)).exp();
                Duration::try_from_secs_f64(bell.median.0.as_secs_f64() * factor).unwrap_or(LONGEST)
            }
        };
        time.min(LONGEST)
    }
}

/// Box-Muller; 1 − share is never 0, so the logarithm is finite.
fn normal(draws: &Draws, what: &str) -> f64 {
    let (radius, turn) = (draws.share(what), draws.share(&format!("{what}, turn")));
    (-2.0 * (1.0 - radius).ln()).sqrt() * (std::f64::consts::TAU * turn).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latency(text: &str) -> Latency {
        #[derive(Deserialize)]
        struct File {
            l: Latency,
        }
        toml::from_str::<File>(text).expect("well-formed").l
    }

    fn samples(l: Latency) -> Vec<Duration> {
        let one = |i| l.sample(&Draws::new(7, "m", &format!("s{i}"), 1), "total");
        let mut all: Vec<_> = (0..2_000).map(one).collect();
        all.sort();
        all
    }

    #[test]
    fn samples_follow_their_distribution() {
        let ms = Duration::from_millis;
        let uniform = samples(latency("l = { uniform = ['1s', '3s'] }"));
        assert!(uniform[0] >= ms(1000) && uniform[1999] <= ms(3000));
        assert!((ms(1900)..ms(2100)).contains(&uniform[1000]), "{:?}", uniform[1000]);
        let bell = samples(latency("l = { lognormal = { median = '2s', sigma = 0.5 } }"));
        assert!((ms(1900)..ms(2100)).contains(&bell[1000]), "median {:?}", bell[1000]);
        // 84 % of a lognormal lie below median × e^sigma.
        assert!((ms(3000)..ms(3600)).contains(&bell[1680]), "{:?}", bell[1680]);
        assert_eq!(samples(latency("l = { fixed = '50ms' }"))[7], ms(50));
    }
}

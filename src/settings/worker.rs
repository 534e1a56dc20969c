//! `[worker]` and `[log]` as meant. The keys' meaning, defaults and ranges stand in `raw.rs`.

use super::bounds::{choice, within};
use super::context::Context;
use super::raw::{RawLog, RawWorker};
use std::time::Duration;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WorkerSettings {
    /// Tasks at once.
    pub in_flight: usize,
    /// How long an orderly end waits for calls that run.
    pub drain: Duration,
}

impl WorkerSettings {
    /// `longest_call`: of the models in use.
    pub(super) fn resolve(raw: &RawWorker, longest_call: Duration, cx: &Context<'_>) -> Self {
        let in_flight = within(&raw.in_flight, "worker.in_flight", 1..=100_000, cx.report).unwrap_or(256);
        let hour = Duration::from_secs(3600);
        let drain = within(&raw.drain, "worker.drain", Duration::ZERO..=hour, cx.report);
        WorkerSettings {
            in_flight: usize::try_from(in_flight).unwrap_or(usize::MAX),
            drain: drain.unwrap_or(longest_call),
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogSettings {
    pub format: LogFormat,
    /// As tracing filters are written.
    pub level: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Replaces `log.level`, so that one run can be louder without touching the file.
const LEVEL_VARIABLE: &str = "TIDEGATE_LOG";

impl LogSettings {
    pub(super) fn resolve(raw: &RawLog, cx: &Context<'_>) -> Self {
        let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        let format = choice(&raw.format, "log.format", &formats, cx.report).unwrap_or_default();
        if let Some(given) = raw.level.given()
            && !is_filter(given.get_ref())
        {
            let help = "error, warn, info, debug or trace; or parts such as \"info,tidegate::infer=debug\"";
            cx.report.add(given.span(), "`log.level` is not a level or a filter", help);
        }
        let replaced = (cx.env)(LEVEL_VARIABLE).filter(|level| !level.trim().is_empty());
        if replaced.as_deref().is_some_and(|level| !is_filter(level)) {
            let what = format!("the environment variable {LEVEL_VARIABLE} is not a level or a filter");
            cx.report.whole(
                &what,
                "error, warn, info, debug or trace; or parts such as \"info,tidegate::infer=debug\"",
            );
        }
        LogSettings { format, level: replaced.unwrap_or_else(|| raw.level.or("info".to_owned())) }
    }
}

/// Levels, alone or behind `module=`, between commas.
fn is_filter(text: &str) -> bool {
    let level = |word: &str| ["off", "error", "warn", "info", "debug", "trace"].contains(&word);
    let module =
        |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "_:".contains(c));
    text.split(',').all(|part| match part.trim().split_once('=') {
        Some((target, word)) => module(target) && level(word),
        None => level(part.trim()),
    })
}

#[cfg(test)]
mod tests {
    use super::is_filter;

    #[test]
    fn a_level_may_be_for_a_module_alone() {
        for good in ["info", "info,tidegate::infer=debug", "warn, tidegate=trace"] {
            assert!(is_filter(good), "{good}");
        }
        for bad in ["", "loud", "info,", "tidegate::infer=loud", "=debug", "tidegate"] {
            assert!(!is_filter(bad), "{bad}");
        }
    }
}

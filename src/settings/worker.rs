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

impl LogSettings {
    pub(super) fn resolve(raw: &RawLog, cx: &Context<'_>) -> Self {
        let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        let format = choice(&raw.format, "log.format", &formats, cx.report).unwrap_or_default();
        if let Some(given) = raw.level.given()
            && given.get_ref().parse::<tracing_subscriber::filter::Targets>().is_err()
        {
            let help = "error, warn, info, debug or trace; or parts such as \"info,tidegate::infer=debug\"";
            cx.report.add(given.span(), "`log.level` is not a level or a filter", help);
        }
        LogSettings { format, level: raw.level.or("info".to_owned()) }
    }
}

//! Logs and metrics: every name that leaves the process, with its meaning and unit.
//!
//! Labels are bounded: names from the configuration and words from this code, never a key, a payload
//! or anything a stranger can choose. Logs hold no payloads and no secrets.

use crate::settings::LogFormat;
use metrics::Unit;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::io::IsTerminal as _;
use std::sync::OnceLock;
use tracing_subscriber::EnvFilter;

/// A metric: its name, what it counts, its unit and what it means.
pub struct Described {
    pub name: &'static str,
    pub shape: Shape,
    pub unit: Unit,
    pub what: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    Counter,
    Gauge,
    Histogram,
}

const fn counter(name: &'static str, what: &'static str) -> Described {
    Described { name, shape: Shape::Counter, unit: Unit::Count, what }
}

const fn gauge(name: &'static str, unit: Unit, what: &'static str) -> Described {
    Described { name, shape: Shape::Gauge, unit, what }
}

const fn seconds(name: &'static str, what: &'static str) -> Described {
    Described { name, shape: Shape::Histogram, unit: Unit::Seconds, what }
}

/// Every metric of this process.
pub const METRICS: &[Described] = &[
    counter(
        "tidegate_intake_total",
        "Records that came by HTTP, by kind and answer: accepted, known, refused.",
    ),
    counter(
        "tidegate_outcomes_total",
        "Outcomes that became visible, by kind and what: result, or a dead letter's reason.",
    ),
    counter(
        "tidegate_registry_requests_total",
        "Questions to the schema registry, by what it answered: found, unknown, unusable, away.",
    ),
    counter("tidegate_refused_total", "Records buried under their own coordinates, by reason."),
    counter("tidegate_reviews_opened_total", "Tasks sent to a person, by kind and reason."),
    counter("tidegate_reviews_decided_total", "Decisions handed in by HTTP, by action and ruling."),
    counter("tidegate_parked_total", "Tasks set aside until a time, by kind and why."),
    counter("tidegate_duplicates_total", "Records that completed silently, by kind and why."),
    counter(
        "tidegate_panics_total",
        "Panics that were caught, by part of the process; a task's, a request's, or a part that ended it.",
    ),
    counter(
        "tidegate_ledger_emptied_total",
        "Times that this process found that Redis had lost all it knew of this installation; each counts it.",
    ),
    counter("tidegate_redriven_total", "Dead letters sent again."),
    counter(
        "tidegate_repaired_total",
        "Look-ups that found an outcome whose mark was lost, and sent it again.",
    ),
    counter("tidegate_calls_total", "Requests to models, by model and how they ended."),
    counter("tidegate_calls_repeated_total", "Calls bought again because an earlier one may have been used."),
    gauge(
        "tidegate_spent",
        Unit::Count,
        "Money spent on models since the start, in the unit of the configured prices, by model.",
    ),
    counter(
        "tidegate_retries_total",
        "Tries of the same model again, by model and why the one before failed.",
    ),
    counter("tidegate_fallbacks_total", "Models left for the next of the line-up, by model and why."),
    counter("tidegate_not_permitted_total", "Calls that a model's breaker did not let go, by model."),
    counter(
        "tidegate_breaker_transitions_total",
        "Changes of a model's breaker, by model, state and reason.",
    ),
    gauge("tidegate_breaker_open", Unit::Count, "1 while a model's breaker is not closed, by model."),
    counter("gen_ai_client_token_usage_total", "Tokens as providers report them, by model and type."),
    seconds(
        "gen_ai_client_operation_duration_seconds",
        "From a request to its last byte, by model and error type.",
    ),
    seconds(
        "gen_ai_client_operation_time_to_first_chunk_seconds",
        "From a request to its first token, by model.",
    ),
    counter("tidegate_http_stalled_total", "Connections cut because their client took nothing for 30 s."),
    seconds("tidegate_commit_seconds", "From a completion handed in to its commit visible."),
    seconds("tidegate_http_seconds", "From a request's body read to its answer, by route."),
    gauge("tidegate_reviews_open", Unit::Count, "Review items that wait for a person."),
    gauge("tidegate_records_open", Unit::Count, "Records not complete yet, by topic."),
    gauge("tidegate_kinds_held", Unit::Count, "Kinds whose intake is held because no model can serve them."),
    gauge("tidegate_models_unavailable", Unit::Count, "Models that may not be called now."),
    gauge("tidegate_log_bytes", Unit::Bytes, "Size of the log on disk."),
    gauge("tidegate_ledger_bytes", Unit::Bytes, "Size of the ledger on disk."),
    gauge("tidegate_disk_free_bytes", Unit::Bytes, "Free space where the log lies."),
];

/// From half a millisecond (a commit on a fast disk) to two minutes (the total timeout of a call).
const SECONDS: &[f64] =
    &[0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0];

/// The recorder of this process. Installed once, at the first call.
pub struct Metrics {
    handle: Option<PrometheusHandle>,
}

static INSTALLED: OnceLock<Metrics> = OnceLock::new();

/// The metrics of this process; installs the recorder if nobody has.
pub fn metrics() -> &'static Metrics {
    INSTALLED.get_or_init(|| {
        let builder =
            PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS);
        match builder.and_then(PrometheusBuilder::install_recorder) {
            Ok(handle) => {
                METRICS.iter().for_each(Described::describe);
                Metrics { handle: Some(handle) }
            }
            Err(e) => {
                tracing::warn!(%e, "metrics are off");
                Metrics { handle: None }
            }
        }
    })
}

impl Metrics {
    /// The text that Prometheus scrapes.
    pub fn render(&self) -> String {
        self.handle.as_ref().map(PrometheusHandle::render).unwrap_or_default()
    }

    /// All values of a counter or gauge together, as last rendered; `None` where nothing was counted.
    pub fn sum(&self, name: &str) -> Option<f64> {
        let text = self.render();
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let ours = rest.starts_with(['{', ' ']);
            ours.then(|| rest.rsplit(' ').next()?.parse::<f64>().ok()).flatten()
        });
        let values: Vec<f64> = values.collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }

    /// Drains what histograms have collected; to be called every few seconds.
    pub fn upkeep(&self) {
        if let Some(handle) = &self.handle {
            handle.run_upkeep();
        }
    }
}

impl Described {
    fn describe(&self) {
        match self.shape {
            Shape::Counter => metrics::describe_counter!(self.name, self.unit, self.what),
            Shape::Gauge => metrics::describe_gauge!(self.name, self.unit, self.what),
            Shape::Histogram => metrics::describe_histogram!(self.name, self.unit, self.what),
        }
    }
}

/// Starts the log on standard error. `filter` as tracing writes them (`info`, `tidegate=debug`); a
/// filter that cannot be read is `info`. Later calls change nothing.
pub fn logs(format: LogFormat, filter: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let begun = match format {
        LogFormat::Json => log.json().flatten_event(true).with_current_span(false).try_init(),
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init(),
    };
    // Somebody else's log is as good.
    let _: Result<(), _> = begun;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_metric_has_one_description_and_says_its_unit_in_its_name() {
        let names: BTreeSet<_> = METRICS.iter().map(|m| m.name).collect();
        assert_eq!(names.len(), METRICS.len(), "a metric is described twice");
        for metric in METRICS {
            // OpenTelemetry's names for what it has names for.
            let ours = ["tidegate_", "gen_ai_client_"].iter().any(|p| metric.name.starts_with(p));
            assert!(ours, "{}", metric.name);
            assert!(metric.what.ends_with('.'), "{}", metric.name);
            assert_eq!(metric.shape == Shape::Counter, metric.name.ends_with("_total"), "{}", metric.name);
            assert_eq!(metric.unit == Unit::Seconds, metric.name.ends_with("_seconds"), "{}", metric.name);
            assert_eq!(metric.unit == Unit::Bytes, metric.name.ends_with("_bytes"), "{}", metric.name);
        }
    }

    /// Every macro call in the sources that names a metric names one of the list.
    #[test]
    fn no_metric_leaves_the_process_undescribed() {
        let mut files = vec![std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src")];
        while let Some(path) = files.pop() {
            if path.is_dir() {
                files.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
                continue;
            }
            // This file is the list, and tests it.
            if path.ends_with("src/telemetry.rs") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            for (at, _) in text.match_indices("\"tidegate_") {
                let name = text[at + 1..].split('"').next().unwrap();
                if name == "tidegate_" || name.contains([' ', '{', '=']) {
                    continue;
                }
                let known = METRICS.iter().any(|m| m.name == name);
                assert!(known, "{}: metric `{name}` is not in telemetry::METRICS", path.display());
            }
        }
    }

    #[test]
    fn what_was_counted_is_rendered_with_its_description_and_buckets() {
        let all = metrics();
        // Other tests of this process count too: these names and labels are this one's.
        metrics::gauge!("tidegate_spent", "model" => "a").increment(1.5);
        metrics::gauge!("tidegate_spent", "model" => "b").increment(2.0);
        metrics::histogram!("tidegate_http_seconds", "route" => "of this test").record(0.003);
        all.upkeep();
        let text = all.render();
        assert!(text.contains("# HELP tidegate_spent Money spent on models"), "{text}");
        assert!(text.contains("tidegate_spent{model=\"a\"} 1.5"), "{text}");
        assert_eq!(all.sum("tidegate_spent"), Some(3.5));
        assert_eq!(all.sum("tidegate_cost"), None);
        assert!(
            text.contains("tidegate_http_seconds_bucket{route=\"of this test\",le=\"0.005\"} 1"),
            "{text}"
        );
    }
}

//! What calls leave behind for whoever watches: every metric of this stage, and nothing else.
//!
//! The four `gen_ai_client_…` are OpenTelemetry's, as Prometheus writes them; retries, fallbacks and
//! breakers have no convention there. Labels are names from the configuration and words of this code.

use super::attempt::Stream;
use super::failure::{Class, Failure};
use super::model::Model;
use std::time::Duration;

/// One request to a model has ended.
pub(super) fn ended(model: &Model, ended: &Result<Stream, Failure>, took: Duration) {
    let class = ended.as_ref().map_or_else(|f| f.class.as_str(), |_| "ok");
    let (name, provider) = (model.name.to_string(), model.provider.to_string());
    metrics::counter!("tidegate_calls_total", "model" => name.clone(), "ended" => class).increment(1);
    metrics::histogram!(
        "gen_ai_client_operation_duration_seconds",
        "model" => name.clone(), "provider" => provider.clone(), "error_type" => class
    )
    .record(took.as_secs_f64());
    let (first_ms, tokens) = match ended {
        Ok(stream) => (stream.first_token_ms, (stream.input_tokens, stream.output_tokens)),
        Err(failure) => (failure.first_token_ms, failure.tokens),
    };
    if let Some(first) = first_ms.map(Duration::from_millis) {
        metrics::histogram!(
            "gen_ai_client_operation_time_to_first_chunk_seconds",
            "model" => name.clone(), "provider" => provider.clone()
        )
        .record(first.as_secs_f64());
    }
    for (kind, count) in [("input", tokens.0), ("output", tokens.1)] {
        metrics::counter!(
            "gen_ai_client_token_usage_total",
            "model" => name.clone(), "provider" => provider.clone(), "token_type" => kind
        )
        .increment(count);
    }
    if let Some(cost) = model.cost(tokens.0, tokens.1) {
        // A gauge because counters count whole things; it only ever rises.
        metrics::gauge!("tidegate_spent", "model" => name).increment(cost);
    }
}

/// A slot was granted again although an earlier request may have been answered.
pub(super) fn repeated(model: &str) {
    metrics::counter!("tidegate_calls_repeated_total", "model" => model.to_owned()).increment(1);
}

pub(super) fn retried(model: &str, class: Class) {
    metrics::counter!("tidegate_retries_total", "model" => model.to_owned(), "class" => class.as_str())
        .increment(1);
}

pub(super) fn fell_back(from: &str, class: Class) {
    metrics::counter!("tidegate_fallbacks_total", "from" => from.to_owned(), "class" => class.as_str())
        .increment(1);
}

/// A breaker changed its state.
pub(super) fn moved(model: &str, to: &'static str, reason: &'static str) {
    metrics::counter!("tidegate_breaker_transitions_total", "model" => model.to_owned(), "to" => to, "reason" => reason)
        .increment(1);
    metrics::gauge!("tidegate_breaker_open", "model" => model.to_owned()).set(if to == "closed" {
        0.0
    } else {
        1.0
    });
}

/// A breaker did not let a call go.
pub(super) fn not_permitted(model: &str) {
    metrics::counter!("tidegate_not_permitted_total", "model" => model.to_owned()).increment(1);
}

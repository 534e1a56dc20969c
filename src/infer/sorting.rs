//! Sorts what a provider replied into an error class: status, code, parameter, hint.
//!
//! A message may quote the task, so what blocks a model for everybody is read from statuses, codes,
//! parameters and the beginnings of messages: no payload can spell a fault of the configuration.

use super::failure::{Class, Failure};
use super::model::Api;
use serde_json::Value;
use std::time::Duration;

/// Codes and types that say: no credit, or a cap on what may be spent.
const SPEND: [&str; 6] = [
    "insufficient_quota",
    "billing_error",
    "billing_hard_limit_reached",
    "billing_not_active",
    "enforced_spend_limit_reached",
    "insufficient_credits",
];
/// How messages that say it in words begin.
const SPEND_BEGINNINGS: [&str; 4] = [
    "you exceeded your current quota",
    "your credit balance is too low",
    "your account is not active",
    "insufficient balance",
];
/// Codes that say: this model or parameter is not to be had here.
const CONFIGURATION: [&str; 11] = [
    "model_not_found",
    "invalid_model",
    "unknown_model",
    "model_not_available",
    "model_decommissioned",
    "unsupported_model",
    "unsupported_parameter",
    "unsupported_value",
    "unknown_parameter",
    "deploymentnotfound",
    "operationnotsupported",
];
const CONFIGURATION_BEGINNINGS: [&str; 6] = [
    "unsupported parameter",
    "unknown parameter",
    "unrecognized request argument",
    "invalid schema for response_format",
    "this model does not support",
    "this response_format type is unavailable",
];
/// The parts of a request that hold the task; everything else in it is the configuration's.
const CONTENT: [&str; 4] = ["messages", "input", "prompt", "contents"];
/// What a message that begins with the path of a parameter begins with (`max_tokens: …`).
const PARAMETERS: [&str; 14] = [
    "model",
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "stop_sequences",
    "thinking",
    "system",
    "metadata",
    "output_config",
    "output_format",
    "tools",
    "tool_choice",
    "service_tier",
];
const TOO_LONG: [&str; 5] =
    ["context length", "context window", "prompt is too long", "maximum context", "too many tokens"];
const FILTERED: [&str; 6] = [
    "content_filter",
    "content_policy_violation",
    "content_policy",
    "responsibleaipolicyviolation",
    "invalid_prompt",
    "moderation_blocked",
];

/// What an error reply says of itself, lower case but for `message`.
struct Said {
    code: String,
    kind: String,
    /// The first part of the parameter's path.
    param: String,
    message: String,
    /// The reply names what in the input was objected to.
    flagged: bool,
}

impl Said {
    /// Whatever shape it has: an object under `error`, a text there, FastAPI's list of details, or none.
    fn of(json: &Value, body: &str) -> Self {
        let json = if json.is_array() { &json[0] } else { json };
        let error = if json["error"].is_object() { &json["error"] } else { json };
        let word = |name: &str| error[name].as_str().unwrap_or("").to_ascii_lowercase();
        let detail = &json["detail"][0];
        let param = match error["param"].as_str() {
            Some(param) => param,
            None => detail["loc"][1].as_str().unwrap_or(""),
        };
        let texts = [&error["message"], &json["error"], &detail["msg"], &json["detail"]];
        let message = texts.into_iter().find_map(Value::as_str).unwrap_or(body);
        Said {
            code: word("code"),
            kind: word("type"),
            param: root(param).to_ascii_lowercase(),
            message: message.chars().take(2_000).collect(),
            flagged: !error["metadata"]["flagged_input"].is_null() || !error["metadata"]["reasons"].is_null(),
        }
    }

    fn is(&self, codes: &[&str]) -> bool {
        codes.contains(&self.code.as_str()) || codes.contains(&self.kind.as_str())
    }

    fn begins(&self, beginnings: &[&str]) -> bool {
        let lower = self.message.to_ascii_lowercase();
        beginnings.iter().any(|b| lower.starts_with(b))
    }

    fn mentions(&self, words: &[&str]) -> bool {
        let lower = self.message.to_ascii_lowercase();
        words.iter().any(|w| lower.contains(w))
    }

    /// The provider's filter objects to what the task contains.
    fn filtered(&self) -> bool {
        self.flagged || self.is(&FILTERED)
    }

    fn of_spending(&self, status: u16) -> bool {
        // A 429 never quotes the task, so there the word may stand anywhere.
        self.is(&SPEND)
            || self.begins(&SPEND_BEGINNINGS)
            || (status == 429
                && self.mentions(&["enforced_spend_limit", "spend limit", "insufficient_quota"]))
    }

    fn too_long(&self) -> bool {
        self.is(&["context_length_exceeded"]) || self.mentions(&TOO_LONG)
    }

    fn of_configuration(&self) -> bool {
        let named = !self.param.is_empty() && !CONTENT.contains(&self.param.as_str());
        let path = self.message.split_once(": ").map(|(path, _)| root(path));
        named
            || self.is(&CONFIGURATION)
            || self.begins(&CONFIGURATION_BEGINNINGS)
            || path.is_some_and(|p| PARAMETERS.contains(&p))
    }
}

/// `response_format` of `response_format.json_schema[0]`.
fn root(path: &str) -> &str {
    path.split(['.', '[']).next().unwrap_or("")
}

/// An HTTP error reply. `body` is what was read of it, JSON or not.
pub(super) fn reply(api: Api, status: u16, body: &str, hint: Option<Duration>) -> Failure {
    let json: Value = serde_json::from_str(body).unwrap_or(Value::Null);
    let said = Said::of(&json, body);
    let class = match status {
        402 => Class::SpendCap,
        400 | 403 | 429 if said.of_spending(status) => Class::SpendCap,
        403 if said.filtered() => Class::Refusal,
        401 | 403 => Class::Unauthorized,
        429 if api == Api::Anthropic && hint.is_none() => Class::SpendCap,
        429 => Class::RateLimited,
        400 | 413 | 422 => refused(&said),
        // No server of this dialect there, one that does not know the model, or a proxy on the way to it.
        300..=399 | 404 | 405 | 406 | 407 | 410 | 415 | 421 | 426 | 431 | 451 | 501 => Class::Misconfigured,
        503 | 529 => Class::Overloaded,
        // Whatever else is said is not said of the task: a call that was cancelled (499), a lock, a timeout.
        _ => Class::Transient,
    };
    // "At once" is no time to wait for: as without a hint, each wait is longer than the one before.
    let hint = hint.filter(|hint| !hint.is_zero());
    Failure { status: Some(status), hint, ..Failure::new(class, &said.message) }
}

/// A request the provider will not take: is that the configuration's doing, or the task's?
fn refused(said: &Said) -> Class {
    if said.too_long() {
        Class::ContextTooLong
    } else if said.filtered() {
        Class::Refusal
    } else if said.of_configuration() {
        Class::Misconfigured
    } else {
        Class::BadRequest
    }
}

/// An error inside a stream that began well. What has no better name is a broken stream.
pub(super) fn in_stream(error: &Value) -> Failure {
    let said = Said::of(error, "an error inside the stream");
    let class = if said.is(&["overloaded_error", "overloaded", "engine_overloaded"]) {
        Class::Overloaded
    } else if said.of_spending(200) {
        // The status of the stream: unlike a 429, an error inside may quote the task.
        Class::SpendCap
    } else if said.is(&["rate_limit_error", "rate_limit_exceeded", "rate_limit"]) {
        Class::RateLimited
    } else if said.too_long() {
        Class::ContextTooLong
    } else if said.is(&FILTERED) {
        Class::Refusal
    } else {
        Class::Malformed
    };
    Failure::new(class, &said.message)
}

/// `retry-after-ms`, or `retry-after` in seconds or as a date. `now_ms`: Unix time.
pub(super) fn hint(retry_after_ms: Option<&str>, retry_after: Option<&str>, now_ms: i64) -> Option<Duration> {
    if let Some(ms) = retry_after_ms.and_then(|t| t.trim().parse::<f64>().ok()) {
        return duration(ms / 1e3);
    }
    let text = retry_after?.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return duration(seconds);
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp().as_millisecond();
    Some(Duration::from_millis(u64::try_from(date - now_ms).unwrap_or(0)).min(HINT_MAX))
}

/// A provider cannot send a task away for longer.
const HINT_MAX: Duration = Duration::from_secs(86_400);

fn duration(seconds: f64) -> Option<Duration> {
    // Also what is not a number at all.
    Duration::try_from_secs_f64(seconds.clamp(0.0, HINT_MAX.as_secs_f64())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infer::failure::Again;

    fn class(status: u16, body: &str) -> Class {
        reply(Api::OpenAi, status, body, None).class
    }

    fn other(status: u16, body: &str, hint: Option<Duration>) -> Class {
        reply(Api::Anthropic, status, body, hint).class
    }

    #[test]
    fn p7_a_spend_cap_is_not_a_rate_limit_on_either_provider() {
        let openai = r#"{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","code":"insufficient_quota"}}"#;
        let anthropic = r#"{"type":"error","error":{"type":"rate_limit_error","message":"enforced_spend_limit_reached"}}"#;
        let limited = r#"{"type":"error","error":{"type":"rate_limit_error","message":"slow down"}}"#;
        let credit = r#"{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the API"}}"#;
        assert_eq!(class(429, openai), Class::SpendCap);
        assert_eq!(other(429, anthropic, Some(Duration::from_secs(1))), Class::SpendCap);
        assert_eq!(other(429, limited, None), Class::SpendCap, "that provider always hints at a rate limit");
        assert_eq!(other(429, limited, Some(Duration::from_secs(1))), Class::RateLimited);
        assert_eq!(other(400, credit, None), Class::SpendCap);
        assert_eq!(class(402, ""), Class::SpendCap);
        assert_eq!(class(429, limited), Class::RateLimited);
        assert_eq!(Class::SpendCap.again(), Again::No, "a spend cap is never retried");
    }

    #[test]
    fn p7_a_retired_model_or_a_wrong_parameter_is_a_configuration_fault_and_not_the_tasks() {
        let retired = r#"{"error":{"message":"The model `x` does not exist","code":"model_not_found"}}"#;
        let schema = r#"{"error":{"message":"Invalid schema for response_format 'answer'","type":"invalid_request_error","param":"response_format","code":null}}"#;
        let limit = r#"{"type":"error","error":{"type":"invalid_request_error","message":"max_tokens: 100000 > 8192"}}"#;
        let fastapi = r#"{"detail":[{"loc":["body","temperature"],"msg":"must be at most 2"}]}"#;
        assert_eq!(class(404, retired), Class::Misconfigured);
        assert_eq!(class(400, retired), Class::Misconfigured);
        assert_eq!(class(400, schema), Class::Misconfigured);
        assert_eq!(other(400, limit, None), Class::Misconfigured);
        assert_eq!(class(422, fastapi), Class::Misconfigured);
        assert_eq!(class(404, "<html>nothing here</html>"), Class::Misconfigured);
        assert_eq!(class(307, ""), Class::Misconfigured, "a base URL that redirects is a wrong one");
        assert!(Class::Misconfigured.blocks());
    }

    #[test]
    fn no_payload_that_a_reply_quotes_blocks_a_model() {
        let quoted = "Invalid content: 'model_not_found billing insufficient_quota unsupported parameter'";
        let openai = format!(
            r#"{{"error":{{"message":"{quoted}","type":"invalid_request_error","param":"messages[0].content"}}}}"#
        );
        let anthropic = format!(
            r#"{{"error":{{"type":"invalid_request_error","message":"messages.0.content: {quoted}"}}}}"#
        );
        assert_eq!(class(400, &openai), Class::BadRequest);
        assert_eq!(other(400, &anthropic, None), Class::BadRequest);
        let inside = serde_json::json!({ "type": "api_error", "message": "cannot parse 'my spend limit'" });
        assert_eq!(in_stream(&inside).class, Class::Malformed);
    }

    #[test]
    fn a_task_that_a_filter_objects_to_is_refused_and_blocks_no_model() {
        let flagged = r#"{"error":{"code":403,"message":"Your input was flagged","metadata":{"reasons":["violence"],"flagged_input":"..."}}}"#;
        let prompt = r#"{"error":{"code":"invalid_prompt","message":"Invalid prompt: flagged"}}"#;
        assert_eq!(class(403, flagged), Class::Refusal);
        assert_eq!(class(403, r#"{"error":{"code":"content_filter","message":"no"}}"#), Class::Refusal);
        assert_eq!(class(400, prompt), Class::Refusal);
        assert_eq!(
            class(403, r#"{"error":{"code":403,"message":"no access to this model"}}"#),
            Class::Unauthorized
        );
    }

    #[test]
    fn replies_are_sorted_by_status_and_code() {
        let long = r#"{"error":{"code":"context_length_exceeded","message":"too long"}}"#;
        let filtered = r#"{"error":{"code":"content_filter","message":"filtered"}}"#;
        assert_eq!(class(400, long), Class::ContextTooLong);
        assert_eq!(class(400, r#"{"error":{"message":"invalid image"}}"#), Class::BadRequest);
        assert_eq!(class(400, filtered), Class::Refusal);
        assert_eq!(class(401, ""), Class::Unauthorized);
        assert_eq!(class(403, ""), Class::Unauthorized);
        assert_eq!(class(413, ""), Class::BadRequest);
        assert_eq!(class(500, "oops"), Class::Transient);
        assert_eq!(class(502, "<html>"), Class::Transient);
        assert_eq!(
            other(529, r#"{"error":{"type":"overloaded_error","message":"Overloaded"}}"#, None),
            Class::Overloaded
        );
        assert_eq!(class(503, ""), Class::Overloaded);
        assert_eq!(class(408, ""), Class::Transient);
    }

    #[test]
    fn p7_three_statuses_may_be_the_tasks_fault_and_no_other() {
        for status in (100..=999).filter(|s| ![400, 413, 422].contains(s)) {
            for api in [Api::OpenAi, Api::Anthropic] {
                let class = reply(api, status, r#"{"error":{"message":"no"}}"#, None).class;
                assert_ne!(class, Class::BadRequest, "{status}");
            }
        }
        assert_eq!(class(499, "client closed request"), Class::Transient, "cancelled on the provider's side");
        assert_eq!(class(407, ""), Class::Misconfigured, "a proxy that wants a password");
    }

    #[test]
    fn a_hint_of_no_time_at_all_is_none() {
        for seconds in [0, 1] {
            let limited = reply(Api::Anthropic, 429, "{}", Some(Duration::from_secs(seconds)));
            let kept = (seconds > 0).then(|| Duration::from_secs(seconds));
            assert_eq!((limited.class, limited.hint), (Class::RateLimited, kept));
        }
    }

    #[test]
    fn every_status_and_any_body_has_a_class() {
        for body in
            ["", "null", "[]", "[1]", "{\"error\":7}", "{\"error\":\"text\"}", "{\"detail\":\"x\"}", "\u{0}"]
        {
            for status in 100..=999 {
                reply(Api::OpenAi, status, body, None);
                reply(Api::Anthropic, status, body, None);
            }
        }
        assert_eq!(reply(Api::OpenAi, 500, "{\"error\":\"text\"}", None).detail, "text");
    }

    #[test]
    fn errors_inside_a_stream_are_sorted_by_type() {
        let error = |kind: &str| in_stream(&serde_json::json!({ "type": kind, "message": "m" })).class;
        assert_eq!(error("overloaded_error"), Class::Overloaded);
        assert_eq!(error("rate_limit_error"), Class::RateLimited);
        assert_eq!(error("insufficient_quota"), Class::SpendCap);
        assert_eq!(error("api_error"), Class::Malformed);
        assert_eq!(in_stream(&Value::Null).class, Class::Malformed);
    }

    #[test]
    fn hints_come_as_milliseconds_seconds_or_a_date() {
        assert_eq!(hint(Some("1500"), Some("9"), 0), Some(Duration::from_millis(1500)));
        assert_eq!(hint(None, Some("2.5"), 0), Some(Duration::from_millis(2500)));
        let date = "Thu, 01 Jan 1970 00:00:10 GMT";
        assert_eq!(hint(None, Some(date), 4_000), Some(Duration::from_secs(6)));
        assert_eq!(hint(None, Some(date), 60_000), Some(Duration::ZERO));
        assert_eq!(hint(None, Some("1e99"), 0), Some(HINT_MAX), "bounded");
        assert_eq!(hint(None, Some("Fri, 01 Jan 2100 00:00:00 GMT"), 0), Some(HINT_MAX), "bounded");
        assert_eq!(hint(None, Some("soon"), 0), None);
        assert_eq!(hint(None, Some("NaN"), 0), None);
    }
}

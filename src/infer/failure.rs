//! What kind of failure it was: the table of error classes, and how a reply is sorted into it.
//!
//! Never decides when to call again; says what each class means, once, for everybody.

use serde_json::Value;
use std::time::Duration;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Class {
    /// The task's content is what the provider refuses (400, 413, 422).
    BadRequest,
    /// Model retired, deployment missing, parameter not supported: a configuration fault.
    Misconfigured,
    Cut,
    ContextTooLong,
    Refusal,
    /// 401, 402, 403.
    Unauthorized,
    /// No credit, or a cap on what may be spent.
    SpendCap,
    RateLimited,
    Overloaded,
    /// 5xx, reset, DNS.
    Transient,
    /// First token, idle or total.
    Timeout,
    /// Ended without a finish signal, broken frames, an error inside the stream, too long.
    Malformed,
}

/// What the breaker makes of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Weight {
    Ignored,
    /// Counts in the ratio, not in the run.
    Soft,
    Hard,
}

/// Whether the same model may be tried again for this slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Again {
    No,
    Once,
    Yes,
}

impl Class {
    pub fn as_str(self) -> &'static str {
        match self {
            Class::BadRequest => "bad-request",
            Class::Misconfigured => "misconfigured",
            Class::Cut => "cut",
            Class::ContextTooLong => "context-too-long",
            Class::Refusal => "refusal",
            Class::Unauthorized => "unauthorized",
            Class::SpendCap => "spend-cap",
            Class::RateLimited => "rate-limited",
            Class::Overloaded => "overloaded",
            Class::Transient => "transient",
            Class::Timeout => "timeout",
            Class::Malformed => "malformed",
        }
    }

    pub(super) fn again(self) -> Again {
        match self {
            Class::RateLimited | Class::Overloaded | Class::Transient => Again::Yes,
            Class::Malformed => Again::Once,
            _ => Again::No,
        }
    }

    pub(super) fn weight(self, hinted: bool) -> Weight {
        match self {
            // The provider said when to come back: it is well.
            Class::RateLimited if hinted => Weight::Ignored,
            Class::RateLimited => Weight::Soft,
            Class::Overloaded | Class::Transient | Class::Timeout | Class::Malformed => Weight::Hard,
            _ => Weight::Ignored,
        }
    }

    /// Nothing but a change outside this program helps: the model is blocked, and probed now and then.
    pub(super) fn blocks(self) -> bool {
        matches!(self, Class::Misconfigured | Class::Unauthorized | Class::SpendCap)
    }

    /// Waits of throttled tries start higher.
    pub(super) fn throttled(self) -> bool {
        matches!(self, Class::RateLimited | Class::Overloaded)
    }
}

/// One try that did not end in an answer.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Failure {
    pub(super) class: Class,
    pub(super) status: Option<u16>,
    pub(super) detail: String,
    /// When the provider wants to be asked again.
    pub(super) hint: Option<Duration>,
    /// What was said before it was cut off or refused.
    pub(super) partial: Option<String>,
    pub(super) first_token_ms: Option<u64>,
}

/// A provider's words are kept up to here; they may quote the task.
const DETAIL_MAX: usize = 300;

impl Failure {
    pub(super) fn new(class: Class, detail: impl Into<String>) -> Self {
        let mut detail: String = detail.into();
        if detail.len() > DETAIL_MAX {
            let end = (0..=DETAIL_MAX).rev().find(|&i| detail.is_char_boundary(i)).unwrap_or(0);
            detail.truncate(end);
        }
        Failure { class, status: None, detail, hint: None, partial: None, first_token_ms: None }
    }
}

/// Sorts an HTTP error reply. `body` is what was read of it, JSON or not.
pub(super) fn of_reply(status: u16, body: &str, hint: Option<Duration>) -> Failure {
    let json: Value = serde_json::from_str(body).unwrap_or(Value::Null);
    let error = if json["error"].is_object() { &json["error"] } else { &json };
    let word = |name: &str| error[name].as_str().unwrap_or("").to_ascii_lowercase();
    let (code, kind) = (word("code"), word("type"));
    let said = match error["message"].as_str() {
        Some(message) => message.to_owned(),
        None => body.chars().take(200).collect(),
    };
    let lower = said.to_ascii_lowercase();
    let says =
        |words: &[&str]| words.iter().any(|w| code.contains(w) || kind.contains(w) || lower.contains(w));
    let spend =
        says(&["insufficient_quota", "enforced_spend_limit", "spend limit", "billing", "credit balance"]);
    let class = match status {
        401 | 403 => Class::Unauthorized,
        402 => Class::SpendCap,
        _ if (status == 429 || status == 400) && spend => Class::SpendCap,
        429 => Class::RateLimited,
        404 => Class::Misconfigured,
        400 | 413 | 422
            if says(&["context_length", "context window", "prompt is too long", "maximum context"]) =>
        {
            Class::ContextTooLong
        }
        400 if says(&[
            "model_not_found",
            "unsupported_parameter",
            "unsupported_value",
            "unknown_parameter",
            "deploymentnotfound",
        ]) =>
        {
            Class::Misconfigured
        }
        400 if says(&["content_filter", "content_policy"]) => Class::Refusal,
        408 => Class::Timeout,
        503 | 529 => Class::Overloaded,
        400..=499 => Class::BadRequest,
        _ => Class::Transient,
    };
    Failure { status: Some(status), hint, ..Failure::new(class, said) }
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
    Some(Duration::from_millis(u64::try_from(date - now_ms).unwrap_or(0)))
}

/// Bounded: a provider cannot send a task away for more than a day.
fn duration(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds.clamp(0.0, 86_400.0)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(status: u16, body: &str) -> Class {
        of_reply(status, body, None).class
    }

    #[test]
    fn p7_a_spend_cap_is_not_a_rate_limit_on_either_provider() {
        let openai = r#"{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","code":"insufficient_quota"}}"#;
        let anthropic = r#"{"type":"error","error":{"type":"rate_limit_error","message":"enforced_spend_limit_reached"}}"#;
        assert_eq!(class(429, openai), Class::SpendCap);
        assert_eq!(class(429, anthropic), Class::SpendCap);
        assert_eq!(Class::SpendCap.again(), Again::No, "a spend cap is never retried");
        assert_eq!(
            class(429, r#"{"error":{"message":"slow down","type":"rate_limit_error"}}"#),
            Class::RateLimited
        );
    }

    #[test]
    fn p7_a_retired_model_is_a_configuration_fault_and_not_the_tasks() {
        let body = r#"{"error":{"message":"The model `x` does not exist","code":"model_not_found"}}"#;
        assert_eq!(class(404, body), Class::Misconfigured);
        assert_eq!(class(400, body), Class::Misconfigured);
        assert!(Class::Misconfigured.blocks());
    }

    #[test]
    fn replies_are_sorted_by_status_and_code() {
        assert_eq!(
            class(400, r#"{"error":{"code":"context_length_exceeded","message":"too long"}}"#),
            Class::ContextTooLong
        );
        assert_eq!(class(400, r#"{"error":{"message":"invalid image"}}"#), Class::BadRequest);
        assert_eq!(class(401, ""), Class::Unauthorized);
        assert_eq!(class(500, "oops"), Class::Transient);
        assert_eq!(
            class(529, r#"{"error":{"type":"overloaded_error","message":"Overloaded"}}"#),
            Class::Overloaded
        );
        assert_eq!(class(503, ""), Class::Overloaded);
    }

    #[test]
    fn a_rate_limit_with_a_hint_does_not_count_against_the_model() {
        assert_eq!(Class::RateLimited.weight(true), Weight::Ignored);
        assert_eq!(Class::RateLimited.weight(false), Weight::Soft);
        assert_eq!(Class::Timeout.weight(false), Weight::Hard, "never answered is a failure");
        assert_eq!(Class::Timeout.again(), Again::No, "a silent model is not asked again");
    }

    #[test]
    fn hints_come_as_milliseconds_seconds_or_a_date() {
        assert_eq!(hint(Some("1500"), Some("9"), 0), Some(Duration::from_millis(1500)));
        assert_eq!(hint(None, Some("2.5"), 0), Some(Duration::from_millis(2500)));
        let date = "Thu, 01 Jan 1970 00:00:10 GMT";
        assert_eq!(hint(None, Some(date), 4_000), Some(Duration::from_secs(6)));
        assert_eq!(hint(None, Some(date), 60_000), Some(Duration::ZERO));
        assert_eq!(hint(None, Some("1e99"), 0), Some(Duration::from_secs(86_400)), "bounded");
        assert_eq!(hint(None, Some("soon"), 0), None);
    }
}

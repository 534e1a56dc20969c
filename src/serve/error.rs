//! Errors of the HTTP API: one JSON shape, `{"error": {"code", "message", "help"}}`.
//!
//! Codes are stable and lower-case; messages say what is wrong and help says what to do.
//! Nothing of a payload is repeated in them.

use crate::consume::Refusal;
use crate::engine::{AppendError, Unavailable};
use crate::outcome::Reason;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

/// How long a client should wait before it asks a paused process again, seconds.
const RETRY_AFTER_S: u64 = 2;

#[derive(Clone, PartialEq, Debug)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    pub(super) code: String,
    pub(super) message: String,
    pub(super) help: String,
    /// Fields beside `code`, `message` and `help`: findings, who decided, where the task stands.
    pub(super) more: Box<Map<String, Value>>,
}

impl ApiError {
    pub(super) fn new(
        status: StatusCode,
        code: impl Into<String>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        let (code, message, help) = (code.into(), message.into(), help.into());
        ApiError { status, code, message, help, more: Box::default() }
    }

    pub(super) fn bad(message: impl Into<String>, help: impl Into<String>) -> Self {
        ApiError::new(StatusCode::BAD_REQUEST, "bad-request", message, help)
    }

    pub(super) fn not_found(message: impl Into<String>, help: impl Into<String>) -> Self {
        ApiError::new(StatusCode::NOT_FOUND, "not-found", message, help)
    }

    #[must_use]
    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    /// The object under `error`.
    pub(super) fn body(&self) -> Value {
        let mut body = Map::new();
        body.insert("code".to_owned(), self.code.clone().into());
        body.insert("message".to_owned(), self.message.clone().into());
        body.insert("help".to_owned(), self.help.clone().into());
        body.extend(self.more.iter().map(|(name, value)| (name.clone(), value.clone())));
        Value::Object(body)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = axum::Json(json!({ "error": self.body() }));
        let mut response = (self.status, body).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
        }
        response
    }
}

impl From<Unavailable> for ApiError {
    fn from(away: Unavailable) -> Self {
        let help = "nothing was decided; send the same request again in a moment";
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", away.0, help)
    }
}

impl From<AppendError> for ApiError {
    fn from(e: AppendError) -> Self {
        match e {
            AppendError::Unavailable(away) => away.into(),
            AppendError::TooLarge { .. } => {
                let help = "send less in one record, or raise the topic's limit";
                ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "record-too-large", e.to_string(), help)
            }
            AppendError::NoSuchTopic(_) => {
                let help = "the topic is not in the configuration this process runs with; restart it";
                ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "no-such-topic", e.to_string(), help)
            }
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST);
        ApiError::new(status, refusal.reason.code(), refusal.detail, at_the_door(refusal.reason))
    }
}

/// What to do about a task that is refused before it is stored: what a reason says of itself is meant for a
/// dead letter, and there is none.
fn at_the_door(reason: Reason) -> &'static str {
    match reason {
        Reason::KeyMissing => {
            "the task was not stored; where the kind has a `key` rule, send what the rule reads; else send it with an \
             `idempotency-key` header, or give the kind such a rule"
        }
        Reason::KeyTooLong => {
            "the task was not stored; send it again with a shorter key, a hash of the long one for instance"
        }
        Reason::InputRefused => {
            "the task was not stored; mend the field that is named, or the kind's input schema, and send it again"
        }
        Reason::RecordTooLarge => "the task was not stored; send less, or raise `record_max`",
        _ => "the task was not stored; mend it and send it again",
    }
}

impl From<axum::extract::rejection::QueryRejection> for ApiError {
    fn from(e: axum::extract::rejection::QueryRejection) -> Self {
        ApiError::bad(e.body_text(), "mend the part of the address behind `?`")
    }
}

impl From<axum::extract::rejection::PathRejection> for ApiError {
    fn from(e: axum::extract::rejection::PathRejection) -> Self {
        ApiError::bad(e.body_text(), "percent-encode the key as UTF-8")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_the_one_shape_and_a_paused_process_says_when_to_come_back() {
        let error = ApiError::from(Unavailable("the disk is full".into())).with("degraded", true);
        let body = error.body();
        assert_eq!(body["code"], "unavailable");
        assert_eq!(body["message"], "the disk is full");
        assert!(body["help"].as_str().is_some_and(|h| !h.is_empty()));
        assert_eq!(body["degraded"], true);
        let response = error.into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
    }

    #[test]
    fn what_is_refused_at_the_door_has_help_of_its_own_for_nothing_was_stored() {
        for reason in Reason::ALL {
            let refusal = Refusal { status: 400, reason: *reason, detail: "d".into() };
            let help = ApiError::from(refusal).help;
            assert!(help.starts_with("the task was not stored; "), "{reason}: {help}");
            assert!(!help.contains("dead-letters") && !help.contains("edrive"), "{reason}: {help}");
        }
    }
}

//! `POST /v1/kinds/{kind}/resume`: reads a kind again that pauses for its dead letters.
//!
//! A kind that waits for its models cannot be resumed: it goes on by itself once one is back.

use super::App;
use super::error::ApiError;
use super::tasks::no_such_kind;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

pub(super) async fn resume(
    State(app): State<App>,
    kind: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let Path(kind) = kind?;
    if app.kinds.named(&kind).is_none() {
        return Err(no_such_kind(&app, &kind));
    }
    if !app.worker.resume(&kind) {
        let help = "GET /v1/status says why its tasks wait, if they do";
        let what = format!("{kind} does not pause for its dead letters");
        return Err(ApiError::new(StatusCode::CONFLICT, "not-paused", what, help));
    }
    Ok(axum::Json(json!({ "kind": kind, "resumed": true })).into_response())
}

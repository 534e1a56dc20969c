//! `GET /v1/models`: every model, whether it may be called now, and what it has cost.

use super::App;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::json;

pub(super) async fn list(State(app): State<App>) -> Response {
    axum::Json(json!({ "models": app.models.view() })).into_response()
}

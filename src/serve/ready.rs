//! `/healthz`, `/readyz` and `/metrics`.
//!
//! Ready means that this process can accept and serve. A provider outage is ready but `degraded`: a
//! restart or another process would not help. A process that was asked to stop is not ready from then
//! on, so that nobody sends it new tasks while the running ones end; nor is one that has not read its
//! review queue yet, for it cannot say which items are open; nor is one whose places for connections are all
//! taken.

use super::App;
use super::status::{self, State as Now};
use crate::engine::Health;
use crate::telemetry;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// The process runs and its runtime answers; nothing more is claimed.
pub(super) async fn alive() -> Response {
    axum::Json(json!({ "alive": true, "version": env!("CARGO_PKG_VERSION") })).into_response()
}

pub(super) async fn ready(State(app): State<App>) -> Response {
    let now = Now::of(&app);
    let ready = itself(&now);
    answer(&now, ready, status::sentence(&now))
}

/// On one of the connections beyond the last ordinary one: whoever comes now is refused.
pub(super) async fn full(State(app): State<App>) -> Response {
    let now = Now::of(&app);
    let why = "All connections are taken: who comes now is told to come back.";
    let why = if itself(&now) { why.to_owned() } else { status::sentence(&now) };
    answer(&now, false, why)
}

/// Whether it could accept and serve, if it had a place for who asks.
fn itself(now: &Now) -> bool {
    matches!(now.health, Health::Well | Health::Partly { .. }) && !now.stopping && now.unread.is_none()
}

fn answer(now: &Now, ready: bool, why: String) -> Response {
    let degraded = now.degraded();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, axum::Json(json!({ "ready": ready, "degraded": degraded, "why": why }))).into_response()
}

/// What was counted, and the gauges as they were within the last seconds: a scrape reads no disk.
pub(super) async fn metrics() -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, telemetry::metrics().render()).into_response()
}

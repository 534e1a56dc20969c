//! `GET /v1/results`: results as they become visible, as server-sent events.

use super::App;
use super::error::ApiError;
use super::feed::{self, Event, Wanted};
use crate::task::Record;
use crate::token;
use crate::write;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;

pub(super) async fn events(
    State(app): State<App>,
    wanted: Result<Query<Wanted>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Query(wanted) = wanted?;
    feed::stream(&app, &app.results, show, wanted, &headers).await
}

/// The envelope, also where the kind publishes bare answers. Records that somebody else wrote to the
/// topic are passed over.
fn show(record: &Record) -> Option<Event> {
    let text = |name| record.headers.text(name).map(str::to_owned);
    let (kind, key) = (text(token::KIND)?, text(token::KEY)?);
    let data = match record.headers.get("tidegate-envelope") {
        None => String::from_utf8(record.value.as_ref()?.to_vec()).ok()?,
        Some(_) => serde_json::to_string(&write::read_result(record)?).ok()?,
    };
    Some(Event { name: "result", kind, key, what: text("tidegate-status").unwrap_or_default(), data })
}

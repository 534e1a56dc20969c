//! `/v1/dead-letters`: a list, one with its bytes, events, and sending them again.

mod again;
mod find;

use super::App;
use super::error::ApiError;
use super::feed::{self, Event, Wanted};
use super::task_view;
use super::tasks::whole;
use crate::engine::Output;
use crate::task::{Partition, Position, Record};
use crate::write::{self, DeadLetter, Redrive};
use again::Outlook;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use find::{Filter, Found, Seen};
use serde::Deserialize;
use serde_json::{Value, json};

const LIMIT: usize = 100;
/// Dead letters in one list, and in one redrive: what one answer can sensibly hold.
const LIMIT_MAX: usize = 10_000;
/// Records of a redrive that become durable together, and about how many bytes of them.
const BATCH: usize = 500;
const BATCH_BYTES: usize = 8 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    key: Option<String>,
    reason: Option<String>,
    kind: Option<String>,
    limit: Option<usize>,
}

/// The newest first.
pub(super) async fn list(
    State(app): State<App>,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(which) = which?;
    let filter = Filter::new(&app, which.key, which.reason, which.kind)?;
    let limit = which.limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX);
    let Found { letters, more, read } = find::newest(&app, &filter, limit).await?;
    let (mut letters, outlooks): (Vec<Value>, Vec<_>) =
        letters.into_iter().map(|s| (s.view, s.outlook)).unzip();
    again::mark_all(&*app.engine.ledger, &mut letters, &outlooks).await;
    Ok(axum::Json(json!({ "dead_letters": letters, "more": more, "read": read })).into_response())
}

pub(super) async fn show(
    State(app): State<App>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let letter = by_id(&app, &id?.0).await?;
    let mut view = task_view::dead_letter(&letter);
    let outlook = Outlook::of(&app, &letter);
    again::mark_all(&*app.engine.ledger, std::slice::from_mut(&mut view), &[outlook]).await;
    let value = letter.record.value.clone().unwrap_or_default();
    match std::str::from_utf8(&value) {
        Ok(text) => view["value"] = text.into(),
        Err(_) => view["value_hex"] = hex(&value).into(),
    }
    view["headers"] = letter
        .record
        .headers
        .0
        .iter()
        .filter(|(name, _)| !name.starts_with(crate::token::PREFIX))
        .map(|(name, value)| json!([name, String::from_utf8_lossy(value)]))
        .collect();
    view["trail"] = task_view::notes(&letter.trail);
    Ok(axum::Json(view).into_response())
}

/// The original value, byte for byte.
pub(super) async fn value(
    State(app): State<App>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let letter = by_id(&app, &id?.0).await?;
    let mut response = letter.record.value.clone().unwrap_or_default().into_response();
    let headers = response.headers_mut();
    // Somebody else's bytes: never to be shown as a page.
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}

pub(super) async fn events(
    State(app): State<App>,
    wanted: Result<Query<Wanted>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Query(wanted) = wanted?;
    feed::stream(&app, &app.dead_letters, event, wanted, &headers).await
}

fn event(record: &Record) -> Option<Event> {
    let letter = DeadLetter::read(record.clone());
    let view = task_view::dead_letter(&letter);
    let text = |name: &str| view[name].as_str().unwrap_or_default().to_owned();
    let what = letter.reason.map_or(String::new(), |r| r.code().to_owned());
    Some(Event { name: "dead-letter", kind: text("kind"), key: text("key"), what, data: view.to_string() })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Redriven {
    id: Option<String>,
    key: Option<String>,
    reason: Option<String>,
    kind: Option<String>,
    /// The newest so many.
    limit: Option<usize>,
    #[serde(default)]
    dry_run: bool,
}

/// Appends each as the next life of its key. Left out, however they are named: those that were sent again
/// before, which would end in silence, and those that would conflict or be refused again.
pub(super) async fn redrive(State(app): State<App>, body: Body) -> Result<Response, ApiError> {
    let body = whole(&app, body).await?;
    let asked: Redriven = serde_json::from_slice(&body.bytes).map_err(|e| {
        ApiError::bad(
            format!("the body does not say what to redrive: {e}"),
            "send `id`, `key`, `reason` or `kind`, and `\"dry_run\": true` to look first",
        )
    })?;
    let found = match &asked.id {
        Some(id) => Found { letters: vec![Seen::of(&app, &by_id(&app, id).await?)], more: false, read: 1 },
        None => {
            let filter = Filter::new(&app, asked.key, asked.reason, asked.kind)?;
            if filter.is_empty() {
                return Err(ApiError::bad(
                    "nothing says which dead letters",
                    "give `id`, `key`, `reason` or `kind`",
                ));
            }
            find::newest(&app, &filter, asked.limit.unwrap_or(LIMIT_MAX).clamp(1, LIMIT_MAX)).await?
        }
    };
    let mut told: Vec<Value> = Vec::with_capacity(found.letters.len());
    let (mut batch, mut count) = (Batch::default(), 0);
    // Oldest first, as they came; each is read again when its turn comes.
    for seen in found.letters.into_iter().rev() {
        let Some(letter) = at(&app, &seen.position).await? else {
            let mut view = seen.view;
            view["left"] = "the log does not hold it any more".into();
            told.push(view);
            continue;
        };
        let (view, output) = plan(&app, &letter).await?;
        if let Some(output) = output {
            count += 1;
            if !asked.dry_run {
                batch.add(told.len(), output);
            }
        }
        told.push(view);
        if batch.is_full() {
            batch.send(&app, &mut told).await?;
        }
    }
    batch.send(&app, &mut told).await?;
    let name = if asked.dry_run { "would_redrive" } else { "redriven" };
    let left = told.len() - count;
    let because = left_because(&told);
    let answer = json!({ name: count, "left": left, "left_because": because, "more": found.more, "dead_letters": told });
    Ok(axum::Json(answer).into_response())
}

/// What becomes durable together: bounded by count, and by bytes, for all of it is in memory.
#[derive(Default)]
struct Batch {
    sends: Vec<(usize, Output)>,
    bytes: usize,
}

impl Batch {
    fn add(&mut self, place: usize, output: Output) {
        self.bytes += output.value.as_ref().map_or(0, Bytes::len);
        self.sends.push((place, output));
    }

    fn is_full(&self) -> bool {
        self.sends.len() >= BATCH || self.bytes >= BATCH_BYTES
    }

    async fn send(&mut self, app: &App, told: &mut [Value]) -> Result<(), ApiError> {
        self.bytes = 0;
        let (places, outputs): (Vec<usize>, Vec<Output>) = self.sends.drain(..).unzip();
        if outputs.is_empty() {
            return Ok(());
        }
        for (place, at) in places.iter().zip(app.engine.log.append(outputs).await?) {
            told[*place]["sent_to"] = at.to_string().into();
        }
        metrics::counter!("tidegate_redriven_total").increment(places.len() as u64);
        Ok(())
    }
}

/// What would be appended for a dead letter, or why nothing is.
async fn plan(app: &App, letter: &DeadLetter) -> Result<(Value, Option<Output>), ApiError> {
    let mut view = task_view::dead_letter(letter);
    let left = again::left(&*app.engine.ledger, &[Outlook::of(app, letter)]).await?;
    if let Some(left) = left.first().and_then(Option::as_ref) {
        again::mark(&mut view, Some(left));
        return Ok((view, None));
    }
    let output = match write::redrive(&app.settings.topics, letter) {
        Redrive::Send(output) | Redrive::Again(output) => *output,
        Redrive::Cannot(why) => {
            view["left"] = why.into();
            return Ok((view, None));
        }
    };
    view["to"] = output.topic.as_str().into();
    Ok((view, Some(output)))
}

/// How many were left for each reason, in the order they came.
fn left_because(told: &[Value]) -> Vec<Value> {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for why in told.iter().filter_map(|view| view["left"].as_str()) {
        match counts.iter_mut().find(|(known, _)| *known == why) {
            Some((_, count)) => *count += 1,
            None => counts.push((why, 1)),
        }
    }
    counts.into_iter().map(|(why, count)| json!({ "why": why, "count": count })).collect()
}

async fn by_id(app: &App, id: &str) -> Result<DeadLetter, ApiError> {
    let missing = || {
        let id: String = id.chars().take(40).collect();
        ApiError::not_found(
            format!("no dead letter `{id}`"),
            "ids look like `3-17`; GET /v1/dead-letters lists them",
        )
    };
    let (index, offset) = id.split_once('-').ok_or_else(missing)?;
    let (Ok(index), Ok(offset)) = (index.parse(), offset.parse()) else { return Err(missing()) };
    let place = Position { at: Partition { topic: app.settings.topics.dead_letters.clone(), index }, offset };
    let ends = app.engine.log.ends(&place.at.topic).await?;
    if !ends.iter().any(|e| e.at == place.at && (e.first..e.next).contains(&offset)) {
        return Err(missing());
    }
    at(app, &place).await?.ok_or_else(missing)
}

async fn at(app: &App, place: &Position) -> Result<Option<DeadLetter>, ApiError> {
    let records = app.engine.log.read(place.clone(), 1).await?;
    Ok(records.into_iter().next().filter(|r| r.position == *place).map(DeadLetter::read))
}

fn hex(bytes: &Bytes) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, b| {
        // Writing to a String cannot fail.
        let _ = write!(out, "{b:02x}");
        out
    })
}

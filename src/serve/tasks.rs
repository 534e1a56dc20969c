//! `POST /v1/tasks` and `GET /v1/tasks/…`.
//!
//! All tasks of a request that can be accepted are appended in one step: either all of them are durable
//! and answered with their positions, or none is and the request fails. What is refused, or known
//! already, is answered for itself and holds nothing up.

use super::App;
use super::error::ApiError;
use super::intake::{self, Asked, Entry, Read, Tasks};
use super::lookup::Stands;
use super::task_view;
use super::writers::Writers;
use crate::consume::{Accepted, KEY_MAX, Sent, TENANT_MAX, intake as accept};
use crate::dedupe::{ClaimView, Phase};
use crate::engine::{AppendError, Health};
use crate::settings::OnConflict;
use crate::task::{Position, ScopedKey};
use axum::body::{Body, Bytes};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;

/// A body must have arrived by then; slower senders hold a place that others need.
const BODY_WITHIN: Duration = Duration::from_secs(30);
/// Larger batches are checked beside the runtime's threads: 64 payloads take about a millisecond.
const INLINE: usize = 64;

/// What one task is answered.
enum Told {
    Accepted { accepted: Box<Accepted>, position: Option<Position> },
    Known { accepted: Box<Accepted>, claim: Box<ClaimView> },
    Refused(ApiError),
}

pub(super) async fn submit(
    State(app): State<App>,
    asked: Result<Query<Asked>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let Query(asked) = asked?;
    if asked.key.as_deref().is_some_and(|k| k != "content") {
        return Err(ApiError::bad(
            "`key` can only be `content` here",
            "give a key per task, or in the header `Idempotency-Key`",
        ));
    }
    if let Err(paused) = accepting(&app) {
        drain(&app, body).await;
        return Err(paused);
    }
    let Whole { bytes: body, place: _place } = whole(&app, body).await?;
    let began = Instant::now();
    let lend = asked.key.is_some();
    let answer = match intake::read(&body, &asked, &headers)? {
        Tasks::One(read) => one(&app, read, &headers, lend).await,
        Tasks::Many(_) if headers.contains_key("idempotency-key") => Err(ApiError::bad(
            "`Idempotency-Key` cannot go for several tasks",
            "give each task its own `key`",
        )),
        Tasks::Many(tasks) => many(&app, tasks, lend).await,
    };
    metrics::histogram!("tidegate_http_seconds", "route" => "/v1/tasks").record(began.elapsed());
    answer
}

/// Intake is refused at once while the engine cannot write, and once the process is asked to stop: a
/// client that waits knows less than one that is told.
pub(super) fn accepting(app: &App) -> Result<(), ApiError> {
    if app.stopping.is_cancelled() {
        return Err(ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "stopping",
            "this process is stopping and takes no new tasks",
            "nothing was accepted; send the same request again once it is back, or to another process",
        ));
    }
    match &*app.engine.operation.health().borrow() {
        Health::Well | Health::Partly { .. } => Ok(()),
        Health::Paused { why } | Health::Gone { why } => {
            let help = "nothing was accepted; send the same request again once it is well";
            Err(ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "paused",
                format!("intake is paused: {why}"),
                help,
            ))
        }
    }
}

/// A request's body, and its place among those that are in memory: to be kept as long as the bytes.
pub(super) struct Whole {
    pub(super) bytes: Bytes,
    pub(super) place: Option<OwnedSemaphorePermit>,
}

/// The one way to read a body: every route that takes one counts.
pub(super) async fn whole(app: &App, body: Body) -> Result<Whole, ApiError> {
    // The semaphore is never closed.
    let place = app.bodies.clone().acquire_owned().await.ok();
    Ok(Whole { bytes: read(body, app.settings.http.body_max).await?, place })
}

/// Reads what is refused unread, and keeps nothing: a client that is still sending when its connection is
/// closed hears of a broken connection, and not why.
pub(super) async fn drain(app: &App, body: Body) {
    let mut left = app.settings.http.body_max;
    let mut pieces = body.into_data_stream();
    let all = async {
        while let Some(Ok(piece)) = pieces.next().await {
            let Some(rest) = left.checked_sub(piece.len()) else { return };
            left = rest;
        }
    };
    if tokio::time::timeout(BODY_WITHIN, all).await.is_err() {
        tracing::debug!("a body that is refused did not arrive in time");
    }
}

async fn read(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let read = tokio::time::timeout(BODY_WITHIN, axum::body::to_bytes(body, limit)).await;
    match read {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(e))
            if std::error::Error::source(&e).is_some_and(|s| s.to_string().contains("length limit")) =>
        {
            let message = format!("the body is larger than {limit} bytes");
            Err(ApiError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "body-too-large",
                message,
                "send fewer tasks at once, or raise `[http] body_max`",
            ))
        }
        Ok(Err(_)) => Err(ApiError::bad("the body ended early", "send it again")),
        Err(_) => {
            let message = format!("the body did not arrive within {} s", BODY_WITHIN.as_secs());
            Err(ApiError::new(
                StatusCode::REQUEST_TIMEOUT,
                "too-slow",
                message,
                "send it again, in smaller pieces",
            ))
        }
    }
}

async fn one(app: &App, read: Read, headers: &HeaderMap, lend: bool) -> Result<Response, ApiError> {
    let read = read.and_then(|mut entry| {
        if let Some(key) = headers.get("idempotency-key") {
            let text = std::str::from_utf8(key.as_bytes());
            let text =
                text.map_err(|_| ApiError::bad("`Idempotency-Key` is not UTF-8", "send the key as UTF-8"))?;
            entry.key = entry.key.or_else(|| Some(text.to_owned()));
        }
        Ok(entry)
    });
    let writers = Writers::of(app, std::iter::once(&read)).await;
    let mut told = vec![check(app, read, &writers, lend)];
    settle(app, &mut told).await?;
    match told.pop() {
        Some(Told::Accepted { accepted, position }) => {
            let mut body = accepted_view(&accepted, position.as_ref());
            body["state"] = "queued".into();
            Ok((StatusCode::ACCEPTED, axum::Json(body)).into_response())
        }
        Some(Told::Known { accepted, claim }) => {
            // Closed and expired between the two readings, or the review queue is still being read: what the
            // first one said still holds.
            let stands = app.lookup.find(&accepted.scope).await.unwrap_or_default();
            let body = stands.as_ref().map_or_else(|| known_view(&accepted, &claim), task_view::view);
            Ok((StatusCode::OK, axum::Json(body)).into_response())
        }
        Some(Told::Refused(e)) => Err(e),
        None => Err(ApiError::bad("the body holds no task", "send one")),
    }
}

#[derive(Serialize)]
struct Batch {
    accepted: usize,
    known: usize,
    refused: usize,
    tasks: Vec<Value>,
}

async fn many(app: &App, tasks: Vec<(Option<usize>, Read)>, lend: bool) -> Result<Response, ApiError> {
    let (lines, reads): (Vec<_>, Vec<_>) = tasks.into_iter().unzip();
    let writers = Writers::of(app, reads.iter()).await;
    let mut told: Vec<Told> = if reads.len() <= INLINE {
        reads.into_iter().map(|read| check(app, read, &writers, lend)).collect()
    } else {
        let app = app.clone();
        let checked = tokio::task::spawn_blocking(move || {
            reads.into_iter().map(|read| check(&app, read, &writers, lend)).collect()
        });
        checked.await.map_err(|_| {
            ApiError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "the tasks could not be checked",
                "send them again",
            )
        })?
    };
    settle(app, &mut told).await?;
    let mut batch = Batch { accepted: 0, known: 0, refused: 0, tasks: Vec::with_capacity(told.len()) };
    for (told, line) in told.iter().zip(lines) {
        let mut view = match told {
            Told::Accepted { accepted, position } => {
                batch.accepted += 1;
                accepted_view(accepted, position.as_ref())
            }
            Told::Known { accepted, claim } => {
                batch.known += 1;
                known_view(accepted, claim)
            }
            Told::Refused(e) => {
                batch.refused += 1;
                json!({ "status": e.status.as_u16(), "error": e.body() })
            }
        };
        if let Some(line) = line {
            view["line"] = line.into();
        }
        batch.tasks.push(view);
    }
    let status = if batch.accepted > 0 { StatusCode::ACCEPTED } else { StatusCode::OK };
    Ok((status, axum::Json(batch)).into_response())
}

/// By the rules of its kind; asks nobody.
fn check(app: &App, read: Read, writers: &Writers, lend: bool) -> Told {
    let Entry { kind: name, key, headers, payload } = match read {
        Ok(entry) => entry,
        Err(e) => return refused("none", e),
    };
    let Some(kind) = app.kinds.named(&name) else { return refused("none", no_such_kind(app, &name)) };
    let writer = match writers.writer(kind) {
        Ok(writer) => writer,
        Err(e) => return refused(&kind.name, e),
    };
    let sent = Sent { payload: &payload, key: key.as_deref(), lend_key: lend };
    match accept(kind, sent, headers, writer, app.settings.engine.record_max) {
        Ok(accepted) => Told::Accepted { accepted: Box::new(accepted), position: None },
        Err(refusal) => refused(&kind.name, refusal.into()),
    }
}

fn refused(kind: &str, e: ApiError) -> Told {
    count(kind, "refused");
    Told::Refused(e)
}

/// Asks the ledger for each, then appends what it does not know, all in one step.
async fn settle(app: &App, told: &mut [Told]) -> Result<(), ApiError> {
    let keys = told.iter().filter_map(|told| match told {
        Told::Accepted { accepted, .. } => Some(accepted.scope.clone()),
        _ => None,
    });
    // A ledger that is away does not stop intake: the record is judged when it is read.
    let found = app.engine.ledger.look_all(keys.collect()).await.unwrap_or_default();
    let open = told.iter_mut().filter(|told| matches!(told, Told::Accepted { .. }));
    for (told, claim) in open.zip(found) {
        if let (Told::Accepted { accepted, .. }, Some(claim)) = (&*told, claim) {
            *told = compare(app, accepted, claim);
        }
    }
    append(app, told).await
}

/// A known key: the same payload is a duplicate, another one a conflict, by the rule of its entry.
fn compare(app: &App, accepted: &Accepted, claim: ClaimView) -> Told {
    let same = crate::fingerprint::digest(&claim.print.rule, &accepted.payload) == Some(claim.print.digest);
    let kind = app.kinds.named(&accepted.scope.kind);
    if same || kind.is_some_and(|k| k.on_conflict == OnConflict::Ignore) {
        count(&accepted.scope.kind, "known");
        return Told::Known { accepted: Box::new(accepted.clone()), claim: Box::new(claim) };
    }
    let reason = crate::outcome::Reason::KeyConflict;
    let message = format!("key `{}` was first used with another payload", accepted.scope.key);
    let conflict = ApiError::new(StatusCode::CONFLICT, reason.code(), message, reason.remedy());
    let conflict = conflict.with("since", claim.since.rfc3339()).with("state", phase_word(&claim.phase));
    refused(&accepted.scope.kind, conflict)
}

/// One append for all: durable together, or not at all. A record that its topic does not take is
/// refused for itself, and the others are appended without it.
async fn append(app: &App, told: &mut [Told]) -> Result<(), ApiError> {
    loop {
        let mut places = Vec::new();
        let mut outputs = Vec::new();
        for (i, told) in told.iter().enumerate() {
            if let Told::Accepted { accepted, .. } = told {
                places.push(i);
                outputs.push(accepted.output.clone());
            }
        }
        if outputs.is_empty() {
            return Ok(());
        }
        match app.engine.log.append(outputs).await {
            Ok(positions) => {
                for (i, at) in places.into_iter().zip(positions) {
                    if let Told::Accepted { accepted, position } = &mut told[i] {
                        count(&accepted.scope.kind, "accepted");
                        *position = Some(at);
                    }
                }
                return Ok(());
            }
            // Each round refuses one, so this ends.
            Err(AppendError::TooLarge { index, bytes, limit, topic }) if index < places.len() => {
                told[places[index]] =
                    refused("none", AppendError::TooLarge { index, bytes, limit, topic }.into());
            }
            Err(e) => return Err(e.into()),
        }
    }
}

fn accepted_view(accepted: &Accepted, position: Option<&Position>) -> Value {
    let mut view = json!({
        "status": 202,
        "kind": &*accepted.scope.kind,
        "key": &*accepted.scope.key,
        "position": position.map(ToString::to_string),
        "fingerprint": short(&accepted.print.digest),
    });
    if accepted.content_key {
        view["content_key"] = true.into();
    }
    view
}

/// What the ledger says; `GET /v1/tasks/…` tells the rest.
fn known_view(accepted: &Accepted, claim: &ClaimView) -> Value {
    let mut view = accepted_view(accepted, Some(&claim.origin.position));
    view["status"] = 200.into();
    view["state"] = phase_word(&claim.phase).into();
    if let Phase::Closed { outcome, at } = &claim.phase {
        view["outcome"] = task_view::outcome_word(*outcome).into();
        view["outcome_at"] = at.to_string().into();
    }
    view
}

fn phase_word(phase: &Phase) -> &'static str {
    match phase {
        Phase::Open => "running",
        Phase::Waiting => "waiting-review",
        Phase::Closed { .. } => "done",
    }
}

/// Enough to tell two payloads under one key apart.
fn short(digest: &[u8; 32]) -> String {
    blake3::Hash::from_bytes(*digest).to_hex()[..16].to_owned()
}

fn count(kind: &str, answer: &'static str) {
    metrics::counter!("tidegate_intake_total", "kind" => kind.to_owned(), "answer" => answer).increment(1);
}

/// A filter by a kind that nobody has would find nothing, and say that there is nothing.
pub(super) fn known_kind(app: &App, name: &str) -> Result<(), ApiError> {
    app.kinds.named(name).map(|_| ()).ok_or_else(|| no_such_kind(app, name))
}

pub(super) fn no_such_kind(app: &App, name: &str) -> ApiError {
    let known: Vec<&str> = app.settings.kinds.iter().map(|k| &*k.name).collect();
    let near = known.iter().map(|k| (strsim::jaro_winkler(k, name), *k)).max_by(|a, b| a.0.total_cmp(&b.0));
    let help = match near {
        Some((score, near)) if score > 0.8 => format!("did you mean `{near}`?"),
        _ => format!("the configuration has: {}", known.join(", ")),
    };
    // A name that a stranger chose may be long.
    let name: String = name.chars().take(80).collect();
    ApiError::not_found(format!("no kind `{name}`"), help)
        .with("reason", crate::outcome::Reason::KindUnknown.code())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Whose {
    #[serde(default)]
    tenant: String,
}

pub(super) async fn by_kind_and_key(
    State(app): State<App>,
    path: Result<Path<(String, String)>, PathRejection>,
    whose: Result<Query<Whose>, QueryRejection>,
) -> Result<Response, ApiError> {
    let (Path((kind, key)), Query(whose)) = (path?, whose?);
    if app.kinds.named(&kind).is_none() {
        return Err(no_such_kind(&app, &kind));
    }
    match app.lookup.find(&scope(&whose.tenant, &kind, &key)?).await? {
        Some(stands) => Ok(axum::Json(task_view::view(&stands)).into_response()),
        None => Err(no_such_task(&key)),
    }
}

pub(super) async fn by_key(
    State(app): State<App>,
    path: Result<Path<String>, PathRejection>,
    whose: Result<Query<Whose>, QueryRejection>,
) -> Result<Response, ApiError> {
    let (Path(key), Query(whose)) = (path?, whose?);
    let mut found: Vec<Stands> = Vec::new();
    for kind in &app.settings.kinds {
        found.extend(app.lookup.find(&scope(&whose.tenant, &kind.name, &key)?).await?);
    }
    match found.len() {
        0 => Err(no_such_task(&key)),
        1 => Ok(axum::Json(task_view::view(&found[0])).into_response()),
        n => {
            let kinds: Vec<&str> = found.iter().map(|s| &*s.key.kind).collect();
            let help =
                format!("ask for one of them: GET /v1/tasks/{{kind}}/{{key}} with {}", kinds.join(" or "));
            Err(ApiError::new(
                StatusCode::CONFLICT,
                "ambiguous",
                format!("{n} kinds have a task with this key"),
                help,
            )
            .with("kinds", kinds))
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    key: String,
    kind: Option<String>,
    #[serde(default)]
    tenant: String,
}

/// The same, for keys that a path cannot hold (`.` and `..`: clients take them for steps).
pub(super) async fn by_query(
    State(app): State<App>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(Wanted { key, kind, tenant }) = wanted?;
    let whose = Ok(Query(Whose { tenant }));
    match kind {
        Some(kind) => by_kind_and_key(State(app), Ok(Path((kind, key))), whose).await,
        None => by_key(State(app), Ok(Path(key)), whose).await,
    }
}

fn scope(tenant: &str, kind: &str, key: &str) -> Result<ScopedKey, ApiError> {
    if key.is_empty() || key.len() > KEY_MAX || tenant.len() > TENANT_MAX {
        return Err(ApiError::bad("the key is empty or longer than 1,024 bytes", "no task has such a key"));
    }
    Ok(ScopedKey::new(tenant, kind, key))
}

fn no_such_task(key: &str) -> ApiError {
    let help =
        "it was never accepted, its dedupe window is over, or it belongs to a tenant that must be named";
    ApiError::not_found(format!("no task with key `{key}` is known"), help)
}

//! The HTTP API: every route, and what they share.
//!
//! Handlers read the log and the ledger and append to the log; they never decide what becomes of a
//! task. No handler holds more than one request body, and every stream is bounded.

mod browser;
mod connection;
mod cursor;
mod dead_letters;
mod error;
mod feed;
mod hub;
mod intake;
mod kinds;
mod lookup;
#[cfg(test)]
mod memory;
mod models;
mod ready;
mod records;
mod results;
mod review;
mod server;
mod status;
mod task_view;
mod tasks;
#[cfg(test)]
mod tests;
mod writers;

pub use lookup::{Lookup, Place, Stands};

use crate::consume::Kinds;
use crate::engine::Engine;
use crate::infer::Models;
use crate::review::Queue;
use crate::settings::Settings;
use crate::task::{Timestamp, Topic};
use crate::telemetry;
use crate::worker::View;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, StatusCode, Uri};
use axum::routing::{get, post};
use connection::{Bounded, CONNECTIONS_MAX, IDLE, PATIENCE, RESERVE};
use error::ApiError;
use hub::Hub;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Request bodies read at the same time; each may be as large as `body_max` (16 MiB by default), so
/// this bounds the memory of intake. Two cores are busy long before.
const BODIES_MAX: usize = 16;
/// Event streams at the same time: some connections are left for requests.
const STREAMS_MAX: usize = 400;
/// How long open connections get to end once the process leaves.
const GRACE: Duration = Duration::from_secs(3);
/// How often gauges are read, and histograms drained into their buckets.
const UPKEEP: Duration = Duration::from_secs(2);

/// What the handlers share. Cloned for each request: everything in it is shared.
#[derive(Clone)]
pub struct App {
    engine: Engine,
    settings: Arc<Settings>,
    kinds: Arc<Kinds>,
    models: Arc<Models>,
    lookup: Lookup,
    queue: Queue,
    worker: View,
    started: Timestamp,
    results: Hub,
    dead_letters: Hub,
    reviews: Hub,
    bodies: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    /// Cancelled: the process is asked to stop. Running tasks may end, look-ups are answered, new tasks
    /// are not taken.
    stopping: CancellationToken,
    /// Ends the event streams, which would otherwise never end.
    leaving: CancellationToken,
}

impl App {
    pub fn new(
        engine: Engine,
        settings: Arc<Settings>,
        kinds: Arc<Kinds>,
        models: Arc<Models>,
        queue: Queue,
        worker: View,
        stopping: CancellationToken,
    ) -> Self {
        // The recorder stands before anything is counted.
        let _ = telemetry::metrics();
        let names = &settings.topics;
        let hub = |topics| Hub::new(engine.log.clone(), topics);
        let lookup = Lookup {
            engine: engine.clone(),
            names: names.clone(),
            results: result_topics(&settings),
            kinds: kinds.clone(),
            queue: queue.clone(),
        };
        App {
            lookup,
            results: hub(result_topics(&settings)),
            dead_letters: hub(vec![names.dead_letters.clone()]),
            reviews: hub(vec![names.review_requests.clone()]),
            bodies: Arc::new(Semaphore::new(BODIES_MAX)),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            stopping,
            leaving: CancellationToken::new(),
            started: Timestamp::now(),
            engine,
            settings,
            kinds,
            models,
            queue,
            worker,
        }
    }

    fn hubs(&self) -> [Hub; 3] {
        [self.results.clone(), self.dead_letters.clone(), self.reviews.clone()]
    }
}

/// Where results may lie: the common topic first, then each kind's own.
fn result_topics(settings: &Settings) -> Vec<Topic> {
    let mut topics = vec![settings.topics.results.clone()];
    for kind in &settings.kinds {
        if !topics.contains(&kind.to) {
            topics.push(kind.to.clone());
        }
    }
    topics
}

/// All routes. [`run`] also does what has to go on in the background.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/v1/tasks", post(tasks::submit).get(tasks::by_query))
        .route("/v1/tasks/{key}", get(tasks::by_key))
        .route("/v1/tasks/{kind}/{key}", get(tasks::by_kind_and_key))
        .route("/v1/records/{topic}", post(records::append))
        .route("/v1/results", get(results::events))
        .route("/v1/review", get(review::list))
        .route("/v1/review/events", get(review::events))
        .route("/v1/review/{id}", get(review::show))
        .route("/v1/review/{id}/{action}", post(review::decide))
        .route("/v1/dead-letters", get(dead_letters::list))
        .route("/v1/dead-letters/events", get(dead_letters::events))
        .route("/v1/dead-letters/redrive", post(dead_letters::redrive))
        .route("/v1/dead-letters/{id}", get(dead_letters::show))
        .route("/v1/dead-letters/{id}/value", get(dead_letters::value))
        .route("/v1/models", get(models::list))
        .route("/v1/kinds/{kind}/resume", post(kinds::resume))
        .route("/v1/status", get(status::status))
        .route("/metrics", get(ready::metrics))
        .route("/healthz", get(ready::alive))
        .route("/readyz", get(ready::ready))
        .fallback(no_such_route)
        .method_not_allowed_fallback(wrong_method)
        // Bodies are read by the handlers, which know the limit and answer in our own shape.
        .layer(DefaultBodyLimit::disable())
        .layer(axum::middleware::from_fn(browser::refuse))
        .with_state(app)
}

/// What is answered when all places are taken: health, and nothing else.
fn few(app: App) -> Router {
    Router::new()
        .route("/metrics", get(ready::metrics))
        .route("/healthz", get(ready::alive))
        .route("/readyz", get(ready::full))
        .fallback(server::full)
        .layer(axum::middleware::from_fn(browser::refuse))
        .with_state(app)
}

/// Serves until `stop`, then gives open requests a moment.
pub async fn run(app: App, listener: TcpListener, stop: CancellationToken) {
    let mut background = JoinSet::new();
    for hub in app.hubs() {
        let stop = stop.clone();
        background.spawn(async move { hub.pump(stop).await });
    }
    background.spawn(upkeep(app.clone(), stop.clone()));
    background.spawn({
        let (lookup, stop) = (app.lookup.clone(), stop.clone());
        async move { lookup.passes(stop).await }
    });
    let listener = Bounded::new(listener, CONNECTIONS_MAX, RESERVE, PATIENCE, IDLE);
    let heads = server::Heads {
        ordinary: server::HEAD,
        scarce: server::HEAD_SCARCE,
        reserved: server::HEAD_RESERVED,
    };
    let leaving = app.leaving.clone();
    let few = few(app.clone());
    let serve = server::serve(listener, router(app), few, heads, stop.clone());
    // Each of them runs until `stop`; without one, events or gauges would stand still unseen.
    let lost = async {
        while background.join_next().await.is_some() {
            if !stop.is_cancelled() {
                return;
            }
        }
        std::future::pending().await
    };
    let limit = async {
        stop.cancelled().await;
        leaving.cancel();
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        () = serve => {}
        () = lost => tracing::error!("a part of the HTTP API has ended"),
        () = limit => tracing::info!("some connections were still open"),
    }
    background.shutdown().await;
}

async fn upkeep(app: App, stop: CancellationToken) {
    let mut tick = tokio::time::interval(UPKEEP);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut told = false;
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.cancelled() => return,
        }
        let away = status::gauge(&app).await.err();
        match &away {
            Some(away) if !told => {
                tracing::warn!(%away, "the log cannot be read; its gauges stay as they were");
            }
            None if told => tracing::info!("the log can be read again"),
            _ => {}
        }
        told = away.is_some();
        telemetry::metrics().upkeep();
    }
}

async fn no_such_route(uri: Uri) -> ApiError {
    ApiError::not_found(
        format!("there is nothing at {}", uri.path()),
        "try /v1/tasks, /v1/results, /v1/review, /v1/dead-letters, /v1/models or /v1/status",
    )
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    let message = format!("{} does not take {method}", uri.path());
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method-not-allowed",
        message,
        "look at the response's `allow` header",
    )
}

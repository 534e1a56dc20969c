//! The HTTP side: reads a request, lets the rules decide, writes the reply at its times.
//!
//! No thread and no task per request: a reply is a stream that sleeps between its pieces.

use super::answer::{SURE, UNSURE, answer};
use super::conversation::{self, Asked};
use super::draw::Draws;
use super::faults::{self, Fault, Seen, Trouble};
use super::journal::{Entry, Journal, Summary};
use super::memory::Memory;
use super::reply::{self, After, Dialect, Reply, Times};
use super::scenario::{Clock, ModelRules, Scenario};
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt as _;
use axum::{Json, Router};
use serde_json::{Value, json};
use std::future::IntoFuture as _;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// A request may carry a long conversation; nobody sends more.
const REQUEST_MAX: usize = 32 * 1024 * 1024;
/// A silent connection is given up after this; every client has left long before.
const SILENCE_MAX: Duration = Duration::from_secs(600);
/// Between the last bytes of a breaking connection and its break, so that they are on their way.
const BEFORE_BREAK: Duration = Duration::from_millis(20);
/// Streams end at once when the server stops; connections get this long to close.
const STOP_MAX: Duration = Duration::from_secs(2);
/// A slot header or model name longer than this is cut in the log.
const NAME_MAX: usize = 512;

struct Server {
    scenario: Scenario,
    seed: u64,
    started: Instant,
    first_request: OnceLock<Instant>,
    memory: Arc<Memory>,
    journal: Arc<Journal>,
    cancel: CancellationToken,
}

/// Serves until `cancel`; the counts of everything that was asked.
///
/// `log`: appended to, one JSON line per request. Errors are those of the log and of the listener.
pub async fn serve(
    scenario: Scenario,
    seed: u64,
    log: Option<PathBuf>,
    listener: TcpListener,
    cancel: CancellationToken,
) -> std::io::Result<Summary> {
    let memory = Arc::new(Memory::default());
    let (journal, writer) = Journal::open(log.as_deref(), memory.clone()).await?;
    let journal = Arc::new(journal);
    let server = Arc::new(Server {
        scenario,
        seed,
        started: Instant::now(),
        first_request: OnceLock::new(),
        memory,
        journal: journal.clone(),
        cancel: cancel.clone(),
    });
    let closed = CancellationToken::new();
    let writing = async {
        match writer {
            Some(writer) => writer.run(closed.clone()).await,
            None => Ok(()),
        }
    };
    let serving = async {
        let served = listen(server, listener, &cancel).await;
        closed.cancel();
        served
    };
    tokio::try_join!(serving, writing)?;
    Ok(journal.summary())
}

async fn listen(
    server: Arc<Server>,
    listener: TcpListener,
    cancel: &CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/v1/chat/completions", post(chat))
        .route("/v1/messages", post(messages))
        .route("/v1/models", get(models))
        .route("/log/summary", get(summary))
        .layer(DefaultBodyLimit::max(REQUEST_MAX))
        .with_state(server);
    let listener = listener.tap_io(|io| {
        // Small pieces go out when they are due; where that cannot be set they go out a little later.
        let _ = io.set_nodelay(true);
    });
    let serving = axum::serve(listener, router).with_graceful_shutdown(cancel.clone().cancelled_owned());
    let too_late = async {
        cancel.cancelled().await;
        tokio::time::sleep(STOP_MAX).await;
    };
    tokio::select! {
        served = serving.into_future() => served,
        () = too_late => Ok(()),
    }
}

async fn chat(State(server): State<Arc<Server>>, headers: HeaderMap, body: Bytes) -> Response {
    server.take(Dialect::OpenAi, &headers, &body)
}

async fn messages(State(server): State<Arc<Server>>, headers: HeaderMap, body: Bytes) -> Response {
    server.take(Dialect::Anthropic, &headers, &body)
}

async fn models(State(server): State<Arc<Server>>) -> Json<Value> {
    let names = server.scenario.models.keys();
    let list: Vec<Value> = names
        .map(|id| json!({ "id": id, "object": "model", "created": 0, "owned_by": "simulated" }))
        .collect();
    Json(json!({ "object": "list", "data": list }))
}

async fn summary(State(server): State<Arc<Server>>) -> Json<Summary> {
    Json(server.journal.summary())
}

impl Server {
    fn take(&self, dialect: Dialect, headers: &HeaderMap, body: &[u8]) -> Response {
        let now = Instant::now();
        let first = *self.first_request.get_or_init(|| now);
        let json: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        let Some(asked) = conversation::read(&json) else {
            let entry = self.journal.begin("", "", 1);
            let what = "a request is a JSON object with `model` and `messages`";
            return self.write(reply::error(dialect, 400, what), entry, None);
        };
        let slot = match headers.get("x-tidegate-slot").and_then(|v| v.to_str().ok()) {
            Some(slot) => cut(slot).to_owned(),
            // Without a slot the same conversation is the same request.
            None => format!("{:016x}", super::draw::print(&[&json["messages"].to_string()])),
        };
        let occurrence = self.memory.ask(&slot);
        let mut entry = self.journal.begin(cut(&asked.model), &slot, occurrence);
        entry.prompt_bytes = asked.bytes;
        let Some(rules) = self.scenario.model(&asked.model) else {
            return self.write(reply::unknown_model(dialect, &asked.model), entry, None);
        };
        let since = match self.scenario.clock {
            Clock::Start => self.started,
            Clock::FirstRequest => first,
        };
        let draws = Draws::new(self.seed, &asked.model, &slot, occurrence);
        let trouble = self.meet(&asked, rules, &slot, now.duration_since(since), &draws);
        let reply = self.reply(dialect, &asked, rules, trouble, &draws);
        self.write(reply, entry, trouble)
    }

    fn meet(
        &self,
        asked: &Asked,
        rules: &ModelRules,
        slot: &str,
        passed: Duration,
        draws: &Draws,
    ) -> Option<Trouble> {
        let seen = Seen { model: &asked.model, payload: &asked.payload_text, passed, draws };
        faults::meet(&self.scenario.when, &rules.timeline, &seen, |rule| self.memory.first(rule, slot))
    }

    fn reply(
        &self,
        dialect: Dialect,
        asked: &Asked,
        rules: &ModelRules,
        trouble: Option<Trouble>,
        draws: &Draws,
    ) -> Reply {
        let sure = if trouble.is_some_and(|t| t.fault == Fault::LowConfidence) { UNSURE } else { SURE };
        let first = rules.first_token.sample(draws, "first token");
        let total = rules.total.sample(draws, "total").max(first);
        let answer = match asked.schema.is_none() && self.scenario.answer.is_empty() {
            true => Value::String("This is a simulated answer.".to_owned()),
            // What one asks twice is answered twice the same: chance goes by the slot alone.
            false => {
                let draws = Draws::new(self.seed, "", &asked.payload.to_string(), 0);
                answer(&self.scenario.answer, asked, &draws, sure)
            }
        };
        reply::reply(dialect, asked, &answer, trouble, Times { first, total })
    }

    fn write(&self, reply: Reply, mut entry: Entry, trouble: Option<Trouble>) -> Response {
        (entry.status, entry.fault) = (reply.status, trouble.map(|t| t.fault));
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(reply.content_type));
        if let Some(after) = reply.retry_after {
            // The header counts whole seconds; the other one, which some providers send too, does not.
            headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs_f64().ceil() as u64));
            let ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            headers.insert("retry-after-ms", HeaderValue::from(ms));
        }
        let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let (pieces, after) = (reply.pieces.into_iter(), reply.after);
        let writing =
            Writing { pieces, after, entry, cancel: self.cancel.clone(), due: tokio::time::Instant::now() };
        (status, headers, Body::from_stream(futures::stream::unfold(writing, Writing::next))).into_response()
    }
}

/// A reply that is being written.
struct Writing {
    pieces: std::vec::IntoIter<(Duration, Bytes)>,
    after: After,
    entry: Entry,
    cancel: CancellationToken,
    /// When the last piece was due: waits are counted from there, so that lateness does not add up.
    due: tokio::time::Instant,
}

impl Writing {
    async fn next(mut self) -> Option<(std::io::Result<Bytes>, Self)> {
        if let Some((wait, piece)) = self.pieces.next() {
            self.due += wait;
            let piece = if self.sleep_until(self.due).await { Ok(piece) } else { Err(stopped()) };
            return Some((piece, self));
        }
        match self.after {
            After::End => {
                // The connection asks for more once it holds the last piece, and writes it before it
                // asks again.
                self.entry.complete = true;
                tokio::task::yield_now().await;
                None
            }
            After::Break => {
                tokio::time::sleep(BEFORE_BREAK).await;
                Some((Err(std::io::Error::other("the connection breaks, as the scenario says")), self))
            }
            After::Silence => {
                self.sleep_until(tokio::time::Instant::now() + SILENCE_MAX).await;
                Some((Err(stopped()), self))
            }
        }
    }

    /// Whether the server still runs then.
    async fn sleep_until(&self, due: tokio::time::Instant) -> bool {
        tokio::select! {
            () = tokio::time::sleep_until(due) => true,
            () = self.cancel.cancelled() => false,
        }
    }
}

fn stopped() -> std::io::Error {
    std::io::Error::other("the server stops")
}

fn cut(name: &str) -> &str {
    let end = (0..=NAME_MAX.min(name.len())).rev().find(|&i| name.is_char_boundary(i)).unwrap_or(0);
    &name[..end]
}

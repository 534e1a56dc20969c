//! A model provider that says exactly what a story needs. Speaks OpenAI-style chat, streamed or not.
//!
//! The product's own simulated provider serves load and chance; here every reply is chosen.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) model: String,
    /// The slot it is for: `KEY.gGENERATION/NAME`.
    pub(crate) slot: String,
    /// Who asks, where the model's `headers` say it.
    pub(crate) asker: String,
    pub(crate) body: Value,
    /// How many came before it, to any model.
    pub(crate) nth: usize,
    /// Was sent an error: whoever asks again for the same slot retries, and repeats nothing.
    pub(crate) failed: bool,
}

impl Asked {
    /// Everything that was said to the model, in one text.
    pub(crate) fn words(&self) -> String {
        let messages = self.body["messages"].as_array().cloned().unwrap_or_default();
        messages.iter().map(|m| m["content"].to_string()).collect::<Vec<_>>().join("\n")
    }

    /// The slot without key and generation: `answer.r0#...`.
    pub(crate) fn slot_name(&self) -> &str {
        self.slot.split_once('/').map_or("", |(_, name)| name)
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Says(String),
    /// Ends without a finish signal. What it cost is told all the same.
    Cut(String),
    Refuses(String),
    Fails(u16, &'static [(&'static str, &'static str)], Value),
    /// Takes the request and says nothing until the client goes away.
    Silent,
    /// The reply, but not at once.
    After(Duration, Box<Reply>),
    /// The reply, once this says so.
    Once(watch::Receiver<bool>, Box<Reply>),
}

impl Reply {
    pub(crate) fn json(value: Value) -> Self {
        Reply::Says(value.to_string())
    }

    pub(crate) fn down() -> Self {
        Reply::Fails(503, &[], json!({ "error": { "message": "down for now", "type": "server_error" } }))
    }
}

type Rule = Arc<dyn Fn(&Asked) -> Reply + Send + Sync>;

#[derive(Clone)]
struct Desk {
    rule: Arc<Mutex<Rule>>,
    log: Arc<Mutex<Vec<Asked>>>,
    /// Requests that are being answered now, by their number, and the most there ever were.
    now: Arc<Mutex<BTreeMap<usize, Asked>>>,
    most: Arc<AtomicUsize>,
}

/// A request that is being answered, or whose client has not gone yet.
struct UnderWay(Arc<Mutex<BTreeMap<usize, Asked>>>, usize);

impl Desk {
    fn take(&self, headers: &HeaderMap, body: Value) -> (Asked, UnderWay) {
        let text =
            |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let model = body["model"].as_str().unwrap_or_default().to_owned();
        let (slot, asker) = (text("x-tidegate-slot"), text("x-asker"));
        let mut log = self.log.lock().unwrap();
        let asked = Asked { model, slot, asker, body, nth: log.len(), failed: false };
        log.push(asked.clone());
        let mut now = self.now.lock().unwrap();
        now.insert(asked.nth, asked.clone());
        self.most.fetch_max(now.len(), Ordering::SeqCst);
        let under_way = UnderWay(self.now.clone(), asked.nth);
        (asked, under_way)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.lock().unwrap().remove(&self.1);
    }
}

pub(crate) struct Provider {
    pub(crate) port: u16,
    desk: Desk,
    /// Ends with the provider.
    _server: JoinSet<()>,
}

impl Provider {
    pub(crate) async fn start(rule: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let rule: Rule = Arc::new(rule);
        let desk = Desk {
            rule: Arc::new(Mutex::new(rule)),
            log: Arc::default(),
            now: Arc::default(),
            most: Arc::default(),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let app = axum::Router::new()
            .route("/v1/chat/completions", axum::routing::post(chat))
            .with_state(desk.clone());
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, app).await.unwrap() });
        Provider { port, desk, _server: server }
    }

    /// From now on.
    pub(crate) fn now(&self, rule: impl Fn(&Asked) -> Reply + Send + Sync + 'static) {
        *self.desk.rule.lock().unwrap() = Arc::new(rule);
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.desk.log.lock().unwrap().clone()
    }

    pub(crate) fn asked_of(&self, model: &str) -> Vec<Asked> {
        self.asked().into_iter().filter(|a| a.model == model).collect()
    }

    /// What is being answered now, oldest first. It ends with its answer, or when its client goes away.
    pub(crate) fn under_way(&self) -> Vec<Asked> {
        self.desk.now.lock().unwrap().values().cloned().collect()
    }

    /// The most requests that were ever under way at once.
    pub(crate) fn most_at_once(&self) -> usize {
        self.desk.most.load(Ordering::SeqCst)
    }

    /// `[models.NAME]` for a configuration.
    pub(crate) fn model(&self, name: &str) -> String {
        self.patient_model(name, 2)
    }

    /// The same, with so many seconds of patience: a busy machine is no fault of the model.
    pub(crate) fn patient_model(&self, name: &str, seconds: u32) -> String {
        let port = self.port;
        format!(
            "[models.{name}]\napi = \"openai\"\nurl = \"http://127.0.0.1:{port}/v1\"\nmodel = \"{name}\"\nwindow_tokens = 100000\n\
             timeouts = {{ first_token = \"{seconds}s\", idle = \"{seconds}s\" }}\n"
        )
    }
}

async fn chat(State(desk): State<Desk>, headers: HeaderMap, axum::Json(body): axum::Json<Value>) -> Response {
    let (asked, _under_way) = desk.take(&headers, body);
    let rule = desk.rule.lock().unwrap().clone();
    let mut reply = rule(&asked);
    loop {
        reply = match reply {
            Reply::After(delay, reply) => {
                tokio::time::sleep(delay).await;
                *reply
            }
            Reply::Once(mut told, reply) => {
                // An error: who was to say so has gone, and the test is over.
                let _ = told.wait_for(|now| *now).await;
                *reply
            }
            _ => break,
        };
    }
    if matches!(reply, Reply::Fails(..) | Reply::Cut(_)) {
        desk.log.lock().unwrap()[asked.nth].failed = true;
    }
    let streamed = asked.body["stream"] == true;
    match reply {
        Reply::Says(words) => answer(&asked, &words, Some("stop"), streamed),
        Reply::Cut(words) => answer(&asked, &words, None, true),
        Reply::Refuses(words) => refusal(&asked, &words, streamed),
        Reply::Fails(status, headers, body) => {
            let mut answer = (StatusCode::from_u16(status).unwrap(), axum::Json(body)).into_response();
            for (name, value) in headers {
                answer.headers_mut().insert(*name, value.parse().unwrap());
            }
            answer
        }
        Reply::Silent | Reply::After(..) | Reply::Once(..) => std::future::pending().await,
    }
}

fn answer(asked: &Asked, words: &str, finish: Option<&str>, streamed: bool) -> Response {
    if !streamed {
        let choice = json!({ "index": 0, "message": { "role": "assistant", "content": words }, "finish_reason": finish });
        return whole(asked, &choice);
    }
    let mut pieces =
        vec![json!({ "index": 0, "delta": { "role": "assistant", "content": "" }, "finish_reason": null })];
    // Two pieces, so that nobody can take the first for the whole.
    let middle = (0..=words.len() / 2).rev().find(|&i| words.is_char_boundary(i)).unwrap_or(0);
    for part in [&words[..middle], &words[middle..]] {
        pieces.push(json!({ "index": 0, "delta": { "content": part }, "finish_reason": null }));
    }
    if let Some(finish) = finish {
        pieces.push(json!({ "index": 0, "delta": {}, "finish_reason": finish }));
    }
    stream(asked, pieces, finish.is_some())
}

fn refusal(asked: &Asked, words: &str, streamed: bool) -> Response {
    if !streamed {
        let message = json!({ "role": "assistant", "content": null, "refusal": words });
        return whole(asked, &json!({ "index": 0, "message": message, "finish_reason": "stop" }));
    }
    let pieces = vec![
        json!({ "index": 0, "delta": { "role": "assistant", "content": null, "refusal": words }, "finish_reason": null }),
        json!({ "index": 0, "delta": {}, "finish_reason": "stop" }),
    ];
    stream(asked, pieces, true)
}

fn whole(asked: &Asked, choice: &Value) -> Response {
    axum::Json(json!({ "id": "1", "object": "chat.completion", "model": asked.model, "choices": [choice], "usage": usage() }))
        .into_response()
}

fn stream(asked: &Asked, pieces: Vec<Value>, done: bool) -> Response {
    let mut text = String::new();
    for choice in pieces {
        let piece = json!({ "id": "1", "object": "chat.completion.chunk", "model": asked.model, "choices": [choice] });
        text.push_str(&format!("data: {piece}\n\n"));
    }
    let last = json!({ "id": "1", "object": "chat.completion.chunk", "model": asked.model, "choices": [], "usage": usage() });
    text.push_str(&format!("data: {last}\n\n"));
    if done {
        text.push_str("data: [DONE]\n\n");
    }
    ([("content-type", "text/event-stream")], Body::from(text)).into_response()
}

fn usage() -> Value {
    json!({ "prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15 })
}

/// Short waits of stories, in one place. A group of Kafka's needs a session and perhaps a transaction's time
/// until it has given up a process that was killed.
pub(crate) const SOON: Duration = Duration::from_secs(60);

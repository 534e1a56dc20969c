//! A schema registry that answers as Confluent's does, or as badly as a test needs.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinSet;

/// How it is.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Mood {
    Well,
    /// 503, as a node that starts.
    Down,
    /// Takes the request and answers after so long.
    Slow(Duration),
    /// Answers this, whatever it was asked.
    Says(u16, Vec<u8>),
    /// Knows no password but this.
    Guarded(&'static str),
}

struct Desk {
    mood: Mood,
    /// By id: what `GET /schemas/ids/{id}` answers.
    schemas: BTreeMap<u32, Value>,
    /// By subject: ids, oldest first.
    subjects: BTreeMap<String, Vec<u32>>,
    asked: Vec<String>,
}

pub(crate) struct Registry {
    pub(crate) port: u16,
    desk: Arc<Mutex<Desk>>,
    /// Ends with the registry.
    _server: JoinSet<()>,
}

impl Registry {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let desk =
            Desk { mood: Mood::Well, schemas: BTreeMap::new(), subjects: BTreeMap::new(), asked: vec![] };
        let desk = Arc::new(Mutex::new(desk));
        let app = axum::Router::new().fallback(answer).with_state(desk.clone());
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, app).await.unwrap() });
        Registry { port, desk, _server: server }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on.
    pub(crate) fn is(&self, mood: Mood) {
        self.desk.lock().unwrap().mood = mood;
    }

    /// Knows this schema by this id, and as the latest of the subject.
    pub(crate) fn has(&self, id: u32, subject: &str, schema: &Value) {
        let mut desk = self.desk.lock().unwrap();
        desk.schemas.insert(id, json!({ "schema": schema.to_string() }));
        desk.subjects.entry(subject.to_owned()).or_default().push(id);
    }

    /// Answers exactly this for the id.
    pub(crate) fn answers(&self, id: u32, answer: Value) {
        self.desk.lock().unwrap().schemas.insert(id, answer);
    }

    /// The latest id of a subject, and its schema.
    pub(crate) fn latest(&self, subject: &str) -> Option<(u32, Value)> {
        let desk = self.desk.lock().unwrap();
        let id = *desk.subjects.get(subject)?.last()?;
        let text = desk.schemas[&id]["schema"].as_str()?.to_owned();
        Some((id, serde_json::from_str(&text).unwrap()))
    }

    /// Method and path of every request so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.desk.lock().unwrap().asked.clone()
    }
}

async fn answer(
    State(desk): State<Arc<Mutex<Desk>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let body = axum::body::to_bytes(body, 1 << 22).await.unwrap();
    let mood = {
        let mut desk = desk.lock().unwrap();
        desk.asked.push(format!("{method} {}", uri.path()));
        desk.mood.clone()
    };
    match mood {
        Mood::Well => {}
        Mood::Down => return told(503, 50_001, "leader not known"),
        Mood::Slow(for_so_long) => tokio::time::sleep(for_so_long).await,
        Mood::Says(status, bytes) => return (StatusCode::from_u16(status).unwrap(), bytes).into_response(),
        Mood::Guarded(word) if headers.get("authorization").is_none_or(|said| said != word) => {
            return told(401, 40_101, "Unauthorized");
        }
        Mood::Guarded(_) => {}
    }
    let path: Vec<&str> = uri.path().trim_matches('/').split('/').collect();
    let mut desk = desk.lock().unwrap();
    match (method.as_str(), path.as_slice()) {
        ("GET", ["schemas", "ids", id]) => match desk.schemas.get(&id.parse::<u32>().unwrap()) {
            Some(answer) => axum::Json(answer.clone()).into_response(),
            None => told(404, 40_403, "Schema not found"),
        },
        ("GET", ["subjects", subject, "versions", version]) => version_of(&desk, subject, version),
        ("POST", ["subjects", subject, rest @ ..]) => {
            let sent: Value = serde_json::from_slice(&body).unwrap();
            let same = |id: &&u32| desk.schemas[*id]["schema"] == sent["schema"];
            let known = desk.subjects.get(*subject).and_then(|ids| ids.iter().find(same)).copied();
            match (known, rest) {
                (Some(id), _) => axum::Json(json!({ "id": id })).into_response(),
                (None, []) => told(404, 40_403, "Schema not found"),
                (None, _) => {
                    let id = desk.schemas.keys().max().map_or(1, |id| id + 1);
                    desk.schemas.insert(id, json!({ "schema": sent["schema"] }));
                    desk.subjects.entry((*subject).to_owned()).or_default().push(id);
                    axum::Json(json!({ "id": id })).into_response()
                }
            }
        }
        _ => told(404, 404, "HTTP 404 Not Found"),
    }
}

fn version_of(desk: &Desk, subject: &str, version: &str) -> Response {
    let Some(ids) = desk.subjects.get(subject) else { return told(404, 40_401, "Subject not found") };
    let at = if version == "latest" { ids.len() } else { version.parse().unwrap() };
    let Some(id) = at.checked_sub(1).and_then(|i| ids.get(i)) else {
        return told(404, 40_402, "Version not found");
    };
    let mut answer = desk.schemas[id].clone();
    answer["id"] = (*id).into();
    answer["subject"] = subject.into();
    answer["version"] = at.into();
    axum::Json(answer).into_response()
}

fn told(status: u16, code: i64, message: &str) -> Response {
    let body = axum::Json(json!({ "error_code": code, "message": message }));
    (StatusCode::from_u16(status).unwrap(), body).into_response()
}

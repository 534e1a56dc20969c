//! The HTTP API of a running process, as a client sees it.

use serde_json::{Value, json};
use std::time::Duration;

#[derive(Clone)]
pub(crate) struct Api {
    base: String,
    client: reqwest::Client,
}

/// Status and body. A body that is not JSON is a JSON text.
pub(crate) type Answer = (u16, Value);

impl Api {
    pub(crate) fn new(port: u16) -> Self {
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().unwrap();
        Api { base: format!("http://127.0.0.1:{port}"), client }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// `Err`: nobody answered; what became of the request is not known.
    pub(crate) async fn get(&self, path: &str) -> Result<Answer, reqwest::Error> {
        read(self.client.get(self.url(path)).send().await?).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Answer, reqwest::Error> {
        read(self.client.post(self.url(path)).json(body).send().await?).await
    }

    pub(crate) async fn post_bytes(
        &self,
        path: &str,
        kind: &str,
        body: Vec<u8>,
    ) -> Result<Answer, reqwest::Error> {
        read(self.client.post(self.url(path)).header("content-type", kind).body(body).send().await?).await
    }

    /// A stream of events that somebody holds open.
    pub(crate) async fn listen(&self, path: &str) -> reqwest::Response {
        let answer = self.client.get(self.url(path)).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer
    }

    /// Submits one task and insists that it is durable or known.
    pub(crate) async fn submit(&self, kind: &str, key: &str, payload: Value) -> Answer {
        let (status, body) = self.offer(kind, key, payload, json!({})).await;
        assert!(status == 202 || status == 200, "{kind}/{key}: {status} {body}");
        (status, body)
    }

    /// Submits one task, whatever comes of it.
    pub(crate) async fn offer(&self, kind: &str, key: &str, payload: Value, headers: Value) -> Answer {
        let task = json!({ "kind": kind, "key": key, "payload": payload, "headers": headers });
        self.post("/v1/tasks", &task).await.unwrap_or_else(|e| panic!("{kind}/{key}: {e}"))
    }

    pub(crate) async fn task(&self, kind: &str, key: &str) -> Option<Value> {
        match self.get(&format!("/v1/tasks/{kind}/{key}")).await.ok()? {
            (200, task) => Some(task),
            _ => None,
        }
    }

    /// Waits until the task is in `state`: `queued`, `running`, `waiting-until`, `waiting-review`, `done`.
    pub(crate) async fn until(&self, kind: &str, key: &str, state: &str) -> Value {
        let mut seen = Value::Null;
        for _ in 0..3000 {
            if let Some(task) = self.task(kind, key).await {
                if task["state"] == state {
                    return task;
                }
                seen = task;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{kind}/{key} is not `{state}` after 60 s; it is {seen}");
    }

    /// The one open review item of a task.
    pub(crate) async fn item(&self, kind: &str, key: &str) -> Value {
        let task = self.until(kind, key, "waiting-review").await;
        let id = task["review"]["id"].as_str().unwrap().to_owned();
        let (status, item) = self.get(&format!("/v1/review/{id}")).await.unwrap();
        assert_eq!(status, 200, "{item}");
        item
    }

    pub(crate) async fn decide(&self, id: &str, action: &str, body: Value) -> Answer {
        self.post(&format!("/v1/review/{id}/{action}"), &body).await.unwrap()
    }

    pub(crate) async fn is_ready(&self) -> bool {
        matches!(self.get("/readyz").await, Ok((200, _)))
    }

    /// One sample of `/metrics`, summed over its labels; 0 where there is none.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let text = match self.client.get(self.url("/metrics")).send().await {
            Ok(answer) => answer.text().await.unwrap_or_default(),
            Err(_) => return 0.0,
        };
        let values = text.lines().filter(|l| {
            l.strip_prefix(name).is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' '))
        });
        values.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

async fn read(answer: reqwest::Response) -> Result<Answer, reqwest::Error> {
    let status = answer.status().as_u16();
    let bytes = answer.bytes().await?;
    let body = serde_json::from_slice(&bytes)
        .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&bytes).into_owned()));
    Ok((status, body))
}

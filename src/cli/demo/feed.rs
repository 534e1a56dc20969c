//! What is seen of the processor from outside: its events, its status, and what it answers to records.
//!
//! Every feed survives the worker's death: streams go on after the last event they saw, requests
//! without an answer are sent again.

use super::super::client::{Client, Events, Failed};
use super::books::{Answered, Id, Meant};
use super::tickets::{Batch, Body, Sent};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Events that wait to be written into the books; the streams wait when it is full.
const WAITING_MAX: usize = 1_024;
/// How often the status is asked; a person sees a change at once at this pace.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long to wait before a request without an answer is sent again.
const AGAIN: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) enum Told {
    Answered {
        id: Id,
        meant: Meant,
        answered: Answered,
    },
    /// No answer came; it will be sent again.
    Unanswered {
        id: Id,
        meant: Meant,
    },
    AllSent,
    Result(Value),
    Letter(Value),
    /// The event, and the item with all it holds (null where it could not be read).
    Opened(Value, Value),
    Decided(Value),
    /// All that the processor says of itself.
    Seen(Value),
    Broken(String),
}

type Tell = mpsc::Sender<Told>;

/// Everything that runs beside the books. Ends when it is dropped.
pub(super) struct Feeds {
    running: JoinSet<()>,
    pub(super) told: mpsc::Receiver<Told>,
}

impl Feeds {
    /// Subscribed before the first record is sent, so that nothing is missed.
    pub(super) async fn open(client: &Client, plan: Vec<Batch>, began: Instant) -> Result<Feeds, Failed> {
        let (tell, told) = mpsc::channel(WAITING_MAX);
        let start = [("from", "start")];
        let results = Events::open(client, &["v1", "results"], &start).await?;
        let letters = Events::open(client, &["v1", "dead-letters", "events"], &start).await?;
        let reviews = Events::open(client, &["v1", "review", "events"], &start).await?;
        let mut running = JoinSet::new();
        running.spawn(follow(results, None, tell.clone()));
        running.spawn(follow(letters, None, tell.clone()));
        running.spawn(follow(reviews, Some(client.clone()), tell.clone()));
        running.spawn(look(client.clone(), tell.clone()));
        running.spawn(send(client.clone(), plan, began, tell));
        Ok(Feeds { running, told })
    }

    pub(super) async fn close(mut self) {
        self.running.shutdown().await;
    }
}

async fn follow(mut events: Events, items: Option<Client>, tell: Tell) {
    loop {
        let told = match events.next(|_| {}).await {
            Err(failed) => {
                // Nobody listens: the demo ends.
                let _ = tell.send(Told::Broken(failed.to_string())).await;
                return;
            }
            Ok(event) => {
                let data = serde_json::from_str(&event.data).unwrap_or(Value::Null);
                match (event.name.as_str(), &items) {
                    ("result", _) => Told::Result(data),
                    ("dead-letter", _) => Told::Letter(data),
                    ("decided", _) => Told::Decided(data),
                    ("opened", Some(client)) => {
                        let item = item(client, &data).await;
                        Told::Opened(data, item)
                    }
                    _ => continue,
                }
            }
        };
        if tell.send(told).await.is_err() {
            return;
        }
    }
}

/// A decided item is gone, and its result tells the rest.
async fn item(client: &Client, event: &Value) -> Value {
    let id = event["id"].as_str().unwrap_or_default();
    loop {
        match client.get(&["v1", "review", id], &[]).await {
            Ok(item) => return item,
            Err(failed) if failed.passes() => tokio::time::sleep(AGAIN).await,
            Err(_) => return Value::Null,
        }
    }
}

async fn look(client: Client, tell: Tell) {
    let mut tick = tokio::time::interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tick.tick().await;
        // The models' figures are in it too, of the same life and the same moment.
        if let Ok(status) = client.get(&["v1", "status"], &[]).await
            && tell.send(Told::Seen(status)).await.is_err()
        {
            return;
        }
    }
}

async fn send(client: Client, plan: Vec<Batch>, began: Instant, tell: Tell) {
    for batch in plan {
        tokio::time::sleep_until((began + batch.at).into()).await;
        loop {
            match post(&client, &batch.records).await {
                Ok(answers) => {
                    for (sent, answered) in batch.records.into_iter().zip(answers) {
                        let told = Told::Answered { id: sent.id, meant: sent.meant, answered };
                        if tell.send(told).await.is_err() {
                            return;
                        }
                    }
                    break;
                }
                Err(failed) if failed.passes() => {
                    for sent in &batch.records {
                        let told = Told::Unanswered { id: sent.id.clone(), meant: sent.meant };
                        if tell.send(told).await.is_err() {
                            return;
                        }
                    }
                    tokio::time::sleep(AGAIN).await;
                }
                Err(failed) => {
                    let _ = tell.send(Told::Broken(failed.to_string())).await;
                    return;
                }
            }
        }
    }
    // Nobody listens: the demo ends.
    let _ = tell.send(Told::AllSent).await;
}

/// One answer for each record, in order.
async fn post(client: &Client, records: &[Sent]) -> Result<Vec<Answered>, Failed> {
    if let [Sent { id: (kind, key), body: Body::Raw(value), .. }] = records {
        let topic = format!("tasks.{kind}");
        let headers = json!({ "idempotency-key": key });
        let body = json!({ "records": [{ "key": key, "value": value, "headers": headers }] });
        let answer = client.post(&["v1", "records", &topic], &body).await?;
        let position = answer["positions"][0].as_str().unwrap_or_default().to_owned();
        return Ok(vec![Answered::Taken { position }]);
    }
    let task = |sent: &Sent| match &sent.body {
        Body::Payload(payload) => json!({ "kind": sent.id.0, "key": sent.id.1, "payload": payload }),
        Body::Raw(value) => json!({ "kind": sent.id.0, "key": sent.id.1, "payload": value }),
    };
    let tasks: Vec<Value> = records.iter().map(task).collect();
    let answer = client.post(&["v1", "tasks"], &Value::Array(tasks)).await?;
    Ok(answer["tasks"].as_array().into_iter().flatten().map(answered).collect())
}

fn answered(answer: &Value) -> Answered {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    match answer["status"].as_u64() {
        Some(202) => Answered::Taken { position: text(&answer["position"]) },
        Some(200) => Answered::Known,
        _ => Answered::Refused { code: text(&answer["error"]["code"]) },
    }
}

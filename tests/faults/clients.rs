//! What goes on beside a processor that is about to be killed: tasks by HTTP, decisions of reviewers,
//! redrives. Whatever is answered is noted as promised.

use crate::promised::{Decided, Offered, Promised, Redriven};
use crate::rig::Dice;
use crate::rig::api::Api;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinSet;

pub(crate) type Notes = Arc<Mutex<Promised>>;

/// All of them, until they are shut down.
pub(crate) fn clients(api: &Api, notes: &Notes, life: u64, seed: u64) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    let (a, n) = (api.clone(), notes.clone());
    clients.spawn(async move { submit(&a, life, &n).await });
    let (a, n) = (api.clone(), notes.clone());
    clients.spawn(async move { decide(&a, life, Dice::new(seed ^ life), &n).await });
    let (a, n) = (api.clone(), notes.clone());
    clients.spawn(async move { redrive(&a, life, &n).await });
    clients
}

async fn submit(api: &Api, life: u64, notes: &Notes) {
    for n in 0.. {
        let tasks: Vec<(String, Offered)> = (0..5)
            .map(|i| {
                let key = format!("http-{life}-{n}-{i}");
                let kind = if i == 0 { "ticket" } else { "copy" }.to_owned();
                let payload = json!({ "n": n, "text": format!("a plain request by {key}") });
                (key, Offered { kind, payload })
            })
            .collect();
        let body: Vec<Value> = tasks
            .iter()
            .map(|(key, o)| json!({ "kind": o.kind, "key": key, "payload": o.payload }))
            .collect();
        // Noted before it is sent: what was sent may be there, whether or not it was answered.
        notes.lock().unwrap().offered.extend(tasks.iter().cloned());
        match api.post("/v1/tasks", &Value::Array(body)).await {
            Ok((202, _)) => notes.lock().unwrap().accepted.extend(tasks.into_iter().map(|(key, _)| key)),
            // Not up yet, paused, or gone: nothing is known of these tasks, and nothing promised.
            Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Half of the open items are decided, one by one; the rest stays open to the end.
async fn decide(api: &Api, life: u64, mut dice: Dice, notes: &Notes) {
    for n in 0.. {
        tokio::time::sleep(Duration::from_millis(30)).await;
        let Ok((200, open)) = api.get("/v1/review").await else { continue };
        let Some(items) = open["items"].as_array() else { continue };
        for item in items {
            let id = item["id"].as_str().unwrap_or_default().to_owned();
            // By the item itself, so that it is the same in every life.
            if id.as_bytes().first().is_none_or(|b| b % 2 == 1) {
                continue;
            }
            let action = if dice.percent(50) { "approve" } else { "reject" };
            let by = format!("ada-{life}-{n}");
            let said = json!({ "by": by, "reason": "drawn" });
            let status = match api.post(&format!("/v1/review/{id}/{action}"), &said).await {
                Ok((200, told)) => Some(told["status"].as_str().unwrap().to_owned()),
                Ok((202, _)) => None,
                // Decided before, refused, or killed in between: nothing is promised.
                Ok(_) | Err(_) => continue,
            };
            notes.lock().unwrap().decided.push(Decided { item: id, by, status });
        }
    }
}

/// Sends a few dead letters again: outcomes, and records that never owned their key.
async fn redrive(api: &Api, life: u64, notes: &Notes) {
    let reason =
        ["deadline-passed", "key-conflict", "malformed", "input-refused"][usize::try_from(life % 4).unwrap()];
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let Ok((200, found)) = api.get(&format!("/v1/dead-letters?reason={reason}&limit=3")).await else {
            continue;
        };
        let letters = found["dead_letters"].as_array().cloned().unwrap_or_default();
        for letter in &letters {
            // Killed in between: nobody knows whether it was sent, and a second one must do no harm.
            let asked = json!({ "id": letter["id"] });
            let Ok((200, told)) = api.post("/v1/dead-letters/redrive", &asked).await else { continue };
            let sent = told["dead_letters"].as_array().into_iter().flatten().filter_map(|l| {
                let text = |name: &str| l[name].as_str().map(ToOwned::to_owned);
                Some(Redriven { letter: text("id")?, sent_to: text("sent_to")? })
            });
            notes.lock().unwrap().redriven.extend(sent);
        }
        if !letters.is_empty() {
            return;
        }
    }
}

//! Follows `/v1/results` and notes when each key became visible.

use crate::rig::api::Api;
use futures::StreamExt as _;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Keys and the moment their result was seen.
#[derive(Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<HashMap<String, Instant>>>);

impl Seen {
    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    pub(crate) fn at(&self, key: &str) -> Option<Instant> {
        self.0.lock().unwrap().get(key).copied()
    }

    pub(crate) fn first(&self) -> Option<Instant> {
        self.0.lock().unwrap().values().min().copied()
    }

    fn note(&self, key: String) {
        self.0.lock().unwrap().entry(key).or_insert_with(Instant::now);
    }
}

/// Watches from now on, until the set is dropped. Connects again while nobody listens.
pub(crate) fn results(api: &Api) -> (Seen, JoinSet<()>) {
    let (seen, mut watching) = (Seen::default(), JoinSet::new());
    let (url, notes) = (api.url("/v1/results"), seen.clone());
    watching.spawn(async move {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        loop {
            match client.get(&url).send().await {
                Ok(answer) if answer.status().is_success() => follow(answer, &notes).await,
                _ => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    });
    (seen, watching)
}

async fn follow(answer: reqwest::Response, seen: &Seen) {
    let mut stream = answer.bytes_stream();
    let mut rest = Vec::new();
    while let Some(Ok(piece)) = stream.next().await {
        rest.extend_from_slice(&piece);
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            if let Some(key) = line.strip_prefix(b"data:").and_then(key_of) {
                seen.note(key);
            }
        }
    }
}

/// The first `"key":"…"` of an envelope; reading all of it would cost what we measure.
fn key_of(data: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(data).ok()?;
    let (_, behind) = text.split_once("\"key\":\"")?;
    Some(behind.split('"').next()?.to_owned())
}

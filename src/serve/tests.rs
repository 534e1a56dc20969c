//! The API over real sockets, with an engine in memory that holds what each test puts there.

mod beginning;
mod bounds;
mod dead_letters;
mod decisions;
mod lost_marks;

use super::memory::Memory;
use super::{App, run};
use crate::consume::Kinds;
use crate::dedupe::{ClaimView, Phase};
use crate::engine::{Health, Output};
use crate::fingerprint::fingerprint;
use crate::infer::Models;
use crate::outcome::{OutcomeKind, Reason, Status};
use crate::review::Queue;
use crate::settings::{Settings, Shape};
use crate::task::{Headers, Origin, Position, PrintRule, Record, ScopedKey, Timestamp, Token, Topic};
use crate::token::{self, Carry};
use crate::trail::Trail;
use crate::worker::View;
use crate::write::record::{Burial, Envelope, MadeBy, ReviewItem, Usage, VERSION, item_id};
use crate::write::{self};
use bytes::Bytes;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

struct Server {
    memory: Memory,
    url: String,
    client: reqwest::Client,
    stopping: CancellationToken,
    lookup: super::Lookup,
    app: App,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    _dir: tempfile::TempDir,
}

const CONFIGURATION: &str = r#"
[tasks.copy]
input = { text = "string" }
[tasks.other]
"#;

impl Server {
    async fn start() -> Server {
        Server::start_on(Memory::new()).await
    }

    /// On what an earlier process left in the log.
    async fn start_on(memory: Memory) -> Server {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tidegate.toml");
        std::fs::write(&file, CONFIGURATION).unwrap();
        let settings = Settings::load(&file).map_err(|e| e.to_string()).unwrap();
        let settings = Arc::new(settings);
        let models = Arc::new(Models::new(&settings.models, 1 << 20).unwrap());
        let (kinds, queue) = (Arc::new(Kinds::new(&settings)), Queue::default());
        let (view, stopping) = (View::default(), CancellationToken::new());
        let engine = memory.engine();
        let app = App::new(engine, settings.clone(), kinds, models, queue.clone(), view, stopping.clone());
        let (lookup, serves) = (app.lookup.clone(), app.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let (log, requests) = (memory.engine().log, settings.topics.review_requests.clone());
        let (ends, follow) = (stop.clone(), stop.clone());
        tasks.spawn(async move { run(serves, listener, ends).await });
        tasks.spawn(async move { queue.follow(log, requests, follow).await });
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap();
        Server { memory, url, client, stopping, lookup, app, stop, tasks, _dir: dir }
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let answer = self.client.get(format!("{}{path}", self.url)).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn post(&self, path: &str, kind: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
        let request = self.client.post(format!("{}{path}", self.url)).header("content-type", kind);
        let answer = request.body(body).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn offer(&self, task: &Value) -> (u16, Value) {
        self.post("/v1/tasks", "application/json", task.to_string()).await
    }

    async fn events(&self, path: &str, after: Option<&str>) -> Stream {
        let mut request = self.client.get(format!("{}{path}", self.url));
        if let Some(id) = after {
            request = request.header("last-event-id", id);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        let mut stream = Stream { answer, text: String::new(), id: String::new() };
        // The first bytes say where it begins.
        while stream.id.is_empty() {
            stream.fill().await;
            stream.step();
        }
        stream
    }

    /// A result in the log, as the pipeline publishes it.
    fn publish(&self, token: &Token, answer: Value) -> Position {
        let mut trail = Trail::default();
        trail.note(Timestamp(1), "admitted", "");
        let key = Some(Bytes::from(token.key.key.to_string()));
        let envelope = envelope(token, answer);
        self.memory.put(write::result(
            &Topic::new("results"),
            Shape::Envelope,
            None,
            key,
            &envelope,
            token,
            &trail,
        ))
    }

    async fn end(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

struct Stream {
    answer: reqwest::Response,
    text: String,
    id: String,
}

impl Stream {
    async fn fill(&mut self) {
        let piece = self.answer.chunk().await.unwrap().expect("the stream has ended");
        self.text.push_str(std::str::from_utf8(&piece).unwrap());
    }

    /// The next whole event's name and data; takes note of its id.
    fn step(&mut self) -> Option<(String, Value)> {
        let (event, rest) = self.text.split_once("\n\n").map(|(e, r)| (e.to_owned(), r.to_owned()))?;
        self.text = rest;
        let field = |name: &str| {
            event.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned))
        };
        if let Some(id) = field("id") {
            self.id = id;
        }
        let data = field("data").map(|d| serde_json::from_str(&d).unwrap());
        data.map(|data| (field("event").unwrap(), data))
    }

    async fn next(&mut self) -> (String, Value) {
        loop {
            if let Some(event) = self.step() {
                return event;
            }
            if !self.text.contains("\n\n") {
                self.fill().await;
            }
        }
    }

    async fn keys(&mut self, n: usize) -> Vec<String> {
        let mut keys = Vec::new();
        for _ in 0..n {
            keys.push(self.next().await.1["key"].as_str().unwrap().to_owned());
        }
        keys.sort_unstable();
        keys
    }
}

fn token(kind: &str, key: &str, at: &Position, payload: &str) -> Token {
    Token {
        key: ScopedKey::new("", kind, key),
        generation: 0,
        origin: Origin { position: at.clone(), stamp: Timestamp(1_000) },
        hop: 0,
        print: fingerprint(&PrintRule::Whole, payload.as_bytes()).unwrap(),
        proof: None,
        payload: Bytes::from(payload.to_owned()),
    }
}

fn envelope(token: &Token, answer: Value) -> Envelope {
    Envelope {
        v: VERSION,
        key: token.key.key.to_string(),
        kind: token.key.kind.to_string(),
        tenant: None,
        generation: token.generation,
        origin: token::write_origin(&token.origin),
        fingerprint: token::write_print(&token.print),
        status: Status::Accepted,
        late: false,
        answer,
        confidence: Value::Null,
        made_by: MadeBy::default(),
        usage: Usage::default(),
        tries: json!([]),
        repairs: json!([]),
        effects: vec![],
        reviewed: None,
        accepted_at: "2026-11-24T12:00:00Z".into(),
        finished_at: "2026-11-24T12:00:01Z".into(),
    }
}

fn claim(token: &Token, hop: u32, phase: Phase) -> ClaimView {
    ClaimView {
        key: token.key.clone(),
        generation: token.generation,
        origin: token.origin.clone(),
        hop,
        print: token.print.clone(),
        decider: None,
        phase,
        slots: vec![],
        since: Timestamp(1_000),
        // The server's own slow pass leaves what has changed within the hour.
        changed: Timestamp::now(),
    }
}

fn position(text: &str) -> Position {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_batch_answers_each_task_in_order_and_appends_what_is_good_in_one_step() {
    let server = Server::start().await;
    let body = concat!("{\"text\":\"a\"}\n", "{\"text\":\n", "{\"text\":7}\n", "\n", "{\"text\":\"b\"}\n",);
    let (status, told) = server.post("/v1/tasks?kind=copy&key=content", "application/x-ndjson", body).await;
    assert_eq!(status, 202, "{told}");
    assert_eq!((&told["accepted"], &told["refused"]), (&json!(2), &json!(2)), "{told}");
    let seen: Vec<_> = told["tasks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| (t["line"].as_u64().unwrap(), t["status"].as_u64().unwrap()))
        .collect();
    assert_eq!(seen, [(1, 202), (2, 400), (3, 422), (5, 202)]);
    assert_eq!(told["tasks"][2]["error"]["code"], "input-refused");
    assert_eq!(told["tasks"][0]["content_key"], true);
    let records = server.memory.all("tasks.copy");
    let mut values: Vec<_> = records.iter().map(|r| r.value.clone().unwrap()).collect();
    values.sort_unstable();
    assert_eq!(values, ["{\"text\":\"a\"}", "{\"text\":\"b\"}"], "as they came, nothing else");
    let first = position(told["tasks"][0]["position"].as_str().unwrap());
    assert_eq!(
        records.iter().find(|r| r.position == first).unwrap().value.as_deref(),
        Some(&b"{\"text\":\"a\"}"[..])
    );
    server.end().await;
}

#[tokio::test]
async fn one_task_is_refused_with_the_status_that_says_why() {
    let server = Server::start().await;
    let good = json!({ "text": "x" });
    for (task, status, code) in [
        (json!({ "kind": "copy", "payload": good }), 400, "key-missing"),
        (json!({ "kind": "copy", "key": "k".repeat(1_025), "payload": good }), 400, "key-too-long"),
        (json!({ "kind": "copy", "key": "k", "payload": { "text": 1 } }), 422, "input-refused"),
        (json!({ "kind": "copie", "key": "k", "payload": good }), 404, "not-found"),
        (json!({ "kind": "copy", "key": "k" }), 400, "malformed"),
        (json!({ "kind": "other", "key": "k", "payload": "x".repeat(1 << 20) }), 413, "record-too-large"),
    ] {
        let (got, told) = server.offer(&task).await;
        assert_eq!((got, &told["error"]["code"]), (status, &json!(code)), "{told}");
        assert!(told["error"]["help"].as_str().is_some_and(|h| !h.is_empty()), "{told}");
    }
    let (status, told) = server.post("/v1/tasks", "application/json", "{\"kind\":").await;
    assert_eq!((status, &told["error"]["code"]), (400, &json!("malformed")));
    let (status, told) = server.post("/v1/tasks", "application/json", vec![b'x'; 17 << 20]).await;
    assert_eq!((status, &told["error"]["code"]), (413, &json!("body-too-large")));
    let (status, told) = server.get("/v1/nothing").await;
    assert_eq!((status, &told["error"]["code"]), (404, &json!("not-found")));
    assert!(server.memory.all("tasks.copy").is_empty());
    server.end().await;
}

#[tokio::test]
async fn a_known_key_is_answered_with_its_outcome_and_another_payload_is_a_conflict() {
    let server = Server::start().await;
    let token = token("copy", "k", &position("tasks.copy/0/0"), r#"{"text":"x"}"#);
    let at = server.publish(&token, json!({ "text": "x" }));
    server.memory.claim(claim(&token, 0, Phase::Closed { outcome: OutcomeKind::Result, at: at.clone() }));
    let task = json!({ "kind": "copy", "key": "k", "payload": { "text": "x" } });
    let (status, told) = server.offer(&task).await;
    assert_eq!(
        (status, &told["state"], &told["result"]["answer"]["text"]),
        (200, &json!("done"), &json!("x")),
        "{told}"
    );
    assert_eq!(told["outcome_at"], at.to_string());
    let (status, told) =
        server.offer(&json!({ "kind": "copy", "key": "k", "payload": { "text": "y" } })).await;
    assert_eq!(
        (status, &told["error"]["code"], &told["error"]["state"]),
        (409, &json!("key-conflict"), &json!("done")),
        "{told}"
    );
    let batch = json!([task, { "kind": "copy", "key": "new", "payload": { "text": "x" } }]);
    let (status, told) = server.offer(&batch).await;
    assert_eq!((status, &told["accepted"], &told["known"]), (202, &json!(1), &json!(1)), "{told}");
    assert_eq!(server.memory.all("tasks.copy").len(), 1, "what is known is not appended again");
    server.end().await;
}

#[tokio::test]
async fn hostile_keys_are_found_again() {
    let server = Server::start().await;
    for key in ["a/b", "..", "a?b#c", "grüße 世界", "%2F", "\u{1}\n", &"é".repeat(512)] {
        let (status, told) =
            server.offer(&json!({ "kind": "copy", "key": key, "payload": { "text": "x" } })).await;
        assert_eq!(status, 202, "{key}: {told}");
        let mut url = reqwest::Url::parse(&server.url).unwrap();
        url.set_path("/v1/tasks");
        url.query_pairs_mut().append_pair("key", key);
        let found: Value = server.client.get(url).send().await.unwrap().json().await.unwrap();
        assert_eq!(
            (&found["key"], &found["state"], &found["kind"]),
            (&json!(key), &json!("queued"), &json!("copy"))
        );
        // Clients take dots for steps and drop line feeds; the query holds every key.
        if key != ".." && !key.contains('\n') {
            let mut url = reqwest::Url::parse(&server.url).unwrap();
            url.path_segments_mut().unwrap().extend(["v1", "tasks", "copy", key]);
            let found: Value = server.client.get(url).send().await.unwrap().json().await.unwrap();
            assert_eq!((&found["key"], &found["state"]), (&json!(key), &json!("queued")), "{found}");
        }
    }
    server.end().await;
}

#[tokio::test]
async fn a_key_of_two_kinds_is_asked_back() {
    let server = Server::start().await;
    for kind in ["copy", "other"] {
        server.offer(&json!({ "kind": kind, "key": "k", "payload": { "text": "x" } })).await;
    }
    let (status, told) = server.get("/v1/tasks/k").await;
    assert_eq!((status, &told["error"]["kinds"]), (409, &json!(["copy", "other"])), "{told}");
    assert_eq!(server.get("/v1/tasks/other/k").await.1["kind"], "other");
    assert_eq!(server.get("/v1/tasks/k?tenant=north").await.0, 404, "another tenant's is not found");
    server.end().await;
}

#[tokio::test]
async fn p1_a_look_up_finds_the_outcome_whose_mark_was_lost_and_repairs_the_ledger() {
    let server = Server::start().await;
    let origin = position("tasks.copy/0/0");
    server.memory.complete(&origin);
    let (mine, mut older) =
        (token("copy", "k", &origin, "{}"), token("copy", "k", &position("tasks.copy/1/9"), "{}"));
    older.generation = 3;
    // Not its chain: another origin and generation, and a dead letter under its own coordinates.
    server.publish(&older, json!("not this"));
    server.memory.claim(claim(&mine, 0, Phase::Open));
    assert_eq!(
        server.get("/v1/tasks/copy/k").await.1["state"],
        "running",
        "nothing is concluded from a complete origin"
    );
    assert_eq!(server.memory.repairs().len(), 0);
    let at = server.publish(&mine, json!("this"));
    let (_, told) = server.get("/v1/tasks/copy/k").await;
    assert_eq!((&told["state"], &told["result"]["answer"]), (&json!("done"), &json!("this")), "{told}");
    assert_eq!(told["trail"][0]["what"], "admitted");
    let repairs = server.memory.repairs();
    assert_eq!(repairs.len(), 1);
    let (token, outcome, where_) = &repairs[0];
    assert_eq!((&token.key, token.generation, &token.origin), (&mine.key, 0, &mine.origin));
    assert_eq!((outcome, where_), (&OutcomeKind::Result, &at));
    server.end().await;
}

#[tokio::test]
async fn a_parked_task_says_until_when_and_a_dead_letter_says_why() {
    let server = Server::start().await;
    let origin = position("tasks.copy/0/0");
    server.memory.complete(&origin);
    let mut parked = token("copy", "p", &origin, "{}");
    server.memory.claim(claim(&parked, 0, Phase::Open));
    parked.hop = 1;
    let until = Timestamp::now().plus(Duration::from_secs(600));
    server.memory.put(Output {
        topic: Topic::new("retry.5m"),
        key: None,
        value: Some(Bytes::from_static(b"{}")),
        headers: token::encode(&parked, &Carry::default(), &Headers::default()),
        not_before: Some(until),
    });
    let (_, told) = server.get("/v1/tasks/copy/p").await;
    assert_eq!(
        (&told["state"], &told["until"]),
        (&json!("waiting-until"), &json!(until.rfc3339())),
        "{told}"
    );

    let dead = token("copy", "d", &position("tasks.copy/1/0"), "{}");
    let at = server.memory.put(bury(&dead, true, b"\xff\x00raw"));
    server.memory.claim(claim(&dead, 0, Phase::Closed { outcome: OutcomeKind::DeadLetter, at }));
    let (_, told) = server.get("/v1/tasks/d").await;
    assert_eq!(
        (&told["outcome"], &told["dead_letter"]["reason"]),
        (&json!("dead-letter"), &json!("TG-payload-refused")),
        "{told}"
    );
    server.end().await;
}

fn bury(token: &Token, outcome: bool, value: &'static [u8]) -> Output {
    let record = Record {
        position: token.origin.position.clone(),
        stamp: Timestamp(1),
        key: Some(Bytes::from(token.key.key.to_string())),
        value: Some(Bytes::from_static(value)),
        headers: Headers::default().with("x-own", "kept"),
        not_before: None,
    };
    let burial = Burial {
        reason: Reason::PayloadRefused,
        detail: "no".into(),
        source: token.origin.position.to_string(),
        at: Timestamp::now(),
        token: Some(token.clone()),
        outcome,
        tries: 1,
        first_error: None,
        last_error: None,
        trail: Trail::default(),
    };
    write::bury(&Topic::new("dead-letters"), &record, &burial)
}

fn item(token: &Token) -> ReviewItem {
    ReviewItem {
        v: VERSION,
        id: item_id(token),
        question: "dose: below the line".into(),
        why: vec![json!({ "reason": "TG-below-line", "field": "dose", "detail": "81 %" })],
        severity: "major".into(),
        team: Some("clinicians".into()),
        opened_at: Timestamp::now(),
        due_at: Some(Timestamp::now()),
        payload: json!({ "text": "x" }),
        record_key: None,
        // The nearest to an answer that there was.
        proposed: envelope(token, json!({ "text": 7 })),
        answer_text: Some("the model's words".into()),
        findings: json!([]),
    }
}

#[tokio::test]
async fn what_waits_for_a_person_is_listed_shown_followed_and_judged_before_it_is_written() {
    let server = Server::start().await;
    let origin = position("tasks.copy/0/0");
    server.memory.complete(&origin);
    let mut waits = token("copy", "k", &origin, "{}");
    server.memory.claim(claim(&waits, 0, Phase::Open));
    waits.hop = 1;
    let mut events = server.events("/v1/review/events?kind=copy", None).await;
    let names = crate::settings::TopicNames::new("");
    let item = item(&waits);
    server.memory.put(write::review_item(&names, &item, &waits, &Carry::default()));
    let (name, data) = events.next().await;
    assert_eq!((name.as_str(), &data["id"], &data["key"]), ("opened", &json!(item.id), &json!("k")));
    let open = async {
        loop {
            let (_, list) = server.get("/v1/review?team=clinicians").await;
            if list["open"] == 1 {
                return list;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let list = tokio::time::timeout(Duration::from_secs(5), open).await.unwrap();
    assert_eq!(list["items"][0]["id"], json!(item.id), "{list}");
    let (_, shown) = server.get(&format!("/v1/review/{}", &item.id[..6])).await;
    assert_eq!(shown["answer_text"], "the model's words");
    // The claim's mark of the move was lost; the queue knows better.
    let (_, task) = server.get("/v1/tasks/copy/k").await;
    assert_eq!(
        (&task["state"], &task["with"], &task["review"]["id"]),
        (&json!("waiting-review"), &json!("clinicians"), &json!(item.id)),
        "{task}"
    );

    let decide = async |action: &str, body: Value| {
        server.post(&format!("/v1/review/{}/{action}", item.id), "application/json", body.to_string()).await
    };
    assert_eq!(decide("approve", json!({ "by": "ada" })).await.0, 422, "there is nothing to approve");
    assert_eq!(decide("reject", json!({ "by": " " })).await.0, 400);
    assert_eq!(decide("edit", json!({ "by": "ada" })).await.0, 400, "an edit needs an answer");
    assert_eq!(decide("undo", json!({ "by": "ada" })).await.0, 404);
    let short = format!("/v1/review/{}/reject", &item.id[..10]);
    let (status, _) = server.post(&short, "application/json", r#"{"by":"ada"}"#).await;
    assert_eq!(status, 404, "a beginning of an id decides nothing");
    assert!(server.memory.all("review.decisions").is_empty());

    server.memory.put(Output {
        topic: names.review_outcomes.clone(),
        key: None,
        value: Some(Bytes::from(json!({ "v": 1, "item": item.id, "nonce": "n", "verdict": "counts", "decided_by": "ada", "decided_at": "2026-11-24T12:00:00Z", "action": "reject", "at": 1 }).to_string())),
        headers: Headers::default(),
        not_before: None,
    });
    server.memory.put(write::item_decided(&names, &item.id));
    assert_eq!(server.get("/v1/review/gone").await.0, 404);
    let told = async {
        loop {
            let (status, told) = decide("reject", json!({ "by": "ben", "reason": "late" })).await;
            if status == 409 {
                return told;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(30), told).await.unwrap();
    assert!(
        told["error"]["message"].as_str().unwrap().contains("ada rejected this item (2026-11-24T12:00:00Z)"),
        "{told}"
    );
    let (status, told) = server.get(&format!("/v1/review/{}", &item.id[..10])).await;
    assert_eq!((status, &told["error"]["decided_by"]), (410, &json!("ada")), "{told}");
    server.end().await;
}

#[tokio::test]
async fn events_come_once_each_and_go_on_where_the_last_id_stood() {
    let server = Server::start().await;
    let publish = |n: usize| {
        let kind = if n.is_multiple_of(5) { "other" } else { "copy" };
        server.publish(
            &token(kind, &format!("k{n:04}"), &position(&format!("tasks.copy/0/{n}")), "{}"),
            json!(n),
        );
    };
    (0..300).for_each(publish);
    let mut all = server.events("/v1/results?from=start", None).await;
    let mut some = server.events("/v1/results?from=start&kind=other&status=accepted", None).await;
    let mut new = server.events("/v1/results", None).await;
    let keys = |range: std::ops::Range<usize>| range.map(|n| format!("k{n:04}")).collect::<Vec<_>>();
    assert_eq!(all.keys(300).await, keys(0..300));
    (300..1_500).for_each(publish);
    assert_eq!(all.keys(1_200).await, keys(300..1_500));
    assert_eq!(new.keys(1_200).await, keys(300..1_500), "only what came after");
    let others: Vec<_> = (0..1_500).step_by(5).map(|n| format!("k{n:04}")).collect();
    assert_eq!(some.keys(300).await, others);

    // A client that breaks off in the middle, and one that comes back after more has happened.
    let mut broken = server.events("/v1/results?from=start", None).await;
    let mut seen = broken.keys(77).await;
    let id = broken.id.clone();
    drop(broken);
    (1_500..2_000).for_each(publish);
    let mut back = server.events("/v1/results", Some(&id)).await;
    seen.extend(back.keys(2_000 - 77).await);
    seen.sort_unstable();
    assert_eq!(seen, keys(0..2_000), "nothing missing, nothing twice");
    let (status, told) = server.get("/v1/results?after=nonsense").await;
    assert_eq!((status, &told["error"]["code"]), (400, &json!("bad-request")));
    assert_eq!(server.get("/v1/results?frm=start").await.0, 400);
    server.end().await;
}

#[tokio::test]
async fn a_subscriber_that_does_not_read_costs_nothing_and_misses_nothing() {
    let server = Server::start().await;
    let mut slow = server.events("/v1/results", None).await;
    let wide = "x".repeat(20_000);
    // Far more than the hub keeps, and one record larger than it shares.
    for n in 0..2_000_u32 {
        let answer = if n == 1_000 { json!("y".repeat(200_000)) } else { json!(wide) };
        server.publish(&token("copy", &format!("k{n:04}"), &position("tasks.copy/0/0"), "{}"), answer);
        if n.is_multiple_of(100) {
            tokio::task::yield_now().await;
        }
    }
    let keys = slow.keys(2_000).await;
    let expected: Vec<_> = (0..2_000).map(|n| format!("k{n:04}")).collect();
    assert_eq!(keys, expected);
    server.end().await;
}

#[tokio::test]
async fn a_result_is_told_within_milliseconds() {
    let server = Server::start().await;
    let mut events = server.events("/v1/results", None).await;
    let mut worst = Duration::ZERO;
    for n in 0..200 {
        let began = std::time::Instant::now();
        server.publish(&token("copy", &format!("k{n}"), &position("tasks.copy/0/0"), "{}"), json!(n));
        let (_, data) = events.next().await;
        assert_eq!(data["answer"], n);
        worst = worst.max(began.elapsed());
    }
    // A poll would take its period; the bound leaves room for a busy machine.
    assert!(worst < Duration::from_millis(150), "{worst:?}");
    server.end().await;
}

#[tokio::test]
async fn a_process_that_is_stopping_is_not_ready_and_takes_no_new_task_but_answers() {
    let server = Server::start().await;
    let task = json!({ "kind": "copy", "key": "k", "payload": { "text": "x" } });
    assert_eq!(server.offer(&task).await.0, 202);
    server.stopping.cancel();
    let why = "This process is stopping: running tasks may end, new ones are not taken.";
    let (status, told) = server.get("/readyz").await;
    assert_eq!((status, &told["ready"], &told["why"]), (503, &json!(false), &json!(why)));
    let (status, told) = server.offer(&json!([task, task])).await;
    assert_eq!((status, &told["error"]["code"]), (503, &json!("stopping")), "{told}");
    let record = json!({ "records": [{ "key": "a", "value": "{}" }] }).to_string();
    let (status, told) = server.post("/v1/records/tasks.copy", "application/json", record).await;
    assert_eq!((status, &told["error"]["code"]), (503, &json!("stopping")), "{told}");
    let (status, told) = server.get("/v1/status").await;
    assert_eq!((status, &told["sentence"], &told["backlog"]), (200, &json!(why), &json!(1)));
    assert_eq!(server.get("/healthz").await.0, 200);
    server.end().await;
}

#[tokio::test]
async fn readiness_is_about_this_process_and_a_paused_engine_accepts_nothing() {
    let server = Server::start().await;
    let (status, told) = server.get("/readyz").await;
    assert_eq!((status, &told["ready"], &told["degraded"]), (200, &json!(true), &json!(false)));
    server.memory.health.send_replace(Health::Paused { why: "the disk is full".into() });
    let (status, told) = server.get("/readyz").await;
    assert_eq!((status, &told["why"]), (503, &json!("Intake is paused, nothing is lost: the disk is full.")));
    let task = json!({ "kind": "copy", "key": "k", "payload": { "text": "x" } });
    let (status, told) = server.offer(&task).await;
    assert_eq!((status, &told["error"]["code"]), (503, &json!("paused")), "{told}");
    // Far more than sockets hold: a client that is cut off while it sends hears nothing of a pause.
    let large = json!({ "kind": "copy", "key": "k", "payload": { "text": "x".repeat(12 << 20) } });
    let record = json!({ "records": [{ "key": "a", "value": "x".repeat(12 << 20) }] }).to_string();
    for (path, body) in [("/v1/tasks", large.to_string()), ("/v1/records/tasks.copy", record)] {
        let (status, told) = server.post(path, "application/json", body).await;
        assert_eq!((status, &told["error"]["code"]), (503, &json!("paused")), "{told}");
    }
    assert_eq!(server.get("/healthz").await.0, 200);
    let (_, told) = server.get("/v1/status").await;
    assert_eq!(told["sentence"], "Intake is paused, nothing is lost: the disk is full.");
    server.memory.health.send_replace(Health::Well);
    assert_eq!(server.offer(&task).await.0, 202);
    let (_, told) = server.get("/v1/status").await;
    assert_eq!((&told["sentence"], &told["backlog"]), (&json!("All is well."), &json!(1)), "{told}");
    server.memory.endless.store(true, std::sync::atomic::Ordering::SeqCst);
    let (status, told) = server.get("/v1/status").await;
    assert_eq!((status, &told["backlog"], &told["parked"]), (200, &Value::Null, &Value::Null), "{told}");
    let text =
        server.client.get(format!("{}/metrics", server.url)).send().await.unwrap().text().await.unwrap();
    assert!(text.contains("tidegate_intake_total"), "{text}");
    server.end().await;
}

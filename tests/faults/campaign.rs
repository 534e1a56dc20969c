//! One campaign of the kill test: thousands of records, a provider that fails now and then, and a
//! processor that is killed again and again, at random moments and at every named crash point.
//!
//! Between two lives the directory is opened at rest: what was started and not stored is written down,
//! and the next records are appended as any producer would. The provider lives in the test's own
//! process, so it survives every kill and sees every request.

use crate::books::{Row, Shelf};
use crate::rig::Dice;
use crate::rig::api::Api;
use crate::rig::place::{Place, Rest};
use crate::rig::process::Process;
use crate::rig::script::{Asked, Provider, Reply};
use crate::world::{Sent, World};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tidegate::engine::Output;
use tidegate::task::{Headers, Record, Topic};
use tokio::task::JoinSet;

const KINDS: &str = r#"
[tasks.copy]
input = { n = "integer", text = "string" }

[tasks.ticket]
models = ["main", "spare"]
ask = "Classify this request."
input = { n = "integer", text = "string" }
answer = { category = ["plain", "doubtful"], confidence = "number" }
review = { start = "line" }

[worker]
in_flight = 64

# Its only model goes away for a while: its tasks are parked.
[tasks.frail]
models = ["frail"]
ask = "Classify this request."
input = { n = "integer", text = "string" }
answer = { category = ["plain", "doubtful"], confidence = "number" }
review = { start = "line" }
"#;

/// How strong the ledger is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    Normal,
    /// Marks lost, replies late or lost, unavailable for a while.
    Weak,
    /// Weak, and an outage may lose the latest acknowledged writes.
    Forgetting,
}

pub(crate) struct Sizes {
    pub(crate) records: u64,
    pub(crate) kills: u64,
    pub(crate) seed: u64,
}

/// A slot that some process had started and not stored when it ended: key, generation, slot and how
/// often it had been granted again by then.
pub(crate) type Pair = (String, u32, String, u32);

pub(crate) struct Campaign {
    pub(crate) mode: Mode,
    pub(crate) seed: u64,
    pub(crate) place: Place,
    pub(crate) provider: Provider,
    pub(crate) pairs: BTreeSet<Pair>,
    /// Keys that intake by HTTP has answered with 202: durable, by promise.
    pub(crate) accepted: Arc<std::sync::Mutex<BTreeSet<String>>>,
    pub(crate) reached: BTreeMap<String, u32>,
    frail_is_down: Arc<AtomicBool>,
    life: u64,
    dice: Dice,
    world: World,
}

impl Campaign {
    pub(crate) async fn new(mode: Mode, seed: u64) -> Self {
        let frail_is_down = Arc::new(AtomicBool::new(false));
        let (down, chance) = (frail_is_down.clone(), AtomicU64::new(seed));
        let provider = Provider::start(move |asked| {
            let drawn = Dice::new(chance.fetch_add(1, Ordering::SeqCst)).next();
            reply(asked, &down, drawn)
        })
        .await;
        let models: String =
            ["main", "spare", "frail"].iter().map(|name| provider.patient_model(name, 30)).collect();
        let place = Place::new(&format!("{KINDS}{models}"));
        Campaign {
            mode,
            seed,
            place,
            provider,
            pairs: BTreeSet::new(),
            accepted: Arc::default(),
            reached: BTreeMap::new(),
            frail_is_down,
            life: 0,
            dice: Dice::new(seed ^ 0x6b69_6c6c),
            world: World::new(seed),
        }
    }

    /// Everything: `kills` lives that end at random and one for each crash point between them, then
    /// until all rests.
    ///
    /// Crash points come one at a time: a task that is there at five deaths in a row is buried as the
    /// cause of them, rightly, and the same few tasks are the first to be asked for in every life.
    pub(crate) async fn run(&mut self, sizes: &Sizes, points: &[String]) -> Rest {
        let lives = sizes.kills + points.len() as u64;
        let chunk = usize::try_from(sizes.records / lives).unwrap();
        // Every so many lives one ends at a crash point.
        let every = (lives / points.len() as u64).max(1);
        let mut points = points.iter();
        for life in 0..lives {
            self.between(chunk).await;
            // One outage in three lives: long enough to park, over before the end.
            self.frail_is_down.store(life % 3 == 1, Ordering::SeqCst);
            let point = if life % every == 0 { points.next() } else { None };
            match point {
                Some(point) => self.live_until(point).await,
                None => self.live_for_a_while().await,
            }
        }
        self.frail_is_down.store(false, Ordering::SeqCst);
        assert!(points.next().is_none(), "fewer lives than crash points");
        self.between(0).await;
        self.until_all_rests().await
    }

    /// Claims whose latest writes a forgetful ledger has lost, as requests name them.
    pub(crate) fn forgotten(&self) -> BTreeSet<String> {
        let words = std::fs::read_to_string(self.place.log()).unwrap_or_default();
        let lines = words.lines().filter(|l| l.contains("lost its latest writes"));
        let scope = |l: &str| Some(l.split("scope=").nth(1)?.trim_matches('"').get(..16)?.to_owned());
        lines.filter_map(scope).collect()
    }

    /// The directory at rest: notes what was started and not stored, appends what comes next.
    async fn between(&mut self, records: usize) {
        let rest = self.place.open();
        self.note_started(&rest).await;
        let sent = self.world.chunk(records);
        for batch in sent.chunks(500) {
            rest.engine.log.append(batch.iter().map(output).collect()).await.unwrap();
        }
        rest.close().await;
    }

    async fn note_started(&mut self, rest: &Rest) {
        let mut after = None;
        loop {
            let claims = rest.engine.ledger.list(after.clone(), 1_000).await.unwrap();
            let Some(last) = claims.last() else { return };
            after = Some(last.key.clone());
            for claim in &claims {
                for slot in claim.slots.iter().filter(|s| s.state == "started") {
                    let name = claim.key.to_string();
                    self.pairs.insert((name, claim.generation, slot.name.clone(), slot.times));
                }
            }
        }
    }

    fn command(&mut self) -> Command {
        self.life += 1;
        let mut command = self.place.command();
        command.env("TIDEGATE_LOG", "warn");
        // Small segments, so that sealing one and folding the state away happen often.
        command.env("TIDEGATE_SEGMENT_BYTES", "60000");
        weaken(&mut command, self.mode, self.seed.wrapping_add(self.life));
        command
    }

    /// A life that ends at a random moment, sometimes before it is ready.
    async fn live_for_a_while(&mut self) {
        let command = self.command();
        let mut process = Process::start(command, &self.place.log());
        let mut clients = self.clients();
        let lives_for = Duration::from_millis(150 + self.dice.pick(2_350));
        tokio::time::sleep(lives_for).await;
        assert!(process.ended().is_none(), "it ended by itself:\n{}", tail(&process.words()));
        process.kill();
        clients.shutdown().await;
    }

    /// A life that ends at a crash point, by the process's own hand.
    async fn live_until(&mut self, point: &str) {
        let mut command = self.command();
        // Not the first time it comes by: something else should be in flight by then.
        let nth = 2 + self.dice.pick(5);
        command.env("TIDEGATE_CRASH_AT", format!("{point}:{nth}"));
        let mut process = Process::start(command, &self.place.log());
        let mut clients = self.clients();
        let began = Instant::now();
        while process.ended().is_none() && began.elapsed() < Duration::from_secs(8) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if process.ended().is_some() {
            *self.reached.entry(point.to_owned()).or_default() += 1;
        }
        process.kill();
        clients.shutdown().await;
    }

    /// What goes on beside it: tasks by HTTP, decisions of reviewers, redrives.
    fn clients(&self) -> JoinSet<()> {
        let mut clients = JoinSet::new();
        let (api, accepted, life) = (self.place.api(), self.accepted.clone(), self.life);
        clients.spawn(async move { submit(&api, life, &accepted).await });
        let (api, dice) = (self.place.api(), Dice::new(self.seed ^ life));
        clients.spawn(async move { decide(&api, dice).await });
        let api = self.place.api();
        clients.spawn(async move { redrive(&api, life).await });
        clients
    }

    /// Orderly lives, without kills, until every record is complete.
    async fn until_all_rests(&mut self) -> Rest {
        for _ in 0..12 {
            let command = self.command();
            let mut process = self.place.run_as(command).await;
            tokio::time::sleep(Duration::from_secs(4)).await;
            let status = process.stop(Duration::from_secs(30));
            assert!(status.success(), "ended with {status}:\n{}", tail(&process.words()));
            let rest = self.place.open();
            self.note_started(&rest).await;
            if rest.open_records().await.is_empty() {
                return rest;
            }
            rest.close().await;
        }
        let rest = self.place.open();
        panic!("still open after everything had its time: {:?}", rest.open_records().await);
    }
}

/// The hidden setting of the engine that makes its ledger as weak as a remote one.
fn weaken(command: &mut Command, mode: Mode, seed: u64) {
    match mode {
        Mode::Normal => {}
        Mode::Weak => {
            command.env("TIDEGATE_WEAK_LEDGER", seed.to_string());
        }
        Mode::Forgetting => {
            command.env("TIDEGATE_WEAK_LEDGER", format!("{seed},forgets"));
        }
    }
}

/// Mostly a good answer after some milliseconds; one in fifteen is one of the common faults.
fn reply(asked: &Asked, frail_is_down: &AtomicBool, drawn: u64) -> Reply {
    if asked.model == "frail" && frail_is_down.load(Ordering::SeqCst) {
        return Reply::down();
    }
    let first = asked.slot_name().contains(".r0#");
    let said = match drawn % 60 {
        0 => Reply::down(),
        1 => Reply::Fails(
            429,
            &[("retry-after", "0")],
            json!({ "error": { "message": "slow down", "code": "rate_limit_exceeded" } }),
        ),
        2 if first => Reply::Says("{\"category\": ".to_owned()),
        3 => Reply::Cut("{\"category\": \"plain\"".to_owned()),
        _ if asked.words().contains("doubtful request") => {
            Reply::json(json!({ "category": "doubtful", "confidence": 0.5 }))
        }
        _ => Reply::json(json!({ "category": "plain", "confidence": 0.97 })),
    };
    Reply::After(Duration::from_millis(drawn / 60 % 60), Box::new(said))
}

async fn submit(api: &Api, life: u64, accepted: &std::sync::Mutex<BTreeSet<String>>) {
    for n in 0.. {
        let tasks: Vec<Value> = (0..5)
            .map(|i| {
                let key = format!("http-{life}-{n}-{i}");
                json!({ "kind": if i == 0 { "ticket" } else { "copy" }, "key": key,
                        "payload": { "n": n, "text": format!("a plain request by {key}") } })
            })
            .collect();
        match api.post("/v1/tasks", &Value::Array(tasks.clone())).await {
            Ok((202, _)) => {
                let mut accepted = accepted.lock().unwrap();
                accepted.extend(tasks.iter().map(|t| t["key"].as_str().unwrap().to_owned()));
            }
            // Not up yet, paused, or gone: nothing is known of these tasks, and nothing promised.
            Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Half of the open items are decided, one by one; the rest stays open to the end.
async fn decide(api: &Api, mut dice: Dice) {
    loop {
        tokio::time::sleep(Duration::from_millis(30)).await;
        let Ok((200, open)) = api.get("/v1/review").await else { continue };
        let Some(items) = open["items"].as_array() else { continue };
        for item in items {
            let id = item["id"].as_str().unwrap_or_default();
            // By the item itself, so that it is the same in every life.
            if id.as_bytes().first().is_some_and(|b| b % 2 == 0) {
                let action = if dice.percent(50) { "approve" } else { "reject" };
                let _ = api
                    .post(&format!("/v1/review/{id}/{action}"), &json!({ "by": "ada", "reason": "drawn" }))
                    .await;
            }
        }
    }
}

/// Sends a few dead letters again: outcomes, and records that never owned their key.
async fn redrive(api: &Api, life: u64) {
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
            let _ = api.post("/v1/dead-letters/redrive", &json!({ "id": letter["id"] })).await;
        }
        if !letters.is_empty() {
            return;
        }
    }
}

fn output(sent: &Sent) -> Output {
    let headers =
        sent.headers.iter().map(|(n, v)| ((*n).to_owned(), v.clone().into_bytes().into())).collect();
    Output {
        topic: Topic::new(format!("tasks.{}", sent.kind)),
        key: Some(sent.key.clone().into()),
        value: Some(sent.value.clone().into()),
        headers: Headers(headers),
        not_before: None,
    }
}

/// Tokens that were parked, over all retry topics.
pub(crate) async fn parked(rest: &Rest) -> usize {
    let mut found = 0;
    for topic in ["retry.5s", "retry.30s", "retry.5m", "retry.30m"] {
        found += rest.all(topic).await.len();
    }
    found
}

/// Everything that was published, for the reckoning.
pub(crate) async fn shelf(rest: &Rest) -> Shelf {
    let mut tasks = BTreeMap::new();
    for kind in ["copy", "ticket", "frail"] {
        tasks.insert(kind.to_owned(), rows(rest.all(&format!("tasks.{kind}")).await));
    }
    Shelf {
        tasks,
        resume: rows(rest.all("resume").await),
        results: rows(rest.all("results").await),
        dead_letters: rows(rest.all("dead-letters").await),
        review_requests: rows(rest.all("review.requests").await),
        review_decisions: rows(rest.all("review.decisions").await),
    }
}

fn rows(records: Vec<Record>) -> Vec<Row> {
    let row = |r: Record| Row {
        at: r.position.to_string(),
        key: r.key.map(Into::into),
        value: r.value.map(Into::into),
        headers: r
            .headers
            .0
            .iter()
            .map(|(n, v)| (n.clone(), String::from_utf8_lossy(v).into_owned()))
            .collect(),
    };
    records.into_iter().map(row).collect()
}

pub(crate) fn tail(words: &str) -> String {
    let lines: Vec<&str> = words.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

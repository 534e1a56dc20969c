//! One campaign of the kill test: thousands of records, a provider that fails now and then, and a
//! processor that is killed again and again, at random moments and at every named crash point.
//!
//! Between two lives the directory is opened at rest: what was started and not stored is written down,
//! and the next records are appended as any producer would. The provider lives in the test's own
//! process, so it survives every kill and sees every request.

use crate::books::{Row, Shelf};
use crate::clients::{Notes, clients};
use crate::rig::Dice;
use crate::rig::place::{Place, Rest};
use crate::rig::process::Process;
use crate::rig::script::{Asked, Provider, Reply};
use crate::world::{Sent, World};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tidegate::engine::Output;
use tidegate::task::{Headers, Position, Record, Topic};

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

/// What `abort` ends a process with.
const ABORTED: i32 = 6;

/// One claim that went back to an earlier state.
#[derive(Clone, Debug)]
pub(crate) struct Loss {
    pub(crate) number: u64,
    pub(crate) at_ms: i64,
    /// `kind/key`.
    pub(crate) claim: String,
}

pub(crate) struct Campaign {
    pub(crate) mode: Mode,
    pub(crate) seed: u64,
    pub(crate) place: Place,
    pub(crate) provider: Provider,
    /// Each with the life at whose end it was first seen.
    pub(crate) pairs: BTreeMap<Pair, u64>,
    /// What was sent, and what the processor has promised for it.
    pub(crate) promised: Notes,
    pub(crate) reached: BTreeMap<String, u32>,
    /// The life in which each request came to the provider, in their order.
    asked_in: Arc<Mutex<BTreeMap<usize, u64>>>,
    frail_is_down: Arc<AtomicBool>,
    /// The provider's closure reads it too.
    lives: Arc<AtomicU64>,
    life: u64,
    dice: Dice,
    world: World,
}

/// Requests after which a life has done something, and how long it is waited for them: a life without any work
/// to do ends too.
const BUSY: usize = 40;
const PATIENT: Duration = Duration::from_secs(8);
/// Everything is over by then: whoever met four outages in a row is parked for 80 s, and once more if its
/// circuit is open when it returns.
const PARKED: Duration = Duration::from_secs(200);

impl Campaign {
    pub(crate) async fn new(mode: Mode, seed: u64) -> Self {
        let frail_is_down = Arc::new(AtomicBool::new(false));
        let (lives, asked_in) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(BTreeMap::new())));
        let (down, chance, now, notes) =
            (frail_is_down.clone(), AtomicU64::new(seed), lives.clone(), asked_in.clone());
        let provider = Provider::start(move |asked| {
            notes.lock().unwrap().insert(asked.nth, now.load(Ordering::SeqCst));
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
            pairs: BTreeMap::new(),
            promised: Arc::default(),
            asked_in,
            reached: BTreeMap::new(),
            frail_is_down,
            lives,
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
        let chunk = usize::try_from(sizes.records / (sizes.kills + points.len() as u64)).unwrap();
        let mut left = usize::try_from(sizes.records).unwrap();
        let mut points: VecDeque<(&String, u64, u32)> =
            points.iter().map(|point| (point, self.pass_of(point), 0)).collect();
        let mut kills = sizes.kills;
        while kills > 0 || !points.is_empty() {
            let records = chunk.min(left);
            self.between(records).await;
            left -= records;
            // One outage in three lives: long enough to park, over before the end.
            self.frail_is_down.store(self.life % 3 == 1, Ordering::SeqCst);
            match points.pop_front_if(|_| kills == 0 || self.life.is_multiple_of(2)) {
                Some((point, nth, tries)) => {
                    // So late a pass may not come in time, and a life may have no decision for the arbiter; then
                    // another one will.
                    if !self.live_until(point, nth).await && tries < 3 {
                        points.push_back((point, 1, tries + 1));
                    }
                }
                None => {
                    self.live_for_a_while().await;
                    kills -= 1;
                }
            }
        }
        self.frail_is_down.store(false, Ordering::SeqCst);
        self.between(left).await;
        self.until_all_rests().await
    }

    /// The how-manieth time it comes by, the process dies: some die young, when little is in flight,
    /// some in the middle of everything.
    fn pass_of(&mut self, point: &str) -> u64 {
        match point.split('.').next() {
            Some("frame" | "infer" | "commit") => match self.dice.pick(4) {
                0 | 1 => 2 + self.dice.pick(5),
                2 => 20,
                _ => 60,
            },
            Some("arbiter") => 1 + self.dice.pick(2),
            _ => 1 + self.dice.pick(4),
        }
    }

    /// What a forgetful ledger has lost, as it wrote down itself.
    pub(crate) fn losses(&self) -> Vec<Loss> {
        let noted =
            std::fs::read_to_string(self.place.path("data").join("forgotten.tsv")).unwrap_or_default();
        let loss = |line: &str| {
            let mut parts = line.splitn(3, '\t');
            let (number, at) = (parts.next()?.parse().ok()?, parts.next()?.parse::<jiff::Timestamp>().ok()?);
            Some(Loss { number, at_ms: at.as_millisecond(), claim: parts.next()?.to_owned() })
        };
        noted.lines().filter_map(loss).collect()
    }

    /// Requests with the life in which each came.
    pub(crate) fn asked(&self) -> Vec<(u64, Asked)> {
        let lives = self.asked_in.lock().unwrap();
        self.provider.asked().into_iter().map(|asked| (lives[&asked.nth], asked)).collect()
    }

    /// The directory at rest: notes what was started and not stored, appends what comes next.
    async fn between(&mut self, records: usize) {
        let rest = self.place.open();
        self.note_started(&rest).await;
        let sent = self.world.chunk(records);
        for batch in sent.chunks(500) {
            let positions = rest.engine.log.append(batch.iter().map(output).collect()).await.unwrap();
            let mut promised = self.promised.lock().unwrap();
            promised
                .appended
                .extend(positions.iter().zip(batch).map(|(at, sent)| (at.to_string(), row_of(at, sent))));
        }
        rest.close().await;
    }

    /// But for slots of tasks that have their result: an answer that came while the ledger was away is
    /// published all the same, and whoever dies before it is stored leaves the slot as it was. The record is
    /// complete, so nobody starts it again.
    async fn note_started(&mut self, rest: &Rest) {
        let results = rest.all("results").await;
        let named = |r: &Record| {
            let text = |name: &str| r.headers.text(name).unwrap_or_default().to_owned();
            let generation = text("tidegate-generation").parse::<u32>().unwrap_or(0);
            (format!("{}/{}", text("tidegate-kind"), text("tidegate-key")), generation)
        };
        let ended: BTreeSet<(String, u32)> = results.iter().map(named).collect();
        let mut after = None;
        loop {
            let claims = rest.engine.ledger.list(after.clone(), 1_000).await.unwrap();
            let Some(last) = claims.last() else { return };
            after = Some(last.key.clone());
            let open = claims.iter().filter(|c| !ended.contains(&(c.key.to_string(), c.generation)));
            for claim in open {
                for slot in claim.slots.iter().filter(|s| s.state == "started") {
                    let name = claim.key.to_string();
                    let pair = (name, claim.generation, slot.name.clone(), slot.times);
                    self.pairs.entry(pair).or_insert(self.life);
                }
            }
        }
    }

    fn command(&mut self) -> Command {
        self.life += 1;
        self.lives.store(self.life, Ordering::SeqCst);
        let mut command = self.place.command();
        command.env("TIDEGATE_LOG", "warn");
        // Small segments, so that sealing one and folding the state away happen often.
        command.env("TIDEGATE_SEGMENT_BYTES", "60000");
        weaken(&mut command, self.mode, self.seed.wrapping_add(self.life));
        command
    }

    /// A life that ends at a random moment; one in four perhaps before it is ready. The others have something
    /// done: on a busy machine the same few tasks would be there at five deaths in a row.
    async fn live_for_a_while(&mut self) {
        let command = self.command();
        let began = Instant::now();
        let mut process = Process::start(command, &self.place.log());
        let mut clients = clients(&self.place.api(), &self.promised, self.life, self.seed);
        let lives_for = Duration::from_millis(150 + self.dice.pick(2_350));
        let may_be_idle = self.dice.pick(4) == 0;
        tokio::time::sleep(lives_for).await;
        let asked = || self.asked_in.lock().unwrap().values().filter(|life| **life == self.life).count();
        while !may_be_idle && asked() < BUSY && began.elapsed() < PATIENT {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(process.ended().is_none(), "it ended by itself:\n{}", tail(&process.words()));
        process.kill();
        clients.shutdown().await;
    }

    /// A life that ends at a crash point, by the process's own hand; true if it did. Whatever else ends
    /// it is a failure.
    async fn live_until(&mut self, point: &str, nth: u64) -> bool {
        let mut command = self.command();
        command.env("TIDEGATE_CRASH_AT", format!("{point}:{nth}"));
        let before = std::fs::metadata(self.place.log()).map_or(0, |m| m.len());
        let mut process = Process::start(command, &self.place.log());
        let mut clients = clients(&self.place.api(), &self.promised, self.life, self.seed);
        let began = Instant::now();
        while process.ended().is_none() && began.elapsed() < Duration::from_secs(8) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let ended = process.ended();
        process.kill();
        clients.shutdown().await;
        let Some(status) = ended else { return false };
        let words = process.words();
        let last = &words[usize::try_from(before).unwrap()..];
        // Other threads may have said something between its last words and its end.
        let by_its_own_hand = status.signal() == Some(ABORTED)
            && last.lines().any(|line| line == format!("crash point {point}"));
        assert!(by_its_own_hand, "ended with {status}, not at `{point}`:\n{}", tail(last));
        *self.reached.entry(format!("{point}:{nth}")).or_default() += 1;
        true
    }

    /// Orderly lives, without kills, until every record is complete.
    async fn until_all_rests(&mut self) -> Rest {
        let began = Instant::now();
        while began.elapsed() < PARKED {
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
        // A person is asked, and nobody else.
        _ if asked.words().contains("unwelcome request") => Reply::Refuses("I would rather not.".to_owned()),
        _ if asked.words().contains("doubtful request") => {
            Reply::json(json!({ "category": "doubtful", "confidence": 0.5 }))
        }
        _ => Reply::json(json!({ "category": "plain", "confidence": 0.97 })),
    };
    Reply::After(Duration::from_millis(drawn / 60 % 60), Box::new(said))
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
        review_outcomes: rows(rest.all("review.outcomes").await),
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
        stamp_ms: r.stamp.0,
    };
    records.into_iter().map(row).collect()
}

/// As it must lie in the log.
fn row_of(at: &Position, sent: &Sent) -> Row {
    Row {
        at: at.to_string(),
        key: Some(sent.key.clone()),
        value: Some(sent.value.clone()),
        headers: sent.headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
        stamp_ms: 0,
    }
}

pub(crate) fn tail(words: &str) -> String {
    let lines: Vec<&str> = words.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

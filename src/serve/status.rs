//! `GET /v1/status`: one sentence why things are as they are, then the figures behind it.

use super::App;
use crate::engine::{Ends, Health, StorageReport, Unavailable};
use crate::infer::{Availability, ModelView};
use crate::task::{Timestamp, Topic};
use crate::telemetry;
use crate::worker::Held;
use axum::extract::State as Shared;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};

/// What the sentence is made of. Cheap to take: no disk is touched.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct State {
    pub(super) health: Health,
    /// Asked to stop: running tasks may end.
    pub(super) stopping: bool,
    /// Why items that are open may not be found yet.
    pub(super) unread: Option<String>,
    pub(super) held: Vec<Held>,
    /// Models that may not be called now, and why.
    pub(super) away: Vec<(String, String)>,
    /// Models that may be called and failed within the last minute, and how.
    pub(super) failing: Vec<(String, String)>,
    pub(super) models: usize,
    /// Kinds that no model is known to serve now, held yet or not, and why.
    pub(super) unserved: Vec<(String, String)>,
    /// Tasks set aside in the log; `None`: not looked at, or the log cannot be read.
    pub(super) parked: Option<u64>,
    /// Bytes that the disk has left; `None`: not looked at.
    pub(super) free: Option<u64>,
    /// Tasks whose work broke off by a panic.
    pub(super) broken: usize,
    pub(super) reviews: usize,
}

impl State {
    pub(super) fn of(app: &App) -> State {
        let views = app.models.view();
        let unserved =
            |kind: &std::sync::Arc<crate::settings::Kind>| match app.models.availability(kind.lineup()?) {
                Availability::Serves { .. } => None,
                Availability::MayBeTried { why } | Availability::None { why, .. } => {
                    Some((kind.name.to_string(), why))
                }
            };
        State {
            health: with(app.engine.operation.health().borrow().clone(), app.worker.waits()),
            stopping: app.stopping.is_cancelled(),
            unread: app.queue.unread(),
            held: app.worker.held(),
            away: views.iter().filter_map(away).collect(),
            failing: views.iter().filter_map(failing).collect(),
            models: views.len(),
            unserved: app.settings.kinds.iter().filter_map(unserved).collect(),
            parked: None,
            free: None,
            broken: app.worker.broken().len(),
            reviews: app.queue.len(),
        }
    }

    /// It runs, but not as it should.
    pub(super) fn degraded(&self) -> bool {
        self.health != Health::Well || !self.held.is_empty() || !self.away.is_empty() || self.broken > 0
    }
}

/// A record or a partition that waits is trouble too, and never hides worse.
fn with(health: Health, waits: Option<String>) -> Health {
    match (health, waits) {
        (Health::Well, Some(why)) => Health::Partly { why },
        (Health::Partly { why }, Some(waits)) => Health::Partly { why: format!("{why}; also: {waits}") },
        (Health::Paused { why }, Some(waits)) => Health::Paused { why: format!("{why}; also: {waits}") },
        (health, _) => health,
    }
}

/// Name and why of a model that is not asked now. One that is being tried again may be.
fn away(view: &ModelView) -> Option<(String, String)> {
    matches!(view.state, "open" | "blocked")
        .then(|| (view.name.clone(), view.why.clone().unwrap_or_default()))
}

/// What a person at the screen still calls now.
const LATELY_MS: u64 = 60_000;

/// Name and last failure of a model that is asked all the same.
fn failing(view: &ModelView) -> Option<(String, String)> {
    let lately = view.last_error_ms.is_some_and(|ms| ms < LATELY_MS);
    (away(view).is_none() && lately).then(|| (view.name.clone(), view.last_error.clone().unwrap_or_default()))
}

/// The strongest reason first; one sentence.
pub(super) fn sentence(now: &State) -> String {
    match &now.health {
        Health::Gone { why } => return format!("Nothing is processed any more: {why}."),
        Health::Paused { why } => return format!("Intake is paused, nothing is lost: {why}."),
        Health::Partly { why } => return format!("Work goes on, with trouble: {why}."),
        Health::Well => {}
    }
    if now.stopping {
        return "This process is stopping: running tasks may end, new ones are not taken.".to_owned();
    }
    if let Some(why) = &now.unread {
        return format!("Not all that is open can be found yet, nothing is lost: {why}.");
    }
    // A topic is held as a whole: kinds that could be served wait with the others on it.
    let mut waiting: Vec<&str> = Vec::new();
    let unserved = now.unserved.iter().map(|(kind, _)| kind);
    for kind in now.held.iter().flat_map(|h| &h.kinds).chain(unserved) {
        if !waiting.contains(&kind.as_str()) {
            waiting.push(kind);
        }
    }
    if !waiting.is_empty() {
        let why = now.held.first().map(|h| &h.why).or(now.unserved.first().map(|(_, why)| why));
        let why = why.filter(|w| !w.is_empty()).map_or("no model can serve them", String::as_str);
        return format!("Tasks of {} wait, nothing is lost: {why}.", waiting.join(", "));
    }
    let rest = format!("{}{}", parked(now), also(now));
    match now.away.as_slice() {
        [] if now.broken > 0 => format!("It runs, but not all is well{rest}."),
        // Whoever waits should hear what for, though no breaker has opened yet.
        [] if now.parked.is_some_and(|n| n > 0) && !now.failing.is_empty() => {
            let names: Vec<&str> = now.failing.iter().map(|(name, _)| name.as_str()).collect();
            let why = now.failing.first().map(|(_, why)| because(why)).unwrap_or_default();
            let verb = if names.len() == 1 { "has" } else { "have" };
            format!("{} {verb} just failed{why}{rest}.", names.join(" and "))
        }
        [] => format!("All is well{rest}."),
        [(name, why)] => {
            format!("{name} is not used now{}: every kind has another model{rest}.", because(why))
        }
        more => format!(
            "{} of {} models are not used now: every kind has another model{rest}.",
            more.len(),
            now.models
        ),
    }
}

/// Tasks set aside in an outage come back by themselves.
fn parked(now: &State) -> String {
    match now.parked {
        Some(0) if !now.away.is_empty() => ", nothing waits for it".to_owned(),
        None | Some(0) => String::new(),
        Some(1) => "; 1 task waits in the log and is tried again".to_owned(),
        Some(n) => format!("; {n} tasks wait in the log and are tried again"),
    }
}

/// One segment of the log and the checkpoint beside it: with less, intake is about to pause.
const NEARLY_FULL: u64 = 256 << 20;

/// What waits for people.
fn also(now: &State) -> String {
    let broken = match now.broken {
        0 => String::new(),
        1 => "; 1 task broke off inside Tidegate and is tried again after a restart".to_owned(),
        n => format!("; {n} tasks broke off inside Tidegate and are tried again after a restart"),
    };
    let reviews = match now.reviews {
        0 => String::new(),
        1 => "; 1 review waits for a person".to_owned(),
        n => format!("; {n} reviews wait for a person"),
    };
    let free = match now.free.filter(|free| *free < NEARLY_FULL) {
        Some(free) => format!("; the disk is nearly full ({} MiB left)", free >> 20),
        None => String::new(),
    };
    format!("{broken}{reviews}{free}")
}

fn because(why: &str) -> String {
    if why.is_empty() { String::new() } else { format!(" ({why})") }
}

#[derive(Serialize)]
struct TopicLine {
    topic: String,
    /// Records the log holds; see `records_at_most`.
    records: u64,
    /// Records not complete yet; null where nothing completes them.
    open: Option<u64>,
}

/// What is away is not waited for: whoever asks wants to know why. Of brokers that are well, hundreds of topics are
/// read in this time.
const READ_WITHIN: std::time::Duration = std::time::Duration::from_secs(3);

pub(super) async fn status(Shared(app): Shared<App>) -> Response {
    let late = |_| Unavailable(format!("no answer within {} s", READ_WITHIN.as_secs()));
    let read = tokio::time::timeout(READ_WITHIN, lines(&app)).await.unwrap_or_else(|e| Err(late(e)));
    let storage = app.engine.operation.storage().await;
    let parked = read.as_ref().ok().map(|lines| waits(&app, lines));
    // An engine without segments has no disk of its own to fill.
    let free = (storage.segments > 0).then_some(storage.free_bytes);
    let now = State { parked, free, ..State::of(&app) };
    // Null where the log cannot be read: nobody knows then, and zero would be a lie.
    let backlog: Option<u64> = read.as_ref().ok().map(|lines| lines.iter().filter_map(|l| l.open).sum());
    let dead_letters = read.as_ref().ok().map(|lines| buried(&app, lines));
    let topics = read.unwrap_or_else(|away| {
        tracing::warn!(%away, "the log cannot be read for the status");
        vec![]
    });
    let uptime_s = app.started.until(Timestamp::now()).as_secs();
    axum::Json(json!({
        "sentence": sentence(&now),
        "degraded": now.degraded(),
        "version": env!("CARGO_PKG_VERSION"),
        "started_at": app.started.rfc3339(),
        "uptime_s": uptime_s,
        "backlog": backlog,
        "parked": now.parked,
        "broken": app.worker.broken().iter().map(ToString::to_string).collect::<Vec<_>>(),
        "reviews_open": now.reviews,
        "dead_letters": dead_letters,
        // On Kafka the end of each transaction takes a place too, and nothing but reading them all tells them apart.
        "records_at_most": app.settings.engine.cluster.is_some(),
        "held": now.held,
        "kinds": kinds(&app, &topics),
        "topics": topics,
        "models": app.models.view(),
        "storage": storage_view(&storage),
        "spend": telemetry::metrics().sum("tidegate_spent"),
    }))
    .into_response()
}

fn kinds(app: &App, topics: &[TopicLine]) -> Value {
    let line = |topic: &Topic| topics.iter().find(|l| l.topic == topic.as_str());
    let kind = |k: &std::sync::Arc<crate::settings::Kind>| {
        let models: Vec<&str> = k.lineup().map(|l| l.iter().map(|m| &*m.name).collect()).unwrap_or_default();
        json!({
            "kind": &*k.name,
            "from": k.from.as_str(),
            "to": k.to.as_str(),
            "open": line(&k.from).and_then(|l| l.open),
            "models": models,
        })
    };
    app.settings.kinds.iter().map(kind).collect()
}

fn storage_view(report: &StorageReport) -> Value {
    let pinned: Vec<Value> =
        report.pinned.iter().map(|(file, by)| json!({ "segment": file, "by": by })).collect();
    json!({
        "log_bytes": report.log_bytes,
        "ledger_bytes": report.ledger_bytes,
        "free_bytes": report.free_bytes,
        "segments": report.segments,
        "pinned": pinned,
    })
}

/// Tasks that are set aside.
fn waits(app: &App, lines: &[TopicLine]) -> u64 {
    let retry = &app.settings.topics.retry;
    let parked = lines.iter().filter(|l| retry.iter().any(|(_, topic)| l.topic == topic.as_str()));
    parked.filter_map(|l| l.open).sum()
}

/// Dead letters that the log holds, sent again or not; as exact as its records are.
fn buried(app: &App, lines: &[TopicLine]) -> u64 {
    let topic = app.settings.topics.dead_letters.as_str();
    lines.iter().filter(|l| l.topic == topic).map(|l| l.records).sum()
}

/// Every topic that something reads or writes, each once.
async fn lines(app: &App) -> Result<Vec<TopicLine>, Unavailable> {
    let names = &app.settings.topics;
    let mut topics: Vec<&Topic> = app.settings.kinds.iter().map(|k| &k.from).collect();
    topics.extend(names.internal());
    topics.push(&names.dead_letters);
    topics.extend(app.settings.kinds.iter().map(|k| &k.to));
    let mut lines: Vec<TopicLine> = Vec::with_capacity(topics.len());
    for topic in topics {
        if lines.iter().any(|l| l.topic == topic.as_str()) {
            continue;
        }
        let ends = app.engine.log.ends(topic).await?;
        let line = line(topic, &ends);
        // Dead letters are done with, whatever the log says of who has read them.
        let open = line.open.filter(|_| *topic != names.dead_letters);
        lines.push(TopicLine { open, ..line });
    }
    Ok(lines)
}

fn line(topic: &Topic, ends: &[Ends]) -> TopicLine {
    let open = ends.iter().filter_map(|e| e.open);
    TopicLine {
        topic: topic.to_string(),
        records: ends.iter().map(|e| e.next - e.first).sum(),
        open: ends.iter().any(|e| e.open.is_some()).then(|| open.sum()),
    }
}

/// Sets the gauges to what they are now; those of the log stay as they were where it cannot be read.
pub(super) async fn gauge(app: &App) -> Result<(), Unavailable> {
    let now = State::of(app);
    set("tidegate_reviews_open", now.reviews as u64);
    set("tidegate_kinds_held", now.held.iter().map(|h| h.kinds.len() as u64).sum());
    set("tidegate_models_unavailable", now.away.len() as u64);
    let lines = lines(app).await;
    for line in lines.iter().flatten() {
        if let Some(open) = line.open {
            metrics::gauge!("tidegate_records_open", "topic" => line.topic.clone()).set(to_f64(open));
        }
    }
    let storage = app.engine.operation.storage().await;
    set("tidegate_log_bytes", storage.log_bytes);
    set("tidegate_ledger_bytes", storage.ledger_bytes);
    set("tidegate_disk_free_bytes", storage.free_bytes);
    lines.map(drop)
}

fn set(name: &'static str, value: u64) {
    metrics::gauge!(name).set(to_f64(value));
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a double; beyond 2^53 nobody counts bytes")]
fn to_f64(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> State {
        State {
            health: Health::Well,
            stopping: false,
            unread: None,
            held: vec![],
            away: vec![],
            failing: vec![],
            models: 2,
            unserved: vec![],
            parked: Some(0),
            free: Some(1 << 40),
            broken: 0,
            reviews: 0,
        }
    }

    #[test]
    fn the_sentence_names_the_strongest_reason() {
        assert_eq!(sentence(&well()), "All is well.");
        let reviews = State { reviews: 3, ..well() };
        assert_eq!(sentence(&reviews), "All is well; 3 reviews wait for a person.");
        let one = State { away: vec![("main-model".into(), "down since 00:12".into())], ..reviews.clone() };
        assert_eq!(
            sentence(&one),
            "main-model is not used now (down since 00:12): every kind has another model, nothing waits for it; 3 reviews wait for a person."
        );
        let held = Held {
            topic: "tasks.ticket".into(),
            kinds: vec!["ticket".into()],
            by: crate::worker::By::NoModel,
            why: "no model answers".into(),
        };
        let held = State { held: vec![held], ..one };
        assert_eq!(sentence(&held), "Tasks of ticket wait, nothing is lost: no model answers.");
        assert!(held.degraded());
        let unread = State { unread: Some("the review queue is still being read: 1 of 2".into()), ..held };
        assert_eq!(
            sentence(&unread),
            "Not all that is open can be found yet, nothing is lost: the review queue is still being read: 1 of 2."
        );
        let stopping = State { stopping: true, ..unread.clone() };
        assert_eq!(
            sentence(&stopping),
            "This process is stopping: running tasks may end, new ones are not taken."
        );
        let full = State { health: Health::Paused { why: "the disk is full".into() }, ..unread };
        assert_eq!(sentence(&full), "Intake is paused, nothing is lost: the disk is full.");
    }

    #[test]
    fn nothing_waits_is_said_only_where_it_is_known_and_true() {
        let both = State {
            away: vec![("main".into(), "down".into()), ("spare".into(), "down".into())],
            unserved: vec![("ticket".into(), "main is down".into())],
            ..well()
        };
        // In the seconds before its topic is held, too.
        assert_eq!(sentence(&both), "Tasks of ticket wait, nothing is lost: main is down.");
        let one = State { away: vec![("main".into(), String::new())], ..well() };
        let parked = State { parked: Some(3), ..one.clone() };
        assert_eq!(
            sentence(&parked),
            "main is not used now: every kind has another model; 3 tasks wait in the log and are tried again."
        );
        let unknown = State { parked: None, ..one };
        assert_eq!(sentence(&unknown), "main is not used now: every kind has another model.");
        let back = State { parked: Some(1), ..well() };
        assert_eq!(sentence(&back), "All is well; 1 task waits in the log and is tried again.");
        let fails = State { failing: vec![("main".into(), "it could not be reached".into())], ..back };
        assert_eq!(
            sentence(&fails),
            "main has just failed (it could not be reached); 1 task waits in the log and is tried again."
        );
        let full = State { free: Some(3 << 20), ..well() };
        assert_eq!(sentence(&full), "All is well; the disk is nearly full (3 MiB left).");
        let recovered = State { parked: Some(0), ..fails };
        assert_eq!(sentence(&recovered), "All is well.", "a failure that nobody waits for is no news");
    }

    #[test]
    fn a_record_that_waits_is_told_beside_whatever_else_is_wrong() {
        let waits = || Some("a record waits".to_owned());
        let (partly, paused) = (Health::Partly { why: "b".into() }, Health::Paused { why: "b".into() });
        assert_eq!(with(Health::Well, waits()), Health::Partly { why: "a record waits".into() });
        assert_eq!(with(partly.clone(), waits()), Health::Partly { why: "b; also: a record waits".into() });
        assert_eq!(with(paused, waits()), Health::Paused { why: "b; also: a record waits".into() });
        assert_eq!((with(partly.clone(), None), with(Health::Well, None)), (partly, Health::Well));
    }

    #[test]
    fn a_task_that_broke_off_is_no_secret() {
        let broken = State { broken: 1, ..well() };
        assert!(broken.degraded());
        assert_eq!(
            sentence(&broken),
            "It runs, but not all is well; 1 task broke off inside Tidegate and is tried again after a restart."
        );
    }
}

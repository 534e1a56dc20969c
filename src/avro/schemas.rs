//! What is known of schemas: those that records were written with, by id, and the id of our own results
//! in each topic.
//!
//! The answer "not known yet" costs nothing and asks nobody; `obtain` asks the registry, one question at a
//! time for the whole process, so that a thousand records of one schema are one request. A registry that is
//! away is never taken for one that says no.

use super::registry::{Registry, Trouble};
use super::schema::Schema;
use crate::task::Topic;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The schema of results: the Avro twin of `schemas/result.json`.
const RESULT: &str = include_str!("../../schemas/result.avsc");

/// Schemas that are kept; more belong to topics that one process does not read. The oldest go first.
const KEPT_MAX: usize = 1_000;
/// Bytes of their texts, all together.
const KEPT_BYTES: usize = 32 << 20;

/// An id that a registry does not know may have been registered a moment ago, at another of its nodes.
const ASKED: u32 = 3;
const BETWEEN: Duration = Duration::from_millis(500);
/// How long it is then believed.
const UNKNOWN_FOR: Duration = Duration::from_secs(30);

/// A registry that is away is asked by one of those who wait, this often at most.
const AWAY_FOR: Duration = Duration::from_millis(500);

/// How long intake goes on writing with a subject's latest schema before it looks for a newer one.
const LATEST_FOR: Duration = Duration::from_secs(60);

/// Where schemas come from.
pub enum Source {
    Registry(Registry),
    /// From files, where there is none.
    Files {
        by_id: BTreeMap<u32, Arc<Schema>>,
        /// The id among them of the schema of results.
        result: Option<u32>,
    },
}

/// A schema that must be known before a record can be worked on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Need {
    /// The one with this id.
    Reader(u32),
    /// The id of our results' schema in this topic.
    Results(Topic),
}

pub enum Known {
    Schema(Arc<Schema>),
    /// There is none, or none that can be used; and why.
    Refused(String),
    /// Nobody has asked yet.
    Wanted,
}

/// The registry cannot be asked; nothing has been decided.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Away(pub String);

/// Why intake has no schema to write with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NoWriter {
    Away(Away),
    None(String),
}

pub struct Schemas {
    source: Option<Arc<Source>>,
    state: Mutex<State>,
    /// Whoever holds it may ask.
    one: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    read: HashMap<u32, Entry>,
    /// In the order they came.
    order: VecDeque<u32>,
    bytes: usize,
    results: HashMap<Topic, u32>,
    latest: HashMap<Topic, (Instant, u32, Arc<Schema>)>,
    away: Option<(Instant, Away)>,
}

struct Entry {
    found: Result<Arc<Schema>, String>,
    /// Until when it holds; `None`: a schema never changes.
    until: Option<Instant>,
}

impl Schemas {
    /// `None`: no kind has anything to do with Avro.
    pub fn new(source: Option<Arc<Source>>) -> Self {
        Schemas { source, state: Mutex::default(), one: tokio::sync::Mutex::default() }
    }

    /// The schema that a record names.
    pub fn reader(&self, id: u32) -> Known {
        match self.source.as_deref() {
            None => Known::Refused(no_source()),
            Some(Source::Files { by_id, .. }) => match by_id.get(&id) {
                Some(schema) => Known::Schema(schema.clone()),
                None => Known::Refused(format!("no file is given for schema {id}")),
            },
            Some(Source::Registry(_)) => match self.state().read.get(&id) {
                Some(Entry { until: Some(until), .. }) if *until <= Instant::now() => Known::Wanted,
                Some(Entry { found: Ok(schema), .. }) => Known::Schema(schema.clone()),
                Some(Entry { found: Err(why), .. }) => Known::Refused(why.clone()),
                None => Known::Wanted,
            },
        }
    }

    /// The id that results in `topic` are written with, once it is known.
    pub fn results(&self, topic: &Topic) -> Option<u32> {
        match self.source.as_deref()? {
            Source::Files { result, .. } => *result,
            Source::Registry(_) => self.state().results.get(topic).copied(),
        }
    }

    pub fn settled(&self, need: &Need) -> bool {
        match need {
            Need::Reader(id) => !matches!(self.reader(*id), Known::Wanted),
            Need::Results(topic) => self.registry().is_none() || self.results(topic).is_some(),
        }
    }

    /// Asks for it, unless another has meanwhile. Afterwards it is settled, or nothing is known.
    pub async fn obtain(&self, need: &Need) -> Result<(), Away> {
        let Some(registry) = self.registry() else { return Ok(()) };
        let _one = self.one.lock().await;
        if self.settled(need) {
            return Ok(());
        }
        self.lately_away()?;
        match need {
            Need::Reader(id) => {
                let found = self.heard(by_id(registry, *id).await)?;
                self.keep(*id, found);
            }
            Need::Results(topic) => {
                let found = registry.register(&subject(topic), RESULT).await;
                // Without it nothing can be published: a person must see to it, and tasks wait.
                let id = self.heard(found)?.map_err(|why| {
                    Away(format!(
                        "the registry does not take the schema of results as `{}`: {why}",
                        subject(topic)
                    ))
                });
                self.state().results.insert(topic.clone(), id?);
            }
        }
        Ok(())
    }

    /// What intake writes to `topic` with: the schema with this id, or the latest of the topic's subject.
    pub async fn writer(&self, topic: &Topic, id: Option<u32>) -> Result<(u32, Arc<Schema>), NoWriter> {
        if let Some(id) = id {
            self.obtain(&Need::Reader(id)).await.map_err(NoWriter::Away)?;
            return match self.reader(id) {
                Known::Schema(schema) => Ok((id, schema)),
                Known::Refused(why) => Err(NoWriter::None(why)),
                Known::Wanted => Err(NoWriter::Away(Away(format!("schema {id} is not known yet")))),
            };
        }
        let Some(registry) = self.registry() else {
            return Err(NoWriter::None("the kind has no `intake_schema`".to_owned()));
        };
        let fresh = |(at, id, schema): &(Instant, u32, Arc<Schema>)| {
            (at.elapsed() < LATEST_FOR).then(|| (*id, schema.clone()))
        };
        let _one = self.one.lock().await;
        let known = self.state().latest.get(topic).and_then(fresh);
        if let Some(known) = known {
            return Ok(known);
        }
        let found = match self.lately_away() {
            Ok(()) => self.heard(registry.latest(&subject(topic)).await),
            Err(away) => Err(away),
        };
        // What was the latest a while ago is still a schema of that topic.
        let old = self.state().latest.get(topic).map(|(_, id, schema)| (*id, schema.clone()));
        let found = match (found, old) {
            (Err(_), Some(old)) => return Ok(old),
            (Err(away), None) => return Err(NoWriter::Away(away)),
            (Ok(found), _) => found,
        };
        let (id, schema) = found.map_err(|why| {
            NoWriter::None(format!("the registry has no schema to write `{topic}` with: {why}"))
        })?;
        let schema = Arc::new(schema);
        self.state().latest.insert(topic.clone(), (Instant::now(), id, schema.clone()));
        Ok((id, schema))
    }

    /// Why the registry could not be asked, where that was the last word.
    pub fn away(&self) -> Option<String> {
        self.state().away.as_ref().map(|(_, away)| away.0.clone())
    }

    fn registry(&self) -> Option<&Registry> {
        match self.source.as_deref() {
            Some(Source::Registry(registry)) => Some(registry),
            _ => None,
        }
    }

    fn lately_away(&self) -> Result<(), Away> {
        match &self.state().away {
            Some((since, away)) if since.elapsed() < AWAY_FOR => Err(away.clone()),
            _ => Ok(()),
        }
    }

    /// Notes whether the registry could be asked; what it said otherwise.
    fn heard<T>(&self, answer: Result<T, Trouble>) -> Result<Result<T, String>, Away> {
        let (word, heard) = match answer {
            Ok(found) => ("found", Ok(Ok(found))),
            Err(Trouble::Unknown(why)) => ("unknown", Ok(Err(why))),
            Err(Trouble::Unusable(why)) => ("unusable", Ok(Err(why))),
            Err(Trouble::Away(why)) => ("away", Err(Away(why))),
        };
        metrics::counter!("tidegate_registry_requests_total", "answer" => word).increment(1);
        let mut state = self.state();
        match &heard {
            Err(away) => {
                if state.away.as_ref().is_none_or(|(_, known)| known != away) {
                    tracing::warn!(%away, "tasks wait for the schema registry");
                }
                state.away = Some((Instant::now(), away.clone()));
            }
            Ok(_) => {
                if state.away.take().is_some() {
                    tracing::info!("the schema registry answers again");
                }
            }
        }
        drop(state);
        heard
    }

    fn keep(&self, id: u32, found: Result<Schema, String>) {
        let mut state = self.state();
        state.forget(id);
        let until = found.is_err().then(|| Instant::now() + UNKNOWN_FOR);
        let found = found.map(Arc::new).map_err(|why| format!("schema {id}: {why}"));
        state.bytes += weight(&found);
        state.read.insert(id, Entry { found, until });
        state.order.push_back(id);
        while state.order.len() > KEPT_MAX || (state.bytes > KEPT_BYTES && state.order.len() > 1) {
            if let Some(oldest) = state.order.front().copied() {
                state.forget(oldest);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn forget(&mut self, id: u32) {
        if let Some(entry) = self.read.remove(&id) {
            self.bytes -= weight(&entry.found);
            self.order.retain(|known| *known != id);
        }
    }
}

fn weight(found: &Result<Arc<Schema>, String>) -> usize {
    found.as_ref().map_or_else(String::len, |schema| schema.weight)
}

async fn by_id(registry: &Registry, id: u32) -> Result<Schema, Trouble> {
    for _ in 1..ASKED {
        match registry.by_id(id).await {
            Err(Trouble::Unknown(_)) => tokio::time::sleep(BETWEEN).await,
            told => return told,
        }
    }
    registry.by_id(id).await
}

/// As every registry client names the schema of a topic's values, unless told otherwise.
fn subject(topic: &Topic) -> String {
    format!("{topic}-value")
}

fn no_source() -> String {
    "the value is Avro, and the configuration has no `[registry]`".to_owned()
}

impl Source {
    /// Schemas from files, by id.
    pub fn files(by_id: BTreeMap<u32, Arc<Schema>>) -> Source {
        let ours = Schema::parse(RESULT).ok();
        let same = |schema: &Schema| ours.as_ref().is_some_and(|ours| ours.same_as(schema));
        let result = by_id.iter().find(|(_, schema)| same(schema)).map(|(id, _)| *id);
        Source::Files { by_id, result }
    }
}

/// The schema that results are written with.
pub fn result_schema() -> Result<Schema, super::Refused> {
    Schema::parse(RESULT)
}

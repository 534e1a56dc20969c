//! Turns bytes into a [`Task`], or into a reason why they cannot be one.
//!
//! Knows which kind reads which topic, and believes token headers only on internal topics.
//! Asks nobody, waits for nothing: whether the task may run is the ledger's to say, and a schema that is not
//! known yet is for the caller to obtain.

mod identity;
mod intake;
mod payload;

pub use identity::{Identity, KEY_MAX, Owner, Problem, TENANT_MAX, Unidentified, identify};
pub use intake::{Accepted, Refusal, Sent, intake};
pub use payload::Payload;

use crate::avro::{self, Need, Schemas};
use crate::outcome::Reason;
use crate::settings::{Format, Kind, Settings};
use crate::task::{Fingerprint, Origin, PrintRule, Record, Token, Topic};
use crate::token::{self, Carry};
use bytes::Bytes;
use payload::Unread;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// A record that can be worked on.
#[derive(Clone)]
pub struct Task {
    pub kind: Arc<Kind>,
    pub token: Token,
    pub carry: Carry,
    pub payload: Value,
}

/// A record that cannot be a task under the rules of today.
#[derive(Clone)]
pub struct Poison {
    pub reason: Reason,
    pub detail: String,
    /// The token, where the key is known: it may own a claim.
    pub known: Option<(Token, Carry)>,
}

/// Why a record is no task.
#[derive(Clone)]
pub enum Undecoded {
    Poison(Box<Poison>),
    /// Nobody can tell before this schema is known.
    Wants(Need),
}

/// The kinds of the configuration, by what they read; and the schemas that their records are written with.
pub struct Kinds {
    by_topic: HashMap<Topic, Vec<Arc<Kind>>>,
    by_name: HashMap<Arc<str>, Arc<Kind>>,
    /// Largest record that is read as a task, bytes.
    record_max: usize,
    schemas: Schemas,
}

impl Kinds {
    pub fn new(settings: &Settings) -> Self {
        let mut by_topic: HashMap<Topic, Vec<Arc<Kind>>> = HashMap::new();
        for kind in &settings.kinds {
            by_topic.entry(kind.from.clone()).or_default().push(kind.clone());
        }
        let by_name = settings.kinds.iter().map(|k| (k.name.clone(), k.clone())).collect();
        let schemas = Schemas::new(settings.registry.clone());
        Kinds { by_topic, by_name, record_max: settings.engine.record_max, schemas }
    }

    pub fn schemas(&self) -> &Schemas {
        &self.schemas
    }

    pub fn named(&self, name: &str) -> Option<&Arc<Kind>> {
        self.by_name.get(name)
    }

    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.by_topic.keys()
    }

    /// The kinds that read `topic`; they pause together.
    pub fn on(&self, topic: &Topic) -> &[Arc<Kind>] {
        self.by_topic.get(topic).map_or(&[], Vec::as_slice)
    }

    /// A task whose result is written in Avro is none before the result's schema is known: what it would
    /// buy meanwhile could not be published.
    pub fn decode(&self, record: &Arc<Record>) -> Result<Task, Undecoded> {
        let task = match self.by_topic.get(&record.position.at.topic) {
            Some(kinds) => self.source(record, kinds),
            None => self.internal(record),
        }?;
        match self.result_wants(&task.kind) {
            Some(need) => Err(Undecoded::Wants(need)),
            None => Ok(task),
        }
    }

    /// What `decode` would want first, told by a look at the record's first bytes; and whose record it is.
    pub fn wants(&self, record: &Record) -> Option<(Arc<str>, Need)> {
        let value = record.value.as_deref().unwrap_or_default();
        let (kind, avro) = match self.by_topic.get(&record.position.at.topic) {
            Some(kinds) => {
                let kind = pick(kinds, record).ok()?;
                (kind, kind.format == Format::Avro)
            }
            None => (self.by_name.get(record.headers.text(token::KIND)?)?, avro::is_framed(value)),
        };
        let reader = match avro::unframe(value) {
            Ok((id, _)) if avro => Some(Need::Reader(id)).filter(|need| !self.schemas.settled(need)),
            _ => None,
        };
        let need = reader.or_else(|| self.result_wants(kind))?;
        Some((kind.name.clone(), need))
    }

    /// The id of the schema that the kind's results are written with; none where they are JSON.
    pub fn result_schema(&self, kind: &Kind) -> Option<u32> {
        (kind.result_format == Format::Avro).then(|| self.schemas.results(&kind.to)).flatten()
    }

    /// The schema that must be known before a result of the kind can be written.
    pub fn result_wants(&self, kind: &Kind) -> Option<Need> {
        let need = Need::Results(kind.to.clone());
        (kind.result_format == Format::Avro && !self.schemas.settled(&need)).then_some(need)
    }

    /// Hop 0: the record is its own origin, whatever its headers say.
    fn source(&self, record: &Arc<Record>, kinds: &[Arc<Kind>]) -> Result<Task, Undecoded> {
        let kind = pick(kinds, record).map_err(|detail| Poison {
            reason: Reason::KindUnknown,
            detail,
            known: None,
        })?;
        let value = record.value.clone().unwrap_or_default();
        // Also a record that is too large is identified, so that the ledger is asked: under a larger
        // limit it may have been admitted, and then its refusal is the outcome of its open claim. What
        // the topic takes bounds the parse.
        let mut found = match identify(kind, &value, &record.headers, &self.schemas) {
            Ok(id) => Ok(id),
            Err(Unidentified::Problem(problem)) => Err(problem),
            Err(Unidentified::Wants(need)) => return Err(Undecoded::Wants(need)),
        };
        if value.len() > self.record_max {
            let owner = |id: Identity| Owner { key: id.scope, print: id.print, payload: id.payload.text };
            let known = found.map_or_else(|problem| problem.known, |id| Some(owner(id)));
            let detail = format!("{} bytes; the limit is {}", value.len(), self.record_max);
            found = Err(Problem { reason: Reason::RecordTooLarge, detail, known });
        }
        let token = |Owner { key, print, payload }| Token {
            key,
            generation: 0,
            origin: Origin { position: record.position.clone(), stamp: record.stamp },
            hop: 0,
            print,
            proof: None,
            payload,
        };
        let carry = Carry { v: 1, accepted_at: record.stamp, ..Carry::default() };
        match found {
            Ok(id) => Ok(Task {
                kind: kind.clone(),
                token: token(Owner { key: id.scope, print: id.print, payload: id.payload.text }),
                carry: Carry { deadline: id.deadline, ..carry },
                payload: id.payload.json,
            }),
            Err(problem) => Err(Undecoded::from(Poison {
                reason: problem.reason,
                detail: problem.detail,
                known: problem.known.map(|owner| (token(owner), carry)),
            })),
        }
    }

    /// A retry, a resume or a redrive: the token says what it is.
    fn internal(&self, record: &Arc<Record>) -> Result<Task, Undecoded> {
        let bytes = record.value.clone().unwrap_or_default();
        let (mut token, carry) = token::decode(record, bytes.clone()).map_err(|e| Poison {
            reason: Reason::TokenInvalid,
            detail: e.to_string(),
            known: None,
        })?;
        let poison = |token: &Token, reason, detail| {
            Undecoded::from(Poison { reason, detail, known: Some((token.clone(), carry.clone())) })
        };
        let Some(kind) = self.by_name.get(&token.key.kind).cloned() else {
            let detail = format!("the configuration has no kind `{}`", token.key.kind);
            return Err(poison(&token, Reason::KindUnknown, detail));
        };
        let payload = match payload::read_token(&bytes, &self.schemas) {
            Ok(payload) => payload,
            Err(Unread::Wants(need)) => return Err(Undecoded::Wants(need)),
            Err(Unread::Wrong(reason, detail)) => return Err(poison(&token, reason, detail)),
        };
        // It was refused when nobody could read it; now that it is read it is the payload that others send.
        if token.print.rule == PrintRule::Bytes {
            token.print = identity::print_of(&kind, &payload);
        }
        token.payload = payload.text;
        if let Err(detail) = identity::accept(&kind, &payload.json) {
            return Err(poison(&token, Reason::InputRefused, detail));
        }
        Ok(Task { kind, token, carry, payload: payload.json })
    }
}

impl From<Poison> for Undecoded {
    fn from(poison: Poison) -> Self {
        Undecoded::Poison(Box::new(poison))
    }
}

/// Several kinds may share a topic by `ce_type`.
fn pick<'a>(kinds: &'a [Arc<Kind>], record: &Record) -> Result<&'a Arc<Kind>, String> {
    let said = record.headers.text("ce_type");
    let fits = |k: &&Arc<Kind>| match &k.ce_type {
        Some(wanted) => said == Some(wanted.as_str()),
        None => true,
    };
    kinds.iter().find(fits).ok_or_else(|| match said {
        Some(said) => format!("no kind on this topic has type `{said}`"),
        None if record.headers.get("ce_type").is_some() => "header `ce_type` is not UTF-8".to_owned(),
        None => "the kinds on this topic are told apart by `ce_type`, and the record has none".to_owned(),
    })
}

/// The fingerprint of a payload that is not JSON.
fn print_of_bytes(value: &Bytes) -> Fingerprint {
    Fingerprint { rule: PrintRule::Bytes, digest: *blake3::hash(value).as_bytes() }
}

#[cfg(test)]
mod tests;

//! Turns bytes into a [`Task`], or into a reason why they cannot be one.
//!
//! Knows which kind reads which topic, and believes token headers only on internal topics.
//! Asks nobody, waits for nothing: whether the task may run is the ledger's to say.

mod identity;
mod intake;

pub use identity::{Identity, KEY_MAX, Problem, TENANT_MAX, identify};
pub use intake::{Accepted, Refusal, intake};

use crate::outcome::Reason;
use crate::settings::{Kind, Settings};
use crate::task::{Fingerprint, Origin, PrintRule, Record, ScopedKey, Token, Topic};
use crate::token::{self, Carry};
use bytes::Bytes;
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

/// The kinds of the configuration, by what they read.
pub struct Kinds {
    by_topic: HashMap<Topic, Vec<Arc<Kind>>>,
    by_name: HashMap<Arc<str>, Arc<Kind>>,
    /// Largest record that is read as a task, bytes.
    record_max: usize,
}

impl Kinds {
    pub fn new(settings: &Settings) -> Self {
        let mut by_topic: HashMap<Topic, Vec<Arc<Kind>>> = HashMap::new();
        for kind in &settings.kinds {
            by_topic.entry(kind.from.clone()).or_default().push(kind.clone());
        }
        let by_name = settings.kinds.iter().map(|k| (k.name.clone(), k.clone())).collect();
        Kinds { by_topic, by_name, record_max: settings.engine.record_max }
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

    pub fn decode(&self, record: &Arc<Record>) -> Result<Task, Poison> {
        match self.by_topic.get(&record.position.at.topic) {
            Some(kinds) => self.source(record, kinds),
            None => self.internal(record),
        }
    }

    /// Hop 0: the record is its own origin, whatever its headers say.
    fn source(&self, record: &Arc<Record>, kinds: &[Arc<Kind>]) -> Result<Task, Poison> {
        let kind = pick(kinds, record).map_err(|detail| Poison {
            reason: Reason::KindUnknown,
            detail,
            known: None,
        })?;
        let value = record.value.clone().unwrap_or_default();
        // Also a record that is too large is identified, so that the ledger is asked: under a larger
        // limit it may have been admitted, and then its refusal is the outcome of its open claim. What
        // the topic takes bounds the parse.
        let mut found = identify(kind, &value, &record.headers);
        if value.len() > self.record_max {
            let scope = found.map_or_else(|p| p.scope, |id| Some((id.scope, id.print)));
            let detail = format!("{} bytes; the limit is {}", value.len(), self.record_max);
            found = Err(Problem { reason: Reason::RecordTooLarge, detail, scope });
        }
        let token = |key: ScopedKey, print: Fingerprint| Token {
            key,
            generation: 0,
            origin: Origin { position: record.position.clone(), stamp: record.stamp },
            hop: 0,
            print,
            proof: None,
            payload: value.clone(),
        };
        let carry = Carry { v: 1, accepted_at: record.stamp, ..Carry::default() };
        match found {
            Ok(id) => Ok(Task {
                kind: kind.clone(),
                token: token(id.scope, id.print),
                carry: Carry { deadline: id.deadline, ..carry },
                payload: id.payload,
            }),
            Err(problem) => Err(Poison {
                reason: problem.reason,
                detail: problem.detail,
                known: problem.scope.map(|(key, print)| (token(key, print), carry)),
            }),
        }
    }

    /// A retry, a resume or a redrive: the token says what it is.
    fn internal(&self, record: &Arc<Record>) -> Result<Task, Poison> {
        let bytes = record.value.clone().unwrap_or_default();
        let (token, carry) = token::decode(record, bytes.clone()).map_err(|e| Poison {
            reason: Reason::TokenInvalid,
            detail: e.to_string(),
            known: None,
        })?;
        let poison = |reason, detail| Poison { reason, detail, known: Some((token.clone(), carry.clone())) };
        let Some(kind) = self.by_name.get(&token.key.kind).cloned() else {
            let detail = format!("the configuration has no kind `{}`", token.key.kind);
            return Err(poison(Reason::KindUnknown, detail));
        };
        let payload: Value = match serde_json::from_slice(&bytes) {
            Ok(payload) => payload,
            Err(e) => return Err(poison(Reason::Malformed, format!("not JSON: {e}"))),
        };
        if let Err(detail) = identity::accept(&kind, &payload) {
            return Err(poison(Reason::InputRefused, detail));
        }
        Ok(Task { kind, token, carry, payload })
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
        None => "the kinds on this topic are told apart by `ce_type`, and the record has none".to_owned(),
    })
}

/// The fingerprint of a payload that is not JSON.
fn print_of_bytes(value: &Bytes) -> Fingerprint {
    Fingerprint { rule: PrintRule::Bytes, digest: *blake3::hash(value).as_bytes() }
}

#[cfg(test)]
mod tests;

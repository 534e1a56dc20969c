//! Finds key, tenant, fingerprint and deadline of a task in its payload and headers.

use super::payload::{self, Payload, Unread};
use super::print_of_bytes;
use crate::avro::{Need, Schemas};
use crate::fingerprint;
use crate::outcome::Reason;
use crate::settings::Kind;
use crate::task::{Fingerprint, Headers, ScopedKey, Timestamp};
use bytes::Bytes;
use serde_json::{Map, Value};

/// Longest idempotency key, bytes: it is part of every ledger key and of URLs.
pub const KEY_MAX: usize = 1024;

/// Longest name of a tenant, bytes: it is part of every ledger key too.
pub const TENANT_MAX: usize = 256;

/// A payload that can be a task.
#[derive(Clone, Debug)]
pub struct Identity {
    pub scope: ScopedKey,
    pub print: Fingerprint,
    pub payload: Payload,
    pub deadline: Option<Timestamp>,
}

/// Why it cannot be one; with its owner where the key is known all the same.
#[derive(Clone, Debug)]
pub struct Problem {
    pub reason: Reason,
    pub detail: String,
    pub known: Option<Owner>,
}

/// Whose a record is that cannot be a task.
#[derive(Clone, Debug)]
pub struct Owner {
    pub key: ScopedKey,
    pub print: Fingerprint,
    /// The payload as text; where it cannot be read, the bytes that came.
    pub payload: Bytes,
}

/// Why a record's identity is not known, or its payload no task.
#[derive(Clone, Debug)]
pub enum Unidentified {
    Problem(Problem),
    /// Nobody can tell before this schema is known.
    Wants(Need),
}

impl From<Problem> for Unidentified {
    fn from(problem: Problem) -> Self {
        Unidentified::Problem(problem)
    }
}

/// The identity of a record on the kind's topic.
pub fn identify(
    kind: &Kind,
    value: &Bytes,
    headers: &Headers,
    schemas: &Schemas,
) -> Result<Identity, Unidentified> {
    match payload::read(kind.format, value, schemas) {
        Ok(payload) => Ok(of_payload(kind, payload, headers)?),
        Err(Unread::Wants(need)) => Err(Unidentified::Wants(need)),
        Err(Unread::Wrong(reason, detail)) => Err(unread(kind, value, headers, reason, detail).into()),
    }
}

/// What is known of a record whose payload cannot be read.
fn unread(kind: &Kind, value: &Bytes, headers: &Headers, reason: Reason, detail: String) -> Problem {
    let tenant = match tenant_of(headers) {
        Ok(tenant) => tenant,
        Err(problem) => return problem,
    };
    let key = headers.text("idempotency-key").filter(|k| !k.is_empty() && k.len() <= KEY_MAX);
    let known = key.map(|key| Owner {
        key: ScopedKey::new(tenant, &kind.name, key),
        print: print_of_bytes(value),
        payload: value.clone(),
    });
    Problem { reason, detail, known }
}

/// A header that decides something is never taken for one that is not there.
fn text_of<'h>(headers: &'h Headers, name: &str, reason: Reason) -> Result<Option<&'h str>, Problem> {
    match (headers.get(name), headers.text(name)) {
        (Some(_), None) => {
            let detail = format!("header `{name}` is not UTF-8");
            Err(Problem { reason, detail, known: None })
        }
        (_, text) => Ok(text),
    }
}

fn tenant_of(headers: &Headers) -> Result<&str, Problem> {
    let tenant = text_of(headers, "tenant", Reason::Malformed)?.unwrap_or("");
    if tenant.len() > TENANT_MAX {
        let detail = format!("the tenant's name has {} bytes; the limit is {TENANT_MAX}", tenant.len());
        return Err(Problem { reason: Reason::Malformed, detail, known: None });
    }
    Ok(tenant)
}

pub(super) fn of_payload(kind: &Kind, payload: Payload, headers: &Headers) -> Result<Identity, Problem> {
    let tenant = tenant_of(headers)?;
    let key = key_of(kind, &payload, headers)?;
    let scope = ScopedKey::new(tenant, &kind.name, &key);
    let print = print_of(kind, &payload);
    let problem = |reason, detail| {
        let owner = Owner { key: scope.clone(), print: print.clone(), payload: payload.text.clone() };
        Problem { reason, detail, known: Some(owner) }
    };
    accept(kind, &payload.json).map_err(|detail| problem(Reason::InputRefused, detail))?;
    let deadline =
        match text_of(headers, "deadline", Reason::Malformed).map_err(|p| problem(p.reason, p.detail))? {
            Some(text) => Some(read_time(text).ok_or_else(|| {
                problem(
                    Reason::Malformed,
                    format!("header `deadline`: `{text}` is neither RFC 3339 nor milliseconds"),
                )
            })?),
            None => None,
        };
    Ok(Identity { scope, print, payload, deadline })
}

/// The kind's rule, else the header, else CloudEvents source + id, else (if the kind says so) the content's hash.
fn key_of(kind: &Kind, payload: &Payload, headers: &Headers) -> Result<String, Problem> {
    let missing = |detail: String| Problem { reason: Reason::KeyMissing, detail, known: None };
    let key = if let Some(rule) = &kind.key {
        let names = Value::Object(text_headers(headers));
        let found = rule.eval(&[("task", &payload.json), ("headers", &names)]);
        match found {
            Ok(Value::String(key)) => key,
            Ok(Value::Number(n)) if n.is_i64() || n.is_u64() => n.to_string(),
            // Beyond 64 bits JSON's numbers are rounded: two ids would be one key, and one task lost.
            Ok(Value::Number(_)) => {
                let detail = "is a number that is not whole or has more than 64 bits; give the id as text";
                return Err(missing(format!("`{}` {detail}", rule.source())));
            }
            Ok(other) => {
                let what = if other.is_null() { "null" } else { "neither text nor a whole number" };
                return Err(missing(format!("`{}` is {what} here", rule.source())));
            }
            Err(e) => return Err(missing(format!("`{}`: {e}", rule.source()))),
        }
    } else if let Some(key) = text_of(headers, "idempotency-key", Reason::KeyMissing)? {
        key.to_owned()
    } else if let (Some(source), Some(id)) =
        (text_of(headers, "ce_source", Reason::KeyMissing)?, text_of(headers, "ce_id", Reason::KeyMissing)?)
    {
        format!("{source}#{id}")
    } else if kind.content_key {
        content_key(&payload.text)
    } else {
        return Err(missing(
            "no `idempotency-key` header, no CloudEvents id, and the kind has no `key` rule".to_owned(),
        ));
    };
    if key.is_empty() {
        return Err(missing("the key is empty".to_owned()));
    }
    if key.len() > KEY_MAX {
        let detail = format!("{} bytes; the limit is {KEY_MAX}", key.len());
        return Err(Problem { reason: Reason::KeyTooLong, detail, known: None });
    }
    Ok(key)
}

/// The hash of the payload's RFC 8785 form: the same task however it was serialised.
pub(super) fn content_key(value: &Bytes) -> String {
    let digest =
        fingerprint::digest(&crate::task::PrintRule::Whole, value).unwrap_or(*blake3::hash(value).as_bytes());
    blake3::Hash::from_bytes(digest).to_hex()[..32].to_owned()
}

pub(super) fn print_of(kind: &Kind, payload: &Payload) -> Fingerprint {
    let print = fingerprint::fingerprint(&kind.identity, &payload.text);
    print.unwrap_or_else(|| print_of_bytes(&payload.text))
}

/// Checks the payload against the kind's input schema, if it has one.
pub(super) fn accept(kind: &Kind, payload: &Value) -> Result<(), String> {
    let Some(schema) = &kind.input else { return Ok(()) };
    let findings = schema.check(payload);
    if findings.is_empty() {
        return Ok(());
    }
    // Three say enough; a dead letter's header has a limit.
    Err(findings.iter().take(3).map(|f| f.message.as_str()).collect::<Vec<_>>().join("; "))
}

fn text_headers(headers: &Headers) -> Map<String, Value> {
    headers
        .0
        .iter()
        .filter_map(|(name, value)| Some((name.clone(), Value::from(std::str::from_utf8(value).ok()?))))
        .collect()
}

fn read_time(text: &str) -> Option<Timestamp> {
    if let Ok(ms) = text.parse::<i64>() {
        return Some(Timestamp(ms));
    }
    text.parse::<jiff::Timestamp>().ok().map(|t| Timestamp(t.as_millisecond()))
}

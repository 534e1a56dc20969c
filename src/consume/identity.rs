//! Finds key, tenant, fingerprint and deadline of a task in its payload and headers.

use super::print_of_bytes;
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
    pub payload: Value,
    pub deadline: Option<Timestamp>,
}

/// Why it cannot be one; with scope and fingerprint where the key is known all the same.
#[derive(Clone, Debug)]
pub struct Problem {
    pub reason: Reason,
    pub detail: String,
    pub scope: Option<(ScopedKey, Fingerprint)>,
}

pub fn identify(kind: &Kind, value: &Bytes, headers: &Headers) -> Result<Identity, Problem> {
    let tenant = headers.text("tenant").unwrap_or("");
    if tenant.len() > TENANT_MAX {
        let detail = format!("the tenant's name has {} bytes; the limit is {TENANT_MAX}", tenant.len());
        return Err(Problem { reason: Reason::Malformed, detail, scope: None });
    }
    let payload: Value = match serde_json::from_slice(value) {
        Ok(payload) => payload,
        Err(e) => {
            let scope = headers.text("idempotency-key").filter(|k| !k.is_empty() && k.len() <= KEY_MAX);
            return Err(Problem {
                reason: Reason::Malformed,
                detail: format!("not JSON: {e}"),
                scope: scope.map(|k| (ScopedKey::new(tenant, &kind.name, k), print_of_bytes(value))),
            });
        }
    };
    let key = key_of(kind, &payload, value, headers)?;
    let scope = ScopedKey::new(tenant, &kind.name, &key);
    let print = fingerprint::fingerprint(&kind.identity, value).unwrap_or_else(|| print_of_bytes(value));
    let problem = |reason, detail| Problem { reason, detail, scope: Some((scope.clone(), print.clone())) };
    accept(kind, &payload).map_err(|detail| problem(Reason::InputRefused, detail))?;
    let deadline = match headers.text("deadline") {
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
fn key_of(kind: &Kind, payload: &Value, value: &Bytes, headers: &Headers) -> Result<String, Problem> {
    let missing = |detail: String| Problem { reason: Reason::KeyMissing, detail, scope: None };
    let key = if let Some(rule) = &kind.key {
        let names = Value::Object(text_headers(headers));
        let found = rule.eval(&[("task", payload), ("headers", &names)]);
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
    } else if let Some(key) = headers.text("idempotency-key") {
        key.to_owned()
    } else if let (Some(source), Some(id)) = (headers.text("ce_source"), headers.text("ce_id")) {
        format!("{source}#{id}")
    } else if kind.content_key {
        content_key(value)
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
        return Err(Problem { reason: Reason::KeyTooLong, detail, scope: None });
    }
    Ok(key)
}

/// The hash of the payload's RFC 8785 form: the same task however it was serialised.
pub(super) fn content_key(value: &Bytes) -> String {
    let digest =
        fingerprint::digest(&crate::task::PrintRule::Whole, value).unwrap_or(*blake3::hash(value).as_bytes());
    blake3::Hash::from_bytes(digest).to_hex()[..32].to_owned()
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

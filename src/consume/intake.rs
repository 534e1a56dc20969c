//! Intake by HTTP: the same rules as for a record, told at once instead of in a dead letter. One more: a key that is
//! sent beside the payload is never another than the one that the task gets.

use super::identity::{content_key, of_payload};
use super::payload::Payload;
use crate::avro::{self, Schema};
use crate::engine::Output;
use crate::outcome::Reason;
use crate::settings::Kind;
use crate::task::{Fingerprint, Headers, ScopedKey};
use bytes::Bytes;
use serde_json::Value;
use std::sync::Arc;

/// A task that may be appended.
#[derive(Clone, Debug)]
pub struct Accepted {
    pub output: Output,
    pub scope: ScopedKey,
    pub print: Fingerprint,
    /// The payload as JSON, which the record's value need not be.
    pub payload: Bytes,
    /// The sender gave no key and the kind has no rule: the content's hash serves as key.
    pub content_key: bool,
}

/// Why not, with the HTTP status that says so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    pub status: u16,
    pub reason: Reason,
    pub detail: String,
}

/// What somebody sent: a payload in JSON, and what stands beside it.
#[derive(Clone, Copy)]
pub struct Sent<'a> {
    pub payload: &'a Bytes,
    pub key: Option<&'a str>,
    /// A payload without a key gets its content's hash (`submit` does that, and says so).
    pub lend_key: bool,
}

/// Makes the record to append to the kind's topic. `writer`: the schema, and its id, that the record is
/// written with where the kind's records are Avro.
pub fn intake(
    kind: &Kind,
    sent: Sent<'_>,
    mut headers: Headers,
    writer: Option<&(u32, Arc<Schema>)>,
    record_max: usize,
) -> Result<Accepted, Refusal> {
    let fits = |bytes: &Bytes| match bytes.len() {
        n if n <= record_max => Ok(()),
        n => {
            let detail = format!("{n} bytes; the limit is {record_max}");
            Err(Refusal { status: 413, reason: Reason::RecordTooLarge, detail })
        }
    };
    fits(sent.payload)?;
    let (value, payload) = written(sent.payload, writer)?;
    fits(&value)?;
    if let Some(key) = sent.key {
        headers.push("idempotency-key", key.as_bytes().to_vec());
    }
    // Kinds of one topic are told apart by type: with a foreign one another kind, or nobody, would take
    // the task that is answered for here.
    match (&kind.ce_type, headers.get("ce_type")) {
        (Some(wanted), None) => headers.push("ce_type", wanted.as_bytes().to_vec()),
        (Some(wanted), Some(said)) if said != wanted.as_bytes() => {
            let detail = format!("`ce-type` is not `{wanted}`, the type of kind `{}`", kind.name);
            return Err(Refusal { status: 400, reason: Reason::KindUnknown, detail });
        }
        _ => {}
    }
    let mut lent = false;
    let text = payload.text.clone();
    let mut found = of_payload(kind, payload.clone(), &headers);
    if sent.lend_key && found.as_ref().is_err_and(|p| p.reason == Reason::KeyMissing) && kind.key.is_none() {
        headers.push("idempotency-key", content_key(&text));
        lent = true;
        found = of_payload(kind, payload, &headers);
    }
    let id = found.map_err(|problem| Refusal {
        status: if problem.reason == Reason::InputRefused { 422 } else { 400 },
        reason: problem.reason,
        detail: problem.detail,
    })?;
    // Whoever names a key looks for the task by it.
    if let (Some(rule), Some(sent)) = (&kind.key, sent.key)
        && *sent != *id.scope.key
    {
        let detail = format!(
            "the key sent is `{sent}`, and by the kind's rule `{}` it is `{}`",
            rule.source(),
            id.scope.key
        );
        return Err(Refusal { status: 400, reason: Reason::Malformed, detail });
    }
    let output = Output {
        topic: kind.from.clone(),
        key: Some(Bytes::from(id.scope.key.as_bytes().to_vec())),
        value: Some(value),
        headers,
        not_before: None,
    };
    Ok(Accepted { output, scope: id.scope, print: id.print, payload: text, content_key: lent })
}

/// The record's value, and the payload that whoever reads it will see: of Avro what its datum says, so that
/// the key and the fingerprint of today are those of then.
fn written(sent: &Bytes, writer: Option<&(u32, Arc<Schema>)>) -> Result<(Bytes, Payload), Refusal> {
    let json: Value = serde_json::from_slice(sent).map_err(|e| Refusal {
        status: 400,
        reason: Reason::Malformed,
        detail: format!("not JSON: {e}"),
    })?;
    let Some((id, schema)) = writer else { return Ok((sent.clone(), Payload { json, text: sent.clone() })) };
    let unfit = |e: avro::Refused| Refusal {
        status: 422,
        reason: Reason::InputRefused,
        detail: format!("cannot be written with schema {id}: {e}"),
    };
    let datum = schema.encode(&json).map_err(unfit)?;
    let json = schema.decode(&datum).map_err(unfit)?;
    let text = serde_json::to_vec(&json).unwrap_or_default().into();
    Ok((avro::frame(*id, &datum).into(), Payload { json, text }))
}

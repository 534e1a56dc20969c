//! Intake by HTTP: the same rules as for a record, told at once instead of in a dead letter.

use super::identity::{content_key, identify};
use crate::engine::Output;
use crate::outcome::Reason;
use crate::settings::Kind;
use crate::task::{Fingerprint, Headers, ScopedKey};
use bytes::Bytes;

/// A task that may be appended.
#[derive(Clone, Debug)]
pub struct Accepted {
    pub output: Output,
    pub scope: ScopedKey,
    pub print: Fingerprint,
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

/// Makes the record to append to the kind's topic. `key` is what the sender gave beside the payload;
/// `lend_key`: a payload without a key gets its content's hash (`submit` does that, and says so).
pub fn intake(
    kind: &Kind,
    key: Option<&str>,
    payload: Bytes,
    mut headers: Headers,
    record_max: usize,
    lend_key: bool,
) -> Result<Accepted, Refusal> {
    if payload.len() > record_max {
        let detail = format!("{} bytes; the limit is {record_max}", payload.len());
        return Err(Refusal { status: 413, reason: Reason::RecordTooLarge, detail });
    }
    if let Some(key) = key {
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
    let mut found = identify(kind, &payload, &headers);
    if lend_key && found.as_ref().is_err_and(|p| p.reason == Reason::KeyMissing) && kind.key.is_none() {
        headers.push("idempotency-key", content_key(&payload));
        lent = true;
        found = identify(kind, &payload, &headers);
    }
    let id = found.map_err(|problem| Refusal {
        status: if problem.reason == Reason::InputRefused { 422 } else { 400 },
        reason: problem.reason,
        detail: problem.detail,
    })?;
    let output = Output {
        topic: kind.from.clone(),
        key: Some(Bytes::from(id.scope.key.as_bytes().to_vec())),
        value: Some(payload),
        headers,
        not_before: None,
    };
    Ok(Accepted { output, scope: id.scope, print: id.print, content_key: lent })
}

//! Fingerprints of payloads, under any rule.
//!
//! The rule is data, so every program can compute a digest under the rule of an entry that another
//! version admitted. Nothing here decides whether two payloads are in conflict.

use crate::task::{Fingerprint, PrintRule};
use serde_json::{Number, Value};

/// The fingerprint of a payload under the rule of its kind; `None` where the rule needs JSON and
/// the payload is none.
pub fn fingerprint(rule: &PrintRule, payload: &[u8]) -> Option<Fingerprint> {
    Some(Fingerprint { rule: rule.clone(), digest: digest(rule, payload)? })
}

/// BLAKE3 of what the rule names.
pub fn digest(rule: &PrintRule, payload: &[u8]) -> Option<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    match rule {
        PrintRule::Bytes => {
            hasher.update(payload);
        }
        PrintRule::Whole => {
            let value: Value = serde_json::from_slice(payload).ok()?;
            hasher.update(&canonical(&value)?);
        }
        PrintRule::Fields(paths) => {
            let value: Value = serde_json::from_slice(payload).ok()?;
            for path in paths.iter() {
                field(&mut hasher, find(&value, path))?;
            }
        }
    }
    Some(*hasher.finalize().as_bytes())
}

/// Each field behind its length, so that no two lists of fields look alike. Absent is not null.
fn field(hasher: &mut blake3::Hasher, value: Option<&Value>) -> Option<()> {
    match value {
        None => hasher.update(&[0]),
        Some(value) => {
            let bytes = canonical(value)?;
            hasher.update(&[1]).update(&(bytes.len() as u64).to_be_bytes()).update(&bytes)
        }
    };
    Some(())
}

/// `a.b.0.c`: names of fields, and indexes into lists.
fn find<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.').try_fold(value, |at, part| match at {
        Value::Object(fields) => fields.get(part),
        Value::Array(items) => items.get(part.parse::<usize>().ok()?),
        _ => None,
    })
}

/// RFC 8785, except that integers a double cannot hold stay what they are: two 64-bit ids that
/// differ in their last digit are two payloads, and calling one a copy of the other would lose it.
fn canonical(value: &Value) -> Option<Vec<u8>> {
    if !has_long_integer(value) {
        return serde_json_canonicalizer::to_vec(value).ok();
    }
    let mut value = value.clone();
    spell_out(&mut value);
    serde_json_canonicalizer::to_vec(&value).ok()
}

fn has_long_integer(value: &Value) -> bool {
    match value {
        Value::Number(n) => long_integer(n).is_some(),
        Value::Array(items) => items.iter().any(has_long_integer),
        Value::Object(fields) => fields.values().any(has_long_integer),
        _ => false,
    }
}

/// As text behind a mark that no sensible string begins with.
fn spell_out(value: &mut Value) {
    match value {
        Value::Number(n) => {
            if let Some(integer) = long_integer(n) {
                *value = Value::String(format!("\u{1}{integer}"));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(spell_out),
        Value::Object(fields) => fields.values_mut().for_each(spell_out),
        _ => {}
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "whether that loses something is the question"
)]
fn long_integer(n: &Number) -> Option<i128> {
    let integer = n.as_i64().map(i128::from).or_else(|| n.as_u64().map(i128::from))?;
    (integer as f64 as i128 != integer).then_some(integer)
}

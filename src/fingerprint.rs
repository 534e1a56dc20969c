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

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(paths: &[&str]) -> PrintRule {
        PrintRule::Fields(paths.iter().map(|p| (*p).to_owned()).collect())
    }

    fn same(rule: &PrintRule, a: &str, b: &str) -> bool {
        digest(rule, a.as_bytes()).unwrap() == digest(rule, b.as_bytes()).unwrap()
    }

    #[test]
    fn writing_the_same_payload_differently_is_no_conflict() {
        let (a, b) = (r#"{"a":1,"b":"\u00e9"}"#, "{ \"b\": \"é\", \"a\": 1.0 }");
        assert!(same(&PrintRule::Whole, a, b));
        assert!(!same(&PrintRule::Bytes, a, b));
        assert!(!same(&PrintRule::Whole, r#"{"a":1}"#, r#"{"a":2}"#));
    }

    #[test]
    fn ids_that_a_double_cannot_tell_apart_are_told_apart() {
        let ids = |n: &str| format!(r#"{{"at":[{{"id":{n}}}]}}"#);
        assert!(!same(&PrintRule::Whole, &ids("9007199254740993"), &ids("9007199254740992")));
        assert!(!same(&PrintRule::Whole, &ids("18446744073709551615"), &ids("18446744073709551614")));
        assert!(!same(&fields(&["at"]), &ids("-9007199254740993"), &ids("-9007199254740992")));
        assert!(same(&PrintRule::Whole, &ids("9007199254740992"), &ids("9007199254740992.0")));
        assert!(!same(&PrintRule::Whole, &ids("9007199254740993"), &ids("\"9007199254740993\"")));
    }

    #[test]
    fn only_the_fields_that_are_named_count_and_absent_is_not_null() {
        let rule = fields(&["id", "who.name", "lines.0.n"]);
        let base = r#"{"id":1,"who":{"name":"x"},"lines":[{"n":1}]}"#;
        assert!(same(&rule, base, r#"{"id":1,"who":{"name":"x","age":3},"lines":[{"n":1},2],"more":0}"#));
        assert!(!same(&rule, base, r#"{"id":1,"who":{"name":"y"},"lines":[{"n":1}]}"#));
        assert!(!same(&rule, base, r#"{"id":1,"who":{"name":"x"},"lines":[{"n":2}]}"#));
        assert!(!same(&fields(&["a"]), r#"{"a":null}"#, "{}"));
        assert!(same(&fields(&["a.b"]), r#"{"a":[]}"#, "{}"));
    }

    #[test]
    fn fields_do_not_run_into_each_other() {
        let rule = fields(&["a", "b"]);
        assert!(!same(&rule, r#"{"a":1,"b":11}"#, r#"{"a":11,"b":1}"#));
        assert!(!same(&rule, r#"{"a":null}"#, r#"{"b":null}"#));
    }

    #[test]
    fn what_is_no_json_has_a_print_by_its_bytes_only() {
        assert!(digest(&PrintRule::Bytes, b"\xff").is_some());
        assert_eq!(digest(&PrintRule::Whole, b"{"), None);
        assert_eq!(fingerprint(&fields(&["a"]), b"{"), None);
        let deep = "[".repeat(10_000) + &"]".repeat(10_000);
        assert_eq!(digest(&PrintRule::Whole, deep.as_bytes()), None);
    }

    /// Ledger entries outlive programs: a print made today must be made again in a year.
    #[test]
    fn the_digests_of_today_stay() {
        let hex = |rule: &PrintRule| {
            blake3::Hash::from(digest(rule, br#"{"b":[1.5,null],"a":"x"}"#).unwrap()).to_hex()
        };
        assert_eq!(
            hex(&PrintRule::Bytes).as_str(),
            "4cc4abfcdec5b631b6851d95fb5defd52e96cea9cfc44ae74571bce6477e0f2c"
        );
        assert_eq!(
            hex(&PrintRule::Whole).as_str(),
            "b1c99da7385b8ca18e36df84bb9f3c604af4f468d6486d4938955dd5326f18e6"
        );
        assert_eq!(
            hex(&fields(&["a", "c", "b"])).as_str(),
            "fb4c93b63c23c775bc7848d41594e40db6ecc76f404a09806b2531cd1cd0798d"
        );
    }
}

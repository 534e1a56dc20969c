//! JSON to CEL and back. The crate's own conversion makes unsigned numbers of JSON's integers,
//! and `n + 1` an error.

use super::EvalError;
use cel::objects::{Key, Map};
use serde_json::{Number, Value};
use std::collections::HashMap;
use std::sync::Arc;

/// Deeper than serde_json reads (128), so only values built by hand can meet it.
const DEPTH_MAX: usize = 130;

/// Converts a value and remembers the longest list or object met.
pub(super) fn to_cel(value: &Value, longest: &mut usize) -> Result<cel::Value, EvalError> {
    convert(value, longest, 0)
}

fn convert(value: &Value, longest: &mut usize, depth: usize) -> Result<cel::Value, EvalError> {
    if depth > DEPTH_MAX {
        return Err(EvalError::TooDeep);
    }
    Ok(match value {
        Value::Null => cel::Value::Null,
        Value::Bool(b) => cel::Value::Bool(*b),
        Value::Number(n) => number(n),
        Value::String(s) => cel::Value::String(Arc::new(s.clone())),
        Value::Array(items) => {
            *longest = items.len().max(*longest);
            let items: Result<Vec<_>, _> = items.iter().map(|v| convert(v, longest, depth + 1)).collect();
            cel::Value::List(Arc::new(items?))
        }
        Value::Object(fields) => {
            *longest = fields.len().max(*longest);
            let mut map = HashMap::with_capacity(fields.len());
            for (name, value) in fields {
                map.insert(Key::from(name.as_str()), convert(value, longest, depth + 1)?);
            }
            cel::Value::Map(Map { map: Arc::new(map) })
        }
    })
}

fn number(n: &Number) -> cel::Value {
    match (n.as_i64(), n.as_u64()) {
        (Some(i), _) => cel::Value::Int(i),
        (None, Some(u)) => cel::Value::UInt(u),
        // serde_json's third form; it never holds a number that is not finite.
        (None, None) => cel::Value::Float(n.as_f64().unwrap_or(f64::NAN)),
    }
}

/// Converts a result. Objects come out with their names in order, so that a key made of one is
/// the same each time.
pub(super) fn to_json(value: &cel::Value, depth: usize) -> Result<Value, EvalError> {
    if depth > DEPTH_MAX {
        return Err(EvalError::TooDeep);
    }
    Ok(match value {
        cel::Value::Null => Value::Null,
        cel::Value::Bool(b) => Value::Bool(*b),
        cel::Value::Int(i) => Value::from(*i),
        cel::Value::UInt(u) => Value::from(*u),
        cel::Value::Float(f) => Number::from_f64(*f)
            .map(Value::Number)
            .ok_or_else(|| EvalError::Failed("the result is no finite number".into()))?,
        cel::Value::String(s) => Value::String(s.as_str().to_owned()),
        cel::Value::Timestamp(t) => Value::String(t.to_rfc3339()),
        cel::Value::List(items) => {
            Value::Array(items.iter().map(|v| to_json(v, depth + 1)).collect::<Result<_, _>>()?)
        }
        cel::Value::Map(map) => {
            let mut fields: Vec<(String, &cel::Value)> =
                map.map.iter().map(|(k, v)| (k.to_string(), v)).collect();
            fields.sort_by(|a, b| a.0.cmp(&b.0));
            let fields = fields.into_iter().map(|(k, v)| Ok((k, to_json(v, depth + 1)?)));
            Value::Object(fields.collect::<Result<_, EvalError>>()?)
        }
        other => return Err(EvalError::Failed(format!("the result is a {}, not JSON", other.type_of()))),
    })
}

//! Dotted paths into JSON values: `order.items.0.id`. Never fails: what is not there is not there.

use serde_json::{Map, Value};

/// The value at `path`; the empty path is the value itself.
pub(super) fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').filter(|part| !part.is_empty()).try_fold(value, |here, part| match here {
        Value::Object(map) => map.get(part),
        Value::Array(list) => part.parse::<usize>().ok().and_then(|i| list.get(i)),
        _ => None,
    })
}

/// Puts `new` at `path`, making the objects on the way; what stands in the way is replaced.
pub(super) fn put(value: &mut Value, path: &str, new: Value) {
    let mut here = value;
    for part in path.split('.').filter(|part| !part.is_empty()) {
        if !here.is_object() {
            *here = Value::Object(Map::new());
        }
        let Value::Object(map) = here else { return };
        here = map.entry(part).or_insert(Value::Null);
    }
    *here = new;
}

/// A value as text to search in: strings as they are, anything else as JSON.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_lead_through_objects_and_lists() {
        let value = json!({ "a": { "b": [1, { "c": 2 }] } });
        assert_eq!(at(&value, "a.b.1.c"), Some(&json!(2)));
        assert_eq!((at(&value, "a.x"), at(&value, "a.b.9"), at(&value, "")), (None, None, Some(&value)));
        let mut made = json!({ "a": 1 });
        put(&mut made, "a.b", json!(true));
        put(&mut made, "c", json!("x"));
        assert_eq!(made, json!({ "a": { "b": true }, "c": "x" }));
    }
}

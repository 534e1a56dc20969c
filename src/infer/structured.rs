//! Decides whether a provider can be held to a JSON Schema while it decodes, or is only told of it.
//!
//! Providers refuse a schema whose keywords their decoders do not know. The answer is checked anyway,
//! so what does not fit loses nothing but the help.

use serde_json::{Map, Value};

/// Keywords that both providers' strict decoders know.
const KNOWN: [&str; 16] = [
    "$schema",
    "$id",
    "$ref",
    "$defs",
    "definitions",
    "type",
    "title",
    "description",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "enum",
    "const",
    "anyOf",
    "format",
];

/// Whether strict decoding can take `schema`: an object at the top, every object closed with all its
/// properties required, and no keyword but the known ones.
pub(super) fn fits(schema: &Value) -> bool {
    schema["type"] == "object" && part_fits(schema)
}

fn part_fits(schema: &Value) -> bool {
    // `true` allows anything, which no decoder is held to.
    let Some(map) = schema.as_object() else { return false };
    let inside = |name: &str| map.get(name).and_then(Value::as_object).into_iter().flat_map(Map::values);
    let listed = map.get("anyOf").and_then(Value::as_array).into_iter().flatten();
    map.keys().all(|k| KNOWN.contains(&k.as_str()))
        && closed(map)
        && inside("properties").chain(inside("$defs")).chain(inside("definitions")).all(part_fits)
        && listed.chain(map.get("items")).all(part_fits)
}

/// Every object names all its properties as required and allows no others.
fn closed(map: &Map<String, Value>) -> bool {
    let is_object = match &map.get("type") {
        Some(Value::String(one)) => one == "object",
        Some(Value::Array(several)) => several.iter().any(|t| t == "object"),
        _ => map.contains_key("properties"),
    };
    if !is_object {
        return true;
    }
    let required: Vec<&str> = map
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let Some(properties) = map.get("properties").and_then(Value::as_object) else { return false };
    map.get("additionalProperties") == Some(&Value::Bool(false))
        && properties.keys().all(|name| required.contains(&name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(properties: Value, required: Value) -> Value {
        json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
    }

    #[test]
    fn closed_objects_of_plain_keywords_fit() {
        let nested = object(json!({ "b": { "type": ["string", "null"] } }), json!(["b"]));
        let list = json!({ "type": "array", "items": nested });
        assert!(fits(&object(json!({ "a": { "enum": ["x", "y"] }, "l": list }), json!(["a", "l"]))));
        assert!(
            fits(&object(json!({ "properties": { "type": "string" } }), json!(["properties"]))),
            "a field of that name"
        );
    }

    #[test]
    fn what_a_decoder_would_refuse_does_not_fit() {
        let open = json!({ "type": "object", "properties": {}, "required": [] });
        assert!(!fits(&open));
        assert!(
            !fits(&object(json!({ "a": {} , "b": { "type": "string" } }), json!(["a"]))),
            "b is optional"
        );
        assert!(!fits(&object(json!({ "a": { "type": "string", "minLength": 1 } }), json!(["a"]))));
        assert!(!fits(&object(json!({ "a": { "type": "array", "items": open } }), json!(["a"]))));
        assert!(!fits(&object(json!({ "a": { "anyOf": [true] } }), json!(["a"]))));
        assert!(
            !fits(&json!({ "type": "array", "items": { "type": "string" } })),
            "an object must be at the top"
        );
        assert!(!fits(&json!(true)));
    }
}

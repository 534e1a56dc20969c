//! The short form of an answer's schema, as configuration files write it, made into a strict JSON
//! Schema that providers accept for structured output.
//!
//! | short form | means |
//! |---|---|
//! | `"string"`, `"number"`, `"integer"`, `"boolean"`, `"date"` | a value of that type |
//! | `"string?"` | the same or null |
//! | `"string[]"`, `"string[]?"`, `"string?[]"` | a list; a list or null; a list whose items may be null |
//! | `["low", "high"]` | one of these |
//! | `{ dose = "number", unit = "string" }` | an object of exactly these fields |
//! | `[{ dose = "number" }]` | a list of such objects |
//! | `"urgency?" = ["low", "high"]` | a field whose value may be null, for forms that have no room for a `?` |
//!
//! Strict: every field is there (null where it may be), and no other.

use super::schema::SchemaError;
use crate::finding::below;
use serde_json::{Map, Value, json};

/// Providers refuse deeper schemas.
const DEPTH_MAX: usize = 10;
const WORDS: &[&str] = &["string", "number", "integer", "boolean", "date"];

/// Expands the short form of an object.
pub(super) fn expand(short: &Value) -> Result<Value, SchemaError> {
    match short {
        Value::Object(fields) => object(fields, "", 0),
        _ => Err(SchemaError::new(
            "",
            "an answer is a table of fields, `{ category = [\"a\", \"b\"] }`, or a path to a schema file",
        )),
    }
}

fn object(fields: &Map<String, Value>, path: &str, depth: usize) -> Result<Value, SchemaError> {
    if depth >= DEPTH_MAX {
        return Err(SchemaError::new(path, format!("nested deeper than {DEPTH_MAX} levels")));
    }
    if fields.is_empty() {
        return Err(SchemaError::new(path, "an object without fields; name at least one"));
    }
    let mut properties = Map::new();
    for (written, value) in fields {
        let name = written.trim_end_matches('?');
        let path = below(path, name);
        if name.is_empty() {
            return Err(SchemaError::new(&path, "a field without a name"));
        }
        let mut schema = form(value, &path, depth)?;
        if name != written {
            schema = or_null(schema);
        }
        if properties.insert(name.to_owned(), schema).is_some() {
            return Err(SchemaError::new(&path, "the field is there twice, with and without `?`"));
        }
    }
    let required: Vec<&String> = properties.keys().collect();
    Ok(
        json!({"type": "object", "required": required, "additionalProperties": false, "properties": properties}),
    )
}

fn form(value: &Value, path: &str, depth: usize) -> Result<Value, SchemaError> {
    match value {
        Value::String(word) => type_word(word, path),
        Value::Object(fields) => object(fields, path, depth + 1),
        Value::Array(items) => match items.as_slice() {
            [Value::Object(fields)] => {
                Ok(json!({"type": "array", "items": object(fields, path, depth + 1)?}))
            }
            items => one_of(items, path),
        },
        other => Err(SchemaError::new(path, format!("`{other}` is no type; write one of {}", known()))),
    }
}

fn type_word(word: &str, path: &str) -> Result<Value, SchemaError> {
    let word = word.trim();
    if let Some(inner) = word.strip_suffix('?') {
        return Ok(or_null(type_word(inner, path)?));
    }
    if let Some(inner) = word.strip_suffix("[]") {
        return Ok(json!({"type": "array", "items": type_word(inner, path)?}));
    }
    match word {
        "date" => Ok(json!({"type": "string", "format": "date"})),
        _ if WORDS.contains(&word) => Ok(json!({"type": word})),
        _ => Err(SchemaError::new(path, unknown(word))),
    }
}

/// What people write instead, and what is near by its letters.
fn unknown(word: &str) -> String {
    let meant = match word.to_ascii_lowercase().as_str() {
        "str" | "text" | "varchar" => Some("string"),
        "int" | "long" | "i64" => Some("integer"),
        "float" | "double" | "decimal" | "num" => Some("number"),
        "bool" => Some("boolean"),
        "datetime" | "timestamp" | "time" => Some("date"),
        "object" | "map" | "table" | "dict" => {
            return format!(
                "unknown type `{word}`; for an object write a table of its fields, `{{ name = \"string\" }}`"
            );
        }
        "array" | "list" => {
            return format!(
                "unknown type `{word}`; for a list write the type of its items with `[]`, `\"string[]\"`"
            );
        }
        other => WORDS.iter().copied().find(|w| strsim::damerau_levenshtein(other, w) <= 2),
    };
    match meant {
        Some(meant) => format!("unknown type `{word}`, did you mean `{meant}`? Known: {}", known()),
        None => format!(
            "unknown type `{word}`; known: {}; one of fixed values is a list, `[\"a\", \"b\"]`",
            known()
        ),
    }
}

fn known() -> String {
    WORDS.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(", ")
}

fn one_of(items: &[Value], path: &str) -> Result<Value, SchemaError> {
    let kind = match items.first() {
        None => return Err(SchemaError::new(path, "an empty list; name the allowed values")),
        Some(Value::String(word)) if items.len() == 1 && type_word(word, path).is_ok() => {
            let what = format!("one of a single value `{word}`; for a list of them write `\"{word}[]\"`");
            return Err(SchemaError::new(path, what));
        }
        Some(Value::String(_)) => "string",
        Some(Value::Number(n)) if !n.is_f64() => "integer",
        Some(Value::Number(_)) => "number",
        Some(_) => {
            return Err(SchemaError::new(
                path,
                "allowed values are texts or numbers; a list of objects names one object",
            ));
        }
    };
    let fits = |v: &Value| match kind {
        "string" => v.is_string(),
        "integer" => v.is_i64() || v.is_u64(),
        _ => v.is_number(),
    };
    if let Some(odd) = items.iter().find(|v| !fits(v)) {
        return Err(SchemaError::new(
            path,
            format!("allowed values must be of one type; `{odd}` is not like the first"),
        ));
    }
    if let Some(twice) = items.iter().enumerate().find(|(i, v)| items[..*i].contains(v)) {
        return Err(SchemaError::new(path, format!("the allowed value {} is there twice", twice.1)));
    }
    Ok(json!({"type": kind, "enum": items}))
}

/// The type as a union with null, which is what strict structured output takes.
fn or_null(mut schema: Value) -> Value {
    if let Some(kind @ Value::String(_)) = schema.get("type").cloned() {
        schema["type"] = json!([kind, "null"]);
    }
    if let Some(Value::Array(options)) = schema.get_mut("enum") {
        options.push(Value::Null);
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_four_line_file_becomes_a_strict_schema() {
        let short = json!({"category": ["billing", "bug"], "order_id": "string?", "tags": "string[]"});
        assert_eq!(
            expand(&short).unwrap(),
            json!({
                "type": "object", "required": ["category", "order_id", "tags"], "additionalProperties": false,
                "properties": {
                    "category": {"type": "string", "enum": ["billing", "bug"]},
                    "order_id": {"type": ["string", "null"]},
                    "tags": {"type": "array", "items": {"type": "string"}}
                }
            })
        );
    }

    #[test]
    fn every_form_means_what_the_table_says() {
        let one = |v: Value| expand(&json!({ "x": v })).unwrap()["properties"]["x"].clone();
        assert_eq!(one(json!("date")), json!({"type": "string", "format": "date"}));
        assert_eq!(one(json!("number[]?")), json!({"type": ["array", "null"], "items": {"type": "number"}}));
        assert_eq!(one(json!("number?[]")), json!({"type": "array", "items": {"type": ["number", "null"]}}));
        assert_eq!(one(json!([1, 2])), json!({"type": "integer", "enum": [1, 2]}));
        assert_eq!(one(json!([{"a": "boolean"}]))["type"], "array");
        assert_eq!(one(json!([{"a": "boolean"}]))["items"]["required"], json!(["a"]));
        assert_eq!(one(json!({"a": {"b": "integer"}}))["properties"]["a"]["additionalProperties"], false);
        let nullable = expand(&json!({"urgency?": ["low", "high"]})).unwrap();
        assert_eq!(
            nullable["properties"]["urgency"],
            json!({"type": ["string", "null"], "enum": ["low", "high", null]})
        );
        assert_eq!(nullable["required"], json!(["urgency"]));
    }

    #[test]
    fn mistakes_are_named_with_their_place_and_a_way_out() {
        for (short, path, part) in [
            (json!({"a": {"b": "strng"}}), "a.b", "did you mean `string`"),
            (json!({"a": "int"}), "a", "did you mean `integer`"),
            (json!({"a": "object"}), "a", "write a table"),
            (json!({"a": ["string"]}), "a", "write `\"string[]\"`"),
            (json!({"a": []}), "a", "empty list"),
            (json!({"a": ["x", 1]}), "a", "one type"),
            (json!({"a": ["x", "x"]}), "a", "twice"),
            (json!({"a": {}}), "a", "without fields"),
            (json!({"a": true}), "a", "is no type"),
            (json!({"a": "string", "a?": "string"}), "a", "twice"),
            (json!("string"), "", "table of fields"),
        ] {
            let e = expand(&short).unwrap_err();
            assert_eq!(e.path, path, "{short}: {e}");
            assert!(e.what.contains(part), "{short}: {e}");
        }
    }
}

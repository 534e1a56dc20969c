//! Each published record has an Avro twin beside its JSON Schema: the same fields, the same ones optional,
//! the same words; and what is valid for the one is for the other.

use crate::records::examples;
use crate::schemas::{read, refuses};
use serde_json::{Map, Value, json};
use tidegate::avro::Schema;

const NAMES: [&str; 6] =
    ["result", "review-item", "review-decision", "review-outcome", "dead-letter", "task-event"];

/// `schemas/NAME.avsc`.
fn text(name: &str) -> String {
    let path = format!("{}/schemas/{name}.avsc", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// What a twin's type must be; names of records and enums, and words for people, are its own.
#[derive(Debug, PartialEq)]
enum Wanted {
    Plain(&'static str),
    Words(Value),
    /// A list whose items have a shape of their own: JSON as text.
    Texts,
    Record,
}

/// The type of what is there, and whether it may be null.
fn wanted(of: &Value) -> (Wanted, bool) {
    let types: Vec<&str> = match &of["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    };
    let one = types.iter().find(|t| **t != "null").copied();
    let wanted = match one {
        _ if of.get("const").is_some() => Wanted::Plain("int"),
        _ if of.get("enum").is_some() => Wanted::Words(of["enum"].clone()),
        Some("string") => Wanted::Plain("string"),
        Some("integer") => Wanted::Plain("long"),
        Some("number") => Wanted::Plain("double"),
        Some("boolean") => Wanted::Plain("boolean"),
        Some("array") => Wanted::Texts,
        Some("object") if of["additionalProperties"] == json!(false) => Wanted::Record,
        // Whatever its shape: JSON as text.
        _ => Wanted::Plain("string"),
    };
    (wanted, types.contains(&"null"))
}

/// Holds a record against the object that it is the twin of.
fn same(place: &str, object: &Value, record: &Value) {
    assert_eq!(record["type"], "record", "{place}");
    let required: Vec<&str> =
        object["required"].as_array().map_or(vec![], |r| r.iter().filter_map(Value::as_str).collect());
    let mut fields = record["fields"].as_array().unwrap().iter();
    for (name, of) in object["properties"].as_object().unwrap() {
        let place = format!("{place}.{name}");
        let field = fields.next().unwrap_or_else(|| panic!("{place} is missing in the twin"));
        assert_eq!(field["name"], name.replace('-', "_"), "{place}");
        let header = if name.contains('-') { json!(name) } else { Value::Null };
        assert_eq!(
            field["header"], header,
            "{place}: Avro names have no hyphens, and say what they stand for"
        );
        let doc = field["doc"].as_str().unwrap();
        assert!(
            doc.starts_with(of["description"].as_str().unwrap()),
            "{place} is described otherwise: {doc}"
        );
        let (wanted, nullable) = wanted(of);
        let optional = nullable || !required.contains(&name.as_str());
        let of_field = if optional {
            let branches =
                field["type"].as_array().unwrap_or_else(|| panic!("{place} may be absent or null"));
            assert_eq!((branches.len(), &branches[0]), (2, &json!("null")), "{place}");
            assert_eq!(field.get("default"), Some(&Value::Null), "{place}");
            &branches[1]
        } else {
            assert_eq!(field.get("default"), None, "{place} is always there");
            &field["type"]
        };
        match wanted {
            Wanted::Plain(name) => assert_eq!(*of_field, name, "{place}"),
            Wanted::Words(words) => {
                assert_eq!((&of_field["type"], &of_field["symbols"]), (&json!("enum"), &words), "{place}")
            }
            Wanted::Texts => assert_eq!(*of_field, json!({ "type": "array", "items": "string" }), "{place}"),
            Wanted::Record => same(&place, of, of_field),
        }
        if is_free(of) {
            assert!(doc.ends_with("s JSON text."), "{place}: {doc}");
        }
    }
    if object["additionalProperties"]["type"] == "string" {
        let others = fields.next().unwrap();
        assert_eq!(
            (&others["name"], &others["type"]),
            (&json!("others"), &json!({ "type": "map", "values": "string" }))
        );
    }
    assert_eq!(fields.next(), None, "{place}: the twin has more");
}

/// Whether it has a shape of its own, or its items do.
fn is_free(of: &Value) -> bool {
    match wanted(of) {
        (Wanted::Texts, _) => true,
        (Wanted::Plain("string"), _) => of["type"] != "string" && of["type"] != json!(["string", "null"]),
        _ => false,
    }
}

#[test]
fn every_schema_has_a_twin_with_the_same_fields_the_same_optional_and_the_same_words() {
    for name in NAMES {
        let (json, avro): (Value, Value) = (read(name), serde_json::from_str(&text(name)).unwrap());
        assert_eq!((&avro["id"], &avro["namespace"]), (&json["$id"], &json!("tidegate")), "{name}");
        assert_eq!(avro["doc"], json["description"], "{name}");
        same(name, &json, &avro);
        Schema::parse(&text(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    let item: Value = serde_json::from_str(&text("review-item")).unwrap();
    let result: Value = serde_json::from_str(&text("result")).unwrap();
    let proposed = item["fields"].as_array().unwrap().iter().find(|f| f["name"] == "proposed").unwrap();
    assert_eq!(proposed["type"]["fields"], result["fields"], "what is proposed is a result");
}

/// The record as its twin has it.
fn to_twin(of: &Value, value: &Value) -> Value {
    let known = of["properties"].as_object().unwrap();
    let mut twin = Map::new();
    for (name, value) in value.as_object().unwrap() {
        let Some(of) = known.get(name) else {
            let others = twin.entry("others").or_insert_with(|| json!({}));
            others[name] = value.clone();
            continue;
        };
        let nullable = wanted(of).1;
        let as_text = |value: &Value| Value::from(value.to_string());
        let value = match wanted(of).0 {
            _ if nullable && value.is_null() => Value::Null,
            Wanted::Record => to_twin(of, value),
            Wanted::Texts => value.as_array().unwrap().iter().map(as_text).collect(),
            _ if is_free(of) => as_text(value),
            _ => value.clone(),
        };
        twin.insert(name.replace('-', "_"), value);
    }
    Value::Object(twin)
}

/// Without what is null or empty because it was not there.
fn bare(value: &Value) -> Value {
    let Value::Object(fields) = value else { return value.clone() };
    let there = fields.iter().filter(|(name, v)| !(v.is_null() || *name == "others" && **v == json!({})));
    there.map(|(name, v)| (name.clone(), bare(v))).collect()
}

#[test]
fn what_is_written_is_valid_for_both() {
    let mut seen = vec![];
    for (name, value) in examples() {
        let (json, avro) = (read(name), Schema::parse(&text(name)).unwrap());
        assert_eq!(refuses(name, &value), Vec::<String>::new(), "{name}");
        let twin = to_twin(&json, &value);
        let datum = avro.encode(&twin).unwrap_or_else(|e| panic!("{name}: {e}\n{twin}"));
        assert_eq!(bare(&avro.decode(&datum).unwrap()), bare(&twin), "{name}");
        seen.push(name);
        for (field, of) in json["properties"].as_object().unwrap() {
            let mut wrong = value.clone();
            if wrong.as_object_mut().unwrap().remove(field).is_some() {
                // In Avro what may be null may be left out.
                let absent = avro.encode(&to_twin(&json, &wrong)).is_ok();
                let required = json["required"].as_array().is_some_and(|r| r.contains(&json!(field)));
                assert_eq!(absent, !required || wanted(of).1, "{name} without {field}");
            }
            if of.get("enum").is_some() {
                wrong[field] = "nobody says this".into();
                assert!(
                    !refuses(name, &wrong).is_empty() && avro.encode(&to_twin(&json, &wrong)).is_err(),
                    "{name}.{field}"
                );
            }
        }
    }
    for name in NAMES {
        assert!(seen.contains(&name), "no example of {name}");
    }
}

//! Values from a JSON Schema: what the rules left open is made up, repeatably and validly.
//!
//! Knows what schemas of answers are made of: types, enums, constants, alternatives, local references,
//! lengths, bounds and the usual formats. Patterns are beyond it; a field with one needs a rule.

use super::draw::Draws;
use serde_json::{Map, Value, json};

/// Deeper schemas contain themselves.
const DEPTH_MAX: usize = 16;

/// Fills in what `given` leaves open and turns texts into numbers where numbers are asked for.
pub(super) fn complete(schema: &Value, given: Value, draws: &Draws) -> Value {
    Maker { root: schema, draws }.complete(schema, given, "", 0)
}

/// The form of a top-level field.
pub(super) fn field<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    resolve(schema, schema)["properties"].get(name).map(|form| resolve(schema, form))
}

/// Whether the answer may have the field that a dotted path begins with.
pub(super) fn allows(schema: &Value, path: &str) -> bool {
    let form = resolve(schema, schema);
    let named = path.split('.').next().is_some_and(|name| field(schema, name).is_some());
    named || !form["properties"].is_object()
}

pub(super) fn is_object(form: &Value) -> bool {
    types(form).contains(&"object") || form["properties"].is_object()
}

fn types(form: &Value) -> Vec<&str> {
    match &form["type"] {
        Value::String(one) => vec![one],
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
        _ => vec![],
    }
}

/// Follows local references, `#/$defs/name`.
fn resolve<'a>(root: &'a Value, mut form: &'a Value) -> &'a Value {
    for _ in 0..DEPTH_MAX {
        let Some(pointer) = form["$ref"].as_str().and_then(|r| r.strip_prefix('#')) else { break };
        let Some(next) = root.pointer(pointer) else { break };
        form = next;
    }
    form
}

struct Maker<'a> {
    root: &'a Value,
    draws: &'a Draws,
}

impl Maker<'_> {
    fn complete(&self, form: &Value, given: Value, path: &str, depth: usize) -> Value {
        let form = self.not_null(resolve(self.root, form));
        if let (Value::Array(items), true) = (&given, form["items"].is_object() && depth < DEPTH_MAX) {
            let item = |(i, v): (usize, &Value)| {
                self.complete(&form["items"], v.clone(), &format!("{path}.{i}"), depth + 1)
            };
            return items.iter().enumerate().map(item).collect();
        }
        let Some(properties) = form["properties"].as_object() else { return coerce(form, given) };
        match given {
            Value::Object(mut given) if depth < DEPTH_MAX => {
                let mut whole = Map::new();
                // In the order of the schema, as models do it.
                for (name, inner) in properties {
                    let path = format!("{path}.{name}");
                    let value = match given.remove(name) {
                        Some(value) => self.complete(inner, value, &path, depth + 1),
                        None => self.make(inner, &path, depth + 1),
                    };
                    whole.insert(name.clone(), value);
                }
                if form["additionalProperties"] != json!(false) {
                    whole.extend(given);
                }
                Value::Object(whole)
            }
            other => other,
        }
    }

    /// Of alternatives, the first that is not null: what was given takes that form.
    fn not_null<'f>(&'f self, form: &'f Value) -> &'f Value {
        let ways = form.get("anyOf").or(form.get("oneOf")).and_then(Value::as_array);
        let mut ways = ways.into_iter().flatten().map(|way| resolve(self.root, way));
        ways.find(|way| way["type"] != json!("null")).unwrap_or(form)
    }

    fn make(&self, form: &Value, path: &str, depth: usize) -> Value {
        let form = resolve(self.root, form);
        if depth > DEPTH_MAX {
            return Value::Null;
        }
        if let Some(constant) = form.get("const") {
            return constant.clone();
        }
        let one_of = form.get("enum").or(form.get("examples")).and_then(Value::as_array);
        if let Some(all) = one_of.filter(|all| !all.is_empty()) {
            if all.contains(&Value::Null) {
                return Value::Null;
            }
            let n = self.draws.number(path) % all.len() as u64;
            return all[n as usize].clone();
        }
        for word in ["anyOf", "oneOf"] {
            let Some(ways) = form[word].as_array() else { continue };
            let null = ways.iter().find(|way| resolve(self.root, way)["type"] == json!("null"));
            if let Some(way) = null.or(ways.first()) {
                return self.make(way, path, depth + 1);
            }
        }
        let kinds = types(form);
        if kinds.contains(&"null") {
            return Value::Null;
        }
        match kinds.first().copied() {
            Some("string") => Value::String(self.text(form, path)),
            Some("integer") => self.number(form, path, true),
            Some("number") => self.number(form, path, false),
            Some("boolean") => json!(self.draws.number(path).is_multiple_of(2)),
            Some("array") => self.list(form, path, depth),
            Some("object") => self.object(form, path, depth),
            None if form["properties"].is_object() => self.object(form, path, depth),
            None if form["items"].is_object() => self.list(form, path, depth),
            _ => Value::Null,
        }
    }

    fn object(&self, form: &Value, path: &str, depth: usize) -> Value {
        let properties = form["properties"].as_object().into_iter().flatten();
        properties
            .map(|(name, inner)| (name.clone(), self.make(inner, &format!("{path}.{name}"), depth + 1)))
            .collect()
    }

    fn list(&self, form: &Value, path: &str, depth: usize) -> Value {
        // One item shows the shape; a long minimum is bounded all the same.
        let least = form["minItems"].as_u64().unwrap_or(1).min(100);
        let most = form["maxItems"].as_u64().unwrap_or(u64::MAX);
        (0..least.max(1).min(most))
            .map(|i| self.make(&form["items"], &format!("{path}.{i}"), depth + 1))
            .collect()
    }

    fn text(&self, form: &Value, path: &str) -> String {
        let n = self.draws.number(path);
        let text = match form["format"].as_str() {
            Some("date") => return format!("2026-{:02}-{:02}", n % 12 + 1, n / 12 % 28 + 1),
            Some("date-time") => return format!("2026-{:02}-{:02}T12:00:00Z", n % 12 + 1, n / 12 % 28 + 1),
            Some("time") => return "12:00:00Z".to_owned(),
            Some("email" | "idn-email") => return format!("someone{}@example.com", n % 100),
            Some("uri" | "iri" | "uri-reference") => return format!("https://example.com/{}", n % 1000),
            Some("uuid") => return format!("{:08x}-0000-4000-8000-{:012x}", n >> 32, n & 0xffff_ffff),
            _ => format!("sample {}", n % 1000),
        };
        let length = |name: &str| form[name].as_u64().and_then(|n| usize::try_from(n).ok());
        let least = length("minLength").unwrap_or(0).min(10_000);
        let most = length("maxLength").unwrap_or(usize::MAX);
        text.chars().chain(std::iter::repeat('x')).take(text.chars().count().max(least).min(most)).collect()
    }

    fn number(&self, form: &Value, path: &str, whole: bool) -> Value {
        let bound = |name: &str| form[name].as_f64();
        let low = bound("minimum").or(bound("exclusiveMinimum").map(|b| if whole { b + 1.0 } else { b }));
        let high = bound("maximum").or(bound("exclusiveMaximum").map(|b| if whole { b - 1.0 } else { b }));
        let low = low.unwrap_or_else(|| high.map_or(0.0, |h| h.min(0.0)));
        let high = high.unwrap_or(low + 100.0);
        // The middle half: never on a bound that may be excluded.
        let value = low + (high - low) * (0.25 + 0.5 * self.draws.share(path));
        match bound("multipleOf").filter(|step| *step > 0.0) {
            Some(step) if whole => json!(((value / step).round() * step) as i64),
            Some(step) => json!((value / step).round() * step),
            None if whole => json!(value.round().clamp(low.ceil(), high.floor().max(low.ceil())) as i64),
            None => json!(value),
        }
    }
}

/// A captured text where a number or a truth value is asked for; lists and objects inside likewise.
fn coerce(form: &Value, given: Value) -> Value {
    let kinds = types(form);
    match given {
        Value::String(text) if !kinds.is_empty() && !kinds.contains(&"string") => {
            let number = text.trim().parse::<i64>().ok().map(|n| json!(n));
            let number = number.or_else(|| text.trim().parse::<f64>().ok().map(|n| json!(n)));
            let truth = text.trim().parse::<bool>().ok().map(|b| json!(b));
            number.or(truth).unwrap_or(Value::String(text))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::Schema;

    fn schema() -> Value {
        json!({
            "type": "object",
            "required": ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"],
            "additionalProperties": false,
            "$defs": { "part": { "type": "object", "required": ["n"], "properties": { "n": { "type": "integer", "exclusiveMinimum": 3, "maximum": 5 }, "next": { "anyOf": [{ "$ref": "#/$defs/part" }, { "type": "null" }] } } } },
            "properties": {
                "a": { "enum": ["x", "y", "z"] },
                "b": { "type": "string", "minLength": 30, "maxLength": 40 },
                "c": { "type": "string", "format": "date" },
                "d": { "type": ["number", "null"] },
                "e": { "type": "number", "minimum": 0.2, "exclusiveMaximum": 0.3 },
                "f": { "type": "array", "minItems": 2, "items": { "$ref": "#/$defs/part" } },
                "g": { "$ref": "#/$defs/part" },
                "h": { "const": 7 },
                "i": { "type": "boolean" },
                "j": { "type": "integer", "multipleOf": 5, "minimum": 10, "maximum": 20 },
            },
        })
    }

    #[test]
    fn what_is_made_up_satisfies_the_schema_and_is_the_same_again() {
        let check = Schema::compile(schema()).expect("a schema");
        for slot in 0..200 {
            let draws = || Draws::new(1, "m", &slot.to_string(), 1);
            let value = complete(&schema(), json!({}), &draws());
            assert!(check.check(&value).is_empty(), "{value}: {:?}", check.check(&value));
            assert_eq!(value, complete(&schema(), json!({}), &draws()));
            assert_eq!(
                (&value["d"], &value["g"]["next"]),
                (&Value::Null, &Value::Null),
                "null where it may be"
            );
        }
    }

    #[test]
    fn captured_text_becomes_the_number_that_is_asked_for_in_lists_too() {
        let given = json!({ "f": [{ "n": "4" }, { "n": "5", "next": { "n": "4" } }], "e": "0.25", "i": "true", "b": "12" });
        let value = complete(&schema(), given, &Draws::new(1, "m", "s", 1));
        assert_eq!(
            value["f"],
            json!([{ "n": 4, "next": null }, { "n": 5, "next": { "n": 4, "next": null } }])
        );
        assert_eq!(json!([value["e"], value["i"], value["b"]]), json!([0.25, true, "12"]));
    }
}

//! A JSON Schema, compiled: what an answer, or a task, must look like.
//!
//! The draft is the one the schema declares, else 2020-12. References stay inside the schema:
//! nothing is fetched from the network or the disk. Patterns match in linear time, so look-around
//! and back-references are refused at load; formats are checked, and unknown ones refused.

use super::advice;
use crate::finding::{Finding, below};
use jsonschema::{PatternOptions, Validator};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Findings of one check; more would not be read by anyone.
const FINDINGS_MAX: usize = 50;
/// Leaf fields listed for confidence; the rest is covered by the answer as a whole.
const FIELDS_MAX: usize = 500;
/// How deep fields are followed, which also ends schemas that contain themselves.
const FIELD_DEPTH_MAX: usize = 12;
/// Subschemas visited for fields: alternatives that contain themselves would multiply.
const FIELD_STEPS_MAX: usize = 10_000;
/// Alternatives looked into for a self-report: a handful, in any schema that people write.
const FORMS_MAX: usize = 100;
/// The field in which a model may say how sure it is; see [`Schema::self_reported`].
const SELF_REPORT: &str = "confidence";

/// A compiled schema. Cheap to clone.
#[derive(Clone)]
pub struct Schema {
    inner: Arc<Inner>,
}

struct Inner {
    json: Arc<Value>,
    validator: Validator,
    fields: Vec<String>,
    report: Option<Report>,
}

/// What the schema asks a model to say of its own certainty.
#[derive(Default)]
struct Report {
    /// A whole number is asked for, so it is per cent.
    percent: bool,
    /// Fields that are to be named, each with a number of its own.
    fields: Vec<String>,
    /// Beside them stands what is no number, a remark for instance.
    others: Vec<String>,
}

/// Why a schema cannot be used. `path` says where in the schema or shorthand, dotted; empty: at its top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaError {
    pub path: String,
    pub what: String,
}

impl std::error::Error for SchemaError {}

impl std::fmt::Display for SchemaError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.path.as_str() {
            "" => write!(f, "{}", self.what),
            path => write!(f, "at `{path}`: {}", self.what),
        }
    }
}

impl SchemaError {
    pub(super) fn new(path: &str, what: impl Into<String>) -> SchemaError {
        SchemaError { path: path.to_owned(), what: what.into() }
    }
}

impl Schema {
    /// Compiles a JSON Schema of draft 4, 6, 7, 2019-09 or 2020-12.
    pub fn compile(json: Value) -> Result<Schema, SchemaError> {
        if !json.is_object() && !json.is_boolean() {
            return Err(SchemaError::new("", "a JSON Schema is an object"));
        }
        let validator = jsonschema::options()
            .with_pattern_options(PatternOptions::regex())
            .should_validate_formats(true)
            .should_ignore_unknown_formats(false)
            .offline()
            .build(&json)
            .map_err(|e| refused(&e))?;
        let report = report(&json);
        let mut fields = Fields { root: &json, found: Vec::new(), steps: 0 };
        fields.walk(&json, "", 0);
        let mut fields = fields.found;
        fields.retain(|f| report.is_none() || !crate::finding::covers(SELF_REPORT, f));
        Ok(Schema { inner: Arc::new(Inner { fields, report, json: Arc::new(json), validator }) })
    }

    /// Compiles the short form of configuration files; see [`shorthand`](super::shorthand).
    pub fn from_shorthand(short: &Value) -> Result<Schema, SchemaError> {
        Schema::compile(super::shorthand::expand(short)?)
    }

    pub fn json(&self) -> &Value {
        &self.inner.json
    }

    /// The same, for requests that carry it: a schema may be larger than the task.
    pub fn shared(&self) -> Arc<Value> {
        self.inner.json.clone()
    }

    /// What is wrong with the value; nothing: it satisfies the schema. At most 50 findings.
    pub fn check(&self, value: &Value) -> Vec<Finding> {
        if self.inner.validator.is_valid(value) {
            return Vec::new();
        }
        let errors = self.inner.validator.iter_errors(value);
        let mut findings: Vec<Finding> = Vec::new();
        for finding in errors.take(FINDINGS_MAX).flat_map(|e| advice::of(&e, value)) {
            if findings.len() < FINDINGS_MAX && !findings.contains(&finding) {
                findings.push(finding);
            }
        }
        findings
    }

    pub fn is_valid(&self, value: &Value) -> bool {
        self.inner.validator.is_valid(value)
    }

    /// Patterns of the leaf fields, in the schema's order: `category`, `medication[].dose`. Without
    /// the field of the self-report, if there is one. At most 500.
    pub fn fields(&self) -> &[String] {
        &self.inner.fields
    }

    /// What the model says of its own certainty, by field; the empty field is the answer as a whole.
    ///
    /// A model is asked by a top-level property `confidence` of the schema: a number from 0 to 1
    /// (a whole number: per cent) for the whole answer, or an object from field to number. What is no
    /// such number, null or not there is given as NaN: it was asked for and not said, which `weigh`
    /// counts as doubt.
    pub fn self_reported(&self, answer: &Value) -> BTreeMap<String, f64> {
        let Some(asked) = &self.inner.report else { return BTreeMap::new() };
        let probability = |v: &Value| {
            let said = v.as_f64().map(|p| if asked.percent { p / 100.0 } else { p });
            said.filter(|p| (0.0..=1.0).contains(p)).unwrap_or(f64::NAN)
        };
        match answer.get(SELF_REPORT) {
            Some(Value::Object(said)) => {
                let asked_for = asked.fields.iter().map(|f| (f.clone(), f64::NAN));
                let said = said.iter().filter(|(field, _)| !asked.others.contains(field));
                asked_for.chain(said.map(|(field, v)| (field.clone(), probability(v)))).collect()
            }
            whole => BTreeMap::from([(String::new(), whole.map_or(f64::NAN, probability))]),
        }
    }

    /// What a value at the schema's top may be, as far as its `type` says; `None`: anything.
    pub(super) fn root_is(&self, kind: &str) -> bool {
        match self.inner.json.get("type") {
            Some(Value::String(t)) => t == kind,
            Some(Value::Array(ts)) => ts.iter().any(|t| t == kind),
            _ => true,
        }
    }
}

impl std::fmt::Debug for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Schema").field(&self.inner.json).finish()
    }
}

impl PartialEq for Schema {
    fn eq(&self, other: &Self) -> bool {
        self.inner.json == other.inner.json
    }
}

/// Does the schema ask for a self-report: a top-level `confidence` that is a number, or an object with numbers in
/// it or of any fields at all? To overlook one is to overlook every doubt the model has, so references are followed.
fn report(json: &Value) -> Option<Report> {
    let asked = forms(json, json).into_iter().filter_map(|form| form.get("properties")?.get(SELF_REPORT));
    let asked: Vec<&Value> = asked.flat_map(|report| forms(json, report)).collect();
    let is = |schema: &Value, kind: &str| forms(json, schema).iter().any(|form| types(form).contains(&kind));
    let a_number = |schema: &Value| is(schema, "number") || is(schema, "integer");
    let mut report = Report::default();
    let (mut numbers, mut open) = (Vec::new(), false);
    for form in asked {
        let kinds = types(form);
        if kinds.iter().any(|kind| ["number", "integer"].contains(kind)) {
            numbers.push(form);
        }
        let properties = form.get("properties").and_then(Value::as_object);
        for (field, schema) in properties.into_iter().flatten() {
            let (found, list) =
                if a_number(schema) { (true, &mut report.fields) } else { (false, &mut report.others) };
            list.push(field.clone());
            numbers.extend(found.then_some(schema));
        }
        open |= kinds.contains(&"object") && properties.is_none_or(Map::is_empty);
        if let Some(more) = form.get("additionalProperties").filter(|more| a_number(more)) {
            numbers.push(more);
        }
    }
    report.percent = !numbers.is_empty() && !numbers.iter().any(|schema| is(schema, "number"));
    (open || !numbers.is_empty()).then_some(report)
}

/// The schema, what it refers to, and its alternatives.
fn forms<'s>(root: &'s Value, schema: &'s Value) -> Vec<&'s Value> {
    let mut found = vec![schema];
    // Each is looked into once; a schema that contains itself would never end.
    for at in 0..FORMS_MAX {
        let Some(form) = found.get(at) else { break };
        let more = form.as_object().map(|form| alternatives(root, form)).unwrap_or_default();
        found.extend(more);
    }
    found
}

fn types(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(t)) => vec![t],
        Some(Value::Array(ts)) => ts.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn refused(error: &jsonschema::ValidationError<'_>) -> SchemaError {
    use jsonschema::error::ValidationErrorKind as K;
    let text = error.to_string();
    let what = match error.kind() {
        K::Referencing(_) => format!("{text}; references must stay inside the schema (`#/…`)"),
        K::Format { .. } if text.to_lowercase().contains("unknown format") => {
            format!("{text}; leave it out, or use a `pattern`")
        }
        _ => text,
    };
    let path = advice::path_of(error.instance_path().as_str(), &Value::Null);
    SchemaError { path, what: super::advice::shorten(&what, 300) }
}

/// Walks a schema for the leaf fields of its values.
struct Fields<'s> {
    root: &'s Value,
    found: Vec<String>,
    steps: usize,
}

impl<'s> Fields<'s> {
    fn walk(&mut self, schema: &'s Value, path: &str, depth: usize) {
        self.steps += 1;
        if depth > FIELD_DEPTH_MAX || self.steps > FIELD_STEPS_MAX || self.found.len() >= FIELDS_MAX {
            return;
        }
        let before = self.found.len();
        let Some(schema) = schema.as_object() else { return self.leaf(path) };
        for next in alternatives(self.root, schema) {
            self.walk(next, path, depth + 1);
        }
        for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            self.walk(property, &below(path, name), depth + 1);
        }
        let items = ["prefixItems", "items"].iter().filter_map(|k| schema.get(*k)).next_back();
        match items {
            Some(Value::Array(tuple)) => {
                tuple.iter().for_each(|item| self.walk(item, &format!("{path}[]"), depth + 1));
            }
            Some(item @ Value::Object(_)) => self.walk(item, &format!("{path}[]"), depth + 1),
            _ => {}
        }
        // Only a null beside an object, or nothing known below: the field itself.
        let nothing = types_are_null(schema);
        if self.found.len() == before && !nothing {
            self.leaf(path);
        }
    }

    fn leaf(&mut self, path: &str) {
        if !path.is_empty() && !self.found.iter().any(|f| f == path) {
            self.found.push(path.to_owned());
        }
    }
}

/// What a value may satisfy instead, or must satisfy besides.
fn alternatives<'s>(root: &'s Value, schema: &'s Map<String, Value>) -> Vec<&'s Value> {
    let lists = ["allOf", "anyOf", "oneOf"].iter().filter_map(|k| schema.get(*k)?.as_array());
    let target = schema
        .get("$ref")
        .and_then(Value::as_str)
        .and_then(|r| r.strip_prefix('#'))
        .and_then(|pointer| root.pointer(pointer));
    lists.flatten().chain(target).collect()
}

fn types_are_null(schema: &Map<String, Value>) -> bool {
    schema.get("type").is_some_and(|t| t == "null")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema(json: Value) -> Schema {
        Schema::compile(json).unwrap()
    }

    fn messages(schema: &Schema, value: Value) -> Vec<(String, String, String)> {
        schema.check(&value).into_iter().map(|f| (f.path, f.keyword, f.message)).collect()
    }

    fn found(path: &str, keyword: &str, message: &str) -> (String, String, String) {
        (path.into(), keyword.into(), message.into())
    }

    #[test]
    fn findings_say_where_and_what_to_do() {
        let s = Schema::from_shorthand(&json!({
            "category": ["billing", "bug"], "urgency": ["low", "high"], "order_id": "string?",
            "medication": [{"name": "string", "dose": "number"}], "when": "date"
        }))
        .unwrap();
        let fine = json!({"category": "bug", "urgency": "low", "order_id": null, "medication": [], "when": "2026-11-24"});
        assert_eq!(messages(&s, fine), []);
        let bad = json!({"category": "bug", "urgency": "urgent", "order_id": 7, "sure": true, "when": "tomorrow",
            "medication": [{"name": "a", "dose": 1}, {"name": "b", "dose": "50mg"}, {"name": "c"}]});
        let mut got = messages(&s, bad);
        got.sort();
        assert_eq!(
            got,
            [
                found(
                    "medication[1].dose",
                    "type",
                    r#"`medication[1].dose` is "50mg", a string; it must be a number"#
                ),
                found("medication[2].dose", "required", "`medication[2].dose` is missing"),
                found("order_id", "type", "`order_id` is 7, an integer; it must be a string or null"),
                found("sure", "additionalProperties", "`sure` is not asked for; leave it out"),
                found("urgency", "enum", r#"`urgency` is "urgent"; allowed: "low", "high""#),
                found("when", "format", r#"`when` is "tomorrow"; it must be a date, written 2026-11-24"#),
            ]
        );
    }

    #[test]
    fn p5_a_self_report_is_found_behind_references_and_alternatives() {
        let share = json!({ "type": "number", "minimum": 0, "maximum": 1 });
        let by_field = json!({ "type": "object", "properties": { "dose": { "$ref": "#/$defs/share" } } });
        let or_null = json!({ "anyOf": [{ "$ref": "#/$defs/share" }, { "type": "null" }] });
        let asks = [
            json!({ "$ref": "#/$defs/share" }),
            json!({ "$ref": "#/$defs/by_field" }),
            by_field.clone(),
            or_null,
        ];
        for confidence in asks {
            let s = schema(json!({
                "type": "object", "properties": { "dose": { "type": "string" }, "confidence": confidence },
                "$defs": { "share": share, "by_field": by_field },
            }));
            assert_eq!(s.fields(), ["dose"], "{confidence}: of the report itself nobody is sure or unsure");
            let said = s.self_reported(&json!({ "dose": "5", "confidence": 0.3 }));
            assert_eq!(said, BTreeMap::from([(String::new(), 0.3)]), "{confidence}");
            let said = s.self_reported(&json!({ "dose": "5", "confidence": { "dose": 0.3 } }));
            assert_eq!(said, BTreeMap::from([("dose".to_owned(), 0.3)]), "{confidence}");
        }
        let whole = schema(
            json!({ "$ref": "#/$defs/answer", "$defs": { "answer": { "properties": { "confidence": share } } } }),
        );
        assert_eq!(whole.self_reported(&json!({ "confidence": 0.3 })).len(), 1);
        let loops = json!({ "properties": { "confidence": { "$ref": "#/$defs/a" } }, "$defs": { "a": { "anyOf": [{ "$ref": "#/$defs/a" }, { "$ref": "#/$defs/a" }] } } });
        assert!(schema(loops).self_reported(&json!({ "confidence": 0.3 })).is_empty());
        let words = schema(json!({ "properties": { "confidence": { "type": "string" } } }));
        assert!(words.self_reported(&json!({ "confidence": "high" })).is_empty(), "a field like any other");
    }

    #[test]
    fn references_out_of_the_schema_are_refused() {
        for reference in ["https://example.com/s.json", "file:///etc/passwd", "other.json"] {
            let e = Schema::compile(json!({"properties": {"a": {"$ref": reference}}})).unwrap_err();
            assert!(e.what.contains("references must stay inside"), "{reference}: {e}");
        }
    }

    #[test]
    fn patterns_that_could_take_for_ever_are_refused_and_the_others_are_linear() {
        let e = Schema::compile(json!({"properties": {"a": {"pattern": "(?=x)y"}}})).unwrap_err();
        assert_eq!(e.path, "properties.a.pattern", "{e}");
        let s = schema(json!({"properties": {"a": {"pattern": "^(a+)+$"}}}));
        let started = std::time::Instant::now();
        assert_eq!(s.check(&json!({"a": "a".repeat(100_000) + "!"})).len(), 1);
        assert!(started.elapsed() < std::time::Duration::from_secs(2));
    }

    #[test]
    fn every_draft_asserts_its_formats_and_unknown_ones_are_refused() {
        for draft in [
            "http://json-schema.org/draft-04/schema#",
            "http://json-schema.org/draft-07/schema#",
            "https://json-schema.org/draft/2019-09/schema",
            "https://json-schema.org/draft/2020-12/schema",
        ] {
            let s = schema(json!({"$schema": draft, "properties": {"m": {"format": "email"}}}));
            assert_eq!(s.check(&json!({"m": "nobody"})).len(), 1, "{draft}");
            assert_eq!(s.check(&json!({"m": "a@example.com"})).len(), 0, "{draft}");
        }
        assert!(Schema::compile(json!({"properties": {"m": {"format": "colour"}}})).is_err());
        assert!(Schema::compile(json!({"$schema": "https://example.com/own"})).is_err());
    }

    #[test]
    fn a_wrong_schema_is_refused_with_its_place() {
        let e = Schema::compile(json!({"properties": {"a": {"type": "strng"}}})).unwrap_err();
        assert_eq!(e.path, "properties.a.type", "{e}");
        assert!(Schema::compile(json!("string")).is_err());
    }

    #[test]
    fn fields_are_the_leaves_through_lists_references_and_alternatives() {
        let s = schema(json!({
            "type": "object",
            "$defs": {"drug": {"type": "object", "properties": {"name": {"type": "string"}, "dose": {"type": "number"}}}},
            "properties": {
                "complaint": {"type": "string"},
                "medication": {"type": "array", "items": {"$ref": "#/$defs/drug"}},
                "plan": {"anyOf": [{"type": "null"}, {"type": "object", "properties": {"steps": {"type": "array", "items": {"type": "string"}}}}]},
                "free": {"type": "object"},
                "confidence": {"type": "number"}
            }
        }));
        assert_eq!(
            s.fields(),
            ["complaint", "medication[].name", "medication[].dose", "plan.steps[]", "free"]
        );
        let tree = schema(json!({"properties": {"a": {"$ref": "#"}, "b": {"type": "string"}}}));
        assert!(tree.fields().contains(&"a.a.b".to_owned()) && tree.fields().len() <= FIELDS_MAX);
    }

    #[test]
    fn schemas_that_contain_themselves_end() {
        let started = std::time::Instant::now();
        let many = |key: &str| json!({ key: vec![json!({"$ref": "#"}); 20], "type": "object" });
        for json in [json!({"$ref": "#"}), many("allOf"), many("anyOf"), json!({"not": {"$ref": "#"}})] {
            let _ = schema(json).check(&json!({"a": {"b": 1}}));
        }
        assert!(started.elapsed() < std::time::Duration::from_secs(2), "{:?}", started.elapsed());
    }

    #[test]
    fn a_self_report_counts_only_where_the_schema_asks_for_it() {
        let asks = schema(json!({"properties": {"a": {}, "confidence": {"type": "number"}}}));
        assert_eq!(asks.self_reported(&json!({"confidence": 0.81})), BTreeMap::from([("".into(), 0.81)]));
        assert!(asks.self_reported(&json!({"confidence": 81}))[""].is_nan());
        let by_field = schema(
            json!({"properties": {"confidence": {"type": "object", "additionalProperties": {"type": "number"}}}}),
        );
        let said = by_field.self_reported(&json!({"confidence": {"dose": 0.5}}));
        assert_eq!(said, BTreeMap::from([("dose".into(), 0.5)]));
        let shared = schema(json!({
            "properties": {"confidence": {"type": "object", "properties": {"dose": {"$ref": "#/$defs/share"}}}},
            "$defs": {"share": {"type": "number"}}
        }));
        let said = shared.self_reported(&json!({"confidence": {"dose": 0.5}}));
        assert_eq!(said, BTreeMap::from([("dose".into(), 0.5)]));
        let other = schema(json!({"properties": {"confidence": {"type": "string"}}}));
        assert!(other.self_reported(&json!({"confidence": "high"})).is_empty());
        assert_eq!(other.fields(), ["confidence"]);
    }

    #[test]
    fn p5_a_self_report_that_is_asked_for_and_not_given_is_a_doubt() {
        let whole = Schema::from_shorthand(&json!({ "a": "string", "confidence": "number?" })).unwrap();
        for answer in
            [json!({"a": "", "confidence": null}), json!({"a": ""}), json!({"a": "", "confidence": "sure"})]
        {
            let said = whole.self_reported(&answer);
            assert!(said.len() == 1 && said[""].is_nan(), "{answer}: {said:?}");
        }
        let by_field = schema(json!({"properties": {"confidence": {"type": "object",
            "properties": {"dose": {"type": "number"}, "plan": {"type": "number"}, "remark": {"type": "string"}}}}}));
        let said =
            by_field.self_reported(&json!({"confidence": {"dose": 0.5, "plan": null, "remark": "ok"}}));
        assert_eq!((said.len(), said["dose"], said["plan"].is_nan()), (2, 0.5, true), "{said:?}");
        let said = by_field.self_reported(&json!({"confidence": {"dose": 0.5}}));
        assert!(said["plan"].is_nan(), "not named at all: {said:?}");
        assert!(by_field.self_reported(&json!({}))[""].is_nan());
    }

    #[test]
    fn a_whole_number_that_is_asked_for_is_per_cent() {
        let percent = Schema::from_shorthand(&json!({ "a": "string", "confidence": "integer" })).unwrap();
        assert_eq!(percent.fields(), ["a"]);
        assert_eq!(
            percent.self_reported(&json!({"a": "", "confidence": 81})),
            BTreeMap::from([("".into(), 0.81)])
        );
        assert!(percent.self_reported(&json!({"a": "", "confidence": 101}))[""].is_nan());
        let mixed = schema(json!({"properties": {"confidence": {"type": ["integer", "number"]}}}));
        assert_eq!(mixed.self_reported(&json!({"confidence": 1}))[""], 1.0);
    }
}

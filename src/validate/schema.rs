//! A JSON Schema, compiled: what an answer, or a task, must look like.
//!
//! The draft is the one the schema declares, else 2020-12. References stay inside the schema:
//! nothing is fetched from the network or the disk. Patterns match in linear time, so look-around
//! and back-references are refused at load; formats are checked, and unknown ones refused.

use super::advice;
use crate::finding::{Finding, below, covers, pattern_of};
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
/// Reports that parts of one answer make of themselves. A person looks at no more; the least sure are kept.
const PARTS_MAX: usize = 250;
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
    parts: Vec<Part>,
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

/// A part of an answer that is to report on itself.
struct Part {
    /// `medication[]`
    pattern: String,
    percent: bool,
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
        let mut walked = Fields { root: &json, found: Vec::new(), parts: Vec::new(), steps: 0 };
        walked.walk(&json, "", 0);
        let Fields { found: mut fields, mut parts, .. } = walked;
        fields.retain(|f| report.is_none() || !covers(SELF_REPORT, f));
        parts.retain(|p| report.is_none() || !covers(SELF_REPORT, &p.pattern));
        Ok(Schema { inner: Arc::new(Inner { fields, report, parts, json: Arc::new(json), validator }) })
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
    /// those of self-reports. At most 500.
    pub fn fields(&self) -> &[String] {
        &self.inner.fields
    }

    /// What the model says of its own certainty, by field; the empty field is the answer as a whole.
    ///
    /// A model is asked by a top-level property `confidence` of the schema: a number from 0 to 1
    /// (a whole number: per cent) for the whole answer, or an object from field to number. An item of a
    /// list, or any other object within, may have a number `confidence` of its own, which goes for that
    /// item: `medication[1]`. What is no such number, null or not there is given as NaN: it was asked for
    /// and not said, which `weigh` counts as doubt. Where item and top speak of the same field, the less
    /// sure of the two is what was said.
    pub fn self_reported(&self, answer: &Value) -> BTreeMap<String, f64> {
        let mut said =
            self.inner.report.as_ref().map(|asked| whole_reported(asked, answer)).unwrap_or_default();
        for (part, sure) in self.parts_reported(answer) {
            said.entry(part).and_modify(|other| *other = less_sure(*other, sure)).or_insert(sure);
        }
        said
    }

    /// What parts of the answer say of themselves, the least sure first.
    fn parts_reported(&self, answer: &Value) -> Vec<(String, f64)> {
        let mut found = Vec::new();
        if !self.inner.parts.is_empty() {
            self.look_for_parts(answer, "", 0, &mut found);
        }
        found.sort_by(|(_, a), (_, b)| sureness(*a).total_cmp(&sureness(*b)));
        found.truncate(PARTS_MAX);
        found
    }

    fn look_for_parts(&self, value: &Value, path: &str, depth: usize, found: &mut Vec<(String, f64)>) {
        if depth > FIELD_DEPTH_MAX {
            return;
        }
        if let Value::Array(items) = value {
            for (i, item) in items.iter().enumerate() {
                self.look_for_parts(item, &format!("{path}[{i}]"), depth + 1, found);
            }
        }
        let Value::Object(fields) = value else { return };
        let pattern = pattern_of(path);
        if let Some(part) = self.inner.parts.iter().find(|part| part.pattern == pattern) {
            let sure = fields.get(SELF_REPORT).map_or(f64::NAN, |said| probability(said, part.percent));
            found.push((path.to_owned(), sure));
        }
        for (name, field) in fields {
            self.look_for_parts(field, &below(path, name), depth + 1, found);
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

fn whole_reported(asked: &Report, answer: &Value) -> BTreeMap<String, f64> {
    let probability = |said: &Value| probability(said, asked.percent);
    match answer.get(SELF_REPORT) {
        Some(Value::Object(said)) => {
            let asked_for = asked.fields.iter().map(|f| (f.clone(), f64::NAN));
            let said = said.iter().filter(|(field, _)| !asked.others.contains(field));
            asked_for.chain(said.map(|(field, v)| (field.clone(), probability(v)))).collect()
        }
        whole => BTreeMap::from([(String::new(), whole.map_or(f64::NAN, probability))]),
    }
}

/// A number from 0 to 1, or NaN.
fn probability(said: &Value, percent: bool) -> f64 {
    let said = said.as_f64().map(|p| if percent { p / 100.0 } else { p });
    said.filter(|p| (0.0..=1.0).contains(p)).unwrap_or(f64::NAN)
}

/// NaN is less sure than anything.
fn sureness(said: f64) -> f64 {
    if said.is_nan() { -1.0 } else { said }
}

fn less_sure(a: f64, b: f64) -> f64 {
    if sureness(a) < sureness(b) { a } else { b }
}

/// Does the schema ask for a self-report: a top-level `confidence` that is a number, or an object with numbers in
/// it or of any fields at all? To overlook one is to overlook every doubt the model has, so references are followed.
fn report(json: &Value) -> Option<Report> {
    let asked = forms(json, json).into_iter().filter_map(|form| form.get("properties")?.get(SELF_REPORT));
    let asked: Vec<&Value> = asked.flat_map(|report| forms(json, report)).collect();
    let mut report = Report::default();
    let (mut numbers, mut open) = (Vec::new(), false);
    for form in asked {
        let kinds = types(form);
        if kinds.iter().any(|kind| ["number", "integer"].contains(kind)) {
            numbers.push(form);
        }
        let properties = form.get("properties").and_then(Value::as_object);
        for (field, schema) in properties.into_iter().flatten() {
            let found = is_number(json, schema);
            let list = if found { &mut report.fields } else { &mut report.others };
            list.push(field.clone());
            numbers.extend(found.then_some(schema));
        }
        open |= kinds.contains(&"object") && properties.is_none_or(Map::is_empty);
        if let Some(more) = form.get("additionalProperties").filter(|more| is_number(json, more)) {
            numbers.push(more);
        }
    }
    report.percent = !numbers.is_empty() && !numbers.iter().any(|schema| is(json, schema, "number"));
    (open || !numbers.is_empty()).then_some(report)
}

fn is_number(root: &Value, schema: &Value) -> bool {
    is(root, schema, "number") || is(root, schema, "integer")
}

fn is(root: &Value, schema: &Value, kind: &str) -> bool {
    forms(root, schema).into_iter().any(|form| types(form).contains(&kind))
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
    parts: Vec<Part>,
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
            if name == SELF_REPORT && !path.is_empty() && is_number(self.root, property) {
                let percent = !is(self.root, property, "number");
                match self.parts.iter_mut().find(|part| part.pattern == path) {
                    Some(part) => part.percent &= percent,
                    None => self.parts.push(Part { pattern: path.to_owned(), percent }),
                }
                continue;
            }
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
    fn an_item_reports_on_itself_where_the_schema_asks_it_to() {
        let s = schema(json!({
            "type": "object",
            "properties": {
                "medication": {"type": "array", "items": {"$ref": "#/$defs/medicine"}},
                "impression": {"anyOf": [{"$ref": "#/$defs/medicine"}, {"type": "null"}]},
                "rows": {"type": "array", "items": {"type": "array", "items": {"$ref": "#/$defs/medicine"}}},
                "survey": {"type": "object", "properties": {"confidence": {"type": "string"}}},
                "confidence": {"type": "object", "properties": {"medication": {"type": "number"}}}
            },
            "$defs": {"medicine": {"properties": {"name": {}, "confidence": {"type": ["number", "null"]}}}}
        }));
        let fields = ["medication[].name", "impression.name", "rows[][].name", "survey.confidence"];
        assert_eq!(s.fields(), fields, "of a report itself nobody is sure or unsure");
        let said = s.self_reported(&json!({
            "medication": [{"name": "a", "confidence": 0.97}, {"name": "b", "confidence": 0.4}, {"confidence": null}, {}],
            "impression": {"name": "flu", "confidence": 7},
            "rows": [[], [{"confidence": 0.5}]],
            "survey": {"confidence": "high"},
            "confidence": {"medication": 0.9, "medication[0]": 0.3, "medication[1]": 0.8}
        }));
        let expected = [
            ("impression", f64::NAN),
            ("medication", 0.9),
            ("medication[0]", 0.3),
            ("medication[1]", 0.4),
            ("medication[2]", f64::NAN),
            ("medication[3]", f64::NAN),
            ("rows[1][0]", 0.5),
        ];
        assert_eq!(format!("{said:?}"), format!("{:?}", BTreeMap::from(expected)));
    }

    #[test]
    fn an_item_that_is_asked_for_a_whole_number_reports_in_per_cent() {
        let item = json!({"properties": {"name": {}, "confidence": {"type": ["integer", "null"]}}});
        let s = schema(json!({"properties": {"list": {"type": "array", "items": item}}}));
        let said = s.self_reported(
            &json!({"list": [{"name": "a", "confidence": 81}, {"name": "b", "confidence": 101}]}),
        );
        assert_eq!((s.fields(), said["list[0]"]), (&["list[].name".to_owned()][..], 0.81));
        assert!(said["list[1]"].is_nan());
    }

    #[test]
    fn of_too_many_items_the_least_sure_are_heard() {
        let item = json!({"type": "object", "properties": {"name": {}, "confidence": {"type": "number"}}});
        let s = schema(json!({"properties": {"list": {"type": "array", "items": item}}}));
        let items: Vec<_> = (0..2_000).map(|i| json!({"confidence": 1.0 - f64::from(i) / 2_000.0})).collect();
        let said = s.self_reported(&json!({ "list": items }));
        assert_eq!(said.len(), PARTS_MAX);
        assert!(said.contains_key("list[1999]") && said.values().all(|sure| *sure <= 0.125), "{said:?}");
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

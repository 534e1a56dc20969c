//! The answer: what the rules give, the rest made up validly from the schema. Pure.

use super::conversation::Asked;
use super::draw::Draws;
use super::extract::{Extract, RawExtract};
use super::written::Pattern;
use super::{generate, path};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What a model says of itself when nothing is wrong, and under the fault `low-confidence`.
pub(super) const SURE: f64 = 0.95;
pub(super) const UNSURE: f64 = 0.81;
/// The field in which a model may say how sure it is.
const SELF_REPORT: &str = "confidence";

/// How one field of the answer is found.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "RawRule")]
pub(super) enum Rule {
    Value(Value),
    /// A payload field as it is.
    Copy(String),
    /// The first pattern that is found in the payload field decides.
    Choose {
        from: String,
        choices: Vec<Choice>,
        otherwise: Option<Value>,
    },
    /// What the pattern's group `value` captures, or its first group, or all of it.
    Capture {
        from: String,
        pattern: Pattern,
        otherwise: Value,
    },
    OneOf(Vec<Value>),
    Each(Box<Extract>),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Choice {
    #[serde(rename = "match")]
    pattern: Pattern,
    value: Value,
}

/// A rule as written: exactly one of `value`, `copy`, `choose`, `capture`, `one_of` and `each`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    value: Option<Value>,
    copy: Option<String>,
    /// Absent: the whole payload as JSON.
    #[serde(default)]
    from: Option<String>,
    choose: Option<Vec<Choice>>,
    capture: Option<Pattern>,
    otherwise: Option<Value>,
    one_of: Option<Vec<Value>>,
    each: Option<String>,
    text: Option<String>,
    #[serde(rename = "where")]
    only: Option<BTreeMap<String, Value>>,
    #[serde(rename = "match")]
    pattern: Option<Pattern>,
    unless: Option<Pattern>,
    max: Option<usize>,
    item: Option<Value>,
    first: Option<bool>,
    every: Option<bool>,
    distinct: Option<String>,
    prefer: Option<String>,
    fallback: Option<Value>,
    confidence: Option<BTreeMap<String, f64>>,
}

impl TryFrom<RawRule> for Rule {
    type Error = String;

    fn try_from(raw: RawRule) -> Result<Rule, String> {
        let kinds = [
            raw.value.is_some(),
            raw.copy.is_some(),
            raw.choose.is_some(),
            raw.capture.is_some(),
            raw.one_of.is_some(),
            raw.each.is_some(),
        ];
        if kinds.into_iter().filter(|there| *there).count() != 1 {
            return Err("an answer rule has exactly one of `value`, `copy`, `choose`, `capture`, `one_of`, \
                        `each`; a field inside another one is written [answer.\"outer.inner\"]"
                .to_owned());
        }
        let list_only = raw.text.is_some()
            || raw.only.is_some()
            || raw.pattern.is_some()
            || raw.unless.is_some()
            || raw.max.is_some()
            || raw.item.is_some()
            || raw.first.is_some()
            || raw.every.is_some()
            || raw.distinct.is_some()
            || raw.prefer.is_some()
            || raw.fallback.is_some()
            || raw.confidence.is_some();
        if raw.each.is_none() && list_only {
            return Err("`text`, `where`, `match`, `unless`, `max`, `item`, `first`, `every`, `distinct`, \
                        `prefer`, `fallback` and `confidence` go with `each`"
                .to_owned());
        }
        let from = raw.from.unwrap_or_default();
        if let Some(each) = raw.each {
            let raw = RawExtract {
                each,
                text: raw.text.unwrap_or_default(),
                only: raw.only.unwrap_or_default(),
                pattern: raw.pattern,
                unless: raw.unless,
                max: raw.max,
                item: raw.item,
                first: raw.first.unwrap_or(false),
                every: raw.every.unwrap_or(false),
                distinct: raw.distinct,
                prefer: raw.prefer,
                fallback: raw.fallback,
                confidence: raw.confidence.unwrap_or_default(),
            };
            return Extract::try_from(raw).map(|e| Rule::Each(Box::new(e)));
        }
        let rule = raw
            .value
            .map(Rule::Value)
            .or(raw.copy.map(Rule::Copy))
            .or(raw.one_of.filter(|all| !all.is_empty()).map(Rule::OneOf));
        let (otherwise, choose, capture) = (raw.otherwise, raw.choose, raw.capture);
        match (rule, choose, capture) {
            (Some(rule), _, _) => Ok(rule),
            (None, Some(choices), _) => Ok(Rule::Choose { from, choices, otherwise }),
            (None, None, Some(pattern)) => {
                Ok(Rule::Capture { from, pattern, otherwise: otherwise.unwrap_or(Value::Null) })
            }
            (None, None, None) => Err("`one_of` names at least one value".to_owned()),
        }
    }
}

impl Rule {
    /// `None`: the rule says nothing, the schema decides.
    fn value(&self, payload: &Value, draws: &Draws, field: &str) -> Option<Value> {
        let text = |from: &str| path::at(payload, from).map(path::text).unwrap_or_default();
        match self {
            Rule::Value(value) => Some(value.clone()),
            Rule::Copy(from) => Some(path::at(payload, from).cloned().unwrap_or(Value::Null)),
            Rule::Choose { from, choices, otherwise } => {
                let text = text(from);
                let chosen = choices.iter().find(|c| c.pattern.0.is_match(&text)).map(|c| c.value.clone());
                chosen.or_else(|| otherwise.clone())
            }
            Rule::Capture { from, pattern, otherwise } => {
                let text = text(from);
                let groups = pattern.0.captures(&text);
                let found =
                    groups.and_then(|g| g.name("value").or(g.get(1)).or(g.get(0)).map(|m| json!(m.as_str())));
                Some(found.unwrap_or_else(|| otherwise.clone()))
            }
            Rule::OneOf(all) => {
                let n = draws.number(&format!("one of {field}"));
                // `all` is never empty, and an index below its length fits.
                Some(all[(n % all.len() as u64) as usize].clone())
            }
            Rule::Each(extract) => Some(extract.value(payload)),
        }
    }
}

/// The answer to `asked`. `sure`: what the model says of itself.
pub(super) fn answer(rules: &BTreeMap<String, Rule>, asked: &Asked, draws: &Draws, sure: f64) -> Value {
    let schema = asked.schema.as_ref().unwrap_or(&Value::Null);
    let mut given = Value::Object(Map::new());
    let mut lowered: BTreeMap<&str, f64> = BTreeMap::new();
    let (about_itself, rest): (Vec<_>, Vec<_>) =
        rules.iter().partition(|(field, _)| field.split('.').next() == Some(SELF_REPORT));
    for (field, rule) in rest {
        if !generate::allows(schema, field) {
            continue;
        }
        let value = match rule {
            Rule::Each(extract) => Some(extract.found(&asked.payload).unwrap_or_else(|| {
                lowered.extend(extract.confidence.iter().map(|(k, v)| (k.as_str(), *v)));
                extract.stand_in()
            })),
            rule => rule.value(&asked.payload, draws, field),
        };
        if let Some(value) = value {
            path::put(&mut given, field, value);
        }
    }
    // A sanitizer copies what was right with the answer it mends.
    if let Some(Value::Object(kept)) = &asked.mend {
        for (name, value) in kept {
            path::put(&mut given, name, value.clone());
        }
    }
    if generate::field(schema, SELF_REPORT).is_some() {
        report(&mut given, schema, sure, &lowered);
        // The fault goes before the rule.
        for (field, rule) in about_itself.into_iter().filter(|_| sure >= SURE) {
            if let Some(value) = rule.value(&asked.payload, draws, field) {
                path::put(&mut given, field, value);
            }
        }
    }
    generate::complete(schema, given, draws)
}

/// Says how sure the model is: one number, or one for each field the schema names.
fn report(given: &mut Value, schema: &Value, sure: f64, lowered: &BTreeMap<&str, f64>) {
    let of = |field: &str| lowered.get(field).copied().unwrap_or(sure).min(sure);
    let said = match generate::field(schema, SELF_REPORT) {
        Some(form) if generate::is_object(form) => {
            let names = form["properties"].as_object();
            let mut all: Map<String, Value> =
                names.into_iter().flatten().map(|(name, _)| (name.clone(), json!(of(name)))).collect();
            if form["additionalProperties"] != json!(false) {
                all.extend(lowered.keys().map(|field| ((*field).to_owned(), json!(of(field)))));
            }
            Value::Object(all)
        }
        _ => json!(lowered.values().copied().fold(sure, f64::min)),
    };
    path::put(given, SELF_REPORT, said);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(rules: &str, payload: Value, schema: Value, sure: f64) -> Value {
        let rules: BTreeMap<String, Rule> = toml::from_str(rules).expect("well-formed");
        let asked = Asked { payload, schema: Some(schema), ..Asked::default() };
        answer(&rules, &asked, &Draws::new(1, "", "x", 0), sure)
    }

    fn form(fields: &[&str]) -> Value {
        let properties: Map<String, Value> =
            fields.iter().map(|f| ((*f).to_owned(), json!({ "type": ["string", "null"] }))).collect();
        json!({ "type": "object", "additionalProperties": false, "properties": properties })
    }

    #[test]
    fn each_kind_of_rule_gives_its_field() {
        let rules = "[a]\nvalue = 'x'\n[b]\ncopy = 'customer.name'\n\
                     [c]\nfrom = 'text'\nchoose = [{ match = 'red', value = 'R' }, { match = 'blue', value = 'B' }]\notherwise = '-'\n\
                     [d]\nfrom = 'text'\ncapture = '(?<value>\\d+) apples'\n[e]\none_of = ['p', 'q']\n[not-asked-for]\nvalue = 1";
        let payload = json!({ "text": "7 apples, blue and red", "customer": { "name": "Ada" } });
        let answer = said(rules, payload, form(&["a", "b", "c", "d", "e", "f"]), SURE);
        assert_eq!(answer["e"].as_str().map(str::len), Some(1));
        let rest = json!([answer["a"], answer["b"], answer["c"], answer["d"], answer["f"]]);
        assert_eq!(rest, json!(["x", "Ada", "R", "7", null]));
        assert_eq!(answer.as_object().map(Map::len), Some(6), "{answer}");
    }

    #[test]
    fn what_is_not_found_lowers_what_the_model_says_of_itself() {
        let rules = "[drugs]\neach = 'lines'\nmatch = 'mg'\nconfidence = { drugs = 0.5 }\n['confidence.a']\nvalue = 0.7";
        let mut schema = form(&["a", "drugs"]);
        schema["properties"]["confidence"] =
            json!({ "type": "object", "properties": { "a": {}, "drugs": {} } });
        let with = |line: &str, sure| {
            said(rules, json!({ "lines": [line] }), schema.clone(), sure)["confidence"].clone()
        };
        assert_eq!(with("5 mg", SURE), json!({ "a": 0.7, "drugs": 0.95 }));
        assert_eq!(with("none", SURE), json!({ "a": 0.7, "drugs": 0.5 }));
        assert_eq!(with("5 mg", UNSURE), json!({ "a": 0.81, "drugs": 0.81 }));
        schema["properties"]["confidence"] = json!({ "type": "number" });
        let rules = rules.split_once("['").expect("two rules").0;
        assert_eq!(said(rules, json!({}), schema, SURE)["confidence"], 0.5, "one number: the lowest");
    }
}

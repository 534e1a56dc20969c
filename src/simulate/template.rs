//! A value with places to fill in: `"$name"` becomes the value of that name, `"about ${name}"` a text
//! with it. `$text`, `$sentence`, `$index` and `$null` are there for every item; the others are the
//! named groups of the pattern. `$$` is a dollar sign.

use regex::{Captures, Regex};
use serde_json::{Value, json};
use std::sync::LazyLock;

/// Names that are no groups of the pattern.
const GIVEN: [&str; 4] = ["text", "sentence", "index", "null"];

/// What a template may name.
pub(super) struct Found<'a> {
    /// The whole text that was searched.
    pub(super) text: &'a str,
    /// The sentence in which the match lies.
    pub(super) sentence: &'a str,
    /// Where in the list the text stands, from 0.
    pub(super) index: usize,
    pub(super) groups: &'a Captures<'a>,
}

impl Found<'_> {
    fn value(&self, name: &str) -> Value {
        match name {
            "text" => json!(self.text),
            "sentence" => json!(self.sentence),
            "index" => json!(self.index),
            "null" => Value::Null,
            // A group that took no part in the match is null.
            group => self.groups.name(group).map_or(Value::Null, |m| json!(m.as_str())),
        }
    }
}

fn inside() -> &'static Regex {
    #[expect(clippy::unwrap_used, reason = "a constant pattern, used by the tests")]
    static INSIDE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\$\$|\$\{(\w+)\}").unwrap());
    &INSIDE
}

pub(super) fn fill(template: &Value, found: &Found<'_>) -> Value {
    match template {
        Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), fill(v, found))).collect(),
        Value::Array(list) => list.iter().map(|v| fill(v, found)).collect(),
        Value::String(text) => match whole(text) {
            Some(name) => found.value(name),
            None => json!(inside().replace_all(text, |c: &Captures<'_>| match c.get(1) {
                Some(name) => super::path::text(&found.value(name.as_str())),
                None => "$".to_owned(),
            })),
        },
        other => other.clone(),
    }
}

/// The name, where a text is nothing but one.
fn whole(text: &str) -> Option<&str> {
    let name = text.strip_prefix('$')?;
    let word = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    word.then_some(name)
}

/// The first name that is neither given nor a group of the pattern.
pub(super) fn unknown(template: &Value, pattern: Option<&Regex>) -> Option<String> {
    let known = |name: &str| {
        GIVEN.contains(&name)
            || pattern.is_some_and(|p| p.capture_names().flatten().any(|group| group == name))
    };
    match template {
        Value::Object(map) => map.values().find_map(|v| unknown(v, pattern)),
        Value::Array(list) => list.iter().find_map(|v| unknown(v, pattern)),
        Value::String(text) => match whole(text) {
            Some(name) => (!known(name)).then(|| name.to_owned()),
            None => inside()
                .captures_iter(text)
                .filter_map(|c| c.get(1))
                .map(|m| m.as_str())
                .find(|name| !known(name))
                .map(ToOwned::to_owned),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_types_alone_and_are_text_inside_text() {
        let pattern = Regex::new(r"(?<drug>\w+) (?<dose>\d+ ?mg)?").expect("well-formed");
        let text = "take aspirin daily";
        let groups = pattern.captures(&text[5..]).expect("matches");
        let found = Found { text, sentence: "s", index: 3, groups: &groups };
        let template = json!({ "drug": "$drug", "dose": "$dose", "source": "$index", "note": "on ${drug} ($$5)", "n": [1, "$null"] });
        let filled = fill(&template, &found);
        assert_eq!(
            filled,
            json!({ "drug": "aspirin", "dose": null, "source": 3, "note": "on aspirin ($5)", "n": [1, null] })
        );
        assert_eq!(unknown(&template, Some(&pattern)), None);
        assert_eq!(unknown(&json!(["$route"]), Some(&pattern)), Some("route".to_owned()));
    }
}

//! Finds items in a list of the payload: utterances, lines, messages. A rule of the answer.
//!
//! Each element that satisfies `where` is searched; what matches is made into an item by a template.

use super::path;
use super::template::{self, Found};
use super::written::Pattern;
use regex::{Captures, Regex};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Items of one answer where the rule names no other bound.
const ITEMS_MAX: usize = 100;
/// Elements that are searched; a longer list is searched up to here.
const ELEMENTS_MAX: usize = 10_000;

/// A rule as written.
pub(super) struct RawExtract {
    pub(super) each: String,
    pub(super) text: String,
    pub(super) only: BTreeMap<String, Value>,
    pub(super) pattern: Option<Pattern>,
    pub(super) unless: Option<Pattern>,
    pub(super) max: Option<usize>,
    pub(super) item: Option<Value>,
    pub(super) first: bool,
    pub(super) every: bool,
    pub(super) distinct: Option<String>,
    pub(super) prefer: Option<String>,
    pub(super) fallback: Option<Value>,
    pub(super) confidence: BTreeMap<String, f64>,
}

#[derive(Clone, Debug)]
pub(super) struct Extract {
    /// Path of the list in the payload.
    each: String,
    /// Path of the text in an element; empty: the element itself.
    text: String,
    /// Fields of an element and what they must be.
    only: BTreeMap<String, Value>,
    pattern: Regex,
    /// A sentence in which this is found gives no item.
    unless: Option<Regex>,
    max: usize,
    item: Value,
    /// The first item itself instead of a list.
    first: bool,
    /// Every match of a text is an item, not its first alone.
    every: bool,
    /// A field of the item, or the empty path: of equal ones only the first is kept.
    distinct: Option<String>,
    /// A field of the item: of equal ones the first that has it takes the place of one that has not.
    prefer: Option<String>,
    fallback: Option<Value>,
    /// What the model says of itself, by field, when nothing is found.
    pub(super) confidence: BTreeMap<String, f64>,
}

impl TryFrom<RawExtract> for Extract {
    type Error = String;

    fn try_from(raw: RawExtract) -> Result<Extract, String> {
        let pattern = raw.pattern.ok_or("`each` needs `match`, the pattern that is looked for")?.0;
        let item = raw.item.unwrap_or_else(|| json!("$text"));
        if let Some(name) = template::unknown(&item, Some(&pattern)) {
            return Err(format!(
                "`item` names `${name}`, which is neither $text, $sentence, $index or $null nor a named \
                 group of `match`; a group is written (?<{name}>…)"
            ));
        }
        if raw.prefer.is_some() && (raw.distinct.is_none() || raw.first) {
            return Err(
                "`prefer` chooses among equal items: it goes with `distinct`, without `first`".to_owned()
            );
        }
        if let Some((field, value)) = raw.confidence.iter().find(|(_, v)| !(0.0..=1.0).contains(*v)) {
            return Err(format!("`confidence.{field}` is {value}; it goes from 0.0 to 1.0"));
        }
        Ok(Extract {
            each: raw.each,
            text: raw.text,
            only: raw.only,
            pattern,
            unless: raw.unless.map(|p| p.0),
            max: raw.max.unwrap_or(ITEMS_MAX).min(ITEMS_MAX),
            item,
            first: raw.first,
            every: raw.every,
            distinct: raw.distinct,
            prefer: raw.prefer,
            fallback: raw.fallback,
            confidence: raw.confidence,
        })
    }
}

impl Extract {
    /// The list, or the first item, or what stands for nothing found.
    pub(super) fn value(&self, payload: &Value) -> Value {
        self.found(payload).unwrap_or_else(|| self.stand_in())
    }

    /// The list, or the first item; `None` where nothing is found.
    pub(super) fn found(&self, payload: &Value) -> Option<Value> {
        let mut items = self.items(payload);
        match (items.is_empty(), self.first) {
            (true, _) => None,
            (false, true) => Some(items.swap_remove(0)),
            (false, false) => Some(Value::Array(items)),
        }
    }

    pub(super) fn stand_in(&self) -> Value {
        self.fallback.clone().unwrap_or(if self.first { Value::Null } else { json!([]) })
    }

    fn items(&self, payload: &Value) -> Vec<Value> {
        let max = if self.first { 1 } else { self.max };
        let mut items = Vec::new();
        let elements = path::at(payload, &self.each).and_then(Value::as_array);
        for (index, element) in elements.into_iter().flatten().take(ELEMENTS_MAX).enumerate() {
            if !self.only.iter().all(|(field, value)| path::at(element, field) == Some(value)) {
                continue;
            }
            let text = path::at(element, &self.text).map(path::text).unwrap_or_default();
            let per_text = if self.every { usize::MAX } else { 1 };
            let matches =
                self.pattern.captures_iter(&text).filter_map(|g| self.sentence(&text, &g).map(|s| (s, g)));
            for (sentence, groups) in matches.take(per_text) {
                let found = Found { text: &text, sentence, index, groups: &groups };
                let item = template::fill(&self.item, &found);
                match self.equal(&item, &items) {
                    None => items.push(item),
                    Some(at) if self.fills(&item, &items[at]) => items[at] = item,
                    Some(_) => {}
                }
                if items.len() >= max {
                    return items;
                }
            }
        }
        items
    }

    /// The sentence of a match; `None` where `unless` is found in it.
    fn sentence<'t>(&self, text: &'t str, groups: &Captures<'_>) -> Option<&'t str> {
        let whole = groups.get(0)?;
        let sentence = sentence(text, whole.start(), whole.end());
        let excluded = self.unless.as_ref().is_some_and(|unless| unless.is_match(sentence));
        (!excluded).then_some(sentence)
    }

    /// Where an item stands that is equal to this one.
    fn equal(&self, item: &Value, before: &[Value]) -> Option<usize> {
        let field = self.distinct.as_ref()?;
        let of = |v: &Value| path::at(v, field).map(path::text).unwrap_or_default().to_lowercase();
        let this = of(item);
        before.iter().position(|other| of(other) == this)
    }

    /// Has it what the one before lacks?
    fn fills(&self, item: &Value, before: &Value) -> bool {
        let has = |v: &Value, field: &str| path::at(v, field).is_some_and(|there| !there.is_null());
        self.prefer.as_ref().is_some_and(|field| has(item, field) && !has(before, field))
    }
}

/// The sentence around a match: from behind the last end of a sentence before it to the next one.
fn sentence(text: &str, start: usize, end: usize) -> &str {
    let ends = |c: char| matches!(c, '.' | '!' | '?' | '\n');
    let from = text[..start].char_indices().rev().find(|(i, c)| {
        // A point between digits, as in `2.5 mg`, ends nothing.
        ends(*c) && text[i + c.len_utf8()..].starts_with(char::is_whitespace) || *c == '\n'
    });
    let from = from.map_or(0, |(i, c)| i + c.len_utf8());
    let to = text[end..].char_indices().find(|(i, c)| {
        let rest = &text[end + i + c.len_utf8()..];
        *c == '\n' || ends(*c) && (rest.is_empty() || rest.starts_with(char::is_whitespace))
    });
    let to = to.map_or(text.len(), |(i, c)| end + i + c.len_utf8());
    text[from..to].trim()
}

#[cfg(test)]
mod tests {
    use super::super::answer::Rule;
    use super::*;

    fn extract(text: &str) -> Extract {
        match toml::from_str::<Rule>(text).expect("well-formed") {
            Rule::Each(extract) => *extract,
            other => panic!("not a list rule: {other:?}"),
        }
    }

    fn talk() -> Value {
        json!({ "utterances": [
            { "speaker": "doctor", "text": "Any fever?" },
            { "speaker": "patient", "text": "No fever. But a cough, um, since Monday. And a cough syrup." },
            { "speaker": "patient", "text": "I take ibuprofen 2.5 mg daily. Ibuprofen helps!" },
            { "speaker": "patient", "text": "And paracetamol" },
        ] })
    }

    const HEAD: &str = "each = 'utterances'\ntext = 'text'\nwhere = { speaker = 'patient' }\n";

    #[test]
    fn items_quote_their_sentence_and_name_their_source() {
        let symptoms = extract(&format!(
            "{HEAD}match = '(?i)\\b(?<what>fever|cough)\\b'\nunless = '(?i)^no '\n\
             item = {{ what = '$what', quote = '$sentence', source = '$index', since = '$null', kind = 'symptom' }}"
        ));
        let expected = json!([{ "what": "cough", "quote": "But a cough, um, since Monday.", "source": 1, "since": null, "kind": "symptom" }]);
        assert_eq!(symptoms.value(&talk()), expected);
    }

    #[test]
    fn equal_items_are_kept_once_and_bounded() {
        let rule = "match = '(?i)(?<drug>ibuprofen|paracetamol)(?: (?<dose>[\\d.]+ mg))?'\nevery = true\n\
                    item = { drug = '$drug', dose = '$dose', quote = '$sentence' }\n";
        let drugs = extract(&format!("{HEAD}{rule}distinct = 'drug'"));
        let expected = json!([
            { "drug": "ibuprofen", "dose": "2.5 mg", "quote": "I take ibuprofen 2.5 mg daily." },
            { "drug": "paracetamol", "dose": null, "quote": "And paracetamol" },
        ]);
        assert_eq!(drugs.value(&talk()), expected);
        assert_eq!(extract(&format!("{HEAD}{rule}")).value(&talk()).as_array().map(Vec::len), Some(3));
        assert_eq!(extract(&format!("{HEAD}{rule}max = 2")).value(&talk()).as_array().map(Vec::len), Some(2));
        assert_eq!(extract(&format!("{HEAD}{rule}first = true")).value(&talk()), expected[0]);
    }

    #[test]
    fn of_equal_items_the_one_that_says_more_is_kept() {
        let rule = "match = '(?i)(?<drug>ibuprofen)(?<more> 2.5 mg| helps)?'\nevery = true\ndistinct = 'drug'\n\
                    item = { drug = '$drug', more = '$more', source = '$index' }\n";
        let talk = json!({ "utterances": ["Ibuprofen.", "ibuprofen 2.5 mg", "Ibuprofen helps"] });
        let found = |more: &str| extract(&format!("each = 'utterances'\n{rule}{more}")).value(&talk);
        assert_eq!(found(""), json!([{ "drug": "Ibuprofen", "more": null, "source": 0 }]));
        assert_eq!(
            found("prefer = 'more'"),
            json!([{ "drug": "ibuprofen", "more": " 2.5 mg", "source": 1 }])
        );
        let e = toml::from_str::<Rule>("each = 'a'\nmatch = 'x'\nprefer = 'y'").expect_err("among what");
        assert!(e.message().contains("`distinct`"), "{}", e.message());
    }

    #[test]
    fn what_is_not_found_has_a_stand_in() {
        let nothing = |more: &str| extract(&format!("{HEAD}match = 'surgery'\n{more}")).value(&talk());
        assert_eq!(nothing(""), json!([]));
        assert_eq!(nothing("first = true"), Value::Null);
        assert_eq!(nothing("fallback = 'not said'"), json!("not said"));
    }

    #[test]
    fn a_template_that_names_no_group_is_refused() {
        let e = toml::from_str::<Rule>("each = 'a'\nmatch = 'x'\nitem = '$dose'").expect_err("no such group");
        assert!(e.message().contains("`$dose`"), "{}", e.message());
    }
}

//! What a request asks: model, payload, schema, in either dialect. Reads liberally; answers nothing.
//!
//! The payload is what stands between Tidegate's marks: the first object or list, where a prompt has
//! several, else all of their texts. Without marks it is the largest JSON object that a user's turn
//! holds. A sanitizer's order shows an answer between `<name>` and `</name>`; it is mended as a
//! sanitizer would.

use serde_json::{Map, Value, json};

/// What stands before the schema in an instruction.
const SCHEMA_MARK: &str = "JSON Schema:\n";
/// What a sanitizer's order says of the answer it shows. Blocks alone mean nothing: prompts like them.
const MEND_MARK: &str = "an answer that another model gave";
/// Places at which marks are looked for in a text, or a JSON object where there are none.
const OPENINGS_MAX: usize = 1_000;

/// One request, read.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Asked {
    pub(super) model: String,
    pub(super) stream: bool,
    pub(super) usage_wanted: bool,
    /// Null where there is none.
    pub(super) payload: Value,
    /// As it stands in the conversation, to look for markers in.
    pub(super) payload_text: String,
    pub(super) schema: Option<Value>,
    /// The fields of an answer that is to be mended.
    pub(super) mend: Option<Value>,
    /// All text sent, bytes.
    pub(super) bytes: usize,
    /// More than one user turn: asked again.
    pub(super) turns: usize,
}

/// `None`: not a request of this API.
pub(super) fn read(body: &Value) -> Option<Asked> {
    let messages = body["messages"].as_array()?;
    let said = |role: &str| -> Vec<String> {
        messages.iter().filter(|m| m["role"] == role).map(|m| text_of(&m["content"])).collect()
    };
    let users = said("user");
    let system =
        [text_of(&body["system"]), said("system").join("\n"), said("developer").join("\n")].join("\n");
    let all = || users.iter().chain([&system]);
    let texts = [&system].into_iter().chain(&users);
    let told = || texts.filter_map(|text| text.split_once(SCHEMA_MARK)).find_map(|(_, rest)| object_at(rest));
    // Asked for JSON and not told which: any object will do.
    let any = || (body["response_format"]["type"] == "json_object").then(|| json!({ "type": "object" }));
    let schema = schema_asked_for(body).or_else(told).or_else(any);
    let mend = users.first().filter(|text| text.contains(MEND_MARK)).and_then(|text| mended(text));
    let marked: Vec<&str> = users.iter().flat_map(|text| marked(text)).collect();
    let payload_text = match (marked.is_empty(), &mend) {
        (false, _) => marked.join("\n"),
        (true, Some(_)) => String::new(),
        (true, None) => users.join("\n"),
    };
    let payload = match payload(&marked) {
        Some(value) => value,
        None if mend.is_some() => Value::Null,
        None => users
            .iter()
            .filter_map(|text| largest(text))
            .max_by_key(|(_, n)| *n)
            .map_or(Value::Null, |(v, _)| v),
    };
    Some(Asked {
        model: body["model"].as_str()?.to_owned(),
        stream: body["stream"] == true,
        usage_wanted: body["stream_options"]["include_usage"] == true,
        payload,
        payload_text,
        schema,
        mend,
        bytes: all().map(String::len).sum(),
        turns: users.len(),
    })
}

/// The schema where each dialect has a place for it; Anthropic's has moved once.
fn schema_asked_for(body: &Value) -> Option<Value> {
    let places = [
        &body["response_format"]["json_schema"]["schema"],
        &body["output_config"]["format"]["schema"],
        &body["output_format"]["schema"],
    ];
    places.into_iter().find(|schema| schema.is_object()).cloned()
}

/// A content is a text or a list of parts.
fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join("\n")
        }
        _ => String::new(),
    }
}

/// All that stands between `<<<data TAG` and `data TAG>>>`, on one line with them or on its own.
fn marked(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text;
    for _ in 0..OPENINGS_MAX {
        let Some((_, behind)) = rest.split_once("<<<data ") else { break };
        rest = behind;
        let Some(gap) = behind.find([' ', '\n']) else { continue };
        let (tag, behind) = behind.split_at(gap);
        let (gap, behind) = behind.split_at(1);
        let close = format!("{gap}data {tag}>>>");
        if let Some((data, after)) = behind.split_once(&close) {
            found.push(data);
            rest = after;
        }
    }
    found
}

/// The payload in marked pieces; `None` where there is none.
fn payload(marked: &[&str]) -> Option<Value> {
    let read = |text: &&str| serde_json::from_str::<Value>(text).ok();
    let whole = marked.iter().filter_map(read).find(|v| v.is_object() || v.is_array());
    match marked {
        [] => None,
        [one] => Some(whole.or_else(|| read(one)).unwrap_or_else(|| Value::from(*one))),
        many => Some(whole.unwrap_or_else(|| Value::from(many.join("\n")))),
    }
}

/// The object that a text begins with.
fn object_at(text: &str) -> Option<Value> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    values.next()?.ok().filter(Value::is_object)
}

/// The largest JSON object in a text, and its length.
fn largest(text: &str) -> Option<(Value, usize)> {
    let mut best: Option<(Value, usize)> = None;
    let mut from = 0;
    for _ in 0..OPENINGS_MAX {
        let Some(at) = text[from..].find('{') else { break };
        from += at;
        let mut values = serde_json::Deserializer::from_str(&text[from..]).into_iter::<Map<String, Value>>();
        match values.next() {
            Some(Ok(map)) => {
                let length = values.byte_offset().max(1);
                if best.as_ref().is_none_or(|(_, most)| length > *most) {
                    best = Some((Value::Object(map), length));
                }
                // What is inside an object is smaller than it.
                from += length;
            }
            _ => from += 1,
        }
    }
    best
}

/// The fields of an answer that stands, alone on its lines, between `<name>` and `</name>`.
fn mended(text: &str) -> Option<Value> {
    let block = text.match_indices("\n<").find_map(|(at, _)| {
        let (name, rest) = text[at + 2..].split_once(">\n")?;
        let simple = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_'));
        let end = rest.find(&format!("\n</{name}>"))?;
        simple.then(|| &rest[..end])
    })?;
    let whole = largest(block).map(|(value, _)| value);
    Some(whole.unwrap_or_else(|| Value::Object(fields_of_broken(block))))
}

/// What can be read of an object that is cut off: as many whole fields as there are.
fn fields_of_broken(text: &str) -> Map<String, Value> {
    let Some(start) = text.find('{') else { return Map::new() };
    let text = &text[start..];
    let ends =
        text.char_indices().rev().filter(|(_, c)| matches!(c, ',' | '}' | ']' | '"' | '0'..='9' | 'a'..='z'));
    for (at, c) in ends.take(OPENINGS_MAX) {
        let kept = if c == ',' { &text[..at] } else { &text[..at + c.len_utf8()] };
        if let Ok(map) = serde_json::from_str(&format!("{kept}}}")) {
            return map;
        }
    }
    Map::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(messages: Value) -> Asked {
        read(&json!({ "model": "m", "messages": messages })).expect("a request")
    }

    #[test]
    fn the_payload_is_found_behind_its_marks_in_the_first_turn_of_a_longer_talk() {
        let first = "Sort {this}.\n\n<<<data 0a1b\n{\n  \"text\": \"hello MARK\"\n}\ndata 0a1b>>>";
        let again =
            "Your answer could not be used: {\"a\": 1, \"b\": \"far longer than the payload itself is\"}";
        let asked = asked(json!([
            { "role": "user", "content": first },
            { "role": "assistant", "content": "nonsense" },
            { "role": "user", "content": [{ "type": "text", "text": again }] },
        ]));
        assert_eq!((asked.payload, asked.turns), (json!({ "text": "hello MARK" }), 2));
        assert!(asked.payload_text.contains("MARK") && !asked.payload_text.contains("Sort"));
    }

    #[test]
    fn texts_that_a_template_puts_in_are_found_behind_their_own_marks() {
        let of = |source: &str| {
            let task = json!({ "title": "Late", "text": "Where is it?\nMARK" });
            let prompt = crate::infer::Prompt::compile("ask", source).expect("well-formed");
            let said = prompt.render(&task).expect("renders");
            let asked = asked(json!([{ "role": "user", "content": said }]));
            (asked.payload, asked.payload_text)
        };
        let both = "Late\nWhere is it?\nMARK";
        assert_eq!(of("{{ task.title }}: {{ task.text }} Sort it."), (json!(both), both.to_owned()));
        assert_eq!(of("Sort {{ task.title }}.").0, json!("Late"));
        let whole = json!({ "title": "Late", "text": "Where is it?\nMARK" });
        assert_eq!(of("Sort {{ task.title }}: {{ task }}").0, whole);
        assert_eq!(of("Sort {{ task.title }}: {{ task | data }}").0, whole);
    }

    #[test]
    fn without_marks_the_largest_object_is_the_payload() {
        let asked = asked(
            json!([{ "role": "user", "content": "{x} is not one; {\"a\":1} {\"b\":{\"c\":[1,2]}} {" }]),
        );
        assert_eq!(asked.payload, json!({ "b": { "c": [1, 2] } }));
    }

    #[test]
    fn a_schema_is_found_wherever_a_dialect_puts_it() {
        let schema = json!({ "type": "object", "properties": {} });
        let format = json!({ "type": "json_schema", "schema": schema });
        let asked = |name: &str, value: Value| {
            let mut body = json!({ "model": "m", "messages": [] });
            body[name] = value;
            read(&body).expect("a request").schema
        };
        let openai = json!({ "type": "json_schema", "json_schema": { "name": "answer", "schema": schema } });
        assert_eq!(asked("response_format", openai), Some(schema.clone()));
        assert_eq!(asked("output_config", json!({ "format": format })), Some(schema.clone()));
        assert_eq!(asked("output_format", format), Some(schema.clone()));
        let told = format!("It must satisfy this JSON Schema:\n{schema}");
        assert_eq!(asked("system", json!(told)), Some(schema));
        assert_eq!(
            asked("response_format", json!({ "type": "json_object" })),
            Some(json!({ "type": "object" }))
        );
        assert_eq!(asked("stop", json!([])), None);
        assert_eq!(read(&json!({ "input": "x" })), None);
    }

    #[test]
    fn an_answer_to_mend_keeps_its_whole_fields() {
        let schema = crate::validate::Schema::compile(json!({ "type": "object" })).expect("a schema");
        let kept = |broken: &str| {
            let order = crate::validate::sanitizer_request(broken, &[], &schema);
            asked(json!([{ "role": "user", "content": order }])).mend
        };
        assert_eq!(kept("{\"a\":1,\"b\":\"x\",\"c\":"), Some(json!({ "a": 1, "b": "x" })));
        assert_eq!(kept("{\"a\":1,\"b\":\"x\","), Some(json!({ "a": 1, "b": "x" })));
        assert_eq!(kept("Here: {\"a\":{\"b\":2}} so"), Some(json!({ "a": { "b": 2 } })));
        assert_eq!(kept("no idea"), Some(json!({})));
        let prompt = "Sort this.\n<ticket>\n{\"text\": \"hello\"}\n</ticket>\n";
        let templated = asked(json!([{ "role": "user", "content": prompt }]));
        assert_eq!(
            (templated.mend, templated.payload),
            (None, json!({ "text": "hello" })),
            "a prompt of its own form"
        );
    }
}

//! The chat dialect that OpenAI and the servers compatible with it speak.

use super::attempt::Stream;
use super::failure::{Class, Failure};
use super::model::Model;
use super::prompt::{Request, Turn};
use super::sse::Event;
use serde_json::{Map, Value, json};

/// The path below the base URL.
pub(super) const PATH: &str = "chat/completions";

pub(super) fn body(model: &Model, request: &Request) -> Value {
    let mut messages = vec![json!({ "role": "user", "content": request.user })];
    messages.extend(request.turns.iter().map(|turn| match turn {
        Turn::Assistant(text) => json!({ "role": "assistant", "content": text }),
        Turn::User(text) => json!({ "role": "user", "content": text }),
    }));
    let mut body = Map::new();
    body.insert("model".to_owned(), json!(model.model));
    body.insert("messages".to_owned(), json!(messages));
    body.insert("stream".to_owned(), json!(true));
    body.insert("stream_options".to_owned(), json!({ "include_usage": true }));
    if let Some(schema) = &request.schema {
        let format = json!({ "name": "answer", "strict": strict(schema), "schema": schema });
        body.insert("response_format".to_owned(), json!({ "type": "json_schema", "json_schema": format }));
    }
    // The operator's words come last: they may override any of the above.
    body.extend(model.params.clone());
    Value::Object(body)
}

/// Strict decoding wants every object closed and all its properties required.
fn strict(schema: &Value) -> bool {
    let object_fits = match schema.get("properties").and_then(Value::as_object) {
        Some(properties) => {
            let required: Vec<&str> =
                schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            schema["additionalProperties"] == json!(false)
                && properties.keys().all(|name| required.contains(&name.as_str()))
        }
        None => true,
    };
    let inside_fits = match schema {
        Value::Object(map) => map.values().all(strict),
        Value::Array(list) => list.iter().all(strict),
        _ => true,
    };
    object_fits && inside_fits
}

/// Takes one event of the stream. `Ok(true)`: the terminal signal has come.
pub(super) fn take(event: &Event, so_far: &mut Stream) -> Result<bool, Failure> {
    if event.data.trim() == "[DONE]" {
        return Ok(so_far.finish.is_some());
    }
    let chunk: Value = serde_json::from_str(&event.data)
        .map_err(|e| Failure::new(Class::Malformed, format!("a chunk is not JSON: {e}")))?;
    if chunk["error"].is_object() {
        return Err(in_band(&chunk["error"]));
    }
    if let Some(model) = chunk["model"].as_str() {
        model.clone_into(&mut so_far.model);
    }
    if let Some(usage) = chunk["usage"].as_object() {
        let count = |name: &str| usage.get(name).and_then(Value::as_u64).unwrap_or(0);
        (so_far.input_tokens, so_far.output_tokens) = (count("prompt_tokens"), count("completion_tokens"));
    }
    let choice = &chunk["choices"][0];
    for (name, into) in [("content", &mut so_far.text), ("refusal", &mut so_far.refusal)] {
        if let Some(text) = choice["delta"][name].as_str() {
            into.push_str(text);
        }
    }
    if let Some(finish) = choice["finish_reason"].as_str() {
        so_far.finish = Some(finish.to_owned());
    }
    Ok(false)
}

/// What the finish signal says of the answer.
pub(super) fn judge(stream: &Stream) -> Result<(), Failure> {
    match stream.finish.as_deref() {
        _ if !stream.refusal.is_empty() => Err(Failure::new(Class::Refusal, stream.refusal.clone())),
        Some("content_filter") => {
            Err(Failure::new(Class::Refusal, "stopped by the provider's content filter"))
        }
        Some("length") => Err(Failure::new(Class::Cut, "cut off by the token limit")),
        Some(_) => Ok(()),
        None => Err(Failure::new(Class::Malformed, "the stream ended without a finish signal")),
    }
}

/// An error inside a stream that began well.
pub(super) fn in_band(error: &Value) -> Failure {
    let words = format!("{} {} {}", error["type"], error["code"], error["message"]).to_ascii_lowercase();
    let class = if words.contains("overloaded") {
        Class::Overloaded
    } else if words.contains("rate_limit") {
        Class::RateLimited
    } else {
        Class::Malformed
    };
    Failure::new(class, error["message"].as_str().unwrap_or("an error inside the stream"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strict_decoding_is_asked_for_only_where_the_schema_allows_it() {
        let closed = json!({ "type": "object", "properties": { "a": { "type": "string" } }, "required": ["a"], "additionalProperties": false });
        assert!(strict(&closed));
        let open = json!({ "type": "array", "items": { "type": "object", "properties": { "a": {} }, "required": [] } });
        assert!(!strict(&open));
    }
}

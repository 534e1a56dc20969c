//! The messages dialect that Anthropic speaks.
//!
//! A schema that strict decoding can take goes to models known to have it; else it is told in the
//! system text, which every model understands. The answer is checked anyway.

use super::attempt::Stream;
use super::failure::{Class, Failure};
use super::model::Model;
use super::prompt::{Request, Turn};
use super::sse::Event;
use super::{provider, sorting, structured};
use serde_json::{Map, Value, json};

pub(super) const PATH: &str = "messages";
pub(super) const VERSION: &str = "2023-06-01";
/// The dialect requires a limit; `params.max_tokens` sets another.
const MAX_TOKENS: u32 = 8_192;

pub(super) fn body(model: &Model, request: &Request) -> Value {
    let mut messages = vec![json!({ "role": "user", "content": request.user })];
    messages.extend(request.turns.iter().map(|turn| match turn {
        Turn::Assistant(text) => json!({ "role": "assistant", "content": text }),
        Turn::User(text) => json!({ "role": "user", "content": text }),
    }));
    let mut body = Map::new();
    body.insert("model".to_owned(), json!(model.model));
    body.insert("max_tokens".to_owned(), json!(MAX_TOKENS));
    body.insert("messages".to_owned(), json!(messages));
    body.insert("stream".to_owned(), json!(true));
    if let Some(schema) = request.schema.as_deref() {
        if provider::decodes_to_schema(&model.model) && structured::fits(schema) {
            let format = json!({ "type": "json_schema", "schema": schema });
            body.insert("output_config".to_owned(), json!({ "format": format }));
        } else {
            let told = "Answer with one JSON value and nothing else. It must satisfy this JSON Schema:";
            body.insert("system".to_owned(), json!(format!("{told}\n{schema}")));
        }
    }
    body.extend(model.params.clone());
    Value::Object(body)
}

/// Takes one event of the stream. `Ok(true)`: the terminal signal has come.
pub(super) fn take(event: &Event, so_far: &mut Stream) -> Result<bool, Failure> {
    let chunk: Value = serde_json::from_str(&event.data)
        .map_err(|e| Failure::new(Class::Malformed, format!("an event is not JSON: {e}")))?;
    let tokens = |usage: &Value, name: &str| usage[name].as_u64();
    match chunk["type"].as_str().unwrap_or(&event.name) {
        "message_start" => {
            let message = &chunk["message"];
            message["model"].as_str().unwrap_or_default().clone_into(&mut so_far.model);
            so_far.input_tokens = tokens(&message["usage"], "input_tokens").unwrap_or(0);
        }
        "content_block_delta" => {
            // The answer ends with its finish signal.
            if so_far.finish.is_none() {
                so_far.text.push_str(chunk["delta"]["text"].as_str().unwrap_or_default());
            }
            so_far.thought |= chunk["delta"]["type"] == "thinking_delta";
        }
        "message_delta" => {
            if let Some(reason) = chunk["delta"]["stop_reason"].as_str() {
                so_far.finish = Some(reason.to_owned());
            }
            if let Some(output) = tokens(&chunk["usage"], "output_tokens") {
                so_far.output_tokens = output;
            }
        }
        "message_stop" => return Ok(so_far.finish.is_some()),
        "error" => return Err(sorting::in_stream(&chunk["error"])),
        _ => {}
    }
    Ok(false)
}

pub(super) fn judge(stream: &Stream) -> Result<(), Failure> {
    match stream.finish.as_deref() {
        Some("refusal") => Err(Failure::new(Class::Refusal, "the model refused")),
        Some("max_tokens" | "model_context_window_exceeded") => {
            Err(Failure::new(Class::Cut, "cut off by the token limit"))
        }
        Some(_) => Ok(()),
        None => Err(Failure::new(Class::Malformed, "the stream ended without a finish signal")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infer::model::Api;
    use crate::infer::tests::model_with;

    fn body_for(name: &str, schema: Value) -> Value {
        let model = model_with(name, "http://x/v1", Api::Anthropic, json!({ "max_tokens": 50 }));
        body(&model, &Request::new("hello".to_owned(), Some(schema.into())))
    }

    #[test]
    fn a_schema_is_decoded_to_where_model_and_schema_allow_it_and_told_elsewhere() {
        let closed = json!({ "type": "object", "properties": { "a": { "type": "string" } }, "required": ["a"], "additionalProperties": false });
        let new = body_for("claude-haiku-4-5", closed.clone());
        assert_eq!(new["output_config"]["format"], json!({ "type": "json_schema", "schema": closed }));
        assert!(new.get("system").is_none());
        for body in [
            body_for("claude-3-haiku", closed.clone()),
            body_for("claude-haiku-4-5", json!({ "type": "object" })),
        ] {
            assert!(body.get("output_config").is_none());
            assert!(body["system"].as_str().unwrap().contains(r#""type":"object""#));
        }
        assert_eq!(new["max_tokens"], json!(50), "the operator's word counts");
    }

    #[test]
    fn events_nobody_has_heard_of_are_tolerated() {
        let mut so_far = Stream::default();
        for data in [
            "{}",
            r#"{"type":"new_event"}"#,
            r#"{"type":"content_block_delta","delta":{"type":"new_delta"}}"#,
            "7",
        ] {
            let event = Event { name: "x".to_owned(), data: data.to_owned() };
            assert_eq!(take(&event, &mut so_far).ok(), Some(false));
        }
        assert_eq!((so_far.text.as_str(), so_far.finish), ("", None));
    }
}

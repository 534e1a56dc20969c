//! The messages dialect that Anthropic speaks.
//!
//! The schema goes into the system text: every model understands that, and the answer is checked anyway.

use super::attempt::Stream;
use super::failure::{Class, Failure};
use super::model::Model;
use super::openai::in_band;
use super::prompt::{Request, Turn};
use super::sse::Event;
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
    if let Some(schema) = &request.schema {
        let system = format!(
            "Answer with one JSON value and nothing else. It must satisfy this JSON Schema:\n{schema}"
        );
        body.insert("system".to_owned(), json!(system));
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
        "content_block_delta" => so_far.text.push_str(chunk["delta"]["text"].as_str().unwrap_or_default()),
        "message_delta" => {
            if let Some(reason) = chunk["delta"]["stop_reason"].as_str() {
                so_far.finish = Some(reason.to_owned());
            }
            if let Some(output) = tokens(&chunk["usage"], "output_tokens") {
                so_far.output_tokens = output;
            }
        }
        "message_stop" => return Ok(so_far.finish.is_some()),
        "error" => return Err(in_band(&chunk["error"])),
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

//! The chat dialect that OpenAI and the servers compatible with it speak, from the server's side.

use super::reply::{Ending, Usage};
use serde_json::{Value, json};

fn chunk(model: &str, delta: Value, finish: Option<&str>) -> String {
    let choice = json!({ "index": 0, "delta": delta, "finish_reason": finish });
    let chunk = json!({ "id": "chatcmpl-simulated", "object": "chat.completion.chunk", "created": 0, "model": model, "choices": [choice] });
    format!("data: {chunk}\n\n")
}

pub(super) fn opening(model: &str) -> String {
    chunk(model, json!({ "role": "assistant", "content": "" }), None)
}

pub(super) fn piece(model: &str, text: &str, refusal: bool) -> String {
    let delta = if refusal { json!({ "refusal": text }) } else { json!({ "content": text }) };
    chunk(model, delta, None)
}

pub(super) fn closing(model: &str, ending: Ending, usage: Option<Usage>) -> String {
    let mut out = chunk(model, json!({}), Some(finish(ending)));
    if let Some(usage) = usage {
        let chunk = json!({ "id": "chatcmpl-simulated", "object": "chat.completion.chunk", "created": 0, "model": model, "choices": [], "usage": counts(usage) });
        out.push_str(&format!("data: {chunk}\n\n"));
    }
    out.push_str("data: [DONE]\n\n");
    out
}

pub(super) fn whole(model: &str, text: &str, ending: Ending, usage: Usage) -> Value {
    let message = match ending {
        Ending::Refused => json!({ "role": "assistant", "content": null, "refusal": text }),
        _ => json!({ "role": "assistant", "content": text, "refusal": null }),
    };
    let choice = json!({ "index": 0, "message": message, "finish_reason": finish(ending) });
    json!({ "id": "chatcmpl-simulated", "object": "chat.completion", "created": 0, "model": model, "choices": [choice], "usage": counts(usage) })
}

fn finish(ending: Ending) -> &'static str {
    match ending {
        Ending::Said | Ending::Refused => "stop",
        Ending::Cut => "length",
    }
}

fn counts(usage: Usage) -> Value {
    json!({ "prompt_tokens": usage.input, "completion_tokens": usage.output, "total_tokens": usage.input + usage.output })
}

pub(super) fn error(status: u16, message: &str) -> Value {
    let (kind, code) = match status {
        401 => ("invalid_request_error", "invalid_api_key"),
        404 => ("invalid_request_error", "model_not_found"),
        400 => ("invalid_request_error", "invalid_request"),
        402 => ("insufficient_quota", "insufficient_quota"),
        429 => ("requests", "rate_limit_exceeded"),
        503 | 529 => ("overloaded_error", "overloaded"),
        _ => ("server_error", "internal_error"),
    };
    json!({ "error": { "message": message, "type": kind, "param": null, "code": code } })
}

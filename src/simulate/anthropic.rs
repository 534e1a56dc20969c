//! The messages dialect that Anthropic speaks, from the server's side.

use super::reply::{Ending, Usage};
use serde_json::{Value, json};

fn event(name: &str, mut data: Value) -> String {
    data["type"] = json!(name);
    format!("event: {name}\ndata: {data}\n\n")
}

pub(super) fn opening(model: &str, usage: Usage) -> String {
    let message = json!({
        "id": "msg_simulated", "type": "message", "role": "assistant", "model": model, "content": [],
        "stop_reason": null, "stop_sequence": null,
        "usage": { "input_tokens": usage.input, "output_tokens": 1 },
    });
    let block = json!({ "index": 0, "content_block": { "type": "text", "text": "" } });
    event("message_start", json!({ "message": message })) + &event("content_block_start", block)
}

pub(super) fn piece(text: &str) -> String {
    event("content_block_delta", json!({ "index": 0, "delta": { "type": "text_delta", "text": text } }))
}

pub(super) fn closing(ending: Ending, usage: Usage) -> String {
    let delta = json!({ "stop_reason": stop_reason(ending), "stop_sequence": null });
    [
        event("content_block_stop", json!({ "index": 0 })),
        event("message_delta", json!({ "delta": delta, "usage": { "output_tokens": usage.output } })),
        event("message_stop", json!({})),
    ]
    .concat()
}

pub(super) fn whole(model: &str, text: &str, ending: Ending, usage: Usage) -> Value {
    json!({
        "id": "msg_simulated", "type": "message", "role": "assistant", "model": model,
        "content": [{ "type": "text", "text": text }],
        "stop_reason": stop_reason(ending), "stop_sequence": null,
        "usage": { "input_tokens": usage.input, "output_tokens": usage.output },
    })
}

fn stop_reason(ending: Ending) -> &'static str {
    match ending {
        Ending::Said => "end_turn",
        Ending::Refused => "refusal",
        Ending::Cut => "max_tokens",
    }
}

pub(super) fn error(status: u16, message: &str) -> Value {
    let kind = match status {
        400 => "invalid_request_error",
        401 => "authentication_error",
        404 => "not_found_error",
        402 | 429 => "rate_limit_error",
        503 | 529 => "overloaded_error",
        _ => "api_error",
    };
    json!({ "type": "error", "error": { "type": kind, "message": message } })
}

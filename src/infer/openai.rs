//! The chat dialect that OpenAI and the servers compatible with it speak.

use super::attempt::Stream;
use super::failure::{Class, Failure};
use super::model::Model;
use super::prompt::{Request, Turn};
use super::sse::Event;
use super::{sorting, structured};
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
    if let Some(schema) = request.schema.as_deref() {
        let format = json!({ "name": "answer", "strict": structured::fits(schema), "schema": schema });
        body.insert("response_format".to_owned(), json!({ "type": "json_schema", "json_schema": format }));
    }
    // The operator's words come last: they may override any of the above.
    body.extend(model.params.clone());
    Value::Object(body)
}

/// Takes one event of the stream. `Ok(true)`: the terminal signal has come.
pub(super) fn take(event: &Event, so_far: &mut Stream) -> Result<bool, Failure> {
    if event.data.trim() == "[DONE]" {
        return Ok(so_far.finish.is_some());
    }
    let chunk: Value = serde_json::from_str(&event.data)
        .map_err(|e| Failure::new(Class::Malformed, format!("a chunk is not JSON: {e}")))?;
    if !chunk["error"].is_null() {
        return Err(sorting::in_stream(&chunk["error"]));
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
        // The answer ends with its finish signal.
        if let (Some(text), None) = (choice["delta"][name].as_str(), &so_far.finish) {
            into.push_str(text);
        }
    }
    // Servers that think aloud do so under one of two names.
    let thinks = |name: &str| choice["delta"][name].as_str().is_some_and(|t| !t.is_empty());
    so_far.thought |= thinks("reasoning_content") || thinks("reasoning");
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infer::model::Api;
    use crate::infer::tests::model_with;

    fn body_for(schema: Option<Value>, params: Value) -> Value {
        let model = model_with("m", "http://x/v1", Api::OpenAi, params);
        let mut request = Request::new("hello".to_owned(), schema.map(Into::into));
        request.turns = vec![Turn::Assistant("{}".to_owned()), Turn::User("a is missing".to_owned())];
        body(&model, &request)
    }

    #[test]
    fn a_request_carries_the_turns_the_schema_and_the_operators_parameters() {
        let closed = json!({ "type": "object", "properties": { "a": { "type": "string" } }, "required": ["a"], "additionalProperties": false });
        let body = body_for(Some(closed.clone()), json!({ "reasoning_effort": "low" }));
        let roles: Vec<&str> =
            body["messages"].as_array().unwrap().iter().map(|m| m["role"].as_str().unwrap()).collect();
        assert_eq!(roles, ["user", "assistant", "user"]);
        assert_eq!(
            (&body["model"], &body["stream"], &body["reasoning_effort"]),
            (&json!("m"), &json!(true), &json!("low"))
        );
        assert_eq!(
            body["response_format"]["json_schema"],
            json!({ "name": "answer", "strict": true, "schema": closed })
        );
    }

    #[test]
    fn strict_decoding_is_asked_for_only_where_the_schema_allows_it() {
        let open = json!({ "type": "object", "properties": { "a": { "type": "string" } } });
        assert_eq!(body_for(Some(open), json!({}))["response_format"]["json_schema"]["strict"], json!(false));
        assert!(body_for(None, json!({})).get("response_format").is_none());
    }

    #[test]
    fn fields_nobody_has_heard_of_are_tolerated() {
        let mut so_far = Stream::default();
        for data in [
            r#"{"new":1,"choices":[{"delta":{"content":"a","x":{}},"logprobs":null}]}"#,
            r#"{"choices":[]}"#,
            "{}",
            "7",
        ] {
            let event = Event { name: String::new(), data: data.to_owned() };
            assert_eq!(take(&event, &mut so_far).ok(), Some(false));
        }
        assert_eq!(so_far.text, "a");
    }
}

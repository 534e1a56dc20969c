//! Reads the body of `POST /v1/tasks`: one task, a JSON array of tasks, or JSON lines.
//!
//! Without `?kind=` each task is an object `{kind, payload, key?, tenant?, deadline?, headers?}`; with
//! it, each is a bare payload of that kind. Payloads are kept byte for byte as they came. A mistake in
//! one task is that task's alone; nothing here checks a payload.

use super::error::ApiError;
use crate::consume::TENANT_MAX;
use crate::task::Headers;
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Tasks in one request: 20 batches of 500; more waits for too long behind one commit.
pub(super) const TASKS_MAX: usize = 10_000;
/// All headers of one task, bytes: what a Kafka record's headers sensibly hold.
const HEADERS_MAX: usize = 16 * 1024;

/// One task of a request, not yet checked against its kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) kind: String,
    pub(super) key: Option<String>,
    pub(super) headers: Headers,
    pub(super) payload: Bytes,
}

/// A task, or why it is none.
pub(super) type Read = Result<Entry, ApiError>;

#[derive(Debug)]
pub(super) enum Tasks {
    One(Read),
    /// In order. With the line of each where the body was lines.
    Many(Vec<(Option<usize>, Read)>),
}

/// What goes for the whole request.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// Every payload's kind; the body then holds bare payloads.
    pub(super) kind: Option<String>,
    pub(super) tenant: Option<String>,
    /// `content`: a payload for which no key is found gets its content's hash as key.
    pub(super) key: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wrapped<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    key: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tenant: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    deadline: Option<Cow<'a, str>>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(borrow)]
    payload: &'a RawValue,
}

pub(super) fn read(body: &Bytes, asked: &Asked, http: &HeaderMap) -> Result<Tasks, ApiError> {
    let lines = is_lines(http);
    let shared = shared_headers(asked, http)?;
    let text = std::str::from_utf8(body)
        .map_err(|_| ApiError::bad("the body is not UTF-8", "send JSON as UTF-8"))?;
    let one = |raw: &str| match &asked.kind {
        Some(kind) => bare(body, raw, kind, &shared),
        None => wrapped(body, raw, &shared),
    };
    if lines {
        let all = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let tasks: Vec<_> = all
            .take(TASKS_MAX + 1)
            .map(|(i, line)| (Some(i + 1), one(line.trim()).map_err(of_line)))
            .collect();
        return many(tasks);
    }
    if asked.kind.is_none() && text.trim_start().starts_with('[') {
        let items: Vec<&RawValue> = serde_json::from_str(text).map_err(|e| not_json(&e))?;
        if items.len() > TASKS_MAX {
            return Err(too_many());
        }
        return many(items.into_iter().map(|raw| (None, one(raw.get()))).collect());
    }
    Ok(Tasks::One(one(text.trim())))
}

fn many(tasks: Vec<(Option<usize>, Read)>) -> Result<Tasks, ApiError> {
    match tasks.len() {
        0 => Err(ApiError::bad(
            "the body holds no task",
            "send one task, a JSON array of tasks, or JSON lines",
        )),
        n if n > TASKS_MAX => Err(too_many()),
        _ => Ok(Tasks::Many(tasks)),
    }
}

fn bare(body: &Bytes, raw: &str, kind: &str, shared: &Headers) -> Read {
    let _: &RawValue = serde_json::from_str(raw).map_err(|e| not_json(&e))?;
    Ok(Entry {
        kind: kind.to_owned(),
        key: None,
        headers: shared.clone(),
        payload: body.slice_ref(raw.as_bytes()),
    })
}

fn wrapped(body: &Bytes, raw: &str, shared: &Headers) -> Read {
    let task: Wrapped = serde_json::from_str(raw).map_err(|e| not_a_task(&e))?;
    let mut headers = shared.clone();
    if let Some(tenant) = &task.tenant {
        headers.push("tenant", tenant_name(tenant)?);
    }
    if let Some(deadline) = &task.deadline {
        headers.push("deadline", deadline.as_bytes().to_vec());
    }
    let size: usize = task.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    if size > HEADERS_MAX {
        let message = format!("the task's headers have {size} bytes; the limit is {HEADERS_MAX}");
        return Err(ApiError::bad(message, "move what is large into the payload"));
    }
    for (name, value) in task.headers {
        headers.push(name, value.into_bytes());
    }
    let key = task.key.map(read_key).transpose()?.flatten();
    let payload = body.slice_ref(task.payload.get().as_bytes());
    Ok(Entry { kind: task.kind.into_owned(), key, headers, payload })
}

/// Text, or a number as it is written.
fn read_key(raw: &RawValue) -> Result<Option<String>, ApiError> {
    let first = raw.get().as_bytes().first().copied().unwrap_or(b'n');
    match first {
        b'"' => serde_json::from_str(raw.get()).map(Some).map_err(|e| not_json(&e)),
        b'-' | b'0'..=b'9' => Ok(Some(raw.get().to_owned())),
        b'n' => Ok(None),
        _ => Err(ApiError::bad("`key` is neither text nor a number", "give the idempotency key as text")),
    }
}

/// Headers of the request that go for every task in it: CloudEvents attributes and our own.
fn shared_headers(asked: &Asked, http: &HeaderMap) -> Result<Headers, ApiError> {
    let mut headers = Headers::default();
    for (name, value) in http {
        let name = name.as_str();
        let ours = matches!(name, "traceparent" | "tracestate" | "deadline" | "priority");
        if let Some(attribute) = name.strip_prefix("ce-") {
            headers.push(format!("ce_{attribute}"), Bytes::copy_from_slice(value.as_bytes()));
        } else if ours {
            headers.push(name, Bytes::copy_from_slice(value.as_bytes()));
        }
    }
    let said = http.get("tenant").and_then(|v| v.to_str().ok());
    if let Some(tenant) = asked.tenant.as_deref().or(said).filter(|t| !t.is_empty()) {
        headers.push("tenant", tenant_name(tenant)?);
    }
    Ok(headers)
}

fn tenant_name(tenant: &str) -> Result<Bytes, ApiError> {
    if tenant.len() > TENANT_MAX {
        let message = format!("the tenant's name has {} bytes; the limit is {TENANT_MAX}", tenant.len());
        return Err(ApiError::bad(message, "use a shorter name"));
    }
    Ok(Bytes::copy_from_slice(tenant.as_bytes()))
}

fn is_lines(http: &HeaderMap) -> bool {
    let said = http.get(axum::http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    let kind = said.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    matches!(
        &*kind,
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" | "application/x-jsonlines"
    )
}

fn not_json(e: &serde_json::Error) -> ApiError {
    // serde_json's messages name a place and a token, never a value's text.
    let help =
        "send valid JSON; several tasks need a list around them, or `content-type: application/x-ndjson`";
    ApiError::new(StatusCode::BAD_REQUEST, "malformed", format!("not JSON: {e}"), help)
}

/// As it would be said of a whole body, but for one line of many.
fn of_line(mut e: ApiError) -> ApiError {
    if e.code == "malformed" {
        e.message = e.message.replace(" at line 1 column ", " at column ");
        e.help = "mend the line and send it again".to_owned();
    }
    e
}

fn not_a_task(e: &serde_json::Error) -> ApiError {
    if e.is_data() {
        let help = "a task is `{\"kind\": …, \"payload\": …}` with `key`, `tenant`, `deadline` and `headers` where you need them";
        return ApiError::new(StatusCode::BAD_REQUEST, "malformed", format!("not a task: {e}"), help);
    }
    not_json(e)
}

fn too_many() -> ApiError {
    let message = format!("more than {TASKS_MAX} tasks in one request");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too-many-tasks", message, "send them in several requests")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(n, v)| (n.parse::<axum::http::HeaderName>().unwrap(), v.parse().unwrap()))
            .collect()
    }

    fn lines() -> HeaderMap {
        http(&[("content-type", "application/x-ndjson; charset=utf-8")])
    }

    fn one(body: &'static str, asked: &Asked, http: &HeaderMap) -> Read {
        match read(&Bytes::from_static(body.as_bytes()), asked, http).unwrap() {
            Tasks::One(read) => read,
            Tasks::Many(_) => panic!("expected one task"),
        }
    }

    fn all(body: &'static str, asked: &Asked, http: &HeaderMap) -> Vec<(Option<usize>, Read)> {
        match read(&Bytes::from_static(body.as_bytes()), asked, http).unwrap() {
            Tasks::Many(all) => all,
            Tasks::One(_) => panic!("expected several tasks"),
        }
    }

    #[test]
    fn a_payload_keeps_its_bytes() {
        let body = r#" {"kind":"t","key":7,"payload": {"b" : 1.0,"a":"\u00e9"} ,"headers":{"x":"y"}} "#;
        let entry = one(body, &Asked::default(), &HeaderMap::new()).unwrap();
        assert_eq!(entry.payload, r#"{"b" : 1.0,"a":"\u00e9"}"#);
        assert_eq!((entry.kind.as_str(), entry.key.as_deref()), ("t", Some("7")));
        assert_eq!(entry.headers.text("x"), Some("y"));
        let asked = Asked { kind: Some("t".into()), ..Asked::default() };
        assert_eq!(one("  [1, 2]\n", &asked, &HeaderMap::new()).unwrap().payload, "[1, 2]");
    }

    #[test]
    fn a_bad_line_is_refused_with_its_number_and_the_others_go_on() {
        let asked = Asked { kind: Some("t".into()), ..Asked::default() };
        let found = all("{\"a\":1}\n\n{\"a\":\r\n{\"a\":3}\r\n", &asked, &lines());
        let numbers: Vec<_> = found.iter().map(|(line, read)| (line.unwrap(), read.is_ok())).collect();
        assert_eq!(numbers, [(1, true), (3, false), (4, true)]);
        let bad = found[1].1.as_ref().unwrap_err();
        assert_eq!((bad.code.as_str(), bad.help.as_str()), ("malformed", "mend the line and send it again"));
        assert_eq!(bad.message, "not JSON: EOF while parsing a value at column 5");
        assert_eq!(found[2].1.as_ref().unwrap().payload, "{\"a\":3}");
    }

    #[test]
    fn a_mistake_in_one_element_of_a_list_is_its_own() {
        let found = all(
            r#"[{"kind":"t","payload":1},{"kind":"t"},{"kind":"t","payload":2,"kye":"x"},7]"#,
            &Asked::default(),
            &HeaderMap::new(),
        );
        let good: Vec<_> = found.iter().map(|(_, read)| read.is_ok()).collect();
        assert_eq!(good, [true, false, false, false]);
        assert!(found[1].1.as_ref().unwrap_err().message.contains("payload"));
        assert!(found[2].1.as_ref().unwrap_err().message.contains("kye"));
    }

    #[test]
    fn cloudevents_headers_and_the_tenant_go_for_every_task() {
        let sent = http(&[
            ("ce-id", "1"),
            ("ce-source", "/a"),
            ("tenant", "north"),
            ("cookie", "secret"),
            ("deadline", "9"),
        ]);
        let entry = one(r#"{"kind":"t","payload":1,"tenant":"south"}"#, &Asked::default(), &sent).unwrap();
        let text = |name| entry.headers.text(name);
        assert_eq!((text("ce_id"), text("ce_source"), text("deadline")), (Some("1"), Some("/a"), Some("9")));
        assert_eq!(text("tenant"), Some("south"), "the task's own word wins");
        assert_eq!(text("cookie"), None);
    }

    #[test]
    fn empty_and_endless_bodies_are_refused() {
        let asked = Asked { kind: Some("t".into()), ..Asked::default() };
        let code = |body: String| read(&Bytes::from(body), &asked, &lines()).unwrap_err().code;
        assert_eq!(code("\n \n".into()), "bad-request");
        assert_eq!(code("1\n".repeat(TASKS_MAX + 1)), "too-many-tasks");
        assert_eq!(read(&Bytes::from_static(b"\xff"), &asked, &lines()).unwrap_err().code, "bad-request");
        assert!(read(&Bytes::from("1\n".repeat(TASKS_MAX)), &asked, &lines()).is_ok());
        let deep = "[".repeat(100_000);
        assert_eq!(
            all(Box::leak(deep.into_boxed_str()), &asked, &lines())[0].1.as_ref().unwrap_err().code,
            "malformed"
        );
    }
}

//! `POST /v1/records/{topic}`: appends records to a task topic just as they are, as any producer on a
//! shared log could. What cannot be a task ends in dead letters, not in an error here.
//!
//! Internal topics are closed to it: token headers there are believed.

use super::App;
use super::error::ApiError;
use super::tasks::{accepting, drain, whole};
use crate::engine::{AppendError, Output};
use crate::task::{Headers, Topic};
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;

/// Records of one request; the body's limit bounds their bytes.
const RECORDS_MAX: usize = 10_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Records {
    records: Vec<Written>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    key: Option<String>,
    /// The value as text.
    value: Option<String>,
    /// The value as bytes, in base64: for what is no text, such as Avro.
    value_base64: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

pub(super) async fn append(
    State(app): State<App>,
    Path(topic): Path<String>,
    body: Body,
) -> Result<Response, ApiError> {
    if let Err(paused) = accepting(&app) {
        drain(&app, body).await;
        return Err(paused);
    }
    let topic = Topic::new(topic);
    if app.kinds.on(&topic).is_empty() {
        let message = format!("no kind reads `{topic}`");
        let help = "records can be put on the topics that kinds read; `tidegate check` lists them";
        return Err(ApiError::new(StatusCode::NOT_FOUND, "no-such-topic", message, help));
    }
    let body = whole(&app, body).await?;
    let read: Records = serde_json::from_slice(&body.bytes).map_err(|e| {
        ApiError::bad(format!("not records: {e}"), r#"send {"records":[{"key":…,"value":…,"headers":{…}}]}"#)
    })?;
    if read.records.len() > RECORDS_MAX {
        return Err(ApiError::bad(format!("more than {RECORDS_MAX} records"), "send fewer at once"));
    }
    let outputs = read.records.into_iter().map(|r| output(&topic, r)).collect::<Result<Vec<_>, _>>()?;
    let positions = app.engine.log.append(outputs).await.map_err(refused)?;
    let positions: Vec<String> = positions.iter().map(ToString::to_string).collect();
    Ok((StatusCode::ACCEPTED, axum::Json(json!({ "positions": positions }))).into_response())
}

fn output(topic: &Topic, written: Written) -> Result<Output, ApiError> {
    let mut headers = Headers::default();
    for (name, value) in written.headers {
        headers.push(name, value);
    }
    let value = match (written.value, written.value_base64) {
        (Some(_), Some(_)) => {
            let help = "give the value once, as text or in base64";
            return Err(ApiError::bad("a record with `value` and `value_base64`", help));
        }
        (value, None) => value.map(Bytes::from),
        (None, Some(text)) => match base64::engine::general_purpose::STANDARD.decode(text) {
            Ok(bytes) => Some(bytes.into()),
            Err(e) => {
                let help = "the standard alphabet, with padding";
                return Err(ApiError::bad(format!("`value_base64` is not base64: {e}"), help));
            }
        },
    };
    Ok(Output { topic: topic.clone(), key: written.key.map(Bytes::from), value, headers, not_before: None })
}

fn refused(e: AppendError) -> ApiError {
    let (status, code, help) = match &e {
        AppendError::Unavailable(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "paused",
            "perhaps nothing was appended; send the same again once it is well: a key that comes twice is one task",
        ),
        AppendError::TooLarge { .. } => {
            (StatusCode::PAYLOAD_TOO_LARGE, "record-too-large", "nothing was appended; send smaller records")
        }
        AppendError::NoSuchTopic(_) => (StatusCode::NOT_FOUND, "no-such-topic", "nothing was appended"),
    };
    ApiError::new(status, code, e.to_string(), help)
}

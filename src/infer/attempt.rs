//! One request to one model, under its timeouts, streamed and buffered until its terminal signal.
//!
//! Since nobody sees a part of an answer, a failure in the middle costs nothing but time.

use super::failure::{self, Class, Failure};
use super::model::{Api, Model};
use super::prompt::Request;
use super::sse::Decoder;
use super::{anthropic, openai};
use crate::task::Timestamp;
use futures::StreamExt as _;
use secrecy::ExposeSecret as _;
use std::time::{Duration, Instant};

/// An error reply is read up to here.
const ERROR_BODY_MAX: usize = 64 * 1024;

/// What a stream has said so far.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) text: String,
    pub(super) refusal: String,
    pub(super) finish: Option<String>,
    pub(super) model: String,
    pub(super) input_tokens: u64,
    pub(super) output_tokens: u64,
    pub(super) first_token_ms: Option<u64>,
}

/// Limits of this try.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) total: Duration,
    /// Largest answer that is buffered, bytes.
    pub(super) answer_max: usize,
}

/// `slot`: what this request is for; providers that log headers can tell repeats apart.
pub(super) async fn attempt(
    client: &reqwest::Client,
    model: &Model,
    request: &Request,
    slot: &str,
    limits: Limits,
) -> Result<Stream, Failure> {
    let whole = stream(client, model, request, slot, limits.answer_max);
    match tokio::time::timeout(limits.total, whole).await {
        Ok(ended) => ended,
        Err(_) => Err(Failure::new(Class::Timeout, format!("no whole answer within {:?}", limits.total))),
    }
}

async fn stream(
    client: &reqwest::Client,
    model: &Model,
    request: &Request,
    slot: &str,
    answer_max: usize,
) -> Result<Stream, Failure> {
    let began = Instant::now();
    let silence =
        || Failure::new(Class::Timeout, format!("no first token within {:?}", model.timeouts.first_token));
    let sent = builder(client, model, request, slot).send();
    let reply = tokio::time::timeout(model.timeouts.first_token, sent).await.map_err(|_| silence())?;
    let reply = reply.map_err(|e| transport(&e))?;
    if !reply.status().is_success() {
        return Err(refused(reply).await);
    }
    let mut pieces = reply.bytes_stream();
    let (mut decoder, mut so_far) = (Decoder::default(), Stream::default());
    loop {
        let waiting_for_first = so_far.first_token_ms.is_none();
        let patience = if waiting_for_first {
            model.timeouts.first_token.saturating_sub(began.elapsed())
        } else {
            model.timeouts.idle
        };
        let piece = match tokio::time::timeout(patience, pieces.next()).await {
            Err(_) if waiting_for_first => return Err(silence()),
            Err(_) => {
                return Err(cut(so_far, Class::Timeout, format!("silent for {:?}", model.timeouts.idle)));
            }
            Ok(None) => break,
            Ok(Some(Err(e))) => return Err(cut(so_far, Class::Malformed, format!("the stream broke: {e}"))),
            Ok(Some(Ok(piece))) => piece,
        };
        let events = decoder.push(&piece).map_err(|e| Failure::new(Class::Malformed, e.to_string()))?;
        for event in events {
            let ended = match model.api {
                Api::OpenAi => openai::take(&event, &mut so_far),
                Api::Anthropic => anthropic::take(&event, &mut so_far),
            };
            let ended = ended.map_err(|f| Failure { first_token_ms: so_far.first_token_ms, ..f })?;
            if so_far.first_token_ms.is_none() && !(so_far.text.is_empty() && so_far.refusal.is_empty()) {
                so_far.first_token_ms = Some(millis(began.elapsed()));
            }
            if so_far.text.len() > answer_max {
                return Err(cut(so_far, Class::Malformed, format!("longer than {answer_max} bytes")));
            }
            if ended {
                return judge(model.api, so_far);
            }
        }
    }
    // A missing end sentinel is fine as long as the finish signal has come.
    judge(model.api, so_far)
}

fn judge(api: Api, so_far: Stream) -> Result<Stream, Failure> {
    let judged = match api {
        Api::OpenAi => openai::judge(&so_far),
        Api::Anthropic => anthropic::judge(&so_far),
    };
    match judged {
        Ok(()) => Ok(so_far),
        Err(f) => Err(Failure { partial: Some(so_far.text), first_token_ms: so_far.first_token_ms, ..f }),
    }
}

fn cut(so_far: Stream, class: Class, detail: String) -> Failure {
    Failure {
        partial: Some(so_far.text),
        first_token_ms: so_far.first_token_ms,
        ..Failure::new(class, detail)
    }
}

fn builder(
    client: &reqwest::Client,
    model: &Model,
    request: &Request,
    slot: &str,
) -> reqwest::RequestBuilder {
    let base = model.url.trim_end_matches('/');
    let (path, body) = match model.api {
        Api::OpenAi => (openai::PATH, openai::body(model, request)),
        Api::Anthropic => (anthropic::PATH, anthropic::body(model, request)),
    };
    let mut builder = client.post(format!("{base}/{path}")).header("x-tidegate-slot", slot).json(&body);
    builder = match (&model.key, model.api) {
        (Some(key), Api::OpenAi) => builder.bearer_auth(key.expose_secret()),
        (Some(key), Api::Anthropic) => builder.header("x-api-key", key.expose_secret()),
        (None, _) => builder,
    };
    if model.api == Api::Anthropic {
        builder = builder.header("anthropic-version", anthropic::VERSION);
    }
    model.headers.iter().fold(builder, |b, (name, value)| b.header(name, value.expose_secret()))
}

async fn refused(reply: reqwest::Response) -> Failure {
    let status = reply.status().as_u16();
    let header = |name: &str| reply.headers().get(name).and_then(|v| v.to_str().ok());
    let hint = failure::hint(header("retry-after-ms"), header("retry-after"), Timestamp::now().0);
    let mut body = Vec::new();
    let mut pieces = reply.bytes_stream();
    while let Some(Ok(piece)) = pieces.next().await {
        body.extend_from_slice(&piece[..piece.len().min(ERROR_BODY_MAX - body.len())]);
        if body.len() >= ERROR_BODY_MAX {
            break;
        }
    }
    failure::of_reply(status, &String::from_utf8_lossy(&body), hint)
}

fn transport(e: &reqwest::Error) -> Failure {
    let class = if e.is_timeout() { Class::Timeout } else { Class::Transient };
    // The source says what happened (refused, reset, DNS); the outer text repeats the URL.
    let mut cause: &dyn std::error::Error = e;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    Failure::new(class, cause.to_string())
}

pub(super) fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

//! A server that answers as it is told, for the tests of this folder: real HTTP, no model.

use super::model::{Api, Model, Timeouts};
use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use futures::StreamExt as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinSet;

/// What one request gets.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    /// These pieces, one after the other, then the end.
    Pieces(Vec<Vec<u8>>),
    /// These pieces, then nothing, and no end.
    ThenSilence(Vec<Vec<u8>>),
    /// These pieces, then the last argument again and again, without end.
    Drip(Vec<Vec<u8>>, Duration, Vec<u8>),
    Status(u16, &'static str, Vec<(&'static str, &'static str)>),
    /// Only after this long.
    After(Duration, Box<Reply>),
}

pub(super) struct Served {
    pub(super) url: String,
    /// The slot header of each request, in order.
    pub(super) slots: Arc<Mutex<Vec<String>>>,
    _owner: JoinSet<()>,
}

/// Answers the n-th request with the n-th reply; the last one repeats.
pub(super) async fn serve(replies: Vec<Reply>) -> Served {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let slots: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = slots.clone();
    let app = Router::new().fallback(move |request: Request<Body>| {
        let (seen, replies) = (seen.clone(), replies.clone());
        async move {
            let slot = request.headers().get("x-tidegate-slot").map(|v| v.to_str().unwrap().to_owned());
            let n = {
                let mut seen = seen.lock().unwrap();
                seen.push(slot.unwrap_or_default());
                seen.len() - 1
            };
            let mut reply = replies[n.min(replies.len() - 1)].clone();
            if let Reply::After(wait, then) = reply {
                tokio::time::sleep(wait).await;
                reply = *then;
            }
            response(reply)
        }
    });
    let mut owner = JoinSet::new();
    owner.spawn(async move { axum::serve(listener, app).await.unwrap() });
    Served { url, slots, _owner: owner }
}

fn response(reply: Reply) -> Response<Body> {
    let ok = |p: Vec<u8>| Ok::<_, std::io::Error>(p);
    match reply {
        Reply::Pieces(pieces) => {
            Response::new(Body::from_stream(futures::stream::iter(pieces.into_iter().map(ok))))
        }
        Reply::ThenSilence(pieces) => {
            let silence = futures::stream::pending();
            Response::new(Body::from_stream(futures::stream::iter(pieces.into_iter().map(ok)).chain(silence)))
        }
        Reply::After(..) => unreachable!("waited for already"),
        Reply::Drip(pieces, every, drop) => {
            let drops = futures::stream::repeat(drop).then(move |drop| async move {
                tokio::time::sleep(every).await;
                drop
            });
            Response::new(Body::from_stream(futures::stream::iter(pieces).chain(drops).map(ok)))
        }
        Reply::Status(status, body, headers) => {
            let builder =
                headers.iter().fold(Response::builder().status(status), |b, (n, v)| b.header(*n, *v));
            builder.body(Body::from(body)).unwrap()
        }
    }
}

/// A whole OpenAI-style stream that says `text`.
pub(super) fn says(text: &str) -> Reply {
    let delta = serde_json::json!({ "model": "m-1", "choices": [{ "delta": { "content": text } }] });
    let end = r#"data: {"choices":[{"delta":{},"finish_reason":"stop"}]}"#;
    let usage = r#"data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}"#;
    Reply::Pieces(vec![format!("data: {delta}\n\n{end}\n\n{usage}\n\ndata: [DONE]\n\n").into_bytes()])
}

pub(super) fn model(name: &str, url: &str, api: Api) -> Arc<Model> {
    Arc::new(plain(name, url, api))
}

/// A model whose requests carry these parameters.
pub(super) fn model_with(name: &str, url: &str, api: Api, params: serde_json::Value) -> Model {
    Model { params: params.as_object().cloned().unwrap_or_default(), ..plain(name, url, api) }
}

pub(super) fn plain(name: &str, url: &str, api: Api) -> Model {
    let short = Duration::from_millis(300);
    Model {
        name: name.into(),
        provider: "test".into(),
        api,
        url: url.to_owned(),
        model: name.to_owned(),
        key: None,
        window_tokens: None,
        price: None,
        params: serde_json::Map::new(),
        headers: vec![],
        timeouts: Timeouts { connect: short, first_token: short, idle: short, total: Duration::from_secs(2) },
    }
}

//! Tidegate's own client against a server of this module, and a plain one for what is not streamed.

use super::super::{Scenario, Summary, serve};
use crate::dedupe::{Bar, Claim, Fence, Kept, Nonce, Slot, SlotKind, SlotName, Standing, Started};
use crate::engine::{Journal, Lease, Unavailable};
use crate::infer::{Allowance, Answer, Api, Call, Called, Model, Models, Request, Timeouts, TryNote};
use crate::task::{Fingerprint, Origin, Partition, Position, PrintRule, ScopedKey, Timestamp, Token, Topic};
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Grants everything and keeps nothing.
struct Forgetful;

impl Journal for Forgetful {
    fn start(&self, _: &Claim, _: &Slot, _: Duration) -> BoxFuture<'static, Result<Started, Unavailable>> {
        async { Ok(Started::Go { repeat: false, times: 0, deaths: 0 }) }.boxed()
    }
    fn bar(&self, _: &Claim, _: &Slot) -> BoxFuture<'static, Result<Bar, Unavailable>> {
        async { Ok(Bar::Barred) }.boxed()
    }
    fn store(
        &self,
        _: &Claim,
        _: &Slot,
        value: Bytes,
    ) -> BoxFuture<'static, Result<(Kept, Standing), Unavailable>> {
        async { Ok((Kept { value, times: 0 }, Standing::Stands)) }.boxed()
    }
    fn release(&self, _: Nonce, _: &ScopedKey, _: u32) -> BoxFuture<'static, Result<(), Unavailable>> {
        async { Ok(()) }.boxed()
    }
}

/// A server in this process.
pub(super) struct Served {
    pub(super) address: String,
    cancel: CancellationToken,
    server: JoinSet<std::io::Result<Summary>>,
}

impl Served {
    pub(super) async fn start(scenario: &str, log: Option<PathBuf>) -> Served {
        let scenario = Scenario::parse(scenario).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let cancel = CancellationToken::new();
        let mut server = JoinSet::new();
        server.spawn(serve(scenario, 7, log, listener, cancel.clone()));
        Served { address, cancel, server }
    }

    pub(super) async fn stop(mut self) -> Summary {
        self.cancel.cancel();
        self.server.join_next().await.unwrap().unwrap().unwrap()
    }

    /// One try of one slot by Tidegate's own client.
    pub(super) async fn ask(&self, api: Api, key: &str, request: &Request) -> Result<Answer, TryNote> {
        let ms = Duration::from_millis;
        let model = Arc::new(Model {
            name: "main".into(),
            provider: "simulated".into(),
            api,
            url: format!("http://{}/v1", self.address),
            model: "main".to_owned(),
            key: None,
            window_tokens: None,
            price: None,
            params: serde_json::Map::new(),
            headers: vec![],
            timeouts: Timeouts { connect: ms(2_000), first_token: ms(800), idle: ms(800), total: ms(1_500) },
        });
        let models = Models::new(std::slice::from_ref(&model), crate::validate::ANSWER_MAX).unwrap();
        let journal: Arc<dyn Journal> = Arc::new(Forgetful);
        let slot = Slot { name: SlotName("ask.r0#0".into()), kind: SlotKind::Call };
        let mut allowance = Allowance { time: ms(60_000), money: None, tries: 1, halves: 1 };
        let call = Call {
            journal: &journal,
            claim: &claim(key),
            slot: &slot,
            stored: None,
            lineup: &[model],
            request,
            allowance: &mut allowance,
            deadline: None,
            cancel: &CancellationToken::new(),
        };
        match models.call(call).await {
            Called::Answer(answer) => Ok(*answer),
            Called::Park { mut tries, .. } | Called::Dead { mut tries, .. } => Err(tries.swap_remove(0)),
            Called::Person { mut said, .. } => Err(said.tries.swap_remove(0)),
            other => panic!("neither an answer nor a failure: {other:?}"),
        }
    }

    /// A plain request; its reply is still to be read.
    pub(super) async fn open(&self, method: &str, path: &str, body: &Value) -> tokio::net::TcpStream {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let head = format!("{method} {path} HTTP/1.0\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
        let mut stream = tokio::net::TcpStream::connect(&self.address).await.unwrap();
        stream.write_all((head + &body).as_bytes()).await.unwrap();
        stream
    }

    /// A plain request; status and body of the reply.
    pub(super) async fn send(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let mut stream = self.open(method, path, body).await;
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap())
    }
}

fn claim(key: &str) -> Claim {
    let at = Partition { topic: Topic::new("tasks.ticket"), index: 0 };
    Claim {
        lease: Lease { at: at.clone(), epoch: 1 },
        nonce: Nonce(1),
        fence: Fence(1),
        token: Token {
            key: ScopedKey::new("", "ticket", key),
            generation: 0,
            origin: Origin { position: Position { at, offset: 1 }, stamp: Timestamp(1) },
            hop: 0,
            print: Fingerprint { rule: PrintRule::Whole, digest: [0; 32] },
            proof: None,
            payload: Bytes::new(),
        },
    }
}

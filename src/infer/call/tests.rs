//! The loop over a real server and the ledger's own rules.

use super::*;
use crate::dedupe::{self, Ask, Bar, Entry, Fence, Holder, Instance, Nonce, Observer, SlotKind, SlotName};
use crate::engine::{Lease, Unavailable};
use crate::infer::model::Api;
use crate::infer::served::{Reply, Served, model, says, serve};
use crate::task::{Fingerprint, Origin, Partition, Position, PrintRule, ScopedKey, Token, Topic};
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use std::sync::Mutex;

/// One entry in memory, run by the rules of `dedupe`.
#[derive(Default)]
struct Memory {
    entry: Mutex<Option<Entry>>,
    away_for_stores: bool,
}

struct Alone;

impl Observer for Alone {
    fn settled(&self) -> bool {
        true
    }
    fn lapsed(&self, instance: Instance) -> bool {
        instance != Instance(1)
    }
}

fn holder(c: &Claim) -> Holder {
    Holder { fence: c.fence, nonce: c.nonce, instance: Instance(1) }
}

impl Journal for Memory {
    fn start(
        &self,
        c: &Claim,
        slot: &Slot,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Started, Unavailable>> {
        let now = Timestamp(1_000);
        let mut entry = self.entry.lock().unwrap();
        let started = dedupe::start(&mut entry, &holder(c), slot, now.plus(deadline), now, &Alone);
        async move { Ok(started) }.boxed()
    }
    fn bar(&self, c: &Claim, slot: &Slot) -> BoxFuture<'static, Result<Bar, Unavailable>> {
        let barred = dedupe::bar(&mut self.entry.lock().unwrap(), &holder(c), slot);
        async move { Ok(barred) }.boxed()
    }
    fn store(
        &self,
        c: &Claim,
        slot: &Slot,
        value: Bytes,
    ) -> BoxFuture<'static, Result<(Bytes, Standing), Unavailable>> {
        if self.away_for_stores {
            return async { Err(Unavailable("away".to_owned())) }.boxed();
        }
        let stored = dedupe::store(&mut self.entry.lock().unwrap(), &c.token, slot, value);
        async move { Ok(stored) }.boxed()
    }
    fn release(&self, nonce: Nonce, _key: &ScopedKey) -> BoxFuture<'static, Result<(), Unavailable>> {
        dedupe::release(&mut self.entry.lock().unwrap(), nonce);
        async { Ok(()) }.boxed()
    }
}

fn admitted(memory: &Memory, nonce: u128) -> Claim {
    let position = Position { at: Partition { topic: Topic::new("tasks.t"), index: 0 }, offset: 3 };
    let token = Token {
        key: ScopedKey::new("", "t", "k"),
        generation: 0,
        origin: Origin { position: position.clone(), stamp: Timestamp(1) },
        hop: 0,
        print: Fingerprint { rule: PrintRule::Whole, digest: [0; 32] },
        proof: None,
        payload: Bytes::from_static(b"{}"),
    };
    let lease = Lease { at: position.at, epoch: 1 };
    let (nonce, fence) = (Nonce(nonce), Fence(nonce + 100));
    let ask = Ask { token: &token, lease: &lease, nonce, fence, decider: None, now: Timestamp(1) };
    match dedupe::admit(&mut memory.entry.lock().unwrap(), false, &ask) {
        dedupe::Admission::Fresh(claim) | dedupe::Admission::Resumed(claim, _) => claim,
        other => panic!("{other:?}"),
    }
}

struct World {
    memory: Arc<Memory>,
    models: Models,
    lineup: Vec<Arc<Model>>,
    servers: Vec<Served>,
}

async fn world(replies: Vec<Vec<Reply>>, memory: Memory) -> World {
    let mut servers = vec![];
    for replies in replies {
        servers.push(serve(replies).await);
    }
    let name = |i: usize| format!("model-{i}");
    let lineup: Vec<Arc<Model>> =
        servers.iter().enumerate().map(|(i, s)| model(&name(i), &s.url, Api::OpenAi)).collect();
    let models = Models::new(&lineup, 100_000).unwrap();
    World { memory: Arc::new(memory), models, lineup, servers }
}

impl World {
    async fn call(&self, claim: &Claim) -> Called {
        let journal: Arc<dyn Journal> = self.memory.clone();
        let slot = Slot { name: SlotName("answer.r0#1".into()), kind: SlotKind::Call };
        let call = Call {
            journal: &journal,
            claim,
            slot: &slot,
            stored: None,
            lineup: &self.lineup,
            request: &Request::new("hello".to_owned(), None),
            allowance: &mut Allowance { time: Duration::from_secs(60), money: None, tries: 6 },
            deadline: None,
            cancel: &CancellationToken::new(),
        };
        self.models.call(call).await
    }

    fn asked(&self, server: usize) -> usize {
        self.servers[server].slots.lock().unwrap().len()
    }
}

fn answer(called: Called) -> Answer {
    match called {
        Called::Answer(answer) => *answer,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn p3_an_answer_that_is_stored_is_not_bought_again_by_the_next_delivery() {
    let w = world(vec![vec![says("one"), says("two")]], Memory::default()).await;
    let first = answer(w.call(&admitted(&w.memory, 1)).await);
    let second = answer(w.call(&admitted(&w.memory, 2)).await);
    assert_eq!((first.text.as_str(), second.text.as_str()), ("one", "one"));
    assert_eq!(w.asked(0), 1);
    let slot = w.servers[0].slots.lock().unwrap()[0].clone();
    assert!(slot.ends_with(".g0/answer.r0#1"), "{slot}");
}

#[tokio::test]
async fn a_stale_holder_is_told_so_and_asks_nobody() {
    let w = world(vec![vec![says("one")]], Memory::default()).await;
    let old = admitted(&w.memory, 1);
    let _new = admitted(&w.memory, 2);
    assert!(matches!(w.call(&old).await, Called::Stale));
    assert_eq!(w.asked(0), 0);
}

#[tokio::test]
async fn p7_a_broken_model_is_left_for_the_next_and_every_try_is_noted() {
    let gone =
        Reply::Status(404, r#"{"error":{"code":"model_not_found","message":"no such model"}}"#, vec![]);
    let w = world(vec![vec![gone], vec![says("spare")]], Memory::default()).await;
    let got = answer(w.call(&admitted(&w.memory, 1)).await);
    assert_eq!((got.text.as_str(), got.position, got.model_name.as_str()), ("spare", 1, "model-1"));
    let classes: Vec<&str> = got.tries.iter().map(|t| t.class.as_str()).collect();
    assert_eq!(classes, ["misconfigured", "ok"]);
    assert_eq!(w.models.view()[0].state, "blocked");
}

#[tokio::test]
async fn p7_when_nobody_can_serve_the_task_parks_and_its_slot_is_free_again() {
    let capped = Reply::Status(429, r#"{"error":{"type":"insufficient_quota","message":"quota"}}"#, vec![]);
    let w = world(vec![vec![capped]], Memory::default()).await;
    let claim = admitted(&w.memory, 1);
    let Called::Park { wait, .. } = w.call(&claim).await else { panic!("parks") };
    assert!(wait >= Duration::from_secs(5));
    let entry = w.memory.entry.lock().unwrap().clone().unwrap();
    assert!(entry.slots.is_empty(), "given back as if it had never been started: {:?}", entry.slots);
    assert!(matches!(w.models.availability(&w.lineup), crate::infer::Availability::None { .. }));
}

#[tokio::test]
async fn a_refusal_is_not_routed_round() {
    let refusal = Reply::Pieces(vec![
        b"data: {\"choices\":[{\"delta\":{\"refusal\":\"no\"},\"finish_reason\":\"stop\"}]}\n\n".to_vec(),
    ]);
    let w = world(vec![vec![refusal], vec![says("spare")]], Memory::default()).await;
    let Called::Person { reason, .. } = w.call(&admitted(&w.memory, 1)).await else { panic!("a person") };
    assert_eq!((reason, w.asked(1)), (Reason::ModelRefused, 0));
}

#[tokio::test]
async fn p3_an_answer_that_cannot_be_stored_is_held_and_handed_on() {
    let w = world(vec![vec![says("one")]], Memory { away_for_stores: true, ..Memory::default() }).await;
    let got = answer(w.call(&admitted(&w.memory, 1)).await);
    assert!(got.held);
    let entry = w.memory.entry.lock().unwrap().clone().unwrap();
    let state = &entry.slots[&SlotName("answer.r0#1".into())].state;
    assert!(matches!(state, dedupe::SlotState::Started { .. }), "nobody else may buy it meanwhile");
}

#[tokio::test]
async fn a_rate_limit_with_a_short_hint_is_waited_out_in_place() {
    let slow = Reply::Status(429, r#"{"error":{"message":"slow down"}}"#, vec![("retry-after-ms", "50")]);
    let w = world(vec![vec![slow, says("one")]], Memory::default()).await;
    let got = answer(w.call(&admitted(&w.memory, 1)).await);
    assert_eq!(got.text, "one");
    assert!(got.tries[1].wait_ms >= 50, "{:?}", got.tries);
}

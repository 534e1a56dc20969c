//! The loop over a real server and the ledger's own rules.

use super::*;
use crate::dedupe::{
    self, Ask, Bar, Entry, Fence, Holder, Instance, Kept, Nonce, Observer, SlotKind, SlotName,
};
use crate::engine::{Lease, Unavailable};
use crate::infer::model::Api;
use crate::infer::tests::{Reply, Served, model, says, serve};
use crate::task::{Fingerprint, Origin, Partition, Position, PrintRule, ScopedKey, Token, Topic};
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::json;
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
    ) -> BoxFuture<'static, Result<(Kept, Standing), Unavailable>> {
        if self.away_for_stores {
            return async { Err(Unavailable("away".to_owned())) }.boxed();
        }
        let stored = dedupe::store(&mut self.entry.lock().unwrap(), &c.token, slot, value);
        async move { Ok(stored) }.boxed()
    }
    fn release(
        &self,
        nonce: Nonce,
        _key: &ScopedKey,
        unheard: u32,
    ) -> BoxFuture<'static, Result<(), Unavailable>> {
        dedupe::release(&mut self.entry.lock().unwrap(), nonce, unheard);
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
    world_of(Arc::new(memory), replies).await
}

async fn world_of(memory: Arc<Memory>, replies: Vec<Vec<Reply>>) -> World {
    let mut servers = vec![];
    for replies in replies {
        servers.push(serve(replies).await);
    }
    let name = |i: usize| format!("model-{i}");
    let lineup: Vec<Arc<Model>> =
        servers.iter().enumerate().map(|(i, s)| model(&name(i), &s.url, Api::OpenAi)).collect();
    let models = Models::new(&lineup, 100_000).unwrap();
    World { memory, models, lineup, servers }
}

impl World {
    async fn call(&self, claim: &Claim) -> Called {
        self.call_until(claim, &CancellationToken::new(), None).await
    }

    async fn call_until(
        &self,
        claim: &Claim,
        cancel: &CancellationToken,
        deadline: Option<Timestamp>,
    ) -> Called {
        self.ask(claim, cancel, deadline, None, &mut plenty()).await
    }

    /// A first call, whose caller leaves meanwhile.
    async fn call_and_leave(&self, after: Duration) -> Called {
        let (claim, cancel) = (admitted(&self.memory, 1), CancellationToken::new());
        let leave = async {
            tokio::time::sleep(after).await;
            cancel.cancel();
        };
        tokio::join!(self.call_until(&claim, &cancel, None), leave).0
    }

    async fn call_with(&self, claim: &Claim, stored: Option<&Kept>) -> Called {
        self.ask(claim, &CancellationToken::new(), None, stored, &mut plenty()).await
    }

    async fn call_within(&self, claim: &Claim, allowance: &mut Allowance) -> Called {
        self.ask(claim, &CancellationToken::new(), None, None, allowance).await
    }

    async fn ask(
        &self,
        claim: &Claim,
        cancel: &CancellationToken,
        deadline: Option<Timestamp>,
        stored: Option<&Kept>,
        allowance: &mut Allowance,
    ) -> Called {
        let journal: Arc<dyn Journal> = self.memory.clone();
        let slot = Slot { name: SlotName("answer.r0#1".into()), kind: SlotKind::Call };
        let call = Call {
            journal: &journal,
            claim,
            slot: &slot,
            stored,
            lineup: &self.lineup,
            request: &Request::new("hello".to_owned(), None),
            allowance,
            deadline,
            cancel,
        };
        self.models.call(call).await
    }

    fn asked(&self, server: usize) -> usize {
        self.servers[server].slots.lock().unwrap().len()
    }
}

fn plenty() -> Allowance {
    Allowance { time: Duration::from_secs(60), money: None, tries: 6, halves: 6 }
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
    let view = &w.models.view()[0];
    assert_eq!(view.state, "blocked");
    assert!(view.next_try_ms.is_some_and(|ms| (200_000..=300_000).contains(&ms)), "{view:?}");
    assert!(view.last_error_ms.is_some_and(|ms| ms < 60_000) && view.help.is_some(), "{view:?}");
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
    let Called::Person { ended, .. } = w.call(&admitted(&w.memory, 1)).await else { panic!("a person") };
    assert_eq!((ended.reason, w.asked(1)), (Reason::ModelRefused, 0));
}

#[tokio::test]
async fn p3_a_refusal_and_a_half_answer_are_stored_and_not_bought_again_by_the_next_delivery() {
    let refuses = r#"{"choices":[{"delta":{"refusal":"no"},"finish_reason":"stop"}]}"#;
    let cuts = r#"{"choices":[{"delta":{"content":"{\"a"},"finish_reason":"length"}]}"#;
    for (says, reason, text) in [(refuses, Reason::ModelRefused, ""), (cuts, Reason::AnswerCut, "{\"a")] {
        let w = world(
            vec![vec![Reply::Pieces(vec![format!("data: {says}\n\n").into_bytes()])]],
            Memory::default(),
        )
        .await;
        for nonce in 1..=2 {
            let Called::Person { ended, said } = w.call(&admitted(&w.memory, nonce)).await else {
                panic!("a person")
            };
            assert_eq!((ended.reason, said.text.as_str(), said.tries.len()), (reason, text, 1));
        }
        assert_eq!(w.asked(0), 1, "{reason}: asked by the first delivery alone");
        let Some(dedupe::SlotState::Stored { value }) = state(&w.memory).map(|s| s.state) else {
            panic!("stored")
        };
        let nobody = world_of(w.memory.clone(), vec![]).await;
        let found = nobody.call_with(&admitted(&w.memory, 3), Some(&Kept { value, times: 0 })).await;
        assert!(matches!(found, Called::Person { .. }), "found at admission as well: {found:?}");
    }
}

/// Says more than the bound of these tests, 100,000 bytes, and does not end by itself.
fn endless() -> Reply {
    let begins = br#"data: {"choices":[{"delta":{"content":"{\"a"}}]}"#;
    let delta = json!({ "choices": [{ "delta": { "content": "xyz".repeat(3_000) } }] });
    let more = format!("data: {delta}\n\n").into_bytes();
    Reply::Drip(vec![[&begins[..], b"\n\n"].concat()], Duration::from_micros(10), more)
}

#[tokio::test]
async fn p7_a_model_whose_answers_do_not_end_is_left_for_the_next_and_its_breaker_counts_it() {
    let w = world(vec![vec![endless()], vec![says("spare")]], Memory::default()).await;
    for n in 1..=6 {
        *w.memory.entry.lock().unwrap() = None;
        let got = answer(w.call(&admitted(&w.memory, 1)).await);
        assert_eq!((got.text.as_str(), got.position), ("spare", 1));
        let tries: Vec<(&str, bool)> = got.tries.iter().map(|t| (t.class.as_str(), t.lost)).collect();
        let (failed, ok) = (("oversized", true), ("ok", false));
        assert_eq!(tries, if n <= 5 { vec![failed, ok] } else { vec![ok] }, "task {n}");
    }
    let view = &w.models.view()[0];
    assert_eq!((view.failed, view.state), (5, "open"), "a run of five opens it");
    assert_eq!((w.asked(0), w.asked(1)), (5, 6));
}

#[tokio::test]
async fn p3_an_answer_without_end_goes_to_a_person_by_its_beginning_and_is_not_bought_again() {
    let w = world(vec![vec![endless()], vec![endless()]], Memory::default()).await;
    for nonce in 1..=2 {
        let Called::Person { ended, said } = w.call(&admitted(&w.memory, nonce)).await else {
            panic!("a person")
        };
        assert_eq!((ended.reason, said.model_name.as_str()), (Reason::AnswerCut, "model-0"));
        assert!(ended.detail.contains("did not end within 100000 bytes"), "{}", ended.detail);
        assert!(said.text.starts_with(r#"{"axyzxyz"#), "{}", said.text);
        let tries: Vec<&str> = said.tries.iter().map(|t| t.class.as_str()).collect();
        assert_eq!(tries, ["oversized", "oversized"], "every try that was bought stays told");
    }
    assert_eq!((w.asked(0), w.asked(1)), (1, 1), "asked by the first delivery alone");
    let Some(dedupe::SlotState::Stored { value }) = state(&w.memory).map(|s| s.state) else {
        panic!("stored")
    };
    assert!(value.len() < 8 * 1024, "{} bytes lie in the slot", value.len());
}

#[tokio::test]
async fn p3_a_reply_that_is_one_endless_line_is_bounded_stored_and_not_bought_again() {
    let line = Reply::Drip(vec![], Duration::from_micros(10), vec![b'x'; 1 << 20]);
    let w = world(vec![vec![line]], Memory::default()).await;
    for nonce in 1..=2 {
        let Called::Person { ended, said } = w.call(&admitted(&w.memory, nonce)).await else {
            panic!("a person")
        };
        assert_eq!((ended.reason, said.text.as_str()), (Reason::AnswerCut, ""));
        assert!(ended.detail.contains("a line of the stream is longer than"), "{}", ended.detail);
    }
    assert_eq!((w.asked(0), w.models.view()[0].failed), (1, 1));
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

/// Nobody but the process of the last admission lives.
fn killed(memory: &Memory) {
    let mut entry = memory.entry.lock().unwrap();
    for slot in entry.as_mut().unwrap().slots.values_mut() {
        if let dedupe::SlotState::Started { instance, .. } = &mut slot.state {
            *instance = Instance(7);
        }
    }
}

fn state(memory: &Memory) -> Option<dedupe::SlotEntry> {
    let entry = memory.entry.lock().unwrap().clone().unwrap();
    entry.slots.get(&SlotName("answer.r0#1".into())).cloned()
}

/// Starts the slot as a call would, and dies.
async fn started_and_died(memory: &Memory, nonce: u128) {
    let slot = Slot { name: SlotName("answer.r0#1".into()), kind: SlotKind::Call };
    let claim = admitted(memory, nonce);
    assert!(matches!(memory.start(&claim, &slot, Duration::from_secs(9)).await, Ok(Started::Go { .. })));
    killed(memory);
}

#[tokio::test]
async fn p3_every_repeat_of_a_slot_is_counted_in_its_answer_over_parks_and_kills() {
    let capped = Reply::Status(402, "{}", vec![]);
    let w = world(vec![vec![says("one")]], Memory::default()).await;
    started_and_died(&w.memory, 1).await;
    let parked = world_of(w.memory.clone(), vec![vec![capped]]).await;
    assert!(matches!(parked.call(&admitted(&w.memory, 2)).await, Called::Park { .. }));
    let got = answer(w.call(&admitted(&w.memory, 3)).await);
    assert_eq!((got.repeats, w.asked(0)), (1, 1), "the death before the park is not forgotten");
}

#[test]
fn p3_an_answer_from_before_a_repeat_tells_of_the_repeat() {
    let first = Answer::new("yes".to_owned(), vec![], Timestamp::now());
    // Granted here, or to somebody else who published nothing: the slot counts both.
    for (granted, times, told) in [(2, 0, 2), (0, 2, 2), (0, 0, 0)] {
        let mut at = Progress::new(1);
        at.repeats = granted;
        let kept = Kept { value: first.encode(), times };
        assert_eq!(answer(stored(&kept, &mut at)).repeats, told);
    }
    let mut at = Progress::new(1);
    let later = Kept { value: Answer { repeats: 3, ..first }.encode(), times: 0 };
    assert_eq!(answer(stored(&later, &mut at)).repeats, 3);
}

#[tokio::test]
async fn after_two_deaths_a_task_runs_alone_and_after_five_it_is_buried() {
    let w = world(vec![vec![says("one")]], Memory::default()).await;
    for n in 1..=2 {
        started_and_died(&w.memory, n).await;
    }
    let together = w.models.alone.read().await;
    let claim = admitted(&w.memory, 3);
    let waits = tokio::time::timeout(Duration::from_millis(100), w.call(&claim)).await;
    assert!(waits.is_err(), "another call is still under way here");
    assert_eq!(w.asked(0), 0);
    drop(together);
    assert_eq!(answer(w.call(&claim).await).text, "one");

    let w = world(vec![vec![says("one")]], Memory::default()).await;
    for n in 1..=6 {
        started_and_died(&w.memory, n).await;
    }
    let Called::Dead { reason, .. } = w.call(&admitted(&w.memory, 7)).await else { panic!("buried") };
    assert_eq!((reason, w.asked(0)), (Reason::CrashesWorker, 0));
}

#[tokio::test]
async fn p3_an_answer_that_comes_after_the_caller_left_is_stored_all_the_same() {
    let w = world(
        vec![vec![Reply::After(Duration::from_millis(150), Box::new(says("late")))]],
        Memory::default(),
    )
    .await;
    let called = w.call_and_leave(Duration::from_millis(40)).await;
    assert_eq!(answer(called).text, "late");
    assert!(matches!(state(&w.memory).unwrap().state, dedupe::SlotState::Stored { .. }));
}

#[tokio::test]
async fn p3_a_request_whose_end_nobody_has_heard_is_counted_when_its_caller_has_left() {
    let w = world(vec![vec![Reply::ThenSilence(vec![]), says("again")]], Memory::default()).await;
    let called = w.call_and_leave(Duration::from_millis(40)).await;
    assert!(matches!(called, Called::Cancelled));
    let left = state(&w.memory).unwrap();
    assert_eq!((left.state, left.times), (dedupe::SlotState::Free, 1));
    let again = answer(w.call(&admitted(&w.memory, 2)).await);
    assert_eq!((again.text.as_str(), again.repeats, w.asked(0)), ("again", 1, 2));
}

#[tokio::test]
async fn who_leaves_while_waiting_gives_back_what_was_not_sent() {
    let slow = Reply::Status(429, "{}", vec![("retry-after", "4")]);
    let w = world(vec![vec![slow]], Memory::default()).await;
    let called = w.call_and_leave(Duration::from_millis(100)).await;
    assert!(matches!(called, Called::Cancelled));
    assert_eq!(state(&w.memory), None);
    assert_eq!((w.asked(0), w.models.view()[0].failed), (1, 1));
}

#[tokio::test]
async fn an_answer_found_at_admission_needs_no_model_and_no_ledger() {
    let w = world(vec![vec![says("one")]], Memory::default()).await;
    let bought = Kept { value: answer(w.call(&admitted(&w.memory, 1)).await).encode(), times: 0 };
    let claim = admitted(&w.memory, 2);
    *w.memory.entry.lock().unwrap() = None;
    let nobody = world_of(w.memory.clone(), vec![]).await;
    let got = answer(nobody.call_with(&claim, Some(&bought)).await);
    assert_eq!(got.text, "one");
}

#[tokio::test]
async fn a_call_without_time_left_is_not_made() {
    let w = world(vec![vec![says("one")]], Memory::default()).await;
    let claim = admitted(&w.memory, 1);
    let soon = Timestamp::now().plus(Duration::from_millis(700));
    let Called::Dead { reason, .. } = w.call_until(&claim, &CancellationToken::new(), Some(soon)).await
    else {
        panic!("dead")
    };
    assert_eq!((reason, w.asked(0)), (Reason::DeadlinePassed, 0));
}

#[tokio::test]
async fn a_deadline_that_cuts_a_call_short_does_not_count_against_the_model() {
    let w =
        world(vec![vec![Reply::After(Duration::from_secs(5), Box::new(says("late")))]], Memory::default())
            .await;
    let claim = admitted(&w.memory, 1);
    let soon = Timestamp::now().plus(Duration::from_millis(900));
    let called = w.call_until(&claim, &CancellationToken::new(), Some(soon)).await;
    let Called::Dead { reason, tries, .. } = called else { panic!("dead: {called:?}") };
    assert_eq!((reason, tries[0].class.as_str()), (Reason::DeadlinePassed, "timeout"));
    assert_eq!(w.models.view()[0].failed, 0);
}

#[tokio::test]
async fn p7_a_model_that_asked_to_wait_is_left_alone_by_every_task() {
    let limited = Reply::Status(429, "{}", vec![("retry-after", "60")]);
    let w = world(vec![vec![limited], vec![says("spare")]], Memory::default()).await;
    assert_eq!(answer(w.call(&admitted(&w.memory, 1)).await).model_name, "model-1");
    let next = world_of(Arc::default(), vec![]).await;
    let next = World { models: w.models, lineup: w.lineup, servers: w.servers, ..next };
    assert_eq!(answer(next.call(&admitted(&next.memory, 2)).await).model_name, "model-1");
    assert_eq!((next.asked(0), next.asked(1)), (1, 2), "its hint is heard once and kept by all");
    let view = &next.models.view()[0];
    assert_eq!((view.state, view.why.as_deref()), ("closed", Some("its provider asked to wait")));
}

#[tokio::test]
async fn p7_calls_to_a_dead_model_stop_and_the_spare_answers_everything() {
    let w = world(vec![vec![Reply::Status(500, "{}", vec![])], vec![says("spare")]], Memory::default()).await;
    let mut changes = w.models.changes();
    for _ in 0..15 {
        *w.memory.entry.lock().unwrap() = None;
        assert_eq!(answer(w.call(&admitted(&w.memory, 1)).await).text, "spare");
    }
    assert_eq!(w.asked(0), 5, "a run of five opens the breaker, and no probe is due within the test");
    assert_eq!(w.asked(1), 15);
    let change = changes.try_recv().unwrap();
    assert_eq!((change.model.as_str(), change.to), ("model-0", "open"));
    let served = w.models.availability(&w.lineup);
    assert_eq!(served, crate::infer::Availability::Serves { model: "model-1".into(), first: false });
}

#[tokio::test]
async fn a_task_too_long_for_a_model_is_only_given_to_one_it_fits() {
    let w = world(vec![vec![says("small")], vec![says("large")]], Memory::default()).await;
    let mut small = crate::infer::tests::plain("model-0", &w.servers[0].url, Api::OpenAi);
    small.window_tokens = Some(1);
    let lineup = vec![Arc::new(small), w.lineup[1].clone()];
    let models = Models::new(&lineup, 100_000).unwrap();
    let w = World { models, lineup, ..w };
    assert_eq!(answer(w.call(&admitted(&w.memory, 1)).await).text, "large");
    assert_eq!(w.asked(0), 0, "checked before use");
}

#[tokio::test]
async fn one_allowance_bounds_the_tries_over_all_models() {
    let down = || vec![Reply::Status(529, "{}", vec![])];
    let w = world(vec![down(), down(), down()], Memory::default()).await;
    let Called::Park { tries, .. } = w.call(&admitted(&w.memory, 1)).await else { panic!("parks") };
    assert_eq!(tries.len(), 6);
    assert_eq!((w.asked(0), w.asked(1), w.asked(2)), (3, 3, 0));
}

#[tokio::test]
async fn a_permit_of_a_call_that_was_dropped_is_given_back() {
    let w = world(vec![vec![Reply::ThenSilence(vec![])]], Memory::default()).await;
    let claim = admitted(&w.memory, 1);
    let dropped = tokio::time::timeout(Duration::from_millis(50), w.call(&claim)).await;
    assert!(dropped.is_err());
    let view = &w.models.view()[0];
    assert_eq!((view.calls, view.failed, view.state), (0, 0, "closed"), "neither a success nor a failure");
}

#[tokio::test]
async fn p7_time_lost_to_silent_models_ends_the_hop_and_is_not_charged_to_the_task() {
    let silent = || vec![Reply::ThenSilence(vec![])];
    let w = world(vec![silent(), silent(), vec![says("never asked")]], Memory::default()).await;
    // Each says nothing for 300 ms; after the second there is no time left in this hop.
    let time = RESERVE + Duration::from_millis(450);
    let mut allowance = Allowance { time, ..plenty() };
    let Called::Park { tries, .. } = w.call_within(&admitted(&w.memory, 1), &mut allowance).await else {
        panic!("parks: nothing of this is the task's doing")
    };
    assert_eq!(tries.iter().map(|t| (t.lost, t.charged_ms())).collect::<Vec<_>>(), [(true, 0), (true, 0)]);
    assert_eq!((allowance.time, w.asked(2)), (time, 0));
}

#[tokio::test]
async fn time_of_an_answer_that_the_tasks_own_limit_ends_is_charged_to_the_task() {
    let drip = br#"data: {"choices":[{"delta":{"content":"x"}}]}"#;
    let drops = Reply::Drip(vec![], Duration::from_millis(50), [&drip[..], b"\n\n"].concat());
    let w = world(vec![vec![drops], vec![says("never asked")]], Memory::default()).await;
    let mut allowance = Allowance { time: RESERVE + Duration::from_millis(300), ..plenty() };
    let Called::Dead { reason, tries, .. } = w.call_within(&admitted(&w.memory, 1), &mut allowance).await
    else {
        panic!("dead")
    };
    assert_eq!((reason, tries.len(), tries[0].lost), (Reason::AllowanceSpent, 1, false));
}

#[test]
fn tries_are_summed_with_what_failed_ones_cost_and_one_unknown_price_makes_the_sum_unknown() {
    let model = crate::infer::tests::plain("m", "http://x/v1", Api::OpenAi);
    let priced = Model { price: Some(crate::infer::Price { input: 1e6, output: 2e6 }), ..model };
    let broke = Err(Failure { tokens: (7, 1), ..Failure::new(Class::Malformed, "") });
    let down = Err(Failure::new(Class::Overloaded, ""));
    let whole = Ok(Stream { input_tokens: 7, output_tokens: 3, ..Stream::default() });
    let mut tries: Vec<TryNote> = [&broke, &down, &whole]
        .into_iter()
        .map(|ended| note(&priced, ended, Timestamp(1), Duration::ZERO, Duration::ZERO))
        .collect();
    assert_eq!(Usage::of(&tries), Usage { input_tokens: 14, output_tokens: 4, cost: Some(22.0) });
    tries[0].cost = None;
    assert_eq!(Usage::of(&tries).cost, None);
}

#[tokio::test]
async fn p7_a_model_whose_time_is_up_may_be_tried_and_serves_only_once_it_has_answered() {
    let capped = Reply::Status(402, "{}", vec![("retry-after", "1")]);
    let w = world(vec![vec![capped, says("back")]], Memory::default()).await;
    let claim = admitted(&w.memory, 1);
    assert!(matches!(w.call(&claim).await, Called::Park { .. }));
    assert!(matches!(w.models.availability(&w.lineup), crate::infer::Availability::None { .. }));
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let may = w.models.availability(&w.lineup);
    assert!(matches!(may, crate::infer::Availability::MayBeTried { .. }), "{may:?}");
    assert_eq!(answer(w.call(&claim).await).text, "back");
    let served = w.models.availability(&w.lineup);
    assert_eq!(served, crate::infer::Availability::Serves { model: "model-0".into(), first: true });
}

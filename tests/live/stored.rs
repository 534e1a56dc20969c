//! What the scripts write, byte for byte, and for how long it stays.

use crate::rig::redis_server::{Server, WINDOW, prefix};
use crate::sequence::place;
use bytes::Bytes;
use redis::AsyncCommands;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidegate::dedupe::{
    Admission, Claim, Fence, Instance, Nonce, OpenPhase, Slot, SlotKind, SlotName, Started,
};
use tidegate::engine::distributed::client::{Broken, Connection, Sent};
use tidegate::engine::distributed::redis::RedisConnection;
use tidegate::engine::distributed::redis::written::{self, Keys};
use tidegate::engine::script::{LedgerCall, LedgerReply};
use tidegate::engine::{Delivery, Lease, Mark};
use tidegate::fingerprint;
use tidegate::outcome::OutcomeKind;
use tidegate::task::{Headers, Origin, PrintRule, Record, ScopedKey, Timestamp, Token};

pub(crate) const ME: Instance = Instance(1);
pub(crate) const NONCE: Nonce = Nonce(2);
const NOW: Timestamp = Timestamp(1_795_500_000_000);

pub(crate) fn token(key: &str) -> Token {
    let payload = Bytes::from_static(br#"{"id":1}"#);
    Token {
        key: ScopedKey::new("", "ticket", key),
        generation: 0,
        origin: Origin { position: place("tasks.ticket", 7), stamp: Timestamp(-5) },
        hop: 0,
        print: fingerprint::fingerprint(&PrintRule::Whole, &payload).unwrap(),
        proof: None,
        payload,
    }
}

pub(crate) fn admit(token: &Token) -> LedgerCall {
    let position = token.origin.position.clone();
    let record = Record {
        position: position.clone(),
        stamp: token.origin.stamp,
        key: None,
        value: None,
        headers: Headers::default(),
        not_before: None,
    };
    let lease = Lease { at: position.at, epoch: 1 };
    let delivery = Delivery { lease, record: Arc::new(record), nonce: NONCE };
    LedgerCall::Admit { delivery, token: token.clone(), decider: None }
}

pub(crate) fn slot(name: &str, kind: SlotKind) -> Slot {
    Slot { name: SlotName(name.into()), kind }
}

pub(crate) fn store(token: &Token, name: &str, value: &str) -> LedgerCall {
    let value = Bytes::copy_from_slice(value.as_bytes());
    LedgerCall::Store { token: token.clone(), slot: slot(name, SlotKind::Call), value }
}

pub(crate) fn close(token: &Token) -> LedgerCall {
    let mark = Mark::Close { token: token.clone(), outcome: OutcomeKind::Result, output: 0 };
    LedgerCall::Mark { mark, at: Some(place("results", 9)) }
}

pub(crate) async fn asked(connection: &RedisConnection, call: LedgerCall) -> Result<LedgerReply, Broken> {
    connection.call(ME, Sent { call, settled: true }).await
}

pub(crate) async fn admitted(connection: &RedisConnection, token: &Token) -> Claim {
    match asked(connection, admit(token)).await.unwrap() {
        LedgerReply::Admission(a) => match *a {
            Admission::Fresh(claim) | Admission::Resumed(claim, _) => claim,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

async fn written_at(plain: &mut redis::aio::MultiplexedConnection, key: &str) -> Vec<(String, String)> {
    let fields: BTreeMap<String, String> = plain.hgetall(key).await.unwrap();
    fields.into_iter().collect()
}

fn texts(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The lines never change while the version stays 1: processes of two builds share a ledger.
#[tokio::test]
async fn version_1_is_what_the_scripts_write() {
    let (server, prefix) = (Server::any(), prefix());
    let connection = server.store(&prefix).reach().await.unwrap();
    let mut plain = server.plain().await;
    let token = token("T 1*");
    let key = Keys::new(&prefix).unwrap().claim(&written::scope(&token.key));
    assert_eq!(key, format!("{prefix}:claim:/ticket/T%201%2A"));
    let at = |call, fence| connection.call_at(ME, Sent { call, settled: true }, NOW, Fence(fence));

    at(admit(&token), 1 << 100).await.unwrap();
    let claim = Claim { fence: Fence(1 << 100), ..admitted_as(&token) };
    for (name, kind) in [("ask", SlotKind::Call), ("apply", SlotKind::Effect), ("use", SlotKind::Effect)] {
        let deadline = std::time::Duration::from_secs(60);
        let start = LedgerCall::Start { claim: claim.clone(), slot: slot(name, kind), deadline };
        if name != "apply" {
            let told = at(start, 0).await.unwrap();
            assert!(matches!(told, LedgerReply::Started(Started::Go { .. })), "{told:?}");
        }
    }
    at(store(&token, "ask", "an answer\n"), 0).await.unwrap();
    at(LedgerCall::Bar { claim, slot: slot("apply", SlotKind::Effect) }, 0).await.unwrap();
    let digest: String = token.print.digest.iter().map(|b| format!("{b:02x}")).collect();
    let head = |fence, phase, changed, hop| {
        vec![
            ("c", changed),
            ("d", digest.as_str()),
            ("f", fence),
            ("g", "0"),
            ("h", hop),
            ("o", "tasks.ticket/3/7@-5"),
            ("p", phase),
            ("r", "whole"),
            ("s", "1795500000000"),
            ("v", "1"),
        ]
    };
    let started =
        "1 started 0 0 00000000000000000000000000000001 00000000000000000000000000000002 1795500070000 0";
    let slots = [("#apply", "1 barred 0 0"), ("#ask", "1 stored 0 0 an answer\n"), ("#use", started)];
    let open = head("00000010000000000000000000000000", "open", "1795500000000", "0");
    assert_eq!(written_at(&mut plain, &key).await, texts(&[&slots[..], &open[..]].concat()));

    let mark = Mark::Moved { token: token.clone(), hop: 1, phase: OpenPhase::Waiting };
    at(LedgerCall::Mark { mark, at: None }, 3).await.unwrap();
    let waiting = head("00000000000000000000000000000003", "waiting", "1795500000000", "1");
    assert_eq!(written_at(&mut plain, &key).await, texts(&[&slots[1..], &waiting[..]].concat()));

    at(close(&token), 4).await.unwrap();
    let mut closed = head("00000000000000000000000000000004", "closed", "1795500000000", "1");
    closed.extend([("at", "results/3/9"), ("k", "result")]);
    closed.sort_unstable();
    assert_eq!(written_at(&mut plain, &key).await, texts(&closed));
}

/// The rest of the same version.
#[tokio::test]
async fn version_1_is_what_deaths_releases_decisions_and_refusals_leave() {
    const ID: &str = "0000000000000000000000000000000";
    let (server, prefix) = (Server::any(), prefix());
    let connection = server.store(&prefix).reach().await.unwrap();
    let (keys, mut plain) = (Keys::new(&prefix).unwrap(), server.plain().await);
    let token = token("k");
    let scope = written::scope(&token.key);
    let key = keys.claim(&scope);
    let at = |who, call| connection.call_at(Instance(who), Sent { call, settled: true }, NOW, Fence(7));
    let start = |nonce, name, kind| {
        let claim = Claim { fence: Fence(7), nonce: Nonce(nonce), ..admitted_as(&token) };
        let deadline = std::time::Duration::from_secs(60);
        LedgerCall::Start { claim, slot: slot(name, kind), deadline }
    };
    let mut slots = async || -> Vec<(String, String)> {
        let all = written_at(&mut plain, &key).await;
        all.into_iter().filter(|(name, _)| name.starts_with('#')).collect()
    };

    at(1, admit(&token)).await.unwrap();
    // Process 1 has no heartbeat, so it counts as dead for process 2.
    for (who, nonce) in [(1, 2), (2, 5)] {
        at(who, start(nonce, "ask", SlotKind::Call)).await.unwrap();
        at(who, start(nonce, "use", SlotKind::Effect)).await.unwrap();
    }
    let (again, doubted) = (
        format!("1 started 1 1 {ID}2 {ID}5 1795500070000 0"),
        format!("1 started 0 1 {ID}2 {ID}5 1795500070000 1"),
    );
    assert_eq!(slots().await, texts(&[("#ask", &again), ("#use", &doubted)]));

    at(2, LedgerCall::Release { nonce: Nonce(5), key: token.key.clone(), unheard: 2 }).await.unwrap();
    let nobodys = format!("1 started 0 1 {ID}0 {ID}0 1795500070000 1");
    assert_eq!(slots().await, texts(&[("#ask", "1 free 3 1"), ("#use", &nobodys)]));

    let mark = Mark::Moved { token: token.clone(), hop: 1, phase: OpenPhase::Waiting };
    at(1, LedgerCall::Mark { mark, at: None }).await.unwrap();
    let LedgerCall::Admit { delivery, .. } = admit(&token) else { unreachable!() };
    let next = Token { hop: 1, ..token.clone() };
    let decided = Some(place("review.decisions", 4));
    at(1, LedgerCall::Admit { delivery: delivery.clone(), token: next, decider: decided }).await.unwrap();
    let head: BTreeMap<String, String> = written_at(&mut plain, &key).await.into_iter().collect();
    assert_eq!((&*head["by"], &*head["p"], &*head["h"]), ("review.decisions/3/4", "waiting", "1"));

    let other = Token { origin: Origin { stamp: Timestamp(6), ..token.origin.clone() }, ..stranger(&token) };
    at(1, LedgerCall::Refuse { delivery, token: other.clone() }).await.unwrap();
    connection.beat(ME).await.unwrap();
    let told: (String, String) =
        plain.mget(&[keys.refused(&scope, &other.origin), keys.beat(ME)]).await.unwrap();
    assert_eq!(told, ("1795500000000".to_owned(), "1".to_owned()));
}

fn admitted_as(token: &Token) -> Claim {
    let LedgerCall::Admit { delivery, .. } = admit(token) else { unreachable!() };
    Claim { lease: delivery.lease, nonce: NONCE, token: token.clone(), fence: Fence(0) }
}

#[tokio::test]
async fn p1_what_is_open_never_expires_and_what_ended_does_after_the_window() {
    let (server, prefix) = (Server::any(), prefix());
    let connection = server.store(&prefix).reach().await.unwrap();
    let (keys, mut plain) = (Keys::new(&prefix).unwrap(), server.plain().await);
    let token = token("k");
    let scope = written::scope(&token.key);
    let window = i64::try_from(WINDOW.as_millis()).unwrap();

    let before = Timestamp::now();
    admitted(&connection, &token).await;
    assert_eq!(plain.pttl::<_, i64>(keys.claim(&scope)).await.unwrap(), -1);
    let view = connection.look(vec![token.key.clone()]).await.unwrap().remove(0).unwrap();
    // By the server's clock, which is this machine's, or nearly so.
    let apart = before.until(view.since).max(view.since.until(before));
    assert!(apart < std::time::Duration::from_secs(60), "admitted at {:?}, asked at {before:?}", view.since);

    let other =
        Token { origin: Origin { stamp: Timestamp(6), ..token.origin.clone() }, hop: 0, ..stranger(&token) };
    let LedgerCall::Admit { delivery, .. } = admit(&other) else { unreachable!() };
    asked(&connection, LedgerCall::Refuse { delivery, token: other.clone() }).await.unwrap();
    asked(&connection, close(&token)).await.unwrap();
    for key in [keys.claim(&scope), keys.refused(&scope, &other.origin)] {
        let left: i64 = plain.pttl(&key).await.unwrap();
        assert!((window - 60_000..=window).contains(&left), "{key} expires in {left} ms");
    }
    // A new life of the key is open again, and stays.
    let redriven = Token { generation: 1, proof: Some(place("results", 9)), ..other };
    let redriven = Token { print: token.print.clone(), payload: token.payload.clone(), ..redriven };
    plain.del::<_, ()>(keys.refused(&scope, &redriven.origin)).await.unwrap();
    admitted(&connection, &redriven).await;
    assert_eq!(plain.pttl::<_, i64>(keys.claim(&scope)).await.unwrap(), -1);

    connection.beat(ME).await.unwrap();
    let left: i64 = plain.pttl(keys.beat(ME)).await.unwrap();
    assert!((1..=10_000).contains(&left), "a heartbeat lasts {left} ms");
}

fn stranger(token: &Token) -> Token {
    let payload = Bytes::from_static(br#"{"id":2}"#);
    let print = fingerprint::fingerprint(&PrintRule::Whole, &payload).unwrap();
    Token { payload, print, ..token.clone() }
}

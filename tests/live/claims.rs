//! The scripts answer as the rules do, and leave what the rules leave: random sequences run against both.

use crate::rig::redis_server::{Server, WINDOW, prefix};
use crate::rig::{left_out, number};
use crate::sequence::{Next, Sequence, Step};
use futures::StreamExt;
use redis::AsyncCommands;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;
use tidegate::dedupe::{Admission, Bar, ClaimView, Entry, Silence, Standing, Started};
use tidegate::engine::distributed::client::{Connection, Sent};
use tidegate::engine::distributed::redis::RedisConnection;
use tidegate::engine::distributed::redis::written::{self, Keys};
use tidegate::engine::script::{LedgerCall, LedgerReply};
use tidegate::task::{Origin, ScopedKey};

const CALLS: usize = 40;
/// Sequences that run at once: enough to share round trips.
const AT_ONCE: usize = 32;

/// Every kind of answer there is; each must be seen, or the sequences are blind.
const ANSWERS: [&str; 28] = [
    "fresh",
    "resumed",
    "resumed with answers",
    "done",
    "moved",
    "duplicate",
    "older",
    "conflict",
    "refused",
    "told",
    "invalid",
    "go",
    "go again",
    "go after a death",
    "stored already",
    "barred already",
    "wait",
    "unknown",
    "start stale",
    "barred",
    "busy",
    "bar stale",
    "own stands",
    "own stale",
    "first stands",
    "first stale",
    "told of",
    "asked for the rule",
];

struct Both {
    connection: RedisConnection,
    plain: redis::aio::MultiplexedConnection,
    keys: Keys,
    seen: Mutex<BTreeMap<&'static str, u64>>,
}

#[tokio::test]
async fn p1_the_scripts_answer_and_leave_what_the_rules_do() {
    let seed = number("TIDEGATE_SEED", 1);
    let sequences = number("TIDEGATE_SEQUENCES", 2_000);
    println!("TIDEGATE_SEED={seed} TIDEGATE_SEQUENCES={sequences} for this run");
    let (server, prefix) = (Server::any(), prefix());
    let both = Both {
        connection: server.store(&prefix).reach().await.unwrap(),
        plain: server.plain().await,
        keys: Keys::new(&prefix).unwrap(),
        seen: Mutex::default(),
    };
    let began = Instant::now();
    let run = |n| follow(&both, seed, n);
    let mut left: Vec<(ScopedKey, Option<Entry>)> =
        futures::stream::iter(0..sequences).map(run).buffer_unordered(AT_ONCE).collect().await;
    println!("{sequences} sequences of {CALLS} calls in {:.1?}", began.elapsed());

    left.sort_by_key(|(key, _)| written::scope(key));
    what_is_listed_is_what_is_open(&both.connection, &left).await;
    let seen = both.seen.into_inner().unwrap();
    println!("{seen:?}");
    if sequences >= 1_000 {
        let unseen: Vec<_> = ANSWERS.iter().filter(|a| seen.get(*a).is_none_or(|n| *n < 10)).collect();
        assert!(unseen.is_empty(), "hardly ever answered: {unseen:?}");
    } else {
        left_out("whether every kind of answer was seen", "the sequences are too few to tell");
    }
}

/// One sequence against both; answers what is left of its scope.
async fn follow(both: &Both, seed: u64, number: u64) -> (ScopedKey, Option<Entry>) {
    let mut sequence = Sequence::new(seed, number, WINDOW);
    let claim = both.keys.claim(&written::scope(&sequence.key));
    let mut plain = both.plain.clone();
    let mut calls = 0;
    let mut story: Vec<(Step, LedgerReply, Option<Entry>)> = Vec::new();
    while calls < CALLS {
        match sequence.next() {
            Next::Beats(instance) => {
                // Alive for as long as the sequence likes: it has its own time.
                let (): () = plain.set_ex(both.keys.beat(instance), 1, 600).await.unwrap();
                sequence.memory.alive.insert(instance);
            }
            Next::Lapses(instance) => {
                let _: () = plain.del(both.keys.beat(instance)).await.unwrap();
                sequence.memory.alive.remove(&instance);
            }
            Next::Call(step) => {
                calls += 1;
                let Step { instance, settled, now, fence, call } = *step.clone();
                let before = sequence.memory.entry.clone();
                let told =
                    both.connection.call_at(instance, Sent { call, settled }, now, fence).await.unwrap();
                let expected = sequence.answer(&step);
                let fields: Vec<(Vec<u8>, Vec<u8>)> = plain.hgetall(&claim).await.unwrap();
                let entry = written::read(fields).unwrap();
                let same = format!("{told:?}") == format!("{expected:?}") && entry == sequence.memory.entry;
                story.push((*step.clone(), expected, sequence.memory.entry.clone()));
                assert!(
                    same,
                    "TIDEGATE_SEED={seed}, sequence {number}, call {calls}: the script answered\n{told:?}\nand left\n\
                     {entry:?}\nAll that was called, what the rules answered and left:\n{story:#?}",
                );
                refused_is_as_remembered(both, &sequence, &step).await;
                let mut seen = both.seen.lock().unwrap();
                let asked = asks_for_the_rule(before.as_ref(), &step);
                for name in [name_of(&told, &step)].into_iter().chain(asked) {
                    *seen.entry(name).or_default() += 1;
                }
            }
        }
    }
    (sequence.key, sequence.memory.entry)
}

async fn refused_is_as_remembered(both: &Both, sequence: &Sequence, step: &Step) {
    let (LedgerCall::Admit { token, .. } | LedgerCall::Refuse { token, .. }) = &step.call else { return };
    let origin: &Origin = &token.origin;
    let key = both.keys.refused(&written::scope(&sequence.key), origin);
    let at: Option<i64> = both.plain.clone().get(key).await.unwrap();
    assert_eq!(at, sequence.memory.refused.get(origin).map(|at| at.0), "{:?} refused when?", token.origin);
}

/// The second round trip was needed.
fn asks_for_the_rule(before: Option<&Entry>, step: &Step) -> Option<&'static str> {
    let LedgerCall::Admit { token, .. } = &step.call else { return None };
    let e = before?;
    let strange = e.generation != token.generation || e.origin != token.origin;
    (strange && e.print.rule != token.print.rule).then_some("asked for the rule")
}

fn name_of(reply: &LedgerReply, step: &Step) -> &'static str {
    match reply {
        LedgerReply::Admission(admission) => match &**admission {
            Admission::Fresh(_) => "fresh",
            Admission::Resumed(_, slots) if slots.is_empty() => "resumed",
            Admission::Resumed(..) => "resumed with answers",
            Admission::Silent(Silence::Done { .. }) => "done",
            Admission::Silent(Silence::Moved) => "moved",
            Admission::Silent(Silence::Duplicate) => "duplicate",
            Admission::Silent(Silence::Older) => "older",
            Admission::Conflict => "conflict",
            Admission::Refused => "refused",
            Admission::Told(_) => "told",
            Admission::Invalid => "invalid",
        },
        LedgerReply::Started(started) => match started {
            Started::Go { deaths: 1.., .. } => "go after a death",
            Started::Go { repeat: true, .. } => "go again",
            Started::Go { .. } => "go",
            Started::Done(_) => "stored already",
            Started::Barred => "barred already",
            Started::Busy(_) => "wait",
            Started::Unknown => "unknown",
            Started::Stale => "start stale",
        },
        LedgerReply::Bar(Bar::Barred) => "barred",
        LedgerReply::Bar(Bar::Busy) => "busy",
        LedgerReply::Bar(Bar::Stale) => "bar stale",
        LedgerReply::Stored(kept, standing) => {
            let own = matches!(&step.call, LedgerCall::Store { value, .. } if *value == kept.value);
            match (own, standing) {
                (true, Standing::Stands) => "own stands",
                (true, Standing::Stale) => "own stale",
                (false, Standing::Stands) => "first stands",
                (false, Standing::Stale) => "first stale",
            }
        }
        LedgerReply::Done => "told of",
    }
}

/// `list` gives every open claim once, in order, in pages of any size; `look` gives the same.
async fn what_is_listed_is_what_is_open(connection: &RedisConnection, left: &[(ScopedKey, Option<Entry>)]) {
    let open: Vec<ClaimView> = left
        .iter()
        .filter_map(|(key, entry)| Some((key, entry.as_ref().filter(|e| !e.is_closed())?)))
        .map(|(key, entry)| entry.view(key.clone()))
        .collect();
    assert!(open.len() > left.len() / 10, "only {} are open", open.len());
    let mut listed = Vec::new();
    let mut after = None;
    for max in [1, 63, 64, 65, 100].into_iter().chain(std::iter::repeat(1_000)) {
        let page = connection.list(after, max).await.unwrap();
        after = page.last().map(|view| view.key.clone());
        let end = page.len() < max;
        listed.extend(page);
        if end {
            break;
        }
    }
    assert_eq!(listed, open);
    let keys = open.iter().map(|view| view.key.clone()).chain([ScopedKey::new("", "no", "such")]);
    let looked = connection.look(keys.collect()).await.unwrap();
    assert_eq!(looked, open.into_iter().map(Some).chain([None]).collect::<Vec<_>>());
}

//! The ledger made weak: what is held and owed arrives, losses are real, leases move.

use super::super::simulated::Simulated;
use super::super::*;
use super::{done, next_record, output, quick, specs, token};
use crate::dedupe::{Admission, Phase, Slot, SlotKind, SlotName};
use crate::engine::{Commit, Delivery, Event};
use crate::task::Topic;
use std::time::{Duration, Instant};

fn weak(weak: Weak) -> EmbeddedSettings {
    EmbeddedSettings { weak: Some(weak), ..quick(1 << 18) }
}

/// Nothing goes wrong by itself.
pub(super) fn tame() -> Weak {
    Weak {
        marks_lost: 0.0,
        mark_late: Duration::ZERO,
        replies_lost: 0.0,
        reply_late: Duration::ZERO,
        away_every: None,
        revoke_every: None,
        lease: Duration::ZERO,
        ..Weak::new(1)
    }
}

async fn admitted(engine: &Engine, d: &Delivery) -> crate::dedupe::Claim {
    for _ in 0..500 {
        match engine.ledger.admit(d, &token(d), None).await {
            Ok(Admission::Fresh(claim) | Admission::Resumed(claim, _)) => return claim,
            Ok(other) => panic!("{other:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
    panic!("never admitted");
}

async fn within(what: &str, mut is: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !is().await {
        assert!(Instant::now() < end, "not within 10 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marks_come_after_their_commit_and_may_be_lost() {
    for (lost, late) in [(0.0, Duration::from_millis(200)), (1.0, Duration::ZERO)] {
        let settings = weak(Weak { marks_lost: lost, mark_late: late, ..tame() });
        let engine = open(settings, specs(), Simulated::new()).unwrap();
        let mut group = engine.groups.join("worker", &[Topic::new("tasks")]);
        engine.log.append(vec![output("tasks", "a", "x")]).await.unwrap();
        let d = next_record(&mut group).await;
        admitted(&engine, &d).await;
        let commit = engine.commits.commit(done(&d, vec![output("results", "a", "r")])).await;
        assert!(matches!(commit, Commit::Visible(_)));
        let key = token(&d).key;
        let closed =
            async || matches!(engine.ledger.look(&key).await.unwrap().unwrap().phase, Phase::Closed { .. });
        if lost == 0.0 {
            within("the mark arrives", closed).await;
        } else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(!closed().await);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_an_answer_whose_reply_was_lost_or_that_met_an_outage_is_stored_all_the_same() {
    let away =
        Weak { away_every: Some(Duration::from_millis(60)), away_for: Duration::from_millis(80), ..tame() };
    for how in [Weak { replies_lost: 0.5, ..tame() }, away] {
        let engine = open(weak(how), specs(), Simulated::new()).unwrap();
        let mut group = engine.groups.join("worker", &[Topic::new("tasks")]);
        for n in 0..20 {
            engine.log.append(vec![output("tasks", &n.to_string(), "x")]).await.unwrap();
            let d = next_record(&mut group).await;
            let claim = admitted(&engine, &d).await;
            let slot = Slot { name: SlotName("ask".into()), kind: SlotKind::Call };
            // Whatever is answered, once.
            let _ = engine.journal.store(&claim, &slot, "bought".into()).await;
            within("the answer is stored", async || match engine.ledger.look(&claim.token.key).await {
                Ok(view) => view.is_some_and(|v| v.slots.iter().any(|s| s.state == "stored")),
                Err(_) => false,
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_goes_back_to_one_earlier_state_is_written_down_and_is_durable() {
    let disk = Simulated::new();
    let how = || Weak { forgets: true, ..tame() };
    let (engine, handle) = open_with_handle(weak(how()), specs(), disk.clone()).unwrap();
    let handle = forgetful(handle);
    let mut group = engine.groups.join("worker", &[Topic::new("tasks")]);
    let mut claims = Vec::new();
    // Which claim is written when; each loss ends what came before it.
    let steps = [None, Some(Loss::Remember), None, None, Some(Loss::Forget), Some(Loss::Forget)];
    let more = [None, Some(Loss::Remember), None, Some(Loss::Forget)];
    for step in steps.into_iter().chain(more) {
        if let Some(loss) = step {
            handle(loss).await;
            continue;
        }
        let key = claims.len().to_string();
        engine.log.append(vec![output("tasks", &key, "x")]).await.unwrap();
        let d = next_record(&mut group).await;
        claims.push(admitted(&engine, &d).await);
    }
    let there = async |engine: &Engine| {
        let mut there = Vec::new();
        for claim in &claims {
            there.push(engine.ledger.look(&claim.token.key).await.unwrap().is_some());
        }
        there
    };
    // 1 and 2 went with the first loss, nothing with the second, 4 with the third: not 3, which was
    // written since the loss before and remembered.
    assert_eq!(there(&engine).await, [true, false, false, true, false]);
    let noted = forgotten(&disk);
    let back = disk.cut(7);
    let engine = open(weak(how()), specs(), back).unwrap();
    assert_eq!(there(&engine).await, [true, false, false, true, false], "a loss is durable");
    assert_eq!(noted, ["1 copy/1", "1 copy/2", "3 copy/4"]);
}

/// Number of the loss and scope of what it took, as they were written down.
fn forgotten(disk: &Simulated) -> Vec<String> {
    let file = disk.open(std::path::Path::new("/simulated/data/forgotten.tsv")).unwrap();
    let mut text = vec![0; file.size().unwrap() as usize];
    file.read_at(0, &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    let line = |line: &str| {
        let parts: Vec<&str> = line.split('\t').collect();
        format!("{} {}", parts[0], parts[2])
    };
    text.lines().map(line).collect()
}

enum Loss {
    Remember,
    Forget,
}

/// The way to the writer that only the weak layer has.
fn forgetful(handle: Arc<Handle>) -> impl Fn(Loss) -> futures::future::BoxFuture<'static, ()> {
    move |loss| {
        let shared = handle.shared.clone();
        Box::pin(async move {
            match loss {
                Loss::Remember => shared.queue.push_own(super::super::queue::Command::Remember).unwrap(),
                Loss::Forget => {
                    let (reply, answer) = tokio::sync::oneshot::channel();
                    shared.queue.push_own(super::super::queue::Command::Forget { reply }).unwrap();
                    answer.await.unwrap();
                }
            }
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_lease_is_void_and_its_records_come_again_under_a_new_one() {
    let how = Weak { revoke_every: Some(Duration::from_millis(30)), ..tame() };
    let engine = open(weak(how), specs(), Simulated::new()).unwrap();
    let mut group = engine.groups.join("worker", &[Topic::new("tasks")]);
    let (mut revoked, mut void, mut visible) = (0, 0, std::collections::BTreeSet::new());
    let mut sent = 0;
    let end = Instant::now() + Duration::from_secs(20);
    while (visible.len() < sent || void == 0) && Instant::now() < end {
        // Until one of them was met by a revocation.
        if visible.len() == sent {
            let batch = (sent..sent + 10).map(|i| output("tasks", &i.to_string(), "x")).collect();
            sent += engine.log.append(batch).await.unwrap().len();
        }
        match tokio::time::timeout(Duration::from_millis(100), group.next(true)).await {
            Ok(Event::Revoked { .. }) => revoked += 1,
            Ok(Event::Record(d)) => {
                // Long enough that some leases are gone by then.
                tokio::time::sleep(Duration::from_millis(20)).await;
                match engine.commits.commit(done(&d, Vec::new())).await {
                    Commit::Void => void += 1,
                    Commit::Visible(_) => {
                        assert!(visible.insert(d.record.position.clone()), "completed twice")
                    }
                    other => panic!("{other:?}"),
                }
            }
            _ => {}
        }
    }
    assert_eq!(visible.len(), sent);
    assert!(revoked > 0 && void > 0, "{revoked} {void}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_no_room_is_handed_no_record_and_hears_all_the_same_that_a_lease_is_void() {
    let how = Weak { revoke_every: Some(Duration::from_millis(100)), ..tame() };
    let engine = open(weak(how), specs(), Simulated::new()).unwrap();
    let mut group = engine.groups.join("worker", &[Topic::new("tasks")]);
    engine.log.append(vec![output("tasks", "a", "x")]).await.unwrap();
    let first = next_record(&mut group).await;
    engine.log.append(vec![output("tasks", "b", "x")]).await.unwrap();
    // All is ready to be handed out; and the lease of the first is still revoked.
    let heard = async {
        loop {
            match group.next(false).await {
                Event::Record(d) => panic!("handed out without room: {}", d.record.position),
                Event::Revoked { lease } if lease == first.lease => return,
                _ => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), heard).await.expect("a revocation within 10 s");
    assert_eq!(engine.commits.commit(done(&first, Vec::new())).await, Commit::Void);
    // What was announced meanwhile is not lost: with room, both are handed out, the first under a new lease.
    let (mut again, mut other) = (false, false);
    while !(again && other) {
        let d = next_record(&mut group).await;
        let is_first = d.record.position == first.record.position;
        again |= is_first && d.lease.epoch > first.lease.epoch;
        other |= !is_first;
    }
}

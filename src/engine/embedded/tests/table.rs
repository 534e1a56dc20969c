//! Rows of the crash table, one by one: the power goes between two calls of the port, and the next
//! process finds what the row says.

use super::super::simulated::Simulated;
use super::super::*;
use super::{done, next_record, output, quick, quiet, specs, token};
use crate::dedupe::{Admission, Bar, Claim, Phase, Silence, Slot, SlotKind, SlotName, Standing, Started};
use crate::engine::{Commit, Delivery, Group};
use crate::outcome::OutcomeKind;
use crate::task::Topic;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// One life of a process.
struct Life {
    disk: Arc<Simulated>,
    engine: Engine,
    group: Box<dyn Group>,
}

/// Marks never arrive; nothing else goes wrong by itself.
fn without_marks() -> EmbeddedSettings {
    let weak = Weak { marks_lost: 1.0, ..super::weakness::tame() };
    EmbeddedSettings { weak: Some(weak), ..quick(1 << 16) }
}

impl Life {
    fn begin(disk: Arc<Simulated>, settings: EmbeddedSettings) -> Life {
        let engine = open(settings, specs(), disk.clone()).unwrap();
        let group = engine.groups.join("worker", &[Topic::new("tasks")]);
        Life { disk, engine, group }
    }

    /// What was not flushed is lost; everything in this process is.
    fn cut(self, settings: EmbeddedSettings) -> Life {
        Life::begin(self.disk.cut(5), settings)
    }

    async fn append(&self, key: &str) {
        self.engine.log.append(vec![output("tasks", key, "x")]).await.unwrap();
    }

    async fn admit(&self, d: &Delivery) -> Admission {
        self.engine.ledger.admit(d, &token(d), None).await.unwrap()
    }

    async fn start(&self, claim: &Claim, slot: &Slot) -> Started {
        self.engine.journal.start(claim, slot, Duration::from_secs(1)).await.unwrap()
    }

    /// The next record, admitted for the first time.
    async fn fresh(&mut self) -> (Delivery, Claim) {
        let d = next_record(&mut self.group).await;
        match self.admit(&d).await {
            Admission::Fresh(claim) => (d, claim),
            other => panic!("{other:?}"),
        }
    }

    /// The same record once more, with the answers that are known.
    async fn resumed(&mut self) -> (Claim, Vec<(String, Bytes)>) {
        let d = next_record(&mut self.group).await;
        match self.admit(&d).await {
            Admission::Resumed(claim, slots) => {
                (claim, slots.into_iter().map(|(name, kept)| (name.0.to_string(), kept.value)).collect())
            }
            other => panic!("{other:?}"),
        }
    }
}

fn slot(name: &str, kind: SlotKind) -> Slot {
    Slot { name: SlotName(name.into()), kind }
}

const GO: Started = Started::Go { repeat: false, times: 0, deaths: 0 };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_after_append_a_repeated_append_is_a_copy_which_the_ledger_finds_out() {
    let life = Life::begin(Simulated::new(), quick(1 << 16));
    life.append("one").await;
    let mut life = life.cut(quick(1 << 16));
    // Its sender has no answer, and sends again.
    life.append("one").await;
    let (first, _) = life.fresh().await;
    let second = next_record(&mut life.group).await;
    assert_ne!(first.record.position, second.record.position);
    let admission = life.admit(&second).await;
    assert!(matches!(admission, Admission::Silent(Silence::Duplicate)), "{admission:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p3_after_admit_before_start_the_record_is_resumed_under_a_new_fence_and_the_old_one_is_stale() {
    let mut life = Life::begin(Simulated::new(), quick(1 << 16));
    life.append("one").await;
    let (_, before) = life.fresh().await;
    let mut life = life.cut(quick(1 << 16));
    let (after, slots) = life.resumed().await;
    assert_eq!(slots, []);
    assert_ne!(after.fence, before.fence);
    let ask = slot("ask", SlotKind::Call);
    assert_eq!(life.start(&before, &ask).await, Started::Stale, "whoever holds the old fence is told");
    assert_eq!(life.start(&after, &ask).await, GO, "nothing was started, so nothing is counted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_after_commit_before_its_mark_the_record_never_comes_again_and_its_claim_stays_open() {
    let mut life = Life::begin(Simulated::new(), without_marks());
    life.append("one").await;
    let (d, claim) = life.fresh().await;
    let Commit::Visible(at) = life.engine.commits.commit(done(&d, vec![output("results", "one", "r")])).await
    else {
        panic!()
    };
    let mut life = life.cut(without_marks());
    assert!(life.engine.commits.is_complete(&d.record.position));
    assert!(quiet(&mut life.group).await, "it is not delivered again");
    let result = life.engine.log.read(at[0].clone(), 1).await.unwrap();
    assert_eq!(result[0].value.as_deref(), Some(&b"r"[..]));
    let view = life.engine.ledger.look(&claim.token.key).await.unwrap().unwrap();
    assert_eq!(view.phase, Phase::Open, "the mark died with its process: only the log knows");
    // What a look-up does then closes it.
    life.engine.ledger.repair(&claim.token, OutcomeKind::Result, at[0].clone()).await.unwrap();
    let view = life.engine.ledger.look(&claim.token.key).await.unwrap().unwrap();
    assert_eq!(view.phase, Phase::Closed { outcome: OutcomeKind::Result, at: at[0].clone() });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_after_the_mark_a_copy_is_silent_and_is_told_where_the_outcome_lies() {
    let mut life = Life::begin(Simulated::new(), quick(1 << 16));
    life.append("one").await;
    let (d, _) = life.fresh().await;
    let commit = life.engine.commits.commit(done(&d, vec![output("results", "one", "r")])).await;
    assert!(matches!(commit, Commit::Visible(_)));
    let mut life = life.cut(quick(1 << 16));
    life.append("one").await;
    let copy = next_record(&mut life.group).await;
    let admission = life.admit(&copy).await;
    assert!(matches!(admission, Admission::Silent(Silence::Duplicate)), "{admission:?}");
    // The record itself, if the log ever gave it back.
    let Admission::Silent(Silence::Done { at, .. }) = life.admit(&d).await else { panic!() };
    assert_eq!(life.engine.log.read(at, 1).await.unwrap()[0].value.as_deref(), Some(&b"r"[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_p4_what_was_released_or_barred_is_so_after_a_crash() {
    let mut life = Life::begin(Simulated::new(), quick(1 << 16));
    life.append("one").await;
    let (d, claim) = life.fresh().await;
    let (call, effect) = (slot("call", SlotKind::Call), slot("effect", SlotKind::Effect));
    let kept = slot("kept", SlotKind::Call);
    assert_eq!(life.start(&claim, &kept).await, GO);
    let (_, standing) = life.engine.journal.store(&claim, &kept, "bought".into()).await.unwrap();
    assert_eq!(standing, Standing::Stands);
    assert_eq!(life.start(&claim, &call).await, GO);
    life.engine.journal.release(claim.nonce, &claim.token.key, 0).await.unwrap();
    assert_eq!(life.engine.journal.bar(&claim, &effect).await.unwrap(), Bar::Barred);
    let mut life = life.cut(quick(1 << 16));
    let (claim, slots) = life.resumed().await;
    assert_eq!(slots, [("kept".to_owned(), Bytes::from("bought"))]);
    assert_eq!(life.start(&claim, &call).await, GO, "given back before the crash: nothing was repeated");
    assert_eq!(life.start(&claim, &effect).await, Started::Barred, "no effect starts any more");
    assert!(d.record.position == claim.token.origin.position);
}

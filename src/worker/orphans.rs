//! Buries the tasks whose record has vanished from its topic before they were done.
//!
//! The engine says which offsets are gone and were not complete; the ledger says which open claims they
//! began; the log, whether their records are really not there. It decides nothing about a claim that has
//! moved on: a parked task and one that waits for a person live in other topics.
//!
//! Until it has an answer the partition is not read. So what breaks off is tried again while the lease
//! lives, and `status` says why a partition waits.

use super::View;
use crate::dedupe::{ClaimView, Phase};
use crate::engine::{Commit, Engine, Gone, Lease, Unavailable};
use crate::pipeline::Pipeline;
use crate::task::{Partition, Position, Timestamp};
use crate::write::Counted;
use futures::{FutureExt as _, StreamExt as _};
use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Claims of one look at the ledger: as many as it gives at once.
const PAGE: usize = 1_000;
/// Records of one look at the log. A log that begins behind the orphans, or ends before them, is one look.
const LOOK: usize = 100;
/// How long to wait before an absent ledger or log is asked again. Nothing of the partition is read
/// meanwhile, and nothing could be.
const AWAY: Duration = Duration::from_millis(200);
/// Before what broke off, or was too large for its topic, is tried again: a person who sees to it needs
/// minutes, and each try costs a look at every open claim. A ledger or a log that is away for longer is told.
pub(super) const AGAIN: Duration = Duration::from_secs(30);
/// Dead letters handed in at once: they go into few commits, and none of these grows large.
const AT_ONCE: usize = 256;

/// What became of a search.
pub(super) enum Searched {
    Found(Found),
    /// The record of one of them is there: the engine was told something wrong.
    NotGone(Lease),
}

/// What a partition has lost, and the tasks that nobody can finish.
pub(super) struct Found {
    pub(super) lease: Lease,
    pub(super) gone: Gone,
    pub(super) orphans: Vec<ClaimView>,
    /// Of its lease.
    pub(super) void: CancellationToken,
}

impl Found {
    pub(super) fn offsets(&self) -> BTreeSet<u64> {
        self.orphans.iter().map(|claim| claim.origin.position.offset).collect()
    }
}

/// Tells why a partition waits, until it is dropped.
struct Stuck {
    view: View,
    lease: Lease,
}

impl Stuck {
    fn says(&self, why: &str) {
        let at = &self.lease.at;
        let why = format!("partition {} of `{}` has lost records, and {why}", at.index, at.topic);
        tracing::error!(%why, again_s = AGAIN.as_secs(), "a partition waits");
        self.view.stuck(&self.lease, Some(why));
    }

    fn panicked(&self, what: &str) {
        metrics::counter!("tidegate_panics_total", "part" => "orphans").increment(1);
        self.says(&format!("{what} has panicked: keep the panic's message for a bug report"));
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        self.view.stuck(&self.lease, None);
    }
}

/// `false`: the lease is void, or the process leaves.
async fn pause(how_long: Duration, void: &CancellationToken) -> bool {
    tokio::select! {
        biased;
        () = void.cancelled() => false,
        () = tokio::time::sleep(how_long) => true,
    }
}

/// Searches until there is an answer. `None`: the lease is void, or the process leaves.
pub(super) async fn search(
    engine: Engine,
    lease: Lease,
    gone: Gone,
    void: CancellationToken,
    view: View,
) -> Option<Searched> {
    let stuck = Stuck { view, lease: lease.clone() };
    loop {
        let once = AssertUnwindSafe(once(&engine, &lease, &gone, &void, &stuck));
        match once.catch_unwind().await {
            Ok(searched) => return searched,
            Err(_) => stuck.panicked("the search for tasks that they began"),
        }
        if !pause(AGAIN, &void).await {
            return None;
        }
    }
}

/// Looks at every open claim once, and then for the records of those that are orphans.
///
/// What it finds stays so while the lease lasts: the record of such a claim is delivered to nobody, and
/// whoever still works on it from before has a lease that is void.
async fn once(
    engine: &Engine,
    lease: &Lease,
    gone: &Gone,
    void: &CancellationToken,
    stuck: &Stuck,
) -> Option<Searched> {
    let (mut orphans, mut after) = (Vec::new(), None);
    loop {
        let page = patiently(|| engine.ledger.list(after.clone(), PAGE), void, stuck).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.key.clone());
        orphans.extend(page.into_iter().filter(|claim| is_orphan(claim, lease, gone)));
    }
    let there = patiently(|| is_one_there(engine, &lease.at, &orphans), void, stuck).await?;
    Some(if there {
        Searched::NotGone(lease.clone())
    } else {
        Searched::Found(Found { lease: lease.clone(), gone: gone.clone(), orphans, void: void.clone() })
    })
}

/// Asks until there is an answer. `None`: the lease is void, or the process leaves.
async fn patiently<T, A: Future<Output = Result<T, Unavailable>>>(
    ask: impl Fn() -> A,
    void: &CancellationToken,
    stuck: &Stuck,
) -> Option<T> {
    let mut tell = Instant::now() + AGAIN;
    loop {
        let answer = tokio::select! {
            biased;
            () = void.cancelled() => return None,
            answer = ask() => answer,
        };
        match answer {
            Ok(answer) => return Some(answer),
            Err(away) if Instant::now() >= tell => {
                tell = Instant::now() + AGAIN;
                stuck.says(&format!("nobody can say which tasks they began: {away}"));
            }
            Err(_) => {}
        }
        if !pause(AWAY, void).await {
            return None;
        }
    }
}

/// Whether the record of one of these claims lies in the log: at its place, and with its own time, for a log
/// that was cut short or made anew has other records at the same places.
async fn is_one_there(engine: &Engine, at: &Partition, orphans: &[ClaimView]) -> Result<bool, Unavailable> {
    let place = |claim: &ClaimView| (claim.origin.position.offset, claim.origin.stamp);
    let origins: BTreeSet<(u64, Timestamp)> = orphans.iter().map(place).collect();
    let mut from = 0;
    while let Some((offset, _)) = origins.range((from, Timestamp(i64::MIN))..).next() {
        let records = engine.log.read(Position { at: at.clone(), offset: *offset }, LOOK).await?;
        if records.iter().any(|record| origins.contains(&(record.position.offset, record.stamp))) {
            return Ok(true);
        }
        let Some(last) = records.last() else { return Ok(false) };
        from = last.position.offset + 1;
    }
    Ok(false)
}

fn is_orphan(claim: &ClaimView, lease: &Lease, gone: &Gone) -> bool {
    let origin = &claim.origin.position;
    let at_its_source = claim.hop == 0 && claim.phase == Phase::Open;
    at_its_source && origin.at == lease.at && gone.contains(origin.offset)
}

/// Hands in a dead letter for each, until none is left. One that is not committed stays open, and is found
/// again by the next owner.
pub(super) async fn bury(engine: &Engine, pipeline: &Pipeline, found: Found, view: View) {
    let Found { lease, orphans: mut left, void, .. } = found;
    let stuck = Stuck { view, lease: lease.clone() };
    loop {
        let burials = std::mem::take(&mut left).into_iter().map(|claim| async {
            match AssertUnwindSafe(bury_one(engine, pipeline, &lease, &claim)).catch_unwind().await {
                Ok(true) => None,
                Ok(false) => Some(claim),
                Err(_) => {
                    stuck.panicked("the burial of a task that one of them began");
                    Some(claim)
                }
            }
        });
        let done: Vec<_> = futures::stream::iter(burials).buffer_unordered(AT_ONCE).collect().await;
        left.extend(done.into_iter().flatten());
        let Some(first) = left.first() else { return };
        let (at, some) = (&first.origin.position, left.len());
        stuck.says(&format!(
            "the dead letters of {some} tasks that they began cannot be written ({at} is one): if they are too large \
             for their topic, raise its limit"
        ));
        if !pause(AGAIN, &void).await {
            return;
        }
    }
}

/// `false`: its dead letter is too large for its topic.
async fn bury_one(engine: &Engine, pipeline: &Pipeline, lease: &Lease, claim: &ClaimView) -> bool {
    let completion = pipeline.orphan(lease.clone(), claim);
    let counted = Counted::of(&completion);
    match engine.commits.commit(completion).await {
        Commit::Visible(_) => counted.into_iter().for_each(Counted::add),
        Commit::Void => {}
        Commit::TooLarge { .. } => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::OutcomeKind;
    use crate::task::{Fingerprint, Origin, Partition, Position, PrintRule, ScopedKey, Timestamp, Topic};

    fn at(index: u32) -> Partition {
        Partition { topic: Topic::new("tasks.copy"), index }
    }

    fn claim(index: u32, offset: u64, hop: u32, phase: Phase) -> ClaimView {
        ClaimView {
            key: ScopedKey::new("", "copy", "k"),
            generation: 0,
            origin: Origin { position: Position { at: at(index), offset }, stamp: Timestamp(1) },
            hop,
            print: Fingerprint { rule: PrintRule::Whole, digest: [0; 32] },
            decider: None,
            phase,
            slots: Vec::new(),
            since: Timestamp(1),
            changed: Timestamp(1),
        }
    }

    #[test]
    fn row_20_p1_only_an_open_claim_at_its_own_source_whose_record_is_gone_is_an_orphan() {
        let lease = Lease { at: at(1), epoch: 7 };
        let gone = Gone { each: BTreeSet::from([5]), span: 10..20 };
        let is = |claim: &ClaimView| is_orphan(claim, &lease, &gone);
        assert!(is(&claim(1, 5, 0, Phase::Open)) && is(&claim(1, 10, 0, Phase::Open)));
        let closed = Phase::Closed { outcome: OutcomeKind::Result, at: Position { at: at(0), offset: 1 } };
        for (why, claim) in [
            ("complete: parked, in review, or its mark is late", claim(1, 6, 0, Phase::Open)),
            ("still there", claim(1, 20, 0, Phase::Open)),
            ("another partition", claim(0, 5, 0, Phase::Open)),
            ("parked", claim(1, 5, 1, Phase::Open)),
            ("with a person", claim(1, 5, 1, Phase::Waiting)),
            ("done", claim(1, 5, 0, closed)),
        ] {
            assert!(!is(&claim), "{why}");
        }
    }
}

//! Buries the tasks whose record has vanished from its topic before they were done.
//!
//! The engine says which offsets are gone and were not complete; the ledger says which open claims they
//! began. It decides nothing about a claim that has moved on: a parked task and one that waits for a
//! person live in other topics.

use crate::dedupe::{ClaimView, Phase};
use crate::engine::{Commit, Engine, Gone, Lease};
use crate::pipeline::Pipeline;
use crate::write::Counted;
use futures::StreamExt as _;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Claims of one look at the ledger: as many as it gives at once.
const PAGE: usize = 1_000;
/// How long to wait before an absent ledger is asked again. Nothing of the partition is read meanwhile,
/// and nothing could be.
const AWAY: Duration = Duration::from_millis(200);
/// Dead letters handed in at once: they go into few commits, and none of these grows large.
const AT_ONCE: usize = 256;

/// What a partition has lost, and the tasks that nobody can finish.
pub(super) struct Found {
    pub(super) lease: Lease,
    pub(super) gone: Gone,
    pub(super) orphans: Vec<ClaimView>,
}

impl Found {
    pub(super) fn offsets(&self) -> BTreeSet<u64> {
        self.orphans.iter().map(|claim| claim.origin.position.offset).collect()
    }
}

/// Looks at every open claim once. `None`: the lease is void, or the process leaves.
///
/// What it finds stays so while the lease lasts: the record of such a claim is delivered to nobody, and
/// whoever still works on it from before has a lease that is void.
pub(super) async fn search(
    engine: &Engine,
    lease: Lease,
    gone: Gone,
    void: &CancellationToken,
) -> Option<Found> {
    let (mut orphans, mut after) = (Vec::new(), None);
    loop {
        let listed = tokio::select! {
            biased;
            () = void.cancelled() => return None,
            listed = engine.ledger.list(after.clone(), PAGE) => listed,
        };
        let Ok(page) = listed else {
            tokio::time::sleep(AWAY).await;
            continue;
        };
        let Some(last) = page.last() else { break };
        after = Some(last.key.clone());
        orphans.extend(page.into_iter().filter(|claim| is_orphan(claim, &lease, &gone)));
    }
    Some(Found { lease, gone, orphans })
}

fn is_orphan(claim: &ClaimView, lease: &Lease, gone: &Gone) -> bool {
    let origin = &claim.origin.position;
    let at_its_source = claim.hop == 0 && claim.phase == Phase::Open;
    at_its_source && origin.at == lease.at && gone.contains(origin.offset)
}

/// Hands in a dead letter for each. One that is not committed stays open, and is found again.
pub(super) async fn bury(engine: &Engine, pipeline: &Pipeline, found: Found) {
    let Found { lease, orphans, .. } = found;
    let burials = orphans.into_iter().map(|claim| {
        let completion = pipeline.orphan(lease.clone(), &claim);
        let counted = Counted::of(&completion);
        let commit = engine.commits.commit(completion);
        async move {
            match commit.await {
                Commit::Visible(_) => counted.into_iter().for_each(Counted::add),
                Commit::Void => {}
                Commit::TooLarge { .. } => {
                    let at = &claim.origin.position;
                    tracing::error!(%at, "the dead letter of a task whose record has vanished is too large; raise the limit of its topic");
                }
            }
        }
    });
    futures::stream::iter(burials).buffer_unordered(AT_ONCE).collect::<()>().await;
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

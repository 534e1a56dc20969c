//! The slow pass over claims that should have ended long ago: their outcome is in the log, and the
//! ledger never heard of it (limit 7 of the claims protocol).
//!
//! A look-up reads a bounded stretch of the log, so that nobody waits for it; here all such claims are
//! looked for in one reading, however far back. Ends nothing: it tells the ledger what the log says.

use super::{Lookup, hop, is_chain};
use crate::dedupe::{ClaimView, Phase};
use crate::engine::{Health, Unavailable};
use crate::outcome::OutcomeKind;
use crate::task::{Position, Record, ScopedKey, Timestamp, Topic};
use crate::token;
use crate::write::record::IS_OUTCOME;
use std::collections::HashMap;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often, and how long a claim has stood still before it is looked for: an hour each, so a task
/// whose mark was lost is shown as running for two at most.
const EVERY: Duration = Duration::from_secs(3_600);
const STILL: Duration = Duration::from_secs(3_600);
/// Claims of one pass: a few MiB. The next pass goes on behind them.
const CLAIMS_MAX: usize = 10_000;
/// Claims asked for at once; the ledger's own page.
const LIST: usize = 1_000;
/// Records read at once, and the rest between two readings: others want the disk too.
const PAGE: usize = 500;
const REST: Duration = Duration::from_millis(5);

impl Lookup {
    /// Passes at the start and every hour, until `stop`.
    pub(in crate::serve) async fn passes(&self, stop: CancellationToken) {
        let mut health = self.engine.operation.health();
        let mut next = Duration::ZERO;
        let mut after = None;
        loop {
            tokio::select! {
                () = tokio::time::sleep(next) => next = EVERY,
                () = stop.cancelled() => return,
            }
            // A ledger that is not reached yet answers nothing, and an hour is long.
            tokio::select! {
                // An engine that is gone changes no more, and is asked in vain.
                _ = health.wait_for(|health| matches!(health, Health::Well | Health::Partly { .. })) => {}
                () = stop.cancelled() => return,
            }
            let still = Timestamp::now().0 - i64::try_from(STILL.as_millis()).unwrap_or(i64::MAX);
            tokio::select! {
                passed = self.pass(&mut after, Timestamp(still)) => match passed {
                    Ok(0) => {}
                    Ok(found) => tracing::info!(found, "tasks had their outcome, and the ledger did not know"),
                    Err(away) => tracing::warn!(%away, "open claims are looked for again in an hour"),
                },
                () = stop.cancelled() => return,
            }
        }
    }

    /// Looks for the outcomes of open claims behind `after` that have not changed since `still`, and says
    /// how many there were. `after` becomes where the next pass begins.
    pub(in crate::serve) async fn pass(
        &self,
        after: &mut Option<ScopedKey>,
        still: Timestamp,
    ) -> Result<usize, Unavailable> {
        let mut lost = self.still(after, still).await?;
        let Some(since) = lost.values().map(|claim| claim.origin.stamp).min() else { return Ok(0) };
        let mut found = 0;
        for topic in &self.results {
            found += self.tell(&mut lost, topic, since, OutcomeKind::Result).await?;
        }
        found += self.tell(&mut lost, &self.names.dead_letters, since, OutcomeKind::DeadLetter).await?;
        Ok(found)
    }

    /// Claims whose current record is not known to be under way.
    async fn still(
        &self,
        after: &mut Option<ScopedKey>,
        still: Timestamp,
    ) -> Result<HashMap<ScopedKey, ClaimView>, Unavailable> {
        let mut lost = HashMap::new();
        while lost.len() < CLAIMS_MAX {
            let page = self.engine.ledger.list(after.clone(), LIST).await?;
            *after = page.last().map(|claim| claim.key.clone());
            if page.is_empty() {
                break;
            }
            for claim in page {
                let works = claim.hop == 0 && !self.engine.commits.is_complete(&claim.origin.position);
                // Before the queue is read, what waits for a person is looked for as well: more work, no harm.
                let closed = matches!(claim.phase, Phase::Closed { .. });
                if !closed && !works && claim.changed <= still && self.item(&claim).is_none() {
                    lost.insert(claim.key.clone(), claim);
                }
            }
        }
        Ok(lost)
    }

    /// Tells the ledger of the outcomes that lie in `topic`, and takes their claims out of `lost`.
    async fn tell(
        &self,
        lost: &mut HashMap<ScopedKey, ClaimView>,
        topic: &Topic,
        since: Timestamp,
        kind: OutcomeKind,
    ) -> Result<usize, Unavailable> {
        let log = &self.engine.log;
        let before = lost.len();
        for ends in log.ends(topic).await? {
            let mut next = log.since(&ends.at, since).await?.max(ends.first);
            while next < ends.next && !lost.is_empty() {
                let records = log.read(Position { at: ends.at.clone(), offset: next }, PAGE).await?;
                let Some(last) = records.last() else { break };
                next = last.position.offset + 1;
                for record in &records {
                    if let Some(claim) = ended(lost, record, kind) {
                        self.repair(&claim, kind, record).await;
                    }
                }
                tokio::time::sleep(REST).await;
            }
        }
        Ok(before - lost.len())
    }
}

/// The claim that this record ends.
fn ended(lost: &mut HashMap<ScopedKey, ClaimView>, record: &Record, kind: OutcomeKind) -> Option<ClaimView> {
    let h = &record.headers;
    if kind == OutcomeKind::DeadLetter && h.text(IS_OUTCOME) != Some("yes") {
        return None;
    }
    let key = ScopedKey::new(h.text(token::TENANT).unwrap_or(""), h.text(token::KIND)?, h.text(token::KEY)?);
    let claim = lost.get(&key).filter(|claim| is_chain(record, claim) && hop(record) >= Some(claim.hop))?;
    let claim = claim.clone();
    lost.remove(&key);
    Some(claim)
}

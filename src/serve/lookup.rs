//! Finds where a task stands: queued, running, waiting until a time, waiting for a person, or done.
//!
//! The ledger is a hint, the log the truth: an open claim whose current token the log calls complete
//! may have lost its closing mark, so its outcome is looked for in the log, and what is found is told
//! to the ledger (limit 7 of the claims protocol). Nothing else is ever written here.

mod pass;
mod scan;

use crate::consume::Kinds;
use crate::dedupe::{ClaimView, Phase, SlotView};
use crate::engine::{Engine, Unavailable};
use crate::outcome::OutcomeKind;
use crate::review::{self, Brief, Item, Queue};
use crate::settings::TopicNames;
use crate::task::{Position, Record, ScopedKey, Timestamp, Token, Topic};
use crate::token::{self, Carry};
use crate::trail::Trail;
use crate::write::record::{Envelope, IS_OUTCOME, TRAIL, item_id};
use crate::write::{self, DeadLetter};
use bytes::Bytes;
pub(super) use scan::Scan;
use std::sync::Arc;
use std::time::Duration;

/// How many `moved` marks in a row may have been lost before a task that waits for a person is looked
/// for in the log instead of the queue.
const LOST_MARKS: u32 = 3;

/// A commit is answered, and its mark sent, before all readers see what it has made visible: they wait for
/// its own end, and for whatever transaction lies below it. After this nothing of the kind is left.
const SHOWN: Duration = Duration::from_secs(60);

/// What a look-up reads.
#[derive(Clone)]
pub struct Lookup {
    pub engine: Engine,
    pub names: TopicNames,
    /// Where results may lie.
    pub results: Vec<Topic>,
    pub kinds: Arc<Kinds>,
    pub queue: Queue,
}

/// A task and where it stands.
#[derive(Clone, Debug)]
pub struct Stands {
    pub key: ScopedKey,
    pub generation: u32,
    /// Position of the task's first record.
    pub origin: Position,
    /// When this generation was first admitted, or its record appended.
    pub since: Timestamp,
    pub place: Place,
    /// Calls of the open claim.
    pub calls: Vec<SlotView>,
    pub trail: Trail,
}

#[derive(Clone, Debug)]
pub enum Place {
    /// In the log, not yet admitted.
    Queued,
    Running,
    /// Set aside: no model could serve it.
    Parked {
        until: Timestamp,
    },
    /// For a person.
    Review(Box<Item>),
    Result {
        at: Position,
        envelope: Box<Envelope>,
    },
    DeadLetter(Box<DeadLetter>),
    /// The ledger knows of an outcome that the log does not hold any more.
    Forgotten {
        outcome: OutcomeKind,
        at: Position,
    },
}

impl Lookup {
    /// `None`: neither ledger nor log knows the key; or its window is over.
    pub async fn find(&self, key: &ScopedKey) -> Result<Option<Stands>, Unavailable> {
        match self.engine.ledger.look(key).await? {
            Some(claim) => self.claimed(key, claim).await.map(Some),
            None => self.unclaimed(key).await,
        }
    }

    async fn claimed(&self, key: &ScopedKey, claim: ClaimView) -> Result<Stands, Unavailable> {
        if let Phase::Closed { outcome, at } = &claim.phase {
            let mut record = self.record(at).await?;
            if record.is_none() && claim.changed.plus(SHOWN) > Timestamp::now() {
                if self.is_ahead(at).await? {
                    return Ok(stands(key, &claim, Place::Running, Trail::default()));
                }
                // It came between the two questions.
                record = self.record(at).await?;
            }
            let found = record.and_then(|r| self.outcome(r, *outcome));
            let (place, trail) = found.unwrap_or_else(|| {
                (Place::Forgotten { outcome: *outcome, at: at.clone() }, Trail::default())
            });
            return Ok(stands(key, &claim, place, trail));
        }
        // Asked before the item: what is read between the two is not missed.
        let unread = self.queue.unread();
        if let Some(open) = self.item(&claim)
            && let Some(item) = review::whole_item(&*self.engine.log, &open).await?
        {
            let trail = trail_of(&item.record);
            return Ok(stands(key, &claim, Place::Review(Box::new(item)), trail));
        }
        if claim.hop == 0 && !self.engine.commits.is_complete(&claim.origin.position) {
            return Ok(stands(key, &claim, Place::Running, Trail::default()));
        }
        if let Some((place, trail)) = self.token(&claim).await? {
            return Ok(stands(key, &claim, place, trail));
        }
        // It may wait for a person all the same.
        if let Some(why) = unread {
            return Err(Unavailable(why));
        }
        // Nothing in the log carries the task on: it has its outcome, and the mark was lost.
        if let Some((place, trail)) = self.published(&claim).await? {
            return Ok(stands(key, &claim, place, trail));
        }
        // A commit between the two readings, which the next look-up sees; or an outcome that lies deeper
        // than a look-up reads, which the slow pass finds.
        Ok(stands(key, &claim, Place::Running, Trail::default()))
    }

    /// The open review item of the claim's chain, at its hop or a later one whose mark was lost.
    fn item(&self, claim: &ClaimView) -> Option<Arc<Brief>> {
        let ahead = claim.hop..=claim.hop.saturating_add(LOST_MARKS);
        ahead.into_iter().find_map(|hop| self.queue.get(&item_id(&token_of(claim, hop))))
    }

    /// The incomplete token that carries the task on, among what is parked.
    async fn token(&self, claim: &ClaimView) -> Result<Option<(Place, Trail)>, Unavailable> {
        let commits = &self.engine.commits;
        let live = |record: &Record| {
            let live = is_chain(record, claim)
                && hop(record) >= Some(claim.hop)
                && !commits.is_complete(&record.position);
            live.then(|| (record.not_before, trail_of(record)))
        };
        for (_, topic) in &self.names.retry {
            if let Some((until, trail)) =
                Scan::new(&*self.engine.log, topic, claim.origin.stamp).first(live).await?
            {
                let parked = until.filter(|until| *until > Timestamp::now());
                let place = parked.map_or(Place::Running, |until| Place::Parked { until });
                return Ok(Some((place, trail)));
            }
        }
        Ok(None)
    }

    /// The outcome of the claim's chain, from the log; tells the ledger.
    async fn published(&self, claim: &ClaimView) -> Result<Option<(Place, Trail)>, Unavailable> {
        let to = self.kinds.named(&claim.key.kind).map(|k| k.to.clone());
        let topics = to.map_or_else(|| self.results.clone(), |to| vec![to]);
        let ours = |record: &Record| is_chain(record, claim).then(|| record.clone());
        let buried = |record: &Record| ours(record).filter(|r| r.headers.text(IS_OUTCOME) == Some("yes"));
        let log = &*self.engine.log;
        let mut found = None;
        for topic in &topics {
            if found.is_none() {
                let record = Scan::new(log, topic, claim.origin.stamp).first(ours).await?;
                found = record.map(|r| (r, OutcomeKind::Result));
            }
        }
        if found.is_none() {
            let record = Scan::new(log, &self.names.dead_letters, claim.origin.stamp).first(buried).await?;
            found = record.map(|r| (r, OutcomeKind::DeadLetter));
        }
        let Some((record, kind)) = found else { return Ok(None) };
        self.repair(claim, kind, &record).await;
        Ok(self.outcome(record, kind))
    }

    /// A look-up that cannot repair still tells the truth.
    async fn repair(&self, claim: &ClaimView, outcome: OutcomeKind, record: &Record) {
        let token = token_of(claim, hop(record).unwrap_or(claim.hop).max(claim.hop));
        match self.engine.ledger.repair(&token, outcome, record.position.clone()).await {
            Ok(()) => metrics::counter!("tidegate_repaired_total").increment(1),
            Err(away) => tracing::debug!(%away, "an outcome's mark could not be sent again"),
        }
    }

    async fn unclaimed(&self, key: &ScopedKey) -> Result<Option<Stands>, Unavailable> {
        let Some(kind) = self.kinds.named(&key.kind) else { return Ok(None) };
        let ours = |record: &Record| {
            let tenant = record.headers.text("tenant").unwrap_or("");
            let said = record.key.as_deref().or_else(|| record.headers.get("idempotency-key"));
            let ours = tenant == &*key.tenant && said == Some(key.key.as_bytes());
            (ours && !self.engine.commits.is_complete(&record.position)).then(|| record.clone())
        };
        let found = Scan::open(&*self.engine.log, &kind.from).first(ours).await?;
        Ok(found.map(|record| Stands {
            key: key.clone(),
            generation: 0,
            origin: record.position,
            since: record.stamp,
            place: Place::Queued,
            calls: vec![],
            trail: Trail::default(),
        }))
    }

    fn outcome(&self, record: Record, kind: OutcomeKind) -> Option<(Place, Trail)> {
        let trail =
            record.headers.get(TRAIL).and_then(|t| serde_json::from_slice(t).ok()).unwrap_or_default();
        let place = match kind {
            OutcomeKind::Result => {
                let envelope = Box::new(write::read_result(&record)?);
                Place::Result { at: record.position, envelope }
            }
            OutcomeKind::DeadLetter => Place::DeadLetter(Box::new(DeadLetter::read(record))),
        };
        Some((place, trail))
    }

    /// Whether readers of committed records have not come as far yet.
    async fn is_ahead(&self, at: &Position) -> Result<bool, Unavailable> {
        let ends = self.engine.log.ends(&at.at.topic).await?;
        Ok(ends.iter().any(|end| end.at == at.at && end.next <= at.offset))
    }

    async fn record(&self, at: &Position) -> Result<Option<Record>, Unavailable> {
        let records = self.engine.log.read(at.clone(), 1).await?;
        Ok(records.into_iter().next().filter(|r| r.position == *at))
    }
}

fn stands(key: &ScopedKey, claim: &ClaimView, place: Place, trail: Trail) -> Stands {
    Stands {
        key: key.clone(),
        generation: claim.generation,
        origin: claim.origin.position.clone(),
        since: claim.since,
        place,
        calls: claim.slots.clone(),
        trail,
    }
}

/// The claim's token at `hop`, without its payload.
fn token_of(claim: &ClaimView, hop: u32) -> Token {
    Token {
        key: claim.key.clone(),
        generation: claim.generation,
        origin: claim.origin.clone(),
        hop,
        print: claim.print.clone(),
        proof: None,
        payload: Bytes::new(),
    }
}

/// Whether a record belongs to the chain of the claim: same key, generation and origin.
fn is_chain(record: &Record, claim: &ClaimView) -> bool {
    let h = &record.headers;
    h.text(token::KEY) == Some(&*claim.key.key)
        && h.text(token::KIND) == Some(&*claim.key.kind)
        && h.text(token::TENANT).unwrap_or("") == &*claim.key.tenant
        && h.text(token::GENERATION).and_then(|g| g.parse().ok()) == Some(claim.generation)
        && h.text(token::ORIGIN).and_then(token::read_origin).as_ref() == Some(&claim.origin)
}

fn hop(record: &Record) -> Option<u32> {
    record.headers.text(token::HOP).and_then(|h| h.parse().ok())
}

/// What a token's record carries along.
pub(super) fn trail_of(record: &Record) -> Trail {
    let carry = record.headers.get(token::CARRY).and_then(|c| serde_json::from_slice::<Carry>(c).ok());
    carry.map(|c| c.trail).unwrap_or_default()
}

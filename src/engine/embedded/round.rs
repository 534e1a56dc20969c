//! Decides what each command of one frame does: against what is durable, and what the commands
//! before it in the same frame will change.
//!
//! Nothing here is visible to anybody. If the frame cannot be written the round is dropped, and
//! with it every trace of its decisions.

use super::base::BaseError;
use super::changes::{Changes, ClaimChange, ExpiryRow, PartId, Swept, refused_key};
use super::queue::{Command, Sent};
use super::remembered::Remembered;
use super::state::State;
use super::topics::{KnownTopic, Topics};
use crate::dedupe::{Entry, Fence, Instance, Observer};
use crate::engine::script::{self, Asked, LedgerCall, LedgerReply, Tables};
use crate::engine::{AppendError, Commit, Completion, Output, Unavailable};
use crate::task::{Origin, Partition, Position, Record, Timestamp};
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// What does not change while a round is decided.
pub(super) struct Ground<'a> {
    pub(super) state: &'a State,
    pub(super) topics: &'a Topics,
    pub(super) leases: &'a HashMap<PartId, u64>,
    pub(super) instance: Instance,
    pub(super) window: Duration,
    /// The ledger's clock.
    pub(super) now: Timestamp,
    /// Stamp of the frame and of every record in it.
    pub(super) stamp: Timestamp,
    /// Calls over an older connection were never received.
    pub(super) connection: u64,
    /// Marks go their own way (weak ledger).
    pub(super) marks_apart: bool,
    pub(super) remembered: Option<&'a Remembered>,
}

pub(super) struct Round<'a> {
    ground: Ground<'a>,
    pub(super) changes: Changes,
    next: HashMap<PartId, u64>,
    done: HashSet<(PartId, u64)>,
    /// Leases that change with this round.
    pub(super) revoked: BTreeMap<PartId, u64>,
}

/// What a command is answered, once its frame is durable.
#[derive(Debug)]
pub(super) enum Answer {
    Append(Result<Vec<Position>, AppendError>),
    Commit(Commit),
    Ledger(Result<LedgerReply, Unavailable>),
    Done,
}

/// This process knows that it alone lives: the directory's lock says so.
struct Alone {
    settled: bool,
    instance: Instance,
}

impl Observer for Alone {
    fn settled(&self) -> bool {
        self.settled
    }

    fn lapsed(&self, instance: Instance) -> bool {
        instance != self.instance
    }
}

impl<'a> Round<'a> {
    pub(super) fn new(ground: Ground<'a>) -> Self {
        Round {
            ground,
            changes: Changes::default(),
            next: HashMap::new(),
            done: HashSet::new(),
            revoked: BTreeMap::new(),
        }
    }

    /// An error means that the state cannot be read: drop the round.
    pub(super) fn decide(&mut self, command: &Command) -> Result<Answer, BaseError> {
        Ok(match command {
            Command::Append { batch, .. } => Answer::Append(self.append(batch)),
            Command::Commit { done, .. } => Answer::Commit(self.commit(done)?),
            Command::Ledger { call, .. } => Answer::Ledger(self.ledger(call)?),
            Command::Join { topics, .. } => {
                self.join(topics);
                Answer::Done
            }
            Command::Revoke { part, epoch, .. } => {
                self.revoked.insert(*part, *epoch);
                Answer::Done
            }
            Command::Drop { segments, .. } => {
                self.changes.dropped.extend(segments);
                Answer::Done
            }
            Command::Forget { .. } => {
                self.forget();
                Answer::Done
            }
            Command::Remember => Answer::Done,
        })
    }

    // the log

    fn append(&mut self, batch: &[Output]) -> Result<Vec<Position>, AppendError> {
        for (index, output) in batch.iter().enumerate() {
            let (_, topic) =
                self.topic(output).ok_or_else(|| AppendError::NoSuchTopic(output.topic.clone()))?;
            if let Some(limit) = topic.limit.filter(|limit| output.size() > *limit) {
                let (bytes, topic) = (output.size(), output.topic.clone());
                return Err(AppendError::TooLarge { index, bytes, limit, topic });
            }
        }
        Ok(batch.iter().filter_map(|output| self.put(output)).collect())
    }

    /// A topic that the configuration names.
    fn topic(&self, output: &Output) -> Option<(u32, &'a KnownTopic)> {
        let id = self.ground.topics.id(&output.topic)?;
        self.ground.topics.get(id).filter(|t| t.limit.is_some()).map(|t| (id, t))
    }

    fn put(&mut self, output: &Output) -> Option<Position> {
        let (id, topic) = self.topic(output)?;
        let index = topic.partition(output.key.as_deref());
        let state = self.ground.state;
        let next =
            self.next.entry((id, index)).or_insert_with(|| state.part((id, index)).map_or(0, |p| p.next));
        let at = Partition { topic: topic.stored.name.clone(), index };
        let position = Position { at, offset: *next };
        *next += 1;
        let record = Record {
            position: position.clone(),
            stamp: self.ground.stamp,
            key: output.key.clone(),
            value: output.value.clone(),
            headers: output.headers.clone(),
            not_before: output.not_before,
        };
        self.changes.records.push((id, Arc::new(record)));
        Some(position)
    }

    fn commit(&mut self, done: &Completion) -> Result<Commit, BaseError> {
        let Some(part) = self.valid(done) else { return Ok(Commit::Void) };
        for (output, o) in done.outputs.iter().enumerate() {
            match self.topic(o) {
                Some((_, topic)) if topic.limit.is_none_or(|limit| o.size() <= limit) => {}
                Some(_) => return Ok(Commit::TooLarge { output }),
                None => {
                    // The caller's table of topics is not the engine's: a mistake in the program. The
                    // record stays incomplete and comes back after a restart.
                    tracing::error!(topic = %o.topic, "an outcome is meant for a topic that is not there");
                    return Ok(Commit::Void);
                }
            }
        }
        let positions: Vec<Position> = done.outputs.iter().filter_map(|o| self.put(o)).collect();
        self.done.insert((part, done.offset));
        self.changes.completed.push((part, done.offset));
        if let Some(mark) = done.mark.as_ref().filter(|_| !self.ground.marks_apart) {
            let at = mark.outcome_at(&positions);
            self.call(&LedgerCall::Mark { mark: mark.clone(), at }, true)?;
        }
        Ok(Commit::Visible(positions))
    }

    /// The record's partition, if the lease is good and the record not complete yet.
    fn valid(&self, done: &Completion) -> Option<PartId> {
        let part = (self.ground.topics.id(&done.lease.at.topic)?, done.lease.at.index);
        let epoch = self.revoked.get(&part).or_else(|| self.ground.leases.get(&part))?;
        let stored = self.ground.state.part(part)?;
        let there = done.offset < stored.next && !stored.done.contains(done.offset);
        (*epoch == done.lease.epoch && there && !self.done.contains(&(part, done.offset))).then_some(part)
    }

    fn join(&mut self, topics: &[u32]) {
        for id in topics {
            let stored = self.ground.state.topics.iter().find(|t| t.id == *id);
            if let Some(topic) = stored.filter(|t| !t.consumed) {
                self.changes.topics.push(super::topics::StoredTopic { consumed: true, ..topic.clone() });
            }
        }
    }

    // the ledger

    fn ledger(&mut self, sent: &Sent) -> Result<Result<LedgerReply, Unavailable>, BaseError> {
        if sent.connection != self.ground.connection {
            return Ok(Err(Unavailable("the ledger broke the connection".to_owned())));
        }
        self.call(&sent.call, sent.settled).map(Ok)
    }

    fn call(&mut self, call: &LedgerCall, settled: bool) -> Result<LedgerReply, BaseError> {
        let instance = self.ground.instance;
        let alone = Alone { settled, instance };
        let (now, window) = (self.ground.now, self.ground.window);
        script::run(self, call, &Asked { instance, observer: &alone, now, window })
    }

    fn claim(&self, key: &Bytes) -> Result<Option<Arc<Entry>>, BaseError> {
        match self.changes.claims.get(key) {
            Some(change) => Ok(change.after.clone()),
            None => self.ground.state.claim(key),
        }
    }

    fn set_claim(&mut self, key: Bytes, after: Option<Arc<Entry>>) -> Result<(), BaseError> {
        if let Some(change) = self.changes.claims.get_mut(&key) {
            change.after = after;
            return Ok(());
        }
        let before = self.ground.state.claim(&key)?;
        self.changes.claims.insert(key, ClaimChange { before, after });
        Ok(())
    }

    /// Removes what the row names, if its window is over.
    pub(super) fn sweep(&mut self, row: ExpiryRow) -> Result<(), BaseError> {
        let (changed, what, key) = &row;
        match what {
            Swept::Claim => {
                let found = self.claim(key)?;
                // It may have been closed anew since; then a later row names it.
                if found.is_some_and(|e| e.is_closed() && e.changed.0 == *changed) {
                    self.set_claim(key.clone(), None)?;
                }
            }
            Swept::Refused => {
                let now = match self.changes.refused.get(key) {
                    Some(now) => *now,
                    None => self.ground.state.refused(key)?,
                };
                if now.is_some_and(|c| c.0 == *changed) {
                    self.changes.refused.insert(key.clone(), None);
                }
            }
        }
        self.changes.swept.push(row);
        Ok(())
    }

    /// Puts every claim back to what it was when the ledger began to remember. Alone in its frame.
    fn forget(&mut self) {
        self.changes.forgot = Some(self.ground.state.forgot + 1);
        let state = self.ground.state;
        let Some(remembered) = self.ground.remembered else { return };
        for (key, entry) in &remembered.claims {
            // Named as requests to models name it, so that a test finds what the loss is to blame for.
            tracing::warn!(
                scope = &blake3::hash(key).to_hex()[..16],
                "the ledger has lost its latest writes to a claim"
            );
            let before = state.claim(key).ok().flatten();
            self.changes.claims.insert(key.clone(), ClaimChange { before, after: entry.clone() });
        }
        self.changes.refused.extend(remembered.refused.iter().map(|(k, v)| (k.clone(), *v)));
    }
}

impl Tables for Round<'_> {
    type Error = BaseError;

    fn entry<T>(
        &mut self,
        key: Vec<u8>,
        script: impl FnOnce(&mut Option<Entry>) -> T,
    ) -> Result<T, BaseError> {
        let key = Bytes::from(key);
        let before = self.claim(&key)?;
        let mut entry = before.as_deref().cloned();
        let answer = script(&mut entry);
        if entry.as_ref() != before.as_deref() {
            self.set_claim(key, entry.map(Arc::new))?;
        }
        Ok(answer)
    }

    fn refused(&self, scope: &[u8], origin: &Origin) -> Result<Option<Timestamp>, BaseError> {
        let key = refused_key(scope, &origin.position, origin.stamp);
        match self.changes.refused.get(&key) {
            Some(changed) => Ok(*changed),
            None => self.ground.state.refused(&key),
        }
    }

    fn set_refused(&mut self, scope: &[u8], origin: &Origin, at: Timestamp) {
        let key = refused_key(scope, &origin.position, origin.stamp);
        self.changes.refused.insert(key, Some(at));
    }

    fn fence(&mut self) -> Fence {
        Fence(rand::random())
    }
}

//! A consumer group as its coordinator keeps it: members, generations, who owns what, what is committed.
//!
//! Assignment is sticky and cooperative: a partition moves only after its owner has let go of it, or
//! after the owner's session is over. It is told of events and answers what each member hears.

use super::super::assignment::{MemberId, Membership, Said};
use super::super::planted::{self, Bug};
use super::log::Tx;
use super::world::Process;
use crate::task::Partition;
use std::collections::{BTreeMap, BTreeSet};

/// What one member is told.
pub(super) type Told = (MemberId, Said, Membership);

pub(super) struct GroupMember {
    pub(super) process: Process,
    /// What the client believes that it holds.
    pub(super) believes: BTreeSet<Partition>,
}

#[derive(Default)]
pub(super) struct GroupState {
    pub(super) generation: u32,
    pub(super) members: BTreeMap<MemberId, GroupMember>,
    owners: BTreeMap<Partition, MemberId>,
    partitions: BTreeSet<Partition>,
    committed: BTreeMap<Partition, (u64, String)>,
    /// Offsets of transactions that have not ended.
    pending: BTreeMap<Tx, Vec<(Partition, u64, String)>>,
}

impl GroupState {
    pub(super) fn join(&mut self, id: MemberId, member: GroupMember, partitions: &[Partition]) -> Vec<Told> {
        self.partitions.extend(partitions.iter().cloned());
        self.members.insert(id, member);
        self.rebalance()
    }

    /// The session is over. What the client hears of it, and when, is the client's.
    pub(super) fn expire(&mut self, id: &MemberId) -> Vec<Told> {
        if self.members.remove(id).is_none() {
            return Vec::new();
        }
        self.owners.retain(|_, owner| owner != id);
        self.rebalance()
    }

    pub(super) fn let_go(&mut self, id: &MemberId, parts: &[Partition]) -> Vec<Told> {
        for at in parts {
            if self.owners.get(at) == Some(id) {
                self.owners.remove(at);
            }
            if let Some(member) = self.members.get_mut(id) {
                member.believes.remove(at);
            }
        }
        self.rebalance()
    }

    pub(super) fn owns(&self, id: &MemberId) -> Vec<Partition> {
        self.owners.iter().filter(|(_, owner)| *owner == id).map(|(at, _)| at.clone()).collect()
    }

    /// A new generation. Nobody gets what another still owns.
    fn rebalance(&mut self) -> Vec<Told> {
        self.generation += 1;
        let ids: Vec<MemberId> = self.members.keys().cloned().collect();
        if ids.is_empty() {
            return Vec::new();
        }
        let share = self.partitions.len().div_ceil(ids.len());
        let mut targets: BTreeMap<MemberId, BTreeSet<Partition>> =
            ids.iter().map(|id| (id.clone(), BTreeSet::new())).collect();
        for (at, owner) in &self.owners {
            if let Some(target) = targets.get_mut(owner).filter(|t| t.len() < share) {
                target.insert(at.clone());
            }
        }
        let free: Vec<Partition> =
            self.partitions.iter().filter(|at| !self.owners.contains_key(*at)).cloned().collect();
        for at in free {
            let Some(id) = ids.iter().min_by_key(|id| targets[*id].len()) else { break };
            self.owners.insert(at.clone(), id.clone());
            targets.entry(id.clone()).or_default().insert(at);
        }
        let mut told = Vec::new();
        for (id, target) in targets {
            let by = Membership { member: id.clone(), generation: self.generation };
            let Some(member) = self.members.get_mut(&id) else { continue };
            let revoked: Vec<Partition> = member.believes.difference(&target).cloned().collect();
            let assigned: Vec<Partition> = target.difference(&member.believes).cloned().collect();
            member.believes.extend(assigned.iter().cloned());
            if !revoked.is_empty() {
                told.push((id.clone(), Said::Revoked(revoked), by.clone()));
            }
            told.push((id, Said::Assigned(assigned), by));
        }
        told
    }

    /// As a coordinator checks a transactional offset commit: by member and generation, not by owner.
    pub(super) fn offer(
        &mut self,
        tx: Tx,
        by: &Membership,
        offsets: &[(Partition, u64, String)],
    ) -> Result<(), String> {
        if !self.members.contains_key(&by.member) {
            return Err("unknown member id".to_owned());
        }
        if by.generation != self.generation {
            return Err("illegal generation".to_owned());
        }
        if planted::is(Bug::OffsetsOutside) {
            self.committed
                .extend(offsets.iter().map(|(at, offset, text)| (at.clone(), (*offset, text.clone()))));
            return Ok(());
        }
        self.pending.insert(tx, offsets.to_vec());
        Ok(())
    }

    pub(super) fn end(&mut self, tx: Tx, committed: bool) {
        let offsets = self.pending.remove(&tx).unwrap_or_default();
        if committed {
            self.committed.extend(offsets.into_iter().map(|(at, offset, text)| (at, (offset, text))));
        }
    }

    /// What is committed, whatever is still open.
    pub(super) fn peek(&self, at: &Partition) -> Option<(u64, String)> {
        self.committed.get(at).cloned()
    }

    /// `None`: a transaction that writes it is still open.
    pub(super) fn stable(&self, at: &Partition) -> Option<Option<(u64, String)>> {
        if planted::is(Bug::LoadUnstable) {
            return Some(self.peek(at));
        }
        let open = self.pending.values().flatten().any(|(pending, _, _)| pending == at);
        (!open).then(|| self.peek(at))
    }

    pub(super) fn set(&mut self, at: &Partition, offset: u64, metadata: &str) {
        self.committed.insert(at.clone(), (offset, metadata.to_owned()));
    }

    /// Forgets every offset, as a group that was deleted.
    pub(super) fn forget(&mut self) {
        self.committed.clear();
    }
}

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
    /// What it may be given: the partitions of its topics.
    pub(super) subscribed: BTreeSet<Partition>,
    /// What the client believes that it holds.
    pub(super) believes: BTreeSet<Partition>,
    /// It has been told to let go of something, and has not answered.
    pub(super) owes: bool,
}

#[derive(Default)]
pub(super) struct GroupState {
    pub(super) generation: u32,
    pub(super) members: BTreeMap<MemberId, GroupMember>,
    owners: BTreeMap<Partition, MemberId>,
    /// All that any member has ever subscribed to.
    partitions: BTreeSet<Partition>,
    committed: BTreeMap<Partition, (u64, String)>,
    /// Offsets of transactions that have not ended.
    pending: BTreeMap<Tx, Vec<(Partition, u64, String)>>,
}

impl GroupState {
    pub(super) fn join(&mut self, id: MemberId, member: GroupMember) -> Vec<Told> {
        self.partitions.extend(member.subscribed.iter().cloned());
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

    /// A member whose client has forgotten who it was, and which the group still counts, comes back under its
    /// name: it is a member again, under another id and without a rebalance. `None`: that cannot be.
    pub(super) fn come_back(&mut self, old: &MemberId, new: MemberId) -> Option<Vec<Told>> {
        if self.members.get(old)?.owes {
            return None;
        }
        let member = self.members.remove(old)?;
        self.members.insert(new.clone(), member);
        self.owners.values_mut().filter(|owner| *owner == old).for_each(|owner| *owner = new.clone());
        let by = Membership { member: new.clone(), generation: self.generation };
        Some(vec![(new.clone(), Said::Assigned(self.owns(&new)), by)])
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

    pub(super) fn reads(&self, at: &Partition) -> bool {
        self.partitions.contains(at)
    }

    /// A new generation. Nobody gets what another still owns, or what it has not subscribed to; partitions that
    /// the same members have subscribed to are shared out evenly among them.
    fn rebalance(&mut self) -> Vec<Told> {
        self.generation += 1;
        let mut alike: BTreeMap<Vec<MemberId>, Vec<Partition>> = BTreeMap::new();
        for at in &self.partitions {
            let may = self.members.iter().filter(|(_, member)| member.subscribed.contains(at));
            let may: Vec<MemberId> = may.map(|(id, _)| id.clone()).collect();
            if !may.is_empty() {
                alike.entry(may).or_default().push(at.clone());
            }
        }
        let mut targets: BTreeMap<MemberId, BTreeSet<Partition>> =
            self.members.keys().map(|id| (id.clone(), BTreeSet::new())).collect();
        for (ids, partitions) in alike {
            for (id, at) in self.share_out(&ids, partitions) {
                targets.entry(id).or_default().insert(at);
            }
        }
        let mut told = Vec::new();
        for (id, target) in targets {
            let by = Membership { member: id.clone(), generation: self.generation };
            let Some(member) = self.members.get_mut(&id) else { continue };
            let revoked: Vec<Partition> = member.believes.difference(&target).cloned().collect();
            let assigned: Vec<Partition> = target.difference(&member.believes).cloned().collect();
            member.believes.extend(assigned.iter().cloned());
            member.owes = !revoked.is_empty();
            if !revoked.is_empty() {
                told.push((id.clone(), Said::Revoked(revoked), by.clone()));
            }
            told.push((id, Said::Assigned(assigned), by));
        }
        told
    }

    /// Who keeps or gets what. What has an owner stays where it is, or is free once that one has let go of it.
    fn share_out(&mut self, ids: &[MemberId], partitions: Vec<Partition>) -> Vec<(MemberId, Partition)> {
        let share = partitions.len().div_ceil(ids.len());
        let mut counts: BTreeMap<&MemberId, usize> = ids.iter().map(|id| (id, 0)).collect();
        let (owned, free): (Vec<_>, Vec<_>) =
            partitions.into_iter().partition(|at| self.owners.contains_key(at));
        let mut given = Vec::new();
        for at in owned {
            let Some(owner) = self.owners.get(&at) else { continue };
            if let Some(count) = counts.get_mut(owner).filter(|count| **count < share) {
                *count += 1;
                given.push((owner.clone(), at));
            }
        }
        for at in free {
            let Some(id) = ids.iter().min_by_key(|id| counts[*id]) else { break };
            counts.entry(id).and_modify(|count| *count += 1);
            self.owners.insert(at.clone(), id.clone());
            given.push((id.clone(), at));
        }
        given
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Topic;

    fn parts(topic: &str, count: u32) -> BTreeSet<Partition> {
        (0..count).map(|index| Partition { topic: Topic::new(topic), index }).collect()
    }

    #[test]
    fn nobody_is_given_what_it_has_not_subscribed_to_also_where_others_have_and_once_they_are_gone() {
        let mut group = GroupState::default();
        let [old, new] = ["old", "new"].map(|name| MemberId(name.into()));
        let member = |n, subscribed| GroupMember {
            process: Process(n),
            subscribed,
            believes: BTreeSet::new(),
            owes: false,
        };
        let (both, kept) = (&parts("tasks.gone", 3) | &parts("tasks.kept", 4), parts("tasks.kept", 4));
        group.join(old.clone(), member(1, both));
        assert_eq!(group.owns(&old).len(), 7);
        let told = group.join(new.clone(), member(2, kept.clone()));
        let gives_up = told.iter().find_map(|(id, said, _)| match said {
            Said::Revoked(parts) if *id == old => Some(parts.clone()),
            _ => None,
        });
        group.let_go(&old, &gives_up.unwrap());
        assert_eq!((group.owns(&old).len(), group.owns(&new).len()), (5, 2));
        group.expire(&old);
        assert_eq!(group.owns(&new).into_iter().collect::<BTreeSet<_>>(), kept);
    }

    #[test]
    fn whoever_comes_back_has_what_it_had_in_the_same_generation_and_its_old_id_counts_no_more() {
        let mut group = GroupState::default();
        let [old, new, other] = ["old", "new", "other"].map(|name| MemberId(name.into()));
        let member = |n| GroupMember {
            process: Process(n),
            subscribed: parts("tasks", 3),
            believes: BTreeSet::new(),
            owes: false,
        };
        group.join(old.clone(), member(1));
        let before = group.generation;
        let told = group.come_back(&old, new.clone()).unwrap();
        let by = |member: &MemberId| Membership { member: member.clone(), generation: before };
        let all: Vec<Partition> = parts("tasks", 3).into_iter().collect();
        assert_eq!(told, [(new.clone(), Said::Assigned(all), by(&new))]);
        assert!(group.offer(Tx(1), &by(&old), &[]).is_err());
        assert!(group.offer(Tx(2), &by(&new), &[]).is_ok());
        group.join(other, member(2));
        assert_eq!(group.come_back(&new, old), None, "something was asked back from it");
    }
}

//! Which topics the directory knows, under which number, and which partition a key goes to.
//!
//! Numbers are given in the order in which topics are first seen and never change. A topic that
//! the configuration no longer names stays readable; nothing can be appended to it.

use crate::engine::TopicSpec;
use crate::task::Topic;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// As stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct StoredTopic {
    pub(super) id: u32,
    pub(super) name: Topic,
    pub(super) partitions: u32,
    pub(super) compacted: bool,
    /// Some group has joined it: what is not complete pins its segment.
    pub(super) consumed: bool,
}

#[derive(Debug)]
pub(super) struct KnownTopic {
    pub(super) stored: StoredTopic,
    /// What the configuration says today.
    pub(super) limit: Option<usize>,
    pub(super) retention: Option<Duration>,
    /// Where the next record without a key goes.
    turn: AtomicU64,
}

#[derive(Debug, Default)]
pub(super) struct Topics {
    list: Vec<KnownTopic>,
    ids: HashMap<Topic, u32>,
}

impl Topics {
    /// Joins what is stored with what is configured. The second answer: what must be stored anew.
    /// A topic never loses partitions: records lie in them. A compacted one gets no more, either: the
    /// tombstone of a key must go where its record lies.
    pub(super) fn new(mut stored: Vec<StoredTopic>, specs: &[TopicSpec]) -> (Topics, Vec<StoredTopic>) {
        let mut changed = Vec::new();
        stored.sort_by_key(|t| t.id);
        for spec in specs {
            match stored.iter_mut().find(|t| t.name == spec.topic) {
                Some(t) => {
                    let grown = if spec.compacted { 0 } else { spec.partitions };
                    let now = StoredTopic {
                        partitions: t.partitions.max(grown),
                        compacted: spec.compacted,
                        ..t.clone()
                    };
                    if *t != now {
                        *t = now.clone();
                        changed.push(now);
                    }
                }
                None => {
                    let id = u32::try_from(stored.len()).unwrap_or(u32::MAX);
                    let partitions = spec.partitions.max(1);
                    let compacted = spec.compacted;
                    let new =
                        StoredTopic { id, name: spec.topic.clone(), partitions, compacted, consumed: false };
                    stored.push(new.clone());
                    changed.push(new);
                }
            }
        }
        (Topics::join(stored, specs), changed)
    }

    fn join(stored: Vec<StoredTopic>, specs: &[TopicSpec]) -> Topics {
        let ids = stored.iter().map(|t| (t.name.clone(), t.id)).collect();
        let known = |stored: StoredTopic| {
            let spec = specs.iter().find(|s| s.topic == stored.name);
            let (limit, retention) = (spec.map(|s| s.limit), spec.and_then(|s| s.retention));
            KnownTopic { stored, limit, retention, turn: AtomicU64::new(0) }
        };
        Topics { list: stored.into_iter().map(known).collect(), ids }
    }

    pub(super) fn id(&self, topic: &Topic) -> Option<u32> {
        self.ids.get(topic).copied()
    }

    pub(super) fn get(&self, id: u32) -> Option<&KnownTopic> {
        self.list.get(id as usize)
    }

    pub(super) fn all(&self) -> &[KnownTopic] {
        &self.list
    }
}

impl KnownTopic {
    /// By key: the first eight bytes of its BLAKE3, little-endian, modulo the partitions. Written
    /// down because it decides where a key lies for ever. Without a key: in turn.
    pub(super) fn partition(&self, key: Option<&[u8]>) -> u32 {
        let n = match key {
            Some(key) => {
                let mut first = [0; 8];
                first.copy_from_slice(&blake3::hash(key).as_bytes()[..8]);
                u64::from_le_bytes(first)
            }
            None => self.turn.fetch_add(1, Ordering::Relaxed),
        };
        (n % u64::from(self.stored.partitions)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, partitions: u32) -> TopicSpec {
        TopicSpec {
            topic: Topic::new(name),
            partitions,
            limit: 9,
            compacted: false,
            retention: None,
            internal: false,
            own: true,
            written: true,
        }
    }

    #[test]
    fn numbers_stay_and_partitions_never_shrink() {
        let (first, stored) = Topics::new(Vec::new(), &[spec("a", 4), spec("b", 2)]);
        assert_eq!((first.id(&Topic::new("b")), stored.len()), (Some(1), 2));
        let (second, changed) = Topics::new(stored, &[spec("b", 1), spec("c", 1)]);
        assert_eq!(changed.iter().map(|t| (t.id, t.name.as_str())).collect::<Vec<_>>(), [(2, "c")]);
        assert_eq!(second.all().iter().map(|t| t.stored.partitions).collect::<Vec<_>>(), [4, 2, 1]);
        assert_eq!(second.get(0).unwrap().limit, None);
    }

    #[test]
    fn a_compacted_topic_keeps_its_partitions_so_that_a_tombstone_finds_its_item() {
        let compacted = |partitions| TopicSpec { compacted: true, ..spec("review", partitions) };
        let (_, stored) = Topics::new(Vec::new(), &[compacted(8), spec("tasks", 8)]);
        let (topics, changed) = Topics::new(stored, &[compacted(16), spec("tasks", 16)]);
        assert_eq!(topics.all().iter().map(|t| t.stored.partitions).collect::<Vec<_>>(), [8, 16]);
        assert_eq!(changed.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["tasks"]);
        // Nor does a topic that becomes compacted: its records lie where they lie.
        let stored = topics.all().iter().map(|t| t.stored.clone()).collect();
        let becomes = TopicSpec { compacted: true, ..spec("tasks", 32) };
        let (topics, changed) = Topics::new(stored, &[becomes]);
        let tasks = &topics.all()[1].stored;
        assert_eq!((tasks.partitions, tasks.compacted, changed.len()), (16, true, 1));
    }

    #[test]
    fn the_partition_of_a_key_is_the_same_for_ever() {
        let (topics, _) = Topics::new(Vec::new(), &[spec("a", 16)]);
        let at = |key: &str| topics.get(0).map(|t| t.partition(Some(key.as_bytes())));
        assert_eq!(["", "ticket-1", "ticket-2"].map(at), [Some(15), Some(7), Some(6)]);
    }
}

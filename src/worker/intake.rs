//! The two groups that a worker is a member of, as one: the topics of its kinds, and those of tokens.
//!
//! Members of a group share out partitions by their number, whatever topics they belong to. In one group a
//! second process would get the tokens, and the first keep every task. It decides nothing else.

use crate::engine::{Engine, Event, Gone, Group, Lease, TOKENS, WORKER};
use crate::task::Topic;
use std::collections::{BTreeSet, HashSet};

pub(super) struct Intake {
    tasks: Box<dyn Group>,
    tokens: Box<dyn Group>,
    of_tokens: HashSet<Topic>,
    /// Who is asked first the next time.
    turn: bool,
}

impl Intake {
    pub(super) fn join(engine: &Engine, tasks: &[Topic], tokens: &[Topic]) -> Self {
        Intake {
            tasks: engine.groups.join(WORKER, tasks),
            tokens: engine.groups.join(TOKENS, tokens),
            of_tokens: tokens.iter().cloned().collect(),
            turn: false,
        }
    }

    /// Cancel-safe. They take turns, so that neither starves the other.
    pub(super) async fn next(&mut self, room: bool) -> Event {
        self.turn = !self.turn;
        let (first, second) = match self.turn {
            true => (&mut self.tasks, &mut self.tokens),
            false => (&mut self.tokens, &mut self.tasks),
        };
        tokio::select! {
            biased;
            event = first.next(room) => event,
            event = second.next(room) => event,
        }
    }

    fn of(&self, topic: &Topic) -> &dyn Group {
        if self.of_tokens.contains(topic) { &*self.tokens } else { &*self.tasks }
    }

    pub(super) fn hold(&self, topic: &Topic, held: bool) {
        self.of(topic).hold(topic, held);
    }

    pub(super) fn drained(&self, lease: Lease) {
        self.of(&lease.at.topic).drained(lease);
    }

    pub(super) fn orphaned(&self, lease: Lease, gone: &Gone, offsets: &BTreeSet<u64>) {
        self.of(&lease.at.topic).orphaned(lease, gone, offsets);
    }

    pub(super) fn not_gone(&self, lease: Lease) {
        self.of(&lease.at.topic).not_gone(lease);
    }
}

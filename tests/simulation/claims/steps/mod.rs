//! Everything that can happen next in a state, one atomic step each.

mod arbiter;
mod commit;
mod faults;
mod slots;
mod time;
mod worker;

use super::checks::Broken;
use super::configurations::Config;
use super::flaws::Flaw;
use super::state::*;

#[derive(Clone, Copy)]
pub(crate) struct Label {
    pub(crate) what: &'static str,
    pub(crate) process: u8,
    pub(crate) record: u8,
    /// The delivery that acts has lost its lease.
    pub(crate) zombie: bool,
}

#[derive(Clone, Copy)]
pub(crate) struct Next {
    pub(crate) label: Label,
    pub(crate) state: State,
    /// The environment did it; a fault-free continuation may not count on it.
    pub(crate) fault: bool,
    pub(crate) broken: Option<Broken>,
}

pub(crate) struct Steps<'a> {
    pub(crate) from: &'a State,
    pub(crate) config: &'a Config,
    pub(crate) out: &'a mut Vec<Next>,
}

impl Steps<'_> {
    fn push(&mut self, what: &'static str, process: u8, record: u8, state: State, broken: Option<Broken>) {
        self.add(Label { what, process, record, zombie: false }, state, false, broken);
    }

    fn fault(&mut self, what: &'static str, process: u8, record: u8, state: State, broken: Option<Broken>) {
        self.add(Label { what, process, record, zombie: false }, state, true, broken);
    }

    fn add(&mut self, label: Label, state: State, fault: bool, broken: Option<Broken>) {
        let state = state.canonical(self.config.rules.has(Flaw::FenceCounts));
        self.out.push(Next { label, state, fault, broken });
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.config.rules.has(flaw)
    }
}

pub(crate) fn successors(from: &State, config: &Config, out: &mut Vec<Next>) {
    out.clear();
    let mut steps = Steps { from, config, out };
    steps.deliveries();
    for i in 0..ACTS {
        let a = from.acts[i];
        let first = steps.out.len();
        match a.at {
            At::Gone => {}
            At::Mark | At::MarkReview => steps.marks(i),
            At::HandIn => steps.hand_in(i),
            _ if from.records[a.record as usize].kind == Kind::Decision => steps.arbiter(i),
            _ => steps.worker(i),
        }
        steps.notices_void(i);
        let zombie = !a.lease && !matches!(a.at, At::Mark | At::MarkReview);
        steps.out[first..].iter_mut().for_each(|n| n.label.zombie = zombie);
    }
    steps.time();
    steps.faults();
}

//! Which slots and tasks were seen before. Bounded: of more than two million, the oldest are forgotten.

use super::draw;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Entries of one age; there are two ages.
const AGE_MAX: usize = 1_000_000;

#[derive(Debug, Default)]
pub(super) struct Memory {
    slots: Mutex<Ages<Slot>>,
    /// Rule and task.
    met: Mutex<Ages<()>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    asked: u32,
    answered: u32,
}

impl Memory {
    /// Counts one more request of the slot; which one it is, from 1.
    pub(super) fn ask(&self, slot: &str) -> u32 {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = slots.entry(draw::print(&[slot]));
        entry.asked = entry.asked.saturating_add(1);
        entry.asked
    }

    /// Counts one more whole answer of the slot; which one it is, from 1.
    pub(super) fn answer(&self, slot: &str) -> u32 {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = slots.entry(draw::print(&[slot]));
        entry.answered = entry.answered.saturating_add(1);
        entry.answered
    }

    /// Whether the rule meets the task of this slot for the first time.
    pub(super) fn first(&self, rule: usize, slot: &str) -> bool {
        let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        let print = draw::print(&[&rule.to_string(), task(slot)]);
        let new = !met.knows(print);
        met.entry(print);
        new
    }
}

/// `{task}.g{generation}/{slot name}`; anything else stands for itself.
fn task(slot: &str) -> &str {
    slot.split_once('/').map_or(slot, |(task, _)| task)
}

#[derive(Debug, Default)]
struct Ages<T> {
    young: HashMap<u64, T>,
    old: HashMap<u64, T>,
}

impl<T: Copy + Default> Ages<T> {
    fn knows(&self, print: u64) -> bool {
        self.young.contains_key(&print) || self.old.contains_key(&print)
    }

    fn entry(&mut self, print: u64) -> &mut T {
        if self.young.len() >= AGE_MAX && !self.young.contains_key(&print) {
            self.old = std::mem::take(&mut self.young);
        }
        let old = self.old.get(&print).copied().unwrap_or_default();
        self.young.entry(print).or_insert(old)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_slot_and_rules_meet_a_task_once() {
        let memory = Memory::default();
        assert_eq!((memory.ask("t.g0/a.r0"), memory.ask("t.g0/a.r0"), memory.ask("t.g0/a.r1")), (1, 2, 1));
        assert!(memory.first(0, "t.g0/a.r0"));
        assert!(!memory.first(0, "t.g0/a.r1"), "another round of the same task");
        assert!(memory.first(1, "t.g0/a.r0") && memory.first(0, "u.g0/a.r0") && memory.first(0, "t.g1/a.r0"));
    }
}

//! What must hold, and which stated limits excuse what.
//! Safety is checked on every step; P2 on the finished graph, see `search`.

use super::state::*;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Broken {
    SecondOutcome,
    SecondOpenItem,
    StaleTokenAdmitted,
    BoughtAgainUncounted,
    BoughtAgainWithoutDeath,
    RepeatCountedWithoutDeath,
    JournalMiscounts,
    /// The journal holds what this generation never bought or did.
    AnswerOfAnother,
    /// A slot is barred although the hop at which it was barred is over.
    BarOutlivesHop,
    DeathCountedWithoutDeath,
    EffectTwice,
    EffectBySuperseded,
    EffectWithoutLedger,
    EffectAfterPersonAsked,
    InnocentDeadLettered,
    /// A token of a later generation came without its proof where it was needed.
    TokenInvalid,
    /// No path without faults leads to an end where every record has its due.
    DeadEnd,
}

/// Beyond these, a second outcome for a key and generation is a bug.
pub(crate) fn second_outcome_excused(h: &History) -> bool {
    !h.strict && (h.forgot || h.expired || h.amnesia_before_mark)
}

/// What the ledger no longer knows it cannot guard.
fn knowledge_gone(h: &History) -> bool {
    !h.strict && (h.forgot || h.expired)
}

pub(crate) fn after_commit(s: &State) -> Option<Broken> {
    if second_outcome_excused(&s.history) {
        return None;
    }
    if s.outcomes.iter().any(|g| g[0] + g[1] > 1) {
        return Some(Broken::SecondOutcome);
    }
    let open_items = s.records.iter().filter(|r| r.kind == Kind::Item && r.life == Life::Incomplete).count();
    (open_items > 1).then_some(Broken::SecondOpenItem)
}

/// A token was granted its key. If it had been complete, the ledger must have missed the mark.
pub(crate) fn after_grant(s: &mut State, record: u8) -> Option<Broken> {
    let r = s.records[record as usize];
    if !r.again || r.buried || s.history.strict || second_outcome_excused(&s.history) {
        return None;
    }
    if r.mark != Mark::Owed {
        return Some(Broken::StaleTokenAdmitted);
    }
    s.history.amnesia_before_mark = true;
    None
}

pub(crate) fn after_buying(s: &State, generation: usize) -> Option<Broken> {
    let h = &s.history;
    if knowledge_gone(h) || s.bought[generation] < 2 {
        return None;
    }
    if !h.crashed && !h.cut && !h.strict {
        return Some(Broken::BoughtAgainWithoutDeath);
    }
    (s.bought[generation] > s.counted[generation] + 1).then_some(Broken::BoughtAgainUncounted)
}

/// An outage may be counted as a repeat although nothing was bought; nothing else may.
pub(crate) fn after_repeat_granted(s: &State) -> Option<Broken> {
    let h = &s.history;
    (!h.crashed && !h.cut && !h.outage && !h.forgot && !h.expired)
        .then_some(Broken::RepeatCountedWithoutDeath)
}

/// The journal knows of every repeat that was granted, whatever became of its slot in between.
pub(crate) fn after_count(s: &State) -> Option<Broken> {
    let e = &s.ledger.entry;
    let granted = s.counted[e.generation as usize];
    (!knowledge_gone(&s.history) && e.call.times.min(3) != granted).then_some(Broken::JournalMiscounts)
}

pub(crate) fn after_store(s: &State) -> Option<Broken> {
    let e = &s.ledger.entry;
    let g = e.generation as usize;
    let stored = |slot: &Slot| slot.state == SlotState::Stored;
    let strange = stored(&e.call) && s.bought[g] == 0 || stored(&e.effect) && s.effects[g] == 0;
    strange.then_some(Broken::AnswerOfAnother)
}

pub(crate) fn after_barred(s: &State) -> Option<Broken> {
    let e = &s.ledger.entry;
    (e.effect.barred_at != e.hop).then_some(Broken::BarOutlivesHop)
}

/// Nothing but a death, or a process cut off for longer than its lease, is counted as a death:
/// no outage, no move, no deploy, no slot that was given up.
pub(crate) fn after_death(s: &State) -> Option<Broken> {
    let h = &s.history;
    (!h.crashed && !h.cut && !h.forgot).then_some(Broken::DeathCountedWithoutDeath)
}

/// The ledger lets `a` run its effect.
pub(crate) fn after_effect_granted(s: &State, a: &Act) -> Option<Broken> {
    let e = &s.ledger.entry;
    let past = e.hop > s.records[a.record as usize].hop;
    (e.holder != a.id || past).then_some(Broken::EffectBySuperseded)
}

pub(crate) fn after_effect(s: &State, generation: u8) -> Option<Broken> {
    let h = &s.history;
    let g = generation as usize;
    if s.effects[g] > 1 && !knowledge_gone(h) {
        return Some(Broken::EffectTwice);
    }
    // Granted, then cut off, then sent: the one case in which a person may have been asked in between.
    let excused = !h.strict && (h.cut || second_outcome_excused(h));
    (s.outcomes[g] != [0, 0] && !excused).then_some(Broken::EffectAfterPersonAsked)
}

/// `a` is told that it conflicts with the entry's owner. It must differ,
/// and must not be a chain that was admitted before, unless the ledger forgot it or it lives twice.
pub(crate) fn after_conflict(s: &State, a: &Act) -> Option<Broken> {
    let owner = s.records[s.ledger.entry.origin as usize];
    let token = s.records[a.record as usize];
    let h = &s.history;
    let second_life = token.again || h.amnesia_before_mark || h.forgot;
    let admitted_before = (a.fence != 0 || token.hop > 0) && !second_life;
    (owner.print == token.print || admitted_before).then_some(Broken::InnocentDeadLettered)
}

/// The end that P2 asks for: nothing is left to do, and every source record either
/// has an outcome of its payload or a dead letter of its own.
pub(crate) fn is_good_end(s: &State) -> bool {
    if s.acts.iter().any(|a| a.at != At::Gone) {
        return false;
    }
    s.records.iter().all(|r| match (r.life, r.kind) {
        (Life::Absent, _) => true,
        (Life::Incomplete, _) => false,
        (Life::Complete, Kind::Source) => {
            // A ledger that forgets can hand the key to another payload; then one dead letter speaks for all copies.
            let copy_buried =
                || s.records.iter().any(|o| o.buried && o.print == r.print && o.generation == r.generation);
            r.buried
                || s.outcomes[r.generation as usize][r.print as usize] > 0
                || (s.history.forgot && copy_buried())
        }
        (Life::Complete, _) => true,
    })
}

//! Decides which topics are not read now, or only one record at a time: those whose kinds no model serves
//! or may be back for, those of a kind whose tasks die in numbers (`flood.rs`), and those whose next record
//! is written with a schema that nobody knows yet.
//!
//! Takes `now`; never reads a clock, never asks a model, never holds anything itself.

use super::flood::Flood;
use crate::avro::Need;
use crate::pipeline::Ended;
use crate::settings::Kind;
use crate::task::{Position, Topic};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A topic is held once no model of a line-up of its kinds has been available for this long; shorter gaps
/// are ridden out in place (`design/model-calls.md`, "Pause consumption").
const HOLD_AFTER: Duration = Duration::from_secs(2);

/// Whether the kinds of a topic are served. Ordered: the worst of them counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Serving {
    Somebody,
    /// Whether a model is back is found out by the next call.
    MayBeTried,
    Nobody,
}

/// Since when each topic has nobody to serve it, how the tasks of each kind end, which topics are held, and
/// which of them but for one record: a model that may be tried again is tried with one task, not with the
/// backlog.
#[derive(Default)]
pub(super) struct Holds {
    since: HashMap<Topic, Instant>,
    floods: HashMap<Arc<str>, Flood>,
    held: HashSet<Topic>,
    but_for_one: HashSet<Topic>,
    /// Records that were handed out and cannot be read yet: whose they are, and what they want. About one
    /// per topic: it holds its topic.
    wanting: HashMap<Position, (Arc<str>, Need)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Hold {
    pub held: bool,
    pub changed: bool,
}

impl Holds {
    /// For a topic with these kinds.
    pub(super) fn decide(
        &mut self,
        topic: &Topic,
        kinds: &[Arc<Kind>],
        serving: Serving,
        now: Instant,
    ) -> Hold {
        self.but_for_one.remove(topic);
        let long = |since: &Instant| now.duration_since(*since) >= HOLD_AFTER;
        let away = match serving {
            Serving::Nobody => long(self.since.entry(topic.clone()).or_insert(now)),
            Serving::MayBeTried => {
                if self.since.get(topic).is_some_and(long) {
                    self.but_for_one.insert(topic.clone());
                }
                false
            }
            Serving::Somebody => {
                self.since.remove(topic);
                false
            }
        };
        let held = self.flooded(kinds, now) || away || self.wanting(topic).is_some();
        let changed = if held { self.held.insert(topic.clone()) } else { self.held.remove(topic) };
        Hold { held, changed }
    }

    /// A pause that is over becomes a trial, of every kind of the topic.
    /// A person wants these kinds to be read again.
    pub(super) fn resume(&mut self, kinds: &[Arc<Kind>], now: Instant) {
        for kind in kinds {
            if let Some(flood) = self.floods.get_mut(&kind.name) {
                flood.resume(now);
            }
        }
    }

    fn flooded(&mut self, kinds: &[Arc<Kind>], now: Instant) -> bool {
        let mut held = false;
        for kind in kinds {
            held |= self.floods.get_mut(&kind.name).is_some_and(|flood| flood.holds(now));
        }
        held
    }

    /// Why the tasks of one of these kinds are not taken, or only one at a time, if it is for how they end.
    pub(super) fn flood(&self, kinds: &[Arc<Kind>], now: Instant) -> Option<String> {
        kinds.iter().find_map(|kind| self.floods.get(&kind.name)?.why(&kind.name, now))
    }

    /// A record was handed out that cannot be read before a schema is known. Its topic is held.
    pub(super) fn wants(&mut self, at: Position, kind: Arc<str>, need: Need) {
        self.held.insert(at.at.topic.clone());
        self.wanting.insert(at, (kind, need));
    }

    /// Forgets what has become known.
    pub(super) fn settle(&mut self, known: impl Fn(&Need) -> bool) {
        self.wanting.retain(|_, (_, need)| !known(need));
    }

    /// The record is back, read or not. `true`: its topic may be let go.
    pub(super) fn wants_no_more(&mut self, at: &Position) -> bool {
        self.wanting.remove(at).is_some()
    }

    /// The kind of a record of the topic that wants a schema.
    pub(super) fn wanting(&self, topic: &Topic) -> Option<&Arc<str>> {
        self.wanting.iter().find(|(at, _)| at.at.topic == *topic).map(|(_, (kind, _))| kind)
    }

    pub(super) fn lets_one_through(&self, topic: &Topic) -> bool {
        self.but_for_one.contains(topic)
    }

    /// A record of the topic was handed out. `true`: it was the only one that may be, and the topic is held
    /// again.
    pub(super) fn handed_out(&mut self, topic: &Topic, kinds: &[Arc<Kind>], now: Instant) -> bool {
        let mut alone = self.but_for_one.remove(topic);
        for kind in kinds {
            alone |= self.floods.get_mut(&kind.name).is_some_and(|flood| flood.handed_out(now));
        }
        alone && self.held.insert(topic.clone())
    }

    /// It is back, and a task may have ended with it. `true`: what is held may have changed.
    pub(super) fn back(&mut self, kinds: &[Arc<Kind>], ended: Option<Ended>, now: Instant) -> bool {
        let mut changed = false;
        for kind in kinds {
            changed |= self.floods.get_mut(&kind.name).is_some_and(Flood::back);
        }
        let Some(Ended { kind, dead }) = ended else { return changed };
        let flood = self.floods.entry(kind.clone()).or_default();
        if flood.ended(dead, now) {
            changed = true;
            let why = flood.why(&kind, now).unwrap_or_default();
            tracing::warn!(%kind, why, "its tasks die in numbers: it pauses");
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Reason;
    use crate::settings::Settings;

    fn topic() -> Topic {
        Topic::new("tasks.ticket")
    }

    /// A kind whose tasks have died in numbers, at `began`.
    fn flooded(holds: &mut Holds, began: Instant) -> Vec<Arc<Kind>> {
        let text = "[tasks.ticket]\ninput = { text = \"string\" }\n";
        let settings = Settings::parse(std::path::Path::new("tidegate.toml"), text, &|_| None).unwrap();
        let kinds = settings.kinds.clone();
        let dead = Ended { kind: kinds[0].name.clone(), dead: Some(Reason::TemplateFailed) };
        assert!((0..200).any(|_| holds.back(&kinds, Some(dead.clone()), began)));
        kinds
    }

    #[test]
    fn a_topic_is_held_only_after_two_seconds_without_a_model_and_let_go_at_once() {
        let (mut holds, topic, began) = (Holds::default(), topic(), Instant::now());
        let mut decide = |serving, ms| holds.decide(&topic, &[], serving, began + Duration::from_millis(ms));
        assert_eq!(decide(Serving::Nobody, 0), Hold { held: false, changed: false });
        assert_eq!(decide(Serving::Nobody, 1_999), Hold { held: false, changed: false });
        assert_eq!(decide(Serving::Nobody, 2_000), Hold { held: true, changed: true });
        assert_eq!(decide(Serving::Nobody, 2_200), Hold { held: true, changed: false });
        assert_eq!(decide(Serving::Somebody, 2_400), Hold { held: false, changed: true });
        assert_eq!(decide(Serving::Nobody, 2_600), Hold { held: false, changed: false });
    }

    #[test]
    fn a_kind_whose_tasks_die_in_numbers_is_held_at_once_and_also_for_a_model_that_went_away_since() {
        let (mut holds, topic, began) = (Holds::default(), topic(), Instant::now());
        let at = |ms| began + Duration::from_millis(ms);
        holds.decide(&topic, &[], Serving::Nobody, at(0));
        let kinds = flooded(&mut holds, at(200));
        assert_eq!(
            holds.decide(&topic, &kinds, Serving::Nobody, at(200)),
            Hold { held: true, changed: true }
        );
        assert!(holds.flood(&kinds, at(200)).is_some());
        // The pause of the flood is over; the model is away for longer than two seconds.
        assert_eq!(
            holds.decide(&topic, &kinds, Serving::Nobody, at(40_000)),
            Hold { held: true, changed: false }
        );
        let well = holds.decide(&topic, &kinds, Serving::Somebody, at(40_200));
        assert_eq!(well, Hold { held: false, changed: true }, "and is tried one task at a time");
        assert!(holds.handed_out(&topic, &kinds, at(40_400)), "the first one closes the topic behind itself");
        let out = holds.decide(&topic, &kinds, Serving::Somebody, at(40_600));
        assert_eq!(out, Hold { held: true, changed: false });
        assert!(holds.back(&kinds, None, at(40_800)));
        let back = holds.decide(&topic, &kinds, Serving::Somebody, at(40_800));
        assert_eq!(back, Hold { held: false, changed: true });
    }

    #[test]
    fn p7_a_model_that_may_be_back_is_tried_with_one_task_and_not_with_the_backlog() {
        let (mut holds, topic, began) = (Holds::default(), topic(), Instant::now());
        let at = |ms| began + Duration::from_millis(ms);
        holds.decide(&topic, &[], Serving::Nobody, at(0));
        assert_eq!(holds.decide(&topic, &[], Serving::Nobody, at(2_000)), Hold { held: true, changed: true });
        let released = holds.decide(&topic, &[], Serving::MayBeTried, at(10_000));
        assert_eq!((released, holds.lets_one_through(&topic)), (Hold { held: false, changed: true }, true));
        assert!(holds.handed_out(&topic, &[], at(10_000)), "the first record closes it behind itself");
        assert!(!holds.handed_out(&topic, &[], at(10_000)), "what was handed out already changes nothing");
        // It failed: two seconds more of full intake would empty the backlog into the retry topics.
        assert_eq!(
            holds.decide(&topic, &[], Serving::Nobody, at(10_200)),
            Hold { held: true, changed: false }
        );
        // It was answered.
        assert_eq!(
            holds.decide(&topic, &[], Serving::Somebody, at(20_000)),
            Hold { held: false, changed: true }
        );
        assert!(!holds.handed_out(&topic, &[], at(20_000)));
    }

    #[test]
    fn a_flood_is_not_let_through_because_a_model_may_be_back() {
        let (mut holds, topic, began) = (Holds::default(), topic(), Instant::now());
        let at = |ms| began + Duration::from_millis(ms);
        holds.decide(&topic, &[], Serving::Nobody, at(0));
        let kinds = flooded(&mut holds, at(100));
        let held = holds.decide(&topic, &kinds, Serving::MayBeTried, at(3_000));
        assert_eq!(held, Hold { held: true, changed: true });
    }

    #[test]
    fn p7_one_record_that_wants_a_schema_holds_its_topic_until_it_is_known_or_the_record_is_back() {
        let (mut holds, topic, now) = (Holds::default(), topic(), Instant::now());
        let at = |offset: u64| format!("tasks.ticket/0/{offset}").parse::<Position>().unwrap();
        let other = Topic::new("tasks.other");
        let (need, second) = (Need::Reader(7), Need::Reader(8));
        holds.wants(at(1), "ticket".into(), need.clone());
        holds.wants(at(2), "ticket".into(), second.clone());
        let held = Hold { held: true, changed: false };
        assert_eq!(holds.decide(&topic, &[], Serving::Somebody, now), held, "at once, and already");
        assert_eq!((holds.wanting(&topic).map(|k| &**k), holds.wanting(&other)), (Some("ticket"), None));
        assert_eq!(holds.decide(&other, &[], Serving::Somebody, now), Hold { held: false, changed: false });
        holds.settle(|known| *known == need);
        assert_eq!(holds.decide(&topic, &[], Serving::Somebody, now), held, "the second still waits");
        // Its lease is void: whoever owns the partition now asks by itself.
        assert!(holds.wants_no_more(&at(2)) && !holds.wants_no_more(&at(1)));
        let gone = holds.decide(&topic, &[], Serving::Somebody, now);
        assert_eq!(gone, Hold { held: false, changed: true });
    }

    #[test]
    fn a_short_gap_holds_nothing_also_when_a_model_may_be_tried() {
        let (mut holds, topic, now) = (Holds::default(), topic(), Instant::now());
        holds.decide(&topic, &[], Serving::Nobody, now);
        holds.decide(&topic, &[], Serving::MayBeTried, now + Duration::from_millis(500));
        assert!(!holds.lets_one_through(&topic) && !holds.handed_out(&topic, &[], now));
    }
}

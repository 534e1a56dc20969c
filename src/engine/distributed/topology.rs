//! Compares the topics that there are with those that there must be: what to create, what to change, and
//! what breaks a promise as it stands.
//!
//! Decides only. Nothing here asks a broker, and nothing ever deletes a topic or takes partitions away.

use crate::engine::TopicSpec;
use crate::task::Topic;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A topic as its brokers describe it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Found {
    pub partitions: u32,
    /// Of each record, in the partition that has the fewest; 0: not told.
    #[serde(default)]
    pub copies: u16,
    /// Every setting in force, whoever set it.
    pub settings: BTreeMap<String, String>,
}

/// One thing that is not as it should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    pub topic: Topic,
    pub change: Change,
    /// Why Tidegate does not run before this is done; `None`: it does.
    pub breaks: Option<&'static str>,
    /// Why it is not done without being allowed.
    pub needs: Option<Allow>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    Create {
        partitions: u32,
        settings: BTreeMap<String, String>,
    },
    /// More partitions.
    Grow {
        from: u32,
        to: u32,
    },
    Set {
        name: &'static str,
        from: String,
        to: String,
    },
}

/// What puts records at risk and is not ours to change: the topic, and what a person should know of it.
/// `replication`: copies that are asked for.
pub fn risks(
    specs: &[TopicSpec],
    found: &BTreeMap<Topic, Found>,
    window: Duration,
    replication: Option<u16>,
) -> Vec<(Topic, String)> {
    let mut all = Vec::new();
    for spec in specs {
        let Some(there) = found.get(&spec.topic) else { continue };
        if let Some(wanted) = replication.filter(|wanted| there.copies > 0 && there.copies < *wanted) {
            let what = format!(
                "it has {} of each record in place of the {wanted} of `[engine] replication`; \
                 kafka-reassign-partitions.sh adds more",
                if there.copies == 1 { "one copy".to_owned() } else { format!("{} copies", there.copies) }
            );
            all.push((spec.topic.clone(), what));
        }
        let kept = there.settings.get(RETENTION).map_or(u64::MAX, |kept| amount(kept));
        let read_only = !spec.own && !spec.written;
        if read_only && u128::from(kept) < window.as_millis() {
            let what = format!(
                "its records are deleted after {}, done or not, and an outage or a backlog may last longer; \
                 whoever owns it can raise retention.ms",
                match kept {
                    ms if ms % 86_400_000 == 0 => format!("{} d", ms / 86_400_000),
                    ms if ms % 3_600_000 == 0 => format!("{} h", ms / 3_600_000),
                    ms => format!("{ms} ms"),
                }
            );
            all.push((spec.topic.clone(), what));
        }
    }
    all
}

/// What is done only where a person allows it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Allow {
    /// Records that the topic keeps now would be deleted.
    Shrink,
    /// The topic is not Tidegate's own: a kind reads or writes it.
    Others,
}

impl Allow {
    pub fn word(self) -> &'static str {
        match self {
            Allow::Shrink => "shrink",
            Allow::Others => "others",
        }
    }

    /// Each once, in their order as words.
    pub fn words(needs: impl IntoIterator<Item = Allow>) -> Vec<&'static str> {
        let words: BTreeSet<&'static str> = needs.into_iter().map(Allow::word).collect();
        words.into_iter().collect()
    }

    /// What `topics apply` is told so that it does all of these; nothing where it needs no leave.
    pub fn flag(needs: impl IntoIterator<Item = Allow>) -> String {
        let words = Allow::words(needs);
        if words.is_empty() { String::new() } else { format!(" --allow {}", words.join(",")) }
    }
}

const CLEANUP: &str = "cleanup.policy";
const RETENTION: &str = "retention.ms";
const RETENTION_BYTES: &str = "retention.bytes";
const LARGEST: &str = "max.message.bytes";
const STAMPS: &str = "message.timestamp.type";
/// For ever, or without bound.
const NEVER: &str = "-1";
/// Brokers judge what they are sent as one batch: around the largest record there must be room for its frame,
/// and around many small ones for all that a producer sends at once (512 KiB).
const FRAME: usize = 64 << 10;
const BATCH: usize = 1 << 20;

const LOST: &str = "work that is not done yet would be deleted there";
const COMPACTED: &str = "of two records with one key, the first would be deleted unread";
const UNCOMPACTED: &str = "open reviews would be deleted with age";
const TOO_SMALL: &str = "outcomes that are within the limits would be refused";
const MISSING: &str = "it does not exist";

/// The settings that a topic of this kind must have; a broker's own where none is named.
fn wanted(spec: &TopicSpec, window: Duration) -> BTreeMap<String, String> {
    let retention = spec.retention.unwrap_or(window);
    let kept =
        if spec.internal || spec.compacted { NEVER.to_owned() } else { retention.as_millis().to_string() };
    let mut all = BTreeMap::from([
        (CLEANUP, if spec.compacted { "compact" } else { "delete" }.to_owned()),
        (RETENTION, kept),
        (RETENTION_BYTES, NEVER.to_owned()),
        (LARGEST, (spec.limit + FRAME).max(BATCH).to_string()),
    ]);
    if spec.own {
        // "Not before" and look-ups by time count on the broker's clock, not on a producer's.
        all.insert(STAMPS, "LogAppendTime".to_owned());
    }
    all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Everything that differs, in the order of `specs`. `found`: the topics that exist.
pub fn differences(specs: &[TopicSpec], found: &BTreeMap<Topic, Found>, window: Duration) -> Vec<Difference> {
    let mut all = Vec::new();
    for spec in specs {
        let wanted = wanted(spec, window);
        let mut add = |change, breaks, needs| {
            all.push(Difference { topic: spec.topic.clone(), change, breaks, needs });
        };
        let Some(there) = found.get(&spec.topic) else {
            let change = Change::Create { partitions: spec.partitions, settings: wanted };
            add(change, Some(MISSING), None);
            continue;
        };
        for (name, is) in [CLEANUP, RETENTION, RETENTION_BYTES, LARGEST, STAMPS]
            .into_iter()
            .filter_map(|name| Some((name, there.settings.get(name)?.as_str())))
        {
            let Some(to) = wanted.get(name) else { continue };
            let verdict = judge(spec, name, is, to);
            let Verdict::Differs { breaks, shrinks } = verdict else { continue };
            // What others have made is theirs, as long as it breaks nothing.
            if !spec.own && breaks.is_none() {
                continue;
            }
            let needs = match (spec.own, shrinks) {
                (false, _) => Some(Allow::Others),
                (true, true) => Some(Allow::Shrink),
                (true, false) => None,
            };
            add(Change::Set { name, from: is.to_owned(), to: to.clone() }, breaks, needs);
        }
        // A key's tombstone must go where its record lies, and all decisions on one item into one partition.
        if spec.own && !spec.compacted && !spec.internal && there.partitions < spec.partitions {
            add(Change::Grow { from: there.partitions, to: spec.partitions }, None, None);
        }
    }
    all
}

enum Verdict {
    Fits,
    Differs { breaks: Option<&'static str>, shrinks: bool },
}

fn judge(spec: &TopicSpec, name: &str, is: &str, to: &str) -> Verdict {
    let differs = |breaks| Verdict::Differs { breaks, shrinks: false };
    if is == to {
        return Verdict::Fits;
    }
    match name {
        CLEANUP if spec.compacted => differs(Some(UNCOMPACTED)),
        CLEANUP => differs(Some(COMPACTED)),
        // Compaction alone decides there.
        RETENTION | RETENTION_BYTES if spec.compacted => Verdict::Fits,
        RETENTION | RETENTION_BYTES if spec.internal => differs(Some(LOST)),
        RETENTION | RETENTION_BYTES => match (amount(is), amount(to)) {
            (is, to) if is > to => Verdict::Differs { breaks: None, shrinks: true },
            (is, to) if is < to => differs(None),
            _ => Verdict::Fits,
        },
        LARGEST if amount(is) >= amount(to) => Verdict::Fits,
        // What a kind reads, others have written: their limit is theirs.
        LARGEST if !spec.written => Verdict::Fits,
        LARGEST => differs(Some(TOO_SMALL)),
        _ => differs(None),
    }
}

/// What is not a number is as good as nothing; -1 is more than any number.
fn amount(text: &str) -> u64 {
    if text == NEVER { u64::MAX } else { text.parse().unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEEK: Duration = Duration::from_secs(7 * 86_400);

    fn spec(name: &str) -> TopicSpec {
        TopicSpec {
            topic: Topic::new(name),
            partitions: 4,
            limit: 4 << 20,
            compacted: false,
            retention: None,
            internal: false,
            own: true,
            written: true,
        }
    }

    /// As it would be created.
    fn sound(spec: &TopicSpec) -> Found {
        Found { partitions: spec.partitions, copies: 3, settings: wanted(spec, WEEK) }
    }

    fn told(spec: &TopicSpec, found: &Found) -> Vec<Difference> {
        differences(std::slice::from_ref(spec), &BTreeMap::from([(spec.topic.clone(), found.clone())]), WEEK)
    }

    fn with(spec: &TopicSpec, name: &str, value: &str) -> Vec<Difference> {
        let mut found = sound(spec);
        found.settings.insert(name.to_owned(), value.to_owned());
        told(spec, &found)
    }

    #[test]
    fn what_was_created_is_as_it_should_be() {
        let specs = [
            spec("results"),
            TopicSpec { internal: true, ..spec("resume") },
            TopicSpec { compacted: true, ..spec("review.requests") },
            TopicSpec { own: false, ..spec("tickets") },
        ];
        let missing = differences(&specs, &BTreeMap::new(), WEEK);
        let mut made = BTreeMap::new();
        for difference in &missing {
            assert_eq!((difference.breaks, difference.needs), (Some(MISSING), None));
            let Change::Create { partitions, settings } = &difference.change else {
                panic!("{difference:?}")
            };
            made.insert(
                difference.topic.clone(),
                Found { partitions: *partitions, copies: 1, settings: settings.clone() },
            );
        }
        assert_eq!(missing.len(), 4);
        assert_eq!(differences(&specs, &made, WEEK), []);
    }

    #[test]
    fn p2_a_topic_that_would_lose_work_is_refused_until_it_is_mended() {
        let internal = TopicSpec { internal: true, ..spec("retry.5s") };
        let compacted = TopicSpec { compacted: true, ..spec("review.requests") };
        for (spec, name, value, why) in [
            (&internal, RETENTION, "604800000", LOST),
            (&internal, RETENTION_BYTES, "1000000", LOST),
            (&internal, CLEANUP, "compact,delete", COMPACTED),
            (&spec("tasks.a"), CLEANUP, "compact", COMPACTED),
            (&compacted, CLEANUP, "delete", UNCOMPACTED),
            (&compacted, CLEANUP, "compact,delete", UNCOMPACTED),
            (&spec("results"), LARGEST, "1048588", TOO_SMALL),
        ] {
            let told = with(spec, name, value);
            assert_eq!(told.len(), 1, "{name} {value}");
            assert_eq!((told[0].breaks, told[0].needs), (Some(why), None), "{name} {value}");
            let Change::Set { from, .. } = &told[0].change else { panic!("{told:?}") };
            assert_eq!(from, value);
        }
    }

    #[test]
    fn what_deletes_records_or_belongs_to_others_needs_to_be_allowed() {
        let shrinks = with(&spec("results"), RETENTION, "-1");
        assert_eq!((shrinks[0].breaks, shrinks[0].needs), (None, Some(Allow::Shrink)));
        let grows = with(&spec("results"), RETENTION, "1000");
        assert_eq!((grows[0].breaks, grows[0].needs), (None, None));
        let theirs = TopicSpec { own: false, written: false, ..spec("tickets") };
        let compacted = with(&theirs, CLEANUP, "compact");
        assert_eq!((compacted[0].breaks, compacted[0].needs), (Some(COMPACTED), Some(Allow::Others)));
        // Their retention, their limit and their number of partitions are theirs.
        assert_eq!(with(&theirs, RETENTION, "3600000"), []);
        assert_eq!(with(&theirs, LARGEST, "1048588"), []);
        assert_eq!(told(&theirs, &Found { partitions: 1, ..sound(&theirs) }), []);
        let written = TopicSpec { own: false, ..spec("tickets.labelled") };
        assert_eq!(with(&written, LARGEST, "1048588")[0].needs, Some(Allow::Others));
    }

    #[test]
    fn partitions_are_added_and_never_taken_away_and_a_compacted_topic_keeps_its_own() {
        let spec = spec("results");
        let of = |partitions| told(&spec, &Found { partitions, ..sound(&spec) });
        assert_eq!(of(3)[0].change, Change::Grow { from: 3, to: 4 });
        assert_eq!(of(9), []);
        let compacted = TopicSpec { compacted: true, ..spec.clone() };
        assert_eq!(told(&compacted, &Found { partitions: 1, ..sound(&compacted) }), []);
        let internal = TopicSpec { internal: true, ..spec };
        assert_eq!(told(&internal, &Found { partitions: 1, ..sound(&internal) }), []);
    }

    #[test]
    fn p2_too_few_copies_and_work_that_is_deleted_with_age_are_told() {
        let (own, theirs) = (spec("results"), TopicSpec { own: false, written: false, ..spec("tickets") });
        let told = |spec: &TopicSpec, found: Found, wanted| {
            let found = BTreeMap::from([(spec.topic.clone(), found)]);
            let told = risks(std::slice::from_ref(spec), &found, WEEK, wanted);
            told.into_iter().map(|(topic, what)| format!("{topic}: {what}")).collect::<Vec<_>>()
        };
        let short = |spec: &TopicSpec| {
            let mut found = sound(spec);
            found.settings.insert(RETENTION.to_owned(), "3600000".to_owned());
            found
        };
        assert_eq!(told(&own, sound(&own), Some(3)), [""; 0]);
        assert_eq!(told(&own, Found { copies: 0, ..sound(&own) }, Some(3)), [""; 0], "not told");
        assert_eq!(told(&own, Found { copies: 1, ..sound(&own) }, None), [""; 0]);
        let few = told(&own, Found { copies: 1, ..sound(&own) }, Some(3));
        assert!(few.len() == 1 && few[0].starts_with("results: it has one copy of each record"), "{few:?}");
        assert_eq!(told(&theirs, sound(&theirs), None), [""; 0]);
        assert_eq!(told(&own, short(&own), None), [""; 0], "what is ours, a plan changes");
        let young = told(&theirs, short(&theirs), None);
        assert!(
            young.len() == 1 && young[0].starts_with("tickets: its records are deleted after 1 h"),
            "{young:?}"
        );
    }
}

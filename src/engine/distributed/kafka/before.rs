//! What groups have committed before this process joins any: for a start that finds an empty ledger.
//!
//! Joins nothing and writes nothing.

use super::asking::committed;
use super::context::Quiet;
use super::guarded;
use super::properties::Properties;
use crate::task::Partition;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use std::collections::BTreeMap;
use std::time::Duration;

/// For one request: a coordinator that starts reads its offsets first, which takes seconds.
const ANSWER: Duration = Duration::from_secs(20);

/// Whether a group whose name begins with `groups` has an offset in any of `parts`.
pub(super) fn has_committed(
    properties: &Properties,
    name: &str,
    groups: &str,
    parts: &[Partition],
) -> KafkaResult<bool> {
    let client = |group: &str| -> KafkaResult<BaseConsumer<Quiet>> {
        properties.reader(name, group).create_with_context(Quiet)
    };
    let all = client("tidegate-before")?.fetch_group_list(None, ANSWER)?;
    for group in all.groups().iter().filter_map(|group| guarded(|| group.name().to_owned())) {
        // One that does not tell has a transaction under way: it works.
        let works = |found: BTreeMap<_, Option<_>>| found.values().any(Option::is_some);
        if group.starts_with(groups) && committed(&client(&group)?, parts).map_or(true, works) {
            return Ok(true);
        }
    }
    Ok(false)
}

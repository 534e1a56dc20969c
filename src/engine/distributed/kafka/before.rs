//! What groups have committed before this process joins any: for a start that finds an empty ledger.
//!
//! Joins nothing and writes nothing.

use super::asking::committed;
use super::context::Quiet;
use super::properties::Properties;
use crate::task::Partition;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaResult;
use std::time::{Duration, Instant};

/// For all of them: a coordinator that just starts refuses, and an open transaction holds an answer up until it times
/// out.
const PATIENCE: Duration = Duration::from_secs(20);
const AGAIN: Duration = Duration::from_millis(500);

/// Whether one of `groups` has an offset in any of `parts`.
pub(super) fn has_committed(
    properties: &Properties,
    name: &str,
    groups: &[String],
    parts: &[Partition],
) -> KafkaResult<bool> {
    let until = Instant::now() + PATIENCE;
    for group in groups {
        let client: BaseConsumer<Quiet> = properties.reader(name, group).create_with_context(Quiet)?;
        loop {
            match committed(&client, parts) {
                Ok(found) if found.values().any(Option::is_some) => return Ok(true),
                Ok(_) => break,
                Err(error) if Instant::now() >= until => return Err(error),
                Err(_) => std::thread::sleep(AGAIN),
            }
        }
    }
    Ok(false)
}

//! Decides which librdkafka properties a person may set, and what each client of ours is made with.
//!
//! Everything of librdkafka may be given (addresses, TLS, SASL, sizes); what would break a promise is
//! refused with the reason. It opens no connection.

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a broker keeps a transaction open that nobody ends: a short stall for its readers.
pub(super) const TRANSACTION: Duration = Duration::from_secs(10);
/// A record that is not delivered by then is given up, while its transaction can still be aborted.
const DELIVERY: Duration = Duration::from_secs(8);
/// Whoever the broker has not heard of for so long is no member any more.
pub(super) const SESSION: Duration = Duration::from_secs(10);
/// Largest message that a client takes to a broker; above every limit that a topic may have (four times
/// 8 MiB, and room for keys and headers). The topic's own limit decides.
const MESSAGE_MAX: usize = 64 << 20;
/// Bytes of one request to a partition. A broker judges the batch by the topic's limit, so it stays below
/// what any topic is likely to take.
const BATCH_BYTES: usize = 512 << 10;

/// What cannot be given: name, and why.
const OURS: [(&str, &str); 12] = [
    ("isolation.level", "records of transactions that were aborted would be read as if they were there"),
    ("enable.auto.commit", "an offset would be committed before its record is done"),
    ("enable.auto.offset.store", "an offset would be committed before its record is done"),
    ("transactional.id", "it is random for each process: two under one name fence each other"),
    ("group.id", "the groups have names of their own"),
    (
        "group.instance.id",
        "it is random for each process: two under one name put each other out of the group",
    ),
    ("client.id", "it carries the name of the process and what each client is for"),
    ("enable.partition.eof", "readers rely on it, consumers must not see it"),
    ("transaction.timeout.ms", "the watchdog counts on 10 seconds"),
    ("message.timeout.ms", "it must lie below the transaction's timeout"),
    ("delivery.timeout.ms", "it must lie below the transaction's timeout"),
    ("partitioner", "a key's tombstone would lie in another partition than its record"),
];

/// What may be given with one value only: name, the values that change nothing, and why.
const FIXED: [(&str, &[&str], &str); 6] = [
    (
        "auto.offset.reset",
        &["error", "none"],
        "where reading begins is decided by what was committed; a reset loses or repeats work",
    ),
    ("enable.idempotence", &["true"], "without it a retry may write a record twice"),
    ("acks", &["all", "-1"], "a record that one broker has may be lost with that broker"),
    ("request.required.acks", &["all", "-1"], "a record that one broker has may be lost with that broker"),
    (
        "partition.assignment.strategy",
        &["cooperative-sticky"],
        "every other one stops all partitions in each rebalance",
    ),
    ("group.protocol", &["classic"], "the client cannot rejoin under the newer protocol after a long stop"),
];

/// A property that is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{name}` cannot be set: {why}")]
pub struct Refused {
    pub name: String,
    pub why: String,
}

/// What was given, known to break nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Properties(BTreeMap<String, String>);

impl std::fmt::Debug for Properties {
    /// Names only: values may be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

impl Properties {
    /// Every property that is refused, or what was given.
    pub fn new(given: BTreeMap<String, String>) -> Result<Self, Vec<Refused>> {
        let mut refused: Vec<Refused> =
            given.iter().filter_map(|(name, value)| refuse(name, value)).collect();
        let kept = |name: &str| !refused.iter().any(|r| r.name == *name);
        let unknown: Vec<Refused> = given
            .iter()
            .filter(|(name, _)| kept(name))
            .filter_map(|(name, value)| unknown(name, value))
            .collect();
        refused.extend(unknown);
        if refused.is_empty() { Ok(Properties(given)) } else { Err(refused) }
    }

    fn client(&self, name: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        // Back soon after a broker is: the default waits up to ten seconds.
        config.set("reconnect.backoff.max.ms", "1000").set("client.id", name);
        config.set_log_level(RDKafkaLogLevel::Info);
        config
    }

    /// What was given goes over our own defaults; what must not be changed was refused.
    fn given(&self, mut config: ClientConfig) -> ClientConfig {
        for (name, value) in &self.0 {
            config.set(name, value);
        }
        config
    }

    /// Asks about topics, and changes them.
    pub(super) fn admin(&self, name: &str) -> ClientConfig {
        self.given(self.client(name))
    }

    /// A member of a group. `member_name`: of this one client, see `consumer`.
    pub(super) fn consumer(&self, name: &str, group: &str, member_name: &str) -> ClientConfig {
        let mut config = self.client(name);
        config
            .set("group.id", group)
            .set("group.instance.id", member_name)
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            // As long as a process is taken for alive by the ledger. Who dies is followed after this.
            .set("session.timeout.ms", SESSION.as_millis().to_string())
            // A member hears of a rebalance in the answer to this.
            .set("heartbeat.interval.ms", "1000")
            // Half of what one fetch of small records brings: a pause throws away whatever is fetched ahead.
            .set("queued.min.messages", "512")
            .set("queued.max.messages.kbytes", "16384")
            // How soon partitions that were added are read: the client's default is five minutes.
            .set("topic.metadata.refresh.interval.ms", "30000")
            .set("fetch.queue.backoff.ms", "100");
        let mut config = self.given(config);
        // The member id stands nowhere else (see `context`).
        let debug = self.0.get("debug").map_or_else(|| "cgrp".to_owned(), |given| format!("{given},cgrp"));
        config.set("debug", debug).set_log_level(RDKafkaLogLevel::Debug);
        config
    }

    /// Asks and reads, and is a member of nothing although it knows the group's name.
    pub(super) fn reader(&self, name: &str, group: &str) -> ClientConfig {
        let mut config = self.client(name);
        config
            .set("group.id", group)
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            // Asked for one place at a time, and answered at its end without a long wait.
            .set("enable.partition.eof", "true")
            .set("fetch.wait.max.ms", "10")
            .set("queued.max.messages.kbytes", "16384");
        self.given(config)
    }

    /// A transactional producer.
    pub(super) fn producer(&self, name: &str, id: &str) -> ClientConfig {
        let mut config = self.client(name);
        config
            .set("transactional.id", id)
            .set("transaction.timeout.ms", TRANSACTION.as_millis().to_string())
            .set("message.timeout.ms", DELIVERY.as_millis().to_string())
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // Right after a commit the broker refuses offsets for a moment, and the client sleeps this long;
            // for partitions it sleeps 20 ms whatever is set, see `transaction::ENDS`.
            .set("retry.backoff.ms", "5")
            // The batch is already formed.
            .set("linger.ms", "0")
            // Keys lie where other clients would put them.
            .set("partitioner", "murmur2_random")
            .set("batch.size", BATCH_BYTES.to_string())
            .set("message.max.bytes", MESSAGE_MAX.to_string());
        self.given(config)
    }
}

fn refuse(name: &str, value: &str) -> Option<Refused> {
    let refused = |why: &str| Some(Refused { name: name.to_owned(), why: why.to_owned() });
    if let Some((_, why)) = OURS.iter().find(|(ours, _)| *ours == name) {
        return refused(why);
    }
    let (_, may, why) = FIXED.iter().find(|(fixed, _, _)| *fixed == name)?;
    if may.contains(&value.trim()) { None } else { refused(why) }
}

/// What the client itself does not take: a name that it does not know, or a value.
fn unknown(name: &str, value: &str) -> Option<Refused> {
    let made = ClientConfig::new().set(name, value).create_native_config();
    // Its words name the property, and for a value that is refused not always the value.
    let why = match made.err()? {
        KafkaError::ClientConfig(_, why, _, _) => why,
        other => other.to_string(),
    };
    Some(Refused { name: name.to_owned(), why })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn what_would_break_a_promise_is_refused_with_its_reason() {
        for (name, value) in [
            ("isolation.level", "read_uncommitted"),
            ("enable.auto.commit", "true"),
            ("enable.auto.offset.store", "true"),
            ("transactional.id", "mine"),
            ("group.instance.id", "mine"),
            ("auto.offset.reset", "latest"),
            ("auto.offset.reset", "earliest"),
            ("enable.idempotence", "false"),
            ("acks", "1"),
            ("request.required.acks", "0"),
            ("partition.assignment.strategy", "range"),
            ("partition.assignment.strategy", "range,cooperative-sticky"),
            ("group.protocol", "consumer"),
        ] {
            let refused = Properties::new(given(&[(name, value), ("socket.keepalive.enable", "true")]));
            let refused = refused.unwrap_err();
            assert_eq!(refused.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(), [name]);
            assert!(refused[0].why.split_whitespace().count() > 3, "{}", refused[0]);
        }
    }

    #[test]
    fn every_property_that_is_refused_is_told_at_once() {
        let refused =
            Properties::new(given(&[("acks", "1"), ("group.id", "g"), ("sasl.mechanism", "PLAIN")]));
        let names: Vec<String> = refused.unwrap_err().into_iter().map(|r| r.name).collect();
        assert_eq!(names, ["acks", "group.id"]);
    }

    #[test]
    fn what_is_given_reaches_every_client_and_what_promises_rest_on_stays() {
        let all = given(&[
            ("bootstrap.servers", "b:1"),
            ("security.protocol", "SASL_SSL"),
            ("sasl.password", "secret"),
            ("acks", "all"),
            ("auto.offset.reset", "error"),
            ("debug", "broker"),
            ("linger.ms", "3"),
        ]);
        let properties = Properties::new(all).unwrap();
        assert!(!format!("{properties:?}").contains("secret"));
        let clients = [
            properties.consumer("c", "g", "c-1"),
            properties.reader("r", "g"),
            properties.producer("p", "id"),
        ];
        for config in &clients {
            assert_eq!(config.get("security.protocol"), Some("SASL_SSL"));
            assert_eq!(config.get("reconnect.backoff.max.ms"), Some("1000"));
        }
        let [consumer, reader, producer] = clients;
        assert_eq!(consumer.get("isolation.level"), Some("read_committed"));
        assert_eq!(consumer.get("auto.offset.reset"), Some("error"));
        assert_eq!(consumer.get("debug"), Some("broker,cgrp"));
        assert_eq!(consumer.get("group.instance.id"), Some("c-1"));
        assert_eq!(reader.get("isolation.level"), Some("read_committed"));
        assert_eq!(reader.get("auto.offset.reset"), Some("error"));
        assert_eq!((producer.get("linger.ms"), producer.get("acks")), (Some("3"), Some("all")));
        assert_eq!(producer.get("transactional.id"), Some("id"));
    }
}

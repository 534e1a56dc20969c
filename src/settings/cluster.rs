//! `[engine]` with `kafka` and `redis`: the engine for many processes, as meant. The keys' meaning, defaults
//! and ranges stand in `raw.rs`.
//!
//! Connects to nothing: what a server says of itself is asked when the engine is opened.

use super::bounds::{choice, name_is_plain, within};
use super::context::Context;
use super::raw::{RawEngine, RawProperty};
use super::secret::{self, SecretRef};
use super::written::Field;
#[cfg(feature = "kafka")]
use super::{Settings, topics};
#[cfg(feature = "kafka")]
use crate::engine::distributed::Cluster;
use std::collections::BTreeMap;
use std::fmt;

/// May hold a secret, and is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden<T>(pub T);

impl<T> fmt::Debug for Hidden<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hidden")
    }
}

/// Where the cluster is, and how it is used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterSettings {
    /// `host:port`, several with commas.
    pub kafka: String,
    pub redis: Hidden<String>,
    /// Begins the names of the ledger's keys in Redis.
    pub ledger: String,
    /// The consumer groups are `{prefix}{group}.worker`, `….tokens` and `….arbiter`.
    pub group: String,
    /// Read partitions without a committed offset although their records are older than the ledger remembers.
    pub start_anyway: bool,
    /// Of librdkafka, for every client.
    pub properties: Hidden<BTreeMap<String, String>>,
    /// Copies of each new topic; `None`: as many as the brokers make by default.
    pub replication: Option<u16>,
}

/// The names in `raw.rs` that mean something on Kafka and Redis only.
const ONLY_HERE: [&str; 5] = ["redis", "group", "start", "properties", "replication"];

impl ClusterSettings {
    /// `None`: the embedded engine.
    pub(super) fn resolve(raw: &RawEngine, prefix: &str, cx: &Context<'_>) -> Option<Self> {
        let report = cx.report;
        let spans = [
            raw.redis.span(),
            raw.group.span(),
            raw.start.span(),
            raw.properties.span(),
            raw.replication.span(),
        ];
        if raw.kafka.is_absent() {
            for (name, span) in ONLY_HERE.iter().zip(spans) {
                if let Some(span) = span {
                    let help =
                        "add `kafka = \"host:9092\"`, or leave this out to stay on the embedded engine";
                    report.add(span, format!("`engine.{name}` is for Kafka, and `kafka` is not set"), help);
                }
            }
            return None;
        }
        for (name, span) in [("dir", raw.dir.span()), ("disk_max", raw.disk_max.span())] {
            if let Some(span) = span {
                let help = "leave it out; with `kafka`, records lie on the brokers and claims in Redis";
                report.add(span, format!("`engine.{name}` is for the embedded engine"), help);
            }
        }
        if raw.redis.is_absent() {
            let help =
                "add `redis = \"redis://host:6379\"`: Redis keeps who may work on a key, Kafka the records";
            report.add(
                raw.kafka.span().unwrap_or(0..0),
                "`engine.kafka` needs `engine.redis` beside it",
                help,
            );
        }
        let kafka = servers(&raw.kafka, cx);
        let redis = redis(raw, cx);
        let group = group(raw, prefix, cx);
        let words = [("committed", false), ("earliest", true)];
        let start_anyway = choice(&raw.start, "engine.start", &words, report).unwrap_or(false);
        let replication = within(&raw.replication, "engine.replication", 1..=100, report);
        let properties = properties(raw, cx);
        let settings = ClusterSettings {
            kafka: kafka?,
            redis: Hidden(redis?),
            ledger: format!("{prefix}tidegate"),
            group,
            start_anyway,
            properties: Hidden(properties),
            replication: replication.and_then(|n| u16::try_from(n).ok()),
        };
        built::check(&settings, raw, cx);
        Some(settings)
    }

    /// `host:port`, and whatever else of the address is certainly no secret.
    pub fn redis_at(&self) -> &str {
        let behind = self.redis.0.split_once("://").map_or(self.redis.0.as_str(), |(_, behind)| behind);
        let (user, place) = behind.rsplit_once('@').unwrap_or(("", behind));
        if user.contains(['?', '#']) {
            // Who knows where the password ends.
            return "an address with a password";
        }
        place.split(['?', '#']).next().unwrap_or(place)
    }

    /// All that a Kafka client is told, the addresses with it.
    pub fn client_properties(&self) -> BTreeMap<String, String> {
        let mut all = self.properties.0.clone();
        all.insert("bootstrap.servers".to_owned(), self.kafka.clone());
        all
    }
}

#[cfg(feature = "kafka")]
impl Settings {
    /// What the engine on Kafka and Redis is opened with; `None`: the embedded engine.
    pub fn cluster(&self) -> Option<Cluster> {
        let cluster = self.engine.cluster.as_ref()?;
        Some(Cluster {
            properties: cluster.client_properties(),
            redis: cluster.redis.0.clone(),
            prefix: cluster.ledger.clone(),
            group: cluster.group.clone(),
            window: self.engine.dedupe_window,
            start_anyway: cluster.start_anyway,
            replication: cluster.replication,
            topics: topics(self),
        })
    }
}

fn servers(field: &Field<String>, cx: &Context<'_>) -> Option<String> {
    let given = field.given()?;
    let good = |server: &str| match server.rsplit_once(':') {
        Some((host, port)) => !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0),
        None => false,
    };
    let servers: Vec<&str> = given.get_ref().split(',').map(str::trim).collect();
    if let Some(bad) = servers.iter().find(|server| !good(server)) {
        let help = "write \"host:9092\", several with commas: \"a:9092,b:9092\"";
        cx.report.add(given.span(), format!("`engine.kafka` has `{bad}`, which is no host and port"), help);
        return None;
    }
    Some(servers.join(","))
}

/// The URL; one that holds a password stands elsewhere.
fn redis(raw: &RawEngine, cx: &Context<'_>) -> Option<String> {
    let given = raw.redis.given()?;
    let text = given.get_ref();
    if let Some(named) = SecretRef::parse(text) {
        return resolved(&named, "engine.redis", given.span(), cx);
    }
    let authority = text.split_once("://").map_or("", |(_, rest)| rest.split('/').next().unwrap_or(""));
    if authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':')) {
        let help = "a secret never stands in the configuration: put the whole URL into an environment variable and \
                    write \"env:NAME\", or into a file and write \"file:PATH\"; replace the password that stood here";
        cx.report.add(given.span(), "`engine.redis` holds a password", help);
        return None;
    }
    Some(text.clone())
}

fn group(raw: &RawEngine, prefix: &str, cx: &Context<'_>) -> String {
    let Some(given) = raw.group.given() else { return format!("{prefix}tidegate") };
    if !name_is_plain(given.get_ref()) {
        let help = "at most 64 letters, digits, `.`, `-`, `_`";
        cx.report.add(given.span(), "`engine.group` cannot be the name of a consumer group", help);
    }
    format!("{prefix}{}", given.get_ref())
}

/// Words in the names of properties whose values are secrets.
const SECRET: [&str; 5] = ["password", "passphrase", "secret", "key.pem", "oauthbearer.config"];

fn properties(raw: &RawEngine, cx: &Context<'_>) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for (name, value) in raw.properties.given().iter().flat_map(|p| &p.get_ref().0) {
        let (name, span) = (name.get_ref().clone(), name.span());
        let RawProperty(text) = value;
        if matches!(name.as_str(), "bootstrap.servers" | "metadata.broker.list") {
            let help = "leave it out: `engine.kafka` names the brokers";
            cx.report.add(span.clone(), format!("the property `{name}` stands beside `engine.kafka`"), help);
        }
        let value = match SecretRef::parse(text) {
            Some(named) => resolved(&named, &format!("engine.properties.{name:?}"), span, cx),
            None if SECRET.iter().any(|word| name.contains(word)) => {
                let help = "a secret never stands in the configuration: write \"env:NAME\" or \"file:PATH\"; replace \
                            the one that stood here";
                cx.report.add(span, format!("the property `{name}` holds a secret"), help);
                None
            }
            None => Some(text.clone()),
        };
        all.extend(value.map(|value| (name, value)));
    }
    all
}

fn resolved(named: &SecretRef, what: &str, span: std::ops::Range<usize>, cx: &Context<'_>) -> Option<String> {
    match secret::read_text(named, cx.base, cx.env) {
        Ok(found) => Some(found),
        Err(why) => {
            cx.report.add(span, format!("`{what}`: {why}"), named.remedy());
            None
        }
    }
}

#[cfg(feature = "kafka")]
mod built {
    //! What the clients themselves say of what they would be made with.

    use super::{ClusterSettings, Context, RawEngine};
    use crate::engine::distributed::kafka::Properties;
    use crate::engine::distributed::redis::RedisStore;
    use std::time::Duration;

    pub(super) fn check(settings: &ClusterSettings, raw: &RawEngine, cx: &Context<'_>) {
        let of = |name: &str| {
            let given = raw.properties.given().map_or(&[][..], |p| &p.get_ref().0);
            let found = given.iter().find(|(given, _)| given.get_ref() == name);
            found.map(|(given, _)| given.span()).or(raw.kafka.span()).unwrap_or(0..0)
        };
        if let Err(refused) = Properties::new(settings.client_properties()) {
            for refused in refused {
                let help = "leave it out, or write what librdkafka's CONFIGURATION.md lists";
                cx.report.add(of(&refused.name), refused.to_string(), help);
            }
        }
        if let Err(bad) = RedisStore::new(&settings.redis.0, &settings.ledger, Duration::from_secs(60)) {
            let help = "write \"redis://host:6379\", \"rediss://…\" for TLS, \"…/1\" for another database";
            cx.report.add(raw.redis.span().unwrap_or(0..0), format!("`engine.redis`: {bad}"), help);
        }
    }
}

#[cfg(not(feature = "kafka"))]
mod built {
    //! A program that was built for the embedded engine alone.

    use super::{ClusterSettings, Context, RawEngine};

    pub(super) fn check(_: &ClusterSettings, raw: &RawEngine, cx: &Context<'_>) {
        let help =
            "build it again with the feature `kafka` (it is on by default; OpenSSL's headers are needed)";
        let what = "this program was built without Kafka and Redis";
        cx.report.add(raw.kafka.span().unwrap_or(0..0), what, help);
    }
}

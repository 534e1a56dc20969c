//! The engine on Kafka and Redis: six lines are enough, and every mistake in them is told.

use super::{load, refused, says};
use crate::settings::{ClusterSettings, Settings};
use std::path::Path;

const ENGINE: &str = "[tasks.copy]\n[engine]\nkafka = \"a:9092, b:9093\"\nredis = \"redis://redis:6379\"\n";

fn cluster(text: &str) -> ClusterSettings {
    load(text).engine.cluster.expect("a cluster")
}

#[test]
fn two_lines_move_an_installation_to_kafka_and_redis() {
    assert_eq!(load("[tasks.copy]\n").engine.cluster, None);
    let cluster = cluster(ENGINE);
    assert_eq!((cluster.kafka.as_str(), cluster.redis.0.as_str()), ("a:9092,b:9093", "redis://redis:6379"));
    assert_eq!((cluster.group.as_str(), cluster.ledger.as_str()), ("tidegate", "tidegate"));
    assert_eq!((cluster.start_anyway, cluster.replication), (false, None));
    let all = cluster.client_properties();
    assert_eq!(all.into_iter().collect::<Vec<_>>(), [("bootstrap.servers".into(), "a:9092,b:9093".into())]);
}

#[test]
fn every_setting_of_the_cluster_is_taken_as_it_is_written() {
    let text = format!(
        "{ENGINE}prefix = \"eu.\"\ngroup = \"labels\"\nstart = \"earliest\"\nreplication = 3\n[engine.properties]\n\
         \"security.protocol\" = \"sasl_ssl\"\n\"session.timeout.ms\" = 10_000\n\"socket.keepalive.enable\" = true\n\
         \"sasl.password\" = \"env:KAFKA_PASSWORD\"\n\"ssl.key.pem\" = \"env:KAFKA_KEY\"\n"
    );
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0LW9mLWthZmth\n-----END PRIVATE KEY-----";
    let env = |name: &str| match name {
        "KAFKA_PASSWORD" => Some("secret-of-kafka".to_owned()),
        "KAFKA_KEY" => Some(format!("{KEY}\n")),
        _ => None,
    };
    let settings = Settings::parse(Path::new("tidegate.toml"), &text, &env).unwrap_or_else(|e| panic!("{e}"));
    let cluster = settings.engine.cluster.clone().unwrap();
    assert_eq!((cluster.group.as_str(), cluster.ledger.as_str()), ("eu.labels", "eu.tidegate"));
    assert_eq!((cluster.start_anyway, cluster.replication), (true, Some(3)));
    let all = cluster.client_properties();
    let of = |name: &str| all.get(name).map(String::as_str);
    assert_eq!(of("security.protocol"), Some("sasl_ssl"));
    assert_eq!((of("session.timeout.ms"), of("socket.keepalive.enable")), (Some("10000"), Some("true")));
    assert_eq!((of("sasl.password"), of("ssl.key.pem")), (Some("secret-of-kafka"), Some(KEY)));
    for shown in [format!("{settings:?}"), settings.resolved_text(), format!("{cluster:?}")] {
        for hidden in ["secret-of-kafka", "c2VjcmV0", "redis://"] {
            assert!(!shown.contains(hidden), "{shown}");
        }
        assert!(shown.contains("eu.labels"), "{shown}");
    }
}

#[test]
fn a_whole_address_may_be_a_secret_and_a_password_in_the_file_is_refused_unshown() {
    let env = |name: &str| (name == "REDIS_URL").then(|| "rediss://me:hush@r:6380/1".to_owned());
    let text = ENGINE.replace("redis://redis:6379", "env:REDIS_URL");
    let settings = Settings::parse(Path::new("tidegate.toml"), &text, &env).unwrap_or_else(|e| panic!("{e}"));
    let redis = settings.engine.cluster.unwrap();
    assert_eq!((redis.redis.0.as_str(), redis.redis_at()), ("rediss://me:hush@r:6380/1", "r:6380/1"));
    for (url, at) in [
        ("redis://r:1", "r:1"),
        ("redis://me:hu/sh@r:1/2?protocol=resp3", "r:1/2"),
        ("redis+unix:///run/r.sock?pass=hush", "/run/r.sock"),
        ("redis+unix:///run/r.sock?pass=hu@sh", "an address with a password"),
        ("redis://:hu?sh@r:1", "an address with a password"),
    ] {
        assert_eq!(
            ClusterSettings { redis: crate::settings::Hidden(url.into()), ..redis.clone() }.redis_at(),
            at
        );
    }
    let said = refused(&ENGINE.replace("redis://redis", "redis://me:hush@redis")).to_string();
    assert!(said.contains("`engine.redis` holds a password") && !said.contains("hush"), "{said}");
    let said = refused(&format!("{ENGINE}properties = {{ \"sasl.password\" = \"hush\" }}\n")).to_string();
    assert!(said.contains("`sasl.password` holds a secret") && !said.contains("hush"), "{said}");
}

#[test]
fn what_belongs_to_the_other_engine_is_told() {
    says(
        r##"
[tasks.copy]
[engine]
kafka = "broker"
dir = "data"
"##,
        r##"
error: `engine.kafka` needs `engine.redis` beside it
 --> tidegate.toml:3:9
  |
3 | kafka = "broker"
  |         ^^^^^^^^
  = help: add `redis = "redis://host:6379"`: Redis keeps who may work on a key,
          Kafka the records

error: `engine.kafka` has `broker`, which is no host and port
 --> tidegate.toml:3:9
  |
3 | kafka = "broker"
  |         ^^^^^^^^
  = help: write "host:9092", several with commas: "a:9092,b:9092"

error: `engine.dir` is for the embedded engine
 --> tidegate.toml:4:7
  |
4 | dir = "data"
  |       ^^^^^^
  = help: leave it out; with `kafka`, records lie on the brokers and claims in
          Redis
"##,
    );
    says(
        r##"
[tasks.copy]
[engine]
redis = "redis://redis:6379"
"##,
        r##"
error: `engine.redis` is for Kafka, and `kafka` is not set
 --> tidegate.toml:3:9
  |
3 | redis = "redis://redis:6379"
  |         ^^^^^^^^^^^^^^^^^^^^
  = help: add `kafka = "host:9092"`, or leave this out to stay on the embedded
          engine
"##,
    );
}

#[cfg(feature = "kafka")]
#[test]
fn p1_p2_a_property_that_would_break_a_promise_or_is_unknown_is_told_at_its_place() {
    let text = format!(
        "{ENGINE}[engine.properties]\n\"isolation.level\" = \"read_uncommitted\"\n\"sesion.timeout.ms\" = 5\n\
         \"queued.min.messages\" = \"many\"\nsecurity.protocol = \"ssl\"\n"
    );
    let said = refused(&text).to_string();
    assert!(said.lines().all(|line| line.chars().count() <= 80), "wider than 80 columns:\n{said}");
    // Lines are broken between any two words.
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "`isolation.level` cannot be set: records of transactions that were aborted would be read",
        "tidegate.toml:6:1",
        "`sesion.timeout.ms` cannot be set: No such configuration property",
        "tidegate.toml:7:1",
        "`queued.min.messages` cannot be set: ",
        "a property's whole name goes into quotes",
    ] {
        assert!(said.contains(part), "`{part}` is missing in:\n{said}");
    }
    let said = refused(&ENGINE.replace("redis://", "http://")).to_string();
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains("`engine.redis`: the ledger's address must be redis://"), "{said}");
}

#[test]
fn a_kind_without_steps_may_do_without_the_ledger_and_no_other() {
    let kind = |name: &str| load("[tasks.copy]\ndedupe = false\n[tasks.other]\n").kind(name).unwrap().dedupe;
    assert_eq!((kind("copy"), kind("other")), (false, true));
    let asks = "[tasks.t]\nmodels = [\"openai/gpt-5-mini\"]\nask = \"Sort.\"\nanswer = { a = \"string\" }\ndedupe = false\n";
    let said = refused(asks).to_string();
    assert!(said.contains("`tasks.t.dedupe` is off for a kind that asks models"), "{said}");
}

//! What others have done to topics, offsets, headers and servers: each has its documented behaviour, and a
//! clear message where there is something to say.
//!
//! Not here: names of headers that are not UTF-8, which no client that we have can write.

use crate::fleet::{Fleet, Member, PARTITIONS, TAKEN_OVER, good, key_of, keys};
use crate::rig::cluster;
use crate::rig::eventually;
use crate::rig::redis_server::{ALWAYS, Server};
use crate::rig::script::{Reply, SOON};
use rdkafka::admin::AdminOptions;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use redis::AsyncCommands as _;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

fn names(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|n| format!("k{n}")).collect()
}

fn refs(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

async fn stop(mut member: Member) {
    assert!(member.process.stop(SOON).success(), "{}", member.process.words());
}

/// Forty keys that are done, by a process that has stopped.
async fn done(fleet: &mut Fleet) -> BTreeSet<String> {
    let member = fleet.start().await;
    let sent = names(0, 40);
    fleet.send(&refs(&sent));
    let sent = keys(sent);
    fleet.one_result_each(&sent, SOON).await;
    stop(member).await;
    sent
}

/// Nothing was done a second time, and what comes new is done.
async fn as_before(fleet: &mut Fleet, sent: &BTreeSet<String>) {
    let member = fleet.start().await;
    fleet.send(&["new"]);
    let mut all = sent.clone();
    all.insert("new".to_owned());
    fleet.one_result_each(&all, TAKEN_OVER).await;
    let twice: Vec<_> = fleet.calls().into_iter().filter(|(_, n)| *n != 1).collect();
    assert_eq!(twice, [], "no call was bought twice");
    stop(member).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p3_metadata_of_somebody_elses_is_told_and_what_comes_back_is_silent() {
    let mut fleet = Fleet::new(|_| good()).await;
    let sent = done(&mut fleet).await;
    fleet.commit(
        "tidegate",
        &[(0, 0, "{\"theirs\": 1}"), (1, 1, "AAAA"), (2, 0, ""), (3, 0, "\u{fffd}\u{7}")],
    );
    as_before(&mut fleet, &sent).await;
    let said = fleet.said();
    assert!(said.contains("what lies beside the offset cannot be used"), "{said}");
}

/// A stranger comes into the group under the name of a process that lives, which its client never gets over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_p3_a_process_that_somebody_puts_out_of_its_group_comes_in_again_and_goes_on() {
    let mut fleet = Fleet::new(|_| good()).await;
    let member = fleet.start().await;
    fleet.send(&["before"]);
    fleet.one_result_each(&keys(["before"]), SOON).await;
    let group = format!("{}tidegate.worker", fleet.prefix);
    let ids = fleet.members().remove(&group).unwrap();
    // A broker makes an id of the name, a dash and 36 characters of its own.
    let name = ids.first().and_then(|id| id.get(..id.len() - 37)).unwrap();
    let mut config = fleet.config();
    config.set("group.id", &group).set("group.instance.id", name).set("session.timeout.ms", "6000");
    config.set("partition.assignment.strategy", "cooperative-sticky");
    let stranger: BaseConsumer = config.create().unwrap();
    stranger.subscribe(&[&fleet.topic("tasks.ticket")]).unwrap();
    eventually("the stranger is in its place", SOON, || {
        drop(stranger.poll(Duration::from_millis(100)));
        let taken = stranger.assignment().unwrap().count() > 0;
        async move { taken.then_some(()) }
    })
    .await;
    eventually("it has noticed", TAKEN_OVER, || {
        drop(stranger.poll(Duration::from_millis(100)));
        let noticed = fleet.said().contains("the Kafka consumer is made anew");
        async move { noticed.then_some(()) }
    })
    .await;
    drop(stranger);
    fleet.send(&["after"]);
    fleet.one_result_each(&keys(["before", "after"]), TAKEN_OVER).await;
    assert!(fleet.calls().values().all(|n| *n == 1), "no call was bought twice");
    stop(member).await;
}

/// Row 22: all that was done comes back while some is parked and some waits for a person.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p3_after_a_reset_and_under_another_group_nothing_is_done_parked_or_reviewed_twice() {
    let mut fleet = Fleet::new(|asked| match asked.words() {
        w if w.contains("parked") => {
            Reply::Fails(429, &[("retry-after", "600")], json!({ "error": { "message": "later" } }))
        }
        w if w.contains("doubt") => Reply::json(json!({ "category": "bug", "confidence": 0.4 })),
        _ => good(),
    })
    .await;
    let member = fleet.start().await;
    let sent = names(0, 20);
    fleet.send(&refs(&sent));
    fleet.one_result_each(&keys(sent.clone()), SOON).await;
    fleet.send(&["doubt"]);
    let item = member.api.item("ticket", "doubt").await;
    fleet.send(&["parked"]);
    member.api.until("ticket", "parked", "waiting-until").await;
    stop(member).await;
    let asked = fleet.calls();

    let all: Vec<(u32, i64, &str)> = (0..PARTITIONS).map(|n| (n, 0, "")).collect();
    fleet.commit("tidegate", &all);
    let config = std::fs::read_to_string(fleet.place.config()).unwrap();
    for renamed in [false, true] {
        if renamed {
            let config = config.replace("[engine]\n", "[engine]\ngroup = \"another\"\n");
            std::fs::write(fleet.place.config(), config).unwrap();
        }
        let member = fleet.start().await;
        // The last of what comes back is silent: all of it has come back.
        eventually("all that comes back is silent", SOON, || async {
            (member.api.metric("tidegate_duplicates_total").await >= 22.0).then_some(())
        })
        .await;
        fleet.one_result_each(&keys(sent.clone()), SOON).await;
        assert_eq!(member.api.item("ticket", "doubt").await["id"], item["id"]);
        let (_, open) = member.api.get("/v1/review").await.unwrap();
        assert_eq!(open["items"].as_array().map(Vec::len), Some(1), "one item, as before: {open}");
        assert_eq!(member.api.task("ticket", "parked").await.unwrap()["state"], "waiting-until");
        // Whoever has to wait may have been asked again when its time was up, and nobody else.
        let (mut before, mut now) = (asked.clone(), fleet.calls());
        assert_eq!((before.remove("parked").is_some(), now.remove("parked").is_some()), (true, true));
        assert_eq!(now, before, "no call was bought twice, renamed: {renamed}");
        stop(member).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_a_partition_that_was_added_meanwhile_is_read_from_its_beginning() {
    let mut fleet = Fleet::new(|_| good()).await;
    let mut sent = done(&mut fleet).await;
    fleet.grow(PARTITIONS as usize + 1).await;
    let added = names(100, 140);
    fleet.send(&refs(&added));
    let lies = fleet.records("tasks.ticket");
    assert!(lies.iter().any(|r| r.partition == PARTITIONS as i32), "something lies in the new one");
    sent.extend(added);
    as_before(&mut fleet, &sent).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p2_offsets_and_records_that_were_deleted_lose_nothing_that_is_there_and_repeat_nothing() {
    let mut fleet = Fleet::new(|_| good()).await;
    let sent = done(&mut fleet).await;
    let topic = fleet.topic("tasks.ticket");
    // Some records below what is committed are gone, and then what is committed.
    let mut below = TopicPartitionList::new();
    for index in 0..PARTITIONS as i32 {
        below.add_partition_offset(&topic, index, Offset::Offset(2)).unwrap();
    }
    fleet.admin().delete_records(&below, &AdminOptions::new()).await.unwrap();
    let group = format!("{}tidegate.worker", fleet.prefix);
    eventually("the group is deleted", SOON, || async {
        let deleted = fleet.admin().delete_groups(&[&group], &AdminOptions::new()).await;
        deleted.ok().filter(|all| all.iter().all(Result::is_ok)).map(drop)
    })
    .await;
    as_before(&mut fleet, &sent).await;
    let said = fleet.said();
    assert!(said.contains("the group that reads tasks has committed nothing"), "{said}");

    // Three that nobody has read yet are gone as well: that is said.
    let unread = names(200, 240);
    fleet.send(&refs(&unread));
    let lost: BTreeMap<i32, i64> = fleet
        .records("tasks.ticket")
        .iter()
        .filter(|r| r.header("idempotency-key") == "k200")
        .map(|r| (r.partition, r.offset + 1))
        .collect();
    let mut above = TopicPartitionList::new();
    for (index, offset) in &lost {
        above.add_partition_offset(&topic, *index, Offset::Offset(*offset)).unwrap();
    }
    fleet.admin().delete_records(&above, &AdminOptions::new()).await.unwrap();
    let left: BTreeSet<String> =
        fleet.records("tasks.ticket").iter().map(|r| r.header("idempotency-key").to_owned()).collect();
    let mut expected: BTreeSet<String> = unread.into_iter().filter(|key| left.contains(key)).collect();
    assert!(!expected.contains("k200") && expected.len() > 20, "{expected:?}");
    expected.extend(sent);
    expected.insert("new".to_owned());
    let member = fleet.start().await;
    fleet.one_result_each(&expected, SOON).await;
    let said = fleet.said();
    assert!(said.contains("records that were not done are no longer in the log"), "{said}");
    stop(member).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_headers_that_claim_to_be_tidegates_own_are_not_believed_on_a_task_topic() {
    let mut fleet = Fleet::new(|_| good()).await;
    let member = fleet.start().await;
    fleet.send(&["k"]);
    fleet.one_result_each(&keys(["k"]), SOON).await;
    let real = fleet.records("results").remove(0);
    // As a copy of what Tidegate itself would write: the next generation of the key, and somebody's origin.
    let origin = real.header("tidegate-origin").to_owned();
    let forged = |generation: &'static [u8]| -> Vec<(&'static str, &'static [u8])> {
        vec![
            ("tidegate-generation", generation),
            ("tidegate-hop", b"7"),
            ("tidegate-kind", b"ticket"),
            ("tidegate-key", b"k"),
            // In some thousand years.
            ("tidegate-not-before", b"99999999999999"),
        ]
    };
    let sender = fleet.sender();
    for (key, value) in [("k", "number k ."), ("other", "number other .")] {
        let mut headers = forged(b"1");
        headers.push(("idempotency-key", if key == "k" { b"k" } else { b"other" }));
        let origin: &'static [u8] = Box::leak(origin.clone().into_bytes().into_boxed_slice());
        headers.extend([("tidegate-origin", origin), ("tidegate-proof", b"results/0/0" as &[u8])]);
        sender.record(key, Some(json!({ "text": value }).to_string().as_bytes()), &headers);
    }
    sender.flush();
    fleet.one_result_each(&keys(["k", "other"]), SOON).await;
    eventually("the copy is complete", SOON, || async {
        (member.api.metric("tidegate_duplicates_total").await >= 1.0).then_some(())
    })
    .await;
    let results = fleet.records("results");
    for result in &results {
        assert_eq!(result.header("tidegate-generation"), "0", "{result:?}");
    }
    let other = results.iter().find(|r| r.header("tidegate-key") == "other").unwrap();
    assert_ne!(other.header("tidegate-origin"), origin, "its origin is its own place");
    assert_eq!(fleet.calls(), BTreeMap::from([("k".to_owned(), 1), ("other".to_owned(), 1)]));
    stop(member).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_records_of_nothing_of_the_most_and_of_bytes_that_are_no_text_each_have_one_place() {
    let mut fleet = Fleet::new(|_| good()).await;
    // A model that takes the most of what a record may hold.
    fleet.configure("window_tokens = 100000", "window_tokens = 2000000");
    let member = fleet.start().await;
    let sender = fleet.sender();
    sender.record("p", Some(b""), &[("idempotency-key", b"empty")]);
    sender.record("p", None, &[("idempotency-key", b"null")]);
    sender.record(
        "p",
        Some(b"{\"text\":\"number bytes .\"}"),
        &[("idempotency-key", b"\xff\xfe"), ("x-own", b"\xc3\x28")],
    );
    sender.record(
        "p",
        Some(b"{\"text\":\"number odd .\"}"),
        &[("idempotency-key", b"odd"), ("x-own", b"\xc3\x28"), ("", b"no name")],
    );
    let most = format!("{{\"text\":\"number most . {}\"}}", "x".repeat((1 << 20) - 200));
    sender.record("p", Some(most.as_bytes()), &[("idempotency-key", b"most")]);
    let over = format!("{{\"text\":\"number over . {}\"}}", "x".repeat((1 << 20) + 10));
    sender.record("p", Some(over.as_bytes()), &[("idempotency-key", b"over")]);
    sender.flush();
    let sources = || -> BTreeMap<String, String> {
        let letters = fleet.records("dead-letters");
        letters
            .iter()
            .map(|l| (l.header("idempotency-key").to_owned(), l.header("tidegate-reason").to_owned()))
            .collect()
    };
    eventually("each has its place", SOON, || async {
        (fleet.records("dead-letters").len() + fleet.records("results").len() >= 6).then_some(())
    })
    .await;
    let buried = sources();
    let reason = |key: &str| buried.get(key).map(String::as_str);
    assert_eq!((reason("empty"), reason("null")), (Some("TG-malformed"), Some("TG-malformed")), "{buried:?}");
    assert_eq!(reason("over"), Some("TG-record-too-large"), "{buried:?}");
    // Bytes that are no text are nobody's key.
    assert_eq!(reason("\u{fffd}\u{fffd}"), Some("TG-key-missing"), "{buried:?}");
    let results = keys(fleet.records("results").iter().map(|r| r.header("tidegate-key").to_owned()));
    assert_eq!((results, buried.len()), (keys(["most", "odd"]), 4), "{buried:?}");
    // The model was asked about all of it.
    let whole = "x".repeat((1 << 20) - 200);
    let asked = fleet.provider.asked();
    let most: Vec<bool> =
        asked.iter().filter(|a| key_of(a) == "most").map(|a| a.words().contains(&whole)).collect();
    assert_eq!(most, [true]);
    stop(member).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_keys_that_are_patterns_to_redis_are_keys_like_any_other() {
    let mut fleet = Fleet::new(|_| good()).await;
    let member = fleet.start().await;
    let odd = ["*", "k*", "k1", "k[0-9]", "k?", "a:claim:b", "ü {x}", "%2A", "//*"];
    fleet.send(&odd);
    fleet.send(&odd);
    fleet.one_result_each(&keys(odd), SOON).await;
    assert_eq!(fleet.calls(), odd.iter().map(|key| ((*key).to_owned(), 1)).collect());
    stop(member).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_credentials_are_refused_at_the_start_and_are_not_printed() {
    let mut fleet = Fleet::new(|_| good()).await;
    fleet.place.apply(&fleet.place.command());
    let config = std::fs::read_to_string(fleet.place.config()).unwrap();
    let shared = cluster::servers();
    let secret = ("SECRET_OF_THE_TEST", "wombat-1234567");
    let kafka = config.replace(
        "properties = { ",
        "properties = { \"security.protocol\" = \"sasl_plaintext\", \"sasl.mechanism\" = \"PLAIN\", \
         \"sasl.username\" = \"us\", \"sasl.password\" = \"env:SECRET_OF_THE_TEST\", ",
    );
    std::fs::write(fleet.place.config(), kafka).unwrap();
    let (code, said) = fleet.refused(&[secret]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains(&format!("Kafka at {} cannot be used", shared.kafka)), "{said}");
    assert!(said.contains("mend `[engine] kafka` and `properties`") && !said.contains(secret.1), "{said}");

    let redis = config.replace(&format!("redis = \"{}\"", shared.redis), "redis = \"env:REDIS_OF_THE_TEST\"");
    std::fs::write(fleet.place.config(), redis).unwrap();
    let url = shared.redis.replace("redis://", "redis://us:wombat-1234567@");
    let (code, said) = fleet.refused(&[("REDIS_OF_THE_TEST", &url)]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("Redis cannot be used") && said.contains("authentication failed"), "{said}");
    assert!(!said.contains(secret.1), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_a_redis_that_drops_keys_or_keeps_another_clusters_claims_is_refused_at_the_start() {
    let redis = Server::start_own(&ALWAYS);
    let mut fleet = Fleet::on(&cluster::servers().kafka, &redis.url(), "", |_| good()).await;
    fleet.place.apply(&fleet.place.command());
    let mut plain = redis.plain().await;
    let set = |policy: &'static str| {
        let mut command = redis::cmd("CONFIG");
        command.arg("SET").arg("maxmemory-policy").arg(policy);
        command
    };
    let () = set("allkeys-lru").query_async(&mut plain).await.unwrap();
    let (code, said) = fleet.refused(&[]);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("`maxmemory-policy` is `allkeys-lru`")
            && said.contains("set `maxmemory-policy noeviction`"),
        "{said}"
    );
    let () = set("noeviction").query_async(&mut plain).await.unwrap();
    let member = fleet.start().await;
    stop(member).await;

    // Whose claims these are stands under one key, which holds the cluster's id and the group.
    let all: Vec<String> = plain.keys(format!("{}*", fleet.prefix)).await.unwrap();
    let bound = all.iter().find(|key| key.ends_with(":log")).unwrap_or_else(|| panic!("{all:?}"));
    let own: String = plain.get(bound).await.unwrap();
    let (own, group) = own.split_once(' ').unwrap();
    let () = plain.set(bound, format!("another {group}")).await.unwrap();
    let (code, said) = fleet.refused(&[]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains(&format!("claims of another Kafka cluster (another; yours is {own})")), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_a_topic_that_would_lose_work_is_refused_at_the_start_with_the_command_that_mends_it() {
    let mut fleet = Fleet::new(|_| good()).await;
    let sent = done(&mut fleet).await;
    let topic = fleet.topic("retry.5s");
    fleet.alter("retry.5s", ("cleanup.policy", "compact")).await;
    let (code, said) = fleet.refused(&[]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains(&format!("`{topic}` has cleanup.policy=compact")), "{said}");
    assert!(said.contains("`tidegate topics apply`"), "{said}");
    let (code, said, problem) = fleet.place.tool(&["topics", "apply"]);
    assert_eq!(code, 0, "{said}{problem}");
    as_before(&mut fleet, &sent).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_a_topic_that_is_gone_or_takes_too_little_is_refused_at_the_start_and_apply_makes_it() {
    let mut fleet = Fleet::new(|_| good()).await;
    let sent = done(&mut fleet).await;
    let resume = fleet.topic("resume");
    let deleted = fleet.admin().delete_topics(&[&resume], &AdminOptions::new()).await.unwrap();
    assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    let limit = fleet.setting("results", "max.message.bytes").await;
    fleet.alter("results", ("max.message.bytes", "1000")).await;
    let (code, said) = fleet.refused(&[]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains(&format!("there is no `{resume}`")), "{said}");
    let few = format!("`{}` has max.message.bytes=1000", fleet.topic("results"));
    assert!(said.contains(&few) && said.contains("`tidegate topics apply`"), "{said}");
    let (code, said, problem) = fleet.place.tool(&["topics", "apply"]);
    assert_eq!(code, 0, "{said}{problem}");
    assert_eq!(fleet.setting("results", "max.message.bytes").await, limit);
    as_before(&mut fleet, &sent).await;
}

/// A person has given the results more time than the plan: what would take it away again is left to a person.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apply_shortens_nothing_that_it_was_not_allowed_to_and_plan_changes_nothing() {
    let fleet = Fleet::new(|_| good()).await;
    fleet.place.apply(&fleet.place.command());
    let planned = fleet.setting("results", "retention.ms").await;
    let longer = format!("{planned}0");
    fleet.alter("results", ("retention.ms", &longer)).await;
    let change = format!("set {}: retention.ms {longer} -> {planned}", fleet.topic("results"));
    let flat = |said: &str| said.split_whitespace().collect::<Vec<_>>().join(" ");
    for (arguments, told) in [
        (&["topics", "plan"][..], "to make them: tidegate topics apply --allow shrink"),
        (&["topics", "apply"], "to make what is left: tidegate topics apply --allow shrink"),
    ] {
        let (code, said, problem) = fleet.place.tool(arguments);
        let words = flat(&said);
        assert_eq!(code, 0, "{said}{problem}");
        assert!(words.contains(&change) && words.contains(told), "{said}");
        assert_eq!(fleet.setting("results", "retention.ms").await, longer, "{arguments:?}");
    }
    let (code, said, problem) = fleet.place.tool(&["topics", "apply", "--allow", "shrink"]);
    assert_eq!(code, 0, "{said}{problem}");
    assert_eq!(fleet.setting("results", "retention.ms").await, planned, "{said}");
    let (_, said, _) = fleet.place.tool(&["topics", "plan"]);
    assert!(!said.contains("retention.ms"), "{said}");
}

//! The broker is away, and Redis is away (rows 16, 17 and 26 of the crash table), each under load: nothing is lost
//! or buried, no call is bought twice, and work goes on; and a doubt goes to nobody before it is stored. How soon
//! after the first answer is told, aimed at are 5 s; whoever waits for a session has failed.
//!
//! `TIDEGATE_AWAY_S=60` has them away for a minute; by default it is longer than one lease, and longer than the
//! session that members have by default: who comes back then has to take its place in the group again.

use crate::fleet::{Fleet, Member, SHARED, TAKEN_OVER, good, key_of, keys, peak_mib};
use crate::rig::cluster;
use crate::rig::kafka_broker::Broker;
use crate::rig::redis_server::{ALWAYS, Server};
use crate::rig::script::{Asked, Reply, SOON};
use crate::rig::{eventually, measured, number};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Of members, where nothing else is set.
const SESSION: Duration = Duration::from_secs(10);

fn away() -> Duration {
    Duration::from_secs(number("TIDEGATE_AWAY_S", 14))
}

/// Two processes at work on as many keys as they have not got done when the outage begins.
async fn at_work(fleet: &mut Fleet) -> (Vec<Member>, BTreeSet<String>) {
    let config = std::fs::read_to_string(fleet.place.config()).unwrap();
    let ours = "\"session.timeout.ms\" = 6000, \"heartbeat.interval.ms\" = 500";
    assert!(config.contains(ours), "{config}");
    std::fs::write(fleet.place.config(), config.replace(ours, "")).unwrap();
    fleet.names_its_members();
    fleet.place.apply(fleet.place.command().env("MEMBER", "0"));
    fleet.grow(SHARED as usize).await;
    let members = vec![fleet.start().await, fleet.start().await];
    let (sender, mut sent) = (fleet.sender(), Vec::new());
    eventually("both have partitions", SOON, || {
        let key = format!("first{}", sent.len());
        sender.task(&key, 0);
        sender.flush();
        sent.push(key);
        let both = are_two(&fleet.provider.asked());
        async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            both.then_some(())
        }
    })
    .await;
    fleet.one_result_each(&keys(&sent), SOON).await;
    let before = fleet.provider.asked().len();
    sent.extend((0..300).map(|n| format!("k{n}")));
    fleet.send(&sent[sent.len() - 300..].iter().map(String::as_str).collect::<Vec<_>>());
    eventually("both are at work", SOON, || {
        let asked = fleet.provider.asked().split_off(before);
        async move { (asked.len() >= 40 && are_two(&asked)).then_some(()) }
    })
    .await;
    (members, keys(sent))
}

fn are_two(asked: &[Asked]) -> bool {
    asked.iter().map(|asked| &asked.asker).collect::<BTreeSet<_>>().len() == 2
}

/// Waits until a model is asked for something new.
async fn goes_on(fleet: &Fleet, before: usize, what: &str) {
    let began = Instant::now();
    while fleet.provider.asked().len() == before {
        assert!(began.elapsed() < TAKEN_OVER, "work does not go on: {}", fleet.said());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let took = began.elapsed();
    measured(&format!("work went on {took:.1?} after the first answer of {what}"));
    assert!(took < SESSION, "{took:?}: it has waited for a session of somebody who does not come back");
}

async fn nothing_was_lost(fleet: &Fleet, members: Vec<Member>, sent: &BTreeSet<String>, what: &str) {
    fleet.one_result_each(sent, TAKEN_OVER).await;
    let calls = fleet.calls();
    let twice: Vec<_> = calls.iter().filter(|(_, n)| **n != 1).collect();
    assert_eq!(twice, [], "no call is bought twice");
    assert_eq!(keys(calls.into_keys()), *sent);
    let peaks: Vec<u64> = members.iter().map(|m| peak_mib(&m.process)).collect();
    measured(&format!("{what} away for {:?}: peaks of memory {peaks:?} MiB", away()));
    for mut member in members {
        assert!(member.process.ended().is_none(), "it lived through it: {}", member.process.words());
        assert!(member.process.stop(SOON).success(), "{}", member.process.words());
    }
}

fn slowly() -> Reply {
    Reply::After(Duration::from_millis(600), Box::new(good()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_p3_p7_a_broker_that_is_away_under_load_loses_nothing_and_repeats_no_call() {
    let (broker, redis) = (Broker::start(), Server::start_own(&ALWAYS));
    let mut fleet =
        Fleet::on(&broker.address, &redis.url(), "[worker]\nin_flight = 30\n", |_| slowly()).await;
    let (members, sent) = at_work(&mut fleet).await;
    broker.kill();
    tokio::time::sleep(away()).await;
    let asked = fleet.provider.asked().len();
    assert!(asked < sent.len(), "it was in the middle: {asked}");
    for member in &members {
        assert!(!member.api.is_ready().await, "it says that it cannot take what is sent");
    }
    broker.restart();
    goes_on(&fleet, asked, "the broker").await;
    nothing_was_lost(&fleet, members, &sent, "the broker").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_p3_p7_a_redis_that_is_away_under_load_loses_nothing_and_repeats_no_call() {
    let (kafka, mut redis) = (&cluster::servers().kafka, Server::start_own(&ALWAYS));
    let mut fleet = Fleet::on(kafka, &redis.url(), "[worker]\nin_flight = 30\n", |_| slowly()).await;
    let (members, sent) = at_work(&mut fleet).await;
    redis.kill();
    let under_way = keys(fleet.provider.under_way().iter().map(key_of));
    tokio::time::sleep(away() / 2).await;
    let asked = fleet.provider.asked().len();
    assert!(asked < sent.len() && !under_way.is_empty(), "it was in the middle: {asked}, {under_way:?}");
    tokio::time::sleep(away() / 2).await;
    assert_eq!(fleet.provider.asked().len(), asked, "nothing is begun without it: row 16");
    let published = keys(fleet.outcomes().into_keys());
    assert!(published.is_superset(&under_way), "answers that came meanwhile are published: row 17");
    redis.start();
    goes_on(&fleet, asked, "Redis").await;
    nothing_was_lost(&fleet, members, &sent, "Redis").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_p5_a_doubtful_answer_that_comes_while_redis_is_away_asks_a_person_once_it_is_stored() {
    let (kafka, mut redis) = (&cluster::servers().kafka, Server::start_own(&ALWAYS));
    let doubtful = || Reply::json(json!({ "category": "bug", "confidence": 0.5 }));
    let late = move |_: &Asked| Reply::After(Duration::from_secs(2), Box::new(doubtful()));
    let mut fleet = Fleet::on(kafka, &redis.url(), "", late).await;
    let mut member = fleet.start().await;
    fleet.send(&["doubt"]);
    eventually("a model is asked", SOON, || {
        let asked = fleet.provider.asked().len();
        async move { (asked == 1).then_some(()) }
    })
    .await;
    redis.kill();
    eventually("it has answered", SOON, || {
        let under_way = fleet.provider.under_way().len();
        async move { (under_way == 0).then_some(()) }
    })
    .await;
    // Many times what a commit takes.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let asks =
        |fleet: &Fleet| keys(fleet.records("review.requests").iter().map(|r| r.header("tidegate-key")));
    assert_eq!((asks(&fleet), fleet.outcomes().len()), (keys([""; 0]), 0), "row 17: {}", fleet.said());
    redis.start();
    eventually("a person is asked", TAKEN_OVER, || {
        let found = asks(&fleet);
        async move { (!found.is_empty()).then_some(()) }
    })
    .await;
    assert_eq!(fleet.records("review.requests").len(), 1);
    assert_eq!((asks(&fleet), keys(fleet.calls().into_keys())), (keys(["doubt"]), keys(["doubt"])));
    assert_eq!(fleet.provider.asked().len(), 1, "no call is bought twice");
    assert!(member.process.stop(SOON).success(), "{}", member.process.words());
}

//! What an operator changes under a running process is told, in `status` or in its log, with what to do; and work
//! goes on by itself once it is put right.

use crate::fleet::{Fleet, Member, TAKEN_OVER, good, keys};
use crate::rig::cluster;
use crate::rig::eventually;
use crate::rig::redis_server::{ALWAYS, Server};
use crate::rig::script::SOON;
use rdkafka::admin::AdminOptions;

async fn says(member: &Member, part: &str) -> String {
    eventually(&format!("status says `{part}`"), SOON, || async {
        let (_, status) = member.api.get("/v1/status").await.ok()?;
        status["sentence"].as_str().filter(|said| said.contains(part)).map(str::to_owned)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_under_a_running_process_is_told_with_what_to_do() {
    let redis = Server::start_own(&ALWAYS);
    let mut fleet = Fleet::on(&cluster::servers().kafka, &redis.url(), "", |_| good()).await;
    let mut member = fleet.start().await;
    fleet.send(&["k1"]);
    fleet.one_result_each(&keys(["k1"]), SOON).await;

    let mut plain = redis.plain().await;
    let mut policy = async |policy: &str| {
        let mut set = redis::cmd("CONFIG");
        let set = set.arg("SET").arg("maxmemory-policy").arg(policy);
        let _: () = set.query_async(&mut plain).await.unwrap();
    };
    policy("allkeys-lru").await;
    says(&member, "set `maxmemory-policy noeviction`").await;
    // That it is well again is told with the topic, below.
    policy("noeviction").await;

    let results = fleet.topic("results");
    let deleted = fleet.admin().delete_topics(&[&results], &AdminOptions::new()).await.unwrap();
    deleted.into_iter().for_each(|topic| drop(topic.unwrap()));
    let said = says(&member, &format!("there is no `{results}`")).await;
    assert!(said.contains("tidegate topics plan"), "{said}");
    fleet.send(&["k2"]);
    let (code, said, problem) = fleet.place.tool(&["topics", "apply"]);
    assert_eq!(code, 0, "{said}{problem}");
    // What was published before went with its topic.
    fleet.one_result_each(&keys(["k2"]), TAKEN_OVER).await;
    says(&member, "All is well").await;

    let mut other = fleet.start().await;
    let counted = async |member: &Member| {
        eventually("an emptied Redis is counted", SOON, || async {
            (member.api.metric("tidegate_ledger_emptied_total").await == 1.0).then_some(())
        })
        .await;
        says(member, "Redis has lost what it knew of this installation").await;
    };
    let _: () = redis::cmd("FLUSHALL").query_async(&mut plain).await.unwrap();
    // One of them ties it again; both tell.
    for member in [&member, &other] {
        counted(member).await;
    }
    let stranger = "another-cluster other-group";
    let bound: Vec<String> = redis::cmd("KEYS").arg("*:log").query_async(&mut plain).await.unwrap();
    let _: () = redis::cmd("SET").arg(&bound[0]).arg(stranger).query_async(&mut plain).await.unwrap();
    says(&member, stranger).await;
    for member in [&mut member, &mut other] {
        assert!(member.process.stop(SOON).success(), "{}", fleet.said());
    }

    // Emptied while nobody runs: whoever starts next finds groups that have worked, and says so at once; so does who
    // comes after.
    let _: () = redis::cmd("FLUSHALL").query_async(&mut plain).await.unwrap();
    for _ in 0..2 {
        let mut next = fleet.start().await;
        counted(&next).await;
        assert!(next.process.stop(SOON).success(), "{}", fleet.said());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_keys_that_redis_drops_to_make_room_are_told_also_once_it_drops_none_any_more() {
    let redis = Server::start_own(&ALWAYS);
    let mut fleet = Fleet::on(&cluster::servers().kafka, &redis.url(), "", |_| good()).await;
    let mut member = fleet.start().await;
    fleet.send(&["k1"]);
    fleet.one_result_each(&keys(["k1"]), SOON).await;
    let mut plain = redis.plain().await;
    let mut set = async |name: &str, to: &str| {
        let mut set = redis::cmd("CONFIG");
        let _: () = set.arg("SET").arg(name).arg(to).query_async(&mut plain).await.unwrap();
    };
    // Only the keys that end by themselves: what ties Redis to the installation stays.
    set("maxmemory-policy", "volatile-random").await;
    set("maxmemory", "4mb").await;
    let mut other = redis.plain().await;
    for n in 0..100 {
        let key = format!("other{n}");
        let _: () = redis::cmd("SET")
            .arg(key)
            .arg("x".repeat(100_000))
            .arg("EX")
            .arg(600)
            .query_async(&mut other)
            .await
            .unwrap();
    }
    set("maxmemory", "0").await;
    set("maxmemory-policy", "noeviction").await;
    says(&member, "Redis has lost what it knew of this installation").await;
    let tied: Vec<String> = redis::cmd("KEYS").arg("*:log").query_async(&mut other).await.unwrap();
    assert_eq!(tied.len(), 1, "it still knows whose it is");
    assert!(member.process.stop(SOON).success(), "{}", fleet.said());
    // Told until the window is over, and not counted again.
    let mut next = fleet.start().await;
    says(&next, "Redis has lost what it knew of this installation").await;
    assert_eq!(next.api.metric("tidegate_ledger_emptied_total").await, 1.0);
    assert!(next.process.stop(SOON).success(), "{}", fleet.said());
}

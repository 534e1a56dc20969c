//! Row 8 of the crash table: a commit was sent, and its answer never came. Whether it has happened or not, the
//! process finds it out and goes on; nobody dies, and no call is made twice.

use crate::fleet::{Fleet, Member, TAKEN_OVER, good, key_of, keys};
use crate::rig::eventually;
use crate::rig::kafka_broker::Broker;
use crate::rig::kafka_proxy::{Lost, Proxy};
use crate::rig::redis_server::{ALWAYS, Server};
use crate::rig::script::{Reply, SOON};
use std::collections::BTreeMap;
use tokio::sync::watch;

const KEYS: usize = 40;
/// As the process says it, once it has given up waiting for the answer.
const NOT_KNOWN: &str = "whether a transaction was committed is not known; it is looked up";

fn not_known(member: &Member) -> usize {
    member.process.words().matches(NOT_KNOWN).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p2_p3_a_commit_whose_answer_was_lost_is_looked_up_and_finished_or_made_again() {
    let (proxy, redis) = (Proxy::new(), Server::start_own(&ALWAYS));
    let broker = Broker::behind(&proxy);
    let mut fleet = Fleet::on(&broker.address, &redis.url(), "", |_| good()).await;
    let mut member = fleet.start().await;
    let mut sent: Vec<String> = Vec::new();
    for lost in [Lost::Answers, Lost::Requests] {
        // All are answered once the fault is there, so that the next commit meets it.
        let (release, released) = watch::channel(false);
        fleet.provider.now(move |_| Reply::Once(released.clone(), Box::new(good())));
        let now: Vec<String> = (0..KEYS).map(|n| format!("{lost:?}{n}")).collect();
        fleet.send(&now.iter().map(String::as_str).collect::<Vec<_>>());
        let under_way = || fleet.provider.under_way().iter().map(key_of).collect::<Vec<_>>();
        eventually("all are under way", SOON, || async { (keys(under_way()) == keys(&now)).then_some(()) })
            .await;
        let (ends, looked_up) = (proxy.lost(), not_known(&member));
        proxy.lose(lost);
        release.send_replace(true);
        eventually(&format!("{lost:?}: it is not known"), SOON, || async {
            (not_known(&member) > looked_up).then_some(())
        })
        .await;
        assert!(proxy.lost() > ends, "{lost:?}: the end of a transaction was lost");
        let visible = keys(fleet.outcomes().into_keys().filter(|key| now.contains(key)));
        match lost {
            Lost::Answers => assert!(!visible.is_empty(), "the broker has committed what it was sent"),
            _ => assert_eq!(visible, keys(Vec::<String>::new()), "the broker has heard of no commit"),
        }
        proxy.lose(Lost::Nothing);
        sent.extend(now);
        fleet.one_result_each(&keys(&sent), TAKEN_OVER).await;
    }
    let once: BTreeMap<String, usize> = sent.iter().map(|key| (key.clone(), 1)).collect();
    assert_eq!((fleet.calls(), fleet.told()), (once.clone(), once), "no call is made twice");
    // The ledger has heard of each as well.
    let sender = fleet.sender();
    sent.iter().for_each(|key| sender.task(key, 1));
    sender.flush();
    eventually("every copy is complete", SOON, || async {
        (member.api.metric("tidegate_duplicates_total").await >= sent.len() as f64).then_some(())
    })
    .await;
    fleet.one_result_each(&keys(&sent), SOON).await;
    assert!(member.process.stop(SOON).success(), "{}", member.process.words());
    let rest = fleet.rest();
    assert_eq!(rest.open_records().await, []);
    rest.close().await;
}

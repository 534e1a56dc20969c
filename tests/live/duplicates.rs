//! Rows 10 and 11 of the crash table: copies of a task while it runs, and copies that race. Nothing dies, and
//! one of them is the task.

use crate::fleet::{Fleet, Member, SHARED, good, key_of, keys};
use crate::rig::eventually;
use crate::rig::script::{Reply, SOON};
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::watch;

const COPIES: f64 = SHARED as f64;

/// Two processes that both have some of them: each has asked for something of its own.
async fn two(fleet: &mut Fleet) -> [Member; 2] {
    fleet.names_its_members();
    fleet.place.apply(fleet.place.command().env("MEMBER", "0"));
    fleet.grow(SHARED as usize).await;
    let members = [fleet.start().await, fleet.start().await];
    let sender = fleet.sender();
    let mut sent = 0;
    eventually("both have partitions", SOON, || {
        sender.task(&format!("first{sent}"), 0);
        sender.flush();
        sent += 1;
        let askers: BTreeSet<String> = fleet.provider.asked().into_iter().map(|a| a.asker).collect();
        async move { (askers.len() == 2).then_some(()) }
    })
    .await;
    fleet.one_result_each(&keys((0..sent).map(|n| format!("first{n}"))), SOON).await;
    members
}

/// Of each process.
async fn duplicates(members: &[Member; 2]) -> [f64; 2] {
    let name = "tidegate_duplicates_total";
    [members[0].api.metric(name).await, members[1].api.metric(name).await]
}

/// Every record is complete, by the word of whoever opens what they have left.
async fn nothing_is_open(fleet: &Fleet, members: [Member; 2]) {
    for mut member in members {
        assert!(member.process.stop(SOON).success(), "{}", member.process.words());
    }
    let rest = fleet.rest();
    assert_eq!(rest.open_records().await, []);
    rest.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p3_a_duplicate_while_the_canonical_one_runs_completes_silently_wherever_it_lies() {
    let mut fleet = Fleet::new(|_| good()).await;
    let members = two(&mut fleet).await;
    let (answers, told) = watch::channel(false);
    fleet.provider.now(move |_| Reply::Once(told.clone(), Box::new(good())));
    let before = fleet.outcomes();
    fleet.send(&["k"]);
    eventually("the model is asked", SOON, || async { fleet.calls().get("k").copied() }).await;
    let sender = fleet.sender();
    sender.task_in_each("k", SHARED);
    sender.flush();
    eventually("every copy is complete", SOON, || async {
        let [first, second] = duplicates(&members).await;
        (first + second >= COPIES).then_some(())
    })
    .await;
    // In both processes, and the one they are copies of still runs.
    let each = duplicates(&members).await;
    assert!(each[0] >= 1.0 && each[1] >= 1.0 && each[0] + each[1] == COPIES, "{each:?}");
    assert_eq!(fleet.outcomes(), before);
    for member in &members {
        assert_eq!(member.api.task("ticket", "k").await.unwrap()["state"], "running");
    }
    let asked = fleet.provider.under_way();
    assert_eq!(asked.len(), 1, "{asked:?}");
    answers.send_replace(true);
    let expected = keys(before.into_keys().chain(["k".to_owned()]));
    fleet.one_result_each(&expected, SOON).await;
    assert_eq!((fleet.calls()["k"], fleet.told()["k"]), (1, 1));
    nothing_is_open(&fleet, members).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p3_of_duplicates_that_race_on_two_processes_one_is_admitted_and_the_others_are_silent() {
    let mut fleet = Fleet::new(|_| good()).await;
    let members = two(&mut fleet).await;
    let before = fleet.calls();
    let racing: Vec<String> = (0..20).map(|n| format!("race{n}")).collect();
    let sender = fleet.sender();
    for key in &racing {
        sender.task_in_each(key, SHARED);
        sender.flush();
    }
    let expected = keys(before.keys().chain(&racing));
    fleet.one_result_each(&expected, SOON).await;
    // A copy in each partition; all but one of each key.
    let silent = (COPIES - 1.0) * racing.len() as f64;
    eventually("every copy is complete", SOON, || async {
        let [first, second] = duplicates(&members).await;
        (first + second >= silent).then_some(())
    })
    .await;
    let asked = fleet.provider.asked();
    for (member, silent) in members.iter().zip(duplicates(&members).await) {
        let won = asked.iter().filter(|a| a.asker == member.name && racing.contains(&key_of(a))).count();
        println!("process {}: {won} were its own, {silent} were silent", member.name);
        // Some partitions are its own, and in each of them there is a copy of every key.
        let copies = won + silent as usize;
        assert!(copies > 0 && copies.is_multiple_of(racing.len()), "{copies} in process {}", member.name);
    }
    let once: BTreeMap<String, usize> = expected.iter().map(|key| (key.clone(), 1)).collect();
    assert_eq!(
        (fleet.calls(), fleet.told()),
        (once.clone(), once),
        "asked for once, and no more is owned up to"
    );
    nothing_is_open(&fleet, members).await;
}

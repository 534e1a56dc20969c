//! Processes come and go under load, as in a deploy: each key has one outcome, and no call is bought twice
//! but by the process that was cut off in the middle of its calls.

use crate::fleet::{Fleet, Member, SHARED, TAKEN_OVER, good, key_of, keys};
use crate::rig::process::says;
use crate::rig::script::{Asked, Reply, SOON};
use crate::rig::{eventually, number};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// As many keys at least, so that there is something to do in every state of the fleet.
const LEAST: usize = 100;

/// Sends a key every so often, each third one three times, until the first of what is returned is dropped.
/// Which keys?
fn sends(fleet: &Fleet, every: Duration) -> (DropGuard, tokio::task::JoinHandle<BTreeSet<String>>) {
    let enough = CancellationToken::new();
    let (sender, until) = (fleet.sender(), enough.clone());
    let sending = tokio::task::spawn_blocking(move || {
        let mut sent = BTreeSet::new();
        while !until.is_cancelled() || sent.len() < LEAST {
            let n = sent.len();
            let key = format!("k{n}");
            (0..if n.is_multiple_of(3) { 3 } else { 1 }).for_each(|copy| sender.task(&key, copy));
            sent.insert(key);
            std::thread::sleep(every);
        }
        sender.flush();
        sent
    });
    (enough.drop_guard(), sending)
}

/// One of them that waits for its calls, whose answers are held back, and for nothing else: it is told to end
/// twice. Which of them, and which keys it had asked for?
async fn cut_off(fleet: &Fleet, members: &mut [Member]) -> (usize, BTreeSet<String>) {
    let (answer, told) = watch::channel(false);
    let from = fleet.provider.asked().len();
    fleet.provider.now(move |_| Reply::Once(told.clone(), Box::new(slowly())));
    let calls_of = |name: &str, calls: Vec<Asked>| -> Vec<Asked> {
        calls.into_iter().filter(|asked| asked.asker == name).collect()
    };
    let waits = |member: &Member| {
        let calls = calls_of(&member.name, fleet.provider.under_way());
        !calls.is_empty() && calls.iter().all(|asked| asked.nth >= from)
    };
    let n = eventually("one waits for its calls", SOON, || async { members.iter().position(waits) }).await;
    let process = &mut members[n].process;
    process.signal("TERM");
    says(process, "a second signal exits at once", SOON).await;
    assert!(process.ended().is_none(), "it waits for its calls: {}", process.words());
    process.signal("TERM");
    let status = process.wait(SOON).expect("the second signal ends it, whatever runs");
    assert_eq!(status.code(), Some(130), "{}", process.words());
    let calls = calls_of(&members[n].name, fleet.provider.asked());
    let cut = keys(calls.iter().filter(|asked| asked.nth >= from).map(key_of));
    answer.send_replace(true);
    fleet.provider.now(|_| slowly());
    (n, cut)
}

fn slowly() -> Reply {
    Reply::After(Duration::from_millis(500), Box::new(good()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p2_p3_a_deploy_of_many_processes_and_back_repeats_only_what_a_second_signal_cut_off() {
    let most = usize::try_from(number("TIDEGATE_PROCESSES", 8)).unwrap();
    let mut fleet = Fleet::new(|_| slowly()).await;
    fleet.names_its_members();
    // Enough for each of them.
    fleet.place.apply(fleet.place.command().env("MEMBER", "0"));
    fleet.grow(SHARED as usize).await;
    let mut members = vec![fleet.start().await];
    let (enough, sending) = sends(&fleet, Duration::from_millis(100));
    while members.len() < most {
        members.push(fleet.start().await);
    }
    let names = keys(members.iter().map(|member| &member.name));
    eventually("each of them asks", SOON, || {
        let askers = keys(fleet.provider.asked().into_iter().map(|asked| asked.asker));
        let all = askers.is_superset(&names);
        async move { all.then_some(()) }
    })
    .await;
    let (n, cut) = cut_off(&fleet, &mut members).await;
    assert!(!cut.is_empty());
    members.remove(n);
    for mut member in members.drain(1..) {
        assert!(member.process.stop(SOON).success(), "{}", member.process.words());
    }
    drop(enough);
    let sent = sending.await.unwrap();
    fleet.one_result_each(&sent, TAKEN_OVER).await;
    // A model was asked for each key, and for nothing else; again for what was cut off, and for nothing else.
    let times = |key: &String| if cut.contains(key) { 2 } else { 1 };
    let (calls, told) = (fleet.calls(), fleet.told());
    assert_eq!(calls, sent.iter().map(|key| (key.clone(), times(key))).collect::<BTreeMap<_, _>>());
    // A call that was cut off before its request was sent is counted, and was not made.
    let uncounted: Vec<_> = calls.iter().filter(|(key, n)| told[*key] < **n).collect();
    assert_eq!(uncounted, [], "every call is owned up to");
    println!("{} keys, {} asked for again", sent.len(), cut.len());
    drop(members);
}

/// Otherwise its partitions would be nobody's until its session is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_a_process_that_has_ended_in_order_is_a_member_of_no_group_any_more() {
    let mut fleet = Fleet::new(|_| good()).await;
    let mut members = vec![fleet.start().await, fleet.start().await];
    let both = eventually("each group has both", SOON, || {
        let found = fleet.members();
        async move { (found.len() == 3 && found.values().all(|ids| ids.len() == 2)).then_some(found) }
    })
    .await;
    for left in [1, 0] {
        let mut gone = members.remove(0);
        assert!(gone.process.stop(SOON).success(), "{}", gone.process.words());
        let found = fleet.members();
        for (group, before) in &both {
            let ids = found.get(group).cloned().unwrap_or_default();
            assert!(ids.len() == left && ids.is_subset(before), "{group}: {ids:?} of {before:?}");
        }
    }
}

/// The group waits for the session of a member that has died, and whoever ends meanwhile waits for the group.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_a_process_that_ends_in_the_middle_of_a_rebalance_leaves_its_groups_all_the_same() {
    let mut fleet = Fleet::new(|_| good()).await;
    let mut killed = fleet.start().await;
    let mut others = [fleet.start().await, fleet.start().await];
    let worker = format!("{}tidegate.worker", fleet.prefix);
    eventually("all are members", SOON, || {
        let members = fleet.members().remove(&worker).map_or(0, |ids| ids.len());
        async move { (members == 3).then_some(()) }
    })
    .await;
    killed.process.kill();
    let [first, second] = &mut others;
    assert!(first.process.stop(SOON).success(), "{}", first.process.words());
    // It hears of the rebalance in the answer to a heartbeat, two in a second.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(second.process.stop(SOON).success(), "{}", second.process.words());
    let left = fleet.members();
    let left: Vec<_> = left.iter().filter(|(_, ids)| ids.len() > 1).collect();
    assert!(left.is_empty(), "nobody but the one that was killed, until its session is over: {left:?}");
}

/// Row 12 of the crash table. The new owner has a partition while the old one lives and its calls there run: it
/// asks for what comes new, and waits for the answers to what came before, which the old one gets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p3_the_new_owner_of_a_partition_waits_for_the_answers_that_its_old_owner_gets() {
    let (release, released) = watch::channel(false);
    let mut fleet = Fleet::new(move |asked| match key_of(asked) {
        key if key.starts_with("held") => Reply::Once(released.clone(), Box::new(good())),
        _ => good(),
    })
    .await;
    fleet.names_its_members();
    fleet.place.apply(fleet.place.command().env("MEMBER", "0"));
    fleet.grow(SHARED as usize).await;
    let mut old = fleet.start().await;
    let sender = fleet.sender();
    let held: Vec<String> = (0..SHARED).map(|p| format!("held{p}")).collect();
    (0..SHARED).for_each(|p| sender.task_in(&held[p as usize], p));
    sender.flush();
    let waits_for_all = |fleet: &Fleet| {
        let calls = fleet.provider.under_way();
        calls.iter().all(|asked| asked.asker == "1") && keys(calls.iter().map(key_of)) == keys(&held)
    };
    eventually("all are under way", SOON, || async { waits_for_all(&fleet).then_some(()) }).await;
    let mut new = fleet.start().await;
    // Who asks for what comes to a partition now has been given all that came to it before.
    let mut rounds = 0;
    let moved = eventually("partitions have moved", SOON, || {
        (0..SHARED).for_each(|p| sender.task_in(&format!("new{p}.{rounds}"), p));
        sender.flush();
        rounds += 1;
        let asked = fleet.provider.asked().into_iter().filter(|asked| asked.asker == "2");
        let partition = |asked: Asked| key_of(&asked)[3..].split('.').next().map(str::to_owned);
        let moved: BTreeSet<String> = asked.filter_map(partition).collect();
        async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            (!moved.is_empty()).then_some(moved)
        }
    })
    .await;
    assert!(moved.len() < SHARED as usize, "{moved:?}");
    let news = (0..rounds).flat_map(|n| (0..SHARED).map(move |p| format!("new{p}.{n}")));
    let news: BTreeSet<String> = news.collect();
    eventually("what came new is done", SOON, || async {
        (fleet.outcomes().len() >= news.len()).then_some(())
    })
    .await;
    assert_eq!(keys(fleet.outcomes().into_keys()), news, "and nothing of what came before");
    assert!(old.process.ended().is_none() && waits_for_all(&fleet), "by its old owner, which lives");
    let ended = async |member: &Member| member.api.metric("tidegate_outcomes_total").await;
    // Counted a moment after it is visible.
    let before = eventually("what came new is counted", SOON, || async {
        let counts = [ended(&old).await, ended(&new).await];
        (counts[0] + counts[1] == news.len() as f64).then_some(counts)
    })
    .await;
    release.send_replace(true);

    let all = keys(held.iter().chain(&news));
    fleet.one_result_each(&all, TAKEN_OVER).await;
    let once: BTreeMap<String, usize> = all.iter().map(|key| (key.clone(), 1)).collect();
    assert_eq!(
        (fleet.calls(), fleet.told()),
        (once.clone(), once),
        "no call is made twice, and none counted so"
    );
    let askers = fleet.provider.asked().into_iter().filter(|asked| key_of(asked).starts_with("held"));
    assert!(askers.map(|asked| asked.asker).all(|asker| asker == "1"), "the new owner has asked for none");
    let ended = [ended(&old).await - before[0], ended(&new).await - before[1]];
    assert_eq!(ended[0] + ended[1], held.len() as f64);
    assert!(ended[1] >= moved.len() as f64, "its new owner has published what moved: {ended:?} {moved:?}");
    for member in [&mut old, &mut new] {
        assert!(member.process.stop(SOON).success(), "{}", member.process.words());
    }
}

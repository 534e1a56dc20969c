//! Processes come and go under load, as in a deploy: each key has one outcome, and no call is bought twice
//! but by the process that was cut off in the middle of its calls.

use crate::fleet::{Fleet, Member, TAKEN_OVER, good, key_of, keys};
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
    let mut members = vec![fleet.start().await];
    let (enough, sending) = sends(&fleet, Duration::from_millis(100));
    while members.len() < most {
        members.push(fleet.start().await);
    }
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

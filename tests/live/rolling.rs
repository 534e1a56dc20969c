//! Processes come and go under load, as in a deploy: each key has one outcome, and no call is bought twice
//! but by those that were cut off.

use crate::fleet::{Fleet, TAKEN_OVER, good, keys};
use crate::rig::number;
use crate::rig::script::{Reply, SOON};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Sends a key every so often, each third one three times, until it is told to stop. Which keys?
fn sends(fleet: &Fleet, every: Duration) -> (Arc<AtomicBool>, tokio::task::JoinHandle<BTreeSet<String>>) {
    let enough = Arc::new(AtomicBool::new(false));
    let (sender, until) = (fleet.sender(), enough.clone());
    let sending = tokio::task::spawn_blocking(move || {
        let mut sent = BTreeSet::new();
        while !until.load(Ordering::SeqCst) {
            let n = sent.len();
            let key = format!("k{n}");
            (0..if n.is_multiple_of(3) { 3 } else { 1 }).for_each(|copy| sender.task(&key, copy));
            sent.insert(key);
            std::thread::sleep(every);
        }
        sender.flush();
        sent
    });
    (enough, sending)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p2_p3_a_deploy_of_many_processes_and_back_repeats_only_what_a_second_signal_cut_off() {
    let most = usize::try_from(number("TIDEGATE_PROCESSES", 8)).unwrap();
    let mut fleet = Fleet::new(|_| Reply::After(Duration::from_millis(500), Box::new(good()))).await;
    let mut members = vec![fleet.start().await];
    let (enough, sending) = sends(&fleet, Duration::from_millis(100));
    while members.len() < most {
        members.push(fleet.start().await);
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut cut = 0;
    for (n, mut member) in members.drain(1..).enumerate() {
        // The first of them, which has worked for longest, is not waited for.
        if n == 0 {
            member.process.signal("TERM");
            member.process.signal("INT");
            let status = member.process.wait(SOON).expect("the second signal ends it");
            cut += usize::from(status.code() == Some(130));
        } else {
            assert!(member.process.stop(SOON).success(), "{}", member.process.words());
        }
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    enough.store(true, Ordering::SeqCst);
    let sent = sending.await.unwrap();
    assert!(sent.len() > 100, "only {} keys were sent meanwhile", sent.len());
    fleet.one_result_each(&sent, TAKEN_OVER).await;
    let (calls, told) = (fleet.calls(), fleet.told());
    assert_eq!(keys(calls.keys().cloned()), sent, "a model was asked for each key, and for nothing else");
    // A call that was cut off before its request was sent is counted, and was not made.
    let uncounted: Vec<_> = calls.iter().filter(|(key, n)| told[*key] < **n).collect();
    assert_eq!(uncounted, [], "every call is owned up to");
    let again: BTreeSet<&String> = calls.iter().filter(|(_, n)| **n > 1).map(|(key, _)| key).collect();
    println!("{} keys, {} asked for again, {cut} processes cut off", sent.len(), again.len());
    assert!(cut == 1 || again.is_empty(), "nobody was cut off, and {again:?} were asked for again");
    // At 10 keys a second and half a second each, no process has more at once.
    assert!(again.len() <= 10, "{again:?}");
    drop(members);
}

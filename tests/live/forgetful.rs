//! Row 18 of the crash table: a Redis that answers before it syncs loses what it wrote last, because the power goes
//! and the end of its file with it. Of the limits in `src/lib.rs` exactly the first is met: what has one record has
//! one outcome, and nothing is lost; a copy may be a second outcome.

use crate::fleet::{Fleet, TAKEN_OVER, good, key_of, keys};
use crate::rig::cluster;
use crate::rig::eventually;
use crate::rig::redis_server::{EVERYSEC, Server};
use crate::rig::script::{Reply, SOON};
use std::collections::BTreeMap;
use std::path::PathBuf;
use tokio::sync::watch;

/// The file that Redis appends to.
fn appended(server: &Server) -> PathBuf {
    let dir = server.place().join("appendonlydir");
    let mut files = std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
    files.find(|path| path.to_string_lossy().ends_with(".incr.aof")).unwrap()
}

/// How much of it was written, once nothing waits to be.
async fn written(server: &Server) -> u64 {
    let mut plain = server.plain().await;
    for _ in 0..1_000 {
        let info: String = redis::cmd("INFO").arg("persistence").query_async(&mut plain).await.unwrap();
        if info.contains("aof_buffer_length:0\r") {
            return std::fs::metadata(appended(server)).unwrap().len();
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("it never writes what it has");
}

/// The power goes, and with it all that was written behind `kept`. How many bytes?
fn forgets(server: &mut Server, kept: u64) -> u64 {
    server.kill();
    let file = std::fs::File::options().write(true).open(appended(server)).unwrap();
    let lost = file.metadata().unwrap().len().checked_sub(kept).unwrap();
    file.set_len(kept).unwrap();
    drop(file);
    server.start();
    lost
}

fn names(of: &str) -> Vec<String> {
    (0..10).map(|n| format!("{of}{n}")).collect()
}

/// The process lives, or dies in the same moment.
async fn case(dies: bool) {
    let mut redis = Server::start_own(&EVERYSEC);
    let mut fleet = Fleet::on(&cluster::servers().kafka, &redis.url(), "", |_| good()).await;
    let mut member = fleet.start().await;
    let (release, released) = watch::channel(false);
    let (answer, answered) = watch::channel(false);
    let (answer_later, answered_later) = watch::channel(false);
    fleet.provider.now(move |asked| match key_of(asked) {
        key if key.starts_with("open") => Reply::Once(released.clone(), Box::new(good())),
        key if key.starts_with("running") => {
            let early = names("running")[..5].contains(&key);
            Reply::Once(if early { answered.clone() } else { answered_later.clone() }, Box::new(good()))
        }
        _ => good(),
    });
    let send = |of: &str| fleet.send(&names(of).iter().map(String::as_str).collect::<Vec<_>>());
    let under_way = |of: &'static str| {
        let calls = fleet.provider.under_way();
        calls.iter().filter(|asked| key_of(asked).starts_with(of)).count()
    };
    let mut done = names("closed");
    send("closed");
    fleet.one_result_each(&keys(&done), SOON).await;
    send("open");
    eventually("all are under way", SOON, || async { (under_way("open") == 10).then_some(()) }).await;
    let kept = written(&redis).await;

    // From here on all is forgotten: answers and ends of what was open, tasks from first to last, and claims.
    release.send_replace(true);
    send("whole");
    done.extend(names("open"));
    done.extend(names("whole"));
    fleet.one_result_each(&keys(&done), SOON).await;
    send("running");
    eventually("all are under way", SOON, || async { (under_way("running") == 10).then_some(()) }).await;
    for name in done.iter().chain(&names("running")) {
        let task = member.api.task("ticket", name).await.unwrap();
        let state = if name.starts_with("running") { "running" } else { "done" };
        assert_eq!(task["state"], state, "the ledger has acknowledged it: {task}");
    }
    if dies {
        member.process.kill();
    }
    let reached = || member.process.words().matches("the ledger is reached").count();
    let before = reached();
    let lost = forgets(&mut redis, kept);
    assert!(lost > 10_000, "so many bytes of acknowledged writes: {lost}");
    // Some are answered before the ledger is there again, and some find that it knows nothing of them.
    answer.send_replace(true);
    if dies {
        member = fleet.start().await;
    } else {
        eventually("it is there again", SOON, || async { (reached() > before).then_some(()) }).await;
    }
    answer_later.send_replace(true);
    done.extend(names("running"));
    // One record each: one outcome each, and none is lost.
    fleet.one_result_each(&keys(&done), TAKEN_OVER).await;

    // Of what was forgotten as a whole a copy is a task of its own: limit 1. It proves that it was forgotten.
    let sender = fleet.sender();
    done.iter().for_each(|key| sender.task(key, 1));
    sender.flush();
    let outcomes = |key: &str| if key.starts_with("whole") { 2 } else { 1 };
    let expected: BTreeMap<String, Vec<String>> =
        done.iter().map(|key| (key.clone(), vec!["accepted".to_owned(); outcomes(key)])).collect();
    eventually("every copy is complete", SOON, || async {
        let copies = member.api.metric("tidegate_duplicates_total").await;
        (copies >= 30.0 && fleet.outcomes() == expected).then_some(())
    })
    .await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(fleet.outcomes(), expected, "dies: {dies}; {}", fleet.said());
    assert_eq!(member.api.metric("tidegate_duplicates_total").await, 30.0);
    // No call but those of what was forgotten is made again, and of these none more than once.
    for (key, calls) in fleet.calls() {
        let most = if key.starts_with("whole") || key.starts_with("running") { 2 } else { 1 };
        assert!(calls <= most, "{key}: {calls}, dies: {dies}");
    }
    assert!(member.process.stop(SOON).success(), "{}", member.process.words());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p2_a_redis_that_forgets_what_it_acknowledged_loses_no_task_and_repeats_only_a_copy_of_one() {
    futures::join!(case(false), case(true));
}

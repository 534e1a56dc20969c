//! A process that is asked to stop: it says so, answers, takes nothing new, ends what runs, and has
//! nothing to warn of.

use crate::rig::eventually;
use crate::rig::process::{Process, tidegate};
use crate::rig::script::{Reply, SOON};
use crate::stage::{Stage, good, ticket};
use serde_json::json;
use std::time::Duration;

/// Longer than everything that is asked meanwhile, also on a busy machine.
const THINKS: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_stopping_process_says_so_answers_takes_nothing_new_and_ends_what_runs() {
    let mut stage = Stage::set(|_| Reply::After(THINKS, Box::new(Reply::json(good())))).await;
    let config = std::fs::read_to_string(stage.place.config()).unwrap();
    std::fs::write(stage.place.config(), config.replace("\"2s\"", "\"20s\"")).unwrap();
    stage.start().await;
    stage.api.submit("ticket", "t1", ticket()).await;
    eventually("the model is asked", SOON, || async { stage.provider.asked().first().cloned() }).await;

    stage.process.as_ref().unwrap().signal("TERM");
    let api = stage.api.clone();
    let told = eventually("it is not ready any more", SOON, || async {
        api.get("/readyz").await.ok().filter(|(status, _)| *status == 503).map(|(_, told)| told)
    })
    .await;
    let why = "This process is stopping: running tasks may end, new ones are not taken.";
    assert_eq!((&told["ready"], &told["why"]), (&json!(false), &json!(why)));
    let (status, told) = stage.api.offer("ticket", "t2", ticket(), json!({})).await;
    assert_eq!((status, &told["error"]["code"]), (503, &json!("stopping")), "{told}");
    let record = json!({ "records": [{ "key": "a", "value": "{}" }] });
    let (status, told) = stage.append("tasks.ticket", &record).await.unwrap();
    assert_eq!((status, &told["error"]["code"]), (503, &json!("stopping")), "{told}");
    assert_eq!(stage.api.task("ticket", "t1").await.unwrap()["state"], "running");
    let (_, status) = stage.api.get("/v1/status").await.unwrap();
    assert_eq!(status["sentence"], why);

    let ended = stage.process.take().unwrap().wait(Duration::from_secs(20)).expect("it ends by itself");
    assert!(ended.success(), "ended with {ended}");
    let rest = stage.place.open();
    assert_eq!(rest.all("results").await.len(), 1, "the task that ran has ended");
    assert_eq!(rest.all("tasks.ticket").await.len(), 1, "nothing new was taken");
    assert_eq!(rest.open_records().await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_orderly_stop_is_nothing_to_warn_of() {
    let mut stage = Stage::open(|_| Reply::json(good())).await;
    stage.api.submit("ticket", "t1", ticket()).await;
    stage.api.until("ticket", "t1", "done").await;
    // Somebody listens to the very end.
    let stream = stage.api.listen("/v1/results").await;
    let status = stage.process.take().unwrap().stop(Duration::from_secs(20));
    assert!(status.success(), "ended with {status}");
    drop(stream);
    let words = std::fs::read_to_string(stage.place.log()).unwrap();
    assert!(words.contains("tidegate has stopped"), "{words}");
    let loud: Vec<&str> = words.lines().filter(|l| l.contains("WARN") || l.contains("ERROR")).collect();
    assert_eq!(loud, Vec::<&str>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn try_that_is_interrupted_ends_at_once_says_that_nothing_was_kept_and_leaves_nothing() {
    let stage = Stage::set(|_| Reply::Silent).await;
    let config = std::fs::read_to_string(stage.place.config()).unwrap();
    std::fs::write(stage.place.config(), config.replace("\"2s\"", "\"100s\"")).unwrap();
    std::fs::write(stage.place.path("one.json"), ticket().to_string()).unwrap();
    let temporary = stage.place.path("temporary");
    std::fs::create_dir(&temporary).unwrap();
    let left = || std::fs::read_dir(&temporary).unwrap().map(|e| e.unwrap().path()).collect::<Vec<_>>();

    let mut command = tidegate();
    command.current_dir(stage.place.dir.path()).env("TMPDIR", &temporary);
    command.arg("--config").arg(stage.place.config()).args(["try", "ticket", "one.json"]);
    let mut process = Process::start(command, &stage.place.path("said"));
    eventually("the model is asked", SOON, || async { stage.provider.asked().first().cloned() }).await;
    assert_eq!(left().len(), 1, "the payload lies in a directory of its own");
    process.signal("INT");
    let ended = process.wait(Duration::from_secs(5)).expect("it does not wait for the model");
    // As shells say that SIGINT ended a command.
    assert_eq!(ended.code(), Some(130), "{}", process.words());
    assert_eq!(process.words(), "error: stopped; nothing was kept\n");
    assert_eq!(left(), Vec::<std::path::PathBuf>::new(), "the payload is gone with its directory");
    assert!(!stage.place.path("data").exists(), "nothing was written where `run` would");
}

//! P7: an outage is not the task's fault.

use crate::rig::eventually;
use crate::rig::script::Reply;
use crate::stage::{KINDS, Stage, good, ticket};
use serde_json::json;
use std::time::{Duration, Instant};

/// A run of so many hard failures opens a breaker, and it stays open for so long before one probe.
const OPENS_AFTER: usize = 5;
const OPEN_S: u64 = 10;
/// A breaker stays open for 10 s and a parked task waits at least 5 s; a machine may be slow.
const BACK: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn p7_when_the_main_model_is_down_the_spare_answers() {
    let stage = Stage::open(|asked| match asked.model.as_str() {
        "main" => Reply::down(),
        _ => Reply::json(good()),
    })
    .await;
    let began = Instant::now();
    for n in 0..10 {
        // One after the other: nothing is under way when the breaker opens.
        stage.api.submit("ticket", &format!("t{n}"), ticket()).await;
        let task = stage.api.until("ticket", &format!("t{n}"), "done").await;
        assert_eq!(task["result"]["made_by"]["model"], "spare", "{task}");
        assert_eq!(task["result"]["status"], "accepted", "a fallback alone is no reason to ask a person");
    }
    let to_main = stage.provider.asked_of("main").len();
    let probes = usize::try_from(began.elapsed().as_secs() / OPEN_S).unwrap();
    assert!(
        (OPENS_AFTER..=OPENS_AFTER + probes).contains(&to_main),
        "the breaker stops asking a dead model: {to_main} calls, of which {probes} may be probes"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn p7_when_nobody_can_serve_intake_holds_and_everything_goes_on_afterwards() {
    let mut stage = Stage::open(|_| Reply::down()).await;
    for n in 0..12 {
        stage.api.submit("ticket", &format!("t{n}"), ticket()).await;
    }
    let api = stage.api.clone();
    eventually("the kind is held", BACK, || async {
        let (_, status) = api.get("/v1/status").await.ok()?;
        status
            .to_string()
            .contains("tasks.ticket")
            .then_some(())
            .filter(|()| status["held"].as_array().is_some_and(|h| !h.is_empty()))
    })
    .await;
    // Comes while intake is held: it must not be asked for, nor spend anything.
    let before = stage.provider.asked().len();
    stage.api.submit("ticket", "later", ticket()).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(stage.api.task("ticket", "later").await.unwrap()["state"], "queued");
    assert!(stage.api.is_ready().await, "an outage of the provider is no fault of this process");
    let probes = stage.provider.asked().len() - before;
    assert!(probes <= 4, "held, and yet asked {probes} times in two seconds");

    stage.provider.now(|_| Reply::json(good()));
    for key in (0..12).map(|n| format!("t{n}")).chain(["later".to_owned()]) {
        let api = stage.api.clone();
        let task = eventually(&format!("{key} is done"), BACK, || async {
            api.task("ticket", &key).await.filter(|t| t["state"] == "done")
        })
        .await;
        assert_eq!(task["outcome"], "result", "{task}");
        if key == "later" {
            assert_eq!(task["result"]["tries"].as_array().map(Vec::len), Some(1), "no try was spent: {task}");
        }
    }
    let rest = stage.rest();
    assert_eq!(rest.all("dead-letters").await.len(), 0);
    assert_eq!(rest.all("results").await.len(), 13);
    assert_eq!(rest.open_records().await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn p7_a_parked_task_survives_a_kill() {
    let mut stage = Stage::open(|_| Reply::down()).await;
    for n in 0..8 {
        stage.api.submit("ticket", &format!("t{n}"), ticket()).await;
    }
    let api = stage.api.clone();
    let parked = eventually("some task is parked", BACK, || async {
        for n in 0..8 {
            let key = format!("t{n}");
            if api.task("ticket", &key).await.is_some_and(|t| t["state"] == "waiting-until") {
                return Some(key);
            }
        }
        None
    })
    .await;
    stage.kill();
    stage.provider.now(|_| Reply::json(good()));
    stage.start().await;
    let api = stage.api.clone();
    let task = eventually("the parked task is done", BACK, || async {
        api.task("ticket", &parked).await.filter(|t| t["state"] == "done")
    })
    .await;
    assert_eq!(task["outcome"], "result", "{task}");
    assert!(task["trail"].to_string().contains("parked"), "{}", task["trail"]);
    for n in 0..8 {
        let key = format!("t{n}");
        let api = stage.api.clone();
        eventually("its neighbours are done too", BACK, || async {
            api.task("ticket", &key).await.filter(|t| t["state"] == "done" && t["outcome"] == "result")
        })
        .await;
    }
    let rest = stage.rest();
    assert_eq!((rest.all("results").await.len(), rest.all("dead-letters").await.len()), (8, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn p7_a_long_outage_while_asking_again_neither_charges_nor_tells_an_answer_twice() {
    // The first answer takes 1.5 s of 5 s, and cannot be used. Charged at each hop anew, it would be
    // too much in the third.
    let kinds = KINDS.replace("[tasks.copy]", "allowance = { time = \"5s\" }\n\n[tasks.copy]");
    let mut stage =
        Stage::set_with(&kinds, |asked| match (asked.slot_name().starts_with("answer.r0"), asked.nth) {
            (true, _) => {
                Reply::After(Duration::from_millis(1_500), Box::new(Reply::Says("It is a bug.".into())))
            }
            (false, 1) => Reply::Cut("{\"category\":".into()),
            _ => Reply::down(),
        })
        .await;
    stage.start().await;
    stage.api.submit("ticket", "t1", ticket()).await;
    let api = stage.api.clone();
    let notes = |task: &serde_json::Value, what: &str| {
        task["trail"].as_array().map_or(0, |all| all.iter().filter(|n| n["what"] == what).count())
    };
    eventually("it has parked three times", BACK, || async {
        api.task("ticket", "t1").await.filter(|t| notes(t, "parked") >= 3)
    })
    .await;
    stage.provider.now(|_| Reply::json(good()));
    let task = eventually("it is done", BACK, || async {
        api.task("ticket", "t1").await.filter(|t| t["state"] == "done")
    })
    .await;
    assert_eq!(task["outcome"], "result", "{task}");
    assert_eq!((notes(&task, "answered"), notes(&task, "answered again")), (1, 1), "{}", task["trail"]);
    // One bad answer, one that broke off, one good one: 10 and 5 tokens each.
    let usage = &task["result"]["usage"];
    assert_eq!((&usage["input_tokens"], &usage["output_tokens"]), (&30.into(), &15.into()), "{usage}");
    let of_the_first =
        stage.provider.asked().iter().filter(|a| a.slot_name().starts_with("answer.r0")).count();
    assert_eq!(of_the_first, 1);
    let rest = stage.rest();
    assert_eq!((rest.all("results").await.len(), rest.all("dead-letters").await.len()), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_task_that_waits_ends_at_its_deadline_and_not_when_its_models_may_be_asked_again() {
    let limited = || {
        Reply::Fails(429, &[("retry-after", "600")], serde_json::json!({ "error": { "message": "later" } }))
    };
    let stage = Stage::open(move |_| limited()).await;
    let deadline = tidegate::task::Timestamp::now().plus(Duration::from_secs(7));
    let headers = serde_json::json!({ "deadline": deadline.0.to_string() });
    stage.api.offer("ticket", "t1", ticket(), headers).await;
    let api = stage.api.clone();
    // The providers asked for ten minutes.
    let task = eventually("its deadline is kept", Duration::from_secs(40), || async {
        api.task("ticket", "t1").await.filter(|t| t["state"] == "done")
    })
    .await;
    assert_eq!(task["outcome"], "dead-letter", "{task}");
    assert!(
        task.to_string().contains("TG-deadline-passed") && task["trail"].to_string().contains("parked"),
        "{task}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn p7_a_blocked_model_says_in_status_when_it_is_tried_again_and_what_to_do() {
    let stage = Stage::open(|asked| match asked.model.as_str() {
        "main" => Reply::Fails(401, &[], json!({ "error": { "message": "no such key" } })),
        _ => Reply::json(good()),
    })
    .await;
    stage.api.submit("ticket", "t1", ticket()).await;
    stage.api.until("ticket", "t1", "done").await;
    let (code, said, problem) = stage.place.tool(&["status"]);
    assert_eq!(code, 0, "{said}{problem}");
    let text = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("main: tried again in 5 min; what to do: check the model's `key`"), "{said}");
    assert!(text.contains("stopped: unauthorized"), "{said}");
    let (_, told) = stage.api.get("/v1/models").await.unwrap();
    let main = told["models"].as_array().unwrap().iter().find(|m| m["name"] == "main").unwrap();
    assert!(main["next_try_ms"].as_u64().is_some_and(|ms| ms > 200_000), "{main}");
    assert!(main["help"].as_str().is_some_and(|help| help.contains("`key`")), "{main}");
    assert!(main["last_error_ms"].is_u64() && main["last_error"].as_str().is_some(), "{main}");
}

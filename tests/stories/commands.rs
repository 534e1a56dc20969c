//! The commands as people run them: the real binary, what it prints, how it ends.

use crate::rig::place::Place;
use crate::rig::process::{Process, free_port, says, tidegate};
use crate::rig::script::{Reply, SOON};
use crate::stage::{Stage, good};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// `good` for most texts; a doubtful one and a refused one are named.
pub(crate) fn by_its_text(words: &str) -> Reply {
    match words {
        w if w.contains("doubtful") => {
            Reply::json(json!({ "category": "bug", "order_id": null, "confidence": 0.81 }))
        }
        w if w.contains("unacceptable") => {
            let body = json!({ "error": { "message": "not acceptable", "type": "invalid_request_error" } });
            Reply::Fails(400, &[], body)
        }
        _ => Reply::json(good()),
    }
}

async fn stage() -> Stage {
    Stage::open(|asked| by_its_text(&asked.words())).await
}

/// A command that is fed on its standard input: how it ended, what it printed, what it complained of.
fn fed(stage: &Stage, input: &str, args: &[&str]) -> (i32, String, String) {
    let mut command = tidegate();
    command.current_dir(stage.place.dir.path()).arg("--config").arg(stage.place.config()).args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (out.status.code().unwrap_or(-1), text(&out.stdout), text(&out.stderr))
}

fn objects(said: &str) -> Vec<Value> {
    said.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// The key of a task without one, as its producer can compute it: 32 hex digits of BLAKE3 over the
/// payload's RFC 8785 form, which for these payloads is how they are written.
fn content_key(payload: &str) -> String {
    blake3::hash(payload.as_bytes()).to_hex()[..32].to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn submit_takes_a_file_gives_each_task_its_contents_hash_and_waits_for_its_place() {
    let stage = stage().await;
    let payloads = [r#"{"text":"a"}"#, r#"{"text":"something doubtful"}"#, r#"{"text":"unacceptable"}"#];
    // The last line is the first one, written otherwise.
    let lines = format!("{}\n{}\n\n{}\n{}\n", payloads[0], payloads[1], payloads[2], r#"{ "text" : "a" }"#);
    std::fs::write(stage.place.path("tasks.jsonl"), lines).unwrap();
    let (code, said, notes) = stage.place.tool(&["submit", "ticket", "tasks.jsonl", "--wait"]);
    assert_eq!(code, 0, "{said}{notes}");
    assert!(notes.contains("these tasks carry no key: the hash of its content is each one's key"), "{notes}");
    let last = "4 tasks: 1 result, 1 waiting for a person, 1 dead letter, 1 duplicate";
    assert!(said.lines().any(|line| line == last), "{said}");
    for next in ["tidegate review ls", "tidegate dead-letters ls"] {
        assert!(said.contains(next), "it says what to do next: {said}");
    }
    for (payload, state) in payloads.iter().zip(["done", "waiting-review", "done"]) {
        let task = stage.api.task("ticket", &content_key(payload)).await;
        assert_eq!(task.unwrap_or_default()["state"], state, "{payload}");
    }
    // The same file again does nothing twice.
    let asked = stage.provider.asked().len();
    let (code, said, _) = stage.place.tool(&["submit", "ticket", "tasks.jsonl"]);
    assert_eq!((code, said.lines().next()), (0, Some("4 lines: 0 accepted, 4 known before, 0 refused")));
    assert_eq!(stage.provider.asked().len(), asked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn submit_reads_standard_input_tells_a_refused_line_by_its_number_and_holds_nothing_up() {
    let stage = stage().await;
    let lines = "{\"text\":\"a\"}\n{\"text\":7}\n{\"text\":\n{\"text\":\"b\"}\n";
    let (code, said, _) = fed(&stage, lines, &["submit", "ticket", "-", "--wait", "--json"]);
    assert_eq!(code, 1, "something was refused: {said}");
    let told = objects(&said);
    let of = |name: &str| -> Vec<u64> {
        let lines = told.iter().filter(|o| !o[name].is_null());
        let mut lines: Vec<u64> = lines.map(|o| o["line"].as_u64().unwrap()).collect();
        lines.sort_unstable();
        lines
    };
    assert_eq!((of("refused"), of("place")), (vec![2, 3], vec![1, 4]), "{said}");
    let rested: Vec<&Value> = told.iter().filter(|o| o["place"] == "result").collect();
    assert_eq!(rested.len(), 2, "{said}");
    assert!(rested.iter().all(|o| o["data"]["answer"] == good()), "{said}");
    let sums = told.iter().find(|o| o["summary"].is_object()).unwrap();
    assert_eq!(
        sums["summary"],
        json!({ "lines": 4, "accepted": 2, "known": 0, "refused": 2, "content_keys": 2 })
    );
    let (code, _, problem) = fed(&stage, "", &["submit", "nothing", "-"]);
    assert_eq!(code, 0, "an empty file has nothing that could be refused: {problem}");
    let (code, _, problem) = fed(&stage, "{}\n", &["submit", "nothing", "-"]);
    assert!(code == 1 && problem.contains("nothing"), "no such kind: {problem}");
}

/// A `tail` that runs beside.
fn tail(stage: &Stage, what: &str, more: &[&str]) -> Process {
    let mut command = tidegate();
    command.current_dir(stage.place.dir.path()).arg("--config").arg(stage.place.config());
    command.args(["tail", what]).args(more);
    Process::start(command, &stage.place.path(&format!("tail-{what}-{}.log", more.len())))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn tail_follows_results_review_items_and_dead_letters_from_the_start() {
    let stage = stage().await;
    let before = [("fine", "a"), ("doubt", "something doubtful"), ("bad", "unacceptable")];
    for (key, text) in before {
        stage.api.submit("ticket", key, json!({ "text": text })).await;
    }
    for (key, state) in [("fine", "done"), ("doubt", "waiting-review"), ("bad", "done")] {
        stage.api.until("ticket", key, state).await;
    }
    let json = ["--from", "start", "--json"];
    let tails = ["results", "review", "dead-letters"].map(|what| tail(&stage, what, &json));
    let plain = tail(&stage, "results", &["--from", "start"]);
    // These come while it follows.
    for (key, text) in [("fine2", "b"), ("doubt2", "also doubtful"), ("bad2", "unacceptable too")] {
        stage.api.submit("ticket", key, json!({ "text": text })).await;
    }
    for (tail, key) in tails.iter().zip(["fine2", "doubt2", "bad2"]) {
        says(tail, key, SOON).await;
    }
    let seen: Vec<Vec<(String, String)>> = tails
        .iter()
        .map(|tail| {
            let words = tail.words();
            let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
            objects(&words).iter().map(|e| (text(&e["event"]), text(&e["data"]["key"]))).collect()
        })
        .collect();
    for ((seen, event), key) in
        seen.iter().zip(["result", "opened", "dead-letter"]).zip(["fine", "doubt", "bad"])
    {
        let mut keys: Vec<&str> = seen.iter().map(|(_, key)| key.as_str()).collect();
        keys.sort_unstable();
        assert_eq!(keys, [key.to_owned(), format!("{key}2")]);
        assert!(seen.iter().all(|(name, _)| name == event), "{seen:?}");
    }
    says(&plain, "ticket/fine2", SOON).await;
    let words = plain.words();
    assert!(words.lines().all(|line| line.chars().count() <= 80 && line.contains("accepted")), "{words}");
}

/// As `| head -1` does: takes one line, then is gone. Nothing else comes that could be written.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn tail_ends_at_once_and_well_when_its_reader_has_seen_enough() {
    let stage = stage().await;
    stage.api.submit("ticket", "fine", json!({ "text": "a" })).await;
    stage.api.until("ticket", "fine", "done").await;
    let mut command = tidegate();
    command.current_dir(stage.place.dir.path()).arg("--config").arg(stage.place.config());
    command.args(["tail", "results", "--from", "start", "--json"]);
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(objects(&line)[0]["data"]["key"], "fine");
    let began = Instant::now();
    let mut ended = None;
    while ended.is_none() && began.elapsed() < SOON {
        tokio::time::sleep(Duration::from_millis(5)).await;
        ended = child.try_wait().unwrap();
    }
    // One that does not end is not left behind; an error means that it has ended.
    let _ = child.kill();
    child.wait().unwrap();
    assert_eq!(ended.and_then(|status| status.code()), Some(0), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn try_says_in_words_why_no_model_answers_and_the_same_thing_once() {
    let port = free_port();
    let place = Place::new(&format!(
        "[tasks.t]\nmodels = [\"main\"]\nask = \"Sort.\"\nanswer = {{ a = \"string\" }}\n\
         [models.main]\napi = \"openai\"\nurl = \"http://127.0.0.1:{port}/v1\"\nmodel = \"m\"\nwindow_tokens = 100000\n"
    ));
    std::fs::write(place.path("one.json"), r#"{"text":"a"}"#).unwrap();
    let (code, said, problem) = place.tool(&["try", "t", "one.json"]);
    assert_eq!(code, 0, "{said}{problem}");
    let tried: Vec<&str> = said.lines().filter(|line| line.trim_start().starts_with("tried")).collect();
    assert_eq!(tried.len(), 1, "{said}");
    assert!(tried[0].contains("tries, each: it could not be reached: Connection refused"), "{said}");
    assert!(!said.contains("transient"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn show_tells_one_tasks_story_and_status_says_why_things_are_as_they_are() {
    let stage = stage().await;
    for (key, text) in [("fine", "a"), ("doubt", "something doubtful"), ("bad", "unacceptable")] {
        stage.api.submit("ticket", key, json!({ "text": text })).await;
    }
    for (key, state) in [("fine", "done"), ("doubt", "waiting-review"), ("bad", "done")] {
        stage.api.until("ticket", key, state).await;
    }
    let show = |key: &str| {
        let (code, said, problem) = stage.place.tool(&["show", key]);
        assert_eq!(code, 0, "{problem}");
        said
    };
    let fine = show("fine");
    for part in
        ["Task fine of kind ticket", "done: result, accepted", "\"category\": \"bug\"", "97 %", "admitted"]
    {
        assert!(fine.contains(part), "`{part}` is not in\n{fine}");
    }
    let doubt = show("doubt");
    for part in ["waits for a person (anyone)", "81 %", "TG-below-line", "tidegate review show"] {
        assert!(doubt.contains(part), "`{part}` is not in\n{doubt}");
    }
    let bad = show("bad");
    for part in ["done: dead letter", "TG-payload-refused", "tidegate dead-letters show"] {
        assert!(bad.contains(part), "`{part}` is not in\n{bad}");
    }
    let (code, said, problem) = stage.place.tool(&["show", "nobody"]);
    assert!(code == 1 && said.is_empty() && problem.contains("nobody"), "{said}{problem}");

    let (code, said, _) = stage.place.tool(&["status"]);
    assert_eq!(code, 0);
    let sentence = said.lines().next().unwrap_or_default();
    assert!(sentence.contains("1 review") && sentence.ends_with('.'), "{said}");
    let waiting = said.lines().find(|line| line.starts_with("waiting")).unwrap_or_default();
    assert!(waiting.contains("0 to be done, 1 for a person"), "{said}");
    let (code, said, _) = stage.place.tool(&["status", "--json"]);
    let status = &objects(&said)[0];
    assert_eq!((code, &status["reviews_open"], &status["backlog"]), (0, &json!(1), &json!(0)), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn try_shows_one_task_on_its_whole_way_and_keeps_nothing() {
    let stage = Stage::set(|asked| by_its_text(&asked.words())).await;
    std::fs::write(stage.place.path("one.json"), r#"{"text":"something doubtful"}"#).unwrap();
    let (code, said, problem) = stage.place.tool(&["try", "ticket", "one.json"]);
    assert_eq!(code, 0, "{problem}");
    for part in ["Classify this support ticket.", "main said", "ends as review", "81 %", "nothing was kept"] {
        assert!(said.contains(part), "`{part}` is not in\n{said}");
    }
    let (code, said, _) = fed(&stage, r#"{"text":"a"}"#, &["try", "ticket", "-", "--json"]);
    let told = &objects(&said)[0];
    assert_eq!(
        (code, &told["ends"]["as"], &told["ends"]["answer"]),
        (0, &json!("result"), &good()),
        "{said}"
    );
    assert_eq!(stage.provider.asked().len(), 2, "its model is really asked, once for each");
    assert!(!stage.place.path("data").exists(), "nothing is kept");
    let (code, _, problem) = fed(&stage, r#"{"text":7}"#, &["try", "ticket", "-"]);
    assert!(code == 1 && problem.contains("TG-input-refused"), "{problem}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_check_resolves_is_in_force_and_a_reason_that_was_met_can_be_explained() {
    let stage = stage().await;
    let (code, said, problem) = stage.place.tool(&["check", "--resolved"]);
    assert_eq!(code, 0, "{problem}");
    let table: toml::Table = toml::from_str(&said).unwrap();
    assert_eq!(table["tasks"]["ticket"]["steps"][0]["models"].to_string(), r#"["main", "spare"]"#);
    assert_eq!(table["http"]["listen"].as_str(), Some(&*format!("127.0.0.1:{}", stage.place.port)));
    stage.api.submit("ticket", "bad", json!({ "text": "unacceptable" })).await;
    let task = stage.api.until("ticket", "bad", "done").await;
    let reason = task["dead_letter"]["reason"].as_str().unwrap();
    let (code, said, problem) = stage.place.tool(&["explain", reason]);
    assert_eq!(code, 0, "{problem}");
    assert!(said.contains(reason) && said.contains("What to do"), "{said}");
}

//! What a person can get wrong before anything runs: each message says what, where, and what to do.

use crate::rig::eventually;
use crate::rig::place::Place;
use crate::rig::process::{Process, free_port};
use crate::rig::script::{Provider, Reply};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;

const COPY: &str = "[tasks.copy]\n";
/// A mistake is told at once; the lock of a directory is tried for two seconds.
const SOON: Duration = Duration::from_secs(15);

/// Runs until it ends by itself; its exit code and everything it said.
fn fails(place: &Place, more: &[&str]) -> (i32, String) {
    let mut command = place.command();
    command.args(more);
    let said = place.path("failed.log");
    let _ = std::fs::remove_file(&said);
    let mut process = Process::start(command, &said);
    let status =
        process.wait(SOON).unwrap_or_else(|| panic!("it runs in spite of the mistake:\n{}", process.words()));
    let code = status.code().unwrap_or_else(|| panic!("{status}:\n{}", process.words()));
    assert_ne!(code, 0);
    assert!(!process.words().contains("panicked"), "{}", process.words());
    // Errors are broken into lines for people; a test reads them as one.
    (code, process.words().split_whitespace().collect::<Vec<_>>().join(" "))
}

fn contains_all(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "`{part}` is not in: {said}");
    }
}

#[test]
fn every_mistake_of_a_configuration_is_told_at_once_with_its_line_and_a_suggestion() {
    let place = Place::new(
        "[tasks.ticket]\nmodels = [\"openai/gpt-5-mini\"]\nask = \"Classify.\"\nanswr = { a = \"string\" }\nreviw = { start = \"line\" }\n",
    );
    let (_, said) = fails(&place, &[]);
    contains_all(&said, &["tidegate.toml", "answr", "answer", "reviw", "review", ":4", ":5"]);
    let (code, out, err) = place.tool(&["check"]);
    assert_ne!(code, 0);
    contains_all(&format!("{out}{err}"), &["answr", "reviw"]);
}

#[test]
fn a_missing_configuration_and_a_missing_file_that_it_names_are_told_by_their_path() {
    let place = Place::new(COPY);
    std::fs::remove_file(place.config()).unwrap();
    let (_, said) = fails(&place, &[]);
    contains_all(&said, &["tidegate.toml", "--config"]);
    let place = Place::new(
        "[tasks.ticket]\nmodels = [\"openai/gpt-5-mini\"]\nask = \"prompts/gone.md\"\nanswer = { a = \"string\" }\n",
    );
    let (_, said) = fails(&place, &[]);
    contains_all(&said, &["prompts/gone.md", ":3"]);
}

#[test]
fn a_port_in_use_is_told_with_the_port_and_the_way_out() {
    let place = Place::new(COPY);
    let _taken = std::net::TcpListener::bind(("127.0.0.1", place.port)).unwrap();
    let (_, said) = fails(&place, &[]);
    contains_all(&said, &[&place.port.to_string(), "--listen"]);
}

#[test]
fn a_directory_that_cannot_be_used_is_told_with_its_path_and_the_setting() {
    let place = Place::new(&format!("{COPY}[engine]\ndir = \"taken\"\n"));
    std::fs::write(place.path("taken"), "a file").unwrap();
    contains_all(&fails(&place, &[]).1, &["taken", "not a directory", "dir"]);

    let place = Place::new(&format!("{COPY}[engine]\ndir = \"no/such/parent\"\n"));
    contains_all(&fails(&place, &[]).1, &["no/such/parent", "dir"]);

    // Nobody may make a directory there, not even root, for whom permission bits mean nothing.
    let place = Place::new(&format!("{COPY}[engine]\ndir = \"/sys/tidegate\"\n"));
    contains_all(&fails(&place, &[]).1, &["/sys/tidegate", "not writable", "dir"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_second_process_on_the_directory_is_refused_and_the_first_goes_on() {
    let place = Place::new(COPY);
    let mut first = place.run().await;
    let listen = format!("127.0.0.1:{}", free_port());
    let (_, said) = fails(&place, &["--listen", &listen]);
    contains_all(&said, &["another tidegate process", "data"]);
    place.api().submit("copy", "k", json!({ "x": 1 })).await;
    place.api().until("copy", "k", "done").await;
    assert!(first.stop(SOON).success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_terminated_process_ends_in_order_and_leaves_nothing_open() {
    // Every task is at its model when the end is asked for.
    let provider = Provider::start(|_| {
        let answer = Reply::json(json!({ "category": "bug", "confidence": 0.97 }));
        Reply::After(Duration::from_secs(1), Box::new(answer))
    })
    .await;
    let kind = "[tasks.ticket]\nmodels = [\"main\"]\nask = \"Classify.\"\nreview = { start = \"line\" }\n\
                answer = { category = [\"bug\"], confidence = \"number\" }\n";
    let place = Place::new(&format!("{kind}{}", provider.patient_model("main", 20)));
    let mut process = place.run().await;
    let keys: BTreeSet<String> = (0..20).map(|n| format!("k{n}")).collect();
    for key in &keys {
        place.api().submit("ticket", key, json!({ "text": key })).await;
    }
    eventually("all are at their model", SOON, || async {
        (provider.asked().len() == keys.len()).then_some(())
    })
    .await;
    assert!(process.stop(SOON).success(), "{}", process.words());
    let rest = place.open();
    assert_eq!(rest.open_records().await, [], "what was under way has been ended");
    let results: Vec<String> = rest
        .all("results")
        .await
        .iter()
        .map(|r| serde_json::from_slice::<serde_json::Value>(r.value.as_ref().unwrap()).unwrap())
        .map(|result| result["key"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(results.len(), keys.len());
    assert_eq!(results.into_iter().collect::<BTreeSet<_>>(), keys);
    assert_eq!(provider.asked().len(), keys.len(), "each was asked for once");
    rest.close().await;
}

#[test]
fn listening_for_others_is_refused_on_the_command_line_as_in_the_file() {
    let place = Place::new(COPY);
    let (code, said) = fails(&place, &["--listen", "0.0.0.0:0"]);
    assert_eq!(code, 2, "{said}");
    contains_all(&said, &["--listen", "0.0.0.0:0", "without authentication", "127.0.0.1"]);
}

#[test]
fn failures_are_json_where_json_is_asked_for() {
    let place = Place::new(COPY);
    let (code, out, err) = place.tool(&["status", "--json"]);
    let told: serde_json::Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"));
    let message = told["error"]["message"].as_str().unwrap();
    assert!(code == 1 && message.contains("no processor answers"), "{out}");
    place.configure("[tasks.copy]\nidentitty = [\"id\"]\n");
    let (code, out, err) = place.tool(&["run", "--json"]);
    let told: serde_json::Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"));
    assert_eq!((code, &told["problems"][0]["at"]["line"]), (2, &json!(2)), "{out}");
}

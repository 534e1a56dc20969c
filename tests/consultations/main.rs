//! The consultations kind as it is shipped: its own samples, and real consultations where they are
//! there, through the real binaries to their resting places.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod note;
#[path = "../rig/mod.rs"]
#[allow(dead_code, reason = "each test binary uses its part of the rig")]
mod rig;

use note::{Rest, shipped};
use rig::place::{Place, UP};
use rig::process::{Process, free_port, listening, tidegate};
use serde_json::Value;
use std::path::PathBuf;

/// Where the real consultations lie by default: beside the checkout, never in it.
const REAL: &str = "../shared/data/consultations.jsonl";

/// A processor with the shipped kind, and the shipped scenario as its provider.
struct Practice {
    place: Place,
    provider: Process,
    processor: Process,
}

impl Practice {
    async fn open() -> Practice {
        Practice::open_with(&shipped("provider.toml")).await
    }

    async fn open_with(scenario: &str) -> Practice {
        let port = free_port();
        let settings = shipped("tidegate.toml").replace("127.0.0.1:9009", &format!("127.0.0.1:{port}"));
        let place = Place::new(&settings);
        for name in ["prompt.md", "input.schema.json", "answer.schema.json"] {
            std::fs::write(place.path(name), shipped(name)).unwrap();
        }
        std::fs::write(place.path("provider.toml"), scenario).unwrap();
        let mut serve = tidegate();
        serve.arg("simulate-provider").arg("--scenario").arg(place.path("provider.toml"));
        serve.args(["--listen", &format!("127.0.0.1:{port}")]).arg("--log").arg(place.path("requests.jsonl"));
        let mut provider = Process::start(serve, &place.path("provider.log"));
        listening(&mut provider, port, UP).await;
        let processor = place.run().await;
        Practice { place, provider, processor }
    }

    /// Where each consultation came to rest, in their order: submitted as their owner would.
    async fn rest(&self, consultations: &[Value]) -> Vec<Rest> {
        let api = self.place.api();
        let file: String = consultations.iter().map(|task| format!("{task}\n")).collect();
        std::fs::write(self.place.path("consultations.jsonl"), file).unwrap();
        let submit = ["--json", "submit", "consultation", "consultations.jsonl", "--wait"];
        let (code, said, problem) = self.place.tool(&submit);
        assert_eq!(code, 0, "{said}{problem}");
        let told: Vec<Value> = lines(&said);
        let mut rested: Vec<(u64, &str)> = told
            .iter()
            .filter(|o| o["place"] == "result" || o["place"] == "review")
            .map(|o| (o["line"].as_u64().unwrap(), o["key"].as_str().unwrap()))
            .collect();
        rested.sort_unstable();
        let sent: Vec<(u64, &str)> =
            (1..).zip(consultations.iter().map(|task| task["consultation"].as_str().unwrap())).collect();
        assert_eq!(rested, sent, "each line is told to have its place");
        let mut all = Vec::new();
        for task in consultations {
            let key = task["consultation"].as_str().unwrap();
            all.push(Rest::of(&api, key).await);
        }
        let (_, buried) = api.get("/v1/dead-letters").await.unwrap();
        assert_eq!(buried["dead_letters"], serde_json::json!([]), "no consultation is a dead letter");
        all
    }

    fn close(mut self) {
        self.processor.kill();
        self.provider.kill();
    }
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_model_sees_what_was_said_with_its_index_and_never_the_clinicians_own_note() {
    let prompt = tidegate::infer::Prompt::compile("prompt.md", &shipped("prompt.md")).unwrap();
    let mut task = lines(&shipped("samples.jsonl")).swap_remove(0);
    task["note"] = "penned by the clinician".into();
    task["highlights"] = serde_json::json!(["underlined by hand"]);
    let text = prompt.render(&task).unwrap();
    assert!(
        !text.contains("penned by") && !text.contains("underlined by hand") && !text.contains("_ms"),
        "{text}"
    );
    let (_, data) = text.split_once("<<<data ").unwrap();
    let (_, data) = data.split_once('\n').unwrap();
    let (data, _) = data.rsplit_once("\ndata ").unwrap();
    let data: Value = serde_json::from_str(data).unwrap();
    assert_eq!(data["presenting_complaint"], task["presenting_complaint"]);
    let said = data["utterances"].as_array().unwrap();
    assert_eq!(said.len(), task["utterances"].as_array().unwrap().len());
    for (index, (told, utterance)) in said.iter().zip(task["utterances"].as_array().unwrap()).enumerate() {
        let expected =
            serde_json::json!({ "index": index, "speaker": utterance["speaker"], "text": utterance["text"] });
        assert_eq!(told, &expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn samples_become_notes_and_an_impression_nobody_gave_goes_to_a_person() {
    let samples = lines(&shipped("samples.jsonl"));
    let practice = Practice::open().await;
    let rest = practice.rest(&samples).await;
    practice.close();
    for (task, rest) in samples.iter().zip(&rest) {
        rest.is_sound(task);
    }
    let doubted: Vec<_> = rest.iter().map(Rest::doubted).collect();
    assert_eq!(doubted, [vec![], vec![], vec!["impression"], vec![]]);

    let ear = rest[0].answer();
    let medicines: Vec<[&Value; 4]> = ear["medication"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| ["name", "dose", "unit", "source"].map(|field| &m[field]))
        .collect();
    let expected = serde_json::json!([
        ["ibuprofen", "four hundred", "milligrams", 7],
        ["brown inhaler", null, null, 7],
        ["paracetamol", "one", "gram", 11]
    ]);
    assert_eq!(serde_json::json!(medicines), expected);
    assert_eq!(ear["complaint"]["text"], "my left ear has been really painful since Sunday");
    assert_eq!(ear["impression"]["source"], 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn when_the_first_model_is_down_the_spare_writes_the_notes() {
    let scenario = shipped("provider.toml");
    let down = "[models.notes-large]\ntimeline = [{ fault = \"server-error\" }]\n";
    let scenario = scenario.replacen("[models.notes-large]\n", down, 1);
    assert!(scenario.contains(down));
    let samples = &lines(&shipped("samples.jsonl"))[..1];
    let practice = Practice::open_with(&scenario).await;
    let rest = practice.rest(samples).await;
    practice.close();
    rest[0].is_sound(&samples[0]);
    assert_eq!(rest[0].made_by(), "notes-spare");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn real_consultations_come_to_rest_and_most_of_them_as_notes() {
    let path = std::env::var("TIDEGATE_CONSULTATIONS")
        .map_or_else(|_| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(REAL), PathBuf::from);
    let Ok(text) = std::fs::read_to_string(&path) else {
        let why = "the file is not there; TIDEGATE_CONSULTATIONS can name it";
        return rig::left_out("real consultations to notes", why);
    };
    let real = lines(&text);
    let practice = Practice::open().await;
    let rest = practice.rest(&real).await;
    practice.close();
    for (task, rest) in real.iter().zip(&rest) {
        rest.is_sound(task);
    }
    let asked: Vec<_> = rest.iter().filter(|r| !r.is_result()).map(Rest::doubted).collect();
    let results = rest.len() - asked.len();
    println!("{} consultations: {results} results, {} with a person for {asked:?}", rest.len(), asked.len());
    assert!(results * 35 >= rest.len() * 25, "{results} of {} are results", rest.len());
}

//! One consultation's resting place, and what must hold of it. Checked here anew, not with the
//! product's own rules.

use crate::rig::api::Api;
use serde_json::Value;
use std::time::{Duration, Instant};

/// A note takes its model a second; thirty-five of them on a busy machine take longer.
const LIMIT: Duration = Duration::from_secs(90);

/// A file of the kind as it is shipped.
pub(crate) fn shipped(name: &str) -> String {
    let path = format!("{}/deploy/consultations/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

#[derive(Debug)]
pub(crate) enum Rest {
    /// The envelope.
    Result(Value),
    /// The review item.
    Person(Value),
}

impl Rest {
    pub(crate) async fn of(api: &Api, key: &str) -> Rest {
        let began = Instant::now();
        loop {
            let task = api.task("consultation", key).await.unwrap_or_default();
            match (task["state"].as_str(), task["outcome"].as_str()) {
                (Some("done"), Some("result")) => return Rest::Result(task["result"].clone()),
                (Some("waiting-review"), _) => return Rest::Person(api.item("consultation", key).await),
                (Some("done"), _) => panic!("{key} is no result: {task}"),
                _ if began.elapsed() > LIMIT => panic!("{key} has no resting place after {LIMIT:?}: {task}"),
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    pub(crate) fn is_result(&self) -> bool {
        matches!(self, Rest::Result(_))
    }

    pub(crate) fn answer(&self) -> &Value {
        match self {
            Rest::Result(result) => &result["answer"],
            Rest::Person(item) => &item["proposed"]["answer"],
        }
    }

    /// The model that answered, as its provider calls it.
    pub(crate) fn made_by(&self) -> &str {
        let envelope = match self {
            Rest::Result(result) => result,
            Rest::Person(item) => &item["proposed"],
        };
        envelope["made_by"]["model"].as_str().unwrap()
    }

    /// The fields a person is asked about.
    pub(crate) fn doubted(&self) -> Vec<&str> {
        match self {
            Rest::Result(_) => vec![],
            Rest::Person(item) => {
                item["why"].as_array().unwrap().iter().filter_map(|why| why["field"].as_str()).collect()
            }
        }
    }

    /// The answer satisfies its schema, what it cites was said, and an item says of which field and why.
    pub(crate) fn is_sound(&self, task: &Value) {
        let key = &task["consultation"];
        let schema = serde_json::from_str(&shipped("answer.schema.json")).unwrap();
        let refused: Vec<String> = jsonschema::validator_for(&schema)
            .unwrap()
            .iter_errors(self.answer())
            .map(|e| format!("{}: {e}", e.instance_path()))
            .collect();
        assert_eq!(refused, [""; 0], "{key}");
        let answer = self.answer();
        let lists = ["history", "medication", "plan"].map(|list| answer[list].as_array().unwrap().as_slice());
        let singles = ["complaint", "impression"].map(|one| std::slice::from_ref(&answer[one]));
        for item in lists.into_iter().chain(singles).flatten().filter(|item| !item.is_null()) {
            stands(item, task);
        }
        if let Rest::Person(item) = self {
            assert!(!self.doubted().is_empty(), "{key}: no field is named in {}", item["why"]);
            let said = item["why"].as_array().unwrap().iter().all(|why| why["detail"] != "");
            assert!(said && item["question"] != "", "{key}: {item}");
        }
    }
}

/// The cited utterance is there and contains the quote; of a medicine its name, dose and unit too.
fn stands(item: &Value, task: &Value) {
    let source = usize::try_from(item["source"].as_u64().unwrap()).unwrap();
    let text = task["utterances"][source]["text"].as_str().unwrap_or_default();
    for field in ["quote", "name", "dose", "unit"] {
        if let Some(part) = item[field].as_str() {
            let there = !part.is_empty() && text.contains(part);
            assert!(
                there,
                "{}: {field} of {item} is not in utterance {source}: {text}",
                task["consultation"]
            );
        }
    }
}

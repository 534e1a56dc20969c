//! A running processor with two kinds: `ticket` asks models, `copy` has no steps.

use crate::rig::api::{Answer, Api};
use crate::rig::place::{Place, Rest};
use crate::rig::process::Process;
use crate::rig::schemas::refuses;
use crate::rig::script::{Asked, Provider, Reply};
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;
use tidegate::engine::Output;
use tidegate::task::{Headers, Record};

pub(crate) struct Stage {
    pub(crate) place: Place,
    pub(crate) provider: Provider,
    pub(crate) process: Option<Process>,
    pub(crate) api: Api,
}

pub(crate) const KINDS: &str = r#"
[tasks.ticket]
models = ["main", "spare"]
sanitizer = "mender"
ask = "Classify this support ticket."
input = { text = "string" }
answer = { category = ["billing", "bug", "how-to"], order_id = "string?", confidence = "number" }
review = { start = "line" }

[tasks.copy]
input = { text = "string" }
"#;

/// What a model says that does everything right.
pub(crate) fn good() -> Value {
    json!({ "category": "bug", "order_id": null, "confidence": 0.97 })
}

pub(crate) fn ticket() -> Value {
    json!({ "text": "the export button does nothing" })
}

impl Stage {
    /// Nothing runs yet.
    pub(crate) async fn set(rule: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        Stage::set_with(KINDS, rule).await
    }

    /// With kinds of its own, that may use the same three models.
    pub(crate) async fn set_with(
        kinds: &str,
        rule: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let provider = Provider::start(rule).await;
        let models: String = ["main", "spare", "mender"].iter().map(|name| provider.model(name)).collect();
        let place = Place::new(&format!("{kinds}{models}"));
        let api = place.api();
        Stage { place, provider, process: None, api }
    }

    /// Set and running.
    pub(crate) async fn open(rule: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let mut stage = Stage::set(rule).await;
        stage.start().await;
        stage
    }

    pub(crate) async fn start(&mut self) {
        self.process = Some(self.place.run().await);
    }

    pub(crate) async fn start_as(&mut self, change: impl FnOnce(&mut Command)) {
        let mut command = self.place.command();
        change(&mut command);
        self.process = Some(self.place.run_as(command).await);
    }

    pub(crate) fn kill(&mut self) {
        self.process.take().unwrap().kill();
    }

    /// Appends records over HTTP, to a kind's own topic by its plain name or to one that exists.
    pub(crate) async fn append(&self, topic: &str, records: &Value) -> Result<Answer, reqwest::Error> {
        let topic = match topic.starts_with("tasks.") {
            true => self.place.topic(topic),
            false => topic.to_owned(),
        };
        self.api.post(&format!("/v1/records/{topic}"), records).await
    }

    /// Ends in order, and opens what is left behind.
    pub(crate) fn rest(&mut self) -> Rest {
        let status = self.process.take().unwrap().stop(Duration::from_secs(20));
        assert!(status.success(), "ended with {status}");
        self.place.open()
    }
}

/// Headers by name.
pub(crate) type Named<'a> = &'a [(&'a str, &'a str)];

/// Appends records to a topic as any producer would, while nobody runs.
pub(crate) async fn append(rest: &Rest, topic: &str, records: &[(&[u8], Named<'_>)]) {
    let batch = records
        .iter()
        .map(|(value, headers)| Output {
            topic: rest.topic(topic).unwrap(),
            key: Some("one partition".into()),
            value: Some(value.to_vec().into()),
            headers: Headers(
                headers.iter().map(|(n, v)| ((*n).to_owned(), v.as_bytes().to_vec().into())).collect(),
            ),
            not_before: None,
        })
        .collect();
    rest.engine.log.append(batch).await.unwrap();
}

/// The JSON of a record's value.
pub(crate) fn value(record: &Record) -> Value {
    serde_json::from_slice(record.value.as_ref().unwrap()).unwrap()
}

/// The headers that Tidegate added, as an object.
pub(crate) fn added(record: &Record) -> Value {
    let own = record.headers.0.iter().filter(|(name, _)| name.starts_with("tidegate-"));
    own.map(|(name, v)| (name.clone(), Value::from(String::from_utf8(v.to_vec()).unwrap()))).collect()
}

/// Every published record of a place is what its schema says.
pub(crate) async fn all_valid(rest: &Rest) {
    for (topic, schema) in [
        ("results", "result"),
        ("review.requests", "review-item"),
        ("review.decisions", "review-decision"),
        ("review.outcomes", "review-outcome"),
    ] {
        for record in rest.all(topic).await.iter().filter(|r| r.value.is_some()) {
            assert_eq!(
                refuses(schema, &value(record)),
                Vec::<String>::new(),
                "{}: {}",
                record.position,
                value(record)
            );
        }
    }
    for record in rest.all("dead-letters").await {
        assert_eq!(refuses("dead-letter", &added(&record)), Vec::<String>::new(), "{}", record.position);
    }
}

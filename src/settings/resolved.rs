//! Shows what is in force, secrets left out; and the hashes that published records carry of it.
//!
//! What is shown is built field by field: a secret cannot get in because a type learned to print itself.

use super::kind::{Ask, Format, Kind, OnConflict, Shape, StepKind};
use super::quantity::{show_duration, show_size};
use super::worker::LogFormat;
use super::{EngineSettings, Settings, topics};
use crate::avro::{Auth, Source};
use crate::infer::{Api, Model};
use crate::task::PrintRule;
use crate::weigh::{ReviewRules, Start};
use serde_json::{Map, Value, json};
use std::fmt;

/// First 16 hex digits of the BLAKE3 of the value.
pub(super) fn digest(value: &Value) -> String {
    blake3::hash(value.to_string().as_bytes()).to_hex()[..16].to_owned()
}

/// Everything that decides outcomes: kinds and models, no places on this machine.
pub(super) fn deciding(settings: &Settings) -> Value {
    let kinds: Vec<_> = settings.kinds.iter().map(|k| kind(k)).collect();
    let models: Vec<_> = settings.models.iter().map(|m| model(m)).collect();
    json!({ "kinds": kinds, "models": models })
}

impl Settings {
    /// What is in force, as JSON in the shape of the file; secrets are named, never shown.
    pub fn resolved(&self) -> Value {
        let kinds: Map<_, _> = self.kinds.iter().map(|k| (k.name.to_string(), kind(k))).collect();
        let models: Map<_, _> = self.models.iter().map(|m| (m.name.to_string(), model(m))).collect();
        let engine = &self.engine;
        let topics = topics(self).into_iter().map(|t| {
            let retention = t.retention.unwrap_or(engine.dedupe_window);
            let about = json!({
                "partitions": t.partitions,
                "limit": show_size(t.limit as u64),
                "cleanup": if t.compacted { "compact" } else { "delete" },
                "retention": show_duration(retention),
            });
            (t.topic.to_string(), about)
        });
        json!({
            "file": self.file.display().to_string(),
            "digest": self.digest,
            "engine": engine_view(engine),
            "registry": self.registry.as_ref().map(|source| registry(source)),
            "http": { "listen": self.http.listen.to_string(), "body_max": show_size(self.http.body_max as u64) },
            "worker": { "in_flight": self.worker.in_flight, "drain": show_duration(self.worker.drain) },
            "log": {
                "format": match self.log.format { LogFormat::Text => "text", LogFormat::Json => "json" },
                "level": self.log.level,
            },
            "models": models,
            "tasks": kinds,
            "topics": topics.collect::<Map<_, _>>(),
        })
    }

    /// The same as TOML, for people; schemas as one line of JSON, what is not set left out.
    pub fn resolved_text(&self) -> String {
        let mut value = self.resolved();
        prune(&mut value);
        toml::to_string(&value).unwrap_or_else(|_| value.to_string())
    }
}

fn engine_view(engine: &EngineSettings) -> Value {
    let mut view = match &engine.cluster {
        None => json!({
            "dir": engine.dir.display().to_string(),
            "disk_max": engine.disk_max.map(show_size),
        }),
        Some(cluster) => {
            // The names of the properties, not their values: any of them may be a secret.
            let names: Map<_, _> =
                cluster.properties.0.keys().map(|name| (name.clone(), json!("hidden"))).collect();
            json!({
                "kafka": cluster.kafka,
                "redis": cluster.redis_at(),
                "group": cluster.group,
                "start": if cluster.start_anyway { "earliest" } else { "committed" },
                "replication": cluster.replication,
                "properties": names,
            })
        }
    };
    view["prefix"] = json!(engine.prefix);
    view["dedupe_window"] = json!(show_duration(engine.dedupe_window));
    view["retention"] = json!(show_duration(engine.retention));
    view["partitions"] = json!(engine.partitions);
    view["record_max"] = json!(show_size(engine.record_max as u64));
    view
}

/// TOML has no null, a schema as nested sections is unreadable, and what is empty says nothing.
fn prune(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null() && *v != json!({}) && *v != json!([]) && *v != json!(""));
            for (key, inner) in map.iter_mut() {
                if matches!(key.as_str(), "answer" | "input") && inner.is_object() {
                    *inner = Value::String(inner.to_string());
                }
                prune(inner);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(prune),
        _ => {}
    }
}

fn kind(kind: &Kind) -> Value {
    let key = if kind.content_key { Some("content") } else { kind.key.as_ref().map(|k| k.source()) };
    let rules: Vec<_> = kind
        .rules
        .iter()
        .map(|r| {
            let each = r.each.as_ref().map(|each| each.source());
            json!({ "that": r.that.source(), "each": each, "message": r.message, "critical": r.critical })
        })
        .collect();
    let steps: Vec<_> = kind
        .plan
        .iter()
        .map(|step| match &step.what {
            StepKind::Ask(ask) => ask_step(&step.name, ask),
        })
        .collect();
    json!({
        "from": kind.from.as_str(),
        "key": key,
        "to": kind.to.as_str(),
        "type": kind.ce_type,
        "input": kind.input.as_ref().map(|s| s.json()),
        "identity": match &kind.identity {
            PrintRule::Fields(fields) => Some(fields.to_vec()),
            PrintRule::Whole | PrintRule::Bytes => None,
        },
        "on_conflict": match kind.on_conflict { OnConflict::Bury => "bury", OnConflict::Ignore => "ignore" },
        "dedupe": kind.dedupe,
        "format": format_of(kind.format),
        "intake_schema": kind.intake_schema,
        "result_format": format_of(kind.result_format),
        "shape": match kind.shape { Shape::Envelope => "envelope", Shape::Answer => "answer" },
        "data": kind.data.as_deref(),
        "deadline": kind.deadline.map(show_duration),
        "allowance": {
            "time": show_duration(kind.allowance.time),
            "money": kind.allowance.money,
            "tries": kind.allowance.tries,
        },
        "review": review(&kind.review),
        "rules": rules,
        "steps": steps,
    })
}

fn format_of(format: Format) -> &'static str {
    match format {
        Format::Json => "json",
        Format::Avro => "avro",
    }
}

fn registry(source: &Source) -> Value {
    match source {
        Source::Registry(registry) => {
            let access = registry.access();
            let auth = match &access.auth {
                None => "none",
                Some(Auth::Basic { .. }) => "user and password, hidden",
                Some(Auth::Bearer(_)) => "token, hidden",
            };
            json!({
                "url": access.url(),
                "auth": auth,
                "timeout": show_duration(access.timeout),
                "register": access.register,
            })
        }
        Source::Files { by_id, .. } => json!({ "schemas": by_id.keys().collect::<Vec<_>>() }),
    }
}

fn ask_step(name: &str, ask: &Ask) -> Value {
    let names: Vec<_> = ask.models.iter().map(|m| m.name.as_ref()).collect();
    json!({
        "name": name,
        "models": names,
        "sanitizer": ask.sanitizer.as_ref().map_or("none", |m| m.name.as_ref()),
        "ask": ask.prompt.source(),
        "answer": ask.answer.json(),
        "digest": ask.digest,
    })
}

fn review(rules: &ReviewRules) -> Value {
    let (start, share) = match rules.start {
        Start::All => ("all", None),
        Start::Sample { share } => ("sample", Some(share)),
        Start::Line => ("line", None),
    };
    json!({
        "below": rules.line,
        "start": start,
        "share": share,
        "critical": rules.critical,
        "team": rules.team,
        "due": rules.due.map(show_duration),
    })
}

fn model(model: &Model) -> Value {
    // The names of the headers, not their values: any of them may be a secret.
    let headers: Map<_, _> = model.headers.iter().map(|(name, _)| (name.clone(), json!("hidden"))).collect();
    json!({
        "api": match model.api { Api::OpenAi => "openai", Api::Anthropic => "anthropic" },
        "url": model.url,
        "model": model.model,
        "key": if model.key.is_some() { "hidden" } else { "none" },
        "window_tokens": model.window_tokens,
        "price": model.price.as_ref().map(|p| json!({ "input": p.input, "output": p.output })),
        "params": model.params,
        "headers": headers,
        "timeouts": {
            "connect": show_duration(model.timeouts.connect),
            "first_token": show_duration(model.timeouts.first_token),
            "idle": show_duration(model.timeouts.idle),
            "total": show_duration(model.timeouts.total),
        },
    })
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Settings {}", self.resolved())
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kind `{}` {}", self.name, kind(self))
    }
}

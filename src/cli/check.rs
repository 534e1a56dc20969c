//! `tidegate check`: reads the configuration as `run` would, and says what it means or what is wrong.
//!
//! Calls no model, asks no server and opens no directory. Secrets are looked for, never shown.

use super::text::{say, say_json, wrap};
use super::{CONFIGURATION, Global};
use crate::engine::embedded;
use crate::settings::{Kind, Problems, Settings, StepKind};
use crate::weigh::Start;
use serde_json::json;
use std::process::ExitCode;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Print everything that is in force, defaults included; secrets hidden.
    #[arg(long)]
    resolved: bool,
}

pub(super) async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    match Settings::load(global.config()) {
        Ok(settings) => {
            say(good(&settings, args.resolved, global.json));
            Ok(ExitCode::SUCCESS)
        }
        Err(problems) if global.json => {
            say_json(&bad(&problems));
            Ok(ExitCode::from(CONFIGURATION))
        }
        Err(problems) => Err(problems.into()),
    }
}

fn bad(problems: &Problems) -> serde_json::Value {
    json!({ "ok": false, "file": problems.file, "problems": problems.all })
}

fn good(settings: &Settings, resolved: bool, json: bool) -> String {
    match (json, resolved) {
        (true, false) => {
            let kinds: Vec<_> = settings.kinds.iter().map(|k| &*k.name).collect();
            let models: Vec<_> = settings.models.iter().map(|m| &*m.name).collect();
            let file = settings.file.display().to_string();
            let notices = notices(settings);
            json!({ "ok": true, "file": file, "digest": settings.digest, "kinds": kinds, "models": models,
                "notices": notices })
            .to_string()
        }
        (true, true) => {
            let mut value = settings.resolved();
            value["ok"] = json!(true);
            value["notices"] = json!(notices(settings));
            value.to_string()
        }
        (false, true) => settings.resolved_text().trim_end().to_owned(),
        (false, false) => summary(settings),
    }
}

/// What people want to be sure of before they start it.
fn summary(settings: &Settings) -> String {
    let mut out = format!("{} is good: {}\n", settings.file.display(), count(settings.kinds.len(), "kind"));
    for kind in &settings.kinds {
        out.push_str(&format!("\n  {}  {} -> {}\n", kind.name, kind.from, kind.to));
        out.push_str(&asks(kind));
    }
    let engine = match &settings.engine.cluster {
        Some(cluster) => {
            let (kafka, redis) = (&cluster.kafka, cluster.redis_at());
            format!("Kafka at {kafka}, Redis at {redis}; its groups begin with {}", cluster.group)
        }
        None => format!("embedded engine in {}", settings.engine.dir.display()),
    };
    out.push_str(&format!(
        "\n  {engine}; answers on http://{}\n  everything in force: tidegate check --resolved",
        settings.http.listen
    ));
    for notice in notices(settings) {
        out.push_str(&format!("\n\n{}", wrap(&format!("notice: {notice}"), 2)));
    }
    out
}

/// What is allowed, and worth a second look.
fn notices(settings: &Settings) -> Vec<String> {
    let prompts = settings.kinds.iter().flat_map(|kind| &kind.plan).map(|step| match &step.what {
        StepKind::Ask(ask) => &ask.prompt,
    });
    let mut notices: Vec<String> = left_behind(settings).into_iter().collect();
    for prompt in prompts {
        let lines: Vec<_> = prompt.unmarked().iter().map(usize::to_string).collect();
        let lines = match lines.as_slice() {
            [] => continue,
            [one] => format!("line {one}"),
            many => format!("lines {}", many.join(", ")),
        };
        let notice = format!(
            "the prompt `{}` puts text of the payload in without marks ({lines}: `raw`); a hostile \
             payload can give orders there",
            prompt.name()
        );
        // Two kinds may share a prompt.
        if !notices.contains(&notice) {
            notices.push(notice);
        }
    }
    notices
}

/// What the engine for one machine still keeps, where the configuration has moved to Kafka since.
pub(super) fn left_behind(settings: &Settings) -> Option<String> {
    let dir = &settings.engine.dir;
    (settings.engine.cluster.is_some() && embedded::is_used(dir)).then(|| {
        format!(
            "`{}` holds the records of the embedded engine, and on Kafka nothing of it is read: tasks that are not \
             done there, and what waits for people, stay where they are; `tidegate run` without `[engine] kafka` goes \
             on with them, and without the directory this is told no more",
            dir.display()
        )
    })
}

fn asks(kind: &Kind) -> String {
    let Some(StepKind::Ask(ask)) = kind.plan.first().map(|step| &step.what) else {
        return "    copies its payload; asks no model\n".to_owned();
    };
    let models: Vec<_> = ask.models.iter().map(|m| &*m.name).collect();
    let rules = match kind.rules.len() {
        0 => String::new(),
        n => format!(", {}", count(n, "rule")),
    };
    let line = kind.review.line;
    let looks = match kind.review.start {
        Start::All => "at every answer".to_owned(),
        Start::Sample { share } => format!("below {line}, and at {:.0} % of the rest", share * 100.0),
        Start::Line => format!("below {line}"),
    };
    format!("    asks {}\n    a person looks {looks}{rules}\n", models.join(", then "))
}

fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn parse(text: &str) -> Result<Settings, Problems> {
        Settings::parse(Path::new("tidegate.toml"), text, &|name| {
            name.ends_with("_KEY").then(|| "a-key".to_owned())
        })
    }

    #[test]
    fn a_good_file_is_told_in_a_few_lines() {
        let text = "[tasks.ticket]\nmodels = [\"openai/gpt-5-mini\", \"anthropic/claude-haiku-4-5\"]\nask = \"Sort.\"\n\
                    answer = { a = \"string\" }\nrules = [{ that = \"answer.a != ''\" }]\n[tasks.copy]\n";
        let expected = "tidegate.toml is good: 2 kinds

  ticket  tasks.ticket -> results
    asks openai/gpt-5-mini, then anthropic/claude-haiku-4-5
    a person looks below 0.85, and at 10 % of the rest, 1 rule

  copy  tasks.copy -> results
    copies its payload; asks no model

  embedded engine in ./data; answers on http://127.0.0.1:8080
  everything in force: tidegate check --resolved";
        assert_eq!(good(&parse(text).unwrap(), false, false), expected);
    }

    #[test]
    fn a_prompt_that_takes_payload_text_for_its_own_is_told() {
        let file = |ask: &str| {
            format!(
                "[tasks.t]\nmodels = [\"openai/gpt-5-mini\"]\nask = \"{ask}\"\nanswer = {{ a = \"string\" }}\n"
            )
        };
        let raw = parse(&file("Sort {{ task.text | raw }}")).unwrap();
        let told = good(&raw, false, false);
        let expected = "

  notice: the prompt `tasks.t.ask` puts text of the payload in without marks
  (line 1: `raw`); a hostile payload can give orders there";
        assert!(told.ends_with(expected), "{told}");
        for resolved in [false, true] {
            let json: serde_json::Value = serde_json::from_str(&good(&raw, resolved, true)).unwrap();
            assert_eq!(json["notices"].as_array().map(Vec::len), Some(1), "{json}");
        }
        let marked = parse(&file("Sort {{ task.text }}")).unwrap();
        assert!(!good(&marked, false, false).contains("notice"));
    }

    #[test]
    fn p2_what_the_embedded_engine_still_holds_is_told_once_the_file_has_moved_to_kafka() {
        let dir = tempfile::tempdir().unwrap();
        let of = |engine: &str| {
            let text = format!("[tasks.copy]\n{engine}");
            Settings::parse(&dir.path().join("tidegate.toml"), &text, &|_| None).unwrap()
        };
        let moved = of("[engine]\nkafka = \"a:9092\"\nredis = \"redis://me@b:6379\"\n");
        assert_eq!(left_behind(&moved), None, "there is no directory");
        std::fs::create_dir(dir.path().join("data")).unwrap();
        assert_eq!(left_behind(&moved), None, "it is empty");
        std::fs::write(dir.path().join("data/format"), "tidegate 1\n").unwrap();
        assert_eq!(left_behind(&of("")), None, "it is in use");
        let told = good(&moved, false, false).replace("\n  ", " ");
        assert!(told.contains("holds the records of the embedded engine"), "{told}");
        assert!(told.contains("Kafka at a:9092, Redis at b:6379"), "{told}");
    }

    #[test]
    fn what_a_person_looks_at_is_said_as_it_is() {
        let kind =
            "[tasks.t]\nmodels = [\"openai/gpt-5-mini\"]\nask = \"Sort.\"\nanswer = { a = \"string\" }\n";
        for (start, said) in [("all", "looks at every answer\n"), ("line", "looks below 0.85\n")] {
            let text = format!("{kind}review = {{ start = \"{start}\" }}\n");
            let told = good(&parse(&text).unwrap(), false, false);
            assert!(told.contains(said), "{told}");
        }
    }

    #[test]
    fn scripts_get_one_object_either_way() {
        let good: serde_json::Value =
            serde_json::from_str(&good(&parse("[tasks.copy]\n").unwrap(), true, true)).unwrap();
        assert_eq!((&good["ok"], &good["worker"]["in_flight"]), (&json!(true), &json!(256)));
        let bad = bad(&parse("[tasks.copy]\nidentity = 5\n").unwrap_err());
        let expected = json!({ "line": 2, "column": 12, "width": 1, "quote": "identity = 5" });
        assert_eq!((&bad["ok"], &bad["problems"][0]["at"]), (&json!(false), &expected));
    }
}

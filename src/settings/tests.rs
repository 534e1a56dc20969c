//! What a good file means, and that a bad one says all that is wrong with it.

mod asking;
mod cluster;
mod keys;
mod kinds;
mod models;
mod registry;
mod secrets;
mod silent;

use super::*;
use crate::weigh::Start;

/// The shortest useful file; the README and DESIGN promise that it runs as it stands.
const FOUR_LINES: &str = r#"[tasks.ticket]
models = ["openai/gpt-5-mini", "anthropic/claude-haiku-4-5"]
ask    = "Classify this support ticket and extract its fields."
answer = { category = ["billing", "bug", "how-to", "other"], urgency = ["low", "high"], order_id = "string?" }
"#;

const OPENAI_KEY: &str = "sk-live-openai-0001";
const ANTHROPIC_KEY: &str = "sk-live-anthropic-0002";

fn keys(name: &str) -> Option<String> {
    match name {
        "OPENAI_API_KEY" => Some(OPENAI_KEY.to_owned()),
        "ANTHROPIC_API_KEY" => Some(ANTHROPIC_KEY.to_owned()),
        _ => None,
    }
}

fn parse(text: &str) -> Result<Settings, Problems> {
    Settings::parse(Path::new("tidegate.toml"), text, &keys)
}

#[track_caller]
fn load(text: &str) -> Settings {
    match parse(text) {
        Ok(settings) => settings,
        Err(problems) => panic!("{problems}"),
    }
}

#[track_caller]
fn refused(text: &str) -> Problems {
    match parse(text) {
        Ok(_) => panic!("this was accepted:\n{text}"),
        Err(problems) => problems,
    }
}

/// Asserts what is said of `text`, the closing line aside, and that it fits a terminal.
#[track_caller]
fn says(text: &str, expected: &str) {
    let text = text.strip_prefix('\n').unwrap_or(text);
    let said = refused(text).to_string();
    let (said, _) = said.rsplit_once('\n').unwrap_or((&said, ""));
    assert_eq!(said.trim_end(), expected.trim(), "\n\nsaid:\n{said}\n");
    assert!(said.lines().all(|line| line.chars().count() <= 80), "wider than 80 columns:\n{said}");
}

fn ask(settings: &Settings) -> &Ask {
    match &settings.kinds[0].plan[0].what {
        StepKind::Ask(ask) => ask,
    }
}

#[test]
fn the_four_line_file_loads_as_it_stands() {
    let settings = load(FOUR_LINES);
    let kind = settings.kind("ticket").unwrap();
    assert_eq!((kind.from.as_str(), kind.to.as_str()), ("tasks.ticket", "results"));
    assert!(kind.key.is_none() && !kind.content_key && !kind.from_existing);
    assert_eq!(kind.review.line, 0.85);
    assert_eq!(kind.review.start, Start::Sample { share: 0.1 });
    let ask = ask(&settings);
    let names: Vec<_> = ask.models.iter().map(|m| &*m.name).collect();
    assert_eq!(names, ["openai/gpt-5-mini", "anthropic/claude-haiku-4-5"]);
    assert_eq!(ask.sanitizer.as_ref().unwrap().name, ask.models[0].name);
    assert_eq!(ask.answer.fields(), ["category", "urgency", "order_id"]);
    assert_eq!(settings.engine.dir, Path::new("./data"));
    assert_eq!(settings.engine.dedupe_window, Duration::from_secs(7 * 86_400));
    assert!(settings.http.listen.ip().is_loopback());
    assert_eq!(settings.worker.in_flight, 256);
    assert_eq!(settings.worker.drain, settings.models.iter().map(|m| m.timeouts.total).max().unwrap());
}

#[test]
fn the_four_line_file_needs_no_keys_when_its_providers_are_on_this_machine() {
    let here = |name: &str| match name {
        "OPENAI_BASE_URL" => Some("http://127.0.0.1:9009/v1".to_owned()),
        "ANTHROPIC_BASE_URL" => Some("http://localhost:9009".to_owned()),
        _ => None,
    };
    let settings = Settings::parse(Path::new("tidegate.toml"), FOUR_LINES, &here).unwrap();
    assert!(settings.models.iter().all(|m| m.key.is_none()));
    assert_eq!(settings.models[0].url.as_str(), "http://127.0.0.1:9009/v1");
    let patience: Vec<u64> = settings.models.iter().map(|m| m.timeouts.first_token.as_secs()).collect();
    assert_eq!(patience, [60, 10], "gpt-5-mini thinks before it speaks, and says nothing while it does");
    assert_eq!(
        settings.models[1].url.as_str(),
        "http://localhost:9009/v1",
        "as Anthropic's programs take it"
    );

    let elsewhere = |name: &str| here(name).map(|url| url.replace("127.0.0.1", "models.example"));
    let problems = Settings::parse(Path::new("tidegate.toml"), FOUR_LINES, &elsewhere).unwrap_err();
    assert_eq!(problems.all.len(), 1);
    assert!(problems.all[0].what.contains("OPENAI_API_KEY is not set"), "{problems}");
}

#[test]
fn the_address_in_a_section_is_taken_as_the_one_in_the_environment_is() {
    for (written, asked) in [
        ("http://localhost:9009", "http://localhost:9009/v1"),
        ("http://localhost:9009/", "http://localhost:9009/v1"),
        ("http://localhost:9009/v1", "http://localhost:9009/v1"),
        ("https://gateway.example/anthropic", "https://gateway.example/anthropic/v1"),
    ] {
        let text = format!(
            "[tasks.t]\nmodels = [\"m\"]\nask = \"Say it.\"\nanswer = {{ a = \"string\" }}\n\
             [models.m]\napi = \"anthropic\"\nmodel = \"m\"\nwindow_tokens = 1000\nurl = \"{written}\"\n"
        );
        let settings = Settings::parse(Path::new("tidegate.toml"), &text, &|_| None).unwrap();
        assert_eq!(settings.models[0].url.as_str(), asked, "{written}");
    }
}

#[test]
fn all_mistakes_are_reported_at_once_in_the_order_of_the_file() {
    let text = r#"
[engine]
kafka = "broker:9092"
partitions = 1000
[htpp]
[models.main]
api = "openai"
url = "ftp://x"
model = "m"
key = "env:NOWHERE"
window_tokens = 9_000
price = { input = 1.0, output = -1.0 }
[tasks.a]
models = ["main", "mian"]
ask = "prompts/none.md"
answer = { x = "text" }
rules = [{ that = "answer.x ==" }]
review = { below = 2.0 }
[tasks.b]
from = "x"
"#;
    let problems = refused(text);
    let lines: Vec<_> = problems.all.iter().map(|p| p.at.as_ref().unwrap().line).collect();
    assert_eq!(lines, [3, 4, 5, 8, 10, 12, 14, 15, 16, 17, 18, 20], "{problems}");
    assert!(problems.to_string().ends_with("12 problems in tidegate.toml"));
}

#[test]
fn prompts_and_schemas_are_read_from_beside_the_file() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("note.md"), "Write a note.\n").unwrap();
    std::fs::write(
        dir.path().join("note.json"),
        r#"{"type":"object","properties":{"plan":{"type":"string"}}}"#,
    )
    .unwrap();
    let text = "[tasks.note]\nmodels = [\"openai/gpt-5-mini\"]\nask = \"note.md\"\nanswer = \"note.json\"\n";
    let path = dir.path().join("t.toml");
    std::fs::write(&path, text).unwrap();
    let settings = Settings::parse(&path, text, &keys).unwrap();
    assert_eq!(ask(&settings).prompt.source(), "Write a note.\n");
    assert_eq!(ask(&settings).answer.fields(), ["plan"]);
    assert_eq!(settings.engine.dir, dir.path().join("data"));

    std::fs::write(dir.path().join("note.json"), "{").unwrap();
    std::fs::write(dir.path().join("note.md"), b"caf\xe9").unwrap();
    let said =
        Settings::parse(&path, text, &keys).unwrap_err().all.into_iter().map(|p| p.what).collect::<String>();
    assert!(said.contains("note.md is not UTF-8 at byte 3"), "{said}");
    assert!(said.contains("note.json is not JSON: EOF while parsing an object at line 1"), "{said}");
}

#[test]
fn a_file_that_is_not_there_or_not_text_is_said_in_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let none = Settings::load(Path::new("no-such-configuration.toml")).unwrap_err().to_string();
    assert!(none.starts_with("error: no configuration at ./no-such-configuration.toml\n"), "{none}");
    let path = dir.path().join("t.toml");
    std::fs::write(&path, b"[tasks.a]\nask = \"caf\xe9\"\n").unwrap();
    let said = Settings::load(&path).unwrap_err().to_string();
    assert!(said.contains("is not UTF-8 (line 2, byte 20)"), "{said}");
    let said = Settings::load(dir.path()).unwrap_err().to_string();
    assert!(said.contains("cannot read"), "{said}");
}

#[test]
fn a_kind_without_models_and_ask_copies_its_payload() {
    let settings =
        load("[tasks.copy]\nfrom = \"in\"\nkey = \"content\"\nto = \"out\"\nidentity = [\"a.b\", \"c\"]\n");
    let kind = &settings.kinds[0];
    assert!(kind.plan.is_empty() && kind.content_key && kind.key.is_none() && kind.from_existing);
    assert_eq!(kind.identity, crate::task::PrintRule::Fields(["a.b".to_owned(), "c".to_owned()].into()));
    assert!(settings.models.is_empty());
    assert_eq!(settings.worker.drain, Duration::ZERO, "no call to wait for");
}

#[test]
fn everything_that_section_8_writes_and_this_version_has_is_understood() {
    let text = r#"
[models.main]
api = "openai"
url = "http://127.0.0.1:9009/v1"
model = "large"
key = "env:OPENAI_API_KEY"
window_tokens = 128_000
price = { input = 0.25, output = 2.0 }
params = { reasoning_effort = "low" }
allows = ["phi"]
timeouts = { total = "5m" }

[tasks.report-edit]
type = "report.edit"
from = "reports"
key = "task.id"
input = { id = "string", report = "string" }
models = ["main"]
data = "phi"
deadline = "1h"
on_conflict = "ignore"
shape = "answer"
allowance = { time = "5m", money = 0.05, tries = 4 }
rules = [ { that = "edit.dosage_mg > 0.0 && edit.dosage_mg <= 500.0", message = "dosage outside 0-500 mg", critical = true } ]
review = { below = 0.9, start = "all", critical = ["edit.dosage_mg"], team = "clinicians", due = "30m" }
[[tasks.report-edit.steps]]
name = "edit"
ask = "Edit the report."
answer = { dosage_mg = "number", route = "string" }

[engine]
dir = "/var/lib/tidegate"
prefix = "eu."
dedupe_window = "14d"
retention = "30d"
disk_max = "20GiB"
partitions = 16
[http]
listen = "[::1]:9000"
body_max = "32MiB"
[worker]
in_flight = 1_000
[log]
format = "json"
level = "info,tidegate::infer=debug"
"#;
    let settings = load(text);
    let kind = &settings.kinds[0];
    assert_eq!(kind.ce_type.as_deref(), Some("report.edit"));
    assert_eq!((kind.on_conflict, kind.shape), (OnConflict::Ignore, Shape::Answer));
    assert_eq!(kind.allowance.money, Some(0.05));
    assert_eq!((kind.allowance.tries, kind.allowance.time), (4, Duration::from_secs(300)));
    assert_eq!(kind.review.critical, ["dosage_mg"], "the step's name is taken off");
    assert_eq!(kind.review.due, Some(Duration::from_secs(1800)));
    assert_eq!(&*kind.plan[0].name, "edit");
    assert!(kind.rules[0].critical);
    assert_eq!(kind.to.as_str(), "eu.results");
    assert_eq!(settings.topics.resume.as_str(), "eu.resume");
    let opened = settings.engine.embedded();
    assert_eq!(
        (opened.directory.as_path(), opened.budget_bytes),
        (Path::new("/var/lib/tidegate"), Some(20 << 30))
    );
    assert_eq!(opened.window, Duration::from_secs(14 * 86_400));
    assert_eq!(settings.worker.drain, Duration::from_secs(300), "the longest call");
    assert_eq!(settings.http.listen.to_string(), "[::1]:9000");
}

#[test]
fn every_topic_is_there_once_with_room_for_four_times_the_input() {
    let text = "[engine]\nprefix = \"p.\"\nrecord_max = \"2MiB\"\nretention = \"9d\"\n[tasks.a]\nto = \"chain\"\n\
                [tasks.b]\nfrom = \"chain\"\nkey = \"content\"\n";
    let settings = load(text);
    let specs = topics(&settings);
    let mut names: Vec<_> = specs.iter().map(|s| s.topic.as_str()).collect();
    names.sort_unstable();
    let own =
        ["p.dead-letters", "p.results", "p.resume", "p.retry.30m", "p.retry.30s", "p.retry.5m", "p.retry.5s"];
    let review = ["p.review.decisions", "p.review.outcomes", "p.review.requests", "p.tasks.a"];
    let mut expected = [&["chain"][..], &own, &review].concat();
    expected.sort_unstable();
    assert_eq!(names, expected);
    let spec = |name: &str| specs.iter().find(|s| s.topic.as_str() == name).unwrap();
    assert_eq!(spec("p.tasks.a").limit, 2 << 20);
    assert_eq!(spec("chain").limit, 8 << 20, "an output topic that is an input too takes outputs");
    assert_eq!(spec("p.results").retention, Some(Duration::from_secs(9 * 86_400)));
    assert!(spec("p.review.requests").compacted && !spec("p.review.decisions").compacted);
}

#[test]
fn what_is_asked_has_a_digest_that_changes_with_it_and_with_nothing_else() {
    let digest = |text: &str| ask(&load(text)).digest.clone();
    let usual = digest(FOUR_LINES);
    assert!(usual.len() == 8 && usual.chars().all(|c| c.is_ascii_hexdigit()));
    let same = FOUR_LINES.replace(
        "[\"openai/gpt-5-mini\", \"anthropic/claude-haiku-4-5\"]",
        "[\"anthropic/claude-haiku-4-5\"]",
    ) + "review = { below = 0.5 }\ndeadline = \"1h\"\n";
    assert_eq!(digest(&same), usual, "another model is asked the same");
    let other_prompt = FOUR_LINES.replace("Classify", "Sort");
    let other_answer = FOUR_LINES.replace("\"low\"", "\"none\"");
    let other_params =
        FOUR_LINES.to_owned() + "[models.\"openai/gpt-5-mini\"]\nparams = { temperature = 1.0 }\n";
    for other in [&other_prompt, &other_answer, &other_params] {
        assert_ne!(digest(other), usual, "{other}");
    }
}

#[test]
fn the_hash_of_the_configuration_leaves_out_places_and_secrets() {
    let other_keys = |_: &str| Some("another-key".to_owned());
    let elsewhere =
        FOUR_LINES.to_owned() + "[engine]\ndir = \"/elsewhere\"\n[http]\nlisten = \"127.0.0.1:1\"\n";
    let a = load(FOUR_LINES);
    // The base URLs must not be replaced by that key.
    let env = |name: &str| if name.ends_with("_KEY") { other_keys(name) } else { None };
    let b = Settings::parse(Path::new("/etc/t.toml"), &elsewhere, &env).unwrap();
    assert_eq!(a.digest, b.digest);
    let stricter = load(&(FOUR_LINES.to_owned() + "review = { below = 0.9 }\n"));
    assert_ne!(a.digest, stricter.digest);
    assert_eq!(a.digest.len(), 16);
}

#[test]
fn a_section_may_add_what_is_not_built_in_about_a_providers_model() {
    let text = FOUR_LINES.replace("gpt-5-mini", "my-tuned-one")
        + "[models.\"openai/my-tuned-one\"]\nwindow_tokens = 32_000\nprice = { input = 1, output = 4.5 }\n";
    let settings = load(&text);
    let model = &settings.models[0];
    assert_eq!((model.model.as_str(), model.window_tokens), ("my-tuned-one", Some(32_000)));
    assert!(model.url.as_str().starts_with("https://api.openai.com"));
    assert!(model.key.is_some());
}

#[test]
fn what_is_in_force_is_toml_again() {
    let shown = load(FOUR_LINES).resolved_text();
    let table: toml::Table = toml::from_str(&shown).unwrap();
    assert_eq!(table["tasks"]["ticket"]["review"]["below"].as_float(), Some(0.85));
    assert_eq!(table["models"]["openai/gpt-5-mini"]["key"].as_str(), Some("hidden"));
}

#[test]
fn the_log_may_be_made_louder_for_one_run() {
    let text = "[tasks.copy]\n[log]\nlevel = \"warn\"\n";
    let with = |level: &'static str| {
        Settings::parse(Path::new("t.toml"), text, &|name| (name == "TIDEGATE_LOG").then(|| level.to_owned()))
    };
    assert_eq!(load(text).log.level, "warn");
    assert_eq!(with("debug").unwrap().log.level, "debug");
    assert!(with("loud").unwrap_err().to_string().contains("TIDEGATE_LOG is not a level"));
}

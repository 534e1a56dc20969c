//! `check` and `explain` as scripts and terminals meet them: exit codes, streams, no colour, no secrets.

use std::path::Path;
use std::process::{Command, Output};

const FOUR_LINES: &str = r#"[tasks.ticket]
models = ["openai/gpt-5-mini", "anthropic/claude-haiku-4-5"]
ask    = "Classify this support ticket and extract its fields."
answer = { category = ["billing", "bug", "how-to", "other"], urgency = ["low", "high"], order_id = "string?" }
"#;

fn tidegate(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.current_dir(dir).args(args).env_clear().env("ANTHROPIC_API_KEY", "sk-live-not-to-be-shown");
    command.env("OPENAI_BASE_URL", "http://127.0.0.1:9/v1").output().unwrap_or_else(|e| panic!("{e}"))
}

fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8(bytes.to_vec()).unwrap_or_else(|e| panic!("{e}"));
    assert!(!text.contains("sk-live"), "a secret is shown:\n{text}");
    assert!(!text.contains('\u{1b}'), "colour in a pipe:\n{text}");
    text
}

#[test]
fn the_four_line_file_is_good_and_what_is_in_force_can_be_seen() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tidegate.toml"), FOUR_LINES).unwrap();
    let said = tidegate(dir.path(), &["check"]);
    assert_eq!(said.status.code(), Some(0), "{}", text(&said.stderr));
    assert!(text(&said.stdout).starts_with("tidegate.toml is good: 1 kind\n"));

    let said = tidegate(dir.path(), &["check", "--resolved"]);
    let table: toml::Table = toml::from_str(&text(&said.stdout)).unwrap();
    assert_eq!(table["models"]["anthropic/claude-haiku-4-5"]["key"].as_str(), Some("hidden"));
    assert_eq!(table["models"]["openai/gpt-5-mini"]["key"].as_str(), Some("none"));
    let json = tidegate(dir.path(), &["check", "--resolved", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&text(&json.stdout)).unwrap();
    assert_eq!(json["tasks"]["ticket"]["review"]["below"], 0.85);
    assert!(!dir.path().join("data").exists(), "check opens nothing");
}

#[test]
fn mistakes_end_with_2_and_point_at_their_lines() {
    let dir = tempfile::tempdir().unwrap();
    let bad = FOUR_LINES.replace("models", "modles") + "reveiw = { below = 0.9 }\n";
    std::fs::write(dir.path().join("bad.toml"), bad).unwrap();
    let said = tidegate(dir.path(), &["--config", "bad.toml", "check"]);
    let words = text(&said.stderr);
    assert_eq!(said.status.code(), Some(2), "{words}");
    assert!(words.contains("error: unknown key `modles` in [tasks.ticket]\n --> bad.toml:2:1"), "{words}");
    assert!(words.contains("--> bad.toml:5:1") && words.contains("did you mean `review`?"), "{words}");
    assert!(words.trim_end().ends_with("2 problems in bad.toml"), "{words}");
    let said = tidegate(dir.path(), &["--config", "bad.toml", "check", "--json"]);
    assert_eq!(said.status.code(), Some(2));
    let json: serde_json::Value = serde_json::from_str(&text(&said.stdout)).unwrap();
    assert_eq!((&json["ok"], &json["problems"][1]["at"]["line"]), (&false.into(), &5.into()));
}

#[test]
fn a_missing_file_is_said_in_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let said = tidegate(dir.path(), &["check"]);
    assert_eq!(said.status.code(), Some(2));
    assert!(text(&said.stderr).starts_with("error: no configuration at ./tidegate.toml\n"));
    // Who names one means it, whatever the command.
    for command in [&["status"][..], &["tail", "results"], &["review", "ls"], &["explain"], &["check"]] {
        let said = tidegate(dir.path(), &[&["-c", "nope.toml"], command].concat());
        let words = text(&said.stderr);
        assert_eq!(said.status.code(), Some(2), "{command:?}: {words}");
        assert!(words.starts_with("error: no configuration at ./nope.toml\n"), "{command:?}: {words}");
    }
}

#[test]
fn a_decision_of_nobody_says_how_to_name_somebody() {
    let dir = tempfile::tempdir().unwrap();
    let said = tidegate(dir.path(), &["review", "approve", "0123"]);
    let words = text(&said.stderr);
    assert_eq!(said.status.code(), Some(2), "{words}");
    assert!(words.contains("$USER is not set") && words.contains("--by NAME"), "{words}");
}

#[test]
fn a_refusal_says_first_what_is_wrong_and_last_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    std::fs::write(dir.path().join("tidegate.toml"), "[tasks.copy]\n").unwrap();
    for (args, ends) in [
        (&["submit", "t", "gone.jsonl"][..], "or `-` for standard input\n"),
        (&["--url", "there:1x", "status"], "write --url http://HOST:PORT\n"),
        (&["run", "--listen", &listen], "or give --listen\n"),
        (&["simulate-provider", "--listen", &listen], "is another program there?\n"),
    ] {
        let words = text(&tidegate(dir.path(), args).stderr);
        assert!(words.starts_with("error: ") && words.ends_with(ends), "{args:?}: {words}");
    }
}

#[test]
fn a_code_is_explained_and_a_wrong_one_ends_with_1() {
    let dir = tempfile::tempdir().unwrap();
    let said = tidegate(dir.path(), &["explain", "TG-below-line"]);
    assert_eq!(said.status.code(), Some(0));
    assert!(text(&said.stdout).contains("What to do\n  Read the flagged fields"));
    let said = tidegate(dir.path(), &["explain", "below-lnie"]);
    assert_eq!(said.status.code(), Some(1));
    assert!(text(&said.stderr).contains("did you mean TG-below-line?"));
    assert!(text(&tidegate(dir.path(), &["explain"]).stdout).lines().count() > 20);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_reason_to_panic() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tidegate.toml"), FOUR_LINES).unwrap();
    for args in [&["explain"][..], &["explain", "--json"], &["check"], &["check", "--resolved"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.current_dir(dir.path()).args(args).env("OPENAI_BASE_URL", "http://127.0.0.1:9/v1");
        command.env("ANTHROPIC_API_KEY", "any").stdout(writer).stderr(std::process::Stdio::piped());
        let said = command.spawn().unwrap().wait_with_output().unwrap();
        assert!(!text(&said.stderr).contains("panicked"), "{args:?}: {}", text(&said.stderr));
        assert_ne!(said.status.code(), Some(101), "{args:?}");
    }
}

#[test]
fn the_help_of_a_redrive_says_what_becomes_of_the_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let said = text(&tidegate(dir.path(), &["dead-letters", "redrive", "--help"]).stdout);
    let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("does not keep the `deadline` it was sent with"), "{said}");
    let said = text(&tidegate(dir.path(), &["dead-letters", "--help"]).stdout);
    assert!(said.contains("without its deadline"), "{said}");
}

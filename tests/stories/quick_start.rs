//! README's first steps, run as they stand there: if they change, so does this; if they stop working,
//! this fails.

use crate::rig::is_for_embedded_only;
use crate::rig::process::{free_port, tidegate};
use std::process::Command;

/// The fenced blocks of README, each with its language.
fn blocks() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let mut found = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => found.extend(open.take()),
            (Some(language), None) => open = Some((language.to_owned(), String::new())),
            (None, Some((_, block))) => block.push_str(&format!("{line}\n")),
            (None, None) => {}
        }
    }
    assert_eq!(open, None, "a fence without its end");
    found
}

/// The one block that `holds`.
fn block(language: &str, holds: &str) -> String {
    let mut all: Vec<String> =
        blocks().into_iter().filter(|(l, b)| l == language && b.contains(holds)).map(|(_, b)| b).collect();
    assert_eq!(all.len(), 1, "blocks of README with `{holds}`: {all:?}");
    all.remove(0)
}

/// The commands, one after the other as a person would: after one that stays, until it listens. Ports
/// are this test's own; not a letter else is changed.
fn script(commands: &str, provider: u16, processor: u16) -> String {
    let mut script = String::from("set -eu\ntrap 'kill $(jobs -p) 2>/dev/null' EXIT\n");
    let listens =
        |port| format!("until (echo >/dev/tcp/127.0.0.1/{port}) 2>/dev/null; do sleep 0.05; done\n");
    for line in commands.lines() {
        script.push_str(&format!("echo '$ {}'\n{line}\n", line.replace('\'', "")));
        if line.starts_with("tidegate simulate-provider") && line.ends_with('&') {
            script.push_str(&listens(provider));
        }
        if line.starts_with("tidegate run") && line.ends_with('&') {
            script.push_str(&listens(processor));
        }
    }
    script.replace("9009", &provider.to_string())
}

#[test]
fn the_first_steps_of_readme_work_as_they_stand_there() {
    if is_for_embedded_only("README's first steps need no server") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tidegate.toml"), block("toml", "[tasks.ticket]")).unwrap();
    let commands = block("", "tidegate simulate-provider &");
    for wanted in ["tidegate check", "tidegate run &", "| tidegate submit ticket - --wait", "tidegate status"]
    {
        assert!(commands.lines().any(|line| line.ends_with(wanted)), "`{wanted}` is not in\n{commands}");
    }
    let (provider, processor) = (free_port(), free_port());
    // `tidegate` on the path is the binary under test, told of the ports.
    let binary = tidegate().get_program().to_owned().into_string().unwrap();
    let shim = format!(
        "#!/bin/sh\ncase $1 in\n  simulate-provider) exec {binary} \"$@\" --listen 127.0.0.1:{provider} ;;\n  \
         run) exec {binary} \"$@\" --listen 127.0.0.1:{processor} ;;\n  \
         *) exec {binary} \"$@\" ;;\nesac\n"
    );
    let path = dir.path().join("bin");
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("tidegate"), shim).unwrap();
    let mode = Command::new("chmod").arg("+x").arg(path.join("tidegate")).status().unwrap();
    assert!(mode.success());
    let mut bash = Command::new("timeout");
    bash.args(["60", "bash", "-c", &script(&commands, provider, processor)]).current_dir(dir.path());
    bash.env("PATH", format!("{}:{}", path.display(), std::env::var("PATH").unwrap()));
    bash.env("TIDEGATE_URL", format!("http://127.0.0.1:{processor}"));
    for name in ["OPENAI_API_KEY", "ANTHROPIC_API_KEY", "TIDEGATE_CONFIG", "TIDEGATE_LOG"] {
        bash.env_remove(name);
    }
    let out = bash.stdin(std::process::Stdio::null()).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{}:\n{said}", out.status);
    assert!(said.contains("tidegate.toml is good: 1 kind"), "{said}");
    assert!(said.contains("1 line: 1 accepted, 0 known before, 0 refused"), "{said}");
    assert!(said.contains("1 task: 1 result, 0 waiting for a person"), "it has a result: {said}");
    let status = said.split("$ tidegate status\n").nth(1).unwrap_or_default();
    assert!(status.contains("openai/gpt-5-mini") && status.contains("in use"), "{said}");
}

#[test]
fn the_six_lines_of_readme_move_the_first_configuration_to_kafka_and_redis() {
    let dir = tempfile::tempdir().unwrap();
    let (first, six) = (block("toml", "[tasks.ticket]"), block("toml", "kafka = "));
    let lines = six.lines().filter(|line| !line.trim_start().starts_with('[')).count();
    assert_eq!(lines, 5, "six with the header of their section:\n{six}");
    std::fs::write(dir.path().join("tidegate.toml"), first + &six).unwrap();
    let mut check = tidegate();
    check.arg("check").current_dir(dir.path());
    for name in ["OPENAI_BASE_URL", "ANTHROPIC_BASE_URL"] {
        check.env(name, "http://127.0.0.1:9/v1");
    }
    let out = check.output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{said}");
    for part in ["tickets.created -> tickets.labelled", "Kafka at broker:9092, Redis at redis:6379"] {
        assert!(said.contains(part), "`{part}` is not in\n{said}");
    }
}

//! `tidegate check`: reads the configuration as `run` would, and says what it means or what is wrong.
//!
//! Calls no model and opens no directory. Secrets are looked for, never shown.

use super::{CONFIGURATION, Global};
use crate::settings::{Kind, Problems, Settings, StepKind};
use serde_json::json;
use std::process::ExitCode;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Print everything that is in force, defaults included; secrets hidden.
    #[arg(long)]
    resolved: bool,
}

pub(super) async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    match Settings::load(&global.config) {
        Ok(settings) => {
            println!("{}", good(&settings, args.resolved, global.json));
            Ok(ExitCode::SUCCESS)
        }
        Err(problems) if global.json => {
            println!("{}", bad(&problems));
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
            json!({ "ok": true, "file": file, "digest": settings.digest, "kinds": kinds, "models": models })
                .to_string()
        }
        (true, true) => {
            let mut value = settings.resolved();
            value["ok"] = json!(true);
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
    let engine = &settings.engine;
    out.push_str(&format!(
        "\n  embedded engine in {}; answers on http://{}\n  everything in force: tidegate check --resolved",
        engine.dir.display(),
        settings.http.listen
    ));
    out
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
    format!("    asks {}\n    a person looks below {}{rules}\n", models.join(", then "), kind.review.line)
}

fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

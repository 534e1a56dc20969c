//! `tidegate status`: one sentence why things are as they are, then the figures.

use super::Global;
use super::client::Client;
use super::text::{field, number, plain, row, say, say_json, short, size, span, table, wrap};
use serde_json::Value;
use std::process::ExitCode;

/// A failure older than this is history: the counts tell of it.
const LATELY_MS: u64 = 15 * 60 * 1_000;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Every topic, also those in which nothing waits
    #[arg(long)]
    all: bool,
}

pub(super) async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let status = Client::new(global)?.get(&["v1", "status"], &[]).await?;
    if global.json {
        say_json(&status);
    } else {
        say(report(&status, args.all));
    }
    Ok(ExitCode::SUCCESS)
}

fn report(status: &Value, all: bool) -> String {
    let count = |name: &str| status[name].as_u64().unwrap_or(0);
    let mut out = vec![wrap(field(status, "sentence"), 0), String::new()];
    out.push(row("running for", &span(count("uptime_s"))));
    let at_most = if status["records_at_most"] == true { "at most " } else { "" };
    let backlog = status["backlog"].as_u64();
    let backlog = backlog.map_or("unknown (the log cannot be read)".to_owned(), |n| {
        format!("{} to be done", count_of(n, at_most))
    });
    out.push(row("waiting", &format!("{backlog}, {} for a person", number(count("reviews_open")))));
    let letters = status["dead_letters"].as_u64();
    out.push(row("dead letters", &letters.map_or("unknown".to_owned(), |n| count_of(n, at_most))));
    for broken in status["broken"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        out.push(row("broke off", &format!("{broken}: tried again after a restart")));
    }
    let storage = &status["storage"];
    let bytes = |name: &str| size(storage[name].as_u64().unwrap_or(0));
    // What an engine keeps elsewhere is told there.
    if storage["segments"] != 0 {
        out.push(row(
            "disk",
            &format!(
                "log {}, ledger {}, free {}",
                bytes("log_bytes"),
                bytes("ledger_bytes"),
                bytes("free_bytes")
            ),
        ));
    }
    out.push(row(
        "spent",
        &status["spend"].as_f64().map_or("nothing counted".to_owned(), |s| format!("{s:.4}")),
    ));
    for pinned in storage["pinned"].as_array().into_iter().flatten() {
        out.push(row("kept", &format!("{}: {}", field(pinned, "segment"), field(pinned, "by"))));
    }
    for held in status["held"].as_array().into_iter().flatten() {
        let kinds: Vec<&str> =
            held["kinds"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        out.push(row("held", &format!("{}: {}", kinds.join(", "), field(held, "why"))));
    }
    out.extend(models(&status["models"]));
    out.extend(topics(&status["topics"], all, at_most));
    out.join("\n")
}

fn models(models: &Value) -> Option<String> {
    let models = models.as_array().filter(|m| !m.is_empty())?;
    let mut lines = table(&["model", "state", "calls", "failed", "first token"]);
    for model in models {
        let count = |name: &str| model[name].as_u64().map_or("-".to_owned(), number);
        let first =
            model["first_token_p50_ms"].as_u64().map_or("-".to_owned(), |ms| format!("{} ms", number(ms)));
        let why = field(model, "why");
        let word = match field(model, "state") {
            "closed" => "in use",
            "open" => "not used now",
            "half-open" => "being tried again",
            "blocked" => "stopped",
            other => other,
        };
        let state = if why.is_empty() { word.to_owned() } else { format!("{word}: {why}") };
        lines.add_row([
            short(field(model, "name"), 30),
            plain(&state),
            count("calls"),
            count("failed"),
            first,
        ]);
    }
    let more: String = models.iter().filter_map(trouble).map(|line| format!("\n{line}")).collect();
    Some(format!("\n{}{more}", trim(&lines.to_string())))
}

/// What the table has no room for: when a model is tried again, what to do, and how it failed last.
fn trouble(model: &Value) -> Option<String> {
    let spans = |name: &str| model[name].as_u64().map(|ms| span(ms.div_ceil(1_000)));
    let mut said = Vec::new();
    if matches!(field(model, "state"), "open" | "blocked") {
        said.push(
            spans("next_try_ms").map_or("tried again with the next task".to_owned(), |after| {
                format!("tried again in {after}")
            }),
        );
    }
    // Why it is not used says the last error already, mostly.
    let (error, why) = (field(model, "last_error"), field(model, "why"));
    let lately = model["last_error_ms"].as_u64().is_some_and(|ms| ms < LATELY_MS);
    if !error.is_empty() && lately && !why.contains(error) {
        let ago = spans("last_error_ms").unwrap_or_default();
        said.push(format!("failed {ago} ago ({})", short(error, 100)));
    }
    if !field(model, "help").is_empty() {
        said.push(format!("what to do: {}", field(model, "help")));
    }
    (!said.is_empty()).then(|| wrap(&format!("{}: {}", short(field(model, "name"), 30), said.join("; ")), 0))
}

/// None is none, however it is counted.
fn count_of(n: u64, at_most: &str) -> String {
    format!("{}{}", if n == 0 { "" } else { at_most }, number(n))
}

fn topics(topics: &Value, all: bool, at_most: &str) -> Option<String> {
    let wanted = |t: &&Value| all || t["open"].as_u64().is_some_and(|open| open > 0);
    let topics: Vec<&Value> = topics.as_array()?.iter().filter(wanted).collect();
    if topics.is_empty() {
        return None;
    }
    let mut lines = table(&["topic", "waiting", "records"]);
    for topic in topics {
        let open = topic["open"].as_u64().map_or("-".to_owned(), |n| count_of(n, at_most));
        let records = count_of(topic["records"].as_u64().unwrap_or(0), at_most);
        lines.add_row([short(field(topic, "topic"), 40), open, records]);
    }
    Some(format!("\n{}", trim(&lines.to_string())))
}

/// Tables pad every line to its full width.
pub(super) fn trim(table: &str) -> String {
    table.lines().map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_model_in_trouble_says_how_it_failed_when_it_is_tried_again_and_what_to_do() {
        let said = |model: Value| models(&json!([model])).unwrap().replace('\n', " ");
        let blocked = said(json!({
            "name": "main", "state": "blocked", "why": "unauthorized: no such key", "last_error": "unauthorized: no such key",
            "last_error_ms": 5_000, "next_try_ms": 239_001, "help": "check the model's `key`, then start the process again",
        }));
        let end =
            "main: tried again in 4 min; what to do: check the model's `key`, then start the process again";
        assert!(blocked.ends_with(end), "{blocked}");
        let failed = json!({ "name": "main", "state": "closed", "why": null, "last_error": "timeout: no first token", "last_error_ms": 20_000 });
        assert!(said(failed.clone()).ends_with("main: failed 20 s ago (timeout: no first token)"));
        let mut old = failed;
        old["last_error_ms"] = (LATELY_MS + 1).into();
        assert!(!said(old).contains("timeout"), "that is history");
        let open = json!({ "name": "main", "state": "open", "why": "5 failures in a row", "last_error": "transient: 500", "last_error_ms": 1_000, "next_try_ms": null });
        assert!(
            said(open).ends_with("main: tried again with the next task; failed 1 s ago (transient: 500)")
        );
        let long = json!({ "name": "m".repeat(80), "state": "open", "last_error": "e ".repeat(900), "last_error_ms": 1, "help": "h ".repeat(99) });
        assert!(trouble(&long).unwrap().lines().all(|l| l.chars().count() <= 80));
    }

    #[test]
    fn the_sentence_comes_first_and_everything_fits_eighty_columns() {
        let status = json!({
            "sentence": "All is well; 2 reviews wait for a person.", "uptime_s": 61, "backlog": 1_234, "reviews_open": 2, "dead_letters": 1_500,
            "storage": { "log_bytes": 2048, "ledger_bytes": 0, "free_bytes": 1, "pinned": [{ "segment": "00.log", "by": "an open task" }] },
            "held": [{ "kinds": ["a", "b"], "why": "no model" }], "spend": null,
            "models": [{ "name": "main", "state": "open", "why": "it failed again and again", "calls": 1200, "failed": 3, "first_token_p50_ms": 12 }],
            "topics": [{ "topic": "tasks.ticket", "open": 3, "records": 9 }, { "topic": "results", "open": null, "records": 1 }],
        });
        let said = report(&status, false);
        assert!(said.starts_with("All is well; 2 reviews wait"), "{said}");
        for part in [
            "1,234 to be done, 2 for a person",
            "dead letters  1,500\n",
            "log 2.0 KiB",
            "a, b: no model",
            "1,200",
            "12 ms",
            "not used now",
            "tasks.ticket",
        ] {
            assert!(said.contains(part), "{part} is missing:\n{said}");
        }
        assert!(!said.contains("results"), "nothing waits there:\n{said}");
        assert!(report(&status, true).contains("results"));
        let mut on_kafka = status;
        on_kafka["records_at_most"] = true.into();
        let said = report(&on_kafka, false);
        for part in ["dead letters  at most 1,500\n", "at most 9", "at most 1,234 to be done", "at most 3"] {
            assert!(said.contains(part), "{part} is missing:\n{said}");
        }
        on_kafka["dead_letters"] = 0.into();
        assert!(report(&on_kafka, false).contains("dead letters  0\n"));
        let unread = json!({ "sentence": "", "backlog": null, "broken": ["tasks.ticket/0/7"] });
        let said = report(&unread, false);
        assert!(said.contains("unknown (the log cannot be read), 0 for a person"), "{said}");
        assert!(said.contains("tasks.ticket/0/7: tried again after a restart"), "{said}");
        assert!(said.lines().all(|l| l.chars().count() <= 80), "{said}");
    }
}

//! `tidegate show`: one task's whole story.

use super::Global;
use super::client::{Client, Failed};
use super::text::{field, many, plain, pretty, row, say, say_json, time};
use serde_json::Value;
use std::process::ExitCode;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// The task's key, or KIND/KEY
    key: String,
    /// Its kind, where several kinds have a task with this key
    #[arg(long)]
    kind: Option<String>,
    /// Its tenant
    #[arg(long)]
    tenant: Option<String>,
}

pub(super) async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let client = Client::new(global)?;
    let found = match (find(&client, &args, &args.key, args.kind.as_deref()).await, args.key.split_once('/'))
    {
        // Written as lists write it: the kind, and the key behind it.
        (Err(Failed::Refused { status: 404, .. }), Some((kind, key))) if args.kind.is_none() => {
            find(&client, &args, key, Some(kind)).await
        }
        (found, _) => found,
    };
    let task = found.map_err(|failed| match failed {
        Failed::Refused { message, status: 404, code, error, .. } if args.key.ends_with('…') => {
            let help =
                "lists for people cut long keys, where this one ends in `…`: `--json` there has it whole";
            Failed::Refused { message, status: 404, code, error, help: help.to_owned() }
        }
        other => other,
    })?;
    if global.json {
        say_json(&task);
    } else {
        say(story(&task));
    }
    Ok(ExitCode::SUCCESS)
}

async fn find(client: &Client, args: &Args, key: &str, kind: Option<&str>) -> Result<Value, Failed> {
    let mut query = vec![("key", key)];
    query.extend(kind.map(|kind| ("kind", kind)));
    query.extend(args.tenant.as_deref().map(|tenant| ("tenant", tenant)));
    client.get(&["v1", "tasks"], &query).await
}

/// What became of it first, then how.
pub(super) fn story(task: &Value) -> String {
    let mut out = vec![format!("Task {} of kind {}", plain(field(task, "key")), plain(field(task, "kind")))];
    if let Some(tenant) = task["tenant"].as_str() {
        out.push(row("tenant", tenant));
    }
    out.push(row("state", &state(task)));
    if task["generation"].as_u64().is_some_and(|g| g > 0) {
        out.push(row("sent again", &many(task["generation"].as_u64().unwrap_or(0), "time")));
    }
    out.push(row("record", field(task, "position")));
    match (&task["result"], &task["dead_letter"], &task["review"]) {
        (Value::Object(_), _, _) => result(&task["result"], &mut out),
        (_, Value::Object(_), _) => dead_letter(&task["dead_letter"], &mut out),
        (_, _, Value::Object(_)) => review(&task["review"], &mut out),
        _ => {}
    }
    tries(task, &mut out);
    trail(task, &mut out);
    out.join("\n")
}

fn state(task: &Value) -> String {
    let since = time(field(task, "since"));
    match field(task, "state") {
        "queued" => format!("queued since {since}"),
        "running" => format!("running since {since}"),
        "waiting-until" => format!("waiting until {}: no model could serve it", time(field(task, "until"))),
        "waiting-review" => {
            let due = task["due"].as_str().map(|due| format!(", due {}", time(due))).unwrap_or_default();
            format!("waits for a person ({}) since {since}{due}", field(task, "with"))
        }
        _ => match (field(task, "outcome"), field(&task["result"], "status")) {
            ("result", "") => "done: a result that the log does not hold any more".to_owned(),
            ("result", status) => format!("done: result, {status}"),
            ("dead-letter", _) => "done: dead letter".to_owned(),
            (other, _) => format!("done: {other}"),
        },
    }
}

fn result(result: &Value, out: &mut Vec<String>) {
    out.push(row("accepted", &time(field(result, "accepted_at"))));
    out.push(row("finished", &time(field(result, "finished_at"))));
    let by = &result["made_by"];
    if let Some(model) = by["model"].as_str() {
        let at = by["provider"].as_str().map(|p| format!(" at {p}")).unwrap_or_default();
        out.push(row("model", &format!("{model}{at}")));
    }
    let usage = &result["usage"];
    let cost = usage["cost"].as_f64().map_or("price unknown".to_owned(), |c| format!("cost {c:.6}"));
    let tokens = |name: &str| usage[name].as_u64().unwrap_or(0);
    if tokens("input_tokens") + tokens("output_tokens") > 0 {
        out.push(row(
            "used",
            &format!("{} in, {} out, {cost}", many(tokens("input_tokens"), "token"), tokens("output_tokens")),
        ));
    }
    if let Some(reviewed) = result["reviewed"].as_object() {
        let text = |name: &str| reviewed.get(name).and_then(Value::as_str).unwrap_or_default();
        let why = if text("reason").is_empty() { String::new() } else { format!(": {}", text("reason")) };
        out.push(row("review", &format!("{} by {}, {}{why}", text("action"), text("by"), time(text("at")))));
    }
    if result["late"].as_bool() == Some(true) {
        out.push(row("late", "finished after its deadline"));
    }
    confidence(&result["confidence"], out);
    out.push("answer".to_owned());
    out.push(pretty(&result["answer"], 2));
}

fn confidence(confidence: &Value, out: &mut Vec<String>) {
    let percent = |v: &Value| v["value"].as_f64().map(|c| format!("{:.0} %", c * 100.0));
    if let Some(overall) = percent(&confidence["overall"]) {
        let basis = field(&confidence["overall"], "basis");
        out.push(row("confidence", format!("{overall} {basis}").trim()));
    }
    for (name, value) in confidence["fields"].as_object().into_iter().flatten() {
        if let Some(value) = percent(value) {
            out.push(row("", &format!("{name}: {value}")));
        }
    }
}

fn dead_letter(letter: &Value, out: &mut Vec<String>) {
    out.push(row("reason", field(letter, "reason")));
    out.push(row("what", field(letter, "what")));
    if !field(letter, "detail").is_empty() {
        out.push(row("detail", field(letter, "detail")));
    }
    out.push(row("what to do", field(letter, "help")));
    out.push(row("dead letter", &format!("{}  (tidegate dead-letters show {0})", field(letter, "id"))));
}

fn review(review: &Value, out: &mut Vec<String>) {
    out.push(row("question", field(review, "question")));
    for why in review["why"].as_array().into_iter().flatten() {
        out.push(row("why", &reason(why)));
    }
    out.push(row("review", &format!("{}  (tidegate review show {0})", field(review, "id"))));
}

/// One trigger of a review item.
pub(super) fn reason(why: &Value) -> String {
    let place = why["field"].as_str().filter(|f| !f.is_empty()).map(|f| format!("{f}: ")).unwrap_or_default();
    format!("{place}{} ({})", field(why, "detail"), field(why, "reason"))
}

fn tries(task: &Value, out: &mut Vec<String>) {
    let tries = task["result"]["tries"].as_array().cloned().unwrap_or_default();
    let calls = task["calls"].as_array().cloned().unwrap_or_default();
    if !tries.is_empty() {
        out.push("tries".to_owned());
    }
    for each in &tries {
        out.push(super::text::wrap(&one_line(each), 2));
    }
    if !calls.is_empty() {
        out.push("calls".to_owned());
    }
    for call in &calls {
        let times = call["times"].as_u64().unwrap_or(0);
        let again = if times > 0 { format!(", bought again {}", many(times, "time")) } else { String::new() };
        out.push(super::text::wrap(&format!("{} {}{again}", field(call, "name"), field(call, "state")), 2));
    }
}

/// The fields of a flat object, in their order, without what is empty.
fn one_line(value: &Value) -> String {
    let Some(fields) = value.as_object() else { return value.to_string() };
    let one = |(name, value): (&String, &Value)| match value {
        Value::Null => None,
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => Some(format!("{name} {text}")),
        other => Some(format!("{name} {other}")),
    };
    fields.iter().filter_map(one).collect::<Vec<_>>().join(", ")
}

fn trail(task: &Value, out: &mut Vec<String>) {
    let notes = task["trail"].as_array().cloned().unwrap_or_default();
    if !notes.is_empty() {
        out.push("trail".to_owned());
    }
    for note in &notes {
        let clock = time(field(note, "at"));
        let detail = if field(note, "detail").is_empty() {
            String::new()
        } else {
            format!(": {}", field(note, "detail"))
        };
        let text = super::text::wrap(&format!("{}{detail}", field(note, "what")), 24);
        out.push(format!("  {clock:<22}{}", text.trim_start()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_story_says_what_became_of_it_and_fits_eighty_columns() {
        let task = json!({
            "key": "T-1", "kind": "ticket", "state": "done", "since": "2026-11-24T18:00:00Z", "generation": 1,
            "position": "tasks.ticket/3/17", "outcome": "result", "calls": [],
            "result": {
                "status": "edited", "accepted_at": "2026-11-24T18:00:00Z", "finished_at": "2026-11-24T18:01:00Z",
                "answer": { "text": "long ".repeat(60) }, "made_by": { "model": "large", "provider": "openai" },
                "usage": { "input_tokens": 10, "output_tokens": 2, "cost": null },
                "confidence": { "overall": { "value": 0.81, "basis": "uncalibrated" }, "fields": { "a": { "value": 0.5 } } },
                "reviewed": { "by": "ada", "at": "2026-11-24T18:01:00Z", "action": "edit", "reason": "wrong unit" },
                "tries": [{ "model": "large", "ended": "ok", "ms": 12, "error": null }],
            },
            "trail": [{ "at": "2026-11-24T18:00:00Z", "what": "admitted", "detail": "x ".repeat(70) }],
        });
        let said = story(&task);
        for part in [
            "done: result, edited",
            "edit by ada",
            "wrong unit",
            "81 % uncalibrated",
            "price unknown",
            "model large, ended ok, ms 12",
            "sent again    1 time",
        ] {
            assert!(said.contains(part), "{part} is missing:\n{said}");
        }
        assert!(said.lines().all(|l| l.chars().count() <= 80), "{said}");
    }

    #[test]
    fn a_waiting_task_says_for_whom_and_until_when() {
        let task = json!({
            "key": "T", "kind": "k", "state": "waiting-review", "since": "2026-11-24T18:00:00Z", "due": "2026-11-24T18:30:00Z",
            "with": "clinicians", "position": "p", "review": { "id": "ab12", "question": "dose: below the line", "why": [] },
        });
        let said = story(&task).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            said.contains(
                "waits for a person (clinicians) since 2026-11-24 18:00:00Z, due 2026-11-24 18:30:00Z"
            ),
            "{said}"
        );
        assert!(said.contains("tidegate review show ab12"), "{said}");
    }
}

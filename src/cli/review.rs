//! `tidegate review`: look at what waits for a person, and decide it.

mod edit;

use super::Global;
use super::client::{Client, Failed};
use super::show::reason;
use super::status::trim;
use super::text::{field, note, plain, pretty, row, say, say_json, short, table, time};
use crate::settings::Problems;
use anyhow::Context as _;
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// List what waits, the oldest first
    Ls {
        /// Only tasks of this kind
        #[arg(long)]
        kind: Option<String>,
        /// Only what is for this team
        #[arg(long)]
        team: Option<String>,
        /// How many at most
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// Show one: why it is here, the answer, the task
    Show {
        /// As `ls` prints it; a beginning that only one item has is enough
        id: String,
    },
    /// Publish the answer as it is
    Approve {
        id: String,
        #[command(flatten)]
        who: Who,
    },
    /// Publish a changed answer; without --set and --file, $EDITOR opens it
    Edit {
        id: String,
        /// Change one field: `dose.mg=5`, `items[0].name=tea`; `:=` takes JSON as it is written
        #[arg(long, value_name = "FIELD=VALUE")]
        set: Vec<String>,
        /// Take the whole answer from this file (`-` is standard input)
        #[arg(long)]
        file: Option<PathBuf>,
        /// Show the difference, say whether it would be taken, and publish nothing
        #[arg(long)]
        dry_run: bool,
        /// Publish it although it breaks rules of its kind; the published reason names them
        #[arg(long)]
        despite_rules: bool,
        #[command(flatten)]
        who: Who,
    },
    /// Publish that there is no answer, and why
    Reject {
        id: String,
        #[command(flatten)]
        who: Who,
    },
}

#[derive(clap::Args, Debug)]
struct Who {
    /// Who decides (default: the name you are logged in by, $USER)
    #[arg(long, env = "USER", hide_env = true)]
    by: Option<String>,
    /// Why
    #[arg(long)]
    reason: Option<String>,
}

impl Who {
    /// The decision without its answer.
    fn says(&self) -> Result<Value, Problems> {
        let by = self.by.as_deref().filter(|by| !by.trim().is_empty());
        let by = by.ok_or_else(|| {
            let what = "it is not known who decides: $USER is not set";
            Problems::whole("--by", what, "say it with --by NAME; it is published with the result")
        })?;
        Ok(json!({ "by": by, "reason": self.reason }))
    }
}

pub(super) async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let client = Client::new(global)?;
    match args.command {
        Command::Ls { kind, team, limit } => {
            list(&client, global, kind.as_deref(), team.as_deref(), limit).await
        }
        Command::Show { id } => {
            let item = client.get(&["v1", "review", &id], &[]).await?;
            if global.json {
                say_json(&item)
            } else {
                say(whole(&item))
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Approve { id, who } => decide(&client, global, &id, "approve", &who.says()?).await,
        Command::Reject { id, who } => {
            anyhow::ensure!(
                who.reason.is_some(),
                "a rejection needs --reason: it is published with the result"
            );
            decide(&client, global, &id, "reject", &who.says()?).await
        }
        Command::Edit { id, set, file, dry_run, despite_rules, who } => {
            // Before an editor opens.
            let mut body = who.says()?;
            let item = client.get(&["v1", "review", &id], &[]).await?;
            let before = item["proposed"]["answer"].clone();
            let after = edited(&before, &item, &set, file)?;
            let changes = edit::difference(&before, &after);
            if !global.json {
                changes.iter().for_each(|change| say(plain(change)));
            }
            if changes.is_empty() {
                anyhow::bail!(
                    "nothing is changed; `tidegate review approve {id}` publishes the answer as it is"
                );
            }
            body["answer"] = after;
            if despite_rules {
                body["despite_rules"] = true.into();
            }
            let id = field(&item, "id");
            if dry_run {
                body["dry_run"] = true.into();
                let judged = client.post(&["v1", "review", id, "edit"], &body).await;
                if judged.is_ok() && global.json {
                    say_json(&json!({ "would_publish": body["answer"], "changes": changes }));
                }
                return judged.map_or_else(|failed| refused(failed, global), |_| Ok(ExitCode::SUCCESS));
            }
            decide(&client, global, id, "edit", &body).await
        }
    }
}

async fn list(
    client: &Client,
    global: &Global,
    kind: Option<&str>,
    team: Option<&str>,
    limit: u32,
) -> anyhow::Result<ExitCode> {
    let limit = limit.to_string();
    let mut query = vec![("limit", limit.as_str())];
    query.extend(kind.map(|kind| ("kind", kind)));
    query.extend(team.map(|team| ("team", team)));
    let found = client.get(&["v1", "review"], &query).await?;
    let items = found["items"].as_array().cloned().unwrap_or_default();
    if global.json {
        items.iter().for_each(say_json);
    } else if items.is_empty() {
        say("no review waits");
    } else {
        say(lines(&items));
        let open = found["open"].as_u64().unwrap_or(0);
        if open > items.len() as u64 {
            say(format!("{open} wait in all"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn lines(items: &[Value]) -> String {
    let mut lines = table(&["id", "since (UTC)", "kind", "key", "why"]);
    for item in items {
        let since = time(field(item, "opened_at"));
        let id = field(item, "id");
        lines.add_row([
            plain(id.get(..10).unwrap_or(id)),
            since.get(5..16).unwrap_or(&since).to_owned(),
            short(field(item, "kind"), 12),
            short(field(item, "key"), 14),
            short(field(item, "question"), 60),
        ]);
    }
    trim(&lines.to_string())
}

fn whole(item: &Value) -> String {
    let about = &item["proposed"];
    let mut out = vec![super::text::wrap(field(item, "question"), 0), String::new()];
    out.push(row("review", field(item, "id")));
    out.push(row("task", &format!("{} of kind {}", field(about, "key"), field(about, "kind"))));
    for why in item["why"].as_array().into_iter().flatten() {
        out.push(row("why", &reason(why)));
    }
    for finding in item["findings"].as_array().into_iter().flatten() {
        out.push(row("finding", &format!("{}: {}", field(finding, "path"), field(finding, "message"))));
    }
    if let Some(due) = item["due_at"].as_i64() {
        out.push(row("due", &time(&crate::task::Timestamp(due).rfc3339())));
    }
    if let Some(team) = item["team"].as_str() {
        out.push(row("team", team));
    }
    out.push("task".to_owned());
    out.push(pretty(&item["payload"], 2));
    match item["answer_text"].as_str() {
        Some(text) => {
            out.push("what the model said".to_owned());
            out.push(super::text::wrap(text, 2));
        }
        None => {
            out.push("answer".to_owned());
            out.push(pretty(&about["answer"], 2));
        }
    }
    let id = field(item, "id");
    let id = plain(id.get(..10).unwrap_or(id));
    out.push(format!("\ntidegate review approve {id}\ntidegate review edit {id} --set FIELD=VALUE\ntidegate review reject {id} --reason TEXT"));
    out.join("\n")
}

/// The whole answer as the person wants it.
fn edited(before: &Value, item: &Value, set: &[String], file: Option<PathBuf>) -> anyhow::Result<Value> {
    let mut answer = match file {
        Some(path) => edit::from_file(&path)?,
        None if set.is_empty() => edit::in_editor(before, item)?,
        None => before.clone(),
    };
    if answer.is_null() {
        answer = Value::Object(Map::new());
    }
    for change in set {
        edit::set(&mut answer, change).with_context(|| format!("--set {change}"))?;
    }
    Ok(answer)
}

/// Finds the one item that `id` begins, open or decided, and decides that one by its whole id.
async fn decide(
    client: &Client,
    global: &Global,
    id: &str,
    action: &str,
    body: &Value,
) -> anyhow::Result<ExitCode> {
    let sent = async {
        let item = client.get(&["v1", "review", id], &[]).await?;
        client.post(&["v1", "review", field(&item, "id"), action], body).await
    };
    let told = match sent.await {
        Ok(told) => told,
        Err(failed) => return refused(failed, global),
    };
    if global.json {
        say_json(&told);
    } else if field(&told, "ruling") == "pending" {
        say("written down; nobody has ruled on it yet: look again with `tidegate show`");
    } else {
        say(format!(
            "{} {}: task {} has its result",
            plain(field(&told, "status")),
            plain(field(&told, "item")),
            plain(field(&told, "key"))
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// Says why a decision is not taken, field by field.
fn refused(failed: Failed, global: &Global) -> anyhow::Result<ExitCode> {
    let Failed::Refused { message, help, error, .. } = failed else { return Err(failed.into()) };
    if global.json {
        say_json(&json!({ "error": error }));
        return Ok(ExitCode::FAILURE);
    }
    note(format!("error: {message}"));
    for wrong in error["fields"].as_array().into_iter().flatten() {
        let place = match field(wrong, "field") {
            // It is about the whole answer.
            "" => String::new(),
            name => format!("{}: ", plain(name)),
        };
        note(format!("  {place}{}", plain(field(wrong, "message"))));
    }
    note(format!("  {help}"));
    Ok(ExitCode::FAILURE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_items_fit_eighty_columns() {
        let item = json!({
            "id": "0123456789abcdef0123", "question": "dose: 81 %, below the line ".repeat(8), "kind": "note", "key": "k".repeat(90),
            "opened_at": "2026-11-24T18:40:31Z", "due_at": 1_764_000_000_000_i64, "team": "clinicians",
            "why": [{ "reason": "TG-below-line", "field": "dose", "detail": "81 % is below the line" }],
            "findings": [{ "path": "dose", "message": "too high" }], "payload": { "text": "x ".repeat(200) },
            "proposed": { "key": "k", "kind": "note", "answer": { "dose": 5 } },
        });
        let said = lines(std::slice::from_ref(&item));
        let shown = whole(&item);
        assert!(said.contains("0123456789") && !said.contains("0123456789a"), "{said}");
        assert!(shown.contains("dose: 81 % is below the line (TG-below-line)"), "{shown}");
        assert!(shown.contains("tidegate review approve 0123456789"), "{shown}");
        for line in said.lines().chain(shown.lines()) {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}

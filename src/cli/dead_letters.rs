//! `tidegate dead-letters`: look at dead letters and send them again.

use super::Global;
use super::client::Client;
use super::status::trim;
use super::text::{field, many, number, plain, row, say, say_json, short, table, time, wrap};
use serde_json::{Value, json};
use std::io::Write as _;
use std::process::ExitCode;

#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// List them, the newest first
    Ls {
        #[command(flatten)]
        which: Which,
        /// How many at most
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// Show one with its value
    Show {
        /// As `ls` prints it
        id: String,
        /// Only the value, byte for byte
        #[arg(long)]
        raw: bool,
    },
    /// Send them again: each becomes a task of its key once more, without its deadline
    ///
    /// Left out, and counted: those that were sent again before, and those whose key belongs to another
    /// payload, which would conflict again. So are those that never became a task and would be refused
    /// again: mend the kind or the record first.
    ///
    /// A redriven task does not keep the `deadline` it was sent with: that is mostly over by then, and
    /// the task would be buried for it at once. The `deadline` of its kind, where the configuration sets
    /// one, counts from the redrive.
    Redrive {
        /// One, as `ls` prints it
        #[arg(conflicts_with_all = ["key", "reason", "kind"], required_unless_present_any = ["key", "reason", "kind"])]
        id: Option<String>,
        #[command(flatten)]
        which: Which,
        /// Say what would be sent, and send nothing
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(clap::Args, Debug)]
struct Which {
    /// Those of this key
    #[arg(long)]
    key: Option<String>,
    /// Those with this reason (`input-refused`, with or without `TG-`)
    #[arg(long)]
    reason: Option<String>,
    /// Those of this kind
    #[arg(long)]
    kind: Option<String>,
}

pub(super) async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let client = Client::new(global)?;
    match args.command {
        Command::Ls { which, limit } => list(&client, global, &which, limit).await,
        Command::Show { id, raw: true } => {
            let bytes = client.bytes(&["v1", "dead-letters", &id, "value"]).await?;
            std::io::stdout().lock().write_all(&bytes)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Show { id, raw: false } => {
            let letter = client.get(&["v1", "dead-letters", &id], &[]).await?;
            if global.json {
                say_json(&letter)
            } else {
                say(whole(&letter))
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Redrive { id, which, dry_run } => {
            let asked = json!({ "id": id, "key": which.key, "reason": which.reason, "kind": which.kind, "dry_run": dry_run });
            let told = client.post(&["v1", "dead-letters", "redrive"], &asked).await?;
            if global.json {
                say_json(&told)
            } else {
                say(redriven(&told, dry_run))
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn list(client: &Client, global: &Global, which: &Which, limit: u32) -> anyhow::Result<ExitCode> {
    let limit = limit.to_string();
    let mut query = vec![("limit", limit.as_str())];
    query.extend(which.key.as_deref().map(|key| ("key", key)));
    query.extend(which.reason.as_deref().map(|reason| ("reason", reason)));
    query.extend(which.kind.as_deref().map(|kind| ("kind", kind)));
    let found = client.get(&["v1", "dead-letters"], &query).await?;
    let letters = found["dead_letters"].as_array().cloned().unwrap_or_default();
    if global.json {
        letters.iter().for_each(say_json);
        return Ok(ExitCode::SUCCESS);
    }
    if letters.is_empty() {
        say("no dead letters");
        return Ok(ExitCode::SUCCESS);
    }
    say(lines(&letters));
    if found["more"].as_bool() == Some(true) {
        say("there are more: narrow them down with --key, --reason or --kind, or raise --limit");
    }
    Ok(ExitCode::SUCCESS)
}

/// What became of them stands in a column of its own, where anything did.
fn lines(letters: &[Value]) -> String {
    let since = letters.iter().any(|letter| letter["left"].is_string());
    let mut header = vec!["id", "at (UTC)", "kind", "key", "reason"];
    header.extend(since.then_some("since then"));
    let (kind, key) = if since { (10, 14) } else { (14, 22) };
    let mut lines = table(&header);
    for letter in letters {
        let at = time(field(letter, "at"));
        let at = at.get(5..16).unwrap_or(&at).to_owned();
        let mut row = vec![
            plain(field(letter, "id")),
            at,
            short(field(letter, "kind"), kind),
            short(field(letter, "key"), key),
            short(field(letter, "reason"), 22),
        ];
        let became = match (letter["redriven"].as_bool(), letter["left"].is_string()) {
            (Some(true), _) => "sent again",
            (_, true) if letter["refused_again"].as_bool() == Some(true) => "still refused",
            (_, true) => "key taken",
            _ => "",
        };
        row.extend(since.then(|| became.to_owned()));
        lines.add_row(row);
    }
    trim(&lines.to_string())
}

fn whole(letter: &Value) -> String {
    let mut out = vec![format!("Dead letter {}", plain(field(letter, "id")))];
    for (name, label) in [
        ("kind", "kind"),
        ("key", "key"),
        ("tenant", "tenant"),
        ("reason", "reason"),
        ("what", "what"),
        ("detail", "detail"),
        ("help", "what to do"),
    ] {
        if !field(letter, name).is_empty() {
            out.push(row(label, field(letter, name)));
        }
    }
    out.push(row("at", &time(field(letter, "at"))));
    out.push(row("came from", field(letter, "source")));
    let tries = letter["tries"].as_u64().unwrap_or(0);
    if tries > 0 {
        out.push(row("tries", &format!("{tries}, the last: {}", field(letter, "last_error"))));
    }
    for note in letter["trail"].as_array().into_iter().flatten() {
        out.push(row(
            "",
            &format!("{} {} {}", time(field(note, "at")), field(note, "what"), field(note, "detail")),
        ));
    }
    let bytes = letter["bytes"].as_u64().unwrap_or(0);
    match letter["value"].as_str() {
        Some(text) => {
            out.push(format!("value ({})", many(bytes, "byte")));
            out.push(wrap(&text.chars().take(4_000).collect::<String>(), 2));
        }
        None => out.push(row(
            "value",
            &format!("{}, not text; `--raw` prints them as they are", many(bytes, "byte")),
        )),
    }
    match (letter["redriven"].as_bool(), letter["left"].as_str()) {
        (Some(true), _) => out.push(row("since then", "sent again")),
        (_, Some(why)) => out.push(row("", &format!("a redrive leaves it: {why}"))),
        (_, None) => out.push(format!(
            "\nto send it again: tidegate dead-letters redrive {}",
            plain(field(letter, "id"))
        )),
    }
    out.join("\n")
}

fn redriven(told: &Value, dry_run: bool) -> String {
    let letters = told["dead_letters"].as_array().cloned().unwrap_or_default();
    let count = told[if dry_run { "would_redrive" } else { "redriven" }].as_u64().unwrap_or(0);
    let mut out = Vec::new();
    for letter in letters.iter().take(20) {
        let what = match letter["left"].as_str() {
            Some(why) => format!("left: {why}"),
            None => field(letter, "reason").to_owned(),
        };
        out.push(short(
            &format!("{:<8} {}/{}  {what}", field(letter, "id"), field(letter, "kind"), field(letter, "key")),
            80,
        ));
    }
    if letters.len() > 20 {
        out.push(format!("… and {}", many(letters.len() as u64 - 20, "other")));
    }
    let verb = if dry_run { "would be sent again" } else { "sent again" };
    let left = told["left"].as_u64().unwrap_or(0);
    let left = if left > 0 { format!(", {left} left as they are") } else { String::new() };
    out.push(match letters.len() {
        0 => "no dead letter fits".to_owned(),
        _ => format!("{} {verb}{left}", many(count, "dead letter")),
    });
    let because: Vec<&Value> = told["left_because"].as_array().into_iter().flatten().collect();
    for because in because.iter().take(20) {
        let count = number(because["count"].as_u64().unwrap_or(0));
        out.push(wrap(&format!("{count}: {}", field(because, "why")), 2));
    }
    if because.len() > 20 {
        out.push(format!("  … and {}; `--json` has them", many(because.len() as u64 - 20, "other reason")));
    }
    if told["more"].as_bool() == Some(true) {
        out.push("there are more: run it again".to_owned());
    }
    out.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_letters_fit_eighty_columns_and_say_what_to_do() {
        let letter = json!({
            "id": "3-17", "kind": "a-kind-with-a-long-name", "key": "k".repeat(200), "reason": "TG-input-refused", "detail": "d ".repeat(100),
            "what": "w", "help": "Mend the producer.", "at": "2026-11-24T18:40:31Z", "source": "tasks.t/1/2", "tries": 2,
            "last_error": "timeout", "bytes": 3, "value": "{\"a\"", "trail": [],
        });
        let said = lines(std::slice::from_ref(&letter));
        assert!(said.contains("3-17") && said.contains("TG-input-refused"), "{said}");
        let shown = whole(&letter);
        assert!(shown.contains("Mend the producer.") && shown.contains("redrive 3-17"), "{shown}");
        let told = redriven(
            &json!({
                "would_redrive": 1, "left": 1,
                "dead_letters": [letter.clone(), { "id": "1-1", "left": "it was sent again before" }],
                "left_because": [{ "why": "it was sent again before", "count": 1 }],
            }),
            true,
        );
        let sum = "1 dead letter would be sent again, 1 left as they are\n  1: it was sent again before";
        assert!(told.ends_with(sum), "{told}");
        assert!(!said.contains("since then"), "nothing became of it:\n{said}");
        let with = |redriven: bool| {
            let mut letter = letter.clone();
            letter["redriven"] = redriven.into();
            letter["left"] = "it would conflict again: submit it under a new key".into();
            letter
        };
        let mut refused = with(false);
        refused["refused_again"] = true.into();
        let marked = lines(&[letter.clone(), with(true), with(false), refused]);
        let became: Vec<&str> = marked.lines().map(|l| l.rsplit("  ").next().unwrap().trim()).collect();
        assert_eq!(
            became,
            ["since then", "TG-input-refused", "sent again", "key taken", "still refused"],
            "{marked}"
        );
        let left = whole(&with(false));
        let said_once = left.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            said_once.ends_with("a redrive leaves it: it would conflict again: submit it under a new key"),
            "{left}"
        );
        let sent = whole(&with(true));
        assert!(sent.ends_with("\nsince then    sent again"), "{sent}");
        for shown in [&left, &sent] {
            assert!(!shown.contains("dead-letters redrive") && !shown.contains("not sent"), "{shown}");
        }
        let said = format!("{said}\n{marked}\n{left}");
        for line in said.lines().chain(shown.lines()).chain(told.lines()) {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}

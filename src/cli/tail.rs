//! `tidegate tail`: results, review items or dead letters as they come.

use super::Global;
use super::client::{Client, Event, Events};
use super::text::{field, note, plain, say, short, time, unread};
use serde_json::{Value, json};
use std::process::ExitCode;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// What to follow
    what: What,
    /// Begin with what is already there
    #[arg(long, value_name = "start|now", default_value = "now")]
    from: Begin,
    /// Only tasks of this kind
    #[arg(long)]
    kind: Option<String>,
    /// Only the task with this key
    #[arg(long)]
    key: Option<String>,
}

#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    Results,
    Review,
    DeadLetters,
}

#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Begin {
    Start,
    Now,
}

/// Until it is stopped; or, as with [`say`], until who reads it has seen enough.
pub(super) async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    tokio::select! {
        failed = follow(args, global) => failed,
        () = unread() => Ok(ExitCode::SUCCESS),
    }
}

async fn follow(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let path: &[&str] = match args.what {
        What::Results => &["v1", "results"],
        What::Review => &["v1", "review", "events"],
        What::DeadLetters => &["v1", "dead-letters", "events"],
    };
    let mut query = vec![("from", if args.from == Begin::Start { "start" } else { "now" })];
    query.extend(args.kind.as_deref().map(|kind| ("kind", kind)));
    query.extend(args.key.as_deref().map(|key| ("key", key)));
    let client = Client::new(global)?;
    let mut events = Events::open(&client, path, &query).await?;
    loop {
        let event = events.next(|failed| note(format!("{}; trying again", failed.what()))).await?;
        say(if global.json { as_json(&event) } else { line(&event) });
    }
}

fn as_json(event: &Event) -> String {
    let data: Value = serde_json::from_str(&event.data).unwrap_or(Value::Null);
    json!({ "event": event.name, "data": data }).to_string()
}

/// One event in one line of at most 80 columns.
pub(super) fn line(event: &Event) -> String {
    let data: Value = serde_json::from_str(&event.data).unwrap_or(Value::Null);
    let (at, what, more) = match &*event.name {
        "result" => (field(&data, "finished_at"), field(&data, "status"), data["answer"].to_string()),
        "dead-letter" => (field(&data, "at"), field(&data, "reason"), field(&data, "detail").to_owned()),
        "opened" => (field(&data, "opened_at"), "review", field(&data, "question").to_owned()),
        "decided" => return format!("review {} is decided", plain(field(&data, "id"))),
        _ => return plain(&event.data),
    };
    let clock = time(at);
    let clock = clock.get(11..).unwrap_or_default();
    let task = format!("{}/{}", field(&data, "kind"), field(&data, "key"));
    short(&format!("{clock} {:<24} {what:<12} {more}", short(&task, 24)), super::text::WIDTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_is_one_line_of_eighty_columns() {
        let event = |name: &str, data: Value| Event { name: name.to_owned(), data: data.to_string() };
        let result = json!({ "kind": "ticket", "key": "a\n1", "status": "accepted", "answer": { "x": "y".repeat(200) }, "finished_at": "2026-11-24T18:40:31.5Z" });
        let said = line(&event("result", result));
        assert!(said.starts_with("18:40:31Z ticket/a\\u{a}1"), "{said}");
        assert_eq!(said.chars().count(), 80);
        assert_eq!(line(&event("decided", json!({ "id": "ab" }))), "review ab is decided");
    }
}

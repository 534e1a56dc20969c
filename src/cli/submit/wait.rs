//! Waits for the submitted tasks: by events, and where events leave a gap by asking.

use super::Submitter;
use super::resting::Place;
use crate::cli::client::{Client, Event, Events, Failed};
use crate::cli::tail;
use crate::cli::text::{field, many, note, plain, say, say_json};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Asked after when nothing came for this long: tasks that rested before they were sent, and tasks
/// whose outcome belongs to a record of somebody else.
const SILENCE: Duration = Duration::from_secs(1);
/// Tasks asked after at once; the others get their turn.
const ASK: usize = 200;

/// Nothing moved for this long: then people are told why,
const PUZZLING: Duration = Duration::from_secs(5);
/// and again so often, for the reason may change.
const SELDOM: Duration = Duration::from_secs(30);

/// How long nothing has moved, and when to say why.
struct Still {
    tell_at: Instant,
}

impl Still {
    fn since(now: Instant) -> Still {
        Still { tell_at: now + PUZZLING }
    }

    fn is_puzzling(&mut self, now: Instant) -> bool {
        let due = now >= self.tell_at;
        if due {
            self.tell_at = now + SELDOM;
        }
        due
    }
}

/// Why tasks have no place yet, in the processor's own sentence.
fn why(left: usize, status: Result<&Value, &Failed>) -> String {
    let left = many(left as u64, "task");
    match status {
        Ok(status) => format!("{left} under way. {}", plain(field(status, "sentence"))),
        Err(failed) => format!("{left} under way: {}; waiting for it", failed.what()),
    }
}

pub(super) struct Waiting {
    results: Events,
    reviews: Events,
    dead_letters: Events,
}

impl Waiting {
    pub(super) async fn open(client: &Client, kind: &str) -> Result<Waiting, Failed> {
        let query = [("from", "now"), ("kind", kind)];
        Ok(Waiting {
            results: Events::open(client, &["v1", "results"], &query).await?,
            reviews: Events::open(client, &["v1", "review", "events"], &query).await?,
            dead_letters: Events::open(client, &["v1", "dead-letters", "events"], &query).await?,
        })
    }

    /// Takes what is there, without waiting: only between batches, so that no event comes before its task.
    pub(super) async fn drain(&mut self, job: &mut Submitter<'_>) -> anyhow::Result<()> {
        while let Ok(event) = tokio::time::timeout(Duration::ZERO, self.next()).await {
            take(job, &event?);
        }
        Ok(())
    }

    /// Until all have their place.
    pub(super) async fn rest(&mut self, job: &mut Submitter<'_>) -> anyhow::Result<()> {
        let mut still = Still::since(Instant::now());
        while job.resting.left() > 0 {
            let before = job.resting.left();
            match tokio::time::timeout(SILENCE, self.next()).await {
                Ok(event) => take(job, &event?),
                Err(_) => ask(job).await?,
            }
            if job.resting.left() < before {
                still = Still::since(Instant::now());
                job.bar.set_message("");
            } else if !job.bar.is_hidden() && still.is_puzzling(Instant::now()) {
                let status = job.client.get(&["v1", "status"], &[]).await;
                job.bar.set_message(why(job.resting.left(), status.as_ref()));
            }
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<Event, Failed> {
        let lost = |failed: &Failed| note(format!("{}; trying again", failed.what()));
        tokio::select! {
            event = self.results.next(lost) => event,
            event = self.reviews.next(lost) => event,
            event = self.dead_letters.next(lost) => event,
        }
    }
}

fn take(job: &mut Submitter<'_>, event: &Event) {
    let place = match &*event.name {
        "result" => Place::Result,
        "opened" => Place::Review,
        "dead-letter" => Place::DeadLetter,
        _ => return,
    };
    let data: Value = serde_json::from_str(&event.data).unwrap_or(Value::Null);
    tell(job, place, &data, event);
}

fn tell(job: &mut Submitter<'_>, place: Place, data: &Value, event: &Event) {
    let Some(line) = job.resting.arrive(place, data) else { return };
    if job.global.json {
        let name = match place {
            Place::Result => "result",
            Place::Review => "review",
            Place::DeadLetter => "dead-letter",
        };
        say_json(&json!({ "line": line, "place": name, "key": data["key"], "data": data }));
    } else {
        job.bar.suspend(|| say(tail::line(event)));
    }
}

async fn ask(job: &mut Submitter<'_>) -> anyhow::Result<()> {
    for key in job.resting.some(ASK) {
        let mut query = vec![("kind", job.args.kind.as_str()), ("key", key.as_str())];
        query.extend(job.args.tenant.as_deref().map(|tenant| ("tenant", tenant)));
        let task = match job.client.get(&["v1", "tasks"], &query).await {
            Ok(task) => task,
            // Not admitted yet, or the processor is away: asked again.
            Err(failed) if failed.passes() => return Ok(()),
            Err(Failed::Refused { status: 404, .. }) => continue,
            Err(failed) => return Err(failed.into()),
        };
        let (place, name, data) = match (field(&task, "state"), field(&task, "outcome")) {
            ("waiting-review", _) => (Place::Review, "opened", about(&task, &task["review"])),
            ("done", "dead-letter") => (Place::DeadLetter, "dead-letter", about(&task, &task["dead_letter"])),
            ("done", _) => (Place::Result, "result", about(&task, &task["result"])),
            _ => continue,
        };
        let event = Event { name: name.to_owned(), data: data.to_string() };
        tell(job, place, &data, &event);
    }
    Ok(())
}

/// As an event would have said it.
fn about(task: &Value, what: &Value) -> Value {
    let mut about = if what.is_object() { what.clone() } else { json!({}) };
    for name in ["kind", "key", "tenant"] {
        if !task[name].is_null() {
            about[name] = task[name].clone();
        }
    }
    about
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_is_told_why_after_five_seconds_and_then_seldom() {
        let began = Instant::now();
        let mut still = Still::since(began);
        let told: Vec<u64> =
            (0..100).filter(|s| still.is_puzzling(began + Duration::from_secs(*s))).collect();
        assert_eq!(told, [5, 35, 65, 95]);
        let held = json!({ "sentence": "Intake of ticket holds: no model\u{1b}[2J can serve." });
        assert_eq!(
            why(1, Ok(&held)),
            "1 task under way. Intake of ticket holds: no model\\u{1b}[2J can serve."
        );
        let away = Failed::NoAnswer { url: "http://127.0.0.1:1".to_owned(), why: "connection refused" };
        let said = "3 tasks under way: no processor answers at http://127.0.0.1:1 (connection refused); waiting for it";
        assert_eq!(why(3, Err(&away)), said);
    }
}

//! What the demo sends: invented support tickets, refunds and receipts, and when each is sent.
//!
//! Made from parts by chance that repeats with the seed; pure.

use super::books::{Id, Meant};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use std::time::Duration;

pub(super) const KINDS: [&str; 3] = ["ticket", "refund", "receipt"];
/// Requests, evenly over the time in which tasks come in.
const BATCHES: usize = 40;
const EVERY: Duration = Duration::from_millis(550);
/// Tasks in one batch.
const TASKS: usize = 8;
/// In which batch something bad is sent.
const CONFLICTS: [usize; 2] = [10, 25];
const POISON: [usize; 2] = [6, 21];
/// Batches with a ticket that no model's window holds.
const WHOLE_LOGS: [usize; 2] = [8, 28];
/// Of the log file that is pasted into a ticket: beyond both models' windows.
const LOG_LINES: usize = 4_000;

/// One record to send.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Sent {
    pub(super) id: Id,
    pub(super) meant: Meant,
    pub(super) body: Body,
}

#[derive(Clone, PartialEq, Debug)]
pub(super) enum Body {
    Payload(Value),
    /// Put on the kind's topic as it is.
    Raw(String),
}

/// Records that are sent together, after `at` from the beginning.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Batch {
    pub(super) at: Duration,
    pub(super) records: Vec<Sent>,
}

const PRODUCTS: [&str; 6] = ["kettle", "desk lamp", "travel bag", "headphones", "garden hose", "wall clock"];
const OPENINGS: [&str; 5] = ["Hello,", "Good morning,", "Hi there,", "Dear team,", "To whom it may concern:"];
const QUESTIONS: [&str; 10] = [
    "I was charged twice for my {p}, please look at invoice and payment.",
    "the app crashes whenever I open the page of the {p}.",
    "how do I change the delivery address for my {p}?",
    "the manual of the {p} is in a language that I do not read.",
    "your shop shows an error when I pay for the {p}.",
    "where can I find the warranty card of the {p}?",
    "the price of the {p} on my receipt is not the one you advertised.",
    "the {p} arrived, thank you; the box was a little large.",
    "the screen stays blank after I put the {p} in the basket.",
    "is it possible to have the {p} in green?",
];
const REASONS: [&str; 5] = [
    "the {p} arrived damaged.",
    "you sent the wrong {p}.",
    "the {p} never came.",
    "I do not like the colour of the {p}.",
    "I have found the {p} cheaper elsewhere.",
];
const HURRIES: [&str; 3] = ["This is urgent.", "Please answer today.", "I need it right now."];
/// What the scenario answers badly, and how many tickets in a hundred carry it.
const MARKS: [(&str, u32); 5] =
    [("#malformed", 4), ("#prose", 3), ("#unsure", 4), ("#broken", 1), ("#refuse", 1)];
/// Copies in a hundred.
const COPIES: u32 = 5;

/// Everything that is sent, in order. The same seed gives the same.
pub(super) fn plan(seed: u64) -> Vec<Batch> {
    let mut maker = Maker { rng: StdRng::seed_from_u64(seed), keys: 0, made: Vec::new() };
    let mut at = Duration::ZERO;
    let mut batches = Vec::new();
    for n in 0..BATCHES {
        let mut records: Vec<Sent> = (0..TASKS).map(|_| maker.task()).collect();
        records.extend((0..TASKS).filter_map(|_| maker.copy()));
        if WHOLE_LOGS.contains(&n) {
            records.push(maker.whole_log());
        }
        maker.made.extend(records.iter().filter(|r| r.meant == Meant::Task).cloned());
        batches.push(Batch { at, records });
        if CONFLICTS.contains(&n) {
            batches.push(Batch { at, records: vec![maker.conflict()] });
        }
        if let Some(which) = POISON.iter().position(|p| *p == n) {
            batches.push(Batch { at, records: vec![poison(which)] });
        }
        at += EVERY;
    }
    batches
}

struct Maker {
    rng: StdRng,
    keys: u32,
    made: Vec<Sent>,
}

impl Maker {
    fn chance(&mut self, in_hundred: u32) -> bool {
        self.rng.random_range(0..100) < in_hundred
    }

    fn one<'p>(&mut self, of: &[&'p str]) -> &'p str {
        // None of the lists is empty, and the index is below its length.
        of[self.rng.random_range(0..of.len())]
    }

    fn number(&mut self) -> u32 {
        self.rng.random_range(10_000..100_000)
    }

    fn task(&mut self) -> Sent {
        match self.rng.random_range(0..100) {
            0..50 => self.ticket(),
            50..70 => self.refund(),
            _ => self.receipt(),
        }
    }

    /// A key that no other task has.
    fn key(&mut self, letter: &str) -> String {
        self.keys += 1;
        format!("{letter}-{:04}", self.keys)
    }

    fn sent(kind: &str, key: String, mut payload: Value) -> Sent {
        payload["id"] = key.clone().into();
        Sent { id: (kind.to_owned(), key), meant: Meant::Task, body: Body::Payload(payload) }
    }

    fn ticket(&mut self) -> Sent {
        let product = self.one(&PRODUCTS);
        let mut text = format!("{} {}", self.one(&OPENINGS), self.one(&QUESTIONS).replace("{p}", product));
        if self.chance(60) {
            text.push_str(&format!(" My order is no. A-{}.", self.number()));
        }
        if self.chance(25) {
            text.push_str(&format!(" {}", self.one(&HURRIES)));
        }
        let mut draw = self.rng.random_range(0..100);
        for (mark, share) in MARKS {
            if draw < share {
                text.push_str(&format!(" {mark}"));
                break;
            }
            draw -= share;
        }
        let key = self.key("T");
        Self::sent("ticket", key, json!({ "text": text }))
    }

    fn refund(&mut self) -> Sent {
        let product = self.one(&PRODUCTS);
        let (opening, reason) = (self.one(&OPENINGS), self.one(&REASONS).replace("{p}", product));
        let mut text = format!("{opening} I want my money back for order A-{}: {reason}", self.number());
        if self.chance(8) {
            text.push_str(" #unsure");
        }
        // Beyond 30 days a person decides what is granted.
        let days = if self.chance(15) { self.rng.random_range(31..90) } else { self.rng.random_range(1..31) };
        let key = self.key("R");
        Self::sent("refund", key, json!({ "text": text, "days": days }))
    }

    fn receipt(&mut self) -> Sent {
        let order = format!("A-{}", self.number());
        let cents = self.rng.random_range(500..20_000);
        let key = self.key("P");
        Self::sent("receipt", key, json!({ "order_id": order, "cents": cents }))
    }

    /// A ticket with a whole log file pasted in: a task, and more than any model can read.
    fn whole_log(&mut self) -> Sent {
        let lines: String =
            (0..LOG_LINES).map(|n| format!("line {n}: the shop said nothing new\n")).collect();
        let key = self.key("T");
        Self::sent("ticket", key, json!({ "text": format!("Here is my log:\n{lines}") }))
    }

    /// Something sent before, once more; a producer that heard no answer does that.
    fn copy(&mut self) -> Option<Sent> {
        if !self.chance(COPIES) || self.made.is_empty() {
            return None;
        }
        let which = self.rng.random_range(0..self.made.len());
        Some(Sent { meant: Meant::Copy, ..self.made[which].clone() })
    }

    /// A key of the first batch, with another payload.
    fn conflict(&mut self) -> Sent {
        let first = self.rng.random_range(0..TASKS);
        let id = self.made[first].id.clone();
        let cents = self.rng.random_range(20_001..30_000);
        let text = "another text under a key that is taken";
        let payload = json!({ "id": id.1, "text": text, "days": 1, "order_id": "A-1", "cents": cents });
        let fields: &[&str] = match id.0.as_str() {
            "ticket" => &["id", "text"],
            "refund" => &["id", "text", "days"],
            _ => &["id", "order_id", "cents"],
        };
        let payload = fields.iter().map(|f| ((*f).to_owned(), payload[*f].clone())).collect();
        Sent { id, meant: Meant::Bad, body: Body::Payload(Value::Object(payload)) }
    }
}

/// Bytes that are no JSON, as a producer with a bug writes them.
fn poison(which: usize) -> Sent {
    let id = ("ticket".to_owned(), format!("poison-{which}"));
    Sent { id, meant: Meant::Bad, body: Body::Raw("{\"id\": \"T-1\", \"text\": ".to_owned()) }
}

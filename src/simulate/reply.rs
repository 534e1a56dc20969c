//! An answer and a fault as a reply: status, headers, and pieces in time. Pure: waits are data here.

use super::conversation::Asked;
use super::faults::{Fault, Trouble};
use super::{anthropic, openai};
use bytes::Bytes;
use serde_json::Value;
use std::time::Duration;

/// Pieces of a streamed answer: enough to be one, few enough to be cheap by the thousand.
const PIECES: usize = 8;
/// Pieces of a dripping answer; a longer one drips more characters at a time.
const DRIPS_MAX: usize = 2_000;
/// Between drips where the rule does not say.
const DRIP: Duration = Duration::from_millis(500);
/// When to come back, where a dialect has to say it and the rule does not.
const ONE_SECOND: Duration = Duration::from_secs(1);
/// A long answer: twice what Tidegate takes of any answer.
const LONG: usize = 2 * crate::validate::ANSWER_MAX;
const LONG_PIECE: usize = 16 * 1024;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Dialect {
    OpenAi,
    Anthropic,
}

/// What the finish signal says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ending {
    Said,
    Refused,
    Cut,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Usage {
    pub(super) input: usize,
    pub(super) output: usize,
}

/// How the connection goes on after the last piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum After {
    End,
    Break,
    Silence,
}

#[derive(Clone, PartialEq, Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    pub(super) content_type: &'static str,
    /// How long to wait before each piece, and the piece.
    pub(super) pieces: Vec<(Duration, Bytes)>,
    pub(super) after: After,
}

/// When the first and the last token come, from the request on.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Times {
    pub(super) first: Duration,
    pub(super) total: Duration,
}

const JSON: &str = "application/json";

/// An error reply, worded as each provider words it.
pub(super) fn error(dialect: Dialect, status: u16, message: &str) -> Reply {
    let body = match dialect {
        Dialect::OpenAi => openai::error(status, message),
        Dialect::Anthropic => anthropic::error(status, message),
    };
    // 402 stands for a spend cap, which both providers send as 429.
    let status = if status == 402 { 429 } else { status };
    let pieces = vec![(Duration::ZERO, Bytes::from(body.to_string()))];
    Reply { status, retry_after: None, content_type: JSON, pieces, after: After::End }
}

pub(super) fn unknown_model(dialect: Dialect, model: &str) -> Reply {
    error(dialect, 404, &format!("The model `{model}` does not exist or you do not have access to it"))
}

/// The reply to `asked`; `answer` is what a well model says.
pub(super) fn reply(
    dialect: Dialect,
    asked: &Asked,
    answer: &Value,
    trouble: Option<Trouble>,
    times: Times,
) -> Reply {
    let fault = trouble.map(|t| t.fault);
    let refused = |status, message: &str| {
        let hint = trouble.and_then(|t| t.retry_after);
        Reply { retry_after: hint, ..error(dialect, status, message) }
    };
    match fault {
        Some(Fault::RateLimited) => {
            let reply = refused(429, "Rate limit reached, slow down");
            // Anthropic says when to come back; its 429 without that is a spend cap.
            let hint = reply.retry_after.or((dialect == Dialect::Anthropic).then_some(ONE_SECOND));
            Reply { retry_after: hint, ..reply }
        }
        Some(Fault::ServerError) => refused(500, "The server had an error"),
        Some(Fault::Unavailable) => refused(503, "The server is overloaded or not ready yet"),
        Some(Fault::Overloaded) => refused(529, "Overloaded"),
        Some(Fault::SpendCap) => error(dialect, 402, spend_cap(dialect)),
        Some(Fault::ModelNotFound) => unknown_model(dialect, &asked.model),
        Some(Fault::Unauthorized) => error(dialect, 401, "Incorrect API key provided"),
        _ => Saying { dialect, asked, times }.say(answer, trouble),
    }
}

fn spend_cap(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::OpenAi => "You exceeded your current quota, please check your plan and billing details",
        Dialect::Anthropic => "enforced_spend_limit_reached: this organisation has reached its spend limit",
    }
}

/// The text that a fault makes of an answer.
fn text_of(answer: &Value, fault: Option<Fault>) -> String {
    let plain = match answer {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match fault {
        Some(Fault::Malformed) => format!("{},", plain.strip_suffix('}').unwrap_or(&plain)),
        Some(Fault::Prose) => {
            format!("Certainly. This is what I found:\n\n{plain}\n\nLet me know if you need anything else.")
        }
        Some(Fault::Refusal) => "I cannot help with this request.".to_owned(),
        Some(Fault::WrongSchema) => match answer.clone() {
            Value::Object(mut fields) => {
                // `confidence` may be free to miss; the last field before it is not.
                let last = fields.keys().rev().find(|name| *name != "confidence").cloned();
                last.and_then(|name| fields.shift_remove(&name));
                Value::Object(fields).to_string()
            }
            other => other.to_string(),
        },
        Some(Fault::Cut) => half(&plain).to_owned(),
        _ => plain,
    }
}

fn half(text: &str) -> &str {
    let middle = (0..=text.len() / 2).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
    &text[..middle]
}

struct Saying<'a> {
    dialect: Dialect,
    asked: &'a Asked,
    times: Times,
}

impl Saying<'_> {
    fn say(&self, answer: &Value, trouble: Option<Trouble>) -> Reply {
        let fault = trouble.map(|t| t.fault);
        let text = text_of(answer, fault);
        let ending = match fault {
            Some(Fault::Refusal) => Ending::Refused,
            Some(Fault::Cut) => Ending::Cut,
            _ => Ending::Said,
        };
        let usage = Usage { input: self.asked.bytes.div_ceil(4), output: text.len().div_ceil(4) };
        let mut reply = if self.asked.stream {
            let drip =
                (fault == Some(Fault::SlowDrip)).then(|| trouble.and_then(|t| t.every).unwrap_or(DRIP));
            self.streamed(&text, ending, usage, drip)
        } else {
            self.at_once(&text, ending, usage)
        };
        match fault {
            Some(Fault::Silence) => {
                reply.pieces.clear();
                reply.after = After::Silence;
            }
            Some(Fault::Truncated) => truncate(&mut reply),
            Some(Fault::LongAnswer) => self.lengthen(&mut reply),
            _ => {}
        }
        reply
    }

    fn streamed(&self, text: &str, ending: Ending, usage: Usage, drip: Option<Duration>) -> Reply {
        let model = &self.asked.model;
        let characters: Vec<char> = text.chars().collect();
        let count =
            if drip.is_some() { DRIPS_MAX.min(characters.len()) } else { PIECES.min(characters.len()) };
        let chunk = characters.len().div_ceil(count.max(1)).max(1);
        let texts: Vec<String> = characters.chunks(chunk).map(|c| c.iter().collect()).collect();
        // The first piece comes at `first`, the last at `total`.
        let gaps = u32::try_from(texts.len().saturating_sub(1)).unwrap_or(u32::MAX).max(1);
        let gap = drip.unwrap_or(self.times.total.saturating_sub(self.times.first) / gaps);
        let opening = match self.dialect {
            Dialect::OpenAi => openai::opening(model),
            Dialect::Anthropic => anthropic::opening(model, usage),
        };
        let mut pieces = vec![(self.times.first, Bytes::from(opening))];
        for (i, text) in texts.iter().enumerate() {
            let wait = if i == 0 { Duration::ZERO } else { gap };
            pieces.push((wait, self.piece(text, ending)));
        }
        let closing = match self.dialect {
            Dialect::OpenAi => openai::closing(model, ending, self.asked.usage_wanted.then_some(usage)),
            Dialect::Anthropic => anthropic::closing(ending, usage),
        };
        pieces.push((Duration::ZERO, Bytes::from(closing)));
        Reply { status: 200, retry_after: None, content_type: "text/event-stream", pieces, after: After::End }
    }

    fn piece(&self, text: &str, ending: Ending) -> Bytes {
        Bytes::from(match self.dialect {
            Dialect::OpenAi => openai::piece(&self.asked.model, text, ending == Ending::Refused),
            Dialect::Anthropic => anthropic::piece(text),
        })
    }

    fn at_once(&self, text: &str, ending: Ending, usage: Usage) -> Reply {
        let model = &self.asked.model;
        let body = match self.dialect {
            Dialect::OpenAi => openai::whole(model, text, ending, usage),
            Dialect::Anthropic => anthropic::whole(model, text, ending, usage),
        };
        let pieces = vec![(self.times.total, Bytes::from(body.to_string()))];
        Reply { status: 200, retry_after: None, content_type: JSON, pieces, after: After::End }
    }

    /// The same piece again and again; its bytes are there once.
    fn lengthen(&self, reply: &mut Reply) {
        let filler = "and so on ".repeat(LONG_PIECE / 10);
        let piece = if self.asked.stream { self.piece(&filler, Ending::Said) } else { Bytes::from(filler) };
        let at = reply.pieces.len().saturating_sub(1);
        let many = std::iter::repeat_n((Duration::ZERO, piece), LONG / LONG_PIECE);
        if self.asked.stream {
            reply.pieces.splice(at..at, many);
        } else {
            reply.pieces.extend(many);
        }
    }
}

/// Half of the pieces, or of the only one, and then the connection breaks.
fn truncate(reply: &mut Reply) {
    if let [(_, only)] = reply.pieces.as_mut_slice() {
        only.truncate(only.len() / 2);
    } else {
        reply.pieces.truncate(reply.pieces.len() / 2);
    }
    reply.after = After::Break;
}

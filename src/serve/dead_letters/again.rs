//! Says whether a dead letter was sent again already, and whether sending it again could do anything.
//!
//! Asks the ledger, once for a page of letters, and reads a letter that is no outcome as the record it would
//! be, by the rules of today; decides nothing about tasks. What neither tells is not guessed: a letter whose
//! key is not known, or whose key's window is over, has no mark, and while the ledger is away none has.

use crate::consume::{Kinds, Undecoded};
use crate::dedupe::ClaimView;
use crate::engine::{Ledger, Output, Unavailable};
use crate::outcome::Reason;
use crate::serve::App;
use crate::settings::TopicNames;
use crate::task::{Fingerprint, Partition, Position, Record, ScopedKey, Timestamp, Token};
use crate::write::{self, DeadLetter, Redrive};
use serde_json::Value;
use std::borrow::Cow;
use std::sync::Arc;

/// Keys the ledger is asked for at once: it is held that long.
const KEYS: usize = 500;
/// Characters of why a letter would be refused again: a list may hold ten thousand of them.
const DETAIL: usize = 300;

/// Why a redrive leaves a letter as it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Left {
    /// It is the outcome of its key, and the key is at a later generation.
    SentAgain,
    /// It never owned its key; a record with the same payload does now, in this life of it or a later one.
    Taken,
    /// Its key belongs to a task with another payload.
    Conflict,
    /// By the rules of today it would be one more dead letter, and no task. Why.
    Refused(String),
}

impl Left {
    pub(super) fn why(&self) -> Cow<'static, str> {
        let why = match self {
            Left::SentAgain => "it was sent again before",
            Left::Taken => "it was sent again before, or by its producer: its key has this payload's task",
            Left::Conflict => {
                "it would conflict again: submit it under a new key (`on_conflict = \"ignore\"` is for the next ones)"
            }
            Left::Refused(why) => {
                return format!("it would be refused again: {why}; mend the kind or the record first").into();
            }
        };
        why.into()
    }
}

/// What is known of a letter without asking anybody. Without the value: ten thousand of them would not fit.
pub(super) struct Outlook {
    life: Option<Life>,
    refused: Option<String>,
}

impl Outlook {
    pub(super) fn of(app: &App, letter: &DeadLetter) -> Outlook {
        let life = |token: &Token| Life::of(token, letter);
        if letter.outcome {
            return Outlook { life: letter.token.as_ref().map(life), refused: None };
        }
        match today(&app.kinds, &app.settings.topics, letter) {
            // Its key may be known by now, where none could be found when it came.
            Ok(found) => Outlook { life: letter.token.as_ref().or(found.as_ref()).map(life), refused: None },
            Err(why) => Outlook { life: letter.token.as_ref().map(life), refused: Some(why) },
        }
    }
}

/// The token of the record that a redrive would append; `None` where it would append nothing.
fn today(kinds: &Kinds, names: &TopicNames, letter: &DeadLetter) -> Result<Option<Token>, String> {
    let output = match write::redrive(names, letter) {
        Redrive::Send(output) | Redrive::Again(output) => *output,
        Redrive::Cannot(_) => return Ok(None),
    };
    if kinds.on(&output.topic).is_empty() && !names.internal().contains(&&output.topic) {
        return Err(format!("no kind reads `{}`", output.topic));
    }
    match kinds.decode(&Arc::new(record(output))) {
        Ok(task) => Ok(Some(task.token)),
        Err(Undecoded::Poison(poison)) => Err(poison.detail.chars().take(DETAIL).collect()),
        // It cannot be told before the record is read.
        Err(Undecoded::Wants(_)) => Ok(None),
    }
}

/// As if it lay in its topic already; where does not matter to what it is.
fn record(output: Output) -> Record {
    let Output { topic, key, value, headers, .. } = output;
    let position = Position { at: Partition { topic, index: 0 }, offset: 0 };
    Record { position, stamp: Timestamp::now(), key, value, headers, not_before: None }
}

/// What the ledger's entry is compared with.
struct Life {
    key: ScopedKey,
    generation: u32,
    print: Fingerprint,
    outcome: bool,
    conflict: bool,
}

impl Life {
    fn of(token: &Token, letter: &DeadLetter) -> Life {
        Life {
            key: token.key.clone(),
            generation: token.generation,
            print: token.print.clone(),
            outcome: letter.outcome,
            conflict: letter.reason == Some(Reason::KeyConflict),
        }
    }

    fn left(&self, claim: &ClaimView) -> Option<Left> {
        if self.outcome {
            return (claim.generation > self.generation).then_some(Left::SentAgain);
        }
        if self.conflict {
            return Some(Left::Conflict);
        }
        // By different rules, two prints of one payload differ: nothing is known then.
        if self.print.rule != claim.print.rule {
            return None;
        }
        if self.print.digest != claim.print.digest {
            return Some(Left::Conflict);
        }
        // Of a later life than the key has lived, as a redrive that was refused: it can be a task yet.
        (claim.generation >= self.generation).then_some(Left::Taken)
    }
}

/// For each letter, why a redrive would leave it, in the same order.
pub(super) async fn left(
    ledger: &dyn Ledger,
    outlooks: &[Outlook],
) -> Result<Vec<Option<Left>>, Unavailable> {
    let mut found = Vec::with_capacity(outlooks.len());
    for page in outlooks.chunks(KEYS) {
        let keys = page.iter().filter_map(|o| Some(o.life.as_ref()?.key.clone())).collect();
        let mut claims = ledger.look_all(keys).await?.into_iter();
        for Outlook { life, refused } in page {
            let left = life.as_ref().and_then(|life| life.left(&claims.next().flatten()?));
            found.push(left.or_else(|| refused.clone().map(Left::Refused)));
        }
    }
    Ok(found)
}

/// Marks each letter's view. To look needs no ledger: while it is away, the marks are null.
pub(super) async fn mark_all(ledger: &dyn Ledger, views: &mut [Value], outlooks: &[Outlook]) {
    match left(ledger, outlooks).await {
        Ok(left) => views.iter_mut().zip(left).for_each(|(view, left)| mark(view, left.as_ref())),
        Err(away) => {
            tracing::debug!(%away, "dead letters are shown without what became of them");
            for view in views {
                for name in ["redriven", "refused_again", "left"] {
                    view[name] = Value::Null;
                }
            }
        }
    }
}

/// Puts it into a letter's view.
pub(super) fn mark(view: &mut Value, left: Option<&Left>) {
    view["redriven"] = matches!(left, Some(Left::SentAgain | Left::Taken)).into();
    view["refused_again"] = matches!(left, Some(Left::Refused(_))).into();
    view["left"] = left.map(Left::why).into();
}

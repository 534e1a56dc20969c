//! Says whether a dead letter was sent again already, and whether sending it again could do anything.
//!
//! Asks the ledger, once for a page of letters; decides nothing about tasks. What the ledger does not
//! tell is not guessed: a letter whose key was never known, or whose key's window is over, has no mark, and
//! while the ledger is away none has.

use crate::dedupe::ClaimView;
use crate::engine::{Ledger, Unavailable};
use crate::outcome::Reason;
use crate::task::{Fingerprint, ScopedKey};
use crate::write::DeadLetter;
use serde_json::Value;

/// Keys the ledger is asked for at once: it is held that long.
const KEYS: usize = 500;

/// Why a redrive leaves a letter as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Left {
    /// It is the outcome of its key, and the key is at a later generation.
    SentAgain,
    /// It never owned its key; a record with the same payload does now, in this life of it or a later one.
    Taken,
    /// Its key belongs to a task with another payload.
    Conflict,
}

impl Left {
    pub(super) fn why(self) -> &'static str {
        match self {
            Left::SentAgain => "it was sent again before",
            Left::Taken => "it was sent again before, or by its producer: its key has this payload's task",
            Left::Conflict => {
                "it would conflict again: submit it under a new key (`on_conflict = \"ignore\"` is for the next ones)"
            }
        }
    }
}

/// What the ledger's entry is compared with. Without the value: ten thousand of them would not fit.
pub(super) struct Life {
    key: ScopedKey,
    generation: u32,
    print: Fingerprint,
    outcome: bool,
    conflict: bool,
}

impl Life {
    /// `None`: its key is not known.
    pub(super) fn of(letter: &DeadLetter) -> Option<Life> {
        let token = letter.token.as_ref()?;
        Some(Life {
            key: token.key.clone(),
            generation: token.generation,
            print: token.print.clone(),
            outcome: letter.outcome,
            conflict: letter.reason == Some(Reason::KeyConflict),
        })
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
    lives: &[Option<Life>],
) -> Result<Vec<Option<Left>>, Unavailable> {
    let mut found = Vec::with_capacity(lives.len());
    for page in lives.chunks(KEYS) {
        let keys = page.iter().flatten().map(|life| life.key.clone()).collect();
        let mut claims = ledger.look_all(keys).await?.into_iter();
        for life in page {
            found.push(life.as_ref().and_then(|life| life.left(&claims.next().flatten()?)));
        }
    }
    Ok(found)
}

/// Marks each letter's view. To look needs no ledger: while it is away, the marks are null.
pub(super) async fn mark_all(ledger: &dyn Ledger, views: &mut [Value], lives: &[Option<Life>]) {
    match left(ledger, lives).await {
        Ok(left) => views.iter_mut().zip(left).for_each(|(view, left)| mark(view, left)),
        Err(away) => {
            tracing::debug!(%away, "dead letters are shown without what became of them");
            for view in views {
                (view["redriven"], view["left"]) = (Value::Null, Value::Null);
            }
        }
    }
}

/// Puts it into a letter's view.
pub(super) fn mark(view: &mut Value, left: Option<Left>) {
    view["redriven"] = matches!(left, Some(Left::SentAgain | Left::Taken)).into();
    view["left"] = left.map(Left::why).into();
}

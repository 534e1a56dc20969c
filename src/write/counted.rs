//! Counts what ends a task, whoever ended it: to be added once its commit is visible, and only then.

use super::record::REASON;
use crate::engine::{Completion, Mark};
use crate::outcome::{OutcomeKind, Reason};

/// An outcome that a completion publishes.
#[derive(PartialEq, Eq, Debug)]
pub struct Counted {
    kind: String,
    what: &'static str,
}

impl Counted {
    /// `None` where the completion ends no task.
    pub fn of(done: &Completion) -> Option<Counted> {
        let Some(Mark::Close { token, outcome, output }) = &done.mark else { return None };
        let what = match outcome {
            OutcomeKind::Result => "result",
            OutcomeKind::DeadLetter => {
                let reason = done.outputs.get(*output).and_then(|o| o.headers.text(REASON));
                reason.and_then(Reason::parse).map_or("dead-letter", Reason::code)
            }
        };
        Some(Counted { kind: token.key.kind.to_string(), what })
    }

    pub fn add(self) {
        metrics::counter!("tidegate_outcomes_total", "kind" => self.kind, "what" => self.what).increment(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Lease, Output};
    use crate::task::{Fingerprint, Headers, Origin, Partition, Position, PrintRule};
    use crate::task::{ScopedKey, Timestamp, Token, Topic};
    use bytes::Bytes;

    fn closes(outcome: OutcomeKind, headers: Headers) -> Completion {
        let at = Partition { topic: Topic::new("tasks.copy"), index: 0 };
        let origin = Origin { position: Position { at: at.clone(), offset: 1 }, stamp: Timestamp(1) };
        let print = Fingerprint { rule: PrintRule::Whole, digest: [0; 32] };
        let key = ScopedKey::new("", "copy", "k");
        let token = Token { key, generation: 0, origin, hop: 0, print, proof: None, payload: Bytes::new() };
        let output = Output { topic: Topic::new("out"), key: None, value: None, headers, not_before: None };
        Completion {
            lease: Lease { at, epoch: 1 },
            offset: 1,
            outputs: vec![output],
            urgent: false,
            mark: Some(Mark::Close { token, outcome, output: 0 }),
        }
    }

    #[test]
    fn every_outcome_is_counted_by_kind_and_reason_and_nothing_else_is() {
        let result = Counted::of(&closes(OutcomeKind::Result, Headers::default())).unwrap();
        assert_eq!(result, Counted { kind: "copy".into(), what: "result" });
        // As a refused record is buried that owns its key.
        let reason = Headers::default().with(REASON, "TG-input-refused");
        let letter = Counted::of(&closes(OutcomeKind::DeadLetter, reason)).unwrap();
        assert_eq!(letter, Counted { kind: "copy".into(), what: "input-refused" });
        let copy = Completion { mark: None, ..closes(OutcomeKind::Result, Headers::default()) };
        assert_eq!(Counted::of(&copy), None);
    }
}

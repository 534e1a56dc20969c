//! Sends a dead letter again: an outcome as the next generation of its key, a record that never
//! owned its key at the generation, and with the proof, that it had.
//!
//! ## Why without its deadline
//!
//! A redriven task does not keep the `deadline` it was sent with. That is mostly over by then, and the
//! task would be buried for it at once; whoever redrives it wants it done all the same. Its kind's own
//! `deadline`, where there is one, counts from the redrive. The header itself travels along for
//! consumers, and is not read on the `resume` topic. Only a record whose kind or key was never known
//! goes back to its own topic just as it came, deadline and all.

use super::dead_letter::DeadLetter;
use crate::engine::Output;
use crate::outcome::Reason;
use crate::settings::TopicNames;
use crate::task::{Headers, Token};
use crate::token;
use bytes::Bytes;

/// What a redrive would append, or why it cannot.
#[derive(Clone, Debug)]
pub enum Redrive {
    Send(Box<Output>),
    /// A record whose kind or key is not known goes back to the topic it came from.
    Again(Box<Output>),
    Cannot(String),
}

pub fn redrive(names: &TopicNames, letter: &DeadLetter) -> Redrive {
    if letter.record.headers.get(super::record::ORIGINAL_BYTES).is_some() {
        return Redrive::Cannot(format!("it was cut; the original lies at {}", letter.source));
    }
    if letter.reason == Some(Reason::Orphaned) {
        let why = "its payload was lost when its record vanished; send the task again under a new key";
        return Redrive::Cannot(why.to_owned());
    }
    match &letter.token {
        Some(token) => Redrive::Send(Box::new(next_life(names, letter, token))),
        None => match letter.source.parse::<crate::task::Position>() {
            Ok(source) => Redrive::Again(Box::new(Output {
                topic: source.at.topic,
                key: letter.record.key.clone(),
                value: letter.record.value.clone(),
                headers: own(&letter.record.headers),
                not_before: None,
            })),
            Err(_) => Redrive::Cannot("it does not say where it came from".to_owned()),
        },
    }
}

/// On the `resume` topic without an origin header: the record will be its own origin, at hop 0.
fn next_life(names: &TopicNames, letter: &DeadLetter, token: &Token) -> Output {
    let (generation, proof) = if letter.outcome {
        (token.generation + 1, Some(letter.record.position.clone()))
    } else {
        (token.generation, token.proof.clone())
    };
    let mut headers = own(&letter.record.headers);
    token::write_identity(&Token { generation, proof, hop: 0, ..token.clone() }, &mut headers);
    headers.0.retain(|(name, _)| name != token::ORIGIN);
    Output {
        topic: names.resume.clone(),
        key: letter.record.key.clone(),
        value: letter.record.value.clone(),
        headers,
        not_before: None,
    }
}

fn own(headers: &Headers) -> Headers {
    Headers(
        headers.0.iter().filter(|(n, _): &&(String, Bytes)| !n.starts_with(token::PREFIX)).cloned().collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{Partition, Position, Record, Timestamp, Topic};
    use crate::write::record::Burial;

    #[test]
    fn row_20_what_has_no_payload_left_is_not_redriven() {
        let names = TopicNames::new("");
        let at = Partition { topic: Topic::new("dead-letters"), index: 0 };
        let letter = |reason: &str| {
            let headers = Headers::default()
                .with(super::super::record::REASON, reason.to_owned())
                .with(super::super::record::SOURCE, "tasks.copy/0/7");
            let position = Position { at: at.clone(), offset: 3 };
            let (key, value, stamp) = (None, None, Timestamp(1));
            DeadLetter::read(Record { position, stamp, key, value, headers, not_before: None })
        };
        assert!(
            matches!(redrive(&names, &letter("TG-orphaned")), Redrive::Cannot(why) if why.contains("new key"))
        );
        assert!(matches!(redrive(&names, &letter("TG-malformed")), Redrive::Again(_)));
    }

    #[test]
    fn a_letter_that_was_made_smaller_is_redriven_if_nothing_of_it_is_missing() {
        let names = TopicNames::new("");
        let position = Position { at: Partition { topic: Topic::new("tasks.copy"), index: 0 }, offset: 7 };
        let letter = |value: &str, headers: Headers| {
            let record = Record {
                position: position.clone(),
                stamp: Timestamp(1),
                key: Some("k".into()),
                value: Some(Bytes::from(value.to_owned())),
                headers,
                not_before: None,
            };
            let burial = Burial {
                reason: Reason::OutcomeTooLarge,
                detail: String::new(),
                source: position.to_string(),
                at: Timestamp(2),
                token: None,
                outcome: false,
                tries: 0,
                first_error: None,
                last_error: None,
                trail: crate::trail::Trail::default(),
            };
            let small = crate::write::shrink(&names.dead_letters, &record, &burial);
            let lies = Record { key: small.key, value: small.value, headers: small.headers, ..record };
            redrive(&names, &DeadLetter::read(lies))
        };
        let own = Headers::default().with("x-own", "1");
        let Redrive::Again(again) = letter("{\"n\":1}", own.clone()) else { panic!("it is whole") };
        assert_eq!((again.value, again.headers), (Some("{\"n\":1}".into()), own));
        for cut in [
            letter(&"a".repeat(1 << 20), Headers::default()),
            letter("{}", Headers::default().with("x-own", "b".repeat(300))),
        ] {
            assert!(
                matches!(cut, Redrive::Cannot(why) if why == "it was cut; the original lies at tasks.copy/0/7")
            );
        }
        let many = (0..100).fold(Headers::default(), |all, n| all.with(format!("x-{n}"), "1"));
        let said = letter("{}", many);
        assert!(
            matches!(&said, Redrive::Cannot(why) if why == "it was cut; the original lies at tasks.copy/0/7"),
            "what is ours stays, however many of theirs there are: {said:?}"
        );
    }
}

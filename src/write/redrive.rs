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
        return Redrive::Cannot(format!("its value was cut; the original lies at {}", letter.source));
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

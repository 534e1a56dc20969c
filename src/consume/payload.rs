//! Reads a record's value as its kind says it is written: JSON, or Avro in the registry's wire format.
//!
//! Whatever it was, what follows sees JSON: key rules, fingerprints, schemas and prompts. The record keeps
//! its own bytes, so that a dead letter has them and a token on its way is read again by the same schema.

use crate::avro::{self, Known, Need, Schemas};
use crate::outcome::Reason;
use crate::settings::Format;
use bytes::Bytes;
use serde_json::Value;

/// What a value says.
#[derive(Clone, Debug)]
pub struct Payload {
    pub json: Value,
    /// The same as text: of JSON the bytes as they came.
    pub text: Bytes,
}

/// Why there is no payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Unread {
    /// The value is not what it should be.
    Wrong(Reason, String),
    /// It cannot be said before this schema is known.
    Wants(Need),
}

/// The value of a record on a task topic.
pub(super) fn read(format: Format, value: &Bytes, schemas: &Schemas) -> Result<Payload, Unread> {
    match format {
        Format::Json => json(value),
        Format::Avro => avro(value, schemas),
    }
}

/// The value of a record on an internal topic: the bytes that came, or the JSON that a person saw. A deploy
/// may have changed the kind's format since, and no JSON begins as Avro does.
pub(super) fn read_token(value: &Bytes, schemas: &Schemas) -> Result<Payload, Unread> {
    if avro::is_framed(value) { avro(value, schemas) } else { json(value) }
}

fn json(value: &Bytes) -> Result<Payload, Unread> {
    match serde_json::from_slice(value) {
        Ok(json) => Ok(Payload { json, text: value.clone() }),
        Err(e) => Err(Unread::Wrong(Reason::Malformed, format!("not JSON: {e}"))),
    }
}

fn avro(value: &Bytes, schemas: &Schemas) -> Result<Payload, Unread> {
    let wrong = |e: avro::Refused| Unread::Wrong(Reason::Malformed, e.to_string());
    let (id, datum) = avro::unframe(value).map_err(wrong)?;
    let schema = match schemas.reader(id) {
        Known::Schema(schema) => schema,
        Known::Refused(why) => return Err(Unread::Wrong(Reason::SchemaUnknown, why)),
        Known::Wanted => return Err(Unread::Wants(Need::Reader(id))),
    };
    let json = schema
        .decode(datum)
        .map_err(|e| Unread::Wrong(Reason::Malformed, format!("not what schema {id} says: {e}")))?;
    // Writing down what was just built cannot fail.
    let text = serde_json::to_vec(&json).unwrap_or_default().into();
    Ok(Payload { json, text })
}

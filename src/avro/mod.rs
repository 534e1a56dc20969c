//! Avro: what is read from and written to topics in the schema registry's wire format, and the only place
//! that imports an Avro library.
//!
//! A value is the byte 0, a schema's id in four bytes (big-endian), and one datum. Everything above sees
//! JSON: a datum is decoded by the schema that its writer named, never by a guess, and no byte of it is
//! left over. What has no faithful JSON is refused with a reason.
//!
//! | Avro | JSON |
//! |---|---|
//! | null, boolean, string, array, map, record | the same |
//! | int, long, float, double | a number; infinities and NaN are refused |
//! | enum | its symbol |
//! | bytes, fixed | text in base64 |
//! | decimal | text with all its digits: `"12.50"` |
//! | date, time, timestamp, local timestamp | text as in RFC 3339, with all digits of its unit |
//! | duration | `{"months", "days", "milliseconds"}` |
//! | uuid | text |
//! | union | the value alone; where two of its branches read alike in JSON, `{"branch": value}` |
//!
//! A value is read as its writer wrote it: there is no reader's schema beside it, and the kind's `input`
//! says what a payload must satisfy.
//!
//! ## Why the library only reads schemas
//!
//! Its decoder takes a datum that ends too early for one with nulls, follows a recursive schema as deep as
//! the bytes ask it to, and bounds each list but not all of them together. Records are bytes from
//! strangers, so the walk over them is ours (`decode.rs`), with one bound for all that it makes.

mod decode;
mod encode;
mod registry;
mod schema;
mod schemas;
mod written;

pub use registry::{Access, Auth, Registry};
pub use schema::Schema;
pub use schemas::{Away, Known, Need, NoWriter, Schemas, Source, result_schema};

/// The first byte of a value in the wire format. No JSON text begins with it.
const MAGIC: u8 = 0;

/// What a datum, or a JSON value for one, has wrong, and where: never a word of the value itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// Names of fields and indexes, innermost last.
    path: Vec<String>,
    what: String,
}

impl Refused {
    fn new(what: impl Into<String>) -> Self {
        Refused { path: vec![], what: what.into() }
    }

    /// It happened inside `name`.
    fn below(mut self, name: impl ToString) -> Self {
        self.path.insert(0, name.to_string());
        self
    }
}

impl std::error::Error for Refused {}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.path.is_empty() {
            write!(f, "`{}`: ", self.path.join("."))?;
        }
        f.write_str(&self.what)
    }
}

/// Whether these bytes are in the wire format, or mean to be.
pub fn is_framed(value: &[u8]) -> bool {
    value.first() == Some(&MAGIC)
}

/// The schema's id and the datum.
pub fn unframe(value: &[u8]) -> Result<(u32, &[u8]), Refused> {
    let Some((&MAGIC, rest)) = value.split_first() else {
        return Err(Refused::new("not Avro: the value does not begin with the byte 0 and a schema's id"));
    };
    match rest.split_first_chunk::<4>() {
        Some((id, datum)) => Ok((u32::from_be_bytes(*id), datum)),
        None => Err(Refused::new("not Avro: the value ends before its schema's id does")),
    }
}

/// The wire format of a datum under the schema with this id.
pub fn frame(id: u32, datum: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(5 + datum.len());
    out.push(MAGIC);
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(datum);
    out
}

#[cfg(test)]
mod tests;

//! From a datum to JSON, by the schema it was written with.
//!
//! The bytes may be anybody's: every length is held against what is there, depth and room are bounded for
//! the whole datum, and what is left over is an error as much as what is missing.

use super::schema::{At, Field, Node, Schema, Union};
use super::{Refused, written};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value};

/// Room for all that one datum becomes, bytes as counted by `COST`. A record of the usual limit, 1 MiB of
/// JSON, needs about as much.
const ROOM: usize = 16 << 20;

/// What a value costs beside its text: about what it takes in memory.
const COST: usize = 64;

/// Lists, maps and records in each other. JSON is read again with a limit of 128 (`serde_json`).
pub(super) const DEPTH_MAX: usize = 120;

impl Schema {
    /// The value of `datum`, all of it.
    pub fn decode(&self, datum: &[u8]) -> Result<Value, Refused> {
        let mut reader = Reader { nodes: &self.nodes, rest: datum, room: ROOM, depth: 0 };
        let value = reader.value(self.root)?;
        match reader.rest.len() {
            0 => Ok(value),
            n => Err(Refused::new(format!("{n} bytes are left over: written with another schema"))),
        }
    }
}

struct Reader<'a> {
    nodes: &'a [Node],
    rest: &'a [u8],
    room: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    /// What holds other values; this alone calls itself, and takes little of the stack.
    fn value(&mut self, at: At) -> Result<Value, Refused> {
        self.pay(COST)?;
        let nodes = self.nodes;
        match &nodes[at] {
            Node::Array(item) => self.list(*item),
            Node::Map(item) => self.map(*item),
            Node::Record(fields) => self.record(fields),
            Node::Union(union) => self.union(union),
            single => self.single(single),
        }
    }

    fn single(&mut self, node: &'a Node) -> Result<Value, Refused> {
        Ok(match node {
            // `value` has taken these.
            Node::Array(_) | Node::Map(_) | Node::Record(_) | Node::Union(_) => Value::Null,
            Node::Null => Value::Null,
            Node::Boolean => match self.take(1)? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                _ => return Err(Refused::new("is neither true nor false")),
            },
            Node::Int => self.int()?.into(),
            Node::Long => self.long()?.into(),
            Node::Float => finite(f32::from_le_bytes(self.array()?).into())?,
            Node::Double => finite(f64::from_le_bytes(self.array()?))?,
            Node::Bytes => {
                let bytes = self.counted()?;
                self.base64(bytes)?
            }
            Node::Fixed(size) => {
                let bytes = self.take(*size)?;
                self.base64(bytes)?
            }
            Node::String => self.text()?.into(),
            Node::Enum(symbols) => {
                let index = usize::try_from(self.int()?).ok();
                let symbol = index.and_then(|i| symbols.get(i));
                let symbol =
                    symbol.ok_or_else(|| Refused::new("names a symbol that its enum does not have"))?;
                self.pay(symbol.len())?;
                symbol.as_str().into()
            }
            Node::Decimal { fixed, precision, scale } => {
                let bytes = match fixed {
                    Some(size) => self.take(*size)?,
                    None => self.counted()?,
                };
                let text = written::decimal(bytes, *precision, *scale)?;
                self.pay(text.len())?;
                text.into()
            }
            Node::Uuid { counted } => {
                let bytes = if *counted { self.counted()? } else { self.take(16)? };
                uuid(bytes)?.into()
            }
            Node::Date => written::date(self.int()?)?.into(),
            Node::Time(unit) => {
                let count =
                    if *unit == super::schema::Unit::Millis { self.int()?.into() } else { self.long()? };
                written::time(count, *unit)?.into()
            }
            Node::Timestamp { unit, local } => written::timestamp(self.long()?, *unit, *local)?.into(),
            Node::Duration => {
                let mut object = Map::new();
                for part in DURATION {
                    object.insert(part.to_owned(), u32::from_le_bytes(self.array()?).into());
                }
                Value::Object(object)
            }
        })
    }

    fn record(&mut self, fields: &'a [Field]) -> Result<Value, Refused> {
        self.deeper()?;
        let mut object = Map::with_capacity(fields.len());
        for field in fields {
            self.pay(COST + field.name.len())?;
            let value = self.value(field.node).map_err(|e| e.below(&field.name))?;
            object.insert(field.name.clone(), value);
        }
        self.depth -= 1;
        Ok(Value::Object(object))
    }

    fn union(&mut self, union: &'a Union) -> Result<Value, Refused> {
        let index = usize::try_from(self.long()?).ok();
        let branch = index.and_then(|i| union.branches.get(i));
        let (name, at) = branch.ok_or_else(|| Refused::new("takes a branch that its union does not have"))?;
        if !union.named || self.nodes[*at] == Node::Null {
            return self.value(*at);
        }
        self.pay(COST + name.len())?;
        self.deeper()?;
        let value = self.value(*at)?;
        self.depth -= 1;
        Ok(Value::Object(Map::from_iter([(name.clone(), value)])))
    }

    fn list(&mut self, item: At) -> Result<Value, Refused> {
        self.deeper()?;
        let mut items = Vec::new();
        self.blocks(|r| {
            let value = r.value(item).map_err(|e| e.below(items.len()))?;
            items.push(value);
            Ok(())
        })?;
        self.depth -= 1;
        Ok(Value::Array(items))
    }

    fn map(&mut self, item: At) -> Result<Value, Refused> {
        self.deeper()?;
        let mut object = Map::new();
        self.blocks(|r| {
            let key = r.text()?;
            r.pay(COST)?;
            // Its name is the sender's word: not for an error that is logged.
            let value = r.value(item).map_err(|e| e.below("*"))?;
            match object.insert(key, value) {
                None => Ok(()),
                Some(_) => Err(Refused::new("has one key twice")),
            }
        })?;
        self.depth -= 1;
        Ok(Value::Object(object))
    }

    /// Blocks of items, each behind their count, until one of none. Each item pays, so a count means nothing
    /// by itself.
    fn blocks(&mut self, mut item: impl FnMut(&mut Self) -> Result<(), Refused>) -> Result<(), Refused> {
        loop {
            let count = self.long()?;
            if count == 0 {
                return Ok(());
            }
            // A negative count comes with the block's bytes, for readers that skip it.
            let after = if count < 0 {
                let size =
                    usize::try_from(self.long()?).ok().and_then(|size| self.rest.len().checked_sub(size));
                Some(size.ok_or_else(|| Refused::new("has a block that is larger than what is there"))?)
            } else {
                None
            };
            for _ in 0..count.unsigned_abs() {
                item(self)?;
            }
            if after.is_some_and(|after| after != self.rest.len()) {
                return Err(Refused::new("has a block that does not end where it says"));
            }
        }
    }

    /// One level in; an error ends the whole datum, so only success comes back out.
    fn deeper(&mut self) -> Result<(), Refused> {
        if self.depth == DEPTH_MAX {
            return Err(Refused::new(format!("nests deeper than {DEPTH_MAX}")));
        }
        self.depth += 1;
        Ok(())
    }

    fn pay(&mut self, cost: usize) -> Result<(), Refused> {
        let room = self.room.checked_sub(cost);
        self.room = room.ok_or_else(|| Refused::new(format!("becomes more than {} MiB", ROOM >> 20)))?;
        Ok(())
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], Refused> {
        let split = self.rest.split_at_checked(n);
        let (taken, rest) = split.ok_or_else(|| Refused::new("ends too early"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Refused> {
        let (taken, rest) =
            self.rest.split_first_chunk::<N>().ok_or_else(|| Refused::new("ends too early"))?;
        self.rest = rest;
        Ok(*taken)
    }

    fn counted(&mut self) -> Result<&'a [u8], Refused> {
        let n = usize::try_from(self.long()?).map_err(|_| Refused::new("has a negative length"))?;
        self.take(n)
    }

    fn text(&mut self) -> Result<String, Refused> {
        let bytes = self.counted()?;
        self.pay(bytes.len())?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| Refused::new("is not UTF-8"))
    }

    fn base64(&mut self, bytes: &[u8]) -> Result<Value, Refused> {
        self.pay(bytes.len() / 3 * 4)?;
        Ok(STANDARD.encode(bytes).into())
    }

    fn int(&mut self) -> Result<i32, Refused> {
        i32::try_from(self.long()?).map_err(|_| Refused::new("has more than 32 bits"))
    }

    /// Seven bits a byte, the lowest first; the sign in the lowest bit.
    fn long(&mut self) -> Result<i64, Refused> {
        let mut raw = 0_u64;
        for shift in (0..70).step_by(7) {
            let [byte] = self.array::<1>()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            raw |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed());
            }
        }
        Err(Refused::new("has more than 64 bits"))
    }
}

/// The parts of a duration, in their order.
pub(super) const DURATION: [&str; 3] = ["months", "days", "milliseconds"];

fn finite(number: f64) -> Result<Value, Refused> {
    let number = Number::from_f64(number);
    number.map(Value::Number).ok_or_else(|| Refused::new("is no number that JSON has"))
}

fn uuid(bytes: &[u8]) -> Result<String, Refused> {
    let bytes: [u8; 16] = bytes.try_into().map_err(|_| Refused::new("is no UUID of 16 bytes"))?;
    Ok(apache_avro::Uuid::from_bytes(bytes).to_string())
}

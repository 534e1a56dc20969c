//! From JSON to a datum: what `decode` reads back as the same value, or a reason.
//!
//! Nothing is dropped: a field that the schema does not have is refused, as is a number that its type
//! cannot hold. Fractions are rounded to the nearest of their type, as every writer does.

use super::decode::{DEPTH_MAX, DURATION};
use super::schema::{At, Field, Look, Node, Schema, Union, look};
use super::{Refused, written};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

impl Schema {
    pub fn encode(&self, value: &Value) -> Result<Vec<u8>, Refused> {
        let mut writer = Writer { nodes: &self.nodes, out: Vec::new(), depth: 0 };
        writer.value(self.root, value)?;
        Ok(writer.out)
    }
}

struct Writer<'a> {
    nodes: &'a [Node],
    out: Vec<u8>,
    depth: usize,
}

impl Writer<'_> {
    /// What holds other values; this alone calls itself, and takes little of the stack.
    fn value(&mut self, at: At, value: &Value) -> Result<(), Refused> {
        let nodes = self.nodes;
        match &nodes[at] {
            Node::Array(item) => self.deeper(|w| w.list(*item, value)),
            Node::Map(item) => self.deeper(|w| w.map(*item, value)),
            Node::Record(fields) => self.deeper(|w| w.record(fields, value)),
            Node::Union(union) => self.union(union, value),
            single => self.single(single, value),
        }
    }

    fn single(&mut self, node: &Node, value: &Value) -> Result<(), Refused> {
        match node {
            // `value` has taken these.
            Node::Array(_) | Node::Map(_) | Node::Record(_) | Node::Union(_) => {}
            Node::Null if value.is_null() => {}
            Node::Null => return misfit("null"),
            Node::Boolean => match value {
                Value::Bool(truth) => self.out.push(u8::from(*truth)),
                _ => return misfit("true or false"),
            },
            Node::Int => self.long(whole(value).and_then(|n| Some(i32::try_from(n).ok()?.into())), INT)?,
            Node::Long => self.long(whole(value), LONG)?,
            #[expect(
                clippy::cast_possible_truncation,
                reason = "rounded to the nearest, as every writer does"
            )]
            Node::Float => {
                let number = double(value)? as f32;
                if !number.is_finite() {
                    return misfit("a number that fits a float");
                }
                self.out.extend_from_slice(&number.to_le_bytes());
            }
            Node::Double => self.out.extend_from_slice(&double(value)?.to_le_bytes()),
            Node::Bytes => self.counted(&base64(value)?),
            Node::Fixed(size) => {
                let bytes = base64(value)?;
                if bytes.len() != *size {
                    return misfit(&format!("{size} bytes in base64"));
                }
                self.out.extend_from_slice(&bytes);
            }
            Node::String => self.counted(text(value, "text")?.as_bytes()),
            Node::Enum(symbols) => {
                let found = value.as_str().and_then(|s| symbols.iter().position(|symbol| symbol == s));
                let index = found.and_then(|index| i64::try_from(index).ok());
                self.long(index, "one of the symbols of its enum")?;
            }
            Node::Decimal { fixed, precision, scale } => self.decimal(value, *fixed, *precision, *scale)?,
            Node::Uuid { counted } => {
                let uuid = value.as_str().and_then(|text| apache_avro::Uuid::parse_str(text).ok());
                let Some(uuid) = uuid else { return misfit("a UUID") };
                if *counted {
                    self.counted(uuid.as_bytes());
                } else {
                    self.out.extend_from_slice(uuid.as_bytes());
                }
            }
            Node::Date => self.varint(written::read_date(text(value, "a date")?)?.into()),
            Node::Time(unit) => self.varint(written::read_time(text(value, "a time of day")?, *unit)?),
            Node::Timestamp { unit, local } => {
                self.varint(written::read_timestamp(text(value, "a time")?, *unit, *local)?);
            }
            Node::Duration => self.duration(value)?,
        }
        Ok(())
    }

    fn record(&mut self, fields: &[Field], value: &Value) -> Result<(), Refused> {
        let Value::Object(object) = value else { return misfit("an object") };
        let known = fields.iter().filter(|field| object.contains_key(&field.name)).count();
        if known < object.len() {
            return Err(Refused::new("has a field that its schema does not have"));
        }
        for field in fields {
            let written = match object.get(&field.name) {
                Some(value) => self.value(field.node, value),
                None => self.absent(field),
            };
            written.map_err(|e| e.below(&field.name))?;
        }
        Ok(())
    }

    /// Its default, or null where that may stand.
    fn absent(&mut self, field: &Field) -> Result<(), Refused> {
        let value = field.default.as_ref().unwrap_or(&Value::Null);
        let missing = |_| Refused::new("is missing");
        match &self.nodes[field.node] {
            // A default is never named.
            Node::Union(union) => {
                let Some((index, at)) = self.branch_of(union, value) else { return Err(missing(())) };
                self.index(index);
                self.value(at, value).map_err(|_| missing(()))
            }
            Node::Null => Ok(()),
            _ if field.default.is_none() => Err(missing(())),
            _ => self.value(field.node, value).map_err(|_| missing(())),
        }
    }

    fn union(&mut self, union: &Union, value: &Value) -> Result<(), Refused> {
        if !union.named || value.is_null() {
            let Some((index, at)) = self.branch_of(union, value) else {
                return misfit("one of the branches of its union");
            };
            self.index(index);
            return self.value(at, value);
        }
        let only = value.as_object().filter(|object| object.len() == 1);
        let Some((name, inner)) = only.and_then(|object| object.iter().next()) else {
            return misfit("an object that names the branch of its union");
        };
        match union.branches.iter().position(|(branch, _)| branch == name) {
            Some(index) => {
                self.index(index);
                let at = union.branches[index].1;
                self.deeper(|w| w.value(at, inner))
            }
            None => misfit("an object that names the branch of its union"),
        }
    }

    /// The branch that looks like the value; of several numbers the first that holds it.
    fn branch_of(&self, union: &Union, value: &Value) -> Option<(usize, At)> {
        let looks = look_of(value);
        let fits = |at: At| {
            let node = &self.nodes[at];
            look(node) == looks
                && match node {
                    Node::Int => whole(value).is_some_and(|n| i32::try_from(n).is_ok()),
                    Node::Long => whole(value).is_some(),
                    Node::Float | Node::Double => double(value).is_ok(),
                    _ => true,
                }
        };
        let found = union.branches.iter().enumerate().find(|(_, (_, at))| fits(*at));
        found.map(|(index, (_, at))| (index, *at))
    }

    fn list(&mut self, item: At, value: &Value) -> Result<(), Refused> {
        let Value::Array(items) = value else { return misfit("a list") };
        if !items.is_empty() {
            self.index(items.len());
            for (i, value) in items.iter().enumerate() {
                self.value(item, value).map_err(|e| e.below(i))?;
            }
        }
        self.out.push(0);
        Ok(())
    }

    fn map(&mut self, item: At, value: &Value) -> Result<(), Refused> {
        let Value::Object(object) = value else { return misfit("an object") };
        if !object.is_empty() {
            self.index(object.len());
            for (key, value) in object {
                self.counted(key.as_bytes());
                self.value(item, value).map_err(|e| e.below("*"))?;
            }
        }
        self.out.push(0);
        Ok(())
    }

    fn decimal(
        &mut self,
        value: &Value,
        fixed: Option<usize>,
        precision: usize,
        scale: usize,
    ) -> Result<(), Refused> {
        let number = match value {
            Value::Number(number) => number.to_string(),
            _ => text(value, "a decimal number")?.to_owned(),
        };
        let bytes = written::read_decimal(&number, precision, scale)?;
        let Some(size) = fixed else {
            self.counted(&bytes);
            return Ok(());
        };
        let Some(more) = size.checked_sub(bytes.len()) else {
            return misfit(&format!("a decimal that fits {size} bytes"));
        };
        let sign = if bytes.first().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
        self.out.extend(std::iter::repeat_n(sign, more));
        self.out.extend_from_slice(&bytes);
        Ok(())
    }

    fn duration(&mut self, value: &Value) -> Result<(), Refused> {
        let wrong = "an object of months, days and milliseconds, each of 32 bits";
        let all = |o: &&Map<String, Value>| o.len() == DURATION.len();
        let Some(object) = value.as_object().filter(all) else { return misfit(wrong) };
        for part in DURATION {
            let number = object.get(part).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
            let Some(number) = number else { return misfit(wrong) };
            self.out.extend_from_slice(&number.to_le_bytes());
        }
        Ok(())
    }

    fn deeper<T>(&mut self, inside: impl FnOnce(&mut Self) -> Result<T, Refused>) -> Result<T, Refused> {
        if self.depth == DEPTH_MAX {
            return Err(Refused::new(format!("nests deeper than {DEPTH_MAX}")));
        }
        self.depth += 1;
        let done = inside(self);
        self.depth -= 1;
        done
    }

    fn counted(&mut self, bytes: &[u8]) {
        self.index(bytes.len());
        self.out.extend_from_slice(bytes);
    }

    fn index(&mut self, n: usize) {
        // A length in memory fits 63 bits.
        self.varint(i64::try_from(n).unwrap_or(i64::MAX));
    }

    fn long(&mut self, number: Option<i64>, what: &str) -> Result<(), Refused> {
        let Some(number) = number else { return misfit(what) };
        self.varint(number);
        Ok(())
    }

    fn varint(&mut self, number: i64) {
        let mut raw = ((number << 1) ^ (number >> 63)).cast_unsigned();
        while raw > 0x7f {
            self.out.push((raw & 0x7f) as u8 | 0x80);
            raw >>= 7;
        }
        self.out.push(raw as u8);
    }
}

const INT: &str = "a whole number of 32 bits";
const LONG: &str = "a whole number of 64 bits";

fn misfit<T>(what: &str) -> Result<T, Refused> {
    Err(Refused::new(format!("should be {what}")))
}

fn text<'v>(value: &'v Value, what: &str) -> Result<&'v str, Refused> {
    value.as_str().map_or_else(|| misfit(what), Ok)
}

fn base64(value: &Value) -> Result<Vec<u8>, Refused> {
    let bytes = value.as_str().and_then(|text| STANDARD.decode(text).ok());
    bytes.map_or_else(|| misfit("bytes in base64"), Ok)
}

/// Also `5.0`, which is how some write 5.
#[expect(clippy::cast_possible_truncation, reason = "within the bounds that are checked")]
fn whole(value: &Value) -> Option<i64> {
    let double = |n: f64| (n.fract() == 0.0 && n.abs() <= EXACT).then_some(n as i64);
    value.as_i64().or_else(|| value.as_f64().filter(|_| value.is_f64()).and_then(double))
}

/// Up to here a double holds every whole number: 2^53.
const EXACT: f64 = 9_007_199_254_740_992.0;

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "whether that loses something is the question"
)]
fn double(value: &Value) -> Result<f64, Refused> {
    let Value::Number(number) = value else { return misfit("a number") };
    let lost = match (number.as_i64(), number.as_u64()) {
        (Some(n), _) => n as f64 as i128 != i128::from(n),
        (None, Some(n)) => n as f64 as i128 != i128::from(n),
        (None, None) => false,
    };
    match number.as_f64() {
        Some(double) if !lost => Ok(double),
        _ => misfit("a number that a double holds"),
    }
}

fn look_of(value: &Value) -> Look {
    match value {
        Value::Null => Look::Null,
        Value::Bool(_) => Look::Boolean,
        Value::Number(_) => Look::Number,
        Value::String(_) => Look::Text,
        Value::Array(_) => Look::List,
        Value::Object(_) => Look::Object,
    }
}

//! A schema, made ready for walking data: names looked up, every part at a number.
//!
//! The library reads the text and judges it by the specification; what it gives is copied into a table.
//! Nothing here touches data.

use super::Refused;
use apache_avro::Schema as Read;
use apache_avro::schema::{InnerDecimalSchema, Name, RecordSchema, UuidSchema};
use serde_json::Value;
use std::collections::HashMap;

/// Largest text of a schema, bytes, with all that it refers to: far beyond those that people write.
pub(super) const TEXT_MAX: usize = 1 << 20;

/// Digits of a decimal. Beyond, writing them out would cost more than they say.
const DIGITS_MAX: usize = 1_000;

/// Number of a node in its schema's table.
pub(super) type At = usize;

/// Digits behind the second of a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unit {
    Millis,
    Micros,
    Nanos,
}

#[derive(Clone, PartialEq, Debug)]
pub(super) enum Node {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Fixed(usize),
    Enum(Vec<String>),
    Array(At),
    Map(At),
    Union(Union),
    Record(Vec<Field>),
    /// `fixed`: its bytes, where they are not counted before it.
    Decimal {
        fixed: Option<usize>,
        precision: usize,
        scale: usize,
    },
    /// Sixteen bytes; `counted`: behind their number.
    Uuid {
        counted: bool,
    },
    Date,
    Time(Unit),
    Timestamp {
        unit: Unit,
        /// On a clock without a place.
        local: bool,
    },
    Duration,
}

#[derive(Clone, PartialEq, Debug)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) node: At,
    /// What stands for it where JSON has none. Only what reads the same in JSON and in a schema.
    pub(super) default: Option<Value>,
}

#[derive(Clone, PartialEq, Debug)]
pub(super) struct Union {
    /// The branches and their names.
    pub(super) branches: Vec<(String, At)>,
    /// Two branches read alike in JSON: values carry the name of theirs.
    pub(super) named: bool,
}

/// How a value looks in JSON; branches of a union that look alike must be named.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Look {
    Null,
    Boolean,
    Number,
    Text,
    List,
    Object,
}

#[derive(Clone, PartialEq, Debug)]
pub struct Schema {
    pub(super) nodes: Vec<Node>,
    pub(super) root: At,
    canonical: String,
    /// Bytes of its text, with all that it refers to.
    pub(super) weight: usize,
}

impl Schema {
    pub fn parse(text: &str) -> Result<Schema, Refused> {
        Self::parse_with(text, &[])
    }

    /// `others`: the texts that this one refers to by name.
    pub(super) fn parse_with(text: &str, others: &[String]) -> Result<Schema, Refused> {
        let weight = text.len() + others.iter().map(String::len).sum::<usize>();
        if weight > TEXT_MAX {
            return Err(Refused::new(format!("the schema has {weight} bytes; the limit is {TEXT_MAX}")));
        }
        let (read, others) = Read::parse_str_with_list(text, others)
            .map_err(|e| Refused::new(format!("not an Avro schema: {e}")))?;
        let mut library = HashMap::new();
        for other in &others {
            if let Some(name) = other.name() {
                library.insert(name.fullname(None), other);
            }
        }
        let mut table = Table { nodes: vec![], known: HashMap::new(), library };
        let root = table.add(&read, None)?;
        let mut nodes = table.nodes;
        name_branches(&mut nodes)?;
        Ok(Schema { nodes, root, canonical: read.canonical_form(), weight })
    }

    /// Whether data of the one is data of the other: documentation and the like do not count.
    pub fn same_as(&self, other: &Schema) -> bool {
        self.canonical == other.canonical
    }
}

struct Table<'a> {
    nodes: Vec<Node>,
    /// Named types that are in the table.
    known: HashMap<String, At>,
    /// Those of other texts, which get in when they are first named.
    library: HashMap<String, &'a Read>,
}

impl<'a> Table<'a> {
    fn add(&mut self, read: &'a Read, space: Option<&str>) -> Result<At, Refused> {
        let node = match read {
            Read::Null => Node::Null,
            Read::Boolean => Node::Boolean,
            Read::Int => Node::Int,
            Read::Long => Node::Long,
            Read::Float => Node::Float,
            Read::Double => Node::Double,
            // Its scale is in its bytes; few write it, and its bytes say all.
            Read::Bytes | Read::BigDecimal => Node::Bytes,
            Read::String | Read::Uuid(UuidSchema::String) => Node::String,
            Read::Array(array) => Node::Array(self.add(&array.items, space)?),
            Read::Map(map) => Node::Map(self.add(&map.types, space)?),
            Read::Union(union) => {
                let branches = union
                    .variants()
                    .iter()
                    .map(|branch| Ok((branch_name(branch, space), self.add(branch, space)?)));
                Node::Union(Union { branches: branches.collect::<Result<_, Refused>>()?, named: false })
            }
            Read::Record(record) => return self.record(record, space),
            Read::Enum(symbols) => {
                return Ok(self.named(&symbols.name, space, Node::Enum(symbols.symbols.clone())));
            }
            Read::Fixed(fixed) => return Ok(self.named(&fixed.name, space, Node::Fixed(fixed.size))),
            Read::Decimal(decimal) => {
                let (precision, scale) = (decimal.precision, decimal.scale);
                if precision > DIGITS_MAX || scale > precision {
                    let what = format!("a decimal of {precision} digits, {scale} of them behind the point");
                    return Err(Refused::new(format!("{what}; the limit is {DIGITS_MAX}")));
                }
                match &decimal.inner {
                    InnerDecimalSchema::Bytes => Node::Decimal { fixed: None, precision, scale },
                    InnerDecimalSchema::Fixed(fixed) => {
                        let node = Node::Decimal { fixed: Some(fixed.size), precision, scale };
                        return Ok(self.named(&fixed.name, space, node));
                    }
                }
            }
            Read::Uuid(UuidSchema::Bytes) => Node::Uuid { counted: true },
            Read::Uuid(UuidSchema::Fixed(fixed)) => {
                return Ok(self.named(&fixed.name, space, Node::Uuid { counted: false }));
            }
            Read::Date => Node::Date,
            Read::TimeMillis => Node::Time(Unit::Millis),
            Read::TimeMicros => Node::Time(Unit::Micros),
            Read::TimestampMillis => Node::Timestamp { unit: Unit::Millis, local: false },
            Read::TimestampMicros => Node::Timestamp { unit: Unit::Micros, local: false },
            Read::TimestampNanos => Node::Timestamp { unit: Unit::Nanos, local: false },
            Read::LocalTimestampMillis => Node::Timestamp { unit: Unit::Millis, local: true },
            Read::LocalTimestampMicros => Node::Timestamp { unit: Unit::Micros, local: true },
            Read::LocalTimestampNanos => Node::Timestamp { unit: Unit::Nanos, local: true },
            Read::Duration(fixed) => return Ok(self.named(&fixed.name, space, Node::Duration)),
            Read::Ref { name } => return self.named_elsewhere(name, space),
        };
        Ok(self.put(node))
    }

    fn put(&mut self, node: Node) -> At {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn named(&mut self, name: &Name, space: Option<&str>, node: Node) -> At {
        let at = self.put(node);
        self.known.insert(name.fullname(space), at);
        at
    }

    fn named_elsewhere(&mut self, name: &Name, space: Option<&str>) -> Result<At, Refused> {
        let full = name.fullname(space);
        if let Some(at) = self.known.get(&full) {
            return Ok(*at);
        }
        match self.library.get(&full).copied() {
            Some(other) => self.add(other, None),
            None => Err(Refused::new(format!("the schema names a type `{full}` that is nowhere"))),
        }
    }

    /// Its place is known before its fields are: they may refer to it.
    fn record(&mut self, record: &'a RecordSchema, space: Option<&str>) -> Result<At, Refused> {
        let at = self.named(&record.name, space, Node::Null);
        let full = record.name.fully_qualified_name(space);
        let mut fields = Vec::with_capacity(record.fields.len());
        for field in &record.fields {
            let node = self.add(&field.schema, full.namespace())?;
            let default = field.default.clone().filter(|value| self.reads_alike(node, value));
            fields.push(Field { name: field.name.clone(), node, default });
        }
        self.nodes[at] = Node::Record(fields);
        Ok(at)
    }

    /// Whether a default means in JSON what it means in the schema: bytes, for instance, do not.
    fn reads_alike(&self, at: At, value: &Value) -> bool {
        match (&self.nodes[at], value) {
            (Node::Union(union), value) => {
                union.branches.iter().any(|(_, branch)| self.reads_alike(*branch, value))
            }
            (Node::Null, Value::Null) | (Node::Boolean, Value::Bool(_)) => true,
            (Node::Int | Node::Long | Node::Float | Node::Double, Value::Number(_)) => true,
            (Node::String | Node::Enum(_), Value::String(_)) => true,
            (Node::Array(_), Value::Array(items)) => items.is_empty(),
            (Node::Map(_), Value::Object(fields)) => fields.is_empty(),
            _ => false,
        }
    }
}

/// As the specification's JSON form names the branches of a union.
fn branch_name(branch: &Read, space: Option<&str>) -> String {
    if let Some(name) = branch.name() {
        return name.fullname(space);
    }
    match branch {
        Read::Null => "null",
        Read::Boolean => "boolean",
        Read::Int | Read::Date | Read::TimeMillis => "int",
        Read::Float => "float",
        Read::Double => "double",
        Read::Bytes | Read::BigDecimal | Read::Decimal(_) | Read::Uuid(UuidSchema::Bytes) => "bytes",
        Read::String | Read::Uuid(UuidSchema::String) => "string",
        Read::Array(_) => "array",
        Read::Map(_) => "map",
        // Longs, and times that are longs.
        _ => "long",
    }
    .to_owned()
}

/// Finds the unions whose branches read alike in JSON.
fn name_branches(nodes: &mut [Node]) -> Result<(), Refused> {
    for at in 0..nodes.len() {
        let Node::Union(union) = &nodes[at] else { continue };
        let mut looks: Vec<Look> = union.branches.iter().map(|(_, branch)| look(&nodes[*branch])).collect();
        looks.sort_unstable();
        // Numbers of several sizes are still numbers.
        let named = looks.windows(2).any(|pair| pair[0] == pair[1] && pair[0] != Look::Number);
        let mut names: Vec<&str> = union.branches.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Refused::new(format!("a union has two branches `{}`", twice[0])));
        }
        if let Node::Union(union) = &mut nodes[at] {
            union.named = named;
        }
    }
    Ok(())
}

pub(super) fn look(node: &Node) -> Look {
    match node {
        // A union is never a branch of a union.
        Node::Null | Node::Union(_) => Look::Null,
        Node::Boolean => Look::Boolean,
        Node::Int | Node::Long | Node::Float | Node::Double => Look::Number,
        Node::Array(_) => Look::List,
        Node::Map(_) | Node::Record(_) | Node::Duration => Look::Object,
        _ => Look::Text,
    }
}

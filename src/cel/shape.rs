//! What an expression consists of: how many operators, how deep its loops, which names and fields.

use cel::common::ast::{EntryExpr, Expr, IdedExpr};
use std::collections::BTreeSet;

/// Types are written like names.
const TYPES: &[&str] = &[
    "bool",
    "bytes",
    "double",
    "duration",
    "int",
    "list",
    "map",
    "null_type",
    "string",
    "timestamp",
    "type",
    "uint",
    "google",
    "optional",
    "optional_type",
    "strings",
];

pub(super) struct Shape {
    pub(super) operators: usize,
    pub(super) nesting: usize,
    /// Free names, sorted.
    pub(super) names: Vec<String>,
    /// Longest chains of field accesses from a free name, sorted.
    pub(super) fields: Vec<String>,
    pub(super) functions: Vec<String>,
}

impl Shape {
    /// Walks by recursion: called on the large stack it was compiled on.
    pub(super) fn of(expression: &IdedExpr) -> Shape {
        let mut walk = Walk::default();
        walk.visit(expression, 0);
        Shape {
            operators: walk.operators,
            nesting: walk.nesting,
            names: walk.names.into_iter().collect(),
            fields: walk.fields.into_iter().collect(),
            functions: walk.functions.into_iter().collect(),
        }
    }
}

#[derive(Default)]
struct Walk<'e> {
    operators: usize,
    nesting: usize,
    /// Variables of the loops around the place we are at.
    bound: Vec<&'e str>,
    names: BTreeSet<String>,
    fields: BTreeSet<String>,
    functions: BTreeSet<String>,
}

impl<'e> Walk<'e> {
    fn visit(&mut self, e: &'e IdedExpr, depth: usize) {
        match &e.expr {
            Expr::Unspecified | Expr::Literal(_) => {}
            Expr::Ident(_) => self.chain(e),
            Expr::Select(select) => {
                self.operators += 1;
                match spelled(e) {
                    Some(_) => self.chain(e),
                    None => self.visit(&select.operand, depth),
                }
            }
            Expr::Call(call) => {
                self.operators += 1;
                self.functions.insert(call.func_name.clone());
                call.target.iter().for_each(|t| self.visit(t, depth));
                call.args.iter().for_each(|a| self.visit(a, depth));
            }
            Expr::List(list) => list.elements.iter().for_each(|e| self.visit(e, depth)),
            Expr::Map(map) => self.entries(&map.entries, depth),
            Expr::Struct(s) => self.entries(&s.entries, depth),
            Expr::Comprehension(c) => {
                self.operators += 1;
                self.nesting = self.nesting.max(depth + 1);
                self.visit(&c.iter_range, depth);
                self.visit(&c.accu_init, depth);
                let before = self.bound.len();
                self.bound.extend([c.iter_var.as_str(), c.accu_var.as_str()]);
                self.bound.extend(c.iter_var2.as_deref());
                [&c.loop_cond, &c.loop_step, &c.result].into_iter().for_each(|e| self.visit(e, depth + 1));
                self.bound.truncate(before);
            }
        }
    }

    fn entries(&mut self, entries: &'e [cel::common::ast::IdedEntryExpr], depth: usize) {
        for entry in entries {
            match &entry.expr {
                EntryExpr::StructField(field) => self.visit(&field.value, depth),
                EntryExpr::MapEntry(entry) => {
                    self.visit(&entry.key, depth);
                    self.visit(&entry.value, depth);
                }
            }
        }
    }

    /// A name, or fields of one: `answer.dosage`.
    fn chain(&mut self, e: &IdedExpr) {
        let Some(segments) = spelled(e) else { return };
        let root = segments[0];
        if root.starts_with('@') || self.bound.contains(&root) || TYPES.contains(&root) {
            return;
        }
        self.names.insert(root.to_owned());
        self.fields.insert(segments.join("."));
    }
}

/// The segments of `a.b.c`, also inside `has(a.b.c)`.
fn spelled(e: &IdedExpr) -> Option<Vec<&str>> {
    let (mut e, mut segments) = (e, Vec::new());
    loop {
        match &e.expr {
            Expr::Ident(name) => {
                segments.push(name.as_str());
                segments.reverse();
                return Some(segments);
            }
            Expr::Select(select) => {
                segments.push(select.field.as_str());
                e = &select.operand;
            }
            _ => return None,
        }
    }
}

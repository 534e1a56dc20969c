//! Whether an expression can be true or false at all, as far as its form tells without values.
//!
//! Says no only where that is certain: a literal, arithmetic, a function whose result is known. What is
//! read of a task or an answer may hold anything.

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue};

/// What it gives instead, in words; `None`: it may be true or false. Walks by recursion: called on the
/// large stack it was compiled on.
pub(super) fn never(e: &IdedExpr) -> Option<String> {
    match &e.expr {
        Expr::Literal(literal) => of_literal(literal).map(|what| format!("it is {what}")),
        Expr::List(_) => Some("it is a list".to_owned()),
        Expr::Map(_) | Expr::Struct(_) => Some("it is an object".to_owned()),
        Expr::Call(call) => of_call(call),
        Expr::Comprehension(loops) => match &loops.result.expr {
            // `map` and `filter` gather a list; `all` and `exists` begin with a truth value.
            Expr::Ident(name) if *name == loops.accu_var => match &loops.accu_init.expr {
                Expr::List(_) => Some("its loop gives a list".to_owned()),
                _ => None,
            },
            _ => None,
        },
        Expr::Unspecified | Expr::Ident(_) | Expr::Select(_) => None,
    }
}

fn of_literal(literal: &LiteralValue) -> Option<&'static str> {
    match literal {
        LiteralValue::Boolean(_) => None,
        LiteralValue::Int(_) | LiteralValue::UInt(_) | LiteralValue::Double(_) => Some("a number"),
        LiteralValue::String(_) => Some("a text"),
        LiteralValue::Bytes(_) => Some("bytes"),
        LiteralValue::Null => Some("null"),
    }
}

fn of_call(call: &CallExpr) -> Option<String> {
    let name = call.func_name.as_str();
    match (name, call.args.as_slice()) {
        // A part that is no condition makes it an error whenever it counts.
        ("_&&_" | "_||_" | "!_", parts) => return parts.iter().find_map(never),
        ("_?_:_", [condition, yes, no]) => return never(condition).or_else(|| never(yes).and(never(no))),
        _ => {}
    }
    let what = match name {
        "_+_" => "a sum or a joined text",
        "_-_" => "a difference",
        "_*_" | "_/_" | "_%_" | "-_" => "a number",
        "size" | "int" | "uint" | "double" | "indexOf" | "lastIndexOf" => "a number",
        _ if name.starts_with("get") => "a number",
        "string" | "charAt" | "join" | "lowerAscii" | "upperAscii" | "trim" | "replace" | "substring"
        | "format" | "reverse" => "a text",
        "split" => "a list",
        "bytes" => "bytes",
        "type" => "a type",
        "timestamp" | "duration" => "a time",
        "of" | "none" | "ofNonZeroValue" | "optMap" | "optFlatMap" | "or" => "an optional value",
        _ => return None,
    };
    Some(format!("`{}` gives {what}", name.trim_matches('_')))
}

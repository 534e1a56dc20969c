//! Whether an expression, or a part of it that counts as a condition, can be true or false at all, as far as
//! its form tells without values.
//!
//! Says no only where that is certain: a literal, arithmetic, a function whose result is known. What is
//! read of a task or an answer may hold anything. A part that is no condition makes the whole an error
//! whenever it is looked at, so `sure || 42` is refused as well, although it can be true.

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue};

/// What is wrong with it, after its name; `None`: it may be true or false. Walks by recursion: called on the
/// large stack it was compiled on.
pub(super) fn never(e: &IdedExpr) -> Option<String> {
    let Never { part, gives } = whole(e)?;
    let has = if part { "has a part that " } else { "" };
    Some(format!("{has}can be neither true nor false: {gives}"))
}

struct Never {
    /// The expression itself may be true or false.
    part: bool,
    /// What it gives instead, in words.
    gives: String,
}

fn whole(e: &IdedExpr) -> Option<Never> {
    let gives = match &e.expr {
        Expr::Literal(literal) => format!("it is {}", of_literal(literal)?),
        Expr::List(_) => "it is a list".to_owned(),
        Expr::Map(_) | Expr::Struct(_) => "it is an object".to_owned(),
        Expr::Call(call) => return of_call(call),
        Expr::Comprehension(loops) => match (&loops.result.expr, &loops.accu_init.expr) {
            // `map` and `filter` gather a list; `all` and `exists` begin with a truth value.
            (Expr::Ident(name), Expr::List(_)) if *name == loops.accu_var => {
                "its loop gives a list".to_owned()
            }
            _ => return None,
        },
        Expr::Unspecified | Expr::Ident(_) | Expr::Select(_) => return None,
    };
    Some(Never { part: false, gives })
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

fn of_call(call: &CallExpr) -> Option<Never> {
    let name = call.func_name.as_str();
    match (name, call.args.as_slice()) {
        ("_&&_" | "_||_", parts) => {
            return parts.iter().find_map(whole).map(|never| Never { part: true, ..never });
        }
        ("!_", [part]) => return whole(part),
        ("_?_:_", [condition, yes, no]) => return whole(condition).or_else(|| whole(yes).and(whole(no))),
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
    Some(Never { part: false, gives: format!("`{}` gives {what}", name.trim_matches('_')) })
}

//! Whether the fields that an expression or a prompt reads can be there at all.
//!
//! Only what is certain is reported: a schema that names its properties and closes the door behind
//! them. Anything else may have the field.

use super::context::Context;
use super::written::closest;
use crate::cel::Expression;
use crate::validate::Schema;
use serde_json::Value;
use std::ops::Range;

/// Reports the first field that `expression` reads of `root` (`task`, `answer`) and that `schema` rules out.
pub(super) fn check(
    expression: &Expression,
    root: &str,
    schema: &Schema,
    span: Range<usize>,
    cx: &Context<'_>,
) {
    let of_root =
        |f: &String| f.strip_prefix(root).and_then(|rest| rest.strip_prefix('.')).map(str::to_owned);
    let read = expression.fields().iter().filter_map(of_root);
    check_names(read, root, schema, span, cx);
}

/// What to do about a rule that is no condition.
pub(super) const COMPARE: &str = "compare it with something, such as that = \"answer.amount + 1 <= 500\"";

/// Reports a rule that is nothing but a field of `root`, where the schema says that the field is never
/// true or false.
pub(super) fn check_truth(
    expression: &Expression,
    root: &str,
    schema: &Schema,
    span: Range<usize>,
    cx: &Context<'_>,
) {
    let source = expression.source().trim();
    let alone = matches!(expression.fields(), [field] if field == source);
    let Some(path) = source.strip_prefix(root).and_then(|rest| rest.strip_prefix('.')).filter(|_| alone)
    else {
        return;
    };
    let at = path.split('.').try_fold(schema.json(), |at, field| at.get("properties")?.get(field));
    let is = match at.and_then(|at| at.get("type")) {
        Some(Value::String(one)) => one.clone(),
        Some(Value::Array(some)) => some.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or "),
        _ => return,
    };
    if !is.split(" or ").any(|one| one == "boolean") {
        cx.report.add(span, format!("`{source}` can be neither true nor false: it is of type {is}"), COMPARE);
    }
}

/// The same for the fields that something reads, without their root.
pub(super) fn check_names(
    read: impl Iterator<Item = String>,
    root: &str,
    schema: &Schema,
    span: Range<usize>,
    cx: &Context<'_>,
) {
    let Some(known) = closed(schema.json()) else { return };
    for path in read {
        let field = path.split(['.', '[']).next().unwrap_or("");
        if !field.is_empty() && !known.contains(&field) {
            let help = match closest(field, known.iter().copied()) {
                Some(near) => format!("did you mean `{root}.{near}`?"),
                None => format!("its schema has {}", known.join(", ")),
            };
            return cx.report.add(span, format!("`{root}` has no field `{field}`"), help);
        }
    }
}

/// The names of all properties that a value may have, where the schema says that there are no others.
fn closed(schema: &Value) -> Option<Vec<&str>> {
    let schema = schema.as_object()?;
    let composed = ["$ref", "allOf", "anyOf", "oneOf", "if", "patternProperties"];
    if composed.iter().any(|key| schema.contains_key(*key))
        || schema.get("additionalProperties") != Some(&Value::Bool(false))
    {
        return None;
    }
    Some(schema.get("properties")?.as_object()?.keys().map(String::as_str).collect())
}

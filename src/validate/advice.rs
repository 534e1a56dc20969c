//! Schema errors as advice a model can act on: which field, what it is, what it must be.

use crate::finding::{Finding, below, quoted};
use jsonschema::ValidationError;
use jsonschema::error::{TypeKind, ValidationErrorKind as K};
use serde_json::Value;

/// Allowed values named in one finding.
const OPTIONS_MAX: usize = 20;
/// Unexpected or missing fields named one by one in one place.
const NAMES_MAX: usize = 10;

/// One error as findings: usually one; one for each field that is not asked for.
pub(super) fn of(error: &ValidationError<'_>, root: &Value) -> Vec<Finding> {
    let path = path_of(error.instance_path().as_str(), root);
    let keyword = error.kind().keyword();
    match error.kind() {
        K::Required { property } => {
            let field = below(&path, property.as_str().unwrap_or_default());
            vec![Finding::new(field.clone(), keyword, format!("`{}` is missing", name(&field)))]
        }
        K::AdditionalProperties { unexpected } | K::UnevaluatedProperties { unexpected } => unexpected
            .iter()
            .take(NAMES_MAX)
            .map(|extra| below(&path, extra))
            .map(|f| {
                Finding::new(f.clone(), keyword, format!("`{}` is not asked for; leave it out", name(&f)))
            })
            .collect(),
        kind => {
            let field = if path.is_empty() { "the value".into() } else { format!("`{}`", name(&path)) };
            let message = format!("{field} {}", what(kind, error.instance(), root, error));
            vec![Finding::new(path, keyword, shorten(&message, 500))]
        }
    }
}

/// `/medication/2/dose` as `medication[2].dose`. Whether a number is an index, the value says.
pub(super) fn path_of(pointer: &str, root: &Value) -> String {
    let mut here = Some(root);
    let mut path = String::new();
    for segment in pointer.split('/').skip(1) {
        let segment = segment.replace("~1", "/").replace("~0", "~");
        match here {
            Some(Value::Array(items)) => {
                path = format!("{path}[{segment}]");
                here = segment.parse::<usize>().ok().and_then(|i| items.get(i));
            }
            other => {
                path = below(&path, &segment);
                here = other.and_then(|v| v.get(&segment));
            }
        }
    }
    path
}

fn what(kind: &K, value: &Value, root: &Value, error: &ValidationError<'_>) -> String {
    let is = shown(value);
    match kind {
        K::Enum { options } => format!("is {is}; allowed: {}", allowed(options)),
        K::Constant { expected_value } => format!("is {is}; it must be {}", shown(expected_value)),
        K::Type { kind } => format!("is {is}, {}; it must be {}", a_kind(value), types(kind)),
        K::Format { format } => format!("is {is}; it must be {}", format_words(format)),
        K::Pattern { pattern } => format!("is {is}; it must match the pattern {}", shorten(pattern, 120)),
        K::Minimum { limit } => format!("is {is}; it must be {limit} or more"),
        K::Maximum { limit } => format!("is {is}; it must be {limit} or less"),
        K::ExclusiveMinimum { limit } => format!("is {is}; it must be more than {limit}"),
        K::ExclusiveMaximum { limit } => format!("is {is}; it must be less than {limit}"),
        K::MultipleOf { multiple_of } => format!("is {is}; it must be a multiple of {multiple_of}"),
        K::MinLength { limit } => format!("is {is}; it must have at least {limit} characters"),
        K::MaxLength { limit } => format!("is {is}; it must have at most {limit} characters"),
        K::MinItems { limit } => format!("has {} items; it must have at least {limit}", len(value)),
        K::MaxItems { limit } => format!("has {} items; it must have at most {limit}", len(value)),
        K::AdditionalItems { limit } => format!("has {} items; it must have at most {limit}", len(value)),
        K::UnevaluatedItems { .. } => "has items that are not asked for".into(),
        K::MinProperties { limit } => format!("has {} fields; it must have at least {limit}", len(value)),
        K::MaxProperties { limit } => format!("has {} fields; it must have at most {limit}", len(value)),
        K::UniqueItems => "holds the same item twice".into(),
        K::Contains => "holds no item of the kind it must contain".into(),
        K::FalseSchema => "must not be there".into(),
        K::Not { .. } => format!("is {is}, which is not allowed"),
        K::PropertyNames { error } => {
            format!("has a field with a wrong name: {}", shorten(&error.to_string(), 120))
        }
        K::OneOfMultipleValid { .. } => "fits several of the forms it must fit exactly one of".into(),
        K::AnyOf { context } | K::OneOfNotValid { context } => {
            format!("fits none of its allowed forms{}", nearest(context, root))
        }
        _ => format!("is wrong: {}", shorten(&error.to_string(), 200)),
    }
}

/// Of the alternatives, the one that got furthest: its deepest error, then the fewest errors.
fn nearest(context: &[Vec<ValidationError<'static>>], root: &Value) -> String {
    let depth = |e: &ValidationError<'_>| e.instance_path().as_str().matches('/').count();
    let best = context
        .iter()
        .filter_map(|errors| Some((errors.iter().map(depth).max()?, errors)))
        .max_by_key(|(deepest, errors)| (*deepest, std::cmp::Reverse(errors.len())));
    let Some((_, errors)) = best else { return String::new() };
    // Nested alternatives recurse here; schemas nest only as deep as serde_json reads them.
    let first = errors.iter().max_by_key(|e| depth(e)).map(|e| of(e, root)).unwrap_or_default();
    first.first().map_or_else(String::new, |f| format!("; nearest: {}", f.message))
}

fn allowed(options: &Value) -> String {
    let options = options.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut words: Vec<String> = options.iter().take(OPTIONS_MAX).map(shown).collect();
    if options.len() > OPTIONS_MAX {
        words.push(format!("and {} more", options.len() - OPTIONS_MAX));
    }
    words.join(", ")
}

fn types(kind: &TypeKind) -> String {
    let words: Vec<&str> = match kind {
        TypeKind::Single(one) => vec![article(one.as_str())],
        TypeKind::Multiple(set) => set.iter().map(|t| article(t.as_str())).collect(),
    };
    // Null last: "a string or null".
    let (nulls, mut rest): (Vec<&str>, Vec<&str>) = words.into_iter().partition(|w| *w == "null");
    rest.extend(nulls);
    rest.join(" or ")
}

fn article(kind: &str) -> &'static str {
    match kind {
        "array" => "a list",
        "boolean" => "true or false",
        "integer" => "an integer",
        "null" => "null",
        "number" => "a number",
        "object" => "an object",
        _ => "a string",
    }
}

fn a_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "no value",
        Value::Bool(_) => "a boolean",
        Value::Number(n) if n.is_f64() => "a number",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn format_words(format: &str) -> String {
    match format {
        "date" => "a date, written 2026-11-24".into(),
        "time" => "a time, written 14:05:00Z".into(),
        "date-time" => "a date and time, written 2026-11-24T14:05:00Z".into(),
        "duration" => "a duration, written P1DT2H".into(),
        "email" | "idn-email" => "an e-mail address".into(),
        "uuid" => "a UUID".into(),
        "uri" | "iri" => "a full URI".into(),
        other => format!("of the format {other}"),
    }
}

/// The value on one line, shortened. Lists and objects by their size: their text would say little.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(fields) => format!("an object of {} fields", fields.len()),
        other => other.to_string(),
    }
}

fn len(value: &Value) -> usize {
    value.as_array().map(Vec::len).or(value.as_object().map(serde_json::Map::len)).unwrap_or(0)
}

/// A field's name as shown: one line, shortened; it may come out of an answer.
fn name(field: &str) -> String {
    shorten(&field.replace(|c: char| c.is_control() || c == '`', " "), 120)
}

pub(super) fn shorten(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

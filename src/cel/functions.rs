//! The functions expressions may call, and our own among them.
//!
//! | ours | is true when |
//! |---|---|
//! | `contains_text(text, part)` | `part` stands in `text`; case, runs of white space and the shape of quotes and dashes do not count. An empty part stands nowhere |
//! | `same_text(a, b)` | both are equal, read in the same way |
//! | `cites(sources, index, quote)` | `sources[index]` is there and contains `quote`; a source is a text, or an object with a field `text` |
//!
//! They may be called as methods too: `task.text.contains_text(item.quote)`.

use cel::extractors::This;
use cel::objects::Key;
use cel::{Context, ExecutionError};
use std::sync::Arc;

/// Everything an expression may call, besides operators and loops.
pub(super) const KNOWN: &[&str] = &[
    "contains_text",
    "same_text",
    "cites", // ours
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "in",
    "has",
    "all",
    "exists",
    "exists_one",
    "map",
    "filter",
    "int",
    "uint",
    "double",
    "string",
    "bool",
    "bytes",
    "type",
    "dyn",
    "timestamp",
    "duration",
    "getFullYear",
    "getMonth",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getHours",
    "getMinutes",
    "getSeconds",
    "getMilliseconds",
    "charAt",
    "indexOf",
    "lastIndexOf",
    "join",
    "lowerAscii",
    "upperAscii",
    "trim",
    "replace",
    "split",
    "substring",
    "format",
    "reverse",
    "of",
    "none",
    "ofNonZeroValue",
    "hasValue",
    "value",
    "or",
    "orValue",
    "optMap",
    "optFlatMap",
];

/// Operators are calls as well, with names no one can write.
pub(super) fn is_known(function: &str) -> bool {
    function.starts_with(['_', '@', '!', '-']) || KNOWN.contains(&function)
}

/// Text our functions may read in one evaluation: sixteen times the largest record. A loop over
/// ten thousand items that searches a large text would otherwise hold a worker for seconds.
const READ_MAX: usize = 16 << 20;

pub(super) fn register(context: &mut Context<'_, '_>) {
    let read = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let spend = move |bytes: usize| {
        let before = read.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
        match before.saturating_add(bytes) <= READ_MAX {
            true => Ok(()),
            false => Err(ExecutionError::function_error("contains_text", "too much text to search")),
        }
    };
    let (first, second) = (spend.clone(), spend.clone());
    let added = [
        context.add_function("contains_text", move |This(text): This<Arc<String>>, part: Arc<String>| {
            first(text.len() + part.len()).map(|()| cel::Value::Bool(contains_text(&text, &part)))
        }),
        context.add_function("same_text", move |This(a): This<Arc<String>>, b: Arc<String>| {
            second(a.len() + b.len()).map(|()| cel::Value::Bool(same_text(&a, &b)))
        }),
        context.add_function(
            "cites",
            move |This(list): This<Arc<Vec<cel::Value>>>, index: i64, part: Arc<String>| {
                let source = usize::try_from(index).ok().and_then(|i| list.get(i)).and_then(text_of);
                let Some(text) = source else { return Ok(cel::Value::Bool(false)) };
                spend(text.len() + part.len()).map(|()| cel::Value::Bool(contains_text(&text, &part)))
            },
        ),
    ];
    debug_assert!(added.iter().all(Result::is_ok), "no name of ours is one of the standard library's");
}

fn text_of(source: &cel::Value) -> Option<Arc<String>> {
    match source {
        cel::Value::String(text) => Some(Arc::clone(text)),
        cel::Value::Map(fields) => match fields.get(&Key::from("text")) {
            Some(cel::Value::String(text)) => Some(Arc::clone(text)),
            _ => None,
        },
        _ => None,
    }
}

/// Does `part` stand in `text`, read as a person would? An empty part rests on nothing: false.
pub fn contains_text(text: &str, part: &str) -> bool {
    let part = plain(part);
    !part.is_empty() && plain(text).contains(&part)
}

/// Are the texts equal, read as a person would?
pub fn same_text(a: &str, b: &str) -> bool {
    plain(a) == plain(b)
}

/// Lower case, white space as single blanks, typographic quotes and dashes as typed ones.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if c.is_whitespace() => {
                if !out.is_empty() && !out.ends_with(' ') {
                    out.push(' ');
                }
            }
            '\u{2018}' | '\u{2019}' | '\u{201b}' => out.push('\''),
            '\u{201c}' | '\u{201d}' | '\u{201e}' => out.push('"'),
            '\u{2010}'..='\u{2015}' | '\u{2212}' => out.push('-'),
            c => out.extend(c.to_lowercase()),
        }
    }
    out.truncate(out.trim_end().len());
    out
}

//! The functions expressions may call, and our own among them.
//!
//! | ours | is true when |
//! |---|---|
//! | `contains_text(text, part)` | `part` stands in `text`; case, runs of white space and the shape of quotes and dashes do not count. An empty part stands nowhere |
//! | `contains_words(text, part)` | the same, and `part` is no piece of a longer word or number: `50 mg` does not stand in `250 mg` |
//! | `same_text(a, b)` | both are equal, read in the same way |
//! | `cites(sources, index, quote)` | `sources[index]` is there and contains `quote`; a source is a text, or an object with a field `text` |
//!
//! They may be called as methods too: `task.text.contains_text(item.quote)`.

use cel::common::traits::Indexer;
use cel::common::types::{CelInt, CelList, CelMap, CelString};
use cel::extractors::This;
use cel::{Context, ExecutionError, FunctionContext, Value};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Ours in a sentence, for whoever looks for one.
pub const OURS: &str = "besides CEL's own: contains_text(text, part), contains_words(text, part) (no piece of \
                        a longer word), same_text(a, b), cites(list, index, quote) (the text of that item \
                        contains the quote)";

/// Everything an expression may call, besides operators and loops.
#[rustfmt::skip]
pub(super) const KNOWN: &[&str] = &[
    // Ours.
    "contains_text", "contains_words", "same_text", "cites",
    // The standard library's.
    "size", "contains", "startsWith", "endsWith", "matches", "in", "has", "all", "exists", "exists_one",
    "map", "filter", "int", "uint", "double", "string", "bool", "bytes", "type", "dyn", "timestamp",
    "duration", "getFullYear", "getMonth", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear",
    "getHours", "getMinutes", "getSeconds", "getMilliseconds",
    // Optional values, `task.?name.orValue("")`.
    "of", "none", "ofNonZeroValue", "hasValue", "value", "or", "orValue", "optMap", "optFlatMap",
    // The string extension's.
    "charAt", "indexOf", "lastIndexOf", "join", "lowerAscii", "upperAscii", "trim", "replace", "split",
    "substring", "format", "reverse",
];

/// Operators are calls as well, with names no one can write.
pub(super) fn is_known(function: &str) -> bool {
    function.starts_with(['_', '@', '!', '-']) || KNOWN.contains(&function)
}

/// Text our functions may read in all evaluations over the same names: thirty-two times the usual
/// largest record, well below a second. A loop over ten thousand items that searches a large text, or a
/// rule that does it for each item, would otherwise hold a worker for seconds.
const READ_MAX: usize = 32 << 20;

/// Text our functions have read over the present names.
#[derive(Clone, Default)]
pub(super) struct Read(Arc<AtomicUsize>);

impl Read {
    fn spend(&self, texts: [&str; 2]) -> Result<(), ExecutionError> {
        let bytes = texts[0].len() + texts[1].len();
        match self.0.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) <= READ_MAX {
            true => Ok(()),
            false => Err(ExecutionError::function_error("text", "too much text to search")),
        }
    }
}

pub(super) fn register(context: &mut Context<'_, '_>, read: &Read) {
    type Compare = fn(&str, &str) -> bool;
    let ours: [(&str, Compare); 3] =
        [("contains_text", contains_text), ("contains_words", contains_words), ("same_text", same_text)];
    for (name, compare) in ours {
        let read = read.clone();
        let added = context.add_function(name, move |This(a): This<Arc<String>>, b: Arc<String>| {
            read.spend([&a, &b]).map(|()| Value::Bool(compare(&a, &b)))
        });
        debug_assert!(added.is_ok(), "`{name}` is none of the standard library's");
    }
    let read = read.clone();
    let added = context.add_function("cites", move |call: &FunctionContext| cites(call, &read));
    debug_assert!(added.is_ok(), "`cites` is none of the standard library's");
}

/// Takes its arguments as they lie: a list that is copied for each item costs more than the search.
fn cites(call: &FunctionContext<'_, '_>, read: &Read) -> Result<Value, ExecutionError> {
    let mut arguments = call.this.iter().chain(&call.args);
    let (Some(sources), Some(index), Some(quote), None) =
        (arguments.next(), arguments.next(), arguments.next(), arguments.next())
    else {
        return Err(call.error("takes a list, an index and a text"));
    };
    let (Some(sources), Some(_), Some(quote)) = (
        sources.downcast_ref::<CelList>(),
        index.downcast_ref::<CelInt>(),
        quote.downcast_ref::<CelString>(),
    ) else {
        return Err(call.error("takes a list, an index and a text"));
    };
    // Out of the list, or no text there: it cites nothing.
    let Ok(source) = sources.get(index.as_ref()) else { return Ok(Value::Bool(false)) };
    let field = source.downcast_ref::<CelMap>().and_then(|m| m.get(&CelString::from("text")).ok());
    let text = source.downcast_ref::<CelString>().or(field.as_ref().and_then(|f| f.downcast_ref()));
    let Some(text) = text else { return Ok(Value::Bool(false)) };
    read.spend([text.inner(), quote.inner()])?;
    Ok(Value::Bool(contains_text(text.inner(), quote.inner())))
}

/// Does `part` stand in `text`, read as a person would? An empty part rests on nothing: false.
pub fn contains_text(text: &str, part: &str) -> bool {
    let part = plain(part);
    !part.is_empty() && plain(text).contains(&part)
}

/// As [`contains_text`], where `part` does not begin or end inside a word or a number.
pub fn contains_words(text: &str, part: &str) -> bool {
    let (text, part) = (plain(text), plain(part));
    let digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
    // A point or comma between digits belongs to the number.
    let joined = |next: Option<char>, beyond: Option<char>, edge: Option<char>| match next {
        Some('.' | ',') => digit(beyond) && digit(edge),
        // `50mg` holds the number 50; `head` stands in no `headache`.
        Some(c) if c.is_numeric() => edge.is_some_and(char::is_numeric),
        Some(c) => c.is_alphabetic() && edge.is_some_and(char::is_alphabetic),
        None => false,
    };
    !part.is_empty()
        && text.match_indices(&part).any(|(at, _)| {
            let mut before = text[..at].chars().rev();
            let mut after = text[at + part.len()..].chars();
            !joined(before.next(), before.next(), part.chars().next())
                && !joined(after.next(), after.next(), part.chars().next_back())
        })
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

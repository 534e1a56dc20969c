//! Finds the answer in what a model said: JSON alone, in a fence, among prose, behind reasoning.
//!
//! The schema is the judge between several candidates: exactly one that satisfies it is the
//! answer. Two different ones are a finding, never a choice. Broken JSON is never repaired here,
//! and never searched for smaller pieces that happen to be whole.
//!
//! ## Bounds
//!
//! Every byte is read a small constant number of times: a piece that is no JSON after all is
//! passed over as far as it was read, or ended within a few bytes. Depth, size and the number of
//! candidates are capped, so neither ten megabytes nor ten thousand brackets cost more than a
//! moment.

use super::json::{self, Stop};
use super::schema::Schema;
use crate::finding::{self, Finding, Found};
use serde_json::Value;

/// Largest answer, bytes: none longer is buffered, kept or read. The usual limit of records.
pub const ANSWER_MAX: usize = 1 << 20;
/// Pieces of JSON looked at in one text. A model that says more has not answered but recited.
const CANDIDATES_MAX: usize = 16;
/// Up to here a piece that fails is taken for prose, `{name}` or `[see](there)`, not for broken JSON.
const PROSE_MAX: usize = 16;
/// Tags models put their reasoning in.
const REASONING: &[&str] = &["think", "thinking", "reasoning"];

/// What was found in a model's text. The default is that of no text at all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// The answer; it satisfies the schema. `None` exactly when there are findings.
    pub value: Option<Value>,
    /// Without an answer: what came nearest to one, for the sanitizer and for people.
    pub nearest: Option<Value>,
    pub found: Found,
    pub findings: Vec<Finding>,
    /// Pieces of JSON in the text, broken ones too. More than one is a doubt.
    pub candidates: usize,
}

/// Reads a model's text against its schema.
pub fn read_answer(text: &str, schema: &Schema) -> Reading {
    if text.len() > ANSWER_MAX {
        let what = format!("the answer has {} bytes, more than {ANSWER_MAX}; give a shorter one", text.len());
        return nothing(Finding::new("", finding::SIZE, what), 0);
    }
    let text = text.trim_start_matches('\u{feff}').trim();
    // A text that is one JSON value is taken as it is, whatever its strings contain.
    let refused = match json::parse(text) {
        Ok(value) => return judge(vec![Candidate { read: Ok(value), found: Found::Plain }], schema),
        Err(finding) => finding,
    };
    let said = without_reasoning(text);
    if said.trim().is_empty() {
        let what = if text.is_empty() {
            "the answer is empty"
        } else {
            "there is reasoning but no answer behind it"
        };
        return nothing(Finding::new("", finding::JSON, format!("json: {what}")), 0);
    }
    let mut candidates = Vec::new();
    for (piece, found) in pieces(said) {
        collect(piece, found, schema, &mut candidates);
    }
    if candidates.is_empty() && said.starts_with(['{', '[']) {
        return nothing(refused, 0);
    }
    judge(candidates, schema)
}

/// A piece of the text that is JSON or tried to be.
struct Candidate {
    read: Result<Value, Finding>,
    found: Found,
}

fn nothing(finding: Finding, candidates: usize) -> Reading {
    Reading { value: None, nearest: None, found: Found::Plain, findings: vec![finding], candidates }
}

/// The schema decides.
fn judge(candidates: Vec<Candidate>, schema: &Schema) -> Reading {
    let count = candidates.len();
    if count > CANDIDATES_MAX {
        let what = format!("the text holds more than {CANDIDATES_MAX} pieces of JSON; give one answer");
        return nothing(Finding::new("", finding::AMBIGUOUS, what), count);
    }
    let mut fitting: Vec<(Value, Found)> = Vec::new();
    let mut nearest: Option<(Value, Found, Vec<Finding>)> = None;
    let mut broken: Option<(Finding, Found)> = None;
    for Candidate { read, found } in candidates {
        match read.map(|value| (schema.check(&value), value)) {
            Ok((findings, value)) if findings.is_empty() => {
                broken = None;
                // Said twice in the same words is said once.
                if !fitting.iter().any(|(other, _)| *other == value) {
                    fitting.push((value, found));
                }
            }
            // The last of the nearest: drafts come first.
            Ok((findings, value)) => {
                if nearest.as_ref().is_none_or(|(_, _, other)| findings.len() <= other.len()) {
                    nearest = Some((value, found, findings));
                }
            }
            Err(finding) => broken = Some((finding, found)),
        }
    }
    match (fitting.len(), broken, nearest) {
        // A broken piece behind a whole one may be the answer, and the whole one its draft.
        (1, None, _) => {
            let (value, found) = fitting.remove(0);
            Reading { value: Some(value), nearest: None, found, findings: Vec::new(), candidates: count }
        }
        (0, None, None) => {
            nothing(Finding::new("", finding::JSON, "json: there is no JSON in the answer"), count)
        }
        (0, None, Some((value, found, findings))) => {
            Reading { value: None, nearest: Some(value), found, findings, candidates: count }
        }
        (0 | 1, Some((finding, found)), nearest) => {
            let nearest = fitting.pop().map(|(v, _)| v).or(nearest.map(|(v, ..)| v));
            Reading { value: None, nearest, found, findings: vec![finding], candidates: count }
        }
        (several, ..) => {
            let what = format!("the text holds {several} different answers that fit; give exactly one");
            let last = fitting.pop();
            let found = last.as_ref().map_or(Found::Prose, |(_, found)| *found);
            let findings = vec![Finding::new("", finding::AMBIGUOUS, what)];
            Reading { value: None, nearest: last.map(|(v, _)| v), found, findings, candidates: count }
        }
    }
}

/// What follows the reasoning. Some servers swallow the opening tag, so the last closing one
/// counts; a block that never closes has no answer behind it.
fn without_reasoning(text: &str) -> &str {
    let close = REASONING.iter().filter_map(|tag| {
        let tag = format!("</{tag}>");
        text.rfind(&tag).map(|at| at + tag.len())
    });
    let close = close.max().unwrap_or(0);
    let rest = &text[close..];
    let opened = REASONING.iter().any(|tag| {
        rest.trim_start()
            .strip_prefix('<')
            .and_then(|r| r.strip_prefix(tag))
            .is_some_and(|r| r.starts_with('>'))
    });
    if opened { "" } else { rest }
}

/// The text cut at its fences: lines that begin with three back-ticks or tildes. A fence that is
/// never closed reaches to the end.
fn pieces(text: &str) -> Vec<(&str, Found)> {
    let mut out = Vec::new();
    let (mut start, mut at, mut open) = (0, 0, None::<&str>);
    for line in text.split_inclusive('\n') {
        let end = at + line.len();
        let mark = ["```", "~~~"].into_iter().find(|mark| line.trim_start().starts_with(mark));
        let bare = |mark: &str| line.trim().trim_start_matches(|c| mark.starts_with(c));
        match (open, mark) {
            // A fence that opens and closes on one line is prose; so is an answer behind its mark.
            (None, Some(mark)) if !bare(mark).contains(['{', '[']) => {
                out.push((&text[start..at], Found::Prose));
                (start, open) = (end, Some(mark));
            }
            (Some(opened), Some(mark)) if opened == mark && bare(mark).is_empty() => {
                out.push((&text[start..at], Found::Fenced));
                (start, open) = (end, None);
            }
            _ => {}
        }
        at = end;
    }
    out.push((&text[start..], if open.is_some() { Found::Fenced } else { Found::Prose }));
    out
}

/// Collects the candidates of one piece, one more than the cap at most.
fn collect(piece: &str, found: Found, schema: &Schema, out: &mut Vec<Candidate>) {
    let alone = piece.trim().len();
    let mut at = 0;
    while out.len() <= CANDIDATES_MAX {
        let Some(next) = piece[at..].find(['{', '[']) else { return };
        let start = at + next;
        let rest = &piece[start..];
        if is_brace_in_prose(rest) {
            at = start + 1;
            continue;
        }
        at = start
            + match json::prefix(rest) {
                Ok((value, used)) => {
                    // The text without its reasoning may be the answer and nothing else.
                    let found = if used == alone { Found::Fenced } else { found };
                    if counts(&value, schema) {
                        out.push(Candidate { read: Ok(value), found });
                    }
                    used
                }
                Err(Stop { after, .. }) if !looks_like_json(rest, schema) => {
                    if after <= PROSE_MAX {
                        1
                    } else {
                        after
                    }
                }
                Err(stop) => {
                    out.push(Candidate { read: Err(stop.finding()), found });
                    region(rest).max(stop.after)
                }
            };
        while !piece.is_char_boundary(at) {
            at += 1;
        }
    }
}

/// A list where the schema wants an object is a footnote, `[1]`, unless objects are in it.
fn counts(value: &Value, schema: &Schema) -> bool {
    match value {
        Value::Array(items) => schema.root_is("array") || items.iter().any(Value::is_object),
        _ => true,
    }
}

/// Most braces in prose and code are told by the next character, without starting to parse.
fn is_brace_in_prose(text: &str) -> bool {
    let next = text[1..].trim_ascii_start().bytes().next();
    text.starts_with('{') && !matches!(next, Some(b'"' | b'}') | None)
}

/// Was it meant as JSON, however early it breaks? An object with a quoted name, a list of
/// objects; any list where the schema wants one.
fn looks_like_json(text: &str, schema: &Schema) -> bool {
    let mut marks = text.chars().filter(|c| !c.is_ascii_whitespace());
    match (marks.next(), marks.next()) {
        (Some('{'), Some('"')) | (Some('['), Some('{')) => true,
        (Some('['), Some('"' | '[')) => schema.root_is("array"),
        (Some('{'), None) => true,
        _ => false,
    }
}

/// How many bytes a broken piece takes: to its closing bracket, or to the end of the text.
fn region(text: &str) -> usize {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for (i, b) in text.bytes().enumerate() {
        match b {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return i + 1;
                }
            }
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests;

//! What is wrong with a configuration: all of it at once, each with its place and a hint.
//!
//! Renders for people (80 columns, no colour) and for scripts. A quoted line never shows what stands
//! where a secret stands.

use super::source::Source;
use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

/// Everything that is wrong with one configuration; never empty. Its `Display` is what people read.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Problems {
    /// The configuration file, as it was named.
    pub file: String,
    /// In the order of the file.
    pub all: Vec<Problem>,
}

/// One mistake.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Problem {
    /// What is wrong: lower-case, no period.
    pub what: String,
    /// Where; `None` when it is the file as a whole.
    pub at: Option<Place>,
    /// What to do about it.
    pub help: Option<String>,
}

/// A stretch of one line.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// In characters, at least 1.
    pub width: usize,
    /// The line, secrets blanked.
    pub quote: String,
}

/// Collects problems while the sections are read. Sections only ever add.
pub(super) struct Report<'a> {
    source: &'a Source,
    all: RefCell<Vec<(usize, Problem)>>,
}

impl<'a> Report<'a> {
    pub(super) fn new(source: &'a Source) -> Self {
        Report { source, all: RefCell::default() }
    }

    /// Notes a mistake at `span` (bytes of the file), with what to do about it.
    pub(super) fn add(&self, span: Range<usize>, what: impl Into<String>, help: impl Into<String>) {
        self.push(span, what.into(), Some(help.into()));
    }

    /// Notes a mistake that says by itself what to do.
    pub(super) fn bare(&self, span: Range<usize>, what: impl Into<String>) {
        self.push(span, what.into(), None);
    }

    /// Notes what is wrong with the file as a whole.
    pub(super) fn whole(&self, what: &str, help: &str) {
        self.all.borrow_mut().push((0, Problem { what: what.into(), at: None, help: Some(help.into()) }));
    }

    fn push(&self, span: Range<usize>, what: String, help: Option<String>) {
        let problem = Problem { what, at: Some(self.source.place(&span)), help };
        let mut all = self.all.borrow_mut();
        // One mistake may be met on two ways, a model named by two kinds for instance.
        if !all.iter().any(|(_, known)| *known == problem) {
            all.push((span.start, problem));
        }
    }

    /// A mark to compare with later: whether anything was added in between.
    pub(super) fn count(&self) -> usize {
        self.all.borrow().len()
    }

    /// `Ok` when nothing was wrong.
    pub(super) fn finish(&self) -> Result<(), Problems> {
        let mut all = self.all.take();
        if all.is_empty() {
            return Ok(());
        }
        all.sort_by_key(|(start, _)| *start);
        Err(Problems { file: self.source.name.clone(), all: all.into_iter().map(|(_, p)| p).collect() })
    }
}

impl Problems {
    /// The file as a whole is the problem.
    pub(crate) fn whole(file: &str, what: impl Into<String>, help: impl Into<String>) -> Self {
        let problem = Problem { what: what.into(), at: None, help: Some(help.into()) };
        Problems { file: file.to_owned(), all: vec![problem] }
    }
}

impl std::error::Error for Problems {}

/// What a terminal of 80 columns shows without wrapping.
const COLUMNS: usize = 80;

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.all {
            render(f, problem, &self.file)?;
            writeln!(f)?;
        }
        match self.all.len() {
            1 => write!(f, "1 problem in {}", self.file),
            n => write!(f, "{n} problems in {}", self.file),
        }
    }
}

fn render(f: &mut fmt::Formatter<'_>, problem: &Problem, file: &str) -> fmt::Result {
    wrapped(f, "error: ", &problem.what)?;
    let gutter = problem.at.as_ref().map_or(1, |at| at.line.to_string().len());
    let pad = " ".repeat(gutter);
    if let Some(at) = &problem.at {
        let (quote, before, width) = window(at, COLUMNS - gutter - 3);
        writeln!(f, "{pad}--> {file}:{}:{}", at.line, at.column)?;
        writeln!(f, "{pad} |")?;
        writeln!(f, "{} | {quote}", at.line)?;
        writeln!(f, "{pad} | {}{}", " ".repeat(before), "^".repeat(width))?;
    }
    match &problem.help {
        Some(help) => wrapped(f, &format!("{pad} = help: "), help),
        None => Ok(()),
    }
}

/// The part of the line that fits, with the caret's indentation and width in it.
fn window(at: &Place, room: usize) -> (String, usize, usize) {
    let chars: Vec<char> = at.quote.chars().map(|c| if c == '\t' { ' ' } else { c }).collect();
    let start = (at.column - 1).min(chars.len());
    if chars.len() <= room {
        return (chars.iter().collect(), start, at.width.min(chars.len().saturating_sub(start)).max(1));
    }
    // A third of the room goes to what stands before the mistake.
    let from = start.saturating_sub(room / 3).min(chars.len() - room + 1);
    let mut shown: Vec<char> = chars[from..].iter().copied().take(room).collect();
    if from > 0 {
        shown[0] = '…';
    }
    if from + room < chars.len() {
        shown[room - 1] = '…';
    }
    let before = start - from;
    let width = at.width.min(shown.len().saturating_sub(before)).max(1);
    (shown.into_iter().collect(), before, width)
}

/// Writes `text` behind `head`, further lines indented to its width.
fn wrapped(f: &mut fmt::Formatter<'_>, head: &str, text: &str) -> fmt::Result {
    let indent = head.chars().count();
    let mut column = indent;
    write!(f, "{head}")?;
    for (i, word) in text.split_whitespace().enumerate() {
        let wide = word.chars().count();
        if i > 0 && column + 1 + wide > COLUMNS {
            write!(f, "\n{}", " ".repeat(indent))?;
            column = indent;
        } else if i > 0 {
            write!(f, " ")?;
            column += 1;
        }
        write!(f, "{word}")?;
        column += wide;
    }
    writeln!(f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_cut_to_80_columns_with_the_caret_still_under_the_mistake() {
        let quote = format!("{}WRONG{}", "a ".repeat(60), " z".repeat(60));
        let at = Place { line: 7, column: 121, width: 5, quote };
        let problem = Problem { what: "x".into(), at: Some(at), help: None };
        let shown = Problems { file: "t.toml".into(), all: vec![problem] }.to_string();
        let lines: Vec<Vec<char>> = shown.lines().map(|l| l.chars().collect()).collect();
        assert!(lines.iter().all(|l| l.len() <= COLUMNS), "{shown}");
        let caret = lines[4].iter().position(|c| *c == '^').unwrap();
        assert_eq!(lines[3][caret..caret + 5].iter().collect::<String>(), "WRONG");
        assert_eq!(lines[4].iter().filter(|c| **c == '^').count(), 5);
    }

    #[test]
    fn long_messages_wrap_under_themselves() {
        let problem = Problem { what: "word ".repeat(30), at: None, help: Some("more ".repeat(30)) };
        let shown = Problems { file: "t.toml".into(), all: vec![problem] }.to_string();
        assert!(shown.lines().all(|l| l.chars().count() <= COLUMNS), "{shown}");
        assert!(shown.lines().nth(1).unwrap().starts_with("       word"), "{shown}");
    }
}

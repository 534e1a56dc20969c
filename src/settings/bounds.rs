//! Takes a written field into its range, or one of its words; says what the range or the words are.

use super::problems::Report;
use super::quantity::{show_duration, show_size};
use super::written::{Field, Size, closest};
use std::ops::RangeInclusive;
use std::time::Duration;

/// What has a range that people read.
pub(super) trait Bounded: Copy + PartialOrd {
    fn show(self) -> String;
}

impl Bounded for u64 {
    fn show(self) -> String {
        self.to_string()
    }
}

impl Bounded for f64 {
    fn show(self) -> String {
        self.to_string()
    }
}

impl Bounded for Duration {
    fn show(self) -> String {
        show_duration(self)
    }
}

impl PartialEq for Size {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl PartialOrd for Size {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        self.0.partial_cmp(&other.0)
    }
}

impl Bounded for Size {
    fn show(self) -> String {
        show_size(self.0)
    }
}

/// The field's value where it was given and lies in `range`; a problem where it does not.
pub(super) fn within<T: Bounded>(
    field: &Field<T>,
    name: &str,
    range: RangeInclusive<T>,
    report: &Report<'_>,
) -> Option<T> {
    let given = field.given()?;
    let value = *given.get_ref();
    if range.contains(&value) {
        return Some(value);
    }
    let help = format!("from {} to {}", range.start().show(), range.end().show());
    report.add(given.span(), format!("`{name}` is {}, which is out of range", value.show()), help);
    None
}

/// The value of the word that was given, of those that this field takes.
pub(super) fn choice<T: Copy>(
    field: &Field<String>,
    name: &str,
    words: &[(&str, T)],
    report: &Report<'_>,
) -> Option<T> {
    let given = field.given()?;
    let word = given.get_ref().as_str();
    if let Some((_, value)) = words.iter().find(|(w, _)| *w == word) {
        return Some(*value);
    }
    let all: Vec<String> = words.iter().map(|(w, _)| format!("\"{w}\"")).collect();
    let help = match closest(word, words.iter().map(|(w, _)| *w)) {
        Some(near) => format!("did you mean \"{near}\"? It takes {}", all.join(", ")),
        None => format!("it takes {}", all.join(", ")),
    };
    report.add(given.span(), format!("`{name}` does not take \"{word}\""), help);
    None
}

/// A name that may stand in topics, keys, metrics and URLs.
pub(super) fn name_is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.len() <= 64 && name.chars().all(plain) && name != "." && name != ".."
}

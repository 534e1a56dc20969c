//! What one check says of an answer, and how the fields of answers are named. Vocabulary shared by
//! `validate`, which finds, and `weigh`, which decides; nothing here does either.
//!
//! A **field** is written with dots and brackets from the answer's top: `category`,
//! `medication[2].dose`. A **pattern** has empty brackets: `medication[].dose` names the field in
//! every item. The empty text is the answer as a whole.

use serde::{Deserialize, Serialize};

/// How much a finding matters. Ordered: the worst is the greatest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// A doubt that lowers confidence and stops nothing.
    Minor,
    /// The answer cannot be used as it is.
    #[default]
    Major,
    /// As major, in a field or by a rule that was marked critical.
    Critical,
}

/// What one check says of an answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Finding {
    /// The field; empty: the answer as a whole.
    pub path: String,
    /// The schema's keyword (`enum`, `required`, …), or one of ours: [`JSON`], [`AMBIGUOUS`],
    /// [`NUMBER`], [`SIZE`], [`RULE`], [`REFUSED`], [`CUT`], [`SCOPE`].
    pub keyword: String,
    /// Advice a model and a person can act on. May quote the answer, shortened: never log it.
    pub message: String,
    #[serde(default)]
    pub severity: Severity,
}

/// No JSON, or broken JSON.
pub const JSON: &str = "json";
/// Several answers in one text.
pub const AMBIGUOUS: &str = "ambiguous";
/// A number that would not come back as it was written.
pub const NUMBER: &str = "number";
/// Too large or nested too deep.
pub const SIZE: &str = "size";
/// A rule of the kind that does not hold, or could not be checked.
pub const RULE: &str = "rule";
/// The model refused to answer.
pub const REFUSED: &str = "refused";
/// The answer was cut off by its token limit.
pub const CUT: &str = "cut";
/// The sanitizer changed what it was not asked to change.
pub const SCOPE: &str = "scope";

impl Finding {
    pub fn new(path: impl Into<String>, keyword: impl Into<String>, message: impl Into<String>) -> Finding {
        let (path, keyword, message) = (path.into(), keyword.into(), message.into());
        Finding { path, keyword, message, severity: Severity::Major }
    }

    /// The model refused; `words` are its own.
    pub fn refused(words: &str) -> Finding {
        Finding::new("", REFUSED, format!("the model refused: {}", quoted(words)))
    }

    /// The provider says that the token limit ended the answer.
    pub fn cut() -> Finding {
        Finding::new("", CUT, "the answer was cut off by its token limit; give a shorter one")
    }

    #[must_use]
    pub fn with_severity(self, severity: Severity) -> Finding {
        Finding { severity, ..self }
    }
}

/// How the JSON lay in the model's text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Found {
    /// The text was JSON and nothing else.
    #[default]
    Plain,
    /// In a fenced block, or behind a block of reasoning.
    Fenced,
    /// Among prose.
    Prose,
}

/// `name` as a field below `path`: `medication[2]` and `dose` give `medication[2].dose`.
pub fn below(path: &str, name: &str) -> String {
    let simple =
        !name.is_empty() && !name.contains(|c: char| ['.', '[', ']', '"'].contains(&c) || c.is_control());
    match (path.is_empty(), simple) {
        (true, true) => name.to_owned(),
        (false, true) => format!("{path}.{name}"),
        (_, false) => format!("{path}[{}]", serde_json::Value::from(name)),
    }
}

/// Is `field` the one that `pattern` names, or below it? A pattern without brackets covers items
/// as well: `medication` covers `medication[2].dose`, and the empty one everything.
pub fn covers(pattern: &str, field: &str) -> bool {
    let (mut p, mut f) = (pattern, field);
    loop {
        match p.find("[]") {
            None => {
                return p.is_empty()
                    || f.strip_prefix(p).is_some_and(|r| r.is_empty() || r.starts_with(['.', '[']));
            }
            Some(at) => {
                let Some(rest) = f.strip_prefix(&p[..at]).and_then(|r| r.strip_prefix('[')) else {
                    return false;
                };
                let Some(end) = rest.find(']') else { return false };
                if !rest[..end].bytes().all(|b| b.is_ascii_digit()) {
                    return false;
                }
                (p, f) = (&p[at + 2..], &rest[end + 1..]);
                if !p.is_empty() && !p.starts_with(['.', '[']) {
                    return false;
                }
            }
        }
    }
}

/// The pattern of a field: `medication[2].dose` gives `medication[].dose`.
pub fn pattern_of(field: &str) -> String {
    let mut out = String::with_capacity(field.len());
    let mut rest = field;
    while let Some(open) = rest.find('[') {
        let (before, inside) = rest.split_at(open + 1);
        out.push_str(before);
        // Quoted names stay; only indexes go.
        let end = if inside.starts_with('"') { inside.find("\"]").map(|q| q + 1) } else { inside.find(']') };
        let end = end.unwrap_or(inside.len());
        let index = inside[..end].bytes().all(|b| b.is_ascii_digit());
        out.push_str(if index { "" } else { &inside[..end] });
        rest = &inside[end..];
    }
    out.push_str(rest);
    out
}

/// A text in quotes on one line, shortened to 80 characters.
pub fn quoted(text: &str) -> String {
    let short: String = text.chars().take(80).collect();
    let more = if short.len() < text.len() { "…" } else { "" };
    serde_json::Value::from(short + more).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_named_so_that_odd_names_stay_unambiguous() {
        assert_eq!(below("", "category"), "category");
        assert_eq!(below("medication[2]", "dose"), "medication[2].dose");
        assert_eq!(below("a", "b.c"), r#"a["b.c"]"#);
        assert_eq!(below("", ""), r#"[""]"#);
        assert_eq!(below("", "x\ny"), r#"["x\ny"]"#, "on one line, whatever an answer calls its fields");
    }

    #[test]
    fn a_pattern_covers_its_field_in_every_item_and_what_lies_below() {
        for (pattern, field, expected) in [
            ("category", "category", true),
            ("category", "category2", false),
            ("medication[].dose", "medication[2].dose", true),
            ("medication[].dose", "medication[2].unit", false),
            ("medication[].dose", "medication[2].dose.low", true),
            ("medication", "medication[2].dose", true),
            ("medication[]", "medication[12]", true),
            ("medication[]", "medication", false),
            ("medication[2]", "medication[2].dose", true),
            ("medication[2]", "medication[21].dose", false),
            ("", "anything", true),
            ("a[][].b", "a[1][2].b", true),
        ] {
            assert_eq!(covers(pattern, field), expected, "{pattern} {field}");
        }
    }

    #[test]
    fn the_pattern_of_a_field_forgets_only_the_indexes() {
        assert_eq!(pattern_of("medication[2].dose"), "medication[].dose");
        assert_eq!(pattern_of(r#"a["1[2]"][3]"#), r#"a["1[2]"][]"#);
        assert_eq!(pattern_of("plain"), "plain");
    }
}

//! What a scenario file says: models with their latencies and faults, and the rules of their answers.
//!
//! Strict: an unknown key is an error with its line.

use super::answer::Rule;
use super::faults::{Stretch, When};
use super::latency::Latency;
use super::written::Span;
use crate::settings::closest;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// A scenario file is written by people.
const FILE_MAX: usize = 1024 * 1024;

/// Serves every model: half a second to the first token, one and a half to the last, no fault.
const BUILT_IN: &str = r#"
[models."*"]
first_token = { lognormal = { median = "500ms", sigma = 0.3 } }
total = { lognormal = { median = "1500ms", sigma = 0.3 } }
"#;

/// A scenario that uses every key, for people who write one.
pub const REFERENCE: &str = r##"clock = "first-request"  # what times count from; or "start", of the server

[models.main]            # by name; "*" stands for every other
first_token = { fixed = "200ms" }           # default: at once
total = { lognormal = { median = "900ms", sigma = 0.3 } }
                         # or { uniform = ["1s", "3s"] }
timeline = [             # the first stretch that holds decides
  { from = "4s", to = "13s", fault = "unavailable" },
  { fault = "rate-limited", share = 0.01, retry_after = "2s" },
  { fault = "slow-drip", share = 0.01, every = "500ms" },
]

# Faults: rate-limited, server-error (500), unavailable (503), overloaded (529),
# silence, slow-drip, truncated, malformed, prose, low-confidence, refusal,
# spend-cap, model-not-found, unauthorized, wrong-schema, long-answer, cut.

[[when]]                 # goes before the timeline
contains = "#broken"     # in the payload
fault = "malformed"      # with `retry_after` and `every` as above
once = true              # only a task's first request
model = "main"           # default: whichever is asked

# Fields of the answer, each by one rule. What no rule gives is made up from the
# schema. Patterns are regular expressions; paths such as `customer.name` lead
# into the payload.
[answer.source]
value = "simulated"      # always this
[answer."customer.name"]
copy = "name"            # what stands at this path
[answer.urgency]
one_of = ["low", "high"] # by chance
[answer.category]
from = "text"            # where to look; default: the whole payload
choose = [{ match = "(?i)invoice|charged", value = "billing" }]
otherwise = "other"      # default: made up from the schema
[answer.order_id]
from = "text"
capture = '(?i)order (?<value>\d+)'   # the group `value`, else the first
otherwise = "none"       # default: null
[answer.medication]
each = "utterances"      # a list in the payload, searched element by element
text = "text"            # the path of its text; default: the element
where = { who = "doctor" }            # only elements with these fields
match = '(?<drug>\w+) (?<dose>\d+ mg)'
unless = "never"         # a sentence in which this stands gives no item
item = { drug = "$drug", dose = "$dose", source = "$index", quote = "$text" }
                         # also $sentence, $null, each group; default: "$text"
every = true             # each match of a text, not its first alone
distinct = "drug"        # of items with an equal field only the first is kept
prefer = "dose"          # but one that has this field goes before one without
max = 20                 # items; default 100
first = false            # true: the first item alone, instead of a list
fallback = []            # where nothing is found; default: an empty list
confidence = { medication = 0.5 }     # and how sure the model says it is then
"##;

/// A model server's behaviour.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What the times of a timeline count from.
    #[serde(default)]
    pub(super) clock: Clock,
    /// By name; `*` stands for every other.
    #[serde(default)]
    pub(super) models: BTreeMap<String, ModelRules>,
    #[serde(default)]
    pub(super) when: Vec<When>,
    /// By dotted path of the answer's field.
    #[serde(default)]
    pub(super) answer: BTreeMap<String, Rule>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Clock {
    #[default]
    Start,
    FirstRequest,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ModelRules {
    #[serde(default = "at_once")]
    pub(super) first_token: Latency,
    /// From the request to the last token; never less than `first_token`.
    #[serde(default = "at_once")]
    pub(super) total: Latency,
    #[serde(default)]
    pub(super) timeline: Vec<Stretch>,
}

fn at_once() -> Latency {
    Latency::Fixed(Span(std::time::Duration::ZERO))
}

/// Why a scenario cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}{}: {what}", place(*.line, *.column))]
pub struct ScenarioError {
    pub file: String,
    /// From 1; 0 where it is the file as a whole.
    pub line: usize,
    pub column: usize,
    pub what: String,
}

fn place(line: usize, column: usize) -> String {
    if line == 0 { String::new() } else { format!(":{line}:{column}") }
}

impl Scenario {
    pub fn load(path: &Path) -> Result<Scenario, ScenarioError> {
        let file = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Scenario::parse(&text).map_err(|e| ScenarioError { file, ..e }),
            Err(e) => Err(ScenarioError { file, line: 0, column: 0, what: format!("cannot be read: {e}") }),
        }
    }

    pub fn parse(text: &str) -> Result<Scenario, ScenarioError> {
        if text.len() > FILE_MAX {
            return Err(error(text, None, format!("larger than {FILE_MAX} bytes")));
        }
        let scenario: Scenario =
            toml::from_str(text).map_err(|e| error(text, e.span(), e.message().to_owned()))?;
        if scenario.models.is_empty() {
            return Err(error(text, None, "names no model; `[models.\"*\"]` serves every name".to_owned()));
        }
        Ok(scenario)
    }

    /// What is served without a file.
    pub fn built_in() -> Scenario {
        Scenario::parse(BUILT_IN).unwrap_or_else(|e| unreachable!("the built-in scenario: {e}"))
    }

    /// How a model behaves; `None`: nobody by that name.
    pub(super) fn model(&self, name: &str) -> Option<&ModelRules> {
        self.models.get(name).or_else(|| self.models.get("*"))
    }
}

fn error(text: &str, span: Option<std::ops::Range<usize>>, what: String) -> ScenarioError {
    let mut what = what.lines().collect::<Vec<_>>().join("; ");
    if let Some(near) = meant(&what) {
        what.push_str(&format!("; did you mean `{near}`?"));
    }
    let Some(span) = span else {
        return ScenarioError { file: "scenario".to_owned(), line: 0, column: 0, what };
    };
    let before = text.get(..span.start).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    ScenarioError {
        file: "scenario".to_owned(),
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        what,
    }
}

/// The key or the word that was meant: the reader names the unknown one first, then all that are known.
fn meant(what: &str) -> Option<String> {
    let names = what.strip_prefix("unknown field ").or_else(|| what.strip_prefix("unknown variant "))?;
    let mut names = names.split('`').skip(1).step_by(2);
    let wrong = names.next()?;
    closest(wrong, names).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Scenario::parse(text).expect_err("not a scenario").to_string()
    }

    #[test]
    fn a_mistake_is_told_with_its_line() {
        let head = "clock = 'first-request'\n[models.a]\n";
        let cases = [
            ("totl = { fixed = '1s' }", "scenario:3:", "unknown field `totl`"),
            ("totl = { fixed = '1s' }", "scenario:3:", "; did you mean `total`?"),
            ("[answer.x]\ncapure = 'a'", "scenario:", "; did you mean `capture`?"),
            ("[[when]]\ncontain = 'a'\nfault = '500'", "scenario:4:", "; did you mean `contains`?"),
            ("timeline = [{ fault = 'overlode' }]", "scenario:3:", "; did you mean `overloaded`?"),
            ("total = { fixed = '1 parsec' }", "scenario:3:", "`1 parsec` is no duration"),
            ("total = { uniform = ['2s', '1s'] }", "scenario:3:", "`uniform` goes from"),
            ("timeline = [{ fault = 'overlode' }]", "scenario:3:", "unknown variant `overlode`"),
            ("timeline = [{ fault = '500', share = 2.0 }]", "scenario:3:", "2 is no share"),
            (
                "[answer.x]\ncapture = '('\ncopy = 'b'",
                "scenario:4:",
                "the pattern cannot be read: unclosed group",
            ),
            ("[answer.x]\nvalue = 1\ncopy = 'b'", "scenario:3:", "an answer rule has exactly one of"),
            ("[[when]]\ncontains = 'a'", "scenario:3:", "missing field `fault`"),
        ];
        for (text, at, expected) in cases {
            let said = refused(&format!("{head}{text}\n"));
            assert!(
                said.starts_with(at) && said.contains(expected),
                "{text}\n  said {said}\n  expected {expected}"
            );
        }
        for without in ["[models]", "clock = 'first-request'"] {
            assert_eq!(refused(without), "scenario: names no model; `[models.\"*\"]` serves every name");
        }
    }

    /// What the reader says it knows, where something unknown stands.
    fn known(text: &str) -> Vec<String> {
        let said = refused(text);
        let names = said.split_once("expected ").unwrap_or_else(|| panic!("{said}")).1;
        let names = names.split_once("; did you").map_or(names, |(names, _)| names);
        names.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    #[test]
    fn the_reference_is_a_scenario_and_names_every_key_and_every_fault() {
        let scenario = Scenario::parse(REFERENCE).expect("what the help shows can be used");
        assert!(scenario.model("main").is_some() && !scenario.answer.is_empty());
        for text in [
            "zzz = 1",
            "clock = 'zzz'",
            "[models.a]\nzzz = 1",
            "[models.a]\ntotal = { zzz = 1 }",
            "[models.a]\ntotal = { lognormal = { zzz = 1 } }",
            "[models.a]\ntimeline = [{ zzz = 1 }]",
            "[models.a]\ntimeline = [{ fault = 'zzz' }]",
            "[[when]]\nzzz = 1",
            "[answer.a]\nzzz = 1",
            "[answer.a]\nchoose = [{ zzz = 1 }]",
        ] {
            for name in known(text) {
                let told = REFERENCE.split(|c: char| !(c.is_alphanumeric() || "-_".contains(c)));
                assert!(told.into_iter().any(|word| word == name), "`{name}` is not told");
            }
        }
        assert!(REFERENCE.lines().all(|line| line.chars().count() <= 80));
    }

    #[test]
    fn a_model_is_found_by_name_or_else_by_the_star() {
        let s = Scenario::parse("[models.a]\ntotal = { fixed = '1s' }\n[models.'*']\n").expect("well-formed");
        assert_eq!(
            s.model("a").expect("named").total,
            Latency::Fixed(Span(std::time::Duration::from_secs(1)))
        );
        assert_eq!(s.model("b").expect("the star").total, at_once());
        let s = Scenario::parse("[models.a]\n").expect("well-formed");
        assert!(s.model("b").is_none());
        assert!(Scenario::built_in().model("whatever").is_some());
    }
}

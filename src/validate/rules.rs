//! Rules of a kind: expressions over the task and the answer that must hold.
//!
//! A rule that answers anything but `true` is broken: `false`, an error, a value that is no truth
//! value. It sees `task`, `answer`, and the answer again under the step's name. With `each`, an
//! expression for a list, it is asked once for every `item` (and its `index`), and the finding
//! names the item: `medication[2]`.

use crate::cel::{EvalError, Expression, ExpressionError, NESTING_MAX, Names};
use crate::finding::{self, Finding, Severity};
use serde_json::Value;

/// Items one rule is asked about; more is a broken rule, not a pass. Far above what answers hold.
const ITEMS_MAX: usize = 1_000;
/// Findings of one rule: enough to act on.
const FINDINGS_MAX: usize = 20;
/// Characters of a rule that a finding quotes: enough to know it by.
const SOURCE_TOLD: usize = 120;

/// One rule. `that` must be true; `message` says what is wrong when it is not.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub that: Expression,
    /// Gives the list whose items `that` is asked about.
    pub each: Option<Expression>,
    pub message: String,
    pub critical: bool,
}

impl Rule {
    /// Compiles a rule and checks the names it uses. `steps` are the names of the kind's steps.
    pub fn compile(
        that: &str,
        each: Option<&str>,
        message: &str,
        critical: bool,
        steps: &[&str],
    ) -> Result<Rule, ExpressionError> {
        let mut known: Vec<&str> = ["task", "answer"].into_iter().chain(steps.iter().copied()).collect();
        let each = each.map(Expression::compile).transpose()?;
        if let Some(each) = &each {
            each.check_names(&known)?;
            known.extend(["item", "index"]);
        }
        let that = Expression::compile(that)?;
        that.check_names(&known)?;
        that.check_truth()?;
        // `each` is a loop as well.
        let nesting = that.nesting() + usize::from(each.is_some());
        if nesting > NESTING_MAX {
            return Err(ExpressionError::TooNested(nesting));
        }
        Ok(Rule { that, each, message: message.to_owned(), critical })
    }

    /// True, or why not. A value that is no truth value is named by its type, never quoted.
    fn holds(&self, verdict: Result<Value, EvalError>) -> Result<(), Option<String>> {
        match verdict {
            Ok(Value::Bool(true)) => Ok(()),
            Ok(Value::Bool(false)) => Err(None),
            Ok(other) => {
                let source: String = self.that.source().chars().take(SOURCE_TOLD).collect();
                Err(Some(format!("the rule `{source}` gave {}, neither true nor false", type_of(&other))))
            }
            Err(e) => Err(Some(e.to_string())),
        }
    }

    fn finding(&self, path: String, why: Option<String>) -> Finding {
        let message = match why {
            None => self.message.clone(),
            Some(why) => format!("{} (could not be checked: {why})", self.message),
        };
        let severity = if self.critical { Severity::Critical } else { Severity::Major };
        Finding::new(path, finding::RULE, message).with_severity(severity)
    }

    fn check(&self, names: &Names, step: &str, out: &mut Vec<Finding>) {
        let Some(each) = &self.each else {
            let verdict = self.holds(self.that.eval_in(names, &[]));
            out.extend(verdict.err().map(|why| self.finding(field(&self.that, step), why)));
            return;
        };
        let list = field(each, step);
        let items = match each.eval_in(names, &[]) {
            Ok(Value::Array(items)) if items.len() <= ITEMS_MAX => items,
            // Nothing there is nothing to check; whether it may be missing, the schema says.
            Ok(Value::Null) => return,
            Ok(Value::Array(items)) => {
                let why = format!("{} items, more than {ITEMS_MAX}", items.len());
                return out.push(self.finding(list, Some(why)));
            }
            Ok(other) => {
                let why = format!("`each` gives no list, but {}", type_of(&other));
                return out.push(self.finding(list, Some(why)));
            }
            Err(e) => return out.push(self.finding(list, Some(e.to_string()))),
        };
        let broken = items.iter().enumerate().filter_map(|(i, item)| {
            let index = Value::from(i);
            let verdict = self.holds(self.that.eval_in(names, &[("item", item), ("index", &index)]));
            // A list that is not of the answer names no field of it.
            let path = if list.is_empty() { String::new() } else { format!("{list}[{i}]") };
            verdict.err().map(|why| self.finding(path, why))
        });
        out.extend(broken.take(FINDINGS_MAX));
    }
}

/// Checks the rules of a kind against one answer of the step `step`.
pub fn check_rules(rules: &[Rule], task: &Value, answer: &Value, step: &str) -> Vec<Finding> {
    if rules.is_empty() {
        return Vec::new();
    }
    let mut findings = Vec::new();
    // Only what some rule reads is converted: a task may be large.
    let reads =
        |name: &str| rules.iter().any(|r| r.that.uses(name) || r.each.as_ref().is_some_and(|e| e.uses(name)));
    let names: Vec<_> =
        [("task", task), ("answer", answer), (step, answer)].into_iter().filter(|(n, _)| reads(n)).collect();
    match Names::new(&names) {
        Ok(names) => rules.iter().for_each(|rule| rule.check(&names, step, &mut findings)),
        Err(why) => findings.extend(rules.iter().map(|r| r.finding(String::new(), Some(why.to_string())))),
    }
    findings
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The field of the answer an expression reads, if it reads exactly one; else the whole answer.
fn field(expression: &Expression, step: &str) -> String {
    let mut of_answer = expression.fields().iter().filter_map(|f| {
        let (root, rest) = f.split_once('.')?;
        (root == "answer" || root == step).then_some(rest)
    });
    match (of_answer.next(), of_answer.next()) {
        (Some(only), None) => only.to_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rule(that: &str, each: Option<&str>) -> Rule {
        Rule::compile(that, each, "that must hold", false, &["note"]).unwrap()
    }

    fn paths(rules: &[Rule], task: Value, answer: Value) -> Vec<String> {
        let findings = check_rules(rules, &task, &answer, "note");
        assert!(
            findings.iter().all(|f| f.keyword == finding::RULE && f.message.starts_with("that must hold"))
        );
        findings.into_iter().map(|f| f.path).collect()
    }

    fn consultation() -> Value {
        json!({"utterances": [
            {"who": "doctor", "text": "What brings you in?"},
            {"who": "patient", "text": "A  headache. I\u{2019}m on Ibuprofen 400 mg."}
        ]})
    }

    #[test]
    fn a_cited_utterance_must_be_there_and_contain_the_quote() {
        let that = "item.source >= 0 && item.source < size(task.utterances) && contains_text(task.utterances[item.source].text, item.quote)";
        let rules = [
            rule(that, Some("answer.medication")),
            rule("cites(task.utterances, item.source, item.quote)", Some("note.medication")),
        ];
        let answer = json!({"medication": [
            {"source": 1, "quote": "i'm on ibuprofen"}, {"source": 0, "quote": "ibuprofen"},
            {"source": 7, "quote": "headache"}, {"source": -1, "quote": "headache"}, {"source": 1, "quote": " "},
            {"source": 1, "quote": "a headache"}
        ]});
        let broken = ["medication[1]", "medication[2]", "medication[3]", "medication[4]"];
        assert_eq!(paths(&rules, consultation(), answer), [broken, broken].concat());
    }

    #[test]
    fn the_same_rule_over_all_items_at_once_names_the_list() {
        let rules = [rule(
            "answer.medication.all(m, m.source >= 0 && m.source < size(task.utterances) && contains_text(task.utterances[m.source].text, m.quote))",
            None,
        )];
        let with = |quote: &str| json!({"medication": [{"source": 1, "quote": quote}]});
        assert_eq!(paths(&rules, consultation(), with("Ibuprofen 400 mg")), [""; 0]);
        assert_eq!(paths(&rules, consultation(), with("Aspirin")), ["medication"]);
    }

    #[test]
    fn an_error_in_a_rule_is_a_broken_rule() {
        let answer = json!({"dosage": "50 mg", "list": null});
        for (that, each) in [
            ("answer.dosage > 0.0", None),
            ("answer.missing == 1", None),
            ("answer.dosage", None),
            ("true", Some("answer.dosage")),
            ("true", Some("answer.missing")),
        ] {
            let findings = check_rules(&[rule(that, each)], &json!({}), &answer, "note");
            assert_eq!(findings.len(), 1, "{that}");
            assert!(findings[0].message.contains("could not be checked"), "{}", findings[0].message);
        }
        for (that, each, why) in [
            ("answer.dosage", None, "the rule `answer.dosage` gave a text, neither true nor false"),
            ("[1, true][size(answer.dosage) - 5]", None, "gave a number, neither true nor false"),
            ("true", Some("answer.dosage"), "`each` gives no list, but a text"),
        ] {
            let findings = check_rules(&[rule(that, each)], &json!({}), &answer, "note");
            assert!(findings[0].message.contains(why), "{that}: {}", findings[0].message);
            assert!(!findings[0].message.contains("50 mg"), "no value is quoted: {}", findings[0].message);
        }
        assert_eq!(paths(&[rule("false", Some("answer.list"))], json!({}), answer), [""; 0]);
    }

    #[test]
    fn items_of_a_list_that_is_not_of_the_answer_name_no_field() {
        let rules = [rule("item == answer.x", Some("task.list"))];
        assert_eq!(paths(&rules, json!({"list": [1, 2]}), json!({"x": 1})), [""]);
    }

    #[test]
    fn critical_rules_make_critical_findings() {
        let rule =
            Rule::compile("note.dosage <= 500.0", None, "dosage above 500 mg", true, &["note"]).unwrap();
        let findings = check_rules(&[rule], &json!({}), &json!({"dosage": 5000}), "note");
        let expected =
            Finding::new("dosage", finding::RULE, "dosage above 500 mg").with_severity(Severity::Critical);
        assert_eq!(findings, [expected]);
    }

    #[test]
    fn unknown_names_and_deep_loops_are_refused_at_load() {
        let e = Rule::compile("tsak.id == 1", None, "", false, &["note"]).unwrap_err();
        assert_eq!(e.to_string(), "unknown name `tsak`, did you mean `task`?; known: task, answer, note");
        assert!(Rule::compile("item.a == 1", None, "", false, &[]).is_err(), "`item` needs `each`");
        let two = "answer.a.all(x, x.all(y, y))";
        assert!(Rule::compile(two, None, "", false, &[]).is_ok());
        assert!(Rule::compile(two, Some("answer.b"), "", false, &[]).is_err());
    }

    #[test]
    fn a_rule_that_can_be_neither_true_nor_false_is_refused_at_load() {
        for (that, gives) in [
            ("note.dosage_mg + 1", "`+` gives a sum or a joined text"),
            ("\"dosage must be positive\"", "it is a text"),
            ("42", "it is a number"),
            ("[note.a > 1]", "it is a list"),
            ("{\"a\": true}", "it is an object"),
            ("size(note.list)", "`size` gives a number"),
            ("note.text.trim()", "`trim` gives a text"),
            ("timestamp(note.at).getHours()", "`getHours` gives a number"),
            ("note.list.filter(x, x > 1)", "its loop gives a list"),
            ("note.list.map(x, x > 1)", "its loop gives a list"),
            ("!(note.a - 1)", "`-` gives a difference"),
            ("note.a > 1 ? \"yes\" : \"no\"", "it is a text"),
            ("note.a + 1 ? true : false", "`+` gives a sum or a joined text"),
        ] {
            let e = Rule::compile(that, None, "", false, &["note"]).unwrap_err();
            assert_eq!(
                e,
                ExpressionError::NoTruth(format!("can be neither true nor false: {gives}")),
                "{that}"
            );
        }
        // As a whole these may be true or false.
        for (that, gives) in [
            ("note.sure || 42", "it is a number"),
            ("note.a > 1 && size(note.list)", "`size` gives a number"),
            ("!(note.sure || note.a > 1 && \"yes\")", "it is a text"),
        ] {
            let e = Rule::compile(that, None, "", false, &["note"]).unwrap_err();
            let said = format!("the expression has a part that can be neither true nor false: {gives}");
            assert_eq!(e.to_string(), said, "{that}");
        }
        for that in [
            "note.sure",
            "!note.sure",
            "note.sure || note.a + 1 > 2",
            "note.list.all(x, x > 1)",
            "note.list.exists_one(x, x > 1)",
            "note.list.filter(x, x > 1).size() > 0",
            "note.a > 1 ? note.b : false",
            "bool(note.text)",
            "note.list[0]",
            "note.?sure.orValue(true)",
            "2 in note.list",
            "has(note.a)",
            "true",
        ] {
            assert!(Rule::compile(that, None, "", false, &["note"]).is_ok(), "{that}");
        }
    }

    #[test]
    fn too_many_items_are_a_broken_rule_and_findings_are_capped() {
        let many = |n: usize| json!({"list": vec![0; n]});
        assert_eq!(
            paths(&[rule("item == 1", Some("answer.list"))], json!({}), many(100)).len(),
            FINDINGS_MAX
        );
        assert_eq!(paths(&[rule("true", Some("answer.list"))], json!({}), many(ITEMS_MAX + 1)), ["list"]);
    }

    #[test]
    fn rules_that_are_asked_for_each_item_share_one_budget_of_steps_and_of_text() {
        let numbers: Vec<usize> = (0..1_000).collect();
        let task = json!({ "text": "a".repeat(1 << 20), "list": vec![0; 10_000] });
        let answer = json!({ "list": numbers });
        for (that, why) in [
            ("!task.list.exists(x, x == item + 1)", "too many steps"),
            ("!contains_text(task.text, 'b')", "too much text"),
        ] {
            let began = std::time::Instant::now();
            let findings = check_rules(&[rule(that, Some("answer.list"))], &task, &answer, "note");
            assert!(findings.len() == FINDINGS_MAX && findings[0].message.contains(why), "{findings:?}");
            assert!(began.elapsed() < std::time::Duration::from_secs(20), "{:?}", began.elapsed());
        }
        let one = rule("!task.list.exists(x, x == 1)", None);
        assert_eq!(
            check_rules(&[one.clone(), one], &task, &answer, "note"),
            [],
            "what people write has room"
        );
    }
}

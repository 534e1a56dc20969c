//! What is found in a text, and what is refused.

use super::*;
use serde_json::json;

fn schema() -> Schema {
    Schema::from_shorthand(&json!({"category": ["billing", "bug"], "note": "string?"})).unwrap()
}

const BUG: &str = r#"{"category": "bug", "note": null}"#;
const BILLING: &str = r#"{"category": "billing", "note": "see {this}"}"#;

fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// Accepted, as what and how.
fn accepted(text: &str) -> (Value, Found) {
    let reading = read_answer(text, &schema());
    assert_eq!(reading.findings, [], "{text}");
    (reading.value.unwrap_or_else(|| panic!("nothing found in {text}")), reading.found)
}

/// Refused, with the keywords of its findings.
fn refused(text: &str) -> Vec<String> {
    let reading = read_answer(text, &schema());
    assert_eq!(reading.value, None, "{text}");
    assert!(!reading.findings.is_empty(), "a refusal says why: {text}");
    reading.findings.into_iter().map(|f| f.keyword).collect()
}

#[test]
fn json_alone_comes_back_untouched() {
    let text = "\u{feff} {\"note\": \"<think>```{\\\"category\\\": 1}```</think>\", \"category\": \"bug\"}\n";
    let (value, found) = accepted(text);
    assert_eq!(
        (value.to_string().as_str(), found),
        (r#"{"note":"<think>```{\"category\": 1}```</think>","category":"bug"}"#, Found::Plain)
    );
}

#[test]
fn the_answer_is_found_in_fences_prose_and_behind_reasoning() {
    for (text, found) in [
        (format!("```json\n{BUG}\n```"), Found::Fenced),
        (format!("Here you are:\n\n~~~\n{BUG}\n~~~\nAnything else?"), Found::Fenced),
        (format!("```json\n{BUG}"), Found::Fenced),
        (format!("The answer is {BUG}. I hope it helps {{name}} [1] [2, 3]!"), Found::Prose),
        (format!("```json {BUG} ```"), Found::Prose),
        (format!("[Note that] {{x}} {{{{mustache}}}} said: {BUG}"), Found::Prose),
        (format!("<think>Perhaps {BILLING}? No.</think>\n{BUG}"), Found::Fenced),
        (format!("reasoning whose opening tag was lost {BILLING}</think>{BUG}"), Found::Fenced),
        (format!("<reasoning>\n```json\n{BILLING}\n```\n</reasoning>\n```json\n{BUG}\n```"), Found::Fenced),
        (format!("def f():\n    return {{'a': 1}}\n\n{BUG}"), Found::Prose),
    ] {
        assert_eq!(accepted(&text), (value(BUG), found), "{text}");
    }
}

#[test]
fn of_several_candidates_the_schema_picks_the_only_one_that_fits() {
    let reading = read_answer(&format!(r#"Not {{"category": "other", "note": null}} but {BUG}"#), &schema());
    assert_eq!((reading.value, reading.candidates), (Some(value(BUG)), 2));
    // The same answer twice is one answer.
    assert_eq!(accepted(&format!("{BUG}\nAs I said:\n```\n{BUG}\n```")).0, value(BUG));
}

#[test]
fn two_different_answers_that_fit_are_no_answer() {
    assert_eq!(refused(&format!("{BUG} or {BILLING}")), [finding::AMBIGUOUS]);
    let many = vec![r#"{"category": "other"}"#; CANDIDATES_MAX + 1].join("\n");
    assert_eq!(refused(&format!("{many}\n{BUG}")), [finding::AMBIGUOUS]);
}

#[test]
fn a_broken_answer_behind_a_whole_one_may_be_the_real_one() {
    let reading = read_answer(&format!("First thought: {BILLING}\nFinal: {{\"category\": \"bu"), &schema());
    assert_eq!((reading.value, reading.nearest), (None, Some(value(BILLING))));
    assert_eq!(reading.findings[0].keyword, finding::JSON);
    // Before the whole one it is a draft.
    assert_eq!(accepted(&format!("Draft: {{\"category\": bug}}\nFinal: {BUG}")).0, value(BUG));
}

#[test]
fn broken_json_is_never_searched_for_whole_pieces() {
    let lax = Schema::compile(json!({"type": "object"})).unwrap();
    for text in [
        r#"{"outer": {"category": "bug", "note": null}, "#,
        r#"Answer: {"outer": {"category": "bug", "note": null}, oops: 1}"#,
        "```json\n{\"a\": [{\"category\": \"bug\"}, {\"cat\n```",
    ] {
        let reading = read_answer(text, &lax);
        assert_eq!((reading.value, reading.nearest), (None, None), "{text}");
        assert_eq!(reading.findings[0].keyword, finding::JSON, "{text}");
    }
    // Nor is a list unwrapped.
    assert_eq!(refused(&format!("[{BUG}]")), ["type"]);
    assert_eq!(refused(&format!("Here: [{BUG}]")), ["type"]);
}

#[test]
fn what_does_not_fit_comes_back_as_findings_and_as_the_nearest() {
    let reading = read_answer(r#"{"category": "urgent", "note": null}"#, &schema());
    assert_eq!(reading.nearest, Some(json!({"category": "urgent", "note": null})));
    assert_eq!(reading.findings[0].message, r#"`category` is "urgent"; allowed: "billing", "bug""#);
}

#[test]
fn texts_without_an_answer_say_so() {
    for text in [
        "",
        "  ",
        "I cannot help with that.",
        "<think>hm {\"category\": \"bug\", \"note\": null}",
        "<think>x</think>",
    ] {
        assert_eq!(refused(text), [finding::JSON], "{text}");
    }
    let cut = read_answer(r#"{"category": "billin"#, &schema());
    assert_eq!(cut.findings[0].message, "json: unexpected end at line 1 column 20; the JSON is not complete");
}

#[test]
fn ten_thousand_brackets_are_refused_at_once_on_a_small_stack() {
    let deep = |open: &str, close: &str| open.repeat(10_000) + "1" + &close.repeat(10_000);
    let texts = [
        deep("[", "]"),
        deep("{\"a\":", "}"),
        format!("Sure: {}", deep("{\"a\":", "}")),
        "[".repeat(ANSWER_MAX),
        "{\"a\":".repeat(ANSWER_MAX / 5),
        format!("```json\n{}\n```", deep("[{\"a\":", "}]")),
    ];
    let keywords = std::thread::Builder::new().stack_size(512 << 10).spawn(move || {
        let started = std::time::Instant::now();
        let keywords: Vec<_> = texts.iter().flat_map(|t| refused(t)).collect();
        assert!(started.elapsed() < std::time::Duration::from_secs(1), "{:?}", started.elapsed());
        keywords
    });
    assert_eq!(keywords.unwrap().join().unwrap(), vec![finding::SIZE; 6]);
    assert_eq!(refused(&"x".repeat(ANSWER_MAX + 1)), [finding::SIZE]);
}

/// Pieces that hostile and clumsy texts are made of.
const PIECES: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\"",
    "\\",
    ":",
    ",",
    "{\"",
    "\"a\":",
    "```",
    "\n```json\n",
    "\n~~~\n",
    "<think>",
    "</think>",
    "1",
    "-1e5",
    "null",
    " ",
    "\n",
    "ä",
    "🦀",
    "\u{0}",
    "{\"category\": \"bug\", \"note\": null}",
    "{'a'",
    "[1]",
    "text",
    "\"\"",
    "\\\"",
    "{\"category\": \"billing\", \"note\": \"x\"}",
];

/// Whatever comes in: no panic, within bounds, and what is accepted fits and stood in the text.
#[test]
fn random_texts_never_do_harm() {
    let seed = std::env::var("TIDEGATE_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(7u64);
    println!("TIDEGATE_TEST_SEED={seed}");
    let mut state = seed | 1;
    let mut next = move |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % n as u64).unwrap()
    };
    let schema = schema();
    let (mut took, mut left) = (0, 0);
    for round in 0..20_000 {
        let text = if round % 4 == 0 {
            let bytes: Vec<u8> = (0..next(200)).map(|_| u8::try_from(next(256)).unwrap()).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        } else {
            (0..next(24)).map(|_| PIECES[next(PIECES.len())]).collect()
        };
        let reading = read_answer(&text, &schema);
        assert_eq!(reading.value.is_some(), reading.findings.is_empty(), "seed {seed}: {text:?}");
        assert!(reading.candidates <= CANDIDATES_MAX + 1, "seed {seed}: {text:?}");
        match reading.value {
            Some(answer) => {
                took += 1;
                assert!(
                    schema.is_valid(&answer) && [BUG, "billing"].iter().any(|b| text.contains(b)),
                    "{text:?}"
                );
            }
            None => left += 1,
        }
    }
    assert!(took > 100 && left > 100, "both must be met: {took} {left}");
}

/// Hostile repetitions of every pair of pieces stay fast at full size.
#[test]
fn the_time_is_linear_for_every_repetition() {
    let schema = schema();
    let mut slowest = (std::time::Duration::ZERO, String::new());
    for a in PIECES {
        for b in PIECES {
            let unit = format!("{a}{b}");
            let text = unit.repeat(100_000 / unit.len());
            let started = std::time::Instant::now();
            let _ = read_answer(&text, &schema);
            slowest = slowest.max((started.elapsed(), unit));
        }
    }
    println!("slowest: {slowest:?}");
    assert!(slowest.0 < std::time::Duration::from_secs(1), "{slowest:?}");
}

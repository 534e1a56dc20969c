//! What expressions give, what they refuse, and what they cost.

use super::*;
use serde_json::json;

fn eval(source: &str, names: &[(&str, &Value)]) -> Result<Value, EvalError> {
    Expression::compile(source).unwrap_or_else(|e| panic!("{source}: {e}")).eval(names)
}

fn refused(source: &str) -> ExpressionError {
    Expression::compile(source).expect_err(source)
}

#[test]
fn json_integers_are_ints_and_compare_with_doubles() {
    let answer = json!({"n": 5, "dosage": 50, "half": 2.5, "big": u64::MAX, "one": 1.0});
    for (source, expected) in [
        ("answer.n + 1", json!(6)),
        ("answer.dosage > 0.0 && answer.dosage <= 500.0", json!(true)),
        ("answer.half > 2", json!(true)),
        ("answer.big > 1", json!(true)),
        ("answer.big", json!(u64::MAX)),
        ("answer.n == 5.0", json!(true)),
        ("answer.one == 1", json!(true)),
        ("[10, 20][answer.n - 4]", json!(20)),
    ] {
        assert_eq!(eval(source, &[("answer", &answer)]), Ok(expected), "{source}");
    }
}

#[test]
fn keys_come_out_of_payloads_and_headers() {
    let task = json!({"id": 7, "customer": {"email": " A@Example.COM "}, "tags": ["a", "b"]});
    let headers = json!({"x": "h-1", "ce_id": "e"});
    for (source, expected) in [
        ("task.id", json!(7)),
        ("headers[\"x\"]", json!("h-1")),
        ("headers.ce_id + \"-\" + string(task.id)", json!("e-7")),
        ("task.customer.email.lowerAscii().trim()", json!("a@example.com")),
        ("task.tags", json!(["a", "b"])),
        ("has(task.missing) ? task.missing : \"none\"", json!("none")),
        ("{\"b\": 1, \"a\": task.id}", json!({"a": 7, "b": 1})),
    ] {
        assert_eq!(eval(source, &[("task", &task), ("headers", &headers)]), Ok(expected), "{source}");
    }
    // An object made into a key reads the same each time.
    let text = |_: usize| eval("{\"b\": 1, \"a\": 2, \"c\": 3}", &[]).unwrap().to_string();
    assert!((0..20).map(text).all(|t| t == r#"{"a":2,"b":1,"c":3}"#));
}

/// The standard language as we rely on it; a new version of the crate must answer the same.
#[test]
fn the_language_answers_as_its_specification_says() {
    let task = json!({"list": [1, 2, 3], "name": "Ada", "when": "2026-11-24T18:00:00Z", "none": null});
    for (source, expected) in [
        ("size(task.list) == 3 && size(task.name) == 3", json!(true)),
        (
            "task.list.all(x, x > 0) && task.list.exists(x, x == 2) && task.list.exists_one(x, x == 3)",
            json!(true),
        ),
        ("task.list.map(x, x * 2)", json!([2, 4, 6])),
        ("task.list.filter(x, x > 1)", json!([2, 3])),
        ("2 in task.list && !(5 in task.list)", json!(true)),
        ("task.name.startsWith(\"A\") && task.name.matches(\"^[A-Z][a-z]+$\")", json!(true)),
        ("has(task.name) && !has(task.other)", json!(true)),
        ("task.none == null", json!(true)),
        ("timestamp(task.when) < timestamp(\"2027-01-01T00:00:00Z\")", json!(true)),
        ("timestamp(task.when).getHours()", json!(18)),
        ("duration(\"90m\") > duration(\"1h\")", json!(true)),
        // The right side is known whatever the left says.
        ("task.missing == 1 || true", json!(true)),
        ("task.missing == 1 && false", json!(false)),
        ("7 / 2 == 3 && 7 % 2 == 1 && -7 / 2 == -3", json!(true)),
        ("type(1) == int && type(\"\") == string", json!(true)),
        ("string(1) + \"x\" == \"1x\" && int(\"5\") == 5 && double(\"2.5\") == 2.5", json!(true)),
        ("\"a,b\".split(\",\")", json!(["a", "b"])),
    ] {
        assert_eq!(eval(source, &[("task", &task)]), Ok(expected), "{source}");
    }
}

#[test]
fn an_error_is_an_error_and_says_what_without_values() {
    let task = json!({"secret": "hunter2", "list": [1], "n": 9_223_372_036_854_775_807i64});
    for (source, part) in [
        ("task.missing", "no field `missing`"),
        ("task.secret > 5", "does not work on"),
        ("task.list[3]", "outside its list"),
        ("1 / 0", "division by zero"),
        ("task.n + 1", "overflows"),
        ("task.secret + 1", "does not work on"),
        ("int(task.secret)", ""),
        ("timestamp(task.secret)", ""),
        ("double(\"NaN\")", "no finite number"),
    ] {
        let e = eval(source, &[("task", &task)]).expect_err(source);
        assert!(e.to_string().contains(part), "{source}: {e}");
        assert!(!e.to_string().contains("hunter2"), "{source}: {e}");
    }
    assert_eq!(eval("task.id", &[]), Err(EvalError::UnknownName("task".into())));
}

#[test]
fn mistakes_are_found_at_load_with_place_and_suggestion() {
    assert_eq!(refused("  "), ExpressionError::Empty);
    let ExpressionError::Syntax { line, column, what } = refused("task.id ==\n  && 1") else { panic!() };
    assert_eq!((line, column), (2, 3), "{what}");
    assert!(!what.is_empty() && !what.contains("<EOF>"));
    assert!(matches!(refused("task.id =="), ExpressionError::Syntax { .. }));
    let e = Expression::compile("tsak.id + answer.x").unwrap().check_names(&["task", "answer"]).unwrap_err();
    assert_eq!(e.to_string(), "unknown name `tsak`, did you mean `task`?; known: task, answer");
    let e = refused("contain_text(task.a, task.b)");
    assert_eq!(e.to_string(), "unknown function `contain_text`, did you mean `contains_text`?");
}

#[test]
fn names_and_fields_are_those_from_outside() {
    let e = Expression::compile(
        "answer.medication.all(m, m.source < size(task.utterances) && has(answer.plan.next)) && int(headers[\"x\"]) == 1 && type(task) == map",
    )
    .unwrap();
    assert_eq!(e.names(), ["answer", "headers", "task"]);
    assert_eq!(e.fields(), ["answer.medication", "answer.plan.next", "headers", "task", "task.utterances"]);
    assert!(e.check_names(&["task", "answer", "headers"]).is_ok());
    // A loop's variable hides a name only inside the loop.
    assert_eq!(Expression::compile("[1].all(task, task == 1) && task == 2").unwrap().names(), ["task"]);
    assert_eq!(Expression::compile("[1].all(task, task == 1)").unwrap().names(), [""; 0]);
}

#[test]
fn limits_hold_on_a_small_stack() {
    let chain = |n: usize| vec!["1"; n].join("+");
    let worker = std::thread::Builder::new().stack_size(512 << 10).spawn(move || {
        let longest = Expression::compile(&chain(OPERATORS_MAX + 1)).unwrap();
        assert_eq!(longest.eval(&[]), Ok(json!(201)));
        assert_eq!(refused(&chain(OPERATORS_MAX + 2)), ExpressionError::TooManyOperators(OPERATORS_MAX + 1));
        // The longest chains and deepest nestings the parser can meet.
        assert!(matches!(refused(&chain(SOURCE_MAX / 2)), ExpressionError::TooManyOperators(_)));
        let deep = |open: &str, close: &str, n: usize| open.repeat(n) + "1" + &close.repeat(n);
        for source in
            [deep("(", ")", 1_000), deep("[", "]", 1_000), deep("!", "", 2_000), deep("-(", ")", 600)]
        {
            // Refused or not: what counts is that the process is still there.
            let _ = Expression::compile(&source).map(|e| e.eval(&[]));
        }
        assert_eq!(refused(&chain(SOURCE_MAX)), ExpressionError::TooLong(2 * SOURCE_MAX - 1));
    });
    worker.unwrap().join().unwrap();
    assert!(Expression::compile("[1].all(a, [2].all(b, a < b))").is_ok());
    assert_eq!(refused("[1].all(a, [2].all(b, [3].all(c, true)))"), ExpressionError::TooNested(3));
    // Beside each other is not inside each other.
    assert!(
        Expression::compile("[1].all(a, true) && [1].all(b, true) && [1].map(c, [c].map(d, d)).all(e, true)")
            .is_ok()
    );
}

#[test]
fn long_lists_are_an_error_where_they_would_be_looped_over() {
    let list = |n: usize| json!({ "list": vec![1; n] });
    assert_eq!(eval("task.list.all(x, x == 1)", &[("task", &list(10_000))]), Ok(json!(true)));
    let too_long = |len, max| Err(EvalError::ListTooLong { len, max });
    assert_eq!(eval("task.list.all(x, x == 1)", &[("task", &list(10_001))]), too_long(10_001, 10_000));
    let nested = "task.list.all(x, task.list.exists(y, x == y))";
    assert_eq!(eval(nested, &[("task", &list(1_000))]), Ok(json!(true)));
    assert_eq!(eval(nested, &[("task", &list(1_001))]), too_long(1_001, 1_000));
    assert_eq!(eval("size(task.list)", &[("task", &list(20_000))]), Ok(json!(20_000)));
    // A long list nobody looks at costs nothing.
    assert_eq!(
        eval("answer.all(x, x == 1)", &[("task", &list(20_000)), ("answer", &json!([1]))]),
        Ok(json!(true))
    );
}

#[test]
fn text_is_compared_as_a_person_reads_it() {
    for (text, part, expected) in [
        ("I take  Ibuprofen,\n400 mg", "ibuprofen, 400 MG", true),
        ("It\u{2019}s \u{201c}bad\u{201d} \u{2013} really", "it's \"bad\" - really", true),
        ("fever", "fevers", false),
        ("fever", "", false),
        ("fever", " \n", false),
        ("ÄRGER", "ärger", true),
    ] {
        assert_eq!(contains_text(text, part), expected, "{text} {part}");
        let names = (json!(text), json!(part));
        for source in ["contains_text(text, part)", "text.contains_text(part)", "cites([text], 0, part)"] {
            assert_eq!(
                eval(source, &[("text", &names.0), ("part", &names.1)]),
                Ok(json!(expected)),
                "{source}"
            );
        }
    }
    assert_eq!(eval("same_text(\"A  b\", \"a b \")", &[]), Ok(json!(true)));
    let sources = json!([{"text": "one"}, "two", {"who": "three"}]);
    for (source, expected) in [
        ("cites(s, 0, \"one\")", true),
        ("cites(s, 1, \"two\")", true),
        ("cites(s, 2, \"three\")", false),
        ("cites(s, 3, \"one\")", false),
        ("cites(s, -1, \"one\")", false),
    ] {
        assert_eq!(eval(source, &[("s", &sources)]), Ok(json!(expected)), "{source}");
    }
}

#[test]
fn words_and_numbers_are_found_whole_or_not_at_all() {
    for (text, part, expected) in [
        ("take 50 mg daily", "50 mg", true),
        ("take 250 mg", "50 mg", false),
        ("2.50 mg", "50 mg", false),
        ("50.5 mg", "50", false),
        ("it was 50.", "50", true),
        ("500, then 50, then", "50", true),
        ("1,500", "500", false),
        ("50mg", "50", true),
        ("no ache, headache", "ache", true),
        ("headaches", "ache", false),
        ("(50 mg)", "50 mg", true),
        ("x", "", false),
    ] {
        let names = (json!(text), json!(part));
        let names = [("text", &names.0), ("part", &names.1)];
        assert_eq!(eval("contains_words(text, part)", &names), Ok(json!(expected)), "{text} {part}");
    }
}

#[test]
fn searching_more_text_than_an_evaluation_may_read_is_an_error() {
    let task = json!({"text": "a".repeat(1 << 20), "list": vec!["b"; 1_000]});
    let started = std::time::Instant::now();
    let e = eval("task.list.all(x, !contains_text(task.text, x))", &[("task", &task)]).unwrap_err();
    assert!(e.to_string().contains("too much text"), "{e}");
    assert!(started.elapsed() < std::time::Duration::from_secs(6), "{:?}", started.elapsed());
}

#[test]
fn every_function_we_call_known_can_be_called() {
    for source in [
        "size([1])",
        "\"ab\".contains(\"a\")",
        "\"ab\".endsWith(\"b\")",
        "int(1.5)",
        "uint(1)",
        "double(1)",
        "string(1)",
        "bool(\"true\")",
        "size(bytes(\"a\"))",
        "dyn(1)",
        "timestamp(\"2026-11-24T00:00:00Z\").getFullYear()",
        "timestamp(\"2026-11-24T00:00:00Z\").getMonth()",
        "timestamp(\"2026-11-24T00:00:00Z\").getDate()",
        "timestamp(\"2026-11-24T00:00:00Z\").getDayOfMonth()",
        "timestamp(\"2026-11-24T00:00:00Z\").getDayOfWeek()",
        "timestamp(\"2026-11-24T00:00:00Z\").getDayOfYear()",
        "duration(\"1h\").getMinutes()",
        "duration(\"1h\").getSeconds()",
        "duration(\"1s\").getMilliseconds()",
        "\"abc\".charAt(1)",
        "\"abc\".indexOf(\"c\")",
        "\"abcc\".lastIndexOf(\"c\")",
        "[\"a\", \"b\"].join(\"-\")",
        "\"a\".upperAscii()",
        "\"a\".replace(\"a\", \"b\")",
        "\"abc\".substring(1)",
        "\"abc\".reverse()",
        "\"%d\".format([1])",
        "optional.of(1).hasValue()",
        "optional.none().orValue(2)",
        "{\"a\": 1}.?b.orValue(3)",
    ] {
        assert!(eval(source, &[]).is_ok(), "{source}: {:?}", eval(source, &[]));
    }
}

/// Random sources out of the language's own pieces: refused or compiled, never a crash.
#[test]
fn hostile_sources_are_refused_or_compiled() {
    let pieces = [
        "task",
        ".",
        "a",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "1",
        "-",
        "+",
        "&&",
        "?",
        ":",
        "\"",
        "'",
        "\\",
        "all(x,",
        "has(",
        "b\"",
        "\u{0}",
        "ä",
        "🦀",
        " ",
        "\n",
        "9999999999999999999",
        "0x",
        "1e",
        ".?",
        "in",
        "//",
        "`",
        "r'",
        "'''",
        "u",
        ".map(",
        "timestamp(",
        "@",
        "$",
    ];
    let seed = std::env::var("TIDEGATE_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(11u64);
    println!("TIDEGATE_TEST_SEED={seed}");
    let mut state = seed | 1;
    let mut next = move |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % n as u64).unwrap()
    };
    let task = json!({"a": [1, {"a": "x"}]});
    let mut compiled = 0;
    for _ in 0..3_000 {
        let source: String = (0..1 + next(12)).map(|_| pieces[next(pieces.len())]).collect();
        if let Ok(e) = Expression::compile(&source) {
            compiled += 1;
            let _ = e.eval(&[("task", &task)]);
        }
    }
    assert!(compiled > 10, "seed {seed}: {compiled} compiled");
}

#[test]
fn expressions_are_shared_between_threads() {
    fn shared<T: Send + Sync + Clone>(_: &T) {}
    shared(&Expression::compile("task.id").unwrap());
}

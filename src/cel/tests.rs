//! What expressions give, what they refuse, and what they cost.

use super::*;
use serde_json::json;

fn eval(source: &str, names: &[(&str, &Value)]) -> Result<Value, EvalError> {
    Expression::compile(source).unwrap_or_else(|e| panic!("{source}: {e}")).eval(names)
}

#[test]
fn json_integers_are_ints_and_compare_with_doubles() {
    let answer = json!({"n": 5, "dosage": 50, "half": 2.5, "big": u64::MAX});
    for (source, expected) in [
        ("answer.n + 1", json!(6)),
        ("answer.dosage > 0.0 && answer.dosage <= 500.0", json!(true)),
        ("answer.half > 2", json!(true)),
        ("answer.big > 1", json!(true)),
        ("size([1, 2]) == 2", json!(true)),
        ("answer.n == 5.0", json!(true)),
    ] {
        assert_eq!(eval(source, &[("answer", &answer)]), Ok(expected), "{source}");
    }
}

//! The reckoning of calls is tested itself: what adds up gives no complaint, and each fault does.

use crate::books::{Row, Shelf};
use crate::calls::{Bought, bought, differences, scope_of, uncounted};
use crate::campaign::Pair;
use crate::rig::script::Asked;
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn asked(life: u64, key: &str, failed: bool) -> (u64, Asked) {
    let slot = format!("{}.g0/answer.r0", scope_of("ticket", key));
    (life, Asked { model: "main".into(), slot, asker: String::new(), body: Value::Null, nth: 0, failed })
}

/// A result of `a` that counts so many repeats, and of `b` that counts none.
fn shelf(repeats: u64) -> Shelf {
    let row = |key: &str, repeats: u64| {
        let tries = json!([{ "slot": "answer.r0", "repeats": repeats }]);
        let value = json!({ "kind": "ticket", "key": key, "generation": 0, "tries": tries });
        Row { value: Some(value.to_string().into_bytes()), ..Row::default() }
    };
    Shelf { results: vec![row("a", repeats), row("b", 0)], ..Shelf::default() }
}

/// `ticket/a` was started and not stored at the end of life 1.
fn pairs() -> BTreeMap<Pair, u64> {
    [(("ticket/a".to_owned(), 0, "answer.r0".to_owned(), 0), 1)].into()
}

fn requests() -> Vec<(u64, Asked)> {
    vec![asked(1, "a", false), asked(2, "a", true), asked(2, "a", false), asked(1, "b", false)]
}

#[test]
fn p3_a_call_that_a_kill_cut_off_and_one_that_failed_add_up() {
    let Bought { again, unsent, wrong } = bought(&requests(), &shelf(1), &pairs());
    assert_eq!((again, unsent, wrong), (1, 0, vec![]));
    assert_eq!(differences(&shelf(1), &pairs()), []);
    let counted = crate::calls::published(&shelf(1));
    assert_eq!(uncounted(&requests(), &counted), []);
    // Killed before its request left: the provider has seen nothing of it.
    let Bought { again, unsent, wrong } = bought(&requests()[1..], &shelf(1), &pairs());
    assert_eq!((again, unsent, wrong), (0, 1, vec![]));
}

#[test]
fn p3_an_answer_bought_twice_uncounted_or_never_given_is_found_by_its_slot() {
    let slot = |key: &str| format!("{}.g0/answer.r0", scope_of("ticket", key));
    let with = |more: (u64, Asked)| {
        let mut requests = requests();
        requests.push(more);
        bought(&requests, &shelf(1), &pairs()).wrong
    };
    assert_eq!(with(asked(1, "b", false)), [(slot("b"), "bought twice in one life")]);
    let again = "bought again, and no kill was noted for it";
    assert_eq!(with(asked(3, "b", false)), [(slot("b"), again)]);
    let never = bought(&requests()[..3], &shelf(1), &pairs()).wrong;
    assert_eq!(never, [(slot("b"), "published, and the provider never gave its answer")]);
    let counted = crate::calls::published(&shelf(0));
    assert_eq!(uncounted(&requests(), &counted), [(slot("a"), "ticket/a".to_owned(), 1)]);
    let differ = differences(&shelf(0), &pairs());
    assert_eq!(differ, [(("ticket/a".to_owned(), 0, "answer.r0".to_owned()), 0, 1)]);
}

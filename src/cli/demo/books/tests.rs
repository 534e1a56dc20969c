//! The sums of the books, one mistake at a time.

use super::*;

fn id(key: &str) -> Id {
    ("ticket".to_owned(), key.to_owned())
}

fn taken(position: &str) -> Answered {
    Answered::Taken { position: position.to_owned() }
}

/// Three tasks in three places, a copy, a conflict refused at the door, and a buried poison record.
fn whole() -> Books {
    let mut books = Books::default();
    for (n, key) in ["a", "b", "c"].into_iter().enumerate() {
        books.sent(&id(key), Meant::Task, &taken(&format!("tasks.ticket/0/{n}")));
    }
    books.sent(&id("a"), Meant::Copy, &Answered::Known);
    books.sent(&id("a"), Meant::Bad, &Answered::Refused { code: "key-conflict".to_owned() });
    books.sent(&id("poison"), Meant::Bad, &taken("tasks.ticket/0/9"));
    books.result(&id("a"), 0);
    books.review_opened(&id("b"), "item-b");
    books.letter(&id("c"), 0, true, "tasks.ticket/0/2");
    books.letter(&id("poison"), 0, false, "tasks.ticket/0/9");
    books
}

#[test]
fn the_sums_add_up_where_every_record_has_one_place() {
    let sums = whole().sums();
    assert!(sums.hold(), "{sums:?}");
    assert_eq!((sums.records, sums.tasks, sums.duplicates, sums.refused), (6, 3, 1, 2));
    assert_eq!((sums.results, sums.waiting, sums.letters), (1, 1, 1));
    assert_eq!(whole().of_kind("ticket"), [3, 1, 1, 1, 0]);
    assert_eq!(whole().of_kind("refund"), [0; 5]);
}

#[test]
fn a_lost_task_is_missing_by_name() {
    let mut books = whole();
    books.sent(&id("lost"), Meant::Task, &taken("tasks.ticket/0/10"));
    let sums = books.sums();
    assert!(!sums.hold());
    assert_eq!((sums.nowhere, books.missing()), (1, vec!["ticket/lost".to_owned()]));
}

#[test]
fn a_poison_record_that_is_not_buried_is_missing() {
    let mut books = whole();
    books.sent(&id("poison-2"), Meant::Bad, &taken("tasks.ticket/0/10"));
    assert!(!books.sums().hold());
    assert_eq!(books.missing(), ["the record at tasks.ticket/0/10"]);
}

#[test]
fn a_second_outcome_counts_as_twice_and_a_redrive_does_not() {
    let mut books = whole();
    books.result(&id("c"), 1);
    assert!(books.sums().hold(), "a redrive is another generation");
    assert_eq!(books.of_kind("ticket"), [3, 2, 1, 0, 0], "the last generation says where it is");
    books.result(&id("a"), 0);
    assert!(!books.sums().hold());
    assert_eq!((books.sums().twice, books.twice()), (1, vec!["ticket/a".to_owned()]));
}

#[test]
fn a_result_and_a_dead_letter_of_one_task_are_twice() {
    let mut books = whole();
    books.letter(&id("a"), 0, true, "tasks.ticket/0/0");
    assert_eq!(books.sums().twice, 1);
}

#[test]
fn a_decided_review_becomes_one_result_in_whatever_order_the_streams_are_read() {
    for result_first in [true, false] {
        let mut books = whole();
        if result_first {
            books.result(&id("b"), 0);
            books.review_decided("item-b");
        } else {
            books.review_decided("item-b");
            assert_eq!(books.sums().nowhere, 1, "under way from the decision to its result");
            books.result(&id("b"), 0);
        }
        assert!(books.sums().hold());
        assert_eq!((books.sums().results, books.sums().waiting), (2, 0));
    }
}

#[test]
fn the_first_answer_about_a_key_makes_the_task_even_if_it_is_known_already() {
    let mut books = Books::default();
    // The connection broke before the first answer came; the record was sent again.
    books.sent(&id("a"), Meant::Task, &Answered::Known);
    books.result(&id("a"), 0);
    assert!(books.sums().hold());
    assert_eq!((books.sums().tasks, books.sums().duplicates), (1, 0));
}

#[test]
fn an_outcome_that_is_read_before_its_answer_is_no_stranger_and_no_task_until_then() {
    let place = |books: &mut Books, place: Place| match place {
        Place::Result => books.result(&id("d"), 0),
        Place::Waiting => books.review_opened(&id("d"), "item-d"),
        Place::Letter => books.letter(&id("d"), 0, true, "tasks.ticket/0/10"),
    };
    let answer = |books: &mut Books| books.sent(&id("d"), Meant::Task, &taken("tasks.ticket/0/10"));
    for which in [Place::Result, Place::Waiting, Place::Letter] {
        let (mut early, mut late) = (whole(), whole());
        place(&mut early, which);
        let before = early.sums();
        assert_eq!((before.tasks, before.results, before.waiting, before.letters), (3, 1, 1, 1), "{which:?}");
        assert_eq!(early.of_kind("ticket"), [3, 1, 1, 1, 0]);
        answer(&mut early);
        answer(&mut late);
        assert_eq!(late.missing(), ["ticket/d"]);
        place(&mut late, which);
        assert_eq!(early.sums(), late.sums(), "{which:?}: the order of reading decides nothing");
        assert!(early.sums().hold(), "{:?}", early.sums());
        assert_eq!((early.sums().tasks, early.sums().duplicates), (4, 1), "{which:?}");
    }
}

#[test]
fn an_early_result_that_comes_twice_is_twice_all_the_same() {
    let mut books = whole();
    books.result(&id("d"), 0);
    books.result(&id("d"), 0);
    books.sent(&id("d"), Meant::Task, &taken("tasks.ticket/0/10"));
    assert_eq!((books.sums().twice, books.twice()), (1, vec!["ticket/d".to_owned()]));
}

#[test]
fn a_review_that_is_decided_before_its_answer_is_read_waits_for_nobody() {
    let mut books = whole();
    books.review_opened(&id("d"), "item-d");
    books.review_decided("item-d");
    books.sent(&id("d"), Meant::Task, &taken("tasks.ticket/0/10"));
    assert_eq!(books.missing(), ["ticket/d"], "decided, and its result is still to come");
    books.result(&id("d"), 0);
    assert!(books.sums().hold(), "{:?}", books.sums());
}

#[test]
fn a_burial_that_is_read_before_the_answer_belongs_to_it() {
    for lost_before in [false, true] {
        let mut books = whole();
        if lost_before {
            // This one never reached the processor.
            books.unanswered(&id("poison-2"));
        }
        books.letter(&id("poison-2"), 0, false, "tasks.ticket/0/10");
        books.sent(&id("poison-2"), Meant::Bad, &taken("tasks.ticket/0/10"));
        assert!(books.sums().hold(), "{:?}", books.sums());
        assert_eq!((books.sums().records, books.sums().refused), (7, 3), "lost before: {lost_before}");
    }
}

#[test]
fn a_bad_record_that_came_in_twice_since_its_answer_was_lost_is_refused_twice() {
    let burial = |books: &mut Books, at| books.letter(&id("poison-2"), 0, false, at);
    for answer_first in [true, false] {
        let mut books = whole();
        books.unanswered(&id("poison-2"));
        burial(&mut books, "tasks.ticket/0/11");
        if answer_first {
            books.sent(&id("poison-2"), Meant::Bad, &taken("tasks.ticket/0/12"));
        }
        burial(&mut books, "tasks.ticket/0/12");
        if !answer_first {
            books.sent(&id("poison-2"), Meant::Bad, &taken("tasks.ticket/0/12"));
        }
        let sums = books.sums();
        assert!(sums.hold(), "{sums:?}");
        assert_eq!((sums.records, sums.refused), (8, 4), "answer first: {answer_first}");
    }
}

#[test]
fn what_nobody_sent_is_a_stranger_by_name() {
    let mut books = whole();
    books.result(&id("who"), 0);
    books.review_opened(&id("what"), "item-what");
    books.letter(&id("where"), 0, true, "tasks.ticket/0/98");
    books.letter(&id("why"), 0, false, "tasks.ticket/0/99");
    assert_eq!(
        books.strangers(),
        ["ticket/what", "ticket/where", "ticket/who", "the record at tasks.ticket/0/99"]
    );
    let sums = books.sums();
    assert_eq!((sums.strangers, sums.tasks, sums.records, sums.hold()), (4, 3, 6, false));
}

#[test]
fn a_repeated_call_is_explained_by_a_kill_in_its_time_and_by_nothing_else() {
    let mut books = whole();
    let call = |slot: &str| (id("a"), 0, slot.to_owned());
    books.killed(1_000);
    books.repeated(call("answer.r0"), Repeat { times: 1, from: 900, to: 1_100 });
    assert!(books.sums().hold());
    assert_eq!((books.sums().repeats, books.sums().explained), (1, 1));
    // Told again by the result that came out of a review: the same call.
    books.repeated(call("answer.r0"), Repeat { times: 1, from: 900, to: 1_100 });
    assert_eq!(books.sums().repeats, 1);
    // Twice for one kill, and once without any.
    books.repeated(call("answer.r0"), Repeat { times: 2, from: 900, to: 1_100 });
    books.repeated(call("answer.r1"), Repeat { times: 1, from: 1_001, to: 1_100 });
    let sums = books.sums();
    assert_eq!((sums.repeats, sums.explained, sums.hold()), (3, 1, false));
    assert_eq!(books.unexplained(), ["ticket/a answer.r0, 2 times", "ticket/a answer.r1, 1 times"]);
}

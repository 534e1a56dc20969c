//! Mistakes about kinds: topics, keys, rules, reviews: what is said of each, word for word.

use super::says;

#[test]
fn two_kinds_on_one_topic_need_types() {
    says(
        r##"
[tasks.a]
from = "mail"
key = "task.id"
[tasks.b]
from = "mail"
key = "task.id"
type = "b"
[tasks.c]
from = "mail"
key = "task.id"
type = "b"
"##,
        r##"
error: `a` reads `mail`, and so does `b`, but it has no `type`
 --> tidegate.toml:2:8
  |
2 | from = "mail"
  |        ^^^^^^
  = help: add type = "…": the `ce_type` header tells the kinds of one topic
          apart

error: `c` and `b` both read type "b" from `mail`
  --> tidegate.toml:11:8
   |
11 | type = "b"
   |        ^^^
   = help: each record belongs to one kind; give one of them another type
"##,
    );
}

#[test]
fn an_existing_topic_needs_a_key_rule() {
    says(
        r##"
[tasks.copy]
from = "tickets.created"
"##,
        r##"
error: `tickets.created` is an existing topic, and there is no `key` rule
 --> tidegate.toml:2:8
  |
2 | from = "tickets.created"
  |        ^^^^^^^^^^^^^^^^^
  = help: say where its records carry an idempotency key: key = "task.id", or
          "headers['idempotency-key']", or key = "content" for a hash of the
          payload
"##,
    );
}

#[test]
fn a_kind_may_not_read_what_it_writes() {
    says(
        r##"
[tasks.copy]
to = "tasks.copy"
"##,
        r##"
error: this kind reads and writes `tasks.copy`
 --> tidegate.toml:2:6
  |
2 | to = "tasks.copy"
  |      ^^^^^^^^^^^^
  = help: its results would be its tasks again, for ever; give `to` another
          topic
"##,
    );
}

#[test]
fn topics_of_tidegate_itself_are_refused() {
    says(
        r##"
[tasks.copy]
from = "retry.5s"
key = "task.id"
to = "dead-letters"
"##,
        r##"
error: `retry.5s` belongs to Tidegate itself
 --> tidegate.toml:2:8
  |
2 | from = "retry.5s"
  |        ^^^^^^^^^^
  = help: kinds have topics of their own; choose another name, or another
          `engine.prefix`

error: `dead-letters` belongs to Tidegate itself
 --> tidegate.toml:4:6
  |
4 | to = "dead-letters"
  |      ^^^^^^^^^^^^^^
  = help: kinds have topics of their own; choose another name, or another
          `engine.prefix`
"##,
    );
}

#[test]
fn a_key_that_does_not_compile_is_refused() {
    says(
        r##"
[tasks.copy]
key = "task.id +"
"##,
        r##"
error: `tasks.copy.key` does not compile: line 1, column 10: mismatched input
       'end of expression' expecting {'[', '{', '(', '.', '-', '!', 'true',
       'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}
 --> tidegate.toml:2:7
  |
2 | key = "task.id +"
  |       ^^^^^^^^^^^
  = help: an expression in CEL over task, headers, such as `task.id`
"##,
    );
}

#[test]
fn a_key_may_use_task_and_headers_only() {
    says(
        r##"
[tasks.copy]
key = "tsk.id"
"##,
        r##"
error: `tasks.copy.key` does not compile: unknown name `tsk`, did you mean
       `task`?; known: task, headers
 --> tidegate.toml:2:7
  |
2 | key = "tsk.id"
  |       ^^^^^^^^
  = help: an expression in CEL over task, headers, such as `task.id`
"##,
    );
}

#[test]
fn a_rule_that_reads_a_field_no_answer_can_have_is_refused() {
    says(
        r##"
[tasks.ticket]
models = ["openai/gpt-5-mini", "anthropic/claude-haiku-4-5"]
ask    = "Classify this support ticket and extract its fields."
answer = { category = ["billing", "bug", "how-to", "other"], urgency = ["low", "high"], order_id = "string?" }
rules = [{ that = "answer.catgory != 'other'", message = "say which" }]
"##,
        r##"
error: `answer` has no field `catgory`
 --> tidegate.toml:5:19
  |
5 | rules = [{ that = "answer.catgory != 'other'", message = "say which" }]
  |                   ^^^^^^^^^^^^^^^^^^^^^^^^^^^
  = help: did you mean `answer.category`?
"##,
    );
}

#[test]
fn a_rule_that_can_be_neither_true_nor_false_is_refused() {
    says(
        r##"
[tasks.edit]
models = ["openai/gpt-5-mini", "anthropic/claude-haiku-4-5"]
ask    = "Edit."
answer = { dosage_mg = "number", sure = "boolean" }
rules = [
  { that = "answer.dosage_mg + 1" },
  { that = "answer.dosage_mg" },
  { that = "answer.sure" },
]
"##,
        r##"
error: a rule of [tasks.edit] can be neither true nor false: `+` gives a sum or
       a joined text
 --> tidegate.toml:6:12
  |
6 |   { that = "answer.dosage_mg + 1" },
  |            ^^^^^^^^^^^^^^^^^^^^^^
  = help: compare it with something, such as that = "answer.amount + 1 <= 500"

error: `answer.dosage_mg` can be neither true nor false: it is of type number
 --> tidegate.toml:7:12
  |
7 |   { that = "answer.dosage_mg" },
  |            ^^^^^^^^^^^^^^^^^^
  = help: compare it with something, such as that = "answer.amount + 1 <= 500"
"##,
    );
}

#[test]
fn a_rule_that_calls_an_unknown_function_is_told_which_there_are() {
    says(
        r##"
[tasks.edit]
models = ["openai/gpt-5-mini", "anthropic/claude-haiku-4-5"]
ask    = "Edit."
answer = { drug = "string" }
rules = [{ that = "contain_text(task.text, answer.drug)" }]
"##,
        r##"
error: a rule of [tasks.edit] does not compile: unknown function `contain_text`,
       did you mean `contains_text`?
 --> tidegate.toml:5:19
  |
5 | rules = [{ that = "contain_text(task.text, answer.drug)" }]
  |                   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  = help: besides CEL's own: contains_text(text, part), contains_words(text,
          part) (no piece of a longer word), same_text(a, b), cites(list, index,
          quote) (the text of that item contains the quote)
"##,
    );
}

#[test]
fn a_rule_without_an_expression_is_refused() {
    says(
        r##"
[tasks.ticket]
models = ["openai/gpt-5-mini", "anthropic/claude-haiku-4-5"]
ask    = "Classify this support ticket and extract its fields."
answer = { category = ["billing", "bug", "how-to", "other"], urgency = ["low", "high"], order_id = "string?" }
rules = [{ message = "say which" }]
"##,
        r##"
error: a rule of [tasks.ticket] has no `that`
 --> tidegate.toml:5:10
  |
5 | rules = [{ message = "say which" }]
  |          ^^^^^^^^^^^^^^^^^^^^^^^^^
  = help: add that = "answer.amount > 0": an expression that must be true
"##,
    );
}

#[test]
fn a_line_out_of_range_is_refused() {
    says(
        r##"
[tasks.ticket]
models = ["openai/gpt-5-mini", "anthropic/claude-haiku-4-5"]
ask    = "Classify this support ticket and extract its fields."
answer = { category = ["billing", "bug", "how-to", "other"], urgency = ["low", "high"], order_id = "string?" }
review = { below = 85, start = "always", critical = ["categry"] }
"##,
        r##"
error: `tasks.ticket.review.below` is 85, which is out of range
 --> tidegate.toml:5:20
  |
5 | review = { below = 85, start = "always", critical = ["categry"] }
  |                    ^^
  = help: from 0 to 1

error: `tasks.ticket.review.start` does not take "always"
 --> tidegate.toml:5:32
  |
5 | review = { below = 85, start = "always", critical = ["categry"] }
  |                                ^^^^^^^^
  = help: it takes "all", "sample", "line"

error: the answer has no field "categry"
 --> tidegate.toml:5:54
  |
5 | review = { below = 85, start = "always", critical = ["categry"] }
  |                                                      ^^^^^^^^^
  = help: did you mean "category"?
"##,
    );
}

#[test]
fn a_kind_that_copies_has_nothing_to_review() {
    says(
        r##"
[tasks.copy]
review = { below = 0.9 }
rules = [{ that = "true" }]
"##,
        r##"
error: `tasks.copy.review` has no effect: this kind asks no model
 --> tidegate.toml:2:10
  |
2 | review = { below = 0.9 }
  |          ^^^^^^^^^^^^^^^
  = help: add `models` and `ask` to [tasks.copy], or leave `review` out

error: `tasks.copy.rules` has no effect: this kind asks no model
 --> tidegate.toml:3:9
  |
3 | rules = [{ that = "true" }]
  |         ^^^^^^^^^^^^^^^^^^^
  = help: add `models` and `ask` to [tasks.copy], or leave `rules` out
"##,
    );
}

#[test]
fn a_name_that_no_topic_could_carry_is_refused() {
    says(
        r##"
[tasks."two words"]
"##,
        r##"
error: `two words` cannot be the name of a kind
 --> tidegate.toml:1:8
  |
1 | [tasks."two words"]
  |        ^^^^^^^^^^^
  = help: at most 64 letters, digits, `.`, `-`, `_`: it is part of a topic's
          name
"##,
    );
}

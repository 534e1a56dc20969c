//! Mistakes, and what is said of each, word for word.

use super::says;

#[test]
fn an_unknown_key_is_refused_with_a_suggestion() {
    says(
        r##"
[tasks.ticket]
modles = ["openai/gpt-5-mini", "anthropic/claude-haiku-4-5"]
ask    = "Classify this support ticket and extract its fields."
answer = { category = ["billing", "bug", "how-to", "other"], urgency = ["low", "high"], order_id = "string?" }
"##,
        r##"
error: unknown key `modles` in [tasks.ticket]
 --> tidegate.toml:2:1
  |
2 | modles = ["openai/gpt-5-mini", "anthropic/claude-haiku-4-5"]
  | ^^^^^^
  = help: did you mean `models`?
"##,
    );
}

#[test]
fn an_unknown_key_like_no_other_is_answered_with_the_known_ones() {
    says(
        r##"
[tasks.copy]
[worker]
threads = 5
"##,
        r##"
error: unknown key `threads` in [worker]
 --> tidegate.toml:3:1
  |
3 | threads = 5
  | ^^^^^^^
  = help: known here: in_flight, drain
"##,
    );
}

#[test]
fn an_unknown_section_is_refused_with_a_suggestion() {
    says(
        r##"
[tasks.copy]
[htpp]
listen = "127.0.0.1:1"
"##,
        r##"
error: unknown key `htpp` at the top of the file
 --> tidegate.toml:2:2
  |
2 | [htpp]
  |  ^^^^
  = help: did you mean `http`?
"##,
    );
}

#[test]
fn the_lines_for_kafka_are_recognised_and_refused() {
    says(
        r##"
[tasks.ticket]
models = ["openai/gpt-5-mini", "anthropic/claude-haiku-4-5"]
ask    = "Classify this support ticket and extract its fields."
answer = { category = ["billing", "bug", "how-to", "other"], urgency = ["low", "high"], order_id = "string?" }
from = "tickets.created"
key = "task.id"
to = "tickets.labelled"
[engine]
kafka = "broker:9092"
redis = "redis://redis:6379"
"##,
        r##"
error: the distributed engine (`kafka`) is not in this version
 --> tidegate.toml:9:1
  |
9 | kafka = "broker:9092"
  | ^^^^^
  = help: leave this out until then

error: the distributed engine (`redis`) is not in this version
  --> tidegate.toml:10:1
   |
10 | redis = "redis://redis:6379"
   | ^^^^^
   = help: leave this out until then
"##,
    );
}

#[test]
fn what_a_later_version_has_is_named_as_such() {
    says(
        r##"
[tasks.copy]
[tools.set]
sql = "x"
[budget]
per_day = 1.0
"##,
        r##"
error: tools are not in this version
 --> tidegate.toml:2:2
  |
2 | [tools.set]
  |  ^^^^^
  = help: leave this out until then

error: a budget per day is not in this version
 --> tidegate.toml:4:2
  |
4 | [budget]
  |  ^^^^^^
  = help: leave this out until then
"##,
    );
}

#[test]
fn a_model_that_is_not_there_is_refused_where_it_is_named() {
    says(
        r##"
[models.main]
api = "openai"
url = "https://models.example/v1"
model = "large"
window_tokens = 8_000
[tasks.ticket]
models = ["mian", "anthropic/claude-haiku-4-5"]
ask    = "Classify this support ticket and extract its fields."
answer = { category = ["billing", "bug", "how-to", "other"], urgency = ["low", "high"], order_id = "string?" }
"##,
        r##"
error: there is no model `mian`
 --> tidegate.toml:7:11
  |
7 | models = ["mian", "anthropic/claude-haiku-4-5"]
  |           ^^^^^^
  = help: did you mean `main`?
"##,
    );
}

#[test]
fn an_unknown_provider_is_refused_with_the_nearest() {
    says(
        r##"
[tasks.ticket]
models = ["openai/gpt-5-mini", "anthropc/claude-haiku-4-5"]
ask    = "Classify this support ticket and extract its fields."
answer = { category = ["billing", "bug", "how-to", "other"], urgency = ["low", "high"], order_id = "string?" }
"##,
        r##"
error: there is no model `anthropc/claude-haiku-4-5`
 --> tidegate.toml:2:32
  |
2 | models = ["openai/gpt-5-mini", "anthropc/claude-haiku-4-5"]
  |                                ^^^^^^^^^^^^^^^^^^^^^^^^^^^
  = help: did you mean `anthropic/claude-haiku-4-5`?
"##,
    );
}

#[test]
fn an_unknown_provider_like_no_other_says_how_to_describe_a_model() {
    says(
        r##"
[tasks.ticket]
models = ["openai/gpt-5-mini", "acme/one"]
ask    = "Classify this support ticket and extract its fields."
answer = { category = ["billing", "bug", "how-to", "other"], urgency = ["low", "high"], order_id = "string?" }
"##,
        r##"
error: there is no model `acme/one`
 --> tidegate.toml:2:32
  |
2 | models = ["openai/gpt-5-mini", "acme/one"]
  |                                ^^^^^^^^^^
  = help: name a model of openai, anthropic as `provider/model`, or describe it
          in [models."acme/one"] with api, url, model and window_tokens
"##,
    );
}

#[test]
fn what_is_missing_of_an_unknown_model_is_asked_for() {
    says(
        r##"
[tasks.ticket]
models = ["openai/my-tuned-one", "anthropic/claude-haiku-4-5"]
ask    = "Classify this support ticket and extract its fields."
answer = { category = ["billing", "bug", "how-to", "other"], urgency = ["low", "high"], order_id = "string?" }
"##,
        r##"
error: the `window_tokens` of model `openai/my-tuned-one` is not known
 --> tidegate.toml:2:11
  |
2 | models = ["openai/my-tuned-one", "anthropic/claude-haiku-4-5"]
  |           ^^^^^^^^^^^^^^^^^^^^^
  = help: add window_tokens = 128_000 (prompt and answer together, as its
          provider says) to [models."openai/my-tuned-one"]
"##,
    );
}

#[test]
fn a_model_of_its_own_needs_api_url_model_and_window() {
    says(
        r##"
[models.main]
key = "env:OPENAI_API_KEY"
[tasks.ticket]
models = ["main", "anthropic/claude-haiku-4-5"]
ask    = "Classify this support ticket and extract its fields."
answer = { category = ["billing", "bug", "how-to", "other"], urgency = ["low", "high"], order_id = "string?" }
"##,
        r##"
error: the `api` of model `main` is not known
 --> tidegate.toml:1:9
  |
1 | [models.main]
  |         ^^^^
  = help: add api = "openai" or "anthropic" to [models.main]

error: the `url` of model `main` is not known
 --> tidegate.toml:1:9
  |
1 | [models.main]
  |         ^^^^
  = help: add url = "https://host/v1" to [models.main]

error: the `model` of model `main` is not known
 --> tidegate.toml:1:9
  |
1 | [models.main]
  |         ^^^^
  = help: add model = "the endpoint's name for it" to [models.main]

error: the `window_tokens` of model `main` is not known
 --> tidegate.toml:1:9
  |
1 | [models.main]
  |         ^^^^
  = help: add window_tokens = 128_000 (prompt and answer together, as its
          provider says) to [models.main]
"##,
    );
}

#[test]
fn a_missing_secret_names_its_variable_and_where_it_is_used() {
    says(
        r##"
[models.main]
api = "openai"
url = "https://models.example/v1"
model = "large"
window_tokens = 8_000
key = "env:MODEL_KEY"
[tasks.ticket]
models = ["main", "anthropic/claude-haiku-4-5"]
ask    = "Classify this support ticket and extract its fields."
answer = { category = ["billing", "bug", "how-to", "other"], urgency = ["low", "high"], order_id = "string?" }
"##,
        r##"
error: model `main` has no key: the environment variable MODEL_KEY is not set
 --> tidegate.toml:6:7
  |
6 | key = "env:MODEL_KEY"
  |       ^^^^^^^^^^^^^^^
  = help: set it where `tidegate` is started, or name another variable
"##,
    );
}

#[test]
fn a_missing_secret_file_is_named() {
    says(
        r##"
[models.main]
api = "openai"
url = "https://models.example/v1"
model = "large"
window_tokens = 8_000
key = "file:secrets/model"
[tasks.ticket]
models = ["main", "anthropic/claude-haiku-4-5"]
ask    = "Classify this support ticket and extract its fields."
answer = { category = ["billing", "bug", "how-to", "other"], urgency = ["low", "high"], order_id = "string?" }
"##,
        r##"
error: model `main` has no key: cannot read ./secrets/model: No such file or
       directory (os error 2)
 --> tidegate.toml:6:7
  |
6 | key = "file:secrets/model"
  |       ^^^^^^^^^^^^^^^^^^^^
  = help: write the secret, and nothing else, into that file; paths start at the
          configuration file's directory
"##,
    );
}

#[test]
fn a_secret_in_the_file_is_refused_and_not_quoted() {
    says(
        r##"
[models.main]
api = "openai"
url = "https://models.example/v1"
model = "large"
key = "sk-live-51H"
window_tokens = 8_000
[tasks.copy]
"##,
        r##"
error: `models.main.key` does not say where the secret is
 --> tidegate.toml:5:7
  |
5 | key = *************
  |       ^^^^^^^^^^^^^
  = help: a secret never stands in the configuration: write "env:NAME" for an
          environment variable or "file:PATH" for a file; if one stood here,
          replace it at its provider
"##,
    );
}

#[test]
fn a_secret_in_a_line_with_another_mistake_is_not_quoted() {
    says(
        r##"
[models]
main = { api = "opnai", key = "sk-live-51H", url = "http://h/v1", model = "m", window_tokens = 9000 }
[tasks.copy]
"##,
        r##"
error: `models.main.api` does not take "opnai"
 --> tidegate.toml:2:16
  |
2 | main = { api = "opnai", key = *************, url = "http://h/v1", model = "…
  |                ^^^^^^^
  = help: did you mean "openai"? It takes "openai", "anthropic"

error: `models.main.key` does not say where the secret is
 --> tidegate.toml:2:31
  |
2 | … { api = "opnai", key = *************, url = "http://h/v1", model = "m", w…
  |                          ^^^^^^^^^^^^^
  = help: a secret never stands in the configuration: write "env:NAME" for an
          environment variable or "file:PATH" for a file; if one stood here,
          replace it at its provider
"##,
    );
}

#[test]
fn a_secret_in_a_broken_line_is_not_quoted() {
    says(
        r##"
[models.main]
key = "sk-live-51H
[tasks.copy]
"##,
        r##"
error: not valid TOML: invalid basic string, expected `"`
 --> tidegate.toml:2:19
  |
2 | key =*************
  |                   ^
  = help: TOML: key = value, texts in quotes, [section] in brackets
"##,
    );
}

#[test]
fn a_url_with_a_password_is_refused() {
    says(
        r##"
[models.main]
api = "openai"
url = "https://me:pw@models.example/v1"
model = "large"
window_tokens = 8_000
[tasks.copy]
"##,
        r##"
error: `models.main.url` carries a name or password
 --> tidegate.toml:3:7
  |
3 | url = *********************************
  |       ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  = help: put the secret into `key` or `headers`, as env:NAME or file:PATH
"##,
    );
}

#[test]
fn phi_reaches_only_models_that_are_allowed_it() {
    says(
        r##"
[models.main]
api = "openai"
url = "https://models.example/v1"
model = "large"
window_tokens = 8_000
allows = ["phi"]
[tasks.ticket]
models = ["main", "anthropic/claude-haiku-4-5"]
ask    = "Classify this support ticket and extract its fields."
answer = { category = ["billing", "bug", "how-to", "other"], urgency = ["low", "high"], order_id = "string?" }
data = "phi"
sanitizer = "openai/gpt-5-mini"
"##,
        r##"
error: `anthropic/claude-haiku-4-5` may not see tasks with data = "phi"
 --> tidegate.toml:8:19
  |
8 | models = ["main", "anthropic/claude-haiku-4-5"]
  |                   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  = help: take it out of this kind; or, if its provider may have such data, add
          allows = ["phi"] to [models."anthropic/claude-haiku-4-5"]

error: `openai/gpt-5-mini` may not see tasks with data = "phi"
  --> tidegate.toml:12:13
   |
12 | sanitizer = "openai/gpt-5-mini"
   |             ^^^^^^^^^^^^^^^^^^^
   = help: take it out of this kind; or, if its provider may have such data, add
           allows = ["phi"] to [models."openai/gpt-5-mini"]
"##,
    );
}

#[test]
fn negative_prices_are_refused() {
    says(
        r##"
[models.main]
api = "openai"
url = "https://models.example/v1"
model = "large"
window_tokens = 8_000
price = { input = -0.25, output = 2.0 }
[tasks.copy]
"##,
        r##"
error: `models.main.price.input` is -0.25, which is out of range
 --> tidegate.toml:6:19
  |
6 | price = { input = -0.25, output = 2.0 }
  |                   ^^^^^
  = help: from 0 to 1000000
"##,
    );
}

#[test]
fn half_a_price_is_refused() {
    says(
        r##"
[models.main]
api = "openai"
url = "https://models.example/v1"
model = "large"
window_tokens = 8_000
price = { input = 0.25 }
[tasks.copy]
"##,
        r##"
error: `models.main.price.output` is missing
 --> tidegate.toml:6:9
  |
6 | price = { input = 0.25 }
  |         ^^^^^^^^^^^^^^^^
  = help: per million tokens; leave `price` out if it is not known: cost is null
          then
"##,
    );
}

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
fn missing_files_are_named_with_what_to_do() {
    says(
        r##"
[tasks.note]
models = ["openai/gpt-5-mini"]
ask = "prompts/note.md"
answer = "schemas/note.json"
input = "schemas/note.input.json"
"##,
        r##"
error: there is no prompt at ./prompts/note.md
 --> tidegate.toml:3:7
  |
3 | ask = "prompts/note.md"
  |       ^^^^^^^^^^^^^^^^^
  = help: create it, or mend the path; paths start at the configuration file's
          directory

error: there is no answer schema at ./schemas/note.json
 --> tidegate.toml:4:10
  |
4 | answer = "schemas/note.json"
  |          ^^^^^^^^^^^^^^^^^^^
  = help: create it, or mend the path; paths start at the configuration file's
          directory

error: there is no input schema at ./schemas/note.input.json
 --> tidegate.toml:5:9
  |
5 | input = "schemas/note.input.json"
  |         ^^^^^^^^^^^^^^^^^^^^^^^^^
  = help: create it, or mend the path; paths start at the configuration file's
          directory
"##,
    );
}

#[test]
fn a_kind_that_asks_needs_models_a_prompt_and_an_answer() {
    says(
        r##"
[tasks.a]
models = ["openai/gpt-5-mini"]
[tasks.b]
ask = "Say yes."
"##,
        r##"
error: [tasks.a] has no `ask`
 --> tidegate.toml:1:8
  |
1 | [tasks.a]
  |        ^
  = help: add ask = "what the model should do", or the path of a prompt

error: [tasks.a] has no `answer`
 --> tidegate.toml:1:8
  |
1 | [tasks.a]
  |        ^
  = help: add answer = { field = "string" }, or the path of a JSON Schema

error: [tasks.b] has no `models`
 --> tidegate.toml:3:8
  |
3 | [tasks.b]
  |        ^
  = help: add models = ["openai/gpt-5-mini"], preferred first

error: [tasks.b] has no `answer`
 --> tidegate.toml:3:8
  |
3 | [tasks.b]
  |        ^
  = help: add answer = { field = "string" }, or the path of a JSON Schema
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
fn a_plan_of_two_steps_is_not_in_this_version() {
    says(
        r##"
[tasks.edit]
models = ["openai/gpt-5-mini"]
[[tasks.edit.steps]]
name = "edit"
ask = "Edit."
answer = { dose = "number" }
[[tasks.edit.steps]]
name = "apply"
use = "set-dosage"
with = { mg = "edit.dose" }
"##,
        r##"
error: a plan of more than one step is not in this version
 --> tidegate.toml:7:1
  |
7 | [[tasks.edit.steps]]
  | ^^^^^^^^^^^^^^^^^^^^
  = help: keep the first; a step that asks is all a plan can have until tools
          come

error: tools (`use`) are not in this version
 --> tidegate.toml:9:1
  |
9 | use = "set-dosage"
  | ^^^
  = help: leave this out until then

error: tools (`with`) are not in this version
  --> tidegate.toml:10:1
   |
10 | with = { mg = "edit.dose" }
   | ^^^^
   = help: leave this out until then
"##,
    );
}

#[test]
fn others_are_not_let_in_without_authentication() {
    says(
        r##"
[tasks.copy]
[http]
listen = "0.0.0.0:8080"
"##,
        r##"
error: `http.listen` would open 0.0.0.0:8080 to others without authentication
 --> tidegate.toml:3:10
  |
3 | listen = "0.0.0.0:8080"
  |          ^^^^^^^^^^^^^^
  = help: this version has none, so it answers on this machine only: listen on
          127.0.0.1 or [::1], and put a proxy that authenticates in front
"##,
    );
}

#[test]
fn durations_and_sizes_carry_their_units() {
    says(
        r##"
[tasks.copy]
deadline = 30
[engine]
record_max = "1 megabyte"
dedupe_window = "7"
retention = "1d"
"##,
        r##"
error: `tasks.copy.deadline` is not a duration
 --> tidegate.toml:2:12
  |
2 | deadline = 30
  |            ^^
  = help: a number with its unit, in quotes: "500ms", "30s", "5m", "1h30m", "7d"

error: `engine.record_max` is not a size
 --> tidegate.toml:4:14
  |
4 | record_max = "1 megabyte"
  |              ^^^^^^^^^^^^
  = help: a number with its unit, in quotes: "512KiB", "1MiB", "20GiB"

error: `engine.dedupe_window` is not a duration
 --> tidegate.toml:5:17
  |
5 | dedupe_window = "7"
  |                 ^^^
  = help: a number with its unit, in quotes: "500ms", "30s", "5m", "1h30m", "7d"
"##,
    );
}

#[test]
fn forms_are_checked() {
    says(
        r##"
[tasks.copy]
[worker]
in_flight = "many"
[log]
format = "xml"
level = 3
[engine]
partitions = -1
"##,
        r##"
error: `worker.in_flight` should be a whole number, not negative, but is a text
 --> tidegate.toml:3:13
  |
3 | in_flight = "many"
  |             ^^^^^^

error: `log.format` does not take "xml"
 --> tidegate.toml:5:10
  |
5 | format = "xml"
  |          ^^^^^
  = help: it takes "text", "json"

error: `log.level` should be a text in quotes, but is a whole number
 --> tidegate.toml:6:9
  |
6 | level = 3
  |         ^

error: `engine.partitions` should be a whole number, not negative, but is
       negative
 --> tidegate.toml:8:14
  |
8 | partitions = -1
  |              ^^
"##,
    );
}

#[test]
fn numbers_out_of_range_are_refused() {
    says(
        r##"
[tasks.copy]
allowance = { tries = 0, time = "2d" }
[worker]
in_flight = 0
"##,
        r##"
error: `tasks.copy.allowance.tries` is 0, which is out of range
 --> tidegate.toml:2:23
  |
2 | allowance = { tries = 0, time = "2d" }
  |                       ^
  = help: from 1 to 100

error: `tasks.copy.allowance.time` is 2d, which is out of range
 --> tidegate.toml:2:33
  |
2 | allowance = { tries = 0, time = "2d" }
  |                                 ^^^^
  = help: from 1s to 1d

error: `worker.in_flight` is 0, which is out of range
 --> tidegate.toml:4:13
  |
4 | in_flight = 0
  |             ^
  = help: from 1 to 100000
"##,
    );
}

#[test]
fn money_cannot_be_limited_where_a_price_is_unknown() {
    says(
        r##"
[models.main]
api = "openai"
url = "https://models.example/v1"
model = "large"
window_tokens = 8_000
[tasks.ticket]
models = ["main"]
ask    = "Classify this support ticket and extract its fields."
answer = { category = ["billing", "bug", "how-to", "other"], urgency = ["low", "high"], order_id = "string?" }
allowance = { money = 0.05 }
"##,
        r##"
error: `tasks.ticket.allowance.money` cannot be kept: the price of `main` is not
       known
  --> tidegate.toml:10:23
   |
10 | allowance = { money = 0.05 }
   |                       ^^^^
   = help: add price = { input = 0.25, output = 2.0 } to [models.main], per
           million tokens
"##,
    );
}

#[test]
fn a_syntax_error_is_shown_where_it_is() {
    says(
        r##"
[tasks.ticket]
models = ["openai/gpt-5-mini"
ask = "x"
"##,
        r##"
error: not valid TOML: missing comma between array elements, expected `,`
 --> tidegate.toml:3:1
  |
3 | ask = "x"
  | ^
  = help: TOML: key = value, texts in quotes, [section] in brackets
"##,
    );
}

#[test]
fn a_kind_given_twice_is_refused() {
    says(
        r##"
[tasks.copy]
[tasks.copy]
"##,
        r##"
error: not valid TOML: duplicate key
 --> tidegate.toml:2:8
  |
2 | [tasks.copy]
  |        ^^^^
  = help: a key or section is given once; join the two
"##,
    );
}

#[test]
fn a_file_without_kinds_is_refused() {
    says(
        r##"
[worker]
in_flight = 5
"##,
        r##"
error: there is no task kind
  = help: add one: [tasks.NAME] with models, ask and answer
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

#[test]
fn names_in_a_line_up_are_given_once() {
    says(
        r##"
[tasks.ticket]
models = ["openai/gpt-5-mini", "openai/gpt-5-mini"]
ask    = "Classify this support ticket and extract its fields."
answer = { category = ["billing", "bug", "how-to", "other"], urgency = ["low", "high"], order_id = "string?" }
"##,
        r##"
error: `openai/gpt-5-mini` is in the line-up already
 --> tidegate.toml:2:32
  |
2 | models = ["openai/gpt-5-mini", "openai/gpt-5-mini"]
  |                                ^^^^^^^^^^^^^^^^^^^
  = help: the order is the order of fallback; name each model once
"##,
    );
}

#[test]
fn parameters_that_tidegate_writes_itself_are_refused() {
    says(
        r##"
[models.main]
api = "openai"
url = "https://models.example/v1"
model = "large"
window_tokens = 8_000
params = { stream = false }
[tasks.copy]
"##,
        r##"
error: `models.main.params` may not set `stream`
 --> tidegate.toml:6:10
  |
6 | params = { stream = false }
  |          ^^^^^^^^^^^^^^^^^^
  = help: Tidegate writes it into each request itself; leave it out
"##,
    );
}

#[test]
fn a_shorthand_that_is_wrong_is_shown_at_its_field() {
    says(
        r##"
[tasks.ticket]
models = ["openai/gpt-5-mini", "anthropic/claude-haiku-4-5"]
ask    = "Classify this support ticket and extract its fields."
answer = { category = ["billing", "bug", "how-to", "other"], urgency = { level = "text", since = "date" }, order_id = "strng" }
"##,
        r##"
error: `tasks.ticket.answer` cannot be used: at `urgency.level`: unknown type
       `text`, did you mean `string`? Known: `string`, `number`, `integer`,
       `boolean`, `date`
 --> tidegate.toml:4:82
  |
4 | …ther"], urgency = { level = "text", since = "date" }, order_id = "strng" }
  |                              ^^^^^^
"##,
    );
}

#[test]
fn a_schema_that_is_wrong_is_refused() {
    says(
        r##"
[tasks.ticket]
models = ["openai/gpt-5-mini", "anthropic/claude-haiku-4-5"]
ask    = "Classify this support ticket and extract its fields."
answer = { category = ["billing", "bug", "how-to", "other"], urgency = ["low", "high"], order_id = [] }
"##,
        r##"
error: `tasks.ticket.answer` cannot be used: at `order_id`: an empty list; name
       the allowed values
 --> tidegate.toml:4:100
  |
4 | …ng", "bug", "how-to", "other"], urgency = ["low", "high"], order_id = [] }
  |                                                                        ^^
"##,
    );
}

#[test]
fn a_secret_under_a_name_we_do_not_know_is_not_quoted() {
    says(
        r##"
[models.main]
api = "openai"
url = "https://models.example/v1"
model = "large"
window_tokens = 8_000
api_key = "sk-live-51H"
[tasks.copy]
[http]
bearer_token = "sk-live-51H"
"##,
        r##"
error: unknown key `api_key` in [models.main]
 --> tidegate.toml:6:1
  |
6 | api_key = *************
  | ^^^^^^^
  = help: did you mean `api`?

error: unknown key `bearer_token` in [http]
 --> tidegate.toml:9:1
  |
9 | bearer_token = *************
  | ^^^^^^^^^^^^
  = help: known here: listen, body_max
"##,
    );
}

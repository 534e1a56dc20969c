//! Mistakes about what is asked: line-ups, prompts, schemas, steps: what is said of each, word for word.

use super::says;

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
fn a_prompt_that_is_no_template_is_refused() {
    says(
        r##"
[tasks.ticket]
models = ["openai/gpt-5-mini", "anthropic/claude-haiku-4-5"]
ask    = "Classify {{ task.text }."
answer = { category = ["billing", "bug", "how-to", "other"], urgency = ["low", "high"], order_id = "string?" }
"##,
        r##"
error: the prompt `tasks.ticket.ask`: syntax error: unexpected `}`, expected end
       of variable block in line 1
 --> tidegate.toml:3:10
  |
3 | ask    = "Classify {{ task.text }."
  |          ^^^^^^^^^^^^^^^^^^^^^^^^^^
  = help: this is Jinja, because it has `{{`, `{%` or `{#`; `task` is the
          payload
"##,
    );
}

#[test]
fn a_prompt_that_reads_a_field_no_task_can_have_is_refused() {
    says(
        r##"
[tasks.ticket]
models = ["openai/gpt-5-mini", "anthropic/claude-haiku-4-5"]
ask    = "Classify {{ task.txet }}, {{ ticket.id }}."
answer = { category = ["billing", "bug", "how-to", "other"], urgency = ["low", "high"], order_id = "string?" }
input = { text = "string", id = "integer" }
"##,
        r##"
error: the prompt `tasks.ticket.ask` reads `ticket.id`, which is not there
 --> tidegate.toml:3:10
  |
3 | ask    = "Classify {{ task.txet }}, {{ ticket.id }}."
  |          ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  = help: the payload is `task`, its fields `task.title`

error: `task` has no field `txet`
 --> tidegate.toml:3:10
  |
3 | ask    = "Classify {{ task.txet }}, {{ ticket.id }}."
  |          ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  = help: did you mean `task.text`?
"##,
    );
}

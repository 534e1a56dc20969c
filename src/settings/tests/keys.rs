//! Mistakes in what is written at all, and in forms and ranges: what is said of each, word for word.

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
